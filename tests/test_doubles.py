"""Pairs of rows in one frame beside those by chance."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from sureloc.localize.doubles import Doubles, Excess

SIGMA_NM, SIDE_NM = 100.0, 3000.0


def on_rings(rng, number):
    """Places on two rings, where molecules are 20 times as dense as in the whole field."""
    angle = rng.uniform(0, 2 * math.pi, number)
    centre = rng.choice([800.0, 2200.0], number)
    radius = 300.0 + rng.normal(0, 20, number)
    return np.stack([centre + radius * np.cos(angle), centre + radius * np.sin(angle)], axis=1)


def evenly(rng, number):
    return rng.uniform(0, SIDE_NM, (number, 2))


@pytest.mark.parametrize("places", [evenly, on_rings])
def test_independent_molecules_make_no_excess_whatever_they_lie_on(places):
    alarms = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        doubles = Doubles(SIGMA_NM)
        for frame in range(60):
            # Some frames hold many more than others, and fewer and fewer.
            here = places(rng, rng.poisson(24 * rng.random() * (1 - frame / 100)))
            doubles.add(*here.T, rng.exponential(1000.0, len(here)))
        assert doubles.rows > 300
        np.testing.assert_allclose(doubles.together, doubles.by_chance, rtol=0.5, atol=15)
        alarms += doubles.excess.share > 0
        # Chance points so far in one movie of 3,000.
        assert doubles.excess.tail == 0.0
        assert doubles.faint > 30
    # 3 standard errors, for the farthest of four radii that share pairs: about one in 300.
    assert alarms <= 1


@pytest.mark.parametrize(("places", "share"), [(evenly, 0.1), (evenly, 0.4), (on_rings, 0.4)])
def test_spots_taken_for_two_are_counted(places, share):
    rng = np.random.default_rng(1)
    doubles = Doubles(SIGMA_NM)
    for _ in range(100):
        alone = places(rng, rng.poisson(12))
        twice = alone[rng.random(len(alone)) < share]
        angle = rng.uniform(0, 2 * math.pi, len(twice))
        beside = twice + 1.5 * SIGMA_NM * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        doubles.add(*np.concatenate([alone, beside]).T, np.ones(len(alone) + len(beside)))
    found = doubles.excess
    # Of 1 + share rows, one pair for each that is doubled; four in five near a ring are as far.
    assert found.share == pytest.approx(share / (1 + share), rel=0.35)
    assert found.ratio > 1.0


def test_molecules_that_blink_again_hide_nothing():
    rng = np.random.default_rng(2)
    sites = evenly(rng, 40)
    doubles = Doubles(SIGMA_NM)
    for _ in range(100):
        lit = sites[rng.random(len(sites)) < 0.3]
        beside = lit[rng.random(len(lit)) < 0.2] + [1.5 * SIGMA_NM, 0.0]
        doubles.add(*np.concatenate([lit, beside]).T, np.ones(len(lit) + len(beside)))
    assert doubles.excess.share > 0.1


def test_tables_are_taken_frame_by_frame():
    rng = np.random.default_rng(3)
    frame = rng.permutation(np.repeat([4, 5, 7], 20))
    x, y = rng.uniform(0, 1000, (2, 60))
    photons = rng.exponential(1000.0, 60)
    table = pd.DataFrame({"frame": frame, "x_nm": x, "y_nm": y, "photons": photons})
    one, other = Doubles(SIGMA_NM), Doubles(SIGMA_NM)
    one.add_frames(table, range(4, 8))
    for number in range(4, 8):
        one_frame = table[table["frame"] == number]
        other.add(*(one_frame[name].to_numpy() for name in ("x_nm", "y_nm", "photons")))
    np.testing.assert_array_equal(one.together, other.together)
    np.testing.assert_array_equal(one.by_chance, other.by_chance)
    np.testing.assert_array_equal(one.towards, other.towards)
    assert one.rows == 40
    assert one.together[0] > 0


def test_without_rows_there_is_no_excess():
    doubles = Doubles(SIGMA_NM)
    for _ in range(3):
        doubles.add(np.empty(0), np.empty(0), np.empty(0))
    assert doubles.excess == Excess(0.0, 1.0, 0.0)


def with_tails(rng, frames, shining, share, turned):
    """Rows of molecules, a share of which have a faint one beside them, on one side or any."""
    doubles = Doubles(SIGMA_NM)
    for _ in range(frames):
        alone = evenly(rng, rng.poisson(shining))
        bright = rng.gamma(4.0, 250.0, len(alone))
        tailed = rng.random(len(alone)) < share
        angle = rng.normal(0.0, 0.8, tailed.sum()) + turned * rng.uniform(0, 6.3, tailed.sum())
        way = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        places = np.concatenate([alone, alone[tailed] + 4.0 * SIGMA_NM * way])
        order = rng.permutation(len(places))
        doubles.add(*places[order].T, np.concatenate([bright, 0.08 * bright[tailed]])[order])
    return doubles


def test_faint_rows_on_one_side_are_a_tail_and_on_any_side_none():
    rng = np.random.default_rng(4)
    doubles = with_tails(rng, 100, 10.0, 0.5, turned=False)
    # Of 1 + share rows; their mean unit vector is exp(-0.8^2 / 2) long.
    assert doubles.excess.tail == pytest.approx(0.5 / 1.5 * math.exp(-0.32), rel=0.1)
    assert with_tails(rng, 100, 10.0, 0.5, turned=True).excess.tail == 0.0


def test_tails_show_in_few_frames():
    found = [
        with_tails(np.random.default_rng(k), 12, 9.0, 0.8, turned=False).excess for k in range(20)
    ]
    assert min(excess.tail for excess in found) > 0.15
