"""Is what the draws of the networks say of each pixel's error true? (seed 4.2)"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import KDTree

from sureloc.networks.posterior import INFORMATIVE, shipped_sampling, tile_images
from sureloc.networks.weights import Networks
from sureloc.physics.kde import camera_px, peak_of_one
from sureloc.scoring.proper import fair_crps
from sureloc.seeds import torch_generator
from sureloc.simulate.tiles import TileBatch, TileConditions, simulate_tiles, tile_input

Array = npt.NDArray[np.float64]

DRAWS = 16
SIDE_PX = 20
SD_EDGES = (0.0, 0.02, 0.04, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, math.inf)  # peaks
NEIGHBOUR_EDGES_PX = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, math.inf)
AROUND_PX = 1.0  # pixels nearer to an emitter than this are its own
SUMS = ("pixels", "variance", "squared", "crps", "phi_squared")


def tile_errors(
    networks: Networks, conditions: TileConditions, tiles: int, seed: int
) -> Iterator[dict[str, Array]]:
    """Draw images of tiles that no network was trained on, and compare them with the truth.

    Args:
        networks: trained networks.
        conditions: what tiles look like.
        tiles: how many, of 20 x 20 px.
        seed: of tiles and draws.

    Yields:
        For each tile with any, its informative pixels (where phi expects a twentieth of an
        emitter's peak): `variance` of 16 draws, `squared` error of their mean, `crps` and
        `phi_squared`, the squared error of phi's estimate, all in units of one emitter's peak;
        `told`, the sd of 8 further draws; and `neighbour_px`, how far the emitter to which a
        pixel belongs is from its nearest neighbour (NaN: none within a pixel).
    """
    kernel = networks.card.kernel_sigma_fine_px
    sampling = shipped_sampling(networks)
    for tile in range(tiles):
        shape = (1, SIDE_PX, SIDE_PX)
        batch = simulate_tiles(conditions, shape, torch_generator(seed, "tile", tile), kernel)
        names = [torch_generator(seed, "draw", tile, k) for k in range(DRAWS + DRAWS // 2)]
        channels = tile_input(batch)
        where = tile_images(networks, channels, [], sampling)[0] > INFORMATIVE
        if not bool(where.any()):
            continue
        yhat, drawn = tile_images(networks, channels, names, sampling)
        truth = (batch.kde[0] / peak_of_one(kernel))[where]
        inside, others = drawn[:DRAWS, where], drawn[DRAWS:, where]
        yield {
            name: values.double().numpy()
            for name, values in {
                "variance": inside.var(0),
                "squared": (inside.mean(0) - truth).square(),
                "crps": fair_crps(inside, truth),
                "phi_squared": (yhat[where] - truth).square(),
                "told": others.std(0),
            }.items()
        } | {"neighbour_px": neighbour_of_pixels(batch, where.numpy())}


def neighbour_of_pixels(batch: TileBatch, where: npt.NDArray[np.bool_]) -> Array:
    """Give how crowded the emitter is to which each fine pixel belongs.

    Args:
        batch: one tile.
        where: the fine pixels asked for, (4 rows, 4 columns).

    Returns:
        Distance of the nearest emitter's own nearest neighbour, px, one for each pixel asked for,
        row by row: infinite where it is alone, NaN where no emitter is within `AROUND_PX`.
    """
    places = np.stack([batch.x_px.numpy(), batch.y_px.numpy()], axis=1).astype(float)
    rows, columns = np.nonzero(where)
    fine = camera_px(torch.from_numpy(np.stack([columns, rows], axis=1))).numpy()
    if len(places) == 0:
        return np.full(len(fine), np.nan)
    apart = np.full(len(places), np.inf)
    if len(places) > 1:
        apart = KDTree(places).query(places, k=2)[0][:, 1]
    far, nearest = KDTree(places).query(fine)
    return np.where(far <= AROUND_PX, apart[nearest], np.nan)


def summed(parts: list[dict[str, Array]], by: str, edges: tuple[float, ...]) -> list[Array]:
    """Sum errors of pixels over classes.

    Args:
        parts: of tiles, as `tile_errors` gives them.
        by: the quantity that divides pixels into classes.
        edges: of the classes, increasing; a value belongs to the class that begins at it.

    Returns:
        For each class its `SUMS`; pixels without a value are in none.
    """
    value = np.concatenate([part[by] for part in parts])
    columns = [np.ones_like(value)]
    columns += [np.concatenate([part[name] for part in parts]) for name in SUMS[1:]]
    table = np.stack(columns, axis=1)
    table, value = table[~np.isnan(value)], value[~np.isnan(value)]
    which = np.digitize(value, edges[1:-1])
    return [table[which == k].sum(0) for k in range(len(edges) - 1)]


def ratios(sums: Array) -> dict[str, float]:
    """Give what sums over pixels amount to.

    Returns:
        `pixels`; `rms_sd` and `rms_error` of the mean of the draws; `spread_skill`, sqrt((M + 1) /
        M) times their ratio, 1 where draws are right; `crps`; `phi_rms_error`. NaN without pixels.
    """
    of = dict(zip(SUMS, np.asarray(sums, float), strict=True))
    pixels = of["pixels"] or math.nan
    sd, error = math.sqrt(of["variance"] / pixels), math.sqrt(of["squared"] / pixels)
    return {
        "pixels": of["pixels"],
        "rms_sd": sd,
        "rms_error": error,
        "spread_skill": math.sqrt((DRAWS + 1) / DRAWS) * sd / error if error > 0 else math.nan,
        "crps": of["crps"] / pixels,
        "phi_rms_error": math.sqrt(of["phi_squared"] / pixels),
    }
