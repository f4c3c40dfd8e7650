"""The rows of a run packed for the report: a few bytes a row, decoded by the page's own script.

Every column becomes whole numbers. Positions are counted in steps of a twelfth of a small sigma or
less. All other quantities become the number of the bin they lie in, and the filters of the report
stand on the edges of these bins: whether a row passes a filter is decided by its exact value. Byte
planes of all columns are compressed together (zlib, RFC 1950) and written in base64.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.io.tables import table_chunks
from sureloc.report.image_axes import round_length

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint32]

MOST_ROWS = (
    1_000_000  # of a longer table every second, third, ... row is shown, which the page says
)
SIGMA_STEP, PHOTONS_STEP, BACKGROUND_STEP, ERROR_STEP = 0.01, 0.005, 0.02, 0.05
PROBABILITY_EDGES = np.arange(201) / 200
INTERVAL_STEP = 0.08  # of an interval's end from the position, in sigmas
INTERVAL_ZERO = 2000  # code of an end that lies on the position; 0 is an end that does not exist
SHAPE_LEVELS = 250  # sigma_x^2 as a share of sigma_x^2 + sigma_y^2
_SMALL_SIGMA = 0.1  # quantile of sigma by which the step of positions is chosen
_LEAST_STEPS = 12.0  # of a position in a small sigma
_SMALLEST_SHARE = 1e-6  # of the largest value; smaller ones are not told apart
_NEEDED = (
    *("frame", "x_nm", "y_nm", "sigma_x_nm", "sigma_y_nm", "photons", "sigma_photons"),
    *("background_photons", "p_exists", "x_lo95_nm", "x_hi95_nm", "y_lo95_nm", "y_hi95_nm"),
    *("trusted", "reason"),
)


@dataclass(frozen=True)
class PackedRows:
    """Rows that the page's script can decode.

    Attributes:
        about: what the script must know, JSON-serializable: counts, columns, reasons.
        data: the compressed columns, base64.
        step_nm: of positions, nm.
    """

    about: dict[str, object]
    data: str
    step_nm: float


@dataclass(frozen=True)
class _Column:
    """One column as whole numbers, and how to read them.

    Attributes:
        name: what the script calls it.
        codes: one a row.
        reading: JSON-serializable: `edges` of bins, or `origin` and `step`.
        differences: whether each code is stored as its difference to the one before.
    """

    name: str
    codes: Codes
    reading: dict[str, object]
    differences: bool = False


def read_rows(path: Path, rows: int, most: int = MOST_ROWS) -> pd.DataFrame:
    """Read what the report shows of a table of localizations.

    Args:
        path: Parquet table that `sureloc.io.tables.TableWriter` wrote.
        rows: how many rows it has.
        most: how many are read at most, evenly over the table.

    Returns:
        The first row, and every `stride_of(rows, most)`-th from there on, in the table's order.
    """
    stride = stride_of(rows, most)
    parts: list[pd.DataFrame] = []
    start = 0
    for chunk in table_chunks(path):
        parts.append(chunk[list(_NEEDED)].iloc[-start % stride :: stride])
        start += len(chunk)
    if parts:
        return pd.concat(parts, ignore_index=True)
    return pd.DataFrame({name: [] for name in _NEEDED})


def stride_of(rows: int, most: int = MOST_ROWS) -> int:
    """Give k such that every k-th of the rows is shown: 1 as long as there are not too many."""
    return max(1, -(-rows // most))


def sigma_nm(table: pd.DataFrame) -> Array:
    """Give one sigma a row, nm: the root of the mean of both axes' variances."""
    variance = (table["sigma_x_nm"] ** 2 + table["sigma_y_nm"] ** 2) / 2
    return np.asarray(variance**0.5, float)


def median_sigma_nm(table: pd.DataFrame) -> float | None:
    """Give the median of what is finite of `sigma_nm`, or None where nothing is."""
    sigma = sigma_nm(table)
    finite = sigma[np.isfinite(sigma)]
    return float(np.median(finite)) if finite.size else None


def pack_rows(table: pd.DataFrame, rows: int) -> PackedRows:
    """Pack rows for the page.

    Args:
        table: rows of `read_rows`, with finite positions.
        rows: how many the whole table has.
    """
    sigma = sigma_nm(table)
    step = position_step_nm(sigma)
    columns = list(_columns(table, sigma, step))
    blocks, layout = [], []
    for column in columns:
        planes, size = _planes(column)
        blocks.append(planes)
        layout.append(
            {
                "name": column.name,
                "bytes": size,
                "differences": column.differences,
                **column.reading,
            }
        )
    about: dict[str, object] = {
        "rows": len(table),
        "of": rows,
        "stride": stride_of(rows),
        "median_sigma_nm": median_sigma_nm(table),
        "columns": layout,
        "reasons": _doubts(table)[1],
        "interval_step": INTERVAL_STEP,
        "interval_zero": INTERVAL_ZERO,
        "shape_levels": SHAPE_LEVELS,
    }
    packed = zlib.compress(b"".join(blocks), 6)
    return PackedRows(about, base64.b64encode(packed).decode("ascii"), step)


def position_step_nm(sigma: Array) -> float:
    """Give the step of positions, nm: 1, 2 or 5 times a power of ten, fine beside a small sigma."""
    finite = sigma[np.isfinite(sigma) & (sigma > 0)]
    small = float(np.quantile(finite, _SMALL_SIGMA)) if finite.size else 1.0
    return round_length(small / _LEAST_STEPS)


