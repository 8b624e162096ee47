"""Learn from counts over sites and time which K of S sites to act on.

>>> import topreach as tr
>>> train, valid, test = tr.datasets.simulate_county()
>>> ranker = tr.TopKRanker(100).fit(train, valid)
>>> ranker.rank(test)
"""

from ._library import PACKAGE as _PACKAGE
from ._library import load as _load

build_info = _load()

from . import (  # noqa: E402
    data,
    distributions,
    evaluation,
    models,
    objectives,
    online,
    ops,
    plan,
    programs,
    training,
)
from ._C import Calendar  # noqa: E402
from .data import Batch, Events, Graph, Panel, Splits, Standardizer, TableSpec, datasets  # noqa: E402
from .distributions.counts import (  # noqa: E402
    count_cdf,
    count_quantile,
    expected_ratio_ranking,
    interval_log_prob,
)
from .evaluation import baselines, metrics  # noqa: E402
from .ops import (  # noqa: E402
    cpu_capability,
    draw_key,
    expected_quota_topk,
    expected_topk,
    perturbed_quota_topk,
    perturbed_topk,
    quota_topk,
    ratio_ranking,
    soft_bpr,
    topk_mask,
    topk_noise,
    topk_probability,
)
from .ranking import TopKRanker  # noqa: E402
from .training import Trainer  # noqa: E402

__version__ = build_info["version"]
cmake_prefix_path = str(_PACKAGE / "share" / "cmake")

__all__ = [
    "Batch",
    "Calendar",
    "Events",
    "Graph",
    "Panel",
    "Splits",
    "Standardizer",
    "TableSpec",
    "TopKRanker",
    "Trainer",
    "baselines",
    "build_info",
    "cpu_capability",
    "cmake_prefix_path",
    "count_cdf",
    "count_quantile",
    "data",
    "datasets",
    "distributions",
    "draw_key",
    "evaluation",
    "expected_quota_topk",
    "expected_topk",
    "expected_ratio_ranking",
    "interval_log_prob",
    "metrics",
    "models",
    "objectives",
    "online",
    "ops",
    "perturbed_quota_topk",
    "perturbed_topk",
    "plan",
    "programs",
    "quota_topk",
    "ratio_ranking",
    "soft_bpr",
    "topk_mask",
    "topk_noise",
    "topk_probability",
    "training",
]
