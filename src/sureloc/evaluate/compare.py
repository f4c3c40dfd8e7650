"""A table against the truth: found and missed emitters, errors over their bounds, coverage.

Both tables count positions from the centre of pixel (0, 0). Matching is one to one per frame and
minimises the summed distance (Hungarian, Kuhn 1955) among pairs within a radius.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.scoring.matching import (
    Detection,
    interval_coverage,
    match_within,
    root_mean_square,
)

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

RADIUS_NM = 250.0


@dataclass(frozen=True)
class Comparison:
    """How a localization table compares with the truth.

    Attributes:
        radius_nm: largest distance of a pair, nm.
        truths, rows, pairs: emitters that exist, rows found, and pairs of them.
        jaccard: pairs / (truths + rows - pairs).
        recall, precision: pairs over truths and over rows.
        rmse_x_nm, rmse_y_nm: root mean squared error per axis of the pairs, nm.
        rmse_axis_nm: of both axes together, per axis, nm.
        rmse_2d_nm: Euclidean, sqrt(2) times as large, nm.
        crlb_nm: root mean squared Cramer-Rao bound per axis stated for the pairs, nm.
        rmse_over_crlb: rmse_axis_nm / crlb_nm.
        median_error_over_sd: median |error| over the stated sd, 0.674 where it is Gaussian.
        coverage_68, coverage_95: share of coordinates inside the stated intervals.
        photons_ratio: median of the estimated over the true photons.
    """

    radius_nm: float
    truths: int
    rows: int
    pairs: int
    jaccard: float
    recall: float
    precision: float
    rmse_x_nm: float
    rmse_y_nm: float
    rmse_axis_nm: float
    rmse_2d_nm: float
    crlb_nm: float
    rmse_over_crlb: float
    median_error_over_sd: float
    coverage_68: float
    coverage_95: float
    photons_ratio: float

    def as_dict(self) -> dict[str, float | None]:
        """Give all numbers by name, None where there is nothing to measure; fit for JSON."""
        values = asdict(self)
        return {k: v if np.isfinite(v) else None for k, v in values.items()}


def compare(table: pd.DataFrame, truth: pd.DataFrame, radius_nm: float = RADIUS_NM) -> Comparison:
    """Compare localizations with the truth.

    Args:
        table: rows with `sureloc.table.LOCALIZATION_COLUMNS`.
        truth: rows with `frame`, `x_nm`, `y_nm` and, if known, `photons`.
        radius_nm: largest distance of a pair, nm.

    Returns:
        The comparison; its errors are NaN where no pair was found.
    """
    mine, theirs = matched(table, truth, radius_nm)
    found = table.iloc[mine].reset_index(drop=True)
    real = truth.iloc[theirs].reset_index(drop=True)
    detection = Detection(len(truth), len(table), len(mine))
    errors = {axis: (found[f"{axis}_nm"] - real[f"{axis}_nm"]).to_numpy(float) for axis in "xy"}
    both = np.concatenate([errors["x"], errors["y"]])
    rmse, crlb = root_mean_square(both), root_mean_square(_both(found, "crlb_{}_nm"))
    held = {level: coordinates_held(found, real, level) for level in (68, 95)}
    photons = (
        float(np.median(found["photons"] / real["photons"]))
        if detection.pairs and "photons" in real
        else float("nan")
    )
    return Comparison(
        radius_nm=radius_nm,
        truths=detection.truths,
        rows=detection.rows,
        pairs=detection.pairs,
        jaccard=detection.jaccard,
        recall=detection.recall,
        precision=detection.precision,
        rmse_x_nm=root_mean_square(errors["x"]),
        rmse_y_nm=root_mean_square(errors["y"]),
        rmse_axis_nm=rmse,
        rmse_2d_nm=rmse * 2**0.5,
        crlb_nm=crlb,
        rmse_over_crlb=rmse / crlb,
        median_error_over_sd=_median(np.abs(both) / _both(found, "sigma_{}_nm")),
        coverage_68=held[68],
        coverage_95=held[95],
        photons_ratio=photons,
    )


def matched(
    table: pd.DataFrame, truth: pd.DataFrame, radius_nm: float = RADIUS_NM
) -> tuple[Index, Index]:
    """Pair rows of two tables frame by frame.

    Returns:
        Positions of the paired rows in `table` and in `truth`, both of shape (pairs,).
    """
    by_frame = truth.groupby("frame", sort=False).indices
    mine: list[Index] = [np.empty(0, np.int64)]
    theirs: list[Index] = [np.empty(0, np.int64)]
    for frame, rows in table.groupby("frame", sort=True).indices.items():
        real = by_frame.get(frame)
        if real is None:
            continue
        one, other = match_within(
            table[["x_nm", "y_nm"]].to_numpy(float)[rows],
            truth[["x_nm", "y_nm"]].to_numpy(float)[real],
            radius_nm,
        )
        mine.append(np.asarray(rows, np.int64)[one])
        theirs.append(np.asarray(real, np.int64)[other])
    return np.concatenate(mine), np.concatenate(theirs)


def coordinates_held(rows: pd.DataFrame, truth: pd.DataFrame, level: int) -> float:
    """Give the share of true coordinates, of x and y together, inside the stated intervals.

    Args:
        rows: with the intervals of that level, paired with `truth` row by row.
        truth: `x_nm` and `y_nm`.
        level: of the intervals, percent.

    Returns:
        The share, NaN where there are no pairs.
    """
    return interval_coverage(
        _both(rows, f"{{}}_lo{level}_nm"),
        _both(rows, f"{{}}_hi{level}_nm"),
        _both(truth, "{}_nm"),
    )


def _both(found: pd.DataFrame, name: str) -> Array:
    return np.concatenate([found[name.format(axis)].to_numpy(float) for axis in "xy"])


def _median(values: Array) -> float:
    return float(np.median(values)) if values.size else float("nan")
