"""Picasso's localizations (Schnitzbauer et al. 2017): HDF5 with a YAML file beside it.

One compound dataset `/locs`, frames from 0, (0, 0) at the CENTRE of the first pixel, x, y, their
errors and the widths of spots in camera pixels, z in nm. What was done is a list of mappings, in
the YAML file and, since Picasso 0.9, as JSON in `/metadata`. Picasso drops every row with a number
that is not finite in any column, and every row outside the frame (`refused`).
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
import pandas as pd
import yaml

from sureloc.errors import InputError
from sureloc.io.exchange.localizations import (
    Geometry,
    Localizations,
    Reading,
    Written,
    check_one_draw,
    contradiction,
    keep_rows,
    lateral,
    left_out,
    localizations,
    needed_pixel_nm,
    stated_region,
    with_psf_width,
)

PROGRAM = "Picasso"
FIRST_FRAME = 0
_WHY = "Picasso counts in pixels"
_IN_PIXELS = {
    "x": "x_nm",
    "y": "y_nm",
    "lpx": "sigma_x_nm",
    "lpy": "sigma_y_nm",
    "sx": "psf_sigma_x_nm",
    "sy": "psf_sigma_y_nm",
}
_AS_THEY_ARE = {
    "frame": "frame",
    "z": "z_nm",
    "lpz": "sigma_z_nm",
    "photons": "photons",
    "bg": "background_photons",
    "net_gradient": "net_gradient",
    "n": "rows",
    "sigma_photons": "sigma_photons",
    "p_exists": "p_exists",
    "trusted": "trusted",
}
NAMES = {**_IN_PIXELS, **_AS_THEY_ARE}
_DERIVED = ("ellipticity",)
_STEPS = "picasso"  # in a table's provenance: what was done, as Picasso's files say it
# Of a molecule: frames from its first to its last one, dark ones between them included.
_LENGTH = "len"
# What Picasso keeps without knowing it: first and last + 1 of the part that was localized.
_ROWS, _COLUMNS = "Localized rows", "Localized columns"
# Between which limits Picasso's whole numbers lie, those of its own files' types.
_WHOLE_NUMBERS = {"frame": (0, 2**32 - 1), "n": (0, 2**31 - 1), _LENGTH: (0, 2**31 - 1)}
# Where Picasso refuses a negative value.
_NOT_NEGATIVE = ("lpx", "lpy", "lpz", "photons", "sx", "sy")


def read(path: Path, reading: Reading) -> Localizations:
    """Read localizations of Picasso.

    Raises:
        InputError: the file cannot be used, or nothing tells the pixel size.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            records = file["locs"][()]
            embedded = file["metadata"][()] if "metadata" in file else None
    except (OSError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read as Picasso's localizations ({error}). It must hold one table "
            "`locs`; copy or export it again."
        ) from error
    names = getattr(records.dtype, "names", None)
    if names is None or records.ndim != 1:
        raise InputError(f"`locs` in {path} is no table of Picasso's; it has no named columns.")
    steps = _steps(path, embedded)
    stated = _geometry(path, steps)
    geometry = reading.geometry.or_else(stated)
    pixel_nm = needed_pixel_nm(geometry, path, _WHY, reading.pixel_option)
    columns: dict[str, npt.NDArray[np.float64]] = {}
    for name in names:
        if records[name].dtype.kind not in "fiub":
            continue
        if name in _IN_PIXELS:
            columns[_IN_PIXELS[name]] = records[name].astype(np.float64) * pixel_nm
        elif name in _AS_THEY_ARE:
            columns[_AS_THEY_ARE[name]] = records[name].astype(np.float64)
    if _LENGTH in names and "frame" in columns:
        columns["last_frame"] = columns["frame"] + records[_LENGTH].astype(np.float64) - 1
    known = {*_IN_PIXELS, *_AS_THEY_ARE, *_DERIVED, _LENGTH}
    unknown = [name for name in names if name not in known]
    found = localizations(path, columns, geometry, reading.base(FIRST_FRAME), unknown)
    notes = (*found.notes, *contradiction(reading.geometry, stated))
    return replace(found, notes=notes, provenance={_STEPS: steps} if steps else {})


