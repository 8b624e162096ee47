"""Overdose deaths in Cook County: 2025 paper, section 5.2, Table C.2 and Figure 3."""

from topreach.data.datasets import cook_county

from ..context import Context
from ..real_data import Study
from ..real_data import run as run_study

TITLE = "Overdose deaths in Cook County, all methods beside Table C.2 [2025, 5.2]"

STUDY = Study(
    title="Cook County, opioid-overdose deaths",
    load=cook_county,
    k=100,
    average=5,
    unit="deaths",
    place=("INTPTLAT", "INTPTLON"),
    lags="prev_deaths_",
    published={
        "last": (1.07, 1.66, 0.76),
        "average": (0.99, 1.58, 0.80),
        "chance": (1.37, 2.46, 0.20),
        "epignn": (1.33, 2.03, 0.32),
        "pg": (5.65, 17.03, 0.80),
        "spo": (1.25, 2.38, 0.74),
        "nll": (1.03, 1.58, 0.78),
        "daml": (1.12, 1.84, 0.80),
        "bpr": (70.31, 152.72, 0.82),
    },
)


def run(context: Context) -> None:
    run_study(context, STUDY)
