"""Matching the emitters of many draws to one list of reference emitters (Numba)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sureloc.compiled.jit import compiled

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


@compiled
def _assign_one(reference: Array, x: Array, y: Array, n: int, gate: float, out: Index) -> None:
    """Match one draw greedily by distance, then exchange partners while that shortens the sum.

    out[j] is the reference row of emitter j, or -1.
    """
    m = reference.shape[0]
    pairs = 0
    capacity = 8 * n + 8
    distance = np.empty(capacity)
    left = np.empty(capacity, np.int64)
    right = np.empty(capacity, np.int64)
    for j in range(n):
        out[j] = -1
        for i in range(m):
            dx = reference[i, 0] - x[j]
            dy = reference[i, 1] - y[j]
            d = dx * dx + dy * dy
            if d <= gate * gate and pairs < capacity:
                distance[pairs] = d
                left[pairs] = i
                right[pairs] = j
                pairs += 1
    order = np.argsort(distance[:pairs])
    owner = np.full(m, -1, np.int64)
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
    for s in range(counts.size):
        _assign_one(reference, x[s], y[s], counts[s], gate, out[s])
    return out


@compiled
def densest_point(
    x: Array, y: Array, assigned: Index, counts: Index, radius: float
) -> tuple[float, float, int]:
    """Give the unmatched emitter with most unmatched neighbours of other draws, and that number."""
    best_x, best_y, best = 0.0, 0.0, 0
    total = 0
    for s in range(counts.size):
        for j in range(counts[s]):
            if assigned[s, j] < 0:
                total += 1
    px = np.empty(total)
    py = np.empty(total)
    k = 0
    for s in range(counts.size):
        for j in range(counts[s]):
            if assigned[s, j] < 0:
                px[k] = x[s, j]
                py[k] = y[s, j]
                k += 1
    order = np.argsort(px)
    for a in range(total):
        i = order[a]
        near = 1
        for direction in (-1, 1):
            b = a + direction
            while 0 <= b < total and abs(px[order[b]] - px[i]) <= radius:
                dx = px[order[b]] - px[i]
                dy = py[order[b]] - py[i]
                if dx * dx + dy * dy <= radius * radius:
                    near += 1
                b += direction
        if near > best:
            best_x, best_y, best = px[i], py[i], near
    return best_x, best_y, best
