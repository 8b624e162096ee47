"""DAML without sampling against sampled DAML: the runs start alike, the table agrees with the
curves, and a simulated county is named as such."""

import json

import pandas as pd
import pytest
import topreach_experiments.daml_convergence as convergence

from topreach.cli import main


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A short run on a simulated county: folder, what was printed."""
    folder = tmp_path_factory.mktemp("daml_convergence")
    with pytest.MonkeyPatch.context() as patch:

        def offline(*_):
            raise ConnectionError("no network")

        patch.setattr("topreach.datasets.cook_county", offline)
        patch.setattr(convergence, "QUICK", (0.02, 2, 1, 3))
        assert main(["experiment", "daml_convergence", "--quick", "--out", str(folder)]) == 0
        times = (folder / "cells" / "step_times.json").read_text()
        assert main(["experiment", "daml_convergence", "--quick", "--out", str(folder)]) == 0
        assert (folder / "cells" / "step_times.json").read_text() == times, "resumed"
    return folder


def cells(folder):
    found = {}
    for path in (folder / "cells").glob("*_lr=*.json"):
        method, rest = path.stem.split("_lr=")
        found[method, int(rest.split("_seed=")[1])] = json.loads(path.read_text())["result"]
    return found


def test_files(done):
    for name in ("results.md", "all_runs.md", "curves.png", "curves.svg"):
        assert (done / name).stat().st_size > 100
    assert "SIMULATED" in (done / "results.md").read_text()
    table = pd.read_csv(done / "results.csv").set_index("method")
    assert list(table.index) == list(convergence.METHODS)
    assert (table["excess objective"] >= 0).all() and (table["ms a step"] > 0).all()
    assert table["valid BPR"].between(0, 1).all() and (table["steps"] >= 2).all()


def test_runs_start_alike_and_seeds_are_of_the_sampled_ones(done):
    found = cells(done)
    assert {seed for method, seed in found if method == "score"} == {0, 1}
    assert {seed for method, seed in found if method == "exact"} == {0}
    first = {run["objective"][0] for run in found.values()}
    assert len(first) == 1
    one, other = found["score", 0]["objective"], found["score", 1]["objective"]
    assert one[1] != other[1]


def test_the_table_is_of_the_curves(done):
    table = pd.read_csv(done / "results.csv").set_index("method")
    found = cells(done)
    for method in convergence.METHODS:
        ends = [run["valid_nll"][-1] for (name, _), run in found.items() if name == method]
        assert table.loc[method, "valid NLL"] == pytest.approx(sum(ends) / len(ends))
        steps = {run["step"][-1] for (name, _), run in found.items() if name == method}
        assert steps == {table.loc[method, "steps"]}


def test_steps_to_a_target_by_interpolation():
    runs = [{"step": [0, 1, 3], "objective": [9.0, 5.0, 1.0]}] * 2
    assert convergence.steps_to(runs, 3.0) == 2.0
    assert convergence.steps_to(runs, 9.0) == 0.0
    assert convergence.steps_to(runs, 0.5) != convergence.steps_to(runs, 0.5)  # never
