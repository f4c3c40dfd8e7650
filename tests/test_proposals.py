"""What the networks propose: places read from draws, their brightness, and chains that use them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from sureloc.localize.frames import Effort
from sureloc.localize.movie import localize, prepare
from sureloc.localize.proposals import (
    FAINTEST,
    GUIDE_FLOOR,
    GUIDE_RING,
    Known,
    begin_of_frame,
    birth_guide,
    brightness,
    maxima,
    outside_training,
    propose,
    within_training,
)
from sureloc.networks.weights import Networks, load_weights
from sureloc.physics.kde import peak_of_one, render_kde
from sureloc.physics.referee import FrameData
from test_localize import BACKGROUND, CAMERA, OPTIONS, SIGMA, Movie, image, movie_of, scattered

SHAPE = (26, 30)


@pytest.fixture(scope="module")
def networks():
    return load_weights()


def test_maxima_are_where_the_emitters_are():
    x = torch.tensor([4.1, 12.6, 25.1], dtype=torch.float64)
    y = torch.tensor([20.3, 7.45, 3.05], dtype=torch.float64)
    kde = render_kde(x, y, torch.ones_like(x), torch.zeros(3).long(), (1, *SHAPE), 1.0)[0].numpy()
    found = np.stack(maxima(kde, 0.4 * peak_of_one(1.0)))
    order = found[0].argsort()
    # The centroid of 3 x 3 of a Gaussian of 1 fine px leans to the middle pixel, by up to 0.25.
    np.testing.assert_allclose(found[:, order], np.stack([x, y]), atol=0.25 / 4)
    assert maxima(kde, 2 * peak_of_one(1.0))[0].size == 0


def test_brightness_is_that_of_the_light_and_never_lost():
    emitters = np.array([(6.0, 9.0, 500.0), (8.5, 9.5, 900.0), (20.0, 18.0, 700.0)])
    light = image(emitters, SHAPE)
    data = FrameData(light + BACKGROUND, np.full(SHAPE, 3.0))
    x, y = np.append(emitters[:, 0], 3.0), np.append(emitters[:, 1], 22.0)
    found = brightness(x, y, light, data, (SIGMA, SIGMA), 700.0)
    np.testing.assert_allclose(found[:3], emitters[:, 2], rtol=0.02)
    assert found[3] == FAINTEST * 700.0  # nothing is there
    hidden = replace(data, ignore=light > 2.0)
    assert np.isfinite(brightness(x, y, light, hidden, (SIGMA, SIGMA), 700.0)).all()
    assert brightness(x[:0], y[:0], light, data, (SIGMA, SIGMA), 700.0).size == 0


def test_the_guide_leads_outside_where_the_border_is_bright():
    light = np.zeros((6, 8))
    light[3, 0] = 90.0
    guide = birth_guide(np.ones((24, 32)), light, 2)
    assert guide.shape == (40, 48)
    assert guide.sum() == pytest.approx(1.0)
    ring = guide.copy()
    ring[8:-8, 8:-8] = 0.0
    beside = ring[8 + 8 : 8 + 20, :8].sum()  # rows 2 to 4, left of the frame
    assert beside > GUIDE_RING
    assert ring.sum() - beside < GUIDE_FLOOR
    assert birth_guide(np.ones((24, 32)), light, 0).shape == (24, 32)
    dark = birth_guide(np.zeros((24, 32)), np.zeros((6, 8)), 2)
    assert (dark > 0).all()


def test_what_networks_have_not_seen_is_said(networks):
    assert outside_training(networks, 500.0, 0.01, 20.0, 1.0) == []
    assert outside_training(networks, 500.0, 0.01, 20.0, 0.0) == []
    for change, words in (
        ((20_000.0, 0.01, 20.0, 1.0), "brightness (2e+04 photo-electrons)"),
        ((500.0, 0.2, 20.0, 1.0), "density"),
        ((500.0, 0.01, 900.0, 1.0), "background"),
        ((500.0, 0.01, 20.0, 40.0), "read noise"),
    ):
        (clause,) = outside_training(networks, *change)
        assert words in clause


def test_draws_propose_the_frames_emitters(networks):
    truth = scattered(1, 7, SHAPE)[0]
    rng = np.random.default_rng(5)
    electrons = rng.poisson(image(truth, SHAPE) + BACKGROUND).astype(float)
    data = FrameData(electrons, np.full(SHAPE, 3.0))
    level = np.full(SHAPE, BACKGROUND)
    spots = np.column_stack([truth[:, :2].round(), np.full(len(truth), 650.0)])
    known = Known(data, level, (SIGMA, SIGMA), 650.0, 2.5, spots, 0, 0)
    said = propose(networks, known, 3)
    assert len(said.starts) == 3
    for start in said.starts:
        distance = np.hypot(*(start[:, None, :2] - truth[None, :, :2]).transpose(2, 0, 1))
        # 650 photons at sigma 1.2 px: errors of 0.06 px, the fine grid's centroid adds as much.
        assert (distance.min(0) < 0.4).sum() >= 6
    assert said.margin_px == 3
    assert said.guide.shape == (4 * (SHAPE[0] + 6), 4 * (SHAPE[1] + 6))
    assert said.guide.sum() == pytest.approx(1.0)
    assert said.guide.min() >= GUIDE_FLOOR / said.guide.size * 0.999
    column, row = np.rint((truth[0, :2] + 3) * 4 + 1.5).astype(int)
    assert said.guide[row, column] > 20 * said.guide.mean()
    hidden = replace(data, ignore=np.ones(SHAPE, bool))
    unseen = replace(known, data=hidden)
    assert all(len(start) <= 1 for start in propose(networks, unseen, 3).starts)


def test_bright_emitters_begin_at_spots(networks):
    emitters = np.array([[8.2, 11.7, 650.0], [19.3, 14.1, 650.0]])
    electrons = np.random.default_rng(3).poisson(image(emitters, SHAPE) + BACKGROUND).astype(float)
    data, level = FrameData(electrons, np.full(SHAPE, 3.0)), np.full(SHAPE, BACKGROUND)
    known = Known(data, level, (SIGMA, SIGMA), 650.0, 2.5, emitters, 0, 0)
    begin = begin_of_frame(networks, known, 3)
    (start,) = begin.starts
    assert start is emitters
    column, row = np.rint(emitters[0, :2] + 3).astype(int)
    assert begin.guide.shape == (SHAPE[0] + 6, SHAPE[1] + 6)
    assert begin.guide[row, column] > 10 * begin.guide.mean()


def test_networks_see_frames_first_where_emitters_may_hide(networks):
    shape = (60, 60)
    lone = np.array([[10.2, 11.7, 100.0], [45.3, 44.1, 100.0]])
    rng = np.random.default_rng(4)
    electrons = rng.poisson(image(lone, shape) + 10.0).astype(float)
    data = FrameData(electrons, np.full(shape, 3.0))
    # 100 photons are 6 deviations here: the second, not detected, is found by the networks alone.
    level = np.full(shape, 10.0)
    known = Known(data, level, (SIGMA, SIGMA), 100.0, 2.5, lone[:1], 0, 0)
    said = begin_of_frame(networks, known, 3)
    assert len(said.starts) == 4
    column, row = np.rint((lone[1, :2] + 3) * 4 + 1.5).astype(int)
    near = said.guide[row - 3 : row + 4, column - 3 : column + 4]
    assert near.max() > 20 * said.guide.mean()


def test_networks_are_used_within_what_they_were_trained_on(networks):
    assert within_training(networks, (0.8, 1.8))
    assert not within_training(networks, (0.7, 1.0))
    silent = Networks(networks.phi, networks.psi, networks.card.model_copy(update={"training": {}}))
    assert not within_training(silent, (1.2, 1.2))
    movie = movie_of(scattered(2, 4, SHAPE), SHAPE)
    said = prepare(movie, CAMERA, OPTIONS, silent)
    assert any("PSF width is outside" in warning for warning in said.warnings)


def test_workers_and_neighbouring_frames_change_nothing(networks):
    movie = movie_of(scattered(3, 7, SHAPE), SHAPE)
    assumptions = prepare(movie, CAMERA, OPTIONS, networks)
    one = list(localize(movie, assumptions, OPTIONS, networks))
    many = list(localize(movie, assumptions, replace(OPTIONS, workers=3), networks))
    alone = list(localize(Movie(movie.adu[:1]), assumptions, OPTIONS, networks))
    for mine, theirs in zip(one, many, strict=True):
        pd.testing.assert_frame_equal(mine.table, theirs.table)
    pd.testing.assert_frame_equal(one[0].table, alone[0].table)


def test_networks_change_the_draws_of_faint_emitters_only(networks):
    places = [(6 + 5 * i, 6 + 5 * j) for i in range(3) for j in range(3)]
    for photons, asked in ((60.0, True), (900.0, False)):
        emitters = np.array([(x, y, photons) for x, y in places])
        movie = movie_of([emitters] * 3, SHAPE)
        told = replace(OPTIONS, sigma_px=SIGMA, effort=Effort())
        assumptions = prepare(movie, CAMERA, told, networks)
        with_networks = list(localize(movie, assumptions, told, networks))
        without = list(localize(movie, assumptions, told))
        pairs = zip(with_networks, without, strict=True)
        assert any(not one.draws.equals(other.draws) for one, other in pairs) == asked
