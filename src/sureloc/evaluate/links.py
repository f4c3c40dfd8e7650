"""What each link of the chain is worth: the same frames localized with links left out or exchanged.

All ways see the same frames under the same assumptions (camera, PSF width and priors as `prepare`
found them) and differ in what is done with a frame. Time is that of the processor, in one thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from sureloc.evaluate.compare import RADIUS_NM, coordinates_held, matched
from sureloc.evaluate.configurations import Refined, agreed, positions, refined
from sureloc.evaluate.trials import Simulated, true_bounds
from sureloc.localize.detect import Spots, detect_spots
from sureloc.localize.frames import (
    GATE_SIGMAS,
    Effort,
    FramePosterior,
    Proposals,
    frame_posterior,
)
from sureloc.localize.learning import (
    MARGIN_SIGMAS,
    faintest_photons,
    first_prior,
    spots_of_frame,
)
from sureloc.localize.movie import (
    LEAST_PROBABILITY,
    Assumptions,
    Options,
    prepare,
    read_frames,
    region_prior,
    spread_frames,
)
from sureloc.localize.proposals import (
    LEAST_PEAK,
    START_EVALUATIONS,
    Known,
    begin_at_spots,
    begin_of_frame,
    brightness,
    maxima,
    propose,
)
from sureloc.localize.regions import regions_of
from sureloc.networks.posterior import PosteriorImages, posterior_images
from sureloc.networks.weights import Networks
from sureloc.physics.consensus import Consensus
from sureloc.physics.kde import peak_of_one
from sureloc.physics.priors import ScenePrior
from sureloc.physics.referee import FrameData
from sureloc.scoring.matching import Detection, root_mean_square
from sureloc.seeds import numpy_generator

Array = npt.NDArray[np.float64]

LEAST_SHARE = 0.5  # of draws or probability, for a row to count, as `sureloc localize` asks
SPOTS = "spots + moves"  # what `sureloc localize` does
DRAWS = "draws + moves"  # what it does where emitters are faint
SAMPLES = 128  # of a mixture
STATES = 16  # of chains, from which the best configuration is chosen


@dataclass(frozen=True)
class Sight:
    """One frame and what is known of it before it is localized.

    Attributes:
        number: of the frame.
        data: the frame.
        prior, broad: what is believed before: learned from the movie, or guessed from its spots.
        spots: detected, (n, 3): x px, y px, photo-electrons.
        background_e: expected background, photo-electrons, (rows, columns).
        sigma_px: PSF widths, px.
        networks, slower: that draw in one evaluation, and by diffusion.
        seed: of draws and chains.
    """

    number: int
    data: FrameData
    prior: ScenePrior
    broad: ScenePrior
    spots: Array
    background_e: Array
    sigma_px: tuple[float, float]
    networks: Networks
    slower: Networks | None
    seed: int

    @property
    def gate_px(self) -> float:
        """How far an emitter of a draw may be from the row that it belongs to."""
        return GATE_SIGMAS * math.sqrt(self.sigma_px[0] * self.sigma_px[1])

    def known(self, prior: ScenePrior) -> Known:
        """Give what is known of the frame before chains begin, under some prior."""
        believed = prior.photons.mean, prior.margin_px
        mine = self.data, self.background_e, self.sigma_px
        return Known(*mine, *believed, self.spots, self.seed, self.number)

    def images(self, draws: int) -> PosteriorImages:
        """Give phi's estimate and Psi's draws of the whole frame."""
        return posterior_images(
            self.networks,
            torch.from_numpy(self.data.electrons)[None].float(),
            torch.from_numpy(self.data.read_variance_e2).float(),
            math.sqrt(self.sigma_px[0] * self.sigma_px[1]),
            self.data.excess_noise,
            draws,
            self.seed,
            [self.number],
            min(START_EVALUATIONS, self.networks.card.draws.evaluations),
        )

    def peaks(self, image: torch.Tensor) -> Array:
        """Read emitters off an image, (n, 3): x px, y px, photo-electrons."""
        least = LEAST_PEAK * peak_of_one(self.networks.card.kernel_sigma_fine_px)
        x, y = maxima(image.double().numpy(), least)
        light = self.known(self.prior).light_e
        photons = brightness(x, y, light, self.data, self.sigma_px, self.prior.photons.mean)
        return np.stack([x, y, photons], axis=1)

    def refined(self, guesses: list[Array], *, flat: bool = False) -> Refined:
        """Refine guesses at the frame, by the likelihood alone if `flat`."""
        return refined(guesses, self.data, self.prior, self.sigma_px, flat=flat)

    def generator(self, name: str) -> np.random.Generator:
        """Give a source of randomness."""
        return numpy_generator(self.seed, name, self.number)

    def moved(
        self,
        begin: Proposals,
        chains: int,
        prior: ScenePrior | None = None,
    ) -> FramePosterior:
        """Run chains as `sureloc localize` does, from any starts."""
        return frame_posterior(
            self.data,
            prior or self.prior,
            self.sigma_px,
            begin,
            Effort(chains=chains),
            self.seed,
            self.number,
            LEAST_PROBABILITY,
        )


@dataclass
class Way:
    """One way to localize a frame.

    Attributes:
        name: what it does.
        number: of draws or chains.
        localize: does it.
        intervals: whether its rows have any.
        tables: what it found so far.
        seconds: of the processor so far.
    """

    name: str
    number: int
    localize: Callable[[Sight, int], Consensus]
    intervals: bool = True
    tables: list[pd.DataFrame] = field(default_factory=list)
    seconds: float = 0.0


def _of_peaks(emitters: Array) -> Consensus:
    """Give the rows of a list of emitters that says nothing of their errors."""
    return agreed([emitters, emitters], 1e-6, LEAST_SHARE)


def _phi_peaks(sight: Sight, _: int) -> Consensus:
    return _of_peaks(sight.peaks(sight.images(0).yhat[0]))


def _phi_refined(sight: Sight, _: int) -> Consensus:
    return sight.refined([sight.peaks(sight.images(0).yhat[0])]).best()


def _phi_moved(sight: Sight, chains: int) -> Consensus:
    yhat = sight.images(0).yhat[0]
    expected = yhat.double().numpy().clip(min=0.0)
    return sight.moved(sight.known(sight.prior).guided([sight.peaks(yhat)], expected), chains).rows


def _draws(sight: Sight, number: int) -> list[Array]:
    return [sight.peaks(image) for image in sight.images(number).draws[0]]


def _draws_read(sight: Sight, number: int) -> Consensus:
    draws = _draws(sight, number)
    return _of_peaks(draws[0]) if number == 1 else agreed(draws, sight.gate_px, LEAST_SHARE)


def _draws_best(sight: Sight, number: int) -> Consensus:
    return sight.refined(_draws(sight, number)).best()


def _draws_mixed(sight: Sight, number: int) -> Consensus:
    found = sight.refined(_draws(sight, number))
    return found.mixture(sight.gate_px, LEAST_SHARE, SAMPLES, sight.generator("mixture"))


def _from_draws(sight: Sight, chains: int, networks: Networks) -> Consensus:
    """Begin all chains but the first, or the only one, at draws of the whole frame."""
    told = propose(networks, sight.known(sight.prior), max(chains - 1, 1))
    starts = [sight.spots, *told.starts] if chains > 1 else told.starts
    return sight.moved(replace(told, starts=starts), chains).rows


def localized(sight: Sight, chains: int, prior: ScenePrior | None = None) -> FramePosterior:
    """Do with a frame what `sureloc localize` does, under the prior learned or another one."""
    believed = prior or sight.prior
    begin = begin_of_frame(sight.networks, sight.known(believed), max(chains - 1, 1))
    return sight.moved(begin, chains, believed)


def _spots_moved(sight: Sight, chains: int) -> Consensus:
    return sight.moved(begin_at_spots(sight.known(sight.prior)), chains).rows


def _draws_moved(sight: Sight, chains: int) -> Consensus:
    return _from_draws(sight, chains, sight.networks)


def _diffusion_moved(sight: Sight, chains: int) -> Consensus:
    return _from_draws(sight, chains, sight.slower or sight.networks)


def _moved_broadly(sight: Sight, chains: int) -> Consensus:
    return localized(sight, chains, sight.broad).rows


def _moved_best(sight: Sight, chains: int) -> Consensus:
    """Refine states of the chains, and keep the likeliest of them in each crowd."""
    draws = localized(sight, chains).draws
    picked = np.linspace(0, draws.counts.size - 1, STATES).round().astype(int)
    states = np.stack([draws.x_px, draws.y_px, draws.photons], axis=2)
    return sight.refined([states[k, : draws.counts[k]] for k in picked]).best()


def ways(numbers: tuple[int, ...]) -> list[Way]:
    """Give all ways to localize a frame, those that draw with each of some numbers of draws.

    Args:
        numbers: of draws or chains.
    """
    chains = [n for n in numbers if n > 1] or [2]
    usual = Effort.chains if Effort.chains in numbers else chains[0]
    return [
        Way("phi's peaks", 1, _phi_peaks, intervals=False),
        Way("phi + refinement", 1, _phi_refined),
        *(Way("phi + moves", n, _phi_moved) for n in numbers),
        *(Way("draws alone", n, _draws_read, intervals=n > 1) for n in numbers),
        *(Way("draws + refinement, best", n, _draws_best) for n in numbers),
        *(Way("draws + refinement, mixture", n, _draws_mixed) for n in chains),
        *(Way(DRAWS, n, _draws_moved) for n in numbers),
        Way("diffusion draws + moves", usual, _diffusion_moved),
        *(Way(SPOTS, n, _spots_moved) for n in numbers),
        Way("localize, broad priors", usual, _moved_broadly),
        Way("localize, best", usual, _moved_best),
    ]


@dataclass(frozen=True)
class Scene:
    """A movie and what is believed of it.

    Attributes:
        simulated: the movie.
        assumptions: what `prepare` learned from it.
        spots: detected in all its frames.
        broad: the priors from which learning begins.
        seconds: of the processor that learning took.
    """

    simulated: Simulated
    assumptions: Assumptions
    spots: Spots
    broad: ScenePrior
    seconds: float


def learn(simulated: Simulated, networks: Networks, seed: int) -> Scene:
    """Learn from a movie what all ways are told."""
    begin = time.process_time()
    movie, camera = simulated.movie, simulated.camera
    options = Options(simulated.recipe.frame.pixel_nm, simulated.recipe.psf.sigma_px, seed=seed)
    assumptions = prepare(movie, camera, options, networks)
    seconds = time.process_time() - begin
    numbers = spread_frames(movie.shape[0], movie.shape[0])
    electrons = assumptions.camera.electrons(read_frames(movie, numbers))
    variance = assumptions.camera.read_variance_e2(movie.shape[1:])
    excess = assumptions.camera.excess_noise
    spots = detect_spots(electrons, variance, assumptions.sigma_px, excess)
    faintest = faintest_photons(
        float(max(spots.background_e.mean(), 0.0)),
        float(np.median(variance)),
        assumptions.sigma_px,
        excess,
    )
    broad = first_prior(spots, MARGIN_SIGMAS * max(assumptions.sigma_px), faintest)
    return Scene(simulated, assumptions, spots, broad, seconds)


def sights(scene: Scene, networks: Networks, slower: Networks | None, seed: int) -> Iterator[Sight]:
    """Give the frames of a movie, each small enough to be one region."""
    movie, a = scene.simulated.movie, scene.assumptions
    (region,) = regions_of(movie.shape[1:], a.sigma_px)
    variance = a.camera.read_variance_e2(movie.shape[1:])
    for number in range(movie.shape[0]):
        electrons = a.camera.electrons(movie.read(number, number + 1))[0]
        crowding = a.crowding.around(number, region.rows, region.columns)
        prior = region_prior(a.learned, region, crowding)
        yield Sight(
            number,
            FrameData(electrons, variance, a.camera.excess_noise),
            prior,
            replace(
                scene.broad,
                background_e=prior.background_e,
                background_sd_e=prior.background_sd_e,
            ),
            spots_of_frame(scene.spots, number),
            a.learned.background_e,
            a.sigma_px,
            networks,
            slower,
            seed,
        )


def worth_of_links(
    simulated: Simulated,
    networks: Networks,
    slower: Networks | None,
    tried: list[Way],
    background_e: float,
    seed: int,
) -> list[dict[str, float | str]]:
    """Localize a movie in several ways and compare each with the truth.

    Args:
        simulated: the movie.
        networks: that draw in one evaluation.
        slower: that draw by diffusion.
        tried: the ways (see `ways`).
        background_e: true background, photo-electrons per pixel.
        seed: of draws and chains.

    Returns:
        One row a way: Jaccard index, error per axis over the bound of each emitter alone, coverage
        of the intervals, and seconds of the processor a frame.
    """
    scene = learn(simulated, networks, seed)
    pixel = simulated.recipe.frame.pixel_nm
    for number, sight in enumerate(sights(scene, networks, slower, seed)):
        for way in tried:
            if number == 0:
                way.localize(
                    sight, way.number
                )  # what is compiled or cached at first use is no one's
            begin = time.process_time()
            rows = way.localize(sight, way.number)
            way.seconds += time.process_time() - begin
            way.tables.append(
                within(
                    positions(rows, number, pixel, intervals=way.intervals)[
                        rows.p_exists >= LEAST_SHARE
                    ],
                    simulated,
                )
            )
    bound = true_bounds(simulated, joint=False, background_e=background_e)
    return [_measured(way, scene, bound) for way in tried]


def within(table: pd.DataFrame, simulated: Simulated) -> pd.DataFrame:
    """Give the rows of a table that lie in the frame."""
    frame = simulated.recipe.frame
    x, y = table["x_nm"] / frame.pixel_nm, table["y_nm"] / frame.pixel_nm
    inside = x.between(-0.5, frame.width - 0.5) & y.between(-0.5, frame.height - 0.5)
    return table[inside]


def _measured(way: Way, scene: Scene, bound: Array) -> dict[str, float | str]:
    simulated = scene.simulated
    table = pd.concat(way.tables, ignore_index=True)
    inside = np.flatnonzero(simulated.inside)
    mine, theirs = matched(table, simulated.truth.iloc[inside], RADIUS_NM)
    theirs = inside[theirs]
    rows, real = table.iloc[mine], simulated.truth.iloc[theirs]
    error = rows[["x_nm", "y_nm"]].to_numpy(float) - real[["x_nm", "y_nm"]].to_numpy(float)
    detection = Detection(len(inside), len(table), len(mine))
    rmse = root_mean_square(error.ravel())
    out: dict[str, float | str] = {
        "way": way.name,
        "number": way.number,
        "emitters": len(inside),
        "jaccard": detection.jaccard,
        "jaccard_error": math.sqrt(
            detection.jaccard
            * (1 - detection.jaccard)
            / max(len(inside) + len(table) - len(mine), 1)
        ),
        "recall": detection.recall,
        "precision": detection.precision,
        "rmse_nm": rmse,
        "rmse_over_isolated": rmse / root_mean_square(bound[theirs].ravel()),
    }
    for level in (68, 95):
        out[f"held_{level}"] = coordinates_held(rows, real, level) if way.intervals else math.nan
    out["held_95_error"] = math.sqrt(0.05 * 0.95 / max(2 * len(mine), 1))
    out["cpu_s_a_frame"] = way.seconds / simulated.movie.shape[0]
    out["cpu_s_learning"] = scene.seconds
    return out
