"""From counts to a fitted ranker and a plan."""

from topreach.ranking.settings import Decision, Ranking, Training
from topreach.ranking.topk_ranker import NotFittedError, RankerNote, TopKRanker

__all__ = ["Decision", "NotFittedError", "Ranking", "RankerNote", "TopKRanker", "Training"]
