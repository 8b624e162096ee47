"""Shared by the experiments on panels of counts: inputs of the models, training that keeps the
best epoch, peers from scikit-learn, the choice on validation data, and figures on test data."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from topreach import Batch, Panel, Standardizer, Trainer, count_quantile, topk_mask
from topreach.evaluation import metrics
from topreach.models import LinearScorer, MLPScorer
from topreach.objectives import forward
from topreach.training import NonFiniteLossError

from .graph_network import GraphNetwork

WINDOW = 5


class Inputs:
    """Turns a panel into the models' inputs; all scales are those of the training rows.

    Args:
        train: the training panel.
        lags: prefix of the features that hold earlier counts; "" if there are none.
        left_out: features that grow with time, which scorers do not get.
        device: of the batches.
        time_as_given: whether slopes use the panel's own time instead of standardised time.

    Attributes:
        num_features: number of columns of `regression`.
        num_slow_features: number of features of `scorer`.
    """

    def __init__(
        self,
        train: Panel,
        lags: str = "",
        left_out: tuple[str, ...] = (),
        device: torch.device | None = None,
        *,
        time_as_given: bool = False,
    ):
        self._as_given = time_as_given
        self._device = device or torch.device("cpu")
        self._origin = train.time_values.mean().item()
        self._scale = train.time_values.std(correction=0).item() or 1.0
        slow = [
            name
            for name in train.feature_names
            if not (lags and name.startswith(lags)) and name not in left_out
        ]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Standardizer.fit: dropped")
            self._all = Standardizer().fit(train)
            self._slow = Standardizer().fit(train.align(feature_names=slow))
        self.num_features = len(self._all.kept_) + 1
        self.num_slow_features = len(self._slow.kept_)

    def regression(self, panel: Panel) -> Batch:
        """All features, with time as an additional one: x [T, S, num_features]."""
        batch = self._all.transform(panel).batch()
        time = self._time(panel)
        x = torch.cat([batch.x, self._column(time, panel)], dim=-1)
        if self._as_given:
            time = panel.time_values.float()
        return self._placed(batch._replace(x=x, time=time))

    def scorer(self, panel: Panel) -> Batch:
        """The last counts [T, S, WINDOW], and the features that are not counts and do not grow
        with time."""
        return self._placed(self._slow.transform(panel).batch(window=WINDOW))

    def table(self, panel: Panel) -> np.ndarray:
        """For scikit-learn, [T S, columns]: log(1 + last counts), the other features, time."""
        batch = self._slow.transform(panel).batch(window=WINDOW)
        time = self._column(self._time(panel), panel)
        return torch.cat([batch.history.log1p(), batch.x, time], dim=-1).flatten(0, 1).numpy()

    def _time(self, panel: Panel) -> Tensor:
        return ((panel.time_values - self._origin) / self._scale).float()

    def _column(self, time: Tensor, panel: Panel) -> Tensor:
        return time[:, None, None].expand(*panel.y.shape, 1)

    def _placed(self, batch: Batch) -> Batch:
        return Batch(*(None if tensor is None else tensor.to(self._device) for tensor in batch))


def fit(
    model: nn.Module,
    objective: Any,
    train: Batch,
    valid: Batch,
    *,
    lr: float,
    monitor: str,
    k: int,
    max_epochs: int,
    patience: int,
    seed: int,
) -> dict[str, Any]:
    """Train with a validation every 10 epochs.

    Returns plain values: epoch, epochs, seconds, and of the best epoch the metrics "train" and
    "valid" and the parameters "state"; or only "failed".
    """
    trainer = Trainer(
        objective,
        lr=lr,
        max_epochs=max_epochs,
        validate_every=10,
        patience=patience,
        monitor=monitor,
        k=k,
        # If all sites share q, the mean orders the sites like the exact ratio ranking.
        ranking="mean",
        seed=seed,
        progress=False,
    )
    try:
        trainer.fit(model, train, valid)
    except NonFiniteLossError as error:
        return {"failed": str(error)}
    history = trainer.history_
    row = history[history["epoch"] == trainer.best_epoch_].iloc[0]
    found: dict[str, Any] = {
        "epoch": trainer.best_epoch_,
        "epochs": trainer.epochs_,
        "seconds": float(history["seconds"].iloc[-1]),
    }
    for part in ("train", "valid"):
        names = [name for name in row.index if name.startswith(f"{part}_")]
        found[part] = {name.removeprefix(f"{part}_"): float(row[name]) for name in names}
    found["state"] = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    return found


def restore(model: nn.Module, found: Mapping[str, Any]) -> nn.Module:
    """The model with the parameters that `fit` gave."""
    device = next(model.parameters()).device
    model.load_state_dict(
        {name: torch.tensor(value, device=device) for name, value in found["state"].items()}
    )
    return model.eval()


def make_scorer(kind: str, inputs: Inputs, seed: int, place: Tensor | None = None) -> nn.Module:
    """An untrained model of earlier counts. "linear" and "mlp" are the 2023 paper's, which take
    unscaled counts; "graph" is `GraphNetwork` over sites at `place` [S, 2]."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if kind == "linear":
            return LinearScorer(WINDOW, 0, scale=1.0)
        if kind == "mlp":
            return MLPScorer(WINDOW, inputs.num_slow_features, scale=1.0)
        return GraphNetwork(place, WINDOW, inputs.num_slow_features)


