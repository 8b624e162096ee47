"""Plans as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd


def plan_frame(plans: Sequence[Any]) -> pd.DataFrame:
    """Plans (`_C.Plan`) one below the other: time, site, score, expected_count, chance_top_k, rank,
    selected. A time is a number if the period is one, else the text of the calendar."""
    tables = []
    for plan in plans:
        columns = plan.columns()
        time = int(plan.period) if plan.period.lstrip("-").isdigit() else plan.period
        tables.append(pd.DataFrame({"time": [time] * len(plan.sites)} | columns))
    return pd.concat(tables, ignore_index=True)
