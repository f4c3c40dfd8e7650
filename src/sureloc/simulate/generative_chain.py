"""One frame followed through the generative model (the paper's Figure 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from sureloc.camera import Camera
from sureloc.physics.kde import render_kde
from sureloc.simulate.movie import frames_per_block, simulate_movie
from sureloc.simulate.recipe import FrameRecipe, Recipe

Image = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GenerativeChain:
    """What the generative model does to one frame.

    Attributes:
        frame: size of the frame.
        truth: the frame's emitters, theta (columns of the truth table).
        expected_e: expected photo-electrons, omega, shape (rows, columns).
        adu: what the camera wrote, x, shape (rows, columns).
        kde: the density estimate, y, 1 an emitter, shape (4 rows, 4 columns).
    """

    frame: FrameRecipe
    truth: pd.DataFrame
    expected_e: Image
    adu: npt.NDArray[np.uint16]
    kde: Image


def generative_chain(
    recipe: Recipe, seed: int, frames: int, *, camera: Camera | None = None
) -> GenerativeChain:
    """Follow the first frame that holds an emitter (the very first if none is found soon).

    Args:
        recipe: what the movie is made of.
        seed: the movie's seed.
        frames: the movie's length, 1 or more; frames beyond it are not looked at.
        camera: the camera to use instead of the recipe's.
    """
    length = min(frames, frames_per_block(recipe.frame))
    chunk = next(simulate_movie(recipe, length, seed, camera=camera, keep_expected=True))
    expected_e = cast(npt.NDArray[np.float64], chunk.expected_e)  # it was asked for
    index = int(chunk.truth["frame"].min()) if len(chunk.truth) else 0
    truth = chunk.truth[chunk.truth["frame"] == index].reset_index(drop=True)
    return GenerativeChain(
        recipe.frame,
        truth,
        expected_e[index],
        chunk.adu[index],
        _density(truth, recipe.frame),
    )


def _density(truth: pd.DataFrame, frame: FrameRecipe) -> Image:
    x_px, y_px = (
        torch.from_numpy(truth[name].to_numpy() / frame.pixel_nm) for name in ("x_nm", "y_nm")
    )
    image = torch.zeros(x_px.numel(), dtype=torch.int64)
    density = render_kde(x_px, y_px, torch.ones_like(x_px), image, (1, frame.height, frame.width))
    return np.asarray(density[0].numpy())
