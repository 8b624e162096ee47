"""Fits a model by an objective: epochs, validation, the best model kept, checkpoints that continue
bit for bit.

All randomness of a step is a pure function of (seed, step), and the order of minibatches of (seed,
epoch), so a run that was stopped and resumed goes through the same numbers as one that was not.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from topreach.data.files import atomic_save, load_plain
from topreach.data.panel import Batch, Panel
from topreach.distributions.counts import (
    expected_ratio_ranking,
    has_interval_log_prob,
    interval_log_prob,
)
from topreach.evaluation import metrics
from topreach.objectives.base import (
    BATCH_ARGUMENTS,
    ObjectiveValue,
    TimeWeights,
    accepted_arguments,
    derived_key,
    forward,
    is_probabilistic,
    resolved_ranking,
)
from topreach.ops import draw_key, ratio_ranking
from topreach.training.progress import Report, delayed_interrupt

CHECKPOINT_FORMAT = "topreach-checkpoint"
CHECKPOINT_VERSION = 1

# Whether more is better, for each metric that can be monitored.
_MONITORS = {"bpr": True, "nll": False, "loss": False, "mae": False, "rmse": False}
_OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "lbfgs": torch.optim.LBFGS,
}
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
# The order in which terms are blamed: a cause before what follows from it.
_BLAME = ("penalty", "nll", "bpr", "hinge")


class NonFiniteLossError(RuntimeError):
    """The loss or a gradient was NaN or infinite. The model holds the parameters from before that
    step.

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


class _Progress(NamedTuple):
    """Where a run stands; all of it goes into the checkpoint."""

    epoch: int  # epochs finished
    position: int  # minibatches finished in the epoch that is under way
    step: int
    best_epoch: int
    best_score: list[float]
    bad_validations: int
    seconds: float


