"""Public data sets, and simulated ones for machines that have none.

`cook_county` and `aerial_surveys` look for their files in the argument `root`, then in the folder
that the environment variable TOPREACH_DATA names, then in the user's cache, then download them with
a checksum. `ct_overdose`, `cook_overdose_events` and `chicago_assault` count public records that
are in one of these folders already; `ct_overdose_deaths` and `cook_overdose_deaths` give them as
dated events. `ma_overdose` reads a file that must be requested.
"""

from .events import (
    chicago_assault,
    cook_overdose_deaths,
    cook_overdose_events,
    ct_overdose,
    ct_overdose_deaths,
)
from .massachusetts import ma_overdose
from .published import aerial_surveys, cook_county
from .simulated import simulate_county, simulate_massachusetts

__all__ = [
    "aerial_surveys",
    "chicago_assault",
    "cook_county",
    "cook_overdose_deaths",
    "cook_overdose_events",
    "ct_overdose",
    "ct_overdose_deaths",
    "ma_overdose",
    "simulate_county",
    "simulate_massachusetts",
]
