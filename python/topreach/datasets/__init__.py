"""Public data sets, and a simulated one for machines that have none.

`cook_county` and `aerial_surveys` look for their files in the argument `root`, then in the folder
that the environment variable TOPREACH_DATA names, then in the user's cache, then download them with
a checksum.
"""

from .published import aerial_surveys, cook_county
from .simulated import simulate_county

__all__ = ["aerial_surveys", "cook_county", "simulate_county"]
