"""The moves of a chain over emitter sets, each in detailed balance with its reverse (Numba).

See `sureloc.compiled.chain` for what each move does. All accept by `log(u) < ratio`, never by its
opposite `>=`: a ratio that is not a number must refuse.
"""

from __future__ import annotations

import math

import numpy as np

from sureloc.compiled.jit import inner
from sureloc.compiled.scene import (
    DATA_DRIVEN_BIRTHS,
    GUIDED_BIRTHS,
    LARGEST_DISC_SIGMAS,
    MAX_BLOCK,
    NEAR_SIGMAS,
    NOTHING,
    PAIR_SIGMAS,
    SPLIT_SIGMAS,
    Array,
    Frame,
    Image,
    Model,
    Scratch,
    State,
    add_emitters,
    both_patches,
    centred_here,
    copy_patch,
    count_within,
    draw_log_density,
    draw_photons,
    factorize,
    fill_quadratic,
    fill_shapes,
    find_block,
    frame_shape,
    inside,
    log_determinant,
    log_emitter_prior,
    log_likelihood_change,
    log_photon_prior,
    out_of_reach,
    patch_bounds,
    patch_round,
    row_of,
    solve_lower,
    solve_upper,
    whole_lanes,
)


@inner
def replace(
    old: Array,
    m_old: int,
    new: Array,
    m_new: int,
    frame: Frame,
    model: Model,
    state: State,
    work: Scratch,
) -> tuple[float, tuple[int, int, int, int]]:
    """Fill work.rate with `old` emitters exchanged for `new`; give the likelihood change."""
    rows, columns = frame_shape(state.rate)
    patch = patch_round(old, m_old, new, m_new, model.reach, rows, columns)
    copy_patch(patch, state.rate, work.rate)
    fill_shapes(old, m_old, patch, model, work)
    add_emitters(old, m_old, -1.0, patch, work.rate, work)
    fill_shapes(new, m_new, patch, model, work)
    add_emitters(new, m_new, 1.0, patch, work.rate, work)
    return log_likelihood_change(frame, patch, state.rate, work.rate), patch


@inner
def information_of(
    emitters: Array,
    m: int,
    reach: float,
    patch: tuple[int, int, int, int],
    frame: Frame,
    rate: Image,
    model: Model,
    work: Scratch,
) -> bool:
    """Fill gradient and factorized Fisher matrix of a block, from the rows within reach of it.

    Shapes are filled on the patch. False if the matrix is not positive definite.
    """
    rows, columns = frame_shape(rate)
    near = patch_round(emitters, m, emitters, m, reach, rows, columns)
    inner_rows = (near[0], near[1], patch[2], patch[3])
    fill_quadratic(emitters, m, inner_rows, frame, rate, near[0] - patch[0], model, work)
    return factorize(work.fisher, 3 * m)


@inner
def draw_damping(rng: np.random.Generator) -> float:
    """Draw how much of a Newton step a proposal takes.

    A full step is nearly independent of the old state, but from a state far out, where the
    information differs, its reverse is too improbable to be accepted; small steps get away there.
    """
    u = rng.random()
    return 1.0 if u < 0.8 else (0.3 if u < 0.92 else 0.03)


