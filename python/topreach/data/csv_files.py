"""Text tables: CSV and its relatives, plain or compressed, from a file or from standard input."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import os
import re
import stat
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from .messages import caller, either, option

MISSING = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "NULL", "null", "None", "<NA>"]
SEPARATORS = (",", ";", "\t", "|")
_OPENERS: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def read_csv(
    path: Any,
    name: str,
    *,
    text: Sequence[str] = (),
    sep: str | None = None,
    encoding: str | None = None,
    decimal: str = ".",
) -> pd.DataFrame:
    """Read a table under its own header. Repeated columns are kept, blank lines are not.

    The index counts lines: row i is in line index[i] + 2 of the file.

    Args:
        path: a file, which may end in .gz, .bz2, .xz or .zip (with one member), or "-" for standard
            input.
        name: the function to name in errors.
        text: columns to read as text, where "NA" is a text like any other.
        sep: separator; None takes the one of , ; tab | that fits the header best.
        encoding: None for UTF-8 (with or without a byte-order mark) or UTF-16 with a mark.
        decimal: the mark before decimals in numbers, "." or ",".

    Raises:
        FileNotFoundError, IsADirectoryError: no such file. ValueError: an empty file, another
            encoding, a line with too many fields.
    """
    who = caller(name)
    source = _source(path, who)
    for argument, value, size in (("sep", sep, 1), ("decimal", decimal, 1)):
        if value is not None and (not isinstance(value, str) or len(value) != size):
            raise ValueError(f"{name}: {argument} must be one character, got {value!r}.")
    header: list[str] = []
    try:
        with source() as file:
            encoding = encoding or _encoding(file.read(2))
        with source() as file:
            sep = sep or _sniff(file, encoding, text)
        with source() as file:
            lines = io.TextIOWrapper(file, encoding=encoding, newline="")
            header = [h.strip() for h in next(csv.reader(lines, delimiter=sep), [])]
            lines.detach()
        if not any(header):
            raise ValueError(
                f"{who}: path must hold a header and at least one row, got an empty file "
                f"{str(path)!r}."
            )
        # Columns go by their position, so that a repeated header is seen here and not renamed.
        labels = [f"{i}" for i in range(len(header))]
        kinds: dict[str, Any] = {labels[i]: object for i, h in enumerate(header) if h in text}
        with warnings.catch_warnings(), source() as file:
            warnings.simplefilter("error", pd.errors.ParserWarning)
            df = pd.read_csv(
                file,
                sep=sep,
                encoding=encoding,
                decimal=decimal,
                names=labels,
                skiprows=1,
                header=None,
                index_col=False,
                dtype=kinds,
                keep_default_na=False,
                na_values={label: [""] if label in kinds else MISSING for label in labels},
                skip_blank_lines=False,
                low_memory=False,
            )
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{who}: path must be UTF-8 text (or encoding must name another), got byte "
            f"0x{error.object[error.start]:02x} in {os.fspath(path)!r}. Save it as UTF-8, or pass "
            f"{option('encoding', 'latin-1')}."
        ) from error
    except UnicodeError as error:
        raise ValueError(
            f"{who}: path must be {encoding} text, got {os.fspath(path)!r}, which is not "
            f"({error}). Pass another {option('encoding')}."
        ) from error
    except LookupError as error:
        raise ValueError(
            f"{who}: encoding must be one that Python knows, got {encoding!r}."
        ) from error
    except (EOFError, OSError, lzma.LZMAError, zipfile.BadZipFile) as error:
        if isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError):
            raise
        raise ValueError(
            f"{who}: path must be a whole compressed file, got {os.fspath(path)!r}: {error}."
        ) from error
    except pd.errors.EmptyDataError:
        df = pd.DataFrame(columns=labels)
    except (csv.Error, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        with source() as file:
            found = _long_line(file, encoding, sep, len(header)) or f"{error} in {path}"
        raise ValueError(
            f"{who}: path must have as many fields in each line as its header's {len(header)}, "
            f"got {found}. Mend the line (a field that holds the separator stands in quotes), or "
            f"pass the separator as {option('sep')}."
        ) from error
    df.columns = header
    if decimal == ",":
        df = _with_points_between_thousands(df)
    unnamed = [i for i, h in enumerate(header) if not h]
    if unnamed:
        warnings.warn(
            f"{who}: dropped {len(unnamed)} column(s) without a header, the first at position "
            f"{unnamed[0] + 1}.",
            stacklevel=3,
        )
        df = df.iloc[:, [i for i, h in enumerate(header) if h]]
    blank = None
    for i in range(df.shape[1]):
        absent = df.iloc[:, i].isna().to_numpy()
        blank = absent if blank is None else blank & absent
        if not blank.any():
            return df
    return df if blank is None else df.loc[~blank]


_THOUSANDS = r"[+-]?\d{1,3}(\.\d{3})+(,\d+)?"


def _with_points_between_thousands(df: pd.DataFrame) -> pd.DataFrame:
    """The table with numbers such as 12.345 and 1.234,5 read as what they are where the decimal
    mark is a comma. A column that has points in other places too stays as it is."""
    columns = {}
    for i in range(df.shape[1]):
        column = df.iloc[:, i]
        if pd.api.types.is_numeric_dtype(column):
            continue
        texts = pd.Series(column.dropna().unique(), dtype=object).map(str).str.strip()
        dotted = texts[texts.str.contains(".", regex=False)]
        if not len(dotted) or not dotted.str.fullmatch(_THOUSANDS).all():
            continue
        plain = {t: t.replace(".", "").replace(",", ".") for t in dotted}
        plain |= {t: t.replace(",", ".") for t in texts if re.fullmatch(r"[+-]?\d+,\d+", t)}
        columns[i] = column.map(lambda v, plain=plain: plain.get(str(v).strip(), v), "ignore")
    for i, column in columns.items():
        numbers = pd.to_numeric(column, errors="coerce")
        whole = bool((numbers.notna() | column.isna()).all())
        df.isetitem(i, numbers if whole else column)
    return df


def refuse_unclear_points(
    df: pd.DataFrame, column: str, argument: str, path: Any, name: str, **text: Any
) -> None:
    """An error where a column that was read with decimal points may hold thousands.

    Args:
        df: the table as `read_csv` gave it for this path, name and options `text`.
        argument: what to call the column.
    """
    if text.get("decimal", ".") == "." and _may_have_points_between_thousands(df, column):
        again = read_csv(path, name, text=[column], **text)
        check_points(again[column], caller(name), argument)


def _may_have_points_between_thousands(df: pd.DataFrame, column: str) -> bool:
    """Whether the numbers of a column are such as 12.345 and 987 give, read with decimal points."""
    values = df[column] if list(df.columns).count(column) == 1 else pd.Series(dtype=float)
    if not pd.api.types.is_float_dtype(values):
        return False
    found = values.dropna().to_numpy()
    part = found != np.floor(found)
    thousandths = np.abs(found * 1000 - np.round(found * 1000)) < 1e-6
    return bool(part.any() and thousandths.all() and found.min() >= 1 and found.max() < 1000)


def check_points(column: pd.Series, who: str, argument: str) -> None:
    """Refuses text numbers of which those with a point have three digits after it throughout, and
    others none: 12.345 beside 987 is likely 12345."""
    texts = column.dropna().map(str).str.strip()
    pointed = texts.str.contains(".", regex=False)
    if pointed.all() or not texts[pointed].str.fullmatch(_THOUSANDS).all():
        return
    (i, one), (j, other) = (next(iter(texts[p].items())) for p in (pointed, ~pointed))
    raise ValueError(
        f"{who}: {argument} must say whether points stand between thousands, got {one!r} at line "
        f"{int(i) + 2} and {other!r} at line {int(j) + 2}. Pass {option('decimal', ',')} if {one} "
        f"is {one.replace('.', '')}; else write all with as many decimals, {other}.000."
    )


def read_header(
    path: Any,
    name: str,
    *,
    wanted: Sequence[str] = (),
    sep: str | None = None,
    encoding: str | None = None,
) -> list[str]:
    """The column names of a text table; `wanted` helps to find the separator."""
    who = caller(name)
    source = _source(path, who)
    with source() as file:
        encoding = encoding or _encoding(file.read(2))
    with source() as file:
        sep = sep or _sniff(file, encoding, wanted)
    with source() as file:
        lines = io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="")
        return [h.strip() for h in next(csv.reader(lines, delimiter=sep), [])]


def _long_line(file: BinaryIO, encoding: str | None, sep: str | None, most: int) -> str:
    """A description of the first row with more than `most` fields."""
    rows = csv.reader(io.TextIOWrapper(file, encoding=encoding, newline=""), delimiter=sep or ",")
    try:
        for row in rows:
            if len(row) > most:
                return f"{len(row)} in line {rows.line_num}"
    except csv.Error:
        pass
    return ""


def _encoding(start: bytes) -> str:
    return "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _sniff(file: BinaryIO, encoding: str, wanted: Sequence[str]) -> str:
    """The separator under which the header has most of the wanted columns, else most columns."""
    lines = io.TextIOWrapper(file, encoding=encoding, newline="")
    first = lines.readline()
    lines.detach()
    best, score = ",", (-1, -1)
    for sep in SEPARATORS:
        try:
            found = [h.strip() for h in next(csv.reader([first], delimiter=sep), [])]
        except csv.Error:
            continue
        this = (len(set(found) & set(wanted)), len(found))
        if this > score:
            best, score = sep, this
    return best


_STANDARD_INPUT: list[tuple[Any, bytes]] = []  # the stream, and its bytes


def _source(path: Any, who: str) -> Callable[[], Any]:
    """A function that opens the table's bytes from their beginning, as often as needed."""
    if isinstance(path, str) and path == "-":
        if not _STANDARD_INPUT or _STANDARD_INPUT[0][0] is not sys.stdin:
            _STANDARD_INPUT[:] = [(sys.stdin, sys.stdin.buffer.read())]
        held = _STANDARD_INPUT[0][1]
        if not held:
            raise ValueError(f"{who}: standard input must hold a table, got nothing.")
        return lambda: io.BytesIO(held)
    shown = os.fspath(path)
    if not os.path.exists(path):
        advice = either("", ' Give "-" for standard input.')
        raise FileNotFoundError(f"{who}: path must be an existing file, got {shown!r}.{advice}")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{who}: path must be a file, got the folder {shown!r}.")
    ending = os.path.splitext(str(shown))[1].lower()
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe can be read once only
        with open(path, "rb") as file:
            data = file.read()
        return lambda: io.BytesIO(data)
    if ending == ".zip":
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{who}: path must be a zip file, got {shown!r}: {error}.") from error
        members = [m for m in archive.namelist() if not m.endswith("/") and "__MACOSX" not in m]
        if len(members) != 1:
            raise ValueError(
                f"{who}: path must be a zip file with one table, got {len(members)} files in "
                f"{shown!r}."
            )
        return lambda: archive.open(members[0])
    return lambda: _OPENERS.get(ending, open)(path, "rb")
