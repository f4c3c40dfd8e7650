"""Are the stated uncertainties those of this movie? Tests that need no truth.

A molecule that is seen twice, in two frames that follow each other or in two halves of the light of
one frame, has two positions whose difference ought to be as large as both stated covariances say.
With the squared difference in units of these, d^2, half of it is exponential with the mean r^2: r
is how many times larger errors are than stated, 1 where intervals hold.

Only pairs nearer than a gate are seen, and some of them are two molecules. Both are part of the
likelihood: an exponential cut off at the gate, plus pairs that met by chance, of which every area
in the gate has equally many. ALL pairs inside the gate count, since taking the nearest would choose
small differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse, spatial, special
from scipy.sparse import csgraph

from sureloc.analysis.linking import own_covariance
from sureloc.localize.verdict import CARE_CHI2
from sureloc.table import check_columns

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

GATE = 5.0  # standard deviations of a difference; four in a million true pairs lie beyond
ALLOWED_RATIO = 1.15  # errors may be so much larger than stated before an item can fail
NOTICED_RATIO = 1.3  # what an item must be able to notice before it can pass
CONFIDENCE = 0.99  # one-sided, of the bounds that decide: false alarms are at most 1 % an item
RESAMPLES = 400
LEAST_PAIRS = 20
LEAST_PROBABILITY = 0.9  # of rows that are asked
LEAST_FRAMES = 5
_STEPS = 400
_BIN = 0.03
_NORMAL_QUANTILE = float(special.ndtri(CONFIDENCE))


class Outcome(Enum):
    """What an item says."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    OPEN = "cannot tell"
    UNASKED = "not asked"


@dataclass(frozen=True)
class Item:
    """One question to a run, and its answer.

    Attributes:
        name: what was looked at.
        question: what it asks, in plain words.
        outcome: the answer.
        sentence: why, in plain words.
        value, sd, low, high: the number that decides, its standard deviation, and its one-sided
            99 % bounds; NaN where there is none.
        allowed: lowest and highest value that may be.
        number: how many pairs or frames it rests on.
    """

    name: str
    question: str
    outcome: Outcome
    sentence: str
    value: float = math.nan
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan
    allowed: tuple[float, float] = (math.nan, math.nan)
    number: int = 0


# --- Pairs --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows that may be one molecule.

    Attributes:
        squared: squared difference in units of both stated covariances, (pairs,), below `GATE`^2.
        group: pairs of one group may depend on each other, those of different ones do not.
        groups: what a group is, in the plural, for people: molecules or frames.
    """

    squared: Array
    group: Index
    groups: str = "molecules"


def clear_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Give the rows that say they are sure: trusted, likely to exist, precision stated.

    Raises:
        InputError: the table states no precision.
    """
    needed = ("frame", "x_nm", "y_nm", "sigma_x_nm", "sigma_y_nm")
    check_columns(table, needed, "stated precision of every row is what is asked about")
    sigma = table[["sigma_x_nm", "sigma_y_nm"]].to_numpy(float)
    good = (np.isfinite(sigma) & (sigma > 0)).all(1)
    if "trusted" in table:
        good &= table["trusted"].to_numpy(bool)
    if "p_exists" in table:
        good &= table["p_exists"].to_numpy(float) >= LEAST_PROBABILITY
    return pd.DataFrame(table[good].reset_index(drop=True))


def bright_and_alone(table: pd.DataFrame, apart_nm: float) -> pd.DataFrame:
    """Give the brighter half of the rows, those with no other row of their frame within `apart_nm`.

    Args:
        table: rows of a run, all of them, so that neighbours are known.
        apart_nm: distance within which images overlap, nm.
    """
    alone = np.ones(len(table), bool)
    at = table[["x_nm", "y_nm"]].to_numpy(float)
    for rows in table.groupby("frame").indices.values():
        near = spatial.cKDTree(at[rows]).query_pairs(apart_nm, output_type="ndarray")
        alone[rows[near.ravel()]] = False
    bright = np.ones(len(table), bool)
    if "photons" in table and len(table):
        bright = table["photons"].to_numpy(float) >= table["photons"].median()
    return table[alone & bright].reset_index(drop=True)


