"""What the report shows, gathered in the order of frames: counts, histograms, frames to look at.

Memory grows with the number of frames by two numbers each, and with nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.localize.columns import Columns
from sureloc.localize.doubles import Doubles
from sureloc.localize.faintness import Faint

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
        chi2: mean local chi2 of the frame, or of the band of it that was worked on together.
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


@dataclass(frozen=True)
class View:
    """A window of a frame that may be looked at, kept until it is known which ones will be.

    Attributes:
        frame: number of the frame in the localized part.
        why: why it may be chosen, a few words.
        top, left: first row and column of the window in the localized region.
        electrons: measured, photo-electrons, (rows, columns) of the window.
        expected_e: re-rendered from the posterior, the same shape.
        chi2: mean local chi2 of the frame, or of the band of it that was worked on together.
        rows: localizations inside.
    """

    frame: int
    why: str
    top: int
    left: int
    electrons: npt.NDArray[np.float32]
    expected_e: npt.NDArray[np.float32]
    chi2: float
    rows: int


WORST = "fits worst of all frames"


def reason_to_look(frame: int, frames: int) -> str:
    """Say why a frame is looked at whatever it shows; empty for most."""
    spread = {0: "first frame", frames - 1: "last frame", frames // 2: "middle frame"}
    return spread.get(frame, "")


def view_of(
    frame: int,
    why: str,
    rows: Columns,
    electrons: Array,
    expected_e: Array,
    chi2: float,
    top: int,
    pixel_nm: float,
) -> View:
    """Give the window, up to `WINDOW_PX` a side, that holds most of the rows.

    Args:
        frame: its number.
        why: why it may be chosen.
        rows: localizations, in the frame's coordinates.
        electrons, expected_e: measured and re-rendered, photo-electrons, (rows, columns), from the
            frame's row `top` on.
        chi2: how well they agree.
        top: number of their first row in the frame.
        pixel_nm: pixel size, nm.
    """
    x, y = (rows[name] / pixel_nm for name in ("x_nm", "y_nm"))
    first, left = busiest_window(x, y - top, electrons.shape, WINDOW_PX)
    window = np.s_[first : first + WINDOW_PX, left : left + WINDOW_PX]
    shape = electrons[window].shape
    return View(
        frame,
        why,
        top + first,
        left,
        electrons[window].astype(np.float32),
        expected_e[window].astype(np.float32),
        chi2,
        int(np.count_nonzero(_in_window(x - left, y - (top + first), shape))),
    )


def candidates(views: Iterable[View]) -> list[View]:
    """Leave out of some views those that `chosen_views` cannot choose, whatever comes besides.

    Of the views of one frame, the one with most localizations is left; the worst of all comes last.
    """
    spread: dict[int, View] = {}
    worst: View | None = None
    for view in views:
        if view.why == WORST:
            if worst is None or view.chi2 > worst.chi2:
                worst = view
        elif view.frame not in spread or view.rows > spread[view.frame].rows:
            spread[view.frame] = view
    return [*spread.values(), *([] if worst is None else [worst])]


def chosen_views(views: Iterable[View]) -> list[View]:
    """Choose what is looked at, in order of frames: first, middle, last, and the worst of all."""
    by_frame = {view.frame: view for view in candidates(views)}
    return [by_frame[frame] for frame in sorted(by_frame)]


@dataclass
class Tally:
    """Running counts of a run.

    Attributes:
        pixel_nm: pixel size, nm.
        frames: number of frames that will come.
        read_variance_e2: of the camera, electrons^2, (rows, columns).
        excess_noise: F^2 of the camera.
        doubles: rows that stand beside one another.
        faint: rows that hardly stand out of the noise.
        per_draw: molecules in each posterior draw, all frames together, (draws,).
        in_doubt: rows that lie where the map of trust is red.
        rows_per_frame, trusted_per_frame: one number for each frame so far.
        precision, bound: stated standard deviation and Cramer-Rao bound of x and y, nm.
        ratio: the one over the other.
        photons, probability: of the rows.
        reasons: how many rows were not trusted for which reason.
        saturated_frames, saturated_pixels: frames with saturated pixels, and those in all.
        examples: frames to look at, in order.
    """

    pixel_nm: float
    frames: int
    read_variance_e2: Array
    excess_noise: float
    doubles: Doubles
    faint: Faint
    per_draw: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    in_doubt: int = 0
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
    examples: list[ExampleFrame] = field(default_factory=list)

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

    def add(self, table: pd.DataFrame, first: int, saturated_pixels: npt.NDArray[np.int64]) -> None:
        """Add the next frames.

        Args:
            table: their rows, with what is not trusted marked.
            first: number of the first of them in the localized part.
            saturated_pixels: of each frame.
        """
        index = table["frame"].to_numpy() - first
        trusted = table["trusted"].to_numpy(bool)
        for counts, chosen in (
            (self.rows_per_frame, index),
            (self.trusted_per_frame, index[trusted]),
        ):
            counts.extend(np.bincount(chosen, minlength=len(saturated_pixels)).tolist())
        self.faint.add(table)
        self.doubles.add_frames(table, range(first, first + len(saturated_pixels)))
        for axis in "xy":
            sigma = table[f"sigma_{axis}_nm"].to_numpy(float)
            bound = table[f"crlb_{axis}_nm"].to_numpy(float)
            self.precision.add(sigma)
            self.bound.add(bound)
            self.ratio.add(sigma / np.maximum(bound, 1e-9))
        self.photons.add(table["photons"].to_numpy(float))
        self.probability.add(table["p_exists"].to_numpy(float))
        self.reasons.update(table["reason"][~trusted])
        self.saturated_frames += int((saturated_pixels > 0).sum())
        self.saturated_pixels += int(saturated_pixels.sum())

    def add_draws(self, draws: pd.DataFrame, number: int) -> None:
        """Count the molecules of the next frames in each of `number` draws."""
        counts = np.bincount(draws["draw"].to_numpy(np.int64), minlength=number)
        self.per_draw = counts if not self.per_draw.size else self.per_draw + counts

    def show(self, view: View, table: pd.DataFrame, frame_number: int) -> None:
        """Add a frame to look at.

        Args:
            view: the window of it.
            table: the frame's rows, with what is not trusted marked.
            frame_number: its number in the whole movie.
        """
        expected = view.expected_e.astype(np.float64)
        height, width = expected.shape
        window = np.s_[view.top : view.top + height, view.left : view.left + width]
        self.examples.append(
            ExampleFrame(
                frame_number,
                view.why,
                view.top,
                view.left,
                view.electrons.astype(np.float64),
                expected,
                self.excess_noise * np.maximum(expected, 0.0) + self.read_variance_e2[window],
                moved_into(table, view.top, view.left, expected.shape, self.pixel_nm),
                view.chi2,
            )
        )


def moved_into(
    table: pd.DataFrame, top: int, left: int, shape: tuple[int, ...], pixel_nm: float
) -> pd.DataFrame:
    """Give the rows inside a window, positions counted from the centre of its first pixel."""
    moved = shifted(table, -left * pixel_nm, -top * pixel_nm)
    x, y = (moved[name].to_numpy(float) / pixel_nm for name in ("x_nm", "y_nm"))
    return moved[_in_window(x, y, shape)].reset_index(drop=True)


def _in_window(x_px: Array, y_px: Array, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Tell which positions, counted from the centre of a window's first pixel, lie in it."""
    column, row = x_px + 0.5, y_px + 0.5
    return np.asarray((column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0]))


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
