"""The CSV of the SMLM challenge (Sage et al. 2019): positions, z and intensity, no uncertainty.

In nm, frames from 1, and (0, 0) at the outer CORNER of the first pixel, from where the challenge's
simulated structures count.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sureloc.io.exchange.csv_text import read_columns, write_columns
from sureloc.io.exchange.localizations import (
    Localizations,
    Reading,
    Written,
    check_one_draw,
    left_out,
    localizations,
    needed_pixel_nm,
)

PROGRAM = "the challenge's CSV"
FIRST_FRAME = 1
MARK = "xnano"
# The space at the end stands in the challenge's own files.
HEADER = "Ground-truth,frame,xnano,ynano,znano,intensity "
_NAMES = {
    "frame": "frame",
    "xnano": "x_nm",
    "ynano": "y_nm",
    "znano": "z_nm",
    "intensity": "photons",
}
_CORNER = "its (0, 0) is a pixel's corner, sureloc's its centre"


def read(path: Path, reading: Reading) -> Localizations:
    """Read a table of the challenge.

    Raises:
        InputError: the file cannot be used, or the pixel size is not given.
    """
    pixel_nm = needed_pixel_nm(reading.geometry, path, _CORNER, reading.pixel_option)
    columns, ignored = read_columns(path, _NAMES)
    for name in ("x_nm", "y_nm"):
        if name in columns:
            columns[name] = columns[name] - 0.5 * pixel_nm
    unknown = [name for name in ignored if name != "Ground-truth"]
    return localizations(path, columns, reading.geometry, reading.base(FIRST_FRAME), unknown)


def write(data: Localizations, path: Path) -> Written:
    """Write a table for the challenge's scoring program.

    Raises:
        InputError: the pixel size is not known.
        OSError: the file cannot be written.
    """
    table = data.table
    check_one_draw(table, PROGRAM)
    shift_nm = 0.5 * needed_pixel_nm(data.geometry, PROGRAM, _CORNER)
    zeros = np.zeros(len(table))
    columns = [
        1 + np.arange(len(table)),
        table["frame"].to_numpy() + FIRST_FRAME,
        table["x_nm"].to_numpy() + shift_nm,
        table["y_nm"].to_numpy() + shift_nm,
        table["z_nm"].to_numpy() if "z_nm" in table else zeros,
        table["photons"].to_numpy() if "photons" in table else zeros,
    ]
    write_columns(path, HEADER, columns)
    held = ["frame", "x_nm", "y_nm", "z_nm", "photons"]
    notes = left_out(table, held, PROGRAM)
    if "photons" not in table:
        notes += (f"Nothing is known for intensity, which {PROGRAM} needs: 0 stands there.",)
    return Written(len(table), notes)
