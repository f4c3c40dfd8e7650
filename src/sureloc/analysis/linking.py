"""One row for each molecule: rows of successive frames that agree within their precision.

A row is compared with the position of a molecule so far, which all its rows together give. The
squared displacement over the covariance of both, D2, follows a chi2 distribution of two degrees of
freedom where both are one molecule, whatever their precisions: so a gate at its `GATE_QUANTILE`
breaks one true link in a thousand, and mean D2 / 2 should be 1. All links to a frame are chosen
together (Hungarian method, Kuhn 1955), so that the order of rows does not matter.

An error that a molecule's rows have in common (that of the drift, see `sureloc.table`) is no part
of D2 and does not become smaller by merging.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.stats import chi2, norm

from sureloc.errors import InputError
from sureloc.limits import check_limit
from sureloc.table import DRIFT_COLUMNS, LINK_COLUMNS, check_columns

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

GATE_QUANTILE = 0.999
GATE = float(chi2.ppf(GATE_QUANTILE, 2))  # 13.8: 3.7 standard deviations
LEVELS = {"68": float(norm.ppf(0.84)), "95": float(norm.ppf(0.975))}


@dataclass(frozen=True)
class Links:
    """Which rows of a table belong to one molecule.

    Attributes:
        molecule: number of each row's molecule, from 0 in order of its first row (by frame, then
            x and y), shape (rows,).
        squared: D2 of every link, shape (links,).
    """

    molecule: Index
    squared: Array

    @property
    def molecules(self) -> int:
        """Number of molecules."""
        return int(self.molecule.max()) + 1 if self.molecule.size else 0


def link_rows(table: pd.DataFrame, gap: int = 1, radius_nm: float | None = None) -> Links:
    """Find the rows that belong to one molecule.

    Args:
        table: rows with `frame`, `x_nm`, `y_nm`, `sigma_x_nm`, `sigma_y_nm` and, if known,
            `cov_xy_nm2` and `sureloc.table.DRIFT_COLUMNS`.
        gap: how many frames in a row a molecule may miss and still be the same one.
        radius_nm: largest distance between a row and its molecule so far; None lets the stated
            precisions decide (`GATE`).

    Returns:
        The molecule of every row.

    Raises:
        InputError: a column lacks, a position or precision cannot be, the table was linked before,
            or an argument is out of range.
    """
    _check(table, gap, radius_nm)
    order = _in_order(table)
    frame = table["frame"].to_numpy(np.int64)[order]
    position = table[["x_nm", "y_nm"]].to_numpy(float)[order]
    information = _inverse(own_covariance(table)[order])
    molecules = _Molecules(gap, radius_nm)
    numbers = np.empty(len(order), np.int64)
    squared: list[Array] = [np.empty(0)]
    starts = np.flatnonzero(np.diff(frame, prepend=frame[:1] - 1))
    for first, last in pairwise([*starts, len(frame)]):
        rows = slice(first, last)
        numbers[rows], some = molecules.take(int(frame[first]), position[rows], information[rows])
        squared.append(some)
    molecule = np.empty_like(numbers)
    molecule[order] = numbers
    return Links(molecule, np.concatenate(squared))


class _Molecules:
    """The molecules that may still go on, and where they are."""

    def __init__(self, gap: int, radius_nm: float | None) -> None:
        self._gap = gap
        self._radius_nm = radius_nm
        self._number = np.empty(0, np.int64)
        self._last = np.empty(0, np.int64)
        self._position = np.empty((0, 2))
        self._information = np.empty((0, 2, 2))
        self._known = 0

    def take(self, frame: int, position: Array, information: Array) -> tuple[Index, Array]:
        """Give the molecules of a frame's rows, and D2 of those rows that were linked."""
        keep = self._last >= frame - 1 - self._gap
        self._number, self._last = self._number[keep], self._last[keep]
        self._position, self._information = self._position[keep], self._information[keep]
        old, new, squared = self._chosen(position, information)
        number = np.full(len(position), -1)
        number[new] = self._number[old]
        fresh = number < 0
        number[fresh] = self._known + np.arange(int(fresh.sum()))
        self._known += int(fresh.sum())
        both = self._information[old] + information[new]
        pull = (information[new] @ (position[new] - self._position[old])[:, :, None])[:, :, 0]
        self._position[old] += np.linalg.solve(both, pull[:, :, None])[:, :, 0]
        self._information[old] = both
        self._last[old] = frame
        self._number = np.concatenate([self._number, number[fresh]])
        self._last = np.concatenate([self._last, np.full(int(fresh.sum()), frame)])
        self._position = np.concatenate([self._position, position[fresh]])
        self._information = np.concatenate([self._information, information[fresh]])
        return number, squared

    def _chosen(self, position: Array, information: Array) -> tuple[Index, Index, Array]:
        """Give the linked molecules (their place here), their rows, and D2."""
        empty = np.empty(0, np.int64)
        if len(self._number) == 0:
            return empty, empty, np.empty(0)
        mine, theirs = np.linalg.inv(self._information), np.linalg.inv(information)
        reach = self._radius_nm
        if reach is None:
            widest = sum(np.linalg.eigvalsh(c)[:, 1].max() for c in (mine, theirs))
            reach = float(np.sqrt(GATE * widest))
        near = cKDTree(self._position).sparse_distance_matrix(
            cKDTree(position), reach * (1 + 1e-9), output_type="ndarray"
        )
        old, new = near["i"].astype(np.int64), near["j"].astype(np.int64)
        apart = position[new] - self._position[old]
        covariance = mine[old] + theirs[new]
        squared = _quadratic(np.linalg.inv(covariance), apart)
        if self._radius_nm is None:
            good = squared <= GATE
            worth, spread = GATE - squared, np.log(np.linalg.det(covariance))
        else:
            distance2 = (apart**2).sum(axis=1)
            good = distance2 <= reach**2
            worth, spread = 1.0 - distance2 / reach**2, np.zeros(len(old))
        old, new, squared = old[good], new[good], squared[good]
        shape = len(self._number), len(position)
        picked = _assignment(old, new, worth[good], spread[good], shape)
        return old[picked], new[picked], squared[picked]


