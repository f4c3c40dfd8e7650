"""Movies as lazy arrays on napari's canvas, in nanometres."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from sureloc.io.movies import Movie, open_movie

# (data, settings, kind of layer), as napari's plugins hand layers over
LayerData = tuple[Any, dict[str, Any], str]

UNKNOWN_PIXEL_NM = 100.0  # the one that `sureloc localize` takes
ABOUT = "sureloc"  # key under which a layer's metadata say what it is
AXES = ("frame", "y", "x")
UNITS = ("pixel", "nanometer", "nanometer")
_CHUNK_BYTES = 2**22
_DARKEST, _BRIGHTEST = 0.1, 99.9  # percentiles of one frame, between which grey goes


class LazyFrames:
    """An open movie that looks like an array; it is closed when nobody needs it any more.

    Attributes:
        shape: frames, rows, columns.
        dtype: of the values.
        ndim: 3.
    """

    def __init__(self, movie: Movie) -> None:
        self._movie = movie
        self.shape = movie.shape
        self.dtype = movie.dtype
        self.ndim = 3
        weakref.finalize(self, movie.close)

    def __getitem__(self, part: tuple[slice | int, ...]) -> npt.NDArray[Any]:
        # dask asks for no more than is looked at: slices, and single frames by their number.
        frames, *inside = part
        wanted = np.arange(self.shape[0])[frames]
        first = int(wanted.min(initial=self.shape[0] - 1))
        last = int(wanted.max(initial=first - 1)) + 1
        chunk = self._movie.read(first, last)
        return chunk[wanted - first][(..., *inside)]


def movie_layer(path: str | Path) -> LayerData:
    """Give a movie as a lazy image layer, one slider step a frame.

    Args:
        path: any movie that `sureloc.io.movies.open_movie` reads.

    Returns:
        A dask array (frames, rows, columns) that is read as it is looked at, with settings.

    Raises:
        MovieError: the movie cannot be read.
    """
    movie = open_movie(path)
    frames, height, width = movie.shape
    try:
        limits = grey_limits(movie.read(frames // 2, frames // 2 + 1))
    except BaseException:
        movie.close()
        raise
    at_once = max(1, min(frames, _CHUNK_BYTES // (height * width * movie.dtype.itemsize)))
    array = da.from_array(
        LazyFrames(movie),
        chunks=(at_once, height, width),
        name=False,
        fancy=False,
        meta=np.empty((0, 0, 0), movie.dtype),
    )
    pixel_nm = movie.pixel_nm or UNKNOWN_PIXEL_NM
    about = {
        "movie": str(Path(path).resolve()),
        "pixel_nm": pixel_nm,
        "pixel_is_known": movie.pixel_nm is not None,
    }
    return (
        array,
        {
            "name": Path(path).name,
            "scale": (1.0, pixel_nm, pixel_nm),
            "contrast_limits": limits,
            # A slice of many frames shows one of them: a mean would read the whole movie.
            "projection_mode": "none",
            "colormap": "gray",
            "axis_labels": AXES,
            "units": UNITS,
            "metadata": {ABOUT: about},
        },
        "image",
    )


def grey_limits(frame: npt.NDArray[Any]) -> tuple[float, float]:
    """Give values for black and white that a few hot pixels do not spoil."""
    low, high = (float(v) for v in np.percentile(frame, (_DARKEST, _BRIGHTEST)))
    return low, high if high > low else low + 1.0
