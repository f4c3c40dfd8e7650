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

from sureloc.compiled.jit import filling, inner
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
    NOTHING,
    ROAMING,
    SPARE,
    Array,
    Frame,
    Model,
    Scratch,
    State,
    add_emitters,
    fill_shapes,
    frame_shape,
    make_scratch,
    patch_bounds,
)

MOVES_A_RATE = 4000  # until the expected image is computed anew
BLOCK, BIRTH, DEATH, SPLIT, MERGE, RESPLIT, BACKGROUND, REDRAW = range(8)


@inner
def refresh_rate(frame: Frame, model: Model, state: State, work: Scratch) -> None:
    """Compute the expected image anew from the emitters, so that rounding does not add up."""
    rows, columns = frame_shape(state.rate)
    for r in range(rows):
        for c in range(state.rate.shape[1]):
            state.rate[r, c] = frame.shift[r, c]
    for i in range(state.knots.shape[0]):
        for k in range(state.knots.shape[1]):
            for r in range(rows):
                along_y = np.float32(state.knots[i, k]) * model.basis_y[i, r]
                if along_y != NOTHING:
                    for c in range(state.rate.shape[1]):
                        state.rate[r, c] += along_y * model.basis_x[k, c]
    for j in range(state.number[0]):
        x, y = state.emitters[0, j], state.emitters[1, j]
        patch = patch_bounds(x, x, y, y, model.reach, rows, columns)
        for a in range(3):
            work.new[0, a] = state.emitters[a, j]
        fill_shapes(work.new, 1, patch, model, work)
        add_emitters(work.new, 1, 1.0, patch, state.rate, work)


@filling
def fill_states(
    frame: Frame,
    model: Model,
    state: State,
    work: Scratch,
    burn_in: int,
    steps_per_sample: int,
    emitters: Array,
    counts: npt.NDArray[np.int64],
    knots: Array,
    mean: Array,
    square: Array,
    tally: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> None:
    """Move `state` on, and fill what `run_chain` gives."""
    rows, columns = frame_shape(frame.counts)
    samples = counts.size
    refresh_rate(frame, model, state, work)
    moves_left = MOVES_A_RATE
    for sample in range(-1, samples):
        for _ in range(burn_in if sample < 0 else steps_per_sample):
            if moves_left == 0:
                refresh_rate(frame, model, state, work)
                moves_left = MOVES_A_RATE
            moves_left -= 1
            kind = int(np.searchsorted(model.moves, rng.random()))
            tally[kind, 0] += 1
            if model.active.size > 0:
                work.everywhere[0] = rng.random() < ROAMING
            # Here and not in a function of its own: it would be compiled three times over.
            if kind == BLOCK:
                accepted = move_block(frame, model, state, work, rng)
            elif kind in (BIRTH, DEATH):
                accepted = change_count(kind == BIRTH, frame, model, state, work, rng)
            elif kind == SPLIT:
                accepted = split(frame, model, state, work, rng)
            elif kind == MERGE:
                accepted = merge(frame, model, state, work, rng)
            elif kind == RESPLIT:
                accepted = resplit(frame, model, state, work, rng)
            elif kind == BACKGROUND:
                accepted = move_background(frame, model, state, work, rng)
            else:
                accepted = redraw(frame, model, state, work, rng)
            if accepted:
                tally[kind, 1] += 1
        if sample >= 0:
            n = state.number[0]
            counts[sample] = n
            for j in range(n):
                for a in range(3):
                    emitters[sample, j, a] = state.emitters[a, j]
            for i in range(knots.shape[1]):
                for k in range(knots.shape[2]):
                    knots[sample, i, k] = state.knots[i, k]
            for r in range(rows):
                for c in range(columns):
                    here = state.rate[r, c] - frame.shift[r, c]
                    mean[r, c] += here / samples
                    square[r, c] += here * here / samples


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
    shape = (frame.counts.shape[0], frame.counts.shape[1] - SPARE)
    number = min(start.shape[0], max_emitters)
    begin = np.zeros((3, max_emitters))
    begin[:, :number] = start[:number].T
    rate = np.empty_like(frame.counts)
    state = State(begin, np.array([number]), rate, start_knots.copy())
    filled = (
        np.zeros((samples, max_emitters, 3)),
        np.zeros(samples, np.int64),
        np.zeros((samples, *start_knots.shape)),
        np.zeros(shape),
        np.zeros(shape),
        np.zeros((8, 2), np.int64),
    )
    work = make_scratch(*shape)
    fill_states(frame, model, state, work, burn_in, steps_per_sample, *filled, rng)
    return filled
