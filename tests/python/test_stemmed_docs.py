"""The example of docs/stemmed.md runs."""

import re
import warnings
from pathlib import Path

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "stemmed.md").read_text()


def test_the_example_runs(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(block, "docs/stemmed.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "children" in printed and "2024-01" in printed
    assert len(names["model"].forecast(3).to_frame()) == 9