def _assignment(
    old: Index, new: Index, worth: Array, spread: Array, shape: tuple[int, int]
) -> Index:
    """Give which candidate links to make: one to one, of the largest summed worth.

    `worth` less `spread` (the log determinant of the covariance) is twice a log likelihood, up to
    a constant for each group of molecules and rows that compete. That is chosen so that a link at
    the gate, between the least precise of them, is as good as none.
    """
    olds, news = shape
    if old.size == 0:
        return np.empty(0, np.int64)
    graph = coo_array((np.ones(old.size), (old, olds + new)), shape=(olds + news, olds + news))
    group = connected_components(graph, directed=False)[1][old]
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    picked: list[Index] = []
    for some in np.split(order, starts[1:]):
        if some.size == 1:
            picked.append(some)
            continue
        (rows, r), (columns, c) = (np.unique(a[some], return_inverse=True) for a in (old, new))
        table = np.full((rows.size, columns.size), -1)
        table[r, c] = some
        gain = np.zeros(table.shape)
        gain[r, c] = worth[some] + spread[some].max() - spread[some]
        i, j = linear_sum_assignment(gain, maximize=True)
        chosen = table[i, j]
        picked.append(chosen[chosen >= 0])
    return np.concatenate(picked)


def merged(table: pd.DataFrame, links: Links) -> pd.DataFrame:
    """Merge the rows of each molecule into one.

    Args:
        table: the table that `links` belongs to.
        links: what `link_rows` gave for it.

    Returns:
        One row for each molecule, in order of frame, x and y, with the table's columns and
        `sureloc.table.LINK_COLUMNS`. Position: of the largest combined likelihood, each row with
        its whole covariance. Intervals: as wide as independent errors make them. Photons: summed.
        Background, chi2: mean. `p_exists`: that not all of its rows are false, 1 - prod(1 - p).
        `frame` is the first frame, `last_frame` the last, `rows` the number of rows, those that
        were merged into the table's own rows before included, `trusted` whether all rows are.
        Other columns: the mean of numbers, else the first row's value.
    """
    order = _in_order(table)
    rows = table.iloc[order].reset_index(drop=True)
    merger = _Merger(rows, links.molecule[order], links.molecules)
    out = merger.table()
    added = [column.name for column in LINK_COLUMNS if column.name not in table]
    return out[[*table.columns, *added]].sort_values(["frame", "x_nm", "y_nm"], ignore_index=True)


