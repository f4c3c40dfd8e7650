"""Is the spread of an ensemble that of its errors, and is the truth just one more draw?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sureloc.errors import InputError

Values = Float[Tensor, " values"]
Ranks = Int[Tensor, " values"]


class Spread(NamedTuple):
    """What an ensemble predicts of its error, and what that was, element by element.

    Attributes:
        variance: variance of the draws, with M - 1.
        squared_error: squared difference of their mean from the truth.
        draws: M.
    """

    variance: Values
    squared_error: Values
    draws: int


def spread_of(draws: Float[Tensor, "draws *shape"], truth: Float[Tensor, "*shape"]) -> Spread:
    """Give variances and squared errors, flattened.

    Raises:
        InputError: there are fewer than two draws.
    """
    if len(draws) < 2:
        raise InputError(f"There are {len(draws)} draws; a variance needs two or more.")
    squared = (draws.mean(0) - truth).square()
    return Spread(draws.var(0).reshape(-1), squared.reshape(-1), len(draws))


def spread_skill(spread: Spread) -> float:
    """Give sqrt((M + 1) / M * mean variance / mean squared error).

    1 where truth and draws have one law (Fortin et al. 2014); below 1 is overconfident. NaN
    without elements, infinite without errors.
    """
    m = spread.draws
    variance, squared = (float(v.double().mean()) for v in spread[:2])
    if squared == 0 and variance > 0:
        return math.inf
    return math.sqrt((m + 1) / m * variance / squared) if squared != 0 else math.nan


class SpreadBin(NamedTuple):
    """One bin of `spread_skill_in_bins`: mean predicted sd, its share of elements, the ratio."""

    predicted_sd: float
    share: float
    spread_skill: float


def spread_skill_in_bins(spread: Spread, bins: int = 5) -> list[SpreadBin]:
    """Give the spread-skill ratio in bins of equally many elements, by predicted sd.

    With few draws the ends bend although all is right: where the draws' variance happens to be
    small, so is the ratio.

    Raises:
        InputError: there are fewer elements than bins, or no bin.
    """
    if not 1 <= bins <= len(spread.variance):
        raise InputError(
            f"bins is {bins} for {len(spread.variance)} elements; it must be 1 or larger and at "
            "most their number."
        )
    parts = spread.variance.argsort().tensor_split(bins)
    return [
        SpreadBin(
            math.sqrt(float(spread.variance[part].double().mean())),
            len(part) / len(spread.variance),
            spread_skill(Spread(spread.variance[part], spread.squared_error[part], spread.draws)),
        )
        for part in parts
    ]


def ranks(
    draws: Float[Tensor, "draws *shape"],
    truth: Float[Tensor, "*shape"],
    generator: torch.Generator,
) -> Int[Tensor, "*shape"]:
    """Give how many draws lie below the truth, 0 to M, ties broken at random.

    Uniform on 0 to M where truth and draws have one law (Hamill 2001).
    """
    below = (draws < truth).sum(0)
    ties = (draws == truth).sum(0)
    unit = torch.rand(ties.shape, generator=generator, device=generator.device)
    return below + (unit.to(ties.device) * (ties + 1)).long()


def rank_histogram(rank: Int[Tensor, "*shape"], draws: int) -> Float[Tensor, " bins"]:
    """Give the share of each rank from 0 to `draws`."""
    counts = torch.bincount(rank.reshape(-1), minlength=draws + 1).double()
    return counts / counts.sum()


def distance_from_uniform(shares: Float[Tensor, " bins"]) -> float:
    """Give the total variation between shares and the uniform distribution, 0 to 1."""
    return 0.5 * float((shares - 1.0 / len(shares)).abs().sum())


class Coverage(NamedTuple):
    """An interval between two order statistics: what it should hold, and what it did."""

    nominal: float
    held: float


def coverage(rank: Int[Tensor, "*shape"], draws: int, k: int = 1) -> Coverage:
    """Give how often the truth lay between the k-th smallest and the k-th largest draw.

    Args:
        rank: the result of `ranks`.
        draws: M.
        k: 1 for the widest interval, at most (M + 1) // 2.

    Returns:
        The share, beside its nominal value (M + 1 - 2 k) / (M + 1), which is exact for any M.

    Raises:
        InputError: k is out of range.
    """
    if not 1 <= k <= (draws + 1) // 2:
        raise InputError(f"k is {k}; for {draws} draws it must lie in 1 to {(draws + 1) // 2}.")
    held = (rank >= k) & (rank <= draws - k)
    return Coverage((draws + 1 - 2 * k) / (draws + 1), float(held.double().mean()))


def mass_spread(
    draws: Float[Tensor, "draws items height width"], truth: Float[Tensor, "items height width"]
) -> Spread:
    """Give the spread of each image's total mass: do pixels err together as they should?"""
    return spread_of(draws.sum((-2, -1)), truth.sum((-2, -1)))


def tarp_ranks(
    draws: Float[Tensor, "draws items size"],
    truth: Float[Tensor, "items size"],
    references: Float[Tensor, "items size"],
    generator: torch.Generator,
) -> Int[Tensor, " items"]:
    """Give how many draws are nearer to a reference point than the truth (Lemos et al. 2023).

    Uniform on 0 to M where truth and draws have one law. References must depend on the data (such
    as phi's estimate plus noise): with fixed ones, draws that ignore the data pass.
    """
    far = torch.linalg.vector_norm(draws - references, dim=-1)
    return ranks(far, torch.linalg.vector_norm(truth - references, dim=-1), generator)


def bootstrap_sd(
    by_frame: Float[Tensor, "frames sums"],
    statistic: Callable[[Tensor], float],
    generator: torch.Generator,
    resamples: int = 200,
) -> float:
    """Give the standard error of a statistic of sums over frames.

    Frames are drawn anew, never pixels, whose errors go together.

    Args:
        by_frame: what each frame adds to each sum.
        statistic: gives a number for the sums, shape (sums,).
        generator: source of the resamples.
        resamples: how many.
    """
    frames = len(by_frame)
    picks = torch.randint(frames, (resamples, frames), generator=generator)
    return float(torch.tensor([statistic(by_frame[pick].sum(0)) for pick in picks]).std())
