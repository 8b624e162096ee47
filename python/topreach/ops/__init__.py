"""Typed functions over the operators `torch.ops.topreach.*`."""

from topreach.ops.quota import expected_quota_topk, perturbed_quota_topk, quota_topk
from topreach.ops.random import cpu_capability, draw_key, topk_noise
from topreach.ops.ranking import ratio_ranking
from topreach.ops.reach import soft_bpr
from topreach.ops.topk import expected_topk, perturbed_topk, topk_mask, topk_probability

__all__ = [
    "cpu_capability",
    "draw_key",
    "expected_quota_topk",
    "expected_topk",
    "perturbed_quota_topk",
    "perturbed_topk",
    "quota_topk",
    "ratio_ranking",
    "soft_bpr",
    "topk_mask",
    "topk_noise",
    "topk_probability",
]
