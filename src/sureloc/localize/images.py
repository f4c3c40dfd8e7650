"""Super-resolution images with their uncertainty, summed frame by frame from posterior draws.

A draw's image is a kernel density estimate: one Gaussian of unit mass per emitter. Frames are
independent given the priors, so the posterior mean and variance of the summed image are the sums
of those of the frames, and no draw has to be kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage, special

Array = npt.NDArray[np.float64]
KERNEL_SIGMA = 1.0  # of the KDE, in pixels of the super-resolution image
LEAST_EMITTERS = 0.3  # in a window, summed over the frames
_REACH = 4


@dataclass
class ImageSums:
    """Running sums of the super-resolution images of a movie.

    Attributes:
        shape: (rows, columns) of the camera frame.
        zoom: super-resolution pixels per camera pixel and axis.
        pixel_nm: camera pixel size, nm.
        mean: sum of the posterior mean images, emitters per pixel, (zoom * rows, zoom * columns).
        variance: sum of the posterior variances, the same shape.
        widefield_e: sum of the measured frames, photo-electrons, (rows, columns).
        chi2: sum of the frames' local chi2, (rows, columns).
        frames: frames summed.
    """

    shape: tuple[int, int]
    zoom: int
    pixel_nm: float
    mean: Array = field(init=False)
    variance: Array = field(init=False)
    widefield_e: Array = field(init=False)
    chi2: Array = field(init=False)
    frames: int = 0

    def __post_init__(self) -> None:
        fine = (self.shape[0] * self.zoom, self.shape[1] * self.zoom)
        self.mean, self.variance = np.zeros(fine), np.zeros(fine)
        self.widefield_e, self.chi2 = np.zeros(self.shape), np.zeros(self.shape)

    @property
    def sd(self) -> Array:
        """Posterior standard deviation of the summed image, emitters per pixel."""
        return np.sqrt(self.variance)

    def relative_sd(self, sigma_px: tuple[float, float]) -> Array:
        """Give the pixel-wise sd over the mean within two PSF widths of every camera pixel.

        Sums over the fine pixels of the window, each by its own sd; 0 where the image holds less
        than `LEAST_EMITTERS` there, which is nothing to be unsure about.

        Args:
            sigma_px: PSF widths along columns and rows, px.
        """
        blocks = (self.shape[0], self.zoom, self.shape[1], self.zoom)
        size = [2 * round(2 * sigma) + 1 for sigma in reversed(sigma_px)]
        mean, sd = (
            ndimage.uniform_filter(image.reshape(blocks).sum((1, 3)), size, mode="constant")
            * math.prod(size)
            for image in (self.mean, self.sd)
        )
        return np.asarray(np.where(mean >= LEAST_EMITTERS, sd / np.maximum(mean, 1e-9), 0.0))

    @property
    def fine_pixel_nm(self) -> float:
        """Pixel size of the super-resolution images, nm."""
        return self.pixel_nm / self.zoom

    def add(self, draws: pd.DataFrame, number: int, electrons: Array, chi2: Array) -> None:
        """Add one frame.

        Args:
            draws: its draw table (`sureloc.table.DRAW_COLUMNS`).
            number: how many draws the table holds.
            electrons: the frame, photo-electrons, (rows, columns).
            chi2: its local chi2, (rows, columns).
        """
        pixel, mean, variance = frame_density(draws, number, self.shape, self.zoom, self.pixel_nm)
        self.mean.ravel()[pixel] += mean
        self.variance.ravel()[pixel] += variance
        self.widefield_e += electrons
        self.chi2 += chi2
        self.frames += 1


def frame_density(
    draws: pd.DataFrame, number: int, shape: tuple[int, int], zoom: int, pixel_nm: float
) -> tuple[npt.NDArray[np.int64], Array, Array]:
    """Give the posterior mean and variance of one frame's KDE where it is not zero.

    Returns:
        Flat pixel indices of the super-resolution image, and mean and variance (over draws, with
        number - 1 in the denominator) of the emitters per pixel there.
    """
    height, width = shape[0] * zoom, shape[1] * zoom
    x = (draws["x_nm"].to_numpy() / pixel_nm + 0.5) * zoom - 0.5
    y = (draws["y_nm"].to_numpy() / pixel_nm + 0.5) * zoom - 0.5
    column, along_x = _kernel(x)
    row, along_y = _kernel(y)
    value = along_y[:, :, None] * along_x[:, None, :]
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[
        :, None, :
    ]
    pixel = row[:, :, None] * width + column[:, None, :]
    key = pixel * number + draws["draw"].to_numpy()[:, None, None]
    keys, where = np.unique(key[inside], return_inverse=True)
    per_draw = np.bincount(where, value[inside], keys.size)
    pixels, of_pixel = np.unique(keys // number, return_inverse=True)
    mean = np.bincount(of_pixel, per_draw, pixels.size) / number
    square = np.bincount(of_pixel, per_draw**2, pixels.size) / number
    correction = number / max(number - 1, 1)
    return pixels, mean, np.maximum(square - mean**2, 0.0) * correction


def _kernel(position: Array) -> tuple[npt.NDArray[np.int64], Array]:
    nearest = np.rint(position).astype(np.int64)
    pixel = nearest[:, None] + np.arange(-_REACH, _REACH + 1)
    edge = pixel[:, :1] - 0.5 + np.arange(2 * _REACH + 2) - position[:, None]
    return pixel, np.diff(special.ndtr(edge / KERNEL_SIGMA), axis=1)
