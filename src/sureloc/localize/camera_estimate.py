"""A camera's offset, gain and read noise from the movie itself, with what cannot be known said.

The variance of a pixel is linear in its mean (Janesick 2007, the photon transfer curve),

    variance = F^2 gain (mean - offset) + read variance,

so a movie with bright and dark places gives the slope and the level at which the variance would
vanish, offset - read variance / (F^2 gain). It cannot give offset and read variance apart: more
background with less read noise looks the same in mean and variance. The shifted-Poisson likelihood
depends on the very same combination (e + v = (x - that level) / gain), so positions, photons and
intervals do not need the missing number; the reported background does. It is filled in by a read
noise that is usual for scientific cameras, with an error as large as itself, and less where the
darkest place of the movie leaves no room for it. Electron multiplication cannot be seen either:
without being told, gain comes out F^2 too large and photons F^2 too small, again without effect on
positions and intervals.

Spots that are fitted as one and are two leave a misfit that grows with the square of their light,
and would be taken for a larger gain where molecules are bright and stand near to each other. So the
square of the spots' light is a third term of the line.

Molecules come and go and have edges, so neither the scatter over time nor that over space is noise
alone. The noise is therefore read from fourth differences (`sureloc.localize.noise_levels`) of the
residual after spots and background were fitted (`sureloc.localize.detect`) with a first, rough
camera. The fitted image is the abscissa: the measured level has noise of its own, which flattens
the line.

Fourth differences see less than the whole noise where that of neighbouring pixels goes together, as
it does after the fast readout of EMCCDs or after resampling. Pixels a few apart show how much less;
the gain is then raised to the noise of single pixels, and it is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from jaxtyping import Num
from scipy import ndimage, stats

from sureloc.camera import BY_TYPE, ByType, Camera, largest_of_type, rounding_of
from sureloc.errors import CameraError, InputError
from sureloc.localize.detect import detect_spots
from sureloc.localize.noise_levels import (
    FOURTH_DIFFERENCE,
    OUTLIER,
    REACH_PX,
    NoiseLevels,
    along_both,
    noise_levels,
)
from sureloc.localize.psf_estimate import estimate_psf
from sureloc.localize.verdict import WRONG, Doubt
from sureloc.seeds import numpy_generator

FloatArray = npt.NDArray[np.float64]

USUAL_READ_VARIANCE_E2 = 2.5
_TILE_PX = 16
_RESAMPLES = 200
_ROUNDS = 5
_HOT_TAIL = 1e-4
# Relative error of the gain that no bootstrap shows: structure in the background, and molecules
# out of focus. Simulations leave room for 0.04; a real movie of a measured camera is off by 0.03 to
# 0.25.
_MODEL_ERROR = 0.1
_LEAST_APART = 1e-6  # share of the misfit's variance that the level does not explain, to be told
_LARGEST_ERROR = 0.5
_CAMERA_ROUNDS = 2
_FRAMES_AT_ONCE = 20
_USUAL_SIGMA_PX = 1.2
_APART_PX = 4  # pixels so far apart share no noise, and nearly the same misfit of the background
_FLAT = 0.5  # noise sd by which the fitted image may change around a pixel that counts as flat
_LEAST_FLAT = 10_000  # such pixels, for an error of some 3 %
_LEAST_EXCESS = 1.15  # of a pixel's variance over what white noise would have; less is left
_HOT_VARIANCE_E2 = 1e6
_MOST_BACKGROUND_E = 2000.0
_DARK_PERCENTILE = 1.0
_OFFSET_SLACK_E, _OFFSET_SLACK = 0.7, 0.1  # electrons, share of the level: smaller shifts are left
_MUCH_LOST = 0.1  # share of saturated pixels that is worth saying
_WRONG_GAIN = 1.5  # times, or part


@dataclass(frozen=True)
class CameraEstimate:
    """A camera estimated from a movie, with standard errors.

    Attributes:
        camera: the camera, of scalars.
        gain_error: standard error of the gain, ADU per electron.
        offset_error_adu: standard error of the offset, read noise unknown, ADU.
        read_noise_e: assumed read noise, electrons rms.
        read_noise_error_e: its standard error, electrons.
        dark_level_adu: level at which the variance would vanish, offset - variance / gain, which
            is all that the likelihood needs, ADU.
        dark_level_error_adu: its standard error, ADU.
        frames: number of frames used.
        correlated_excess: variance of a pixel over what it would be were all noise white; 1 where
            the two agree.
    """

    camera: Camera
    gain_error: float
    offset_error_adu: float
    read_noise_e: float
    read_noise_error_e: float
    dark_level_adu: float
    dark_level_error_adu: float
    frames: int
    correlated_excess: float = 1.0

    @property
    def relative_gain_error(self) -> float:
        """Standard error of the gain over the gain: photons are off by as much."""
        return self.gain_error / float(self.camera.gain_adu_per_e)

    @property
    def sentence(self) -> str:
        """Say it to people."""
        together = (
            " Neighbouring pixels' noise goes together, as after the readout of an EMCCD or after "
            f"resampling: the variance is {self.correlated_excess:.2f} times what differences of "
            "neighbours show, and the gain was raised by as much."
            if self.correlated_excess > 1
            else ""
        )
        told = (
            f" (electron multiplication {self.camera.em_gain:g} as given)"
            if self.camera.em_gain > 1
            else ""
        )
        # Floats may lie between 0 and 1.
        digits = ".1f" if self.offset_error_adu >= 0.01 else ".4g"
        offset = f"{float(self.camera.offset_adu):{digits}} ± {self.offset_error_adu:.2g}"
        return (
            f"Camera estimated from {self.frames} frames of the movie{told}: gain "
            f"{float(self.camera.gain_adu_per_e):.3g} ± {self.gain_error:.2g} ADU per electron, "
            f"offset {offset} ADU, read "
            f"noise {self.read_noise_e:.2g} ± {self.read_noise_error_e:.2g} electrons (assumed: a "
            "movie cannot tell read noise from background; positions do not depend on it). Give "
            f"the camera's calibration for photons and background that are right.{together}"
        )


def estimate_camera(
    adu: Num[np.ndarray, "frames height width"],
    rng: np.random.Generator,
    em_gain: float = 1.0,
    saturation_adu: int | ByType | None = BY_TYPE,
) -> CameraEstimate:
    """Estimate a camera from frames of a movie.

    Args:
        adu: frames as the camera wrote them, best 5 to 200 spread over the movie.
        rng: source of randomness for the bootstrap over tiles.
        em_gain: electron multiplication, if the camera has it.
        saturation_adu: largest value that the camera can write; such pixels are left out. None if
            it has none; that of the frames' type without it.

    Raises:
        CameraError: the frames hold too little contrast or too few pixels to measure the gain.
    """
    if saturation_adu == BY_TYPE:
        saturation_adu = largest_of_type(adu.dtype)
    rounding = rounding_of(np.asarray(adu))
    frames = np.asarray(adu, dtype=np.float64)
    _check_frames(frames)
    saturated = _near_saturation(frames, saturation_adu)
    levels = along_both(frames, FOURTH_DIFFERENCE**2)
    squares = np.where(saturated, np.nan, along_both(frames, FOURTH_DIFFERENCE) ** 2)
    mask, coefficients = _usable(levels, squares)
    for _ in range(_CAMERA_ROUNDS):
        fitted, spots = _fitted_image(
            frames, np.logical_not(mask.any(axis=0)), _line_of(coefficients, levels)
        )
        abscissa = along_both(fitted, FOURTH_DIFFERENCE**2)
        squares = along_both(frames - fitted, FOURTH_DIFFERENCE) ** 2
        squares[saturated] = np.nan
        mask, coefficients = _usable(abscissa, squares)
    misfit = along_both(spots**2, FOURTH_DIFFERENCE**2)
    sums = _tile_sums(abscissa, levels, misfit, squares, mask, coefficients)
    slope, dark_level = _line(sums.sum(axis=0))
    again = rng.integers(0, len(sums), (_RESAMPLES, len(sums)))
    draws = np.array([_line(sums[chosen].sum(axis=0)) for chosen in again])
    slope_error = math.hypot(_robust_sd(draws[:, 0]), _MODEL_ERROR * slope)
    # A slope that is off turns the line about its middle, and its zero moves.
    height = sums[:, 0, 1].sum() / sums[:, 0, 0].sum() - dark_level
    dark_error = math.hypot(_robust_sd(draws[:, 1]), _MODEL_ERROR * height)
    if not (math.isfinite(slope) and math.isfinite(slope_error)):
        raise CameraError(_no_slope(len(adu), float(saturated.mean()), saturation_adu))
    if not (slope > 0 and slope_error < _LARGEST_ERROR * slope):
        raise CameraError(
            f"The gain cannot be measured from these {len(adu)} frames (slope of variance over "
            f"mean {slope:.3g} ± {slope_error:.2g} ADU; a gain is larger than 0 and the error must "
            "be below half of it): they hold too little contrast. Give the camera with --camera, "
            "or more frames."
        )
    together = _correlated_excess(frames, fitted, slope * (fitted - dark_level), mask)
    slope, slope_error = together * slope, together * slope_error
    excess = 2.0 - 1.0 / em_gain
    gain = slope / excess
    room_e2 = excess * max(_darkest(levels) - dark_level, 0.0) / slope
    read_e2 = excess * min(USUAL_READ_VARIANCE_E2, 0.5 * room_e2)
    if em_gain > 1:
        read_e2 = 0.0  # multiplication lifts the signal above the read noise
    offset = dark_level + read_e2 * gain / excess
    read_noise = math.sqrt(read_e2)
    variance_adu2 = max(read_e2 * gain**2 - rounding, 0.0)
    return CameraEstimate(
        Camera(
            offset,
            gain,
            variance_adu2,
            em_gain=em_gain,
            saturation_adu=saturation_adu,
            rounding_adu2=rounding,
        ),
        slope_error / excess,
        math.hypot(dark_error, read_e2 * gain / excess),
        read_noise,
        0.5 * read_noise,
        dark_level,
        dark_error,
        len(adu),
        together,
    )


def _no_slope(frames: int, lost: float, saturation_adu: int | None) -> str:
    """Say why no line can be laid through variance over mean.

    Args:
        frames: how many.
        lost: share of the pixels that are saturated or lie beside such.
        saturation_adu: the camera's largest value.
    """
    why = "no places in them are brighter than others"
    if lost > _MUCH_LOST:
        why = (
            f"{100 * lost:.0f} % of their pixels are saturated or lie beside such pixels (the "
            f"largest value is {saturation_adu} ADU), and no places of the rest are brighter than "
            "others"
        )
    return (
        f"The gain cannot be measured from these {frames} frames: {why}. Give the camera with "
        "--camera, or frames of less light and more contrast."
    )


@dataclass(frozen=True)
class OffsetShift:
    """By how much a camera's stated offset misses the movie, as the noise shows it.

    Attributes:
        shift_e: electrons to subtract from every pixel so that the variance of the dark fits the
            stated gain and read noise; negative values are to be added.
        error_e: standard error.
    """

    shift_e: float
    error_e: float

    @property
    def sentence(self) -> str:
        """Say it to people."""
        return (
            f"By its noise, the movie's level lies {abs(self.shift_e):.1f} ± {self.error_e:.2g} "
            f"electrons {'above' if self.shift_e > 0 else 'below'} what the camera file's offset "
            "says."
        )


def _offset_shift(
    frames: FloatArray,
    fitted: FloatArray,
    variance: FloatArray,
    rng: np.random.Generator,
    excess_noise: float,
) -> OffsetShift:
    """Give the offset shift that makes a movie's noise and its camera agree.

    Where the camera file is right, the shift is zero within its error; its gain is taken as given.
    Acquisition programs that add or subtract a baseline, and calibrations of another day, are off
    by some electrons; then every expected variance in the dark is wrong by as much.
    """
    squares = along_both(frames - fitted, FOURTH_DIFFERENCE) ** 2
    predicted = along_both(excess_noise * fitted + variance, FOURTH_DIFFERENCE**2)
    typical = float(np.median(predicted))
    weight = np.where(
        squares < OUTLIER * predicted, np.maximum(predicted, 0.2 * typical) ** -2.0, 0.0
    )
    terms = np.stack([weight, weight * (predicted - squares) / excess_noise])
    sums = np.array([tile.sum(axis=(2, 3)) for tile in _tiles(terms)])  # (tiles, 2, frames)
    sums = sums.transpose(0, 2, 1).reshape(-1, 2)
    again = rng.integers(0, len(sums), (_RESAMPLES, len(sums)))
    draws = np.array([_ratio(sums[chosen]) for chosen in again])
    return OffsetShift(_ratio(sums), _robust_sd(draws))


@dataclass(frozen=True)
class CheckedCamera:
    """What a movie says of a camera that was given.

    Attributes:
        shift: of its offset.
        contradicted: whether the shift is sure, and large enough to be corrected.
        trusted: the user wants the offset kept all the same.
        noise: of the movie, beside that of the camera as it is used.
        wrong_gain: what to say where the movie contradicts the file's gain; empty elsewhere.
    """

    shift: OffsetShift
    contradicted: bool
    trusted: bool
    noise: NoiseLevels
    wrong_gain: str = ""

    @property
    def moved(self) -> bool:
        """Whether the offset is corrected."""
        return self.contradicted and not self.trusted

    def corrected(self, camera: Camera) -> Camera:
        """Give the camera, or the whole of which it is a part, with its offset moved."""
        shift_adu = self.shift.shift_e * camera.gain_adu_per_e
        return replace(camera, offset_adu=camera.offset_adu + shift_adu) if self.moved else camera

    @property
    def warnings(self) -> list[str]:
        """Say what of it speaks against a run, as clauses of the verdict."""
        said = [f"{WRONG}: {self.wrong_gain}"] if self.wrong_gain else []
        if self.contradicted:
            doubt = Doubt.OFFSET_KEPT if self.trusted else Doubt.OFFSET
            said.append(doubt.clause(shift=self.shift.shift_e))
        return said

    @property
    def sentence(self) -> str:
        """Say it to people."""
        if not self.contradicted:
            return f"The camera was given, and {self.noise.clause('it')}."
        done, camera = "corrected (--trust-camera keeps the file's)", "the camera so corrected"
        if self.trusted:
            done, camera = "left as it is (--trust-camera)", "the camera as it is"
        return (
            f"The camera was given. {self.shift.sentence} The offset was {done}; "
            f"{self.noise.clause(camera)}."
        )


def check_camera(
    camera: Camera, adu: Num[np.ndarray, "frames height width"], seed: int, *, trusted: bool = False
) -> CheckedCamera:
    """Hold a given camera against a movie's noise.

    A wrong gain, of which its inverse is the usual one, shows as an impossible offset; so where the
    offset does not fit, the gain is measured too.

    Args:
        camera: of these pixels.
        adu: frames as the camera wrote them.
        seed: of the bootstrap.
        trusted: keep the camera's offset, whatever the movie says.

    Raises:
        CameraError: there are too few pixels.
    """
    electrons = camera.electrons(adu)
    variance = camera.read_variance_e2((adu.shape[1], adu.shape[2]))
    fitted = _fitted_electrons(electrons, variance, camera.excess_noise)
    shift = _offset_shift(
        electrons, fitted, variance, numpy_generator(seed, "offset"), camera.excess_noise
    )
    level = abs(float(np.median(electrons)))
    slack = max(4 * shift.error_e, _OFFSET_SLACK_E, _OFFSET_SLACK * level)
    contradicted = abs(shift.shift_e) > slack
    # The shift is the background's; what is left over by the fit stays the same.
    light = fitted - shift.shift_e if contradicted and not trusted else fitted
    noise = noise_levels(electrons - fitted, light, variance, camera.excess_noise)
    wrong = _wrong_gain(camera, adu, seed) if contradicted else ""
    return CheckedCamera(shift, contradicted, trusted, noise, wrong)


def _wrong_gain(camera: Camera, adu: Num[np.ndarray, "frames height width"], seed: int) -> str:
    """Say that the movie's gain is another than the camera's, if it surely is."""
    try:
        seen = estimate_camera(
            adu, numpy_generator(seed, "camera"), camera.em_gain, camera.saturation_adu
        )
    except CameraError:  # too little contrast to tell
        return ""
    gain, given = float(seen.camera.gain_adu_per_e), float(np.median(camera.gain_adu_per_e))
    if abs(math.log(gain / given)) <= max(math.log(_WRONG_GAIN), 4 * seen.gain_error / gain):
        return ""
    return Doubt.GAIN.clause(seen=gain, given=given, inverse=1 / given)


def _ratio(sums: FloatArray) -> float:
    total, weighted = sums.sum(axis=0)
    return float(weighted / total)


def _tiles(images: FloatArray) -> list[FloatArray]:
    """Cut the last two axes into tiles."""
    height, width = images.shape[-2:]
    return [
        images[..., top : top + _TILE_PX, left : left + _TILE_PX]
        for top in range(0, height, _TILE_PX)
        for left in range(0, width, _TILE_PX)
    ]


def _check_frames(frames: FloatArray) -> None:
    if len(frames) < 1 or min(frames.shape[1:]) < 4 * REACH_PX:
        raise CameraError(
            f"The camera cannot be estimated from an array of shape {frames.shape}; 1 frame or "
            f"more of at least {4 * REACH_PX} rows and columns are needed."
        )


def _near_saturation(frames: FloatArray, saturation_adu: int | None) -> npt.NDArray[np.bool_]:
    """Tell which differences touch a saturated pixel."""
    inner = np.s_[:, REACH_PX:-REACH_PX, REACH_PX:-REACH_PX]
    if saturation_adu is None or not (frames >= saturation_adu).any():
        return np.zeros(frames[inner].shape, bool)
    size = (1, 2 * REACH_PX + 1, 2 * REACH_PX + 1)
    return np.asarray(ndimage.maximum_filter(frames >= saturation_adu, size=size)[inner])


def _fitted_electrons(
    electrons: FloatArray, variance: FloatArray, excess_noise: float
) -> FloatArray:
    """Fit spots and background with a given camera; give the expected electrons."""
    _check_frames(electrons)
    sigma = _psf_widths(electrons, variance, excess_noise)
    return _expected(electrons, variance, sigma, excess_noise)[0]


def _fitted_image(
    frames: FloatArray, hot: npt.NDArray[np.bool_], line: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """Fit spots and background with a rough camera; give the expected image, and its spots, in ADU.

    Args:
        frames: ADU.
        hot: differences that are noisy in every frame.
        line: slope and zero level of the rough camera, in whose electrons the read noise is a part
            of the shot noise.
    """
    slope, dark_level = line
    electrons = (frames - dark_level) / slope
    variance = np.zeros(frames.shape[1:])
    variance[REACH_PX:-REACH_PX, REACH_PX:-REACH_PX][hot] = _HOT_VARIANCE_E2
    sigma = _psf_widths(electrons, variance, 1.0)
    expected, spots = _expected(electrons, variance, sigma, 1.0)
    return expected * slope + dark_level, spots * slope


def _expected(
    electrons: FloatArray, variance: FloatArray, sigma: tuple[float, float], excess_noise: float
) -> tuple[FloatArray, FloatArray]:
    """Fit spots and background; give the expected electrons of every pixel, and those of spots."""
    whole, spots = [], []
    for first in range(0, len(electrons), _FRAMES_AT_ONCE):
        part = electrons[first : first + _FRAMES_AT_ONCE]
        found = detect_spots(part, variance, sigma, excess_noise)
        whole.append(found.expected_e(sigma))
        spots.append(whole[-1] - found.background_e)
    return np.concatenate(whole), np.concatenate(spots)


def _psf_widths(
    electrons: FloatArray, variance: FloatArray, excess_noise: float
) -> tuple[float, float]:
    try:
        psf = estimate_psf(electrons[: _FRAMES_AT_ONCE // 2], variance, excess_noise)
    except InputError:
        # Too few spots to measure are too few to matter here.
        return _USUAL_SIGMA_PX, _USUAL_SIGMA_PX
    return psf.sigma_x_px, psf.sigma_y_px


def _usable(abscissa: FloatArray, squares: FloatArray) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Leave out saturation, single outliers and pixels that are noisy in every frame.

    Returns:
        Which pixels to use, and constant and slope of the line fitted to them.
    """
    mask = np.isfinite(squares)
    typical = float(np.median(squares[mask]) / stats.chi2.median(1)) if mask.any() else 0.0
    if not typical > 0:
        raise CameraError(
            "The frames hold no noise, or are saturated; a camera cannot be estimated from them. "
            "Give the raw frames of the camera, or the camera with --camera."
        )
    frames = len(squares)
    for _ in range(3):
        coefficients = _fit(abscissa[mask], squares[mask], typical)
        ratio = squares / _variance(abscissa, coefficients, typical)
        ratio = np.minimum(np.nan_to_num(ratio, nan=1.0), OUTLIER)
        hot = ratio.mean(axis=0) > stats.chi2.isf(_HOT_TAIL, frames) / frames
        mask = np.isfinite(squares) & (ratio < OUTLIER) & ~hot
    return mask, coefficients


