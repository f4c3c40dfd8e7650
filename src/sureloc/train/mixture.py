"""Training of a network that describes emitters: the likelihood of the true ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sureloc.networks.mixture import PHOTON_UNIT, EmitterPhi, log_likelihood, mixture_of
from sureloc.simulate.tiles import TileBatch, tile_input
from sureloc.train.engine import Training
from sureloc.train.recipe import MixtureTrainingRecipe


class MixtureTraining(Training):
    """A mixture of emitters by its log-likelihood (`sureloc.networks.mixture`)."""

    recipe: MixtureTrainingRecipe

    def __init__(self, recipe: MixtureTrainingRecipe) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network = EmitterPhi(recipe.network.width, recipe.network.dilations)
        super().__init__(recipe, network)

    def loss(self, generator: torch.Generator) -> Tensor:
        """Give minus the log-likelihood of fresh tiles, see `_surprise`."""
        return self._surprise(self.network, self.tiles_of_step(generator))

    @torch.no_grad()
    def judge(self, generator: torch.Generator) -> dict[str, float]:
        """Give the same of the averaged weights on held-out tiles."""
        plan = self.recipe.validation
        tiles = self.tiles(generator, plan.tiles, plan.tile_px)
        return {"score": float(self._surprise(self.average, tiles))}

    def _surprise(self, network: nn.Module, tiles: TileBatch) -> Tensor:
        """Give minus the log-likelihood of the emitters inside, for an emitter of theirs."""
        rows, columns = tiles.electrons.shape[1:]
        inside = (tiles.x_px > -0.5) & (tiles.x_px < columns - 0.5)
        inside &= (tiles.y_px > -0.5) & (tiles.y_px < rows - 0.5)
        emitters = torch.stack([tiles.x_px, tiles.y_px, tiles.photons / PHOTON_UNIT], dim=1)
        with self.autocast():
            raw = network(tile_input(tiles)).float()
        found = log_likelihood(mixture_of(raw), emitters[inside], tiles.tile[inside])
        return -found.sum() / inside.sum().clamp(min=1)
