"""Kernel density images: what they sum to, where they lie, and that they can be read back."""

from __future__ import annotations

import math

import pytest
import torch

from sureloc.errors import InputError
from sureloc.physics.kde import (
    UPSAMPLING,
    camera_px,
    display_range,
    fine_px,
    from_display_range,
    peak_of_one,
    read_emitters,
    render_kde,
)

SHAPE = (1, 12, 14)


def render(x, y, sigma=1.0, mass=None, dtype=torch.float64):
    x, y = torch.tensor(x, dtype=dtype), torch.tensor(y, dtype=dtype)
    mass = torch.ones_like(x) if mass is None else torch.tensor(mass, dtype=dtype)
    return render_kde(x, y, mass, torch.zeros(len(x), dtype=torch.long), SHAPE, sigma)


def matched(found, true):
    """Give the largest distance of a true position to the nearest found one."""
    distance = torch.cdist(torch.stack(found[:2], 1), torch.tensor(true, dtype=torch.float64))
    return float(distance.min(0).values.max())


def test_the_fine_grid_covers_the_camera_pixel():
    assert fine_px(torch.tensor([0.0])).item() == 1.5  # the middle of fine pixels 0 to 3
    x = torch.linspace(-3, 20, 50, dtype=torch.float64)
    torch.testing.assert_close(camera_px(fine_px(x)), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0])
def test_an_emitter_sums_to_its_mass_and_its_centroid_is_its_position(sigma):
    image = render([6.3], [5.8], sigma, [2.5])[0]
    # 5 px = 20 fine px to the nearest edge: 10 kernel widths at least.
    assert image.sum().item() == pytest.approx(
        2.5, abs=1e-8
    )  # the renderer leaves the farthest tails out
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in image.shape)
    x = camera_px((image.sum(0) * columns).sum() / 2.5)
    y = camera_px((image.sum(1) * rows).sum() / 2.5)
    assert (x.item(), y.item()) == pytest.approx((6.3, 5.8), abs=1e-5)
    variance = (image.sum(0) * (columns - fine_px(x)) ** 2).sum() / 2.5
    # Integrating over a pixel adds 1/12; for narrow kernels the sum over pixels is not exact.
    assert variance.item() == pytest.approx(sigma**2 + 1 / 12, abs=2e-3)


def test_emitters_outside_shine_in_and_masses_add():
    outside = render([-0.6], [5.0])
    assert 0 < outside.sum().item() < 0.5
    both = render([-0.6, 5.0], [5.0, 5.0], mass=[1.0, 3.0])
    torch.testing.assert_close(both, outside + 3 * render([5.0], [5.0]))


@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_impossible_kernels_are_refused(sigma):
    with pytest.raises(InputError):
        render([5.0], [5.0], sigma)


# --- Read back ----------------------------------------------------------------------------------

CLOSE_PX = 0.002  # the project's promise, in camera pixels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_isolated_emitters_are_read_back(dtype, torch_rng):
    # One in each 4 x 4 px block, never nearer than 2 px (8 kernel widths) to another.
    jitter = 2 * torch.rand((9, 2), generator=torch_rng)
    grid = torch.cartesian_prod(torch.arange(3), torch.arange(3)) * 4.0
    x, y = (grid + jitter + 0.5).T.tolist()
    found = read_emitters(render(x, y, dtype=dtype)[0])
    assert len(found[0]) == 9
    assert matched(found, list(zip(x, y, strict=True))) < CLOSE_PX
    torch.testing.assert_close(found[2], torch.ones(9, dtype=torch.float64), rtol=0, atol=1e-3)


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 4, 1.3])
@pytest.mark.parametrize("sigma", [1.0, 1.5])
def test_pairs_two_kernel_widths_apart_are_read_back(angle, sigma):
    apart = 2 * sigma / UPSAMPLING
    x = [6.1, 6.1 + apart * math.cos(angle)]
    y = [5.3, 5.3 + apart * math.sin(angle)]
    image = render(x, y, sigma, dtype=torch.float32)[0]
    found = read_emitters(image, sigma)
    assert len(found[0]) == 2
    assert matched(found, list(zip(x, y, strict=True))) < CLOSE_PX


def test_nothing_is_read_from_nothing_and_little_from_what_is_no_kernel():
    empty = torch.zeros(48, 56)
    assert [len(part) for part in read_emitters(empty)] == [0, 0, 0]
    one_pixel = empty.clone()
    one_pixel[10, 10] = 1.0
    assert len(read_emitters(one_pixel, 3.0)[0]) <= 5  # a mass of 1 in parts of 0.2


# --- The paper's range --------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_the_peak_is_that_of_an_emitter_centred_on_a_fine_pixel(sigma):
    centre = camera_px(torch.tensor(20.0)).item()
    assert render([centre], [centre], sigma).max().item() == pytest.approx(
        peak_of_one(sigma), rel=1e-9
    )


def test_display_range_is_the_papers_and_can_be_undone():
    image = render([5.0, 9.0], [5.0, 7.0])
    shown = display_range(image)
    assert shown.min().item() == pytest.approx(-1, abs=1e-9)
    assert -1 <= shown.min() <= shown.max() <= 1
    torch.testing.assert_close(from_display_range(shown), image, rtol=0, atol=1e-12)
    # Two on one spot: clipped, as HardTanh does, so that brightness beyond one is lost.
    assert display_range(render([5.125, 5.125], [5.125, 5.125])).max().item() == 1.0
    assert display_range(torch.zeros(3)).tolist() == [-1.0] * 3
