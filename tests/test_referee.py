"""The chains must draw from the posterior and from nothing else.

Without data they must return the prior, whatever moves they make; for one emitter they must agree
with a sum over a grid; chains from different starts must agree; and truths must rank uniformly
among draws (simulation-based calibration, Talts et al. 2018).
"""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
from scipy import special, stats

from sureloc.compiled import chain, scene
from sureloc.compiled.logarithm import quick_log
from sureloc.compiled.scene import normal_at
from sureloc.errors import InputError
from sureloc.physics import referee
from sureloc.physics.priors import PhotonPrior, ScenePrior, hat_functions
from sureloc.physics.referee import MOVE_NAMES, ChainLength, ChainTarget, FrameData, run_chain

MAX = 14


def image(x, y, photons, sigma, shape):
    """Expected photo-electrons, written out apart from the package's own rendering."""
    rows, columns = np.arange(shape[0]), np.arange(shape[1])

    def share(pixels, position):
        edge = (pixels[:, None] + np.array([-0.5, 0.5]) - position) / sigma
        return np.diff(special.ndtr(edge), axis=1)[:, 0]

    total = np.zeros(shape)
    for one_x, one_y, one_n in zip(x, y, photons, strict=True):
        total += one_n * np.outer(share(rows, one_y), share(columns, one_x))
    return total


def use_moves(monkeypatch, *names: str) -> None:
    """Let chains make these kinds of moves only, births and deaths as often as each other."""
    shares = np.array([float(name in names) for name in MOVE_NAMES])
    monkeypatch.setattr(referee, "_MOVE_SHARES", shares / shares.sum())


def only_these_were_made(draws, moves) -> None:
    tried = {name for name, number in zip(MOVE_NAMES, draws.tried, strict=True) if number}
    assert tried == set(moves)


