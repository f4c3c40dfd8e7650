"""A table against the truth: found and missed emitters, errors over their bounds, coverage.

Both tables count positions from the centre of pixel (0, 0). Matching is one to one per frame and
minimises the summed distance (Hungarian, Kuhn 1955) among pairs within a radius.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

RADIUS_NM = 250.0
_FAR = 1e9  # worse than leaving both unmatched


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
    pairs = len(mine)
    errors = {axis: (found[f"{axis}_nm"] - real[f"{axis}_nm"]).to_numpy(float) for axis in "xy"}
    both = np.concatenate([errors["x"], errors["y"]])
    bounds = _both(found, "crlb_{}_nm")
    inside = {
        level: np.concatenate(
            [
                (real[f"{a}_nm"] >= found[f"{a}_lo{level}_nm"])
                & (real[f"{a}_nm"] <= found[f"{a}_hi{level}_nm"])
                for a in "xy"
            ]
        )
        for level in (68, 95)
    }
    rmse, crlb = _rms(both), _rms(bounds)
    photons = (
        float(np.median(found["photons"] / real["photons"]))
        if pairs and "photons" in real
        else float("nan")
    )
    return Comparison(
        radius_nm=radius_nm,
        truths=len(truth),
        rows=len(table),
        pairs=pairs,
        jaccard=_ratio(pairs, len(truth) + len(table) - pairs),
        recall=_ratio(pairs, len(truth)),
        precision=_ratio(pairs, len(table)),
        rmse_x_nm=_rms(errors["x"]),
        rmse_y_nm=_rms(errors["y"]),
        rmse_axis_nm=rmse,
        rmse_2d_nm=rmse * 2**0.5,
        crlb_nm=crlb,
        rmse_over_crlb=rmse / crlb,
        median_error_over_sd=_median(np.abs(both) / _both(found, "sigma_{}_nm")),
        coverage_68=_mean(inside[68]),
        coverage_95=_mean(inside[95]),
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
        distance = cdist(
            table[["x_nm", "y_nm"]].to_numpy(float)[rows],
            truth[["x_nm", "y_nm"]].to_numpy(float)[real],
        )
        near = distance <= radius_nm
        one, other = linear_sum_assignment(np.where(near, distance, _FAR))
        good = near[one, other]
        mine.append(rows[one[good]])
        theirs.append(real[other[good]])
    return np.concatenate(mine), np.concatenate(theirs)


def _both(found: pd.DataFrame, name: str) -> Array:
    return np.concatenate([found[name.format(axis)].to_numpy(float) for axis in "xy"])


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else float("nan")


def _mean(values: npt.NDArray[np.bool_]) -> float:
    return float(np.mean(values)) if values.size else float("nan")


def _median(values: Array) -> float:
    return float(np.median(values)) if values.size else float("nan")


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
