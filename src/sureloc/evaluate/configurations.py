"""Guesses at a whole frame, refined by the image, weighed against one another, and summed up.

A guess (phi's peaks, a draw's, a state of a chain) is a list of emitters. Refined jointly under the
image likelihood, it has an evidence by Laplace's approximation. A frame holds many crowds that have
little to do with one another, and no guess is the best in all of them: guesses are therefore
compared crowd by crowd, on the pixels nearest to each crowd.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from sureloc.physics.consensus import Consensus, consensus
from sureloc.physics.likelihood import shifted_poisson_log_likelihood
from sureloc.physics.priors import PhotonPrior, ScenePrior, hat_functions
from sureloc.physics.psf import GaussianPSF
from sureloc.physics.referee import FrameData
from sureloc.physics.refinement import LogNormalBrightness, RefinementPrior, TileData, refine
from sureloc.physics.tile_model import Background, Emitters, linearize

Array = npt.NDArray[np.float64]

CROWD_SIGMAS = 4.0  # emitters of any guess closer than this are of one crowd
SAME_LOG = 0.02  # guesses of a crowd that reach the same summit differ by less in log-evidence
IGNORED_VARIANCE = 1e12
QUANTILES_OF_NORMAL = {68: 0.99446, 95: 1.95996}


@dataclass(frozen=True)
class Refined:
    """Guesses at one frame at the maximum of the posterior near each.

    Attributes:
        emitters: of each guess, (n, 3): x px, y px, photo-electrons.
        covariance_px2: of each guess, (n, 2, 2), of x and y of each emitter.
        crowd: of each guess, (n,): the crowd of each emitter.
        log_evidence: of each guess in each crowd, (guesses, crowds), up to a constant.
    """

    emitters: list[Array]
    covariance_px2: list[Array]
    crowd: list[npt.NDArray[np.int64]]
    log_evidence: Array

    def best(self) -> Consensus:
        """Give the emitters of the likeliest guess in each crowd, with Gaussian intervals."""
        chosen = self.log_evidence.argmax(axis=0)
        kept = [crowd == -1 for crowd in self.crowd]
        for crowd, guess in enumerate(chosen):
            kept[guess] |= self.crowd[guess] == crowd
        return gaussian_rows(
            np.concatenate([e[k] for e, k in zip(self.emitters, kept, strict=True)]),
            np.concatenate([c[k] for c, k in zip(self.covariance_px2, kept, strict=True)]),
        )

    def mixture(
        self, gate_px: float, least_probability: float, samples: int, generator: np.random.Generator
    ) -> Consensus:
        """Give what so many samples from all guesses, weighted by their evidence, agree on.

        Args:
            gate_px, least_probability: see `consensus`.
            samples: of guesses and, for each, of positions.
            generator: source of randomness.
        """
        guesses, crowds = self.log_evidence.shape
        lists: list[list[Array]] = [[] for _ in range(samples)]
        for crowd in range(crowds):
            weight = _weights(self.log_evidence[:, crowd])
            for k, guess in enumerate(generator.choice(guesses, samples, p=weight)):
                mine = self.crowd[guess] == crowd
                places = self.emitters[guess][mine]
                root = np.linalg.cholesky(self.covariance_px2[guess][mine])
                noise = generator.standard_normal((len(places), 2, 1))
                moved = places.copy()
                moved[:, :2] += (root @ noise)[:, :, 0]
                lists[k].append(moved)
        drawn = [np.concatenate([np.empty((0, 3)), *parts]) for parts in lists]
        return agreed(drawn, gate_px, least_probability)


def _weights(log_evidence: Array) -> Array:
    """Give the posterior weight of each guess; guesses that reached one summit share it."""
    known = np.isfinite(log_evidence)
    if not known.any():
        return np.full(len(log_evidence), 1.0 / len(log_evidence))
    relative = np.where(known, log_evidence - log_evidence[known].max(), -np.inf)
    near = np.abs(relative[:, None] - relative[None, :]) < SAME_LOG
    weight = np.exp(relative) / np.maximum((near & known).sum(1), 1)
    return np.asarray(weight / weight.sum())


def agreed(
    guesses: Sequence[Array],
    gate_px: float,
    least_probability: float,
    *,
    independent: bool = False,
) -> Consensus:
    """Give what equally likely guesses (n, 3) at one frame agree on (see `consensus`).

    Args:
        guesses: (n, 3) each: x px, y px, photo-electrons.
        gate_px, least_probability: see `consensus`.
        independent: none of them is drawn from another, so that each tells as much as any.
    """
    most = max([len(guess) for guess in guesses], default=0)
    lists = np.zeros((3, len(guesses), max(most, 1)))
    for k, guess in enumerate(guesses):
        lists[:, k, : len(guess)] = guess.T
    counts = np.array([len(guess) for guess in guesses], np.int64)
    x, y, photons = lists
    chains = len(guesses) if independent else 1
    return consensus(x, y, photons, counts, gate_px, least_probability, chains)


def refined(
    guesses: Sequence[Array],
    data: FrameData,
    prior: ScenePrior,
    sigma_px: tuple[float, float],
    *,
    flat: bool = False,
) -> Refined:
    """Refine guesses at one frame and weigh them crowd by crowd.

    Args:
        guesses: (n, 3) each: x px, y px, photo-electrons.
        data: the frame.
        prior: of density, photons and background; photons are taken as log-normal.
        sigma_px: PSF widths along columns and rows, px.
        flat: move emitters to the maximum of the likelihood, their photons unbelieved; weights
            still count the prior.
    """
    shape = data.electrons.shape
    sizes = [len(guess) for guess in guesses]
    lists = np.ones((3, len(guesses), max(1, *sizes)))
    present = np.zeros(lists.shape[1:], bool)
    for k, guess in enumerate(guesses):
        lists[:, k, : len(guess)] = guess.T
        present[k, : len(guess)] = True
    lists[2] = np.maximum(lists[2], 1.0)
    x, y, photons = torch.from_numpy(lists)
    start = Emitters(x, y, photons, torch.from_numpy(present))
    psf = GaussianPSF(*sigma_px)
    background = _background(prior, len(guesses), (shape[0], shape[1]))
    variance = torch.from_numpy(np.array(data.read_variance_e2))
    if data.ignore is not None:
        variance[torch.from_numpy(data.ignore)] = IGNORED_VARIANCE
    electrons = torch.from_numpy(np.array(data.electrons))[None].expand(len(guesses), *shape)
    brightness = log_normal(prior.photons)
    found = refine(
        TileData(electrons, variance[None], data.excess_noise),
        start,
        background,
        psf,
        RefinementPrior(None if flat else brightness),
    )
    fitted = Background(background.basis, found.background, background.sd)
    expected = linearize(found.emitters, fitted, psf).expected_e
    pixels = shifted_poisson_log_likelihood(
        electrons, expected, variance[None], data.excess_noise
    ).numpy()
    c = found.covariance
    blocks = torch.stack(
        [
            torch.stack([c.var_x_px2, c.cov_xy_px2], -1),
            torch.stack([c.cov_xy_px2, c.var_y_px2], -1),
        ],
        -2,
    ).numpy()
    values = torch.stack([found.emitters.x_px, found.emitters.y_px, found.emitters.photons], -1)
    emitters = [values[k, :n].numpy().copy() for k, n in enumerate(sizes)]
    crowds, nearest = _crowds(emitters, (shape[0], shape[1]), sigma_px)
    number = int(nearest.max()) + 1
    matrix = c.matrix.numpy()
    log_evidence = np.zeros((len(guesses), number))
    for k, (mine, crowd) in enumerate(zip(emitters, crowds, strict=True)):
        log_evidence[k] = np.bincount(nearest.ravel(), pixels[k].ravel(), number)
        for one in range(number):
            inside = np.flatnonzero(crowd == one)
            log_evidence[k, one] += _log_prior_volume(
                mine[inside], matrix[k], inside, prior, brightness
            )
    return Refined(
        emitters,
        [_bounded(blocks[k, :n]) for k, n in enumerate(sizes)],
        crowds,
        np.nan_to_num(log_evidence, nan=-np.inf),
    )


def _background(prior: ScenePrior, tiles: int, shape: tuple[int, int]) -> Background:
    mean = np.atleast_2d(np.asarray(prior.background_e, float))
    rows, columns = (hat_functions(n, k) for n, k in zip(shape, mean.shape, strict=True))
    basis = np.einsum("ar,bc->abrc", rows, columns).reshape(1, -1, *shape)
    level = torch.from_numpy(np.maximum(mean.ravel(), 1e-3))
    sd = torch.full_like(level, prior.background_sd_e)
    return Background(torch.from_numpy(basis), level.expand(tiles, -1).clone(), sd)


def log_normal(photons: PhotonPrior) -> LogNormalBrightness:
    """Give the log-normal law of the same mean and standard deviation of ln N."""
    density = np.exp(photons.log_density)
    u = photons.log_photons
    total = np.trapezoid(density, u)
    mean = float(np.trapezoid(density * u, u) / total)
    variance = float(np.trapezoid(density * (u - mean) ** 2, u) / total)
    return LogNormalBrightness(math.exp(mean), max(math.sqrt(variance), 0.02))


def _log_prior_volume(
    emitters: Array,
    covariance: Array,
    inside: npt.NDArray[np.int64],
    prior: ScenePrior,
    brightness: LogNormalBrightness,
) -> float:
    """Give ln of prior density times posterior volume of a crowd's emitters (Laplace 1774)."""
    if len(inside) == 0:
        return 0.0
    parameters = (3 * inside[:, None] + np.arange(3)).ravel()
    photons = torch.from_numpy(emitters[:, 2])
    log_density = float(brightness.log_density(photons).sum())
    log_density -= len(inside) * math.log(brightness.log_sd * math.sqrt(2 * math.pi))
    log_density += len(inside) * math.log(prior.density_per_px2)
    sign, log_det = np.linalg.slogdet(covariance[np.ix_(parameters, parameters)])
    if sign <= 0 or not np.isfinite(log_det):
        return -math.inf
    # The prior is a density of ln N, the covariance one of N.
    log_volume = 0.5 * (log_det + len(parameters) * math.log(2 * math.pi))
    return float(log_density + log_volume - float(photons.log().sum()))


