"""What is measured of trials: precision against its bound, coverage, and filtering by doubt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.spatial import KDTree

from sureloc.evaluate.compare import RADIUS_NM, coordinates_held, matched
from sureloc.evaluate.trials import Simulated, Trial, neighbour_px, true_bounds
from sureloc.localize.frames import GATE_SIGMAS
from sureloc.localize.proposals import LEAST_PEAK, maxima
from sureloc.networks.posterior import posterior_images
from sureloc.networks.weights import Networks
from sureloc.physics.kde import peak_of_one
from sureloc.scoring.matching import Detection, root_mean_square

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

ISOLATED_PX = 8.0  # nearest neighbour, and half of it to the frame's edge, of a lone emitter
FAR_PX = 3.0
LEAST_DRAWS = 15  # of a row, for its place among them to tell
DROPPED = 0.2  # share of rows that is dropped to see how many of the false ones go


def image_positions(
    simulated: Simulated, networks: Networks, sigma_px: float, draws: int, seed: int
) -> dict[str, pd.DataFrame]:
    """Read positions off phi's estimate and off the mean of Psi's draws.

    Args:
        simulated: the movie.
        networks: trained networks.
        sigma_px: PSF width that they are told, px.
        draws: draws of Psi a frame.
        seed: of the draws.

    Returns:
        Tables (frame, x_nm, y_nm) by the name of the image.
    """
    camera, movie = simulated.camera, simulated.movie
    variance = torch.from_numpy(camera.read_variance_e2(movie.shape[1:])).float()
    least = LEAST_PEAK * peak_of_one(networks.card.kernel_sigma_fine_px)
    pixel = simulated.recipe.frame.pixel_nm
    found: dict[str, list[pd.DataFrame]] = {"phi": [], "mean of Psi": []}
    for frame in range(movie.shape[0]):
        electrons = torch.from_numpy(camera.electrons(movie.read(frame, frame + 1))).float()
        images = posterior_images(
            networks, electrons, variance, sigma_px, camera.excess_noise, draws, seed, [frame]
        )
        for name, image in (("phi", images.yhat[0]), ("mean of Psi", images.draws[0].mean(0))):
            x, y = maxima(image.double().numpy(), least)
            rows = pd.DataFrame({"frame": frame, "x_nm": x * pixel, "y_nm": y * pixel})
            found[name].append(rows)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in found.items()}


def precision(
    simulated: Simulated, tables: Mapping[str, pd.DataFrame], background_e: float, *, lone: bool
) -> list[dict[str, float | str]]:
    """Compare errors of tables with the Cramer-Rao bound of the truth.

    Args:
        simulated: the movie.
        tables: positions by the way they were found (`frame`, `x_nm`, `y_nm`).
        background_e: true background, photo-electrons per pixel.
        lone: look at emitters without neighbours only, against the bound of each alone; otherwise
            at those whose joint bound is below half a PSF width, against that bound.

    Returns:
        One row for each way.
    """
    truth = simulated.truth
    bound = true_bounds(simulated, joint=not lone, background_e=background_e)
    if lone:
        counted = (simulated.neighbour_px() >= ISOLATED_PX) & (
            simulated.edge_px() >= 0.5 * ISOLATED_PX
        )
    else:
        half_psf = 0.5 * simulated.recipe.psf.sigma_px * simulated.recipe.frame.pixel_nm
        counted = simulated.inside & (bound < half_psf).all(1)
    out: list[dict[str, float | str]] = []
    inside = np.flatnonzero(simulated.inside)
    for name, table in tables.items():
        mine, theirs = matched(table, truth.iloc[inside], RADIUS_NM)
        theirs = inside[theirs]
        kept = counted[theirs]
        error = (
            table[["x_nm", "y_nm"]].to_numpy(float)[mine[kept]]
            - truth[["x_nm", "y_nm"]].to_numpy(float)[theirs[kept]]
        )
        rmse = root_mean_square(error.ravel())
        limits = bound[theirs[kept]].ravel()
        limit = root_mean_square(limits)
        ratio = rmse / limit
        # The sum of squares of normal values of unequal sd scatters like one of so many equal ones.
        number = (limits**2).sum() ** 2 / max((limits**4).sum(), 1e-30)
        out.append(
            {
                "way": name,
                "emitters": float(counted.sum()),
                "recall": float(kept.sum()) / max(int(counted.sum()), 1),
                "jaccard": Detection(len(inside), len(table), len(mine)).jaccard,
                "rmse_nm": rmse,
                "bound_nm": limit,
                "rmse_over_bound": ratio,
                "error": ratio / math.sqrt(2 * max(number, 1.0)),
            }
        )
    return out


def held(
    trial: Trial, background_e: float, neighbour: tuple[float, float] = (0.0, math.inf)
) -> dict[str, float]:
    """Say how often intervals hold and how wide they are, with binomial errors.

    Args:
        trial: a localized movie.
        background_e: true background, photo-electrons per pixel.
        neighbour: look only at true emitters whose nearest neighbour is so far (from, up to), px;
            at unpaired rows, and for p_exists at all rows, by the distance of the next row.

    Returns:
        Coverage of the 68 and 95 % intervals of coordinates, of 50 and 90 % intervals between order
        statistics of the draws, and of photons +- 0.994 and 1.960 of their deviations; the expected
        calibration error of p_exists, a row being real if a molecule is within a PSF width, and the
        median stated deviation over the joint bound where the next emitter is farther than
        `FAR_PX`.
    """
    table, truth = trial.table, trial.simulated.truth
    apart = trial.simulated.neighbour_px()
    counted = _within(apart, neighbour)
    asked = _within(neighbour_px(table, trial.simulated.recipe.frame.pixel_nm), neighbour)
    mine, theirs = trial.pairs()
    unpaired = asked.copy()
    unpaired[mine] = False
    kept = counted[theirs]
    mine, theirs = mine[kept], theirs[kept]
    rows, real = table.iloc[mine], truth.iloc[theirs]
    emitters, found = int((trial.simulated.inside & counted).sum()), mine.size
    out: dict[str, float] = {
        "emitters": float(emitters),
        "rows": float(found + unpaired.sum()),
        "jaccard": Detection(emitters, int(found + unpaired.sum()), found).jaccard,
    }
    for level in (68, 95):
        share = coordinates_held(rows, real, level)
        out[f"held_{level}"] = share
        out[f"held_{level}_error"] = math.sqrt(share * (1 - share) / max(2 * mine.size, 1))
    ranks = draw_ranks(trial, mine, theirs)
    for level in (50, 90):
        tail = 0.005 * (100 - level)
        inside = (ranks >= tail - 1e-9) & (ranks <= 1 - tail + 1e-9)
        out[f"held_{level}"] = float(inside.mean()) if ranks.size else float("nan")
    off = (rows["photons"].to_numpy(float) - real["photons"].to_numpy(float)) / np.maximum(
        rows["sigma_photons"].to_numpy(float), 1e-9
    )
    for level, z in ((68, 0.99446), (95, 1.95996)):
        out[f"photons_held_{level}"] = float((np.abs(off) <= z).mean()) if off.size else math.nan
    exists = np.zeros(len(table), bool)
    exists[trial.pairs(_gate_nm(trial))[0]] = True
    out["p_exists_error"] = calibration_error(
        table["p_exists"].to_numpy(float)[asked], exists[asked]
    )
    far = apart[theirs] > FAR_PX
    bound = true_bounds(trial.simulated, joint=True, background_e=background_e)[theirs][far]
    sigma = rows[["sigma_x_nm", "sigma_y_nm"]].to_numpy(float)[far]
    out["told_psf"] = float(trial.told_psf)
    out["seconds"] = trial.seconds
    out["width_over_bound"] = float(np.median(sigma / bound)) if far.any() else float("nan")
    return out


def _within(distance: Array, reach: tuple[float, float]) -> npt.NDArray[np.bool_]:
    """Tell which distances lie in a half-open range; infinite ones do where it has no end."""
    return np.asarray((distance >= reach[0]) & ((distance < reach[1]) | np.isinf(reach[1])))


def _gate_nm(trial: Trial) -> float:
    """Give the distance up to which a draw's emitter counts for a row."""
    psf_px = math.sqrt(math.prod(trial.assumptions.sigma_px))
    return GATE_SIGMAS * psf_px * trial.simulated.recipe.frame.pixel_nm


