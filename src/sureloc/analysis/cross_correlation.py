"""Drift from the structure itself: redundant cross-correlation (Wang et al. 2014).

The movie is cut into stretches with equally many rows. Every pair of stretches is laid over each
other: coarsely by the Fourier transform of their images, then exactly, at the peak of the density
of all differences between rows of the one and rows of the other. Of the many shifts of pairs, a
robust least-squares fit makes one position for each stretch, and leaves out pairs that disagree.

How sure those positions are comes from the rows: the fit is linearised, and what each small region
of the sample contributes to it is summed squared (a sandwich covariance, clustered by place; White
1980, Liang and Zeger 1986). So molecules that blink often, and structures that tell one direction
better than another, count as what they are. Residuals of the fit could not tell: an error of a
whole stretch looks like drift.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import fft
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from sureloc.analysis.drift_path import Averages, DriftPath, drift_path
from sureloc.errors import InputError
from sureloc.limits import FEWEST_SEGMENTS, check_limit
from sureloc.table import check_columns

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

FEWEST_ROWS = 50  # of a stretch
MAX_SHIFT_NM = 1000.0
AGREEING_SHARE = 0.6  # of all pairs, before those that disagree are looked at again
_AUTO_SEGMENTS, _AUTO_ROWS = 20, 200
_MOST_PIXELS = 512  # along a side of the coarse images
_MOST_PAIRS = 50_000  # of rows, about; denser stretches are thinned evenly
_COUNTED_ROWS = 300  # from which their number is estimated
_MOST_PASSES = 4
_SETTLED = 0.1  # kernel widths that a further pass may move the path
_REACH = 3.5  # kernel widths within which differences count
_FEWEST_REGIONS = 60


@dataclass(frozen=True)
class Correlated:
    """What redundant cross-correlation found.

    Attributes:
        path: the drift.
        averages: the positions of the stretches, on which it rests.
        pairs, left_out: pairs of stretches, and those that disagreed.
        kernel_nm: standard deviation of the kernel that found the shifts.
    """

    path: DriftPath
    averages: Averages
    pairs: int
    left_out: int
    kernel_nm: float


@dataclass(frozen=True)
class _Shifts:
    """Shifts of pairs, how sharp their peaks are, and what each region adds to them."""

    value: Array  # (pairs, 2), nm; NaN where two stretches have no rows in common
    weight: Array  # (pairs,)
    region: tuple[tuple[Index, Array], ...]  # per pair: regions, and their pull on the shift, nm


def redundant_cross_correlation(
    table: pd.DataFrame, segments: int | None = None, reference: Array | None = None
) -> Correlated:
    """Estimate the drift from a table's own structure.

    Args:
        table: rows with `frame`, `x_nm`, `y_nm`, `sigma_x_nm` and `sigma_y_nm`; rows that are not
            `trusted`, or less precise than twice the median, are not used.
        segments: number of stretches, `FEWEST_SEGMENTS` or more; None chooses up to 20, as many
            as the frames allow.
        reference: see `drift_path`.

    Returns:
        The drift with its uncertainty.

    Raises:
        InputError: there are too few rows, or stretches show no structure in common.
    """
    span = int(table["frame"].min()), int(table["frame"].max())
    used, kernel = _useful(table)
    frame = used["frame"].to_numpy(np.int64)
    segment, number = _cut(frame, segments)
    rows = _Stretches(frame, used[["x_nm", "y_nm"]].to_numpy(float), segment, number, kernel)
    averages, agreed = _measure(rows, np.zeros_like(rows.position), _first_shifts(rows))
    path = drift_path(averages, *span, reference)
    for _ in range(_MOST_PASSES - 1):
        # With the drift within stretches taken out, the same structure is sharper.
        before = path
        still = np.zeros((len(rows.pairs), 2))
        averages, agreed = _measure(rows, path.at(frame)[0], still)
        path = drift_path(averages, *span, reference)
        if np.abs(path.mean_nm - before.mean_nm).max() < _SETTLED * kernel:
            break
    return Correlated(path, averages, len(rows.pairs), int((~agreed).sum()), kernel)


class _Stretches:
    """The rows that are used, cut into stretches."""

    def __init__(
        self, frame: Index, position: Array, segment: Index, segments: int, kernel: float
    ) -> None:
        self.frame, self.position, self.segment = frame, position, segment
        self.segments, self.kernel = segments, kernel
        self.pairs = list(combinations(range(segments), 2))
        self._groups = [np.flatnonzero(segment == k) for k in range(segments)]

    def of(self, values: Array) -> list[Array]:
        """Give the values of each stretch."""
        return [values[group] for group in self._groups]


def _first_shifts(rows: _Stretches) -> Array:
    """Give shifts of all pairs as most of them say: pairs that went astray are told, too.

    Raises:
        InputError: most do not agree.
    """
    positions = rows.of(rows.position)
    at, width = _coarse(positions, rows.pairs, rows.kernel)
    shifts = _shifts(positions, rows.pairs, at, (width, rows.kernel))
    agreed = _agreeing(shifts, rows.pairs, rows.segments, rows.kernel)
    level = _least_squares(shifts, agreed, rows.pairs, rows.segments)
    return np.array([level[j] - level[i] for i, j in rows.pairs])


def _measure(rows: _Stretches, taken: Array, at: Array) -> tuple[Averages, Flags]:
    """Give the stretches' positions after taking out a drift, and which pairs agree.

    Args:
        rows: the stretches.
        taken: the drift to take out, for every row, nm.
        at: about where the shifts of pairs are then, nm.
    """
    shifts = _shifts(rows.of(rows.position - taken), rows.pairs, at, (rows.kernel, rows.kernel))
    agreed = _consistent(shifts, rows.pairs, rows.segments, rows.kernel)
    level = _least_squares(shifts, agreed, rows.pairs, rows.segments)
    level += np.stack([some.mean(axis=0) for some in rows.of(taken)])
    covariance = _covariances(shifts, agreed, rows.pairs, rows.segments)
    ones = np.ones(len(rows.frame))
    return Averages(level, covariance, rows.frame, rows.segment, ones), agreed


def _useful(table: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """Give the rows to use and the kernel's width, nm: twice their median precision."""
    check_columns(table, ("sigma_x_nm", "sigma_y_nm"), "drift needs the precision of every row")
    sigma = np.sqrt(0.5 * (table["sigma_x_nm"] ** 2 + table["sigma_y_nm"] ** 2)).to_numpy(float)
    good = np.isfinite(table[["x_nm", "y_nm"]].to_numpy(float)).all(axis=1) & (sigma > 0)
    good &= np.isfinite(sigma)
    if "trusted" in table.columns:
        good &= table["trusted"].to_numpy(bool)
    if good.any():
        good &= sigma <= 2 * np.median(sigma[good])
    needed = FEWEST_SEGMENTS * FEWEST_ROWS
    if good.sum() < needed:
        raise InputError(
            f"The table has {good.sum():,} rows that can be used (trusted, and precise enough); "
            f"cross-correlation needs {needed:,} or more. Take more frames, or "
            "--method fiducials."
        )
    kernel = max(2 * float(np.median(sigma[good])), 1.0)
    return table[good].sort_values("frame", kind="stable"), kernel


