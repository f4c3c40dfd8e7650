"""Training tiles: each moment is the one that was asked for."""

from __future__ import annotations

import pytest
import torch

from sureloc.errors import InputError
from sureloc.seeds import torch_generator
from sureloc.simulate.tiles import TileConditions, simulate_tiles

# One brightness, one density, one even background: what a test does not vary stays put.
PLAIN = {
    "sigma_px": (1.2, 1.2),
    "mean_photons": (800.0, 800.0),
    "photons": (1e-3, 1e6),
    "visible_sds": 0.0,
    "density_per_px2": (0.02, 0.02),
    "empty_share": 0.0,
    "blinking_share": 0.0,
    "target_photons": 0.0,
    "background_e": (20.0, 20.0),
    "unevenness": 0.0,
    "read_noise_e": (2.0, 2.0),
    "hot_share": 0.0,
    "multiplied_share": 0.0,
}
EMPTY = {"density_per_px2": (0.0, 0.0)}


def tiles(count=300, side=20, seed=0, **changes):
    conditions = TileConditions(**(PLAIN | changes))
    return simulate_tiles(conditions, (count, side, side), torch_generator(seed, "tiles"))


def lit(batch):
    """Tell the tiles whose background was not drawn as 0; a tenth of them is."""
    return batch.electrons.mean(dim=(1, 2)) > 10


def test_density_is_what_was_asked_for():
    batch = tiles(400)
    counts = torch.bincount(batch.tile, minlength=400).double()
    expected = 0.02 * 32**2  # the tile and 6 px around it
    # Poisson: the standard error of the mean is sqrt(20.5 / 400) = 0.23; four of them.
    assert counts.mean().item() == pytest.approx(expected, abs=0.9)
    assert (counts.var() / counts.mean()).item() == pytest.approx(1.0, abs=0.3)


def test_sparse_tiles_are_no_rarity():
    batch = tiles(2000, 8, density_per_px2=(0.0, 0.06))
    counts = torch.bincount(batch.tile, minlength=2000).double()
    # E U^1.5 = 0.4; its standard deviation is 0.3, so the error of the mean is 2 %; four of them.
    assert counts.mean().item() == pytest.approx(0.4 * 0.06 * 20**2, rel=0.08)


def test_empty_tiles_have_their_share():
    batch = tiles(2000, 8, empty_share=0.25)
    empty = (torch.bincount(batch.tile, minlength=2000) == 0).double().mean().item()
    # 8 emitters a tile else, so an empty tile is meant; binomial error 0.01, four of them.
    assert empty == pytest.approx(0.25, abs=0.04)


def test_emitters_are_uniform_over_the_tile_and_its_border():
    batch = tiles(400)
    edges = (-6.5, 25.5)
    for position in (batch.x_px, batch.y_px):
        assert edges[0] <= position.min() < edges[0] + 0.1
        assert edges[1] - 0.1 < position.max() <= edges[1]
        assert position.mean().item() == pytest.approx(9.5, abs=0.45)  # 9.2 / sqrt(8200), four
        assert position.std().item() == pytest.approx(32 / 12**0.5, rel=0.03)


def test_mean_photons_are_what_was_asked_for_whatever_their_distribution():
    batch = tiles(1500, 8)
    mean = batch.photons.mean().item()
    # Spread within a tile is at most that of an exponential: 12,000 of them give 1 %; three.
    assert mean == pytest.approx(800, rel=0.03)


def test_brightness_spreads_in_three_ways():
    batch = tiles(1500, 8)
    by_tile = [batch.photons[batch.tile == i] for i in range(1500)]
    spread = torch.stack([photons.std() / 800 for photons in by_tile if len(photons) > 2])
    assert (spread < 0.15).float().mean() > 0.03  # narrow log-normals
    assert (spread > 0.7).float().mean() > 0.1  # exponentials and wide log-normals


def test_photons_stay_within_their_bounds_unless_they_blink():
    inside = tiles(300, photons=(500.0, 1000.0))
    assert 500 <= inside.photons.min() <= inside.photons.max() <= 1000
    blinking = tiles(300, photons=(500.0, 1000.0), blinking_share=0.5)
    dimmed = (blinking.photons < 500).double().mean().item()
    # A blinking one shines for a uniform part u of the frame: it is below 500 for u < 500 / p,
    # which is a share of 0.5 for p = 1000 and 1 for p = 500.
    assert 0.25 < dimmed < 0.5
    assert blinking.photons.min() < 25


