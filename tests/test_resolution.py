"""Resolution by its closed form, with error bars that hold, and none where there is only noise."""

from __future__ import annotations

import json
import math
import re
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from scipy.stats import t as student_t

from sureloc.analysis.rendering import Canvas, row_gaussians
from sureloc.analysis.resolution import (
    Rings,
    RingSums,
    Tiling,
    _read,
    caution_of_blocks,
    correlation,
    crossing,
    curve_peak,
    decorrelation_resolution,
    frame_blocks,
    frc_of_draws,
    frc_resolution,
    ring_sums,
    smoothed,
    tiling_of,
)
from sureloc.cli import app as cli
from sureloc.errors import InputError
from sureloc.io.exchange.formats import write_localizations
from sureloc.io.exchange.localizations import Geometry, Localizations
from sureloc.io.tables import read_table, write_table
from sureloc.report.resolution import measure_resolution, write_resolution
from sureloc.table import DRAW_COLUMNS, DRIFT_COLUMNS, LOCALIZATION_COLUMNS

SIDE_NM = 4000.0
FIELD = ((0.0, SIDE_NM), (0.0, SIDE_NM))


def sites(seed, number=200, rows=3000, sigma=10.0, frames=600, side=SIDE_NM):
    """Localizations of point-like sites: their power spectrum is 1 / number at every frequency."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(0, side, (number, 2))[rng.integers(number, size=rows)]
    at = place + rng.normal(0, sigma, (rows, 2))
    return pd.DataFrame(
        {
            "frame": rng.integers(frames, size=rows),
            "x_nm": at[:, 0],
            "y_nm": at[:, 1],
            "sigma_x_nm": sigma,
            "sigma_y_nm": sigma,
        }
    )


def closed_form(rows, number, sigma):
    """1 / q where (rows / number) exp(-4 pi^2 sigma^2 q^2) = 1/3, that is where FRC = 1/7."""
    return 2 * math.pi * sigma / math.sqrt(math.log(3 * rows / number))


def noise(seed, rows=2500):
    rng = np.random.default_rng(seed)
    at = rng.uniform(0, SIDE_NM, (rows, 2))
    return pd.DataFrame({"frame": rng.integers(600, size=rows), "x_nm": at[:, 0], "y_nm": at[:, 1]})


# --- Rings and curves ---------------------------------------------------------------------------


def test_rings_count_every_pair_of_twins_once():
    side = 32
    rings = Rings.of(side, 5.0)
    radius = np.hypot(np.fft.fftfreq(side, 1 / side)[:, None], np.fft.fftfreq(side, 1 / side)[None])
    full = np.array([(np.rint(radius) == k).sum() for k in range(side // 2)])
    assert rings.pixels[0] == 0
    assert np.array_equal(2 * rings.pixels[1:], full[1:])
    assert np.allclose(rings.frequency_per_nm[1:], np.arange(1, 16) / (side * 5.0), rtol=0.25)


def test_halves_from_one_transform_are_the_halves(rng):
    table = sites(1, rows=400)
    tiling = tiling_of(FIELD, 200.0)
    x, y = table["x_nm"].to_numpy(), table["y_nm"].to_numpy()
    block = frame_blocks(table["frame"].to_numpy(), 2)
    sums = ring_sums(x, y, block, tiling, 1, np.random.default_rng(3))
    first = block == (0 if np.random.default_rng(3).permutation([True, False])[0] else 1)
    from sureloc.analysis.rendering import histogram
    from sureloc.analysis.resolution import tapered

    window, total = tapered(tiling.side_px), np.zeros((3, tiling.side_px // 2))
    for tile in range(tiling.rows * tiling.columns):
        here, f = tiling.tile_of(x, y) == tile, []
        if here.sum() < 5:
            continue
        for half in (first, ~first):
            image = histogram(x[here & half], y[here & half], tiling.canvas(tile))
            mean = (image * window).sum() / window.sum()
            f.append(np.fft.rfft2((image - mean) * window))
        parts = ((f[0] * f[1].conj()).real, np.abs(f[0]) ** 2, np.abs(f[1]) ** 2)
        total += np.stack([sums.rings.sums(part) for part in parts])
    for mine, theirs in zip((sums.product, sums.first, sums.second), total, strict=True):
        assert np.allclose(mine.sum((0, 1)), theirs, rtol=1e-3, atol=1e-3 * theirs.max())


def test_equal_halves_agree_fully_and_unrelated_ones_not(rng):
    rings = Rings.of(64, 5.0)
    f = rng.normal(size=(2, 50, 32)) ** 2 * 100
    assert np.allclose(correlation(RingSums(f[:1], f[:1], f[:1], rings)), 1.0)
    x, y = rng.uniform(0, SIDE_NM, (2, 3000))
    sums = ring_sums(x, y, rng.integers(20, size=3000), tiling_of(FIELD, 40.0), 1, rng)
    curve, n = correlation(sums), len(sums.product) * sums.rings.pixels
    # Noise: mean 0 and standard deviation 1 / sqrt(2 n), the window making pixels a little less
    # independent (it adds 30 % at most); 40 rings know their spread to 11 %.
    z = curve[5:45] * np.sqrt(2 * n[5:45])
    assert abs(z.mean()) < 4 * 1.3 / math.sqrt(40)
    assert 0.7 < z.std() < 1.7


def test_a_crossing_is_interpolated_and_must_last():
    frequency = np.arange(10.0)
    curve = np.array([1, 1, 1, 1, 0.1, 0.9, 0.5, 0.0, 0.0, 0.0])
    flat = np.full(10, 0.25)
    assert crossing(frequency, curve, flat) == pytest.approx(6.5)  # one ring below is no crossing
    assert crossing(frequency, np.ones(10), flat) == math.inf
    assert crossing(frequency, np.zeros(10), flat) == 3.0


def test_smoothing_keeps_parabolas_and_quietens_noise(rng):
    t = np.linspace(0, 1, 200)
    assert np.allclose(smoothed(1 - t**2)[10:-10], (1 - t**2)[10:-10])
    assert smoothed(rng.normal(size=4000)).std() < 0.3


# --- Fourier ring correlation -------------------------------------------------------------------


TRIALS, FEWEST_HELD = 80, 69


def test_how_many_of_eighty_intervals_must_hold():
    """True 95 % intervals fail once in a thousand times, and those of 70 % pass as rarely."""
    assert binom.cdf(FEWEST_HELD - 1, TRIALS, 0.95) < 1e-3
    assert binom.sf(FEWEST_HELD - 1, TRIALS, 0.70) < 1e-3


def held(results, true):
    return sum(one.low_nm <= true <= one.high_nm for one in results)


def check_reach(one):
    """An interval reaches to each side what Student's t of its tiles makes of its error."""
    reach, sd = 1 / one.nm - 1 / one.high_nm, one.sd_nm / one.nm**2
    assert reach / sd == pytest.approx(student_t.ppf(0.975, one.tiles - 1))
    assert 1 / one.low_nm - 1 / one.nm == pytest.approx(reach)


