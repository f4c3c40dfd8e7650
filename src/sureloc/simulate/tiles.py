"""Training batches: tiles simulated on the fly, in bulk, on whatever device trains.

Conditions are drawn anew for every tile: width of the PSF, brightness and its spread, density,
uneven background, camera noise with hot pixels. All quantities are photo-electrons and pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sureloc.errors import InputError
from sureloc.networks.normalization import network_input
from sureloc.physics.image import pixel_axes, render_frames
from sureloc.physics.kde import KERNEL_SIGMA_FINE_PX, render_kde
from sureloc.physics.noise import sample_electrons
from sureloc.physics.psf import GaussianPSF

Range = tuple[float, float]
_BORDER_PX = 6.0  # at least, and 3.3 sigma of the widest PSF: what lies farther hardly shines in
_BORDER_SIGMAS = 3.3
_EM_GAIN = 100.0  # any gain far above 1 gives an excess noise of 2
_PHOTON_FLOOR = 1.0


@dataclass(frozen=True)
class TileConditions:
    """What tiles look like; each range is drawn from per tile, log-uniformly where it says so.

    Attributes:
        sigma_px: PSF standard deviation, uniform.
        mean_photons: mean photo-electrons of a tile's emitters, log-uniform.
        photons: bounds of a single emitter in a whole frame.
        visible_sds: the mean is raised to this many standard deviations of the noise under one
            PSF, so that no tile is drawn of which nothing at all can be seen; 0 switches it off.
        density_per_px2: emitters per square pixel, of U^1.5 so that sparse tiles are no rarity.
        empty_share: share of tiles without emitters.
        blinking_share: share of emitters that shine during a part of the frame only.
        target_photons: an emitter below this is noise rather than a target.
        background_e: background, log-uniform; the lower bound stands for 0 in a tenth of tiles.
        unevenness: largest relative swing of the background across a tile (of its logarithm).
        read_noise_e: read noise, rms, log-uniform.
        hot_share: share of hot pixels, whose read variance is 10 to 100 times larger.
        multiplied_share: share of tiles from a camera with electron multiplication.

    Raises:
        InputError: a range is empty or a share is not in [0, 1].
    """

    sigma_px: Range = (0.8, 1.8)
    mean_photons: Range = (100.0, 6000.0)
    photons: Range = (50.0, 10_000.0)
    visible_sds: float = 2.5
    density_per_px2: Range = (0.0, 0.06)
    empty_share: float = 0.04
    blinking_share: float = 0.3
    target_photons: float = 25.0
    background_e: Range = (0.3, 300.0)
    unevenness: float = 0.5
    read_noise_e: Range = (0.5, 15.0)
    hot_share: float = 0.005
    multiplied_share: float = 0.08

    def __post_init__(self) -> None:
        for name in ("sigma_px", "mean_photons", "photons", "background_e", "read_noise_e"):
            self._check_range(name, 1e-6)
        self._check_range("density_per_px2", 0.0)
        for name in ("empty_share", "blinking_share", "hot_share", "multiplied_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must lie in [0, 1].")

    def _check_range(self, name: str, least: float) -> None:
        low, high = getattr(self, name)
        if not least <= low <= high < math.inf:
            raise InputError(
                f"{name} is {low:g} to {high:g}; it must be finite, increasing and start at "
                f"{least:g} or above."
            )


@dataclass(frozen=True)
class TileBatch:
    """Tiles as networks get them, and the truth behind them.

    Attributes:
        electrons: what the camera read, photo-electrons, shape (tiles, rows, columns).
        read_variance_e2: read variance of each pixel, electrons^2, of the same shape.
        sigma_px: PSF standard deviation of each tile.
        excess_noise: F^2 of each tile's camera, 1 or 2.
        kde: mass per fine pixel, shape (tiles, 4 rows, 4 columns).
        x_px, y_px, photons, tile: every emitter, those too dim to be a target left out.
    """

    electrons: Float[Tensor, "tiles height width"]
    read_variance_e2: Float[Tensor, "tiles height width"]
    sigma_px: Float[Tensor, " tiles"]
    excess_noise: Float[Tensor, " tiles"]
    kde: Float[Tensor, "tiles fine_height fine_width"]
    x_px: Float[Tensor, " emitters"]
    y_px: Float[Tensor, " emitters"]
    photons: Float[Tensor, " emitters"]
    tile: Int[Tensor, " emitters"]


class _Draws:
    """Random numbers of one generator, on its device."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.device = generator.device

    def uniform(self, size: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
        unit = torch.rand(size, generator=self.generator, device=self.device)
        return low + (high - low) * unit

    def log_uniform(self, size: tuple[int, ...], bounds: Range) -> Tensor:
        return self.uniform(size, math.log(bounds[0]), math.log(bounds[1])).exp()

    def normal(self, size: tuple[int, ...]) -> Tensor:
        return torch.randn(size, generator=self.generator, device=self.device)

    def chance(self, size: tuple[int, ...], share: float) -> Tensor:
        return self.uniform(size) < share


def simulate_tiles(
    conditions: TileConditions,
    shape: tuple[int, int, int],
    generator: torch.Generator,
    sigma_fine_px: float = KERNEL_SIGMA_FINE_PX,
) -> TileBatch:
    """Draw a batch of tiles.

    Args:
        conditions: what tiles look like.
        shape: (tiles, rows, columns) in camera pixels.
        generator: source of randomness; the batch is made on its device.
        sigma_fine_px: kernel width of the target images, fine px.

    Returns:
        The tiles, the same for the same generator state. Emitters lie 6 px or 3.3 sigma of the
        widest PSF outside as well, so that edges look as they do in a real frame.
    """
    draw = _Draws(generator)
    tiles = shape[0]
    sigma = draw.uniform((tiles,), *conditions.sigma_px)
    background = _background(conditions, shape, draw)
    read_variance = _read_variance(conditions, shape, draw)
    multiplied = draw.chance((tiles,), conditions.multiplied_share)
    excess = torch.where(multiplied, 2.0, 1.0)
    noise_variance = (excess[:, None, None] * background + read_variance).mean((1, 2))
    # Noise under one PSF: the sum of squared PSF values is 1 / (4 pi sigma^2).
    noise_e = (noise_variance * 4 * math.pi * sigma**2).sqrt()
    x, y, tile = _positions(conditions, shape, draw)
    photons = _photons(conditions, tile, noise_e, draw)
    light = render_frames(x, y, photons, tile, GaussianPSF.round(sigma[tile]), shape)
    electrons = _expose(light + background, read_variance, multiplied, draw)
    seen = photons >= conditions.target_photons
    x, y, photons, tile = x[seen], y[seen], photons[seen], tile[seen]
    kde = render_kde(x, y, torch.ones_like(x), tile, shape, sigma_fine_px)
    return TileBatch(electrons, read_variance, sigma, excess, kde, x, y, photons, tile)


def _positions(
    conditions: TileConditions, shape: tuple[int, int, int], draw: _Draws
) -> tuple[Tensor, Tensor, Tensor]:
    tiles, height, width = shape
    low, high = conditions.density_per_px2
    density = low + (high - low) * draw.uniform((tiles,)) ** 1.5
    density = torch.where(draw.chance((tiles,), conditions.empty_share), 0.0, density)
    border = max(_BORDER_PX, _BORDER_SIGMAS * conditions.sigma_px[1])
    area = (height + 2 * border) * (width + 2 * border)
    counts = torch.poisson(density * area, generator=draw.generator).long()
    tile = torch.repeat_interleave(torch.arange(tiles, device=draw.device), counts)
    emitters = (len(tile),)
    edge = 0.5 + border
    x = draw.uniform(emitters, -edge, width - 1 + edge)
    y = draw.uniform(emitters, -edge, height - 1 + edge)
    return x, y, tile


def _photons(conditions: TileConditions, tile: Tensor, noise_e: Tensor, draw: _Draws) -> Tensor:
    """Draw the photo-electrons of each emitter: log-normal, exponential or uniform in a tile."""
    tiles, emitters = len(noise_e), (len(tile),)
    mean = draw.log_uniform((tiles,), conditions.mean_photons)
    mean = torch.maximum(mean, conditions.visible_sds * noise_e)
    log_sd = draw.uniform((tiles,), 0.05, 0.8)
    family = draw.uniform((tiles,))
    log_normal = (log_sd[tile] * draw.normal(emitters) - log_sd[tile] ** 2 / 2).exp()
    exponential = -draw.uniform(emitters, 1e-6, 1.0).log()
    uniform = draw.uniform(emitters, 0.4, 1.6)
    share = torch.where(family[tile] < 0.6, log_normal, uniform)
    share = torch.where(family[tile] > 0.85, exponential, share)
    photons = (mean[tile] * share).clamp(*conditions.photons)
    partial = draw.chance(emitters, conditions.blinking_share)
    photons = torch.where(partial, photons * draw.uniform(emitters), photons)
    return photons.clamp(min=_PHOTON_FLOOR)


def _background(conditions: TileConditions, shape: tuple[int, int, int], draw: _Draws) -> Tensor:
    """Draw a smooth background: a level times the exponential of two slow waves."""
    tiles, height, width = shape
    level = draw.log_uniform((tiles,), conditions.background_e)
    level = torch.where(draw.chance((tiles,), 0.1), 0.0, level)
    columns, rows = pixel_axes((height, width), level)
    wave = torch.zeros(shape, device=draw.device)
    swing = conditions.unevenness * draw.uniform((tiles, 1, 1))
    for _ in range(2):
        angle = draw.uniform((tiles, 1, 1), 0.0, 2 * math.pi)
        phase = draw.uniform((tiles, 1, 1), 0.0, 2 * math.pi)
        # Periods of 24 px and more: shorter ones are spots, not background.
        wavenumber = draw.uniform((tiles, 1, 1), 0.0, 2 * math.pi / 24)
        along = angle.cos() * columns[None, None, :] + angle.sin() * rows[None, :, None]
        wave = wave + 0.5 * (wavenumber * along + phase).cos()
    return level[:, None, None] * (swing * wave).exp()


def _read_variance(conditions: TileConditions, shape: tuple[int, int, int], draw: _Draws) -> Tensor:
    """Draw variance maps: even as a CCD's in half of the tiles, spread as an sCMOS's else."""
    tiles = shape[0]
    level = draw.log_uniform((tiles, 1, 1), conditions.read_noise_e) ** 2
    spread = torch.where(
        draw.chance((tiles, 1, 1), 0.5), draw.uniform((tiles, 1, 1), 0.1, 0.6), 0.0
    )
    variance = level * (spread * draw.normal(shape)).exp()
    hot = draw.chance(shape, conditions.hot_share) & (spread > 0)
    return torch.where(hot, variance * draw.log_uniform(shape, (10.0, 100.0)), variance)


def _expose(expected: Tensor, read_variance: Tensor, multiplied: Tensor, draw: _Draws) -> Tensor:
    single = sample_electrons(expected, read_variance, draw.generator)
    if not bool(multiplied.any()):
        return single
    amplified = sample_electrons(
        expected[multiplied], read_variance[multiplied], draw.generator, em_gain=_EM_GAIN
    )
    return single.index_copy(0, multiplied.nonzero()[:, 0], amplified)


def tile_input(batch: TileBatch) -> Tensor:
    """Give the network's channels of a batch of tiles."""
    channels = network_input(
        batch.electrons, batch.read_variance_e2, batch.sigma_px, batch.excess_noise
    )
    return channels.contiguous(memory_format=torch.channels_last)