def _steps(path: Path, embedded: object) -> list[dict[str, Any]]:
    """Give what was done, first step first, from the file itself or from the YAML beside it."""
    try:
        if embedded is not None:
            text = embedded.decode() if isinstance(embedded, bytes) else str(embedded)
            return _mappings(json.loads(text))
        beside = path.with_suffix(".yaml")
        if beside.is_file():
            read = list(yaml.safe_load_all(beside.read_text(encoding="utf-8")))
            # YAML knows dates, which JSON does not.
            return _mappings(json.loads(json.dumps(read, default=str)))
    except (ValueError, TypeError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"The metadata of {path} cannot be read ({error}).") from error
    return []


def _mappings(steps: object) -> list[dict[str, Any]]:
    if not isinstance(steps, list):
        return []
    return [dict(step) for step in steps if isinstance(step, Mapping)]


def _geometry(path: Path, steps: list[dict[str, Any]]) -> Geometry:
    def stated(key: str) -> Any:
        # As Picasso: a later step knows better.
        return next((step[key] for step in reversed(steps) if step.get(key)), None)

    def number(key: str, kind: type[int] | type[float]) -> Any:
        value = stated(key)
        try:
            return None if value is None else kind(value)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"The metadata of {path} say {key}: {value!r}, which is no number."
            ) from error

    region = stated(_ROWS), stated(_COLUMNS)
    return Geometry(
        pixel_nm=number("Pixelsize", float),
        width_px=number("Width", int),
        height_px=number("Height", int),
        frames=number("Frames", int),
        region_px=None if None in region else stated_region(region),
    )


def write(data: Localizations, path: Path) -> Written:
    """Write localizations for Picasso; `write_beside` writes the YAML file that belongs to them.

    Raises:
        InputError: nothing tells the pixel size or the uncertainty.
        OSError: the file cannot be written.
    """
    import h5py

    pixel_nm = needed_pixel_nm(data.geometry, PROGRAM, _WHY)
    table = with_psf_width(data.table, data.geometry)
    check_one_draw(table, PROGRAM)
    if lateral(table, "sigma_x_nm", "sigma_y_nm") is None:
        raise InputError(
            f"{PROGRAM} needs an uncertainty in every row and the table holds none. Give one for "
            "all of them to 'sureloc convert', for instance --uncertainty-nm 10."
        )
    columns, held = _columns(table, pixel_nm)
    geometry, notes = _whole_frame(columns, data.geometry)
    columns, extras = _finite_extras(columns)
    kept, refusals = keep_rows(columns, refused(columns, geometry), PROGRAM)
    records = np.empty(len(kept), [(name, _dtype(name)) for name in kept.columns])
    for name in kept.columns:
        records[name] = kept[name].to_numpy()
    info: dict[str, Any] = {
        "Generated by": f"sureloc {metadata.version('sureloc')}",
        "Width": geometry.width_px,
        "Height": geometry.height_px,
        "Frames": geometry.frames,
        "Pixelsize": float(pixel_nm),
    }
    if geometry.region_px is not None:
        info |= dict(zip((_ROWS, _COLUMNS), map(list, geometry.region_px), strict=True))
    with h5py.File(path, "w") as file:
        file.create_dataset("locs", data=records)
        file.create_dataset("metadata", data=json.dumps(_with_step(data.provenance, info)))
    held = [name for name in held if name not in extras]
    return Written(len(kept), (*refusals, *notes, *left_out(table, held, PROGRAM)))


def _with_step(provenance: Mapping[str, Any], info: dict[str, Any]) -> list[dict[str, Any]]:
    """Give what Picasso's programs did to the table before, and this step."""
    earlier = _mappings(provenance.get(_STEPS))
    if earlier:
        # Some of Picasso's functions look into the first step alone.
        needed = {key: info[key] for key in ("Width", "Height", "Frames")}
        earlier[0] = needed | earlier[0]
    return [*earlier, info]


def write_beside(path: Path, beside: Path) -> None:
    """Write the YAML file that belongs to a file of Picasso: the metadata that are in it already.

    Raises:
        OSError: the file cannot be written.
    """
    import h5py

    with h5py.File(path, "r") as file:
        steps = _steps(path, file["metadata"][()])
    beside.write_text(yaml.safe_dump_all(steps, sort_keys=False), encoding="utf-8")


