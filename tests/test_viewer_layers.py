"""What the napari plugin shows lies where it is, in nanometres; none of it needs napari."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

from conftest import ROOT
from sureloc.errors import InputError, MovieError
from sureloc.io.exchange.formats import FORMATS, write_localizations
from sureloc.io.exchange.localizations import Geometry, Localizations
from sureloc.io.movies import FILE_SUFFIXES
from sureloc.io.tables import read_table, write_table
from sureloc.table import LOCALIZATION_COLUMNS, TRUTH_COLUMNS
from sureloc.viewer.movie_layers import LazyFrames, grey_limits, movie_layer
from sureloc.viewer.pixel_size import give_pixel_size
from sureloc.viewer.readers import movie_reader, run_reader, table_reader
from sureloc.viewer.run_layers import run_layers
from sureloc.viewer.table_layers import (
    DOUBTED_COLOUR,
    TRUSTED_COLOUR,
    diameters_nm,
    points_layer,
    precision_nm,
    table_layer,
)
from viewer_results import EMITTERS_PX, PIXEL_NM, SHAPE, SIGMA_NM, write_movie, write_results


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    return write_movie(tmp_path_factory.mktemp("movie") / "cells.ome.tif")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("run") / "cells_sureloc")


def world(layer, index):
    """Where napari shows a position of a layer's data: nm, for its last two axes."""
    _, settings, _ = layer
    scale = np.asarray(settings.get("scale", (1.0, 1.0)))[-2:]
    translate = np.asarray(settings.get("translate", (0.0, 0.0)))[-2:]
    return translate + scale * np.asarray(index, dtype=float)[-2:]


def centroid(image):
    image = np.asarray(image, dtype=float)
    rows, columns = np.indices(image.shape)
    return np.array([(image * rows).sum(), (image * columns).sum()]) / image.sum()


# --- One place ----------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [1, 2, 3])
def test_row_movie_spot_and_super_resolution_peak_coincide(movie, results, frame):
    x, y = EMITTERS_PX[frame - 1]
    truth = np.array([y, x]) * PIXEL_NM
    shown = movie_layer(movie)
    mean, _, _, rows = run_layers(results)
    # The spot's tails are cut off by the frame's edge and rounded to float32.
    spot = np.asarray(shown[0][frame]) - 100.0
    assert world(shown, centroid(spot)) == pytest.approx(truth, abs=0.05)
    (place,) = rows[0][rows[0][:, 0] == frame]
    assert world(rows, place) == pytest.approx(truth, abs=1e-6)
    image = np.asarray(mean[0])
    around = np.zeros_like(image)
    row, column = np.rint((truth - world(mean, (0, 0))) / mean[1]["scale"]).astype(int)
    window = np.s_[row - 5 : row + 6, column - 5 : column + 6]
    around[window] = image[window]
    # All draws are alike: the KDE's centroid is the emitter, its peak the pixel that holds it. Of
    # its tails beyond four pixels, which are cut off, one side is up to a pixel longer.
    assert world(mean, centroid(around)) == pytest.approx(truth, abs=0.02)
    peak = world(mean, np.unravel_index(around.argmax(), around.shape))
    assert np.abs(peak - truth).max() <= 0.5 * PIXEL_NM / 9 + 1e-6


def test_images_begin_at_the_corner_of_the_localized_part(results):
    mean, sd, doubted, _ = run_layers(results)
    fine = PIXEL_NM / 9
    for layer in (mean, sd, doubted):
        corner = world(layer, (-0.5, -0.5))  # outer corner of the first fine pixel
        assert corner == pytest.approx([(3 - 0.5) * PIXEL_NM, (5 - 0.5) * PIXEL_NM])
        assert layer[1]["scale"] == pytest.approx((fine, fine))
        assert layer[0].shape == (20 * 9, 22 * 9)


def test_doubted_regions_are_labelled(results):
    labels = np.asarray(run_layers(results)[2][0])
    assert labels[:36, :36].all()
    assert labels.sum() == 36 * 36


# --- Movies -------------------------------------------------------------------------------------


def test_a_movie_is_read_as_it_is_looked_at(movie, monkeypatch):
    array, settings, kind = movie_layer(movie)
    assert kind == "image"
    assert array.shape == (4, *SHAPE)
    assert settings["scale"] == (1.0, PIXEL_NM, PIXEL_NM)
    assert settings["metadata"]["sureloc"]["movie"] == str(movie)
    asked = []
    read = LazyFrames.__getitem__
    monkeypatch.setattr(
        LazyFrames, "__getitem__", lambda self, part: asked.append(part) or read(self, part)
    )
    array, _, _ = movie_layer(movie)
    assert asked == []
    assert np.asarray(array[2]).max() > 150
    assert len(asked) == 1


def test_a_lazy_movie_gives_what_any_slice_of_it_would(movie):
    array, _, _ = movie_layer(movie)
    whole = np.asarray(array)
    for part in (np.s_[1:3], np.s_[::2, 4:9], np.s_[3, ::3, -5:], np.s_[2:2]):
        assert np.array_equal(np.asarray(array[part]), whole[part])


