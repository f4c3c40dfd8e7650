"""Clusters, rings and rulers measured through posterior draws, with intervals.

Every quantity is measured in each draw anew. Two things make it uncertain: where molecules are and
whether they exist, which draws tell by differing from each other; and that these structures and no
others were seen, which drawing them anew (bootstrap) tells. As completed data do in multiple
imputation (Rubin 1987), both variances add up: within draws, and (1 + 1 / m) times between m draws.

A position in a draw lies sqrt(2) times its sigma from the molecule: it is as far from the estimate
as the estimate is from the truth. Fits here know that scatter and do not mistake it for size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, sparse, spatial, special
from scipy.sparse import csgraph

from sureloc.errors import InputError

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

NOISE = -1  # label of points in no cluster
LEVEL = 0.95
RESAMPLES = 500
_FIRST_CLIMBS, _CLIMBS = 8, 200  # from every start, and from the best
_LEAST_POINTS = 5  # of a structure in a draw, before it is fitted
_NEAREST_ROW_SIGMAS = 6.0  # a draw's point further from every row takes the frame's median sigma


@dataclass(frozen=True)
class Measured:
    """A number with its error bar.

    Attributes:
        value: mean over draws.
        sd: standard deviation, of both kinds of chance together.
        low: lower end of the 95 % interval.
        high: its upper end.
        sd_draws: how much of it comes from positions and existence (sd between draws).
        sd_sampling: how much from the structures that happened to be seen (sd within a draw).
        structures: how many structures it rests on.
        by_draw: the number in each draw, (draws,).
    """

    value: float
    sd: float
    low: float
    high: float
    sd_draws: float
    sd_sampling: float
    structures: int
    by_draw: Array


def over_draws(values: Array, variances: Array, structures: int) -> Measured:
    """Put estimates from draws together (Rubin 1987).

    Args:
        values: estimate in each draw, (draws,).
        variances: its sampling variance within each draw, (draws,).
        structures: how many independent structures each rests on.

    Raises:
        InputError: there are fewer than two draws.
    """
    draws = values.size
    if draws < 2:
        raise InputError(f"There are {draws} draws with a value; an error bar needs two or more.")
    within, between = float(variances.mean()), float(np.var(values, ddof=1))
    total = within + (1 + 1 / draws) * between
    # Degrees of freedom of Rubin's t, no more than the structures have themselves (Barnard & Rubin
    # 1999).
    share = (1 + 1 / draws) * between / total if total > 0 else 0.0
    freedom = max(structures - 1, 1) * (1 - share) if share < 1 else 1.0
    if share > 0:
        freedom = 1 / (share**2 / (draws - 1) + 1 / max(freedom, 1.0))
    reach = float(special.stdtrit(max(freedom, 1.0), 0.5 + LEVEL / 2)) * math.sqrt(total)
    value = float(values.mean())
    return Measured(
        value,
        math.sqrt(total),
        value - reach,
        value + reach,
        math.sqrt(between),
        math.sqrt(within),
        structures,
        values,
    )


# --- Clusters -----------------------------------------------------------------------------------


def dbscan(points: Array, radius_nm: float, least: int) -> Index:
    """Give each point the number of its cluster (Ester et al. 1996).

    A point with at least `least` points within the radius, itself included, is a core point; core
    points within the radius of each other are one cluster, to which points near a core point belong
    as well (the nearest decides).

    Args:
        points: positions, (n, 2).
        radius_nm: the radius, nm.
        least: points that make a core.

    Returns:
        Cluster of each point, from 0, or `NOISE`, (n,).

    Raises:
        InputError: the radius or `least` is out of range.
    """
    if not radius_nm > 0 or least < 1:
        raise InputError(
            f"radius_nm is {radius_nm} and least is {least}; they must be above 0 and at least 1."
        )
    labels = np.full(len(points), NOISE, np.int64)
    if not len(points):
        return labels
    tree = spatial.cKDTree(points)
    core = np.asarray(tree.query_ball_point(points, radius_nm, return_length=True)) >= least
    at = np.flatnonzero(core)
    if not at.size:
        return labels
    cores = spatial.cKDTree(points[at])
    pairs = cores.query_pairs(radius_nm, output_type="ndarray")
    links = sparse.coo_matrix(
        (np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(at.size, at.size)
    )
    _, component = csgraph.connected_components(links, directed=False)
    labels[at] = component
    distance, nearest = cores.query(points[~core])
    labels[~core] = np.where(
        distance <= radius_nm, component[np.minimum(nearest, at.size - 1)], NOISE
    )
    return labels


def cluster_count(draws: pd.DataFrame, radius_nm: float, least: int, groups: int = 10) -> Measured:
    """Count clusters in each draw; the error of having seen these frames by leaving out some.

    Args:
        draws: rows with `sureloc.table.DRAW_COLUMNS`.
        radius_nm, least: as in `dbscan`; a draw holds every frame's molecules once.
        groups: parts of the frames, each of which is left out once (jackknife).
    """
    counts, variances = [], []
    for _, draw in draws.groupby("draw"):
        points = draw[["x_nm", "y_nm"]].to_numpy(float)
        part = draw["frame"].to_numpy(np.int64) % groups
        counts.append(_clusters(points, radius_nm, least))
        less = np.array([_clusters(points[part != k], radius_nm, least) for k in range(groups)])
        variances.append((groups - 1) * float(np.var(less)))
    result = over_draws(np.array(counts, float), np.array(variances), groups)
    # Nobody counts less than nothing.
    return Measured(
        result.value,
        result.sd,
        max(result.low, 0.0),
        result.high,
        result.sd_draws,
        result.sd_sampling,
        round(result.value),
        result.by_draw,
    )


def _clusters(points: Array, radius_nm: float, least: int) -> int:
    return int(dbscan(points, radius_nm, least).max(initial=NOISE)) + 1


# --- Which points of a draw belong to which structure -------------------------------------------


def scatter_nm(draws: pd.DataFrame, table: pd.DataFrame) -> Array:
    """Give how far a draw's point is from its molecule, sd per axis, nm: sqrt(2) times sigma.

    The sigma is that of the nearest row of the same frame; the frame's median where none is near.

    Args:
        draws: rows with `sureloc.table.DRAW_COLUMNS`.
        table: localizations of the same run.

    Returns:
        Scatter of each point, (points,).
    """
    sigma = np.sqrt((table[["sigma_x_nm", "sigma_y_nm"]].to_numpy(float) ** 2).mean(1))
    usual = float(np.median(sigma)) if sigma.size else 0.0
    at, place = (part[["x_nm", "y_nm"]].to_numpy(float) for part in (draws, table))
    found = np.full(len(draws), usual)
    rows_of = table.groupby("frame").indices
    for frame, points in draws.groupby("frame").indices.items():
        rows = rows_of.get(frame)
        if rows is None:
            continue
        distance, nearest = spatial.cKDTree(place[rows]).query(at[points])
        of_row = sigma[rows][nearest]
        near = distance <= _NEAREST_ROW_SIGMAS * of_row
        found[points] = np.where(near, of_row, np.median(sigma[rows]))
    return np.asarray(math.sqrt(2) * found)


@dataclass(frozen=True)
class Places:
    """Where structures stand alone.

    Attributes:
        centre_nm: middle of each, (structures, 2).
        reach_nm: points within it belong to a structure.
    """

    centre_nm: Array
    reach_nm: float


def lone_structures(
    table: pd.DataFrame,
    radius_nm: float,
    least: int,
    size_nm: tuple[float, float],
    apart_nm: float | None = None,
) -> Places:
    """Find clusters of rows that have the size of one structure and stand alone.

    A cluster's middle is halfway between its outer rows along x and y (5 % lie beyond at either
    end), its size the distance from there that holds 90 % of its rows.

    Args:
        table: localizations.
        radius_nm, least: as in `dbscan`.
        size_nm: smallest and largest size; what is larger is several structures, what is smaller is
            part of one.
        apart_nm: distance from the next cluster's middle; three times the largest size if left out.
    """
    points = table[["x_nm", "y_nm"]].to_numpy(float)
    labels = dbscan(points, radius_nm, least)
    members = [points[labels == k] for k in range(int(labels.max(initial=NOISE)) + 1)]
    middles = [np.percentile(one, (5, 95), axis=0).mean(0) for one in members]
    centre = np.array(middles).reshape(-1, 2)
    size = np.array(
        [np.percentile(np.hypot(*(m - c).T), 90) for m, c in zip(members, centre, strict=True)]
    )
    low, high = size_nm
    good = (size >= low) & (size <= high)
    if len(centre) > 1:
        distance = spatial.cKDTree(centre).query(centre, k=2)[0][:, 1]
        good &= distance > (3 * high if apart_nm is None else apart_nm)
    return Places(centre[good], 1.5 * high)


def _by_structure(draw: pd.DataFrame, scatter: Array, places: Places) -> list[tuple[Array, Array]]:
    """Give points and scatter of one draw that belong to each place."""
    points = draw[["x_nm", "y_nm"]].to_numpy(float)
    if not len(points) or not len(places.centre_nm):
        return [(np.empty((0, 2)), np.empty(0)) for _ in places.centre_nm]
    near = spatial.cKDTree(points).query_ball_point(places.centre_nm, places.reach_nm)
    return [(points[np.array(k, np.int64)], scatter[np.array(k, np.int64)]) for k in near]


def _mean_over_structures(
    draws: pd.DataFrame,
    table: pd.DataFrame,
    places: Places,
    measure: Callable[[Array, Array], float],
    rng: np.random.Generator,
    resamples: int,
) -> Measured:
    """Measure every structure in every draw; give the mean over structures with its interval."""
    scatter = scatter_nm(draws, table)
    values = np.array(
        [
            [measure(*one) for one in _by_structure(draws.iloc[rows], scatter[rows], places)]
            for rows in draws.groupby("draw").indices.values()
        ]
    ).reshape(draws["draw"].nunique(), -1)
    # A structure that is not to be measured in half of the draws is left out of all.
    values = values[:, np.isfinite(values).mean(0) > 0.5]
    if values.shape[1] < 2:
        raise InputError(
            f"Only {values.shape[1]} structure(s) could be measured; at least two are needed. Use "
            "a longer movie, or allow other sizes."
        )
    picks = rng.integers(values.shape[1], size=(resamples, values.shape[1]))
    means = np.nanmean(values, axis=1)
    variances = np.array([np.nanmean(draw[picks], axis=1).var(ddof=1) for draw in values])
    number = values.shape[1]
    return over_draws(means, variances * number / (number - 1), number)


# --- Rings --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ring:
    """A fitted ring: centre (x, y) and radius, nm."""

    centre_nm: tuple[float, float]
    radius_nm: float


def fit_ring(points: Array, scatter_nm: Array) -> Ring | None:
    """Fit a ring by maximum likelihood, points being scattered about it.

    A point at the distance d from the centre, scattered by s per axis, has the density
    d / s^2 exp(-(d^2 + R^2) / (2 s^2)) I0(d R / s^2) (Rice 1944), whatever its angle.

    Args:
        points: positions, (n, 2).
        scatter_nm: their standard deviation per axis, (n,).

    Returns:
        The ring, or None where fewer than 5 points are there or the fit does not end.
    """
    if len(points) < _LEAST_POINTS:
        return None
    s2 = scatter_nm**2

    def cost(parameters: Array) -> float:
        x, y, radius = parameters
        d = np.hypot(points[:, 0] - x, points[:, 1] - y)
        # The density over the plane, not over d: its volume does not depend on the centre.
        bent = special.i0e(d * radius / s2)
        return float(((d - radius) ** 2 / (2 * s2) - np.log(np.maximum(bent, 1e-300))).sum())

    start = _circle(points)
    found = optimize.minimize(
        cost, start, method="L-BFGS-B", bounds=[(None, None), (None, None), (1e-3, None)]
    )
    if not found.success:
        return None
    return Ring((float(found.x[0]), float(found.x[1])), float(found.x[2]))


def _circle(points: Array) -> Array:
    """Give centre and radius of the circle of least algebraic squares (Kasa 1976)."""
    middle = points.mean(0)
    moved = points - middle
    matrix = np.column_stack([2 * moved, np.ones(len(points))])
    solution = np.linalg.lstsq(matrix, (moved**2).sum(1), rcond=None)[0]
    radius = math.sqrt(max(float(solution[2] + solution[:2] @ solution[:2]), 1.0))
    spread = float(np.hypot(*moved.T).mean())
    # Points on a short arc send the circle far away.
    if np.hypot(*solution[:2]) > 2 * spread:
        return np.array([*middle, spread])
    return np.array([*(middle + solution[:2]), radius])


def ring_radius(
    draws: pd.DataFrame,
    table: pd.DataFrame,
    places: Places,
    rng: np.random.Generator,
    linker_nm: float = 0.0,
    resamples: int = RESAMPLES,
) -> Measured:
    """Measure the mean radius of rings, such as nuclear pores.

    Args:
        draws: rows with `sureloc.table.DRAW_COLUMNS`.
        table: localizations of the same run, for the precision.
        places: the rings (`lone_structures`).
        rng: source of the resamples.
        linker_nm: scatter per axis of labels about the ring.
        resamples: of the rings.

    Raises:
        InputError: fewer than two rings could be measured.
    """

    def measure(points: Array, scatter: Array) -> float:
        ring = fit_ring(points, np.hypot(scatter, linker_nm))
        return ring.radius_nm if ring and ring.radius_nm < places.reach_nm else math.nan

    return _mean_over_structures(draws, table, places, measure, rng, resamples)


# --- Rulers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ruler:
    """A fitted ruler: middle (x, y), angle from the x axis towards y, distance of its spots, nm."""

    middle_nm: tuple[float, float]
    angle_deg: float
    spacing_nm: float


def fit_ruler(points: Array, scatter_nm: Array, spots: int) -> Ruler | None:
    """Fit equally spaced spots on a line by maximum likelihood, points being scattered about them.

    Which spot a point belongs to is not known: it may be each, all being as likely.

    Args:
        points: positions, (n, 2).
        scatter_nm: their standard deviation per axis, (n,).
        spots: how many spots a ruler has.

    Returns:
        The ruler, or None where fewer than 5 points are there.

    Raises:
        InputError: a ruler has fewer than two spots.
    """
    if spots < 2:
        raise InputError(f"spots is {spots}; a distance needs two or more.")
    if len(points) < _LEAST_POINTS:
        return None
    middle = 0.5 * (points.min(0) + points.max(0))
    moved = points - middle
    axis = np.linalg.svd(moved - moved.mean(0), full_matrices=False)[2][0]
    length = float(np.ptp(moved @ axis))
    best = (math.inf, np.zeros(2), np.zeros(2))
    # The outermost points lie beyond the outermost spots; and an end spot may be missing.
    for spacing in length / (spots - 1) * np.array([0.85, 1.0, (spots - 1) / max(spots - 2, 1)]):
        for shift in (-0.5, 0.0, 0.5) if spots > 2 else (0.0,):
            start = shift * spacing * axis, spacing * axis
            climbed = _climbed(moved, scatter_nm, spots, *start, _FIRST_CLIMBS)
            best = min(best, climbed, key=lambda one: one[0])
    _, centre, step = _climbed(moved, scatter_nm, spots, *best[1:], _CLIMBS)
    angle = math.degrees(math.atan2(step[1], step[0])) % 180.0
    x, y = (float(v) for v in middle + centre)
    return Ruler((x, y), angle, float(np.hypot(*step)))


def _climbed(
    points: Array, scatter_nm: Array, spots: int, centre: Array, step: Array, climbs: int
) -> tuple[float, Array, Array]:
    """Climb to the likeliest ruler from a start; give minus its log-likelihood, middle and step.

    Given how likely each point belongs to each spot, the ruler is a weighted regression line
    (expectation and maximisation, Dempster et al. 1977).
    """
    index = np.arange(spots) - 0.5 * (spots - 1)
    inverse = 1.0 / scatter_nm[:, None] ** 2
    cost = math.inf
    for _ in range(climbs):
        at = centre + index[:, None] * step
        log = -0.5 * ((points[:, None, :] - at) ** 2).sum(2) * inverse
        total = special.logsumexp(log, axis=1)
        before, cost = cost, -float(total.sum())
        if before - cost < 1e-6:
            break
        weight = np.exp(log - total[:, None]) * inverse
        s0, s1, s2 = (float((weight * index**k).sum()) for k in range(3))
        y0, y1 = (points.T @ (weight * index**k).sum(1) for k in range(2))
        determinant = s0 * s2 - s1**2
        if determinant <= 1e-9 * s0 * s2:  # all points at one spot
            break
        centre = (s2 * y0 - s1 * y1) / determinant
        step = (s0 * y1 - s1 * y0) / determinant
    return cost, centre, step


def ruler_spacing(
    draws: pd.DataFrame,
    table: pd.DataFrame,
    places: Places,
    spots: int,
    rng: np.random.Generator,
    linker_nm: float = 0.0,
    resamples: int = RESAMPLES,
) -> Measured:
    """Measure the mean distance of neighbouring spots of rulers, such as DNA-origami.

    Args:
        draws, table, places, rng, linker_nm, resamples: as in `ring_radius`.
        spots: how many spots a ruler has.

    Raises:
        InputError: fewer than two rulers could be measured, or a ruler has fewer than two spots.
    """

    def measure(points: Array, scatter: Array) -> float:
        ruler = fit_ruler(points, np.hypot(scatter, linker_nm), spots)
        return ruler.spacing_nm if ruler and ruler.spacing_nm < 2 * places.reach_nm else math.nan

    return _mean_over_structures(draws, table, places, measure, rng, resamples)


def pair_distance(
    first: Sequence[Array],
    second: Sequence[Array],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Measured:
    """Measure the distance between the middles of two groups of points, by draw.

    The distance of two middles that are uncertain is too long on average; what their own scatter
    adds to its square, the squared standard errors of both middles, is taken off.

    Args:
        first, second: points of either group in each draw, (n, 2).
        rng: source of the resamples, which draw points anew.
        resamples: how many.

    Raises:
        InputError: a group has fewer than two points in some draw, or there are too few draws.
    """
    values, variances, least = [], [], 1 << 30
    for groups in zip(first, second, strict=True):
        if min(map(len, groups)) < 2:
            raise InputError("A group has fewer than two points in a draw; a distance needs both.")
        least = min(least, *map(len, groups))
        values.append(_distance(*groups))
        again = [
            _distance(*(g[rng.integers(len(g), size=len(g))] for g in groups))
            for _ in range(resamples)
        ]
        variances.append(float(np.var(again, ddof=1)))
    return over_draws(np.array(values), np.array(variances), least)


def _distance(one: Array, two: Array) -> float:
    added = sum(float(g.var(0, ddof=1).sum()) / len(g) for g in (one, two))
    squared = float(((one.mean(0) - two.mean(0)) ** 2).sum())
    return math.sqrt(max(squared - added, 0.0))