def refused(columns: pd.DataFrame, geometry: Geometry) -> dict[str, npt.NDArray[np.bool_]]:
    """Say which rows Picasso drops when it opens a file, or cannot hold, and why.

    Args:
        columns: Picasso's columns, in pixels.
        geometry: the camera frame, with width and height.
    """
    stored = [columns[name].to_numpy(np.float64) for name in columns]
    with np.errstate(over="ignore"):  # what 32 bits cannot hold is infinite to Picasso
        finite = [
            np.isfinite(values.astype(_dtype(name)) if _dtype(name) is np.float32 else values)
            for name, values in zip(map(str, columns), stored, strict=True)
        ]
    negative = columns[[n for n in _NOT_NEGATIVE if n in columns]].to_numpy(np.float64) < 0
    return {
        "a value that is not finite": ~np.all(finite, axis=0),
        **{
            f"{name} beyond {low} to {high}": (columns[name] < low).to_numpy()
            | (columns[name] > high).to_numpy()
            for name, (low, high) in _WHOLE_NUMBERS.items()
            if name in columns
        },
        "x < 0 (left of the centre of the first column)": columns["x"].to_numpy() < 0,
        "y < 0 (above the centre of the first row)": columns["y"].to_numpy() < 0,
        f"x >= {geometry.width_px} (Width)": columns["x"].to_numpy() >= (geometry.width_px or 0),
        f"y >= {geometry.height_px} (Height)": columns["y"].to_numpy() >= (geometry.height_px or 0),
        "a negative uncertainty, width or number of photons": negative.any(axis=1),
    }


def _columns(table: pd.DataFrame, pixel_nm: float) -> tuple[pd.DataFrame, list[str]]:
    out: dict[str, npt.NDArray[Any]] = {"frame": table["frame"].to_numpy()}
    held = ["frame"]
    for name in ("x", "y", "photons", "sx", "sy", "bg", "lpx", "lpy", "z", "lpz"):
        ours = _IN_PIXELS.get(name) or _AS_THEY_ARE[name]
        if ours in table:
            scale = pixel_nm if name in _IN_PIXELS else 1.0
            out[name] = table[ours].to_numpy(float) / scale
            held.append(ours)
    for missing, other in (("lpx", "lpy"), ("lpy", "lpx"), ("sx", "sy"), ("sy", "sx")):
        if missing not in out and other in out:
            out[missing] = out[other]
    if "sx" in out:
        wide, narrow = np.maximum(out["sx"], out["sy"]), np.minimum(out["sx"], out["sy"])
        out["ellipticity"] = np.divide(wide - narrow, wide, out=np.zeros_like(wide), where=wide > 0)
    for name in ("net_gradient", "n", "sigma_photons", "p_exists", "trusted"):
        if _AS_THEY_ARE[name] in table:
            out[name] = table[_AS_THEY_ARE[name]].to_numpy(float)
            held.append(_AS_THEY_ARE[name])
    if "last_frame" in table:
        out[_LENGTH] = (table["last_frame"] - table["frame"] + 1).to_numpy(float)
        held.append("last_frame")
    return pd.DataFrame(out), held


def _finite_extras(columns: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Leave out what Picasso does not need and what would cost rows by not being finite."""
    bad = [
        name
        for name in ("net_gradient", "sigma_photons", "p_exists")
        if name in columns and not np.isfinite(columns[name]).all()
    ]
    return columns.drop(columns=bad), [_AS_THEY_ARE[name] for name in bad]


def _whole_frame(columns: pd.DataFrame, geometry: Geometry) -> tuple[Geometry, tuple[str, ...]]:
    """Fill what is not known of the frame from the rows, and say so."""
    found: dict[str, Any] = {}
    for name, axis in (("width_px", "x"), ("height_px", "y")):
        values = columns[axis].to_numpy(np.float64)
        last = values[np.isfinite(values)].max(initial=0.0)
        found[name] = max(1, int(np.floor(last)) + 1)
    frame = columns["frame"].to_numpy()
    last_frame = int(frame[frame <= _WHOLE_NUMBERS["frame"][1]].max(initial=0))
    found["frames"] = last_frame + 1
    lacking = [name for name in found if getattr(geometry, name) is None]
    notes: tuple[str, ...] = ()
    if lacking:
        words = ", ".join(f"{name.removesuffix('_px')} {found[name]}" for name in lacking)
        notes = (
            f"Nothing tells the size of the movie; what holds all rows was taken: {words}. "
            "--width-px, --height-px and --movie-frames say it better.",
        )
    return geometry.or_else(Geometry(**found)), notes


def _dtype(name: str) -> type[np.generic]:
    if name in _WHOLE_NUMBERS:
        return np.uint32 if name == "frame" else np.int32
    # Picasso itself uses float32, which is 0.002 nm at pixel 500; it reads either.
    return np.float64 if name in ("x", "y") else np.float32
