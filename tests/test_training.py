"""Training: recipes, a run that is killed and goes on, what is refused, and that it learns."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
import sys
import time

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from scipy import special, stats
from torch import nn
from typer.testing import CliRunner

from conftest import ROOT
from sureloc.cli import app as cli
from sureloc.cli.stopping import STOPPED
from sureloc.config.training import (
    load_training_recipe,
    shipped_training_recipes,
    training_recipe_yaml,
)
from sureloc.diffusion import samplers
from sureloc.diffusion.denoisers import regression_target, to_residual
from sureloc.diffusion.noise import white_noise
from sureloc.diffusion.objectives import Sums
from sureloc.diffusion.schedules import cosine, linear_beta, sigma_of_gamma
from sureloc.errors import InputError, OutputError, RecipeError, TrainingError, WeightsError
from sureloc.io.weights import read_phi, write_weights
from sureloc.networks.blocks import fold
from sureloc.networks.phi import PaperPhi
from sureloc.networks.posterior import posterior_images
from sureloc.networks.weights import ListLevels, load_weights, save_weights
from sureloc.train.engine import (
    average_weights,
    fit,
    learning_rate_share,
    resumable,
    save_average,
)
from sureloc.train.export import (
    TrainedPhi,
    assemble,
    make_card,
    phi_of_training,
    phi_of_weights,
)
from sureloc.train.folder import best_row, read_log, write_log
from sureloc.train.phi import PhiTraining
from sureloc.train.psi import PsiTraining
from sureloc.train.recipe import (
    OptimizerRecipe,
    PhiTrainingRecipe,
    PsiTrainingRecipe,
)

SHORT = {
    "batch": {"tiles": 2, "tile_px": 8},
    "optimizer": {"steps": 9, "warmup_steps": 2},
    "validation": {"every_steps": 3, "tiles": 4, "tile_px": 8, "draws": 2, "evaluations": 2},
}
PHI = {"kind": "phi", "network": {"kind": "fast", "width": 8, "dilations": [1]}, **SHORT}
PSI = {
    "kind": "psi",
    "network": {"condition_width": 8, "condition_blocks": 1, "width": 8, "embedding": 8},
    **SHORT,
}


def phi_training(**changes) -> PhiTraining:
    return PhiTraining(PhiTrainingRecipe(**(PHI | changes)))


def psi_training(**changes) -> PsiTraining:
    phi = phi_training().average
    nn.init.normal_(phi.head.weight, std=0.02, generator=torch.Generator().manual_seed(1))
    return PsiTraining(PsiTrainingRecipe(**(PSI | changes)), phi)


def ctrl_c(*_arguments):
    raise KeyboardInterrupt


def run(*arguments):
    return CliRunner().invoke(cli.app, ["train", *map(str, arguments)])


# --- Recipes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [PhiTrainingRecipe, PsiTrainingRecipe])
def test_shipped_recipes_are_valid_described_and_survive_being_written(model, tmp_path):
    names = shipped_training_recipes(model)
    assert {"default", "smoke"} <= set(names)
    for name in names:
        recipe = load_training_recipe(model, name)
        assert recipe.description
        path = tmp_path / f"{name}.yaml"
        path.write_text(training_recipe_yaml(recipe), encoding="utf-8")
        assert load_training_recipe(model, path) == recipe


def test_the_papers_phi_is_a_recipe():
    recipe = load_training_recipe(PhiTrainingRecipe, "paper")
    training = PhiTraining(recipe)
    assert isinstance(training.network, PaperPhi)
    loss = training.loss(training.generator("train", 0))
    assert math.isfinite(loss.item())
    empty = training._target(torch.zeros(2, 2))
    assert empty.tolist() == [[-1.0, -1.0], [-1.0, -1.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimiser": {}}, r"unknown key optimiser \(did you mean optimizer\?\)"),
        ({"network": {"kind": "fast", "widht": 8}}, r"unknown key network.widht \(did you mean wi"),
        ({"network": {"kind": "slow"}}, "network.kind is 'slow'"),
        ({"conditions": {"sigma_px": [2.0, 1.0]}}, "sigma_px is 2 to 1"),
        ({"optimizer": {"steps": 0}}, "optimizer.steps is 0"),
        ({"batch": {"other_sides_px": [20, 4]}}, r"batch.other_sides_px.1 is 4: .* equal to 8"),
        ({"optimizer": {"steps": 10}}, r"steps is 10 and .* multiple"),
        ({"kind": "psi"}, "trains 'psi', not phi. Use `sureloc train psi`"),
    ],
)
def test_impossible_recipes_are_refused_clearly(changes, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(PHI | changes))
    with pytest.raises(RecipeError, match=message):
        load_training_recipe(PhiTrainingRecipe, path)


LINEAR = {"kind": "linear_beta"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": {"sigma_min": 3, "sigma_max": 2}}, "noise: sigma_min is 3 and sigma_max 2; the"),
        ({"noise": {"sigma_max": 0.01}}, r"noise: sigma_min is 0\.03 and sigma_max 0\.01"),
        ({"noise": {"sigma_min": 1e-9}}, r"noise.sigma_min is 1e-09: .* equal to 0\.000001"),
        ({"noise": {"rho": 1e-3}}, r"noise.rho is 0\.001: .* equal to 0\.1"),
        ({"network": {"condition_blocks": 65}}, "network.condition_blocks is 65: .* equal to 64"),
        ({"network": {"width": 5000}}, "network.width is 5000: .* equal to 4096"),
        ({"network": {"dilations": [1, 65]}}, r"network.dilations.1 is 65: .* equal to 64"),
        ({"network": {"windows": [3, 4]}}, r"network.windows is \[3, 4\]: .* odd numbers"),
        ({"network": {"windows": [3, 3]}}, r"network.windows is \[3, 3\]: .* given once"),
        ({"network": {"windows": [35]}}, r"network.windows.0 is 35: .* equal to 33"),
        (
            {"network": {"kind": "split", "noisier": {"windows": [2]}}},
            r"network.noisier.windows is \[2\]: the sides",
        ),
        ({"network": {"dilations": []}}, r"network.dilations is \[\]: .* at least 1 item"),
        ({"objective": {"evaluations": 5000}}, "objective.evaluations is 5000: .* equal to 4096"),
        ({"noise": LINEAR | {"steps": 1}}, "noise.steps is 1: .* equal to 2"),
        ({"noise": {"kind": "cosine", "steps": 1}}, "noise.steps is 1: .* equal to 2"),
        (
            {"noise": LINEAR | {"steps": 4000, "last": 0.9}},
            r"noise: steps is 4000, first 0\.0001 and last 0\.9; the gammas of these steps reach 0",
        ),
        (
            {"noise": LINEAR, "objective": {"kind": "energy"}},
            r"used: noise.kind is 'linear_beta' with the objective energy.*give noise.kind log_no",
        ),
        (
            {"noise": LINEAR, "validation": SHORT["validation"] | {"evaluations": 1}},
            r"used: validation.evaluations is 1 with noise.kind 'linear_beta'; it must be 2",
        ),
        (
            {"noise": {"kind": "cosine"}, "objective": {"evaluations": 1}},
            r"objective.evaluations is 1 with noise.kind 'cosine'; it must be 2",
        ),
    ],
)
def test_recipes_that_could_not_be_drawn_from_or_kept_are_refused(changes, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(PSI | changes))
    with pytest.raises(RecipeError, match=message):
        load_training_recipe(PsiTrainingRecipe, path)


def test_whatever_a_recipe_allows_can_be_kept():
    network = {"condition_blocks": 64, "condition_width": 4096, "width": 4096, "overview": 16}
    largest = PSI | {"network": network, "objective": {"evaluations": 4096}}
    phi = PhiTrainingRecipe(**PHI | {"network": {"kind": "fast", "width": 4096}})
    for psi in (largest, largest | {"noise": {"kind": "cosine", "steps": 4096}}):
        assert make_card(phi, PsiTrainingRecipe(**psi), "mine").psi.width == 4096


def test_missing_recipes_are_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"no training recipe 'smoek' for psi.*default, .*smoke"):
        load_training_recipe(PsiTrainingRecipe, "smoek")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_training_recipe(PhiTrainingRecipe, tmp_path / "binary.yaml")


def test_the_recipes_of_the_page_are_recipes(tmp_path):
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    texts = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(texts) == 2
    for text, model in zip(texts, (PhiTrainingRecipe, PsiTrainingRecipe), strict=True):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        recipe = load_training_recipe(model, path)
        assert recipe.conditions.sigma_px == (1.6, 3.0)


def test_steps_take_tiles_of_several_sides_that_cover_the_same_area():
    training = psi_training(batch={"tiles": 3, "tile_px": 24, "other_sides_px": [12, 8]})
    shapes = {
        tuple(training.tiles_of_step(training.generator("train", step)).electrons.shape)
        for step in range(12)
    }
    assert shapes == {(3, 24, 24), (12, 12, 12), (27, 8, 8)}
    # A resumed run takes the same sides: they come from the step's stream.
    one, other = (
        training.tiles_of_step(training.generator("train", 5)).electrons for _ in range(2)
    )
    assert torch.equal(one, other)
    single = psi_training(batch={"tiles": 3, "tile_px": 24})
    generator = single.generator("train", 0)
    alone = single.tiles(single.generator("train", 0), 3, 24)
    assert torch.equal(single.tiles_of_step(generator).electrons, alone.electrons)


def test_sums_enter_the_loss_where_the_recipe_weighs_them():
    plain, summed = (psi_training(objective={"sums": sums}) for sums in (0.0, 0.25))
    views = plain.views(plain.tiles_of_step(plain.generator("train", 0)))
    losses = [t._loss(t.network, views, t.generator("noise")) for t in (plain, summed)]
    one, other = (float(loss.detach()) for loss in losses)
    assert other > one
    assert plain.recipe.fingerprint() == PsiTrainingRecipe(**PSI).fingerprint()
    assert summed.recipe.fingerprint() != plain.recipe.fingerprint()


def test_sums_enter_the_loss_of_the_noise_levels_above_the_one_that_the_recipe_names():
    """From all levels to none: each item's sums count as before, or not at all."""
    losses = []
    for objective in ({}, {"sums": 0.25}, {"sums": 0.25, "sums_above": 2.0}):
        training = psi_training(objective=objective)
        views = training.views(training.tiles_of_step(training.generator("train", 0)))
        losses.append(
            float(training._loss(training.network, views, training.generator("noise")).detach())
        )
        generator = training.generator("noise")
        count = training.recipe.noise.levels_per_tile * len(views.target)
        gamma = training.recipe.noise.gammas(count, generator)
    # A fresh network gives nothing, so that the error is what it is compared with.
    clean = to_residual(views.target, views.centre, training.network.residual_scale)
    clean = clean.repeat(training.recipe.noise.levels_per_tile, 1, 1, 1)
    noise = white_noise(clean, generator)
    error = regression_target("preconditioned", clean, noise, gamma)
    strong = sigma_of_gamma(gamma) > 2
    assert 0 < int(strong.sum()) < count
    plain, everywhere, above = losses
    sums = Sums(0.25, training.recipe.footprint_px)
    assert everywhere - plain == pytest.approx(float(sums.loss(error)), rel=1e-4)
    share = int(strong.sum()) / count
    assert above - plain == pytest.approx(share * float(sums.loss(error[strong])), rel=1e-4)


