"""What networks see of a frame: order 1 everywhere, and the same for every kind of camera."""

from __future__ import annotations

import pytest
import torch

from sureloc.networks.normalization import CHANNELS, RADIUS_PX, local_background, network_input


def flat(level, read_e=1.0, tiles=64, side=24, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (tiles, side, side)
    electrons = torch.poisson(torch.full(shape, float(level)), generator=generator)
    electrons = electrons + read_e * torch.randn(shape, generator=generator)
    return electrons, torch.full(shape, float(read_e) ** 2)


def channels(electrons, variance, sigma=1.3, excess=1.0):
    tiles = (len(electrons),)
    return network_input(electrons, variance, torch.full(tiles, sigma), torch.full(tiles, excess))


@pytest.mark.parametrize("level", [0, 0.3, 20, 300])
@pytest.mark.parametrize("read_e", [0.5, 3, 15])
@pytest.mark.parametrize("photons", [0, 50, 10_000])
def test_channels_are_of_order_1_over_the_whole_range(level, read_e, photons):
    electrons, variance = flat(level, read_e, tiles=4)
    electrons[:, 12, 12] += photons * 0.15  # the brightest pixel of a PSF of about 1 px
    seen = channels(electrons, variance)
    assert seen.shape == (4, CHANNELS, 24, 24)
    assert bool(seen.isfinite().all())
    # asinh(1500 e- over a noise of 1) is 8; 0.4 * 2 sqrt(1500) / 2 is 15.
    assert seen.abs().max() < 16
    assert seen.square().mean(dim=(0, 2, 3)).max() < 8


@pytest.mark.parametrize(("level", "read_e"), [(5, 0.5), (50, 1), (300, 1), (5, 15), (100, 5)])
def test_the_stabilised_channel_has_the_same_noise_on_any_background(level, read_e):
    electrons, variance = flat(level, read_e)
    noise = channels(electrons, variance)[:, 1] / 0.2
    # Anscombe's transform has a variance of 1 to a few per cent above 4 electrons; the local
    # background that is subtracted wanders by another 0.1.
    assert noise.var().item() == pytest.approx(1.0, abs=0.15)


def test_excess_noise_only_rescales():
    electrons, variance = flat(40, 4.0)
    for mine, yours in zip(
        channels(2 * electrons, 4 * variance, excess=2.0),
        channels(electrons, variance, excess=1.0),
        strict=True,
    ):
        torch.testing.assert_close(mine, yours)


def test_the_psf_width_and_the_frames_area_are_channels():
    electrons, variance = flat(10, tiles=2)
    seen = network_input(electrons, variance, torch.tensor([1.0, 1.6]), torch.ones(2))
    assert seen[:, 4].mean(dim=(1, 2)).tolist() == pytest.approx([-1.0, 1.0], abs=1e-5)
    assert bool((seen[:, 5] == 1).all())


def test_the_background_is_exact_on_even_frames_up_to_their_edges():
    level = torch.full((1, 20, 22), 37.0)
    torch.testing.assert_close(local_background(level, torch.ones_like(level)), level)


def test_the_background_sees_no_spot_and_no_hot_pixel():
    level = torch.full((1, 30, 30), 20.0)
    spot, variance = level.clone(), torch.ones_like(level)
    spot[:, 13:17, 13:17] += 500.0
    assert local_background(spot, variance).max().item() == pytest.approx(20.0, abs=1e-4)
    # A hot pixel that reads far too low pulls the envelope down unless its weight is small.
    cold, hot = level.clone(), variance.clone()
    cold[:, 15, 15] -= 300.0
    hot[:, 15, 15] = 3000.0
    assert local_background(cold, hot).min().item() > 19.5
    assert local_background(cold, variance).min().item() < 0


def test_a_pixel_depends_on_its_neighbourhood_only():
    electrons, variance = flat(30, tiles=1, side=40)
    changed = electrons.clone()
    changed[0, 20, 20] -= 400.0
    touched = (channels(electrons, variance) != channels(changed, variance)).any(dim=1)[0]
    rows, columns = touched.nonzero().T
    reach = max((rows - 20).abs().max().item(), (columns - 20).abs().max().item())
    assert reach == RADIUS_PX
