"""Standardizer: training rows only, constant columns out, plain values to a file and back."""

import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from topreach.data.panel import Panel
from topreach.data.standardizer import Standardizer


def panel_of(x, names=None):
    x = torch.as_tensor(np.asarray(x, dtype=np.float32))
    sites = [f"s{i}" for i in range(x.shape[1])]
    names = names or [f"u{i}" for i in range(x.shape[2])]
    return Panel(x, torch.zeros(x.shape[:2]), sites, range(x.shape[0]), names)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, (3, 4, 2), elements=st.integers(-1000, 1000).map(float)))
def test_mean_zero_and_population_sd_one(x):
    x = np.concatenate([x, np.arange(12, dtype=np.float32).reshape(3, 4, 1)], axis=2)
    flat = x.reshape(-1, 3).astype(np.float64)
    varies = [p for p in range(3) if len(set(flat[:, p])) > 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        standardizer = Standardizer().fit(panel_of(x))
    assert standardizer.kept_ == varies
    np.testing.assert_allclose(standardizer.mean_, flat[:, varies].mean(axis=0), atol=1e-10)
    np.testing.assert_allclose(standardizer.scale_, flat[:, varies].std(axis=0), rtol=1e-10)
    z = standardizer.transform(panel_of(x)).x.reshape(-1, len(varies)).double().numpy()
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-5)


def test_only_training_rows_count():
    x = np.random.default_rng(0).normal(size=(5, 6, 2))
    panel = panel_of(x)
    train, _, test = panel.split(valid=3, test=4)
    standardizer = Standardizer().fit(train)
    flat = train.x.reshape(-1, 2).double()
    expected = (test.x.double() - flat.mean(0)) / flat.std(0, correction=0)
    torch.testing.assert_close(standardizer.transform(test).x.double(), expected, rtol=0, atol=1e-6)
    assert standardizer.transform(test).history_y.shape == (4, 6)


@pytest.mark.parametrize("level", [0.0, 3.7, 1e6, -41.9])
def test_constant_columns_are_dropped_with_a_warning(level):
    x = np.random.default_rng(0).normal(size=(3, 5, 3))
    x[:, :, 1] = level
    x[:, :, 1] *= 1 + 1e-8 * np.arange(5)  # noise below float32's rounding
    with pytest.warns(UserWarning, match=r"\['u1'\], constant in training"):
        standardizer = Standardizer().fit(panel_of(x))
    assert standardizer.dropped_ == ["u1"]
    assert standardizer.kept_ == [0, 2]
    later = panel_of(np.random.default_rng(1).normal(size=(3, 5, 3)))
    assert standardizer.transform(later).feature_names == ["u0", "u2"]


def test_one_rounding_of_noise_is_constant_and_a_small_spread_is_not():
    x = np.full((4, 5, 2), np.float32(0.1))
    x[0, :, 0] = np.nextafter(np.float32(0.1), np.float32(1))
    x[:, :, 1] = 28 + 1e-4 * np.arange(5)
    with pytest.warns(UserWarning, match=r"\['u0'\]"):
        assert Standardizer().fit(panel_of(x)).kept_ == [1]


def test_all_constant_leaves_no_features():
    with pytest.warns(UserWarning, match="constant in training"):
        standardizer = Standardizer().fit(panel_of(np.ones((2, 3, 2))))
    assert standardizer.transform(panel_of(np.ones((2, 3, 2)))).x.shape == (2, 3, 0)
    assert Standardizer().fit(panel_of(np.ones((2, 3, 0)))).kept_ == []


def test_features_are_found_by_name():
    x = np.random.default_rng(0).normal(size=(3, 5, 2))
    standardizer = Standardizer().fit(panel_of(x, ["a", "b"]))
    swapped = panel_of(np.concatenate([x[:, :, ::-1], x[:, :, :1]], axis=2), ["b", "a", "extra"])
    expected = standardizer.transform(panel_of(x, ["a", "b"]))
    assert torch.equal(standardizer.transform(swapped).x, expected.x)
    assert torch.equal(standardizer.transform_tensor(torch.tensor(x).float()), expected.x)
    with pytest.raises(ValueError, match="lacks: 'b'"):
        standardizer.transform(panel_of(x[:, :, :1], ["a"]))
    assert torch.equal(
        standardizer.transform_tensor(torch.tensor(x[0, 0]).float()), expected.x[0, 0]
    )
    for wrong in (torch.zeros(3, 5, 4), torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"x must have shape \[..., 2\]"):
            standardizer.transform_tensor(wrong)


def test_state_goes_through_a_weights_only_file():
    x = np.random.default_rng(0).normal(size=(3, 5, 3))
    x[:, :, 0] = 1
    with pytest.warns(UserWarning, match="constant"):
        standardizer = Standardizer().fit(panel_of(x))
    state = standardizer.state_dict()
    assert set(state) == {"feature_names", "kept", "mean", "scale"}
    assert state["mean"].dtype == state["scale"].dtype == torch.float64
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    other = Standardizer.from_state_dict(torch.load(file, weights_only=True))
    assert other.dropped_ == ["u0"]
    assert torch.equal(other.transform(panel_of(x)).x, standardizer.transform(panel_of(x)).x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": torch.zeros(3)}, "mean and scale must have 2 entries"),
        ({"kept": [0, 5]}, "kept must index"),
        ({"scale": torch.tensor([1.0, 0.0])}, "scale must be positive"),
    ],
)
def test_broken_states(change, message):
    state = Standardizer().fit(panel_of(np.random.default_rng(0).normal(size=(3, 5, 2))))
    with pytest.raises(ValueError, match=message):
        Standardizer.from_state_dict(state.state_dict() | change)
    with pytest.raises(ValueError, match="state must have feature_names"):
        Standardizer.from_state_dict({})


def test_misuse():
    with pytest.raises(RuntimeError, match="fit must be called first"):
        Standardizer().transform(panel_of(np.ones((2, 3, 2))))
    with pytest.raises(TypeError, match="panel must be a Panel"):
        Standardizer().fit(torch.zeros(2, 3, 2))
