"""The comparison with the exact posterior believes before a frame what training tiles are like."""

from __future__ import annotations

import dataclasses
import importlib
import math

import numpy as np
import pytest
import torch

from conftest import ROOT
from sureloc.seeds import torch_generator
from sureloc.simulate.tiles import simulate_tiles

NOISE_E = 10.0
AREA_PX2 = 60.0  # so few emitters that what is drawn beside them stays near its prior


@pytest.fixture
def referee(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("referee_networks")


def test_brightness_spreads_within_tiles_as_in_training(referee, monkeypatch):
    # Without blinking the spread of a log-normal tile is its log_sd alone.
    conditions = dataclasses.replace(
        referee.CONDITIONS,
        blinking_share=0.0,
        photons=(1.0, 1e5),
        density_per_px2=(0.04, 0.06),
        background_e=(25.0, 25.0),
        read_noise_e=(1e-3, 1e-3),
        sigma_px=(1.3, 1.3),
    )
    monkeypatch.setattr(referee, "CONDITIONS", conditions)
    noise = math.sqrt(25.0 * 4 * math.pi * 1.3**2)
    believed = referee.Brightness.in_training(noise)
    chance = np.exp(believed.log_chance)
    assert chance.sum() == pytest.approx(1.0)
    batch = simulate_tiles(conditions, (700, 20, 20), torch_generator(5, "tiles"))
    logs = torch.log(batch.photons.double()).numpy()
    counts = np.bincount(batch.tile.numpy(), minlength=700)
    mean = np.bincount(batch.tile.numpy(), logs) / counts
    variance = np.bincount(batch.tile.numpy(), (logs - mean[batch.tile.numpy()]) ** 2) / counts
    log_mean = np.array([prior.log_mean for prior in believed.priors])
    log_sd = np.sqrt([prior.log_variance for prior in believed.priors])
    se = mean.std() / math.sqrt(700)
    assert mean.mean() == pytest.approx(chance @ log_mean, abs=4 * se)
    # A fifth of log-normal tiles, which are six in ten, have a log_sd below 0.2. Four standard
    # errors of 700 tiles are 0.05; grids that were not even held 0.24.
    narrow = (np.sqrt(variance) < 0.2).mean()
    assert narrow == pytest.approx(0.12, abs=0.05)
    assert chance[log_sd < 0.2].sum() == pytest.approx(0.12, abs=0.05)


def test_what_is_drawn_beside_emitters_has_its_prior(referee, monkeypatch):
    # So bright a target that many emitters of some kinds are none.
    conditions = dataclasses.replace(referee.CONDITIONS, target_photons=100.0)
    monkeypatch.setattr(referee, "CONDITIONS", conditions)
    # Emitters drawn from what was drawn from the prior, then everything anew given them: the
    # distribution stays (Geweke 2004). Five standard errors.
    rng = np.random.default_rng(2)
    believed = referee.Brightness.in_training(NOISE_E)
    chance = np.exp(believed.log_chance)
    low, high = referee.CONDITIONS.density_per_px2
    log_mean = np.array([prior.log_mean for prior in believed.priors])
    even = np.arange(len(chance)) % (referee.SPREADS + 2) == referee.SPREADS  # uniform photons
    drawn = []
    for _ in range(3000):
        kind = int(rng.choice(len(chance), p=chance / chance.sum()))
        density = low + (high - low) * rng.random() ** 1.5
        count = rng.poisson(density * AREA_PX2 * believed.seen[kind])
        photons = believed.priors[kind].sample(count, rng)
        again = referee.draw_density(count, AREA_PX2 * believed.seen[kind], rng)
        other = believed.draw(photons, again * AREA_PX2, rng)
        drawn.append((again, log_mean[other], believed.seen[other], even[other]))
    expected = (low + (high - low) * 0.4, chance @ log_mean, chance @ believed.seen, 0.25)
    for values, mean in zip(np.array(drawn).T, expected, strict=True):
        assert values.mean() == pytest.approx(mean, abs=5 * values.std() / math.sqrt(3000))
    # Where none is seen, kinds of which fewer are bright enough are likelier: by Poisson's law.
    weight = chance * np.exp(-9.0 * believed.seen)
    none = [believed.seen[believed.draw(np.empty(0), 9.0, rng)] for _ in range(3000)]
    se = np.std(none) / math.sqrt(3000)
    assert np.mean(none) == pytest.approx(weight @ believed.seen / weight.sum(), abs=5 * se)
