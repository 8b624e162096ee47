"""The model file, exchanged with the C++ library: the same scores, bit for bit, and back."""

import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import topreach as tr
from topreach.data.panel import Batch
from topreach.distributions import NegativeBinomial, SiteMixture, TruncatedNormal
from topreach.models import (
    EmpiricalBayesRates,
    LinearScorer,
    MLPScorer,
    NegBinMixedEffects,
    NormalMixture,
    PoissonMixture,
)
from topreach.objectives import NLL, DecisionAware, DirectBPR

ROOT = Path(__file__).resolve().parents[2]
SITES, FEATURES, WINDOW, K = 300, ["a", "b", "constant", "c"], 4, 30
HALF_LIVES = [2.0, math.inf]
HOW = {
    "": {},
    "_mean_field": {"topk": "mean_field", "ranking": "mean"},
    "_sampled": {"topk": "sampled", "ranking": "ratio"},
}


class Constant(torch.nn.Module):
    """A model that predicts the same whatever it is given."""

    def __init__(self, output):
        super().__init__()
        self.output = output
        self.is_probabilistic = not isinstance(output, torch.Tensor)

    def forward(self, x):
        return self.output


def csrc_tests() -> Path:
    """The GoogleTest binary of the tree's own build."""
    found = [
        path for path in ROOT.glob("build*/tests/topreach_csrc_tests") if os.access(path, os.X_OK)
    ]
    if not found:
        pytest.skip("the C++ tests are not built (cmake -DTOPREACH_TESTS=ON)")
    return max(found, key=lambda path: path.stat().st_mtime)


def content_of(model, ranking, model_samples=64):
    """What TopKRanker.save writes."""
    torch.manual_seed(5)
    kept = [0, 1, 3]
    return {
        "format": "topreach-model",
        "format_version": 1,
        "model": type(model).__name__,
        "config": {n: list(v) if isinstance(v, tuple) else v for n, v in model.config.items()},
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "standardizer": {
            "feature_names": FEATURES,
            "kept": kept,
            "mean": torch.rand(len(kept), dtype=torch.float64),
            "scale": torch.rand(len(kept), dtype=torch.float64) + 0.3,
        },
        "time": {"origin": 2017.5, "scale": 1.118033988749895},
        "site_ids": [f"{s:04d} é" for s in range(SITES)],
        "k": K,
        "ranking": ranking,
        "model_samples": model_samples,
        "key": tr.draw_key(),
        "window": getattr(model, "window", 0),
        "uses_exposure": False,
        "columns": {"site": "GEOID", "time": "year"},
    }


def with_history(content):
    """The content of an EmpiricalBayesRates, with its SiteHistory of simulated quarters."""
    rng = np.random.default_rng(3)
    quarters = [f"{2018 + t // 4}-{1 + 3 * (t % 4):02d}-01" for t in range(11)]
    x = np.broadcast_to(rng.uniform(0, 1, (SITES, 2)), (11, SITES, 2)).copy()
    y = rng.poisson(rng.gamma(1.0, 2.0, SITES), (11, SITES))
    panel = tr.Panel(x, y, content["site_ids"], quarters, ["lat", "lon"])
    history = tr.models.SiteHistory(HALF_LIVES, neighbours=(6, 2)).fit(panel)
    return content | {"site_history": history.state_dict()}


def statistics_of(content, past):
    """What SiteHistory makes for the period after `past` [N, S]; None is the past of the file."""
    history = tr.models.SiteHistory.from_state_dict(content["site_history"])
    y = torch.zeros(1, SITES)
    x = torch.zeros(1, SITES, 0)
    after = tr.Panel(x, y, content["site_ids"], [history.end_ + 91], [], history_y=past)
    return history.statistics(after)


def scores_of(model, content, x, time, history, exposure):
    standardizer = content["standardizer"]
    x = (
        (x[:, standardizer["kept"]].double() - standardizer["mean"]) / standardizer["scale"]
    ).float()
    with torch.no_grad():
        if not model.is_probabilistic:
            return model(history[None], x[None])[0]
        if isinstance(model, EmpiricalBayesRates):
            past = None if history is None else history.T
            counts = model(torch.cat([statistics_of(content, past), x[None]], -1))
            exact = content["ranking"] == "exact"
            return (tr.expected_ratio_ranking(counts) if exact else counts.mean)[0]
        t = (time - content["time"]["origin"]) / content["time"]["scale"]
        t = torch.tensor([t], dtype=torch.float64).float()
        if isinstance(model, NormalMixture | PoissonMixture):
            counts = model(t)
        else:
            counts = model(x[None], t, *([] if exposure is None else [exposure[None]]))
        if content["ranking"] == "mean":
            return counts.mean[0]
        if content["ranking"] == "exact":
            return tr.expected_ratio_ranking(counts)[0]
        return tr.ratio_ranking(counts.sample(content["model_samples"], key=content["key"])[:, 0])


