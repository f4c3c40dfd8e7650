"""Forget the emitters of a small disc and draw them anew, their number included (Numba).

For a disc the best fits with 1, 2, ... `MAX_REDRAW` emitters are found by matching pursuit and
damped Fisher scoring, everything outside the disc held fixed. They depend on the data, the disc and
the emitters outside it, never on the emitters inside; so proposing from them is an independence
sampler, and the old emitters' proposal density comes from the same fits. Each fit is weighted by
its Laplace evidence and drawn from by a slightly widened Gaussian. Exchanging emitters gives the
same set, so densities are summed over permutations.
"""

from __future__ import annotations

import math

import numpy as np

from sureloc.compiled.jit import inner
from sureloc.compiled.scene import (
    MAX_BLOCK,
    MAX_REDRAW,
    NOTHING,
    SEARCH_SIDE,
    SEARCH_STEPS,
    Array,
    Frame,
    Image,
    Model,
    Scratch,
    State,
    add_emitters,
    axis_shape,
    both_patches,
    centred_here,
    copy_patch,
    factorize,
    fill_quadratic,
    fill_shapes,
    find_block,
    frame_shape,
    inside,
    log_determinant,
    log_emitter_prior,
    log_likelihood_change,
    out_of_reach,
    patch_bounds,
    row_of,
    solve_lower,
    solve_upper,
)

FIT_STEPS = 4
STILL = 0.1  # a step this small, in half PSF widths and shares of the photons, ends a fit
FIT_SIGMAS = 3.0  # fits look this far beyond the disc, in PSF widths; the target looks farther
WIDENING = 1.15  # the proposal's standard deviation over the fit's
LEAST_WEIGHT = 0.02  # share of proposals spread evenly over the counts
LEAST_RATE = np.float32(1e-9)
HOPELESS = 4.0  # a fit whose log-evidence is this far below the best ends the search


@inner
def fill_search(
    x: float,
    y: float,
    radius: float,
    patch: tuple[int, int, int, int],
    model: Model,
    work: Scratch,
) -> None:
    """Fill the shapes along x and y of the places where `best_residual` looks."""
    for i in range(SEARCH_SIDE):
        along = radius * (i - SEARCH_STEPS) / SEARCH_STEPS
        shape_x, shape_y = work.search_x[i], work.search_y[i]
        axis_shape(x + along, model.sigma_x, patch[2], patch[3], shape_x, work.slope_x[0])
        axis_shape(y + along, model.sigma_y, patch[0], patch[1], shape_y, work.slope_y[0])


@inner
def best_residual(
    x: float,
    y: float,
    radius: float,
    patch: tuple[int, int, int, int],
    frame: Frame,
    rate: Image,
    model: Model,
    work: Scratch,
    out: Array,
) -> None:
    """Fill `out` (x, y, N) with the place in the disc where one more emitter helps most.

    Places lie on the grid of `fill_search`, whose shapes are shared: pixels are first summed along
    y for every row of places, then along x for every place.
    """
    patch_rows, patch_columns = patch[1], patch[3]
    for i in range(SEARCH_SIDE):
        for c in range(patch_columns):
            work.search_score[i, c] = NOTHING
            work.search_information[i, c] = NOTHING
    row_weight, row_score = work.row_weight[:patch_columns], work.row_score[:patch_columns]
    for r in range(patch_rows):
        weight, counts = row_of(frame.weight, patch, r), row_of(frame.counts, patch, r)
        here = row_of(rate, patch, r)
        for c in range(patch_columns):
            row_weight[c] = weight[c] / here[c]
            row_score[c] = row_weight[c] * (counts[c] - here[c])
        for i in range(SEARCH_SIDE):
            share = work.search_y[i, r]
            square = share * share
            scores = work.search_score[i, :patch_columns]
            informations = work.search_information[i, :patch_columns]
            for c in range(patch_columns):
                scores[c] += share * row_score[c]
                informations[c] += square * row_weight[c]
    best = -np.inf
    for i in range(SEARCH_SIDE):
        for k in range(SEARCH_SIDE):
            if (i - SEARCH_STEPS) ** 2 + (k - SEARCH_STEPS) ** 2 > SEARCH_STEPS**2:
                continue
            score, information = NOTHING, np.float32(1e-12)
            shares, scores = work.search_x[k, :patch_columns], work.search_score[i, :patch_columns]
            informations = work.search_information[i, :patch_columns]
            for c in range(patch_columns):
                score += shares[c] * scores[c]
                information += shares[c] * shares[c] * informations[c]
            gain = float(score * abs(score) / information)
            if gain > best:
                best = gain
                out[0] = x + radius * (k - SEARCH_STEPS) / SEARCH_STEPS
                out[1] = y + radius * (i - SEARCH_STEPS) / SEARCH_STEPS
                out[2] = score / information
    low = math.exp(model.log_photons_low)
    out[2] = max(out[2], low, 0.3 * model.photons_mean)


