"""The PSF's width from the movie itself: lone spots fitted one by one, pooled robustly.

Detected spots without a near neighbour are fitted for position, photons, background and both
widths at once under the shifted-Poisson likelihood (`sureloc.physics.likelihood`; its Fisher
scoring is iteratively reweighted least squares), with the light of their farther neighbours held
in the expectation. Two molecules seen as one look wide, so the logarithms of the widths are pooled
by a redescending M-estimator, which gives no weight to spots far off the others. The width found is
used to detect again, until it stands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from scipy import special, stats

from sureloc.errors import InputError
from sureloc.localize.detect import Spots, detect_spots

FloatArray = npt.NDArray[np.float64]

LEAST_SPOTS = 3
SIGMA_RANGE_PX = (0.5, 4.0)
_WIDER_PX = (2.2, 3.3)
_MOST_SPOTS = 2000
_FRAMES_AT_ONCE = 20
_ROUNDS = 4
_STEPS = 25
_LARGEST_ERROR = 0.3  # of the logarithm of one width
_WINDOW_SIGMAS = 3.0
_LONE_SIGMAS = 3.75
_LEAST_SIGNIFICANCE = 7.0
# Excess spread comes from real variation and from unresolved pairs, which are all on the wide side.
# On simulated movies of up to 3.5 emitters per um^2 the bias was below a third of it, or 0.3 %.
_OVERLAP_SHARE = 0.25
_LEAST_RELATIVE_ERROR = 0.002
_X, _Y, _LOG_SX, _LOG_SY, _PHOTONS, _BACKGROUND = range(6)


@dataclass(frozen=True)
class PSFEstimate:
    """The width of the PSF as lone spots of a movie show it.

    Attributes:
        sigma_x_px, sigma_y_px: standard deviation along columns and rows, px.
        error_x_px, error_y_px: standard error of these, px.
        sigma_px: their geometric mean, the width of a round PSF.
        error_px: its standard error.
        spread: relative standard deviation between spots beyond what noise explains (focus,
            overlap that was not recognized); 0 where noise explains all.
        spots: number of spots used.
    """

    sigma_x_px: float
    sigma_y_px: float
    error_x_px: float
    error_y_px: float
    sigma_px: float
    error_px: float
    spread: float
    spots: int

    @property
    def sentence(self) -> str:
        """Say it to people."""
        return (
            f"PSF width {self.sigma_px:.3f} ± {self.error_px:.3f} px "
            f"({self.sigma_x_px:.3f} along columns, {self.sigma_y_px:.3f} along rows), estimated "
            f"from {self.spots} lone spots of the movie, which differ by {100 * self.spread:.1f} % "
            "beyond noise."
        )


def estimate_psf(
    electrons: Float[np.ndarray, "frames height width"],
    read_variance_e2: Float[np.ndarray, "height width"],
    excess_noise: float = 1.0,
    start_sigma_px: float = 1.3,
) -> PSFEstimate:
    """Estimate the width of a Gaussian PSF from lone spots.

    Args:
        electrons: frames in photo-electrons, best spread over the movie.
        read_variance_e2: read variance of every pixel, electrons^2.
        excess_noise: F^2 of electron multiplication, 1 without it.
        start_sigma_px: width with which detection starts; wider ones are tried where it finds too
            few lone spots, since bright wide spots look like several narrow ones.

    Raises:
        InputError: there are fewer than 3 lone spots to measure.
    """
    data = np.asarray(electrons, dtype=np.float64)
    variance = np.asarray(read_variance_e2, dtype=np.float64)
    error: InputError | None = None
    for start in (start_sigma_px, *(wide for wide in _WIDER_PX if wide > start_sigma_px)):
        try:
            return _from_start(data, variance, excess_noise, start)
        except InputError as refused:
            error = error or refused
    assert error is not None  # noqa: S101 - for the type checker
    raise error


def _from_start(
    data: FloatArray, variance: FloatArray, excess_noise: float, start_sigma_px: float
) -> PSFEstimate:
    sigma = (start_sigma_px, start_sigma_px)
    for _ in range(_ROUNDS):
        fits = _fit_lone_spots(data, variance, excess_noise, sigma)
        estimate = _pool(fits)
        previous, sigma = sigma, (estimate.sigma_x_px, estimate.sigma_y_px)
        if max(abs(a / b - 1) for a, b in zip(sigma, previous, strict=True)) < 0.003:
            break
    return estimate


@dataclass(frozen=True)
class _Fits:
    """Logarithms of the widths of single spots, their standard deviations, and which fits held."""

    log_sigma: FloatArray  # (spots, 2): along columns, rows
    error: FloatArray  # (spots, 2)
    good: npt.NDArray[np.bool_]


def _fit_lone_spots(
    data: FloatArray, variance: FloatArray, excess_noise: float, sigma_px: tuple[float, float]
) -> _Fits:
    parts = []
    total = 0
    for first in range(0, len(data), _FRAMES_AT_ONCE):
        frames = data[first : first + _FRAMES_AT_ONCE]
        spots = detect_spots(frames, variance, sigma_px, excess_noise)
        lone = _lone(spots, sigma_px, frames.shape)
        total += len(lone)
        parts.append(_fit(frames, variance, excess_noise, spots, lone, sigma_px))
        if total >= _MOST_SPOTS:
            break
    return _Fits(
        np.concatenate([part.log_sigma for part in parts]),
        np.concatenate([part.error for part in parts]),
        np.concatenate([part.good for part in parts]),
    )


def _window(sigma_px: tuple[float, float]) -> int:
    return math.ceil(_WINDOW_SIGMAS * max(sigma_px))


def _lone(
    spots: Spots, sigma_px: tuple[float, float], shape: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    """Give the spots with enough light, a whole window in the frame, and no near neighbour."""
    window = _window(sigma_px)
    least = _LONE_SIGMAS * max(sigma_px)
    inside = (
        (np.rint(spots.x_px) >= window)
        & (np.rint(spots.x_px) < shape[2] - window)
        & (np.rint(spots.y_px) >= window)
        & (np.rint(spots.y_px) < shape[1] - window)
        & (spots.significance > _LEAST_SIGNIFICANCE)
    )
    alone = np.ones(len(spots.frame), bool)
    for frame in np.unique(spots.frame):
        here = np.flatnonzero(spots.frame == frame)
        far = np.hypot(
            spots.x_px[here][:, None] - spots.x_px[here],
            spots.y_px[here][:, None] - spots.y_px[here],
        )
        np.fill_diagonal(far, np.inf)
        alone[here] = far.min(axis=1, initial=np.inf) > least
    return np.flatnonzero(inside & alone)


def _fit(
    frames: FloatArray,
    variance: FloatArray,
    excess_noise: float,
    spots: Spots,
    lone: npt.NDArray[np.int64],
    sigma_px: tuple[float, float],
) -> _Fits:
    """Fit windows round the lone spots by Fisher scoring, all at once."""
    if len(lone) == 0:
        return _Fits(np.empty((0, 2)), np.empty((0, 2)), np.empty(0, bool))
    window = _window(sigma_px)
    reach = np.arange(-window, window + 1)
    rows = np.rint(spots.y_px[lone]).astype(int)[:, None] + reach
    columns = np.rint(spots.x_px[lone]).astype(int)[:, None] + reach
    index = (rows[:, :, None], columns[:, None, :])
    counts = frames[(spots.frame[lone][:, None, None], *index)]
    noise = variance[index]
    others = _light_of_others(spots, lone, rows, columns, sigma_px)
    theta = np.column_stack(
        [
            spots.x_px[lone],
            spots.y_px[lone],
            np.full(len(lone), math.log(sigma_px[0])),
            np.full(len(lone), math.log(sigma_px[1])),
            spots.photons[lone],
            spots.background_e[
                spots.frame[lone],
                np.rint(spots.y_px[lone]).astype(int),
                np.rint(spots.x_px[lone]).astype(int),
            ],
        ]
    )
    limit = np.array([0.3, 0.3, 0.15, 0.15, np.inf, np.inf])
    for _ in range(_STEPS):
        expected, jacobian = _image(theta, columns, rows)
        weight = 1.0 / (excess_noise * np.maximum(expected + others, 0.05) + noise)
        fisher, gradient = _normal_equations(jacobian, weight, counts - expected - others)
        step = np.clip(np.linalg.solve(fisher, gradient[..., None])[..., 0], -limit, limit)
        theta = theta + step
        theta[:, _PHOTONS] = np.maximum(theta[:, _PHOTONS], 1.0)
        theta[:, _LOG_SX : _LOG_SY + 1] = np.clip(
            theta[:, _LOG_SX : _LOG_SY + 1], *np.log(SIGMA_RANGE_PX)
        )
    covariance = np.linalg.inv(fisher)
    error = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)[:, _LOG_SX : _LOG_SY + 1])
    wandered = np.hypot(theta[:, _X] - spots.x_px[lone], theta[:, _Y] - spots.y_px[lone])
    return _Fits(
        theta[:, _LOG_SX : _LOG_SY + 1],
        error,
        (wandered < max(sigma_px)) & (error < _LARGEST_ERROR).all(axis=1),
    )


def _normal_equations(
    jacobian: FloatArray, weight: FloatArray, residual: FloatArray
) -> tuple[FloatArray, FloatArray]:
    flat = jacobian.reshape(*jacobian.shape[:2], -1)
    weighted = flat * weight.reshape(len(flat), 1, -1)
    fisher = weighted @ flat.transpose(0, 2, 1)
    # A spot whose fit runs away must not make the whole batch singular.
    fisher = (
        fisher + 1e-9 * np.einsum("nii->ni", fisher)[:, :, None] * np.eye(6) + 1e-12 * np.eye(6)
    )
    gradient = (weighted @ residual.reshape(len(flat), -1, 1))[..., 0]
    return fisher, gradient


def _light_of_others(
    spots: Spots,
    lone: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    sigma_px: tuple[float, float],
) -> FloatArray:
    """Give the expected electrons of all other spots in each window."""
    others = np.zeros((len(lone), rows.shape[1], columns.shape[1]))
    reach = _window(sigma_px) + 4.0 * max(sigma_px)
    for i, spot in enumerate(lone):
        near = np.flatnonzero(
            (spots.frame == spots.frame[spot])
            & (np.abs(spots.x_px - spots.x_px[spot]) < reach)
            & (np.abs(spots.y_px - spots.y_px[spot]) < reach)
        )
        near = near[near != spot]
        along_x = _shares(columns[i], spots.x_px[near, None], sigma_px[0])
        along_y = _shares(rows[i], spots.y_px[near, None], sigma_px[1])
        others[i] = (along_y * spots.photons[near, None]).T @ along_x
    return others


def _shares(pixel: npt.NDArray[np.int64], position: FloatArray, sigma: float) -> FloatArray:
    edges = np.concatenate([pixel - 0.5, pixel[-1:] + 0.5])
    return np.diff(special.ndtr((edges - position) / sigma), axis=-1)


def _image(
    theta: FloatArray, columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    """Give expected electrons (spots, h, w) and derivatives by the parameters (spots, 6, h, w)."""
    px, dx, sx = profile(columns, theta[:, _X], theta[:, _LOG_SX])
    py, dy, sy = profile(rows, theta[:, _Y], theta[:, _LOG_SY])
    photons = theta[:, _PHOTONS, None, None]

    def outer(along_y: FloatArray, along_x: FloatArray) -> FloatArray:
        return along_y[:, :, None] * along_x[:, None, :]

    shape = outer(py, px)
    jacobian = np.stack(
        [
            photons * outer(py, dx),
            photons * outer(dy, px),
            photons * outer(py, sx),
            photons * outer(sy, px),
            shape,
            np.ones_like(shape),
        ],
        axis=1,
    )
    return photons * shape + theta[:, _BACKGROUND, None, None], jacobian


def profile(
    pixel: npt.NDArray[np.int64], position: FloatArray, log_sigma: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Give shares of light along one axis and their derivatives.

    Args:
        pixel: numbers of neighbouring pixels, (emitters, pixels).
        position: of the emitters, px.
        log_sigma: logarithm of each one's width, px.

    Returns:
        The shares and their derivatives by position and by the logarithm, (emitters, pixels) each.
    """
    sigma = np.exp(log_sigma)[:, None]
    edge = np.concatenate([pixel - 0.5, pixel[:, -1:] + 0.5], axis=1)
    u = (edge - position[:, None]) / sigma
    density = np.exp(-0.5 * u**2) / math.sqrt(2 * math.pi)
    return (
        np.diff(special.ndtr(u), axis=1),
        -np.diff(density, axis=1) / sigma,
        -np.diff(u * density, axis=1),
    )


