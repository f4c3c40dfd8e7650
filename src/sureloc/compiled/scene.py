"""The state of a chain over emitter sets and the arithmetic that all its moves share (Numba).

Coordinates are in camera pixels with pixel centres at integers; counts are photo-electrons.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from sureloc.compiled.jit import inner, spliced
from sureloc.compiled.logarithm import quick_log

Array = npt.NDArray[np.float64]

MAX_BLOCK = 5  # emitters that move together; discs that hold more are left alone
POSITION_PRECISION = 1.0  # 1/px^2, keeps the proposal of a faint emitter from running away
MAX_REDRAW = 4  # most emitters that a redraw considers in its disc
SEARCH_STEPS = 4  # a redraw looks for the next emitter on a grid of radius / SEARCH_STEPS
SEARCH_SIDE = 2 * SEARCH_STEPS + 1
SPLIT_SIGMAS = 0.8  # standard deviation of a split's offset, in PSF widths, per axis
NEAR_SIGMAS = 2.5  # a block's proposal looks this far beyond its emitters; the target looks farther
PAIR_SIGMAS = 2.5  # emitters closer than this, in PSF widths, may merge
DATA_DRIVEN_BIRTHS = 0.5  # share of births whose photons come from the residual
ROAMING = 0.02  # share of moves that may be centred anywhere, where others are not
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

    counts: electrons + v / F^2, (rows, columns). shift: v / F^2. weight: 1 / F^2, or 0 for pixels
    to ignore.
    """

    counts: Array
    shift: Array
    weight: Array


class Model(NamedTuple):
    """Everything that stays fixed while a chain runs.

    sigma_x, sigma_y, reach: PSF widths and the half width of its support, px. density: emitters per
    px^2. x_low, x_high, y_low, y_high: the rectangle where emitters may lie. log_photons_low,
    log_photons_step, log_density: the photon prior, log p(ln N) on a regular grid of ln N.
    cumulative: its distribution function on the same grid. photons_mean, photons_sd: its moments.
    basis_y, basis_x: hat functions of the background, (knots, rows) and (knots, columns).
    background_mean: (knots_y, knots_x). background_sd: its prior standard deviation; 0 is fixed.
    guide: where births are proposed, a density per px^2 on `guide_scale` cells per px, covering
    the frame and `guide_margin` px round it, from the corner (-0.5 - guide_margin) of both.
    guide_cumulative: its flat distribution function.
    map: ln of the density at a place over `density`, on `map_scale` cells per px like the guide;
    empty where emitters are spread evenly.
    moves: cumulative probabilities of the eight kinds of move.
    active: pixels in which moves are centred, all but `ROAMING` of them; empty where they are
    everywhere.
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
    basis_y: Array
    basis_x: Array
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


class State(NamedTuple):
    """Emitters (max, 3) as x, y, photons; their number (1,); rate (rows, columns); knots."""

    emitters: Array
    number: npt.NDArray[np.int64]
    rate: Array
    knots: Array


class Scratch(NamedTuple):
    """Work space of one chain."""

    members: npt.NDArray[np.int64]
    old: Array
    new: Array
    shape_x: Array
    slope_x: Array
    shape_y: Array
    slope_y: Array
    rate: Array
    gradient: Array
    fisher: Array
    step: Array
    noise: Array
    base: Array
    fits: Array
    factors: Array
    evidence: Array
    search_x: Array
    search_y: Array
    search_score: Array
    search_information: Array
    row_weight: Array
    row_score: Array
    pairs: Array
    order: npt.NDArray[np.int64]
    direction: npt.NDArray[np.int64]
    everywhere: npt.NDArray[np.bool_]


def make_scratch(rows: int, columns: int) -> Scratch:
    """Allocate the work space of a chain on a frame of rows x columns."""
    size = 3 * MAX_BLOCK
    side = max(rows, columns)
    return Scratch(
        np.empty(MAX_BLOCK, np.int64),
        np.empty((MAX_BLOCK, 3)),
        np.empty((MAX_BLOCK, 3)),
        np.empty((MAX_BLOCK, side)),
        np.empty((MAX_BLOCK, side)),
        np.empty((MAX_BLOCK, side)),
        np.empty((MAX_BLOCK, side)),
        np.empty((rows, columns)),
        np.empty(size),
        np.empty((size, size)),
        np.empty(size),
        np.empty(size),
        np.empty((rows, columns)),
        np.empty((MAX_REDRAW, MAX_REDRAW, 3)),
        np.empty((MAX_REDRAW, 3 * MAX_REDRAW, 3 * MAX_REDRAW)),
        np.empty(MAX_REDRAW),
        np.empty((SEARCH_SIDE, side)),
        np.empty((SEARCH_SIDE, side)),
        np.empty((SEARCH_SIDE, side)),
        np.empty((SEARCH_SIDE, side)),
        np.empty(side),
        np.empty(side),
        np.empty((2 * MAX_BLOCK * (MAX_BLOCK + 1), side)),
        np.empty(MAX_REDRAW, np.int64),
        np.empty(MAX_REDRAW, np.int64),
        np.ones(1, np.bool_),
    )


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
    position: float, sigma: float, first: int, size: int, shape: Array, slope: Array
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
    """Give (first row, row count, first column, column count) of the pixels within reach."""
    first_row = max(math.floor(y_low - reach), 0)
    last_row = min(math.ceil(y_high + reach), rows - 1)
    first_column = max(math.floor(x_low - reach), 0)
    last_column = min(math.ceil(x_high + reach), columns - 1)
    return (
        first_row,
        max(last_row - first_row + 1, 0),
        first_column,
        max(last_column - first_column + 1, 0),
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
def row_of(image: Array, patch: tuple[int, int, int, int], row: int) -> Array:
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
    rate: Array,
    work: Scratch,
) -> None:
    """Add (sign 1) or subtract (sign -1) m emitters, whose shapes are filled, to a patch's rate."""
    for r in range(patch[1]):
        row = row_of(rate, patch, r)
        for j in range(m):
            amplitude = sign * emitters[j, 2] * work.shape_y[j, r]
            shape = work.shape_x[j]
            for c in range(row.size):
                row[c] += amplitude * shape[c]


