"""Where the results can be trusted, and one plain sentence about the whole run.

The first test is posterior-predictive: a frame re-rendered from its emitters must differ from the
measured one as camera noise does and no more, in every frame and on average over the movie. Rows
where it fails, rows beside saturated pixels, rows whose place the frame leaves open and rows that
rather do not exist are marked; the run is judged by how many there are, by how many rows are
expected not to exist, and by what was guessed or lies outside the networks' training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from sureloc.localize.columns import Columns, length
from sureloc.localize.doubles import Excess

Array = npt.NDArray[np.float64]

ROW_SIGMAS = 4.5  # a row's chi2 may lie this many standard deviations above its expectation
MAP_HIGH, MAP_LOW = 1.35, 0.6  # bounds of the chi2 map averaged over the movie
CARE_SHARE, REFUSE_SHARE = 0.05, 0.30  # shares of untrusted rows
CARE_CHI2, REFUSE_CHI2 = (0.85, 1.15), (0.6, 1.6)  # bounds of the movie's mean chi2
CARE_PAIRS, REFUSE_PAIRS = 0.05, 0.15  # pairs more than by chance, over the rows
CARE_RATIO, REFUSE_RATIO = 1.2, 1.4  # of pairs to those by chance, from which on that counts
CARE_TAIL, REFUSE_TAIL = 0.05, 0.10  # faint rows on one side more than on the other, over the rows
LEAST_SHARE = 0.01  # of the rows, for a reason to be worth a clause
CARE_ABSENT = 0.2  # share of the rows that are expected not to exist
OPEN_SIGMAS = 0.45  # of the PSF; evenly spread over what counts as one row gives 0.5
LIKELIER_THAN_NOT = 0.5
UNSURE_RATIO = 1.0  # sd over mean of a number; a molecule that is in half of the draws has this
WRONG = "wrong"  # what warnings begin with that refuse trust
WARNING_DOUBT = 0.25  # what a warning adds to the doubt of a run
CARE_DENSITY_PX2 = 0.045  # emitters per pixel above which too few tests were made
REFUSE_DENSITY_PX2 = 0.09  # and above which there were none: training and tests end at 0.06


SATURATED = "saturated or dead pixels nearby"
MISFIT = "the image model does not fit here"
UNSURE = "draws disagree about how many molecules are here"
REGION = "the image model does not fit this region in the course of the movie"
OPEN = "the frame leaves its position open"
ABSENT = "more likely absent than present"
ROWS_THAT = {
    SATURATED: "of the rows lie beside saturated or dead pixels",
    MISFIT: "of the rows lie where the image model does not fit their frame",
    REGION: "of the rows lie where the image model does not fit in the course of the movie",
    UNSURE: "of the rows lie where draws disagree about how many molecules there are",
    OPEN: "of the rows have positions that the frame leaves open",
    ABSENT: "of the rows are more likely absent than present",
}


class Doubt(Enum):
    """What can speak against a run as a whole: a clause of the verdict, its values in braces."""

    IMAGES = (
        "the images differ from the model by {chi2:.2f} times the camera noise's variance "
        "(1 is right)"
    )
    FIELD = "{share} of the field of view does not fit the model"
    NOT_EXISTING = (
        "about {share} of the rows are expected not to exist (each says how likely it does; "
        "--min-probability asks for more)"
    )
    PAIRS = (
        "{share:.0f} rows in 100 stand beside another one of their frame, in {ratio:.1f} times as "
        "many pairs as independent molecules make: spots have another shape than the model's, or "
        "molecules move"
    )
    TAIL = (
        "{share:.0f} rows in 100 are faint ones on the same side of brighter ones: spots have a "
        "tail, as by coma or a tilted cover glass, that the model has not"
    )
    DENSE = (
        "emitters are very dense ({density:.3f} per square pixel), so that some overlap without "
        "trace"
    )
    TOO_DENSE = (
        "{density:.3f} emitters per square pixel are more than can be told apart: uneven "
        "background or light from out of focus may have been taken for molecules"
    )
    CAMERA_ESTIMATED = (
        "the camera was not given but estimated from the movie: photons may be off by "
        "{percent:.0f} % (one standard error)"
    )
    CORRELATED_NOISE = "the noise of neighbouring pixels goes together"
    GAIN = (
        "the movie's noise is that of a gain of {seen:.3g} ADU per electron, the camera file says "
        "{given:.3g} (electrons per ADU would be {inverse:.3g})"
    )
    OFFSET = (
        "the camera file's offset is {shift:+.1f} electrons off (corrected; --trust-camera keeps "
        "the file's)"
    )
    OFFSET_KEPT = (
        "by the movie's noise, the camera file's offset is {shift:+.1f} electrons off, which was "
        "left as it is (--trust-camera)"
    )
    SATURATED_FRAMES = "{saturated:,} of {frames:,} frames hold saturated pixels"
    PIXEL_ASSUMED = (
        "the pixel size was not given, and {taken:g} nm were taken: all lengths scale with it "
        "(--pixel-nm)"
    )
    PIXEL_SIZE = "the file says that pixels are {stated:g} nm, not {given:g} nm"
    OBLONG_PIXELS = "the file says that pixels are {x:g} nm wide and {y:g} nm high, not square"
    GIVEN_WIDTH = "lone spots are {seen:.2f} px wide, not {given:g} px as given"
    SPREAD_OF_WIDTHS = (
        "spots differ in width by {percent:.0f} %, as by focus, which one PSF does not describe: "
        "single molecules may be taken for several"
    )
    UNTRAINED_WIDTH = "the PSF width is outside what the networks were trained on"
    UNTRAINED = (
        "the {what} ({value:.3g} {unit}) is outside what the networks were trained on "
        "({low:g} to {high:g})"
    )
    UNKNOWN_TRAINING = "the weights do not say what they were trained on"

    def clause(self, **values: object) -> str:
        """Give the clause with its values."""
        return self.value.format(**values)


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
        doubt: how much speaks against the run, 0 or larger: every measure over the bound at which
            it refuses trust by itself, summed, a quarter for each warning and 1 for each that
            refuses trust.
    """

    trust: Trust
    sentence: str
    mean_chi2: float
    trusted_rows: float
    trusted_area: float
    mask: npt.NDArray[np.bool_]
    doubt: float = 0.0


