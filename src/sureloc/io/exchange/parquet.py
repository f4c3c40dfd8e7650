"""sureloc's own Parquet tables: `localizations`, `truth`, `draws`, and tables converted to them.

Columns of other names stay, with their units and meanings, so that a table can go through several
steps without losing what its owner added.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sureloc.errors import InputError
from sureloc.io.exchange.localizations import (
    COLUMNS,
    NEEDED,
    Localizations,
    Reading,
    Written,
    contradiction,
    from_zero,
    ignored_note,
    stated_geometry,
    typed,
)
from sureloc.io.tables import TableWriter, read_provenance, read_table
from sureloc.table import Column

FIRST_FRAME = 0
_KINDS = (
    (pa.types.is_boolean, "bool"),
    (pa.types.is_integer, "int64"),
    (pa.types.is_floating, "float64"),
    (pa.types.is_string, "str"),
    (pa.types.is_large_string, "str"),
)


def schema_of(path: Path) -> pa.Schema:
    """Give the schema of a Parquet table of localizations.

    Raises:
        InputError: the file is missing, no Parquet, or lacks positions.
    """
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"The table {path} cannot be read ({error}).") from error
    lacking = [name for name in NEEDED if name not in schema.names]
    if lacking:
        raise InputError(
            f"The table {path} lacks {', '.join(lacking)}; it has {', '.join(schema.names)}. "
            "Rename its columns to those of sureloc."
        )
    return schema


def read(path: Path, reading: Reading) -> Localizations:
    """Read a Parquet table, all columns that hold numbers, texts or yes and no.

    Raises:
        InputError: the file is missing, no Parquet, states another convention, or lacks positions.
    """
    schema = schema_of(path)
    fields = [field for field in schema if not field.name.startswith("__")]  # pandas' own
    known = {field.name: column for field in fields if (column := _column(field)) is not None}
    table = read_table(path, tuple(known.values()))
    columns: dict[str, npt.NDArray[Any]] = {}
    for name, column in known.items():
        values = table[name].fillna("") if column.dtype == "str" else table[name]
        columns[name] = values.to_numpy()
        if name in COLUMNS:
            columns[name] = typed(path, name, columns[name])
        elif column.dtype != "str" and columns[name].dtype.kind not in "biu":
            # Whole numbers, or yes and no, of which some are missing, are such numbers too.
            columns[name] = columns[name].astype(np.float64)
            known[name] = replace(column, dtype="float64")
    columns["frame"] = from_zero(path, columns["frame"], reading.base(FIRST_FRAME))
    provenance = read_provenance(path) if b"sureloc" in (schema.metadata or {}) else {}
    stated, ignored = stated_geometry(provenance), (f.name for f in fields if f.name not in known)
    return Localizations(
        pd.DataFrame(columns),
        reading.geometry.or_else(stated),
        (*ignored_note(ignored), *contradiction(reading.geometry, stated)),
        provenance,
        {name: column for name, column in known.items() if name not in COLUMNS},
    )


def _column(field: pa.Field) -> Column | None:
    """Give what is known of a column, None where its values are of no plain kind."""
    if field.name in COLUMNS:
        return COLUMNS[field.name]
    dtype = next((name for is_of_kind, name in _KINDS if is_of_kind(field.type)), None)
    if dtype is None:
        return None
    metadata = field.metadata or {}
    unit, meaning = (metadata.get(key, b"").decode() for key in (b"unit", b"meaning"))
    return Column(field.name, dtype, unit, meaning)


def write(data: Localizations, path: Path) -> Written:
    """Write a Parquet table with all columns.

    Raises:
        OutputError: the file cannot be written.
    """
    columns = [COLUMNS.get(name) or data.extra[name] for name in map(str, data.table)]
    geometry = json.loads(json.dumps(asdict(data.geometry)))
    with TableWriter(path, columns, {**data.provenance, "geometry": geometry}) as writer:
        writer.append(data.table)
    return Written(len(data.table))
