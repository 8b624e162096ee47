"""Find the files of a data set on this machine, else download them with a checksum."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

_TIMEOUT_S = 30.0
_CHUNK = 1 << 16


class RemoteFile(NamedTuple):
    size: int
    sha256: str


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/topreach`, by default `~/.cache/topreach`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "topreach"


def find_folder(
    name: str,
    folder: str,
    files: Mapping[str, RemoteFile],
    home: str,
    root: str | os.PathLike | None,
) -> Path:
    """The folder that holds all `files` of the data set loaded by the function `name`.

    Looks in `root`, else `$TOPREACH_DATA`, else the user's cache, else downloads
    `home`/`folder`/FILE into the cache. `root` and `$TOPREACH_DATA` may be the set's own folder or
    the one above it.
    """
    if root is not None:
        found = _holding(Path(root).expanduser(), folder, files)
        if found is None:
            raise FileNotFoundError(
                f"{name}: root must be a folder with {', '.join(sorted(files))}, or one with these "
                f"in {folder}/, got {os.fspath(root)!r}. Pass another, or none to look elsewhere "
                "and download."
            )
        return found
    if os.environ.get("TOPREACH_DATA"):
        found = _holding(Path(os.environ["TOPREACH_DATA"]).expanduser(), folder, files)
        if found is not None:
            return found
    target = cache_folder() / folder
    for file, remote in files.items():
        if not (target / file).is_file():
            _download(name, f"{home}/{folder}/{file}", target / file, remote, folder)
    return target


def _holding(root: Path, folder: str, files: Mapping[str, RemoteFile]) -> Path | None:
    for candidate in (root / folder, root):
        if all((candidate / file).is_file() for file in files):
            return candidate
    return None


def _download(name: str, url: str, target: Path, remote: RemoteFile, folder: str) -> None:
    """Fetch into a temporary file, check, then rename: the target is whole or absent."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    handle, part = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as out:
            try:
                with (
                    urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer,
                    tqdm(
                        desc=f"{folder}/{target.name}", total=remote.size, unit="B", unit_scale=True
                    ) as bar,
                ):
                    while size <= remote.size and (chunk := answer.read(_CHUNK)):
                        out.write(chunk)
                        digest.update(chunk)
                        size += len(chunk)
                        bar.update(len(chunk))
            except (OSError, http.client.HTTPException) as error:
                raise ConnectionError(
                    f"{name}: the data must be on this machine or downloadable, got "
                    f"{str(error) or repr(error)!r} from {url}. Offline: set TOPREACH_DATA to (or "
                    f"pass as root) the folder that holds {folder}/{target.name}, or use "
                    "topreach.datasets.simulate_county()."
                ) from error
        if size != remote.size or digest.hexdigest() != remote.sha256:
            raise ValueError(
                f"{name}: {url} must have the SHA-256 {remote.sha256}, got {digest.hexdigest()} "
                f"({size} of {remote.size} bytes). Try again; if it stays so, the file has changed "
                "or the network alters it: get it by hand and set TOPREACH_DATA."
            )
        os.replace(part, target)
    finally:
        if os.path.exists(part):
            os.unlink(part)
