"""Data whose denoiser is known in closed form: what schedules and samplers are judged on.

A denoiser gives E[y_0 | y_t]. For Gaussian data and for a mixture of known images that is a
formula, so that whatever is wrong with the draws is the fault of the levels, the start, and the
sampler, and not of a network.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sureloc.diffusion.denoisers import Denoiser
from sureloc.diffusion.noise import white_noise
from sureloc.diffusion.samplers import Sampler
from sureloc.diffusion.schedules import Levels


def gaussian_denoiser(variances: Float[Tensor, " modes"]) -> Denoiser:
    """Give the denoiser of independent Gaussian modes of mean 0.

    Args:
        variances: lambda of each mode; images are (items, modes).

    Returns:
        y_t -> sqrt(gamma) lambda / (gamma lambda + 1 - gamma) y_t.
    """

    def denoise(noisy: Tensor, gamma: float) -> Tensor:
        return math.sqrt(gamma) * variances / (gamma * variances + 1.0 - gamma) * noisy

    return denoise


def mixture_denoiser(
    images: Float[Tensor, "images *shape"], weights: Float[Tensor, " images"]
) -> Denoiser:
    """Give the denoiser of data that are one of a few images.

    Args:
        images: what there is.
        weights: probability of each.

    Returns:
        y_t -> the mean of the images, weighted by `weights` times the density of y_t around each,
        N(sqrt(gamma) image, (1 - gamma) I).
    """
    known = images.flatten(1)

    def denoise(noisy: Tensor, gamma: float) -> Tensor:
        away = torch.cdist(noisy.flatten(1), math.sqrt(gamma) * known).square()
        share = torch.softmax(weights.log() - away / (2.0 * (1.0 - gamma)), dim=1)
        return (share @ known).reshape(noisy.shape)

    return denoise


def variance_kept(
    sampler: Sampler,
    levels: Levels,
    variances: Float[Tensor, " modes"],
    generator: torch.Generator,
    draws: int = 20_000,
    start_variance: float = 1.0,
) -> Float[Tensor, " modes"]:
    """Give the share of each Gaussian mode's variance that draws of a sampler have.

    Args:
        sampler: any of `sureloc.diffusion.samplers`.
        levels: gammas, the noisiest first.
        variances: lambda of each mode.
        generator: source of the start and of the sampler's noise.
        draws: how many. The starts are scaled to just `start_variance`, so that what a
            deterministic sampler keeps is exact for any number, 2 or more; that of a stochastic
            one has a relative standard error of at most sqrt(2 / draws).
        start_variance: 1 is N(0, I).

    Returns:
        Variance of the draws / lambda; 1 is right.
    """
    start = white_noise(variances.new_empty((draws, len(variances))), generator)
    start = start / start.square().mean(0).sqrt() * math.sqrt(start_variance)
    drawn = sampler(gaussian_denoiser(variances), start, levels, generator)
    return drawn.square().mean(0) / variances
