"""Plain ATen twins of the fused operators, which take the noise as an input, and exact oracles."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from scipy import integrate, stats


def perturbed_masks(scores, k, sigma, z):
    """TopKMask(scores + sigma z_j, k) for noise z [J, ..., S]: [J, ..., S]; lowest index first."""
    u = torch.addcmul(scores, torch.as_tensor(sigma, dtype=scores.dtype), z.to(scores.dtype))
    chosen = torch.sort(u, dim=-1, descending=True, stable=True).indices[..., :k]
    return torch.zeros_like(u).scatter_(-1, chosen, 1.0)


def perturbed_topk(scores, k, sigma, z):
    """b = mean_j TopKMask(r + sigma z_j, K) [L23 Eq. 3]."""
    return perturbed_masks(scores, k, sigma, z).mean(0)


def score(z, noise):
    """-f'/f of the noise's density f, in float64."""
    z = z.double()
    return {
        "normal": lambda: z,
        "gumbel": lambda: -torch.expm1(-z),
        "logistic": lambda: torch.tanh(z / 2),
        "laplace": lambda: torch.sign(z),
    }[noise]()


def perturbed_topk_vjp(scores, k, sigma, z, v, estimator, noise):
    """(1/(J sigma)) sum_j w_j score(z_j) with w_j = b_j . v, centred for score_loo; in float64."""
    reach = (perturbed_masks(scores, k, sigma, z).double() * v.double()).sum(-1, keepdim=True)
    draws = len(z)
    if estimator == "score_loo":
        reach = (reach - reach.mean(0)) * draws / (draws - 1)
    return (reach * score(z, noise)).mean(0) / sigma


def expected_topk_by_enumeration(scores, k, sigma, dist=stats.norm):
    """P(site is in the top k of scores + sigma z): integral over the site's own noise of the chance
    that fewer than k others are larger, summed over every subset of the others."""
    scores = np.asarray(scores, float)
    sites = len(scores)

    def chance(i):
        others = [s for s in range(sites) if s != i]

        def integrand(t):
            above = dist.sf((t - scores) / sigma)
            total = 0.0
            for size in range(k):
                for subset in combinations(others, size):
                    total += np.prod([above[s] if s in subset else 1 - above[s] for s in others])
            return total * dist.pdf((t - scores[i]) / sigma) / sigma

        low, high = scores[i] - 12 * sigma, scores[i] + 30 * sigma
        return integrate.quad(integrand, low, high, limit=200, epsabs=1e-11)[0]

    return np.array([chance(i) for i in range(sites)])


def ratio_by_enumeration(outcomes, probabilities, offset=0.0):
    """E[y / (offset + 1.y)], 0/0 := 0, over listed outcomes [N, S] with probabilities [N]."""
    total = offset + outcomes.sum(-1, keepdim=True)
    share = torch.where(total > 0, outcomes / total.clamp_min(1e-300), torch.zeros_like(outcomes))
    return (probabilities[:, None] * share).sum(0)
