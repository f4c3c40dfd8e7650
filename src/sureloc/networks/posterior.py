"""What the networks say about frames: the estimate of phi and draws of Psi around it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sureloc.diffusion import samplers
from sureloc.diffusion.denoisers import Denoiser, Target, denoiser_of, from_residual, to_residual
from sureloc.diffusion.noise import white_noise
from sureloc.diffusion.samplers import Sampler
from sureloc.diffusion.schedules import Levels
from sureloc.errors import InputError
from sureloc.networks.blocks import fold, unfold
from sureloc.networks.normalization import network_input
from sureloc.networks.psi import PsiNetwork
from sureloc.networks.weights import Data, Networks
from sureloc.physics.kde import peak_of_one
from sureloc.seeds import torch_generator

# Pixels are informative where phi expects this share of an emitter's peak, or more.
INFORMATIVE = 0.05
Precision = Literal["auto", "float32", "bfloat16"]
_PIXELS_AT_ONCE = 25600  # 64 tiles of 20 x 20: more falls out of the cache and runs slower


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
    evaluations: int | None = None,
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
        evaluations: network evaluations per draw; by default those that the card names.
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
    if draws < 0 or (evaluations is not None and evaluations < 1):
        raise InputError(
            f"draws is {draws} and evaluations {evaluations}; draws must be 0 or larger and "
            "evaluations 1 or larger (16 and 8 are usual)."
        )
    variance = read_variance.expand(frames, height, width)
    sampling = shipped_sampling(networks, evaluations, precision)
    results = [
        tile_images(
            networks,
            _channels(networks, electrons[i : i + 1], variance[i : i + 1], sigma_px, excess_noise),
            [torch_generator(seed, "draw", number, k) for k in range(draws)],
            sampling,
        )
        for i, number in enumerate(frame_numbers)
    ]
    unit = peak_of_one(networks.card.kernel_sigma_fine_px)
    return PosteriorImages(
        unit * torch.stack([estimate for estimate, _ in results]),
        unit * torch.stack([images for _, images in results]),
    )


@dataclass(frozen=True)
class Sampling:
    """How draws are made.

    Attributes:
        levels: gammas, the noisiest first.
        sampler: any of `sureloc.diffusion.samplers`.
        precision: see `posterior_images`.
        start_at_estimate: start around sqrt(gamma_T) times phi's estimate, not around 0.
    """

    levels: Levels
    sampler: Sampler = samplers.dpm_solver_2m
    precision: Precision = "auto"
    start_at_estimate: bool = False


def shipped_sampling(
    networks: Networks, evaluations: int | None = None, precision: Precision = "auto"
) -> Sampling:
    """Give the way to draw that a card names, or the same with other numbers of evaluations."""
    card = networks.card
    levels = card.levels.levels(card.draws.evaluations if evaluations is None else evaluations)
    return Sampling(levels, getattr(samplers, card.draws.sampler), precision)


@dataclass(frozen=True)
class SeenTiles:
    """What all draws of tiles of one size share.

    Attributes:
        condition: of `PsiNetwork.condition`.
        estimate: phi's, folded, in phi's unit.
        centre: what Psi's zero stands for, see `centre_of`.
    """

    condition: Float[Tensor, "tiles features height width"]
    estimate: Float[Tensor, "tiles 16 height width"]
    centre: Float[Tensor, "tiles 16 height width"]

    def part(self, first: int, last: int) -> SeenTiles:
        """Give the tiles from `first` to before `last`."""
        some = slice(first, last)
        return SeenTiles(self.condition[some], self.estimate[some], self.centre[some])

    @property
    def at_once(self) -> int:
        """How many of such tiles are drawn fastest together."""
        return max(1, _PIXELS_AT_ONCE // self.estimate[0, 0].numel())


@torch.inference_mode()
def see_tiles(
    networks: Networks,
    channels: Float[Tensor, "tiles channels height width"],
    precision: Precision = "auto",
) -> SeenTiles:
    """Run what depends on the tiles alone: phi, and what Psi reuses at every step.

    Args:
        networks: trained networks.
        channels: what `network_input` gives, on the networks' device.
        precision: see `posterior_images`.
    """
    frames = channels.contiguous(memory_format=torch.channels_last)
    with autocast_for(networks.device, precision):
        return seen_by(networks, frames)


def seen_by(networks: Networks, frames: Float[Tensor, "tiles channels height width"]) -> SeenTiles:
    """Do what `see_tiles` does, in the precision and with the gradients of the caller."""
    trunk = networks.phi.trunk(frames)
    estimate = fold(networks.phi.read(trunk)).float()
    condition = networks.psi.condition(frames, trunk, estimate)
    return SeenTiles(condition, estimate, centre_of(networks.card.draws.data, estimate))


@torch.inference_mode()
def draw_images(
    networks: Networks,
    seen: SeenTiles,
    generators: Sequence[torch.Generator],
    sampling: Sampling,
) -> Float[Tensor, "draws fine_height fine_width"]:
    """Draw one image for each generator, all together.

    Args:
        networks: trained networks.
        seen: one tile for all draws, or one for each.
        generators: source of each draw's noise.
        sampling: how draws are made.

    Returns:
        Images in phi's unit (one emitter's peak is about 1).
    """
    autocast = autocast_for(networks.device, sampling.precision)
    psi = networks.cast_psi if autocast._enabled else networks.psi
    denoiser = psi_denoiser(psi, seen.condition, autocast, networks.card.draws.target)
    start = white_noise(seen.estimate.expand(len(generators), -1, -1, -1), generators)
    if sampling.start_at_estimate:
        gamma = float(sampling.levels[0])
        shift = to_residual(seen.estimate, seen.centre, psi.residual_scale)
        start = gamma**0.5 * shift + (1.0 - gamma) ** 0.5 * start
    start = start.contiguous(memory_format=torch.channels_last)
    residual = sampling.sampler(denoiser, start, sampling.levels, generators)
    return drawn_images(networks, residual, seen)


def tile_images(
    networks: Networks,
    channels: Float[Tensor, "1 channels height width"],
    generators: Sequence[torch.Generator],
    sampling: Sampling,
) -> tuple[Float[Tensor, "fine_height fine_width"], Float[Tensor, "draws fine_height fine_width"]]:
    """Estimate and draw the images of one tile.

    Args:
        networks: trained networks.
        channels: what `network_input` gives, on the networks' device.
        generators: source of each draw's noise.
        sampling: how draws are made.

    Returns:
        phi's estimate and the draws, in phi's unit (one emitter's peak is about 1).
    """
    seen = see_tiles(networks, channels, sampling.precision)
    estimate = unfold(seen.estimate)[0, 0]
    images = [estimate.new_zeros((0, *estimate.shape))]
    for first in range(0, len(generators), seen.at_once):
        part = generators[first:][: seen.at_once]
        images.append(draw_images(networks, seen, part, sampling))
    return estimate, torch.cat(images)


def centre_of(
    data: Data, estimate: Float[Tensor, "tiles 16 height width"]
) -> Float[Tensor, "tiles 16 height width"]:
    """Give the image, in phi's unit, that Psi's zero stands for: see `DrawsCard.data`."""
    if data == "residual":
        return estimate
    return torch.full_like(estimate, 0.0 if data == "image" else 0.5)


def psi_denoiser(
    psi: PsiNetwork,
    condition: Float[Tensor, "tiles features height width"],
    autocast: AbstractContextManager[object],
    target: Target = "preconditioned",
) -> Denoiser:
    """Give Psi as the denoiser of residuals, folded and of unit variance, that samplers take.

    Args:
        psi: the network.
        condition: of `PsiNetwork.condition`, one for each draw or one for all.
        autocast: the precision that the network runs at; the sampler's own sums are float32.
        target: what the network's output means.
    """

    def network(noisy: Tensor, log_snr: float) -> Tensor:
        of_level, part = psi.at(log_snr, condition)
        seen = noisy.contiguous(memory_format=torch.channels_last)
        with autocast:
            raw: Tensor = of_level(seen, noisy.new_full((1,), log_snr), part)
        return raw.float()

    return denoiser_of(network, target)


def drawn_images(
    networks: Networks, residual: Float[Tensor, "draws 16 height width"], seen: SeenTiles
) -> Float[Tensor, "draws fine_height fine_width"]:
    """Turn what was drawn into images, in phi's unit, their pixels moved by the weights' map."""
    images = psi_images(networks.psi, residual, seen.centre)
    if networks.pixel_map is None:
        return images
    moved: Tensor = networks.pixel_map(images, unfold(seen.estimate)[:, 0])
    return moved


def psi_images(
    psi: PsiNetwork,
    residual: Float[Tensor, "draws 16 height width"],
    centre: Float[Tensor, "tiles 16 height width"],
) -> Float[Tensor, "draws fine_height fine_width"]:
    """Turn what was drawn into images around a centre, in phi's unit."""
    return unfold(from_residual(residual, centre, psi.residual_scale))[:, 0]


def multiplies_bfloat16() -> bool:
    """Say whether the processor multiplies bfloat16 in hardware (AMX or AVX-512).

    Such a one runs the networks in half of the time or less; others take ten times as long.
    """
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def autocast_for(device: torch.device, precision: Precision) -> torch.autocast:
    """Give the context in which networks run at a precision, see `posterior_images`."""
    fast = device.type != "cpu" or multiplies_bfloat16()
    enabled = precision == "bfloat16" or (precision == "auto" and fast)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def _channels(
    networks: Networks, electrons: Tensor, variance: Tensor, sigma_px: float, excess_noise: float
) -> Tensor:
    device = networks.device
    e, v = electrons.to(device, torch.float32), variance.to(device, torch.float32)
    sigma, excess = (torch.full((1,), value, device=device) for value in (sigma_px, excess_noise))
    return network_input(e, v, sigma, excess)
