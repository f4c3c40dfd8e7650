"""The state of a chain over emitter sets and the arithmetic that all its moves share (Numba).

Coordinates are in camera pixels with pixel centres at integers; counts are photo-electrons.

Images and what is multiplied with them are in single precision, and patches are whole `LANES`
pixels wide, so that the processor works on eight pixels at once; emitters, matrices and sums over
rows are in double. Single precision puts a log-likelihood wrong by a few 1e-8 of the counts summed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from sureloc.compiled.jit import inner, spliced
from sureloc.compiled.logarithm import quick_log

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
Filled = npt.NDArray[np.floating[Any]]

LANES = 8  # patches are a whole multiple of so many pixels wide
SPARE = 2 * LANES  # columns that fill up the rows of images, into which patches may reach
NOTHING, ONE = np.float32(0.0), np.float32(1.0)
MAX_BLOCK = 5  # emitters that move together; discs that hold more are left alone
POSITION_PRECISION = 1.0  # 1/px^2, keeps the proposal of a faint emitter from running away
MAX_REDRAW = 4  # most emitters that a redraw considers in its disc
SEARCH_STEPS = 4  # a redraw looks for the next emitter on a grid of radius / SEARCH_STEPS
SEARCH_SIDE = 2 * SEARCH_STEPS + 1
SPLIT_SIGMAS = 0.8  # standard deviation of a split's offset, in PSF widths, per axis
NEAR_SIGMAS = 2.5  # a block's proposal looks this far beyond its emitters; the target looks farther
LARGEST_DISC_SIGMAS = 2.6  # no emitter of a move lies farther from its centre
PAIR_SIGMAS = 2.5  # emitters closer than this, in PSF widths, may merge
DATA_DRIVEN_BIRTHS = 0.5  # share of births whose photons come from the residual
ROAMING = 0.02  # share of moves that may be centred anywhere, where others are not
SEARCHED_AT_ONCE = 16  # emitters
GUIDED_BIRTHS = 0.7  # share of births whose position comes from the proposal map

TABLE_REACH = 8.5  # standard deviations; 1e-17 lies beyond
TABLE_PER_SD = 128.0


def _normal_table() -> Array:
    z = np.arange(-TABLE_REACH, TABLE_REACH + 0.5 / TABLE_PER_SD, 1.0 / TABLE_PER_SD)
    density = np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return np.stack([special.ndtr(z), density, -z * density], axis=1)


NORMAL_TABLE = _normal_table()  # distribution function, density and its slope, (places, 3)


class Frame(NamedTuple):
    """What the camera saw, already shifted (see `sureloc.physics.likelihood`).

    counts: electrons + v / F^2, (rows, columns + `SPARE`). shift: v / F^2. weight: 1 / F^2, or 0
    for pixels to ignore, as those are that fill up the rows.
    """

    counts: Image
    shift: Image
    weight: Image


class Model(NamedTuple):
    """Everything that stays fixed while a chain runs.

    sigma_x, sigma_y, reach: PSF widths and the half width of its support, px. density: emitters per
    px^2. x_low, x_high, y_low, y_high: the rectangle where emitters may lie. log_photons_low,
    log_photons_step, log_density: the photon prior, log p(ln N) on a regular grid of ln N.
    cumulative: its distribution function on the same grid. photons_mean, photons_sd: its moments.
    basis_y, basis_x: hat functions of the background, (knots, rows) and (knots, columns + `SPARE`),
    0 beyond the columns.
    background_mean: (knots_y, knots_x). background_sd: its prior standard deviation; 0 is fixed.
    guide: where births are proposed, a density per px^2 on `guide_scale` cells per px, covering
    the frame and `guide_margin` px round it, from the corner (-0.5 - guide_margin) of both.
    guide_cumulative: its flat distribution function.
    map: ln of the density at a place over `density`, on `map_scale` cells per px like the guide;
    empty where emitters are spread evenly.
    moves: cumulative probabilities of the eight kinds of move.
    active: pixels in which moves are centred, all but `ROAMING` of them; empty where they are
    everywhere.
    reachable: pixels whose emitters may take part in a move that is centred there, likewise.
    """

    sigma_x: float
    sigma_y: float
    reach: float
    density: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    log_photons_low: float
    log_photons_step: float
    log_density: Array
    cumulative: Array
    photons_mean: float
    photons_sd: float
    basis_y: Image
    basis_x: Image
    background_mean: Array
    background_sd: float
    guide: Array
    guide_cumulative: Array
    guide_scale: int
    guide_margin: int
    map: Array
    map_scale: int
    moves: Array
    active: npt.NDArray[np.bool_]
    reachable: npt.NDArray[np.bool_]


class State(NamedTuple):
    """Emitters (3, max): x, y and photons; their number (1,); rate like a `Frame`'s; knots."""

    emitters: Array
    number: npt.NDArray[np.int64]
    rate: Image
    knots: Array