def following_pairs(table: pd.DataFrame) -> Pairs:
    """Pair rows of frames that follow each other; chains of pairs make one group.

    Args:
        table: rows with `frame`, positions, sigmas and, if known, `cov_xy_nm2` and
            `sureloc.table.DRIFT_COLUMNS`, whose error both frames have in common.
    """
    by_frame = _rows_by_frame(table)
    covariance = own_covariance(table)
    found = [
        _near(table, covariance, rows, by_frame[frame + 1])
        for frame, rows in by_frame.items()
        if frame + 1 in by_frame
    ]
    one, two, squared = _joined(found)
    links = sparse.coo_matrix((np.ones(one.size), (one, two)), shape=(len(table), len(table)))
    _, component = csgraph.connected_components(links, directed=False)
    return Pairs(squared, np.asarray(component[one], np.int64))


def split_pairs(first: pd.DataFrame, second: pd.DataFrame) -> Pairs:
    """Pair rows of two tables of the same frames; each frame is one group."""
    table = pd.concat([first, second], ignore_index=True)
    others = _rows_by_frame(second)
    covariance = own_covariance(table)
    found = [
        _near(table, covariance, rows, others[frame] + len(first))
        for frame, rows in _rows_by_frame(first).items()
        if frame in others
    ]
    one, _, squared = _joined(found)
    return Pairs(squared, table["frame"].to_numpy(np.int64)[one], "frames")


def _rows_by_frame(table: pd.DataFrame) -> dict[int, Index]:
    indices = table.groupby("frame").indices
    return {int(str(frame)): np.asarray(rows, np.int64) for frame, rows in indices.items()}


def _joined(found: list[tuple[Index, Index, Array]]) -> tuple[Index, Index, Array]:
    empty = np.empty(0, np.int64)
    parts = [(empty, empty, np.empty(0)), *found]
    one, two, squared = (np.concatenate(part) for part in zip(*parts, strict=True))
    return one, two, squared


def _near(
    table: pd.DataFrame, covariance: Array, one: Index, two: Index
) -> tuple[Index, Index, Array]:
    """Give pairs of rows inside the gate, and their squared difference over its variance."""
    x, y = (table[name].to_numpy(float) for name in ("x_nm", "y_nm"))
    dx, dy = (at[one][:, None] - at[two] for at in (x, y))
    vx, vy, vxy = (
        covariance[one, i, j][:, None] + covariance[two, i, j] for i, j in ((0, 0), (1, 1), (0, 1))
    )
    squared = (vy * dx**2 - 2 * vxy * dx * dy + vx * dy**2) / (vx * vy - vxy**2)
    first, second = np.nonzero(squared < GATE**2)
    return one[first], two[second], squared[first, second]


# --- How large differences are ------------------------------------------------------------------


def repeat_ratio(table: pd.DataFrame) -> tuple[float, int]:
    """Give by how much errors exceed what is stated, as the audit of all trusted rows finds it.

    Args:
        table: rows as for `following_pairs`, before they are linked.

    Returns:
        r (see `error_over_stated`), and how many pairs of rows it rests on; NaN where they come
        from fewer than `LEAST_PAIRS` molecules.

    Raises:
        InputError: the table states no precision.
    """
    pairs = following_pairs(clear_rows(table))
    if np.unique(pairs.group).size < LEAST_PAIRS:
        return math.nan, pairs.squared.size
    return error_over_stated(pairs.squared)[0], pairs.squared.size


def error_over_stated(squared: Array) -> tuple[float, float]:
    """Fit by how much errors exceed what is stated, and the share of pairs that are real.

    Maximum likelihood for h = d^2 / 2, which has the density
    p exp(-h / r^2) / r^2 / (1 - exp(-H / r^2)) + (1 - p) / H up to H = gate^2 / 2.

    Args:
        squared: squared differences in stated units, all below `GATE`^2, (pairs,).

    Returns:
        r, and p.
    """
    ratio, share = _fitted(0.5 * squared, np.ones((1, squared.size)), 1.0, 0.9)
    return float(ratio[0]), float(share[0])