def site_places(panel: Panel, place: tuple[str, str]) -> Tensor:
    """Latitude and longitude of the sites, [S, 2]."""
    return panel.x[-1][:, [panel.feature_names.index(name) for name in place]]


# ---- the choice ----------------------------------------------------------------------------------


def best(found: Mapping[str, Any], prefix: str, quantity: str, sign: int) -> dict[str, Any]:
    """The run with the largest sign × validation `quantity`; the first of equal runs."""
    runs = _finished(found, prefix, quantity)
    return max(runs, key=lambda run: sign * run["valid"][quantity])


def best_decision_aware(found: Mapping[str, Any], prefix: str, floor: float) -> dict[str, Any]:
    """The run with the highest likelihood among those whose validation BPR is at least `floor`, the
    BPR of the model trained by likelihood. If there is none, the run with the highest BPR [2025
    paper, App. C.2.2]."""
    runs = _finished(found, prefix, "nll")
    good = [run for run in runs if run["valid"]["bpr"] >= floor]
    if good:
        return min(good, key=lambda run: run["valid"]["nll"])
    return max(runs, key=lambda run: run["valid"]["bpr"])


def _finished(found: Mapping[str, Any], prefix: str, quantity: str) -> list[dict[str, Any]]:
    runs = [
        {"run": key, **run}
        for key, run in found.items()
        if key.startswith(prefix) and math.isfinite(run.get("valid", {}).get(quantity, math.nan))
    ]
    if not runs:
        raise RuntimeError(f"no run of {prefix}* ended with a finite validation {quantity}")
    return runs


# ---- scikit-learn's count models -----------------------------------------------------------------


