"""Training of Psi: the preconditioned denoising of what a frozen phi leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sureloc.networks.blocks import fold, unfold
from sureloc.networks.phi import Phi
from sureloc.networks.psi import Psi
from sureloc.physics.kde import peak_of_one
from sureloc.simulate.tiles import TileBatch, simulate_tiles
from sureloc.train.engine import Training
from sureloc.train.phi import tile_input
from sureloc.train.recipe import PsiTrainingRecipe

_SCALE_TILES = 512


@dataclass(frozen=True)
class Views:
    """What Psi sees of a batch of tiles, and the residual it shall draw, all folded."""

    frames: Tensor
    trunk: Tensor
    estimate: Tensor
    residual: Tensor


def build_psi(recipe: PsiTrainingRecipe, trunk_width: int) -> Psi:
    """Build the Psi that a recipe describes, with the weights of a fresh start."""
    network = recipe.network
    return Psi(
        conditioning=network.conditioning,
        trunk_width=trunk_width,
        condition_width=network.condition_width,
        condition_blocks=network.condition_blocks,
        width=network.width,
        dilations=network.dilations,
        embedding=network.embedding,
    )


class PsiTraining(Training):
    """Psi by denoising residuals (Karras et al. 2022, eqs. 7 and 8; DIFFUSION formulation)."""

    recipe: PsiTrainingRecipe

    def __init__(self, recipe: PsiTrainingRecipe, phi: Phi) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network = build_psi(recipe, phi.width)
        super().__init__(recipe, network)
        self.phi = phi.requires_grad_(False).eval()
        self.phi.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        scale = self._measure_residual_scale()
        self.network.residual_scale.fill_(scale)
        self.average.residual_scale.fill_(scale)

    def _tiles(self, generator: torch.Generator, tiles: int, side_px: int) -> TileBatch:
        return simulate_tiles(
            self.recipe.conditions.conditions(),
            (tiles, side_px, side_px),
            generator,
            self.recipe.kernel_sigma_fine_px,
        )

    @torch.no_grad()
    def views(self, tiles: TileBatch) -> Views:
        """Run phi and give what Psi is trained on, in phi's unit."""
        frames = tile_input(tiles)
        with self.autocast():
            trunk = self.phi.trunk(frames)
            estimate = fold(self.phi.read(trunk)).float()
        target = fold(tiles.kde[:, None] / peak_of_one(self.recipe.kernel_sigma_fine_px))
        return Views(frames, trunk, estimate, target - estimate)

    def _measure_residual_scale(self) -> float:
        generator = self.generator("residual scale")
        squares = [
            self.views(self._tiles(generator, 16, self.recipe.batch.tile_px)).residual.square()
            for _ in range(_SCALE_TILES // 16)
        ]
        return float(torch.stack([square.mean() for square in squares]).mean().sqrt())

    def loss(self, generator: torch.Generator) -> Tensor:
        """Give the preconditioned denoising error on fresh tiles."""
        batch = self.recipe.batch
        views = self.views(self._tiles(generator, batch.tiles, batch.tile_px))
        return self._denoising_loss(self.network, views, generator)

    def _denoising_loss(self, network: Psi, views: Views, generator: torch.Generator) -> Tensor:
        noise = self.recipe.noise
        repeats = noise.levels_per_tile
        clean = (views.residual / network.residual_scale).repeat_interleave(repeats, 0)
        # Stratified over the batch: every step sees low and high levels.
        count = len(clean)
        order = torch.randperm(count, generator=generator, device=clean.device)
        offset = torch.rand(count, generator=generator, device=clean.device)
        normal = torch.special.ndtri(((order + offset) / count).clamp(1e-4, 1 - 1e-4))
        sigma = (noise.log_mean + noise.log_sd * normal).exp()
        s = sigma[:, None, None, None]
        white = torch.randn(clean.shape, generator=generator, device=clean.device)
        noisy = clean + s * white.to(clean)
        skip, out = 1 / (1 + s**2), s / (1 + s**2).sqrt()
        with self.autocast():
            condition = network.condition(views.frames, views.trunk, views.estimate)
            condition = condition.repeat_interleave(repeats, 0)
            scaled = (noisy / (1 + s**2).sqrt()).contiguous(memory_format=torch.channels_last)
            raw = network(scaled, -2 * sigma.log(), condition)
        loss: Tensor = (raw.float() - (clean - skip * noisy) / out).square().mean()
        return loss

    @torch.no_grad()
    def judge(self, generator: torch.Generator) -> dict[str, float]:
        """Give the denoising loss, spread-skill and pixel CRPS on informative pixels."""
        plan, network = self.recipe.validation, self.average
        loss, sums, left, batches = 0.0, torch.zeros(5, dtype=torch.float64), plan.tiles, 0
        while left > 0:
            views = self.views(self._tiles(generator, min(left, 8), plan.tile_px))
            loss += float(self._denoising_loss(network, views, generator))
            batches += 1
            draws = self.draw(network, views, generator, plan.draws, plan.evaluations)
            truth = unfold(views.residual + views.estimate)[:, 0]
            informative = unfold(views.estimate)[:, 0] > 0.05
            sums += _tally(draws, truth, unfold(views.residual)[:, 0], informative)
            left -= 8
        variance, squared, crps, own, count = sums.tolist()
        draws_count = plan.draws
        return {
            "score": loss / batches,
            "spread_skill": math.sqrt((draws_count + 1) / draws_count * variance / squared),
            "crps": crps / count,
            "rmse": math.sqrt(squared / count),
            "phi_rmse": math.sqrt(own / count),
        }

    def draw(
        self, network: Psi, views: Views, generator: torch.Generator, draws: int, evaluations: int
    ) -> Tensor:
        """Draw images by DPM-Solver++(2M), in phi's unit, (tiles, draws, rows, columns)."""
        noise = self.recipe.noise
        with self.autocast():
            condition = network.condition(views.frames, views.trunk, views.estimate)
        ramp = torch.linspace(0, 1, evaluations)
        ends = noise.sigma_max ** (1 / noise.rho), noise.sigma_min ** (1 / noise.rho)
        levels = torch.cat([(ends[0] + ramp * (ends[1] - ends[0])) ** noise.rho, torch.zeros(1)])
        images = []
        for _ in range(draws):
            u = levels[0] * torch.randn(
                views.residual.shape, generator=generator, device=self.device
            )
            before, width_before = None, 0.0
            for now, after in zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True):
                scaled = (u / math.sqrt(1 + now**2)).contiguous(memory_format=torch.channels_last)
                log_snr = torch.full((len(u),), -2 * math.log(now), device=self.device)
                with self.autocast():
                    raw = network(scaled, log_snr, condition).float()
                clean = u / (1 + now**2) + now / math.sqrt(1 + now**2) * raw
                if after == 0:
                    u = clean
                    break
                width = math.log(now / after)
                guess = clean
                if before is not None:
                    ratio = width / (2 * width_before)
                    guess = (1 + ratio) * clean - ratio * before
                u = after / now * u + (1 - after / now) * guess
                before, width_before = clean, width
            images.append(unfold(views.estimate + network.residual_scale * u)[:, 0])
        return torch.stack(images, dim=1)


def _tally(draws: Tensor, truth: Tensor, residual: Tensor, where: Tensor) -> Tensor:
    count = draws.shape[1]
    mean = draws.mean(1)
    pairs = (draws[:, :, None] - draws[:, None]).abs().sum((1, 2)) / (2 * count * (count - 1))
    crps = (draws - truth[:, None]).abs().mean(1) - pairs
    return torch.stack(
        [
            draws.var(1)[where].double().sum(),
            (mean - truth)[where].double().square().sum(),
            crps[where].double().sum(),
            residual[where].double().square().sum(),
            where.double().sum(),
        ]
    )
