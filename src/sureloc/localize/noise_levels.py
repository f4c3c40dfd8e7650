"""A movie's noise by its level of light, free of the images in it.

Fourth differences along both axes suppress what a PSF can pass (amplitude 3e-3 of a spot at
sigma = 1 px) and keep white noise. Taken of the residual after spots and background were fitted,
their squares are the noise and hardly more: neither a PSF of slightly another shape nor what a fit
takes of the noise is seen in them, as both are in the squares of the residual itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from scipy import ndimage

FloatArray = npt.NDArray[np.float64]

FOURTH_DIFFERENCE = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / math.sqrt(70.0)
REACH_PX = 2
OUTLIER = 30.0  # squared normal deviates beyond this have a share of 4e-8
AGREES = 0.15  # share by which a variance may be off and still count as the camera's
_SURE_ERRORS = 3.0
_SHARES = 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998  # of the sorted levels
_LEAST_PX = 1400  # of a bin, for an error of 10 %
_QUIET = 2.0  # times the median read variance, above which pixels are left out
# Differences of neighbouring pixels share pixels: so many squares tell as much as one alone.
_SHARED = float((np.correlate(FOURTH_DIFFERENCE, FOURTH_DIFFERENCE, "full") ** 2).sum() ** 2)


def along_both(images: FloatArray, kernel: FloatArray) -> FloatArray:
    """Filter along rows and columns and keep the pixels whose whole support is in the frame."""
    rows = ndimage.correlate1d(images, kernel, axis=1)
    both = ndimage.correlate1d(rows, kernel, axis=2)
    return np.asarray(both[:, REACH_PX:-REACH_PX, REACH_PX:-REACH_PX])


@dataclass(frozen=True)
class NoiseLevels:
    """The variance of a movie's pixels by their level of light, and what a camera makes of it.

    Attributes:
        level_e: mean fitted level of every bin, photo-electrons, rising, (bins,).
        variance_e2: measured variance, electrons^2, (bins,).
        error_e2: its standard error, electrons^2, (bins,).
        expected_e2: shot and read noise of the camera, electrons^2, (bins,).
    """

    level_e: FloatArray
    variance_e2: FloatArray
    error_e2: FloatArray
    expected_e2: FloatArray

    @property
    def agrees(self) -> npt.NDArray[np.bool_]:
        """Which bins have the camera's variance, within `AGREES` or their error."""
        slack = np.maximum(AGREES * self.expected_e2, _SURE_ERRORS * self.error_e2)
        return np.asarray(np.abs(self.variance_e2 - self.expected_e2) <= slack)

    def clause(self, camera: str) -> str:
        """Say where the noise is the camera's and where it is not, as the end of a sentence.

        Args:
            camera: what to call the camera.
        """
        runs = [
            (agrees, np.array([k for k, _ in bins]))
            for agrees, bins in groupby(enumerate(self.agrees), key=lambda item: item[1])
        ]
        right = [self._range(bins) for agrees, bins in runs if agrees]
        wrong = [
            f"at {self._range(bins)} its variance is {self._ratio(bins):.2f} times the camera's"
            for agrees, bins in runs
            if not agrees
        ]
        said = f"the movie's noise does not agree with {camera}"
        if right:
            levels = " and ".join(right)
            said = f"the movie's noise agrees with {camera} at {levels} electrons a pixel"
        return "; ".join([said, *wrong])

    def _ratio(self, bins: npt.NDArray[np.int64]) -> float:
        return float(self.variance_e2[bins].sum() / self.expected_e2[bins].sum())

    def _range(self, bins: npt.NDArray[np.int64]) -> str:
        low, high = (_number(self.level_e[k]) for k in (bins[0], bins[-1]))
        return low if low == high else f"{low} to {high}"


def noise_levels(
    left_over_e: Float[np.ndarray, "frames height width"],
    fitted_e: Float[np.ndarray, "frames height width"],
    read_variance_e2: Float[np.ndarray, "height width"],
    excess_noise: float = 1.0,
) -> NoiseLevels:
    """Measure a movie's noise by its level of light, pixels of much read noise left out.

    Args:
        left_over_e: what spots and background leave of the frames, photo-electrons.
        fitted_e: the expected electrons of every pixel, spots and background.
        read_variance_e2: the camera's, electrons^2.
        excess_noise: F^2 of electron multiplication, 1 without it.
    """
    level = along_both(fitted_e, FOURTH_DIFFERENCE**2)
    read = along_both(read_variance_e2[None], FOURTH_DIFFERENCE**2)
    quiet = np.broadcast_to(read <= _QUIET * np.median(read), level.shape)
    read = np.broadcast_to(read, level.shape)[quiet]
    square = along_both(left_over_e, FOURTH_DIFFERENCE) ** 2
    order = np.argsort(level[quiet], kind="stable")
    level = level[quiet][order]
    expected = np.maximum(excess_noise * level + read[order], 1e-9)
    # One cosmic ray must not outweigh a whole bin.
    square = np.minimum(square[quiet][order], OUTLIER * expected)
    edges = _edges(level.size)
    count = np.diff(edges)
    means = [np.add.reduceat(v, edges[:-1]) / count for v in (level, square, expected, square**2)]
    spread = np.sqrt(np.maximum(means[3] - means[1] ** 2, 0.0))
    return NoiseLevels(means[0], means[1], spread * np.sqrt(_SHARED / count), means[2])


def _edges(number: int) -> npt.NDArray[np.int64]:
    """Cut sorted levels into bins: the dark half by count, the bright tail by level."""
    edges = [0]
    for share in _SHARES:
        at = int(share * number)
        if min(at - edges[-1], number - at) >= _LEAST_PX:
            edges.append(at)
    return np.array([*edges, number])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
