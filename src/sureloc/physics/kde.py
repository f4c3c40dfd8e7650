"""Kernel density images of emitters at four times the camera's sampling: made, and read back.

An image holds, for every emitter, one Gaussian integrated over the fine pixels, so that its values
are mass per fine pixel and an emitter far from every edge sums to its mass (1 unless said
otherwise). Nothing is normalised to a peak; `display_range` gives the [-1, 1] of the paper.

Fine pixel j along an axis covers the camera coordinate (j + 0.5) / 4 - 0.5, in camera pixels with
the centre of a pixel at its integer index.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from scipy.special import erf
from torch import Tensor

from sureloc.physics.image import render_frames
from sureloc.physics.psf import GaussianPSF

UPSAMPLING = 4
KERNEL_SIGMA_FINE_PX = 1.0  # 25 nm at 100 nm pixels: about the precision that draws can carry


def fine_px(camera_px: Tensor) -> Tensor:
    """Turn camera coordinates (px) into coordinates of the fine grid."""
    return UPSAMPLING * camera_px + (UPSAMPLING - 1) / 2


def camera_px(fine: Tensor) -> Tensor:
    """Turn coordinates of the fine grid into camera coordinates (px), undoing `fine_px`."""
    return (fine - (UPSAMPLING - 1) / 2) / UPSAMPLING


def render_kde(
    x_px: Float[Tensor, " emitters"],
    y_px: Float[Tensor, " emitters"],
    mass: Float[Tensor, " emitters"],
    image: Int[Tensor, " emitters"],
    shape: tuple[int, int, int],
    sigma_fine_px: float = KERNEL_SIGMA_FINE_PX,
) -> Float[Tensor, "images fine_height fine_width"]:
    """Render emitters as kernel density images (DeepSTORM3D, Nehme 2020; seed 3.4).

    Args:
        x_px, y_px: positions, camera px; they may lie outside the frame.
        mass: what each emitter's kernel sums to; 1 for density, a photon count for brightness.
        image: index of each emitter's image, in [0, images).
        shape: (images, rows, columns) in camera pixels.
        sigma_fine_px: standard deviation of the kernel, fine px.

    Returns:
        Mass per fine pixel, 4 x rows by 4 x columns.

    Raises:
        InputError: the kernel's width is not larger than 0.
    """
    images, height, width = shape
    return render_frames(
        fine_px(x_px),
        fine_px(y_px),
        mass,
        image,
        GaussianPSF.round(sigma_fine_px),
        (images, UPSAMPLING * height, UPSAMPLING * width),
    )


def read_emitters(
    kde: Float[Tensor, "fine_height fine_width"],
    sigma_fine_px: float = KERNEL_SIGMA_FINE_PX,
    least_mass: float = 0.2,
) -> tuple[Float[Tensor, " found"], Float[Tensor, " found"], Float[Tensor, " found"]]:
    """Find the emitters behind an image without noise, undoing `render_kde`.

    Emitters are added one at a time where the image exceeds what those found so far explain, and
    all are refitted together by least squares, so that pairs are parted which make one maximum.

    Args:
        kde: mass per fine pixel.
        sigma_fine_px: standard deviation of the kernel, fine px.
        least_mass: of an emitter; where less than its peak is left over, the search ends.

    Returns:
        x, y in camera px and mass of each emitter, in the order of discovery; float64.
    """
    from scipy.optimize import least_squares  # slow to import, and drawing needs none

    image = kde.detach().cpu().double().numpy()
    rest, found = image, np.zeros((0, 3))
    most = image.sum() / least_mass  # more cannot be in it, so that the search ends on anything
    while len(found) < most and rest.max() > least_mass * peak_of_one(sigma_fine_px):
        row, column = np.unravel_index(rest.argmax(), rest.shape)
        start = np.vstack([found, [column, row, rest.max() / peak_of_one(sigma_fine_px)]])
        fit = least_squares(
            lambda p: (_image_of(p.reshape(-1, 3), image, sigma_fine_px) - image).ravel(),
            start.ravel(),
            xtol=1e-12,
            ftol=1e-12,
            gtol=1e-12,
        )
        found = fit.x.reshape(-1, 3)
        rest = image - _image_of(found, image, sigma_fine_px)
    x, y, mass = torch.from_numpy(found).T
    return camera_px(x), camera_px(y), mass.clone()


def _image_of(
    emitters: npt.NDArray[np.float64], like: npt.NDArray[np.float64], sigma: float
) -> npt.NDArray[np.float64]:
    across, down = (
        0.5 * np.diff(erf((np.arange(size + 1) - 0.5 - at[:, None]) / (math.sqrt(2) * sigma)))
        for size, at in ((like.shape[1], emitters[:, 0]), (like.shape[0], emitters[:, 1]))
    )
    image: npt.NDArray[np.float64] = np.einsum("e,er,ec->rc", emitters[:, 2], down, across)
    return image


def peak_of_one(sigma_fine_px: float = KERNEL_SIGMA_FINE_PX) -> float:
    """Give the largest value that one emitter of mass 1 can have: centred on a fine pixel."""
    return math.erf(0.5 / (math.sqrt(2.0) * sigma_fine_px)) ** 2


def display_range(
    kde: Float[Tensor, "*shape"], sigma_fine_px: float = KERNEL_SIGMA_FINE_PX
) -> Float[Tensor, "*shape"]:
    """Scale mass per fine pixel to the paper's [-1, 1]: empty is -1, one centred emitter is 1.

    The scale is the same for every image, so brightness is kept; what exceeds one emitter's peak,
    as where kernels overlap, is clipped to 1 as the paper's HardTanh does.
    """
    return (2.0 * kde / peak_of_one(sigma_fine_px) - 1.0).clamp(-1.0, 1.0)


def from_display_range(
    scaled: Float[Tensor, "*shape"], sigma_fine_px: float = KERNEL_SIGMA_FINE_PX
) -> Float[Tensor, "*shape"]:
    """Undo `display_range` where nothing was clipped."""
    return (scaled + 1.0) * (0.5 * peak_of_one(sigma_fine_px))
