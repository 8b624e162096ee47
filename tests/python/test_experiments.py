"""The frame of the experiments: the command, cells that survive an interruption, whole files."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import topreach_experiments as experiments
from topreach_experiments import context as frame
from topreach_experiments.context import Context, markdown_table, panel_digest

from topreach import Panel
from topreach.cli import main


@pytest.fixture
def context(tmp_path):
    return Context("trial", tmp_path, progress=False)


def counting(calls, value):
    def cell():
        calls.append(value)
        return {"value": value, "curve": [1.5, float("nan")]}

    return cell


def test_cells_are_done_once_for_the_same_settings(context):
    calls = []
    cells = {"a": counting(calls, 1), "b": counting(calls, 2)}
    first = context.cells(cells, {"n": 3})
    again = context.cells(cells, {"n": 3})
    assert calls == [1, 2]
    assert first["b"]["value"] == again["b"]["value"] == 2
    context.cells(cells, {"n": 4})
    context.seed = 1
    context.cells(cells, {"n": 4})
    assert calls == [1, 2] * 3
    context.fresh = True
    context.cells(cells, {"n": 4})
    assert calls == [1, 2] * 4


def test_cells_made_by_other_code_are_done_again(context, monkeypatch, capsys):
    """Stored cells identify code by its content, not only by its version."""
    calls = []
    cells = {"a": counting(calls, 1)}
    context.cells(cells)
    monkeypatch.setattr(frame, "code_digest", lambda name: "other code")
    context.progress = True
    context.cells(cells)
    assert calls == [1, 1]
    assert "1 parts were made by other code or settings" in capsys.readouterr().err


def test_the_digest_of_code_sees_code_alone(tmp_path):
    def digest(text):
        (tmp_path / "a.py").write_text(text)
        return frame._digest_of_files(tmp_path, tmp_path.glob("*.py"))

    first = digest('"""Doc."""\ndef f(x):\n    """Doc."""\n    return x + 1  # one\n')
    assert digest('"""Other."""\n\ndef f(x):\n    return (x + 1)\n') == first
    assert digest("def f(x):\n    return x + 2\n") != first
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert frame._digest_of_files(tmp_path, tmp_path.glob("*.py")) != first
    # Another experiment has other code; the library is a part of each digest.
    assert frame.code_digest("benchmark") != frame.code_digest("ranking_demo")
    assert frame.code_digest("benchmark").endswith(frame._library_digest())


def test_finished_cells_survive_an_interruption_and_damage_is_done_again(context):
    calls = []

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        context.cells({"a": counting(calls, 1), "b": stop})
    (context.out / "cells" / "c.json").write_text('{"identity": "')
    found = context.cells({k: counting(calls, v) for k, v in (("a", 1), ("b", 2), ("c", 3))})
    assert calls == [1, 2, 3]
    assert [found[key]["value"] for key in "abc"] == [1, 2, 3]


def test_cells_refuse_names_that_are_no_file_names_and_results_that_are_not_plain(context):
    with pytest.raises(ValueError, match=r"Context.cells: names must be .* got '../a'"):
        context.cells({"../a": dict})
    with pytest.raises(TypeError):
        context.cells({"a": lambda: {"frame": pd.DataFrame()}})
    assert not list((context.out / "cells").iterdir())


def test_a_table_is_written_in_full_and_in_markdown(context, capsys):
    frame = pd.DataFrame(
        {"bpr": [0.823456789, float("nan")], "note": ["a|b", "c"]},
        index=pd.Index(["NLL", "DAML"], name="method"),
    )
    context.table(frame, title="Test")
    pd.testing.assert_frame_equal(
        pd.read_csv(context.out / "results.csv", index_col="method"), frame
    )
    text = (context.out / "results.md").read_text()
    assert "| NLL | 0.8235 | a\\|b |" in text and "| DAML | – | c |" in text
    assert "topreach experiment trial --seed 0" in text
    assert markdown_table(frame) in capsys.readouterr().out


def test_a_figure_is_written_as_png_and_svg(context):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    context.figure(figure, "curve")
    assert (context.out / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (context.out / "curve.svg").read_text()


@pytest.fixture
def made_up(monkeypatch):
    """An experiment that writes what it was given."""
    seen = []

    def run(context):
        seen.append(context)
        (context.out / "result.json").write_text(json.dumps({"seed": context.seed}))

    module = SimpleNamespace(
        TITLE="Nothing",
        run=run,
        add_options=lambda parser: parser.add_argument("--trials", type=int, default=7),
    )
    monkeypatch.setattr(experiments, "names", lambda: ["made_up"])
    monkeypatch.setattr(experiments, "load", lambda name: module)
    return seen


def test_the_command_gives_an_experiment_its_settings(made_up, tmp_path, capsys):
    arguments = ["--quick", "--seed", "3", "--data", "here", "--trials", "9", "--fresh", "--quiet"]
    out = tmp_path / "results" / "here"
    assert main(["experiment", "made_up", *arguments, "--out", str(out)]) == 0
    (context,) = made_up
    assert (context.name, context.out, context.seed) == ("made_up", out, 3)
    assert context.quick and context.fresh and not context.progress
    assert str(context.data) == "here" and context.device.type == "cpu"
    assert vars(context.options) == {"trials": 9}
    assert (out / "result.json").exists()
    assert "made_up: results in" in capsys.readouterr().out


def test_all_runs_every_experiment_into_its_own_folder(made_up, tmp_path):
    assert main(["experiment", "all", "--quick", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "topreach-made_up" / "result.json").exists()


def test_the_command_lists_experiments_and_refuses_what_there_is_not(capsys):
    assert main(["experiment"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == experiments.names()
    assert main(["experiment", "nothing"]) == 2
    assert "NAME must be one of" in capsys.readouterr().err


@pytest.mark.parametrize("name", experiments.names())
def test_each_experiment_has_a_title_a_readme_and_a_run(name):
    module = experiments.load(name)
    assert module.TITLE and "\n" not in module.TITLE
    assert callable(module.run)
    readme = (experiments._FOLDER / name / "README.md").read_text()
    assert f"topreach experiment {name}" in readme


@pytest.mark.parametrize("name", experiments.names())
def test_each_experiment_runs_quick_and_leaves_tables_and_plots(name, quick_run):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    out = quick_run(name)
    tables = sorted(out.glob("*.csv"))
    assert tables
    for table in tables:
        assert len(pd.read_csv(table)) > 0
        text = table.with_suffix(".md").read_text()
        assert f"topreach experiment {name} --quick --seed 0" in text
    plots = sorted(out.glob("*.png"))
    assert plots and all(plot.stat().st_size > 5000 for plot in plots)
    assert [plot.with_suffix(".svg").exists() for plot in plots] == [True] * len(plots)


def test_other_data_are_another_cell():
    def panel(**changed):
        parts = {
            "x": np.zeros((3, 2, 1)),
            "y": np.arange(6.0).reshape(3, 2),
            "site_ids": ["a", "b"],
            "times": [2001, 2002, 2003],
            "feature_names": ["f"],
        }
        return Panel(**parts | changed)

    digest = panel_digest(panel())
    assert digest == panel_digest(panel()) == panel_digest(panel(), None)
    others = (
        panel(x=np.ones((3, 2, 1))),
        panel(y=np.arange(6.0).reshape(3, 2)[::-1].copy()),
        panel(site_ids=["a", "c"]),
        panel(times=[2001, 2002, 2004]),
        panel(history_y=np.zeros((1, 2))),
        panel(exposure=np.ones((3, 2))),
        panel(y_upper=np.arange(6.0).reshape(3, 2) + 1),
    )
    assert len({digest, *map(panel_digest, others)}) == 8
