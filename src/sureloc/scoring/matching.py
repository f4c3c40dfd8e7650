"""Localizations beside true emitters: which belongs to which, how many were found, do errors fit.

Positions may be in any unit, as long as radii and errors are in the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist


def match_within(
    found: Float[np.ndarray, "rows axes"], true: Float[np.ndarray, "truths axes"], radius: float
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Pair positions of one frame, one to one (Hungarian method, Kuhn 1955).

    Args:
        found, true: positions.
        radius: largest distance of a pair.

    Returns:
        Index of each pair in `found` and in `true`: as many pairs as possible, and of all such
        pairings the one of the smallest summed distance.
    """
    distance = cdist(found, true)
    near = distance <= radius
    # One pair too far must cost more than any number of near ones together.
    too_far = (1.0 + radius) * (1 + min(distance.shape))
    one, other = linear_sum_assignment(np.where(near, distance, too_far))
    good = near[one, other]
    return one[good].astype(np.int64), other[good].astype(np.int64)


@dataclass(frozen=True)
class Detection:
    """How complete and how clean a table is.

    Attributes:
        truths, rows, pairs: emitters that exist, rows found, and pairs of them.
    """

    truths: int
    rows: int
    pairs: int

    @property
    def jaccard(self) -> float:
        """pairs / (truths + rows - pairs); NaN where there is nothing."""
        return _ratio(self.pairs, self.truths + self.rows - self.pairs)

    @property
    def recall(self) -> float:
        """pairs / truths; NaN without truths."""
        return _ratio(self.pairs, self.truths)

    @property
    def precision(self) -> float:
        """pairs / rows; NaN without rows."""
        return _ratio(self.pairs, self.rows)


def root_mean_square(errors: Float[np.ndarray, " errors"]) -> float:
    """Give sqrt(mean e^2); NaN where there are none."""
    return float(np.sqrt(np.mean(errors**2))) if errors.size else float("nan")


def interval_coverage(
    low: Float[np.ndarray, " values"],
    high: Float[np.ndarray, " values"],
    true: Float[np.ndarray, " values"],
) -> float:
    """Give the share of true values inside their stated interval, ends included; NaN without."""
    inside: Bool[np.ndarray, " values"] = (true >= low) & (true <= high)
    return float(np.mean(inside)) if inside.size else float("nan")


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
