"""Super-resolution images with their uncertainty, summed frame by frame from posterior draws.

A draw's image is a kernel density estimate: one Gaussian of unit mass per emitter. Frames are
independent given the priors, so the posterior mean and variance of the summed image are the sums
of those of the frames. Frames of large cameras are summed band by band, so that memory does not
grow with their area.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage, special

from sureloc.compiled.density import density_of_draws
from sureloc.localize.columns import Columns

Array = npt.NDArray[np.float64]
KERNEL_SIGMA = 1.0  # of the KDE, in pixels of the super-resolution image
LEAST_EMITTERS = 0.3  # in a window, summed over the frames
FINE_PX = 2**24  # super-resolution pixels in memory at a time
BAND_ROWS = 1024  # bands of larger images are multiples of so many rows
COUNTED_PX = 2**21  # of draws' images in memory at a time
_REACH = 4


@dataclass
class ImageSums:
    """Running sums of a movie on its camera's pixels.

    Attributes:
        shape: (rows, columns) of the camera frame.
        zoom: super-resolution pixels per camera pixel and axis.
        pixel_nm: camera pixel size, nm.
        window_px: rows and columns, odd, in which emitters are counted round every camera pixel.
        widefield_e: sum of the measured frames, photo-electrons, (rows, columns).
        chi2: sum of the frames' local chi2, (rows, columns).
        count, count_variance: posterior mean and variance of that number, summed over frames,
            (rows, columns).
        frames: frames summed.
    """

    shape: tuple[int, int]
    zoom: int
    pixel_nm: float
    window_px: tuple[int, int] = (5, 5)
    widefield_e: Array = field(init=False)
    chi2: Array = field(init=False)
    count: Array = field(init=False)
    count_variance: Array = field(init=False)
    frames: int = 0

    def __post_init__(self) -> None:
        self.widefield_e, self.chi2 = np.zeros(self.shape), np.zeros(self.shape)
        self.count, self.count_variance = np.zeros(self.shape), np.zeros(self.shape)

    @property
    def doubt(self) -> Array:
        """Posterior sd over mean of the number of emitters in a window round every camera pixel.

        A molecule at a window's border may be in one draw inside and in another outside, although
        it surely exists; the window one pixel farther holds it in all. So of the windows up to a
        pixel away the surest counts. 0 where fewer than `LEAST_EMITTERS` are expected: nothing to
        be in doubt about.
        """
        seen = self.count >= LEAST_EMITTERS
        sd = np.sqrt(self.count_variance)
        ratio = np.divide(sd, self.count, out=np.full_like(sd, np.inf), where=seen)
        surest = ndimage.minimum_filter(ratio, size=3, mode="constant", cval=np.inf)
        return np.where(seen, surest, 0.0)

    @property
    def fine_shape(self) -> tuple[int, int]:
        """(rows, columns) of the super-resolution images."""
        return self.shape[0] * self.zoom, self.shape[1] * self.zoom

    @property
    def fine_pixel_nm(self) -> float:
        """Pixel size of the super-resolution images, nm."""
        return self.pixel_nm / self.zoom

    def count_emitters(self, draws: Columns, number: int) -> None:
        """Add the emitters of one frame, as `number` draws have them."""
        count, variance = window_counts(draws, number, self.shape, self.window_px, self.pixel_nm)
        self.count += count
        self.count_variance += variance


def counting_window(sigma_px: tuple[float, float]) -> tuple[int, int]:
    """Give rows and columns, odd, of the window in which emitters are counted."""
    return 2 * round(2 * sigma_px[1]) + 1, 2 * round(2 * sigma_px[0]) + 1


@dataclass
class FineBand:
    """Running sums of the super-resolution images of a movie, or of some of their rows.

    Attributes:
        shape: (rows, columns) of the camera frame.
        zoom: super-resolution pixels per camera pixel and axis.
        pixel_nm: camera pixel size, nm.
        rows: (first, last + 1) rows of the super-resolution image; all without them.
        mean: sum of the posterior mean images, emitters per pixel, (rows, zoom * columns).
        variance: sum of the posterior variances, the same shape.
    """

    shape: tuple[int, int]
    zoom: int
    pixel_nm: float
    rows: tuple[int, int] = (0, 0)
    mean: Array = field(init=False)
    variance: Array = field(init=False)

    def __post_init__(self) -> None:
        if self.rows == (0, 0):
            self.rows = (0, self.shape[0] * self.zoom)
        size = (self.rows[1] - self.rows[0], self.shape[1] * self.zoom)
        self.mean, self.variance = np.zeros(size), np.zeros(size)

    @property
    def sd(self) -> Array:
        """Posterior standard deviation of the summed image, emitters per pixel."""
        return np.sqrt(self.variance)

    @property
    def camera_rows(self) -> tuple[int, int]:
        """(first, last + 1) camera rows whose emitters reach into the band."""
        first, last = self.rows
        return (
            max((first - _REACH - 1) // self.zoom, 0),
            min(-(-(last + _REACH + 1) // self.zoom), self.shape[0]),
        )

    def add(self, draws: Columns, number: int) -> None:
        """Add one frame, of which these are `number` draws (`sureloc.table.DRAW_COLUMNS`)."""
        pixel, mean, variance = frame_density(
            draws, number, self.shape, self.zoom, self.pixel_nm, self.rows
        )
        self.mean.ravel()[pixel] += mean
        self.variance.ravel()[pixel] += variance


def fine_bands(shape: tuple[int, int], zoom: int) -> list[tuple[int, int]]:
    """Cut the rows of a super-resolution image into bands of about `FINE_PX` pixels."""
    height, width = shape[0] * zoom, shape[1] * zoom
    if height * width <= FINE_PX:
        return [(0, height)]
    rows = max(FINE_PX // width // BAND_ROWS, 1) * BAND_ROWS
    return [(first, min(first + rows, height)) for first in range(0, height, rows)]


def window_counts(
    draws: Columns,
    number: int,
    shape: tuple[int, int],
    window_px: tuple[int, int],
    pixel_nm: float,
) -> tuple[Array, Array]:
    """Give the posterior mean and variance of the emitters in a window round every pixel.

    Returns:
        Both of shape (rows, columns); the variance over draws has number - 1 in its denominator.
    """
    row, column = (np.rint(draws[name] / pixel_nm).astype(np.int64) for name in ("y_nm", "x_nm"))
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    draw, row, column = draws["draw"][inside], row[inside], column[inside]
    total, square = np.zeros(shape), np.zeros(shape)
    together = max(1, COUNTED_PX // math.prod(shape))
    for first in range(0, number, together):
        size = (min(together, number - first), *shape)
        mine = (draw >= first) & (draw < first + together)
        flat = np.ravel_multi_index((draw[mine] - first, row[mine], column[mine]), size)
        images = np.bincount(flat, minlength=math.prod(size)).reshape(size).astype(np.float64)
        here = ndimage.uniform_filter(images, (1, *window_px), mode="constant")
        # Sums of ones: whole numbers, but for the filter's rounding.
        here = np.rint(here * math.prod(window_px))
        total += here.sum(0)
        square += (here**2).sum(0)
    mean = total / number
    spread = np.maximum(square / number - mean**2, 0.0) * number / max(number - 1, 1)
    return mean, spread


def frame_density(
    draws: Columns,
    number: int,
    shape: tuple[int, int],
    zoom: int,
    pixel_nm: float,
    rows: tuple[int, int] | None = None,
    kernel_px: float = KERNEL_SIGMA,
) -> tuple[npt.NDArray[np.int64], Array, Array]:
    """Give the posterior mean and variance of one frame's KDE where it is not zero.

    Args:
        draws: the frame's draws.
        number: how many they are.
        shape: (rows, columns) of the camera frame.
        zoom: super-resolution pixels per camera pixel and axis.
        pixel_nm: camera pixel size, nm.
        rows: (first, last + 1) rows of the super-resolution image that are asked for, or all.
        kernel_px: standard deviation of the KDE, super-resolution pixels; 0 counts emitters.

    Returns:
        Flat pixel indices of those rows, and mean and variance (over draws, with number - 1 in the
        denominator) of the emitters per pixel there.
    """
    first, last = rows or (0, shape[0] * zoom)
    height, width = last - first, shape[1] * zoom
    x = (draws["x_nm"] / pixel_nm + 0.5) * zoom - 0.5
    y = (draws["y_nm"] / pixel_nm + 0.5) * zoom - 0.5
    reach = max(1, math.ceil(_REACH * kernel_px))
    near = np.flatnonzero((np.rint(y) >= first - reach) & (np.rint(y) < last + reach))
    near = near[np.argsort(draws["draw"][near], kind="stable")]
    column, along_x = _kernel(x[near], kernel_px)
    row, along_y = _kernel(y[near], kernel_px)
    draw = draws["draw"][near].astype(np.int64)
    pixels, mean, square = density_of_draws(
        row - first, column, along_y, along_x, draw, number, height, width
    )
    correction = number / max(number - 1, 1)
    return pixels, mean, np.maximum(square - mean**2, 0.0) * correction


def _kernel(position: Array, sigma_px: float) -> tuple[npt.NDArray[np.int64], Array]:
    """Give the first pixel that a kernel reaches, (n,), and its mass in it and the next, (n, k)."""
    if sigma_px == 0:
        # As `numpy.histogram` does, a pixel holds its lower edge.
        return np.floor(position + 0.5).astype(np.int64), np.ones((position.size, 1))
    reach = math.ceil(_REACH * sigma_px)
    first = np.rint(position).astype(np.int64) - reach
    edge = (first - 0.5 - position)[:, None] + np.arange(2 * reach + 2)
    return first, np.diff(special.ndtr(edge / sigma_px), axis=1)
