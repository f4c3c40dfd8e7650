"""SMAP's tables (Ries 2020): its CSV and its own `_sml.mat`.

Both are in nm with frames from 1. Neither states where (0, 0) lies; SMAPpy's and Picasso's own
imports take it for the centre of the first pixel, and so does this. `_sml.mat` is written as MATLAB
7.3, which is HDF5 behind a block of 512 bytes; MATLAB 5 to 7 can be read too. Its `roi` is x, y,
width and height, px, of the part of the camera's chip that was localized; positions count from the
chip's first pixel. `numberInGroup` is the number of rows that were merged into one, or, in a table
of rows that SMAP has grouped and not merged, the number of rows with the same `groupindex`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.errors import InputError
from sureloc.io.exchange.csv_text import read_columns, write_columns
from sureloc.io.exchange.localizations import (
    Geometry,
    Localizations,
    Reading,
    Written,
    check_one_draw,
    contradiction,
    left_out,
    localizations,
    not_finite,
    one_for_both,
    with_psf_width,
)

Array = npt.NDArray[np.float64]

FIRST_FRAME = 1
MARK = "xnm"
_NAMES = {
    "frame": "frame",
    "xnm": "x_nm",
    "ynm": "y_nm",
    "znm": "z_nm",
    "phot": "photons",
    "bg": "background_photons",
    "xnmerr": "sigma_x_nm",
    "ynmerr": "sigma_y_nm",
    "locprecxnm": "sigma_x_nm",
    "locprecynm": "sigma_y_nm",
    "locprecnm": "sigma_x_nm",
    "locprecznm": "sigma_z_nm",
    "zerr": "sigma_z_nm",
    "photerr": "sigma_photons",
    "PSFxnm": "psf_sigma_x_nm",
    "PSFynm": "psf_sigma_y_nm",
    "numberInGroup": "rows",
    "channel": "channel",
    "p_exists": "p_exists",
    "trusted": "trusted",
}
_GROUP = "groupindex"  # which molecule a row belongs to
_READ = {**_NAMES, _GROUP: _GROUP}
_UNDERSTOOD = {**_READ, "ID": "", "filenumber": ""}
# What each format always has, in the order of SMAP's own files.
_CSV_COLUMNS = ("ID", "frame", "xnm", "ynm", "znm", "phot", "bg", "locprecnm")
_USER_BLOCK = 512
_INFO = ("cam_pixelsize_um", "roi", "Width", "Height")  # what is read of saveloc.info


def read_csv(path: Path, reading: Reading) -> Localizations:
    """Read a CSV of SMAP.

    Raises:
        InputError: the file cannot be used.
    """
    columns, ignored = read_columns(path, _READ)
    return _table(path, columns, reading.geometry, reading, ignored)


def write_csv(data: Localizations, path: Path) -> Written:
    """Write a CSV for SMAP; the standard columns, then what else the table knows.

    Raises:
        OSError: the file cannot be written.
    """
    program = "SMAP's CSV"
    fields, held = _fields(data, program)
    rows = len(data.table)
    out: dict[str, npt.NDArray[Any]] = {}
    absent = []
    for name in _CSV_COLUMNS:
        if name == "ID":
            out[name] = 1 + np.arange(rows)
        elif name in fields:
            out[name] = fields.pop(name)
        else:
            out[name] = np.zeros(rows)
            if name != "znm":
                absent.append(name)
    out |= fields
    # The space at the end of the header stands in SMAP's own files.
    write_columns(path, ",".join(out) + " ", list(out.values()))
    notes = left_out(with_psf_width(data.table, data.geometry), held, program)
    notes += not_finite(data.table, held)
    if absent:
        notes += (f"Nothing is known for {', '.join(absent)}, which {program} needs: 0 stands.",)
    return Written(rows, notes)


def _fields(data: Localizations, program: str) -> tuple[dict[str, npt.NDArray[Any]], list[str]]:
    """Give what SMAP calls its fields, and which of our columns they hold."""
    table = with_psf_width(data.table, data.geometry)
    check_one_draw(table, program)
    out: dict[str, npt.NDArray[Any]] = {"frame": table["frame"].to_numpy() + FIRST_FRAME}
    held = ["frame"]

    def put(field: str, name: str) -> None:
        if name in table:
            out[field] = table[name].to_numpy()
            held.append(name)

    for field, name in (
        ("xnm", "x_nm"),
        ("ynm", "y_nm"),
        ("znm", "z_nm"),
        ("phot", "photons"),
        ("bg", "background_photons"),
    ):
        put(field, name)
    sigma = one_for_both(table, "sigma_x_nm", "sigma_y_nm")
    if sigma is not None:
        out["locprecnm"] = sigma[0]
        put("xnmerr", "sigma_x_nm")
        put("ynmerr", "sigma_y_nm")
    for field, name in (
        ("locprecznm", "sigma_z_nm"),
        ("photerr", "sigma_photons"),
        ("PSFxnm", "psf_sigma_x_nm"),
        ("PSFynm", "psf_sigma_y_nm"),
        ("numberInGroup", "rows"),
        ("channel", "channel"),
        ("p_exists", "p_exists"),
        ("trusted", "trusted"),
    ):
        put(field, name)
    return out, held


def _table(
    path: Path,
    columns: dict[str, npt.NDArray[np.float64]],
    geometry: Geometry,
    reading: Reading,
    names: list[str],
) -> Localizations:
    for x_name, y_name in (("sigma_x_nm", "sigma_y_nm"), ("psf_sigma_x_nm", "psf_sigma_y_nm")):
        if x_name in columns:
            columns.setdefault(y_name, columns[x_name])
    unknown = [name for name in names if name not in _UNDERSTOOD]
    if _GROUP in columns:
        unknown.append(_GROUP)
        group = columns.pop(_GROUP)
        group = group[group > 0]
        if np.unique(group).size < group.size and columns.pop("rows", None) is not None:
            # The rows of a molecule are there one by one, each with their number: none was merged.
            unknown.append("numberInGroup")
    return localizations(path, columns, geometry, reading.base(FIRST_FRAME), unknown)


# --- _sml.mat -----------------------------------------------------------------------------------


def read_mat(path: Path, reading: Reading) -> Localizations:
    """Read an `_sml.mat` of any MATLAB version.

    Raises:
        InputError: the file cannot be read or holds no `saveloc.loc`.
    """
    import h5py

    try:
        is_hdf5 = h5py.is_hdf5(path)
        fields, stated = _hdf5_fields(path) if is_hdf5 else _old_fields(path)
    except Exception as error:  # SciPy and h5py raise many kinds for damaged files
        raise InputError(
            f"{path} cannot be read as SMAP's _sml.mat ({error}). It must hold saveloc.loc in one "
            "file, not split into parts: save it again in SMAP."
        ) from error
    columns: dict[str, npt.NDArray[np.float64]] = {}
    for field, name in _READ.items():
        if field in fields and name not in columns:
            columns[name] = fields[field]
    found = _table(path, columns, reading.geometry.or_else(stated), reading, list(fields))
    return replace(found, notes=(*found.notes, *contradiction(reading.geometry, stated)))


def _hdf5_fields(path: Path) -> tuple[dict[str, Array], Geometry]:
    import h5py

    with h5py.File(path, "r") as file:
        group = file["saveloc/loc"]
        fields = {
            # What is empty is stored by its shape.
            name: np.asarray(
                item[()] if not item.attrs.get("MATLAB_empty") else (), np.float64
            ).ravel()
            for name, item in group.items()
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu"
        }
        found = Geometry()
        for place in ("saveloc/info", "saveloc/file/info"):
            items = {name: file.get(f"{place}/{name}") for name in _INFO}
            stated = {n: item[()] for n, item in items.items() if isinstance(item, h5py.Dataset)}
            found = found.or_else(_geometry(stated))
    return fields, found


def _old_fields(path: Path) -> tuple[dict[str, Array], Geometry]:
    from scipy.io import loadmat

    content = loadmat(path, struct_as_record=False, squeeze_me=True)
    saved = content["saveloc"]
    fields = {}
    for name in saved.loc._fieldnames:
        values = np.atleast_1d(np.asarray(getattr(saved.loc, name)))
        if values.dtype.kind in "fiu":
            fields[name] = values.astype(np.float64).ravel()
    found = Geometry()
    owners: list[Any] = [saved, *np.atleast_1d(getattr(saved, "file", ()))]
    for owner in owners:
        info: Any = getattr(owner, "info", None)
        stated = {name: getattr(info, name) for name in _INFO if hasattr(info, name)}
        found = found.or_else(_geometry(stated))
    return fields, found


def _geometry(info: Mapping[str, Any]) -> Geometry:
    """Give what SMAP's record of a camera says, with the frame that holds the part recorded."""

    def numbers(name: str, count: int) -> list[float] | None:
        values = np.asarray(info.get(name, ()))
        fine = values.size == count and values.dtype.kind in "fiu" and np.isfinite(values).all()
        return [float(value) for value in values.ravel()] if fine else None

    sides = [numbers(name, 1) for name in ("Width", "Height")]
    width, height = (None if side is None or side[0] < 1 else int(side[0]) for side in sides)
    region = None
    roi = numbers("roi", 4)
    if roi is not None and min(roi[:2]) >= 0 and min(roi[2:]) >= 1:
        x, y, columns, rows = map(int, roi)
        # Of a part SMAP gives the part's own width and height.
        width, height = max(width or 0, x + columns), max(height or 0, y + rows)
        region = (y, y + rows), (x, x + columns)
    if region == ((0, height), (0, width)):
        region = None
    pixel_um = _pixel_um(info.get("cam_pixelsize_um", ()))
    return Geometry(pixel_um and pixel_um * 1e3, width, height, region_px=region)


