"""The work on a movie in pieces that can be done anywhere, in any order, and again.

A unit is some frames, or one band of some frames of a large camera. How a movie is cut into units
depends on its shape alone, never on who does the work; so what units give, put together in the
order of their numbers, is bit for bit the same however often the work was broken off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.localize.bands import bands_of
from sureloc.localize.columns import Columns, columns_of, joined, length, table_of, taken
from sureloc.localize.images import ImageSums
from sureloc.localize.movie import FramePieces, FrameWorker, Options, joined_draws, rows_of_frame
from sureloc.localize.regions import Region, regions_of
from sureloc.localize.tally import WORST, View, reason_to_look, view_of
from sureloc.table import DRAW_COLUMNS, LOCALIZATION_COLUMNS, Column

Array = npt.NDArray[np.float64]

UNIT_REGIONS = 512  # regions of all frames of a unit together: a minute or two of work
LEAST_UNITS = 16  # short movies are cut so finely that several workers have something to do
REGION = Column("region", "int64", "", "Number of the region that reports the row.")  # of bands


@dataclass(frozen=True)
class Unit:
    """A piece of the work.

    Attributes:
        number: its place in the order.
        frames: (first, last + 1) of the localized part.
        regions: (first, last + 1) numbers of regions.
        rows: (first, last + 1) rows of pixels that these own.
        whole: whether these are all regions of the frame.
        share: of a frame's regions.
    """

    number: int
    frames: tuple[int, int]
    regions: tuple[int, int]
    rows: tuple[int, int]
    whole: bool
    share: float

    @property
    def row_columns(self) -> tuple[Column, ...]:
        """The columns of its rows; those of a band say which region reports them."""
        return LOCALIZATION_COLUMNS if self.whole else (*LOCALIZATION_COLUMNS, REGION)

    @property
    def name(self) -> str:
        """Say which it is, for people and file names: frames, and rows where it is a band."""
        frames = f"frames {self.frames[0]}:{self.frames[1]}"
        return frames if self.whole else f"{frames}, rows {self.rows[0]}:{self.rows[1]}"


def units_of(shape: tuple[int, int, int], sigma_px: tuple[float, float]) -> list[Unit]:
    """Cut a movie of shape (frames, rows, columns) into units, those of the same frames together.

    Args:
        shape: of the movie.
        sigma_px: PSF widths along columns and rows, px.
    """
    frames = shape[0]
    regions = regions_of((shape[1], shape[2]), sigma_px)
    bands = bands_of(regions)
    largest = max(band.regions[1] - band.regions[0] for band in bands)
    step = max(1, min(UNIT_REGIONS // largest, -(-frames // LEAST_UNITS)))
    out: list[Unit] = []
    for first in range(0, frames, step):
        for band in bands:
            share = (band.regions[1] - band.regions[0]) / len(regions)
            unit = (first, min(first + step, frames)), band.regions, band.core_rows
            out.append(Unit(len(out), *unit, len(bands) == 1, share))
    return out


@dataclass(frozen=True)
class UnitResult:
    """What the work on a unit gives.

    Attributes:
        rows: localizations in the coordinates of the localized part, numbered frames of it; those
            of band units are not yet the rows of one frame.
        draws: posterior draws, likewise.
        chi2, widefield_e: summed over the frames, (rows, columns) that the unit owns.
        count, count_variance: as in `ImageSums`, of whole frames; None of bands.
        saturated_pixels: of each frame, in what the unit owns.
        views: what may be looked at.
    """

    rows: pd.DataFrame
    draws: pd.DataFrame
    chi2: npt.NDArray[np.float32]
    widefield_e: npt.NDArray[np.float32]
    count: npt.NDArray[np.float32] | None
    count_variance: npt.NDArray[np.float32] | None
    saturated_pixels: npt.NDArray[np.int64]
    views: Sequence[View]


def localize_unit(
    worker: FrameWorker,
    unit: Unit,
    options: Options,
    shape: tuple[int, int, int],
    window_px: tuple[int, int],
    progress: Callable[[], None] = lambda: None,
) -> UnitResult:
    """Do the work on a unit.

    Args:
        worker: of the movie.
        unit: one of `units_of`.
        options: what the user decided.
        shape: (frames, rows, columns) of the movie.
        window_px: rows and columns in which emitters are counted.
        progress: called after every frame.

    Raises:
        Exception: whatever goes wrong, with a note that names the frame.
    """
    regions = worker.regions[slice(*unit.regions)]
    gathered = _Gathered(unit, options, shape, window_px)
    for pieces in worker.each(range(*unit.frames), regions):
        gathered.add(pieces)
        progress()
    return gathered.result()


class _Gathered:
    """Sums and tables of a unit so far."""

    def __init__(
        self,
        unit: Unit,
        options: Options,
        shape: tuple[int, int, int],
        window_px: tuple[int, int],
    ) -> None:
        self._unit, self._options, self._frames = unit, options, shape[0]
        size = (unit.rows[1] - unit.rows[0], shape[2])
        self._sums = ImageSums(size, 1, options.pixel_nm, window_px)
        self._rows: list[Columns] = []
        self._draws: list[Columns] = []
        self._saturated: list[int] = []
        self._views: list[View] = []
        self._worst: View | None = None

    def add(self, pieces: FramePieces) -> None:
        """Add a frame."""
        unit, options, sums = self._unit, self._options, self._sums
        mine = slice(*unit.rows)
        expected, chi2 = np.empty(sums.shape), np.empty(sums.shape)
        for part, region in zip(pieces.parts, pieces.regions, strict=True):
            core = _core_of(region, unit.rows[0])
            expected[core] = part.expected_e
            chi2[core] = part.chi2
        parts = [part.rows for part in pieces.parts]
        draws = joined_draws([part.draws for part in pieces.parts])
        if unit.whole:
            rows = rows_of_frame(parts, pieces.regions, options)
            sums.count_emitters(draws, options.draws)
        else:
            rows = joined(
                [
                    {**part, REGION.name: np.full(length(part), region.number)}
                    for part, region in zip(parts, pieces.regions, strict=True)
                ]
            )
        self._rows.append(rows)
        self._draws.append(draws)
        sums.chi2 += chi2
        sums.widefield_e += pieces.electrons[mine]
        self._saturated.append(int(pieces.saturated[mine].sum()))
        self._look(pieces, rows, expected, float(chi2.mean()))

    def _look(self, pieces: FramePieces, rows: Columns, expected: Array, chi2: float) -> None:
        electrons = pieces.electrons[slice(*self._unit.rows)]

        def view(why: str) -> View:
            top, pixel_nm = self._unit.rows[0], self._options.pixel_nm
            return view_of(pieces.frame, why, rows, electrons, expected, chi2, top, pixel_nm)

        why = reason_to_look(pieces.frame, self._frames)
        if why:
            self._views.append(view(why))
        if self._worst is None or chi2 > self._worst.chi2:
            self._worst = view(WORST)

    def result(self) -> UnitResult:
        """Give what was gathered."""
        sums, whole = self._sums, self._unit.whole
        worst = [] if self._worst is None else [self._worst]
        return UnitResult(
            table_of(joined(self._rows), self._unit.row_columns),
            table_of(joined(self._draws), DRAW_COLUMNS),
            sums.chi2.astype(np.float32),
            sums.widefield_e.astype(np.float32),
            sums.count.astype(np.float32) if whole else None,
            sums.count_variance.astype(np.float32) if whole else None,
            np.array(self._saturated, np.int64),
            [*self._views, *worst],
        )


def _core_of(region: Region, top: int) -> tuple[slice, slice]:
    """Give a region's core, rows counted from `top`."""
    first, last = region.core_rows
    return slice(first - top, last - top), slice(*region.core_columns)


def frame_tables(
    rows: Sequence[pd.DataFrame],
    draws: Sequence[pd.DataFrame],
    frames: tuple[int, int],
    regions: Sequence[Region],
    options: Options,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make rows and draws of whole frames of those of all their bands, or of some for the draws.

    Args:
        rows, draws: of the units, in the order of their numbers.
        frames: (first, last + 1) frames.
        regions: all regions of a frame.
        options: what the user decided.
    """
    every = columns_of(pd.concat(rows, ignore_index=True))
    of_frames = []
    for frame in range(*frames):
        here = taken(every, every["frame"] == frame)
        by_region = [taken(here, here[REGION.name] == region.number) for region in regions]
        of_frames.append(rows_of_frame(by_region, regions, options))
    return table_of(joined(of_frames), LOCALIZATION_COLUMNS), frame_draws(draws)


def frame_draws(draws: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join the draws of several bands, frame by frame and draw by draw."""
    every = pd.concat(draws, ignore_index=True)
    return every.sort_values(["frame", "draw"], kind="stable", ignore_index=True)