SPLIT = {
    "kind": "split",
    "sigma": 1.5,
    "noisier": PSI["network"] | {"windows": [1, 5]},
    "quieter": PSI["network"],
}


def test_two_networks_by_noise_are_trained_kept_and_drawn_from(tmp_path):
    training = psi_training(network=SPLIT, objective={"sums": 0.1, "sums_above": 1.5})
    fit(training, tmp_path / "psi")
    moved = {
        name: not torch.equal(value, start)
        for (name, value), start in zip(
            training.network.named_parameters(),
            psi_training(network=SPLIT).network.parameters(),
            strict=True,
        )
    }
    heads = [name for name in moved if name.endswith("head.weight") and "conditioner" not in name]
    assert heads == ["noisier.head.weight", "quieter.head.weight"]
    assert all(moved[name] for name in heads)
    phi = TrainedPhi(PhiTrainingRecipe(**PHI), training.phi, [{"step": 1.0, "score": 0.5}])
    networks, logs = assemble(phi, (training.recipe, tmp_path / "psi"), "mine")
    files = write_weights(networks, logs, tmp_path / "mine.safetensors")
    again = load_weights(files[0])
    assert again.card.psi == training.recipe.network.card()
    images = [
        posterior_images(n, torch.full((1, 8, 8), 20.0), torch.ones(8, 8), 1.3, 1.0, 2, 0, [0])
        for n in (networks, again)
    ]
    assert torch.equal(images[0].draws, images[1].draws)


