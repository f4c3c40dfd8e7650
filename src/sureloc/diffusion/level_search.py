"""Few noise levels that keep the variance of Gaussian data, whatever its modes.

Of draws by a deterministic sampler with the ideal denoiser, `sureloc.diffusion.ideal` tells which
share of each mode's variance they keep. Few levels in a regular spacing keep too much of some modes
and too little of others; here they are placed so that the largest error is least. What limits it
are the ends: a mode of variance lambda loses about sigma^2 / lambda at the last level, and a start
at N(0, I) is as wrong as the first level is far from noise.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares, minimize

from sureloc.diffusion.ideal import variance_kept
from sureloc.diffusion.samplers import Sampler
from sureloc.diffusion.schedules import Levels, levels_of_sigmas, sigma_of_gamma, terminal_gamma
from sureloc.errors import InputError

# Modes of residuals of frames with emitters, in units of a pixel's mean square.
MODES = (0.5, 390.0)
START_BITS = 3e-4
_GRID = 60  # modes that the search looks at, evenly in ln lambda
_NOISIEST = 200.0
_LEAST_STEP = 0.1  # of ln sigma


def variance_error(
    sampler: Sampler,
    sigmas: tuple[float, ...],
    modes: tuple[float, float] = MODES,
    places: int = 400,
) -> float:
    """Give the largest error of the share of variance that draws keep, over a range of modes.

    Args:
        sampler: a deterministic one of `sureloc.diffusion.samplers`.
        sigmas: noise levels, the noisiest first.
        modes: smallest and largest lambda, in units of the data's mean square.
        places: modes looked at, evenly in ln lambda.

    Raises:
        InputError: the levels do not fall.
    """
    return float(np.abs(_errors(sampler, levels_of_sigmas(sigmas), modes, places)).max())


def sigmas_that_keep_variance(
    sampler: Sampler,
    count: int,
    last_sigma: float,
    modes: tuple[float, float] = MODES,
    start_bits: float = START_BITS,
) -> tuple[float, ...]:
    """Find the noise levels whose largest error of the variance that draws keep is least.

    The same arguments give the same list: least squares from a regular spacing, then sequential
    quadratic programming of the largest error itself.

    Args:
        sampler: a deterministic one of `sureloc.diffusion.samplers`.
        count: how many levels, 2 or more.
        last_sigma: the last one is not below, as trained networks err where noise is tiny.
        modes: smallest and largest lambda, in units of the data's mean square.
        start_bits: how far a start at N(0, I) may be from the law of the first level, in bits a
            dimension of data of unit mean square (`schedules.terminal_kl_bits`).

    Returns:
        Levels, the noisiest first, for `sureloc.networks.weights.ListLevels`.

    Raises:
        InputError: fewer than 2 levels, modes out of order, or no room between the ends.
    """
    least_first = float(sigma_of_gamma(torch.tensor(terminal_gamma(start_bits)).double()))
    room = math.log(least_first) - math.log(last_sigma) if last_sigma > 0 else -math.inf
    if count < 2 or not 0 < modes[0] < modes[1] or not room > _LEAST_STEP * count:
        raise InputError(
            f"{count} levels for modes {modes[0]:g} to {modes[1]:g} shall run from sigma "
            f"{least_first:.3g} or more down to {last_sigma:g}; give 2 levels or more, modes from "
            "a smaller to a larger number above 0, and a last sigma well below the first."
        )
    low = np.full(count, math.log(last_sigma))
    low[0] = math.log(least_first)
    high = np.full(count, math.log(_NOISIEST))
    inside = 1e-3
    begin = np.linspace(low[0] + inside, low[-1] + inside, count)

    def errors(log_sigmas: NDArray[np.float64]) -> NDArray[np.float64]:
        levels = torch.sigmoid(torch.from_numpy(-2.0 * log_sigmas))
        return _errors(sampler, levels, modes, _GRID)

    fitted = least_squares(errors, begin, bounds=(low, high)).x
    begin = np.sort(fitted)[::-1]

    def room_left(values: NDArray[np.float64]) -> NDArray[np.float64]:
        found, largest = errors(values[:-1]), values[-1]
        steps = -np.diff(values[:-1]) - _LEAST_STEP
        return np.concatenate([largest - found, largest + found, steps])

    best = minimize(
        lambda values: values[-1],
        np.append(begin, np.abs(errors(begin)).max()),
        jac=lambda _: np.append(np.zeros(count), 1.0),
        bounds=[*zip(low, high, strict=True), (0.0, None)],
        constraints={"type": "ineq", "fun": room_left},
        method="SLSQP",
        options={"maxiter": 300, "ftol": 1e-9},
    )
    return tuple(np.exp(np.clip(best.x[:-1], low, high)).tolist())


def _errors(
    sampler: Sampler, levels: Levels, modes: tuple[float, float], places: int
) -> NDArray[np.float64]:
    """Give the share of variance kept - 1 of modes evenly in ln lambda."""
    variances = torch.logspace(
        math.log10(modes[0]), math.log10(modes[1]), places, dtype=torch.float64
    )
    kept = variance_kept(sampler, levels, variances, torch.Generator().manual_seed(0), draws=2)
    return (kept - 1.0).numpy()
