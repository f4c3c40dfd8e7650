"""The integrated Gaussian PSF: flux, symmetry, derivatives, tails."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sureloc.errors import InputError
from sureloc.physics.psf import (
    LOST_FLUX,
    GaussianPSF,
    pixel_integral_curvature,
    pixel_integral_gradient,
    pixel_integrals,
)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def grid(low, high):
    return torch.arange(low, high, dtype=torch.float64)


@settings(max_examples=50, deadline=None)
@given(x=st.floats(-3, 3), sx=st.floats(0.4, 2.5), sy=st.floats(0.4, 2.5))
def test_all_photons_fall_somewhere_and_at_their_place(x, sx, sy):
    columns = rows = grid(-40, 41)
    image = GaussianPSF(sx, sy).images(numbers(x), numbers(-x), columns, rows)[0]
    assert float(image.sum()) == pytest.approx(1.0, abs=1e-12)
    # Pixel integration adds 1/12 to the variance, exactly where pixels are not coarser than that
    # sampling theorem wants; at sigma 0.4 px the remainder is 2 exp(-2 pi^2 0.16) = 8 %.
    alias = 2 * math.exp(-2 * math.pi**2 * min(sx, sy) ** 2)
    assert float((image.sum(0) * columns).sum()) == pytest.approx(x, abs=0.4 * alias + 1e-9)
    assert float((image.sum(1) * rows).sum()) == pytest.approx(-x, abs=0.4 * alias + 1e-9)


def test_each_axis_has_its_own_width():
    columns = rows = grid(-20, 21)
    image = GaussianPSF(1.0, 1.6).images(numbers(0.3), numbers(0.1), columns, rows)[0]
    wide = [
        float((profile * axis**2).sum() - (profile * axis).sum() ** 2)
        for profile, axis in ((image.sum(0), columns), (image.sum(1), rows))
    ]
    assert wide == pytest.approx([1.0 + 1 / 12, 1.6**2 + 1 / 12], abs=1e-6)


def test_a_pixel_holds_the_integral_of_the_gaussian_over_it():
    # 2,000 points a pixel by the midpoint rule, whose error is h^2/24 f'' < 1e-8.
    fine = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000 - 0.5
    for distance in (0.0, 0.7, -1.2, 3.0):
        density = torch.exp(-((distance + fine) ** 2) / (2 * 0.9**2)) / math.sqrt(2 * math.pi)
        expected = float(density.mean()) / 0.9
        assert float(pixel_integrals(numbers(distance), numbers(0.9))) == pytest.approx(
            expected, abs=1e-8
        )


def test_tails_keep_their_digits():
    # Mills' ratio: the far tail of the integral over a pixel is its near edge's, to 1 part in 1e4.
    tail = float(pixel_integrals(numbers(20.5), numbers(1.0)))
    edge = 0.5 * math.erfc(20.0 / math.sqrt(2))
    assert tail == pytest.approx(edge, rel=1e-4)
    assert tail > 0


@settings(max_examples=50, deadline=None)
@given(d=st.floats(-6, 6), sigma=st.floats(0.5, 2.0))
def test_derivatives_are_those_of_the_integral(d, sigma):
    position = numbers(-d).requires_grad_()  # the distance is a pixel's centre minus the position
    value = pixel_integrals(-position, numbers(sigma))
    (slope,) = torch.autograd.grad(value.sum(), position, create_graph=True)
    gradient = pixel_integral_gradient(numbers(d), numbers(sigma))
    torch.testing.assert_close(gradient, slope.detach(), rtol=1e-9, atol=1e-13)
    again = numbers(d).requires_grad_()
    (curve,) = torch.autograd.grad(pixel_integral_gradient(again, numbers(sigma)).sum(), again)
    curvature = pixel_integral_curvature(numbers(d), numbers(sigma))
    torch.testing.assert_close(curvature, -curve, rtol=1e-8, atol=1e-12)


def test_derivatives_of_images_follow_columns_and_rows():
    psf, step = GaussianPSF(1.0, 1.4), 1e-5
    columns, rows = grid(0, 9), grid(0, 8)
    x, y = numbers(4.3), numbers(3.1)
    image, by_x, by_y = psf.images_and_gradients(x, y, columns, rows)
    torch.testing.assert_close(image, psf.images(x, y, columns, rows))
    for slope, dx, dy in ((by_x, step, 0.0), (by_y, 0.0, step)):
        ahead = psf.images(x + dx, y + dy, columns, rows)
        behind = psf.images(x - dx, y - dy, columns, rows)
        # Central differences err by step^2 / 6 times a third derivative of order 1.
        torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=0, atol=1e-9)


def test_weighted_curvatures_are_second_differences(torch_rng):
    psf = GaussianPSF(1.1, 0.9)
    columns, rows = grid(0, 9)[None], grid(0, 8)[None]
    weight = torch.randn(8, 9, generator=torch_rng, dtype=torch.float64)
    place = numbers(4.2, 3.3)

    def total(xy):
        return (psf.images(xy[:1], xy[1:], columns, rows) * weight).sum()

    hessian = torch.autograd.functional.hessian(total, place)
    xx, xy, yy = psf.weighted_curvatures(place[:1], place[1:], columns, rows, weight)
    found = torch.stack([torch.cat([xx, xy]), torch.cat([xy, yy])])
    torch.testing.assert_close(found, hessian, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("sigma", [(0.8, 0.8), (1.3, 1.0), (1.8, 2.5)])
def test_what_lies_beyond_the_support_is_less_than_stated(sigma):
    psf = GaussianPSF(*sigma)
    reach = math.floor(psf.support_radius_px)
    near = grid(-reach, reach + 1)
    kept = float(psf.images(numbers(0.5), numbers(0.5), near, near).sum())
    # Half a pixel off, the patch ends half a pixel nearer, which is the worst case.
    wide = grid(-reach - 1, reach + 2)
    assert 1 - float(psf.images(numbers(0.5), numbers(0.5), wide, wide).sum()) < LOST_FLUX
    assert kept < 1


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_impossible_widths_are_refused(sigma):
    with pytest.raises(InputError, match=r"sigma_x_px is .* larger than 0"):
        GaussianPSF(sigma, 1.0)
    with pytest.raises(InputError, match="sigma_y_px"):
        GaussianPSF(1.0, sigma)