def test_sums_enter_the_loss_of_phi_too():
    """One emitter's image missed: 100 times its sum of squares and square of sums, by footprint."""
    plain, summed = (phi_training(sums=sums) for sums in (0.0, 0.25))
    one, other = (float(t.loss(t.generator("train", 0)).detach()) for t in (plain, summed))
    tiles = plain.tiles_of_step(plain.generator("train", 0))
    error = fold((plain._target(tiles.kde))[:, None])  # an untrained phi gives nothing
    assert one == pytest.approx(100 * float(error.square().mean()), rel=1e-4)
    added = Sums(0.25, 4 * math.pi).loss(error)
    assert other - one == pytest.approx(100 * float(added), rel=1e-4)
    assert plain.recipe.fingerprint() == PhiTrainingRecipe(**PHI).fingerprint()
    assert summed.recipe.fingerprint() != plain.recipe.fingerprint()


def test_fingerprints_tell_recipes_apart_but_not_their_descriptions():
    one = PhiTrainingRecipe(**PHI)
    assert one.fingerprint() == PhiTrainingRecipe(**PHI, description="other").fingerprint()
    assert one.fingerprint() != PhiTrainingRecipe(**PHI, seed=1).fingerprint()


def test_a_recipe_can_name_the_list_of_levels_that_draws_run_through(tmp_path):
    sigmas = [80.0, 9.0, 2.0, 0.3]
    recipe = PsiTrainingRecipe(**(PSI | {"noise": {"log_mean": 0.4, "sigmas": sigmas}}))
    plain = PsiTrainingRecipe(**(PSI | {"noise": {"log_mean": 0.4}}))
    card = make_card(PhiTrainingRecipe(**PHI), recipe, "mine")
    assert card.levels == ListLevels(kind="list", sigmas=tuple(sigmas))
    # Training is as without it, the recipe another one.
    streams = [torch.Generator().manual_seed(1) for _ in range(2)]
    drawn = [one.noise.gammas(8, s) for one, s in zip((recipe, plain), streams, strict=True)]
    assert torch.equal(*drawn)
    assert recipe.fingerprint() != plain.fingerprint()
    path = tmp_path / "mine.yaml"
    path.write_text(training_recipe_yaml(recipe), encoding="utf-8")
    assert load_training_recipe(PsiTrainingRecipe, path) == recipe


def test_recipes_without_a_list_of_levels_keep_their_fingerprint():
    values = PsiTrainingRecipe(**PSI).model_dump(mode="json", exclude={"description"})
    later = (("network", "overview"), ("network", "windows"), ("objective", "sums"))
    for part, name in (*later, ("objective", "sums_above")):
        del values[part][name]
    del values["batch"]["other_sides_px"], values["noise"]["sigmas"]
    text = json.dumps(values, sort_keys=True).encode()
    assert PsiTrainingRecipe(**PSI).fingerprint() == hashlib.sha256(text).hexdigest()[:16]


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ({"sigmas": [9.0, 80.0]}, "falling"),
        ({"sigmas": [9.0, 0.3], "sigma_max": 9.0}, "sigma_max is 9 beside a list of sigmas"),
        ({"sigmas": [9.0]}, "at least 2"),
    ],
)
def test_impossible_lists_of_levels_are_refused(noise, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(PSI | {"noise": noise}))
    with pytest.raises(RecipeError, match=message):
        load_training_recipe(PsiTrainingRecipe, path)


# --- Schedule and average -----------------------------------------------------------------------


