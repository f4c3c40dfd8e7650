"""Exported weights: onnxruntime and bioimageio.core get from them what PyTorch gets."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import zipfile
from importlib.util import find_spec

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml

from conftest import ROOT
from sureloc.errors import InputError, WeightsError
from sureloc.io import frame_models
from sureloc.io.frame_models import PAPER, check_sizes_are_free, write_frame_model
from sureloc.networks.blocks import unfold
from sureloc.networks.frame_model import FrameModel, example_inputs
from sureloc.networks.posterior import posterior_images
from sureloc.networks.weights import (
    DrawsCard,
    ListLevels,
    Networks,
    PsiCard,
    SplitCard,
    UNetCard,
    build_networks,
    load_weights,
    save_weights,
)
from sureloc.seeds import torch_generator
from sureloc.shipped import describe_weights
from test_networks import small_networks, stirred

TOLERANCE = 1e-5  # mass per fine pixel; the peak of one emitter is 0.15
NAMES = ("electrons", "read_variance", "optics", "noise")


def networks_of(change=lambda card: card, **psi) -> Networks:
    card = small_networks().card
    card = card.model_copy(
        update={
            "psi": change(card.psi.model_copy(update=psi)),
            "draws": DrawsCard(target="preconditioned", evaluations=2, pixel_map=True),
        }
    )
    networks = build_networks(card)
    for network in (networks.phi, networks.psi):
        stirred(network, 3).float()
    estimates, values = networks.pixel_map.shift.shape
    # Smooth, as a fitted one: a steep map would magnify differences of rounding.
    wave = torch.linspace(0.0, 6.0, values).sin() * torch.linspace(0.5, 1.0, estimates)[:, None]
    networks.pixel_map.shift.copy_(0.1 * wave)
    return networks


def split(card: PsiCard) -> SplitCard:
    """Give two networks for one: draws of two steps run each of them once."""
    return SplitCard(
        kind="split", sigma=2.0, noisier=card.model_copy(update={"windows": (1, 5)}), quieter=card
    )


@pytest.fixture(scope="module", params=["local", "overview", "split"])
def exported(request, tmp_path_factory, run_python):
    """Give networks, and the package that the command writes of them.

    In a process of its own: to check documented shapes, as tests do here, fixes traced sizes.
    """
    networks = networks_of(overview=int(request.param == "overview"))
    if request.param == "split":
        networks = networks_of(split)
    folder = tmp_path_factory.mktemp("exported")
    save_weights(networks, folder / "weights.safetensors")
    package = folder / "package.zip"
    export(run_python, folder / "weights.safetensors", package)
    return networks, package


def export(run_python, weights, out):
    command = ("-c", "from sureloc.cli import main; main()", "weights", "export", str(weights))
    said = run_python(*command, "--out", str(out), timeout_s=1200)
    assert str(out) in said.stdout
    assert said.stderr == ""


def run_graph(graph, inputs):
    """Mean and draw that onnxruntime gets, and what the file says of itself."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    fed = {name: one.numpy() for name, one in zip(NAMES, inputs, strict=True)}
    return session.run(["mean", "draw"], fed), session.get_modelmeta().custom_metadata_map


def inputs_of(frames, shape, seed=1):
    return example_inputs(frames, shape, torch.Generator().manual_seed(seed))


# --- The network --------------------------------------------------------------------------------


def test_the_frame_model_gives_the_images_that_sureloc_draws():
    networks = networks_of()
    electrons, variance, _, _ = inputs_of(1, (20, 24))
    wanted = posterior_images(
        networks, electrons[:, 0], variance[0, 0], 1.2, 2.0, 1, 5, [7], precision="float32"
    )
    noise = torch.randn((1, 16, 20, 24), generator=torch_generator(5, "draw", 7, 0))
    optics = torch.tensor([[1.2, 2.0]])
    mean, draw = FrameModel(networks)(electrons, variance, optics, unfold(noise))
    torch.testing.assert_close(mean[:, 0], wanted.yhat, rtol=0, atol=1e-6)
    torch.testing.assert_close(draw[:, 0], wanted.draws[:, 0], rtol=0, atol=1e-6)
    assert not torch.allclose(mean, draw, atol=1e-3)


