"""Pictures that a training leaves as it goes, always of the same tiles."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor

from sureloc.networks.phi import PhiNetwork
from sureloc.networks.posterior import posterior_images
from sureloc.networks.weights import Card, Networks
from sureloc.physics.kde import peak_of_one
from sureloc.report.draws import Image, TilePictures, draw_tiles
from sureloc.simulate.tiles import TileBatch, simulate_tiles, tile_input
from sureloc.train.engine import Training
from sureloc.train.psi import PsiTraining

_TILES = 5
_TILE_PX = 20
_DRAWS = 16


class _Pictures(pl.Callback):
    """Draw a picture into a folder after each validation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw what the averaged weights make of tiles that only the seed decides."""
        if not isinstance(pl_module, Training) or not trainer.is_global_zero:
            return
        recipe = pl_module.recipe
        batch = simulate_tiles(
            recipe.conditions.conditions(),
            (_TILES, _TILE_PX, _TILE_PX),
            pl_module.generator("pictures"),
            recipe.kernel_sigma_fine_px,
        )
        tiles = self.tiles(pl_module, batch, peak_of_one(recipe.kernel_sigma_fine_px))
        self.folder.mkdir(parents=True, exist_ok=True)
        draw_tiles(tiles, self.folder / f"step_{trainer.global_step:06d}.png")

    @abstractmethod
    def tiles(self, training: Training, batch: TileBatch, unit: float) -> list[TilePictures]:
        """Give what is to be shown, images of emitters divided by `unit`."""


class PhiPictures(_Pictures):
    """phi's estimates beside truth."""

    @torch.no_grad()
    def tiles(self, training: Training, batch: TileBatch, unit: float) -> list[TilePictures]:
        """Estimate the tiles."""
        phi = training.average
        assert isinstance(phi, PhiNetwork)  # noqa: S101 - for the type checker
        estimates = phi.read(phi.trunk(tile_input(batch)))[:, 0]
        return [
            TilePictures(_label(batch, i), *_truth(batch, i, unit), _array(estimates[i]))
            for i in range(_TILES)
        ]


class PsiPictures(_Pictures):
    """Psi's draws beside truth, by the same code that users run."""

    def __init__(self, folder: Path, card: Card) -> None:
        super().__init__(folder)
        self.card = card

    def tiles(self, training: Training, batch: TileBatch, unit: float) -> list[TilePictures]:
        """Draw possible images of the tiles."""
        assert isinstance(training, PsiTraining)  # noqa: S101 - for the type checker
        networks = Networks(training.phi, training.average, self.card)
        return [
            posterior_pictures(networks, batch, i, unit, seed=training.recipe.seed, draws=_DRAWS)
            for i in range(_TILES)
        ]


def posterior_pictures(
    networks: Networks, batch: TileBatch, index: int, unit: float, *, seed: int, draws: int
) -> TilePictures:
    """Draw possible images of one tile of a batch, divided by `unit`."""
    images = posterior_images(
        networks,
        batch.electrons[index : index + 1],
        batch.read_variance_e2[index],
        float(batch.sigma_px[index]),
        float(batch.excess_noise[index]),
        draws,
        seed,
        [index],
    )
    return TilePictures(
        _label(batch, index),
        *_truth(batch, index, unit),
        _array(images.yhat[0] / unit),
        _array(images.draws[0] / unit),
    )


def _truth(batch: TileBatch, index: int, unit: float) -> tuple[Image, Image]:
    return _array(batch.electrons[index]), _array(batch.kde[index] / unit)


def _label(batch: TileBatch, index: int) -> str:
    photons = batch.photons[batch.tile == index]
    mean = f"{float(photons.mean()):.0f} e- each" if len(photons) else "no emitters"
    return f"{mean}\nPSF {float(batch.sigma_px[index]):.2f} px"


def _array(image: Tensor) -> Image:
    array: Image = image.cpu().numpy()
    return array