def test_the_learning_rate_rises_and_falls_to_a_hundredth():
    optimizer = OptimizerRecipe(steps=100, warmup_steps=10)
    shares = [learning_rate_share(step, optimizer) for step in range(101)]
    assert shares[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert shares[10] == 1.0
    assert shares[55] == pytest.approx(0.505)
    assert shares[100] == pytest.approx(0.01)
    assert sorted(shares[10:], reverse=True) == shares[10:]
    assert learning_rate_share(5, OptimizerRecipe(steps=3, warmup_steps=0)) == 0.01


def test_the_average_follows_slowly_and_copies_counts():
    network, average = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    nn.init.constant_(network.weight, 2.0)
    network.num_batches_tracked.fill_(7)
    average_weights(average, network, 0.9, step=10_000)
    assert average.weight.item() == pytest.approx(1.1)
    assert average.num_batches_tracked.item() == 7
    average_weights(average, network, 0.9, step=0)  # a tenth of what it was in the beginning
    assert average.weight.item() == pytest.approx(0.1 * 1.1 + 0.9 * 2.0)


# --- Psi is trained as the recipe says -----------------------------------------------------------


@pytest.mark.parametrize(("norm", "wanted"), [("L1", (2 / math.pi) ** 0.5), ("L2", 1.0)])
def test_the_loss_of_psi_is_in_the_norm_of_the_recipe(norm, wanted):
    training = psi_training(objective={"target": "epsilon", "norm": norm})
    loss = float(training.loss(training.generator("train", 0)).detach())
    # An untrained Psi says 0 where eps is normal; 2 tiles at 4 levels are 8,192 pixels.
    assert loss == pytest.approx(wanted, abs=5 / 8192**0.5)


def uniform_by_piece(levels):
    edges = np.append(levels.numpy(), 1.0)
    return lambda gamma: np.interp(gamma, edges, np.linspace(0, 1, len(edges)))


NOISES = {
    "log_normal": (
        {"log_mean": 0.4, "log_sd": 1.5},
        lambda gamma: stats.norm.sf((-0.5 * special.logit(gamma) - 0.4) / 1.5),
    ),
    "linear_beta": (
        {"kind": "linear_beta", "steps": 12, "last": 0.2},
        uniform_by_piece(linear_beta(12, 1e-4, 0.2)),
    ),
    "cosine": ({"kind": "cosine", "steps": 12}, uniform_by_piece(cosine(12))),
}


@pytest.mark.parametrize("name", NOISES)
def test_psi_is_trained_at_the_levels_of_the_recipe(name):
    noise, distribution = NOISES[name]
    training = psi_training(
        noise=noise | {"levels_per_tile": 16}, batch={"tiles": 64, "tile_px": 8}
    )
    seen = []
    training.network.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    training.loss(training.generator("train", 0))
    gammas = torch.cat(seen).double().sigmoid().numpy()
    assert len(gammas) == 16 * 64
    # Kolmogorov's 1e-4 quantile of so many.
    assert stats.kstest(gammas, distribution).statistic < 2.2 / len(gammas) ** 0.5


class _Kept(pl.Callback):
    """Keeps what Psi's weights were after every step."""

    def __init__(self):
        self.states = []

    def on_train_batch_end(self, _trainer, module, *_):
        state = module.network.state_dict()
        self.states.append({name: value.clone() for name, value in state.items()})


def test_a_short_training_of_psi_keeps_to_norm_and_average_of_its_recipe(tmp_path):
    training = psi_training(
        objective={"target": "epsilon", "norm": "L1"},
        optimizer=SHORT["optimizer"] | {"averaging": 0.4, "learning_rate": 0.01},
    )
    wanted = {name: value.clone() for name, value in training.average.state_dict().items()}
    kept = _Kept()
    fit(training, tmp_path, device="cpu", callbacks=[kept])
    # Three steps of warm-up have learned little: the mean of |eps|, and not of eps^2.
    assert training.history[0]["train_loss"] == pytest.approx((2 / math.pi) ** 0.5, rel=0.05)
    assert len(kept.states) == 9
    for step, state in enumerate(kept.states, start=1):
        decay = min(0.4, (1 + step) / (10 + step))
        wanted = {name: decay * wanted[name] + (1 - decay) * state[name] for name in wanted}
    moved = 0.0
    for name, value in training.average.state_dict().items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-6)
        moved = max(moved, float((value - kept.states[-1][name]).abs().max()))
    assert moved > 1e-4  # and is not what the last step left


def test_the_residual_scale_is_that_of_the_residuals():
    training = psi_training()
    views = training.views(training.tiles(training.generator("other"), 256, 8))
    # Two samples of 256 and 512 tiles whose emitters come and go: 10 %.
    rms = (views.target - views.estimate).square().mean().sqrt().item()
    assert training.network.residual_scale.item() == pytest.approx(rms, rel=0.1)
    assert torch.equal(training.network.residual_scale, training.average.residual_scale)


@pytest.mark.parametrize(
    ("sampler", "own", "most", "levels"),
    [
        ("ancestral", 5, 9, 5),
        ("ancestral", 100, 4, 4),
        ("heun", 3, 8, 3),
        ("dpm_solver_2m", 8, 8, 8),
    ],
)
def test_validation_draws_as_the_weights_will(sampler, own, most, levels, monkeypatch):
    seen, real = [], getattr(samplers, sampler)

    def watched(denoiser, start, gammas, generator):
        seen.append((gammas, generator))
        return real(denoiser, start, gammas, generator)

    monkeypatch.setattr(samplers, sampler, watched)
    training = psi_training(
        noise={"kind": "linear_beta"},
        objective={"sampler": sampler, "evaluations": own},
        validation=SHORT["validation"] | {"evaluations": most},
    )
    assert math.isfinite(training.judge(training.generator("validate"))["score"])
    gammas, generator = seen[0]
    assert len(seen) == 2  # draws of one batch of 4 tiles
    assert isinstance(generator, torch.Generator)
    whole = linear_beta()
    assert len(gammas) == levels
    assert gammas[[0, -1]].tolist() == pytest.approx(whole[[0, -1]].tolist())


