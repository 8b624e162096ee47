"""Which sites are neighbours: `Graph`, from edges, maps, files of weights or coordinates."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from topreach import _C
from topreach.data.columns import drop_repeated_columns
from topreach.data.csv_files import read_csv, read_header
from topreach.data.messages import either
from topreach.data.site_ids import in_order, site_ids
from topreach.data.times import plain

_EARTH_KM = 6371.0088  # mean radius


class Graph:
    """An undirected graph of N sites, for `topreach.plan`.

    Ids are always text: "09001" is not 9001, and numbers become text. Repeated and reversed edges
    are one edge with the least of their weights. An edge from a site to itself is left out. A site
    without edges stays. Make a graph by a `from_` method.

    Attributes:
        ids: the sites, in the order of their rows.
        num_nodes, num_edges: how many there are.

    Example:
        >>> Graph.from_edges(pd.DataFrame({"from": ["a", "a"], "to": ["c", "d"]}))
        Graph(3 sites, 2 edges)
    """

    def __init__(self, core: _C.Graph) -> None:
        self._core = core
        self.ids: list[str] = core.ids

    @classmethod
    def from_edges(
        cls,
        edges: Any,
        ids: Any = None,
        *,
        columns: tuple[str, str] | None = None,
        weight: str | None = None,
        sep: str | None = None,
        encoding: str | None = None,
        decimal: str = ".",
    ) -> Graph:
        """A row for each edge.

        Args:
            edges: path of a CSV file, DataFrame, or pairs of ids.
            ids: the sites, in order; those that no edge names stay without neighbours. None: the
                sites are those of the edges, as they first occur.
            columns: names of the two columns of ids; None: the first two.
            weight: name of a column of lengths >= 0; None: each edge counts 1.
            sep, encoding, decimal: of the file, as for `Events.from_csv`.

        Raises:
            ValueError: a missing column, a blank id, or an id that is not among `ids`; the message
                names the row (for a file the line).
            TypeError: ids that are neither text nor whole numbers.

        Example:
            >>> Graph.from_edges([("a", "b"), ("b", "a")], ["a", "b", "c"])
            Graph(3 sites, 1 edges)
        """
        name = "Graph.from_edges"
        if isinstance(edges, str | os.PathLike):
            path = os.fspath(edges)
            how: dict[str, Any] = {"sep": sep, "encoding": encoding, "decimal": decimal}
            header = read_header(path, name, wanted=columns or (), sep=sep, encoding=encoding)
            text = [label for label in header if label != weight]
            table = read_csv(path, name, text=text, **how)
            table = drop_repeated_columns(table, name, lambda i: f"row {i + 1}").fillna("")
            where = f"line {{}} of {path}"
            lines = table.index + 2  # the header is line 1
        else:
            if not isinstance(edges, pd.DataFrame):
                edges = pd.DataFrame(list(edges), columns=["from", "to"])
            table, where = edges, "row {}"
            lines = np.arange(len(table)) + 1
        if columns is not None and columns[0] == columns[1]:
            raise ValueError(
                f"{name}: columns must be two different ones, got {columns[0]!r} twice."
            )
        if columns is None:
            if len(table.columns) < 2:
                raise ValueError(
                    f"{name}: edges must have two columns of ids, got {len(table.columns)}."
                )
            columns = (table.columns[0], table.columns[1])
        for column in (*columns, *([weight] if weight else [])):
            if column not in table.columns:
                raise ValueError(
                    f"{name}: edges must have the column {column!r}, got "
                    f"{', '.join(map(str, table.columns))}."
                )
        ends = [site_ids(table[column], name, str(column)) for column in columns]
        weights = _weights(table[weight], name, where, lines) if weight else np.empty(0)
        known = None if ids is None else site_ids(ids, name, "ids")
        for end, column in zip(ends, columns, strict=True):
            blank = [i for i, value in enumerate(end) if not value]
            if blank:
                raise ValueError(
                    f"{name}: {column} must be an id, got a blank in "
                    f"{where.format(lines[blank[0]])}."
                )
        if known is not None:
            have = set(known)
            wrong = [i for i in range(len(table)) if not {ends[0][i], ends[1][i]} <= have]
            if wrong:
                i = wrong[0]
                stranger = ends[0][i] if ends[0][i] not in have else ends[1][i]
                more = f", and {len(wrong) - 1} more rows with unknown ids" if wrong[1:] else ""
                raise ValueError(
                    f"{name}: edges must join ids of the {len(known)} sites, got {stranger!r} in "
                    f"{where.format(lines[i])}{more}.{_C.did_you_mean(stranger, known)}"
                )
        return cls(
            _C.Graph.from_edges(ids=known or [], from_ids=ends[0], to_ids=ends[1], weights=weights)
            if known is None or known
            else _C.Graph(ids=[], from_nodes=[], to_nodes=[])
        )

    @classmethod
    def from_networkx(cls, graph: Any, ids: Any = None, *, weight: str | None = None) -> Graph:
        """A networkx graph; a directed one loses its directions.

        Args:
            graph: `networkx.Graph`; ids are its nodes.
            ids: the sites, in order; None: the graph's nodes.
            weight: edge attribute that is the length; None: each edge counts 1.

        Raises:
            ValueError: an edge to a node that is not among `ids`, or without a length >= 0.

        Example:
            >>> import networkx
            >>> Graph.from_networkx(networkx.path_graph(4)).neighbours("1")
            ['0', '2']
        """
        name = "Graph.from_networkx"
        nodes = list(graph.nodes)
        known = site_ids(nodes if ids is None else ids, name, "ids")
        edges = list(graph.edges(data=weight, default=np.nan)) if weight else list(graph.edges)
        table = pd.DataFrame(
            {
                "from": site_ids([e[0] for e in edges], name, "nodes"),
                "to": site_ids([e[1] for e in edges], name, "nodes"),
            }
        )
        if weight:
            table["weight"] = [e[2] for e in edges]
        return cls.from_edges(table, known, weight="weight" if weight else None)

    @classmethod
    def from_geodataframe(
        cls, frame: Any, id: str | None = None, *, contiguity: str = "queen"
    ) -> Graph:
        """Polygons that touch. Needs geopandas (`pip install geopandas`).

        Args:
            frame: GeoDataFrame of polygons.
            id: column of the ids; None: the frame's index.
            contiguity: "queen" (a common point is enough) or "rook" (a common line).

        Raises:
            TypeError: frame is no GeoDataFrame.
            ValueError: another contiguity, or an id twice.

        Example:
            A row for each municipality, with its polygon:

            towns = geopandas.read_file("municipalities.geojson")
            graph = tr.Graph.from_geodataframe(towns, "GEOID", contiguity="rook")
        """
        name = "Graph.from_geodataframe"
        if contiguity not in ("queen", "rook"):
            raise ValueError(f"{name}: contiguity must be 'queen' or 'rook', got {contiguity!r}.")
        if not hasattr(frame, "geometry"):
            raise TypeError(f"{name}: frame must be a GeoDataFrame, got {type(frame).__name__}.")
        known = site_ids(frame.index if id is None else frame[id], name, "ids")
        shapes = frame.geometry
        first, second = shapes.sindex.query(shapes, predicate="intersects")
        keep = first < second
        first, second = first[keep], second[keep]
        if contiguity == "rook":
            values = shapes.to_numpy()
            long = [
                values[a].intersection(values[b]).length > 0
                for a, b in zip(first, second, strict=True)
            ]
            first, second = first[long], second[long]
        return cls(_C.Graph(ids=known, from_nodes=first, to_nodes=second))

    @classmethod
    def from_gal(cls, path: str | os.PathLike, ids: Any = None) -> Graph:
        """A .gal file of GeoDa: a header line, then for each site a line with its id and number of
        neighbours, and a line with their ids.

        Args:
            path: the file.
            ids: the sites, in order; None: those of the file.

        Raises:
            ValueError: a line that is not as above, with its number; an unknown id.

        Example:
            >>> import pathlib, tempfile
            >>> path = pathlib.Path(tempfile.mkdtemp(), "towns.gal")
            >>> path.write_text("0 3 towns GEOID\\na 1\\nb\\nb 2\\na c\\nc 1\\nb\\n") > 0
            True
            >>> Graph.from_gal(path)
            Graph(3 sites, 2 edges)
        """
        name = "Graph.from_gal"
        lines = Path(path).read_text().splitlines()
        edges: list[tuple[str, str]] = []
        own: list[str] = []
        head = [word for word in (lines[0].split() if lines else []) if word.isdigit()][:2]
        if not head:
            raise ValueError(
                f"{name}: the first line must hold the number of sites, got "
                f"{lines[0] if lines else ''!r} in {os.fspath(path)}."
            )
        at = 1
        while at < len(lines):
            words = lines[at].split()
            at += 1
            if not words:
                continue
            if len(words) != 2 or not words[1].isdigit():
                raise ValueError(
                    f"{name}: a site must be an id and its number of neighbours, got "
                    f"{lines[at - 1]!r} in line {at} of {os.fspath(path)}."
                )
            own.append(words[0])
            found: list[str] = []
            if int(words[1]) > 0:
                found = lines[at].split() if at < len(lines) else []
                at += 1
            elif at < len(lines) and not lines[at].strip():
                at += 1
            if len(found) != int(words[1]):
                raise ValueError(
                    f"{name}: site {words[0]!r} must have {words[1]} neighbours, got "
                    f"{len(found)} in line {at} of {os.fspath(path)}."
                )
            edges += [(words[0], other) for other in found]
        if str(len(own)) not in head:
            raise ValueError(
                f"{name}: {os.fspath(path)} must have the {head[-1]} sites that its first line "
                f"says, got {len(own)}."
            )
        return cls.from_edges(edges, own if ids is None else ids)

    @classmethod
    def from_gwt(cls, path: str | os.PathLike, ids: Any = None, *, weighted: bool = False) -> Graph:
        """A .gwt file of GeoDa: a header line, then lines of two ids and a distance.

        Args:
            path: the file.
            ids: the sites, in order; None: those of the edges. (The file does not list sites
                without neighbours.)
            weighted: whether the distances are the edges' lengths.

        Raises:
            ValueError: a line that is not as above, with its number; an unknown id.

        Example:
            >>> import pathlib, tempfile
            >>> path = pathlib.Path(tempfile.mkdtemp(), "towns.gwt")
            >>> path.write_text("0 2 towns GEOID\\na b 1.5\\nb a 1.5\\n") > 0
            True
            >>> Graph.from_gwt(path, weighted=True).edges().values.tolist()
            [['a', 'b', 1.5]]
        """
        name = "Graph.from_gwt"
        rows = []
        for number, line in enumerate(Path(path).read_text().splitlines()[1:], 2):
            words = line.split()
            if not words:
                continue
            if len(words) != 3:
                raise ValueError(
                    f"{name}: an edge must be two ids and a distance, got {line!r} in line "
                    f"{number} of {os.fspath(path)}."
                )
            rows.append(words)
        table = pd.DataFrame(rows, columns=["from", "to", "weight"])
        return cls.from_edges(table, ids, weight="weight" if weighted else None)

    @classmethod
    def from_coordinates(
        cls,
        ids: Any,
        x: Any,
        y: Any,
        *,
        radius: float | None = None,
        nearest: int | None = None,
        delaunay: bool = False,
        degrees: bool = False,
    ) -> Graph:
        """Points that lie near each other; edges have their distance as weight.

        Args:
            ids: the sites.
            x, y: coordinates [N], in any unit; with `degrees` longitude and latitude.
            radius: neighbours are at most this far apart, in the unit of x and y; with `degrees` in
                km along the sphere.
            nearest: two sites are neighbours if either is among this many nearest of the other.
            delaunay: neighbours share an edge of Delaunay's triangulation; points at one place are
                joined as well. With `degrees`, longitude and latitude are triangulated as if on a
                plane.
            degrees: whether x, y are longitude and latitude.

        Raises:
            ValueError: not exactly one of radius, nearest, delaunay; coordinates that are no
                numbers; fewer points than the triangulation needs.

        Example:
            >>> Graph.from_coordinates(["a", "b", "c"], [0, 1, 5], [0, 0, 0], radius=2.0).edges()
              from to  weight
            0    a  b     1.0
        """
        from scipy.spatial import Delaunay, cKDTree

        name = "Graph.from_coordinates"
        known = site_ids(ids, name, "ids")
        x, y = in_order(x, known, name, "x"), in_order(y, known, name, "y")
        points = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
        if len(points) != len(known) or not np.isfinite(points).all():
            raise ValueError(
                f"{name}: x and y must be numbers, one for each of {len(known)} sites, got "
                f"{len(points)}" + ("" if np.isfinite(points).all() else ", not all numbers") + "."
            )
        if (radius is not None) + (nearest is not None) + delaunay != 1:
            raise ValueError(f"{name}: give one of radius, nearest and delaunay.")
        beyond = degrees & (np.abs(points) > [360.0, 90.0]).any(axis=1)
        if beyond.any():
            at = int(np.argmax(beyond))
            raise ValueError(
                f"{name}: {either('x and y', '--lon and --lat')} must be longitude within 360 and "
                f"latitude within 90 degrees, got {points[at].tolist()} for {known[at]!r}."
            )
        places = _sphere(points) if degrees else points
        if delaunay:
            distinct, inverse = np.unique(points, axis=0, return_inverse=True)
            if len(distinct) < 3:
                raise ValueError(
                    f"{name}: delaunay must have at least 3 places, got {len(distinct)}."
                )
            triangles = Delaunay(distinct).simplices
            pairs = np.concatenate(
                [triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [0, 2]]]
            )
            edges = _of_points(np.unique(np.sort(pairs, axis=1), axis=0), inverse.reshape(-1))
        elif radius is not None:
            if not radius > 0:
                raise ValueError(f"{name}: radius must be above 0, got {radius}.")
            reach = 2 * np.sin(min(radius / (2 * _EARTH_KM), np.pi / 2)) if degrees else radius
            edges = cKDTree(places).query_pairs(reach * (1 + 1e-12), output_type="ndarray")
        else:
            assert nearest is not None
            if not 1 <= nearest < len(known):
                raise ValueError(
                    f"{name}: nearest must be from 1 to {len(known) - 1}, got {nearest}."
                )
            _, found = cKDTree(places).query(places, nearest + 1)
            own = np.arange(len(known))[:, None]
            # If several points share a place, a point may be missing from its own nearest ones.
            is_other = found != own
            extra = is_other.all(axis=1)
            is_other[extra, -1] = False
            edges = np.column_stack([np.repeat(own[:, 0], nearest), found[is_other]])
        lengths = np.linalg.norm(places[edges[:, 0]] - places[edges[:, 1]], axis=1)
        if degrees:
            lengths = 2 * _EARTH_KM * np.arcsin(np.minimum(lengths / 2, 1))
        return cls(
            _C.Graph(ids=known, from_nodes=edges[:, 0], to_nodes=edges[:, 1], weights=lengths)
        )

    @property
    def num_nodes(self) -> int:
        return self._core.num_nodes

    @property
    def num_edges(self) -> int:
        return self._core.num_edges

    @property
    def core(self) -> _C.Graph:
        """The C++ object."""
        return self._core

    def neighbours(self, site: Any) -> list[str]:
        """Ids of a site's neighbours.

        Raises:
            KeyError: an unknown site.

        Example:
            >>> Graph.from_edges([("a", "b"), ("a", "c")]).neighbours("a")
            ['b', 'c']
        """
        row = self.index(site)
        start = self._core.start
        return [self.ids[j] for j in self._core.neighbours[start[row] : start[row + 1]]]

    def index(self, site: Any) -> int:
        """The row of a site. Raises KeyError for an unknown site."""
        row = self._core.index_of(str(site))
        if row < 0:
            raise KeyError(f"Graph: {site!r} is none of the {self.num_nodes} sites.")
        return row

    def components(self) -> pd.Series:
        """The component of each site, numbered from 0, by id.

        Example:
            >>> Graph.from_edges([("a", "b"), ("c", "d")]).components().to_dict()
            {'a': 0, 'b': 0, 'c': 1, 'd': 1}
        """
        return pd.Series(self._core.components(), index=self.ids, name="component")

    def edges(self) -> pd.DataFrame:
        """Each edge once: `from`, `to` and, if edges have lengths, `weight`."""
        rows = np.repeat(np.arange(self.num_nodes), np.diff(self._core.start))
        other = self._core.neighbours
        once = rows < other
        names = np.asarray(self.ids, dtype=object)
        table = pd.DataFrame({"from": names[rows[once]], "to": names[other[once]]})
        if self._core.has_weights:
            table["weight"] = self._core.weights[once]
        return table

    def aligned(self, ids: Sequence[str], caller: str = "Graph.aligned") -> Graph:
        """The same edges with sites in this order; new ids have no neighbours.

        Args:
            ids: the sites. caller: the function to name in an error.

        Raises:
            ValueError: a site with neighbours is not among `ids`.

        Example:
            >>> Graph.from_edges([("a", "b")]).aligned(["b", "c", "a"]).ids
            ['b', 'c', 'a']
        """
        wanted = site_ids(ids, caller, "ids")
        if wanted == self.ids:
            return self
        strangers = set(self.ids) - set(wanted)
        start = self._core.start
        lost = [s for i, s in enumerate(self.ids) if s in strangers and start[i + 1] > start[i]]
        if lost:
            raise ValueError(
                f"{caller}: edges must join ids of the {len(wanted)} sites, got {lost[0]!r}"
                + (f" and {len(lost) - 1} more" if lost[1:] else "")
                + " that have no score. Give all sites a score ("
                + either("ranker.rank() does", "topreach rank --all-sites does")
                + "), or leave out edges to others by "
                + either("graph.without_strangers(ids).", "--drop-strangers.")
            )
        return Graph(self._core.reordered(wanted))

    def without_strangers(self, ids: Iterable[Any]) -> Graph:
        """The sites among `ids` with the edges between them.

        Raises:
            ValueError: none of the edges joins two of them.

        Example:
            >>> Graph.from_edges([("a", "b"), ("b", "c")]).without_strangers(["a", "b"])
            Graph(2 sites, 1 edges)
        """
        keep = set(site_ids(list(ids), "Graph.without_strangers", "ids"))
        every = self.edges()
        table = every[every["from"].isin(keep) & every["to"].isin(keep)]
        if len(every) and not len(table):
            raise ValueError(
                "Graph.without_strangers: ids must be those of the edges, got none that an edge "
                f"joins: {every['from'].iloc[0]!r} and {sorted(keep)[0]!r}, for instance."
                f"{_C.did_you_mean(every['from'].iloc[0], sorted(keep))}"
            )
        weight = "weight" if "weight" in table else None
        return Graph.from_edges(table, [i for i in self.ids if i in keep], weight=weight)

    def __repr__(self) -> str:
        return f"Graph({self.num_nodes} sites, {self.num_edges} edges)"

    def __len__(self) -> int:
        return self.num_nodes


def _weights(column: pd.Series, name: str, where: str, lines: Any) -> np.ndarray:
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{name}: {column.name} must be a number >= 0, got {plain(column.iloc[i])!r} in "
            f"{where.format(lines[i])}."
        )
    return values


def _sphere(degrees: np.ndarray) -> np.ndarray:
    """Longitude, latitude -> points on the unit sphere; longer chords mean longer distances."""
    if (np.abs(degrees[:, 1]) > 90).any():
        raise ValueError(
            "Graph.from_coordinates: y must be a latitude from -90 to 90, got "
            f"{degrees[np.abs(degrees[:, 1]) > 90, 1][0]}. x is the longitude."
        )
    lon, lat = np.radians(degrees).T
    return np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def _of_points(pairs: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Edges between places -> edges between the first points there. Points at one place are joined
    in a chain."""
    order = np.argsort(place, kind="stable")
    same = place[order[1:]] == place[order[:-1]]
    first = np.unique(place, return_index=True)[1]
    chains = np.column_stack([order[:-1][same], order[1:][same]])
    return np.concatenate([first[pairs], chains])
