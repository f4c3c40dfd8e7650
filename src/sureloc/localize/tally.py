"""What the report shows, gathered frame by frame: counts, histograms, a few frames to look at.

Memory grows with the number of frames by two numbers each, and with nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.localize.rows import FrameRows
from sureloc.localize.verdict import mark_regions

Array = npt.NDArray[np.float64]

WINDOW_PX = 256  # a frame to look at is cut down to this, so that large cameras cost no memory
PRECISION_EDGES_NM = np.geomspace(0.1, 1000.0, 161)
RATIO_EDGES = np.geomspace(0.05, 10.0, 161)
PHOTON_EDGES = np.geomspace(1.0, 1e6, 181)
PROBABILITY_EDGES = np.linspace(0.0, 1.0, 51)


@dataclass(frozen=True)
class Histogram:
    """Counts in fixed bins, so that a movie of any length fits.

    Attributes:
        edges: of the bins, ascending, shape (bins + 1,).
        counts: per bin, shape (bins,); values outside are counted in the outermost bins.
    """

    edges: Array
    counts: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, edges: Array) -> Histogram:
        """Give a histogram without values."""
        return cls(edges, np.zeros(edges.size - 1, np.int64))

    def add(self, values: Array) -> None:
        """Count finite values."""
        finite = np.clip(values[np.isfinite(values)], self.edges[0], self.edges[-1])
        self.counts[:] += np.histogram(finite, self.edges)[0]

    @property
    def median(self) -> float:
        """Median, interpolated within its bin; NaN without values."""
        total = self.counts.sum()
        if total == 0:
            return float("nan")
        below = np.concatenate([[0], np.cumsum(self.counts)])
        return float(np.interp(0.5 * total, below, self.edges))


@dataclass(frozen=True)
class ExampleFrame:
    """A frame to look at, or the window of it that holds most emitters.

    Attributes:
        frame: its number in the whole movie.
        why: why it was chosen, a few words.
        top, left: first row and column of the window in the localized region.
        electrons: measured, photo-electrons, (rows, columns) of the window.
        expected_e: re-rendered from the posterior, the same shape.
        variance_e2: of the measurement, electrons^2, the same shape.
        table: rows inside the window, positions in nm from the centre of the window's first pixel.
        chi2: mean local chi2 of the whole frame.
    """

    frame: int
    why: str
    top: int
    left: int
    electrons: Array
    expected_e: Array
    variance_e2: Array
    table: pd.DataFrame
    chi2: float

    @property
    def window(self) -> tuple[slice, slice]:
        """Its rows and columns in the localized region."""
        height, width = self.electrons.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@dataclass
class Tally:
    """Running counts of a run.

    Attributes:
        pixel_nm: pixel size, nm.
        frames: number of frames that will come.
        read_variance_e2: of the camera, electrons^2, (rows, columns).
        excess_noise: F^2 of the camera.
        rows_per_frame, trusted_per_frame: one number for each frame so far.
        precision, bound: stated standard deviation and Cramer-Rao bound of x and y, nm.
        ratio: the one over the other.
        photons, probability: of the rows.
        reasons: how many rows were not trusted for which reason.
        saturated_frames, saturated_pixels: frames with saturated pixels, and those in all.
    """

    pixel_nm: float
    frames: int
    read_variance_e2: Array
    excess_noise: float
    rows_per_frame: list[int] = field(default_factory=list)
    trusted_per_frame: list[int] = field(default_factory=list)
    precision: Histogram = field(default_factory=lambda: Histogram.empty(PRECISION_EDGES_NM))
    bound: Histogram = field(default_factory=lambda: Histogram.empty(PRECISION_EDGES_NM))
    ratio: Histogram = field(default_factory=lambda: Histogram.empty(RATIO_EDGES))
    photons: Histogram = field(default_factory=lambda: Histogram.empty(PHOTON_EDGES))
    probability: Histogram = field(default_factory=lambda: Histogram.empty(PROBABILITY_EDGES))
    reasons: Counter[str] = field(default_factory=Counter)
    saturated_frames: int = 0
    saturated_pixels: int = 0
    _spread: dict[int, ExampleFrame] = field(default_factory=dict)
    _worst: ExampleFrame | None = None

    @property
    def rows(self) -> int:
        """Rows so far."""
        return sum(self.rows_per_frame)

    @property
    def trusted(self) -> int:
        """Trusted rows so far."""
        return sum(self.trusted_per_frame)

    @property
    def absent(self) -> float:
        """Share of the rows that are expected not to exist, to the width of a bin."""
        if not self.rows:
            return 0.0
        middle = 0.5 * (PROBABILITY_EDGES[1:] + PROBABILITY_EDGES[:-1])
        return 1.0 - float(self.probability.counts @ middle) / self.rows

    def doubt(self, frame: int, reason: str, rows: int) -> None:
        """Count rows of a frame, by its index, that turned out not to be trusted."""
        self.trusted_per_frame[frame] -= rows
        self.reasons[reason] += rows

    def mark_examples(self, doubts: Mapping[str, npt.NDArray[np.bool_]]) -> None:
        """Mark the rows of the frames to look at that lie in regions not to be trusted."""

        def marked(example: ExampleFrame) -> ExampleFrame:
            here = {reason: bad[example.window] for reason, bad in doubts.items()}
            return replace(example, table=mark_regions(example.table, here, self.pixel_nm)[0])

        self._spread = {frame: marked(example) for frame, example in self._spread.items()}
        self._worst = None if self._worst is None else marked(self._worst)

    @property
    def examples(self) -> list[ExampleFrame]:
        """Frames to look at, in order: first, middle and last, and the one that fits worst."""
        chosen = dict(self._spread)
        if self._worst is not None:
            chosen[self._worst.frame] = self._worst
        return [chosen[frame] for frame in sorted(chosen)]

    def add(
        self,
        rows: FrameRows,
        electrons: Array,
        saturated: npt.NDArray[np.bool_],
        frame_number: int,
    ) -> None:
        """Add the next frame.

        Args:
            rows: its results, in the coordinates of the localized region.
            electrons: the frame, photo-electrons, (rows, columns).
            saturated: its saturated pixels, the same shape.
            frame_number: its number in the whole movie.
        """
        index = len(self.rows_per_frame)
        table = rows.table
        self.rows_per_frame.append(len(table))
        self.trusted_per_frame.append(int(table["trusted"].sum()))
        for axis in "xy":
            sigma = table[f"sigma_{axis}_nm"].to_numpy(float)
            bound = table[f"crlb_{axis}_nm"].to_numpy(float)
            self.precision.add(sigma)
            self.bound.add(bound)
            self.ratio.add(sigma / np.maximum(bound, 1e-9))
        self.photons.add(table["photons"].to_numpy(float))
        self.probability.add(table["p_exists"].to_numpy(float))
        self.reasons.update(table["reason"][~table["trusted"]])
        self.saturated_frames += bool(saturated.any())
        self.saturated_pixels += int(saturated.sum())
        self._consider(rows, electrons, index, frame_number)

    def _consider(self, rows: FrameRows, electrons: Array, index: int, frame_number: int) -> None:
        spread = {0: "first", self.frames - 1: "last", self.frames // 2: "middle"}
        chi2 = float(rows.chi2.mean())
        if index in spread:
            why = f"{spread[index]} frame"
            self._spread[frame_number] = self._example(rows, electrons, frame_number, why)
        if self._worst is None or chi2 > self._worst.chi2:
            why = "fits worst of all frames"
            self._worst = self._example(rows, electrons, frame_number, why)

    def _example(
        self, rows: FrameRows, electrons: Array, frame_number: int, why: str
    ) -> ExampleFrame:
        x, y = (rows.table[name].to_numpy(float) / self.pixel_nm for name in ("x_nm", "y_nm"))
        top, left = busiest_window(x, y, electrons.shape, WINDOW_PX)
        window = np.s_[top : top + WINDOW_PX, left : left + WINDOW_PX]
        expected = rows.expected_e[window]
        variance = self.excess_noise * np.maximum(expected, 0.0) + self.read_variance_e2[window]
        return ExampleFrame(
            frame_number,
            why,
            top,
            left,
            electrons[window].copy(),
            expected.copy(),
            variance,
            moved_into(rows.table, top, left, expected.shape, self.pixel_nm),
            float(rows.chi2.mean()),
        )


def moved_into(
    table: pd.DataFrame, top: int, left: int, shape: tuple[int, ...], pixel_nm: float
) -> pd.DataFrame:
    """Give the rows inside a window, positions counted from the centre of its first pixel."""
    moved = shifted(table, -left * pixel_nm, -top * pixel_nm)
    column, row = moved["x_nm"] / pixel_nm + 0.5, moved["y_nm"] / pixel_nm + 0.5
    inside = (column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0])
    return moved[inside].reset_index(drop=True)


def shifted(table: pd.DataFrame, x_nm: float, y_nm: float) -> pd.DataFrame:
    """Give a table whose positions and intervals are moved by (x_nm, y_nm)."""
    names = [n for n in table.columns if n[:2] in ("x_", "y_") and n.endswith("_nm")]
    moved = {name: table[name] + (x_nm if name[0] == "x" else y_nm) for name in names}
    return table.assign(**moved)


def busiest_window(x_px: Array, y_px: Array, shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Give first row and column of the window, of `side` px, that holds most of the positions.

    Args:
        x_px, y_px: positions, px.
        shape: (rows, columns) of the image; a window never reaches beyond it.
        side: side of the window, px; a smaller image is its own window.
    """
    best, found = (max(shape[0] - side, 0) // 2, max(shape[1] - side, 0) // 2), -1
    step = max(side // 4, 1)
    for top in _starts(shape[0], side, step):
        in_rows = (y_px >= top - 0.5) & (y_px < top + side - 0.5)
        for left in _starts(shape[1], side, step):
            inside = in_rows & (x_px >= left - 0.5) & (x_px < left + side - 0.5)
            if int(inside.sum()) > found:
                best, found = (top, left), int(inside.sum())
    return best


def _starts(length: int, side: int, step: int) -> list[int]:
    last = max(length - side, 0)
    return sorted({*range(0, last + 1, step), last})
