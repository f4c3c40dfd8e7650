"""Backgrounds: even, smoothly uneven, and structured by what lies out of focus."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from sureloc.simulate.recipe import (
    BackgroundRecipe,
    ConstantBackground,
    FrameRecipe,
    SmoothBackground,
    StructuredBackground,
)
from sureloc.simulate.scenes import Field, worm_like_curve

Map = npt.NDArray[np.float64]


def background_map(
    background: BackgroundRecipe, frame: FrameRecipe, rng: np.random.Generator
) -> Map:
    """Draw the expected background.

    Returns:
        Detected photons per pixel, 0 or larger, shape (rows, columns); its mean over the frame is
        the recipe's `photons_per_px`.
    """
    shape = frame.height, frame.width
    match background:
        case ConstantBackground():
            return np.full(shape, background.photons_per_px)
        case SmoothBackground():
            log_sd = math.sqrt(math.log1p(background.relative_sd**2))
            field = np.exp(log_sd * smooth_field(shape, background.length_px, rng))
            return np.asarray(background.photons_per_px * field / field.mean())
        case StructuredBackground():
            blur = _defocused_filaments(background, frame, rng)
            share = background.structured_share
            relative = share * blur / blur.mean() + 1 - share
            return np.asarray(background.photons_per_px * relative)


def smooth_field(shape: tuple[int, int], length_px: float, rng: np.random.Generator) -> Map:
    """Draw a stationary Gaussian field of mean 0 and variance 1.

    White noise smoothed by a Gaussian of sd `length_px`; its autocorrelation is a Gaussian of sd
    sqrt(2) length_px.
    """
    # Noise beyond the frame keeps the field stationary up to the edge.
    reach = math.ceil(4 * length_px)
    noise = rng.normal(size=(shape[0] + 2 * reach, shape[1] + 2 * reach))
    smooth = gaussian_filter(noise, length_px, mode="wrap")[reach:-reach, reach:-reach]
    # A sum of white noise with the squared weights of a two-dimensional Gaussian.
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / length_px) ** 2)
    weights /= weights.sum()
    return np.asarray(smooth / (weights**2).sum())


def _defocused_filaments(
    background: StructuredBackground, frame: FrameRecipe, rng: np.random.Generator
) -> Map:
    reach = math.ceil(4 * background.defocus_px)
    wide = frame.model_copy(update={"margin_px": float(reach)})
    field = Field.of(wide)
    length_nm = 2 * math.hypot(frame.height + 2 * reach, frame.width + 2 * reach) * frame.pixel_nm
    curves = [
        worm_like_curve(middle, length_nm, background.persistence_um * 1e3, rng)
        for middle in field.uniform(background.filaments, rng)
    ]
    points = np.concatenate(curves) / frame.pixel_nm + reach
    counts, _, _ = np.histogram2d(
        points[:, 1],
        points[:, 0],
        bins=(frame.height + 2 * reach, frame.width + 2 * reach),
        range=(
            (-0.5, frame.height + 2 * reach - 0.5),
            (-0.5, frame.width + 2 * reach - 0.5),
        ),
    )
    blurred = gaussian_filter(counts, background.defocus_px, mode="constant", truncate=8.0)
    # Far from every filament little is left; a floor keeps the mean larger than 0.
    return np.asarray(blurred[reach:-reach, reach:-reach]) + 1e-12
