"""Add the numbers of the two most yellow of nine: a top-2 operator in a network [L23, Fig. 1]."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import topreach as tr

from ..context import Context

TITLE = "Add the two most yellow numbers, with and without a top-2 operator (2023 paper, Fig. 1)"

SIGMA = 0.05  # noise on the scores, which are in (0, 1)
DRAWS = 100  # J
RATE, BATCH = 0.01, 256
# Chosen on the development data, in the same way for each row: widths, weight decay.
HIDDEN = ((72, 36), (144, 72))
DECAYS = (0.0, 0.1)
# Epochs: many if an epoch is cheap or its gradients are noisy.
EPOCHS = {"none": 300, "score": 100, "score_loo": 60, "exact": 30}
SEEDS = 5
DEVELOPMENT = 1000  # added to the seed, so that the development data are not among those reported
PAPER = {"none": (3.8, 5.0), "score": (1.0, 1.7)}
NAMES = {
    "none": "MLP",
    "score": "MLP + perturbed top-2 (the paper's)",
    "score_loo": "MLP + perturbed top-2, leave-one-out",
    "exact": "MLP + exact top-2",
}
COLOURS = {"none": "#D55E00", "score": "#56B4E9", "score_loo": "#009E73", "exact": "#0072B2"}


class Instances(NamedTuple):
    """values [..., T, 9] in (0, 10), colours [..., T, 27] (9 reds, 9 greens, 9 blues) in (0, 1),
    y [..., T]."""

    values: Tensor
    colours: Tensor
    y: Tensor

    def part(self, index: Tensor) -> Instances:
        return Instances(*(tensor[:, index] for tensor in self))


def instances(number: int, generator: torch.Generator, device: torch.device) -> Instances:
    values = 10 * torch.rand(number, 9, generator=generator)
    rgb = torch.rand(number, 3, 9, generator=generator)
    yellow = rgb[:, 0] + rgb[:, 1] - rgb[:, 2]
    y = (values * tr.topk_mask(yellow, 2)).sum(-1)
    return Instances(values.to(device), rgb.reshape(number, 27).to(device), y.to(device))


class Scorers(nn.Module):
    """R networks side by side. Each maps 27 colour components [R, T, 27] to nine scores in (0, 1),
    [R, T, 9]. The start is that of `nn.Linear`: uniform within 1/√inputs."""

    def __init__(self, number: int, hidden: tuple[int, ...], generator: torch.Generator):
        super().__init__()
        self.layers = nn.ParameterList()
        for inputs, outputs in itertools.pairwise((27, *hidden, 9)):
            for shape in ((number, inputs, outputs), (number, 1, outputs)):
                start = 2 * torch.rand(shape, generator=generator) - 1
                self.layers.append(nn.Parameter(start / inputs**0.5))

    def forward(self, colours: Tensor) -> Tensor:
        x = colours
        for i in range(0, len(self.layers), 2):
            x = torch.baddbmm(self.layers[i + 1], x if i == 0 else x.relu(), self.layers[i])
        return x.sigmoid()


def choose(scores: Tensor, variant: str, generator: torch.Generator) -> Tensor:
    """The weight of each value in the sum, [..., 9]."""
    if variant == "none":
        return scores
    if variant == "exact":
        return tr.expected_topk(scores, 2, sigma=SIGMA)
    return tr.perturbed_topk(
        scores, 2, sigma=SIGMA, num_samples=DRAWS, estimator=variant, generator=generator
    )


def train(
    variant: str,
    hidden: tuple[int, ...],
    decay: float,
    seeds: list[int],
    number: int,
    epochs: int,
    device: torch.device,
    *,
    test: bool,
) -> dict[str, Any]:
    """Train a network for each seed, on data of that seed, by mean squared error, with AdamW whose
    rate falls to 0 by a cosine. The epoch with the least error on the seed's validation instances
    is kept. `test` says whether to evaluate the network of that epoch on the test instances."""
    sources = [torch.Generator().manual_seed(seed) for seed in seeds]
    fit, valid, held_out = (
        Instances(*map(torch.stack, zip(*(instances(n, g, device) for g in sources), strict=True)))
        for n in (number, number, number)
    )
    generator = torch.Generator().manual_seed(seeds[0])
    noise = torch.Generator(device).manual_seed(seeds[0])
    model = Scorers(len(seeds), hidden, generator).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=decay)
    steps = epochs * -(-number // BATCH)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def errors(data: Instances, *, hard: bool = False) -> Tensor:
        scores = model(data.colours)
        chosen = tr.topk_mask(scores, 2) if hard else choose(scores, variant, noise)
        return ((chosen * data.values).sum(-1) - data.y).square().mean(-1)

    least = torch.full((len(seeds),), torch.inf, device=device)
    best = [parameter.detach().clone() for parameter in model.parameters()]
    best_epoch, curve = [0] * len(seeds), []
    for epoch in range(1, epochs + 1):
        for part in torch.randperm(number, generator=generator).split(BATCH):
            optimizer.zero_grad()
            # The sum over networks: each gets its own gradient.
            errors(fit.part(part.to(device))).sum().backward()
            optimizer.step()
            scheduler.step()
        if epoch % 5 and epoch != epochs:
            continue
        with torch.no_grad():
            on_valid = errors(valid)
            curve.append([epoch, errors(fit).tolist(), on_valid.tolist()])
            for r in (on_valid < least).nonzero().flatten().tolist():
                least[r], best_epoch[r] = on_valid[r], epoch
                for kept, parameter in zip(best, model.parameters(), strict=True):
                    kept[r] = parameter[r]
    found: dict[str, Any] = {"valid": least.tolist(), "epoch": best_epoch, "curve": curve}
    if test:
        with torch.no_grad():
            for kept, parameter in zip(best, model.parameters(), strict=True):
                parameter.copy_(kept)
            found["train"], found["test"] = errors(fit).tolist(), errors(held_out).tolist()
            found["hard test"] = errors(held_out, hard=True).tolist()
    return found


def run(context: Context) -> None:
    quick, seed = context.quick, context.seed
    number = 2000 if quick else 5000
    grid = list(itertools.product(HIDDEN, DECAYS))[: 1 if quick else None]
    seeds = list(range(seed, seed + (1 if quick else SEEDS)))
    epochs = dict.fromkeys(EPOCHS, 12) | {"none": 60} if quick else EPOCHS
    settings = {"T": number, "epochs": epochs, "draws": DRAWS, "rate": RATE, "batch": BATCH}

    def cell(variant: str, hidden: tuple[int, ...], decay: float, on: list[int], test: bool) -> Any:
        return train(variant, hidden, decay, on, number, epochs[variant], context.device, test=test)

    def name(variant: str, hidden: tuple[int, ...], decay: float) -> str:
        return f"{variant}.hidden={hidden[0]}-{hidden[1]}.decay={decay:g}"

    tried = context.cells(
        {
            f"choice.{name(variant, *chosen)}": partial(
                cell, variant, *chosen, [seed + DEVELOPMENT], False
            )
            for variant in NAMES
            for chosen in grid
        },
        settings,
    )
    best = {
        variant: min(grid, key=lambda one: tried[f"choice.{name(variant, *one)}"]["valid"][0])
        for variant in NAMES
    }
    made = context.cells(
        {
            name(variant, *best[variant]): partial(cell, variant, *best[variant], seeds, True)
            for variant in NAMES
        },
        settings | {"seeds": len(seeds)},
    )
    found = {variant: made[name(variant, *best[variant])] for variant in NAMES}

    rows = []
    for variant, label in NAMES.items():
        result = found[variant]
        paper = PAPER.get(variant, (None, None))
        rows.append(
            {
                "model": label,
                "train MSE": np.mean(result["train"]),
                "sd, train": np.std(result["train"], ddof=1) if len(seeds) > 1 else None,
                "paper, train": paper[0],
                "test MSE": np.mean(result["test"]),
                "sd, test": np.std(result["test"], ddof=1) if len(seeds) > 1 else None,
                "paper, test": paper[1],
                "test MSE, hard top-2": np.mean(result["hard test"]),
                "layers": "{} and {}".format(*best[variant][0]),
                "weight decay": best[variant][1],
                "epochs kept": f"{min(result['epoch'])} to {max(result['epoch'])}",
            }
        )
    context.table(
        pd.DataFrame(rows).set_index("model"),
        title=f"Mean squared error, T = {number}: mean and spread over {len(seeds)} seeds",
    )
    lines = [
        {"model": NAMES[variant], "layers": "{} and {}".format(*hidden), "weight decay": decay}
        | {"validation MSE": one["valid"][0], "epoch": one["epoch"][0]}
        for variant in NAMES
        for hidden, decay in grid
        for one in [tried[f"choice.{name(variant, hidden, decay)}"]]
    ]
    context.table(
        pd.DataFrame(lines).set_index("model"),
        "choice",
        title=f"What was tried on development data (seed {seed + DEVELOPMENT})",
    )
    context.figure(plot(context, found), "learning_curves")


def plot(context: Context, found: dict[str, Any]) -> Any:
    """Left: one instance in its colours, with circles around the two numbers to add. Right:
    learning curves, the mean over seeds and, for validation, also the range."""
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
        epoch, train_, valid = map(np.array, zip(*found[variant]["curve"], strict=True))
        colour = COLOURS[variant]
        right.plot(epoch, valid.mean(1), color=colour, lw=1.8, label=name)
        right.fill_between(epoch, valid.min(1), valid.max(1), color=colour, alpha=0.2, lw=0)
        right.plot(epoch, train_.mean(1), color=colour, lw=1, ls=":")
    for variant, (_, test) in PAPER.items():
        right.axhline(test, color=COLOURS[variant], lw=1, ls="--", alpha=0.8)
        right.annotate(
            f"paper, test {test}",
            (1, test),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="top",
            fontsize=8,
            color=COLOURS[variant],
        )
    right.set(xlabel="epoch", ylabel="mean squared error")
    right.set(xscale="log", yscale="log", ylim=(0.3, 18))
    right.set_xticks([5, 10, 20, 50, 100, 200], ["5", "10", "20", "50", "100", "200"])
    right.set_xticks([], minor=True)
    right.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
    right.set_yticks([], minor=True)
    right.set_title("Solid: validation, with its range; dotted: training", fontsize=11)
    right.grid(alpha=0.3, which="both")
    right.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False, fontsize=8.5, loc="lower left")
    return figure
