"""The audit passes honest tables, fails intervals 1.3 times too narrow, and seldom errs."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile

from sureloc.analysis.audit import (
    GATE,
    Outcome,
    Pairs,
    _ratios_of_resamples,
    bright_and_alone,
    chi2_item,
    clear_rows,
    error_over_stated,
    following_pairs,
    ratio_item,
    split_light,
    split_pairs,
)
from sureloc.camera import Camera
from sureloc.cli import app as cli
from sureloc.errors import InputError
from sureloc.io.cameras import write_camera
from sureloc.io.found import read_found
from sureloc.io.tables import write_table
from sureloc.localize.frames import Effort
from sureloc.networks.weights import load_weights, save_weights
from sureloc.report.audit import (
    _localized,
    _weights,
    audit_run,
    camera_of_half,
    page_of,
    split_movie,
)
from sureloc.table import LOCALIZATION_COLUMNS

NAME = "<b>run & co"


def honest(seed, molecules=250, frames=300, side=6000.0, narrow=1.0):
    """Molecules that shine for a few frames; sigmas are divided by `narrow` after the fact."""
    rng = np.random.default_rng(seed)
    length = 1 + rng.geometric(0.5, molecules)
    start = rng.integers(0, frames - 20, molecules)
    of = np.repeat(np.arange(molecules), length)
    step = np.arange(of.size) - np.repeat(np.cumsum(length) - length, length)
    place = rng.uniform(0, side, (molecules, 2))[of]
    sigma, rho = rng.uniform(5, 20, (of.size, 2)), rng.uniform(-0.5, 0.5, of.size)
    unit = rng.normal(size=(of.size, 2))
    unit[:, 1] = rho * unit[:, 0] + np.sqrt(1 - rho**2) * unit[:, 1]
    at = place + sigma * unit
    table = pd.DataFrame({c.name: np.zeros(of.size) for c in LOCALIZATION_COLUMNS})
    return table.assign(
        frame=start[of] + step,
        x_nm=at[:, 0],
        y_nm=at[:, 1],
        sigma_x_nm=sigma[:, 0] / narrow,
        sigma_y_nm=sigma[:, 1] / narrow,
        cov_xy_nm2=rho * sigma.prod(1) / narrow**2,
        photons=rng.lognormal(7, 0.5, of.size),
        p_exists=0.99,
        chi2=rng.normal(1.0, 0.2, of.size),
        trusted=True,
        reason="",
    )


def verdict(table, seed=0, resamples=60):
    pairs = following_pairs(clear_rows(table))
    return ratio_item("name", "question", pairs, np.random.default_rng(seed), resamples)


# --- The law of differences ---------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.5])
def test_the_gate_and_chance_pairs_do_not_bias_the_ratio(ratio):
    rng = np.random.default_rng(2)
    half = rng.exponential(ratio**2, 40_000)
    half = half[half < GATE**2 / 2]
    chance = rng.uniform(0, GATE**2 / 2, 10_000)
    found, share = error_over_stated(2 * np.concatenate([half, chance]))
    # sd of r: r / (2 sqrt(n)) = 0.25 %, somewhat more with chance pairs to be told apart.
    assert found == pytest.approx(ratio, rel=0.02)
    assert share == pytest.approx(half.size / (half.size + 10_000), abs=0.02)


def test_a_gate_that_is_forgotten_would_bias_the_ratio():
    rng = np.random.default_rng(2)
    half = rng.exponential(2.5**2, 40_000)
    half = half[half < GATE**2 / 2]
    assert math.sqrt(half.mean()) < 0.85 * 2.5
    assert error_over_stated(2 * half)[0] == pytest.approx(
        2.04, rel=0.2
    )  # the largest it looks for


def test_resamples_are_fits_to_copies_of_groups():
    rng = np.random.default_rng(5)
    squared = 2 * rng.exponential(1.0, 300)
    squared = squared[squared < GATE**2]
    pairs = Pairs(squared, rng.integers(90, size=squared.size))
    mine = _ratios_of_resamples(pairs, 1.0, 0.9, np.random.default_rng(3), 4)
    number = np.unique(pairs.group).size
    counts = np.random.default_rng(3).multinomial(number, np.full(number, 1 / number), 4)
    of_pair = np.unique(pairs.group, return_inverse=True)[1]
    theirs = [error_over_stated(np.repeat(squared, one[of_pair]))[0] for one in counts]
    assert mine == pytest.approx(theirs, rel=5e-3)  # bins, and when climbing ends


def test_pairs_are_all_within_the_gate_and_grouped_by_molecule():
    table = pd.DataFrame(
        {
            "frame": [0, 1, 2, 1, 5, 6],
            "x_nm": [0.0, 10.0, 20.0, 500.0, 0.0, 30.0],
            "y_nm": 0.0,
            "sigma_x_nm": 10.0,
            "sigma_y_nm": 10.0,
        }
    )
    pairs = following_pairs(table)
    assert sorted(pairs.squared) == pytest.approx([0.5, 0.5, 4.5])
    assert len(set(pairs.group)) == 2  # the chain of three frames is one molecule
    other = table.assign(cov_xy_nm2=60.0, y_nm=[0, 8, 0, 0, 0, 0])
    inverse = np.linalg.inv(2 * np.array([[100.0, 60.0], [60.0, 100.0]]))
    wanted = np.array([10.0, 8.0]) @ inverse @ np.array([10.0, 8.0])
    assert following_pairs(other).squared.min() == pytest.approx(wanted)


def test_halves_are_paired_in_their_frame_only():
    one = pd.DataFrame(
        {"frame": [0, 1], "x_nm": 0.0, "y_nm": 0.0, "sigma_x_nm": 1.0, "sigma_y_nm": 1.0}
    )
    two = one.assign(x_nm=[1.0, 2.0])
    pairs = split_pairs(one, two)
    assert sorted(pairs.squared) == pytest.approx([0.5, 2.0])
    assert set(pairs.group) == {0, 1}


def test_only_sure_rows_are_asked_and_bright_ones_stand_alone():
    table = honest(1, molecules=40)
    table.loc[0, "trusted"] = False
    table.loc[1, "p_exists"] = 0.5
    table.loc[2, "sigma_x_nm"] = np.nan
    assert len(clear_rows(table)) == len(table) - 3
    pair = table.head(3).assign(frame=7, x_nm=[0.0, 300.0, 5000.0], y_nm=0.0, photons=1.0)
    assert list(bright_and_alone(pair, 400.0)["x_nm"]) == [5000.0]
    with pytest.raises(InputError, match="sigma_y_nm"):
        clear_rows(table.drop(columns="sigma_y_nm"))


# --- Passing, failing, and how often wrongly ----------------------------------------------------


def test_honest_tables_pass_and_false_alarms_are_rare():
    items = [verdict(honest(seed), seed) for seed in range(14)]
    # At most 1 % may fail even at 1.15 times; at 1 none of 14 does.
    assert sum(item.outcome is Outcome.FAIL for item in items) == 0
    assert sum(item.outcome is Outcome.PASS for item in items) >= 13
    values, sd = np.array([(item.value, item.sd) for item in items]).T
    assert values.mean() == pytest.approx(1.0, abs=0.02)
    # 14 values know their spread to 19 %.
    assert values.std(ddof=1) == pytest.approx(sd.mean(), rel=0.6)


def test_errors_as_large_as_is_allowed_fail_no_more_often_than_stated():
    items = [verdict(honest(seed, narrow=1.15), seed) for seed in range(14)]
    assert sum(item.outcome is Outcome.FAIL for item in items) <= 2  # 1 %: 3 of 14 come in 4e-4


def test_intervals_too_narrow_by_a_third_fail():
    items = [verdict(honest(seed, molecules=500, narrow=1.3), seed) for seed in range(8)]
    assert sum(item.outcome is Outcome.FAIL for item in items) >= 7
    assert np.mean([item.value for item in items]) == pytest.approx(1.3, rel=0.03)
    assert "too narrow" in items[0].sentence


def test_dense_tables_with_many_chance_pairs_are_judged_right():
    dense = honest(4, molecules=1500, side=3000.0)
    item = verdict(dense)
    assert item.outcome is Outcome.PASS
    assert item.value == pytest.approx(1.0, abs=4 * item.sd)
    narrow = verdict(honest(4, molecules=1500, side=3000.0, narrow=1.3))
    assert narrow.outcome is Outcome.FAIL


def test_wide_intervals_pass_and_are_called_wide():
    item = verdict(honest(1, molecules=800, narrow=0.6))
    assert item.outcome is Outcome.PASS
    wide = round(100 * (1 / item.value - 1))
    assert f"error bars are about {wide} % too wide here" in item.sentence
    assert 50 < wide < 80
    # So it is where the whole interval lies below 1, however near.
    near = verdict(honest(1, molecules=800, narrow=0.85))
    assert 1 / 1.15 < near.high < 1
    assert "% too wide here" in near.sentence


def test_few_pairs_cannot_tell():
    assert verdict(honest(1, molecules=5)).outcome is Outcome.OPEN
    few = verdict(honest(1, molecules=5))
    assert "at least 20 molecules are needed" in few.sentence
    some = verdict(honest(8, molecules=30, narrow=1.25))
    assert some.outcome is Outcome.OPEN
    assert "too few pairs to tell" in some.sentence


@pytest.mark.parametrize(
    ("mean", "outcome"), [(1.0, Outcome.PASS), (1.4, Outcome.FAIL), (0.7, Outcome.FAIL)]
)
def test_chi2_is_judged_on_both_sides(mean, outcome):
    table = honest(3)
    table["chi2"] = table["chi2"] * mean
    item = chi2_item(table, np.random.default_rng(0))
    assert item.outcome is outcome
    assert item.value == pytest.approx(mean, rel=0.05)
    assert ("noise and no more" in item.sentence) == (mean == 1.0)
    assert chi2_item(table.head(3), np.random.default_rng(0)).outcome is Outcome.OPEN
    assert chi2_item(table[["frame"]], np.random.default_rng(0)).outcome is Outcome.OPEN


@pytest.mark.parametrize(
    ("mean", "said"), [(1.09, "9 % more than noise"), (0.92, "8 % less than noise")]
)
def test_chi2_that_is_surely_not_1_is_not_called_noise_where_it_is_allowed(mean, said):
    table = honest(3, molecules=500)
    table["chi2"] = mean + 0.01 * (table["chi2"] - 1)
    item = chi2_item(table, np.random.default_rng(0))
    assert item.outcome is Outcome.PASS
    assert f"{said}, within what is allowed" in item.sentence
    assert "no more" not in item.sentence


# --- Halves of the light ------------------------------------------------------------------------


def test_halves_are_independent_and_each_is_half_of_the_light(rng):
    variance = np.array([[0.0, 4.0], [9.0, 1.0]])
    rate = np.array([[3.0, 20.0], [60.0, 200.0]])
    number = 60_000
    frames = rng.poisson(rate, (number, 2, 2)) + rng.normal(size=(number, 2, 2)) * np.sqrt(variance)
    one, two = split_light(frames, variance, rng)
    assert np.allclose(one + two, frames)
    # Moments of 60,000 values: means to 4 sigmas, variances and covariances likewise.
    expected = rate / 2 + variance / 2
    for half in (one, two):
        assert np.abs(half.mean(0) - rate / 2).max() < 4 * math.sqrt(expected.max() / number)
        assert half.var(0) == pytest.approx(expected, rel=0.03)
    tie = ((one - one.mean(0)) * (two - two.mean(0))).mean(0)
    assert np.abs(tie / expected).max() < 4 / math.sqrt(number)


def test_a_half_camera_reads_a_half_and_saturation_stays(rng):
    camera = Camera(100.0, 2.0, np.full((4, 5), 9.0), saturation_adu=4095)
    half = camera_of_half(camera)
    shape = (4, 5)
    # Half of the whole's variance, and the rounding of the half itself.
    wanted = camera.read_variance_e2(shape) / 2 + 1 / 12 / 4
    assert np.allclose(half.read_variance_e2(shape), wanted)
    adu = np.full((3, 4, 5), 300, np.uint16)
    adu[1, 2, 3] = 4095
    one, two = split_movie(adu, camera, rng)
    assert one[1, 2, 3] == two[1, 2, 3] == 4095
    assert np.abs(half.electrons(one) + half.electrons(two) - 100).max() < 4095
    rest = np.ones(adu.shape, bool)
    rest[1, 2, 3] = False
    total = half.electrons(one) + half.electrons(two)
    assert np.abs(total[rest] - 100.0).max() <= 0.51  # two roundings of half an ADU each


def test_halves_of_numbers_that_are_not_whole_are_not_rounded(rng):
    camera = Camera(0.1, 2e-5, 9e-10, rounding_adu2=0.0)
    adu = rng.uniform(0.101, 0.11, (3, 4, 5)).astype(np.float32)
    one, two = split_movie(adu, camera, rng)
    half = camera_of_half(camera)
    assert np.allclose(half.electrons(one) + half.electrons(two), camera.electrons(adu), atol=0.01)
    assert half.variance_adu2 == pytest.approx(4.5e-10)


# --- Command and page ---------------------------------------------------------------------------


def command(*arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sureloc", *map(str, arguments)])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    return leaving.value.code


def written(folder, table, **record):
    folder.mkdir()
    write_table(table, folder / "localizations.parquet", LOCALIZATION_COLUMNS)
    content = {"pixel_nm": 100.0, "assumed": {"sigma_px": [1.2, 1.2]}, **record}
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_an_honest_run_passes_on_one_page(tmp_path, monkeypatch, capsys):
    run = written(tmp_path / NAME, honest(1, molecules=700, frames=900))
    code = command("audit", run, "--out", tmp_path / "out", monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    assert code == 0
    assert "pass: bright molecules" in said
    assert "Pass: all 3 items; 1 was not asked." in said
    assert "not asked: two halves of the light. The movie was not given (--movie)." in said
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert "<b>" not in page
    assert "&lt;b&gt;run &amp; co" in page
    assert "http" not in page.replace("http-equiv", "")
    record = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert record["outcome"] == "pass"
    assert record["false_alarms_per_item"] == 0.01
    assert [item["outcome"] for item in record["items"]] == ["pass", "pass", "not asked", "pass"]
    assert record["items"][2]["value"] is None


def test_a_table_of_a_later_step_is_asked_about_the_same_molecules(tmp_path):
    """Its folder holds no record of the PSF width, but the table does."""
    table = honest(1, molecules=700, frames=900, side=4000.0)
    assumed = {"assumed": {"sigma_px": [1.9, 1.9]}}
    run = written(tmp_path / "run", table, **assumed)
    still = tmp_path / "still"
    still.mkdir()
    origin = {"geometry": {"pixel_nm": 100.0, "psf_sigma_nm": 190.0}}
    write_table(table, still / "localizations.parquet", LOCALIZATION_COLUMNS, origin)
    of_run, of_step = (audit_run(folder).items[0].number for folder in (run, still))
    assert of_run == of_step > 0


def test_a_run_whose_sigmas_were_shrunk_fails_with_exit_code_3(tmp_path, monkeypatch, capsys):
    run = written(tmp_path / "run", honest(1, molecules=700, frames=900, narrow=1.3))
    assert command("audit", run, monkeypatch=monkeypatch) == 3
    assert "Fail: bright molecules" in capsys.readouterr().out
    assert (tmp_path / "run_audit" / "audit.html").exists()
    # Nothing is overwritten.
    assert command("audit", run, monkeypatch=monkeypatch) == 2


def test_what_fits_nothing_is_refused(tmp_path, monkeypatch, capsys):
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((3, 16, 16), np.uint16), photometric="minisblack")
    run = written(tmp_path / "run", honest(1, molecules=40), movie={"shape": [4, 16, 16]})
    out = ("--out", tmp_path / "out", "--movie", tmp_path / "m.tif")
    assert command("audit", run, *out, monkeypatch=monkeypatch) == 2
    assert "localized 4 of 16 x 16 px" in capsys.readouterr().err
    other = written(tmp_path / "other", honest(1, molecules=40))
    assert command("audit", other, *out, monkeypatch=monkeypatch) == 2
    assert "--camera" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_electron_multiplication_is_not_split(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((3, 16, 16), np.uint16), photometric="minisblack")
    (tmp_path / "c.yaml").write_text(
        "offset_adu: 100\ngain_adu_per_e: 20\nvariance_adu2: 9\nem_gain: 200\n", encoding="utf-8"
    )
    run = written(tmp_path / "run", honest(1, molecules=40), movie={"shape": [3, 16, 16]})
    audit = audit_run(run, movie=tmp_path / "m.tif", camera=tmp_path / "c.yaml")
    assert audit.items[2].outcome is Outcome.UNASKED
    assert "multiplication" in page_of(audit)


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """A sparse movie, and a run that names it and weights of one's own."""
    folder, rng = tmp_path_factory.mktemp("sparse"), np.random.default_rng(5)
    frames, rows, columns = np.mgrid[:26, :24, :24]
    electrons = np.full(frames.shape, 4.0)
    for y, x in rng.uniform(4, 20, (2, 2, 26)):
        distance2 = (rows - y[frames]) ** 2 + (columns - x[frames]) ** 2
        electrons += 2500 / (2 * np.pi * 1.2**2) * np.exp(-distance2 / (2 * 1.2**2))
    adu = 100 + 2 * rng.poisson(electrons) + rng.normal(0, 3, electrons.shape)
    tifffile.imwrite(folder / "m.tif", np.rint(adu).astype(np.uint16), photometric="minisblack")
    write_camera(Camera(100.0, 2.0, 9.0), folder / "camera.yaml")
    fast = load_weights("fast")
    card = fast.card.model_copy(update={"name": "mine"})
    save_weights(replace(fast, card=card), folder / "mine.safetensors")
    record = {"weights": card.model_dump(mode="json"), "camera": str(folder / "camera.yaml")}
    record["weights_from"] = str(folder / "mine.safetensors")
    movie = {"shape": list(adu.shape)}
    written(folder / "run", honest(1, molecules=60), movie=movie, **record)
    return folder


