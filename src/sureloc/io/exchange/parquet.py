"""sureloc's own Parquet tables: `localizations`, `truth`, `draws`, and tables converted to them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sureloc.errors import InputError
from sureloc.io.exchange.localizations import (
    COLUMNS,
    NEEDED,
    Geometry,
    Localizations,
    Reading,
    Written,
    localizations,
)
from sureloc.io.tables import TableWriter, read_provenance, read_table

PROGRAM = "sureloc's Parquet"
FIRST_FRAME = 0


def read(path: Path, reading: Reading) -> Localizations:
    """Read a Parquet table with sureloc's columns; what it does not know is left out.

    Raises:
        InputError: the file is missing, no Parquet, states another convention, or lacks positions.
    """
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"The table {path} cannot be read ({error}).") from error
    lacking = [name for name in NEEDED if name not in schema.names]
    if lacking:
        raise InputError(
            f"The table {path} lacks {', '.join(lacking)}; it has {', '.join(schema.names)}. Only "
            "tables with sureloc's columns can be converted."
        )
    known = [COLUMNS[name] for name in schema.names if name in COLUMNS]
    table = read_table(path, known)
    provenance = read_provenance(path) if b"sureloc" in (schema.metadata or {}) else {}
    found = localizations(
        path,
        {column.name: table[column.name].to_numpy() for column in known},
        reading.geometry.or_else(_geometry(provenance)),
        reading.base(FIRST_FRAME),
        [name for name in schema.names if name not in COLUMNS],
    )
    return Localizations(found.table, found.geometry, found.notes, provenance)


def _geometry(provenance: dict[str, Any]) -> Geometry:
    stated = provenance.get("geometry")
    known = stated if isinstance(stated, dict) else {}
    found = Geometry(**{name: known.get(name) for name in Geometry.__dataclass_fields__})
    # Tables of earlier versions tell the pixel size only.
    return found.or_else(Geometry(pixel_nm=provenance.get("pixel_nm")))


def write(data: Localizations, path: Path) -> Written:
    """Write a Parquet table with the columns that are known.

    Raises:
        OutputError: the file cannot be written.
    """
    columns = [COLUMNS[str(name)] for name in data.table]
    geometry = json.loads(json.dumps(asdict(data.geometry)))
    with TableWriter(path, columns, {**data.provenance, "geometry": geometry}) as writer:
        writer.append(data.table)
    return Written(len(data.table))