def _pool(fits: _Fits) -> PSFEstimate:
    log_sigma, error = fits.log_sigma[fits.good], fits.error[fits.good]
    if len(log_sigma) < LEAST_SPOTS:
        raise InputError(
            f"Only {len(log_sigma)} lone spots are bright and clear enough to measure the PSF "
            f"width; {LEAST_SPOTS} are needed. Give the width with --sigma-px, for instance from "
            "a bead image, or choose more frames."
        )
    (log_x, error_x, spread_x), (log_y, error_y, spread_y) = (
        _robust_mean(log_sigma[:, axis], error[:, axis]) for axis in (0, 1)
    )
    sigma_x, sigma_y = math.exp(log_x), math.exp(log_y)
    sigma = math.sqrt(sigma_x * sigma_y)
    return PSFEstimate(
        sigma_x,
        sigma_y,
        sigma_x * error_x,
        sigma_y * error_y,
        sigma,
        sigma * 0.5 * math.hypot(error_x, error_y),
        math.sqrt(0.5 * (spread_x**2 + spread_y**2)),
        len(log_sigma),
    )


def _robust_mean(value: FloatArray, error: FloatArray) -> tuple[float, float, float]:
    """Give a biweight location (Mosteller and Tukey 1977), its error, and the excess spread.

    Weights fall with each spot's own error and with its distance from the centre, to zero at four
    standard deviations: unresolved pairs are all on one side, where a mean would follow them.
    """
    centre = float(np.median(value))
    excess = 0.0
    for _ in range(20):
        scale = np.sqrt(error**2 + excess**2)
        z = (value - centre) / scale
        core = 1.4826 * float(np.median(np.abs(z)))
        # Scatter beyond the stated errors is attributed to the spots themselves.
        grow = (core**2 - 1.0) * float(np.median(scale)) ** 2
        excess = math.sqrt(max(excess**2 + 0.5 * grow, 0.0))
        taper = np.clip(1.0 - (z / 4.0) ** 2, 0.0, None) ** 2
        weight = taper / scale**2
        # Few spots that contradict one another may all be far out, until the spread has grown.
        if weight.any():
            centre = float((weight * value).sum() / weight.sum())
    if not weight.any():
        raise InputError(
            f"The {value.size} lone spots that are bright and clear enough contradict one another "
            "about the PSF width. Give it with --sigma-px, or choose more frames."
        )
    deviation = float((weight**2 * (value - centre) ** 2).sum()) ** 0.5 / float(weight.sum())
    # With few spots their scatter is itself uncertain: widen as Student's t does.
    few = int((weight > 0).sum())
    wide = float(stats.t.isf(stats.norm.sf(1.0), max(few - 1, 1)))
    random = wide * max(deviation, float(weight.sum()) ** -0.5)
    return centre, math.hypot(random, _OVERLAP_SHARE * excess, _LEAST_RELATIVE_ERROR), excess
