"""Pictures of a table of localizations, with every pixel's value in molecules per pixel.

A canvas is a grid of square pixels anywhere in the sample. On it a table becomes a histogram or a
sum of Gaussians, each as wide as its row is uncertain, and a table of posterior draws becomes a
mean with a standard deviation. Positions follow `sureloc.table`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from sureloc.errors import InputError
from sureloc.limits import check_limit
from sureloc.localize.columns import by_frame, columns_of
from sureloc.localize.images import frame_density

Array = npt.NDArray[np.float64]

LARGEST_SIDE_PX = 20_000
REACH_SIGMAS = 5.0  # of a Gaussian; 6e-7 of its mass lies beyond and is put back inside
LEAST_SIGMA_PX = 1e-3  # a certain position still falls into one pixel
_VALUES_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Canvas:
    """A grid of square pixels in the sample.

    Attributes:
        left_nm: x of the outer edge of its first column, nm.
        top_nm: y of the outer edge of its first row, nm.
        pixel_nm: side of a pixel, nm.
        rows: number of pixels along y.
        columns: number of pixels along x.
    """

    left_nm: float
    top_nm: float
    pixel_nm: float
    rows: int
    columns: int

    @classmethod
    def between(
        cls, x_nm: tuple[float, float], y_nm: tuple[float, float], pixel_nm: float
    ) -> Canvas:
        """Give the canvas of a rectangle, whose lower edges it keeps and upper edges it reaches.

        Args:
            x_nm, y_nm: lower and upper edges along columns and rows.
            pixel_nm: side of a pixel, nm.

        Raises:
            InputError: the pixels are no positive number, or there would be none or too many.
        """
        check_limit("image_pixel_nm", pixel_nm)
        # A rectangle of whole pixels must not get one more for a rounding error.
        sides = [max(0, math.ceil((high - low) / pixel_nm - 1e-6)) for low, high in (y_nm, x_nm)]
        if not all(1 <= side <= LARGEST_SIDE_PX for side in sides):
            raise InputError(
                f"The image would have {sides[0]:,} x {sides[1]:,} pixels of {pixel_nm:g} nm; 1 to "
                f"{LARGEST_SIDE_PX:,} a side are possible. Change --pixel-nm or --zoom, or cut a "
                "part with --roi."
            )
        return cls(x_nm[0], y_nm[0], pixel_nm, sides[0], sides[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    def place(self, x_nm: Array, y_nm: Array) -> tuple[Array, Array]:
        """Give positions in pixels, where the centre of the first pixel is (0, 0)."""
        return (
            (x_nm - self.left_nm) / self.pixel_nm - 0.5,
            (y_nm - self.top_nm) / self.pixel_nm - 0.5,
        )

    def holds(self, x_nm: Array, y_nm: Array) -> npt.NDArray[np.bool_]:
        """Tell which positions fall into a pixel, edges as `histogram` takes them."""
        x, y = (np.floor(p + 0.5) for p in self.place(x_nm, y_nm))
        return np.asarray((x >= 0) & (x < self.columns) & (y >= 0) & (y < self.rows))


def histogram(x_nm: Array, y_nm: Array, canvas: Canvas, weight: Array | None = None) -> Array:
    """Count positions in pixels.

    Args:
        x_nm, y_nm: positions, (n,).
        canvas: the pixels.
        weight: of each position, (n,); 1 without it.

    Returns:
        Sum of the weights in every pixel, (rows, columns).
    """
    x, y = (np.floor(p + 0.5) for p in canvas.place(x_nm, y_nm))
    inside = canvas.holds(x_nm, y_nm)
    flat = (y[inside] * canvas.columns + x[inside]).astype(np.int64)
    counts = np.bincount(
        flat, None if weight is None else weight[inside], canvas.rows * canvas.columns
    )
    return counts.astype(np.float64).reshape(canvas.shape)


def gaussians(
    x_nm: Array,
    y_nm: Array,
    sigma_x_nm: Array,
    sigma_y_nm: Array,
    canvas: Canvas,
    weight: Array | None = None,
    cov_xy_nm2: Array | None = None,
) -> Array:
    """Sum Gaussians, integrated over the pixels.

    Along x the integral over a column is exact. Along y it is that of a Gaussian with mean and
    variance that y has in this column, so that mass, means, variances and, up to the width of a
    column, the covariance of every Gaussian are kept.

    Args:
        x_nm, y_nm: their centres, (n,).
        sigma_x_nm, sigma_y_nm: their standard deviations, (n,).
        canvas: the pixels.
        weight: their masses, (n,); 1 without it.
        cov_xy_nm2: their covariances, (n,); 0 without it.

    Returns:
        Mass in every pixel, (rows, columns); what falls beside the canvas is lost.

    Raises:
        InputError: a sigma is no number or negative, or a covariance is larger than they allow.
    """
    count = x_nm.size
    weight = np.ones(count) if weight is None else weight
    cov = np.zeros(count) if cov_xy_nm2 is None else cov_xy_nm2
    _check_covariances(sigma_x_nm, sigma_y_nm, cov)
    x, y = canvas.place(x_nm, y_nm)
    sx, sy = (np.maximum(s / canvas.pixel_nm, LEAST_SIGMA_PX) for s in (sigma_x_nm, sigma_y_nm))
    slope = cov / canvas.pixel_nm**2 / sx**2
    image = np.zeros(canvas.rows * canvas.columns)
    reach = np.ceil(REACH_SIGMAS * np.maximum(sx, sy)).astype(np.int64)
    near = (
        (x > -reach - 1)
        & (x < canvas.columns + reach)
        & (y > -reach - 1)
        & (y < canvas.rows + reach)
    )
    # Rows of about equal width share one array of pixels; steps of a quarter waste little.
    steps = np.ceil(np.log(np.maximum(reach, 1)) / math.log(1.25))
    size = np.where(near, np.ceil(1.25**steps), 0).astype(np.int64)
    for half in np.unique(size[near]):
        members = np.flatnonzero(size == half)
        step = max(1, _VALUES_AT_ONCE // int(2 * half + 1) ** 2)
        for first in range(0, members.size, step):
            at = members[first : first + step]
            _add(image, canvas, x[at], y[at], sx[at], sy[at], slope[at], weight[at], int(half))
    return image.reshape(canvas.shape)


def _check_covariances(sigma_x: Array, sigma_y: Array, cov: Array) -> None:
    bad = ~(np.isfinite(sigma_x) & np.isfinite(sigma_y) & (sigma_x >= 0) & (sigma_y >= 0))
    bad |= ~(np.abs(cov) <= sigma_x * sigma_y * (1 + 1e-9))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"Row {row} has sigmas {sigma_x[row]:g} and {sigma_y[row]:g} nm and covariance "
            f"{cov[row]:g} nm^2 ({int(bad.sum())} such rows); sigmas must be 0 or larger, and the "
            "covariance no larger than their product. Leave these rows out, or draw a histogram."
        )


def _add(
    image: Array,
    canvas: Canvas,
    x: Array,
    y: Array,
    sx: Array,
    sy: Array,
    slope: Array,
    weight: Array,
    half: int,
) -> None:
    """Add Gaussians (pixels) that reach `half` pixels to each side to a flat image."""
    offsets = np.arange(-half, half + 1)
    column = np.rint(x).astype(np.int64)[:, None] + offsets
    row = np.rint(y).astype(np.int64)[:, None] + offsets
    low = (column - 0.5 - x[:, None]) / sx[:, None]
    high = low + 1.0 / sx[:, None]
    mass = special.ndtr(high) - special.ndtr(low)
    mass /= mass.sum(1, keepdims=True)
    edge = np.concatenate([row - 0.5, row[:, -1:] + 0.5], axis=1)
    if not slope.any():
        along_y = np.diff(special.ndtr((edge - y[:, None]) / sy[:, None]), axis=1)
        along_y /= along_y.sum(1, keepdims=True)
        _add_values(image, canvas, row, column, along_y[:, :, None], weight[:, None] * mass)
        return
    # Mean and variance of a normal variable that lies between low and high.
    pdf_low, pdf_high = (np.exp(-0.5 * e**2) / math.sqrt(2 * math.pi) for e in (low, high))
    held = np.maximum(mass, 1e-300)
    mean = np.clip((pdf_low - pdf_high) / held, low, high)
    second = 1.0 + (low * pdf_low - high * pdf_high) / held
    inner = np.clip(second - mean**2, 0.0, 1.0)
    y_mean = y[:, None] + slope[:, None] * sx[:, None] * mean
    rest = np.maximum(sy**2 - (slope * sx) ** 2, 0.0)[:, None]
    y_sd = np.sqrt(np.maximum(rest + (slope * sx)[:, None] ** 2 * inner, LEAST_SIGMA_PX**2))
    share = np.diff(
        special.ndtr((edge[:, :, None] - y_mean[:, None, :]) / y_sd[:, None, :]), axis=1
    )
    share /= np.maximum(share.sum(1, keepdims=True), 1e-300)
    _add_values(image, canvas, row, column, share, weight[:, None] * mass)


def _add_values(
    image: Array,
    canvas: Canvas,
    row: npt.NDArray[np.int64],
    column: npt.NDArray[np.int64],
    along_y: Array,
    along_x: Array,
) -> None:
    """Add products of shares along y (n, rows, columns or 1) and masses along x (n, columns)."""
    value = along_y * along_x[:, None, :]
    inside = ((row >= 0) & (row < canvas.rows))[:, :, None] & (
        (column >= 0) & (column < canvas.columns)
    )[:, None, :]
    pixel = row[:, :, None] * canvas.columns + column[:, None, :]
    image += np.bincount(pixel[inside], value[inside], image.size)


def row_gaussians(table: pd.DataFrame, canvas: Canvas, weight: Array | None = None) -> Array:
    """Sum the Gaussians of a table's rows, each with its own precision.

    Args:
        table: rows with `x_nm`, `y_nm`, `sigma_x_nm`, `sigma_y_nm` and, if known, `cov_xy_nm2`.
        canvas: the pixels.
        weight: of each row; 1 without it.
    """
    names = ("x_nm", "y_nm", "sigma_x_nm", "sigma_y_nm")
    x, y, sx, sy = (table[name].to_numpy(float) for name in names)
    cov = table["cov_xy_nm2"].to_numpy(float) if "cov_xy_nm2" in table else None
    return gaussians(x, y, sx, sy, canvas, weight, cov)


def posterior_image(
    draws: pd.DataFrame, number: int, canvas: Canvas, kernel_px: float = 0.0
) -> tuple[Array, Array]:
    """Give mean and standard deviation of a movie's image over its posterior draws.

    Frames are independent given the priors: means and variances of the frames' images add up
    (`sureloc.localize.images`).

    Args:
        draws: rows with `sureloc.table.DRAW_COLUMNS`.
        number: how many draws there are.
        canvas: the pixels.
        kernel_px: standard deviation of the Gaussian that stands for a molecule, pixels of the
            canvas; 0 counts molecules in pixels, so that the mean is that of the histograms.

    Returns:
        Molecules per pixel and their standard deviation, both (rows, columns).

    Raises:
        InputError: there are fewer than two draws.
    """
    if number < 2:
        raise InputError(f"There are {number} draws; a standard deviation needs two or more.")
    mean, variance = np.zeros(canvas.rows * canvas.columns), np.zeros(canvas.rows * canvas.columns)
    half = 0.5 * canvas.pixel_nm
    moved = draws.assign(
        x_nm=draws["x_nm"] - canvas.left_nm - half, y_nm=draws["y_nm"] - canvas.top_nm - half
    )
    for frame in by_frame(columns_of(moved)):
        pixel, one, spread = frame_density(
            frame, number, canvas.shape, 1, canvas.pixel_nm, kernel_px=kernel_px
        )
        mean[pixel] += one
        variance[pixel] += spread
    return mean.reshape(canvas.shape), np.sqrt(variance).reshape(canvas.shape)


def mean_value(image: Array, weighted: Array) -> Array:
    """Give what a coloured picture shows: mean of a value over what falls into every pixel.

    Args:
        image: sum of the weights, (rows, columns).
        weighted: sum of weight times value, (rows, columns).

    Returns:
        weighted / image, NaN where the image is empty, (rows, columns).
    """
    empty = np.full(image.shape, np.nan)
    return np.asarray(np.divide(weighted, image, out=empty, where=image > 0))
