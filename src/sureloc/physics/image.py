"""Expected images: emitters and background in, photo-electrons per pixel out (seed eqs. 2, 10)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sureloc.physics.psf import PSF


def pixel_axes(
    shape: tuple[int, int], like: Tensor
) -> tuple[Float[Tensor, " width"], Float[Tensor, " height"]]:
    """Give the column and row indices of a frame of shape (rows, columns), typed as `like`."""
    height, width = shape
    return (
        torch.arange(width, dtype=like.dtype, device=like.device),
        torch.arange(height, dtype=like.dtype, device=like.device),
    )


def render_frames(
    x_px: Float[Tensor, " emitters"],
    y_px: Float[Tensor, " emitters"],
    photons: Float[Tensor, " emitters"],
    frame: Int[Tensor, " emitters"],
    psf: PSF,
    shape: tuple[int, int, int],
) -> Float[Tensor, "frames height width"]:
    """Render scattered emitters into a stack of frames, each on a patch around itself.

    Args:
        x_px, y_px: positions, px; they may lie outside the frame.
        photons: expected photo-electrons of each emitter.
        frame: index of each emitter's frame, in [0, frames).
        psf: the point-spread function; per-emitter widths are allowed.
        shape: (frames, rows, columns).

    Returns:
        Expected photo-electrons without background. Less than 1e-6 of an emitter's flux (5e-8 for
        a Gaussian) is lost to the patch's edge.
    """
    frames, height, width = shape
    if x_px.numel() == 0:
        return torch.zeros(shape, dtype=x_px.dtype, device=x_px.device)
    radius = math.ceil(psf.support_radius_px)
    reach = torch.arange(-radius, radius + 1, device=x_px.device)
    columns = x_px.round().long()[:, None] + reach
    rows = y_px.round().long()[:, None] + reach
    patches = psf.images(x_px, y_px, columns.to(x_px.dtype), rows.to(x_px.dtype))
    patches = patches * photons[:, None, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    index = (
        frame.long()[:, None, None] * (height * width)
        + rows.clamp(0, height - 1)[:, :, None] * width
        + columns.clamp(0, width - 1)[:, None, :]
    )
    flat = torch.zeros(frames * height * width, dtype=x_px.dtype, device=x_px.device)
    flat.index_add_(0, index.flatten(), (patches * inside).flatten())
    return flat.view(shape)


def render_tiles(
    x_px: Float[Tensor, "tiles emitters"],
    y_px: Float[Tensor, "tiles emitters"],
    photons: Float[Tensor, "tiles emitters"],
    psf: PSF,
    shape: tuple[int, int],
) -> Float[Tensor, "tiles height width"]:
    """Render padded lists of emitters over whole tiles, nothing truncated.

    Args:
        x_px, y_px: positions, px.
        photons: expected photo-electrons; 0 for padding.
        psf: the point-spread function.
        shape: (rows, columns) of every tile.

    Returns:
        Expected photo-electrons without background.
    """
    columns, rows = pixel_axes(shape, x_px)
    images = psf.images(x_px, y_px, columns, rows)
    return torch.einsum("bk,bkhw->bhw", photons, images)
