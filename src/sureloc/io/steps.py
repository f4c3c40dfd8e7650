"""Tables that go through one step after localization, and remember every step.

A step takes the folder of a run or one table, and leaves tables of the same kind. Parquet keeps all
columns and, in its metadata, where the table came from with the list of steps; ThunderSTORM's CSV
has room for neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sureloc.errors import InputError
from sureloc.io.output import new_file
from sureloc.io.results import DRAWS, LOCALIZATIONS, RUN
from sureloc.io.tables import (
    read_provenance,
    read_table,
    read_thunderstorm,
    write_table,
    write_thunderstorm,
)
from sureloc.table import LOCALIZATION_COLUMNS, Column

SUFFIXES = (".parquet", ".csv")
_PIXEL_NEEDED = (
    "A CSV for ThunderSTORM counts from the corner of the first pixel; say how large that is by "
    "--pixel-nm, or write .parquet."
)
NEEDED = ("frame", "x_nm", "y_nm")
_MEANING_IN_CSV = {
    "psf_sigma_nm": "Width of the fitted spot.",
    "sigma_xy_nm": "Standard deviation of a position, per axis.",
}


@dataclass(frozen=True)
class StepTable:
    """A table between two steps.

    Attributes:
        table: the rows.
        columns: their columns, with units and meaning.
        provenance: what made them, with `steps`, a list of what was done since.
        path: the file that they came from.
        draws: the draw table of the same run, if there is one.
        pixel_nm: pixel size, nm, as far as known.
        psf_sigma_nm: the PSF's standard deviation, nm, as far as known.
    """

    table: pd.DataFrame
    columns: tuple[Column, ...]
    provenance: dict[str, Any]
    path: Path
    draws: Path | None
    pixel_nm: float | None
    psf_sigma_nm: float | None


def read_step_table(path: str | Path, pixel_nm: float | None = None) -> StepTable:
    """Read the localizations of a run's folder, or a table: Parquet, or ThunderSTORM's CSV.

    Args:
        path: the folder or file.
        pixel_nm: pixel size, nm; needed for a CSV, whose zero is the corner of the first pixel.

    Raises:
        InputError: the file is missing, of an unknown kind, lacks positions, or needs `pixel_nm`.
    """
    path = Path(path)
    if pixel_nm is not None and not 0 < pixel_nm < np.inf:
        raise InputError(f"pixel_nm is {pixel_nm:g}; it must be larger than 0.")
    if path.is_dir():
        file = path / LOCALIZATIONS
        if not file.is_file():
            raise InputError(
                f"The folder {path} holds no {LOCALIZATIONS}; give the folder that 'sureloc "
                "localize' wrote, or a table."
            )
        draws = path / DRAWS
        return _parquet(file, draws if draws.is_file() else None, pixel_nm, _psf_of(path / RUN))
    if not path.is_file():
        raise InputError(f"There is no run or table at {path} (seen from {Path.cwd()}).")
    match path.suffix.lower():
        case ".parquet":
            return _parquet(path, None, pixel_nm, None)
        case ".csv":
            return _csv(path, pixel_nm)
    raise InputError(f"{path} ends in {path.suffix!r}; tables end in {' or '.join(SUFFIXES)}.")


def check_step_output(path: str | Path, source: StepTable) -> None:
    """Raise `InputError` unless a table can go to `path`."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path} does not end in {' or '.join(SUFFIXES)}, which choose the table's format."
        )
    if path.exists():
        raise InputError(f"The output file {path} exists already. Give another name, or remove it.")
    if path.suffix.lower() == ".csv" and source.pixel_nm is None:
        raise InputError(_PIXEL_NEEDED)


def write_step_table(
    source: StepTable,
    table: pd.DataFrame,
    columns: tuple[Column, ...],
    path: str | Path,
    step: Mapping[str, object],
) -> None:
    """Write what a step made of a table, by the file's suffix, whole or not at all.

    Args:
        source: what the step took.
        table: what it made.
        columns: the columns of `table`.
        path: the new file.
        step: what was done, JSON-serializable; it is appended to the provenance.

    Raises:
        InputError: the file exists, or has another suffix.
        OutputError: it cannot be written.
    """
    check_step_output(path, source)
    with new_file(path) as partial:
        if Path(path).suffix.lower() == ".parquet":
            write_table(table, partial, columns, with_step(source.provenance, step))
        else:
            write_step_csv(source, table, partial)


