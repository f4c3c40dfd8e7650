"""What an image can tell at best: Fisher information and the Cramer-Rao bound (seed eq. 3).

For independent pixels with expected counts omega(theta) the information about parameters theta is

    F = sum over pixels of  d omega/d theta  I(omega, v)  (d omega/d theta)^T ,

where I is what one pixel tells about its own omega. Under the shifted Poisson with excess noise F^2
it is 1 / (F^2 omega + v): seed eq. 3 with omega' = omega + v. `exact_pixel_information` computes it
for the exact Poisson-Gaussian camera instead. No unbiased estimate varies less than the inverse of
F, in which the other emitters and the background count as unknown too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sureloc.errors import InputError
from sureloc.physics.likelihood import log_density_and_mean_count
from sureloc.physics.psf import PSF
from sureloc.physics.tile_model import Background, Emitters, linearize

_NOISELESS_VARIANCE = 2e-3  # counts are 22 standard deviations apart: they are known
_RIDGE = 1e-10  # of a parameter's own information, where the matrix is singular without it
_READINGS_AT_ONCE = 2**18


@dataclass(frozen=True)
class Covariance:
    """Variances of fitted emitters, reached or at best reachable.

    Attributes:
        var_x_px2, var_y_px2, cov_xy_px2: of the positions, px^2; NaN for padding, huge
            where the image does not determine them.
        var_photons: of the photo-electrons, electrons^2.
        matrix: of all parameters together: x, y and photons of the first emitter, of the second
            ..., then the background's weights (or, for emitters taken alone, one matrix for each
            emitter). Rows of padding and of known weights are 0.
    """

    var_x_px2: Float[Tensor, "tiles emitters"]
    var_y_px2: Float[Tensor, "tiles emitters"]
    cov_xy_px2: Float[Tensor, "tiles emitters"]
    var_photons: Float[Tensor, "tiles emitters"]
    matrix: Float[Tensor, "tiles *alone parameters parameters"]


def pixel_information(
    expected_e: Float[Tensor, "*shape"],
    read_variance_e2: Float[Tensor, "..."],
    excess_noise: float = 1.0,
) -> Float[Tensor, "*shape"]:
    """Give what each pixel tells about its expected count under the shifted Poisson, 1/electrons^2.

    Args:
        expected_e: expected photo-electrons omega.
        read_variance_e2: read variance v, electrons^2, broadcast.
        excess_noise: F^2, 1 without electron multiplication.

    Returns:
        1 / (F^2 omega + v).
    """
    return 1.0 / (excess_noise * expected_e + read_variance_e2)


def exact_pixel_information(
    expected_e: Float[Tensor, "*shape"], read_variance_e2: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Give what each pixel tells about its expected count under the exact camera, 1/electrons^2.

    The score of a reading e is E[q | e] / omega - 1, so the information is the mean of its square
    (Chao, Ward and Ober 2012), here by the trapezoidal rule over e.

    Args:
        expected_e: expected photo-electrons omega, larger than 0.
        read_variance_e2: read variance v, electrons^2, 0 or larger.

    Returns:
        I(omega, v), between 1 / (omega + v) and 1 / omega.
    """
    omega, v = expected_e.double().flatten(), read_variance_e2.double().flatten()
    information = 1.0 / omega
    noisy = torch.nonzero(v >= _NOISELESS_VARIANCE)[:, 0]
    low, high, nodes = _readings(omega[noisy], v[noisy])
    order = torch.argsort(nodes, descending=True)
    while len(order):
        at_once = max(1, _READINGS_AT_ONCE // int(nodes[order[0]]))
        part, order = order[:at_once], order[at_once:]
        unit = torch.linspace(0.0, 1.0, int(nodes[part[0]]), dtype=v.dtype, device=v.device)
        readings = low[part, None] + (high - low)[part, None] * unit
        pixels = noisy[part]
        information[pixels] = _mean_square_score(readings, omega[pixels], v[pixels])
    return information.view(expected_e.shape).to(expected_e.dtype)


def _readings(omega: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give the range of readings that ever happen, and how many nodes resolve it."""
    reach = 9.5 * torch.sqrt(omega + v) + 12.0
    low = torch.maximum(omega - reach, -9.5 * v.sqrt())
    high = omega + reach
    # The density is smooth on the scale sqrt(v); between two counts the score turns within v,
    # which no longer matters where hardly any reading falls there (v < 0.01). The trapezoidal
    # rule then errs by about exp(-2 pi^2 / 0.8).
    step = 0.8 * v.sqrt() * v.sqrt().clamp(0.1, 1.0)
    return low, high, torch.ceil((high - low) / step).long() + 1


def _mean_square_score(readings: Tensor, omega: Tensor, v: Tensor) -> Tensor:
    expected = omega[:, None].expand_as(readings)
    log_density, count = log_density_and_mean_count(readings, expected, v[:, None])
    square = log_density.exp() * (count / expected - 1.0) ** 2
    return torch.trapezoid(square, readings, dim=1)


def unknown_parameters(
    emitters: Emitters, background: Background
) -> Bool[Tensor, "tiles parameters"]:
    """Tell which parameters are to be found: not padding, and not known weights."""
    weights = (background.sd > 0).expand(len(emitters.present), -1)
    return torch.cat((emitters.present.repeat_interleave(3, dim=1), weights), dim=1)


def covariance_of(
    information: Float[Tensor, "tiles parameters parameters"],
    unknown: Bool[Tensor, "tiles parameters"],
    present: Bool[Tensor, "tiles emitters"],
) -> Covariance:
    """Invert an information matrix over its unknown parameters.

    Args:
        information: Fisher matrix, prior precision included.
        unknown: True for the parameters to be found.
        present: False for padding.

    Returns:
        Variances in float64. Where the image does not determine parameters (two emitters at one
        place, one far outside), theirs become huge and the others' stay right.
    """
    matrix = _inverse(information, unknown)
    tiles, count = present.shape
    blocks = matrix[:, : 3 * count, : 3 * count].view(tiles, count, 3, count, 3)
    own = torch.diagonal(blocks, dim1=1, dim2=3).movedim(-1, 1)
    own = torch.where(present[:, :, None, None], own, math.nan)
    return Covariance(own[..., 0, 0], own[..., 1, 1], own[..., 0, 1], own[..., 2, 2], matrix)


def _inverse(information: Tensor, unknown: Tensor) -> Tensor:
    # Positions and photons differ by orders of magnitude in unit: with ones on the diagonal,
    # what is left of the condition number is physics.
    matrix = information.double()
    diagonal = torch.diagonal(matrix, dim1=-2, dim2=-1)
    scale = torch.where(unknown & (diagonal > 0), diagonal, 1.0).rsqrt()
    both = unknown[..., :, None] & unknown[..., None, :]
    scaled = torch.where(both, matrix * scale[..., :, None] * scale[..., None, :], 0.0)
    scaled = scaled + torch.diag_embed((~unknown).to(scaled.dtype))
    factor, failed = torch.linalg.cholesky_ex(scaled)
    if bool(failed.any()):
        bad = failed.nonzero()[:, 0]
        ridge = _RIDGE * torch.eye(scaled.shape[-1], dtype=scaled.dtype, device=scaled.device)
        factor[bad], failed[bad] = torch.linalg.cholesky_ex(scaled[bad] + ridge)
    inverse = torch.cholesky_inverse(factor) * scale[..., :, None] * scale[..., None, :]
    inverse = torch.where((failed > 0)[..., None, None], math.inf, inverse)
    return torch.where(both, inverse, 0.0)


def joint_bound(
    emitters: Emitters,
    background: Background,
    read_variance_e2: Float[Tensor, "#tiles height width"],
    psf: PSF,
    excess_noise: float = 1.0,
    *,
    exact: bool = False,
) -> Covariance:
    """Give the Cramer-Rao bound of all emitters of a tile together (seed eq. 3).

    Args:
        emitters: the emitters of each tile.
        background: the background; weights of finite sd count as known that well beforehand.
        read_variance_e2: read variance, electrons^2; a leading dimension of 1 shares the map.
        psf: the point-spread function.
        excess_noise: F^2, 1 without electron multiplication.
        exact: use the exact Poisson-Gaussian information of each pixel (slower).

    Returns:
        The covariance that no unbiased estimate of positions, photons and background beats.

    Raises:
        InputError: the exact information was asked for with excess noise.
    """
    tiles = linearize(emitters, background, psf)
    variance = read_variance_e2.expand_as(tiles.expected_e)
    told = _told_by_pixels(tiles.expected_e, variance, excess_noise, exact)
    matrix = tiles.information(told)
    add_background_prior(matrix, background)
    return covariance_of(matrix, unknown_parameters(emitters, background), emitters.present)


def isolated_bound(
    emitters: Emitters,
    background: Background,
    read_variance_e2: Float[Tensor, "#tiles height width"],
    psf: PSF,
    excess_noise: float = 1.0,
    *,
    exact: bool = False,
) -> Covariance:
    """Give the Cramer-Rao bound of each emitter as if it were alone in its tile.

    Args:
        emitters, background, read_variance_e2, psf, excess_noise, exact: as for `joint_bound`.

    Returns:
        The bound; its `matrix` has shape (tiles, emitters, 3 + terms, 3 + terms).

    Raises:
        InputError: the exact information was asked for with excess noise.
    """
    tiles, count = emitters.x_px.shape
    tile = torch.arange(tiles, device=emitters.x_px.device).repeat_interleave(count)
    emitter = torch.arange(count, device=tile.device).repeat(tiles)

    def one_each(value: Tensor) -> Tensor:
        return value.reshape(-1, 1)

    alone = Emitters(
        one_each(emitters.x_px),
        one_each(emitters.y_px),
        one_each(emitters.photons),
        one_each(emitters.present),
    )
    each = joint_bound(
        alone,
        background.of_tiles(tile),
        read_variance_e2 if len(read_variance_e2) == 1 else read_variance_e2[tile],
        psf.of_emitters(tile[:, None], emitter[:, None]),
        excess_noise,
        exact=exact,
    )
    size = each.matrix.shape[-1]
    return Covariance(
        each.var_x_px2.view(tiles, count),
        each.var_y_px2.view(tiles, count),
        each.cov_xy_px2.view(tiles, count),
        each.var_photons.view(tiles, count),
        each.matrix.view(tiles, count, size, size),
    )


def add_background_prior(
    matrix: Float[Tensor, "tiles parameters parameters"], background: Background
) -> None:
    """Add, in place, what is known beforehand of the weights to an information matrix."""
    terms = len(background.sd)
    torch.diagonal(matrix, dim1=-2, dim2=-1)[:, matrix.shape[-1] - terms :] += background.precision


def _told_by_pixels(
    expected: Tensor, read_variance_e2: Tensor, excess_noise: float, exact: bool
) -> Tensor:
    if not exact:
        return pixel_information(expected, read_variance_e2, excess_noise)
    if excess_noise != 1.0:
        raise InputError(
            f"excess_noise is {excess_noise:g}; the exact information is known for cameras without "
            "electron multiplication only (1). Leave out `exact`."
        )
    return exact_pixel_information(expected, read_variance_e2)
