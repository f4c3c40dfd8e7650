"""PSF width, density and brightness from all light, together.

Chains draw emitter sets that explain whole frames. Widths, density and mean log photons are fitted
to what they drew, round after round (expectation-maximization). Where emitters crowd, they can be
told from fewer, brighter and wider ones by little, and rounds then creep: each goes only as far as
the share of the information that unknown emitters leave. The gradient of the likelihood, emitters
being unknown, is the posterior mean of the gradient for known ones (Fisher 1925), and its
information is that for known ones less the posterior covariance of their gradient (Louis 1982). One
Newton step in every round goes all the way; for the widths, the estimate from lone spots is the
prior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sureloc.localize.frames import background_image
from sureloc.localize.psf_estimate import profile
from sureloc.physics.priors import PhotonPrior
from sureloc.physics.referee import FrameData, PosteriorDraws, shifted

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

DRAWS = 10  # of each chain that are looked at
NOTICED_ERRORS = 2.5  # by which all light and lone spots differ, to be worth a word
LEAST_KNOWN = 0.2  # share of the information that is left where emitters are unknown, at least
LARGEST_STEP = np.array([0.1, 0.1, 0.3, 0.3])  # in one round: widths, density, photons
_WIDTHS = slice(0, 2)
_EMITTERS = slice(2, 4)


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
        return (
            f"All light together says {x} along columns and {y} along rows, which is used: it also "
            "counts the many spots that are too dim or too near to others to be fitted alone."
        )

    def disagreement(self, lone: Width) -> str:
        """Say that all light contradicts the lone spots that it began with; empty if it does not.

        All light holds lone spots too, so that their difference has the variance of the lone ones'
        less that of all.

        Args:
            lone: widths that lone spots have.
        """
        off = float(np.mean(np.log(self.sigma_px) - np.log(lone.sigma_px)))
        gained = np.square(lone.log_error) - np.square(self.log_error)
        errors = abs(off) / max(0.5 * math.sqrt(max(float(gained.sum()), 0.0)), 1e-6)
        if errors < NOTICED_ERRORS:
            return ""
        lone_px = math.sqrt(lone.sigma_px[0] * lone.sigma_px[1])
        return (
            f"That is {100 * abs(math.expm1(off)):.0f} % {'wider' if off > 0 else 'narrower'} than "
            f"lone spots are, {errors:.1f} standard errors apart: others may be out of focus, or "
            "uneven background is taken for light of spots. Look at the frames in the report; "
            f"--sigma-px {lone_px:.3g} takes the width of lone spots."
        )


@dataclass(frozen=True)
class Evidence:
    """What a frame says of ln(widths along columns and rows), ln(density), mean ln(photons).

    Attributes:
        gradient: of the log-likelihood at the values of its chain, mean over draws, (4,).
        complete: Fisher information if the emitters were known, mean over draws, (4, 4).
        missing: covariance of the gradient over draws, (4, 4).
    """

    gradient: Array
    complete: Array
    missing: Array


def frame_evidence(
    data: FrameData,
    draws: PosteriorDraws,
    sigma_px: tuple[float, float],
    counted: Mask,
    expected: float,
    photons: PhotonPrior,
) -> Evidence:
    """Ask one frame.

    Args:
        data: the frame.
        draws: posterior draws under these widths and the prior.
        sigma_px: widths along columns and rows, px.
        counted: which drawn emitters tell of density and photons, (draws, max_emitters).
        expected: how many of these the prior expects.
        photons: the prior, of whose logarithm mean and variance count.
    """
    frame = shifted(data)
    shape = data.electrons.shape
    chosen = np.unique(np.linspace(0, draws.counts.size - 1, DRAWS).round().astype(int))
    middle, variance = photons.log_mean, photons.log_variance
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
        of_widths = weighted @ (frame.counts - rate).ravel()
        log_photons = np.log(draws.photons[k, counted[k]])
        brighter = float((log_photons - middle).sum()) / variance
        gradients.append([*of_widths, log_photons.size - expected, brighter])
        information = np.diag([0.0, 0.0, expected, log_photons.size / variance])
        information[_WIDTHS, _WIDTHS] = weighted @ by_width.T
        informations.append(information)
    gradient = np.array(gradients)
    apart = gradient - gradient.mean(0)
    return Evidence(
        gradient.mean(0), np.mean(informations, axis=0), apart.T @ apart / max(len(chosen) - 1, 1)
    )


def newton_step(
    first: Width, present: Width, evidence: Sequence[Evidence], moved: tuple[float, float]
) -> tuple[Width, tuple[float, float]]:
    """Take one step to the most probable widths, density and photons.

    Args:
        first: what is believed of the widths before, Gaussian in the logarithms; known ones stay.
        present: the widths at which the evidence was gathered.
        evidence: of independent frames.
        moved: how far ln(density) and mean ln(photons) went when they were fitted to the draws. It
            stands for the evidence's own gradient, since that fit also has regard to what draws
            cannot be believed.

    Returns:
        The next widths with their standard errors, and how far ln(density) and mean ln(photons)
        should go instead.
    """
    gradient = np.sum([one.gradient for one in evidence], axis=0)
    complete = np.sum([one.complete for one in evidence], axis=0)
    missing = np.sum([one.missing for one in evidence], axis=0)
    gradient[_EMITTERS] = np.diagonal(complete)[_EMITTERS] * moved
    free = slice(2 if first.known else 0, 4)
    total = _known(complete[free, free], missing[free, free])
    gradient = gradient[free]
    if not first.known:
        precision = 1.0 / np.square(first.log_error)
        total[_WIDTHS, _WIDTHS] += np.diag(precision)
        gradient[_WIDTHS] -= precision * (np.log(present.sigma_px) - np.log(first.sigma_px))
    most = LARGEST_STEP[free]
    step = np.clip(np.linalg.solve(total, gradient), -most, most)
    instead = (float(step[-2]), float(step[-1]))
    if first.known:
        return present, instead
    error = np.sqrt(np.diagonal(np.linalg.inv(total)))
    sigma = np.array(present.sigma_px) * np.exp(step[_WIDTHS])
    return Width((float(sigma[0]), float(sigma[1])), (float(error[0]), float(error[1]))), instead


def _known(complete: Array, missing: Array) -> Array:
    """Give complete less missing information, every direction keeping `LEAST_KNOWN` of it."""
    unit = np.eye(len(complete))
    root = np.linalg.cholesky(complete + 1e-9 * unit)
    inverse = np.linalg.inv(root)
    share, axes = np.linalg.eigh(unit - inverse @ missing @ inverse.T)
    kept: Array = root @ (axes * np.clip(share, LEAST_KNOWN, 1.0)) @ axes.T @ root.T
    return kept


def _shares(position: Array, sigma: float, size: int) -> tuple[Array, Array]:
    """Give each emitter's shares of light along one axis and their derivative by ln sigma."""
    pixels = np.broadcast_to(np.arange(size), (len(position), size))
    shares, _, wider = profile(pixels, position, np.full(len(position), math.log(sigma)))
    return shares, wider
