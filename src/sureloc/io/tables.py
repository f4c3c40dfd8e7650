"""Tables on disk: Parquet with units and provenance, and CSV for readers of ThunderSTORM's tables.

Parquet keeps the convention of `sureloc.table` (nanometres, the CENTRE of pixel (0, 0) at (0, 0),
frames from 0) and says so in its metadata. ThunderSTORM (Ovesny et al. 2014) counts frames and ids
from 1 and puts (0, 0) at the outer CORNER of the first pixel; that conversion happens here alone.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sureloc.errors import InputError, OutputError
from sureloc.table import Column

CONVENTION: Mapping[str, object] = {
    "length_unit": "nm",
    "origin": "centre of pixel (row 0, column 0)",
    "x": "along columns",
    "y": "along rows, pointing down",
    "first_frame": 0,
    "photons": "detected photons = photo-electrons / quantum efficiency",
}
THUNDERSTORM_HEADER = (
    "id",
    "frame",
    "x [nm]",
    "y [nm]",
    "sigma [nm]",
    "intensity [photon]",
    "offset [photon]",
    "bkgstd [photon]",
    "uncertainty_xy [nm]",
)
_METADATA_KEY = b"sureloc"
_ROWS_PER_GROUP = 65536
# Five decimals of a nanometre: positions come back to 5e-6 nm, and no number needs an exponent.
_CSV_ROW = "%d,%d" + ",%.5f" * (len(THUNDERSTORM_HEADER) - 2)
_ARROW_TYPES = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "str": pa.string(),
}


class TableWriter:
    """Write a table to Parquet chunk by chunk; memory does not grow with its length.

    Use it as a context manager: the file is complete when the block ends.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[Column],
        provenance: Mapping[str, object] | None = None,
    ) -> None:
        """Open a table for writing.

        Args:
            path: the new file.
            columns: its columns (see `sureloc.table`).
            provenance: what made it (versions, seed, options), JSON-serializable.

        Raises:
            OutputError: the file cannot be created.
        """
        self._path = Path(path)
        self._columns = tuple(columns)
        self._schema = _schema(columns, provenance or {})
        self._waiting: list[pa.Table] = []
        self.rows = 0
        try:
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        except OSError as error:
            raise OutputError(f"The table {path} cannot be written ({error}).") from error

    def append(self, table: pd.DataFrame) -> None:
        """Append rows.

        Args:
            table: a frame with exactly this table's columns, in any order.

        Raises:
            OutputError: a column is missing, unknown, or of another type.
        """
        chunk = _arrow_table(table, self._columns, self._schema, self._path)
        self.rows += chunk.num_rows
        self._waiting.append(chunk)
        if sum(part.num_rows for part in self._waiting) >= _ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting = []

    def close(self) -> None:
        """Write what waits and the file's footer."""
        self._flush()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.close()


def write_table(
    table: pd.DataFrame,
    path: str | Path,
    columns: Sequence[Column],
    provenance: Mapping[str, object] | None = None,
) -> None:
    """Write a whole table to Parquet (arguments and errors as in `TableWriter`)."""
    with TableWriter(path, columns, provenance) as writer:
        writer.append(table)


def read_table(path: str | Path, columns: Sequence[Column]) -> pd.DataFrame:
    """Read a Parquet table and check that it has the columns and the convention.

    Args:
        path: the file.
        columns: the columns to read (see `sureloc.table`).

    Raises:
        InputError: the file is missing, no Parquet, lacks a column, or states another convention.
    """
    path = Path(path)
    names = [column.name for column in columns]
    try:
        schema = pq.read_schema(path)
        missing = [name for name in names if name not in schema.names]
        if missing:
            raise InputError(
                f"The table {path} lacks {', '.join(missing)}; it has {', '.join(schema.names)}."
            )
        _check_convention(path, schema)
        frame: pd.DataFrame = pq.read_table(path, columns=names).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"The table {path} cannot be read ({error}).") from error
    return frame


