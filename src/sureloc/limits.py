"""Between which limits the numbers lie that users give, told without loading any library.

Commands ask while they read their options, workflows before they begin; both say the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sureloc.errors import InputError, decimal_point


@dataclass(frozen=True)
class Limit:
    """Limits of one number.

    Attributes:
        what: it is, at the beginning of a sentence.
        low, high: smallest and largest value.
        above: whether it must be larger than `low`.
        unit: behind numbers.
        remark: end of the sentence: what is usual, or what else can be given.
    """

    what: str
    low: float
    high: float = math.inf
    above: bool = False
    unit: str = ""
    remark: str = ""

    @property
    def words(self) -> str:
        """What the number must be."""
        if self.high == math.inf:
            low = f"{self.low:g}{self.unit}"
            return f"be larger than {low}" if self.above else f"be {low} or larger"
        if self.above:
            return f"lie in ({self.low:g}, {self.high:g}]{self.unit}"
        return f"lie between {self.low:g} and {self.high:g}{self.unit}"

    def holds(self, value: float) -> bool:
        """Tell whether a number is finite and within the limits."""
        high_enough = value > self.low if self.above else value >= self.low
        return high_enough and value <= self.high and math.isfinite(value)


FEWEST_SEGMENTS = 5  # with fewer, shifts by chance can seem to agree
_LEARNED = ", or be left out, to be learned from the movie"
LIMITS = {
    # localize, audit and demo
    "sigma_px": Limit(
        *("The PSF width", 0.3, 10.0, False, " px"),
        remark=" (0.8 to 1.8 is usual), or be left to 'auto'",
    ),
    "density_per_um2": Limit("The density", 1e-6, 1000.0, remark=_LEARNED),
    "mean_photons": Limit("The mean number of photons", 1.0, 1e7, remark=_LEARNED),
    "background_photons": Limit("The background", 0.0, 1e6, remark=_LEARNED),
    "draws": Limit("draws", 2, remark=" for an uncertainty; 16 is usual"),
    "rounds": Limit("rounds", 1, 10, remark="; 4 is usual, 5 more precise and slower in crowds"),
    "min_probability": Limit(
        *("The least probability to exist (--min-probability)", 0.0, 1.0, True),
        remark="; 0.5 is usual",
    ),
    "workers": Limit("workers", 1),
    # cameras
    "em_gain": Limit("em_gain", 1.0, remark="; 1 is no multiplication"),
    "preamplifier_adu_per_e": Limit("preamplifier", 0.0, above=True, unit=" ADU per electron"),
    "quantum_efficiency": Limit("quantum_efficiency", 0.0, 1.0, above=True),
    "saturation_adu": Limit("saturation_adu", 1, unit=" ADU"),
    "exposure_ms": Limit("exposure_ms", 0.0, above=True, unit=" ms"),
    # tables; what cameras allow of pixels is in `sureloc.camera`
    "pixel_nm": Limit("pixel_nm", 0.0, above=True, unit=" nm"),
    "read_variance_photons2": Limit("read_variance_photons2", 0.0, unit=" photons^2"),
    "variance_per_photon": Limit("variance_per_photon", 0.0, above=True, unit=" photons"),
    "segments": Limit("segments", FEWEST_SEGMENTS, 200, remark=", or be left out, to be chosen"),
    "gap": Limit("gap", 0, unit=" frames"),
    "radius_nm": Limit("radius_nm", 0.0, above=True, unit=" nm", remark=", or be left to 'auto'"),
    "uncertainty_nm": Limit("uncertainty_nm", 0.0, above=True, unit=" nm"),
    "psf_sigma_nm": Limit("psf_sigma_nm", 0.0, above=True, unit=" nm"),
    "width_px": Limit("width_px", 0, above=True, unit=" px"),
    "height_px": Limit("height_px", 0, above=True, unit=" px"),
    "frames": Limit("The number of frames", 0, above=True),
    # images and resolution
    "zoom": Limit("zoom", 0.0, above=True, remark="; 10 is usual"),
    "image_pixel_nm": Limit("The image's pixel size", 0.0, above=True, unit=" nm"),
    "splits": Limit("splits", 1),
    "blocks": Limit("blocks", 2),
    "resamples": Limit("resamples", 10),
    # training
    "minutes": Limit("minutes", 0.0, above=True, remark="; 20 is usual"),
    "devices": Limit("devices", 1),
}


def check_limit(name: str, value: float, error: type[InputError] = InputError) -> None:
    """Raise an error unless a number is within its limits.

    Args:
        name: of `LIMITS`.
        value: what was given.
        error: what to raise.

    Raises:
        InputError: it is outside, or not finite.
    """
    limit = LIMITS[name]
    if limit.holds(value):
        return
    meant = ""
    if (limit.low, limit.high) == (0.0, 1.0) and 2.0 <= value <= 100.0:
        meant = f" Did you mean {value / 100:g}?"
    raise error(f"{limit.what} is {value}{limit.unit}; it must {limit.words}{limit.remark}.{meant}")


def number_or_auto(name: str, text: str) -> float | None:
    """Give the number that a text holds, within its limits, or None for 'auto'.

    Raises:
        InputError: it is neither, or outside.
    """
    if text == "auto":
        return None
    try:
        value = float(text)
    except ValueError as error:
        limit = LIMITS[name]
        raise InputError(
            f"{limit.what} is {text!r}{decimal_point(text)}; give 'auto', or a number, which must "
            f"{limit.words}."
        ) from error
    check_limit(name, value)
    return value
