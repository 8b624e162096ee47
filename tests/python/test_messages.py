"""Messages in two forms: arguments for a Python reader, options at the command line."""

import ast
import re
from functools import partial
from pathlib import Path

import topreach
from topreach.cli.main import _NO_OPTIONS, _parser
from topreach.data.messages import OF_THE_LIBRARY, either, in_words, option, wording

PACKAGE = Path(topreach.__file__).parent
ROOT = Path(__file__).parents[2]
# The packages that commands call.
ROOMS = (
    "data", "distributions", "models", "objectives", "plan", "programs", "ranking", "training",
    "forecasters.py", "evaluation/baselines.py", "evaluation/metrics.py",
)  # fmt: skip
# Functions that no command calls, or not with a user's arguments.
OF_PYTHON_ALONE = (
    "EmpiricalBayesRates", "Events.changes_since", "Events.seen_at", "NegBinMixedEffects",
    "Panel.split", "Plan.", "SiteHistory", "SiteMixture", "Stemmed.aic", "Stemmed.load_state_dict",
    "StemmedForecast", "Trainer: ", "ZeroInflated", "as_forecast", "joint_log_prob",
    "site_log_prob", "expected_ratio_ranking", "nearest_neighbours", "simulate_",
)  # fmt: skip
# Messages that the options of a command cannot cause.
NOT_FROM_OPTIONS = (
    "X: earlier must have the same sites", "X: other must have ids of these events",
    "X: edges must be at least two ascending times", "X: panel must have the period",
    "X: types must be a column, a list", "X: path must be readable, but no Parquet",
    "X: paths must stay finite", "X: covariates must", "X: noise must be 'normal'",
    "X: the model must be fitted first", "X must say what it needs", "TopKRanker.X: ",
    "TopKRanker.fit: panel must be a Panel for the model", "TopKRanker: X must say what it needs",
    "Trainer.fit: checkpoint must hold tensors", "Trainer.fit: the loss must depend",
    "Trainer.fit: model must be", "Trainer.fit: resume must go", "Trainer.fit: bpr_floor",
    "Trainer.fit: optimizer", "Trainer.fit: monitor='bpr'", "X: panel must have counts before its",
    "X: counts must have events in every period", "Stemmed.X: ",
)  # fmt: skip


def rendered(node, python=False):
    """The text of a message at the command line, or in Python; X for what is filled in."""
    parts = partial(rendered, python=python)
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.FormattedValue(value=value):
            return parts(value) if isinstance(value, ast.Call) else "X"
        case ast.JoinedStr(values=pieces):
            return "".join(map(parts, pieces))
        case ast.BinOp(left=left, right=right, op=ast.Add()):
            return parts(left) + parts(right)
        case ast.IfExp(
            test=ast.Call(func=ast.Name(id="at_command_line")), body=body, orelse=orelse
        ):
            return parts(orelse if python else body)
        case ast.IfExp(body=body, orelse=orelse):
            return parts(body) + parts(orelse)
        case ast.Call(func=ast.Name(id="either"), args=words):
            return parts(words[0 if python else 1])
        case ast.Call(func=ast.Name(id="option"), args=[name, *_]):
            return ("" if python else "--") + parts(name)
    return "X"


def messages(path, python=False):
    """(line, text) of each error, warning and note of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args:
            made = ast.unparse(node.func)
            if made.endswith(("Error", "Rejection", "warn", "otes.append", "refuse", ".say")):
                yield node.lineno, rendered(node.args[0], python)


def files():
    for room in ROOMS:
        place = PACKAGE / room
        found = [place] if place.is_file() else sorted(place.rglob("*.py"))
        yield from (path for path in found if "datasets" not in path.parts)


def every_option():
    found = set()
    parsers = [_parser()]
    while parsers:
        for action in parsers.pop()._actions:
            if isinstance(getattr(action, "choices", None), dict):
                parsers += action.choices.values()
            found.add(action.dest)
    return found - _NO_OPTIONS - {"help"}


def test_no_option_for_one_who_writes_python():
    """A command-line flag occurs only in `either`, in `option`, or where the style is checked."""
    for path in files():
        for line, text in messages(path, python=True):
            assert not re.search(r"(?<![\w-])--[a-z]", text), f"{path}:{line}: {text}"
    said = re.compile(r'"[^"\n]*(?<![\w-])--[a-z]')
    for path in [*ROOT.glob("csrc/**/*.cpp"), *ROOT.glob("csrc/**/*.h")]:
        assert not said.search(path.read_text(encoding="utf-8")), path


def test_the_words_for_the_library_are_said_by_it():
    source = " ".join(path.read_text(encoding="utf-8") for path in ROOT.glob("csrc/**/*.cpp"))
    source = re.sub(r'"\s*"', "", source)
    for said in OF_THE_LIBRARY:
        assert said in source


def test_in_words():
    with wording("cli", ["at_least", "k", "value", "time", "lock_in"]):
        assert in_words("quotas: at_least must be 1, got k=3") == "--at-least must be 1, got --k 3"
        assert in_words("TopKRanker.fit: k must be 2.") == "--k must be 2."
        assert in_words("Ranker::save: lock_in 'lock_in'") == "--lock-in 'lock_in'"
        assert in_words("the table: no k=") == "the table: no --k"
        assert (
            in_words("time must rise. Name it by value=.") == "time must rise. Name it by --value."
        )
        assert either("a", "b") == "b" and option("lock_in") == "--lock-in"
    assert in_words("f: at_least must be 1") == "at_least must be 1"
    assert either("a", "b") == "a"


def test_no_argument_of_python_at_the_command_line():
    idiom = re.compile(
        r"\w=[\w\"'(\[{.]|\w=$|\w\((?!s\))|\b(tr|events|panel|model|ranker|torch)\.[a-z]|`"
    )
    faults = []
    with wording("cli", every_option()):
        for path in files():
            for line, text in messages(path):
                said = in_words(text)
                if not text.startswith(OF_PYTHON_ALONE + NOT_FROM_OPTIONS) and idiom.search(said):
                    faults.append(f"{path.relative_to(PACKAGE)}:{line}: {said}")
    assert not faults, "\n".join(faults)
