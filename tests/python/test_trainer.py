"""Trainer: the best epoch, resume bit for bit, Ctrl-C, losses that are not finite, checkpoints of
other runs."""

import os
import signal
import threading
import warnings

import pytest
import torch
from torch import nn
from training_cases import LogLinear, Scorer, batch_of, panels

import topreach as tr
from topreach.models import NegBinMixedEffects
from topreach.objectives import NLL, DecisionAware, DirectBPR, ObjectiveValue
from topreach.training import (
    NonFiniteLossError,
    NothingLearnt,
    Trainer,
    TrainingInterrupted,
    beats_past_means,
    compare_with_past_means,
)

TRAIN, VALID = panels()


@pytest.fixture(autouse=True)
def interruptible():
    """A shell ignores SIGINT for what it starts in the background; these tests raise it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def model():
    return LogLinear(12, 2)


def daml(**changes):
    return DecisionAware(
        **{"k": 3, "sigma": 0.02, "epsilon": 1.0, "num_samples": 20, "model_samples": 20, **changes}
    )


def trainer(objective=None, **changes):
    settings = {
        "lr": 0.05,
        "max_epochs": 12,
        "validate_every": 3,
        "k": 3,
        "validation_samples": 50,
        "progress": False,
    }
    return Trainer(objective or NLL(), **{**settings, **changes})


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class StopsAt:
    """An objective during whose n-th call Ctrl-C is pressed."""

    def __init__(self, objective, call, how):
        self.objective, self.calls_left, self.how = objective, call, how
        self.k = 3

    def config(self):
        return {}

    def __call__(self, model, batch, *, generator=None, key=None):
        self.calls_left -= 1
        if self.calls_left == 0:
            if self.how == "raise":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)
        return self.objective(model, batch, key=key)


# ---- what it keeps and reports -------------------------------------------------------------------


def test_lowers_the_loss_and_keeps_the_best_validation_epoch():
    m = model()
    t = trainer(monitor="nll", max_epochs=60).fit(m, TRAIN, VALID)
    h = t.history_
    assert list(h["epoch"]) == list(range(1, 61))
    assert h["loss"].iloc[-1] < h["loss"].iloc[0]
    measured = h.dropna(subset=["valid_nll"])
    assert list(measured["epoch"]) == list(range(3, 61, 3))
    best = measured.loc[measured["valid_nll"].idxmin()]
    assert (t.best_epoch_, t.best_score_) == (best["epoch"], best["valid_nll"])
    assert t.evaluate(m, VALID)["nll"] == pytest.approx(best["valid_nll"], rel=1e-6)
    assert {"nll", "penalty", "lr", "seconds", "train_bpr", "valid_bpr", "valid_mae"} <= set(
        h.columns
    )
    assert h["seconds"].is_monotonic_increasing
    assert h["loss"].to_numpy() == pytest.approx((h["nll"] + h["penalty"]).to_numpy(), rel=1e-6)


def test_without_validation_keeps_the_last_epoch_and_says_so(capsys):
    a, b = model(), model()
    t = trainer(max_epochs=7, progress=True).fit(a, TRAIN)
    assert (t.best_epoch_, t.best_score_) == (7, None)
    assert "last epoch, 7" in capsys.readouterr().err
    optimizer = torch.optim.Adam(b.parameters(), lr=0.05)
    for _ in range(7):
        optimizer.zero_grad()
        NLL()(b, TRAIN.batch()).loss.backward()
        optimizer.step()
    assert same(a, b)


def test_patience_stops_early():
    t = trainer(monitor="nll", max_epochs=3000, patience=2, validate_every=5, lr=0.1).fit(
        model(), TRAIN, VALID
    )
    assert t.stopped_early_ and t.epochs_ == t.best_epoch_ + 10 < 3000


def test_monitor_default_follows_the_objective():
    assert trainer().fit(model(), TRAIN, VALID).monitor_ == "nll"
    assert trainer(daml()).fit(model(), TRAIN, VALID).monitor_ == "bpr"
    own = trainer(lambda m, batch: (m(batch.history, batch.x) - batch.y).square().mean(), k=None)
    assert own.fit(Scorer(2, 2), TRAIN, VALID).monitor_ == "loss"


def test_bpr_floor_takes_the_likeliest_epoch_that_ranks_well_enough():
    """2025 paper, App. C.2.2."""
    t = trainer(monitor="nll", max_epochs=30, bpr_floor=0.0).fit(model(), TRAIN, VALID)
    h = t.history_.dropna(subset=["valid_nll"])
    assert t.best_epoch_ == h.loc[h["valid_nll"].idxmin(), "epoch"]
    floor = h["valid_bpr"].median()
    t = trainer(monitor="nll", max_epochs=30, bpr_floor=float(floor)).fit(model(), TRAIN, VALID)
    good = h[h["valid_bpr"] >= floor]
    assert t.best_epoch_ == good.loc[good["valid_nll"].idxmin(), "epoch"]
    t = trainer(monitor="nll", max_epochs=30, bpr_floor=2.0).fit(model(), TRAIN, VALID)
    assert t.best_epoch_ == h.loc[h["valid_bpr"].idxmax(), "epoch"]


def test_leaves_the_global_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    trainer(daml()).fit(model(), TRAIN, VALID)
    assert torch.equal(torch.rand(4), expected)


def test_seed_decides():
    fitted = []
    for seed in (0, 0, 1):
        fitted.append(model())
        trainer(daml(), seed=seed).fit(fitted[-1], TRAIN, VALID)
    assert same(fitted[0], fitted[1]) and not same(fitted[0], fitted[2])


# ---- users' models, objectives, optimizers -------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [
        "adam",
        "SGD",
        "lbfgs",
        torch.optim.AdamW,
        lambda parameters: torch.optim.RMSprop(parameters, lr=0.01),
    ],
)
def test_any_torch_optimizer(optimizer):
    t = trainer(optimizer=optimizer, lr=0.01).fit(model(), TRAIN, VALID)
    assert t.history_["loss"].iloc[-1] < t.history_["loss"].iloc[0]


def test_own_module_and_own_objective():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = nn.Parameter(torch.zeros(12))

        def forward(self, something):
            return self.theta

    def objective(m, batch):
        return ObjectiveValue((m.theta - batch.y).square().mean(), {"square": torch.tensor(1.0)})

    t = trainer(objective, k=None, lr=0.1, max_epochs=200).fit(Table(), TRAIN, VALID)
    assert t.history_["square"].eq(1).all() and t.monitor_ == "loss"


def test_scorer_sees_its_window():
    t = trainer(DirectBPR(3, 0.1), max_epochs=30).fit(Scorer(2, 2), TRAIN, VALID)
    assert t.monitor_ == "bpr" and 0 < t.best_score_ <= 1


def test_scheduler_and_lr_in_history():
    t = trainer(scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 5, gamma=0.1)).fit(
        model(), TRAIN, VALID
    )
    assert t.history_["lr"].to_numpy() == pytest.approx([0.05] * 5 + [0.005] * 5 + [0.0005] * 2)
    plateau = trainer(
        scheduler=lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(
            o, patience=0, threshold=1e9
        ),
        monitor="nll",
    )
    assert plateau.fit(model(), TRAIN, VALID).history_["lr"].iloc[-1] < 0.05


def test_clipping_bounds_the_step():
    m = model()
    before = torch.cat([p.detach().flatten().clone() for p in m.parameters()])
    trainer(optimizer="sgd", lr=1.0, clip_gradient=0.01, max_epochs=1).fit(m, TRAIN)
    after = torch.cat([p.detach().flatten() for p in m.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


# ---- minibatches and weights ---------------------------------------------------------------------


def test_minibatches_cover_every_period_once_and_estimate_the_whole():
    seen = []

    def objective(m, batch):
        seen.append(batch)
        return NLL()(m, batch)

    train, _ = panels(num_times=7)  # five periods to train on: minibatches of 2, 2 and 1
    m = model()
    for p in m.parameters():
        p.requires_grad_(p is m.weight)
    trainer(objective, batch_size=2, max_epochs=3, lr=1e-12, k=None, monitor="loss").fit(m, train)
    epochs = [[b for b in seen if len(b.time) < 5][i : i + 3] for i in (0, 3, 6)]
    orders = []
    for batches in epochs:
        times = torch.cat([b.time for b in batches])
        assert sorted(times.tolist()) == [0, 1, 2, 3, 4]
        orders.append(times.tolist())
        assert all(b.weights.tolist() == [5 / len(b.time)] * len(b.time) for b in batches)
        total = sum(NLL()(m, b).loss * len(b.time) / 5 for b in batches)
        assert total.item() == pytest.approx(NLL()(m, train.batch()).loss.item(), rel=1e-5)
    assert orders[0] != orders[1] or orders[1] != orders[2]


def test_time_weights():
    weighted, cut = model(), model()
    trainer(time_weights=[0.0, 0.0, 1.0, 1.0]).fit(weighted, TRAIN)
    trainer().fit(cut, TRAIN.select_times(TRAIN.times[2:]))
    for a, b in zip(weighted.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    by_function = model()
    trainer(time_weights=lambda time: (time >= 2).float()).fit(by_function, TRAIN)
    assert same(weighted, by_function)
    with pytest.raises(ValueError, match=r"time_weights must have shape \[4\]"):
        trainer(time_weights=[1.0]).fit(model(), TRAIN)


# ---- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"batch_size": 3, "optimizer": "sgd", "lr": 0.001}])
def test_resume_continues_bit_for_bit(tmp_path, settings):
    settings |= {"scheduler": lambda o: torch.optim.lr_scheduler.StepLR(o, 4), "objective": daml()}
    whole, parts = model(), model()
    a = trainer(**settings).fit(whole, TRAIN, VALID)
    path = tmp_path / "run.pt"
    trainer(**settings, checkpoint=path, max_epochs=6).fit(parts, TRAIN, VALID)
    parts = model()  # nothing but the file is left
    torch.manual_seed(99)
    b = trainer(**settings, checkpoint=path).fit(parts, TRAIN, VALID, resume=True)
    assert same(whole, parts)
    assert (a.best_epoch_, a.best_score_) == (b.best_epoch_, b.best_score_)
    assert a.history_.drop(columns="seconds").equals(b.history_.drop(columns="seconds"))


def test_a_deterministic_run_resumes_and_does_not_know_the_seed(tmp_path):
    """DAML without sampling: any seed gives the same bits, also through a checkpoint."""

    def start():
        return NegBinMixedEffects(12, 2, link="softplus", initial_mean=TRAIN.y.mean().item())

    objective = DecisionAware(3, 0.02)
    whole, other, parts = start(), start(), start()
    a = trainer(objective).fit(whole, TRAIN, VALID)
    b = trainer(objective, seed=1).fit(other, TRAIN, VALID)
    path = tmp_path / "run.pt"
    trainer(objective, checkpoint=path, max_epochs=6).fit(parts, TRAIN, VALID)
    parts = start()
    c = trainer(objective, checkpoint=path).fit(parts, TRAIN, VALID, resume=True)
    assert same(whole, other) and same(whole, parts)
    for one in (b, c):
        assert one.history_.drop(columns="seconds").equals(a.history_.drop(columns="seconds"))
    assert a.history_["loss"].iloc[-1] < a.history_["loss"].iloc[0]
    with pytest.raises(ValueError, match="another objective"):
        sampled = DecisionAware(3, 0.02, topk="sampled")
        trainer(sampled, checkpoint=path).fit(start(), TRAIN, VALID, resume=True)


def test_validation_ranks_without_draws_where_it_can():
    """By the objective's ranking or, if it names none, by "auto"."""
    batch = VALID.batch()
    negbin = NegBinMixedEffects(12, 2, link="softplus", initial_mean=TRAIN.y.mean().item())
    trainer(max_epochs=3).fit(negbin, TRAIN)
    with torch.no_grad():
        r = tr.expected_ratio_ranking(negbin(batch.x, batch.time))
        mean = negbin(batch.x, batch.time).mean
    exact = float(tr.metrics.bpr(r, batch.y, 3))
    for t in (
        trainer(),
        trainer(ranking="auto"),
        trainer(ranking="exact"),
        trainer(DecisionAware(3, 0.02)),
        trainer(DecisionAware(3, 0.02, ranking="ratio"), ranking="exact"),
    ):
        assert t.evaluate(negbin, VALID)["bpr"] == exact
    found = trainer(DecisionAware(3, 0.02, ranking="mean")).evaluate(negbin, VALID)
    assert found["bpr"] == float(tr.metrics.bpr(mean, batch.y, 3))
    few = trainer(ranking="ratio", validation_samples=1).evaluate(negbin, VALID)
    assert few["bpr"] != exact
    # PoissonCounts is a class of these tests, which the library does not know.
    assert 0 < trainer().evaluate(model(), VALID)["bpr"] <= 1
    with pytest.raises(TypeError, match="Trainer: ranking must be 'ratio' or 'mean' for counts of"):
        trainer(ranking="exact").evaluate(model(), VALID)


