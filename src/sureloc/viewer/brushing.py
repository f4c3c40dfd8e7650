"""Linked brushing: ranges of some quantities choose rows, and chosen rows show in histograms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.viewer.table_layers import precision_nm

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Range = tuple[float, float]

BINS = 60
_LOG_FROM = 20.0  # a largest over smallest value from which bins grow evenly in the logarithm

_MARGIN = 0.04


@dataclass(frozen=True)
class Quantity:
    """Something that rows can be chosen by.

    Attributes:
        name: for people.
        unit: of its values; empty where the name says it.
        values: one a row.
    """

    name: str
    unit: str
    values: Array

    @property
    def label(self) -> str:
        """Name with unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


def quantities(table: pd.DataFrame) -> tuple[Quantity, ...]:
    """Give what rows of a table can be chosen by: precision, photons, probability to exist."""
    found = []
    precision = precision_nm(table)
    if precision is not None:
        found.append(Quantity("precision", "nm", precision))
    for column, name, unit in (
        ("photons", "photons", ""),
        ("p_exists", "probability to exist", ""),
    ):
        if column in table.columns:
            found.append(Quantity(name, unit, table[column].to_numpy(float)))
    return tuple(found)


@dataclass(frozen=True)
class Histogram:
    """Bins of one quantity, and how many rows fall into each.

    Attributes:
        edges: of the bins, (bins + 1); infinite and missing values are in none.
        counts: rows in every bin.
        logarithmic: whether bins grow evenly in the logarithm.
    """

    edges: Array
    counts: npt.NDArray[np.int64]
    logarithmic: bool

    def share(self, values: Array, chosen: Mask) -> npt.NDArray[np.int64]:
        """Give how many of the chosen rows fall into every bin."""
        return np.histogram(values[chosen], self.edges)[0].astype(np.int64)

    def with_margins(self) -> Range:
        """Give a wider range, so that a range can be begun beside the first or last bin."""
        low, high = float(self.edges[0]), float(self.edges[-1])
        if self.logarithmic:
            factor = (high / low) ** _MARGIN
            return low / factor, high * factor
        return low - _MARGIN * (high - low), high + _MARGIN * (high - low)

    def moved(self, chosen: Range, lower: int, upper: int) -> Range:
        """Move the ends of a range by whole bins; it stays inside, and at least one bin wide."""
        last = self.edges.size - 1
        low, high = (int(np.abs(self.edges - end).argmin()) for end in chosen)
        if lower == upper:  # the whole range: it keeps its width at the ends
            lower = upper = int(np.clip(lower, -low, last - high))
        low = int(np.clip(low + lower, 0, last - 1))
        high = int(np.clip(high + upper, low + 1, last))
        return float(self.edges[low]), float(self.edges[high])


def histogram(values: Array, bins: int = BINS) -> Histogram:
    """Count values in bins between the smallest and the largest.

    Args:
        values: one a row; those that are not finite are left out.
        bins: how many.
    """
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    logarithmic = low > 0 and high / low >= _LOG_FROM
    if high <= low:
        about = max(0.05 * abs(low), 0.05)  # wide enough to be read off an axis
        low, high = low - about, low + about
    edges = np.geomspace(low, high, bins + 1) if logarithmic else np.linspace(low, high, bins + 1)
    edges[0], edges[-1] = low, high  # rounding must not lose the extremes
    return Histogram(edges, np.histogram(values, edges)[0].astype(np.int64), logarithmic)


def chosen_rows(rows: int, found: Mapping[str, Array], ranges: Mapping[str, Range]) -> Mask:
    """Tell which rows lie in all ranges, ends included.

    Args:
        rows: how many there are.
        found: values of every quantity, one a row, by its name.
        ranges: by the quantity's name; none choose all rows.
    """
    chosen = np.ones(rows, dtype=bool)
    for name, (low, high) in ranges.items():
        chosen &= (found[name] >= low) & (found[name] <= high)
    return chosen
