"""STEMMED: a networked Hawkes process of events by place and type."""

from topreach.models.stemmed.forecast import StemmedForecast
from topreach.models.stemmed.model import Stemmed
from topreach.models.stemmed.reports import Residuals

__all__ = ["Residuals", "Stemmed", "StemmedForecast"]