class Scratch(NamedTuple):
    """Work space of one chain."""

    members: npt.NDArray[np.int64]
    old: Array
    new: Array
    shape_x: Image
    slope_x: Image
    shape_y: Image
    slope_y: Image
    rate: Image
    gradient: Array
    fisher: Array
    step: Array
    noise: Array
    base: Image
    fits: Array
    factors: Array
    evidence: Array
    search_x: Image
    search_y: Image
    search_score: Image
    search_information: Image
    row_weight: Image
    row_score: Image
    scores: Image
    pairs: Image
    order: npt.NDArray[np.int64]
    direction: npt.NDArray[np.int64]
    everywhere: npt.NDArray[np.bool_]


def make_scratch(rows: int, columns: int) -> Scratch:
    """Allocate the work space of a chain on a frame of rows x columns."""
    size = 3 * MAX_BLOCK
    side = max(rows, columns) + SPARE

    def image(*shape: int) -> Image:
        return np.zeros(shape, np.float32)

    return Scratch(
        np.empty(MAX_BLOCK, np.int64),
        np.empty((MAX_BLOCK, 3)),
        np.empty((MAX_BLOCK, 3)),
        image(MAX_BLOCK, side),
        image(MAX_BLOCK, side),
        image(MAX_BLOCK, side),
        image(MAX_BLOCK, side),
        image(rows, columns + SPARE),
        np.empty(size),
        np.empty((size, size)),
        np.empty(size),
        np.empty(size),
        image(rows, columns + SPARE),
        np.empty((MAX_REDRAW, MAX_REDRAW, 3)),
        np.empty((MAX_REDRAW, 3 * MAX_REDRAW, 3 * MAX_REDRAW)),
        np.empty(MAX_REDRAW),
        image(SEARCH_SIDE, side),
        image(SEARCH_SIDE, side),
        image(SEARCH_SIDE, side),
        image(SEARCH_SIDE, side),
        image(side),
        image(side),
        image(2 * MAX_BLOCK, side),
        image(2 * MAX_BLOCK * (MAX_BLOCK + 1), side),
        np.empty(MAX_REDRAW, np.int64),
        np.empty(MAX_REDRAW, np.int64),
        np.ones(1, np.bool_),
    )


@inner
def frame_shape(image: Image) -> tuple[int, int]:
    """Give the rows and columns of a frame, without what fills up its rows."""
    return image.shape[0], image.shape[1] - SPARE


@inner
def whole_lanes(columns: int) -> int:
    """Round a number of columns up."""
    return (columns + LANES - 1) // LANES * LANES


@inner
def normal_at(z: float) -> tuple[float, float]:
    """Give the standard normal distribution function and density at z, within 3e-11.

    Cubic Hermite interpolation between tabulated values and slopes: error functions would take
    half of a chain's time.
    """
    place = (z + TABLE_REACH) * TABLE_PER_SD
    if not place > 0.0:
        return 0.0, 0.0
    left = int(place)
    if left >= NORMAL_TABLE.shape[0] - 1:
        return 1.0, 0.0
    t = place - left
    rest = 1.0 - t
    from_left = rest * rest * (1.0 + 2.0 * t)
    from_right = t * t * (1.0 + 2.0 * rest)
    slope_left = t * rest * rest / TABLE_PER_SD
    slope_right = -t * t * rest / TABLE_PER_SD
    low, low_density, low_slope = NORMAL_TABLE[left]
    high, high_density, high_slope = NORMAL_TABLE[left + 1]
    return (
        from_left * low + from_right * high + slope_left * low_density + slope_right * high_density,
        from_left * low_density
        + from_right * high_density
        + slope_left * low_slope
        + slope_right * high_slope,
    )


