"""Where emitters crowd in the course of a movie, as a prior for single frames.

Spots of other frames tell where a frame's emitters may be. A molecule that shines on from frame to
frame is no proof of crowding, however often it is seen: chance makes maps of few long-lived
molecules as uneven as maps of few spots, and such maps are trusted as little.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

Array = npt.NDArray[np.float64]

MAP_SCALE, MAP_SIGMAS = 2, 0.6  # cells a px; smoothing in PSF widths
LEAST_DENSITY = 0.1  # of the mean: nowhere is an emitter impossible
SAME_SIGMAS, RING_SIGMAS = 0.5, (1.0, 2.0)  # PSF widths: the same molecule; other molecules
ENOUGH = 0.5  # of the unevenness shown by different molecules: the map is taken as it is
LEAST_PERSISTENCE = 0.1  # of a frame's spots: so few that are seen again do not matter
_REACH = 4.0  # smoothing widths


@dataclass(frozen=True)
class Crowding:
    """Spots of frames spread over a movie, and how far they tell where emitters are.

    Attributes:
        shape: (rows, columns) of the movie, px.
        numbers: the frames looked at, ascending.
        cells: row and column of each spot's cell, `MAP_SCALE` cells a px, one (spots, 2) a frame.
        width_cells: smoothing, cells.
        trusted: share of the map's unevenness that is not chance, 0 to 1.
    """

    shape: tuple[int, int]
    numbers: npt.NDArray[np.int64]
    cells: tuple[npt.NDArray[np.int64], ...]
    width_cells: float
    trusted: float

    def around(self, frame: int, rows: slice | None = None, columns: slice | None = None) -> Array:
        """Give the density of emitters in one frame, over its mean, as other frames tell it.

        Args:
            frame: number of the frame in the movie.
            rows, columns: the pixels asked for; all without them.

        Returns:
            (`MAP_SCALE` * rows, `MAP_SCALE` * columns), at least `LEAST_DENSITY`.
        """
        asked = (rows or slice(0, self.shape[0]), columns or slice(0, self.shape[1]))
        halo = int(np.ceil(_REACH * self.width_cells))
        starts = [MAP_SCALE * part.start for part in asked]
        sizes = [MAP_SCALE * (part.stop - part.start) for part in asked]
        own = [self.cells[k] for k in np.flatnonzero(self.numbers == frame)]
        number = self._spots - sum(len(cells) for cells in own)
        if number == 0 or self.trusted == 0:
            return np.ones(sizes)
        counts = self._piece(halo, starts, sizes)
        counts -= _count(own, self._all_cells, halo, starts, sizes)
        smooth = ndimage.gaussian_filter(counts, self.width_cells, mode="constant", truncate=_REACH)
        smooth = smooth[halo : halo + sizes[0], halo : halo + sizes[1]]
        mean = number / (self._all_cells[0] * self._all_cells[1])
        return np.asarray(np.maximum(1 + self.trusted * (smooth / mean - 1), LEAST_DENSITY))

    @property
    def _all_cells(self) -> tuple[int, int]:
        return MAP_SCALE * self.shape[0], MAP_SCALE * self.shape[1]

    @cached_property
    def _spots(self) -> int:
        return sum(len(cells) for cells in self.cells)

    @cached_property
    def _counts(self) -> npt.NDArray[np.uint32]:
        """Spots of all frames in every cell; counted once, since every region asks for a piece."""
        counts = np.zeros(self._all_cells, np.uint32)
        for cells in self.cells:
            np.add.at(counts, tuple(cells.T), 1)
        return counts

    def _piece(self, halo: int, starts: Sequence[int], sizes: Sequence[int]) -> Array:
        """Cut a part out of the map and `halo` cells around it, mirrored at the map's edges."""
        (rows, has_row), (columns, has_column) = (
            _mirrored(np.arange(start - halo, start + size + halo), length)
            for start, size, length in zip(starts, sizes, self._all_cells, strict=True)
        )
        piece = self._counts[np.ix_(rows, columns)].astype(np.float64)
        return np.asarray(piece * (has_row[:, None] & has_column))


