"""From many posterior draws of emitter sets to one list of emitters with intervals.

Draws of one frame differ in count and order. The list is built so that each of its rows gathers, in
as many draws as possible, one emitter: rows start from the draw that agrees best with the others,
every draw's emitters are assigned to rows (one to one, within a gate), rows move to the mean of
what they gathered, rows that divide the draws of one emitter among them become one, and what stays
unassigned in many draws becomes new rows. A row's probability to exist is the share of draws in
which it gathered an emitter; its intervals are quantiles over them, by the rule under which the
truth, being one more draw, lies below the k-th of M draws with probability k / (M + 1) (Weibull
1939; Hyndman and Fan 1996, type 6).

Neighbouring draws of a chain resemble one another, and M of them tell as much as fewer independent
ones. How many is estimated for every row, and its intervals are widened as Student's t widens those
of a Gaussian of unknown mean and variance.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy.spatial import KDTree

from sureloc.compiled.assignment import assign_draws, missed_points

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
QUANTILES = (0.025, 0.16, 0.84, 0.975)
SHARED = 0.1  # of the draws of the rarer of two rows: less, and both are the same emitter


@dataclass(frozen=True)
class Consensus:
    """Rows of one frame, each the summary of the emitters that the draws agree on.

    Attributes:
        x_px, y_px, photons: posterior means, shape (rows,).
        var_x_px2, var_y_px2, cov_xy_px2, var_photons: posterior second moments.
        x_quantiles, y_quantiles: `QUANTILES` of the draws, shape (rows, 4).
        p_exists: share of draws that hold the emitter.
        effective_draws: how many independent draws tell as much of the position.
        existence_draws: how many tell as much of `p_exists`.
    """

    x_px: Array
    y_px: Array
    photons: Array
    var_x_px2: Array
    var_y_px2: Array
    cov_xy_px2: Array
    var_photons: Array
    x_quantiles: Array
    y_quantiles: Array
    p_exists: Array
    effective_draws: Array
    existence_draws: Array

    def __len__(self) -> int:
        return self.x_px.size

    @property
    def places(self) -> Array:
        """Posterior mean x and y, px, shape (rows, 2)."""
        return np.stack([self.x_px, self.y_px], axis=1)

    def of_rows(self, chosen: npt.NDArray[np.bool_]) -> Consensus:
        """Give some of the rows."""
        return Consensus(*(getattr(self, field.name)[chosen] for field in fields(self)))


def join_rows(some: Consensus, others: Consensus) -> Consensus:
    """Put rows behind others."""
    pairs = ((getattr(some, f.name), getattr(others, f.name)) for f in fields(some))
    return Consensus(*(np.concatenate(pair) for pair in pairs))


def consensus(
    x_px: Array,
    y_px: Array,
    photons: Array,
    counts: Index,
    gate_px: float,
    least_probability: float,
    chains: int = 1,
) -> Consensus:
    """Summarise the draws of one frame.

    Args:
        x_px, y_px, photons: padded lists, shape (draws, max_emitters).
        counts: emitters of each draw, shape (draws,).
        gate_px: an emitter farther than this from a row does not belong to it.
        least_probability: rows that exist with less than this are left out.
        chains: the draws are those of so many chains, of equal length, one after another.

    Returns:
        The rows, most probable emitters of the frame, in no particular order.
    """
    draws = counts.size
    typical = int(np.argsort(counts)[draws // 2])
    rows = np.stack([x_px[typical, : counts[typical]], y_px[typical, : counts[typical]]], axis=1)

    def assign(rows: Array) -> Index:
        return np.asarray(assign_draws(rows, x_px, y_px, counts, gate_px))

    def centred(rows: Array) -> Array:
        return _means(rows, x_px, y_px, assign(rows))

    def joined(rows: Array, assigned: Index) -> tuple[Array, Index]:
        fewer = _join_doubles(rows, assigned, gate_px)
        if len(fewer) == len(rows):
            return rows, assigned
        fewer = centred(fewer)
        return fewer, assign(fewer)

    rows = centred(rows)
    assigned = assign(rows)
    for _ in range(6):
        before = rows
        kept = _drop_rare(rows, assigned, least_probability, draws)
        if len(kept) < len(rows):
            rows, assigned = kept, assign(kept)
        rows, assigned = joined(rows, assigned)
        missed = _missed(x_px, y_px, assigned, counts, gate_px, least_probability)
        if len(missed):
            rows = np.concatenate([rows, missed])
            assigned = assign(rows)
        rows = _means(rows, x_px, y_px, assigned)
        if np.array_equal(before, rows):
            break
        assigned = assign(rows)
    rows, assigned = joined(rows, assigned)
    return _summarise(rows, x_px, y_px, photons, assigned, least_probability, chains)


def _gathered(assigned: Index, size: int) -> Index:
    return np.bincount(assigned[assigned >= 0], minlength=size)


def _drop_rare(rows: Array, assigned: Index, least_probability: float, draws: int) -> Array:
    return rows[_gathered(assigned, len(rows)) >= least_probability * draws]


def _join_doubles(rows: Array, assigned: Index, gate_px: float) -> Array:
    """Put rows together that are nearer than the gate and share hardly any draw.

    They are one emitter, whose draws two rows divided among them.
    """
    if len(rows) < 2:
        return rows
    pairs = KDTree(rows).query_pairs(gate_px, output_type="ndarray")
    if not len(pairs):
        return rows
    near = np.zeros(len(rows) + 1, bool)  # the last one stands for no row, which is -1
    near[pairs] = True
    draw, column = np.nonzero(near[assigned])
    held = np.zeros((len(rows), len(assigned)), bool)
    held[assigned[draw, column], draw] = True
    number = held.sum(1)
    rows, gone = rows.copy(), np.zeros(len(rows), bool)
    apart = np.linalg.norm(rows[pairs[:, 0]] - rows[pairs[:, 1]], axis=1)
    for one, other in pairs[np.argsort(apart)]:
        both = np.count_nonzero(held[one] & held[other])
        if gone[one] or gone[other] or both > SHARED * min(number[one], number[other]):
            continue
        weight = number[[one, other]] / (number[one] + number[other])
        rows[one] = weight @ rows[[one, other]]
        gone[other] = True
    return rows[~gone]


def _missed(
    x_px: Array,
    y_px: Array,
    assigned: Index,
    counts: Index,
    gate_px: float,
    least_probability: float,
) -> Array:
    least = max(least_probability * counts.size, 1.0)
    found = missed_points(x_px, y_px, assigned, counts, 0.5 * gate_px, gate_px, least)
    return np.asarray(found)


def _means(rows: Array, x_px: Array, y_px: Array, assigned: Index) -> Array:
    taken = assigned >= 0
    number = np.maximum(_gathered(assigned, len(rows)), 1)
    mean_x = np.bincount(assigned[taken], x_px[taken], len(rows)) / number
    mean_y = np.bincount(assigned[taken], y_px[taken], len(rows)) / number
    return np.stack([mean_x, mean_y], axis=1)


def _summarise(
    rows: Array,
    x_px: Array,
    y_px: Array,
    photons: Array,
    assigned: Index,
    least_probability: float,
    chains: int,
) -> Consensus:
    draws = assigned.shape[0]
    draw, column = np.nonzero(assigned >= 0)
    row = assigned[draw, column]
    # A draw gives a row one emitter at most: (rows, draws), 0 where it has none.
    held = np.zeros((len(rows), draws), bool)
    held[row, draw] = True
    keep = held.sum(1) >= max(least_probability * draws, 2)
    held = held[keep]
    x, y, light = (
        _by_row(values[draw, column], row, draw, (len(rows), draws))[keep]
        for values in (x_px, y_px, photons)
    )
    of_size = held.sum(1).astype(np.float64)
    mean_x, apart_x = _mean_and_spread(x, held)
    mean_y, apart_y = _mean_and_spread(y, held)
    mean_light, apart_light = _mean_and_spread(light, held)
    effective = np.minimum(
        effective_number(apart_x, held, chains), effective_number(apart_y, held, chains)
    )
    widening = student_widening(effective) / student_widening(of_size)
    quantiles = []
    for values in (x, y):
        ordered = np.sort(np.where(held, values, np.inf), axis=1)
        centre = _quantile(ordered, of_size, 0.5)
        ends = np.stack([_quantile(ordered, of_size, p) for p in QUANTILES], axis=1)
        quantiles.append(centre[:, None] + widening * (ends - centre[:, None]))
    lost = effective / (effective - 1.0) / of_size
    return Consensus(
        mean_x,
        mean_y,
        mean_light,
        (apart_x**2).sum(1) * lost,
        (apart_y**2).sum(1) * lost,
        (apart_x * apart_y).sum(1) * lost,
        (apart_light**2).sum(1) / np.maximum(of_size - 1.0, 1.0),
        quantiles[0],
        quantiles[1],
        of_size / draws,
        effective,
        effective_number(held - held.mean(1)[:, None], np.ones_like(held), chains),
    )


def _by_row(values: Array, row: Index, draw: Index, shape: tuple[int, int]) -> Array:
    out = np.zeros(shape)
    out[row, draw] = values
    return out


def _mean_and_spread(values: Array, held: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """Give means over the draws held, (rows,), and what is left, 0 elsewhere, (rows, draws)."""
    mean = values.sum(1) / held.sum(1)
    return mean, np.where(held, values - mean[:, None], 0.0)


def _quantile(ordered: Array, size: Array, probability: float) -> Array:
    """Give the type 6 quantile of the first `size` values of every ordered row, (rows,)."""
    place = np.clip(probability * (size + 1.0) - 1.0, 0.0, size - 1.0)
    left = np.floor(place).astype(int)
    right = np.minimum(left + 1, size.astype(int) - 1)
    row = np.arange(len(ordered))
    low, high = ordered[row, left], ordered[row, right]
    return np.asarray(low + (place - left) * (high - low))


def effective_number(spread: Array, held: npt.NDArray[np.bool_], chains: int) -> Array:
    """Give how many independent values tell as much of a mean as those of some chains.

    Args:
        spread: values less their mean, 0 for draws that have none, shape (rows, draws); draws are
            those of all chains, one chain after another.
        held: which draws have a value, shape (rows, draws).
        chains: number of chains, of equal length.

    Returns:
        For each row, n over 1 + 2 * (sum of autocorrelations), summed while neighbouring pairs of
        them are positive (Geyer 1992), round the mean of all chains: chains that disagree count as
        correlation that never ends (Gelman and Rubin 1992). Between 2 and n.
    """
    rows, draws = spread.shape
    length = draws // chains
    apart = (rows, chains, length)
    padded = 2 * length
    power = (np.abs(np.fft.rfft(spread.reshape(apart), padded)) ** 2).sum(1)
    pairs = (np.abs(np.fft.rfft(held.reshape(apart).astype(np.float64), padded)) ** 2).sum(1)
    covariance = np.fft.irfft(power)[:, :length]
    covariance /= np.maximum(np.fft.irfft(pairs)[:, :length], 1.0)
    variance = covariance[:, :1]
    correlation = covariance / np.where(variance > 0, variance, 1.0)
    couples = correlation[:, : 2 * (length // 2)].reshape(rows, length // 2, 2).sum(2)
    lasting = np.logical_and.accumulate(couples > 0, axis=1)
    time = np.maximum(2.0 * np.where(lasting, couples, 0.0).sum(1) - 1.0, 1.0)
    number = held.sum(1).astype(np.float64)
    effective = np.minimum(np.maximum(number / time, 2.0), number)
    return np.asarray(np.where(variance[:, 0] > 0, effective, number))


def student_widening(size: Array) -> Array:
    """Give how much wider intervals for one more value are than if its law were known.

    For a Gaussian whose mean and variance come from n values it is t(n - 1) * sqrt(1 + 1 / n) over
    the normal quantile (Student 1908).

    Args:
        size: n, 2 or larger, shape (rows,).

    Returns:
        One factor for each of `QUANTILES`, shape (rows, 4).
    """
    n = np.asarray(size, dtype=np.float64)[:, None]
    probability = np.array(QUANTILES)
    student = special.stdtrit(n - 1.0, probability) * np.sqrt(1.0 + 1.0 / n)
    return np.asarray(student / special.ndtri(probability))
