"""Offset, read noise and gain of every pixel from a dark movie and flats (photon transfer).

Light that is steady in time makes a pixel's variance over time grow with its mean (Janesick 2007;
per pixel Huang et al. 2013, eq. 2 of their supplement),

    variance_k = F^2 gain (mean_k - offset) + read variance,

so that the dark movie (k = 0) gives offset and read variance, and every flat k one point of a line
through the dark one, whose slope over F^2 is the gain in ADU per photo-electron. Everything is
taken over time in one pixel: how evenly the field is lit does not matter.

The squared slope errors follow from the noise of a sample variance, 2 variance^2 / (n - 1), which
dominates; mean and variance of Poisson counts err together, so that of the mean's error only the
read noise counts. Weights use the variance that the line predicts, never the measured one: a pixel
whose variance came out small by chance must not count more for it.

Gains of pixels differ by a few percent, and some hundred frames measure each no better. So the
distribution of the true gains is estimated from all pixels (random effects; DerSimonian and Laird
1986), and each pixel's gain moves towards the mean by the share of its own measurement that is
noise (empirical Bayes). The stated error is that of the moved gain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sureloc.calibrate.moments import MovieMoments
from sureloc.camera import Camera
from sureloc.errors import CameraError, InputError
from sureloc.limits import check_limit

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

HOT_SDS = 5.0  # robust sds of the logarithm of the variance, from its lower half, above its median
OFFSET_SDS = 10.0  # robust sds of the offset from its median
DEAD_RESPONSE = 0.1  # of the median pixel's light: such a pixel does not see
DEAD_VARIANCE_ADU2 = 1e9  # so that a dead pixel counts for nothing
MOST_FULL = 1e-3  # share of frames in which a pixel may be saturated and still be used
MOST_LOST = 0.5  # share of saturated pixels from which on a flat is left out
LEAST_SHOT = 1.0  # shot-noise variance over read variance below which a flat is too dark
WARN_LAMP = 0.2  # share of a flat's noise that comes from the lamp
WARN_NONLINEAR = 0.03  # relative deviation of one flat's gain from that of all
_NORMAL_MAD, _LOWER = 1.4826, 15.865525393145708
_SIGNIFICANT = 4.0
_ROUNDS = 3
_AROUND_PX = 9
_OUTLIER_SDS = 6.0
_LEAST_DARK_SD_ADU = 0.5


@dataclass(frozen=True)
class Multiplication:
    """What is known of an EMCCD's electron multiplication.

    Attributes:
        em_gain: the real gain of the register, 1 for a camera without it.
        preamplifier_adu_per_e: ADU per electron that leaves the register, from which the
            multiplication follows; None if it is not known.
    """

    em_gain: float = 1.0
    preamplifier_adu_per_e: float | None = None

    def __post_init__(self) -> None:
        check_limit("em_gain", self.em_gain, CameraError)
        known = self.preamplifier_adu_per_e
        if known is not None:
            check_limit("preamplifier_adu_per_e", known, CameraError)
        if known is not None and self.em_gain > 1:
            raise CameraError(
                "Both em_gain and the preamplifier's gain are given, but each follows from the "
                "other. Give one of them."
            )

    def of_slope(self, slope: float) -> float:
        """Give the multiplication M of a photon-transfer slope.

        The slope is F^2 times the total gain, (2 - 1/M) M preamplifier.
        """
        if self.preamplifier_adu_per_e is None:
            return self.em_gain
        return max(0.5 * (slope / self.preamplifier_adu_per_e + 1.0), 1.0)


@dataclass(frozen=True)
class Flat:
    """What one flat movie says about the gain.

    Attributes:
        name: of the movie.
        frames: how many.
        level_e: median light, photo-electrons per pixel and frame.
        gain_adu_per_e: mean over pixels, from this flat and the dark movie alone.
        error: its standard error.
        lamp_rms: relative fluctuation of the light from frame to frame, already taken away.
        lamp_share: share of the median pixel's variance that it made.
        saturated: share of pixels left out because they reached the largest value.
        left_out: why the whole flat was not used; empty if it was.
    """

    name: str
    frames: int
    level_e: float
    gain_adu_per_e: float
    error: float
    lamp_rms: float
    lamp_share: float
    saturated: float
    left_out: str = ""


@dataclass(frozen=True)
class Calibration:
    """A camera measured pixel by pixel; every map has shape (rows, columns).

    Attributes:
        camera: ready for use: gains moved towards the mean, dead pixels with a huge variance.
        offset_error_adu: standard error of the offset.
        variance_error_adu2: standard error of the read variance.
        gain_error: standard error of the camera's gain map, ADU per electron.
        single_gain: gain from each pixel alone, not moved, ADU per electron.
        single_gain_error: its standard error.
        mean_gain, mean_gain_error: of all usable pixels, ADU per electron.
        gain_spread: standard deviation of the true gains between pixels.
        own_share: median weight of a pixel's own measurement in its gain, 0 to 1.
        hot: pixels of read noise or offset far above the others.
        dead: pixels that do not respond to light.
        hot_threshold_adu2: read variance from which on a pixel is hot.
        flats: the flats in the order given.
        curve: photon transfer of usable pixels in bins of their level: signal above the offset
            (ADU), variance above the read variance (ADU^2), its standard error, and the number of
            the flat, (bins, 4).
        notes: what a user should know, a sentence each.
    """

    camera: Camera
    offset_error_adu: Array
    variance_error_adu2: Array
    gain_error: Array
    single_gain: Array
    single_gain_error: Array
    mean_gain: float
    mean_gain_error: float
    gain_spread: float
    own_share: float
    hot: Mask
    dead: Mask
    hot_threshold_adu2: float
    flats: tuple[Flat, ...]
    curve: Array
    notes: tuple[str, ...]


def calibrate_camera(
    dark: MovieMoments,
    flats: Sequence[MovieMoments],
    multiplication: Multiplication | None = None,
    quantum_efficiency: float = 1.0,
) -> Calibration:
    """Calibrate a camera.

    Args:
        dark: a movie without any light.
        flats: movies of steady light, one for each level, evenly lit or not.
        multiplication: of an EMCCD; none by default.
        quantum_efficiency: photo-electrons per photon, which no movie tells.

    Raises:
        InputError: the movies differ in size, or dark and flat are exchanged.
        CameraError: no flat can be used, or the variance does not grow with light.
    """
    multiplication = multiplication or Multiplication()
    _check_sizes(dark, flats)
    for flat in flats:
        _check_order(dark, flat)
    variance = np.maximum(dark.variance_adu2 - dark.rounding_adu2, 0.0)
    hot, threshold = _hot(dark, variance)
    dead = _dead(dark, flats)
    good = ~(hot | dead)
    if not good.any():
        raise CameraError(
            "Every pixel is hot or does not respond to light. Check that the first movie is dark "
            "and the others are not."
        )
    points = [_Point.of(dark, flat, good) for flat in flats]
    used = [point for point in points if not point.left_out]
    if not used:
        reasons = "; ".join(f"{p.flat.name} {p.left_out}" for p in points)
        raise CameraError(f"No flat can be used: {reasons}.")
    slope, error, level = _slopes(dark, used, good, multiplication)
    em_gain = multiplication.of_slope(level)
    excess = 2.0 - 1.0 / em_gain
    single, single_error = slope / excess, error / excess
    mean, mean_error, spread = _population(single[good], single_error[good])
    mean_error = math.hypot(mean_error, _lamp_error(used, good) * mean)
    finite = np.isfinite(single) & good
    known = np.where(finite, single_error, 0.0)
    share = np.where(finite, spread**2 / np.maximum(spread**2 + known**2, 1e-300), 0.0)
    gain = mean + share * np.where(finite, single - mean, 0.0)
    gain_error = np.hypot(np.sqrt(share) * known, (1 - share) * mean_error)
    gain_error = np.where(finite, gain_error, math.hypot(spread, mean_error))
    if (gain <= 0).any():
        gain = np.where(gain > 0, gain, mean)
    camera = Camera(
        dark.mean_adu,
        gain,
        np.where(dead, DEAD_VARIANCE_ADU2, variance),
        quantum_efficiency,
        em_gain,
        _saturation(dark, flats),
    )
    reports = tuple(point.report(good, excess, mean) for point in points)
    own_share = float(np.median(share[good]))
    return Calibration(
        camera,
        np.sqrt(dark.variance_adu2 / dark.frames),
        _variance_error(dark),
        gain_error,
        single,
        single_error,
        mean,
        mean_error,
        spread,
        own_share,
        hot,
        dead,
        threshold,
        reports,
        _curve(used, points, good),
        tuple(_notes(dark, reports, hot, dead, own_share, spread, mean, em_gain, multiplication)),
    )


def _check_sizes(dark: MovieMoments, flats: Sequence[MovieMoments]) -> None:
    if not flats:
        raise InputError("No flat was given; one or more movies of steady light are needed.")
    for flat in flats:
        if flat.mean_adu.shape != dark.mean_adu.shape:
            raise InputError(
                f"{flat.name} has frames of {flat.mean_adu.shape} (rows, columns) but {dark.name} "
                f"has {dark.mean_adu.shape}; all must be recorded with the same region of the "
                "camera and the same binning."
            )


def _check_order(dark: MovieMoments, flat: MovieMoments) -> None:
    """Notice a dark movie among the flats: less light and less noise than the 'dark' one."""
    darker = float(np.median(flat.mean_adu - dark.mean_adu))
    calmer = float(np.median(flat.variance_adu2)) < 0.8 * float(np.median(dark.variance_adu2))
    noise = math.sqrt(float(np.median(dark.variance_adu2)) / dark.frames)
    if darker < -_SIGNIFICANT * noise and calmer:
        raise InputError(
            f"{flat.name} is darker by {-darker:.4g} ADU and less noisy than {dark.name}, which "
            "was given as the dark movie. The dark movie comes first, then the flats; exchange "
            "the two."
        )


def _robust(values: Array) -> tuple[float, float]:
    middle = float(np.median(values))
    return middle, _NORMAL_MAD * float(np.median(np.abs(values - middle)))


def _hot(dark: MovieMoments, variance: Array) -> tuple[Mask, float]:
    """Find pixels whose read noise or offset is far above the others'.

    Read variances of good sCMOS pixels are about log-normal with a long tail above, so the width is
    taken from the half below the median.
    """
    positive = variance[variance > 0]
    if positive.size < 2:
        raise CameraError(
            f"{dark.name} holds no noise: its pixels do not change. Give raw frames of the camera "
            "with the shutter closed."
        )
    logs = np.log(positive)
    middle = float(np.median(logs))
    width = middle - float(np.percentile(logs, _LOWER))
    # The sampling error alone, where pixels are all alike.
    width = max(width, math.sqrt(2.0 / (dark.frames - 1)))
    threshold = math.exp(middle + HOT_SDS * width)
    offset, scatter = _robust(dark.mean_adu)
    scatter = max(scatter, math.sqrt(float(np.median(dark.variance_adu2)) / dark.frames))
    far = np.abs(dark.mean_adu - offset) > OFFSET_SDS * scatter
    return (variance > threshold) | far | (dark.full_share > MOST_FULL), threshold


def _dead(dark: MovieMoments, flats: Sequence[MovieMoments]) -> Mask:
    """Find pixels that see a tenth of what the median pixel sees, or less, or never change."""
    light = np.stack([flat.mean_adu - dark.mean_adu for flat in flats])
    usual = np.median(light, axis=(1, 2), keepdims=True)
    blind = (light < DEAD_RESPONSE * usual).all(axis=0)
    still = np.all([flat.variance_adu2 == 0 for flat in flats], axis=0)
    return np.asarray(blind | (still & (dark.variance_adu2 == 0)))


@dataclass(frozen=True)
class _Point:
    """One flat above the dark movie: x and y of the line, and what they are worth."""

    dark: MovieMoments
    flat: MovieMoments
    x: Array
    y: Array
    lamp: float
    lamp_error: float
    usable: Mask
    left_out: str

    @classmethod
    def of(cls, dark: MovieMoments, flat: MovieMoments, good: Mask) -> _Point:
        x = flat.mean_adu - dark.mean_adu
        y = flat.variance_adu2 - dark.variance_adu2
        usable = flat.full_share <= MOST_FULL
        reason = _why_not(dark, flat, good, usable)
        light = float(x.mean())
        scale = light**2 if light > 0 else math.inf
        lamp = (flat.common_variance_adu2 - dark.common_variance_adu2) / scale
        error = math.hypot(flat.common_error_adu2, dark.common_error_adu2) / scale
        return cls(dark, flat, x, y - lamp * x**2, lamp, error, usable, reason)

    def variance_of_y(self, slope: float, excess_noise: bool) -> Array:
        """Give the sampling variance of y - slope x that is this flat's own.

        That of a sample variance, 2 variance^2 / (n - 1), and the mean's by its read noise; under
        electron multiplication the counts' third and fourth cumulants leave 4 g^2 shot / n.
        """
        n = self.flat.frames
        shot = slope * np.maximum(self.x, 0.0)
        read = self.dark.variance_adu2
        extra = 4 * (0.5 * slope) ** 2 * shot if excess_noise else 0.0
        return np.asarray(2 * (shot + read) ** 2 / (n - 1) + (slope**2 * read + extra) / n)

    def report(self, good: Mask, excess: float, mean_gain: float) -> Flat:
        """Say what this flat says alone."""
        flat, use = self.flat, good & self.usable & (self.x > 0)
        level = float(np.median(self.x[good])) / mean_gain
        gain = error = math.nan
        if use.any() and not self.left_out:
            slope = excess * mean_gain
            x, y = self.x[use], self.y[use]
            weight = 1.0 / self.variance_of_y(slope, excess > 1)[use]
            base = _dark_variance_of_y(self.dark, slope)[use]
            gain = float((weight * x * y).sum() / (weight * x**2).sum()) / excess
            influence = weight * x / (weight * x**2).sum()
            error = math.sqrt(float((influence**2 * (1 / weight + base)).sum())) / excess
            error = math.hypot(error, self.lamp_error * float((influence * x**2).sum()) / excess)
        noise = float(np.median(flat.variance_adu2[good]))
        share = self.lamp * float(np.median(self.x[good])) ** 2 / noise if noise > 0 else 0.0
        return Flat(
            flat.name,
            flat.frames,
            level,
            gain,
            error,
            math.sqrt(max(self.lamp, 0.0)),
            max(share, 0.0),
            float((~self.usable).mean()),
            self.left_out,
        )


def _why_not(dark: MovieMoments, flat: MovieMoments, good: Mask, usable: Mask) -> str:
    lost = float((~usable)[good].mean())
    if lost > MOST_LOST:
        return (
            f"is saturated ({100 * lost:.0f} % of its pixels reach {flat.saturation_adu} ADU; "
            "record with less light)"
        )
    noise = float(np.median(flat.variance_adu2[good]))
    if noise == 0:
        return "holds no noise (its frames are all alike; give raw frames)"
    shot = noise - float(np.median(dark.variance_adu2[good]))
    light = float(np.median((flat.mean_adu - dark.mean_adu)[good]))
    if light <= 0 or shot < LEAST_SHOT * float(np.median(dark.variance_adu2[good])):
        return (
            f"is too dark ({light:.3g} ADU above the dark movie, where read noise still rules; "
            "record with more light)"
        )
    return ""


def _dark_variance_of_y(dark: MovieMoments, slope: float) -> Array:
    """Give the sampling variance of y - slope x that comes from the dark movie, for all flats."""
    read = dark.variance_adu2
    return np.asarray(_variance_error(dark) ** 2 + slope**2 * read / dark.frames)


def _variance_error(dark: MovieMoments) -> Array:
    """Give the standard error of the dark's sample variance, with heavy tails where pixels have."""
    tail = np.maximum(dark.excess_kurtosis, 0.0)
    n = dark.frames
    return np.asarray(dark.variance_adu2 * np.sqrt(2.0 / (n - 1) + tail / n))