def write_step_csv(source: StepTable, table: pd.DataFrame, path: Path) -> None:
    """Write ThunderSTORM's CSV; what the table does not tell is NaN there."""
    if source.pixel_nm is None:
        raise InputError(_PIXEL_NEEDED)
    psf_sigma_nm = source.psf_sigma_nm
    if psf_sigma_nm is None and "psf_sigma_nm" in table and len(table):
        psf_sigma_nm = float(table["psf_sigma_nm"].median())
    needed = ("photons", "background_photons", "sigma_x_nm", "sigma_y_nm")
    gaps = {name: np.nan for name in needed if name not in table}
    write_thunderstorm(
        table.assign(**gaps),
        path,
        source.pixel_nm,
        float("nan") if psf_sigma_nm is None else psf_sigma_nm,
    )


def with_step(provenance: Mapping[str, Any], step: Mapping[str, object]) -> dict[str, Any]:
    """Give the provenance with one more step."""
    return {**provenance, "steps": [*provenance.get("steps", []), dict(step)]}


def _parquet(
    path: Path, draws: Path | None, pixel_nm: float | None, psf_sigma_px: float | None
) -> StepTable:
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"The table {path} cannot be read ({error}).") from error
    missing = [name for name in NEEDED if name not in schema.names]
    if missing:
        raise InputError(
            f"The table {path} lacks {', '.join(missing)}; it has {', '.join(schema.names)}."
        )
    columns = tuple(_column(field) for field in schema if not field.name.startswith("__"))
    table = read_table(path, columns)
    ours = b"sureloc" in (schema.metadata or {})
    provenance: dict[str, Any] = read_provenance(path) if ours else {"read_from": path.name}
    if pixel_nm is None:
        known = provenance.get("pixel_nm")
        pixel_nm = float(known) if isinstance(known, int | float) else None
    psf_sigma_nm = provenance.get("psf_sigma_nm")
    if psf_sigma_px is not None and pixel_nm is not None:
        psf_sigma_nm = provenance["psf_sigma_nm"] = psf_sigma_px * pixel_nm
    return StepTable(table, columns, provenance, path, draws, pixel_nm, psf_sigma_nm)


def _column(field: pa.Field) -> Column:
    known = {column.name: column for column in LOCALIZATION_COLUMNS}
    if field.name in known:
        return known[field.name]
    if pa.types.is_boolean(field.type):
        dtype = "bool"
    elif pa.types.is_integer(field.type):
        dtype = "int64"
    elif pa.types.is_floating(field.type):
        dtype = "float64"
    else:
        dtype = "str"
    metadata = field.metadata or {}
    unit, meaning = (metadata.get(key, b"").decode() for key in (b"unit", b"meaning"))
    return Column(field.name, dtype, unit, meaning)


def _csv(path: Path, pixel_nm: float | None) -> StepTable:
    if pixel_nm is None:
        raise InputError(
            f"{path} counts positions from the corner of the first pixel; say how large a pixel is "
            "by --pixel-nm."
        )
    table = read_thunderstorm(path, pixel_nm)
    if "sigma_xy_nm" in table:
        table = table.assign(sigma_x_nm=table["sigma_xy_nm"], sigma_y_nm=table["sigma_xy_nm"])
    known = {column.name: column for column in LOCALIZATION_COLUMNS}
    columns = tuple(
        known.get(name) or Column(name, "float64", "nm", _MEANING_IN_CSV.get(name, ""))
        for name in map(str, table.columns)
    )
    provenance = {"read_from": path.name, "pixel_nm": pixel_nm}
    return StepTable(table, columns, provenance, path, None, pixel_nm, None)


def _psf_of(run: Path) -> float | None:
    """Give the PSF width that a run assumed, px; None where that is not known."""
    try:
        sigma = json.loads(run.read_text(encoding="utf-8"))["assumed"]["sigma_px"]
        return float(np.mean(np.asarray(sigma, float)))
    except (OSError, ValueError, KeyError, TypeError):
        return None
