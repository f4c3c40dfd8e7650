"""Joint refinement reaches what the image can tell, and says honestly how far it is off."""

from __future__ import annotations

import math

import pytest
import torch

from sureloc.errors import InputError
from sureloc.physics.image import render_tiles
from sureloc.physics.information import isolated_bound, joint_bound
from sureloc.physics.noise import sample_electrons
from sureloc.physics.psf import GaussianPSF
from sureloc.physics.refinement import (
    GaussianBrightness,
    LogNormalBrightness,
    RefinementPrior,
    StoppingRule,
    TileData,
    refine,
)
from sureloc.physics.tile_model import Background, Emitters

PSF = GaussianPSF.round(1.1)
VARIANCE = 3.0


def tiles_of(x, y, photons, level, shape, generator, sd=math.inf):
    """Noisy tiles of these emitters, (tiles, emitters), on a level background."""
    tiles = len(x)
    expected = render_tiles(x, y, photons, PSF, shape) + level
    variance = torch.full((1, *shape), VARIANCE, dtype=torch.float64)
    electrons = sample_electrons(expected, variance, generator)
    levels = torch.full((tiles,), level, dtype=torch.float64)
    return TileData(electrons, variance), Background.constant(levels, shape, sd=sd)


def isolated(photons: float, tiles: int, generator):
    x, y = (7 + torch.rand(tiles, 1, generator=generator, dtype=torch.float64) for _ in "xy")
    return Emitters.all_present(x, y, torch.full_like(x, photons))


def displaced(truth: Emitters, by_px: float, generator) -> Emitters:
    noise = [
        by_px * torch.randn(truth.x_px.shape, generator=generator, dtype=torch.float64)
        for _ in "xy"
    ]
    return Emitters.all_present(truth.x_px + noise[0], truth.y_px + noise[1], 0.8 * truth.photons)


@pytest.mark.parametrize("photons", [100.0, 300.0, 1000.0, 3000.0, 10000.0])
def test_fits_of_isolated_emitters_reach_the_bound(photons, torch_rng):
    truth = isolated(photons, 8000, torch_rng)
    data, background = tiles_of(truth.x_px, truth.y_px, truth.photons, 2.0, (15, 15), torch_rng)
    fit = refine(data, displaced(truth, 0.2, torch_rng), background, PSF)
    # Of the faintest, one in thousands lies where noise makes the summit flat.
    assert fit.converged.double().mean() > 0.9995
    bound = joint_bound(truth, background, data.read_variance_e2, PSF)
    error = torch.cat([fit.emitters.x_px - truth.x_px, fit.emitters.y_px - truth.y_px])
    expected = torch.cat([bound.var_x_px2, bound.var_y_px2])
    ratio = float((error**2 / expected).mean())
    # 16,000 squared errors of Gaussians average to 1 +- sqrt(2 / 16,000) = .011. Below 1 nothing
    # unbiased can be; the upper end leaves 5 % for the bound being one of small errors.
    assert 0.96 <= ratio <= 1.08
    assert float(error.mean().abs()) < 4 * math.sqrt(float(expected.mean()) / 16000)


def test_stated_covariance_is_that_of_the_errors_also_for_close_pairs(torch_rng):
    tiles, gap = 1500, 2.4
    x = torch.tensor([[7.0, 7.0 + gap]], dtype=torch.float64).repeat(tiles, 1)
    y = torch.tensor([[7.2, 7.9]], dtype=torch.float64).repeat(tiles, 1)
    truth = Emitters.all_present(x, y, torch.full_like(x, 900.0))
    data, background = tiles_of(x, y, truth.photons, 2.0, (16, 17), torch_rng)
    fit = refine(data, displaced(truth, 0.1, torch_rng), background, PSF)
    errors = torch.stack(
        [
            fit.emitters.x_px[:, 0] - x[:, 0],
            fit.emitters.y_px[:, 0] - y[:, 0],
            fit.emitters.photons[:, 0] - 900.0,
            fit.emitters.x_px[:, 1] - x[:, 1],
        ]
    )
    picked = torch.tensor([0, 1, 2, 3])
    stated = fit.covariance.matrix[:, picked][:, :, picked].mean(0)
    found = torch.cov(errors)
    scale = stated.diagonal().sqrt()
    # Correlations of 1,500 errors scatter by 1 / sqrt(1500) = .026, variances by .037; 4 of these,
    # and 3 % for terms beyond the quadratic form.
    assert ((found - stated) / (scale[:, None] * scale)).abs().max() < 0.18
    alone = isolated_bound(truth, background, data.read_variance_e2, PSF)
    assert (fit.covariance.var_x_px2 > 1.03 * alone.var_x_px2).all()