class _Merger:
    def __init__(self, rows: pd.DataFrame, molecule: Index, molecules: int) -> None:
        self._rows = rows
        self._molecule = molecule
        self._molecules = molecules
        self._number = np.bincount(molecule, minlength=molecules)
        self._covariance = own_covariance(rows)
        information = _inverse(self._covariance)
        summed = np.stack([self._sum(information[:, i, j]) for i, j in _CELLS], axis=1)
        self._combined = np.linalg.inv(summed.reshape(-1, 2, 2))
        self._weight = self._combined[molecule] @ information
        # Shared errors stay what they are; the weights of a molecule's rows add up to one.
        drift = _drift_covariance(rows)
        self._drift = np.stack([self._mean(drift[:, i, j]) for i, j in _CELLS], axis=1).reshape(
            -1, 2, 2
        )
        self._row_drift = drift

    def table(self) -> pd.DataFrame:
        special = self._special()
        columns = {
            name: special[name] if name in special else self._other(name)
            for name in self._rows.columns
        }
        last = "last_frame" if "last_frame" in self._rows else "frame"
        columns["last_frame"] = self._of_extremes(np.maximum, last)
        columns["rows"] = self._number
        if "rows" in self._rows:
            columns["rows"] = self._sum(self._rows["rows"].to_numpy(float)).astype(np.int64)
        columns["link_chi2"] = self._link_chi2()
        return pd.DataFrame(columns)

    def _special(self) -> dict[str, npt.NDArray[np.generic]]:
        position = self._position()
        total = self._combined + self._drift
        out: dict[str, npt.NDArray[np.generic]] = {
            "frame": self._of_extremes(np.minimum, "frame"),
            "x_nm": position[:, 0],
            "y_nm": position[:, 1],
            "sigma_x_nm": np.sqrt(total[:, 0, 0]),
            "sigma_y_nm": np.sqrt(total[:, 1, 1]),
            "cov_xy_nm2": total[:, 0, 1],
        }
        for name in ("sigma_photons", "crlb_x_nm", "crlb_y_nm"):
            if name in self._rows:
                values = self._rows[name].to_numpy(float)
                power = 2.0 if name == "sigma_photons" else -2.0
                with np.errstate(divide="ignore"):
                    out[name] = self._sum(values**power) ** (1 / power)
        if "photons" in self._rows:
            out["photons"] = self._sum(self._rows["photons"].to_numpy(float))
        if "p_exists" in self._rows:
            absent = np.ones(self._molecules)
            np.multiply.at(absent, self._molecule, 1.0 - self._rows["p_exists"].to_numpy(float))
            out["p_exists"] = 1.0 - absent
        for name in _SHARED_SD:
            if name in self._rows:
                out[name] = np.sqrt(self._mean(self._rows[name].to_numpy(float) ** 2))
        return out | self._intervals(position)

    def _position(self) -> Array:
        # Weights times positions relative to the molecule's first row, against rounding.
        position = self._rows[["x_nm", "y_nm"]].to_numpy(float)
        first = position[self._first()]
        apart = (self._weight @ (position - first[self._molecule])[:, :, None])[:, :, 0]
        return first + np.stack([self._sum(apart[:, i]) for i in range(2)], axis=1)

    def _intervals(self, position: Array) -> dict[str, npt.NDArray[np.generic]]:
        """Give ends whose distance squared from the mean adds up, as for independent errors."""
        out: dict[str, npt.NDArray[np.generic]] = {}
        for level, z in LEVELS.items():
            for end, sign in (("lo", -1.0), ("hi", 1.0)):
                names = [f"{axis}_{end}{level}_nm" for axis in "xy"]
                if not set(names) <= set(self._rows.columns):
                    continue
                width = sign * (
                    self._rows[names].to_numpy(float) - self._rows[["x_nm", "y_nm"]].to_numpy(float)
                )
                own = signed_square(width) - z**2 * np.diagonal(self._row_drift, axis1=1, axis2=2)
                for axis, name in enumerate(names):
                    other = 1 - axis
                    a, b = self._weight[:, axis, axis], self._weight[:, axis, other]
                    shared = 2 * a * b * z**2 * self._covariance[:, 0, 1]
                    squared = self._sum(a**2 * own[:, axis] + b**2 * own[:, other] + shared)
                    squared += z**2 * self._drift[:, axis, axis]
                    out[name] = position[:, axis] + sign * signed_root(squared)
        return out

    def _link_chi2(self) -> Array:
        apart = self._rows[["x_nm", "y_nm"]].to_numpy(float) - self._position()[self._molecule]
        squared = self._sum(_quadratic(_inverse(self._covariance), apart))
        freedom = 2.0 * (self._number - 1)
        empty = np.full(len(squared), np.nan)
        return np.asarray(np.divide(squared, freedom, out=empty, where=freedom > 0))

    def _other(self, name: str) -> npt.NDArray[np.generic]:
        column = self._rows[name]
        if column.dtype == bool:
            return np.asarray(self._number == self._sum(column.to_numpy(float)))
        if column.dtype.kind == "f":
            return self._mean(column.to_numpy(float))
        values = column.to_numpy(object) if column.dtype.kind not in "iu" else column.to_numpy()
        if name == "reason":  # of the first row that is not trusted
            doubtful = np.flatnonzero(values != "")[::-1]
            reasons = np.full(self._molecules, "", object)
            reasons[self._molecule[doubtful]] = values[doubtful]
            return reasons
        return np.asarray(values[self._first()])

    def _first(self) -> Index:
        return np.unique(self._molecule, return_index=True)[1]

    def _of_extremes(self, choose: np.ufunc, name: str) -> Index:
        values = self._rows[name].to_numpy(np.int64)
        out = values[self._first()].copy()
        choose.at(out, self._molecule, values)
        return out

    def _sum(self, values: Array) -> Array:
        return np.bincount(self._molecule, values, self._molecules).astype(float)

    def _mean(self, values: Array) -> Array:
        return self._sum(values) / self._number


