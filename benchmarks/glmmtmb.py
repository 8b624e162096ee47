"""Compares the mixed-effects model with R's glmmTMB, on the same panels.

    python -m benchmarks.glmmtmb             # compare, print a table; needs R with glmmTMB
    python -m benchmarks.glmmtmb --write     # and store glmmTMB's figures for the test without R

The model is ``y ~ x1 + x2 + x3 + (1 + t | site)`` with a log link and correlated intercepts and
slopes, by Laplace's approximation. glmmTMB: Brooks et al. (2017), The R Journal 9(2).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import topreach as tr

REFERENCE = Path(__file__).with_name("glmmtmb.json")
SITES, TIMES = 1328, 7
_ROWS = ("(Intercept)", "x1", "x2", "x3", "sd(intercept)", "sd(slope)", "cor")

_R = """
suppressMessages(library(glmmTMB))
arguments <- commandArgs(TRUE)
panel <- read.csv(arguments[1]); panel$site <- factor(panel$site)
formula <- y ~ x1 + x2 + x3 + (1 + t | site)
if (arguments[4] == "TRUE") formula <- update(formula, . ~ . + offset(log(exposure)))
zeros <- if (arguments[3] == "TRUE") ~1 else ~0
began <- proc.time()[3]
fit <- glmmTMB(formula, ziformula = zeros, data = panel, family = arguments[2])
took <- proc.time()[3] - began
effects <- VarCorr(fit)$cond$site
numbers <- c(fixef(fit)$cond, attr(effects, "stddev"), attr(effects, "correlation")[1, 2],
             if (arguments[2] == "poisson") NA else sigma(fit),
             if (arguments[3] == "TRUE") plogis(fixef(fit)$zi) else NA,
             logLik(fit), took)
writeLines(sprintf("%.10g", unname(numbers)), arguments[5])
"""


@dataclass(frozen=True)
class Case:
    """One family; `zeros` is the chance of an extra zero, `exposure` whether there is an offset."""

    name: str
    family: str
    zeros: float = 0.0
    exposure: bool = False


CASES = (
    Case("nb1", "nb1"),
    Case("nb2", "nb2"),
    Case("poisson", "poisson"),
    Case("nb2, extra zeros", "nb2", zeros=0.25),
    Case("poisson, extra zeros", "poisson", zeros=0.25),
    Case("nb1, exposure", "nb1", exposure=True),
)


@dataclass(frozen=True)
class Fit:
    """Log-likelihood, estimates by name, and the seconds that the fit took."""

    log_likelihood: float
    estimates: dict[str, float]
    seconds: float


def simulate(case: Case, seed: int = 5) -> pd.DataFrame:
    """A panel drawn from the case's model, in long form."""
    rng = np.random.default_rng(seed)
    b0 = rng.normal(0, 0.7, SITES)
    b1 = rng.normal(0, 0.25, SITES) + 0.3 * b0 * 0.25 / 0.7
    t = np.linspace(-1.5, 1.5, TIMES)
    x = rng.normal(size=(TIMES, SITES, 3))
    x[:, :, 2] = x[0, :, 2]
    mean = np.exp(-0.3 + x @ np.array([0.2, -0.1, 0.4]) + b0 + b1 * t[:, None])
    exposure = np.ones_like(mean)
    if case.exposure:
        exposure = np.exp(rng.normal(0, 0.8, mean.shape))
    if case.zeros > 0:
        mean = 3 * mean
    mean = mean * exposure
    if case.family == "nb1":
        y = rng.negative_binomial(mean / 0.6, 1 / 1.6)
    elif case.family == "nb2":
        y = rng.negative_binomial(1.7, 1.7 / (1.7 + mean))
    else:
        y = rng.poisson(mean)
    y = np.where(rng.random(y.shape) < case.zeros, 0, y)
    columns = {f"x{i + 1}": x[:, :, i].reshape(-1) for i in range(3)}
    return pd.DataFrame(
        {
            "site": np.tile(np.arange(SITES), TIMES),
            "t": np.repeat(t, SITES),
            "y": y.reshape(-1),
            "exposure": exposure.reshape(-1),
            **columns,
        }
    )


