"""Notes on a fit of `Stemmed`, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topreach.data import columns as _columns
from topreach.data.messages import either
from topreach.models.stemmed import fitting
from topreach.models.stemmed import forecast as futures
from topreach.models.stemmed.problem import month_days

if TYPE_CHECKING:
    from topreach.models.stemmed.model import Stemmed

LONG_WINDOW = 240  # months: if times are numbers, a longer window is hardly in months


def fit_notes(model: Stemmed) -> list[str]:
    """The notes of a fitted model: of its times first, then of the fit."""
    return [*_of_times(model), *_of_the_fit(model)]


def _of_times(model: Stemmed) -> list[str]:
    """Anchor and half-life beside the window; and the unit of times that are numbers."""
    notes = []
    events, problem = model.events_, model.problem_
    month, unit = month_days(events.is_dates), "days" if events.is_dates else "units of time"
    window = f"{events.duration:.4g} {unit}"
    if not events.is_dates and events.duration > LONG_WINDOW:
        notes.append(
            f"Times are numbers, and one of their units stands for a month: the window is "
            f"{window} long, and the anchor {model.anchor or 0:g} of them. If a unit is a day or "
            "an hour, give dates, or times in months."
        )
    if model.anchor is not None and model.anchor * month > events.duration * (1 + 1e-9):
        notes.append(
            f"The anchor, {model.anchor:g} months, is longer than the window, {window}: forecasts "
            "relax to the mean rate of the whole window."
        )
    half_life = model.options.half_life
    block = float(problem.arguments.edges.diff().mean())
    if half_life is not None and half_life * month < block:
        edges = problem.arguments.edges
        inside = problem.arguments.time[problem.arguments.time > 0]
        last = int((inside > edges[-2]).sum())
        notes.append(
            f"The half-life, {half_life * month:.2g} {unit}, is shorter than a block of time, "
            f"{block:.3g} {unit}, within which all events count the same: the fit rests on the "
            f"last block, {last} of {len(inside)} events. Give a longer half_life, or shorter "
            "blocks by refresh."
        )
    return notes


def _of_the_fit(model: Stemmed) -> list[str]:
    notes = []
    problem = model.problem_
    if not bool(model.converged_.all()):
        nodes = [
            f"{p} | {s}"
            for (p, s), done in zip(model.events_.nodes, model.converged_.tolist(), strict=True)
            if not done
        ]
        notes.append(f"The fit has not converged at {_columns.listed(nodes)}.")
    if model.rounds_ >= fitting.ROUNDS:
        notes.append(
            f"The prior that nodes share was still moving after {fitting.ROUNDS} rounds: what "
            "the data cannot tell in any node is not settled."
        )
    places = model.events_.places
    seen = (problem.own.view(len(places), -1).sum(1) > 0).tolist()
    if not all(seen):
        empty = [place for place, has in zip(places, seen, strict=True) if not has]
        notes.append(
            f"No event in the window at {_columns.listed(empty)}: what is expected there "
            "follows from the other places."
        )
    if problem.num_marks and not model.spreads_marks:
        notes.append(
            f"With more than {futures.MOST_NODES} nodes ({problem.num_nodes}) variances by "
            "moments take marks at their mean, and are a little too small."
            + either(" mode='branching' draws them.", "")
        )
    lags = (-model.working_[:, -1]).exp()
    short = (lags < 3 * problem.resolution) & (problem.own > 0)
    if bool(short.any()):
        notes.append(
            f"At {int(short.sum())} of {problem.num_nodes} nodes an event's effect lasts "
            f"{float(lags[short].min()):.2g} days or more, less than three times the "
            "resolution of the times: these lags are uncertain."
        )
    radius = model.spectral_radius
    if radius >= 1:
        notes.append(
            f"The spectral radius is {radius:.2f}: each event has more than one child, and "
            "only an anchored forecast is possible."
        )
    return notes
