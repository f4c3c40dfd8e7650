"""Camera files: YAML, `.npz`, and the sCMOS calibrations that Picasso writes.

A camera file says what `sureloc.camera.Camera` holds. Maps are stored in the orientation of the
frames, (rows, columns). Nothing in a file is executed: YAML is loaded safely, pickles are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from sureloc.camera import BY_TYPE, ROUNDING_VARIANCE_ADU2, Camera
from sureloc.errors import CameraError, decimal_point, did_you_mean
from sureloc.io.paths import check_camera_exists

_MAPS = ("offset_adu", "gain_adu_per_e", "variance_adu2")
_SCALARS = ("quantum_efficiency", "em_gain", "saturation_adu")
_KNOWN_FORMATS = "a YAML file (.yaml, .yml), .npz, or Picasso's calibration (.hdf5, .h5)"
_PICASSO_NAMES = {"offset_adu": "offset", "gain_adu_per_e": "gain", "variance_adu2": "variance"}


class CameraFile(BaseModel):
    """The keys of a camera's YAML file; they are the fields of `sureloc.camera.Camera`.

    A map is a path relative to the YAML file: `.npy`, `.tif`, or `file.npz#name` and
    `file.hdf5#name` for one array of several. Without `saturation_adu` it is the largest value that
    the movie's type can hold; null means that there is none.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    offset_adu: float | int | str
    gain_adu_per_e: float | int | str
    variance_adu2: float | int | str
    quantum_efficiency: float | int = 1.0
    em_gain: float | int = 1.0
    saturation_adu: int | None = None


def read_camera(path: str | Path) -> Camera:
    """Read a camera file.

    Args:
        path: a YAML file with the keys of `CameraFile`; an `.npz` with the arrays `offset_adu`,
            `gain_adu_per_e` and `variance_adu2` (and, if wanted, the other fields of `Camera`);
            or a `.hdf5` that Picasso calls `*_scmos_calib.hdf5`, with `offset` (ADU), `variance`
            (ADU^2, of a dark movie in whole ADU) and `gain` (ADU per electron).

    Raises:
        CameraError: the file is missing, damaged, of unknown format, lacks a quantity, holds an
            unknown one, or a value is impossible.
    """
    path = Path(path)
    check_camera_exists(path)
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return _read_yaml(path)
    if suffix == ".npz":
        return _read_npz(path)
    if suffix in (".hdf5", ".h5"):
        return _read_picasso(path)
    raise CameraError(
        f"The camera file {path} has the unknown extension {suffix or '(none)'!r}; sureloc reads "
        f"{_KNOWN_FORMATS}."
    )


def write_camera(camera: Camera, path: str | Path) -> None:
    """Write a camera so that `read_camera` gives it back.

    Args:
        camera: the camera.
        path: `.npz` for any camera (maps are kept as float64); `.yaml` for one without maps.

    Raises:
        CameraError: the extension is another one, or a camera with maps is to become YAML.
    """
    path = Path(path)
    fields = _stated(camera)
    if path.suffix.lower() == ".npz":
        # Without a saturation there is no number to store; its absence says so.
        arrays: dict[str, Any] = {k: np.asarray(-1 if v is None else v) for k, v in fields.items()}
        np.savez_compressed(path, **arrays)
    elif path.suffix.lower() in (".yaml", ".yml"):
        if camera.shape is not None:
            raise CameraError(
                f"A camera with maps of shape {camera.shape} cannot be written to {path}; write it "
                "as .npz."
            )
        path.write_text(yaml.safe_dump(fields, sort_keys=False), encoding="utf-8")
    else:
        raise CameraError(f"A camera cannot be written to {path}; use .npz or .yaml.")


def write_camera_with_maps(camera: Camera, path: Path) -> tuple[Path, ...]:
    """Write any camera as YAML that names its maps, which go beside it into `<stem>_maps.npz`.

    Returns:
        The files, the YAML first; the maps are missing where all is numbers.
    """
    fields = _stated(camera)
    maps = path.with_name(f"{path.stem}_maps.npz")
    arrays: dict[str, Any] = {k: v for k, v in fields.items() if isinstance(v, np.ndarray)}
    written = {
        name: f"{maps.name}#{name}" if name in arrays else value for name, value in fields.items()
    }
    if arrays:
        np.savez_compressed(maps, **arrays)
    path.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    return (path, maps) if arrays else (path,)


