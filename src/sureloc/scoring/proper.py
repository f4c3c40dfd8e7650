"""Proper scores of ensembles, fair: unbiased in the number of draws (Ferro 2014)."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import ndtr
from torch import Tensor

from sureloc.errors import InputError


def fair_crps(
    draws: Float[Tensor, "draws *shape"], truth: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Give the continuous ranked probability score of each element.

    Args:
        draws: M draws, two or more.
        truth: what was true.

    Returns:
        mean |s_i - y| - sum_ij |s_i - s_j| / (2 M (M - 1)) (Ferro 2014, eq. 8), in the draws'
        unit; its mean over ensembles is the score of infinitely many draws.

    Raises:
        InputError: there are fewer than two draws.
    """
    count = _count(draws)
    # Over sorted draws sum_ij |s_i - s_j| is a weighted sum: no pair need be looked at.
    weight = 2.0 * torch.arange(1, count + 1, dtype=draws.dtype, device=draws.device) - count - 1
    pairs = 2.0 * torch.tensordot(weight, draws.sort(0).values, dims=1)
    score: Tensor = (draws - truth).abs().mean(0) - pairs / (2 * count * (count - 1))
    return score


def fair_energy_score(
    draws: Float[Tensor, "draws *shape size"], truth: Float[Tensor, "*shape size"]
) -> Float[Tensor, "*shape"]:
    """Give the energy score of vectors (Gneiting and Raftery 2007, eq. 22), made fair.

    Args:
        draws: M draws of vectors, two or more.
        truth: the true vectors.

    Returns:
        mean |s_i - y| - sum_ij |s_i - s_j| / (2 M (M - 1)) with the Euclidean norm, in the draws'
        unit. Unlike the CRPS of its elements it sees how they go together.

    Raises:
        InputError: there are fewer than two draws.
    """
    count = _count(draws)
    skill = torch.linalg.vector_norm(draws - truth, dim=-1).mean(0)
    # One draw at a time: all pairs at once would need M times the memory of the draws.
    spread = torch.zeros_like(skill)
    for i in range(count - 1):
        spread = spread + torch.linalg.vector_norm(draws[i + 1 :] - draws[i], dim=-1).sum(0)
    score: Tensor = skill - spread / (count * (count - 1))
    return score


def gaussian_crps(
    mean: Float[np.ndarray, "*shape"],
    sd: Float[np.ndarray, "*shape"],
    truth: Float[np.ndarray, "*shape"],
) -> Float[np.ndarray, "*shape"]:
    """Give the continuous ranked probability score of Gaussian predictions.

    Args:
        mean, sd: of each prediction; with a deviation of 0 it is a single value.
        truth: what was true.

    Returns:
        sd (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)) with z = (truth - mean) / sd (Gneiting et
        al. 2005, eq. 5), and |truth - mean| where the deviation is 0; in the unit of the values.
    """
    off = truth - mean
    z = off / np.where(sd > 0, sd, 1.0)
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    score = sd * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))
    return np.asarray(np.where(sd > 0, score, np.abs(off)))


def _count(draws: Tensor) -> int:
    if len(draws) < 2:
        raise InputError(
            f"There are {len(draws)} draws; a fair score needs two or more (16 are usual)."
        )
    return len(draws)
