"""The 2025 paper's synthetic study: properties that hold on a short run and in closed form."""

import numpy as np
import pandas as pd
import pytest
import torch
from topreach_experiments import pareto_synthetic as study


@pytest.fixture(scope="module")
def table(quick_run):
    folder = quick_run("pareto_synthetic")
    for name in ("frontier", "models"):
        for ending in ("png", "svg"):
            assert (folder / f"{name}.{ending}").stat().st_size > 1000
    return pd.read_csv(folder / "results.csv").set_index("objective")


def test_the_data_are_the_papers():
    y = study.simulate(3)
    assert y.shape == (500, 7) and torch.equal(y, y.round())
    # Rounding adds 1/12 to the variance but for what the narrow normal leaves out: sd below .45.
    assert ((y.mean(0) - torch.tensor(study.MEANS)).abs() < 5 * 0.45 / 500**0.5).all()
    assert (y.std(0) < 0.45).all()


def test_what_the_paper_argues_with():
    """App. D: the best likelihood puts the six low sites into one component and site 7 into the
    other, whose BPR is then (100 + 4/6 · 210)/280; two low sites below the rest have BPR 1."""
    hard = study.partitions(study.simulate(0)).sort_values("log_likelihood", ascending=False)
    best = hard.iloc[0]
    assert best["low sites"] == 6
    assert best["bpr"] == pytest.approx((100 + 4 / 6 * 210) / 280, abs=1e-3)
    two = hard[(hard["low sites"] == 2) & (hard["bpr"] > 1 - 1e-9)]
    assert len(two) == 1 and two["log_likelihood"].iloc[0] < best["log_likelihood"] - 2


def test_direct_bpr_decides_perfectly_and_forecasts_nonsense(table):
    """§5.1: BPR alone reaches 1; its likelihood is far below that of maximum likelihood."""
    assert table.loc["BPR", "BPR, exact ranking"] > 0.999
    assert table.loc["BPR", "log-likelihood"] < 2 * table.loc["NLL", "log-likelihood"]
    assert table.loc["NLL", "BPR, exact ranking"] < 0.99


def test_daml_trades_likelihood_for_bpr(table):
    """§5.1: a low ε asks for nothing, ε = 1 for the best choice at a likelihood near the best."""
    daml = table.loc["DAML"].set_index("ε")
    assert daml.loc[1.0, "BPR, exact ranking"] > 0.99
    assert daml.loc[1.0, "log-likelihood"] > 1.3 * table.loc["NLL", "log-likelihood"]
    assert daml.loc[0.5, "log-likelihood"] == pytest.approx(
        table.loc["NLL", "log-likelihood"], abs=0.5
    )
    assert np.isfinite(daml["log-likelihood"]).all()