def _crowds(
    emitters: Sequence[Array], shape: tuple[int, int], sigma_px: tuple[float, float]
) -> tuple[list[npt.NDArray[np.int64]], npt.NDArray[np.int64]]:
    """Give the crowd of every emitter of every guess, and of every pixel the nearest crowd."""
    places = np.concatenate([guess[:, :2] for guess in emitters])
    if len(places) == 0:
        return [np.empty(0, np.int64) for _ in emitters], np.zeros(shape, np.int64)
    pairs = KDTree(places).query_pairs(CROWD_SIGMAS * max(sigma_px), output_type="ndarray")
    graph = coo_matrix((np.ones(len(pairs)), pairs.T), (len(places), len(places)))
    label = connected_components(graph, directed=False)[1].astype(np.int64)
    row, column = np.indices(shape)
    near = KDTree(places).query(np.stack([column.ravel(), row.ravel()], axis=1))[1]
    ends = np.cumsum([len(guess) for guess in emitters])[:-1]
    return [np.asarray(part) for part in np.split(label, ends)], label[near].reshape(shape)


def _bounded(covariance: Array) -> Array:
    """Give covariances that can be drawn from: nowhere wider than the frame, positive definite."""
    trace = np.trace(covariance, axis1=1, axis2=2)
    bad = ~np.isfinite(trace) | (trace > 1e4)
    out = np.where(bad[:, None, None], 1e2 * np.eye(2), covariance)
    return np.asarray(out + 1e-10 * np.eye(2))


