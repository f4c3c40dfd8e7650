"""The course of the drift in time, from averages over stretches of frames, and how sure it is.

Per axis, the drift is a straight line of any slope, plus a random walk, plus an integrated random
walk (the prior whose posterior mean is a smoothing spline, Wahba 1978). How strong both walks are
is not chosen but averaged over: every pair on a grid counts with its restricted likelihood. So the
band is narrow where the drift is a line, and wide between stretches where it jumps. All of it is
Gaussian algebra on `MOST_NODES` times, between which a walk may still stray.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import block_diag, cho_factor, cho_solve

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

MOST_NODES = 400
MIXTURE = 12  # pairs of walk strengths, drawn by their weight, over which the path is averaged
_WALK_STEPS = 8
# Prior of a walk's standard deviation s, d ln s times s to this power: between even in ln s, by
# which bands of jittery drift held 58 % instead of 68 %, and even in s, needlessly wide.
_PRIOR_POWER = 0.5
_LARGEST_WALK_NM = 3000.0
_Z99 = 2.575829


@dataclass(frozen=True)
class Averages:
    """Measured averages of the drift, and over which frames they are taken.

    Attributes:
        value_nm: along x and y, up to one constant for each, shape (averages, 2).
        covariance_nm2: of their errors, independent between averages, shape (averages, 2, 2).
        frame: frames that enter, shape (entries,).
        average: which average they enter, shape (entries,).
        weight: with what weight, any scale, shape (entries,).
    """

    value_nm: Array
    covariance_nm2: Array
    frame: Index
    average: Index
    weight: Array


@dataclass(frozen=True)
class _Component:
    """The path for one strength of each walk: linear in the measured averages."""

    gain: Array  # (2 nodes, 2 averages)
    mean: Array  # (2 nodes,), before the reference is subtracted
    walk: Array  # nm^2 per frame along x and y
    integrated: Array  # nm^2 per frame^3 along x and y


@dataclass(frozen=True)
class DriftPath:
    """The posterior of the drift.

    Attributes:
        nodes: frames at which it is kept, ascending, the first and last of the table included.
        mean_nm: posterior mean at the nodes, relative to the reference, shape (nodes, 2).
        covariance_nm2: posterior covariance there, shape (nodes, 2, 2).
        walk_nm2: posterior mean variance of a step from frame to frame, nm^2, shape (2,).
    """

    nodes: Array
    mean_nm: Array
    covariance_nm2: Array
    walk_nm2: Array
    _averaging: Array
    _noise: Array
    _reference: Array
    _components: tuple[_Component, ...]

    def at(self, frame: npt.NDArray[np.generic]) -> tuple[Array, Array]:
        """Give mean, shape (frames, 2), and covariance, (frames, 2, 2), at any frames, nm."""
        at = np.asarray(frame, float)
        mean = np.stack([np.interp(at, self.nodes, m) for m in self.mean_nm.T], axis=1)
        flat = self.covariance_nm2.reshape(-1, 4)
        covariance = np.stack([np.interp(at, self.nodes, c) for c in flat.T], axis=1)
        covariance[:, [0, 3]] += _strayed(at, self.nodes)[:, None] * self.walk_nm2
        return mean, covariance.reshape(-1, 2, 2)

    @property
    def is_beyond_uncertainty(self) -> bool:
        """Whether the drift leaves its own 99 % band round zero at any time."""
        sd = np.sqrt(np.diagonal(self.covariance_nm2, axis1=1, axis2=2))
        return bool((np.abs(self.mean_nm) > _Z99 * sd).any())

    def sample(self, rng: np.random.Generator) -> Array:
        """Draw one whole path from the posterior.

        Args:
            rng: source of randomness.

        Returns:
            The drift of every frame from the first node to the last, nm, shape (frames, 2).
        """
        component = self._components[rng.integers(len(self._components))]
        frames = np.arange(int(self.nodes[0]), int(self.nodes[-1]) + 1)
        prior = np.stack(
            [
                _prior_path(len(frames), walk, integrated, rng)
                for walk, integrated in zip(component.walk, component.integrated, strict=True)
            ]
        )
        on_nodes = np.stack([np.interp(self.nodes, frames, path) for path in prior])
        noise = rng.multivariate_normal(np.zeros(len(self._noise)), self._noise, method="cholesky")
        seen = (on_nodes @ self._averaging.T).ravel() + noise
        # Matheron's rule: a prior path, moved by what the averages say of the difference.
        shift = (component.mean - component.gain @ seen).reshape(2, -1)
        reference = (on_nodes + shift) @ self._reference
        path = prior + np.stack([np.interp(frames, self.nodes, one) for one in shift])
        return np.asarray((path - reference[:, None]).T)


@dataclass(frozen=True)
class _Kernel:
    """What is needed of a prior covariance of the path at the nodes."""

    cross: Array  # with the averages, (nodes, averages)
    variance: Array  # at each node, (nodes,)
    with_zero: Array  # with the reference, (nodes,)

    @classmethod
    def of(cls, kernel: Array, averaging: Array, zero: Array) -> _Kernel:
        return cls(kernel @ averaging.T, np.diag(kernel).copy(), kernel @ zero)

    def times(self, strength: float) -> _Kernel:
        return _Kernel(*(strength * a for a in (self.cross, self.variance, self.with_zero)))

    def __add__(self, other: _Kernel) -> _Kernel:
        return _Kernel(
            self.cross + other.cross,
            self.variance + other.variance,
            self.with_zero + other.with_zero,
        )


def drift_path(
    averages: Averages, first: int, last: int, reference: Array | None = None
) -> DriftPath:
    """Give the posterior of the drift for measured averages.

    Args:
        averages: two or more of them.
        first, last: the frames that the path covers.
        reference: weights of the frames first to last whose mean drift is called zero, shape
            (last - first + 1,); None calls the drift of the first frame zero.

    Returns:
        The path.
    """
    nodes = np.unique(np.linspace(first, last, min(MOST_NODES, last - first + 1)))
    averaging = _on_nodes(averages, nodes)
    if reference is None:
        zero = np.zeros(len(nodes))
        zero[0] = 1.0
    else:
        whole = Averages(
            np.zeros((1, 2)),
            np.zeros((1, 2, 2)),
            np.arange(first, last + 1),
            np.zeros(last - first + 1, np.int64),
            reference,
        )
        zero = _on_nodes(whole, nodes)[0]
    prior = tuple(_Kernel.of(kernel, averaging, zero) for kernel in _kernels(nodes))
    trend = np.stack([np.ones(len(nodes)), (nodes - first) / max(last - first, 1)], axis=1)
    noise = _block_noise(averages.covariance_nm2)
    seen = [averaging @ kernel.cross for kernel in prior]
    chosen = _strengths(averages, seen, averaging @ trend, float(last - first))
    value = averages.value_nm.T.ravel()
    components, moments = [], []
    for walk, integrated in chosen:
        kernels = [prior[0].times(walk[i]) + prior[1].times(integrated[i]) for i in range(2)]
        gain, covariance = _conditioned(kernels, averaging, trend, noise, zero)
        mean = gain @ value
        components.append(_Component(gain, mean, walk, integrated))
        relative = mean.reshape(2, -1)
        moments.append((relative - (relative @ zero)[:, None], covariance))
    means = np.stack([mean for mean, _ in moments])  # (mixture, 2, nodes)
    covariance = np.mean([c for _, c in moments], axis=0)
    apart = means - means.mean(axis=0)
    covariance += np.einsum("kin,kjn->nij", apart, apart) / len(moments)
    return DriftPath(
        nodes,
        means.mean(axis=0).T,
        covariance,
        np.mean([component.walk for component in components], axis=0),
        averaging,
        noise,
        zero,
        tuple(components),
    )


def _on_nodes(averages: Averages, nodes: Array) -> Array:
    """Give the matrix that takes a path at the nodes to its averages, (averages, nodes)."""
    out = np.zeros((len(averages.value_nm), len(nodes)))
    if len(nodes) == 1:
        out[:] = 1.0
        return out
    left = np.clip(np.searchsorted(nodes, averages.frame, side="right") - 1, 0, len(nodes) - 2)
    share = (averages.frame - nodes[left]) / (nodes[left + 1] - nodes[left])
    np.add.at(out, (averages.average, left), averages.weight * (1 - share))
    np.add.at(out, (averages.average, left + 1), averages.weight * share)
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def _kernels(nodes: Array) -> tuple[Array, Array]:
    """Give the covariances of a random walk and an integrated one from the first node on."""
    t = nodes - nodes[0]
    low = np.minimum(t[:, None], t)
    return low, low**3 / 3 + low**2 * np.abs(t[:, None] - t) / 2


def _block_noise(covariance: Array) -> Array:
    """Give the noise of all x, then all y, as one matrix."""
    x, y, xy = covariance[:, 0, 0], covariance[:, 1, 1], covariance[:, 0, 1]
    return np.block([[np.diag(x), np.diag(xy)], [np.diag(xy), np.diag(y)]])


def _strengths(
    averages: Averages, seen: list[Array], trend: Array, duration: float
) -> list[tuple[Array, Array]]:
    """Give pairs of walk variances, (x, y) each, drawn evenly by their restricted likelihood."""
    duration = max(duration, 1.0)
    picks: list[list[tuple[float, float]]] = []
    places = (np.arange(MIXTURE) + 0.5) / MIXTURE
    for axis, places_here in enumerate((places, np.sort((places * 0 + _golden(MIXTURE)) % 1.0))):
        variance = averages.covariance_nm2[:, axis, axis]
        smallest = 0.2 * float(np.sqrt(np.median(variance)))
        sizes = np.geomspace(smallest, max(_LARGEST_WALK_NM, 10 * smallest), _WALK_STEPS)
        pairs = [
            (walk**2 / duration, 3 * bend**2 / duration**3)
            for walk in sizes
            for bend in (0.0, *sizes)
        ]
        prior = _PRIOR_POWER * np.log([walk for walk in sizes for _ in (0.0, *sizes)])
        value = averages.value_nm[:, axis]
        likelihood = np.array(
            [
                _restricted_log_likelihood(
                    value, np.diag(variance) + a * seen[0] + b * seen[1], trend
                )
                for a, b in pairs
            ]
        )
        weight = np.exp(likelihood + prior - (likelihood + prior).max())
        index = np.searchsorted(np.cumsum(weight / weight.sum()), places_here)
        picks.append([pairs[min(i, len(pairs) - 1)] for i in index])
    # The axes' strengths are independent: pair them in an order that has nothing to do with size.
    order = np.argsort(_golden(MIXTURE), kind="stable")
    return [
        (np.array([x[0], y[0]]), np.array([x[1], y[1]]))
        for x, y in zip(picks[0], [picks[1][i] for i in order], strict=True)
    ]


def _golden(number: int) -> Array:
    return np.asarray((np.arange(number) * 0.6180339887498949) % 1.0)


def _restricted_log_likelihood(value: Array, covariance: Array, trend: Array) -> float:
    """Give the log likelihood of what no straight line explains (Patterson and Thompson 1971)."""
    factor = cho_factor(covariance, lower=True)
    whitened = cho_solve(factor, trend)
    information = trend.T @ whitened
    slope = np.linalg.solve(information, whitened.T @ value)
    rest = value - trend @ slope
    return float(
        -np.log(np.diag(factor[0])).sum()
        - 0.5 * np.linalg.slogdet(information)[1]
        - 0.5 * rest @ cho_solve(factor, rest)
    )


def _conditioned(
    kernels: list[_Kernel], averaging: Array, trend: Array, noise: Array, zero: Array
) -> tuple[Array, Array]:
    """Give the gain from averages to nodes, and covariances (nodes, 2, 2) relative to `zero`."""
    nodes = len(zero)
    both = block_diag(averaging, averaging)
    lines = block_diag(trend, trend)
    cross = block_diag(kernels[0].cross, kernels[1].cross)
    covariance = noise + both @ cross
    factor = cho_factor(covariance, lower=True)
    solved = cho_solve(factor, cross.T).T  # cross C^-1
    seen_lines = both @ lines
    slopes = np.linalg.inv(seen_lines.T @ cho_solve(factor, seen_lines))
    unseen = lines - solved @ seen_lines
    gain = solved + unseen @ slopes @ cho_solve(factor, seen_lines).T
    out = np.zeros((nodes, 2, 2))
    # P = K - cross C^-1 cross' + unseen slopes unseen', and Var(d(t) - zero d) from its parts.
    for i in range(2):
        for j in range(2):
            one, other = (slice(axis * nodes, (axis + 1) * nodes) for axis in (i, j))
            left, right = solved[one], cross[other]
            u, w = unseen[one] @ slopes, unseen[other]
            prior = kernels[i] if i == j else kernels[i].times(0.0)
            here = prior.variance - (left * right).sum(axis=1) + (u * w).sum(axis=1)
            forth = prior.with_zero - left @ (right.T @ zero) + u @ (w.T @ zero)
            back = prior.with_zero - right @ (left.T @ zero) + w @ (u.T @ zero)
            out[:, i, j] = here - forth - back + zero @ forth
    for i in range(2):
        out[:, i, i] = np.maximum(out[:, i, i], 0.0)
    return gain, out


def _strayed(at: Array, nodes: Array) -> Array:
    """Give the variance of a unit walk at `at` beyond its values at the nodes around."""
    if len(nodes) == 1:
        return np.zeros(len(at))
    left = np.clip(np.searchsorted(nodes, at, side="right") - 1, 0, len(nodes) - 2)
    a, b = nodes[left], nodes[left + 1]
    return np.asarray(np.maximum((at - a) * (b - at), 0.0) / (b - a))


def _prior_path(frames: int, walk: float, integrated: float, rng: np.random.Generator) -> Array:
    """Draw a walk and an integrated walk that begin at zero, one value for each frame."""
    first, second = rng.normal(size=(2, frames))
    first[0] = 0.0
    path = np.sqrt(walk) * np.cumsum(first)
    # One frame of an integrated walk adds its speed, and a normal with variances 1, 1/3, cov 1/2.
    third = rng.normal(size=frames)
    speed = np.concatenate([[0.0], np.cumsum(second)[:-1]])
    step = speed + 0.5 * second + third / np.sqrt(12.0)
    return np.asarray(path + np.sqrt(integrated) * np.concatenate([[0.0], np.cumsum(step)[:-1]]))
