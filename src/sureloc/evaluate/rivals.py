"""Other ways of being uncertain beside sureloc's, on the same frames.

Each way says of a frame which emitters there are, how sure it is of each, and which images it
thinks possible. All are told the same camera, PSF width and background.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import special
from torch import Tensor

from sureloc.evaluate.compare import RADIUS_NM, coordinates_held, matched
from sureloc.evaluate.configurations import agreed, gaussian_rows, positions
from sureloc.evaluate.links import LEAST_SHARE, Sight, learn, localized, sights, within
from sureloc.evaluate.studies import expected_loss
from sureloc.evaluate.trials import Simulated, true_bounds
from sureloc.evaluate.unknown import auroc
from sureloc.localize.frames import Effort
from sureloc.localize.movie import LEAST_PROBABILITY
from sureloc.networks.dropout import DropoutPhi
from sureloc.networks.mixture import EmitterPhi, found_emitters, mixture_of
from sureloc.networks.normalization import network_input
from sureloc.networks.phi import Phi
from sureloc.networks.posterior import INFORMATIVE
from sureloc.networks.weights import Networks
from sureloc.physics.consensus import QUANTILES, Consensus, student_widening
from sureloc.physics.kde import peak_of_one, render_kde
from sureloc.physics.referee import PosteriorDraws
from sureloc.scoring.calibration import Spread, spread_of, spread_skill
from sureloc.scoring.matching import Detection, root_mean_square
from sureloc.scoring.proper import fair_crps, gaussian_crps
from sureloc.seeds import torch_generator

Array = npt.NDArray[np.float64]

NORMAL_QUANTILES = special.ndtri(QUANTILES)
DRAWS = 16  # images of a way that can draw as many as it likes


@dataclass(frozen=True)
class Said:
    """What a way says of a frame.

    Attributes:
        rows: emitters, with their uncertainty.
        images: possible images, (draws, fine rows, fine columns), an emitter's peak about 1; None
            where the way makes none.
        sets: possible lists of emitters (n, 3), where the way makes those; else images are drawn
            from the rows.
    """

    rows: Consensus
    images: Tensor | None = None
    sets: Sequence[Array] | None = None


@dataclass
class Rival:
    """A way of being uncertain.

    Attributes:
        name: of it.
        trained: names of the networks that were trained for it.
        look: does it.
        shipped: it uses the weights that come with sureloc, which saw far more work.
        sure: its rows say how sure it is of them.
        tables, images: what it said so far.
        seconds: of the processor so far.
    """

    name: str
    trained: tuple[str, ...]
    look: Callable[[Sight], Said]
    shipped: bool = False
    sure: bool = True
    tables: list[pd.DataFrame] = field(default_factory=list)
    images: list[Tensor] = field(default_factory=list)
    seconds: float = 0.0


def frame_input(sight: Sight) -> Tensor:
    """Give what networks see of a frame."""
    sigma = math.sqrt(sight.sigma_px[0] * sight.sigma_px[1])
    return network_input(
        torch.from_numpy(sight.data.electrons)[None].float(),
        torch.from_numpy(sight.data.read_variance_e2)[None].float(),
        torch.tensor([sigma]),
        torch.tensor([sight.data.excess_noise]),
    )


def predicted(rows: Consensus, members: int) -> Consensus:
    """Say where one more member would put each emitter, from the few that there are.

    Args:
        rows: means and variances over those members of an ensemble that hold the emitter.
        members: of the whole ensemble.

    Returns:
        The rows with the variance of the difference from the mean, (1 + 1 / n) times that of n
        members, and the intervals of Student's t.
    """
    n = np.rint(rows.p_exists * members)
    quantiles = []
    for place, variance in ((rows.x_px, rows.var_x_px2), (rows.y_px, rows.var_y_px2)):
        reach = np.sqrt(variance)[:, None] * student_widening(n) * NORMAL_QUANTILES
        quantiles.append(place[:, None] + reach)
    more = 1.0 + 1.0 / n
    return replace(
        rows,
        var_x_px2=more * rows.var_x_px2,
        var_y_px2=more * rows.var_y_px2,
        cov_xy_px2=more * rows.cov_xy_px2,
        x_quantiles=quantiles[0],
        y_quantiles=quantiles[1],
    )


def of_images(sight: Sight, images: Tensor) -> Said:
    """Read emitters off each image, and say what the images agree on."""
    unit = peak_of_one(sight.networks.card.kernel_sigma_fine_px)
    guesses = [sight.peaks(unit * image) for image in images]
    rows = agreed(guesses, sight.gate_px, LEAST_SHARE, independent=True)
    return Said(predicted(rows, len(images)), images)


@torch.inference_mode()
def _phi_alone(sight: Sight, phi: Phi) -> Said:
    image = phi(frame_input(sight))[0]
    unit = peak_of_one(sight.networks.card.kernel_sigma_fine_px)
    peaks = sight.peaks(unit * image[0])
    return Said(gaussian_rows(peaks, np.zeros((len(peaks), 2, 2))), image)


@torch.inference_mode()
def _ensemble(sight: Sight, members: Sequence[Phi]) -> Said:
    seen = frame_input(sight)
    return of_images(sight, torch.cat([phi(seen)[0] for phi in members]))


@torch.inference_mode()
def _dropped(sight: Sight, phi: DropoutPhi) -> Said:
    seen = frame_input(sight)
    drawn = [
        phi.drawn(seen, torch_generator(sight.seed, "dropout", sight.number, k))[0]
        for k in range(DRAWS)
    ]
    return of_images(sight, torch.cat(drawn))


@torch.inference_mode()
def _mixture(sight: Sight, network: EmitterPhi) -> Said:
    found = found_emitters(mixture_of(network(frame_input(sight))), LEAST_PROBABILITY)
    mean, sd, probability = (
        values.double().numpy() for values in (found.mean, found.sd, found.probability)
    )
    covariance = np.zeros((len(mean), 2, 2))
    covariance[:, [0, 1], [0, 1]] = sd[:, :2] ** 2
    return Said(gaussian_rows(mean, covariance, probability))


def _likeliest(sight: Sight, phi: Phi) -> Said:
    with torch.inference_mode():
        image = phi(frame_input(sight))[0, 0]
    peaks = sight.peaks(peak_of_one(sight.networks.card.kernel_sigma_fine_px) * image)
    return Said(sight.refined([peaks], flat=True).best())


def _drawn(sight: Sight) -> Said:
    unit = peak_of_one(sight.networks.card.kernel_sigma_fine_px)
    return of_images(sight, sight.images(DRAWS).draws[0] / unit)


def _whole(sight: Sight) -> Said:
    found = localized(sight, Effort.chains)
    return Said(found.rows, sets=_picked(found.draws))


def _picked(draws: PosteriorDraws) -> list[Array]:
    states = np.stack([draws.x_px, draws.y_px, draws.photons], axis=2)
    picked = np.linspace(0, draws.counts.size - 1, DRAWS).round().astype(int)
    return [states[k, : draws.counts[k]] for k in picked]


def rivals(
    phi: Phi, ensemble: Sequence[Phi], dropout: DropoutPhi, mixture: EmitterPhi
) -> list[Rival]:
    """Give all ways; `compare_rivals` says which networks the last ones see.

    Args:
        phi, ensemble, dropout, mixture: trained networks.
    """
    members = tuple(f"ensemble_{k}" for k in range(1, len(ensemble) + 1))
    whole = ("half_phi", "psi")
    return [
        Rival("phi's peaks", ("phi",), lambda sight: _phi_alone(sight, phi), sure=False),
        Rival("deep ensemble", members, lambda sight: _ensemble(sight, ensemble)),
        Rival("MC dropout", ("dropout",), lambda sight: _dropped(sight, dropout)),
        Rival("heteroscedastic head", ("mixture",), lambda sight: _mixture(sight, mixture)),
        Rival("maximum likelihood + CRLB", ("phi",), lambda sight: _likeliest(sight, phi)),
        Rival("Psi's draws", whole, _drawn),
        Rival("sureloc", whole, _whole),
        Rival("Psi's draws, shipped weights", (), _drawn, shipped=True),
        Rival("sureloc, shipped weights", (), _whole, shipped=True),
    ]


def drawn_sets(rows: Consensus, number: int, generator: np.random.Generator) -> list[Array]:
    """Draw lists of emitters (n, 3) from rows: each exists or not, and lies about its place."""
    count = rows.x_px.size
    covariance = np.empty((count, 2, 2))
    covariance[:, 0, 0], covariance[:, 1, 1] = rows.var_x_px2, rows.var_y_px2
    covariance[:, 0, 1] = covariance[:, 1, 0] = rows.cov_xy_px2
    root = np.linalg.cholesky(covariance + 1e-12 * np.eye(2))
    sets = []
    for _ in range(number):
        noise = root @ generator.standard_normal((count, 2, 1))
        x, y = rows.x_px + noise[:, 0, 0], rows.y_px + noise[:, 1, 0]
        exists = generator.uniform(size=count) < rows.p_exists
        sets.append(np.stack([x, y, rows.photons], axis=1)[exists])
    return sets


def images_of(said: Said, sight: Sight) -> Tensor:
    """Give the possible images, (draws, fine rows, fine columns), an emitter's peak about 1."""
    if said.images is not None:
        return said.images
    sets = said.sets
    if sets is None:
        sets = drawn_sets(said.rows, DRAWS, sight.generator("images"))
    return kernel_images(sets, sight)


