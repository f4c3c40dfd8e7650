"""Rows of a frame as named arrays, from which tables are made once there are many.

A data frame takes longer to make, cut or join than it takes to draw the emitters of a sparse frame;
so the stages inside a frame hand one another plain arrays under the names of `sureloc.table`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.table import Column

Columns = Mapping[str, npt.NDArray[Any]]  # arrays of one length


def length(columns: Columns) -> int:
    """Give the number of rows."""
    return len(next(iter(columns.values())))


def taken(columns: Columns, which: npt.NDArray[Any]) -> Columns:
    """Give the rows that a mask or an index array picks."""
    return {name: values[which] for name, values in columns.items()}


def joined(parts: Sequence[Columns]) -> Columns:
    """Put rows behind one another; all parts have the same names."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def table_of(columns: Columns, order: Sequence[Column]) -> pd.DataFrame:
    """Make a table; pandas takes three times as long to put columns in order itself."""
    return pd.DataFrame({column.name: columns[column.name] for column in order})


def columns_of(table: pd.DataFrame) -> Columns:
    """Give the columns of a table; texts as objects."""
    return {
        str(name): values.to_numpy(object if pd.api.types.is_string_dtype(values) else None)
        for name, values in table.items()
    }


def by_frame(columns: Columns) -> Iterator[Columns]:
    """Give the rows of one frame after the other; the order within a frame stays."""
    order = np.argsort(columns["frame"], kind="stable")
    frames = columns["frame"][order]
    edges = np.flatnonzero(np.diff(frames)) + 1
    for rows in np.split(order, edges) if order.size else ():
        yield taken(columns, rows)
