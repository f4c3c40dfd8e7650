"""What a network's output means: from a raw output to an estimate of the clean image, and back.

A network sees y_t = sqrt(gamma) y_0 + sqrt(1 - gamma) eps and ln(gamma / (1 - gamma)). What it is
trained to say of y_0 is one of

    epsilon          eps                                       (seed eq. 9; Ho et al. 2020)
    clean            y_0
    preconditioned   sqrt(1 - gamma) y_0 - sqrt(gamma) eps     (Karras et al. 2022, eqs. 7 and 8)

For data of unit variance (sigma_data = 1) Karras's preconditioning

    D(u, sigma) = u / (1 + sigma^2) + sigma / sqrt(1 + sigma^2) F(u / sqrt(1 + sigma^2), ln sigma)

of u = y_0 + sigma eps is, with u = y_t / sqrt(gamma), nothing else than
D = sqrt(gamma) y_t + sqrt(1 - gamma) F(y_t): the network's input is y_t itself.

Psi's data are residuals u_0 = (y - yhat) / s, whose rms is 1 when s is that of y - yhat.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Target = Literal["epsilon", "clean", "preconditioned"]
# y_t and ln(gamma / (1 - gamma)) of each item in, the raw output out.
Network = Callable[[Tensor, Tensor], Tensor]
# The same at one level for all items, as samplers go: then it is a number.
LevelNetwork = Callable[[Tensor, float], Tensor]
# y_t and its gamma in, the estimate of y_0 out.
Denoiser = Callable[[Tensor, float], Tensor]


def regression_target(
    target: Target,
    clean: Float[Tensor, "items *shape"],
    noise: Float[Tensor, "items *shape"],
    gamma: Float[Tensor, " items"],
) -> Float[Tensor, "items *shape"]:
    """Give what the raw output is compared with in training.

    Args:
        target: what the output means.
        clean, noise: y_0 and eps of each item.
        gamma: level of each item.
    """
    if target == "epsilon":
        return noise
    if target == "clean":
        return clean
    level = gamma.reshape(-1, *(1,) * (clean.ndim - 1))
    return (1.0 - level).sqrt().to(clean) * clean - level.sqrt().to(clean) * noise


def clean_estimate(
    target: Target,
    noisy: Float[Tensor, "*shape"],
    gamma: float,
    raw: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """Give the estimate of y_0 that a raw output stands for.

    Args:
        target: what the output means.
        noisy: y_t.
        gamma: its level.
        raw: the network's output for it.
    """
    signal, noise = math.sqrt(gamma), math.sqrt(1.0 - gamma)
    if target == "epsilon":
        return (noisy - noise * raw) / signal
    if target == "clean":
        return raw
    return signal * noisy + noise * raw


def denoiser_of(network: LevelNetwork, target: Target) -> Denoiser:
    """Turn a network into the denoiser that samplers take."""

    def denoise(noisy: Tensor, gamma: float) -> Tensor:
        log_snr = math.log(gamma) - math.log1p(-gamma)
        return clean_estimate(target, noisy, gamma, network(noisy, log_snr))

    return denoise


def to_residual(
    image: Float[Tensor, "*shape"],
    estimate: Float[Tensor, "*shape"],
    scale: float | Float[Tensor, ""],
) -> Float[Tensor, "*shape"]:
    """Give u_0 = (y - yhat) / s."""
    return (image - estimate) / scale


def from_residual(
    residual: Float[Tensor, "*shape"],
    estimate: Float[Tensor, "*#shape"],
    scale: float | Float[Tensor, ""],
) -> Float[Tensor, "*shape"]:
    """Give y = yhat + s u_0, undoing `to_residual`; one estimate may serve many draws."""
    return estimate + scale * residual
