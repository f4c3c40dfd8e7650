"""Samplers: from noise to an image, with any denoiser, any levels, and as many steps as levels.

Every sampler is a function of (denoiser, start, levels, generator). It walks from level to level,
the noisiest first, and closes with the denoiser's estimate at the last one: the step of seed
eq. 7 to gamma_0 = 1, where no noise is added. The deterministic ones take no notice of the
generator; they solve the probability flow (Song et al. 2021, eq. 13) written for
x = y_t / sqrt(gamma): dx / d sigma = (x - D) / sigma.

Start at `white_noise` where levels[0] is almost 0; `schedules.terminal_kl_bits` tells how far that
is from right, and docs/schedules.md what happens else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from sureloc.diffusion.denoisers import Denoiser
from sureloc.diffusion.noise import Generators, white_noise
from sureloc.diffusion.schedules import Levels

Start = Float[Tensor, "items *shape"]
# Floats where a graph is traced, as a traced tensor's values cannot be looked at.
Gammas = Levels | Sequence[float]


@runtime_checkable
class Sampler(Protocol):
    """What every function of this module is."""

    def __call__(
        self, denoiser: Denoiser, start: Start, levels: Gammas, generator: Generators = (), /
    ) -> Float[Tensor, "items *shape"]:
        """Draw images.

        Args:
            denoiser: gives the estimate of the clean image.
            start: y_T, of the law that belongs to levels[0].
            levels: gammas, the noisiest first.
            generator: source of the noise that stochastic samplers add, one or one an item.
        """
        ...


def ancestral(
    denoiser: Denoiser,
    start: Start,
    levels: Gammas,
    generator: Generators = (),
    variance: Literal["beta", "posterior"] = "beta",
) -> Float[Tensor, "items *shape"]:
    """Draw by the reverse process of the paper (seed eqs. 5 and 7; Ho et al. 2020, algorithm 2).

    With beta_t = 1 - gamma_t / gamma_(t-1) and eps the noise that the denoiser leaves,
    y_(t-1) = (y_t - beta_t / sqrt(1 - gamma_t) eps) / sqrt(1 - beta_t) + sd z. The added variance
    is beta_t, right for data N(0, I) and any step, or that of q(y_(t-1) | y_t, y_0), right for
    data of a single image. One evaluation a level.
    """
    y = start
    for now, after in pairwise(_floats(levels)):
        beta = 1.0 - now / after
        epsilon = (y - math.sqrt(now) * denoiser(y, now)) / math.sqrt(1.0 - now)
        mean = (y - beta / math.sqrt(1.0 - now) * epsilon) / math.sqrt(1.0 - beta)
        added = beta if variance == "beta" else beta * (1.0 - after) / (1.0 - now)
        y = mean + math.sqrt(added) * white_noise(y, generator)
    return denoiser(y, float(levels[-1]))


def ddim(
    denoiser: Denoiser, start: Start, levels: Gammas, _generator: Generators = ()
) -> Float[Tensor, "items *shape"]:
    """Draw by the deterministic first-order solver (Song, Meng and Ermon 2021, eq. 12, eta = 0).

    y' = sqrt(gamma') D + sqrt(1 - gamma') eps. One evaluation a level.
    """
    y = start
    for now, after in pairwise(_floats(levels)):
        y = _exponential_step(y, denoiser(y, now), now, after)
    return denoiser(y, float(levels[-1]))


def dpm_solver_2m(
    denoiser: Denoiser, start: Start, levels: Gammas, _generator: Generators = ()
) -> Float[Tensor, "items *shape"]:
    """Draw by DPM-Solver++(2M), of second order (Lu et al. 2022, algorithm 2).

    A step of DDIM with the denoised image extrapolated half a step ahead, in h = ln(sigma/sigma'),
    from this level and the one before: D + h / (2 h_before) (D - D_before). One evaluation a level.
    """
    y, before, width_before = start, start, math.inf
    for now, after in pairwise(_floats(levels)):
        clean, width = denoiser(y, now), _width(now, after)
        ahead = clean + width / (2.0 * width_before) * (clean - before)
        y = _exponential_step(y, ahead, now, after)
        before, width_before = clean, width
    return denoiser(y, float(levels[-1]))


def unipc(
    denoiser: Denoiser, start: Start, levels: Gammas, _generator: Generators = ()
) -> Float[Tensor, "items *shape"]:
    """Draw by DPM-Solver++(2M) whose every step is corrected once its end is known.

    Where the end y' of a step has been denoised anyway, the step is taken again with the mean of
    both denoised images, (D + D') / 2, before the next one starts (Zhao et al. 2023: UniP of order
    2, UniC of order 1 with B = e^h - 1). Second order. One evaluation a level.
    """
    gammas = _floats(levels)
    y, before, width_before = start, start, math.inf
    clean = denoiser(y, gammas[0])
    for now, after in pairwise(gammas):
        width = _width(now, after)
        ahead = clean + width / (2.0 * width_before) * (clean - before)
        denoised = denoiser(_exponential_step(y, ahead, now, after), after)
        y = _exponential_step(y, 0.5 * (clean + denoised), now, after)
        before, clean, width_before = clean, denoised, width
    return clean


def heun(
    denoiser: Denoiser, start: Start, levels: Gammas, _generator: Generators = ()
) -> Float[Tensor, "items *shape"]:
    """Draw by Heun's second-order solver in sigma (Karras et al. 2022, algorithm 1).

    Two evaluations a level, one at the last.
    """
    y = start
    for now, after in pairwise(_floats(levels)):
        sigma, sigma_after = _sigma(now), _sigma(after)
        x = y / math.sqrt(now)
        slope = (x - denoiser(y, now)) / sigma
        euler = x + (sigma_after - sigma) * slope
        slope_after = (euler - denoiser(math.sqrt(after) * euler, after)) / sigma_after
        y = math.sqrt(after) * (x + (sigma_after - sigma) * 0.5 * (slope + slope_after))
    return denoiser(y, float(levels[-1]))


def evaluations(sampler: Sampler, levels: int) -> int:
    """Give how often a sampler of this module runs the denoiser for so many levels."""
    return 2 * levels - 1 if sampler is heun else levels


def _floats(levels: Gammas) -> list[float]:
    return levels.tolist() if isinstance(levels, Tensor) else list(levels)


def _exponential_step(y: Tensor, clean: Tensor, now: float, after: float) -> Tensor:
    """Follow the flow from one level to another as if the denoised image stayed `clean`."""
    shrink = math.sqrt((1.0 - after) / (1.0 - now))
    return shrink * y + (math.sqrt(after) - shrink * math.sqrt(now)) * clean


def _sigma(gamma: float) -> float:
    return math.sqrt((1.0 - gamma) / gamma)


def _width(now: float, after: float) -> float:
    return math.log(_sigma(now) / _sigma(after))