@inner
def copy_patch(patch: tuple[int, int, int, int], source: Array, target: Array) -> None:
    """Copy the pixels of a patch, given as first row, rows, first column, columns."""
    for r in range(patch[1]):
        here, there = row_of(source, patch, r), row_of(target, patch, r)
        for c in range(here.size):
            there[c] = here[c]


@inner
def log_likelihood_change(
    frame: Frame, patch: tuple[int, int, int, int], old: Array, new: Array
) -> float:
    """Give the change of the log-likelihood on a patch; -inf if a new rate is not positive."""
    change, impossible = 0.0, 0.0
    for r in range(patch[1]):
        weight, counts = row_of(frame.weight, patch, r), row_of(frame.counts, patch, r)
        before, after = row_of(old, patch, r), row_of(new, patch, r)
        # No way out of this loop, so that it runs on several pixels at once.
        for c in range(weight.size):
            impossible += 0.0 if after[c] > 0.0 else 1.0
            ratio = after[c] / before[c]
            change += weight[c] * (counts[c] * quick_log(ratio) - after[c] + before[c])
    return change if impossible == 0.0 else -np.inf


@inner
def fill_quadratic(
    emitters: Array,
    m: int,
    patch: tuple[int, int, int, int],
    frame: Frame,
    rate: Array,
    model: Model,
    work: Scratch,
) -> None:
    """Fill gradient and Fisher matrix of the log-likelihood by the m emitters' (x, y, N).

    The pixels of the patch, on which shapes are filled, are summed.

    An emitter's image is a product of shapes along x and y, so are the derivatives: each row's
    pixels are summed over x for every pair of shape and slope, and the sums serve all elements.
    """
    size, columns = 3 * m, patch[3]
    photon_precision = 1.0 / (2.0 * model.photons_sd) ** 2
    for a in range(size):
        work.gradient[a] = 0.0
        for b in range(a + 1):
            work.fisher[a, b] = 0.0
        work.fisher[a, a] = photon_precision if a % 3 == 2 else POSITION_PRECISION
    pair = 0
    for j in range(m):
        shape_first, slope_first = work.shape_x[j], work.slope_x[j]
        for k in range(j + 1):
            shape_second, slope_second = work.shape_x[k], work.slope_x[k]
            shapes, slope_one = work.pairs[pair], work.pairs[pair + 1]
            slope_other, slopes = work.pairs[pair + 2], work.pairs[pair + 3]
            for c in range(columns):
                shapes[c] = shape_first[c] * shape_second[c]
                slope_one[c] = slope_first[c] * shape_second[c]
                slope_other[c] = shape_first[c] * slope_second[c]
                slopes[c] = slope_first[c] * slope_second[c]
            pair += 4
    row_weight, row_score = work.row_weight, work.row_score
    for r in range(patch[1]):
        weight, counts = row_of(frame.weight, patch, r), row_of(frame.counts, patch, r)
        here = row_of(rate, patch, r)
        for c in range(columns):
            row_weight[c] = weight[c] / here[c]
            row_score[c] = row_weight[c] * (counts[c] - here[c])
        pair = 0
        for j in range(m):
            n_j = emitters[j, 2]
            shape_j, slope_j = work.shape_y[j, r], work.slope_y[j, r]
            shape_x, slope_x = work.shape_x[j], work.slope_x[j]
            score_shape, score_slope = 0.0, 0.0
            for c in range(columns):
                score_shape += row_score[c] * shape_x[c]
                score_slope += row_score[c] * slope_x[c]
            work.gradient[3 * j] += n_j * score_slope * shape_j
            work.gradient[3 * j + 1] += n_j * score_shape * slope_j
            work.gradient[3 * j + 2] += score_shape * shape_j
            for k in range(j + 1):
                shapes, slope_one = work.pairs[pair], work.pairs[pair + 1]
                slope_other, slopes = work.pairs[pair + 2], work.pairs[pair + 3]
                sum_shapes, sum_one, sum_other, sum_slopes = 0.0, 0.0, 0.0, 0.0
                for c in range(columns):
                    sum_shapes += row_weight[c] * shapes[c]
                    sum_one += row_weight[c] * slope_one[c]
                    sum_other += row_weight[c] * slope_other[c]
                    sum_slopes += row_weight[c] * slopes[c]
                pair += 4
                n_k = emitters[k, 2]
                shape_k, slope_k = work.shape_y[k, r], work.slope_y[k, r]
                fisher = work.fisher[3 * j : 3 * j + 3, 3 * k : 3 * k + 3]
                fisher[0, 0] += n_j * n_k * sum_slopes * shape_j * shape_k
                fisher[1, 0] += n_j * n_k * sum_other * slope_j * shape_k
                fisher[1, 1] += n_j * n_k * sum_shapes * slope_j * slope_k
                fisher[2, 0] += n_k * sum_other * shape_j * shape_k
                fisher[2, 1] += n_k * sum_shapes * shape_j * slope_k
                fisher[2, 2] += sum_shapes * shape_j * shape_k
                if k < j:
                    fisher[0, 1] += n_j * n_k * sum_one * shape_j * slope_k
                    fisher[0, 2] += n_j * sum_one * shape_j * shape_k
                    fisher[1, 2] += n_j * sum_shapes * slope_j * shape_k


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
    if work.everywhere[0]:
        return True
    rows, columns = model.active.shape
    r = min(max(math.floor(y + 0.5), 0), rows - 1)
    c = min(max(math.floor(x + 0.5), 0), columns - 1)
    return bool(model.active[r, c])


@inner
def find_block(x: float, y: float, radius: float, state: State, work: Scratch) -> int:
    """Collect the emitters within radius of (x, y); give their number, or MAX_BLOCK + 1 if more."""
    m = 0
    for j in range(state.number[0]):
        dx = state.emitters[j, 0] - x
        dy = state.emitters[j, 1] - y
        if dx * dx + dy * dy <= radius * radius:
            if m == MAX_BLOCK:
                return MAX_BLOCK + 1
            work.members[m] = j
            m += 1
    return m
