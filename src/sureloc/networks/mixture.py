"""A head that describes emitters instead of their image, with an uncertainty of each.

Every camera pixel says how probable it is that an emitter belongs to it, where the emitter is and
how bright, and how sure of both it is; an emitter in the frame is then a sample of the mixture of
all pixels' Gaussians (DECODE: Speiser, Mueller et al. 2021, eqs. 1 to 3). Of their network only
this way to be uncertain is taken; what stands before the head is phi's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from sureloc.networks.phi import Phi
from sureloc.physics.image import pixel_axes

CHANNELS = 7  # logit of the probability, offsets and photons, and the deviations of these three
PHOTON_UNIT = 1000.0  # photo-electrons
REACH_PX = 1.0  # how far from its pixel's centre along each axis an emitter may be
LEAST_SD, MOST_SD = 1e-3, 3.0  # px, and units of photons
_FIRST_LOGIT = -3.5  # an emitter in 30 pixels before anything is learned
LEAST_CANDIDATE, SURE_CANDIDATE = 0.2, 0.6


@dataclass(frozen=True)
class EmitterMixture:
    """What a network says of the emitters of some tiles, a component for each camera pixel.

    Attributes:
        probability: that there is an emitter.
        mean: x px, y px and photo-electrons over `PHOTON_UNIT`.
        sd: standard deviations of these.
    """

    probability: Float[Tensor, "tiles height width"]
    mean: Float[Tensor, "tiles 3 height width"]
    sd: Float[Tensor, "tiles 3 height width"]


class EmitterPhi(Phi):
    """phi's trunk, read as a mixture of emitters (see `mixture_of`)."""

    def __init__(self, width: int = 96, dilations: tuple[int, ...] = (1, 2, 2, 2, 1)) -> None:
        super().__init__(width, dilations)
        self.head = nn.Conv2d(width, CHANNELS, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.bias.copy_(  # type: ignore[union-attr]
                torch.tensor([_FIRST_LOGIT, 0.0, 0.0, 0.0, -1.0, -1.0, -1.0])
            )

    def read(
        self, trunk: Float[Tensor, "tiles features height width"]
    ) -> Float[Tensor, "tiles 7 height width"]:
        """Give what `mixture_of` turns into a mixture."""
        raw: Tensor = self.head(trunk)
        return raw

    def forward(
        self, frames: Float[Tensor, "tiles channels height width"]
    ) -> Float[Tensor, "tiles 7 height width"]:
        """Give the same for `network_input` channels."""
        return self.read(self.trunk(frames))


def mixture_of(raw: Float[Tensor, "tiles 7 height width"]) -> EmitterMixture:
    """Turn what the network gives into probabilities, positions in the tile and deviations."""
    columns, rows = pixel_axes((raw.shape[2], raw.shape[3]), raw)
    mean = torch.stack(
        [
            columns[None, None, :] + REACH_PX * raw[:, 1].tanh(),
            rows[None, :, None] + REACH_PX * raw[:, 2].tanh(),
            functional.softplus(raw[:, 3]),
        ],
        dim=1,
    )
    sd = LEAST_SD + (MOST_SD - LEAST_SD) * raw[:, 4:].sigmoid()
    return EmitterMixture(raw[:, 0].sigmoid(), mean, sd)


def log_likelihood(
    mixture: EmitterMixture,
    emitters: Float[Tensor, "emitters 3"],
    tile: Int[Tensor, " emitters"],
) -> Float[Tensor, " tiles"]:
    """Give the log-likelihood of the emitters of each tile.

    Args:
        mixture: of each tile.
        emitters: x px, y px and photo-electrons over `PHOTON_UNIT`, of all tiles.
        tile: which tile each belongs to.

    Returns:
        Of each tile, the log-density of its number of emitters, Gaussian with the mean sum p and
        the variance sum p (1 - p), plus for each emitter that of the mixture of all pixels'
        Gaussians with the weights p / sum p.
    """
    p = mixture.probability.flatten(1)
    total, variance = p.sum(1), (p * (1.0 - p)).sum(1).clamp(min=1e-6)
    number = torch.bincount(tile, minlength=len(p)).to(p)
    count = -0.5 * ((number - total).square() / variance + (2 * math.pi * variance).log())
    weight = (p / total[:, None]).clamp(min=1e-12).log()
    mean, sd = mixture.mean.flatten(2)[tile], mixture.sd.flatten(2)[tile]
    off = (emitters[:, :, None] - mean) / sd
    density = (-0.5 * off.square() - sd.log() - 0.5 * math.log(2 * math.pi)).sum(1)
    place = torch.logsumexp(weight[tile] + density, dim=1)
    return count.index_add(0, tile, place)


@dataclass(frozen=True)
class FoundEmitters:
    """Emitters read off a mixture.

    Attributes:
        mean, sd: x px, y px and photo-electrons.
        probability: that each exists.
    """

    mean: Float[Tensor, "found 3"]
    sd: Float[Tensor, "found 3"]
    probability: Float[Tensor, " found"]


def found_emitters(mixture: EmitterMixture, least_probability: float) -> FoundEmitters:
    """Read the emitters of one tile.

    An emitter near the border of a pixel is shared by several: a pixel that is more probable than
    its eight neighbours gets the probability of the four beside it. A neighbour that is probable by
    itself is an emitter of its own.

    Args:
        mixture: of one tile.
        least_probability: emitters that exist with less than this are left out.
    """
    p = mixture.probability[:1]
    top = (p >= functional.max_pool2d(p, 3, stride=1, padding=1)) & (p > LEAST_CANDIDATE)
    second = ~top & (p > SURE_CANDIDATE)
    shared = functional.pad(torch.where(top | second, 0.0, p), (1, 1, 1, 1))
    beside = shared[:, :-2, 1:-1] + shared[:, 2:, 1:-1] + shared[:, 1:-1, :-2] + shared[:, 1:-1, 2:]
    probability = torch.where(top, (p + beside).clamp(max=1.0), p)
    found: Bool[Tensor, "height width"] = ((top | second) & (probability >= least_probability))[0]
    unit = torch.tensor([1.0, 1.0, PHOTON_UNIT], device=p.device)
    return FoundEmitters(
        mixture.mean[0][:, found].T * unit, mixture.sd[0][:, found].T * unit, probability[0][found]
    )
