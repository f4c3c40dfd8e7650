"""The napari plugin's thinking, without napari: choices, jobs that can be cancelled, brushing."""

from __future__ import annotations

import re
import sys
import threading
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from sureloc.camera import Camera
from sureloc.errors import InputError, OutputError
from sureloc.io.output import new_folder, partial_folder
from sureloc.localize import movie as movie_module
from sureloc.physics.referee import ChainTarget
from sureloc.runs import localization
from sureloc.runs import results as results_module
from sureloc.viewer.brushing import chosen_rows, histogram, quantities
from sureloc.viewer.choices import (
    Choices,
    free_folder,
    in_words_of_the_panel,
    optional_number,
    region_of_rectangle,
)
from sureloc.viewer.jobs import Job, Stage, summary
from sureloc.viewer.pixel_size import give_pixel_size
from sureloc.viewer.table_layers import table_layer
from viewer_results import EMITTERS_PX, spot

QUICK = settings(max_examples=40, deadline=None)

# --- Choices ------------------------------------------------------------------------------------


def test_choices_become_the_arguments_of_a_run(tmp_path):
    chosen = Choices(str(tmp_path / "m.tif"), str(tmp_path / "out"), pixel_nm=" 108,5 ")
    arguments = chosen.arguments()
    assert arguments["pixel_nm"] == 108.5
    assert arguments["sigma_px"] is None
    assert arguments["camera"] is None
    assert (arguments["roi"], arguments["frames"]) == (None, None)
    assert Choices("m", "o", sigma_px="1.3").arguments()["sigma_px"] == 1.3


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"movie": ""}, "no movie to localize"),
        ({"out": " "}, "no folder for the results"),
        ({"pixel_nm": "about 100"}, "pixel size is 'about 100'"),
        ({"pixel_nm": "inf"}, "finite"),
        ({"sigma_px": "wide"}, "PSF width is 'wide'"),
    ],
)
def test_impossible_choices_are_refused_in_words(changed, says):
    with pytest.raises(InputError, match=says):
        Choices(**({"movie": "m.tif", "out": "out"} | changed)).arguments()


def test_an_empty_number_is_not_known():
    assert optional_number("  ", "x", "1") is None


def test_options_of_the_command_line_become_fields_of_the_panel():
    said = "Give the width with --sigma-px, or --camera-pixel-nm, or choose more --frames."
    assert in_words_of_the_panel(said) == (
        "Give the width with 'PSF width (px)', or --camera-pixel-nm, or choose more 'Frames'."
    )


def test_a_rectangle_takes_the_pixels_that_it_touches():
    # Pixel k reaches from (k - 0.5) to (k + 0.5) pixels.
    corners = np.array([[150.0, 249.0], [150.0, 951.0], [651.0, 951.0], [651.0, 249.0]])
    assert region_of_rectangle(corners, 100.0, (50, 50)) == "2:8,2:11"
    frames = np.column_stack([np.full(4, 7.0), corners])  # drawn in a viewer with a frame axis
    assert region_of_rectangle(frames, 100.0, (50, 50)) == "2:8,2:11"


@QUICK
@given(st.integers(0, 40), st.integers(1, 20), st.integers(0, 40), st.integers(1, 20))
def test_a_rectangle_round_pixels_takes_exactly_those(top, height, left, width):
    y0, x0, y1, x1 = top - 0.5, left - 0.5, top + height - 0.5, left + width - 0.5
    corners = np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]]) * 128.0
    wanted = f"{top}:{top + height},{left}:{left + width}"
    assert region_of_rectangle(corners, 128.0, (60, 60)) == wanted


def test_a_rectangle_is_cut_to_the_frame_and_must_touch_it():
    corners = np.array([[-500.0, -500.0], [2e4, 2e4]])
    assert region_of_rectangle(corners, 100.0, (30, 40)) == "0:30,0:40"
    with pytest.raises(InputError, match="covers rows 40 to 50, but the movie has rows 0 to 29"):
        region_of_rectangle(np.array([[4000.0, 0.0], [5000.0, 900.0]]), 100.0, (30, 40))


def test_results_never_go_to_a_folder_that_exists(tmp_path):
    movie = tmp_path / "cells.ome.tif"
    first = free_folder(movie)
    assert first == tmp_path / "cells_sureloc"
    first.mkdir()
    assert free_folder(movie) == tmp_path / "cells_sureloc_2"


