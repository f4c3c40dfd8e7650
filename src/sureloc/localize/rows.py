"""From the posterior of a frame to table rows: bounds, local fit and trust."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage
from scipy.linalg import lapack

from sureloc.compiled.fisher import joint_fisher
from sureloc.localize.columns import Columns, taken
from sureloc.localize.frames import SUPPORT_SIGMAS, FramePosterior
from sureloc.physics.consensus import Consensus
from sureloc.physics.priors import ScenePrior, hat_functions
from sureloc.physics.referee import FrameData, PosteriorDraws

Array = npt.NDArray[np.float64]
CHI2_SIGMAS = 2.5  # half width, in PSF widths, of the window in which the fit is judged


@dataclass(frozen=True)
class FrameRows:
    """What a frame contributes to the results.

    Attributes:
        frame: number of the frame in the movie.
        table: rows with `sureloc.table.LOCALIZATION_COLUMNS`.
        draws: rows with `sureloc.table.DRAW_COLUMNS`.
        expected_e: posterior mean of the expected image, photo-electrons, (rows, columns).
        chi2: local mean squared residual over its expectation, (rows, columns).
    """

    frame: int
    table: pd.DataFrame
    draws: pd.DataFrame
    expected_e: Array
    chi2: Array


@dataclass(frozen=True)
class RegionRows:
    """What a region of a frame contributes.

    Attributes:
        rows: arrays named by `sureloc.table.LOCALIZATION_COLUMNS`, all trusted as yet.
        draws: arrays named by `sureloc.table.DRAW_COLUMNS`.
        expected_e, chi2: as of `FrameRows`.
    """

    rows: Columns
    draws: Columns
    expected_e: Array
    chi2: Array


def region_rows(
    posterior: FramePosterior,
    data: FrameData,
    prior: ScenePrior,
    sigma_px: tuple[float, float],
    frame: int,
    pixel_nm: float,
    quantum_efficiency: float,
    draws: int,
    origin_px: tuple[int, int] = (0, 0),
) -> RegionRows:
    """Turn the posterior of a region of one frame into rows.

    Args:
        posterior: the draws and their consensus.
        data: what was measured there.
        prior: the prior under which the draws were made.
        sigma_px: PSF widths along columns and rows, px.
        frame: number of the frame.
        pixel_nm: pixel size, nm.
        quantum_efficiency: photo-electrons per photon.
        draws: how many draws are given.
        origin_px: column and row of the data's first pixel in the frame, whose coordinates the
            rows have.
    """
    rows = posterior.rows
    rate_variance = data.excess_noise * np.maximum(posterior.draws.expected_e, 0.0)
    variance = np.maximum(rate_variance + data.read_variance_e2, 1e-6)
    information = 1.0 / variance
    if data.ignore is not None:
        information = np.where(data.ignore, 0.0, information)
    chi2 = local_chi2(data, posterior.draws, variance, sigma_px)
    shape = data.electrons.shape
    r = np.clip(np.rint(rows.y_px).astype(int), 0, shape[0] - 1)
    c = np.clip(np.rint(rows.x_px).astype(int), 0, shape[1] - 1)
    bound_x, bound_y = joint_bounds(rows, information, sigma_px, prior)
    left, top = origin_px
    x_nm, x_ends_nm = ((v + left) * pixel_nm for v in (rows.x_px, rows.x_quantiles))
    y_nm, y_ends_nm = ((v + top) * pixel_nm for v in (rows.y_px, rows.y_quantiles))
    lo95, lo68, hi68, hi95 = range(4)
    size = rows.x_px.size
    found = {
        "frame": np.full(size, frame, np.int64),
        "x_nm": x_nm,
        "y_nm": y_nm,
        "sigma_x_nm": np.sqrt(rows.var_x_px2) * pixel_nm,
        "sigma_y_nm": np.sqrt(rows.var_y_px2) * pixel_nm,
        "cov_xy_nm2": rows.cov_xy_px2 * pixel_nm**2,
        "photons": rows.photons / quantum_efficiency,
        "sigma_photons": np.sqrt(rows.var_photons) / quantum_efficiency,
        "background_photons": posterior.background_e[r, c] / quantum_efficiency,
        "p_exists": rows.p_exists,
        "crlb_x_nm": bound_x * pixel_nm,
        "crlb_y_nm": bound_y * pixel_nm,
        "chi2": chi2[r, c],
        "x_lo95_nm": x_ends_nm[:, lo95],
        "x_hi95_nm": x_ends_nm[:, hi95],
        "y_lo95_nm": y_ends_nm[:, lo95],
        "y_hi95_nm": y_ends_nm[:, hi95],
        "x_lo68_nm": x_ends_nm[:, lo68],
        "x_hi68_nm": x_ends_nm[:, hi68],
        "y_lo68_nm": y_ends_nm[:, lo68],
        "y_hi68_nm": y_ends_nm[:, hi68],
        "trusted": np.ones(size, bool),
        "reason": np.full(size, "", object),
    }
    inside = (np.abs(2 * rows.x_px - shape[1] + 1) <= shape[1]) & (
        np.abs(2 * rows.y_px - shape[0] + 1) <= shape[0]
    )
    order = np.lexsort((x_nm, y_nm))
    return RegionRows(
        taken(found, order[inside[order]]),
        draw_rows(posterior, frame, pixel_nm, quantum_efficiency, draws, shape, origin_px),
        posterior.draws.expected_e,
        chi2,
    )


def draw_rows(
    posterior: FramePosterior,
    frame: int,
    pixel_nm: float,
    quantum_efficiency: float,
    draws: int,
    shape: tuple[int, ...],
    origin_px: tuple[int, int] = (0, 0),
) -> Columns:
    """Give `draws` posterior draws of one frame, taken evenly from all chains."""
    states = posterior.draws
    picked = np.linspace(0, states.counts.size - 1, draws).round().astype(int)
    x, y, photons = (a[picked] for a in (states.x_px, states.y_px, states.photons))
    kept = (
        states.present[picked]
        & (np.abs(2 * x - shape[1] + 1) <= shape[1])
        & (np.abs(2 * y - shape[0] + 1) <= shape[0])
    )
    number = np.broadcast_to(np.arange(draws)[:, None], kept.shape)
    return {
        "draw": number[kept].astype(np.int64),
        "frame": np.full(int(kept.sum()), frame, np.int64),
        "x_nm": (x[kept] + origin_px[0]) * pixel_nm,
        "y_nm": (y[kept] + origin_px[1]) * pixel_nm,
        "photons": photons[kept] / quantum_efficiency,
    }


def local_chi2(
    data: FrameData, draws: PosteriorDraws, variance_e2: Array, sigma_px: tuple[float, float]
) -> Array:
    """Give the posterior mean of (measured - expected)^2 / variance in a window round every pixel.

    Averaging over draws instead of inserting the mean image makes up for the fitted parameters:
    what fitting takes from the squared residual, the draws' spread gives back.

    Args:
        data: the frame.
        draws: its posterior draws.
        variance_e2: variance of the measurement, electrons^2, (rows, columns).
        sigma_px: PSF widths, px; the window reaches `CHI2_SIGMAS` of them to each side.

    Returns:
        About 1 where the model describes the data, (rows, columns).
    """
    squared = (data.electrons - draws.expected_e) ** 2 + draws.expected_variance_e2
    valid = np.ones(squared.shape) if data.ignore is None else (~data.ignore).astype(float)
    size = tuple(2 * round(CHI2_SIGMAS * s) + 1 for s in (sigma_px[1], sigma_px[0]))
    total = ndimage.uniform_filter(squared / variance_e2 * valid, size, mode="constant")
    number = ndimage.uniform_filter(valid, size, mode="constant")
    return np.asarray(total / np.maximum(number, 1e-9))


def joint_bounds(
    rows: Consensus, information: Array, sigma_px: tuple[float, float], prior: ScenePrior
) -> tuple[Array, Array]:
    """Give the Cramer-Rao bounds (px) of x and y with all other rows and the background unknown.

    Args:
        rows: the emitters of a frame.
        information: 1 / variance per pixel, (rows, columns).
        sigma_px: PSF widths, px.
        prior: its background knots are the background's unknowns; their prior and that of the
            photons keep the matrix regular where emitters all but coincide.
    """
    if rows.x_px.size == 0:
        return np.empty(0), np.empty(0)
    mean = np.atleast_2d(np.asarray(prior.background_e))
    fisher = joint_fisher(
        np.stack([rows.x_px, rows.y_px, np.maximum(rows.photons, 1.0)], axis=1),
        np.ascontiguousarray(information),
        float(sigma_px[0]),
        float(sigma_px[1]),
        SUPPORT_SIGMAS * max(sigma_px),
        hat_functions(information.shape[0], mean.shape[0]),
        hat_functions(information.shape[1], mean.shape[1]),
    )
    n = 3 * rows.x_px.size
    diagonal = np.zeros(fisher.shape[0])
    diagonal[:n:3] = diagonal[1:n:3] = 1e-2
    diagonal[2:n:3] = 1.0 / prior.photons.sd**2
    diagonal[n:] = 1.0 / max(prior.background_sd_e, 1e-3) ** 2
    fisher[np.diag_indices_from(fisher)] += diagonal
    # F = L L^T, so the inverse's diagonal is that of L^-T L^-1: the columns of L^-1, squared.
    inverse_factor, _ = lapack.dtrtri(np.linalg.cholesky(fisher), lower=1)
    bound = np.sqrt(np.square(inverse_factor).sum(0))
    return bound[:n:3], bound[1:n:3]
