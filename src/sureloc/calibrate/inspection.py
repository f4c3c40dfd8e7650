"""What a movie is like, in half a minute: camera, PSF, molecules and background, with their errors.

Camera and PSF width come from `sureloc.localize`. Molecules are counted and weighed as detected
spots, which merge where they overlap and are missed where they are faint. How much so is found by
doing the same once more to a movie simulated with what was found, whose truth is known (indirect
inference; Gourieroux, Monfort and Renault 1993): the answers are corrected by the ratio, and a part
of the correction is added to their errors, since real molecules are not quite those simulated.

The errors hold for what a single number can say. Where a movie is uneven, the values are means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from sureloc.calibrate.on_time import LINK_SIGMAS, FrameSpots, OnTime, estimate_on_time
from sureloc.camera import Camera, rounding_of
from sureloc.errors import CameraError, InputError, WeightsError
from sureloc.limits import check_limit
from sureloc.localize.camera_estimate import check_camera, estimate_camera
from sureloc.localize.detect import Spots, detect_spots, faintest_photons
from sureloc.localize.movie import Frames, doubts_of_width, read_frames, spread_frames
from sureloc.localize.noise_levels import NoiseLevels, noise_levels
from sureloc.localize.proposals import trained_ranges
from sureloc.localize.psf_estimate import PSFEstimate, estimate_psf
from sureloc.localize.saturation import largest_adu, telling_frames
from sureloc.networks.weights import Networks
from sureloc.physics.image import render_frames
from sureloc.physics.noise import sample_electrons
from sureloc.physics.psf import GaussianPSF
from sureloc.seeds import numpy_generator, torch_generator

Array = npt.NDArray[np.float64]

SIDE_PX = 256  # of the middle of the frame that is looked at
SPREAD_PIXELS = 600_000  # in frames spread over the movie, for everything but the on-time
RUN_PIXELS = 2_500_000  # in successive frames, for the on-time
MOST_SPREAD, MOST_RUN = 40, 300
EXAMPLES = 12
_SIMULATED_PX = 96
_SIMULATED_SPOTS = 500.0
_CORRECTIONS = 3
_CORRECTION_DOUBT = 0.4  # of the correction's logarithm, as one standard error
# Of density times squared width, by which such pairs widen the PSF: 64 simulated movies.
_PAIRS = 0.14
_LEAST_SPOTS = 20
_LARGEST_FACTOR = 3.0
_EXAMPLE_REACH_PX = 6
NEEDED = ("gain_adu_per_e", "sigma_px")  # of which all others depend
_FEW_SPOTS = "too few lone spots"
_NO_CAMERA, _NO_WIDTH, _NO_LIGHT = "needs the gain", "needs the PSF width", "saturated frames"


@dataclass(frozen=True)
class Quantity:
    """One property of a movie.

    Attributes:
        name: what it is, for people.
        value: None where it could not be had.
        error: its standard error; None where there is none to state.
        unit: unit, or an empty string.
        source: where the value is from: the file, the movie, the user.
        trained: lowest and highest value that the weights have seen; None if it does not matter
            to them or they do not say.
        note: a remark; may be empty.
    """

    name: str
    value: float | None
    error: float | None
    unit: str
    source: str
    trained: tuple[float, float] | None = None
    note: str = ""

    @property
    def covered(self) -> bool | None:
        """Whether the weights have seen such values; None if that is no question."""
        if self.trained is None or self.value is None:
            return None
        return self.trained[0] <= self.value <= self.trained[1]


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


@dataclass(frozen=True)
class Stated:
    """What the user or the file says.

    Attributes:
        pixel_nm: pixel size in the sample, nm.
        pixel_source: who says so.
        oblong_nm: what the file says of pixels that are not square, along x and y, nm.
        exposure_ms: exposure of a frame, ms.
        camera_name: for people.
        source: who says the last two.
    """

    pixel_nm: float | None = None
    pixel_source: str = "the file"
    oblong_nm: tuple[float, float] | None = None
    exposure_ms: float | None = None
    camera_name: str | None = None
    source: str = "the file"


@dataclass(frozen=True)
class _Counted:
    """What detection says of molecules, before or after correction."""

    density_per_px2: float
    photons: float
    background_e: float

    def ratio(self, other: _Counted) -> tuple[float, float, float]:
        return tuple(  # type: ignore[return-value]
            float(np.clip(a / b, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)) if a > 0 and b > 0 else 1.0
            for a, b in (
                (self.density_per_px2, other.density_per_px2),
                (self.photons, other.photons),
                (self.background_e, other.background_e),
            )
        )


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
    used, own, notes = _camera_of(adu, movie, camera, rows, columns, seed, trusted=trust_camera)
    if stated.camera_name:
        notes.insert(0, f"The file names the camera: {stated.camera_name}.")
    if used is not None:
        telling = telling_frames(adu, used.saturation_in(adu.dtype))
        if telling.any():
            adu = adu[telling]
    light = None if used is None or not telling.any() else _Light.of(adu, used)
    seen = _seen(light, sigma_px, _NO_CAMERA if used is None else _NO_LIGHT, notes)
    on_time, molecules, spots = None, None, seen.spots
    if light is not None and seen.sigma is not None and spots is not None:
        on_time = _on_time(movie, light.camera, (rows, columns), seen.sigma, seed)
        molecules = _molecules(spots, light.variance, seen.sigma, light.camera, own, seed)
        notes += _remarks(seen.psf, spots, on_time)
        if on_time is None:
            notes.append("The movie is too short to see how long molecules shine.")
    quantities = _quantities(stated, used, own, seen, molecules, on_time, adu.shape[1:])
    return Inspection(
        _with_training(quantities, networks),
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


@dataclass(frozen=True)
class _Seen:
    """What was found of the PSF, and the spots of that width; None where there is nothing.

    Attributes:
        sigma: widths along columns and rows, px.
        psf: what lone spots say; None where the width was given.
        spots: detected spots.
        missing: why the width is unknown, in a few words.
    """

    sigma: tuple[float, float] | None = None
    psf: PSFEstimate | None = None
    spots: Spots | None = None
    missing: str = ""


def _seen(light: _Light | None, sigma_px: float | None, no_light: str, notes: list[str]) -> _Seen:
    """Find the PSF width, unless it was given, and spots; add to the notes what is to be said.

    Args:
        light: the frames; None where there are none to look at.
        sigma_px: the width that was given, px.
        no_light: why there are none.
        notes: of the inspection.
    """
    sigma = None if sigma_px is None else (sigma_px, sigma_px)
    if light is None:
        return _Seen(sigma, missing=no_light)
    variance, excess = light.variance, light.camera.excess_noise
    psf = None
    if sigma is None:
        try:
            psf = estimate_psf(light.electrons, variance, excess)
        except InputError as error:
            notes.append(f"The PSF width could not be measured. {error}")
            return _Seen(missing=_FEW_SPOTS)
        sigma = (psf.sigma_x_px, psf.sigma_y_px)
    else:
        doubts = doubts_of_width(sigma[0], light.electrons, variance, excess)
        notes += [f"The PSF width was given: {sigma[0]:g} px."]
        notes += [f"{doubt[0].upper()}{doubt[1:]}." for doubt in doubts]
    return _Seen(sigma, psf, detect_spots(light.electrons, variance, sigma, excess))


def _shown(
    light: _Light | None, seen: _Seen, own: _CameraErrors
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


_FROM_MOVIE, _FROM_FILE = "the movie", "the camera file"
_MOVED = "the camera file, moved by the movie's noise"


@dataclass(frozen=True)
class _CameraErrors:
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
        return self.source == _FROM_MOVIE

    def of_background(self, background_e: float) -> float:
        """Give what they make of a background's error: too steep a line lowers it twice."""
        apart = math.sqrt(max(self.offset_e**2 - self.dark_e**2, 0.0))
        return math.hypot(self.gain * abs(background_e) + self.dark_e, apart)


