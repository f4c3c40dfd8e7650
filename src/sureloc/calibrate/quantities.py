"""The numbers of an inspected movie, one by one: value, error, unit and where it is from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sureloc.calibrate.camera_errors import CameraErrors
from sureloc.calibrate.molecules import Molecules
from sureloc.calibrate.on_time import OnTime
from sureloc.camera import Camera
from sureloc.errors import WeightsError
from sureloc.localize.detect import Spots
from sureloc.localize.proposals import trained_ranges
from sureloc.localize.psf_estimate import PSFEstimate
from sureloc.networks.weights import Networks

# Of density times squared width, by which such pairs widen the PSF: 64 simulated movies.
_PAIRS = 0.14
FEW_SPOTS = "too few lone spots"
NO_CAMERA, NO_LIGHT = "needs the gain", "saturated frames"
_NO_WIDTH = "needs the PSF width"


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
class Seen:
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


def quantities_of(
    stated: Stated,
    camera: Camera | None,
    own: CameraErrors,
    seen: Seen,
    molecules: Molecules | None,
    on_time: OnTime | None,
    shape: tuple[int, ...],
) -> dict[str, Quantity]:
    """Give all quantities, those that are unknown with the reason in their notes.

    Args:
        stated: what the user or the file says.
        camera: given or estimated; None where neither could be had.
        own: how sure the camera's numbers are.
        seen: what was found of the PSF.
        molecules: what was found of molecules.
        on_time: how long they shine.
        shape: (rows, columns) of the part that was looked at.
    """
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
        missing = _NO_WIDTH if seen.missing == FEW_SPOTS else seen.missing
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
    camera: Camera | None, own: CameraErrors, shape: tuple[int, int]
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


def _width(seen: Seen, molecules: Molecules | None) -> Quantity:
    """Give the PSF width: as lone spots show it, as given, or unknown."""
    name, unit = "PSF width, sd", "px"
    if seen.psf is not None:
        error = _width_error(seen.psf, molecules)
        return Quantity(name, seen.psf.sigma_px, error, unit, f"{seen.psf.spots} lone spots")
    if seen.sigma is not None:
        return Quantity(name, seen.sigma[0], None, unit, "given")
    asked = "; --sigma-px" if seen.missing == FEW_SPOTS else ""
    return Quantity(name, None, None, unit, "", note=f"{seen.missing}{asked}")


def _note_of_pixels(stated: Stated) -> str:
    """Say what the file says of pixels that sureloc cannot take."""
    if stated.oblong_nm is None:
        return "" if stated.pixel_nm else "not in the file; --pixel-nm"
    x_nm, y_nm = stated.oblong_nm
    said = f"the file says {x_nm:g} nm along x and {y_nm:g} nm along y"
    return said if stated.pixel_nm else f"{said}; sureloc needs square pixels (--pixel-nm)"


def _width_error(psf: PSFEstimate, molecules: Molecules | None) -> float:
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


def with_training(quantities: dict[str, Quantity], networks: Networks) -> dict[str, Quantity]:
    """Add the ranges that the weights have seen, where they say."""
    try:
        seen = trained_ranges(networks)
    except WeightsError:
        return quantities
    return {
        key: replace(quantity, trained=seen[key]) if key in seen else quantity
        for key, quantity in quantities.items()
    }
