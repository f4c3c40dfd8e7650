"""Movies that are numbers alone, with a text file beside them: Picasso's `.raw` and `.dax`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sureloc.errors import MovieError
from sureloc.io.frame_source import (
    COPY_AGAIN,
    Acquisition,
    Frames,
    PixelSize,
    milliseconds,
    name_or_none,
    pixel_size,
)


class RawSource:
    """Frames of one size, one after the other, without a header."""

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        stored: np.dtype[Any],
        pixels: PixelSize,
        acquisition: Acquisition | None = None,
    ) -> None:
        """Open a file.

        Args:
            path: the file.
            shape: frames, rows, columns.
            stored: type of the values as they are stored, with their byte order.
            pixels: their size.
            acquisition: how the movie was taken.

        Raises:
            MovieError: the file's size is not the one of so many frames.
        """
        self._path = path
        self._stored = stored
        self.frames, self.height, self.width = shape
        self.dtype = stored.newbyteorder("=")
        self.pixel_size = pixels
        self.acquisition = acquisition or Acquisition()
        needed = self.frames * self._frame_bytes
        size = path.stat().st_size
        if min(shape) < 1 or size != needed:
            raise MovieError(
                f"{path} has {size} bytes but the file beside it announces {self.frames} frames of "
                f"{self.height} rows and {self.width} columns, which take {needed}. {COPY_AGAIN}"
            )
        self._file = path.open("rb")

    @property
    def _frame_bytes(self) -> int:
        return self.height * self.width * self._stored.itemsize

    def read(self, first: int, last: int) -> Frames:
        """Give frames first..last - 1."""
        self._file.seek(first * self._frame_bytes)
        raw = self._file.read((last - first) * self._frame_bytes)
        if len(raw) != (last - first) * self._frame_bytes:
            raise MovieError(f"{self._path} became shorter while it was read. {COPY_AGAIN}")
        values = np.frombuffer(raw, self._stored).reshape(-1, self.height, self.width)
        return values.astype(self.dtype, copy=False)

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def _beside(path: Path, suffix: str, program: str) -> str:
    """Read the text file that describes a movie."""
    place = path.with_suffix(suffix)
    try:
        return place.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise MovieError(
            f"{path} holds numbers alone; {program} writes their meaning to {place.name}, which "
            f"cannot be read ({error.strerror or error}). Copy it too."
        ) from error


def picasso_source(path: Path) -> RawSource:
    """Open Picasso's `.raw` by the `.yaml` beside it.

    Raises:
        MovieError: the YAML file is missing or incomplete, or the sizes do not agree.
    """
    text = _beside(path, ".yaml", "Picasso")
    try:
        steps = [step for step in yaml.safe_load_all(text) if isinstance(step, dict)]
        info = steps[0]
        shape = tuple(int(info[name]) for name in ("Frames", "Height", "Width"))
        stored = np.dtype(str(info["Data Type"])).newbyteorder(info.get("Byte Order", "<"))
    except (yaml.YAMLError, LookupError, TypeError, ValueError) as error:
        raise MovieError(
            f"{path.with_suffix('.yaml')} does not say what {path.name} holds ({error}); it needs "
            "Frames, Height, Width and Data Type."
        ) from error
    frames, height, width = shape
    pixel_nm = _number(info.get("Pixelsize"))
    exposure = milliseconds(info.get("Exposure-ms", info.get("Exposure")), "ms")
    return RawSource(
        path,
        (frames, height, width),
        stored,
        pixel_size(pixel_nm, pixel_nm),
        Acquisition(exposure, name_or_none(info.get("Camera"))),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def dax_source(path: Path) -> RawSource:
    """Open a `.dax` of the Zhuang lab's programs by the `.inf` beside it.

    Raises:
        MovieError: the `.inf` file is missing or incomplete, or the sizes do not agree.
    """
    text = _beside(path, ".inf", "the acquisition program")

    def stated(pattern: str) -> re.Match[str] | None:
        return re.search(rf"^\s*{pattern}", text, re.IGNORECASE | re.MULTILINE)

    size = stated(r"frame dimensions\s*=\s*(\d+)\s*x\s*(\d+)")
    length = stated(r"number of frames\s*=\s*(\d+)")
    if size is None or length is None:
        raise MovieError(
            f"{path.with_suffix('.inf')} does not say what {path.name} holds; it needs lines "
            "'frame dimensions = COLUMNS x ROWS' and 'number of frames = N'."
        )
    bits = stated(r"data type\s*=\s*(\d+)")
    if bits is not None and bits[1] != "16":
        raise MovieError(f"{path} holds {bits[1]}-bit numbers; a .dax holds 16-bit ones.")
    # Without a word about it the order is little, as the lab's own readers take it.
    order = ">" if stated(r"data type\s*=[^\n]*\bbig endian") else "<"
    exposure = stated(r"exposure time\s*=\s*([\d.eE+-]+)")
    camera = stated(r"camera head\s*=\s*([^\n]*)")
    return RawSource(
        path,
        (int(length[1]), int(size[2]), int(size[1])),
        np.dtype(f"{order}u2"),
        PixelSize(),
        Acquisition(
            milliseconds(exposure[1], "s") if exposure else None,
            name_or_none(camera[1]) if camera else None,
        ),
    )
