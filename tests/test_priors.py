"""Laws of what is believed beforehand: densities integrate to 1, samples follow them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sureloc.errors import InputError
from sureloc.physics.priors import PhotonPrior, ScenePrior, hat_functions

PRIORS = {
    "uniform": (PhotonPrior.uniform(200.0, 900.0), stats.uniform(200, 700)),
    "log-normal": (PhotonPrior.log_normal(700.0, 0.5), stats.lognorm(0.5, scale=700)),
    "exponential": (PhotonPrior.exponential(300.0), stats.expon(scale=300)),
}


@pytest.mark.parametrize("name", PRIORS)
def test_samples_follow_the_distribution_that_is_named(name, rng):
    prior, exact = PRIORS[name]
    photons = prior.sample(20_000, rng)
    low, high = (exact.cdf(math.exp(prior.log_photons[k])) for k in (0, -1))
    # The table is cut off at its ends; what is left is uniform after the distribution function.
    assert high - low > 0.989
    u = (exact.cdf(photons) - low) / (high - low)
    # p = 1e-3 once in a thousand seeds; a prior that is 3 % off in scale gives 1e-5 and less.
    assert stats.kstest(u, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("name", PRIORS)
def test_moments_are_those_of_the_distribution(name):
    prior, exact = PRIORS[name]
    low, high = (math.exp(prior.log_photons[k]) for k in (0, -1))
    mean = exact.expect(lambda n: n, lb=low, ub=high, conditional=True)
    square = exact.expect(lambda n: n * n, lb=low, ub=high, conditional=True)
    # 400 cells of at most 2 % each: the trapezoidal rule is good to 1e-3.
    assert prior.mean == pytest.approx(mean, rel=1e-3)
    assert prior.sd == pytest.approx(math.sqrt(square - mean**2), rel=5e-3)
    assert np.trapezoid(np.exp(prior.log_density), prior.log_photons) == pytest.approx(1.0)


def test_an_impossible_photon_range_is_refused():
    with pytest.raises(InputError, match="photon range is 900 to 200"):
        PhotonPrior.uniform(900.0, 200.0)
    with pytest.raises(InputError, match="nowhere positive"):
        PhotonPrior.from_density(lambda u: np.full_like(u, np.nan), 1.0, 2.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"density_per_px2": -1.0}, "density_per_px2 is -1.0"),
        ({"density_per_px2": 0.0}, "density_per_px2 is 0"),
        ({"background_sd_e": math.nan}, "background_sd_e is nan"),
        ({"background_e": np.array([[1.0, -1.0]])}, "background_e must be finite"),
    ],
)
def test_an_impossible_scene_is_refused(change, message):
    values = {"density_per_px2": 0.01, "background_e": 3.0, "background_sd_e": 1.0} | change
    with pytest.raises(InputError, match=message):
        ScenePrior(photons=PhotonPrior.uniform(200.0, 900.0), **values)


def test_the_region_reaches_beyond_the_outer_pixel_edges():
    prior = ScenePrior(0.01, PhotonPrior.uniform(200.0, 900.0), 0.0, 0.0, margin_px=2.0)
    assert prior.region((10, 20)) == (-2.5, 21.5, -2.5, 11.5)


@pytest.mark.parametrize("knots", [1, 2, 5])
def test_hat_functions_reproduce_straight_lines(knots):
    weights = hat_functions(21, knots)
    assert np.allclose(weights.sum(0), 1.0)
    if knots > 1:
        assert np.allclose(np.linspace(3.0, 7.0, knots) @ weights, np.linspace(3.0, 7.0, 21))


def test_photons_move_on_their_grid():
    prior = PhotonPrior.log_normal(300.0, 0.3)
    moved = prior.moved(0.2)
    np.testing.assert_array_equal(moved.log_photons, prior.log_photons)
    assert moved.log_mean == pytest.approx(prior.log_mean + 0.2, abs=1e-3)
    assert moved.log_variance == pytest.approx(prior.log_variance, rel=0.01)
    assert moved.cumulative[-1] == 1.0
    # What would leave the grid stays out, and the rest is one again.
    far = prior.moved(1.4)
    assert np.trapezoid(np.exp(far.log_density), far.log_photons) == pytest.approx(1.0)


def test_a_grid_can_begin_lower():
    prior = PhotonPrior.uniform(100.0, 1000.0)
    lower = prior.down_to(50.0)
    assert lower.within[0] == pytest.approx(50.0, rel=1e-3)
    assert lower.within[1] == pytest.approx(1000.0, rel=1e-3)
    assert np.trapezoid(np.exp(lower.log_density), lower.log_photons) == pytest.approx(1.0)
    assert prior.down_to(200.0) is prior
