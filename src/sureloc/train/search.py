"""Which noise levels to draw by: one trained network, many schedules (seed 5.1).

The seed chooses the schedule of at most 100 steps by FID. Here each schedule is scored twice on
held-out tiles: by a Frechet distance, as the seed does by FID on Inception's features, here on
phi's (phi-FD) or on those of a network that the user has; and by the fair energy score, which sees
each draw beside its own truth, among the schedules whose spread matches their errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from sureloc.diffusion import samplers
from sureloc.errors import InputError, WeightsError
from sureloc.networks.blocks import unfold
from sureloc.networks.image_features import phi_features
from sureloc.networks.posterior import INFORMATIVE, Sampling, SeenTiles, draw_images, see_tiles
from sureloc.networks.weights import (
    CosineLevels,
    KarrasLevels,
    LevelsCard,
    LinearBetaLevels,
    ListLevels,
    LogSnrLevels,
    Networks,
)
from sureloc.physics.kde import peak_of_one
from sureloc.scoring.calibration import spread_of, spread_skill
from sureloc.scoring.frechet import frechet_distance
from sureloc.scoring.proper import fair_energy_score
from sureloc.seeds import torch_generator
from sureloc.simulate.tiles import TileConditions, simulate_tiles, tile_input

MOST_EVALUATIONS = 100  # the seed's budget for a draw
CALIBRATED = (0.95, 1.05)
STEPS = (2, 4, 8, 16, 32, 100)
_KARRAS = [(low, high, rho) for low in (0.03, 0.3) for high in (20.0, 80.0) for rho in (3.0, 7.0)]
_MOST_NAMED = 12  # levels of a list that a name of it tells one by one
_RIGHT_LAST_BETA = 0.2075  # 100 linear steps that end 1e-5 bits from noise: schedules.last_beta_for
PHI = "phi"  # name of the features that the frozen phi has


@dataclass(frozen=True)
class Features:
    """What a Frechet distance looks at.

    Attributes:
        name: whose features they are, for people and tables.
        of: gives a vector on the CPU for each of some images in phi's unit.
    """

    name: str
    of: Callable[[Float[Tensor, "items height width"]], Float[Tensor, "items features"]]


@dataclass(frozen=True)
class Candidate:
    """A schedule to draw by.

    Attributes:
        levels: its family and numbers.
        steps: how many levels.
    """

    levels: LevelsCard
    steps: int

    def __str__(self) -> str:
        return f"{family(self.levels)}, {self.steps} steps"


@dataclass(frozen=True)
class Scored:
    """A schedule and what its draws are worth; images are in phi's unit.

    Attributes:
        candidate: the schedule.
        evaluations: of Psi for one draw.
        distance: Frechet distance of one draw a tile from the truths, on features; smaller is
            better.
        energy: fair energy score on informative pixels, mean over tiles; smaller is better.
        energy_se: its standard error over tiles. The tiles and the noise are the same for every
            schedule, so that differences between schedules are known better than that.
        spread_skill: 1 if spread matches error, below 1 overconfident.
        features: whose features the distance looks at (`Features.name`).
    """

    candidate: Candidate
    evaluations: int
    distance: float
    energy: float
    energy_se: float
    spread_skill: float
    features: str = PHI

    @property
    def column(self) -> str:
        """What tables call the distance."""
        return "phi_fd" if self.features == PHI else "frechet"

    @property
    def distance_name(self) -> str:
        """What people call it: only one on Inception's features is an FID."""
        return "phi-FD" if self.features == PHI else f"Frechet distance on {self.features}"

    @property
    def numbers(self) -> dict[str, float]:
        """Steps and scores by name, for tables."""
        return {
            "steps": self.candidate.steps,
            "evaluations": self.evaluations,
            self.column: self.distance,
            **{name: getattr(self, name) for name in ("energy", "energy_se", "spread_skill")},
        }

    def __str__(self) -> str:
        return (
            f"{self.candidate}: {self.distance_name} {self.distance:.4g}, energy score "
            f"{self.energy:.4g} (standard error {self.energy_se:.2g}), spread-skill "
            f"{self.spread_skill:.3f}"
        )


