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
from sureloc.localize.evidence import Evidence, Width, frame_evidence, newton_step
from sureloc.localize.frames import Effort, FramePosterior, Proposals, frame_posterior, go_on
from sureloc.physics.priors import PhotonPrior, ScenePrior
from sureloc.physics.referee import FrameData, PosteriorDraws

Array = npt.NDArray[np.float64]
DensityMap = Callable[[int, slice, slice], Array]
Found = tuple[FramePosterior, Evidence]
Map = Callable[[Callable[[int], Found], Iterable[int]], Iterable[Found]]

KNOT_SPACING_PX = 20.0
OUTLIER_SHARE = 0.03  # of the photon prior, spread widely: the unexpected stays possible
MARGIN_SIGMAS = 2.5  # how far outside the frame emitters are looked for: their light shines in
LEAST_SIGNIFICANCE = 2.5  # fainter emitters cannot be told from background, and belong to it
CLEAR_SIGNIFICANCE = 8.0  # emitters from here on can be counted without knowing how common they are
SPOT_SIGNIFICANCE = 5.0  # and lone ones from here on, as detected spots
MISSED_SPOTS = 2.0  # emitters for each detected spot, at most
NEAR_CLEAR = 1.4  # times the faintest clear photons: how common those just above are
FAINT_END = 1.1, 1.4  # times the faintest photons: where emitters of a kind have become rare
FALLEN = 0.5, 0.25  # of the highest density per photon: believed not at all, and wholly
BANDWIDTH = 0.10  # of ln N, by which drawn photons are smoothed
ROUNDS = 8, 16  # at least, and at most
LATELY = 3  # rounds over which density, photons and background
CHANGED = 0.03  # changed by less than this share, for the last to be the last
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
    detected spots, since detection misses some and sees others as one. What a background leaves
    over is the more common the fainter it is, down to the faintest that are looked for: where drawn
    emitters become rare again before, they are all believed.

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
    cap = np.maximum(most * np.exp(grid), _set_apart(density / np.exp(grid), grid) * density)
    believed = np.where(faint, np.minimum(density, cap), density)
    believed = np.maximum(believed, 1e-12)  # a logarithm follows
    total = float(np.trapezoid(believed, grid))
    return PhotonPrior(grid, np.log(believed / total)), total / float(np.trapezoid(density, grid))


