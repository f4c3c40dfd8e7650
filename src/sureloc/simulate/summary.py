"""What is kept of a simulated movie while it passes, to show it afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import gaussian_filter

from sureloc.simulate.movie import MovieChunk
from sureloc.simulate.recipe import FrameRecipe

Image = npt.NDArray[np.float64]
FIRST_FRAMES = 3
LARGEST_MAP_PX = 1024
FINEST_MAP = 8


@dataclass(frozen=True)
class MovieSummary:
    """A movie in a few pictures and numbers.

    Attributes:
        frame: size of a frame.
        frames: number of frames.
        emitters: rows of the truth table.
        first_frames: ADU, shape (up to 3, rows, columns).
        first_truth: truth of these frames.
        mean_adu: mean frame, shape (rows, columns).
        truth_density: emitters of all frames per square micrometre, smoothed by one bin of a grid
            up to 8 times as fine as the pixels.
    """

    frame: FrameRecipe
    frames: int
    emitters: int
    first_frames: npt.NDArray[np.uint16]
    first_truth: pd.DataFrame
    mean_adu: Image
    truth_density: Image


class SummaryBuilder:
    """Gather a `MovieSummary` chunk by chunk; memory does not grow with the movie."""

    def __init__(self, frame: FrameRecipe) -> None:
        """Start with no frames of the given size."""
        self._frame = frame
        self._frames = 0
        self._emitters = 0
        self._first: list[npt.NDArray[np.uint16]] = []
        self._truths: list[pd.DataFrame] = []
        self._sum = np.zeros((frame.height, frame.width))
        self._zoom = int(np.clip(LARGEST_MAP_PX // max(frame.height, frame.width), 1, FINEST_MAP))
        self._map = np.zeros((frame.height * self._zoom, frame.width * self._zoom))

    def add(self, chunk: MovieChunk) -> None:
        """Take in the movie's next chunk."""
        if chunk.first_frame < FIRST_FRAMES:
            self._first.append(chunk.adu[: FIRST_FRAMES - chunk.first_frame].copy())
            self._truths.append(chunk.truth[chunk.truth["frame"] < FIRST_FRAMES])
        self._frames += chunk.frames
        self._emitters += len(chunk.truth)
        self._sum += chunk.adu.sum(axis=0, dtype=np.float64)
        x_px, y_px = (chunk.truth[name].to_numpy() / self._frame.pixel_nm for name in _POSITIONS)
        counts, _, _ = np.histogram2d(
            y_px,
            x_px,
            bins=self._map.shape,
            range=((-0.5, self._frame.height - 0.5), (-0.5, self._frame.width - 0.5)),
        )
        self._map += counts

    def summary(self) -> MovieSummary:
        """Give the summary of the chunks so far, one or more."""
        bin_um = self._frame.pixel_nm * 1e-3 / self._zoom
        return MovieSummary(
            self._frame,
            self._frames,
            self._emitters,
            np.concatenate(self._first),
            pd.concat(self._truths, ignore_index=True),
            self._sum / self._frames,
            gaussian_filter(self._map, 1.0, mode="constant") / bin_um**2,
        )


_POSITIONS = ("x_nm", "y_nm")