@inner
def axis_shape(
    position: float, sigma: float, first: int, size: int, shape: Filled, slope: Filled
) -> None:
    """Fill the share of a 1-D Gaussian in pixels first..first+size-1, and its derivative."""
    scale = 1.0 / sigma
    lower, lower_density = normal_at((first - 0.5 - position) * scale)
    for k in range(size):
        upper, upper_density = normal_at((first + k + 0.5 - position) * scale)
        shape[k] = upper - lower
        slope[k] = (lower_density - upper_density) * scale
        lower = upper
        lower_density = upper_density


@inner
def log_photon_prior(photons: float, model: Model) -> float:
    """Give ln p(N), the density by N itself (not by ln N); -inf outside the table."""
    if photons <= 0.0:
        return -np.inf
    log_photons = math.log(photons)
    at = (log_photons - model.log_photons_low) / model.log_photons_step
    left = math.floor(at)
    if at < 0.0 or left >= model.log_density.size - 1:
        return -np.inf
    part = at - left
    log_density = (1.0 - part) * model.log_density[left] + part * model.log_density[left + 1]
    return float(log_density - log_photons)


@inner
def log_emitter_prior(emitter: Array, model: Model) -> float:
    """Give ln of an emitter's (x, y, N) prior, over the density: its place's and its photons'."""
    of_place = 0.0
    if model.map.size > 0:
        rows, columns = model.map.shape
        r = math.floor((emitter[1] + 0.5) * model.map_scale)
        c = math.floor((emitter[0] + 0.5) * model.map_scale)
        of_place = model.map[min(max(r, 0), rows - 1), min(max(c, 0), columns - 1)]
    return float(of_place + log_photon_prior(emitter[2], model))


@inner
def draw_photons(model: Model, rng: np.random.Generator) -> float:
    """Draw N from the table by inverting its distribution function (linear inside a cell).

    The tabulated log-density is piecewise linear, the drawn one piecewise constant; the birth
    move divides by `draw_log_density`, the density really drawn from.
    """
    u = rng.random() * model.cumulative[-1]
    right = min(max(int(np.searchsorted(model.cumulative, u)), 1), model.cumulative.size - 1)
    low = model.cumulative[right - 1]
    width = model.cumulative[right] - low
    part = (u - low) / width if width > 0 else 0.5
    return math.exp(model.log_photons_low + (right - 1 + part) * model.log_photons_step)


@inner
def draw_log_density(photons: float, model: Model) -> float:
    """Give the log-density, by N, of what `draw_photons` draws."""
    if photons <= 0.0:
        return -np.inf
    log_photons = math.log(photons)
    at = (log_photons - model.log_photons_low) / model.log_photons_step
    left = math.floor(at)
    if at < 0.0 or left >= model.cumulative.size - 1:
        return -np.inf
    share = (model.cumulative[left + 1] - model.cumulative[left]) / model.cumulative[-1]
    if share <= 0.0:
        return -np.inf
    return math.log(share / model.log_photons_step) - log_photons


@inner
def patch_bounds(
    x_low: float, x_high: float, y_low: float, y_high: float, reach: float, rows: int, columns: int
) -> tuple[int, int, int, int]:
    """Give (first row, row count, first column, column count) of the pixels within reach.

    Columns are whole `LANES`, and may reach into what fills up the rows.
    """
    first_row = max(math.floor(y_low - reach), 0)
    last_row = min(math.ceil(y_high + reach), rows - 1)
    first_column = max(math.floor(x_low - reach), 0)
    last_column = min(math.ceil(x_high + reach), columns - 1)
    return (
        first_row,
        max(last_row - first_row + 1, 0),
        first_column,
        whole_lanes(max(last_column - first_column + 1, 0)),
    )


