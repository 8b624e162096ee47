"""The ratio ranking's gradients: every estimator against the exact one, for the NegBin model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

import topreach as tr

from . import topk
from .quality import Quality, seconds

SAMPLED = ("score", "score_loo", "diagonal", "go")
CHUNK = 8_000_000  # counts in one call
LOGITS = -0.4  # odds .67: variance 1.67 times the mean


def make_problem(
    sites: int, k: int, sigma: float, problems: int, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """total_count n [P, S] of NegBin sites, and the derivative [P, S] of BPR with respect to the
    ranking, through the exact top-K. The ranking receives it in decision-aware training."""
    generator = np.random.default_rng([seed, sites, 1])
    total_count = generator.gamma(0.6, 1.2, (problems, sites)) + 0.05
    n = torch.from_numpy(total_count.astype(np.float32)).to(device)
    odds = np.exp(LOGITS)
    counts = generator.negative_binomial(total_count, 1 / (1 + odds)).astype(np.float64)
    y = torch.from_numpy(counts).to(device)
    v = y / y.topk(k, -1).values.sum(-1, keepdim=True).clamp_min(1)
    ranking = tr.expected_ratio_ranking(distribution(n.double()))
    _, g = topk.exact(ranking, v, k, sigma)
    kept = g.norm(dim=-1) > 0
    return n[kept], g[kept].float()


def distribution(total_count: Tensor) -> tr.distributions.NegativeBinomial:
    logits = torch.tensor(LOGITS, dtype=total_count.dtype, device=total_count.device)
    return tr.distributions.NegativeBinomial(total_count, logits)


def exact(total_count: Tensor, g: Tensor) -> Tensor:
    free = total_count.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(tr.expected_ratio_ranking(distribution(free)), free, g)
    return gradient


def sampled(
    estimator: str, total_count: Tensor, g: Tensor, samples: int, repeats: int, seed: int
) -> Iterator[Tensor]:
    """Independent estimates of the gradient in n, [R, P, S], in parts."""
    generator = torch.Generator(total_count.device).manual_seed(seed)
    at_once = max(1, min(repeats, CHUNK // (samples * total_count.numel())))
    for start in range(0, repeats, at_once):
        shape = (min(at_once, repeats - start), *total_count.shape)
        free = total_count.expand(shape).clone().requires_grad_()
        counts = distribution(free)
        y = counts.sample(samples, generator=generator)
        cdf = tr.count_cdf(counts, y) if estimator == "go" else None
        r = tr.ratio_ranking(y, counts.site_log_prob(y), estimator=estimator, cdf=cdf)
        yield torch.autograd.grad(r, free, g.expand(shape))[0]


def study(
    total_count: Tensor, g: Tensor, samples: tuple[int, ...], work: float, budget: float, seed: int
) -> list[dict]:
    """A row for each estimator with each number of samples M, and one for "exact"."""
    true = exact(total_count.double(), g.double())
    first_n, first_g, device = total_count[:1], g[:1], total_count.device
    rows = []
    for estimator in SAMPLED:
        for m in samples:
            quality = Quality(true)
            repeats = max(20, min(1000, int(work / (m * total_count.numel()))))
            for part in sampled(estimator, total_count, g, m, repeats, seed):
                quality.add(part)
            spent = seconds(
                lambda m=m, e=estimator: list(sampled(e, first_n, first_g, m, 1, seed)),
                device,
                budget,
            )
            rows.append(
                {"estimator": estimator, "samples": m}
                | quality.summary()
                | {"milliseconds": 1e3 * spent}
            )
    quality = Quality(true)
    quality.add(exact(total_count, g)[None])
    spent = seconds(lambda: exact(first_n, first_g), device, budget)
    rows.append(
        {"estimator": "exact", "samples": None} | quality.summary() | {"milliseconds": 1e3 * spent}
    )
    return rows
