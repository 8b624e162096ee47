"""The experiments on real data: cook_county, aerial_surveys, ma_overdose and their shared code."""

import dataclasses
import os

import numpy as np
import pandas as pd
import pytest
import topreach_experiments as experiments
import torch
from topreach_experiments import forecasters, real_data
from topreach_experiments.context import Context
from topreach_experiments.graph_network import GraphNetwork

from topreach import datasets
from topreach.evaluation import metrics

needs_data = pytest.mark.skipif(
    not os.environ.get("TOPREACH_DATA"), reason="needs real data: set TOPREACH_DATA to its folder"
)
NAIVE = ["last period", "mean of all before", "chance, forecast 0"]
TRAINED = [f"{name}, {form}" for form in ("as its code", "exact") for name in ("NLL", "BPR only")]


def quick(name, out):
    context = Context(name, out, quick=True, progress=False)
    experiments.load(name).run(context)
    return context


def results(out, name="results"):
    return pd.read_csv(out / f"{name}.csv", index_col=0)


@pytest.fixture
def no_data(monkeypatch):
    def absent(root=None):
        raise ConnectionError("no such file")

    # The studies hold the loaders, so it is the search for files that fails.
    monkeypatch.setattr(datasets.published, "find_folder", lambda *a, **k: absent())


def test_cook_county_on_simulated_counts(no_data, tmp_path, monkeypatch, capsys):
    least = dataclasses.replace(real_data.QUICK, draws=2, max_epochs=2, repeats=3, ranking_draws=10)
    monkeypatch.setattr(real_data, "QUICK", least)
    quick("cook_county", tmp_path)
    said = capsys.readouterr()
    assert "SIMULATED DATA" in said.err
    assert "SIMULATED stand-in" in (tmp_path / "results.md").read_text()
    table = results(tmp_path)
    assert set(NAIVE + TRAINED + ["mean of last 5", "topreach default"]) <= set(table.index)
    own = table.drop(index="EpiGNN, as published")
    assert own["BPR"].between(0, 1).all()
    assert (own["2.5 %"] <= own["97.5 %"]).all()
    trained = own.loc[TRAINED]
    assert np.isfinite(trained[["MAE", "RMSE", "NLL"]]).all(axis=None)
    assert (trained["RMSE"] >= trained["MAE"]).all()
    assert table.loc["EpiGNN, as published", "paper BPR"] == 0.32
    assert table["BPR"].isna().sum() == 1
    for name in ("frontier", "reach", "map"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        assert (tmp_path / f"{name}.svg").exists()

    # A second run does no finished part again.
    def forbidden(*arguments, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(real_data, "fit", forbidden)
    monkeypatch.setattr(real_data, "TopKRanker", forbidden)
    quick("cook_county", tmp_path)
    pd.testing.assert_frame_equal(results(tmp_path), table)


@needs_data
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # The figures of `topreach.evaluation.baselines`: MAE, RMSE, BPR.
        (
            "cook_county",
            {
                "last period": (1.069, 1.659, 0.748),
                "mean of last 5": (0.943, 1.455, 0.820),
                "chance, forecast 0": (1.369, 2.460, 0.200),
            },
        ),
        (
            "aerial_surveys",
            {
                "last period": (0.240, 1.066, 0.276),
                "mean of last 10": (0.251, 0.809, 0.377),
                "chance, forecast 0": (0.156, 0.839, 0.045),
            },
        ),
    ],
)
def test_untrained_rows_are_those_of_the_files(name, expected, tmp_path, monkeypatch):
    study = experiments.load(name).STUDY
    effort = real_data.QUICK
    splits = study.load(None)
    context = Context(name, tmp_path, progress=False)
    work = real_data._Work(context, study, effort, splits, ())
    monkeypatch.setattr(work, "_test_default", lambda: {})
    labels = real_data._labels(study)
    rows = {labels[key]: row for key, row in work.test({}).items()}
    for label, figures in expected.items():
        found = [rows[label][quantity] for quantity in ("mae", "rmse", "bpr")]
        np.testing.assert_allclose(found, figures, atol=6e-4)


