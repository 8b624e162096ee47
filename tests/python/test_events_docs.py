"""The examples of docs/events.md run, and its C++ names exist."""

import re
from pathlib import Path

import torch

import topreach as tr

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "events.md").read_text()


def test_the_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len(blocks) >= 4
    names: dict = {}
    for block in blocks:
        exec(compile(block, "docs/events.md", "exec"), names)
    assert names["panel"].y.tolist() == [[1, 1], [0, 2], [1, 0]]
    assert names["by_type"].tolist() == [[1, 1], [2, 1], [0, 1]]
    assert len(names["plan"]) == 2
    assert names["edges"].tolist() == [0, 31, 60, 91]
    together, number = names["together"], names["number"]
    assert number.tolist() == [[0, 0], [1, 1], [1, 3]]
    assert torch.equal(together[2, 1], torch.tensor([[3.0, 1.0], [1.0, 1.0]]).double())
    assert names["rate"].values.shape == (3, 4, 1) and len(names["nodes"].times) == 6


def test_the_format_is_the_one_that_is_written(tmp_path):
    names: dict = {}
    exec(re.findall(r"```python\n(.*?)```", TEXT, re.S)[0], names)
    path = tmp_path / "deaths.csv"
    names["events"].to_csv(path)
    shown = re.search(r"```\n(# topreach events 1\n.*?)```", TEXT, re.S)[1].splitlines()
    written = path.read_text().splitlines()
    assert written[:7] == shown[:7]
    row = next(line for line in written if line.startswith("c1,")).split(",")
    for one, other in zip(row, shown[7].split(","), strict=True):
        assert one == other or abs(float(one) - float(other)) < 0.006


def test_the_documented_cpp_names_are_declared():
    header = (ROOT / "csrc" / "events.h").read_text()
    for name in re.findall(r"events\.(\w+)\(edges|Events::(\w+)\(|events\.(\w+)\(topreach", TEXT):
        assert re.search(rf"\b{next(n for n in name if n)}\(", header), name


def test_events_are_public():
    assert tr.Events is tr.data.Events
    for name in ("MarkScaler", "Places", "StepCovariates"):
        assert name in tr.data.__all__ and getattr(tr.data, name).__doc__
