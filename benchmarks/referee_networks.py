"""Psi's draws beside the exact posterior: pixel-wise sd, and how many emitters there are.

    python benchmarks/referee_networks.py --tiles 200 --out DIR

Tiles of 12 x 12 px are drawn as those that networks are trained on: density, brightness and its
spread, background, PSF and read noise anew for each, without hot pixels or electron
multiplication. The background is linear between the corners, which scatter as those of training's
slow waves do. Psi is told the frame, its noise and the PSF. The referee
(`sureloc.physics.referee`) is told no more: density, brightness, its spread and the background have
the distribution that they have in training, and are drawn in turn with the emitters (Gibbs). It
runs two long chains, one from an empty frame and one from chance. Both posteriors are shown as
kernel density images, which are compared pixel by pixel: the correlation of sds over all pixels and
the ratio of their means. Counts are total masses, rounded, and their distributions are compared by
total variation. The same comparison of the referee's two chains tells what chance and short chains
do. The referee's draws are kept in `--out`, so that a run that was stopped goes on, and further
weights cost their own time only.
"""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from sureloc.io.output import new_file
from sureloc.networks.posterior import posterior_images
from sureloc.networks.weights import Networks, load_weights
from sureloc.physics.kde import render_kde
from sureloc.physics.priors import PhotonPrior, ScenePrior, hat_functions
from sureloc.physics.referee import ChainLength, FrameData, run_chain
from sureloc.seeds import torch_generator
from sureloc.simulate.tiles import TileConditions, simulate_tiles

SEED, SIDE_PX, MARGIN_PX, MOST = 88_001, 12, 5.0, 90
CHAIN_DRAWS, DRAWS = 2000, 1000
MOVES_A_TURN = 100  # of emitters, before density and brightness are drawn anew
MEANS, SPREADS, DENSITIES = 40, 8, 100  # of the grids on which those lie
SAMPLES = 40_000
CONDITIONS = TileConditions(empty_share=0.0, unevenness=0.0, hot_share=0.0, multiplied_share=0.0)
# Scatter of a corner's background about the tile's level, relatively: with training's two waves
# the logarithms of neighbouring corners differ by 0.15, root mean square, over tiles of 12 px.
CORNER_SD = 0.11


@dataclass(frozen=True)
class Brightness:
    """What training allows photons to be like at one noise: a table for each kind of tile.

    Attributes:
        priors: of single emitters that are bright enough to be a target, all on one grid.
        log_chance: ln of the probability of each kind.
        seen: share of emitters that are bright enough, of each kind.
    """

    priors: list[PhotonPrior]
    log_chance: np.ndarray
    seen: np.ndarray

    @cached_property
    def log_density(self) -> np.ndarray:
        """The priors' own, (kinds, cells)."""
        return np.stack([prior.log_density for prior in self.priors])

    @classmethod
    def in_training(cls, noise_e: float) -> Brightness:
        """Give the kinds of tiles of `sureloc.simulate.tiles`, means and spreads on a grid."""
        rng = np.random.default_rng(SEED)
        low, high = np.log(CONDITIONS.mean_photons)
        means = np.exp(low + (np.arange(MEANS) + 0.5) / MEANS * (high - low))
        log_sds = 0.05 + 0.75 * (np.arange(SPREADS) + 0.5) / SPREADS
        kinds = [("log-normal", sd, 0.6 / SPREADS) for sd in log_sds]
        kinds += [("uniform", 0.0, 0.25), ("exponential", 0.0, 0.15)]
        priors, chance, seen = [], [], []
        for mean in np.maximum(means, CONDITIONS.visible_sds * noise_e):
            for family, log_sd, weight in kinds:
                photons = mean * _shares(family, log_sd, rng)
                photons = np.clip(photons, *CONDITIONS.photons)
                partial = rng.random(SAMPLES) < CONDITIONS.blinking_share
                photons = np.where(partial, photons * rng.random(SAMPLES), photons)
                priors.append(_tabulated(photons))
                chance.append(weight / MEANS)
                seen.append(np.mean(photons >= CONDITIONS.target_photons))
        return cls(priors, np.log(chance), np.array(seen))

    def draw(self, photons: np.ndarray, expected: float, rng: np.random.Generator) -> int:
        """Draw a kind of tile given its emitters' photons and how many lie there on average."""
        grid = self.priors[0].log_photons
        place = (np.log(photons) - grid[0]) / self.priors[0].step
        cell = np.clip(place.astype(int), 0, len(grid) - 2)
        share = place - cell
        each = self.log_density[:, cell] * (1 - share) + self.log_density[:, cell + 1] * share
        counted = len(photons) * np.log(self.seen) - expected * self.seen
        return _one_of(self.log_chance + each.sum(1) + counted, rng)