def _stated(camera: Camera) -> dict[str, Any]:
    """Give a camera's values by name; a saturation that nobody states is left out."""
    fields = {name: getattr(camera, name) for name in (*_MAPS, *_SCALARS)}
    if fields["saturation_adu"] == BY_TYPE:
        del fields["saturation_adu"]
    return fields


def write_picasso_camera(
    camera: Camera, shape: tuple[int, int], path: Path, metadata: Mapping[str, Any]
) -> None:
    """Write a camera as the sCMOS calibration that Picasso reads (`*_scmos_calib.hdf5`).

    Args:
        camera: its maps are written as float32; saturation, quantum efficiency and electron
            multiplication have no place there. Picasso's variance is that of a dark movie, the
            rounding to whole ADU included, which `Camera` leaves out.
        shape: (rows, columns) of the frames, over which numbers are spread.
        path: the file.
        metadata: further plain values that Picasso shows.
    """
    import h5py

    rows, columns = shape
    facts = {"Height": rows, "Width": columns, **metadata}
    with h5py.File(path, "w") as file:
        for field, name in _PICASSO_NAMES.items():
            values = np.asarray(getattr(camera, field))
            if field == "variance_adu2":
                values = values + ROUNDING_VARIANCE_ADU2
            spread = np.broadcast_to(values, shape)
            file.create_dataset(name, data=spread.astype(np.float32))
        file.attrs["metadata"] = json.dumps(facts, ensure_ascii=False)


def _read_yaml(path: Path) -> Camera:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CameraError(f"The camera file {path} is no YAML: {error}") from error
    if content is None:
        raise CameraError(
            f"The camera file {path} is empty; it must hold {', '.join(_MAPS)}, and may hold "
            f"{', '.join(_SCALARS)}."
        )
    if not isinstance(content, dict):
        raise CameraError(
            f"The camera file {path} holds a {type(content).__name__}; it must hold keys and "
            f"values: {', '.join((*_MAPS, *_SCALARS))}."
        )
    _check_keys(path, content)
    try:
        parsed = CameraFile.model_validate(content)
    except ValidationError as error:
        names = dict.fromkeys(str(problem["loc"][0]) for problem in error.errors())
        problems = (
            f"{name} is {content[name]!r}{decimal_point(str(content[name]))}, {_wanted(name)} is "
            "needed"
            for name in names
        )
        raise CameraError(f"The camera file {path} cannot be used: {'; '.join(problems)}.") from (
            error
        )
    # What the file leaves out is the camera's own default.
    values = parsed.model_dump(exclude_unset=True)
    for name in _MAPS:
        if isinstance(values[name], str):
            values[name] = _read_map(path.parent / values[name], name)
    return Camera(**values)


def _check_keys(path: Path, keys: Iterable[object]) -> None:
    known = (*_MAPS, *_SCALARS)
    names = [str(key) for key in keys]
    unknown = [f"{name}{did_you_mean(name, known)}" for name in sorted(set(names) - set(known))]
    missing = [name for name in _MAPS if name not in names]
    if unknown or missing:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing)
        parts += [f"holds the unknown {', '.join(unknown)}"] * bool(unknown)
        raise CameraError(
            f"The camera file {path} {' and '.join(parts)}; it must hold {', '.join(_MAPS)} and "
            f"may hold {', '.join(_SCALARS)}."
        )


def _wanted(name: str) -> str:
    if name == "saturation_adu":
        return "a whole number or null"
    return "a number or the path of a map" if name in _MAPS else "a number"