def chi2_limit(sigma_px: tuple[float, float], window_sigmas: float) -> float:
    """Give the largest chi2 of a window that noise makes with probability below about 1e-4.

    The mean of n squared standard residuals has the standard deviation sqrt(2 / n); the limit is
    wider than Gaussian quantiles since the mean of squares is skewed and counts are few.
    """
    n = math.prod(2 * round(window_sigmas * s) + 1 for s in sigma_px)
    return 1.0 + ROW_SIGMAS * math.sqrt(2.0 / n)


def mark_rows(
    rows: Columns,
    limit: float,
    saturated: npt.NDArray[np.bool_],
    pixel_nm: float,
    sigma_px: tuple[float, float],
) -> Columns:
    """Mark the rows of one frame that must not be trusted, with the reason.

    Args:
        rows: of one frame (`sureloc.table.LOCALIZATION_COLUMNS`).
        limit: largest chi2 allowed (`chi2_limit`).
        saturated: pixels that carry no information, (rows, columns).
        pixel_nm: pixel size, nm.
        sigma_px: PSF widths, px.
    """
    near = saturated
    if saturated.any():
        near = ndimage.binary_dilation(saturated, iterations=max(1, round(2 * max(sigma_px))))
    spread = [rows[f"sigma_{axis}_nm"] for axis in "xy"]
    widest = OPEN_SIGMAS * pixel_nm * np.array(sigma_px)
    tests = (
        (SATURATED, near[_pixels(rows["x_nm"], rows["y_nm"], pixel_nm, saturated.shape)]),
        (MISFIT, rows["chi2"] > limit),
        (OPEN, (spread[0] > widest[0]) | (spread[1] > widest[1])),
        (ABSENT, rows["p_exists"] < LIKELIER_THAN_NOT),
    )
    reason = np.full(length(rows), "", object)
    for name, failed in tests:
        reason[(reason == "") & failed] = name
    return {**rows, "trusted": reason == "", "reason": reason}


def mark_regions(
    table: pd.DataFrame, doubts: Mapping[str, npt.NDArray[np.bool_]], pixel_nm: float
) -> tuple[pd.DataFrame, pd.Series]:
    """Mark trusted rows that lie in regions which are not.

    Args:
        table: rows, positions counted from the centre of the maps' first pixel.
        doubts: maps (rows, columns) of where not to trust, by the reason.
        pixel_nm: pixel size, nm.

    Returns:
        The table, and the reason of each row that is newly marked, empty for all others.
    """
    reason = table["reason"].to_numpy(object).copy()
    newly = np.full(len(table), "", object)
    x_nm, y_nm = (table[name].to_numpy(float) for name in ("x_nm", "y_nm"))
    for name, bad in doubts.items():
        here = (reason == "") & bad[_pixels(x_nm, y_nm, pixel_nm, bad.shape)]
        reason[here] = newly[here] = name
    marked = table.assign(reason=reason, trusted=reason == "")
    return marked, pd.Series(newly, table.index)


