"""The 2025 paper's experiments on real data (section 5.2, 5.3 and App. C): one protocol, any panel.

Every model is trained on the training periods. Its epoch and its settings are chosen on the
validation periods. Only the chosen model is evaluated on the test periods, once. A `Study` says
what differs between the data sets; `run` does the rest.

The negative binomial mixed-effects model is trained in two forms:

"code"   like the published code: softplus link, quadratic penalty, M draws of the model and J of
         the noise per step, the gradient of each ratio from its own site only, offset 1.
"exact"  as `TopKRanker` trains this model: softplus link, Laplace penalty, exact ratio ranking and
         exact top-K, so no draws.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from topreach import Panel, Splits, TopKRanker
from topreach.evaluation import baselines, metrics
from topreach.models import NegBinMixedEffects
from topreach.objectives import (
    NLL,
    DecisionAware,
    DirectBPR,
    PerturbationGradient,
    SPOPlus,
    forward,
)
from topreach.ops import draw_key, ratio_ranking

from .context import Context, panel_digest
from .forecasters import (
    Inputs,
    best,
    best_decision_aware,
    figures,
    fit,
    make_scorer,
    median_of,
    poisson_forecast,
    poisson_nll,
    poisson_peers,
    restore,
    scorer_scores,
    site_places,
    tie_repeats,
)
from .graph_network import mean_squared_error
from .real_data_plots import plot_study

# App. C.2.2 of the paper. The widths of PG's difference are in units of shares; see the README.
LEARNING_RATES = (0.1, 0.01, 0.001)
SIGMAS = (0.1, 0.01, 0.001)
WIDTHS = (1.0, 0.1, 0.01)
WEIGHT = 30.0
DRAWS = 100
# ε: 1, and four around the best training BPR.
AROUND = (-0.03, -0.01, 0.01, 0.03)
ALPHAS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
LEAVES = (4, 8, 16, 32)
TREE_RATES = (0.02, 0.05, 0.1)


@dataclass(frozen=True)
class Study:
    """What differs between the data sets.

    title: for plots.
    load: gives the splits from the folder of the data, or from None.
    k: K.
    average: window of the paper's historical average.
    unit: what is counted.
    place: the names of the features latitude and longitude.
    lags: prefix of the features that hold earlier counts.
    left_out: features that scorers do not get, because they grow with time.
    published: MAE, RMSE, BPR of Table C.2 by row.
    sampled_epochs: maximum number of epochs if every step makes draws, which with many periods
        costs ten times an exact step.
    start_from_likelihood: whether PG and SPO+ start at the model that NLL chose.
    repeats: maximum number of repeated rankings.
    time_as_given: whether the sites' slopes use the data's own time, as in the published code,
        instead of time standardised by the training periods.
    """

    title: str
    load: Callable[[Path | None], Splits]
    k: int
    average: int
    unit: str
    place: tuple[str, str]
    lags: str
    published: Mapping[str, tuple[float, float, float]]
    left_out: tuple[str, ...] = ()
    sampled_epochs: int = 300
    start_from_likelihood: bool = False
    repeats: int = 100
    time_as_given: bool = False


@dataclass(frozen=True)
class Effort:
    """How much is done: `--quick` does less of everything."""

    learning_rates: tuple[float, ...] = LEARNING_RATES
    sigmas: tuple[float, ...] = SIGMAS
    widths: tuple[float, ...] = WIDTHS
    around: tuple[float, ...] = AROUND
    alphas: tuple[float, ...] = ALPHAS
    leaves: tuple[int, ...] = LEAVES
    tree_rates: tuple[float, ...] = TREE_RATES
    draws: int = DRAWS
    max_epochs: int = 300
    patience: int = 5
    repeats: int = 1000
    ranking_draws: int = 1000


QUICK = Effort(
    learning_rates=(0.03,),
    sigmas=(0.001,),
    widths=(0.1,),
    around=(-0.03,),
    alphas=(1e-3,),
    leaves=(8,),
    tree_rates=(0.05,),
    draws=10,
    max_epochs=20,
    repeats=20,
    ranking_draws=100,
)


class CodeNegBin(NegBinMixedEffects):
    """The model with the published code's weight of the random effects' penalty.

    That code's loss of a period is −mean_s log p + ½ mean_{s,i} (b Σ⁻¹ ∘ b)_{si}. In units of a
    summed likelihood, its penalty is S T / 2 times the penalty "paper", ½ mean_s bᵀΣ⁻¹b.
    """

    def __init__(self, *arguments: Any, periods: int, **options: Any):
        super().__init__(*arguments, link="softplus", penalty="paper", **options)
        self._factor = self.config["num_sites"] * periods / 2

    def penalty(self) -> Tensor:
        return self._factor * super().penalty()


def run(
    context: Context, study: Study, *, forms: tuple[str, ...] = ("code", "exact"), prefix: str = ""
) -> None:
    """The whole experiment. Writes the tables results and chosen and the figures frontier, reach
    and map; their names begin with `prefix`."""
    effort = QUICK if context.quick else Effort()
    splits = context.splits(study.load)
    work = _Work(context, study, effort, splits, forms)
    chosen = work.train_and_choose()
    rows = work.test(chosen)
    title = study.title
    if splits.train.source == "simulated":
        title = f"SIMULATED stand-in for {title}"
    labels = {key: label for key, label in _labels(study).items() if key in (*rows, "epignn")}
    if not study.published:
        labels.pop("epignn")
    _results(context, study, rows, labels, title, prefix)
    _choice(context, chosen, rows, title, prefix)
    if context.can_plot():
        plot_study(
            context,
            rows,
            labels,
            splits.test,
            title,
            prefix,
            k=study.k,
            place=study.place,
            unit=study.unit,
        )


# ---- training ------------------------------------------------------------------------------------


class _Work:
    """Cells of training, the choice, and cells of testing."""

    def __init__(
        self,
        context: Context,
        study: Study,
        effort: Effort,
        splits: Splits,
        forms: tuple[str, ...],
    ):
        effort = replace(effort, repeats=min(effort.repeats, study.repeats))
        self.context, self.study, self.effort, self.splits = context, study, effort, splits
        self.forms = forms
        self.has_place = set(study.place) <= set(splits.train.feature_names)
        self.inputs = Inputs(
            splits.train,
            study.lags,
            study.left_out,
            context.device,
            time_as_given=study.time_as_given,
        )
        self.settings = {
            "study": study.title,
            "k": study.k,
            "average": study.average,
            "sampled_epochs": study.sampled_epochs,
            "start_from_likelihood": study.start_from_likelihood,
            "time_as_given": study.time_as_given,
            "data": panel_digest(*splits),
            **vars(self.effort),
        }

    def cells(self, cells: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        return self.context.cells(cells, self.settings)

    def make(self, form: str) -> nn.Module:
        """The untrained mixed-effects model of a form."""
        y = self.splits.train.y
        sizes, mean = (y.shape[1], self.inputs.num_features), max(y.mean().item(), 1e-4)
        if form == "code":
            model = CodeNegBin(*sizes, periods=len(y), initial_mean=mean)
        else:
            model = NegBinMixedEffects(*sizes, link="softplus", initial_mean=mean)
        return model.to(self.context.device)

    def make_scorer(self, kind: str) -> nn.Module:
        place = site_places(self.splits.train, self.study.place) if kind == "graph" else None
        model = make_scorer(kind, self.inputs, self.context.seed, place)
        return model.to(self.context.device)

    def objective(self, form: str, method: str, **chosen: float) -> Any:
        """The objective of a method in a form."""
        k, draws = self.study.k, self.effort.draws
        if method == "nll":
            return NLL()
        if form == "code":
            ranking = {
                "ranking": "ratio",
                "model_samples": draws,
                "ranking_estimator": "diagonal",
                "offset": 1.0,
            }
            reach = ranking | {"topk": "sampled", "num_samples": draws, "estimator": "score"}
        else:
            ranking = {"ranking": "exact"}
            reach = ranking | {"topk": "exact"}
        if method == "pg":
            return PerturbationGradient(k, sigma=chosen["width"], **ranking)
        if method == "spo":
            return SPOPlus(k, **ranking)
        if method == "bpr":
            return DirectBPR(k, chosen["sigma"], **reach)
        # The published code adds λ times the hinge to a likelihood that is a mean over sites.
        weight = WEIGHT * self.splits.train.num_sites
        return DecisionAware(k, chosen["sigma"], chosen["epsilon"], weight, **reach)

    def train_and_choose(self) -> dict[str, dict[str, Any]]:
        """The run that was chosen on the validation periods, by row of the table."""
        chosen: dict[str, dict[str, Any]] = {}
        for form in self.forms:
            chosen |= self._choose_form(form)
        effort = self.effort
        cells = {}
        for lr in effort.learning_rates:
            if self.has_place:
                cells[f"graph.lr={lr:g}"] = partial(self._fit_scorer, "graph", lr)
            for kind in ("linear", "mlp"):
                for sigma in effort.sigmas:
                    cells[f"{kind}.lr={lr:g}.sigma={sigma:g}"] = partial(
                        self._fit_scorer, kind, lr, sigma
                    )
        peers = poisson_peers(
            self.inputs,
            self.splits.train,
            self.splits.valid,
            alphas=effort.alphas,
            leaves=effort.leaves,
            rates=effort.tree_rates,
            seed=self.context.seed,
        )
        found = self.cells(cells | peers)
        if self.has_place:
            chosen["graph"] = best(found, "graph.", "loss", -1)
        for kind in ("linear", "mlp"):
            chosen[kind] = best(found, f"{kind}.", "bpr", 1)
        for kind in ("glm", "trees") if peers else ():
            chosen[kind] = best(found, f"{kind}.", "nll", -1)
        return chosen

    def _choose_form(self, form: str) -> dict[str, dict[str, Any]]:
        effort = self.effort
        cells = {}
        for lr in effort.learning_rates:
            cells |= self._cell(form, "nll", lr)
        likeliest = best(self.cells(cells), f"{form}.nll.", "nll", -1)
        chosen = {f"{form}.nll": likeliest}
        start = likeliest if self.study.start_from_likelihood else None
        cells = {}
        for lr in effort.learning_rates:
            cells |= self._cell(form, "spo", lr, start=start)
            for sigma in effort.sigmas:
                cells |= self._cell(form, "bpr", lr, sigma=sigma)
            for width in effort.widths:
                cells |= self._cell(form, "pg", lr, start=start, width=width)
        found = self.cells(cells)
        for method in ("bpr", "pg", "spo"):
            chosen[f"{form}.{method}"] = best(found, f"{form}.{method}.", "bpr", 1)
        floor = chosen[f"{form}.nll"]["valid"]["bpr"]
        top = chosen[f"{form}.bpr"]["train"]["bpr"]
        levels = {"1": 1.0} | {f"best{add:+g}": min(top + add, 1.0) for add in effort.around}
        found = self.cells(
            {
                key: cell
                for label, epsilon in levels.items()
                for lr in effort.learning_rates
                for sigma in effort.sigmas
                for key, cell in self._cell(
                    form, "daml", lr, label=label, epsilon=epsilon, sigma=sigma
                ).items()
            }
        )
        for label in levels:
            prefix = f"{form}.daml.eps={_file_name(label)}."
            chosen[f"{form}.daml.{label}"] = best_decision_aware(found, prefix, floor)
        chosen[f"{form}.daml"] = best_decision_aware(found, f"{form}.daml.", floor)
        return chosen

    def _cell(
        self,
        form: str,
        method: str,
        lr: float,
        *,
        label: str | None = None,
        start: Mapping[str, Any] | None = None,
        **chosen: float,
    ) -> dict[str, Callable[[], Any]]:
        parts = [form, method]
        if label is not None:
            parts.append(f"eps={_file_name(label)}")
        parts.append(f"lr={lr:g}")
        parts += [f"{name}={chosen[name]:g}" for name in ("sigma", "width") if name in chosen]
        # PG and SPO+ are surrogate losses of the regret, so their epoch is chosen by BPR.
        monitor = {"nll": "nll", "daml": "loss"}.get(method, "bpr")

        def cell() -> dict[str, Any]:
            objective = self.objective(form, method, **chosen)
            drawn = form == "code" and method != "nll"
            most = self.study.sampled_epochs if drawn else self.effort.max_epochs
            model = self.make(form)
            if start is not None:
                restore(model, start)
            found = self._fit(model, objective, self.inputs.regression, lr, monitor, most)
            return found | {"form": form, "method": method, "lr": lr, **chosen}

        return {".".join(parts): cell}

    def _fit_scorer(self, kind: str, lr: float, sigma: float | None = None) -> dict[str, Any]:
        if kind == "graph":
            objective, monitor, chosen = mean_squared_error, "loss", {}
        else:
            objective = DirectBPR(self.study.k, sigma, topk="exact")
            monitor, chosen = "bpr", {"sigma": sigma}
        found = self._fit(self.make_scorer(kind), objective, self.inputs.scorer, lr, monitor)
        return found | {"lr": lr, **chosen}

    def _fit(
        self,
        model: nn.Module,
        objective: Any,
        batch: Callable[[Panel], Any],
        lr: float,
        monitor: str,
        max_epochs: int = sys.maxsize,
    ) -> dict[str, Any]:
        return fit(
            model,
            objective,
            batch(self.splits.train),
            batch(self.splits.valid),
            lr=lr,
            monitor=monitor,
            k=self.study.k,
            max_epochs=min(max_epochs, self.effort.max_epochs),
            patience=self.effort.patience,
            seed=self.context.seed,
        )

    # ---- test ------------------------------------------------------------------------------------

    def test(self, chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Figures on the test periods and scores, by row of the table."""
        panel, window = self.splits.test, self.study.average
        naive = {
            "last": baselines.last_period(panel),
            "average": baselines.historical_mean(panel, window),
            "all": baselines.historical_mean(panel),
            "chance": baselines.chance(panel),
        }
        cells = {key: partial(self._test_naive, forecast) for key, forecast in naive.items()}
        tests = dict.fromkeys(("graph", "linear", "mlp"), self._test_scorer)
        tests |= dict.fromkeys(("glm", "trees"), self._test_peer)
        for key, found in chosen.items():
            if not key.endswith(".daml"):
                cells[key] = partial(tests.get(key, self._test_negbin), key, found)
        cells["default"] = self._test_default
        found = self.cells({f"test.{_file_name(key)}": cell for key, cell in cells.items()})
        rows = dict(zip(cells, found.values(), strict=True))
        # The ε that validation chose has already been tested under its own name.
        for key in [key for key in chosen if key.endswith(".daml")]:
            same = [other for other in chosen if other.startswith(f"{key}.")]
            rows[key] = rows[next(o for o in same if chosen[o]["run"] == chosen[key]["run"])]
        return rows

    def _figures(self, scores: Tensor, repeats: np.ndarray | None, **more: Any) -> dict[str, Any]:
        y, k = self.splits.test.y, self.study.k
        if repeats is None:
            repeats = tie_repeats(scores, y, k, self.effort.repeats, self.context.seed)
        return figures(scores, y, k, repeats, **more)

    def _test_naive(self, forecast: Tensor) -> dict[str, Any]:
        return self._figures(forecast, None, mean=forecast)

    @torch.no_grad()
    def _test_negbin(self, key: str, found: Mapping[str, Any]) -> dict[str, Any]:
        model = restore(self.make(found["form"]), found)
        batch = self.inputs.regression(self.splits.test)
        distribution = forward(model, batch)
        repeats = None
        if found["form"] == "code":
            # The paper's ranking, with new draws each time.
            generator = torch.Generator().manual_seed(self.context.seed)
            repeats = []
            for _ in range(self.effort.repeats):
                noise = draw_key(generator, batch.y.device)
                ranking = ratio_ranking(distribution.sample(self.effort.ranking_draws, key=noise))
                repeats.append(metrics.bpr(ranking, batch.y, self.study.k, nan_policy="omit"))
            repeats = np.array(repeats)
        mean, nll = distribution.mean.cpu(), -distribution.site_log_prob(batch.y).mean().item()
        return self._figures(mean, repeats, mean=mean, median=median_of(distribution), nll=nll)

    def _test_scorer(self, key: str, found: Mapping[str, Any]) -> dict[str, Any]:
        model = restore(self.make_scorer(key), found)
        scores = scorer_scores(model, self.inputs.scorer(self.splits.test))
        return self._figures(scores, None, mean=scores if key == "graph" else None)

    def _test_peer(self, key: str, found: Mapping[str, Any]) -> dict[str, Any]:
        mean = poisson_forecast(found, self.inputs, self.splits.train, self.splits.test)
        median = median_of(torch.distributions.Poisson(mean, validate_args=False))
        nll = poisson_nll(mean, self.splits.test.y)
        return self._figures(mean, None, mean=mean, median=median, nll=nll)

    @torch.no_grad()
    def _test_default(self) -> dict[str, Any]:
        ranker = TopKRanker(
            self.study.k,
            seed=self.context.seed,
            device=self.context.device,
            progress=False,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Standardizer.fit: dropped")
            ranker.fit(self.splits.train, self.splits.valid)
        test = self.splits.test
        mean, median = (torch.from_numpy(ranker.predict(test, kind=k)) for k in ("mean", "median"))
        counts = ranker.predict_distribution(test)
        nll = -counts.site_log_prob(test.y.to(counts.mean)).mean().item()
        scores = torch.from_numpy(ranker.site_scores(test))
        return self._figures(scores, None, mean=mean, median=median, nll=nll)


def _file_name(label: str) -> str:
    return label.replace("+", "plus")


# ---- tables --------------------------------------------------------------------------------------

_METHODS = {
    "pg": "PG",
    "spo": "SPO+",
    "nll": "NLL",
    "daml.1": "DAML, ε = 1",
    "daml": "DAML, ε chosen",
    "bpr": "BPR only",
}


def _labels(study: Study) -> dict[str, str]:
    """The labels of the table's rows by key, in order. The row "epignn" has no run of ours."""
    labels = {
        "last": "last period",
        "average": f"mean of last {study.average}",
        "all": "mean of all before",
        "chance": "chance, forecast 0",
        "epignn": "EpiGNN, as published",
        "graph": "graph network (our stand-in)",
    }
    for form, note in (("code", ", as its code"), ("exact", ", exact")):
        labels |= {f"{form}.{key}": name + note for key, name in _METHODS.items()}
    return labels | {
        "glm": "Poisson GLM",
        "trees": "boosted trees, Poisson",
        "linear": "linear scorer, BPR",
        "mlp": "MLP scorer, BPR",
        "default": "topreach default",
    }


def _results(
    context: Context,
    study: Study,
    rows: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, str],
    title: str,
    prefix: str,
) -> None:
    nothing = (math.nan,) * 3
    lines = {}
    for key, label in labels.items():
        row = rows.get(key, {})
        name = "daml" if key == "code.daml.1" else key.removeprefix("code.")
        paper = nothing if key == "code.daml" else study.published.get(name, nothing)
        lines[label] = {
            "MAE": row.get("mae", math.nan),
            "MAE, median": row.get("mae_median", math.nan),
            "RMSE": row.get("rmse", math.nan),
            "NLL": row.get("nll", math.nan),
            "BPR": row.get("bpr", math.nan),
            "BPR, repeats": row.get("bpr_repeats", math.nan),
            "2.5 %": row.get("bpr_low", math.nan),
            "97.5 %": row.get("bpr_high", math.nan),
        }
        if study.published:
            lines[label] |= dict(zip(("paper MAE", "paper RMSE", "paper BPR"), paper, strict=True))
    table = pd.DataFrame(lines).T.rename_axis("method")
    context.table(table, f"{prefix}results", title=f"{title}: test periods, K = {study.k}")