# --- Killed and resumed -------------------------------------------------------------------------

KILLED = """
import os, sys
import lightning.pytorch as pl
import torch
torch.set_num_threads(1)
from pathlib import Path
from sureloc.train.engine import fit
sys.path.insert(0, "tests")
from test_training import phi_training, psi_training

class Kill(pl.Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 7:
            os._exit(0)

fit({"phi": phi_training, "psi": psi_training}[sys.argv[1]](), Path(sys.argv[2]), device="cpu",
    callbacks=[Kill()])
sys.exit("it was not killed")
"""


def without_minutes(history):
    return [{k: v for k, v in row.items() if k != "minutes"} for row in history]


@pytest.mark.parametrize("kind", ["phi", "psi"])
def test_a_run_killed_and_resumed_equals_the_unbroken_one(kind, tmp_path, run_python):
    make = {"phi": phi_training, "psi": psi_training}[kind]
    unbroken = fit(make(), tmp_path / "unbroken", device="cpu")
    run_python("-c", KILLED, kind, str(tmp_path / "killed"))
    assert len(read_log(tmp_path / "killed" / "log.csv")) == 2  # validated at 3 and 6, dead at 7
    resumed = fit(make(), tmp_path / "killed", resume=True, device="cpu")
    for part in ("network", "average"):
        mine, yours = (getattr(one, part).state_dict() for one in (unbroken, resumed))
        for name, value in mine.items():
            assert torch.equal(value, yours[name]), f"{part}.{name}"
    assert without_minutes(resumed.history) == without_minutes(unbroken.history)
    for name in ("best.safetensors", "last.safetensors"):
        mine, yours = (load_file(tmp_path / run / name) for run in ("unbroken", "killed"))
        assert all(torch.equal(value, yours[key]) for key, value in mine.items())
    minutes = [row["minutes"] for row in resumed.history]
    assert minutes == sorted(minutes)


class _Broken(pl.Callback):
    """Ends a training in its eighth step."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 7:
            raise OSError("it breaks off")


def test_a_resumed_run_takes_only_the_steps_that_are_left(tmp_path):
    with pytest.raises(OSError, match="breaks off"):
        fit(psi_training(), tmp_path, device="cpu", callbacks=[_Broken()])
    kept = _Kept()
    fit(psi_training(), tmp_path, resume=True, device="cpu", callbacks=[kept])
    assert len(kept.states) == 3  # from the checkpoint at 6 to 9


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Give a folder with a short run of phi, and of Psi on another phi."""
    folder = tmp_path_factory.mktemp("trained")
    for name, training in (("phi", phi_training()), ("psi", psi_training())):
        fit(training, folder / name, device="cpu")
        (folder / name / "recipe.yaml").write_text(training_recipe_yaml(training.recipe))
    return folder


def test_another_recipes_checkpoint_is_refused(trained):
    with pytest.raises(RecipeError, match=r"was made by another recipe .*Resume with the recipe"):
        resumable(phi_training(seed=1), trained / "phi")
    assert resumable(phi_training(), trained / "phi").name == "last.ckpt"


def test_a_checkpoint_on_another_phi_is_refused(trained):
    training = psi_training()
    training.phi.head.bias += 1.0
    with pytest.raises(RecipeError, match=r"builds on other weights.*phi\.head\.bias"):
        resumable(training, trained / "psi")


def whole_checkpoint(**changes):
    return {"recipe_fingerprint": "a", "state_dict": {}, "history": "[]"} | changes


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "nonsense": lambda path: path.write_bytes(b"nonsense"),
    "list": lambda path: torch.save([1, 2], path),
    "no state": lambda path: torch.save({"recipe_fingerprint": "a", "history": "[]"}, path),
    "state": lambda path: torch.save(whole_checkpoint(state_dict=[1]), path),
    "history": lambda path: torch.save(whole_checkpoint(history="["), path),
}


def test_missing_and_broken_checkpoints_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no last\.ckpt .*without --resume"):
        resumable(phi_training(), tmp_path)
    for damage in DAMAGES.values():
        damage(tmp_path / "last.ckpt")
        with pytest.raises(InputError, match=r"checkpoint .* cannot be read .*another folder"):
            resumable(phi_training(), tmp_path)


def test_a_checkpoint_of_other_devices_is_refused(trained):
    """Every device draws tiles of its own: on another number of them the weights are other ones."""
    with pytest.raises(InputError, match=r"with --devices 1, not 2.*Resume with --dev"):
        fit(phi_training(), trained / "phi", resume=True, device="cpu", devices=2)


def test_a_checkpoint_never_runs_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"recipe_fingerprint": Evil(), "state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match="cannot be read"):
        resumable(phi_training(), tmp_path)
    assert not (tmp_path / "ran").exists()


def test_devices_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(InputError, match="device 'abacus' cannot be used"):
        fit(phi_training(), tmp_path, device="abacus")


def test_training_touches_no_global_random_state(tmp_path):
    before = torch.get_rng_state()
    phi_training()
    assert torch.equal(torch.get_rng_state(), before)


# --- Export -------------------------------------------------------------------------------------


def phi_and_psi(trained):
    return read_phi(trained / "phi"), (PsiTrainingRecipe(**PSI), trained / "psi")


