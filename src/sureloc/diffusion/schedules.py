"""Noise schedules by their continuous level gamma, and the forward process that they define.

Levels are float64 tensors of gammas in (0, 1), the noisiest first: rising. The seed counts its
steps the other way, gamma_1 (almost clean) to gamma_T; `levels[0]` is its gamma_T.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sureloc.diffusion.noise import white_noise
from sureloc.errors import InputError

Levels = Float[Tensor, " levels"]
_COSINE_OFFSET = 0.008
_COSINE_LARGEST_BETA = 0.999


# --- One level in three coordinates ---------------------------------------------------------------


def gamma_of_sigma(sigma: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Give gamma = 1 / (1 + sigma^2)."""
    return 1.0 / (1.0 + sigma.square())


def sigma_of_gamma(gamma: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Give sigma = sqrt((1 - gamma) / gamma), undoing `gamma_of_sigma`."""
    return ((1.0 - gamma) / gamma).sqrt()


def log_snr_of_gamma(gamma: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Give ln(gamma / (1 - gamma)) = -2 ln sigma; float64 keeps it where gamma is close to 1."""
    return torch.logit(gamma)


# --- Lists of levels ------------------------------------------------------------------------------


def levels_from(gammas: Sequence[float]) -> Levels:
    """Take any list of levels, the noisiest first.

    Raises:
        InputError: the list is empty, leaves (0, 1) or does not rise.
    """
    levels = torch.tensor(list(gammas), dtype=torch.float64)
    inside = bool(((levels > 0) & (levels < 1)).all())
    if len(levels) == 0 or not inside or bool((levels.diff() <= 0).any()):
        raise InputError(
            f"The noise levels are {list(gammas)}; give one or more gammas between 0 and 1, "
            "rising: the noisiest first."
        )
    return levels


def levels_of_sigmas(sigmas: Sequence[float]) -> Levels:
    """Take any list of noises in units of the signal's rms, the noisiest first.

    Raises:
        InputError: the list is empty, does not fall, or leaves what a gamma in (0, 1) can tell.
    """
    gammas = gamma_of_sigma(torch.tensor(list(sigmas), dtype=torch.float64))
    try:
        return levels_from(gammas.tolist())
    except InputError as error:
        raise InputError(
            f"The noise levels sigma are {list(sigmas)}; give one or more numbers above 0, "
            "falling: the noisiest first, about 1e-6 to 1e6."
        ) from error


def levels_of_betas(betas: Float[Tensor, " steps"]) -> Levels:
    """Give gamma_t = prod_(s <= t) (1 - beta_s) for the steps' variances (seed 3.2).

    Args:
        betas: beta_1 to beta_T in the seed's order.
    """
    return levels_from((1.0 - betas.double()).cumprod(0).flip(0).tolist())


def betas_of_levels(levels: Levels) -> Float[Tensor, " levels"]:
    """Give the variances beta_1 to beta_T of the steps, undoing `levels_of_betas`."""
    cleaner = torch.cat([levels[1:], levels.new_ones(1)])
    return (1.0 - levels / cleaner).flip(0)


def linear_beta(steps: int = 100, first: float = 1e-4, last: float = 1e-2) -> Levels:
    """Give the levels of linearly growing variances, by default those that seed 4.2 prints."""
    return levels_of_betas(torch.linspace(first, last, steps, dtype=torch.float64))


def cosine(steps: int) -> Levels:
    """Give the cosine levels of Nichol and Dhariwal 2021, eq. 17, with beta at most 0.999."""
    time = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    shape = ((time + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * math.pi / 2).cos().square()
    return levels_of_betas((1 - shape[1:] / shape[:-1]).clamp(max=_COSINE_LARGEST_BETA))


def even_log_snr(steps: int, sigma_min: float, sigma_max: float) -> Levels:
    """Give levels whose log signal-to-noise ratios are evenly spaced."""
    _check_ends(steps, sigma_min, sigma_max)
    log_sigma = torch.linspace(math.log(sigma_max), math.log(sigma_min), steps, dtype=torch.float64)
    return torch.sigmoid(-2.0 * log_sigma)


def karras(steps: int, sigma_min: float, sigma_max: float, rho: float) -> Levels:
    """Give the levels of Karras et al. 2022, eq. 5, without its closing 0.

    Args:
        steps: how many; one step is `sigma_max` alone.
        sigma_min, sigma_max: noise at the ends in units of the signal's rms.
        rho: spacing; 1 is even in sigma, 7 is Karras's, infinity even in ln sigma.

    Raises:
        InputError: no step, ends out of order or not positive, or rho not larger than 0.
    """
    _check_ends(steps, sigma_min, sigma_max)
    if rho == math.inf:
        return even_log_snr(steps, sigma_min, sigma_max)
    if not rho > 0:
        raise InputError(f"rho is {rho}; it must be larger than 0 (7 is usual).")
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    return gamma_of_sigma((high + ramp * (low - high)) ** rho)


def _check_ends(steps: int, sigma_min: float, sigma_max: float) -> None:
    if steps < 1 or not 0 < sigma_min < sigma_max < math.inf:
        raise InputError(
            f"There are {steps} noise levels from sigma {sigma_max} down to {sigma_min}; there "
            "must be 1 or more, from a larger to a smaller number above 0."
        )


def thinned(levels: Levels, steps: int) -> Float[Tensor, " fewer"]:
    """Give `steps` levels with the ends of `levels`, evenly spaced in its steps.

    Between two given levels the log signal-to-noise ratio is interpolated.

    Raises:
        InputError: `steps` is below 2.
    """
    if steps < 2:
        raise InputError(f"steps is {steps}; it must be 2 or larger to keep both ends.")
    place = torch.linspace(0, len(levels) - 1, steps, dtype=torch.float64)
    left = place.floor().long().clamp(max=max(len(levels) - 2, 0))
    known = log_snr_of_gamma(levels)
    return torch.sigmoid(torch.lerp(known[left], known[left + 1], place - left))


# --- The forward process --------------------------------------------------------------------------


def diffuse(
    clean: Float[Tensor, "items *shape"],
    gamma: float | Float[Tensor, " items"],
    noise: Float[Tensor, "items *shape"],
) -> Float[Tensor, "items *shape"]:
    """Give y_t = sqrt(gamma) y_0 + sqrt(1 - gamma) eps (seed eqs. 6 and 8).

    Args:
        clean: y_0.
        gamma: the level, one for all or one for each item.
        noise: eps, of unit variance.
    """
    level = torch.as_tensor(gamma, dtype=torch.float64, device=clean.device)
    level = level.reshape(level.shape + (1,) * (clean.ndim - 1) * level.ndim)
    return level.sqrt().to(clean) * clean + (1.0 - level).sqrt().to(clean) * noise


def diffuse_by_steps(
    clean: Float[Tensor, "items *shape"], levels: Levels, generator: torch.Generator
) -> Float[Tensor, "items *shape"]:
    """Run the forward process step by step, from y_0 to the noisiest level (seed eq. 4)."""
    y = clean
    for beta in betas_of_levels(levels).tolist():
        y = math.sqrt(1 - beta) * y + math.sqrt(beta) * white_noise(y, generator)
    return y


# --- Levels to train at ---------------------------------------------------------------------------


def piecewise_uniform_gamma(
    levels: Levels, count: int, generator: torch.Generator
) -> Float[Tensor, " count"]:
    """Draw training levels: a step t at random, gamma uniform in [gamma_t, gamma_(t-1)] (seed 3.3).

    Args:
        levels: the schedule of training; gamma_0 = 1 closes its last piece.
        count: how many, one a sample.
        generator: source of randomness; the levels are on its device.
    """
    device = generator.device
    edges = torch.cat([levels, levels.new_ones(1)]).to(device)
    piece = torch.randint(len(levels), (count,), generator=generator, device=device)
    share = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
    return torch.lerp(edges[piece], edges[piece + 1], share)


def log_normal_gamma(
    log_mean: float, log_sd: float, count: int, generator: torch.Generator
) -> Float[Tensor, " count"]:
    """Draw training levels with normal ln sigma (Karras et al. 2022, table 1), stratified.

    Each of `count` equal parts of the distribution is met once, so that every step of training
    sees low and high levels.

    Args:
        log_mean, log_sd: of ln sigma.
        count: how many, one a sample.
        generator: source of randomness; the levels are on its device.
    """
    device = generator.device
    order = torch.randperm(count, generator=generator, device=device)
    offset = torch.rand(count, generator=generator, device=device)
    normal = torch.special.ndtri(((order + offset) / count).clamp(1e-4, 1 - 1e-4).double())
    return torch.sigmoid(-2.0 * (log_mean + log_sd * normal))


# --- How wrong it is to start at N(0, I) ----------------------------------------------------------


def terminal_kl_bits(gamma: float, mean_square: float = 1.0) -> float:
    """Give the divergence of q(y_T | y_0) from N(0, I), bits a dimension.

    Args:
        gamma: gamma_T.
        mean_square: E y_0^2; kernel density images in [-1, 1] have .78 to .998.

    Returns:
        1/2 [gamma (E y_0^2 - 1) - ln(1 - gamma)] / ln 2. The seed (4.2) claims 1e-5.
    """
    return 0.5 * (gamma * (mean_square - 1.0) - math.log1p(-gamma)) / math.log(2.0)


def terminal_gamma(kl_bits: float) -> float:
    """Give the gamma_T at which data of unit mean square are `kl_bits` from N(0, I)."""
    return -math.expm1(-2.0 * math.log(2.0) * kl_bits)


def last_beta_for(kl_bits: float, steps: int = 100, first: float = 1e-4) -> float:
    """Give the beta_T with which a linear schedule keeps a promise on its end.

    Args:
        kl_bits: the divergence promised, bits a dimension.
        steps, first: T and beta_1.

    Raises:
        InputError: no beta_T below 1 does it.
    """
    wanted = terminal_gamma(kl_bits)

    def end(last: float) -> float:
        return float(linear_beta(steps, first, last)[0])

    low, high = first, 1.0 - 1e-9
    if not end(high) < wanted < end(low):
        raise InputError(
            f"No linear schedule of {steps} steps from beta {first} ends {kl_bits} bits from "
            "noise; take more steps or another schedule."
        )
    while high - low > 1e-12:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if end(middle) > wanted else (low, middle)
    return high


def kept_by_start_at_noise(gamma: float, eigenvalue: float, stochastic: bool) -> float:
    """Give the share of a posterior mode's variance that a start at N(0, I) leaves or makes.

    Args:
        gamma: gamma_T.
        eigenvalue: lambda, the variance of the mode (of an eigenvector, not of a pixel).
        stochastic: whether the sampler adds noise as it goes (`ancestral`) or follows the flow.

    Returns:
        With exact steps, total = gamma lambda + 1 - gamma the variance that y_T should have, and
        c = gamma lambda / total the share of it that is signal: 1 / total along the flow, which
        scales its start by sqrt(lambda / total); 1 - c + c / total for the stochastic process,
        which forgets its start but for E[y_0 | y_T] and draws the rest of variance
        lambda (1 - gamma) / total anew.
    """
    return _kept(gamma, eigenvalue, 1.0, stochastic)


def kept_by_start_at_estimate(gamma: float, eigenvalue: float, stochastic: bool) -> float:
    """Give the share of a posterior mode's variance left by a start at N(sqrt(gamma) yhat, ...).

    The start has the variance 1 - gamma where gamma lambda + 1 - gamma is right.

    Args:
        gamma, eigenvalue, stochastic: as for `kept_by_start_at_noise`.

    Returns:
        With exact steps and r = lambda gamma / (1 - gamma): 1 / (1 + r) along the flow,
        1 - (r / (1 + r))^2 for the stochastic process.
    """
    return _kept(gamma, eigenvalue, 1.0 - gamma, stochastic)


def _kept(gamma: float, eigenvalue: float, start: float, stochastic: bool) -> float:
    total = gamma * eigenvalue + 1.0 - gamma
    signal = gamma * eigenvalue / total
    return 1.0 - signal + signal * start / total if stochastic else start / total