def _one_of(log_weights: np.ndarray, rng: np.random.Generator) -> int:
    cumulative = np.cumsum(np.exp(log_weights - log_weights.max()))
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1]))


def _shares(family: str, log_sd: float, rng: np.random.Generator) -> np.ndarray:
    """Give photons over the tile's mean."""
    if family == "log-normal":
        return np.exp(log_sd * rng.normal(size=SAMPLES) - log_sd**2 / 2)
    if family == "uniform":
        return rng.uniform(0.4, 1.6, SAMPLES)
    return -np.log(rng.uniform(1e-6, 1.0, SAMPLES))


def _tabulated(photons: np.ndarray) -> PhotonPrior:
    low, high = CONDITIONS.target_photons, CONDITIONS.photons[1] * 1.02
    counts, edges = np.histogram(np.log(photons), 200, (np.log(low), np.log(high)))
    centres = 0.5 * (edges[1:] + edges[:-1])
    smooth = np.convolve(counts, [0.25, 0.5, 0.25], "same") + 1e-3
    return PhotonPrior.from_density(lambda u: np.interp(u, centres, smooth), low, high)


def draw_density(emitters: int, area: float, rng: np.random.Generator) -> float:
    """Draw emitters per px^2 given how many there are in an area; none given, as in training."""
    low, high = CONDITIONS.density_per_px2
    unit = (np.arange(DENSITIES) + 0.5) / DENSITIES
    density = low + (high - low) * unit**1.5
    return float(density[_one_of(emitters * np.log(density) - density * area, rng)])


def draw_level(corners: np.ndarray, rng: np.random.Generator) -> float:
    """Draw the level of the background given its values in the corners."""
    mean = max(float(corners.mean()), CONDITIONS.background_e[0])
    levels = mean * np.linspace(0.7, 1.4, 141)
    levels = levels[levels >= CONDITIONS.background_e[0]]
    apart = (corners.reshape(-1, 1) / levels - 1) / CORNER_SD
    # Log-uniform, times a normal density of each corner.
    value = -0.5 * np.square(apart).sum(0) - (corners.size + 1) * np.log(levels)
    return float(levels[_one_of(value, rng)])


@dataclass(frozen=True)
class Tile:
    """One tile and what is known of it."""

    electrons: Tensor
    read_variance: Tensor
    sigma_px: float
    brightness: Brightness
    background_e: float
    emitters: int


def draw_tile(index: int) -> Tile:
    """Draw a tile's conditions, its emitters and its frame."""
    rng = np.random.default_rng([SEED, index])
    sigma = float(rng.uniform(*CONDITIONS.sigma_px))
    background, read_noise = (
        float(np.exp(rng.uniform(*np.log(bounds))))
        for bounds in (CONDITIONS.background_e, CONDITIONS.read_noise_e)
    )
    corners = background * np.maximum(1 + CORNER_SD * rng.normal(size=(2, 2)), 0.5)
    # The simulation makes an even background as low as the lowest corner; the rest comes on top.
    least = float(corners.min())
    noise_e = np.hypot(np.sqrt(background), read_noise)
    narrow = dataclasses.replace(
        CONDITIONS,
        sigma_px=(sigma, sigma),
        background_e=(least, least),
        read_noise_e=(read_noise, read_noise),
        visible_sds=CONDITIONS.visible_sds * noise_e / np.hypot(np.sqrt(least), read_noise),
    )
    side = (1, SIDE_PX, SIDE_PX)
    for attempt in range(100):
        batch = simulate_tiles(narrow, side, torch_generator(SEED, "tile", index, attempt))
        # A tenth of training tiles has no background at all: leave those out.
        if float(batch.electrons.median()) > 0.5 * least or least < 0.3 * noise_e:
            break
    hats = hat_functions(SIDE_PX, 2)
    more = torch.from_numpy(np.maximum(hats.T @ corners @ hats - least, 0.0))
    more = torch.poisson(more, generator=torch_generator(SEED, "background", index))
    variance = background + float(batch.read_variance_e2.mean())
    noise = np.sqrt(variance * 4 * np.pi * sigma**2)
    edge = SIDE_PX - 0.5
    inside = (batch.x_px > -0.5) & (batch.x_px < edge) & (batch.y_px > -0.5) & (batch.y_px < edge)
    return Tile(
        batch.electrons[0].double() + more,
        batch.read_variance_e2[0].double(),
        sigma,
        Brightness.in_training(float(noise)),
        background,
        int(inside.sum()),
    )


