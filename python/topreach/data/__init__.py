"""Tables of counts: reading, checking, splitting."""

from topreach.data import datasets
from topreach.data.panel import Batch, Panel, Splits
from topreach.data.standardizer import Standardizer

__all__ = ["Batch", "Panel", "Splits", "Standardizer", "datasets"]
