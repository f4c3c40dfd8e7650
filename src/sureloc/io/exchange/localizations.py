"""What every format of localizations is read into and written from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.camera import check_pixel_nm, same_pixel_nm
from sureloc.errors import InputError, PixelSizeError
from sureloc.limits import check_limit
from sureloc.table import (
    DRAW_COLUMNS,
    DRIFT_COLUMNS,
    LINK_COLUMNS,
    LOCALIZATION_COLUMNS,
    TRUTH_COLUMNS,
    Column,
)

Edges = tuple[tuple[float, float], tuple[float, float]]
Region = tuple[tuple[int, int], tuple[int, int]]

# What other programs store and sureloc's own tables do not hold.
FOREIGN_COLUMNS: tuple[Column, ...] = (
    Column("z_nm", "float64", "nm", "Position along the optical axis, sign as in the file read."),
    Column("sigma_z_nm", "float64", "nm", "Standard deviation of z_nm."),
    Column("crlb_z_nm", "float64", "nm", "Cramer-Rao bound of z_nm."),
    Column("crlb_photons", "float64", "photons", "Cramer-Rao bound of photons."),
    Column(
        "sigma_background_photons",
        "float64",
        "photons/px",
        "Standard deviation of background_photons.",
    ),
    Column(
        "crlb_background_photons",
        "float64",
        "photons/px",
        "Cramer-Rao bound of background_photons.",
    ),
    Column("background_sd_photons", "float64", "photons/px", "Noise of a background pixel."),
    Column("psf_sigma_x_nm", "float64", "nm", "Width of the fitted spot along columns."),
    Column("psf_sigma_y_nm", "float64", "nm", "Width of the fitted spot along rows."),
    Column("net_gradient", "float64", "", "Picasso's net gradient of the spot."),
    Column("channel", "int64", "", "Colour channel."),
)
COLUMNS: Mapping[str, Column] = {
    column.name: column
    for column in (
        *LOCALIZATION_COLUMNS,
        *TRUTH_COLUMNS,
        *DRAW_COLUMNS,
        *DRIFT_COLUMNS,
        *LINK_COLUMNS,
        *FOREIGN_COLUMNS,
        *LOCALIZATION_COLUMNS,  # once more: its meanings stand for names that others have too
    )
}
NEEDED = ("frame", "x_nm", "y_nm")
LARGEST_WHOLE = 2**53  # a 64-bit floating-point number tells no larger ones apart


@dataclass(frozen=True)
class Geometry:
    """The camera frame under the localizations; None where nothing tells.

    Attributes:
        pixel_nm: pixel size in the sample, nm.
        width_px, height_px: columns and rows of the camera frame.
        frames: length of the movie.
        psf_sigma_nm: one PSF standard deviation for all rows, nm.
        read_variance_photons2: typical variance of a pixel without light, photons^2.
        variance_per_photon: what a photon of light adds to it, photons^2: excess noise over
            quantum efficiency, 1 for an ideal camera.
        region_px: rows and columns, first and last + 1, of the part of the camera frame that was
            localized; None where it was all of it.
    """

    pixel_nm: float | None = None
    width_px: int | None = None
    height_px: int | None = None
    frames: int | None = None
    psf_sigma_nm: float | None = None
    read_variance_photons2: float | None = None
    variance_per_photon: float | None = None
    region_px: Region | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and name != "region_px":
                check_limit(name, value)
        if not all(0 <= first < last for first, last in self.region_px or ()):
            raise InputError(
                f"The region is {self.region_px}; rows and columns must run from 0 or more to more."
            )

    @property
    def field_nm(self) -> Edges | None:
        """x and y of the outer edges of what was localized, nm; None where that is not known."""
        region = self.region_px
        if region is None and self.height_px is not None and self.width_px is not None:
            region = (0, self.height_px), (0, self.width_px)
        if region is None or self.pixel_nm is None:
            return None
        pixel = self.pixel_nm
        (top, bottom), (left, right) = region
        return (
            ((left - 0.5) * pixel, (right - 0.5) * pixel),
            ((top - 0.5) * pixel, (bottom - 0.5) * pixel),
        )

    def or_else(self, other: Geometry) -> Geometry:
        """Give this geometry with its gaps filled from another one."""
        gaps = {name: value for name, value in vars(other).items() if getattr(self, name) is None}
        return replace(self, **gaps)


def stated_region(stated: Any) -> Region:
    """Give the part of a camera frame that a file states as rows and columns.

    Raises:
        InputError: rows or columns are something else than first and last + 1.
    """
    try:
        (top, bottom), (left, right) = ([int(edge) for edge in ends] for ends in stated)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The region is stated as {stated}; it must be first and last + 1 of rows and columns."
        ) from error
    return (top, bottom), (left, right)


def stated_geometry(record: Mapping[str, Any]) -> Geometry:
    """Give what a run's record, or a table's provenance, says of the camera frame.

    Raises:
        InputError: it says what cannot be.
    """
    stated = record.get("geometry")
    known = stated if isinstance(stated, Mapping) else {}
    numbers: dict[str, Any] = {
        name: known[name]
        for name in Geometry.__dataclass_fields__
        if isinstance(known.get(name), int | float)
    }
    region = known.get("region_px")
    found = Geometry(**numbers, region_px=None if region is None else stated_region(region))
    # Tables of earlier versions tell the pixel size only.
    pixel_nm = record.get("pixel_nm")
    return found.or_else(Geometry(pixel_nm if isinstance(pixel_nm, int | float) else None))


def contradiction(given: Geometry, stated: Geometry) -> tuple[str, ...]:
    """Say that a pixel size that was given is not the one that the file states, if it is not."""
    mine, theirs = given.pixel_nm, stated.pixel_nm
    if mine is None or theirs is None or same_pixel_nm(mine, theirs):
        return ()
    return (
        f"The camera pixel size was given: {mine:g} nm. The file says {theirs:g} nm; what was "
        "given is taken.",
    )


@dataclass(frozen=True)
class Localizations:
    """A table with what is known about the movie it came from.

    Attributes:
        table: columns of `COLUMNS`, among them `NEEDED`; the others may lack. Of Parquet tables
            also columns of other names, which `extra` describes.
        geometry: the camera frame.
        notes: what reading found worth saying, a sentence each.
        provenance: what made the table, as far as its file tells.
        extra: columns that are not of `COLUMNS`, by their names.
    """

    table: pd.DataFrame
    geometry: Geometry = Geometry()
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Column] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """What a written file holds.

    Attributes:
        rows: their number.
        notes: what was left out or assumed, a sentence each.
    """

    rows: int
    notes: tuple[str, ...] = ()


def localizations(
    path: Path,
    columns: Mapping[str, npt.NDArray[np.generic]],
    geometry: Geometry,
    first_frame: int,
    ignored: Iterable[str] = (),
) -> Localizations:
    """Make a table of the columns that a file holds, with sureloc's types.

    Args:
        path: the file, for messages.
        columns: arrays of one length by names of `COLUMNS`; positions in sureloc's convention but
            `frame` and `last_frame` counted from `first_frame`.
        geometry: what the file says about the camera frame.
        first_frame: number of the first frame in the file.
        ignored: names in the file that mean nothing here.

    Raises:
        InputError: a needed column lacks, lengths differ, a value is not finite where it must be,
            or a frame is no whole number from `first_frame`.
    """
    _check_lengths(path, columns)
    data: dict[str, npt.NDArray[Any]] = {
        name: from_zero(path, values, first_frame)
        if name in ("frame", "last_frame")
        else typed(path, name, values)
        for name, values in columns.items()
    }
    # Programs that need a z column fill it with 0 for flat samples; its errors say nothing then.
    if "z_nm" in data and not any(np.nan_to_num(data[name]).any() for name in _AXIAL & data.keys()):
        data = {name: values for name, values in data.items() if name not in _AXIAL}
    order = [name for name in COLUMNS if name in data]
    table = pd.DataFrame({name: data[name] for name in order})
    return Localizations(table, geometry, ignored_note(ignored))


_AXIAL = {"z_nm", "sigma_z_nm", "crlb_z_nm"}


def _check_lengths(path: Path, columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
    lacking = [name for name in NEEDED if name not in columns]
    if lacking:
        raise InputError(f"{path} holds nothing for {', '.join(lacking)}; a table needs them.")
    lengths = {name: np.shape(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1 or len(lengths["frame"]) != 1:
        raise InputError(
            f"The columns of {path} have different shapes: "
            f"{', '.join(f'{name} {shape}' for name, shape in lengths.items())}. "
            "The file is damaged; export it again."
        )


def from_zero(
    path: Path, frame: npt.NDArray[np.generic], first_frame: int
) -> npt.NDArray[np.int64]:
    """Give frames counted from 0 for those of a file.

    Raises:
        InputError: one is no whole number from `first_frame` to `LARGEST_WHOLE`.
    """
    numbers = _numbers(path, "frame", frame)
    _check_not_too_large(path, "frame", numbers)
    whole = np.isfinite(numbers) & (numbers >= first_frame) & (numbers == np.round(numbers))
    if not whole.all():
        raise InputError(
            f"{path} has a frame {numbers[~whole][0]:g}; this format counts {first_frame}, "
            f"{first_frame + 1}, ..., and only whole numbers. If another program wrote it and "
            "counts differently, mend it with 'sureloc convert' and --first-frame 0 or 1."
        )
    return numbers.astype(np.int64) - first_frame


def _check_not_too_large(path: Path, name: str, numbers: npt.NDArray[np.float64]) -> None:
    large = np.isfinite(numbers) & (np.abs(numbers) >= LARGEST_WHOLE)
    if large.any():
        raise InputError(
            f"{path} has a {name} {numbers[large][0]:.0f}; whole numbers must be below "
            f"{LARGEST_WHOLE}. Check the file, and export it again."
        )


def _numbers(path: Path, name: str, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} has a {name} that is no number ({error}).") from error


def typed(path: Path, name: str, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Give the values of a column of `COLUMNS` with its type.

    Raises:
        InputError: a value is no number, not finite where it must be, or a whole number too large
            to be told from others.
    """
    dtype = COLUMNS[name].dtype
    if dtype == "str":
        return values
    numbers = _numbers(path, name, values)
    if dtype in ("int64", "bool") and not np.isfinite(numbers).all():
        raise InputError(f"{path} has a {name} that is no number; every row needs one.")
    if dtype == "int64":
        _check_not_too_large(path, name, numbers)
    return numbers.astype(dtype)


