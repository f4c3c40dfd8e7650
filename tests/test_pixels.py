"""Errors of pixels by class: sums that add up, neighbours that are the right ones."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from sureloc.evaluate.pixels import (
    DRAWS,
    SUMS,
    neighbour_of_pixels,
    ratios,
    summed,
    tile_errors,
)
from sureloc.networks.weights import load_weights
from sureloc.report.reproduction_pixels import PIXELS
from sureloc.simulate.tiles import TileConditions


def made(pixels, spread, error, seed=0):
    """Pixels whose draws have one sd and whose mean errs by another."""
    rng = np.random.default_rng(seed)
    told = rng.uniform(0.1, 0.4, pixels)
    return {
        "told": told,
        "variance": (spread * told) ** 2,
        "squared": (error * told * rng.normal(size=pixels)) ** 2,
        "crps": np.full(pixels, 0.1),
        "phi_squared": np.full(pixels, 0.04),
        "neighbour_px": np.where(rng.uniform(size=pixels) < 0.5, np.nan, 2.0),
    }


def test_spread_skill_of_classes_is_that_of_what_was_made():
    # The mean of M draws errs by sqrt(1 + 1 / M) of the spread where all is right.
    right = made(40_000, 1.0, math.sqrt(1 + 1 / DRAWS))
    for sums in summed([right], "told", (0.0, 0.2, 0.3, math.inf)):
        found = ratios(sums)
        assert found["pixels"] > 5000
        # Four standard errors of a root mean square of 5,000 normal values.
        assert found["spread_skill"] == pytest.approx(1.0, abs=0.04)
        assert found["crps"] == pytest.approx(0.1)
        assert found["phi_rms_error"] == pytest.approx(0.2)
    overconfident = made(40_000, 0.5, math.sqrt(1 + 1 / DRAWS))
    (sums,) = summed([overconfident], "told", (0.0, math.inf))
    assert ratios(sums)["spread_skill"] == pytest.approx(0.5, abs=0.02)
    assert np.isnan(ratios(np.zeros(len(SUMS)))["spread_skill"])


def test_every_pixel_with_a_value_is_in_one_class():
    parts = [made(1000, 1.0, 1.0, seed) for seed in range(3)]
    classes = summed(parts, "neighbour_px", (0.0, 1.0, 2.0, 3.0))
    known = sum(int((~np.isnan(part["neighbour_px"])).sum()) for part in parts)
    assert [int(sums[0]) for sums in classes] == [0, 0, known]


def test_a_pixel_is_as_crowded_as_its_emitter():
    batch = SimpleNamespace(
        x_px=torch.tensor([3.0, 4.5, 15.0]), y_px=torch.tensor([3.0, 3.0, 15.0])
    )
    where = np.zeros((80, 80), bool)
    # Fine pixels under the first emitter, beside the third, and far from all.
    where[[13, 62, 40], [13, 64, 40]] = True
    found = neighbour_of_pixels(batch, where)
    # Rows from the top: the first emitter's, the far one, the third emitter's.
    assert found[0] == pytest.approx(1.5)
    assert np.isnan(found[1])
    assert found[2] == pytest.approx(math.hypot(10.5, 12.0))
    alone = SimpleNamespace(x_px=torch.tensor([3.0]), y_px=torch.tensor([3.0]))
    assert neighbour_of_pixels(alone, where)[0] == math.inf
    nobody = SimpleNamespace(x_px=torch.empty(0), y_px=torch.empty(0))
    assert np.isnan(neighbour_of_pixels(nobody, where)).all()


def test_draws_of_the_shipped_weights_know_their_error():
    conditions = TileConditions(mean_photons=(800.0, 800.0), empty_share=0.0)
    parts = list(tile_errors(load_weights("fast"), conditions, 6, 5))
    (sums,) = summed(parts, "told", (0.0, math.inf))
    found = ratios(sums)
    assert found["pixels"] > 1000
    # 6 tiles differ; over 2,000 tiles it is 1.00 (docs/psi_table.md).
    assert 0.6 < found["spread_skill"] < 1.6
    assert found["rms_error"] < 1.3 * found["phi_rms_error"]


def test_cells_are_joined_class_by_class():
    sums = {f"sum {name}": 4.0 for name in SUMS}
    rows = [
        {"draws of": "fast", "photons": n, "density": 1.0, "class": c, "from": 0.0, "to": 1.0}
        | sums
        | {"commit": "c"}
        for n in (100.0, 250.0)
        for c in ("sd", "neighbour", "all")
    ]
    table = PIXELS.conclude(pd.DataFrame(rows))
    pixels = table.set_index("by")["pixels"]
    assert pixels["predicted sd"] == 8
    assert pixels["all"] == 8
    assert list(pixels["photons"]) == [4, 4]
