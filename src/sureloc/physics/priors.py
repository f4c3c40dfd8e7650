"""What is believed about emitters before a frame is seen: photons, density, background.

The photon prior is a table of log-density over ln N, so that a uniform, log-normal, exponential or
learned distribution all go the same way through every computation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sureloc.errors import InputError

Array = npt.NDArray[np.float64]
_GRID = 400


@dataclass(frozen=True)
class PhotonPrior:
    """A distribution of photo-electrons per emitter and frame.

    Attributes:
        log_photons: regular grid of ln N, shape (cells,).
        log_density: ln of the density by ln N on that grid; linear in between, 0 outside.
    """

    log_photons: Array
    log_density: Array

    @classmethod
    def from_density(
        cls, density_by_log: Callable[[Array], Array], low: float, high: float
    ) -> PhotonPrior:
        """Tabulate a density by ln N between `low` and `high` photo-electrons and normalise it.

        Raises:
            InputError: the range is empty or not positive, or the density is nowhere positive.
        """
        if not 0 < low < high < math.inf:
            raise InputError(
                f"The photon range is {low:g} to {high:g}; it must be positive and increasing, "
                "for example 50 to 10000."
            )
        grid = np.linspace(math.log(low), math.log(high), _GRID)
        density = np.maximum(density_by_log(grid), 1e-12)
        total = np.trapezoid(density, grid)
        if not np.isfinite(total) or total <= 0:
            raise InputError("The photon density is nowhere positive on its range.")
        return cls(grid, np.log(density / total))

    @classmethod
    def uniform(cls, low: float, high: float) -> PhotonPrior:
        """Give the uniform distribution of N between `low` and `high` photo-electrons."""
        return cls.from_density(np.exp, low, high)

    @classmethod
    def log_normal(cls, median: float, log_sd: float) -> PhotonPrior:
        """Give the log-normal distribution, tabulated to five standard deviations."""
        centre = math.log(median)
        return cls.from_density(
            lambda u: np.exp(-0.5 * ((u - centre) / log_sd) ** 2),
            median * math.exp(-5 * log_sd),
            median * math.exp(5 * log_sd),
        )

    @classmethod
    def exponential(cls, mean: float) -> PhotonPrior:
        """Give the exponential distribution from a hundredth of its mean to twelve means."""
        return cls.from_density(lambda u: np.exp(u - np.exp(u) / mean), 0.01 * mean, 12 * mean)

    def scaled(self, factor: float) -> PhotonPrior:
        """Give the distribution of `factor` times as many photo-electrons."""
        return PhotonPrior(self.log_photons + math.log(factor), self.log_density)

    def moved(self, by: float) -> PhotonPrior:
        """Give the distribution with all logarithms larger by `by`, on the same grid."""
        grid = self.log_photons
        return _normalised(grid, np.interp(grid - by, grid, np.exp(self.log_density)))

    def down_to(self, low: float) -> PhotonPrior:
        """Let the grid begin at `low`, if that is lower, as dense there as at its old end."""
        first, last = self.log_photons[[0, -1]]
        if math.log(low) >= first:
            return self
        grid = np.linspace(math.log(low), last, _GRID)
        return _normalised(grid, np.exp(np.interp(grid, self.log_photons, self.log_density)))

    @property
    def step(self) -> float:
        """Spacing of the grid of ln N."""
        return float(self.log_photons[1] - self.log_photons[0])

    @property
    def within(self) -> tuple[float, float]:
        """Photo-electrons just inside both ends of the grid, between which the prior allows."""
        low, high = self.log_photons[[0, -1]] + 1e-3 * self.step * np.array([1.0, -1.0])
        return math.exp(low), math.exp(high)

    @property
    def cumulative(self) -> Array:
        """Distribution function on the grid, from 0 to 1."""
        density = np.exp(self.log_density)
        total = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
        return np.asarray(total / total[-1])

    @property
    def mean(self) -> float:
        """Mean photo-electrons."""
        return self._moment(1)

    @property
    def sd(self) -> float:
        """Standard deviation of the photo-electrons."""
        return math.sqrt(max(self._moment(2) - self._moment(1) ** 2, 0.0))

    @property
    def log_mean(self) -> float:
        """Mean of the natural logarithm of the photo-electrons."""
        density = np.exp(self.log_density)
        return float(np.trapezoid(density * self.log_photons, self.log_photons))

    @property
    def log_variance(self) -> float:
        """Variance of the natural logarithm of the photo-electrons."""
        apart = np.exp(self.log_density) * (self.log_photons - self.log_mean) ** 2
        return float(np.trapezoid(apart, self.log_photons))

    def _moment(self, order: int) -> float:
        density = np.exp(self.log_density + order * self.log_photons)
        return float(np.trapezoid(density, self.log_photons))

    def sample(self, size: int, generator: np.random.Generator) -> Array:
        """Draw `size` photo-electron counts (linear interpolation of the distribution function)."""
        return np.exp(np.interp(generator.random(size), self.cumulative, self.log_photons))


def _normalised(grid: Array, density: Array) -> PhotonPrior:
    return PhotonPrior(grid, np.log(density / np.trapezoid(density, grid)))


@dataclass(frozen=True)
class ScenePrior:
    """Everything believed about one frame before it is seen.

    Attributes:
        density_per_px2: expected emitters per square pixel (a Poisson process).
        photons: distribution of photo-electrons per emitter.
        background_e: prior mean of the background, photo-electrons per pixel: a number, or the
            values at a (knots_y, knots_x) grid of hat functions spread over the frame.
        background_sd_e: prior standard deviation of each coefficient; 0 keeps them fixed.
        margin_px: how far outside the frame's outer edge emitters may lie.
        relative_density: density at a place over `density_per_px2`, (scale * rows, scale *
            columns), larger than 0; None spreads emitters evenly. Outside the frame the nearest
            cell counts.

    Raises:
        InputError: a value is out of range.
    """

    density_per_px2: float
    photons: PhotonPrior
    background_e: float | Array
    background_sd_e: float
    margin_px: float = 0.0
    relative_density: Array | None = None

    def __post_init__(self) -> None:
        if self.relative_density is not None and not (
            np.all(np.isfinite(self.relative_density)) and np.all(self.relative_density > 0)
        ):
            raise InputError("relative_density must be finite and larger than 0 everywhere.")
        for name in ("density_per_px2", "background_sd_e"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name} is {value}; it must be finite and 0 or larger.")
        if self.density_per_px2 == 0:
            raise InputError("density_per_px2 is 0; no emitter could ever be found. Give > 0.")
        if np.any(~np.isfinite(np.asarray(self.background_e))) or np.any(
            np.asarray(self.background_e) < 0
        ):
            raise InputError("background_e must be finite and 0 or larger everywhere.")

    def region(self, shape: tuple[int, int]) -> tuple[float, float, float, float]:
        """Give (x_low, x_high, y_low, y_high) in px where emitters of a frame may lie."""
        rows, columns = shape
        edge = 0.5 + self.margin_px
        return (-edge, columns - 1 + edge, -edge, rows - 1 + edge)


def hat_functions(size: int, knots: int) -> Array:
    """Give linear interpolation weights from `knots` equally spaced values to `size` pixels.

    Args:
        size: number of pixels.
        knots: number of values; the first and the last sit on the first and the last pixel.

    Returns:
        Weights of shape (knots, size); every column sums to 1. A single knot weighs 1 everywhere.
    """
    if knots == 1:
        return np.ones((1, size))
    position = np.linspace(0.0, knots - 1.0, size)
    weights = 1.0 - np.abs(position[None, :] - np.arange(knots)[:, None])
    return np.maximum(weights, 0.0)
