"""From counts to a fitted ranker and a plan."""

from topreach.ranking.topk_ranker import NotFittedError, TopKRanker

__all__ = ["NotFittedError", "TopKRanker"]
