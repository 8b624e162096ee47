"""`python -m benchmarks`: times the operators against plain PyTorch and writes RESULTS.md.

Each row is one task. All its contenders run in turn within each round, in this process and with the
same threads. Figures are medians over the rounds, ratios are of medians. Memory is measured
separately: the growth of the peak resident size over one call, in a fresh process for each
contender.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from topreach_experiments.gradient_quality import topk as study
from topreach_experiments.gradient_quality.quality import COSINE

import topreach as tr
from benchmarks import formulations as plain
from benchmarks import native, plans, stemmed
from topreach.data import atomic_path

RESULTS = Path(__file__).parent / "RESULTS.md"
OURS, PAPER, PLAIN, FLOOR = "topreach", "(a) papers' formulation", "(b) plain PyTorch", "floor"
SCORE, SAMPLED = "topreach, `score`", "topreach, sampled"
CPU = torch.device("cpu")
SIGMA, BUDGET, DRAWS = 1e-3, 100, 100
ROWS, SITES = 10, 1620
LARGE_SIGMA, LARGE_BUDGET, LARGE_ROWS, LARGE_SITES = 1e-5, 1000, 100, 100_000
MOST_NOISE = 3e9  # if a time needs more noise values than this, it is extrapolated

Contenders = dict[str, Callable[[], object]]  # the first is the library's


def sampled_topk(estimator: str, rows: int, sites: int, k: int, sigma: float, backward: bool):
    """One call of the operator, and one that only draws the noise that it needs."""
    scores, v = study.make_inputs(sites, k, rows, 0, CPU)
    key = torch.tensor([1, 2])

    def ours():
        free = scores.requires_grad_(backward)
        b = tr.perturbed_topk(free, k, sigma=sigma, num_samples=DRAWS, estimator=estimator, key=key)
        if backward:
            torch.autograd.grad(b, free, v)

    def floor():
        for _ in range(2 if backward else 1):
            torch.ops.topreach.topk_noise_checksum(key, DRAWS, rows, sites, "normal")

    return ours, floor


def score_task(rows: int, sites: int, k: int, sigma: float, backward: bool, paper: bool = True):
    scores, v = study.make_inputs(sites, k, rows, 0, CPU)
    ours, floor = sampled_topk("score", rows, sites, k, sigma, backward)
    pull = v if backward else None
    tasks = {OURS: ours, PLAIN: lambda: plain.topk_plain(scores, k, sigma, DRAWS, pull)}
    if paper:
        tasks[PAPER] = lambda: plain.topk_paper(scores, k, sigma, DRAWS, pull)
    if rows > 1:  # the floor's threads work on rows
        tasks[FLOOR] = floor
    return tasks


def conditional_task(rows: int, sites: int, k: int, sigma: float, beside: bool = True):
    tasks = {OURS: sampled_topk("conditional", rows, sites, k, sigma, True)[0]}
    if beside:
        tasks[SCORE], tasks[FLOOR] = sampled_topk("score", rows, sites, k, sigma, True)
    return tasks


def expected_task(method: str, rows: int, sites: int, k: int, sigma: float, beside: bool = True):
    scores, v = study.make_inputs(sites, k, rows, 0, CPU)
    baseline = plain.exact_plain if method == "exact" else plain.mean_field_plain
    tasks = {OURS: lambda: study.deterministic(method, scores, v, k, sigma)}
    if beside:
        tasks[PLAIN] = lambda: baseline(scores, k, sigma, v)
    return tasks


def ratio_task(backward: bool):
    torch.manual_seed(0)
    rate = torch.distributions.Gamma(0.6, 1.0).sample((4, 1328))
    y = torch.poisson(rate.expand(100, 4, 1328))
    score = y - rate
    g = torch.randn(4, 1328)

    log_prob = torch.zeros(100, 4, requires_grad=True)

    def ours():
        r = tr.ratio_ranking(y, log_prob if backward else None)
        if backward:
            (weight,) = torch.autograd.grad(r, log_prob, g)
            torch.einsum("mt,mts->ts", weight, score)

    pull = g if backward else None
    return {
        OURS: ours,
        PAPER: lambda: plain.ratio_paper(y, score, pull),
        PLAIN: lambda: plain.ratio_plain(y, score, pull),
        FLOOR: lambda: y.sum(),
    }


def expected_ratio_task(one_logit: bool):
    """Exact ranking of NegBin counts, forward and backward, against that from 100 samples."""
    torch.manual_seed(0)
    n = (torch.distributions.Gamma(0.6, 1.0).sample((4, 1328)) + 0.05).requires_grad_()
    logits = torch.full((4, 1), -0.4) if one_logit else torch.randn(4, 1328) * 0.3 - 0.4
    logits.requires_grad_()
    g = torch.randn(4, 1328)
    counts = tr.distributions.NegativeBinomial(n, logits)
    key = torch.tensor([1, 2])

    def sampled():
        y = counts.sample(100, key=key)
        torch.autograd.grad(tr.ratio_ranking(y, counts.log_prob(y)), [n, logits], g)

    def quadrature():
        r = plain.expected_ratio_plain(n, logits)
        torch.autograd.grad(r, [n, logits], g.double())

    return {
        OURS: lambda: torch.autograd.grad(tr.expected_ratio_ranking(counts), [n, logits], g),
        SAMPLED: sampled,
        PLAIN: quadrature,
    }


def daml_problem():
    """The NegBin model and a batch with the sizes of Cook County: T = 4, S = 1328."""
    torch.manual_seed(0)
    panel = tr.datasets.simulate_county().train
    panel = tr.Standardizer().fit(panel).transform(panel)
    batch = panel.batch()
    batch = batch._replace(time=(batch.time - batch.time.mean()) / batch.time.std())
    mean = float(batch.y.mean())
    model = tr.models.NegBinMixedEffects(
        panel.num_sites, panel.num_features, link="softplus", initial_mean=mean
    )
    return model, batch


def daml_step(**form):
    model, batch = daml_problem()
    objective = tr.objectives.DecisionAware(BUDGET, SIGMA, epsilon=1.0, **form)
    key = torch.tensor([1, 2])
    return lambda: objective(model, batch, key=key).loss.backward()


PAPER_FORM = dict(ranking="ratio", topk="sampled", estimator="score", ranking_estimator="score")
EXACT_FORM = dict(ranking="exact", topk="exact")


def sampled_daml_task():
    """One step as in the papers, M = J = 100, draws of the model included."""
    model, batch = daml_problem()
    key = torch.tensor([1, 2])
    settings = dict(k=BUDGET, sigma=SIGMA, draws=100, samples=100, epsilon=1.0, weight=30.0)

    def floor():
        with torch.no_grad():
            model(batch.x, batch.time).sample(100, key=key)
        for _ in range(2):
            torch.ops.topreach.topk_noise_checksum(key, 100, 4, 1328, "normal")

    return {
        OURS: daml_step(**PAPER_FORM),
        PAPER: lambda: plain.daml_step(model, batch, **settings, paper=True),
        PLAIN: lambda: plain.daml_step(model, batch, **settings, paper=False),
        FLOOR: floor,
    }


_SIZE = f"T={ROWS} S={SITES} K={BUDGET}"
_LARGE = f"S={LARGE_SITES:,} K={LARGE_BUDGET:,}"
_SMALL_ARGUMENTS = (ROWS, SITES, BUDGET, SIGMA)
_ROW_ARGUMENTS = (1, LARGE_SITES, LARGE_BUDGET, LARGE_SIGMA)
_LARGE_ARGUMENTS = (LARGE_ROWS, LARGE_SITES, LARGE_BUDGET, LARGE_SIGMA)
SCORE_FORWARD = f"`score`, forward: {_SIZE} J={DRAWS}"
SCORE_BOTH = f"`score`, forward + backward: {_SIZE} J={DRAWS}"
SCORE_ROW = f"`score`, forward + backward: T=1 {_LARGE} J={DRAWS}"
CONDITIONAL = f"`conditional`, forward + backward: {_SIZE} J={DRAWS}"
CONDITIONAL_LARGE = f"`conditional`, forward + backward: T={LARGE_ROWS} {_LARGE} J={DRAWS}"
EXACT = f"`exact`, value + gradient: {_SIZE}"
EXACT_ROW = f"`exact`, value + gradient: T=1 {_LARGE}"
EXACT_LARGE = f"`exact`, value + gradient: T={LARGE_ROWS} {_LARGE}"
MEAN_FIELD = f"`mean_field`, value + gradient: {_SIZE}"
MEAN_FIELD_ROW = f"`mean_field`, value + gradient: T=1 {_LARGE}"
RATIO_FORWARD = "ratio ranking, forward: M=100 T=4 S=1328"
RATIO_BOTH = "ratio ranking, forward + backward: M=100 T=4 S=1328"
EXPECTED_RATIO_ONE = "expected ratio ranking, one logit, value + gradient: T=4 S=1328"
EXPECTED_RATIO_SITES = "expected ratio ranking, a logit per site, value + gradient: T=4 S=1328"
DAML_EXACT = "DAML step without samples: T=4 S=1328 K=100"
DAML_SAMPLED = "DAML step of the papers: T=4 S=1328 K=100 M=J=100"

TASKS: dict[str, Callable[[], Contenders]] = {
    SCORE_FORWARD: lambda: score_task(*_SMALL_ARGUMENTS, False),
    SCORE_BOTH: lambda: score_task(*_SMALL_ARGUMENTS, True),
    CONDITIONAL: lambda: conditional_task(*_SMALL_ARGUMENTS),
    EXACT: lambda: expected_task("exact", *_SMALL_ARGUMENTS),
    MEAN_FIELD: lambda: expected_task("mean_field", *_SMALL_ARGUMENTS),
    SCORE_ROW: lambda: score_task(*_ROW_ARGUMENTS, True, paper=False),
    EXACT_ROW: lambda: expected_task("exact", *_ROW_ARGUMENTS, beside=False),
    MEAN_FIELD_ROW: lambda: expected_task("mean_field", *_ROW_ARGUMENTS),
    CONDITIONAL_LARGE: lambda: conditional_task(*_LARGE_ARGUMENTS, beside=False),
    EXACT_LARGE: lambda: expected_task("exact", *_LARGE_ARGUMENTS, beside=False),
    RATIO_FORWARD: lambda: ratio_task(False),
    RATIO_BOTH: lambda: ratio_task(True),
    EXPECTED_RATIO_ONE: lambda: expected_ratio_task(True),
    EXPECTED_RATIO_SITES: lambda: expected_ratio_task(False),
    DAML_EXACT: lambda: {OURS: daml_step(**EXACT_FORM), SAMPLED: daml_step(**PAPER_FORM)},
    DAML_SAMPLED: sampled_daml_task,
    **plans.TASKS,
    **stemmed.TASKS,
}


class Target(NamedTuple):
    """A target: `measure` of (times, megabytes), each by task and contender, must be at most, or
    at least, `limit`."""

    asked: str
    limit: float
    at_least: bool
    unit: str
    measure: Callable[[dict, dict], float | None]


def _ratio(task: str, over: str, under: str):
    def measure(times: dict, _: dict) -> float | None:
        found = times.get(task, {})
        return found[over] / found[under] if over in found and under in found else None

    return measure


def _time(task: str, unit: float):
    return lambda times, _: times[task][OURS] / unit if task in times else None


def _gap(task: str):
    return lambda *_: plans.gap(task)


TARGETS = [
    Target(
        "`score` forward + backward ≥ 120 × faster than the papers' formulation",
        120, True, "×", _ratio(SCORE_BOTH, PAPER, OURS),
    ),
    Target(
        "`score` forward + backward ≥ 5 × faster than plain PyTorch",
        5, True, "×", _ratio(SCORE_BOTH, PLAIN, OURS),
    ),
    Target(
        "`score` forward ≤ 2 × its noise", 2, False, "×", _ratio(SCORE_FORWARD, OURS, FLOOR)
    ),
    Target("`conditional` ≤ 1.5 × `score`", 1.5, False, "×", _ratio(CONDITIONAL, OURS, SCORE)),
    Target(f"`exact` {_SIZE} ≤ 12 ms", 12, False, "ms", _time(EXACT, 1e-3)),
    Target(f"`exact` T=1 {_LARGE} ≤ 80 ms", 80, False, "ms", _time(EXACT_ROW, 1e-3)),
    Target(f"`mean_field` T=1 {_LARGE} ≤ 3 ms", 3, False, "ms", _time(MEAN_FIELD_ROW, 1e-3)),
    Target(
        f"`conditional` T={LARGE_ROWS} {_LARGE} J={DRAWS} ≤ 6 s",
        6, False, "s", _time(CONDITIONAL_LARGE, 1),
    ),
    Target(
        "the same in ≤ 1 GB",
        1, False, "GB", lambda _, memory: per_thousand(memory[CONDITIONAL_LARGE].get(OURS)),
    ),
    Target(f"`exact` T={LARGE_ROWS} {_LARGE} ≤ 6 s", 6, False, "s", _time(EXACT_LARGE, 1)),
    Target("DAML step without samples ≤ 10 ms", 10, False, "ms", _time(DAML_EXACT, 1e-3)),
    Target(
        f"{plans.QUOTA} ≤ 1.5 × one sort", 1.5, False, "×", _ratio(plans.QUOTA, OURS, plans.SORT)
    ),
    Target(f"{plans.EXPECTED} ≤ 20 ms", 20, False, "ms", _time(plans.EXPECTED, 1e-3)),
    Target(f"{plans.SPILLOVER}: gap ≤ .01 %", 0.01, False, "%", _gap(plans.SPILLOVER)),
    Target("the same in ≤ 2 s", 2, False, "s", _time(plans.SPILLOVER, 1)),
    Target(f"{plans.HUBS}: gap ≤ 2 %", 2, False, "%", _gap(plans.HUBS)),
    Target(f"{plans.CALL_IN}: gap ≤ .05 %", 0.05, False, "%", _gap(plans.CALL_IN)),
    Target("the same in ≤ 6 s", 6, False, "s", _time(plans.CALL_IN, 1)),
    Target(f"{plans.COVERING} ≤ .05 s", 0.05, False, "s", _time(plans.COVERING, 1)),
    Target(
        f"{plans.STEINER} ≥ 20 × faster than networkx",
        20, True, "×", _ratio(plans.STEINER, plans.NETWORKX, OURS),
    ),
    *(
        Target(f"{plans.TOURS[size]}, proved, ≤ {most:g} s", most, False, "s",
               _time(plans.TOURS[size], 1))
        for size, most in (((6, 4), 0.4), ((12, 4), 2.0), ((12, 8), 3.6), ((15, 4), 20.0))
    ),
    Target(f"{stemmed.FIT} ≤ 10 s", 10, False, "s", _time(stemmed.FIT, 1)),
    Target(f"{stemmed.PATHS} ≤ 1 s", 1, False, "s", _time(stemmed.PATHS, 1)),
]  # fmt: skip


def per_thousand(value: float | None) -> float | None:
    return None if value is None else value / 1000


def clock(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def measure_time(task: str, seconds: float) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that data are simulated does not matter here
        contenders = TASKS[task]()
    # The first call is a warm-up. If it takes longer than the task's whole time, it is the result.
    once = {name: clock(call, 1) for name, call in contenders.items()}
    slow = {name: [spent] for name, spent in once.items() if spent > seconds}
    quick = {name: call for name, call in contenders.items() if name not in slow}
    once = {name: clock(call, 1) for name, call in quick.items()}
    # Short calls are repeated for about 20 ms within a round; rounds fill the given time.
    repeats = {name: max(1, int(0.02 / seconds_each)) for name, seconds_each in once.items()}
    round_seconds = sum(once[name] * repeats[name] for name in quick)
    rounds = max(3, min(50, int(seconds / max(round_seconds, 1e-9))))
    times: dict[str, list[float]] = {name: [] for name in contenders} | slow
    for _ in range(rounds):
        for name, call in quick.items():
            times[name].append(clock(call, repeats[name]))
    return {name: statistics.median(values) for name, values in times.items()}


def resident(field: str) -> int:
    """VmRSS, or its peak VmHWM, in kilobytes (getrusage would include the parent's peak)."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0])


def memory_of_one(task: str, name: str) -> None:
    """Runs in a separate process: prints the growth of the peak, in kilobytes."""
    call = TASKS[task]()[name]
    # A small problem first, so that threads, libraries and the allocator's first pages are not
    # counted.
    for warm_up in score_task(2, 300, BUDGET, SIGMA, True).values():
        warm_up()
    ctypes.CDLL(None).malloc_trim(0)  # freed pages would hide memory that the call takes
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = resident("VmRSS")
    call()
    print(max(0, resident("VmHWM") - before))


def measure_memory(task: str, name: str) -> float | None:
    if platform.libc_ver()[0] != "glibc":  # malloc_trim and /proc
        return None
    arguments = [sys.executable, "-m", "benchmarks", "--memory", task, name]
    run = subprocess.run(
        arguments, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent
    )
    return int(run.stdout) / 1024


def machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores"


def table(times: dict[str, dict[str, float]], memory: dict[str, dict[str, float | None]]) -> str:
    lines = [
        "| task | method | time, ms | time / topreach | extra memory, MB | topreach / floor |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for task, by_name in times.items():
        for name, value in by_name.items():
            mb = memory[task].get(name)
            is_ours = name == OURS
            cells = [
                task if is_ours else "",
                name,
                f"{value * 1e3:.3g}" if value < 0.1 else f"{value * 1e3:.0f}",
                "1" if is_ours else f"{value / by_name[OURS]:.1f}",
                "" if mb is None else f"{mb:.1f}",
                f"{by_name[OURS] / by_name[FLOOR]:.2f}" if is_ours and FLOOR in by_name else "",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def target_table(times: dict, memory: dict, printed: str) -> str:
    of_kernels = [
        Target(asked, limit, at_least, unit, lambda *_, asked=asked: stemmed.kernel(asked, printed))
        for asked, (_, limit, at_least, unit, _) in stemmed.KERNELS.items()
    ]
    lines = ["| asked | measured | met |", "|---|--:|---|"]
    for target in TARGETS + of_kernels:
        value = target.measure(times, memory)
        met = None if value is None else value >= target.limit
        if not target.at_least:
            met = None if value is None else value <= target.limit
        shown = "not measured" if value is None else f"{value:.3g} {target.unit}"
        answer = {None: "", True: "yes", False: "**no**"}[met]
        lines.append(f"| {target.asked} | {shown} | {answer} |")
    return "\n".join(lines)


def cosine_table(times: dict[str, dict[str, float]]) -> str:
    """Time until the gradient's cosine to the exact one is .99, at T=10 S=1620 K=100."""
    problem = study.make_problem(SITES, BUDGET, SIGMA, ROWS, 0, CPU)
    formulations = [
        ("`score`, papers' formulation", "score", times[SCORE_BOTH][PAPER], 0),
        ("`score`, plain PyTorch", "score", times[SCORE_BOTH][PLAIN], 0),
        ("`score`", "score", times[SCORE_BOTH][OURS], MOST_NOISE),
        ("`score_loo`", "score_loo", times[SCORE_BOTH][OURS], MOST_NOISE),
        ("`conditional`", "conditional", times[CONDITIONAL][OURS], MOST_NOISE),
        ("`mean_field`", "mean_field", times[MEAN_FIELD][OURS], MOST_NOISE),
        ("`exact`", "exact", times[EXACT][OURS], MOST_NOISE),
    ]
    lines = [
        "| gradient | relative variance, J=100 | draws | time | how | papers' time / this |",
        "|---|--:|--:|--:|---|--:|",
    ]
    baseline = None
    for label, estimator, spent, limit in formulations:
        found = study.judge(estimator, problem, DRAWS, 40, 0)
        each = spent / DRAWS if estimator in study.SAMPLED else spent
        row = study.time_to_cosine(estimator, problem, found, DRAWS, each, limit, 1)
        if row["how"] == "never":
            lines.append(f"| {label} | | | never: cosine {row['cosine']:.4f} | | |")
            continue
        baseline = baseline or row["milliseconds"]
        variance = found["relative_variance"]
        cells = [
            label,
            "" if variance is None else f"{variance:.3g}",
            "" if row["draws"] is None else f"{row['draws']:.3g}",
            duration(row["milliseconds"] / 1e3),
            row["how"],
            f"{baseline / row['milliseconds']:.2g}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e3:.3g} ms"


def report(times: dict, memory: dict, threads: int, printed: str) -> str:
    return f"""# Benchmark

Written by `make bench` (`python -m benchmarks`). The GPU's page is [cuda.md](cuda.md).

Machine: {machine()}; {threads} threads; {tr.cpu_capability()} kernels. torch {torch.__version__},
Python {platform.python_version()}, topreach {tr.__version__}. All in float32.

## Asked and measured

{target_table(times, memory, printed)}

## Time to a good gradient

Until the mean cosine between a gradient and the exact one is {COSINE}: {_SIZE}, sigma = {SIGMA:g},
all rows, forward and backward. An unbiased gradient of relative variance r has a cosine near 1 /
√(1 + r), and r falls like 1 / J: that gives the draws. "Extrapolated" is the time of {DRAWS} draws
times draws / {DRAWS}, since so many would take too long or too much memory; the papers'
formulation always is. Other sizes, and the check of
the rule against measured cosines: `topreach experiment gradient_quality`.

{cosine_table(times)}

## Times and memory

All contenders of a task run in turn in one process; times are medians. (a) is the papers'
formulation
in eager PyTorch: one-hot indicators, Jacobians by einsum. (b) is the best composition of plain
    PyTorch
operations that we know: for the sampled top-K, top-K without sorting, scatter, gather and
vector-Jacobian products; for the exact one, the characteristic function as complex tensors,
thresholds by frequencies by sites, in float64; for the exact ratio ranking, 32 Gauss-Legendre
nodes in float64. They are in `benchmarks/formulations.py`. The floor of the sampled top-K is
drawing the needed noise alone, by this library's generator (twice for forward + backward, where it
is drawn again); of the ratio ranking, reading the samples once; of the papers' DAML step, drawing
samples and noise. Extra memory is the growth of the peak resident size over one call in a fresh
process, so what is below about 1 MB is not resolved.

{table(times, memory)}

## The kernels alone

Without torch, on one thread but where two are named: what the programs `benchmarks/*_kernels.cpp`
print. "Plain" is a scalar program of the same likelihood, in the same file.

```
{printed.strip()}
```
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=6.0, help="time for each task's rounds")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--memory", nargs=2, metavar=("TASK", "METHOD"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        memory_of_one(*arguments.memory)
        return
    torch.set_num_threads(arguments.threads)
    times, memory = {}, {}
    for task in TASKS:
        print(task, flush=True)
        times[task] = measure_time(task, arguments.seconds)
        # Memory needs one more run, so slow contenders are left out.
        memory[task] = {
            name: measure_memory(task, name)
            for name, spent in times[task].items()
            if name != FLOOR and spent < 10
        }
        for name, value in times[task].items():
            mb = memory[task].get(name)
            extra = f", {mb:.1f} MB" if mb is not None else ""
            print(f"  {name}: {value * 1e3:.3g} ms{extra}", flush=True)
    print("the kernels alone", flush=True)
    printed = native.run()
    print(printed, flush=True)
    text = report(times, memory, arguments.threads, printed)
    with atomic_path(arguments.out) as path:
        path.write_text(text)
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
