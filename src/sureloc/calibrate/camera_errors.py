"""The camera of an inspected movie, given or estimated, and how sure its numbers are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sureloc.camera import Camera, rounding_of
from sureloc.errors import CameraError
from sureloc.localize.camera_estimate import check_camera, estimate_camera
from sureloc.localize.movie import Frames
from sureloc.localize.noise_levels import NoiseLevels
from sureloc.localize.saturation import largest_adu, telling_frames
from sureloc.seeds import numpy_generator

_FROM_MOVIE, _FROM_FILE = "the movie", "the camera file"
_MOVED = "the camera file, moved by the movie's noise"


@dataclass(frozen=True)
class CameraErrors:
    """Standard errors of a camera's numbers: gain relative, the others in electrons.

    `offset_e` holds `dark_e`, the error of the level without light: where that level was estimated
    it goes with the gain's error, as a line's slope and zero do. Beside them is what a given camera
    was held against.
    """

    gain: float
    offset_e: float
    dark_e: float
    read_noise_e: float
    source: str
    offset_source: str
    gain_contradicted: bool = False
    noise: NoiseLevels | None = None

    @property
    def estimated(self) -> bool:
        """Whether the camera was estimated from the movie."""
        return self.source == _FROM_MOVIE

    def of_background(self, background_e: float) -> float:
        """Give what they make of a background's error: too steep a line lowers it twice."""
        apart = math.sqrt(max(self.offset_e**2 - self.dark_e**2, 0.0))
        return math.hypot(self.gain * abs(background_e) + self.dark_e, apart)


def camera_of_part(
    adu: npt.NDArray[np.generic],
    movie: Frames,
    camera: Camera | None,
    rows: slice,
    columns: slice,
    seed: int,
    *,
    trusted: bool,
) -> tuple[Camera | None, CameraErrors, list[str]]:
    """Give the camera of the part that is looked at, how sure it is, and what to say of it.

    Args:
        adu: frames of the part, (frames, rows, columns), as the camera wrote them.
        movie: the whole movie, whose frames the maps of `camera` must fit.
        camera: of the whole frame, or None to estimate it.
        rows, columns: where the part lies.
        seed: the same seed gives the same estimate.
        trusted: keep the camera's offset also where the movie's noise contradicts it.

    Returns:
        The part's camera, None where it is to be estimated and cannot be; its errors; sentences.

    Raises:
        CameraError: the maps of `camera` do not fit.
    """
    top, _ = largest_adu(adu, camera)
    saturated = not telling_frames(adu, top).any()
    said = (
        f"The frames are saturated: more than half the pixels of each frame looked at reach {top} "
        "ADU, the camera's largest value, and tell nothing. Record with less light or gain; if the "
        "camera writes larger values, give saturation_adu in its file."
    )
    unknown = CameraErrors(0.0, 0.0, 0.0, 0.0, _FROM_MOVIE, _FROM_MOVIE)
    if camera is None:
        if saturated:
            return None, unknown, [said]
        try:
            guess = estimate_camera(adu, numpy_generator(seed, "camera"), saturation_adu=top)
        except CameraError as error:
            return None, unknown, [str(error)]
        gain = float(guess.camera.gain_adu_per_e)
        errors = CameraErrors(
            guess.gain_error / gain,
            guess.offset_error_adu / gain,
            guess.dark_level_error_adu / gain,
            guess.read_noise_error_e,
            _FROM_MOVIE,
            _FROM_MOVIE,
        )
        return guess.camera, errors, [guess.sentence]
    camera.check_shape((movie.shape[1], movie.shape[2]))
    part = replace(camera.crop(rows, columns), saturation_adu=top, rounding_adu2=rounding_of(adu))
    if saturated:
        return part, replace(unknown, source=_FROM_FILE, offset_source=_FROM_FILE), [said]
    checked = check_camera(part, adu, seed, trusted=trusted)
    notes = [checked.sentence]
    if checked.wrong_gain:
        notes.insert(0, f"Something is wrong: {checked.wrong_gain}. Mend the camera file first.")
    errors = CameraErrors(
        0.0,
        checked.shift.error_e,
        checked.shift.error_e,
        0.0,
        _FROM_FILE,
        _MOVED if checked.moved else f"{_FROM_FILE}, its error from the movie",
        bool(checked.wrong_gain),
        checked.noise,
    )
    return checked.corrected(part), errors, notes