def poisson_peers(
    inputs: Inputs,
    train: Panel,
    valid: Panel,
    *,
    alphas: tuple[float, ...],
    leaves: tuple[int, ...],
    rates: tuple[float, ...],
    seed: int,
) -> dict[str, Callable[[], dict[str, Any]]]:
    """Cells that fit a Poisson GLM ("glm.*") and boosted trees with Poisson likelihood ("trees.*")
    and give their validation likelihood; no cells if scikit-learn is not installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        print("scikit-learn is not installed: no GLM and no trees", file=sys.stderr)
        return {}
    settings = {f"glm.alpha={a:g}": {"alpha": a} for a in alphas} | {
        f"trees.leaves={n}.rate={r:g}": {"leaves": n, "rate": r, "seed": seed}
        for n in leaves
        for r in rates
    }

    def cell(chosen: dict[str, Any]) -> dict[str, Any]:
        mean = poisson_forecast(chosen, inputs, train, valid)
        return chosen | {"valid": {"nll": poisson_nll(mean, valid.y)}}

    return {key: partial(cell, chosen) for key, chosen in settings.items()}


def poisson_forecast(
    chosen: Mapping[str, Any], inputs: Inputs, train: Panel, panel: Panel
) -> Tensor:
    """Mean counts [T, S] for `panel` from a GLM or trees fitted to `train`. They are fitted again,
    which takes a second, because fitted scikit-learn models are not stored."""
    if "alpha" in chosen:
        from sklearn.linear_model import PoissonRegressor
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        regressor = PoissonRegressor(alpha=chosen["alpha"], max_iter=1000)
        model = make_pipeline(StandardScaler(), regressor)
    else:
        from sklearn.ensemble import HistGradientBoostingRegressor

        model = HistGradientBoostingRegressor(
            loss="poisson",
            max_leaf_nodes=chosen["leaves"],
            learning_rate=chosen["rate"],
            random_state=chosen["seed"],
        )
    model.fit(inputs.table(train), train.y.flatten().numpy())
    mean = torch.from_numpy(np.asarray(model.predict(inputs.table(panel))))
    return mean.reshape(panel.y.shape).clamp_min(1e-9)


def poisson_nll(mean: Tensor, y: Tensor) -> float:
    """Mean over sites and periods of −log Poisson(y; mean)."""
    mean, y = mean.double(), y.double()
    return float((mean - torch.xlogy(y, mean) + torch.lgamma(y + 1)).mean())


# ---- figures -------------------------------------------------------------------------------------


def tie_repeats(scores: Tensor, y: Tensor, k: int, repeats: int, seed: int) -> np.ndarray:
    """BPR of a ranking [T, S] with its ties broken at random, [repeats]. `topk_mask` takes the
    first of equal scores, so the sites are shuffled."""
    generator = torch.Generator().manual_seed(seed)
    most, found = y.topk(k).values.sum(-1), []
    for _ in range(repeats):
        order = torch.randperm(y.shape[1], generator=generator)
        reached = (topk_mask(scores[:, order], k) * y[:, order]).sum(-1)
        found.append((reached / most).nanmean().item())
    return np.array(found)


def figures(
    scores: Tensor,
    y: Tensor,
    k: int,
    repeats: np.ndarray,
    *,
    mean: Tensor | None = None,
    median: Tensor | None = None,
    nll: float = math.nan,
) -> dict[str, Any]:
    """Plain values: mae and rmse of the mean forecast; mae_median, of the median (NaN without
    one); nll; bpr; the mean and the 95 % range of the repeated rankings' BPR; scores."""
    usable = mean is not None and bool(torch.isfinite(mean).all())
    low, high = np.quantile(repeats, [0.025, 0.975])
    return {
        "mae": metrics.mae(mean, y) if usable else math.nan,
        "mae_median": math.nan if median is None else metrics.mae(median, y),
        "rmse": metrics.rmse(mean, y) if usable else math.nan,
        "nll": nll,
        "bpr": float(metrics.bpr(scores, y, k, nan_policy="omit")),
        "bpr_repeats": float(repeats.mean()),
        "bpr_low": float(low),
        "bpr_high": float(high),
        "scores": scores.double().tolist(),
    }


def median_of(distribution: Any) -> Tensor | None:
    """The median of each count [T, S], found by counting up; None if a mean is 1000 or more."""
    usable = bool((distribution.mean < 1000).all())
    return count_quantile(distribution, 0.5).cpu() if usable else None


@torch.no_grad()
def scorer_scores(model: nn.Module, batch: Batch) -> Tensor:
    return forward(model, batch).cpu()