def _fitted(half: Array, weight: Array, ratio: float, share: float) -> tuple[Array, Array]:
    """Climb to the maximum by expectation and maximisation (Dempster et al. 1977).

    Args:
        half: h of the pairs, (pairs,).
        weight: how often each counts in each sample, (samples, pairs).
        ratio, share: where to begin.

    Returns:
        r and p of each sample, (samples,).
    """
    top = 0.5 * GATE**2
    mean = np.full((len(weight), 1), ratio**2)
    real = np.full((len(weight), 1), min(share, 1 - 1e-6))
    number = weight.sum(1, keepdims=True)
    for _ in range(_STEPS):
        signal = real / mean / -np.expm1(-top / mean) * np.exp(-half / mean)
        member = weight * signal / (signal + (1 - real) / top)
        total = member.sum(1, keepdims=True)
        before = mean
        # A cut exponential's mean is r^2 - H / (exp(H / r^2) - 1).
        lost = top / np.expm1(np.minimum(top / mean, 700.0))
        mean = np.clip((member @ half[:, None]) / total + lost, 1e-3, top / 3)
        real = np.clip(total / number, 1e-3, 1 - 1e-9)
        if (np.abs(mean - before) < 1e-5 * mean).all():
            break
    return np.sqrt(mean[:, 0]), real[:, 0]


def _ratios_of_resamples(
    pairs: Pairs, ratio: float, share: float, rng: np.random.Generator, resamples: int
) -> Array:
    """Fit the ratio to groups of pairs that are drawn anew, (resamples,).

    Pairs are gathered in narrow bins of h, each at its mean: 0.03 wide, where the density falls by
    3 % at most.
    """
    half = 0.5 * pairs.squared
    groups, of_pair = np.unique(pairs.group, return_inverse=True)
    bins, of_bin = np.unique((half / _BIN).astype(np.int64), return_inverse=True)
    middle = np.bincount(of_bin, half) / np.bincount(of_bin)
    held = sparse.coo_matrix(
        (np.ones(half.size), (of_bin, of_pair)), shape=(bins.size, groups.size)
    ).tocsr()
    counts = rng.multinomial(groups.size, np.full(groups.size, 1 / groups.size), resamples)
    return _fitted(middle, np.asarray((held @ counts.T).T, np.float64), ratio, share)[0]