def _pixel_um(values: Any) -> float | None:
    sizes = np.asarray(values, np.float64).ravel()
    square = sizes.size > 0 and np.isfinite(sizes).all() and (abs(sizes - sizes[0]) < 1e-6).all()
    return float(sizes[0]) if square and sizes[0] > 0 else None


def write_mat(data: Localizations, path: Path) -> Written:
    """Write an `_sml.mat`, MATLAB 7.3.

    Raises:
        OSError: the file cannot be written.
    """
    import h5py

    program = "SMAP's _sml.mat"
    fields, held = _fields(data, program)
    with h5py.File(path, "w", userblock_size=_USER_BLOCK) as file:
        file.attrs["H5PATH"] = np.bytes_("/")
        saved = _struct(file, "saveloc")
        loc = _struct(saved, "loc")
        for name, values in fields.items():
            _matrix(loc, name, np.asarray(values, np.float64).reshape(1, -1))
        info = _struct(saved, "info")
        _fill_info(info, data.geometry, data.table)
        _text(_struct(file, "fileformat"), "name", "sml")
    _write_user_block(path)
    notes = left_out(with_psf_width(data.table, data.geometry), held, program)
    notes += not_finite(data.table, held)
    if data.geometry.pixel_nm is None:
        notes += ("The pixel size is not known, and not in it; --pixel-nm gives one.",)
    return Written(len(data.table), notes)


