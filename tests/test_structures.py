"""Clusters, rings and rulers: fits without bias, and intervals that hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import special

from simulated_runs import DRAWS, observed, recipe_truth
from sureloc.analysis.structures import (
    NOISE,
    Places,
    cluster_count,
    dbscan,
    fit_ring,
    fit_ruler,
    lone_structures,
    over_draws,
    pair_distance,
    ring_radius,
    ruler_spacing,
    scatter_nm,
)
from sureloc.errors import InputError

# --- Intervals ----------------------------------------------------------------------------------


def test_variances_within_and_between_draws_add_up():
    values = np.array([9.0, 10.0, 11.0])
    result = over_draws(values, np.array([3.0, 4.0, 5.0]), 1000)
    assert result.value == 10.0
    assert result.sd == pytest.approx(math.sqrt(4.0 + (4 / 3) * 1.0))
    assert (result.sd_draws, result.sd_sampling) == (1.0, 2.0)
    # Rubin: (m - 1) / share^2 = 2 / (1.333 / 5.333)^2 = 32 degrees of freedom, t = 2.037.
    assert result.high - 10.0 == pytest.approx(2.037 * result.sd, rel=0.01)
    with pytest.raises(InputError, match="two or more"):
        over_draws(values[:1], values[:1], 5)


def test_draws_that_agree_leave_sampling_alone():
    result = over_draws(np.full(4, 7.0), np.full(4, 0.25), 10_000)
    assert result.sd == 0.5
    assert result.high - 7.0 == pytest.approx(1.96 * 0.5, rel=1e-3)


# --- Clusters -----------------------------------------------------------------------------------


def slow_dbscan(points, radius, least):
    """By the definition, with whole distance matrices: sets of core points, and who is noise."""
    near = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1)) <= radius
    core = near.sum(1) >= least
    reach = near & core[:, None] & core[None]
    for _ in range(len(points)):
        reach = reach | (reach @ reach)
    sets = {frozenset(np.flatnonzero(reach[k])) for k in np.flatnonzero(core)}
    return sets, ~(near & core[None]).any(1)


def test_dbscan_is_its_definition(rng):
    points = np.concatenate(
        [rng.normal(c, 3.0, (15, 2)) for c in (0, 20, 60)] + [rng.uniform(-20, 90, (25, 2))]
    )
    labels = dbscan(points, 6.0, 5)
    sets, noise = slow_dbscan(points, 6.0, 5)
    assert np.array_equal(labels == NOISE, noise)
    near = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1)) <= 6.0
    core = near.sum(1) >= 5
    mine = {frozenset(np.flatnonzero(core & (labels == k))) for k in range(labels.max() + 1)}
    assert mine == sets
    assert len(dbscan(np.empty((0, 2)), 5.0, 3)) == 0
    assert (dbscan(points, 0.01, 3) == NOISE).all()


@pytest.mark.parametrize("wrong", [(0.0, 3), (5.0, 0), (math.nan, 3)])
def test_impossible_clusters_are_refused(wrong):
    with pytest.raises(InputError, match="radius_nm"):
        dbscan(np.zeros((3, 2)), *wrong)


def test_clusters_that_everybody_sees_are_counted_without_doubt(rng):
    centres = np.stack(np.meshgrid(np.arange(4), np.arange(3)), -1).reshape(-1, 2) * 500.0
    truth = pd.DataFrame(np.repeat(centres, 40, axis=0), columns=["x_nm", "y_nm"])
    _, draws = observed(truth.assign(frame=np.arange(len(truth)) % 100), rng)
    result = cluster_count(draws, 40.0, 8)
    assert (result.value, result.low, result.high) == (12.0, 12.0, 12.0)


def test_doubtful_clusters_widen_the_interval(rng):
    centres = rng.uniform(0, 4000, (40, 2))
    number = rng.poisson(6, 40)
    truth = pd.DataFrame(np.repeat(centres, number, axis=0), columns=["x_nm", "y_nm"])
    _, draws = observed(truth.assign(frame=rng.integers(100, size=len(truth))), rng)
    result = cluster_count(draws, 40.0, 6)
    assert result.low < result.value < result.high
    assert result.sd_draws > 0
    assert result.sd_sampling > 0
    assert result.high - result.low < 40


def test_intervals_of_counts_hold_over_seeds():
    """Sites of six molecules on average are clusters where chance gives them six or more."""
    expected, results = 40 * special.pdtrc(5, 6.0), []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        centres, number = rng.uniform(0, 6000, (40, 2)), rng.poisson(6, 40)
        truth = pd.DataFrame(np.repeat(centres, number, axis=0), columns=["x_nm", "y_nm"])
        _, draws = observed(truth.assign(frame=rng.integers(100, size=len(truth))), rng)
        results.append(cluster_count(draws, 40.0, 6))
    # Counts scatter by sqrt(40 x 0.55 x 0.45) = 3.1 from movie to movie, their mean by 1.
    assert np.mean([one.value for one in results]) == pytest.approx(expected, abs=4.0)
    held = sum(one.low <= expected <= one.high for one in results)
    assert held >= 7  # a binomial of .95 is below 7 of 10 once in a thousand
    # Leaving out frames moves counts at the threshold more than chance does: intervals of 14 would
    # do (Student's t of ten parts), these are half as wide again.
    assert np.mean([one.high - one.low for one in results]) < 25


# --- Fits ---------------------------------------------------------------------------------------


def test_ring_fits_are_not_biased_by_scatter(rng):
    """Mean distance from the centre would be R + s^2 / 2R = 56 for this scatter."""
    found = []
    for _ in range(60):
        angle = 2 * math.pi * rng.integers(8, size=80) / 8
        points = 53.0 * np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(0, 18.0, (80, 2))
        found.append(fit_ring(points + np.array([300.0, -90.0]), np.full(80, 18.0)))
    radius = np.array([one.radius_nm for one in found])
    # 60 fits of 80 points: each is uncertain by about 18 / sqrt(80) = 2 nm, their mean by 0.3.
    assert radius.mean() == pytest.approx(53.0, abs=1.0)
    assert 1.2 < radius.std(ddof=1) < 4.0
    centre = np.mean([one.centre_nm for one in found], axis=0)
    assert centre == pytest.approx([300.0, -90.0], abs=1.5)


def test_ring_fits_scale_and_move_with_their_points(rng):
    angle = rng.uniform(0, 2 * math.pi, 60)
    points = 50 * np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(0, 5, (60, 2))
    one = fit_ring(points, np.full(60, 5.0))
    two = fit_ring(3 * points + 1000.0, np.full(60, 15.0))
    assert two.radius_nm == pytest.approx(3 * one.radius_nm, rel=1e-3)
    assert fit_ring(points[:4], np.full(4, 5.0)) is None


@pytest.mark.parametrize("spots", [2, 3])
def test_ruler_fits_are_not_biased_by_scatter(rng, spots):
    found = []
    for _ in range(60):
        spot = rng.integers(spots, size=60) - 0.5 * (spots - 1)
        angle = rng.uniform(0, math.pi)
        points = 80.0 * spot[:, None] * [math.cos(angle), math.sin(angle)]
        ruler = fit_ruler(points + rng.normal(0, 16.0, (60, 2)), np.full(60, 16.0), spots)
        found.append(ruler.spacing_nm)
        off = (ruler.angle_deg - math.degrees(angle) + 90) % 180 - 90
        assert abs(off) < 15
    # Each is uncertain by some 16 sqrt(12 / (60 (spots^2 - 1))) < 5 nm, the mean of 60 by 0.6.
    assert np.mean(found) == pytest.approx(80.0, abs=2.0)


def test_a_ruler_with_a_missing_middle_keeps_its_spacing(rng):
    spot = np.repeat([-1.0, 1.0], 30)
    points = 80.0 * spot[:, None] * [0.6, 0.8] + rng.normal(0, 8.0, (60, 2))
    assert fit_ruler(points, np.full(60, 8.0), 3).spacing_nm == pytest.approx(80.0, abs=4.0)
    assert fit_ruler(points[:3], np.full(3, 8.0), 3) is None
    with pytest.raises(InputError, match="spots is 1"):
        fit_ruler(points, np.full(60, 8.0), 1)


def test_pair_distances_hold_the_truth_and_do_not_grow_with_scatter(rng):
    values, naive, held = [], [], 0
    for _ in range(40):
        seen = [np.array([d, 0.0]) + rng.normal(0, 30.0, (60, 2)) for d in (0.0, 25.0)]
        groups = [[one + rng.normal(0, 30.0, one.shape) for _ in range(6)] for one in seen]
        result = pair_distance(*groups, rng, resamples=60)
        values.append(result.value)
        naive.append(
            np.mean([np.hypot(*(a.mean(0) - b.mean(0))) for a, b in zip(*groups, strict=True)])
        )
        held += result.low <= 25.0 <= result.high
    # Naively, 25 nm between middles uncertain by 5.5 nm an axis each would come out as 27.3. Taking
    # the root costs 1 nm on average; the mean of 40 is uncertain by 1 nm.
    assert np.mean(values) == pytest.approx(25.0 - 1.0, abs=3.0)
    assert np.mean(naive) - np.mean(values) > 1.5
    assert held >= 34  # a binomial of .95 is below 34 of 40 once in three hundred
    with pytest.raises(InputError, match="fewer than two points"):
        pair_distance([np.zeros((1, 2))] * 2, [np.zeros((9, 2))] * 2, rng)


# --- Draws and places ---------------------------------------------------------------------------


def test_a_draws_scatter_is_that_of_the_row_it_belongs_to(rng):
    truth = pd.DataFrame(
        {"frame": np.arange(200) % 20, "x_nm": np.arange(200) * 300.0, "y_nm": 0.0}
    )
    table, draws = observed(truth, rng)
    scatter = scatter_nm(draws, table)
    assert np.allclose(scatter, math.sqrt(2) * np.tile(table["sigma_x_nm"], DRAWS))
    stray = draws.head(2).assign(x_nm=1e6, frame=[0, 999])
    usual = math.sqrt(2) * table.loc[table["frame"] == 0, "sigma_x_nm"].median()
    assert scatter_nm(stray, table)[0] == pytest.approx(usual)


def test_structures_stand_alone_or_are_left_out(rng):
    angle = rng.uniform(0, 2 * math.pi, (4, 60))
    centre = np.array([[0, 0], [1000, 0], [1150, 0], [0, 1000]])
    ring = 50 * np.stack([np.cos(angle), np.sin(angle)], -1) + centre[:, None]
    blob = rng.normal([500, 1000], 8.0, (60, 2))
    points = np.concatenate([ring.reshape(-1, 2), blob])
    table = pd.DataFrame({"frame": 0, "x_nm": points[:, 0], "y_nm": points[:, 1]})
    places = lone_structures(table, 30.0, 5, (35.0, 70.0))
    assert places.centre_nm == pytest.approx(np.array([[0, 0], [0, 1000]]), abs=8)
    assert lone_structures(table.head(0), 30.0, 5, (35.0, 70.0)).centre_nm.shape == (0, 2)


def test_radii_of_simulated_pores_hold_the_truth():
    """Over seeds of the shipped recipe, with errors and draws as wide as stated."""
    held, values = 0, []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        truth = recipe_truth("rings", ["scene.rings=40"], 120, seed)
        table, draws = observed(truth, rng)
        places = lone_structures(table, 45.0, 6, (35.0, 75.0))
        assert len(places.centre_nm) >= 8
        result = ring_radius(draws, table, places, rng, linker_nm=3.0, resamples=100)
        held += result.low <= 53.0 <= result.high
        values.append(result.value)
        assert result.sd < 2.5
    assert held >= 2
    assert np.mean(values) == pytest.approx(53.0, abs=1.5)


def test_spacings_of_simulated_rulers_hold_the_truth():
    held, values = 0, []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        truth = recipe_truth("nanoruler", ["scene.rulers=30"], 400, seed)
        table, draws = observed(truth, rng)
        places = lone_structures(table, 90.0, 8, (55.0, 110.0))
        assert len(places.centre_nm) >= 8
        result = ruler_spacing(draws, table, places, 3, rng, linker_nm=2.0, resamples=100)
        held += result.low <= 80.0 <= result.high
        values.append(result.value)
        assert result.sd < 4.0
    assert held >= 2
    assert np.mean(values) == pytest.approx(80.0, abs=2.0)


def test_a_single_structure_has_no_error_bar(rng):
    truth = pd.DataFrame({"frame": np.arange(50), "x_nm": 0.0, "y_nm": 0.0})
    table, draws = observed(truth, rng)
    with pytest.raises(InputError, match="at least two"):
        ring_radius(draws, table, Places(np.zeros((1, 2)), 90.0), rng)
