"""Tables as points on napari's canvas: one circle a row, as large as the row is uncertain."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.errors import PixelSizeError
from sureloc.io.exchange.localizations import one_for_both
from sureloc.io.sources import read_source
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
        table: with `sigma_x_nm` and `sigma_y_nm`, or one of them for both.

    Returns:
        None for tables without them.
    """
    found = one_for_both(table, "sigma_x_nm", "sigma_y_nm")
    return None if found is None else found[0]


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


def table_layer(path: str | Path, pixel_nm: float | None = None) -> LayerData:
    """Give a table on disk as a points layer.

    Args:
        path: any table that `sureloc.io.sources.read_source` reads.
        pixel_nm: camera pixel size, nm. Where it is needed and neither given nor said by the file
            or by `run.json` beside it, it is taken to be 100 nm, and the layer's metadata say so.

    Raises:
        InputError: it is no table.
    """
    path = Path(path)
    known = True
    try:
        source = read_source(path, pixel_nm)
    except PixelSizeError:
        known, source = False, read_source(path, UNKNOWN_PIXEL_NM)
    about = {
        "table": str(path.resolve()),
        "pixel_nm": source.pixel_nm,
        "pixel_is_known": known,
    }
    return points_layer(source.table, path.stem, about)
