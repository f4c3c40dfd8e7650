"""The PSF's width from all light: the likelihood's gradient, and widths where emitters crowd."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from sureloc.localize.frames import Effort, frame_posterior
from sureloc.localize.width import Width, WidthEvidence, refined_width, width_evidence
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


EMITTERS = [(8.2, 9.1, 700.0), (9.9, 10.4, 900.0), (19.0, 15.3, 500.0)]


@pytest.mark.parametrize("excess_noise", [1.0, 2.0])
def test_the_gradient_is_that_of_the_likelihood(rng, excess_noise):
    variance = rng.uniform(1.0, 9.0, SHAPE)
    electrons = rng.poisson(picture(EMITTERS, (1.3, 1.2))).astype(float)
    ignore = np.zeros(SHAPE, bool)
    ignore[9, 8] = True
    data = FrameData(electrons, variance, excess_noise, ignore)
    sigma = (1.25, 1.3)
    found = width_evidence(data, draws_of(EMITTERS), sigma)

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
    np.testing.assert_allclose(found.gradient, wanted, rtol=1e-5)
    np.testing.assert_array_equal(found.missing, 0.0)


def test_the_information_is_the_variance_of_the_gradient(rng):
    sigma, variance = (1.3, 1.2), np.full(SHAPE, 4.0)
    image = picture(EMITTERS, sigma)
    gradients = []
    for _ in range(3000):
        shifted = rng.poisson(image + 4.0) - 4.0
        one = width_evidence(FrameData(shifted.astype(float), variance), draws_of(EMITTERS), sigma)
        gradients.append(one.gradient)
    scatter = np.cov(np.array(gradients).T)
    # Four standard errors of a variance of 3,000 values: 4 sqrt(2 / 3000) = 0.10.
    np.testing.assert_allclose(np.diag(scatter), np.diag(one.complete), rtol=0.10)
    assert scatter[0, 1] == pytest.approx(
        one.complete[0, 1], abs=0.08 * math.sqrt(np.prod(np.diag(one.complete)))
    )


def test_a_newton_step_ends_where_prior_and_evidence_agree():
    first = Width((1.2, 1.2), (0.05, 0.05))
    information = np.diag([1200.0, 400.0])
    evidence = WidthEvidence(np.array([60.0, 0.0]), information, np.diag([400.0, 0.0]))
    found = refined_width(first, first, [evidence])
    # 800 of information is left along columns, 400 along rows; the prior adds 400.
    assert math.log(found.sigma_px[0] / 1.2) == pytest.approx(60.0 / 1200.0)
    assert found.sigma_px[1] == pytest.approx(1.2)
    assert found.log_error == pytest.approx((1200.0**-0.5, 800.0**-0.5))
    # Two frames tell twice as much; a prior away from the present width pulls.
    both = refined_width(first, first, [evidence, evidence])
    assert both.log_error[0] < found.log_error[0]
    quiet = WidthEvidence(np.zeros(2), information, np.zeros((2, 2)))
    pulled = refined_width(first, Width((1.26, 1.2), (0.05, 0.05)), [quiet])
    assert 1.2 < pulled.sigma_px[0] < 1.26
    # However uncertain emitters are, a fifth of the information is left, and steps are short.
    lost = WidthEvidence(np.array([1e5, 0.0]), information, 10 * information)
    far = refined_width(first, first, [lost])
    assert math.log(far.sigma_px[0] / 1.2) == pytest.approx(0.1)
    assert far.log_error[0] == pytest.approx((0.2 * 1200.0 + 400.0) ** -0.5)


def test_the_width_is_found_where_emitters_crowd(rng):
    true, crops = 1.3, 12
    prior = ScenePrior(0.03, PhotonPrior.log_normal(600.0, 0.3), BACKGROUND, 0.3, 2.0)
    pieces = []
    for _ in range(crops):
        number = rng.poisson(0.03 * SHAPE[0] * SHAPE[1])
        places = rng.uniform(-0.5, [SHAPE[1] - 0.5, SHAPE[0] - 0.5], (number, 2))
        light = rng.lognormal(math.log(600.0), 0.3, number)
        image = picture(np.column_stack([places, light]), (true, true))
        pieces.append(FrameData(rng.poisson(image).astype(float), np.full(SHAPE, 0.01)))
    first = width = Width((1.15, 1.45), (0.1, 0.1))
    effort = Effort(1, 40.0, 20, 2.0, rounds=1)
    starts = [np.empty((0, 3))] * crops
    for turn in range(6):
        evidence = []
        for k, piece in enumerate(pieces):
            numbers = (turn, k, 0.5)
            found = frame_posterior(piece, prior, width.sigma_px, [starts[k]], effort, *numbers)
            starts[k] = found.draws.last
            evidence.append(width_evidence(piece, found.draws, width.sigma_px))
        width = refined_width(first, width, evidence)
    for sigma, error in zip(width.sigma_px, width.log_error, strict=True):
        assert error < 0.02
        # Four of its standard errors; both widths began 12 % off.
        assert math.log(sigma / true) == pytest.approx(0.0, abs=4 * error)
