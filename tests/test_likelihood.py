"""The exact likelihood of a pixel and its approximation: normalization, limits, scores."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from sureloc.physics.information import exact_pixel_information
from sureloc.physics.likelihood import (
    poisson_gaussian_log_likelihood,
    posterior_mean_count,
    shifted_poisson_log_likelihood,
)
from sureloc.physics.noise import sample_electrons

CONDITIONS = [(0.2, 0.3), (2.0, 1.0), (2.0, 30.0), (40.0, 4.0), (300.0, 2.0)]


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def grid_around(omega, v):
    sd = math.sqrt(omega + v)
    low, high = -10 * math.sqrt(v) - 1, omega + 12 * sd + 12
    return torch.linspace(low, high, 60_001, dtype=torch.float64)


@pytest.mark.parametrize(("omega", "v"), CONDITIONS)
def test_the_exact_density_is_one_with_the_cameras_moments(omega, v):
    e = grid_around(omega, v)
    p = poisson_gaussian_log_likelihood(e, numbers(omega).expand_as(e), numbers(v)).exp()
    # Trapezoids over smooth tails err far less than 1e-6.
    total, mean = torch.trapezoid(p, e), torch.trapezoid(p * e, e)
    variance = torch.trapezoid(p * (e - omega) ** 2, e)
    third = torch.trapezoid(p * (e - omega) ** 3, e)
    assert float(total) == pytest.approx(1.0, abs=1e-6)
    assert float(mean) == pytest.approx(omega, rel=1e-5)
    assert float(variance) == pytest.approx(omega + v, rel=1e-5)
    assert float(third) == pytest.approx(omega, rel=1e-3)  # Gaussian read noise adds none


def test_without_read_noise_it_is_poisson():
    count = torch.arange(12, dtype=torch.float64)
    v = 1e-4
    found = poisson_gaussian_log_likelihood(count, numbers(3.5).expand_as(count), numbers(v))
    spike = -0.5 * math.log(2 * math.pi * v)
    expected = stats.poisson.logpmf(count.numpy(), 3.5) + spike
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-9)


def test_under_much_light_and_read_noise_it_is_gaussian():
    omega, v = 4.0, 4e6
    e = numbers(-3000.0, 0.0, 10.0, 2500.0)
    found = poisson_gaussian_log_likelihood(e, numbers(omega).expand_as(e), numbers(v))
    expected = stats.norm.logpdf(e.numpy(), omega, math.sqrt(omega + v))
    # The skewness that is left is omega / (omega + v)^1.5 = 5e-10.
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("omega", "v"), CONDITIONS)
def test_the_score_follows_from_the_mean_count(omega, v):
    e = numbers(omega - 1.3 * math.sqrt(omega + v), omega, omega + 2 * math.sqrt(omega + v))
    level = numbers(omega).expand_as(e)
    mean = posterior_mean_count(e, level, numbers(v))
    step = 1e-5 * omega
    ahead = poisson_gaussian_log_likelihood(e, level + step, numbers(v))
    behind = poisson_gaussian_log_likelihood(e, level - step, numbers(v))
    # Central differences of doubles: rounding leaves 1e-16 / 1e-5 relative to ln p.
    torch.testing.assert_close(
        mean / omega - 1, (ahead - behind) / (2 * step), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(("omega", "v"), CONDITIONS)
def test_scores_have_mean_zero_and_the_information_as_variance(omega, v, torch_rng):
    n = 40_000
    level = numbers(omega).expand(n).contiguous()
    e = sample_electrons(level, numbers(v), torch_rng)
    exact = posterior_mean_count(e, level, numbers(v)) / omega - 1
    information = float(exact_pixel_information(numbers(omega), numbers(v)))
    close = level.clone().requires_grad_()
    shifted_poisson_log_likelihood(e, close, numbers(v)).sum().backward()
    approximate = close.grad
    # Both models give scores of mean 0: the shifted one has the right mean at every level. Its
    # score's variance is 1 / (omega + v), what it states as information, as the variance is right.
    for score, stated in ((exact, information), (approximate, 1.0 / (omega + v))):
        assert abs(float(score.mean())) < 4 * float(score.std()) / math.sqrt(n)
        squares = score**2
        error = float(squares.std()) / math.sqrt(n)
        assert float(squares.mean()) == pytest.approx(stated, abs=4 * error)


def test_the_approximation_is_highest_at_what_was_read_and_zero_there():
    e = numbers(0.5, 7.0, 120.0)
    levels = e[:, None] * torch.linspace(0.5, 2, 301, dtype=torch.float64)
    value = shifted_poisson_log_likelihood(e[:, None].expand_as(levels), levels, numbers(2.0))
    assert levels.gather(1, value.argmax(1, keepdim=True))[:, 0].tolist() == pytest.approx(
        e.tolist(), rel=0.006
    )
    same = shifted_poisson_log_likelihood(e, e, numbers(2.0))
    torch.testing.assert_close(same, torch.zeros_like(same), rtol=0, atol=1e-9)


def test_the_approximation_is_the_exact_one_where_light_is_plenty():
    v = 3.0
    e = numbers(1900.0, 2000.0, 2080.0)
    one, other = numbers(1980.0).expand_as(e), numbers(2030.0).expand_as(e)
    exact = poisson_gaussian_log_likelihood(e, one, numbers(v))
    exact = exact - poisson_gaussian_log_likelihood(e, other, numbers(v))
    close = shifted_poisson_log_likelihood(e, one, numbers(v))
    close = close - shifted_poisson_log_likelihood(e, other, numbers(v))
    # The third moments differ by v / omega = 0.15 %.
    torch.testing.assert_close(close, exact, rtol=5e-3, atol=5e-3)


def test_excess_noise_stretches_the_approximation():
    e, omega, v = numbers(50.0), numbers(40.0), numbers(6.0)
    plain = shifted_poisson_log_likelihood(e, omega, v / 2)
    torch.testing.assert_close(shifted_poisson_log_likelihood(e, omega, v, 2.0), plain / 2)


def test_negative_readings_are_kept():
    level = torch.linspace(0.05, 3.0, 60, dtype=torch.float64)
    e = numbers(-1.0).expand_as(level)
    for value in (
        shifted_poisson_log_likelihood(e, level, numbers(4.0)),
        poisson_gaussian_log_likelihood(e, level, numbers(4.0)),
    ):
        assert bool((value.diff() < 0).all())  # the darker, the likelier, down to nothing
        assert bool(value.isfinite().all())