def gaussian_rows(
    emitters: Array, covariance_px2: Array, p_exists: Array | None = None
) -> Consensus:
    """Give emitters as rows with Gaussian intervals.

    Args:
        emitters: (n, 3): x px, y px, photo-electrons.
        covariance_px2: of x and y, (n, 2, 2).
        p_exists: probability of each; by default all are sure.
    """
    x, y, photons = emitters.T
    var_x, var_y = covariance_px2[:, 0, 0], covariance_px2[:, 1, 1]
    reach = np.array([-1, -1, 1, 1]) * [QUANTILES_OF_NORMAL[p] for p in (95, 68, 68, 95)]
    return Consensus(
        x,
        y,
        photons,
        var_x,
        var_y,
        covariance_px2[:, 0, 1],
        np.zeros(len(x)),
        x[:, None] + np.sqrt(var_x)[:, None] * reach,
        y[:, None] + np.sqrt(var_y)[:, None] * reach,
        np.ones(len(x)) if p_exists is None else p_exists,
        np.full(len(x), np.inf),
        np.full(len(x), np.inf),
    )


def positions(rows: Consensus, frame: int, pixel_nm: float, *, intervals: bool) -> pd.DataFrame:
    """Give rows as a table.

    Returns:
        frame, x_nm, y_nm, sigma_x_nm, sigma_y_nm, the 68 and 95 % intervals of x and y, and
        p_exists; deviations and intervals are NaN if there are none.
    """
    unit = pixel_nm if intervals else np.nan
    table: dict[str, npt.NDArray[np.generic]] = {"frame": np.full(rows.x_px.size, frame, np.int64)}
    for axis, place, variance, ends in (
        ("x", rows.x_px, rows.var_x_px2, rows.x_quantiles),
        ("y", rows.y_px, rows.var_y_px2, rows.y_quantiles),
    ):
        table[f"{axis}_nm"] = place * pixel_nm
        table[f"sigma_{axis}_nm"] = np.sqrt(variance) * unit
        for k, name in enumerate(("lo95", "lo68", "hi68", "hi95")):
            table[f"{axis}_{name}_nm"] = ends[:, k] * unit
    table["p_exists"] = rows.p_exists
    return pd.DataFrame(table)
