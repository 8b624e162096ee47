"""Features of a site's whole past, made from the counts of a panel alone.

For a half-life h (in periods), with y_us the counts, e_u = mean_s y_us the level of period u, and
d = 2^(−1/h):

    A_ts = Σ_{u<t} d^(t−1−u) y_us          the site's decayed count
    E_t  = Σ_{u<t} d^(t−1−u) e_u           what an average site would have had

A / E is the site's decayed relative risk. Its neighbours' risk is the prior mean m_ts: from the widest
neighbourhood to the closest, each shrunk towards the one before (Gamma–Poisson shrinkage, as in Clayton
& Kaldor 1987, Biometrics 43:671, with κ events' worth of trust in the wider one),

    m⁰ = 1,   mʲ = (Σ_{n ∈ N_j(s)} A_tn + κ_j) / (|N_j| E_t + κ_j / mʲ⁻¹)

Decaying past counts is the discounting of Harvey & Fernandes 1989, J. Business & Economic Statistics
7:407: the filter of a rate that drifts as a random walk, whose memory is h. Cost O(T S H) and, for the
neighbours, O(T S H k).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from topreach.data.columns import first_repeated
from topreach.data.panel import Panel

HALF_LIVES = (1.0, 3.0, 9.0, 27.0, math.inf)
_LATITUDE = ("lat", "latitude", "intptlat", "centroid_lat", "y_lat")
_LONGITUDE = ("lon", "long", "lng", "longitude", "intptlon", "centroid_lon", "x_lon")
_SMOOTHING = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1)
_SEASONAL_SMOOTHING = (0.1, 0.3)
_FLOOR = 1e-3  # of a relative risk


def coordinate_features(feature_names: Sequence[str]) -> tuple[str, str] | None:
    """The features that hold latitude and longitude, by their usual names, or None.

    Example:
        >>> coordinate_features(["poverty", "INTPTLAT", "INTPTLON"])
        ('INTPTLAT', 'INTPTLON')
    """
    by_name = {name.strip().lower(): name for name in feature_names}
    found = [next((by_name[n] for n in names if n in by_name), None) for names in _PLACES]
    return (found[0], found[1]) if None not in found else None


_PLACES = (_LATITUDE, _LONGITUDE)


class Neighbours(NamedTuple):
    """Who is near whom: the neighbours of site s are `sites[start[s]:start[s + 1]]`, with `weights`.

    start [S + 1] and sites [E] int64, weights [E] float64.
    """

    start: Tensor
    sites: Tensor
    weights: Tensor

    def sum(self, values: Tensor) -> Tensor:
        """Weighted sums [S, H] over each site's neighbours, of values [S, H]; float64."""
        return nn.functional.embedding_bag(
            self.sites,
            values.double(),
            self.start,
            mode="sum",
            per_sample_weights=self.weights,
            include_last_offset=True,
        )


def nearest_neighbours(coordinates: Any, k: int) -> Neighbours:
    """Each site's k nearest other sites; its weights sum to k.

    Where several sites are equally far and not all find a place among the k (as on a grid), they share
    the places left, so the weights do not depend on the order of the sites. (Of more than k + 16 sites
    that tie, 16 share.)

    Args:
        coordinates: [S, 2] or [S, D]; two columns within ±90 and ±360 are taken as latitude and
            longitude in degrees, and the longitude is scaled by the cosine of the mean latitude.
        k: neighbours, from 1; at most S − 1 are used.

    Raises:
        ValueError: coordinates of another shape, or not finite; k < 1.

    Cost: O(S²) time in blocks, O(S k) memory.

    Example:
        >>> nearest_neighbours([[0.0, 0.0], [0.0, 1.0], [0.0, 3.0]], 1).sites
        tensor([1, 0, 1])
    """
    place = torch.as_tensor(np.asarray(coordinates), dtype=torch.float64)
    if place.ndim != 2 or 0 in place.shape or not torch.isfinite(place).all():
        raise ValueError(
            "nearest_neighbours: coordinates must be finite numbers of shape [S, D], got shape "
            f"{list(place.shape)}."
        )
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"nearest_neighbours: k must be a whole number >= 1, got {k!r}.")
    return _nearest(place, [k])[0]