def rows_within(
    table: pd.DataFrame, doubts: Mapping[str, npt.NDArray[np.bool_]], pixel_nm: float
) -> int:
    """Count the rows that lie where any of the maps says not to trust, whatever their reason.

    Args and units as in `mark_regions`.
    """
    bad = np.logical_or.reduce(list(doubts.values()))
    x_nm, y_nm = (table[name].to_numpy(float) for name in ("x_nm", "y_nm"))
    return int(bad[_pixels(x_nm, y_nm, pixel_nm, bad.shape)].sum())


def region_doubts(
    mean_chi2: Array, doubt: Array, frames: int, sigma_px: tuple[float, float]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Give the maps of where not to trust a movie's results, by the reason.

    Args:
        mean_chi2: local chi2 averaged over the movie, (rows, columns).
        doubt: posterior sd over mean of the number of molecules round every camera pixel
            (`ImageSums.doubt`), (rows, columns).
        frames: number of frames.
        sigma_px: PSF widths, px.
    """
    return {
        REGION: ~trust_mask(mean_chi2, frames, sigma_px),
        UNSURE: np.asarray(doubt > UNSURE_RATIO),
    }


def _pixels(
    x_nm: Array, y_nm: Array, pixel_nm: float, shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    row, column = (
        np.clip(np.rint(at / pixel_nm).astype(np.int64), 0, size - 1)
        for at, size in ((y_nm, shape[0]), (x_nm, shape[1]))
    )
    return row, column


def trust_mask(
    mean_chi2: Array, frames: int, sigma_px: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    """Give the regions that fit over the whole movie.

    Args:
        mean_chi2: local chi2 averaged over the movie, (rows, columns).
        frames: number of frames averaged.
        sigma_px: PSF widths, px.
    """
    low, high = map_bounds(frames, sigma_px)
    return np.asarray((mean_chi2 < high) & (mean_chi2 > low))


def map_bounds(frames: int, sigma_px: tuple[float, float]) -> tuple[float, float]:
    """Give the least and the largest chi2 that a place may have, averaged over some frames.

    `MAP_LOW` and `MAP_HIGH`, and four standard deviations more that noise makes of it.
    """
    n = max(frames, 1) * math.prod(5 * s for s in sigma_px)
    slack = 4.0 * math.sqrt(2.0 / n)
    return MAP_LOW - slack, MAP_HIGH + slack


@dataclass(frozen=True)
class Clause:
    """What was measured, as a clause of the verdict's sentence.

    Attributes:
        text: the clause.
        gravity: of the clauses that ask for care, the gravest is said first.
        asks: it asks for care.
        refuses: it refuses trust.
        adds: what it adds to the doubt of the run, also where it is not said.
    """

    text: str
    gravity: float
    asks: bool
    refuses: bool
    adds: float


def judge(
    rows: int,
    reasons: Mapping[str, int],
    absent: float,
    mean_chi2: float,
    doubts: Mapping[str, npt.NDArray[np.bool_]],
    excess: Excess,
    density_per_px2: float,
    warnings: Sequence[str],
) -> Verdict:
    """Judge a run.

    Args:
        rows: number of rows.
        reasons: how many of them are not trusted for which reason.
        absent: share of the rows that are expected not to exist: 1 - mean of p_exists.
        mean_chi2: mean squared residual of the whole movie over its expectation.
        doubts: where not to trust, by the reason (`region_doubts`).
        excess: pairs of rows more than by chance.
        density_per_px2: emitters per square pixel that the movie taught.
        warnings: clauses (of `Doubt`) about what was guessed or is out of range; each alone asks
            for care, or refuses trust where it begins with `WRONG`.
    """
    misfit = float(doubts[REGION].mean())
    mask = ~np.logical_or.reduce(list(doubts.values()))
    doubted = sum(reasons.values()) / rows if rows else 0.0
    of_rows = _rows_doubted(rows, reasons)
    measured = _measured(mean_chi2, misfit, doubted, of_rows, absent, excess, density_per_px2)
    warned = [_warning(text) for text in warnings]
    refusing = [one for one in (*warned, *measured) if one.refuses]
    asking = [one for one in (*measured, *warned) if one.asks and not one.refuses]
    asking.sort(key=lambda one: -one.gravity)
    trust = Trust.REFUSE if refusing else Trust.CARE if asking else Trust.TRUST
    why = "; ".join(one.text for one in (*refusing, *asking)) or (
        "the re-rendered frames differ from the measured ones by camera noise and no more "
        f"(chi2 {mean_chi2:.2f})"
    )
    return Verdict(
        trust,
        f"{trust.value.capitalize()}: {why}.",
        mean_chi2,
        1 - doubted,
        float(mask.mean()),
        mask,
        sum(one.adds for one in (*measured, *warned)),
    )


def _measured(
    chi2: float,
    misfit: float,
    doubted: float,
    of_rows: str,
    absent: float,
    excess: Excess,
    density: float,
) -> list[Clause]:
    """List what is measured of every run: what it may say, when, and how much it counts."""
    images, pairs = _over(chi2, REFUSE_CHI2), _doubt_of_pairs(excess)
    too_dense = density > REFUSE_DENSITY_PX2
    return [
        Clause(
            Doubt.IMAGES.clause(chi2=chi2),
            gravity=images,
            asks=not CARE_CHI2[0] <= chi2 <= CARE_CHI2[1],
            refuses=not REFUSE_CHI2[0] <= chi2 <= REFUSE_CHI2[1],
            adds=images,
        ),
        Clause(
            Doubt.FIELD.clause(share=_percent(misfit)),
            gravity=misfit / REFUSE_SHARE,
            asks=misfit > CARE_SHARE,
            refuses=misfit > REFUSE_SHARE,
            adds=misfit / REFUSE_SHARE,
        ),
        Clause(
            of_rows,
            gravity=doubted / REFUSE_SHARE,
            asks=doubted > CARE_SHARE,
            refuses=doubted > REFUSE_SHARE,
            adds=doubted / REFUSE_SHARE,
        ),
        Clause(
            Doubt.NOT_EXISTING.clause(share=_percent(absent)),
            gravity=absent / CARE_ABSENT,
            asks=absent > CARE_ABSENT,
            refuses=False,
            adds=absent / CARE_ABSENT,
        ),
        Clause(
            Doubt.PAIRS.clause(share=100 * excess.share, ratio=excess.ratio),
            gravity=pairs,
            asks=excess.share > CARE_PAIRS and excess.ratio > CARE_RATIO,
            refuses=excess.share > REFUSE_PAIRS and excess.ratio > REFUSE_RATIO,
            adds=pairs,
        ),
        Clause(
            Doubt.TAIL.clause(share=100 * excess.tail),
            gravity=excess.tail / REFUSE_TAIL,
            asks=excess.tail > CARE_TAIL,
            refuses=excess.tail > REFUSE_TAIL,
            adds=excess.tail / REFUSE_TAIL,
        ),
        Clause(
            (Doubt.TOO_DENSE if too_dense else Doubt.DENSE).clause(density=density),
            gravity=WARNING_DOUBT,
            asks=density > CARE_DENSITY_PX2,
            refuses=too_dense,
            adds=float(too_dense),
        ),
    ]


def _warning(text: str) -> Clause:
    wrong = text.startswith(f"{WRONG}:")
    doubt = 1.0 if wrong else WARNING_DOUBT
    return Clause(text, gravity=doubt, asks=True, refuses=wrong, adds=doubt)


def _rows_doubted(rows: int, reasons: Mapping[str, int]) -> str:
    """Name the reasons that hold for at least `LEAST_SHARE` of the rows, and the most frequent."""
    least = min(LEAST_SHARE * rows, max(reasons.values(), default=0))
    return ", ".join(
        f"{_percent(count / rows)} {ROWS_THAT[reason]}"
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1])
        if count >= max(least, 1)
    )


def _doubt_of_pairs(excess: Excess) -> float:
    """Give 0 up to the ratio that asks for care, 1 at both bounds that refuse."""
    over = (excess.ratio - CARE_RATIO) / (REFUSE_RATIO - CARE_RATIO)
    return excess.share / REFUSE_PAIRS * min(max(over, 0.0), 1.0)


def _over(chi2: float, bounds: tuple[float, float]) -> float:
    """Give how far a chi2 is from 1, its bound on that side being 1."""
    return (chi2 - 1) / ((bounds[1] if chi2 > 1 else bounds[0]) - 1)


def region_score(mean_chi2: Array, doubt: Array) -> Array:
    """Give how much speaks against every camera pixel; from about 1 on it is not trusted.

    Args:
        mean_chi2, doubt: see `region_doubts`.
    """
    bound = np.where(mean_chi2 > 1, MAP_HIGH, MAP_LOW)
    return np.asarray(np.maximum((mean_chi2 - 1) / (bound - 1), doubt / UNSURE_RATIO))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