def _slopes(
    dark: MovieMoments, points: Sequence[_Point], good: Mask, multiplication: Multiplication
) -> tuple[Array, Array, float]:
    """Give every pixel's slope, its standard error (NaN, infinite if unknown), and the mean one."""
    x = np.stack([point.x for point in points])
    y = np.stack([point.y for point in points])
    use = np.stack([point.usable for point in points]) & (x > 0)
    sound = use & good
    level = float(y[sound].sum() / max(x[sound].sum(), 1e-300))
    multiplied = multiplication.em_gain > 1 or multiplication.preamplifier_adu_per_e is not None
    slope = error = np.zeros(good.shape)
    for _ in range(_ROUNDS):
        if not level > 0:
            raise CameraError(
                "The variance does not grow with the light, so that no gain can be measured. Are "
                "the flats raw frames of steady light, neither averaged nor corrected?"
            )
        own = np.stack([point.variance_of_y(level, multiplied) for point in points])
        # A pixel that never changes has no noise, and gets no slope.
        weight = np.divide(1.0, own, out=np.zeros_like(own), where=use & (own > 0))
        total = (weight * x * x).sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (weight * x * y).sum(0) / total
            influence = weight * x / total
            shared = influence.sum(0)
            error = np.sqrt(
                (influence**2 * own).sum(0) + shared**2 * _dark_variance_of_y(dark, level)
            )
        error = np.where(np.isfinite(slope), error, np.inf)
        known = good & np.isfinite(slope)
        level = _population(slope[known], error[known])[0]
    return slope, error, level


