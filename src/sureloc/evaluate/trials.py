"""One simulated movie, localized, with its truth and what that truth allows."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.spatial import KDTree

from sureloc.camera import Camera
from sureloc.errors import InputError
from sureloc.evaluate.compare import RADIUS_NM, matched
from sureloc.localize.movie import Assumptions, Options, localize, prepare
from sureloc.networks.weights import Networks
from sureloc.physics.information import isolated_bound, joint_bound
from sureloc.physics.psf import GaussianPSF
from sureloc.physics.tile_model import Background, Emitters
from sureloc.simulate.cameras import make_camera
from sureloc.simulate.movie import simulate_movie
from sureloc.simulate.recipe import Recipe

Array = npt.NDArray[np.float64]
DRAWS = 19  # of which the outermost hold 90 % and the fifth from either end 50 %, exactly
_FRAMES_AT_ONCE = 8  # frames whose bounds are computed together


@dataclass(frozen=True)
class InMemory:
    """A movie that is an array (frames, rows, columns), ADU."""

    adu: npt.NDArray[np.uint16]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, rows, columns)."""
        frames, rows, columns = self.adu.shape
        return frames, rows, columns

    def read(self, first: int, last: int) -> npt.NDArray[np.uint16]:
        """Give frames first..last-1."""
        return self.adu[first:last]


@dataclass(frozen=True)
class Simulated:
    """A movie whose truth is known.

    Attributes:
        recipe: what it is made of.
        camera: its camera.
        movie: the frames.
        truth: all emitters, also those outside the frame that shine in (`TRUTH_COLUMNS`).
    """

    recipe: Recipe
    camera: Camera
    movie: InMemory
    truth: pd.DataFrame

    @property
    def inside(self) -> npt.NDArray[np.bool_]:
        """Which true emitters lie in the frame."""
        frame = self.recipe.frame
        pixel = frame.pixel_nm
        x, y = self.truth["x_nm"], self.truth["y_nm"]
        return np.asarray(
            x.between(-0.5 * pixel, (frame.width - 0.5) * pixel)
            & y.between(-0.5 * pixel, (frame.height - 0.5) * pixel)
        )

    def neighbour_px(self) -> Array:
        """Give how far each true emitter's nearest neighbour of its frame is, px."""
        return neighbour_px(self.truth, self.recipe.frame.pixel_nm)

    def edge_px(self) -> Array:
        """Give how far each true emitter lies inside the frame's outer edge, px."""
        frame = self.recipe.frame
        x, y = (self.truth[name].to_numpy(float) / frame.pixel_nm for name in ("x_nm", "y_nm"))
        gaps = (x + 0.5, frame.width - 0.5 - x, y + 0.5, frame.height - 0.5 - y)
        return np.asarray(np.minimum.reduce(gaps))


@dataclass(frozen=True)
class Trial:
    """A simulated movie and what sureloc made of it.

    Attributes:
        simulated: the movie.
        assumptions: what sureloc learned from it.
        table: its rows (`LOCALIZATION_COLUMNS`).
        draws: `DRAWS` posterior draws of every frame (`DRAW_COLUMNS`).
        told_psf: sureloc could not measure the PSF width and was told it.
        seconds: all time that it took.
    """

    simulated: Simulated
    assumptions: Assumptions
    table: pd.DataFrame
    draws: pd.DataFrame
    told_psf: bool
    seconds: float

    def pairs(self, radius_nm: float = RADIUS_NM) -> tuple[npt.NDArray[np.int64], ...]:
        """Give the positions of paired rows in the table and in the whole truth."""
        inside = np.flatnonzero(self.simulated.inside)
        mine, theirs = matched(self.table, self.simulated.truth.iloc[inside], radius_nm)
        return mine, inside[theirs]


def neighbour_px(table: pd.DataFrame, pixel_nm: float) -> Array:
    """Give how far the nearest other row of the same frame is, px; infinite where there is none.

    Args:
        table: `frame`, `x_nm` and `y_nm`.
        pixel_nm: width of a pixel.
    """
    out = np.full(len(table), np.inf)
    place = table[["x_nm", "y_nm"]].to_numpy(float) / pixel_nm
    for rows in table.groupby("frame").indices.values():
        if len(rows) > 1:
            out[rows] = KDTree(place[rows]).query(place[rows], k=2)[0][:, 1]
    return out


