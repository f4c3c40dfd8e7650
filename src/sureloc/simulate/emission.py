"""Which molecules shine where in which frame, block after block of frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from sureloc.seeds import numpy_generator
from sureloc.simulate.brightness import draw_brightness
from sureloc.simulate.kinetics import (
    DrawBrightness,
    Emissions,
    advance,
    first_state,
    photons_by_frame,
)
from sureloc.simulate.recipe import AlwaysKinetics, BlinkingKinetics, FreshKinetics, Recipe
from sureloc.simulate.scenes import Points, PointSource, point_source


@dataclass(frozen=True)
class EmitterBlock:
    """The emitters of a block of frames.

    Attributes:
        emissions: their frames (from the block's start), molecules and photons, in frame order.
        points_nm: their positions, drift excluded, shape (emitters, 2).
    """

    emissions: Emissions
    points_nm: Points


def emitter_blocks(recipe: Recipe, seed: int, block_frames: int) -> Iterator[EmitterBlock]:
    """Give the emitters of a movie without end, `block_frames` frames at a time.

    Every block has a random stream of its own; only the molecules' states and the next molecule's
    number are carried from block to block.
    """
    source = point_source(recipe.scene, recipe.frame, numpy_generator(seed, "structure"))
    brightness: DrawBrightness = partial(draw_brightness, recipe.photons)
    match recipe.kinetics:
        case FreshKinetics():
            return _fresh(source, brightness, seed, block_frames)
        case AlwaysKinetics():
            return _always(source, brightness, seed, block_frames)
        case BlinkingKinetics():
            return _blinking(source, brightness, recipe.kinetics, seed, block_frames)


def _fresh(
    source: PointSource, brightness: DrawBrightness, seed: int, frames: int
) -> Iterator[EmitterBlock]:
    block, seen = 0, 0
    while True:
        rng = numpy_generator(seed, "molecules", block)
        points = [source(rng) for _ in range(frames)]
        frame = np.repeat(np.arange(frames), [len(some) for some in points])
        molecule = seen + np.arange(frame.size)
        photons = brightness(frame.size, rng)
        yield EmitterBlock(Emissions(frame, molecule, photons), np.concatenate(points))
        block, seen = block + 1, seen + frame.size


def _always(
    source: PointSource, brightness: DrawBrightness, seed: int, frames: int
) -> Iterator[EmitterBlock]:
    rng = numpy_generator(seed, "molecules")
    points = source(rng)
    photons = brightness(len(points), rng)
    frame = np.repeat(np.arange(frames), len(points))
    molecule = np.tile(np.arange(len(points)), frames)
    block = EmitterBlock(Emissions(frame, molecule, photons[molecule]), points[molecule])
    while True:
        yield block


def _blinking(
    source: PointSource,
    brightness: DrawBrightness,
    kinetics: BlinkingKinetics,
    seed: int,
    frames: int,
) -> Iterator[EmitterBlock]:
    rng = numpy_generator(seed, "molecules")
    points = source(rng)
    state = first_state(len(points), kinetics, brightness, rng)
    block = 0
    while True:
        rng = numpy_generator(seed, "kinetics", block)
        state, times = advance(state, frames, kinetics, brightness, rng)
        emissions = photons_by_frame(times, frames)
        yield EmitterBlock(emissions, points[emissions.molecule])
        block += 1


def drift_blocks(recipe: Recipe, seed: int, block_frames: int) -> Iterator[npt.NDArray[np.float64]]:
    """Give the drift (x, y) of a movie without end in nm, shape (block_frames, 2) at a time."""
    velocity = np.asarray(recipe.drift.velocity_nm_per_frame)
    walked = np.zeros(2)
    block = 0
    while True:
        steps = numpy_generator(seed, "drift", block).normal(size=(block_frames, 2))
        steps *= recipe.drift.walk_nm
        if block == 0:
            steps[0] = 0
        walk = walked + np.cumsum(steps, axis=0)
        frame = block * block_frames + np.arange(block_frames)
        yield frame[:, None] * velocity + walk
        walked = walk[-1]
        block += 1