def _population(values: Array, errors: Array) -> tuple[float, float, float]:
    """Give mean, its standard error and the true spread of values with known errors."""
    if values.size == 0:
        return math.nan, math.nan, 0.0
    middle, scatter = _robust(values)
    near = np.abs(values - middle) <= _OUTLIER_SDS * np.maximum(scatter, errors)
    values, errors = values[near], errors[near]
    weight = errors**-2.0
    mean = float(np.average(values, weights=weight))
    excess = float((weight * (values - mean) ** 2).sum()) - (values.size - 1)
    scale = float(weight.sum() - (weight**2).sum() / weight.sum())
    spread2 = max(excess / scale, 0.0) if scale > 0 else 0.0
    weight = 1.0 / (errors**2 + spread2)
    mean = float(np.average(values, weights=weight))
    return mean, math.sqrt(1.0 / float(weight.sum())), math.sqrt(spread2)


def _lamp_error(points: Sequence[_Point], good: Mask) -> float:
    """Give the relative error of all gains together that the lamp's correction leaves."""
    parts = []
    for point in points:
        light, shot = float(np.median(point.x[good])), float(np.median(point.y[good]))
        parts.append(point.lamp_error * light**2 / shot if shot > 0 else 0.0)
    return math.sqrt(sum(part**2 for part in parts)) / len(parts)


