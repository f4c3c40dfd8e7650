"""How likely a camera frame is under an expected image: exactly, and by the shifted Poisson.

All counts are photo-electrons: e = (x - offset) / gain, v = variance / gain^2 (seed eqs. 1, 12).

The exact density of one pixel is the Poisson-Gaussian sum

    p(e | omega) = sum_q Poisson(q; omega) Normal(e; q, v).

The approximation adds v to both sides, e' = e + v and omega' = omega + v, and treats e' as a
Poisson count with the factorial continued: ln p = e' ln omega' - omega' - ln Gamma(e' + 1)
(Huang et al. 2013). Mean and variance are right for every omega and v; the third moment is
omega + v instead of omega, so it errs where counts are few and the read noise is not small
(docs/likelihood.md holds a table). Electron multiplication with excess noise F^2 keeps mean and
variance when the log-likelihood is divided by F^2 with v / F^2 in the place of v.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def shifted_poisson_log_likelihood(
    electrons: Float[Tensor, "*shape"],
    expected_e: Float[Tensor, "*shape"],
    read_variance_e2: Float[Tensor, "..."],
    excess_noise: float = 1.0,
) -> Float[Tensor, "*shape"]:
    """Give each pixel's approximate log-likelihood up to a constant in `expected_e`.

    Args:
        electrons: measured photo-electrons; negative values are kept, since clipping them would
            bias the background upwards.
        expected_e: expected photo-electrons omega; omega + v must be larger than 0.
        read_variance_e2: read variance v, electrons^2, broadcast.
        excess_noise: F^2, 1 without electron multiplication, about 2 with it.

    Returns:
        (e' ln omega' - omega') / F^2 per pixel, with the term in e' alone subtracted so that the
        value is 0 at omega = e (half the deviance, with its sign turned).
    """
    shift = read_variance_e2 / excess_noise
    count = electrons + shift
    rate = expected_e + shift
    best = torch.xlogy(count.clamp(min=0), count.clamp(min=1e-30)) - count
    return (torch.xlogy(count, rate) - rate - best) / excess_noise


def poisson_gaussian_log_likelihood(
    electrons: Float[Tensor, "*shape"],
    expected_e: Float[Tensor, "*shape"],
    read_variance_e2: Float[Tensor, "..."],
) -> Float[Tensor, "*shape"]:
    """Give each pixel's exact log-density, the Poisson-Gaussian sum of seed eq. 1.

    Args:
        electrons: measured photo-electrons.
        expected_e: expected photo-electrons omega, larger than 0.
        read_variance_e2: read variance v, electrons^2, larger than 0, broadcast.

    Returns:
        ln p(e | omega) per pixel, in 1/electrons. The sum runs over every count q within nine
        standard deviations of its largest term; what is left out is below 1e-15 of it.
    """
    return log_density_and_mean_count(electrons, expected_e, read_variance_e2)[0]


def posterior_mean_count(
    electrons: Float[Tensor, "*shape"],
    expected_e: Float[Tensor, "*shape"],
    read_variance_e2: Float[Tensor, "..."],
) -> Float[Tensor, "*shape"]:
    """Give E[q | e, omega], the expected whole number of electrons behind each reading.

    Args:
        electrons, expected_e, read_variance_e2: as for `poisson_gaussian_log_likelihood`.

    Returns:
        The mean of q. The exact score follows from it: d ln p / d omega = E[q | e] / omega - 1.
    """
    return log_density_and_mean_count(electrons, expected_e, read_variance_e2)[1]


def log_density_and_mean_count(
    electrons: Float[Tensor, "*shape"],
    expected_e: Float[Tensor, "*shape"],
    read_variance_e2: Float[Tensor, "..."],
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Give `poisson_gaussian_log_likelihood` and `posterior_mean_count` from one sum."""
    out_dtype = electrons.dtype
    e, omega, v = electrons.double(), expected_e.double(), read_variance_e2.double()
    # The largest term solves (q - e) / v = ln(omega / q): concave, so Newton from above converges.
    mode = torch.maximum(e, omega).clamp(min=1e-3)
    for _ in range(30):
        step = ((mode - e) / v - (omega / mode).log()) / (1.0 / v + 1.0 / mode)
        mode = torch.maximum(mode - step, 0.1 * mode)
    width = 1.0 / torch.sqrt(1.0 / v + 1.0 / mode.clamp(min=0.5))
    half = int(torch.ceil(9.0 * width.max()).item()) + 4
    first = (mode.floor() - half).clamp(min=0)
    q = first[..., None] + torch.arange(2 * half + 1, dtype=torch.float64, device=e.device)
    log_terms = (
        torch.xlogy(q, omega[..., None])
        - omega[..., None]
        - torch.lgamma(q + 1)
        - (e[..., None] - q) ** 2 / (2 * v[..., None])
    )
    log_sum = torch.logsumexp(log_terms, dim=-1)
    mean = (torch.exp(log_terms - log_sum[..., None]) * q).sum(-1)
    log_density = log_sum - 0.5 * torch.log(2 * math.pi * v)
    return log_density.to(out_dtype), mean.to(out_dtype)
