"""A point process fitted to past deaths in Connecticut: Table 2, Fig. 1 and Fig. 2 of the STEMMED
paper."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

import topreach as tr

from ..context import Context
from ..event_data import events_digest, overdose_deaths
from .figures import network_plot, share_plot

TITLE = "STEMMED fitted to Connecticut: parameters, network at two dates, triggered share"

MODELS: dict[str, dict[str, Any]] = {
    "paper": {"theta": "share", "recent_rate": False, "anchor": None},
    "ours": {"theta": "jaccard", "half_life": 24.0, "use_marks": False},
}


def run(context: Context) -> None:
    events, place = overdose_deaths(context, "ct")
    if context.quick and not place.startswith("SIMULATED"):
        events = events.until("2014-12-31")
    years = (pd.Timestamp("1970-01-01") + pd.to_timedelta([events.start, events.end], "D")).year
    dates = [f"{years[0] + 1}-01-01", f"{years[1] - 1}-01-01"]
    settings = {"data": events_digest(events), "dates": dates, "models": MODELS}
    found = context.cells(
        {name: lambda name=name: describe(events, MODELS[name], dates) for name in MODELS},
        settings,
    )
    for name, one in found.items():
        table = pd.DataFrame(one["parameters"]).set_index("parameter")
        context.table(
            table,
            f"parameters_{name}",
            title=f"{place}, {name} settings, spectral radius {one['radius']:.2f}. Estimates: mean "
            "and sd over nodes, and what the nodes' own 95 % intervals are, by their median ends",
        )
    rows = []
    for name, one in found.items():
        share = pd.DataFrame(one["share"])
        for year in (share["period"].iloc[0], share["period"].iloc[-1]):
            part = share[share["period"] == year].set_index("place")
            rows.append(
                {"settings": name, "year": year}
                | {p: f"{r.share:.2f} ({r.lower:.2f}–{r.upper:.2f})" for p, r in part.iterrows()}
            )
    context.table(
        pd.DataFrame(rows).set_index("settings"),
        "triggered_share",
        title=f"{place}: share of events that other events triggered, with 90 % bands",
    )
    rows = [
        {
            "settings": name,
            "events": int(one["events"]),
            "KS distance": one["ks"],
            "KS distance, worst node": one["worst"],
            "expected / observed": one["ratio"],
        }
        for name, one in found.items()
    ]
    context.table(
        pd.DataFrame(rows).set_index("settings"),
        "residuals",
        title=f"{place}: time-rescaling residuals",
    )
    if context.can_plot():
        for name, one in found.items():
            networks = {d: np.array(a) for d, a in one["networks"].items()}
            figure = network_plot(
                networks, events.places, events.types, f"{place}, {name} settings"
            )
            context.figure(figure, f"network_{name}")
        shares = {name: pd.DataFrame(one["share"]) for name, one in found.items()}
        context.figure(share_plot(shares, place), "triggered_share")


def describe(events: tr.Events, options: dict[str, Any], dates: list[str]) -> dict[str, Any]:
    """The results of a fit, as plain values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = tr.models.Stemmed(**options).fit(events)
    table = model.summary()
    rows = []
    for parameter, part in table.groupby("parameter", sort=False):
        if part["held"].all():
            continue
        part = part[~part["held"]]
        rows.append(
            {
                "parameter": parameter,
                "mean": float(part["estimate"].mean()),
                "sd over nodes": float(part["estimate"].std()),
                "median": float(part["estimate"].median()),
                "interval of a node, low": float(part["lower"].median()),
                "interval of a node, high": float(part["upper"].median()),
            }
        )
    share = model.triggered_share("place", every="year")
    residuals = model.residuals()
    return {
        "parameters": rows,
        "radius": model.spectral_radius,
        "networks": {date: model.network(date).to_numpy().tolist() for date in dates},
        "share": share.to_dict("list"),
        "events": float(residuals.table["events"].sum()),
        "ks": residuals.ks,
        "worst": float(residuals.table[residuals.table["events"] >= 30]["ks"].max()),
        "ratio": float(residuals.table["expected"].sum() / residuals.table["events"].sum()),
    }
