"""Training of phi: mean-squared error on kernel density images, so that it learns their mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sureloc.diffusion.objectives import Sums
from sureloc.networks.blocks import fold
from sureloc.networks.dropout import DropoutPhi
from sureloc.physics.kde import display_range, peak_of_one
from sureloc.simulate.tiles import simulate_tiles, tile_input
from sureloc.train.engine import Training
from sureloc.train.recipe import PhiTrainingRecipe, new_phi

_LOSS_SCALE = 100.0  # most fine pixels are empty; this brings the loss to order 1


class PhiTraining(Training):
    """phi by mean-squared error."""

    recipe: PhiTrainingRecipe

    def __init__(self, recipe: PhiTrainingRecipe) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network = new_phi(recipe.network)
        super().__init__(recipe, network)

    def _target(self, kde: Tensor) -> Tensor:
        sigma = self.recipe.kernel_sigma_fine_px
        if self.recipe.network.kind == "paper":
            return display_range(kde, sigma)
        return kde / peak_of_one(sigma)

    def loss(self, generator: torch.Generator) -> Tensor:
        """Give the mean-squared error on fresh tiles, of sums too where the recipe says so."""
        tiles = self.tiles_of_step(generator)
        with self.autocast():
            estimate = self._estimate(tile_input(tiles), generator)
        error = estimate.float() - self._target(tiles.kde)[:, None]
        loss: Tensor = _LOSS_SCALE * error.square().mean()
        if self.recipe.sums > 0:
            sums = Sums(self.recipe.sums, self.recipe.footprint_px)
            loss = loss + _LOSS_SCALE * sums.loss(fold(error))
        return loss

    def _estimate(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        if isinstance(self.network, DropoutPhi):
            return self.network.drawn(frames, generator)
        estimate: Tensor = self.network(frames)
        return estimate

    def judge(self, generator: torch.Generator) -> dict[str, float]:
        """Give the error's root mean square and the share of the image's variance it leaves."""
        return judge_phi(self.average, self.recipe, generator, self._target)


def judge_phi(
    network: nn.Module, recipe: PhiTrainingRecipe, generator: torch.Generator, target: object
) -> dict[str, float]:
    """Compare estimates with held-out images."""
    plan = recipe.validation
    squared, power, count = 0.0, 0.0, 0
    left = plan.tiles
    while left > 0:
        tiles = simulate_tiles(
            recipe.conditions.conditions(),
            (min(left, 16), plan.tile_px, plan.tile_px),
            generator,
            recipe.kernel_sigma_fine_px,
        )
        with torch.no_grad():
            estimate = network(tile_input(tiles))[:, 0]
        wanted = target(tiles.kde)  # type: ignore[operator]
        squared += float((estimate - wanted).square().sum())
        power += float((wanted - wanted.mean()).square().sum())
        count += wanted.numel()
        left -= 16
    return {
        "score": squared / count,
        "rmse": (squared / count) ** 0.5,
        "unexplained": squared / power,
    }
