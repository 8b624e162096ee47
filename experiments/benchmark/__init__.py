"""Rolling-origin comparison of all methods, on every panel of counts that the loaders have or on a
user's own table."""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

import topreach as tr
from topreach import Panel
from topreach.evaluation import baselines, judge, origins
from topreach.models import SiteHistory
from topreach.ranking import RankerNote

from ..context import Context, panel_digest
from .report import WINDOWS, average_name, comparison, figure, verdict

TITLE = "Rolling origin: which method would have been best, on every set or on your own CSV"

DEFAULT = "topreach default"
# The slower peers are trained up to this number of sites × periods.
PEERS_UP_TO = 400_000
# The MLP's window, if the past is that long.
MOST_LAGS = 5


# The point process is fitted up to this number of places: its cost grows with their square.
PLACES_UP_TO = 400


class Case:
    """A panel, K, the number of periods in a test block, and the first test period. If given,
    `events` are the dated events behind the panel, with the name of its periods."""

    def __init__(
        self,
        panel: Panel,
        k: int,
        block: int = 1,
        first: int | None = None,
        events: tuple[tr.Events, str] | None = None,
    ):
        self.panel, self.k, self.block, self.first = panel, k, block, first
        self.events = events

    def origins(self) -> list[tuple[int, int]]:
        """First and last + 1 of the periods of each test block."""
        return origins(self.panel, self.block, self.first)


def _joined(splits: Any) -> Panel:
    parts = [part for part in splits if part is not None]
    x = torch.cat([part.x for part in parts])
    y = torch.cat([part.y for part in parts])
    times = [t for part in parts for t in part.times]
    first = parts[0]
    return Panel(
        x,
        y,
        first.site_ids,
        times,
        first.feature_names,
        history_y=first.history_y,
        absent_lags=first.absent_lags,
        source=first.source,
    )


def _of_one_type(events: tr.Events) -> tr.Events:
    """The same events without types, so that each node is a site of the panel."""
    centres = events.place_table.coordinates
    where = pd.DataFrame({"place": events.places, "lat": centres[:, 0], "lon": centres[:, 1]})
    return tr.Events.from_frame(
        events.to_frame()[["time", "place"]],
        time="time",
        place="place",
        places=where,
        window=(events.label(0.0), events.label(events.end - events.start - 1)),
        complete_through=events.label(events.duration - 1),
    )


def _connecticut(every: str, block: int) -> Callable[[Any], Case]:
    def load(root: Any) -> Case:
        events = _of_one_type(tr.datasets.ct_overdose_deaths("town", root=root))
        panel = tr.datasets.ct_overdose(every, root=root)
        return Case(panel, 20, block, events=(events, every))

    return load


def _cook_cells(root: Any) -> Case:
    events = _of_one_type(tr.datasets.cook_overdose_deaths("cell", root=root))
    return Case(tr.datasets.cook_overdose_events(root=root), 50, 4, events=(events, "quarter"))


SETS: dict[str, Callable[[Any], Case]] = {
    "cook_county": lambda root: Case(_joined(tr.datasets.cook_county(root)), 100),
    # A winter has three two-month periods.
    "aerial_surveys": lambda root: Case(_joined(tr.datasets.aerial_surveys(root)), 50, 3),
    "ct_years": _connecticut("year", 1),
    "ct_quarters": _connecticut("quarter", 4),
    "cook_events": _cook_cells,
    "chicago": lambda root: Case(tr.datasets.chicago_assault(root=root), 200, 12),
}