def _mirrored(
    cells: npt.NDArray[np.int64], length: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Give the cells that some outside the map are mirror images of, and whether there are any."""
    inside = np.where(cells < 0, -1 - cells, cells)
    inside = np.where(cells >= length, 2 * length - 1 - cells, inside)
    return np.clip(inside, 0, length - 1), (inside >= 0) & (inside < length)


def _count(
    cells: Iterable[npt.NDArray[np.int64]],
    shape: tuple[int, int],
    halo: int,
    starts: Sequence[int],
    sizes: Sequence[int],
) -> Array:
    """Count spots in a part of the map and `halo` cells around it, mirrored at the map's edges."""
    counts = np.zeros((sizes[0] + 2 * halo, sizes[1] + 2 * halo))
    for spots in cells:
        images = [spots]
        for axis in (0, 1):
            low, high = ([s.copy() for s in images] for _ in range(2))
            for s in low:
                s[:, axis] = -1 - s[:, axis]
            for s in high:
                s[:, axis] = 2 * shape[axis] - 1 - s[:, axis]
            images += low + high
        places = np.concatenate(images) - np.array(starts) + halo
        inside = np.all((places >= 0) & (places < counts.shape), axis=1)
        np.add.at(counts, tuple(places[inside].T), 1.0)
    return counts


def crowding_of(
    shape: tuple[int, int],
    numbers: Sequence[int],
    places: Sequence[Array],
    sigma_px: float,
) -> Crowding:
    """Learn where emitters crowd from the spots of some frames.

    The map is drawn towards 1 as far as chance alone would make it as uneven (Efron and Morris
    1973): emitters that are spread evenly give 1 everywhere. A molecule that shines on through n of
    the frames counts n times, which makes chance as much more uneven.

    Args:
        shape: (rows, columns) of the movie, px.
        numbers: the frames looked at, ascending.
        places: y and x of the spots of each, px, (spots, 2).
        sigma_px: PSF width, px.
    """
    frames = np.asarray(numbers, dtype=np.int64)
    edge = MAP_SCALE * np.array(shape) - 1
    cells = tuple(
        np.clip(np.floor((p + 0.5) * MAP_SCALE).astype(np.int64), 0, edge) for p in places
    )
    width = MAP_SIGMAS * sigma_px * MAP_SCALE
    spots = sum(len(c) for c in cells)
    if spots == 0:
        return Crowding(shape, frames, cells, width, 0.0)
    density = Crowding(shape, frames, cells, width, 1.0).around(-1)
    variance = max(float(density.var()), 1e-12)
    by_spots = density.size / (4 * np.pi * width**2 * spots) / variance
    by_molecules = by_spots * (1 + 2 * sum(persistence(places, sigma_px)))
    trusted = max(0.0, 1 - by_spots) * min(max(0.0, (1 - by_molecules) / ENOUGH), 1.0)
    return Crowding(shape, frames, cells, width, trusted)


def persistence(places: Sequence[Array], sigma_px: float) -> list[float]:
    """Give the share of spots that are seen again 1, 2, ... frames looked at later.

    What other molecules put at the same place by chance is taken from a ring around it. The list
    ends before the first share below `LEAST_PERSISTENCE`.
    """
    trees = [KDTree(p) for p in places]
    inner, outer = RING_SIGMAS
    to_disc = SAME_SIGMAS**2 / (outer**2 - inner**2)
    radii = np.array([SAME_SIGMAS, inner, outer]) * sigma_px
    shares: list[float] = []
    for lag in range(1, len(places)):
        pairs = list(zip(trees[:-lag], trees[lag:], strict=True))
        near = sum((one.count_neighbors(other, radii) for one, other in pairs), np.zeros(3))
        spots = sum(one.n for one, _ in pairs)
        share = (near[0] - to_disc * (near[2] - near[1])) / max(spots, 1)
        if share < LEAST_PERSISTENCE:
            break
        shares.append(float(min(share, 1.0)))
    return shares