def test_the_frame_model_draws_at_the_list_of_levels_that_a_card_names():
    networks = networks_of()
    listed = ListLevels(kind="list", sigmas=(70.0, 0.4))
    card = networks.card.model_copy(update={"levels": listed})
    model = FrameModel(dataclasses.replace(networks, card=card))
    assert model.levels == tuple(listed.levels(2).tolist())
    plain = FrameModel(networks)
    inputs = inputs_of(1, (8, 8))
    assert not torch.allclose(model(*inputs)[1], plain(*inputs)[1], atol=1e-3)


def test_pixels_beyond_the_stated_reach_change_nothing():
    model = FrameModel(networks_of())
    inputs = list(inputs_of(1, (8, 80)))
    before = model(*inputs)
    inputs[0] = inputs[0].clone()
    inputs[0][..., 0] += 500.0
    for radius, old, new in zip(
        (model.mean_radius_px, model.draw_radius_px), before, model(*inputs), strict=True
    ):
        changed = ((new - old).abs() > 1e-7).any(dim=2)[0, 0].nonzero()
        assert 0 < int(changed.max()) < 4 * (radius + 1)


def test_draws_with_noise_at_every_step_are_refused():
    networks = networks_of()
    card = networks.card.model_copy(update={"draws": DrawsCard(sampler="ancestral")})
    with pytest.raises(WeightsError, match=r"'ancestral'.*dpm_solver_2m"):
        FrameModel(Networks(networks.phi, networks.psi, card))


def test_u_nets_are_refused():
    card = small_networks().card.model_copy(
        update={"psi": UNetCard(kind="unet", width=4, multipliers=(1,), attention_halvings=())}
    )
    with pytest.raises(WeightsError, match="U-Net"):
        FrameModel(build_networks(card))


# --- Files --------------------------------------------------------------------------------------


def test_onnxruntime_gets_what_pytorch_gets_at_any_size_and_number(exported):
    networks, path = exported
    model = FrameModel(networks)
    graph = zipfile.ZipFile(path).read("weights.onnx")
    odd = model.multiple_px == 1
    for frames, shape in ((1, (32, 32)), (3, (41, 57) if odd else (44, 60)), (2, (8, 72))):
        inputs = inputs_of(frames, shape)
        got, said = run_graph(graph, inputs)
        assert said["weights"] == "test"
        with torch.inference_mode():
            wanted = model(*inputs)
        for mine, yours in zip(wanted, got, strict=True):
            assert mine.shape == yours.shape == (frames, 1, 4 * shape[0], 4 * shape[1])
            assert float(mine.std()) > 100 * TOLERANCE
            np.testing.assert_allclose(yours, mine.numpy(), rtol=0, atol=TOLERANCE)


def test_the_package_names_the_paper_and_no_address(exported):
    """Nothing in the repository knows a DOI or an address of the paper; none may be made up."""
    package = zipfile.ZipFile(exported[1])
    texts = {name: package.read(name).decode() for name in ("rdf.yaml", "README.md")}
    assert [name for name, text in texts.items() if "http" in text or "doi.org" in text] == []
    assert "cite" not in yaml.safe_load(texts["rdf.yaml"])
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"][0]
    assert not {"doi", "url", "identifiers"} & set(cited)  # once there is one, cite it
    assert cited["title"] == PAPER
    assert PAPER in texts["README.md"]


@pytest.fixture(scope="module")
def fast_package(tmp_path_factory, run_python):
    """Give the package that the command writes of the weights `fast`: half a minute of a core."""
    package = tmp_path_factory.mktemp("fast") / "fast.zip"
    export(run_python, "fast", package)
    return package


