"""DECODE's emitters (Speiser et al. 2021): HDF5, and its CSV with the same content.

Frames from 0, (0, 0) at the CENTRE of the first pixel, and x along the ROWS of the image, y along
its columns: exchanged against everybody else. Positions in pixels or nm (`/meta`, `xy_unit`,
`px_size`), z in nm. `*_sig` are standard deviations, `*_cr` Cramer-Rao bounds as variances; what
does not exist is an empty dataset.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sureloc.errors import InputError
from sureloc.io.exchange.csv_text import first_lines, read_columns, write_columns
from sureloc.io.exchange.localizations import (
    Geometry,
    Localizations,
    Reading,
    Written,
    check_one_draw,
    contradiction,
    left_out,
    localizations,
    needed_pixel_nm,
)

Array = npt.NDArray[np.float64]

FIRST_FRAME = 0
CSV_MARK = "# DECODE EmitterSet"
_CSV_COMMENTS = 3
# Our columns in the order of DECODE's axes: its x is our y.
_POSITION = ("y_nm", "x_nm", "z_nm")
_SIGMA = ("sigma_y_nm", "sigma_x_nm", "sigma_z_nm")
_BOUND = ("crlb_y_nm", "crlb_x_nm", "crlb_z_nm")
_SCALARS = {
    "phot": "photons",
    "phot_sig": "sigma_photons",
    "phot_cr": "crlb_photons",
    "bg": "background_photons",
    "bg_sig": "sigma_background_photons",
    "bg_cr": "crlb_background_photons",
    "prob": "p_exists",
    "frame_ix": "frame",
}
_VECTORS = {"xyz": _POSITION, "xyz_sig": _SIGMA, "xyz_cr": _BOUND}


def read(path: Path, reading: Reading) -> Localizations:
    """Read emitters of DECODE from HDF5.

    Raises:
        InputError: the file cannot be used, or nothing tells the pixel size where it is needed.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            data = {name: item[()] for name, item in file["data"].items() if item.shape is not None}
            meta = dict(file["meta"].attrs)
    except (OSError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read as DECODE's emitters ({error}). It must hold /data and /meta; "
            "save it again in DECODE."
        ) from error
    return _table(path, data, meta, reading)


def read_csv(path: Path, reading: Reading) -> Localizations:
    """Read emitters of DECODE from CSV (arguments and errors as in `read`)."""
    lines = first_lines(path, _CSV_COMMENTS)
    try:
        meta = json.loads(lines[-1].lstrip("# "))
    except ValueError as error:
        raise InputError(
            f"The third line of {path} must hold the unit of positions as DECODE writes it "
            f"({error}). Save the table again in DECODE."
        ) from error
    axes = [f"{axis}{kind}" for kind in ("", "_sig", "_cr") for axis in "xyz"]
    names = {name: name for name in (*axes, *_SCALARS)}
    columns, ignored = read_columns(path, names, skip=_CSV_COMMENTS)
    data: dict[str, npt.NDArray[Any]] = {
        name: values for name, values in columns.items() if name in _SCALARS and _known(values)
    }
    for kind in ("", "_sig", "_cr"):
        parts = [columns.get(f"{axis}{kind}") for axis in "xyz"]
        found = [part for part in parts if part is not None]
        if len(found) == len(parts) and any(_known(part) for part in found):
            data[f"xyz{kind}"] = np.stack(found, axis=1)
    data |= dict.fromkeys(ignored, np.empty(0))
    return _table(path, data, meta if isinstance(meta, dict) else {}, reading)


def _known(values: Array) -> bool:
    """Tell a column from one of NaN alone, DECODE's sign in CSV for "there is none"."""
    return values.size == 0 or not np.isnan(values).all()


def _table(
    path: Path, data: Mapping[str, Any], meta: Mapping[str, Any], reading: Reading
) -> Localizations:
    stated = Geometry(pixel_nm=_pixel_nm(path, meta))
    geometry = reading.geometry.or_else(stated)
    unit = _word(meta.get("xy_unit"))
    if unit not in ("px", "nm"):
        raise InputError(f"{path} gives positions in the unit {unit!r}; it must be 'px' or 'nm'.")
    scale = 1.0
    if unit == "px":
        why = "its positions are in pixels"
        scale = needed_pixel_nm(geometry, path, why, reading.pixel_option)
    columns: dict[str, Array] = {}
    for name, ours in _VECTORS.items():
        if name not in data:
            continue
        values = np.asarray(data[name], np.float64)
        if values.ndim != 2 or values.shape[1] != len(ours):
            raise InputError(f"{name} in {path} has shape {values.shape}; it must be (N, 3).")
        if name == "xyz_cr":
            values = np.sqrt(values)
        for axis, column in enumerate(ours):
            columns[column] = values[:, axis] * (scale if axis < 2 else 1.0)
    for name, column in _SCALARS.items():
        if name in data:
            values = np.asarray(data[name], np.float64)
            columns[column] = np.sqrt(values) if name.endswith("_cr") else values
    unknown = [name for name in data if name not in {*_VECTORS, *_SCALARS, "id"}]
    found = localizations(path, columns, geometry, reading.base(FIRST_FRAME), unknown)
    return replace(found, notes=(*found.notes, *contradiction(reading.geometry, stated)))


