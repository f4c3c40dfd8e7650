"""The real programs read what sureloc writes, and sureloc reads what they write.

They need other libraries than sureloc, so `scripts/foreign_programs.py` runs in an environment of
their own (scripts/readers.txt says how to make it); SURELOC_READERS names its Python. What is
installed beside sureloc is used from there. What is found nowhere is skipped, saying so.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

from conftest import ROOT
from sureloc.io.exchange.formats import read_localizations, write_localizations
from sureloc.io.exchange.localizations import Geometry, Localizations, Reading

NM = 108.0
MODULES = {"locan": "locan", "picasso": "picasso", "smappy": "smappy", "mat73": "mat73"}
# What each program adds to positions of the pixel-centre convention: nothing, but where it takes
# ThunderSTORM's corner for its own origin. Picasso also calls the first frame that has rows 0.
HALF = NM / 2


def python_with(program):
    """Give a Python that can import a program, or skip."""
    given = os.environ.get("SURELOC_READERS")
    candidates = [sys.executable] * (find_spec(MODULES[program]) is not None)
    if given:
        found = subprocess.run(
            [given, "-c", f"import importlib.util as u; assert u.find_spec({program!r})"],
            capture_output=True,
        )
        candidates += [given] * (found.returncode == 0)
    if not candidates:
        pytest.skip(
            f"{program} is not installed; scripts/readers.txt says how, and SURELOC_READERS must "
            "name the Python that has it"
        )
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
        timeout=300,
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
    return Localizations(table, Geometry(NM, 512, 300, 40, 1.2 * NM))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name in ("thunderstorm.csv", "smap_sml.mat", "decode.h5", "picasso.hdf5"):
        assert write_localizations(example(), folder / name).rows == 300
    write_localizations(example(), folder / "smap.csv", "smap-csv")
    return folder


def read_by(program, folder):
    run("read", program, str(folder))
    content = json.loads((folder / f"read_by_{program}.json").read_text())
    return {name: pd.DataFrame(columns) for name, columns in content.items()}


def check(found, names, unit_nm=1.0, origin_nm=0.0, first_frame=0, float32=False):
    """Compare what a program read with what was written, in nm."""
    expected = example().table
    assert len(found) == len(expected)
    np.testing.assert_array_equal(found[names["frame"]], expected["frame"] + first_frame)
    for ours, scale, origin in (
        ("x_nm", unit_nm, origin_nm),
        ("y_nm", unit_nm, origin_nm),
        ("sigma_x_nm", unit_nm, 0.0),
        ("sigma_y_nm", unit_nm, 0.0),
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
    check(found["thunderstorm.csv"], axes, origin_nm=HALF, first_frame=1)
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
    check(found["smap_sml.mat"], axes | {"photons": "photons"}, unit_nm=NM, float32=True)
    # Its import of ThunderSTORM's tables keeps the corner's origin: half a pixel off.
    check(found["thunderstorm.csv"], axes, unit_nm=NM, origin_nm=HALF, float32=True)


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
    check(found["thunderstorm.csv"], axes, origin_nm=HALF, float32=True)


def test_another_reader_of_matlab_files_reads_what_we_write(folder):
    fields = {"frame": "frame", "x_nm": "xnm", "y_nm": "ynm", "photons": "phot"}
    fields |= {"sigma_x_nm": "xnmerr", "sigma_y_nm": "ynmerr"}
    check(read_by("mat73", folder)["smap_sml.mat"], fields, first_frame=1)


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


def same(data, rows, origin_nm=0.0, sigma_x="lpx"):
    found = data.table
    np.testing.assert_array_equal(found["frame"], rows["frame"])
    for ours, theirs in (("x_nm", "x"), ("y_nm", "y")):
        # 32 bits of 63 pixels.
        values = found[ours] - origin_nm
        np.testing.assert_allclose(values, rows[theirs] * NM, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found["photons"], rows["photons"])
    if sigma_x:
        np.testing.assert_allclose(found["sigma_x_nm"], rows[sigma_x] * NM, rtol=1e-5)


def test_what_picasso_writes_is_read(tmp_path):
    rows = written_by("picasso", tmp_path)
    found = read_localizations(tmp_path / "by_picasso.hdf5", Reading())
    same(found, rows)
    assert found.geometry == Geometry(NM, 64, 41, 30)
    mean = rows.assign(mean=(rows["lpx"] + rows["lpy"]) / 2)
    # Its tables for ThunderSTORM keep the centre for origin and count from 0.
    storm = Reading(Geometry(NM), first_frame=0)
    same(read_localizations(tmp_path / "by_picasso.csv", storm), mean, -HALF, "mean")
    smap = read_localizations(tmp_path / "by_picasso_sml.mat", Reading())
    same(smap, mean, 0.0, "mean")
    assert smap.geometry.pixel_nm == pytest.approx(NM)


def test_what_locan_writes_is_read(tmp_path):
    rows = written_by("locan", tmp_path)
    storm = read_localizations(tmp_path / "by_locan.csv", Reading(Geometry(NM)))
    same(storm, rows, -HALF)
    same(read_localizations(tmp_path / "by_locan_smap.csv", Reading()), rows)


def test_what_smappy_writes_is_read(tmp_path):
    rows = written_by("smappy", tmp_path)
    same(read_localizations(tmp_path / "by_smappy.hdf5", Reading()), rows)
