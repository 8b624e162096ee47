"""Checks of the arrays of a `Panel`; each error names the site and the time."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topreach import _C

from . import columns as _columns
from .messages import option


def as_float32(value: Any, argument: str) -> Tensor:
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"Panel: {argument} must be a tensor or array of numbers, got {type(value).__name__}."
        ) from error
    return tensor.detach().to(torch.float32)


def as_moments(value: Any, sites: int, argument: str) -> Tensor:
    """Times of sites, float64 [S]; all NaN for None."""
    if value is None:
        return torch.full((sites,), torch.nan, dtype=torch.float64)
    try:
        moments = torch.as_tensor(value).detach().to(device="cpu", dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"Panel: {argument} must be numbers as in time_values, got {type(value).__name__}."
        ) from error
    if moments.shape != (sites,) or bool(torch.isinf(moments).any()):
        raise ValueError(
            f"Panel: {argument} must be {sites} finite times or NaN, one per site, got shape "
            f"{list(moments.shape)}."
        )
    return moments


def check_shapes(
    x: Tensor, y: Tensor, site_ids: list[str], times: list[Any], feature_names: list[str]
) -> None:
    if x.ndim != 3:
        raise ValueError(f"Panel: x must have shape [T, S, P], got {list(x.shape)}.")
    if y.shape != x.shape[:2]:
        raise ValueError(
            f"Panel: y must have shape [T, S] = {list(x.shape[:2])}, got {list(y.shape)}."
        )
    if 0 in y.shape:
        raise ValueError(
            f"Panel: y must have at least one period and one site, got shape {list(y.shape)}."
        )
    for name, values, size in (
        ("site_ids", site_ids, x.shape[1]),
        ("times", times, x.shape[0]),
        ("feature_names", feature_names, x.shape[2]),
    ):
        if len(values) != size:
            raise ValueError(
                f"Panel: {name} must have {size} entries for x {list(x.shape)}, got {len(values)}."
            )
        if name != "times" and not all(isinstance(v, str) for v in values):
            bad = next(v for v in values if not isinstance(v, str))
            raise TypeError(f"Panel: {name} must be strings, got {bad!r}.")
        repeated = _columns.first_repeated(values)
        if repeated is not None:
            raise ValueError(f"Panel: {name} must be distinct, got {repeated!r} more than once.")


def check_features(
    x: Tensor, site_ids: list[str], times: list[Any], feature_names: list[str]
) -> None:
    if not torch.isfinite(x).all():
        t, s, p = (int(i) for i in torch.nonzero(~torch.isfinite(x))[0])
        raise ValueError(
            f"Panel: x must be finite, got {x[t, s, p].item()} for feature "
            f"{feature_names[p]!r}, site {site_ids[s]!r}, time {times[t]!r}."
        )


def check_history(history_y: Tensor, site_ids: list[str], first: Any) -> None:
    if history_y.ndim != 2 or history_y.shape[1] != len(site_ids):
        raise ValueError(
            f"Panel: history_y must have shape [H, {len(site_ids)}], got {list(history_y.shape)}."
        )
    known = torch.nan_to_num(history_y, nan=0.0)
    labels = [f"{len(history_y) - h} before {first!r}" for h in range(len(history_y))]
    check_counts(known, site_ids, labels, "history_y", optional=False)


def check_exposure(exposure: Tensor, y: Tensor, site_ids: list[str], times: Sequence[Any]) -> None:
    if exposure.shape != y.shape:
        raise ValueError(
            f"Panel: exposure must have shape [T, S] = {list(y.shape)}, got {list(exposure.shape)}."
        )
    bad = ~(torch.isfinite(exposure) & (exposure > 0))
    if bad.any():
        t, s = (int(i) for i in torch.nonzero(bad)[0])
        raise ValueError(
            f"Panel: exposure must be finite and > 0, got {exposure[t, s].item():g} for site "
            f"{site_ids[s]!r} at time {times[t]!r}. Fill it in, or leave the site out."
        )


def check_upper(y_upper: Tensor, y: Tensor, site_ids: list[str], times: Sequence[Any]) -> None:
    if y_upper.shape != y.shape:
        raise ValueError(
            f"Panel: y_upper must have shape [T, S] = {list(y.shape)}, got {list(y_upper.shape)}."
        )
    good = (y_upper >= y) & (y_upper == torch.floor(y_upper)) & (y_upper <= _columns.MAX_COUNT)
    bad = ~(good | (torch.isnan(y) & torch.isnan(y_upper)))
    if bad.any():
        t, s = (int(i) for i in torch.nonzero(bad)[0])
        raise ValueError(
            f"Panel: y_upper must hold whole numbers from y to {_columns.MAX_COUNT}, got "
            f"{y_upper[t, s].item():g} with y = {y[t, s].item():g} for site {site_ids[s]!r} at "
            f"time {times[t]!r}. Give y itself where the count is exact."
        )


def check_counts(
    y: Tensor,
    site_ids: list[str],
    times: Sequence[Any],
    argument: str,
    *,
    optional: bool,
    is_open: np.ndarray | None = None,
) -> None:
    """Check that counts are whole numbers. NaN is allowed where a site is not open and, if
    `optional`, in last periods that have no counts at all."""
    missing = torch.isnan(y)
    allowed = missing & optional
    if is_open is not None:
        closed = torch.from_numpy(~is_open).to(y.device)
        wrong = closed & ~missing
        if wrong.any():
            t, s = (int(i) for i in torch.nonzero(wrong)[0])
            raise ValueError(
                f"Panel: {argument} must be NaN where a site is not open, got {y[t, s].item():g} "
                f"for site {site_ids[s]!r} at time {times[t]!r}."
            )
        allowed |= closed
    if optional:
        _columns.check_missing_counts_last(
            y.cpu().numpy(), site_ids, list(times), "Panel", argument, is_open
        )
    bad = ~((y >= 0) & (y == torch.floor(y)) & (y <= _columns.MAX_COUNT)) & ~allowed
    if bad.any():
        t, s = (int(i) for i in torch.nonzero(bad)[0])
        advice = ""
        if missing[t, s]:
            advice = f" For periods yet to come pass {option('counts', 'optional')}."
        raise ValueError(
            f"Panel: {argument} must hold whole numbers from 0 to {_columns.MAX_COUNT}, got "
            f"{y[t, s].item():g} for site {site_ids[s]!r} at time {times[t]!r}.{advice}"
        )


def order(have: list[str], want: list[str], argument: str, noun: str, *, exact: bool) -> list[int]:
    at = {v: i for i, v in enumerate(have)}
    absent = [v for v in want if v not in at]
    if absent:
        advice = _C.did_you_mean(absent[0], have)
        near = difflib.get_close_matches(absent[0], have[:10_000], n=1)
        if near and not advice:
            advice = f" The nearest {noun} it has is {near[0]!r}."
        raise ValueError(
            f"Panel.align: {argument} must all be in the panel, got {len(absent)} {noun}(s) that "
            f"it lacks: {_columns.listed(absent)}.{advice} Add their rows or columns."
        )
    unknown = sorted(set(have) - set(want)) if exact else []
    if unknown:
        raise ValueError(
            f"Panel.align: {argument} must cover the panel, got {len(unknown)} unknown {noun}(s) "
            f"in the panel: {_columns.listed(unknown)}. Drop their rows, or fit the model with "
            "them."
        )
    repeated = _columns.first_repeated(want)
    if repeated is not None:
        raise ValueError(
            f"Panel.align: {argument} must be distinct, got {repeated!r} more than once."
        )
    return [at[v] for v in want]
