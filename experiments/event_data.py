"""Events for the experiments on point processes, real if the files are available, else simulated;
and the simulator."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

import topreach as tr

from .context import Context


def simulate(
    base: np.ndarray,
    edges: np.ndarray,
    jump: Callable[[int, float], np.ndarray],
    decay: np.ndarray,
    draw_mark: Callable[[], float],
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simulates a Hawkes process without earlier events, as a branching process.

    base [B, M]: immigrants per unit of time in each block. edges [B + 1]: of blocks of equal
    length. jump(v, mark): the amount that an event at v adds to the rates of all nodes, [M].
    decay [M].

    Returns times, nodes and marks, in order of time.
    """
    end, length = edges[-1], edges[1] - edges[0]
    waiting: list[tuple[float, int]] = []
    for (k, u), number in np.ndenumerate(generator.poisson(base * length)):
        waiting += [(t, u) for t in edges[k] + length * generator.random(number)]
    found = []
    while waiting:
        t, v = waiting.pop()
        mark = draw_mark()
        found.append((t, v, mark))
        for u, n in enumerate(generator.poisson(jump(v, mark) / decay)):
            for lag in generator.exponential(1 / decay[u], n):
                if t + lag <= end:
                    waiting.append((t + lag, u))
    if not found:
        return np.zeros(0), np.zeros(0, int), np.zeros(0)
    time, node, mark = (np.array(part) for part in zip(*sorted(found), strict=True))
    return time, node.astype(int), mark


def overdose_deaths(context: Context, which: str) -> tuple[tr.Events, str]:
    """Deaths with an opioid, by county of Connecticut ("ct", with sex and race as marks) or by area
    of Cook County ("cook"). Simulated deaths, with a message, if the files are not available."""
    try:
        if which == "ct":
            return tr.datasets.ct_overdose_deaths(
                opioid=True, marks=("sex", "race"), root=context.data
            ), "Connecticut"
        return tr.datasets.cook_overdose_deaths(root=context.data), "Cook County"
    except OSError:
        if context.data is not None:
            raise
    print(
        "SIMULATED DATA: the files were not found, so that the numbers below say nothing about any "
        "real place.",
        file=sys.stderr,
    )
    return _made_up(context.seed), "SIMULATED county"


def _made_up(seed: int) -> tr.Events:
    """Simulated events: six years, 3 places, 4 types."""
    generator = np.random.default_rng(seed)
    nodes, days = 12, 2192
    rates = 0.03 * np.exp(0.5 * generator.normal(size=nodes))
    children = 0.25 * np.eye(nodes) + 0.05
    time, node, _ = simulate(
        np.repeat(rates[None], 24, 0),
        np.linspace(0, days, 25),
        lambda v, mark: children[:, v] * 0.1,
        np.full(nodes, 0.1),
        lambda: 0.0,
        generator,
    )
    day = pd.Timestamp("2016-01-01") + pd.to_timedelta(np.floor(np.minimum(time, days - 1)), "D")
    table = pd.DataFrame({"date": day.strftime("%Y-%m-%d"), "place": [f"p{u // 4}" for u in node]})
    table["type"] = [f"drug {u % 4}" for u in node]
    where = pd.DataFrame({"place": ["p0", "p1", "p2"], "x": [0.0, 1.0, 0.0], "y": [0.0, 0.0, 1.5]})
    return tr.Events.from_frame(
        table,
        time="date",
        place="place",
        types="type",
        places=where,
        window=("2016-01-01", "2021-12-31"),
    )


def events_digest(events: tr.Events) -> str:
    """Digest of all events, for a cell's settings: other data make a new cell."""
    digest = hashlib.sha256(repr((events.places, events.types, events.duration)).encode())
    for tensor in (events.times, events.place, events.flags, events.marks):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def month_starts(first: str, last: str, step: int) -> Iterator[pd.Timestamp]:
    """The first days of every `step`-th month from `first` to `last`."""
    yield from pd.date_range(first, last, freq=f"{step}MS")
