"""Plots: the numbers behind the curves, the drawn elements, and no overlaps."""

import builtins
import itertools

import numpy as np
import pandas as pd
import pytest

from topreach.report.plots import plot_history, plot_reach, reach_curve

matplotlib = pytest.importorskip(
    "matplotlib", reason="matplotlib is not installed (topreach[plot])"
)
matplotlib.use("agg")
pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


COUNTS = np.random.default_rng(0).poisson(1.0, (3, 40))
SCORES = COUNTS.mean(0) + np.random.default_rng(1).random((3, 40))


# ---- the curve -----------------------------------------------------------------------------------


def test_reach_curve_is_capture_and_bpr_for_every_k():
    """For each K, from the definition."""
    table = reach_curve(SCORES, COUNTS)
    assert list(table.index) == list(range(1, 41)) and table.index.name == "k"
    for k in (1, 7, 40):
        reached = [COUNTS[t][np.argsort(-SCORES[t])[:k]].sum() for t in range(3)]
        best = [np.sort(COUNTS[t])[-k:].sum() for t in range(3)]
        assert table.loc[k, "capture"] == pytest.approx(
            np.mean([r / COUNTS[t].sum() for t, r in enumerate(reached)])
        )
        assert table.loc[k, "bpr"] == pytest.approx(
            np.mean([r / b for r, b in zip(reached, best, strict=True)])
        )
    assert table.iloc[-1].tolist() == pytest.approx([1, 1])


def test_reach_curve_averages_over_the_orders_of_tied_sites():
    scores, counts = np.array([2.0, 1.0, 1.0, 1.0, 0.0]), np.array([1.0, 4.0, 0.0, 2.0, 3.0])
    expected = np.zeros(5)
    orders = list(itertools.permutations([1, 2, 3]))
    for order in orders:
        expected += np.cumsum(counts[[0, *order, 4]]) / counts.sum() / len(orders)
    assert reach_curve(scores, counts)["capture"].to_numpy() == pytest.approx(expected)


def test_periods_without_events_are_left_out():
    counts = np.vstack([COUNTS[0], np.zeros(40)])
    pd.testing.assert_frame_equal(
        reach_curve(SCORES[:2], counts), reach_curve(SCORES[0], COUNTS[0])
    )
    with pytest.raises(ValueError, match="an event in at least one period"):
        reach_curve(SCORES[0], np.zeros(40))


def test_reach_curve_errors():
    with pytest.raises(ValueError, match="shape of scores"):
        reach_curve(SCORES, COUNTS[:2])
    with pytest.raises(ValueError, match="NaN"):
        reach_curve(SCORES * np.nan, COUNTS)
    with pytest.raises(ValueError, match="max_k must be a whole number from 1 to S = 40, got 41"):
        reach_curve(SCORES, COUNTS, 41)


# ---- drawing -------------------------------------------------------------------------------------


def overlaps(figure):
    """Pairs of visible texts whose boxes overlap."""
    renderer = figure.canvas.get_renderer()
    texts = [
        t for t in figure.findobj(matplotlib.text.Text) if t.get_visible() and t.get_text().strip()
    ]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts]
    inside = [(n, b) for n, b in boxes if b.width > 0]
    return [(a, b) for (a, x), (b, y) in itertools.combinations(inside, 2) if x.overlaps(y)]


def test_plot_reach_on_axes_that_hold_other_things():
    """The caller's axes may have labelled points, which have no course of y."""
    ax = pyplot.subplots()[1]
    ax.scatter([3], [0.5], label="budget")
    legend = plot_reach({"worse": -SCORES, "model": SCORES}, COUNTS, ax=ax).get_legend()
    assert [t.get_text() for t in legend.get_texts()][-1] == "budget"


def test_plot_reach_draws_every_method_and_covers_nothing():
    names = ["model", "last year", "mean of all years", "chance"]
    ax = plot_reach({n: SCORES - i for i, n in enumerate(names)}, COUNTS, k=5)
    ax.figure.canvas.draw()
    legend = ax.get_legend()
    assert {t.get_text() for t in legend.get_texts()} == set(names)
    assert not overlaps(ax.figure)
    assert not legend.get_window_extent().overlaps(ax.get_window_extent()), (
        "the legend must not cover lines"
    )
    assert ax.get_xlim() == (0, 15)
    line = next(line for line in ax.lines if line.get_label() == "model")
    assert line.get_xdata()[0] == 1
    assert list(line.get_ydata()) == pytest.approx(
        list(reach_curve(SCORES, COUNTS)["capture"][:15])
    )
    styles = {
        (line.get_color(), str(line.get_linestyle()))
        for line in ax.lines
        if line.get_label() in names
    }
    assert len(styles) == 4
    bounds = ax.figure.bbox
    box = legend.get_window_extent()
    assert box.x1 <= bounds.x1 and box.y1 <= bounds.y1


def test_plot_reach_takes_axes_tables_and_bpr():
    _figure, (left, right) = pyplot.subplots(1, 2)
    table = reach_curve(SCORES, COUNTS)
    assert plot_reach({"a": table}, value="bpr", ax=right) is right
    assert not left.lines and right.get_ylim()[1] > 1
    with pytest.raises(ValueError, match="value must be 'capture' or 'bpr'"):
        plot_reach({"a": table}, value="recall")
    with pytest.raises(ValueError, match="tables of reach_curve where counts is None"):
        plot_reach({"a": SCORES})
    with pytest.raises(ValueError, match="at least one method"):
        plot_reach({})


def test_plot_history():
    history = pd.DataFrame(
        {
            "epoch": range(1, 5),
            "loss": [4.0, 3, 2, 1],
            "train_bpr": [np.nan, 0.5, np.nan, 0.6],
            "valid_bpr": [np.nan, 0.4, np.nan, 0.7],
        }
    )
    ax = plot_history(history)
    assert [list(line.get_xdata()) for line in ax.lines] == [[2, 4], [2, 4]]
    ax.figure.canvas.draw()
    assert not overlaps(ax.figure)
    assert list(plot_history(history, metric="loss").lines[0].get_ydata()) == [4, 3, 2, 1]
    given = pyplot.subplots()[1]
    assert plot_history(history, ax=given) is given
    with pytest.raises(ValueError, match="metric must be one of bpr, loss, got 'nll'"):
        plot_history(history, metric="nll")
    with pytest.raises(ValueError, match="at least one epoch"):
        plot_history(history.iloc[:0])


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'topreach\[plot\]'"):
        plot_reach({"a": SCORES}, COUNTS)
