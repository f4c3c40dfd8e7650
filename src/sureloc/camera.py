"""What a camera does to photo-electrons, and the one place where ADU become electrons.

A pixel k that expects ``omega`` photo-electrons reads, in analogue-digital units (ADU),

    sCMOS, CCD:  x = offset + gain * Poisson(omega) + Normal(0, variance)
    EMCCD:       x = offset + gain * Gamma(Poisson(omega), em_gain) / em_gain + Normal(0, variance)

rounded to an integer (movies of floats may not be: `rounding_of`) and clipped to [0, saturation]
(seed eq. 1 with per-pixel offset, gain and variance; Huang et al. 2013; Hirsch et al. 2013 for the
EMCCD). ``gain`` is the total gain in ADU per photo-electron. Electron multiplication by Gamma(n, g)
with large g doubles the shot-noise variance; `Camera.excess_noise` is that factor
F^2 = 2 - 1/em_gain.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from sureloc.errors import CameraError, InputError
from sureloc.limits import check_limit

FloatMap = float | npt.NDArray[np.float64]
ByType = Literal["by type"]
BY_TYPE: Final = "by type"  # a largest value that nobody states: that of the movie's type
ROUNDING_VARIANCE_ADU2 = 1.0 / 12.0
_MAPS = ("offset_adu", "gain_adu_per_e", "variance_adu2")
PIXEL_NM = 1.0, 10_000.0  # camera pixels in the sample lie between
_PIXEL_SLACK = 0.02  # pixel sizes that differ by less are one


def check_pixel_nm(pixel_nm: float) -> None:
    """Raise `InputError` unless a camera's pixel can be so large in the sample, nm."""
    low, high = PIXEL_NM
    if low <= pixel_nm <= high:
        return
    meant = ""
    if low <= 1000 * pixel_nm <= high:
        meant = f" If {pixel_nm:g} is in micrometres, give {1000 * pixel_nm:g}."
    raise InputError(
        f"The pixel size is {pixel_nm} nm; it must lie between {low:g} and {high:g} nm (65 to 160 "
        f"is usual). It is the camera's pixel divided by the magnification.{meant}"
    )


def same_pixel_nm(one: float, other: float) -> bool:
    """Tell whether two pixel sizes, nm, differ by no more than people round them."""
    return abs(one / other - 1) <= _PIXEL_SLACK


def rounding_of(adu: npt.NDArray[Any]) -> float:
    """Give the variance that rounding to whole ADU added to frames, ADU^2: 0 of other numbers."""
    whole = adu.dtype.kind in "ui" or bool((adu == np.rint(adu)).all())
    return ROUNDING_VARIANCE_ADU2 if whole else 0.0


def largest_of_type(dtype: npt.DTypeLike) -> int | None:
    """Give the largest value that a type of whole numbers can hold, or None for any other type."""
    kind = np.dtype(dtype)
    return int(np.iinfo(kind).max) if kind.kind in "ui" else None


def _number_or_map(name: str, value: npt.ArrayLike) -> FloatMap:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim == 0:
        return float(array)
    if array.ndim != 2:
        raise CameraError(
            f"{name} has shape {array.shape}; give one number or a map of shape (rows, columns)."
        )
    return array


