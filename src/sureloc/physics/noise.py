"""What the camera writes for an expected image: shot noise, multiplication, read noise, rounding.

See `sureloc.camera` for the equations.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def sample_electrons(
    expected_e: Float[Tensor, "*shape"],
    read_variance_e2: Float[Tensor, "..."],
    generator: torch.Generator,
    em_gain: float = 1.0,
) -> Float[Tensor, "*shape"]:
    """Draw what a camera reads, in photo-electrons and not yet rounded (seed eq. 1).

    Args:
        expected_e: expected photo-electrons, 0 or larger.
        read_variance_e2: read variance, electrons^2, broadcast against `expected_e`.
        generator: source of randomness, on the device of `expected_e`.
        em_gain: electron multiplication; 1 is none.

    Returns:
        Poisson counts, multiplied by Gamma(n, em_gain) / em_gain where em_gain > 1, plus Gaussian
        read noise.
    """
    electrons = torch.poisson(expected_e, generator=generator)
    if em_gain > 1:
        # A Gamma of shape 0 is 0; the sampler wants a positive shape.
        multiplied = torch._standard_gamma(electrons.clamp(min=1.0), generator=generator)
        electrons = torch.where(electrons > 0, multiplied, electrons)
    noise = torch.empty_like(electrons).normal_(generator=generator)
    return electrons + noise * read_variance_e2.sqrt()