def kernel_images(sets: Sequence[Array], sight: Sight) -> Tensor:
    """Render lists of emitters (n, 3) as kernel density images in units of one's peak."""
    sigma = sight.networks.card.kernel_sigma_fine_px
    number = torch.from_numpy(np.repeat(np.arange(len(sets)), [len(one) for one in sets]))
    places = torch.from_numpy(np.concatenate([np.empty((0, 3)), *sets])).float()
    rows, columns = sight.data.electrons.shape
    mass = torch.ones(len(places))
    shape = (len(sets), rows, columns)
    return render_kde(places[:, 0], places[:, 1], mass, number, shape, sigma) / peak_of_one(sigma)


def compare_rivals(
    simulated: Simulated,
    ways: Sequence[Rival],
    own: Networks,
    shipped: Networks,
    background_e: float,
    seed: int,
) -> list[dict[str, float | str]]:
    """Let all ways look at a movie and compare what they say with the truth.

    Args:
        simulated: the movie.
        ways: of `rivals`; the first makes one image, which tells the informative pixels.
        own: phi and Psi trained with as much work as the others.
        shipped: phi and Psi as they come with sureloc.
        background_e: true background, photo-electrons per pixel.
        seed: of draws and chains.

    Returns:
        One row for each way.
    """
    scenes = {True: learn(simulated, shipped, seed), False: learn(simulated, own, seed)}
    truths = []
    looks = (sights(scenes[kind], (own, shipped)[kind], None, seed) for kind in (False, True))
    for number, (mine, theirs) in enumerate(zip(*looks, strict=True)):
        for way in ways:
            _look(way, theirs if way.shipped else mine, simulated, first=number == 0)
        truths.append(kernel_images([_true_emitters(simulated, number)], mine)[0])
    inside = np.flatnonzero(simulated.inside)
    pairs = []
    for way in ways:
        rows, real = matched(pd.concat(way.tables), simulated.truth.iloc[inside], RADIUS_NM)
        pairs.append((rows, inside[real]))
    shared = reduce(np.intersect1d, (real for _, real in pairs))
    bound = true_bounds(simulated, joint=True, background_e=background_e)
    where = torch.stack([way[0] for way in ways[0].images]) > INFORMATIVE
    return [
        {
            "method": way.name,
            **_localized(way, simulated, pair, bound, shared),
            **_imaged(way, torch.stack(truths), where),
            "ms_a_frame": 1e3 * way.seconds / simulated.movie.shape[0],
        }
        for way, pair in zip(ways, pairs, strict=True)
    ]