@inner
def move_block(
    frame: Frame, model: Model, state: State, work: Scratch, rng: np.random.Generator
) -> bool:
    """Move all emitters of a random small disc together by a Newton proposal.

    The disc's centre is uniform in a disc of the same radius round a random emitter. The density
    of that choice, m / (n pi R^2), is the same after the move as long as the m emitters stay
    inside, so it cancels. With Fisher matrix F, gradient g and damping t,

        new ~ Normal(old + t F^-1 g, (2 t - t^2) F^-1),

    which leaves a Gaussian target unchanged for every t in (0, 1].
    """
    n = state.number[0]
    if n == 0:
        return False
    sigma = max(model.sigma_x, model.sigma_y)
    pick = rng.random()
    radius = sigma * (0.7 if pick < 0.2 else (1.6 if pick < 0.6 else LARGEST_DISC_SIGMAS))
    damping = draw_damping(rng)
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
    if m == 0 or m > MAX_BLOCK:
        return False
    size = 3 * m
    rows, columns = frame_shape(state.rate)
    for j in range(m):
        for a in range(3):
            work.old[j, a] = state.emitters[a, work.members[j]]
    reach = min(NEAR_SIGMAS * sigma, model.reach)
    before = patch_round(work.old, m, work.old, m, model.reach, rows, columns)
    fill_shapes(work.old, m, before, model, work)
    if not information_of(work.old, m, reach, before, frame, state.rate, model, work):
        return False

    spread = math.sqrt(2.0 * damping - damping * damping)
    solve_lower(work.fisher, size, work.gradient, work.step)
    log_forward = log_determinant(work.fisher, size)
    for a in range(size):
        noise = rng.normal()
        log_forward -= 0.5 * noise * noise
        work.step[a] = damping * work.step[a] + spread * noise
    solve_upper(work.fisher, size, work.step, work.step)
    log_ratio = 0.0
    for j in range(m):
        for a in range(3):
            work.new[j, a] = work.old[j, a] + work.step[3 * j + a]
        dx = work.new[j, 0] - x
        dy = work.new[j, 1] - y
        if dx * dx + dy * dy > radius * radius or not inside(work.new[j, 0], work.new[j, 1], model):
            return False
        log_ratio += log_emitter_prior(work.new[j], model) - log_emitter_prior(work.old[j], model)
    if log_ratio == -np.inf:
        return False
    after = patch_round(work.new, m, work.new, m, model.reach, rows, columns)
    patch = both_patches(before, after)
    copy_patch(patch, state.rate, work.rate)
    add_emitters(work.old, m, -1.0, before, work.rate, work)
    fill_shapes(work.new, m, after, model, work)
    add_emitters(work.new, m, 1.0, after, work.rate, work)
    change = log_likelihood_change(frame, patch, state.rate, work.rate)
    if change == -np.inf:
        return False
    log_ratio += change
    if not information_of(work.new, m, reach, after, frame, work.rate, model, work):
        return False
    solve_lower(work.fisher, size, work.gradient, work.step)
    log_reverse = log_determinant(work.fisher, size)
    for a in range(size):
        # L^T (old - new) - damping L^-1 g, the noise that would lead back
        back = -damping * work.step[a]
        for b in range(a, size):
            back += work.fisher[b, a] * (work.old[b // 3, b % 3] - work.new[b // 3, b % 3])
        log_reverse -= 0.5 * (back / spread) ** 2
    if not math.log(rng.random()) < log_ratio + log_reverse - log_forward:
        return False
    for j in range(m):
        for a in range(3):
            state.emitters[a, work.members[j]] = work.new[j, a]
    copy_patch(patch, work.rate, state.rate)
    return True


@inner
def guide_density(x: float, y: float, model: Model) -> float:
    """Give the density of birth positions at (x, y), per px^2."""
    area = (model.x_high - model.x_low) * (model.y_high - model.y_low)
    flat = 1.0 / area if inside(x, y, model) else 0.0
    if model.guide.size == 0:
        return flat
    r = math.floor((y + 0.5 + model.guide_margin) * model.guide_scale)
    c = math.floor((x + 0.5 + model.guide_margin) * model.guide_scale)
    guided = 0.0
    if 0 <= r < model.guide.shape[0] and 0 <= c < model.guide.shape[1]:
        guided = model.guide[r, c]
    return (1.0 - GUIDED_BIRTHS) * flat + GUIDED_BIRTHS * guided


@inner
def draw_position(model: Model, rng: np.random.Generator) -> tuple[float, float]:
    """Draw a birth position from the mixture whose density `guide_density` gives."""
    if model.guide.size == 0 or rng.random() >= GUIDED_BIRTHS:
        return (
            model.x_low + rng.random() * (model.x_high - model.x_low),
            model.y_low + rng.random() * (model.y_high - model.y_low),
        )
    u = rng.random() * model.guide_cumulative[-1]
    cell = min(int(np.searchsorted(model.guide_cumulative, u)), model.guide_cumulative.size - 1)
    r = cell // model.guide.shape[1]
    c = cell % model.guide.shape[1]
    return (
        (c + rng.random()) / model.guide_scale - 0.5 - model.guide_margin,
        (r + rng.random()) / model.guide_scale - 0.5 - model.guide_margin,
    )


@inner
def residual_photons(
    patch: tuple[int, int, int, int], frame: Frame, rate: Image, work: Scratch
) -> tuple[float, float]:
    """Give the best photons, and their sd, of an emitter (shapes filled in row 0) added to rate."""
    score, information = 0.0, 1e-12
    shape = work.shape_x[0]
    for r in range(patch[1]):
        along_y = work.shape_y[0, r]
        weight, counts = row_of(frame.weight, patch, r), row_of(frame.counts, patch, r)
        here = row_of(rate, patch, r)
        row_score, row_information = NOTHING, NOTHING
        for c in range(weight.size):
            share = along_y * shape[c]
            scaled = weight[c] / here[c]
            row_information += scaled * share * share
            row_score += scaled * share * (counts[c] - here[c])
        score += float(row_score)
        information += float(row_information)
    sd = 1.0 / math.sqrt(information)
    # The information at zero photons is too large: shot noise grows with the photons found.
    return score / information, math.sqrt(sd * sd + max(score / information, 0.0))


@inner
def birth_log_density(photons: float, best: float, sd: float, model: Model) -> float:
    """Give ln q(N) of a birth: a mixture of the prior and a Gaussian round the residual's best."""
    from_prior = draw_log_density(photons, model)
    z = (photons - best) / sd
    from_data = -0.5 * z * z - math.log(sd * math.sqrt(2.0 * math.pi))
    return math.log(
        (1.0 - DATA_DRIVEN_BIRTHS) * math.exp(from_prior)
        + DATA_DRIVEN_BIRTHS * math.exp(from_data)
        + 1e-300
    )


@inner
def change_count(
    birth: bool, frame: Frame, model: Model, state: State, work: Scratch, rng: np.random.Generator
) -> bool:
    """Add an emitter (birth) or take one away (death); each is the other's reverse."""
    n = state.number[0]
    rows, columns = frame_shape(state.rate)
    chosen = n
    if birth:
        if n == state.emitters.shape[1]:
            return False
        x, y = draw_position(model, rng)
        if not inside(x, y, model):
            return False
    else:
        if n == 0:
            return False
        chosen = int(rng.random() * n)
        x, y = state.emitters[0, chosen], state.emitters[1, chosen]
    if not centred_here(x, y, model, work):
        return False
    patch = patch_bounds(x, x, y, y, model.reach, rows, columns)
    work.new[0, 0] = x
    work.new[0, 1] = y
    fill_shapes(work.new, 1, patch, model, work)
    copy_patch(patch, state.rate, work.rate)
    larger, smaller = n + 1, n
    if birth:
        best, sd = residual_photons(patch, frame, state.rate, work)
        if rng.random() < DATA_DRIVEN_BIRTHS:
            work.new[0, 2] = best + sd * rng.normal()
        else:
            work.new[0, 2] = draw_photons(model, rng)
        add_emitters(work.new, 1, 1.0, patch, work.rate, work)
    else:
        larger, smaller = n, n - 1
        work.new[0, 2] = state.emitters[2, chosen]
        add_emitters(work.new, 1, -1.0, patch, work.rate, work)
        best, sd = residual_photons(patch, frame, work.rate, work)
    photons = work.new[0, 2]
    log_prior = log_emitter_prior(work.new[0], model)
    if log_prior == -np.inf:
        return False
    log_ratio = (
        math.log(model.density / (larger * guide_density(x, y, model)))
        + log_prior
        - birth_log_density(photons, best, sd, model)
    )
    change = log_likelihood_change(frame, patch, state.rate, work.rate)
    total = change + (log_ratio if birth else -log_ratio)
    if not math.log(rng.random()) < total:
        return False
    if birth:
        for a in range(3):
            state.emitters[a, n] = work.new[0, a]
    else:
        for a in range(3):
            state.emitters[a, chosen] = state.emitters[a, n - 1]
    state.number[0] = larger if birth else smaller
    copy_patch(patch, work.rate, state.rate)
    return True


@inner
def neighbours(x: float, y: float, skip: int, also: int, state: State, radius: float) -> int:
    """Count emitters within radius of (x, y), without the two numbered `skip` and `also`."""
    square = radius * radius
    found = count_within(x, y, square, 0, state.number[0], state)
    found -= count_within(x, y, square, skip, skip + 1, state)
    if also != skip:
        found -= count_within(x, y, square, also, also + 1, state)
    return found


@inner
def pick_neighbour(
    chosen: int, state: State, radius: float, rng: np.random.Generator
) -> tuple[int, int]:
    """Pick a random emitter within radius of emitter `chosen`; give it and how many there are."""
    x, y = state.emitters[0, chosen], state.emitters[1, chosen]
    found = neighbours(x, y, chosen, chosen, state, radius)
    if found == 0:
        return -1, 0
    wanted = int(rng.random() * found)
    for j in range(state.number[0]):
        if j != chosen:
            dx = state.emitters[0, j] - x
            dy = state.emitters[1, j] - y
            if dx * dx + dy * dy <= radius * radius:
                if wanted == 0:
                    return j, found
                wanted -= 1
    return -1, found


@inner
def offset_log_density(dx: float, dy: float, share: float, sd: float) -> float:
    """Give the log-density of a split's offset (Gaussian) and photon share (Beta(2, 2))."""
    return (
        -0.5 * (dx * dx + dy * dy) / (sd * sd)
        - math.log(2.0 * math.pi * sd * sd)
        + math.log(6.0 * share * (1.0 - share) + 1e-300)
    )


@inner
def draw_share(rng: np.random.Generator) -> float:
    """Draw from Beta(2, 2): the median of three uniform numbers."""
    a, b, c = rng.random(), rng.random(), rng.random()
    return max(min(a, b), min(max(a, b), c))


@inner
def split_into(one: Array, dx: float, dy: float, share: float, pair: Array) -> None:
    """Fill two emitters with the flux and centroid of `one`, `(dx, dy)` apart."""
    pair[0, 0] = one[0] + (1.0 - share) * dx
    pair[0, 1] = one[1] + (1.0 - share) * dy
    pair[0, 2] = share * one[2]
    pair[1, 0] = one[0] - share * dx
    pair[1, 1] = one[1] - share * dy
    pair[1, 2] = (1.0 - share) * one[2]


@inner
def merge_into(pair: Array, one: Array) -> float:
    """Fill `one` with the flux and centroid of two emitters; give the first one's share."""
    total = pair[0, 2] + pair[1, 2]
    share = pair[0, 2] / total
    one[0] = share * pair[0, 0] + (1.0 - share) * pair[1, 0]
    one[1] = share * pair[0, 1] + (1.0 - share) * pair[1, 1]
    one[2] = total
    return float(share)


@inner
def split_log_ratio(
    one: Array,
    pair: Array,
    dx: float,
    dy: float,
    share: float,
    n: int,
    near_first: int,
    near_second: int,
    model: Model,
    sd: float,
) -> float:
    """Give ln of prior ratio, proposal ratio and Jacobian of a split of one among n emitters.

    The pair is chosen for the reverse merge with probability
    (1 / (n + 1)) (1 / near_first + 1 / near_second); the split with 1 / n and twice the density
    of (offset, share), since exchanging the two gives the same set. The Jacobian is N.
    """
    log_prior = (
        math.log(model.density)
        + log_emitter_prior(pair[0], model)
        + log_emitter_prior(pair[1], model)
        - log_emitter_prior(one, model)
    )
    log_merge = math.log((1.0 / near_first + 1.0 / near_second) / (n + 1))
    log_split = math.log(2.0 / n) + offset_log_density(dx, dy, share, sd)
    return log_prior + log_merge - log_split + math.log(one[2])


@inner
def split(
    frame: Frame, model: Model, state: State, work: Scratch, rng: np.random.Generator
) -> bool:
    """Propose two close emitters for one, flux and centroid kept; tell whether accepted."""
    n = state.number[0]
    if n == 0 or n == state.emitters.shape[1]:
        return False
    sigma = math.sqrt(model.sigma_x * model.sigma_y)
    sd, radius = SPLIT_SIGMAS * sigma, PAIR_SIGMAS * sigma
    chosen = int(rng.random() * n)
    if not centred_here(state.emitters[0, chosen], state.emitters[1, chosen], model, work):
        return False
    dx, dy, share = sd * rng.normal(), sd * rng.normal(), draw_share(rng)
    if dx * dx + dy * dy >= radius * radius:
        return False
    for a in range(3):
        work.old[0, a] = state.emitters[a, chosen]
    split_into(work.old[0], dx, dy, share, work.new)
    for j in range(2):
        if (
            not inside(work.new[j, 0], work.new[j, 1], model)
            or log_photon_prior(work.new[j, 2], model) == -np.inf
        ):
            return False
    near_first = 1 + neighbours(work.new[0, 0], work.new[0, 1], chosen, chosen, state, radius)
    near_second = 1 + neighbours(work.new[1, 0], work.new[1, 1], chosen, chosen, state, radius)
    log_ratio = split_log_ratio(
        work.old[0], work.new, dx, dy, share, n, near_first, near_second, model, sd
    )
    change, patch = replace(work.old, 1, work.new, 2, frame, model, state, work)
    if not math.log(rng.random()) < change + log_ratio:
        return False
    for a in range(3):
        state.emitters[a, chosen] = work.new[0, a]
        state.emitters[a, n] = work.new[1, a]
    state.number[0] = n + 1
    copy_patch(patch, work.rate, state.rate)
    return True


@inner
def merge(
    frame: Frame, model: Model, state: State, work: Scratch, rng: np.random.Generator
) -> bool:
    """Propose one emitter for two close ones, the inverse of `split`; tell whether accepted."""
    n = state.number[0]
    if n < 2:
        return False
    sigma = math.sqrt(model.sigma_x * model.sigma_y)
    sd, radius = SPLIT_SIGMAS * sigma, PAIR_SIGMAS * sigma
    first = int(rng.random() * n)
    if out_of_reach(first, state, model, work):
        return False
    second, near_first = pick_neighbour(first, state, radius, rng)
    if second < 0:
        return False
    for a in range(3):
        work.old[0, a] = state.emitters[a, first]
        work.old[1, a] = state.emitters[a, second]
    near_second = neighbours(work.old[1, 0], work.old[1, 1], second, second, state, radius)
    share = merge_into(work.old, work.new[0])
    if not centred_here(work.new[0, 0], work.new[0, 1], model, work):
        return False
    if log_photon_prior(work.new[0, 2], model) == -np.inf:
        return False
    dx = work.old[0, 0] - work.old[1, 0]
    dy = work.old[0, 1] - work.old[1, 1]
    log_ratio = split_log_ratio(
        work.new[0], work.old, dx, dy, share, n - 1, near_first, near_second, model, sd
    )
    change, patch = replace(work.old, 2, work.new, 1, frame, model, state, work)
    if not math.log(rng.random()) < change - log_ratio:
        return False
    low, high = min(first, second), max(first, second)
    for a in range(3):
        state.emitters[a, low] = work.new[0, a]
        state.emitters[a, high] = state.emitters[a, n - 1]
    state.number[0] = n - 1
    copy_patch(patch, work.rate, state.rate)
    return True


@inner
def resplit(
    frame: Frame, model: Model, state: State, work: Scratch, rng: np.random.Generator
) -> bool:
    """Give a near pair another direction, distance and share; flux and centroid stay.

    The Jacobians of merging and splitting again cancel, since the flux stays the same.
    """
    n = state.number[0]
    if n < 2:
        return False
    sigma = math.sqrt(model.sigma_x * model.sigma_y)
    sd, radius = SPLIT_SIGMAS * sigma, PAIR_SIGMAS * sigma
    first = int(rng.random() * n)
    if out_of_reach(first, state, model, work):
        return False
    second, near_first = pick_neighbour(first, state, radius, rng)
    if second < 0:
        return False
    for a in range(3):
        work.old[0, a] = state.emitters[a, first]
        work.old[1, a] = state.emitters[a, second]
    near_second = neighbours(work.old[1, 0], work.old[1, 1], second, second, state, radius)
    share = merge_into(work.old, work.new[2])
    if not centred_here(work.new[2, 0], work.new[2, 1], model, work):
        return False
    dx, dy = work.old[0, 0] - work.old[1, 0], work.old[0, 1] - work.old[1, 1]
    log_backward = offset_log_density(dx, dy, share, sd)
    before = 1.0 / near_first + 1.0 / near_second
    dx, dy, share = sd * rng.normal(), sd * rng.normal(), draw_share(rng)
    if dx * dx + dy * dy >= radius * radius:
        return False
    split_into(work.new[2], dx, dy, share, work.new)
    log_ratio = log_backward - offset_log_density(dx, dy, share, sd)
    for j in range(2):
        if not inside(work.new[j, 0], work.new[j, 1], model):
            return False
        log_ratio += log_emitter_prior(work.new[j], model) - log_emitter_prior(work.old[j], model)
    if log_ratio == -np.inf:
        return False
    near_first = 1 + neighbours(work.new[0, 0], work.new[0, 1], first, second, state, radius)
    near_second = 1 + neighbours(work.new[1, 0], work.new[1, 1], first, second, state, radius)
    log_ratio += math.log((1.0 / near_first + 1.0 / near_second) / before)
    change, patch = replace(work.old, 2, work.new, 2, frame, model, state, work)
    if not math.log(rng.random()) < change + log_ratio:
        return False
    for a in range(3):
        state.emitters[a, first] = work.new[0, a]
        state.emitters[a, second] = work.new[1, a]
    copy_patch(patch, work.rate, state.rate)
    return True


@inner
def support(weights: Image) -> tuple[int, int]:
    """Give the first place and the number of places up to the last where weights are not 0."""
    first, last = 0, weights.size - 1
    while first < last and weights[first] == NOTHING:
        first += 1
    while last > first and weights[last] == NOTHING:
        last -= 1
    return first, last - first + 1


@inner
def knot_quadratic(
    i: int,
    k: int,
    patch: tuple[int, int, int, int],
    frame: Frame,
    model: Model,
    value: float,
    rate: Image,
) -> tuple[float, float]:
    """Give gradient and Fisher information of the log-posterior by background knot (i, k)."""
    precision = 1.0 / model.background_sd**2
    gradient = (model.background_mean[i, k] - value) * precision
    information = precision
    along_x = model.basis_x[k, patch[2] : patch[2] + patch[3]]
    for r in range(patch[1]):
        along_y = model.basis_y[i, patch[0] + r]
        weight, counts = row_of(frame.weight, patch, r), row_of(frame.counts, patch, r)
        here = row_of(rate, patch, r)
        row_gradient, row_information = NOTHING, NOTHING
        for c in range(weight.size):
            share = along_y * along_x[c]
            scaled = weight[c] / here[c]
            row_information += scaled * share * share
            row_gradient += scaled * share * (counts[c] - here[c])
        gradient += float(row_gradient)
        information += float(row_information)
    return gradient, information


@inner
def move_background(
    frame: Frame, model: Model, state: State, work: Scratch, rng: np.random.Generator
) -> bool:
    """Move one coefficient of the background by its own Newton proposal; it stays >= 0."""
    if model.background_sd <= 0.0:
        return False
    i = int(rng.random() * state.knots.shape[0])
    k = int(rng.random() * state.knots.shape[1])
    first_row, rows = support(model.basis_y[i])
    first_column, columns = support(model.basis_x[k])
    patch = (first_row, rows, first_column, whole_lanes(columns))
    x = first_column + rng.random() * columns - 0.5
    y = first_row + rng.random() * rows - 0.5
    if not centred_here(x, y, model, work):
        return False
    old = state.knots[i, k]
    gradient, information = knot_quadratic(i, k, patch, frame, model, old, state.rate)
    noise = rng.normal()
    damping = draw_damping(rng)
    spread = math.sqrt(2.0 * damping - damping * damping)
    new = old + damping * gradient / information + spread * noise / math.sqrt(information)
    if new < 0.0:
        return False
    log_forward = -0.5 * noise * noise + 0.5 * math.log(information)
    along_x = model.basis_x[k, first_column : first_column + patch[3]]
    for r in range(rows):
        along_y = model.basis_y[i, first_row + r] * np.float32(new - old)
        before, after = row_of(state.rate, patch, r), row_of(work.rate, patch, r)
        for c in range(before.size):
            after[c] = before[c] + along_y * along_x[c]
    change = log_likelihood_change(frame, patch, state.rate, work.rate)
    if change == -np.inf:
        return False
    z_old = (old - model.background_mean[i, k]) / model.background_sd
    z_new = (new - model.background_mean[i, k]) / model.background_sd
    change += 0.5 * (z_old * z_old - z_new * z_new)
    gradient, information = knot_quadratic(i, k, patch, frame, model, new, work.rate)
    back = (old - new - damping * gradient / information) * math.sqrt(information) / spread
    log_reverse = -0.5 * back * back + 0.5 * math.log(information)
    if not math.log(rng.random()) < change + log_reverse - log_forward:
        return False
    state.knots[i, k] = new
    copy_patch(patch, work.rate, state.rate)
    return True
