"""The command `topreach`."""

from topreach.cli.main import main

__all__ = ["main"]
