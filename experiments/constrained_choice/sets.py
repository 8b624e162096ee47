"""The sets of constrained_choice: a panel, K, and quotas on groups of its sites."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

import topreach as tr
from topreach import Panel

from ..context import Context

COUNTY_DIGITS = slice(2, 5)  # the digits of a town's number that are its county
# PROVIDENT: block groups, municipalities, block groups that can be treated.
BLOCKS, TOWNS, TREATED = 809, 39, 162
HALF_YEARS, BEFORE = 16, 4
DEATHS = 200.0  # in a half-year
COUNTIES = 5  # number of simulated states
IN_QUICK = ("cook_year_100", "ct_2", "provident_two")


@dataclass(frozen=True)
class Block:
    """The periods for training, [0, valid), for choices, [valid, test), and for the test, [test,
    end)."""

    valid: int
    test: int
    end: int


@dataclass(frozen=True)
class Case:
    """One panel with its quotas.

    title: for the table of prices. groups: by site id; None for a site in no group. lower: least
    number of sites in each group. window: number of past counts that the linear scorer reads.
    unit: of the bootstrap, "period" or "county".
    """

    title: str
    panel: Panel
    k: int
    groups: pd.Series
    lower: int
    blocks: tuple[Block, ...]
    window: int
    unit: str = "period"

    def program(self) -> tr.programs.Quotas:
        return tr.programs.Quotas(self.k, self.groups, lower=self.lower)


def cases(context: Context) -> dict[str, list[Case]]:
    """The cases of each set, by name. A simulated set has several."""
    found: dict[str, list[Case]] = {}
    try:
        found |= {name: [case] for name, case in _real(context.data)}
    except OSError as error:
        if context.data is not None:
            raise
        print(
            "constrained_choice: the real data are not to be had, so there are SIMULATED counties "
            f"only.\n({str(error).splitlines()[0]})",
            file=sys.stderr,
        )
    for name, apart in (("provident_one", False), ("provident_two", True)):
        seeds = range(1000 * context.seed, 1000 * context.seed + COUNTIES)
        found[name] = [_provident(seed, apart) for seed in seeds]
    if context.quick:
        return {name: _short(of) for name, of in found.items() if name in IN_QUICK}
    return found


def _short(of: list[Case]) -> list[Case]:
    """One case with only its last block."""
    return [replace(of[0], blocks=of[0].blocks[-1:])]


def _real(root: Path | None) -> Iterator[tuple[str, Case]]:
    years = _joined(tr.datasets.cook_county(root))
    groups = cook_groups(_file(root, "geo/cook_tract_groups.csv"), years.site_ids)
    areas = groups.where(groups.str.startswith("community_area"))
    # Periods 2 to 8. Each of the last four is tested; the period before it is for choices.
    by_year = tuple(Block(t - 1, t, t + 1) for t in range(3, 7))
    yield (
        "cook_year_100",
        Case(
            "Cook County tracts by year, K = 100, 1 in each of 77 community areas",
            *(years, 100, areas, 1, by_year, 1),
        ),
    )
    yield (
        "cook_year_250",
        Case(
            "Cook County tracts by year, K = 250, 1 in each of 195 areas and municipalities",
            *(years, 250, groups, 1, by_year, 1),
        ),
    )
    towns = tr.datasets.ct_overdose("quarter", root=root)
    table = pd.read_csv(_file(root, "geo/ct_towns.csv"), dtype={"geoid": str})
    county = table.set_index("town")["geoid"].str[COUNTY_DIGITS].rename("county")
    county = county[list(towns.site_ids)]
    for least in (1, 2):
        yield (
            f"ct_{least}",
            Case(
                f"Connecticut towns by quarter, K = 20, {least} in each of 8 counties",
                *(towns, 20, county, least, _by_four(towns, 6), 8),
            ),
        )


def _by_four(panel: Panel, number: int) -> tuple[Block, ...]:
    """Blocks of the last `number` years, in quarters; the year before each is for choices."""
    starts = range(panel.num_times - 4 * number, panel.num_times, 4)
    return tuple(Block(start - 4, start, start + 4) for start in starts)


def _file(root: Path | None, name: str) -> Path:
    folder = root or Path(os.environ.get("TOPREACH_DATA", "."))
    path = Path(folder) / name
    if not path.is_file():
        raise FileNotFoundError(f"constrained_choice: {name} must be in the folder of the data")
    return path


def _joined(splits: tr.Splits) -> Panel:
    """One panel from its consecutive parts."""
    parts = [part for part in splits if part is not None]
    first = parts[0]
    return Panel(
        np.concatenate([part.x.numpy() for part in parts]),
        np.concatenate([part.y.numpy() for part in parts]),
        first.site_ids,
        [t for part in parts for t in part.times],
        first.feature_names,
        history_y=first.history_y,
        absent_lags=first.absent_lags,
        source=first.source,
    )


def cook_groups(path: Path, sites: list[str]) -> pd.Series:
    """The group of each tract as "kind: name", because a name can occur in several kinds. None for
    the few tracts outside all municipalities, whose kind is "township"."""
    table = pd.read_csv(path, dtype={"geoid": str}).set_index("geoid").loc[list(sites)]
    groups = table["kind"] + ": " + table["group"]
    return groups.where(table["kind"] != "township", None).rename("group")


def _provident(seed: int, apart: bool) -> Case:
    """A SIMULATED state of 809 block groups in 39 municipalities, half-years.

        log λ_s = town + f·w,  y_st ~ NegBin(mean m λ_s e^{w_st} / Σ λ, shape 5)

    f: two features of a block group; w_st: a slow random walk. The block groups in the largest
    towns, half of them all, are urban. apart=False: w = (.5, .5) everywhere. apart=True: (.8, 0) in
    urban block groups and (0, .8) elsewhere, which a linear score cannot express.
    """
    generator = np.random.default_rng(seed)
    weights = np.sort(generator.lognormal(0, 1, TOWNS))[::-1]
    sizes = 2 + generator.multinomial(BLOCKS - 2 * TOWNS, weights / weights.sum())
    town = np.repeat(np.arange(TOWNS), sizes)
    urban = np.isin(town, np.argsort(-sizes)[: _half(sizes)])
    features = generator.standard_normal((BLOCKS, 2))
    slopes = np.full((BLOCKS, 2), 0.5)
    if apart:
        slopes = np.where(urban[:, None], (0.8, 0.0), (0.0, 0.8))
    level = 0.4 * generator.standard_normal(TOWNS)[town] + 0.6 * urban
    rate = level + (features * slopes).sum(1) + 0.3 * generator.standard_normal(BLOCKS)
    walk = np.cumsum(0.1 * generator.standard_normal((BEFORE + HALF_YEARS, BLOCKS)), 0)
    intensity = np.exp(rate + walk)
    mean = DEATHS * intensity / intensity.sum(1, keepdims=True)
    counts = generator.poisson(mean * generator.gamma(5.0, 0.2, mean.shape)).astype(float)
    ids = [f"SIM{s:04d}" for s in range(BLOCKS)]
    panel = Panel(
        np.repeat(features[None], HALF_YEARS, 0),
        counts[BEFORE:],
        ids,
        range(HALF_YEARS),
        ["f1", "f2"],
        history_y=counts[:BEFORE],
        source="simulated",
    )
    relation = "two relations" if apart else "one relation"
    return Case(
        f"SIMULATED, PROVIDENT's sizes: K = 162 of 809, 1 in each of 39 municipalities; {relation}",
        *(panel, TREATED, pd.Series([f"t{t}" for t in town], ids, name="municipality"), 1),
        blocks=(Block(HALF_YEARS - 6, HALF_YEARS - 4, HALF_YEARS),),
        window=4,
        unit="county",
    )


def _half(sizes: np.ndarray) -> int:
    """The number of largest towns that together have half of all block groups."""
    return int(np.searchsorted(np.cumsum(np.sort(sizes)[::-1]), BLOCKS / 2)) + 1
