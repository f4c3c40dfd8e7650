"""The paper's U-Net: its size, where it attends, any tile, and the same life as the default Psi."""

from __future__ import annotations

import math

import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import load_file

from conftest import ROOT
from sureloc.config.training import load_training_recipe
from sureloc.errors import RecipeError
from sureloc.io.weights import read_phi
from sureloc.networks.blocks import fold
from sureloc.networks.normalization import CHANNELS, network_input
from sureloc.networks.phi import PaperPhi
from sureloc.networks.posterior import posterior_images
from sureloc.networks.psi import Psi
from sureloc.networks.unet import SelfAttention, UNetPsi
from sureloc.networks.weights import (
    Card,
    Networks,
    PaperPhiCard,
    PsiCard,
    UNetCard,
    build_networks,
    build_psi,
    load_weights,
    save_weights,
)
from sureloc.physics.kde import from_display_range
from sureloc.train.engine import fit
from sureloc.train.export import assemble, make_card, phi_of_training
from sureloc.train.phi import PhiTraining
from sureloc.train.psi import PsiTraining
from sureloc.train.recipe import PhiTrainingRecipe, PsiTrainingRecipe
from test_networks import frame, small_networks, stirred
from test_training import PHI, PSI, SHORT, phi_training, run, without_minutes

SMALL = {"width": 4, "multipliers": (1, 2, 2, 2), "blocks": 1, "embedding": 8}
UNET = {
    "kind": "psi",
    "data": "display",
    "network": {"kind": "unet", **SMALL},
    "noise": {"kind": "linear_beta", "steps": 100, "levels_per_tile": 2},
    "objective": {"target": "epsilon", "sampler": "ancestral", "evaluations": 3},
    **SHORT,
}


def small_unet(**changes) -> UNetPsi:
    network = stirred(UNetPsi(**(SMALL | changes)))
    for layer in network.modules():
        if isinstance(layer, torch.nn.GroupNorm):
            torch.nn.init.ones_(layer.weight)
    return network


