"""Aberrated PSFs by the laws that they obey: energy, Airy's pattern, Strehl's ratio, shifts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import j1

from sureloc.errors import InputError
from sureloc.physics.pupil import Pupil

CUTOFF = 0.18
ZERO = np.zeros(1)


def airy(distance_px: np.ndarray) -> np.ndarray:
    """Intensity over its peak (Born and Wolf, section 8.5)."""
    v = np.maximum(2 * np.pi * CUTOFF * distance_px, 1e-9)
    return (2 * j1(v) / v) ** 2


def test_all_light_arrives_whatever_is_wrong():
    images = Pupil(CUTOFF, 0.7, 0.5, -0.4).images(np.array([0.0, 0.3]), np.array([0.0, -0.45]))
    assert images.shape == (2, 32, 32)
    np.testing.assert_allclose(images.sum((1, 2)), 1.0, rtol=1e-12)
    assert (images >= 0).all()


def test_without_aberration_it_is_airys_pattern():
    side = 64
    image = Pupil(CUTOFF, side_px=side).images(ZERO, ZERO)[0]
    fine = 16
    at = (np.arange(side * fine) + 0.5) / fine - 0.5 - side // 2
    exact = airy(np.hypot(at[:, None], at[None, :]))
    exact = exact.reshape(side, fine, side, fine).mean((1, 3))
    # Over the whole plane the pattern sums to 1 / (pi cutoff^2) times its peak. The grid of the
    # pupil has 12 samples along a radius, so that its area is off by a few per cent.
    exact *= np.pi * CUTOFF**2
    core = np.s_[side // 2 - 6 : side // 2 + 7, side // 2 - 6 : side // 2 + 7]
    np.testing.assert_allclose(image[core], exact[core], atol=0.04 * exact.max())
    assert image[core].sum() == pytest.approx(exact[core].sum(), abs=0.02)


def test_its_core_is_as_wide_as_the_gaussian_that_stands_for_it():
    image = Pupil(CUTOFF, side_px=64).images(ZERO, ZERO)[0]
    row = image[32]
    # sigma = 0.21 wavelength / NA (Zhang, Zerubia and Olivo-Marin 2007), plus a pixel's 1 / 12.
    sigma = np.sqrt((0.21 / CUTOFF) ** 2 + 1 / 12)
    assert row[33] / row[32] == pytest.approx(np.exp(-0.5 / sigma**2), abs=0.02)


@pytest.mark.parametrize("name", ["defocus", "astigmatism", "coma"])
def test_small_aberrations_lower_the_peak_as_marechal_says(name):
    rms = 0.3
    # The peak of a fine grid, not of pixels: a pupil of fine camera pixels.
    plain = Pupil(CUTOFF / 2, side_px=64).images(ZERO, ZERO)[0].max()
    marred = Pupil(CUTOFF / 2, side_px=64, **{name: rms}).images(ZERO, ZERO)[0].max()
    # exp(-rms^2) to third order; 4 % for the pupil's coarse grid and the pixels.
    assert marred / plain == pytest.approx(np.exp(-(rms**2)), abs=0.04)


def test_a_shift_of_whole_pixels_moves_the_image_and_turns_nothing_else():
    pupil = Pupil(CUTOFF, 0.3, 0.2, 0.4)
    here, there = pupil.images(np.array([0.25, 2.25]), np.array([-0.1, -1.1]))
    np.testing.assert_allclose(np.roll(here, (-1, 2), (0, 1)), there, atol=1e-12)


def test_a_shift_between_pixels_goes_along_the_columns():
    pupil = Pupil(CUTOFF)
    left, right = pupil.images(np.array([-0.3, 0.3]), np.zeros(2))
    np.testing.assert_allclose(left[:, 1:], right[:, 1:][:, ::-1], atol=1e-12)
    assert right[16, 17] > left[16, 17]


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(InputError, match="cutoff is 2"):
        Pupil(2.0)
    with pytest.raises(InputError, match="even"):
        Pupil(CUTOFF, side_px=33)