def test_a_psi_of_another_phi_is_not_exported(trained):
    with pytest.raises(RecipeError, match=r"was trained on another phi: .* differs"):
        assemble(*phi_and_psi(trained), "mine")


def test_weights_of_another_recipe_are_not_exported(trained):
    other = PhiTrainingRecipe(**PHI, seed=4)
    with pytest.raises(WeightsError, match="made by another recipe"):
        phi_of_training(other, trained / "phi")
    phi, (_, folder) = phi_and_psi(trained)
    with pytest.raises(WeightsError, match="made by another recipe"):
        assemble(phi, (PsiTrainingRecipe(**PSI, seed=4), folder), "mine")


def test_what_is_missing_is_named(trained, tmp_path):
    phi, psi = phi_and_psi(trained)
    with pytest.raises(InputError, match=r"training log .* cannot be read"):
        assemble(phi, (psi[0], tmp_path), "mine")
    with pytest.raises(WeightsError, match=r"weights .*best\.safetensors cannot be read"):
        phi_of_training(phi.recipe, tmp_path)
    (tmp_path / "log.csv").write_text("step,score\n")
    with pytest.raises(InputError, match="is empty"):
        read_log(tmp_path / "log.csv")
    write_log(tmp_path / "log.csv", [{"step": 1.0, "score": 1.0}])
    save_average(psi_training(), tmp_path / "best.safetensors")
    with pytest.raises(InputError, match=r"no last\.ckpt"):
        assemble(phi, (psi[0], tmp_path), "mine")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_not_exported(damage, trained, tmp_path):
    phi, (recipe, folder) = phi_and_psi(trained)
    shutil.copytree(folder, tmp_path / "psi")
    DAMAGES[damage](tmp_path / "psi" / "last.ckpt")
    with pytest.raises(InputError, match=r"checkpoint .*last\.ckpt cannot be read"):
        assemble(phi, (recipe, tmp_path / "psi"), "mine")


def test_a_checkpoint_without_the_phi_is_not_exported(trained, tmp_path):
    phi, (recipe, folder) = phi_and_psi(trained)
    shutil.copytree(folder, tmp_path / "psi")
    torch.save(whole_checkpoint(), tmp_path / "psi" / "last.ckpt")
    with pytest.raises(RecipeError, match=r"was trained on another phi: .* differs"):
        assemble(phi, (recipe, tmp_path / "psi"), "mine")


@pytest.mark.parametrize(
    ("text", "missing"), [("step,rmse\n3,1\n", "score"), ("score\n1\n", "step")]
)
def test_a_log_without_its_columns_is_told(text, missing, tmp_path):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(InputError, match=rf"log\.csv has no column {missing}"):
        read_log(tmp_path / "log.csv")


def test_psi_builds_on_no_phi_with_dropout_and_on_no_other_kernel():
    dropped = PhiTrainingRecipe(kind="phi", network={"kind": "dropout", "width": 4})
    with pytest.raises(RecipeError, match=r"cannot hold a phi of kind 'dropout'; use .* or paper"):
        make_card(dropped, PsiTrainingRecipe(**PSI), "mine")
    wide = PhiTrainingRecipe(**PHI, kernel_sigma_fine_px=2.0)
    with pytest.raises(RecipeError, match=r"is 2\.0 for phi and 1\.0 for psi"):
        make_card(wide, PsiTrainingRecipe(**PSI), "mine")


# --- phi from a folder, or from weights ----------------------------------------------------------


def test_psi_trains_on_the_shipped_phi_and_is_exported_with_it(tmp_path):
    recipe, out = tmp_path / "short.yaml", tmp_path / "mine.safetensors"
    recipe.write_text(yaml.safe_dump(PSI))
    for arguments in (
        ("psi", recipe, "--phi", "default", "--out", tmp_path / "psi", "--device", "cpu", "-q"),
        ("export", "default", tmp_path / "psi", "--out", out),
    ):
        done = run(*arguments)
        assert done.exit_code == 0, done.output
    shipped, mine = load_weights("default"), load_weights(out)
    for name, value in shipped.phi.state_dict().items():
        assert torch.equal(value, mine.phi.state_dict()[name])
    apart = [{**card.training["phi"], "recipe": None} for card in (mine.card, shipped.card)]
    assert apart[0] == apart[1]
    assert mine.card.metrics["phi"] == shipped.card.metrics["phi"]
    again = read_phi(out)
    assert again.recipe == read_phi("default").recipe
    assert again.log == read_phi("default").log


@pytest.mark.parametrize("source", ["defualt", "mine.pt", "no/such/folder"])
def test_what_is_neither_a_training_nor_weights_is_refused(source):
    with pytest.raises(InputError, match=rf"no phi '{source}'.*folder.*default.*safetensors"):
        read_phi(source)
    refused = run("psi", "smoke", "--phi", source, "--out", "never")
    assert isinstance(refused.exception, InputError)


def test_weights_that_do_not_tell_their_phi_are_refused(tmp_path):
    networks, log = load_weights("default"), [{"step": 1.0, "score": 1.0}]
    training = networks.card.training
    path = tmp_path / "mine.safetensors"
    save_weights(networks, path)
    with pytest.raises(InputError, match=r"mine_phi_log\.csv cannot be read.*logs beside"):
        read_phi(path)

    def phi_with(recipe):
        told = {**training, "phi": {"recipe": recipe}}
        card = networks.card.model_copy(update={"training": told})
        return phi_of_weights(dataclasses.replace(networks, card=card), log)

    recipe = training["phi"]["recipe"]
    assert phi_with(recipe).network is networks.phi
    for impossible in (None, recipe | {"colour": "red"}):
        with pytest.raises(WeightsError, match=r"training\.phi\.recipe is missing or cannot"):
            phi_with(impossible)
    for other in (recipe | {"kernel_sigma_fine_px": 2.0}, recipe | {"network": PHI["network"]}):
        with pytest.raises(WeightsError, match="describes another phi"):
            phi_with(other)


