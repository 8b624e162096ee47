"""Tables of counts: reading, checking, splitting."""

from topreach.data import datasets
from topreach.data.batch import Batch, Splits
from topreach.data.events import Events
from topreach.data.files import atomic_path
from topreach.data.messages import wording
from topreach.data.panel import Panel
from topreach.data.standardizer import Standardizer
from topreach.data.table import TableSpec

__all__ = [
    "Batch",
    "Events",
    "Panel",
    "Splits",
    "Standardizer",
    "TableSpec",
    "atomic_path",
    "datasets",
    "wording",
]
