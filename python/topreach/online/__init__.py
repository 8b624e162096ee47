"""A shared table that grows, and models that are kept up to date with it."""

from topreach.online.agency import Agency
from topreach.online.cooperative import Cooperative
from topreach.online.exchange import Message, Reply
from topreach.online.state import State

__all__ = ["Agency", "Cooperative", "Message", "Reply", "State"]
