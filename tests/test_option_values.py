"""Values that cannot be are told at once, before any library is loaded, with the nearest name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from math import inf, nan

import numpy as np
import pytest
import tifffile

from sureloc.cli.inputs import x_y_nm
from sureloc.errors import CameraError, InputError, check_one_of, decimal_point, did_you_mean
from sureloc.io.regions import parse_frames, parse_rectangle, parse_region
from sureloc.limits import LIMITS, check_limit, number_or_auto
from sureloc.networks.weight_files import weight_files

HEAVY = ("torch", "numba", "scipy", "pandas", "matplotlib", "tifffile")
LIGHT = ("tifffile",)  # what it takes to open a movie
LOCALIZE = ("localize", "m.tif", "--out", "o")
TABLE = ("t.csv", "--out", "o")
PICTURE = ("render", "t.csv", "--out", "o.png")
CALLS = [
    ((*LOCALIZE, "--weights", "fats"), "'fats' (did you mean fast?). Shipped: default, fast"),
    ((*LOCALIZE, "--weights", "mein"), "'mein' (did you mean mine?)"),
    ((*LOCALIZE, "--weights", "mine/mien.safetensors"), "mien.safetensors (did you mean mine.s"),
    ((*LOCALIZE, "--weights", "m.tif"), "no .safetensors file"),
    ((*LOCALIZE, "--device", "gpuu"), "device is 'gpuu'; it must be one of auto, cpu, cuda"),
    ((*LOCALIZE, "--device", "crud"), "(did you mean cuda?)"),
    ((*LOCALIZE, "--frames", "5:x"), "'5:x' is not of the form a:b"),
    ((*LOCALIZE, "--frames", "5:5"), "5:5 must hold 1 or more frames"),
    ((*LOCALIZE, "--roi", "0:9"), "'0:9' is not of the form y0:y1,x0:x1"),
    ((*LOCALIZE, "--pixel-nm", "-5"), "pixel size is -5.0 nm; it must lie between 1 and 10000"),
    ((*LOCALIZE, "--pixel-nm", "abc"), "'abc'"),
    ((*LOCALIZE, "--pixel-nm", "0,108"), "'0,108'"),
    ((*LOCALIZE, "--draws", "many"), "'many'"),
    ((*LOCALIZE, "--lonk"), "No such option"),
    (("localize", "m.tif"), "Missing option '--out'"),
    (("link",), "Missing argument 'RUN_OR_TABLE'"),
    (("lokalize",), "No such command 'lokalize'"),
    (("weights", "shw"), "No such command 'shw'"),
    (("--lonk",), "No such option"),
    ((*LOCALIZE, "--min-probability", "95"), "lie in (0, 1]; 0.5 is usual. Did you mean 0.95?"),
    (("localize", "empty.tif", "--out", "o"), "empty.tif is empty: a file of 0 bytes"),
    (("localize", "run", "--out", "o"), "run is the folder of a run, no movie; 'sureloc render'"),
    (("localize", "t.csv", "--out", "o"), "t.csv is a table by its name, no movie; 'sureloc ren"),
    (("inspect", "t.csv"), "t.csv is a table by its name, no movie"),
    (("audit", *TABLE, "--movie", "t.csv"), "t.csv is a table by its name, no movie"),
    (("calibrate-camera", "m.tif", "t.csv", "--out", "o"), "t.csv is a table by its name"),
    ((*LOCALIZE, "--sigma-px", "wide"), "PSF width is 'wide'; give 'auto', or a number"),
    ((*LOCALIZE, "--sigma-px", "nan"), "PSF width is nan px; it must lie between 0.3 and 10 px"),
    ((*LOCALIZE, "--density", "nan"), "density is nan; it must lie between 1e-06 and 1000, or"),
    ((*LOCALIZE, "--photons", "-3"), "mean number of photons is -3"),
    ((*LOCALIZE, "--background", "-3"), "background is -3"),
    ((*LOCALIZE, "--draws", "1"), "draws is 1; it must be 2 or larger"),
    ((*LOCALIZE, "--workers", "0"), "workers is 0; it must be 1 or larger"),
    ((*LOCALIZE, "--scheduler", "threds"), "'threds' (did you mean threads?)"),
    ((*LOCALIZE, "--rounds", "0"), "rounds is 0; it must lie between 1 and 10; 4 is usual"),
    ((*LOCALIZE, "--min-probability", "2"), "must lie in (0, 1]; 0.5 is usual"),
    (("localize", "m.tif", "--out", "begun"), "Go on with it by the same command with --resume"),
    (("demo", "--out", "mine"), "is not empty"),
    (("demo", "--out", "o", "--workers", "0"), "workers is 0"),
    (("inspect", "m.tif", "--weights", "fats"), "did you mean fast"),
    (("inspect", "m.tif", "--pixel-nm", "0.1"), "If 0.1 is in micrometres, give 100"),
    (("inspect", "m.tif", "--exposure-ms", "0"), "must be larger than 0 ms"),
    (("inspect", "m.tif", "--picture", "p.png"), "exists already"),
    (("adapt", "m.tif", "--out", "o", "--weights", "fats"), "did you mean fast"),
    (("adapt", "m.tif", "--out", "o", "--minutes", "0"), "minutes is 0.0; it must be larger"),
    (("adapt", "m.tif", "--out", "o", "--device", "gup"), "did you mean gpu"),
    (("audit", *TABLE, "--camera-pixel-nm", "0"), "pixel size is 0.0 nm"),
    (("audit", *TABLE, "--workers", "0"), "workers is 0"),
    (("calibrate-camera", "m.tif", "none.tif", "--out", "o"), "no movie at none.tif"),
    (("calibrate-camera", "m.tif", "m.tif", "--out", "o", "--em-gain", "0"), "em_gain is 0.0"),
    (("convert", "t.csv", "o.xyz"), "no ending of a table"),
    (("convert", "t.csv", "t.csv"), "exists already"),
    (("convert", "t.csv", "o.csv", "--to", "thunderstrom"), "did you mean thunderstorm"),
    (("convert", "t.csv", "o.csv", "--from", "picaso"), "did you mean picasso"),
    (("convert", "t.csv", "o.csv", "--shift-nm", "5"), "shift '5' is not of the form x,y"),
    (("convert", "t.csv", "o.csv", "--width-px", "0"), "width_px is 0 px"),
    (("convert", "t.csv", "o.csv", "--roi", "0:9,0:9"), "--roi is for movies, and o.csv would be"),
    (
        ("convert", "t.csv", "o.csv", "--roi", "0:9,0:9", "--frames", "0:5"),
        "--roi, --frames are for movies, and o.csv would be a table. 'sureloc filter' keeps rows",
    ),
    (
        ("convert", "m.tif", "o.ome.tif", "--shift-nm", "50,50", "--draw", "3"),
        "--shift-nm, --draw are for tables, and o.ome.tif would be a movie. --roi and --frames",
    ),
    *(
        (("convert", "m.tif", "o.ome.zarr", *words), f"{words[0]} is for tables, and o.ome.zarr")
        for words in (
            *(("--from", "picasso"), ("--to", "picasso"), ("--first-frame", "1")),
            *(("--uncertainty-nm", "4"), ("--psf-sigma-nm", "120"), ("--movie-frames", "9")),
            *(("--width-px", "64"), ("--height-px", "64"), ("--draw", "0")),
        )
    ),
    (("convert", "m.tif", "o.raw"), "A movie is written as .ome.tif or .ome.zarr, and o.raw ends"),
    (("convert", "m.tif", "o.raw"), "call it o.ome.tif"),
    (("convert", "m.tif", "o.tif"), "call it o.ome.tif"),
    (("drift", *TABLE, "--method", "rc"), "method is 'rc' (did you mean rcc?)"),
    (("drift", *TABLE, "--segments", "3"), "segments is 3; it must lie between 5 and 200"),
    (("drift", *TABLE, "--fiducial", "3;4"), "fiducial '3;4' is not of the form x,y in nm"),
    (("filter", "t.csv", "trusted", "--out", "o.xyz"), "no ending of a table"),
    (("filter", "none", "trusted", "--out", "o.csv"), "no run or table at none"),
    (("link", "t.csv", "--out", "o.csv", "--gap", "-1"), "gap is -1 frames; it must be 0 frames"),
    (("link", "t.csv", "--out", "o.csv", "--radius-nm", "wide"), "radius_nm is 'wide'"),
    (("render", "t.csv", "--out", "o.jpg"), "must end in .png, .pdf, .svg, .tif, .tiff"),
    ((*PICTURE, "--kind", "gausian"), "(did you mean gaussian?); it must be one of histogram"),
    ((*PICTURE, "--colour", "tme"), "did you mean time"),
    ((*PICTURE, "--kind", "posterior", "--colour", "time"), "draws have neither precision nor"),
    ((*PICTURE, "--zoom", "3", "--pixel-nm", "5"), "not both"),
    ((*PICTURE, "--zoom", "0"), "zoom is 0.0; it must be larger than 0; 10 is usual"),
    ((*PICTURE, "--bits", "8"), "bits is '8'; it must be one of 32, 16"),
    ((*PICTURE, "--roi", "1"), "region is '1'; give rows and columns"),
    (("resolution", "t.csv", "--splits", "0"), "splits is 0"),
    (("reproduce", "precison"), "no study 'precison' (did you mean precision?)"),
    (("simulate", "papr", "--frames", "1", "--out", "o"), "did you mean paper"),
    (("simulate", "paper", "--frames", "1", "--out", "mine"), "is not empty"),
    (("train", "phi", "smok", "--out", "o"), "'smok' for phi (did you mean smoke?)"),
    (("train", "phi", "smoke", "--out", "o", "--devices", "0"), "devices is 0"),
    (("train", "psi", "smoke", "--phi", "fats", "--out", "o"), "did you mean fast"),
    (("train", "export", "fast", ".", "--out", "w.pt"), "must end in .safetensors"),
    (("train", "search", "fast", "--out", "mine"), "is not empty"),
    (("weights", "show", "fats"), "did you mean fast"),
    (("weights", "export", "fast", "--out", "w.pt"), "written as .onnx, or as .zip"),
    (("weights", "recalibrate", "fast", "--out", "mine/mine.safetensors"), "exists already"),
]
# These open files; the first one loads what that takes for all that come after it.
OPENED = [
    ((*LOCALIZE, "--frames", "0:9"), "frames 0:9 must lie inside 0:3"),
    ((*LOCALIZE, "--roi", "0:40,0:20"), "rows 0:40 must lie inside 0:20"),
    ((*LOCALIZE, "--camera", "t.csv"), "t.csv"),
    (("localize", "t.xyz", "--out", "o"), "unknown extension '.xyz'"),
    (("inspect", "t.xyz"), "unknown extension '.xyz'"),
    (("audit", *TABLE, "--movie", "t.xyz"), "unknown extension '.xyz'"),
    (("adapt", "m.tif", "--out", "o", "--camera", "t.csv"), "t.csv"),
    (("calibrate-camera", "m.tif", "t.xyz", "--out", "o"), "unknown extension '.xyz'"),
]
CALLS += OPENED


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What every call says, its exit code, and what it had loaded by then, from one process."""
    folder = tmp_path_factory.mktemp("option_values")
    tifffile.imwrite(folder / "m.tif", np.zeros((3, 20, 20), np.uint16), photometric="minisblack")
    (folder / "t.csv").write_text('"frame","x [nm]","y [nm]"\n1,800,800\n', encoding="ascii")
    (folder / "t.xyz").write_text("x", encoding="ascii")
    (folder / "empty.tif").touch()
    (folder / "run").mkdir()
    (folder / "run" / "localizations.parquet").touch()
    (folder / "p.png").touch()
    (folder / "mine").mkdir()
    (folder / "mine" / "mine.safetensors").touch()
    (folder / "begun.partial").mkdir()
    (folder / "begun.partial" / "identity.json").touch()
    program = f"""
import contextlib, io, json, sys
from sureloc.cli import main
said = []
for call in {[call for call, _ in CALLS]!r}:
    sys.argv = ["sureloc", *call]
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        try:
            main()
        except SystemExit as leaving:
            loaded = [name for name in {HEAVY!r} if name in sys.modules]
            said.append((leaving.code, error.getvalue(), loaded))
print(json.dumps(said))
"""
    before = sorted(folder.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True
    )
    assert sorted(folder.rglob("*")) == before
    return dict(zip((call for call, _ in CALLS), json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(("call", "words"), CALLS, ids=[" ".join(call) for call, _ in CALLS])
def test_a_wrong_value_is_told_before_libraries_are_loaded(call, words, told):
    code, said, loaded = told[call]
    assert code == 2
    assert set(loaded) <= (set(LIGHT) if (call, words) in OPENED else set())
    assert words in said
    assert said.startswith("sureloc: ")
    assert said.count("\n") == 1


def test_a_decimal_comma_is_told_with_the_range(told):
    _, said, _ = told[*LOCALIZE, "--pixel-nm", "0,108"]
    assert "with a point: 0.108). The pixel size is 0.108 nm; it must lie between 1 and" in said
    assert decimal_point("2,2") == " (decimals are written with a point: 2.2)"
    assert decimal_point("2,2,2") == decimal_point("a,2") == decimal_point("22") == ""


def test_the_nearest_name_is_named_and_no_other():
    known = ("default", "fast", "gaussian")
    assert did_you_mean("defualt", known) == " (did you mean default?)"
    assert did_you_mean("gau", known) == " (did you mean gaussian?)"
    assert did_you_mean("Gaussain", known) == " (did you mean gaussian?)"
    assert did_you_mean("last", known) == did_you_mean("", known) == ""
    assert check_one_of("kind", "fast", known) is None
    with pytest.raises(InputError, match=r"'fats' \(did you mean fast\?\); .*default, fast"):
        check_one_of("kind", "fats", known)


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_limits_are_kept_and_said(name):
    limit = LIMITS[name]
    assert limit.holds(limit.low) == (not limit.above)
    assert limit.holds(min(limit.low + 1, limit.high))
    assert limit.holds(limit.high) == (limit.high < inf)
    for value in (limit.low - 1, nan, inf, 2 * limit.high):
        with pytest.raises(InputError, match=re.escape(f"{limit.what} is {value}")) as told:
            check_limit(name, value)
        assert f"{limit.low:g}" in str(told.value)
    with pytest.raises(CameraError):
        check_limit(name, nan, CameraError)


def test_a_number_or_auto():
    assert number_or_auto("sigma_px", "auto") is None
    assert number_or_auto("sigma_px", "1.3") == 1.3
    with pytest.raises(InputError, match=r"width is 20\.0 px"):
        number_or_auto("sigma_px", "20")


def test_parts_are_read_before_it_is_known_of_what():
    assert parse_frames("5:") == slice(5, None)
    assert parse_frames(":9") == slice(0, 9)
    assert parse_region("3:20, :") == (slice(3, 20), slice(0, None))
    with pytest.raises(InputError, match="columns 0:5 must hold 8 or more columns"):
        parse_region("0:99,0:5")
    assert parse_rectangle("1:2,3.5:4") == ((1.0, 2.0, 3.5, 4.0), False)
    assert parse_rectangle("-1:2,3:4nm") == ((-1.0, 2.0, 3.0, 4.0), True)
    for wrong in ("1:2", "2:1,3:4", "1:2,3:4px", "1.1.1:2,3:4", "nan:2,3:4"):
        with pytest.raises(InputError, match=re.escape(f"region is {wrong!r}")):
            parse_rectangle(wrong)
    assert x_y_nm("shift", "50,-3") == (50.0, -3.0)
    with pytest.raises(InputError, match="finite"):
        x_y_nm("shift", "inf,0")


def test_weights_are_found_by_name_file_and_folder(tmp_path):
    for path in ("w.safetensors", "w.json"):
        (tmp_path / path).touch()
    file = tmp_path / "w.safetensors"
    assert weight_files(file)[:2] == weight_files(tmp_path)[:2] == (file, tmp_path / "w.json")
    assert [one.name for one in weight_files("fast")[:2]] == ["fast.safetensors", "fast.json"]
