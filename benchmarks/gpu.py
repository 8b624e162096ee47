"""`python -m benchmarks.gpu`: times the CUDA kernels against their lower bounds.

The bound of a sampled operator is the time to draw its noise. That of an expected operator or a
ranking is the time to read and write its memory, at the bandwidth of a copy measured in the same
run. Each time is the median over rounds, between two CUDA events, launches included.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

import topreach as tr

SIZES = [(10, 1620, 100, 1e-3), (100, 100_000, 1000, 1e-5), (1, 100_000, 1000, 1e-5)]
DRAWS, SAMPLES = 100, 100


def milliseconds(call: Callable[[], object], rounds: int = 20) -> float:
    """Median time of a call on the current stream, after two calls to warm up."""
    times = []
    for i in range(rounds + 2):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        stop.synchronize()
        if i >= 2:
            times.append(start.elapsed_time(stop))
    return statistics.median(times)


def bandwidth() -> float:
    """Bytes a second of a device-to-device copy of 1 GiB, read and written."""
    source = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / (milliseconds(lambda: target.copy_(source)) * 1e-3)


def tasks(rows: int, sites: int, k: int, sigma: float) -> dict[str, tuple]:
    """name -> (call, least number of times that the noise is drawn, least bytes to be moved)."""
    scores = torch.rand(rows, sites, device="cuda") * sigma * sites / k
    scores.requires_grad_()
    v = torch.randn(rows, sites, device="cuda")
    key = torch.tensor([1, 2], device="cuda")
    row = 4 * rows * sites
    found: dict[str, tuple] = {}

    def both(choose):
        return lambda: torch.autograd.grad(choose(), scores, v)

    for estimator in ("score", "score_loo", "conditional"):

        def sampled(estimator=estimator):
            return tr.perturbed_topk(
                scores, k, sigma=sigma, num_samples=DRAWS, estimator=estimator, key=key
            )

        found[f"`{estimator}` forward"] = (lambda f=sampled: f().detach(), 1, 2 * row)
        found[f"`{estimator}` forward + backward"] = (both(sampled), 2, 4 * row)
    for method in ("exact", "mean_field"):

        def expected(method=method):
            return tr.expected_topk(scores, k, sigma=sigma, method=method)

        found[f"`{method}` forward + backward"] = (both(expected), 0, 5 * row)
    found["`topk_mask`"] = (lambda: tr.topk_mask(scores.detach(), k), 0, 2 * row)
    if SAMPLES * row < 1 << 31:
        y = torch.poisson(torch.rand(SAMPLES, rows, sites, device="cuda"))
        found["`ratio_ranking` forward"] = (lambda: tr.ratio_ranking(y), 0, SAMPLES * row)
    return found


def table() -> str:
    """The times of all tasks as Markdown."""
    speed = bandwidth()
    lines = [f"Copy bandwidth: {speed / 1e9:.0f} GB/s. J = {DRAWS}, M = {SAMPLES}, float32."]
    for rows, sites, k, sigma in SIZES:
        key = torch.tensor([1, 2], device="cuda")
        floor = milliseconds(
            lambda: torch.ops.topreach.topk_noise_checksum(key, DRAWS, rows, sites, "normal")
        )
        lines += [
            f"\nT = {rows}, S = {sites:,}, K = {k:,}; the noise once: {floor:.4g} ms",
            "\n| operator | ms | share of the Philox floor's speed | share of memory bandwidth |",
            "|---|--:|--:|--:|",
        ]
        for name, (call, drawn, moved) in tasks(rows, sites, k, sigma).items():
            spent = milliseconds(call)
            noise = f"{100 * drawn * floor / spent:.0f} %" if drawn else ""
            memory = f"{100 * moved / speed / (spent * 1e-3):.1f} %"
            lines.append(f"| {name} | {spent:.4g} | {noise} | {memory} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, help="file to write; standard output if not given")
    arguments = parser.parse_args()
    if not tr.build_info["cuda"] or not torch.cuda.is_available():
        parser.exit(
            3, "benchmarks.gpu: needs a GPU and topreach built with CUDA; see docs/building.md\n"
        )
    text = table()
    if arguments.out is None:
        print(text, end="")
    else:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
