"""How fine an image is, with error bars: Fourier ring correlation and image decorrelation.

Fourier ring correlation (FRC; Nieuwenhuizen et al. 2013): frames are parted into blocks, the blocks
at random into halves; the halves' images agree at coarse scales and not at fine ones. For N
localizations of a structure with the power spectrum S(q), blurred by a precision sigma,

    FRC(q) = a / (2 + a),  a = N S(q) exp(-4 pi^2 sigma^2 q^2),

and the resolution is 1 / q where the FRC falls below 1/7, that is where a = 1/3.

The field is cut into square tiles of some thirty resolutions a side, and Fourier sums are taken
over the rings of all tiles. The error bar comes from drawing tiles anew (bootstrap): they are many
and all but independent, so that chance in molecules, positions and structure all count. Drawing
localizations anew would put copies of one into both halves, or its noise twice into one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import fft, signal, special

from sureloc.analysis.rendering import Canvas, histogram
from sureloc.calibrate.on_time import on_time_of_rows
from sureloc.errors import InputError
from sureloc.limits import check_limit

Array = npt.NDArray[np.float64]
Edges = tuple[tuple[float, float], tuple[float, float]]

DECORRELATION = "decorrelation of the picture"
FRC, FRC_DRAWS = "FRC of the rows, 1/7", "FRC of the draws, 1/7"
THRESHOLD = 1.0 / 7.0
BLOCKS = 20  # of frames, that go into halves as a whole
FEW_ON_TIMES = 5.0  # a tenth of the molecules that shine is then in both halves
FEW_FRAMES = 20  # fewer say nothing of how long molecules shine, if that is not seen
FEWEST_BLOCKS = 4  # that are worth advising
SPLITS = 6
RESAMPLES = 200
LEAST_ROWS = 50  # in the field, and 5 in a tile
LEVEL = 0.95
_PIXELS_A_RESOLUTION = 8.0  # rounding positions to pixels then costs 0.6 % of the resolution
_RESOLUTIONS_A_TILE = 30.0
_MOST_TILES, _FEWEST_TILES_A_SIDE = 400, 3
_LARGEST_TILE_PX = 1024
_FIRST_GUESS_NM = 40.0
_TAPER = 0.25  # share of a tile's side, both ends together, over which it fades (Tukey)
_FIRST_RING = 3  # coarser rings hold the tile's window and uneven labelling
FILTERS = 12  # of decorrelation analysis
LEAST_FALL = 5e-4  # of d(r) behind a peak (Descloux 2019)
_SIGNIFICANT = 3.0  # standard deviations that agreement must have before it has a resolution


@dataclass(frozen=True)
class Resolution:
    """A resolution and how sure it is.

    Attributes:
        method: how it was measured.
        nm: the resolution; NaN where the image has none.
        sd_nm: its standard deviation over tiles drawn anew.
        low_nm, high_nm: ends of its 95 % interval; the high one infinite where the field cannot
            exclude that there is no resolution, the low one then 0 where it tells no error at all.
        two_sigma_nm: where the FRC falls below `two_sigma_curve` instead of 1/7; 0 where it never
            does, NaN for other methods.
        splits_sd_nm: standard deviation over ways to split the frames alone; NaN for others.
        draws_sd_nm: standard deviation over posterior draws; NaN without draws.
        frequency_per_nm, curve, smooth, noise: what it was read from: correlation by spatial
            frequency, its smoothed course, and `two_sigma_curve`.
        pixel_nm, tiles, rows: what was used.
        note: in plain words, what must be known about it; empty where nothing.
        caution: why it may look better than it is, in plain words; empty where nothing.
    """

    method: str
    nm: float
    sd_nm: float
    low_nm: float
    high_nm: float
    two_sigma_nm: float
    splits_sd_nm: float
    draws_sd_nm: float
    frequency_per_nm: Array
    curve: Array
    smooth: Array
    noise: Array
    pixel_nm: float
    tiles: int
    rows: int
    note: str = ""
    caution: str = ""

    @property
    def found(self) -> bool:
        """True where the image has a resolution."""
        return math.isfinite(self.nm)

    @property
    def interval(self) -> str:
        """The 95 % interval in plain words."""
        if math.isfinite(self.high_nm):
            return f"95 % interval {self.low_nm:.1f} to {self.high_nm:.1f} nm"
        if self.low_nm > 0:
            return f"95 % interval from {self.low_nm:.1f} nm on, with no upper end"
        return "no 95 % interval, as too little of the field has rows"

    @property
    def sentence(self) -> str:
        """The result in plain words."""
        if not self.found:
            return f"{self.method}: no resolution; {self.note or 'the halves do not agree'}."
        text = f"{self.method}: {self.nm:.1f} nm, {self.interval}"
        return f"{text} ({self.note})." if self.note else f"{text}."


# --- Tiles and rings ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Tiling:
    """Equal square tiles of a field.

    Attributes:
        left_nm, top_nm: corner of the first tile.
        pixel_nm: pixel size, nm.
        side_px: pixels along a tile's side.
        rows, columns: number of tiles.
    """

    left_nm: float
    top_nm: float
    pixel_nm: float
    side_px: int
    rows: int
    columns: int

    @property
    def side_nm(self) -> float:
        """Side of a tile, nm."""
        return self.side_px * self.pixel_nm

    def tile_of(self, x_nm: Array, y_nm: Array) -> npt.NDArray[np.int64]:
        """Give the number of the tile that each position falls into, -1 outside."""
        column = np.floor((x_nm - self.left_nm) / self.side_nm).astype(np.int64)
        row = np.floor((y_nm - self.top_nm) / self.side_nm).astype(np.int64)
        inside = (column >= 0) & (column < self.columns) & (row >= 0) & (row < self.rows)
        return np.where(inside, row * self.columns + column, -1)

    def canvas(self, tile: int) -> Canvas:
        """Give the pixels of a tile."""
        row, column = divmod(tile, self.columns)
        return Canvas(
            self.left_nm + column * self.side_nm,
            self.top_nm + row * self.side_nm,
            self.pixel_nm,
            self.side_px,
            self.side_px,
        )


def tiling_of(field_nm: Edges, resolution_nm: float) -> Tiling:
    """Cut a field into tiles that suit a resolution, at least 3 along its shorter side.

    Args:
        field_nm: x and y of its outer edges.
        resolution_nm: what is expected, about.
    """
    (x0, x1), (y0, y1) = field_nm
    width, height = x1 - x0, y1 - y0
    short = min(width, height)
    most = max(
        _FEWEST_TILES_A_SIDE, math.floor(math.sqrt(_MOST_TILES * short / max(width, height)))
    )
    wanted = short / (_RESOLUTIONS_A_TILE * resolution_nm)
    along = int(min(max(_FEWEST_TILES_A_SIDE, math.floor(wanted)), most))
    pixel = max(resolution_nm / _PIXELS_A_RESOLUTION, short / along / _LARGEST_TILE_PX)
    # A whole number of pixels a tile, and of tiles along the shorter side.
    side = max(8, round(short / along / pixel))
    pixel = short / along / side
    length = side * pixel
    rows, columns = (max(1, math.floor(s / length + 1e-9)) for s in (height, width))
    left = x0 + 0.5 * (width - columns * length)
    top = y0 + 0.5 * (height - rows * length)
    return Tiling(left, top, pixel, side, rows, columns)


@dataclass(frozen=True)
class Rings:
    """Which Fourier pixels of a square tile count to which ring, each pair of twins once.

    Attributes:
        of_pixel: number of the ring of each pixel of `numpy.fft.rfft2`'s half plane, flat; the
            last one is for what is left out.
        pixels: independent pixels of each ring, (rings,).
        frequency_per_nm: mean frequency of each ring, (rings,).
    """

    of_pixel: npt.NDArray[np.int64]
    pixels: Array
    frequency_per_nm: Array

    @classmethod
    def of(cls, side_px: int, pixel_nm: float) -> Rings:
        """Give the rings of a tile, one Fourier pixel wide, up to the pixels' Nyquist limit."""
        ky = np.fft.fftfreq(side_px, 1.0 / side_px)[:, None]
        kx = np.fft.rfftfreq(side_px, 1.0 / side_px)[None, :]
        radius = np.hypot(ky, kx)
        rings = side_px // 2
        ring = np.rint(radius).astype(np.int64)
        twin = (kx == 0) & (ky <= 0)  # its complex conjugate is in the half plane as well
        ring[(ring >= rings) | np.broadcast_to(twin, ring.shape)] = rings
        flat = ring.ravel()
        pixels = np.bincount(flat, minlength=rings + 1)[:rings].astype(float)
        total = np.bincount(flat, radius.ravel(), rings + 1)[:rings]
        frequency = total / np.maximum(pixels, 1.0) / (side_px * pixel_nm)
        return cls(flat, pixels, frequency)

    def sums(self, values: npt.NDArray[np.floating]) -> Array:
        """Sum values over rings, (rings,)."""
        size = self.pixels.size
        return np.asarray(np.bincount(self.of_pixel, values.ravel(), size + 1)[:size], np.float64)


