"""The map of drawn pixels, fitted and judged on simulated tiles, and put into weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sureloc.errors import InputError
from sureloc.networks.blocks import unfold
from sureloc.networks.pixel_map import (
    ESTIMATES,
    LEAST_ESTIMATE,
    PixelMap,
    grid_values,
    nearest_estimate,
)
from sureloc.networks.posterior import INFORMATIVE, shipped_sampling
from sureloc.networks.weights import Networks
from sureloc.scoring.calibration import distance_from_uniform, rank_histogram, ranks
from sureloc.scoring.proper import fair_crps
from sureloc.seeds import seed_sequence, torch_generator
from sureloc.train.export import recipe_in_card
from sureloc.train.recipe import PsiTrainingRecipe
from sureloc.train.search import draw_held_out, held_out_tiles

TILES, TILE_PX, DRAWS = 1500, 24, 4
LEAST_TILES = 50
AT_ONCE = 100  # tiles in memory
JUDGED_SHARE, JUDGED_DRAWS = 0.2, 16  # as many tiles again, at least `LEAST_TILES`, are held out
QUANTILES = 400
LEAST_PIXELS = 2000  # of one estimate, for its quantiles to be told
DARK_SHARE = 16  # of so many pixels where phi expects nothing, one is looked at


@dataclass(frozen=True)
class FlatRanks:
    """How flat ranks are on tiles that were held out.

    Attributes:
        rank_distance: total variation of the histogram of ranks from uniform, 0 to 1.
        crps: fair, mean over informative pixels, peaks of one emitter.
    """

    rank_distance: float
    crps: float


def with_pixel_map(networks: Networks, tiles: int = TILES, seed: int = 0) -> Networks:
    """Fit the map of drawn pixels and give the networks with it.

    Args:
        networks: on the CPU, with the recipe of their Psi on the card; a map that they have is
            replaced.
        tiles: simulated under the conditions of Psi's training.
        seed: of tiles and draws.

    Returns:
        The same networks; their card tells of the map, and what it does to ranks and CRPS.

    Raises:
        InputError: there are too few tiles.
        WeightsError: the card does not tell under which conditions Psi was trained.
    """
    if tiles < LEAST_TILES:
        raise InputError(f"tiles is {tiles}; at least {LEAST_TILES} are needed ({TILES} is usual).")
    found = fit_pixel_map(networks, tiles, seed)
    judged = max(LEAST_TILES, round(JUDGED_SHARE * tiles))
    before, after = flat_ranks(networks, found, judged, seed)
    card = networks.card
    made = {"tiles": tiles, "tile_px": TILE_PX, "draws": DRAWS, "seed": seed}
    effect = {
        "rank_distance_without": before.rank_distance,
        "rank_distance": after.rank_distance,
        "crps_without": before.crps,
        "crps": after.crps,
    }
    card = card.model_copy(
        update={
            "draws": card.draws.model_copy(update={"pixel_map": True}),
            "training": card.training | {"pixel_map": made},
            "metrics": card.metrics | {"pixel_map": effect},
        }
    )
    return replace(networks, pixel_map=found, card=card)


def fit_pixel_map(networks: Networks, tiles: int, seed: int) -> PixelMap:
    """Fit the map that gives drawn pixels the law of the true ones, by phi's estimate.

    Args:
        networks, tiles, seed: see `with_pixel_map`.
    """
    places, drawn, true = [], [], []
    thinning = torch_generator(seed, "thinning")
    for truth, estimate, draws in _unmapped(networks, "pixel map", tiles, DRAWS, seed):
        lit = estimate >= LEAST_ESTIMATE
        kept = lit | (torch.rand(lit.shape, generator=thinning) < 1.0 / DARK_SHARE)
        places.append(nearest_estimate(estimate[kept]))
        drawn.append(draws[:, kept])
        true.append(truth[kept])
    return map_of(torch.cat(places), torch.cat(drawn, 1), torch.cat(true))


def map_of(
    place: Int[Tensor, " pixels"],
    draws: Float[Tensor, "draws pixels"],
    truth: Float[Tensor, " pixels"],
) -> PixelMap:
    """Give the increasing map from the law of draws to that of the truth, place by place.

    Args:
        place: number of the kept estimate of each pixel (`nearest_estimate`); one with fewer than
            `LEAST_PIXELS` pixels gets the map of the nearest that has more.
        draws, truth: values, peaks of one emitter.
    """
    shares = (np.arange(QUANTILES) + 0.5) / QUANTILES
    wanted = grid_values().numpy()
    found = PixelMap()
    told = []
    for number in range(ESTIMATES):
        here = place == number
        if int(here.sum()) < LEAST_PIXELS:
            continue
        of_draws = np.quantile(draws[:, here].numpy(), shares)
        of_truth = np.quantile(truth[here].numpy(), shares)
        shift = np.interp(wanted, of_draws, of_truth - of_draws)
        found.shift[number] = torch.from_numpy(shift)
        told.append(number)
    for number in range(ESTIMATES):
        if told and number not in told:
            nearest = told[int(np.argmin(np.abs(np.array(told) - number)))]
            found.shift[number] = found.shift[nearest]
    return found


def flat_ranks(
    networks: Networks, pixel_map: PixelMap, tiles: int, seed: int
) -> tuple[FlatRanks, FlatRanks]:
    """Judge draws on informative pixels of tiles that no fit has seen, without a map and with it.

    Args:
        networks, seed: see `with_pixel_map`.
        pixel_map: to be judged.
        tiles: how many.
    """
    parts: tuple[list[_Pixels], list[_Pixels]] = ([], [])
    for truth, estimate, draws in _unmapped(networks, "judged", tiles, JUDGED_DRAWS, seed):
        where = estimate > INFORMATIVE
        mapped = torch.stack([pixel_map(image, estimate) for image in draws])
        for kept, images in zip(parts, (draws, mapped), strict=True):
            kept.append(_Pixels(images[:, where], truth[where]))
    return _judged(parts[0], seed), _judged(parts[1], seed)


class _Pixels(NamedTuple):
    draws: Float[Tensor, "draws pixels"]
    truth: Float[Tensor, " pixels"]


def _judged(parts: Sequence[_Pixels], seed: int) -> FlatRanks:
    draws, truth = torch.cat([p.draws for p in parts], 1), torch.cat([p.truth for p in parts])
    rank = ranks(draws, truth, torch_generator(seed, "ties"))
    return FlatRanks(
        distance_from_uniform(rank_histogram(rank, len(draws))),
        float(fair_crps(draws, truth).double().mean()),
    )


def _unmapped(
    networks: Networks, purpose: str, tiles: int, draws: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Draw simulated tiles, some at a time, and leave the draws as the network gives them.

    Yields:
        Truth and phi's estimate, (tiles, fine rows, fine columns), and draws, (draws, tiles, fine
        rows, fine columns), in peaks of one emitter.
    """
    conditions = recipe_in_card(networks.card, "psi", PsiTrainingRecipe).conditions.conditions()
    plain, sampling = replace(networks, pixel_map=None), shipped_sampling(networks)
    for first in range(0, tiles, AT_ONCE):
        number = min(AT_ONCE, tiles - first)
        own = int(seed_sequence(seed, purpose, first).generate_state(1)[0])
        held_out = held_out_tiles(plain, conditions, number, TILE_PX, own)
        images = draw_held_out(plain, held_out.seen, sampling, draws, own)
        yield held_out.truth, unfold(held_out.seen.estimate)[:, 0], images