def _cut(frame: Index, segments: int | None) -> tuple[Index, int]:
    """Give the stretch of every row (frames ascending), cut between frames, and how many."""
    wanted = segments
    if wanted is None:
        wanted = int(np.clip(len(frame) // _AUTO_ROWS, FEWEST_SEGMENTS, _AUTO_SEGMENTS))
    check_limit("segments", wanted)
    if (segment := _stretches(frame, wanted)) is not None:
        return segment, wanted
    most = next((n for n in range(wanted - 1, 0, -1) if _stretches(frame, n) is not None), 0)
    have = f"{len(frame):,} usable rows in {len(np.unique(frame)):,} frames"
    if most < FEWEST_SEGMENTS:
        raise InputError(
            f"The {have} make {most} stretches of {FEWEST_ROWS} rows or so; cross-correlation "
            f"needs {FEWEST_SEGMENTS} or more. Take more frames, or --method fiducials."
        )
    if segments is not None:
        raise InputError(
            f"segments is {segments}, but {have} make {most} at most, of {FEWEST_ROWS} rows or so "
            f"each; frames are not cut. Give {most}, or leave --segments out."
        )
    return _cut(frame, most)


def _stretches(frame: Index, number: int) -> Index | None:
    """Give the stretch of every row, None where frames cannot be shared out so evenly."""
    if number > len(frame) // FEWEST_ROWS:
        return None
    ends = np.unique(frame[np.arange(1, number) * len(frame) // number])
    segment = np.searchsorted(ends, frame, side="right")
    counts = np.bincount(segment, minlength=number)
    return segment if counts.min() >= FEWEST_ROWS // 2 else None


def _coarse(
    positions: list[Array], pairs: list[tuple[int, int]], kernel: float
) -> tuple[Array, float]:
    """Give shifts of pairs from their images, nm, and how exact they are."""
    everything = np.concatenate(positions)
    low, extent = everything.min(axis=0), np.ptp(everything, axis=0)
    pixel = max(kernel, float(extent.max()) / _MOST_PIXELS)
    reach = int(np.ceil(min(MAX_SHIFT_NM, max(float(extent.max()), pixel)) / pixel))
    shape = tuple(fft.next_fast_len(int(e / pixel) + 1 + reach, real=True) for e in extent)
    smooth = [np.exp(-2 * (np.pi * kernel / pixel * fft.fftfreq(n)) ** 2) for n in shape]
    spectra = []
    for some in positions:
        cell = ((some - low) / pixel).astype(int)
        image = np.zeros(shape)
        np.add.at(image, (cell[:, 0], cell[:, 1]), 1.0)
        spectra.append(fft.rfft2(image) * smooth[0][:, None] * smooth[1][: shape[1] // 2 + 1])
    window = [np.arange(-min(reach, n // 2 - 1), min(reach, n // 2 - 1) + 1) for n in shape]
    at = np.empty((len(pairs), 2))
    for number, (i, j) in enumerate(pairs):
        both = fft.irfft2(np.conj(spectra[i]) * spectra[j], shape)[np.ix_(*window)]
        peak = np.unravel_index(np.argmax(both), both.shape)
        at[number] = [w[p] * pixel for w, p in zip(window, peak, strict=True)]
    return at, pixel


def _shifts(
    positions: list[Array], pairs: list[tuple[int, int]], at: Array, widths: tuple[float, float]
) -> _Shifts:
    """Climb from `at` to the densest difference of each pair, by kernels from wide to narrow."""
    size = _region_size(positions, widths[1])
    low = np.concatenate(positions).min(axis=0)
    trees = [cKDTree(some) for some in positions]
    value, weight, regions = np.full((len(pairs), 2), np.nan), np.zeros(len(pairs)), []
    for number, (i, j) in enumerate(pairs):
        found = _peak(positions[i], trees[j], at[number], widths)
        if found is None:
            regions.append((np.empty(0, np.int64), np.empty((0, 2))))
            continue
        value[number], apart, row = found
        kernel = widths[1]
        near = np.exp(-0.5 * (apart**2).sum(axis=1) / kernel**2)
        outer = np.einsum("n,ni,nj->ij", near, apart, apart)
        curvature = (near.sum() * np.eye(2) - outer / kernel**2) / kernel**2
        if np.linalg.eigvalsh(curvature)[0] <= 0:
            value[number] = np.nan
            regions.append((np.empty(0, np.int64), np.empty((0, 2))))
            continue
        weight[number] = 0.5 * np.trace(curvature)
        cell = ((positions[i][row] - low) / size).astype(np.int64)
        label, inverse = np.unique(cell[:, 0] * 2**31 + cell[:, 1], return_inverse=True)
        regions.append((label, _influence(inverse, near, apart, kernel, curvature)))
    return _Shifts(value, weight, tuple(regions))


def _influence(region: Index, near: Array, apart: Array, kernel: float, curvature: Array) -> Array:
    """Give how far the peak would move without each region, nm, (regions, 2).

    One Newton step with the curvature of the others (a jackknife): with few regions, their share
    of the curvature counts.
    """
    unit = apart / kernel
    pull = _by_region(region, near * unit.T / kernel)
    xx, yy, xy = (
        _by_region(
            region, near * np.stack([1 - unit[:, 0] ** 2, 1 - unit[:, 1] ** 2, -unit.prod(axis=1)])
        ).T
        / kernel**2
    )
    others = curvature - np.stack([xx, xy, xy, yy], axis=1).reshape(-1, 2, 2)
    # Where the others alone have no peak, the whole has to do.
    sharp = np.linalg.eigvalsh(others)[:, 0] > 0.1 * np.linalg.eigvalsh(curvature)[0]
    others[~sharp] = curvature
    return np.asarray(np.linalg.solve(others, pull[:, :, None])[:, :, 0])


def _by_region(region: Index, values: Array) -> Array:
    return np.stack([np.bincount(region, one) for one in values], axis=1)


def _peak(
    one: Array, other: cKDTree, at: Array, widths: tuple[float, float]
) -> tuple[Array, Array, Index] | None:
    """Give the peak, the differences from it, and their rows in `one`; None if there are none."""
    shift = at.copy()
    kernels = np.geomspace(*widths, 3) if widths[0] > 1.01 * widths[1] else [widths[1]]
    for kernel in kernels:
        for _ in range(4):  # rows are gathered again while the peak walks out of reach
            apart, row = _differences(one, other, shift, (_REACH + 0.5) * kernel)
            if len(apart) < 3:
                return None
            moved = _climb(apart, kernel)
            if moved is None:
                return None
            shift += moved
            apart = apart - moved
            if np.abs(moved).max() < 0.5 * kernel:
                break
    within = (apart**2).sum(axis=1) < (_REACH * widths[1]) ** 2
    return shift, apart[within], row[within]


def _climb(apart: Array, kernel: float) -> Array | None:
    """Give the nearest peak of the density of differences; None where there is no density.

    Mean shift (Fukunaga and Hostetler 1975), which is slow near the peak: Newton's steps there.
    """
    moved = np.zeros(2)
    for _ in range(60):
        x, y = (apart - moved).T / kernel
        near = np.exp(-0.5 * (x * x + y * y))
        total = float(near.sum())
        if total < 1e-300:
            return None
        step = kernel * np.array([near @ x, near @ y]) / total
        xx, yy, xy = (float(near @ some) / total for some in (x * x, y * y, x * y))
        curvature = np.array([[1 - xx, -xy], [-xy, 1 - yy]])
        if np.linalg.eigvalsh(curvature)[0] > 0.05:
            newton = np.linalg.solve(curvature, step)
            step = newton * min(1.0, kernel / max(float(np.linalg.norm(newton)), 1e-12))
        moved += step
        if np.abs(step).max() < 1e-4 * kernel:
            break
    return moved


def _differences(one: Array, other: cKDTree, shift: Array, reach: float) -> tuple[Array, Index]:
    """Give differences within reach of a shift, relative to it, and their rows in `one`."""
    moved = one + shift
    row = np.arange(len(one))
    some = moved[:: max(1, len(moved) // _COUNTED_ROWS)]
    number = other.query_ball_point(some, reach, return_length=True).sum() * len(moved) / len(some)
    if number > _MOST_PAIRS:
        row = row[:: int(np.ceil(number / _MOST_PAIRS))]
    tree = cKDTree(moved[row])
    near = tree.sparse_distance_matrix(other, reach, output_type="ndarray")
    mine = row[near["i"]]
    return np.asarray(other.data[near["j"]] - moved[mine]), mine


def _region_size(positions: list[Array], kernel: float) -> float:
    """Give the side of the regions that are counted as independent, nm: large, but many of them."""
    everything = np.concatenate(positions)
    size = 40 * kernel
    while size > 10 * kernel:
        cell = ((everything - everything.min(axis=0)) / size).astype(np.int64)
        if len(np.unique(cell[:, 0] * 2**31 + cell[:, 1])) >= _FEWEST_REGIONS:
            break
        size /= 1.5
    return size


def _design(pairs: list[tuple[int, int]], segments: int) -> Array:
    out = np.zeros((len(pairs), segments))
    for number, (i, j) in enumerate(pairs):
        out[number, i], out[number, j] = -1.0, 1.0
    return out


def _least_squares(
    shifts: _Shifts, good: Flags, pairs: list[tuple[int, int]], segments: int
) -> Array:
    """Give the stretches' positions, their mean being zero, (segments, 2)."""
    value = np.nan_to_num(shifts.value)
    return _solver(shifts.weight * good, pairs, segments) @ value


def _solver(weight: Array, pairs: list[tuple[int, int]], segments: int) -> Array:
    design = _design(pairs, segments)
    normal = design.T @ (weight[:, None] * design) + weight.sum() / segments**2
    return np.asarray(np.linalg.solve(normal, design.T * weight))


def _agreeing(shifts: _Shifts, pairs: list[tuple[int, int]], segments: int, kernel: float) -> Flags:
    """Give the pairs that agree in the sense of least absolute residuals.

    Raises:
        InputError: most do not.
    """
    known: Flags = np.asarray(np.isfinite(shifts.value).all(axis=1))
    share = 0.0
    good = known
    if _joined(known, pairs, segments):
        weight = known.astype(float)
        residual = np.zeros(len(pairs))
        for _ in range(50):
            level = _solver(weight, pairs, segments) @ np.nan_to_num(shifts.value)
            residual = np.linalg.norm(shifts.value - _design(pairs, segments) @ level, axis=1)
            weight = np.where(known, 1.0 / np.maximum(np.nan_to_num(residual), 0.1 * kernel), 0.0)
        good = known & (residual < 3 * kernel)
        share = good.mean()
    if share < AGREEING_SHARE or not _joined(good, pairs, segments):
        raise InputError(
            f"Only {100 * share:.0f} % of the pairs of {segments} stretches agree about the shift "
            f"between them; {100 * AGREEING_SHARE:.0f} % are needed. The same structure does not "
            "show often enough: ask for fewer segments, take more frames, or use --method "
            "fiducials."
        )
    return good


def _consistent(
    shifts: _Shifts, pairs: list[tuple[int, int]], segments: int, kernel: float
) -> Flags:
    """Leave out pairs whose shift is far from what all others say, until none is."""
    good: Flags = np.asarray(np.isfinite(shifts.value).all(axis=1))
    for _ in range(10):
        if not _joined(good, pairs, segments):
            break
        level = _least_squares(shifts, good, pairs, segments)
        residual = np.linalg.norm(shifts.value - _design(pairs, segments) @ level, axis=1)
        typical = float(np.median(residual[good]))
        kept = np.isfinite(residual) & (residual < max(5 * typical, 0.2 * kernel))
        if (kept == good).all():
            break
        good = kept
    if not _joined(good, pairs, segments):
        raise InputError(
            f"{segments} stretches do not hang together by the shifts between them: too few rows "
            "show the same structure. Ask for fewer segments."
        )
    return good


def _joined(good: Flags, pairs: list[tuple[int, int]], segments: int) -> bool:
    one, other = np.array(pairs)[good].reshape(-1, 2).T
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(segments, segments))
    return int(connected_components(graph, directed=False)[0]) == 1


def _covariances(
    shifts: _Shifts, good: Flags, pairs: list[tuple[int, int]], segments: int
) -> Array:
    """Give the covariance of each stretch's position, nm^2, (segments, 2, 2)."""
    solver = _solver(shifts.weight * good, pairs, segments)
    labels = np.unique(np.concatenate([label for label, _ in shifts.region]))
    pull = np.zeros((len(labels), segments, 2))
    for number in np.flatnonzero(good):
        label, here = shifts.region[number]
        at = np.searchsorted(labels, label)
        pull[at] += solver[:, number][:, None] * here[:, None, :]
    some = len(labels) / max(len(labels) - 1, 1)
    covariance = some * np.einsum("bsi,bsj->sij", pull, pull)
    # Positions relative to their mean: of independent errors v that is v (1 - 2/K) + mean(v)/K.
    mean = covariance.sum(axis=0) / (segments - 1)
    own = (covariance - mean / segments) / (1 - 2 / segments)
    usable = np.linalg.eigvalsh(own)[:, 0] > 0.2 * np.linalg.eigvalsh(covariance)[:, 0]
    return np.asarray(np.where(usable[:, None, None], own, covariance))
