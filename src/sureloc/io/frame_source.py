"""What a format of movies has to answer, and what all of them need to answer it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from sureloc.errors import MovieError

Frames = npt.NDArray[Any]
_T = TypeVar("_T")
_SQUARE = 0.01  # share by which sides of a square may differ
COPY_AGAIN = "Copy or export the movie again."
_NM_PER_UNIT = {
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "um": 1e3,
    "µm": 1e3,  # U+00B5, the micro sign
    "μm": 1e3,  # U+03BC, the Greek letter
    "\\u00b5m": 1e3,  # ImageJ writes the escape sequence itself
    "micron": 1e3,
    "microns": 1e3,
    "micrometer": 1e3,
    "micrometre": 1e3,
    "mm": 1e6,
    "millimeter": 1e6,
    "millimetre": 1e6,
    "m": 1e9,
    "meter": 1e9,
    "metre": 1e9,
}

_MS_PER_UNIT = {
    "ns": 1e-6,
    "us": 1e-3,
    "µs": 1e-3,  # U+00B5, the micro sign
    "μs": 1e-3,  # U+03BC, the Greek letter
    "ms": 1.0,
    "s": 1e3,
    "sec": 1e3,
    "min": 6e4,
}


@dataclass(frozen=True)
class Acquisition:
    """How a movie was taken, as far as its file tells; None where it does not.

    Attributes:
        exposure_ms: exposure time of a frame, ms.
        camera_name: the camera's name or model.
    """

    exposure_ms: float | None = None
    camera_name: str | None = None


@dataclass(frozen=True)
class PixelSize:
    """How large a file says that pixels are in the sample, nm; None where it does not say it.

    Attributes:
        x_nm, y_nm: along columns and rows; both or none.
    """

    x_nm: float | None = None
    y_nm: float | None = None

    @property
    def square_nm(self) -> float | None:
        """The size of square pixels, None where it is not stated or they are not square."""
        return None if self.oblong_nm else self.x_nm

    @property
    def oblong_nm(self) -> tuple[float, float] | None:
        """The sizes along x and y of pixels that are not square, None of any others."""
        if self.x_nm is None or self.y_nm is None:
            return None
        different = abs(self.x_nm - self.y_nm) >= _SQUARE * self.x_nm
        return (self.x_nm, self.y_nm) if different else None


class FrameSource(Protocol):
    """What a file format has to answer; `sureloc.io.movies.Movie` does the rest."""

    frames: int
    height: int
    width: int
    dtype: np.dtype[Any]
    pixel_size: PixelSize
    acquisition: Acquisition

    def read(self, first: int, last: int) -> Frames:
        """Give frames first..last - 1, shape (last - first, height, width)."""
        ...

    def close(self) -> None:
        """Release every file handle."""
        ...


def frame_axis(path: Path, axes: Sequence[str], shape: Sequence[int], frame_axes: str) -> int:
    """Give the number of frames, or refuse what is no stack of single-channel frames.

    Args:
        path: for messages.
        axes: one letter per axis, rows Y and columns X last.
        shape: their lengths.
        frame_axes: the letters that may count frames in this format.
    """
    if list(axes[-2:]) != ["Y", "X"]:
        raise MovieError(
            f"{path} has the axes {''.join(axes)} of lengths {tuple(shape)}; rows (Y) and columns "
            "(X) must come last and colours (S) are not possible. Save it as a grey-scale stack."
        )
    long = {axis: n for axis, n in zip(axes[:-2], shape[:-2], strict=True) if n != 1}
    if len(long) > 1 or any(axis not in frame_axes for axis in long):
        names = {"C": "channels", "Z": "planes", "S": "colours", "R": "positions", "P": "positions"}
        held = ", ".join(f"{n} {names.get(axis, f'along {axis}')}" for axis, n in long.items())
        raise MovieError(
            f"{path} holds {held} (axes {''.join(axes)}); a movie needs one channel, one plane and "
            "one position over time. Export the one to be localized as a stack of its own."
        )
    # An axis of length 0 stays in `long`, so an empty movie is seen as such.
    return next(iter(long.values()), 1)


def pixel_size(x_nm: float | None, y_nm: float | None) -> PixelSize:
    """Give the pixel size that a file states, nothing unless both are finite and larger than 0."""
    if x_nm is None or y_nm is None or not all(np.isfinite(v) and v > 0 for v in (x_nm, y_nm)):
        return PixelSize()
    return PixelSize(float(x_nm), float(y_nm))


def length_nm(value: object, unit: object) -> float | None:
    """Give a length in nm, or None where its value is no number or its unit unknown."""
    factor = _NM_PER_UNIT.get(str(unit).strip().lower())
    try:
        return None if factor is None else float(str(value)) * factor
    except ValueError:
        return None


def milliseconds(value: object, unit: object) -> float | None:
    """Give a time in ms, or None where it is no positive number or its unit unknown."""
    factor = _MS_PER_UNIT.get(str(unit).strip().lower())
    try:
        time = None if factor is None else float(str(value)) * factor
    except ValueError:
        return None
    return time if time is not None and np.isfinite(time) and time > 0 else None


def first_known(values: Iterable[_T | None]) -> _T | None:
    """Give the first of some answers that is one."""
    return next((value for value in values if value is not None), None)


def name_or_none(value: object) -> str | None:
    """Give a name without spaces around it, or None where it says nothing."""
    text = "" if value is None else " ".join(str(value).split())
    return text or None