@dataclass(frozen=True)
class HeldOut:
    """Tiles that no network was trained on: what Psi sees of them, and their true images."""

    seen: SeenTiles
    truth: Float[Tensor, "tiles fine_height fine_width"]


def family(levels: LevelsCard) -> str:
    """Give the name of a schedule without its number of steps."""
    if isinstance(levels, KarrasLevels):
        return f"karras {levels.sigma_max:g} to {levels.sigma_min:g}, rho {levels.rho:g}"
    if isinstance(levels, LinearBetaLevels):
        return f"linear beta {levels.first:g} to {levels.last:g}"
    if isinstance(levels, LogSnrLevels):
        return f"log-SNR {levels.sigma_max:g} to {levels.sigma_min:g}"
    if isinstance(levels, ListLevels):
        return _list_family(levels.sigmas)
    return "cosine"


def _list_family(sigmas: Sequence[float]) -> str:
    if len(sigmas) > _MOST_NAMED:
        return f"list {sigmas[0]:g} to {sigmas[-1]:g}, {len(sigmas)} levels"
    return f"list {' '.join(f'{sigma:.3g}' for sigma in sigmas)}"


def candidates(
    networks: Networks, steps: Sequence[int] = STEPS, also: Sequence[LevelsCard] = ()
) -> tuple[Candidate, ...]:
    """Give the schedules to try: that of the card, and several of every family.

    A list of levels is tried at its own length too, where nothing is interpolated.

    Args:
        networks: the weights, whose sampler may run the network twice a level.
        steps: numbers of levels, 2 or more each; those beyond 100 evaluations are left out.
        also: further levels to try.

    Raises:
        InputError: all of them are beyond.
        WeightsError: the weights draw in one evaluation, where no schedule is left to choose.
    """
    card = networks.card
    if card.draws.target == "clean" and card.draws.evaluations == 1:
        raise WeightsError(
            f"The weights {card.name} draw in one evaluation at one noise level, so that there is "
            "no schedule to search. Give weights that draw in several steps, such as default."
        )
    families: tuple[LevelsCard, ...] = (
        card.levels,
        *also,
        *(KarrasLevels(kind="karras", sigma_min=a, sigma_max=b, rho=c) for a, b, c in _KARRAS),
        CosineLevels(kind="cosine"),
        LinearBetaLevels(kind="linear_beta"),
        LinearBetaLevels(kind="linear_beta", last=_RIGHT_LAST_BETA),
    )
    sampler = getattr(samplers, card.draws.sampler)

    def affordable(numbers: Sequence[int]) -> list[int]:
        return [n for n in numbers if samplers.evaluations(sampler, n) <= MOST_EVALUATIONS]

    if not affordable(steps):
        raise InputError(
            f"steps is {list(steps)}; with the sampler {card.draws.sampler} none of these keeps to "
            f"{MOST_EVALUATIONS} evaluations. Give smaller numbers."
        )
    return tuple(
        Candidate(levels, n)
        for levels in dict.fromkeys(families)
        for n in affordable(list(dict.fromkeys((*steps, *_own_length(levels)))))
    )


def _own_length(levels: LevelsCard) -> tuple[int, ...]:
    return (len(levels.sigmas),) if isinstance(levels, ListLevels) else ()


def held_out_tiles(
    networks: Networks, conditions: TileConditions, tiles: int, side_px: int, seed: int
) -> HeldOut:
    """Simulate tiles and run once what every schedule shares.

    Args:
        networks: the weights; tiles live where they do.
        conditions: what tiles look like.
        tiles: how many.
        side_px: rows and columns of each.
        seed: the same seed gives the same tiles.
    """
    kernel = networks.card.kernel_sigma_fine_px
    parts, truths = [], []
    for first in range(0, tiles, 16):
        shape = (min(16, tiles - first), side_px, side_px)
        generator = torch_generator(seed, "held out", first, device=networks.device)
        batch = simulate_tiles(conditions, shape, generator, kernel)
        parts.append(see_tiles(networks, tile_input(batch)))
        truths.append(batch.kde / peak_of_one(kernel))
    seen = SeenTiles(
        *(torch.cat([getattr(part, name) for part in parts]) for name in SeenTiles.__annotations__)
    )
    return HeldOut(seen, torch.cat(truths))


