"""Places of events: their ids, coordinates and covariates."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from topreach import _C

from . import columns as _columns
from .sites import site_codes, warn_of_similar_ids
from .times import plain

_EARTH_KM = 6371.0088  # mean radius


_LIKE_COORDINATES = {"lat", "latitude", "lon", "long", "lng", "longitude", "x", "y"}


@dataclass(frozen=True)
class Places:
    """I places in a fixed order.

    ids: I distinct strings. coordinates: float64 [I, 2], or None: degrees (latitude, longitude) if
    `spherical`, else x and y on a plane. names, values: static covariates, float64 [I, p]. fixed:
    whether these are all the places that there can be.
    """

    ids: list[str]
    coordinates: Tensor | None = None
    spherical: bool = False
    names: tuple[str, ...] = ()
    values: Tensor | None = None
    fixed: bool = False

    @classmethod
    def read(cls, given: Any, place: str, name: str) -> Places:
        """Places from a list of ids, or from a frame with a column of ids (named as the events'
        column, "id" or "place"), optional lat and lon or x and y, and numeric covariates."""
        if isinstance(given, Places):
            return given
        if not isinstance(given, pd.DataFrame):
            if isinstance(given, str) or not isinstance(given, Sequence):
                raise TypeError(
                    f"{name}: places must be a list of ids or a DataFrame, got "
                    f"{type(given).__name__}."
                )
            ids = [str(plain(p)).strip() for p in given]
            repeated = _columns.first_repeated(ids)
            if repeated is not None or not ids or "" in ids:
                raise ValueError(
                    f"{name}: places must be distinct ids, at least one and none empty, got "
                    f"{_columns.listed(ids)}."
                )
            warn_of_similar_ids(ids, name, "place")
            return cls(ids, fixed=True)
        column = next((c for c in (place, "id", "place") if c in given.columns), None)
        if column is None:
            raise ValueError(
                f"{name}: places must have a column {place!r}, 'id' or 'place', got "
                f"{list(given.columns)}."
            )

        def where(i: int) -> str:
            return f"row {plain(given.index[i])!r} of places"

        ids, code = site_codes(given[column], name, column, where, "places")
        if len(ids) < len(given):
            row = int(np.argmax(given[column].duplicated().to_numpy()))
            raise ValueError(
                f"{name}: places must have a row for each id, got {ids[code[row]]!r} again at "
                f"{where(row)}."
            )
        warn_of_similar_ids(ids, name, "place")
        ids = [ids[c] for c in code]
        pairs = [(a, b) for a, b in (("lat", "lon"), ("x", "y")) if {a, b} <= set(given.columns)]
        alike = [c for c in given.columns if str(c).strip().lower() in _LIKE_COORDINATES]
        if alike and not pairs:
            raise ValueError(
                f"{name}: places must have both lat and lon, or both x and y, got the column "
                f"{alike[0]!r} without the other. Name the columns so, or leave them out."
            )
        coordinates = None
        if pairs:
            coordinates = torch.from_numpy(
                np.column_stack([_finite(given[c], name, where) for c in pairs[0]])
            )
        used = {column, *(pairs[0] if pairs else ())}
        names = tuple(
            str(c)
            for c in given.columns
            if c not in used and pd.api.types.is_numeric_dtype(given[c])
        )
        values = [_finite(given[c], name, where) for c in names]
        spherical = bool(pairs) and pairs[0][0] == "lat"
        if spherical and coordinates is not None:
            bad = (coordinates.abs() > torch.tensor([90.0, 360.0])).any(dim=1)
            if bad.any():
                row = int(torch.nonzero(bad)[0, 0])
                raise ValueError(
                    f"{name}: places must have lat within 90 and lon within 360 degrees, got "
                    f"{coordinates[row].tolist()} at {where(row)}."
                )
        table = torch.from_numpy(np.column_stack(values)) if values else None
        return cls(ids, coordinates, spherical, names, table, fixed=True)

    def unknown(self, place: str) -> str:
        advice = _C.did_you_mean(place, self.ids)
        near = difflib.get_close_matches(place, self.ids[:10_000], n=1)
        if not advice:
            advice = (
                f" Did you mean {near[0]!r}?" if near else " Add it to places, or drop the row."
            )
        return f"{place!r}.{advice}"

    def distances(self, name: str = "Places.distances") -> Tensor:
        """Distances between all pairs, float64 [I, I]: kilometres on the sphere (haversine), or in
        the units of x and y.

        Raises:
            ValueError: the places have no coordinates.
        """
        if self.coordinates is None:
            raise ValueError(
                f"{name}: places must have coordinates, got none. Give places=, a DataFrame with "
                "the ids, lat and lon (or x and y)."
            )
        a = self.coordinates
        if not self.spherical:
            return torch.linalg.vector_norm(a[:, None] - a[None], dim=2)
        lat, lon = torch.deg2rad(a).unbind(1)
        half = torch.sin((lat[:, None] - lat[None]) / 2).square()
        half = (
            half
            + torch.cos(lat[:, None])
            * torch.cos(lat[None])
            * torch.sin((lon[:, None] - lon[None]) / 2).square()
        )
        return 2 * _EARTH_KM * torch.asin(half.clamp(0, 1).sqrt())


def _finite(column: pd.Series, name: str, where: Any) -> np.ndarray:
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise ValueError(
            f"{name}: places {column.name!r} must hold finite numbers, got "
            f"{plain(column.iloc[row])!r} at {where(row)}."
        )
    return values