def _choice(
    context: Context,
    chosen: Mapping[str, Mapping[str, Any]],
    rows: Mapping[str, Mapping[str, Any]],
    title: str,
    prefix: str,
) -> None:
    lines = {}
    for key, found in chosen.items():
        train = found.get("train", {})
        lines[_choice_label(key)] = {
            "run": found["run"],
            "epoch": found.get("epoch", math.nan),
            "train NLL": train.get("nll", math.nan),
            "train BPR": train.get("bpr", math.nan),
            "valid NLL": found["valid"].get("nll", math.nan),
            "valid BPR": found["valid"].get("bpr", math.nan),
            "test NLL": rows[key]["nll"],
            "test BPR": rows[key]["bpr"],
        }
    frame = pd.DataFrame(lines).T.rename_axis("row").infer_objects()
    title = f"{title}: what was chosen on the validation periods"
    context.table(frame, f"{prefix}chosen", title=title)


def _choice_label(key: str) -> str:
    form, _, method = key.partition(".")
    if form not in ("code", "exact"):
        return key
    method, _, level = method.partition(".")
    name = _METHODS[f"{method}.{level}" if f"{method}.{level}" in _METHODS else method]
    if level.startswith("best"):
        name = f"DAML, ε = best train BPR {level.removeprefix('best')}"
    return f"{name} ({form})"
