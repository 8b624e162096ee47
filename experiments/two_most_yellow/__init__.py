"""Add the numbers of the two most yellow of nine: a top-2 operator in a network [L23, Fig. 1]."""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

import topreach as tr

from ..context import Context

TITLE = "Add the two most yellow numbers, with and without a top-2 operator (2023 paper, Fig. 1)"

SIGMA = 0.05  # noise on the scores, which lie in (0, 1)
HIDDEN = (72, 36)
DRAWS = 100  # J
PAPER = {"none": (3.8, 5.0), "score": (1.0, 1.7)}
NAMES = {
    "none": "MLP",
    "score": "MLP + perturbed top-2 (the paper's)",
    "score_loo": "MLP + perturbed top-2, leave-one-out",
    "exact": "MLP + exact top-2",
}
COLOURS = {"none": "#D55E00", "score": "#56B4E9", "score_loo": "#009E73", "exact": "#0072B2"}


class Instances(NamedTuple):
    """values [T, 9] in (0, 10), colours [T, 27] (9 reds, 9 greens, 9 blues) in (0, 1), y [T]."""

    values: Tensor
    colours: Tensor
    y: Tensor


def instances(number: int, generator: torch.Generator, device: torch.device) -> Instances:
    values = 10 * torch.rand(number, 9, generator=generator)
    rgb = torch.rand(number, 3, 9, generator=generator)
    yellow = rgb[:, 0] + rgb[:, 1] - rgb[:, 2]
    y = (values * tr.topk_mask(yellow, 2)).sum(-1)
    return Instances(values.to(device), rgb.reshape(number, 27).to(device), y.to(device))


def scorer() -> nn.Sequential:
    """27 colour components to nine scores in (0, 1)."""
    layers: list[nn.Module] = []
    for width_in, width_out in zip((27, *HIDDEN), (*HIDDEN, 9), strict=True):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1], nn.Sigmoid())


def choose(scores: Tensor, variant: str) -> Tensor:
    """How much of each value is added, [..., 9]."""
    if variant == "none":
        return scores
    if variant == "exact":
        return tr.expected_topk(scores, 2, sigma=SIGMA)
    return tr.perturbed_topk(scores, 2, sigma=SIGMA, num_samples=DRAWS, estimator=variant)


def train(
    variant: str,
    seed: int,
    rates: tuple[float, ...],
    number: int,
    epochs: int,
    device: torch.device,
) -> dict[str, Any]:
    """Train by mean squared error; learning rate and epoch are chosen on instances of their own."""
    generator = torch.Generator().manual_seed(seed)
    fit, valid, test = (instances(n, generator, device) for n in (number, 5000, 5000))

    def mse(model: nn.Module, data: Instances, hard: bool = False) -> float:
        with torch.no_grad():
            scores = model(data.colours)
            chosen = tr.topk_mask(scores, 2) if hard else choose(scores, variant)
            return ((chosen * data.values).sum(-1) - data.y).square().mean().item()

    best: dict[str, Any] = {"valid": math.inf}
    for rate in rates:
        torch.manual_seed(seed)
        model = scorer().to(device)
        optimizer = torch.optim.Adam(model.parameters(), rate)
        curve = []
        for epoch in range(1, epochs + 1):
            for part in torch.randperm(number).split(512):
                values, colours, y = (tensor[part] for tensor in fit)
                chosen = choose(model(colours), variant)
                loss = ((chosen * values).sum(-1) - y).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if epoch % 5 == 0 or epoch == epochs:
                curve.append((epoch, mse(model, fit), mse(model, valid)))
                if curve[-1][2] < best["valid"]:
                    state = copy.deepcopy(model.state_dict())
                    best = {"valid": curve[-1][2], "rate": rate, "epoch": epoch, "curve": curve}
    model.load_state_dict(state)
    best |= {"train": mse(model, fit), "test": mse(model, test)}
    best |= {"hard train": mse(model, fit, True), "hard test": mse(model, test, True)}
    return best


def run(context: Context) -> None:
    quick = context.quick
    number = 2000 if quick else 5000
    rates = (0.01,) if quick else (0.003, 0.01)
    epochs = dict.fromkeys(NAMES, 12 if quick else 60)
    epochs |= {"none": 40} if quick else {"none": 300, "score": 120}
    cells = {
        variant: (
            lambda variant=variant: train(
                variant, context.seed, rates, number, epochs[variant], context.device
            )
        )
        for variant in NAMES
    }
    settings = {"T": number, "rates": rates, "epochs": epochs, "draws": DRAWS, "hidden": HIDDEN}
    found = context.cells(cells, settings)

    rows = []
    for variant, name in NAMES.items():
        result = found[variant]
        paper = PAPER.get(variant, (None, None))
        rows.append(
            {
                "model": name,
                "train MSE": result["train"],
                "paper, train": paper[0],
                "test MSE": result["test"],
                "paper, test": paper[1],
                "test MSE, hard top-2": result["hard test"],
                "learning rate": result["rate"],
                "epoch": result["epoch"],
            }
        )
    context.table(pd.DataFrame(rows).set_index("model"), title=f"Mean squared error, T = {number}")
    context.figure(plot(context, found), "learning_curves")


def plot(context: Context, found: dict[str, Any]) -> Any:
    """Left: one instance, in its colours, the two to add circled. Right: learning curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2.1))
    one = instances(1, torch.Generator().manual_seed(context.seed), torch.device("cpu"))
    rgb = one.colours.reshape(3, 9)
    wanted = tr.topk_mask(rgb[0] + rgb[1] - rgb[2], 2)
    for i in range(9):
        place = (i % 3, 2 - i // 3)
        text = f"{one.values[0, i]:.1f}"
        left.text(*place, text, ha="center", va="center", fontsize=17, color=rgb[:, i].tolist())
        if wanted[i]:
            left.plot(*place, marker="o", ms=42, mfc="none", mec="#767676")
    left.set(xlim=(-0.6, 2.6), ylim=(-0.6, 2.6), xticks=[], yticks=[], aspect="equal")
    left.set_title(f"One instance, y = {one.y[0]:.1f}", fontsize=11)

    for variant, name in NAMES.items():
        run_ = found[variant]
        epoch, train_, valid = zip(*run_["curve"], strict=True)
        right.plot(epoch, valid, color=COLOURS[variant], lw=1.8, label=name)
        right.plot(epoch, train_, color=COLOURS[variant], lw=1, ls=":")
    for variant, (_, test) in PAPER.items():
        right.axhline(test, color=COLOURS[variant], lw=1, ls="--", alpha=0.8)
        right.annotate(
            f"paper, test {test}",
            (1, test),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
            color=COLOURS[variant],
        )
    right.set(xlabel="epoch", ylabel="mean squared error", yscale="log", ylim=(0.6, 18))
    right.set_yticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    right.set_yticks([], minor=True)
    right.set_title("Solid: validation; dotted: training", fontsize=11)
    right.grid(alpha=0.3, which="both")
    right.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False, fontsize=8.5, loc="upper right")
    return figure
