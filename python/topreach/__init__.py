"""Learn from counts over sites and time which K of S sites to act on.

>>> import topreach as tr
>>> chosen = tr.perturbed_topk(scores, 100, sigma=0.01)
"""

from ._library import PACKAGE as _PACKAGE
from ._library import load as _load

build_info = _load()

from .ops import draw_key, perturbed_topk, ratio_ranking, topk_mask, topk_noise  # noqa: E402

__version__ = build_info["version"]
cmake_prefix_path = str(_PACKAGE / "share" / "cmake")

__all__ = [
    "build_info",
    "cmake_prefix_path",
    "draw_key",
    "perturbed_topk",
    "ratio_ranking",
    "topk_mask",
    "topk_noise",
]