@needs_data
def test_aerial_surveys_quick(quick_run):
    table = results(quick_run("aerial_surveys"))
    assert table.loc["NLL, as its code", "paper BPR"] == 0.38
    assert table.loc["DAML, ε = 1, as its code", "paper MAE"] == 9.08
    assert table.drop(index="EpiGNN, as published")["BPR"].between(0, 1).all()


def test_ma_overdose_on_the_simulated_state_and_on_a_file(tmp_path, monkeypatch):
    """A file with the simulated counts gives the table of the simulated counts."""
    experiment = experiments.load("ma_overdose")
    monkeypatch.setattr(experiment, "run_study", lambda *a, **k: None)
    one = Context("ma_overdose", tmp_path / "one", quick=True, progress=False)
    two = Context("ma_overdose", tmp_path / "two", quick=True, progress=False)
    for context in (one, two):
        context.out.mkdir()
    monkeypatch.delenv("TOPREACH_DATA", raising=False)
    experiment.run(one)
    with pytest.warns(UserWarning, match="SIMULATED"):
        panel = datasets.simulate_massachusetts(0, train=range(2006, 2018))
    frame = pd.concat([p.to_frame(site="geoid", time="year", count="deaths") for p in panel])
    file = tmp_path / "deaths.csv"
    frame.assign(geoid=frame["geoid"].str.replace("99999", "25001")).to_csv(file, index=False)
    two.options.deaths = str(file)
    experiment.run(two)
    table, same = (results(context.out, "table1") for context in (one, two))
    # Three years of history more or fewer change nothing: W = 5.
    pd.testing.assert_frame_equal(table.drop(columns="chosen"), same.drop(columns="chosen"))
    assert table.loc["MLP + sampled top-K", "paper %BPR"] == 63.4
    assert table["%BPR"].drop(index=table.index[-1]).between(0, 100).all()
    np.testing.assert_allclose(table["%BPR"], table[["2019", "2020"]].mean(axis=1))


def test_ma_overdose_for_the_2025_paper_has_lags_and_neighbours(tmp_path, monkeypatch):
    experiment = experiments.load("ma_overdose")
    splits = experiment._load_2025(Context("ma_overdose", tmp_path, progress=False))
    assert splits.train.times == list(range(2011, 2019))
    test = splits.test
    lags = [test.feature_names.index(f"prev_deaths_0{back}back") for back in (5, 4, 3, 2, 1)]
    assert torch.equal(test.x[:, :, lags], test.batch(window=5).history)
    place = test.x[0, :, [test.feature_names.index(name) for name in ("lat", "lon")]].double()
    scaled = place * torch.tensor([1.0, float(torch.cos(place[:, 0].mean().deg2rad()))])
    around = ((scaled - scaled[7]) ** 2).sum(-1).argsort()[1:7]
    at = test.feature_names.index("deaths_sp_lag")
    expected = splits.test.y[0, around].mean()  # the year before the second test year
    assert test.x[1, 7, at] == pytest.approx(expected.item())


# ---- what they share -----------------------------------------------------------------------------


def test_the_codes_penalty():
    """−mean_s log p + ½ mean_{s,i} (b Σ⁻¹ ∘ b)_si per period, times S for a summed likelihood."""
    generator = np.random.default_rng(0)
    model = real_data.CodeNegBin(5, 2, periods=3)
    b = generator.standard_normal((5, 2))
    with torch.no_grad():
        model.site_intercept.copy_(torch.from_numpy(b[:, 0]))
        model.site_slope.copy_(torch.from_numpy(b[:, 1]))
        model.raw_rho.fill_(0.4)
    inverse = np.linalg.inv(model.covariance.detach().double().numpy())
    expected = 3 * 5 * 0.5 * ((b @ inverse) * b).mean()
    assert model.penalty().item() == pytest.approx(expected, rel=1e-5)


