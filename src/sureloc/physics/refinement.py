"""Joint refinement: all emitters of a tile moved together to where the image wants them.

Fisher scoring with Levenberg-Marquardt damping under the shifted-Poisson likelihood (Huang et al.
2013; Laurence and Chromy 2010), for many tiles at once. With score g and information F, both with
the prior's share added, one step solves

    (F - C + lambda diag F) step = g .

C, the residual times the second derivatives of the expected counts, makes this Newton's method; it
is left out where it would spoil positive definiteness. (Without it, close pairs converge in a
hundred steps instead of ten: the curvature they see is mostly C.) A step is kept where it raises
the posterior, and lambda falls; else lambda grows. Damping by the diagonal does not depend on
units, so the step of the photons may be applied to their logarithm: they stay positive without a
bound that would push faint emitters into false partners. Each tile has its own lambda and leaves
the batch when it has converged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sureloc.errors import InputError
from sureloc.physics.information import (
    Covariance,
    add_background_prior,
    covariance_of,
    pixel_information,
    unknown_parameters,
)
from sureloc.physics.likelihood import shifted_poisson_log_likelihood
from sureloc.physics.psf import PSF
from sureloc.physics.tile_model import Background, Emitters, linearize

_LONGEST_MOVE_PX = 0.5
_LARGEST_LOG_CHANGE = 1.0
_FIRST_DAMPING = 1e-3
_LEAST_DAMPING = 1e-9
_MOST_DAMPING = 1e8


@dataclass(frozen=True)
class TileData:
    """What the camera saw.

    Attributes:
        electrons: photo-electrons of each tile. Many proposals for one frame are many tiles; the
            frame need not be copied for them (`Tensor.expand`).
        read_variance_e2: read variance, electrons^2; a leading dimension of 1 shares the map.
            Pixels that tell nothing get a very large one.
        excess_noise: F^2, 1 without electron multiplication.
    """

    electrons: Float[Tensor, "tiles height width"]
    read_variance_e2: Float[Tensor, "#tiles height width"]
    excess_noise: float = 1.0

    def of_tiles(self, tiles: Int[Tensor, " kept"]) -> TileData:
        """Give the data of some tiles."""
        shared = len(self.read_variance_e2) == 1
        variance = self.read_variance_e2 if shared else self.read_variance_e2[tiles]
        return TileData(self.electrons[tiles], variance, self.excess_noise)


@runtime_checkable
class BrightnessPrior(Protocol):
    """What is believed about the photo-electrons of an emitter, as a refinement uses it."""

    def log_density(self, photons: Tensor) -> Tensor:
        """Give the log-density up to a constant."""
        ...

    def slope_and_precision(self, photons: Tensor) -> tuple[Tensor, Tensor]:
        """Give the derivative by photons, and a positive stand-in for minus the second one."""
        ...


@dataclass(frozen=True)
class GaussianBrightness:
    """Photo-electrons are Gaussian.

    Attributes:
        mean, sd: photo-electrons.
    """

    mean: float
    sd: float

    def log_density(self, photons: Tensor) -> Tensor:
        """Give the log-density up to a constant."""
        return -0.5 * ((photons - self.mean) / self.sd) ** 2

    def slope_and_precision(self, photons: Tensor) -> tuple[Tensor, Tensor]:
        """Give the derivative by photons, and minus the second one."""
        return (self.mean - photons) / self.sd**2, torch.full_like(photons, self.sd**-2)


@dataclass(frozen=True)
class LogNormalBrightness:
    """The logarithm of the photo-electrons is Gaussian, and the density is one of the logarithm.

    Attributes:
        median: photo-electrons; the mode, too, since the density is one by ln N.
        log_sd: standard deviation of ln N.
    """

    median: float
    log_sd: float

    def log_density(self, photons: Tensor) -> Tensor:
        """Give the log-density by ln N up to a constant."""
        return -0.5 * ((photons / self.median).log() / self.log_sd) ** 2

    def slope_and_precision(self, photons: Tensor) -> tuple[Tensor, Tensor]:
        """Give the derivative by photons, and the precision of ln N in units of photons."""
        precision = (photons * self.log_sd) ** -2
        return -(photons / self.median).log() * photons * precision, precision


@dataclass(frozen=True)
class RefinementPrior:
    """Weak beliefs that keep a refinement in place where the image does not.

    Attributes:
        brightness: of the photo-electrons, or None for a flat prior.
        position_sd_px: Gaussian width around the starting positions; infinite is flat.

    Raises:
        InputError: the width is not larger than 0.
    """

    brightness: BrightnessPrior | None = None
    position_sd_px: float = math.inf

    def __post_init__(self) -> None:
        if not self.position_sd_px > 0:
            raise InputError(
                f"position_sd_px is {self.position_sd_px}; it must be larger than 0 (infinite "
                "leaves positions free)."
            )


@dataclass(frozen=True)
class StoppingRule:
    """When a refinement ends.

    Attributes:
        decrement: a tile has converged when its next full step would be shorter than this, in
            standard deviations of all its parameters together (the Newton decrement).
        most_iterations: tiles that need more are given back unconverged.
    """

    decrement: float = 1e-3
    most_iterations: int = 100


@dataclass(frozen=True)
class Refinement:
    """Emitters and background at the maximum of the posterior.

    Attributes:
        emitters: positions and photo-electrons; padding as it was given.
        background: the weights of the background's images.
        covariance: inverse of the information, prior included, at the maximum.
        log_likelihood: shifted-Poisson, 0 for an expected image equal to the measured one.
        log_posterior: the prior's log-density added, up to a constant.
        converged: False where the rule's iterations were not enough.
        iterations: steps tried.
    """

    emitters: Emitters
    background: Float[Tensor, "tiles terms"]
    covariance: Covariance
    log_likelihood: Float[Tensor, " tiles"]
    log_posterior: Float[Tensor, " tiles"]
    converged: Bool[Tensor, " tiles"]
    iterations: Int[Tensor, " tiles"]


@dataclass(frozen=True)
class _Problem:
    """What stays fixed while tiles are refined, for the tiles still in the batch."""

    data: TileData
    start: Emitters
    background: Background
    psf: PSF
    prior: RefinementPrior
    unknown: Tensor

    def of_tiles(self, tiles: Tensor) -> _Problem:
        everyone = torch.arange(self.start.x_px.shape[1], device=tiles.device)
        return replace(
            self,
            data=self.data.of_tiles(tiles),
            start=self.start.of_tiles(tiles),
            background=self.background.of_tiles(tiles),
            psf=self.psf.of_emitters(tiles[:, None], everyone[None, :]),
            unknown=self.unknown[tiles],
        )

    def double(self) -> _Problem:
        data = replace(
            self.data,
            electrons=self.data.electrons.double(),
            read_variance_e2=self.data.read_variance_e2.double(),
        )
        return replace(
            self, data=data, start=self.start.double(), background=self.background.double()
        )


@dataclass(frozen=True)
class _Point:
    """A place in parameter space and the posterior's quadratic form there (float64)."""

    emitters: Emitters
    weights: Tensor
    log_likelihood: Tensor
    log_posterior: Tensor
    score: Tensor
    information: Tensor
    curvature: Tensor

    @classmethod
    def combine(cls, how: Callable[..., Tensor], points: Sequence[_Point]) -> _Point:
        """Apply a function to each array of one or more points."""

        def arrays(of: Sequence[_Point | Emitters], skip: str = "") -> Iterator[Tensor]:
            names = [f.name for f in fields(of[0]) if f.name != skip]
            return (how(*(getattr(one, name) for one in of)) for name in names)

        emitters = Emitters(*arrays([point.emitters for point in points]))
        return cls(emitters, *arrays(points, skip="emitters"))

    def of_tiles(self, tiles: Tensor) -> _Point:
        return self.combine(lambda array: array[tiles], [self])


