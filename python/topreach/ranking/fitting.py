"""Fitting: from panels to a trained model. Nothing here changes a ranker; see `fit`."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from topreach.data.events import Events
from topreach.data.messages import either, option
from topreach.data.panel import Batch, Panel
from topreach.data.standardizer import Standardizer
from topreach.forecasters import Forecaster, Needs, StemmedOf, Task, needs_of
from topreach.models import SiteHistory
from topreach.objectives import NLL, DecisionAware, DirectBPR
from topreach.programs import Program
from topreach.ranking.settings import Decision, Ranking, Training
from topreach.training.guards import compare_with_past_means
from topreach.training.trainer import Trainer
from topreach.training.validation import rank_scores

LIKELIHOODS = ("marginal", "nll")  # objectives that take counts known to an interval


@runtime_checkable
class FitsAtOnce(Protocol):
    """A module with its own `fit`, without training steps, which the objectives "direct" (x, y,
    weights) and "marginal" call."""

    def fit(self, *args: Any, **kwargs: Any) -> Any: ...


@runtime_checkable
class ReadsLastPeriods(Protocol):
    """A module of the objective "direct", which says how many periods its `fit` reads at most."""

    def periods_used(self, num_sites: int) -> int: ...


@dataclass(frozen=True)
class Fit:
    """The complete result of a fit."""

    model: nn.Module
    needs: Needs
    history: SiteHistory | None
    standardizer: Standardizer
    time_origin: float
    time_scale: float
    uses_exposure: bool
    trainer: Trainer | None
    warm: Trainer | None
    learnt_from: list[float]  # times of the periods used in the fit
    past: Panel  # the last panel: its timeline holds all known counts


@dataclass(frozen=True)
class Settings:
    """The ranker's settings, resolved."""

    program: Program
    forecaster: Forecaster
    objective: Any  # a name, or an objective
    decision: Decision
    training: Training
    ranking: Ranking
    seed: int
    device: Any
    progress: bool


def fit(
    settings: Settings, panel: Panel, valid: Panel | None, *, resume: bool, notes: list[str]
) -> Fit:
    """Train a model; sentences that the user should read are added to `notes`."""
    forecaster, needs = settings.forecaster, settings.forecaster.needs
    objective = _objective_name(settings)
    site_path = getattr(forecaster, "site_path", None)
    if site_path is not None and objective != "marginal":
        raise ValueError(
            "TopKRanker: site_path must be None for training by steps, got "
            f"{site_path!r}. Use {option('objective', 'marginal')}."
        )
    _check_suppressed(panel, valid, needs, objective)
    if valid is not None and valid.history_y is None:
        valid = valid.align(site_ids=panel.site_ids).with_history(panel)
    uses_exposure = needs.exposure and panel.exposure is not None
    if panel.exposure is not None and not uses_exposure:
        notes.append(
            "The model makes no use of the exposure: it learns and ranks by counts. The models "
            "'empirical_bayes' and 'negbin' use it."
        )
    if valid is not None and uses_exposure != (needs.exposure and valid.exposure is not None):
        raise ValueError(
            "TopKRanker.fit: valid must have an exposure if panel has one, and only then. Name its "
            "column for both, or for neither."
        )
    learned_valid = valid if objective == "direct" else None
    last = panel if learned_valid is None else learned_valid
    exposure = timeline_exposure(last, panel) if uses_exposure else None
    history = forecaster.fit_history(last, exposure)
    features = list(panel.feature_names) if needs.features else []
    if history is not None:
        features = [name for name in features if name not in history.absorbed_]
    standardizer = Standardizer().fit(panel.align(feature_names=features))
    origin = panel.time_values.mean().item()
    scale = panel.time_values.std(correction=0).item() or 1.0
    task = Task(panel, len(standardizer.kept_), history, settings.seed)

    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(settings.seed)
            model = forecaster.make(task)
        set_fitted_times = getattr(model, "set_fitted_times", None)
        if set_fitted_times is not None:  # beyond them slopes are damped, in validation too
            set_fitted_times(((panel.time_values - origin) / scale).float())
        return model if settings.device is None else model.to(settings.device)

    def prepared(data: Panel, window: int) -> Batch:
        return prepare(
            data, standardizer, origin, scale, needs, window, history, panel, uses_exposure
        )

    model = make()
    needs = needs_of(model)  # with its window
    weights = _time_weights(settings.training.time_weights, panel)
    read = panel
    if objective == "direct":
        assert isinstance(model, ReadsLastPeriods)
        read, weights = _last_read(panel, weights, model.periods_used(panel.num_sites))
    train_batch = prepared(read, needs.window)
    valid_batch = None if valid is None else prepared(valid, needs.window)
    names = [standardizer.feature_names_[i] for i in standardizer.kept_]

    def fit_directly(model: nn.Module, batches: list[Batch]) -> None:
        x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
        own = weights
        if own is not None and len(own) < len(y):  # validation periods count fully
            own = torch.cat([own, own.new_ones(len(y) - len(own))])
        assert isinstance(model, FitsAtOnce)
        model.fit(x, y, own)

    trainer = warm = None
    if settings.training.checkpoint is not None and objective in ("direct", "marginal"):
        notes.append("checkpoint is not used: this model is fitted at once, not by steps.")
    if history is not None:
        both = [train_batch]
        if valid_batch is not None and learned_valid is not None:
            both.append(valid_batch)
        fit_directly(model, both)
    if objective == "marginal":
        assert isinstance(model, FitsAtOnce)
        model.fit(
            *train_batch[:3],
            y_upper=train_batch.y_upper,
            exposure=train_batch.exposure,
            weights=_known_weights(train_batch.y, weights),
            site_ids=panel.site_ids,
            feature_names=names,
        )
    elif objective != "direct":
        trainer, warm, model = _train(
            settings,
            objective,
            model,
            make,
            train_batch,
            valid_batch,
            weights,
            resume=resume,
            refit=None if history is None else lambda m: fit_directly(m, [train_batch]),
        )
        notes.extend(_guard(settings, model, panel, valid, prepared, needs))
    learnt = [float(t) for t in panel.time_values]
    if valid is not None:
        learnt += [float(t) for t in valid.time_values]
    return Fit(
        model.eval(),
        needs,
        history,
        standardizer,
        origin,
        scale,
        uses_exposure,
        trainer,
        warm,
        sorted(learnt),
        panel if valid is None else valid,
    )