def search(
    networks: Networks,
    held_out: HeldOut,
    schedules: Sequence[Candidate],
    draws: int = 4,
    seed: int = 0,
    features: Features | None = None,
) -> Iterator[Scored]:
    """Score schedules one after the other, all on the same tiles and the same noise.

    Args:
        networks: one trained network, drawn from by the sampler that its card names.
        held_out: the tiles.
        schedules: what to try.
        draws: draws of each tile, two or more.
        seed: names the noise.
        features: what the Frechet distance looks at, by default phi's (then it is a phi-FD);
            `sureloc.io.feature_network` reads those of other networks.

    Yields:
        The scores of each schedule in turn.
    """
    kernel = networks.card.kernel_sigma_fine_px
    features = features or Features(
        PHI, partial(phi_features, networks.phi, kernel_sigma_fine_px=kernel)
    )
    wanted = features.of(held_out.truth)
    sampler = getattr(samplers, networks.card.draws.sampler)
    yhat = unfold(held_out.seen.estimate)[:, 0]
    for candidate in schedules:
        sampling = Sampling(candidate.levels.levels(candidate.steps), sampler)
        images = draw_held_out(networks, held_out.seen, sampling, draws, seed)
        energy, error, ratio = scores_of(images, held_out.truth, yhat)
        distance = frechet_distance(features.of(images[0]), wanted)
        evaluations = samplers.evaluations(sampler, candidate.steps)
        yield Scored(candidate, evaluations, distance, energy, error, ratio, features.name)


def scores_of(
    draws: Float[Tensor, "draws tiles height width"],
    truth: Float[Tensor, "tiles height width"],
    yhat: Float[Tensor, "tiles height width"],
) -> tuple[float, float, float]:
    """Score draws on informative pixels, chosen by phi's estimate alone.

    Returns:
        Mean fair energy score over the tiles that have such pixels, its standard error, and
        spread-skill; NaN where there are too few tiles.
    """
    where = yhat > INFORMATIVE
    some = where.flatten(1).any(1)
    energy = fair_energy_score(
        (draws * where).flatten(2)[:, some], (truth * where).flatten(1)[some]
    )
    ratio = spread_skill(spread_of(draws[:, where], truth[where]))
    return float(energy.mean()), float(energy.std() / len(energy) ** 0.5), ratio


def chosen_by_distance(scored: Sequence[Scored]) -> Scored:
    """Choose as the seed does by FID: the smallest distance, of equals the fewest evaluations."""
    return min(scored, key=lambda one: (one.distance, one.evaluations))


def is_calibrated(scored: Scored) -> bool:
    """Tell whether a schedule's draws spread as far as they err, within a twentieth."""
    return CALIBRATED[0] <= scored.spread_skill <= CALIBRATED[1]


def chosen_by_energy(scored: Sequence[Scored]) -> Scored | None:
    """Choose the best energy score among calibrated schedules; None if there is none."""
    honest = [one for one in scored if is_calibrated(one)]
    return min(honest, key=lambda one: (one.energy, one.evaluations), default=None)


def draw_held_out(
    networks: Networks, seen: SeenTiles, sampling: Sampling, draws: int, seed: int
) -> Float[Tensor, "draws tiles fine_height fine_width"]:
    """Draw images of held-out tiles, in phi's unit; the seed names the noise of each tile."""
    tiles = len(seen.estimate)
    images = []
    for k in range(draws):
        parts = []
        for first in range(0, tiles, seen.at_once):
            last = min(first + seen.at_once, tiles)
            generators = [torch_generator(seed, "draw", i, k) for i in range(first, last)]
            parts.append(draw_images(networks, seen.part(first, last), generators, sampling))
        images.append(torch.cat(parts))
    return torch.stack(images)