def _fill_info(group: Any, geometry: Geometry, table: pd.DataFrame) -> None:
    if geometry.pixel_nm is not None:
        _matrix(group, "cam_pixelsize_um", np.full((2, 1), geometry.pixel_nm * 1e-3))
    if geometry.width_px is not None and geometry.height_px is not None:
        width, height = float(geometry.width_px), float(geometry.height_px)
        _matrix(group, "Width", np.array([[width]]))
        _matrix(group, "Height", np.array([[height]]))
        (top, bottom), (left, right) = geometry.region_px or ((0, height), (0, width))
        roi = [left, top, right - left, bottom - top]
        _matrix(group, "roi", np.array(roi, np.float64)[:, None])
    frames = geometry.frames or (int(table["frame"].max()) + 1 if len(table) else 0)
    _matrix(group, "numberOfFrames", np.array([[float(frames)]]))


def _struct(parent: Any, name: str) -> Any:
    group = parent.create_group(name)
    group.attrs["MATLAB_class"] = np.bytes_("struct")
    return group


def _matrix(group: Any, name: str, values: npt.NDArray[np.float64]) -> None:
    """Store an array, transposed as MATLAB counts along columns; an empty one by its shape."""
    if values.size == 0:
        dataset = group.create_dataset(name, data=np.array(values.shape[::-1], np.uint64))
        dataset.attrs["MATLAB_empty"] = np.uint8(1)
    else:
        dataset = group.create_dataset(name, data=values)
    dataset.attrs["MATLAB_class"] = np.bytes_("double")


def _text(group: Any, name: str, text: str) -> None:
    codes = np.array([[ord(letter)] for letter in text], np.uint16)
    dataset = group.create_dataset(name, data=codes)
    dataset.attrs["MATLAB_class"] = np.bytes_("char")
    dataset.attrs["MATLAB_int_decode"] = np.int32(2)


def _write_user_block(path: Path) -> None:
    """Write the 128 bytes by which MATLAB knows a file of version 7.3."""
    # Without the usual date, so that the same table gives the same file.
    text = "MATLAB 7.3 MAT-file, Platform: sureloc, HDF5 schema 1.00 ."
    with path.open("r+b") as file:
        file.write(text.encode().ljust(116) + bytes(8) + b"\x00\x02IM")
