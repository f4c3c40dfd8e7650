"""Psi's draws beside the exact posterior: pixel-wise sd, and how many emitters there are.

    python benchmarks/referee_networks.py --tiles 200 --weights default

Tiles of 12 x 12 px are drawn from a prior: emitters as a Poisson process (a margin of 3 px
included), photons of single emitters as networks met them in training at this noise, an even
background. The referee (`sureloc.physics.referee`) knows that prior and runs two long chains from
different starts; Psi knows nothing but the frame, its noise and the PSF. Both posteriors are shown
as kernel density images, which are compared pixel by pixel: the correlation of sds over all pixels
and the ratio of their means. Counts are total masses, rounded, and their distributions are compared
by total variation. The same comparison of the referee's two chains tells what chance and short
chains do.
"""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from scipy import stats
from torch import Tensor

from sureloc.networks.posterior import posterior_images
from sureloc.networks.weights import Networks, load_weights
from sureloc.physics.image import render_tiles
from sureloc.physics.kde import render_kde
from sureloc.physics.noise import sample_electrons
from sureloc.physics.priors import PhotonPrior, ScenePrior
from sureloc.physics.psf import GaussianPSF
from sureloc.physics.referee import ChainLength, FrameData, PosteriorDraws, run_chain
from sureloc.seeds import torch_generator
from sureloc.simulate.tiles import TileConditions, simulate_tiles

SEED, SIDE_PX, MARGIN_PX, MOST = 88_001, 12, 3.0, 30
CHAIN_DRAWS, DRAWS = 2000, 1000


@dataclass(frozen=True)
class Tile:
    """One tile and what the referee is told of it."""

    electrons: Tensor
    read_variance: Tensor
    sigma_px: float
    prior: ScenePrior
    emitters: int


def photons_in_training(
    conditions: TileConditions, sigma_px: float, background_e: float, read_noise_e: float
) -> PhotonPrior:
    """Give the distribution of photons over all training tiles of one PSF and one noise."""
    narrow = dataclasses.replace(
        conditions,
        sigma_px=(sigma_px, sigma_px),
        background_e=(background_e, background_e),
        read_noise_e=(read_noise_e, read_noise_e),
        hot_share=0.0,
    )
    batch = simulate_tiles(narrow, (4000, 2, 2), torch_generator(SEED, "photons"))
    logs = np.log(batch.photons.double().numpy())
    shape = stats.gaussian_kde(logs, 0.1)
    return PhotonPrior.from_density(shape, conditions.target_photons, conditions.photons[1])


def draw_tile(index: int) -> Tile:
    """Draw a tile's conditions, its emitters and its frame."""
    rng = np.random.default_rng([SEED, index])
    conditions = TileConditions()
    sigma = float(rng.uniform(*conditions.sigma_px))
    background, read_noise = (
        float(np.exp(rng.uniform(*np.log(bounds))))
        for bounds in (conditions.background_e, conditions.read_noise_e)
    )
    density = float(rng.uniform(0.004, 0.02))
    photon_prior = photons_in_training(conditions, sigma, background, read_noise)
    prior = ScenePrior(density, photon_prior, background, 0.0, MARGIN_PX)
    low, high = prior.region((SIDE_PX, SIDE_PX))[:2]
    n = int(rng.poisson(density * (high - low) ** 2))
    places = torch.from_numpy(rng.uniform(low, high, (2, 1, n)))
    photons = torch.from_numpy(prior.photons.sample(n, rng))[None]
    side = (SIDE_PX, SIDE_PX)
    light = render_tiles(places[0], places[1], photons, GaussianPSF.round(sigma), side) + background
    variance = torch.full((1, *side), read_noise**2, dtype=torch.float64)
    electrons = sample_electrons(light, variance, torch_generator(SEED, "frame", index))
    return Tile(electrons[0], variance[0], sigma, prior, n)


