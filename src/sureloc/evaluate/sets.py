"""Is the true set of emitters of a frame one more draw of the posterior? (SBC and TARP)

Intervals of rows say whether each emitter is where it should be. Here whole sets are asked: ranks
of what a set amounts to among the same of the draws (Talts et al. 2018), and how often draws are
nearer than the truth to a place chosen beside it (Lemos et al. 2023). Both are uniform where truth
and draws have one law, whatever that law is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from scipy.spatial.distance import cdist

from sureloc.evaluate.trials import DRAWS, Trial
from sureloc.physics.priors import ScenePrior
from sureloc.physics.referee import ChainLength, FrameData, run_chain
from sureloc.seeds import numpy_generator

Array = npt.NDArray[np.float64]
Set = Array  # (emitters, 3): x nm, y nm, photons

QUANTITIES = ("number", "light", "brightest", "x nearest the centre", "TARP")
JITTER_SIGMAS = 0.5  # how far rows are moved to be a reference of TARP, in PSF widths
KERNEL_SIGMAS = 0.25  # how near two emitters must be to count as the same, in PSF widths
BINS = 10  # of the DRAWS + 1 ranks, equally many each
_NOTHING = -1e9  # what an empty set has where others have an emitter


def set_ranks(trial: Trial, seed: int) -> dict[str, npt.NDArray[np.int64]]:
    """Rank the true set of every frame among its draws, ties broken at random.

    Args:
        trial: a localized movie.
        seed: of ties and of TARP's references.

    Returns:
        By `QUANTITIES`, how many of the `DRAWS` draws of each frame lie below the truth: in number
        of emitters, in their light, in photons of the brightest, in x of the one nearest to the
        frame's centre, and in distance from the frame's rows, moved at random.
    """
    frame = trial.simulated.recipe.frame
    pixel = frame.pixel_nm
    psf_nm = trial.simulated.recipe.psf.sigma_px * pixel
    centre = 0.5 * pixel * np.array([frame.width - 1, frame.height - 1])
    simple = _quantities(centre)
    ranks: dict[str, list[int]] = {name: [] for name in QUANTITIES}
    inside = trial.simulated.truth[trial.simulated.inside]
    for number, (true, drawn, rows) in enumerate(_frames(trial, inside)):
        rng = numpy_generator(seed, "ranks of sets", number)
        for name, quantity in simple.items():
            below = np.array([quantity(one) for one in drawn])
            ranks[name].append(_rank(quantity(true), below, rng))
        reference = rows + rng.normal(0.0, JITTER_SIGMAS * psf_nm, rows.shape)
        far = np.array([set_distance(one, reference, KERNEL_SIGMAS * psf_nm) for one in drawn])
        true_far = set_distance(true, reference, KERNEL_SIGMAS * psf_nm)
        ranks["TARP"].append(_rank(true_far, far, rng))
    return {name: np.array(values) for name, values in ranks.items()}


def uniformity(ranks: npt.NDArray[np.int64]) -> dict[str, float]:
    """Compare ranks with the uniform law.

    Args:
        ranks: of frames, 0 to `DRAWS`.

    Returns:
        `p_value` of Pearson's test in `BINS` bins; `mean_rank`, 0.5 where draws are right and more
        where the truth is larger than draws; `held_50` and `held_90`, the share of ranks in the
        middle; and `frames`.
    """
    place = (ranks + 0.5) / (DRAWS + 1)
    counts = np.bincount(ranks * BINS // (DRAWS + 1), minlength=BINS)
    return {
        "frames": float(ranks.size),
        "mean_rank": float(place.mean()),
        "held_50": float((np.abs(place - 0.5) < 0.25).mean()),
        "held_90": float((np.abs(place - 0.5) < 0.45).mean()),
        "p_value": float(stats.chisquare(counts).pvalue),
    }


def set_distance(one: Set, other: Set, kernel_nm: float) -> float:
    """Give how far two sets are apart: the distance of their images under a Gaussian kernel.

    0 for the same set; each emitter without a counterpart within some kernel widths adds 1 to its
    square.

    Args:
        one, other: emitters in rows, x and y in their first two columns, nm.
        kernel_nm: sd of the kernel.
    """

    def product(a: Set, b: Set) -> float:
        if len(a) == 0 or len(b) == 0:
            return 0.0
        square = cdist(a[:, :2], b[:, :2], "sqeuclidean")
        return float(np.exp(-square / (4.0 * kernel_nm**2)).sum())

    squared = product(one, one) + product(other, other) - 2.0 * product(one, other)
    return float(np.sqrt(max(squared, 0.0)))


def _quantities(centre_nm: Array) -> dict[str, Callable[[Set], float]]:
    def central(one: Set) -> float:
        if len(one) == 0:
            return _NOTHING
        return float(one[np.argmin(((one[:, :2] - centre_nm) ** 2).sum(1)), 0])

    return {
        "number": lambda one: float(len(one)),
        "light": lambda one: float(one[:, 2].sum()),
        "brightest": lambda one: float(one[:, 2].max(initial=_NOTHING)),
        "x nearest the centre": central,
    }


def _frames(trial: Trial, truth: pd.DataFrame) -> Iterator[tuple[Set, list[Set], Array]]:
    """Give the true set, the drawn ones and the rows' places (rows, 2) of every frame."""
    columns = ["x_nm", "y_nm", "photons"]
    wide, high = trial.simulated.recipe.frame.width, trial.simulated.recipe.frame.height
    pixel = trial.simulated.recipe.frame.pixel_nm
    drawn = trial.draws
    drawn = drawn[
        drawn["x_nm"].between(-0.5 * pixel, (wide - 0.5) * pixel)
        & drawn["y_nm"].between(-0.5 * pixel, (high - 0.5) * pixel)
    ]
    places = [truth.groupby("frame").indices, trial.table.groupby("frame").indices]
    clouds = drawn.groupby(["frame", "draw"]).indices
    values = drawn[columns].to_numpy(float)
    empty = np.empty(0, np.int64)
    for frame in range(trial.simulated.movie.shape[0]):
        true = truth[columns].to_numpy(float)[places[0].get(frame, empty)]
        rows = trial.table[["x_nm", "y_nm"]].to_numpy(float)[places[1].get(frame, empty)]
        yield true, [values[clouds.get((frame, k), empty)] for k in range(DRAWS)], rows


