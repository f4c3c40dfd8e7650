"""The real programs read what sureloc writes, and sureloc reads what they write.

They need other libraries than sureloc, so `scripts/foreign_programs.py` runs in an environment of
their own (`make test-readers` makes it); SURELOC_READERS names its Python. What is installed beside
sureloc is used from there. What is found nowhere is skipped, saying so, but not where that is set.
"""

import json
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from typer.testing import CliRunner

from conftest import ROOT
from sureloc.analysis.linking import link_rows
from sureloc.analysis.resolution import frc_resolution
from sureloc.camera import ROUNDING_VARIANCE_ADU2
from sureloc.cli import app as cli
from sureloc.errors import InputError
from sureloc.io.cameras import read_camera
from sureloc.io.exchange.formats import read_localizations, write_localizations
from sureloc.io.exchange.localizations import Geometry, Localizations, Reading
from sureloc.io.exchange.picasso import refused
from sureloc.io.exchange.thunderstorm import ThunderstormWriter
from sureloc.io.movie_writing import write_movie
from sureloc.io.movies import open_movie
from sureloc.io.results import CHANNELS
from sureloc.io.run_folder import IMAGES
from sureloc.table import LOCALIZATION_COLUMNS
from viewer_results import EMITTERS_PX, PART, PIXEL_NM, PLACE, write_results

NM = 108.0
READERS = ("locan", "picasso", "smappy", "mat73")  # of tables
# What each program adds to positions of the pixel-centre convention: nothing, but where it takes
# ThunderSTORM's corner for its own origin. Picasso also calls the first frame that has rows 0.
HALF = NM / 2
STORMS = ("thunderstorm.csv", "localizations.csv")
FRAME = Geometry(NM, 512, 300, 40, 1.2 * NM, 2.25, 1.0, ((0, 300), (8, 512)))


def python_with(program):
    """Give a Python that can import a program, or skip."""
    given = os.environ.get("SURELOC_READERS")
    candidates = [sys.executable] * (find_spec(program) is not None)
    if given:
        found = subprocess.run(
            [given, "-c", f"import importlib.util as u; assert u.find_spec({program!r})"],
            capture_output=True,
        )
        candidates += [given] * (found.returncode == 0)
    assert candidates or not given, f"{given} of SURELOC_READERS cannot import {program}"
    if not candidates:
        pytest.skip(f"{program} is not installed: make test-readers")
    return candidates[0]


