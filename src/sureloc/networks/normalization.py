"""What networks see of a frame: channels of order 1 for 50 to 10,000 photons on any background.

A frame in electrons e with read variance v has variance F^2 (omega + v / F^2). Dividing e by the
excess noise F^2 and v by F^4 gives electrons whose variance is omega + v again, the reading that
`sureloc.physics.likelihood` takes; networks therefore need not know F^2.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

CHANNELS = 6
RADIUS_PX = 9  # how far the local background looks: mean of 3, minimum of 9, mean of 9 pixels
_SIGMA_CENTRE_PX = 1.3
_SIGMA_SPREAD_PX = 0.3


def network_input(
    electrons: Float[Tensor, "tiles height width"],
    read_variance_e2: Float[Tensor, "tiles height width"],
    sigma_px: Float[Tensor, " tiles"],
    excess_noise: Float[Tensor, " tiles"],
) -> Float[Tensor, "tiles channels height width"]:
    """Give the channels that phi and Psi are fed with.

    Args:
        electrons: measured photo-electrons, also negative ones.
        read_variance_e2: read variance, electrons^2.
        sigma_px: PSF standard deviation of each tile, px.
        excess_noise: F^2 of each tile's camera, 1 without electron multiplication.

    Returns:
        Six channels: signal above the local background in units of its noise, compressed by asinh;
        the same difference of variance-stabilised counts (Anscombe 1948, with the read variance
        added on both sides); the noise level; the read variance; the PSF width; and ones, which
        tell the frame from the zeros that convolutions see beyond its edge. A pixel's channels
        depend on pixels at most `RADIUS_PX` away.
    """
    factor = excess_noise[:, None, None]
    e = electrons / factor
    v = read_variance_e2 / factor**2
    background = local_background(e, v)
    noise_variance = background.clamp(min=0.0) + v + 0.5
    ones = torch.ones_like(e)
    width = (sigma_px[:, None, None] - _SIGMA_CENTRE_PX) / _SIGMA_SPREAD_PX
    return torch.stack(
        [
            torch.asinh((e - background) / noise_variance.sqrt()),
            0.2 * (_stabilized(e, v) - _stabilized(background, v)),
            0.4 * noise_variance.log() - 1.0,
            0.4 * (v + 0.1).log() - 1.0,
            ones * width,
            ones,
        ],
        dim=1,
    )


def local_background(
    electrons: Float[Tensor, "tiles height width"],
    read_variance_e2: Float[Tensor, "tiles height width"],
) -> Float[Tensor, "tiles height width"]:
    """Estimate a smooth lower envelope; biased low where noise is large, and blind to hot pixels.

    Args:
        electrons: photo-electrons.
        read_variance_e2: read variance, electrons^2; noisy pixels weigh less.

    Returns:
        Photo-electrons per pixel.
    """
    # Only relative noise matters for the weights, so the frame's own shot noise may stay out.
    weight = 1.0 / (read_variance_e2 + 1.0)
    mean = _mean(electrons * weight, 3) / _mean(weight, 3)
    lowest = -functional.max_pool2d(-mean[:, None], 9, stride=1, padding=4)[:, 0]
    return _mean(lowest, 9)


def _mean(image: Tensor, size: int) -> Tensor:
    padded = functional.avg_pool2d(
        image[:, None], size, stride=1, padding=size // 2, count_include_pad=False
    )
    return padded[:, 0]


def _stabilized(electrons: Tensor, variance: Tensor) -> Tensor:
    return 2.0 * (electrons + variance + 0.375).clamp(min=0.0).sqrt()
