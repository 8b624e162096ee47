"""The neighbours of sites: the nearest ones by coordinates, or the edges of a graph."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

_LATITUDE = ("lat", "latitude", "intptlat", "centroid_lat", "y_lat")
_LONGITUDE = ("lon", "long", "lng", "longitude", "intptlon", "centroid_lon", "x_lon")
_TIES_LOOKED_AT = 16  # sites beyond the k-th that may share its weight in a tie
_SITES_PER_BLOCK = 1 << 16  # of a query, which bounds memory


class Neighbours(NamedTuple):
    """The neighbours of site s are `sites[start[s]:start[s + 1]]`, with `weights`.

    start [S + 1] and sites [E] int64, weights [E] float64.
    """

    start: Tensor
    sites: Tensor
    weights: Tensor

    def sum(self, values: Tensor) -> Tensor:
        """Weighted sums [S, H] over each site's neighbours, of values [S, H]; float64."""
        return nn.functional.embedding_bag(
            self.sites,
            values.double(),
            self.start,
            mode="sum",
            per_sample_weights=self.weights,
            include_last_offset=True,
        )


def coordinate_features(feature_names: Sequence[str]) -> tuple[str, str] | None:
    """The features that hold latitude and longitude, by their usual names, or None.

    Example:
        >>> coordinate_features(["poverty", "INTPTLAT", "INTPTLON"])
        ('INTPTLAT', 'INTPTLON')
    """
    by_name = {name.strip().lower(): name for name in feature_names}
    latitude, longitude = (
        next((by_name[name] for name in names if name in by_name), None)
        for names in (_LATITUDE, _LONGITUDE)
    )
    return None if latitude is None or longitude is None else (latitude, longitude)


def nearest_neighbours(coordinates: Any, k: int) -> Neighbours:
    """Each site's k nearest other sites; its weights sum to k.

    Sites at an equal distance (on a grid, for instance) share the weight that nearer sites leave,
    so the weights do not depend on the order of the sites. At most k + 16 sites are considered, so
    a larger tie is cut off there.

    Args:
        coordinates: [S, 2] or [S, D]. Two columns within ±90 and ±360 are taken as latitude and
            longitude in degrees; the longitude is then scaled by the cosine of the mean latitude.
        k: neighbours, from 1; at most S − 1 are used.

    Raises:
        ValueError: coordinates of another shape, or not finite; k < 1.

    Cost: O(S (k + log S)) time by a k-d tree (`scipy.spatial.cKDTree`), O(S k) memory.

    Example:
        >>> nearest_neighbours([[0.0, 0.0], [0.0, 1.0], [0.0, 3.0]], 1).sites
        tensor([1, 0, 1])
    """
    place = torch.as_tensor(np.asarray(coordinates), dtype=torch.float64)
    if place.ndim != 2 or 0 in place.shape or not torch.isfinite(place).all():
        raise ValueError(
            "nearest_neighbours: coordinates must be finite numbers of shape [S, D], got shape "
            f"{list(place.shape)}."
        )
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"nearest_neighbours: k must be a whole number >= 1, got {k!r}.")
    return nearest(place, [int(k)])[0]


def nearest(place: Tensor, sizes: Sequence[int]) -> list[Neighbours]:
    """`nearest_neighbours` for several k, from one tree."""
    from scipy.spatial import cKDTree  # here: importing it takes a fifth of a second

    sites = len(place)
    if sites == 1:
        none = torch.zeros(0, dtype=torch.float64)
        return [Neighbours(torch.zeros(2, dtype=torch.int64), none.long(), none)] * len(sizes)
    sizes = [min(k, sites - 1) for k in sizes]
    points = _projected(place).numpy()
    looked_at = min(max(sizes) + _TIES_LOOKED_AT, sites - 1)
    tree = cKDTree(points)
    found: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in sizes]
    for begin in range(0, sites, _SITES_PER_BLOCK):
        own = np.arange(begin, min(begin + _SITES_PER_BLOCK, sites))
        distance, near = tree.query(points[own], looked_at + 1, workers=os.cpu_count() or 1)
        distance, near = _without_own(distance, near, own)
        for parts, k in zip(found, sizes, strict=True):
            parts.append(_shared_places(torch.from_numpy(distance), torch.from_numpy(near), k))
    graphs = []
    for parts in found:
        degree, near, weights = (torch.cat(part) for part in zip(*parts, strict=True))
        graphs.append(Neighbours(nn.functional.pad(degree.cumsum(0), (1, 0)), near, weights))
    return graphs


def graph_of_edges(edges: Iterable[tuple[str, str]], site_ids: Sequence[str]) -> Neighbours:
    """Both ends of each edge are neighbours, with weight 1.

    Raises:
        ValueError: an edge names a site that is not in site_ids.
    """
    row = {site: i for i, site in enumerate(site_ids)}
    pairs = set()
    for a, b in edges:
        for site in (a, b):
            if site not in row:
                raise ValueError(
                    f"SiteHistory: edges must be pairs of the panel's sites, got {site!r}, which "
                    "it lacks."
                )
        if a != b:
            pairs |= {(row[a], row[b]), (row[b], row[a])}
    index = torch.tensor(sorted(pairs), dtype=torch.int64).reshape(-1, 2)
    size = torch.bincount(index[:, 0], minlength=len(site_ids))
    start = nn.functional.pad(size.cumsum(0), (1, 0))
    return Neighbours(start, index[:, 1].clone(), torch.ones(len(index), dtype=torch.float64))


def _projected(place: Tensor) -> Tensor:
    """Degrees to a plane of equal scales, centred."""
    bounds = torch.tensor([90.0, 360.0], dtype=torch.float64)
    if place.shape[1] == 2 and (place.abs() <= bounds).all():
        narrowing = torch.deg2rad(place[:, 0].mean()).cos()
        place = place * torch.stack([torch.ones_like(narrowing), narrowing])
    return place - place.mean(0)


def _without_own(
    distance: np.ndarray, near: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Remove each site from the list of its nearest, or the last entry if it is not listed."""
    drop = near == own[:, None]
    drop[~drop.any(1), -1] = True
    shape = (len(own), near.shape[1] - 1)
    return distance[~drop].reshape(shape), near[~drop].astype(np.int64).reshape(shape)


def _shared_places(distance: Tensor, near: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """(number of neighbours [S], neighbours [E], weights [E]) for k places."""
    last = distance[:, k - 1 : k]
    slack = 1e-6 * last
    inside, level = distance < last - slack, (distance - last).abs() <= slack
    places = k - inside.double().sum(1, keepdim=True)
    weight = inside + level * places / level.double().sum(1, keepdim=True)
    used = weight > 0
    return used.sum(1), near[used], weight[used]