def test_a_movie_closes_its_file_when_nobody_needs_it(movie, monkeypatch):
    from sureloc.io.movies import Movie

    closed = []
    close = Movie.close
    monkeypatch.setattr(Movie, "close", lambda self: closed.append(1) or close(self))
    array, _, _ = movie_layer(movie)
    del array
    assert closed == [1]


def test_grey_limits_forget_hot_pixels_and_are_never_equal():
    frame = np.full((100, 100), 100.0)
    frame[:50] = 110.0
    frame[0, 0] = 60000.0
    assert grey_limits(frame) == (100.0, 110.0)
    assert grey_limits(np.full((9, 9), 7.0)) == (7.0, 8.0)


# --- Tables -------------------------------------------------------------------------------------


def test_circles_are_as_large_as_the_rows_are_uncertain(results):
    places, settings, kind = table_layer(results / "localizations.parquet")
    assert kind == "points"
    assert places[:, 0].tolist() == [1, 2, 3]
    assert settings["size"] == pytest.approx(2 * np.array(SIGMA_NM))
    assert list(settings["features"]) == [column.name for column in LOCALIZATION_COLUMNS]
    assert settings["border_color"][:2] == pytest.approx(np.array([TRUSTED_COLOUR] * 2))
    assert settings["border_color"][2] == pytest.approx(np.array(DOUBTED_COLOUR))


def test_precision_is_the_root_mean_square_of_both_axes():
    table = pd.DataFrame({"sigma_x_nm": [3.0, np.nan], "sigma_y_nm": [4.0, 1.0]})
    assert precision_nm(table)[0] == pytest.approx(np.sqrt(12.5))
    assert diameters_nm(table, 2.0) == pytest.approx([4 * np.sqrt(12.5), 40.0])
    assert precision_nm(pd.DataFrame({"x_nm": [1.0]})) is None


@pytest.mark.parametrize("beside_a_run", [True, False])
def test_thunderstorm_tables_lie_where_the_parquet_lies(results, tmp_path, beside_a_run):
    csv = results / "localizations.csv"
    if not beside_a_run:
        csv = Path(shutil.copy(csv, tmp_path))
    places, settings, _ = table_layer(csv)
    about = settings["metadata"]["sureloc"]
    exact, _, _ = table_layer(results / "localizations.parquet")
    assert about["pixel_is_known"] == beside_a_run
    # Without a run beside it, 100 nm are taken for 108: half of the difference is left over.
    left_over = 0.0 if beside_a_run else 0.5 * (PIXEL_NM - 100.0)
    assert places[:, 1:] - left_over == pytest.approx(exact[:, 1:], abs=1e-4)
    assert settings["size"] == pytest.approx(2 * np.array(SIGMA_NM), abs=1e-4)


@pytest.mark.parametrize("name", FORMATS)
def test_a_table_of_every_program_lies_over_the_movie(results, tmp_path, name):
    exact, _, _ = table_layer(results / "localizations.parquet")
    table = read_table(results / "localizations.parquet", LOCALIZATION_COLUMNS)
    path = tmp_path / f"other{FORMATS[name].suffix}"
    frame = Geometry(PIXEL_NM, SHAPE[1], SHAPE[0], 4, 140.0)
    write_localizations(Localizations(table, frame), path, name)
    assert who_reads(path) == {"table"}
    places, settings, _ = table_layer(path, PIXEL_NM)
    assert places == pytest.approx(exact, abs=1e-3)
    if name != "challenge":  # which has no uncertainty
        assert settings["size"] == pytest.approx(2 * np.array(SIGMA_NM), rel=1e-6)
    about = table_layer(path)[1]["metadata"]["sureloc"]
    assert about["pixel_is_known"] == (name not in ("thunderstorm", "challenge"))


def test_a_table_of_picasso_without_a_pixel_size_follows_the_one_that_is_typed(results, tmp_path):
    table = read_table(results / "localizations.parquet", LOCALIZATION_COLUMNS)
    path = tmp_path / "locs.hdf5"
    write_localizations(Localizations(table, Geometry(PIXEL_NM, *SHAPE[::-1], 4)), path)
    with h5py.File(path, "r+") as file:
        del file["metadata"]
    path.with_suffix(".yaml").unlink()
    places, settings, _ = table_layer(path)
    layer = SimpleNamespace(data=places, **settings)
    assert not layer.metadata["sureloc"]["pixel_is_known"]
    for pixel_nm in (PIXEL_NM, 50.0, PIXEL_NM):
        give_pixel_size([layer], None, pixel_nm)
        assert layer.data[:, 2] / pixel_nm == pytest.approx([x for x, _ in EMITTERS_PX])
        assert layer.size / pixel_nm == pytest.approx(2 * np.array(SIGMA_NM) / PIXEL_NM, rel=1e-6)
        assert layer.features["x_nm"].to_numpy() == pytest.approx(layer.data[:, 2])


