"""The command `topreach`. Each subcommand has a file: HELP, EPILOG, add_arguments, run."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import topreach
from topreach.cli import demo_command, evaluate, fit, forecast, info, plan, rank
from topreach.cli.options import CommandError, check_files, joined, say_note
from topreach.cli.plugins import add_plugins
from topreach.data.messages import in_words, wording

_DESCRIPTION = "Learn from counts over sites and time which K of S sites to act on."
_EXAMPLES = """\
examples:
  topreach demo
  topreach fit --data counts.csv --site geoid --time year --count deaths --k 100 --out model.pt
  topreach rank --model model.pt --out plan.csv
  topreach plan quotas --scores ranked.csv --k 100 --groups town --at-least 1 --out plan.csv
  topreach forecast --events deaths.csv --time date --place town --out forecast.csv
  topreach evaluate --model model.pt --data newer_counts.csv
  topreach info model.pt

`topreach COMMAND --help` tells more. Files are written whole or not at all.
"""
_NO_OPTIONS = {"command", "program", "run", "groupings"}  # attributes that are not options
COMMANDS: dict[str, ModuleType] = {
    "demo": demo_command,
    "fit": fit,
    "rank": rank,
    "plan": plan,
    "forecast": forecast,
    "evaluate": evaluate,
    "info": info,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 2 for an error, 130 for Ctrl-C."""
    parser = _parser()
    options = parser.parse_args(joined(list(sys.argv[1:] if arguments is None else arguments)))
    if options.command is None:
        parser.print_help()
        return 0
    with warnings.catch_warnings(), wording("cli", set(vars(options)) - _NO_OPTIONS):
        warnings.simplefilter("default", UserWarning)
        warnings.simplefilter("default", RuntimeWarning)
        warnings.showwarning = _notes()
        try:
            check_files(options)
            options.run(options)
            sys.stdout.flush()
        except KeyboardInterrupt:
            print(f"topreach {options.command}: stopped", file=sys.stderr)
            return 130
        except BrokenPipeError:
            # The reader of our output has closed the pipe, as `| head` does.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (CommandError, ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
            if options.debug:
                raise
            said = str(error)
            if isinstance(error, OSError) and error.strerror and error.filename:
                said = f"{error.filename}: {error.strerror}"
            text = " ".join(in_words(said).split()) or type(error).__name__
            print(f"topreach {options.command}: error: {text}", file=sys.stderr)
            return 2
    return 0


def _notes() -> Any:
    """A function that prints a warning on standard error, each text once."""
    said: set[str] = set()

    def show(
        message: Any, category: type, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        if str(message) not in said:
            said.add(str(message))
            say_note(str(message))

    return show


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "topreach", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=raw
    )
    parser.add_argument("--version", action="version", version=f"topreach {topreach.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, module in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=module.EPILOG,
            formatter_class=raw,
        )
        sub.add_argument("--device", metavar="D", help="cpu or cuda (default: cpu)")
        sub.add_argument(
            "--debug", action="store_true", help="show the whole traceback of an error"
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    add_plugins(commands)
    return parser
