"""What a camera adds: mean, variance and shape of its noise; ADU and electrons."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from sureloc.camera import ROUNDING_VARIANCE_ADU2, Camera
from sureloc.errors import CameraError
from sureloc.physics.noise import sample_electrons

DRAWS = 400_000


def draws(omega, variance, generator, em_gain=1.0):
    expected = torch.full((DRAWS,), omega, dtype=torch.float64)
    return sample_electrons(expected, torch.tensor(variance).double(), generator, em_gain).numpy()


def assert_moments(sample, mean, variance):
    """Four standard errors, which one in 16,000 right samples would miss."""
    assert np.mean(sample) == pytest.approx(mean, abs=4 * np.sqrt(variance / len(sample)))
    fourth = np.mean((sample - mean) ** 4)
    error = np.sqrt((fourth - variance**2) / len(sample))
    assert np.mean((sample - mean) ** 2) == pytest.approx(variance, abs=4 * error)


@pytest.mark.parametrize(("omega", "variance"), [(0.3, 0.5), (5.0, 4.0), (200.0, 1.0), (2.0, 60.0)])
def test_shot_and_read_noise_add(omega, variance, torch_rng):
    assert_moments(draws(omega, variance, torch_rng), omega, omega + variance)


@pytest.mark.parametrize("gain", [10.0, 300.0])
def test_multiplication_raises_the_shot_noise_by_f2_and_not_the_mean(gain, torch_rng):
    camera = Camera(em_gain=gain)
    # Gamma(n, g) / g of a whole n adds n to n's own variance, (2 - 1/g) n if what is added is one
    # less than g on average; the model's limit of large g is 2.
    sample = draws(8.0, 0.25, torch_rng, gain)
    assert_moments(sample, 8.0, 2.0 * 8.0 + 0.25)
    assert camera.excess_noise == pytest.approx(2.0, abs=1.0 / gain + 1e-12)


def test_noise_in_photons_is_that_of_electrons_over_the_quantum_efficiency(torch_rng):
    camera = Camera(gain_adu_per_e=4.0, variance_adu2=63.9, em_gain=300.0, quantum_efficiency=0.8)
    variance, per_photon = camera.photon_noise((3, 2))
    photons = 10.0
    electrons = draws(0.8 * photons, camera.read_variance_e2((3, 2))[0, 0], torch_rng, 300.0)
    assert_moments(electrons / 0.8, photons, variance + per_photon * photons)
    assert Camera(variance_adu2=2.0).photon_noise((1, 1)) == (2.0 + ROUNDING_VARIANCE_ADU2, 1.0)


def test_without_read_noise_counts_are_poisson(torch_rng):
    sample = draws(3.0, 0.0, torch_rng).astype(int)
    seen = np.bincount(np.minimum(sample, 10), minlength=11)
    share = np.append(stats.poisson.pmf(np.arange(10), 3.0), stats.poisson.sf(9, 3.0))
    # Seeded; one in a thousand right samples would fall below.
    assert stats.chisquare(seen, share * DRAWS).pvalue > 1e-3


def test_every_pixel_has_its_own_read_noise(torch_rng):
    variance = torch.tensor([0.5, 9.0, 100.0], dtype=torch.float64)
    expected = torch.full((DRAWS // 4, 3), 4.0, dtype=torch.float64)
    sample = sample_electrons(expected, variance, torch_rng).numpy()
    for column, v in zip(sample.T, variance.tolist(), strict=True):
        assert_moments(column, 4.0, 4.0 + v)


def test_adu_and_electrons_are_inverse_with_maps(rng):
    shape = (5, 7)
    camera = Camera(
        offset_adu=100 + rng.normal(size=shape),
        gain_adu_per_e=2 + 0.1 * rng.random(shape),
        variance_adu2=6.0,
    )
    adu = 1000 * rng.random((3, *shape))
    np.testing.assert_allclose(camera.adu(camera.electrons(adu)), adu, rtol=1e-12)
    assert camera.electrons(camera.offset_adu) == pytest.approx(0.0, abs=1e-12)


def test_read_variance_in_electrons_goes_with_the_gain_squared_and_holds_the_rounding():
    camera = Camera(gain_adu_per_e=4.0, variance_adu2=32.0)
    assert camera.read_variance_e2((2, 2)) == pytest.approx((32 + ROUNDING_VARIANCE_ADU2) / 16)
    rng = np.random.default_rng(1)
    rounded = np.round(rng.normal(100.0, np.sqrt(32.0), DRAWS))
    # Seeded; the error of a variance of DRAWS normal numbers is sqrt(2 / DRAWS) = 0.22 %.
    assert np.var(camera.electrons(rounded)) == pytest.approx(
        float(camera.read_variance_e2((1, 1))[0, 0]), rel=0.01
    )


def test_a_region_of_the_camera_is_the_camera_of_the_region(rng):
    camera = Camera(offset_adu=rng.random((6, 8)), gain_adu_per_e=2.0, variance_adu2=3.0)
    part = camera.crop(slice(1, 4), slice(2, 8))
    frames = 100 * rng.random((6, 8))
    np.testing.assert_array_equal(
        part.electrons(frames[1:4, 2:8]), camera.electrons(frames)[1:4, 2:8]
    )
    assert part.gain_adu_per_e == 2.0
    with pytest.raises(CameraError, match=r"maps have shape \(3, 6\) but the frames have \(6, 3\)"):
        part.check_shape((6, 3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"variance_adu2": -1.0}, "variance_adu2 is -1 .*>= 0"),
        ({"variance_adu2": np.full((2, 2), np.nan)}, r"variance_adu2 is nan at pixel \(0, 0\)"),
        ({"gain_adu_per_e": 0.0}, "gain_adu_per_e is 0 .*> 0"),
        ({"gain_adu_per_e": np.array([[1.0, -2.0]])}, r"gain_adu_per_e is -2 at pixel \(0, 1\)"),
        ({"offset_adu": np.inf}, "offset_adu is inf .*finite"),
        ({"offset_adu": np.zeros((2, 3)), "variance_adu2": np.ones((3, 2))}, "another map"),
        ({"offset_adu": np.zeros(3)}, r"shape \(3,\)"),
        ({"quantum_efficiency": 0.0}, "quantum_efficiency is 0"),
        ({"quantum_efficiency": 1.1}, "quantum_efficiency is 1.1"),
        ({"em_gain": 0.5}, "em_gain is 0.5"),
        ({"saturation_adu": 0}, "saturation_adu is 0"),
    ],
)
def test_impossible_cameras_are_refused(values, message):
    with pytest.raises(CameraError, match=message):
        Camera(**values)