def examples():
    torch.manual_seed(1)
    models = {
        "negbin": (NegBinMixedEffects(SITES, 3, link="softplus", initial_mean=1.2), "ratio"),
        "negbin_exact": (NegBinMixedEffects(SITES, 3, initial_mean=0.7), "exact"),
        "negbin_mean": (NegBinMixedEffects(SITES, 3), "mean"),
        "exposure": (NegBinMixedEffects(SITES, 3, initial_mean=0.01), "exact"),
        "nb2": (NegBinMixedEffects(SITES, 3, family="nb2"), "exact"),
        "zero_inflated": (NegBinMixedEffects(SITES, 3, zero_inflation=True), "ratio"),
        "poisson": (NegBinMixedEffects(SITES, 3, family="poisson"), "ratio"),
        "ar1": (NegBinMixedEffects(SITES, 3, site_path="ar1"), "exact"),
        "random_walk": (NegBinMixedEffects(SITES, 3, site_path="random_walk"), "mean"),
        "empirical_bayes": (EmpiricalBayesRates(HALF_LIVES, 3), "exact"),
        "empirical_bayes_past": (EmpiricalBayesRates(HALF_LIVES, 3), "mean"),
        "normal_mixture": (NormalMixture(SITES, 3), "exact"),
        "poisson_mixture": (PoissonMixture(SITES, 2), "mean"),
        "poisson_mixture_ratio": (PoissonMixture(SITES, 2), "ratio"),
        "linear": (LinearScorer(WINDOW, 3), "score"),
        "mlp": (MLPScorer(WINDOW, 3, hidden=(8, 5)), "score"),
    }
    for model, _ in models.values():
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
            if getattr(model, "path_time", None) is not None:
                model.path_time = torch.tensor([-1.5, 0.0, 0.9, 1.3])
                model.path_effect = 0.3 * torch.randn(4, SITES)
    return models


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, list):
        return type(b) is list and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return type(b) is dict and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


def test_exchange_with_cpp(tmp_path):
    binary = csrc_tests()
    torch.manual_seed(2)
    x, history = torch.randn(SITES, len(FEATURES)), torch.randint(0, 5, (SITES, WINDOW)).float()
    people = 200 * torch.rand(SITES) + 1
    contents = {}
    for name, (model, ranking) in examples().items():
        contents[name] = content_of(model, ranking) | {"uses_exposure": name == "exposure"}
        if isinstance(model, EmpiricalBayesRates):
            contents[name] = with_history(contents[name])
        torch.save(contents[name], tmp_path / f"{name}.pt")
        past = history if not model.is_probabilistic or name.endswith("_past") else None
        exposure = people if name == "exposure" else None
        scores = scores_of(model, contents[name], x, 2021.0, past, exposure)
        torch.save(
            {
                "x": x,
                "time": 2021.0,
                "history": past,
                "exposure": exposure,
                "scores": scores,
                "order": scores.sort(descending=True, stable=True).indices[:K].tolist(),
            },
            tmp_path / f"{name}.inputs.pt",
        )
    torch.save({**contents["linear"], "format_version": 2}, tmp_path / "newer.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(LinearScorer(3).state_dict(), tmp_path / "state.pt")
    counts = NegativeBinomial(torch.rand(3, 80) + 0.1, torch.tensor(0.3))
    y, key = counts.sample(1)[0], tr.draw_key()
    batch = Batch(torch.zeros(3, 80, 0), y, torch.zeros(3), None, None)
    settings = {"k": 20, "sigma": 0.01}
    losses = {}
    for name, how in HOW.items():
        daml = DecisionAware(**settings, epsilon=0.8, **how)
        losses[f"decision_aware{name}"] = daml(Constant(counts), batch, key=key).loss
        direct = DirectBPR(**settings, **how)
        losses[f"direct_bpr{name}"] = direct(Constant(counts.total_count), batch, key=key).loss
    # One row for all periods, two models at once.
    mixture = SiteMixture(
        torch.randn(2, 1, 9, 3), TruncatedNormal(torch.rand(3) * 9, torch.rand(3) + 0.3)
    )
    several = batch._replace(y=torch.randint(0, 9, (2, 3, 9)).float())
    settings["k"], settings["sigma"] = 3, 0.02
    for name, how in HOW.items():
        for kind, objective in (
            ("decision_aware", DecisionAware(**settings, epsilon=0.8, **how)),
            ("direct_bpr", DirectBPR(**settings, **how)),
            ("nll", NLL()),
        ):
            losses[f"mixture_{kind}{name}"] = objective(Constant(mixture), several, key=key).loss
    losses["mixture_logits"], losses["mixture_y"] = mixture.logits, several.y
    losses["mixture_loc"] = mixture.components.loc
    losses["mixture_scale"] = mixture.components.scale
    given = {"total_count": counts.total_count, "logits": counts.logits, "y": y, "key": key}
    torch.save(given | losses, tmp_path / "objective.pt")
    run = subprocess.run(
        [binary, "--gtest_filter=ModelFileExchange.*"],
        env={**os.environ, "TOPREACH_EXCHANGE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "SKIPPED" not in run.stdout
    for name, content in contents.items():
        rewritten = torch.load(tmp_path / f"{name}.rewritten.pt", weights_only=True)
        assert same(rewritten, content), name


def test_loading_runs_no_code(tmp_path):
    """The files hold plain values and tensors: weights_only=True is enough for them."""
    for name, (model, ranking) in examples().items():
        content = content_of(model, ranking)
        torch.save(content, tmp_path / f"{name}.pt")
        assert same(torch.load(tmp_path / f"{name}.pt", weights_only=True), content)