def simulate(recipe: Recipe, frames: int, seed: int) -> Simulated:
    """Simulate a movie in memory."""
    camera = make_camera(recipe.camera, recipe.frame)
    chunks = list(simulate_movie(recipe, frames, seed, camera=camera))
    truth = pd.concat([chunk.truth for chunk in chunks], ignore_index=True)
    return Simulated(recipe, camera, InMemory(np.concatenate([c.adu for c in chunks])), truth)


def run_trial(simulated: Simulated, networks: Networks, workers: int = 1, seed: int = 0) -> Trial:
    """Localize a simulated movie with the default options.

    Camera and pixel size are told; the PSF width only where sureloc says that it cannot measure it.
    """
    begin = time.perf_counter()
    options = Options(simulated.recipe.frame.pixel_nm, seed=seed, workers=workers, draws=DRAWS)
    told = False
    try:
        assumptions = prepare(simulated.movie, simulated.camera, options, networks)
    except InputError:
        told = True
        options = replace(options, sigma_px=simulated.recipe.psf.sigma_px)
        assumptions = prepare(simulated.movie, simulated.camera, options, networks)
    found = list(localize(simulated.movie, assumptions, options, networks))
    table = pd.concat([rows.table for rows in found], ignore_index=True)
    draws = pd.concat([rows.draws for rows in found], ignore_index=True)
    return Trial(simulated, assumptions, table, draws, told, time.perf_counter() - begin)


def true_bounds(simulated: Simulated, *, joint: bool, background_e: float) -> Array:
    """Give the Cramer-Rao bound of every true emitter, its background known.

    Args:
        simulated: the movie.
        joint: with all emitters of its frame unknown too, or each of them alone.
        background_e: even background, photo-electrons per pixel.

    Returns:
        Standard deviations along x and y, nm, shape (emitters, 2), in the order of the truth.
    """
    frame = simulated.recipe.frame
    shape = frame.height, frame.width
    truth = simulated.truth
    efficiency = simulated.camera.quantum_efficiency
    variance = torch.from_numpy(simulated.camera.read_variance_e2(shape))[None]
    psf = GaussianPSF(
        simulated.recipe.psf.sigma_px,
        simulated.recipe.psf.sigma_y_px or simulated.recipe.psf.sigma_px,
    )
    bound = joint_bound if joint else isolated_bound
    out = np.full((len(truth), 2), np.inf)
    groups = list(truth.groupby("frame").indices.values())
    for first in range(0, len(groups), _FRAMES_AT_ONCE):
        some = groups[first : first + _FRAMES_AT_ONCE]
        most = max(len(rows) for rows in some)
        lists = np.zeros((3, len(some), most))
        present = np.zeros((len(some), most), bool)
        for k, rows in enumerate(some):
            present[k, : len(rows)] = True
            lists[0, k, : len(rows)] = truth["x_nm"].to_numpy(float)[rows] / frame.pixel_nm
            lists[1, k, : len(rows)] = truth["y_nm"].to_numpy(float)[rows] / frame.pixel_nm
            lists[2, k, : len(rows)] = truth["photons"].to_numpy(float)[rows] * efficiency
        lists[2] = np.maximum(lists[2], 1e-3)
        x, y, photons = torch.from_numpy(lists)
        emitters = Emitters(x, y, photons, torch.from_numpy(present))
        level = Background.constant(
            torch.full((len(some),), background_e, dtype=torch.float64), shape, sd=0.0
        )
        found = bound(emitters, level, variance, psf, simulated.camera.excess_noise)
        for axis, value in enumerate((found.var_x_px2, found.var_y_px2)):
            sd = value.sqrt().numpy() * frame.pixel_nm
            for k, rows in enumerate(some):
                out[rows, axis] = sd[k, : len(rows)]
    return out
