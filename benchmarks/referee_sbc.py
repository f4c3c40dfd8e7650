"""Simulation-based calibration of the referee: do truths rank uniformly among its draws?

Tiles are drawn from the prior itself (count, positions, photons, background), frames from the
likelihood that the chains use, and the truth is ranked among draws of the posterior (Talts et al.
2018). Any fault of a move, of the likelihood or of the prior's table bends a histogram; chains
that are too short bend it too.

    python benchmarks/referee_sbc.py --tiles 500
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from scipy import stats

from sureloc.physics.image import render_tiles
from sureloc.physics.priors import PhotonPrior, ScenePrior
from sureloc.physics.psf import GaussianPSF
from sureloc.physics.referee import ChainLength, FrameData, PosteriorDraws, run_chain

SIGMA_PX, READ_VARIANCE_E2, MOST, DRAWS, BINS = 1.1, 4.0, 6, 99, 10
NAMES = ("count", "x of nearest", "y of nearest", "photons of nearest", "brightest", "sum of light")


def statistics(x: np.ndarray, y: np.ndarray, photons: np.ndarray, side: int) -> list[float]:
    """Give what is ranked: an empty tile has no emitter nearest to the centre, hence -1e9."""
    if x.size == 0:
        return [0, -1e9, -1e9, -1e9, -1e9, 0.0]
    centre = (side - 1) / 2
    k = int(np.argmin((x - centre) ** 2 + (y - centre) ** 2))
    return [x.size, x[k], y[k], photons[k], photons.max(), photons.sum()]


def rank(truth: float, drawn: np.ndarray, rng: np.random.Generator) -> int:
    """Rank the truth among the draws, ties broken at random."""
    return int((drawn < truth).sum() + rng.integers(0, (drawn == truth).sum() + 1))


def one_tile(
    tile: int, prior: ScenePrior, arguments: argparse.Namespace
) -> tuple[list[float], float, PosteriorDraws]:
    """Draw a tile from the prior and its posterior."""
    rng = np.random.default_rng([arguments.seed, tile])
    side = arguments.side
    x_low, x_high, y_low, y_high = prior.region((side, side))
    counts = stats.poisson(prior.density_per_px2 * (x_high - x_low) * (y_high - y_low))
    weights = counts.pmf(np.arange(MOST + 1))
    n = rng.choice(MOST + 1, p=weights / weights.sum())
    x, y = rng.uniform(x_low, x_high, n), rng.uniform(y_low, y_high, n)
    photons = prior.photons.sample(n, rng)
    level = stats.truncnorm(-5.0 / 1.5, np.inf, 5.0, 1.5).rvs(random_state=rng)
    emitters = (torch.from_numpy(a)[None] for a in (x, y, photons))
    omega = render_tiles(*emitters, GaussianPSF.round(SIGMA_PX), (side, side))[0].numpy() + level
    electrons = rng.poisson(omega + READ_VARIANCE_E2) - READ_VARIANCE_E2
    draws = run_chain(
        FrameData(electrons, np.full((side, side), READ_VARIANCE_E2)),
        prior,
        (SIGMA_PX, SIGMA_PX),
        ChainLength(arguments.moves // 4, DRAWS, arguments.moves // DRAWS),
        rng,
        max_emitters=MOST,
    )
    return statistics(x, y, photons, side), level, draws


def main() -> None:
    """Print one row for each ranked quantity."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=500)
    parser.add_argument("--side", type=int, default=12, help="side of a tile, px")
    parser.add_argument("--photons", type=float, nargs=2, default=(150.0, 900.0))
    parser.add_argument("--moves", type=int, default=40_000, help="moves of each chain")
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    prior = ScenePrior(
        3.0 / (arguments.side + 1) ** 2, PhotonPrior.uniform(*arguments.photons), 5.0, 1.5, 0.5
    )
    rng = np.random.default_rng(arguments.seed)
    ranks: dict[str, list[int]] = {name: [] for name in (*NAMES, "background")}
    begin = time.perf_counter()
    for tile in range(arguments.tiles):
        truth, level, draws = one_tile(tile, prior, arguments)
        drawn = np.array(
            [
                statistics(
                    draws.x_px[s, :n], draws.y_px[s, :n], draws.photons[s, :n], arguments.side
                )
                for s, n in enumerate(draws.counts)
            ]
        )
        for name, true, column in zip(NAMES, truth, drawn.T, strict=True):
            ranks[name].append(rank(true, column, rng))
        ranks["background"].append(rank(level, draws.knots[:, 0, 0], rng))
    spent = (time.perf_counter() - begin) / arguments.tiles
    print(f"{arguments.tiles} tiles, {arguments.moves} moves, {spent:.2f} s a tile")
    print(f"{'ranked':20s} {'p of uniformity':>15s}  histogram")
    for name, values in ranks.items():
        histogram = np.bincount(np.array(values) * BINS // (DRAWS + 1), minlength=BINS)
        print(f"{name:20s} {stats.chisquare(histogram).pvalue:15.3f}  {histogram}")


if __name__ == "__main__":
    main()