def refine(
    data: TileData,
    start: Emitters,
    background: Background,
    psf: PSF,
    prior: RefinementPrior | None = None,
    rule: StoppingRule | None = None,
) -> Refinement:
    """Move all emitters of each tile, and its background, to the maximum of the posterior.

    Args:
        data: the tiles.
        start: where to begin; how many emitters there are does not change.
        background: its weights are the prior's mean and where to begin.
        psf: the point-spread function; widths per tile have shape (tiles, 1).
        prior: what else is believed; flat by default, which makes this maximum likelihood.
        rule: when to stop.

    Returns:
        The refined emitters with their covariance. Padding does not influence the result. Working
        memory is about 4 numbers per emitter and pixel of the batch.

    Raises:
        InputError: a starting brightness is not positive, or the expected image at the start is
            not larger than minus the read variance somewhere, so that it has no likelihood.
    """
    prior, rule = prior or RefinementPrior(), rule or StoppingRule()
    _check_start(start)
    problem = _Problem(
        data,
        start.with_harmless_padding(),
        background,
        psf,
        prior,
        unknown_parameters(start, background),
    )
    point = _evaluate(problem, problem.start, background.coefficients)
    if not bool(torch.isfinite(point.log_posterior).all()):
        tile = int((~torch.isfinite(point.log_posterior)).nonzero()[0, 0])
        raise InputError(
            f"Tile {tile} has no likelihood at its start: expected photo-electrons plus read "
            "variance must be larger than 0 in every pixel, and all numbers finite. Start with a "
            "positive background."
        )
    final, converged, iterations = _climb(problem, point, rule)
    covariance = _covariance(problem, final)
    return Refinement(
        _with_padding_of(start, final.emitters),
        final.weights,
        covariance,
        final.log_likelihood,
        final.log_posterior,
        converged,
        iterations,
    )


