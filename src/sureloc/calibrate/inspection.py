"""What a movie is like, in half a minute: camera, PSF, molecules and background, with their errors.

Camera and PSF width come from `sureloc.localize`, molecules from `sureloc.calibrate.molecules`.

The errors hold for what a single number can say. Where a movie is uneven, the values are means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sureloc.calibrate.camera_errors import CameraErrors, camera_of_part
from sureloc.calibrate.molecules import LEAST_SPOTS, count_molecules
from sureloc.calibrate.on_time import LINK_SIGMAS, FrameSpots, OnTime, estimate_on_time
from sureloc.calibrate.quantities import (
    FEW_SPOTS,
    NO_CAMERA,
    NO_LIGHT,
    Quantity,
    Seen,
    Stated,
    quantities_of,
    with_training,
)
from sureloc.camera import Camera
from sureloc.errors import InputError
from sureloc.limits import check_limit
from sureloc.localize.detect import Spots, detect_spots
from sureloc.localize.movie import Frames, doubts_of_width, read_frames, spread_frames
from sureloc.localize.noise_levels import NoiseLevels, noise_levels
from sureloc.localize.psf_estimate import PSFEstimate, estimate_psf
from sureloc.localize.saturation import telling_frames
from sureloc.networks.weights import Networks
from sureloc.seeds import numpy_generator

Array = npt.NDArray[np.float64]

SIDE_PX = 256  # of the middle of the frame that is looked at
SPREAD_PIXELS = 600_000  # in frames spread over the movie, for everything but the on-time
RUN_PIXELS = 2_500_000  # in successive frames, for the on-time
MOST_SPREAD, MOST_RUN = 40, 300
EXAMPLES = 12
_EXAMPLE_REACH_PX = 6
NEEDED = ("gain_adu_per_e", "sigma_px")  # of which all others depend


@dataclass(frozen=True)
class Inspection:
    """What a movie is like.

    Attributes:
        quantities: by a short key, in the order in which people want to read them.
        weights: name of the weights that `covered` speaks of.
        shape: (frames, rows, columns) of the movie.
        looked_at: frames, rows and columns that were looked at for all but the on-time.
        camera: the camera, given or estimated, of the part that was looked at; None where it could
            not be measured.
        camera_name: as the file says; None if it does not.
        on_time: how long molecules shine; None where that cannot be seen.
        mean_adu, sd_adu: mean and standard deviation of the frames looked at, (rows, columns).
        examples_e: windows round clear spots, photo-electrons, (spots, size, size).
        noise: the movie's noise by its level, beside that of the camera; None without camera or
            PSF width.
        spot_photons: detected photo-electrons of every spot.
        background_e: background of every frame's and region's middle, photo-electrons.
        notes: what a user should know, a sentence each.
        gain_contradicted: the camera file's gain is not the movie's; until it is mended, numbers
            in photo-electrons mean nothing.
    """

    quantities: dict[str, Quantity]
    weights: str
    shape: tuple[int, int, int]
    looked_at: tuple[int, int, int]
    camera: Camera | None
    camera_name: str | None
    on_time: OnTime | None
    mean_adu: Array
    sd_adu: Array
    examples_e: Array
    noise: NoiseLevels | None
    spot_photons: Array
    background_e: Array
    notes: tuple[str, ...]
    gain_contradicted: bool = False

    @property
    def covered(self) -> bool | None:
        """Whether the weights have seen all of it; None where that cannot be told."""
        covered = [quantity.covered for quantity in self.quantities.values()]
        if False in covered:
            return False
        silent = all(quantity.trained is None for quantity in self.quantities.values())
        return None if silent or self.unknown else True

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the quantities that decide whether the weights suit, and are not known."""
        return tuple(
            quantity.name
            for key, quantity in self.quantities.items()
            if quantity.value is None and (key in NEEDED or quantity.trained is not None)
        )

    @property
    def says_something(self) -> bool:
        """Whether any quantity is known, from the file or from the movie."""
        return any(quantity.value is not None for quantity in self.quantities.values())

    def value(self, key: str) -> float:
        """Give a quantity's value.

        Raises:
            InputError: it could not be had.
        """
        quantity = self.quantities[key]
        if quantity.value is None:
            raise InputError(f"The {quantity.name} could not be estimated: {quantity.note}.")
        return quantity.value


