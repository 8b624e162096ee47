"""Features of a site's whole past, made from the counts of a panel alone.

For a half-life h (in periods), with y_us the counts, e_u their mean over sites in period u, and
d = 2^(−1/h):

    A_ts = Σ_{u<t} d^(t−1−u) y_us          the site's decayed count
    E_ts = Σ_{u<t} d^(t−1−u) e_u           the decayed count of an average site

A / E is the site's decayed relative risk. The risk of its neighbours is the prior mean m_ts. It
goes from the widest neighbourhood to the closest, each shrunk towards the one before by κ events
(Gamma–Poisson shrinkage, as in Clayton & Kaldor 1987, Biometrics 43:671):

    m⁰ = 1,   mʲ = (Σ_{n ∈ N_j(s)} A_tn + κ_j) / (Σ_{n ∈ N_j(s)} E_tn + κ_j / mʲ⁻¹)

Decaying past counts is the discounting of Harvey & Fernandes 1989, J. Business & Economic
Statistics 7:407: the filter of a rate that drifts as a random walk, whose memory is h.

The level L_t of all sites is forecast by exponential smoothing of the logarithm of the total, with
seasons (Holt–Winters without a trend).

Unknown counts add nothing to A_ts and E_ts, but both still decay. Levels and means are taken over
the sites whose counts are known.

With an exposure (a population, say), n_us is the exposure over its mean. Then e_u n_us replaces
e_u above, with e_u = Σ_s y_us / Σ_s n_us, and L_t m_ts n_ts is the expected count of a site.

The formulas are computed by `kernels/site_statistics.h`. Cost O(T S H), and O(T S H k) for k
neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from topreach.data.columns import first_repeated
from topreach.data.panel import Panel
from topreach.models.neighbours import (
    Neighbours,
    coordinate_features,
    graph_of_edges,
    nearest,
    nearest_neighbours,
)
from topreach.models.site_history_fit import (
    best_smoothing,
    fit_concentration,
    mean_exposure_of,
    panel_timeline,
    repeated_counts,
    season_of,
)

__all__ = ["Neighbours", "SiteHistory", "coordinate_features", "nearest_neighbours"]

HALF_LIVES = (1.0, 3.0, 9.0, 27.0, math.inf)
_SMALLEST_WEIGHT = 1e-3  # of a decayed mean, if nothing is known

_ops = torch.ops.topreach


class _Past(NamedTuple):
    """The counts of consecutive periods, and the R periods to compute features for.

    timeline [N, S], NaN where not known; rows: for each of R periods, how many of the timeline's
    lie before it; timeline_exposure [N, S] and exposure [R, S], or None.
    """

    timeline: Tensor
    rows: list[int]
    timeline_exposure: Tensor | None
    exposure: Tensor | None


class SiteHistory:
    """Long memory: estimates of a site's rate from its whole past and that of its neighbours.

    See the module for the formulas. A feature of period t uses only counts before t, including
    those that the panel carries as history. So parts of a split get the same values as the whole
    panel. A panel that comes after the fitted counts and has no earlier ones takes them as its
    past.

    Args:
        half_lives: h, memories in periods, each > 0; inf is the whole past.
        neighbours: sizes of the neighbourhoods, by coordinates; () for none. Without
            coordinates it has no effect.
        coordinates: two features of the panel; or "auto": those with the usual names of latitude
            and longitude, if the panel has them; or None. `neighbours_by_` says which were taken.
        edges: pairs of site ids that are neighbours, in place of coordinates; or None.
        season: periods in a year, for the seasons of the overall level; None for no seasons; or
            "auto": 12 or 4 if the times are dates that are months or quarters apart.

    Fitted attributes, all from the panel given to `fit` alone:
        concentration_: κ_j, one per neighbourhood, the widest first. They maximise the likelihood
            of the last period's past, each count a negative binomial around its prior mean.
        shape_: of that negative binomial; how alike a site and its neighbours are.
        smoothing_, seasonal_smoothing_: of the overall level, from the squared errors of its
            logarithm one period ahead. level_: its mean, for periods without any past.
        mean_exposure_: of the panel's cells; None if it was fitted without exposure.
        site_ids_, graphs_: the sites, and their `Neighbours`, one per neighbourhood.
        neighbours_by_: the two features that neighbours were found by, or "edges"; None without
            neighbours.
        absorbed_: features of the panel that the statistics already contain: those that only repeat
            its earlier counts (lags), and the coordinates by which neighbours were found.
        counts_, end_: all known counts [N, S], and the time of the last. They are the past of a
            later panel that has no earlier counts. They are not part of `state_dict`.

    Example:
        >>> train, valid, test = tr.datasets.cook_county()
        >>> history = tr.models.SiteHistory().fit(train)
        >>> history.transform(test).feature_names[-3:]
        ['decayed_mean_inf', 'neighbour_rate_inf', 'shrunken_rate_inf']
    """

    def __init__(
        self,
        half_lives: Sequence[float] = HALF_LIVES,
        *,
        neighbours: Sequence[int] = (32, 8),
        coordinates: tuple[str, str] | str | None = "auto",
        edges: Iterable[tuple[str, str]] | None = None,
        season: int | str | None = "auto",
    ):
        self.half_lives = half_lives
        self.neighbours = neighbours
        self.coordinates = coordinates
        self.edges = edges
        self.season = season

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name."""
        names = ("half_lives", "neighbours", "coordinates", "edges", "season")
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> SiteHistory:
        """Change constructor arguments; takes effect at the next `fit`."""
        for name, value in params.items():
            if name not in self.get_params():
                raise ValueError(
                    f"SiteHistory.set_params: {name!r} must be an argument of SiteHistory, got "
                    f"none such. There are {', '.join(self.get_params())}."
                )
            setattr(self, name, value)
        return self

    # ---- fitting ---------------------------------------------------------------------------------

    def fit(self, panel: Panel, *, timeline_exposure: Tensor | None = None) -> SiteHistory:
        """Learn the shrinkage and the overall level from a panel's counts, earlier ones included.

        Args:
            panel: counts of consecutive periods.
            timeline_exposure: the exposure [N, S] of all periods of the panel's timeline, including
                those of its history; > 0 where the count is known. None: expected counts do not
                follow an exposure (`panel.exposure` is not read).

        Raises:
            TypeError: panel is not a Panel.
            ValueError: an argument of the constructor is out of range; an edge names an unknown
                site; exposure of another shape, or not > 0.
        """
        _check_panel(panel, "fit")
        self._check_arguments(panel)
        half_lives = [float(h) for h in self.half_lives]
        names = self._coordinate_names(panel) if self.edges is None else []
        graphs = self._make_graphs(panel, names)
        season = season_of(panel) if isinstance(self.season, str) else self.season
        timeline = panel_timeline(panel)[0]
        timeline_exposure = _on_cpu(timeline_exposure)
        mean_exposure = mean_exposure_of(timeline, timeline_exposure)
        total = _ops.site_totals(timeline, timeline_exposure, mean_exposure)
        smoothing = best_smoothing(total, season)
        concentration = fit_concentration(timeline, timeline_exposure, mean_exposure, graphs)
        # Nothing can fail from here on.
        self.half_lives_, self.graphs_, self.season_ = half_lives, graphs, season
        self.site_ids_ = list(panel.site_ids)
        by = tuple(names) if self.edges is None else "edges"
        self.neighbours_by_ = by if graphs else None
        self.absorbed_ = repeated_counts(panel)
        if graphs and self.edges is None:
            self.absorbed_ += names
        self.counts_, self.end_ = timeline.clone(), float(panel.time_values[-1])
        known = total[~torch.isnan(total)]
        self.level_ = max(known.mean().item() / panel.num_sites, 1e-6) if len(known) else 1.0
        self.mean_exposure_ = mean_exposure or None
        self.smoothing_, self.seasonal_smoothing_ = smoothing
        self.concentration_, self.shape_ = concentration
        return self

    def _make_graphs(self, panel: Panel, names: Sequence[str]) -> list[Neighbours]:
        if self.edges is not None:
            return [graph_of_edges(self.edges, panel.site_ids)]
        if not names or not len(self.neighbours):
            return []
        columns = [panel.feature_names.index(name) for name in names]
        place = panel.x[0][:, columns].cpu().double()
        return nearest(place, sorted(map(int, self.neighbours))[::-1])

    def _coordinate_names(self, panel: Panel) -> list[str]:
        names = self.coordinates
        if names == "auto":
            names = coordinate_features(panel.feature_names)
        return list(names or ())

    # ---- features --------------------------------------------------------------------------------

    def statistics(
        self,
        timeline: Panel | Tensor,
        rows: Sequence[int] | None = None,
        *,
        timeline_exposure: Tensor | None = None,
        exposure: Tensor | None = None,
    ) -> Tensor:
        """The input of `EmpiricalBayesRates`, [R, S, 3 H]: A, m E, L m, H of each; float32.

        Args:
            timeline: a Panel, which gives a row for each of its periods, R = T. Or counts [N, S] of
                consecutive periods, oldest first, NaN where not known.
            rows: with counts: for each of R periods, how many periods of the timeline lie before
                it. N + h − 1 is the period h ahead of the last one.
            timeline_exposure, exposure: [N, S] and [R, S]; to be given if mean_exposure_ is not
                None, and only then. With a panel, exposure is by default that of the panel.

        Raises:
            RuntimeError: not fitted. ValueError: other sites; negative counts; a negative row.
        """
        self._check_fitted("statistics")
        if isinstance(timeline, Panel) or rows is None:
            panel = _check_panel(timeline, "statistics")
            past = self._past(panel, "statistics", timeline_exposure, exposure)
            return self._all(past).to(panel.device)
        counts = torch.as_tensor(timeline)
        if counts.ndim != 2 or counts.shape[1] != len(self.site_ids_):
            raise ValueError(
                "SiteHistory.statistics: timeline must have shape [N, S] with the S = "
                f"{len(self.site_ids_)} sites of fit, got {list(counts.shape)}."
            )
        past = _Past(
            counts.cpu(), [int(row) for row in rows], _on_cpu(timeline_exposure), _on_cpu(exposure)
        )
        return self._all(past).to(counts.device)

    def transform(self, panel: Panel, *, timeline_exposure: Tensor | None = None) -> Panel:
        """The panel with 3 H more features, in counts per period. For each half-life h:

        decayed_mean_h: the decayed mean count A / Σ d^(t−1−u) of the site; 0 without a past.
        neighbour_rate_h: L_t m, the neighbours' risk at the overall level that is forecast for t.
        shrunken_rate_h: L_t m (shape + A) / (shape + m E), the site's own rate, shrunk towards it.

        Raises:
            RuntimeError: not fitted. ValueError: the panel has other sites.
        """
        self._check_fitted("transform")
        _check_panel(panel, "transform")
        past = self._past(panel, "transform", timeline_exposure, None)
        counts, expected, rate = self._all(past).double().chunk(3, dim=-1)
        # A of a site with one event in each period is the decayed number of known periods.
        ones = torch.ones_like(past.timeline).masked_fill_(torch.isnan(past.timeline), torch.nan)
        weight = self._all(past._replace(timeline=ones), graphs=[])[..., : len(self.half_lives_)]
        mean = counts / weight.double().clamp_min(_SMALLEST_WEIGHT)
        shrunken = rate * (self.shape_ + counts) / (self.shape_ + expected)
        parts = torch.stack([mean, rate, shrunken], dim=-1).flatten(2).to(torch.float32)
        names = [
            f"{kind}_{h:g}"
            for h in self.half_lives_
            for kind in ("decayed_mean", "neighbour_rate", "shrunken_rate")
        ]
        x = torch.cat([panel.x, parts.to(panel.device)], dim=-1)
        return panel.with_features(x, panel.feature_names + names)

    def fit_transform(self, panel: Panel) -> Panel:
        return self.fit(panel).transform(panel)

    def _all(self, past: _Past, graphs: Sequence[Neighbours] | None = None) -> Tensor:
        graphs = self.graphs_ if graphs is None else graphs
        return _ops.site_statistics(
            past.timeline,
            past.rows,
            [graph.start for graph in graphs],
            [graph.sites for graph in graphs],
            [graph.weights for graph in graphs],
            self.half_lives_,
            [float(kappa) for kappa in self.concentration_[: len(graphs)]],
            float(self.level_),
            float(self.smoothing_),
            float(self.seasonal_smoothing_),
            int(self.season_ or 0),
            float(self.mean_exposure_ or 0.0),
            past.timeline_exposure,
            past.exposure,
        )

    def _past(
        self,
        panel: Panel,
        method: str,
        timeline_exposure: Tensor | None,
        exposure: Tensor | None,
    ) -> _Past:
        """The panel's timeline and its rows in it; if it has no past, the fitted counts come
        first."""
        if panel.site_ids != self.site_ids_:
            raise ValueError(
                f"SiteHistory.{method}: panel must have the sites of fit in the same order, got "
                f"{panel.num_sites} sites for {len(self.site_ids_)}. Call "
                "panel.align(site_ids=history.site_ids_) first."
            )
        timeline, rows = panel_timeline(panel)
        counts = getattr(self, "counts_", None)
        first = float(panel.time_values[0])
        if counts is not None and rows[0] == 0 and first > self.end_:
            between = panel.calendar.distance(self.end_, first) - 1
            unknown = torch.full((between, counts.shape[1]), torch.nan)
            rows = [row + len(counts) + between for row in rows]
            timeline = torch.cat([counts, unknown, timeline])
        if self.mean_exposure_ is not None and exposure is None:
            exposure = panel.exposure
        return _Past(timeline, rows, _on_cpu(timeline_exposure), _on_cpu(exposure))

    # ---- the model file --------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, as in the model file under "site_history"."""
        self._check_fitted("state_dict")
        graphs = [
            {name: tensor.clone() for name, tensor in graph._asdict().items()}
            for graph in self.graphs_
        ]
        return {
            "half_lives": list(self.half_lives_),
            "concentration": [float(k) for k in self.concentration_],
            "shape": float(self.shape_),
            "level": float(self.level_),
            "season": int(self.season_ or 0),
            "smoothing": float(self.smoothing_),
            "seasonal_smoothing": float(self.seasonal_smoothing_),
            "mean_exposure": float(self.mean_exposure_ or 0.0),
            "site_ids": list(self.site_ids_),
            "graphs": graphs,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> SiteHistory:
        """The fitted transformer that `state_dict` described.

        Raises:
            ValueError: a part is missing or does not fit.
        """
        name = "SiteHistory.from_state_dict"
        try:
            history = cls([float(h) for h in state["half_lives"]])
            history.half_lives_ = list(history.half_lives)
            history.site_ids_ = [str(site) for site in state["site_ids"]]
            history.concentration_ = [float(k) for k in state["concentration"]]
            for key in ("shape", "level", "smoothing", "seasonal_smoothing"):
                setattr(history, f"{key}_", float(state[key]))
            history.mean_exposure_ = float(state["mean_exposure"]) or None
            history.season_ = int(state["season"]) or None
            sites = len(history.site_ids_)
            history.graphs_ = [Neighbours(**graph) for graph in state["graphs"]]
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"{name}: state must hold a whole SiteHistory, got one with parts that are missing "
                f"or do not fit ({error})."
            ) from error
        for graph in history.graphs_:
            start, near, weights = graph
            if (
                start.shape != (sites + 1,)
                or (start.diff() < 0).any()
                or (start[0], start[-1]) != (0, len(near))
                or near.shape != weights.shape
                or not ((near >= 0) & (near < sites)).all()
            ):
                raise ValueError(
                    f"{name}: graphs must list sites from 0 to {sites - 1} for each site."
                )
        if len(history.graphs_) != len(history.concentration_):
            raise ValueError(
                f"{name}: concentration must have one entry per graph, {len(history.graphs_)}, got "
                f"{len(history.concentration_)}."
            )
        return history

    # ---- checks ----------------------------------------------------------------------------------

    def _check_arguments(self, panel: Panel) -> None:
        half_lives = list(self.half_lives)
        if not half_lives or not all(isinstance(h, int | float) and h > 0 for h in half_lives):
            raise ValueError(
                f"SiteHistory: half_lives must be numbers > 0, at least one, got {half_lives!r}."
            )
        if first_repeated([float(h) for h in half_lives]) is not None:
            raise ValueError(f"SiteHistory: half_lives must be distinct, got {half_lives!r}.")
        if not all(_is_whole(k, 1) for k in self.neighbours):
            raise ValueError(
                f"SiteHistory: neighbours must be whole numbers >= 1, got {self.neighbours!r}."
            )
        if self.coordinates not in (None, "auto"):
            names = self.coordinates
            absent = (
                [names]
                if isinstance(names, str)
                else [name for name in names if name not in panel.feature_names]
            )
            if absent or len(names) != 2:
                raise ValueError(
                    "SiteHistory: coordinates must be two features of the panel, 'auto' or None, "
                    f"got {names!r}. It has {', '.join(panel.feature_names) or 'none'}."
                )
        if self.season not in (None, "auto") and not _is_whole(self.season, 2):
            raise ValueError(
                "SiteHistory: season must be a whole number >= 2, 'auto' or None, got "
                f"{self.season!r}."
            )

    def _check_fitted(self, method: str) -> None:
        if not hasattr(self, "concentration_"):
            raise RuntimeError(f"SiteHistory.{method}: fit must be called first.")


def _on_cpu(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.cpu()


def _is_whole(value: Any, least: int) -> bool:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and value >= least


def _check_panel(panel: Any, method: str) -> Panel:
    if not isinstance(panel, Panel):
        raise TypeError(
            f"SiteHistory.{method}: panel must be a Panel, got {type(panel).__name__}. Make one "
            "with Panel.from_frame."
        )
    return panel