# --- Command line: the smoke recipes, trained, resumed, exported ---------------------------------


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Train both smoke recipes as a user would; their output is kept."""
    folder = tmp_path_factory.mktemp("smoke")
    begun_s = time.process_time()
    phi = run("phi", "smoke", "--out", folder / "phi", "--device", "cpu")
    assert phi.exit_code == 0, phi.output
    psi = run(
        *("psi", "smoke", "--phi", folder / "phi", "--out", folder / "psi"), "--device", "cpu", "-q"
    )
    assert psi.exit_code == 0, psi.output
    (folder / "seconds").write_text(str(time.process_time() - begun_s))
    return folder, phi, psi


def test_both_smoke_trainings_take_less_than_3_minutes_of_one_core(smoke):
    # Processor time, in one thread: a machine that is busy, or has more cores, changes nothing.
    assert float((smoke[0] / "seconds").read_text()) < 180


def test_smoke_phi_reaches_its_stated_number(smoke):
    folder, result, _ = smoke
    log = read_log(folder / "phi" / "log.csv")
    stated = load_training_recipe(PhiTrainingRecipe, "smoke").description
    assert "less than 0.66" in stated
    assert log[-1]["unexplained"] < 0.66
    assert [row["step"] for row in log] == [100, 200, 300]
    assert f"unexplained {log[-1]['unexplained']:.4g}" in result.stdout
    untrained = PhiTraining(load_training_recipe(PhiTrainingRecipe, "smoke"))
    assert untrained.judge(untrained.generator("validate"))["unexplained"] > 1


def test_smoke_psi_reaches_its_stated_numbers(smoke):
    folder, _, result = smoke
    log = read_log(folder / "psi" / "log.csv")
    stated = load_training_recipe(PsiTrainingRecipe, "smoke").description
    assert "CRPS below 0.095" in stated
    assert "spread-skill of 0.9-1.25" in stated
    assert log[-1]["crps"] < 0.095  # 0.110 before training
    assert 0.9 < log[-1]["spread_skill"] < 1.25  # 0.32 before training
    assert "spread-skill" in result.stdout
    assert "crps" in result.stdout


@pytest.mark.parametrize(("kind", "steps"), [("phi", (100, 200, 300)), ("psi", (200, 400))])
def test_training_leaves_logs_and_pictures(smoke, kind, steps):
    from matplotlib.image import imread
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = smoke[0] / kind
    pictures = sorted((folder / "pictures").iterdir())
    assert [path.name for path in pictures] == [f"step_{step:06d}.png" for step in steps]
    assert imread(pictures[-1]).std() > 0.05
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    logged = {event.step: event.value for event in events.Scalars("rmse")}
    rows = read_log(folder / "log.csv")
    assert list(logged.values()) == pytest.approx([row["rmse"] for row in rows], rel=1e-6)
    assert rows[-1]["minutes"] < 3  # both in CI together


def test_the_progress_bar_shows_the_validation(smoke):
    assert "300/300 steps" in smoke[1].stderr
    assert "rmse" in smoke[1].stderr
    assert smoke[2].stderr == ""  # --quiet


def test_a_finished_run_resumes_to_itself_and_another_recipe_is_refused(smoke):
    folder = smoke[0] / "phi"
    before = load_file(folder / "last.safetensors")
    again = run("phi", "smoke", "--out", folder, "--resume", "--device", "cpu", "-q")
    assert again.exit_code == 0, again.output
    after = load_file(folder / "last.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    other = run("phi", "default", "--out", folder, "--resume")
    assert isinstance(other.exception, RecipeError)
    assert "was made by another recipe" in str(other.exception)


@pytest.fixture
def short(tmp_path):
    """Give how `sureloc train phi` is called for a short run."""
    recipe = tmp_path / "short.yaml"
    recipe.write_text(yaml.safe_dump(PHI))
    return ("phi", recipe, "--out", tmp_path / "out", "--device", "cpu", "-q")


def test_a_run_stopped_before_its_first_validation_is_resumed(short, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(PhiTraining, "loss", ctrl_c)
        stopped = run(*short)
    assert stopped.exit_code == STOPPED
    assert "the same command with --resume goes on from the last validation" in stopped.stderr
    assert "from step 0 if there was none" in stopped.stderr
    assert not (tmp_path / "out" / "last.ckpt").exists()
    resumed = run(*short, "--resume")
    assert resumed.exit_code == 0, resumed.output
    unbroken = fit(phi_training(), tmp_path / "unbroken", device="cpu")
    log = read_log(tmp_path / "out" / "log.csv")
    assert without_minutes(log) == without_minutes(unbroken.history)
    mine, yours = (load_file(tmp_path / one / "best.safetensors") for one in ("out", "unbroken"))
    assert all(torch.equal(value, yours[name]) for name, value in mine.items())


def test_a_run_begun_by_another_recipe_is_not_resumed(short, tmp_path):
    (tmp_path / "out").mkdir()
    begun = training_recipe_yaml(PhiTrainingRecipe(**PHI, seed=1))
    (tmp_path / "out" / "recipe.yaml").write_text(begun)
    refused = run(*short, "--resume")
    assert isinstance(refused.exception, RecipeError)
    assert "was begun by another recipe" in str(refused.exception)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize("there", [True, False])
def test_nothing_to_resume_is_told(there, short, tmp_path):
    if there:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "log.csv").write_text("step,score\n")
    refused = run(*short, "--resume")
    assert isinstance(refused.exception, InputError)
    assert "There is no training" in str(refused.exception)
    assert "new folder without --resume" in str(refused.exception)
    assert (tmp_path / "out").exists() == there


# --- Diverged -----------------------------------------------------------------------------------


def test_a_diverged_run_ends_with_an_error(short, tmp_path, monkeypatch, capsys):
    recipe = PHI | {"optimizer": PHI["optimizer"] | {"learning_rate": 1e30}}
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(sys, "argv", ["sureloc", "train", *map(str, short)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    said = capsys.readouterr()
    assert "diverged at step 2 of 9: its loss is no finite number" in said.err
    assert "smaller optimizer.learning_rate than 1e+30" in said.err
    assert "best after" not in said.out
    assert not list((tmp_path / "out").glob("*.safetensors"))


class Diverging(PhiTraining):
    """Loses its way in the fifth step."""

    def loss(self, generator):
        loss = super().loss(generator)
        return loss * math.nan if self.global_step == 4 else loss


def test_a_diverged_run_keeps_the_best_weights_before(tmp_path):
    with pytest.raises(TrainingError, match=r"at step 5 of 9.* best weights, of step 3, are kept"):
        fit(Diverging(PhiTrainingRecipe(**PHI)), tmp_path, device="cpu")
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == [3]
    for name in ("best.safetensors", "last.safetensors"):
        assert all(bool(value.isfinite().all()) for value in load_file(tmp_path / name).values())


@pytest.mark.parametrize("part", ["weights", "score"])
def test_weights_and_scores_that_are_no_numbers_are_never_kept(part, tmp_path, monkeypatch):
    if part == "score":
        monkeypatch.setattr(PhiTraining, "judge", lambda *_: {"score": math.nan})
    else:  # weights without a say in the score
        monkeypatch.setattr(
            "sureloc.train.engine.average_weights",
            lambda average, *_: average.head.bias.fill_(math.inf),
        )
        monkeypatch.setattr(PhiTraining, "judge", lambda *_: {"score": 1.0})
    words = {"score": "score of its validation", "weights": "averaged weights"}[part]
    with pytest.raises(TrainingError, match=rf"at step 3 of 9: the {words}"):
        fit(phi_training(), tmp_path, device="cpu")
    assert not (tmp_path / "best.safetensors").exists()


def test_the_best_validation_has_a_score_that_is_a_number():
    scores = [math.nan, 2.0, 1.0, math.inf, 1.0, 3.0]
    rows = [{"step": float(i), "score": score} for i, score in enumerate(scores)]
    assert best_row(rows)["step"] == 4
    with pytest.raises(InputError, match="none of its 1 validations"):
        best_row(rows[:1])


def test_a_folder_with_something_in_it_is_not_trained_into(smoke):
    refused = run("phi", "smoke", "--out", smoke[0] / "phi")
    assert isinstance(refused.exception, InputError)
    assert "not empty" in str(refused.exception)


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sureloc.train.engine.write_log", full)
    recipe = tmp_path / "short.yaml"
    recipe.write_text(yaml.safe_dump(PHI))
    broken = run("phi", recipe, "--out", tmp_path / "out", "--device", "cpu", "-q")
    assert isinstance(broken.exception, OutputError)
    assert "No space left" in str(broken.exception)
    assert "--resume" in str(broken.exception)


def test_unknown_keys_are_refused_on_the_command_line(tmp_path):
    recipe = tmp_path / "short.yaml"
    recipe.write_text(yaml.safe_dump(PHI | {"speed": 3}))
    refused = run("phi", recipe, "--out", tmp_path / "out")
    assert isinstance(refused.exception, RecipeError)
    assert "unknown key speed" in str(refused.exception)
    assert not (tmp_path / "out").exists()


def test_both_networks_are_exported_as_one_file(smoke, tmp_path):
    folder = smoke[0]
    out = tmp_path / "mine.safetensors"
    done = run("export", folder / "phi", folder / "psi", "--out", out, "--description", "Mine.")
    assert done.exit_code == 0, done.output
    networks = load_weights(out)
    assert networks.card.description == "Mine."
    assert networks.card.training["psi"]["minutes"] > 0
    psi = load_file(folder / "psi" / "best.safetensors")
    for name, value in networks.psi.state_dict().items():
        assert torch.equal(value, psi[name])
    with (tmp_path / "mine_phi_log.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3
    assert json.loads(out.with_suffix(".json").read_text())["name"] == "mine"


def test_callbacks_ignore_modules_that_are_not_theirs(tmp_path):
    from sureloc.cli.training_bar import TrainingBar
    from sureloc.report.training_pictures import PhiPictures
    from sureloc.train.engine import _Log

    other = pl.LightningModule()
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    for callback in (PhiPictures(tmp_path), TrainingBar("phi", 3, quiet=True), _Log(tmp_path)):
        callback.on_validation_end(trainer, other)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("amx", [True, False])
@pytest.mark.parametrize("avx512", [True, False])
def test_bfloat16_only_where_the_processor_multiplies_it(monkeypatch, amx, avx512):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    inputs = torch.ones(2, 2)
    for precision, narrow in (("bfloat16", amx or avx512), ("float32", False)):
        with phi_training(precision=precision).autocast():
            assert ((inputs @ inputs).dtype == torch.bfloat16) == narrow
