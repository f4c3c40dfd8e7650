"""The PSF's width from all light, not from lone spots alone.

Where emitters are faint or crowd, few spots are lone, and some of those are pairs. Chains draw
emitter sets that explain whole frames. The gradient of the likelihood by the width, emitters being
unknown, is the posterior mean of the gradient for known ones (Fisher 1925; Louis 1982), and its
information is that for known ones less the posterior covariance of their gradient. One Newton step
in every round of learning, with the lone spots' estimate as prior, ends where both agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sureloc.localize.frames import background_image
from sureloc.localize.psf_estimate import profile
from sureloc.physics.referee import FrameData, PosteriorDraws, shifted

Array = npt.NDArray[np.float64]

DRAWS = 10  # of each chain that are looked at
LEAST_KNOWN = 0.2  # share of the information that is left where emitters are unknown, at least
LARGEST_STEP = 0.1  # of the logarithm of a width, in one round


@dataclass(frozen=True)
class Width:
    """Widths of the PSF along columns and rows.

    Attributes:
        sigma_px: both, px.
        log_error: standard errors of their logarithms; 0 where they are given and stay.
    """

    sigma_px: tuple[float, float]
    log_error: tuple[float, float] = (0.0, 0.0)

    @property
    def known(self) -> bool:
        """True where nothing is to be learned of it."""
        return max(self.log_error) == 0.0

    @property
    def sentence(self) -> str:
        """Say it to people."""
        x, y = (
            f"{sigma:.3f} ± {sigma * error:.3f} px"
            for sigma, error in zip(self.sigma_px, self.log_error, strict=True)
        )
        return f"All light together says {x} along columns and {y} along rows, which is used."


@dataclass(frozen=True)
class WidthEvidence:
    """What a frame says of the logarithms of both widths, at the widths of its chain.

    Attributes:
        gradient: of the log-likelihood, mean over draws, (2,).
        complete: Fisher information if the emitters were known, mean over draws, (2, 2).
        missing: covariance of the gradient over draws, (2, 2).
    """

    gradient: Array
    complete: Array
    missing: Array


def width_evidence(
    data: FrameData, draws: PosteriorDraws, sigma_px: tuple[float, float]
) -> WidthEvidence:
    """Ask one frame for the widths.

    Args:
        data: the frame.
        draws: posterior draws under these widths.
        sigma_px: widths along columns and rows, px.
    """
    frame = shifted(data)
    shape = data.electrons.shape
    chosen = np.unique(np.linspace(0, draws.counts.size - 1, DRAWS).round().astype(int))
    gradients, informations = [], []
    for k in chosen:
        n = draws.counts[k]
        along_x, wider_x = _shares(draws.x_px[k, :n], sigma_px[0], shape[1])
        along_y, wider_y = _shares(draws.y_px[k, :n], sigma_px[1], shape[0])
        light = along_y * draws.photons[k, :n, None]
        rate = frame.shift + background_image(draws.knots[k], shape) + light.T @ along_x
        rate = np.maximum(rate, 1e-3)
        by_width = np.stack(
            [light.T @ wider_x, (wider_y * draws.photons[k, :n, None]).T @ along_x]
        ).reshape(2, -1)
        weighted = by_width * (frame.weight / rate).ravel()
        gradients.append(weighted @ (frame.counts - rate).ravel())
        informations.append(weighted @ by_width.T)
    gradient = np.array(gradients)
    apart = gradient - gradient.mean(0)
    return WidthEvidence(
        gradient.mean(0), np.mean(informations, axis=0), apart.T @ apart / max(len(chosen) - 1, 1)
    )


def refined_width(first: Width, present: Width, evidence: Sequence[WidthEvidence]) -> Width:
    """Take one Newton step to the most probable widths.

    Args:
        first: what is believed before, Gaussian in the logarithms.
        present: the widths at which the evidence was gathered.
        evidence: of independent frames.

    Returns:
        The next widths, with their standard errors given frames and prior.
    """
    gradient = np.sum([one.gradient for one in evidence], axis=0)
    complete = np.sum([one.complete for one in evidence], axis=0)
    missing = np.sum([one.missing for one in evidence], axis=0)
    precision = np.diag(1.0 / np.square(first.log_error))
    away = np.log(present.sigma_px) - np.log(first.sigma_px)
    total = _known(complete, missing) + precision
    step = np.linalg.solve(total, gradient - precision @ away)
    log_sigma = np.log(present.sigma_px) + np.clip(step, -LARGEST_STEP, LARGEST_STEP)
    error = np.sqrt(np.diagonal(np.linalg.inv(total)))
    return Width(
        (math.exp(log_sigma[0]), math.exp(log_sigma[1])), (float(error[0]), float(error[1]))
    )


def _known(complete: Array, missing: Array) -> Array:
    """Give complete less missing information, every direction keeping `LEAST_KNOWN` of it."""
    root = np.linalg.cholesky(complete + 1e-9 * np.eye(2))
    inverse = np.linalg.inv(root)
    share, axes = np.linalg.eigh(np.eye(2) - inverse @ missing @ inverse.T)
    kept: Array = root @ (axes * np.clip(share, LEAST_KNOWN, 1.0)) @ axes.T @ root.T
    return kept


def _shares(position: Array, sigma: float, size: int) -> tuple[Array, Array]:
    """Give each emitter's shares of light along one axis and their derivative by ln sigma."""
    pixels = np.broadcast_to(np.arange(size), (len(position), size))
    shares, _, wider = profile(pixels, position, np.full(len(position), math.log(sigma)))
    return shares, wider
