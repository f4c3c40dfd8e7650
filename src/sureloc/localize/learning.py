"""Priors learned from the movie itself (empirical Bayes).

Photons, density and background are first guessed from detected spots, then learned by stochastic
expectation-maximization: chains draw emitter sets of some frames under the present priors, and
the priors are fitted to what was drawn (Robbins 1956; Celeux and Diebolt 1985).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sureloc.localize.detect import Spots, detect_spots
from sureloc.localize.frames import Effort, FramePosterior, frame_posterior
from sureloc.physics.priors import PhotonPrior, ScenePrior
from sureloc.physics.referee import FrameData

Array = npt.NDArray[np.float64]
Map = Callable[[Callable[[int], FramePosterior], Iterable[int]], Iterable[FramePosterior]]

KNOT_SPACING_PX = 20.0
OUTLIER_SHARE = 0.03  # of the photon prior, spread widely: the unexpected stays possible
LEAST_PHOTONS = 10.0
BANDWIDTH = 0.10  # of ln N, by which drawn photons are smoothed
ROUNDS = 4
PRIOR_EMITTERS = 30.0  # how many emitters the broad prior counts for


@dataclass(frozen=True)
class LearnedPrior:
    """What a movie taught about its emitters.

    Attributes:
        prior: the prior for its frames.
        history: density per px^2, mean photons and mean background of every round, (rounds, 3).
        emitters: mean number of drawn emitters behind it.
    """

    prior: ScenePrior
    history: Array
    emitters: float


def knot_grid(shape: tuple[int, int]) -> tuple[int, int]:
    """Give how many background knots a frame of shape (rows, columns) gets along y and x."""
    rows, columns = (max(2, 1 + round((size - 1) / KNOT_SPACING_PX)) for size in shape)
    return rows, columns


def at_knots(background: Array) -> Array:
    """Give the values (knots_y, knots_x) of a smooth map (rows, columns) at its knots."""
    rows, columns = knot_grid((background.shape[0], background.shape[1]))
    r = np.rint(np.linspace(0, background.shape[0] - 1, rows)).astype(int)
    c = np.rint(np.linspace(0, background.shape[1] - 1, columns)).astype(int)
    return np.asarray(background[np.ix_(r, c)])


def spots_of_frame(spots: Spots, frame: int) -> Array:
    """Give the spots of one frame as (n, 3): x px, y px, photo-electrons."""
    mine = spots.frame == frame
    return np.stack([spots.x_px[mine], spots.y_px[mine], spots.photons[mine]], axis=1)


def first_prior(spots: Spots, margin_px: float) -> ScenePrior:
    """Guess the prior from detected spots: broad in photons, since bright spots may be pairs."""
    frames, rows, columns = spots.background_e.shape
    photons = spots.photons[spots.photons > 0]
    median = float(np.median(photons)) if photons.size else 500.0
    spread = (
        1.4826 * float(np.median(np.abs(np.log(photons / median)))) if photons.size > 5 else 0.7
    )
    background = spots.background_e.mean(0)
    return ScenePrior(
        max(1.2 * spots.frame.size, 0.5) / (frames * rows * columns),
        broad_photons(median, min(max(1.2 * spread, 0.4), 1.2)),
        at_knots(background),
        float(max(0.15 * background.mean(), 0.5)),
        margin_px,
    )


def broad_photons(median: float, log_sd: float) -> PhotonPrior:
    """Give a log-normal photon prior with a wide floor under it."""
    return _tabulated(lambda u: _normal(u, math.log(median), log_sd), median, log_sd)


def learned_photons(photons: Array, weight: float, before: PhotonPrior) -> PhotonPrior:
    """Fit the photon prior to drawn photons.

    Args:
        photons: photo-electrons of all drawn emitters.
        weight: how many independent emitters they stand for.
        before: the prior that speaks where they are few.
    """
    log_photons = np.log(photons)
    grid = before.log_photons
    step = before.step
    edges = np.concatenate([grid - step / 2, grid[-1:] + step / 2])
    counts = np.histogram(log_photons, edges)[0].astype(float)
    smooth = ndimage.gaussian_filter1d(counts, BANDWIDTH / step, mode="nearest")
    smooth /= max(smooth.sum() * step, 1e-12)
    share = PRIOR_EMITTERS / (PRIOR_EMITTERS + weight)
    share = max(share, OUTLIER_SHARE)
    centre, spread = float(np.median(log_photons)), float(max(log_photons.std(), 0.3))
    density = (1 - share) * smooth + share * _normal(grid, centre, 1.5 * spread)
    return PhotonPrior(grid, np.log(density / np.trapezoid(density, grid)))


def _tabulated(density: Callable[[Array], Array], median: float, log_sd: float) -> PhotonPrior:
    low = max(LEAST_PHOTONS, median * math.exp(-5 * log_sd - 1))
    high = median * math.exp(4 * log_sd + 1)

    def mixed(u: Array) -> Array:
        flat = np.full_like(u, 1.0 / math.log(high / low))
        return (1 - OUTLIER_SHARE) * density(u) + OUTLIER_SHARE * flat

    return PhotonPrior.from_density(mixed, low, high)


def _normal(u: Array, mean: float, sd: float) -> Array:
    return np.exp(-0.5 * ((u - mean) / sd) ** 2) / (sd * math.sqrt(2 * math.pi))


def learn_prior(
    electrons: Array,
    read_variance_e2: Array,
    sigma_px: tuple[float, float],
    excess_noise: float,
    seed: int,
    effort: Effort,
    run: Map,
    ignore: npt.NDArray[np.bool_] | None = None,
) -> LearnedPrior:
    """Learn photons, density and background from some frames of a movie.

    Args:
        electrons: the frames, spread over the movie, (frames, rows, columns), photo-electrons.
        read_variance_e2: read variance, electrons^2, (rows, columns).
        sigma_px: PSF widths along columns and rows, px.
        excess_noise: F^2, 1 without electron multiplication.
        seed: the user's seed.
        effort: how much work each frame gets in each round.
        run: maps a function over frame numbers; `map`, or one that uses several threads.
        ignore: pixels that tell nothing, (frames, rows, columns), or None.

    Returns:
        The prior after `ROUNDS` rounds and how it came about.
    """
    spots = detect_spots(electrons, read_variance_e2, sigma_px, excess_noise)
    prior = first_prior(spots, margin_px=1.0 * max(sigma_px))
    frames, rows, columns = electrons.shape
    starts = [spots_of_frame(spots, f) for f in range(frames)]
    history = []
    emitters = 0.0
    for turn in range(ROUNDS):

        def one(
            f: int, prior: ScenePrior = prior, turn: int = turn, starts: list[Array] = starts
        ) -> FramePosterior:
            data = FrameData(
                electrons[f], read_variance_e2, excess_noise, None if ignore is None else ignore[f]
            )
            return frame_posterior(
                data, prior, sigma_px, [starts[f]], effort, seed, -1 - f - turn * frames, 0.5
            )

        found = list(run(one, range(frames)))
        starts = [_last_state(p) for p in found]
        prior, emitters = _refit(found, prior, (rows, columns))
        history.append(
            (prior.density_per_px2, prior.photons.mean, float(np.mean(prior.background_e)))
        )
    return LearnedPrior(prior, np.array(history), emitters)


def _last_state(posterior: FramePosterior) -> Array:
    draws = posterior.draws
    n = draws.counts[-1]
    return np.stack([draws.x_px[-1, :n], draws.y_px[-1, :n], draws.photons[-1, :n]], axis=1)


def _refit(
    found: list[FramePosterior], before: ScenePrior, shape: tuple[int, int]
) -> tuple[ScenePrior, float]:
    x_low, x_high, y_low, y_high = before.region(shape)
    area = (x_high - x_low) * (y_high - y_low)
    counts = np.array([p.draws.counts.mean() for p in found])
    emitters = float(counts.sum())
    # Outside the frame the data say little, and the prior would only learn from itself.
    photons = np.concatenate(
        [
            p.draws.photons[
                p.draws.present
                & (np.abs(2 * p.draws.x_px - shape[1] + 1) <= shape[1])
                & (np.abs(2 * p.draws.y_px - shape[0] + 1) <= shape[0])
            ]
            for p in found
        ]
    )
    knots = np.stack([p.draws.knots.mean(0) for p in found])
    within = float(np.mean([p.draws.knots.var(0).mean() for p in found]))
    between = float(knots.var(0).mean()) if len(found) > 1 else 0.0
    mean = knots.mean(0)
    return (
        replace(
            before,
            density_per_px2=max(emitters, 0.5) / (area * len(found)),
            photons=learned_photons(photons, emitters, before.photons)
            if photons.size
            else before.photons,
            background_e=mean,
            background_sd_e=max(math.sqrt(within + between), 0.02 * float(mean.mean()), 0.05),
        ),
        emitters,
    )