def test_another_pixel_size_moves_what_depends_on_it(tmp_path):
    (tmp_path / "t.csv").write_text('"frame","x [nm]","y [nm]"\n1,800,800\n', encoding="ascii")
    movie = SimpleNamespace(scale=(1.0, 100.0, 100.0), metadata={"sureloc": {"movie": "m"}})
    guessed, known = (
        SimpleNamespace(data=places, **settings)
        for places, settings, _ in (
            table_layer(tmp_path / "t.csv", pixel_nm) for pixel_nm in (None, 100.0)
        )
    )
    give_pixel_size([movie, guessed, known], movie, 160.0)
    assert movie.scale == (1.0, 160.0, 160.0)
    # A molecule at 800 nm from the corner lies 720 nm from the first pixel's centre, not 750.
    assert guessed.data.tolist() == [[0.0, 720.0, 720.0]]
    assert known.data.tolist() == [[0.0, 750.0, 750.0]]
    give_pixel_size([guessed], None, 100.0)
    assert guessed.data.tolist() == [[0.0, 750.0, 750.0]]
    (tmp_path / "t.csv").unlink()
    with pytest.raises(InputError, match="no run or table"):
        give_pixel_size([guessed], None, 160.0)


# --- Jobs ---------------------------------------------------------------------------------------

OUTCOME = SimpleNamespace(
    rows=1234, frames=5, seconds=2.4, notes=(), verdict=SimpleNamespace(sentence="Trust: yes.")
)


def slow_run(*, out, bar, pause, frames=200):
    """Stand in for `localize_file`: frames of 10 ms, and a folder that is whole or not at all."""
    with new_folder(out) as folder, bar(frames) as advance:
        (folder / "rows").write_text("half")
        for _ in range(frames):
            pause()
            time.sleep(0.01)
            advance()
    return OUTCOME


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def test_a_job_counts_frames_and_ends_with_its_result(tmp_path):
    job = Job({"out": tmp_path / "out", "frames": 5}, slow_run)
    assert job.stage is Stage.LEARNING
    job.start()
    assert job.wait(20)
    assert (job.stage, job.done, job.total, job.running) == (Stage.DONE, 5, 5, False)
    assert summary(job.result) == "1,234 localizations in 5 frames, 2 s.\nTrust: yes."
    assert (tmp_path / "out" / "rows").exists()


def test_a_cancelled_job_stops_soon_and_leaves_nothing(tmp_path):
    job = Job({"out": tmp_path / "new" / "out"}, slow_run)
    job.start()
    until(lambda: job.done > 2)
    assert job.stage is Stage.LOCALIZING
    begin = time.monotonic()
    job.cancel()
    assert job.wait(20)
    assert time.monotonic() - begin < 2.0  # one frame of 10 ms, on a busy machine
    assert job.stage is Stage.CANCELLED
    assert not job.stopping
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (InputError("draws is 1;\n at least 2."), "draws is 1; at least 2."),
        (OutputError("The disk is full."), "The disk is full."),
        (ZeroDivisionError("division"), r"does not know \(ZeroDivisionError: division\)"),
    ],
)
def test_a_failed_job_says_why_in_words(error, says):
    def fail(**_arguments):
        raise error

    job = Job({}, fail)
    job.start()
    assert job.wait(20)
    assert job.stage is Stage.FAILED
    assert re.search(says, job.message)
    assert job.result is None


def test_a_job_that_is_still_loading_is_cancelled_at_once(tmp_path, monkeypatch):
    loading, go_on = threading.Event(), threading.Event()

    class Loading(ModuleType):
        @property
        def localize_file(self):
            loading.set()
            assert go_on.wait(20)
            return slow_run

    monkeypatch.setitem(sys.modules, "sureloc.runs.localization", Loading("loading"))
    job = Job({"out": tmp_path / "out"})
    job.start()
    assert loading.wait(20)
    job.cancel()
    assert (job.stage, job.running) == (Stage.CANCELLED, False)
    # Somebody begins anew in the same place before the first has ended.
    partial_folder(tmp_path / "out").mkdir()
    go_on.set()
    assert job.wait(20)
    assert job.total == 0
    assert partial_folder(tmp_path / "out").exists()


