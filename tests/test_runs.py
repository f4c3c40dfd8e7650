"""Runs that are stopped and go on: the same results, bit for bit, and nothing lost or mixed up."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
import zarr

import tiny_run
from sureloc.errors import InputError, OutputError
from sureloc.io.assumptions import read_assumptions, write_assumptions
from sureloc.io.lock import LOCK, check_unlocked, locked
from sureloc.io.movies import open_movie
from sureloc.io.output import partial_folder
from sureloc.localize import bands, images, movie
from sureloc.localize.movie import FrameWorker, localize, prepare
from sureloc.localize.regions import regions_of
from sureloc.localize.units import units_of
from sureloc.networks.weights import load_weights
from sureloc.runs import execution, first_run, job, localization, parts, results
from sureloc.runs.scheduler import check_scheduler
from test_localize_command import run as command
from tiny_run import CAMERA, OPTIONS, run

FRAMES = 6
KEPT = 4
TIMES = ("seconds",)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.tif"
    tifffile.imwrite(path, tiny_run.frames(FRAMES), photometric="minisblack")
    return path


@pytest.fixture(scope="module")
def unbroken(film):
    """What a run gives that nothing stops."""
    run(film, film.parent / "unbroken")
    return contents(film.parent / "unbroken")


def contents(folder: Path) -> dict[str, object]:
    """Give every file of a run's results as bytes, times left out."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.name == "run.json":
            record = json.loads(path.read_text(encoding="utf-8"))
            found["run.json"] = {k: v for k, v in record.items() if k not in TIMES}
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


class _StopError(Exception):
    """What stops a run in these tests."""


def stop_after(monkeypatch, number, error):
    """Make a run fail when it writes its part after so many."""
    write, count = job.write_part, [0]

    def failing(*arguments):
        count[0] += 1
        if count[0] > number:
            raise error
        write(*arguments)

    monkeypatch.setattr(job, "write_part", failing)


@pytest.fixture(scope="module")
def stopped(film):
    """The folder of a run that was stopped after four parts."""
    out = film.parent / "stopped"
    with pytest.MonkeyPatch.context() as patched:
        stop_after(patched, KEPT, _StopError)
        with pytest.raises(_StopError):
            run(film, out)
    assert not out.exists()
    return partial_folder(out)


@pytest.fixture
def out(stopped, tmp_path):
    """The results' place of a run of one's own that was stopped after four parts."""
    shutil.copytree(stopped, partial_folder(tmp_path / "out"))
    return tmp_path / "out"


def test_a_run_that_is_stopped_goes_on_to_the_same_files(film, unbroken, out):
    assert parts_of(partial_folder(out)) == KEPT
    said = []
    run(film, out, resume=True, say=said.append)
    assert said == ["4 of 6 parts were there already."]
    assert contents(out) == unbroken
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_what_was_learned_is_kept_unless_the_input_must_be_mended(film, tmp_path, monkeypatch):
    stop_after(monkeypatch, 0, InputError("frame 1 is damaged"))
    with pytest.raises(InputError):
        run(film, tmp_path / "new" / "out")
    assert list(tmp_path.iterdir()) == []
    stop_after(monkeypatch, 0, _StopError)
    with pytest.raises(_StopError):
        run(film, tmp_path / "out")
    kept = sorted(path.name for path in partial_folder(tmp_path / "out").iterdir())
    assert kept == [
        *("assumptions.npz", "identity.json", "job.json", "parts"),
        *("weights.json", "weights.safetensors"),
    ]


def test_rows_that_picasso_cannot_import_are_said(film, unbroken, out, monkeypatch):
    mark = results.mark_regions

    def without_photons(*arguments):
        table, marked = mark(*arguments)
        return table.assign(photons=np.where(table["frame"] == 2, np.nan, table["photons"])), marked

    monkeypatch.setattr(results, "mark_regions", without_photons)
    said = [note for note in run(film, out, resume=True).notes if "finite" in note]
    assert len(said) == 1
    rows = pd.read_csv(out / "localizations.csv")
    bad = int(rows["intensity [photon]"].isna().sum())
    assert 0 < bad < len(rows)
    assert said[0].startswith(f"localizations.csv: {bad} of {len(rows)} rows hold")


