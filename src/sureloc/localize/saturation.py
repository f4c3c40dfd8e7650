"""Pixels that reached the largest value the camera writes, and therefore tell nothing.

That value often lies below the file's: a 12-bit camera writes 16-bit files whose values stop at
4095. It shows in the movie itself, since noise thins out upwards: where far more pixels hold the
largest value than any of those just below it, values were cut off there. A camera file that states
the largest value is right; without one it is the largest that the movie's type can hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sureloc.camera import Camera, largest_of_type

LEAST_PIXELS = 8  # at the largest value, before it counts as a limit
EXCESS = 4.0  # times as many pixels as at any of the values just below
VALUES_BELOW = 8
WIDEST_RANGE = 2**20  # of whole ADU that are counted one by one
MOST_OF_A_FRAME = 0.5  # a frame with more saturated pixels teaches nothing


def saturated(adu: npt.NDArray[Any], camera: Camera) -> npt.NDArray[np.bool_]:
    """Tell which pixels reached the camera's largest value and carry no information."""
    top = camera.saturation_in(adu.dtype)
    return np.zeros(adu.shape, bool) if top is None else np.asarray(adu >= top)


def largest_adu(adu: npt.NDArray[Any], camera: Camera | None) -> tuple[int | None, bool]:
    """Give the value from which on a movie's pixels are saturated, and whether the movie shows it.

    Args:
        adu: frames as the camera wrote them, (frames, rows, columns).
        camera: what is given; None where the camera is to be estimated.

    Returns:
        The value, ADU, None where there is none; and True where the movie's values are cut off
        below what the camera states, or its type can hold.
    """
    given = largest_of_type(adu.dtype) if camera is None else camera.saturation_in(adu.dtype)
    seen = cut_off_adu(adu)
    if seen is None or (given is not None and seen >= given):
        return given, False
    return seen, True


def cut_off_adu(adu: npt.NDArray[Any]) -> int | None:
    """Give the value at which a movie's values were cut off, or None where they thin out.

    Args:
        adu: frames as the camera wrote them, (frames, rows, columns).

    Returns:
        The largest value, if at least `LEAST_PIXELS` pixels hold it and `EXCESS` times as many as
        hold any of the `VALUES_BELOW` next values that occur.
    """
    if adu.dtype.kind not in "ui" or adu.size == 0:
        return None
    lowest, highest = int(adu.min()), int(adu.max())
    if highest < 1 or highest - lowest > WIDEST_RANGE:
        return None
    counts = np.zeros(highest - lowest + 1, np.int64)
    for frame in adu:
        counts += np.bincount(frame.ravel().astype(np.int64) - lowest, minlength=counts.size)
    occurring = counts[counts > 0]
    # Frames that hold few values, or one alone, show no noise that could thin out.
    if len(occurring) <= VALUES_BELOW:
        return None
    at_top, below = occurring[-1], occurring[-1 - VALUES_BELOW : -1].max()
    return highest if at_top >= max(LEAST_PIXELS, EXCESS * below) else None


def telling_frames(adu: npt.NDArray[Any], saturation_adu: int | None) -> npt.NDArray[np.bool_]:
    """Tell which frames (frames, rows, columns) are saturated in no more than half their pixels."""
    if saturation_adu is None:
        return np.ones(len(adu), bool)
    return np.asarray((adu >= saturation_adu).mean((1, 2)) <= MOST_OF_A_FRAME)
