"""Training of Psi: the preconditioned denoising of what a frozen phi leaves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sureloc.diffusion import samplers
from sureloc.diffusion.denoisers import to_residual
from sureloc.diffusion.noise import white_noise
from sureloc.diffusion.objectives import Sums, denoising_loss, energy_loss
from sureloc.diffusion.schedules import log_snr_of_gamma
from sureloc.networks.blocks import fold, unfold
from sureloc.networks.phi import PhiNetwork
from sureloc.networks.posterior import INFORMATIVE, centre_of, psi_denoiser, psi_images
from sureloc.networks.psi import PsiNetwork
from sureloc.networks.weights import build_psi
from sureloc.physics.kde import peak_of_one
from sureloc.scoring.calibration import Spread, spread_of, spread_skill
from sureloc.scoring.proper import fair_crps
from sureloc.simulate.tiles import TileBatch, tile_input
from sureloc.train.engine import Training
from sureloc.train.recipe import PsiTrainingRecipe

_SCALE_TILES = 512


@dataclass(frozen=True)
class Views:
    """What Psi sees of a batch of tiles, and the image it shall draw, folded, in phi's unit.

    Attributes:
        frames, trunk, estimate: what `PsiNetwork.condition` takes.
        centre: what Psi's zero stands for.
        target: the true image.
    """

    frames: Tensor
    trunk: Tensor
    estimate: Tensor
    centre: Tensor
    target: Tensor


class PsiTraining(Training):
    """Psi by denoising, or in one step by the energy score (`sureloc.diffusion.objectives`)."""

    recipe: PsiTrainingRecipe

    def __init__(self, recipe: PsiTrainingRecipe, phi: PhiNetwork) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network = build_psi(recipe.network.card(), phi.trunk_width)
        super().__init__(recipe, network)
        self.phi = phi.requires_grad_(False).eval()
        self.phi.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        scale = self._measure_residual_scale()
        self.network.residual_scale.fill_(scale)
        self.average.residual_scale.fill_(scale)

    @torch.no_grad()
    def views(self, tiles: TileBatch) -> Views:
        """Run phi and give what Psi is trained on, in phi's unit."""
        frames = tile_input(tiles)
        with self.autocast():
            trunk = self.phi.trunk(frames)
            estimate = fold(self.phi.read(trunk)).float()
        target = fold(tiles.kde[:, None] / peak_of_one(self.recipe.kernel_sigma_fine_px))
        return Views(frames, trunk, estimate, centre_of(self.recipe.data, estimate), target)

    def _measure_residual_scale(self) -> float:
        if self.recipe.data == "display":
            return 0.5
        generator = self.generator("residual scale")
        side = self.recipe.batch.tile_px
        batches = (self.views(self.tiles(generator, 16, side)) for _ in range(_SCALE_TILES // 16))
        squares = [(views.target - views.centre).square().mean() for views in batches]
        return float(torch.stack(squares).mean().sqrt())

    def loss(self, generator: torch.Generator) -> Tensor:
        """Give the recipe's error on fresh tiles."""
        return self._loss(self.network, self.views(self.tiles_of_step(generator)), generator)

    def _loss(self, network: PsiNetwork, views: Views, generator: torch.Generator) -> Tensor:
        clean = to_residual(views.target, views.centre, network.residual_scale)
        with self.autocast():
            condition = network.condition(views.frames, views.trunk, views.estimate)
        objective = self.recipe.objective
        repeats = (
            self.recipe.noise.levels_per_tile if objective.kind == "denoising" else objective.draws
        )
        conditions = condition.repeat(repeats, 1, 1, 1)

        def raw(noisy: Tensor, log_snr: Tensor) -> Tensor:
            seen = noisy.contiguous(memory_format=torch.channels_last)
            with self.autocast():
                output: Tensor = network(seen, log_snr, conditions)
            return output.float()

        many = clean.repeat(repeats, 1, 1, 1)
        if objective.kind == "denoising":
            gamma = self.recipe.noise.gammas(len(many), generator)
            return denoising_loss(
                raw,
                objective.target,
                many,
                gamma,
                generator,
                objective.norm,
                Sums(objective.sums, self.recipe.footprint_px, objective.sums_above),
            )
        level = log_snr_of_gamma(self.recipe.noise.card().levels(1)).to(many)
        drawn = unfold(raw(white_noise(many, generator), level))[:, 0]
        draws = drawn.reshape(repeats, len(clean), *drawn.shape[1:])
        mass_of_one = 1.0 / (
            peak_of_one(self.recipe.kernel_sigma_fine_px) * float(network.residual_scale)
        )
        return energy_loss(draws, unfold(clean)[:, 0], mass_of_one, objective.patch_fine_px)

    @torch.no_grad()
    def judge(self, generator: torch.Generator) -> dict[str, float]:
        """Give the loss, spread-skill of pixels and of masses, and CRPS on informative pixels."""
        plan, network = self.recipe.validation, self.average
        loss, left, batches, parts, masses = 0.0, plan.tiles, 0, [], []
        while left > 0:
            views = self.views(self.tiles(generator, min(left, 8), plan.tile_px))
            loss += float(self._loss(network, views, generator))
            batches += 1
            draws = self.draw(network, views, generator, plan.draws)
            parts.append(_judged(draws, views))
            true_mass = unfold(views.target).sum((1, 2, 3))
            masses.append(torch.stack(spread_of(draws.sum((2, 3)).T, true_mass)[:2]))
            left -= 8
        variance, squared, crps, own = torch.cat(parts, dim=1)
        mass_variance, mass_squared = torch.cat(masses, dim=1)
        return {
            "score": loss / batches,
            "spread_skill": spread_skill(Spread(variance, squared, plan.draws)),
            "crps": float(crps.double().mean()),
            "rmse": float(squared.double().mean().sqrt()),
            "phi_rmse": float(own.double().mean().sqrt()),
            "mass_spread_skill": spread_skill(Spread(mass_variance, mass_squared, plan.draws)),
        }

    def draw(
        self, network: PsiNetwork, views: Views, generator: torch.Generator, draws: int
    ) -> Tensor:
        """Draw images as the weights will, in phi's unit, (tiles, draws, ...).

        By the sampler and from the schedule of their card, in as many evaluations, or in
        `validation.evaluations` where these are fewer: levels are then thinned, ends kept, and
        what is measured is that of draws in so few.
        """
        card = self.recipe.objective.card(self.recipe.data)
        with self.autocast():
            condition = network.condition(views.frames, views.trunk, views.estimate)
        denoiser = psi_denoiser(network, condition, self.autocast(), card.target)
        few = min(card.evaluations, self.recipe.validation.evaluations)
        sampler, levels = getattr(samplers, card.sampler), self.recipe.noise.card().levels(few)
        images = []
        for _ in range(draws):
            drawn = sampler(denoiser, white_noise(views.target, generator), levels, generator)
            images.append(psi_images(network, drawn, views.centre))
        return torch.stack(images, dim=1)


def _judged(draws: Tensor, views: Views) -> Tensor:
    """Give variance, squared errors, CRPS and phi's squared errors on informative pixels."""
    truth = unfold(views.target)[:, 0]
    where = unfold(views.estimate)[:, 0] > INFORMATIVE
    members = draws.transpose(0, 1)
    spread = spread_of(members, truth)
    informative = where.reshape(-1)
    return torch.stack(
        [
            spread.variance[informative],
            spread.squared_error[informative],
            fair_crps(members, truth)[where],
            (unfold(views.estimate)[:, 0] - truth)[where].square(),
        ]
    )
