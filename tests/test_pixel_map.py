"""The map of drawn pixels: it gives draws the law of the truth, and is kept with the weights."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from sureloc.cli import app as cli
from sureloc.errors import InputError, WeightsError
from sureloc.networks.pixel_map import (
    ESTIMATES,
    LEAST_ESTIMATE,
    MOST_ESTIMATE,
    VALUES,
    PixelMap,
    grid_values,
    nearest_estimate,
)
from sureloc.networks.posterior import posterior_images
from sureloc.networks.weights import load_weights, save_weights
from sureloc.physics.kde import peak_of_one
from sureloc.scoring.calibration import distance_from_uniform, rank_histogram, ranks
from sureloc.train.pixel_map import flat_ranks, map_of, with_pixel_map
from test_networks import frame, small_networks

DRAWS = 8


def pixels(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Give estimates, truths (an emitter's pixel or none) and draws that smear the two."""
    rng = np.random.default_rng(seed)
    estimate = np.exp(rng.uniform(np.log(0.02), np.log(0.9), count))
    there = rng.uniform(size=(DRAWS + 1, count)) < estimate
    # A true pixel is dark or bright; a drawn one lies between, more or less.
    sharp = np.where(there, 0.9 + 0.1 * rng.uniform(size=there.shape), 0.0)
    sharp += 0.02 * rng.uniform(size=there.shape)
    smeared = 0.5 * sharp[1:] + 0.5 * estimate + 0.2 * rng.normal(size=(DRAWS, count))
    return tuple(torch.from_numpy(a).float() for a in (estimate, sharp[0], smeared))


