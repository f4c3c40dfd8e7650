"""Other ways of being uncertain: their likelihoods, spreads and shares of training, and scores."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from sureloc.config.recipes import load_recipe
from sureloc.config.training import load_training_recipe
from sureloc.evaluate.configurations import agreed, gaussian_rows, refined
from sureloc.evaluate.links import Sight
from sureloc.evaluate.rivals import (
    Rival,
    _imaged,
    _localized,
    drawn_sets,
    kernel_images,
    of_images,
    predicted,
)
from sureloc.evaluate.trials import simulate, true_bounds
from sureloc.networks.dropout import DropoutPhi
from sureloc.networks.mixture import (
    EmitterMixture,
    found_emitters,
    log_likelihood,
    mixture_of,
)
from sureloc.networks.phi import Phi
from sureloc.networks.weights import load_weights
from sureloc.physics.image import render_tiles
from sureloc.physics.priors import PhotonPrior, ScenePrior
from sureloc.physics.psf import GaussianPSF
from sureloc.physics.referee import FrameData
from sureloc.report.reproduction_rivals import with_training_cost
from sureloc.scoring.proper import gaussian_crps
from sureloc.simulate.tiles import tile_input
from sureloc.train.mixture import MixtureTraining
from sureloc.train.phi import PhiTraining
from sureloc.train.recipe import (
    MixtureTrainingRecipe,
    PhiTrainingRecipe,
    PsiTrainingRecipe,
)
from sureloc.train.rivals import MEMBERS, RivalRecipes, train_rival

PRIOR = ScenePrior(0.02, PhotonPrior.log_normal(800.0, 0.25), 0.5, 0.1)
TINY = {
    "batch": {"tiles": 2, "tile_px": 8},
    "optimizer": {"steps": 20, "warmup_steps": 2},
    "validation": {"every_steps": 2, "tiles": 2, "tile_px": 8, "draws": 2, "evaluations": 2},
}
SMALL = {"kind": "fast", "width": 8, "dilations": [1]}


def random_mixture(rng, tiles=3, rows=4, columns=5) -> EmitterMixture:
    raw = torch.randn((tiles, 7, rows, columns), generator=rng, dtype=torch.float64)
    return mixture_of(raw)


def _count(p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return p.sum(), (p * (1 - p)).sum().sqrt()


# --- The mixture of emitters ----------------------------------------------------------------------


def test_the_likelihood_is_that_of_the_mixture_and_of_the_count(torch_rng):
    mixture = random_mixture(torch_rng)
    tile = torch.tensor([0, 0, 2, 0, 2])
    emitters = torch.rand((5, 3), generator=torch_rng, dtype=torch.float64) * 3
    found = log_likelihood(mixture, emitters, tile)
    empty = Normal(*_count(mixture.probability[1])).log_prob(torch.zeros(1, dtype=torch.float64))
    assert found[1].item() == pytest.approx(empty.item(), rel=1e-9)
    for one in (0, 2):
        p = mixture.probability[one].flatten()
        parts = Independent(Normal(mixture.mean[one].flatten(1).T, mixture.sd[one].flatten(1).T), 1)
        whole = MixtureSameFamily(Categorical(p / p.sum()), parts)
        inside = emitters[tile == one]
        many = torch.tensor(float(len(inside)), dtype=torch.float64)
        number = Normal(*_count(p)).log_prob(many)
        wanted = number + whole.log_prob(inside).sum()
        assert found[one].item() == pytest.approx(wanted.item(), rel=1e-9)


def test_the_count_has_the_moments_of_independent_pixels(torch_rng):
    p = random_mixture(torch_rng, tiles=1).probability[0].flatten()
    counts = (torch.rand((20_000, len(p)), generator=torch_rng, dtype=p.dtype) < p).sum(1).double()
    variance = (p * (1 - p)).sum().item()
    # Four standard errors.
    assert counts.mean().item() == pytest.approx(p.sum().item(), abs=4 * (variance / 2e4) ** 0.5)
    assert counts.var().item() == pytest.approx(variance, rel=4 * (2 / 2e4) ** 0.5)


def test_no_other_mixture_explains_samples_of_one_better_than_itself(torch_rng):
    raw = torch.randn((1, 7, 4, 5), generator=torch_rng, dtype=torch.float64)
    mixture = mixture_of(raw)
    p, mean, sd = (
        values.flatten(-2)[0] for values in (mixture.probability, mixture.mean, mixture.sd)
    )
    tiles = 4000
    tile, pixel = (torch.rand((tiles, len(p)), generator=torch_rng) < p).nonzero().T
    noise = torch.randn((len(pixel), 3), generator=torch_rng, dtype=torch.float64)
    emitters = mean.T[pixel] + sd.T[pixel] * noise

    def surprise(changed: torch.Tensor) -> float:
        each = log_likelihood(mixture_of(changed.expand(tiles, -1, -1, -1)), emitters, tile)
        return -each.mean().item()

    best = surprise(raw)
    for channel in range(7):
        for change in (-0.5, 0.5):
            other = raw.clone()
            other[:, channel] += change
            assert surprise(other) > best


def test_emitters_on_the_border_of_pixels_are_one_and_sure_neighbours_two():
    p = torch.full((1, 5, 9), 0.01)
    p[0, 2, 1], p[0, 2, 2] = 0.55, 0.45  # one between two pixels
    p[0, 2, 5], p[0, 2, 6] = 0.95, 0.9  # two
    p[0, 0, 8] = 0.15  # next to nothing
    columns = torch.arange(9.0).expand(5, 9)
    rows = torch.arange(5.0)[:, None].expand(5, 9)
    mean = torch.stack([columns, rows, torch.full((5, 9), 0.8)])[None]
    found = found_emitters(EmitterMixture(p, mean, torch.full_like(mean, 0.1)), 0.5)
    assert found.mean[:, :2].tolist() == [[1.0, 2.0], [5.0, 2.0], [6.0, 2.0]]
    assert found.mean[:, 2].tolist() == pytest.approx([800.0] * 3)
    assert found.sd[0].tolist() == pytest.approx([0.1, 0.1, 100.0])
    # 0.55 + 0.45 and the three other pixels beside it; 0.95 and three; a sure one on its own.
    assert found.probability.tolist() == pytest.approx([1.0, 0.98, 0.9])


def test_a_mixture_learns_and_its_steps_come_from_their_generator():
    bright = {"mean_photons": [800, 1000], "photons": [500, 1500], "background_e": [0.01, 0.1]}
    steady = {"sigma_px": [1.0, 1.0], "read_noise_e": [1.0, 2.0], "multiplied_share": 0.0}
    recipe = MixtureTrainingRecipe(
        network={"kind": "fast", "width": 16, "dilations": [1]},
        conditions=bright | steady | {"empty_share": 0.0, "blinking_share": 0.0},
        **(TINY | {"batch": {"tiles": 8, "tile_px": 12}}),
    )
    training = MixtureTraining(recipe)
    once, again = (training.loss(training.generator("train", 3)).item() for _ in range(2))
    assert once == again
    adam = torch.optim.Adam(training.network.parameters(), lr=0.005)
    held_out = training.tiles(training.generator("validate"), 32, 12)
    with torch.no_grad():
        before = training._surprise(training.network, held_out).item()
    for step in range(60):
        adam.zero_grad()
        training.loss(training.generator("train", step)).backward()
        adam.step()
    with torch.no_grad():
        raw = training.network(tile_input(held_out))
        after = training._surprise(training.network, held_out).item()
    assert after < before - 2.0  # measured: from 6.8 to 2.2
    # As many emitters as there are (measured: 102 of about 107), and where they are.
    p = mixture_of(raw).probability
    places = torch.stack([held_out.x_px, held_out.y_px], dim=1).round().long()
    inside = ((places >= 0) & (places < 12)).all(1)
    assert p.sum().item() == pytest.approx(int(inside.sum()), rel=0.25)
    x, y = places[inside].T
    assert p[held_out.tile[inside], y, x].mean() > 3 * p.mean()


# --- Dropout and ensembles ------------------------------------------------------------------------


def test_dropout_scatters_as_independent_features_do(torch_rng):
    phi = DropoutPhi(width=16, dilations=(), dropout=0.3)
    plain = Phi(width=16, dilations=())
    torch.nn.init.normal_(phi.head.weight, std=0.3, generator=torch_rng)
    plain.load_state_dict(phi.state_dict())
    frames = torch.randn((1, 6, 5, 5), generator=torch_rng)
    torch.testing.assert_close(phi(frames), plain(frames))
    # A block that adds nothing, before a SiLU that is linear far from 0: the output is linear in
    # the features, each kept with .7 and then 1 / .7 times as large.
    phi.blocks.append(torch.nn.Identity())
    torch.nn.init.constant_(phi.stem.bias, 60.0)
    with torch.no_grad():
        features = phi.stem(frames)
        wanted = phi(frames)[0, 0]
        draws = torch.cat([phi.drawn(frames, torch_rng)[:, 0] for _ in range(1500)])
        squared = torch.nn.functional.conv2d(features**2, phi.head.weight**2, padding=1)
        variance = torch.nn.functional.pixel_shuffle(0.3 / 0.7 * squared, 4)[0, 0]
    assert ((draws.mean(0) - wanted).abs() < 5 * (variance / 1500) ** 0.5).all()
    # A variance of 1,500 draws scatters by 3.7 %, the mean of 400 dependent ones by less.
    assert (draws.var(0) / variance).mean().item() == pytest.approx(1.0, abs=0.05)
    one, same = (phi.drawn(frames, torch.Generator().manual_seed(k)) for k in (4, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, phi.drawn(frames, torch.Generator().manual_seed(5)))


def test_a_phi_trains_with_dropout_and_is_judged_without(torch_rng):
    network = {"kind": "dropout", "width": 8, "dilations": [1], "dropout": 0.5}
    dropped = PhiTraining(PhiTrainingRecipe(kind="phi", network=network, **TINY))
    plain = PhiTraining(PhiTrainingRecipe(kind="phi", network=SMALL, **TINY))
    torch.nn.init.normal_(plain.network.head.weight, std=0.1, generator=torch_rng)
    dropped.network.load_state_dict(plain.network.state_dict())
    losses = [t.loss(t.generator("train", 1)).item() for t in (dropped, dropped, plain)]
    assert losses[0] == losses[1] != losses[2]
    for training in (dropped, plain):
        training.average.load_state_dict(plain.network.state_dict())
    scores = [t.judge(t.generator("validate"))["score"] for t in (dropped, plain)]
    assert scores[0] == scores[1]


def test_intervals_of_few_members_hold_one_more_as_often_as_they_say():
    rng = np.random.default_rng(0)
    places = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), -1).reshape(-1, 2) * 8.0
    sigma, members = 0.12, 5

    def member() -> np.ndarray:
        moved = places + rng.normal(0, sigma, places.shape)
        return np.column_stack([moved, np.full(len(places), 800.0)])

    rows = predicted(
        agreed([member() for _ in range(members)], 1.5, 0.5, independent=True), members
    )
    assert rows.x_px.size == len(places)
    order = np.lexsort((np.rint(rows.x_px), np.rint(rows.y_px)))
    truth = member()[:, 0]
    for low, high, share in ((0, 3, 0.95), (1, 2, 0.68)):
        ends = rows.x_quantiles[order]
        held = ((ends[:, low] <= truth) & (truth <= ends[:, high])).mean()
        # Four binomial standard errors; the normal quantiles of five would hold .88 and .58.
        assert held == pytest.approx(share, abs=4 * (share * (1 - share) / 400) ** 0.5)
    # Of the difference between one and the mean of five; the mean of 400 scatters by 3.5 %.
    assert rows.var_x_px2.mean() == pytest.approx(1.2 * sigma**2, rel=0.14)


def sight(electrons: np.ndarray) -> Sight:
    data = FrameData(electrons, np.full(electrons.shape, 5.0))
    ground = np.zeros(electrons.shape)
    networks = load_weights("fast")
    return Sight(0, data, PRIOR, PRIOR, np.empty((0, 3)), ground, (1.0, 1.0), networks, None, 0)


def test_what_a_part_of_the_images_shows_exists_with_that_probability():
    seen = sight(np.zeros((16, 16)))
    always, often, seldom = [4.1, 4.1, 800.0], [11.1, 4.1, 800.0], [8.1, 12.1, 800.0]
    sets = [np.array([always, *[often] * (k < 3), *[seldom] * (k < 2)]) for k in range(5)]
    said = of_images(seen, kernel_images(sets, seen).float())
    order = np.argsort(said.rows.x_px)
    np.testing.assert_allclose(said.rows.x_px[order], [4.1, 11.1], atol=0.05)
    np.testing.assert_allclose(said.rows.p_exists[order], [1.0, 0.6])


def test_sets_drawn_from_rows_have_their_moments():
    covariance = np.array([[[0.04, 0.01], [0.01, 0.02]], [[0.01, 0.0], [0.0, 0.09]]])
    emitters = np.array([[3.0, 5.0, 700.0], [20.0, 9.0, 900.0]])
    rows = gaussian_rows(emitters, covariance, np.array([1.0, 0.3]))
    sets = drawn_sets(rows, 4000, np.random.default_rng(0))
    second = np.array([one[1] for one in sets if len(one) == 2])
    first = np.array([one[0] for one in sets])
    # Four standard errors.
    assert len(second) / 4000 == pytest.approx(0.3, abs=4 * (0.21 / 4000) ** 0.5)
    np.testing.assert_allclose(np.cov(first[:, :2].T), covariance[0], atol=0.004)
    np.testing.assert_allclose(first.mean(0), emitters[0], atol=4 * 0.2 / 4000**0.5)
    np.testing.assert_allclose(second[:, 1].std(), 0.3, rtol=4 / (2 * 1200) ** 0.5)


def test_a_flat_refinement_follows_the_light_and_not_the_belief():
    emitters = np.array([[12.0, 11.6, 3000.0]])
    x, y, photons = torch.from_numpy(emitters.T.copy())[:, None, :]
    light = render_tiles(x, y, photons, GaussianPSF.round(1.0), (24, 24))[0].numpy()
    data = FrameData(np.random.default_rng(1).poisson(light + 0.5) * 1.0, np.full((24, 24), 1.0))
    narrow = ScenePrior(0.02, PhotonPrior.log_normal(1000.0, 0.05), 0.5, 0.1)
    flat, believed = (
        refined([emitters], data, narrow, (1.0, 1.0), flat=way).best().photons[0]
        for way in (True, False)
    )
    assert flat == pytest.approx(3000.0, abs=4 * 3000**0.5)
    assert believed < flat - 100


# --- Scores ---------------------------------------------------------------------------------------


def made(simulated, sigma: float, said: float, lost: int = 0) -> Rival:
    """Give a way whose rows are off by `sigma` and say `said` (nm), beside some false rows."""
    rng = np.random.default_rng(2)
    table = simulated.truth[simulated.inside][["frame", "x_nm", "y_nm"]].reset_index(drop=True)
    table[["x_nm", "y_nm"]] += rng.normal(0, sigma, (len(table), 2))
    table["p_exists"] = 1.0
    far = pd.DataFrame({"frame": 99, "x_nm": 400.0 * np.arange(lost), "y_nm": 0.0, "p_exists": 0.6})
    table = pd.concat([table, far], ignore_index=True)
    for axis in "xy":
        table[f"sigma_{axis}_nm"] = said
        for level, z in ((68, 0.99446), (95, 1.95996)):
            table[f"{axis}_lo{level}_nm"] = table[f"{axis}_nm"] - z * said
            table[f"{axis}_hi{level}_nm"] = table[f"{axis}_nm"] + z * said
    return Rival("made", (), lambda _: None, tables=[table])


def test_rows_that_err_as_they_say_score_as_theory_has_it():
    settings = ["scene.density_per_um2=0.3", "frame.height=32", "frame.width=32"]
    simulated = simulate(load_recipe("peers", settings), 60, 3)
    bound = true_bounds(simulated, joint=True, background_e=0.0)
    inside = np.flatnonzero(simulated.inside)

    def measured(sigma: float, said: float, lost: int = 0) -> dict[str, float]:
        pair = np.arange(len(inside)), inside
        return _localized(made(simulated, sigma, said, lost), simulated, pair, bound, inside[::2])

    right = measured(8.0, 8.0, lost=20)
    number = 2 * len(inside)
    # Of a Gaussian that errs as it says the score is sd / sqrt(pi); its own sd is about 0.4 sd.
    assert right["crps_nm"] == pytest.approx(8 / math.pi**0.5, abs=4 * 0.45 * 8 / number**0.5)
    assert right["crps_shared_nm"] == pytest.approx(right["crps_nm"], rel=0.15)
    assert right["shared"] == len(inside[::2])
    assert right["held_95"] == pytest.approx(0.95, abs=4 * right["held_95_error"])
    assert right["held_68"] == pytest.approx(0.68, abs=4 * (0.22 / number) ** 0.5)
    assert right["auroc_false"] == 1.0  # false rows say themselves that they are less likely
    assert right["false"] == 20
    assert right["jaccard"] == pytest.approx(len(inside) / (len(inside) + 20))
    assert right["width_over_bound"] == pytest.approx(float(np.median(8.0 / bound[inside])))
    for said in (2.0, 32.0):
        wrong = measured(8.0, said)
        assert wrong["crps_nm"] > right["crps_nm"] + 1.0
        assert abs(wrong["held_95"] - 0.95) > 0.04


def test_images_are_scored_on_informative_pixels_only(torch_rng):
    centre = torch.randn((2, 20, 20), generator=torch_rng)
    truth = centre + torch.randn((2, 20, 20), generator=torch_rng)
    draws = centre + torch.randn((12, 2, 20, 20), generator=torch_rng)
    where = torch.rand((2, 20, 20), generator=torch_rng) < 0.5
    spoilt = torch.where(where, truth, 100.0)
    way = Rival("w", (), lambda _: None, images=[draws[:, 0], draws[:, 1]])
    found = _imaged(way, spoilt, where)
    # CRPS of a Gaussian that errs as it says: 1 / sqrt(pi); 400 pixels.
    assert found["image_crps"] == pytest.approx(math.pi**-0.5, abs=0.1)
    assert found["image_spread_skill"] == pytest.approx(1.0, abs=0.15)
    single = Rival("s", (), lambda _: None, images=[draws[:1, 0], draws[:1, 1]])
    off = (draws[0] - truth).abs()[where].mean().item()
    assert _imaged(single, spoilt, where)["image_crps"] == pytest.approx(off, rel=1e-5)


def test_a_position_without_deviation_scores_its_error():
    zero = np.zeros(3)
    off = np.array([-2.0, 0.0, 3.0])
    np.testing.assert_allclose(gaussian_crps(zero, zero, off), np.abs(off))
    np.testing.assert_allclose(gaussian_crps(zero, zero + 1e-9, off), np.abs(off), atol=1e-8)


# --- Shares of training ---------------------------------------------------------------------------


def test_every_way_gets_the_same_work():
    phi = load_training_recipe(PhiTrainingRecipe, "rivals")
    psi = load_training_recipe(PsiTrainingRecipe, "rivals")
    recipes = RivalRecipes.of(phi, psi)
    steps = phi.optimizer.steps
    assert sum(member.optimizer.steps for member in recipes.ensemble) == steps
    assert recipes.dropout.optimizer == recipes.mixture.optimizer == phi.optimizer
    # A step of Psi costs three of phi.
    assert recipes.half_phi.optimizer.steps + 3 * psi.optimizer.steps == steps
    seeds = {member.seed for member in (*recipes.ensemble, recipes.half_phi, phi)}
    assert len(seeds) == MEMBERS + 2
    each = list(recipes.named().values())
    assert len({recipe.fingerprint() for recipe in each}) == len(each) == MEMBERS + 5
    for recipe in each:
        assert (recipe.conditions, recipe.batch) == (phi.conditions, phi.batch)
    with pytest.raises(ValidationError, match="multiple"):
        RivalRecipes.of(
            PhiTrainingRecipe(
                kind="phi", network=SMALL, **(TINY | {"validation": {"every_steps": 20}})
            ),
            psi,
        )


def test_a_network_that_is_trained_is_not_trained_again(tmp_path):
    phi = PhiTrainingRecipe(kind="phi", network=SMALL, **TINY)
    psi = PsiTrainingRecipe(kind="psi", **TINY)
    recipes = RivalRecipes.of(phi, psi)
    log = train_rival(recipes, "ensemble_2", tmp_path) / "log.csv"
    first = log.read_text()
    assert first.splitlines()[-1].startswith("4.0,")
    train_rival(recipes, "ensemble_2", tmp_path)
    assert log.read_text() == first  # it has minutes, which no second training would repeat


def test_the_cost_of_a_way_is_that_of_its_networks():
    rows = pd.DataFrame(
        [
            {"trained": "a", "steps": 10, "core_s": 60.0, "commit": "c"},
            {"trained": "b", "steps": 10, "core_s": 30.0, "commit": "c"},
            {"density": 1.0, "method": "one", "networks": "a b", "commit": "c"},
            {"density": 1.0, "method": "none", "networks": "", "commit": "c"},
        ]
    )
    table = with_training_cost(rows)
    assert table["training_core_min"].tolist()[0] == 1.5
    assert np.isnan(table["training_core_min"].tolist()[1])
    assert "trained" not in table
    assert list(table["method"]) == ["one", "none"]