def _check_start(start: Emitters) -> None:
    faint = start.present & ~(start.photons > 0)
    if bool(faint.any()):
        raise InputError(
            f"A starting brightness is {float(start.photons[faint][0])} photo-electrons; it must "
            "be larger than 0. Leave out emitters that do not shine."
        )


def _with_padding_of(start: Emitters, final: Emitters) -> Emitters:
    def fill(name: str) -> Tensor:
        return torch.where(start.present, getattr(final, name), getattr(start, name))

    return Emitters(fill("x_px"), fill("y_px"), fill("photons"), start.present)


def _climb(problem: _Problem, point: _Point, rule: StoppingRule) -> tuple[_Point, Tensor, Tensor]:
    """Step until every tile has converged; finished tiles leave the batch."""
    finished: list[tuple[Tensor, _Point]] = []
    tiles = torch.arange(len(point.score), device=point.score.device)
    damping = torch.full_like(point.log_posterior, _FIRST_DAMPING)
    converged = torch.zeros_like(tiles, dtype=torch.bool)
    iterations = torch.zeros_like(tiles)
    for iteration in range(rule.most_iterations + 1):
        step, decrement = _damped_step(point, problem.unknown, damping)
        done = decrement < rule.decrement
        converged[tiles[done]] = True
        iterations[tiles] = iteration
        if iteration == rule.most_iterations:
            done = torch.ones_like(done)
        if bool(done.any()):
            finished.append((tiles[done], point.of_tiles(done.nonzero()[:, 0])))
            going = (~done).nonzero()[:, 0]
            if len(going) == 0:
                break
            problem, point, tiles = problem.of_tiles(going), point.of_tiles(going), tiles[going]
            damping, step = damping[going], step[going]
        trial = _evaluate(problem, *_moved(point, step))
        better = trial.log_posterior > point.log_posterior - _rounding(problem.data)
        point = _choose(better, trial, point)
        damping = torch.where(better, 0.1 * damping, 10.0 * damping)
        damping = damping.clamp(_LEAST_DAMPING, _MOST_DAMPING)
    return _in_order(finished), converged, iterations


