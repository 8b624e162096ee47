"""From counts to a fitted ranker and a plan."""

from topreach.ranking.notes import NotFittedError, RankerNote
from topreach.ranking.settings import Decision, Ranking, Training
from topreach.ranking.topk_ranker import TopKRanker

__all__ = ["Decision", "NotFittedError", "Ranking", "RankerNote", "TopKRanker", "Training"]