def test_frc_is_its_closed_form_and_its_intervals_hold_over_seeds():
    number, n_held = TRIALS // 2, 0
    for rows, sigma in ((3000, 10.0), (2000, 14.0)):
        true = closed_form(rows, 200, sigma)
        results = [
            frc_resolution(
                sites(seed, rows=rows, sigma=sigma),
                FIELD,
                np.random.default_rng(seed),
                splits=2,
                resamples=40,
            )
            for seed in range(number)
        ]
        nm, sd = (np.array([getattr(one, name) for one in results]) for name in ("nm", "sd_nm"))
        # The mean of forty: 4 sigmas of chance, and 2 % for smoothing, taper and whole pixels.
        chance = 4 * nm.std(ddof=1) / math.sqrt(number)
        assert nm.mean() == pytest.approx(true, abs=chance + 0.02 * true)
        # The spread of forty values is known to 11 %, and nine tiles know it to 25 %.
        assert 0.6 < nm.std(ddof=1) / sd.mean() < 1.5
        check_reach(results[0])
        n_held += held(results, true)
    assert n_held >= FEWEST_HELD


def tiles_that(agree, rows=4000, side_px=64, pixel_nm=5.0):
    """Give Fourier sums of tiles of which only some have halves that agree, up to a frequency."""
    rings = Rings.of(side_px, pixel_nm)
    power = np.broadcast_to(rings.pixels, (len(agree), 2, rings.pixels.size))
    low = rings.frequency_per_nm < 0.03
    product = power * low * np.asarray(agree)[:, None, None]
    tiling = Tiling(0.0, 0.0, pixel_nm, side_px, 1, len(agree))
    return _read(
        RingSums(product, power, power, rings), tiling, rows, 200, np.random.default_rng(0)
    )


