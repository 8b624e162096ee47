"""Treatment coverage: who is sent where, and the value of one more place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from topreach import _C
from topreach.data.site_ids import in_order, site_ids
from topreach.plan.constraints import Constraints
from topreach.plan.inputs import Sites, read_sites
from topreach.plan.plan import Plan
from topreach.plan.problem import Problem
from topreach.programs.solver import find_highs

_EARTH_KM = 6371.0088  # mean radius


def assign(
    need: Any,
    capacity: Any,
    distance: Any = None,
    *,
    radius: float = math.inf,
    need_places: Any = None,
    capacity_places: Any = None,
    open_sites: int = 0,
    opened_capacity: Any = None,
    unserved: float | None = None,
    prices: bool = True,
    value: str | None = None,
    site: str = "site",
    gap: float = 1e-4,
    time: float = math.inf,
) -> Plan:
    """Send people to places so that few people go without a place, and distances are short.

    min sum d_ij q_ij + D sum u_i, sum_j q_ij + u_i = need_i, sum_i q_ij <= capacity_j, q_ij only
    where d_ij <= radius.

    Args:
        need: people by area: Series by id, table, or array.
        capacity: number of people that each place can take: Series by id, or array.
        distance: [n, m], in any unit. Or give both lists of places, for km along the sphere:
        need_places, capacity_places: longitude and latitude of each, [n, 2] and [m, 2].
        radius: the largest distance allowed.
        open_sites: open at most this many new places.
        opened_capacity: their capacity by place, 0 for those that cannot be opened. One number is
            for all places with capacity 0.
        unserved: D, the cost of leaving one person out, above min(n, m) x the largest distance;
            None: just above.
        prices: also solve with one person, or one place, more and less.
        value, site: columns of a table of needs. gap: relative gap that is good enough. time:
            seconds.

    Returns:
        A plan with a table of areas (need, unserved, need_more, need_less), worst first; `places`
        (capacity, used, opened, capacity_more, capacity_less: how the value changes with one place
        more or less) and `flows` (from, to, people, distance). Its value is in people x distance.
        Needs HiGHS.

    Raises:
        ValueError: needs, capacities or distances below 0 or of other shapes; neither or both of
            distance and the lists of places; open_sites without opened_capacity; unserved too
            small.
        RuntimeError: no HiGHS.

    Example:
        >>> plan = assign([3, 2], [4], [[1.0], [5.0]], radius=10)
        >>> plan.numbers["unserved"]
        1.0

    Source: a transport problem; Hitchcock 1941, The distribution of a product from several sources
    to numerous localities. The question is that of Wheeler, "An alt take on opioid treatment
    coverage in North Carolina" (andrewpwheeler.com).
    """
    name = "assign"
    find_highs()
    areas = read_sites(need, name, value=value, site=site)
    if isinstance(capacity, pd.Series):
        places = site_ids(capacity.index, name, "capacity")
    else:
        places = [str(j) for j in range(len(capacity))]
    held = Sites(places, np.zeros(len(places)), pd.DataFrame(index=pd.Index(places)))
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise ValueError(f"{name}: capacity must name a place once, got {twice!r} twice.")
    room = held.numbers(capacity, name, "capacity", 0.0)
    if isinstance(distance, pd.DataFrame):
        distance = in_order(distance, areas.ids, name, "distance")
        distance = in_order(distance, places, name, "distance", axis=1)
    need_places = in_order(need_places, areas.ids, name, "need_places")
    capacity_places = in_order(capacity_places, places, name, "capacity_places")
    opened_capacity = in_order(opened_capacity, places, name, "opened_capacity")
    for what, where, ids in (
        ("need_places", need_places, areas.ids),
        ("capacity_places", capacity_places, places),
    ):
        if where is not None:
            _check_places(np.asarray(where, dtype=float), ids, name, what)
    ways = _distances(distance, need_places, capacity_places, len(areas.ids), len(places))
    extra = np.zeros(len(places))
    if opened_capacity is not None:
        extra = held.numbers(opened_capacity, name, "opened_capacity", 0.0).copy()
        if np.ndim(opened_capacity) == 0:
            extra[room > 0] = 0
    if open_sites and not extra.any():
        raise ValueError(
            f"{name}: opened_capacity must say what open_sites can hold, got none above 0."
        )

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        return _C.plan_assign(
            values, room, extra, open_sites, ways, float(radius), unserved or 0.0, prices, gap, time
        )

    # Places are the rows that are chosen, so that the plan's own sites are the places.
    problem = Problem(name, areas, Constraints(), run)
    solved = problem.solve(areas.scores)
    columns = solved.columns
    table = pd.DataFrame({"site": areas.ids, "need": areas.scores, "unserved": columns["unserved"]})
    kept = pd.DataFrame(
        {
            "site": places,
            "capacity": room,
            "used": columns["used"],
            "opened": np.isin(np.arange(len(places)), solved.chosen),
        }
    )
    if prices:
        table["need_more"], table["need_less"] = columns["need_more"], columns["need_less"]
        kept["capacity_more"] = columns["capacity_more"]
        kept["capacity_less"] = columns["capacity_less"]
    order = ["unserved", "need_more"] if prices else ["unserved"]
    table = table.sort_values(order, ascending=False, kind="stable", ignore_index=True)
    rows = np.asarray(solved.edges, dtype=int).reshape(-1, 2)
    flows = pd.DataFrame(
        {
            "from": [areas.ids[i] for i in rows[:, 0]],
            "to": [places[j] for j in rows[:, 1]],
            "people": solved.amounts,
            "distance": ways[rows[:, 0], rows[:, 1]],
        }
    )
    owners = Sites(places, room, pd.DataFrame(index=pd.Index(places)))
    shown = Problem(name, owners, Constraints(), run)
    return Plan(shown, solved, table=table, extra={"flows": flows, "places": kept})


def _check_places(where: np.ndarray, ids: list[str], name: str, what: str) -> None:
    """Check the longitude and latitude of each site."""
    if where.shape != (len(ids), 2):
        raise ValueError(
            f"{name}: {what} must have shape [{len(ids)}, 2], got {list(where.shape)}."
        )
    wrong = ~((np.abs(where[:, 0]) <= 360) & (np.abs(where[:, 1]) <= 90))
    if wrong.any():
        at = int(np.argmax(wrong))
        lon, lat = where[at].tolist()
        raise ValueError(
            f"{name}: {what} must be longitudes from -360 to 360 and latitudes from -90 to 90, got "
            f"{lon:g} and {lat:g} for {ids[at]!r}."
        )


def _distances(given: Any, here: Any, there: Any, needs: int, places: int) -> np.ndarray:
    if (given is None) == (here is None or there is None):
        raise ValueError("assign: give either distance or both need_places and capacity_places.")
    if given is not None:
        ways = np.asarray(given, dtype=float)
        if ways.shape != (needs, places):
            raise ValueError(
                f"assign: distance must have shape [{needs}, {places}], got {list(ways.shape)}."
            )
        return ways
    a, b = (np.radians(np.asarray(v, dtype=float)) for v in (here, there))
    # Haversine.
    half = (
        np.sin((a[:, None, 1] - b[None, :, 1]) / 2) ** 2
        + np.cos(a[:, None, 1])
        * np.cos(b[None, :, 1])
        * np.sin((a[:, None, 0] - b[None, :, 0]) / 2) ** 2
    )
    return 2 * _EARTH_KM * np.arcsin(np.sqrt(np.minimum(half, 1)))
