"""`sureloc drift`, `link` and `filter`: from a run or any table to tables that remember."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tifffile
from matplotlib.axes import Axes

from sureloc.io.exchange.formats import FORMATS, write_localizations
from sureloc.io.exchange.localizations import Geometry, Localizations
from sureloc.io.sources import read_source
from sureloc.io.tables import (
    read_provenance,
    read_table,
    write_table,
)
from sureloc.seeds import numpy_generator
from sureloc.table import DRAW_COLUMNS, DRIFT_COLUMNS, LINK_COLUMNS, LOCALIZATION_COLUMNS, Column
from test_drift import blinking, rows_at, walked

Z = {"68": 0.994458, "95": 1.959964}


def localizations(seed=0):
    rng = np.random.default_rng(seed)
    path = walked(rng, frames=600)
    table = blinking(rng, path, molecules=120).drop(columns=["x_true", "y_true", "molecule"])
    rows = len(table)
    table = table.assign(
        sigma_photons=30.0,
        background_photons=8.0,
        p_exists=rng.uniform(0.5, 1, rows),
        crlb_x_nm=table["sigma_x_nm"],
        crlb_y_nm=table["sigma_y_nm"],
        chi2=1.0,
        trusted=rng.random(rows) < 0.9,
    )
    table["reason"] = np.where(table["trusted"], "", "crowded")
    names = [column.name for column in LOCALIZATION_COLUMNS]
    return table[names].sort_values("frame", ignore_index=True)


GEOMETRY = Geometry(100.0, 60, 64, 600, 130.0, region_px=((0, 60), (0, 56)))
PROVENANCE = {
    **{"movie": "movie.tif", "seed": 7, "pixel_nm": 100.0},
    "geometry": json.loads(json.dumps(asdict(GEOMETRY))),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    table = localizations()
    write_table(table, folder / "localizations.parquet", LOCALIZATION_COLUMNS, PROVENANCE)
    rng = numpy_generator(3, "draws")
    draws = pd.concat(
        pd.DataFrame(
            {
                "draw": k,
                "frame": table["frame"],
                "x_nm": table["x_nm"] + rng.normal(0, 8, len(table)),
                "y_nm": table["y_nm"],
                "photons": 900.0,
            }
        )
        for k in range(3)
    )
    write_table(draws, folder / "draws.parquet", DRAW_COLUMNS, PROVENANCE)
    (folder / "run.json").write_text(json.dumps({"assumed": {"sigma_px": [1.3, 1.3]}}))
    return folder


def test_a_run_goes_through_all_three_and_remembers_each(run, sureloc, tmp_path):
    code, said, error = sureloc("drift", run, "--out", tmp_path / "still", "--segments", 6)
    assert (code, error) == (0, "")
    assert "from 15 pairs of 6 stretches" in said
    still = tmp_path / "still"
    assert sorted(p.name for p in still.iterdir()) == [
        *("draws.parquet", "drift.csv", "drift.png", "localizations.csv"),
        *("localizations.parquet", "run.json"),
    ]
    before = read_table(run / "localizations.parquet", LOCALIZATION_COLUMNS)
    after = read_table(still / "localizations.parquet", (*LOCALIZATION_COLUMNS, *DRIFT_COLUMNS))
    drift = pd.read_csv(still / "drift.csv").set_index("frame")
    np.testing.assert_allclose(
        before["x_nm"] - after["x_nm"], drift["x_nm"][after["frame"]], atol=1e-3
    )
    assert (after["sigma_x_nm"] >= before["sigma_x_nm"]).all()
    csv = read_source(still / "localizations.csv", 100.0).table
    for column in ("y_nm", "sigma_x_nm", "sigma_y_nm", "p_exists", "trusted"):
        np.testing.assert_allclose(csv[column], after[column], atol=1e-4)
    np.testing.assert_allclose(csv["psf_sigma_x_nm"], 130.0)

    code, said, _ = sureloc("link", still, "--out", tmp_path / "linked.parquet", "--gap", 2)
    assert code == 0
    assert "displacement over stated precision" in said
    code, said, _ = sureloc(
        *("filter", tmp_path / "linked.parquet", "rows > 1 and sigma_x_nm < 12"),
        *("--out", tmp_path / "few.parquet"),
    )
    assert code == 0
    linked = pq.read_table(tmp_path / "linked.parquet").to_pandas()
    few = pq.read_table(tmp_path / "few.parquet").to_pandas()
    expected = linked.query("rows > 1 and sigma_x_nm < 12").reset_index(drop=True)
    pd.testing.assert_frame_equal(few, expected)
    assert f"{len(few):,} of {len(linked):,} rows" in said
    provenance = read_provenance(tmp_path / "few.parquet")
    steps = provenance.pop("steps")
    assert provenance == PROVENANCE
    assert [step["step"] for step in steps] == ["drift", "link", "filter"]
    assert [step["command"].split()[1] for step in steps] == ["drift", "link", "filter"]
    assert steps[2]["rows"] == len(few)
    assert [s["step"] for s in read_provenance(still / "draws.parquet")["steps"]] == ["drift"]
    field = pq.read_schema(tmp_path / "few.parquet").field("link_chi2")
    assert field.metadata[b"meaning"].decode() == LINK_COLUMNS[2].meaning


def test_pictures_after_any_step_lie_on_that_of_the_run(run, sureloc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (
        ("filter", run, "frame < 300", "--out", "early.parquet"),
        ("filter", run, "frame >= 300", "--out", "late_sml.mat"),
        ("convert", "late_sml.mat", "late.parquet"),
        ("filter", "late.parquet", "photons > 0", "--out", "late.hdf5"),
        ("link", run, "--out", "linked.parquet"),
        ("drift", run, "--out", "still", "--segments", 5),
        ("filter", "still", "frame < 9", "--out", "few.parquet"),
    ):
        assert sureloc(*words)[0] == 0

    def drawn(name):
        code, said, _ = sureloc("render", name, "--out", "out.tif", "--kind", "histogram")
        assert (code, "Nothing says" in said) == (0, False)
        image = tifffile.imread("out.tif")
        Path("out.tif").unlink()
        return image

    whole = drawn(run)
    assert whole.shape == (600, 560)
    assert whole.sum() == len(read_source(run).table)
    for late in ("late_sml.mat", "late.parquet"):
        # What was left out and what was kept add up, pixel by pixel.
        np.testing.assert_array_equal(drawn("early.parquet") + drawn(late), whole)
    for name in ("late.hdf5", "linked.parquet", "still", "few.parquet"):
        assert drawn(name).shape == whole.shape


def test_every_step_says_once_that_the_pixel_size_was_assumed(run, sureloc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assumed = {**PROVENANCE, "pixel_size_from": "assumed"}
    shutil.copytree(run, "run")
    for name, columns in (("localizations", LOCALIZATION_COLUMNS), ("draws", DRAW_COLUMNS)):
        table = read_table(run / f"{name}.parquet", columns)
        Path("run", f"{name}.parquet").unlink()
        write_table(table, Path("run", f"{name}.parquet"), columns, assumed)
    for words in (
        ("drift", "run", "--out", "still", "--segments", 5),
        ("link", Path("still", "localizations.parquet"), "--out", "linked.parquet"),
        ("filter", "linked.parquet", "photons > 0", "--out", "few.parquet"),
        ("render", "few.parquet", "--out", "few.tif", "--kind", "histogram"),
        ("resolution", "still", "--resamples", 20),
        ("audit", "run", "--out", "audited"),
    ):
        code, said, _ = sureloc(*words)
        assert code in (0, 3), words
        assert said.count("100 nm were taken, and all lengths scale with it") == 1, words


def test_draws_are_moved_each_by_its_own_drift_and_again_by_the_same(run, sureloc, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        sureloc("drift", run, "--out", tmp_path / name, "--segments", 5, "--seed", seed)
    a, b, c = (read_table(tmp_path / name / "draws.parquet", DRAW_COLUMNS) for name in "abc")
    pd.testing.assert_frame_equal(a, b)
    assert not np.allclose(a["x_nm"], c["x_nm"])
    before = read_table(run / "draws.parquet", DRAW_COLUMNS)
    drift = pd.read_csv(tmp_path / "a" / "drift.csv").set_index("frame")
    apart = before["x_nm"] - a["x_nm"] - drift["x_nm"][a["frame"]].to_numpy()
    spread = apart.groupby(a["draw"]).mean()
    assert spread.std() > 0.1
    assert np.abs(spread).max() < 5 * drift["sigma_x_nm"].max()


def test_drift_says_when_there_is_none(sureloc, tmp_path, monkeypatch):
    rng = np.random.default_rng(4)
    frame = np.arange(200)
    table = rows_at(rng, np.full((200, 2), 900.0), frame, np.zeros((200, 2)), (2.0, 4.0))
    plain = Localizations(table.drop(columns=["x_true", "y_true"]), Geometry(100.0))
    write_localizations(plain, tmp_path / "t.csv")
    titles, set_title = [], Axes.set_title
    monkeypatch.setattr(
        Axes, "set_title", lambda self, text, **k: titles.append(text) or set_title(self, text, **k)
    )
    _, out, _ = sureloc(
        *("drift", tmp_path / "t.csv", "--pixel-nm", 100, "--out", tmp_path / "still"),
        *("--method", "fiducials"),
    )
    assert "from 1 fiducial; no drift beyond its uncertainty" in out
    assert "dots: the fiducial" in titles[0]


def test_drift_says_what_its_csv_lacks(sureloc, tmp_path):
    """A row that others cannot import, and the whole CSV where no pixel size is known."""
    table = localizations()
    table.loc[5, "sigma_x_nm"] = np.nan
    for name, geometry in (("known", GEOMETRY), ("unknown", replace(GEOMETRY, pixel_nm=None))):
        provenance = {"geometry": json.loads(json.dumps(asdict(geometry)))}
        path = tmp_path / f"{name}.parquet"
        write_table(table, path, LOCALIZATION_COLUMNS, provenance)
        code, said, _ = sureloc("drift", path, "--out", tmp_path / name, "--segments", 5)
        assert code == 0
        wanted = {
            "known": f"1 of {len(table):,} rows hold values that are not finite (sigma_x_nm)",
            "unknown": "The pixel size is not known, so there is no localizations.csv.",
        }
        assert [text in said for text in wanted.values()] == [name == n for n in wanted]
        assert (tmp_path / name / "localizations.csv").exists() == (name == "known")


def test_a_csv_of_thunderstorm_goes_in_and_out(sureloc, tmp_path):
    table = localizations()
    write_localizations(Localizations(table, GEOMETRY), tmp_path / "t.csv")
    code, _, error = sureloc("drift", tmp_path / "t.csv", "--out", tmp_path / "x")
    assert code == 2
    assert "--pixel-nm" in error
    pixel = ("--pixel-nm", 100)
    code, *_ = sureloc(
        "drift", tmp_path / "t.csv", "--out", tmp_path / "still", "--segments", 5, *pixel
    )
    assert code == 0
    still = read_source(tmp_path / "still" / "localizations.csv", 100.0).table
    assert len(still) == len(table)
    np.testing.assert_allclose(still["psf_sigma_x_nm"], 130.0)
    code, *_ = sureloc(
        "filter", tmp_path / "t.csv", "photons > 1", "--out", tmp_path / "same.csv", *pixel
    )
    assert code == 0
    # All columns come back to the file's five decimals, of which the last is rounded twice.
    first, again = (pd.read_csv(tmp_path / name) for name in ("t.csv", "same.csv"))
    pd.testing.assert_frame_equal(first, again, rtol=0, atol=2e-5)
    code, said, _ = sureloc("link", tmp_path / "t.csv", "--out", tmp_path / "l.parquet", *pixel)
    assert code == 0
    assert "cannot say which part of a precision is drift's" in said
    code, said, _ = sureloc("link", tmp_path / "still", "--out", tmp_path / "m.parquet")
    assert code == 0
    assert "drift's" not in said
    assert read_provenance(tmp_path / "l.parquet")["read_from"] == "t.csv"


@pytest.mark.parametrize("command", ["link", "drift", "audit", "render"])
def test_a_table_without_a_precision_is_told_how_to_get_one(sureloc, tmp_path, command):
    plain = pd.DataFrame({"frame": np.arange(20), "x_nm": np.arange(20.0), "y_nm": 0.0})
    write_localizations(Localizations(plain, Geometry(100.0)), tmp_path / "plain.parquet")
    out = tmp_path / {"link": "l.parquet", "render": "r.png"}.get(command, "new")
    code, said, error = sureloc(command, tmp_path / "plain.parquet", "--out", out)
    assert (code, said) == (2, "")
    assert "sureloc convert IN OUT.parquet --uncertainty-nm 10" in error


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("uncertainty", "sigma_x_nm"), ("intensity", "photons"), ("lpx", "sigma_x_nm")],
)
def test_filter_knows_what_other_programs_call_a_column(run, sureloc, tmp_path, theirs, ours):
    code, _, error = sureloc("filter", run, f"{theirs} < 20", "--out", tmp_path / "new.parquet")
    assert code == 2
    assert f"no column '{theirs}' (it is {ours} here); it has" in error


def test_the_csv_of_drift_knows_pixel_size_and_field(run, sureloc, tmp_path):
    still = tmp_path / "still"
    assert sureloc("drift", run, "--out", still, "--segments", 5)[0] == 0
    source = read_source(still / "localizations.csv")
    assert source.data.geometry.field_nm == read_source(run).data.geometry.field_nm
    assert source.pixel_nm == 100.0
    record = json.loads((still / "run.json").read_text())
    assert [step["step"] for step in record["steps"]] == ["drift"]
    assert read_source(still).record["movie"] == "movie.tif"  # all the rest stays known


@pytest.mark.parametrize("command", ["link", "drift", "filter", "convert"])
def test_the_camera_pixel_has_one_name_in_all_commands(sureloc, tmp_path, command):
    write_localizations(Localizations(localizations(), GEOMETRY), tmp_path / "t.csv")
    out = (tmp_path / "new.parquet",) if command == "convert" else ("--out", tmp_path / "n.parquet")
    words = ("photons > 1",) if command == "filter" else ()
    words = ("--segments", 5) if command == "drift" else words
    given = ("--camera-pixel-nm", 100)
    assert sureloc(command, tmp_path / "t.csv", *words, *out, *given)[0] == 0


@pytest.mark.parametrize("name", ["t.parquet", "t.hdf5", "t.h5", "t_sml.mat"])
def test_a_pixel_size_that_contradicts_the_table_is_said(sureloc, tmp_path, name):
    write_localizations(Localizations(localizations(), GEOMETRY), tmp_path / name)
    words = ("filter", tmp_path / name, "photons > 1", "--out")
    said = "was given: 130 nm. The file says 100 nm; what was given is taken."
    assert said in sureloc(*words, tmp_path / "a.parquet", "--camera-pixel-nm", 130)[1]
    assert "was given" not in sureloc(*words, tmp_path / "b.parquet", "--pixel-nm", 101)[1]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_goes_in_and_out(sureloc, tmp_path, name):
    table = localizations().iloc[:300]
    place = tmp_path / f"t{FORMATS[name].suffix}"
    write_localizations(Localizations(table, GEOMETRY), place, name)
    pixel = ("--pixel-nm", 100)
    code, said, _ = sureloc("filter", place, "frame >= 0", "--out", tmp_path / "a.parquet", *pixel)
    assert code == 0
    assert "300 of 300 rows" in said
    kept = read_source(tmp_path / "a.parquet").table
    np.testing.assert_array_equal(kept["frame"], table["frame"])
    for column in ("x_nm", "y_nm"):
        np.testing.assert_allclose(kept[column], table[column], atol=1e-3)
    # A step leaves a table in any format as well, with what the table knows of its camera.
    out = tmp_path / f"out{FORMATS[name].suffix}"
    code, said, _ = sureloc("filter", tmp_path / "a.parquet", "frame >= 0", "--out", out)
    if "sigma_x_nm" in kept or name != "picasso":
        assert code == 0
        back = read_source(out, 100.0).table
        np.testing.assert_allclose(back["x_nm"], table["x_nm"], atol=1e-3)


def test_what_a_format_has_no_place_for_is_said(run, sureloc, tmp_path):
    code, said, _ = sureloc("filter", run, "frame < 9", "--out", tmp_path / "a.hdf5")
    assert code == 0
    assert "Picasso has no place for cov_xy_nm2" in said


def test_the_table_in_a_runs_folder_knows_the_runs_pixels(run, sureloc, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    table = read_source(folder).table
    write_localizations(Localizations(table, GEOMETRY), folder / "localizations.csv")
    for record in ({"pixel_nm": 100.0}, {"pixel_nm": 100.0, "geometry": asdict(GEOMETRY)}):
        (folder / "run.json").write_text(json.dumps(record))
        beside = read_source(folder / "localizations.csv")
        assert beside.pixel_nm == 100.0
        field = GEOMETRY.field_nm if "geometry" in record else None
        assert beside.data.geometry.field_nm == field
    np.testing.assert_allclose(beside.table["x_nm"], table["x_nm"], atol=1e-4)
    (folder / "run.json").write_text("{}")
    code, _, error = sureloc(
        "filter", folder / "localizations.csv", "frame < 9", "--out", tmp_path / "a.csv"
    )
    assert (code, "--pixel-nm 108" in error) == (2, True)
    (folder / "run.json").write_text("{")
    code, _, error = sureloc("filter", folder, "frame < 9", "--out", tmp_path / "a.csv")
    assert (code, "record" in error) == (2, True)


def test_columns_that_sureloc_does_not_know_are_kept(sureloc, tmp_path):
    extra = (
        Column("z_nm", "float64", "nm", "Height."),
        Column("colour", "int64", "", "Channel."),
        Column("note", "str", "", "Anything."),
    )
    table = localizations().assign(z_nm=5.0, colour=2, note="a")
    write_table(table, tmp_path / "t.parquet", (*LOCALIZATION_COLUMNS, *extra), {})
    for command in (("link",), ("filter", "colour == 2 and note == 'a'")):
        out = tmp_path / f"{command[0]}.parquet"
        code, *_ = sureloc(command[0], tmp_path / "t.parquet", *command[1:], "--out", out)
        assert code == 0
        assert set(pq.read_table(out).to_pandas()["note"]) == {"a"}
        assert pq.read_schema(out).field("z_nm").metadata[b"unit"] == b"nm"
    pd.testing.assert_frame_equal(pq.read_table(out).to_pandas(), table)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("filter", "RUN", "sigma_nm < 3", "--out", "OUT.parquet"), "no column 'sigma_nm'"),
        (("filter", "RUN", "trusted", "--out", "OUT.txt"), "no ending of a table"),
        (("filter", "RUN", "trusted", "--out", "OLD.parquet"), "exists already"),
        (("filter", "NO", "trusted", "--out", "OUT.parquet"), "There is no run or table"),
        (("filter", "EMPTY", "trusted", "--out", "OUT.parquet"), "holds no localizations"),
        (("filter", "OLD.parquet", "trusted", "--out", "OUT.parquet"), "cannot be read"),
        (("link", "RUN", "--radius-nm", "wide", "--out", "OUT.parquet"), "'wide'"),
        (("link", "RUN", "--gap", "-1", "--out", "OUT.parquet"), "gap is -1"),
        (("link", "DRAWS", "--out", "OUT.parquet"), "lacks sigma_x_nm"),
        (("drift", "RUN", "--method", "magic", "--out", "OUT"), "must be one of rcc, fiducials"),
        (("drift", "RUN", "--method", "fiducials", "--out", "OUT"), "No spot is seen"),
        (("drift", "RUN", "--segments", "3", "--out", "OUT"), "must lie between 5 and 200"),
        (("drift", "RUN", "--fiducial", "3;4", "--out", "OUT"), "not of the form x,y"),
        (("drift", "RUN", "--pixel-nm", "0.16", "--out", "OUT"), "between 1 and 10000"),
        (("drift", "RUN", "--out", "EMPTY/../OLD.parquet"), "is a file"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(words, message, run, sureloc, tmp_path):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "OLD.parquet").write_text("old")
    places = {"RUN": run, "DRAWS": run / "draws.parquet"}
    at = [
        tmp_path / w if w.split(".")[0].split("/")[0] in ("OUT", "OLD", "NO", "EMPTY") else w
        for w in (places.get(w, w) if isinstance(w, str) else w for w in words)
        for w in [w if not isinstance(w, Path) else str(w)]
    ]
    code, said, error = sureloc(*at)
    assert (code, said) == (2, "")
    assert message in error
    assert error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["EMPTY", "OLD.parquet"]
    assert (tmp_path / "OLD.parquet").read_text() == "old"


def test_nothing_is_left_when_writing_fails(run, sureloc, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sureloc.report.drift.draw_drift", full)
    code, _, error = sureloc("drift", run, "--out", tmp_path / "new", "--segments", 5)
    assert code == 1
    assert "No space left" in error
    assert list(tmp_path.iterdir()) == []


def test_a_table_without_rows_is_told_of(run, sureloc, tmp_path):
    out = tmp_path / "none.parquet"
    code, said, error = sureloc("filter", run, "sigma_x_nm < 0", "--out", out)
    assert (code, pq.read_table(out).num_rows) == (0, 0)
    assert "0 of " in said
    assert "no row satisfies 'sigma_x_nm < 0'" in error
    for command, name in (("link", "a.parquet"), ("render", "a.png"), ("drift", "a")):
        code, said, error = sureloc(command, out, "--out", tmp_path / name)
        assert (code, said) == (2, "")
        assert "The table has no rows; there is nothing to" in error
    assert list(tmp_path.iterdir()) == [out]