def tapered(side_px: int) -> Array:
    """Give the window by which a tile fades towards its edges, (side, side)."""
    one = signal.windows.tukey(side_px, _TAPER)
    return np.asarray(np.outer(one, one))


# --- Fourier ring correlation -------------------------------------------------------------------


@dataclass(frozen=True)
class RingSums:
    """Fourier sums of halves over rings.

    Attributes:
        product: real part of the halves' product, (tiles, splits, rings).
        first, second: the halves' powers, the same shape.
        rings: the rings.
    """

    product: Array
    first: Array
    second: Array
    rings: Rings

    def part(self, tiles: npt.NDArray[np.int64] | None, splits: npt.NDArray[np.int64]) -> RingSums:
        """Give chosen tiles (all without a choice) and splits, some perhaps more than once."""
        product, first, second = (
            part[:, splits] if tiles is None else part[tiles][:, splits]
            for part in (self.product, self.first, self.second)
        )
        return RingSums(product, first, second, self.rings)


def ring_sums(
    x_nm: Array,
    y_nm: Array,
    block: npt.NDArray[np.int64],
    tiling: Tiling,
    splits: int,
    rng: np.random.Generator,
) -> RingSums:
    """Sum products of halves over the rings of every tile that holds enough.

    Args:
        x_nm, y_nm: positions, (rows,).
        block: number of the block of frames that each is in, (rows,).
        tiling: the tiles.
        splits: how many random halvings of the blocks.
        rng: source of the halvings.
    """
    rings, window = Rings.of(tiling.side_px, tiling.pixel_nm), tapered(tiling.side_px)
    blocks = int(block.max()) + 1
    halves = np.stack([_halving(blocks, rng) for _ in range(splits)])
    tile = tiling.tile_of(x_nm, y_nm)
    order = np.argsort(tile, kind="stable")
    starts = np.searchsorted(tile[order], np.arange(tiling.rows * tiling.columns + 1))
    sums: list[list[Array]] = [[], [], []]
    for number in range(tiling.rows * tiling.columns):
        here = order[starts[number] : starts[number + 1]]
        if here.size < 5:
            continue
        canvas = tiling.canvas(number)
        x, y = x_nm[here], y_nm[here]
        whole = _transform(x, y, canvas, window)
        power = rings.sums(_power(whole))
        for kept, values in zip(
            sums,
            zip(
                *(
                    _half_sums(x[m], y[m], canvas, window, rings, whole, power)
                    for m in halves[:, block[here]]
                ),
                strict=True,
            ),
            strict=True,
        ):
            kept.append(np.stack(values))
    if not sums[0]:
        empty = np.zeros((0, splits, rings.pixels.size))
        return RingSums(empty, empty, empty, rings)
    product, first, second = (np.stack(part) for part in sums)
    return RingSums(product, first, second, rings)