def test_truth_and_draws_are_points_too(results, tmp_path):
    truth = pd.DataFrame(
        {"frame": [0], "x_nm": [10.0], "y_nm": [20.0], "photons": [5.0]}
        | {"background_photons": [1.0], "molecule": [7]}
    )
    write_table(truth, tmp_path / "truth.parquet", TRUTH_COLUMNS)
    places, settings, _ = table_layer(tmp_path / "truth.parquet")
    assert places.tolist() == [[0, 20, 10]]
    assert settings["features"]["molecule"].tolist() == [7]
    assert len(table_layer(results / "draws.parquet")[0]) == 24


def test_rows_without_a_position_are_left_out_and_said_to_be():
    table = pd.DataFrame({"frame": [0, 1], "x_nm": [1.0, np.nan], "y_nm": [1.0, 2.0]})
    with pytest.warns(UserWarning, match="1 of 2 rows of beads have no position"):
        places, settings, _ = points_layer(table, "beads", {})
    assert len(places) == len(settings["features"]) == len(settings["border_color"]) == 1


# --- Readers ------------------------------------------------------------------------------------

READERS = {"movie": movie_reader, "table": table_reader, "run": run_reader}


def who_reads(path):
    return {name for name, reader in READERS.items() if reader(str(path)) is not None}


def test_every_path_has_one_reader(movie, results, tmp_path):
    assert who_reads(movie) == {"movie"}
    assert who_reads(movie.parent) == {"movie"}  # a folder of TIFFs
    assert who_reads(results / "localizations.parquet") == {"table"}
    assert who_reads(results / "localizations.csv") == {"table"}
    for path in (results, results / "run.json", results / "images.ome.zarr"):
        assert who_reads(path) == {"run"}
    (tmp_path / "notes.csv").write_text("day,what\n1,bleached\n", encoding="utf-8")
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    for path in (*tmp_path.iterdir(), tmp_path, tmp_path / "missing.csv"):
        assert who_reads(path) == set()


def test_readers_read_what_they_promise(movie, results):
    for path, kinds in (
        (movie, ["image"]),
        (results / "localizations.csv", ["points"]),
        (results, ["image", "image", "labels", "points"]),
    ):
        (reader,) = filter(None, (reader([str(path)]) for reader in READERS.values()))
        assert [layer[2] for layer in reader(str(path))] == kinds


def test_several_paths_at_once_are_left_to_others(movie):
    assert movie_reader([str(movie), str(movie)]) is None


def test_damaged_files_are_refused_in_words(tmp_path, results):
    (tmp_path / "movie.tif").write_bytes(b"II*\0 no")
    with pytest.raises(MovieError, match="cannot be read as TIFF"):
        movie_reader(str(tmp_path / "movie.tif"))(str(tmp_path / "movie.tif"))
    broken = tmp_path / "broken"
    shutil.copytree(results, broken)
    (broken / "images.ome.zarr" / ".zattrs").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"images .* cannot be read"):
        run_layers(broken)
    (broken / "run.json").write_text("{}", encoding="utf-8")
    shutil.copytree(results / "images.ome.zarr", broken / "images.ome.zarr", dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"record .* cannot be read"):
        run_layers(broken)
    with pytest.raises(InputError, match="no run or table"):
        table_layer(tmp_path / "missing.parquet")


def test_an_empty_run_can_be_shown(results, tmp_path):
    empty = tmp_path / "empty"
    shutil.copytree(results, empty)
    table = read_table(results / "localizations.parquet", LOCALIZATION_COLUMNS)[:0]
    (empty / "localizations.parquet").unlink()
    write_table(table, empty / "localizations.parquet", LOCALIZATION_COLUMNS)
    (empty / "localizations.csv").unlink()
    write_localizations(Localizations(table, Geometry(PIXEL_NM)), empty / "localizations.csv")
    assert run_layers(empty)[3][0].shape == (0, 3)
    assert table_layer(empty / "localizations.csv")[0].shape == (0, 3)


def test_the_manifest_names_what_is_there():
    """Readers can be looked up here; widgets, which need Qt, are files with such a class."""
    source = ROOT / "src" / "sureloc" / "viewer"
    manifest = yaml.safe_load((source / "napari.yaml").read_text(encoding="utf-8"))
    offered = manifest["contributions"]
    commands = {one["id"]: one["python_name"] for one in offered["commands"]}
    assert {one["command"] for part in ("readers", "widgets") for one in offered[part]} == set(
        commands
    )
    patterns = {one["command"]: one["filename_patterns"] for one in offered["readers"]}
    for command, suffixes in (
        ("sureloc.read_table", [one.suffix for one in FORMATS.values()]),
        ("sureloc.read_movie", [*FILE_SUFFIXES, ".zarr"]),
    ):
        for suffix in suffixes:
            assert any(fnmatch(f"name{suffix}", pattern) for pattern in patterns[command])
    for place in commands.values():
        module, name = place.split(":")
        path = ROOT / "src" / (module.replace(".", "/") + ".py")
        assert any(f"{word} {name}(" in path.read_text() for word in ("class", "def"))
