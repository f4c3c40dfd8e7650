"""What the networks propose for a frame: where chains begin, and where they look for emitters.

Chains give the right posterior from any start and with any guide; these make them arrive sooner.
Each draw of Psi is one guess at the whole frame, so that chains begin as far apart as the frame
leaves it open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from sureloc.networks.posterior import posterior_images
from sureloc.networks.weights import Networks
from sureloc.physics.kde import camera_px, peak_of_one
from sureloc.physics.psf import GaussianPSF
from sureloc.physics.referee import FrameData

Array = npt.NDArray[np.float64]

START_EVALUATIONS = 4  # of Psi a draw: chains forget where they began, and need no more
LEAST_PEAK = 0.4  # of one emitter's: lower maxima of a draw are its noise
FAINTEST = 0.2  # of the mean brightness, for a start
GUIDE_FLOOR = 0.3  # share of births that the guide spreads evenly


@dataclass(frozen=True)
class Proposals:
    """What the networks say about one frame.

    Attributes:
        starts: emitters of each draw, (n, 3): x px, y px, photo-electrons.
        guide: relative density of births, four values a pixel along each axis.
    """

    starts: list[Array]
    guide: Array


def within_training(networks: Networks, sigma_px: tuple[float, float]) -> bool:
    """Tell whether the networks have seen PSFs of this width; False too if the card is silent."""
    try:
        low, high = networks.card.training["psi"]["recipe"]["conditions"]["sigma_px"]
    except (KeyError, TypeError, ValueError):
        return False
    return all(low <= sigma <= high for sigma in sigma_px)


def propose(
    networks: Networks,
    data: FrameData,
    background_e: Array,
    sigma_px: tuple[float, float],
    mean_photons: float,
    draws: int,
    seed: int,
    frame: int,
) -> Proposals:
    """Ask phi and Psi about one frame.

    Args:
        networks: trained networks.
        data: the frame; pixels to ignore are replaced by the background.
        background_e: expected background, photo-electrons, (rows, columns).
        sigma_px: PSF widths along columns and rows, px.
        mean_photons: typical photo-electrons of an emitter, which faint fits lean to.
        draws: how many starts.
        seed: the user's seed.
        frame: names the random streams.
    """
    ignored = np.zeros(data.electrons.shape, bool) if data.ignore is None else data.ignore
    electrons = np.where(ignored, background_e, data.electrons)
    width = math.sqrt(sigma_px[0] * sigma_px[1])
    images = posterior_images(
        networks,
        torch.from_numpy(electrons)[None].float(),
        torch.from_numpy(np.ascontiguousarray(data.read_variance_e2)).float(),
        width,
        data.excess_noise,
        draws,
        seed,
        [frame],
        min(START_EVALUATIONS, networks.card.draws.evaluations),
    )
    kernel = networks.card.kernel_sigma_fine_px
    starts = []
    for image in images.draws[0].cpu().double().numpy():
        x, y = maxima(image, LEAST_PEAK * peak_of_one(kernel))
        photons = brightness(x, y, electrons - background_e, data, sigma_px, mean_photons)
        starts.append(np.stack([x, y, photons], axis=1))
    yhat = np.maximum(images.yhat[0].cpu().double().numpy(), 0.0)
    total = max(float(yhat.sum()), 1e-9)
    guide = (1 - GUIDE_FLOOR) * yhat / total + GUIDE_FLOOR / yhat.size
    return Proposals(starts, guide)


def maxima(image: Array, least: float) -> tuple[Array, Array]:
    """Give camera-pixel positions of an image's local maxima, by the centroid of 3 x 3 fine pixels.

    Args:
        image: four values a camera pixel along each axis.
        least: lower maxima do not count.
    """
    top = (image == ndimage.maximum_filter(image, 3, mode="constant")) & (image > least)
    rows, columns = np.nonzero(top)
    padded = np.pad(np.maximum(image, 0.0), 1)
    near = np.stack(
        [padded[rows + i, columns + k] for i in range(3) for k in range(3)], axis=1
    ).reshape(-1, 3, 3)
    mass = near.sum((1, 2))
    step = np.arange(3) - 1.0
    across, down = (near.sum(1) @ step) / mass, (near.sum(2) @ step) / mass
    place = camera_px(torch.from_numpy(np.stack([columns + across, rows + down]))).numpy()
    return place[0], place[1]


def brightness(
    x_px: Array,
    y_px: Array,
    light_e: Array,
    data: FrameData,
    sigma_px: tuple[float, float],
    mean_photons: float,
) -> Array:
    """Give photo-electrons of emitters at given places by ridge regression towards the mean.

    Args:
        x_px, y_px: positions.
        light_e: the frame without its background, (rows, columns).
        data: the frame, for its noise.
        sigma_px: PSF widths, px.
        mean_photons: what is believed of each before, with as large a standard deviation.
    """
    if x_px.size == 0:
        return np.zeros(0)
    height, width = light_e.shape
    images = (
        GaussianPSF(*sigma_px)
        .images(
            torch.from_numpy(x_px),
            torch.from_numpy(y_px),
            torch.arange(width, dtype=torch.float64),
            torch.arange(height, dtype=torch.float64),
        )
        .flatten(1)
        .numpy()
    )
    variance = data.excess_noise * np.maximum(data.electrons, 1.0) + data.read_variance_e2
    weight = (1.0 / variance).ravel()
    if data.ignore is not None:
        weight[data.ignore.ravel()] = 0.0
    normal = (images * weight) @ images.T + np.eye(len(images)) / mean_photons**2
    right = (images * weight) @ light_e.ravel() + 1.0 / mean_photons
    return np.maximum(np.linalg.solve(normal, right), FAINTEST * mean_photons)
