"""From a panel to minibatches: the periods left out, weights over time, and seeds."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from topreach.data.messages import option
from topreach.data.panel import Batch, Panel
from topreach.objectives.base import TimeWeights


def batch_of(
    model: nn.Module,
    data: Panel | Batch,
    device: torch.device,
    name: str,
    change: Callable[[Batch], Batch] = lambda batch: batch,
) -> Batch:
    """The batch for training or judging a model, on its device.

    `change` is applied to all periods, before some are left out.

    Cells of sites that are not open (`Batch.open`) need no count. Periods whose past counts are
    unknown are left out, with one warning.

    Raises:
        TypeError: neither a panel nor a batch.
        ValueError: a period without any count, NaN counts in a batch that does not say which sites
            are open, features that are not finite.
    """
    if isinstance(data, Panel):
        window = getattr(model, "window", None) or None
        absent = "nan" if data.absent_lags == "error" else None  # left out below
        data = data.batch(window=window, absent_lags=absent)
    if not isinstance(data, Batch):
        raise TypeError(
            f"Trainer.fit: {name} must be a Panel or a Batch, got {type(data).__name__}."
        )
    missing = ~torch.isfinite(data.y)
    if data.open is not None:
        missing = missing & data.open
    if bool(missing.any()):
        raise ValueError(
            f"Trainer.fit: {name} must have a count for every site and period, got NaN. Leave such "
            f"periods out, or give {option('opened')} and {option('closed')} times for sites that "
            "come and go."
        )
    if not torch.isfinite(data.x).all():
        raise ValueError(f"Trainer.fit: {name} must have finite features, got NaN or infinity.")
    data = change(data)
    if data.history is not None and data.history.isnan().any():
        data = _with_known_history(data, data.history, name)
    return data.map(lambda t: t.to(device))


def _with_known_history(batch: Batch, history: Tensor, name: str) -> Batch:
    unknown = history.isnan().any(-1)
    if batch.open is not None:
        unknown = unknown & batch.open
    left_out = unknown.any(-1)
    if bool(left_out.all()):
        raise ValueError(
            f"Trainer.fit: {name} must have a period whose past counts are known, got none. Take a "
            f"smaller {option('window')}, or give earlier counts."
        )
    if bool(left_out.any()):
        _warn_of_lags(name, int(left_out.sum()), len(left_out))
        batch, history = batch.map(lambda t: t[~left_out]), history[~left_out]
    # The remaining NaNs belong to closed sites.
    return batch._replace(history=history.nan_to_num(0.0))


def _warn_of_lags(name: str, left_out: int, of: int) -> None:
    warnings.warn(
        f"Trainer.fit: {left_out} of {of} periods of {name} are left out: the past counts that the "
        "model reads are not known for them. A smaller window needs fewer.",
        stacklevel=5,
    )


def weights_of(train: Batch, time_weights: TimeWeights) -> Tensor | None:
    """`train.weights` times `time_weights`, checked; None if every weight is 1."""
    weights = train.weights
    if time_weights is not None:
        own = time_weights(train.time) if callable(time_weights) else time_weights
        own = torch.as_tensor(own, dtype=train.y.dtype, device=train.y.device)
        if own.shape != train.time.shape:
            raise ValueError(
                f"Trainer.fit: time_weights must have shape [{len(train.time)}], one per period of "
                f"the training panel, got {list(own.shape)}."
            )
        weights = own if weights is None else own * weights
    if weights is not None and not (
        torch.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0
    ):
        raise ValueError(
            f"Trainer.fit: time_weights must be finite, >= 0 and not all 0, got {weights.tolist()}."
        )
    return weights


def minibatches(train: Batch, batch_size: int | None, seed: int, epoch: int) -> list[Batch]:
    """The epoch's minibatches, weighted so that each one's sum estimates that of the whole."""
    periods = len(train.time)
    if batch_size is None or batch_size >= periods:
        return [train]
    generator = torch.Generator().manual_seed(hash_of(seed, "epoch", epoch))
    order = torch.randperm(periods, generator=generator)
    weights = train.weights if train.weights is not None else torch.ones_like(train.time)
    batches = []
    for rows in order.split(batch_size):
        rows = rows.sort().values.to(train.y.device)
        part = train.map(lambda t: t[rows])
        batches.append(part._replace(weights=weights[rows] * (periods / len(rows))))
    return batches


def hash_of(seed: int, purpose: str, number: int) -> int:
    """A separate seed for each purpose and number."""
    digest = hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_all(device: torch.device, seed: int) -> None:
    """Seed the generators that `fork_rng` put aside, and no others."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
