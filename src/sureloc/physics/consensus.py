"""From many posterior draws of emitter sets to one list of emitters with intervals.

Draws of one frame differ in count and order. The list is built so that each of its rows gathers, in
as many draws as possible, one emitter: rows start from the draw that agrees best with the others,
every draw's emitters are assigned to rows (one to one, within a gate), rows move to the mean of
what they gathered, and what stays unassigned in many draws becomes new rows. A row's probability to
exist is the share of draws in which it gathered an emitter; its intervals are quantiles over them,
by the rule under which the truth, being one more draw, lies below the k-th of M draws with
probability k / (M + 1) (Weibull 1939; Hyndman and Fan 1996, type 6).

Neighbouring draws of a chain resemble one another, and M of them tell as much as fewer independent
ones. How many is estimated for every row, and its intervals are widened as Student's t widens those
of a Gaussian of unknown mean and variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import special

from sureloc.compiled.assignment import assign_draws, densest_point

Array = npt.NDArray[np.float64]
QUANTILES = (0.025, 0.16, 0.84, 0.975)


@dataclass(frozen=True)
class Consensus:
    """Rows of one frame, each the summary of the emitters that the draws agree on.

    Attributes:
        x_px, y_px, photons: posterior means, shape (rows,).
        var_x_px2, var_y_px2, cov_xy_px2, var_photons: posterior second moments.
        x_quantiles, y_quantiles: `QUANTILES` of the draws, shape (rows, 4).
        p_exists: share of draws that hold the emitter.
        effective_draws: how many independent draws tell as much of the position.
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


def consensus(
    x_px: Array,
    y_px: Array,
    photons: Array,
    counts: npt.NDArray[np.int64],
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
    assigned = assign_draws(rows, x_px, y_px, counts, gate_px)
    for _ in range(6):
        rows = _drop_rare(rows, assigned, least_probability, draws)
        rows = _add_missed(rows, x_px, y_px, counts, gate_px, least_probability)
        assigned = assign_draws(rows, x_px, y_px, counts, gate_px)
        rows = _means(rows, x_px, y_px, assigned)
        assigned = assign_draws(rows, x_px, y_px, counts, gate_px)
    return _summarise(rows, x_px, y_px, photons, assigned, least_probability, chains)


def _gathered(assigned: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    return np.bincount(assigned[assigned >= 0], minlength=size)


def _drop_rare(
    rows: Array, assigned: npt.NDArray[np.int64], least_probability: float, draws: int
) -> Array:
    return rows[_gathered(assigned, len(rows)) >= least_probability * draws]


def _add_missed(
    rows: Array,
    x_px: Array,
    y_px: Array,
    counts: npt.NDArray[np.int64],
    gate_px: float,
    least_probability: float,
) -> Array:
    for _ in range(len(rows) + 20):
        assigned = assign_draws(rows, x_px, y_px, counts, gate_px)
        x, y, near = densest_point(x_px, y_px, assigned, counts, 0.5 * gate_px)
        if near < max(least_probability * counts.size, 1):
            break
        rows = np.concatenate([rows, [[x, y]]])
    return rows


def _means(rows: Array, x_px: Array, y_px: Array, assigned: npt.NDArray[np.int64]) -> Array:
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
    assigned: npt.NDArray[np.int64],
    least_probability: float,
    chains: int,
) -> Consensus:
    draws = assigned.shape[0]
    taken = assigned >= 0
    row, number = assigned[taken], np.nonzero(taken)[0]
    values = np.stack([x_px[taken], y_px[taken], photons[taken]], axis=1)
    order = np.argsort(row, kind="stable")
    row, number, values = row[order], number[order], values[order]
    bounds = np.searchsorted(row, np.arange(len(rows) + 1))
    parts = [slice(a, b) for a, b in pairwise(bounds) if b - a >= max(least_probability * draws, 2)]
    keep = [values[part] for part in parts]
    size = len(keep)
    mean = np.array([v.mean(0) for v in keep]).reshape(size, 3)
    cov = np.array([np.cov(v[:, :2].T) for v in keep]).reshape(size, 2, 2)
    effective = np.array(
        [
            min(effective_number(v[:, axis], number[part], draws, chains) for axis in (0, 1))
            for v, part in zip(keep, parts, strict=True)
        ]
    ).reshape(size)
    quantiles = np.array([np.quantile(v[:, :2], QUANTILES, axis=0, method="weibull") for v in keep])
    quantiles = quantiles.reshape(size, len(QUANTILES), 2)
    centre = np.array([np.median(v[:, :2], axis=0) for v in keep]).reshape(size, 1, 2)
    of_size = np.array([len(v) for v in keep], dtype=np.float64).reshape(size)
    widening = student_widening(effective) / student_widening(of_size)
    quantiles = centre + widening[:, :, None] * (quantiles - centre)
    lost = effective / (effective - 1.0) * (of_size - 1.0) / of_size
    cov *= lost[:, None, None]
    return Consensus(
        mean[:, 0],
        mean[:, 1],
        mean[:, 2],
        cov[:, 0, 0],
        cov[:, 1, 1],
        cov[:, 0, 1],
        np.array([v[:, 2].var(ddof=1) for v in keep]).reshape(size),
        quantiles[:, :, 0],
        quantiles[:, :, 1],
        of_size / draws,
        effective,
    )


def effective_number(
    values: Array, number: npt.NDArray[np.int64], draws: int, chains: int
) -> float:
    """Give how many independent values tell as much of a mean as those of some chains.

    Args:
        values: of the draws that have one, shape (n,).
        number: which draws these are, of `draws` in all, ascending, shape (n,).
        draws: draws of all chains together, one chain after another.
        chains: number of chains, of equal length.

    Returns:
        n over 1 + 2 * (sum of autocorrelations), summed while neighbouring pairs of them are
        positive (Geyer 1992), round the mean of all chains: chains that disagree count as
        correlation that never ends (Gelman and Rubin 1992). Between 2 and n.
    """
    length = draws // chains
    spread = np.zeros((chains, length))
    held = np.zeros((chains, length))
    spread.ravel()[number] = values - values.mean()
    held.ravel()[number] = 1.0
    padded = 2 * length
    power = (np.abs(np.fft.rfft(spread, padded)) ** 2).sum(0)
    pairs = (np.abs(np.fft.rfft(held, padded)) ** 2).sum(0)
    covariance = np.fft.irfft(power)[:length]
    covariance /= np.maximum(np.fft.irfft(pairs)[:length], 1.0)
    if covariance[0] <= 0:
        return float(len(values))
    correlation = covariance / covariance[0]
    couples = correlation[: 2 * (length // 2)].reshape(-1, 2).sum(1)
    ends = np.flatnonzero(couples <= 0)
    last = ends[0] if ends.size else couples.size
    time = max(2.0 * float(couples[:last].sum()) - 1.0, 1.0)
    return float(min(max(len(values) / time, 2.0), len(values)))


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