def test_an_interval_that_reaches_no_end_says_so(tmp_path):
    """Of few tiles that disagree, the coarse end would lie below the frequency 0."""
    result = tiles_that([1.0, 0.1])
    assert result.found
    assert result.high_nm == math.inf
    assert re.search(r"nm, 95 % interval from \d+\.\d nm on, with no upper end\.$", result.sentence)
    alone = tiles_that([1.0])
    assert (alone.low_nm, alone.high_nm) == (0.0, math.inf)
    assert alone.sentence.endswith("nm, no 95 % interval, as too little of the field has rows.")
    write_resolution([result, alone], tmp_path / "out", "t")
    text = (tmp_path / "out" / "resolution.json").read_text()
    one, two = json.loads(text)["resolutions"]
    assert (one["high_nm"], two["high_nm"], two["sd_nm"]) == (None, None, None)
    assert one["low_nm"] == pytest.approx(result.low_nm)


def test_pure_noise_has_no_resolution():
    results = [
        frc_resolution(noise(seed), FIELD, np.random.default_rng(seed), splits=4)
        for seed in range(6)
    ]
    assert [one.found for one in results] == [False] * 6
    assert "no resolution" in results[0].sentence


def test_draws_are_blurred_twice():
    table, draws = sites(3, rows=4000), []
    rng = np.random.default_rng(5)
    for number in range(4):
        moved = table[["x_nm", "y_nm"]] + rng.normal(0, 10.0, (len(table), 2))
        draws.append(moved.assign(draw=number, frame=table["frame"], photons=1.0))
    result = frc_of_draws(pd.concat(draws), 4, FIELD, rng, resamples=60)
    true = closed_form(4000, 200, 10.0 * math.sqrt(2))
    assert result.nm == pytest.approx(true, abs=3 * result.sd_nm)
    assert result.sd_nm < 0.1 * true
    assert result.low_nm < result.nm - result.sd_nm < result.nm < result.high_nm
    rows = frc_resolution(table, FIELD, rng, resamples=60)
    assert result.nm / rows.nm == pytest.approx(math.sqrt(2), rel=0.08)


