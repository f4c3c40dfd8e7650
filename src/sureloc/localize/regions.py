"""Large frames in pieces: regions with a halo, each owning the emitters of its core.

Regions sit on a grid fixed to the movie's own pixels and are never cut, so that the result does not
depend on how the work is split: a window takes every region that it touches. The halo lets emitters
outside the core explain their light inside; a row belongs to the region in whose core it lies, and
one that two regions claim across their border counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sureloc.localize.columns import Columns, joined, length, taken

Array = npt.NDArray[np.float64]

CORE_PX = 64
WHOLE_PX = 80  # frames up to this size are not cut
HALO_SIGMAS = 7.0
CLAIM_PX = 0.3  # a region also reports rows this far outside its core, for its neighbours to miss
SAME_PX = 0.5  # two regions' rows closer than this at a border are one
BORDER_PX = 2  # rows farther than this from a region's core do not depend on it


@dataclass(frozen=True)
class Region:
    """A rectangle of the frame.

    Attributes:
        number: its place in the grid, which names its random streams.
        rows, columns: slices with the halo.
        core_rows, core_columns: (first, last + 1) pixels that it owns.
    """

    number: int
    rows: slice
    columns: slice
    core_rows: tuple[int, int]
    core_columns: tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A part of the frame that is asked for.

    Attributes:
        rows, columns: (first, last + 1) pixels.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index an image."""
        return slice(*self.rows), slice(*self.columns)

    def touches(self, region: Region) -> bool:
        """Tell whether a region has a say in the window's rows."""
        return all(
            core[0] - BORDER_PX < mine[1] and mine[0] < core[1] + BORDER_PX
            for core, mine in (
                (region.core_rows, self.rows),
                (region.core_columns, self.columns),
            )
        )

    def holds(self, x_px: Array, y_px: Array) -> npt.NDArray[np.bool_]:
        """Tell which positions, in the frame's pixels, lie in the window."""
        return _between(x_px, self.columns) & _between(y_px, self.rows)


def _between(
    position: Array, pixels: tuple[int, int], slack_px: float = 0.0
) -> npt.NDArray[np.bool_]:
    low, high = pixels[0] - 0.5 - slack_px, pixels[1] - 0.5 + slack_px
    return np.asarray((position >= low) & (position < high))


def regions_of(shape: tuple[int, int], sigma_px: tuple[float, float]) -> list[Region]:
    """Cut a frame of shape (rows, columns) into regions."""
    halo = round(HALO_SIGMAS * max(sigma_px))
    out: list[Region] = []
    for top, bottom in cuts(shape[0]):
        for left, right in cuts(shape[1]):
            out.append(
                Region(
                    len(out),
                    slice(max(top - halo, 0), min(bottom + halo, shape[0])),
                    slice(max(left - halo, 0), min(right + halo, shape[1])),
                    (top, bottom),
                    (left, right),
                )
            )
    return out


def cuts(size: int) -> list[tuple[int, int]]:
    """Cut `size` pixels into (first, last + 1) pieces of about `CORE_PX`."""
    if size <= WHOLE_PX:
        return [(0, size)]
    starts = list(range(0, size, CORE_PX))
    if size - starts[-1] < CORE_PX // 4:
        starts.pop()
    return list(zip(starts, [*starts[1:], size], strict=True))


def owned(x_px: Array, y_px: Array, region: Region, slack_px: float) -> npt.NDArray[np.bool_]:
    """Tell which positions, in the frame's pixels, lie in a region's core or within the slack."""
    return _between(x_px, region.core_columns, slack_px) & _between(
        y_px, region.core_rows, slack_px
    )


def unique_rows(parts: Sequence[Columns], regions: Sequence[Region], pixel_nm: float) -> Columns:
    """Join the rows of a frame's regions; a row that two regions report is kept once.

    Args:
        parts: rows of each region (`sureloc.table.LOCALIZATION_COLUMNS`), positions in the frame's
            nm, within the core or `CLAIM_PX` of it.
        regions: the regions.
        pixel_nm: pixel size, nm.
    """
    inner, outer = [], []
    for rows, region in zip(parts, regions, strict=True):
        mine = owned(rows["x_nm"] / pixel_nm, rows["y_nm"] / pixel_nm, region, 0.0)
        inner.append(taken(rows, mine))
        outer.append(taken(rows, ~mine))
    kept = joined(inner)
    others = joined(outer)
    for k in range(length(others)):
        one = taken(others, np.array([k]))
        distance = np.hypot(kept["x_nm"] - one["x_nm"], kept["y_nm"] - one["y_nm"])
        if not (distance < SAME_PX * pixel_nm).any():
            kept = joined([kept, one])
    # Both neighbours may own their own version of an emitter that sits on the border.
    return _without_twins(kept, regions, pixel_nm)


def _without_twins(rows: Columns, regions: Sequence[Region], pixel_nm: float) -> Columns:
    size = length(rows)
    if len(regions) == 1 or size < 2:
        return rows
    x, y = rows["x_nm"] / pixel_nm, rows["y_nm"] / pixel_nm
    number = np.zeros(size, int)
    depth = np.full(size, np.inf)
    for region in regions:
        mine = owned(x, y, region, 0.0)
        number[mine] = region.number
        for position, (low, high) in ((x, region.core_columns), (y, region.core_rows)):
            edge = np.minimum(position - (low - 0.5), (high - 0.5) - position)
            depth[mine] = np.minimum(depth[mine], edge[mine])
    border = np.flatnonzero(depth < CLAIM_PX)
    drop = np.zeros(size, bool)
    for a, i in enumerate(border):
        for k in border[a + 1 :]:
            near = np.hypot(x[i] - x[k], y[i] - y[k]) < CLAIM_PX
            if number[i] != number[k] and near and not (drop[i] or drop[k]):
                drop[k if depth[i] >= depth[k] else i] = True
    return taken(rows, ~drop)