class Trainer:
    """Minimises an objective over a panel, by default with Adam.

    Args:
        objective: called as `objective(model, batch)`; `generator=` and `key=` are passed if it
            takes them. Returns an `ObjectiveValue` or a scalar tensor.
        optimizer: a name ("adam", "adamw", "sgd", "rmsprop", "adagrad", "lbfgs"), a torch optimizer
            class (called with `lr`), or a callable from the parameters to an optimizer.
        lr: learning rate; of no effect if `optimizer` is a callable.
        max_epochs: passes over the training panel.
        validate_every: epochs between validations; the last epoch is always validated.
        patience: stop after this many validations without a better one; None never stops early.
        monitor: the validation metric that decides which epoch is best: "bpr" (most), "nll", "mae",
            "rmse" or "loss" (least). None: "bpr" if K is known and the objective is not a plain
            likelihood, else "nll", else "loss".
        bpr_floor: with monitor "nll": epochs whose validation BPR is at least this are compared by
            nll and beat all others, which are compared by BPR (2025 paper, App. C.2.2: the choice
            among decision-aware models).
        k: K for the metric bpr; None takes the objective's `k`.
        ranking: how a probabilistic model ranks in validation, "auto", "exact", "ratio" or "mean",
            as in `DirectBPR`; None takes the objective's, else "auto".
        validation_samples: draws of the model for ranking "ratio". The same noise at every
            validation.
        batch_size: periods in a minibatch, shuffled in every epoch; None takes all at once. A
            minibatch of B of the T periods has its weights multiplied by T/B, so that its sum
            estimates the whole panel's, against which a penalty counts once.
        time_weights: weight of each period: a function from the batch's time [T] to weights [T], or
            T numbers. They multiply `batch.weights`.
        clip_gradient: largest norm of the gradient; a longer one is scaled down to it.
        scheduler: a callable from the optimizer to a torch learning-rate scheduler, stepped once
            per epoch (ReduceLROnPlateau: once per validation, with the monitored metric).
        seed: of all randomness in training. The global random state is left as it was.
        checkpoint: file for the state of the run, written at every validation and at Ctrl-C.
        progress: True shows a bar on a terminal or in a notebook, and elsewhere (a log file) prints
            a line about every tenth of the run; False is silent.
        device: where to train; None leaves the model where it is. The panel follows.

    Fitted attributes:
        history_: DataFrame, a row per epoch: epoch, loss, a column per term of the objective, lr,
            seconds (since the start), and at validations train_* and valid_* metrics (elsewhere
            NaN).
        best_epoch_, best_score_: the epoch that was kept and its monitored metric (None without
            validation).
        epochs_: epochs run; stopped_early_, interrupted_: whether patience or Ctrl-C ended it.
        optimizer_: as it stands after the last step.

    The model is trained in place. After `fit` it holds the best parameters on the validation panel,
    or those of the last epoch if there was none.

    Example:
        >>> trainer = Trainer(NLL(), lr=0.05, max_epochs=200, k=100).fit(model, train, valid)
        >>> trainer.history_.plot(x="epoch", y="loss")
    """

    def __init__(
        self,
        objective: Callable[..., Any],
        *,
        optimizer: str | Callable[..., torch.optim.Optimizer] = "adam",
        lr: float = 0.01,
        max_epochs: int = 300,
        validate_every: int = 10,
        patience: int | None = None,
        monitor: str | None = None,
        bpr_floor: float | None = None,
        k: int | None = None,
        ranking: str | None = None,
        validation_samples: int = 1000,
        batch_size: int | None = None,
        time_weights: TimeWeights = None,
        clip_gradient: float | None = None,
        scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
        seed: int = 0,
        checkpoint: str | os.PathLike | None = None,
        progress: bool = True,
        device: str | torch.device | None = None,
    ):
        if not callable(objective):
            raise TypeError(f"Trainer: objective must be callable, got {type(objective).__name__}.")
        for argument, value, optional in (
            ("max_epochs", max_epochs, False),
            ("validate_every", validate_every, False),
            ("validation_samples", validation_samples, False),
            ("patience", patience, True),
            ("batch_size", batch_size, True),
            ("k", k, True),
        ):
            if (value is not None or not optional) and (
                isinstance(value, bool) or not isinstance(value, int) or value < 1
            ):
                raise ValueError(f"Trainer: {argument} must be a whole number >= 1, got {value!r}.")
        if not (isinstance(lr, int | float) and 0 < lr < math.inf):
            raise ValueError(f"Trainer: lr must be a finite number > 0, got {lr!r}.")
        if clip_gradient is not None and not 0 < clip_gradient < math.inf:
            raise ValueError(
                "Trainer: clip_gradient must be a finite number > 0 or None, got "
                f"{clip_gradient!r}."
            )
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"Trainer: seed must be a whole number, got {seed!r}.")
        if monitor is not None and monitor not in _MONITORS:
            raise ValueError(
                f"Trainer: monitor must be one of {', '.join(map(repr, _MONITORS))}, got "
                f"{monitor!r}."
            )
        if bpr_floor is not None and monitor != "nll":
            raise ValueError(
                f"Trainer: bpr_floor must go with monitor='nll', got monitor={monitor!r}."
            )
        if ranking not in (None, "auto", "exact", "ratio", "mean"):
            raise ValueError(
                f"Trainer: ranking must be 'auto', 'exact', 'ratio' or 'mean', got {ranking!r}."
            )
        if isinstance(optimizer, str) and optimizer.lower() not in _OPTIMIZERS:
            raise ValueError(
                f"Trainer: optimizer must be one of {', '.join(_OPTIMIZERS)}, got {optimizer!r}."
            )
        self.objective, self.optimizer, self.lr = objective, optimizer, lr
        self.max_epochs, self.validate_every, self.patience = max_epochs, validate_every, patience
        self.monitor, self.bpr_floor, self.k, self.ranking = monitor, bpr_floor, k, ranking
        self.validation_samples, self.batch_size, self.time_weights = (
            validation_samples,
            batch_size,
            time_weights,
        )
        self.clip_gradient, self.scheduler, self.seed = clip_gradient, scheduler, seed
        self.checkpoint, self.progress, self.device = checkpoint, progress, device

    # ---- fitting ---------------------------------------------------------------------------------

    def fit(
        self,
        model: nn.Module,
        train: Panel | Batch,
        valid: Panel | Batch | None = None,
        *,
        resume: bool = False,
    ) -> Trainer:
        """Train the model in place.

        Args:
            model: any module; `forward` names what it takes of x [T,S,P], time [T], history
                [T,S,W], exposure [T,S]. One that takes history says how much in an attribute `window`.
            train: what to learn from: a panel, or a batch made of one.
            valid: what to choose the best epoch by. None keeps the last epoch.
            resume: go on from `checkpoint` if that file exists. False starts afresh and writes over
                it.

        Raises:
            NonFiniteLossError: the loss or a gradient became NaN or infinite.
            ValueError: the checkpoint belongs to another model, objective, optimizer or panel; one of
                train and valid alone has an exposure.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"Trainer.fit: model must be a torch.nn.Module, got {type(model).__name__}."
            )
        if resume and self.checkpoint is None:
            raise ValueError(
                "Trainer.fit: resume must go with Trainer(checkpoint=...), got checkpoint=None."
            )
        if self.device is not None:
            model.to(self.device)
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        train = self._batch(model, train, device, "train")
        valid = None if valid is None else self._batch(model, valid, device, "valid")
        if valid is not None and (valid.exposure is None) != (train.exposure is None):
            raise ValueError(
                "Trainer.fit: valid must have an exposure if train has one, and only then, got "
                f"{'none' if valid.exposure is None else 'one'}. Name its column for both."
            )
        train = train._replace(weights=self._weights(train))
        monitor = self._monitor(model) if valid is not None else None
        if self.bpr_floor is not None and self._k() is None:
            raise ValueError(
                "Trainer.fit: bpr_floor must go with a known K, got none. Give Trainer(k=...)."
            )

        optimizer = self._make_optimizer(model)
        scheduler = None if self.scheduler is None else self.scheduler(optimizer)
        fingerprint = self._fingerprint(model, optimizer, scheduler, train, monitor)
        at = _Progress(0, 0, 0, 0, [], 0, 0.0)
        rows: list[dict[str, float]] = []
        sums: dict[str, float] = {}
        best_state: dict[str, Tensor] | None = None
        if resume and os.path.exists(self.checkpoint):
            saved = self._load(fingerprint)
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            if scheduler is not None:
                scheduler.load_state_dict(saved["scheduler"])
            at = _Progress(**saved["progress"])
            rows, sums, best_state = saved["history"], saved["sums"], saved["best"]

        self.interrupted_, self.stopped_early_ = False, False
        started = time.perf_counter() - at.seconds
        searching = isinstance(
            optimizer, torch.optim.LBFGS
        )  # moves the parameters while it asks for gradients
        in_update = False
        devices = [device] if device.type == "cuda" else []

        def save() -> None:
            if self.checkpoint is not None:
                self._save(fingerprint, model, optimizer, scheduler, at, rows, sums, best_state)

        def done() -> bool:
            return at.epoch >= self.max_epochs or (
                self.patience is not None
                and at.bad_validations >= self.patience
                and valid is not None
            )

        report = Report(self.progress, self.max_epochs, at.epoch)
        try:
            with (
                torch.random.fork_rng(devices=devices),
                delayed_interrupt() as interrupted,
                report,
            ):
                while not done():
                    epoch = at.epoch + 1
                    batches = self._minibatches(train, epoch)
                    model.train()
                    for batch in batches[at.position :]:
                        if interrupted():
                            raise KeyboardInterrupt
                        in_update = searching
                        value = self._gradient(model, optimizer, batch, epoch, at.step)
                        if not searching:
                            in_update = True
                            optimizer.step()
                        in_update = False
                        for name, term in value.items():
                            sums[name] = sums.get(name, 0.0) + term / len(batches)
                        at = at._replace(position=at.position + 1, step=at.step + 1)
                    # Nothing of the epoch's end counts until all of it is there: Ctrl-C may fall in
                    # the midst of it.
                    row = {"epoch": epoch, **sums, "lr": optimizer.param_groups[0]["lr"]}
                    after = at._replace(epoch=epoch, position=0)
                    validated = epoch % self.validate_every == 0 or epoch == self.max_epochs
                    if validated:
                        row |= {f"train_{n}": v for n, v in self._evaluate(model, train).items()}
                    if validated and valid is not None:
                        found = self._evaluate(model, valid)
                        row |= {f"valid_{n}": v for n, v in found.items()}
                        score = self._score(found, monitor)
                        if best_state is None or score > after.best_score:
                            best_state = {
                                n: v.detach().clone() for n, v in model.state_dict().items()
                            }
                            after = after._replace(
                                best_epoch=epoch, best_score=score, bad_validations=0
                            )
                        else:
                            after = after._replace(bad_validations=after.bad_validations + 1)
                    self._step_scheduler(scheduler, row, monitor, validated and valid is not None)
                    at, sums = after._replace(seconds=time.perf_counter() - started), {}
                    rows.append(row | {"seconds": at.seconds})
                    if validated or done():
                        save()
                    report.epoch(row)
                self.stopped_early_ = at.epoch < self.max_epochs
        except KeyboardInterrupt:
            self.interrupted_ = True
            at = at._replace(seconds=time.perf_counter() - started)
            if (
                not in_update
            ):  # else the parameters are half updated: the file of the last validation stands
                save()

        if best_state is not None:
            model.load_state_dict(best_state)
        self.history_ = self._frame(rows)
        self.epochs_ = at.epoch
        self.best_epoch_ = at.best_epoch if best_state is not None else at.epoch
        self.best_score_ = None
        if best_state is not None:
            kept = self.history_.loc[self.history_["epoch"] == at.best_epoch, f"valid_{monitor}"]
            self.best_score_ = float(kept.iloc[0])
        self.monitor_, self.optimizer_ = monitor, optimizer
        if self.interrupted_:
            kept = f"epoch {self.best_epoch_}" + (
                f" (best valid {monitor})" if best_state is not None else ""
            )
            how = (
                "To go on: the same Trainer, with fit(..., resume=True); it reads "
                f"{os.fspath(self.checkpoint)}."
                if self.checkpoint is not None
                else "Give Trainer(checkpoint=...) to be able to go on another time."
            )
            warnings.warn(
                f"Trainer.fit: interrupted in epoch {at.epoch + 1} of {self.max_epochs}; the model "
                f"is that of {kept}. "
                f"{how}",
                TrainingInterrupted,
                stacklevel=2,
            )
        elif valid is None and self.progress:
            report.say(f"No validation panel: the model is that of the last epoch, {at.epoch}.")
        return self

    def evaluate(self, model: nn.Module, data: Panel | Batch) -> dict[str, float]:
        """The metrics that validation uses: loss, and as far as they apply nll (per site and
        period), bpr, mae, rmse.

        bpr is that of the model's own ranking, the mean over periods with events. With suppressed
        counts there are loss and nll only: the others need exact ones.
        """
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            return self._evaluate(model, self._batch(model, data, device, "data"))

    # ---- a step ----------------------------------------------------------------------------------

    def _gradient(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: Batch,
        epoch: int,
        step: int,
    ) -> dict[str, float]:
        """Loss and gradient of one minibatch, checked to be finite; for L-BFGS the update too."""

        def closure() -> Tensor:
            nonlocal first
            optimizer.zero_grad(set_to_none=True)
            value = self._call(model, batch, "step", step)
            if first is None:
                first = {"loss": value.loss.item(), **{n: float(t) for n, t in value.terms.items()}}
            if not math.isfinite(value.loss.item()):
                self._blame_term(value, epoch, step)
            value.loss.backward()
            self._check_and_clip(model, epoch, step)
            return value.loss

        first: dict[str, float] | None = None
        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)
        else:
            closure()
        return first

    def _call(self, model: nn.Module, batch: Batch, purpose: str, number: int) -> ObjectiveValue:
        _seed_all(batch.y.device, _hash(self.seed, purpose, number))
        key = draw_key(device=batch.y.device)
        extra = accepted_arguments(_signature_of(self.objective), ("key",))
        value = self.objective(model, batch, **({"key": key} if extra else {}))
        if isinstance(value, Tensor):
            value = ObjectiveValue(value, {})
        if not isinstance(value, ObjectiveValue) or value.loss.ndim != 0:
            is_value = isinstance(value, ObjectiveValue)
            got = f"shape {list(value.loss.shape)}" if is_value else type(value).__name__
            raise TypeError(
                "Trainer.fit: objective must return a scalar tensor or an ObjectiveValue, got "
                f"{got}."
            )
        return value

    def _check_and_clip(self, model: nn.Module, epoch: int, step: int) -> None:
        named = [(n, p) for n, p in model.named_parameters() if p.grad is not None]
        if not named:
            raise RuntimeError(
                "Trainer.fit: the loss must depend on a parameter of the model, got no gradient at "
                "all. Look for a "
                ".detach(), a .item() or a torch.no_grad() between the parameters and the loss."
            )
        gradients = [p.grad for _, p in named]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            bad = [n for n, p in named if not torch.isfinite(p.grad).all()]
            if bad or self.clip_gradient is not None:
                where = (
                    f"parameter(s) {', '.join(bad)}" if bad else "the gradient's norm (overflow)"
                )
                raise NonFiniteLossError(
                    f"Trainer.fit: the gradient must be finite, got NaN or infinity for {where} in "
                    f"epoch {epoch}, step "
                    f"{step + 1}, while the loss was finite. {_REMEDIES['gradient']}.",
                    epoch=epoch,
                    step=step + 1,
                    term="gradient",
                    parameters=bad,
                )
        if self.clip_gradient is not None:
            torch.nn.utils.clip_grads_with_norm_([p for _, p in named], self.clip_gradient, norm)

    def _blame_term(self, value: ObjectiveValue, epoch: int, step: int) -> None:
        bad = [n for n, t in value.terms.items() if not math.isfinite(float(t))]
        # A BPR of NaN alone says that there were no events.
        terms = [n for n in _BLAME if n in bad] + [n for n in bad if n not in _BLAME]
        term = terms[0] if terms else "loss"
        remedy = _REMEDIES.get(term, _REMEDIES["loss"])
        number = float(value.terms[term]) if term in value.terms else value.loss.item()
        raise NonFiniteLossError(
            f"Trainer.fit: the loss must be finite, got {number} in its term {term!r} in epoch "
            f"{epoch}, step "
            f"{step + 1}. {remedy}.",
            epoch=epoch,
            step=step + 1,
            term=term,
        )

    def _step_scheduler(
        self, scheduler: Any, row: dict[str, float], monitor: str | None, validated: bool
    ) -> None:
        if scheduler is None:
            return
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            if validated:
                scheduler.step(row[f"valid_{monitor}"])
        else:
            scheduler.step()

    # ---- data ------------------------------------------------------------------------------------

    def _batch(
        self, model: nn.Module, data: Panel | Batch, device: torch.device, name: str
    ) -> Batch:
        if isinstance(data, Panel):
            data = data.batch(window=getattr(model, "window", None) or None)
        if not isinstance(data, Batch):
            raise TypeError(
                f"Trainer.fit: {name} must be a Panel or a Batch, got {type(data).__name__}."
            )
        if not torch.isfinite(data.y).all():
            raise ValueError(
                f"Trainer.fit: {name} must have a count for every site and period, got NaN."
            )
        if not torch.isfinite(data.x).all():
            raise ValueError(f"Trainer.fit: {name} must have finite features, got NaN or infinity.")
        return Batch(*(None if t is None else t.to(device) for t in data))

    def _weights(self, train: Batch) -> Tensor | None:
        weights = train.weights
        if self.time_weights is not None:
            own = (
                self.time_weights(train.time) if callable(self.time_weights) else self.time_weights
            )
            own = torch.as_tensor(own, dtype=train.y.dtype, device=train.y.device)
            if own.shape != train.time.shape:
                raise ValueError(
                    f"Trainer.fit: time_weights must have shape [{len(train.time)}], one per "
                    "period of the training "
                    f"panel, got {list(own.shape)}."
                )
            weights = own if weights is None else own * weights
        if weights is not None and not (
            torch.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0
        ):
            raise ValueError(
                "Trainer.fit: time_weights must be finite, >= 0 and not all 0, got "
                f"{weights.tolist()}."
            )
        return weights

    def _minibatches(self, train: Batch, epoch: int) -> list[Batch]:
        periods = len(train.time)
        if self.batch_size is None or self.batch_size >= periods:
            return [train]
        generator = torch.Generator().manual_seed(_hash(self.seed, "epoch", epoch))
        order = torch.randperm(periods, generator=generator)
        weights = train.weights if train.weights is not None else torch.ones_like(train.time)
        batches = []
        for rows in order.split(self.batch_size):
            rows = rows.sort().values.to(train.y.device)
            part = Batch(*(None if t is None else t[rows] for t in train))
            batches.append(part._replace(weights=weights[rows] * (periods / len(rows))))
        return batches

    # ---- validation ------------------------------------------------------------------------------

    def _k(self) -> int | None:
        return self.k if self.k is not None else getattr(self.objective, "k", None)

    def _monitor(self, model: nn.Module) -> str:
        if self.monitor in ("nll", "mae", "rmse") and not is_probabilistic(model):
            raise ValueError(
                "Trainer.fit: monitor must be 'bpr' or 'loss' for a model without a likelihood, "
                f"got {self.monitor!r}."
            )
        if self.monitor == "bpr" and self._k() is None:
            raise ValueError(
                "Trainer.fit: monitor='bpr' must go with a known K, got none. Give Trainer(k=...)."
            )
        if self.monitor is not None:
            return self.monitor
        if self._k() is not None and type(self.objective).__name__ != "NLL":
            return "bpr"
        return "nll" if is_probabilistic(model) else "loss"

    @torch.no_grad()
    def _evaluate(self, model: nn.Module, batch: Batch) -> dict[str, float]:
        was_training = model.training
        model.eval()
        try:
            found = {"loss": self._call(model, batch, "validation", 0).loss.item()}
            output = forward_or_none(model, batch)
            if batch.y_upper is not None:  # no choice and no forecast can be judged
                if is_probabilistic(model) and has_interval_log_prob(output):
                    log_prob = interval_log_prob(output, batch.y, batch.y_upper)
                    found["nll"] = -log_prob.mean().item()
                return found
            scores = output
            if is_probabilistic(model):
                mean = output.mean
                found["nll"] = -output.log_prob(batch.y).mean().item()
                found["mae"] = (mean - batch.y).abs().mean().item()
                found["rmse"] = (mean - batch.y).square().mean().sqrt().item()
                scores = self._rank(output, batch) if self._k() is not None else None
            if (
                self._k() is not None
                and isinstance(scores, Tensor)
                and scores.shape == batch.y.shape
            ):
                if not torch.isfinite(scores).all():
                    found["bpr"] = math.nan
                else:
                    found["bpr"] = float(metrics.bpr(scores, batch.y, self._k(), nan_policy="omit"))
            return found
        finally:
            model.train(was_training)

    def _rank(self, distribution: Any, batch: Batch) -> Tensor:
        ranking = self.ranking or getattr(self.objective, "ranking", "auto")
        ranking = resolved_ranking("Trainer", ranking, distribution)
        if ranking == "mean":
            return distribution.mean
        offset = getattr(self.objective, "offset", 0.0)
        if ranking == "exact":
            return expected_ratio_ranking(distribution, offset=offset)
        _seed_all(batch.y.device, _hash(self.seed, "ranking", 0))
        key = draw_key(device=batch.y.device)
        # Draws in blocks, so that memory stays at a few tens of MB.
        block = max(1, min(self.validation_samples, 8_000_000 // batch.y.numel()))
        total, left, number = torch.zeros_like(batch.y), self.validation_samples, 0
        while left > 0:
            size = min(block, left)
            samples = distribution.sample(size, key=derived_key(key, number))
            total += ratio_ranking(samples, offset=offset) * size
            left, number = left - size, number + 1
        return total / self.validation_samples

    def _score(self, found: dict[str, float], monitor: str) -> list[float]:
        """Comparable: more is better, and NaN is worst."""
        if monitor not in found:
            raise ValueError(
                f"Trainer.fit: monitor must be a metric of this model and panel, got {monitor!r}; "
                f"there are {', '.join(map(repr, found))}."
            )
        value = found[monitor] if _MONITORS[monitor] else -found[monitor]
        value = -math.inf if math.isnan(value) else value
        if self.bpr_floor is None:
            return [value]
        bpr = found["bpr"] if not math.isnan(found["bpr"]) else -math.inf
        return [1.0, value] if bpr >= self.bpr_floor else [0.0, bpr]

    # ---- optimizer, checkpoint -------------------------------------------------------------------

    def _make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        parameters = [p for p in model.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError(
                "Trainer.fit: model must have a parameter that requires a gradient, got none."
            )
        make = (
            _OPTIMIZERS[self.optimizer.lower()]
            if isinstance(self.optimizer, str)
            else self.optimizer
        )
        if isinstance(make, type) and issubclass(make, torch.optim.Optimizer):
            return make(parameters, lr=self.lr)
        optimizer = make(parameters)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(
                "Trainer.fit: optimizer must give a torch.optim.Optimizer, got "
                f"{type(optimizer).__name__}."
            )
        return optimizer

    def _fingerprint(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        train: Batch,
        monitor: str | None,
    ) -> dict[str, str]:
        """What must agree for a checkpoint to continue; what may change (max_epochs, patience,
        device) is not in it."""
        shapes = ", ".join(f"{n} {list(v.shape)}" for n, v in model.state_dict().items())
        config = getattr(model, "config", {})
        config = config if isinstance(config, dict) else {}
        settings = getattr(self.objective, "config", None)
        objective = f"{_name(self.objective)} {settings() if callable(settings) else ''}".strip()
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
            "objective": objective,
            "optimizer": f"{type(optimizer).__name__} {options}",
            "learning rate": repr(
                self.lr if isinstance(self.optimizer, str | type) else "set by the callable"
            ),
            "scheduler": type(scheduler).__name__ if scheduler is not None else "none",
            "seed": str(self.seed),
            "batch_size": str(self.batch_size),
            "clip_gradient": str(self.clip_gradient),
            "validation": f"every {self.validate_every}, {monitor}, floor {self.bpr_floor}, "
            f"K {self._k()}, {self.ranking}, {self.validation_samples} samples",
            "training panel": data.hexdigest()[:16],
        }

    def _save(self, fingerprint, model, optimizer, scheduler, at, rows, sums, best_state) -> None:
        content = {
            "format": CHECKPOINT_FORMAT,
            "format_version": CHECKPOINT_VERSION,
            "fingerprint": fingerprint,
            "model": dict(model.state_dict()),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict() if scheduler is not None else None,
            "progress": at._asdict(),
            "history": rows,
            "sums": sums,
            "best": best_state,
        }
        if not getattr(self, "_checkpoint_is_plain", False):
            # Once: state that cannot be read back without running code is an error now, not when it
            # is needed.
            buffer = io.BytesIO()
            torch.save(content, buffer)
            buffer.seek(0)
            try:
                torch.load(buffer, weights_only=True)
            except Exception as error:
                raise TypeError(
                    "Trainer.fit: checkpoint must hold tensors and plain values only, got others "
                    "in the state of the "
                    f"optimizer or scheduler ({error}). Use another one, or "
                    "Trainer(checkpoint=None)."
                ) from error
            self._checkpoint_is_plain = True
        atomic_save(content, self.checkpoint)

    def _load(self, fingerprint: dict[str, str]) -> dict[str, Any]:
        content = load_plain(
            self.checkpoint, "Trainer.fit", CHECKPOINT_FORMAT, CHECKPOINT_VERSION, "checkpoint"
        )
        saved = content["fingerprint"]
        differing = [name for name in fingerprint if saved.get(name) != fingerprint[name]]
        if differing:
            name = differing[0]
            raise ValueError(
                f"Trainer.fit: checkpoint {os.fspath(self.checkpoint)} must be of the same run, "
                "got another "
                f"{', '.join(differing)} ({_shorten(saved.get(name))} there, "
                f"{_shorten(fingerprint[name])} here). "
                "Use the same settings, another checkpoint file, or resume=False to start afresh."
            )
        return content

    def _frame(self, rows: list[dict[str, float]]) -> pd.DataFrame:
        frame = pd.DataFrame(rows)
        if not rows:
            return pd.DataFrame(columns=["epoch", "loss", "lr", "seconds"])
        last = ["lr", "seconds"]
        return frame[[c for c in frame.columns if c not in last] + last].astype({"epoch": int})


def forward_or_none(model: nn.Module, batch: Batch) -> Any:
    """The model's output; None for a model of one's own whose forward takes other arguments."""
    if accepted_arguments(type(model).forward, BATCH_ARGUMENTS):
        return forward(model, batch)
    return None


def _hash(seed: int, purpose: str, number: int) -> int:
    digest = hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _seed_all(device: torch.device, seed: int) -> None:
    """Seed the generators that `fork_rng` put aside, and no others."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _signature_of(objective: Callable[..., Any]) -> Callable[..., Any]:
    """Something with a signature that is the same object for every call."""
    is_plain = hasattr(objective, "__code__") or hasattr(objective, "__func__")
    return objective if is_plain else type(objective).__call__


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or type(function).__name__


def _shorten(value: Any, width: int = 120) -> str:
    text = str(value)
    return text if len(text) <= width else text[: width - 1] + "…"
