"""The state of a run in a file: the settings that must agree to resume, writing and reading."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from topreach.data.files import atomic_save, load_plain
from topreach.data.messages import either
from topreach.data.panel import Batch

CHECKPOINT_FORMAT = "topreach-checkpoint"
CHECKPOINT_VERSION = 1


def fingerprint_of(
    model: nn.Module,
    objective: Callable[..., Any],
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    train: Batch,
    settings: dict[str, str],
) -> dict[str, str]:
    """The settings that must agree for a checkpoint to continue. Those that may change (max_epochs,
    patience, device) are not included."""
    shapes = ", ".join(f"{n} {list(v.shape)}" for n, v in model.state_dict().items())
    config = getattr(model, "config", {})
    config = config if isinstance(config, dict) else {}
    own = getattr(objective, "config", None)
    options = [
        {
            n: v
            for n, v in group.items()
            if n not in ("params", "lr", "initial_lr") and not isinstance(v, Tensor)
        }
        for group in optimizer.param_groups
    ]
    data = hashlib.sha256()
    for tensor in train:
        if tensor is not None:
            data.update(str(list(tensor.shape)).encode())
            data.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        "model": f"{type(model).__name__}({config}): {shapes}",
        "objective": f"{name_of(objective)} {own() if callable(own) else ''}".strip(),
        "optimizer": f"{type(optimizer).__name__} {options}",
        "scheduler": type(scheduler).__name__ if scheduler is not None else "none",
        **settings,
        "training panel": data.hexdigest()[:16],
    }


def save(path: str | os.PathLike, content: dict[str, Any], *, check: bool) -> None:
    """Write the state of a run; with `check`, first try that it can be read back without running
    code.

    Raises:
        TypeError: an optimizer's or scheduler's state holds other things than tensors and plain
            values.
    """
    content = {"format": CHECKPOINT_FORMAT, "format_version": CHECKPOINT_VERSION, **content}
    if check:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        buffer.seek(0)
        try:
            torch.load(buffer, weights_only=True)
        except Exception as error:
            raise TypeError(
                "Trainer.fit: checkpoint must hold tensors and plain values only, got others in "
                f"the state of the optimizer or scheduler ({error}). Use another one, or "
                "Trainer(checkpoint=None)."
            ) from error
    atomic_save(content, path)


def load(path: str | os.PathLike, fingerprint: dict[str, str]) -> dict[str, Any]:
    """Read the state of a run.

    Raises:
        ValueError: a damaged file, another kind of file, or the state of another run.
    """
    content = load_plain(path, "Trainer.fit", CHECKPOINT_FORMAT, CHECKPOINT_VERSION, "checkpoint")
    saved = content["fingerprint"]
    differing = [name for name in fingerprint if saved.get(name) != fingerprint[name]]
    if differing:
        name = differing[0]
        raise ValueError(
            f"Trainer.fit: checkpoint {os.fspath(path)} must be of the same run, got another "
            f"{', '.join(differing)} ({_shorten(saved.get(name))} there, "
            f"{_shorten(fingerprint[name])} here). Use the same settings, another checkpoint file, "
            f"or {either('resume=False', 'no --resume')} to start afresh."
        )
    return content


def name_of(function: Any) -> str:
    return getattr(function, "__qualname__", None) or type(function).__name__


def _shorten(value: Any, width: int = 120) -> str:
    text = str(value)
    return text if len(text) <= width else text[: width - 1] + "…"
