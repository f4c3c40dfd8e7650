"""sureloc's tables on disk: Parquet with units and provenance, written and read in pieces.

They keep the convention of `sureloc.table` (nanometres, the CENTRE of pixel (0, 0) at (0, 0),
frames from 0) and say so in their metadata. A table that a user points to, of sureloc or of another
program, is read by `sureloc.io.sources`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sureloc.errors import InputError, OutputError
from sureloc.table import Column

CONVENTION: Mapping[str, object] = {
    "length_unit": "nm",
    "origin": "centre of pixel (row 0, column 0)",
    "x": "along columns",
    "y": "along rows, pointing down",
    "first_frame": 0,
    "photons": "detected photons = photo-electrons / quantum efficiency",
}
_METADATA_KEY = b"sureloc"
_ROWS_PER_GROUP = 65536
_ARROW_TYPES = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "str": pa.string(),
}


class TableWriter:
    """Write a table to Parquet chunk by chunk; memory does not grow with its length.

    Use it as a context manager: the file is complete when the block ends.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[Column],
        provenance: Mapping[str, object] | None = None,
    ) -> None:
        """Open a table for writing.

        Args:
            path: the new file.
            columns: its columns (see `sureloc.table`).
            provenance: what made it (versions, seed, options), JSON-serializable.

        Raises:
            OutputError: the file cannot be created.
        """
        self._path = Path(path)
        self._columns = tuple(columns)
        self._schema = _schema(columns, provenance or {})
        self._waiting: list[pa.Table] = []
        self.rows = 0
        try:
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        except OSError as error:
            raise OutputError(f"The table {path} cannot be written ({error}).") from error

    def append(self, table: pd.DataFrame) -> None:
        """Append rows.

        Args:
            table: a frame with exactly this table's columns, in any order.

        Raises:
            OutputError: a column is missing, unknown, or of another type.
        """
        chunk = _arrow_table(table, self._columns, self._schema, self._path)
        self.rows += chunk.num_rows
        self._waiting.append(chunk)
        if sum(part.num_rows for part in self._waiting) >= _ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting = []

    def close(self) -> None:
        """Write what waits and the file's footer."""
        self._flush()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.close()


def write_table(
    table: pd.DataFrame,
    path: str | Path,
    columns: Sequence[Column],
    provenance: Mapping[str, object] | None = None,
) -> None:
    """Write a whole table to Parquet (arguments and errors as in `TableWriter`)."""
    with TableWriter(path, columns, provenance) as writer:
        writer.append(table)


def read_table(path: str | Path, columns: Sequence[Column]) -> pd.DataFrame:
    """Read a Parquet table and check that it has the columns and the convention.

    Args:
        path: the file.
        columns: the columns to read (see `sureloc.table`).

    Raises:
        InputError: the file is missing, no Parquet, lacks a column, or states another convention.
    """
    path = Path(path)
    names = [column.name for column in columns]
    try:
        schema = pq.read_schema(path)
        missing = [name for name in names if name not in schema.names]
        if missing:
            raise InputError(
                f"The table {path} lacks {', '.join(missing)}; it has {', '.join(schema.names)}."
            )
        _check_convention(path, schema)
        frame: pd.DataFrame = pq.read_table(path, columns=names).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"The table {path} cannot be read ({error}).") from error
    return frame


def table_chunks(path: str | Path) -> Iterator[pd.DataFrame]:
    """Give the rows of a table that `TableWriter` wrote, piece by piece and in order."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS_PER_GROUP):
            yield batch.to_pandas()


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Give the provenance that `TableWriter` stored in a Parquet table.

    Raises:
        InputError: the file is missing, no Parquet, or was not written by sureloc.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"The table {path} cannot be read ({error}).") from error
    if _METADATA_KEY not in metadata:
        raise InputError(f"The table {path} holds no provenance of sureloc.")
    return dict(json.loads(metadata[_METADATA_KEY])["provenance"])


def _schema(columns: Sequence[Column], provenance: Mapping[str, object]) -> pa.Schema:
    fields = [
        pa.field(
            column.name,
            _ARROW_TYPES[column.dtype],
            nullable=False,
            metadata={"unit": column.unit, "meaning": column.meaning},
        )
        for column in columns
    ]
    content = {"convention": dict(CONVENTION), "provenance": dict(provenance)}
    return pa.schema(fields, metadata={_METADATA_KEY: json.dumps(content)})


def _arrow_table(
    table: pd.DataFrame, columns: Sequence[Column], schema: pa.Schema, path: Path
) -> pa.Table:
    names = {column.name for column in columns}
    if names != set(table.columns):
        missing = ", ".join(sorted(names - set(table.columns))) or "nothing"
        unknown = ", ".join(sorted(map(str, set(table.columns) - names))) or "nothing"
        raise OutputError(
            f"Rows for {path} lack {missing} and have {unknown} too much; the columns must be "
            f"{', '.join(column.name for column in columns)}."
        )
    try:
        # NaN is a value here (an interval that does not exist), not a missing entry.
        arrays = [
            pa.array(table[c.name].to_numpy(), type=_ARROW_TYPES[c.dtype], from_pandas=False)
            for c in columns
        ]
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise OutputError(f"Rows for {path} have a column of wrong type ({error}).") from error
    return pa.Table.from_arrays(arrays, schema=schema)


def _check_convention(path: Path, schema: pa.Schema) -> None:
    stored = (schema.metadata or {}).get(_METADATA_KEY)
    if stored is None:
        return
    convention = json.loads(stored).get("convention", {})
    different = [
        f"{key} = {convention[key]!r} instead of {CONVENTION[key]!r}"
        for key in ("length_unit", "origin", "first_frame")
        if key in convention and convention[key] != CONVENTION[key]
    ]
    if different:
        raise InputError(
            f"The table {path} has another convention ({'; '.join(different)}); write it again "
            "with this version of sureloc."
        )
