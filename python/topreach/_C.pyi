"""Types of the extension: the classes that Python and C++ share (csrc/python/bind_*.cpp).

Shapes: T periods, S sites, P features, M draws, W counts before a period, N known periods. Of
events: N events at I places, of S types, with Q marks; a node is a place and a type.

A time is a float: a number as it is, or the days since 1970-01-01 of a date. Tensors are on the
caller's device unless "CPU" is said. tests/python/test_stub.py compares this file with the
extension.
"""

from collections.abc import Callable, Sequence
from typing import Any, SupportsFloat, SupportsIndex, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Generator, Tensor

# ---- bind_calendar.cpp ---------------------------------------------------------------------------

class Calendar:
    @overload
    def __init__(self) -> None: ...
    @overload
    def __init__(
        self,
        unit: str,  # "number", "hour", "day", "week", "month", "quarter" or "year"
        step: SupportsFloat,  # length of a period in units, > 0
        origin: SupportsFloat,  # a time at which a period begins
        format: str = "",  # how times are written: a strftime pattern; "": numbers
    ) -> None: ...
    @staticmethod
    def infer(
        times: Sequence[float] | NDArray[np.float64],  # [T], distinct and ascending
        dates: bool,
        unit: str = "",
        format: str = "",
    ) -> Calendar: ...
    @property
    def unit(self) -> str: ...
    @property
    def step(self) -> float: ...
    @property
    def origin(self) -> float: ...
    @property
    def format(self) -> str: ...
    @property
    def is_dates(self) -> bool: ...
    def index(self, time: SupportsFloat) -> int: ...  # number of the period; 0 at the origin
    def at(self, index: SupportsIndex) -> float: ...  # first moment of that period
    def begins(self, time: SupportsFloat) -> bool: ...
    def distance(self, a: SupportsFloat, b: SupportsFloat) -> int: ...  # in periods
    def next(self, time: SupportsFloat, n: SupportsIndex = 1) -> float: ...  # n periods later
    def label(self, time: SupportsFloat) -> str: ...
    def parse(self, text: str) -> float: ...
    def periods_per_year(self) -> int: ...  # 0: no whole number
    def describe(self) -> str: ...
    def check_same(self, function: str, other: Calendar) -> None: ...
    def __copy__(self) -> Calendar: ...
    def __deepcopy__(self, memo: dict[Any, Any]) -> Calendar: ...
    def __hash__(self) -> int: ...

# ---- bind_events.cpp -----------------------------------------------------------------------------

