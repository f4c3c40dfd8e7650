"""Whether rows stand beside one another more often than independent molecules do.

A spot that the image model does not describe (another width, a comet's tail, a molecule that moved)
is explained by several emitters side by side, and then fits. So the residuals stay silent, but rows
of the same frame pair up. How often they would by chance is told by pairs of rows of different
frames, whatever structure the molecules lie on: they blink independently of one another.

A spot with a tail leaves faint rows on the same side of every bright one. Independent molecules lie
on any side, whatever structure they lie on, since the brighter of two is as often the one as the
other; so this tells a tail where pairs are so frequent that a few more do not show.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import KDTree

Array = npt.NDArray[np.float64]

# Nearer rows are of one molecule that blinked again, farther ones of no misfit.
NEAREST_SIGMAS, RADII_SIGMAS = 1.0, (2.0, 3.0, 4.0, 6.0)
MEMORY_FRAMES = 64  # frames before the one at hand that may be compared with it
COMPARED_FRAMES = 8  # of these, the oldest: blinking lasts shorter
SURE = 3.0  # standard errors
TAIL_SIGMAS = 5.0  # a tail does not reach farther from its spot
FAINT = 0.25  # of the brighter row's photons, or less, in a tail
SURE_OF_TAIL = 4.0  # standard deviations along the tail: chance points so far once in 3,000 times


@dataclass(frozen=True)
class Excess:
    """How many more pairs than by chance there are.

    Attributes:
        share: pairs too many, over the number of rows; 0 where chance may have made them.
        ratio: pairs over those by chance, which count as one at least; 1 likewise.
        tail: faint rows on one side of brighter ones more than on the other, over the number of
            rows; 0 where chance may have put them there.
    """

    share: float = 0.0
    ratio: float = 1.0
    tail: float = 0.0


@dataclass
class Doubles:
    """Running counts of the pairs of a movie, frame after frame.

    Attributes:
        sigma_nm: PSF width, nm.
        rows: rows so far in frames that were compared with others.
        together: pairs in one frame whose distance lies between `NEAREST_SIGMAS` and each of
            `RADII_SIGMAS` PSF widths.
        by_chance: how many there would be if frames did not know of one another.
        squares: squared differences of the two, frame by frame.
        frames: number of frames that were compared with others.
        all_rows, all_frames: likewise, of all frames.
        faint: pairs in one frame of which one is faint beside the other.
        towards: sum of the unit vectors from the brighter to the fainter row of these, (2,).
        towards_squares: sum of squares of each frame's sum of them.
    """

    sigma_nm: float
    rows: int = 0
    together: Array = field(default_factory=lambda: np.zeros(len(RADII_SIGMAS)))
    by_chance: Array = field(default_factory=lambda: np.zeros(len(RADII_SIGMAS)))
    squares: Array = field(default_factory=lambda: np.zeros(len(RADII_SIGMAS)))
    frames: int = 0
    all_rows: int = 0
    all_frames: int = 0
    faint: int = 0
    towards: Array = field(default_factory=lambda: np.zeros(2))
    towards_squares: float = 0.0
    _before: deque[KDTree] = field(default_factory=lambda: deque(maxlen=MEMORY_FRAMES))

    def add(self, x_nm: Array, y_nm: Array, photons: Array) -> None:
        """Add the rows of the next frame."""
        tree = KDTree(np.stack([x_nm, y_nm], axis=1))
        self._add_tails(tree, photons)
        others = [self._before[k] for k in range(min(COMPARED_FRAMES, len(self._before)))]
        with_others = tree.n * sum(other.n for other in others)
        if with_others:
            # As often as two of two frames, so often two of this one: however many each has.
            near = sum(self._pairs(tree, other) for other in others) / with_others
            together = self._pairs(tree, tree) / 2
            by_chance = near * tree.n * (tree.n - 1) / 2
            self.rows += tree.n
            self.frames += 1
            self.together += together
            self.by_chance += by_chance
            self.squares += (together - by_chance) ** 2
        self._before.append(tree)

    def add_frames(self, table: pd.DataFrame, frames: Iterable[int]) -> None:
        """Add the rows of some frames that follow, which a table holds in any order."""
        number = table["frame"].to_numpy()
        order = np.argsort(number, kind="stable")
        number = number[order]
        x, y, n = (table[name].to_numpy(float)[order] for name in ("x_nm", "y_nm", "photons"))
        for frame in frames:
            mine = slice(*np.searchsorted(number, (frame, frame + 1)))
            self.add(x[mine], y[mine], n[mine])

    def _add_tails(self, tree: KDTree, photons: Array) -> None:
        one, other = tree.query_pairs(TAIL_SIGMAS * self.sigma_nm, output_type="ndarray").T
        apart = tree.data[other] - tree.data[one]
        distance = np.hypot(*apart.T)
        counts = distance > NEAREST_SIGMAS * self.sigma_nm
        counts &= (photons[[one, other]].min(0)) < FAINT * photons[[one, other]].max(0)
        way = np.where(photons[one] > photons[other], 1.0, -1.0)[counts] / distance[counts]
        towards = way @ apart[counts]
        self.all_rows += tree.n
        self.all_frames += 1
        self.faint += int(counts.sum())
        self.towards += towards
        self.towards_squares += float(towards @ towards)

    def _pairs(self, some: KDTree, others: KDTree) -> Array:
        """Count pairs of a row of the one and a row of the other, by radius."""
        radii = self.sigma_nm * np.array((NEAREST_SIGMAS, *RADII_SIGMAS))
        within = np.asarray(some.count_neighbors(others, radii), np.float64)
        return np.asarray(within[1:] - within[0])

    @property
    def excess(self) -> Excess:
        """How many pairs there are too many, within the radius where chance explains them least."""
        tail = self._tail
        if self.frames < 2:
            return Excess(tail=tail)
        more = self.together - self.by_chance
        # On structures numbers of pairs vary more than by Poisson's law, as frames show.
        seen = self.frames / (self.frames - 1) * (self.squares - more**2 / self.frames)
        sure = more / np.sqrt(np.maximum(seen, self.by_chance) + 1.0)
        most = int(np.argmax(sure))
        if sure[most] < SURE:
            return Excess(tail=tail)
        ratio = self.together[most] / max(self.by_chance[most], 1.0)
        return Excess(float(more[most]) / self.rows, float(ratio), tail)

    @property
    def _tail(self) -> float:
        if self.all_frames < 2:
            return 0.0
        length = float(np.hypot(*self.towards))
        # Along one axis. Pairs of a crowd go together, which sums of frames show.
        seen = (self.towards_squares - length**2 / self.all_frames) / 2
        variance = max(seen * self.all_frames / (self.all_frames - 1), self.faint / 2) + 1.0
        return length / self.all_rows if length > SURE_OF_TAIL * math.sqrt(variance) else 0.0