def ratio_item(
    name: str, question: str, pairs: Pairs, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Item:
    """Judge pairs: fail, pass, or cannot tell.

    It fails where errors exceed `ALLOWED_RATIO` times what is stated with 99 % confidence; it
    passes where they cannot exceed `NOTICED_RATIO` times that with 99 % confidence, and does not
    fail; else there are too few pairs. Groups of pairs are drawn anew for the confidence.

    Args:
        name, question: of the item.
        pairs: the pairs.
        rng: source of the resamples.
        resamples: how many.
    """
    number = pairs.squared.size
    groups = np.unique(pairs.group)
    if groups.size < LEAST_PAIRS:
        sentence = _too_few(number, groups.size, pairs.groups)
        return Item(name, question, Outcome.OPEN, sentence, number=number)
    value, share = error_over_stated(pairs.squared)
    again = _ratios_of_resamples(pairs, value, share, rng, resamples)
    # Ratios are positive: their logarithm is nearer to a Gaussian's.
    spread = float(np.std(np.log(again), ddof=1))
    reach = _NORMAL_QUANTILE * spread
    low, high = value * math.exp(-reach), value * math.exp(reach)
    if low > ALLOWED_RATIO:
        outcome, judged = Outcome.FAIL, "intervals are too narrow by that factor"
    elif high >= NOTICED_RATIO:
        outcome = Outcome.OPEN
        judged = f"too few pairs to tell whether that is 1 or {NOTICED_RATIO:g}"
    elif high < 1.0:
        wide = 100 * (1 / value - 1)
        outcome = Outcome.PASS
        judged = f"intervals hold, and error bars are about {wide:.0f} % too wide here"
    else:
        outcome, judged = Outcome.PASS, "intervals hold"
    sentence = (
        f"Differences are {value:.2f} times as large as stated (99 % sure: {low:.2f} to "
        f"{high:.2f}; 1 is right): {judged}. {number:,} pairs, "
        f"{100 * (1 - share):.0f} % of them by chance."
    )
    allowed = 0.0, ALLOWED_RATIO
    return Item(
        name, question, outcome, sentence, value, value * spread, low, high, allowed, number
    )


def _too_few(pairs: int, groups: int, what: str) -> str:
    longer = ", or one whose molecules shine longer," if what == "molecules" else ""
    return (
        f"The {pairs:,} pairs that were found come from {groups:,} {what}; at least {LEAST_PAIRS} "
        f"{what} are needed. A longer movie{longer} has more."
    )


# --- Does the picture look as it should? --------------------------------------------------------


def chi2_item(table: pd.DataFrame, rng: np.random.Generator, resamples: int = RESAMPLES) -> Item:
    """Judge whether frames differ round their rows from what these predict as noise does.

    Args:
        table: rows with `frame` and `chi2`, the posterior-predictive squared residual around each.
        rng: source of the resamples, which draw frames anew.
        resamples: how many.
    """
    name = "re-rendered frames"
    question = (
        "Drawn anew from its molecules, does every frame look round them as the camera saw it?"
    )
    if "chi2" not in table:
        return Item(name, question, Outcome.OPEN, "The table has no column chi2.")
    known = table[np.isfinite(table["chi2"])]
    by_frame = known.groupby("frame")["chi2"].agg(["sum", "count"]).to_numpy(float)
    if len(by_frame) < LEAST_FRAMES:
        sentence = f"Rows lie in {len(by_frame)} frames; at least {LEAST_FRAMES} are needed."
        return Item(name, question, Outcome.OPEN, sentence, number=len(by_frame))
    value = float(by_frame[:, 0].sum() / by_frame[:, 1].sum())
    picks = rng.integers(len(by_frame), size=(resamples, len(by_frame)))
    total, count = by_frame[picks].sum(1).T
    sd = float(np.std(total / count, ddof=1))
    low, high = value - _NORMAL_QUANTILE * sd, value + _NORMAL_QUANTILE * sd
    least, most = CARE_CHI2
    if low > most:
        outcome, judged = Outcome.FAIL, "there is more in the pictures than molecules and noise"
    elif high < least:
        outcome, judged = Outcome.FAIL, "the camera is less noisy than its numbers say"
    elif high - low > most - least:
        outcome, judged = Outcome.OPEN, "too few frames to tell"
    else:
        outcome, judged = Outcome.PASS, _within(value, low, high)
    sentence = (
        f"Round the molecules the squared difference is {value:.2f} times the noise (99 % sure: "
        f"{low:.2f} to {high:.2f}; 1 is right, {least:g} to {most:g} is allowed): {judged}. The "
        "verdict's chi2 also counts the pixels between them."
    )
    return Item(
        name, question, outcome, sentence, value, sd, low, high, (least, most), len(by_frame)
    )


def _within(value: float, low: float, high: float) -> str:
    """Say of an allowed chi2 whether it is that of noise, or how far from it."""
    if low <= 1 <= high:
        return "that is the camera's noise and no more"
    than = "more" if value > 1 else "less"
    return f"{100 * abs(value - 1):.0f} % {than} than noise, within what is allowed"


# --- Two halves of the light --------------------------------------------------------------------


def split_light(
    electrons: Array, read_variance_e2: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Split frames into two whose noise is independent, each with half of the light.

    A Poisson number of electrons is split by tossing a coin for each, which leaves two independent
    Poisson numbers. Read noise of variance v goes to both with the same sign and would tie them by
    v / 4; a Gaussian of that variance, added to one and taken from the other, unties them. Each
    half is then what a camera of read variance v / 2 would have seen of half of the light.

    Args:
        electrons: frames, photo-electrons, (..., rows, columns).
        read_variance_e2: read variance, electrons^2, (rows, columns).
        rng: source of the coins.

    Returns:
        Both halves; they sum up to the frames.
    """
    whole = np.maximum(np.rint(electrons), 0.0).astype(np.int64)
    heads = rng.binomial(whole, 0.5) - 0.5 * whole
    untie = rng.normal(size=electrons.shape) * np.sqrt(read_variance_e2 / 4)
    half = 0.5 * electrons + heads + untie
    return half, electrons - half
