"""What the library is measured against: (a) the papers' formulation in eager PyTorch, with one-hot
indicators and Jacobians by einsum, and (b) the best composition of plain PyTorch operations, with
vector-Jacobian products. Both give the same values and gradients as the library in expectation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import NegativeBinomial

# ---- perturbed top-K: scores [T, S], v [T, S] -> (b [T, S], gradient [T, S]) ------------------------


def topk_paper(scores: Tensor, k: int, sigma: float, draws: int, v: Tensor | None):
    """(a): indicators one-hot [T, J, K, S]; Jacobian [T, S, S] by einsum [L23 Eq. 4, D25 Eq. 11]."""
    z = torch.randn(scores.shape[0], draws, scores.shape[1], dtype=scores.dtype)
    chosen = torch.topk(scores[:, None] + sigma * z, k, dim=-1).indices
    one_hot = torch.zeros(*chosen.shape, scores.shape[1], dtype=scores.dtype)
    one_hot.scatter_(-1, chosen[..., None], 1.0)
    b = one_hot.mean(1).sum(1)
    if v is None:
        return b, None
    jacobian = torch.einsum("tjks,tju->tsu", one_hot, z) / (draws * sigma)
    return b, torch.einsum("ts,tsu->tu", v, jacobian)


def topk_plain(scores: Tensor, k: int, sigma: float, draws: int, v: Tensor | None):
    """(b): topk without sorting, scatter_add of counts, gather of v, one batched product with z."""
    rows, sites = scores.shape
    z = torch.randn(rows, draws, sites, dtype=scores.dtype)
    chosen = torch.topk(torch.add(scores[:, None], z, alpha=sigma), k, dim=-1, sorted=False).indices
    flat = chosen.reshape(rows, draws * k)
    one = torch.ones((), dtype=scores.dtype).expand(flat.shape)
    b = torch.zeros_like(scores).scatter_add_(1, flat, one) / draws
    if v is None:
        return b, None
    reach = v.gather(1, flat).reshape(rows, 1, draws, k).sum(-1)
    return b, torch.bmm(reach, z).squeeze(1) / (draws * sigma)


# ---- ratio ranking: samples y [M, T, S], d log p / d theta [M, T, S], g [T, S] ----------------------


def ratio_paper(y: Tensor, score: Tensor, g: Tensor | None):
    """(a): Jacobian d r_s / d theta_u [T, S, S] by einsum over samples [D25 Eq. 10]."""
    share = torch.nan_to_num(y / y.sum(-1, keepdim=True))
    r = share.mean(0)
    if g is None:
        return r, None
    jacobian = torch.einsum("mts,mtu->tsu", share, score) / len(y)
    return r, torch.einsum("ts,tsu->tu", g, jacobian)


def ratio_plain(y: Tensor, score: Tensor, g: Tensor | None):
    """(b): weights w_m = g . rho^m / M, then sum_m w_m score_m."""
    inverse = torch.nan_to_num(1.0 / y.sum(-1), posinf=0.0)
    r = torch.einsum("mts,mt->ts", y, inverse) / len(y)
    if g is None:
        return r, None
    weight = torch.einsum("mts,ts->mt", y, g) * inverse / len(y)
    return r, torch.einsum("mt,mts->ts", weight, score)


# ---- one DAML step [D25 Eq. 13, Alg. A.1] on the negative-binomial model: gradients into parameters -


def daml_step(model, batch, k, sigma, draws, samples, epsilon, weight, *, paper: bool) -> Tensor:
    """A step of DAML with samples and log-probabilities of torch.distributions: the value from one
    set of perturbed draws, the derivative from another, whose noise is drawn anew.

    (a) holds d r / d total_count and d r / d logits as Jacobians [T, S, S], as the equations are
    written; (b) has one backward pass through the joint log-probability."""
    counts = model(batch.x, batch.time)
    total_count, logits = torch.broadcast_tensors(counts.total_count, counts.logits)
    free = [total_count.detach().requires_grad_(), logits.detach().clone().requires_grad_()]
    law = NegativeBinomial(free[0], logits=free[1])
    sample = law.sample((samples,))
    ranking, _ = (ratio_paper if paper else ratio_plain)(sample, None, None)
    topk = topk_paper if paper else topk_plain
    best = batch.y.topk(k, dim=-1).values.sum(-1)
    b, _ = topk(ranking, k, sigma, draws, None)
    short = epsilon - (b * batch.y).sum(-1) / best
    v = -(weight * (short > 0) / best)[:, None] * batch.y
    _, g = topk(ranking, k, sigma, draws, v)
    if paper:
        per_draw = [p.detach().expand_as(sample).clone().requires_grad_() for p in free]
        log_prob = NegativeBinomial(per_draw[0], logits=per_draw[1]).log_prob(sample)
        scores = torch.autograd.grad(log_prob.sum(), per_draw)
        pulls = [ratio_paper(sample, score, g)[1] for score in scores]
    else:
        inverse = torch.nan_to_num(1.0 / sample.sum(-1), posinf=0.0)
        w = torch.einsum("mts,ts->mt", sample, g) * inverse / samples
        pulls = torch.autograd.grad((w * law.log_prob(sample).sum(-1)).sum(), free)
    nll = -NegativeBinomial(total_count, logits=logits).log_prob(batch.y).sum()
    surrogate = (pulls[0] * total_count).sum() + (pulls[1] * logits).sum()
    loss = nll + weight * short.clamp_min(0).sum()
    (nll + surrogate + model.penalty(batch.x, batch.time)).backward()
    return loss
