"""Expected images: where light falls, that it adds, and that patches lose none."""

from __future__ import annotations

import pytest
import torch

from sureloc.physics.image import pixel_axes, render_frames, render_tiles
from sureloc.physics.psf import LOST_FLUX, GaussianPSF

PSF = GaussianPSF(1.3, 1.0)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def one_frame(x, y, photons, shape=(12, 17), psf=PSF):
    x = numbers(*x)
    frame = torch.zeros(len(x), dtype=torch.long)
    return render_frames(x, numbers(*y), numbers(*photons), frame, psf, (1, *shape))[0]


def test_x_runs_along_columns_y_down_rows_and_centres_lie_at_whole_numbers():
    image = one_frame((12.0,), (4.0,), (100.0,), psf=GaussianPSF(0.8, 0.7))
    assert divmod(int(image.argmax()), 17) == (4, 12)
    # Symmetric about the pixel's centre: a half-pixel convention would tilt it.
    assert float(image[4, 11]) == pytest.approx(float(image[4, 13]), rel=1e-12)
    assert float(image[3, 12]) == pytest.approx(float(image[5, 12]), rel=1e-12)
    columns, rows = pixel_axes((12, 17), image)
    assert float((image.sum(0) * columns).sum()) / 100 == pytest.approx(12.0, abs=1e-3)
    assert float((image.sum(1) * rows).sum()) / 100 == pytest.approx(4.0, abs=1e-3)


def test_moving_an_emitter_by_a_pixel_moves_its_image():
    one = one_frame((7.3,), (5.6,), (1.0,))
    right, below = one_frame((8.3,), (5.6,), (1.0,)), one_frame((7.3,), (6.6,), (1.0,))
    torch.testing.assert_close(right[:, 1:], one[:, :-1], rtol=0, atol=LOST_FLUX)
    torch.testing.assert_close(below[1:], one[:-1], rtol=0, atol=LOST_FLUX)


def test_light_adds_and_goes_with_photons():
    both = one_frame((7.3, 9.1), (5.6, 6.0), (10.0, 30.0))
    single = one_frame((7.3,), (5.6,), (1.0,)), one_frame((9.1,), (6.0,), (1.0,))
    torch.testing.assert_close(both, 10 * single[0] + 30 * single[1])


def test_patches_give_what_whole_tiles_give_also_over_the_edge():
    x, y = numbers(-1.2, 0.4, 8.8, 16.9), numbers(3.0, 11.8, -0.7, 5.5)
    photons = numbers(500.0, 300.0, 800.0, 100.0)
    patches = one_frame(x.tolist(), y.tolist(), photons.tolist())
    whole = render_tiles(x[None], y[None], photons[None], PSF, (12, 17))[0]
    torch.testing.assert_close(patches, whole, rtol=0, atol=LOST_FLUX * 800)


def test_emitters_shine_in_their_own_frame_only():
    frame = torch.tensor([2, 0, 2])
    x, y, photons = numbers(3.0, 4.0, 5.0), numbers(3.0, 4.0, 5.0), numbers(1.0, 2.0, 4.0)
    movie = render_frames(x, y, photons, frame, GaussianPSF.round(0.8), (3, 10, 10))
    torch.testing.assert_close(movie.sum((1, 2)), numbers(2.0, 0.0, 5.0), rtol=0, atol=1e-4)


def test_widths_may_differ_between_emitters():
    psf = GaussianPSF(numbers(0.8, 1.6), numbers(0.8, 1.2))
    both = one_frame((5.0, 11.0), (5.0, 6.0), (10.0, 30.0), psf=psf)
    parts = (
        one_frame((5.0,), (5.0,), (10.0,), psf=GaussianPSF(0.8, 0.8)),
        one_frame((11.0,), (6.0,), (30.0,), psf=GaussianPSF(1.6, 1.2)),
    )
    torch.testing.assert_close(both, parts[0] + parts[1], rtol=0, atol=1e-4)


def test_no_emitters_give_dark_frames():
    assert one_frame((), (), ()).count_nonzero() == 0
