"""Files that are written whole or not at all, and plain files that are read without running code
from them."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike, *, standard_output: bool = False) -> Iterator[Path]:
    """A temporary path to write to; `path` gets the content when the block ends without error.

    A regular file, or a new one, is replaced at once by a file beside it: readers see the old or
    the new one, and if the disk is full the old one stays. A symbolic link stays: its target is
    replaced. A device, a pipe or any other path that is not a regular file is never replaced:
    the content is written to it.

    Args:
        path: the file to write. "-" is standard output if `standard_output`.

    Raises:
        FileNotFoundError: there is no such folder. IsADirectoryError: `path` is a folder.
        OSError: the content cannot be written, e.g. because the disk is full.

    Example:
        >>> with atomic_path("plan.csv") as temporary:
        ...     frame.to_csv(temporary)
    """
    with _named(os.fspath(path)), _whole(path, standard_output) as temporary:
        yield temporary


@contextlib.contextmanager
def _named(shown: str) -> Iterator[None]:
    """Errors of a disk that takes no more name the file that was to be written."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        raise OSError(error.errno, os.strerror(error.errno), shown) from error


@contextlib.contextmanager
def _whole(path: str | os.PathLike, standard_output: bool) -> Iterator[Path]:
    shown = os.fspath(path)
    if standard_output and shown == "-":
        with _copied(shown, Path("output")) as temporary:
            yield temporary
        return
    target = Path(os.path.realpath(path))
    # Asked of what was given: a link may lead to a pipe that has no path, as /dev/stdout does.
    mode = os.stat(path).st_mode if os.path.exists(path) else stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{shown}: must be a file, got a folder.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{shown}: its folder {target.parent} must exist. Make it first.")
    if not stat.S_ISREG(mode):
        with _copied(shown, Path(shown)) as temporary:
            yield temporary
        return
    temporary = _beside(target)
    try:
        yield temporary
        if target.exists():
            os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
        _flush(temporary)
        os.replace(temporary, target)
        _flush(target.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _beside(target: Path) -> Path:
    """A new empty file in the target's folder, with the mode that the process gives new files."""
    while True:
        name = target.with_name(f".{target.stem[:100]}-{secrets.token_hex(6)}{target.suffix}")
        try:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            continue
        return name


def _flush(path: Path) -> None:
    """Flush the file or folder to the disk, so that a write error is raised here."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # not every file system can do so for a folder
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def _copied(shown: str, target: Path) -> Iterator[Path]:
    """A temporary path whose content is written to a device, a pipe or standard output ("-")."""
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / f"content{target.suffix}"
        temporary.touch()
        yield temporary
        with open(temporary, "rb") as content:
            if shown == "-":
                sys.stdout.flush()
                if not hasattr(sys.stdout, "buffer"):  # as in a notebook
                    sys.stdout.write(content.read().decode())
                    return
                shutil.copyfileobj(content, sys.stdout.buffer)
                sys.stdout.buffer.flush()
                return
            with open(shown, "wb", buffering=0) as out:
                while part := content.read(1 << 20):
                    rest = memoryview(part)
                    while rest:
                        rest = rest[out.write(rest) :]


def atomic_save(content: dict[str, Any], path: str | os.PathLike) -> None:
    """`torch.save` to a file, whole or not at all; see `atomic_path`."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def load_plain(
    path: str | os.PathLike, caller: str, file_format: str, version: int, noun: str
) -> dict[str, Any]:
    """Read a file of tensors and plain values, and check its format and version."""
    name = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{caller}: {noun} {name} must be a file, got none there.")
    data = io.BytesIO(Path(path).read_bytes())
    try:
        content = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler and zip reader do
        raise ValueError(
            f"{caller}: {noun} must be a whole file of format {file_format!r}, got {name}, which "
            f"cannot be read ({type(error).__name__}). It is damaged, cut short, or not such a "
            "file."
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
