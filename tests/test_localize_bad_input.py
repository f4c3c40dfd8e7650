"""`sureloc localize` with input that cannot be used: one line, exit code 2, nothing left behind."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from importlib import resources

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr

from test_localize_command import frames, run

WEIGHTS = resources.files("sureloc") / "weights"


def tiff(folder, data=None, **options):
    path = folder / "m.tif"
    data = frames(3) if data is None else data
    tifffile.imwrite(path, data, **({"photometric": "minisblack"} | options))
    return path


def cut(folder, share, **options):
    path = tiff(folder, **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def raw(folder, content):
    path = folder / "m.tif"
    path.write_bytes(content)
    return path


def without_frames(folder):
    path = folder / "m.zarr"
    zarr.create_array(store=str(path), shape=(0, 20, 20), chunks=(1, 20, 20), dtype="uint16")
    return path


def with_nan(folder):
    data = frames(3).astype(np.float32)
    data[2, 3, 4] = np.nan
    return tiff(folder, data)


def with_camera(folder, shape, bad=100.0, movie_shape=(26, 24)):
    offset = np.full(shape, 100.0)
    offset.flat[5] = bad
    maps = {"offset_adu": offset, "gain_adu_per_e": np.full(shape, 2.0)}
    np.savez(folder / "c.npz", **maps, variance_adu2=np.full(shape, 9.0))
    return tiff(folder, frames(3, movie_shape))


def in_use(folder):
    (folder / "out").mkdir()
    (folder / "out" / "mine.txt").write_text("mine")
    return tiff(folder)


def in_the_way(folder):
    (folder / "out").write_text("mine")
    return tiff(folder)


CAMERA = ("--camera", "@/c.npz")


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda d: cut(d, 0.9), (), ("m.tif is truncated", "copy or export")),
        (lambda d: cut(d, 0.4), (), ("m.tif is truncated", "copy or export")),
        (lambda d: cut(d, 0.6, compression="zlib"), (), ("m.tif is truncated", "copy or export")),
        (lambda d: raw(d, b"II*\0\x08"), (), ("cannot be read as TIFF", "copy or export")),
        (lambda d: raw(d, b""), (), ("empty: a file of 0 bytes", "copy it again")),
        (lambda d: raw(d, b"II*\0\0\0\0\0"), (), ("no frames", "1 or more")),
        (without_frames, (), ("no frames", "1 or more")),
        (lambda d: d, (), ("holds no TIFF files", "OME-Zarr")),
        (lambda d: d / "none.tif", (), ("no movie at", "spelling")),
        (lambda d: tiff(d, np.zeros((4, 20, 20, 3), np.uint8), photometric="rgb"), (), ("colour",)),
        (with_nan, (), ("1 value(s) that are NaN", "frame 2, row 3, column 4", "Crop")),
        (lambda d: tiff(d, frames(3)[:, :1]), (), ("1 rows and 24 columns", "8 or more", "axes")),
        (lambda d: tiff(d, np.full((3, 20, 20), 65535, np.uint16)), (), ("saturated", "65535")),
        (lambda d: tiff(d, np.full((3, 20, 20), 100, np.uint16)), (), ("no noise", "--camera")),
        (lambda d: with_camera(d, (24, 26)), CAMERA, ("(24, 26)", "(26, 24)", "transpose")),
        (lambda d: with_camera(d, (1, 26, 24)), CAMERA, ("(1, 26, 24)", "(rows, columns)")),
        (lambda d: with_camera(d, (26, 24), np.nan), CAMERA, ("nan at pixel (0, 5)", "finite")),
        (tiff, ("--camera", "@/none.yaml"), ("no camera file at", "spelling")),
        (tiff, ("--pixel-nm", "0"), ("0.0 nm", "between 1 and 10000", "magnification")),
        (tiff, ("--pixel-nm", "nan"), ("nan nm", "between 1 and 10000")),
        (tiff, ("--sigma-px", "0"), ("0.0 px", "between 0.3 and 10", "auto")),
        (tiff, ("--draws", "1"), ("draws is 1", "2 or larger")),
        (tiff, ("--min-probability", "0"), ("0.0", "(0, 1]")),
        (tiff, ("--workers", "0"), ("workers is 0", "1 or larger")),
        (tiff, ("--roi", "0:99,0:20"), ("0:99", "inside 0:26", "8 or more")),
        (tiff, ("--roi", "all"), ("'all'", "y0:y1,x0:x1")),
        (tiff, ("--frames", "1:9"), ("1:9", "inside 0:3", "1 or more")),
        (in_use, (), ("not empty", "new folder", "overwrites nothing")),
        (in_the_way, (), ("is a file", "new folder")),
    ],
)
def test_one_line_names_value_range_and_next_step(
    make, options, words, tmp_path, capfd, monkeypatch
):
    # In a fresh copy the first run would say that it compiles.
    monkeypatch.setattr("sureloc.runs.localization.say_if_compiling", lambda _say: None)
    movie = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    options = [option.replace("@", str(tmp_path)) for option in options]
    out = tmp_path / ("result" if movie == tmp_path else "out")
    assert run("localize", movie, "--out", out, "-q", *options) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("sureloc: ")
    assert said.err.count("\n") == 1
    for word in words:
        assert word.lower() in said.err.lower()
    assert sorted(tmp_path.rglob("*")) == before


def test_wrong_paths_are_told_before_libraries_are_loaded(tmp_path):
    tiff(tmp_path)
    calls = [
        ("localize", "none.tif", "--out", "out"),
        ("localize", "m.tif", "--camera", "none.yaml", "--out", "out"),
        ("inspect", "none.tif"),
        ("audit", "none", "--movie", "m.tif"),
        ("audit", "m.tif", "--movie", "none.tif"),
    ]
    program = (
        "import sys\nfrom sureloc.cli import main\n"
        f"for call in {calls!r}:\n"
        "    sys.argv = ['sureloc', *call]\n"
        "    try:\n        main()\n"
        "    except SystemExit as leaving:\n"
        "        print(leaving.code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["2 False"] * len(calls)
    assert [line.split(" at ")[0] for line in done.stderr.splitlines()] == [
        "sureloc: There is no movie",
        "sureloc: There is no camera file",
        "sureloc: There is no movie",
        "sureloc: There is no run or table",
        "sureloc: There is no movie",
    ]


def weights(folder, content=None, card=None, name="w.safetensors"):
    if content is not None:
        (folder / name).write_bytes(content)
    if card is not None:
        (folder / name).with_suffix(".json").write_text(card)
    return folder / name


def shipped(suffix):
    return (WEIGHTS / f"fast.{suffix}").read_bytes()


def another_card():
    card = json.loads(shipped("json"))
    card["phi"]["width"] *= 2
    return json.dumps(card)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda d: weights(d, pickle.dumps({}), name="w.pt"), ("no .safetensors file", "export")),
        (lambda d: weights(d, b"rubbish" * 9, "{}"), ("is none", "export")),
        (lambda d: weights(d, pickle.dumps({"a": 1}), "{}"), ("is none", "export")),
        (lambda d: weights(d, shipped("safetensors")[:9999], "{}"), ("is none", "export")),
        (lambda d: weights(d, shipped("safetensors")), ("card w.json", "both are needed")),
        (lambda d: weights(d), ("no weights at", "w.safetensors", "spelling")),
        (lambda d: weights(d, shipped("safetensors"), "no JSON"), ("card of", "JSON")),
        (lambda d: weights(d, shipped("safetensors"), '{"a": 1}'), ("card of", "name", "a:")),
        (lambda d: weights(d, shipped("safetensors"), another_card()), ("fit its card", "shape")),
    ],
)
def test_weights_that_cannot_be_used_run_no_code_and_leave_nothing(make, words, tmp_path, capfd):
    path = make(tmp_path)
    movie = tiff(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code = run("localize", movie, "--out", tmp_path / "out", "-q", "--weights", path)
    said = capfd.readouterr().err
    assert code == 2
    assert said.count("\n") == 1
    for word in words:
        assert word.lower() in said.lower()
    assert sorted(tmp_path.rglob("*")) == before


def test_saturated_frames_are_said_and_their_rows_marked(tmp_path, capsys):
    data = frames(4)
    data[1, 8:10, 7] = data[3] = 65535
    (tmp_path / "c.yaml").write_text("offset_adu: 100\ngain_adu_per_e: 2.0\nvariance_adu2: 9.0\n")
    out = tmp_path / "out"
    code = run(
        *("localize", tiff(tmp_path, data), "--out", out, "-q", "--sigma-px", "1.2"),
        *("--camera", tmp_path / "c.yaml"),
    )
    assert code in (0, 3)
    assert "2 of 4 frames hold saturated pixels" in capsys.readouterr().out
    table = pd.read_parquet(out / "localizations.parquet")
    assert list(table.groupby("frame").size()[[0, 1, 2]]) == [3, 3, 3]
    beside = (table["frame"] == 1) & (np.hypot(table["x_nm"] - 700, table["y_nm"] - 900) < 150)
    marked = beside | (table["frame"] == 3)
    assert list(table["trusted"]) == list(~marked)
    assert set(table["reason"][marked]) == {"saturated or dead pixels nearby"}
    assert "frames with saturated pixels" in (out / "report.html").read_text(encoding="utf-8")
