"""Cameras made from recipes: plain numbers, or maps as an sCMOS sensor has them."""

from __future__ import annotations

import numpy as np

from sureloc.camera import Camera
from sureloc.seeds import numpy_generator
from sureloc.simulate.recipe import CameraRecipe, FrameRecipe, ScalarCamera, ScmosCamera


def make_camera(camera: CameraRecipe, frame: FrameRecipe) -> Camera:
    """Make the camera that a recipe describes.

    Args:
        camera: the recipe; an sCMOS camera is drawn with its own seed, so that movies of different
            seeds are taken with the same camera.
        frame: the frame whose pixels its maps describe.

    Returns:
        The camera, with maps of shape (frame.height, frame.width) if it is an sCMOS.
    """
    match camera:
        case ScalarCamera():
            return Camera(
                offset_adu=camera.offset_adu,
                gain_adu_per_e=camera.gain_adu_per_e,
                variance_adu2=camera.variance_adu2,
                quantum_efficiency=camera.quantum_efficiency,
                em_gain=camera.em_gain,
                saturation_adu=camera.saturation_adu,
            )
        case ScmosCamera():
            return _scmos(camera, (frame.height, frame.width))


def _scmos(camera: ScmosCamera, shape: tuple[int, int]) -> Camera:
    rng = numpy_generator(camera.seed, "camera")
    offset = camera.offset_adu + camera.offset_sd_adu * rng.normal(size=shape)
    relative_gain = 1 + camera.gain_relative_sd * rng.normal(size=shape)
    variance = camera.variance_adu2 * np.exp(camera.variance_log_sd * rng.normal(size=shape))
    hot = rng.uniform(size=shape) < camera.hot_share
    # Hot pixels spread widely: a factor log-normal by e about its median.
    variance[hot] *= camera.hot_factor * np.exp(rng.normal(size=int(hot.sum())))
    return Camera(
        offset_adu=offset,
        gain_adu_per_e=camera.gain_adu_per_e * np.maximum(relative_gain, 0.1),
        variance_adu2=variance,
        quantum_efficiency=camera.quantum_efficiency,
        saturation_adu=camera.saturation_adu,
    )
