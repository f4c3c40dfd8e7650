"""From draws to rows: who is who, how sure, and by which interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import linear_sum_assignment

from sureloc.compiled.assignment import assign_draws, missed_points, nearest_rows
from sureloc.physics.consensus import (
    QUANTILES,
    consensus,
    effective_number,
    student_widening,
)


def padded(lists):
    """Draws of (n, 3) emitters as padded x, y, photons and counts, in shuffled order."""
    rng = np.random.default_rng(0)
    counts = np.array([len(one) for one in lists])
    out = np.zeros((3, len(lists), max(counts.max(), 1)))
    for k, one in enumerate(lists):
        out[:, k, : len(one)] = np.asarray(one, float).reshape(-1, 3)[rng.permutation(len(one))].T
    return *out, counts


def test_rows_carry_moments_probability_and_quantiles_of_their_emitter(rng):
    first = np.stack([rng.normal(3, 0.1, 999), rng.normal(4, 0.2, 999)], 1)
    second = rng.normal((9, 5), 0.05, (999, 2))
    there = np.arange(999) % 10 < 7
    lists = [
        [(*a, 500 + k % 9)] + ([(*b, 300)] if here else [])
        for k, (a, b, here) in enumerate(zip(first, second, there, strict=True))
    ]
    rows = consensus(*padded(lists), gate_px=1.0, least_probability=0.2)
    order = np.argsort(rows.x_px)
    assert rows.p_exists[order] == pytest.approx([1.0, there.mean()])
    assert rows.x_px[order] == pytest.approx([first[:, 0].mean(), second[there, 0].mean()])
    assert rows.var_y_px2[order] == pytest.approx(
        [first[:, 1].var(ddof=1), second[there, 1].var(ddof=1)], rel=0.005
    )
    assert rows.cov_xy_px2[order[0]] == pytest.approx(np.cov(first.T)[0, 1], rel=0.005)
    assert rows.photons[order] == pytest.approx([504, 300], abs=0.1)
    # Of about 500 effective draws Student's law makes intervals wider by a thousandth or two.
    # Weibull's rule: of 999 draws the 25th smallest has one more draw below it with 2.5 %.
    assert rows.x_quantiles[order[0], 0] == pytest.approx(np.sort(first[:, 0])[24], abs=1e-3)
    assert rows.y_quantiles[order[0], 3] == pytest.approx(np.sort(first[:, 1])[974], abs=2e-3)
    assert rows.var_photons[order[1]] == pytest.approx(0.0, abs=1e-9)


def test_rare_emitters_are_left_out_and_missed_ones_are_found(rng):
    lists = []
    for k in range(100):
        one = [(2 + 0.1 * rng.normal(), 2.0, 100.0)]
        if k % 10 == 0:  # in a tenth of the draws
            one.append((8.0, 8.0, 100.0))
        if k % 2 == 0:
            one.append((2.0, 8 + 0.1 * rng.normal(), 100.0))
        lists.append(one)
    rows = consensus(*padded(lists), gate_px=1.0, least_probability=0.3)
    assert sorted(rows.p_exists) == pytest.approx([0.5, 1.0])
    everything = consensus(*padded(lists), gate_px=1.0, least_probability=0.05)
    assert sorted(everything.p_exists) == pytest.approx([0.1, 0.5, 1.0])


def test_draws_of_one_widely_scattered_emitter_are_not_divided_between_rows(rng):
    # The posterior of a dim emitter is nearly as wide as the gate: 0.35 of it along each axis.
    for _ in range(60):
        place = rng.normal(5, 0.35, (80, 2))
        rows = consensus(*padded([[(*at, 90.0)] for at in place]), 1.0, 0.02)
        within = (np.linalg.norm(place - place.mean(0), axis=1) < 1.0).mean()
        assert rows.p_exists.max() >= within - 0.05
    # Without joining it was 0.5 to 0.6 in a third of them.
    # Two emitters nearer than the gate, in the same draws, stay two.
    two = [[(5.0, 5.0, 90.0), (5.7 + 0.05 * rng.normal(), 5.0, 90.0)] for _ in range(80)]
    assert consensus(*padded(two), 1.0, 0.02).p_exists == pytest.approx([1.0, 1.0])
    # So do an emitter and one that is there in every fourth draw only.
    some = [pair if k % 4 == 0 else pair[:1] for k, pair in enumerate(two)]
    assert sorted(consensus(*padded(some), 1.0, 0.02).p_exists) == pytest.approx([0.25, 1.0])


def test_how_well_it_is_known_that_a_row_exists_is_told_apart_from_where_it_is(rng):
    # The first emitter comes and goes from draw to draw, the second is in two chains of four.
    chains, length = 4, 100
    draws = chains * length
    here = np.stack([rng.random(draws) < 0.5, np.arange(draws) < draws // 2])
    x, y = np.array([[5.0], [15.0]]), 5.0 + rng.normal(0, 0.1, (2, draws))
    counts = here.sum(0)
    order = np.argsort(~here, axis=0, kind="stable")
    x, y = (np.take_along_axis(a + np.zeros((2, draws)), order, 0).T for a in (x, y))
    rows = consensus(x, y, np.full((draws, 2), 500.0), counts, 1.0, 0.2, chains)
    coming, divided = rows.of_rows(rows.x_px < 10), rows.of_rows(rows.x_px > 10)
    assert coming.p_exists[0] == pytest.approx(0.5, abs=0.08)
    assert coming.existence_draws[0] > 0.5 * draws
    assert divided.p_exists[0] == 0.5
    assert divided.existence_draws[0] < 3 * chains
    assert min(coming.effective_draws[0], divided.effective_draws[0]) > 0.3 * draws / 2


def test_no_emitters_give_no_rows():
    rows = consensus(*padded([[], [], []]), gate_px=1.0, least_probability=0.2)
    assert rows.x_px.size == 0
    assert rows.x_quantiles.shape == (0, 4)


@pytest.mark.interpreted
def test_assignment_is_nearly_as_short_as_the_shortest():
    rng = np.random.default_rng(4)
    gate, ours, best = 1.0, 0.0, 0.0
    for _ in range(60):
        reference = rng.uniform(0, 4, (8, 2))
        x, y = (reference + rng.normal(0, 0.35, (8, 2))).T
        assigned = assign_draws(reference, x[None], y[None], np.array([8]), gate)[0]
        squared = (reference[:, :1] - x) ** 2 + (reference[:, 1:] - y) ** 2
        cost = np.minimum(squared, gate**2)
        rows, columns = linear_sum_assignment(cost)
        best += cost[rows, columns].sum()
        taken = assigned >= 0
        assert len(set(assigned[taken])) == taken.sum()
        assert (squared[assigned[taken], np.flatnonzero(taken)] <= gate**2).all()
        ours += squared[assigned[taken], np.flatnonzero(taken)].sum() + gate**2 * (~taken).sum()
    # Greedy with exchanges is 2 % longer here; greedy alone 11 %.
    assert best <= ours < 1.05 * best


@pytest.mark.interpreted
@pytest.mark.parametrize("number", [1, 2, 30])
def test_the_nearest_row_is_the_nearest(rng, number):
    rows, places = rng.uniform(0, 10, (number, 2)), rng.uniform(-3, 13, (200, 2))
    found = nearest_rows(rows, places[:, 0].copy(), places[:, 1].copy())
    apart = np.hypot(*(places[:, None] - rows).transpose(2, 0, 1))
    np.testing.assert_array_equal(found, apart.argmin(1))


@pytest.mark.interpreted
def test_missed_points_are_the_densest_places_one_after_another():
    x = np.array([[1.0, 5.0], [1.1, 9.0], [1.2, 5.1]])
    y = np.zeros((3, 2))
    free = np.full((3, 2), -1)
    counts = np.array([2, 2, 2])
    # Round 1.1 lie three, round 5.0 or 5.1 two, and the one at 9 is alone.
    found = missed_points(x, y, free, counts, 0.15, 0.3, 2.0)
    assert found[0].tolist() == [1.1, 0.0]
    assert found.shape == (2, 2)
    assert found[1, 0] in (5.0, 5.1)
    assert missed_points(x, y, free, counts, 0.15, 0.3, 1.0).shape == (3, 2)
    assert missed_points(x, y, free, counts, 0.15, 0.3, 4.0).shape == (0, 2)
    taken = free.copy()
    taken[:, 0] = 0
    assert missed_points(x, y, taken, counts, 0.15, 0.3, 2.0)[:, 0].round().tolist() == [5.0]
    # Two emitters of one draw at one place: the place takes one, and the other is still missed.
    twice = np.array([[1.0, 1.05], [1.0, 9.0]])
    counts = np.array([2, 2])
    assert len(missed_points(twice, np.zeros((2, 2)), free[:2], counts, 0.15, 0.3, 1.0)) == 3


def autoregressive(rng, chains, length, correlation):
    """Standard normal chains whose neighbours are correlated, and a truth from the same law."""
    values = rng.normal(size=(chains, length))
    for k in range(1, length):
        values[:, k] = correlation * values[:, k - 1] + math.sqrt(1 - correlation**2) * values[:, k]
    return values


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_correlated_draws_count_as_fewer(rng, correlation):
    # The time of an AR(1) process is (1 + r) / (1 - r). Over 60 repeats its estimate's standard
    # error is below 3 %; the short-range cut of Geyer's sums costs independent draws up to 15 %.
    draws = 4 * 400
    values = np.stack([autoregressive(rng, 4, 400, correlation).ravel() for _ in range(60)])
    found = effective_number(values - values.mean(1, keepdims=True), np.ones(values.shape, bool), 4)
    assert np.mean(found) == pytest.approx(draws * (1 - correlation) / (1 + correlation), rel=0.18)


def test_chains_that_disagree_count_as_a_draw_or_two_each(rng):
    values = np.repeat([-3.0, 3.0, -2.0, 2.0], 100) + 0.1 * rng.normal(size=400)
    both = np.stack([values, rng.permutation(values)]) - values.mean()
    together, shuffled = effective_number(both, np.ones(both.shape, bool), 4)
    assert together < 10
    # The same values in random order are independent draws.
    assert shuffled > 300


def test_draws_that_lack_the_emitter_do_not_count(rng):
    held = np.zeros((2, 400), bool)
    held[0, rng.choice(400, 150, replace=False)] = True
    held[1, :5] = True
    values = np.zeros((2, 400))
    values[0, held[0]] = rng.normal(size=150)
    values[0, held[0]] -= values[0, held[0]].mean()
    some, alike = effective_number(values, held, 4)
    assert 100 < some <= 150
    assert alike == 5


def test_widening_is_that_of_student(rng):
    size = np.array([5.0])
    sample = rng.normal(size=(200_000, 6))
    mean, sd = sample[:, :5].mean(1), sample[:, :5].std(1, ddof=1)
    factor = student_widening(size)[0] * stats.norm.ppf(QUANTILES)
    below = [np.mean(sample[:, 5] < mean + sd * f) for f in factor]
    assert below == pytest.approx(QUANTILES, abs=0.004)  # 3 binomial standard errors
    assert student_widening(np.array([1e7])) == pytest.approx(np.ones((1, 4)), abs=1e-6)


def test_intervals_hold_although_draws_are_correlated(rng):
    """160 draws that tell as much as 18: plain quantiles would hold .85 instead of .95."""
    held, plain, repeats = 0, 0, 400
    for _ in range(repeats):
        x = autoregressive(rng, 4, 40, 0.8).reshape(-1, 1)
        truth = rng.normal()
        rows = consensus(
            x, np.zeros_like(x), np.ones_like(x), np.ones(160, np.int64), 20.0, 0.2, chains=4
        )
        low, high = np.quantile(x, [QUANTILES[0], QUANTILES[-1]], method="weibull")
        plain += low <= truth <= high
        held += rows.x_quantiles[0, 0] <= truth <= rows.x_quantiles[0, 3]
    # Binomial standard error .011.
    assert held / repeats == pytest.approx(0.95, abs=0.03)
    assert plain / repeats < held / repeats - 0.01