@inner
def prepare(
    emitters: Array,
    m: int,
    patch: tuple[int, int, int, int],
    frame: Frame,
    model: Model,
    work: Scratch,
) -> None:
    """Fill work.rate with base plus emitters, and the quadratic form there with its prior."""
    copy_patch(patch, work.base, work.rate)
    fill_shapes(emitters, m, patch, model, work)
    add_emitters(emitters, m, 1.0, patch, work.rate, work)
    fill_quadratic(emitters, m, patch, frame, work.rate, 0, model, work)
    precision = 1.0 / model.photons_sd**2
    for j in range(m):
        work.gradient[3 * j + 2] += (model.photons_mean - emitters[j, 2]) * precision
        work.fisher[3 * j + 2, 3 * j + 2] += precision


@inner
def polish(
    fit: Array,
    m: int,
    x: float,
    y: float,
    radius: float,
    patch: tuple[int, int, int, int],
    frame: Frame,
    model: Model,
    work: Scratch,
) -> bool:
    """Improve m emitters by damped Fisher scoring inside the disc; leaves the factor in work."""
    low = math.exp(model.log_photons_low)
    limit = 0.5 * max(model.sigma_x, model.sigma_y)
    moved = np.inf
    for iteration in range(FIT_STEPS + 1):
        prepare(fit, m, patch, frame, model, work)
        if not factorize(work.fisher, 3 * m):
            return False
        if iteration == FIT_STEPS or moved < STILL:
            break
        solve_lower(work.fisher, 3 * m, work.gradient, work.step)
        solve_upper(work.fisher, 3 * m, work.step, work.step)
        moved = 0.0
        for j in range(m):
            for a in range(2):
                moved = max(moved, abs(work.step[3 * j + a]) / limit)
                fit[j, a] += min(max(work.step[3 * j + a], -limit), limit)
            moved = max(moved, abs(work.step[3 * j + 2]) / fit[j, 2])
            fit[j, 2] = max(fit[j, 2] + work.step[3 * j + 2], 0.4 * fit[j, 2], low)
            dx, dy = fit[j, 0] - x, fit[j, 1] - y
            out = math.sqrt(dx * dx + dy * dy) / (0.95 * radius)
            if out > 1.0:
                fit[j, 0] = x + dx / out
                fit[j, 1] = y + dy / out
    return True


@inner
def find_fits(
    x: float,
    y: float,
    radius: float,
    patch: tuple[int, int, int, int],
    frame: Frame,
    model: Model,
    work: Scratch,
) -> int:
    """Fill work.fits, work.factors and work.evidence for 1, 2, ... emitters; give how many."""
    best = -np.inf
    fill_search(x, y, radius, patch, model, work)
    for m in range(1, MAX_REDRAW + 1):
        fit = work.fits[m - 1]
        if m == 1:
            copy_patch(patch, work.base, work.rate)
        else:
            for j in range(m - 1):
                for a in range(3):
                    fit[j, a] = work.fits[m - 2, j, a]
            copy_patch(patch, work.base, work.rate)
            fill_shapes(fit, m - 1, patch, model, work)
            add_emitters(fit, m - 1, 1.0, patch, work.rate, work)
        best_residual(x, y, radius, patch, frame, work.rate, model, work, fit[m - 1])
        if not polish(fit, m, x, y, radius, patch, frame, model, work):
            return m - 1
        size = 3 * m
        for a in range(size):
            for b in range(a + 1):
                work.factors[m - 1, a, b] = work.fisher[a, b]
        evidence = log_likelihood_change(frame, patch, work.base, work.rate)
        evidence += 0.5 * size * math.log(2.0 * math.pi) - log_determinant(work.fisher, size)
        for j in range(m):
            log_prior = log_emitter_prior(fit[j], model)
            evidence += math.log(model.density) + max(log_prior, -30.0)
        work.evidence[m - 1] = evidence
        if evidence > best:
            best = evidence
        elif evidence < best - HOPELESS:
            return m
    return MAX_REDRAW


@inner
def weigh_fits(found: int, work: Scratch) -> None:
    """Turn work.evidence into the probabilities of 1, 2, ... `found` emitters."""
    best = -np.inf
    for k in range(found):
        best = max(best, work.evidence[k])
    total = 0.0
    for k in range(found):
        work.evidence[k] = math.exp(work.evidence[k] - best)
        total += work.evidence[k]
    for k in range(found):
        work.evidence[k] = (1.0 - LEAST_WEIGHT) * work.evidence[k] / total + LEAST_WEIGHT / found


