"""A camera's offset, gain and read noise from the movie itself, with what cannot be known said.

The variance of a pixel is linear in its mean (Janesick 2007, the photon transfer curve),

    variance = F^2 gain (mean - offset) + read variance,

so a movie with bright and dark places gives the slope and the level at which the variance would
vanish, offset - read variance / (F^2 gain). It cannot give offset and read variance apart: more
background with less read noise looks the same in mean and variance. The shifted-Poisson likelihood
depends on the very same combination (e + v = (x - that level) / gain), so positions, photons and
intervals do not need the missing number; the reported background does. It is filled in by a read
noise that is usual for scientific cameras, with an error as large as itself, and less where the
darkest place of the movie leaves no room for it. Electron multiplication cannot be seen either:
without being told, gain comes out F^2 too large and photons F^2 too small, again without effect on
positions and intervals.

Molecules come and go and have edges, so neither the scatter over time nor that over space is noise
alone. Fourth differences along both axes suppress what a PSF can pass (amplitude 3e-3 of a spot at
sigma = 1 px) and keep white noise; what still leaks grows with the square of the level and is
fitted beside the line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Num
from scipy import ndimage, stats

from sureloc.camera import ROUNDING_VARIANCE_ADU2, Camera
from sureloc.errors import CameraError

FloatArray = npt.NDArray[np.float64]

USUAL_READ_VARIANCE_E2 = 2.5
_FOURTH_DIFFERENCE = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / math.sqrt(70.0)
_REACH = 2
_TILE_PX = 16
_RESAMPLES = 200
_ROUNDS = 5
_OUTLIER = 30.0  # squared normal deviates beyond this have a share of 4e-8
_HOT_TAIL = 1e-4
_MODEL_ERROR = 0.03  # relative bias of the gain on simulated movies of all kinds
_LARGEST_ERROR = 0.5
_DARK_SHARE = 10.0  # percent of the pixels that lie below the level where leakage starts
_DARK_PERCENTILE = 1.0


@dataclass(frozen=True)
class CameraEstimate:
    """A camera estimated from a movie, with standard errors.

    Attributes:
        camera: the camera, of scalars.
        gain_error: standard error of the gain, ADU per electron.
        offset_error_adu: standard error of the offset, read noise unknown, ADU.
        read_noise_e: assumed read noise, electrons rms.
        read_noise_error_e: its standard error, electrons.
        dark_level_adu: level at which the variance would vanish, offset - variance / gain, which
            is all that the likelihood needs, ADU.
        dark_level_error_adu: its standard error, ADU.
        frames: number of frames used.
    """

    camera: Camera
    gain_error: float
    offset_error_adu: float
    read_noise_e: float
    read_noise_error_e: float
    dark_level_adu: float
    dark_level_error_adu: float
    frames: int

    @property
    def sentence(self) -> str:
        """Say it to people."""
        told = (
            f" (electron multiplication {self.camera.em_gain:g} as given)"
            if self.camera.em_gain > 1
            else ""
        )
        return (
            f"Camera estimated from {self.frames} frames of the movie{told}: gain "
            f"{float(self.camera.gain_adu_per_e):.3g} ± {self.gain_error:.2g} ADU per electron, "
            f"offset {float(self.camera.offset_adu):.1f} ± {self.offset_error_adu:.2g} ADU, read "
            f"noise {self.read_noise_e:.2g} ± {self.read_noise_error_e:.2g} electrons (assumed: a "
            "movie cannot tell read noise from background; positions do not depend on it). Give "
            "the camera's calibration for photons and background that are right."
        )


def estimate_camera(
    adu: Num[np.ndarray, "frames height width"],
    rng: np.random.Generator,
    em_gain: float = 1.0,
    saturation_adu: int | None = 65535,
) -> CameraEstimate:
    """Estimate a camera from frames of a movie.

    Args:
        adu: frames as the camera wrote them, best 5 to 200 spread over the movie.
        rng: source of randomness for the bootstrap over tiles.
        em_gain: electron multiplication, if the camera has it.
        saturation_adu: largest value that the camera can write; such pixels are left out.

    Raises:
        CameraError: the frames hold too little contrast or too few pixels to measure the gain.
    """
    levels, squares = _levels_and_squares(adu, saturation_adu)
    dark = float(np.percentile(levels, _DARK_SHARE))
    features = _features(levels, dark)
    mask, coefficients = _usable(features, squares)
    sums = _tile_sums(features, squares, mask, coefficients)
    slope, dark_level = _line(sums.sum(axis=0), dark)
    again = rng.integers(0, len(sums), (_RESAMPLES, len(sums)))
    draws = np.array([_line(sums[chosen].sum(axis=0), dark) for chosen in again])
    slope_error = math.hypot(float(_robust_sd(draws[:, 0])), _MODEL_ERROR * slope)
    dark_error = float(_robust_sd(draws[:, 1]))
    if not (slope > 0 and slope_error < _LARGEST_ERROR * slope):
        raise CameraError(
            f"The gain cannot be measured from these {len(adu)} frames (slope of variance over "
            f"mean {slope:.3g} ± {slope_error:.2g} ADU; a gain is larger than 0 and the error must "
            "be below half of it): they hold too little contrast. Give the camera with --camera, "
            "or more frames."
        )
    excess = 2.0 - 1.0 / em_gain
    gain = slope / excess
    room_e2 = excess * max(float(_darkest(levels)) - dark_level, 0.0) / slope
    read_e2 = excess * min(USUAL_READ_VARIANCE_E2, 0.5 * room_e2)
    if em_gain > 1:
        read_e2 = 0.0  # multiplication lifts the signal above the read noise
    offset = dark_level + read_e2 * gain / excess
    read_noise = math.sqrt(read_e2)
    variance_adu2 = max(read_e2 * gain**2 - ROUNDING_VARIANCE_ADU2, 0.0)
    return CameraEstimate(
        Camera(offset, gain, variance_adu2, em_gain=em_gain, saturation_adu=saturation_adu),
        slope_error / excess,
        math.hypot(dark_error, read_e2 * gain / excess),
        read_noise,
        0.5 * read_noise,
        dark_level,
        dark_error,
        len(adu),
    )


def _along_both(images: FloatArray, kernel: FloatArray) -> FloatArray:
    """Filter along rows and columns and keep the pixels whose whole support is in the frame."""
    rows = ndimage.correlate1d(images, kernel, axis=1)
    both = ndimage.correlate1d(rows, kernel, axis=2)
    return np.asarray(both[:, _REACH:-_REACH, _REACH:-_REACH])


def _levels_and_squares(
    adu: npt.NDArray[np.generic], saturation_adu: int | None
) -> tuple[FloatArray, FloatArray]:
    """Give local means and squared fourth differences; pixels near a saturated one are NaN.

    The mean is weighted by the squares of the differences' weights, so that the expected square is
    the line at the expected mean, whatever the structure underneath.
    """
    frames = np.asarray(adu, dtype=np.float64)
    if min(frames.shape) < 1 or min(frames.shape[1:]) < 4 * _REACH:
        raise CameraError(
            f"The camera cannot be estimated from an array of shape {frames.shape}; 1 frame or "
            f"more of at least {4 * _REACH} rows and columns are needed."
        )
    squares = _along_both(frames, _FOURTH_DIFFERENCE) ** 2
    levels = _along_both(frames, _FOURTH_DIFFERENCE**2)
    if saturation_adu is not None and (frames >= saturation_adu).any():
        near = ndimage.maximum_filter(frames, size=(1, 2 * _REACH + 1, 2 * _REACH + 1))
        squares[near[:, _REACH:-_REACH, _REACH:-_REACH] >= saturation_adu] = np.nan
    return levels, squares


def _features(levels: FloatArray, dark: float) -> FloatArray:
    """Give the columns 1, level, leak; the leak is the square of the height above the darkness."""
    height = levels - dark
    return np.stack([np.ones_like(height), height, np.maximum(height, 0.0) ** 2], axis=-1)


def _usable(features: FloatArray, squares: FloatArray) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Leave out saturation, single outliers and pixels that are noisy in every frame.

    Returns:
        Which pixels to use, and the curve's coefficients fitted to them.
    """
    mask = np.isfinite(squares)
    typical = float(np.median(squares[mask]) / stats.chi2.median(1)) if mask.any() else 0.0
    if not typical > 0:
        raise CameraError(
            "The frames hold no noise, or are saturated; a camera cannot be estimated from them. "
            "Give the raw frames of the camera, or the camera with --camera."
        )
    frames = len(squares)
    for _ in range(3):
        coefficients = _fit(features[mask], squares[mask], typical)
        ratio = squares / _curve(features, coefficients, typical)
        ratio = np.minimum(np.nan_to_num(ratio, nan=1.0), _OUTLIER)
        hot = ratio.mean(axis=0) > stats.chi2.isf(_HOT_TAIL, frames) / frames
        mask = np.isfinite(squares) & (ratio < _OUTLIER) & ~hot
    return mask, coefficients


