"""What networks are trained by: denoising errors, and the energy score of a one-step generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sureloc.diffusion.denoisers import Network, Target, regression_target
from sureloc.diffusion.noise import white_noise
from sureloc.diffusion.schedules import diffuse, log_snr_of_gamma
from sureloc.physics.kde import UPSAMPLING
from sureloc.scoring.proper import fair_energy_score

PATCH_FINE_PX = 8
SQUARE_PX = 4


@dataclass(frozen=True)
class Sums:
    """How much errors of sums over squares of 4 x 4 camera px and over whole tiles count.

    The squared error of a sum over n fine pixels is divided by n times `footprint_px`: for errors
    that are alike over so many pixels, and independent beyond, it is as large as that of a pixel.
    A sum's mean is the sum of means, so that the best network stays the same. But that many
    pixels are a little too bright together is a small error of each, which a network learns late
    without this, and its draws then agree too well on how many emitters there are.

    Attributes:
        weight: of squares, and of tiles, beside the weight 1 of pixels.
        footprint_px: fine pixels that one emitter's image covers.
        above_sigma: sums count at noise levels above this one. Where noise is weak, pixels tell
            enough, and sums, whose gradients are large, would only disturb how they are learnt.
    """

    weight: float = 0.0
    footprint_px: float = 1.0
    above_sigma: float = 0.0

    def loss(self, error: Float[Tensor, "items channels height width"]) -> Float[Tensor, ""]:
        """Give the weighted error of sums of a folded image, its fine pixels in channels."""
        channels, height, width = error.shape[1:]
        mean = error.mean(1, keepdim=True)
        side = min(SQUARE_PX, height, width)
        squares = functional.avg_pool2d(mean, side).square().mean() * side**2
        tiles = mean.mean((2, 3)).square().mean() * (height * width)
        return self.weight * channels / self.footprint_px * (squares + tiles)


NO_SUMS = Sums()


def denoising_loss(
    network: Network,
    target: Target,
    clean: Float[Tensor, "items *shape"],
    gamma: Float[Tensor, " items"],
    generator: torch.Generator,
    norm: Literal["L1", "L2"] = "L2",
    sums: Sums = NO_SUMS,
) -> Float[Tensor, ""]:
    """Give the mean error of a network's output on noisy images (seed eq. 9).

    Args:
        network: sees y_t and ln(gamma / (1 - gamma)).
        target: what its output means; "preconditioned" with L2 is the loss of Karras et al. 2022,
            eq. 8, whose weight makes every level's error at the start 1.
        clean: y_0, or residuals of unit variance.
        gamma: level of each item, float64.
        generator: source of eps.
        norm: "L2" learns means, "L1" medians: what is there with a probability below one half is
            drawn too rarely. The seed's eq. 9 prints neither.
        sums: how much sums count beside pixels; items are then folded images.
    """
    noise = white_noise(clean, generator)
    raw = network(diffuse(clean, gamma, noise), log_snr_of_gamma(gamma).to(clean.dtype))
    error = raw - regression_target(target, clean, noise, gamma)
    if norm == "L1":
        return error.abs().mean()
    loss = error.square().mean()
    if sums.weight > 0:
        noisier = error[(gamma < 1.0 / (1.0 + sums.above_sigma**2)).to(error.device)]
        if len(noisier) > 0:
            loss = loss + sums.loss(noisier) * (len(noisier) / len(error))
    return loss


def energy_loss(
    draws: Float[Tensor, "draws items height width"],
    truth: Float[Tensor, "items height width"],
    mass_of_one: float,
    patch: int = PATCH_FINE_PX,
) -> Float[Tensor, ""]:
    """Give the fair energy score of a generator over pixels, patches, the image and their masses.

    Each is divided by the square root of its number of pixels, so that all are of the size of a
    pixel's error; of masses, which are counted in emitters, the pixels are those of the camera,
    or else they would outweigh the rest and draws be smooth. All are summed. The score is proper
    (Gneiting and Raftery 2007, eq. 22): on average it is least for draws from the posterior, and
    unbiased in their number. Distances between images hardly feel whether many small errors have
    one sign; their sums do, and without them draws agree too well on how many emitters there are.

    Args:
        draws: two or more draws for each condition, which gradients flow through.
        truth: the true images.
        mass_of_one: sum of the pixels of one emitter's image.
        patch: side of the square patches, px; a remainder at the far edges is left to the others.

    Raises:
        InputError: there are fewer than two draws.
    """
    height, width = truth.shape[1:]
    total = truth.new_zeros(())
    for rows, columns in ((1, 1), (min(patch, height), min(patch, width)), (height, width)):
        cut = torch.stack([_patches(draw, rows, columns) for draw in draws])
        true = _patches(truth, rows, columns)
        total = total + fair_energy_score(cut, true).mean() / (rows * columns) ** 0.5
        if rows * columns > 1:
            masses = fair_energy_score(cut.sum(-1, keepdim=True), true.sum(-1, keepdim=True))
            total = total + masses.mean() * UPSAMPLING / mass_of_one / (rows * columns) ** 0.5
    return total


def _patches(images: Tensor, rows: int, columns: int) -> Tensor:
    """Cut (items, height, width) into (items, patches, pixels)."""
    if (rows, columns) == (1, 1):
        return images.flatten(1)[:, :, None]
    cut = functional.unfold(images[:, None], (rows, columns), stride=(rows, columns))
    return cut.transpose(1, 2)