@inner
def set_log_density(emitters: Array, m: int, work: Scratch) -> float:
    """Give ln of the proposal's density of a set of m emitters, weight of its count included."""
    size = 3 * m
    factor = work.factors[m - 1]
    order, direction = work.order, work.direction
    for j in range(m):
        order[j] = j
        direction[j] = 0
    best = -np.inf
    total = 0.0
    # Heap's algorithm walks through all orders, one exchange at a time.
    position = 0
    while True:
        squared = 0.0
        for a in range(size):
            back = 0.0
            for b in range(a, size):
                difference = emitters[order[b // 3], b % 3] - work.fits[m - 1, b // 3, b % 3]
                back += factor[b, a] * difference
            squared += back * back
        value = -0.5 * squared / WIDENING**2
        if value > best:
            total = total * math.exp(best - value) + 1.0
            best = value
        else:
            total += math.exp(value - best)
        while position < m and direction[position] >= position:
            direction[position] = 0
            position += 1
        if position >= m:
            break
        other = 0 if position % 2 == 0 else direction[position]
        held = order[other]
        order[other] = order[position]
        order[position] = held
        direction[position] += 1
        position = 0
    return (
        math.log(work.evidence[m - 1])
        + best
        + math.log(total)
        + log_determinant(factor, size)
        - size * math.log(WIDENING * math.sqrt(2.0 * math.pi))
    )


@inner
def redraw(
    frame: Frame, model: Model, state: State, work: Scratch, rng: np.random.Generator
) -> bool:
    """Draw the emitters of a random small disc anew.

    The disc is chosen as in the block move; the density of that choice, m / (n pi R^2), changes
    with the counts and enters the ratio.
    """
    n = state.number[0]
    if n == 0:
        return False
    sigma = max(model.sigma_x, model.sigma_y)
    radius = sigma * (1.0 if rng.random() < 0.5 else 1.7)
    seed = int(rng.random() * n)
    if out_of_reach(seed, state, model, work):
        return False
    angle = 2.0 * math.pi * rng.random()
    distance = radius * math.sqrt(rng.random())
    x = state.emitters[0, seed] + distance * math.cos(angle)
    y = state.emitters[1, seed] + distance * math.sin(angle)
    if not centred_here(x, y, model, work):
        return False
    m = find_block(x, y, radius, state, work)
    if m == 0 or m > min(MAX_REDRAW, MAX_BLOCK):
        return False
    rows, columns = frame_shape(state.rate)
    reach = min(radius + FIT_SIGMAS * sigma, radius + model.reach)
    near = patch_bounds(x, x, y, y, reach, rows, columns)
    whole = patch_bounds(x - radius, x + radius, y - radius, y + radius, model.reach, rows, columns)
    patch = both_patches(near, whole)
    for j in range(m):
        for a in range(3):
            work.old[j, a] = state.emitters[a, work.members[j]]
    fill_shapes(work.old, m, patch, model, work)
    copy_patch(patch, state.rate, work.base)
    add_emitters(work.old, m, -1.0, patch, work.base, work)
    for r in range(patch[1]):
        row = row_of(work.base, patch, r)
        for c in range(row.size):
            # rounding may leave a tiny negative rate where there is no background
            row[c] = max(row[c], LEAST_RATE)
    found = find_fits(x, y, radius, near, frame, model, work)
    if found < m:
        return False
    weigh_fits(found, work)
    u = rng.random()
    m_new = 1
    while m_new < found and u >= work.evidence[m_new - 1]:
        u -= work.evidence[m_new - 1]
        m_new += 1
    n_new = n - m + m_new
    if n_new > state.emitters.shape[1]:
        return False
    for a in range(3 * m_new):
        work.noise[a] = WIDENING * rng.normal()
    solve_upper(work.factors[m_new - 1], 3 * m_new, work.noise, work.step)
    log_prior = (m_new - m) * math.log(model.density)
    for j in range(m_new):
        for a in range(3):
            work.new[j, a] = work.fits[m_new - 1, j, a] + work.step[3 * j + a]
        dx, dy = work.new[j, 0] - x, work.new[j, 1] - y
        if dx * dx + dy * dy > radius * radius or not inside(work.new[j, 0], work.new[j, 1], model):
            return False
        log_prior += log_emitter_prior(work.new[j], model)
    if log_prior == -np.inf:
        return False
    for j in range(m):
        log_prior -= log_emitter_prior(work.old[j], model)
    copy_patch(patch, work.base, work.rate)
    fill_shapes(work.new, m_new, patch, model, work)
    add_emitters(work.new, m_new, 1.0, patch, work.rate, work)
    log_ratio = (
        log_likelihood_change(frame, patch, state.rate, work.rate)
        + log_prior
        + math.log(m_new / n_new)
        - math.log(m / n)
        + set_log_density(work.old, m, work)
        - set_log_density(work.new, m_new, work)
    )
    if not math.log(rng.random()) < log_ratio:
        return False
    for j in range(min(m, m_new)):
        for a in range(3):
            state.emitters[a, work.members[j]] = work.new[j, a]
    for j in range(m, m_new):
        for a in range(3):
            state.emitters[a, n + j - m] = work.new[j, a]
    # members are in ascending order: fill the gaps from the end, last gap first
    for j in range(m - 1, m_new - 1, -1):
        last = state.number[0] - 1
        for a in range(3):
            state.emitters[a, work.members[j]] = state.emitters[a, last]
        state.number[0] = last
    state.number[0] = n_new
    copy_patch(patch, work.rate, state.rate)
    return True
