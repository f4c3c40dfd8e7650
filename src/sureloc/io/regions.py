"""Parts of a movie or of a table as people write them, read without loading any library."""

from __future__ import annotations

import re

from sureloc.errors import InputError

MIN_SIDE_PX = 8
_WHOLE = re.compile(r"\s*(\d*)\s*:\s*(\d*)\s*")
_RANGE = r"\s*(-?[\d.]+)\s*:\s*(-?[\d.]+)\s*"
_RECTANGLE = re.compile(rf"{_RANGE},{_RANGE}(nm)?\s*")


def parse_region(text: str, shape: tuple[int, int] | None = None) -> tuple[slice, slice]:
    """Turn "y0:y1,x0:x1" into slices of rows and columns.

    Args:
        text: pixel indices counted from 0, the ends excluded; an empty end means the frame's edge.
        shape: (rows, columns) of the whole frame; None while it is not known.

    Raises:
        InputError: the text has another form, or the region is empty, too small or outside.
    """
    parts = text.split(",")
    height, width = shape or (None, None)
    if len(parts) != 2:
        whole = f"0:{height},0:{width} is the whole frame" if shape else "10:40,20:60"
        raise InputError(
            f"The region {text!r} is not of the form y0:y1,x0:x1; for instance {whole}."
        )
    rows = _parse_range(parts[0], height, "rows", MIN_SIDE_PX)
    columns = _parse_range(parts[1], width, "columns", MIN_SIDE_PX)
    return rows, columns


def parse_frames(text: str, frames: int | None = None) -> slice:
    """Turn "a:b" into a slice of a movie's frames, counted from 0, b excluded.

    Args:
        text: an empty end means the movie's.
        frames: length of the movie; None while it is not known.

    Raises:
        InputError: the text has another form, or the range is empty or outside the movie.
    """
    return _parse_range(text, frames, "frames", 1)


def _parse_range(text: str, length: int | None, what: str, least: int) -> slice:
    match = _WHOLE.fullmatch(text)
    if match is None:
        raise InputError(
            f"The range of {what} {text!r} is not of the form a:b with whole numbers of 0 or more; "
            f"for instance 0:{length or 100}."
        )
    start = int(match[1] or 0)
    stop = int(match[2]) if match[2] else length
    if stop is not None and (start > stop - least or stop > (length or stop)):
        inside = "" if length is None else f"lie inside 0:{length}, which is all there is, and "
        raise InputError(
            f"The range of {what} {start}:{stop} must {inside}hold {least} or more {what}."
        )
    return slice(start, stop)


def parse_rectangle(text: str) -> tuple[tuple[float, float, float, float], bool]:
    """Turn "y0:y1,x0:x1", in camera pixels, or the same with "nm" behind it, into numbers.

    Returns:
        y0, y1, x0 and x1, and whether they are nanometres.

    Raises:
        InputError: the text has another form, or the rectangle is empty.
    """
    match = _RECTANGLE.fullmatch(text)
    try:
        y0, y1, x0, x1 = (float(match[k]) for k in range(1, 5)) if match else (0.0,) * 4
    except ValueError:
        y0 = y1 = x0 = x1 = 0.0
    if match is None or not (y0 < y1 and x0 < x1):
        raise InputError(
            f"The region is {text!r}; give rows and columns as y0:y1,x0:x1 in camera pixels, such "
            "as 10:40,20:60, or in nanometres, such as '1000:4000,2000:6000nm'."
        )
    return (y0, y1, x0, x1), match[5] is not None