def exact(tile: Tile, index: int, chain: int, moves: int) -> Points:
    """Run one of the referee's chains: the first starts empty, the second at chance."""
    rng = np.random.default_rng([SEED, index, chain + 1])
    edge = 0.5 + MARGIN_PX
    area = (SIDE_PX - 1 + 2 * edge) ** 2
    brightness = tile.brightness
    kind = int(rng.integers(len(brightness.priors)))
    state = np.empty((0, 3))
    if chain:
        places = rng.uniform(-edge, SIDE_PX - 1 + edge, (8, 2))
        state = np.column_stack([places, brightness.priors[kind].sample(8, rng)])
    data = FrameData(tile.electrons.numpy(), tile.read_variance.numpy())
    knots = np.full((2, 2), max(float(np.median(tile.electrons)), CONDITIONS.background_e[0]))
    turns = max(moves // MOVES_A_TURN, CHAIN_DRAWS)
    kept = set(np.linspace(0, turns - 1, CHAIN_DRAWS).round().astype(int).tolist())
    states = []
    for turn in range(-turns // 4, turns):
        level = draw_level(knots, rng)
        density = draw_density(len(state), area * brightness.seen[kind], rng)
        kind = brightness.draw(state[:, 2], density * area, rng)
        prior = ScenePrior(
            density * brightness.seen[kind],
            brightness.priors[kind],
            np.full((2, 2), level),
            CORNER_SD * level,
            MARGIN_PX,
        )
        found = run_chain(
            data,
            prior,
            (tile.sigma_px, tile.sigma_px),
            ChainLength(0, 1, MOVES_A_TURN),
            rng,
            start=state,
            start_knots=knots,
            max_emitters=MOST,
        )
        state, knots = found.last, found.knots[-1]
        if turn in kept:
            states.append(state)
    return Points.of(states)


@dataclass(frozen=True)
class Points:
    """Emitters of all draws of a chain.

    Attributes:
        draw: (n,), which draw each belongs to.
        x_px: (n,), camera pixels.
        y_px: (n,), camera pixels.
        draws: how many draws there are.
    """

    draw: np.ndarray
    x_px: np.ndarray
    y_px: np.ndarray
    draws: int

    @classmethod
    def of(cls, states: list[np.ndarray]) -> Points:
        """Take the places of emitters (n, 3) alone."""
        which = np.repeat(np.arange(len(states)), [len(state) for state in states])
        places = np.concatenate(states)
        return cls(which.astype(np.int32), places[:, 0], places[:, 1], len(states))

    def images(self, kernel: float) -> Tensor:
        """Give the kernel density image of every draw, mass per fine pixel."""
        x, y = torch.from_numpy(self.x_px), torch.from_numpy(self.y_px)
        shape = (self.draws, SIDE_PX, SIDE_PX)
        which = torch.from_numpy(self.draw.astype(np.int64))
        return render_kde(x, y, torch.ones_like(x), which, shape, kernel)


def referee_points(tile: Tile, index: int, moves: int, out: Path) -> list[Points]:
    """Give both chains' draws, from the folder where they are kept already."""
    kept = out / f"referee_{moves}_{index:03d}.npz"
    if not kept.is_file():
        chains = [exact(tile, index, chain, moves) for chain in (0, 1)]
        arrays = {
            f"{field.name}_{chain}": getattr(points, field.name)
            for chain, points in enumerate(chains)
            for field in dataclasses.fields(Points)
        }
        with new_file(kept) as path:
            np.savez_compressed(path, **arrays)
    with np.load(kept) as arrays:
        return [
            Points(*(arrays[f"{field.name}_{chain}"] for field in dataclasses.fields(Points)))
            for chain in (0, 1)
        ]


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
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=["default", "fast"])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    all_networks = {name: load_weights(name) for name in arguments.weights}
    chains = Comparison("referee's two chains", [], [], [], [])
    rows = {name: Comparison(name, [], [], [], []) for name in all_networks}
    emitters = []
    for index in track(range(arguments.tiles)):
        tile = draw_tile(index)
        emitters.append(tile.emitters)
        kernels = {n.card.kernel_sigma_fine_px for n in all_networks.values()}
        points = referee_points(tile, index, arguments.moves, arguments.out)
        for kernel in kernels:
            one, other = (p.images(kernel) for p in points)
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