def fit_ours(case: Case, panel: pd.DataFrame, quadrature: int = 1) -> Fit:
    def tensor(column: str) -> torch.Tensor:
        return torch.tensor(panel[column].to_numpy(float).reshape(TIMES, SITES))

    x = torch.stack([tensor(f"x{i}") for i in (1, 2, 3)], -1)
    model = tr.models.NegBinMixedEffects(
        SITES, 3, family=case.family, zero_inflation=case.zeros > 0
    )
    began = time.perf_counter()
    model.fit(
        x,
        tensor("y"),
        tensor("t")[:, 0],
        exposure=tensor("exposure") if case.exposure else None,
        feature_names=["x1", "x2", "x3"],
        quadrature=quadrature,
    )
    seconds = time.perf_counter() - began
    table = pd.concat(
        [model.coefficients()["Estimate"], model.variance_parameters()["Estimate"]]
    ).to_dict()
    return Fit(model.fit_.log_likelihood, table, seconds)


def fit_glmmtmb(case: Case, panel: pd.DataFrame) -> Fit:
    """Raises FileNotFoundError without R, CalledProcessError if the fit fails."""
    with tempfile.TemporaryDirectory() as folder:
        script, data, out = (Path(folder) / name for name in ("fit.R", "panel.csv", "numbers"))
        script.write_text(_R)
        panel.to_csv(data, index=False)
        family = {"nb1": "nbinom1", "nb2": "nbinom2", "poisson": "poisson"}[case.family]
        subprocess.run(
            [
                "Rscript",
                script,
                data,
                family,
                str(case.zeros > 0).upper(),
                str(case.exposure).upper(),
                out,
            ],
            check=True,
            capture_output=True,
        )
        numbers = [float(line) for line in out.read_text().replace("NA", "nan").split()]
    estimates = dict(zip(_ROWS, numbers, strict=False))
    dispersion, zeros, log_likelihood, seconds = numbers[len(_ROWS) :]
    if case.family != "poisson":
        estimates["phi" if case.family == "nb1" else "size"] = dispersion
    if case.zeros > 0:
        estimates["zero_prob"] = zeros
    return Fit(log_likelihood, estimates, seconds)


def has_glmmtmb() -> bool:
    try:
        command = ["Rscript", "-e", "library(glmmTMB)"]
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def largest_difference(ours: Fit, theirs: Fit) -> tuple[float, str]:
    """The largest difference between the estimates, and the name of the estimate."""
    return max(
        (abs(ours.estimates[name] - value), name) for name, value in theirs.estimates.items()
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.glmmtmb", description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="store glmmTMB's figures")
    given = parser.parse_args(arguments)
    if not has_glmmtmb():
        print("glmmTMB is missing: install R and its package glmmTMB (Debian: r-cran-glmmtmb).")
        return 2
    stored = {}
    print("| model | log L, glmmTMB | ours | largest difference of an estimate | s | ours |")
    print("|---|---|---|---|---|---|")
    agree = True
    for case in CASES:
        panel = simulate(case)
        theirs, ours = fit_glmmtmb(case, panel), fit_ours(case, panel)
        difference, where = largest_difference(ours, theirs)
        agree &= difference < 1e-3 and abs(ours.log_likelihood - theirs.log_likelihood) < 0.01
        print(
            f"| {case.name} | {theirs.log_likelihood:.3f} | {ours.log_likelihood:.3f} | "
            f"{difference:.0e} ({where}) | {theirs.seconds:.1f} | {ours.seconds:.1f} |",
            flush=True,
        )
        stored[case.name] = {"log_likelihood": theirs.log_likelihood, "estimates": theirs.estimates}
    if given.write:
        REFERENCE.write_text(json.dumps(stored, indent=1) + "\n")
    print("All agree." if agree else "NOT all agree.")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
