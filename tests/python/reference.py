"""Plain ATen twins of the fused operators, which take the noise as an input, and exact oracles."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from scipy import integrate, special, stats


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


DISTRIBUTION = {
    "normal": stats.norm,
    "gumbel": stats.gumbel_r,
    "logistic": stats.logistic,
    "laplace": stats.laplace,
}


def conditional_topk(scores, k, sigma, z, v, noise):
    """The conditional estimator of one row, scores [S], by SciPy in float64, noise z [J, S] and v
    [S].

    For each draw and site the K-th largest of the others is found by sorting without that site.
    Returns each draw's terms of b and of its vector-Jacobian product, [J, S] each."""
    dist = DISTRIBUTION[noise]
    scores, v = np.asarray(scores, float), np.asarray(v, float)
    z = np.asarray(z, float)
    b, g = np.empty(z.shape), np.empty(z.shape)
    for j, u in enumerate(scores + sigma * z):
        for i in range(len(scores)):
            others = np.delete(np.arange(len(scores)), i)
            rival = others[np.argsort(-u[others], kind="stable")[k - 1]]
            x = (u[rival] - scores[i]) / sigma
            b[j, i] = dist.sf(x)
            g[j, i] = dist.pdf(x) / sigma * (v[i] - v[rival])
    return b, g


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

        low, high = scores[i] + sigma * dist.ppf(1e-15), scores[i] + sigma * dist.isf(1e-15)
        kinks = np.sort(scores)[(np.sort(scores) > low) & (np.sort(scores) < high)]
        return integrate.quad(integrand, low, high, points=kinks, limit=200, epsabs=1e-11)[0]

    return np.array([chance(i) for i in range(sites)])


def ratio_by_enumeration(outcomes, probabilities, offset=0.0):
    """E[y / (offset + 1.y)], 0/0 := 0, over listed outcomes [N, S] with probabilities [N]."""
    total = offset + outcomes.sum(-1, keepdim=True)
    share = torch.where(total > 0, outcomes / total.clamp_min(1e-300), torch.zeros_like(outcomes))
    return (probabilities[:, None] * share).sum(0)


def expected_topk(scores, k, sigma, v, step=None):
    """(b, J v) of P(site is in the top k of scores + sigma z), z normal, to about 1e-13.

    b_i = int f_i(t) P(fewer than k of the others lie above t) dt. The number of others above t is
    Poisson binomial. Its distribution for all sites is convolved one site after the other; site i
    is then divided out, from the end that is stable. J v is the derivative along v, by a complex
    step. The integral is a trapezoidal sum with separate nodes. Unlike the operator, it uses no
    characteristic function and no grid of scores."""
    r = np.asarray(scores, float)
    b, jv = np.zeros(len(r)), np.zeros(len(r))
    order = np.sort(r)[::-1]
    if k == 0 or k == len(r) or not order[k - 1] - order[k] <= 20 * sigma:
        b[np.argsort(-r, kind="stable")[:k]] = 1.0
        return b, jv
    half = 0.5 * (order[k - 1] - order[k]) / sigma
    x = (r - 0.5 * (order[k - 1] + order[k])) / sigma
    active = np.abs(x) <= half + 20
    b[x > half + 20] = 1.0
    x, v, k = x[active, None], np.asarray(v, float)[active, None], k - int(b.sum())
    if step is None:  # a tenth of the narrowest width of the k-th largest, where it may lie
        t = np.linspace(-half - 10, half + 10, 400)
        chance = special.ndtr(x - t)
        variance = (chance * special.ndtr(t - x)).sum(0)
        here = np.abs(chance.sum(0) - k) < 12 + 12 * np.sqrt(variance + 1)
        step = 0.1 * np.min(
            np.sqrt(variance + 0.25) / stats.norm.pdf(x - t).sum(0), where=here, initial=1
        )
    tiny, count = 1e-40, len(x)
    last = half + 10
    total = np.zeros((count, 1), complex)
    nodes = np.arange(-half - 10, max(last, float(x.max()) + 10), step)
    for t in np.split(nodes, range(512, len(nodes), 512)):
        z = x - t
        f = stats.norm.pdf(z)
        above = special.ndtr(z) + 1j * tiny * v * f
        below = special.ndtr(-z) - 1j * tiny * v * f
        law = np.zeros((count + 1, len(t)), complex)
        law[0] = 1.0
        for site in range(count):
            law[1 : site + 2] = law[1 : site + 2] * below[site] + law[: site + 1] * above[site]
            law[0] *= below[site]
        low = above.real <= 0.5
        rest, fewer = np.zeros_like(above), np.zeros_like(above)
        with np.errstate(all="ignore"):
            for n in range(k):
                rest = (law[n] - above * rest) / below
                fewer += rest
            rest, more = np.zeros_like(above), np.zeros_like(above)
            for n in range(count, k, -1):
                rest = (law[n] - below * rest) / above
                more += rest
        chance = np.where(low, fewer, 1 - more)
        total += step * ((f - 1j * tiny * v * z * f) * chance).sum(1, keepdims=True)
    b[active], jv[active] = total.real[:, 0], total.imag[:, 0] / tiny
    return b, jv / sigma
