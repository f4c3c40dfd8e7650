"""The main job from frames in memory: right rows, honest intervals, and nothing by accident."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage, special

from sureloc.camera import Camera
from sureloc.compiled.fisher import joint_fisher
from sureloc.errors import InputError
from sureloc.localize.columns import columns_of, length, taken
from sureloc.localize.doubles import Doubles, Excess
from sureloc.localize.faintness import Faint, deviations
from sureloc.localize.frames import Effort, Proposals, frame_posterior
from sureloc.localize.images import FineBand, ImageSums
from sureloc.localize.learning import ROUNDS, broad_photons, learned_photons
from sureloc.localize.movie import Options, localize, movie_crowding, prepare, spread_frames
from sureloc.localize.proposals import birth_guide
from sureloc.localize.regions import Region, Window, cuts, owned, regions_of, unique_rows
from sureloc.localize.saturation import cut_off_adu, largest_adu, telling_frames
from sureloc.localize.tally import Tally, view_of
from sureloc.localize.verdict import (
    ABSENT,
    MISFIT,
    OPEN,
    REGION,
    SATURATED,
    UNSURE,
    WRONG,
    Trust,
    chi2_limit,
    judge,
    mark_regions,
    mark_rows,
    region_doubts,
    rows_within,
    trust_mask,
)
from sureloc.physics.priors import PhotonPrior, ScenePrior, hat_functions
from sureloc.physics.referee import FrameData

SIGMA = 1.2
CAMERA = Camera(100.0, 2.0, 12.0)
BACKGROUND = 4.0


def image(emitters, shape, sigma=SIGMA):
    def share(pixels, position):
        edge = (np.arange(pixels)[:, None] + np.array([-0.5, 0.5]) - position) / sigma
        return np.diff(special.ndtr(edge), axis=1)[:, 0]

    total = np.zeros(shape)
    for x, y, photons in emitters:
        total += photons * np.outer(share(shape[0], y), share(shape[1], x))
    return total


class Movie:
    """ADU in memory, as `sureloc.localize.movie.Frames` wants them."""

    def __init__(self, adu):
        self.adu = adu

    @property
    def shape(self):
        return self.adu.shape

    def read(self, first, last):
        return self.adu[first:last]


def movie_of(frames, shape, seed=0, camera=CAMERA):
    rng = np.random.default_rng(seed)
    adu = []
    for emitters in frames:
        electrons = rng.poisson(image(emitters, shape) + BACKGROUND).astype(float)
        noise = rng.normal(0, math.sqrt(float(camera.variance_adu2)), shape)
        adu.append(np.rint(100.0 + 2.0 * electrons + noise))
    return Movie(np.clip(adu, 0, 65535).astype(np.uint16))


def scattered(frames, number, shape, seed=1):
    """Emitters at random, 400 to 900 photo-electrons, at least 1.5 px inside the frame."""
    rng = np.random.default_rng(seed)
    high = np.array([shape[1] - 2.5, shape[0] - 2.5])
    return [
        np.column_stack([rng.uniform(1.5, high, (number, 2)), rng.uniform(400, 900, number)])
        for _ in range(frames)
    ]


OPTIONS = Options(sigma_px=SIGMA, effort=Effort(2, 30.0, 40, 2.0))


@pytest.fixture(scope="module")
def run():
    truth = scattered(8, 7, (26, 30))
    movie = movie_of(truth, (26, 30))
    assumptions = prepare(movie, CAMERA, OPTIONS)
    return truth, movie, assumptions, list(localize(movie, assumptions, OPTIONS))


def test_rows_are_where_the_emitters_are_and_intervals_hold(run):
    truth, _, _, results = run
    errors, held, found = [], [], 0
    for emitters, rows in zip(truth, results, strict=True):
        table = rows.table
        for x, y, _ in emitters:
            far = np.hypot(table["x_nm"] / 100 - x, table["y_nm"] / 100 - y)
            if len(table) == 0 or far.min() > 1.0:
                continue
            row = table.iloc[int(far.argmin())]
            found += 1
            for axis, true in (("x", 100 * x), ("y", 100 * y)):
                errors.append((row[f"{axis}_nm"] - true) / row[f"sigma_{axis}_nm"])
                held.append(row[f"{axis}_lo95_nm"] <= true <= row[f"{axis}_hi95_nm"])
    assert found >= 0.95 * 8 * 7
    assert sum(len(r.table) for r in results) <= 1.05 * 8 * 7
    # 110 values: a binomial of .95 lies above .89 in 99.5 % of seeds, the rms of 110 standard
    # normal values within 1 +- .2 in 99.7 %; overlap leaves tails, hence the upper 1.3.
    assert np.mean(held) > 0.89
    assert 0.8 < np.sqrt(np.mean(np.square(errors))) < 1.3


def test_the_priors_are_learned_from_the_movie(run):
    truth, _, assumptions, _ = run
    learned = assumptions.learned
    assert learned.prior.density_per_px2 * 26 * 30 == pytest.approx(7, rel=0.35)
    photons = np.concatenate([t[:, 2] for t in truth])
    assert learned.prior.photons.mean == pytest.approx(photons.mean(), rel=0.12)
    assert learned.background_e.mean() == pytest.approx(BACKGROUND, rel=0.08)
    assert learned.history.shape[1] == 3
    assert any("given" in note for note in assumptions.notes)


def test_tables_are_complete_and_consistent(run):
    _, _, _, results = run
    table = pd.concat([r.table for r in results])
    assert np.isfinite(table.select_dtypes("number").to_numpy()).all()
    for axis in "xy":
        order = [table[f"{axis}_{bound}_nm"] for bound in ("lo95", "lo68", "hi68", "hi95")]
        assert all((a <= b).all() for a, b in itertools.pairwise(order))
        # The stated deviation can lie below the bound by the draws' own scatter only: 80 draws.
        # Where draws disagree whether there are one or two emitters, the bound of both rows
        # together is not that of either.
        sure = table[table["p_exists"] > 0.9]
        assert len(sure) > 0.8 * len(table)
        assert (sure[f"sigma_{axis}_nm"] > 0.6 * sure[f"crlb_{axis}_nm"]).all()
    assert table["p_exists"].between(0.5, 1.0).all()
    draws = pd.concat([r.draws for r in results])
    assert set(draws["draw"]) == set(range(16))
    per_draw = draws.groupby("draw").size()
    assert per_draw.mean() == pytest.approx(len(table), rel=0.1)


def test_refitted_frames_differ_from_the_measured_by_noise(run):
    _, _, _, results = run
    # 8 * 780 pixels: the mean of chi2 scatters by sqrt(2 / 6240) = .018.
    assert np.mean([r.chi2.mean() for r in results]) == pytest.approx(1.0, abs=0.08)


def test_workers_and_order_change_nothing(run):
    _, movie, assumptions, results = run
    again = list(localize(movie, assumptions, replace(OPTIONS, workers=3)))
    for one, other in zip(results, again, strict=True):
        pd.testing.assert_frame_equal(one.table, other.table, check_exact=True)
        pd.testing.assert_frame_equal(one.draws, other.draws, check_exact=True)
    tail = list(localize(Movie(movie.adu[:2]), assumptions, OPTIONS))
    pd.testing.assert_frame_equal(tail[1].table, results[1].table, check_exact=True)


def test_another_seed_moves_rows_by_less_than_their_error(run):
    _, movie, assumptions, results = run
    other = next(localize(Movie(movie.adu[:1]), assumptions, replace(OPTIONS, seed=1)))
    a, b = results[0].table, other.table
    assert len(a) == len(b)
    assert not np.array_equal(a["x_nm"], b["x_nm"])
    assert (np.abs(a["x_nm"] - b["x_nm"]) < a["sigma_x_nm"]).all()


def test_emitters_on_region_borders_are_found_once():
    shape = (24, 130)
    emitters = [(63.4, 6.0, 900.0), (63.6, 14.0, 900.0), (63.5, 20.0, 900.0), (100.0, 9.0, 900.0)]
    # A row lower from frame to frame: where emitters shine again and again, chains expect several.
    frames = [[(x, y + k, n) for x, y, n in emitters] for k in range(3)]
    movie = movie_of(frames, shape)
    assert len(regions_of(shape, (SIGMA, SIGMA))) == 2
    assumptions = prepare(movie, CAMERA, OPTIONS)
    for rows in localize(movie, assumptions, OPTIONS):
        assert len(rows.table) == 4
        positions = rows.table[["x_nm", "y_nm"]].to_numpy() / 100
        for x, y, _ in frames[rows.frame]:
            assert np.hypot(*(positions - (x, y)).T).min() < 0.4


def test_an_unknown_camera_and_width_are_estimated_and_said():
    truth = scattered(30, 6, (40, 40))
    movie = movie_of(truth, (40, 40))
    options = Options(effort=Effort(1, 10.0, 10, 1.0))
    assumptions = prepare(movie, None, options)
    assert assumptions.camera.offset_adu == pytest.approx(100, abs=8)
    assert assumptions.sigma_px[0] == pytest.approx(SIGMA, rel=0.06)
    assert any("camera was not given" in warning for warning in assumptions.warnings)
    assert len(assumptions.notes) == 3
    assert assumptions.notes[-1].startswith("All light together says")


def test_a_wrong_offset_is_corrected_and_said():
    movie = movie_of(scattered(20, 5, (32, 32)), (32, 32))
    wrong = replace(CAMERA, offset_adu=80.0)
    assumptions = prepare(movie, wrong, OPTIONS)
    assert assumptions.camera.offset_adu == pytest.approx(100, abs=5)
    assert any("offset is +" in warning for warning in assumptions.warnings)


def test_the_inverse_of_the_gain_is_seen():
    movie = movie_of(scattered(20, 25, (48, 48)), (48, 48))
    inverse = 1 / CAMERA.gain_adu_per_e
    wrong = prepare(movie, replace(CAMERA, gain_adu_per_e=inverse), OPTIONS)
    (said,) = [w for w in wrong.warnings if w.startswith(WRONG)]
    assert f"the camera file says {inverse:.3g}" in said
    assert f"(electrons per ADU would be {CAMERA.gain_adu_per_e:.3g})" in said
    # A gain that is right is not suspected, although the offset is off.
    shifted = prepare(movie, replace(CAMERA, offset_adu=80.0), OPTIONS)
    assert not any(w.startswith(WRONG) for w in shifted.warnings)


def test_saturated_pixels_are_ignored_and_marked():
    truth = [np.array([[8.0, 8.0, 900.0], [18.0, 17.0, 900.0]])] * 2
    movie = movie_of(truth, (26, 26))
    movie.adu[:, 8, 8] = 4095
    camera = replace(CAMERA, saturation_adu=4095)
    assumptions = prepare(movie, camera, OPTIONS)
    table = next(localize(movie, assumptions, OPTIONS)).table
    near = np.hypot(table["x_nm"] - 800, table["y_nm"] - 800) < 150
    assert not table[near]["trusted"].any()
    assert set(table[near]["reason"]) == {"saturated or dead pixels nearby"}
    far = np.hypot(table["x_nm"] - 1800, table["y_nm"] - 1700) < 100
    assert table[far]["trusted"].all()
    assert far.sum() == 1


@pytest.mark.parametrize("step", [1, 16])  # 12-bit cameras may write multiples of 16
def test_a_cut_off_is_seen_in_the_values_and_only_there(rng, step):
    adu = rng.poisson(400.0, (5, 40, 40)).astype(np.uint16)
    adu[:, 10:14, 10:14] = rng.poisson(900.0, (5, 4, 4))
    assert cut_off_adu(step * adu) is None
    assert cut_off_adu(step * np.minimum(adu, 850)) == 850 * step
    assert cut_off_adu(np.minimum(adu, 850).astype(float)) is None
    for few in (np.full((2, 9, 9), 700), np.zeros((2, 9, 9), int), np.arange(162).reshape(2, 9, 9)):
        assert cut_off_adu(few) is None


def test_spots_of_many_widths_ask_for_care(rng):
    shape, places = (40, 40), [(8.0, 8.0), (30.2, 9.5), (19.6, 19.1), (9.4, 30.3), (30.8, 31.0)]
    for spread, said in ((0.0, False), (0.2, True)):
        expected = [
            sum(
                image([(x, y, 900.0)], shape, SIGMA * np.exp(spread * rng.normal()))
                for x, y in places
            )
            for _ in range(12)
        ]
        electrons = rng.poisson(np.array(expected) + BACKGROUND)
        noise = rng.normal(0, math.sqrt(12.0), electrons.shape)
        movie = Movie(np.rint(100.0 + 2.0 * electrons + noise).astype(np.uint16))
        assumptions = prepare(movie, CAMERA, replace(OPTIONS, sigma_px=None))
        assert any("differ in width" in warning for warning in assumptions.warnings) == said


def test_frames_without_information_are_told_apart():
    adu = np.full((3, 10, 10), 50)
    adu[1, :6] = adu[2, :4] = 255
    assert list(telling_frames(adu, 255)) == [True, False, True]
    assert telling_frames(adu, None).all()


def test_a_cut_off_that_the_camera_file_does_not_know_is_heeded():
    truth = [np.array([[8.0, 8.0, 3000.0], [18.0, 17.0, 500.0]])] * 3
    movie = movie_of(truth, (26, 26))
    movie.adu = np.minimum(movie.adu, 260).astype(np.uint16)
    assumptions = prepare(movie, CAMERA, OPTIONS)
    assert assumptions.camera.saturation_adu == 260
    assert "cut off at 260 ADU" in assumptions.notes[0]


@pytest.mark.parametrize("estimated", [False, True])
def test_a_sound_movie_of_32_bits_is_not_saturated_from_65535_adu_on(estimated):
    small = movie_of(scattered(6, 6, (40, 40)), (40, 40))
    large = Movie(small.adu.astype(np.uint32) + 100_000)
    given = None if estimated else replace(CAMERA, offset_adu=100_100.0)
    assumptions = prepare(large, given, OPTIONS)
    assert assumptions.camera.saturation_adu == 2**32 - 1
    tables = [rows.table for rows in localize(large, assumptions, OPTIONS)]
    assert sum(table["trusted"].sum() for table in tables) > 20
    # What the type can hold is the limit, also of the camera that `prepare` gives on.
    tops = {np.uint8: 255, np.uint16: 65535, np.int16: 32767, np.int32: 2**31 - 1}
    for kind, top in tops.items():
        assert largest_adu(np.array([[[1, 2], [3, 4]]], kind), None) == (top, False)
    assert largest_adu(np.array([[[0.1, 0.2]]], np.float32), None) == (None, False)
    # What the file says wins.
    stated = replace(CAMERA, offset_adu=100_100.0, saturation_adu=100_200)
    assert prepare(large, stated, OPTIONS).camera.saturation_adu == 100_200


def test_one_saturated_frame_does_not_spoil_the_others():
    truth = [np.array([[8.0, 8.0, 900.0], [18.0, 17.0, 900.0]])] * 3
    movie = movie_of(truth, (26, 26))
    movie.adu[1] = 65535
    assumptions = prepare(movie, CAMERA, OPTIONS)
    tables = [rows.table for rows in localize(movie, assumptions, OPTIONS)]
    assert (len(tables[0]), len(tables[2])) == (2, 2)
    assert all(table["trusted"].all() for table in (tables[0], tables[2]))
    assert not tables[1]["trusted"].any()
    movie.adu[:] = 65535
    with pytest.raises(InputError, match="saturated"):
        prepare(movie, CAMERA, OPTIONS)


def test_an_empty_movie_gives_no_rows():
    movie = movie_of([np.empty((0, 3))] * 4, (20, 20))
    rows = list(localize(movie, prepare(movie, CAMERA, OPTIONS), OPTIONS))
    assert sum(len(r.table) for r in rows) == 0


def test_an_empty_movie_is_crowded_nowhere():
    crowding = movie_crowding(movie_of([[], []], (26, 30)), CAMERA, (SIGMA, SIGMA))
    np.testing.assert_array_equal(crowding.around(0), np.ones((52, 60)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pixel_nm": 0.0}, "pixel size is 0.0 nm"),
        ({"sigma_px": 20.0}, "PSF width is 20.0 px"),
        ({"draws": 1}, "draws is 1"),
        ({"min_probability": 0.0}, r"\(--min-probability\) is 0\.0"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_impossible_options_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        Options(**values)


def test_frames_to_learn_from_are_spread_over_the_movie():
    assert spread_frames(3, 10) == [0, 1, 2]
    assert spread_frames(100, 4) == [12, 37, 62, 87]


def test_hard_frames_get_more_moves_than_easy_ones(rng):
    shape = (14, 14)
    # Nine emitters 1.2 PSF widths apart: with 12 other seeds all three rounds were needed.
    hard = [(4 + 1.4 * i, 4 + 1.4 * j, 800) for i in range(3) for j in range(3)]
    easy = [(6.0, 6.5, 800)]
    prior = ScenePrior(0.02, PhotonPrior.log_normal(800.0, 0.3), BACKGROUND, 0.5, 2.0)
    effort = Effort(chains=2, sweeps=40.0, states=20, sweeps_between=1.0, rounds=3)
    drawn = {}
    for name, emitters in (("hard", hard), ("easy", easy)):
        electrons = rng.poisson(image(emitters, shape) + BACKGROUND).astype(float)
        data = FrameData(electrons, np.full(shape, 0.01))
        start = Proposals([np.array(emitters, float)])
        posterior = frame_posterior(data, prior, (SIGMA, SIGMA), start, effort, 0, 0, 0.2)
        drawn[name] = posterior.draws.tried.sum()
        for values in (posterior.draws.x_px, posterior.draws.knots, posterior.draws.counts):
            assert len(values) == 2 * 20
    # A sweep has 9 or 4 moves besides those that count; the burn-in is not counted.
    assert drawn["easy"] == 2 * (4 + 8) * 20
    assert 2 * (9 + 8) * 20 < drawn["hard"] <= 2 * (9 + 8) * 2**2 * 20


def test_chains_go_on_only_round_rows_that_want_more_draws(rng):
    # A crowd on the left, and on the right an emitter that stands alone.
    shape = (14, 40)
    crowd = [(4 + 1.4 * i, 4 + 1.4 * j, 800) for i in range(3) for j in range(3)]
    alone = (32.0, 6.5, 800)
    prior = ScenePrior(0.02, PhotonPrior.log_normal(800.0, 0.3), BACKGROUND, 0.5, 2.0)
    start = Proposals([np.array([*crowd, alone], float)])
    effort = Effort(chains=2, least_effective=40.0)
    ratios, moves = [], []
    for frame in range(12):
        electrons = rng.poisson(image([*crowd, alone], shape) + BACKGROUND).astype(float)
        data = FrameData(electrons, np.full(shape, 0.01))
        posterior = frame_posterior(data, prior, (SIGMA, SIGMA), start, effort, 0, frame, 0.2)
        rows, draws = posterior.rows, posterior.draws
        (mine,) = np.flatnonzero((rows.x_px > 26) & (rows.p_exists > 0.9))
        away = np.hypot(draws.x_px - rows.x_px[mine], draws.y_px - rows.y_px[mine])
        x = draws.x_px[draws.present & (away < SIGMA)]
        assert len(draws.counts) == 2 * effort.states
        assert len(x) >= 0.9 * len(draws.counts)
        ratios.append(x.var(ddof=1) / rows.var_x_px2[mine])
        moves.append(draws.tried.sum())
    # The crowd took all rounds in some frames; the lone emitter had no share in the later ones.
    first, later = (10 + 8) * 3 * effort.states, (2**3 - 1) * 3 * effort.states
    assert 2 * (first + (7 + 8) * later) < max(moves) < 2 * (first + (10 + 8) * later)
    # Draws of the lone emitter, which stood still meanwhile, spread as its row says.
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.25)


def test_first_draws_hold_as_many_faint_emitters_as_later_ones():
    """Also where chains begin at the few that spots show: all are born before the first draw."""
    rng = np.random.default_rng(12)
    shape, density = (40, 40), 0.04
    prior = ScenePrior(density, PhotonPrior.log_normal(70.0, 0.3), 10.0, 0.5, 2.0)
    apart = []
    for frame in range(10):
        number = rng.poisson(density * 44**2)
        places = rng.uniform(-2.5, 41.5, (number, 2))
        light = image([(x, y, 70.0) for x, y in places], shape)
        data = FrameData(rng.poisson(light + 10.0).astype(float), np.full(shape, 0.01))
        seen = np.column_stack([places[:20], np.full(20, 90.0)])
        posterior = frame_posterior(
            *(data, prior, (SIGMA, SIGMA), Proposals([seen]), Effort(rounds=1), 0, frame, 0.2)
        )
        for counts in posterior.draws.counts.reshape(2, -1):
            apart.append(counts[:4].mean() - counts[-32:].mean())
    # Four standard errors, from the scatter of the chains; with one burn-in alone it is 15.
    assert abs(np.mean(apart)) < 4 * np.std(apart) / np.sqrt(len(apart))


def test_rows_that_vanish_while_chains_go_on_leave_whole_draws():
    # Nothing to see but noise: what exists in a few draws is open, and then is no row any more.
    prior = ScenePrior(0.01, PhotonPrior.log_normal(60.0, 0.3), 10.0, 0.5, 2.0)
    effort = Effort(chains=2, sweeps=5.0, states=10, sweeps_between=0.2, rounds=4)
    vanished = 0
    for frame in range(30):
        rng = np.random.default_rng(frame)
        data = FrameData(rng.poisson(10.0, (16, 16)).astype(float), np.full((16, 16), 0.01))
        start = Proposals([np.array([[8.0, 8.0, 60.0]])])
        posterior = frame_posterior(data, prior, (SIGMA, SIGMA), start, effort, 0, frame, 0.2)
        assert len(posterior.draws.counts) == len(posterior.draws.knots) == 2 * 10
        assert posterior.draws.present.sum() == posterior.draws.counts.sum()
        further = posterior.draws.tried.sum() > 2 * 10 * round(0.2 * 12)
        vanished += further and len(posterior.rows) == 0
    assert vanished > 0


def test_chains_find_a_clear_emitter_with_which_none_of_them_began(rng):
    # 10 deviations bright, so that it surely exists. Six places are proposed, one of them right.
    # With no more births than one move in ten, chains had found it on average to 0.67 here.
    shape = (32, 32)
    prior = ScenePrior(0.001, PhotonPrior.log_normal(150.0, 0.3), 10.0, 0.5, 2.0)
    for frame in range(6):
        places = rng.uniform(4.0, 27.0, (6, 2))
        x, y = places[0]
        light = image([(x, y, 150.0)], shape)
        electrons = rng.poisson(light + 10.0).astype(float)
        proposed = np.zeros((4 * shape[0], 4 * shape[1]))
        proposed[tuple(np.rint(4 * places[:, ::-1] + 1.5).astype(int).T)] = 1.0
        guide = birth_guide(ndimage.uniform_filter(proposed, 3), electrons - 10.0, 0)
        posterior = frame_posterior(
            FrameData(electrons, np.full(shape, 0.01)),
            prior,
            (SIGMA, SIGMA),
            Proposals([np.empty((0, 3))], guide),
            Effort(),
            0,
            frame,
            0.02,
        )
        near = np.hypot(posterior.rows.x_px - x, posterior.rows.y_px - y) < 1.5
        assert posterior.rows.p_exists[near].max(initial=0.0) > 0.95


def test_the_learned_density_is_that_of_emitters_also_where_they_crowd():
    rng = np.random.default_rng(4)
    shape, per_frame = (40, 40), 10
    frames = []
    for _ in range(30):
        x = rng.uniform(0, 39, per_frame)
        y = np.where(rng.random(per_frame) < 0.8, 20 + rng.normal(0, 0.3, per_frame), x)
        frames.append([(a, b, 900 * rng.uniform(0.8, 1.2)) for a, b in zip(x, y, strict=True)])
    learned = prepare(movie_of(frames, shape), CAMERA, Options(sigma_px=SIGMA)).learned
    area = (shape[0] + 2 * SIGMA) * (shape[1] + 2 * SIGMA)
    # 300 emitters: a Poisson standard error of 6 %; some pairs are never told apart.
    assert learned.prior.density_per_px2 * area == pytest.approx(per_frame, rel=0.2)
    assert learned.prior.photons.mean == pytest.approx(900, rel=0.1)


def test_faint_crowded_emitters_are_not_taken_for_fewer_brighter_and_wider_ones():
    rng = np.random.default_rng(8)
    shape, density = (48, 48), 0.04
    frames = []
    for _ in range(6):
        number = rng.poisson(density * 52**2)
        x, y = rng.uniform(-2.5, 49.5, (2, number))
        light = 100.0 * np.exp(0.2 * rng.standard_normal(number))
        frames.append(list(zip(x, y, light, strict=True)))
    made = prepare(movie_of(frames, shape), CAMERA, Options())
    # Where faint emitters are never believed to be more common than clear ones it is 120.
    assert made.learned.prior.photons.mean == pytest.approx(102, rel=0.15)
    assert made.learned.prior.density_per_px2 == pytest.approx(density, rel=0.2)
    assert made.sigma_px == pytest.approx((SIGMA, SIGMA), rel=0.06)


def test_faint_emitters_are_believed_only_as_far_as_clear_ones_or_spots_tell(rng):
    before = PhotonPrior.uniform(30.0, 3000.0)
    bright = rng.uniform(100, 2000, 4000)
    pile = rng.uniform(32, 62, 4000)  # what the background leaves over, taken for emitters
    drawn = np.concatenate([bright, pile])

    def below(prior, photons):
        return float(np.interp(math.log(photons), prior.log_photons, prior.cumulative))

    kept, share = learned_photons(drawn, 8000.0, before, 100.0, 0.0)
    # Uniform between 100 and 2000: about 70 / 1900 of the bright ones may lie between 30 and 100.
    assert below(kept, 100.0) < 0.08
    assert share == pytest.approx(0.52, abs=0.05)
    # As many spots as that: the dim ones are real.
    all_kept, share = learned_photons(drawn, 8000.0, before, 100.0, 4000 / 30 / 8000)
    assert below(all_kept, 100.0) == pytest.approx(0.5, abs=0.05)
    assert share == pytest.approx(1.0, abs=0.05)
    # A pile that ends well above the faintest photons that are looked for is a kind of emitters.
    _, share = learned_photons(np.concatenate([bright, pile + 28]), 8000.0, before, 100.0, 0.0)
    assert share == pytest.approx(1.0, abs=0.03)
    # Nothing piled up: nothing is taken away.
    _, share = learned_photons(bright, 4000.0, before, 100.0, 0.0)
    assert share == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(("noise", "most"), [(0.2, 0.15), (0.4, 0.3)])
def test_the_spread_of_photons_is_learned_also_where_photons_are_poorly_known(rng, noise, most):
    # Chains are stood for by exact draws of each emitter's logarithm under the present prior.
    true = 0.2
    seen = rng.normal(math.log(1000.0), true, 1500) + rng.normal(0.0, noise, 1500)
    prior = broad_photons(1000.0, 0.7, 20.0)
    for _ in range(ROUNDS[0]):
        grid = prior.log_photons
        weight = np.exp(prior.log_density - 0.5 * ((seen[:, None] - grid) / noise) ** 2)
        below = np.cumsum(weight, axis=1)
        below /= below[:, -1:]
        drawn = [grid[(below < rng.uniform(size=(1500, 1))).sum(1)] for _ in range(5)]
        photons = np.exp(np.concatenate(drawn))
        prior, _ = learned_photons(photons, 1500.0, prior, 1.0, 1e9)
    # Without narrowing what is smoothed it was 0.26 and 0.34.
    assert prior.log_variance**0.5 == pytest.approx(true, rel=most)


def test_chains_tell_when_they_disagree():
    data = FrameData(np.full((10, 10), 4.0), np.full((10, 10), 1.0))
    prior = ScenePrior(0.02, PhotonPrior.uniform(200.0, 600.0), np.full((2, 2), 4.0), 0.2)
    effort = Effort(4, 1.0, 20, 1.0, counting=0.0)
    posterior = frame_posterior(data, prior, (1.2, 1.2), Proposals([]), effort, 0, 0, 0.2)
    assert posterior.rows.x_px.size == 0
    assert posterior.disagreement == 0.0
    assert posterior.background_e.mean() == pytest.approx(4.0, abs=0.3)
    start = np.array([[3.0, 3.0, 300.0], [7.0, 7.0, 300.0]])
    apart = Proposals([start, start[:0]])
    few = replace(effort, states=2, rounds=1)
    split = frame_posterior(data, prior, (1.2, 1.2), apart, few, 0, 0, 0.2)
    assert 0.0 < split.disagreement <= 1.0
    assert split.draws.counts.shape == (8,)


def test_windows_of_a_frame_give_the_rows_of_the_whole_bit_for_bit():
    shape = (150, 130)
    movie = movie_of(scattered(1, 130, shape), shape)
    options = replace(OPTIONS, effort=Effort(2, 10.0, 20, 1.0, rounds=1))
    assumptions = prepare(movie, CAMERA, options)
    whole = next(localize(movie, assumptions, options))
    assert len(regions_of(shape, (SIGMA, SIGMA))) == 6
    # On the regions' own borders, and where they have nothing to do with the regions.
    for rows, columns in (((0, 64, 150), (0, 64, 130)), ((0, 31, 63, 150), (0, 65, 130))):
        parts = [
            next(localize(movie, assumptions, options, window=Window(r, c)))
            for r in itertools.pairwise(rows)
            for c in itertools.pairwise(columns)
        ]
        for name in ("table", "draws"):
            joined = pd.concat([getattr(p, name) for p in parts])
            pd.testing.assert_frame_equal(in_order(joined), in_order(getattr(whole, name)))
    part = next(localize(movie, assumptions, options, window=Window((10, 40), (70, 90))))
    np.testing.assert_array_equal(part.chi2, whole.chi2[10:40, 70:90])
    np.testing.assert_array_equal(part.expected_e, whole.expected_e[10:40, 70:90])


def in_order(table):
    return table.sort_values([*table.columns], ignore_index=True)


# Regions


@pytest.mark.parametrize("size", [1, 80, 81, 130, 143, 256, 2048])
def test_cuts_cover_everything_once(size):
    pieces = cuts(size)
    assert pieces[0][0] == 0
    assert pieces[-1][1] == size
    assert all(a[1] == b[0] for a, b in itertools.pairwise(pieces))
    assert max(b - a for a, b in pieces) <= 80


def test_every_position_belongs_to_one_region(rng):
    regions = regions_of((130, 200), (1.3, 1.3))
    x, y = rng.uniform(-0.5, 199.5, 500), rng.uniform(-0.5, 129.5, 500)
    owners = np.sum([owned(x, y, region, 0.0) for region in regions], axis=0)
    assert (owners == 1).all()


def test_rows_claimed_twice_are_kept_once_and_missed_ones_are_rescued():
    left = Region(0, slice(0, 74), slice(0, 74), (0, 64), (0, 64))
    right = Region(1, slice(0, 74), slice(54, 128), (0, 64), (64, 128))

    def rows(*positions):
        x = 100.0 * np.array(positions)
        return {"x_nm": x, "y_nm": np.full(x.size, 1000.0)}

    twins = unique_rows([rows(10.0, 63.4), rows(63.6, 90.0)], [left, right], 100.0)
    assert length(twins) == 3
    # Each says that the emitter is the other's: it must not be lost.
    missed = unique_rows([rows(10.0, 63.6), rows(90.0)], [left, right], 100.0)
    assert sorted(missed["x_nm"]) == [1000.0, 6360.0, 9000.0]
    apart = unique_rows([rows(63.4), rows(64.0)], [left, right], 100.0)
    assert length(apart) == 2


# Bounds, images, verdict


@pytest.mark.interpreted
def test_the_joint_information_is_the_sum_over_pixels():
    shape, sigma = (10, 12), 1.1
    emitters = np.array([[3.0, 4.2, 500.0], [4.1, 5.0, 300.0], [10.5, 8.0, 700.0]])
    information = 1.0 / (3.0 + np.arange(120).reshape(shape) / 60)
    basis = hat_functions(10, 2), hat_functions(12, 2)
    fisher = joint_fisher(emitters, information, sigma, sigma, 5.5 * sigma, *basis)
    step = np.array([1e-4, 1e-4, 1e-2])
    slopes = []
    for j in range(3):
        for a in range(3):
            up, down = emitters.copy(), emitters.copy()
            up[j, a] += step[a]
            down[j, a] -= step[a]
            slopes.append((image(up, shape, sigma) - image(down, shape, sigma)) / (2 * step[a]))
    slopes += [np.outer(basis[0][i], basis[1][k]) for i in range(2) for k in range(2)]
    expected = np.einsum("arc,brc,rc->ab", slopes, slopes, information)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    # The support reaches 5.5 sigma: 4e-8 of the light is lost; differences are good to 1e-6.
    assert np.abs((fisher - expected) / scale).max() < 1e-5


@pytest.mark.interpreted
def test_the_image_holds_one_unit_per_emitter_and_its_variance_is_that_of_the_draws(rng):
    sums = FineBand((20, 20), 8, 100.0)
    tables = []
    for _ in range(2):
        x = rng.normal(1000, 15, (16, 3))
        y = rng.normal([600, 1000, 1400], 15, (16, 3))
        tables.append({"draw": np.repeat(np.arange(16), 3), "x_nm": x.ravel(), "y_nm": y.ravel()})
        sums.add(tables[-1], 16)
    assert sums.mean.sum() == pytest.approx(6.0, abs=1e-3)
    per_draw = []
    for draw in range(16):
        one = FineBand((20, 20), 8, 100.0)
        picked = taken(tables[0], tables[0]["draw"] == draw)
        one.add({**picked, "draw": np.zeros(3, np.int64)}, 1)
        per_draw.append(one.mean)
    only = FineBand((20, 20), 8, 100.0)
    only.add(tables[0], 16)
    assert np.allclose(only.mean, np.mean(per_draw, axis=0), atol=1e-12)
    assert np.allclose(only.sd, np.std(per_draw, axis=0, ddof=1), atol=1e-9)
    row, column = np.unravel_index(only.mean.argmax(), only.mean.shape)
    # The centre of pixel 0 is 0 nm; 8 fine pixels make one of 100 nm.
    assert column * 12.5 - 43.75 == pytest.approx(1000, abs=40)
    assert min(abs(row * 12.5 - 43.75 - y) for y in (600, 1000, 1400)) < 40


def test_rows_whose_window_does_not_fit_are_marked():
    rows = {
        "x_nm": np.array([500.0, 900.0, 1500.0, 1500.0, 1500.0]),
        "y_nm": np.array([500.0, 900.0, 1500.0, 1000.0, 300.0]),
        "sigma_x_nm": np.array([10.0, 10.0, 10.0, 10.0, 10.0]),
        "sigma_y_nm": np.array([10.0, 10.0, 10.0, 60.0, 10.0]),
        "p_exists": np.array([1.0, 1.0, 1.0, 1.0, 0.4]),
        "chi2": np.array([1.0, 9.0, 9.0, 1.0, 1.0]),
    }
    limit = chi2_limit((1.2, 1.2), 2.5)
    assert 1.5 < limit < 2.5
    full = np.zeros((20, 20), bool)
    full[15, 14] = True
    marked = mark_rows(rows, limit, full, 100.0, (1.2, 1.2))
    assert list(marked["trusted"]) == [True, False, False, False, False]
    assert list(marked["reason"]) == ["", MISFIT, SATURATED, OPEN, ABSENT]


def test_rows_in_regions_that_do_not_fit_are_marked_and_keep_older_reasons():
    table = pd.DataFrame(
        {
            "x_nm": [300.0, 300.0, 700.0, 800.0],
            "y_nm": [200.0, 200.0, 200.0, 200.0],
            "trusted": [True, False, True, True],
            "reason": ["", OPEN, "", ""],
        }
    )
    doubts = {REGION: np.zeros((10, 10), bool), UNSURE: np.zeros((10, 10), bool)}
    doubts[REGION][2, 3] = doubts[UNSURE][2, 3] = doubts[UNSURE][2, 8] = True
    marked, newly = mark_regions(table, doubts, 100.0)
    assert list(newly) == [REGION, "", "", UNSURE]
    assert list(marked["trusted"]) == [False, False, True, False]
    assert list(marked["reason"]) == [REGION, OPEN, "", UNSURE]


def test_frames_to_look_at_show_regions_that_are_not_trusted(run):
    _, movie, _, results = run
    variance = CAMERA.read_variance_e2((26, 30))
    faint = Faint((SIGMA, SIGMA), 1.0, float(np.median(variance)), 1.0)
    tally = Tally(100.0, len(results), variance, 1.0, Doubles(SIGMA * 100.0), faint)
    bad = np.zeros((26, 30), bool)
    bad[:, 15:] = True
    for rows in results:
        electrons = CAMERA.electrons(movie.adu[rows.frame])
        found = columns_of(rows.table)
        view = view_of(rows.frame, "", found, electrons, rows.expected_e, 1.0, 0, 100.0)
        marked, _ = mark_regions(rows.table, {REGION: bad}, 100.0)
        tally.add(marked, rows.frame, np.zeros(1, np.int64))
        tally.show(view, marked, rows.frame)
    assert 0 < tally.absent < 0.1
    assert tally.trusted == tally.rows - tally.reasons[REGION]
    assert tally.reasons[REGION] > 0
    assert len(tally.examples) == len(results)
    for example in tally.examples:
        right = example.table["x_nm"] > 1450.0
        assert right.any()
        assert (example.table["trusted"] == ~right).all()


def test_faint_rows_are_those_of_less_than_five_deviations_of_the_noise_under_them(rng):
    """The ratio is that of a least-squares fit of photons to pixels; so many rows lie below 5."""
    rows, columns = np.mgrid[-8:9, -8:9]
    spot = np.exp(-0.5 * ((rows / 1.3) ** 2 + (columns / 1.1) ** 2)) / (2 * np.pi * 1.3 * 1.1)
    noise = rng.normal(0, np.sqrt(2 * 10 + 3), (4000, 17, 17))
    photons = (noise * spot).sum((1, 2)) / (spot**2).sum()
    stated = deviations(np.array([100.0]), np.array([10.0]), (1.1, 1.3), 2.0, 3.0)
    assert stated[0] == pytest.approx(100 / photons.std(), rel=0.04)

    faint = Faint((1.1, 1.3), 2.0, 3.0, 0.5)
    least = 100 / 0.5 * 5 / stated[0]
    light = np.r_[np.full(6, 0.98 * least), np.full(4, 1.02 * least)]
    faint.add(pd.DataFrame({"photons": light, "background_photons": 20.0}))
    (note,) = faint.notes
    assert note.startswith(f"60 % of the rows are fainter than {least:.0f} photons")
    faint.add(pd.DataFrame({"photons": np.full(30, 2 * least), "background_photons": 20.0}))
    assert faint.notes == ()  # 15 %


def test_rows_in_places_not_to_be_trusted_are_counted_whatever_their_reason():
    bad = np.zeros((10, 10), bool)
    bad[2, 3] = True
    table = pd.DataFrame({"x_nm": [300.0, 340.0, 360.0], "y_nm": 200.0})
    assert rows_within(table, {REGION: bad, UNSURE: np.zeros_like(bad)}, 100.0) == 2


def test_noise_alone_seldom_exceeds_the_limit(rng):
    # Poisson counts of 3 with 7 x 7 windows: skewed, as real frames are.
    counts = rng.poisson(3.0, (20_000, 49))
    chi2 = ((counts - 3.0) ** 2 / 3.0).mean(1)
    assert (chi2 > chi2_limit((1.2, 1.2), 2.5)).mean() < 1e-3


def test_the_mask_follows_the_fit():
    chi2 = np.ones((10, 10))
    chi2[2, 3], chi2[5, 5] = 2.0, 0.1
    mask = trust_mask(chi2, 100, (1.2, 1.2))
    assert not mask[2, 3]
    assert not mask[5, 5]
    assert mask.sum() == 98


def _doubts(misfit, unsure):
    """Maps of 100 pixels, so many of them not to be trusted."""
    pixel = np.arange(100).reshape(10, 10)
    return {REGION: pixel < misfit, UNSURE: pixel < unsure}


def test_regions_are_doubted_where_molecules_are_in_few_draws(rng):
    """One molecule in all draws, one in one of sixteen at a time, in every of five frames."""
    sums = ImageSums((30, 30), 8, 100.0)
    for _ in range(5):
        sure = rng.normal([600.0, 700.0], 8.0, (16, 2))
        rare = np.array([[2000.0, 2100.0]])
        places = np.concatenate([sure, rare])
        draws = {"draw": np.append(np.arange(16), 3), "x_nm": places[:, 0], "y_nm": places[:, 1]}
        sums.count_emitters(draws, 16)
    ratio = sums.doubt
    assert ratio[7, 6] == 0  # in every draw, wherever exactly
    assert sums.count[7, 6] == pytest.approx(5.0)
    # One of K draws: mean 1/K, variance (1/K)(1 - 1/K) K/(K - 1), so sqrt(K); five frames add up.
    assert sums.count[21, 20] == pytest.approx(5 / 16)
    assert ratio[21, 20] == pytest.approx(4.0 / math.sqrt(5), rel=1e-6)
    assert ratio[21, 23] == 0  # outside the window
    doubts = region_doubts(np.ones((30, 30)), ratio, 5, (1.2, 1.2))
    assert doubts[UNSURE].sum() == 25
    assert doubts[UNSURE][21, 20]
    assert not doubts[REGION].any()


def test_a_sure_molecule_leaves_no_doubt_where_a_window_ends_at_it(rng):
    sums = ImageSums((30, 30), 8, 100.0)
    for _ in range(5):
        # On the edge between two pixels: draws put it into one or the other.
        places = rng.normal([1450.0, 1250.0], 30.0, (16, 2))
        draws = {"draw": np.arange(16), "x_nm": places[:, 0], "y_nm": places[:, 1]}
        sums.count_emitters(draws, 16)
    in_or_out = np.sqrt(sums.count_variance) / np.maximum(sums.count, 1e-9)
    assert in_or_out.max() > 0.3
    assert (sums.count >= 0.3).sum() > 25
    assert not sums.doubt.any()


@pytest.mark.parametrize(
    ("change", "trust", "words"),
    [
        ({}, Trust.TRUST, "camera noise and no more"),
        ({"warnings": ["the camera was guessed"]}, Trust.CARE, "the camera was guessed"),
        ({"density_per_px2": 0.06}, Trust.CARE, "very dense"),
        ({"density_per_px2": 0.1}, Trust.REFUSE, "more than can be told apart"),
        ({"reasons": {MISFIT: 10}}, Trust.CARE, "10 % of the rows lie where the image model"),
        ({"reasons": {SATURATED: 40}}, Trust.REFUSE, "40 % of the rows lie beside saturated"),
        ({"reasons": {OPEN: 4}}, Trust.TRUST, "camera noise and no more"),
        ({"absent": 0.3}, Trust.CARE, "30 % of the rows are expected not to exist"),
        (
            {"reasons": {SATURATED: 40}, "warnings": ["the camera was guessed"]},
            Trust.REFUSE,
            "saturated or dead pixels; the camera was guessed",
        ),
        ({"excess": Excess(0.08, 1.4)}, Trust.CARE, "8 rows in 100"),
        ({"excess": Excess(0.2, 1.2)}, Trust.TRUST, "camera noise and no more"),
        ({"excess": Excess(0.2, 1.6)}, Trust.REFUSE, "20 rows in 100"),
        ({"excess": Excess(tail=0.07)}, Trust.CARE, "7 rows in 100 are faint ones"),
        ({"excess": Excess(tail=0.2)}, Trust.REFUSE, "20 rows in 100 are faint ones"),
        ({"mean_chi2": 1.2}, Trust.CARE, "1.20 times"),
        ({"mean_chi2": 3.0}, Trust.REFUSE, "3.00 times"),
        ({"doubts": _doubts(10, 0)}, Trust.CARE, "10 % of the field of view does not fit"),
        ({"doubts": _doubts(40, 0)}, Trust.REFUSE, "40 % of the field of view does not fit"),
        ({"doubts": _doubts(0, 40)}, Trust.TRUST, "camera noise and no more"),
        ({"reasons": {UNSURE: 8}}, Trust.CARE, "8 % of the rows lie where draws disagree"),
    ],
)
def test_the_verdict_says_why(change, trust, words):
    values = {
        "rows": 100,
        "reasons": {},
        "absent": 0.02,
        "mean_chi2": 1.0,
        "doubts": _doubts(0, 0),
        "excess": Excess(),
        "density_per_px2": 0.01,
        "warnings": [],
    }
    verdict = judge(**values | change)
    assert verdict.trust is trust
    assert words in verdict.sentence
    assert verdict.sentence.startswith(trust.value.capitalize())


def test_the_verdict_names_what_is_grave_and_leaves_out_what_is_rare():
    rare = {OPEN: 60, MISFIT: 9, UNSURE: 2}
    warnings = ["the camera was guessed"]
    values = (1000, rare, 0.02, 1.0, _doubts(10, 0), Excess(), 0.01, warnings)
    assert judge(*values).sentence == (
        "Trust with care: 10 % of the field of view does not fit the model; the camera was "
        "guessed; 6 % of the rows have positions that the frame leaves open."
    )
    # All of them rare: the most frequent speaks for all.
    many = dict.fromkeys((OPEN, MISFIT, UNSURE, SATURATED, ABSENT, REGION), 9)
    values = (1000, many | {MISFIT: 10}, 0.02, 1.0, _doubts(0, 0), Excess(), 0.01, [])
    assert judge(*values).sentence.count(" % of the rows") == 1


def test_a_run_without_rows_is_judged_too():
    verdict = judge(0, {}, 0.0, 1.0, _doubts(0, 0), Excess(), 0.01, [])
    assert verdict.trusted_rows == 1.0