def draw_ranks(trial: Trial, mine: Index, theirs: Index) -> Array:
    """Give where true coordinates lie among the posterior draws of the rows paired with them.

    A draw's emitter belongs to the row that is nearest to it, within a PSF width, as in
    `sureloc.physics.consensus`.

    Args:
        trial: a localized movie.
        mine, theirs: positions of paired rows in the table and in the truth.

    Returns:
        The number of draws below the truth plus 1/2, over M + 1: each of 1/2, 3/2, ..., M + 1/2
        over M + 1 is equally likely where truth and draws have one law. Shape (coordinates,), of
        rows that most draws hold.
    """
    gate_nm = _gate_nm(trial)
    out = []
    place = ["x_nm", "y_nm"]
    by_frame = trial.draws.groupby("frame").indices
    truth = trial.simulated.truth[place].to_numpy(float)[theirs]
    rows = trial.table[place].to_numpy(float)
    drawn = trial.draws[place].to_numpy(float)
    number = trial.draws["draw"].to_numpy()
    for frame, here in trial.table.groupby("frame").indices.items():
        cloud = by_frame.get(frame)
        if cloud is None:
            continue
        far, nearest = KDTree(rows[here]).query(drawn[cloud])
        owner = np.where(far <= gate_nm, here[nearest], -1)
        for pair in np.flatnonzero(np.isin(mine, here)):
            own = cloud[owner == mine[pair]]
            # One emitter a draw: the nearest.
            order = np.argsort(np.hypot(*(drawn[own] - rows[mine[pair]]).T))
            own = own[order][np.unique(number[own][order], return_index=True)[1]]
            if len(own) < LEAST_DRAWS:
                continue
            below = (drawn[own] < truth[pair]).sum(0)
            out.extend((below + 0.5) / (len(own) + 1))
    return np.array(out)