def _nearest(place: Tensor, sizes: Sequence[int]) -> list[Neighbours]:
    """`nearest_neighbours` for several k in one pass over the distances."""
    sites = len(place)
    if sites == 1:
        none = torch.zeros(0, dtype=torch.float64)
        return [Neighbours(torch.zeros(2, dtype=torch.int64), none.long(), none)] * len(sizes)
    sizes = [min(k, sites - 1) for k in sizes]
    bounds = torch.tensor([90.0, 360.0], dtype=torch.float64)
    if place.shape[1] == 2 and (place.abs() <= bounds).all():
        place = place * torch.stack(
            [torch.ones((), dtype=torch.float64), torch.deg2rad(place[:, 0].mean()).cos()]
        )
    place = place - place.mean(0)
    looked_at = min(max(sizes) + 16, sites - 1)
    columns: list[Tensor] = []
    weights: list[list[Tensor]] = [[] for _ in sizes]
    block = max(1, 4_000_000 // sites)
    for start in range(0, sites, block):
        part = place[start : start + block]
        distance = torch.cdist(part, place, compute_mode="donot_use_mm_for_euclid_dist")
        distance[torch.arange(len(part)), torch.arange(start, start + len(part))] = torch.inf
        near = distance.topk(looked_at, largest=False)
        columns.append(near.indices)
        for k, found in zip(sizes, weights, strict=True):
            last = near.values[:, k - 1 : k]
            slack = 1e-6 * last
            inside, level = near.values < last - slack, (near.values - last).abs() <= slack
            places = k - inside.double().sum(1, keepdim=True)
            found.append(inside + level * places / level.double().sum(1, keepdim=True))
    column, graphs = torch.cat(columns), []
    for found in weights:
        weight = torch.cat(found)
        used = weight > 0
        start = nn.functional.pad(used.sum(1).cumsum(0), (1, 0))
        graphs.append(Neighbours(start, column[used], weight[used]))
    return graphs


class SiteHistory:
    """Long memory: what the whole past of a site and of its neighbours says about its rate.

    See the module for the formulas. A feature of period t uses counts before t only, those that the
    panel carries as history among them, so parts of a split get the same values as the whole panel. A
    panel without earlier counts that comes after the fitted ones takes those as its past. Periods
    without counts are passed over.

    Args:
        half_lives: h, memories in periods, each > 0; inf is the whole past.
        neighbours: sizes of the neighbourhoods, by coordinates; () for none. Of no effect where there
            are no coordinates.
        coordinates: two features of the panel, or "auto": those with the usual names of latitude and
            longitude, if there are any; or None.
        edges: pairs of site ids that are neighbours, in place of coordinates; or None.
        season: periods in a year, for the seasons of the overall level; None for no seasons; or
            "auto": 12 or 4 where the times are dates that are months or quarters apart.

    Fitted attributes, all from the panel given to `fit` alone:
        concentration_: κ_j, one per neighbourhood, the widest first: what makes the counts of the last
            period's past likeliest, each a negative binomial around its prior mean.
        shape_: of that negative binomial; how alike a site and its neighbours are.
        smoothing_, seasonal_smoothing_: of the overall level, from the squared errors of its logarithm
            one period ahead. level_: its mean, for periods without any past.
        site_ids_, graphs_: the sites, and their `Neighbours`, one per neighbourhood.
        absorbed_: features of the panel that the statistics hold already: those that only repeat its
            earlier counts (lags), and the coordinates by which neighbours were found.
        counts_, end_: all counts that were known [N, S], and the time of the last: the past of a panel
            that comes later and has none of its own.

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
                    f"SiteHistory.set_params: {name!r} must be an argument of SiteHistory, got none "
                    f"such. There are {', '.join(self.get_params())}."
                )
            setattr(self, name, value)
        return self

    def fit(self, panel: Panel) -> SiteHistory:
        """Learn the shrinkage and the overall level from a panel's counts, earlier ones included.

        Raises:
            TypeError: panel is no Panel.
            ValueError: an argument of the constructor is out of range; an edge names an unknown site.
        """
        _check_panel(panel, "fit")
        self._check_arguments(panel)
        self.site_ids_ = list(panel.site_ids)
        self.half_lives_ = [float(h) for h in self.half_lives]
        self.graphs_ = self._make_graphs(panel)
        self.season_ = _season(panel) if self.season == "auto" else self.season
        timeline = _known(panel)
        self.absorbed_ = _repeats(panel)
        if self.graphs_ and self.edges is None:
            self.absorbed_ += self._coordinate_names(panel)
        self.counts_, self.end_ = timeline.float(), float(panel.time_values[-1])
        total = timeline.sum(1).numpy()
        self.level_ = max(float(total.mean()) / panel.num_sites, 1e-6) if len(total) else 1.0
        self.smoothing_, self.seasonal_smoothing_ = _best_smoothing(total, self.season_)
        self.concentration_, self.shape_ = _fit_concentration(
            *self._whole_past(timeline), self.graphs_
        )
        return self

    def transform(self, panel: Panel) -> Panel:
        """The panel with 3 H more features, in counts per period; for each half-life h

        decayed_mean_h: the decayed mean count A / Σ d^(t−1−u) of the site; 0 without a past.
        neighbour_rate_h: L_t m, the neighbours' risk at the overall level that is forecast for t.
        shrunken_rate_h: L_t m (shape + A) / (shape + m E), the site's own, shrunk towards it.

        Raises:
            RuntimeError: not fitted. ValueError: the panel has other sites.
        """
        counts, expected, rate, weight = self._statistics(panel, "transform")
        mean = counts / weight.clamp_min(_FLOOR)[:, None]
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

    def statistics(self, panel: Panel) -> Tensor:
        """What `EmpiricalBayesRates` reads, [T, S, 3 H]: A, then m E, then L_t m, H of each."""
        counts, expected, rate, _ = self._statistics(panel, "statistics")
        return torch.cat([counts, expected, rate], dim=-1).to(panel.device, torch.float32)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, as they stand in the model file under "site_history"."""
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
            "site_ids": list(self.site_ids_),
            "counts": self.counts_.clone(),
            "end": float(self.end_),
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
            for key in ("shape", "level", "smoothing", "seasonal_smoothing", "end"):
                setattr(history, f"{key}_", float(state[key]))
            history.counts_ = torch.as_tensor(state["counts"], dtype=torch.float32)
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
        if history.counts_.ndim != 2 or history.counts_.shape[1] != sites:
            raise ValueError(
                f"{name}: counts must have shape [N, {sites}], got {list(history.counts_.shape)}."
            )
        if len(history.graphs_) != len(history.concentration_):
            raise ValueError(
                f"{name}: concentration must have one entry per graph, {len(history.graphs_)}, got "
                f"{len(history.concentration_)}."
            )
        return history

    # ---- the recursions --------------------------------------------------------------------------

    def _whole_past(self, timeline: Tensor) -> tuple[Tensor, float]:
        """A [S] and E after all periods of the timeline, without decay."""
        counts = timeline.sum(0)
        return counts, counts.mean().item()

    def _statistics(self, panel: Panel, method: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A, m E and L m [T, S, H], and Σ d^(t−1−u) [T, H]; float64 on the CPU."""
        self._check_fitted(method)
        _check_panel(panel, method)
        if panel.site_ids != self.site_ids_:
            raise ValueError(
                f"SiteHistory.{method}: panel must have the sites of fit in the same order, got "
                f"{panel.num_sites} sites for {len(self.site_ids_)}. Call "
                "panel.align(site_ids=history.site_ids_) first."
            )
        timeline = panel._timeline.cpu().double()
        first = 0
        if panel.history_y is None and float(panel.time_values[0]) > self.end_:
            first = len(self.counts_)
            timeline = torch.cat([self.counts_.double(), timeline])
        wanted = {int(row) + first: t for t, row in enumerate(panel._rows)}
        half_lives = torch.tensor(self.half_lives_, dtype=torch.float64)
        decay = torch.exp2(-1 / half_lives)
        size = (panel.num_times, panel.num_sites, len(decay))
        counts, expected, rate = (torch.zeros(size, dtype=torch.float64) for _ in range(3))
        weight = torch.zeros(panel.num_times, len(decay), dtype=torch.float64)
        a, e, w = (torch.zeros(*shape, len(decay)).double() for shape in ((size[1],), (), ()))
        level = _Level(self.smoothing_, self.seasonal_smoothing_, self.season_)
        for row, y in enumerate(timeline):
            if row in wanted:
                t = wanted[row]
                m = _prior_mean(a, e, self.graphs_, self.concentration_)
                forecast = level.forecast(row)
                counts[t], expected[t], weight[t] = a, m * e, w
                rate[t] = m * (self.level_ if forecast is None else forecast / size[1])
            if not torch.isnan(y).any():
                a = decay * a + y[:, None]
                e, w = decay * e + y.mean(), decay * w + 1
                level.update(row, float(y.sum()))
        return counts, expected, rate, weight

    def _make_graphs(self, panel: Panel) -> list[Neighbours]:
        if self.edges is not None:
            return [_graph_of_edges(self.edges, panel.site_ids)]
        names = self._coordinate_names(panel)
        if not names or not len(self.neighbours):
            return []
        at = [panel.feature_names.index(name) for name in names]
        place = panel.x[0][:, at].cpu().double()
        return _nearest(place, sorted(map(int, self.neighbours))[::-1])

    def _coordinate_names(self, panel: Panel) -> list[str]:
        names = self.coordinates
        if names == "auto":
            names = coordinate_features(panel.feature_names)
        return list(names or ())

    def _check_arguments(self, panel: Panel) -> None:
        half_lives = list(self.half_lives)
        if not half_lives or not all(isinstance(h, int | float) and h > 0 for h in half_lives):
            raise ValueError(
                f"SiteHistory: half_lives must be numbers > 0, at least one, got {half_lives!r}."
            )
        if first_repeated([float(h) for h in half_lives]) is not None:
            raise ValueError(f"SiteHistory: half_lives must be distinct, got {half_lives!r}.")
        if not all(
            isinstance(k, int) and not isinstance(k, bool) and k > 0 for k in self.neighbours
        ):
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
        season = self.season
        whole = isinstance(season, int) and not isinstance(season, bool) and season >= 2
        if season not in (None, "auto") and not whole:
            raise ValueError(
                f"SiteHistory: season must be a whole number >= 2, 'auto' or None, got {season!r}."
            )

    def _check_fitted(self, method: str) -> None:
        if not hasattr(self, "concentration_"):
            raise RuntimeError(f"SiteHistory.{method}: fit must be called first.")


class _Level:
    """Exponential smoothing of the logarithm of the overall count, with additive seasons (Holt–Winters
    without a trend)."""

    def __init__(self, smoothing: float, seasonal_smoothing: float, season: int | None):
        self._smoothing, self._seasonal = smoothing, seasonal_smoothing
        self._seasons = np.zeros(season or 1)
        self._level: float | None = None
        self._updates = 0

    def forecast(self, row: int) -> float | None:
        """The total of a period, or None before the first."""
        if self._level is None:
            return None
        return math.exp(self._level + self._seasons[row % len(self._seasons)])

    def update(self, row: int, total: float) -> None:
        at = row % len(self._seasons)
        value = math.log(total + 0.5)
        if self._level is None:
            self._level = value
        else:
            self._level += self._smoothing * (value - self._seasons[at] - self._level)
        self._updates += 1
        if len(self._seasons) > 1:
            # Means of the first cycle, then exponential smoothing.
            rate = max(self._seasonal, 1 / (1 + (self._updates - 1) // len(self._seasons)) / 2)
            self._seasons[at] += rate * (value - self._level - self._seasons[at])


def _best_smoothing(total: np.ndarray, season: int | None) -> tuple[float, float]:
    """The smoothing whose forecasts, one period ahead, had the least squared error in logarithms."""
    seasonal = _SEASONAL_SMOOTHING if season else (0.0,)
    start = 1 if season is None else min(season, max(1, len(total) - season))
    if len(total) <= start + 1:
        return 0.7, seasonal[0]

    def error(pair: tuple[float, float]) -> float:
        level, squares = _Level(*pair, season), 0.0
        for row, value in enumerate(total):
            forecast = level.forecast(row)
            if row >= start and forecast is not None:
                squares += (math.log(value + 0.5) - math.log(forecast)) ** 2
            level.update(row, value)
        return squares

    return min(((a, b) for a in _SMOOTHING for b in seasonal), key=error)


def _prior_mean(
    counts: Tensor, exposure: Tensor, graphs: Sequence[Neighbours], concentration: Sequence[Any]
) -> Tensor:
    """m [S, H] from A [S, H] and E [H]."""
    m = torch.ones_like(counts)
    for graph, kappa in zip(graphs, concentration, strict=True):
        size = graph.sum(torch.ones_like(counts[:, :1]))
        m = (graph.sum(counts) + kappa) / (size * exposure + kappa / m.clamp_min(_FLOOR))
    return m


def _fit_concentration(
    counts: Tensor, exposure: float, graphs: Sequence[Neighbours]
) -> tuple[list[float], float]:
    """κ_j and the shape that make counts A_s ~ NegBin(shape, mean m_s E) likeliest, with a weak
    lognormal prior around 4 (sd 1.5 of the logarithm) so that few sites cannot send one to 0 or ∞."""
    start = math.log(4.0)
    p = torch.full((len(graphs) + 1,), start, dtype=torch.float64, requires_grad=True)
    near = [graph.sum(counts[:, None])[:, 0] for graph in graphs]
    size = [graph.sum(torch.ones_like(counts)[:, None])[:, 0] for graph in graphs]

    def loss() -> Tensor:
        m = torch.ones_like(counts)
        for j in range(len(graphs)):
            kappa = p[j].exp()
            m = (near[j] + kappa) / (size[j] * exposure + kappa / m.clamp_min(_FLOOR))
        shape, mean = p[-1].exp(), m * exposure
        log_prob = (
            torch.lgamma(counts + shape)
            - torch.lgamma(shape)
            + shape * torch.log(shape / (shape + mean))
            + counts * torch.log(mean / (shape + mean))
        )
        return -log_prob.sum() + 0.5 * ((p - start) / 1.5).square().sum()

    if exposure > 0:
        optimizer = torch.optim.LBFGS(
            [p], max_iter=50, line_search_fn="strong_wolfe", tolerance_change=1e-9
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss()
            value.backward()
            return value

        optimizer.step(closure)
    fitted = p.detach().clamp(-7, 12).exp().tolist()
    return fitted[:-1], fitted[-1]


def _graph_of_edges(edges: Iterable[tuple[str, str]], site_ids: list[str]) -> Neighbours:
    at = {site: i for i, site in enumerate(site_ids)}
    pairs = set()
    for edge in edges:
        a, b = edge
        for site in (a, b):
            if site not in at:
                raise ValueError(
                    f"SiteHistory: edges must be pairs of the panel's sites, got {site!r}, which it "
                    "lacks."
                )
        if a != b:
            pairs |= {(at[a], at[b]), (at[b], at[a])}
    index = torch.tensor(sorted(pairs), dtype=torch.int64).reshape(-1, 2)
    size = torch.bincount(index[:, 0], minlength=len(site_ids))
    start = nn.functional.pad(size.cumsum(0), (1, 0))
    return Neighbours(start, index[:, 1].clone(), torch.ones(len(index), dtype=torch.float64))


def _repeats(panel: Panel) -> list[str]:
    """Features whose values are the counts of one earlier period each, wherever those are known."""
    timeline, x = panel._timeline.cpu(), panel.x.cpu()
    rows = panel._rows.tolist()
    found = []
    for lag in range(1, rows[-1] + 1):
        pairs = [(t, row - lag) for t, row in enumerate(rows) if row >= lag]
        earlier = torch.stack([timeline[u] for _, u in pairs])[..., None]
        if earlier.any():
            same = (x[[t for t, _ in pairs]] == earlier).flatten(0, 1).all(0)
            found += torch.nonzero(same).flatten().tolist()
    return [panel.feature_names[p] for p in sorted(set(found))]


def _season(panel: Panel) -> int | None:
    if isinstance(panel.times[0], int | float) or panel.num_times < 2:
        return None
    gap = float(np.median(np.diff(panel.time_values.numpy())))
    return 12 if 28 <= gap <= 31 else 4 if 89 <= gap <= 92 else None


def _known(panel: Panel) -> Tensor:
    timeline = panel._timeline.cpu().double()
    return timeline[~torch.isnan(timeline).any(1)]


def _check_panel(panel: Any, method: str) -> None:
    if not isinstance(panel, Panel):
        raise TypeError(
            f"SiteHistory.{method}: panel must be a Panel, got {type(panel).__name__}. Make one with "
            "Panel.from_frame."
        )