@inner
def patch_round(
    some: Array, m: int, others: Array, m_others: int, reach: float, rows: int, columns: int
) -> tuple[int, int, int, int]:
    """Give the patch of the pixels within reach of some emitters and some others."""
    x_low, x_high = some[0, 0], some[0, 0]
    y_low, y_high = some[0, 1], some[0, 1]
    for j in range(m + m_others):
        x, y = (some[j, 0], some[j, 1]) if j < m else (others[j - m, 0], others[j - m, 1])
        x_low, x_high = min(x_low, x), max(x_high, x)
        y_low, y_high = min(y_low, y), max(y_high, y)
    return patch_bounds(x_low, x_high, y_low, y_high, reach, rows, columns)


@inner
def both_patches(
    one: tuple[int, int, int, int], other: tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    """Give the smallest patch of whole `LANES` that holds two others, of which one may be empty."""
    if one[1] == 0 or one[3] == 0:
        return other
    if other[1] == 0 or other[3] == 0:
        return one
    first_row, first_column = min(one[0], other[0]), min(one[2], other[2])
    last_row = max(one[0] + one[1], other[0] + other[1])
    last_column = max(one[2] + one[3], other[2] + other[3])
    columns = whole_lanes(last_column - first_column)
    return first_row, last_row - first_row, first_column, columns


@inner
def fill_shapes(
    emitters: Array, m: int, patch: tuple[int, int, int, int], model: Model, work: Scratch
) -> None:
    """Fill the 1-D shapes and slopes of m emitters on a patch."""
    for j in range(m):
        axis_shape(
            emitters[j, 0], model.sigma_x, patch[2], patch[3], work.shape_x[j], work.slope_x[j]
        )
        axis_shape(
            emitters[j, 1], model.sigma_y, patch[0], patch[1], work.shape_y[j], work.slope_y[j]
        )


@spliced
def row_of(image: Image, patch: tuple[int, int, int, int], row: int) -> Image:
    """Give one row of a patch, counted from the patch's first, as a view.

    Loops over a view start at 0. An index that could be negative counts from the end, and having
    to look keeps the compiler from working on several pixels at once.
    """
    return image[patch[0] + row, patch[2] : patch[2] + patch[3]]


@inner
def add_emitters(
    emitters: Array,
    m: int,
    sign: float,
    patch: tuple[int, int, int, int],
    rate: Image,
    work: Scratch,
) -> None:
    """Add (sign 1) or subtract (sign -1) m emitters, whose shapes are filled, to a patch's rate."""
    for r in range(patch[1]):
        row = row_of(rate, patch, r)
        for j in range(m):
            amplitude = np.float32(sign * emitters[j, 2] * work.shape_y[j, r])
            shape = work.shape_x[j]
            for c in range(row.size):
                row[c] += amplitude * shape[c]


@inner
def copy_patch(patch: tuple[int, int, int, int], source: Image, target: Image) -> None:
    """Copy the pixels of a patch, given as first row, rows, first column, columns."""
    for r in range(patch[1]):
        here, there = row_of(source, patch, r), row_of(target, patch, r)
        for c in range(here.size):
            there[c] = here[c]


@inner
def log_likelihood_change(
    frame: Frame, patch: tuple[int, int, int, int], old: Image, new: Image
) -> float:
    """Give the change of the log-likelihood on a patch; -inf if a new rate is not positive."""
    total = 0.0
    impossible = NOTHING
    for r in range(patch[1]):
        weight, counts = row_of(frame.weight, patch, r), row_of(frame.counts, patch, r)
        before, after = row_of(old, patch, r), row_of(new, patch, r)
        change = NOTHING
        # No way out of this loop, so that it runs on several pixels at once.
        for c in range(weight.size):
            impossible += NOTHING if after[c] > NOTHING else ONE
            ratio = after[c] / before[c]
            change += weight[c] * (counts[c] * quick_log(ratio) - (after[c] - before[c]))
        total += float(change)
    return total if impossible == NOTHING else -np.inf


@inner
def fill_quadratic(
    emitters: Array,
    m: int,
    patch: tuple[int, int, int, int],
    frame: Frame,
    rate: Image,
    skipped: int,
    model: Model,
    work: Scratch,
) -> None:
    """Fill gradient and Fisher matrix of the log-likelihood by the m emitters' (x, y, N).

    The pixels of the patch are summed. Shapes are filled on it and on the `skipped` rows before it.

    An emitter's image is a product of shapes along x and y, so are the derivatives: every column's
    pixels are summed over y for every pair of shape and slope, and the sums serve all elements.
    """
    size, columns = 3 * m, patch[3]
    photon_precision = 1.0 / (2.0 * model.photons_sd) ** 2
    for a in range(size):
        work.gradient[a] = 0.0
        for b in range(a + 1):
            work.fisher[a, b] = 0.0
        work.fisher[a, a] = photon_precision if a % 3 == 2 else POSITION_PRECISION
    for i in range(2 * m):
        for c in range(columns):
            work.scores[i, c] = NOTHING
    for i in range(2 * m * (m + 1)):
        for c in range(columns):
            work.pairs[i, c] = NOTHING
    row_weight, row_score = work.row_weight[:columns], work.row_score[:columns]
    for r in range(patch[1]):
        weight, counts = row_of(frame.weight, patch, r), row_of(frame.counts, patch, r)
        here = row_of(rate, patch, r)
        for c in range(columns):
            row_weight[c] = weight[c] / here[c]
            row_score[c] = row_weight[c] * (counts[c] - here[c])
        pair = 0
        for j in range(m):
            shape_j, slope_j = work.shape_y[j, skipped + r], work.slope_y[j, skipped + r]
            by_shape, by_slope = work.scores[2 * j, :columns], work.scores[2 * j + 1, :columns]
            for c in range(columns):
                by_shape[c] += shape_j * row_score[c]
                by_slope[c] += slope_j * row_score[c]
            for k in range(j + 1):
                shape_k, slope_k = work.shape_y[k, skipped + r], work.slope_y[k, skipped + r]
                shapes, slopes = shape_j * shape_k, slope_j * slope_k
                slope_first, slope_second = slope_j * shape_k, shape_j * slope_k
                by_shapes, by_slopes = work.pairs[pair, :columns], work.pairs[pair + 1, :columns]
                by_first, by_second = work.pairs[pair + 2, :columns], work.pairs[pair + 3, :columns]
                for c in range(columns):
                    by_shapes[c] += shapes * row_weight[c]
                    by_slopes[c] += slopes * row_weight[c]
                    by_first[c] += slope_first * row_weight[c]
                    by_second[c] += slope_second * row_weight[c]
                pair += 4
    pair = 0
    for j in range(m):
        n_j = emitters[j, 2]
        shape_j, slope_j = work.shape_x[j, :columns], work.slope_x[j, :columns]
        by_shape, by_slope = work.scores[2 * j, :columns], work.scores[2 * j + 1, :columns]
        along_x, along_y, by_photons = NOTHING, NOTHING, NOTHING
        for c in range(columns):
            along_x += slope_j[c] * by_shape[c]
            along_y += shape_j[c] * by_slope[c]
            by_photons += shape_j[c] * by_shape[c]
        work.gradient[3 * j] += n_j * along_x
        work.gradient[3 * j + 1] += n_j * along_y
        work.gradient[3 * j + 2] += by_photons
        for k in range(j + 1):
            n_k = emitters[k, 2]
            shape_k, slope_k = work.shape_x[k, :columns], work.slope_x[k, :columns]
            by_shapes, by_slopes = work.pairs[pair, :columns], work.pairs[pair + 1, :columns]
            by_first, by_second = work.pairs[pair + 2, :columns], work.pairs[pair + 3, :columns]
            pair += 4
            xx, yx, yy, nx, ny, nn = NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING
            xy, xn, yn = NOTHING, NOTHING, NOTHING
            for c in range(columns):
                both = shape_j[c] * shape_k[c]
                first, second = slope_j[c] * shape_k[c], shape_j[c] * slope_k[c]
                xx += slope_j[c] * slope_k[c] * by_shapes[c]
                yx += second * by_first[c]
                yy += both * by_slopes[c]
                nx += second * by_shapes[c]
                ny += both * by_second[c]
                nn += both * by_shapes[c]
                xy += first * by_second[c]
                xn += first * by_shapes[c]
                yn += both * by_first[c]
            fisher = work.fisher[3 * j : 3 * j + 3, 3 * k : 3 * k + 3]
            fisher[0, 0] += n_j * n_k * xx
            fisher[1, 0] += n_j * n_k * yx
            fisher[1, 1] += n_j * n_k * yy
            fisher[2, 0] += n_k * nx
            fisher[2, 1] += n_k * ny
            fisher[2, 2] += nn
            if k < j:
                fisher[0, 1] += n_j * n_k * xy
                fisher[0, 2] += n_j * xn
                fisher[1, 2] += n_j * yn


@inner
def factorize(matrix: Array, size: int) -> bool:
    """Overwrite the lower triangle by its Cholesky factor; False if it is not positive definite."""
    for a in range(size):
        for b in range(a + 1):
            total = matrix[a, b]
            for k in range(b):
                total -= matrix[a, k] * matrix[b, k]
            if a == b:
                if total <= 0.0 or not math.isfinite(total):
                    return False
                matrix[a, a] = math.sqrt(total)
            else:
                matrix[a, b] = total / matrix[b, b]
    return True


@inner
def solve_lower(factor: Array, size: int, right: Array, out: Array) -> None:
    """Solve L out = right."""
    for a in range(size):
        total = right[a]
        for k in range(a):
            total -= factor[a, k] * out[k]
        out[a] = total / factor[a, a]


@inner
def solve_upper(factor: Array, size: int, right: Array, out: Array) -> None:
    """Solve L^T out = right."""
    for a in range(size - 1, -1, -1):
        total = right[a]
        for k in range(a + 1, size):
            total -= factor[k, a] * out[k]
        out[a] = total / factor[a, a]


@inner
def log_determinant(factor: Array, size: int) -> float:
    """Give ln det L."""
    total = 0.0
    for a in range(size):
        total += math.log(factor[a, a])
    return total


@inner
def inside(x: float, y: float, model: Model) -> bool:
    """Tell whether the prior allows an emitter at (x, y)."""
    return model.x_low <= x <= model.x_high and model.y_low <= y <= model.y_high


@inner
def centred_here(x: float, y: float, model: Model, work: Scratch) -> bool:
    """Tell whether a move centred at (x, y) is made; asked alike of a move and its reverse."""
    return bool(work.everywhere[0]) or holds(model.active, x, y)


@inner
def out_of_reach(j: int, state: State, model: Model, work: Scratch) -> bool:
    """Tell early that no move of emitter j and its surroundings will be centred where it may."""
    x, y = state.emitters[0, j], state.emitters[1, j]
    return not (bool(work.everywhere[0]) or holds(model.reachable, x, y))


@inner
def holds(pixels: npt.NDArray[np.bool_], x: float, y: float) -> bool:
    """Tell whether the pixel at (x, y), or the nearest to it, is one of those marked."""
    rows, columns = pixels.shape
    r = min(max(math.floor(y + 0.5), 0), rows - 1)
    c = min(max(math.floor(x + 0.5), 0), columns - 1)
    return bool(pixels[r, c])


@inner
def count_within(x: float, y: float, square: float, first: int, last: int, state: State) -> int:
    """Count the emitters first..last-1 whose squared distance from (x, y) is at most `square`."""
    found = 0.0
    along_x, along_y = state.emitters[0, first:last], state.emitters[1, first:last]
    for j in range(along_x.size):
        dx, dy = along_x[j] - x, along_y[j] - y
        found += 1.0 if dx * dx + dy * dy <= square else 0.0
    return int(found)


@inner
def find_block(x: float, y: float, radius: float, state: State, work: Scratch) -> int:
    """Collect the emitters within radius of (x, y); give their number, or MAX_BLOCK + 1 if more."""
    m, square = 0, radius * radius
    for first in range(0, state.number[0], SEARCHED_AT_ONCE):
        last = min(first + SEARCHED_AT_ONCE, state.number[0])
        if count_within(x, y, square, first, last, state) == 0:
            continue
        for j in range(first, last):
            dx, dy = state.emitters[0, j] - x, state.emitters[1, j] - y
            if dx * dx + dy * dy <= square:
                if m == MAX_BLOCK:
                    return MAX_BLOCK + 1
                work.members[m] = j
                m += 1
    return m
