"""Finds the solver HiGHS for programs that need one."""

from __future__ import annotations

import functools
import sys
from importlib import util
from pathlib import Path

from topreach import _C


@functools.cache
def find_highs() -> None:
    """Tell the library where the package `highsbox` keeps HiGHS, if it is installed. The
    environment variable TOPREACH_HIGHS comes before it, the system's library after it."""
    found = util.find_spec("highsbox")
    if found is None or not found.submodule_search_locations:
        return
    ending = ".dylib" if sys.platform == "darwin" else ".so"
    for folder in found.submodule_search_locations:
        library = Path(folder) / "highs_dist" / "lib" / f"libhighs{ending}"
        if library.is_file():
            _C.set_highs_library(str(library))
            return
