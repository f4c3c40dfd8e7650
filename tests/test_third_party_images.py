"""The image model against a movie of another simulator; the benchmark does all of them."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from conftest import ROOT


@pytest.fixture(scope="module")
def third_party():
    path = ROOT / "benchmarks/third_party_images.py"
    spec = importlib.util.spec_from_file_location("third_party_images", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["third_party_images"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["third_party_images"]


@pytest.mark.shared
@pytest.mark.parametrize("name", ["test_300x200", "test_low_snr"])
def test_residuals_are_white_and_positions_fit(name, third_party, shared_data):
    movie = next(m for m in third_party.MOVIES if m.name == name)
    found = third_party.judge(movie, shared_data)
    assert found.problems() == []
    assert abs(found.neighbours) < 0.01


@pytest.mark.shared
def test_half_a_pixel_and_swapped_axes_are_noticed(third_party, shared_data, monkeypatch):
    movie = next(m for m in third_party.MOVIES if m.name == "test_300x200")
    read = third_party.pd.read_csv

    def half_a_pixel_off(path):
        return read(path).assign(x_nm=lambda t: t["x_nm"] + 0.5 * movie.pixel_nm)

    def swapped(path):
        return read(path).rename(columns={"x_nm": "y_nm", "y_nm": "x_nm"})

    monkeypatch.setattr(third_party.pd, "read_csv", half_a_pixel_off)
    shift = third_party.judge(movie, shared_data).shift_px
    assert shift[0] < -0.2  # one linear step; the fitted photons take up some
    monkeypatch.setattr(third_party.pd, "read_csv", swapped)
    assert third_party.judge(movie, shared_data).variance > 2
    assert np.isfinite(shift).all()
