"""Files that are never left half written, and plain files read back without running code from
them."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` once the block ends
    without error."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder {path.parent} must exist. Make it first.")
    handle, temporary = tempfile.mkstemp(
        prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
    )
    os.close(handle)
    try:
        yield Path(temporary)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def atomic_save(content: dict[str, Any], path: str | os.PathLike) -> None:
    """`torch.save` to a file that is whole or as it was before."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def load_plain(
    path: str | os.PathLike, caller: str, file_format: str, version: int, noun: str
) -> dict[str, Any]:
    """Read a file of tensors and plain values, and check that it is what it should be."""
    name = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{caller}: {noun} {name} must be a file, got none there.")
    data = io.BytesIO(Path(path).read_bytes())
    try:
        content = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler and zip reader do
        raise ValueError(
            f"{caller}: {noun} must be a whole file of format {file_format!r}, got {name}, which "
            "cannot be read "
            f"({type(error).__name__}). It is damaged, cut short, or not such a file."
        ) from error
    if not isinstance(content, dict) or content.get("format") != file_format:
        raise ValueError(
            f"{caller}: {noun} must be a file of format {file_format!r}, got another kind in "
            f"{name}."
        )
    found = content.get("format_version")
    if found != version:
        raise ValueError(
            f"{caller}: {noun} {name} must have format_version {version}, got {found!r}. "
            + (
                "Update topreach to read it."
                if isinstance(found, int) and found > version
                else "Make it again."
            )
        )
    return content
