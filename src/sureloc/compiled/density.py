"""Mean and variance over draws of an image to which every emitter adds a small patch (Numba)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sureloc.compiled.jit import compiled

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

STRIP_ROWS = 64  # rows of the image that are summed at a time, so that sums stay near


@compiled
def density_of_draws(
    first_row: Index,
    first_column: Index,
    along_y: Array,
    along_x: Array,
    draw: Index,
    number: int,
    height: int,
    width: int,
) -> tuple[Index, Array, Array]:
    """Give where the image is not 0, and its mean and mean square over `number` draws there.

    Emitter i of draw[i], ascending, adds along_y[i, r] * along_x[i, c] to the pixel
    (first_row[i] + r, first_column[i] + c); what lies outside (height, width) is left out. Pixels
    are flat indices, each given once.
    """
    n, side = along_x.shape
    strips = (height + STRIP_ROWS - 1) // STRIP_ROWS
    # Emitters of each strip, in their order.
    ends = np.zeros(strips + 1, np.int64)
    for i in range(n):
        for s in range(
            max(first_row[i], 0) // STRIP_ROWS,
            min(first_row[i] + side - 1, height - 1) // STRIP_ROWS + 1,
        ):
            ends[s + 1] += 1
    ends = np.cumsum(ends)
    members = np.empty(ends[-1], np.int64)
    place = ends[:-1].copy()
    for i in range(n):
        for s in range(
            max(first_row[i], 0) // STRIP_ROWS,
            min(first_row[i] + side - 1, height - 1) // STRIP_ROWS + 1,
        ):
            members[place[s]] = i
            place[s] += 1
    most = min(n * side * side, height * width)
    pixel, mean, square = np.empty(most, np.int64), np.empty(most), np.empty(most)
    found = 0
    size = STRIP_ROWS * width
    of_draw, total, squares = np.zeros(size), np.zeros(size), np.zeros(size)
    touched, seen = np.empty(size, np.int64), np.empty(size, np.int64)
    for s in range(strips):
        top = s * STRIP_ROWS
        bottom = min(top + STRIP_ROWS, height)
        number_touched = number_seen = 0
        for m in range(ends[s], ends[s + 1]):
            i = members[m]
            for row in range(max(first_row[i], top), min(first_row[i] + side, bottom)):
                for column in range(max(first_column[i], 0), min(first_column[i] + side, width)):
                    value = along_y[i, row - first_row[i]] * along_x[i, column - first_column[i]]
                    if value == 0.0:
                        continue
                    p = (row - top) * width + column
                    if of_draw[p] == 0.0:
                        touched[number_touched] = p
                        number_touched += 1
                    of_draw[p] += value
            if m + 1 == ends[s + 1] or draw[members[m + 1]] != draw[i]:
                for k in range(number_touched):
                    p = touched[k]
                    if total[p] == 0.0:
                        seen[number_seen] = p
                        number_seen += 1
                    total[p] += of_draw[p]
                    squares[p] += of_draw[p] ** 2
                    of_draw[p] = 0.0
                number_touched = 0
        for k in range(number_seen):
            p = seen[k]
            pixel[found] = top * width + p
            mean[found] = total[p] / number
            square[found] = squares[p] / number
            total[p] = squares[p] = 0.0
            found += 1
    return pixel[:found], mean[:found], square[:found]
