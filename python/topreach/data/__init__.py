"""Tables of counts and of dated events: reading, checking, splitting."""

from topreach.data import datasets
from topreach.data.batch import Batch, Splits
from topreach.data.event_features import StepCovariates
from topreach.data.event_marks import MarkScaler
from topreach.data.events import Events
from topreach.data.files import atomic_path
from topreach.data.graph import Graph
from topreach.data.messages import wording
from topreach.data.panel import Panel
from topreach.data.places import Places
from topreach.data.standardizer import Standardizer
from topreach.data.table import TableSpec

__all__ = [
    "Batch",
    "Events",
    "Graph",
    "MarkScaler",
    "Panel",
    "Places",
    "Splits",
    "Standardizer",
    "StepCovariates",
    "TableSpec",
    "atomic_path",
    "datasets",
    "wording",
]
