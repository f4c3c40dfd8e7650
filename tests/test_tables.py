"""sureloc's own tables: what is written is read back, with its meaning."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from sureloc.errors import InputError, OutputError
from sureloc.io.tables import (
    TableWriter,
    read_provenance,
    read_table,
    write_table,
)
from sureloc.table import DRAW_COLUMNS, LOCALIZATION_COLUMNS, TRUTH_COLUMNS


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