def exact(tile: Tile, index: int, chain: int, moves: int) -> PosteriorDraws:
    """Run one of the referee's chains: the first starts empty, the second at chance."""
    rng = np.random.default_rng([SEED, index, chain + 1])
    start = None
    if chain:
        low, high = tile.prior.region((SIDE_PX, SIDE_PX))[:2]
        start = np.column_stack([rng.uniform(low, high, (4, 2)), tile.prior.photons.sample(4, rng)])
    return run_chain(
        FrameData(tile.electrons.double().numpy(), tile.read_variance.numpy()),
        tile.prior,
        (tile.sigma_px, tile.sigma_px),
        ChainLength(moves // 4, CHAIN_DRAWS, moves // CHAIN_DRAWS),
        rng,
        start=start,
        max_emitters=MOST,
    )


def images_of(draws: PosteriorDraws, kernel: float) -> Tensor:
    """Give the kernel density image of every draw, mass per fine pixel."""
    present = draws.present
    which = torch.from_numpy(np.nonzero(present)[0])
    x, y = (torch.from_numpy(v[present]) for v in (draws.x_px, draws.y_px))
    shape = (len(draws.counts), SIDE_PX, SIDE_PX)
    return render_kde(x, y, torch.ones_like(x), which, shape, kernel)


def count_distance(one: Tensor, other: Tensor) -> float:
    """Give the total variation between two distributions of total masses, rounded."""
    bins = [
        torch.bincount(images.sum((1, 2)).round().clamp(0, MOST).long(), minlength=MOST + 1)
        / len(images)
        for images in (one, other)
    ]
    return 0.5 * float((bins[0] - bins[1]).abs().sum())


@dataclass
class Comparison:
    """Sds of two posteriors over the pixels of all tiles, and how their counts differ."""

    name: str
    one: list[Tensor]
    other: list[Tensor]
    counts: list[float]
    masses: list[tuple[float, float]]

    def add(self, one: Tensor, other: Tensor) -> None:
        """Add a tile's images."""
        self.one.append(one.std(0).reshape(-1).double())
        self.other.append(other.std(0).reshape(-1).double())
        self.counts.append(count_distance(one, other))
        self.masses.append((float(one.sum((1, 2)).std()), float(other.sum((1, 2)).std())))

    def __str__(self) -> str:
        a, b = torch.cat(self.one), torch.cat(self.other)
        each = [
            float(torch.corrcoef(torch.stack(pair))[0, 1])
            for pair in zip(self.one, self.other, strict=True)
            if float(pair[0].std()) > 0
        ]
        mass = np.array(self.masses)
        return (
            f"{self.name:24s} {float(torch.corrcoef(torch.stack([a, b]))[0, 1]):11.3f} "
            f"{np.nanmedian(each):12.3f} {float(b.mean() / a.mean()):10.3f} "
            f"{np.mean(self.counts):9.3f} {np.quantile(self.counts, 0.9):9.3f} "
            f"{mass[:, 1].mean() / mass[:, 0].mean():9.3f}"
        )


def network_images(networks: Networks, tile: Tile, index: int) -> Tensor:
    """Give Psi's draws, which are told the frame, its noise and the PSF."""
    images = posterior_images(
        networks,
        tile.electrons[None].float(),
        tile.read_variance.float(),
        tile.sigma_px,
        1.0,
        DRAWS,
        SEED,
        [index],
    )
    return images.draws[0]


def main() -> None:
    """Print one row for the referee's own chains and one for each set of weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tiles", type=int, default=200)
    parser.add_argument("--moves", type=int, default=400_000, help="moves of each chain")
    parser.add_argument("--weights", nargs="+", default=["default", "fast"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    all_networks = {name: load_weights(name) for name in arguments.weights}
    chains = Comparison("referee's two chains", [], [], [], [])
    rows = {name: Comparison(name, [], [], [], []) for name in all_networks}
    emitters = []
    for index in track(range(arguments.tiles)):
        tile = draw_tile(index)
        emitters.append(tile.emitters)
        kernels = {n.card.kernel_sigma_fine_px for n in all_networks.values()}
        draws = [exact(tile, index, chain, arguments.moves) for chain in (0, 1)]
        for kernel in kernels:
            one, other = (images_of(d, kernel) for d in draws)
            for name, networks in all_networks.items():
                if networks.card.kernel_sigma_fine_px == kernel:
                    rows[name].add(torch.cat([one, other]), network_images(networks, tile, index))
        chains.add(one, other)
    print(f"{arguments.tiles} tiles, {np.mean(emitters):.1f} emitters each on average")
    print(
        f"{'':24s} {'correlation':>11s} {'median tile':>12s} {'mean sd':>10s} "
        f"{'count TV':>9s} {'90 %':>9s} {'mass sd':>9s}"
    )
    for row in (chains, *rows.values()):
        print(row)


if __name__ == "__main__":
    main()
