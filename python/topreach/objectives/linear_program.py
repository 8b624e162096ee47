"""Settings that SPO+ and PG share, for the linear program max_w w·v over the plans of a program."""

from __future__ import annotations

from topreach.objectives.base import ProgramSettings, TimeWeights
from topreach.programs import Program


class LinearProgramSettings(ProgramSettings):
    """Settings of losses for max_w w·v over plans w [2023 paper Eq. 2, with exactly K sites]; see
    `SPOPlus` for the arguments."""

    def __init__(
        self,
        k: int | Program,
        ranking: str = "auto",
        target: str | None = None,
        model_samples: int = 100,
        ranking_estimator: str = "score_loo",
        *,
        offset: float = 0.0,
        time_weights: TimeWeights = None,
    ):
        super().__init__(
            k,
            ranking=ranking,
            model_samples=model_samples,
            ranking_estimator=ranking_estimator,
            offset=offset,
            time_weights=time_weights,
        )
        self._check_one_of("target", target, (None, "count", "share"))
        self.target = target