def _look(way: Rival, sight: Sight, simulated: Simulated, *, first: bool) -> None:
    if first:
        way.look(sight)  # what is compiled or cached at first use is no one's
    begin = time.process_time()
    said = way.look(sight)
    way.seconds += time.process_time() - begin
    pixel = simulated.recipe.frame.pixel_nm
    table = positions(said.rows, sight.number, pixel, intervals=way.sure)
    way.tables.append(within(table[table["p_exists"] >= LEAST_SHARE], simulated))
    way.images.append(images_of(said, sight))


def _true_emitters(simulated: Simulated, number: int) -> Array:
    pixel = simulated.recipe.frame.pixel_nm
    truth = simulated.truth[simulated.truth["frame"] == number]
    values = truth[["x_nm", "y_nm", "photons"]].to_numpy(float)
    return np.asarray(values / [pixel, pixel, 1.0])


def _localized(
    way: Rival,
    simulated: Simulated,
    pair: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    bound: Array,
    shared: npt.NDArray[np.int64],
) -> dict[str, float]:
    """Compare the rows of a way with the truth."""
    table, (mine, theirs) = pd.concat(way.tables, ignore_index=True), pair
    emitters = int(simulated.inside.sum())
    detection = Detection(emitters, len(table), len(mine))
    rows, real = table.iloc[mine], simulated.truth.iloc[theirs]
    place, true = (both[["x_nm", "y_nm"]].to_numpy(float) for both in (rows, real))
    sigma = rows[["sigma_x_nm", "sigma_y_nm"]].to_numpy(float)
    crps = gaussian_crps(place, sigma if way.sure else np.zeros_like(place), true)
    of_all = np.isin(theirs, shared)
    out = {
        "emitters": float(emitters),
        "jaccard": detection.jaccard,
        "recall": detection.recall,
        "precision": detection.precision,
        "rmse_nm": root_mean_square((place - true).ravel()),
        "crps_nm": float(crps.mean()) if crps.size else math.nan,
        "crps_shared_nm": float(crps[of_all].mean()) if of_all.any() else math.nan,
        "crps_error_nm": _standard_error(crps[of_all].mean(1)),
        "shared": float(len(shared)),
    }
    for level in (68, 95):
        out[f"held_{level}"] = coordinates_held(rows, real, level) if way.sure else math.nan
    out["held_95_error"] = math.sqrt(0.05 * 0.95 / max(2 * len(mine), 1))
    known = np.isfinite(bound[theirs]) & np.isfinite(sigma)
    ratio = sigma[known] / bound[theirs][known]
    out["width_over_bound"] = float(np.median(ratio)) if ratio.size else math.nan
    false = np.ones(len(table), bool)
    false[mine] = False
    out["false"] = float(false.sum())
    out["auroc_false"] = math.nan
    if way.sure:
        psf_nm = simulated.recipe.psf.sigma_px * simulated.recipe.frame.pixel_nm
        doubt = expected_loss(table, psf_nm)
        out["auroc_false"] = auroc(doubt[false], doubt[~false])
    return out


def _standard_error(values: Array) -> float:
    return float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else math.nan


def _imaged(way: Rival, truth: Tensor, where: Tensor) -> dict[str, float]:
    """Compare the images of a way with the truth on informative pixels."""
    images = torch.stack(way.images, dim=1)
    if len(images) == 1:
        off = (images[0] - truth).abs()[where]
        return {"image_crps": float(off.double().mean()), "image_spread_skill": 0.0}
    drawn, real = images[:, where], truth[where]
    spread: Spread = spread_of(drawn, real)
    return {
        "image_crps": float(fair_crps(drawn, real).double().mean()),
        "image_spread_skill": spread_skill(spread),
    }
