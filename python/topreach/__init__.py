"""Learn from counts over sites and time which K of S sites to act on.

>>> import topreach as tr
>>> train, valid, test = tr.datasets.simulate_county()
>>> ranker = tr.TopKRanker(100).fit(train, valid)
>>> ranker.rank(test)
"""

from ._library import PACKAGE as _PACKAGE
from ._library import load as _load

build_info = _load()

from . import baselines, datasets, features, metrics, models, objectives  # noqa: E402
from .counts import (  # noqa: E402
    count_cdf,
    count_quantile,
    expected_ratio_ranking,
    interval_log_prob,
)
from .ops import (  # noqa: E402
    cpu_capability,
    draw_key,
    expected_topk,
    perturbed_topk,
    ratio_ranking,
    topk_mask,
    topk_noise,
    topk_probability,
)
from .panel import Batch, Panel, Splits  # noqa: E402
from .ranker import TopKRanker  # noqa: E402
from .standardizer import Standardizer  # noqa: E402
from .trainer import Trainer  # noqa: E402

__version__ = build_info["version"]
cmake_prefix_path = str(_PACKAGE / "share" / "cmake")

__all__ = [
    "Batch",
    "Panel",
    "Splits",
    "Standardizer",
    "TopKRanker",
    "Trainer",
    "baselines",
    "build_info",
    "cpu_capability",
    "cmake_prefix_path",
    "count_cdf",
    "count_quantile",
    "datasets",
    "draw_key",
    "expected_topk",
    "expected_ratio_ranking",
    "features",
    "interval_log_prob",
    "metrics",
    "models",
    "objectives",
    "perturbed_topk",
    "ratio_ranking",
    "topk_mask",
    "topk_noise",
    "topk_probability",
]
