"""Widths, density and photons from all light: gradients, and learning where emitters crowd."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from sureloc.localize.evidence import Evidence, Width, frame_evidence, newton_step
from sureloc.localize.frames import Effort, Proposals, frame_posterior
from sureloc.physics.priors import PhotonPrior, ScenePrior
from sureloc.physics.referee import FrameData, PosteriorDraws

SHAPE = (24, 28)
BACKGROUND = 8.0


def picture(emitters, sigma_px, background=BACKGROUND):
    def shares(at, sigma, size):
        return np.diff(special.ndtr((np.arange(size + 1) - 0.5 - at[:, None]) / sigma), axis=1)

    x, y, photons = np.asarray(emitters, float).T
    along_x, along_y = shares(x, sigma_px[0], SHAPE[1]), shares(y, sigma_px[1], SHAPE[0])
    return background + (along_y * photons[:, None]).T @ along_x


def draws_of(emitters, copies=1):
    x, y, photons = np.asarray(emitters, float).T
    number = np.full(copies, len(x))
    zero = np.zeros(SHAPE)
    tally = np.zeros(8, np.int64)
    rows = [np.tile(values, (copies, 1)) for values in (x, y, photons)]
    knots = np.full((copies, 2, 2), BACKGROUND)
    return PosteriorDraws(*rows, number, knots, zero, zero, tally, tally)


PHOTONS = PhotonPrior.log_normal(600.0, 0.3)


def evidence_of(data, draws, sigma_px, expected=3.0, photons=PHOTONS):
    return frame_evidence(data, draws, sigma_px, draws.present, expected, photons)


EMITTERS = [(8.2, 9.1, 700.0), (9.9, 10.4, 900.0), (19.0, 15.3, 500.0)]


@pytest.mark.parametrize("excess_noise", [1.0, 2.0])
def test_the_gradient_is_that_of_the_likelihood(rng, excess_noise):
    variance = rng.uniform(1.0, 9.0, SHAPE)
    electrons = rng.poisson(picture(EMITTERS, (1.3, 1.2))).astype(float)
    ignore = np.zeros(SHAPE, bool)
    ignore[9, 8] = True
    data = FrameData(electrons, variance, excess_noise, ignore)
    sigma = (1.25, 1.3)
    found = evidence_of(data, draws_of(EMITTERS), sigma)

    def log_likelihood(a, b):
        rate = picture(EMITTERS, (sigma[0] * math.exp(a), sigma[1] * math.exp(b)))
        shifted, mean = electrons + variance / excess_noise, rate + variance / excess_noise
        terms = (shifted * np.log(mean) - mean) / excess_noise
        return terms[~ignore].sum()

    h = 1e-4
    wanted = [
        (log_likelihood(h, 0) - log_likelihood(-h, 0)) / (2 * h),
        (log_likelihood(0, h) - log_likelihood(0, -h)) / (2 * h),
    ]
    np.testing.assert_allclose(found.gradient[:2], wanted, rtol=1e-5)
    np.testing.assert_array_equal(found.missing, 0.0)


def test_the_information_is_the_variance_of_the_gradient(rng):
    sigma, variance = (1.3, 1.2), np.full(SHAPE, 4.0)
    image = picture(EMITTERS, sigma)
    gradients = []
    for _ in range(3000):
        shifted = rng.poisson(image + 4.0) - 4.0
        one = evidence_of(FrameData(shifted.astype(float), variance), draws_of(EMITTERS), sigma)
        gradients.append(one.gradient[:2])
    scatter = np.cov(np.array(gradients).T)
    # Four standard errors of a variance of 3,000 values: 4 sqrt(2 / 3000) = 0.10.
    np.testing.assert_allclose(np.diag(scatter), np.diag(one.complete)[:2], rtol=0.10)
    assert scatter[0, 1] == pytest.approx(
        one.complete[0, 1], abs=0.08 * math.sqrt(np.prod(np.diag(one.complete)[:2]))
    )


def test_gradient_and_information_of_density_and_photons_are_those_of_their_likelihood(rng):
    # n ~ Poisson(expected e^a), logarithms ~ Normal(middle + b, sd): by a and b at 0.
    expected, sd = 7.0, 0.3
    found = []
    for _ in range(4000):
        n = rng.poisson(expected)
        emitters = [(9.0, 9.0, 600.0 * math.exp(sd * z)) for z in rng.normal(size=n)]
        emitters = emitters or [(9.0, 9.0, 600.0)]
        draws = draws_of(emitters)
        counted = draws.present if n else np.zeros_like(draws.present)
        data = FrameData(np.full(SHAPE, BACKGROUND), np.ones(SHAPE))
        found.append(frame_evidence(data, draws, (1.2, 1.2), counted, expected, PHOTONS))
    gradients = np.array([one.gradient[2:] for one in found])
    complete = np.mean([one.complete[2:, 2:] for one in found], axis=0)
    np.testing.assert_allclose(np.diag(complete), [expected, expected / sd**2], rtol=0.02)
    # Four standard errors of means and variances of 4,000 values.
    assert (np.abs(gradients.mean(0)) < 4 * np.sqrt(np.diag(complete) / 4000)).all()
    np.testing.assert_allclose(gradients.var(0), np.diag(complete), rtol=4 * math.sqrt(3 / 4000))


def evidence(gradient, complete, missing):
    return Evidence(np.array(gradient, float), np.diag(complete), np.diag(missing))


STILL = (0.0, 0.0)


def test_a_newton_step_ends_where_prior_and_evidence_agree():
    first = Width((1.2, 1.2), (0.05, 0.05))
    information = [1200.0, 400.0, 50.0, 80.0]
    one = evidence([60.0, 0.0, 9.0, 9.0], information, [400.0, 0.0, 25.0, 0.0])
    found, emitters = newton_step(first, first, [one], STILL)
    # 800 of information is left along columns, 400 along rows; the prior adds 400.
    assert math.log(found.sigma_px[0] / 1.2) == pytest.approx(60.0 / 1200.0)
    assert found.sigma_px[1] == pytest.approx(1.2)
    assert found.log_error == pytest.approx((1200.0**-0.5, 800.0**-0.5))
    assert emitters == pytest.approx(STILL)
    # Two frames tell twice as much; a prior away from the present width pulls.
    both, _ = newton_step(first, first, [one, one], STILL)
    assert both.log_error[0] < found.log_error[0]
    quiet = evidence([0.0] * 4, information, [0.0] * 4)
    pulled, _ = newton_step(first, Width((1.26, 1.2), (0.05, 0.05)), [quiet], STILL)
    assert 1.2 < pulled.sigma_px[0] < 1.26
    # However uncertain emitters are, a fifth of the information is left, and steps are short.
    lost = evidence([1e5, 0.0, 0.0, 0.0], information, [12000.0, 4000.0, 500.0, 800.0])
    far, emitters = newton_step(first, first, [lost], (0.01, 0.2))
    assert math.log(far.sigma_px[0] / 1.2) == pytest.approx(0.1)
    assert far.log_error[0] == pytest.approx((0.2 * 1200.0 + 400.0) ** -0.5)
    assert emitters == pytest.approx((0.05, 0.3))
    # Known widths stay, and half of the information on density is left.
    known, emitters = newton_step(Width((1.2, 1.2)), Width((1.2, 1.2)), [one], (0.04, 0.05))
    assert known == Width((1.2, 1.2))
    assert emitters == pytest.approx((0.08, 0.05))


def test_a_newton_step_moves_at_once_what_emitters_can_stand_in_for():
    # More, fainter emitters look as fewer, brighter ones: the gradients of both go together.
    first = Width((1.2, 1.2))
    complete = np.diag([1.0, 1.0, 100.0, 100.0])
    missing = np.zeros((4, 4))
    missing[2:, 2:] = 40.0 * np.array([[1.0, -0.9], [-0.9, 1.0]])
    one = Evidence(np.zeros(4), complete, missing)
    moved = np.array([0.02, -0.02])
    _, instead = newton_step(first, first, [one], (0.02, -0.02))
    wanted = np.linalg.solve(complete[2:, 2:] - missing[2:, 2:], 100.0 * moved)
    assert instead == pytest.approx(tuple(wanted))
    assert instead[0] > 4 * moved[0]


def scene(rng, density, photons, crops):
    pieces = []
    for _ in range(crops):
        number = rng.poisson(density * SHAPE[0] * SHAPE[1])
        places = rng.uniform(-0.5, [SHAPE[1] - 0.5, SHAPE[0] - 0.5], (number, 2))
        light = photons.sample(number, rng)
        image = picture(np.column_stack([places, light]), (1.3, 1.3))
        pieces.append(FrameData(rng.poisson(image).astype(float), np.full(SHAPE, 0.01)))
    return pieces


def drawn(pieces, prior, width, starts, turn):
    effort = Effort(1, 40.0, 20, 2.0, rounds=1)
    return [
        frame_posterior(
            piece, prior, width.sigma_px, Proposals([start]), effort, turn, k, 0.5
        ).draws
        for k, (piece, start) in enumerate(zip(pieces, starts, strict=True))
    ]


def test_the_width_is_found_where_emitters_crowd(rng):
    prior = ScenePrior(0.03, PHOTONS, BACKGROUND, 0.3, 2.0)
    pieces = scene(rng, 0.03, PHOTONS, 12)
    first = width = Width((1.15, 1.45), (0.1, 0.1))
    starts = [np.empty((0, 3))] * len(pieces)
    expected = 0.03 * SHAPE[0] * SHAPE[1]
    for turn in range(6):
        found = drawn(pieces, prior, width, starts, turn)
        starts = [draws.last for draws in found]
        told = [
            evidence_of(piece, draws, width.sigma_px, expected)
            for piece, draws in zip(pieces, found, strict=True)
        ]
        width, _ = newton_step(first, width, told, STILL)
    for sigma, error in zip(width.sigma_px, width.log_error, strict=True):
        assert error < 0.02
        # Four of its standard errors; both widths began 12 % off.
        assert math.log(sigma / 1.3) == pytest.approx(0.0, abs=4 * error)


def test_all_light_that_contradicts_lone_spots_says_so():
    lone = Width((1.182, 1.182), (0.038, 0.038))
    said = Width((1.289, 1.289), (0.0077, 0.0077)).disagreement(lone)
    assert said.startswith("That is 9 % wider than lone spots are, 3.3 standard errors apart")
    assert "--sigma-px 1.18 " in said
    assert Width((1.24, 1.24), (0.0077, 0.0077)).disagreement(lone) == ""
    assert " 9 % narrower " in Width((1.075, 1.075), (0.005, 0.005)).disagreement(lone)
