"""Noise schedules: where they end, and that both ways to add noise agree."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from conftest import ROOT
from sureloc.diffusion.denoisers import (
    clean_estimate,
    from_residual,
    regression_target,
    to_residual,
)
from sureloc.diffusion.noise import white_noise
from sureloc.diffusion.schedules import (
    betas_of_levels,
    cosine,
    diffuse,
    diffuse_by_steps,
    even_log_snr,
    gamma_of_sigma,
    karras,
    kept_by_start_at_noise,
    last_beta_for,
    levels_from,
    levels_of_betas,
    levels_of_sigmas,
    linear_beta,
    log_normal_gamma,
    log_snr_of_gamma,
    piecewise_uniform_gamma,
    sigma_of_gamma,
    terminal_gamma,
    terminal_kl_bits,
    thinned,
)
from sureloc.errors import InputError
from sureloc.networks.weights import Card, ListLevels, LogSnrLevels

SCHEDULES = {
    "printed": linear_beta(),
    "DDPM": linear_beta(1000, 1e-4, 2e-2),
    "cosine": cosine(100),
    "karras": karras(8, 0.03, 40.0, 7.0),
    "even": even_log_snr(12, 0.1, 20.0),
    "thinned": thinned(linear_beta(), 7),
}


# --- Levels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
def test_levels_rise_from_noise_to_image_and_are_what_their_betas_make(name):
    levels = SCHEDULES[name]
    assert levels.dtype == torch.float64
    assert ((levels > 0) & (levels < 1)).all()
    assert (levels.diff() > 0).all()
    torch.testing.assert_close(levels_of_betas(betas_of_levels(levels)), levels, rtol=1e-9, atol=0)


def test_coordinates_of_a_level_can_be_undone():
    sigma = torch.logspace(-2, 2, 30, dtype=torch.float64)
    gamma = gamma_of_sigma(sigma)
    torch.testing.assert_close(sigma_of_gamma(gamma), sigma, rtol=1e-10, atol=0)
    torch.testing.assert_close(log_snr_of_gamma(gamma), -2 * sigma.log(), rtol=0, atol=1e-10)


def test_linear_betas_begin_and_end_where_they_are_told():
    betas = betas_of_levels(linear_beta(50, 1e-3, 0.3))
    assert (betas[0].item(), betas[-1].item()) == pytest.approx((1e-3, 0.3), rel=1e-9)
    assert betas.diff().std() < 1e-12


def test_cosine_levels_are_those_of_nichol_and_dhariwal():
    # Their eq. 17: f(t) / f(0) until the last step, whose beta is held at 0.999.
    steps, offset = 100, 0.008
    levels = cosine(steps).flip(0)
    f = [math.cos((t / steps + offset) / (1 + offset) * math.pi / 2) ** 2 for t in range(steps + 1)]
    for t in (1, 30, 99):
        assert levels[t - 1].item() == pytest.approx(f[t] / f[0], rel=1e-9)
    assert (levels[-1] / levels[-2]).item() == pytest.approx(1 - 0.999, rel=1e-9)


@pytest.mark.parametrize("rho", [1.0, 7.0, math.inf])
def test_karras_levels_end_at_their_sigmas_and_are_even_in_the_root(rho):
    sigma = sigma_of_gamma(karras(9, 0.03, 40.0, rho))
    assert (sigma[0].item(), sigma[-1].item()) == pytest.approx((40.0, 0.03), rel=1e-9)
    root = sigma.log() if rho == math.inf else sigma ** (1 / rho)
    assert root.diff().std() < 1e-9


def test_one_level_is_the_noisiest():
    assert sigma_of_gamma(karras(1, 0.1, 30.0, 7.0)).tolist() == pytest.approx([30.0])


def test_thinned_levels_keep_ends_and_places():
    levels = linear_beta(101)
    torch.testing.assert_close(thinned(levels, 101), levels, rtol=1e-9, atol=0)
    torch.testing.assert_close(thinned(levels, 11), levels[::10], rtol=1e-9, atol=0)


def test_a_card_can_name_any_list_of_levels():
    sigmas = (80.0, 12.0, 5.0, 0.7, 0.3)
    named = ListLevels(kind="list", sigmas=sigmas)
    assert torch.equal(named.levels(5), gamma_of_sigma(torch.tensor(sigmas, dtype=torch.float64)))
    # Other lengths: ln sigma between the places of the list, which itself is nowhere even.
    more = sigma_of_gamma(named.levels(9))
    assert more[::2].tolist() == pytest.approx(sigmas)
    assert more[1::2].tolist() == pytest.approx(
        [math.sqrt(a * b) for a, b in pairwise(sigmas)], rel=1e-9
    )
    assert sigma_of_gamma(named.levels(3)).tolist() == pytest.approx([80.0, 5.0, 0.3])
    assert sigma_of_gamma(named.levels(1)).tolist() == pytest.approx([80.0])


def test_a_card_can_name_levels_that_are_even_in_log_snr():
    named = LogSnrLevels(kind="log_snr", sigma_min=0.1, sigma_max=20.0)
    assert torch.equal(named.levels(12), SCHEDULES["even"])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: levels_from([]),
        lambda: levels_from([0.5, 0.5]),
        lambda: levels_from([0.0, 0.5]),
        lambda: levels_of_sigmas([0.3, 50.0]),
        lambda: levels_of_sigmas([50.0, 1e-9]),
        lambda: karras(0, 0.1, 1.0, 7.0),
        lambda: karras(4, 1.0, 0.1, 7.0),
        lambda: karras(4, 0.1, 1.0, 0.0),
        lambda: thinned(linear_beta(), 1),
        lambda: last_beta_for(5.0),
        lambda: white_noise(torch.zeros(2, 3), [torch.Generator()]),
    ],
)
def test_impossible_levels_are_refused(wrong):
    with pytest.raises(InputError):
        wrong()


# --- The forward process ------------------------------------------------------------------------


def test_the_forward_process_by_steps_and_in_closed_form_agree(torch_rng):
    levels, count = linear_beta(20, 1e-3, 0.2), 100_000
    clean = torch.tensor([1.7, -0.4]).double().repeat(count, 1)
    gamma = float(levels[0])
    steps = diffuse_by_steps(clean, levels, torch_rng)
    closed = diffuse(clean, gamma, white_noise(clean, torch_rng))
    for y in (steps, closed):
        # 5 standard errors of a mean and of a variance; seed eqs. 6 and 8.
        wanted = math.sqrt(gamma) * clean[0]
        torch.testing.assert_close(y.mean(0), wanted, rtol=0, atol=5 / count**0.5)
        variance = torch.full((2,), 1 - gamma).double()
        torch.testing.assert_close(y.var(0), variance, rtol=5 * (2 / count) ** 0.5, atol=0)
        assert abs(float(y.T.corrcoef()[0, 1])) < 5 / count**0.5


def test_each_item_can_have_its_own_level(torch_rng):
    clean, noise = torch.randn((2, 3, 4, 5), generator=torch_rng).double()
    gamma = torch.tensor([0.2, 0.5, 0.9]).double()
    together = diffuse(clean, gamma, noise)
    for i, level in enumerate(gamma.tolist()):
        alone = diffuse(clean[i : i + 1], level, noise[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


def test_noise_of_an_item_does_not_depend_on_its_batch():
    def generators(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    both = white_noise(torch.zeros(2, 3), generators(1, 2))
    assert torch.equal(both[1:], white_noise(torch.zeros(1, 3), generators(2)))


@pytest.mark.parametrize("target", ["epsilon", "clean", "preconditioned"])
def test_the_right_output_gives_the_clean_image_back(target, torch_rng):
    clean, noise = torch.randn((2, 4, 6), generator=torch_rng).double()
    for level in (0.001, 0.4, 0.98):
        gamma = torch.full((4,), level, dtype=torch.float64)
        raw = regression_target(target, clean, noise, gamma)
        found = clean_estimate(target, diffuse(clean, gamma, noise), level, raw)
        torch.testing.assert_close(found, clean, rtol=0, atol=1e-9)
    residual = to_residual(clean, noise, 0.3)
    torch.testing.assert_close(from_residual(residual, noise, 0.3), clean)


def test_the_preconditioned_output_has_unit_variance_at_every_level(torch_rng):
    clean, noise = torch.randn((2, 5, 50_000), generator=torch_rng).double()
    gamma = torch.tensor([1e-4, 0.1, 0.5, 0.9, 1 - 1e-4]).double()
    variance = regression_target("preconditioned", clean, noise, gamma).var(1)
    assert (variance - 1).abs().max() < 5 * (2 / 50_000) ** 0.5


# --- Levels to train at -------------------------------------------------------------------------


def test_piecewise_uniform_levels_fill_each_piece_alike_and_evenly(torch_rng):
    levels, count = linear_beta(10, 1e-3, 0.2), 100_000
    gamma = piecewise_uniform_gamma(levels, count, torch_rng)
    edges = torch.cat([levels, levels.new_ones(1)])
    piece = torch.bucketize(gamma, edges) - 1
    assert ((piece >= 0) & (piece < 10)).all()
    share = torch.bincount(piece, minlength=10) / count
    # 5 standard errors of a share of 1/10, and of the mean of a uniform variable.
    assert (share - 0.1).abs().max() < 5 * (0.1 * 0.9 / count) ** 0.5
    place = (gamma - edges[piece]) / (edges[piece + 1] - edges[piece])
    for i in range(10):
        inside = place[piece == i]
        assert abs(float(inside.mean()) - 0.5) < 5 / (12 * len(inside)) ** 0.5
        assert float(inside.std()) == pytest.approx(12**-0.5, rel=0.03)


def test_log_normal_levels_have_their_moments_and_meet_each_part_once(torch_rng):
    gamma = log_normal_gamma(0.4, 1.8, 1000, torch_rng)
    normal = (-0.5 * torch.logit(gamma) - 0.4) / 1.8
    # Stratified: much nearer than by chance, but for the tails cut at 1e-4.
    assert float(normal.mean()) == pytest.approx(0.0, abs=0.003)
    assert float(normal.std()) == pytest.approx(1.0, abs=0.01)
    part = (torch.special.ndtr(normal) * 1000).clamp(0.5, 999.5)
    # The bounds of a part are met but for rounding (the order is drawn in float32).
    assert (part.sort().values - torch.arange(1000) - 0.5).abs().max() < 0.51


# --- Where they end -----------------------------------------------------------------------------


def test_the_printed_schedule_does_not_end_in_noise():
    gamma = float(linear_beta(100, 1e-4, 1e-2)[0])
    assert gamma == pytest.approx(0.60248, abs=5e-6)
    assert terminal_kl_bits(gamma) == pytest.approx(0.67, abs=0.005)  # the seed (4.2) says 1e-5
    authors = float(linear_beta(100, 1e-6, 1e-2)[0])
    assert authors == pytest.approx(0.60548, abs=5e-6)
    assert terminal_kl_bits(authors) == pytest.approx(0.67, abs=0.005)


def test_the_schedules_that_are_right_do():
    ddpm = float(SCHEDULES["DDPM"][0])
    assert ddpm == pytest.approx(4.0e-5, rel=0.02)
    assert terminal_kl_bits(ddpm) == pytest.approx(2.9e-5, rel=0.01)
    card = Card.model_validate_json((ROOT / "src/sureloc/weights/default.json").read_text())
    shipped = float(card.levels.levels(card.draws.evaluations)[0])
    assert shipped < 0.01
    assert terminal_kl_bits(shipped) < 1e-3


@pytest.mark.parametrize("mean_square", [0.78, 1.0])
@pytest.mark.parametrize("gamma", [0.6, 1e-3])
def test_the_divergence_is_that_of_the_normal_distributions(gamma, mean_square):
    # The formula of all textbooks, for a mode of y_0 = sqrt(mean_square): its average over y_0.
    here = torch.distributions.Normal(math.sqrt(gamma * mean_square), math.sqrt(1 - gamma))
    wanted = torch.distributions.kl_divergence(here, torch.distributions.Normal(0.0, 1.0))
    assert terminal_kl_bits(gamma, mean_square) * math.log(2) == pytest.approx(
        float(wanted), rel=1e-3
    )


def test_the_claim_of_the_seed_can_be_kept_with_100_steps():
    assert terminal_gamma(1e-5) == pytest.approx(1.39e-5, rel=0.005)
    last = last_beta_for(1e-5)
    assert last == pytest.approx(0.2075, abs=5e-5)
    assert terminal_kl_bits(float(linear_beta(100, 1e-4, last)[0])) == pytest.approx(1e-5, rel=1e-6)


def test_the_page_on_schedules_says_what_the_code_gives():
    card = Card.model_validate_json((ROOT / "src/sureloc/weights/default.json").read_text())
    levels = {
        "as printed": linear_beta(100, 1e-4, 1e-2),
        "the authors": linear_beta(100, 1e-6, 1e-2),
        "1000 steps": linear_beta(1000, 1e-4, 2e-2),
        "100 steps": linear_beta(100, 1e-4, last_beta_for(1e-5)),
        "cosine": cosine(100),
        "shipped": card.levels.levels(card.draws.evaluations),
    }
    page = (ROOT / "docs/schedules.md").read_text().splitlines()
    for start, schedule in levels.items():
        (line,) = [line for line in page if line.startswith(f"| {start}")]
        gamma = float(schedule[0])
        wanted = [f"{gamma:#.3g}", f"{terminal_kl_bits(gamma):#.3g}"]
        wanted += [
            "{:#.3g} ({:#.3g})".format(
                *(kept_by_start_at_noise(gamma, v, s) for s in (False, True))
            )
            for v in (0.1, 3.6)
        ]
        assert [cell.strip() for cell in line.split("|")[2:-1]] == wanted
