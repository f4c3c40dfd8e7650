"""The scoring of the table of crowded movies, on tables made by hand."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from conftest import ROOT
from sureloc.camera import Camera

CAMERA = Camera(offset_adu=100.0, gain_adu_per_e=1.0, variance_adu2=5.0)


@pytest.fixture(scope="module")
def benchmark():
    path = ROOT / "benchmarks/crowded_table.py"
    spec = importlib.util.spec_from_file_location("crowded_table", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def table(x_nm: list[float], y_nm: list[float], sigma_nm: float = 5.0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "frame": 0,
            "x_nm": x_nm,
            "y_nm": y_nm,
            "photons": 750.0,
            "sigma_x_nm": sigma_nm,
            "sigma_y_nm": sigma_nm,
        }
    )


def found(benchmark, rows: pd.DataFrame):
    return benchmark.Found("tool", "", benchmark.with_intervals(rows), 1.0, 1.0)


def test_border_leaves_out_true_emitters_with_their_rows_and_unpaired_rows(benchmark):
    truth = table([100.0, 3000.0, 3000.0, 405.0], [3000.0, 3000.0, 5000.0, 3000.0])
    # The second row lies within the border, but belongs to an emitter that does not.
    rows = table([103.0, 395.0, 3004.0, 6200.0, 2000.0], [3000.0, 3000.0, 3003.0, 100.0, 1000.0])
    whole, inner = (
        benchmark.score(0.71, border_nm, found(benchmark, rows), truth, CAMERA, 1)
        for border_nm in (0.0, 450.0)
    )
    assert (whole.emitters, whole.rows, whole.jaccard) == (4, 5, 3 / 6)
    assert (inner.emitters, inner.rows, inner.jaccard) == (3, 3, 2 / 4)
    assert inner.rmse_axis_nm == pytest.approx(np.sqrt((100 + 16 + 9) / 4))
    assert inner.held_68 == 0.75
    assert inner.held_95 == 0.75


def test_bound_of_a_lone_emitter_is_that_of_the_peers_conditions(benchmark):
    rng = np.random.default_rng(1)
    truth = table(*rng.uniform(1000.0, 5000.0, (2, 200)).tolist())
    truth["photons"] = rng.uniform(500.0, 1000.0, 200)
    assert benchmark.bound_axis_nm(truth, CAMERA) == pytest.approx(4.6, abs=0.1)


def test_honest_precisions_hold_what_they_say(benchmark):
    rng = np.random.default_rng(2)
    place = 1000.0 + 1000.0 * np.arange(5)
    truth = pd.concat(
        [table(place.tolist(), place.tolist()).assign(frame=frame) for frame in range(100)]
    ).reset_index(drop=True)
    rows = truth.assign(
        x_nm=truth["x_nm"] + 5.0 * rng.standard_normal(len(truth)),
        y_nm=truth["y_nm"] + 5.0 * rng.standard_normal(len(truth)),
    )
    row = benchmark.score(0.71, 0.0, found(benchmark, rows), truth, CAMERA, 100)
    assert row.jaccard == 1.0
    assert abs(row.held_68 - 0.68) < 4 * row.held_68_se
    assert abs(row.held_95 - 0.95) < 4 * row.held_95_se


def test_the_best_run_has_the_largest_jaccard_and_then_the_smallest_error(benchmark):
    truth = table([3000.0], [3000.0])
    row = benchmark.score(0.71, 0.0, found(benchmark, truth), truth, CAMERA, 1)
    worse, equal = replace(row, jaccard=0.5), replace(row, rmse_axis_nm=3.0)
    other = replace(row, tool="other", jaccard=0.1)
    assert benchmark.best([worse, equal, other, row]) == [row, other]


def test_enough_frames_for_the_emitters_asked_for(benchmark):
    assert benchmark.frames_for(0.18, 1000) * 0.18 * 6.4**2 >= 1000 + 3 * 1000**0.5