def table_chunks(path: str | Path) -> Iterator[pd.DataFrame]:
    """Give the rows of a table that `TableWriter` wrote, piece by piece and in order."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS_PER_GROUP):
            yield batch.to_pandas()


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Give the provenance that `TableWriter` stored in a Parquet table.

    Raises:
        InputError: the file is missing, no Parquet, or was not written by sureloc.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"The table {path} cannot be read ({error}).") from error
    if _METADATA_KEY not in metadata:
        raise InputError(f"The table {path} holds no provenance of sureloc.")
    return dict(json.loads(metadata[_METADATA_KEY])["provenance"])


def _schema(columns: Sequence[Column], provenance: Mapping[str, object]) -> pa.Schema:
    fields = [
        pa.field(
            column.name,
            _ARROW_TYPES[column.dtype],
            nullable=False,
            metadata={"unit": column.unit, "meaning": column.meaning},
        )
        for column in columns
    ]
    content = {"convention": dict(CONVENTION), "provenance": dict(provenance)}
    return pa.schema(fields, metadata={_METADATA_KEY: json.dumps(content)})


def _arrow_table(
    table: pd.DataFrame, columns: Sequence[Column], schema: pa.Schema, path: Path
) -> pa.Table:
    names = {column.name for column in columns}
    if names != set(table.columns):
        missing = ", ".join(sorted(names - set(table.columns))) or "nothing"
        unknown = ", ".join(sorted(map(str, set(table.columns) - names))) or "nothing"
        raise OutputError(
            f"Rows for {path} lack {missing} and have {unknown} too much; the columns must be "
            f"{', '.join(column.name for column in columns)}."
        )
    try:
        # NaN is a value here (an interval that does not exist), not a missing entry.
        arrays = [
            pa.array(table[c.name].to_numpy(), type=_ARROW_TYPES[c.dtype], from_pandas=False)
            for c in columns
        ]
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise OutputError(f"Rows for {path} have a column of wrong type ({error}).") from error
    return pa.Table.from_arrays(arrays, schema=schema)


def _check_convention(path: Path, schema: pa.Schema) -> None:
    stored = (schema.metadata or {}).get(_METADATA_KEY)
    if stored is None:
        return
    convention = json.loads(stored).get("convention", {})
    different = [
        f"{key} = {convention[key]!r} instead of {CONVENTION[key]!r}"
        for key in ("length_unit", "origin", "first_frame")
        if key in convention and convention[key] != CONVENTION[key]
    ]
    if different:
        raise InputError(
            f"The table {path} has another convention ({'; '.join(different)}); write it again "
            "with this version of sureloc."
        )


# --- ThunderSTORM CSV ---------------------------------------------------------------------------


class ThunderstormWriter:
    """Write localizations as ThunderSTORM's CSV, chunk by chunk; a context manager."""

    def __init__(
        self,
        path: str | Path,
        pixel_nm: float,
        psf_sigma_nm: float,
        read_variance_photons2: float = 0.0,
    ) -> None:
        """Open a CSV for writing.

        Args:
            path: the new file.
            pixel_nm: pixel size, nm, by half of which the origin moves to the corner.
            psf_sigma_nm: the PSF's standard deviation, nm, for the column `sigma`.
            read_variance_photons2: typical read variance per pixel, photons^2, which the column
                `bkgstd` holds beside the background's shot noise.

        Raises:
            OutputError: the file cannot be created.
        """
        self._shift_nm = 0.5 * pixel_nm
        self._psf_sigma_nm = psf_sigma_nm
        self._read_variance = read_variance_photons2
        self.rows = 0
        try:
            self._file: TextIO = Path(path).open(  # noqa: SIM115  (closed by `close`)
                "w", encoding="ascii", newline="\n"
            )
        except OSError as error:
            raise OutputError(f"The table {path} cannot be written ({error}).") from error
        self._file.write(",".join(f'"{name}"' for name in THUNDERSTORM_HEADER) + "\n")

    def append(self, table: pd.DataFrame) -> None:
        """Append rows of a localization table (`sureloc.table.LOCALIZATION_COLUMNS`)."""
        count = len(table)
        if count == 0:
            return
        background = table["background_photons"].to_numpy(float)
        columns: list[npt.NDArray[Any]] = [
            self.rows + 1 + np.arange(count),
            table["frame"].to_numpy() + 1,
            table["x_nm"].to_numpy() + self._shift_nm,
            table["y_nm"].to_numpy() + self._shift_nm,
            np.full(count, self._psf_sigma_nm),
            table["photons"].to_numpy(),
            background,
            np.sqrt(np.maximum(background, 0.0) + self._read_variance),
            np.hypot(table["sigma_x_nm"].to_numpy(), table["sigma_y_nm"].to_numpy()) / np.sqrt(2.0),
        ]
        rows = zip(*(column.tolist() for column in columns), strict=True)
        text = "\n".join(_CSV_ROW % row for row in rows) + "\n"
        # ThunderSTORM drops rows with "nan" or "inf" but reads Java's spelling.
        self._file.write(text.replace("nan", "NaN").replace("inf", "Infinity"))
        self.rows += count

    def close(self) -> None:
        """Complete the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def write_thunderstorm(
    table: pd.DataFrame,
    path: str | Path,
    pixel_nm: float,
    psf_sigma_nm: float,
    read_variance_photons2: float = 0.0,
) -> None:
    """Write a whole localization table as ThunderSTORM's CSV (see `ThunderstormWriter`)."""
    with ThunderstormWriter(path, pixel_nm, psf_sigma_nm, read_variance_photons2) as writer:
        writer.append(table)