def run(what, program, folder):
    done = subprocess.run(
        [
            python_with(program),
            str(ROOT / "scripts" / "foreign_programs.py"),
            what,
            program,
            folder,
        ],
        env=os.environ | {"QT_QPA_PLATFORM": "offscreen", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


def example():
    """300 rows all over a frame of 512 x 300 px, each within Picasso's limits."""
    rng = np.random.default_rng(5)
    n = 300
    x, y = rng.uniform(0, 511.9 * NM, n), rng.uniform(0, 299.9 * NM, n)
    table = pd.DataFrame(
        {
            "frame": np.sort(rng.integers(0, 40, n)),
            "x_nm": x,
            "y_nm": y,
            "sigma_x_nm": rng.uniform(2, 30, n),
            "sigma_y_nm": rng.uniform(2, 30, n),
            "photons": rng.uniform(50, 5000, n),
            "background_photons": rng.uniform(0, 30, n),
            "p_exists": rng.uniform(0.5, 1, n),
        }
    )
    table.loc[0, "frame"] = 0
    return Localizations(table, FRAME)


def linked():
    """The example as a table of molecules, some of them dark for some frames."""
    table = example().table
    rows = np.random.default_rng(7).integers(1, 9, len(table))
    return table.assign(rows=rows, last_frame=table["frame"] + 2 * rows - 2)


def bad_rows():
    """Give Picasso's columns with rows at and beyond every limit, numbered by `row`."""
    good = {"frame": 3, "x": 20.5, "y": 30.25, "photons": 900.0, "sx": 1.2, "sy": 1.1, "bg": 5.0}
    good |= {"lpx": 0.1, "lpy": 0.2, "z": -200.0, "lpz": 30.0, "net_gradient": 1e3}
    edges = {
        "x": (-1e-9, -20, 0, 511.999, 512, 700, np.nan),
        "y": (-0.4, 0, 299.999, 300, 301, np.inf),
        "photons": (np.nan, -np.inf, -1, 0),
        **dict.fromkeys(("lpx", "lpy", "sx", "sy", "lpz"), (np.nan, -0.1, 0, np.inf)),
        **dict.fromkeys(("bg", "z", "net_gradient"), (np.nan, np.inf, -5)),
    }
    rows = [good, *(good | {name: v} for name, values in edges.items() for v in values), good]
    return pd.DataFrame(rows).assign(row=range(len(rows)))


def write_as_it_is(columns, path):
    with h5py.File(path, "w") as file:
        file["locs"] = columns.to_records(index=False)
        file["metadata"] = json.dumps(
            [{"Width": 512, "Height": 300, "Frames": 40, "Pixelsize": NM}]
        )


def rows_of_a_run():
    """The example as `sureloc localize` leaves it, with all columns."""
    table = example().table
    return table.assign(
        **{
            one.name: "" if one.dtype == "str" else np.ones(len(table), one.dtype)
            for one in LOCALIZATION_COLUMNS
            if one.name not in table
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name in ("thunderstorm.csv", "smap_sml.mat", "decode.h5", "picasso.hdf5"):
        assert write_localizations(example(), folder / name).rows == 300
    write_localizations(example(), folder / "smap.csv", "smap-csv")
    with ThunderstormWriter(folder / "localizations.csv", FRAME) as writer:
        writer.append(rows_of_a_run())
    write_as_it_is(bad_rows(), folder / "bad_rows.hdf5")
    for name in ("linked.csv", "linked.hdf5", "linked_sml.mat"):
        write_localizations(Localizations(linked(), FRAME), folder / name)
    chain = pd.DataFrame([GOOD | {"frame": frame} for frame in (3, 4, 7, 20)])
    write_localizations(Localizations(chain, FRAME), folder / "chain.hdf5")
    return folder


@cache
def read_by(program, folder):
    """Give what a program reads in a folder; starting Picasso takes seconds, so once."""
    run("read", program, str(folder))
    content = json.loads((folder / f"read_by_{program}.json").read_text())
    return {name: pd.DataFrame(columns) for name, columns in content.items()}


def check(found, names, unit_nm=1.0, origin_nm=0.0, first_frame=0, float32=False):
    """Compare what a program read with what was written, in nm."""
    expected = example().table
    # What stands for both axes where a program knows one number.
    expected["sigma_xy_nm"] = np.hypot(expected["sigma_x_nm"], expected["sigma_y_nm"]) / np.sqrt(2)
    assert len(found) == len(expected)
    np.testing.assert_array_equal(found[names["frame"]], expected["frame"] + first_frame)
    for ours, scale, origin in (
        ("x_nm", unit_nm, origin_nm),
        ("y_nm", unit_nm, origin_nm),
        ("sigma_x_nm", unit_nm, 0.0),
        ("sigma_y_nm", unit_nm, 0.0),
        ("sigma_xy_nm", unit_nm, 0.0),
        ("photons", 1.0, 0.0),
    ):
        if ours not in names:
            continue
        values = found[names[ours]] * scale - origin
        # A program that keeps 32 bits rounds twice: by half of 2^-15 of a pixel from pixel 256
        # on, and by half of 2^-8 nm from 32,768 nm on.
        position = ours in ("x_nm", "y_nm")
        exact = NM * 2**-16 + 2**-9 if float32 else 1e-3
        np.testing.assert_allclose(
            values,
            expected[ours],
            rtol=0 if position else 1e-6,
            atol=exact if position else 1e-4,
            err_msg=ours,
        )


def test_locan_reads_what_we_write(folder):
    found = read_by("locan", folder)
    axes = {"frame": "frame", "x_nm": "position_x", "y_nm": "position_y", "photons": "intensity"}
    for name in STORMS:
        # It takes the one number for x's.
        one = axes | {"sigma_xy_nm": "uncertainty_x"}
        check(found[name], one, origin_nm=HALF, first_frame=1)
        own = axes | {"sigma_x_nm": "uncertainty_x [nm]", "sigma_y_nm": "uncertainty_y [nm]"}
        check(found[name], own, origin_nm=HALF, first_frame=1)
    both = {"sigma_x_nm": "uncertainty_x", "sigma_y_nm": "uncertainty_y"}
    check(found["smap_sml.mat"], axes | both, first_frame=1)
    # DECODE's x is along rows, and locan takes it as it stands.
    swapped = {"x_nm": "position_y", "y_nm": "position_x"}
    swapped |= {"sigma_x_nm": "y_sig", "sigma_y_nm": "x_sig"}
    check(found["decode.h5"], axes | swapped)


def test_picasso_reads_what_we_write(folder):
    found = read_by("picasso", folder)
    axes = {"frame": "frame", "x_nm": "x", "y_nm": "y"}
    both = {"sigma_x_nm": "lpx", "sigma_y_nm": "lpy"}
    check(found["picasso.hdf5"], axes | both | {"photons": "photons"}, unit_nm=NM)
    for error in ("lpx", "lpy"):
        one = axes | {"sigma_xy_nm": error}
        check(found["smap_sml.mat"], one | {"photons": "photons"}, unit_nm=NM, float32=True)
        # Its import of ThunderSTORM's tables keeps the corner's origin: half a pixel off.
        for name in STORMS:
            check(found[name], one, unit_nm=NM, origin_nm=HALF, float32=True)


def test_picasso_keeps_the_field_of_a_table_that_it_saves(folder):
    read_by("picasso", folder)
    saved = read_localizations(folder / "saved_by_picasso.hdf5", Reading())
    assert saved.geometry.field_nm == FRAME.field_nm
    assert saved.geometry.region_px == FRAME.region_px
    done = [step["Generated by"].split()[0] for step in saved.provenance["picasso"]]
    assert done == ["sureloc", "Picasso"]


def test_picasso_drops_the_rows_that_we_leave_out_and_no_others(folder):
    columns = bad_rows()
    kept = columns[~np.any(list(refused(columns, FRAME).values()), axis=0)]
    assert 0.2 < len(kept) / len(columns) < 0.8
    found = read_by("picasso", folder)["bad_rows.hdf5"]
    assert found["row"].tolist() == kept["row"].tolist()


def test_smappy_reads_what_we_write(folder):
    found = read_by("smappy", folder)
    axes = {"frame": "frame", "x_nm": "x_nm", "y_nm": "y_nm", "photons": "photons"}
    both = {"sigma_x_nm": "x_err_nm", "sigma_y_nm": "y_err_nm"}
    check(found["picasso.hdf5"], axes | both, float32=True)
    check(found["smap_sml.mat"], axes | both, float32=True)
    fields = {"sigma_x_nm": "xnmerr", "sigma_y_nm": "ynmerr"}
    check(found["smap.csv"], axes | fields, float32=True)
    swapped = {"x_nm": "y_nm", "y_nm": "x_nm", "sigma_x_nm": "y_err_nm", "sigma_y_nm": "x_err_nm"}
    check(found["decode.h5"], axes | swapped, float32=True)
    one = axes | {"sigma_xy_nm": "xy_err_nm"}
    for name in STORMS:
        check(found[name], one, origin_nm=HALF, float32=True)


def test_another_reader_of_matlab_files_reads_what_we_write(folder):
    fields = {"frame": "frame", "x_nm": "xnm", "y_nm": "ynm", "photons": "phot"}
    fields |= {"sigma_x_nm": "xnmerr", "sigma_y_nm": "ynmerr"}
    check(read_by("mat73", folder)["smap_sml.mat"], fields, first_frame=1)


def test_numbers_of_merged_rows_are_where_the_programs_have_them(folder):
    rows, frames = linked()["rows"], 2 * linked()["rows"] - 1
    for program, name, columns in (
        ("locan", "linked.csv", {"frames_number": rows}),
        ("locan", "linked_sml.mat", {"numberInGroup": rows}),
        ("picasso", "linked.hdf5", {"n": rows, "len": frames}),
        ("smappy", "linked.hdf5", {"n": rows, "len": frames}),
        ("smappy", "linked_sml.mat", {"numberInGroup": rows}),
        ("smappy", "linked.csv", {"detections": rows}),
    ):
        found = read_by(program, folder)[name]
        for column, values in columns.items():
            np.testing.assert_array_equal(found[column], values, err_msg=f"{program}: {name}")
    back = read_localizations(folder / "linked_by_picasso.hdf5", Reading()).table
    assert back[["frame", "last_frame", "rows"]].to_numpy().tolist() == [[3, 7, 3], [20, 20, 1]]
    with pytest.raises(InputError, match="linked before"):
        link_rows(back)


# --- Rows at the edge ---------------------------------------------------------------------------

GOOD = {"frame": 3, "x_nm": 20.3 * NM, "y_nm": 30.2 * NM, "sigma_x_nm": 9.0, "sigma_y_nm": 11.0}
GOOD |= {"photons": 900.0, "background_photons": 5.0, "p_exists": 0.9}
NOTHING = (np.nan, np.inf, -np.inf)
# Each folder's values, one a row. x = -30 nm is inside where a pixel's corner is the origin.
EDGES = {
    "outside": {"x_nm": (-30.0, -500.0, 1e7), "y_nm": (-500.0, 1e7), "photons": (0.0,)},
    "no_photons": dict.fromkeys(("photons", "background_photons"), NOTHING),
    "no_error": dict.fromkeys(("sigma_x_nm", "sigma_y_nm", "p_exists"), NOTHING),
    "no_place": dict.fromkeys(("x_nm", "y_nm"), NOTHING),
}
FILES = {
    "thunderstorm.csv": "thunderstorm",
    "smap.csv": "smap-csv",
    "smap_sml.mat": "smap",
    "picasso.hdf5": "picasso",
    "decode.h5": "decode",
}


@pytest.fixture(scope="module")
def edges(tmp_path_factory):
    """Give a folder of tables, and for each the rows that there were and what was written."""
    folder = tmp_path_factory.mktemp("edges")
    written = {}
    for kind, values in EDGES.items():
        (folder / kind).mkdir()
        rows = [GOOD, *(GOOD | {name: v} for name, vs in values.items() for v in vs), GOOD]
        data = Localizations(pd.DataFrame(rows), FRAME)
        for name, format_name in FILES.items():
            done = write_localizations(data, folder / kind / name, format_name)
            written[f"{kind}/{name}"] = len(rows), done
    return folder, written


@pytest.mark.parametrize("program", READERS)
def test_no_row_vanishes_unsaid(edges, program):
    folder, written = edges
    run("count", program, str(folder))
    found = json.loads((folder / f"counted_by_{program}.json").read_text())
    assert len(found) % len(EDGES) == 0
    assert found
    for place, (rows, done) in written.items():
        said = " ".join(done.notes)
        if place.endswith("picasso.hdf5"):
            # What it would drop is left out, and counted.
            assert done.rows == rows or f"{rows - done.rows} of {rows} rows were left out" in said
        else:
            assert done.rows == rows
        if place not in found or found[place] == done.rows:
            continue
        if place.startswith("outside/"):
            # docs/files.md: of what Picasso imports it loses what is left of its (0, 0) or above.
            corner = place.endswith("thunderstorm.csv")
            assert (program, found[place]) == ("picasso", rows - (2 if corner else 3))
        else:
            bad = sum(map(len, EDGES[place.split("/")[0]].values()))
            assert f"{bad} of {rows} rows hold values that are not finite" in said, place
            assert program in ("picasso", "smappy"), place
            refused = isinstance(found[place], str)
            assert found[place] == rows - bad or (refused and program == "picasso"), place


# --- The other way ------------------------------------------------------------------------------


def written_by(program, folder):
    rng = np.random.default_rng(6)
    rows = {
        "frame": np.sort(np.append(rng.integers(0, 30, 199), 0)).tolist(),
        "x": rng.uniform(0, 63, 200).tolist(),
        "y": rng.uniform(0, 40, 200).tolist(),
        "photons": rng.integers(100, 5000, 200).tolist(),
        "sx": [1.25] * 200,
        "sy": [1.25] * 200,
        "bg": [10.0] * 200,
        "lpx": rng.uniform(0.02, 0.3, 200).tolist(),
        "lpy": rng.uniform(0.02, 0.3, 200).tolist(),
    }
    info = {"Width": 64, "Height": 41, "Frames": 30, "Pixelsize": NM}
    (folder / "rows.json").write_text(json.dumps({"rows": rows, "info": info}))
    run("write", program, str(folder))
    return pd.DataFrame(rows)


def same(data, rows, origin_nm=0.0, sigmas=("lpx", "lpy")):
    """Compare what was read with a program's rows; `sigmas` names its errors of x and y."""
    found = data.table
    np.testing.assert_array_equal(found["frame"], rows["frame"])
    for ours, theirs in (("x_nm", "x"), ("y_nm", "y")):
        # 32 bits of 63 pixels.
        values = found[ours] - origin_nm
        np.testing.assert_allclose(values, rows[theirs] * NM, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found["photons"], rows["photons"])
    for ours, theirs in zip(("sigma_x_nm", "sigma_y_nm"), sigmas, strict=True):
        expected = rows[theirs] * NM
        np.testing.assert_allclose(found[ours], expected, rtol=1e-5, err_msg=ours)


def test_what_picasso_writes_is_read(tmp_path):
    rows = written_by("picasso", tmp_path)
    found = read_localizations(tmp_path / "by_picasso.hdf5", Reading())
    same(found, rows)
    assert found.geometry == Geometry(NM, 64, 41, 30)
    mean = rows.assign(mean=(rows["lpx"] + rows["lpy"]) / 2)
    # Its tables for ThunderSTORM keep the centre for origin and count from 0.
    storm = Reading(Geometry(NM), first_frame=0)
    same(read_localizations(tmp_path / "by_picasso.csv", storm), mean, -HALF, ("mean", "mean"))
    smap = read_localizations(tmp_path / "by_picasso_sml.mat", Reading())
    same(smap, mean, 0.0, ("mean", "mean"))
    assert smap.geometry.pixel_nm == pytest.approx(NM)


def test_what_locan_writes_is_read(tmp_path):
    rows = written_by("locan", tmp_path)
    storm = read_localizations(tmp_path / "by_locan.csv", Reading(Geometry(NM)))
    # In both of its tables x's stands for both.
    one = ("lpx", "lpx")
    same(storm, rows, -HALF, one)
    same(read_localizations(tmp_path / "by_locan_smap.csv", Reading()), rows, 0.0, one)


def test_what_smappy_writes_is_read(tmp_path):
    rows = written_by("smappy", tmp_path)
    same(read_localizations(tmp_path / "by_smappy.hdf5", Reading()), rows)


# --- Picasso beside sureloc ---------------------------------------------------------------------

SIDE_PX = 40


def sites(rows=4000, number=200, sigma_nm=10.0):
    """Rows of point-like sites; their FRC falls to 1/7 at 2 pi sigma / sqrt(ln(3 rows / sites))."""
    rng = np.random.default_rng(11)
    places = rng.uniform(2 * NM, (SIDE_PX - 2) * NM, (number, 2))[rng.integers(number, size=rows)]
    at = places + rng.normal(0, sigma_nm, (rows, 2))
    columns = {"frame": np.sort(rng.integers(400, size=rows)), "x_nm": at[:, 0], "y_nm": at[:, 1]}
    columns |= {"sigma_x_nm": sigma_nm, "sigma_y_nm": sigma_nm, "photons": 1000.0}
    return pd.DataFrame(columns | {"background_photons": 5.0})


def calibrated(folder):
    """Calibrate a camera of 2 ADU per electron by the command."""
    rng = np.random.default_rng(12)
    noise = rng.uniform(0.0, 4.0, (12, 16))  # ADU; where it is small, rounding alone is left
    offset = rng.normal(100, 3, (12, 16))
    for name, level in (("dark.tif", 0), ("flat.tif", 150)):
        electrons = rng.poisson(level, (80, 12, 16))
        adu = offset + 2.0 * electrons + rng.normal(0, 1, electrons.shape) * noise
        tifffile.imwrite(folder / name, np.rint(adu).astype(np.uint16), photometric="minisblack")
    out = folder / "camera"
    words = ("calibrate-camera", folder / "dark.tif", folder / "flat.tif", "--out", out, "-q")
    done = CliRunner().invoke(cli.app, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """A folder in which Picasso loaded our camera, saved a movie and measured our rows."""
    folder = tmp_path_factory.mktemp("worked")
    made = calibrated(folder)
    (made / "camera_scmos_calib.hdf5").rename(folder / "camera_scmos_calib.hdf5")
    movie = np.random.default_rng(13).integers(0, 65536, (7, 12, 19), dtype=np.uint16)
    np.save(folder / "movie.npy", movie)
    frame = Geometry(NM, SIDE_PX, SIDE_PX, 400, 1.2 * NM)
    assert write_localizations(Localizations(sites(), frame), folder / "sites.hdf5").rows == 4000
    run("run", "picasso", str(folder))
    return folder


def test_picasso_loads_the_camera_that_we_calibrate(worked):
    ours = read_camera(worked / "camera" / "camera.yaml")
    assert ours.variance_adu2.min() < 0.1
    with np.load(worked / "camera_of_picasso.npz") as theirs:
        np.testing.assert_allclose(theirs["offset"], ours.offset_adu, rtol=1e-6)
        np.testing.assert_allclose(theirs["gain"], ours.gain_adu_per_e, rtol=1e-6)
        # That of a dark movie, where values are rounded.
        expected = ours.variance_adu2 + ROUNDING_VARIANCE_ADU2
        np.testing.assert_allclose(theirs["variance"], expected, rtol=1e-6)
    back = read_camera(worked / "camera_scmos_calib.hdf5")
    np.testing.assert_allclose(back.variance_adu2, ours.variance_adu2, rtol=1e-6, atol=1e-7)


def test_a_movie_that_picasso_saves_is_read(worked):
    with open_movie(worked / "by_picasso.raw") as movie:
        found = movie.read(0, movie.frames)
        assert movie.pixel_nm == NM
    np.testing.assert_array_equal(found, np.load(worked / "movie.npy"))


def test_picasso_measures_the_same_resolution(worked):
    """Both are near the closed form; they split, cut and smooth differently."""
    theirs = json.loads((worked / "resolution.json").read_text())
    field = ((0.0, SIDE_PX * NM), (0.0, SIDE_PX * NM))
    ours = frc_resolution(sites(), field, np.random.default_rng(14))
    expected = 2 * np.pi * 10.0 / np.sqrt(np.log(3 * 4000 / 200))
    assert ours.nm == pytest.approx(expected, rel=0.1)
    assert theirs == pytest.approx(ours.nm, rel=0.1)


# --- OME-Zarr -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zarrs(tmp_path_factory):
    """A folder of OME-Zarr that the reference implementation wrote and what it read of ours."""
    folder = tmp_path_factory.mktemp("zarrs")
    movie = np.random.default_rng(15).integers(0, 65536, (7, 19, 24), dtype=np.uint16)
    np.save(folder / "movie.npy", movie)
    write_results(folder / "result")
    (folder / "result" / IMAGES).rename(folder / IMAGES)
    tifffile.imwrite(folder / "movie.tif", movie, photometric="minisblack")
    with open_movie(folder / "movie.tif") as opened:
        write_movie(opened, folder / "movie.ome.zarr", NM)
    run("run", "ome_zarr", str(folder))
    return folder


@pytest.mark.parametrize(
    "name",
    [f"{axes}_{how}" for axes in ("tyx", "tczyx") for how in ("0.4", "0.5", "0.6")] + ["tyx_whole"],
)
def test_movies_that_ome_zarr_writes_are_read(zarrs, name):
    with open_movie(zarrs / f"{name}.zarr") as movie:
        assert movie.pixel_nm == pytest.approx(NM)
        np.testing.assert_array_equal(movie.read(), np.load(zarrs / "movie.npy"))
        np.testing.assert_array_equal(movie.read(2, 5), np.load(zarrs / "movie.npy")[2:5])


def seen_by_ome_zarr(folder, name):
    about = json.loads((folder / "seen_by_ome_zarr.json").read_text())[name]
    return np.load(folder / f"{name}.npy"), about


def test_ome_zarr_reads_the_movie_that_we_write(zarrs):
    values, about = seen_by_ome_zarr(zarrs, "movie.ome.zarr")
    np.testing.assert_array_equal(values, np.load(zarrs / "movie.npy"))
    assert about["axes"] == "tyx"
    assert about["scale"] == {"t": 1.0, "y": NM, "x": NM}
    assert about["units"] == {"y": "nanometer", "x": "nanometer"}


def test_ome_zarr_reads_the_images_of_a_run(zarrs):
    values, about = seen_by_ome_zarr(zarrs, IMAGES)
    zoom = 9
    assert values.shape == (len(CHANNELS), PART[0] * zoom, PART[1] * zoom)
    np.testing.assert_array_equal(values, zarr.open_group(str(zarrs / IMAGES), mode="r")["0"][:])
    assert about["channels"] == [one.name for one in CHANNELS]
    assert about["axes"] == "cyx"
    assert about["scale"] == {"c": 1.0, "y": PIXEL_NM / zoom, "x": PIXEL_NM / zoom}
    assert about["units"] == {"y": "nanometer", "x": "nanometer"}
    # Positions that follow from its numbers are those of the molecules.
    ((_, top, left),) = about["translation"]
    mean, trusted = values[0].astype(float), values[3]
    assert mean.sum() == pytest.approx(len(EMITTERS_PX), rel=1e-3)
    for x, y in EMITTERS_PX:
        row, column = ((at * PIXEL_NM - o) / (PIXEL_NM / zoom) for at, o in ((y, top), (x, left)))
        rows, columns = (round(at) + np.arange(-5, 6) for at in (row, column))
        around = mean[np.ix_(rows, columns)]
        centre = (around.sum(1) @ rows, around.sum(0) @ columns) / around.sum()
        np.testing.assert_allclose(centre, (row, column), atol=0.02)
    assert (top, left) == tuple(
        (first - 0.5 + 0.5 / zoom) * PIXEL_NM for first in (PLACE.first_row, PLACE.first_column)
    )
    assert not trusted[: 4 * zoom, : 4 * zoom].any()
    assert trusted.sum() == trusted.size - (4 * zoom) ** 2
