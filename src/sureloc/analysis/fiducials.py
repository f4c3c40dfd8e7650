"""Drift from fiducials: bright spots that shine in nearly all frames and move with the sample.

Each fiducial's rows say where the sample was, frame by frame, up to where the fiducial sits in it.
What two or more fiducials say differently beyond their stated precision (a loose bead, a precision
that is too good) widens all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree

from sureloc.analysis.drift_path import Averages, DriftPath, drift_path
from sureloc.errors import InputError
from sureloc.table import check_columns

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

PRESENCE = 0.9  # share of the frames in which a fiducial is seen
FEWEST_FRAMES = 10
FEWEST_FRAMES_TO_FIND = 100  # in fewer, molecules shine throughout too
HALF_PRESENCE = 0.45  # share of the frames in which molecules are seen that almost seem fiducials
MOST_HALF_SEEN = 0.3  # of them for each fiducial, as bright as these
SEARCH_NM = 500.0  # how far from its place a fiducial may be found
STEP_NM = 150.0  # how far it may jump from one sighting to the next
_MOST_STRETCHES = 120
_CELL_NM = 250.0


@dataclass(frozen=True)
class Tracked:
    """What fiducials said.

    Attributes:
        path: the drift.
        averages: the stretches of frames on which it rests.
        position_nm: where the fiducials are in the first frame, shape (fiducials, 2).
        presence: share of the frames in which each was seen, shape (fiducials,).
        widening: factor on the stated precisions, 1 or larger; 1 with a single fiducial.
        rows: the rows of the table that are fiducials, shape (any,).
    """

    path: DriftPath
    averages: Averages
    position_nm: Array
    presence: Array
    widening: float
    rows: Index


def track_fiducials(
    table: pd.DataFrame, positions_nm: Array | None = None, reference: Array | None = None
) -> Tracked:
    """Estimate the drift from fiducials.

    Args:
        table: rows with `frame`, `x_nm`, `y_nm`, `sigma_x_nm`, `sigma_y_nm` and, if known,
            `photons`.
        positions_nm: about where fiducials are, within `SEARCH_NM`, shape (fiducials, 2); None
            finds them.
        reference: see `sureloc.analysis.drift_path.drift_path`.

    Returns:
        The drift with its uncertainty.

    Raises:
        InputError: no fiducial is seen often enough, there are too few frames, or fiducials that
            were to be found cannot be told from molecules.
    """
    check_columns(table, ("sigma_x_nm", "sigma_y_nm"), "drift needs the precision of every row")
    frame = table["frame"].to_numpy(np.int64)
    first, last = int(frame.min()), int(frame.max())
    frames = last - first + 1
    if frames < FEWEST_FRAMES:
        raise InputError(
            f"The table spans {frames} frames; fiducials need {FEWEST_FRAMES} or more."
        )
    sigma = table[["sigma_x_nm", "sigma_y_nm"]].to_numpy(float)
    position = table[["x_nm", "y_nm"]].to_numpy(float)
    sure = np.flatnonzero(np.isfinite(position).all(axis=1) & np.isfinite(sigma).all(axis=1)
                          & (sigma > 0).all(axis=1))  # fmt: skip
    sure = sure[np.argsort(frame[sure], kind="stable")]
    bright = table["photons"].to_numpy(float) if "photons" in table else 1.0 / sigma.prod(axis=1)
    places = (
        _places(frame[sure], position[sure], PRESENCE) if positions_nm is None else positions_nm
    )
    tracks = [_track(sure, frame, position, bright, place) for place in np.atleast_2d(places)]
    tracks = _distinct(tracks, bright)
    seen = [t for t in tracks if len(t) >= PRESENCE * frames]
    if positions_nm is not None and len(seen) < len(positions_nm):
        shares = ", ".join(f"{100 * len(t) / frames:.0f} %" for t in tracks)
        raise InputError(
            f"Of {len(positions_nm)} fiducials {len(seen)} are seen in {100 * PRESENCE:.0f} % of "
            f"the frames (seen in: {shares}). Leave the others out, or check the positions: nm "
            "from the centre of the first pixel, x along columns."
        )
    if not seen:
        best = max((len(t) for t in tracks), default=0) / frames
        raise InputError(
            f"No spot is seen in {100 * PRESENCE:.0f} % of the frames (the best in "
            f"{100 * best:.0f} %). Give positions of fiducials, or use --method rcc."
        )
    if positions_nm is None:
        half = _places(frame[sure], position[sure], HALF_PRESENCE)
        others = [_track(sure, frame, position, bright, place) for place in half]
        _check_told_apart(seen, _distinct([*seen, *others], bright), bright, frames)
    return _drift_of(seen, frame, position, sigma, (first, last), reference)


def _check_told_apart(seen: list[Index], tracks: list[Index], bright: Array, frames: int) -> None:
    """Raise `InputError` if what was found may be molecules that shine throughout.

    Molecules go dark at any time, fiducials do not: where some shine in all frames, others as
    bright shine in about half of them.

    Args:
        seen: rows of what was found.
        tracks: the same, and rows of spots that are seen in fewer frames.
        bright: brightness of every row.
        frames: from the table's first to its last.
    """
    named = "Name those that you know to be fiducials with --fiducial X,Y, or use --method rcc."
    found = f"{len(seen)} spots are" if len(seen) > 1 else "1 spot is"
    if frames < FEWEST_FRAMES_TO_FIND:
        raise InputError(
            f"{found} seen in {100 * PRESENCE:.0f} % of the {frames} frames, but in fewer than "
            f"{FEWEST_FRAMES_TO_FIND} frames fiducials cannot be told from molecules that shine "
            f"throughout. {named}"
        )
    light = np.median([np.median(bright[track]) for track in seen])
    half = sum(
        len(track) < PRESENCE * frames
        and len(track) >= HALF_PRESENCE * frames
        and np.median(bright[track]) > 0.5 * light
        for track in tracks
    )
    if half > 1 and half > MOST_HALF_SEEN * len(seen):
        raise InputError(
            f"{found} seen in {100 * PRESENCE:.0f} % of the frames, but {half} others as bright in "
            f"{100 * HALF_PRESENCE:.0f} % or more: molecules that shine for long, from which "
            f"fiducials cannot be told. {named}"
        )


def _places(frame: Index, position: Array, presence: float) -> Array:
    """Give places round which rows lie in a share of the frames, the most frequented first.

    A fiducial drifts from cell to cell: the frames of a cell and its neighbours are counted.
    """
    cell = np.floor(position / _CELL_NM).astype(np.int64)
    cells, index = np.unique(cell, axis=0, return_inverse=True)
    index = index.reshape(-1)
    frames = len(np.unique(frame))
    pair = np.unique(np.stack([index, frame], axis=1), axis=0)
    counts = np.bincount(pair[:, 0], minlength=len(cells))
    order = np.argsort(pair[:, 0], kind="stable")
    of_cell = np.split(pair[order, 1], np.cumsum(counts)[:-1])
    neighbours = cKDTree(cells).query_ball_point(cells, 1.5)
    out = []
    for k in np.argsort(-counts, kind="stable"):
        together = sum(counts[n] for n in neighbours[k])
        if together < presence * frames or counts[k] < presence * frames / 9:
            continue
        if len(np.unique(np.concatenate([of_cell[n] for n in neighbours[k]]))) < presence * frames:
            continue
        out.append(np.median(position[index == k], axis=0))
    return np.array(out).reshape(-1, 2)


def _track(sure: Index, frame: Index, position: Array, bright: Array, place: Array) -> Index:
    """Give the rows, one a frame at most, that follow the spot that begins round `place`.

    The brightest row round the place in the middle of its sightings starts it; from there it goes
    both ways, from sighting to sighting to the brightest row nearby.
    """
    near: Index = np.asarray(sure[np.linalg.norm(position[sure] - place, axis=1) <= SEARCH_NM])
    if near.size == 0:
        return near
    frames, starts = np.unique(frame[near], return_index=True)
    groups = np.split(near, starts[1:])
    level = np.median([bright[g].max() for g in groups])
    brightest = [g[np.argmax(bright[g])] for g in groups]
    # Start near the place, where the brightest is as bright as usual: no neighbour outshines it.
    away = np.linalg.norm(position[brightest] - place, axis=1) / STEP_NM
    start = int(np.argmin(np.abs(np.log(bright[brightest] / level)) + away))
    picked = [int(brightest[start])]
    for way in (range(start + 1, len(frames)), range(start - 1, -1, -1)):
        here = position[brightest[start]]
        for k in way:
            rows = groups[k][np.linalg.norm(position[groups[k]] - here, axis=1) <= STEP_NM]
            rows = rows[bright[rows] > 0.2 * level]
            if rows.size:
                row = int(rows[np.argmin(np.linalg.norm(position[rows] - here, axis=1))])
                here = 0.7 * here + 0.3 * position[row]
                picked.append(row)
    return np.sort(np.array(picked, np.int64))


def _distinct(tracks: list[Index], bright: Array) -> list[Index]:
    """Leave out tracks that share rows with a longer or brighter one, the others in order."""
    order = sorted(
        range(len(tracks)), key=lambda k: (-len(tracks[k]), -float(bright[tracks[k]].sum()))
    )
    taken: set[int] = set()
    kept = []
    for k in order:
        rows = set(tracks[k].tolist())
        if not taken & rows:
            taken |= rows
            kept.append(k)
    return [tracks[k] for k in sorted(kept)]


def _drift_of(
    tracks: list[Index],
    frame: Index,
    position: Array,
    sigma: Array,
    span: tuple[int, int],
    reference: Array | None,
) -> Tracked:
    """Combine tracks, each with an offset of its own, into averages over stretches of frames."""
    first, last = span
    rows = np.concatenate(tracks)
    fiducial = np.repeat(np.arange(len(tracks)), [len(t) for t in tracks])
    frames = last - first + 1
    stretches = min(frames, _MOST_STRETCHES)
    stretch = (frame[rows] - first) * stretches // frames
    used, stretch = np.unique(stretch, return_inverse=True)
    value, variance = np.empty((len(used), 2)), np.empty((len(used), 2))
    offsets = np.empty((len(tracks), 2))
    squared: list[Array] = []
    for axis in range(2):
        weight = sigma[rows, axis] ** -2.0
        at = position[rows, axis]
        common, offset = _two_way(at, weight, fiducial, frame[rows] - first, frames)
        offsets[:, axis] = offset
        residual = at - offset[fiducial] - common[frame[rows] - first]
        squared.append(_robust_widening(residual**2 * weight, fiducial))
        summed = np.bincount(stretch, weight, len(used))
        value[:, axis] = np.bincount(stretch, weight * (at - offset[fiducial])) / summed
        variance[:, axis] = 1.0 / summed
    widening = max(1.0, float(np.sqrt(np.mean(squared)))) if len(tracks) > 1 else 1.0
    covariance = np.zeros((len(used), 2, 2))
    covariance[:, [0, 1], [0, 1]] = variance * widening**2
    averages = Averages(value, covariance, frame[rows], stretch, sigma[rows].prod(axis=1) ** -1.0)
    path = drift_path(averages, first, last, reference)
    # Offsets are where a fiducial is when the common motion is zero: move them to the first frame.
    start = value[0] + offsets
    presence = np.array([len(t) / frames for t in tracks])
    return Tracked(path, averages, start, presence, widening, np.sort(rows))


def _two_way(
    at: Array, weight: Array, fiducial: Index, time: Index, frames: int
) -> tuple[Array, Array]:
    """Fit at = offset of the fiducial + common motion of the frame; give motion and offsets."""
    number = int(fiducial.max()) + 1
    offset = np.bincount(fiducial, weight * at) / np.bincount(fiducial, weight)
    common = np.zeros(frames)
    of_frame = np.bincount(time, weight, frames)
    of_fiducial = np.bincount(fiducial, weight, number)
    for _ in range(100):  # sweeps converge at once where every fiducial is in nearly every frame
        rest = np.bincount(time, weight * (at - offset[fiducial]), frames)
        common = np.divide(rest, of_frame, out=np.zeros(frames), where=of_frame > 0)
        new = np.bincount(fiducial, weight * (at - common[time]), number) / of_fiducial
        if np.abs(new - offset).max() < 1e-7:
            break
        offset = new
    return common, offset


def _robust_widening(squared: Array, fiducial: Index) -> Array:
    """Give the mean squared residual over its expectation, few wild rows left out."""
    number = int(fiducial.max()) + 1
    if number == 1:
        return np.ones(1)
    # A frame's common motion takes one of `number` degrees of freedom.
    median = np.median(squared) / (1 - 1 / number) / 0.4549
    return np.array([median])
