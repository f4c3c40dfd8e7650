"""Where the results can be trusted, and one plain sentence about the whole run.

The test is posterior-predictive: a frame re-rendered from its emitters must differ from the
measured one as camera noise does and no more. Rows in windows that fail, rows beside saturated
pixels and rows whose chains disagree are marked; the run is judged by how many are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

Array = npt.NDArray[np.float64]

ROW_SIGMAS = 4.5  # a row's chi2 may lie this many standard deviations above its expectation
MAP_HIGH, MAP_LOW = 1.35, 0.6  # bounds of the chi2 map averaged over the movie
CARE_SHARE, REFUSE_SHARE = 0.05, 0.30  # shares of untrusted rows
CARE_CHI2, REFUSE_CHI2 = (0.85, 1.15), (0.6, 1.6)  # bounds of the movie's mean chi2
CARE_DENSITY_PX2 = 0.045  # emitters per pixel above which too few tests were made


class Trust(Enum):
    """How far the run can be trusted."""

    TRUST = "trust"
    CARE = "trust with care"
    REFUSE = "do not trust"


@dataclass(frozen=True)
class Verdict:
    """The judgement of a run.

    Attributes:
        trust: the judgement.
        sentence: why, in one sentence for people.
        mean_chi2: mean squared residual of the whole movie over its expectation.
        trusted_rows: share of rows that are trusted.
        trusted_area: share of the camera's pixels in trusted regions.
        mask: True where the region can be trusted, (rows, columns).
    """

    trust: Trust
    sentence: str
    mean_chi2: float
    trusted_rows: float
    trusted_area: float
    mask: npt.NDArray[np.bool_]


def chi2_limit(sigma_px: tuple[float, float], window_sigmas: float) -> float:
    """Give the largest chi2 of a window that noise makes with probability below about 1e-4.

    The mean of n squared standard residuals has the standard deviation sqrt(2 / n); the limit is
    wider than Gaussian quantiles since the mean of squares is skewed and counts are few.
    """
    n = math.prod(2 * round(window_sigmas * s) + 1 for s in sigma_px)
    return 1.0 + ROW_SIGMAS * math.sqrt(2.0 / n)


def mark_rows(
    table: pd.DataFrame,
    limit: float,
    saturated: npt.NDArray[np.bool_],
    pixel_nm: float,
    sigma_px: tuple[float, float],
) -> pd.DataFrame:
    """Mark the rows of one frame that must not be trusted, with the reason.

    Args:
        table: rows of one frame (`sureloc.table.LOCALIZATION_COLUMNS`).
        limit: largest chi2 allowed (`chi2_limit`).
        saturated: pixels that carry no information, (rows, columns).
        pixel_nm: pixel size, nm.
        sigma_px: PSF widths, px.
    """
    table = table.copy()
    shape = saturated.shape
    near = saturated
    if saturated.any():
        near = ndimage.binary_dilation(saturated, iterations=max(1, round(2 * max(sigma_px))))
    r = np.clip(np.rint(table["y_nm"] / pixel_nm).astype(int), 0, shape[0] - 1)
    c = np.clip(np.rint(table["x_nm"] / pixel_nm).astype(int), 0, shape[1] - 1)
    reason = np.where(near[r, c], "saturated or dead pixels nearby", "")
    misfit = table["chi2"].to_numpy() > limit
    reason = np.where((reason == "") & misfit, "the image model does not fit here", reason)
    table["reason"] = reason.astype(object)
    table["trusted"] = reason == ""
    return table


def trust_mask(
    mean_chi2: Array, frames: int, sigma_px: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    """Give the regions that fit over the whole movie.

    Args:
        mean_chi2: local chi2 averaged over the movie, (rows, columns).
        frames: number of frames averaged.
        sigma_px: PSF widths, px.
    """
    n = max(frames, 1) * math.prod(5 * s for s in sigma_px)
    slack = 4.0 * math.sqrt(2.0 / n)
    return np.asarray((mean_chi2 < MAP_HIGH + slack) & (mean_chi2 > MAP_LOW - slack))


def judge(
    rows: int,
    trusted: int,
    chi2: Array,
    frames: int,
    sigma_px: tuple[float, float],
    density_per_px2: float,
    warnings: Sequence[str],
) -> Verdict:
    """Judge a run.

    Args:
        rows, trusted: number of rows, and of those trusted.
        chi2: local chi2 averaged over the movie, (rows, columns).
        frames: number of frames.
        sigma_px: PSF widths, px.
        density_per_px2: emitters per square pixel that the movie taught.
        warnings: clauses about what was guessed or is out of range; each alone asks for care.
    """
    mask = trust_mask(chi2, frames, sigma_px)
    share = trusted / rows if rows else 1.0
    mean = float(chi2.mean())
    area = float(mask.mean())
    reasons = list(warnings)
    if density_per_px2 > CARE_DENSITY_PX2:
        reasons.append(
            f"emitters are very dense ({density_per_px2:.3f} per square pixel), so that some "
            "overlap without trace"
        )
    if not CARE_CHI2[0] <= mean <= CARE_CHI2[1]:
        reasons.append(
            f"the images differ from the model by {mean:.2f} times the camera noise's variance "
            "(1 is right)"
        )
    if 1 - share > CARE_SHARE:
        reasons.append(f"{100 * (1 - share):.0f} % of the rows lie where the model does not fit")
    if 1 - area > CARE_SHARE:
        reasons.append(f"{100 * (1 - area):.0f} % of the field of view does not fit the model")
    refused = (
        not REFUSE_CHI2[0] <= mean <= REFUSE_CHI2[1]
        or 1 - share > REFUSE_SHARE
        or 1 - area > REFUSE_SHARE
    )
    trust = Trust.REFUSE if refused else Trust.CARE if reasons else Trust.TRUST
    why = "; ".join(reasons) if reasons else "the re-rendered frames differ from the measured ones "
    if not reasons:
        why += f"by camera noise and no more (chi2 {mean:.2f})"
    return Verdict(trust, f"{trust.value.capitalize()}: {why}.", mean, share, area, mask)
