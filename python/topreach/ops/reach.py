"""The fraction of the best possible reach, of a soft choice [L23 Eq. 5, D25 Eq. 2]."""

from __future__ import annotations

import torch
from torch import Tensor

from topreach.ops.arguments import as_integer, as_tensor_argument


def soft_bpr(membership: Tensor, counts: Tensor, k: int) -> Tensor:
    """BPR of a fractional membership: b.y / sum_TopK(y) y, differentiable in ``membership``.

    Args:
        membership: b [..., S], floating point, e.g. from :func:`expected_topk`.
        counts: y [..., S], >= 0, of a shape that broadcasts with it; a constant.
        k: number of sites to choose, 1 <= k <= S.

    Returns:
        [...] in the dtype of ``membership``; NaN, with a zero gradient, if all counts are 0.
        Leave such rows out with ``torch.where``, not by multiplying.

    Raises:
        ValueError: k outside 1..S, shapes that do not agree, a negative or NaN count (CPU; on CUDA
            a NaN makes its row NaN).
        TypeError: an argument of another type.

    Example:
        >>> chosen = tr.expected_topk(scores, 100, sigma=0.1)
        >>> (-tr.soft_bpr(chosen, counts, 100).mean()).backward()
    """
    as_tensor_argument("soft_bpr", "membership", membership)
    as_tensor_argument("soft_bpr", "counts", counts)
    return torch.ops.topreach.soft_bpr(membership, counts, as_integer("soft_bpr", "k", k))