def _variance(abscissa: FloatArray, coefficients: FloatArray, typical: float) -> FloatArray:
    # A floor, since a line of too steep a slope may fall below zero in the dark.
    return np.asarray(np.maximum(coefficients[0] + coefficients[1] * abscissa, 0.2 * typical))


def _fit(abscissa: FloatArray, squares: FloatArray, typical: float) -> FloatArray:
    """Fit constant and slope with weights 1 / variance^2: a squared deviate's inverse variance."""
    coefficients = np.array([typical, 0.0])
    for _ in range(_ROUNDS):
        weight = _variance(abscissa, coefficients, typical) ** -2.0
        mean = np.average(abscissa, weights=weight)
        above = abscissa - mean
        slope = (weight * above * squares).sum() / max((weight * above**2).sum(), 1e-300)
        coefficients = np.array([np.average(squares, weights=weight) - slope * mean, slope])
    return coefficients


def _line_of(coefficients: FloatArray, levels: FloatArray) -> tuple[float, float]:
    """Give slope and zero level of a rough line, whatever noise did to it."""
    constant, slope = coefficients
    middle = float(np.median(levels))
    least = (constant + slope * middle) / _MOST_BACKGROUND_E
    slope = max(float(slope), least)
    return slope, middle - (constant + coefficients[1] * middle) / slope