def test_blinking_takes_half_of_the_light_of_its_share():
    mean = tiles(1500, 8, blinking_share=0.4).photons.mean().item()
    assert mean == pytest.approx(800 * (1 - 0.4 / 2), rel=0.04)


def test_dim_tiles_are_raised_until_something_can_be_seen():
    hidden = {"mean_photons": (1.0, 1.0), "background_e": (300.0, 300.0)}
    batch = tiles(300, visible_sds=2.5, **hidden)
    bright = batch.photons[lit(batch)[batch.tile]].mean().item()
    noise_e = ((300 + 4) * 4 * torch.pi * 1.2**2) ** 0.5
    assert bright == pytest.approx(2.5 * noise_e, rel=0.05)


def test_emitters_too_dim_shine_but_are_no_target():
    faint = {"photons": (1.0, 40.0), "mean_photons": (25.0, 25.0)}
    everything, targets = tiles(**faint), tiles(target_photons=25.0, **faint)
    torch.testing.assert_close(everything.electrons, targets.electrons, rtol=0, atol=0)
    kept = everything.photons >= 25
    assert 0.2 < kept.double().mean().item() < 0.8
    torch.testing.assert_close(everything.photons[kept], targets.photons, rtol=0, atol=0)
    assert targets.kde.sum() < everything.kde.sum()


def test_light_is_all_photons():
    batch = tiles(300, 30, background_e=(1e-3, 1e-3))
    light = batch.electrons.sum().item()
    total = batch.photons.sum().item() * 30**2 / 42**2
    # Light that enters and leaves across the edge cancels; 5,400 of 10,600 emitters lie inside,
    # a binomial error of 1 % that their spread of brightness makes 1.2 %: four of them.
    assert light == pytest.approx(total, rel=0.05)


def test_the_target_is_one_kernel_for_each_emitter():
    batch = tiles(50)
    inside = (batch.x_px.clamp(1, 18) == batch.x_px) & (batch.y_px.clamp(1, 18) == batch.y_px)
    far = (batch.x_px.clamp(-2, 21) == batch.x_px) & (batch.y_px.clamp(-2, 21) == batch.y_px)
    assert batch.kde.shape == (50, 80, 80)
    mass = batch.kde.sum(dim=(1, 2))
    assert bool((mass >= torch.bincount(batch.tile[inside], minlength=50) - 1e-4).all())
    assert bool((mass <= torch.bincount(batch.tile[far], minlength=50) + 1e-4).all())
    # The brightest fine pixel of a lone emitter lies within half a fine pixel of it.
    lone = tiles(200, density_per_px2=(0.001, 0.001))
    counts = torch.bincount(lone.tile, minlength=200)
    for i in (counts == 1).nonzero()[:, 0]:
        x, y = lone.x_px[lone.tile == i].item(), lone.y_px[lone.tile == i].item()
        if 0 <= x <= 19 and 0 <= y <= 19:
            row, column = divmod(int(lone.kde[i].argmax()), 80)
            assert abs(column / 4 - 0.375 - x) < 0.1251
            assert abs(row / 4 - 0.375 - y) < 0.1251


def test_background_is_what_was_asked_for_and_missing_in_a_tenth():
    batch = tiles(1000, 8, **EMPTY)
    dark = ~lit(batch)
    assert dark.double().mean().item() == pytest.approx(0.1, abs=0.04)
    # Errors: 4.9 e- over 240 x 240 pixels, and 2 e- over 80 x 80.
    assert batch.electrons[~dark].mean().item() == pytest.approx(20, abs=0.1)
    assert batch.electrons[dark].mean().item() == pytest.approx(0, abs=0.15)


def test_background_levels_are_log_uniform():
    batch = tiles(2000, 8, background_e=(1.0, 100.0), **EMPTY)
    levels = batch.electrons.mean(dim=(1, 2))
    # Half of the nine tenths that are not dark lie below the geometric mean of 10.
    assert (levels > 10).double().mean().item() == pytest.approx(0.45, abs=0.05)


def test_unevenness_swings_the_background_within_its_bound():
    batch = tiles(300, 30, unevenness=0.5, background_e=(1e4, 1e4), **EMPTY)
    smooth = torch.nn.functional.avg_pool2d(batch.electrons[lit(batch)][:, None], 5)[:, 0]
    swing = (smooth / 1e4).log().abs().amax(dim=(1, 2))
    assert 0.3 < swing.max().item() < 0.5 + 0.01  # noise of a mean of 25 pixels: 0.2 %
    even = tiles(50, 30, background_e=(1e4, 1e4), **EMPTY).electrons
    assert even.mean(dim=(1, 2)).std().item() < 5000  # some tiles are dark, none in between


