"""One Markov chain over sets of emitters under the exact image likelihood (Numba).

State: n emitters (x, y, photons), the coefficients of the background, and the expected image they
give. Target: the posterior under the shifted-Poisson likelihood (`sureloc.physics.likelihood`), a
Poisson process of emitters over a rectangle, a tabulated photon prior, and truncated Gaussians on
the background's coefficients. Moves (Green 1995; Richardson and Green 1997):

block       all emitters in a small disc move together, by a Gaussian proposal centred on their
            Newton step with the inverse Fisher matrix as covariance; proposals that leave the
            disc are refused, so that the reverse move sees the same disc and the same emitters
birth/death one emitter more or less; its photons come from the prior or from the residual
split/merge one emitter becomes two with the same flux and centroid, or two become one
resplit     two near emitters are merged and split again: another direction, another share
background  one coefficient of the background moves, by its own Newton step
redraw      all emitters of a small disc are forgotten and drawn anew, their number included, from
            Gaussians round the best fits with 1, 2, 3, ... emitters, weighted by their evidence

Where only some pixels are `active`, nearly all moves whose centre lies elsewhere are left out: the
centre (of the disc, of the emitter born or dead, of the one that is split or the two that are
merged) is the same for a move and its reverse, so detailed balance holds with any choice of pixels.

Coordinates are in camera pixels with pixel centres at integers; counts are photo-electrons.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sureloc.compiled.jit import compiled, inner
from sureloc.compiled.moves import (
    change_count,
    merge,
    move_background,
    move_block,
    resplit,
    split,
)
from sureloc.compiled.redraw import redraw
from sureloc.compiled.scene import (
    ROAMING,
    Array,
    Frame,
    Model,
    Scratch,
    State,
    add_emitters,
    fill_shapes,
    make_scratch,
    patch_bounds,
)

BLOCK, BIRTH, DEATH, SPLIT, MERGE, RESPLIT, BACKGROUND, REDRAW = range(8)


@inner
def refresh_rate(frame: Frame, model: Model, state: State, work: Scratch) -> None:
    """Compute the expected image anew from the emitters, so that rounding does not add up."""
    rows, columns = state.rate.shape
    for r in range(rows):
        for c in range(columns):
            state.rate[r, c] = frame.shift[r, c]
    for i in range(state.knots.shape[0]):
        for k in range(state.knots.shape[1]):
            for r in range(rows):
                along_y = state.knots[i, k] * model.basis_y[i, r]
                if along_y != 0.0:
                    for c in range(columns):
                        state.rate[r, c] += along_y * model.basis_x[k, c]
    for j in range(state.number[0]):
        x, y = state.emitters[j, 0], state.emitters[j, 1]
        patch = patch_bounds(x, x, y, y, model.reach, rows, columns)
        for a in range(3):
            work.new[0, a] = state.emitters[j, a]
        fill_shapes(work.new, 1, patch, model, work)
        add_emitters(work.new, 1, 1.0, patch, state.rate, work)


@inner
def one_move(
    kind: int, frame: Frame, model: Model, state: State, work: Scratch, rng: np.random.Generator
) -> bool:
    """Propose one move of a kind; tell whether it was accepted."""
    if kind == BLOCK:
        return move_block(frame, model, state, work, rng)
    if kind == BIRTH:
        return change_count(True, frame, model, state, work, rng)
    if kind == DEATH:
        return change_count(False, frame, model, state, work, rng)
    if kind == SPLIT:
        return split(frame, model, state, work, rng)
    if kind == MERGE:
        return merge(frame, model, state, work, rng)
    if kind == RESPLIT:
        return resplit(frame, model, state, work, rng)
    if kind == BACKGROUND:
        return move_background(frame, model, state, work, rng)
    return redraw(frame, model, state, work, rng)


@inner
def walk(
    steps: int,
    frame: Frame,
    model: Model,
    state: State,
    work: Scratch,
    tally: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> None:
    """Make so many moves and count them in `tally`, (8, 2): tried and accepted."""
    for _ in range(steps):
        kind = int(np.searchsorted(model.moves, rng.random()))
        tally[kind, 0] += 1
        if model.active.size > 0:
            work.everywhere[0] = rng.random() < ROAMING
        if one_move(kind, frame, model, state, work, rng):
            tally[kind, 1] += 1
    refresh_rate(frame, model, state, work)


@compiled
def run_chain(
    frame: Frame,
    model: Model,
    start: Array,
    start_knots: Array,
    max_emitters: int,
    burn_in: int,
    samples: int,
    steps_per_sample: int,
    rng: np.random.Generator,
) -> tuple[Array, npt.NDArray[np.int64], Array, Array, Array, npt.NDArray[np.int64]]:
    """Run one chain from `start` (n, 3).

    Gives emitters (samples, max_emitters, 3), counts (samples,), background knots (samples,
    knots_y, knots_x), the mean expected image and the mean of its square (rows, columns), and per
    kind of move how often it was tried and accepted (8, 2).
    """
    rows, columns = frame.counts.shape
    work = make_scratch(rows, columns)
    state = State(
        np.zeros((max_emitters, 3)),
        np.zeros(1, np.int64),
        np.empty((rows, columns)),
        start_knots.copy(),
    )
    state.number[0] = min(start.shape[0], max_emitters)
    for j in range(state.number[0]):
        for a in range(3):
            state.emitters[j, a] = start[j, a]
    refresh_rate(frame, model, state, work)
    emitters = np.zeros((samples, max_emitters, 3))
    counts = np.zeros(samples, np.int64)
    knots = np.zeros((samples, start_knots.shape[0], start_knots.shape[1]))
    mean = np.zeros((rows, columns))
    square = np.zeros((rows, columns))
    tally = np.zeros((8, 2), np.int64)
    for sample in range(-1, samples):
        steps = burn_in if sample < 0 else steps_per_sample
        walk(steps, frame, model, state, work, tally, rng)
        if sample >= 0:
            n = state.number[0]
            emitters[sample, :n] = state.emitters[:n]
            counts[sample] = n
            knots[sample] = state.knots
            for r in range(rows):
                for c in range(columns):
                    here = state.rate[r, c] - frame.shift[r, c]
                    mean[r, c] += here / samples
                    square[r, c] += here * here / samples
    return emitters, counts, knots, mean, square, tally