def _rounding(data: TileData) -> Tensor:
    """Give by how much rounding may change a log-likelihood: relative errors of the counts."""
    variance = data.read_variance_e2.expand_as(data.electrons)
    shifted = (data.electrons + variance / data.excess_noise).clamp(min=0.0).sum(dim=(1, 2))
    return 4.0 * torch.finfo(data.electrons.dtype).eps * shifted.double().sqrt()


def _in_order(finished: list[tuple[Tensor, _Point]]) -> _Point:
    order = torch.cat([tiles for tiles, _ in finished]).argsort()
    return _Point.combine(
        lambda *arrays: torch.cat(arrays)[order], [point for _, point in finished]
    )


def _choose(first: Tensor, a: _Point, b: _Point) -> _Point:
    return _Point.combine(
        lambda x, y: torch.where(first.view(-1, *(1,) * (x.ndim - 1)), x, y), [a, b]
    )


def _covariance(problem: _Problem, final: _Point) -> Covariance:
    """Invert the information, computed in float64: close pairs leave few digits of it."""
    summit = final
    if problem.data.electrons.dtype != torch.float64:
        summit = _evaluate(problem.double(), final.emitters.double(), final.weights.double())
    return covariance_of(summit.information, problem.unknown, problem.start.present)


def _evaluate(problem: _Problem, emitters: Emitters, weights: Tensor) -> _Point:
    """Give posterior, score and information at a point."""
    data, noise = problem.data, problem.data.excess_noise
    background = replace(problem.background, coefficients=weights)
    tiles = linearize(emitters, background, problem.psf)
    told = pixel_information(tiles.expected_e, data.read_variance_e2, noise)
    # The score of a pixel, (e' / omega' - 1) / F^2, is its residual times what it tells.
    residual = (data.electrons - tiles.expected_e) * told
    score = tiles.gradient(residual)
    likelihood = _log_likelihood(data, tiles.expected_e)
    information = tiles.information(told).double()
    add_background_prior(information, background)
    prior, score_of_prior = _add_prior(problem, emitters, weights, information)
    score = (score.double() + score_of_prior) * problem.unknown
    curvature = tiles.curvature(residual).double()
    curvature[..., 2, 2] += _curvature_of_fading(score, emitters)
    return _Point(emitters, weights, likelihood, likelihood + prior, score, information, curvature)


def _curvature_of_fading(score: Tensor, emitters: Emitters) -> Tensor:
    """Give what the photons' logarithm adds to the second derivative by photons.

    It matters for emitters that the image does not want: as they fade, the posterior becomes flat
    in the logarithm, and the tile can converge. Where photons should grow it is left out, as it
    would only spoil positive definiteness; at the maximum it is 0.
    """
    of_photons = score[:, : 3 * emitters.x_px.shape[1]][:, 2::3]
    return (of_photons / emitters.photons).clamp(max=0.0)


def _log_likelihood(data: TileData, expected: Tensor) -> Tensor:
    # In float64: at the summit, steps are kept or refused by the last digits of this sum.
    variance = data.read_variance_e2.double()
    pixels = shifted_poisson_log_likelihood(
        data.electrons.double(), expected.double(), variance, data.excess_noise
    )
    possible = (expected + variance / data.excess_noise > 0).all(dim=2).all(dim=1)
    total = pixels.sum(dim=(1, 2))
    return torch.where(possible & torch.isfinite(total), total, -math.inf)


