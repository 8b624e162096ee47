"""The default model on real panels: figures frozen from a plain implementation in Python loops.

They were computed by its formulas in float32 and float64 ATen, with neighbours from all pairs of
distances. L-BFGS stops at a relative change of 1e-9 of the likelihood, so parameters agree to the
square root of that, 3e-5, times their conditioning: hence 1e-3.
"""

import os

import numpy as np
import pytest
import torch

import topreach as tr
from topreach.data.standardizer import Standardizer
from topreach.models import EmpiricalBayesRates
from topreach.models.site_history import SiteHistory

needs_data = pytest.mark.skipif(
    not os.environ.get("TOPREACH_DATA"), reason="needs real data: set TOPREACH_DATA to its folder"
)

FIGURES = {
    "cook_county": {
        "bpr": 0.829116,
        "mae": 0.940209,
        "nll": 1.32762,
        "expected": [1773.06, 1878.32],
        "first_sites": [2.30295, 1.74043, 2.28, 1.94786, 1.35364],
        "concentration": [5.04655, 16.9867],
        "shape": 3.1955,
        "level": 0.843373,
        "smoothing": 1.0,
        "season": None,
    },
    "aerial": {
        "bpr": 0.388059,
        "mae": 0.237758,
        "nll": 0.2383,
        "expected": [256.733, 250.736, 272.801, 222.461, 220.834, 212.105],
        "first_sites": [0.000554683, 0.000554683, 0.000554683, 0.000554683, 0.000554683],
        "concentration": [0.260613, 0.107345],
        "shape": 0.505286,
        "level": 0.312924,
        "smoothing": 0.2,
        "season": None,
    },
    "ct_years": {
        "bpr": 0.977032,
        "mae": 2.28591,
        "nll": 1.92262,
        "expected": [1571.73, 1470.43, 1319.99],
        "first_sites": [0.888216, 9.72935, 1.20088, 1.94168, 1.1636],
        "concentration": [4.12371, 261.334],
        "shape": 0.648498,
        "level": 5.4426,
        "smoothing": 1.0,
        "season": None,
    },
    "ct_quarters": {
        "bpr": 0.923074,
        "mae": 0.746837,
        "nll": 0.992689,
        "expected": [294.026, 290.793, 264.624, 210.219],
        "first_sites": [0.108366, 2.39629, 0.150744, 0.338831, 0.167218],
        "concentration": [4.09428, 340.369],
        "shape": 0.611012,
        "level": 1.47436,
        "smoothing": 1.0,
        "season": 4,
    },
}


def joined(splits):
    """One panel of the parts of a published split."""
    parts = [part for part in splits if part is not None]
    first = parts[0]
    return tr.Panel(
        torch.cat([part.x for part in parts]),
        torch.cat([part.y for part in parts]),
        first.site_ids,
        [time for part in parts for time in part.times],
        first.feature_names,
        history_y=first.history_y,
    )


# The panel, K, and how many of its last periods are held out.
SETS = {
    "cook_county": (lambda: joined(tr.datasets.cook_county()), 100, 2),
    "aerial": (lambda: joined(tr.datasets.aerial_surveys()), 50, 6),
    "ct_years": (lambda: tr.datasets.ct_overdose("year"), 20, 3),
    "ct_quarters": (lambda: tr.datasets.ct_overdose("quarter"), 20, 4),
}


@needs_data
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SETS)
def test_figures(name):
    load, k, held_out = SETS[name]
    panel = load()
    train, _, test = panel.split(test=panel.times[-held_out:])
    history = SiteHistory().fit(train)
    kept = [f for f in train.feature_names if f not in history.absorbed_]
    standardizer = Standardizer().fit(train.align(feature_names=kept))

    def inputs(part):
        return torch.cat([history.statistics(part), standardizer.transform(part).x], -1)

    model = EmpiricalBayesRates(history.half_lives_, len(standardizer.kept_))
    model.fit(inputs(train), train.y)
    with torch.no_grad():
        counts = model(inputs(test))
        nll = -counts.log_prob(test.y).mean().item()
    found = {
        "bpr": float(np.mean(tr.metrics.bpr(counts.mean, test.y, k))),
        "mae": (counts.mean - test.y).abs().mean().item(),
        "nll": nll,
        "expected": counts.mean.sum(1).tolist(),
        "first_sites": counts.mean[0, :5].tolist(),
        "concentration": history.concentration_,
        "shape": history.shape_,
        "level": history.level_,
    }
    expected = FIGURES[name]
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-3, err_msg=key)
    assert history.smoothing_ == expected["smoothing"] and history.season_ == expected["season"]
