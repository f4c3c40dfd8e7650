"""Tables: what is written is read back, in Parquet with its meaning and in ThunderSTORM's words."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from sureloc.errors import InputError, OutputError
from sureloc.io.tables import (
    TableWriter,
    ThunderstormWriter,
    read_provenance,
    read_table,
    read_thunderstorm,
    write_table,
    write_thunderstorm,
)
from sureloc.table import DRAW_COLUMNS, LOCALIZATION_COLUMNS, TRUTH_COLUMNS

SHARED = Path(
    os.environ.get("SURELOC_SHARED_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")
)


def example(rows, columns=LOCALIZATION_COLUMNS, seed=0):
    rng = np.random.default_rng(seed)
    table = {}
    for c in columns:
        if c.dtype == "int64":
            table[c.name] = np.sort(rng.integers(0, 50, rows))
        elif c.dtype == "bool":
            table[c.name] = rng.random(rows) < 0.5
        elif c.dtype == "str":
            table[c.name] = np.where(rng.random(rows) < 0.5, "", "chi2 3.1 exceeds 1.6")
        else:
            table[c.name] = rng.uniform(0, 40000, rows)
    return pd.DataFrame(table)


@pytest.mark.parametrize("columns", [LOCALIZATION_COLUMNS, TRUTH_COLUMNS, DRAW_COLUMNS])
@pytest.mark.parametrize("rows", [0, 1, 300])
def test_parquet_gives_every_bit_back(tmp_path, columns, rows):
    table = example(rows, columns)
    if rows and columns is LOCALIZATION_COLUMNS:
        table.loc[0, "x_lo95_nm"] = np.nan
        table.loc[rows - 1, "crlb_x_nm"] = np.inf
    shuffled = table[list(reversed(table.columns))]
    write_table(shuffled, tmp_path / "t.parquet", columns, {"seed": 3, "options": {"draws": 16}})
    back = read_table(tmp_path / "t.parquet", columns)
    pd.testing.assert_frame_equal(back, table, check_exact=True, check_dtype=rows > 0)
    assert read_provenance(tmp_path / "t.parquet") == {"seed": 3, "options": {"draws": 16}}


def test_a_file_written_in_chunks_is_the_file_written_at_once(tmp_path):
    table = example(200_000, DRAW_COLUMNS)
    with TableWriter(tmp_path / "t.parquet", DRAW_COLUMNS) as writer:
        for first in range(0, 200_000, 30_000):
            writer.append(table.iloc[first : first + 30_000])
    assert writer.rows == 200_000
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet", DRAW_COLUMNS), table)
    # Chunks are gathered until a row group is worth it, and let go then.
    assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups == 3


def test_units_and_convention_travel_with_the_file(tmp_path):
    write_table(example(3), tmp_path / "t.parquet", LOCALIZATION_COLUMNS)
    schema = pq.read_schema(tmp_path / "t.parquet")
    for column in LOCALIZATION_COLUMNS:
        metadata = schema.field(column.name).metadata
        assert metadata[b"unit"].decode() == column.unit
        assert metadata[b"meaning"].decode() == column.meaning
    assert b'"first_frame": 0' in schema.metadata[b"sureloc"]
    assert b"centre of pixel" in schema.metadata[b"sureloc"]


def test_rows_that_do_not_fit_are_refused(tmp_path):
    table = example(3)
    with TableWriter(tmp_path / "t.parquet", LOCALIZATION_COLUMNS) as writer:
        with pytest.raises(OutputError, match="lack x_nm and have x too much"):
            writer.append(table.rename(columns={"x_nm": "x"}))
        with pytest.raises(OutputError, match="wrong type"):
            writer.append(table.assign(frame=["a", "b", "c"]))
    with pytest.raises(OutputError, match="cannot be written"):
        write_table(table, tmp_path / "absent" / "t.parquet", LOCALIZATION_COLUMNS)
    with pytest.raises(OutputError, match="cannot be written"):
        write_thunderstorm(table, tmp_path / "absent" / "t.csv", 100.0, 130.0)


def test_files_that_are_no_tables_are_refused(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(InputError, match="cannot be read"):
        read_table(path, DRAW_COLUMNS)
    path.write_bytes(b"no parquet")
    with pytest.raises(InputError, match="cannot be read"):
        read_table(path, DRAW_COLUMNS)
    pd.DataFrame({"frame": [1], "x": [2.0]}).to_parquet(path)
    with pytest.raises(InputError, match="lacks draw, x_nm, y_nm, photons"):
        read_table(path, DRAW_COLUMNS)
    with pytest.raises(InputError, match="no provenance"):
        read_provenance(path)
    write_table(example(3, DRAW_COLUMNS), path, DRAW_COLUMNS)
    stored = pq.read_table(path)
    metadata = stored.schema.metadata
    metadata[b"sureloc"] = metadata[b"sureloc"].replace(b'"first_frame": 0', b'"first_frame": 1')
    pq.write_table(stored.replace_schema_metadata(metadata), path)
    with pytest.raises(InputError, match="first_frame = 1 instead of 0"):
        read_table(path, DRAW_COLUMNS)


def test_thunderstorm_reads_what_we_write(tmp_path):
    table = example(500)
    path = tmp_path / "t.csv"
    with ThunderstormWriter(path, 100.0, 130.0, read_variance_photons2=9.0) as writer:
        writer.append(table.iloc[:200])
        writer.append(table.iloc[200:200])
        writer.append(table.iloc[200:])
    lines = path.read_text().splitlines()
    assert lines[0] == (
        '"id","frame","x [nm]","y [nm]","sigma [nm]","intensity [photon]","offset [photon]",'
        '"bkgstd [photon]","uncertainty_xy [nm]"'
    )
    assert len(lines) == 501
    raw = pd.read_csv(path)
    assert raw["id"].tolist() == list(range(1, 501))
    np.testing.assert_array_equal(raw["frame"], table["frame"] + 1)
    # The corner convention: what lies on the centre of the first pixel is at half a pixel.
    np.testing.assert_allclose(raw["x [nm]"], table["x_nm"] + 50.0, atol=1e-5)
    np.testing.assert_allclose(
        raw["bkgstd [photon]"], np.sqrt(table["background_photons"] + 9.0), atol=1e-5
    )
    back = read_thunderstorm(path, 100.0)
    np.testing.assert_array_equal(back["frame"], table["frame"])
    for column in ("x_nm", "y_nm", "photons", "background_photons"):
        np.testing.assert_allclose(back[column], table[column], rtol=0, atol=1e-5)
    # Equal per-axis errors come back as themselves.
    rms = np.sqrt((table["sigma_x_nm"] ** 2 + table["sigma_y_nm"] ** 2) / 2)
    np.testing.assert_allclose(back["sigma_xy_nm"], rms, atol=1e-5)


def test_no_number_has_an_exponent_and_no_row_is_lost_to_nan(tmp_path):
    table = example(4)
    table["x_nm"] = [1.5e-5 - 50, 3e17, -2e-12, 1234.56789]
    table["photons"] = [np.nan, np.inf, -np.inf, 1e-9]
    write_thunderstorm(table, tmp_path / "t.csv", 100.0, 130.0)
    rows = (tmp_path / "t.csv").read_text().splitlines()[1:]
    number = r"-?\d+(\.\d+)?|NaN|-?Infinity"
    for row in rows:
        assert all(re.fullmatch(number, value) for value in row.split(","))
    assert [row.split(",")[5] for row in rows] == ["NaN", "Infinity", "-Infinity", "0.00000"]
    back = read_thunderstorm(tmp_path / "t.csv", 100.0)
    np.testing.assert_allclose(back["x_nm"], table["x_nm"], rtol=1e-15, atol=1e-3)


def test_older_thunderstorm_tables_are_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('\ufeff"id","frame","x [nm]","y [nm]","uncertainty [nm]"\n1.0,2.0,60.0,7.5,9\n')
    back = read_thunderstorm(path, 100.0)
    assert back.to_dict("records") == [
        {"frame": 1, "x_nm": 10.0, "y_nm": -42.5, "sigma_xy_nm": 9.0}
    ]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "cannot be read"),
        ("a,b\n1,2\n", r"lacks frame, x \[nm\], y \[nm\]; its columns are a, b"),
        ('"frame","x [nm]","y [nm]"\n0,1,2\n', "counts from 1"),
        ('"frame","x [nm]","y [nm]"\n1.5,1,2\n', "counts from 1"),
        ('"frame","x [nm]","y [nm]"\n1,one,2\n', "no number"),
    ],
)
def test_other_csv_is_refused(tmp_path, text, match):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=match):
        read_thunderstorm(tmp_path / "t.csv", 100.0)
    with pytest.raises(InputError, match="cannot be read"):
        read_thunderstorm(tmp_path / "absent.csv", 100.0)


@pytest.mark.shared
def test_a_table_that_thunderstorm_wrote():
    folder = SHARED / "dense_random_sim"
    if not folder.exists():
        pytest.skip(f"the third-party table in {folder} is absent")
    table = read_thunderstorm(folder / "thunderstorm_positions.csv", 100.0)
    truth = pd.read_csv(folder / "truth.csv")  # corner origin, 0-based
    np.testing.assert_array_equal(table["frame"], truth["frame"])
    np.testing.assert_allclose(table["x_nm"] + 50, truth["x_nm"], atol=1e-9)
    np.testing.assert_allclose(table["photons"], truth["photons"])
