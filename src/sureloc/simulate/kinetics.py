"""When molecules are on: a continuous-time Markov chain seen through frames.

A molecule is off, on or bleached. Dwell times are exponential, so the chain has no memory: a movie
can be simulated block by block with nothing carried but each molecule's state and brightness.
A molecule that is on for a part of a frame sends that part of its photons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sureloc.simulate.recipe import BlinkingKinetics

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
DrawBrightness = Callable[[int, np.random.Generator], Array]


@dataclass(frozen=True)
class BlinkState:
    """What is known of every molecule at one time.

    Attributes:
        on: True where a molecule is on, shape (molecules,).
        bleached: True where it will never be on again, shape (molecules,).
        brightness: photons a frame of the present (or last) on-state, shape (molecules,).
    """

    on: npt.NDArray[np.bool_]
    bleached: npt.NDArray[np.bool_]
    brightness: Array


@dataclass(frozen=True)
class OnTimes:
    """On-states, or the parts of them that fall into a block; one array element each.

    Attributes:
        molecule: which molecule.
        begin, end: times in frames since the block's start.
        brightness: photons a frame.
    """

    molecule: Indices
    begin: Array
    end: Array
    brightness: Array


@dataclass(frozen=True)
class Emissions:
    """Photons sent, one array element for a molecule in a frame, in order of frame and molecule.

    Attributes:
        frame: frame, from the block's start.
        molecule: number of the molecule.
        photons: expected detected photons in this frame.
    """

    frame: Indices
    molecule: Indices
    photons: Array


def first_state(
    molecules: int,
    kinetics: BlinkingKinetics,
    draw_brightness: DrawBrightness,
    rng: np.random.Generator,
) -> BlinkState:
    """Draw the state in which molecules start; none is bleached."""
    share = {
        "on": 1.0,
        "off": 0.0,
        "stationary": kinetics.on_frames / (kinetics.on_frames + kinetics.off_frames),
    }[kinetics.start]
    return BlinkState(
        rng.uniform(size=molecules) < share,
        np.zeros(molecules, dtype=bool),
        draw_brightness(molecules, rng),
    )


def advance(
    state: BlinkState,
    frames: int,
    kinetics: BlinkingKinetics,
    draw_brightness: DrawBrightness,
    rng: np.random.Generator,
) -> tuple[BlinkState, OnTimes]:
    """Let molecules blink for a number of frames.

    Args:
        state: their state at time 0.
        frames: duration, frames.
        kinetics: mean dwell times and the probability to bleach.
        draw_brightness: draws the photons a frame of that many new on-states.
        rng: source of randomness.

    Returns:
        The state at the end, and the on-times, cut at time 0 and at the end.
    """
    on, bleached, brightness = state.on.copy(), state.bleached.copy(), state.brightness.copy()
    parts: list[OnTimes] = []
    waiting = np.flatnonzero(~bleached)
    now = np.zeros(waiting.size)
    while waiting.size:
        is_on = on[waiting]
        mean = np.where(is_on, kinetics.on_frames, kinetics.off_frames)
        end = now + rng.exponential(size=waiting.size) * mean
        lit = waiting[is_on]
        parts.append(OnTimes(lit, now[is_on], np.minimum(end[is_on], frames), brightness[lit]))
        switches = end < frames
        waiting, now, was_on = waiting[switches], end[switches], is_on[switches]
        on[waiting] = ~was_on
        bleaches = was_on & (rng.uniform(size=waiting.size) < kinetics.bleach_probability)
        bleached[waiting[bleaches]] = True
        lights = waiting[~was_on]
        brightness[lights] = draw_brightness(lights.size, rng)
        waiting, now = waiting[~bleaches], now[~bleaches]
    return BlinkState(on, bleached, brightness), _joined(parts)


def photons_by_frame(times: OnTimes, frames: int) -> Emissions:
    """Share the photons of on-times out among frames, by the part of each frame they cover.

    Args:
        times: on-times within [0, frames].
        frames: number of frames.

    Returns:
        One element for each molecule and frame with photons; several on-times of a molecule in
        one frame are added up.
    """
    first = np.floor(times.begin).astype(np.int64)
    last = np.minimum(np.ceil(times.end).astype(np.int64), frames)
    pieces = np.maximum(last - first, 0)
    source = np.repeat(np.arange(pieces.size), pieces)
    within = np.arange(source.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    frame = first[source] + within
    covered = np.minimum(times.end[source], frame + 1) - np.maximum(times.begin[source], frame)
    photons = times.brightness[source] * covered
    molecule = times.molecule[source]
    order = np.lexsort((molecule, frame))
    frame, molecule, photons = frame[order], molecule[order], photons[order]
    is_new = np.ones(frame.size, dtype=bool)
    is_new[1:] = (np.diff(frame) != 0) | (np.diff(molecule) != 0)
    group = np.cumsum(is_new) - 1
    total = np.bincount(group, photons, minlength=int(is_new.sum())).astype(np.float64)
    seen = total > 0
    return Emissions(frame[is_new][seen], molecule[is_new][seen], total[seen])


def _joined(parts: list[OnTimes]) -> OnTimes:
    empty = OnTimes(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0))
    parts = [empty, *parts]
    return OnTimes(
        np.concatenate([part.molecule for part in parts]),
        np.concatenate([part.begin for part in parts]),
        np.concatenate([part.end for part in parts]),
        np.concatenate([part.brightness for part in parts]),
    )