def _curve(features: FloatArray, coefficients: FloatArray, typical: float) -> FloatArray:
    # A floor, since a line of too steep a slope may fall below zero in the dark.
    return np.asarray(np.maximum(features @ coefficients, 0.2 * typical))


def _fit(features: FloatArray, squares: FloatArray, typical: float) -> FloatArray:
    """Fit the curve with weights 1 / variance^2, the inverse variance of a squared deviate."""
    coefficients = np.array([typical, 0.0, 0.0])
    for _ in range(_ROUNDS):
        weighted = features * _curve(features, coefficients, typical)[:, None] ** -2.0
        coefficients = _solve(weighted.T @ features, weighted.T @ squares)
    return coefficients


def _solve(normal: FloatArray, moment: FloatArray) -> FloatArray:
    """Solve the normal equations; a leak below zero is no leak."""
    solution = np.asarray(np.linalg.lstsq(normal, moment, rcond=None)[0])
    if solution[2] < 0:
        line = np.linalg.lstsq(normal[:2, :2], moment[:2], rcond=None)[0]
        solution = np.append(line, 0.0)
    return solution


def _tile_sums(
    features: FloatArray,
    squares: FloatArray,
    mask: npt.NDArray[np.bool_],
    coefficients: FloatArray,
) -> FloatArray:
    """Give every tile's share of the normal equations, shape (tiles, 3, 4).

    A tile of a frame is the unit of the bootstrap, since neighbouring differences share pixels.
    """
    weight = np.where(mask, _curve(features, coefficients, float(coefficients[0])) ** -2.0, 0.0)
    target = np.where(mask, squares, 0.0)
    height, width = squares.shape[1:]
    sums = []
    for top in range(0, height, _TILE_PX):
        for left in range(0, width, _TILE_PX):
            part = np.s_[:, top : top + _TILE_PX, left : left + _TILE_PX]
            x, w = features[part], weight[part]
            y = np.concatenate([x, target[part][..., None]], axis=-1)
            sums.append(np.einsum("fyxi,fyx,fyxj->fij", x, w, y))
    return np.concatenate(sums)


def _line(sums: FloatArray, dark: float) -> tuple[float, float]:
    """Give the line's slope and the level at which it crosses zero."""
    constant, slope, _ = _solve(sums[:, :3], sums[:, 3])
    return float(slope), dark - float(constant) / float(slope) if slope else math.nan


def _robust_sd(values: FloatArray) -> float:
    return float(stats.median_abs_deviation(values, scale="normal"))


def _darkest(levels: FloatArray) -> float:
    """Give the level of the darkest place, averaged over time and over a few pixels."""
    mean = ndimage.uniform_filter(levels.mean(axis=0), 5)
    return float(np.percentile(mean, _DARK_PERCENTILE))