def fit_events(settings: Settings, events: Events, notes: list[str]) -> tuple[Panel, Fit]:
    """The counts of whole periods, and a fit to the events up to the end of the last one."""
    forecaster = settings.forecaster
    objective = _objective_name(settings)
    if not isinstance(forecaster, StemmedOf) or objective != "direct":
        raise TypeError(
            "TopKRanker.fit: panel must be a Panel for the model "
            f"{forecaster.name or type(forecaster).__name__!r}, got Events. Pass "
            f"events.counts('month'), or {option('model', 'stemmed')}."
        )
    panel = events.counts(forecaster.every).align(feature_names=[])
    end = panel.calendar.next(float(panel.time_values[-1]))
    if end < events.complete_through - 1e-9:
        notes.append(
            f"Learnt from events up to the end of {panel.times[-1]}: the period after it is not "
            "whole yet."
        )
        events = events.complete_to(end)
    model = forecaster.unfitted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are in notes_
        model.fit(events)
    notes.extend(model.notes_)
    model.known.fill_(panel.num_times)
    learnt = [float(t) for t in panel.time_values]
    standardizer = Standardizer().fit(panel)
    done = Fit(
        model.eval(),
        forecaster.needs,
        None,
        standardizer,
        0.0,
        1.0,
        False,
        None,
        None,
        learnt,
        panel,
    )
    return panel, done


