"""Tables between programs: positions, frames and errors survive, and what cannot is counted."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.io import savemat

from sureloc.analysis.linking import link_rows
from sureloc.errors import InputError, OutputError
from sureloc.io.convert import Changes, convert_table
from sureloc.io.exchange.formats import (
    FORMATS,
    format_of_file,
    read_localizations,
    write_localizations,
)
from sureloc.io.exchange.localizations import Geometry, Localizations, Reading
from sureloc.io.exchange.names import format_to_write
from sureloc.io.exchange.thunderstorm import ThunderstormWriter
from sureloc.io.tables import read_provenance, read_table, write_table
from sureloc.table import DRAW_COLUMNS, LOCALIZATION_COLUMNS, TRUTH_COLUMNS

NM = 108.0
WHOLE = Geometry(NM, 512, 300, 40, 130.0)
GIVEN = Reading(Geometry(NM))


def example(rows=200, seed=1):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "frame": np.sort(rng.integers(0, 40, rows)),
            "x_nm": rng.uniform(0, 511.9 * NM, rows),
            "y_nm": rng.uniform(0, 299.9 * NM, rows),
            "sigma_x_nm": rng.uniform(1, 30, rows),
            "sigma_y_nm": rng.uniform(1, 30, rows),
            "photons": rng.uniform(50, 5000, rows),
            "sigma_photons": rng.uniform(5, 200, rows),
            "background_photons": rng.uniform(0, 30, rows),
            "p_exists": rng.uniform(0.5, 1, rows),
            "trusted": rng.random(rows) < 0.9,
        }
    )


def place(folder, name):
    return folder / f"table{FORMATS[name].suffix}"


# --- There and back -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rows", [0, 1, 200])
def test_every_format_gives_back_what_it_was_given(tmp_path, name, rows):
    table = example(rows)
    written = write_localizations(Localizations(table, WHOLE), place(tmp_path, name), name)
    assert written.rows == rows
    assert format_of_file(place(tmp_path, name)).name == name
    back = read_localizations(place(tmp_path, name), GIVEN).table
    np.testing.assert_array_equal(back["frame"], table["frame"])
    for column in ("x_nm", "y_nm"):
        np.testing.assert_allclose(back[column], table[column], rtol=0, atol=1e-3)
    lost = {"challenge": set(table) - {"frame", "x_nm", "y_nm", "photons"}}
    lost |= {name: {"trusted"} for name in ("decode", "decode-csv")}
    for column in set(table) - lost.get(name, set()) - {"frame", "x_nm", "y_nm"}:
        np.testing.assert_allclose(back[column], table[column], rtol=1e-6, atol=1e-5)
    if rows:
        said = " ".join(written.notes)
        assert all(column in said for column in lost.get(name, ()))


@pytest.mark.parametrize("name", FORMATS)
def test_three_dimensions_and_widths_survive_where_there_is_a_place(tmp_path, name):
    rng = np.random.default_rng(2)
    table = example(50).drop(columns="trusted")
    for column, low, high in (
        ("z_nm", -500, 500),
        ("sigma_z_nm", 5, 60),
        ("psf_sigma_x_nm", 100, 200),
        ("psf_sigma_y_nm", 100, 200),
    ):
        table[column] = rng.uniform(low, high, 50)
    write_localizations(Localizations(table, WHOLE), place(tmp_path, name), name)
    back = read_localizations(place(tmp_path, name), GIVEN).table
    held = {"challenge": {"z_nm"}, "decode": {"z_nm", "sigma_z_nm"}}
    held["decode-csv"] = held["decode"]
    for column in held.get(name, {"z_nm", "sigma_z_nm", "psf_sigma_x_nm", "psf_sigma_y_nm"}):
        np.testing.assert_allclose(back[column], table[column], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_a_linked_table_keeps_how_many_rows_were_merged(tmp_path, name):
    rng = np.random.default_rng(4)
    table = example(50).assign(rows=rng.integers(1, 9, 50))
    table["last_frame"] = table["frame"] + table["rows"] + rng.integers(0, 3, 50) - 1
    written = write_localizations(Localizations(table, WHOLE), place(tmp_path, name), name)
    back = read_localizations(place(tmp_path, name), GIVEN).table
    lost = {"sureloc": (), "picasso": (), "decode": ("last_frame", "rows")}
    lost |= dict.fromkeys(("decode-csv", "challenge"), lost["decode"])
    for column in ("last_frame", "rows"):
        kept = column not in lost.get(name, ("last_frame",))
        assert kept == (column in back)
        assert kept != any("no place for" in n and column in n for n in written.notes)
        if kept:
            np.testing.assert_array_equal(back[column], table[column])
    if "rows" in back:
        with pytest.raises(InputError, match="linked before"):
            link_rows(back)


def test_how_long_picasso_saw_a_molecule_counts_from_its_first_frame(tmp_path):
    table = example(2).assign(frame=[0, 7], last_frame=[4, 7], rows=[3, 1])
    write_localizations(Localizations(table, WHOLE), tmp_path / "t.hdf5")
    with h5py.File(tmp_path / "t.hdf5", "r+") as file:
        records = file["locs"][()]
        # As postprocess.link counts: dark frames in between are in len, not in n.
        assert (records["len"].tolist(), records["n"].tolist()) == ([5, 1], [3, 1])
        records["frame"] += 1
        file["locs"][...] = records
    back = read_localizations(tmp_path / "t.hdf5", Reading(first_frame=1)).table
    assert back[["frame", "last_frame", "rows"]].to_numpy().tolist() == [[0, 4, 3], [7, 7, 1]]


@pytest.mark.parametrize(("groups", "merged"), [((1, 2, 0), True), ((1, 1, 2), False)])
def test_rows_that_smap_has_grouped_are_told_from_merged_ones(tmp_path, groups, merged):
    loc = {"frame": [[5], [6], [9]], "xnm": [[300.0], [301.0], [50.0]], "ynm": [[9.0]] * 3}
    loc |= {"groupindex": [[g] for g in groups], "numberInGroup": [[2], [2], [1]]}
    savemat(tmp_path / "t_sml.mat", {"saveloc": {"loc": loc}})
    text = "\n".join(",".join(str(c[i][0]) for c in loc.values()) for i in range(3))
    (tmp_path / "t.csv").write_text(",".join(loc) + "\n" + text + "\n")
    for name in ("t_sml.mat", "t.csv"):
        found = read_localizations(tmp_path / name, Reading())
        assert ("rows" in found.table) == merged
        unread = "groupindex" if merged else "groupindex, numberInGroup"
        assert found.notes == (f"Columns that mean nothing to sureloc were not read: {unread}.",)


def test_the_steps_of_picasso_stay_with_the_table(tmp_path):
    """One document a step, as Picasso reads them; through Parquet as well."""
    first = {"Generated by": "Picasso Localize", "Width": 512, "Height": 300, "Frames": 40}
    steps = [first, {"Generated by": "Picasso Filter", "x": [1.5, 9]}, {"Pixelsize": NM}]
    path = tmp_path / "in_locs.hdf5"
    write_localizations(Localizations(example(5), WHOLE), path)
    with h5py.File(path, "r+") as file:
        del file["metadata"]
    text = yaml.safe_dump_all([*steps, ["no mapping"]]) + "---\nDate: 2024-05-17\n"
    path.with_suffix(".yaml").write_text(text)
    steps.append({"Date": "2024-05-17"})
    found = read_localizations(path, Reading())
    assert found.provenance == {"read_from": "in_locs.hdf5", "picasso": steps}
    convert_table(path, tmp_path / "a.parquet", Reading(), Changes())
    assert read_provenance(tmp_path / "a.parquet")["picasso"] == steps
    for source, name in ((path, "direct"), (tmp_path / "a.parquet", "round")):
        out = tmp_path / f"{name}.hdf5"
        convert_table(source, out, Reading(), Changes())
        written = list(yaml.safe_load_all(out.with_suffix(".yaml").read_text()))
        with h5py.File(out) as file:
            assert json.loads(file["metadata"][()]) == written
        assert written[:-1] == steps
        assert written[-1]["Generated by"].startswith("sureloc")
        assert read_localizations(out, Reading()).geometry == replace(WHOLE, psf_sigma_nm=None)


def test_the_first_step_has_what_picasso_looks_for_there(tmp_path):
    data = Localizations(example(5), WHOLE, provenance={"picasso": [{"Generated by": "me"}, 3]})
    write_localizations(data, tmp_path / "t.hdf5")
    first, last = yaml.safe_load_all((tmp_path / "t.yaml").read_text())
    assert first == {"Width": 512, "Height": 300, "Frames": 40, "Generated by": "me"}
    assert last["Pixelsize"] == NM


@pytest.mark.parametrize(("sigma_z", "kept"), [([30.0, np.nan], True), ([0.0, np.nan], False)])
def test_errors_of_z_stay_where_all_of_z_is_0(tmp_path, sigma_z, kept):
    table = example(2).assign(z_nm=0.0, sigma_z_nm=sigma_z)
    for name in ("smap-csv", "decode", "thunderstorm"):
        write_localizations(Localizations(table, WHOLE), place(tmp_path, name), name)
        back = read_localizations(place(tmp_path, name), GIVEN).table
        assert ("z_nm" in back, "sigma_z_nm" in back) == (kept, kept)
        if kept:
            np.testing.assert_array_equal(back["sigma_z_nm"], sigma_z)
        place(tmp_path, name).unlink()


@pytest.mark.parametrize(
    ("unit", "nm"), [("nm", 1.0), ("um", 1e3), ("\u00b5m", 1e3), ("\u03bcm", 1e3), ("px", 100.0)]
)
def test_lengths_of_thunderstorm_are_read_in_the_unit_that_they_say(tmp_path, unit, nm):
    names = ("x", "y", "z", "sigma", "uncertainty_xy", "uncertainty_z")
    values = (*CORNER, -40.0, 130.0, 12.0, 30.0)
    header = ",".join(f'"{name} [{unit}]"' for name in names)
    numbers = ",".join(str(value / nm) for value in values)
    (tmp_path / "t.csv").write_text(f'"frame",{header},"intensity [photon]"\n5,{numbers},900\n')
    data, row = one_row(tmp_path / "t.csv")
    assert data.notes == ()
    assert row[["x_nm", "y_nm", "z_nm"]].tolist() == pytest.approx([*CENTRE, -40.0])
    assert row[["psf_sigma_y_nm", "sigma_y_nm", "sigma_z_nm"]].tolist() == pytest.approx(
        [130, 12, 30]
    )
    assert (row["frame"], row["photons"]) == (4, 900)


def test_lengths_of_several_units_are_each_read_in_their_own(tmp_path):
    text = f'"frame","x [px]","y [um]","x [nm]","uncertainty [nm]"\n5,9,{CORNER[1] / 1e3},350,7\n'
    (tmp_path / "t.csv").write_text(text)
    _, row = one_row(tmp_path / "t.csv")
    assert row[["x_nm", "y_nm", "sigma_x_nm"]].tolist() == pytest.approx([*CENTRE, 7])
    (tmp_path / "t.csv").write_text('"frame","x [m]","y [m]"\n5,1e-6,1e-6\n')
    with pytest.raises(
        InputError, match=r"x \[nm\], \[um\] or \[px\].* in the unit that these say"
    ):
        one_row(tmp_path / "t.csv")


def test_a_flat_sample_has_no_z(tmp_path):
    for name in ("challenge", "decode", "smap-csv"):
        write_localizations(Localizations(example(), WHOLE), place(tmp_path, name), name)
        assert "z_nm" not in read_localizations(place(tmp_path, name), GIVEN).table
        place(tmp_path, name).unlink()


def test_bounds_of_decode_are_variances_in_the_file(tmp_path):
    table = example().assign(crlb_x_nm=7.0, crlb_y_nm=5.0, crlb_photons=30.0)
    write_localizations(Localizations(table, WHOLE), tmp_path / "t.h5")
    with h5py.File(tmp_path / "t.h5") as file:
        np.testing.assert_allclose(file["data/xyz_cr"][0], [25.0, 49.0, np.nan])
        np.testing.assert_allclose(file["data/phot_cr"][0], 900.0)
        assert file["data/bg_cr"].shape is None
    back = read_localizations(tmp_path / "t.h5", Reading()).table
    assert back["crlb_x_nm"].tolist() == [7.0] * 200
    assert back["crlb_photons"].tolist() == [30.0] * 200


# --- Files as others write them: every convention by hand ----------------------------------------

# One molecule 3 pixels right of and 2 pixels below the centre of the first pixel, in the fifth
# frame, for pixels of 100 nm.
CORNER, CENTRE = (350.0, 250.0), (300.0, 200.0)
TEXTS = {
    "thunderstorm": (
        '"id","frame","x [nm]","y [nm]","sigma [nm]","intensity [photon]","offset [photon]",'
        f'"bkgstd [photon]","uncertainty [nm]"\n1,5,{CORNER[0]},{CORNER[1]},130,900,10,3,12\n'
    ),
    "smap-csv": (
        f"ID,frame,xnm,ynm,znm,phot,bg,locprecnm \n1, 5, {CENTRE[0]}, {CENTRE[1]}, 0, 900, 10, 12\n"
    ),
    "challenge": (
        f"Ground-truth,frame,xnano,ynano,znano,intensity \n1, 5, {CORNER[0]}, {CORNER[1]}, 0, 900\n"
    ),
    "decode-csv": (
        '# DECODE EmitterSet\n# {"version": "v0.10"}\n# {"xy_unit": "px", "px_size": [100, 100]}\n'
        "x,y,z,phot,frame_ix,id,prob,bg,phot_cr,bg_cr,phot_sig,bg_sig,x_cr,y_cr,z_cr,x_sig,y_sig,"
        "z_sig\n2.0,3.0,0.0,900,4,-1,0.9,10,nan,nan,30,nan,nan,nan,nan,0.12,0.12,1\n"
    ),
}


def one_row(path):
    data = read_localizations(path, Reading(Geometry(100.0)))
    assert len(data.table) == 1
    return data, data.table.iloc[0]


@pytest.mark.parametrize("name", TEXTS)
def test_text_of_every_program_is_understood(tmp_path, name):
    path = tmp_path / "t.csv"
    path.write_text(TEXTS[name])
    assert format_of_file(path).name == name
    data, row = one_row(path)
    assert row["frame"] == 4
    assert (row["x_nm"], row["y_nm"]) == pytest.approx(CENTRE)
    assert row["photons"] == 900
    if name != "challenge":
        assert row["sigma_x_nm"] == row["sigma_y_nm"] == pytest.approx(12)
        assert row["background_photons"] == 10
    assert data.notes == ()


def test_picasso_files_are_understood_with_yaml_or_embedded_metadata(tmp_path):
    names = ("x", "y", "photons", "sx", "sy", "bg", "lpx", "lpy", "ellipticity", "net_gradient")
    records = np.array(
        [(4, 3.0, 2.0, 900, 1.3, 1.3, 10, 0.12, 0.2, 0.0, 5000, 2)],
        dtype=[("frame", "u4")] + [(name, "f4") for name in names] + [("group", "i4")],
    )
    path = tmp_path / "t_locs.hdf5"
    info = [{"Width": 64, "Height": 32, "Frames": 9}, {"Pixelsize": 100}]
    for embedded in (False, True):
        with h5py.File(path, "w") as file:
            file["locs"] = records
            if embedded:
                file["metadata"] = json.dumps(info)
        path.with_suffix(".yaml").unlink(missing_ok=True)
        if not embedded:
            path.with_suffix(".yaml").write_text(yaml.safe_dump_all(info))
        data = read_localizations(path, Reading())
        row = data.table.iloc[0]
        assert data.geometry == Geometry(100.0, 64, 32, 9)
        assert (row["frame"], row["x_nm"], row["y_nm"]) == pytest.approx((4, *CENTRE))
        assert (row["sigma_x_nm"], row["sigma_y_nm"]) == pytest.approx((12, 20))
        assert data.notes == ("Columns that mean nothing to sureloc were not read: group.",)
    path.with_suffix(".yaml").unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        file["locs"] = records
    with pytest.raises(InputError, match="--pixel-nm"):
        read_localizations(path, Reading())


@pytest.mark.parametrize("unit", ["px", "nm"])
def test_decode_files_are_understood_in_both_units(tmp_path, unit):
    scale = 1.0 if unit == "px" else 100.0
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        file.create_group("meta").attrs.update({"xy_unit": unit, "px_size": [100.0, 100.0]})
        file.create_group("decode").attrs["version"] = "v0.10.1"
        data = file.create_group("data")
        data["xyz"] = np.array([[2.0 * scale, 3.0 * scale, 40.0]], np.float32)  # x is along rows
        data["xyz_sig"] = np.array([[0.2 * scale, 0.12 * scale, 30.0]], np.float32)
        data["frame_ix"] = np.array([4])
        data["phot"], data["prob"] = np.array([900.0]), np.array([0.75])
        for name in ("xyz_cr", "phot_cr", "phot_sig", "bg", "bg_cr", "bg_sig"):
            data[name] = h5py.Empty("f")
        data["id"] = np.array([-1])
    row = read_localizations(path, Reading()).table.iloc[0]
    assert (row["frame"], row["x_nm"], row["y_nm"]) == pytest.approx((4, *CENTRE))
    assert (row["sigma_x_nm"], row["sigma_y_nm"]) == pytest.approx((12, 20))
    assert (row["z_nm"], row["sigma_z_nm"], row["p_exists"]) == pytest.approx((40, 30, 0.75))
    assert "crlb_x_nm" not in row


@pytest.mark.parametrize("owner", ["info", "file"])
def test_old_matlab_files_are_understood(tmp_path, owner):
    loc = {"frame": [[5]], "xnm": [[300.0]], "ynm": [[200.0]], "phot": [[900.0]], "bg": [[10.0]]}
    loc |= {"locprecnm": [[12.0]], "locprecznm": [[30.0]], "LLrel": [[-0.5]]}
    # Of a part of the chip SMAP gives the part's own width and height, and the chip's positions.
    info = {"cam_pixelsize_um": [[0.1, 0.1]], "Width": [[32]], "Height": [[24]]}
    info |= {"roi": [[100, 50, 32, 24]]}
    about = {"info": info} if owner == "info" else {"file": {"info": info}}
    savemat(tmp_path / "t_sml.mat", {"saveloc": {"loc": loc, **about}})
    data = read_localizations(tmp_path / "t_sml.mat", Reading())
    row = data.table.iloc[0]
    assert (row["frame"], row["x_nm"], row["y_nm"]) == pytest.approx((4, *CENTRE))
    assert row["sigma_x_nm"] == row["sigma_y_nm"] == 12
    assert data.geometry == Geometry(100.0, 132, 74, region_px=((50, 74), (100, 132)))
    assert data.notes == ("Columns that mean nothing to sureloc were not read: LLrel.",)


def test_smap_files_carry_what_matlab_looks_for(tmp_path):
    write_localizations(Localizations(example(), WHOLE), tmp_path / "t_sml.mat")
    head = (tmp_path / "t_sml.mat").read_bytes()[:128]
    assert head.startswith(b"MATLAB 7.3 MAT-file")
    assert head[124:] == b"\x00\x02IM"
    with h5py.File(tmp_path / "t_sml.mat") as file:
        assert file["saveloc"].attrs["MATLAB_class"] == b"struct"
        assert file["saveloc/loc/xnm"].attrs["MATLAB_class"] == b"double"
        assert file["saveloc/loc/xnm"].shape == (1, 200)  # a column, as MATLAB stores it
        np.testing.assert_allclose(file["saveloc/info/cam_pixelsize_um"][()], 0.108)
        np.testing.assert_array_equal(file["saveloc/loc/frame"][0], example()["frame"] + 1)


def test_the_same_table_gives_the_same_file(tmp_path):
    for name in FORMATS:
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "b").mkdir(exist_ok=True)
        for folder in "ab":
            write_localizations(
                Localizations(example(), WHOLE), place(tmp_path / folder, name), name
            )
        first, second = (place(tmp_path / folder, name).read_bytes() for folder in "ab")
        assert first == second
        for folder in "ab":
            place(tmp_path / folder, name).unlink()
            place(tmp_path / folder, name).with_suffix(".yaml").unlink(missing_ok=True)


def rows_of_a_run(rows):
    rng = np.random.default_rng(3)
    return example(rows).assign(
        **{
            column.name: rng.uniform(1, 9, rows) if column.dtype == "float64" else ""
            for column in LOCALIZATION_COLUMNS
            if column.name not in example(1)
        }
    )


@pytest.mark.parametrize("rows", [0, 500])
def test_a_table_written_as_it_grows_is_the_one_written_at_once(tmp_path, rows):
    frame = Geometry(100.0, psf_sigma_nm=130.0, read_variance_photons2=9.0, variance_per_photon=2.5)
    table = rows_of_a_run(rows)
    with ThunderstormWriter(tmp_path / "grown.csv", frame) as writer:
        for part in (table.iloc[:200], table.iloc[200:200], table.iloc[200:]):
            writer.append(part)
    assert writer.rows == rows
    write_localizations(Localizations(table, frame), tmp_path / "whole.csv")
    assert (tmp_path / "grown.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    raw = pd.read_csv(tmp_path / "grown.csv", dtype=float)
    assert list(raw) == [
        *("id", "frame", "x [nm]", "y [nm]", "sigma [nm]", "intensity [photon]"),
        *("offset [photon]", "bkgstd [photon]", "uncertainty_xy [nm]", "uncertainty_x [nm]"),
        *("uncertainty_y [nm]", "sigma_photons", "p_exists", "trusted"),
    ]
    assert raw["id"].tolist() == list(range(1, rows + 1))
    np.testing.assert_array_equal(raw["frame"], table["frame"] + 1)
    # The corner convention: what lies on the centre of the first pixel is at half a pixel.
    np.testing.assert_allclose(raw["x [nm]"], table["x_nm"] + 50.0, atol=1e-5)
    rms = np.sqrt((table["sigma_x_nm"] ** 2 + table["sigma_y_nm"] ** 2) / 2)
    np.testing.assert_allclose(raw["uncertainty_xy [nm]"], rms, atol=1e-5)
    noise = np.sqrt(2.5 * table["background_photons"] + 9.0)
    np.testing.assert_allclose(raw["bkgstd [photon]"], noise, atol=1e-5)


def test_a_growing_table_counts_what_picasso_cannot_import(tmp_path):
    frame = Geometry(100.0, psf_sigma_nm=130.0, read_variance_photons2=9.0, variance_per_photon=2.5)
    table = rows_of_a_run(500)
    table.loc[3, ["photons", "p_exists"]] = np.nan
    table.loc[300, "x_nm"] = np.inf
    table["chi2"] = np.nan  # it has no place for it
    with ThunderstormWriter(tmp_path / "grown.csv", frame) as writer:
        for part in (table.iloc[4:200], table.iloc[:4], table.iloc[200:]):
            writer.append(part)
            assert len(writer.notes) == (3 in part.index or 300 in part.index)
    written = write_localizations(Localizations(table, frame), tmp_path / "whole.csv")
    assert writer.notes == tuple(note for note in written.notes if "finite" in note)
    assert writer.notes[0].startswith("2 of 500 rows hold")


def test_where_a_growing_table_cannot_lie_is_told(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        ThunderstormWriter(tmp_path / "absent" / "t.csv", Geometry(100.0))
    with pytest.raises(InputError, match="pixel size"):
        ThunderstormWriter(tmp_path / "t.csv", Geometry())
    assert list(tmp_path.iterdir()) == []


def test_noise_of_the_background_is_written_only_where_it_is_known(tmp_path):
    said = "bkgstd, the noise of a background pixel, is left out"
    written = write_localizations(Localizations(example(), WHOLE), tmp_path / "a.csv")
    assert said in " ".join(written.notes)
    assert "bkgstd [photon]" not in pd.read_csv(tmp_path / "a.csv")
    measured = example().assign(background_sd_photons=4.0)
    frame = replace(WHOLE, read_variance_photons2=9.0, variance_per_photon=1.0)
    written = write_localizations(Localizations(measured, frame), tmp_path / "b.csv")
    assert said not in " ".join(written.notes)
    assert set(pd.read_csv(tmp_path / "b.csv")["bkgstd [photon]"]) == {4.0}
    with pytest.raises(InputError, match=r"read_variance_photons2 is -1\.0 photons\^2; .* larger"):
        Geometry(read_variance_photons2=-1.0)
    with pytest.raises(InputError, match=r"variance_per_photon is 0\.0 photons; .* larger than 0"):
        Geometry(read_variance_photons2=0.0, variance_per_photon=0.0)


def test_older_thunderstorm_tables_are_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('\ufeff"id","frame","x [nm]","y [nm]","uncertainty [nm]"\n1.0,2.0,60.0,7.5,9\n')
    back = read_localizations(path, Reading(Geometry(100.0))).table
    assert back.to_dict("records") == [
        {"frame": 1, "x_nm": 10.0, "y_nm": -42.5, "sigma_x_nm": 9.0, "sigma_y_nm": 9.0}
    ]


@pytest.mark.parametrize("name", ["thunderstorm", "smap-csv", "challenge", "decode-csv"])
def test_text_has_no_exponent_and_spells_what_is_no_number(tmp_path, name):
    table = example(3).assign(x_nm=[1.5e-5, 3e17, -2e-12], photons=[np.nan, np.inf, 1e-9])
    write_localizations(Localizations(table, WHOLE), tmp_path / "t.csv", name)
    rows = [line for line in (tmp_path / "t.csv").read_text().splitlines() if line[0] != "#"][1:]
    number = r"-?\d+(\.\d+)?|NaN|-?Infinity"
    assert len(rows) == 3
    assert all(re.fullmatch(number, value) for row in rows for value in row.split(","))
    back = read_localizations(tmp_path / "t.csv", GIVEN).table
    assert np.isnan(back["photons"][0])
    assert np.isinf(back["photons"][1])


PART = replace(WHOLE, region_px=((20, 300), (8, 500)))


@pytest.mark.parametrize("frame", [WHOLE, PART], ids=["whole", "part"])
@pytest.mark.parametrize("name", ["sureloc", "picasso", "smap"])
def test_the_field_goes_with_the_table(tmp_path, name, frame):
    write_localizations(Localizations(example(), frame), place(tmp_path, name), name)
    back = read_localizations(place(tmp_path, name), Reading()).geometry
    assert back.pixel_nm == pytest.approx(NM)
    assert (back.width_px, back.height_px) == (512, 300)
    assert back.region_px == frame.region_px
    left, top = (-0.5, -0.5) if frame is WHOLE else (7.5, 19.5)
    right, bottom = (511.5 if frame is WHOLE else 499.5), 299.5
    field = ((left * NM, right * NM), (top * NM, bottom * NM))
    np.testing.assert_allclose(back.field_nm, field)


@pytest.mark.parametrize("rows", [[4], "ab", [9, 4], [-1, 4], 7])
def test_a_region_that_cannot_be_is_refused(tmp_path, rows):
    path = tmp_path / "t.hdf5"
    write_localizations(Localizations(example(), PART), path)
    with h5py.File(path, "r+") as file:
        steps = json.loads(file["metadata"][()])
        del file["metadata"]
        steps.append({"Localized rows": rows, "Localized columns": [8, 500]})
        file["metadata"] = json.dumps(steps)
    with pytest.raises(InputError, match="region"):
        read_localizations(path, Reading())


# --- Picasso's rules -----------------------------------------------------------------------------


def test_rows_that_picasso_drops_are_counted_by_reason(tmp_path):
    table = example(10).assign(x_nm=1000.0, y_nm=1000.0)
    table.loc[0, "x_nm"] = -1e-6
    table.loc[1, "y_nm"] = -20.0
    table.loc[2, "x_nm"] = 512 * NM
    table.loc[3, "y_nm"] = 300 * NM
    table.loc[4, "photons"] = np.nan
    table.loc[5, "sigma_y_nm"] = np.inf
    table.loc[6, "photons"] = -3.0
    table.loc[6, "x_nm"] = -5.0  # one row counts once
    written = write_localizations(Localizations(table, WHOLE), tmp_path / "t.hdf5")
    assert written.rows == 3
    assert written.notes[0] == (
        "7 of 10 rows were left out because Picasso refuses them: 2 with a value that is not "
        "finite, 2 with x < 0 (left of the centre of the first column), 1 with y < 0 (above the "
        "centre of the first row), 1 with x >= 512 (Width), 1 with y >= 300 (Height). They stay in "
        "the file that was read."
    )
    with h5py.File(tmp_path / "t.hdf5") as file:
        kept = pd.DataFrame(file["locs"][()])
        info = json.loads(file["metadata"][()])
    # Picasso's own rule (lib.ensure_sanity), said in its words.
    assert np.isfinite(kept.to_numpy()).all()
    assert (kept[["x", "y", "lpx", "lpy", "photons", "sx", "sy"]] >= 0).all(axis=None)
    assert (kept["x"] < info[0]["Width"]).all()
    assert (kept["y"] < info[0]["Height"]).all()
    assert info == list(yaml.safe_load_all((tmp_path / "t.yaml").read_text()))
    assert info[0]["Frames"] == 40


def test_what_picassos_numbers_cannot_hold_is_left_out_and_counted(tmp_path):
    last = 2**32 - 1
    table = example(8).assign(x_nm=1000.0, y_nm=1000.0, rows=2, photons=9.0)
    table["frame"] = [0, last, last + 1, 2**32 + 5, 3, 3, 3, 3]
    table["last_frame"] = table["frame"] + 1
    table.loc[4, "last_frame"] = 2**31 + 3
    table.loc[5, "rows"] = 2**31
    table.loc[6, "photons"] = 1e39
    bare = replace(WHOLE, frames=None)
    written = write_localizations(Localizations(table, bare), tmp_path / "t.hdf5")
    assert written.rows == 3
    assert written.notes[0] == (
        "5 of 8 rows were left out because Picasso refuses them: 1 with a value that is not "
        "finite, 2 with frame beyond 0 to 4294967295, 1 with n beyond 0 to 2147483647, 1 with len "
        "beyond 0 to 2147483647. They stay in the file that was read."
    )
    assert "frames 4294967296. " in written.notes[1]
    back = read_localizations(tmp_path / "t.hdf5", Reading()).table
    assert back["frame"].tolist() == [0, last, 3]
    assert back["last_frame"].tolist() == [1, last + 1, 4]


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "picasso"])
def test_large_frames_survive_and_those_that_cannot_are_refused(tmp_path, name):
    table = example(3).assign(frame=[2**32, 2**40 + 1, 2**53 - 2])
    write_localizations(Localizations(table, WHOLE), place(tmp_path, name), name)
    back = read_localizations(place(tmp_path, name), GIVEN).table
    np.testing.assert_array_equal(back["frame"], table["frame"])
    (tmp_path / "again").mkdir()
    path = place(tmp_path / "again", name)
    write_localizations(Localizations(table.assign(frame=2**53 + 2), WHOLE), path, name)
    with pytest.raises(InputError, match=r"frame 900719925474099\d; .* below 9007199254740992"):
        read_localizations(path, GIVEN)


def test_a_column_that_picasso_can_do_without_costs_no_row(tmp_path):
    table = example(5)
    table.loc[1, "p_exists"] = np.nan
    written = write_localizations(Localizations(table, WHOLE), tmp_path / "t.hdf5")
    assert written.rows == 5
    assert written.notes == ("Picasso has no place for p_exists.",)


@pytest.mark.parametrize("name", ["thunderstorm", "smap-csv", "smap"])
def test_rows_that_picasso_cannot_import_are_counted(tmp_path, name):
    table = example(20)
    written = write_localizations(Localizations(table, WHOLE), place(tmp_path, name), name)
    assert not any("finite" in note for note in written.notes)
    table.loc[3, ["photons", "p_exists"]] = np.nan
    table.loc[5, "x_nm"] = np.inf
    table["crlb_z_nm"] = np.nan  # none of these formats holds it
    path = tmp_path / "again" / place(tmp_path, name).name
    path.parent.mkdir()
    written = write_localizations(Localizations(table, WHOLE), path, name)
    assert written.rows == 20
    said = [note for note in written.notes if "finite" in note]
    assert len(said) == 1
    assert said[0].startswith("2 of 20 rows")
    assert "(x_nm, photons, p_exists)" in said[0]


def test_the_size_of_the_movie_is_taken_from_the_rows_and_said(tmp_path):
    table = example(5).assign(x_nm=[10.0, 950.0, 0, 0, 0], y_nm=30.0, frame=[0, 1, 2, 3, 6])
    bare = Localizations(table, Geometry(100.0))
    written = write_localizations(bare, tmp_path / "t.hdf5")
    assert written.rows == 5
    assert "width 10, height 1, frames 7 " in " ".join(written.notes).replace(".", " ")
    with h5py.File(tmp_path / "t.hdf5") as file:
        assert json.loads(file["metadata"][()])[0]["Width"] == 10


# --- What is refused -----------------------------------------------------------------------------


def test_what_is_needed_is_asked_for(tmp_path):
    bare = Localizations(example().drop(columns=["sigma_x_nm", "sigma_y_nm"]))
    for name in ("thunderstorm", "challenge", "picasso", "decode", "decode-csv"):
        with pytest.raises(InputError, match="--pixel-nm 108"):
            write_localizations(bare, place(tmp_path, name), name)
    with pytest.raises(InputError, match="--uncertainty-nm 10"):
        write_localizations(Localizations(bare.table, WHOLE), tmp_path / "t.hdf5")
    assert list(tmp_path.iterdir()) == []
    for name in ("thunderstorm", "challenge"):
        (tmp_path / "t.csv").write_text(TEXTS[name])
        with pytest.raises(InputError, match="--pixel-nm"):
            read_localizations(tmp_path / "t.csv", Reading())


def test_existing_files_stay(tmp_path):
    (tmp_path / "t.yaml").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_localizations(Localizations(example(), WHOLE), tmp_path / "t.hdf5")
    assert [path.name for path in tmp_path.iterdir()] == ["t.yaml"]
    with pytest.raises(OutputError):
        write_localizations(Localizations(example(), WHOLE), tmp_path / "t.yaml" / "t.hdf5")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "none of ThunderSTORM"),
        ("\x00\x01\n", "none of ThunderSTORM"),
        ("frame,xnm\n1,2\n", "nothing for y_nm"),
        ("frame,xnm,ynm\n1,2,3\n0,2,3\n", "frame 0.*--first-frame 0"),
        ("frame,xnm,ynm\n1.5,2,3\n", "frame 1.5"),
        ("frame,xnm,ynm\n,2,3\n", "frame nan"),
        ("frame,xnm,ynm\n1,2,three\n", "no number"),
        ('"frame","x [nm]","y [nm]"\n0,1,2\n', "frame 0; this format counts 1"),
        ("frame,xnm,ynm\n1,2,3\n1,2", "truncated: its last row has 2 of 3"),
        ("frame,xnm,ynm,xnm\n1,2,3,4\n", "two columns xnm"),
        ("frame,xnm,ynm\n1,2,3,4,5\n", "cannot be read as CSV"),
        ("frame,xnm,ynm,channel\n1,2,3,\n", "channel that is no number"),
        ("# DECODE EmitterSet\n#\n# px\nx,y\n", "third line"),
        ('# DECODE EmitterSet\n#\n# {"xy_unit": "um"}\nx,y,z,frame_ix\n1,2,3,4\n', "'um'"),
    ],
)
def test_other_text_is_refused(tmp_path, text, match):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=match):
        read_localizations(tmp_path / "t.csv", GIVEN)


def test_text_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_localizations(tmp_path / "t.csv", GIVEN)


@pytest.mark.parametrize("name", ["sureloc", "picasso", "decode", "smap"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files_are_refused(tmp_path, name, share):
    path = place(tmp_path, name)
    write_localizations(Localizations(example(5000), WHOLE), path, name)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError):
        read_localizations(path, GIVEN)


def test_foreign_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no table at"):
        read_localizations(tmp_path / "absent.csv", GIVEN)
    (tmp_path / "t.tif").write_bytes(b"II*\0")
    with pytest.raises(InputError, match="sureloc localize"):
        read_localizations(tmp_path / "t.tif", GIVEN)
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["numbers"] = [1, 2, 3]
    with pytest.raises(InputError, match="holds numbers"):
        read_localizations(tmp_path / "t.h5", GIVEN)
    for name in ("picasso", "decode", "smap"):
        with pytest.raises(InputError, match="cannot be read as"):
            read_localizations(tmp_path / "t.h5", GIVEN, name)
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["locs"] = [1, 2, 3]
    with pytest.raises(InputError, match="no named columns"):
        read_localizations(tmp_path / "t.h5", GIVEN)
    (tmp_path / "t_sml.mat").write_bytes(b"no MATLAB file at all" * 20)
    with pytest.raises(InputError, match="cannot be read as SMAP"):
        read_localizations(tmp_path / "t_sml.mat", GIVEN)
    pd.DataFrame({"frame": [1], "x": [2.0]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="lacks x_nm, y_nm"):
        read_localizations(tmp_path / "t.parquet", GIVEN)


def test_damaged_metadata_are_refused(tmp_path):
    path = tmp_path / "t.hdf5"
    write_localizations(Localizations(example(3), WHOLE), path)
    for text, match in (("{", "metadata"), ('[{"Pixelsize": "wide"}]', "'wide'")):
        with h5py.File(path, "r+") as file:
            del file["metadata"]
            file["metadata"] = text
        with pytest.raises(InputError, match=match):
            read_localizations(path, Reading())
    write_localizations(Localizations(example(3), WHOLE), tmp_path / "t.h5")
    with h5py.File(tmp_path / "t.h5", "r+") as file:
        file["meta"].attrs["px_size"] = [100.0, 130.0]
    with pytest.raises(InputError, match="130 by 100 nm"):
        read_localizations(tmp_path / "t.h5", Reading())
    with h5py.File(tmp_path / "t.h5", "r+") as file:
        file["meta"].attrs["px_size"] = [100.0, 100.0]
        del file["data/phot"]
        file["data/phot"] = [1.0]
    with pytest.raises(InputError, match=r"different shapes: .*photons \(1,\)"):
        read_localizations(tmp_path / "t.h5", Reading())


def test_names_of_new_files_say_their_format(tmp_path):
    assert format_to_write(Path("a.csv")) == "thunderstorm"
    assert format_to_write(Path("a.csv"), "challenge") == "challenge"
    assert format_to_write(Path("a_sml.mat")) == "smap"
    for name, given in (("a.mat", None), ("a.txt", None), ("a.mat", "smap")):
        with pytest.raises(InputError, match=r"_sml\.mat"):
            format_to_write(Path(name), given)
    with pytest.raises(InputError, match=r"call it a\.hdf5"):
        format_to_write(Path("a.csv"), "picasso")
    with pytest.raises(InputError, match="no format 'word'"):
        format_to_write(Path("a.csv"), "word")
    for wrong in ({"pixel_nm": 0.0}, {"width_px": -3}, {"psf_sigma_nm": np.nan}):
        with pytest.raises(InputError, match="larger than 0"):
            Geometry(**wrong)


# --- sureloc's own tables ------------------------------------------------------------------------


def own_table(columns, rows=30):
    rng = np.random.default_rng(3)
    made = {
        "int64": lambda: rng.integers(0, 5, rows),
        "bool": lambda: rng.random(rows) < 0.5,
        "str": lambda: np.array(["chi2"] * rows, object),
        "float64": lambda: rng.uniform(1, 5000, rows),
    }
    return pd.DataFrame({column.name: made[column.dtype]() for column in columns})


def test_a_table_of_localize_stays_whole_in_parquet_and_is_told_apart_elsewhere(tmp_path):
    table = own_table(LOCALIZATION_COLUMNS)
    provenance = {"seed": 4, "geometry": {"pixel_nm": NM, "width_px": 512, "height_px": 300}}
    write_table(table, tmp_path / "in.parquet", LOCALIZATION_COLUMNS, provenance)
    written = convert_table(tmp_path / "in.parquet", tmp_path / "out.parquet", Reading(), Changes())
    assert written.notes == ()
    pd.testing.assert_frame_equal(read_table(tmp_path / "out.parquet", LOCALIZATION_COLUMNS), table)
    kept = read_provenance(tmp_path / "out.parquet")
    assert kept["seed"] == 4
    assert kept["geometry"]["width_px"] == 512
    written = convert_table(tmp_path / "in.parquet", tmp_path / "out.h5", Reading(), Changes())
    said = " ".join(written.notes)
    assert "DECODE's HDF5 has no place for cov_xy_nm2, chi2, x_lo95_nm" in said
    doubtful = int((~table["trusted"]).sum())
    assert f"{doubtful} rows that sureloc does not trust are in it, unmarked" in said


def test_the_pixel_size_of_older_tables_is_found(tmp_path):
    write_table(
        own_table(TRUTH_COLUMNS), tmp_path / "t.parquet", TRUTH_COLUMNS, {"pixel_nm": 117.0}
    )
    assert read_localizations(tmp_path / "t.parquet", Reading()).geometry.pixel_nm == 117.0


def test_draws_are_taken_one_at_a_time(tmp_path):
    table = own_table(DRAW_COLUMNS)
    source = tmp_path / "draws.parquet"
    write_table(table, source, DRAW_COLUMNS)
    for name in FORMATS.keys() - {"sureloc", "picasso"}:
        with pytest.raises(InputError, match=r"draws 0 to 4.*--draw 0"):
            convert_table(source, place(tmp_path, name), GIVEN, Changes(), None, name)
    written = convert_table(source, tmp_path / "d.hdf5", GIVEN, Changes(draw=3, uncertainty_nm=9.0))
    assert written.rows == (table["draw"] == 3).sum()
    back = read_localizations(tmp_path / "d.hdf5", Reading()).table
    np.testing.assert_allclose(back["sigma_x_nm"], 9.0, rtol=1e-6)
    with pytest.raises(InputError, match="no draw 9"):
        convert_table(source, tmp_path / "e.csv", GIVEN, Changes(draw=9))
    with pytest.raises(InputError, match="larger than 0"):
        convert_table(source, tmp_path / "e.hdf5", GIVEN, Changes(draw=1, uncertainty_nm=-1.0))
    (tmp_path / "t.csv").write_text(TEXTS["smap-csv"])
    with pytest.raises(InputError, match="leave out --draw"):
        convert_table(tmp_path / "t.csv", tmp_path / "e.h5", GIVEN, Changes(draw=1))


def test_a_shift_moves_positions_and_their_intervals(tmp_path):
    table = own_table(LOCALIZATION_COLUMNS)
    write_table(table, tmp_path / "in.parquet", LOCALIZATION_COLUMNS)
    convert_table(
        tmp_path / "in.parquet", tmp_path / "out.parquet", Reading(), Changes((50.0, -7.0))
    )
    moved = read_table(tmp_path / "out.parquet", LOCALIZATION_COLUMNS)
    for column in LOCALIZATION_COLUMNS:
        shift = {"x": 50.0, "y": -7.0}.get(column.name[0], 0.0)
        if not re.fullmatch(r"[xy](_(lo|hi)\d+)?_nm", column.name):
            shift = 0.0
        if column.dtype == "float64":
            np.testing.assert_allclose(moved[column.name], table[column.name] + shift)


# --- The command ---------------------------------------------------------------------------------


def sureloc(monkeypatch, *arguments):
    from sureloc.cli.app import main

    monkeypatch.setattr("sys.argv", ["sureloc", "convert", *map(str, arguments)])
    with pytest.raises(SystemExit) as leaving:
        main()
    return leaving.value.code


def test_the_command_converts_and_says_what_it_did(tmp_path, monkeypatch, capsys):
    (tmp_path / "in.csv").write_text(TEXTS["challenge"])
    code = sureloc(
        monkeypatch,
        *(tmp_path / "in.csv", tmp_path / "out.hdf5", "--pixel-nm", 100, "--uncertainty-nm", 8),
        *("--psf-sigma-nm", 130, "--width-px", 64, "--height-px", 64, "--movie-frames", 10),
    )
    assert code == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out.hdf5'}: 1 rows\n"
    with h5py.File(tmp_path / "out.hdf5") as file:
        row = file["locs"][0]
    assert (row["frame"], row["x"], row["y"]) == pytest.approx((4, 3, 2))
    assert (row["lpx"], row["sx"]) == pytest.approx((0.08, 1.3))
    # A table of Picasso's for ThunderSTORM: no shift, frames from 0.
    (tmp_path / "pic.csv").write_text(
        TEXTS["thunderstorm"].replace("1,5,350.0,250.0", "0,4,300,200")
    )
    options = ("--first-frame", 0, "--shift-nm", "50,50", "--pixel-nm", 100)
    assert sureloc(monkeypatch, tmp_path / "pic.csv", tmp_path / "own.parquet", *options) == 0
    _, row = one_row(tmp_path / "own.parquet")
    assert (row["frame"], row["x_nm"], row["y_nm"]) == pytest.approx((4, *CENTRE))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ((), "--pixel-nm"),
        (("--pixel-nm", "-3"), "between 1 and 10000"),
        (("--pixel-nm", "0.16"), "0.16 nm; it must lie between 1 and 10000.*micrometres, give 160"),
        (("--pixel-nm", "100", "--shift-nm", "5"), "x,y in nm"),
        (("--pixel-nm", "100", "--shift-nm", "nan,0"), "finite"),
        (("--pixel-nm", "100", "--to", "picasso"), "does not end in .hdf5"),
        (("--pixel-nm", "100", "--from", "smap-csv"), "nothing for frame|nothing for x_nm"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, monkeypatch, capsys, options, match):
    (tmp_path / "in.csv").write_text(TEXTS["thunderstorm"])
    assert sureloc(monkeypatch, tmp_path / "in.csv", tmp_path / "out.parquet", *options) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(match, said)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.shared
def test_a_table_that_thunderstorm_wrote_reaches_every_program():
    folder = Path(
        os.environ.get("SURELOC_SHARED_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")
    )
    if not (folder / "dense_random_sim").exists():
        pytest.skip(f"the third-party table in {folder} is absent")
    data = read_localizations(
        folder / "dense_random_sim" / "thunderstorm_positions.csv", Reading(Geometry(100.0))
    )
    truth = pd.read_csv(folder / "dense_random_sim" / "truth.csv")  # corner origin, 0-based
    np.testing.assert_array_equal(data.table["frame"], truth["frame"])
    np.testing.assert_allclose(data.table["x_nm"] + 50, truth["x_nm"], atol=1e-9)
    np.testing.assert_allclose(data.table["photons"], truth["photons"])
