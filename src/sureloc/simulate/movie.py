"""From a recipe to a movie with its truth, chunk by chunk (seed eqs. 1, 2, 10; Figure 1).

The movie is made in blocks whose length depends on the frame's size only, each with random streams
of its own, and handed out in chunks of any length: so the same seed gives the same movie for any
chunk length, a longer movie begins with the shorter one, and memory does not grow with the number
of frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from sureloc.camera import Camera
from sureloc.errors import InputError
from sureloc.physics.image import render_frames
from sureloc.physics.noise import sample_electrons
from sureloc.physics.psf import GaussianPSF
from sureloc.seeds import numpy_generator, torch_generator
from sureloc.simulate.background import background_map
from sureloc.simulate.cameras import make_camera
from sureloc.simulate.emission import EmitterBlock, drift_blocks, emitter_blocks
from sureloc.simulate.recipe import FrameRecipe, Recipe

Array = npt.NDArray[np.float64]
BLOCK_PIXELS = 2**18
MAX_BLOCK_FRAMES = 256
UINT16_MAX = 65535


@dataclass(frozen=True)
class MovieChunk:
    """Successive frames of a simulated movie and their truth.

    Attributes:
        first_frame: index of the first frame in the movie.
        adu: what the camera wrote, shape (frames, rows, columns).
        truth: table with `sureloc.table.TRUTH_COLUMNS`, in frame order; frames count from the
            movie's start.
        drift_nm: drift along x and y, contained in the truth, shape (frames, 2).
        expected_e: expected photo-electrons, background included, shape as `adu`; None unless it
            was asked for.
    """

    first_frame: int
    adu: npt.NDArray[np.uint16]
    truth: pd.DataFrame
    drift_nm: Array
    expected_e: Array | None = None

    @property
    def frames(self) -> int:
        """Number of frames."""
        return int(self.adu.shape[0])


def simulate_movie(
    recipe: Recipe,
    frames: int,
    seed: int,
    *,
    chunk_frames: int | None = None,
    camera: Camera | None = None,
    keep_expected: bool = False,
) -> Iterator[MovieChunk]:
    """Simulate a movie.

    Args:
        recipe: what the movie is made of.
        frames: number of frames, 1 or more.
        seed: 0 or larger; the same seed gives the same movie whatever `chunk_frames` is.
        chunk_frames: frames of a chunk (the last one may be shorter); None is about 2^18 pixels.
        camera: the camera to use instead of the recipe's.
        keep_expected: also give the expected images.

    Returns:
        An iterator over the movie's chunks.

    Raises:
        InputError: frames, seed or chunk_frames is out of range.
        CameraError: the camera's maps have another shape than the frames.
    """
    chunk_frames = frames_per_block(recipe.frame) if chunk_frames is None else chunk_frames
    for name, value, low in (
        ("frames", frames, 1),
        ("seed", seed, 0),
        ("chunk_frames", chunk_frames, 1),
    ):
        if value < low:
            raise InputError(f"{name} is {value}; it must be a whole number of {low} or more.")
    if camera is None:
        camera = make_camera(recipe.camera, recipe.frame)
    camera.check_shape((recipe.frame.height, recipe.frame.width))
    blocks = _blocks(recipe, seed, camera, keep_expected)
    return _in_chunks(blocks, frames, chunk_frames)


def frames_per_block(frame: FrameRecipe) -> int:
    """Give the number of frames that are simulated at a time."""
    return int(np.clip(BLOCK_PIXELS // (frame.height * frame.width), 1, MAX_BLOCK_FRAMES))


def _blocks(recipe: Recipe, seed: int, camera: Camera, keep_expected: bool) -> Iterator[MovieChunk]:
    length = frames_per_block(recipe.frame)
    background = background_map(
        recipe.background, recipe.frame, numpy_generator(seed, "background")
    )
    emitters = emitter_blocks(recipe, seed, length)
    drifts = drift_blocks(recipe, seed, length)
    for block, (emitted, drift) in enumerate(zip(emitters, drifts, strict=True)):
        points = emitted.points_nm + drift[emitted.emissions.frame]
        expected = expected_electrons(recipe, emitted, points, background, length, camera)
        adu = read_out(expected, camera, torch_generator(seed, "noise", block))
        yield MovieChunk(
            block * length,
            adu,
            _truth(recipe.frame, emitted, points, background, block * length),
            drift,
            expected.numpy() if keep_expected else None,
        )


def expected_electrons(
    recipe: Recipe,
    emitted: EmitterBlock,
    points_nm: Array,
    background: Array,
    frames: int,
    camera: Camera,
) -> torch.Tensor:
    """Render emitters over their background.

    Args:
        recipe: for the frame's size and the PSF.
        emitted: frames and photons of the emitters.
        points_nm: their positions, drift included, shape (emitters, 2).
        background: expected detected photons, shape (rows, columns).
        frames: number of frames.
        camera: for its quantum efficiency.

    Returns:
        Expected photo-electrons, float64, shape (frames, rows, columns).
    """
    frame, psf = recipe.frame, recipe.psf
    x_px, y_px = torch.from_numpy(points_nm.T.copy() / frame.pixel_nm)
    photons = torch.from_numpy(emitted.emissions.photons)
    sigma_y_px = psf.sigma_px if psf.sigma_y_px is None else psf.sigma_y_px
    light = render_frames(
        x_px,
        y_px,
        photons,
        torch.from_numpy(emitted.emissions.frame),
        GaussianPSF(psf.sigma_px, sigma_y_px),
        (frames, frame.height, frame.width),
    )
    return (light + torch.from_numpy(background)) * camera.quantum_efficiency


def read_out(
    expected_e: torch.Tensor, camera: Camera, generator: torch.Generator
) -> npt.NDArray[np.uint16]:
    """Draw what a camera writes for expected photo-electrons.

    Args:
        expected_e: shape (frames, rows, columns).
        camera: gain, offset and noise.
        generator: source of randomness.

    Returns:
        Whole ADU, clipped to [0, saturation], shape as `expected_e`.
    """
    # Not `Camera.read_variance_e2`: that adds the variance of the rounding, which happens below.
    variance_e2 = np.asarray(camera.variance_adu2) / np.asarray(camera.gain_adu_per_e) ** 2
    electrons = sample_electrons(
        expected_e, torch.as_tensor(variance_e2), generator, camera.em_gain
    )
    top = min(camera.saturation_in(np.uint16) or UINT16_MAX, UINT16_MAX)
    adu = camera.adu(electrons.numpy())
    return np.clip(np.rint(adu, out=adu), 0, top, out=adu).astype(np.uint16)


def _truth(
    frame: FrameRecipe,
    emitted: EmitterBlock,
    points_nm: Array,
    background: Array,
    first_frame: int,
) -> pd.DataFrame:
    columns, rows = np.rint(points_nm.T / frame.pixel_nm).astype(np.int64)
    under = background[rows.clip(0, frame.height - 1), columns.clip(0, frame.width - 1)]
    return pd.DataFrame(
        {
            "frame": first_frame + emitted.emissions.frame.astype(np.int64),
            "x_nm": points_nm[:, 0],
            "y_nm": points_nm[:, 1],
            "photons": emitted.emissions.photons,
            "background_photons": under,
            "molecule": emitted.emissions.molecule.astype(np.int64),
        }
    )


def _in_chunks(
    blocks: Iterator[MovieChunk], frames: int, chunk_frames: int
) -> Iterator[MovieChunk]:
    """Cut a stream of blocks without end into chunks, `frames` frames in all."""
    block = next(blocks)
    for first in range(0, frames, chunk_frames):
        last = min(first + chunk_frames, frames)
        parts: list[MovieChunk] = []
        at = first
        while at < last:
            if at == block.first_frame + block.frames:
                block = next(blocks)
            stop = min(last, block.first_frame + block.frames)
            parts.append(_part(block, at, stop))
            at = stop
        yield _joined(parts)


def _part(block: MovieChunk, first: int, last: int) -> MovieChunk:
    frames = slice(first - block.first_frame, last - block.first_frame)
    rows = slice(*np.searchsorted(block.truth["frame"], [first, last]))
    return MovieChunk(
        first,
        block.adu[frames],
        block.truth.iloc[rows],
        block.drift_nm[frames],
        None if block.expected_e is None else block.expected_e[frames],
    )


def _joined(parts: list[MovieChunk]) -> MovieChunk:
    expected = [part.expected_e for part in parts if part.expected_e is not None]
    return MovieChunk(
        parts[0].first_frame,
        np.concatenate([part.adu for part in parts]),
        pd.concat([part.truth for part in parts], ignore_index=True),
        np.concatenate([part.drift_nm for part in parts]),
        np.concatenate(expected) if expected else None,
    )