@pytest.mark.parametrize(
    ("frames", "said"),
    [(11, "The movie has 11 frames, at least 20 are needed"), (30, "12 frames were to be halved")],
)
def test_too_few_frames_are_said_before_anything_is_localized(
    frames, said, sparse, tmp_path, monkeypatch
):
    adu = np.full((frames, 16, 16), 110, np.uint16)
    tifffile.imwrite(tmp_path / "m.tif", adu, photometric="minisblack")
    camera = {"camera": str(sparse / "camera.yaml"), "movie": {"shape": list(adu.shape)}}
    run = written(tmp_path / "run", honest(1, molecules=40), **camera)

    def localized(*_):
        raise AssertionError("nothing should be localized")

    monkeypatch.setattr("sureloc.report.audit.split_movie", localized)
    split = audit_run(run, movie=tmp_path / "m.tif", frames=12).items[2]
    assert split.outcome is Outcome.UNASKED
    assert said in split.sentence
    one, two = (honest(seed, molecules=10).assign(frame=7) for seed in (1, 2))
    pairs = split_pairs(one, pd.concat([one, two]))
    sentence = ratio_item("name", "question", pairs, np.random.default_rng(0)).sentence
    assert "come from 1 frames; at least 20 frames are needed" in sentence


def test_both_halves_of_a_movies_light_are_localized_and_agree(sparse, tmp_path, monkeypatch):
    out = tmp_path / "out"
    options = ("--movie", sparse / "m.tif", "--out", out)
    assert command("audit", sparse / "run", *options, monkeypatch=monkeypatch) == 0
    record = json.loads((out / "audit.json").read_text())
    split = record["items"][2]
    # 52 emitters, some of them too near to each other for their halves to be sure.
    assert 35 <= split["number"] <= 52
    # So many pairs know their ratio to 1 / (2 sqrt(35)) = 8 %.
    assert split["sd"] < 0.15
    assert split["low"] <= 1.0 <= split["high"]
    assert record["record"]["weights of both halves"] == "mine, as the run"


