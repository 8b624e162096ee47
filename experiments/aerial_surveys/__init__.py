"""Whooping cranes at Aransas: 2025 paper, section 5.3, Table C.2 and Figure 3."""

from topreach.data.datasets import aerial_surveys

from ..context import Context
from ..real_data import Study
from ..real_data import run as run_study

TITLE = "Whooping cranes seen from the air, all methods beside Table C.2 [2025, 5.3]"

STUDY = Study(
    title="Aransas, whooping cranes",
    load=aerial_surveys,
    k=50,
    average=10,
    unit="cranes",
    place=("lat", "long"),
    lags="prev_counts_",
    left_out=("timestep_feat",),
    sampled_epochs=100,
    start_from_likelihood=True,
    repeats=20,
    time_as_given=True,
    published={
        "last": (0.24, 1.04, 0.27),
        "average": (0.25, 0.78, 0.38),
        "chance": (0.15, 0.79, 0.05),
        "epignn": (0.38, 0.70, 0.06),
        "pg": (1.03, 4.85, 0.35),
        "spo": (0.15, 0.83, 0.18),
        "nll": (0.35, 1.14, 0.38),
        "daml": (9.08, 35.89, 0.39),
        "bpr": (40495.0, 40495.0, 0.41),
    },
)


def run(context: Context) -> None:
    run_study(context, STUDY)
