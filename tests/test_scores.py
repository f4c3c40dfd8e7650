"""Scores of ensembles and training objectives: their expected values in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sureloc.diffusion.ideal import gaussian_denoiser
from sureloc.diffusion.objectives import Sums, denoising_loss, energy_loss
from sureloc.diffusion.schedules import gamma_of_sigma
from sureloc.errors import InputError
from sureloc.scoring.calibration import (
    bootstrap_sd,
    coverage,
    distance_from_uniform,
    mass_spread,
    rank_histogram,
    ranks,
    spread_of,
    spread_skill,
    spread_skill_in_bins,
    tarp_ranks,
)
from sureloc.scoring.proper import fair_crps, fair_energy_score, gaussian_crps

MANY = 200_000


def normal(generator, *shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


# --- Proper scores ------------------------------------------------------------------------------


@pytest.mark.parametrize("draws", [2, 3, 16])
def test_the_crps_is_that_of_infinitely_many_draws_for_any_number(draws, torch_rng):
    # Truth and draws N(0, 1): E|X - Y| / 2 = 1 / sqrt(pi) (Gneiting and Raftery 2007, eq. 21).
    score = fair_crps(normal(torch_rng, draws, MANY), normal(torch_rng, MANY))
    assert float(score.mean()) == pytest.approx(math.pi**-0.5, abs=5 * float(score.std()) / 447)


def test_scores_agree_with_scoringrules(torch_rng):
    draws, truth = normal(torch_rng, 7, 20, 5), normal(torch_rng, 20, 5)
    import scoringrules

    crps = scoringrules.crps_ensemble(
        truth.numpy(), np.moveaxis(draws.numpy(), 0, -1), estimator="fair"
    )
    np.testing.assert_allclose(fair_crps(draws, truth).numpy(), crps, rtol=1e-9, atol=1e-12)
    energy = scoringrules.es_ensemble(
        truth.numpy(), np.moveaxis(draws.numpy(), 0, 1), estimator="fair"
    )
    np.testing.assert_allclose(fair_energy_score(draws, truth).numpy(), energy, rtol=1e-9)


def test_scores_of_gaussians_agree_with_scoringrules():
    rng = np.random.default_rng(0)
    mean, sd, truth = rng.normal(size=(4, 5)), rng.gamma(2.0, size=(4, 5)), rng.normal(size=(4, 5))
    import scoringrules

    wanted = scoringrules.crps_normal(truth, mean, sd)
    np.testing.assert_allclose(gaussian_crps(mean, sd, truth), wanted, rtol=1e-9, atol=1e-12)


def test_of_single_numbers_both_scores_are_one(torch_rng):
    draws, truth = normal(torch_rng, 6, 30), normal(torch_rng, 30)
    torch.testing.assert_close(
        fair_energy_score(draws[..., None], truth[..., None]), fair_crps(draws, truth)
    )


@pytest.mark.parametrize(
    ("scale", "shift", "correlation"), [(0.7, 0, 0.9), (1.4, 0, 0.9), (1, 0.4, 0.9), (1, 0, 0.0)]
)
def test_the_energy_score_is_least_for_draws_of_the_right_law(scale, shift, correlation):
    def score(scale, shift, correlation):
        generator = torch.Generator().manual_seed(1)
        truth, draws = normal(generator, 50_000, 2), normal(generator, 2, 50_000, 2)
        for pairs, r in ((truth, 0.9), (draws, correlation)):
            pairs[..., 1] = r * pairs[..., 0] + math.sqrt(1 - r**2) * pairs[..., 1]
        return fair_energy_score(scale * draws + shift, truth)

    # The same random numbers on both sides: their differences scatter less than the scores.
    worse = score(scale, shift, correlation) - score(1.0, 0.0, 0.9)
    assert float(worse.mean()) > 5 * float(worse.std()) / 50_000**0.5


@pytest.mark.parametrize("score", [fair_crps, fair_energy_score])
def test_one_draw_has_no_fair_score(score):
    with pytest.raises(InputError, match="There are 1 draws"):
        score(torch.zeros(1, 3, 2), torch.zeros(3, 2))


# --- Calibration --------------------------------------------------------------------------------


@pytest.mark.parametrize("draws", [2, 16])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_spread_skill_is_one_where_draws_are_like_the_truth(draws, scale, torch_rng):
    ensemble = scale * normal(torch_rng, draws, MANY)
    found = spread_skill(spread_of(ensemble, normal(torch_rng, MANY)))
    wanted = math.sqrt((draws + 1) * scale**2 / (draws + scale**2))
    assert found == pytest.approx(wanted, rel=5 / MANY**0.5)


def test_spread_skill_in_bins_tells_which_spreads_are_wrong(torch_rng):
    sd = torch.tensor([0.5, 2.0]).double().repeat_interleave(MANY // 2)
    truth = sd * normal(torch_rng, MANY)
    wrong = torch.where(sd == 2.0, 0.5 * sd, sd)
    low, high = spread_skill_in_bins(spread_of(wrong * normal(torch_rng, 64, MANY), truth), 2)
    assert low.spread_skill == pytest.approx(1.0, abs=0.03)
    assert high.spread_skill == pytest.approx(0.5, abs=0.03)
    assert (low.share, high.share) == (0.5, 0.5)
    assert high.predicted_sd == pytest.approx(1.0, rel=0.02)


def test_spread_skill_of_nothing_and_of_perfection():
    assert math.isnan(spread_skill(spread_of(torch.zeros(2, 3), torch.zeros(3))))
    assert spread_skill(spread_of(torch.tensor([[1.0], [-1.0]]), torch.zeros(1))) == math.inf
    with pytest.raises(InputError, match="There are 1 draws"):
        spread_of(torch.zeros(1, 3), torch.zeros(3))
    with pytest.raises(InputError, match="bins is 4 for 3 elements"):
        spread_skill_in_bins(spread_of(torch.rand(2, 3), torch.zeros(3)), 4)


def test_ranks_are_uniform_also_with_ties_and_intervals_hold_what_they_should(torch_rng):
    for step in (0.0, 0.5):  # as drawn, and rounded so that many are equal
        draws, truth = normal(torch_rng, 16, MANY), normal(torch_rng, MANY)
        if step:
            draws, truth = (v.div(step).round() for v in (draws, truth))
        rank = ranks(draws, truth, torch_rng)
        # 17 shares of 1/17: their total variation is about sqrt(17 / (2 pi MANY)) by chance.
        assert distance_from_uniform(rank_histogram(rank, 16)) < 0.008
        for k in (1, 2, 8):
            nominal, held = coverage(rank, 16, k)
            assert nominal == pytest.approx((17 - 2 * k) / 17)
            assert held == pytest.approx(nominal, abs=5 * 0.5 / MANY**0.5)
    narrow = ranks(0.5 * normal(torch_rng, 16, MANY), truth := normal(torch_rng, MANY), torch_rng)
    assert distance_from_uniform(rank_histogram(narrow, 16)) > 0.15
    assert coverage(narrow, 16).held < 0.75
    assert truth.shape == narrow.shape
    with pytest.raises(InputError, match="k is 9"):
        coverage(narrow, 16, 9)


def test_the_spread_of_the_mass_sees_that_pixels_go_together(torch_rng):
    def images(*shape):
        return normal(torch_rng, *shape, 1, 1).expand(*shape, 3, 3)

    truth, together = images(20_000), images(8, 20_000)
    apart = normal(torch_rng, 8, 20_000, 3, 3)
    assert spread_skill(mass_spread(together, truth)) == pytest.approx(1.0, abs=0.03)
    assert spread_skill(spread_of(apart, truth)) == pytest.approx(1.0, abs=0.03)
    # A sum of 9 alike has the sd 9, of 9 apart 3: sqrt(9 / 8 * 9 / (81 + 9 / 8)).
    assert spread_skill(mass_spread(apart, truth)) == pytest.approx(0.351, abs=0.015)


def test_tarp_ranks_are_uniform_for_the_right_posterior_only(torch_rng):
    mean = normal(torch_rng, 20_000, 3)
    truth = mean + normal(torch_rng, 20_000, 3)
    near = mean + 0.5 * normal(torch_rng, 20_000, 3)
    for scale, low, high in ((1.0, 0.0, 0.03), (0.6, 0.08, 1.0)):
        draws = mean + scale * normal(torch_rng, 16, 20_000, 3)
        shares = rank_histogram(tarp_ranks(draws, truth, near, torch_rng), 16)
        assert low <= distance_from_uniform(shares) < high


def test_the_bootstrap_gives_the_standard_error_of_a_mean(torch_rng):
    sums = torch.stack([normal(torch_rng, 900), torch.ones(900).double()], 1)
    found = bootstrap_sd(sums, lambda s: float(s[0] / s[1]), torch_rng, 1000)
    # 1 / sqrt(900), to 5 standard errors of an sd from 1,000 resamples of 900 values.
    assert found == pytest.approx(1 / 30, rel=5 * math.hypot(1 / 2000**0.5, 1 / 1800**0.5))


# --- What networks are trained by ---------------------------------------------------------------


@pytest.mark.parametrize("target", ["epsilon", "clean", "preconditioned"])
def test_the_squared_error_is_least_for_the_ideal_denoiser(target):
    """Data N(0, lambda): the output that gives E[y_0 | y_t] has no gradient, and others cost."""
    variance, level = 4.0, float(gamma_of_sigma(torch.tensor(1.5).double()))
    gamma = torch.full((MANY,), level, dtype=torch.float64)
    ideal = gaussian_denoiser(torch.tensor([variance]).double())
    a, b = math.sqrt(level), math.sqrt(1 - level)
    estimate = float(ideal(torch.ones(1, 1).double(), level))
    # epsilon = (y_t - a y_0) / b; the preconditioned output is linear in y_0 as well.
    slopes = {"epsilon": (1 - a * estimate) / b, "clean": estimate}
    slopes["preconditioned"] = (estimate - a) / b if target == "preconditioned" else 0.0

    def loss(slope):
        generator = torch.Generator().manual_seed(2)
        clean = math.sqrt(variance) * normal(generator, MANY, 1)
        return denoising_loss(lambda noisy, _: slope * noisy, target, clean, gamma, generator)

    slope = torch.tensor(slopes[target], dtype=torch.float64, requires_grad=True)
    value = loss(slope)
    (gradient,) = torch.autograd.grad(value, slope)
    least = float(value.detach())
    # 5 standard errors: the gradient's terms scatter by about 2 * error * noisy.
    total = math.sqrt(level * variance + 1 - level)
    assert abs(float(gradient)) < 5 * 2 * least**0.5 * total / MANY**0.5
    for off in (-0.1, 0.1):
        assert float(loss(slope.detach() + off)) > least


def folded(generator, items, side=8):
    """White noise as folded images of `side` x `side` camera px."""
    return normal(generator, items, 16, side, side)


def test_sums_of_independent_pixels_count_by_their_footprint():
    """Of n independent errors of unit variance the sum has variance n; 5 standard errors."""
    error, sums = folded(torch.Generator().manual_seed(6), 4000), Sums(0.5, 12.5)
    # Each of the two terms expects 1 / footprint; 4,000 tiles and 16,000 squares of one each.
    scatter = 0.5 / 12.5 * math.sqrt(2 / 4000 + 2 / 16_000)
    assert float(sums.loss(error)) == pytest.approx(0.5 * 2 / 12.5, abs=5 * scatter)


def test_sums_weigh_errors_of_one_sign_by_how_many_pixels_share_them():
    one_sign = torch.full((3, 16, 8, 8), 0.1, dtype=torch.float64)
    wanted = 0.1**2 * (256 + 1024) / 12.5
    assert float(Sums(1.0, 12.5).loss(one_sign)) == pytest.approx(wanted)
    # Squares of 4 x 4 px; a tile smaller than that is one square.
    assert float(Sums(1.0, 1.0).loss(one_sign[..., :3, :3])) == pytest.approx(0.01 * 2 * 144)
    alternating = one_sign * torch.tensor([1.0, -1.0]).repeat(8)[:, None, None]
    assert float(Sums(1.0, 12.5).loss(alternating)) == pytest.approx(0, abs=1e-12)


def test_sums_leave_the_best_network_as_it_is():
    """Tiles of one brightness each, N(0, 1): the ideal denoiser has no gradient, others cost."""
    level, tiles, side = float(gamma_of_sigma(torch.tensor(3.0).double())), 4000, 4
    gamma = torch.full((tiles,), level, dtype=torch.float64)
    a, pixels = math.sqrt(level), 16 * side**2
    # All pixels share y_0, so the mean of y_t is all that is known of it.
    ideal = a * pixels / (1 - level + pixels * level)

    def loss(slope):
        generator = torch.Generator().manual_seed(7)
        clean = normal(generator, tiles, 1, 1, 1).expand(tiles, 16, side, side)

        def network(noisy, _):
            return slope * noisy.mean((1, 2, 3), keepdim=True).expand_as(noisy)

        return denoising_loss(network, "clean", clean, gamma, generator, "L2", Sums(0.5, 12.5))

    slope = torch.tensor(ideal, dtype=torch.float64, requires_grad=True)
    value = loss(slope)
    (gradient,) = torch.autograd.grad(value, slope)
    # 5 standard errors: a tile's gradient is (1 + sums) * 2 * error * mean of y_t.
    known = level + (1 - level) / pixels
    factor = 1 + 0.5 * 2 * pixels / 12.5
    scatter = factor * 2 * math.sqrt((1 - ideal * a) * known / tiles)
    assert abs(float(gradient)) < 5 * scatter
    for off in (-0.1 * ideal, 0.1 * ideal):
        assert float(loss(slope.detach() + off)) > float(value.detach())


def test_l1_learns_the_median_and_l2_the_mean():
    """Of an emitter that is there with probability 0.3, L1 draws nothing, L2 0.3."""
    generator = torch.Generator().manual_seed(4)
    clean = (torch.rand((MANY, 1), generator=generator) < 0.3).double()
    gamma = torch.full((MANY,), 1e-8, dtype=torch.float64)  # nothing of the image is seen

    def best(norm):
        candidates = torch.linspace(0, 1, 21).tolist()
        losses = [
            float(
                denoising_loss(
                    lambda noisy, _, c=c: torch.full_like(noisy, c),
                    "clean",
                    clean,
                    gamma,
                    torch.Generator().manual_seed(5),
                    norm,
                )
            )
            for c in candidates
        ]
        return candidates[int(np.argmin(losses))]

    assert best("L1") == 0.0
    assert best("L2") == pytest.approx(0.3, abs=0.026)


def test_the_energy_loss_is_that_of_pixels_patches_image_and_masses(torch_rng):
    draws, truth = normal(torch_rng, 3, 4, 5, 6), normal(torch_rng, 4, 5, 6)
    cut = [(np.s_[..., i : i + 2, j : j + 2]) for i in (0, 2) for j in (0, 2, 4)]
    patches = torch.stack(
        [fair_energy_score(draws[c].flatten(2), truth[c].flatten(1)) for c in cut]
    )
    masses = torch.stack([fair_crps(draws[c].sum((2, 3)), truth[c].sum((1, 2))) for c in cut])
    whole = fair_energy_score(draws.flatten(2), truth.flatten(1))
    mass = fair_crps(draws.sum((2, 3)), truth.sum((1, 2)))
    wanted = (
        fair_crps(draws, truth).mean()
        + (patches.mean() + masses.mean() * 4 / 7.0) / 2
        + (whole.mean() + mass.mean() * 4 / 7.0) / 30**0.5
    )
    torch.testing.assert_close(energy_loss(draws, truth, 7.0, 2), wanted)


def test_the_energy_loss_teaches_a_generator_the_spread(torch_rng):
    scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([scale], 0.05)
    for _ in range(150):
        optimizer.zero_grad()
        truth = 1.7 * normal(torch_rng, 500, 2, 2)
        energy_loss(scale * normal(torch_rng, 4, 500, 2, 2), truth, 4.0, 2).backward()
        optimizer.step()
    assert abs(float(scale.detach())) == pytest.approx(1.7, rel=0.05)
