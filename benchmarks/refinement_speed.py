"""Joint refinement against scipy's least squares on the same tiles: tiles per second, as a ratio.

    python benchmarks/refinement_speed.py [--tiles 64]

One thread each, in one run. Tiles of 20 x 20 px, sigma 1.3 px, 1,000 photons, background 10, read
variance 2, with 1, 3 and 8 emitters. Both start 0.2 px off with the right mean brightness and are
free in positions, photons and one background. scipy.optimize.least_squares minimizes the same
likelihood (its residuals are the signed roots of the deviance), with the same analytic derivatives
of the image, tile by tile; sureloc takes all tiles as a batch. The distance between both answers is
given: the comparison counts only where they agree.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from scipy.optimize import least_squares

from sureloc.physics.image import pixel_axes, render_tiles
from sureloc.physics.noise import sample_electrons
from sureloc.physics.psf import GaussianPSF
from sureloc.physics.refinement import TileData, refine
from sureloc.physics.tile_model import Background, Emitters

SIDE_PX, PHOTONS, LEVEL_E, VARIANCE_E2 = 20, 1000.0, 10.0, 2.0
PSF = GaussianPSF.round(1.3)


def simulate(tiles: int, emitters: int) -> tuple[TileData, Emitters, Background]:
    generator = torch.Generator().manual_seed(emitters)
    uniform = torch.rand(2, tiles, emitters, generator=generator, dtype=torch.float64)
    x, y = 3 + (SIDE_PX - 7) * uniform
    photons = torch.full_like(x, PHOTONS)
    shape = (SIDE_PX, SIDE_PX)
    expected = render_tiles(x, y, photons, PSF, shape) + LEVEL_E
    variance = torch.full((1, *shape), VARIANCE_E2, dtype=torch.float64)
    electrons = sample_electrons(expected, variance, generator)
    off = 0.2 * torch.randn(2, tiles, emitters, generator=generator, dtype=torch.float64)
    start = Emitters.all_present(x + off[0], y + off[1], photons)
    level = torch.full((tiles,), LEVEL_E, dtype=torch.float64)
    return TileData(electrons, variance), start, Background.constant(level, shape)


class ScipyTile:
    """One tile as a least-squares problem in positions, log photons and the background."""

    def __init__(self, data: TileData, tile: int, emitters: int) -> None:
        self.count = (data.electrons[tile] + data.read_variance_e2[0]).clamp(min=0).numpy().ravel()
        self.axes = pixel_axes((SIDE_PX, SIDE_PX), data.electrons)
        self.emitters = emitters

    def _images(self, theta: np.ndarray) -> tuple[np.ndarray, ...]:
        x, y = (torch.from_numpy(theta[i * self.emitters :][: self.emitters]) for i in range(2))
        parts = PSF.images_and_gradients(x, y, *self.axes)
        return tuple(part.numpy().reshape(self.emitters, -1) for part in parts)

    def _rate(self, theta: np.ndarray, images: np.ndarray) -> np.ndarray:
        photons = np.exp(theta[2 * self.emitters : 3 * self.emitters])
        return np.maximum(photons @ images + theta[-1] + VARIANCE_E2, 1e-6)

    def residuals(self, theta: np.ndarray) -> np.ndarray:
        rate, n = self._rate(theta, self._images(theta)[0]), self.count
        deviance = 2 * (np.where(n > 0, n * np.log(np.maximum(n, 1e-30) / rate), 0.0) - (n - rate))
        return np.sign(rate - n) * np.sqrt(np.maximum(deviance, 0.0))

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        images = self._images(theta)
        photons = np.exp(theta[2 * self.emitters : 3 * self.emitters])[:, None]
        rate, residual = self._rate(theta, images[0]), self.residuals(theta)
        # d sqrt(D) / d rate = (1 - n / rate) / sqrt(D), whose limit at n = rate is 1 / sqrt(rate).
        near = np.abs(residual) < 1e-4
        slope = np.where(
            near,
            1 / np.sqrt(rate),
            (1 - self.count / rate) / np.where(near, 1.0, residual),
        )
        rows = np.vstack([photons * images[1], photons * images[2], photons * images[0]])
        return np.vstack([rows, np.ones_like(rate)]).T * slope[:, None]


def by_scipy(data: TileData, start: Emitters) -> np.ndarray:
    found = []
    for tile in range(len(start.x_px)):
        problem = ScipyTile(data, tile, start.x_px.shape[1])
        parts = (start.x_px[tile], start.y_px[tile], start.photons[tile].log())
        theta = np.append(torch.cat(parts).numpy(), LEVEL_E)
        found.append(least_squares(problem.residuals, theta, problem.jacobian, method="lm").x)
    return np.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=64)
    tiles = parser.parse_args().tiles
    torch.set_num_threads(1)
    refine(*simulate(2, 1), PSF)
    print("emitters   sureloc tiles/s   scipy tiles/s   ratio   median distance, px")
    for emitters in (1, 3, 8):
        data, start, background = simulate(tiles, emitters)
        began = time.perf_counter()
        mine = refine(data, start, background, PSF)
        between = time.perf_counter()
        theirs = by_scipy(data, start)
        ended = time.perf_counter()
        x = torch.from_numpy(theirs[:, :emitters])
        y = torch.from_numpy(theirs[:, emitters : 2 * emitters])
        distance = torch.hypot(mine.emitters.x_px - x, mine.emitters.y_px - y).median()
        fast, slow = tiles / (between - began), tiles / (ended - between)
        print(f"{emitters:8} {fast:17.0f} {slow:15.1f} {fast / slow:7.1f} {float(distance):21.1e}")


if __name__ == "__main__":
    main()