@pytest.mark.parametrize("where", ["part", "results"])
def test_a_full_disk_is_said_and_the_run_goes_on(film, unbroken, where, out, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patched:
        if where == "part":
            stop_after(patched, 1, full)
        else:
            patched.setattr(localization, "write_tables", raising(full))
        with pytest.raises(OutputError, match=r"No space left on device.*--resume"):
            run(film, out, resume=True)
    assert not out.exists()
    run(film, out, resume=True)
    assert contents(out) == unbroken


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_part_is_whole_or_not_there(film, out, monkeypatch):
    monkeypatch.setattr(parts, "to_disk", raising(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OutputError, match="Input/output error"):
        run(film, out, resume=True)
    kept = partial_folder(out) / "parts"
    assert sorted(path.name for path in kept.iterdir()) == [f"{k:06d}" for k in range(KEPT)]


def test_what_is_damaged_is_made_again(film, unbroken, out):
    folder = partial_folder(out)
    (folder / "parts" / ".writing-000009-ab").mkdir()
    for hurt in (folder / "assumptions.npz", folder / "parts" / "000002" / parts.DRAWS):
        damage(hurt)
    said = []
    run(film, out, resume=True, say=said.append)
    assert said[0].startswith("1 of the parts kept in")
    assert said[1] == "3 of 6 parts were there already."
    assert contents(out) == unbroken


@pytest.mark.parametrize("name", [parts.ROWS, parts.DRAWS, parts.SUMS, parts.SEAL])
def test_any_damage_is_noticed(film, out, name):
    units = units_of((FRAMES, 24, 26), (1.2, 1.2))
    kept = partial_folder(out) / "parts"
    damage(kept / "000001" / name)
    (kept / "000003" / name).unlink()
    assert parts.sound_parts(kept, units) == ({0, 2}, {1, 3})
    assert parts.sound_parts(kept, units) == ({0, 2}, set())


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def test_another_run_is_not_gone_on_with(film, out, tmp_path, monkeypatch):
    before = contents(partial_folder(out))
    with pytest.raises(InputError, match=r"was stopped; what it had done is kept.*--resume"):
        run(film, out)
    with pytest.raises(InputError, match=r"options: draws is 8, was 16; options: seed is 1, was 0"):
        run(film, out, replace(OPTIONS, seed=1, draws=8), resume=True)
    other = tmp_path / "other.tif"
    changed = tiny_run.frames(FRAMES)
    changed[4, 3, 3] += 1
    tifffile.imwrite(other, changed, photometric="minisblack")
    with pytest.raises(InputError, match="movie: content differs"):
        run(other, out, resume=True)
    with monkeypatch.context() as patched:
        patched.setattr(tiny_run, "CAMERA", replace(CAMERA, offset_adu=101.0))
        with pytest.raises(InputError, match="another one: camera differs"):
            run(film, out, resume=True)
    with monkeypatch.context() as patched:
        patched.setattr(tiny_run, "load_weights", lambda _name: load_weights("default"))
        with pytest.raises(
            InputError, match="weights: content differs; weights: name is default, was fast"
        ):
            run(film, out, resume=True)
    with monkeypatch.context() as patched:
        patched.setattr(job.metadata, "version", lambda _name: "9.9")
        with pytest.raises(InputError, match=r"versions: numpy is 9\.9, was"):
            run(film, out, resume=True)
    identity = partial_folder(out) / "identity.json"
    identity.write_text(identity.read_text().replace('"format": 1', '"format": 0'))
    with pytest.raises(InputError, match="another version of sureloc"):
        run(film, out, resume=True)
    identity.write_text("{")
    with pytest.raises(InputError, match="does not say which run"):
        run(film, out, resume=True)
    assert {**contents(partial_folder(out)), "identity.json": b""} == {
        **before,
        "identity.json": b"",
    }


def test_a_second_run_beside_a_running_one_is_told_so(film, tmp_path, monkeypatch):
    out, said = tmp_path / "out", []
    write = job.write_part

    def another(*arguments):
        for resume in (False, True):
            with pytest.raises(InputError, match="Another sureloc") as found:
                run(film, out, resume=resume)
            said.append(str(found.value))
        monkeypatch.setattr(job, "write_part", write)
        write(*arguments)

    monkeypatch.setattr(job, "write_part", another)
    run(film, out)
    assert len(said) == 2
    assert all(f"process {os.getpid()} on {platform.node()}, since 20" in one for one in said)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_locks_of_dead_processes_do_not_count(tmp_path):
    place = tmp_path / LOCK
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    stated = {"process": process.pid, "host": platform.node(), "started": "2026-01-01T10:00:00"}
    place.write_text(json.dumps(stated))
    with locked(tmp_path):
        assert json.loads(place.read_text())["process"] == os.getpid()
        with pytest.raises(InputError, match="is working on it"), locked(tmp_path):
            pass
    assert not place.exists()
    place.write_text(json.dumps({**stated, "process": os.getpid(), "process_start": "before"}))
    with locked(tmp_path):  # another process had this number before
        pass
    place.write_text(json.dumps({**stated, "host": "elsewhere"}))
    with pytest.raises(InputError, match=r"on elsewhere.*cannot be told from this.*remove .*lock"):
        check_unlocked(tmp_path)
    place.write_text("")
    with pytest.raises(InputError, match="does not say which"):
        check_unlocked(tmp_path)


def test_a_folder_that_is_removed_under_a_run_is_said(film, tmp_path, monkeypatch):
    out, write = tmp_path / "out", job.write_part

    def removed(*arguments):
        shutil.rmtree(partial_folder(out))
        write(*arguments)

    monkeypatch.setattr(job, "write_part", removed)
    with pytest.raises(OutputError, match="was removed or renamed while a run worked in it"):
        run(film, out)
    assert list(tmp_path.iterdir()) == []


def test_the_command_explains_itself_and_goes_on(tmp_path, monkeypatch, capsys):
    for name in ("draw_picture", "write_report"):
        monkeypatch.setattr(localization, name, lambda *_: None)
    short = tmp_path / "short.tif"
    tifffile.imwrite(short, tiny_run.frames(3), photometric="minisblack")
    (tmp_path / "c.yaml").write_text("offset_adu: 100\ngain_adu_per_e: 2.0\nvariance_adu2: 9.0\n")
    call = ("localize", short, "--out", tmp_path / "out", "-q", "--sigma-px", "1.2")
    call = (*call, "--camera", tmp_path / "c.yaml", "--workers", "1")
    with monkeypatch.context() as patched:
        stop_after(patched, 1, OSError(errno.ENOSPC, "No space left on device"))
        assert command(*call) == 1
    assert "go on by the same command with --resume" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        stop_after(patched, 1, KeyboardInterrupt)
        assert command(*call, "--resume") == 130
    assert "Stopped. What was done is kept in" in capsys.readouterr().err
    assert command(*call) == 2
    assert "was stopped; what it had done is kept in" in capsys.readouterr().err
    assert command(*call, "--resume") == 0
    assert "2 of 3 parts were there already" in capsys.readouterr().err
    assert command(*call, "--resume") == 0
    assert "was finished before" in capsys.readouterr().out
    assert command(*call, "--resume", "--draws", "8") == 2
    assert "finished in" in (said := capsys.readouterr().err)
    assert "was another one: options: draws is 8, was 16." in said
    assert command(*call) == 2
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert "--resume" not in record["command"]  # it tells how the run was started
    record["verdict"]["trust"] = "do not trust"
    (tmp_path / "out" / "run.json").write_text(json.dumps(record))
    assert command(*call, "--resume") == 3
    for left, said in (("{}", "results of another step than localize"), ("{", "cannot be read")):
        (tmp_path / "out" / "run.json").write_text(left)  # as drift leaves one, without a run
        assert command(*call, "--resume") == 2
        assert said in capsys.readouterr().err
    assert command(*call, "--scheduler", "tomorrow") == 2


def test_a_killed_run_goes_on_to_the_same_files(film, unbroken, tmp_path, rng):
    """Killed once among the parts, once among the results; benchmarks/kill_test.py does more."""
    out = tmp_path / "out"
    kept = partial_folder(out)
    for moment in (lambda: parts_of(kept) >= 2, (kept / "result").exists):
        process = subprocess.Popen([sys.executable, tiny_run.__file__, str(film), str(out)])
        end = time.monotonic() + 120
        while not moment() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
    # On a slow day the second kill comes after the last file.
    if not out.exists():
        run(film, out, resume=True)
    assert contents(out) == unbroken


def parts_of(folder: Path) -> int:
    return len(list((folder / "parts").glob("[0-9]*")))


def test_results_do_not_depend_on_threads(film, unbroken, tmp_path):
    calls = []
    run(
        film,
        tmp_path / "out",
        replace(OPTIONS, workers=3),
        progress=lambda: calls.append(1),
    )
    assert contents(tmp_path / "out") == unbroken
    assert len(calls) == FRAMES


def test_results_do_not_depend_on_processes(film, unbroken, out):
    calls = []
    run(
        film,
        out,
        replace(OPTIONS, workers=2),
        resume=True,
        scheduler="processes",
        progress=lambda: calls.append(1),
    )
    assert contents(out) == unbroken
    assert len(calls) == FRAMES


def test_processes_stop_after_the_frame_in_work(film, out, monkeypatch):
    monkeypatch.setattr(execution, "_is_stopped", lambda: True)
    made = []

    def work(job, todo, *_):
        with pytest.raises(execution._StoppedError):
            execution.work_on_unit(str(job.folder), "now", todo[0].number)
        made.append(parts_of(job.folder))
        raise KeyboardInterrupt

    monkeypatch.setattr(localization, "do_units", work)
    with pytest.raises(KeyboardInterrupt):
        run(film, out, resume=True)
    assert made == [KEPT]


def test_long_runs_go_to_processes_and_short_ones_to_threads(film, out, monkeypatch):
    went = []
    for name in ("_in_threads", "_in_processes"):
        monkeypatch.setattr(execution, name, lambda *_, name=name: went.append(name))
    job = SimpleNamespace(
        options=replace(OPTIONS, workers=2), networks=SimpleNamespace(device=torch.device("cpu"))
    )
    few, many = units_of((3999, 64, 64), (1.2, 1.2)), units_of((4000, 64, 64), (1.2, 1.2))
    large = units_of((251, 256, 256), (1.2, 1.2))  # 16 regions a frame
    for todo in (few, many, large):
        execution.do_units(job, todo, "auto", lambda: None, print)
    job.options = replace(OPTIONS, workers=1)
    execution.do_units(job, many, "auto", lambda: None, print)
    job.options, job.networks.device = replace(OPTIONS, workers=2), torch.device("cuda")
    execution.do_units(job, many, "auto", lambda: None, print)
    threads, processes = "_in_threads", "_in_processes"
    assert went == [threads, processes, processes, threads, threads]


def test_an_unknown_scheduler_is_refused():
    with pytest.raises(InputError, match="give auto, threads, processes, or the address"):
        check_scheduler("local")


def test_an_unexpected_error_names_its_frame(film, out, monkeypatch):
    monkeypatch.setattr(FrameWorker, "_localized", raising(ZeroDivisionError()))
    for workers in (1, 2):
        with pytest.raises(ZeroDivisionError) as caught:
            run(film, out, replace(OPTIONS, workers=workers), resume=True)
        assert "This happened in frame 4 of the localized part." in str(caught.value.__notes__)
        assert parts_of(partial_folder(out)) == KEPT


# Units and bands


@pytest.mark.parametrize(
    ("shape", "most"),
    [((1, 64, 64), 1), ((6, 26, 24), 1), ((20_000, 256, 256), 32), ((3000, 64, 64), 188),
     ((100, 2048, 2048), 4), ((1, 2048, 2048), 1), ((40, 1024, 1024), 2), ((5, 100, 9000), 1)],
)  # fmt: skip
def test_units_hold_every_region_of_every_frame_once(shape, most):
    units = units_of(shape, (1.3, 1.3))
    regions = regions_of(shape[1:], (1.3, 1.3))
    covered = np.zeros((shape[0], len(regions)), int)
    for k, unit in enumerate(units):
        assert unit.number == k
        covered[slice(*unit.frames), slice(*unit.regions)] += 1
        owned = {row for r in regions[slice(*unit.regions)] for row in r.core_rows}
        assert unit.rows == (min(owned), max(owned))
    assert (covered == 1).all()
    assert max(unit.frames[1] - unit.frames[0] for unit in units) == most
    assert sum(u.share * (u.frames[1] - u.frames[0]) for u in units) == pytest.approx(shape[0])


def test_bands_and_fine_bands_change_no_row_draw_or_pixel(tmp_path, monkeypatch):
    """A frame in three bands of regions, its images in bands of 64 rows, all as in one piece."""
    film = tmp_path / "wide.tif"
    tifffile.imwrite(film, tiny_run.frames(1, (150, 130)), photometric="minisblack")
    monkeypatch.setattr(bands, "WHOLE_REGIONS", 4)
    monkeypatch.setattr(bands, "BAND_REGIONS", 2)
    with monkeypatch.context() as patched:
        patched.setattr(localization, "_write_results", raising(_StopError))
        with pytest.raises(_StopError):
            run(film, tmp_path / "one")
    shutil.copytree(partial_folder(tmp_path / "one"), partial_folder(tmp_path / "many"))
    run(film, tmp_path / "one", resume=True)
    with monkeypatch.context() as patched:
        patched.setattr(images, "FINE_PX", 2**16)
        patched.setattr(images, "BAND_ROWS", 64)
        assert len(images.fine_bands((150, 130), 8)) == 19
        kept = read_assumptions(partial_folder(tmp_path / "many") / "assumptions.npz")
        run(film, tmp_path / "many", resume=True)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")
    with open_movie(film) as opened:
        units = units_of(opened.shape, kept.sigma_px)
        assert [unit.whole for unit in units] == [False] * 3
        frames = list(localize(opened, kept, OPTIONS, load_weights("fast")))
    for name, table in (("localizations", frames[0].table), ("draws", frames[0].draws)):
        found = pd.read_parquet(tmp_path / "one" / f"{name}.parquet")
        assert len(found) > 0
        same = [c for c in found.columns if c not in ("trusted", "reason")]
        np.testing.assert_array_equal(found[same].to_numpy(), table[same].to_numpy())
    image = np.asarray(zarr.open_group(str(tmp_path / "one" / "images.ome.zarr"), mode="r")["0"])
    chi2 = json.loads((tmp_path / "one" / "run.json").read_text())["mean_chi2"]
    assert chi2 == pytest.approx(frames[0].chi2.mean(), rel=1e-6)
    assert image[0].sum() == pytest.approx(len(found) / OPTIONS.draws, rel=0.02)


def test_spots_of_bands_are_those_of_the_frame():
    """Not to the last digit, as backgrounds differ; no spot is lost or doubled at a border."""
    adu = tiny_run.frames(2, (150, 130))
    electrons, variance = CAMERA.electrons(adu), CAMERA.read_variance_e2((150, 130))
    regions = regions_of((150, 130), (1.2, 1.2))
    whole = bands.spots_of_frames(electrons, variance, (1.2, 1.2), 1.0, bands.bands_of(regions))
    three = [
        bands.Band((k, k + 2), r.core_rows, r.rows) for k, r in enumerate(regions) if k % 2 == 0
    ]
    parts_ = bands.spots_of_frames(electrons, variance, (1.2, 1.2), 1.0, three)
    sure = [s.significance > 8 for s in (whole, parts_)]
    assert list(whole.frame[sure[0]]) == list(parts_.frame[sure[1]])
    for name in ("x_px", "y_px"):
        one, other = getattr(whole, name)[sure[0]], getattr(parts_, name)[sure[1]]
        np.testing.assert_allclose(one, other, atol=0.05)
    assert parts_.background_e.mean() == pytest.approx(whole.background_e.mean(), rel=0.02)


# What is learned of long and large movies


class Counting:
    """Frames that count how often they are read."""

    def __init__(self, adu, length):
        self.adu, self.read_frames = adu, []
        self.shape = (length, *adu.shape[1:])

    def read(self, first, last):
        self.read_frames += range(first, last)
        return np.stack([self.adu[k % len(self.adu)] for k in range(first, last)])


def test_learning_reads_some_frames_of_a_long_movie(monkeypatch):
    monkeypatch.setattr(movie, "CROWDING_FRAMES", 30)
    long = Counting(tiny_run.frames(8), 20_000)
    monkeypatch.setattr(movie, "learn_prior", raising(_StopError))
    with pytest.raises(_StopError):
        prepare(long, CAMERA, OPTIONS)
    assert len(long.read_frames) <= 40 + 30
    assert max(long.read_frames) > 19_000


def test_large_frames_are_learned_from_in_part(rng):
    assert movie.learning_frames(512 * 512) == 40
    assert movie.learning_frames(1024 * 1024) == 10
    assert movie.learning_frames(2048 * 2048) == 8
    adu = rng.poisson(100.0, (2, 700, 1300))
    assert movie.measuring_window(adu[:, :512, :512]).slices == (slice(0, 512), slice(0, 512))
    adu[:, 300:340, 1000:1040] += 900
    part = movie.measuring_window(adu)
    assert part.rows[0] <= 300 <= part.rows[1] - 40
    assert part.columns[0] <= 1000 <= part.columns[1] - 40
    assert part.rows[1] - part.rows[0] == part.columns[1] - part.columns[0] == 512


def test_what_was_learned_comes_back_number_for_number(film, tmp_path):
    with open_movie(film) as opened:
        shape = opened.shape[1:]
        maps = replace(CAMERA, offset_adu=np.full(shape, 100.25), saturation_adu=None)
        learned = prepare(opened, maps, OPTIONS)
    path = tmp_path / "a.npz"
    write_assumptions(learned, path)
    again = read_assumptions(path)
    write_assumptions(again, tmp_path / "b.npz")
    assert path.read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert again.sigma_px == learned.sigma_px
    assert (again.notes, again.warnings) == (learned.notes, learned.warnings)
    assert again.learned.prior.photons.mean == learned.learned.prior.photons.mean
    assert again.learned.prior.margin_px == learned.learned.prior.margin_px
    np.testing.assert_array_equal(again.camera.offset_adu, learned.camera.offset_adu)
    np.testing.assert_array_equal(again.crowding.around(3), learned.crowding.around(3))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="cannot be read"):
        read_assumptions(path)


def test_the_first_run_says_that_it_compiles(tmp_path, monkeypatch):
    (tmp_path / "one.py").write_text(
        "import numba\n\n@numba.njit(cache=True)\ndef twice(x):\n    return 2 * x\n"
    )
    function = function_in(tmp_path / "one.py")
    assert hasattr(first_run.fill_states, "stats")  # else it would never be said
    monkeypatch.setattr(first_run, "fill_states", function)
    said = []
    first_run.say_if_compiling(said.append)
    assert said == [first_run.NOTICE]
    assert function(2) == 4
    first_run.say_if_compiling(said.append)
    assert len(said) == 1
    # Another version of the function is not taken for it; where nothing is compiled, nothing is.
    function.py_func.__qualname__ = "twice_more"
    assert not first_run.kept_on_disk(function)
    assert first_run.kept_on_disk(function.py_func)


def function_in(path):
    """Import a module from a file and give its function."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.twice
