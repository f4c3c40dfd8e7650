"""Matching the emitters of many draws to one list of reference emitters (Numba)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sureloc.compiled.jit import compiled

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


@compiled
def _assign_one(
    reference: Array,
    by_x: Index,
    sorted_x: Array,
    x: Array,
    y: Array,
    n: int,
    gate: float,
    out: Index,
) -> None:
    """Match one draw greedily by distance, then exchange partners while that shortens the sum.

    out[j] is the reference row of emitter j, or -1. by_x orders the rows by x, sorted_x is theirs.
    """
    m = reference.shape[0]
    pairs = 0
    capacity = 8 * n + 8
    distance = np.empty(capacity)
    left = np.empty(capacity, np.int64)
    right = np.empty(capacity, np.int64)
    suitors = np.zeros(m, np.int64)  # emitters within the gate of each row
    for j in range(n):
        out[j] = -1
        first = pairs
        place = np.searchsorted(sorted_x, x[j] - gate)
        while place < m and sorted_x[place] <= x[j] + gate:
            i = by_x[place]
            place += 1
            dx = reference[i, 0] - x[j]
            dy = reference[i, 1] - y[j]
            d = dx * dx + dy * dy
            if d <= gate * gate and pairs < capacity:
                distance[pairs] = d
                left[pairs] = i
                right[pairs] = j
                suitors[i] += 1
                pairs += 1
        if pairs - first > 1:  # several rows to choose from
            for k in range(first, pairs):
                suitors[left[k]] = 2
    owner = np.full(m, -1, np.int64)
    open_pairs = 0
    for k in range(pairs):
        if suitors[left[k]] == 1:  # nobody else's business
            owner[left[k]] = right[k]
            out[right[k]] = left[k]
        else:
            distance[open_pairs], left[open_pairs], right[open_pairs] = (
                distance[k],
                left[k],
                right[k],
            )
            open_pairs += 1
    pairs = open_pairs
    order = np.argsort(distance[:pairs])
    for k in order:
        if owner[left[k]] < 0 and out[right[k]] < 0:
            owner[left[k]] = right[k]
            out[right[k]] = left[k]
    for _ in range(3):
        for k in range(pairs):
            i, j = left[k], right[k]
            other_row, other_emitter = out[j], owner[i]
            if other_row == i or other_row < 0 or other_emitter < 0:
                continue
            # emitter j takes row i, its partner there takes j's old row
            dx = reference[other_row, 0] - x[other_emitter]
            dy = reference[other_row, 1] - y[other_emitter]
            crossed = distance[k] + dx * dx + dy * dy
            if dx * dx + dy * dy > gate * gate:
                continue
            d1x = reference[i, 0] - x[other_emitter]
            d1y = reference[i, 1] - y[other_emitter]
            d2x = reference[other_row, 0] - x[j]
            d2y = reference[other_row, 1] - y[j]
            straight = d1x * d1x + d1y * d1y + d2x * d2x + d2y * d2y
            if crossed < straight:
                out[j], owner[i] = i, j
                out[other_emitter], owner[other_row] = other_row, other_emitter


@compiled
def assign_draws(reference: Array, x: Array, y: Array, counts: Index, gate: float) -> Index:
    """Match every draw's emitters (draws, max) to reference rows (m, 2); -1 is unmatched."""
    out = np.full(x.shape, -1, np.int64)
    by_x = np.argsort(reference[:, 0])
    sorted_x = reference[:, 0][by_x]
    for s in range(counts.size):
        _assign_one(reference, by_x, sorted_x, x[s], y[s], counts[s], gate, out[s])
    return out


@compiled
def nearest_rows(reference: Array, x: Array, y: Array) -> Index:
    """Give the reference row (m, 2) nearest to each place (n,); there is at least one row."""
    m = reference.shape[0]
    by_x = np.argsort(reference[:, 0])
    sorted_x = reference[:, 0][by_x]
    out = np.empty(x.size, np.int64)
    for j in range(x.size):
        best = np.inf
        right = np.searchsorted(sorted_x, x[j])
        left = right - 1
        # Outwards on both sides, until the distance along x alone is too large.
        while left >= 0 or right < m:
            if right < m:
                dx = sorted_x[right] - x[j]
                if dx * dx > best:
                    right = m
                else:
                    dy = reference[by_x[right], 1] - y[j]
                    if dx * dx + dy * dy < best:
                        best = dx * dx + dy * dy
                        out[j] = by_x[right]
                    right += 1
            if left >= 0:
                dx = sorted_x[left] - x[j]
                if dx * dx > best:
                    left = -1
                else:
                    dy = reference[by_x[left], 1] - y[j]
                    if dx * dx + dy * dy < best:
                        best = dx * dx + dy * dy
                        out[j] = by_x[left]
                    left -= 1
    return out


@compiled
def missed_points(
    x: Array, y: Array, assigned: Index, counts: Index, radius: float, gate: float, least: float
) -> Array:
    """Give places (m, 2) round which unmatched emitters crowd, the most crowded first.

    A place is an unmatched emitter with at least `least` unmatched ones, itself included, within
    `radius`. Of every draw, the one nearest to it within `gate` then counts as matched.
    """
    total = 0
    for s in range(counts.size):
        for j in range(counts[s]):
            if assigned[s, j] < 0:
                total += 1
    px, py = np.empty(total), np.empty(total)
    draw = np.empty(total, np.int64)
    k = 0
    for s in range(counts.size):
        for j in range(counts[s]):
            if assigned[s, j] < 0:
                px[k], py[k], draw[k] = x[s, j], y[s, j], s
                k += 1
    order = np.argsort(px)
    px, py, draw = px[order], py[order], draw[order]
    near = np.zeros(total, np.int64)
    for i in range(total):
        near[i] += 1
        b = i + 1
        while b < total and px[b] - px[i] <= radius:
            if (px[b] - px[i]) ** 2 + (py[b] - py[i]) ** 2 <= radius * radius:
                near[i] += 1
                near[b] += 1
            b += 1
    found = np.empty((total, 2))
    number = 0
    closest = np.empty(counts.size)
    taken = np.empty(counts.size, np.int64)
    while total > 0:
        best = int(np.argmax(near))
        if near[best] < least:
            break
        found[number, 0], found[number, 1] = px[best], py[best]
        number += 1
        closest[:] = gate * gate
        taken[:] = -1
        first = np.searchsorted(px, px[best] - gate)
        b = first
        while b < total and px[b] - px[best] <= gate:
            d = (px[b] - px[best]) ** 2 + (py[b] - py[best]) ** 2
            if near[b] > 0 and d <= closest[draw[b]]:
                closest[draw[b]] = d
                taken[draw[b]] = b
            b += 1
        for gone in taken:
            if gone < 0:
                continue
            near[gone] = 0
            b = np.searchsorted(px, px[gone] - radius)
            while b < total and px[b] - px[gone] <= radius:
                d = (px[b] - px[gone]) ** 2 + (py[b] - py[gone]) ** 2
                if near[b] > 0 and d <= radius * radius:
                    near[b] -= 1
                b += 1
    return found[:number]
