"""Direct maximisation of the best possible reach."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from topreach import _C
from topreach.data.panel import Batch
from topreach.objectives.base import ObjectiveValue, ReachSettings, period_weights


class DirectBPR(ReachSettings):
    """Direct BPR: lowers −Σ_t w_t BPR(b̂(r_t), y_t).

    r_t [S] ranks the sites: the forward output of a scorer; for a probabilistic model the ratio
    ranking E[y_s / Σ_s y_s] or the mean. b̂ is the top-K smoothed by noise,
    E_z[TopKMask(r + σz, K)], and BPR(b, y) = b·y / Σ_TopK(y) y. Both expectations are exact by
    default, so the objective is deterministic and its gradient has no noise. A model whose
    distribution `expected_ratio_ranking` does not take is ranked from draws. A period without
    events has no BPR: it counts as zero and gives no gradient.

    The papers estimate both from draws, with score-function gradients: ranking="ratio",
    topk="sampled", estimator="score", ranking_estimator="score". Sources: 2023 paper Eq. 3-5; 2025
    paper Eq. 7, 9-11.

    The likelihood is not part of it, so a probabilistic model's counts may drift to any scale; see
    `DecisionAware`.

    Args:
        k: a `Program`, or K, the number of sites that can be acted on, for `TopK(K)`.
        sigma: σ, the standard deviation of the noise, in the unit that `sigma_unit` names. Ratio
            scores are of the order 1/S to K/S.
        num_samples: J, draws of the noise, for topk "sampled".
        model_samples: M, draws of the model, for ranking "ratio".
        ranking: of a probabilistic model: "exact", the ratio ranking without draws
            (`expected_ratio_ranking`); "ratio", from draws (`ratio_ranking`); "mean"; or "auto":
            "exact" if the distribution allows it, else "ratio". No effect for a scorer.
        topk: "exact" or "mean_field" (`expected_topk`), or "sampled" (`perturbed_topk`).
        estimator: gradient of a sampled b̂: "score" (the papers'), "score_loo" (leave-one-out
            baseline) or "conditional".
        ranking_estimator: gradient of the ratio ranking: "score", "score_loo" or "diagonal"
            (biased).
        noise: "normal"; for topk "sampled" also "gumbel", "logistic" or "laplace".
        offset: c in y_s / (c + Σ y).
        sigma_unit: "score", the unit of r; or "spread", the standard deviation of a period's r over
            the sites, taken as a constant. With "spread" no setting depends on the counts' unit.
        time_weights: w_t: a function from the batch's time [T] to weights [T], or one weight per
            period; None for 1.

    Calling it:
        model: gives scores [T, S], or a forecast of counts (see `tr.distributions`). One row in
            place of T serves all periods of the batch.
        batch: y [T, S] and those of x, time, history, exposure that the model needs.
        generator, key: the source of the noise; a key int64 [2] fixes it. Neither is read if
            nothing is sampled.
        Returns ObjectiveValue(loss [], {"bpr": mean over periods with events}).

    Raises:
        ValueError: a setting out of range; k above S; noise other than normal unless topk is
            "sampled"; weights over time that are negative or not finite; suppressed counts
            (`batch.y_upper`), with which the reach of a choice is not known; NaN counts of sites
            that are not marked as closed.
        TypeError: ranking "exact" with a distribution that `expected_ratio_ranking` does not take.

    Example:
        >>> objective = DirectBPR(k=100, sigma=0.1)
        >>> objective(LinearScorer(window=5), train.batch(window=5)).loss.backward()
    """

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        generator: torch.Generator | None = None,
        key: Tensor | None = None,
    ) -> ObjectiveValue:
        weights = period_weights("DirectBPR", self.time_weights, batch)
        output = self._output(model, batch)
        options = self._reach_options(batch, weights, generator, key)
        return ObjectiveValue(*_C.direct_bpr(output, batch.y, options))
