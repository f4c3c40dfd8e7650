"""The report's viewer of single molecules: a picture to zoom, filters, numbers and downloads."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from html import escape
from importlib import resources
from string import Template

import matplotlib
import numpy as np
import pandas as pd

from sureloc.report.packing import json_for_script, pack_rows, stride_of

COLOURS = "inferno"  # its lightness rises all the way: it reads the same in grey
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Molecules:
    """What the viewer shows.

    Attributes:
        table: rows, from `sureloc.report.packing.read_rows`.
        rows: how many the whole table has.
        pixel_nm: camera pixel size, nm.
        psf_sigma_nm: the PSF's standard deviation, nm, and
        read_variance_photons2, variance_per_photon: the noise of a pixel as in
            `sureloc.io.exchange.localizations.Geometry`, all for ThunderSTORM's columns.
        field_px: first row, first column, rows and columns of the localized part in the movie.
    """

    table: pd.DataFrame
    rows: int
    pixel_nm: float
    psf_sigma_nm: float
    read_variance_photons2: float
    variance_per_photon: float
    field_px: tuple[int, int, int, int]


def molecules_section(molecules: Molecules, name: str) -> str:
    """Give the viewer as HTML, with all its rows.

    Args:
        molecules: what it shows.
        name: of the movie, for the names of downloads.
    """
    packed = pack_rows(molecules.table, molecules.rows)
    about = packed.about | {
        "pixel_nm": molecules.pixel_nm,
        "psf_sigma_nm": molecules.psf_sigma_nm,
        "read_variance_photons2": molecules.read_variance_photons2,
        "variance_per_photon": molecules.variance_per_photon,
        "field": _field_nm(molecules),
        "file": file_stem(name),
        "colours": _colours(),
    }
    page = (resources.files("sureloc.report") / "molecules.html").read_text(encoding="utf-8")
    return Template(page).substitute(
        sample=_sample_note(molecules.rows),
        step=escape(f"{packed.step_nm:g}"),
        about=json_for_script(about),
        data=packed.data,
    )


def file_stem(name: str) -> str:
    """Give a name that every file system takes, without its extensions."""
    stem = re.sub(r"(\.ome)?\.\w+$", "", name)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._")[:_LONGEST_NAME] or "sureloc"


def _field_nm(molecules: Molecules) -> dict[str, float]:
    """Give the outer edges of the localized part, nm from the centre of the movie's first pixel."""
    row, column, rows, columns = molecules.field_px
    pixel = molecules.pixel_nm
    return {
        "left": (column - 0.5) * pixel,
        "right": (column + columns - 0.5) * pixel,
        "top": (row - 0.5) * pixel,
        "bottom": (row + rows - 0.5) * pixel,
    }


def _sample_note(rows: int) -> str:
    stride = stride_of(rows)
    if stride == 1:
        return ""
    return (
        f" <strong>This page holds one in {stride} of the {rows:,} localizations, spread evenly; "
        "counts and downloads of this part are of these.</strong>"
    )


def _colours() -> str:
    """Give 256 times red, green, blue as base64."""
    colours = matplotlib.colormaps[COLOURS](np.arange(256))[:, :3]
    return base64.b64encode(np.rint(255 * colours).astype(np.uint8).tobytes()).decode("ascii")
