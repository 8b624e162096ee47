"""From a panel of counts to a fitted model and a ranked list of sites, in scikit-learn manners."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from topreach.data.files import atomic_save, load_plain
from topreach.data.panel import Batch, Panel
from topreach.data.standardizer import Standardizer
from topreach.distributions.counts import count_quantile, expected_ratio_ranking
from topreach.evaluation import metrics
from topreach.models import (
    EmpiricalBayesRates,
    LinearScorer,
    MLPScorer,
    NegBinMixedEffects,
    NormalMixture,
    PoissonMixture,
)
from topreach.models.site_history import SiteHistory
from topreach.objectives import NLL, DecisionAware, DirectBPR
from topreach.objectives.base import (
    TimeWeights,
    accepted_arguments,
    derived_key,
    forward,
    is_probabilistic,
    resolved_ranking,
)
from topreach.ops import draw_key, ratio_ranking
from topreach.training.progress import shows_bar
from topreach.training.trainer import Trainer

MODEL_FORMAT = "topreach-model"
MODEL_VERSION = 1

_MODELS = {
    "empirical_bayes": EmpiricalBayesRates,
    "negbin": NegBinMixedEffects,
    "linear": LinearScorer,
    "mlp": MLPScorer,
    "normal_mixture": NormalMixture,
    "poisson_mixture": PoissonMixture,
}
_SAVED = {cls.__name__: (name, cls) for name, cls in _MODELS.items()}


class NotFittedError(ValueError, AttributeError):
    """The ranker was asked for something that only a fitted one has."""


class TopKRanker:
    """Learns from counts over sites and time which K sites to act on.

    Features are standardised and time is scaled by the training rows alone. With a validation panel
    the best epoch is kept: for "nll" the one of highest likelihood; for "bpr" the one that ranks
    best; for "daml" the one of highest likelihood among those that rank at least as well as a
    likelihood fit does, else the one that ranks best [D25 App. C.2.2]. So for "daml" the model is
    fitted twice: first by likelihood, which sets that floor.

    The default, empirical Bayes, has nothing to choose: it is fitted by EM and L-BFGS to all periods
    that it is given, those of the validation panel too, and takes a second for a county and under a
    minute for S = 26,637 cells of 120 months. `objective` "nll", "daml" or "bpr" goes on from
    its fit to the training panel alone.

    Args:
        k: K, the number of sites that can be acted on.
        model: "empirical_bayes" (`EmpiricalBayesRates`: predicts counts from the whole past of a site
            and its neighbours), "negbin" (`NegBinMixedEffects`: predicts counts from features and
            site effects), "linear" or "mlp" (scores from the last counts), "poisson_mixture" or
            "normal_mixture" (the same counts in every period, from the site's own mixture of shared
            components [D25 Eq. 14]; no features), or a module of your own, which is copied and not
            changed.
        objective: "daml", "nll", "bpr", an objective, or "auto": empirical Bayes for the model of that
            name, DAML for another with a likelihood, else direct BPR. Or "marginal", for "negbin":
            its maximum marginal likelihood (`NegBinMixedEffects.fit`), which takes no epochs and no
            validation panel; "nll" is the joint mode of parameters and effects, by steps.
        site_history: how "empirical_bayes" sums up the past, a `topreach.models.SiteHistory`; None
            for its defaults. It is copied and not changed.
        sigma: σ, the noise that smooths the top-K, in the units of the ranking; None: 0.4 / S for
            ratio scores, whose mean is 1 / S, else 0.1.
        epsilon: ε of DAML, the share of the best possible reach to hold; 1 always pulls.
        weight: λ of DAML, the price of falling short.
        ranking: "exact", the ratio ranking E[y_s / Σ y] without draws; "ratio", the same over
            draws; "mean", E[y_s]; or "auto": "exact" where the model's distribution allows it
            (`expected_ratio_ranking`), else "ratio". Scorers rank by their score.
        topk: the soft top-K of the objective: "exact" or "mean_field" (`expected_topk`), or
            "sampled" (`perturbed_topk`, as in the papers).
        num_samples: J, draws of the noise per step, for topk "sampled".
        model_samples: M, draws of the model per step, for ranking "ratio".
        rank_samples: draws of the fitted model, for ranking "ratio" and for chance_top_k.
        link, penalty: of the negative binomial model; penalty None is the model's default.
        site_path: None, "ar1" or "random_walk": effects of "negbin" that vary over time, for objective
            "marginal"; see `NegBinMixedEffects`.
        window: W, earlier counts that a scorer sees.
        hidden: widths of the MLP's hidden layers.
        num_components: L, components of the mixtures.
        optimizer, lr, max_epochs, validate_every, patience, batch_size, clip_gradient,
            time_weights, checkpoint, progress, device: as in `Trainer`; a function of time in
            `time_weights` gets the panel's own time values. The likelihood fit before DAML writes
            its checkpoint beside `checkpoint`, with ".warm" added.
        warm_start_epochs: epochs of the likelihood fit before DAML; 0 leaves it out, and DAML's
            best epoch is then the one that ranks best. Without a validation panel it is left out
            unless `warm_start`.
        warm_start: whether DAML goes on from that fit's parameters, or starts anew.
        seed: of training and of the ranking's draws.

    A panel's exposure is what "negbin", and a module of your own whose `forward` names it, are given:
    expected counts and rankings are then for the exposure of the panel that is ranked. Other models
    warn that they make no use of it. Suppressed counts (`Panel.y_upper`) are taken by "negbin" with
    objective "marginal" or "nll", by "poisson_mixture" with "nll", and by no other; metrics refuse
    them.

    Fitted attributes:
        model_: the module. standardizer_, time_origin_, time_scale_: how the inputs are scaled.
        site_ids_, feature_names_in_: what the training panel had; for "empirical_bayes" without what
            its history holds already (`SiteHistory.absorbed_`): lags and coordinates.
        site_history_: the fitted `SiteHistory` of "empirical_bayes", else None.
        ranking_: what sites are ranked by: "exact", "ratio", "mean" or "score".
        uses_exposure_: whether the model was fitted with an exposure, and so needs one to predict.
        history_, best_epoch_, best_score_, trainer_: of the last fit; warm_start_: the `Trainer` of
            the likelihood fit before it, or None. All None where nothing was trained step by step.
            key_: fixes the ranking's draws.

    Example:
        >>> train, valid, test = tr.datasets.cook_county()
        >>> ranker = tr.TopKRanker(k=100).fit(train, valid)
        >>> ranker.score(test)                      # share of the best possible reach
        >>> ranker.rank(test).query("selected")     # the sites, best first
    """

    def __init__(
        self,
        k: int,
        *,
        model: str | nn.Module = "empirical_bayes",
        objective: str | Callable[..., Any] = "auto",
        site_history: SiteHistory | None = None,
        sigma: float | None = None,
        epsilon: float = 1.0,
        weight: float = 30.0,
        num_samples: int = 100,
        model_samples: int = 100,
        ranking: str = "auto",
        topk: str = "exact",
        rank_samples: int = 1000,
        link: str = "softplus",
        penalty: str | None = None,
        site_path: str | None = None,
        window: int = 5,
        hidden: Sequence[int] = (50, 10),
        num_components: int = 4,
        optimizer: str | Callable[..., torch.optim.Optimizer] = "adam",
        lr: float = 0.02,
        max_epochs: int = 300,
        warm_start_epochs: int = 200,
        warm_start: bool = False,
        validate_every: int = 5,
        patience: int | None = None,
        batch_size: int | None = None,
        clip_gradient: float | None = None,
        time_weights: TimeWeights = None,
        seed: int = 0,
        checkpoint: str | os.PathLike | None = None,
        progress: bool = True,
        device: str | torch.device | None = None,
    ):
        self.k = k
        self.model = model
        self.objective = objective
        self.site_history = site_history
        self.sigma = sigma
        self.epsilon = epsilon
        self.weight = weight
        self.num_samples = num_samples
        self.model_samples = model_samples
        self.ranking = ranking
        self.topk = topk
        self.rank_samples = rank_samples
        self.link = link
        self.penalty = penalty
        self.site_path = site_path
        self.window = window
        self.hidden = hidden
        self.num_components = num_components
        self.optimizer = optimizer
        self.lr = lr
        self.max_epochs = max_epochs
        self.warm_start_epochs = warm_start_epochs
        self.warm_start = warm_start
        self.validate_every = validate_every
        self.patience = patience
        self.batch_size = batch_size
        self.clip_gradient = clip_gradient
        self.time_weights = time_weights
        self.seed = seed
        self.checkpoint = checkpoint
        self.progress = progress
        self.device = device

    # ---- scikit-learn manners --------------------------------------------------------------------

    @classmethod
    def _argument_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {name: getattr(self, name) for name in self._argument_names()}

    def set_params(self, **params: Any) -> TopKRanker:
        """Change constructor arguments; takes effect at the next `fit`."""
        for name, value in params.items():
            if name not in self._argument_names():
                raise ValueError(
                    f"TopKRanker.set_params: {name!r} must be an argument of TopKRanker, got none "
                    "such. There are "
                    f"{', '.join(self._argument_names())}."
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        parameters = inspect.signature(type(self).__init__).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if name != "k"
            and value is not parameters[name].default
            and value != parameters[name].default
        ]
        return f"TopKRanker({', '.join([repr(self.k), *changed])})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    # ---- fitting ---------------------------------------------------------------------------------

    def fit(self, panel: Panel, valid: Panel | None = None, *, resume: bool = False) -> TopKRanker:
        """Fit on a panel; `valid`, later periods of the same sites, chooses the epoch that is kept.

        resume=True goes on from `checkpoint` if that file exists.

        Raises:
            TypeError, ValueError: an argument that is not as above; suppressed counts with a model or
                an objective that needs exact ones; exposure in one panel only.
        """
        self._check_arguments(panel)
        if valid is not None and not isinstance(valid, Panel):
            raise TypeError(
                f"TopKRanker.fit: valid must be a Panel or None, got {type(valid).__name__}."
            )
        if isinstance(self.model, str) and self.model not in ("negbin", "poisson_mixture"):
            for part in (panel, valid):
                self._check_exact(part, "fit", " for this model. Use model='negbin' with objective="
                                  "'marginal'")
        valid = self._with_past(panel, valid)
        self.site_history_ = self._make_history(panel, valid)
        features = list(panel.feature_names)
        if self.site_history_ is not None:
            features = [name for name in features if name not in self.site_history_.absorbed_]
        standardizer = Standardizer().fit(panel.align(feature_names=features))
        origin = panel.time_values.mean().item()
        scale = panel.time_values.std(correction=0).item() or 1.0
        model = self._make_model(panel, len(standardizer.kept_))
        self.uses_exposure_ = panel.exposure is not None and _takes_exposure(model)

        def prepared(data: Panel) -> Batch:
            return _prepare(
                data, standardizer, origin, scale, model, panel.site_ids, self.site_history_
            )

        train_batch = prepared(panel)
        objective = self._make_objective(model, panel.num_sites)
        valid_batch = None
        if valid is not None:
            self._check_exposure(valid, model, "fit")
            valid_batch = prepared(valid)
        self.standardizer_, self.time_origin_, self.time_scale_ = standardizer, origin, scale
        if self.site_history_ is not None:
            learnt = [train_batch]
            if objective is None and valid_batch is not None:
                learnt.append(valid_batch)
            model.fit(torch.cat([b.x for b in learnt]), torch.cat([b.y for b in learnt]))
            if objective is None:
                if self.device is not None:
                    model.to(self.device)
                return self._keep(panel, model, None, None)
        weights = self.time_weights
        if callable(weights):
            weights = torch.as_tensor(weights(panel.time_values), dtype=torch.float32)
        if self.objective == "marginal":
            if weights is not None:
                weights = torch.as_tensor(weights, dtype=torch.float32)
            model.fit(
                *train_batch[:3],
                y_upper=train_batch.y_upper,
                exposure=train_batch.exposure,
                weights=weights,
                site_ids=panel.site_ids,
            )
            return self._keep(panel, model, None, None)

        def train(
            objective: Any, epochs: int, monitor: str | None, checkpoint: Any, floor: float | None
        ) -> Trainer:
            trainer = Trainer(
                objective,
                optimizer=self.optimizer,
                lr=self.lr,
                max_epochs=epochs,
                validate_every=self.validate_every,
                patience=self.patience,
                monitor=monitor,
                bpr_floor=floor,
                k=self.k,
                ranking=self.ranking if is_probabilistic(model) else None,
                validation_samples=self.rank_samples,
                batch_size=self.batch_size,
                time_weights=weights,
                clip_gradient=self.clip_gradient,
                seed=self.seed,
                checkpoint=checkpoint,
                progress=self.progress,
                device=self.device,
            )
            return trainer.fit(model, train_batch, valid_batch, resume=resume)

        warm = None
        needed = self.warm_start or valid is not None
        if isinstance(objective, DecisionAware) and needed and self.warm_start_epochs > 0:
            beside = None if self.checkpoint is None else f"{os.fspath(self.checkpoint)}.warm"
            warm = train(
                NLL(), self.warm_start_epochs, "nll" if valid is not None else None, beside, None
            )
        if warm is not None and warm.interrupted_:
            trainer = warm
        else:
            if warm is not None and not self.warm_start:
                model = self._make_model(panel, len(standardizer.kept_))
                if self.site_history_ is not None:
                    model.fit(train_batch.x, train_batch.y)
            monitor, floor = None, None
            if isinstance(objective, NLL) or (
                isinstance(objective, DecisionAware) and warm is None
            ):
                monitor = "nll" if isinstance(objective, NLL) else "bpr"
            elif isinstance(objective, DecisionAware):
                monitor = "nll"
                if valid is not None:
                    best = warm.history_["epoch"] == warm.best_epoch_
                    floor = float(warm.history_.loc[best, "valid_bpr"].iloc[0])
                    floor = None if np.isnan(floor) else floor
            trainer = train(objective, self.max_epochs, monitor, self.checkpoint, floor)

        return self._keep(panel, model, warm, trainer)

    def _keep(
        self, panel: Panel, model: nn.Module, warm: Trainer | None, trainer: Trainer | None
    ) -> TopKRanker:
        """Set what a fit leaves behind."""
        self.model_ = model.eval()
        self.site_ids_ = list(panel.site_ids)
        self.feature_names_in_ = list(self.standardizer_.feature_names_)
        self.n_features_in_ = len(self.feature_names_in_)
        self.key_ = draw_key(torch.Generator().manual_seed(self.seed))
        self.warm_start_, self.trainer_ = warm, trainer
        for name in ("history_", "best_epoch_", "best_score_"):
            setattr(self, name, None if trainer is None else getattr(trainer, name))
        self.interrupted_ = trainer is not None and trainer.interrupted_
        self.ranking_ = "score"
        if is_probabilistic(model):
            with torch.no_grad():
                output = forward(model, self._batch(panel, panel.num_times - 1))
            self.ranking_ = resolved_ranking("TopKRanker", self.ranking, output)
        return self

    def _with_past(self, panel: Panel, valid: Panel | None) -> Panel | None:
        """`valid`; for a model of the past, with the training counts before it if it has none."""
        if valid is None or self.model != "empirical_bayes" or valid.history_y is not None:
            return valid
        return valid.align(site_ids=panel.site_ids).with_history(panel)

    def _make_history(self, panel: Panel, valid: Panel | None) -> SiteHistory | None:
        if self.model != "empirical_bayes":
            return None
        history = SiteHistory() if self.site_history is None else copy.deepcopy(self.site_history)
        last = panel
        if valid is not None and self.objective == "auto":
            last = valid.align(site_ids=panel.site_ids)
        return history.fit(last)

    def _check_arguments(self, panel: Any) -> None:
        if not isinstance(panel, Panel):
            raise TypeError(
                f"TopKRanker.fit: panel must be a Panel, got {type(panel).__name__}. Make one with "
                "Panel.from_frame."
            )
        if (
            isinstance(self.k, bool)
            or not isinstance(self.k, int)
            or not 1 <= self.k <= panel.num_sites
        ):
            raise ValueError(
                "TopKRanker: k must be a whole number from 1 to the number of sites "
                f"{panel.num_sites}, got {self.k!r}."
            )
        if isinstance(self.model, str) and self.model not in _MODELS:
            raise ValueError(
                f"TopKRanker: model must be one of {', '.join(map(repr, _MODELS))} or a module, "
                f"got {self.model!r}."
            )
        if self.site_history is not None and not isinstance(self.site_history, SiteHistory):
            raise TypeError(
                "TopKRanker: site_history must be a SiteHistory or None, got "
                f"{type(self.site_history).__name__}."
            )
        if self.site_path is not None and (self.model, self.objective) != ("negbin", "marginal"):
            raise ValueError(
                "TopKRanker: site_path must be None but for model='negbin' with objective='marginal', "
                f"got {self.site_path!r} with model={self.model!r} and objective="
                f"{self.objective!r}. Set these two, or leave site_path out."
            )
        for name, allowed in (
            ("ranking", ("auto", "exact", "ratio", "mean")),
            ("topk", ("exact", "mean_field", "sampled")),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(
                    f"TopKRanker: {name} must be one of {', '.join(map(repr, allowed))}, got "
                    f"{value!r}."
                )
        for name, least in (("rank_samples", 1), ("warm_start_epochs", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(
                    f"TopKRanker: {name} must be a whole number >= {least}, got {value!r}."
                )

    def _make_model(self, panel: Panel, num_features: int) -> nn.Module:
        if isinstance(self.model, nn.Module):
            return copy.deepcopy(self.model)
        if self.model == "empirical_bayes":
            return EmpiricalBayesRates(self.site_history_.half_lives_, num_features)
        if self.model == "negbin":
            chosen = {} if self.penalty is None else {"penalty": self.penalty}
            exposure = 1.0 if panel.exposure is None else panel.exposure.double().mean().item()
            return NegBinMixedEffects(
                panel.num_sites,
                num_features,
                link=self.link,
                site_path=self.site_path,
                initial_mean=max(panel.y.mean().item(), 1e-4) / exposure,
                **chosen,
            )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            if self.model in ("normal_mixture", "poisson_mixture"):
                high = max(panel.y.max().item(), 1.0)
                return _MODELS[self.model](panel.num_sites, self.num_components, high=high)
            if self.model == "linear":
                return LinearScorer(self.window, num_features)
            return MLPScorer(self.window, num_features, hidden=tuple(self.hidden))

    def _make_objective(self, model: nn.Module, num_sites: int) -> Any:
        """None where the model is fitted without one."""
        objective = self.objective
        if objective == "auto" and self.model == "empirical_bayes":
            return None
        if not isinstance(objective, str):
            return objective
        if objective == "marginal":
            if not isinstance(model, NegBinMixedEffects):
                raise TypeError(
                    "TopKRanker: objective must be another than 'marginal' for "
                    f"{type(model).__name__}, got 'marginal': NegBinMixedEffects alone has effects "
                    "to integrate out."
                )
            return None
        if objective == "auto":
            objective = "daml" if is_probabilistic(model) else "bpr"
        if objective not in ("daml", "nll", "bpr"):
            raise ValueError(
                "TopKRanker: objective must be 'auto', 'daml', 'nll', 'marginal', 'bpr' or an "
                f"objective, got {objective!r}."
            )
        if objective != "bpr" and not is_probabilistic(model):
            raise TypeError(
                "TopKRanker: objective must be 'bpr' for a model that gives scores "
                f"({type(model).__name__}), got "
                f"{objective!r}: it has no likelihood."
            )
        if objective == "nll":
            return NLL()
        ratio = is_probabilistic(model) and self.ranking != "mean"
        sigma = self.sigma if self.sigma is not None else (0.4 / num_sites if ratio else 0.1)
        settings = {
            "num_samples": self.num_samples,
            "model_samples": self.model_samples,
            "ranking": self.ranking,
            "topk": self.topk,
        }
        if objective == "bpr":
            return DirectBPR(self.k, sigma, **settings)
        return DecisionAware(self.k, sigma, self.epsilon, self.weight, **settings)

    # ---- using what was fitted -------------------------------------------------------------------

    def predict(self, panel: Panel, *, kind: str = "mean") -> np.ndarray:
        """Forecasts of the counts [T, S], sites in the order of `site_ids_`; with the exposure of the
        panel, where the model was fitted with one.

        Args:
            kind: "mean", the expected counts, whose squared error is least; or "median", the least
                count that is reached with a chance of one half, whose absolute error is least.

        Raises:
            TypeError: the model gives scores, which are no counts; see `rank`. Or kind "median" of
                "normal_mixture", which predicts real numbers.
            ValueError: kind is another word.
        """
        if kind not in ("mean", "median"):
            raise ValueError(f"TopKRanker.predict: kind must be 'mean' or 'median', got {kind!r}.")
        counts = self._distribution(panel, "predict")
        with torch.no_grad():
            forecast = counts.mean if kind == "mean" else count_quantile(counts, 0.5)
            return forecast.cpu().numpy()

    def predict_distribution(self, panel: Panel) -> Any:
        """The distribution of the counts [T, S], sites in the order of `site_ids_`: `mean`, `sample`
        and `log_prob`.

        Raises:
            TypeError: the model gives scores, which are no counts; see `rank`.

        Example:
            >>> log_score = ranker.predict_distribution(test).log_prob(test.y).mean()
        """
        return self._distribution(panel, "predict_distribution")

    @torch.no_grad()
    def _distribution(self, panel: Panel, method: str) -> Any:
        model = self._fitted(method)
        if not is_probabilistic(model):
            raise TypeError(
                f"TopKRanker.{method}: the model must predict counts, got {type(model).__name__}, "
                "which gives scores only. Use rank or site_scores."
            )
        return forward(model, self._batch(panel))

    def site_scores(self, panel: Panel) -> np.ndarray:
        """What sites are ranked by, [T, S], more is better: the ratio or mean ranking, or the
        scorer's output."""
        self._fitted("site_scores")
        return torch.stack([score for score, _, _ in self._periods(panel)]).cpu().numpy()

    def rank(self, panel: Panel) -> pd.DataFrame:
        """All sites of every period of the panel, best first.

        Each period is ranked on its own, with the same draws (`key_`), so its list does not depend
        on what other periods the panel has. Equal scores stand in the order of `site_ids_`.

        Returns:
            Columns time, site, score, expected_count, chance_top_k, rank (from 1), selected (rank
            <= k). chance_top_k is the share of `rank_samples` draws of the model in which the site
            is among the K highest counts, ties at the K-th sharing the places left. Scorers predict
            no counts: both columns are NaN.
        """
        model = self._fitted("rank")
        tables = []
        for t, (score, mean, samples) in enumerate(self._periods(panel)):
            nothing = torch.full_like(score, torch.nan)
            if mean is not None and samples is None:
                samples = self._samples(forward(model, self._batch(panel, t)))
            chance = nothing if samples is None else _share_of_draws_in_top(samples, self.k)
            order = torch.sort(score, descending=True, stable=True).indices.cpu()
            at = torch.arange(1, len(order) + 1)
            tables.append(
                pd.DataFrame(
                    {
                        "time": [panel.times[t]] * len(order),
                        "site": [self._sites(panel)[i] for i in order.tolist()],
                        "score": score.cpu()[order].numpy(),
                        "expected_count": (nothing if mean is None else mean).cpu()[order].numpy(),
                        "chance_top_k": chance.cpu()[order].numpy(),
                        "rank": at.numpy(),
                        "selected": (at <= self.k).numpy(),
                    }
                )
            )
        return pd.concat(tables, ignore_index=True)

    def score(self, panel: Panel) -> float:
        """The fraction of the best possible reach, the mean over periods with events.

        Raises:
            ValueError: counts that are missing, or suppressed: judge `panel.at_bound("lower")` and
                `panel.at_bound("upper")`.
        """
        self._fitted("score")
        self._check_counts(panel, "score")
        return float(
            metrics.bpr(self.site_scores(panel), self._counts(panel), self.k, nan_policy="omit")
        )

    @torch.no_grad()
    def score_repeats(
        self,
        panel: Panel,
        repeats: int = 1000,
        *,
        samples: int | None = None,
        progress: bool = False,
    ) -> np.ndarray:
        """BPR of `repeats` rankings with fresh draws, [repeats]: the spread due to drawing.

        `samples` draws each (None: `rank_samples`); only one ranking's draws are in memory at a
        time. A ranking without draws ("exact", "mean", or a scorer) has no spread.
        """
        model = self._fitted("score_repeats")
        self._check_counts(panel, "score_repeats")
        if self.ranking_ != "ratio":
            return np.full(repeats, self.score(panel))
        distribution = forward(model, self._batch(panel))
        counts = torch.from_numpy(self._counts(panel)).to(self._device())
        key = derived_key(self.key_, 1).to(counts.device)
        found = []
        for _ in tqdm(
            range(repeats), desc="rank", unit="times", disable=not (progress and shows_bar())
        ):
            key = derived_key(key, 2)
            ranking = ratio_ranking(distribution.sample(samples or self.rank_samples, key=key))
            found.append(metrics.bpr(ranking, counts, self.k, nan_policy="omit"))
        return np.array(found)

    @torch.no_grad()
    def _periods(self, panel: Panel):
        """Per period: score [S], mean [S] or None, and the draws [M, S] if any were made."""
        for t in range(panel.num_times):
            output = forward(self.model_, self._batch(panel, t))
            if not is_probabilistic(self.model_):
                yield output[0], None, None
            elif self.ranking_ == "mean":
                yield output.mean[0], output.mean[0], None
            elif self.ranking_ == "exact":
                yield expected_ratio_ranking(output)[0], output.mean[0], None
            else:
                samples = self._samples(output)
                yield ratio_ranking(samples), output.mean[0], samples

    @torch.no_grad()
    def _samples(self, distribution: Any) -> Tensor:
        return distribution.sample(self.rank_samples, key=self.key_.to(distribution.mean.device))[
            :, 0
        ]

    def _batch(self, panel: Panel, t: int | None = None) -> Batch:
        if not isinstance(panel, Panel):
            raise TypeError(f"TopKRanker: panel must be a Panel, got {type(panel).__name__}.")
        self._check_exposure(panel, self.model_, "rank")
        if t is not None:
            panel = panel.select_times([panel.times[t]])
        batch = _prepare(
            panel,
            self.standardizer_,
            self.time_origin_,
            self.time_scale_,
            self.model_,
            self.site_ids_,
            self.site_history_,
        )
        device = self._device()
        return Batch(*(None if tensor is None else tensor.to(device) for tensor in batch))

    def _device(self) -> torch.device:
        return next((p.device for p in self.model_.parameters()), torch.device("cpu"))

    def _sites(self, panel: Panel) -> list[str]:
        return self.site_ids_ if _has_site_effects(self.model_) else panel.site_ids

    def _counts(self, panel: Panel) -> np.ndarray:
        return panel.align(site_ids=self._sites(panel)).y.cpu().numpy()

    def _check_counts(self, panel: Panel, method: str) -> None:
        if not isinstance(panel, Panel):
            raise TypeError(
                f"TopKRanker.{method}: panel must be a Panel, got {type(panel).__name__}."
            )
        if not bool(torch.isfinite(panel.y).all()):
            raise ValueError(
                f"TopKRanker.{method}: panel must have counts for all its periods, got some "
                "without."
            )
        self._check_exact(panel, method, ", for what a choice reaches is not known then")

    def _check_exact(self, panel: Panel | None, method: str, why: str) -> None:
        if panel is not None and panel.y_upper is not None:
            raise ValueError(
                f"TopKRanker.{method}: panel must have exact counts, got "
                f"{int((panel.y_upper > panel.y).sum())} that are only known to lie in an interval"
                f"{why}, or take panel.at_bound('lower') and panel.at_bound('upper')."
            )

    def _check_exposure(self, panel: Panel, model: nn.Module, method: str) -> None:
        if _takes_exposure(model) and self.uses_exposure_ != (panel.exposure is not None):
            raise ValueError(
                f"TopKRanker.{method}: panel must have "
                f"{'an' if self.uses_exposure_ else 'no'} exposure, as the training panel, got "
                f"{'none' if self.uses_exposure_ else 'one'}. Name its column in Panel.from_csv("
                "exposure=...) for both, or for neither."
            )

    def _fitted(self, method: str) -> nn.Module:
        if not hasattr(self, "model_"):
            raise NotFittedError(
                f"TopKRanker.{method}: the ranker must be fitted first, got one that is not. Call "
                "fit."
            )
        return self.model_

    # ---- file ------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted ranker to one file, which `load` and the C++ library read. It holds no
        code."""
        model = self._fitted("save")
        name = type(model).__name__
        if name not in _SAVED or type(model) is not _SAVED[name][1]:
            raise TypeError(
                f"TopKRanker.save: the model must be one of the library's ({', '.join(_SAVED)}), "
                f"got {name}. Save a "
                "module of your own with torch.save(ranker.model_.state_dict(), path)."
            )
        config = {key: list(v) if isinstance(v, tuple) else v for key, v in model.config.items()}
        content = {
            "format": MODEL_FORMAT,
            "format_version": MODEL_VERSION,
            "model": name,
            "config": config,
            "state": {
                key: tensor.detach().cpu().clone() for key, tensor in model.state_dict().items()
            },
            "standardizer": self.standardizer_.state_dict(),
            "time": {"origin": float(self.time_origin_), "scale": float(self.time_scale_)},
            "site_ids": list(self.site_ids_),
            "k": int(self.k),
            "ranking": self.ranking_,
            "model_samples": int(self.rank_samples),
            "key": self.key_.cpu(),
            "window": int(getattr(model, "window", 0) or 0),
            "uses_exposure": bool(self.uses_exposure_),
        }
        if self.site_history_ is not None:
            content["site_history"] = self.site_history_.state_dict()
        if hasattr(self, "columns_"):
            content["columns"] = dict(self.columns_)
        atomic_save(content, path)

    @classmethod
    def load(
        cls, path: str | os.PathLike, *, device: str | torch.device | None = None
    ) -> TopKRanker:
        """Read a file that `save`, or the C++ library, wrote. Nothing in the file is run."""
        content = load_plain(path, "TopKRanker.load", MODEL_FORMAT, MODEL_VERSION, "path")
        name = os.fspath(path)
        if content.get("model") not in _SAVED:
            raise ValueError(
                f"TopKRanker.load: path must hold one of {', '.join(_SAVED)}, got "
                f"{content.get('model')!r} in {name}."
            )
        short, model_class = _SAVED[content["model"]]
        try:
            config = {
                key: tuple(v) if isinstance(v, list) else v for key, v in content["config"].items()
            }
            model = model_class(**config)
            model.load_state_dict(content["state"])
            ranking = content["ranking"]
            allowed = ("exact", "ratio", "mean") if model.is_probabilistic else ("score",)
            if ranking not in allowed:
                raise ValueError(f"ranking is {ranking!r}")
            arguments = {
                key: config[key]
                for key in ("link", "penalty", "site_path", "window", "hidden", "num_components")
                if key in config
            }
            if "site_path" in config:
                arguments["objective"] = "marginal"
            ranker = cls(
                content["k"],
                model=short,
                ranking=ranking if ranking != "score" else "auto",
                rank_samples=content["model_samples"],
                device=device,
                **arguments,
            )
            ranker.standardizer_ = Standardizer.from_state_dict(content["standardizer"])
            ranker.time_origin_, ranker.time_scale_ = (
                content["time"]["origin"],
                content["time"]["scale"],
            )
            ranker.site_ids_, ranker.key_ = list(content["site_ids"]), content["key"]
            ranker.ranking_ = ranking
            ranker.uses_exposure_ = content.get("uses_exposure", False)
            if not isinstance(ranker.uses_exposure_, bool):
                raise ValueError(f"uses_exposure is {ranker.uses_exposure_!r}")
            ranker.site_history_ = None
            if model_class is EmpiricalBayesRates:
                ranker.site_history_ = SiteHistory.from_state_dict(content["site_history"])
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ValueError(
                "TopKRanker.load: path must hold a whole model, got one with parts that are "
                "missing or do not fit in "
                f"{name} ({error})."
            ) from error
        if "columns" in content:
            ranker.columns_ = {
                str(role): str(column) for role, column in content["columns"].items()
            }
        ranker.feature_names_in_ = list(ranker.standardizer_.feature_names_)
        ranker.n_features_in_ = len(ranker.feature_names_in_)
        ranker.model_ = model.eval() if device is None else model.to(device).eval()
        return ranker


def _prepare(
    panel: Panel,
    standardizer: Standardizer,
    origin: float,
    scale: float,
    model: nn.Module,
    site_ids: Sequence[str],
    site_history: SiteHistory | None = None,
) -> Batch:
    """The panel as the model takes it: sites in the model's order, features standardised, time
    scaled; with the statistics of the past before the features, if the model reads them."""
    if _has_site_effects(model):
        panel = panel.align(site_ids=site_ids)
    batch = standardizer.transform(panel).batch(window=getattr(model, "window", None) or None)
    time = ((panel.time_values - origin) / scale).to(torch.float32)
    if site_history is not None:
        batch = batch._replace(x=torch.cat([site_history.statistics(panel), batch.x], dim=-1))
    return batch._replace(time=time.to(batch.x.device))


def _takes_exposure(model: nn.Module) -> bool:
    return "exposure" in accepted_arguments(type(model).forward, ("exposure",))


def _has_site_effects(model: nn.Module) -> bool:
    """Whether the model knows its sites one by one, so that it can rank no others."""
    return not isinstance(model, LinearScorer | MLPScorer)


def _share_of_draws_in_top(samples: Tensor, k: int) -> Tensor:
    """[S]: share of the draws [M, S] in which the site is in the top K, ties at the K-th sharing
    the places left."""
    total = torch.zeros(samples.shape[1], dtype=torch.float64, device=samples.device)
    for part in samples.split(max(1, 4_000_000 // samples.shape[1])):
        last = part.topk(k, dim=-1).values[:, -1:]
        above, level = part > last, part == last
        share = (k - above.sum(-1, keepdim=True)) / level.sum(-1, keepdim=True)
        total += (above + level * share).sum(0, dtype=torch.float64)
    return (total / len(samples)).to(samples.dtype)