@dataclass(frozen=True)
class Camera:
    """A camera given by scalars or per-pixel maps of shape (rows, columns).

    Attributes:
        offset_adu: mean dark signal, ADU.
        gain_adu_per_e: total gain, ADU per photo-electron, larger than 0.
        variance_adu2: variance of the read noise, ADU^2, 0 or larger.
        quantum_efficiency: photo-electrons per photon, in (0, 1].
        em_gain: electron multiplication, 1 for a camera without it.
        saturation_adu: largest value that the camera can write, None for a camera without one, or
            `BY_TYPE` where nobody states it: the largest that the movie's type can hold.
        rounding_adu2: variance that rounding adds to every value, ADU^2 (`rounding_of` a movie); it
            belongs to the movie, and no camera file states it.

    Raises:
        CameraError: a value is NaN, infinite or out of range, or maps differ in shape.
    """

    offset_adu: FloatMap = 0.0
    gain_adu_per_e: FloatMap = 1.0
    variance_adu2: FloatMap = 0.0
    quantum_efficiency: float = 1.0
    em_gain: float = 1.0
    saturation_adu: int | ByType | None = BY_TYPE
    rounding_adu2: float = ROUNDING_VARIANCE_ADU2
    shape: tuple[int, int] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        shape: tuple[int, int] | None = None
        for name in _MAPS:
            value = _number_or_map(name, getattr(self, name))
            if isinstance(value, np.ndarray):
                rows, columns = value.shape
                if shape not in (None, (rows, columns)):
                    raise CameraError(
                        f"{name} has shape {value.shape} but another map of this camera has "
                        f"{shape}; all maps must cover the same pixels."
                    )
                shape = (rows, columns)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "shape", shape)
        self._check()

    def _check(self) -> None:
        for name, low, low_is_allowed in (
            ("offset_adu", -np.inf, False),
            ("gain_adu_per_e", 0.0, False),
            ("variance_adu2", 0.0, True),
        ):
            value = np.asarray(getattr(self, name))
            bad = ~np.isfinite(value) | (value < low if low_is_allowed else value <= low)
            if bad.any():
                sign = ">=" if low_is_allowed else ">"
                where = f" at pixel {tuple(map(int, np.argwhere(bad)[0]))}" if bad.ndim else ""
                raise CameraError(
                    f"{name} is {value[bad].flat[0]:g}{where} ({int(bad.sum())} such value(s)); it "
                    f"must be finite{'' if low == -np.inf else f' and {sign} {low:g}'}. Correct "
                    "the camera file, or give dead pixels a very large variance instead."
                )
        for name in ("quantum_efficiency", "em_gain", "saturation_adu"):
            number = getattr(self, name)
            if number is not None and number != BY_TYPE:
                check_limit(name, number, CameraError)

    @property
    def excess_noise(self) -> float:
        """F^2, the factor by which electron multiplication raises the shot-noise variance."""
        return 2.0 - 1.0 / self.em_gain

    def check_shape(self, shape: tuple[int, int]) -> None:
        """Raise `CameraError` unless this camera can describe frames of shape (rows, columns)."""
        if self.shape is not None and self.shape != shape:
            raise CameraError(
                f"The camera's maps have shape {self.shape} but the frames have {shape} "
                "(rows, columns). Crop the maps to the same region, or transpose them if the two "
                "are swapped."
            )

    def of_part(
        self, shape: tuple[int, int], full_shape: tuple[int, int], rows: slice, columns: slice
    ) -> Camera:
        """Give the camera of a part of the frame; maps that are cut to it already stay as they are.

        Args:
            shape, full_shape: rows and columns of the part and of the whole frame.
            rows, columns: where the part lies.

        Raises:
            CameraError: maps fit neither.
        """
        if self.shape == shape:
            return self
        self.check_shape(full_shape)
        return self.crop(rows, columns)

    def crop(self, rows: slice, columns: slice) -> Camera:
        """Give the camera of a region of the frame; scalars stay scalars."""

        def part(value: FloatMap) -> FloatMap:
            return value[rows, columns] if isinstance(value, np.ndarray) else value

        return replace(
            self,
            offset_adu=part(self.offset_adu),
            gain_adu_per_e=part(self.gain_adu_per_e),
            variance_adu2=part(self.variance_adu2),
        )

    def saturation_in(self, dtype: npt.DTypeLike) -> int | None:
        """Give the value from which on pixels are saturated in movies of a type, ADU.

        Args:
            dtype: of the movie's values.

        Returns:
            What the camera states; if it does not, the largest value of the type, which floats
            have not: None.
        """
        return largest_of_type(dtype) if self.saturation_adu == BY_TYPE else self.saturation_adu

    def fingerprint(self, dtype: npt.DTypeLike) -> str:
        """Give a hash that tells this camera from any other with movies of a type.

        Whether the camera states a saturation or the type of the movie does makes no difference.
        """
        digest = hashlib.sha256()
        for name in (*_MAPS, "quantum_efficiency", "em_gain", "saturation_adu", "shape"):
            value = getattr(self, name)
            if name == "saturation_adu":
                value = self.saturation_in(dtype)
            text = value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
            digest.update(name.encode() + text)
        return digest.hexdigest()

    def electrons(self, adu: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Turn ADU of shape (..., rows, columns) into photo-electrons, (x - offset) / gain."""
        return (np.asarray(adu, dtype=np.float64) - self.offset_adu) / self.gain_adu_per_e

    def adu(self, electrons: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Turn photo-electrons of shape (..., rows, columns) into unrounded ADU."""
        return np.asarray(electrons, dtype=np.float64) * self.gain_adu_per_e + self.offset_adu

    def read_variance_e2(self, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Give the read variance in electrons^2, rounding noise included, as a map.

        Args:
            shape: (rows, columns) of the frames.

        Returns:
            (variance + rounding) / gain^2, shape (rows, columns): rounding to whole ADU adds the
            variance 1/12 of a uniform error.

        Raises:
            CameraError: the camera's maps have another shape.
        """
        self.check_shape(shape)
        variance = np.asarray(self.variance_adu2) + self.rounding_adu2
        gain = np.asarray(self.gain_adu_per_e)
        return np.broadcast_to(variance / gain**2, shape).astype(np.float64)

    def photon_noise(self, shape: tuple[int, int]) -> tuple[float, float]:
        """Give the noise of a typical pixel in photons instead of electrons.

        Args:
            shape: (rows, columns) of the frames.

        Returns:
            The median variance without light, photons^2, and the variance that each photon of
            light adds, photons^2: F^2 / quantum_efficiency.

        Raises:
            CameraError: the camera's maps have another shape.
        """
        read_variance = float(np.median(self.read_variance_e2(shape)))
        efficiency = self.quantum_efficiency
        return read_variance / efficiency**2, self.excess_noise / efficiency