@pytest.mark.parametrize("how", ["raise", "signal"])
@pytest.mark.parametrize("call", [2, 9, 14])
def test_ctrl_c_leaves_a_checkpoint_that_continues_bit_for_bit(tmp_path, how, call):
    """Anywhere: in the middle of an epoch, or in a validation (call 9 is one)."""
    whole, parts = model(), model()
    settings = {"batch_size": 2, "max_epochs": 9}
    a = trainer(StopsAt(daml(), -1, how), **settings).fit(whole, TRAIN, VALID)
    path = tmp_path / "run.pt"
    with pytest.warns(TrainingInterrupted, match=r"resume=True.*run\.pt"):
        stopped = trainer(StopsAt(daml(), call, how), **settings, checkpoint=path).fit(
            parts, TRAIN, VALID
        )
    assert stopped.interrupted_ and stopped.epochs_ < 9
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    torch.load(path, weights_only=True)
    parts = model()
    b = trainer(StopsAt(daml(), -1, how), **settings, checkpoint=path).fit(
        parts, TRAIN, VALID, resume=True
    )
    assert not b.interrupted_ and same(whole, parts)
    assert a.history_.drop(columns="seconds").equals(b.history_.drop(columns="seconds"))


def test_ctrl_c_restores_the_best_model():
    m, reference = model(), model()
    with pytest.warns(TrainingInterrupted, match="best valid nll"):
        t = trainer(StopsAt(NLL(), 14, "raise"), monitor="nll").fit(m, TRAIN, VALID)
    trainer(monitor="nll", max_epochs=t.best_epoch_).fit(reference, TRAIN, VALID)
    assert same(m, reference)


