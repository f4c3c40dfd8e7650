"""Tables as points on napari's canvas: one circle a row, as large as the row is uncertain."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sureloc.errors import InputError
from sureloc.io.results import RUN
from sureloc.io.tables import read_table, read_thunderstorm
from sureloc.table import Column
from sureloc.viewer.movie_layers import ABOUT, AXES, UNITS, UNKNOWN_PIXEL_NM, LayerData

Array = npt.NDArray[np.float64]

TRUSTED_COLOUR = (0.34, 0.71, 0.91, 1.0)  # sky blue
DOUBTED_COLOUR = (0.90, 0.37, 0.0, 1.0)  # vermilion; both differ for the colour-blind too
PLAIN_RADIUS_NM = 10.0  # of rows that state no precision
LEAST_RADIUS_NM = 0.1
_RING = 0.15  # width of a circle's line over its diameter
_LEAST_PX = 3  # circles never look smaller on the screen


def precision_nm(table: pd.DataFrame) -> Array | None:
    """Give the per-axis posterior sd of every row, nm: the root mean square of both axes.

    Args:
        table: with `sigma_x_nm` and `sigma_y_nm`, or with ThunderSTORM's `sigma_xy_nm`.

    Returns:
        None for tables without them.
    """
    if {"sigma_x_nm", "sigma_y_nm"} <= set(table.columns):
        both = np.hypot(table["sigma_x_nm"].to_numpy(float), table["sigma_y_nm"].to_numpy(float))
        return np.asarray(both / np.sqrt(2.0))
    if "sigma_xy_nm" in table.columns:
        return table["sigma_xy_nm"].to_numpy(float)
    return None


def diameters_nm(table: pd.DataFrame, sigmas: float = 1.0) -> Array:
    """Give the diameters of circles whose radius is a number of standard deviations, nm."""
    radius = precision_nm(table)
    if radius is None:
        return np.full(len(table), 2 * PLAIN_RADIUS_NM)
    known = np.where(np.isfinite(radius), radius, PLAIN_RADIUS_NM)
    return np.asarray(2 * sigmas * np.maximum(known, LEAST_RADIUS_NM))


def trust_colours(table: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Give the colour of every row, (rows, 4): blue where it is trusted, or nothing is said."""
    trusted = np.ones(len(table), dtype=bool)
    if "trusted" in table.columns:
        trusted = table["trusted"].to_numpy(bool)
    colours = np.where(trusted[:, None], TRUSTED_COLOUR, DOUBTED_COLOUR)
    return colours.astype(np.float32)


def points_layer(table: pd.DataFrame, name: str, about: dict[str, Any]) -> LayerData:
    """Give a table as a points layer, one circle a row, shown in the row's frame.

    Args:
        table: with `frame`, `x_nm` and `y_nm`; every column becomes a feature.
        name: of the layer.
        about: what the layer's metadata shall say beside.

    Returns:
        Points (frame, y_nm, x_nm) in nanometres; `size` is the diameter in the same unit.
    """
    places = table[["frame", "y_nm", "x_nm"]].to_numpy(float)
    whole = np.isfinite(places).all(axis=1)
    if not whole.all():
        warnings.warn(
            f"{int((~whole).sum())} of {len(table)} rows of {name} have no position; they are "
            "left out.",
            stacklevel=2,
        )
        table, places = table[whole], places[whole]
    return (
        places,
        {
            "name": name,
            "size": diameters_nm(table),
            "features": table.reset_index(drop=True),
            "face_color": "transparent",
            "border_color": trust_colours(table),
            "border_width": _RING,
            "canvas_size_limits": (_LEAST_PX, 10000),
            "symbol": "disc",
            "axis_labels": AXES,
            "units": UNITS,
            "metadata": {ABOUT: {"points": True, **about}},
        },
        "points",
    )


def table_layer(path: str | Path) -> LayerData:
    """Give a table on disk as a points layer.

    Args:
        path: a Parquet table of sureloc (localizations, draws or truth), or ThunderSTORM's CSV.
            A CSV counts from the corner of the first pixel; half a pixel, of the size that
            `run.json` beside it states, else of 100 nm, is taken off and remembered.

    Raises:
        InputError: it is no such table.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        pixel_nm = _pixel_of_run(path.parent)
        table = read_thunderstorm(path, pixel_nm or UNKNOWN_PIXEL_NM)
        about = {
            "corner_pixel_nm": pixel_nm or UNKNOWN_PIXEL_NM,
            "pixel_is_known": pixel_nm is not None,
        }
        return points_layer(table, path.stem, about)
    return points_layer(_parquet(path), path.stem, {})


def is_table(path: str | Path) -> bool:
    """Tell whether a file's first bytes promise a table that `table_layer` reads."""
    path = Path(path)
    try:
        if path.suffix.lower() == ".parquet":
            return {"frame", "x_nm", "y_nm"} <= set(pq.read_schema(path).names)
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {"frame", "x [nm]", "y [nm]"} <= set(next(csv.reader(file), []))
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException):
        return False


def _parquet(path: Path) -> pd.DataFrame:
    try:
        names = pq.read_schema(path).names
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"The table {path} cannot be read ({error}).") from error
    needed = ("frame", "x_nm", "y_nm")
    wanted = (*needed, *(name for name in names if name not in needed))
    return read_table(path, [Column(name, "", "", "") for name in wanted])


def _pixel_of_run(folder: Path) -> float | None:
    """Give the pixel size, nm, that the record of the run in this folder states."""
    try:
        record = json.loads((folder / RUN).read_text(encoding="utf-8"))
        return float(record["pixel_nm"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
