"""What a user points to: the folder of a run, or a table alone, of sureloc or another program.

Every command and the viewer read tables here. A step takes a source and leaves a table in the
format that the new file's name says; Parquet remembers every step, in its provenance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from sureloc.errors import InputError, PixelSizeError
from sureloc.io.exchange.formats import read_localizations, write_localizations
from sureloc.io.exchange.localizations import (
    Geometry,
    Localizations,
    Reading,
    Written,
    stated_geometry,
)
from sureloc.io.paths import check_source_exists
from sureloc.io.pixel_size import said_of_pixel_size
from sureloc.io.run_folder import DRAWS, LOCALIZATIONS, RUN


@dataclass(frozen=True)
class Source:
    """Localizations, and what is beside them.

    Attributes:
        name: of the folder or file, for titles.
        data: the rows, and what their file says of them.
        draws: the draw table of the same run, if there is one.
        record: what is remembered of the run; of a table alone, its provenance.
    """

    name: str
    data: Localizations
    draws: Path | None
    record: Mapping[str, Any]

    @property
    def table(self) -> pd.DataFrame:
        """The rows."""
        return self.data.table

    @property
    def pixel_nm(self) -> float | None:
        """Camera pixel size, nm, as far as known."""
        return self.data.geometry.pixel_nm


def read_source(
    path: str | Path, pixel_nm: float | None = None, pixel_option: str = "--pixel-nm"
) -> Source:
    """Read the localizations of a run's folder, or a table of any format.

    Args:
        path: the folder or file.
        pixel_nm: camera pixel size, nm, where the table does not say it; needed by formats that
            count in pixels or from a pixel's corner.
        pixel_option: by which people give it, for messages.

    Raises:
        InputError: there is no such folder or file, or it is no table.
        PixelSizeError: the pixel size is needed and not known.
    """
    path = Path(path)
    check_source_exists(path)
    reading = Reading(Geometry(pixel_nm), pixel_option=pixel_option)
    if path.is_dir():
        return _with_doubt_of_pixels(read_run(path, reading))
    try:
        data = read_localizations(path, reading)
    except PixelSizeError:
        beside = _geometry_beside(path)
        if beside.pixel_nm is None:
            raise
        data = read_localizations(path, replace(reading, geometry=beside))
    return _with_doubt_of_pixels(Source(path.name, data, None, data.provenance))


def _with_doubt_of_pixels(source: Source) -> Source:
    said = said_of_pixel_size(source.name, source.record, source.pixel_nm)
    notes = (*source.data.notes, *said)
    return replace(source, data=replace(source.data, notes=notes))


def read_run(folder: Path, reading: Reading) -> Source:
    """Read the table of the folder that `sureloc localize` wrote.

    Args:
        folder: of the run.
        reading: what is to be known beside what table and run say.

    Raises:
        InputError: it is no such folder.
    """
    table, draws = folder / LOCALIZATIONS, folder / DRAWS
    if not table.is_file():
        raise InputError(
            f"The folder {folder} holds no {LOCALIZATIONS}; give the folder that 'sureloc "
            "localize' wrote, or a table."
        )
    data = read_localizations(table, reading)
    record = {**data.provenance, **(_record(folder) if (folder / RUN).exists() else {})}
    geometry = data.geometry.or_else(stated_geometry(record))
    return Source(
        folder.resolve().name,
        replace(data, geometry=geometry),
        draws if draws.is_file() else None,
        record,
    )


def _record(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / RUN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"The record {folder / RUN} of the run cannot be read ({error}). Run 'sureloc "
            "localize' again."
        ) from error


def _geometry_beside(path: Path) -> Geometry:
    """Give the camera frame of the run in the same folder: its CSV does not say it."""
    with suppress(InputError):  # another program's run.json, which is none of ours
        return stated_geometry(_record(path.parent))
    return Geometry()


# --- Steps --------------------------------------------------------------------------------------


def write_step(
    source: Source, table: pd.DataFrame, path: Path, step: Mapping[str, object]
) -> tuple[str, ...]:
    """Write what a step made of a table, whole or not at all.

    Args:
        source: what the step took.
        table: what it made, with the source's columns and those of `sureloc.table`.
        path: the new file, whose name says the format.
        step: what was done, JSON-serializable; it is appended to the provenance.

    Returns:
        What is to be said about reading and writing, a sentence each.

    Raises:
        InputError: the file exists, or its format needs something that is not known.
        OutputError: it cannot be written.
    """
    provenance = with_step(source.data.provenance, step)
    written: Written = write_localizations(
        replace(source.data, table=table, provenance=provenance), path
    )
    return (*source.data.notes, *written.notes)


def with_step(provenance: Mapping[str, Any], step: Mapping[str, object]) -> dict[str, Any]:
    """Give the provenance with one more step."""
    return {**provenance, "steps": [*provenance.get("steps", []), dict(step)]}