def test_trains_in_another_thread():
    thread = threading.Thread(target=lambda: trainer().fit(model(), TRAIN, VALID))
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"optimizer": "sgd"}, "optimizer"),
        ({"objective": daml(sigma=0.5)}, "objective"),
        ({"seed": 4}, "seed"),
        ({"batch_size": 2}, "batch_size"),
        ({"lr": 0.3}, "learning rate"),
    ],
)
def test_checkpoint_of_another_run_is_refused(tmp_path, change, named):
    path = tmp_path / "run.pt"
    settings = {"objective": daml(), "checkpoint": path, "max_epochs": 3}
    trainer(**settings).fit(model(), TRAIN, VALID)
    with pytest.raises(ValueError, match=f"another.*{named}.*resume=False"):
        trainer(**(settings | change)).fit(model(), TRAIN, VALID, resume=True)


def test_checkpoint_of_another_model_or_panel_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    trainer(checkpoint=path).fit(model(), TRAIN, VALID)
    with pytest.raises(ValueError, match="training panel"):
        trainer(checkpoint=path).fit(
            model(), TRAIN.select_times(TRAIN.times[1:]), VALID, resume=True
        )
    small, _ = panels(num_sites=5)
    with pytest.raises(ValueError, match="another model"):
        trainer(checkpoint=path).fit(LogLinear(5, 2), small, resume=True)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_damaged_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "run.pt"
    trainer(checkpoint=path).fit(model(), TRAIN, VALID)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    with pytest.raises(ValueError, match="damaged, cut short"):
        trainer(checkpoint=path).fit(model(), TRAIN, VALID, resume=True)
    torch.save({"format": "something else"}, path)
    with pytest.raises(ValueError, match="another kind"):
        trainer(checkpoint=path).fit(model(), TRAIN, VALID, resume=True)