def _camera_of(
    adu: npt.NDArray[np.generic],
    movie: Frames,
    camera: Camera | None,
    rows: slice,
    columns: slice,
    seed: int,
    *,
    trusted: bool,
) -> tuple[Camera | None, _CameraErrors, list[str]]:
    """Give the camera of the part that is looked at, how sure it is, and what to say of it.

    The camera is None where it is to be estimated and cannot be.
    """
    top, _ = largest_adu(adu, camera)
    saturated = not telling_frames(adu, top).any()
    said = (
        f"The frames are saturated: more than half the pixels of each frame looked at reach {top} "
        "ADU, the camera's largest value, and tell nothing. Record with less light or gain; if the "
        "camera writes larger values, give saturation_adu in its file."
    )
    unknown = _CameraErrors(0.0, 0.0, 0.0, 0.0, _FROM_MOVIE, _FROM_MOVIE)
    if camera is None:
        if saturated:
            return None, unknown, [said]
        try:
            guess = estimate_camera(adu, numpy_generator(seed, "camera"), saturation_adu=top)
        except CameraError as error:
            return None, unknown, [str(error)]
        gain = float(guess.camera.gain_adu_per_e)
        errors = _CameraErrors(
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
    errors = _CameraErrors(
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


@dataclass(frozen=True)
class _Molecules:
    """Density, photons and background with their standard errors (photo-electrons, px).

    They are of molecules of `faintest_e` photo-electrons or more in a frame.
    """

    found: _Counted
    errors: tuple[float, float, float]
    spots: int
    faintest_e: float


def _molecules(
    spots: Spots,
    variance: Array,
    sigma: tuple[float, float],
    camera: Camera,
    own: _CameraErrors,
    seed: int,
) -> _Molecules | None:
    if spots.frame.size < _LEAST_SPOTS:
        return None
    raw = _counted(spots)
    found, ratio = raw, (1.0, 1.0, 1.0)
    for turn in range(_CORRECTIONS):
        again, truth = _simulated(found, spots, raw, variance, sigma, camera, seed, turn)
        # What detection makes of the simulated truth is what it made of the real one.
        ratio = truth.ratio(again)
        found = _Counted(
            raw.density_per_px2 * ratio[0], raw.photons * ratio[1], raw.background_e * ratio[2]
        )
    frames = len(spots.background_e)
    per_frame = np.bincount(spots.frame, minlength=frames)
    of_counts = max(
        float(per_frame.std(ddof=1)) if frames > 1 else 0.0, math.sqrt(per_frame.mean())
    )
    simulated = 1.0 / math.sqrt(_SIMULATED_SPOTS)
    relative = [
        math.hypot(of_counts / math.sqrt(frames) / per_frame.mean(), simulated),
        math.hypot(
            float(spots.photons.std()) / (math.sqrt(spots.photons.size) * raw.photons),
            simulated * float(spots.photons.std()) / raw.photons,
            own.gain,
        ),
        float(spots.background_e.mean((1, 2)).std()) / math.sqrt(frames) / raw.background_e
        if raw.background_e > 0
        else 0.0,
    ]
    relative = [
        math.hypot(part, _CORRECTION_DOUBT * abs(math.log(r)))
        for part, r in zip(relative, ratio, strict=True)
    ]
    return _Molecules(
        found,
        (
            relative[0] * found.density_per_px2,
            relative[1] * found.photons,
            math.hypot(relative[2] * found.background_e, own.of_background(found.background_e)),
        ),
        int(spots.frame.size),
        faintest_photons(
            variance.shape,
            found.background_e,
            float(np.median(variance)),
            sigma,
            camera.excess_noise,
        ),
    )


def _counted(spots: Spots) -> _Counted:
    frames, rows, columns = spots.background_e.shape
    return _Counted(
        spots.frame.size / (frames * rows * columns),
        float(spots.photons.mean()) if spots.photons.size else 0.0,
        float(spots.background_e.mean()),
    )


def _simulated(
    like: _Counted,
    spots: Spots,
    raw: _Counted,
    variance: Array,
    sigma: tuple[float, float],
    camera: Camera,
    seed: int,
    turn: int,
) -> tuple[_Counted, _Counted]:
    """Simulate frames of known truth and detect in them; give what was found, and the truth."""
    side = min(_SIMULATED_PX, *variance.shape)
    rng = numpy_generator(seed, "inspection", turn)
    wide = side + 6.0
    frames = int(np.clip(_SIMULATED_SPOTS / (like.density_per_px2 * side**2), 3, 60))
    count = rng.poisson(like.density_per_px2 * wide**2, frames)
    frame = np.repeat(np.arange(frames), count)
    x, y = rng.uniform(-3.5, side + 2.5, (2, frame.size))
    photons = rng.choice(spots.photons, frame.size) * (like.photons / raw.photons)
    expected = render_frames(
        torch.from_numpy(x),
        torch.from_numpy(y),
        torch.from_numpy(photons),
        torch.from_numpy(frame),
        GaussianPSF(*sigma),
        (frames, side, side),
    ) + max(like.background_e, 0.0)
    noise = np.ascontiguousarray(variance[:side, :side])
    generator = torch_generator(seed, "inspection noise", turn)
    electrons = sample_electrons(expected, torch.from_numpy(noise), generator, camera.em_gain)
    found = detect_spots(electrons.numpy(), noise, sigma, camera.excess_noise)
    inside = (np.abs(2 * x - side + 1) <= side) & (np.abs(2 * y - side + 1) <= side)
    truth = _Counted(
        float(inside.sum()) / (frames * side**2),
        float(photons[inside].mean()) if inside.any() else like.photons,
        like.background_e,
    )
    return _counted(found), truth


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
    if spots.frame.size < _LEAST_SPOTS:
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


def _quantities(
    stated: Stated,
    camera: Camera | None,
    own: _CameraErrors,
    seen: _Seen,
    molecules: _Molecules | None,
    on_time: OnTime | None,
    shape: tuple[int, ...],
) -> dict[str, Quantity]:
    found: dict[str, Quantity] = {
        "pixel_nm": Quantity(
            "pixel size", stated.pixel_nm, None, "nm",
            stated.pixel_source if stated.pixel_nm else "",
            note=_note_of_pixels(stated),
        ),
        "exposure_ms": Quantity(
            "exposure", stated.exposure_ms, None, "ms", stated.source if stated.exposure_ms else "",
            note="" if stated.exposure_ms else "not in the file",
        ),
        **_of_camera(camera, own, (shape[0], shape[1])),
        "sigma_px": _width(seen, molecules),
    }  # fmt: skip
    missing = "too few spots"
    if seen.spots is None:
        missing = _NO_WIDTH if seen.missing == _FEW_SPOTS else seen.missing
    note = f"of {molecules.faintest_e:.0f} e- or more" if molecules else missing
    by = f"{molecules.spots:,} spots" if molecules else ""
    values: tuple[float | None, ...] = (None,) * 3
    errors: tuple[float | None, ...] = (None,) * 3
    if molecules is not None:
        counted = molecules.found
        values = (counted.density_per_px2, counted.photons, counted.background_e)
        errors = molecules.errors
    for key, name, unit, value, error in (
        ("density_per_px2", "molecules lit", "/px²/frame", values[0], errors[0]),
        ("photons", "brightness", "e-/frame", values[1], errors[1]),
        ("background_e", "background", "e-/px", values[2], errors[2]),
    ):
        remark = note if key != "background_e" or not molecules else ""
        found[key] = Quantity(name, value, error, unit, by, note=remark)
    if molecules is not None and stated.pixel_nm:
        area_um2 = (stated.pixel_nm / 1000) ** 2
        found["density_per_um2"] = Quantity(
            "molecules lit",
            molecules.found.density_per_px2 / area_um2,
            molecules.errors[0] / area_um2,
            "/µm²/frame",
            by,
            note=note,
        )
    found["on_frames"] = (
        _shining(on_time)
        if seen.spots is not None
        else Quantity("on-time", None, None, "frames", "", note=missing)
    )
    if stated.exposure_ms and found["on_frames"].value is not None:
        frames = found["on_frames"]
        assert frames.value is not None  # noqa: S101 - for the type checker
        found["on_ms"] = Quantity(
            "on-time",
            frames.value * stated.exposure_ms,
            None if frames.error is None else frames.error * stated.exposure_ms,
            "ms",
            frames.source,
            note="if frames follow without a pause",
        )
    return found


def _of_camera(
    camera: Camera | None, own: _CameraErrors, shape: tuple[int, int]
) -> dict[str, Quantity]:
    """Give offset, gain and read noise, unknown where there is no camera."""
    if camera is None:
        names = (("offset", "ADU"), ("gain", "ADU/e-"), ("read noise", "e- rms"))
        keys = ("offset_adu", "gain_adu_per_e", "read_noise_e")
        return {
            key: Quantity(name, None, None, unit, "", note="not measurable; --camera")
            for key, (name, unit) in zip(keys, names, strict=True)
        }
    gain = float(np.median(np.asarray(camera.gain_adu_per_e)))
    noise = math.sqrt(float(np.median(camera.read_variance_e2(shape))))
    return {
        "offset_adu": Quantity(
            "offset", float(np.median(np.asarray(camera.offset_adu))), own.offset_e * gain, "ADU",
            own.offset_source,
        ),
        "gain_adu_per_e": Quantity(
            "gain", gain, own.gain * gain if own.estimated else None, "ADU/e-", own.source
        ),
        "read_noise_e": Quantity(
            "read noise", noise, own.read_noise_e if own.estimated else None, "e- rms", own.source,
            note="usual, not measured" if own.estimated else "",
        ),
    }  # fmt: skip


def _width(seen: _Seen, molecules: _Molecules | None) -> Quantity:
    """Give the PSF width: as lone spots show it, as given, or unknown."""
    name, unit = "PSF width, sd", "px"
    if seen.psf is not None:
        error = _width_error(seen.psf, molecules)
        return Quantity(name, seen.psf.sigma_px, error, unit, f"{seen.psf.spots} lone spots")
    if seen.sigma is not None:
        return Quantity(name, seen.sigma[0], None, unit, "given")
    asked = "; --sigma-px" if seen.missing == _FEW_SPOTS else ""
    return Quantity(name, None, None, unit, "", note=f"{seen.missing}{asked}")


def _note_of_pixels(stated: Stated) -> str:
    """Say what the file says of pixels that sureloc cannot take."""
    if stated.oblong_nm is None:
        return "" if stated.pixel_nm else "not in the file; --pixel-nm"
    x_nm, y_nm = stated.oblong_nm
    said = f"the file says {x_nm:g} nm along x and {y_nm:g} nm along y"
    return said if stated.pixel_nm else f"{said}; sureloc needs square pixels (--pixel-nm)"


def _width_error(psf: PSFEstimate, molecules: _Molecules | None) -> float:
    """Make room for pairs so near that they are taken for one molecule, which is then wider."""
    density = molecules.found.density_per_px2 if molecules else 0.0
    return math.hypot(psf.error_px, _PAIRS * density * psf.sigma_px**3)


def _shining(on_time: OnTime | None) -> Quantity:
    """Say how long molecules shine, or why it is not known."""
    name, unit = "on-time", "frames"
    if on_time is None:
        return Quantity(name, None, None, unit, "", note="fewer than four frames")
    by = f"{on_time.tracks:,} tracks"
    if math.isnan(on_time.frames):
        return Quantity(
            name, None, None, unit, by,
            note=f"only {on_time.trials} times was a molecule seen in three frames running; its "
            "on-time is short, about a frame, or the movie is",
        )  # fmt: skip
    if not on_time.frames > 0:
        return Quantity(
            name, None, None, unit, by,
            note="molecules go on no more often than chance neighbours make it seem; it is short, "
            "about a frame or less",
        )  # fmt: skip
    if not math.isfinite(on_time.error):
        return Quantity(
            name, None, None, unit, by,
            note=f"at least {on_time.at_least:.3g} frames: too few molecules were seen to go off",
        )  # fmt: skip
    return Quantity(name, on_time.frames, on_time.error, unit, by)


def _with_training(quantities: dict[str, Quantity], networks: Networks) -> dict[str, Quantity]:
    try:
        seen = trained_ranges(networks)
    except WeightsError:
        return quantities
    return {
        key: replace(quantity, trained=seen[key]) if key in seen else quantity
        for key, quantity in quantities.items()
    }


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
