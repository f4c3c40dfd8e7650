"""How long a molecule shines: spots linked from frame to frame, and how often the next one follows.

The same counting serves the spots of a movie and the rows of a table.

An on-state that ends at a constant rate goes on into the next frame with the probability
p = exp(-1 / on-time), however long it has lasted. So every frame in which a molecule is seen, and
whose next frame was looked at, is one trial; the on-time is -1 / ln(share that went on), the
maximum likelihood of a geometric law (an exponential one seen frame by frame), with the counting of
those at risk of Kaplan and Meier (1958): tracks that the recording cuts bring the trials that were
seen, and no end.

Three things would spoil it and are kept out. First and last frames of an on-state are covered in
part only and may be too dim to be seen: trials begin with a track's third frame, when the second
was lit throughout. Dim molecules are missed at times, which looks like an end: only tracks whose
second frame is far above the detection limit count. Other molecules light up at the same place by
chance: how often is measured at places a few widths beside, and taken away. Those that light up so
near that both become one spot can end a track before its time; the error makes room for that.
Spots or rows that are no molecules hardly ever live to a third frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import KDTree

Array = npt.NDArray[np.float64]

LINK_SIGMAS = 1.2  # PSF widths within which two spots are one molecule
LINK_PRECISIONS = 5.0  # standard deviations of a difference, and the same of two rows
MOST_ROWS = 20_000  # of a table, from its middle
CLEAR_SIGNIFICANCE = 9.0  # of the second frame; spots are found from about 4.5 on
LEAST_TRIALS = 10
LEAST_ENDS = 3
_FIRST_TRIAL = 3  # frame of a track, counted from 1
_BESIDE_REACHES = 10.0 / 3.0
_DIRECTIONS = 8
_RESAMPLES = 200
_MERGED_REACHES = 5.0 / 3.0  # nearer spots become one
_MERGED_END = 0.5  # of such arrivals that may end a track
_LONGEST_SHOWN = 40


@dataclass(frozen=True)
class FrameSpots:
    """Spots of one frame: x, y (any unit) and significance, each of shape (spots,)."""

    x: Array
    y: Array
    significance: Array


@dataclass(frozen=True)
class OnTime:
    """How long molecules shine.

    Attributes:
        frames: mean duration of an on-state, frames; NaN if it could not be measured.
        error: its standard error; infinite if only `at_least` is known.
        at_least: lower end of the 95 % interval where no end was seen; NaN else.
        trials: frames after which it was looked whether the molecule goes on.
        went_on: in how many of these it did.
        tracks: tracks that brought trials.
        chance: probability that another molecule lights up in the next frame where one is.
        ages: a track's age in frames at a trial, from 3 on, shape (ages,).
        trials_by_age, went_on_by_age: the same counts by age.
        fades_early: trials at young ages end more often than at old ones, beyond chance: not one
            exponential.
    """

    frames: float
    error: float
    at_least: float
    trials: int
    went_on: int
    tracks: int
    chance: float
    ages: npt.NDArray[np.int64]
    trials_by_age: npt.NDArray[np.int64]
    went_on_by_age: npt.NDArray[np.int64]
    fades_early: bool


@dataclass(frozen=True)
class _Trials:
    """Every trial: its track, the age there, whether it went on, and where and when it was."""

    track: npt.NDArray[np.int64]
    age: npt.NDArray[np.int64]
    went_on: npt.NDArray[np.bool_]
    place: Array
    frame: npt.NDArray[np.int64]


def estimate_on_time(
    runs: Sequence[Sequence[FrameSpots]], reach: float, rng: np.random.Generator
) -> OnTime:
    """Estimate the mean on-time from spots of successive frames.

    Args:
        runs: stretches of successive frames, each a sequence of the frames' spots.
        reach: distance within which two spots are one molecule, in the unit of their positions.
        rng: source of randomness for the bootstrap over tracks.
    """
    parts, chances, offset = [], [], 0
    for run in runs:
        trials = _trials(run, reach, offset)
        offset += int(trials.track.max(initial=offset - 1)) + 1 - offset
        parts.append(trials)
        chances.append(_chance(run, trials, reach))
    tried = _joined(parts)
    hits, looks = np.array(chances, dtype=np.float64).reshape(-1, 2).sum(0)
    chance = float(hits / looks) if looks else 0.0
    return _summary(tried, chance, rng)


def on_time_of_rows(table: pd.DataFrame, rng: np.random.Generator) -> OnTime | None:
    """Estimate the mean on-time from the rows of a table, at most `MOST_ROWS` from its middle.

    Args:
        table: rows with `frame`, positions, sigmas and, if known, `photons` and `sigma_photons`,
            whose ratio is their significance; where it is not known all rows count as clear.
        rng: see `estimate_on_time`.

    Returns:
        The on-time; None where no row states its precision.
    """
    names = ["sigma_x_nm", "sigma_y_nm"]
    if not set(names) <= set(table):
        return None
    sigma = table[names].to_numpy(float)
    known = table[(np.isfinite(sigma) & (sigma > 0)).all(1)].sort_values("frame", kind="stable")
    spare = max(len(known) - MOST_ROWS, 0) // 2
    rows = known.iloc[spare : len(known) - spare]
    significance = np.full(len(rows), np.inf)
    if {"photons", "sigma_photons"} <= set(rows):
        ratio = (rows["photons"] / rows["sigma_photons"]).to_numpy(float)
        significance = np.where(np.isfinite(ratio), ratio, np.inf)
    clear = rows[significance >= CLEAR_SIGNIFICANCE]
    if clear.empty:
        return None
    # What is dim reaches far, and would take others for its own.
    widest = float(np.percentile(np.sqrt(clear[names[0]] * clear[names[1]]), 90))
    runs = _runs_of_rows(rows, significance)
    return estimate_on_time(runs, LINK_PRECISIONS * math.sqrt(2.0) * widest, rng)


def _runs_of_rows(rows: pd.DataFrame, significance: Array) -> list[list[FrameSpots]]:
    """Part rows, in order of their frames, into stretches; each but the last ends without a row."""
    frame = rows["frame"].to_numpy(np.int64)
    x, y = (rows[name].to_numpy(float) for name in ("x_nm", "y_nm"))
    numbers, starts = np.unique(frame, return_index=True)
    parts = (np.split(values, starts[1:]) for values in (x, y, significance))
    spots = [FrameSpots(*of_frame) for of_frame in zip(*parts, strict=True)]
    none = FrameSpots(*np.zeros((3, 0)))
    breaks = [0, *(np.flatnonzero(np.diff(numbers) > 1) + 1), len(numbers)]
    runs = [[*spots[first:last], none] for first, last in pairwise(breaks)]
    runs[-1].pop()  # nobody looked after the last frame
    return runs


def _links(first: FrameSpots, second: FrameSpots, reach: float) -> npt.NDArray[np.int64]:
    """Give for each spot of the first frame its spot in the second, or -1; nearest both ways."""
    link = np.full(first.x.size, -1, np.int64)
    if not first.x.size or not second.x.size:
        return link
    one, other = (np.stack([spots.x, spots.y], axis=1) for spots in (first, second))
    far, there = KDTree(other).query(one)
    _, back = KDTree(one).query(other)
    mutual = (back[there] == np.arange(len(one))) & (far <= reach)
    link[mutual] = there[mutual]
    return link


def _trials(run: Sequence[FrameSpots], reach: float, first_track: int) -> _Trials:
    rows: list[tuple[int, int, bool, float, float, int]] = []
    tracks = first_track
    # Of every spot in the present frame: its track, its age, and the significance in frame two.
    track = age = np.zeros(0, np.int64)
    second = np.zeros(0)
    for number, spots in enumerate(run):
        if number == 0:
            size = spots.x.size
            track, age, second = (
                np.arange(tracks, tracks + size),
                np.ones(size, int),
                np.zeros(size),
            )
            tracks += size
        if number + 1 == len(run):
            break
        link = _links(spots, run[number + 1], reach)
        counts = (age >= _FIRST_TRIAL) & (second >= CLEAR_SIGNIFICANCE)
        rows += [
            (
                int(track[i]),
                int(age[i]),
                bool(link[i] >= 0),
                float(spots.x[i]),
                float(spots.y[i]),
                number,
            )
            for i in np.flatnonzero(counts)
        ]
        following = run[number + 1]
        size = following.x.size
        next_track, next_age, next_second = np.full(size, -1), np.ones(size, int), np.zeros(size)
        went = np.flatnonzero(link >= 0)
        next_track[link[went]], next_age[link[went]] = track[went], age[went] + 1
        next_second[link[went]] = np.where(
            age[went] == 1, following.significance[link[went]], second[went]
        )
        new = next_track < 0
        next_track[new] = tracks + np.arange(int(new.sum()))
        tracks += int(new.sum())
        track, age, second = next_track, next_age, next_second
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return _Trials(
        table[:, 0].astype(np.int64),
        table[:, 1].astype(np.int64),
        table[:, 2].astype(bool),
        table[:, 3:5],
        table[:, 5].astype(np.int64),
    )


def _chance(run: Sequence[FrameSpots], trials: _Trials, reach: float) -> tuple[int, int]:
    """Count how often a new spot of the next frame lies within reach of a place beside a molecule.

    New are those without a spot of their own in the frame before: others are linked to that one.
    """
    angles = 2 * math.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    shifts = _BESIDE_REACHES * reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    hits = looks = 0
    for number in np.unique(trials.frame):
        following = run[number + 1]
        new = np.ones(following.x.size, bool)
        link = _links(run[number], following, reach)
        new[link[link >= 0]] = False
        places = trials.place[trials.frame == number]
        looks += places.shape[0] * _DIRECTIONS
        if new.any():
            tree = KDTree(np.stack([following.x[new], following.y[new]], axis=1))
            far, _ = tree.query((places[:, None, :] + shifts).reshape(-1, 2))
            hits += int((far <= reach).sum())
    return hits, looks


def _joined(parts: Sequence[_Trials]) -> _Trials:
    return _Trials(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in _Trials.__annotations__
        )
    )


def _summary(trials: _Trials, chance: float, rng: np.random.Generator) -> OnTime:
    number, went_on = trials.age.size, int(trials.went_on.sum())
    ages = np.arange(_FIRST_TRIAL, min(int(trials.age.max(initial=0)), _LONGEST_SHOWN) + 1)
    by_age = np.array([(trials.age == age).sum() for age in ages], dtype=np.int64)
    on_by_age = np.array([trials.went_on[trials.age == age].sum() for age in ages], dtype=np.int64)
    tracks, of_trial = np.unique(trials.track, return_inverse=True)
    frames = error = at_least = math.nan
    ends = number - went_on
    if number >= LEAST_TRIALS and went_on and ends < LEAST_ENDS:
        # Of so few ends only a limit is certain: the Poisson mean that makes them rarer than 5 %.
        most = {0: 3.0, 1: 4.74, 2: 6.30}[ends]
        frames, error, at_least = math.inf, math.inf, number / most
        if ends:
            frames = _of_share(went_on / number, chance)
    elif number >= LEAST_TRIALS:
        frames = _of_share(went_on / number, chance)
        sums = np.stack(
            [
                np.bincount(of_trial, minlength=tracks.size),
                np.bincount(of_trial, weights=trials.went_on, minlength=tracks.size),
            ],
            axis=1,
        )
        again = rng.integers(0, tracks.size, (_RESAMPLES, tracks.size))
        totals = sums[again].sum(axis=1)
        drawn = np.array([_of_share(went / max(n, 1), chance) for n, went in totals])
        low, high = np.percentile(drawn, (15.865, 84.135))
        arrivals = chance * _MERGED_REACHES**2
        merged = frames * _MERGED_END * arrivals * number / ends
        error = math.hypot(0.5 * float(high - low), merged)
    return OnTime(
        frames,
        error,
        at_least,
        number,
        went_on,
        tracks.size,
        chance,
        ages,
        by_age,
        on_by_age,
        _fades_early(by_age, on_by_age),
    )


def _of_share(share: float, chance: float) -> float:
    """Give the on-time of which this share of trials goes on, chance taken away."""
    own = (share - chance) / (1.0 - chance)
    return -1.0 / math.log(min(own, 1.0 - 1e-9)) if own > 1e-9 else 0.0


def _fades_early(trials: npt.NDArray[np.int64], went_on: npt.NDArray[np.int64]) -> bool:
    """Tell whether old tracks go on more often than young ones: two halves of equally many."""
    total = int(trials.sum())
    if total < 200:
        return False
    cut = int(np.searchsorted(np.cumsum(trials), 0.5 * total)) + 1
    young, old = int(trials[:cut].sum()), int(trials[cut:].sum())
    if not young or not old:
        return False
    a, b = float(went_on[:cut].sum()) / young, float(went_on[cut:].sum()) / old
    error = math.sqrt(a * (1 - a) / young + b * (1 - b) / old)
    return b - a > 4 * max(error, 1e-9)
