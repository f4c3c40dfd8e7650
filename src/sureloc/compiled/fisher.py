"""Joint Fisher matrix of many emitters and a background, assembled pair by pair (Numba)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sureloc.compiled.jit import compiled
from sureloc.compiled.scene import axis_shape

Array = npt.NDArray[np.float64]


@compiled
def joint_fisher(
    emitters: Array,
    information: Array,
    sigma_x: float,
    sigma_y: float,
    reach: float,
    basis_y: Array,
    basis_x: Array,
) -> Array:
    """Give the Fisher matrix of (x, y, photons) of every emitter, then of every background knot.

    emitters: (n, 3) as x px, y px, photo-electrons. information: per pixel, 1 / (F^2 omega + v) or
    0. basis_y: (knots_y, rows), basis_x: (knots_x, columns). The result has the size
    3 n + knots_y * knots_x; knot (i, k) is at 3 n + i * knots_x + k. Emitters farther apart than
    twice the reach do not couple.
    """
    n = emitters.shape[0]
    rows, columns = information.shape
    knots_x = basis_x.shape[0]
    size = 3 * n + basis_y.shape[0] * knots_x
    fisher = np.zeros((size, size))
    side = math.ceil(2 * reach) + 3
    gradients = np.zeros((n, 3, side, side))
    first_row = np.empty(n, np.int64)
    first_column = np.empty(n, np.int64)
    shape_x, slope_x = np.empty(side), np.empty(side)
    shape_y, slope_y = np.empty(side), np.empty(side)
    for i in range(n):
        x, y, photons = emitters[i, 0], emitters[i, 1], emitters[i, 2]
        first_column[i] = math.floor(x - reach)
        first_row[i] = math.floor(y - reach)
        axis_shape(x, sigma_x, first_column[i], side, shape_x, slope_x)
        axis_shape(y, sigma_y, first_row[i], side, shape_y, slope_y)
        for r in range(side):
            for c in range(side):
                gradients[i, 0, r, c] = photons * slope_x[c] * shape_y[r]
                gradients[i, 1, r, c] = photons * shape_x[c] * slope_y[r]
                gradients[i, 2, r, c] = shape_x[c] * shape_y[r]
    for i in range(n):
        for j in range(i + 1):
            if (
                abs(first_row[i] - first_row[j]) >= side
                or abs(first_column[i] - first_column[j]) >= side
            ):
                continue
            top = max(first_row[i], first_row[j], 0)
            bottom = min(min(first_row[i], first_row[j]) + side, rows)
            left = max(first_column[i], first_column[j], 0)
            right = min(min(first_column[i], first_column[j]) + side, columns)
            for r in range(top, bottom):
                for c in range(left, right):
                    for a in range(3):
                        weighted = (
                            information[r, c]
                            * gradients[i, a, r - first_row[i], c - first_column[i]]
                        )
                        for b in range(3):
                            fisher[3 * i + a, 3 * j + b] += (
                                weighted * gradients[j, b, r - first_row[j], c - first_column[j]]
                            )
    for i in range(basis_y.shape[0]):
        for k in range(knots_x):
            at = 3 * n + i * knots_x + k
            for r in range(rows):
                if basis_y[i, r] == 0.0:
                    continue
                for c in range(columns):
                    weighted = information[r, c] * basis_y[i, r] * basis_x[k, c]
                    if weighted == 0.0:
                        continue
                    for i2 in range(basis_y.shape[0]):
                        for k2 in range(knots_x):
                            other = 3 * n + i2 * knots_x + k2
                            if other <= at:
                                fisher[at, other] += weighted * basis_y[i2, r] * basis_x[k2, c]
            for j in range(n):
                for r in range(max(first_row[j], 0), min(first_row[j] + side, rows)):
                    for c in range(max(first_column[j], 0), min(first_column[j] + side, columns)):
                        weighted = information[r, c] * basis_y[i, r] * basis_x[k, c]
                        if weighted != 0.0:
                            for a in range(3):
                                fisher[at, 3 * j + a] += (
                                    weighted
                                    * gradients[j, a, r - first_row[j], c - first_column[j]]
                                )
    for a in range(size):
        for b in range(a):
            fisher[b, a] = fisher[a, b]
    return fisher