def _word(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _pixel_nm(path: Path, meta: Mapping[str, Any]) -> float | None:
    stated = meta.get("px_size")
    if stated is None:
        return None
    sizes = np.broadcast_to(np.asarray(stated, np.float64).ravel(), 2)
    if abs(sizes[0] - sizes[1]) > 1e-6 * sizes[0]:
        raise InputError(
            f"{path} has pixels of {sizes[1]:g} by {sizes[0]:g} nm; sureloc knows square ones only."
        )
    return float(sizes[0])


def write(data: Localizations, path: Path) -> Written:
    """Write emitters for DECODE as HDF5, in nm.

    Raises:
        InputError: nothing tells the pixel size.
        OSError: the file cannot be written.
    """
    import h5py

    program = "DECODE's HDF5"
    values, notes = _values(data, program)
    pixel_nm = needed_pixel_nm(data.geometry, program, _WHY)
    with h5py.File(path, "w") as file:
        file.create_group("meta").attrs.update(
            {"xy_unit": "nm", "px_size": np.array([pixel_nm, pixel_nm])}
        )
        file.create_group("decode").attrs["version"] = f"sureloc {metadata.version('sureloc')}"
        group = file.create_group("data")
        for name, array in values.items():
            # DECODE's sign for "there is none".
            group.create_dataset(name, data=h5py.Empty("f") if array is None else array)
    return Written(len(data.table), notes)


_WHY = "DECODE stores it"


def write_csv(data: Localizations, path: Path) -> Written:
    """Write emitters for DECODE as CSV (arguments and errors as in `write`)."""
    program = "DECODE's CSV"
    values, notes = _values(data, program)
    pixel_nm = needed_pixel_nm(data.geometry, program, _WHY)
    rows = len(data.table)
    none = np.full(rows, np.nan)
    out: dict[str, npt.NDArray[Any]] = {}
    for name, array in values.items():
        kind = name.removeprefix("xyz")
        if name in _VECTORS:
            for axis, letter in enumerate("xyz"):
                out[letter + kind] = none if array is None else array[:, axis]
        else:
            out[name] = none if array is None else array
    comments = (
        CSV_MARK,
        "# " + json.dumps({"version": f"sureloc {metadata.version('sureloc')}"}),
        "# " + json.dumps({"xy_unit": "nm", "px_size": [pixel_nm, pixel_nm]}),
    )
    write_columns(path, "\n".join((*comments, ",".join(out))), list(out.values()))
    return Written(rows, notes)


def _values(
    data: Localizations, program: str
) -> tuple[dict[str, npt.NDArray[Any] | None], tuple[str, ...]]:
    """Give DECODE's arrays in nm, None for what is not known, and what is left out."""
    table = data.table
    check_one_draw(table, program)
    needed_pixel_nm(data.geometry, program, _WHY)
    rows = len(table)
    held = [name for names in (*_VECTORS.values(), _SCALARS.values()) for name in names]
    values: dict[str, npt.NDArray[Any] | None] = {}
    for name, ours in _VECTORS.items():
        values[name] = None
        if any(column in table for column in ours[:2]):
            # A flat sample lies at z = 0, with an uncertainty that nobody knows.
            absent = np.full(rows, 0.0 if name == "xyz" else np.nan)
            axes = [table[c].to_numpy(float) if c in table else absent for c in ours]
            values[name] = np.stack(axes, axis=1) ** (2 if name == "xyz_cr" else 1)
    for name, column in _SCALARS.items():
        values[name] = table[column].to_numpy() if column in table else None
        if name.endswith("_cr") and values[name] is not None:
            values[name] = table[column].to_numpy() ** 2
    # DECODE stores these four in any case.
    notes = left_out(table, held, program)
    for name, stand_in in (("phot", 0.0), ("bg", np.nan), ("prob", 1.0)):
        if values[name] is None:
            values[name] = np.full(rows, stand_in)
            notes += (f"Nothing is known for {name}, which {program} needs: {stand_in} stands.",)
    values["id"] = np.arange(rows)
    return values, notes
