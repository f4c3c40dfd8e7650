"""ThunderSTORM's CSV (Ovesny et al. 2014), the table that most programs read.

Frames and ids count from 1 and (0, 0) is the outer CORNER of the first pixel, so positions move by
half a pixel. Its parser reads 1.5e-05 as 1.5 and drops rows with "nan". Columns that it does not
know are allowed: the uncertainty of each axis, the probability of existence and the trust of a row
go there.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.errors import OutputError
from sureloc.io.exchange.csv_text import read_columns, text_of_rows, write_columns
from sureloc.io.exchange.localizations import (
    Localizations,
    Reading,
    Written,
    check_one_draw,
    left_out,
    localizations,
    needed_pixel_nm,
    one_for_both,
    with_psf_width,
)

PROGRAM = "ThunderSTORM's CSV"
FIRST_FRAME = 1
MARK = "x [nm]"  # in no other program's header
_CORNER = "its (0, 0) is a pixel's corner, sureloc's its centre"
_NAMES = {
    "frame": "frame",
    "x [nm]": "x_nm",
    "y [nm]": "y_nm",
    "z [nm]": "z_nm",
    "sigma1 [nm]": "psf_sigma_x_nm",
    "sigma2 [nm]": "psf_sigma_y_nm",
    "sigma [nm]": "psf_sigma_x_nm",
    "intensity [photon]": "photons",
    "offset [photon]": "background_photons",
    "bkgstd [photon]": "background_sd_photons",
    "uncertainty_x [nm]": "sigma_x_nm",
    "uncertainty_y [nm]": "sigma_y_nm",
    "uncertainty_xy [nm]": "sigma_x_nm",
    "uncertainty [nm]": "sigma_x_nm",
    "uncertainty_z [nm]": "sigma_z_nm",
    "detections": "detections",
    "sigma_photons": "sigma_photons",
    "p_exists": "p_exists",
    "trusted": "trusted",
}
# Of the table that `sureloc localize` leaves.
HEADER = (
    "id",
    "frame",
    "x [nm]",
    "y [nm]",
    "sigma [nm]",
    "intensity [photon]",
    "offset [photon]",
    "bkgstd [photon]",
    "uncertainty_xy [nm]",
)
_UNDERSTOOD = {**_NAMES, "id": ""}
_EXTRAS = ("detections", "sigma_photons", "p_exists", "trusted")


def read(path: Path, reading: Reading) -> Localizations:
    """Read a table of ThunderSTORM.

    Raises:
        InputError: the file cannot be used, or the pixel size is not given.
    """
    pixel_nm = needed_pixel_nm(reading.geometry, path, _CORNER, reading.pixel_option)
    columns, ignored = read_columns(path, _NAMES)
    for x_name, y_name in (("sigma_x_nm", "sigma_y_nm"), ("psf_sigma_x_nm", "psf_sigma_y_nm")):
        if x_name in columns:
            columns.setdefault(y_name, columns[x_name])
    for name in ("x_nm", "y_nm"):
        if name in columns:
            columns[name] = columns[name] - 0.5 * pixel_nm
    unknown = [name for name in ignored if name not in _UNDERSTOOD]
    return localizations(path, columns, reading.geometry, reading.base(FIRST_FRAME), unknown)


def write(data: Localizations, path: Path) -> Written:
    """Write a table for ThunderSTORM and all that read its tables.

    Raises:
        InputError: the pixel size is not known.
        OSError: the file cannot be written.
    """
    shift_nm = 0.5 * needed_pixel_nm(data.geometry, PROGRAM, _CORNER)
    table = with_psf_width(data)
    check_one_draw(table, PROGRAM)
    out: dict[str, npt.NDArray[Any]] = {
        "id": 1 + np.arange(len(table)),
        "frame": table["frame"].to_numpy() + FIRST_FRAME,
        "x [nm]": table["x_nm"].to_numpy() + shift_nm,
        "y [nm]": table["y_nm"].to_numpy() + shift_nm,
    }
    held = ["frame", "x_nm", "y_nm"]

    def put(header: str, name: str) -> None:
        if name in table:
            out[header] = table[name].to_numpy()
            held.append(name)

    put("z [nm]", "z_nm")
    width = one_for_both(table, "psf_sigma_x_nm", "psf_sigma_y_nm")
    if width is not None:
        held += ["psf_sigma_x_nm", "psf_sigma_y_nm"]
        # A flat table with one width has `sigma`; what is astigmatic has two.
        out["sigma [nm]"] = width[0]
        if "z_nm" in table or not width[1]:
            put("sigma1 [nm]", "psf_sigma_x_nm")
            put("sigma2 [nm]", "psf_sigma_y_nm")
    put("intensity [photon]", "photons")
    put("offset [photon]", "background_photons")
    if "background_photons" in table and "background_sd_photons" not in table:
        out["bkgstd [photon]"] = np.sqrt(table["background_photons"].clip(lower=0).to_numpy())
    put("bkgstd [photon]", "background_sd_photons")
    sigma = one_for_both(table, "sigma_x_nm", "sigma_y_nm")
    if sigma is not None:
        held += ["sigma_x_nm", "sigma_y_nm"]
        out["uncertainty_xy [nm]"] = sigma[0]
    put("uncertainty_z [nm]", "sigma_z_nm")
    if sigma is not None and not sigma[1]:
        put("uncertainty_x [nm]", "sigma_x_nm")
        put("uncertainty_y [nm]", "sigma_y_nm")
    for name in _EXTRAS:
        put(name, name)
    write_columns(path, _quoted(out), list(out.values()))
    return Written(len(table), left_out(table, held, PROGRAM))


def _quoted(names: Iterable[str]) -> str:
    return ",".join(f'"{name}"' for name in names)


class ThunderstormWriter:
    """Write localizations as they come, with the columns of `HEADER`; a context manager."""

    def __init__(
        self,
        path: Path,
        pixel_nm: float,
        psf_sigma_nm: float,
        read_variance_photons2: float = 0.0,
    ) -> None:
        """Open a CSV for writing.

        Args:
            path: the new file.
            pixel_nm: pixel size, nm, by half of which the origin moves to the corner.
            psf_sigma_nm: the PSF's standard deviation, nm, for the column `sigma`.
            read_variance_photons2: typical read variance per pixel, photons^2, which the column
                `bkgstd` holds beside the background's shot noise.

        Raises:
            OutputError: the file cannot be created.
        """
        self._shift_nm = 0.5 * pixel_nm
        self._psf_sigma_nm = psf_sigma_nm
        self._read_variance = read_variance_photons2
        self.rows = 0
        try:
            self._file = path.open("w", encoding="ascii", newline="\n")
        except OSError as error:
            raise OutputError(f"The table {path} cannot be written ({error}).") from error
        self._file.write(_quoted(HEADER) + "\n")

    def append(self, table: pd.DataFrame) -> None:
        """Append rows of a localization table (`sureloc.table.LOCALIZATION_COLUMNS`)."""
        count = len(table)
        background = table["background_photons"].to_numpy(float)
        columns: list[npt.NDArray[Any]] = [
            self.rows + 1 + np.arange(count),
            table["frame"].to_numpy() + FIRST_FRAME,
            table["x_nm"].to_numpy() + self._shift_nm,
            table["y_nm"].to_numpy() + self._shift_nm,
            np.full(count, self._psf_sigma_nm),
            table["photons"].to_numpy(),
            background,
            np.sqrt(np.maximum(background, 0.0) + self._read_variance),
            np.hypot(table["sigma_x_nm"].to_numpy(), table["sigma_y_nm"].to_numpy()) / np.sqrt(2.0),
        ]
        self._file.writelines(text_of_rows(columns))
        self.rows += count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