_FROM_THUNDERSTORM = {
    "frame": "frame",
    "x [nm]": "x_nm",
    "y [nm]": "y_nm",
    "sigma [nm]": "psf_sigma_nm",
    "intensity [photon]": "photons",
    "offset [photon]": "background_photons",
    "uncertainty_xy [nm]": "sigma_xy_nm",
    "uncertainty [nm]": "sigma_xy_nm",
}


def read_thunderstorm(path: str | Path, pixel_nm: float) -> pd.DataFrame:
    """Read a ThunderSTORM CSV into the convention of `sureloc.table`.

    Args:
        path: the file; `frame`, `x [nm]` and `y [nm]` are needed, further columns may lack.
        pixel_nm: pixel size, nm, by half of which the origin moves to the pixel centre.

    Returns:
        Columns `frame` (from 0), `x_nm`, `y_nm`, and where present `psf_sigma_nm`, `photons`,
        `background_photons` and `sigma_xy_nm` (nm, per axis).

    Raises:
        InputError: the file is missing, no such CSV, or a frame is not a whole number from 1.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
        table = pd.read_csv(path, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"The table {path} cannot be read as CSV ({error}).") from error
    lacking = [name for name in ("frame", "x [nm]", "y [nm]") if name not in header]
    if lacking:
        raise InputError(
            f"The table {path} lacks {', '.join(lacking)}; its columns are "
            f"{', '.join(header) or '(none)'}. Export it from ThunderSTORM in nm."
        )
    wanted = {old: new for old, new in _FROM_THUNDERSTORM.items() if old in table.columns}
    if "uncertainty_xy [nm]" in wanted:
        wanted.pop("uncertainty [nm]", None)
    out = table[list(wanted)].rename(columns=wanted)
    try:
        out = out.astype(dict.fromkeys(out.columns, "float64"))
    except ValueError as error:
        raise InputError(f"The table {path} holds a value that is no number ({error}).") from error
    frame = out["frame"].to_numpy()
    if not (np.isfinite(frame) & (frame >= 1) & (frame == np.round(frame))).all():
        raise InputError(
            f"The table {path} has frames outside 1, 2, 3, ...; ThunderSTORM counts from 1. A file "
            "with a frame 0 comes from another program: import it there."
        )
    out["frame"] = frame.astype(np.int64) - 1
    out["x_nm"] -= 0.5 * pixel_nm
    out["y_nm"] -= 0.5 * pixel_nm
    return out