# --- The camera of the run ------------------------------------------------------------------------

EMCCD = Camera(100.0, 20.0, 9.0, quantum_efficiency=0.9, em_gain=200.0, saturation_adu=16383)
MAPS = Camera(100.0, 2.0, np.full((16, 16), 9.0))
ASSUMED = {
    "sigma_px": [1.2, 1.2],
    "median_offset_adu": 100.0,
    "median_gain_adu_per_e": 20.0,
    "median_variance_adu2": 9.0,
}
SCALARS = {
    "camera_has_maps": False,
    "quantum_efficiency": 0.9,
    "em_gain": 200.0,
    "saturation_adu": 16383,
}


@pytest.fixture
def film(tmp_path):
    """A movie of too few frames to be split, and a way to make a run of it."""
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, np.full((3, 16, 16), 110, np.uint16), photometric="minisblack")

    def run(given, name="run", /, **record):
        content = {"movie": {"shape": [3, 16, 16]}, "assumed": ASSUMED, **record}
        if given is not None:
            content["identity"] = {"camera": given.fingerprint(np.uint16)}
        return written(tmp_path / name, honest(1, molecules=40), **content)

    return path, run


def test_the_camera_of_the_run_is_found_from_any_folder_and_said(
    film, tmp_path, monkeypatch, capsys
):
    movie, run = film
    file = tmp_path / "c.yaml"
    write_camera(EMCCD, file)
    named = {"camera": "c.yaml", "camera_file": str(file), "assumed": ASSUMED | SCALARS}
    made = run(EMCCD, **named)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    out = ("--movie", movie, "--out", tmp_path / "out")
    assert command("audit", made, *out, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert f"camera: {file}, as the run" in said
    assert "After electron multiplication" in said
    assert f"{file}, as the run" in (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    # An older record, with the path as typed, is understood where the path still leads there.
    older = run(EMCCD, "older", camera="../c.yaml")
    assert audit_run(older, movie=movie).record["camera"] == "../c.yaml, as the run"
    # Another file is taken where it is given, and it is said.
    write_camera(replace(EMCCD, em_gain=100.0), tmp_path / "other.yaml")
    other = audit_run(made, movie=movie, camera=tmp_path / "other.yaml").record["camera"]
    assert other.endswith("other.yaml, as given, not the one that the run used")
    assert audit_run(made, movie=movie, camera=file).record["camera"] == f"{file}, as given"
    assert audit_run(made).record["camera"] == "none"


def test_numbers_of_the_record_are_taken_only_where_they_are_all_of_the_camera(film, tmp_path):
    movie, run = film
    gone = {"camera": "c.yaml", "camera_file": str(tmp_path / "c.yaml")}
    whole = run(EMCCD, "whole", **gone, assumed=ASSUMED | SCALARS)
    audit = audit_run(whole, movie=movie)
    assert "as the run recorded it, gain 20 ADU per electron" in audit.record["camera"]
    assert "c.yaml is not there any more" in audit.record["camera"]
    assert "multiplication" in audit.items[2].sentence
    # A file that was changed since is not that of the run.
    write_camera(replace(EMCCD, em_gain=1.0), tmp_path / "c.yaml")
    audit = audit_run(whole, movie=movie)
    assert "holds another camera by now" in audit.record["camera"]
    assert "multiplication" in audit.items[2].sentence
    (tmp_path / "c.yaml").unlink()
    with_maps = {**gone, "assumed": ASSUMED | SCALARS | {"camera_has_maps": True}}
    for made in (
        run(MAPS, "maps", **with_maps),
        run(EMCCD, "older", camera="c.yaml"),  # nothing says what else it was
        run(MAPS, "python", camera="given"),
        run(MAPS, "unnamed"),
    ):
        with pytest.raises(InputError, match="Give the file with --camera"):
            audit_run(made, movie=movie)


def test_a_camera_that_the_run_estimated_is_taken_from_its_record(film):
    movie, run = film
    for name, more in (("new", SCALARS | {"em_gain": 1.0}), ("older", {})):
        made = run(None, name, camera=None, assumed=ASSUMED | more)
        audit = audit_run(made, movie=movie)
        assert audit.record["camera"].startswith("estimated from the movie by the run, gain 20")
        assert "has 3 frames" in audit.items[2].sentence


def test_halves_are_localized_with_the_options_of_the_run(sparse, monkeypatch):
    seen = []

    def kept(_movie, _camera, options, _networks):
        seen.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("sureloc.report.audit.prepare", kept)
    found = read_found(sparse / "run")
    for record in ({}, {"rounds": 5, "trust_camera": True}):
        asked = replace(found, record=record)
        with pytest.raises(KeyboardInterrupt):
            _localized(np.zeros((2, 16, 16)), Camera(100.0, 2.0, 9.0), asked, None, 1, 0)
    usual = Effort.rounds
    assert [(one.effort.rounds, one.trust_camera) for one in seen] == [(usual, False), (5, True)]


def test_weights_that_cannot_be_had_again_are_named_on_the_page(sparse, tmp_path):
    found = read_found(sparse / "run")
    networks, said = _weights(found)
    assert (networks.card.name, said) == ("mine", "mine, as the run")
    gone = replace(found, record={**found.record, "weights_from": str(tmp_path / "a.safetensors")})
    other = replace(found, record={**found.record, "weights_from": "default"})
    for one, why in ((gone, "There are no weights at"), (other, "holds others by now")):
        networks, said = _weights(one)
        assert networks.card.name == "fast"
        assert said.startswith("fast, not those of the run, which were mine: ")
        assert why in said
    audit = replace(audit_run(sparse / "run"), record={"weights of both halves": said})
    assert "not those of the run, which were mine" in page_of(audit)
    assert _weights(replace(found, record={}))[1].endswith("its record does not name them")
