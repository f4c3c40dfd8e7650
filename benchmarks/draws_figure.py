"""Draws at five signal-to-noise ratios, as the paper's Figure 3: writes draws.png.

    python benchmarks/draws_figure.py --out draws.png

One scene of eight emitters, two of them 120 nm apart at 100 nm pixels, is exposed five times with
more and more photons. For each the picture shows frame, truth, yhat, four draws, mean and sd.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from sureloc.networks.posterior import posterior_images
from sureloc.networks.weights import Networks, load_weights
from sureloc.physics.image import render_frames
from sureloc.physics.kde import peak_of_one, render_kde
from sureloc.physics.psf import GaussianPSF
from sureloc.report.draws import TilePictures, draw_tiles

SIDE_PX = 20
SIGMA_PX = 1.3
BACKGROUND_E = 20.0
READ_VARIANCE_E2 = 4.0
PHOTONS = (100.0, 250.0, 600.0, 1500.0, 5000.0)
EMITTERS_PX = (
    *((4.2, 4.6), (13.1, 3.4), (14.3, 3.4), (9.6, 9.8), (11.9, 11.2)),
    *((3.7, 14.9), (15.8, 15.1), (5.6, 13.2)),
)
DRAWS = 16


def signal_to_noise(photons: float) -> float:
    """Give photons over their noise under one PSF, shot noise of the emitter included."""
    under_psf = 4 * torch.pi * SIGMA_PX**2 * (BACKGROUND_E + READ_VARIANCE_E2)
    return float(photons / (photons + under_psf) ** 0.5)


def tile_pictures(networks: Networks, photons: float, seed: int) -> TilePictures:
    x, y = torch.tensor(EMITTERS_PX).T.contiguous()
    tile = torch.zeros(len(x), dtype=torch.long)
    shape = (1, SIDE_PX, SIDE_PX)
    light = render_frames(
        x, y, torch.full_like(x, photons), tile, GaussianPSF.round(SIGMA_PX), shape
    )
    generator = torch.Generator().manual_seed(seed)
    electrons = torch.poisson(light + BACKGROUND_E, generator=generator)
    electrons += READ_VARIANCE_E2**0.5 * torch.randn(shape, generator=generator)
    variance = torch.full((SIDE_PX, SIDE_PX), READ_VARIANCE_E2)
    images = posterior_images(networks, electrons, variance, SIGMA_PX, 1.0, DRAWS, seed, [0])
    kernel = networks.card.kernel_sigma_fine_px
    unit = peak_of_one(kernel)
    counts = images.draws[0].sum(dim=(1, 2))
    print(
        f"{photons:6.0f} e-, signal to noise {signal_to_noise(photons):5.1f}: total mass of draws "
        f"{counts.mean():.2f} +- {counts.std():.2f} (truth {len(x)})"
    )
    truth = render_kde(x, y, torch.ones_like(x), tile, shape, kernel)
    return TilePictures(
        f"{photons:.0f} e-\nS/N {signal_to_noise(photons):.1f}",
        electrons[0].numpy(),
        (truth[0] / unit).numpy(),
        (images.yhat[0] / unit).numpy(),
        (images.draws[0] / unit).numpy(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("draws.png"))
    parser.add_argument("--weights", default="default")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    networks = load_weights(arguments.weights)
    draw_tiles([tile_pictures(networks, p, arguments.seed) for p in PHOTONS], arguments.out)


if __name__ == "__main__":
    main()