@pytest.mark.parametrize("name", ["fast", "default"])
def test_the_shipped_weights_are_exported_as_they_are(name, request, tmp_path, run_python):
    if name == "fast":
        graph = zipfile.ZipFile(request.getfixturevalue("fast_package")).read("weights.onnx")
    else:
        export(run_python, name, tmp_path / "weights.onnx")
        graph = (tmp_path / "weights.onnx").read_bytes()
    inputs = inputs_of(2, (24, 28))
    got, said = run_graph(graph, inputs)
    shipped = describe_weights(name)
    assert (said["weights"], said["fingerprint"]) == (name, shipped.fingerprint)
    with torch.inference_mode():
        wanted = FrameModel(load_weights(name))(*inputs)
    for mine, yours in zip(wanted, got, strict=True):
        assert float(mine.std()) > 100 * TOLERANCE
        np.testing.assert_allclose(yours, mine.numpy(), rtol=0, atol=TOLERANCE)


def test_a_graph_for_one_size_is_refused():
    def graph(*sizes):
        tensor = onnx.helper.make_tensor_value_info("electrons", onnx.TensorProto.FLOAT, sizes)
        return onnx.helper.make_model(onnx.helper.make_graph([], "frames", [tensor], []))

    check_sizes_are_free(graph("frames", 1, "rows", "columns"))
    for sizes in ((2, 1, "rows", "columns"), ("frames", 1, "rows", 20)):
        with pytest.raises(WeightsError, match="electrons of one size only"):
            check_sizes_are_free(graph(*sizes))


def python_with_bioimageio():
    """Give the Python of scripts/readers.txt, which `make test-readers` names, or skip."""
    given = os.environ.get("SURELOC_READERS")
    if given is None:
        pytest.skip("bioimageio.core is not installed: make test-readers")
    return given


def check_in_bioimageio(networks, package, inputs, folder):
    """Have bioimageio.core validate a package and run it, and compare with PyTorch."""
    python = python_with_bioimageio()
    (folder / "package.zip").write_bytes(package.read_bytes())
    for name, one in zip(NAMES, inputs, strict=True):
        np.save(folder / f"{name}.npy", one.numpy())
    done = subprocess.run(
        [
            python,
            str(ROOT / "scripts" / "foreign_programs.py"),
            *("run", "bioimageio", str(folder)),
        ],
        env=os.environ | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["failed"]) == ("passed", [])
    with torch.inference_mode():
        wanted = FrameModel(networks)(*inputs)
    for name, mine in zip(("mean", "draw"), wanted, strict=True):
        got = np.load(folder / f"{name}.npy")
        np.testing.assert_allclose(got, mine.numpy(), rtol=0, atol=TOLERANCE)


def test_bioimageio_validates_the_package_and_runs_it(exported, tmp_path):
    networks, package = exported
    shape = (70, 75) if networks.radius_px else (68, 76)
    check_in_bioimageio(networks, package, inputs_of(2, shape), tmp_path)


def test_bioimageio_validates_the_shipped_weights_and_runs_them(request, tmp_path):
    python_with_bioimageio()  # before the long export
    package = request.getfixturevalue("fast_package")
    check_in_bioimageio(load_weights("fast"), package, inputs_of(2, (40, 52)), tmp_path)


@pytest.mark.parametrize("name", ["weights.pt", "weights"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"written as \.onnx, or as \.zip"):
        write_frame_model(networks_of(), "", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_files_are_not_replaced(tmp_path):
    (tmp_path / "weights.onnx").touch()
    with pytest.raises(InputError, match="exists already"):
        write_frame_model(networks_of(), "", tmp_path / "weights.onnx")


def test_without_the_extra_it_says_which(tmp_path, monkeypatch):
    monkeypatch.setattr(
        frame_models, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name)
    )
    with pytest.raises(InputError, match=r"pip install 'sureloc\[onnx\]'"):
        write_frame_model(networks_of(), "", tmp_path / "weights.onnx")
    assert list(tmp_path.iterdir()) == []
