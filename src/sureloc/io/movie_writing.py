"""Movies written for other programs, a chunk at a time: OME-TIFF and OME-Zarr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sureloc.errors import InputError
from sureloc.io.movies import TIFF_SUFFIXES, Movie
from sureloc.io.output import new_file, new_folder

ZARR_SUFFIX = ".zarr"
_ENDINGS = (".ome.tif", ".ome.tiff", ".ome.zarr")
# Classic TIFF counts bytes in 32 bits; besides its pixels a frame takes a page header.
_CLASSIC_TIFF_BYTES = 2**32 - 2**25
_PAGE_HEADER_BYTES = 512
_CHUNK_BYTES = 2**22  # of a zarr chunk: few files, and a frame is read without reading many


def is_movie_name(path: Path) -> bool:
    """Tell whether a new file of this name would be a movie."""
    return path.suffix.lower() in (*TIFF_SUFFIXES, ZARR_SUFFIX)


def check_movie_name(path: Path) -> None:
    """Raise `InputError` unless a movie can be written to a file of this name."""
    if path.name.lower().endswith(_ENDINGS):
        return
    suffix = path.suffix.lower() if is_movie_name(path) else ".tif"
    raise InputError(
        f"A movie is written as .ome.tif or .ome.zarr, and {path.name} ends otherwise; call it "
        f"{path.name.split('.')[0]}.ome{suffix}."
    )


def write_movie(
    movie: Movie,
    path: Path,
    pixel_nm: float | None = None,
    progress: Callable[[int], None] = lambda _frames: None,
) -> None:
    """Write a movie as OME-TIFF or OME-Zarr, whole or not at all.

    Args:
        movie: the movie; memory holds a few of its frames.
        path: the new `.ome.tif` or `.ome.zarr`.
        pixel_nm: pixel size, nm; None leaves it unsaid.
        progress: called with a number of frames when so many more are written.

    Raises:
        InputError: the name ends otherwise, or the file exists.
        MovieError: a frame cannot be read.
        OutputError: the movie cannot be written; nothing is left of it.
    """
    check_movie_name(path)
    if path.suffix.lower() == ZARR_SUFFIX:
        with new_folder(path) as partial:
            _write_ome_zarr(movie, partial, pixel_nm, progress)
    else:
        with new_file(path) as partial:
            _write_ome_tiff(movie, partial, pixel_nm, progress)


def _write_ome_tiff(
    movie: Movie, path: Path, pixel_nm: float | None, progress: Callable[[int], None]
) -> None:
    import tifffile

    metadata: dict[str, Any] = {"axes": "TYX"}
    options: dict[str, Any] = {}
    if pixel_nm is not None:
        for axis in "XY":
            metadata[f"PhysicalSize{axis}"] = pixel_nm * 1e-3
            metadata[f"PhysicalSize{axis}Unit"] = "µm"
        options = {"resolution": (1e7 / pixel_nm,) * 2, "resolutionunit": "CENTIMETER"}
    if movie.exposure_ms is not None:
        metadata["Plane"] = {
            "ExposureTime": [movie.exposure_ms] * movie.frames,
            "ExposureTimeUnit": ["ms"] * movie.frames,
        }
    pixels = movie.height * movie.width * movie.dtype.itemsize
    big = movie.frames * (pixels + _PAGE_HEADER_BYTES) > _CLASSIC_TIFF_BYTES
    with tifffile.TiffWriter(path, ome=True, bigtiff=big) as tif:
        data: Any = _frames(movie, progress)  # tifffile's types know encoded bytes only
        tif.write(
            data,
            shape=movie.shape,
            dtype=movie.dtype,
            photometric="minisblack",
            software="sureloc",
            metadata=metadata,
            **options,
        )


def _frames(movie: Movie, progress: Callable[[int], None]) -> Iterator[npt.NDArray[Any]]:
    for _, chunk in movie.chunks(_chunk_frames(movie)):
        yield from chunk
        progress(len(chunk))


def _chunk_frames(movie: Movie) -> int:
    frame_bytes = movie.height * movie.width * movie.dtype.itemsize
    return min(movie.frames, max(1, _CHUNK_BYTES // frame_bytes))


def _write_ome_zarr(
    movie: Movie, path: Path, pixel_nm: float | None, progress: Callable[[int], None]
) -> None:
    """Write OME-Zarr 0.4 (zarr format 2), the version that Bio-Formats, Fiji and QuPath read."""
    import zarr

    depth = _chunk_frames(movie)
    group = zarr.create_group(store=str(path), zarr_format=2, overwrite=True)
    array = group.create_array(
        "0",
        shape=movie.shape,
        chunks=(depth, movie.height, movie.width),
        dtype=np.dtype(movie.dtype).newbyteorder("<"),
        chunk_key_encoding={"name": "v2", "separator": "/"},
        fill_value=0,
    )
    for first, chunk in movie.chunks(depth):
        array[first : first + len(chunk)] = chunk
        progress(len(chunk))
    scale = 1.0 if pixel_nm is None else pixel_nm
    space: dict[str, Any] = {"type": "space"} | ({} if pixel_nm is None else {"unit": "nanometer"})
    transform = {"type": "scale", "scale": [1.0, scale, scale]}
    image: dict[str, Any] = {
        "version": "0.4",
        "name": movie.path.name,
        "axes": [{"name": "t", "type": "time"}, {"name": "y", **space}, {"name": "x", **space}],
        "datasets": [{"path": "0", "coordinateTransformations": [transform]}],
    }
    group.attrs["multiscales"] = [image]
