"""Fits a model by an objective: epochs, validation, the best model kept, checkpoints that continue
bit for bit.

All randomness of a step is a pure function of (seed, step), and the order of minibatches is one of
(seed, epoch). So a run that was stopped and resumed gives the same numbers as one that was not.
"""

from __future__ import annotations

import math
import numbers
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from topreach.data.columns import is_whole
from topreach.data.panel import Batch, Panel
from topreach.objectives.base import ObjectiveValue, TimeWeights, accepted_arguments
from topreach.ops import draw_key
from topreach.programs import Program, as_program
from topreach.training import checkpoint as checkpoints
from topreach.training.batches import batch_of, hash_of, minibatches, seed_all, weights_of
from topreach.training.guards import (
    GradientWatch,
    NonFiniteLossError,
    TrainingInterrupted,
    as_value,
    blame_term,
    say_interrupted,
)
from topreach.training.optimizers import OPTIMIZERS, make_optimizer
from topreach.training.progress import Report, delayed_interrupt, history_frame
from topreach.training.validation import MONITORS, comparable, metrics_of, monitor_of

__all__ = ["NonFiniteLossError", "Trainer", "TrainingInterrupted"]


class _Progress(NamedTuple):
    """The position of a run, which goes into the checkpoint."""

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
        lr: learning rate; it has no effect if `optimizer` is a callable.
        max_epochs: passes over the training panel.
        validate_every: epochs between validations; the last epoch is always validated.
        patience: stop after this many validations without a better one; None never stops early.
        monitor: the validation metric that decides which epoch is best: "bpr" (most), "nll", "mae",
            "rmse" or "loss" (least). None: "bpr" if K is known and the objective is not a plain
            likelihood, else "nll", else "loss".
        bpr_floor: with monitor "nll": epochs whose validation BPR is at least this are compared by
            nll and beat all others, which are compared by BPR (2025 paper, App. C.2.2: the choice
            among decision-aware models).
        k: a `Program`, or K for `TopK(K)`, for the metric bpr; None takes the objective's.
        ranking: how a probabilistic model ranks in validation, "auto", "exact", "ratio" or "mean",
            as in `DirectBPR`; None takes the objective's, else "auto".
        validation_samples: draws of the model for ranking "ratio". The same noise at every
            validation.
        batch_size: periods in a minibatch, shuffled in every epoch; None takes all at once. A
            minibatch of B of the T periods has its weights multiplied by T/B, so that its sum
            estimates the whole panel's, to which a penalty is added once.
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
        optimizer_: its state after the last step.

    The model is trained in place. After `fit` it holds the best parameters on the validation panel,
    or those of the last epoch if there was none. A fit that raises leaves the model, and the fitted
    attributes, as they were.

    A warning `NothingLearnt` says that the gradient was zero throughout, or that the loss did not
    move.

    Example:
        >>> trainer = Trainer(NLL(), lr=0.05, max_epochs=200, k=100).fit(model, train, valid)
        >>> trainer.history_.plot(x="epoch", y="loss")
    """

    history_: pd.DataFrame
    best_epoch_: int
    best_score_: float | None
    epochs_: int
    stopped_early_: bool
    interrupted_: bool
    monitor_: str | None
    optimizer_: torch.optim.Optimizer

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
        k: int | Program | None = None,
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
        whole_numbers: tuple[tuple[str, Any, bool], ...] = (
            ("max_epochs", max_epochs, False),
            ("validate_every", validate_every, False),
            ("validation_samples", validation_samples, False),
            ("patience", patience, True),
            ("batch_size", batch_size, True),
        )
        for argument, value, optional in whole_numbers:
            if (value is not None or not optional) and not (is_whole(value) and value >= 1):
                raise ValueError(f"Trainer: {argument} must be a whole number >= 1, got {value!r}.")
        if not (_is_real(lr) and 0 < lr < math.inf):
            raise ValueError(f"Trainer: lr must be a finite number > 0, got {lr!r}.")
        if clip_gradient is not None and not 0 < clip_gradient < math.inf:
            raise ValueError(
                "Trainer: clip_gradient must be a finite number > 0 or None, got "
                f"{clip_gradient!r}."
            )
        if not is_whole(seed):
            raise TypeError(f"Trainer: seed must be a whole number, got {seed!r}.")
        if monitor is not None and monitor not in MONITORS:
            raise ValueError(
                f"Trainer: monitor must be one of {', '.join(map(repr, MONITORS))}, got "
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
        if isinstance(optimizer, str) and optimizer.lower() not in OPTIMIZERS:
            raise ValueError(
                f"Trainer: optimizer must be one of {', '.join(OPTIMIZERS)}, got {optimizer!r}."
            )
        if k is not None:
            as_program(k, "Trainer")
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
            model: any module; `forward` names the ones it takes: x [T,S,P], time [T], history
                [T,S,W], exposure [T,S]. A module that takes history gives W in its attribute
                `window`.
            train: the data to learn from: a panel, or a batch made from one.
            valid: the data by which the best epoch is chosen. None keeps the last epoch.
            resume: go on from `checkpoint` if that file exists. False starts afresh and writes over
                it.

        Raises:
            NonFiniteLossError: the loss or a gradient became NaN or infinite.
            ValueError: the checkpoint belongs to another model, objective, optimizer or panel; one
                of train and valid alone has an exposure.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"Trainer.fit: model must be a torch.nn.Module, got {type(model).__name__}."
            )
        if resume and self.checkpoint is None:
            raise ValueError(
                "Trainer.fit: resume must go with Trainer(checkpoint=...), got checkpoint=None."
            )
        before = {name: value.detach().clone() for name, value in model.state_dict().items()}
        was_training = model.training
        try:
            return self._fit(model, train, valid, resume)
        except BaseException:
            # Ctrl-C in a step is caught below; an exception that arrives here is a failed fit.
            model.load_state_dict(before)
            model.train(was_training)
            raise

    def _fit(
        self,
        model: nn.Module,
        train: Panel | Batch,
        valid: Panel | Batch | None,
        resume: bool,
    ) -> Trainer:
        if self.device is not None:
            model.to(self.device)
        device = next((p.device for p in model.parameters()), torch.device("cpu"))

        def weighed(batch: Batch) -> Batch:
            return batch._replace(weights=weights_of(batch, self.time_weights))

        train = batch_of(model, train, device, "train", weighed)
        valid = None if valid is None else batch_of(model, valid, device, "valid")
        if valid is not None and (valid.exposure is None) != (train.exposure is None):
            raise ValueError(
                "Trainer.fit: valid must have an exposure if train has one, and only then, got "
                f"{'none' if valid.exposure is None else 'one'}. Name its column for both."
            )
        program = self._program()
        monitor = None
        if valid is not None:
            monitor = monitor_of(model, self.objective, self.monitor, program is not None)
        if self.bpr_floor is not None and program is None:
            raise ValueError(
                "Trainer.fit: bpr_floor must go with a known K, got none. Give Trainer(k=...)."
            )
        prepare = getattr(model, "prepare", None)
        if train.history is not None and callable(prepare):
            prepare(train.history)

        optimizer = make_optimizer(model, self.optimizer, self.lr)
        scheduler = None if self.scheduler is None else self.scheduler(optimizer)
        fingerprint = checkpoints.fingerprint_of(
            model, self.objective, optimizer, scheduler, train, self._settings(monitor)
        )
        at = _Progress(0, 0, 0, 0, [], 0, 0.0)
        rows: list[dict[str, float]] = []
        sums: dict[str, float] = {}
        best_state: dict[str, Tensor] | None = None
        if resume and self.checkpoint is not None and os.path.exists(self.checkpoint):
            saved = checkpoints.load(self.checkpoint, fingerprint)
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            if scheduler is not None:
                scheduler.load_state_dict(saved["scheduler"])
            at = _Progress(**saved["progress"])
            rows, sums, best_state = saved["history"], saved["sums"], saved["best"]

        interrupted_by_user = False
        started = time.perf_counter() - at.seconds
        watch = GradientWatch(self.clip_gradient)
        # L-BFGS moves the parameters while it asks for gradients.
        searching = isinstance(optimizer, torch.optim.LBFGS)
        in_update, checked = False, False
        devices = [device] if device.type == "cuda" else []

        def save() -> None:
            nonlocal checked
            if self.checkpoint is None:
                return
            content = {
                "fingerprint": fingerprint,
                "model": dict(model.state_dict()),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict() if scheduler is not None else None,
                "progress": at._asdict(),
                "history": rows,
                "sums": sums,
                "best": best_state,
            }
            # Checked once: state that cannot be read back is an error now, not when it is needed.
            checkpoints.save(self.checkpoint, content, check=not checked)
            checked = True

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
                    batches = minibatches(train, self.batch_size, self.seed, epoch)
                    model.train()
                    for batch in batches[at.position :]:
                        if interrupted():
                            raise KeyboardInterrupt
                        in_update = searching
                        value = self._gradient(model, optimizer, watch, batch, epoch, at.step)
                        if not searching:
                            in_update = True
                            optimizer.step()
                        in_update = False
                        for name, term in value.items():
                            sums[name] = sums.get(name, 0.0) + term / len(batches)
                        at = at._replace(position=at.position + 1, step=at.step + 1)
                    # The results of the epoch's end are stored only when all are ready: Ctrl-C may
                    # come in the middle.
                    row = {"epoch": epoch, **sums, "lr": optimizer.param_groups[0]["lr"]}
                    after = at._replace(epoch=epoch, position=0)
                    validated = epoch % self.validate_every == 0 or epoch == self.max_epochs
                    if validated:
                        row |= {f"train_{n}": v for n, v in self._evaluate(model, train).items()}
                    if validated and valid is not None:
                        assert monitor is not None  # it is set if there is `valid`
                        found = self._evaluate(model, valid)
                        row |= {f"valid_{n}": v for n, v in found.items()}
                        score = comparable(found, monitor, self.bpr_floor)
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
        except KeyboardInterrupt:
            interrupted_by_user = True
            at = at._replace(seconds=time.perf_counter() - started)
            if not in_update:
                # Else the parameters are half updated, and the last validation's file is kept.
                save()

        if best_state is not None:
            model.load_state_dict(best_state)
        self.interrupted_ = interrupted_by_user
        self.stopped_early_ = not interrupted_by_user and at.epoch < self.max_epochs
        self.history_ = history_frame(rows)
        self.epochs_ = at.epoch
        self.best_epoch_ = at.best_epoch if best_state is not None else at.epoch
        self.best_score_ = None
        if best_state is not None:
            kept = self.history_.loc[self.history_["epoch"] == at.best_epoch, f"valid_{monitor}"]
            self.best_score_ = float(kept.iloc[0])
        self.monitor_, self.optimizer_ = monitor, optimizer
        if self.interrupted_:
            say_interrupted(
                at.epoch,
                self.max_epochs,
                self.best_epoch_,
                None if self.best_score_ is None else monitor,
                self.checkpoint,
            )
        else:
            watch.report([row["loss"] for row in rows], self.objective)
            if valid is None and self.progress:
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
            return self._evaluate(model, batch_of(model, data, device, "data"))

    # ---- a step ----------------------------------------------------------------------------------

    def _gradient(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        watch: GradientWatch,
        batch: Batch,
        epoch: int,
        step: int,
    ) -> dict[str, float]:
        """Loss and gradient of one minibatch, checked to be finite; for L-BFGS the update too."""
        first: dict[str, float] | None = None

        def closure() -> Tensor:
            nonlocal first
            optimizer.zero_grad(set_to_none=True)
            value = self._call(model, batch, "step", step)
            if first is None:
                first = {"loss": value.loss.item(), **{n: float(t) for n, t in value.terms.items()}}
            if not math.isfinite(value.loss.item()):
                blame_term(value, epoch, step)
            value.loss.backward()
            watch.check(model, epoch, step)
            return value.loss

        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)
        else:
            closure()
        assert first is not None  # `closure` was called
        return first

    def _call(self, model: nn.Module, batch: Batch, purpose: str, number: int) -> ObjectiveValue:
        seed_all(batch.y.device, hash_of(self.seed, purpose, number))
        key = draw_key(device=batch.y.device)
        extra = accepted_arguments(_signature_of(self.objective), ("key",))
        value = self.objective(model, batch, **({"key": key} if extra else {}))
        return as_value(value)

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

    # ---- validation ------------------------------------------------------------------------------

    def _program(self) -> Program | None:
        """The program that BPR is measured for."""
        if self.k is not None:
            return as_program(self.k, "Trainer")
        own = getattr(self.objective, "program", None)
        if own is None:
            own = getattr(self.objective, "k", None)
        return None if own is None else as_program(own, "Trainer")

    @torch.no_grad()
    def _evaluate(self, model: nn.Module, batch: Batch) -> dict[str, float]:
        was_training = model.training
        ranking = self.ranking
        if ranking is None:
            ranking = getattr(self.objective, "ranking", "auto")
        model.eval()
        try:
            return metrics_of(
                model,
                batch,
                loss=self._call(model, batch, "validation", 0).loss.item(),
                program=self._program(),
                ranking=ranking,
                offset=getattr(self.objective, "offset", 0.0),
                samples=self.validation_samples,
                seed=self.seed,
            )
        finally:
            model.train(was_training)

    def _settings(self, monitor: str | None) -> dict[str, str]:
        """The settings that must agree for a checkpoint to continue."""
        program = self._program()
        return {
            "learning rate": repr(
                self.lr if isinstance(self.optimizer, str | type) else "set by the callable"
            ),
            "seed": str(self.seed),
            "batch_size": str(self.batch_size),
            "clip_gradient": str(self.clip_gradient),
            "validation": f"every {self.validate_every}, {monitor}, floor {self.bpr_floor}, "
            f"{program.describe() if program is not None else 'no program'}, {self.ranking}, "
            f"{self.validation_samples} samples",
        }


def _is_real(value: Any) -> bool:
    return isinstance(value, numbers.Real)


def _signature_of(objective: Callable[..., Any]) -> Callable[..., Any]:
    """A callable with the objective's signature that is the same object at every call."""
    is_plain = hasattr(objective, "__code__") or hasattr(objective, "__func__")
    return objective if is_plain else type(objective).__call__
