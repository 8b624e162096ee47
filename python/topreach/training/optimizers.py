"""The optimizer of a fit: by name, by class, or made by a user's function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "lbfgs": torch.optim.LBFGS,
}


def make_optimizer(
    model: nn.Module, optimizer: str | Callable[..., torch.optim.Optimizer], lr: float
) -> torch.optim.Optimizer:
    """An optimizer of all parameters that require a gradient.

    Args:
        optimizer: a name of `OPTIMIZERS`; a class, called with the parameters and lr; or another
            callable, called with the parameters alone.

    Raises:
        ValueError: the model has no parameter that requires a gradient.
        TypeError: the callable does not return an optimizer.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(
            "Trainer.fit: model must have a parameter that requires a gradient, got none."
        )
    make = OPTIMIZERS[optimizer.lower()] if isinstance(optimizer, str) else optimizer
    takes_lr = isinstance(make, type) and issubclass(make, torch.optim.Optimizer)
    made = make(parameters, lr=lr) if takes_lr else make(parameters)
    if not isinstance(made, torch.optim.Optimizer):
        raise TypeError(
            f"Trainer.fit: optimizer must give a torch.optim.Optimizer, got {type(made).__name__}."
        )
    return made