def calibration_error(probability: Array, happened: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Give the expected calibration error: mean |share - probability| over bins of equal width.

    Args:
        probability: of each event, in [0, 1].
        happened: which events did.
        bins: bins between 0 and 1; each counts by its number of events.
    """
    if probability.size == 0:
        return float("nan")
    which = np.minimum((probability * bins).astype(int), bins - 1)
    number = np.bincount(which, minlength=bins)
    said = np.bincount(which, probability, bins)
    seen = np.bincount(which, happened, bins)
    return float(np.abs(said - seen).sum() / number.sum())


def expected_loss(table: pd.DataFrame, psf_nm: float) -> Array:
    """Give the doubt of rows, (rows,): a PSF width if they do not exist, else their deviation.

    Args:
        table: `sigma_x_nm`, `sigma_y_nm` and `p_exists`.
        psf_nm: PSF width, nm, in units of which losses are.
    """
    absent = 1 - table["p_exists"].to_numpy(float)
    return np.asarray(absent + (1 - absent) * _radial_sigma(table, psf_nm))


def _radial_sigma(table: pd.DataFrame, psf_nm: float) -> Array:
    sigma = table[["sigma_x_nm", "sigma_y_nm"]].to_numpy(float)
    return np.asarray(np.hypot(*sigma.T) / psf_nm)


@dataclass(frozen=True)
class Filtering:
    """What happens as the least certain rows are dropped.

    Attributes:
        dropped: shares of the rows, from 0 to 1.
        false_gone: share of the false rows among those dropped, by the name of the measure; the
            oracle drops false rows first.
        false: number of false rows.
    """

    dropped: Array
    false_gone: dict[str, Array]
    false: int

    def at(self, measure: str, share: float = DROPPED) -> float:
        """Give the share of false rows gone when so many rows were dropped."""
        return float(np.interp(share, self.dropped, self.false_gone[measure]))

    def area(self, measure: str) -> float:
        """Give the area under a curve above that of chance, over the oracle's; 1 is perfect."""
        areas = {
            name: float(np.trapezoid(curve, self.dropped)) - 0.5
            for name, curve in self.false_gone.items()
        }
        return areas[measure] / areas["oracle"] if areas["oracle"] > 0 else float("nan")


def filtering(table: pd.DataFrame, false: npt.NDArray[np.bool_], psf_nm: float) -> Filtering:
    """Drop rows by each measure of doubt and see how fast the false ones go.

    Args:
        table: rows (`LOCALIZATION_COLUMNS`).
        false: which of them are no emitter.
        psf_nm: PSF width, nm.
    """
    measures = {
        "1 - p_exists": 1 - table["p_exists"].to_numpy(float),
        "sigma": _radial_sigma(table, psf_nm),
        "chi2": table["chi2"].to_numpy(float),
        "both": expected_loss(table, psf_nm),
        "oracle": false.astype(float),
    }
    dropped = np.linspace(0.0, 1.0, 101)
    gone = {}
    for name, doubt in measures.items():
        order = np.argsort(-doubt, kind="stable")
        count = np.concatenate([[0.0], np.cumsum(false[order])]) / max(int(false.sum()), 1)
        gone[name] = np.interp(dropped * len(table), np.arange(len(table) + 1), count)
    return Filtering(dropped, gone, int(false.sum()))
