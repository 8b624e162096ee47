"""The nine sites of the 2025 paper's Appendix B.2: the table within standard errors."""

import pandas as pd
import pytest

PAPER = {
    "mean of draws": {1: 0.107, 3: 0.231, 6: 0.636},
    "ratio over draws": {1: 0.538, 3: 0.625, 6: 0.810},
}


@pytest.fixture(scope="module")
def out(quick_run):
    return quick_run("ranking_demo")


def test_the_table_of_the_paper(out):
    """Both runs of 10,000 trials, the paper's and this one, estimate the enumerated expectation:
    each within 4 standard errors (and the paper's rounding)."""
    table = pd.read_csv(out / "results.csv").set_index(["ranking", "K"])
    for ranking, published in PAPER.items():
        for k, figure in published.items():
            row = table.loc[ranking, k]
            assert row["paper"] == figure
            assert abs(row["BPR"] - row["enumerated"]) < 4 * row["standard error"]
            assert abs(figure - row["enumerated"]) < 4 * row["standard error"] + 5e-4


def test_enumerated_by_hand(out):
    """K = 1: a C site is the largest of all if it comes up, and reaches nothing else; an A site
    reaches 7/80 if any C comes up, else 7/10 if any B does, else everything."""
    table = pd.read_csv(out / "results.csv").set_index(["ranking", "K"])["enumerated"]
    no_c, no_b = 0.9**3, 0.35**3
    assert table["mean of draws", 1] == pytest.approx(0.1)
    expected = (1 - no_c) * 7 / 80 + no_c * ((1 - no_b) * 7 / 10 + no_b)
    assert table["ratio over draws", 1] == pytest.approx(expected)
    for k in (1, 3, 6):
        assert table["ratio over draws", k] == pytest.approx(table["best fixed choice", k])


def test_which_sites_are_chosen(out):
    """Mean ranking takes C, ratio ranking A, in every trial, as in the paper's table."""
    chosen = pd.read_csv(out / "top_3.csv").set_index("site")
    kinds = chosen.index.str[0]
    assert (chosen["mean of draws"] == (kinds == "C")).all()
    assert (chosen["ratio over draws"] == (kinds == "A")).all()
    for name in ("bpr_by_k.png", "bpr_by_k.svg", "results.md", "top_3.md"):
        assert (out / name).stat().st_size > 100