def seen(height, width, tiles=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    names = (("frames", CHANNELS), ("trunk", 8), ("estimate", 16))
    return {
        name: torch.randn((tiles, channels, height, width), generator=generator).double()
        for name, channels in names
    }


def noisy(height, width, draws=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((draws, 16, height, width), generator=generator).double()


def level(*log_snr):
    return torch.tensor(log_snr).double()


def attended(network, height, width):
    """Run once; give the size of every map that attention really saw."""
    sizes = []
    hooks = [
        layer.register_forward_hook(lambda _, given, __: sizes.append(tuple(given[0].shape[2:])))
        for layer in network.modules()
        if isinstance(layer, SelfAttention)
    ]
    network(noisy(height, width), level(0.0), network.condition(**seen(height, width)))
    for hook in hooks:
        hook.remove()
    return sizes


# --- Size and attention -------------------------------------------------------------------------


def test_the_papers_recipe_is_as_large_as_the_authors_network():
    recipe = load_training_recipe(PsiTrainingRecipe, "paper")
    with torch.device("meta"):  # sizes without 900 MB of numbers
        network = build_psi(recipe.network.card(), 96)
    count = sum(p.numel() for p in network.parameters())
    assert count == pytest.approx(221e6, rel=0.05)
    assert f"{count / 1e6:.0f} million" in recipe.description
    levels = recipe.noise.card().levels(recipe.objective.evaluations)
    assert levels[0].item() == pytest.approx(0.60248, abs=1e-5)  # the schedule as printed
    assert recipe.network == type(recipe.network)(kind="unet")  # the defaults are the paper's


def test_recipe_and_page_say_the_same_of_the_papers_norm():
    recipe = load_training_recipe(PsiTrainingRecipe, "paper")
    assert (recipe.objective.target, recipe.objective.norm) == ("epsilon", "L2")
    page = " ".join((ROOT / "docs/theory.md").read_text().split())
    assert "kept as the recipe `paper`, with the squared error too" in page
    assert "by the squared error" in recipe.description


def test_attention_runs_at_20_by_20_of_80_by_80_and_in_the_middle():
    # One block before halving, two after doubling, and the middle after three halvings.
    assert attended(small_unet(), 20, 20) == [(20, 20), (10, 10), (20, 20), (20, 20)]
    assert attended(small_unet(attention_halvings=()), 20, 20) == [(10, 10)]
    both = attended(small_unet(attention_halvings=(2, 3)), 20, 20)
    assert sorted(set(both)) == [(10, 10), (20, 20)]
    assert len(both) == 7


def test_attention_that_would_never_run_is_refused(tmp_path):
    with pytest.raises(ValidationError, match="attention elsewhere would never run"):
        UNetCard(kind="unet", multipliers=(1, 2), attention_halvings=(2,))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(UNET | {"network": {"kind": "unet", "multipliers": [1, 2]}}))
    with pytest.raises(RecipeError, match=r"attention_halvings is \[2\]"):
        load_training_recipe(PsiTrainingRecipe, path)


def test_attention_carries_what_convolutions_do_not_reach():
    far = seen(20, 20)
    changed = far["frames"].clone()
    changed[:, :, 0, 0] += 10.0
    network = small_unet(blocks=1, multipliers=(1, 1, 1), attention_halvings=(2,))
    given = noisy(20, 20)
    for layer in network.modules():
        if isinstance(layer, torch.nn.GroupNorm):
            layer.forward = lambda features: features  # its means reach everywhere too

    def both():
        conditions = (
            network.condition(frames, far["trunk"], far["estimate"])
            for frames in (far["frames"], changed)
        )
        return [network(given, level(0.0), condition) for condition in conditions]

    with_it = both()
    for layer in network.modules():
        if isinstance(layer, SelfAttention):
            layer.out.weight.zero_()
    without = both()
    assert (with_it[0] - with_it[1])[..., 19, 19].abs().max() > 0
    assert (without[0] - without[1])[..., 19, 19].abs().max() == 0
    assert network.radius_px is None


# --- As a function ------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(20, 20), (5, 9), (1, 2)])
def test_tiles_of_any_size_keep_their_shape(height, width):
    network = small_unet()
    condition = network.condition(**seen(height, width))
    assert condition.shape == (1, 16 * (1 + CHANNELS), height, width)
    out = network(noisy(height, width, draws=2), level(0.0), condition)
    assert out.shape == (2, 16, height, width)


@pytest.mark.parametrize("conditioning", ["yhat", "x", "both"])
def test_it_sees_what_its_conditioning_names(conditioning):
    network = small_unet(conditioning=conditioning)
    given = seen(8, 8)
    base = network.condition(**given)
    depends = {
        name: not torch.equal(network.condition(**(given | {name: value + 1.0})), base)
        for name, value in given.items()
    }
    assert depends == {
        "frames": conditioning != "yhat",
        "trunk": False,
        "estimate": conditioning != "x",
    }


def test_what_is_concatenated_lies_where_the_noisy_image_lies():
    network = small_unet(conditioning="both")
    given = seen(8, 8)
    ramp = torch.arange(32).double() / 4 - 0.375  # camera px of every fine column
    given["frames"] = torch.arange(8).double().expand(1, CHANNELS, 8, 8)
    given["estimate"] = fold(ramp.expand(1, 1, 32, 32))
    fine = torch.nn.functional.pixel_shuffle(network.condition(**given), 4)
    inside = slice(8, 24)  # the edges bend
    error = (fine[0, :, inside, inside] - ramp[inside]).abs()
    assert error[0].max() == 0
    assert error.max() < 0.06  # torch's bicubic kernel ripples on a ramp; a fine pixel is 0.25


def test_a_fresh_one_denoises_nothing_and_a_trained_one_knows_the_level():
    fresh = UNetPsi(**SMALL).double()
    condition = fresh.condition(**seen(8, 8))
    assert fresh(noisy(8, 8), level(0.0), condition).abs().max() == 0
    network = small_unet()
    low, high = (network(noisy(8, 8), level(v), condition) for v in (-4.0, 4.0))
    assert not torch.allclose(low, high, rtol=0.01)


def test_one_condition_and_level_for_all_draws_are_those_of_each():
    network = small_unet()
    condition = network.condition(**seen(6, 6))
    one = network(noisy(6, 6, draws=3), level(0.5), condition)
    each = network(noisy(6, 6, draws=3), level(0.5, 0.5, 0.5), condition.repeat(3, 1, 1, 1))
    torch.testing.assert_close(one, each)


# --- Weights, draws, training -------------------------------------------------------------------


def unet_networks() -> Networks:
    values = small_networks().card.model_dump() | {"psi": {"kind": "unet", **SMALL}}
    networks = build_networks(Card.model_validate(values))
    for network in (networks.phi, networks.psi):
        stirred(network).float()
    return networks


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_is_saved_loaded_and_drawn_from_like_the_other(precision, tmp_path):
    networks, path = unet_networks(), tmp_path / "unet.safetensors"
    save_weights(networks, path)
    again = load_weights(path)
    assert again.card == networks.card
    assert isinstance(again.psi, UNetPsi)
    assert again.radius_px is None
    drawn = [
        posterior_images(
            each, frame(9, 10), torch.ones(9, 10), 1.3, 1.0, 3, 7, [4], 3, precision=precision
        ).draws
        for each in (networks, again)
    ]
    assert drawn[0].shape == (1, 3, 36, 40)
    # Weights read from a file lie otherwise in memory, and are summed in another order.
    torch.testing.assert_close(*drawn, rtol=0, atol={"float32": 1e-5, "bfloat16": 1e-2}[precision])
    assert drawn[0].isfinite().all()


def test_the_papers_pipeline_runs_from_recipes_to_draws(tmp_path):
    """phi, Psi on it, and their export as the paper has them, but small."""
    paper = {"kind": "phi", "network": {"kind": "paper", "width": 4, "dilations": [1, 2]}, **SHORT}
    out, folders = tmp_path / "mine.safetensors", {k: tmp_path / k for k in ("phi", "psi")}
    for kind, recipe in (("phi", paper), ("psi", UNET)):
        (tmp_path / f"{kind}.yaml").write_text(yaml.safe_dump(recipe))
    for arguments in (
        ("phi", tmp_path / "phi.yaml", "--out", folders["phi"]),
        ("psi", tmp_path / "psi.yaml", "--phi", folders["phi"], "--out", folders["psi"]),
    ):
        done = run(*arguments, "--device", "cpu", "-q")
        assert done.exit_code == 0, done.output
    done = run("export", folders["phi"], folders["psi"], "--out", out)
    assert done.exit_code == 0, done.output

    networks = load_weights(out)
    assert networks.card.phi == PaperPhiCard(kind="paper", width=4, dilations=(1, 2))
    assert isinstance(networks.phi, PaperPhi)
    trained = load_file(folders["phi"] / "best.safetensors")
    for name, value in networks.phi.state_dict().items():
        assert torch.equal(value, trained[name]), name  # means of batches too: Psi left them alone
    electrons, variance = frame(9, 10), torch.ones(9, 10)
    images = posterior_images(networks, electrons, variance, 1.3, 1.0, 3, 7, [4], None, "float32")
    assert images.draws.shape == (1, 3, 36, 40)
    assert images.draws.isfinite().all()
    assert images.draws.std(dim=1).min() > 0
    channels = network_input(electrons, variance[None], torch.tensor([1.3]), torch.ones(1))
    scaled = networks.phi(channels)[:, 0]
    torch.testing.assert_close(images.yhat, from_display_range(scaled), rtol=0, atol=1e-6)
    again = read_phi(out)
    assert again.recipe == PhiTrainingRecipe(**paper)
    psi = PsiTraining(PsiTrainingRecipe(**UNET), again.network)
    assert math.isfinite(psi.loss(psi.generator("train", 0)).item())


def test_the_papers_recipes_go_together():
    recipes = (load_training_recipe(m, "paper") for m in (PhiTrainingRecipe, PsiTrainingRecipe))
    card = make_card(*recipes, "paper")
    assert (card.phi.kind, card.psi.kind, card.draws.data) == ("paper", "unet", "display")


def test_a_psi_of_the_default_kind_builds_on_the_papers_phi_too(tmp_path):
    paper = {"kind": "paper", "width": 4, "dilations": [1]}
    phi = PhiTraining(PhiTrainingRecipe(**PHI | {"network": paper}))
    stirred(phi.average).float()
    training = PsiTraining(PsiTrainingRecipe(**PSI), phi.average)
    card = make_card(phi.recipe, training.recipe, "mine")
    built = build_networks(card)
    built.phi.load_state_dict(phi.average.state_dict())
    built.psi.load_state_dict(training.average.state_dict())
    save_weights(built, tmp_path / "mine.safetensors")
    assert isinstance(load_weights(tmp_path / "mine.safetensors").psi, Psi)
    assert math.isfinite(training.loss(training.generator("train", 0)).item())


def test_a_card_of_the_default_phi_is_written_as_before():
    """Runs are known by the fingerprint of their weights' card."""
    written = small_networks().card.model_dump(mode="json")
    assert written["phi"] == {"width": 8, "dilations": [1, 2]}
    assert Card.model_validate(written).phi == small_networks().card.phi


def test_cards_without_a_kind_are_those_of_the_default_psi():
    values = small_networks().card.model_dump()
    del values["psi"]["kind"]
    assert isinstance(Card.model_validate(values).psi, PsiCard)


def test_it_trains_resumes_and_is_exported(tmp_path):
    recipe = fit(phi_training(), tmp_path / "phi", device="cpu").recipe
    phi = phi_of_training(recipe, tmp_path / "phi")

    def training():
        return PsiTraining(PsiTrainingRecipe(**UNET), phi.network)

    trained = fit(training(), tmp_path / "psi", device="cpu")
    assert isinstance(trained.network, UNetPsi)
    assert trained.network.residual_scale.item() == 0.5  # the paper's [-1, 1]
    assert [row["step"] for row in trained.history] == [3, 6, 9]
    assert not torch.equal(trained.network.head.weight, training().network.head.weight)
    again = fit(training(), tmp_path / "psi", resume=True, device="cpu")
    assert str(without_minutes(again.history)) == str(without_minutes(trained.history))
    networks, _ = assemble(phi, (trained.recipe, tmp_path / "psi"), "mine")
    assert networks.card.psi == trained.recipe.network.card()
    assert networks.card.draws.data == "display"
    best = load_file(tmp_path / "psi" / "best.safetensors")
    for name, value in networks.psi.state_dict().items():
        assert torch.equal(value, best[name])
