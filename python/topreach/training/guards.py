"""Checks of a fit: losses that are not finite, gradients that are zero, and the comparison with the
mean of past counts."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from topreach.data.messages import either
from topreach.data.panel import Panel
from topreach.objectives.base import ObjectiveValue
from topreach.programs import Program, as_program

_REMEDIES = {
    "nll": "The likelihood overflowed: counts far out of the model's reach, or a parameter ran "
    "away. Standardise the features, lower lr, or set clip_gradient",
    "penalty": "The prior's scale ran to zero or to infinity. Lower lr, or use the model's "
    "default penalty",
    "hinge": "The ranking scores overflowed. Lower lr or the objective's weight, or raise sigma",
    "bpr": "The ranking scores overflowed. Lower lr, or raise sigma",
    "gradient": "Lower lr, set clip_gradient, or raise sigma if the objective perturbs a ranking",
    "loss": "Lower lr or set clip_gradient, and look at the objective for a division by zero or "
    "the log of zero",
}


def _remedy(term: str) -> str:
    """Advice for the user; at the command line only lr has an option."""
    return either(
        _REMEDIES.get(term, _REMEDIES["loss"]),
        "Give a lower --lr, or features of a smaller scale, or --model empirical_bayes",
    )


# The order in which terms are blamed: a cause before its consequences.
_BLAME = ("penalty", "nll", "bpr", "hinge")
_ZERO_GRADIENT = 1e-12  # smaller norms count as zero: an Adam step from them is noise
_FLAT_LOSS = 1e-9  # a smaller relative change of the loss over a run counts as none
_FLAT_EPOCHS = 10  # epochs before a flat loss means something


class NonFiniteLossError(RuntimeError):
    """The loss or a gradient was NaN or infinite. The model is as it was before `fit`.

    Attributes: epoch and step (both from 1), term ("nll", "penalty", "hinge", "bpr", "loss" or
    "gradient"), parameters (names of those with a non-finite gradient).
    """

    def __init__(
        self, message: str, *, epoch: int, step: int, term: str, parameters: Sequence[str] = ()
    ):
        super().__init__(message)
        self.epoch, self.step, self.term, self.parameters = epoch, step, term, list(parameters)


class TrainingInterrupted(UserWarning):
    """Training was stopped by Ctrl-C; the message says what was kept and how to go on."""


class NothingLearnt(UserWarning):
    """The gradient was zero throughout, or the loss did not move; the message says how to mend
    it."""


class GradientWatch:
    """Checks the gradient of every step, and records whether any was above zero."""

    def __init__(self, clip: float | None):
        self.clip = clip
        self.largest_norm = 0.0
        self.steps = 0

    def check(self, model: nn.Module, epoch: int, step: int) -> None:
        """Raise for a gradient that is absent or not finite; scale a long one down to `clip`."""
        named = [(n, p, p.grad) for n, p in model.named_parameters() if p.grad is not None]
        if not named:
            raise RuntimeError(
                "Trainer.fit: the loss must depend on a parameter of the model, got no gradient at "
                "all. Look for a .detach(), a .item() or a torch.no_grad() between the parameters "
                "and the loss."
            )
        norm = torch.nn.utils.get_total_norm([grad for _, _, grad in named])
        if not torch.isfinite(norm):
            bad = [n for n, _, grad in named if not torch.isfinite(grad).all()]
            if bad or self.clip is not None:
                where = (
                    f"parameter(s) {', '.join(bad)}" if bad else "the gradient's norm (overflow)"
                )
                raise NonFiniteLossError(
                    f"Trainer.fit: the gradient must be finite, got NaN or infinity for {where} in "
                    f"epoch {epoch}, step {step + 1}, while the loss was finite. "
                    f"{_remedy('gradient')}.",
                    epoch=epoch,
                    step=step + 1,
                    term="gradient",
                    parameters=bad,
                )
        self.largest_norm = max(self.largest_norm, float(norm))
        self.steps += 1
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_([p for _, p, _ in named], self.clip, norm)

    def report(self, losses: Sequence[float], objective: Any) -> None:
        """Warn if nothing was learnt, with the likely reason."""
        if self.steps == 0:
            return
        sigma = getattr(objective, "sigma", None)
        mend = (
            f"sigma = {sigma:g} may be far below the spread of the scores: "
            + either(
                "raise it, or set sigma_unit='spread' in the objective",
                "train by --objective nll, or with another --lr",
            )
            if sigma is not None and getattr(objective, "sigma_unit", "score") == "score"
            else "Look for inputs in units of thousands, an lr that is too small, or a loss that "
            "does not depend on the parameters"
        )
        if self.largest_norm <= _ZERO_GRADIENT:
            warnings.warn(
                "Trainer.fit: nothing was learnt: the gradient was zero in all "
                f"{self.steps} steps. {mend}.",
                NothingLearnt,
                stacklevel=3,
            )
        elif len(losses) >= _FLAT_EPOCHS and math.isfinite(losses[0]):
            change = max(losses) - min(losses)
            if change <= _FLAT_LOSS * max(abs(losses[0]), 1e-300):
                warnings.warn(
                    f"Trainer.fit: nothing was learnt: the loss stayed at {losses[0]:g} over "
                    f"{len(losses)} epochs. {mend}.",
                    NothingLearnt,
                    stacklevel=3,
                )


def blame_term(value: ObjectiveValue, epoch: int, step: int) -> None:
    """Raise NonFiniteLossError naming the term of the objective that is not finite."""
    bad = [n for n, t in value.terms.items() if not math.isfinite(float(t))]
    # If only the BPR is NaN, there were no events.
    terms = [n for n in _BLAME if n in bad] + [n for n in bad if n not in _BLAME]
    term = terms[0] if terms else "loss"
    remedy = _remedy(term)
    number = float(value.terms[term]) if term in value.terms else value.loss.item()
    raise NonFiniteLossError(
        f"Trainer.fit: the loss must be finite, got {number} in its term {term!r} in epoch "
        f"{epoch}, step {step + 1}. {remedy}.",
        epoch=epoch,
        step=step + 1,
        term=term,
    )


def compare_with_past_means(
    scores: Tensor, y: Tensor, past_means: Tensor, program: Program | int, *, where: str
) -> str | None:
    """A sentence if ranking by the mean of past counts reaches more than ranking by `scores`.

    Args:
        scores, y, past_means: [T, S]: the model's ranking, the counts, and for each site the mean
            of the counts known before each period. Periods with a NaN in y or past_means at every
            site are left out; single NaN cells cannot be chosen.
        program: the plans that are allowed, or K.
        where: the name of the periods in the sentence, e.g. "the validation periods".

    Returns:
        None if the model does as well or better, or if nothing can be compared.

    Example:
        >>> y = torch.tensor([[5.0, 0.0, 1.0]])
        >>> compare_with_past_means(-y, y, y, 1, where="2022")
        'In 2022 the mean of past counts reaches 100 % of what was possible, this model 0 %: ...'
    """
    program = as_program(program, "compare_with_past_means")
    open_cells = ~(y.isnan() | past_means.isnan())
    rows = open_cells.any(-1)
    if not bool(rows.any()):
        return None
    closed = ~open_cells[rows]
    counts = y[rows].double().masked_fill(closed, 0.0)
    reached = []
    for values in (scores.detach()[rows], past_means[rows]):
        bpr = program.bpr(values.double().masked_fill(closed, -torch.inf), counts)
        known = bpr[torch.isfinite(bpr)]
        if known.numel() == 0:
            return None
        reached.append(known.mean().item())
    model, means = reached
    if not means > model:
        return None
    return (
        f"In {where} the mean of past counts reaches {100 * means:.0f} % of what was possible, "
        f"this model {100 * model:.0f} %: prefer the mean ("
        + either("TopKRanker(model='empirical_bayes')", "--model empirical_bayes")
        + " starts from it), or train longer, with another "
        + either("lr or sigma.", "--lr.")
    )


def beats_past_means(
    model: nn.Module,
    train: Panel,
    valid: Panel | None = None,
    *,
    program: Program | int,
    ranking: str = "auto",
) -> str | None:
    """Whether a fit ranks better than the mean of past counts; a sentence if it does not.

    They are compared on the validation periods or, without any, on the last training period. The
    model has learnt from that period, while the mean uses only the counts before it. So if the mean
    wins there, it is surely better.

    Args:
        model: as `Trainer.fit` left it.
        train, valid: the panels of the fit.
        program: the plans that are allowed, or K.
        ranking: of a probabilistic model, as in `DirectBPR`.

    Returns:
        A sentence to show, or None if the model does as well or better, or if there is nothing to
        compare: suppressed counts, no events, or no period before.
    """
    from topreach.training.validation import rank_scores

    last = valid if valid is not None else train
    if last.y_upper is not None:
        return None
    window = getattr(model, "window", None) or None
    absent = "nan" if last.absent_lags == "error" else None
    batch = last.batch(window=window, absent_lags=absent)
    y = last.y
    past = [] if train.history_y is None else [train.history_y]
    past.append(train.y if valid is not None else train.y[:-1])
    if valid is None:
        batch = batch.map(lambda t: t[-1:])
        y = y[-1:]
    known = torch.cat(past) if past else y[:0]
    means = []
    for period in y:
        means.append(known.nanmean(0) if len(known) else torch.full_like(period, torch.nan))
        known = torch.cat([known, period[None]])
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            device = next((p.device for p in model.parameters()), torch.device("cpu"))
            batch = batch.map(lambda t: t.to(device))
            scores = rank_scores(model, batch, ranking=ranking).cpu()
    finally:
        model.train(was_training)
    scores = scores.expand(y.shape)
    # A period whose past counts the model does not know is left out.
    y = y.masked_fill(scores.isnan().any(-1, keepdim=True), torch.nan)
    where = (
        "the validation periods"
        if valid is not None
        else f"the last training period, {train.times[-1]},"
    )
    return compare_with_past_means(
        scores.nan_to_num(0.0), y, torch.stack(means), program, where=where
    )


def as_value(value: Any) -> ObjectiveValue:
    """The result of an objective; a loss alone becomes an `ObjectiveValue` without terms."""
    if isinstance(value, Tensor):
        value = ObjectiveValue(value, {})
    if not isinstance(value, ObjectiveValue) or value.loss.ndim != 0:
        is_value = isinstance(value, ObjectiveValue)
        got = f"shape {list(value.loss.shape)}" if is_value else type(value).__name__
        raise TypeError(
            f"Trainer.fit: objective must return a scalar tensor or an ObjectiveValue, got {got}."
        )
    return value


def say_interrupted(
    epoch: int, last: int, best: int, monitor: str | None, checkpoint: str | os.PathLike | None
) -> None:
    """Ctrl-C ended a fit after `epoch` of `last` epochs: which model there is, and how to go on."""
    kept = f"epoch {best}" + (f" (best valid {monitor})" if monitor is not None else "")
    how = (
        "To go on: "
        + either("the same Trainer, with fit(..., resume=True)", "the same command with --resume")
        + f"; it reads {os.fspath(checkpoint)}."
        if checkpoint is not None
        else "Give "
        + either("Trainer(checkpoint=...)", "--checkpoint FILE")
        + " to be able to go on another time."
    )
    warnings.warn(
        f"Trainer.fit: interrupted in epoch {epoch + 1} of {last}; the model is that of {kept}. "
        f"{how}",
        TrainingInterrupted,
        stacklevel=4,
    )
