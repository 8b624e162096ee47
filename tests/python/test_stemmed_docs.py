"""The examples of docs/stemmed.md and docs/online.md run."""

import re
import warnings
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def run(page):
    """The names that a page's examples define, run one after the other."""
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert blocks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in blocks:
            exec(compile(block, f"docs/{page}", "exec"), names)
    return names


def test_the_example_runs(capsys):
    names = run("stemmed.md")
    printed = capsys.readouterr().out
    assert "children" in printed and "2024-01" in printed
    assert len(names["model"].forecast(3).to_frame()) == 9


def test_the_examples_of_a_cooperative_run():
    names = run("online.md")
    assert names["shared"].history["kind"].tolist() == ["start", "refit", "upload", "upload"]
    assert names["made"].labels == names["again"].labels
    assert float((names["made"].mean - names["again"].mean).abs().max()) < 1e-12
    assert len(names["reply"].nodes) == 2 and (names["agency"].missing() >= 0).all()
