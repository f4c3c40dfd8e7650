"""A source made ready to be drawn and measured: finite rows, draws, and the field of view."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sureloc.errors import InputError
from sureloc.io.exchange.localizations import Edges
from sureloc.io.regions import parse_rectangle
from sureloc.io.run_folder import DRAWS
from sureloc.io.sources import read_source
from sureloc.io.tables import read_table
from sureloc.table import DRAW_COLUMNS

MARGIN_SIGMAS = 4.0  # 6e-5 of a Gaussian lies beyond
MOST_MARGIN_NM = 500.0  # a row that is known worse must not make the picture large


@dataclass(frozen=True)
class Found:
    """Localizations and what is known about them.

    Attributes:
        name: of the folder or file, for titles.
        table: `frame`, `x_nm`, `y_nm` and whatever else the table holds; positions are finite.
        draws: posterior draws (`sureloc.table.DRAW_COLUMNS`), or None.
        number: how many draws there are, 0 without.
        pixel_nm: camera pixel size, nm, or None where nothing says it.
        psf_sigma_nm: standard deviation of the PSF, nm, or None where nothing says it.
        field_nm: x and y of the outer edges of what was localized, nm; of what holds all rows,
            where nothing says it.
        field_is_stated: whether table or run says it.
        record: the run's record; empty for a table alone.
    """

    name: str
    table: pd.DataFrame
    draws: pd.DataFrame | None
    number: int
    pixel_nm: float | None
    psf_sigma_nm: float | None
    field_nm: Edges
    field_is_stated: bool
    record: Mapping[str, Any]

    @property
    def frames(self) -> int:
        """Frames from the first to the last that is known to have been looked at."""
        shape = movie_shape(self.record)
        if shape:
            return shape[0]
        frame = self.table["frame"]
        return int(frame.max() - frame.min()) + 1 if len(frame) else 0

    def needs_draws(self) -> pd.DataFrame:
        """Give the draws.

        Raises:
            InputError: there are none.
        """
        if self.draws is None or self.number < 2:
            raise InputError(
                f"{self.name} has no table of posterior draws; give the folder that `sureloc "
                f"localize` wrote, with {DRAWS} in it."
            )
        return self.draws


def movie_shape(record: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Give frames, rows and columns that a run localized, None where its record does not say it."""
    movie = record.get("movie")
    shape = movie.get("shape") if isinstance(movie, Mapping) else None
    return (int(shape[0]), int(shape[1]), int(shape[2])) if shape else None


def read_found(
    path: str | Path,
    pixel_nm: float | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> Found:
    """Read a run's folder, or a table of any format (`sureloc.io.sources`).

    Args:
        path: the folder or file.
        pixel_nm: camera pixel size, nm, where the table does not say it.
        say: tells people what was not read.

    Raises:
        InputError: there is no such folder or file, or it is no table.
        PixelSizeError: the pixel size is needed and not known.
    """
    source = read_source(path, pixel_nm, "--camera-pixel-nm")
    finite = np.isfinite(source.table[["x_nm", "y_nm"]].to_numpy(float)).all(1)
    for note in source.data.notes:
        say(note)
    if not finite.all():
        say(
            f"{int((~finite).sum()):,} of {finite.size:,} rows have no position; they are left out."
        )
    table = source.table[finite].reset_index(drop=True)
    draws, number = None, 0
    if source.draws is not None:
        draws = read_table(source.draws, DRAW_COLUMNS)
        stated = source.record.get("draws")
        number = int(stated) if stated else int(draws["draw"].max()) + 1 if len(draws) else 0
    pixel = source.pixel_nm
    stated = source.data.geometry.field_nm
    return Found(
        source.name,
        table,
        draws,
        number,
        pixel,
        source.data.geometry.psf_sigma_nm,
        stated or _bounds(table, pixel),
        stated is not None,
        source.record,
    )


def with_room_to_draw(found: Found) -> Found:
    """Give a field that nothing states some room, so that Gaussians at its edge are drawn whole.

    It reaches `MARGIN_SIGMAS` of every row's uncertainty beyond it, `MOST_MARGIN_NM` at most.
    """
    if found.field_is_stated:
        return found
    return replace(found, field_nm=_bounds(found.table, found.pixel_nm, with_margin=True))


def _bounds(table: pd.DataFrame, pixel_nm: float | None, *, with_margin: bool = False) -> Edges:
    """Give edges around all rows, at whole camera pixels if their size is known."""
    step, first = (pixel_nm, -0.5 * pixel_nm) if pixel_nm else (1.0, 0.0)
    edges = []
    for axis in ("x_nm", "y_nm"):
        values, margin = table[axis].to_numpy(float), np.zeros(len(table))
        if with_margin and f"sigma_{axis}" in table:
            sigma = np.nan_to_num(table[f"sigma_{axis}"].to_numpy(float), posinf=0.0)
            margin = np.clip(MARGIN_SIGMAS * sigma, 0.0, MOST_MARGIN_NM)
        low, high = (
            ((values - margin).min(), (values + margin).max()) if values.size else (0.0, 0.0)
        )
        below = np.floor((low - first) / step)
        above = max(np.floor((high - first) / step) + 1, below + 1)
        edges.append((first + below * step, first + above * step))
    return edges[0], edges[1]


def parse_roi(text: str | None, found: Found) -> Edges:
    """Give x and y of the edges of the part that a user asked for, nm.

    Args:
        text: "y0:y1,x0:x1" in camera pixels as for `sureloc localize`, or the same in nanometres
            with "nm" behind it; None takes everything.
        found: where it is cut from.

    Raises:
        InputError: the text is something else, the camera's pixel size is not known, or nothing of
            the part lies in the field.
    """
    if text is None:
        return found.field_nm
    edges = _edges_of(text, found)
    if any(
        low >= end or high <= first
        for (low, high), (first, end) in zip(edges, found.field_nm, strict=True)
    ):
        whole = "which was localized" if found.field_is_stated else "which holds all rows"
        raise InputError(
            f"The region {text} lies outside of {found.name}; it must overlap with "
            f"{as_roi(found)}, {whole} (rows, then columns"
            f"{', camera pixels' if found.pixel_nm else ''})."
        )
    return edges


def _edges_of(text: str, found: Found) -> Edges:
    (y0, y1, x0, x1), in_nm = parse_rectangle(text)
    if in_nm:
        return (x0, x1), (y0, y1)
    if found.pixel_nm is None:
        raise InputError(
            f"Nothing says how large a camera pixel of {found.name} is; give --camera-pixel-nm, or "
            f"the region in nanometres: '{text}nm'."
        )
    pixel = found.pixel_nm
    return ((x0 - 0.5) * pixel, (x1 - 0.5) * pixel), ((y0 - 0.5) * pixel, (y1 - 0.5) * pixel)


def as_roi(found: Found) -> str:
    """Write the field as `parse_roi` reads it: in camera pixels, in nm where their size lacks."""
    (x0, x1), (y0, y1) = found.field_nm
    pixel = found.pixel_nm
    if pixel is None:
        return f"{y0:.0f}:{y1:.0f},{x0:.0f}:{x1:.0f}nm"
    top, bottom, left, right = (round(edge / pixel + 0.5) for edge in (y0, y1, x0, x1))
    return f"{top}:{bottom},{left}:{right}"


def inside(table: pd.DataFrame, edges: Edges) -> pd.DataFrame:
    """Give the rows between edges, lower ones included."""
    (x0, x1), (y0, y1) = edges
    x, y = table["x_nm"], table["y_nm"]
    return table[(x >= x0) & (x < x1) & (y >= y0) & (y < y1)].reset_index(drop=True)