def image(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(-1, 1, values.shape[-1])


def test_mapped_draws_have_the_law_of_the_truth():
    estimate, truth, draws = pixels(120_000, 1)
    found = map_of(nearest_estimate(estimate), draws, truth)
    estimate, truth, draws = pixels(40_000, 2)
    ties = torch.Generator().manual_seed(0)

    def distance(of: torch.Tensor) -> float:
        return distance_from_uniform(rank_histogram(ranks(of, truth, ties), DRAWS))

    mapped = found(image(draws), image(estimate))[:, 0]
    assert distance(draws) > 0.1
    # Sampling alone gives 9 bins of 40,000 ranks a distance of .003; the table's steps the rest.
    assert distance(mapped) < 0.03
    here = nearest_estimate(estimate) == 15
    assert stats.ks_2samp(draws[:, here].ravel(), truth[here]).statistic > 0.2
    # Quantiles, of draws as of truths, to a tenth of the step from dark to bright.
    shares = torch.tensor([0.1, 0.3, 0.9])
    got, wanted = (torch.quantile(v, shares) for v in (mapped[:, here].ravel(), truth[here]))
    torch.testing.assert_close(got, wanted, atol=0.1, rtol=0)


def test_the_map_keeps_the_order_of_draws_and_leaves_right_ones_alone():
    estimate, truth, draws = pixels(60_000, 3)
    found = map_of(nearest_estimate(estimate), draws, truth)
    ladder = torch.linspace(-0.5, 4.0, 2000)[:, None, None]
    for level in (0.001, 0.03, 0.3, 2.0):
        moved = found(ladder, torch.full((1, 1, 1), level))
        assert (moved.diff(dim=0) > -1e-4).all()
    right = torch.rand(DRAWS + 1, 60_000, generator=torch.Generator().manual_seed(1))
    place = torch.zeros(60_000, dtype=torch.long)
    same = map_of(place, right[1:], right[0])
    inside = (grid_values() > 0.01) & (grid_values() < 0.99)
    # Four standard errors of a quantile of 60,000 uniform numbers.
    assert same.shift[:, inside].abs().max() < 4 * 0.5 / 60_000**0.5


def test_shifts_are_looked_up_between_and_beyond_what_is_kept():
    found = PixelMap()
    values, wide = grid_values(), torch.tensor([LEAST_ESTIMATE / 9, MOST_ESTIMATE * 9])
    found.shift.copy_(torch.arange(ESTIMATES)[:, None] + 0.001 * torch.arange(VALUES))
    at = values[[0, 7, VALUES - 1]].float()[:, None, None]
    for level, first in ((LEAST_ESTIMATE, 0), (MOST_ESTIMATE, ESTIMATES - 1)):
        moved = found(at, torch.full((1, 1, 1), level)) - at
        wanted = first + 0.001 * torch.tensor([0, 7, VALUES - 1])
        torch.testing.assert_close(moved.ravel(), wanted, atol=1e-4, rtol=0)
        assert int(nearest_estimate(torch.tensor(level))) == first
    beyond = found(torch.full((1, 1, 2), 99.0), wide[None, None]) - 99.0
    ends = torch.tensor([0.0, ESTIMATES - 1.0]) + 0.001 * (VALUES - 1)
    torch.testing.assert_close(beyond[0, 0], ends, atol=1e-4, rtol=0)


def mapped_networks():
    networks = small_networks()
    card = networks.card
    card = card.model_copy(update={"draws": card.draws.model_copy(update={"pixel_map": True})})
    found = PixelMap()
    found.shift.fill_(0.25)
    return replace(networks, card=card, pixel_map=found)


def test_draws_are_moved_and_estimates_are_not(tmp_path):
    networks, electrons = mapped_networks(), frame(12, 14)
    save_weights(networks, tmp_path / "mapped.safetensors")
    loaded = load_weights(tmp_path / "mapped.safetensors")

    def images(of):
        return posterior_images(of, electrons, torch.full((12, 14), 2.0), 1.3, 1.0, 3, 5, [0])

    plain, moved = images(replace(networks, pixel_map=None)), images(loaded)
    assert torch.equal(plain.yhat, moved.yhat)
    shift = 0.25 * peak_of_one(networks.card.kernel_sigma_fine_px)
    torch.testing.assert_close(moved.draws, plain.draws + shift, atol=1e-6, rtol=0)


def test_a_card_that_promises_a_map_needs_one(tmp_path):
    networks = mapped_networks()
    save_weights(replace(networks, pixel_map=None), tmp_path / "torn.safetensors")
    with pytest.raises(WeightsError, match=r"pixel_map\.shift"):
        load_weights(tmp_path / "torn.safetensors")


def test_the_command_writes_weights_with_a_map_and_its_effect(tmp_path, monkeypatch, capsys):
    out = tmp_path / "again.safetensors"
    argv = ["sureloc", "weights", "recalibrate", "fast", "--out", out, "--tiles", "50"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in argv])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 0
    assert "total variation of ranks" in capsys.readouterr().out
    card = load_weights(out).card
    assert card.draws.pixel_map
    assert card.training["pixel_map"] == {"tiles": 50, "tile_px": 24, "draws": 4, "seed": 0}
    found = card.metrics["pixel_map"]
    assert found["rank_distance"] < found["rank_distance_without"]
    assert (tmp_path / "again_psi_log.csv").is_file()
    with pytest.raises(InputError, match="tiles is 3"):
        with_pixel_map(load_weights("fast"), tiles=3)


def test_the_shipped_map_pays_on_tiles_that_no_fit_has_seen():
    shipped = load_weights("fast")
    before, after = flat_ranks(shipped, shipped.pixel_map, 60, seed=77)
    # 60 tiles give the distance an error of about .015 (pixels of a tile go together).
    assert after.rank_distance < before.rank_distance - 0.03
    assert after.crps < before.crps
    # What the card says of more tiles is of these networks and this map.
    said = shipped.card.metrics["pixel_map"]
    assert after.rank_distance == pytest.approx(said["rank_distance"], abs=0.04)
    assert before.rank_distance == pytest.approx(said["rank_distance_without"], abs=0.04)
    assert said["rank_distance"] < 0.08