def ignored_note(ignored: Iterable[str]) -> tuple[str, ...]:
    """Say which columns of a file were not read."""
    names = list(ignored)
    if not names:
        return ()
    return (f"Columns that mean nothing to sureloc were not read: {', '.join(names)}.",)


# --- What a format may lack ---------------------------------------------------------------------


def needed_pixel_nm(
    geometry: Geometry, what: Path | str, why: str, option: str = "--pixel-nm"
) -> float:
    """Give the pixel size, or ask for it.

    Args:
        geometry: what is known.
        what: the file that was read, or the format that is to be written.
        why: it is needed.
        option: by which people give it.

    Raises:
        PixelSizeError: nothing tells it.
    """
    if geometry.pixel_nm is None:
        raise PixelSizeError(
            f"The pixel size is needed for {what} ({why}) and no file tells it. Give it with "
            f"{option}, for instance {option} 108."
        )
    return geometry.pixel_nm


def lateral(
    table: pd.DataFrame, x_name: str, y_name: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Give the columns of x and y, or one for both where the table has one only."""
    names = [name for name in (x_name, y_name) if name in table]
    if not names:
        return None
    x, y = table[names[0]].to_numpy(float), table[names[-1]].to_numpy(float)
    return x, y


def one_for_both(
    table: pd.DataFrame, x_name: str, y_name: str
) -> tuple[npt.NDArray[np.float64], bool] | None:
    """Give the root mean square of x's and y's column, and whether that is both of them."""
    pair = lateral(table, x_name, y_name)
    if pair is None:
        return None
    x, y = pair
    same = bool(np.array_equal(x, y, equal_nan=True))
    return (x if same else np.hypot(x, y) / np.sqrt(2.0)), same


def with_psf_width(table: pd.DataFrame, geometry: Geometry) -> pd.DataFrame:
    """Give the table with the one PSF width in every row, where it has none of its own."""
    width = geometry.psf_sigma_nm
    if width is None or "psf_sigma_x_nm" in table:
        return table
    return table.assign(psf_sigma_x_nm=width, psf_sigma_y_nm=width)


def keep_rows(
    table: pd.DataFrame, reasons: Mapping[str, npt.NDArray[np.bool_]], program: str
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Leave out the rows that a format cannot hold, and say how many for which reason.

    Args:
        table: the rows.
        reasons: True for the rows that a reason excludes; a row counts for the first one.
        program: who refuses them, for the sentence.
    """
    out = np.zeros(len(table), bool)
    counts = []
    for reason, excluded in reasons.items():
        count = int((excluded & ~out).sum())
        out |= excluded
        if count:
            counts.append(f"{count:,} with {reason}")
    if not counts:
        return table, ()
    return table[~out], (
        f"{int(out.sum()):,} of {len(table):,} rows were left out because {program} refuses them: "
        f"{', '.join(counts)}. They stay in the file that was read.",
    )


def left_out(table: pd.DataFrame, held: Sequence[str], program: str) -> tuple[str, ...]:
    """Say which columns a format has no place for, and what that hides."""
    names = [name for name in table.columns if name not in held]
    notes = []
    if names:
        notes.append(f"{program} has no place for {', '.join(names)}.")
    if "trusted" in names and not table["trusted"].all():
        count = int((~table["trusted"]).sum())
        notes.append(f"{count:,} rows that sureloc does not trust are in it, unmarked.")
    return tuple(notes)


class NotFinite:
    """Counts rows with values that are not finite, of a table that Picasso and SMAPpy import."""

    def __init__(self, held: Sequence[str]) -> None:
        """Begin to count.

        Args:
            held: the columns that the format has a place for.
        """
        self._bad = dict.fromkeys(held, False)
        self._rows = 0
        self._bad_rows = 0

    def add(self, table: pd.DataFrame) -> None:
        """Count rows, all of which are written."""
        bad = {
            name: ~np.isfinite(table[name].to_numpy(float))
            for name in self._bad
            if name in table and table[name].dtype.kind == "f"
        }
        self._rows += len(table)
        self._bad_rows += int(np.any(list(bad.values()), axis=0).sum()) if bad else 0
        for name, rows in bad.items():
            self._bad[name] |= bool(rows.any())

    @property
    def notes(self) -> tuple[str, ...]:
        """Say how many there were, if any."""
        if not self._bad_rows:
            return ()
        names = ", ".join(name for name, bad in self._bad.items() if bad)
        return (
            f"{self._bad_rows:,} of {self._rows:,} rows hold values that are not finite ({names}) "
            "and are in it as they are. Picasso cannot import such a table, or loses these rows; "
            "SMAPpy may lose those without a position. Converted to Picasso's own .hdf5 they are "
            "left out.",
        )


def not_finite(table: pd.DataFrame, held: Sequence[str]) -> tuple[str, ...]:
    """Say how many rows of a whole table hold values that are not finite (`NotFinite`)."""
    counted = NotFinite(held)
    counted.add(table)
    return counted.notes


def check_one_draw(table: pd.DataFrame, program: str) -> None:
    """Refuse posterior draws that a format would mix up.

    Raises:
        InputError: the table holds several draws.
    """
    first, last = (table["draw"].min(), table["draw"].max()) if "draw" in table else (0, 0)
    if first != last:
        raise InputError(
            f"The table holds draws {first} to {last}, each a whole set of molecules, and "
            f"{program} would show them all as one. Take one with --draw {first}."
        )


@dataclass(frozen=True)
class Reading:
    """What the user says about a file that it may not say itself.

    Attributes:
        geometry: the camera frame; what is given here goes before what the file says.
        first_frame: number of the first frame, where it is not the one of the format.
        pixel_option: by which the pixel size can be given, for messages.
    """

    geometry: Geometry = Geometry()
    first_frame: int | None = None
    pixel_option: str = "--pixel-nm"

    def __post_init__(self) -> None:
        if self.geometry.pixel_nm is not None:
            check_pixel_nm(self.geometry.pixel_nm)

    def base(self, of_format: int) -> int:
        """Give the number of the first frame."""
        return of_format if self.first_frame is None else self.first_frame