def _read_map(path: Path, name: str) -> npt.NDArray[np.float64]:
    """Read one map named in a YAML file: `.npy`, `.tif`, or `file#array`."""
    file_name, _, key = path.name.partition("#")
    file = path.with_name(file_name)
    if point := decimal_point(path.name):
        raise CameraError(f"{name} is {path.name!r}{point}; a number or a map is needed.")
    if not file.is_file():
        raise CameraError(f"{name} names the map {file}, which does not exist.")
    suffix = file.suffix.lower()
    try:
        if suffix == ".npy":
            array = np.load(file, allow_pickle=False)
        elif suffix in (".tif", ".tiff"):
            import tifffile

            array = tifffile.imread(file)
        elif suffix == ".npz":
            array = _pick(_load_npz(file), key, file, name)
        elif suffix in (".hdf5", ".h5"):
            array = _pick(_load_hdf5(file), key, file, name)
        else:
            raise CameraError(
                f"{name} names the map {file}; maps are .npy, .tif, file.npz#name or "
                "file.hdf5#name."
            )
    except CameraError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise CameraError(f"The map {file} of {name} cannot be read ({error}).") from error
    return _real(np.asarray(array), name, file)


def _pick(arrays: dict[str, npt.NDArray[Any]], key: str, file: Path, name: str) -> npt.NDArray[Any]:
    if not key and len(arrays) == 1:
        return next(iter(arrays.values()))
    if key not in arrays:
        raise CameraError(
            f"{name} names {file}{'#' + key if key else ''}; that file holds "
            f"{', '.join(arrays) or 'nothing'}. Write {file.name}#NAME with one of these."
        )
    return arrays[key]


def _real(array: npt.NDArray[Any], name: str, file: Path) -> npt.NDArray[np.float64]:
    if array.dtype.kind not in "uif":
        raise CameraError(
            f"{name} in {file} holds values of type {array.dtype}; numbers are needed."
        )
    return array.astype(np.float64)


def _load_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise CameraError(f"{path} is no .npz archive.")
            return {name: archive[name] for name in archive.files}
    except CameraError:
        raise
    except Exception as error:  # zipfile, zlib, pickle refusals, ...
        raise CameraError(f"The camera file {path} cannot be read ({error}).") from error


def _read_npz(path: Path) -> Camera:
    arrays = _load_npz(path)
    _check_keys(path, arrays)
    values: dict[str, Any] = {name: _real(arrays[name], name, path) for name in _MAPS}
    for name in _SCALARS:
        if name in arrays:
            values[name] = _scalar(arrays[name], name, path)
    if "saturation_adu" in values:
        saturation = int(values["saturation_adu"])
        values["saturation_adu"] = None if saturation == -1 else saturation
    return Camera(**values)


def _scalar(array: npt.NDArray[Any], name: str, path: Path) -> float:
    if array.size != 1:
        raise CameraError(f"{name} in {path} has shape {array.shape}; it must be one number.")
    return float(_real(array, name, path).reshape(()))


def _load_hdf5(path: Path) -> dict[str, npt.NDArray[Any]]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return {
                name: item[()]
                for name, item in file.items()
                if isinstance(item, h5py.Dataset) and item.dtype.kind in "uif"
            }
    except OSError as error:
        raise CameraError(f"The camera file {path} cannot be read as HDF5 ({error}).") from error


def _read_picasso(path: Path) -> Camera:
    arrays = _load_hdf5(path)
    for name in ("offset", "variance"):
        if name not in arrays:
            raise CameraError(
                f"{path} holds {', '.join(arrays) or 'no arrays'}; a calibration in Picasso's "
                "format holds offset, variance and gain."
            )
    if "gain" not in arrays:
        raise CameraError(
            f"{path} holds no gain, without which counts cannot become electrons. Write a YAML "
            f"file beside it with: offset_adu: {path.name}#offset, variance_adu2: "
            f"{path.name}#variance, gain_adu_per_e: (a number in ADU per electron)."
        )
    maps: dict[str, Any] = {
        field: _real(arrays[name], name, path) for field, name in _PICASSO_NAMES.items()
    }
    # The variance of whole numbers has that of rounding in it, which `Camera` adds itself.
    maps["variance_adu2"] = np.maximum(maps["variance_adu2"] - ROUNDING_VARIANCE_ADU2, 0.0)
    return Camera(**maps)
