"""The 2023 paper's toy task: results that a short run must show."""

import pandas as pd
import pytest
import torch
from topreach_experiments import two_most_yellow as task


@pytest.fixture(scope="module")
def table(quick_run):
    folder = quick_run("two_most_yellow")
    for ending in ("png", "svg"):
        assert (folder / f"learning_curves.{ending}").stat().st_size > 1000
    return pd.read_csv(folder / "results.csv").set_index("model")


def test_instances_add_the_two_most_yellow():
    """Fig. 1: yellowness is R + G − B; y is the sum of the two values that have most of it."""
    data = task.instances(50, torch.Generator().manual_seed(1), torch.device("cpu"))
    for values, colours, y in zip(*data, strict=True):
        red, green, blue = colours.reshape(3, 9)
        order = sorted(range(9), key=lambda i: float(red[i] + green[i] - blue[i]))
        assert y.item() == pytest.approx(values[order[-1]].item() + values[order[-2]].item())
    assert 0 <= data.values.min() and data.values.max() <= 10


def test_networks_side_by_side_are_networks_of_their_own():
    """Each is torch's own stack of layers with its weights."""
    generator = torch.Generator().manual_seed(2)
    three = task.Scorers(3, (8, 5), generator)
    colours = torch.rand(3, 4, 27, generator=generator)
    for r in range(3):
        layers = []
        for weight, bias in zip(three.layers[::2], three.layers[1::2], strict=True):
            assert bias.abs().max() <= weight.shape[1] ** -0.5  # as torch's layers start
            layer = torch.nn.Linear(*weight.shape[1:])
            layer.weight.data, layer.bias.data = weight[r].T, bias[r, 0]
            layers += [layer, torch.nn.ReLU()]
        alone = torch.nn.Sequential(*layers[:-1], torch.nn.Sigmoid())
        torch.testing.assert_close(three(colours)[r], alone(colours[r]))


def test_a_network_for_each_seed_and_no_look_at_test_instances_in_the_choice():
    rest = ("none", (6, 4), 0.1, [5, 6], 300, 4, torch.device("cpu"))
    found = task.train(*rest, test=True)
    assert all(len(found[key]) == 2 for key in ("valid", "epoch", "train", "test", "hard test"))
    assert len(set(found["test"])) == 2
    assert set(task.train(*rest, test=False)) == {"valid", "epoch", "curve"}


def test_the_operator_generalises_better(table):
    """Fig. 1: with the top-2 operator the test error is lower, and the gradient without noise
    learns most in the same number of steps. (y has variance about 16.7: two uniforms on (0,
    10).)"""
    test = table["test MSE"]
    assert test["MLP"] < 16.7
    for with_operator in test.index[1:]:
        assert test[with_operator] < test["MLP"]
    assert test["MLP + exact top-2"] < test["MLP + perturbed top-2 (the paper's)"]


def test_the_papers_figures_stand_beside(table):
    assert table.loc["MLP", ["paper, train", "paper, test"]].tolist() == [3.8, 5.0]
    name = "MLP + perturbed top-2 (the paper's)"
    assert table.loc[name, ["paper, train", "paper, test"]].tolist() == [1.0, 1.7]