def test_intervals_of_draws_hold_over_seeds():
    true, results = closed_form(3000, 200, 10.0 * math.sqrt(2)), []
    for seed in range(TRIALS // 2):
        rng, table = np.random.default_rng(100 + seed), sites(seed)
        draws = [
            (table[["x_nm", "y_nm"]] + rng.normal(0, 10.0, (len(table), 2))).assign(
                draw=number, frame=table["frame"], photons=1.0
            )
            for number in range(3)
        ]
        results.append(frc_of_draws(pd.concat(draws), 3, FIELD, rng, resamples=20))
    # Half as many trials: 95 % are below 33 of 40 once in a thousand times, 70 % in all but 6 %.
    assert held(results, true) >= 33
    for one in results:
        check_reach(one)
    # What is stated is no less than the scatter, of which forty values know 11 %.
    nm, sd = (np.array([getattr(one, name) for one in results]) for name in ("nm", "sd_nm"))
    assert nm.std(ddof=1) < 1.4 * sd.mean()
    # 3000 rows at 200 sites know it to some 4 %: 2.3 (Student's t of nine tiles) times that a side.
    assert np.mean([one.high_nm - one.low_nm for one in results]) < 0.3 * true


def test_a_blink_of_many_frames_is_no_resolution():
    """A molecule that shines for ten frames would agree with itself if frames were split singly."""
    rng = np.random.default_rng(8)
    start, place = rng.integers(0, 2000, 300), rng.uniform(0, SIDE_NM, (300, 2))
    at = np.repeat(place, 10, axis=0) + rng.normal(0, 8.0, (3000, 2))
    frame = (start[:, None] + np.arange(10)).ravel()
    table = pd.DataFrame({"frame": frame, "x_nm": at[:, 0], "y_nm": at[:, 1]})
    assert not frc_resolution(table, FIELD, rng, splits=4).found
    assert frc_resolution(table, FIELD, rng, splits=4, blocks=3000).found


def test_blocks_follow_time_and_hold_equally_many_rows(rng):
    frame = np.sort((rng.uniform(size=5000) ** 2 * 1000).astype(np.int64))  # crowded at the start
    block = frame_blocks(frame, 10)
    assert (np.diff(block) >= 0).all()
    assert all(len(set(block[frame == f])) == 1 for f in np.unique(frame)[::50])
    assert np.bincount(block).min() > 350
    with pytest.raises(InputError, match="one frame"):
        frame_blocks(np.zeros(9, np.int64), 10)


@pytest.mark.parametrize("option", [{"blocks": 1}, {"splits": 0}, {"resamples": 3}])
def test_impossible_counts_are_refused(option):
    with pytest.raises(InputError, match=next(iter(option))):
        frc_resolution(noise(1), FIELD, np.random.default_rng(0), **option)


def shining(on_time, frames, rng, molecules=400):
    """Molecules on random sites, each on once, for a geometric number of frames."""
    length = rng.geometric(1 - math.exp(-1 / on_time), molecules)
    start = rng.integers(-int(3 * on_time), frames, molecules)
    number = np.repeat(np.arange(molecules), length)
    frame = np.concatenate([np.arange(s, s + n) for s, n in zip(start, length, strict=True)])
    at = rng.uniform(0, SIDE_NM, (molecules, 2))[number] + rng.normal(0, 8, (number.size, 2))
    table = pd.DataFrame({"frame": frame, "x_nm": at[:, 0], "y_nm": at[:, 1]})
    table = table.assign(sigma_x_nm=8.0, sigma_y_nm=8.0)
    return table[(frame >= 0) & (frame < frames)].reset_index(drop=True)


@pytest.mark.parametrize("on_time", [1.5, 7.0])
def test_the_on_time_is_read_from_a_table_and_short_blocks_are_warned_of(on_time):
    rng = np.random.default_rng(3)
    table = shining(on_time, 300, rng)

    def caution_of(rows, blocks):
        return caution_of_blocks(rows, blocks, np.random.default_rng(0))

    long, short = (caution_of(table, blocks) for blocks in (4, 150))
    assert long == ""
    assert "blocks are 2.0 frames long" in short
    stated = float(re.search(r"for some ([\d.]+) frames", short)[1])
    assert stated == pytest.approx(on_time, rel=0.15)
    advised = int(re.search(r"--blocks (\d+)", short)[1])
    assert caution_of(table, advised) == ""
    assert caution_of(table, advised + 1) != ""
    assert "the movie is too short" in caution_of(shining(7.0, 11, rng), 20)
    assert caution_of(table.drop(columns="sigma_x_nm"), 150) == ""
    two = table[table["frame"] < 2]
    assert "The rows are of 2 frames, too few to tell" in caution_of(two, 150)


def test_few_rows_have_no_resolution():
    result = frc_resolution(noise(1, rows=9), FIELD, np.random.default_rng(0))
    assert "9 rows are too few" in result.sentence


# --- Decorrelation ------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0.1, 0.2])
def test_decorrelation_finds_where_a_picture_was_cut_off_within_its_interval(cut):
    n, true, results = 384, 5.0 / cut, []
    q = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None])
    for seed in range(TRIALS):
        rng = np.random.default_rng(seed)
        image = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(n, n))) * (q < cut), (n, n))
        image = image + 0.02 * rng.normal(size=(n, n))
        results.append(decorrelation_resolution(image, 5.0, rng, resamples=10))
    # Rings are 1 / 128 of a pixel's inverse wide: 8 % and 4 % of the cut-off, half of it each way.
    assert np.mean([one.nm for one in results]) == pytest.approx(true, rel=0.04)
    assert held(results, true) >= FEWEST_HELD
    # One ring is the least; nine tiles that do not agree in their ring widen it to three.
    assert np.mean([one.high_nm - one.low_nm for one in results]) < 0.2 * true


def test_white_noise_and_nothing_have_no_decorrelation_resolution(rng):
    white = decorrelation_resolution(rng.normal(size=(256, 256)), 5.0, rng, resamples=10)
    assert not white.found
    assert not decorrelation_resolution(np.zeros((256, 256)), 5.0, rng).found


def test_decorrelation_follows_the_width_of_drawn_spots(rng):
    canvas = Canvas.between((0.0, 2000.0), (0.0, 2000.0), 6.0)
    sizes = []
    for sigma in (10.0, 20.0):
        table = noise(4).assign(sigma_x_nm=sigma, sigma_y_nm=sigma)
        image = row_gaussians(table, canvas)
        sizes.append(decorrelation_resolution(image, 6.0, rng, resamples=10).nm)
    assert sizes[1] / sizes[0] == pytest.approx(2.0, rel=0.05)