def _tile_sums(
    abscissa: FloatArray,
    levels: FloatArray,
    misfit: FloatArray,
    squares: FloatArray,
    mask: npt.NDArray[np.bool_],
    coefficients: FloatArray,
) -> FloatArray:
    """Give every tile's moments for `_line`, shape (tiles, 3, 4).

    They are those of (1, abscissa, misfit) with (1, level, misfit, square).

    A tile of a frame is the unit of the bootstrap, since neighbouring differences share pixels.
    """
    typical = float(np.median(squares[mask]) / stats.chi2.median(1))
    weight = np.where(mask, _variance(abscissa, coefficients, typical) ** -2.0, 0.0) * typical**2
    target = np.where(mask, squares, 0.0)
    ones = np.ones_like(weight)
    columns = np.stack([ones, abscissa, misfit, levels, target])
    sums = []
    for tile in _tiles(np.concatenate([columns, weight[None]])):
        one, fitted, bent, level, square, w = tile
        instrument = np.stack([one, fitted, bent])
        measured = np.stack([one, level, bent, square])
        sums.append(np.einsum("ifyx,fyx,jfyx->fij", instrument, w, measured))
    return np.concatenate(sums)


def _line(sums: FloatArray) -> tuple[float, float]:
    """Give slope and zero level with the fitted image as the instrument of the measured level.

    The slope is cov(fitted, square) / cov(fitted, level) (Reiersol 1945): right also where the
    fitted image is a distorted picture of the expected one. What goes with the square of the spots'
    light is misfit and taken away, unless it would be less than nothing.

    Args:
        sums: of `_tile_sums`, (3, 4).
    """
    one, level, misfit, square = sums[0] / sums[0, 0]
    means = sums[:, :1] / sums[0, 0] * np.array([one, level, misfit, square])
    _, of_level, of_misfit, of_square = (sums / sums[0, 0] - means)[1:].T
    if not of_level[0] > 0:
        return math.nan, math.nan
    slope, bend = float(of_square[0] / of_level[0]), 0.0
    apart = of_level[0] * of_misfit[1] - of_misfit[0] * of_level[1]
    if apart > _LEAST_APART * of_level[0] * of_misfit[1]:
        bent = (of_level[0] * of_square[1] - of_level[1] * of_square[0]) / apart
        if bent > 0:
            bend = float(bent)
            slope = float((of_square[0] - bend * of_misfit[0]) / of_level[0])
    return slope, float(level - (square - bend * misfit) / slope) if slope else math.nan


