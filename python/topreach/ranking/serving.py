"""Between Python's panels and models and the C++ `Ranker`."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import torch

from topreach import _C, models
from topreach.data.messages import either
from topreach.data.panel import Panel
from topreach.data.standardizer import Standardizer
from topreach.forecasters import KINDS, Forecaster, OwnModule, StemmedOf
from topreach.models import SiteHistory
from topreach.objectives.base import forward, resolved_ranking
from topreach.programs import Program
from topreach.ranking.fitting import Fit, Settings, prepare


def table_of(panel: Panel, ranker: _C.Ranker) -> _C.Panel:
    """The panel as a C++ object. Suppressed counts are set to their lower bound, and allowed only
    if the model's past does not need exact ones."""
    needs = ranker.needs
    if panel.y_upper is not None and (needs.past or needs.window > 0):
        raise ValueError(
            "TopKRanker: panel must have exact counts for this model, got "
            f"{int((panel.y_upper > panel.y).sum())} that are only known to lie in an interval. "
            + either(
                "Take panel.at_bound('lower') or panel.at_bound('upper').",
                "Give a table of exact counts, or a model that can read such: negbin.",
            )
        )
    low = panel.at_bound("lower")
    rows = set(int(row) for row in panel.rows)
    timeline, times = low.timeline, low.timeline_times.tolist()
    exposure = low.timeline_exposure
    before = [i for i in range(len(times)) if i not in rows and not timeline[i].isnan().all()]
    return _C.Panel(
        site_ids=list(panel.site_ids),
        calendar=panel.calendar,
        times=[float(t) for t in panel.time_values],
        feature_names=list(panel.feature_names),
        x=panel.x,
        y=low.y,
        y_upper=panel.y_upper,
        exposure=panel.exposure,
        history_times=[times[i] for i in before],
        history=timeline[before] if before else None,
        history_exposure=exposure[before] if before and exposure is not None else None,
        opened=_times(panel.opened),
        closed=_times(panel.closed),
    )


def _times(values: Any) -> list[float]:
    return [] if values is None else [float(v) for v in values]


def known_counts(method: str, panel: Panel, ranker: _C.Ranker) -> torch.Tensor:
    """The counts [T, S] that a ranking is judged by, sites in the ranker's order; 0 for a site
    that is not open."""
    if not isinstance(panel, Panel):
        raise TypeError(f"TopKRanker.{method}: panel must be a Panel, got {type(panel).__name__}.")
    unknown = panel.y.isnan()
    if panel.is_open is not None:
        unknown &= panel.is_open
    if bool(unknown.any()):
        t, s = unknown.nonzero()[0].tolist()
        raise ValueError(
            f"TopKRanker.{method}: panel must have counts for all its periods and open sites, got "
            f"{int(unknown.sum())} that are missing, the first for {panel.site_ids[s]!r} in "
            f"{panel.times[t]!r}. Leave out what cannot be judged, with panel.select_times."
        )
    if panel.y_upper is not None:
        raise ValueError(
            f"TopKRanker.{method}: panel must have exact counts, got "
            f"{int((panel.y_upper > panel.y).sum())} that are only known to lie in an "
            "interval, for what a choice reaches is not known then, or take "
            "panel.at_bound('lower') and panel.at_bound('upper')."
        )
    if ranker.needs.sites:
        panel = panel.align(site_ids=list(ranker.site_ids))
    return panel.y.cpu().nan_to_num(0.0)


def ranking_of(done: Fit, settings: Settings, panel: Panel) -> str:
    """The kind of ranking, with "auto" resolved."""
    if not done.needs.counts:
        return "score"
    if settings.ranking.by in ("ratio", "mean"):
        return settings.ranking.by
    if done.needs.events:
        return "exact"  # of the negative binomials that the moments give
    last = panel.select_times([panel.times[-1]])
    batch = prepare(
        last,
        done.standardizer,
        done.time_origin,
        done.time_scale,
        done.needs,
        done.needs.window,
        done.history,
        panel,
        done.uses_exposure,
    )
    device = next((p.device for p in done.model.parameters()), torch.device("cpu"))
    batch = batch.map(lambda t: t.to(device))
    with torch.no_grad():
        return resolved_ranking("TopKRanker", settings.ranking.by, forward(done.model, batch))


def is_library_program(program: Program) -> bool:
    """Whether a model file can name it."""
    if not type(program).__module__.startswith("topreach."):
        return False
    try:
        _C.make_program(program.name(), program.config())
    except ValueError:  # an effect on a user's program
        return False
    return True