# Everything long that a run does, by the module that looks it up.
LONG_WORK = (
    (movie_module, "read_frames"),
    (movie_module, "_settled_camera"),
    (movie_module, "_settled_psf"),
    (movie_module, "spots_of_frames"),
    (movie_module, "learn_prior"),
    (ChainTarget, "run"),
    (localization, "gather_sums"),
    (localization, "write_tables"),
    (results_module, "_fine_band"),
    (localization, "draw_picture"),
    (localization, "write_report"),
)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("_settled_camera", 1),
        ("_settled_psf", 1),
        ("spots_of_frames", 1),
        ("run", 3),
        ("run", "localizing"),
        ("gather_sums", 1),
        ("_fine_band", 1),
        ("draw_picture", 2),
    ],
)
def test_nothing_long_begins_after_a_run_was_cancelled(tmp_path, monkeypatch, name, call):
    rng = np.random.default_rng(3)
    spots = np.stack([spot(x, y) for x, y in EMITTERS_PX] * 5)
    movie = 100.0 + 2 * rng.poisson(3 + spots)
    tifffile.imwrite(tmp_path / "movie.tif", movie.astype(np.uint16), photometric="minisblack")
    arguments = {
        "movie": tmp_path / "movie.tif",
        "out": tmp_path / "out",
        "camera": Camera(offset_adu=100.0, gain_adu_per_e=2.0, variance_adu2=4.0),
        "sigma_px": 1.3,
        "workers": 1,
    }

    begun: list[str] = []
    too_late: list[str] = []

    def watched(place, what):
        work = getattr(place, what)

        def watching(*arguments, **options):
            begun.append(what)
            if job.stopping:
                too_late.append(what)
            here = job.done if call == "localizing" else begun.count(what) == call
            if what == name and here:
                job.cancel()
            return work(*arguments, **options)

        monkeypatch.setattr(place, what, watching)

    for place, what in LONG_WORK:
        watched(place, what)
    job = Job(arguments)
    job.start()
    assert job.wait(900)
    assert (job.stage, job.message) == (Stage.CANCELLED, "")
    assert name in begun
    assert too_late == []
    assert [path.name for path in tmp_path.iterdir()] == ["movie.tif"]


# --- Brushing -----------------------------------------------------------------------------------


def test_quantities_are_those_that_a_table_has():
    table = pd.DataFrame({"sigma_x_nm": [3.0], "sigma_y_nm": [4.0], "photons": [9.0]})
    assert [q.label for q in quantities(table)] == ["precision (nm)", "photons"]
    assert quantities(pd.DataFrame({"x_nm": [1.0]})) == ()
    one = pd.DataFrame({"sigma_x_nm": [5.0]})  # for both axes
    assert [q.values.tolist() for q in quantities(one)] == [[5.0]]  # noqa: PD011


@QUICK
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200))
def test_every_row_falls_into_one_bin(values):
    values = np.array(values)
    found = histogram(values)
    assert found.counts.sum() == values.size
    assert found.share(values, np.ones(values.size, dtype=bool)).tolist() == found.counts.tolist()


@QUICK
@given(st.lists(st.floats(0.125, 1e6, width=32), min_size=1, max_size=200), st.integers(0, 2**32))
def test_shares_of_two_halves_add_up(values, seed):
    values = np.array(values)
    half = np.random.default_rng(seed).random(values.size) < 0.5
    found = histogram(values)
    assert (found.share(values, half) + found.share(values, ~half)).tolist() == (
        found.counts.tolist()
    )
    # The range of whole bins that holds everything chooses everything.
    whole = (float(found.edges[0]), float(found.edges[-1]))
    assert chosen_rows(values.size, {"v": values}, {"v": whole}).all()


def test_wide_ranges_have_bins_that_grow():
    wide = histogram(np.array([1.0, 1000.0]))
    assert wide.logarithmic
    assert wide.with_margins() == pytest.approx((1000**-0.04, 1000**1.04))
    assert histogram(np.array([0.0, 100.0])).with_margins() == pytest.approx((-4.0, 104.0))
    assert not histogram(np.array([0.0, 1000.0])).logarithmic
    assert not histogram(np.array([10.0, 100.0])).logarithmic


def test_values_that_are_none_are_in_no_bin_and_no_range():
    values = np.array([1.0, np.nan, np.inf, 2.0])
    assert histogram(values).counts.sum() == 2
    assert chosen_rows(4, {"v": values}, {"v": (0.0, 9.0)}).tolist() == [True, False, False, True]
    assert histogram(np.array([np.nan])).counts.sum() == 0


def test_ranges_of_several_quantities_hold_together():
    found = {"a": np.array([1.0, 2, 3, 4]), "b": np.array([4.0, 3, 2, 1])}
    chosen = chosen_rows(4, found, {"a": (2.0, 4.0), "b": (2.0, 9.0)})
    assert chosen.tolist() == [False, True, True, False]
    assert chosen_rows(4, found, {}).all()


@QUICK
@given(st.integers(0, 58), st.integers(1, 60), st.integers(-70, 70), st.integers(-70, 70))
def test_ranges_move_by_bins_and_stay_inside(first, width, lower, upper):
    found = histogram(np.array([0.0, 60.0]))
    last = min(first + width, 60)
    low, high = found.moved((float(first), float(last)), lower, upper)
    assert 0.0 <= low < high <= 60.0
    whole = lower == upper
    assert (high - low == pytest.approx(last - first)) or not whole
    if not whole and 0 <= first + lower < last + upper <= 60 and first + lower <= 59:
        assert (low, high) == pytest.approx((first + lower, last + upper))
