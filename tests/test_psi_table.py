"""The scoring of the table of all ways to draw, on draws whose law is known."""

from __future__ import annotations

import importlib.util
import math
import sys

import pytest
import torch

from conftest import ROOT
from sureloc.config.training import load_training_recipe
from sureloc.diffusion.ideal import variance_kept
from sureloc.diffusion.samplers import ancestral
from sureloc.diffusion.schedules import linear_beta
from sureloc.networks.normalization import CHANNELS
from sureloc.networks.posterior import shipped_sampling, tile_images
from sureloc.networks.weights import SplitCard, build_networks
from sureloc.train.recipe import PsiTrainingRecipe
from test_networks import small_networks

TILES, SIDE = 60, 24


@pytest.fixture(scope="module")
def benchmark():
    path = ROOT / "benchmarks/psi_table.py"
    spec = importlib.util.spec_from_file_location("psi_table", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_evaluations_are_those_of_the_network_that_runs(benchmark, torch_rng):
    """Two networks by noise, of which each runs at one of two levels: two evaluations, not four."""
    card = small_networks().card
    split = SplitCard(kind="split", sigma=2.0, noisier=card.psi, quieter=card.psi)
    networks = build_networks(card.model_copy(update={"psi": split}))
    sampling = shipped_sampling(networks, 2, "float32")
    calls = benchmark._Calls(networks)
    channels = torch.randn((1, CHANNELS, 8, 8), generator=torch_rng)
    for wanted in (2, 4):
        tile_images(networks, channels, [torch_rng], sampling)
        assert calls.count == wanted
    calls.stop()
    tile_images(networks, channels, [torch_rng], sampling)
    assert calls.count == wanted


def scored_tiles(benchmark, width=1.0):
    """Score Gaussian truths around phi's estimate, and draws with `width` times their spread.

    The left half of each tile is informative.
    """
    generator = torch.Generator().manual_seed(4)
    parts, variances = [], []
    for _ in range(TILES):
        sd = 0.1 + 0.4 * torch.rand((SIDE, SIDE), generator=generator)
        yhat = torch.zeros((SIDE, SIDE))
        yhat[:, : SIDE // 2] = 0.5
        inside = yhat > 0
        noise = torch.randn((1 + 24, SIDE, SIDE), generator=generator) * sd
        truth = yhat + noise[0]
        draws = yhat + width * noise[1:]
        parts.append(benchmark.score(draws, truth, yhat, generator))
        variances.append(sd.square() * inside)
    kept = benchmark.Scored.of_arrays(benchmark.Scored.of_all(parts).arrays())
    return benchmark.table_row(kept), torch.stack(variances)


@pytest.fixture(scope="module")
def calibrated(benchmark):
    return scored_tiles(benchmark)


def test_draws_of_the_law_of_the_truth_are_found_to_be_calibrated(calibrated):
    row, _ = calibrated
    count = TILES * SIDE * SIDE // 2
    assert (row["tiles"], row["pixels"]) == (TILES, count)
    # 4 standard errors: of a ratio of root mean squares, where variances differ by pixel, and
    # of shares.
    se = 0.5 * (3 / count) ** 0.5
    assert row["spread_skill"] == pytest.approx(1.0, abs=4 * se)
    for i in range(5):
        assert row[f"bin_{i + 1}"] == pytest.approx(1.0, abs=4 * se * 5**0.5)
    assert row["rank_tv"] < 0.03
    for k in (1, 2, 4, 6):
        nominal = (17 - 2 * k) / 17
        held = row[f"held_{100 * nominal:.0f}"]
        assert held == pytest.approx(nominal, abs=4 * (nominal * (1 - nominal) / count) ** 0.5)
    assert row["mass_spread_skill"] == pytest.approx(1.0, abs=4 * (0.5 / TILES) ** 0.5)


def mean_distance(variances):
    """Give E |X - X'| of Gaussian images, to second order in the spread of |X - X'|^2."""
    total, squares = variances.sum((-2, -1)), variances.square().sum((-2, -1))
    return float(((2 * total).sqrt() * (1 - squares / total.square() / 4)).mean())


def test_scores_are_those_of_gaussian_draws(calibrated):
    row, variances = calibrated
    # E |X - y| - E |X - X'| / 2 = sd / sqrt(pi); of vectors half the mean distance of two.
    inside = variances[variances > 0]
    assert row["crps"] == pytest.approx(float(inside.sqrt().mean()) / math.pi**0.5, rel=0.02)
    assert row["energy"] == pytest.approx(mean_distance(variances) / 2, rel=0.02)
    patches = variances.unfold(1, 8, 8).unfold(2, 8, 8)[:, :, :2]
    # 4 standard errors of 360 patches.
    assert row["patches"] == pytest.approx(6 * mean_distance(patches) / 2, rel=0.03)
    mean_square = float(inside.mean())
    assert row["phi_rmse"] == pytest.approx(mean_square**0.5, rel=0.02)
    assert row["rmse"] == pytest.approx((mean_square * 17 / 16) ** 0.5, rel=0.02)
    # Standard errors over tiles: pixels are independent here, so that a tile's sums hardly differ.
    assert 0 < row["spread_skill_se"] < 0.02
    assert 0 < row["crps_se"] < 0.02 * row["crps"]


@pytest.mark.parametrize("width", [0.7, 1.4])
def test_draws_that_are_too_narrow_or_too_wide_are_not(benchmark, calibrated, width):
    row, _ = scored_tiles(benchmark, width)
    wanted = (17 / 16 * width**2 / (1 + width**2 / 16)) ** 0.5
    assert row["spread_skill"] == pytest.approx(wanted, rel=0.03)
    for i in range(5):
        assert row[f"bin_{i + 1}"] == pytest.approx(wanted, rel=0.06)
    assert row["rank_tv"] > 0.08
    off = row["held_76"] - 13 / 17
    assert off < -0.1 if width < 1 else off > 0.05
    assert row["mass_spread_skill"] == pytest.approx(wanted, rel=0.4)
    for name in ("crps", "energy", "patches"):
        assert row[name] > calibrated[0][name]


def test_a_tile_where_phi_expects_nothing_is_not_scored(benchmark, torch_rng):
    images = torch.zeros((25, SIDE, SIDE))
    assert benchmark.score(images[1:], images[0], images[0], torch_rng) is None


@pytest.fixture(scope="module")
def page():
    return (ROOT / "docs/psi_table.md").read_text()


@pytest.fixture(scope="module")
def rows(page):
    """Give the page's numbers, without standard errors, by row and column."""
    table = page[page.index("| row |") :].split("\n\n")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {
        cells[0]: {
            column: float(cell.split()[0])
            for column, cell in zip(lines[0][1:], cells[1:], strict=True)
        }
        for cells in lines[2:]
    }


def test_what_is_missing_in_draws_by_the_right_schedule_is_not_its_samplers(page):
    """Of the variance of modes, with the ideal denoiser; its relative error is .01 (draws)."""
    recipe = load_training_recipe(
        PsiTrainingRecipe, ROOT / "benchmarks/psi_rows/right_schedule.yaml"
    )
    assert recipe.noise.kind == "linear_beta"
    betas = linear_beta(recipe.noise.steps, recipe.noise.first, recipe.noise.last)
    modes = torch.tensor([0.01, 0.03, 0.1, 0.3, 1.0, 3.0], dtype=torch.float64)
    kept = variance_kept(ancestral, betas, modes, torch.Generator().manual_seed(0))
    assert float(kept.min()) == pytest.approx(0.98, abs=0.03)
    assert float(kept.max()) == pytest.approx(1.30, abs=0.04)
    assert "keeps 98 to 130 % of the variance of modes from .01 to 3" in " ".join(page.split())


def _written(value, digits=3):
    return f"{value:.{digits}f}".removeprefix("0")


def test_the_page_has_every_row(benchmark, rows):
    assert list(rows) == [row.name for row in benchmark.ROWS]


def test_the_default_is_calibrated_and_has_the_best_energy_score(rows):
    """By what weights that ship must hold."""
    default = rows["default: residual, 2M, 8"]
    assert default["evaluations"] <= 8
    assert 0.95 <= default["spread_skill"] <= 1.05
    assert all(0.75 <= default[f"bin_{i}"] <= 1.3 for i in range(1, 6))
    assert default["rank_tv"] <= 0.04
    for held, nominal in ((88, 15 / 17), (76, 13 / 17), (53, 9 / 17), (29, 5 / 17)):
        assert default[f"held_{held}"] == pytest.approx(nominal, abs=0.02)
    assert default["energy"] == min(row["energy"] for row in rows.values())
    step = rows["one step"]
    assert 0.92 <= step["spread_skill"] <= 1.08
    assert step["rank_tv"] <= 0.08
    assert step["energy"] <= 1.03 * default["energy"]


def test_the_page_says_which_conditioning_is_worst_calibrated(page, rows):
    alike = (
        "both yhat and x, trained like the rows below",
        "yhat alone",
        "x alone",
        "without phi: image from x",
    )
    told = [(rows[name]["rank_tv"], rows[name]["bin_1"]) for name in alike]
    (x_ranks, x_bin), (phi_ranks, phi_bin) = told[2:]
    assert max(ranks for ranks, _ in told[:2]) < x_ranks < phi_ranks
    assert min(low for _, low in told[:2]) > x_bin > phi_bin
    text = " ".join(page.split())
    assert f"(ranks {_written(x_ranks)} from flat, {_written(x_bin)} in the lowest bin)" in text
    assert f"it is worst ({_written(phi_ranks)}, {_written(phi_bin)})" in text


def test_the_page_says_what_phi_is_worth(page, rows):
    """By number of evaluations, with phi and without."""
    by = {
        name: {n: rows[eight if n == 8 else f"{name}, {n} evaluations"] for n in (2, 4, 6, 8, 16)}
        for name, eight in (
            ("with phi", "both yhat and x, trained like the rows below"),
            ("without phi", "without phi: image from x"),
            ("without phi, as much work", "without phi, as much work"),
        )
    }
    worse = {
        n: by["without phi"][n]["energy"] / by["with phi"][n]["energy"] - 1 for n in (4, 6, 8, 16)
    }
    assert round(100 * min(worse.values())) == 6
    assert round(100 * max(worse.values())) == 7
    text = " ".join(page.split())
    two = by["without phi"][2]["energy"] / by["with phi"][2]["energy"] - 1
    assert f"without phi is 6 to 7 % worse from 4 evaluations on ({100 * two:.0f} % at 2)" in text
    for name in by:
        energies = {n: row["energy"] for n, row in by[name].items()}
        best = min(energies.values())
        assert energies[4] < 1.008 * best
        assert energies[6] < 1.002 * best
        assert energies[2] > 1.2 * best
    energies = {name: {n: row["energy"] for n, row in of.items()} for name, of in by.items()}
    with_phi, without, longer = energies.values()
    assert (
        f"{100 * (longer[8] / with_phi[8] - 1):.1f} % worse ({longer[8]} against {with_phi[8]} "
        "with 8 evaluations)"
    ) in text
    assert f"{without[16]} and, for as much work, {longer[16]}, against {with_phi[4]}" in text
    assert min(without[16], longer[16]) > with_phi[4]
    ranks = {name: {n: row["rank_tv"] for n, row in of.items()} for name, of in by.items()}
    with_phi, without, longer = ranks.values()
    assert (
        f"at 4 evaluations ({_written(with_phi[4])}) as without at 8 ({_written(without[8])}) or "
        f"16 ({_written(without[16])}) or, for as much work, at 6 ({_written(longer[6])}), and "
        f"what 8 reach with it ({_written(with_phi[8])}) as much work does not reach at 16 "
        f"({_written(longer[16])})"
    ) in text
    assert longer[16] > with_phi[8]
