"""Commands that other packages add to `topreach`, found by the entry points of a group.

An entry point `NAME = "package.module"` of the group `topreach.commands` adds `topreach NAME`. The
module has

    HELP: str                               # one line
    EPILOG: str                             # examples
    add_arguments(parser) -> None           # an argparse parser
    run(options) -> None                    # raises ValueError for a wrong argument
"""

from __future__ import annotations

import argparse
import sys
from importlib import metadata
from typing import Any

GROUP = "topreach.commands"


def add_plugins(commands: argparse._SubParsersAction[Any]) -> None:
    """Add a subcommand for each entry point. One that cannot be imported is left out, with a
    note."""
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            module = entry.load()
        except ImportError as error:
            print(f"note: the command {entry.name!r} is left out: {error}", file=sys.stderr)
            continue
        parser = commands.add_parser(
            entry.name,
            help=module.HELP,
            description=module.HELP,
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(parser)
        parser.set_defaults(run=module.run, debug=False)
