"""The published examples of allocation programs: every plan is proved."""

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def table(quick_run):
    out = quick_run("allocation_posts")
    return pd.read_csv(out / "results.csv").set_index(["example", "setting"])


def test_every_plan_is_proved(table):
    assert set(table["status"]) == {"optimal"}
    assert (table["bound"] - table["value"]).abs().max() <= 1e-4 * table["value"].max()


def test_the_small_examples(table):
    assert table["value"]["spillover, five nodes"].tolist() == pytest.approx(
        [0.65, 1.1, 1.2, 1.25, 1.3]
    )
    tours = table.loc["tours, 5 x 5 grid"]
    assert tours["value"].tolist() == [19, 23, 24]
    assert tours["elsewhere"].iloc[0] == 22  # with a cycle that is no part of a tour


def test_trees_are_shorter_than_the_approximation_s(table):
    if "subgraph, 311 nodes" not in table.index:
        pytest.skip("TOPREACH_DATA has no folder networks")
    trees = table.loc["subgraph, 311 nodes"]
    assert trees["value"].tolist() == [16, 14, 13] and (trees["value"] < trees["elsewhere"]).all()