def _time_weights(given: Any, panel: Panel) -> Tensor | None:
    """What each period of the training panel counts [T], checked."""
    if given is None:
        return None
    values = given(panel.time_values) if callable(given) else given
    try:
        weights = torch.as_tensor(values, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            "TopKRanker.fit: time_weights must be numbers, or a function that gives them, got "
            f"{type(values).__name__}."
        ) from error
    if weights.shape != (panel.num_times,):
        raise ValueError(
            f"TopKRanker.fit: time_weights must have shape [{panel.num_times}], one per period of "
            f"the training panel, got {list(weights.shape)}."
        )
    if not (weights.isfinite().all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError(
            f"TopKRanker.fit: time_weights must be finite, >= 0 and not all 0, got "
            f"{weights.tolist()}."
        )
    return weights


def _last_read(panel: Panel, weights: Tensor | None, number: int) -> tuple[Panel, Tensor | None]:
    """The last `number` periods that a direct fit can read, and their weights."""
    known = panel.has_counts.cpu()
    read = known if weights is None else known & (weights > 0)
    rows = torch.nonzero(read)[-number:, 0]
    if not len(rows):
        return panel, weights
    start = int(min(rows[0], torch.nonzero(known)[-1, 0]))
    return panel.select_times(panel.times[start:]), None if weights is None else weights[start:]


def prepare(
    panel: Panel,
    standardizer: Standardizer,
    origin: float,
    scale: float,
    needs: Needs,
    window: int,
    history: SiteHistory | None,
    fitted: Panel,
    uses_exposure: bool,
) -> Batch:
    """The panel as the model takes it in training: features standardised, time scaled; with the
    statistics of the past before the features, if the model reads them."""
    if needs.sites:
        panel = panel.align(site_ids=fitted.site_ids)
    batch = standardizer.transform(panel).batch(window=window or None, absent_lags="nan")
    time = ((panel.time_values - origin) / scale).to(torch.float32)
    if history is not None:
        past = timeline_exposure(panel, fitted) if uses_exposure else None
        statistics = history.statistics(panel, timeline_exposure=past)
        batch = batch._replace(x=torch.cat([statistics, batch.x], dim=-1))
    if not uses_exposure:
        batch = batch._replace(exposure=None)
    return batch._replace(time=time.to(batch.x.device))


def timeline_exposure(panel: Panel, earlier: Panel) -> Tensor:
    """Exposure [N, S] of the panel's timeline: its own, that of `earlier`, and, for a known count
    without exposure, that of the nearest period."""
    times = {float(t): i for i, t in enumerate(panel.timeline_times)}
    values = torch.full((len(times), panel.num_sites), torch.nan)
    for source in (earlier, panel):
        if source.timeline_exposure is None:
            continue
        source = source.align(site_ids=panel.site_ids)
        assert source.timeline_exposure is not None  # as before the sites were aligned
        for t, row in zip(source.timeline_times.tolist(), source.timeline_exposure, strict=True):
            at = times.get(float(source.calendar.at(source.calendar.index(t))))
            if at is not None:
                values[at] = torch.where(row.isnan().cpu(), values[at], row.cpu())
    frame = values.numpy()
    for direction in (range(1, len(frame)), range(len(frame) - 2, -1, -1)):
        step = 1 if direction.step > 0 else -1
        for i in direction:
            frame[i] = np.where(np.isnan(frame[i]), frame[i - step], frame[i])
    return torch.from_numpy(frame)


def _objective_name(settings: Settings) -> Any:
    objective, forecaster = settings.objective, settings.forecaster
    if not isinstance(objective, str):
        return objective
    allowed = forecaster.objectives
    if objective == "auto":
        return allowed[0]
    if objective not in ("daml", "nll", "bpr", "marginal", "direct"):
        raise ValueError(
            "TopKRanker: objective must be 'auto', 'daml', 'nll', 'marginal', 'bpr' or an "
            f"objective, got {objective!r}."
        )
    if objective not in allowed:
        raise TypeError(
            f"TopKRanker: objective must be one of {', '.join(map(repr, allowed))} for the model "
            f"{forecaster.name or type(forecaster).__name__!r}, got {objective!r}."
            + (" A model that gives scores has no likelihood." if allowed == ("bpr",) else "")
        )
    return objective


def _check_suppressed(panel: Panel, valid: Panel | None, needs: Needs, objective: Any) -> None:
    for part in (panel, valid):
        if part is None or part.y_upper is None:
            continue
        if needs.suppressed and (not isinstance(objective, str) or objective in LIKELIHOODS):
            continue  # a user's objective checks its own inputs
        raise ValueError(
            "TopKRanker.fit: panel must have exact counts for this model and objective, got "
            f"{int((part.y_upper > part.y).sum())} that are only known to lie in an interval. Use "
            f"{option('model', 'negbin')} with {option('objective', 'marginal')}"
            + either(", or take panel.at_bound('lower') and panel.at_bound('upper').", ".")
        )


def _known_weights(y: Tensor, weights: Tensor | None) -> Tensor | None:
    """Weights of the cells [T, S]: 0 where a count is not known; None if all are 1."""
    unknown = torch.isnan(y)
    if not bool(unknown.any()):
        return weights
    cells = torch.ones_like(y) if weights is None else weights[:, None].expand_as(y).clone()
    return cells.masked_fill(unknown, 0.0)


def _make_objective(settings: Settings, objective: Any, needs: Needs, num_sites: int) -> Any:
    if not isinstance(objective, str):
        return objective
    if objective == "nll":
        return NLL()
    decision = settings.decision
    ratio = needs.counts and settings.ranking.by != "mean"
    sigma, unit = decision.sigma, "score"
    if sigma is None:
        sigma, unit = (0.4 / num_sites, "score") if ratio else (0.1, "spread")
    options: dict[str, Any] = {
        "num_samples": decision.num_samples,
        "model_samples": decision.model_samples,
        "ranking": settings.ranking.by,
        "topk": decision.topk,
        "sigma_unit": unit,
    }
    if objective == "bpr":
        return DirectBPR(settings.program, sigma, **options)
    return DecisionAware(settings.program, sigma, decision.epsilon, decision.weight, **options)


def _train(
    settings: Settings,
    objective: Any,
    model: nn.Module,
    make: Callable[[], nn.Module],
    train_batch: Batch,
    valid_batch: Batch | None,
    weights: Tensor | None,
    *,
    resume: bool,
    refit: Callable[[nn.Module], None] | None,
) -> tuple[Trainer, Trainer | None, nn.Module]:
    """The trainer, that of the likelihood fit before DAML, and the model that is kept."""
    training = settings.training
    needs = needs_of(model)
    loss = _make_objective(settings, objective, needs, train_batch.y.shape[-1])

    def run(
        loss: Any,
        model: nn.Module,
        epochs: int,
        monitor: str | None,
        checkpoint: Any,
        floor: float | None,
    ) -> Trainer:
        trainer = Trainer(
            loss,
            optimizer=training.optimizer,
            lr=training.lr,
            max_epochs=epochs,
            validate_every=training.validate_every,
            patience=training.patience,
            monitor=monitor,
            bpr_floor=floor,
            k=settings.program,
            ranking=settings.ranking.by if needs.counts else None,
            validation_samples=settings.ranking.samples,
            batch_size=training.batch_size,
            time_weights=weights,
            clip_gradient=training.clip_gradient,
            seed=settings.seed,
            checkpoint=checkpoint,
            progress=settings.progress,
            device=settings.device,
        )
        return trainer.fit(model, train_batch, valid_batch, resume=resume)

    decision_aware = isinstance(loss, DecisionAware)
    warm = None
    if (
        decision_aware
        and training.warm_start_epochs > 0
        and (training.warm_start or valid_batch is not None)
    ):
        beside = None if training.checkpoint is None else f"{os.fspath(training.checkpoint)}.warm"
        warm = run(NLL(), model, training.warm_start_epochs, None, beside, None)
        if warm.interrupted_:
            return warm, warm, model
        if not training.warm_start:
            model = make()
            if refit is not None:
                refit(model)
    monitor, floor = None, None
    if decision_aware:
        monitor = "bpr" if warm is None else "nll"
        if warm is not None and valid_batch is not None:
            best = warm.history_["epoch"] == warm.best_epoch_
            floor = float(warm.history_.loc[best, "valid_bpr"].iloc[0])
            floor = None if math.isnan(floor) else floor
    return run(loss, model, training.max_epochs, monitor, training.checkpoint, floor), warm, model


def _guard(
    settings: Settings,
    model: nn.Module,
    panel: Panel,
    valid: Panel | None,
    prepared: Callable[[Panel, int], Batch],
    needs: Needs,
) -> list[str]:
    """A sentence if the mean of past periods ranks better than the model, else none."""
    judged = panel if valid is None else valid
    if judged.y_upper is not None:
        return []
    batch = prepared(judged, needs.window)
    y = batch.y
    if batch.history is not None:  # periods whose lags are not known cannot be ranked
        whole = torch.isfinite(batch.history).flatten(1).all(1)
        y = y.masked_fill(~whole[:, None], torch.nan)
        batch = batch._replace(history=batch.history.nan_to_num())
    timeline = judged.timeline
    means = torch.stack([timeline[: int(row)].nanmean(0) for row in judged.rows])
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    batch = batch.map(lambda t: t.to(device))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = rank_scores(model, batch, ranking=settings.ranking.by).cpu()
    where = "the validation periods" if valid is not None else "the training periods"
    sentence = compare_with_past_means(
        scores.expand(y.shape), y.cpu(), means, settings.program, where=where
    )
    return [] if sentence is None else [sentence]
