"""ThunderSTORM's CSV (Ovesny et al. 2014), the table that most programs read.

Frames and ids count from 1 and (0, 0) is the outer CORNER of the first pixel, so positions move by
half a pixel. Lengths are written in nm and read in nm, um or px, as their column says. Its parser
reads 1.5e-05 as 1.5 and drops rows with "nan". Columns that it does not know are allowed: the
uncertainty of each axis, the probability of existence and the trust of a row go there.
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
from sureloc.io.exchange.csv_text import (
    first_lines,
    header_of,
    read_columns,
    text_of_rows,
    write_columns,
)
from sureloc.io.exchange.localizations import (
    Geometry,
    Localizations,
    NotFinite,
    Reading,
    Written,
    check_one_draw,
    left_out,
    localizations,
    needed_pixel_nm,
    not_finite,
    one_for_both,
    with_psf_width,
)
from sureloc.table import LOCALIZATION_COLUMNS

PROGRAM = "ThunderSTORM's CSV"
FIRST_FRAME = 1
_NO_NOISE = (
    "The column bkgstd, the noise of a background pixel, is left out: nothing tells the camera's "
    "read noise and quantum efficiency."
)
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
    "detections": "rows",
    "sigma_photons": "sigma_photons",
    "p_exists": "p_exists",
    "trusted": "trusted",
}
NAMES_WITHOUT_UNITS = {name.partition(" [")[0]: ours for name, ours in _NAMES.items()}
# ThunderSTORM lets people choose the unit of lengths; what a unit is in nm, None for pixels.
_UNITS_NM = {"nm": 1.0, "um": 1e3, "\u00b5m": 1e3, "\u03bcm": 1e3, "px": None}
_READ = {
    name.replace("[nm]", f"[{unit}]"): ours for unit in _UNITS_NM for name, ours in _NAMES.items()
}
MARKS = tuple(f"x [{unit}]" for unit in _UNITS_NM)  # one is in every header, and in no other's
_EXTRAS = ("sigma_photons", "p_exists", "trusted")


def read(path: Path, reading: Reading) -> Localizations:
    """Read a table of ThunderSTORM.

    Raises:
        InputError: the file cannot be used, or the pixel size is not given.
    """
    pixel_nm = needed_pixel_nm(reading.geometry, path, _CORNER, reading.pixel_option)
    columns, ignored = read_columns(path, _READ)
    for name, unit in _units(path).items():
        columns[name] = columns[name] * (_UNITS_NM[unit] or pixel_nm)
    for x_name, y_name in (("sigma_x_nm", "sigma_y_nm"), ("psf_sigma_x_nm", "psf_sigma_y_nm")):
        if x_name in columns:
            columns.setdefault(y_name, columns[x_name])
    for name in ("x_nm", "y_nm"):
        if name in columns:
            columns[name] = columns[name] - 0.5 * pixel_nm
    unknown = [name for name in ignored if name != "id"]
    return localizations(path, columns, reading.geometry, reading.base(FIRST_FRAME), unknown)


def _units(path: Path) -> dict[str, str]:
    """Give the unit of each length that `read_columns` reads, by the name that it gets."""
    header = header_of(first_lines(path, 1)[0])
    chosen: dict[str, str] = {}
    for name, ours in _READ.items():
        if name in header:
            chosen.setdefault(ours, name)
    units = {ours: name.rpartition("[")[2].rstrip("]") for ours, name in chosen.items()}
    return {ours: unit for ours, unit in units.items() if unit in _UNITS_NM}


def write(data: Localizations, path: Path) -> Written:
    """Write a table for ThunderSTORM and all that read its tables.

    Raises:
        InputError: the pixel size is not known.
        OSError: the file cannot be written.
    """
    columns, held = _columns(data.table, data.geometry)
    check_one_draw(data.table, PROGRAM)
    write_columns(path, _quoted(columns), list(columns.values()))
    notes = (*left_out(data.table, held, PROGRAM), *not_finite(data.table, held))
    if "offset [photon]" in columns and "bkgstd [photon]" not in columns:
        notes = (*notes, _NO_NOISE)
    return Written(len(data.table), notes)


def not_importable(data: Localizations) -> tuple[str, ...]:
    """Say which rows of a written table other programs cannot import.

    Raises:
        InputError: the pixel size is not known.
    """
    _, held = _columns(data.table.iloc[:0], data.geometry)
    return not_finite(data.table, held)


def _columns(
    table: pd.DataFrame, geometry: Geometry, first_id: int = 1
) -> tuple[dict[str, npt.NDArray[Any]], list[str]]:
    """Give the file's columns in their order, and the names in `table` that they hold.

    Raises:
        InputError: the pixel size is not known.
    """
    shift_nm = 0.5 * needed_pixel_nm(geometry, PROGRAM, _CORNER)
    table = with_psf_width(table, geometry)
    out: dict[str, npt.NDArray[Any]] = {
        "id": first_id + np.arange(len(table)),
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
    noise = _background_noise(table, geometry)
    if noise is not None:
        out["bkgstd [photon]"] = noise
    put("bkgstd [photon]", "background_sd_photons")
    sigma = one_for_both(table, "sigma_x_nm", "sigma_y_nm")
    if sigma is not None:
        out["uncertainty_xy [nm]"] = sigma[0]
    put("uncertainty_z [nm]", "sigma_z_nm")
    put("uncertainty_x [nm]", "sigma_x_nm")
    put("uncertainty_y [nm]", "sigma_y_nm")
    put("detections", "rows")
    for name in _EXTRAS:
        put(name, name)
    return out, held


def _background_noise(table: pd.DataFrame, geometry: Geometry) -> npt.NDArray[np.float64] | None:
    """Give the standard deviation of a pixel without emitters, photons, where all tell it."""
    read_variance, per_photon = geometry.read_variance_photons2, geometry.variance_per_photon
    if "background_photons" not in table or read_variance is None or per_photon is None:
        return None
    background = table["background_photons"].to_numpy(float)
    variance = np.maximum(background, 0.0) * per_photon + read_variance
    return np.asarray(np.sqrt(variance), np.float64)


def _quoted(names: Iterable[str]) -> str:
    return ",".join(f'"{name}"' for name in names)


class ThunderstormWriter:
    """Write localizations as they come, as `write` does; a context manager."""

    def __init__(self, path: Path, geometry: Geometry) -> None:
        """Open a CSV for writing.

        Args:
            path: the new file.
            geometry: the camera frame, with the pixel size.

        Raises:
            InputError: the pixel size is not known.
            OutputError: the file cannot be created.
        """
        self._geometry = geometry
        self.rows = 0
        nothing = pd.DataFrame({c.name: np.empty(0, c.dtype) for c in LOCALIZATION_COLUMNS})
        self._names = list(nothing)
        header, held = _columns(nothing, geometry)
        self._not_finite = NotFinite(held)
        try:
            self._file = path.open("w", encoding="ascii", newline="\n")
        except OSError as error:
            raise OutputError(f"The table {path} cannot be written ({error}).") from error
        self._file.write(_quoted(header) + "\n")

    def append(self, table: pd.DataFrame) -> None:
        """Append rows of a localization table (`sureloc.table.LOCALIZATION_COLUMNS`)."""
        columns, _ = _columns(table[self._names], self._geometry, self.rows + 1)
        self._file.writelines(text_of_rows(list(columns.values())))
        self._not_finite.add(table)
        self.rows += len(table)

    @property
    def notes(self) -> tuple[str, ...]:
        """What `write` would say of the rows so far that other programs cannot import."""
        return self._not_finite.notes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
