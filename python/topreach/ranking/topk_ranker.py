"""From a panel of counts to a fitted ranker and a plan, with the interface of scikit-learn."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from topreach import _C
from topreach.data.events import Events
from topreach.data.messages import either
from topreach.data.panel import Panel
from topreach.data.standardizer import Standardizer
from topreach.distributions.counts import count_quantile
from topreach.distributions.forecast import as_forecast
from topreach.evaluation import metrics
from topreach.forecasters import SETTINGS, Forecaster, as_forecaster
from topreach.models import SiteHistory
from topreach.objectives.base import derived_key
from topreach.ops import draw_key, ratio_ranking
from topreach.programs import Program, TopK, as_program
from topreach.ranking.fitting import Settings, fit, fit_events
from topreach.ranking.notes import NotFittedError, say
from topreach.ranking.plan import plan_frame
from topreach.ranking.serving import (
    columns_of,
    is_library_program,
    known_counts,
    model_file,
    own_forecaster,
    ranking_of,
    restored,
    table_of,
)
from topreach.ranking.settings import SHORT, Decision, Ranking, Training
from topreach.training.progress import shows_bar
from topreach.training.trainer import Trainer


class TopKRanker:
    """Learns from counts over sites and time which sites to act on, and plans for the next period.

    The default, empirical Bayes, learns from all periods that it is given, by EM and L-BFGS. Other
    models are trained by steps. With a validation panel the best epoch is kept: for "nll" the one
    of highest likelihood; for "bpr" the one that ranks best; for "daml" the one of highest
    likelihood among those that rank at least as well as a likelihood fit does, else the one that
    ranks best [D25 App. C.2.2].

    Prediction uses the C++ `topreach::Ranker`, made at the end of `fit`, so Python and C++ rank the
    same. A table given to `rank` adds to the counts that the ranker knows. Counts of later periods
    become part of the past; counts that it knows already must be equal. A `RankerNote` warns of
    gaps in its knowledge.

    Args:
        k: K, the number of sites that can be acted on, or a `Program` such as
            `tr.programs.Quotas`. The ranker trains, ranks and scores for it.
        program: another name for a `Program` as k.
        model: a name of `tr.forecasters.FORECASTERS` ("empirical_bayes", "negbin", "linear", "mlp",
            "poisson_mixture", "normal_mixture", "stemmed"), an object of `tr.forecasters` with its
            settings, or a module of your own, whose class says `needs = tr.models.Needs(...)`.
        objective: "auto" (the model's own default), "daml", "nll", "bpr", "marginal" (negbin:
            maximum marginal likelihood), or an objective of `tr.objectives`.
        decision: how training takes the choice into account, a `Decision`.
        training: how a model is trained by steps, a `Training`.
        ranking: the quantity by which sites are ranked: a `Ranking`, or its name: "auto", "exact",
            "ratio", "mean".
        seed: of training and of the ranking's draws.
        device: where to train and rank; None: the CPU.
        progress: whether to show a bar.
        **settings: fields of these objects by their own names, for instance max_epochs=50,
            sigma=0.1, link="log", window=3, rank_samples=200.

    Fitted attributes:
        model_: the module; ranking_: "exact", "ratio", "mean" or "score"; program_.
        site_ids_, feature_names_in_, calendar_, last_period_: sites, features and calendar of the
            fit, and the last known period.
        standardizer_, time_origin_, time_scale_: how inputs are scaled. site_history_: of
            "empirical_bayes", else None. uses_exposure_.
        history_, best_epoch_, best_score_, trainer_, warm_start_: of training by steps, else None.
        key_: fixes the ranking's draws. notes_: the notes of the fit.

    Example:
        >>> train, valid, test = tr.datasets.cook_county()
        >>> ranker = tr.TopKRanker(k=100).fit(train, valid)
        >>> ranker.rank(periods_ahead=1).query("selected")  # the plan for the next period
        >>> ranker.score(test)                              # share of the best possible reach
    """

    ranker_: _C.Ranker
    program_: Program
    model_: nn.Module
    site_history_: SiteHistory | None
    standardizer_: Standardizer
    time_origin_: float
    time_scale_: float
    uses_exposure_: bool
    trainer_: Trainer | None
    warm_start_: Trainer | None
    history_: pd.DataFrame | None
    best_epoch_: int | None
    best_score_: float | None
    interrupted_: bool
    ranking_: str
    key_: torch.Tensor
    notes_: list[str]
    site_ids_: list[str]
    feature_names_in_: list[str]
    n_features_in_: int
    calendar_: _C.Calendar
    last_period_: str
    table_: dict[str, str]

    def __init__(
        self,
        k: int | Program | None = None,
        *,
        program: Program | None = None,
        model: str | Forecaster | nn.Module = "empirical_bayes",
        objective: Any = "auto",
        decision: Decision | None = None,
        training: Training | None = None,
        ranking: Ranking | str | None = None,
        seed: int = 0,
        device: str | torch.device | None = None,
        progress: bool = True,
        **settings: Any,
    ):
        unknown = [name for name in settings if name not in (*SHORT, *SETTINGS)]
        if unknown:
            raise TypeError(
                f"TopKRanker: {unknown[0]!r} must be a setting, got none such. There are "
                f"{', '.join(sorted({*SHORT, *SETTINGS}))}."
            )
        if (k is None) == (program is None):
            raise TypeError(
                "TopKRanker: k, or program, must be given, got "
                + ("neither" if k is None else "both")
                + ". For the 100 best sites give k=100."
            )
        self.k: int | Program = program if k is None else k  # type: ignore[assignment]
        self.model, self.objective = model, objective
        self.decision, self.training, self.ranking = decision, training, ranking
        self.seed, self.device, self.progress = seed, device, progress
        self.settings = settings

    # ---- the interface of scikit-learn -----------------------------------------------------------

    _ARGUMENTS = (
        "k",
        "model",
        "objective",
        "decision",
        "training",
        "ranking",
        "seed",
        "device",
        "progress",
    )

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {name: getattr(self, name) for name in self._ARGUMENTS} | self.settings

    def set_params(self, **params: Any) -> TopKRanker:
        """Change constructor arguments. A fitted ranker ranks as it was fitted until the next
        `fit`; for another K at once, see `with_program`."""
        if "program" in params:
            params = params | {"k": params["program"]}
            del params["program"]
        changed = TopKRanker(**(self.get_params() | params))
        for name in (*self._ARGUMENTS, "settings"):
            setattr(self, name, getattr(changed, name))
        return self

    def __repr__(self) -> str:
        default = TopKRanker(0).get_params()
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if name != "k"
            and (name not in default or value is not default[name])
            and not (name in default and value == default[name])
        ]
        return f"TopKRanker({', '.join([repr(self.k), *changed])})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "ranker_")

    def _settings(self) -> Settings:
        parts: dict[str, dict[str, Any]] = {"decision": {}, "training": {}, "ranking": {}}
        own = {}
        for name, value in self.settings.items():
            if name in SHORT:
                part, field = SHORT[name]
                parts[part][field] = value
            else:
                own[name] = value
        ranking = self.ranking
        if ranking is None or isinstance(ranking, str):
            ranking = Ranking(by=ranking or "auto")
        return Settings(
            as_program(self.k, "TopKRanker"),
            as_forecaster(self.model, own),
            self.objective,
            replace(self.decision or Decision(), **parts["decision"]),
            replace(self.training or Training(), **parts["training"]),
            replace(ranking, **parts["ranking"]),
            int(self.seed),
            self.device,
            bool(self.progress),
        )

    # ---- fitting ---------------------------------------------------------------------------------

    def fit(
        self, panel: Panel | Events, valid: Panel | None = None, *, resume: bool = False
    ) -> TopKRanker:
        """Fit on a panel (on `Events` for model="stemmed").

        `valid`, later periods of the same sites, chooses the epoch that is kept; the default model
        learns from it as well. resume=True continues from the checkpoint if that file exists. A fit
        that fails leaves the ranker as it was.

        Raises:
            TypeError, ValueError: an argument that is not as above; suppressed counts with a model
                or an objective that needs exact ones; exposure in one panel only.
        """
        settings = self._settings()
        notes: list[str] = []
        done = None
        if isinstance(panel, Events):
            if valid is not None or resume:
                raise ValueError(
                    "TopKRanker.fit: valid and resume must not be given with events, which are "
                    "learnt from as a whole."
                )
            settings = _planned_for(settings, panel.places)
            panel, done = fit_events(settings, panel, notes)
        for name, part in (("panel", panel), ("valid", valid)):
            if not isinstance(part, Panel) and not (name == "valid" and part is None):
                raise TypeError(
                    f"TopKRanker.fit: {name} must be a Panel, got {type(part).__name__}. Make one "
                    "with Panel.from_frame."
                )
        settings = _planned_for(settings, list(panel.site_ids))
        if settings.forecaster.needs.events and done is None:
            raise TypeError(
                "TopKRanker.fit: panel must be Events for the model "
                f"{settings.forecaster.name!r}, got a Panel of counts. "
                + either("Make them with tr.Events.from_frame.", "Pass --events FILE.")
            )
        if done is None:
            done = fit(settings, panel, valid, resume=resume, notes=notes)
        key = draw_key(torch.Generator().manual_seed(settings.seed))
        by = ranking_of(done, settings, panel)
        file = model_file(done, settings, panel, by, key, type(done.model).__name__)
        device = str(settings.device or "cpu")
        ranker = _C.Ranker(
            file,
            device,
            own_forecaster(done, settings.forecaster),
            settings.program if not is_library_program(settings.program) else None,
        )
        # Nothing can fail from here on.
        trainer = done.trainer
        self.__dict__.update(
            ranker_=ranker,
            program_=settings.program,
            model_=done.model,
            site_history_=done.history,
            standardizer_=done.standardizer,
            time_origin_=done.time_origin,
            time_scale_=done.time_scale,
            uses_exposure_=done.uses_exposure,
            trainer_=trainer,
            warm_start_=done.warm,
            history_=None if trainer is None else trainer.history_,
            best_epoch_=None if trainer is None else trainer.best_epoch_,
            best_score_=None if trainer is None else trainer.best_score_,
            interrupted_=trainer is not None and trainer.interrupted_,
            ranking_=by,
            key_=key,
            notes_=notes,
            **columns_of(ranker, file),
        )
        say(notes)
        return self

    # ---- planning --------------------------------------------------------------------------------

    def rank(
        self,
        panel: Panel | None = None,
        *,
        periods_ahead: int | None = None,
        k: int | Program | None = None,
    ) -> pd.DataFrame:
        """All sites, best first.

        Without a panel: for the period after the last one whose counts are known (or
        `periods_ahead` periods after it). With a panel and `periods_ahead`: the same, but the
        panel's counts are known too, and its features of that period are used. With a panel alone:
        each of its own periods, from the counts before it; a `RankerNote` says if the model has
        learned from them.

        Args:
            panel: adds to what the ranker knows; features and exposure of the periods to rank.
                Counts may be missing there.
            periods_ahead: n >= 1 periods after the last known one.
            k: another K (any K sites, without quotas), or another program; None: that of the fit.

        Returns:
            Columns time (as the table writes it), site, score, expected_count, chance_top_k, rank
            (from 1), selected. Scores are multiplied by the effect, if the program has one.
            chance_top_k is the share of the model's draws in which the site is in the best plan.
            Scorers predict no counts: expected_count and chance_top_k are NaN.

        Raises:
            ValueError: a panel of another kind of time or with other sites; counts that contradict
                those that the model learned from; features or exposure that are missing, by name.
        """
        return plan_frame(self._plans("rank", panel, periods_ahead, k))

    def plan(
        self,
        panel: Panel | None = None,
        *,
        periods_ahead: int | None = None,
        k: int | Program | None = None,
    ) -> list[_C.Plan]:
        """The plans that `rank` shows as a table: a `Plan` per period. It holds its period, the
        last period with known counts, the program, the model's digest, and its notes."""
        return self._plans("plan", panel, periods_ahead, k)

    def with_program(self, k: int | Program) -> TopKRanker:
        """A fitted ranker that differs only in its program."""
        other = TopKRanker(**(self.get_params() | {"k": k}))
        k = program = as_program(k, "TopKRanker.with_program")
        other.__dict__.update(
            {n: v for n, v in self.__dict__.items() if n.endswith("_")},
            ranker_=self._ranker("with_program", k),
            program_=program.for_sites("TopKRanker.with_program", self.site_ids_) or program,
        )
        return other

    # ---- forecasts -------------------------------------------------------------------------------

    def predict(self, panel: Panel | None = None, *, kind: str = "mean") -> np.ndarray:
        """Forecasts of the counts [T, S], sites in the order of `site_ids_`; for the panel's
        exposure, if the model was fitted with one. Without a panel: of the next period.

        Args:
            kind: "mean", the expected counts, whose squared error is least; or "median", the least
                count that is reached with a chance of one half, whose absolute error is least.

        Raises:
            TypeError: the model gives scores, not counts; see `rank`. Or kind "median" of
                "normal_mixture", which predicts real numbers.
            ValueError: another kind.
        """
        if kind not in ("mean", "median"):
            raise ValueError(f"TopKRanker.predict: kind must be 'mean' or 'median', got {kind!r}.")
        ranker, inputs = self._counts_of("predict", panel)
        if kind == "mean":
            return ranker.expected_counts(inputs).cpu().numpy()
        return count_quantile(ranker.forecast(inputs), 0.5).cpu().numpy()

    def predict_distribution(self, panel: Panel | None = None) -> _C.Forecast:
        """The forecast of the counts [T, S], sites in the order of `site_ids_`: `mean`, `variance`,
        `sample`, `site_log_prob`, `cdf` and `quantile`.

        Raises:
            TypeError: the model gives scores, not counts; see `rank`.

        Example:
            >>> log_score = ranker.predict_distribution(test).site_log_prob(test.y).mean()
        """
        ranker, inputs = self._counts_of("predict_distribution", panel)
        return ranker.forecast(inputs)

    def site_scores(self, panel: Panel) -> np.ndarray:
        """The values by which sites are ranked, [T, S], more is better; −inf for a closed site."""
        ranker = self._ranker("site_scores")
        return ranker.scores(self._inputs("site_scores", panel, None, ranker)).cpu().numpy()

    def score(self, panel: Panel) -> float:
        """The fraction of the best possible reach, the mean over periods with events.

        Raises:
            ValueError: counts that are missing, or suppressed: judge `panel.at_bound("lower")` and
                `panel.at_bound("upper")`.
        """
        ranker = self._ranker("score")
        counts = known_counts("score", panel, ranker)
        inputs = self._inputs("score", panel, None, ranker)
        scores = ranker.scores(inputs).cpu()
        return float(_mean_bpr(self._program_for(inputs), scores, counts))

    def score_repeats(
        self,
        panel: Panel,
        repeats: int = 1000,
        *,
        samples: int | None = None,
        progress: bool = False,
    ) -> np.ndarray:
        """BPR of `repeats` rankings with fresh draws, [repeats]: the spread due to drawing.

        `samples` draws each (None: as fitted). A ranking without draws ("exact", "mean", or a
        scorer) has no spread.
        """
        ranker = self._ranker("score_repeats")
        counts = known_counts("score_repeats", panel, ranker)
        if self.ranking_ != "ratio":
            return np.full(repeats, self.score(panel))
        inputs = self._inputs("score_repeats", panel, None, ranker)
        forecast, program = ranker.forecast(inputs), self._program_for(inputs)
        shut = None if inputs.open is None else ~inputs.open
        key, found = derived_key(self.key_, 1), []
        count = samples or self._settings().ranking.samples
        for _ in tqdm(
            range(repeats), desc="rank", unit="times", disable=not (progress and shows_bar())
        ):
            key = derived_key(key, 2)
            draws = as_forecast(forecast).sample(count, key=key)
            if shut is not None:
                draws = draws.masked_fill(shut.to(draws.device), 0.0)
            ranking = ratio_ranking(draws).cpu()
            if shut is not None:
                ranking = ranking.masked_fill(shut.cpu(), -math.inf)
            found.append(_mean_bpr(program, ranking, counts))
        return np.array(found)

    # ---- file ------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike, *, with_past: bool = True) -> None:
        """Write the fitted ranker to one file, which `load` and the C++ library read. It holds no
        code.

        It holds every site's past counts, unless with_past is False; then planning needs a table
        with them.

        Raises:
            TypeError: a model or a program of your own, which the library could not load.
            ValueError: a path that cannot be written; with_past=False for a model of events, which
                needs its past to plan.
        """
        self._ranker("save").save(os.fspath(path), with_past)

    @classmethod
    def load(
        cls, path: str | os.PathLike, *, device: str | torch.device | None = None
    ) -> TopKRanker:
        """Read a file that `save`, or the C++ library, wrote. No code from the file is run.

        Raises:
            ValueError: no such file; one that is damaged, of another kind or of another version.
        """
        ranker = _C.Ranker.load(os.fspath(path), str(device or "cpu"))
        file = ranker.file(True)
        arguments, attributes = restored(ranker, file)
        loaded = cls(device=device, **arguments)
        loaded.__dict__.update(attributes)
        return loaded

    # ---- helpers ---------------------------------------------------------------------------------

    def _ranker(self, method: str, k: int | Program | None = None) -> _C.Ranker:
        if not hasattr(self, "ranker_"):
            raise NotFittedError(
                f"TopKRanker.{method}: the ranker must be fitted first, got one that is not. "
                f"Call fit."
            )
        if k is None:
            return self.ranker_
        if not isinstance(k, Program) and not isinstance(self.program_, TopK):
            raise ValueError(
                f"TopKRanker.{method}: k must be a program, as {self.program_.describe()} is, got "
                f"{k!r}: a number would drop its constraints. Pass tr.programs.TopK({k!r}) if you "
                "mean that."
            )
        return self.ranker_.with_program(as_program(k, f"TopKRanker.{method}"))

    def _plans(
        self, method: str, panel: Panel | None, ahead: int | None, k: int | Program | None
    ) -> list[_C.Plan]:
        ranker = self._ranker(method, k)
        if panel is None and ahead is None:
            ahead = 1
        inputs, notes = self._plannable(method, panel, ahead, ranker)
        plans = ranker.plans(inputs)
        say(dict.fromkeys([*notes, *(note for plan in plans for note in plan.notes)]))
        return plans

    def _plannable(
        self, method: str, panel: Panel | None, ahead: int | None, ranker: _C.Ranker
    ) -> tuple[_C.RankerInputs, list[str]]:
        """The inputs of the panel's periods, and notes. For a model that reads the last counts, the
        first periods are left out, with a note, if the counts before them are not known."""
        last = panel.num_times - 1 if isinstance(panel, Panel) and ahead is None else 0
        first = 0
        while True:
            part = panel if first == 0 or panel is None else panel.select_times(panel.times[first:])
            try:
                inputs = self._inputs(method, part, ahead, ranker)
            except ValueError as error:
                if first == last or "for the model reads them" not in str(error):
                    raise
                first += 1
                continue
            if first == 0 or panel is None:
                return inputs, []
            left = f"{panel.times[0]} to {panel.times[first - 1]}" if first > 1 else panel.times[0]
            return inputs, [f"{left} left out: the counts before are not known"]

    def _inputs(
        self, method: str, panel: Panel | None, ahead: int | None, ranker: _C.Ranker
    ) -> _C.RankerInputs:
        if panel is not None and not isinstance(panel, Panel):
            raise TypeError(
                f"TopKRanker.{method}: panel must be a Panel, got {type(panel).__name__}."
            )
        if ahead is not None and (isinstance(ahead, bool) or not hasattr(ahead, "__index__")):
            raise TypeError(
                f"TopKRanker.{method}: periods_ahead must be a whole number >= 1, got {ahead!r}."
            )
        table = None if panel is None else table_of(panel, ranker)
        inputs = ranker.inputs(f"TopKRanker.{method}", table, ahead)
        if method not in ("rank", "plan"):
            say(inputs.notes)
        return inputs

    def _program_for(self, inputs: _C.RankerInputs) -> Program:
        """The program for the sites of these inputs, in their order."""
        return self.program_.for_sites("TopKRanker", list(inputs.site_ids)) or self.program_

    def _counts_of(self, method: str, panel: Panel | None) -> tuple[_C.Ranker, _C.RankerInputs]:
        ranker = self._ranker(method)
        if not ranker.is_probabilistic:
            raise TypeError(
                f"TopKRanker.{method}: the model must predict counts, got "
                f"{type(self.model_).__name__}, which gives scores only. Use rank or site_scores."
            )
        return ranker, self._inputs(method, panel, 1 if panel is None else None, ranker)


def _planned_for(settings: Settings, sites: list[str]) -> Settings:
    """The program for these sites in their order, checked before any fit: K is at most S."""
    ordered = settings.program.for_sites("TopKRanker.fit", sites)
    settings = settings if ordered is None else replace(settings, program=ordered)
    settings.program.check("TopKRanker", len(sites))
    return settings


def _mean_bpr(program: Program, scores: torch.Tensor, counts: torch.Tensor) -> float:
    return metrics.bpr(scores, counts, program, nan_policy="omit")