def test_a_peak_must_be_fallen_from():
    assert curve_peak(np.array([0.1, 0.5, 0.4, 0.3])) == 1
    assert curve_peak(np.array([0.1, 0.2, 0.3, 0.4])) == 0
    assert curve_peak(np.array([0.1, 0.5, 0.4, 0.6])) == 1  # the last value only rises
    assert curve_peak(np.array([0.5, 0.4, 0.3])) == 0


# --- Command ------------------------------------------------------------------------------------


def command(*arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sureloc", *map(str, arguments)])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    return leaving.value.code


@pytest.fixture
def folder(tmp_path):
    """A run as far as `sureloc resolution` looks: rows and draws of sites, and the record."""
    run, rng = tmp_path / "run", np.random.default_rng(6)
    run.mkdir()
    known = sites(2)
    table = pd.DataFrame({c.name: np.zeros(len(known)) for c in LOCALIZATION_COLUMNS})
    table = table.assign(**{name: known[name] for name in known}, trusted=True, reason="")
    write_table(table, run / "localizations.parquet", LOCALIZATION_COLUMNS)
    draws = [
        (known[["x_nm", "y_nm"]] + rng.normal(0, 10.0, (len(known), 2))).assign(
            draw=number, frame=known["frame"], photons=1.0
        )
        for number in range(3)
    ]
    write_table(pd.concat(draws), run / "draws.parquet", DRAW_COLUMNS)
    record = {"pixel_nm": 100.0, "draws": 3, "movie": {"shape": [600, 40, 40]}}
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return run


def test_the_command_says_draws_and_writes(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    code = command(
        *("resolution", folder, "--out", out, "--splits", 3, "--resamples", 40),
        monkeypatch=monkeypatch,
    )
    said = capsys.readouterr().out
    assert code == 0
    assert "FRC of the rows, 1/7: " in said
    assert "Drift was not taken from" in said
    assert "FRC of the draws, 1/7: " in said
    assert "decorrelation of the picture: " in said
    assert (out / "resolution.png").stat().st_size > 10_000
    rows, draws, _ = json.loads((out / "resolution.json").read_text())["resolutions"]
    true = closed_form(3000, 200, 10.0)
    assert rows["nm"] == pytest.approx(true, abs=4 * rows["sd_nm"])
    assert draws["draws_sd_nm"] > 0
    assert len(rows["curve"]) == len(rows["frequency_per_nm"])


def test_the_same_seed_gives_the_same_numbers(folder):
    options = {"splits": 2, "resamples": 20, "trusted_only": True, "roi": "0:25,0:25"}
    one, two = (measure_resolution(folder, **options) for _ in range(2))
    assert [r.nm for r in one] == [r.nm for r in two]
    assert one[0].rows < 1500


def test_rows_without_drift_are_not_said_to_have_it(folder):
    said = []
    table = folder / "localizations.parquet"
    rows = read_table(table, LOCALIZATION_COLUMNS)
    columns = (*LOCALIZATION_COLUMNS, *DRIFT_COLUMNS)
    still = folder / "still.parquet"
    write_table(rows.assign(**{c.name: 0.0 for c in DRIFT_COLUMNS}), still, columns)
    measure_resolution(still, splits=1, resamples=10, say=said.append, camera_pixel_nm=100.0)
    still.unlink()
    assert not [one for one in said if "Drift" in one]


def test_noise_is_said_to_be_noise(tmp_path, monkeypatch, capsys):
    table = noise(2)
    table = table.assign(**{c.name: 0.0 for c in LOCALIZATION_COLUMNS if c.name not in table})
    table = table.assign(trusted=True, reason="", sigma_x_nm=12.0, sigma_y_nm=12.0)
    write_table(table, tmp_path / "noise.parquet", LOCALIZATION_COLUMNS)
    code = command(
        *("resolution", tmp_path / "noise.parquet", "--out", tmp_path / "out"),
        monkeypatch=monkeypatch,
    )
    assert code == 0
    assert capsys.readouterr().out.count("no resolution") == 2
    assert (tmp_path / "out" / "resolution.png").exists()


def test_a_table_without_trust_cannot_be_cut_by_it(tmp_path):
    write_localizations(Localizations(sites(1, rows=60), Geometry(100.0)), tmp_path / "t.csv")
    with pytest.raises(InputError, match="which rows are trusted"):
        measure_resolution(tmp_path / "t.csv", camera_pixel_nm=100.0, trusted_only=True)