@pytest.mark.parametrize(("share", "factor"), [(0.0, 1.0), (1.0, 2.0)])
def test_noise_is_poisson_and_read_noise_with_its_excess(share, factor):
    batch = tiles(600, 16, multiplied_share=share, **EMPTY)
    assert bool((batch.excess_noise == factor).all())
    bright = lit(batch)
    # Spread maps of read variance belong to half of the tiles: compare means of both sides.
    for chosen, expected in ((bright, 20.0), (~bright, 0.0)):
        read = batch.read_variance_e2[chosen].mean().item()
        seen = (batch.electrons[chosen] - expected).square().mean().item()
        assert seen == pytest.approx(factor * expected + read, rel=0.06)


def test_multiplied_tiles_have_their_share():
    batch = tiles(2000, 8, multiplied_share=0.3)
    assert set(batch.excess_noise.tolist()) == {1.0, 2.0}
    assert (batch.excess_noise == 2).double().mean().item() == pytest.approx(0.3, abs=0.04)


def test_read_noise_is_even_in_half_of_the_tiles_and_spread_in_the_others():
    batch = tiles(1000, 16)
    spread = batch.read_variance_e2.log().std(dim=(1, 2))
    assert (spread < 1e-5).double().mean().item() == pytest.approx(0.5, abs=0.06)
    assert batch.read_variance_e2.log().mean().exp().item() == pytest.approx(4.0, rel=0.01)


def test_hot_pixels_have_their_share_where_read_noise_is_spread():
    cool, hot = tiles(300, **EMPTY), tiles(300, hot_share=0.05, **EMPTY)
    ratio = hot.read_variance_e2 / cool.read_variance_e2
    share = (ratio > 9.9).double().mean().item()
    assert share == pytest.approx(0.05 / 2, abs=0.004)
    assert ratio.max().item() <= 101
    assert ratio[ratio < 9.9].max().item() == pytest.approx(1.0, abs=1e-5)


def test_the_psf_has_the_width_that_the_tile_states():
    one = tiles(
        2000,
        24,
        sigma_px=(0.8, 1.8),
        density_per_px2=(0.0005, 0.0005),
        background_e=(1e-3, 1e-3),
        read_noise_e=(1e-3, 1e-3),
        mean_photons=(1e5, 1e5),
    )
    counts = torch.bincount(one.tile, minlength=2000)
    columns = torch.arange(24.0)
    checked = 0
    for i in (counts == 1).nonzero()[:, 0]:
        x, y = one.x_px[one.tile == i].item(), one.y_px[one.tile == i].item()
        if 8 <= x <= 15 and 8 <= y <= 15 and one.photons[one.tile == i].item() > 3e4:
            profile = one.electrons[i].sum(0) / one.electrons[i].sum()
            variance = (profile * (columns - x) ** 2).sum().item()
            assert variance == pytest.approx(one.sigma_px[i].item() ** 2 + 1 / 12, rel=0.05)
            checked += 1
    assert checked > 10


def test_the_same_seed_gives_the_same_tiles_and_another_does_not():
    first, again, other = tiles(8), tiles(8), tiles(8, seed=1)
    for name in vars(first):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.electrons, other.electrons)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma_px": (1.8, 0.8)}, "sigma_px is 1.8 to 0.8"),
        ({"background_e": (0.0, 3.0)}, "background_e is 0 to 3"),
        ({"density_per_px2": (-0.1, 0.1)}, "density_per_px2"),
        ({"photons": (1.0, float("inf"))}, "photons is 1 to inf"),
        ({"hot_share": 1.5}, "hot_share is 1.5"),
    ],
)
def test_impossible_conditions_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        TileConditions(**changes)


@pytest.mark.parametrize("sigma_px", [1.3, 3.0])
def test_emitters_lie_as_far_outside_as_their_light_reaches(sigma_px):
    conditions = TileConditions(sigma_px=(1.0, sigma_px), density_per_px2=(0.05, 0.06))
    batch = simulate_tiles(conditions, (200, 8, 8), torch_generator(3, "tiles"))
    for places in (batch.x_px, batch.y_px):
        assert -0.5 - float(places.min()) > 3.2 * sigma_px
        assert float(places.max()) - 7.5 > 3.2 * sigma_px