def _set_apart(per_photon: Array, grid: Array) -> float:
    """Give 1 where densities fall off towards the faint end of the grid, 0 where they do not."""
    edge = (grid > grid[0] + math.log(FAINT_END[0])) & (grid < grid[0] + math.log(FAINT_END[1]))
    left = float(per_photon[edge].mean() / per_photon.max())
    return min(max((FALLEN[0] - left) / (FALLEN[0] - FALLEN[1]), 0.0), 1.0)


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
    pause: Callable[[], None] = go_on,
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
        pause: called before every stretch of a chain; what it raises ends the work.

    Returns:
        The prior after the last round and how it came about, and the width.
    """
    background = np.maximum(spots.background_e.mean(0), 0.0)
    read_e2 = float(np.median(read_variance_e2))

    def faintest(level_e: float, width: Width) -> float:
        return faintest_photons(level_e, read_e2, width.sigma_px, excess_noise)

    least = faintest(float(background.mean()), width)
    clear, dim_spots = _clear(spots, least)
    pieces = [
        _Piece(
            crop,
            FrameData(
                electrons[crop.frame, crop.rows, crop.columns],
                read_variance_e2[crop.rows, crop.columns],
                excess_noise,
                ignore[crop.frame, crop.rows, crop.columns],
            ),
            relative_density(crop.frame, crop.rows, crop.columns),
        )
        for crop in crops
    ]
    prior = first_prior(spots, MARGIN_SIGMAS * max(width.sigma_px), least)
    beliefs = _Beliefs(prior, background, width)
    starts = [_start(spots, crop) for crop in crops]
    history: list[tuple[float, float, float]] = []
    while not _settled(history):
        look = _Round(pieces, beliefs, starts, effort, seed, len(history), pause)
        found, evidence = zip(*run(look, range(len(pieces))), strict=True)
        starts = [posterior.draws.last for posterior in found]
        refitted, emitters = _refit(found, beliefs, pieces, clear, dim_spots)
        background = _refit_background(found, beliefs.background_e, crops)
        next_width, prior = _gone_on(beliefs, refitted, width, evidence)
        level = float(background.mean())
        prior = replace(prior, photons=prior.photons.down_to(faintest(level, next_width)))
        beliefs = _Beliefs(prior, background, next_width)
        history.append((prior.density_per_px2, prior.photons.mean, level))
    learned = LearnedPrior(
        beliefs.prior, beliefs.background_e, np.array(history, dtype=np.float64), emitters
    )
    return learned, beliefs.width


@dataclass(frozen=True)
class _Piece:
    """A crop, its data and its density over the mean density of the movie."""

    crop: Crop
    data: FrameData
    density: Array

    @property
    def effective_px2(self) -> float:
        """Area over which the mean density gives as many emitters as are expected here."""
        return self.data.electrons.size * float(self.density.mean())

    def counted(self, draws: PosteriorDraws) -> npt.NDArray[np.bool_]:
        """Give which drawn emitters to learn from, (draws, max_emitters).

        Outside the frame the data say little, and the prior would only learn from itself.
        """
        rows, columns = self.data.electrons.shape
        inside: npt.NDArray[np.bool_] = (np.abs(2 * draws.x_px - columns + 1) <= columns) & (
            np.abs(2 * draws.y_px - rows + 1) <= rows
        )
        return inside & draws.present


@dataclass(frozen=True)
class _Beliefs:
    """What a round begins with."""

    prior: ScenePrior
    background_e: Array
    width: Width


@dataclass(frozen=True)
class _Round:
    """Draws emitter sets of a piece, given its number, and asks them; run in several threads."""

    pieces: Sequence[_Piece]
    beliefs: _Beliefs
    starts: Sequence[Array]
    effort: Effort
    seed: int
    turn: int
    pause: Callable[[], None]

    def __call__(self, number: int) -> Found:
        piece = self.pieces[number]
        crop = piece.crop
        prior = replace(
            self.beliefs.prior,
            background_e=at_knots(self.beliefs.background_e[crop.rows, crop.columns]),
            relative_density=piece.density,
        )
        # Negative numbers: streams apart from those of the movie's frames.
        stream = -1 - number - self.turn * len(self.pieces)
        sigma_px = self.beliefs.width.sigma_px
        start = Proposals([self.starts[number]])
        posterior = frame_posterior(
            piece.data, prior, sigma_px, start, self.effort, self.seed, stream, 0.5, self.pause
        )
        return posterior, _evidence(piece, posterior, self.beliefs)


def _clear(spots: Spots, faintest: float) -> tuple[float, float]:
    """Give from which photons on emitters are clear, and dim spots per photon and px^2 below."""
    clear = faintest * CLEAR_SIGNIFICANCE / LEAST_SIGNIFICANCE
    dimmest = faintest * SPOT_SIGNIFICANCE / LEAST_SIGNIFICANCE
    dim = np.count_nonzero((spots.photons >= dimmest) & (spots.photons < clear))
    return clear, dim / (spots.background_e.size * (clear - dimmest))


def _settled(history: Sequence[tuple[float, float, float]]) -> bool:
    """Say whether the last rounds changed little, or there were enough."""
    if len(history) < ROUNDS[0]:
        return False
    before, now = np.array(history[-1 - LATELY]), np.array(history[-1])
    still = np.abs(now - before) <= CHANGED * before
    return len(history) >= ROUNDS[1] or bool(still.all())


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


def _evidence(piece: _Piece, posterior: FramePosterior, beliefs: _Beliefs) -> Evidence:
    expected = beliefs.prior.density_per_px2 * piece.effective_px2
    draws = posterior.draws
    counted = piece.counted(draws)
    sigma_px = beliefs.width.sigma_px
    return frame_evidence(piece.data, draws, sigma_px, counted, expected, beliefs.prior.photons)


def _gone_on(
    before: _Beliefs, refitted: ScenePrior, first: Width, evidence: Sequence[Evidence]
) -> tuple[Width, ScenePrior]:
    """Let widths, density and photons go as far as the evidence says at once."""
    moved = (
        math.log(refitted.density_per_px2 / before.prior.density_per_px2),
        refitted.photons.log_mean - before.prior.photons.log_mean,
    )
    width, instead = newton_step(first, before.width, evidence, moved)
    further = refitted.density_per_px2 * math.exp(instead[0] - moved[0])
    photons = refitted.photons.moved(instead[1] - moved[1])
    return width, replace(refitted, density_per_px2=further, photons=photons)


def _refit(
    found: Sequence[FramePosterior],
    before: _Beliefs,
    pieces: Sequence[_Piece],
    clear: float,
    dim_spots: float,
) -> tuple[ScenePrior, float]:
    """Fit the prior to what was drawn; give also the mean number of drawn emitters."""
    prior = before.prior
    area = emitters = 0.0
    photons = []
    scatter = []
    for posterior, piece in zip(found, pieces, strict=True):
        draws, crop = posterior.draws, piece.crop
        counted = piece.counted(draws)
        area += piece.effective_px2
        emitters += float(counted.sum()) / draws.counts.size
        photons.append(draws.photons[counted])
        expected = at_knots(before.background_e[crop.rows, crop.columns])
        scatter.append(((draws.knots - expected) ** 2).mean())
    drawn = np.concatenate(photons)
    level = float(before.background_e.mean())
    learned, share = prior.photons, 1.0
    if drawn.size:
        learned, share = learned_photons(
            drawn, emitters, prior.photons, clear, dim_spots * area / max(emitters, 1e-9)
        )
    return (
        replace(
            prior,
            density_per_px2=max(share * emitters, 0.5) / area,
            photons=learned,
            background_sd_e=max(math.sqrt(float(np.mean(scatter))), 0.02 * level, 0.05),
        ),
        emitters,
    )


def _refit_background(
    found: Sequence[FramePosterior], before: Array, crops: Sequence[Crop]
) -> Array:
    """Average the crops' backgrounds where there are any; scale the rest alike."""
    total, number = np.zeros_like(before), np.zeros_like(before)
    for posterior, crop in zip(found, crops, strict=True):
        total[crop.rows, crop.columns] += posterior.background_e
        number[crop.rows, crop.columns] += 1
    scale = float(total.sum()) / max(float((before * number).sum()), 1e-9)
    mixed: Array = (total + scale * before) / (number + 1)
    return mixed