def test_checkpoint_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    trainer(checkpoint=path, max_epochs=3).fit(model(), TRAIN, VALID)
    before = path.read_bytes()

    def fails(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr("topreach.data.files.os.fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        trainer(checkpoint=path).fit(model(), TRAIN, VALID)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["run.pt"]


# ---- guards --------------------------------------------------------------------------------------


def test_a_fit_that_fails_leaves_model_and_trainer_as_they_were():
    m = model()
    t = trainer(max_epochs=3).fit(m, TRAIN)
    before = {name: value.clone() for name, value in m.state_dict().items()}
    fitted = dict(vars(t))
    calls = []

    def objective(m, batch):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("no more")
        return NLL()(m, batch).loss

    t.objective = objective
    with pytest.raises(OSError, match="no more"):
        t.fit(m, TRAIN)
    assert all(torch.equal(before[name], value) for name, value in m.state_dict().items())
    t.objective = fitted["objective"]
    assert all(vars(t)[name] is value for name, value in fitted.items())


def test_it_is_said_when_nothing_is_learnt():
    """Scores in thousands under sigma = 1e-9: the soft top-K is flat, its gradient 0 in float32."""
    big = panels()[0].batch(window=2)
    big = big._replace(history=1000 * big.history + torch.rand_like(big.history))
    with pytest.warns(NothingLearnt, match="gradient was zero in all 5 steps.*sigma_unit='spread'"):
        trainer(DirectBPR(3, 1e-9), max_epochs=5).fit(Scorer(2, 2), big)
    with pytest.warns(NothingLearnt, match="the loss stayed at"):
        trainer(lambda m, batch: 5.0 + 1e-20 * m.weight.sum() * 1e9, k=None).fit(model(), TRAIN)


def test_training_does_not_depend_on_the_unit_of_the_counts():
    """The scorer's past counts are scaled, sigma is in units of the spread: the same bits for
    counts in units of 1024 (a power of two, so that scaling is exact)."""
    train, valid = panels(num_times=8, num_sites=30)
    histories = []
    for unit in (1.0, 1024.0):
        one, other = (
            b._replace(y=unit * b.y, history=unit * b.history)
            for b in (train.batch(window=2), valid.batch(window=2))
        )
        torch.manual_seed(0)
        scorer = tr.models.LinearScorer(2, 2)
        objective = DirectBPR(6, 0.1, sigma_unit="spread")
        t = trainer(objective, k=6, max_epochs=30).fit(scorer, one, other)
        histories.append(t.history_.drop(columns="seconds"))
    assert histories[0].equals(histories[1])
    reached = histories[0]["train_bpr"].dropna()
    assert reached.iloc[-1] > 2 * 6 / 30, "twice what choosing at random reaches"


def test_closed_sites_take_no_part():
    """NaN counts of sites that are not open: as if the site did not exist in that period."""
    batch = TRAIN.batch()
    closed = torch.zeros(batch.y.shape, dtype=torch.bool)
    closed[:, -1] = True  # never open
    with_nan = batch._replace(y=batch.y.masked_fill(closed, torch.nan), open=~closed)
    full, small = model(), LogLinear(11, 2)
    cut = batch._replace(x=batch.x[:, :-1], y=batch.y[:, :-1])
    trainer(daml(ranking="mean", topk="exact"), max_epochs=5).fit(full, with_nan)
    trainer(daml(ranking="mean", topk="exact"), max_epochs=5).fit(small, cut)
    torch.testing.assert_close(full.weight, small.weight)
    torch.testing.assert_close(full.site[:-1], small.site)
    assert full.site[-1] == 0
    found = [
        trainer(ranking="mean").evaluate(m, data) for m, data in ((full, with_nan), (small, cut))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    with pytest.raises(ValueError, match="must have a count for every site"):
        trainer().fit(model(), batch._replace(y=with_nan.y))


def test_periods_without_whole_lags_are_left_out_with_one_warning():
    batch = TRAIN.batch(window=2)
    history = batch.history.clone()
    history[0, 3, 0] = torch.nan
    torch.manual_seed(0)
    a, b = Scorer(2, 2), Scorer(2, 2)
    b.load_state_dict(a.state_dict())
    with pytest.warns(UserWarning, match="1 of 4 periods of train are left out") as caught:
        trainer(DirectBPR(3, 0.1)).fit(a, batch._replace(history=history))
    assert len(caught) == 1
    kept = type(batch)(*(None if t is None else t[1:] for t in batch))
    trainer(DirectBPR(3, 0.1)).fit(b, kept)
    assert same(a, b)
    with pytest.raises(ValueError, match="must have a period whose past counts are known"):
        trainer(DirectBPR(3, 0.1)).fit(
            a, batch._replace(history=torch.full_like(history, torch.nan))
        )


def test_a_fit_is_compared_with_past_means():
    """By hand: the mean of past counts ranks site 0 first, the model site 1."""
    y = torch.tensor([[4.0, 0.0, 1.0]])
    means = torch.tensor([[3.0, 1.0, 2.0]])
    said = compare_with_past_means(-y, y, means, 1, where="2022")
    assert said.startswith(
        "In 2022 the mean of past counts reaches 100 % of what was possible, this"
    )
    assert "model 0 %" in said
    assert compare_with_past_means(y, y, means, 1, where="2022") is None
    assert compare_with_past_means(-y, 0 * y, means, 1, where="2022") is None
    assert compare_with_past_means(-y, y * torch.nan, means, 1, where="2022") is None
    good = model()
    trainer(max_epochs=200).fit(good, TRAIN)
    assert beats_past_means(good, TRAIN, VALID, program=3) is None
    with torch.no_grad():
        good.site.copy_(-good.site)
        good.weight.copy_(-good.weight)
    assert "the validation periods" in beats_past_means(good, TRAIN, VALID, program=3)
    assert "the last training period, 3," in beats_past_means(good, TRAIN, program=3)


# ---- what goes wrong -----------------------------------------------------------------------------


def test_non_finite_loss_names_step_term_and_remedy():
    m = model()
    calls = []

    def objective(m, batch):
        calls.append(1)
        nll = NLL()(m, batch).loss * (float("nan") if len(calls) == 3 else 1.0)
        return ObjectiveValue(nll + 1.0, {"hinge": torch.tensor(1.0), "nll": nll.detach()})

    with pytest.raises(NonFiniteLossError, match=r"'nll'.*epoch 3, step 3.*lower lr") as caught:
        trainer(objective, k=None, validate_every=100).fit(m, TRAIN)
    assert (caught.value.epoch, caught.value.step, caught.value.term) == (3, 3, "nll")
    assert all(torch.isfinite(p).all() for p in m.parameters())


def test_diverging_run_is_stopped():
    with pytest.raises(NonFiniteLossError, match="lr"):
        trainer(optimizer="sgd", lr=1e6, max_epochs=50).fit(model(), TRAIN, VALID)


def test_non_finite_gradient_names_the_parameter():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.fine = nn.Parameter(torch.ones(()))
            self.root = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return x

    with pytest.raises(NonFiniteLossError, match="parameter.*root in epoch 1, step 1") as caught:
        trainer(lambda m, batch: m.fine + m.root.sqrt(), k=None).fit(Root(), TRAIN)
    assert caught.value.term == "gradient" and caught.value.parameters == ["root"]


def test_clear_errors():
    with pytest.raises(ValueError, match="lr must be a finite number > 0, got 0"):
        trainer(lr=0)
    with pytest.raises(ValueError, match="optimizer must be one of adam"):
        trainer(optimizer="adm")
    with pytest.raises(ValueError, match="monitor must be one of"):
        trainer(monitor="accuracy")
    with pytest.raises(ValueError, match="max_epochs must be a whole number >= 1"):
        trainer(max_epochs=0)
    with pytest.raises(TypeError, match="train must be a Panel or a Batch, got list"):
        trainer().fit(model(), [1])
    with pytest.raises(TypeError, match="torch.nn.Module"):
        trainer().fit("model", TRAIN)
    with pytest.raises(ValueError, match="monitor must be 'bpr' or 'loss'"):
        trainer(DirectBPR(3, 0.1), monitor="nll").fit(Scorer(2, 2), TRAIN, VALID)
    with pytest.raises(ValueError, match="resume must go with"):
        trainer().fit(model(), TRAIN, resume=True)
    with pytest.raises(RuntimeError, match="no gradient at all"):
        trainer(lambda m, batch: torch.zeros((), requires_grad=True) * 1.0).fit(model(), TRAIN)
    with pytest.raises(TypeError, match="must return a scalar"):
        trainer(lambda m, batch: 3.0).fit(model(), TRAIN)
    with pytest.raises(ValueError, match="finite features"):
        trainer().fit(model(), batch_of(torch.ones(2, 12), torch.full((2, 12, 2), torch.nan)))


def test_period_without_events_does_not_disturb():
    train = batch_of([[0.0] * 12, [1.0, 2.0] + [0.0] * 10], torch.randn(2, 12, 2))
    t = trainer(daml()).fit(model(), train, train)
    assert t.history_["loss"].notna().all() and t.history_["valid_bpr"].dropna().between(0, 1).all()


def test_progress_prints_lines_where_there_is_no_terminal(capsys):
    trainer(max_epochs=20, progress=True).fit(model(), TRAIN, VALID)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10 and "epoch 20/20" in lines[-1]
    assert "loss" in lines[-1] and "BPR" in lines[-1] and "s left" in lines[-1]
    trainer(max_epochs=20).fit(model(), TRAIN, VALID)
    assert capsys.readouterr().err == ""


def test_progress_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    trainer(max_epochs=20, progress=True).fit(model(), TRAIN, VALID)
    shown = capsys.readouterr().err
    assert "20/20" in shown and "loss=" in shown and "BPR=" in shown and "<" in shown


def test_no_warnings_of_its_own():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer(daml(), checkpoint=None).fit(model(), TRAIN, VALID)