def inspect_movie(
    movie: Frames,
    camera: Camera | None,
    stated: Stated,
    networks: Networks,
    seed: int = 0,
    *,
    sigma_px: float | None = None,
    trust_camera: bool = False,
) -> Inspection:
    """Look at some frames of a movie and say what it is like.

    What cannot be measured is unknown, and a note says why.

    Args:
        movie: the movie.
        camera: its camera, or None to estimate it.
        stated: what is known besides.
        networks: weights, whose training is compared with the movie.
        seed: the same seed gives the same answers.
        sigma_px: PSF standard deviation, px, or None to estimate it.
        trust_camera: keep the camera's offset also where the movie's noise contradicts it.

    Raises:
        CameraError: the camera's maps do not fit.
        InputError: `sigma_px` is out of range.
    """
    if sigma_px is not None:
        check_limit("sigma_px", sigma_px)
    frames, height, width = movie.shape
    rows, columns = _middle(height), _middle(width)
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    numbers = spread_frames(frames, int(np.clip(SPREAD_PIXELS // area, 4, MOST_SPREAD)))
    adu = read_frames(movie, numbers)[:, rows, columns]
    used, own, notes = camera_of_part(adu, movie, camera, rows, columns, seed, trusted=trust_camera)
    if stated.camera_name:
        notes.insert(0, f"The file names the camera: {stated.camera_name}.")
    if used is not None:
        telling = telling_frames(adu, used.saturation_in(adu.dtype))
        if telling.any():
            adu = adu[telling]
    light = None if used is None or not telling.any() else _Light.of(adu, used)
    seen = _seen(light, sigma_px, NO_CAMERA if used is None else NO_LIGHT, notes)
    on_time, molecules, spots = None, None, seen.spots
    if light is not None and seen.sigma is not None and spots is not None:
        on_time = _on_time(movie, light.camera, (rows, columns), seen.sigma, seed)
        molecules = count_molecules(spots, light.variance, seen.sigma, light.camera, own, seed)
        notes += _remarks(seen.psf, spots, on_time)
        if on_time is None:
            notes.append("The movie is too short to see how long molecules shine.")
    quantities = quantities_of(stated, used, own, seen, molecules, on_time, adu.shape[1:])
    return Inspection(
        with_training(quantities, networks),
        networks.card.name,
        (frames, height, width),
        (len(adu), adu.shape[1], adu.shape[2]),
        used,
        stated.camera_name,
        on_time,
        adu.mean(0, dtype=np.float64),
        adu.std(0, dtype=np.float64),
        *_shown(light, seen, own),
        tuple(notes),
        own.gain_contradicted,
    )


@dataclass(frozen=True)
class _Light:
    """Frames in photo-electrons, (frames, rows, columns), their camera and its read variance."""

    camera: Camera
    electrons: Array
    variance: Array

    @classmethod
    def of(cls, adu: npt.NDArray[np.generic], camera: Camera) -> _Light:
        electrons = camera.electrons(adu)
        return cls(camera, electrons, camera.read_variance_e2(electrons.shape[1:]))


def _seen(light: _Light | None, sigma_px: float | None, no_light: str, notes: list[str]) -> Seen:
    """Find the PSF width, unless it was given, and spots; add to the notes what is to be said.

    Args:
        light: the frames; None where there are none to look at.
        sigma_px: the width that was given, px.
        no_light: why there are none.
        notes: of the inspection.
    """
    sigma = None if sigma_px is None else (sigma_px, sigma_px)
    if light is None:
        return Seen(sigma, missing=no_light)
    variance, excess = light.variance, light.camera.excess_noise
    psf = None
    if sigma is None:
        try:
            psf = estimate_psf(light.electrons, variance, excess)
        except InputError as error:
            notes.append(f"The PSF width could not be measured. {error}")
            return Seen(missing=FEW_SPOTS)
        sigma = (psf.sigma_x_px, psf.sigma_y_px)
    else:
        doubts = doubts_of_width(sigma[0], light.electrons, variance, excess)
        notes += [f"The PSF width was given: {sigma[0]:g} px."]
        notes += [f"{doubt[0].upper()}{doubt[1:]}." for doubt in doubts]
    return Seen(sigma, psf, detect_spots(light.electrons, variance, sigma, excess))


def _shown(
    light: _Light | None, seen: Seen, own: CameraErrors
) -> tuple[Array, NoiseLevels | None, Array, Array]:
    """Give example spots, noise by level, photons of spots, and backgrounds."""
    if light is None or seen.sigma is None or seen.spots is None:
        return np.zeros((0, 1, 1)), own.noise, np.zeros(0), np.zeros(0)
    spots, electrons = seen.spots, light.electrons
    return (
        _examples(spots, electrons, seen.sigma),
        own.noise
        or _noise(spots, electrons, light.variance, seen.sigma, light.camera.excess_noise),
        spots.photons,
        spots.background_e[:, ::16, ::16].ravel(),
    )


def _middle(length: int) -> slice:
    side = min(length, SIDE_PX)
    return slice((length - side) // 2, (length - side) // 2 + side)


def _on_time(
    movie: Frames,
    camera: Camera,
    part: tuple[slice, slice],
    sigma: tuple[float, float],
    seed: int,
) -> OnTime | None:
    """Look at successive frames from the middle of the movie, a smaller part of larger frames."""
    frames = movie.shape[0]
    area = (part[0].stop - part[0].start) * (part[1].stop - part[1].start)
    number = min(frames, MOST_RUN, max(RUN_PIXELS // area, 30))
    if number < 4:
        return None
    first = (frames - number) // 2
    variance = camera.read_variance_e2((part[0].stop - part[0].start, part[1].stop - part[1].start))
    run = []
    for begin in range(first, first + number, 10):
        adu = movie.read(begin, min(begin + 10, first + number))[:, part[0], part[1]]
        spots = detect_spots(camera.electrons(adu), variance, sigma, camera.excess_noise)
        for k in range(len(adu)):
            mine = spots.frame == k
            run.append(FrameSpots(spots.x_px[mine], spots.y_px[mine], spots.significance[mine]))
    reach = LINK_SIGMAS * math.sqrt(sigma[0] * sigma[1])
    return estimate_on_time([run], reach, numpy_generator(seed, "on-time"))


def _remarks(psf: PSFEstimate | None, spots: Spots, on_time: OnTime | None) -> list[str]:
    remarks = []
    if psf is not None and psf.spread > 0.08:
        remarks.append(
            f"Spots differ in width by {100 * psf.spread:.0f} % beyond noise, as by focus; one "
            "width does not describe them all."
        )
    if spots.frame.size < LEAST_SPOTS:
        remarks.append(
            f"Only {spots.frame.size} spots were found in the frames looked at: too few to say "
            "how many molecules there are and how bright."
        )
    if on_time is not None and on_time.fades_early:
        remarks.append(
            "Molecules that have shone for some frames go on more often than new ones: no single "
            "on-time describes them (two kinds of molecules, beads, or frames that are missed)."
        )
    return remarks


def _examples(spots: Spots, electrons: Array, sigma: tuple[float, float]) -> Array:
    """Cut windows round clear spots of all brightnesses."""
    reach = max(_EXAMPLE_REACH_PX, math.ceil(4 * max(sigma)))
    column, row = np.rint(spots.x_px).astype(int), np.rint(spots.y_px).astype(int)
    inside = (
        (column >= reach)
        & (column < electrons.shape[2] - reach)
        & (row >= reach)
        & (row < electrons.shape[1] - reach)
    )
    chosen = np.flatnonzero(inside)
    chosen = chosen[np.argsort(spots.photons[chosen])]
    if chosen.size > EXAMPLES:
        chosen = chosen[np.linspace(0, chosen.size - 1, EXAMPLES).round().astype(int)]
    size = 2 * reach + 1
    windows = [
        electrons[spots.frame[k], row[k] - reach :, column[k] - reach :][:size, :size]
        for k in chosen
    ]
    return np.stack(windows) if windows else np.zeros((0, size, size))


def _noise(
    spots: Spots,
    electrons: Array,
    variance: Array,
    sigma: tuple[float, float],
    excess_noise: float,
) -> NoiseLevels:
    fitted = spots.expected_e(sigma)
    return noise_levels(electrons - fitted, fitted, variance, excess_noise)
