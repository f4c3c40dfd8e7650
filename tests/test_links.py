"""Guesses refined, weighed and summed up; all links of the chain on one small movie."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import ROOT
from sureloc.config.recipes import load_recipe
from sureloc.evaluate.configurations import _weights, agreed, log_normal, refined
from sureloc.evaluate.links import DRAWS, SPOTS, learn, localized, sights, ways
from sureloc.evaluate.trials import simulate
from sureloc.networks.weights import load_weights
from sureloc.physics.image import render_tiles
from sureloc.physics.priors import PhotonPrior, ScenePrior
from sureloc.physics.psf import GaussianPSF
from sureloc.physics.referee import FrameData
from sureloc.report.reproduction_links import SCENES

SIGMA = (1.0, 1.0)
PRIOR = ScenePrior(0.02, PhotonPrior.log_normal(1000.0, 0.25), 5.0, 0.5)


def frame(emitters: np.ndarray, seed: int, size: int = 24) -> FrameData:
    x, y, photons = torch.from_numpy(emitters.T.copy())[:, None, :]
    light = render_tiles(x, y, photons, GaussianPSF.round(1.0), (size, size))[0].numpy()
    rng = np.random.default_rng(seed)
    electrons = rng.poisson(light + 5.0) + rng.normal(0.0, 2.0, light.shape)
    return FrameData(electrons, np.full(light.shape, 4.0))


def test_the_guess_with_the_right_count_wins_in_each_crowd_on_its_own():
    pair = np.array([[5.0, 6.0, 1000.0], [7.0, 6.5, 1100.0]])
    lone = np.array([[17.0, 17.0, 900.0]])
    blurred = np.array([[6.0, 6.2, 1900.0]])
    twice = np.array([[16.2, 17.0, 500.0], [17.8, 17.0, 500.0]])
    data = frame(np.concatenate([pair, lone]), 1)
    # Each guess is right in one of the two crowds and wrong in the other.
    guesses = [np.concatenate([pair, twice]), np.concatenate([blurred, lone])]
    found = refined(guesses, data, PRIOR, SIGMA)
    assert found.log_evidence.shape == (2, 2)
    rows = found.best()
    assert len(rows.x_px) == 3
    order = np.argsort(rows.x_px)
    bound = np.sqrt(rows.var_x_px2[order])
    # Five standard deviations of the fit itself.
    assert (np.abs(rows.x_px[order] - [5.0, 7.0, 17.0]) < 5 * bound).all()
    mixed = found.mixture(1.0, 0.5, 200, np.random.default_rng(0))
    assert len(mixed.x_px) == 3
    np.testing.assert_allclose(
        np.sort(mixed.var_x_px2), np.sort(rows.var_x_px2), rtol=0.35
    )  # a variance of 200 samples scatters by 10 %


def test_intervals_of_refined_guesses_hold_as_often_as_they_say():
    rng = np.random.default_rng(3)
    held, number = 0, 0
    for k in range(40):
        truth = np.array([[8.0, 8.0, 1000.0], [15.0, 14.0, 1000.0]])
        truth[:, :2] += rng.uniform(-0.5, 0.5, (2, 2))
        start = truth + rng.normal(0, 1, truth.shape) * [0.15, 0.15, 100.0]
        rows = refined([start], frame(truth, 100 + k), PRIOR, SIGMA).best()
        held += int(
            (
                (rows.x_quantiles[:, 1] <= truth[:, 0]) & (truth[:, 0] <= rows.x_quantiles[:, 2])
            ).sum()
        )
        number += 2
    # 68 % of 80, within 3.5 binomial standard deviations.
    assert held / number == pytest.approx(0.68, abs=3.5 * (0.68 * 0.32 / 80) ** 0.5)


def test_guesses_that_meet_at_one_summit_weigh_as_one():
    lone = np.array([[12.0, 12.0, 1000.0]])
    data = frame(lone, 5)
    near = [lone + np.array([[0.2 * k - 0.2, 0.1, 50.0]]) for k in range(3)]
    other = np.array([[11.6, 12.0, 500.0], [12.4, 12.0, 500.0]])
    once = refined([near[0], other], data, PRIOR, SIGMA)
    often = refined([*near, other], data, PRIOR, SIGMA)
    assert _weights(often.log_evidence[:, 0])[-1] == pytest.approx(
        _weights(once.log_evidence[:, 0])[-1], rel=0.05
    )
    assert _weights(often.log_evidence[:, 0]).sum() == pytest.approx(1.0)


def test_no_guess_at_all_gives_no_rows():
    empty = np.empty((0, 3))
    data = frame(empty, 7)
    assert refined([empty], data, PRIOR, SIGMA).best().x_px.size == 0
    assert agreed([empty, empty], 1.0, 0.5).x_px.size == 0


def test_a_log_normal_law_comes_back():
    law = log_normal(PhotonPrior.log_normal(700.0, 0.4))
    assert law.median == pytest.approx(700.0, rel=0.01)
    assert law.log_sd == pytest.approx(0.4, rel=0.01)


def test_the_page_of_theory_says_what_networks_are_worth_where_molecules_are_faint():
    table = pd.read_csv(ROOT / "docs/results/links.csv")
    table = table[(table["scene"] == "faint") & (table["number"] == 2)]
    found = table.set_index(["density", "way"])["jaccard"]
    page = " ".join((ROOT / "docs/theory.md").read_text().split())
    sparse = [f"{found[0.71, way]:.3f}".removeprefix("0") for way in (DRAWS, SPOTS)]
    assert f"(Jaccard index {sparse[0]} against {sparse[1]} at 0.71 / um^2)" in page
    for density in sorted(set(table["density"])):
        assert found[density, DRAWS] >= found[density, SPOTS]
        assert found[density, "phi + moves"] >= found[density, DRAWS] - 0.01


@pytest.mark.parametrize("name", sorted(SCENES))
def test_the_study_knows_which_way_localize_goes(name):
    scene = SCENES[name]
    settings = ["frame.height=16", "frame.width=16", "scene.density_per_um2=1.78"]
    movie = simulate(load_recipe("peers", [*settings, *scene.settings]), 4, 1)
    networks = load_weights("fast")
    sight = next(sights(learn(movie, networks, 1), networks, None, 1))
    by_name = {way.name: way for way in ways((2,))}
    rows = localized(sight, 2).rows
    assert len(rows)
    for way in (scene.localize, *scene.others):
        found = by_name[way].localize(sight, 2)
        same = len(found) == len(rows) and np.array_equal(found.x_px, rows.x_px)
        assert same == (way == scene.localize), way
