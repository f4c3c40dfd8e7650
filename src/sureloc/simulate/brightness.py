"""How bright molecules are: draws of the photons that one sends in a frame."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sureloc.simulate.recipe import (
    ExponentialPhotons,
    FixedPhotons,
    LognormalPhotons,
    PhotonsRecipe,
    UniformPhotons,
)


def draw_brightness(
    photons: PhotonsRecipe, count: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw expected detected photons a frame, shape (count,)."""
    match photons:
        case FixedPhotons():
            return np.full(count, photons.photons)
        case UniformPhotons():
            return rng.uniform(photons.low, photons.high, count)
        case LognormalPhotons():
            log_variance = math.log1p((photons.sd / photons.mean) ** 2)
            log_mean = math.log(photons.mean) - log_variance / 2
            return rng.lognormal(log_mean, math.sqrt(log_variance), count)
        case ExponentialPhotons():
            return rng.exponential(photons.mean, count)