def test_a_batch_gives_what_single_tiles_give(torch_rng):
    x = 3 + 9 * torch.rand(6, 3, generator=torch_rng, dtype=torch.float64)
    y = 3 + 9 * torch.rand(6, 3, generator=torch_rng, dtype=torch.float64)
    photons = 300 + 600 * torch.rand(6, 3, generator=torch_rng, dtype=torch.float64)
    data, background = tiles_of(x, y, photons, 3.0, (15, 15), torch_rng, sd=1.0)
    start = Emitters.all_present(x, y, photons)
    prior = RefinementPrior(LogNormalBrightness(600.0, 0.5), 1.0)
    whole = refine(data, start, background, PSF, prior)
    for k in range(6):
        one = torch.tensor([k])
        single = refine(
            data.of_tiles(one), start.of_tiles(one), background.of_tiles(one), PSF, prior
        )
        assert torch.allclose(single.emitters.x_px[0], whole.emitters.x_px[k], atol=1e-6)
        assert torch.allclose(single.log_posterior[0], whole.log_posterior[k], atol=1e-6)


def test_the_summit_is_one(torch_rng):
    truth = isolated(500.0, 5, torch_rng)
    data, background = tiles_of(
        truth.x_px, truth.y_px, truth.photons, 2.0, (15, 15), torch_rng, sd=1.0
    )
    fit = refine(data, displaced(truth, 0.3, torch_rng), background, PSF)
    still = StoppingRule(most_iterations=0)
    for name, step in (("x_px", 0.02), ("y_px", 0.02), ("photons", 10.0)):
        for sign in (-1, 1):
            values = {n: getattr(fit.emitters, n).clone() for n in ("x_px", "y_px", "photons")}
            values[name] += sign * step
            beside = refine(data, Emitters.all_present(**values), background, PSF, rule=still)
            assert not beside.converged.any()
            # Background weights start at their mean there, which can only be lower still.
            assert (beside.log_posterior < fit.log_posterior).all()


@pytest.mark.parametrize(
    "brightness", [GaussianBrightness(400.0, 1.0), LogNormalBrightness(400.0, 0.003)]
)
def test_a_strong_belief_about_brightness_wins(brightness, torch_rng):
    truth = isolated(800.0, 3, torch_rng)
    data, background = tiles_of(
        truth.x_px, truth.y_px, truth.photons, 2.0, (15, 15), torch_rng, sd=1.0
    )
    fit = refine(
        data, displaced(truth, 0.1, torch_rng), background, PSF, RefinementPrior(brightness)
    )
    assert torch.allclose(
        fit.emitters.photons, torch.full((3, 1), 400.0, dtype=torch.float64), rtol=0.05
    )
    assert (fit.covariance.var_photons < 4.0).all()


def test_a_tight_belief_about_position_holds_it(torch_rng):
    truth = isolated(400.0, 3, torch_rng)
    data, background = tiles_of(
        truth.x_px, truth.y_px, truth.photons, 2.0, (15, 15), torch_rng, sd=1.0
    )
    start = Emitters.all_present(truth.x_px + 0.4, truth.y_px, truth.photons)
    held = refine(data, start, background, PSF, RefinementPrior(position_sd_px=1e-4))
    free = refine(data, start, background, PSF)
    assert (held.emitters.x_px - start.x_px).abs().max() < 1e-3
    assert (free.emitters.x_px - truth.x_px).abs().max() < 0.35


@pytest.mark.parametrize(
    "brightness", [GaussianBrightness(500.0, 90.0), LogNormalBrightness(500.0, 0.4)]
)
def test_slopes_of_beliefs_are_their_derivatives(brightness):
    photons = torch.tensor([200.0, 500.0, 1200.0], dtype=torch.float64, requires_grad=True)
    by_what = torch.autograd.grad(brightness.log_density(photons).sum(), photons)[0]
    slope, precision = brightness.slope_and_precision(photons.detach())
    assert torch.allclose(slope, by_what)
    assert (precision > 0).all()


def test_impossible_starts_are_refused(torch_rng):
    truth = isolated(400.0, 2, torch_rng)
    data, background = tiles_of(truth.x_px, truth.y_px, truth.photons, 2.0, (15, 15), torch_rng)
    dark = Emitters.all_present(truth.x_px, truth.y_px, torch.zeros_like(truth.photons))
    with pytest.raises(InputError, match=r"starting brightness is 0\.0"):
        refine(data, dark, background, PSF)
    broken = TileData(torch.full_like(data.electrons, math.nan), data.read_variance_e2)
    with pytest.raises(InputError, match="Tile 0 has no likelihood"):
        refine(broken, truth, background, PSF)
    with pytest.raises(InputError, match="position_sd_px is 0"):
        RefinementPrior(position_sd_px=0.0)
