"""The posterior of one frame: starts in, rows with intervals, draws and the expected image out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sureloc.physics.consensus import Consensus, consensus
from sureloc.physics.priors import ScenePrior, hat_functions
from sureloc.physics.referee import ChainLength, ChainTarget, FrameData, PosteriorDraws
from sureloc.seeds import numpy_generator

Array = npt.NDArray[np.float64]

GATE_SIGMAS = 1.0  # a draw's emitter farther than this from a row is another emitter
SUPPORT_SIGMAS = 4.5  # 7e-6 of the flux per axis lies outside
SPARE_EMITTERS = 40
LAGGING_SHARE, LIKELY = 0.1, 0.9  # of the rows; p_exists of the rows that count for it


@dataclass(frozen=True)
class Effort:
    """How much work a frame gets.

    Attributes:
        chains: independent chains, each from its own start.
        sweeps: moves per emitter, and `counting` besides, before the first state is kept.
        states: states kept of each chain.
        sweeps_between: the same between kept states.
        rounds: chains grow to twice their length, up to so many times less one, while
        least_effective: more than `LAGGING_SHARE` of the likely rows, and more than one, have fewer
            effective draws.
        counting: births or deaths a sweep, however few emitters there are: whether there is one
            more is asked of the whole frame.
    """

    chains: int = 4
    sweeps: float = 40.0
    states: int = 20
    sweeps_between: float = 3.0
    rounds: int = 5
    least_effective: float = 20.0
    counting: float = 8.0


@dataclass(frozen=True)
class FramePosterior:
    """What the data and the prior say about one frame.

    Attributes:
        rows: the emitters on which the draws agree, with intervals.
        draws: all states kept, of all chains, chain after chain.
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


def frame_posterior(
    data: FrameData,
    prior: ScenePrior,
    sigma_px: tuple[float, float],
    starts: list[Array],
    effort: Effort,
    seed: int,
    frame: int,
    least_probability: float,
    guide: Array | None = None,
    guide_margin_px: int = 0,
    pause: Callable[[], None] = go_on,
) -> FramePosterior:
    """Draw emitter sets for one frame from several starts and summarise them.

    Args:
        data: the frame.
        prior: what is believed before.
        sigma_px: PSF widths along columns and rows, px.
        starts: emitters (n, 3) as x px, y px, photo-electrons; chain k begins at starts[k % len].
        effort: how many chains and moves.
        seed: the user's seed.
        frame: number of the frame in the movie, which names its random streams.
        least_probability: rows less probable than this are left out.
        guide, guide_margin_px: relative density of birth positions (see `run_chain`).
        pause: called before every stretch of a chain; what it raises ends the work.

    Returns:
        The posterior; the same for any batch, chunk or number of workers.
    """
    largest = max((len(start) for start in starts), default=0)
    sweep = max(largest, 4) + effort.counting
    length = ChainLength(
        burn_in=round(effort.sweeps * sweep),
        draws=effort.states,
        moves_per_draw=round(effort.sweeps_between * sweep),
    )
    generators = [numpy_generator(seed, "chain", frame, k) for k in range(effort.chains)]

    counting = effort.counting / sweep
    target = ChainTarget.of(data, prior, sigma_px, guide, guide_margin_px, SUPPORT_SIGMAS, counting)

    def run(
        k: int, length: ChainLength, start: Array | None, knots: Array | None = None
    ) -> PosteriorDraws:
        pause()
        return target.run(
            length,
            generators[k],
            start=start,
            start_knots=knots,
            max_emitters=2 * largest + SPARE_EMITTERS,
        )

    chains = [
        run(k, length, starts[k % len(starts)] if starts else None) for k in range(effort.chains)
    ]
    for turn in range(effort.rounds):
        if turn > 0:
            further = replace(length, burn_in=0, draws=chains[0].counts.size)
            more = [run(k, further, chain.last, chain.knots[-1]) for k, chain in enumerate(chains)]
            chains = [join_draws(pair) for pair in zip(chains, more, strict=True)]
        draws = join_draws(chains)
        rows = consensus(
            draws.x_px,
            draws.y_px,
            draws.photons,
            draws.counts,
            GATE_SIGMAS * float(np.sqrt(sigma_px[0] * sigma_px[1])),
            least_probability,
            effort.chains,
        )
        likely = rows.effective_draws[rows.p_exists >= LIKELY]
        lagging = likely < effort.least_effective
        if lagging.sum() <= max(LAGGING_SHARE * likely.size, 1):
            break
    return FramePosterior(
        rows,
        draws,
        background_image(draws.knots.mean(0), data.electrons.shape),
        _disagreement(chains),
    )


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


def _disagreement(chains: list[PosteriorDraws]) -> float:
    if len(chains) < 2:
        return 0.0
    means = np.array([c.counts.mean() for c in chains])
    within = float(np.mean([c.counts.var() for c in chains]))
    between = float(means.var(ddof=1))
    return between / (between + within) if between > 0 else 0.0
