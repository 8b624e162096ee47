"""Training for quotas against repairing plans: the repair, figures by hand, intervals, no look
ahead, and the files of a short run without data."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from topreach_experiments.constrained_choice import report, sets, training

import topreach as tr
from topreach.cli import main
from topreach.evaluation import paired_interval
from topreach.programs import Quotas, TopK


def test_swaps_give_the_best_plan_under_the_quota():
    """Against all plans: swaps lose nothing if the quotas are "at least" of one grouping."""
    generator = np.random.default_rng(0)
    for _ in range(40):
        groups = list(generator.choice(["a", "b", "c", ""], 9))
        held = pd.Series(groups)
        names = [name for name in dict.fromkeys(groups) if name]
        lower = {
            name: int(generator.integers(0, min(3, (held == name).sum() + 1))) for name in names
        }
        k = min(9, sum(lower.values()) + int(generator.integers(1, 3)))
        scores = torch.from_numpy(generator.normal(size=(1, 9)))
        quotas = Quotas(k, groups, lower=lower)
        mended = training.swap_repair(scores, TopK(k).best(scores), quotas)
        best = max(
            scores[0, list(plan)].sum().item()
            for plan in itertools.combinations(range(9), k)
            if all((held[list(plan)] == name).sum() >= low for name, low in lower.items())
        )
        assert mended.sum() == k
        assert (mended * scores).sum().item() == pytest.approx(best, abs=1e-12)


def test_figures_by_hand():
    """Best under the quota 4 + 2, best of all 4 + 3; the plan takes sites 1 and 3, the top two 2
    and 3."""
    y = torch.tensor([[4.0, 3.0, 2.0, 1.0]], dtype=torch.float64)
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    found = training.judge(scores, y, Quotas(2, ["a", "a", "b", "b"], lower=1))
    expected = {
        "bpr_c": 4 / 6,
        "free_bpr": 4 / 7,
        "plain_bpr": 3 / 7,
        "hindsight": 1 / 7,
        "paid": 1 - 4 / 3,
        "swapped": 0.0,
    }
    assert {name: values for name, values in found.items()} == {
        name: [pytest.approx(value)] for name, value in expected.items()
    }


def test_the_quotas_ratio_is_the_mean_share_of_the_best_plan_under_it():
    draws = torch.tensor([[[4.0, 3.0, 2.0, 1.0]], [[0.0, 0.0, 5.0, 5.0]], [[0.0] * 4]])

    class Fixed:
        def predict_distribution(self, panel):
            return self

        def sample(self, number, key):
            assert number == 3
            return draws

    quotas = Quotas(2, ["a", "a", "b", "b"], lower=1)
    found = training.ratio_scores(Fixed(), None, quotas, 3)
    # 6 is the best of the first draw; of the second 5, for a site of "a" must be taken.
    expected = torch.tensor([[4 / 6, 3 / 6, 2 / 6 + 1, 1 / 6 + 1]], dtype=torch.float64) / 3
    torch.testing.assert_close(found, expected)


def test_intervals():
    generator = np.random.default_rng(1)
    values = generator.normal(0.1, 1, (12, 1))
    made, other = report.interval(values), paired_interval(values[:, 0])
    assert made.mean == pytest.approx(other.mean)
    # The same bootstrap with other draws: quantiles of 10,000 differ by some .02 standard errors.
    assert made.low == pytest.approx(other.low, abs=0.05)
    assert made.high == pytest.approx(other.high, abs=0.05)
    # Differences only between seeds give an interval too.
    seeds = np.repeat([[-1.0, 1.0]], 12, 0)
    assert (report.interval(seeds).low, report.interval(seeds).high) == (-1, 1)
    assert report.interval(np.append(values, [[np.nan]], 0)) == made
    assert not report.interval(values[:2]).known


def test_groups_of_the_same_name_in_two_kinds_are_two(tmp_path):
    rows = [
        ("17031000001", "RIVERDALE", "community_area", 1.0),
        ("17031000002", "RIVERDALE", "municipality", 1.0),
        ("17031000003", "Bloom", "township", 1.0),
    ]
    path = tmp_path / "groups.csv"
    pd.DataFrame(rows, columns=["geoid", "group", "kind", "share"]).to_csv(path, index=False)
    groups = sets.cook_groups(path, [row[0] for row in reversed(rows)])
    assert list(groups.index) == ["17031000003", "17031000002", "17031000001"]
    assert groups.dropna().nunique() == 2 and pd.isna(groups.iloc[0])


def test_a_simulated_state_has_the_sizes_of_the_trial():
    case = sets._provident(3, apart=True)
    assert (case.panel.num_sites, case.k, case.groups.nunique()) == (809, 162, 39)
    assert case.panel.source == "simulated" and "SIMULATED" in case.title
    assert case.groups.value_counts().min() >= 2
    again = sets._provident(3, apart=True)
    torch.testing.assert_close(case.panel.y, again.panel.y, rtol=0, atol=0)


def test_training_and_choice_do_not_see_the_test_periods():
    case = sets._provident(0, apart=False)
    (block,) = case.blocks
    y = case.panel.y.clone()
    y[block.test :] = 7 - y[block.test :].clamp(max=7)
    changed = tr.Panel(
        case.panel.x,
        y,
        case.panel.site_ids,
        case.panel.times,
        case.panel.feature_names,
        history_y=case.panel.history_y,
    )
    first, second = (training._split(panel, block) for panel in (case.panel, changed))
    for one, other in zip(first[:2], second[:2], strict=True):
        torch.testing.assert_close(one.y, other.y, rtol=0, atol=0)
        assert one.times == other.times
    train, valid, test = first
    assert [*train.times, *valid.times, *test.times] == list(case.panel.times[: block.end])
    assert not torch.equal(test.y, second[2].y)


def test_what_is_fitted_without_a_plan_is_fitted_once():
    assert training.arms_of("default") == training.arms_of("negbin, NLL") == (training.REPAIRED,)
    assert set(training.arms_of("linear scorer, BPR")) == set(training.ARMS)


def test_without_data_there_are_simulated_counties_only(tmp_path, monkeypatch, capsys):
    def offline(*_):
        raise ConnectionError("no network")

    monkeypatch.setattr("topreach.datasets.cook_county", offline)
    arguments = ["experiment", "constrained_choice", "--quick", "--quiet", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert "SIMULATED" in capsys.readouterr().err
    prices = pd.read_csv(tmp_path / "prices.csv", index_col="set")
    assert list(prices.index) == ["provident_two"]
    assert (prices["price in hindsight"] >= 0).all() and prices.loc["provident_two", "K"] == 162
    table = pd.read_csv(tmp_path / "results.csv")
    assert table["BPR_C"].between(0, 1).all()
    assert table["free BPR"].dropna().between(0, 1).all()  # of own rankings
    assert len(table) == 2 * 3 + 2 * 2
    apart = pd.read_csv(tmp_path / "differences.csv")
    for _, row in apart.iterrows():
        one, other = row["difference"].split(" − ")
        of = table[table["model"] == row["model"]].set_index("arm")["BPR_C"]
        other = training.REPAIRED if other == "its own ranking" else other
        assert row["BPR_C"] == pytest.approx(of[one] - of[other], abs=1e-12)
    assert np.isnan(apart["low"]).all(), "one county has no interval"