def signed_square(width: Array) -> Array:
    """Give width^2 with the sign of width: an interval of 68 % need not hold the mean."""
    return np.asarray(width * np.abs(width))


def signed_root(squared: Array) -> Array:
    """Give the inverse of `signed_square`."""
    return np.asarray(np.sign(squared) * np.sqrt(np.abs(squared)))


_CELLS = ((0, 0), (0, 1), (1, 0), (1, 1))
_SHARED_SD = ("sigma_drift_x_nm", "sigma_drift_y_nm")


def _in_order(table: pd.DataFrame) -> Index:
    return np.lexsort(tuple(table[name].to_numpy() for name in ("y_nm", "x_nm", "frame")))


def _inverse(matrix: Array) -> Array:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _quadratic(matrix: Array, vector: Array) -> Array:
    return np.asarray(np.einsum("ni,nij,nj->n", vector, matrix, vector))


def own_covariance(table: pd.DataFrame) -> Array:
    """Give the covariances of positions without what rows have in common, nm^2, (rows, 2, 2)."""
    return _matrices(table, "sigma_{}_nm", "cov_xy_nm2") - _drift_covariance(table)


def _drift_covariance(table: pd.DataFrame) -> Array:
    if not {column.name for column in DRIFT_COLUMNS} <= set(table.columns):
        return np.zeros((len(table), 2, 2))
    return _matrices(table, "sigma_drift_{}_nm", "cov_drift_xy_nm2")


def _matrices(table: pd.DataFrame, sigma: str, covariance: str) -> Array:
    out = np.zeros((len(table), 2, 2))
    for i, axis in enumerate("xy"):
        out[:, i, i] = table[sigma.format(axis)].to_numpy(float) ** 2
    if covariance in table.columns:
        out[:, 0, 1] = out[:, 1, 0] = table[covariance].to_numpy(float)
    return out


def _check(table: pd.DataFrame, gap: int, radius_nm: float | None) -> None:
    needed = ("frame", "x_nm", "y_nm", "sigma_x_nm", "sigma_y_nm")
    check_columns(table, needed, "rows are linked and merged by their precision")
    several = np.zeros(len(table), bool)
    if "rows" in table:
        several |= table["rows"].to_numpy() > 1
    if "last_frame" in table:
        several |= (table["last_frame"] > table["frame"]).to_numpy()
    if several.any():
        raise InputError(
            f"The table was linked before: {np.count_nonzero(several):,} of its {len(table):,} "
            "rows are molecules over several frames. Link the table that it was made from."
        )
    check_limit("gap", gap)
    if radius_nm is not None:
        check_limit("radius_nm", radius_nm)
    covariance = own_covariance(table)
    spread = np.diagonal(covariance, axis1=1, axis2=2)
    determinant = spread[:, 0] * spread[:, 1] - covariance[:, 0, 1] ** 2
    usable = (
        np.isfinite(table[["x_nm", "y_nm"]].to_numpy(float)).all(axis=1)
        & (spread > 0).all(axis=1)
        & (determinant > 0)
        & np.isfinite(determinant)
    )
    if not usable.all():
        raise InputError(
            f"{np.count_nonzero(~usable):,} rows have a position that is not finite or a precision "
            "that is not larger than 0; filter them out first, such as with 'sigma_x_nm > 0 and "
            "sigma_y_nm > 0'."
        )