class Events:
    """Times are days (or the table's own unit) after the window's start; those <= 0 are history."""

    def __init__(
        self,
        *,
        places: Sequence[str],  # I
        types: Sequence[str],  # S
        mark_names: Sequence[str],  # Q
        ids: Sequence[str],  # N
        times: ArrayLike,  # [N] float64, ascending
        place: ArrayLike,  # [N] int64
        flags: ArrayLike,  # [N, S] uint8: of which types the event is
        marks: ArrayLike,  # [N, Q] float64
        complete_through: float,
        end: float,
        start: float = 0.0,  # of the window: days since 1970-01-01, or the table's own number
        dates: bool = False,
    ) -> None: ...
    @staticmethod
    def read_csv(path: str) -> Events: ...
    def write_csv(self, path: str) -> None: ...
    @property
    def places(self) -> list[str]: ...
    @property
    def types(self) -> list[str]: ...
    @property
    def mark_names(self) -> list[str]: ...
    @property
    def ids(self) -> list[str]: ...
    @property
    def times(self) -> NDArray[np.float64]: ...  # [N]
    @property
    def place(self) -> NDArray[np.int64]: ...  # [N]
    @property
    def flags(self) -> NDArray[np.uint8]: ...  # [N, S]
    @property
    def marks(self) -> NDArray[np.float64]: ...  # [N, Q]
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...
    @property
    def complete_through(self) -> float: ...
    @property
    def dates(self) -> bool: ...
    def node_events(
        self,
    ) -> tuple[
        NDArray[np.float64],  # times; an event of c types has c entries
        NDArray[np.int64],  # node
        NDArray[np.int64],  # event
        NDArray[np.float64],  # share, 1 / c
    ]: ...
    # by: "place", "type" or "node"; there is a column for each of these.
    def counts(self, edges: ArrayLike, by: str) -> NDArray[np.int64]: ...  # [B, columns]
    def counts_before(self, times: ArrayLike, by: str) -> NDArray[np.int64]: ...  # [B, columns]
    def whole_periods(self, calendar: Calendar) -> NDArray[np.float64]: ...  # edges
    def block_edges(self, calendar: Calendar, also: ArrayLike) -> NDArray[np.float64]: ...
    def recent_rate(
        self,
        times: ArrayLike,  # [B]
        length: float,  # days
        by: str,
    ) -> NDArray[np.float64]: ...  # [B, columns], log of events per day
    def shared_types(
        self,
        times: ArrayLike,  # [B], ascending
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...  # [B, I, S, S] and [B, I]
    @staticmethod
    def shifts(ids: Sequence[str]) -> NDArray[np.float64]: ...  # in (0, 1)
    @staticmethod
    def hashes(texts: Sequence[str]) -> NDArray[np.uint64]: ...

# ---- bind_forecast.cpp ---------------------------------------------------------------------------

class Forecast:
    """Counts [..., S]."""

    def __init__(self, distribution: object) -> None: ...
    @staticmethod
    def negative_binomial(total_count: Tensor, logits: Tensor, /) -> Forecast: ...  # [..., S]
    @staticmethod
    def poisson(rate: Tensor, /) -> Forecast: ...  # [..., S]
    @staticmethod
    def binomial(total_count: Tensor, probs: Tensor, /) -> Forecast: ...  # [..., S]
    @staticmethod
    def bernoulli(probs: Tensor, /) -> Forecast: ...  # [..., S]
    @staticmethod
    def zero_inflated(base: Forecast, probs: Tensor) -> Forecast: ...  # probs [..., S]
    @staticmethod
    def mixture(
        weights: Tensor,  # [..., L]
        components: Forecast,  # [..., L, S]
    ) -> Forecast: ...
    @staticmethod
    def site_mixture(
        family: str,  # "poisson" or "truncated_normal"
        logits: Tensor,  # [..., S, L]
        first: Tensor,  # rates or locations [..., S, L]
        second: Tensor | None = None,  # scales [..., S, L]
    ) -> Forecast: ...
    @staticmethod
    def sampled(draws: Tensor, /) -> Forecast: ...  # [M, ..., S]
    @property
    def mean(self) -> Tensor: ...  # [..., S]
    @property
    def variance(self) -> Tensor: ...  # [..., S]
    def sample(
        self,
        num_samples: int,  # M
        *,
        key: Tensor | None = None,  # int64 [2]
        generator: Generator | None = None,
        row_offset: int = 0,
    ) -> Tensor: ...  # [M, ..., S]
    def site_log_prob(self, y: Tensor) -> Tensor: ...  # like y, [..., S] or [M, ..., S]
    def joint_log_prob(self, y: Tensor) -> Tensor: ...  # [...] or [M, ...]
    def cdf(self, y: Tensor) -> Tensor: ...  # like y, float64
    def quantile(self, probability: float) -> Tensor: ...  # [..., S]
    def interval_log_prob(self, low: Tensor, high: Tensor) -> Tensor: ...  # [..., S]
    def expected_ratio(self, offset: float = 0.0) -> Tensor | None: ...  # [..., S]
    @property
    def has_expected_ratio(self) -> bool: ...
    @property
    def whole_counts(self) -> bool: ...
    @property
    def independent_sites(self) -> bool: ...

# ---- bind_plan.cpp -------------------------------------------------------------------------------

class Graph:
    """N nodes with ids, and undirected edges, stored twice: the neighbours of node i are
    neighbours[start[i]:start[i + 1]]."""

    def __init__(
        self,
        *,
        ids: Sequence[str],
        from_nodes: ArrayLike,
        to_nodes: ArrayLike,
        weights: ArrayLike = ...,
    ) -> None: ...
    @staticmethod
    def from_edges(
        *,
        ids: Sequence[str],
        from_ids: Sequence[str],
        to_ids: Sequence[str],
        weights: ArrayLike = ...,
    ) -> Graph: ...
    @property
    def ids(self) -> list[str]: ...
    @property
    def num_nodes(self) -> int: ...
    @property
    def num_edges(self) -> int: ...
    @property
    def has_weights(self) -> bool: ...
    @property
    def start(self) -> NDArray[np.int64]: ...
    @property
    def neighbours(self) -> NDArray[np.int32]: ...
    @property
    def weights(self) -> NDArray[np.float64]: ...
    def index_of(self, id: str) -> int: ...
    def reordered(self, ids: Sequence[str]) -> Graph: ...
    def components(self) -> NDArray[np.int32]: ...
    def steps_from(
        self, sources: Sequence[SupportsIndex], limit: SupportsIndex = ...
    ) -> NDArray[np.int32]: ...

class PlanConstraints:
    def __init__(
        self, k: SupportsIndex, groupings: Sequence[Grouping], lock: ArrayLike
    ) -> None: ...
    @property
    def lock(self) -> NDArray[np.int8]: ...  # [S], 1 in, -1 out, 0 free; or empty

class PlanSolved:
    """The result that `topreach.plan.Plan` holds; sites are numbered by their rows in the input."""

    @property
    def program(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def maximised(self) -> bool: ...
    @property
    def chosen(self) -> NDArray[np.int32]: ...
    @property
    def value(self) -> float: ...
    @property
    def bound(self) -> float | None: ...
    @property
    def gap(self) -> float | None: ...
    @property
    def seconds(self) -> float: ...
    @property
    def numbers(self) -> dict[str, float]: ...
    @property
    def columns(self) -> dict[str, NDArray[np.float64]]: ...
    @property
    def parts(self) -> list[list[int]]: ...
    @property
    def edges(self) -> list[tuple[int, int]]: ...
    @property
    def amounts(self) -> NDArray[np.float64]: ...
    @property
    def essential(self) -> NDArray[np.int32]: ...
    @property
    def replaceable(self) -> NDArray[np.int32]: ...
    @property
    def notes(self) -> list[str]: ...

class PlannedProgram(Program): ...

def plain_id(id: str) -> str: ...
def did_you_mean(unknown: str, ids: Sequence[str]) -> str: ...
def has_highs() -> bool: ...
def highs_version() -> str: ...
def quota_arguments(
    groupings: Sequence[Grouping], lock: Sequence[SupportsIndex]
) -> dict[str, Any]: ...
def plan_assign(
    need: ArrayLike,
    capacity: ArrayLike,
    if_opened: ArrayLike,
    open: SupportsIndex,
    distance: ArrayLike,
    radius: SupportsFloat,
    unserved: SupportsFloat,
    prices: bool,
    gap: SupportsFloat = 1e-4,
    time: SupportsFloat = ...,
) -> PlanSolved: ...
def plan_budget_topk(
    scores: ArrayLike,
    cost: ArrayLike,
    budget: SupportsFloat,
    constraints: PlanConstraints,
    gap: SupportsFloat = 1e-4,
    time: SupportsFloat = ...,
) -> PlanSolved: ...
def plan_call_in(
    graph: Graph,
    comes: ArrayLike,
    passes: ArrayLike,
    constraints: PlanConstraints,
    weight: ArrayLike,
    capped: bool = False,
    gap: SupportsFloat = 1e-4,
    time: SupportsFloat = ...,
) -> PlanSolved: ...
def plan_connected(
    scores: ArrayLike,
    graph: Graph,
    constraints: PlanConstraints,
    gap: SupportsFloat = 1e-4,
    time: SupportsFloat = ...,
) -> PlanSolved: ...
def plan_coverage(
    graph: Graph,
    weight: ArrayLike,
    constraints: PlanConstraints,
    gap: SupportsFloat = 1e-4,
    time: SupportsFloat = ...,
) -> PlanSolved: ...
def plan_coverage_of(
    seeds: SupportsIndex,
    a: ArrayLike,
    weight: ArrayLike,
    start: ArrayLike,
    seed: ArrayLike,
    chance: ArrayLike,
    constraints: PlanConstraints,
    capped: bool = False,
    gap: SupportsFloat = 1e-4,
    time: SupportsFloat = ...,
) -> PlanSolved: ...
def plan_dominating_set(
    graph: Graph,
    cost: ArrayLike,
    lock: ArrayLike,
    gap: SupportsFloat = 1e-4,
    time: SupportsFloat = ...,
) -> PlanSolved: ...
def plan_fair(
    scores: ArrayLike,
    fair_to: Grouping,
    floors: ArrayLike,
    constraints: PlanConstraints,
    gap: SupportsFloat = 1e-4,
    time: SupportsFloat = ...,
) -> PlanSolved: ...
def plan_phased(
    scores: ArrayLike,
    k: Sequence[SupportsIndex],
    sites: SupportsIndex,
    opening: ArrayLike,
    before: ArrayLike,
    rest: SupportsIndex,
    most_visits: SupportsIndex,
    constraints: PlanConstraints,
    gap: SupportsFloat = 1e-4,
    time: SupportsFloat = ...,
) -> PlanSolved: ...
def plan_quota_topk(
    scores: ArrayLike,
    constraints: PlanConstraints,
    gap: SupportsFloat = 1e-4,
    time: SupportsFloat = ...,
) -> PlanSolved: ...
def plan_quota_topk_rows(
    scores: ArrayLike, sites: SupportsIndex, constraints: PlanConstraints
) -> NDArray[np.uint8]: ...
def plan_reach_at_least(
    graph: Graph,
    comes: ArrayLike,
    passes: ArrayLike,
    reach: SupportsFloat,
    capped: bool = False,
    gap: SupportsFloat = 1e-4,
    time: SupportsFloat = ...,
) -> PlanSolved: ...
def plan_spaced(
    scores: ArrayLike,
    x: ArrayLike,
    y: ArrayLike,
    distance: SupportsFloat,
    constraints: PlanConstraints,
    gap: SupportsFloat = 1e-4,
    time: SupportsFloat = ...,
) -> PlanSolved: ...
def plan_spaced_graph(
    scores: ArrayLike,
    too_close: Graph,
    constraints: PlanConstraints,
    gap: SupportsFloat = 1e-4,
    time: SupportsFloat = ...,
) -> PlanSolved: ...
def plan_spillover(
    graph: Graph,
    treated: ArrayLike,
    spilled: ArrayLike,
    constraints: PlanConstraints,
    compliance: ArrayLike,
    gap: SupportsFloat = 1e-4,
    time: SupportsFloat = ...,
) -> PlanSolved: ...
def plan_subgraph(
    graph: Graph,
    terminals: Sequence[SupportsIndex],
    neighbours: bool = False,
    gap: SupportsFloat = 1e-4,
    time: SupportsFloat = ...,
) -> PlanSolved: ...
def plan_tour_gain(
    events: ArrayLike, area: ArrayLike, rho: SupportsFloat
) -> NDArray[np.float64]: ...
def plan_tours(
    graph: Graph,
    gain: ArrayLike,
    k: SupportsIndex,
    size: ArrayLike,
    min_size: SupportsFloat,
    max_size: SupportsFloat,
    lock: ArrayLike,
    gap: SupportsFloat = 1e-4,
    time: SupportsFloat = ...,
) -> PlanSolved: ...
def set_highs_library(path: str) -> None: ...

# ---- bind_programs.cpp ---------------------------------------------------------------------------

ProgramArgument: TypeAlias = float | str | list[float] | list[str]

class Solution:
    """A plan for one row of values, with its proved bound."""

    def __init__(
        self,
        plan: Tensor,  # [S] of zeros and ones
        value: float,  # in the unit of the values
        bound: float | None = None,  # no plan is better
        gap: float | None = None,  # (bound - value) / |value|
        status: str = "optimal",  # or "feasible", "heuristic", "infeasible"
        seconds: float = 0.0,
        notes: Sequence[str] = ...,
    ) -> None: ...
    @property
    def plan(self) -> Tensor: ...
    @property
    def value(self) -> float: ...
    @property
    def bound(self) -> float | None: ...
    @property
    def gap(self) -> float | None: ...
    @property
    def status(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def notes(self) -> list[str]: ...

class Program:
    """Plans b [..., S] of zeros and ones; values, scores and counts y [..., S]."""

    def __init__(self) -> None: ...
    def name(self) -> str: ...
    def config(self) -> dict[str, ProgramArgument]: ...  # the constructor's arguments
    def describe(self) -> str: ...
    def check(self, function: str, sites: int) -> None: ...
    def size(self) -> int: ...  # most sites in a plan
    def for_sites(self, function: str, ids: Sequence[str]) -> Program | None: ...  # None: as it is
    def site_values(self, values: Tensor) -> Tensor: ...  # [..., S], what each site adds to a plan
    def best(self, values: Tensor) -> Tensor: ...  # [..., S]
    def solve(self, values: Tensor) -> Solution: ...  # values [S]
    def soft(
        self,
        values: Tensor,
        sigma: float,  # in the unit of the values, > 0
        topk: str = "exact",
        num_samples: int = 100,
        estimator: str = "score_loo",
        noise: str = "normal",
        key: Tensor | None = None,  # int64 [2]
    ) -> Tensor: ...  # [..., S] in [0, 1]
    def reach(self, plan: Tensor, y: Tensor) -> Tensor: ...  # [...], in counts
    def best_reach(self, y: Tensor) -> Tensor: ...  # [...], in counts
    def bpr(self, scores: Tensor, y: Tensor) -> Tensor: ...  # [...], a share; NaN for 0 / 0
    def soft_bpr(self, plan: Tensor, y: Tensor) -> Tensor: ...  # [...], a share
    def chance(self, samples: Tensor) -> Tensor: ...  # [M, S] to [S]

class TopK(Program):
    def __init__(self, k: int) -> None: ...
    @property
    def k(self) -> int: ...

class Grouping:
    """A division of the sites into groups, and the groups' limits."""

    def __init__(
        self,
        name: str,  # the word for a group
        groups: Sequence[str],  # [G], their names
        group: ArrayLike,  # [S], 0 to G - 1; -1: in none
        lower: ArrayLike,  # [G]
        upper: ArrayLike,  # [G]
    ) -> None: ...
    @staticmethod
    def by_name(
        name: str,
        group_of_site: Sequence[str],  # [S], "" for none
        limited: Sequence[str],  # [L], the groups that have limits
        lower: Sequence[SupportsIndex],  # [L]
        upper: Sequence[SupportsIndex],  # [L]
        function: str,  # to name in an error
    ) -> Grouping: ...
    @property
    def name(self) -> str: ...
    @property
    def groups(self) -> list[str]: ...
    @property
    def group(self) -> list[int]: ...
    @property
    def lower(self) -> list[int]: ...
    @property
    def upper(self) -> list[int]: ...

class Quotas(Program):
    def __init__(
        self,
        k: int,
        groupings: Sequence[Grouping],
        lock: Sequence[int] = ...,  # [S], 1 in, -1 out, 0 free
        sites: Sequence[str] = ...,  # [S]
    ) -> None: ...
    @property
    def k(self) -> int: ...
    @property
    def groupings(self) -> list[Grouping]: ...
    @property
    def sites(self) -> list[str]: ...
    @property
    def crosses(self) -> bool: ...  # groupings of which none is finer than the other
    def expected_best(self, values: Tensor) -> Tensor: ...  # [..., S], ties broken at random

class WithEffect(Program):
    def __init__(
        self,
        program: Program,
        effect: Sequence[float],  # [S], >= 0
        sites: Sequence[str] = ...,  # [S]
    ) -> None: ...
    @property
    def effect(self) -> list[float]: ...

# ---- bind_ranker.cpp -----------------------------------------------------------------------------

class Needs:
    def __init__(
        self,
        *,
        features: bool = True,
        time: bool = False,
        past: bool = False,
        window: int = 0,
        exposure: bool = False,
        suppressed: bool = False,
        sites: bool = True,
        counts: bool = True,
        events: bool = False,
    ) -> None: ...
    @property
    def features(self) -> bool: ...
    @property
    def time(self) -> bool: ...
    @property
    def past(self) -> bool: ...  # the whole past of all sites
    @property
    def window(self) -> int: ...  # W
    @property
    def exposure(self) -> bool: ...
    @property
    def suppressed(self) -> bool: ...  # can learn from counts known only to an interval
    @property
    def sites(self) -> bool: ...  # can rank only the sites of the fit
    @property
    def counts(self) -> bool: ...  # predicts counts; False: gives scores
    @property
    def events(self) -> bool: ...  # learns from events

def standardized(
    x: Tensor, mean: Tensor, scale: Tensor
) -> Tensor: ...  # (x - mean) / scale, float32
def make_program(name: str, config: dict[str, ProgramArgument], /) -> Program: ...

class ForecasterKind:
    @property
    def name(self) -> str: ...  # in model files
    @property
    def short_name(self) -> str: ...  # for people
    @property
    def summary(self) -> str: ...
    @property
    def needs(self) -> Needs: ...

def forecaster_registry() -> list[ForecasterKind]: ...

class ForecastInputs:
    @property
    def x(self) -> Tensor | None: ...  # [T, S, P], standardised
    @property
    def time(self) -> Tensor | None: ...  # [T], scaled as in training
    @property
    def history(self) -> Tensor | None: ...  # [T, S, W], oldest first
    @property
    def exposure(self) -> Tensor | None: ...  # [T, S] > 0
    @property
    def timeline(self) -> Tensor | None: ...  # [N, S], NaN where not known
    @property
    def rows(self) -> list[int]: ...  # T: rows of the timeline

class ModelFile:
    """Tensors are copied to the CPU when they are set."""

    def __init__(self) -> None: ...
    model: str
    config: dict[str, Any]
    fit: dict[str, Any]  # plain values and tensors, not nested
    state: dict[str, Tensor]
    standardizer: dict[str, Any]  # feature_names [P], kept, mean and scale [kept]
    time_origin: float
    time_scale: float
    calendar: Calendar
    fitted_times: list[float]
    past_times: list[float]  # N, ascending
    past_counts: Tensor | None  # [N, S], NaN where not known
    past_upper: Tensor | None  # [N, S] >= past_counts
    past_exposure: Tensor | None  # [N, S]
    last_features: Tensor | None  # [S, P], raw
    constant_features: Tensor | None  # [P] bool
    site_ids: list[str]  # S
    opened: list[float]  # S times, NaN for none; or empty
    closed: list[float]
    @property
    def program(self) -> dict[str, Any]: ...  # name, config
    def set_program(self, program: Program, /) -> None: ...
    ranking: str
    model_samples: int  # M
    key: Tensor  # int64 [2]
    uses_exposure: bool
    site_history: dict[str, Any] | None
    table: dict[str, str]
    @property
    def topreach_version(self) -> str: ...
    @property
    def torch_version(self) -> str: ...
    @property
    def digest(self) -> str: ...  # SHA-256; "" before it is saved

def load_model_file(path: str) -> ModelFile: ...
def save_model_file(file: ModelFile, path: str) -> str: ...  # its digest

class Panel:
    def __init__(
        self,
        *,
        site_ids: Sequence[str],  # S
        calendar: Calendar,
        times: Sequence[float],  # T, ascending
        feature_names: Sequence[str] = ...,  # P
        x: Tensor | None = None,  # [T, S, P]
        y: Tensor | None = None,  # [T, S], NaN where not known
        y_upper: Tensor | None = None,  # [T, S] >= y
        exposure: Tensor | None = None,  # [T, S] > 0
        history_times: Sequence[float] = ...,  # H, before times[0]
        history: Tensor | None = None,  # [H, S]
        history_exposure: Tensor | None = None,  # [H, S], NaN where not known
        opened: Sequence[float] = ...,  # S times, NaN for none; or empty
        closed: Sequence[float] = ...,
    ) -> None: ...

class PlannedSite:
    @property
    def site(self) -> str: ...
    @property
    def index(self) -> int: ...  # row of the site in the ranked table
    @property
    def score(self) -> float: ...
    @property
    def expected_count(self) -> float | None: ...  # None: the model gives scores
    @property
    def chance_top_k(self) -> float | None: ...
    @property
    def rank(self) -> int: ...  # from 1
    @property
    def selected(self) -> bool: ...

class Plan:
    @property
    def time(self) -> float: ...
    @property
    def period(self) -> str: ...  # the time as the table writes it
    @property
    def data_until(self) -> str: ...  # "": no counts are known before
    @property
    def periods_ahead(self) -> int: ...  # 0: no counts are known before
    @property
    def learnt(self) -> bool: ...
    @property
    def sites(self) -> list[PlannedSite]: ...  # S, best first
    @property
    def program(self) -> str: ...
    @property
    def value(self) -> float: ...  # of the selected sites, in the unit of the scores
    @property
    def bound(self) -> float | None: ...  # of a program that is solved by search
    @property
    def gap(self) -> float | None: ...
    @property
    def status(self) -> str: ...  # "optimal", "feasible", "heuristic" or "infeasible"
    @property
    def model(self) -> str: ...
    @property
    def model_digest(self) -> str: ...
    @property
    def notes(self) -> list[str]: ...
    def selected_ids(self) -> list[str]: ...
    def columns(self) -> dict[str, Any]: ...  # of S entries, best first

class Forecaster: ...

class PyForecaster(Forecaster):
    def __init__(self, name: str, needs: Needs, call: Callable[[ForecastInputs], Any]) -> None: ...

class RankerInputs:
    @property
    def model(self) -> ForecastInputs: ...
    @property
    def site_ids(self) -> list[str]: ...  # S
    @property
    def times(self) -> list[float]: ...  # T
    @property
    def periods(self) -> list[str]: ...  # T
    @property
    def data_until(self) -> list[str]: ...  # T
    @property
    def learnt(self) -> list[bool]: ...  # T
    @property
    def y(self) -> Tensor | None: ...  # [T, S]
    @property
    def open(self) -> Tensor | None: ...  # [T, S] bool; None: all are
    @property
    def notes(self) -> list[str]: ...

class Ranker:
    def __init__(
        self,
        file: ModelFile,
        device: str = "cpu",
        forecaster: Forecaster | None = None,  # a user's
        program: Program | None = None,  # a user's
    ) -> None: ...
    @staticmethod
    def load(path: str, device: str = "cpu") -> Ranker: ...
    def save(self, path: str, with_past: bool = True) -> None: ...
    def file(self, with_past: bool = True) -> ModelFile: ...
    def to(self, device: str, /) -> Ranker: ...
    def with_program(self, program: Program, /) -> Ranker: ...
    def with_table(self, table: dict[str, str], /) -> Ranker: ...
    def inputs(
        self, function: str, table: Panel | None, periods_ahead: int | None = None
    ) -> RankerInputs: ...
    def scores(self, inputs: RankerInputs) -> Tensor: ...  # [T, S]
    def expected_counts(self, inputs: RankerInputs) -> Tensor: ...  # [T, S]
    def forecast(self, inputs: RankerInputs) -> Forecast: ...  # [T, S]
    def plans(self, inputs: RankerInputs) -> list[Plan]: ...  # T
    @property
    def needs(self) -> Needs: ...
    @property
    def site_ids(self) -> list[str]: ...
    @property
    def feature_names(self) -> list[str]: ...
    @property
    def calendar(self) -> Calendar: ...
    @property
    def digest(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def is_probabilistic(self) -> bool: ...

# ---- bind_objectives.cpp -------------------------------------------------------------------------

class ReachOptions:
    """The settings of `topreach.objectives.DirectBPR`."""

    def __init__(
        self,
        program: Program,
        *,
        sigma: float = ...,  # in `sigma_unit`, > 0
        num_samples: int = ...,  # J
        model_samples: int = ...,  # M
        ranking: str = ...,
        topk: str = ...,
        estimator: str = ...,
        ranking_estimator: str = ...,
        noise: str = ...,
        offset: float = ...,  # in counts
        weights: Tensor | None = None,  # [T]
        key: Tensor | None = None,  # int64 [2]
        generator: Generator | None = None,
        open: Tensor | None = None,  # [T, S] bool
        sigma_unit: str = ...,  # "score" or "spread"
    ) -> None: ...

class RankingOptions:
    def __init__(
        self,
        *,
        ranking: str = ...,
        model_samples: int = ...,  # M
        ranking_estimator: str = ...,
        offset: float = ...,  # in counts
        key: Tensor | None = None,  # int64 [2]
        generator: Generator | None = None,
    ) -> None: ...

# Each gives (loss [], terms []). output: scores [T, S] or a forecast; y [T, S]; weights [T].

def nll(
    output: object,  # a forecast
    y: Tensor,
    *,
    weights: Tensor | None = None,
    penalty: Tensor | None = None,  # []
    y_upper: Tensor | None = None,  # [T, S] >= y
) -> tuple[Tensor, dict[str, Tensor]]: ...
def direct_bpr(
    output: object, y: Tensor, options: ReachOptions
) -> tuple[Tensor, dict[str, Tensor]]: ...
def decision_aware(
    output: object,  # a forecast
    y: Tensor,
    options: ReachOptions,
    *,
    epsilon: float = ...,  # a share of the best BPR
    weight: float = ...,
    penalty: Tensor | None = None,  # []
) -> tuple[Tensor, dict[str, Tensor]]: ...
def spo_plus(
    output: object,
    y: Tensor,
    program: Program,
    ranking: RankingOptions = ...,
    *,
    target: str = ...,
    weights: Tensor | None = None,
    open: Tensor | None = None,  # [T, S] bool
) -> tuple[Tensor, dict[str, Tensor]]: ...
def perturbation_gradient(
    output: object,
    y: Tensor,
    program: Program,
    ranking: RankingOptions = ...,
    *,
    sigma: float = ...,  # in the unit of the scores, > 0
    two_sides: bool = ...,
    target: str = ...,
    weights: Tensor | None = None,
    open: Tensor | None = None,  # [T, S] bool
) -> tuple[Tensor, dict[str, Tensor]]: ...
def resolved_ranking(function: str, ranking: str, forecast: object) -> str: ...
def ranking_scores(function: str, forecast: object, options: RankingOptions) -> Tensor: ...  # [T,S]
def derived_key(key: Tensor, stream: int) -> Tensor: ...  # int64 [2]
