"""What the networks say about frames: the estimate of phi and draws of Psi around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sureloc.errors import InputError
from sureloc.networks.blocks import fold, unfold
from sureloc.networks.normalization import network_input
from sureloc.networks.weights import Networks
from sureloc.physics.kde import peak_of_one
from sureloc.seeds import torch_generator

Precision = Literal["auto", "float32", "bfloat16"]
_PIXELS_AT_ONCE = 3200  # eight tiles of 20 x 20: more falls out of the cache and runs slower


@dataclass(frozen=True)
class PosteriorImages:
    """Kernel density images, mass per fine pixel: an emitter sums to 1.

    Attributes:
        yhat: phi's estimate, which is the mean.
        draws: Psi's draws, each one possible image; small negative values are noise.
    """

    yhat: Float[Tensor, "frames fine_height fine_width"]
    draws: Float[Tensor, "frames draws fine_height fine_width"]


def posterior_images(
    networks: Networks,
    electrons: Float[Tensor, "frames height width"],
    read_variance: Float[Tensor, "..."],
    sigma_px: float,
    excess_noise: float,
    draws: int,
    seed: int,
    frame_numbers: Sequence[int],
    evaluations: int = 8,
    precision: Precision = "auto",
) -> PosteriorImages:
    """Estimate and draw the kernel density images of frames.

    Args:
        networks: trained networks, see `load_weights`.
        electrons: measured photo-electrons.
        read_variance: read variance, electrons^2, (height, width) or (frames, height, width).
        sigma_px: PSF standard deviation, px.
        excess_noise: F^2, 1 without electron multiplication.
        draws: draws per frame; 0 asks for the estimate alone.
        seed: the user's seed.
        frame_numbers: 0-based number of each frame in its movie; with the seed and the draw's
            index it addresses the noise, so that no result depends on what else is in the batch.
        evaluations: network evaluations per draw.
        precision: "float32"; "bfloat16", several times faster where the processor multiplies
            such matrices; "auto" takes bfloat16 there and float32 elsewhere.

    Returns:
        The images at four times the sampling of the frames.

    Raises:
        InputError: numbers of frames differ, or `draws` or `evaluations` is out of range.
    """
    frames, height, width = electrons.shape
    if len(frame_numbers) != frames:
        raise InputError(f"{len(frame_numbers)} frame numbers came with {frames} frames.")
    if draws < 0 or evaluations < 1:
        raise InputError(
            f"draws is {draws} and evaluations {evaluations}; draws must be 0 or larger and "
            "evaluations 1 or larger (16 and 8 are usual)."
        )
    variance = read_variance.expand(frames, height, width)
    results = [
        _one_frame(
            networks,
            electrons[i : i + 1],
            variance[i : i + 1],
            (sigma_px, excess_noise),
            [torch_generator(seed, "draw", number, k) for k in range(draws)],
            evaluations,
            _autocast(networks.device, precision),
        )
        for i, number in enumerate(frame_numbers)
    ]
    unit = peak_of_one(networks.card.kernel_sigma_fine_px)
    return PosteriorImages(
        unit * torch.stack([estimate for estimate, _ in results]),
        unit * torch.stack([images for _, images in results]),
    )


def _autocast(device: torch.device, precision: Precision) -> torch.autocast:
    fast = device.type != "cpu" or torch.cpu._is_amx_tile_supported()
    enabled = precision == "bfloat16" or (precision == "auto" and fast)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


@torch.inference_mode()
def _one_frame(
    networks: Networks,
    electrons: Tensor,
    variance: Tensor,
    optics: tuple[float, float],
    generators: Sequence[torch.Generator],
    evaluations: int,
    autocast: torch.autocast,
) -> tuple[Tensor, Tensor]:
    device, (height, width) = networks.device, electrons.shape[1:]
    e, v = electrons.to(device, torch.float32), variance.to(device, torch.float32)
    sigma, excess = (torch.full((1,), value, device=device) for value in optics)
    frames = network_input(e, v, sigma, excess).contiguous(memory_format=torch.channels_last)
    with autocast:
        trunk = networks.phi.trunk(frames)
        estimate = fold(networks.phi.read(trunk)).float()
        condition = networks.psi.condition(frames, trunk, estimate)
    at_once = max(1, _PIXELS_AT_ONCE // (height * width))
    images = [electrons.new_zeros((0, 4 * height, 4 * width), dtype=torch.float32).to(device)]
    for first in range(0, len(generators), at_once):
        noise = torch.stack(
            [torch.randn(16, height, width, generator=g) for g in generators[first:][:at_once]]
        ).to(device)
        residual = _sample(networks, noise, condition, evaluations, autocast)
        images.append(unfold(estimate + networks.psi.residual_scale * residual)[:, 0])
    return unfold(estimate)[0, 0], torch.cat(images)


def _sample(
    networks: Networks,
    noise: Tensor,
    condition: Tensor,
    evaluations: int,
    autocast: torch.autocast,
) -> Tensor:
    """Draw folded residuals by DPM-Solver++(2M) with a last Euler step (Lu et al. 2022)."""
    levels = _levels(networks, evaluations)
    u = levels[0] * noise
    condition = condition.expand(len(u), -1, -1, -1)
    before, width_before = u, math.inf
    for now, after in pairwise(levels):
        scaled = (u / math.sqrt(1 + now**2)).contiguous(memory_format=torch.channels_last)
        log_snr = torch.full((len(u),), -2 * math.log(now), device=u.device)
        with autocast:
            raw = networks.psi(scaled, log_snr, condition).float()
        clean: Tensor = u / (1 + now**2) + now / math.sqrt(1 + now**2) * raw
        if after == 0:
            return clean
        width = math.log(now / after)
        ratio = width / (2 * width_before)
        u = after / now * u + (1 - after / now) * ((1 + ratio) * clean - ratio * before)
        before, width_before = clean, width
    return u


def _levels(networks: Networks, evaluations: int) -> list[float]:
    card = networks.card.levels
    high, low = card.sigma_max ** (1 / card.rho), card.sigma_min ** (1 / card.rho)
    ramp = [i / max(evaluations - 1, 1) for i in range(evaluations)]
    return [(high + t * (low - high)) ** card.rho for t in ramp] + [0.0]
