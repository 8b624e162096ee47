"""`python -m benchmarks`: times the operators against plain PyTorch and writes RESULTS.md.

Each row is one task. All its contenders run in turn within each round, in this process and with the
same threads; figures are medians over the rounds, ratios are of medians. Memory is measured apart:
each contender in a fresh process, the growth of its peak resident size over one call.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

import topreach as tr
from benchmarks import formulations as plain

RESULTS = Path(__file__).parent / "RESULTS.md"
OURS, PAPER, PLAIN, FLOOR = "topreach", "(a) papers' formulation", "(b) plain PyTorch", "floor"
SIGMA, BUDGET = 1e-3, 100


def topk_inputs(rows: int, sites: int):
    """Scores like ratio rankings, and the derivative of a BPR for counts like overdose deaths."""
    rate = torch.distributions.Gamma(0.6, 1.0).sample((rows, sites)) + 1e-6
    y = torch.poisson(rate)
    return rate / rate.sum(-1, keepdim=True), y / y.topk(BUDGET, -1).values.sum(-1, keepdim=True)


def topk_task(rows: int, sites: int, k: int, sigma: float, backward: bool, paper: bool = True):
    scores, v = topk_inputs(rows, sites)
    key = torch.tensor([1, 2])

    def ours():
        free = scores.requires_grad_(backward)
        b = tr.perturbed_topk(free, k, sigma=sigma, key=key)
        if backward:
            torch.autograd.grad(b, free, v)

    def floor():
        for _ in range(2 if backward else 1):
            torch.ops.topreach.topk_noise_checksum(key, 100, rows, sites, "normal")

    pull = v if backward else None
    tasks = {
        OURS: ours,
        PLAIN: lambda: plain.topk_plain(scores.detach(), k, sigma, 100, pull),
    }
    if paper:
        tasks[PAPER] = lambda: plain.topk_paper(scores.detach(), k, sigma, 100, pull)
    if rows > 1:  # the floor's threads work on rows
        tasks[FLOOR] = floor
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


def daml_task():
    """One step on shapes of Cook County: T = 4, S = 1328, M = J = 100, draws of the model included."""
    torch.manual_seed(0)
    panel = tr.datasets.simulate_county().train
    panel = tr.Standardizer().fit(panel).transform(panel)
    batch = panel.batch()
    batch = batch._replace(time=(batch.time - batch.time.mean()) / batch.time.std())
    mean = float(batch.y.mean())
    model = tr.models.NegBinMixedEffects(
        panel.num_sites, panel.num_features, link="softplus", initial_mean=mean
    )
    objective = tr.objectives.DecisionAware(BUDGET, SIGMA, ranking="ratio", topk="sampled")
    key = torch.tensor([1, 2])
    settings = dict(k=BUDGET, sigma=SIGMA, draws=100, samples=100, epsilon=1.0, weight=30.0)

    def floor():
        with torch.no_grad():
            model(batch.x, batch.time).sample(100, key=key)
        for _ in range(2):
            torch.ops.topreach.topk_noise_checksum(key, 100, 4, 1328, "normal")

    return {
        OURS: lambda: objective(model, batch, key=key).loss.backward(),
        PAPER: lambda: plain.daml_step(model, batch, **settings, paper=True),
        PLAIN: lambda: plain.daml_step(model, batch, **settings, paper=False),
        FLOOR: floor,
    }


TASKS: dict[str, Callable[[], dict[str, Callable[[], object]]]] = {
    "perturbed top-K, forward: T=10 S=1620 K=100 J=100": lambda: topk_task(
        10, 1620, BUDGET, SIGMA, False
    ),
    "perturbed top-K, forward + backward: T=10 S=1620 K=100 J=100": lambda: topk_task(
        10, 1620, BUDGET, SIGMA, True
    ),
    "perturbed top-K, forward + backward: T=1 S=100,000 K=1,000 J=100": lambda: topk_task(
        1, 100_000, 1000, 1e-5, True, paper=False
    ),
    "ratio ranking, forward: M=100 T=4 S=1328": lambda: ratio_task(False),
    "ratio ranking, forward + backward: M=100 T=4 S=1328": lambda: ratio_task(True),
    "DAML step: T=4 S=1328 K=100 M=J=100": daml_task,
}


def clock(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def measure_time(task: str, seconds: float) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # simulated data are right for a stopwatch
        contenders = TASKS[task]()
    once = {}
    for name, call in contenders.items():
        call()
        once[name] = clock(call, 1)
    # Short calls are repeated to some 20 ms within a round; rounds fill the time given.
    repeats = {name: max(1, int(0.02 / seconds_each)) for name, seconds_each in once.items()}
    round_seconds = sum(once[name] * repeats[name] for name in contenders)
    rounds = max(5, min(50, int(seconds / round_seconds)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            times[name].append(clock(call, repeats[name]))
    return {name: statistics.median(values) for name, values in times.items()}


def resident(field: str) -> int:
    """VmRSS, or VmHWM, its peak, in kilobytes (getrusage would count the parent's peak too)."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0])


def memory_of_one(task: str, name: str) -> None:
    """Run in a process of its own: prints the growth of the peak, in kilobytes."""
    call = TASKS[task]()[name]
    # Threads, libraries and the allocator's first pages are not the method's: a small problem first.
    for warm_up in topk_task(2, 300, BUDGET, SIGMA, True).values():
        warm_up()
    ctypes.CDLL(None).malloc_trim(0)  # freed pages would hide what the call takes
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


def table(results: dict[str, tuple[dict[str, float], dict[str, float | None]]]) -> str:
    lines = [
        "| task | method | time, ms | time / topreach | extra memory, MB | topreach / floor |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for task, (times, memory) in results.items():
        for name in (OURS, PAPER, PLAIN, FLOOR):
            if name not in times:
                continue
            mb = memory.get(name)
            cells = [
                task if name == OURS else "",
                name,
                f"{times[name] * 1e3:.2f}",
                "1" if name == OURS else f"{times[name] / times[OURS]:.1f}",
                "" if mb is None else f"{mb:.1f}",
                f"{times[OURS] / times[FLOOR]:.2f}" if name == OURS and FLOOR in times else "",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(results, threads: int) -> str:
    return f"""# Benchmark

Written by `make bench` (`python -m benchmarks`). All contenders of a task run in turn in one process;
times are medians. (a) is the papers' formulation in eager PyTorch: one-hot indicators, Jacobians by
einsum. (b) is the best composition of plain PyTorch operations that we know: top-K without sorting,
scatter, gather, vector-Jacobian products. Both are in `benchmarks/formulations.py`. The floor of the
top-K tasks is drawing the needed noise alone, by this library's generator (twice for forward +
backward, where it is drawn again); of the ratio ranking, reading the samples once; of the DAML step,
drawing samples and noise. Extra memory is the growth of the peak resident size over one call in a fresh
process, so what is below about 1 MB is not resolved.

Machine: {machine()}; {threads} threads; {tr.cpu_capability()} kernels. torch {torch.__version__},
Python {platform.python_version()}, topreach {tr.__version__}.

{table(results)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=12.0, help="time for each task's rounds")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--memory", nargs=2, metavar=("TASK", "METHOD"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        memory_of_one(*arguments.memory)
        return
    torch.set_num_threads(arguments.threads)
    results = {}
    for task in TASKS:
        print(task, flush=True)
        times = measure_time(task, arguments.seconds)
        memory = {name: measure_memory(task, name) for name in times if name != FLOOR}
        results[task] = (times, memory)
        for name, value in times.items():
            extra = f", {memory[name]:.1f} MB" if memory.get(name) is not None else ""
            print(f"  {name}: {value * 1e3:.2f} ms{extra}", flush=True)
    text = report(results, arguments.threads)
    with tempfile.NamedTemporaryFile("w", dir=arguments.out.parent, delete=False) as handle:
        handle.write(text)
    os.chmod(handle.name, 0o644)
    os.replace(handle.name, arguments.out)
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