def _add_prior(
    problem: _Problem, emitters: Emitters, weights: Tensor, information: Tensor
) -> tuple[Tensor, Tensor]:
    """Add the prior's precision in place; give its log-density and score (float64)."""
    count = emitters.x_px.shape[1]
    of_background = (weights - problem.background.coefficients).double()
    precision = problem.background.precision.double()
    log_density = -0.5 * (of_background**2 * precision).sum(dim=1)
    x_y_photons = torch.zeros(
        (*emitters.x_px.shape, 3), dtype=torch.float64, device=information.device
    )
    diagonal = torch.diagonal(information, dim1=-2, dim2=-1)[:, : 3 * count]
    diagonal = diagonal.unflatten(1, (count, 3))  # type: ignore[no-untyped-call] # stays a view
    present = emitters.present
    for axis, name in enumerate(("x_px", "y_px")):
        tightness = problem.prior.position_sd_px**-2
        away = (getattr(emitters, name) - getattr(problem.start, name)).double() * present
        log_density = log_density - 0.5 * tightness * (away**2).sum(dim=1)
        x_y_photons[..., axis] = -tightness * away
        diagonal[..., axis] += tightness * present
    if problem.prior.brightness is not None:
        photons = emitters.photons.double()
        log_density = log_density + (problem.prior.brightness.log_density(photons) * present).sum(1)
        slope, tightness_of = problem.prior.brightness.slope_and_precision(photons)
        x_y_photons[..., 2] = slope * present
        diagonal[..., 2] += tightness_of * present
    return log_density, torch.cat((x_y_photons.flatten(1), -precision * of_background), dim=1)


def _damped_step(point: _Point, unknown: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Give the step, and its length in standard deviations as it would be without damping."""
    diagonal = torch.diagonal(point.information, dim1=-2, dim2=-1)
    scale = torch.where(unknown & (diagonal > 0), diagonal, 1.0).rsqrt()
    fisher = point.information * scale[:, :, None] * scale[:, None, :]
    # Known parameters have a score of 0: whatever stands on their diagonal, they stay.
    torch.diagonal(fisher, dim1=-2, dim2=-1).copy_(1.0 + damping[:, None])
    factor, failed = torch.linalg.cholesky_ex(_newton(fisher, point.curvature, scale))
    if bool(failed.any()):
        bad = failed.nonzero()[:, 0]
        factor[bad], failed[bad] = torch.linalg.cholesky_ex(fisher[bad])
    scaled_score = point.score * scale
    scaled_step = torch.cholesky_solve(scaled_score[:, :, None], factor)[:, :, 0]
    square = (scaled_step * scaled_score).sum(dim=1) * (1.0 + damping)
    # A matrix that rounding left indefinite tells no direction: stay, and damp more.
    refused = (failed > 0) | ~torch.isfinite(square)
    step = torch.where(refused[:, None], 0.0, scaled_step * scale)
    return step, torch.where(refused, math.inf, square.clamp(min=0.0).sqrt())


def _newton(fisher: Tensor, curvature: Tensor, scale: Tensor) -> Tensor:
    """Subtract each emitter's own curvature, scaled like the matrix."""
    tiles, count = curvature.shape[:2]
    own = scale[:, : 3 * count].view(tiles, count, 3)
    scaled = curvature * own[..., :, None] * own[..., None, :]
    matrix = fisher.clone()
    first = 3 * torch.arange(count, device=scale.device)
    for a in range(3):
        for b in range(3):
            matrix[:, first + a, first + b] -= scaled[:, :, a, b]
    return matrix


def _moved(point: _Point, step: Tensor) -> tuple[Emitters, Tensor]:
    """Apply a step, shortened where it is too long; give the new emitters and weights."""
    old, dtype = point.emitters, point.emitters.x_px.dtype
    count = old.x_px.shape[1]
    move = step[:, : 3 * count].to(dtype).reshape(-1, count, 3)
    shorten = _LONGEST_MOVE_PX / torch.hypot(move[..., 0], move[..., 1]).clamp(_LONGEST_MOVE_PX)
    change = (move[..., 2] / old.photons).clamp(-_LARGEST_LOG_CHANGE, _LARGEST_LOG_CHANGE)
    emitters = replace(
        old,
        x_px=old.x_px + shorten * move[..., 0],
        y_px=old.y_px + shorten * move[..., 1],
        photons=old.photons * change.exp(),
    )
    return emitters, point.weights + step[:, 3 * count :].to(dtype)
