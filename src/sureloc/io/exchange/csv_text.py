"""CSV as people's programs write it: read with checks, written without exponents."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.errors import InputError

_ROWS_AT_ONCE = 65536
_TAIL_BYTES = 65536


def first_lines(path: Path, count: int = 4) -> list[str]:
    """Give the first lines of a text file, without their ends.

    Raises:
        InputError: the file is missing, empty or no text.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = [line.rstrip("\r\n") for _, line in zip(range(count), file, strict=False)]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The table {path} cannot be read as text ({error}).") from error
    if not lines:
        raise InputError(f"The table {path} is empty; a header and rows are needed.")
    return lines


def header_of(line: str) -> list[str]:
    """Give the names in the header line of a CSV, without spaces around them."""
    return [name.strip() for name in next(csv.reader([line]), [])]


def read_columns(
    path: Path, names: Mapping[str, str], skip: int = 0
) -> tuple[dict[str, npt.NDArray[np.float64]], list[str]]:
    """Read columns of numbers.

    Args:
        path: the file.
        names: for names in the file, the name that the column gets; the first of several wins.
        skip: lines before the header.

    Returns:
        The columns by their new names, and the names in the file that were not asked for.

    Raises:
        InputError: the file cannot be read, ends in the middle of a row, or holds text where a
            number is needed.
    """
    header = header_of(first_lines(path, skip + 1)[-1])
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise InputError(f"The table {path} has two columns {', '.join(twice)}; rename one.")
    _check_last_row(path, len(header))
    wanted: dict[str, str] = {}
    for old, new in names.items():
        if old in header and new not in wanted.values():
            wanted[old] = new
    try:
        # One column more than named: a comma at the end of rows is common and means nothing.
        names_and_one = range(len(header) + 1)
        table = pd.read_csv(
            path, skiprows=skip + 1, header=None, names=names_and_one, encoding="utf-8-sig"
        )
        columns = {
            new: table[header.index(old)].to_numpy(np.float64) for old, new in wanted.items()
        }
        if table[len(header)].notna().any():
            raise pd.errors.ParserError("a row has more values than the header has names")
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"The table {path} cannot be read as CSV ({error}).") from error
    except (ValueError, TypeError) as error:
        raise InputError(
            f"The table {path} holds a value that is no number ({error}). Numbers need a decimal "
            "point and no thousands separator."
        ) from error
    return columns, [name for name in header if name and name not in names]


def _check_last_row(path: Path, fields: int) -> None:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read().rstrip(b"\r\n")
    last = tail.rpartition(b"\n")[2].decode("utf-8", "replace")
    found = len(next(csv.reader([last]), []))
    if found < fields:
        raise InputError(
            f"The table {path} is truncated: its last row has {found} of {fields} values. Export "
            "or copy it again."
        )


def write_columns(
    path: Path, header: str, columns: Sequence[npt.NDArray[Any]], decimals: int = 5
) -> None:
    """Write whole numbers as such and others with fixed decimals, `NaN` and `Infinity`.

    Args:
        path: the new file.
        header: its first lines.
        columns: arrays of one length.
        decimals: of numbers that are not whole by type; five of a nanometre lose 5e-6 nm.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.write(header + "\n")
        file.writelines(text_of_rows(columns, decimals))


def text_of_rows(columns: Sequence[npt.NDArray[Any]], decimals: int = 5) -> Iterator[str]:
    """Give rows as `write_columns` writes them, some at a time."""
    row = ",".join("%d" if c.dtype.kind in "iub" else f"%.{decimals}f" for c in columns)
    for first in range(0, len(columns[0]), _ROWS_AT_ONCE):
        block = (column[first : first + _ROWS_AT_ONCE].tolist() for column in columns)
        text = "".join(row % values + "\n" for values in zip(*block, strict=True))
        # ThunderSTORM drops rows with "nan" or "inf" but reads Java's spelling.
        yield text.replace("nan", "NaN").replace("inf", "Infinity")
