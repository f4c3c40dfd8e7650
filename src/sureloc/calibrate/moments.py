"""Mean, variance and kurtosis of every pixel over a movie of any length.

Frames pass in chunks and are forgotten: sums of powers of deviations are merged pairwise (Chan,
Golub and LeVeque 1983; Pebay 2008, eqs. 1.3-1.6), which stays exact where a sum of squares would
lose a small variance under a large mean. Memory does not depend on the number of frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sureloc.camera import ROUNDING_VARIANCE_ADU2, largest_of_type, rounding_of
from sureloc.errors import InputError
from sureloc.localize.movie import Frames, read_frames, spread_frames
from sureloc.localize.saturation import cut_off_adu

Array = npt.NDArray[np.float64]

LEAST_FRAMES = 10  # below, a variance is known worse than to a factor 2
PIXELS_AT_ONCE = 2**21
LEAST_AT_ONCE = 16  # frames
LOOKED_AT = 12  # frames in which the largest value is looked for before all are read


@dataclass
class Moments:
    """Running moments along the first axis.

    Attributes:
        shape: of one item, any.
        count: items so far.
        mean: their mean.
        sums: sums of the 2nd, 3rd and 4th powers of deviations from the mean, (3, *shape).
    """

    shape: tuple[int, ...]
    count: int = 0
    mean: Array = field(init=False)
    sums: Array = field(init=False)

    def __post_init__(self) -> None:
        self.mean, self.sums = np.zeros(self.shape), np.zeros((3, *self.shape))

    def add(self, items: npt.NDArray[Any]) -> None:
        """Take in more items, (items, *shape); none is nothing."""
        new = len(items)
        if not new:
            return
        values = np.asarray(items, dtype=np.float64)
        mean = values.mean(axis=0)
        deviation = values - mean
        square = deviation * deviation
        own = [square.sum(0), (square * deviation).sum(0), (square * square).sum(0)]
        old, total = self.count, self.count + new
        two, three, four = self.sums
        step = mean - self.mean
        part = step / total
        self.sums[2] = (
            four
            + own[2]
            + step * part**3 * (old * new * (old**2 - old * new + new**2))
            + 6 * part**2 * (old**2 * own[0] + new**2 * two)
            + 4 * part * (old * own[1] - new * three)
        )
        self.sums[1] = (
            three
            + own[1]
            + step * part**2 * (old * new * (old - new))
            + 3 * part * (old * own[0] - new * two)
        )
        self.sums[0] = two + own[0] + step * part * (old * new)
        self.mean = self.mean + new * part
        self.count = total

    @property
    def variance(self) -> Array:
        """Unbiased variance."""
        return np.asarray(self.sums[0] / max(self.count - 1, 1))

    @property
    def excess_kurtosis(self) -> Array:
        """Fourth cumulant over squared variance, 0 for a normal distribution and for constants."""
        square = self.sums[0] ** 2
        ratio = np.divide(
            self.count * self.sums[2], square, out=np.full(self.shape, 3.0), where=square > 0
        )
        return np.asarray(ratio - 3.0)


@dataclass(frozen=True)
class MovieMoments:
    """A movie of one light level, pixel by pixel.

    Attributes:
        name: of the movie, for people.
        frames: how many.
        mean_adu: mean over time, ADU, (rows, columns).
        variance_adu2: unbiased variance over time, rounding to whole ADU included, ADU^2.
        excess_kurtosis: of each pixel's values over time.
        common_variance_adu2: variance over time of the frames' mean beyond what independent noise
            of the pixels gives: a flickering lamp or a wandering baseline. May come out negative.
        common_error_adu2: its standard error.
        full_share: share of frames in which a pixel reached `saturation_adu`.
        saturation_adu: the largest value that the camera writes; None if nothing tells it.
        whole: True where values are whole numbers.
    """

    name: str
    frames: int
    mean_adu: Array
    variance_adu2: Array
    excess_kurtosis: Array
    common_variance_adu2: float
    common_error_adu2: float
    full_share: Array
    saturation_adu: int | None
    whole: bool

    @property
    def rounding_adu2(self) -> float:
        """Variance that rounding to whole ADU adds to every pixel."""
        return ROUNDING_VARIANCE_ADU2 if self.whole else 0.0


def movie_moments(
    movie: Frames,
    name: str,
    saturation_adu: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> MovieMoments:
    """Pass once through a movie of one light level.

    Args:
        movie: the movie.
        name: for messages.
        saturation_adu: the largest value that the camera writes; None looks for a value at which
            the movie's own values are cut off, and takes what its type can hold else.
        progress: called with the number of frames after each chunk.

    Raises:
        InputError: there are fewer than `LEAST_FRAMES` frames.
    """
    frames, height, width = movie.shape
    if frames < LEAST_FRAMES:
        raise InputError(
            f"{name} has {frames} frame(s); {LEAST_FRAMES} or more are needed to measure a "
            "variance, and 1,000 or more to measure it to 5 %. Record a longer movie."
        )
    first = read_frames(movie, spread_frames(frames, LOOKED_AT))
    whole = rounding_of(first) > 0
    top = saturation_adu if saturation_adu is not None else _top(first)
    level, full = Moments(()), np.zeros((height, width))
    step = max(PIXELS_AT_ONCE // (height * width), LEAST_AT_ONCE)
    # Merging costs as much as some frames, so that several are read at once, and worked through in
    # bands of rows to keep what large sensors need in memory small.
    rows = max(PIXELS_AT_ONCE // (step * width), 1)
    bands = [slice(top, min(top + rows, height)) for top in range(0, height, rows)]
    parts = [Moments((band.stop - band.start, width)) for band in bands]
    for begin in range(0, frames, step):
        chunk = movie.read(begin, min(begin + step, frames))
        for band, part in zip(bands, parts, strict=True):
            part.add(chunk[:, band])
        level.add(chunk.mean(axis=(1, 2), dtype=np.float64))
        if top is not None:
            full += (chunk >= top).sum(axis=0)
        progress(len(chunk))
    variance = np.concatenate([part.variance for part in parts])
    noise = float(variance.mean()) / (height * width)
    return MovieMoments(
        name,
        frames,
        np.concatenate([part.mean for part in parts]),
        variance,
        np.concatenate([part.excess_kurtosis for part in parts]),
        float(level.variance) - noise,
        float(level.variance) * math.sqrt(2.0 / (frames - 1)),
        full / frames,
        top,
        whole,
    )


def _top(frames: npt.NDArray[Any]) -> int | None:
    seen = cut_off_adu(frames)
    return largest_of_type(frames.dtype) if seen is None else seen
