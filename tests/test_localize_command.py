"""`sureloc localize` from the shell's side: files, exit codes, and nothing left after an error."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from PIL import Image
from scipy import special

from sureloc.cli import app as cli
from sureloc.evaluate.compare import compare, matched
from sureloc.io.exchange.formats import read_localizations, write_localizations
from sureloc.io.exchange.localizations import Geometry, Reading
from sureloc.io.found import read_found
from sureloc.io.tables import read_provenance, read_table
from sureloc.localize.frames import Effort
from sureloc.runs.localization import _weights_from
from sureloc.table import DRAW_COLUMNS, LOCALIZATION_COLUMNS

EMITTERS = [(7.0, 9.0), (15.4, 8.2), (11.0, 17.3)]
NAME = "<b>cells & co.tif"


def frames(number, shape=(26, 24), emitters=EMITTERS):
    rng = np.random.default_rng(4)

    def share(pixels, position):
        edge = (np.arange(pixels)[:, None] + np.array([-0.5, 0.5]) - position) / 1.2
        return np.diff(special.ndtr(edge), axis=1)[:, 0]

    omega = 4.0 + sum(700.0 * np.outer(share(shape[0], y), share(shape[1], x)) for x, y in emitters)
    electrons = rng.poisson(np.broadcast_to(omega, (number, *shape)))
    return np.rint(100 + 2 * electrons + rng.normal(0, 3, electrons.shape)).astype(np.uint16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("movie")
    tifffile.imwrite(folder / NAME, frames(6), photometric="minisblack")
    (folder / "camera.yaml").write_text(
        "offset_adu: 100\ngain_adu_per_e: 2.0\nvariance_adu2: 9.0\n", encoding="utf-8"
    )
    return folder


def run(*arguments):
    """Run the command in this process; give its exit code."""
    before, sys.argv = sys.argv, ["sureloc", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as leaving:
            cli.main()
    finally:
        sys.argv = before
    return leaving.value.code


@pytest.fixture(scope="module")
def result(folder):
    out = folder / "result"
    code = run(
        *("localize", folder / NAME, "--out", out, "--camera", folder / "camera.yaml"),
        *("--sigma-px", "1.2", "--roi", "2:26,1:24", "--frames", "1:6", "--quiet"),
        *("--pixel-nm", "100"),
    )
    assert code == 0
    return out


def test_tables_count_in_the_whole_movie(result):
    table = read_table(result / "localizations.parquet", LOCALIZATION_COLUMNS)
    assert set(table["frame"]) == {1, 2, 3, 4, 5}
    assert len(table) == pytest.approx(15, abs=1)
    for x, y in EMITTERS:
        far = np.hypot(table["x_nm"] - 100 * x, table["y_nm"] - 100 * y)
        # About 6 nm of error per axis; a region's corner forgotten would be 100 nm.
        assert (far < 40).sum() >= 4
    draws = read_table(result / "draws.parquet", DRAW_COLUMNS)
    assert draws["frame"].between(1, 5).all()
    assert set(draws["draw"]) == set(range(16))
    storm = read_localizations(result / "localizations.csv", Reading(Geometry(100.0))).table
    assert np.allclose(storm["x_nm"], table["x_nm"], atol=0.01)
    origin = read_provenance(result / "localizations.parquet")
    assert "sureloc" in origin["command"]
    assert (origin["roi"], origin["frames"], origin["seed"]) == ("2:26,1:24", "1:6", 0)
    assert (origin["pixel_nm"], origin["weights"]) == (100.0, "fast")


def test_the_table_tells_other_programs_all_that_they_need(result, tmp_path):
    found = read_localizations(result / "localizations.parquet", Reading())
    geometry = found.geometry
    assert replace(geometry, psf_sigma_nm=None, read_variance_photons2=None) == Geometry(
        100.0, 24, 26, 6, variance_per_photon=1.0, region_px=((2, 26), (1, 24))
    )
    # Edges lie half a pixel before and behind the centres of the first and last pixels.
    assert read_found(result).field_nm == ((50.0, 2350.0), (150.0, 2550.0))
    assert geometry.psf_sigma_nm == pytest.approx(120.0)
    assert geometry.read_variance_photons2 == pytest.approx((9.0 + 1 / 12) / 4.0)
    written = write_localizations(found, tmp_path / "table.hdf5")
    assert written.rows == len(found.table)


def test_the_csv_is_the_table_converted(result, tmp_path):
    assert run("convert", result / "localizations.parquet", tmp_path / "same.csv", "-q") == 0
    assert run("convert", result, tmp_path / "folder.csv", "-q") == 0
    assert (tmp_path / "folder.csv").read_bytes() == (tmp_path / "same.csv").read_bytes()
    assert (tmp_path / "same.csv").read_bytes() == (result / "localizations.csv").read_bytes()
    table = read_table(result / "localizations.parquet", LOCALIZATION_COLUMNS)
    storm = pd.read_csv(result / "localizations.csv")
    # The camera's 9 ADU^2, and 1/12 by rounding, at 2 ADU per electron.
    noise = np.sqrt(table["background_photons"] + (9.0 + 1 / 12) / 4.0)
    np.testing.assert_allclose(storm["bkgstd [photon]"], noise, atol=1e-5)
    for theirs, ours in (
        ("uncertainty_x [nm]", "sigma_x_nm"),
        ("uncertainty_y [nm]", "sigma_y_nm"),
        *((name, name) for name in ("sigma_photons", "p_exists", "trusted")),
    ):
        np.testing.assert_allclose(storm[theirs], table[ours].astype(float), atol=1e-5)


def test_images_hold_what_the_tables_say(result):
    group = zarr.open_group(str(result / "images.ome.zarr"), mode="r")
    image = np.asarray(group["0"])
    assert image.shape == (5, 24 * 8, 23 * 8)
    draws = pd.read_parquet(result / "draws.parquet")
    assert image[0].sum() == pytest.approx(len(draws) / 16, rel=0.02)
    transforms = group.attrs["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert transforms[0]["scale"] == [1.0, 12.5, 12.5]
    row, column = np.unravel_index(image[0].argmax(), image[0].shape)
    y = transforms[1]["translation"][1] + 12.5 * row
    x = transforms[1]["translation"][2] + 12.5 * column
    assert min(np.hypot(x - 100 * a, y - 100 * b) for a, b in EMITTERS) < 30
    # The last image is the sum of the measured frames, enlarged.
    seen = (frames(6)[1:6, 2:26, 1:24].astype(float) - 100.0) / 2.0
    assert image[4].reshape(24, 8, 23, 8).mean((1, 3)) == pytest.approx(seen.sum(0), abs=0.05)
    for name in ("reconstruction", "uncertainty", "relative_uncertainty", "trust", "widefield"):
        assert (result / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    # Where there is nothing, nothing is certain: black, no colour of the scale.
    with Image.open(result / "relative_uncertainty.png") as picture:
        colours = picture.convert("RGB").getcolors(1 << 24)
    assert max(colours)[1] == (0, 0, 0)
    assert sum(number for number, (red, green, blue) in colours if blue > red + 20) > 100


def test_the_report_stands_alone_and_escapes_names(result):
    text = (result / "report.html").read_text(encoding="utf-8")
    assert "<b>cells" not in text
    assert "&lt;b&gt;cells &amp; co.tif" in text
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", text)
    assert text.count("data:image/png;base64,") >= 5 + 3
    assert "Trust: " in text
    assert "The camera was given" in text
    assert "offset 100.0 ADU, gain 2 ADU per electron, read noise 1.5" in text
    assert "Pixels are 100 nm" in text
    rows = len(read_table(result / "localizations.parquet", LOCALIZATION_COLUMNS))
    assert f"<dt>localizations, in rows kept</dt><dd>{rows}</dd>" in text
    draws = read_table(result / "draws.parquet", DRAW_COLUMNS)
    number = draws.groupby("draw").size()
    assert len(number) == 16
    mean = f"{number.mean():,.0f} ± {number.std():,.0f}"
    assert f"also those too unsure for a row</dt><dd>{mean}</dd>" in text
    assert re.search(r"trusted: \d+\.\d % of the field, \d+\.\d % of the rows\. A camera", text)


def test_the_record_tells_how_it_came_about(result):
    record = json.loads((result / "run.json").read_text(encoding="utf-8"))
    assert record["verdict"]["trust"] == "trust"
    assert record["movie"]["shape"] == [5, 24, 23]
    assert record["options"]["sigma_px"] == 1.2
    assert record["localizations"] >= record["trusted"] > 0
    assert record["versions"]["sureloc"]
    assert record["weights"]["name"] == record["weights_from"] == "fast"
    assert _weights_from("mine/w.safetensors") == str(Path.cwd() / "mine" / "w.safetensors")
    assert record["comparison"] is None
    assert record["pixel_size_from"] == "given"
    draws = read_table(result / "draws.parquet", DRAW_COLUMNS)
    assert record["molecules_per_draw"] == draws.groupby("draw").size().to_list()
    assert record["faint"] == 0


def test_the_record_leads_back_to_the_camera_and_no_table_does(folder, tmp_path, monkeypatch):
    text = (folder / "camera.yaml").read_text(encoding="utf-8") + "quantum_efficiency: 0.9\n"
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code = run(
        *("localize", folder / NAME, "--out", "out", "--camera", "c.yaml", "--sigma-px", "1.2"),
        *("--frames", "0:2", "--quiet"),
    )
    assert code == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["camera"] == "c.yaml"
    assert record["camera_file"] == str(tmp_path / "c.yaml")
    assumed = record["assumed"]
    assert (assumed["camera_has_maps"], assumed["quantum_efficiency"]) == (False, 0.9)
    assert (assumed["em_gain"], assumed["saturation_adu"]) == (1.0, 65535)
    assert record["pixel_size_from"] == "assumed"
    assert record["verdict"]["trust"] == "trust with care"
    assert "the pixel size was not given, and 100 nm were taken" in record["verdict"]["sentence"]
    for table in ("localizations.parquet", "draws.parquet"):
        origin = read_provenance(tmp_path / "out" / table)
        assert "camera_file" not in origin
        assert origin["pixel_size_from"] == "assumed"
    for file in (tmp_path / "out" / "images.ome.zarr").rglob("*.json"):
        assert "camera_file" not in file.read_text(encoding="utf-8")


def test_a_movie_that_does_not_fit_ends_with_3(folder, tmp_path, capsys):
    wrong = tmp_path / "camera.yaml"
    # A tenth of the true gain: the noise is far too small for so many electrons.
    wrong.write_text("offset_adu: 100\ngain_adu_per_e: 8.0\nvariance_adu2: 900.0\n")
    code = run(
        *("localize", folder / NAME, "--out", tmp_path / "out", "--camera", wrong),
        *("--sigma-px", "1.2", "-q", "--frames", "0:2"),
    )
    assert code == 3
    assert "Do not trust" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").exists()


def test_an_offset_that_is_trusted_is_kept_and_remembered(folder, result, tmp_path, capsys):
    wrong, out = tmp_path / "camera.yaml", tmp_path / "kept"
    wrong.write_text("offset_adu: 80\ngain_adu_per_e: 2.0\nvariance_adu2: 9.0\n")
    run(
        *("localize", folder / NAME, "--out", out, "--camera", wrong, "--trust-camera"),
        *("--sigma-px", "1.2", "--frames", "0:2", "--rounds", "1", "--quiet"),
    )
    said = capsys.readouterr().out
    assert "above what the camera file's offset says. The offset was left as it is" in said
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["options"]["trust_camera"] is True
    assert record["options"]["rounds"] == 1
    assert record["assumed"]["median_offset_adu"] == 80.0
    assert "(--trust-camera)" in record["verdict"]["sentence"]
    other = json.loads((result / "run.json").read_text(encoding="utf-8"))
    assert other["options"]["trust_camera"] is False
    assert other["options"]["rounds"] == Effort().rounds


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: frames(2), ("--trust-camera",), "offset of a camera that is given"),
        (lambda: frames(2), ("--pixel-nm", "0"), "pixel size is 0.0 nm"),
        (lambda: frames(2), ("--sigma-px", "wide"), "PSF width is 'wide'"),
        (lambda: frames(2), ("--frames", "5:9"), "frames"),
        (lambda: frames(2), ("--weights", "m.tif"), "no weights at m.tif"),
        (lambda: frames(2), ("--weights", "bets"), "no weights named 'bets'"),
        (
            lambda: frames(2),
            ("--device", "abacus"),
            "device is 'abacus'; it must be one of",
        ),
        (lambda: frames(2).astype(np.float32) * np.nan, (), "finite"),
        (lambda: frames(2)[:, :1], (), "rows"),
        (lambda: np.zeros((20, 20, 3), np.uint8), (), "colour"),
    ],
)
def test_input_that_cannot_be_used_ends_with_2_and_leaves_nothing(
    make, options, message, tmp_path, capsys
):
    data = make()
    tifffile.imwrite(
        tmp_path / "m.tif", data, photometric="rgb" if data.shape[-1] == 3 else "minisblack"
    )
    code = run("localize", tmp_path / "m.tif", "--out", tmp_path / "out", "-q", *options)
    assert code == 2
    said = capsys.readouterr().err
    assert message.lower() in said.lower()
    assert [path.name for path in tmp_path.iterdir()] == ["m.tif"]


def test_a_camera_of_another_shape_and_a_folder_in_use_are_refused(folder, tmp_path, capsys):
    np.savez(
        tmp_path / "c.npz",
        offset_adu=np.full((5, 5), 100.0),
        gain_adu_per_e=np.full((5, 5), 2.0),
        variance_adu2=np.full((5, 5), 9.0),
    )
    movie = folder / NAME
    assert run("localize", movie, "--out", tmp_path / "o", "--camera", tmp_path / "c.npz") == 2
    assert "(5, 5)" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
    assert run("localize", movie, "--out", tmp_path) == 2
    assert "not empty" in capsys.readouterr().err


def test_what_the_user_or_the_file_knows_is_taken_and_said(folder, tmp_path, capsys):
    """Priors that are given, a pixel size in the file, and maps cut to the region already."""
    movie = tmp_path / "m.ome.tif"
    size = {"PhysicalSizeX": 0.16, "PhysicalSizeXUnit": "µm"}
    size |= {"PhysicalSizeY": 0.16, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(movie, frames(2), metadata={"axes": "TYX", **size})
    np.savez(
        tmp_path / "cut.npz",
        offset_adu=np.full((24, 20), 100.0),
        gain_adu_per_e=np.full((24, 20), 2.0),
        variance_adu2=np.full((24, 20), 9.0),
    )
    common = ("localize", movie, "--sigma-px", "1.2", "-q", "--roi", "0:24,0:20")
    common = (*common, "--camera", tmp_path / "cut.npz")
    given = ("--density", "0.3", "--photons", "650", "--background", "3.5")
    assert run(*common, "--out", tmp_path / "a", *given) == 0
    said = capsys.readouterr().out
    assert "The pixel size is 160 nm, as the file says." in said
    record = json.loads((tmp_path / "a" / "run.json").read_text(encoding="utf-8"))
    assumed = record["assumed"]
    assert assumed["density_per_px2"] == pytest.approx(0.3 * 0.16**2)
    assert assumed["mean_photo_electrons"] == pytest.approx(650)
    assert assumed["mean_background_e"] == pytest.approx(3.5)
    assert record["options"]["pixel_nm"] == pytest.approx(160)
    assert record["pixel_size_from"] == "file"
    assert run(*common, "--out", tmp_path / "b", "--pixel-nm", "100") == 0
    assert "the file says that pixels are 160 nm, not 100 nm" in capsys.readouterr().out
    assert run(*common, "--out", tmp_path / "c", "--photons", "-3") == 2
    assert "mean number of photons is -3" in capsys.readouterr().err


# Comparison with a truth


def test_a_comparison_counts_pairs_errors_and_intervals():
    def rows(x, y, frame=0):
        values = {c.name: np.zeros(len(x)) for c in LOCALIZATION_COLUMNS}
        table = pd.DataFrame(values).assign(frame=frame, x_nm=x, y_nm=y, photons=200.0)
        for axis in "xy":
            table[f"crlb_{axis}_nm"] = 5.0
            table[f"sigma_{axis}_nm"] = 10.0
            for level, half in ((68, 10.0), (95, 20.0)):
                table[f"{axis}_lo{level}_nm"] = table[f"{axis}_nm"] - half
                table[f"{axis}_hi{level}_nm"] = table[f"{axis}_nm"] + half
        return table

    truth = pd.DataFrame({"frame": 0, "x_nm": [0.0, 1000.0, 2000.0], "y_nm": 0.0, "photons": 100.0})
    table = rows([15.0, 1015.0, 5000.0], [15.0, -15.0, 0.0])
    found = compare(table, truth)
    assert (found.pairs, found.truths, found.rows) == (2, 3, 3)
    assert found.jaccard == pytest.approx(0.5)
    assert found.rmse_axis_nm == pytest.approx(15.0)
    assert found.rmse_2d_nm == pytest.approx(15.0 * 2**0.5)
    assert found.rmse_over_crlb == pytest.approx(3.0)
    assert (found.coverage_68, found.coverage_95) == (0.0, 1.0)
    assert found.photons_ratio == pytest.approx(2.0)
    assert found.median_error_over_sd == pytest.approx(1.5)
    # Two rows compete for one truth: the pairing that leaves least distance wins.
    mine, theirs = matched(rows([90.0, 10.0], [0.0, 0.0]), truth)
    assert list(mine) == [1]
    assert list(theirs) == [0]
    nothing = compare(rows([1.0], [1.0], frame=7), truth)
    assert nothing.pairs == 0
    assert nothing.as_dict()["rmse_axis_nm"] is None
