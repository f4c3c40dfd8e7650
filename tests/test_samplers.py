"""Samplers on data whose denoiser is known: variances, weights, orders, and a second opinion."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from conftest import ROOT
from sureloc.diffusion import samplers
from sureloc.diffusion.denoisers import denoiser_of
from sureloc.diffusion.ideal import gaussian_denoiser, mixture_denoiser, variance_kept
from sureloc.diffusion.level_search import (
    MODES,
    START_BITS,
    sigmas_that_keep_variance,
    variance_error,
)
from sureloc.diffusion.noise import white_noise
from sureloc.diffusion.samplers import Sampler, ancestral, ddim, dpm_solver_2m, heun, unipc
from sureloc.diffusion.schedules import (
    even_log_snr,
    gamma_of_sigma,
    karras,
    kept_by_start_at_estimate,
    kept_by_start_at_noise,
    linear_beta,
    sigma_of_gamma,
    terminal_kl_bits,
)
from sureloc.errors import InputError
from sureloc.networks.posterior import Sampling, SeenTiles, draw_images
from sureloc.networks.weights import Card, ListLevels
from test_networks import small_networks
from test_search import Ideal

DETERMINISTIC = {"ddim": ddim, "dpm_solver_2m": dpm_solver_2m, "unipc": unipc, "heun": heun}
ALL = DETERMINISTIC | {"ancestral": ancestral}
VARIANCES = torch.tensor([0.1, 1.0, 3.6, 20.0, 100.0], dtype=torch.float64)
DRAWS = 20_000
# Of the relative error of a variance of so many draws.
FIVE_SE = 5 * (2 / DRAWS) ** 0.5

SHIPPED = Card.model_validate_json((ROOT / "src/sureloc/weights/default.json").read_text())
SHIPPED_LEVELS = SHIPPED.levels.levels(SHIPPED.draws.evaluations)
SHIPPED_SAMPLER = getattr(samplers, SHIPPED.draws.sampler)


def kept(sampler, levels, variances=VARIANCES, start_variance=1.0):
    generator = torch.Generator().manual_seed(7)
    draws = DRAWS if sampler is ancestral else 2  # exact for all others
    return variance_kept(sampler, levels, variances, generator, draws, start_variance)


@pytest.mark.parametrize("name", ALL)
def test_every_sampler_is_a_sampler(name):
    assert isinstance(ALL[name], Sampler)


# --- Variance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_with_many_steps_every_sampler_gives_the_true_variance(name):
    # From sigma 1000 to 0.01 nothing is lost at the ends: 1e-4 / lambda at most.
    steps = {"ancestral": 300, "ddim": 800}.get(name, 90)
    share = kept(ALL[name], even_log_snr(steps, 0.01, 1000.0))
    # First-order samplers fall short by about half of ln(1e5) / steps times a number of order 1.
    tolerance = {"ancestral": 0.04 + FIVE_SE, "ddim": 0.02}.get(name, 0.01)
    assert (share - 1).abs().max() < tolerance


@pytest.mark.parametrize("sampler", [ancestral, ddim])
def test_first_order_samplers_are_too_narrow_and_halve_that_with_twice_the_steps(sampler):
    few, more = (1 - kept(sampler, even_log_snr(n + 1, 0.01, 1000.0)) for n in (60, 120))
    wide = VARIANCES > 10  # of narrower modes the ancestral sampler's "beta" draws more again
    assert (few[wide] > 0.05).all()
    half = torch.full((2,), 0.5).double()
    # A chance of 0.01 on each of two numbers of about 0.2 and 0.1.
    torch.testing.assert_close((more / few)[wide], half, rtol=0.25, atol=0)


def test_at_few_steps_samplers_keep_what_is_known():
    # The shipped ends, lambda 3.6 to 100: a spot uncertain by 1.2 fine px and more.
    def between(name, evaluations, low, high):
        count = (evaluations + 1) // 2 if name == "heun" else evaluations
        share = kept(ALL[name], karras(count, 0.3, 50.0, 7.0))[2:]
        assert low < float(share.min())
        assert float(share.max()) < high

    between("ancestral", 6, 0.44, 0.66)
    between("ancestral", 8, 0.53, 0.73)
    between("ddim", 6, 0.54, 0.63)
    between("ddim", 8, 0.64, 0.71)
    between("dpm_solver_2m", 6, 0.95, 1.13)
    between("dpm_solver_2m", 8, 1.00, 1.10)
    between("heun", 15, 1.05, 1.17)


def test_ancestral_variances_are_right_for_the_data_that_they_are_meant_for():
    levels = karras(8, 0.03, 40.0, 7.0)
    white = torch.ones(1, dtype=torch.float64)
    # N(0, I) for any step: but for the last one, which adds no noise (sigma^2 = 9e-4).
    assert float(kept(ancestral, levels, white)) == pytest.approx(1.0, abs=FIVE_SE + 1e-3)

    def posterior(denoiser, start, levels, generator):
        return ancestral(denoiser, start, levels, generator, "posterior")

    # A single image: what of the noise is left at each level is right, so that
    # y_t ~ N(0, 1 - gamma) all along; seen at the level before the last.
    seen = []

    def one_image(noisy, gamma):
        seen.append((float(noisy.var()), gamma))
        return torch.zeros_like(noisy)

    generator = torch.Generator().manual_seed(7)
    start = torch.randn((DRAWS, 1), generator=generator, dtype=torch.float64)
    posterior(one_image, start, levels, generator)
    for variance, gamma in seen:
        assert variance == pytest.approx(1 - gamma, rel=FIVE_SE)


def test_the_shipped_way_to_draw_gives_the_right_variance():
    # lambda in units of the mean square residual of a pixel: 1 is white noise of that size, and
    # modes of frames with emitters are larger. Deterministic, so that the tolerance is the law's.
    modes = torch.logspace(0.0, math.log10(390.0), 300, dtype=torch.float64)
    assert (kept(SHIPPED_SAMPLER, SHIPPED_LEVELS, modes) - 1).abs().max() < 0.05
    regular = karras(8, 0.255, 51.0, 7.0)
    assert (kept(SHIPPED_SAMPLER, regular, modes) - 1).abs().max() > 0.07


def page_rows():
    page = (ROOT / "docs/schedules.md").read_text().splitlines()
    rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in page if line[:1] == "|")
    return {name: cells for name, *cells in rows}


def test_the_page_on_schedules_says_what_the_shipped_way_keeps():
    row = page_rows()
    modes = torch.tensor([float(cell) for cell in row["lambda"]], dtype=torch.float64)
    share = kept(SHIPPED_SAMPLER, SHIPPED_LEVELS, modes).tolist()
    assert row["kept"] == [f"{value:.2f}" for value in share]


# --- Levels that keep the variance of every mode ------------------------------------------------

# The law of the issue that no regular spacing of 8 levels keeps: 1 +- .05 over all of these.
LAW = 0.05


@pytest.fixture(scope="module")
def found():
    """Give the 8 levels, the last one .1 or more, that are best for the shipped sampler."""
    return sigmas_that_keep_variance(SHIPPED_SAMPLER, 8, last_sigma=0.1)


def test_levels_that_are_searched_for_keep_the_variance_of_every_mode(found):
    named = ListLevels(kind="list", sigmas=found).levels(8)
    modes = torch.logspace(*(math.log10(end) for end in MODES), 300, dtype=torch.float64)
    share = kept(SHIPPED_SAMPLER, named, modes)
    assert (share - 1).abs().max() < LAW / 20
    assert variance_error(SHIPPED_SAMPLER, found) == pytest.approx(
        float((share - 1).abs().max()), abs=1e-5
    )
    # Neither the shipped spacing nor any other with the same ends does so.
    for rho in (3.0, 5.0, 7.0, math.inf):
        spaced = sigma_of_gamma(karras(8, found[-1], found[0], rho)).tolist()
        assert variance_error(SHIPPED_SAMPLER, tuple(spaced)) > LAW


def test_levels_that_are_searched_for_keep_to_their_ends_and_are_the_same_again(found):
    assert list(found) == sorted(found, reverse=True)
    assert found[-1] >= 0.1
    gamma = float(gamma_of_sigma(torch.tensor(found[0], dtype=torch.float64)))
    assert terminal_kl_bits(gamma) <= START_BITS
    assert sigmas_that_keep_variance(SHIPPED_SAMPLER, 8, last_sigma=0.1) == found
    # No small move of a level makes the largest error smaller.
    best = variance_error(SHIPPED_SAMPLER, found)
    for i, step in itertools.product(range(7), (0.99, 1.01)):
        moved = (*found[:i], step * found[i], *found[i + 1 :])
        assert variance_error(SHIPPED_SAMPLER, moved) > 0.98 * best


def test_a_last_level_that_is_noisier_costs_variance():
    errors = []
    for last in (0.1, 0.2, 0.3):
        sigmas = sigmas_that_keep_variance(SHIPPED_SAMPLER, 6, last)
        assert sigmas[-1] >= last
        errors.append(variance_error(SHIPPED_SAMPLER, sigmas))
    assert errors == sorted(errors)
    # What the closing estimate at sigma .3 takes from lambda .5 no levels before it give back.
    assert errors[0] < 0.02
    assert errors[2] > 0.15


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 1},
        {"last_sigma": 0.0},
        {"last_sigma": 50.0},
        {"modes": (3.0, 1.0)},
    ],
)
def test_a_search_of_levels_that_has_no_room_is_refused(wrong):
    with pytest.raises(InputError, match="give 2 levels or more"):
        sigmas_that_keep_variance(dpm_solver_2m, **({"count": 4, "last_sigma": 0.1} | wrong))


def test_the_page_on_schedules_lists_levels_that_keep_what_it_says():
    rows = {name: cells for name, cells in page_rows().items() if " levels, last " in name}
    assert len(rows) == 9
    for name, (sigmas, error) in rows.items():
        listed = tuple(float(sigma) for sigma in sigmas.split(","))
        count, last = name.split(" levels, last ")
        assert (len(listed), listed[-1]) == (int(count), float(last))
        assert f"{variance_error(dpm_solver_2m, listed):.4f}" == error
    # The first is what the search gives.
    listed = [float(sigma) for sigma in rows["8 levels, last 0.1"][0].split(",")]
    assert listed == pytest.approx(sigmas_that_keep_variance(dpm_solver_2m, 8, 0.1), rel=1e-3)
    for last, narrowest in ((0.2, 0.55), (0.3, 1.2)):
        modes = (narrowest, MODES[1])
        sigmas = sigmas_that_keep_variance(dpm_solver_2m, 8, last, modes)
        assert variance_error(dpm_solver_2m, sigmas, modes) < LAW


# --- The right start ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_starting_at_noise_with_the_printed_schedule_doubles_the_variance(name):
    printed = linear_beta(100, 1e-4, 1e-2)
    gamma = float(printed[0])
    modes = torch.tensor([0.1, 0.2, 0.25], dtype=torch.float64)
    wrong = kept(ALL[name], printed, modes)
    assert float(wrong.min()) > 1.75
    assert float(wrong.max()) < 2.3
    for mode, share in zip(modes.tolist(), wrong.tolist(), strict=True):
        # The last level still has noise of sigma^2 = 1e-4; steps err by less than 2 %.
        assert share == pytest.approx(kept_by_start_at_noise(gamma, mode, False), rel=0.02)
        right = kept(ALL[name], printed, torch.tensor([mode]).double(), gamma * mode + 1 - gamma)
        assert float(right) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("start_at", ["noise", "estimate"])
@pytest.mark.parametrize("name", ["ddim", "ancestral"])
@pytest.mark.parametrize("mode", [0.1, 1.0, 3.6])
def test_what_a_start_leaves_is_the_closed_form(name, mode, start_at):
    printed = linear_beta(100, 1e-4, 1e-2)
    gamma = float(printed[0])
    formula = kept_by_start_at_noise if start_at == "noise" else kept_by_start_at_estimate
    start = 1.0 if start_at == "noise" else 1 - gamma
    share = kept(ALL[name], printed, torch.tensor([mode], dtype=torch.float64), start)
    # Steps err by up to 2 %, draws of the ancestral sampler by chance as well.
    tolerance = 0.02 + (FIVE_SE if name == "ancestral" else 0.0)
    assert float(share) == pytest.approx(formula(gamma, mode, name == "ancestral"), rel=tolerance)


def test_starting_at_noise_with_the_printed_schedule_also_forgets_the_mean():
    # A mode of mean 1, known to .1^(1/2): the start at 0 leaves (gamma lambda / total)^(1/2).
    printed, mean, mode = linear_beta(100, 1e-4, 1e-2), 1.0, 0.1
    centred = gaussian_denoiser(torch.tensor([mode], dtype=torch.float64))

    def denoiser(noisy, gamma):
        return mean + centred(noisy - math.sqrt(gamma) * mean, gamma)

    gamma = float(printed[0])
    total = gamma * mode + 1 - gamma
    start = torch.zeros((1, 1), dtype=torch.float64)
    bias = mean - float(ddim(denoiser, start, printed))
    assert bias == pytest.approx(math.sqrt(gamma * mode / total), rel=0.02)
    assert bias > mode**0.5  # more than a standard deviation


@pytest.mark.parametrize("name", ["dpm_solver_2m", "ancestral"])
@pytest.mark.parametrize("mode", [0.1, 1.0, 3.6])
def test_a_start_at_the_estimate_of_phi_mends_the_mean_and_leaves_the_closed_form(name, mode):
    """As draws are made: Psi draws images, whose mean phi knows, by the printed schedule."""
    scale, centre, yhat, draws = 0.4, 0.5, 1.3, 200
    printed = linear_beta(100, 1e-4, 1e-2)
    gamma = float(printed[0])
    psi = Ideal(mode, mean=(yhat - centre) / scale)
    psi.residual_scale.fill_(scale)
    networks = dataclasses.replace(small_networks(), psi=psi)
    estimate = torch.full((1, 16, 8, 8), yhat)
    seen = SeenTiles(estimate, estimate, torch.full_like(estimate, centre))
    generators = [torch.Generator().manual_seed(i) for i in range(draws)]

    def drawn(start_at_estimate):
        sampling = Sampling(printed, ALL[name], "float32", start_at_estimate)
        return draw_images(networks, seen, generators, sampling).double()

    share = float((drawn(True) - yhat).square().mean()) / (mode * scale**2)
    wanted = kept_by_start_at_estimate(gamma, mode, name == "ancestral")
    assert share == pytest.approx(wanted, rel=0.02 + 5 * (2 / (1024 * draws)) ** 0.5)
    se = scale * (mode / (1024 * draws)) ** 0.5
    assert float(drawn(True).mean()) == pytest.approx(yhat, abs=5 * se + 1e-3)
    assert float(drawn(False).mean()) < yhat - 0.1 * mode


# --- A mixture of known images ------------------------------------------------------------------


def known_images():
    generator = torch.Generator().manual_seed(3)
    return torch.randn((4, 3, 3), generator=generator, dtype=torch.float64)


WEIGHTS = torch.tensor([0.08, 0.2, 0.3, 0.42], dtype=torch.float64)


def shares(sampler, levels, count):
    """Give how often each image is drawn, and the largest distance of a draw from any image."""
    images = known_images()
    generator = torch.Generator().manual_seed(11)
    start = white_noise(images.new_empty((count, 3, 3)), generator)
    drawn = sampler(mixture_denoiser(images, WEIGHTS), start, levels, generator)
    away = torch.cdist(drawn.flatten(1), images.flatten(1)).min(1)
    return torch.bincount(away.indices, minlength=4) / count, away.values


@pytest.mark.parametrize("name", ALL)
def test_images_are_drawn_as_often_as_they_occur(name):
    count = 4000
    share, away = shares(ALL[name], even_log_snr(60, 0.03, 100.0), count)
    # 4 binomial standard errors, and half a per cent for the steps.
    assert ((share - WEIGHTS).abs() < 4 * (WEIGHTS * (1 - WEIGHTS) / count).sqrt() + 0.005).all()
    assert (away > 0.1).double().mean() < 0.01


def test_the_shipped_way_to_draw_draws_images_as_often_as_they_occur():
    count = 4000
    share, _ = shares(SHIPPED_SAMPLER, SHIPPED_LEVELS, count)
    # 4 binomial standard errors, and 3 % for the 8 steps.
    assert ((share - WEIGHTS).abs() < 4 * (WEIGHTS * (1 - WEIGHTS) / count).sqrt() + 0.03).all()


# --- Order of convergence -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "order"), [("ddim", 1), ("heun", 2), ("dpm_solver_2m", 2), ("unipc", 2)]
)
def test_deterministic_samplers_converge_with_their_order(name, order):
    modes = torch.tensor([0.3, 3.6], dtype=torch.float64)
    denoiser = gaussian_denoiser(modes)

    def error(steps):
        levels = even_log_snr(steps + 1, 0.1, 10.0)
        first, last = float(levels[0]), float(levels[-1])
        # The flow scales each mode as its standard deviation; then comes the last estimate.
        scale = ((last * modes + 1 - last) / (first * modes + 1 - first)).sqrt()
        wanted = denoiser(scale[None], last)
        return (ALL[name](denoiser, torch.ones_like(scale)[None], levels) - wanted).abs()[0]

    measured = (error(100) / error(200)).log2()
    torch.testing.assert_close(measured, torch.full((2,), float(order)).double(), rtol=0, atol=0.1)


# --- A second opinion ---------------------------------------------------------------------------


def toy_network(noisy, log_snr):
    """Stand in for a network that says epsilon: not linear, and different at every level."""
    slope = 1.0 / (1.0 + math.exp(0.3 * log_snr - 0.5))
    return torch.tanh(noisy * slope) + 0.1 * noisy.roll(1, -1)


def own_trajectory(sampler, start, levels):
    """Give what the denoiser saw, and then the image."""
    seen = []
    denoiser = denoiser_of(toy_network, "epsilon")

    def watched(noisy, gamma):
        seen.append(noisy)
        return denoiser(noisy, gamma)

    image = sampler(watched, start, levels)
    return [*seen, image]


def their_trajectory(scheduler, start, levels):
    gammas = levels.flip(0)
    scheduler.set_timesteps(len(levels))
    assert scheduler.timesteps.tolist() == list(range(len(levels)))[::-1]
    y, seen = start, [start]
    for t in scheduler.timesteps:
        log_snr = float(torch.logit(gammas[t]))
        y = scheduler.step(toy_network(y, log_snr), t, y).prev_sample.double()
        seen.append(y)
    return seen


def assert_same_trajectory(own, theirs):
    assert len(own) == len(theirs)
    # diffusers keeps its levels, and for DPM-Solver++ its images, in single precision.
    for ours, their in zip(own, theirs, strict=True):
        torch.testing.assert_close(ours, their, rtol=0, atol=1e-4)


@pytest.fixture
def toy_start(torch_rng):
    return torch.randn((5, 2, 4), generator=torch_rng, dtype=torch.float64)


def test_ddim_follows_the_trajectory_of_diffusers(toy_start):
    from diffusers import DDIMScheduler

    levels = linear_beta(20, 1e-3, 0.3)
    scheduler = DDIMScheduler(
        num_train_timesteps=20,
        trained_betas=np.linspace(1e-3, 0.3, 20),
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="leading",
    )
    theirs = their_trajectory(scheduler, toy_start, levels)
    assert_same_trajectory(own_trajectory(ddim, toy_start, levels), theirs)


def test_dpm_solver_follows_the_trajectory_of_diffusers(toy_start):
    from diffusers import DPMSolverMultistepScheduler

    levels = linear_beta(20, 1e-3, 0.3)
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=20,
        trained_betas=np.linspace(1e-3, 0.3, 20),
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=False,
        final_sigmas_type="zero",
        timestep_spacing="trailing",
    )
    theirs = their_trajectory(scheduler, toy_start, levels)
    assert_same_trajectory(own_trajectory(dpm_solver_2m, toy_start, levels), theirs)
    # and is not what DDIM makes of the same
    assert (own_trajectory(ddim, toy_start, levels)[-2] - theirs[-2]).abs().max() > 1e-2