def _halving(blocks: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    return np.asarray(rng.permutation(np.arange(blocks) % 2 == 0))


def _half_sums(
    x: Array,
    y: Array,
    canvas: Canvas,
    window: Array,
    rings: Rings,
    whole: npt.NDArray[np.complex64],
    power: Array,
) -> tuple[Array, Array, Array]:
    """Give ring sums of a half (product with the other, power, the other's power)."""
    half = _transform(x, y, canvas, window)
    first = rings.sums(_power(half))
    # The other half is the whole less this one; no second transform is needed.
    common = rings.sums((half * whole.conj()).real)
    return common - first, first, power - 2 * common + first


def _power(values: npt.NDArray[np.complex64]) -> npt.NDArray[np.float32]:
    return np.asarray(values.real**2 + values.imag**2)


def _transform(x: Array, y: Array, canvas: Canvas, window: Array) -> npt.NDArray[np.complex64]:
    """Give the transform of a histogram less its mean, faded towards its edges."""
    image = histogram(x, y, canvas)
    mean = float((image * window).sum() / window.sum())
    return np.asarray(fft.rfft2(((image - mean) * window).astype(np.float32)))


def correlation(sums: RingSums) -> Array:
    """Give the FRC of all tiles together, mean over splits, (rings,)."""
    parts = (sums.product, sums.first, sums.second)
    product, first, second = (part.sum(0).mean(0) for part in parts)
    return np.asarray(product / np.sqrt(np.maximum(first * second, 1e-300)))


def smoothed(curve: Array) -> Array:
    """Give a curve's smooth course by local parabolas (Savitzky & Golay 1964).

    The window is a fourteenth of the curve, a seventh of the frequency where tiles have the size
    that `tiling_of` gives them, so that a bend within it is followed.
    """
    window = max(5, 2 * (curve.size // 28) + 1)
    if curve.size <= window:
        return curve.copy()
    return np.asarray(signal.savgol_filter(curve, window, 2, mode="nearest"))


def crossing(frequency: Array, curve: Array, threshold: Array, first: int = _FIRST_RING) -> float:
    """Give the frequency at which a curve first falls below a threshold and stays so for a ring.

    Args:
        frequency, curve, threshold: by ring, (rings,).
        first: first ring that counts.

    Returns:
        The frequency, interpolated between rings; the first ring's where the curve is below from
        the start, and infinity where it never falls.
    """
    above = curve[first:] >= threshold[first:]
    for k in range(above.size):
        if not above[k] and (k + 1 == above.size or not above[k + 1]):
            if k == 0:
                return float(frequency[first])
            low, high = first + k - 1, first + k
            ends = curve[low] - threshold[low], curve[high] - threshold[high]
            share = ends[0] / (ends[0] - ends[1])
            return float(frequency[low] + share * (frequency[high] - frequency[low]))
    return math.inf


def frc_resolution(
    table: pd.DataFrame,
    field_nm: Edges,
    rng: np.random.Generator,
    *,
    blocks: int = BLOCKS,
    splits: int = SPLITS,
    resamples: int = RESAMPLES,
    guess_nm: float | None = None,
) -> Resolution:
    """Measure the resolution of a table by Fourier ring correlation.

    Args:
        table: rows with `frame`, `x_nm`, `y_nm`.
        field_nm: x and y of the outer edges of what was localized.
        rng: source of halvings and resamples.
        blocks: parts of the movie that go into a half as a whole, so that a molecule that shines
            on from frame to frame is not in both.
        splits: random halvings, whose mean is taken.
        resamples: of the tiles, for the error bar.
        guess_nm: what is expected, to begin with; the precision tells it where it is left out.

    Raises:
        InputError: blocks or splits are too few.
    """
    for name, value in (("blocks", blocks), ("splits", splits), ("resamples", resamples)):
        check_limit(name, value)
    if len(table) < LEAST_ROWS:
        return _none(FRC, len(table), f"{len(table)} rows are too few")
    x, y = (table[name].to_numpy(float) for name in ("x_nm", "y_nm"))
    block = frame_blocks(table["frame"].to_numpy(np.int64), blocks)
    expected = guess_nm or _guess(table)
    for _ in range(5):
        tiling = tiling_of(field_nm, expected)
        sums = ring_sums(x, y, block, tiling, splits, rng)
        if not len(sums.product):
            return _none(FRC, len(table), "no part of the field holds enough rows")
        result = _read(sums, tiling, len(table), resamples, rng)
        # Without agreement the scale may have been wrong, twice as coarse or more.
        seen = result.nm if result.found else 2 * expected
        if 0.7 < seen / expected < 1.5 or (not result.found and expected > 8 * _guess(table)):
            break
        expected = seen
    return result


def frame_blocks(frame: npt.NDArray[np.int64], blocks: int) -> npt.NDArray[np.int64]:
    """Part a movie into blocks of frames that follow each other, with about equally many rows.

    Raises:
        InputError: the rows are in fewer than two frames, which cannot be halved.
    """
    numbers, of_row, counts = np.unique(frame, return_inverse=True, return_counts=True)
    if numbers.size < 2:
        raise InputError(
            "All rows are in one frame, so that they cannot be halved by frames; resolution needs "
            "a movie of at least two."
        )
    before = np.cumsum(counts) - 0.5 * counts
    block = np.floor(before / counts.sum() * min(blocks, numbers.size)).astype(np.int64)
    return np.asarray(np.unique(block, return_inverse=True)[1][of_row], np.int64)


def caution_of_blocks(table: pd.DataFrame, blocks: int, rng: np.random.Generator) -> str:
    """Say where blocks of frames are too short to keep a shining molecule out of both halves.

    Args:
        table: rows as for `sureloc.calibrate.on_time.on_time_of_rows`.
        blocks: into how many the movie is parted.
        rng: source of randomness for the on-time's error.

    Returns:
        A sentence, empty where blocks are long enough, or nothing tells the on-time of many frames.
    """
    frames = int(np.ptp(table["frame"].to_numpy(np.int64))) + 1
    found = on_time_of_rows(table, rng)
    on_time = math.nan
    if found is not None:
        on_time = found.frames if math.isfinite(found.error) else found.at_least
    if not math.isfinite(on_time):
        if frames >= FEW_FRAMES:
            return ""
        return (
            f"The rows are of {frames} frames, too few to tell how long molecules shine: both "
            "halves may hold the same ones, and the FRC look better than the structure is sampled."
        )
    length = frames / min(blocks, frames)
    if length >= FEW_ON_TIMES * on_time:
        return ""
    most = math.floor(frames / (FEW_ON_TIMES * on_time))
    advice = f"give --blocks {most}" if most >= FEWEST_BLOCKS else "the movie is too short for FRC"
    return (
        f"Molecules shine for some {on_time:.1f} frames and blocks are {length:.1f} frames "
        "long, so that many are in both halves and the FRC looks better than the structure is "
        f"sampled; {advice}."
    )


def _guess(table: pd.DataFrame) -> float:
    """Give three times the median stated precision, about what a well filled structure gives."""
    if "sigma_x_nm" not in table:
        return _FIRST_GUESS_NM
    sigma = table[["sigma_x_nm", "sigma_y_nm"]].to_numpy(float)
    sigma = sigma[np.isfinite(sigma) & (sigma > 0)]
    return 3.0 * float(np.median(sigma)) if sigma.size else _FIRST_GUESS_NM


def _none(method: str, rows: int, note: str) -> Resolution:
    nan, empty = math.nan, np.zeros(0)
    return Resolution(
        method, nan, nan, nan, nan, nan, nan, nan, empty, empty, empty, empty, nan, 0, rows, note
    )


def _read(
    sums: RingSums, tiling: Tiling, rows: int, resamples: int, rng: np.random.Generator
) -> Resolution:
    """Read the resolution from Fourier sums, and its error bar from tiles drawn anew."""
    frequency = sums.rings.frequency_per_nm
    tiles, splits = sums.product.shape[:2]
    curve = correlation(sums)
    smooth, noise = smoothed(curve), two_sigma_curve(sums)
    result = replace(
        _none(FRC, rows, ""),
        frequency_per_nm=frequency,
        curve=curve,
        smooth=smooth,
        noise=noise,
        pixel_nm=tiling.pixel_nm,
        tiles=tiles,
    )
    at = crossing(frequency, smooth, np.full(frequency.size, THRESHOLD))
    if not _agrees(sums, at):
        return replace(result, note="halves of the frames do not agree beyond chance")
    if not math.isfinite(at):
        note = f"the halves agree down to pixels of {tiling.pixel_nm:.2g} nm"
        return replace(result, note=note)
    again = np.array(
        [
            _crossing_of(
                sums.part(
                    np.asarray(rng.integers(tiles, size=tiles)),
                    np.asarray(rng.integers(splits, size=splits)),
                )
            )
            for _ in range(resamples)
        ]
    )
    single = np.arange(splits)[:, None]
    by_split = np.array([_crossing_of(sums.part(None, one)) for one in single])
    low, high = _interval(at, again, tiles)
    two_sigma = crossing(frequency, smooth, noise)
    return replace(
        result,
        nm=1.0 / at,
        sd_nm=_spread(again, tiles) / at**2,
        low_nm=_length(high),
        high_nm=_length(low),
        two_sigma_nm=1.0 / two_sigma,
        splits_sd_nm=float(np.std(1.0 / by_split, ddof=1)) if splits > 1 else math.nan,
    )


def two_sigma_curve(sums: RingSums) -> Array:
    """Give 2 / sqrt(N / 2) for rings of N Fourier pixels, twins and all tiles counted.

    The usual bound of what noise does (van Heel & Schatz 2005), two standard deviations and more.
    """
    return 2.0 / np.sqrt(np.maximum(len(sums.product) * sums.rings.pixels, 1.0))


def _crossing_of(sums: RingSums) -> float:
    smooth = smoothed(correlation(sums))
    return crossing(sums.rings.frequency_per_nm, smooth, np.full(smooth.size, THRESHOLD))


def _spread(resampled: Array, tiles: int) -> float:
    """Give the standard deviation of resampled values, widened as so few tiles ask for."""
    finite = resampled[np.isfinite(resampled)]
    if tiles < 2 or finite.size < 2:
        return math.inf
    return float(np.std(finite, ddof=1)) * math.sqrt(tiles / (tiles - 1))


def _interval(at: float, resampled: Array, tiles: int) -> tuple[float, float]:
    """Give the ends of the 95 % interval of a frequency, by Student's t for so few tiles.

    The low end is 0 or less where the interval has none.
    """
    if tiles < 2:
        return 0.0, math.inf
    reach = float(special.stdtrit(tiles - 1, 0.5 + LEVEL / 2)) * _spread(resampled, tiles)
    return at - reach, at + reach


def _length(frequency: float) -> float:
    """Give the length that belongs to a frequency, infinite where that is 0 or less."""
    return 1.0 / frequency if frequency > 0 else math.inf


def _agrees(sums: RingSums, at: float) -> bool:
    """Tell whether the halves agree beyond chance below a frequency.

    In noise the correlation of a ring of n independent pixels has the standard deviation
    1 / sqrt(2 n); splits of one movie are not independent, so that their mean counts as one.
    """
    frequency, pixels = sums.rings.frequency_per_nm, sums.rings.pixels
    below = (np.arange(frequency.size) >= _FIRST_RING) & (frequency <= at * (1 + 1e-9))
    curve = correlation(sums)
    pooled = float((curve * pixels)[below].sum() / pixels[below].sum())
    return pooled > _SIGNIFICANT / math.sqrt(2.0 * len(sums.product) * pixels[below].sum())


# --- The same through posterior draws -----------------------------------------------------------


def frc_of_draws(
    draws: pd.DataFrame,
    number: int,
    field_nm: Edges,
    rng: np.random.Generator,
    *,
    blocks: int = BLOCKS,
    splits: int = 2,
    resamples: int = RESAMPLES,
    guess_nm: float | None = None,
) -> Resolution:
    """Measure the resolution of posterior draws: what can be seen in spite of the uncertainty.

    In a draw every molecule lies where it may be, so that it is scattered twice, by the error of
    its estimate and by its uncertainty: `a` holds sigma^2 plus the mean stated variance, and the
    resolution is up to sqrt(2) times that of the rows. Which molecules exist differs from draw to
    draw as well.

    Args:
        draws: rows with `sureloc.table.DRAW_COLUMNS`.
        number: how many draws there are.
        field_nm, rng, blocks, splits, resamples, guess_nm: as for `frc_resolution`.

    Returns:
        Mean over the draws; variances within draws and between them add up (Rubin 1987).
    """
    single = [
        frc_resolution(
            one, field_nm, rng, blocks=blocks, splits=splits, resamples=resamples, guess_nm=guess_nm
        )
        for _, one in draws.groupby("draw")
    ]
    found = [one for one in single if one.found]
    if len(found) < max(2, number / 2):
        note = f"{len(found)} of {number} draws have one"
        return _none(FRC_DRAWS, len(draws), note)
    nm = np.array([one.nm for one in found])
    # In frequencies, as single resolutions are: an interval never reaches below 0 nm.
    at, between = float((1 / nm).mean()), float(np.var(1 / nm, ddof=1))
    within = float(np.mean([(one.sd_nm / one.nm**2) ** 2 for one in found]))
    sd = math.sqrt(within + (1 + 1 / len(found)) * between)
    reach = float(special.stdtrit(max(found[0].tiles - 1, 1), 0.5 + LEVEL / 2)) * sd
    middle = found[int(np.argsort(nm)[len(nm) // 2])]
    return replace(
        middle,
        method=FRC_DRAWS,
        nm=1 / at,
        sd_nm=sd / at**2,
        low_nm=_length(at + reach),
        high_nm=_length(at - reach),
        two_sigma_nm=float(np.mean([one.two_sigma_nm for one in found])),
        splits_sd_nm=float(np.mean([one.splits_sd_nm for one in found])),
        draws_sd_nm=math.sqrt(between) / at**2,
        rows=len(draws),
    )


# --- Image decorrelation ------------------------------------------------------------------------


@dataclass(frozen=True)
class Spectrum:
    """What decorrelation analysis needs of an image, by ring, for every tile.

    Attributes:
        amplitude: sum of the transform's absolute values, (tiles, rings).
        power: sum of their squares, (tiles, rings).
        rings: the rings.
    """

    amplitude: Array
    power: Array
    rings: Rings


def decorrelation_curve(spectrum: Spectrum, high_pass: Array | None = None) -> Array:
    """Give d(r): how an image goes together with its phases below a frequency (Descloux 2019).

    The transform F over its absolute value, cut at r, is correlated with F: the sum of |F| below r
    over the root of (sum of |F|^2 everywhere times pixels below r). It rises while there is signal
    and falls when more pixels bring noise only.

    Args:
        spectrum: of the image.
        high_pass: factor by ring that is applied to F, (rings,); 1 without it.

    Returns:
        d by ring, (rings,).
    """
    factor = np.ones(spectrum.rings.pixels.size) if high_pass is None else high_pass
    below = np.cumsum(spectrum.amplitude.sum(0) * factor)
    power = float((spectrum.power.sum(0) * factor**2).sum())
    pixels = np.cumsum(spectrum.rings.pixels) * len(spectrum.amplitude)
    return np.asarray(below / np.sqrt(np.maximum(power * pixels, 1e-300)))


def curve_peak(curve: Array) -> int:
    """Give the place of a curve's last peak that it falls from by `LEAST_FALL`, 0 without one."""
    end = curve.size
    while end > 1:
        top = int(np.argmax(curve[:end]))
        if top == 0:
            return 0
        if top < end - 1 and curve[top] - curve[top:end].min() >= LEAST_FALL:
            return top
        end = top
    return 0


def decorrelation_frequency(spectrum: Spectrum, tile_px: int) -> float:
    """Give the highest frequency (per nm) at which a filtered image's d(r) peaks, 0 without one.

    High-pass filters, 1 less a Gaussian's transform, leave less and less of the coarse structure,
    so that the peak moves up to the cut-off.
    """
    frequency = spectrum.rings.frequency_per_nm
    cycles_per_px = (
        frequency / frequency[-1] * 0.5 * (2 * frequency.size - 1) / (2 * frequency.size)
    )
    best = frequency[curve_peak(decorrelation_curve(spectrum))]
    for width_px in np.geomspace(tile_px / 4, 0.15, FILTERS):
        high_pass = 1.0 - np.exp(-2 * (math.pi * width_px * cycles_per_px) ** 2)
        best = max(best, frequency[curve_peak(decorrelation_curve(spectrum, high_pass))])
    return float(best)


def image_spectrum(tiles: Array, pixel_nm: float) -> Spectrum:
    """Give the spectrum of an image that is cut into square tiles, (tiles, side, side)."""
    side = tiles.shape[1]
    rings, window = Rings.of(side, pixel_nm), tapered(side)
    amplitude, power = [], []
    for tile in tiles:
        mean = float((tile * window).sum() / window.sum())
        power_of = _power(fft.rfft2(((tile - mean) * window).astype(np.float32)))
        amplitude.append(rings.sums(np.sqrt(power_of)))
        power.append(rings.sums(power_of))
    return Spectrum(np.stack(amplitude), np.stack(power), rings)


def decorrelation_resolution(
    image: Array,
    pixel_nm: float,
    rng: np.random.Generator,
    *,
    rows: int = 0,
    resamples: int = RESAMPLES,
) -> Resolution:
    """Measure the resolution of a picture by image decorrelation analysis (Descloux 2019).

    It tells the finest detail in the picture, whether or not another picture would show it again;
    spots as wide as they were drawn are detail as well.

    Args:
        image: values, (rows, columns).
        pixel_nm: size of its pixels, nm; they should be no more than half of the resolution.
        rng: source of the resamples, which draw tiles of the image anew.
        rows: how many localizations it shows, for the record.
        resamples: for the error bar.
    """
    side = max(16, min(*image.shape, max(128, min(image.shape) // 3)))
    down, across = (n // side for n in image.shape)
    if down * across == 0 or not np.any(image):
        return _none(DECORRELATION, rows, "the picture is empty or smaller than 16 pixels")
    cut = image[: down * side, : across * side].reshape(down, side, across, side)
    tiles = cut.transpose(0, 2, 1, 3).reshape(-1, side, side)
    tiles = tiles[tiles.any(axis=(1, 2))]
    spectrum = image_spectrum(tiles, pixel_nm)
    frequency = spectrum.rings.frequency_per_nm
    at = decorrelation_frequency(spectrum, side)
    curve = decorrelation_curve(spectrum)
    result = replace(
        _none(DECORRELATION, rows, ""),
        frequency_per_nm=frequency,
        curve=curve,
        smooth=curve,
        noise=np.zeros(curve.size),
        pixel_nm=pixel_nm,
        tiles=len(tiles),
    )
    if at <= frequency[1]:
        return replace(result, note="nothing in the picture stands out of white noise")
    again = []
    for _ in range(resamples):
        pick = rng.integers(len(tiles), size=len(tiles))
        one = Spectrum(spectrum.amplitude[pick], spectrum.power[pick], spectrum.rings)
        again.append(decorrelation_frequency(one, side))
    low, high = _interval(at, np.array(again), len(tiles))
    # A peak is read from rings: it is not known better than half a ring to each side.
    half = 0.5 / (side * pixel_nm)
    return replace(
        result,
        nm=1.0 / at,
        sd_nm=math.hypot(_spread(np.array(again), len(tiles)), half / math.sqrt(3)) / at**2,
        low_nm=_length(high + half),
        high_nm=_length(low - half),
    )
