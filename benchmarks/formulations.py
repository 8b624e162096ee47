"""The baselines that the library is measured against.

(a) is the papers' formulation in eager PyTorch, with one-hot indicators and Jacobians by einsum.
(b) is the best composition of plain PyTorch operations, with vector-Jacobian products. Both give
the same values and gradients as the library: in expectation if they sample, otherwise up to
rounding and the error of their quadrature.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.distributions import NegativeBinomial

# ---- perturbed top-K: scores [T, S], v [T, S] -> (b [T, S], gradient [T, S])
# ------------------------


def topk_paper(scores: Tensor, k: int, sigma: float, draws: int, v: Tensor | None):
    """(a): indicators one-hot [T, J, K, S]; Jacobian [T, S, S] by einsum [L23 Eq. 4, D25 Eq.
    11]."""
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


# ---- expected top-K: scores [T, S], v [T, S] -> (b [T, S], gradient [T, S]), both float64
# -----------


def threshold_plain(scores: Tensor, k: int, sigma: float) -> Tensor:
    """The t with sum_s Phi((r_s - t) / sigma) = k, [T, 1], by bisection."""
    low = scores.min(-1, keepdim=True).values - 10 * sigma
    high = scores.max(-1, keepdim=True).values + 10 * sigma
    for _ in range(60):
        middle = (low + high) / 2
        above = torch.special.ndtr((scores - middle) / sigma).sum(-1, keepdim=True) > k
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2


def densities_plain(scores: Tensor, t: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """P(r_s + sigma z > t), and its derivative in r_s."""
    x = (scores - t) / sigma
    return torch.special.ndtr(x), torch.exp(-x * x / 2) / (sigma * math.sqrt(2 * math.pi))


def mean_field_plain(scores: Tensor, k: int, sigma: float, v: Tensor):
    """(b): bisection on whole tensors."""
    scores, v = scores.double(), v.double()
    b, f = densities_plain(scores, threshold_plain(scores, k, sigma), sigma)
    return b, f * (v - (f * v).sum(-1, keepdim=True) / f.sum(-1, keepdim=True))


def exact_plain(scores: Tensor, k: int, sigma: float, v: Tensor, nodes: int = 20):
    """(b): thresholds x frequencies x sites as complex tensors, by the characteristic function of
    the number of sites above a threshold, with only the frequencies that matter. This is for large
    S: if the variance V of that number is below about 10, all frequencies are needed, and the
    result is wrong."""
    values, gradients = [], []
    for r, pull in zip(scores.double(), v.double(), strict=True):
        tau = threshold_plain(r[None], k, sigma)[0]
        p, f = densities_plain(r, tau, sigma)
        width = float((p * (1 - p)).sum().sqrt())
        spread = width / float(f.sum())
        t = tau + spread * torch.linspace(-7, 7, nodes, dtype=torch.float64)
        period = 16 * width + 4
        frequencies = math.ceil(min(math.pi, 8 / width) / (2 * math.pi / period))
        omega = (torch.arange(frequencies, dtype=torch.float64) + 0.5) * (2 * math.pi / period)
        turn = torch.polar(torch.ones_like(omega), omega) - 1
        p, f = densities_plain(r, t[:, None], sigma)  # [nodes, S]
        c = 1 + p[:, None] * turn[:, None]  # [nodes, frequencies, S]
        inverse = 1 / c
        shift = torch.polar(torch.ones_like(omega), -omega * (k - 1))
        step = float(t[1] - t[0]) * 2 / period
        e = (torch.exp(c.log().sum(-1)) * shift * step)[..., None] * inverse
        total = torch.einsum("tws,ts->tw", inverse, f.to(inverse.dtype))[..., None]
        reach = torch.einsum("tws,ts->tw", inverse, (f * pull).to(inverse.dtype))[..., None]
        others = (e * total).sum(1).real - f * (e * inverse).sum(1).real
        pulled = (e * reach).sum(1).real - f * pull * (e * inverse).sum(1).real
        values.append((p * others).sum(0))
        gradients.append((f * (pull * others - pulled)).sum(0))
    return torch.stack(values), torch.stack(gradients)


# ---- ratio ranking: samples y [M, T, S], d log p / d theta [M, T, S], g [T, S]
# ----------------------


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


def expected_ratio_plain(total_count: Tensor, logits: Tensor, nodes: int = 32) -> Tensor:
    """(b) E[y_s / sum y] of negative binomials [T, S], float64, by Gauss-Legendre nodes in
    x = t / (a + t), u = e^-t, all nodes at once; the gradient is autograd's."""
    n, odds = total_count.double(), logits.double().exp()
    x, w = (torch.from_numpy(a)[:, None, None] for a in np.polynomial.legendre.leggauss(nodes))
    x, w = (x + 1) / 2, w / 2
    a = (2 / (n * odds).sum(-1, keepdim=True)).detach()
    t = a * x / (1 - x)
    below = -torch.expm1(-t)  # 1 - u; a site's log G(u) is -n log(1 + odds (1 - u))
    survival = torch.exp(-(n * torch.log1p(odds * below)).sum(-1, keepdim=True))
    return (w * a / (1 - x) ** 2 * torch.exp(-t) * survival * n * odds / (1 + odds * below)).sum(0)


# ---- one DAML step [D25 Eq. 13, Alg. A.1] on the negative-binomial model: gradients into
# parameters -


def daml_step(model, batch, k, sigma, draws, samples, epsilon, weight, *, paper: bool) -> Tensor:
    """A step of DAML with samples and log-probabilities of torch.distributions. The value comes
    from one set of perturbed draws, the derivative from another set with new noise.

    (a) holds d r / d total_count and d r / d logits as Jacobians [T, S, S], as in the equations;
    (b) has one backward pass through the joint log-probability."""
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
