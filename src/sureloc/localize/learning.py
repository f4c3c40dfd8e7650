"""Priors learned from the movie itself (empirical Bayes).

Photons, density and background are first guessed from detected spots, then learned by stochastic
expectation-maximization: chains draw emitter sets of some frames under the present priors, and
the priors are fitted to what was drawn (Robbins 1956; Celeux and Diebolt 1985).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sureloc.localize.detect import Spots
from sureloc.localize.frames import Effort, FramePosterior, frame_posterior
from sureloc.localize.width import Width, refined_width, width_evidence
from sureloc.physics.priors import PhotonPrior, ScenePrior
from sureloc.physics.referee import FrameData

Array = npt.NDArray[np.float64]
DensityMap = Callable[[int, slice, slice], Array]
Map = Callable[[Callable[[int], FramePosterior], Iterable[int]], Iterable[FramePosterior]]

KNOT_SPACING_PX = 20.0
OUTLIER_SHARE = 0.03  # of the photon prior, spread widely: the unexpected stays possible
MARGIN_SIGMAS = 2.5  # how far outside the frame emitters are looked for: their light shines in
LEAST_SIGNIFICANCE = 3.0  # fainter emitters cannot be told from background, and belong to it
CLEAR_SIGNIFICANCE = 8.0  # emitters from here on can be counted without knowing how common they are
SPOT_SIGNIFICANCE = 5.0  # and lone ones from here on, as detected spots
MISSED_SPOTS = 2.0  # emitters for each detected spot, at most
NEAR_CLEAR = 1.4  # times the faintest clear photons: how common those just above are
BANDWIDTH = 0.10  # of ln N, by which drawn photons are smoothed
ROUNDS = 8
_FARTHER = 0.4, 2.0  # how much smaller or larger a round may find the variance
PRIOR_EMITTERS = 30.0  # how many emitters the broad prior counts for


@dataclass(frozen=True)
class LearnedPrior:
    """What a movie taught about its emitters.

    Attributes:
        prior: density, photons and background scatter; its background is the mean level.
        background_e: prior mean background, photo-electrons, (rows, columns).
        history: density per px^2, mean photons and mean background of every round, (rounds, 3).
        emitters: mean number of drawn emitters behind the last round.
    """

    prior: ScenePrior
    background_e: Array
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


def faintest_photons(
    background_e: float, read_variance_e2: float, sigma_px: tuple[float, float], excess_noise: float
) -> float:
    """Give the photo-electrons at which a lone emitter stands `LEAST_SIGNIFICANCE` sd out.

    A matched filter over a Gaussian PSF on level noise has the sd sqrt(4 pi sigma^2 variance).
    """
    variance = excess_noise * background_e + read_variance_e2
    return LEAST_SIGNIFICANCE * math.sqrt(4 * math.pi * sigma_px[0] * sigma_px[1] * variance)


def first_prior(spots: Spots, margin_px: float, faintest: float) -> ScenePrior:
    """Guess the prior from detected spots: broad in photons, since bright spots may be pairs.

    Args:
        spots: what detection found in some frames.
        margin_px: how far outside the frame emitters may lie.
        faintest: photo-electrons below which no emitter is looked for.
    """
    frames, rows, columns = spots.background_e.shape
    photons = spots.photons[spots.photons > 0]
    median = float(np.median(photons)) if photons.size else 500.0
    spread = (
        1.4826 * float(np.median(np.abs(np.log(photons / median)))) if photons.size > 5 else 0.7
    )
    background = spots.background_e.mean(0)
    return ScenePrior(
        max(1.2 * spots.frame.size, 0.5) / (frames * rows * columns),
        broad_photons(median, min(max(1.2 * spread, 0.4), 1.2), faintest),
        float(max(background.mean(), 0.0)),
        float(max(0.15 * background.mean(), 0.5)),
        margin_px,
    )


def broad_photons(median: float, log_sd: float, faintest: float) -> PhotonPrior:
    """Give a log-normal photon prior, cut off below `faintest`, with a wide floor under it."""
    low = min(max(faintest, median * math.exp(-5 * log_sd - 1)), 0.5 * median)
    high = median * math.exp(4 * log_sd + 1)

    def mixed(u: Array) -> Array:
        flat = np.full_like(u, 1.0 / math.log(high / low))
        return (1 - OUTLIER_SHARE) * _normal(u, math.log(median), log_sd) + OUTLIER_SHARE * flat

    return PhotonPrior.from_density(mixed, low, high)


def learned_photons(
    photons: Array, weight: float, before: PhotonPrior, clear: float, spots_per_photon: float
) -> tuple[PhotonPrior, float]:
    """Fit the photon prior to drawn photons.

    Below `clear` nothing tells emitters from what a smooth background leaves over, and a prior that
    learns from its own draws there would come to explain the one by the other. Fainter emitters are
    therefore believed at most as common, per photon, as those just above, or twice as common as
    detected spots, since detection misses some and sees others as one.

    Args:
        photons: photo-electrons of all drawn emitters.
        weight: how many independent emitters they stand for.
        before: the prior that speaks where they are few.
        clear: photo-electrons from which on emitters can be counted.
        spots_per_photon: detected spots per photo-electron just below `clear`, over the number of
            drawn emitters.

    Returns:
        The prior, and the share of the drawn emitters that it believes in.
    """
    log_photons = np.log(photons)
    grid = before.log_photons
    step = before.step
    share = PRIOR_EMITTERS / (PRIOR_EMITTERS + weight)
    share = max(share, OUTLIER_SHARE)
    centre, spread = float(np.median(log_photons)), float(max(log_photons.std(), 0.3))
    middle = float(log_photons.mean())
    narrow = _narrowing(float(log_photons.var()), before.log_variance, 1.5 * spread)
    edges = np.concatenate([grid - step / 2, grid[-1:] + step / 2])
    counts = np.histogram(middle + narrow * (log_photons - middle), edges)[0].astype(float)
    smooth = ndimage.gaussian_filter1d(counts, BANDWIDTH / step, mode="nearest")
    smooth /= max(smooth.sum() * step, 1e-12)
    density = (1 - share) * smooth + share * _normal(grid, centre, 1.5 * spread)
    faint = grid < math.log(clear)
    near = ~faint & (grid < math.log(NEAR_CLEAR * clear))
    most = MISSED_SPOTS * spots_per_photon
    if near.any():
        most = max(most, float(density[near].sum() / np.exp(grid[near]).sum()))
    believed = np.where(faint, np.minimum(density, most * np.exp(grid)), density)
    believed = np.maximum(believed, 1e-12)  # a logarithm follows
    total = float(np.trapezoid(believed, grid))
    return PhotonPrior(grid, np.log(believed / total)), total / float(np.trapezoid(density, grid))


def _narrowing(drawn: float, before: float, wide: float) -> float:
    """Give by how much to draw photons together before they are smoothed, 0 to 1.

    Smoothing and room for outliers add variance. Where photons are poorly known, what was drawn
    mostly repeats the prior, and from round to round the added would pile up to many times itself.
    For the same reason rounds come slowly nearer to the truth; each goes half as far again.

    Args:
        drawn: variance of the logarithms drawn.
        before: variance of the logarithm in the prior from which they were drawn.
        wide: standard deviation of the part for outliers.
    """
    wanted = drawn * math.sqrt(min(max(drawn / before, _FARTHER[0]), _FARTHER[1]))
    left = (wanted - OUTLIER_SHARE * wide**2) / (1 - OUTLIER_SHARE) - BANDWIDTH**2
    return math.sqrt(min(max(left / max(drawn, 1e-12), 0.0), 1.0))


def _normal(u: Array, mean: float, sd: float) -> Array:
    return np.exp(-0.5 * ((u - mean) / sd) ** 2) / (sd * math.sqrt(2 * math.pi))


@dataclass(frozen=True)
class Crop:
    """A piece of one frame from which to learn.

    Attributes:
        frame: index among the frames at hand.
        rows, columns: the pixels.
    """

    frame: int
    rows: slice
    columns: slice


def learn_prior(
    electrons: Array,
    read_variance_e2: Array,
    width: Width,
    excess_noise: float,
    crops: Sequence[Crop],
    spots: Spots,
    seed: int,
    effort: Effort,
    run: Map,
    ignore: npt.NDArray[np.bool_],
    relative_density: DensityMap,
) -> tuple[LearnedPrior, Width]:
    """Learn photons, density, background and PSF width from pieces of some frames of a movie.

    Args:
        electrons: frames spread over the movie, (frames, rows, columns), photo-electrons.
        read_variance_e2: read variance, electrons^2, (rows, columns).
        width: what is believed of the PSF's width; if known, it stays.
        excess_noise: F^2, 1 without electron multiplication.
        crops: where to look closely.
        spots: what detection found in these frames, and their background.
        seed: the user's seed.
        effort: how much work each crop gets in each round.
        run: maps a function over crop numbers; `map`, or one that uses several threads.
        ignore: pixels that tell nothing, (frames, rows, columns).
        relative_density: gives the density over its mean in a piece of one of the frames, a whole
            number of cells a px.

    Returns:
        The prior after `ROUNDS` rounds and how it came about, and the width.
    """
    first, sigma_px = width, width.sigma_px
    background = np.maximum(spots.background_e.mean(0), 0.0)
    faintest = faintest_photons(
        float(background.mean()), float(np.median(read_variance_e2)), sigma_px, excess_noise
    )
    clear = faintest * CLEAR_SIGNIFICANCE / LEAST_SIGNIFICANCE
    dimmest = faintest * SPOT_SIGNIFICANCE / LEAST_SIGNIFICANCE
    dim = np.count_nonzero((spots.photons >= dimmest) & (spots.photons < clear))
    dim_spots = dim / (spots.background_e.size * (clear - dimmest))
    prior = first_prior(spots, MARGIN_SIGMAS * max(sigma_px), faintest)
    starts = [_start(spots, crop) for crop in crops]
    maps = [relative_density(crop.frame, crop.rows, crop.columns) for crop in crops]
    history = []
    emitters = 0.0
    pieces = [
        FrameData(
            electrons[crop.frame, crop.rows, crop.columns],
            read_variance_e2[crop.rows, crop.columns],
            excess_noise,
            ignore[crop.frame, crop.rows, crop.columns],
        )
        for crop in crops
    ]
    for turn in range(ROUNDS):

        def one(
            k: int,
            prior: ScenePrior = prior,
            background: Array = background,
            starts: list[Array] = starts,
            turn: int = turn,
            sigma_px: tuple[float, float] = width.sigma_px,
        ) -> FramePosterior:
            crop = crops[k]
            local = replace(
                prior,
                background_e=at_knots(background[crop.rows, crop.columns]),
                relative_density=maps[k],
            )
            # Negative numbers: streams apart from those of the movie's frames.
            number = -1 - k - turn * len(crops)
            return frame_posterior(
                pieces[k], local, sigma_px, [starts[k]], effort, seed, number, 0.5
            )

        found = list(run(one, range(len(crops))))
        starts = [p.draws.last for p in found]
        prior, emitters = _refit(
            found,
            prior,
            background,
            crops,
            maps,
            clear,
            dim_spots,
        )
        background = _refit_background(found, background, crops)
        if not first.known:
            evidence = [
                width_evidence(piece, posterior.draws, width.sigma_px)
                for piece, posterior in zip(pieces, found, strict=True)
            ]
            width = refined_width(first, width, evidence)
        history.append((prior.density_per_px2, prior.photons.mean, float(background.mean())))
    learned = LearnedPrior(prior, background, np.array(history, dtype=np.float64), emitters)
    return learned, width


def _start(spots: Spots, crop: Crop) -> Array:
    all_spots = spots_of_frame(spots, crop.frame)
    inside = (
        (all_spots[:, 0] > crop.columns.start - 0.5)
        & (all_spots[:, 0] < crop.columns.stop - 0.5)
        & (all_spots[:, 1] > crop.rows.start - 0.5)
        & (all_spots[:, 1] < crop.rows.stop - 0.5)
    )
    local: Array = all_spots[inside] - np.array([crop.columns.start, crop.rows.start, 0.0])
    return local


def _shape(crop: Crop) -> tuple[int, int]:
    return crop.rows.stop - crop.rows.start, crop.columns.stop - crop.columns.start


def _refit(
    found: list[FramePosterior],
    before: ScenePrior,
    background: Array,
    crops: Sequence[Crop],
    maps: Sequence[Array],
    clear: float,
    dim_spots: float,
) -> tuple[ScenePrior, float]:
    area = emitters = 0.0
    photons = []
    scatter = []
    for posterior, crop, density in zip(found, crops, maps, strict=True):
        draws, shape = posterior.draws, _shape(crop)
        # Outside the frame the data say little, and the prior would only learn from itself.
        inside = (
            draws.present
            & (np.abs(2 * draws.x_px - shape[1] + 1) <= shape[1])
            & (np.abs(2 * draws.y_px - shape[0] + 1) <= shape[0])
        )
        area += shape[0] * shape[1] * float(density.mean())
        emitters += float(inside.sum()) / draws.counts.size
        photons.append(draws.photons[inside])
        expected = at_knots(background[crop.rows, crop.columns])
        scatter.append(((draws.knots - expected) ** 2).mean())
    drawn = np.concatenate(photons)
    level = float(background.mean())
    learned, share = before.photons, 1.0
    if drawn.size:
        learned, share = learned_photons(
            drawn, emitters, before.photons, clear, dim_spots * area / max(emitters, 1e-9)
        )
    return (
        replace(
            before,
            density_per_px2=max(share * emitters, 0.5) / area,
            photons=learned,
            background_sd_e=max(math.sqrt(float(np.mean(scatter))), 0.02 * level, 0.05),
        ),
        emitters,
    )


def _refit_background(found: list[FramePosterior], before: Array, crops: Sequence[Crop]) -> Array:
    """Average the crops' backgrounds where there are any; scale the rest alike."""
    total, number = np.zeros_like(before), np.zeros_like(before)
    for posterior, crop in zip(found, crops, strict=True):
        total[crop.rows, crop.columns] += posterior.background_e
        number[crop.rows, crop.columns] += 1
    scale = float(total.sum()) / max(float((before * number).sum()), 1e-9)
    mixed: Array = (total + scale * before) / (number + 1)
    return mixed