def model_file(
    done: Fit, settings: Settings, panel: Panel, by: str, key: torch.Tensor, name: str
) -> _C.ModelFile:
    """The model file of a fit."""
    file = _C.ModelFile()
    file.model = name
    file.config = dict(getattr(done.model, "config", {}))
    file.state = dict(done.model.state_dict())
    fit_state = getattr(done.model, "fit_state", None)
    if fit_state is not None:
        state = fit_state()
        file.fit = {} if state is None else _flat(state)
    file.standardizer = done.standardizer.state_dict()
    file.time_origin, file.time_scale = float(done.time_origin), float(done.time_scale)
    file.calendar = panel.calendar
    file.fitted_times = done.learnt_from
    past = done.past.align(site_ids=panel.site_ids)
    low = past.at_bound("lower")
    timeline, times = low.timeline, low.timeline_times.tolist()
    known = [i for i in range(len(times)) if not bool(timeline[i].isnan().all())]
    file.past_times = [times[i] for i in known]
    if known:
        file.past_counts = timeline[known].float()
        if past.y_upper is not None:
            file.past_upper = past.at_bound("upper").timeline[known].float()
    if done.uses_exposure:
        from topreach.ranking.fitting import timeline_exposure

        file.past_exposure = timeline_exposure(past, panel)[known].float()
    features = past.align(feature_names=done.standardizer.feature_names_)
    if features.num_features:
        own = panel.align(feature_names=done.standardizer.feature_names_)
        file.last_features = features.x[-1].float()
        file.constant_features = (own.x == own.x[:1]).flatten(0, 1).all(0)
    file.site_ids = list(panel.site_ids)
    file.opened, file.closed = _times(past.opened), _times(past.closed)
    file.set_program(settings.program)
    file.ranking, file.model_samples, file.key = by, int(settings.ranking.samples), key
    file.uses_exposure = bool(done.uses_exposure)
    if done.history is not None:
        file.site_history = done.history.state_dict()
    return file


def own_forecaster(done: Fit, forecaster: Forecaster) -> _C.PyForecaster | None:
    """The C++ forecaster of a user's module; None for the library's models."""
    if not isinstance(forecaster, OwnModule) or type(done.model).__name__ in {
        kind.name for kind in KINDS.values()
    }:
        return None
    model, needs = done.model, done.needs
    names = [
        name
        for name, needed in (
            ("x", needs.features),
            ("time", needs.time),
            ("history", needs.window > 0),
            ("exposure", done.uses_exposure),
        )
        if needed
    ]

    def call(inputs: _C.ForecastInputs) -> Any:
        with torch.no_grad():
            return model(**{name: getattr(inputs, name) for name in names})

    return _C.PyForecaster(type(model).__name__, needs, call)


def columns_of(ranker: _C.Ranker, file: _C.ModelFile) -> dict[str, Any]:
    """The attributes of a fitted ranker that are in its file."""
    names = list(file.standardizer["feature_names"])
    calendar = file.calendar
    last = max(file.past_times or file.fitted_times)
    return {
        "site_ids_": list(file.site_ids),
        "feature_names_in_": names,
        "n_features_in_": len(names),
        "calendar_": calendar,
        "last_period_": calendar.label(last),
    }


def restored(ranker: _C.Ranker, file: _C.ModelFile) -> tuple[dict[str, Any], dict[str, Any]]:
    """Constructor's arguments and fitted attributes of a ranker read from a file."""
    kind = next(kind for kind in KINDS.values() if kind.name == file.model)
    config = {n: tuple(v) if isinstance(v, list) else v for n, v in file.config.items()}
    model = getattr(models, file.model)(**config)
    try:
        model.load_state_dict(file.state)
    except RuntimeError as error:
        raise ValueError(
            f"TopKRanker.load: path must hold a whole model, got parts that do not fit: {error}"
        ) from None
    if file.fit and hasattr(model, "set_fit_state"):
        model.set_fit_state(_nested(file.fit))
    program = _program(file.program)
    history = None
    if file.site_history is not None:
        history = SiteHistory.from_state_dict(
            {**file.site_history, "site_ids": list(file.site_ids)}
        )
    settings: dict[str, Any] = {
        name: config[name]
        for name in (
            "link",
            "penalty",
            "site_path",
            "window",
            "hidden",
            "num_components",
            "family",
            "zero_inflation",
            *(field.name for field in dataclasses.fields(StemmedOf)),
        )
        if name in config
    }
    if config.get("site_path"):
        settings["objective"] = "marginal"
    arguments = {
        "k": program.k if isinstance(program, _C.TopK) else program,
        "model": kind.short_name,
        "ranking": None if file.ranking == "score" else file.ranking,
        "rank_samples": file.model_samples,
        **settings,
    }
    attributes = {
        "ranker_": ranker,
        "program_": program,
        "model_": model.eval(),
        "site_history_": history,
        "standardizer_": Standardizer.from_state_dict(file.standardizer),
        "time_origin_": file.time_origin,
        "time_scale_": file.time_scale,
        "uses_exposure_": file.uses_exposure,
        "ranking_": file.ranking,
        "key_": file.key,
        # A file does not say how the model was trained.
        "trainer_": None,
        "warm_start_": None,
        "history_": None,
        "best_epoch_": None,
        "best_score_": None,
        "interrupted_": False,
        "table_": dict(file.table),
        "notes_": [],
        **columns_of(ranker, file),
    }
    return arguments, attributes


def _flat(state: dict[str, Any]) -> dict[str, Any]:
    """Nested tables as text, because the model file holds none."""
    return {n: f"json:{json.dumps(v)}" if isinstance(v, dict) else v for n, v in state.items()}


def _nested(state: dict[str, Any]) -> dict[str, Any]:
    return {
        n: json.loads(v[5:]) if isinstance(v, str) and v.startswith("json:") else v
        for n, v in state.items()
    }


def _program(state: dict[str, Any]) -> Program:
    return _C.make_program(state["name"], dict(state["config"]))