def within_batches(values: np.ndarray, expected: float, largest_error: float) -> None:
    """Compare a chain's mean with its expectation; 30 batches tell how far it may be off.

    4.5 standard errors come by chance once in some 10,000 comparisons with 29 degrees of freedom;
    `largest_error` makes sure that the comparison can fail.
    """
    batches = values[: len(values) // 30 * 30].reshape(30, -1).mean(1)
    error = batches.std(ddof=1) / math.sqrt(30)
    assert error < largest_error, "the chain is too short for this comparison"
    assert abs(batches.mean() - expected) < 4.5 * error + 1e-12, (batches.mean(), expected, error)


@pytest.mark.parametrize(
    "moves",
    [
        ("birth", "death"),
        ("birth", "death", "block", "background"),
        ("birth", "death", "split", "merge"),
        ("birth", "death", "resplit"),
        ("birth", "death", "redraw"),
        MOVE_NAMES,
    ],
    ids="+".join,
)
def test_without_data_chains_return_the_prior(moves, monkeypatch):
    use_moves(monkeypatch, *moves)
    shape, expected = (7, 9), 3.0
    prior = ScenePrior(
        expected / (8.0 * 10.0), PhotonPrior.log_normal(300.0, 0.4), 50.0, 4.0, margin_px=0.5
    )
    data = FrameData(np.full(shape, 60.0), np.full(shape, 4.0), 1.0, np.ones(shape, bool))
    draws = run_chain(
        data,
        prior,
        (1.1, 1.1),
        ChainLength(500, 9000, 40),
        np.random.default_rng(3),
        max_emitters=MAX,
    )
    only_these_were_made(draws, moves)
    counts = draws.counts
    poisson = stats.poisson(expected)  # 14 or more: 6e-6
    within_batches(counts, expected, 0.1)
    within_batches((counts == 0).astype(float), poisson.pmf(0), 0.02)
    within_batches((counts >= 6).astype(float), poisson.sf(5), 0.02)
    present = draws.present
    area = 8.0 * 10.0
    # Moments of a Poisson process: the sum over emitters of any function has the mean
    # density * its integral, and the sum over pairs density^2 * the double integral.
    x, y, n = (np.where(present, a, 0.0) for a in (draws.x_px, draws.y_px, draws.photons))
    within_batches((present * (x - 4.0)).sum(1), 0.0, 0.6)
    within_batches((present * (x - 4.0) ** 2).sum(1), expected * 100 / 12, 2.5)
    within_batches((present * (y - 3.0) ** 2).sum(1), expected * 64 / 12, 1.7)
    log_n = np.log(np.where(present, n, 300.0) / 300.0)
    within_batches(log_n.sum(1), 0.0, 0.1)
    within_batches((log_n**2).sum(1), expected * 0.16, 0.05)
    within_batches(
        _near_pairs(draws, 2.0), 0.5 * expected**2 / area**2 * _disc_pairs(2.0, 10.0, 8.0), 0.05
    )
    if "background" in moves:
        within_batches(draws.knots[:, 0, 0], 50.0, 0.3)
        within_batches((draws.knots[:, 0, 0] - 50.0) ** 2, 16.0, 1.6)
    else:
        assert (draws.knots == 50.0).all()


EACH_KIND = pytest.mark.parametrize(
    "moves",
    [
        ("birth", "death", "block"),
        ("birth", "death", "split", "merge"),
        ("birth", "death", "resplit"),
        ("birth", "death", "redraw"),
        MOVE_NAMES,
    ],
    ids="+".join,
)


@EACH_KIND
def test_without_data_emitters_crowd_where_the_prior_has_them(moves, monkeypatch):
    use_moves(monkeypatch, *moves)
    shape, density = (7, 9), 3.0 / 80.0
    relative = np.full((14, 18), 0.4)
    relative[:, :8] = 1.6  # x < 3.5
    prior = ScenePrior(
        density,
        PhotonPrior.log_normal(300.0, 0.4),
        50.0,
        4.0,
        margin_px=0.5,
        relative_density=relative,
    )
    # Births are led elsewhere, most of them to the lower right and beyond what the prior allows.
    guide = np.ones((2 * 11, 2 * 13))
    guide[12:, 14:] = 4.0
    data = FrameData(np.full(shape, 60.0), np.full(shape, 4.0), 1.0, np.ones(shape, bool))
    draws = run_chain(
        data,
        prior,
        (1.1, 1.1),
        ChainLength(500, 9000, 40),
        np.random.default_rng(4),
        max_emitters=MAX,
        guide=guide,
        guide_margin_px=2,
    )
    only_these_were_made(draws, moves)
    left = (draws.present & (draws.x_px < 3.5)).sum(1).astype(float)
    right = (draws.present & (draws.x_px >= 3.5)).sum(1).astype(float)
    # The region reaches 0.5 px beyond the frame's edge, x from -1 to 9 and y over 8 px.
    within_batches(left, density * 8 * 4.5 * 1.6, 0.1)
    within_batches(right, density * 8 * 5.5 * 0.4, 0.05)
    within_batches((left - left.mean()) ** 2, density * 8 * 4.5 * 1.6, 0.2)  # Poisson
    within_batches((left - left.mean()) * (right - right.mean()), 0.0, 0.1)  # independent


@EACH_KIND
def test_without_data_chains_that_move_mostly_in_some_pixels_return_the_prior(moves, monkeypatch):
    use_moves(monkeypatch, *moves)
    shape, density = (7, 9), 3.0 / 80.0
    prior = ScenePrior(density, PhotonPrior.log_normal(300.0, 0.4), 50.0, 4.0, margin_px=0.5)
    data = FrameData(np.full(shape, 60.0), np.full(shape, 4.0), 1.0, np.ones(shape, bool))
    active = np.zeros(shape, bool)
    active[:, :4] = True  # x < 3.5
    target = ChainTarget.of(data, prior, (1.1, 1.1)).only_in(active)
    draws = target.run(ChainLength(500, 9000, 40), np.random.default_rng(5), max_emitters=MAX)
    assert ((draws.tried > 0) == np.isin(MOVE_NAMES, moves)).all()
    left = (draws.present & (draws.x_px < 3.5)).sum(1).astype(float)
    edge = (draws.present & (draws.x_px < 3.5) & (draws.x_px > 1.5)).sum(1).astype(float)
    beyond = (draws.present & (draws.x_px > 3.5) & (draws.x_px < 5.5)).sum(1).astype(float)
    within_batches(left, density * 8 * 4.5, 0.1)
    within_batches((left - left.mean()) ** 2, density * 8 * 4.5, 0.2)  # Poisson
    within_batches(edge, density * 8 * 2.0, 0.05)
    within_batches(beyond, density * 8 * 2.0, 0.2)
    # Hardly anything happens far from there, and what happens is right too.
    far = draws.present & (draws.x_px > 6.0)
    still = (far.sum(1)[1:] == far.sum(1)[:-1]).mean()
    assert still > 0.5


def test_moves_that_count_come_on_top_of_the_others():
    shape = (7, 9)
    prior = ScenePrior(3.0 / 80.0, PhotonPrior.log_normal(300.0, 0.4), 50.0, 4.0)
    data = FrameData(np.full(shape, 60.0), np.full(shape, 4.0))
    target = ChainTarget.of(data, prior, (1.1, 1.1), counting=0.5)
    made = target.run(ChainLength(0, 100, 400), np.random.default_rng(0)).tried / 40_000
    wanted = 0.5 * referee._MOVE_SHARES
    wanted[1:3] += 0.25
    # Five binomial standard errors.
    np.testing.assert_allclose(made, wanted, atol=5 * math.sqrt(0.25 / 40_000))


def _near_pairs(draws, radius: float) -> np.ndarray:
    dx = draws.x_px[:, :, None] - draws.x_px[:, None]
    dy = draws.y_px[:, :, None] - draws.y_px[:, None]
    both = draws.present[:, :, None] & draws.present[:, None]
    near = both & (dx**2 + dy**2 < radius**2) & ~np.eye(MAX, dtype=bool)
    return near.sum((1, 2)) / 2


def _disc_pairs(r: float, width: float, height: float) -> float:
    """Area of pairs closer than r in a rectangle: pi r^2 A - 4/3 r^3 (a + b) + r^4 / 2."""
    return math.pi * r**2 * width * height - 4.0 / 3.0 * r**3 * (width + height) + 0.5 * r**4


def test_one_emitter_agrees_with_a_sum_over_a_grid():
    shape, sigma, level, variance = (7, 7), 1.0, 4.0, 2.0
    rng = np.random.default_rng(12)
    truth = image([3.2], [2.7], [26.0], sigma, shape) + level
    data = FrameData(rng.poisson(truth + variance) - variance, np.full(shape, variance))
    prior = ScenePrior(0.02, PhotonPrior.uniform(20.0, 120.0), level, 0.0)
    draws = run_chain(
        data,
        prior,
        (sigma, sigma),
        ChainLength(1000, 12_000, 25),
        np.random.default_rng(5),
        max_emitters=1,
    )
    grid = np.linspace(-0.5, 6.5, 141)[:-1] + 0.025
    photons = np.linspace(20, 120, 101)[:-1] + 0.5
    shapes = np.array([np.diff(special.ndtr(np.arange(8) - 0.5 - at)) for at in grid])
    unit = shapes[:, None, :, None] * shapes[None, :, None, :]  # y, x, row, column
    counts = data.electrons + variance
    log_l = np.empty((grid.size, grid.size, photons.size))
    for k, one in enumerate(photons):
        rate = one * unit + level + variance
        log_l[:, :, k] = (counts * np.log(rate / (level + variance)) - one * unit).sum((2, 3))
    weight = np.exp(log_l)
    # density * area per cell of position, 1 / 100 per photo-electron
    odds = 0.02 * weight.sum() * 0.05**2 / 100
    assert 0.1 < odds / (1 + odds) < 0.9, "the example must be undecided"
    weight /= weight.sum()
    within_batches(draws.counts.astype(float), odds / (1 + odds), 0.02)
    has = draws.counts == 1
    x, y, n = (a[has, 0] for a in (draws.x_px, draws.y_px, draws.photons))
    for values, axis, points, error in ((y, 0, grid, 0.05), (x, 1, grid, 0.05), (n, 2, photons, 1)):
        other = tuple(k for k in range(3) if k != axis)
        marginal = weight.sum(other)
        mean = (marginal * points).sum()
        within_batches(values, mean, error)
        sd = math.sqrt((marginal * (points - mean) ** 2).sum())
        within_batches((values - mean) ** 2, sd**2, 3 * error * sd)


def test_chains_from_different_starts_agree():
    shape = (12, 12)
    truth = image([4.0, 5.4, 8.0], [5.0, 5.6, 8.5], [400, 300, 500], 1.1, shape) + 3.0
    data = FrameData(np.random.default_rng(1).poisson(truth + 2.0) - 2.0, np.full(shape, 2.0))
    prior = ScenePrior(3 / 144, PhotonPrior.log_normal(400.0, 0.4), 3.0, 1.0)
    starts = (None, np.array([[x, y, 300.0] for x in (2.0, 9.0) for y in (2.0, 6.0, 9.0)]))
    probability, means = [], []
    for k, start in enumerate(starts):
        draws = run_chain(
            data,
            prior,
            (1.1, 1.1),
            ChainLength(4000, 1500, 60),
            np.random.default_rng(k),
            start=start,
            max_emitters=10,
        )
        probability.append(draws.count_probabilities())
        means.append(draws.expected_e)
    # 1500 draws that hang together over some 5: counts differ by sqrt(2 * .25 / 300) = .04.
    assert np.abs(probability[0] - probability[1]).max() < 0.12
    assert probability[0][3] > 0.5
    assert np.abs(means[0] - means[1]).max() < 0.05 * means[0].max()


def test_truths_rank_uniformly_among_draws():
    shape, sigma, variance, kept = (8, 8), 1.1, 3.0, 63
    prior = ScenePrior(0.02, PhotonPrior.uniform(150.0, 600.0), 5.0, 1.0, margin_px=0.5)
    x_low, x_high, y_low, y_high = prior.region(shape)
    expected = 0.02 * (x_high - x_low) * (y_high - y_low)
    rng = np.random.default_rng(8)
    ranks = {name: [] for name in ("count", "light", "x", "background")}
    for tile in range(160):
        n = rng.poisson(expected)
        x, y = rng.uniform(x_low, x_high, n), rng.uniform(y_low, y_high, n)
        photons = prior.photons.sample(n, rng)
        level = stats.truncnorm(-5, 5, 5.0, 1.0).rvs(random_state=rng)
        omega = image(x, y, photons, sigma, shape) + level
        draws = run_chain(
            FrameData(rng.poisson(omega + variance) - variance, np.full(shape, variance)),
            prior,
            (sigma, sigma),
            ChainLength(6000, kept, 60),  # chains begin with no emitters
            np.random.default_rng([8, tile]),
            max_emitters=12,
        )
        light = np.where(draws.present, draws.photons, 0).sum(1)
        centroid = np.where(draws.present, draws.x_px, 0).sum(1)
        for name, drawn, true in (
            ("count", draws.counts, n),
            ("light", light, photons.sum()),
            ("x", centroid, x.sum()),
            ("background", draws.knots[:, 0, 0], level),
        ):
            low, ties = (drawn < true).sum(), (drawn == true).sum()
            ranks[name].append(low + rng.integers(0, ties + 1))
    for name, values in ranks.items():
        # 160 tiles in 8 bins of 20: p = 1e-3 is one failure in 1,000 seeds for each name.
        counts = np.bincount(np.array(values) * 8 // (kept + 1), minlength=8)
        assert stats.chisquare(counts).pvalue > 1e-3, (name, counts)


@pytest.mark.interpreted
def test_every_kind_of_move_happens_and_keeps_the_books():
    shape = (8, 8)
    truth = image([2.0, 4.6, 5.4], [3.0, 4.4, 5.2], [60, 50, 70], 0.9, shape) + 2.0
    data = FrameData(np.random.default_rng(2).poisson(truth + 1.0) - 1.0, np.full(shape, 1.0))
    prior = ScenePrior(
        4 / 64, PhotonPrior.uniform(20.0, 120.0), np.array([[2.0, 2.0], [2.0, 2.0]]), 0.6
    )
    guide = np.ones((16, 16))
    draws = run_chain(
        data,
        prior,
        (0.9, 0.9),
        ChainLength(400, 8, 200),
        np.random.default_rng(7),
        start=np.array([[2.0, 3.0, 60.0], [4.8, 4.8, 100.0]]),
        max_emitters=8,
        guide=guide,
    )
    assert draws.tried.sum() == 400 + 8 * 200
    assert (draws.accepted[[0, 3, 4, 6, 7]] > 0).all(), dict(
        zip(MOVE_NAMES, draws.accepted, strict=True)
    )
    assert (draws.photons[draws.present] >= 20).all()
    last = draws.counts[-1]
    background = hat_functions(8, 2).T @ draws.knots[-1] @ hat_functions(8, 2)
    again = run_chain(
        data,
        ScenePrior(4 / 64, PhotonPrior.uniform(20.0, 120.0), draws.knots[-1], 0.6),
        (0.9, 0.9),
        ChainLength(0, 1, 0),
        np.random.default_rng(0),
        start=np.stack([a[-1, :last] for a in (draws.x_px, draws.y_px, draws.photons)], 1),
        max_emitters=8,
    )
    emitters = [a[-1, :last] for a in (draws.x_px, draws.y_px, draws.photons)]
    assert np.allclose(again.expected_e, image(*emitters, 0.9, shape) + background, atol=1e-4)


def test_starts_that_the_prior_rules_out_lead_to_draws_that_it_allows():
    shape = (16, 16)
    prior = ScenePrior(0.02, PhotonPrior.log_normal(300.0, 0.1), 5.0, 1.0, margin_px=1.0)
    rng = np.random.default_rng(2)
    data = FrameData(rng.poisson(5.0, shape).astype(float), np.full(shape, 2.0))
    # Close pairs, so that blocks hold several emitters that are impossible at once.
    x, y = np.meshgrid(np.arange(3.0, 14.0, 5.0), np.arange(3.0, 14.0, 2.0))
    for photons in (-20.0, 0.0, 1.0, 1e7):
        start = np.stack([x.ravel(), y.ravel(), np.full(x.size, photons)], axis=1)
        draws = run_chain(
            data, prior, (1.0, 1.0), ChainLength(0, 40, 20), np.random.default_rng(4), start=start
        )
        low, high = np.exp(prior.photons.log_photons[[0, -1]])
        assert np.isfinite(draws.expected_e).all()
        held = draws.photons[draws.present]
        assert ((held >= low) & (held <= high)).all()
        assert start[0, 2] == photons


def test_impossible_density_maps_are_refused():
    photons = PhotonPrior.log_normal(300.0, 0.4)
    data = FrameData(np.zeros((5, 6)), np.ones((5, 6)))
    for bad in (np.zeros((5, 6)), np.full((5, 6), np.nan)):
        with pytest.raises(InputError, match="relative_density must be finite and larger than 0"):
            ScenePrior(0.1, photons, 1.0, 1.0, relative_density=bad)
    for shape in ((4, 6), (7, 9), (10, 6)):
        prior = ScenePrior(0.1, photons, 1.0, 1.0, relative_density=np.ones(shape))
        with pytest.raises(InputError, match="relative_density has shape"):
            run_chain(data, prior, (1.1, 1.1), ChainLength(1, 1, 1), np.random.default_rng(0))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="both must be"):
        FrameData(np.zeros((4, 4)), np.zeros((4, 5)))
    prior = ScenePrior(0.01, PhotonPrior.uniform(20.0, 120.0), 2.0, 0.0)
    data = FrameData(np.ones((4, 4)), np.ones((4, 4)))
    with pytest.raises(InputError, match="birth guide has shape"):
        run_chain(
            data,
            prior,
            (1.0, 1.0),
            ChainLength(1, 1, 1),
            np.random.default_rng(0),
            guide=np.ones((6, 4)),
        )


def test_the_tabulated_gaussian_is_right():
    z = np.linspace(-10, 10, 4001)
    of_python = numba.njit(lambda value: normal_at(value))  # it is for compiled code alone
    table = np.array([of_python(value) for value in z])
    assert table[:, 0] == pytest.approx(special.ndtr(z), abs=1e-10)
    assert table[:, 1] == pytest.approx(np.exp(-z * z / 2) / np.sqrt(2 * np.pi), abs=1e-10)


@pytest.mark.interpreted
def test_the_quick_logarithm_is_right(rng):
    x = np.concatenate([np.exp(rng.uniform(-80, 80, 2000)), np.linspace(0.7, 1.45, 1001)])
    x = x.astype(np.float32)
    of_python = numba.njit(lambda value: quick_log(value))  # it is for compiled code alone
    # The series is cut at 2 * 0.172^11 / 11, and the last four sums round, each by half of 2^-23.
    error = np.array([of_python(value) for value in x]) - np.log(x.astype(np.float64))
    assert (np.abs(error) <= 2.4e-7 * np.abs(np.log(x.astype(np.float64)))).all()
    assert of_python(np.float32(1.0)) == 0.0


def test_what_the_work_space_holds_before_changes_nothing(monkeypatch):
    data = FrameData(
        image([4.0, 6.5], [3.0, 5.0], [900.0, 900.0], 1.1, (9, 21)) + 5.0, np.full((9, 21), 2.0)
    )
    prior = ScenePrior(0.02, PhotonPrior.log_normal(900.0, 0.4), 5.0, 2.0, margin_px=5.0)

    def draws():
        rng = np.random.default_rng(8)
        return run_chain(data, prior, (1.1, 1.1), ChainLength(500, 50, 40), rng, max_emitters=MAX)

    of_zeros = draws()

    def full_of_nan(*shape):
        work = scene.make_scratch(*shape)
        for array in work:
            if array.dtype.kind == "f":
                array[...] = np.nan
        return work

    monkeypatch.setattr(chain, "make_scratch", full_of_nan)
    of_nan = draws()
    assert (of_zeros.tried > 0).all()
    np.testing.assert_array_equal(of_nan.counts, of_zeros.counts)
    np.testing.assert_array_equal(of_nan.x_px, of_zeros.x_px)
    np.testing.assert_array_equal(of_nan.expected_e, of_zeros.expected_e)