def test_choice_among_decision_aware_models():
    def run(nll, bpr):
        return {"valid": {"nll": nll, "bpr": bpr}}

    found = {
        "code.daml.a": run(1.0, 0.70),
        "code.daml.b": run(1.2, 0.80),
        "code.daml.c": run(1.1, 0.81),
        "code.daml.d": {"failed": "NaN"},
        "code.daml.e": run(float("nan"), 0.99),
        "exact.daml.a": run(0.1, 0.99),
    }
    choose = forecasters.best_decision_aware
    assert choose(found, "code.daml.", 0.80)["run"] == "code.daml.c"
    assert choose(found, "code.daml.", 0.85)["run"] == "code.daml.c"  # none: the highest BPR
    assert choose(found, "code.daml.", 0.0)["run"] == "code.daml.a"
    assert forecasters.best(found, "code.daml.", "nll", -1)["run"] == "code.daml.a"
    with pytest.raises(RuntimeError, match="no run of none"):
        choose(found, "none", 0.5)


def test_inputs_are_scaled_by_the_training_rows():
    with pytest.warns(UserWarning, match="SIMULATED"):
        train, _, test = datasets.simulate_county(0)
    inputs = forecasters.Inputs(train, "prev_deaths_")
    x, times = inputs.regression(train).x.double(), train.time_values
    expected = ((test.time_values - times.mean()) / times.std(correction=0)).float()
    torch.testing.assert_close(inputs.regression(test).time, expected)
    torch.testing.assert_close(inputs.regression(test).x[:, 3, -1], expected)
    given = forecasters.Inputs(train, "prev_deaths_", time_as_given=True).regression(test)
    assert given.time.tolist() == [7.0, 8.0]
    torch.testing.assert_close(given.x, inputs.regression(test).x)
    # The oldest lag is constant in training and left out.
    assert x.shape[-1] == inputs.num_features == 13
    assert x.mean(dim=(0, 1)).abs().max() < 1e-5
    history = train.batch(window=5).history
    np.testing.assert_allclose(inputs.table(train)[:, :5], history.log1p().flatten(0, 1).numpy())


def test_tie_repeats_average_to_the_expectation():
    generator = torch.Generator().manual_seed(3)
    scores = torch.randint(0, 3, (2, 30), generator=generator).float()
    y = torch.poisson(torch.full((2, 30), 0.7), generator=generator)
    repeats = forecasters.tie_repeats(scores, y, 7, 2000, seed=1)
    error = repeats.std() / len(repeats) ** 0.5
    assert abs(repeats.mean() - metrics.bpr(scores, y, 7)) < 4 * error


def test_poisson_nll():
    mean, y = torch.tensor([[0.3, 2.0], [1.5, 4.0]]), torch.tensor([[0.0, 1.0], [3.0, 2.0]])
    expected = -torch.distributions.Poisson(mean.double()).log_prob(y.double()).mean()
    assert forecasters.poisson_nll(mean, y) == pytest.approx(float(expected), rel=1e-12)


def test_graph_network_by_loops():
    generator = torch.Generator().manual_seed(0)
    place = torch.rand(9, 2, generator=generator) * 0.1 + torch.tensor([41.0, -87.0])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GraphNetwork(place, 3, 2, neighbours=4, channels=5)
    history = torch.randint(0, 4, (2, 9, 3), generator=generator).float()
    x = torch.randn(2, 9, 2, generator=generator)
    scaled = place.double() * torch.tensor(
        [1.0, float(place[:, 0].double().mean().deg2rad().cos())]
    )
    edges = [
        sorted((u for u in range(9) if u != s), key=lambda u: ((scaled[u] - scaled[s]) ** 2).sum())
        for s in range(9)
    ]
    with torch.no_grad():
        for t in range(2):
            h = [model.inputs(torch.cat([history[t, s].log1p(), x[t, s]])).relu() for s in range(9)]
            for own, around in zip(model.own, model.around, strict=True):
                h = [
                    (own(h[s]) + around(sum(h[u] for u in edges[s][:4]) / 4)).relu()
                    for s in range(9)
                ]
            expected = torch.stack([torch.log1p(model.outputs(v).exp()) for v in h]).squeeze(-1)
            torch.testing.assert_close(model(history, x)[t], expected)
