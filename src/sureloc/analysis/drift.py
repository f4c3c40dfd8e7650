"""Drift: how far the sample moved from frame to frame, and what not knowing it exactly costs.

The drift is estimated from the structure (`cross_correlation`) or from fiducials (`fiducials`); its
uncertainty goes with the rows: precisions and intervals are widened by it, and every posterior
draw of the movie is moved by a posterior draw of the drift.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm

from sureloc.analysis.cross_correlation import redundant_cross_correlation
from sureloc.analysis.drift_path import Averages, DriftPath
from sureloc.analysis.fiducials import track_fiducials
from sureloc.errors import InputError
from sureloc.seeds import numpy_generator
from sureloc.table import DRIFT_COLUMNS, check_rows

Array = npt.NDArray[np.float64]

_LEVELS = {"68": float(norm.ppf(0.84)), "95": float(norm.ppf(0.975))}


class Method(StrEnum):
    """How drift is estimated."""

    RCC = "rcc"
    FIDUCIALS = "fiducials"


class Reference(StrEnum):
    """Where the drift is called zero: in the first frame, or on average over all rows."""

    FIRST = "first"
    MEAN = "mean"


@dataclass(frozen=True)
class Drift:
    """An estimated drift.

    Attributes:
        path: the drift in time.
        averages: the measured averages on which it rests.
        method: how it was measured.
        reference: where it is zero.
        facts: how it came about, by words; fit for JSON.
    """

    path: DriftPath
    averages: Averages
    method: Method
    reference: Reference
    facts: dict[str, float | int | list[list[float]]]


def estimate_drift(
    table: pd.DataFrame,
    method: Method = Method.RCC,
    segments: int | None = None,
    fiducials_nm: Array | None = None,
    reference: Reference = Reference.FIRST,
) -> Drift:
    """Estimate the drift of a table.

    Args:
        table: rows with `frame`, `x_nm`, `y_nm`, `sigma_x_nm` and `sigma_y_nm`.
        method: redundant cross-correlation or fiducials.
        segments: number of stretches for cross-correlation; None chooses.
        fiducials_nm: where fiducials are, shape (fiducials, 2); None finds them.
        reference: where the drift is called zero.

    Returns:
        The drift with its uncertainty.

    Raises:
        InputError: the table was corrected before, has no or too few rows, or shows too little.
    """
    names = {column.name for column in DRIFT_COLUMNS}
    if names <= set(table.columns):
        raise InputError(
            "The table was corrected for drift before (it has drift_x_nm). Take the table that it "
            "was made from."
        )
    check_rows(table, "to tell drift from")
    weights = None
    if reference is Reference.MEAN:
        frame = table["frame"].to_numpy(np.int64)
        weights = np.bincount(frame - frame.min()).astype(float)
    if method is Method.RCC:
        if fiducials_nm is not None:
            raise InputError("Positions of fiducials need --method fiducials.")
        found = redundant_cross_correlation(table, segments, weights)
        facts: dict[str, float | int | list[list[float]]] = {
            "segments": len(found.averages.value_nm),
            "pairs": found.pairs,
            "pairs_left_out": found.left_out,
            "kernel_nm": found.kernel_nm,
        }
        return Drift(found.path, found.averages, method, reference, facts)
    if segments is not None:
        raise InputError("segments is for --method rcc; fiducials are followed frame by frame.")
    tracked = track_fiducials(table, fiducials_nm, weights)
    facts = {
        "fiducials": len(tracked.position_nm),
        "positions_nm": tracked.position_nm.round(2).tolist(),
        "least_presence": float(tracked.presence.min()),
        "widening": tracked.widening,
    }
    return Drift(tracked.path, tracked.averages, method, reference, facts)


def corrected(table: pd.DataFrame, path: DriftPath) -> pd.DataFrame:
    """Take the drift from a table of localizations, and add its uncertainty to theirs.

    Args:
        table: rows with `frame`, `x_nm`, `y_nm`, and any of the precisions and intervals of
            `sureloc.table.LOCALIZATION_COLUMNS`.
        path: the drift.

    Returns:
        The table with `sureloc.table.DRIFT_COLUMNS` added. Variances add up. The ends of an
        interval move away from the mean so that their distance squared grows by that of the
        drift's own interval: exact for normal errors, and nearly so for others. Bounds
        (`crlb_x_nm`) are of the measurement alone and stay.
    """
    out = table.copy()
    mean, covariance = path.at(table["frame"].to_numpy())
    for i, axis in enumerate("xy"):
        out[f"{axis}_nm"] = table[f"{axis}_nm"] - mean[:, i]
        variance = covariance[:, i, i]
        if (name := f"sigma_{axis}_nm") in table:
            out[name] = np.sqrt(table[name].to_numpy(float) ** 2 + variance)
        for level, z in _LEVELS.items():
            names = [f"{axis}_{end}{level}_nm" for end in ("lo", "hi")]
            if set(names) <= set(table.columns):
                at, low, high = (table[name].to_numpy(float) for name in (f"{axis}_nm", *names))
                widened = _widened(at, low, high, z**2 * variance)
                for name, end in zip(names, widened, strict=True):
                    out[name] = end - mean[:, i]
    if "cov_xy_nm2" in table:
        out["cov_xy_nm2"] = table["cov_xy_nm2"] + covariance[:, 0, 1]
    out["drift_x_nm"], out["drift_y_nm"] = mean.T
    out["sigma_drift_x_nm"] = np.sqrt(covariance[:, 0, 0])
    out["sigma_drift_y_nm"] = np.sqrt(covariance[:, 1, 1])
    out["cov_drift_xy_nm2"] = covariance[:, 0, 1]
    return out


def _widened(mean: Array, low: Array, high: Array, added: Array) -> tuple[Array, Array]:
    """Widen intervals for an independent normal error whose own half-width squared is `added`."""
    below, above = mean - low, high - mean
    # A mean may lie outside its interval, between two places; then its middle holds still.
    middle = 0.5 * (low + high)
    inside = (below >= 0) & (above >= 0)
    half = np.sqrt((0.5 * (high - low)) ** 2 + added)
    return (
        np.where(inside, mean - np.sqrt(below**2 + added), middle - half),
        np.where(inside, mean + np.sqrt(above**2 + added), middle + half),
    )


class DrawCorrection:
    """Take one posterior draw of the drift from each posterior draw of a movie."""

    def __init__(self, path: DriftPath, seed: int) -> None:
        """Take the drift, and a seed: the same one gives the same draws."""
        self._path = path
        self._seed = seed
        self._drawn: dict[int, Array] = {}

    def corrected(self, draws: pd.DataFrame) -> pd.DataFrame:
        """Give rows with `sureloc.table.DRAW_COLUMNS` moved by their draw's drift.

        Frames before the first or after the last of the drift's path take that one's.
        """
        number = draws["draw"].to_numpy(np.int64)
        for one in np.unique(number).tolist():
            if one not in self._drawn:
                rng = numpy_generator(self._seed, "drift", one)
                self._drawn[one] = self._path.sample(rng)
        first, last = int(self._path.nodes[0]), int(self._path.nodes[-1])
        at = np.clip(draws["frame"].to_numpy(np.int64), first, last) - first
        moved = np.zeros((len(draws), 2))
        for one in np.unique(number).tolist():
            here = number == one
            moved[here] = self._drawn[one][at[here]]
        return draws.assign(x_nm=draws["x_nm"] - moved[:, 0], y_nm=draws["y_nm"] - moved[:, 1])


def drift_table(path: DriftPath) -> pd.DataFrame:
    """Give the drift of every frame: `frame`, `x_nm`, `y_nm`, `sigma_x_nm` and `sigma_y_nm`."""
    frame = np.arange(int(path.nodes[0]), int(path.nodes[-1]) + 1)
    mean, covariance = path.at(frame)
    return pd.DataFrame(
        {
            "frame": frame,
            "x_nm": mean[:, 0],
            "y_nm": mean[:, 1],
            "sigma_x_nm": np.sqrt(covariance[:, 0, 0]),
            "sigma_y_nm": np.sqrt(covariance[:, 1, 1]),
        }
    )
