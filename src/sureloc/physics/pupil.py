"""Point-spread functions of aberrated lenses, from the phase in the pupil (scalar theory).

The field in the image is the Fourier transform of the pupil, a disc of radius NA / wavelength in
spatial frequency; its squared modulus is the PSF (Goodman 2017, section 6). Aberrations are phases
over the disc, in Zernike terms of unit variance (Noll 1976), so that amplitudes are rms radians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sureloc.errors import InputError

Array = npt.NDArray[np.float64]

FINE = 4  # values a camera pixel along each axis, over which its light is summed


@dataclass(frozen=True)
class Pupil:
    """A lens and what is wrong with it.

    Attributes:
        cutoff: numerical aperture over wavelength times the camera's pixel, 1/px; below
            `FINE` / 4, so that the image shows no detail finer than it is computed.
        defocus, astigmatism, coma: rms phase, radians.
        side_px: side of the image that is computed, px, even.

    Raises:
        InputError: a value is out of range.
    """

    cutoff: float
    defocus: float = 0.0
    astigmatism: float = 0.0
    coma: float = 0.0
    side_px: int = 32

    def __post_init__(self) -> None:
        if not 1 / self.side_px < self.cutoff < FINE / 4:
            raise InputError(
                f"cutoff is {self.cutoff:g} per px; it must lie between {1 / self.side_px:g} and "
                f"{FINE / 4:g} (0.18 is usual: NA 1.2, 680 nm, pixels of 100 nm)."
            )
        if self.side_px % 2 or self.side_px < 8:
            raise InputError(f"side_px is {self.side_px}; it must be even and 8 or larger.")

    def images(self, x_px: Array, y_px: Array) -> Array:
        """Give the share of each emitter's light in the pixels round the image's middle.

        Args:
            x_px, y_px: offsets of the emitters from the centre of the middle pixel, which is
                (side_px // 2, side_px // 2), shape (emitters,); exact also between pixels.

        Returns:
            Shape (emitters, side_px, side_px), columns last; each sums to 1. Light that leaves one
            edge comes in at the other.
        """
        size = FINE * self.side_px
        frequency = np.fft.fftfreq(size, 1 / FINE)
        u, v = np.meshgrid(frequency, frequency)
        inside = np.hypot(u, v) <= self.cutoff
        u, v = u[inside], v[inside]
        phase = self._phase(u / self.cutoff, v / self.cutoff)
        # Fine pixels of the middle camera pixel lie evenly round its centre.
        middle = self.side_px // 2 + 0.5 - 0.5 / FINE
        out = np.empty((len(x_px), self.side_px, self.side_px))
        for k, (x, y) in enumerate(zip(x_px, y_px, strict=True)):
            tilt = -2 * math.pi * ((middle + x) * u + (middle + y) * v)
            field = np.zeros((size, size), complex)
            field[inside] = np.exp(1j * (phase + tilt))
            light = np.abs(np.fft.ifft2(field)) ** 2
            cells = light.reshape(self.side_px, FINE, self.side_px, FINE).sum((1, 3))
            out[k] = cells / cells.sum()
        return out

    def _phase(self, u: Array, v: Array) -> Array:
        """Give the phase over the unit disc, radians."""
        square = u**2 + v**2
        return np.asarray(
            self.defocus * math.sqrt(3) * (2 * square - 1)
            + self.astigmatism * math.sqrt(6) * (u**2 - v**2)
            + self.coma * math.sqrt(8) * (3 * square - 2) * u
        )