def _saturation(dark: MovieMoments, flats: Sequence[MovieMoments]) -> int | None:
    tops = [m.saturation_adu for m in (dark, *flats) if m.saturation_adu is not None]
    return min(tops, default=None)


def _curve(used: Sequence[_Point], points: Sequence[_Point], good: Mask) -> Array:
    """Bin the pixels of each flat by the light around them, five bins of equally many.

    Not by a pixel's own signal: pixels of large gain show more of it, and would gather in one bin.
    """
    rows = []
    for point in used:
        use = np.flatnonzero((good & point.usable & (point.x > 0)).ravel())
        number = next(k for k, other in enumerate(points) if other is point)
        light = ndimage.median_filter(point.x, _AROUND_PX).ravel()
        for part in np.array_split(use[np.argsort(light[use])], 5):
            if part.size < 2:
                continue
            y = point.y.ravel()[part]
            spread = float(y.std(ddof=1)) / math.sqrt(part.size)
            rows.append((float(point.x.ravel()[part].mean()), float(y.mean()), spread, number))
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def _notes(
    dark: MovieMoments,
    flats: Sequence[Flat],
    hot: Mask,
    dead: Mask,
    own_share: float,
    spread: float,
    mean: float,
    em_gain: float,
    multiplication: Multiplication,
) -> list[str]:
    notes = [f"{flat.name} was left out: it {flat.left_out}." for flat in flats if flat.left_out]
    notes += [
        f"{100 * flat.saturated:.2g} % of the pixels of {flat.name} reach the largest value and "
        "were left out."
        for flat in flats
        if flat.saturated > 0 and not flat.left_out
    ]
    if own_share < 0.9:
        frames = sum(flat.frames for flat in flats if not flat.left_out)
        notes.append(
            f"{frames:,} flat frames measure a single pixel's gain less well than pixels differ "
            f"({100 * spread / mean:.2g} %): each gain was moved towards the mean, and keeps "
            f"{100 * own_share:.0f} % of its own measurement. More frames would keep more."
        )
    notes += [
        f"{100 * flat.lamp_share:.0f} % of the noise in {flat.name} is its lamp's, which flickers "
        f"or drifts by {100 * flat.lamp_rms:.2g} %. It was taken away, as far as it is the same "
        "for all pixels; a steadier lamp is better."
        for flat in flats
        if flat.lamp_share > WARN_LAMP and not flat.left_out
    ]
    notes += [
        f"{flat.name} alone gives a gain of {flat.gain_adu_per_e:.4g} ± {flat.error:.2g} ADU per "
        f"electron, {100 * (flat.gain_adu_per_e / mean - 1):+.1f} % off that of all: camera or "
        "light are not linear there."
        for flat in flats
        if not flat.left_out
        and abs(flat.gain_adu_per_e / mean - 1) > WARN_NONLINEAR
        and abs(flat.gain_adu_per_e - mean) > _SIGNIFICANT * flat.error
    ]
    if sum(not flat.left_out for flat in flats) == 1:
        notes.append(
            "One flat measures the gain but cannot show whether the camera is linear; two or more "
            "levels can."
        )
    if multiplication.preamplifier_adu_per_e is not None:
        notes.append(f"The electron multiplication follows from the preamplifier: {em_gain:.4g}.")
    if dark.whole and float(np.median(dark.variance_adu2)) < _LEAST_DARK_SD_ADU**2:
        notes.append(
            "The dark movie's noise is below half an ADU, where rounding hides much of it: read "
            "variances are rough."
        )
    wander = math.sqrt(max(dark.common_variance_adu2, 0.0))
    if wander**2 > WARN_LAMP * float(np.median(dark.variance_adu2)):
        notes.append(
            f"The dark level of all pixels wanders together by {wander:.2g} ADU. Let the camera "
            "warm up, and record the dark movie just before or after the flats."
        )
    if dead.any():
        notes.append(
            f"{int(dead.sum()):,} pixel(s) do not respond to light; their variance is set so large "
            "that they count for nothing."
        )
    if hot.mean() > 0.05:
        notes.append(f"{100 * hot.mean():.1f} % of the pixels are hot, which is unusually many.")
    return notes