def add_options(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument("--sets", nargs="+", choices=list(SETS), help="which sets (default: all)")
    parser.add_argument("--csv", metavar="FILE", help="your own table instead")
    parser.add_argument("--site", metavar="COLUMN", help="of the table: the site ids")
    parser.add_argument("--time", metavar="COLUMN", help="of the table: the periods")
    parser.add_argument("--count", metavar="COLUMN", help="of the table: the counts")
    parser.add_argument("--k", type=int, metavar="K", help="of the table: sites to choose")
    parser.add_argument(
        "--block", type=int, metavar="B", help="of the table: periods per test (default: a year)"
    )
    parser.add_argument(
        "--missing",
        choices=["error", "zero"],
        default="error",
        help="of the table: what a site without a row for a period means (error)",
    )


def run(context: Context) -> None:
    cases = _cases(context)
    cells = {}
    settings = {
        "windows": [w or 0 for w in WINDOWS],
        "peers_up_to": PEERS_UP_TO,
        "places_up_to": PLACES_UP_TO,
        "most_lags": MOST_LAGS,
        "data": {name: panel_digest(case.panel) for name, case in cases.items()},
    }
    for name, case in cases.items():
        methods = _methods(case, context)
        for at, block in enumerate(case.origins()):
            if context.quick and at < len(case.origins()) - 2:
                continue
            for method, forecast in methods.items():
                key = f"{name}.{at:02d}.{_key(method)}"
                cells[key] = partial(_evaluate, case, block, method, forecast)
    found = context.cells(cells, settings)
    tables = {}
    for name, case in cases.items():
        results = [value for key, value in found.items() if key.startswith(f"{name}.")]
        tables[name] = comparison(results, context.seed)
        title = (
            f"{name}: S = {case.panel.num_sites}, K = {case.k}, "
            f"{results[0]['periods_in_all']} periods, {tables[name].attrs['tested']} tested"
        )
        context.table(tables[name], name, title=title)
        print(verdict(tables[name], DEFAULT))
    context.table(
        pd.concat(tables, names=["set", "method"]).reset_index(),
        title="Rolling origin, all sets. Differences of BPR to the best historical average",
    )
    context.figure(figure(tables), "difference_to_average")


def _cases(context: Context) -> dict[str, Case]:
    options = context.options
    csv = getattr(options, "csv", None)
    if csv is not None:
        absent = [name for name in ("site", "time", "count", "k") if getattr(options, name) is None]
        if absent:
            raise ValueError(
                f"benchmark: --csv must come with {', '.join('--' + name for name in absent)}."
            )
        panel = Panel.from_csv(
            csv,
            site=options.site,
            time=options.time,
            count=options.count,
            missing=options.missing,
        )
        block = options.block or SiteHistory().fit(panel).season_ or 1
        case = Case(panel, options.k, block)
        if not 1 <= case.k <= panel.num_sites or not case.origins():
            raise ValueError(
                f"benchmark: k must be from 1 to the {panel.num_sites} sites and the table have "
                f"periods to test after two blocks of {case.block}, got k = {case.k} and "
                f"{panel.num_times} periods."
            )
        return {"your_data": case}
    cases = {}
    wanted = getattr(options, "sets", None) or list(SETS)
    if context.quick:
        wanted = [name for name in wanted if name != "chicago"]
    for name in wanted:
        try:
            cases[name] = SETS[name](context.data)
        except (FileNotFoundError, ConnectionError) as error:
            print(f"benchmark: {name} is left out: {error}", file=sys.stderr)
    if not cases:
        print("benchmark: no data are here, so a SIMULATED county is taken", file=sys.stderr)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cases["simulated_county"] = Case(
                _joined(tr.datasets.simulate_county(context.seed)), 100
            )
    return cases


# ---- methods: each forecasts a test block from all periods before it -----------------------------


def _methods(case: Case, context: Context) -> dict[str, Callable[..., dict[str, Any]]]:
    past = case.panel.num_times
    methods: dict[str, Callable[..., dict[str, Any]]] = {
        average_name(w): partial(_average, window=w)
        for w in WINDOWS
        if w is None or w == 1 or w < past
    }
    methods |= {
        "chance": _chance,
        "shrunken rates": _shrunken,
        DEFAULT: partial(_ranker, model="empirical_bayes"),
    }
    if case.events is not None and len(case.events[0].places) <= PLACES_UP_TO:
        methods["STEMMED"] = partial(_stemmed, events=case.events)
    if case.panel.num_sites * past <= PEERS_UP_TO:
        epochs = 20 if context.quick else 150
        steps = {"max_epochs": epochs, "warm_start_epochs": 0, "lr": 0.05, "seed": context.seed}
        methods["negative binomial mixed effects, NLL"] = partial(
            _ranker, model="negbin", objective="nll", **steps
        )
        methods["MLP scorer, BPR"] = partial(_ranker, model="mlp", objective="bpr", **steps)
    try:
        import sklearn  # noqa: F401
    except ImportError:
        print("benchmark: scikit-learn is not installed: no GLM and no trees", file=sys.stderr)
    else:
        methods["Poisson GLM"] = partial(_regression, kind="glm", seed=context.seed)
        methods["boosted trees, Poisson"] = partial(_regression, kind="trees", seed=context.seed)
    return methods


def _average(train: Panel, test: Panel, k: int, window: int | None) -> dict[str, Any]:
    return {"mean": baselines.historical_mean(test, window)}


def _chance(train: Panel, test: Panel, k: int) -> dict[str, Any]:
    return {"mean": baselines.chance(test)}


def _shrunken(train: Panel, test: Panel, k: int) -> dict[str, Any]:
    """Gamma–Poisson shrinkage of each site's whole past to the mean of all sites: no neighbours, no
    decay."""
    history = SiteHistory(half_lives=(math.inf,), coordinates=None).fit(train)
    return {"mean": history.transform(test).x[..., -1]}


def _ranker(train: Panel, test: Panel, k: int, **settings: Any) -> dict[str, Any]:
    # For the peers the last training period chooses the epoch; the default has no epochs.
    parts = (train, None)
    if settings["model"] != "empirical_bayes" and train.num_times > 2:
        parts = train.split(valid=train.times[-1])[:2]
    if settings["model"] == "mlp":  # at least one period must have all counts that it reads
        settings["window"] = min(MOST_LAGS, max(1, len(parts[0].timeline) - 1))
    ranker = tr.TopKRanker(k, progress=False, **settings).fit(*parts)
    scores = torch.from_numpy(ranker.site_scores(test))
    if not ranker.model_.is_probabilistic:
        return {"scores": scores}
    counts = ranker.predict_distribution(test)
    with torch.no_grad():
        nll = -counts.site_log_prob(test.y).double().mean(1)
    median = torch.from_numpy(ranker.predict(test, kind="median"))
    return {"scores": scores, "mean": counts.mean, "median": median, "nll": nll}


def _stemmed(train: Panel, test: Panel, k: int, events: tuple[tr.Events, str]) -> dict[str, Any]:
    """The point process of the dated events before each period, with places as nodes. It is fitted
    for the block's first period, and for the others refitted from the last fit."""
    table, every = events
    model: tr.models.Stemmed | None = None
    parts = []
    for t in range(test.num_times):
        begin = pd.Timestamp(f"{test.times[t]}-01-01" if every == "year" else test.times[t])
        known = table.until(str((begin - pd.Timedelta(days=1)).date()))
        model = tr.models.Stemmed(half_life=24).fit(known, start=model)
        made = model.forecast(1, every=every)
        at = [made.sites.index(site) for site in test.site_ids]
        of = made.distribution
        parts.append((of.total_count[0, at], of.logits[0, at]))
    counts = tr.distributions.NegativeBinomial(
        *(torch.stack(part) for part in zip(*parts, strict=True))
    )
    return {
        "scores": counts.expected_ratio(),
        "mean": counts.mean,
        "median": counts.quantile(0.5),
        "nll": -counts.site_log_prob(test.y.double()).mean(1),
    }


def _regression(train: Panel, test: Panel, k: int, kind: str, seed: int) -> dict[str, Any]:
    """scikit-learn's Poisson regression or boosted trees, on logarithms of `SiteHistory`'s features
    and on the panel's own features."""
    history = SiteHistory(half_lives=(1.0, 4.0, 16.0, math.inf)).fit(train)

    def table(panel: Panel) -> np.ndarray:
        made = history.transform(panel).x
        own = panel.num_features
        past = (made[..., own:] + 0.05).log()
        return torch.cat([made[..., :own], past], -1).flatten(0, 1).numpy()

    # The first period has no past to learn from. Half a million rows are enough.
    begin = 1 if train.num_times > 1 and train.history_y is None else 0
    begin = max(begin, train.num_times - max(1, 500_000 // train.num_sites))
    learnt = train.select_times(train.times[begin:])
    if kind == "glm":
        from sklearn.linear_model import PoissonRegressor
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), PoissonRegressor(alpha=1e-3, max_iter=200))
    else:
        from sklearn.ensemble import HistGradientBoostingRegressor

        model = HistGradientBoostingRegressor(
            loss="poisson", max_leaf_nodes=8, learning_rate=0.05, random_state=seed
        )
    y = learnt.y.flatten().numpy()
    if y.sum() == 0:
        return {"mean": torch.zeros_like(test.y)}
    mean = torch.from_numpy(model.fit(table(learnt), y).predict(table(test)))
    mean = mean.reshape(test.y.shape).clamp_min(1e-9)
    nll = (mean - torch.xlogy(test.y, mean) + torch.lgamma(test.y + 1)).mean(1)
    return {"mean": mean, "nll": nll}


# ---- one cell ------------------------------------------------------------------------------------


def _evaluate(
    case: Case, block: tuple[int, int], method: str, forecast: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    """Figures of a method on one test block, one entry per period."""
    panel, (start, stop) = case.panel, block
    train, _, _ = panel.split(test=panel.times[start])
    test = panel.select_times(panel.times[start:stop])
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Standardizer.fit: dropped")
        warnings.filterwarnings("ignore", r"Trainer.fit: .* are left out")
        # The table compares every method with the means, so the ranker's notes are not needed.
        warnings.simplefilter("ignore", RankerNote)
        made = forecast(train, test, case.k)
    seconds = time.perf_counter() - began
    return {
        "method": method,
        "periods": [str(t) for t in test.times],
        "periods_in_all": panel.num_times,
        "seconds": seconds,
        **{name: _plain(values) for name, values in judge(made, test, case.k).items()},
    }


def _plain(values: list[float]) -> list[float | None]:
    return [v if math.isfinite(v) else None for v in values]


def _key(method: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in method)