def bin_edges(values: Array, step: float) -> Array:
    """Give edges of bins that hold all finite values, about `step` wide relative to themselves.

    Edges are numbers of at most four digits, so that a filter can be named exactly. What is below a
    millionth of the largest value shares one bin.

    Args:
        values: any shape; those that are not finite need no bin.
        step: relative width of a bin, at least 0.001.
    """
    finite = values[np.isfinite(values)]
    positive = finite[finite > 0]
    if positive.size == 0:
        positive = np.ones(1)
    high = float(positive.max())
    low = max(float(positive.min()), _SMALLEST_SHARE * high)
    number = int(np.ceil(np.log(high / low) / step)) + 3
    edges = np.unique([float(f"{e:.4g}") for e in low * np.exp(step * np.arange(-1, number))])
    if finite.size and finite.min() < edges[0]:
        edges = np.concatenate([[finite.min()], edges])
    return np.asarray(edges, float)


def bins(values: Array, edges: Array) -> Codes:
    """Give the bin of each value: k with edges[k - 1] <= value < edges[k]; 0 if not finite.

    A value at or above the last edge belongs to the bin above it.
    """
    codes = np.searchsorted(edges, values, side="right")
    return np.asarray(np.where(np.isfinite(values), codes, 0), np.uint32)


def json_for_script(content: object) -> str:
    """Give JSON that can stand inside an HTML script element, whatever its strings hold."""
    return json.dumps(content, allow_nan=False).replace("<", "\\u003c")


def _columns(table: pd.DataFrame, sigma: Array, step: float) -> Iterable[_Column]:
    frame = table["frame"].to_numpy(np.int64)
    first = int(frame.min()) if frame.size else 0
    yield _Column(
        "frame", (frame - first).astype(np.uint32), {"origin": first, "step": 1}, differences=True
    )
    # Rows of a frame are ordered by y: differences of y are small.
    for axis, differences in (("x", False), ("y", True)):
        steps = np.rint(table[f"{axis}_nm"].to_numpy(float) / step).astype(np.int64)
        origin = int(steps.min()) if steps.size else 0
        codes = (steps - origin).astype(np.uint32)
        yield _Column(axis, codes, {"origin": origin * step, "step": step}, differences)
    yield _binned("sigma", sigma, bin_edges(sigma, SIGMA_STEP))
    yield _Column("shape", _shape(table), {})
    for axis in "xy":
        for end, sign in (("lo", -1), ("hi", 1)):
            yield _Column(f"{axis}_{end}", _interval_end(table, axis, end, sign), {})
    photons = table["photons"].to_numpy(float)
    yield _binned("photons", photons, bin_edges(photons, PHOTONS_STEP))
    share = table["sigma_photons"].to_numpy(float) / np.maximum(np.abs(photons), 1e-9)
    yield _binned("error", share, bin_edges(share, ERROR_STEP))
    background = table["background_photons"].to_numpy(float)
    yield _binned("background", background, bin_edges(background, BACKGROUND_STEP))
    yield _binned("p_exists", table["p_exists"].to_numpy(float), PROBABILITY_EDGES)
    yield _Column("doubt", _doubts(table)[0], {})


def _binned(name: str, values: Array, edges: Array) -> _Column:
    return _Column(name, bins(values, edges), {"edges": edges.tolist()})


def _shape(table: pd.DataFrame) -> Codes:
    """Give sigma_x^2 over the sum of both variances, in `SHAPE_LEVELS` levels."""
    x, y = (table[f"sigma_{axis}_nm"].to_numpy(float) ** 2 for axis in "xy")
    share = np.divide(x, x + y, out=np.full(x.shape, 0.5), where=np.isfinite(x + y) & (x + y > 0))
    return np.asarray(np.rint(share * SHAPE_LEVELS), np.uint32)


def _interval_end(table: pd.DataFrame, axis: str, end: str, sign: int) -> Codes:
    """Give the distance of an interval's end from the position, in sigmas of that axis."""
    beyond = sign * (table[f"{axis}_{end}95_nm"] - table[f"{axis}_nm"]).to_numpy(float)
    # As the page knows it, so that the end itself is right.
    share = _shape(table) / SHAPE_LEVELS
    share = share if axis == "x" else 1.0 - share
    sigma = sigma_nm(table) * np.sqrt(2 * np.maximum(share, 0.5 / SHAPE_LEVELS))
    steps = np.divide(beyond, sigma, out=np.full(beyond.shape, np.nan), where=sigma > 0)
    codes = np.clip(np.rint(steps / INTERVAL_STEP) + INTERVAL_ZERO, 1, 65535)
    return np.where(np.isfinite(steps), codes, 0).astype(np.uint32)


def _doubts(table: pd.DataFrame) -> tuple[Codes, list[str]]:
    """Give the number of each row's reason not to be trusted, from 1, or 0; and the reasons."""
    doubted = ~table["trusted"].to_numpy(bool)
    number, reasons = pd.factorize(table["reason"].to_numpy(object)[doubted], sort=True)
    codes = np.zeros(len(table), np.uint32)
    codes[doubted] = 1 + number
    return codes, [str(reason) for reason in reasons]


def _planes(column: _Column) -> tuple[bytes, int]:
    """Give the bytes of a column, lowest first, each as a plane of all rows, and how many."""
    codes = column.codes
    size = next(n for n in (1, 2, 3, 4) if n == 4 or int(codes.max(initial=0)) < 256**n)
    if column.differences:
        codes = np.diff(codes, prepend=np.uint32(0))  # wraps round, as the page's sums do
    return b"".join((codes >> 8 * k & 0xFF).astype(np.uint8).tobytes() for k in range(size)), size