def _robust_sd(values: FloatArray) -> float:
    deviation = stats.median_abs_deviation(values, scale="normal", nan_policy="omit")
    return float(deviation)


def _correlated_excess(
    frames: FloatArray,
    fitted: FloatArray,
    variance: FloatArray,
    mask: npt.NDArray[np.bool_],
) -> float:
    """Give the variance of single pixels over that of white noise with these fourth differences.

    Args:
        frames: ADU.
        fitted: their fitted image; only where it is flat is what is left over noise alone.
        variance: of white noise, up to a factor.
        mask: which fourth differences are usable, smaller by `REACH_PX` at every edge.

    Returns:
        1 where the excess is smaller than `_LEAST_EXCESS` or cannot be measured.
    """
    typical = float(np.median(variance))
    deviates = (frames - fitted) / np.sqrt(np.maximum(variance, 0.2 * typical))
    size = (1, 2 * _APART_PX + 1, 2 * _APART_PX + 1)
    change = ndimage.maximum_filter(fitted, size) - ndimage.minimum_filter(fitted, size)
    flat = change**2 < _FLAT**2 * typical
    flat = flat[:, REACH_PX:-REACH_PX, REACH_PX:-REACH_PX] & mask
    flat[:, :_APART_PX] = flat[:, :, :_APART_PX] = False  # rolled in from the other side
    if flat.sum() < _LEAST_FLAT:
        return 1.0
    inner = np.s_[:, REACH_PX:-REACH_PX, REACH_PX:-REACH_PX]
    apart = (deviates - np.roll(deviates, (_APART_PX, _APART_PX), (1, 2)))[inner][flat]
    fourth = along_both(deviates, FOURTH_DIFFERENCE)[flat]
    excess = float(0.5 * np.median(apart**2) / max(np.median(fourth**2), 1e-300))
    return excess if excess > _LEAST_EXCESS else 1.0


def _darkest(levels: FloatArray) -> float:
    """Give the level of the darkest place, averaged over time and over a few pixels."""
    mean = ndimage.uniform_filter(levels.mean(axis=0), 5)
    return float(np.percentile(mean, _DARK_PERCENTILE))