def _rank(truth: float, drawn: Array, rng: np.random.Generator) -> int:
    return int((drawn < truth).sum() + rng.integers(0, int((drawn == truth).sum()) + 1))


def exact_draws(trial: Trial, prior: ScenePrior, seed: int, moves: int) -> Trial:
    """Give the trial with draws of the exact posterior: one long chain a frame, true priors told.

    Args:
        trial: a localized movie.
        prior: that its emitters and background are drawn from.
        seed: of the chains.
        moves: of each chain, a quarter of them before its first draw.
    """
    simulated = trial.simulated
    frame, camera = simulated.recipe.frame, simulated.camera
    sigma = simulated.recipe.psf.sigma_px
    variance = camera.read_variance_e2((frame.height, frame.width))
    length = ChainLength(moves // 4, DRAWS, 3 * moves // (4 * DRAWS))
    tables = []
    for number in range(simulated.movie.shape[0]):
        electrons = camera.electrons(simulated.movie.read(number, number + 1))[0]
        found = run_chain(
            FrameData(electrons, variance, camera.excess_noise),
            prior,
            (sigma, sigma),
            length,
            numpy_generator(seed, "exact posterior", number),
            max_emitters=200,
        )
        draw, place = np.nonzero(np.arange(found.x_px.shape[1]) < found.counts[:, None])
        tables.append(
            pd.DataFrame(
                {
                    "frame": number,
                    "draw": draw,
                    "x_nm": found.x_px[draw, place] * frame.pixel_nm,
                    "y_nm": found.y_px[draw, place] * frame.pixel_nm,
                    "photons": found.photons[draw, place] / camera.quantum_efficiency,
                }
            )
        )
    return replace(trial, draws=pd.concat(tables, ignore_index=True))
