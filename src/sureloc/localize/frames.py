"""The posterior of one frame: starts in, rows with intervals, draws and the expected image out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

from sureloc.compiled.assignment import nearest_rows
from sureloc.limits import check_limit
from sureloc.physics.consensus import Consensus, consensus, join_rows
from sureloc.physics.priors import ScenePrior, hat_functions
from sureloc.physics.referee import ChainLength, ChainTarget, FrameData, PosteriorDraws
from sureloc.seeds import numpy_generator

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

GATE_SIGMAS = 1.0  # a draw's emitter farther than this from a row is another emitter
SUPPORT_SIGMAS = 4.5  # 7e-6 of the flux per axis lies outside
SPARE_EMITTERS = 40
LIKELY = 0.9  # p_exists of rows whose position matters more than whether they exist
EXISTENCE = 2.0  # times as many effective draws are wanted where it is open whether a row exists
NEAR_SIGMAS = 1.5  # rows so near to one that lags are drawn anew with it
ACTIVE_SIGMAS = 3.5  # from rows that lag; what lies farther tells hardly anything about them
SETTLED_SDS = 1.0  # of a Poisson count: a chain that changed its number by more burns in again
MOST_BURN_INS = 4
MOST_STATES = 48  # kept of a chain: longer ones change slowly where they go on, and keep fewer


@dataclass(frozen=True)
class Effort:
    """How much work a frame gets.

    Attributes:
        chains: independent chains, each from its own start.
        sweeps: moves per emitter, and `counting` besides, before the first state is kept.
        states: states kept of each chain.
        sweeps_between: the same between kept states.
        rounds: up to so many times less one, chains make as many sweeps again as they have, over
            rows that want more draws,
        least_effective: those whose position has fewer effective ones, or whose existence is open
            and has fewer than `EXISTENCE` times as many.
        counting: births or deaths a sweep of a whole frame, however few emitters there are: whether
            there is one more is asked everywhere; in proportion fewer in sweeps over a part.
    """

    chains: int = 2
    sweeps: float = 40.0
    states: int = 48
    sweeps_between: float = 3.0
    rounds: int = 4
    least_effective: float = 20.0
    counting: float = 8.0

    def __post_init__(self) -> None:
        check_limit("rounds", self.rounds)


@dataclass(frozen=True)
class FramePosterior:
    """What the data and the prior say about one frame.

    Attributes:
        rows: the emitters on which the draws agree, with intervals.
        draws: `states` of each chain, chain after chain.
        background_e: posterior mean background, photo-electrons, (rows, columns).
        disagreement: share of variance of the emitter count that lies between the chains; near 0
            where the chains agree.
    """

    rows: Consensus
    draws: PosteriorDraws
    background_e: Array
    disagreement: float


def go_on() -> None:
    """Do nothing: the pause of those who never stop a run."""


@dataclass(frozen=True)
class Proposals:
    """Where chains may begin, and where they look for emitters.

    Attributes:
        starts: sets of emitters, (n, 3): x px, y px, photo-electrons.
        guide: relative density of births in the frame and `margin_px` round it (see `run_chain`).
        margin_px: whole pixels.
    """

    starts: Sequence[Array]
    guide: Array | None = None
    margin_px: int = 0


@dataclass(frozen=True)
class _Chains:
    """The chains of one frame, each with a source of randomness of its own."""

    target: ChainTarget
    effort: Effort
    length: ChainLength
    generators: Sequence[np.random.Generator]
    max_emitters: int
    pause: Callable[[], None]

    def begin(self, starts: Sequence[Array]) -> list[PosteriorDraws]:
        """Run each chain from one of the starts, or from no emitters.

        Where starts miss many emitters, as spots do in faint and crowded frames, they are born a
        few at a time. A chain whose number changed by more than chance makes it differ from sweep
        to sweep therefore burns in once more, with sweeps over as many as it has.
        """
        length = replace(self.length, burn_in=0)
        drawn = []
        for k, generator in enumerate(self.generators):
            state: Array | None = starts[k % len(starts)] if starts else None
            knots, moves = None, self.length.burn_in  # its moves are in no tally
            for _ in range(MOST_BURN_INS):
                before = 0 if state is None else len(state)
                settled = self._run(self.target, ChainLength(0, 1, moves), generator, state, knots)
                state, knots = settled.last, settled.knots[-1]
                if abs(len(state) - before) <= SETTLED_SDS * np.sqrt(len(state)):
                    break
                moves = round(self.effort.sweeps * (len(state) + self.effort.counting))
            drawn.append(self._run(self.target, length, generator, state, knots))
        return drawn

    def twice_as_long(
        self,
        chains: Sequence[PosteriorDraws],
        stretch: int,
        active: npt.NDArray[np.bool_],
    ) -> list[PosteriorDraws]:
        """Go on with each chain for as many sweeps as it has, over what lies in some pixels.

        Args:
            chains: as they are.
            stretch: how often they have been made twice as long.
            active: those pixels, (rows, columns).
        """
        knots = [chain.knots[-1] for chain in chains]
        last = [chain.last for chain in chains]
        here = np.mean([active[_pixels(e[:, 0], e[:, 1], active.shape)].sum() for e in last])
        sweeps = (self.length.draws << stretch) * self.effort.sweeps_between
        moves = round(sweeps * (float(here) + self.effort.counting))
        size = chains[0].counts.size
        if 2 * size > MOST_STATES:
            chains = [_at(chain, np.arange(1, size, 2)) for chain in chains]
            size = chains[0].counts.size
        further = ChainLength(0, size, max(moves // size, 1))
        target = self.target.only_in(active)
        more = [
            self._run(target, further, generator, start, begin)
            for generator, start, begin in zip(self.generators, last, knots, strict=True)
        ]
        return [join_draws(pair) for pair in zip(chains, more, strict=True)]

    def _run(
        self,
        target: ChainTarget,
        length: ChainLength,
        generator: np.random.Generator,
        start: Array | None,
        knots: Array | None,
    ) -> PosteriorDraws:
        self.pause()
        most = self.max_emitters
        return target.run(length, generator, start=start, start_knots=knots, max_emitters=most)


def frame_posterior(
    data: FrameData,
    prior: ScenePrior,
    sigma_px: tuple[float, float],
    begin: Proposals,
    effort: Effort,
    seed: int,
    frame: int,
    least_probability: float,
    pause: Callable[[], None] = go_on,
) -> FramePosterior:
    """Draw emitter sets for one frame from several starts and summarise them.

    Args:
        data: the frame.
        prior: what is believed before.
        sigma_px: PSF widths along columns and rows, px.
        begin: chain k begins at the k-th start, counted round.
        effort: how many chains and moves.
        seed: the user's seed.
        frame: number of the frame in the movie, which names its random streams.
        least_probability: rows less probable than this are left out.
        pause: called before every stretch of a chain; what it raises ends the work.

    Returns:
        The posterior; the same for any batch, chunk or number of workers.
    """
    largest = max((len(start) for start in begin.starts), default=0)
    sweep = max(largest, 4) + effort.counting
    length = ChainLength(
        burn_in=round(effort.sweeps * sweep),
        draws=effort.states,
        moves_per_draw=round(effort.sweeps_between * sweep),
    )
    share = effort.counting / sweep

    guide, margin = begin.guide, begin.margin_px
    walkers = _Chains(
        ChainTarget.of(data, prior, sigma_px, guide, margin, SUPPORT_SIGMAS, share),
        effort,
        length,
        [numpy_generator(seed, "chain", frame, k) for k in range(effort.chains)],
        2 * largest + SPARE_EMITTERS,
        pause,
    )
    width = float(np.sqrt(sigma_px[0] * sigma_px[1]))

    def summed_up(draws: PosteriorDraws) -> Consensus:
        return consensus(
            draws.x_px,
            draws.y_px,
            draws.photons,
            draws.counts,
            GATE_SIGMAS * width,
            least_probability,
            effort.chains,
        )

    chains = walkers.begin(begin.starts)
    stretches = [join_draws(chains)]
    rows = summed_up(stretches[0])
    told_by = np.zeros(len(rows), np.int64)
    going = _going_on(rows, effort.least_effective, NEAR_SIGMAS * width)
    for stretch in range(effort.rounds - 1):
        if not going.any():
            break
        active = _around(rows.places[going], data.electrons.shape, ACTIVE_SIGMAS * width)
        chains = walkers.twice_as_long(chains, stretch, active)
        whole = join_draws(chains)
        stretches.append(_spread(whole, effort.chains, effort.states))
        fresh = summed_up(_inside(whole, active))
        fresh = fresh.of_rows(going[nearest_rows(rows.places, fresh.x_px, fresh.y_px)])
        told_by = np.append(told_by[~going], np.full(len(fresh), stretch + 1))
        rows = join_rows(rows.of_rows(~going), fresh)
        settled = np.zeros(len(rows) - len(fresh), bool)
        going = np.append(settled, _going_on(fresh, effort.least_effective, NEAR_SIGMAS * width))
    draws = _pieced_together(stretches, rows.places, told_by)
    return FramePosterior(
        rows,
        draws,
        background_image(draws.knots.mean(0), data.electrons.shape),
        _disagreement(draws.counts.reshape(effort.chains, -1)),
    )


def _going_on(rows: Consensus, least_effective: float, near_px: float) -> npt.NDArray[np.bool_]:
    """Tell which rows want more draws: those with few effective ones, and those near these.

    What counts is the position of rows that surely exist, and whether others do.
    """
    lagging = np.where(
        rows.p_exists >= LIKELY,
        rows.effective_draws < least_effective,
        rows.existence_draws < EXISTENCE * least_effective,
    )
    if not lagging.any():
        return lagging
    apart, _ = KDTree(rows.places[lagging]).query(rows.places)
    return np.asarray(apart <= near_px)


def _around(places: Array, shape: tuple[int, ...], reach_px: float) -> npt.NDArray[np.bool_]:
    """Give the pixels within reach of some places, (n, 2) x and y."""
    away = np.ones(shape, bool)
    away[_pixels(places[:, 0], places[:, 1], shape)] = False
    return np.asarray(ndimage.distance_transform_edt(away) <= reach_px)


def _pixels(x_px: Array, y_px: Array, shape: tuple[int, ...]) -> tuple[Index, Index]:
    """Give the row and column of the pixel that holds a place, or is nearest to it."""
    row, column = (
        np.clip(np.floor(at + 0.5).astype(np.int64), 0, size - 1)
        for at, size in zip((y_px, x_px), shape, strict=True)
    )
    return row, column


def _inside(draws: PosteriorDraws, active: npt.NDArray[np.bool_]) -> PosteriorDraws:
    """Leave out the emitters that lie in other pixels."""
    draw, column = np.nonzero(draws.present)
    x, y = draws.x_px[draw, column], draws.y_px[draw, column]
    kept = active[_pixels(x, y, active.shape)]
    return _with_emitters(draws, draw[kept], x[kept], y[kept], draws.photons[draw, column][kept])


def _with_emitters(
    draws: PosteriorDraws, draw: Index, x_px: Array, y_px: Array, photons: Array
) -> PosteriorDraws:
    """Put other emitters, (n,), into draws; `draw` says which, in ascending order."""
    counts = np.bincount(draw, minlength=draws.counts.size)
    column = np.arange(draw.size) - (np.cumsum(counts) - counts)[draw]
    padded = np.zeros((3, counts.size, max(int(counts.max()), 1)))
    padded[:, draw, column] = x_px, y_px, photons
    return replace(draws, x_px=padded[0], y_px=padded[1], photons=padded[2], counts=counts)


def _at(draws: PosteriorDraws, state: Index) -> PosteriorDraws:
    """Give some of the draws."""
    x_px, y_px, photons = (a[state] for a in (draws.x_px, draws.y_px, draws.photons))
    counts, knots = draws.counts[state], draws.knots[state]
    return replace(draws, x_px=x_px, y_px=y_px, photons=photons, counts=counts, knots=knots)


def _spread(draws: PosteriorDraws, chains: int, number: int) -> PosteriorDraws:
    """Give `number` draws of each chain, spread evenly over it."""
    length = draws.counts.size // chains
    within = (np.arange(number) + 0.5) * length // number
    return _at(draws, (length * np.arange(chains)[:, None] + within).ravel().astype(np.int64))


def _pieced_together(
    stretches: Sequence[PosteriorDraws], places: Array, told_by: Index
) -> PosteriorDraws:
    """Give draws in which the surroundings of every row come from the stretch that tells of it.

    Chains went on round some rows only: what else they hold stood nearly still.

    Args:
        stretches: as many draws of all chains each.
        places: of the rows, (n, 2) x and y, px.
        told_by: for each row, which of the stretches it comes from.
    """
    last = stretches[-1]
    if len(stretches) == 1 or len(places) == 0:
        return last
    parts = []
    for stretch, draws in enumerate(stretches):
        draw, column = np.nonzero(draws.present)
        found = np.stack([a[draw, column] for a in (draws.x_px, draws.y_px, draws.photons)])
        mine = told_by[nearest_rows(places, found[0], found[1])] == stretch
        parts.append((draw[mine], found[:, mine]))
    draw = np.concatenate([part[0] for part in parts])
    order = np.argsort(draw, kind="stable")
    x_px, y_px, photons = np.concatenate([part[1] for part in parts], axis=1)[:, order]
    # Background knots of the last stretch, which is the longest; counts are made anew.
    return _with_emitters(last, draw[order], x_px, y_px, photons)


def background_image(knots: Array, shape: tuple[int, ...]) -> Array:
    """Give the background (rows, columns) that (knots_y, knots_x) coefficients stand for."""
    along_y = hat_functions(shape[0], knots.shape[0])
    along_x = hat_functions(shape[1], knots.shape[1])
    return np.asarray(along_y.T @ knots @ along_x)


def join_draws(parts: Sequence[PosteriorDraws]) -> PosteriorDraws:
    """Put draws of one frame behind one another; every part weighs by its number of draws."""
    weight = np.array([p.counts.size for p in parts], dtype=np.float64)
    weight /= weight.sum()
    expected = np.stack([p.expected_e for p in parts])
    mean = np.tensordot(weight, expected, 1)
    within = np.tensordot(weight, np.stack([p.expected_variance_e2 for p in parts]), 1)
    return PosteriorDraws(
        np.concatenate([p.x_px for p in parts]),
        np.concatenate([p.y_px for p in parts]),
        np.concatenate([p.photons for p in parts]),
        np.concatenate([p.counts for p in parts]),
        np.concatenate([p.knots for p in parts]),
        mean,
        within + np.tensordot(weight, (expected - mean) ** 2, 1),
        np.sum([p.tried for p in parts], axis=0),
        np.sum([p.accepted for p in parts], axis=0),
    )


def _disagreement(counts: Index) -> float:
    """Give the share of variance between chains, of the counts of their draws, (chains, draws)."""
    if len(counts) < 2:
        return 0.0
    means = counts.mean(1)
    within = float(counts.var(1).mean())
    between = float(means.var(ddof=1))
    return between / (between + within) if between > 0 else 0.0
