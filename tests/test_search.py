"""The search of schedules: its distance, what it prefers, and what it leaves for people."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from pydantic import TypeAdapter
from torch.nn import functional
from typer.testing import CliRunner

from conftest import ROOT
from sureloc.cli import app as cli
from sureloc.diffusion import samplers
from sureloc.errors import InputError, WeightsError
from sureloc.io.feature_network import read_feature_network
from sureloc.io.search import write_search
from sureloc.networks.blocks import fold, unfold
from sureloc.networks.image_features import phi_features
from sureloc.networks.posterior import SeenTiles
from sureloc.networks.psi import PsiNetwork
from sureloc.networks.weights import (
    CosineLevels,
    DrawsCard,
    KarrasLevels,
    LevelsCard,
    LinearBetaLevels,
    ListLevels,
    LogSnrLevels,
    Networks,
    load_weights,
    save_weights,
)
from sureloc.physics.kde import peak_of_one, render_kde
from sureloc.report.reproduction_schedules import SCHEDULES
from sureloc.report.schedule_search import draw_search
from sureloc.scoring.frechet import frechet_distance
from sureloc.simulate.tiles import TileConditions
from sureloc.train.recipe import PsiTrainingRecipe
from sureloc.train.search import (
    CALIBRATED,
    STEPS,
    Candidate,
    Features,
    HeldOut,
    Scored,
    candidates,
    chosen_by_distance,
    chosen_by_energy,
    family,
    held_out_tiles,
    search,
)
from test_networks import small_networks

WIDE = KarrasLevels(kind="karras", sigma_min=0.03, sigma_max=80.0, rho=7.0)
PRINTED = LinearBetaLevels(kind="linear_beta")


# --- The distance -------------------------------------------------------------------------------


def test_equal_sets_are_no_distance_apart(torch_rng):
    items = torch.randn((50, 6), generator=torch_rng)
    assert frechet_distance(items, items) == pytest.approx(0.0, abs=1e-10)
    assert frechet_distance(items, items.flip(0)) == pytest.approx(0.0, abs=1e-10)


def test_shifted_sets_are_their_shift_apart(torch_rng):
    items = torch.randn((50, 3), generator=torch_rng).double()
    shift = torch.tensor([1.0, -2.0, 0.5]).double()
    assert frechet_distance(items, items + shift) == pytest.approx(5.25)


def test_the_distance_of_gaussians_is_the_closed_form(torch_rng):
    normal = torch.randn((200_000, 2), generator=torch_rng).double()
    mixing = torch.tensor([[1.0, 0.6], [0.0, 0.8]]).double()
    one, other = normal @ mixing, 3.0 * normal @ mixing + 1.0
    # S_2 = 9 S_1: |m|^2 + tr(S_1) (1 + 9 - 2 * 3) = 2 + 2 * 4.
    assert frechet_distance(one, other) == pytest.approx(10.0, rel=0.01)
    # Two that do not commute: against the eigenvalues of S_1 S_2 itself.
    other = normal @ torch.tensor([[2.0, 0.0], [-1.0, 0.5]]).double()
    s, t = one.T.cov(), other.T.cov()
    root = torch.linalg.eigvals(s @ t).real.sqrt().sum()
    wanted = (one.mean(0) - other.mean(0)).square().sum() + s.trace() + t.trace() - 2 * root
    assert frechet_distance(one, other) == pytest.approx(wanted.item(), rel=1e-9)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one), rel=1e-9)


def test_the_distance_of_few_items_with_many_features_is_that_in_the_space_they_span(torch_rng):
    one, other = (torch.randn((5, 3), generator=torch_rng).double() for _ in range(2))
    axes = torch.linalg.qr(torch.randn((300, 3), generator=torch_rng).double()).Q
    wanted = frechet_distance(one, other)
    assert frechet_distance(one @ axes.T, other @ axes.T) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(one @ axes.T, one @ axes.T) == pytest.approx(0.0, abs=1e-12)


def test_a_distance_needs_two_items_in_each_set():
    with pytest.raises(InputError, match="1 and 3 items"):
        frechet_distance(torch.zeros(1, 2), torch.zeros(3, 2))


def test_the_features_of_the_shipped_phi_tell_noise_and_blur_from_images(torch_rng):
    phi = load_weights("default").phi
    place = 2 + 4 * torch.rand((2, 36), generator=torch_rng)
    tile = torch.arange(12).repeat_interleave(3)
    ones = torch.ones(36)
    unit = peak_of_one(1.0)

    def images(kernel, places):
        return render_kde(*places, ones, tile, (12, 8, 8), kernel) / unit

    features = {
        "same law": phi_features(phi, images(1.0, 7.5 - place), 1.0),
        "noisy": phi_features(
            phi, images(1.0, place) + 0.05 * torch.randn((12, 32, 32), generator=torch_rng), 1.0
        ),
        "blurred": phi_features(phi, images(1.4, place), 1.0),
    }
    true = phi_features(phi, images(1.0, place), 1.0)
    assert true.shape == (12, phi.width)
    distance = {name: frechet_distance(true, one) for name, one in features.items()}
    assert distance["noisy"] > 5 * distance["same law"]
    assert distance["blurred"] > 2 * distance["same law"]


# --- What the search prefers --------------------------------------------------------------------


class Ideal(PsiNetwork):
    """The exact denoiser of residuals N(mean, variance I), as a preconditioned network."""

    radius_px = 0

    def __init__(self, variance: float, mean: float = 0.0) -> None:
        super().__init__()
        self.variance, self.mean = variance, mean

    def condition(self, _frames, _trunk, estimate):
        return estimate

    def forward(self, noisy, log_snr, _condition):
        gamma = log_snr.double().sigmoid().reshape(-1, 1, 1, 1)
        total = gamma * self.variance + 1 - gamma
        factor = (gamma * (1 - gamma)).sqrt() * (self.variance - 1) / total
        # What sqrt(1 - gamma) F adds to sqrt(gamma) y for the mean.
        return (factor * noisy + (1 - gamma).sqrt() * self.mean / total).to(noisy)


def gaussian_problem(variance=0.1, tiles=40, side=8):
    """Give the ideal network for residuals of a variance, and tiles with such residuals."""
    networks = small_networks()
    networks = Networks(networks.phi, Ideal(variance), networks.card)
    generator = torch.Generator().manual_seed(5)
    estimate = fold(torch.full((tiles, 1, 4 * side, 4 * side), 0.5))
    truth = 0.5 + variance**0.5 * torch.randn((tiles, 4 * side, 4 * side), generator=generator)
    return networks, HeldOut(SeenTiles(estimate, estimate, estimate), truth)


def moments(images):
    """Stand in for phi's features: what is plain in an image of noise."""
    flat = images.flatten(1)
    return torch.stack([flat.mean(1), flat.std(1)], dim=1)


def searched(schedules, **changes):
    networks, held_out = gaussian_problem()
    arguments = {"draws": 4, "features": Features("moments", moments)} | changes
    return list(search(networks, held_out, schedules, **arguments))


def test_a_schedule_from_the_wrong_level_loses():
    right, wrong, coarse = searched(
        [Candidate(WIDE, 16), Candidate(PRINTED, 100), Candidate(WIDE, 2)]
    )
    assert 0.97 < right.spread_skill < 1.03
    # It starts with variance 1 where gamma * 0.1 + 1 - gamma is right, and keeps that factor; the
    # mean of 4 draws errs by a quarter of their variance beside that of the truth.
    gamma = float(PRINTED.levels(100)[0])
    factor = 1 / (0.1 * gamma + 1 - gamma)
    assert wrong.spread_skill == pytest.approx((1.25 * factor / (1 + factor / 4)) ** 0.5, rel=0.01)
    assert coarse.spread_skill < 0.9
    for other in (wrong, coarse):
        assert right.energy < other.energy
        assert right.distance < other.distance
    scored = [wrong, coarse, right]
    assert chosen_by_energy(scored) is right
    assert chosen_by_distance(scored) is right
    assert chosen_by_energy([wrong, coarse]) is None
    assert right.energy_se < 0.05 * right.energy


def test_schedules_meet_the_same_noise_and_tiles_alone_or_among_others():
    one, two = searched([Candidate(WIDE, 4), Candidate(WIDE, 4)])
    assert one == two
    assert searched([Candidate(WIDE, 4)]) == [one]
    assert searched([Candidate(WIDE, 4)], seed=1) != [one]


def scored(phi_fd, energy, ratio, evaluations=8):
    return Scored(Candidate(WIDE, evaluations), evaluations, phi_fd, energy, 0.1, ratio)


def test_the_choices_differ_where_a_small_distance_hides_a_wrong_spread():
    pretty, honest, slow = scored(1.0, 1.9, 0.8), scored(2.0, 2.0, 1.0), scored(1.0, 2.0, 1.0, 99)
    assert chosen_by_distance([slow, honest, pretty]) is pretty
    assert chosen_by_energy([slow, honest, pretty]) is honest  # of equals the faster one


# --- What is tried ------------------------------------------------------------------------------


def test_every_family_is_tried_within_the_budget():
    networks = small_networks()
    tried = candidates(networks)
    assert {type(one.levels) for one in tried} == {KarrasLevels, CosineLevels, LinearBetaLevels}
    assert {one.steps for one in tried} == set(STEPS)
    assert len(set(tried)) == len(tried)
    assert tried[0].levels == networks.card.levels  # in the grid already, and not tried twice
    assert len({family(one.levels) for one in tried}) == len(tried) / len(STEPS)
    for one in tried:
        assert len(one.levels.levels(one.steps)) == one.steps
    card = networks.card.model_copy(update={"draws": DrawsCard(sampler="heun")})
    assert max(one.steps for one in candidates(replace(networks, card=card))) == 32
    with pytest.raises(InputError, match=r"steps is \[51, 100\]"):
        candidates(replace(networks, card=card), [51, 100])


def test_the_list_of_a_card_is_tried_also_at_its_own_length():
    networks = small_networks()
    listed = ListLevels(kind="list", sigmas=(80.0, 9.0, 0.3))
    card = networks.card.model_copy(update={"levels": listed})
    tried = [one.steps for one in candidates(replace(networks, card=card), [2, 4])[:3]]
    assert tried == [2, 4, 3]
    assert str(Candidate(listed, 3)) == "list 80 9 0.3, 3 steps"
    many = ListLevels(kind="list", sigmas=tuple(range(20, 0, -1)))
    assert family(many) == "list 20 to 1, 20 levels"
    assert family(LogSnrLevels(kind="log_snr", sigma_min=0.3, sigma_max=80)) == "log-SNR 80 to 0.3"


@pytest.mark.parametrize("name", ["ancestral", "ddim", "dpm_solver_2m", "heun", "unipc"])
def test_evaluations_are_counted_as_samplers_make_them(name):
    calls = []

    def denoiser(noisy, gamma):
        calls.append(gamma)
        return 0.5 * noisy

    sampler = getattr(samplers, name)
    sampler(denoiser, torch.ones(1, 2), WIDE.levels(5), torch.Generator().manual_seed(0))
    assert len(calls) == samplers.evaluations(sampler, 5)


def test_weights_of_one_step_have_no_schedule_to_search():
    with pytest.raises(WeightsError, match=r"weights fast draw in one evaluation"):
        candidates(load_weights("fast"))


def test_held_out_tiles_are_as_asked_for():
    networks = small_networks()
    tiles = held_out_tiles(networks, TileConditions(), 18, 8, 3)
    assert tiles.truth.shape == (18, 32, 32)
    assert tiles.seen.estimate.shape == (18, 16, 8, 8)
    again = held_out_tiles(networks, TileConditions(), 18, 8, 3)
    assert torch.equal(tiles.truth, again.truth)
    assert not torch.equal(tiles.truth, held_out_tiles(networks, TileConditions(), 18, 8, 4).truth)
    assert unfold(tiles.seen.centre).shape == (18, 1, 32, 32)


# --- Features of a network that the user has ----------------------------------------------------


FLOAT, DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE


def write_network(path, nodes, takes, *tensors, gives=FLOAT):
    """Write a graph from "seen" to "features"."""
    graph = onnx.helper.make_graph(
        nodes,
        "features",
        [onnx.helper.make_tensor_value_info("seen", FLOAT, takes)],
        [onnx.helper.make_tensor_value_info("features", gives, None)],
        tensors,
    )
    # Versions that any runtime of the last years reads.
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    path.write_bytes(model.SerializeToString())


def conv_network(path, size=("rows", "columns"), images="images", colours=1, **changes):
    """Write a network whose first output are 4 maps; give their filters."""
    generator = np.random.default_rng(2)
    filters = generator.normal(size=(4, colours, 3, 3)).astype(np.float32)
    where = {"pads": [1, 1, 1, 1]} | changes
    write_network(
        path,
        [onnx.helper.make_node("Conv", ["seen", "filters"], ["features"], **where)],
        [images, colours, *size],
        onnx.numpy_helper.from_array(filters, "filters"),
    )
    return torch.from_numpy(filters)


@pytest.mark.parametrize("images", ["images", 1])
def test_a_network_in_onnx_sees_images_as_the_paper_scales_them(images, tmp_path, torch_rng):
    filters = conv_network(tmp_path / "own.onnx", images=images)
    shown = 1.5 * torch.rand((18, 12, 16), generator=torch_rng) - 0.2
    features = read_feature_network(tmp_path / "own.onnx")
    assert features.name == "own.onnx"
    found = features.of(shown)
    scaled = (2 * shown[:, None] - 1).clamp(-1, 1)
    wanted = functional.conv2d(scaled, filters, padding=1).mean((2, 3))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_network_of_one_size_and_three_colours_sees_gray_images_of_that_size(tmp_path):
    filters = conv_network(tmp_path / "own.onnx", size=(10, 14), colours=3, pads=[0, 0, 0, 0])
    found = read_feature_network(tmp_path / "own.onnx").of(torch.full((2, 48, 48), 0.75))
    wanted = 0.5 * filters.sum((1, 2, 3))
    torch.testing.assert_close(found, wanted.expand(2, 4), rtol=1e-5, atol=1e-5)


def test_the_distance_on_a_linear_network_is_the_closed_form_of_its_gaussians(tmp_path, torch_rng):
    filters = conv_network(tmp_path / "own.onnx", size=(3, 3), pads=[0, 0, 0, 0])[:, 0].flatten(1)
    look = read_feature_network(tmp_path / "own.onnx").of
    images = 0.3 + 0.4 * torch.rand((40, 3, 3), generator=torch_rng)  # which no scale clips
    assert frechet_distance(look(images), look(images)) == pytest.approx(0.0, abs=1e-9)
    # Features W x with x = 2 image - 1: a shift c of images moves means by 2 c W 1.
    shift = (2 * 0.1 * filters.sum(1)).square().sum().item()
    assert frechet_distance(look(images), look(images + 0.1)) == pytest.approx(shift, rel=1e-4)
    # About their mean k times as far apart, S becomes k^2 S: (1 - k)^2 tr S is left.
    spread = (2 * images.flatten(1) @ filters.T).T.cov().trace().item()
    far = images.mean(0) + 0.5 * (images - images.mean(0))
    wanted = pytest.approx(0.25 * spread, rel=1e-4)
    assert frechet_distance(look(images), look(far)) == wanted


def test_networks_that_can_run_code_or_are_none_are_refused(tmp_path, monkeypatch):
    for suffix in (".pt", ".pth", ".ts", ".pkl", ".safetensors"):
        with pytest.raises(InputError, match=r"can run code.* weights alone lack their network"):
            read_feature_network(tmp_path / f"inception{suffix}")
    with pytest.raises(InputError, match=r"no network at .*own\.onnx"):
        read_feature_network(tmp_path / "own.onnx")
    for nonsense in (b"nonsense", b"", b"\x00\x00\x00\x00ORTM"):
        (tmp_path / "own.onnx").write_bytes(nonsense)
        with pytest.raises(InputError, match=r"own\.onnx cannot be read: .*weights inside"):
            read_feature_network(tmp_path / "own.onnx")
    monkeypatch.setattr("sureloc.networks.weight_files.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'sureloc\[onnx\]'"):
        read_feature_network(tmp_path / "own.onnx")


def test_a_network_reaches_no_other_file(tmp_path, monkeypatch):
    filters = onnx.numpy_helper.from_array(np.ones((4, 1, 3, 3), np.float32), "filters")
    (tmp_path / "filters.bin").write_bytes(filters.raw_data)
    onnx.external_data_helper.set_external_data(filters, location="filters.bin")
    filters.ClearField("raw_data")
    conv = onnx.helper.make_node("Conv", ["seen", "filters"], ["features"])
    constant = onnx.helper.make_node("Constant", [], ["filters"], value=filters)
    monkeypatch.chdir(tmp_path)  # where onnxruntime would look
    for nodes, tensors in (([conv], [filters]), ([constant, conv], [])):
        write_network(tmp_path / "parted.onnx", nodes, ["n", 1, "rows", "columns"], *tensors)
        with pytest.raises(InputError, match=r"filters lies in 'filters\.bin'\..*weights inside"):
            read_feature_network(tmp_path / "parted.onnx")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colours": 2}, "must take one input of float32 .*1 or 3"),
        ({"images": 7}, "number of images free or 1"),
        ({"size": (8, "columns")}, "must take one input"),
    ],
)
def test_networks_that_take_something_else_are_refused(changes, message, tmp_path):
    conv_network(tmp_path / "own.onnx", **changes)
    with pytest.raises(InputError, match=message):
        read_feature_network(tmp_path / "own.onnx")


def test_a_network_of_other_numbers_or_of_no_maps_is_refused(tmp_path):
    path, takes = tmp_path / "own.onnx", ["images", 1, "rows", "columns"]
    doubles = onnx.helper.make_node("Cast", ["seen"], ["features"], to=DOUBLE)
    write_network(path, [doubles], takes, gives=DOUBLE)
    with pytest.raises(InputError, match=r"gives tensor\(double\) first; this must be float32"):
        read_feature_network(path)
    axes = onnx.numpy_helper.from_array(np.array([1]), "axes")
    rows = onnx.helper.make_node("Squeeze", ["seen", "axes"], ["features"])
    write_network(path, [rows], takes, axes)
    with pytest.raises(InputError, match=r"shape \(3, 8, 9\) for 3 images; .* must be a vector"):
        read_feature_network(path).of(torch.zeros(3, 8, 9))


def test_networks_that_fail_on_images_say_so(tmp_path):
    conv_network(tmp_path / "own.onnx", pads=[0, 0, 0, 0])
    look = read_feature_network(tmp_path / "own.onnx").of
    with pytest.raises(InputError, match=r"fails on images of 2 x 2 pixels"):
        look(torch.zeros(3, 2, 2))
    with pytest.raises(InputError, match=r"shape \(3, 4, 6, 6\) for 3 .* of finite numbers"):
        look(torch.full((3, 8, 8), math.nan))


# --- What people get ----------------------------------------------------------------------------


def test_the_table_and_the_picture_show_both_choices(tmp_path):
    from matplotlib.image import imread

    listed = ListLevels(kind="list", sigmas=(80.0, 9.0, 0.3))
    even = LogSnrLevels(kind="log_snr", sigma_min=0.3, sigma_max=80.0)
    found = searched(
        [
            *(Candidate(WIDE, 4), Candidate(WIDE, 16), Candidate(PRINTED, 4)),
            *(Candidate(listed, 3), Candidate(even, 4)),
        ]
    )
    write_search(found, tmp_path)
    with (tmp_path / "schedules.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["chosen_by_energy"] for row in rows].count("True") == 1
    assert [row["chosen_by_frechet"] for row in rows].count("True") == 1
    for row, wanted in zip(rows[2:], (PRINTED, listed, even), strict=True):
        assert TypeAdapter(LevelsCard).validate_python(json.loads(row["levels"])) == wanted
    assert float(rows[1]["energy"]) == found[1].energy
    draw_search(found, tmp_path / "schedules.png")
    draw_search([replace(one, spread_skill=0.5) for one in found], tmp_path / "none.png")
    assert imread(tmp_path / "schedules.png").std() > 0.05


def test_pages_say_of_the_study_of_schedules_what_its_table_says():
    table = pd.read_csv(ROOT / "docs/results/schedules.csv")
    findings = SCHEDULES.findings(table)
    assert findings in (ROOT / "docs/results/schedules.md").read_text()
    tie = re.search(r"all \d+ calibrated schedules lie within [\d.]+ % of each other", findings)
    page = " ".join((ROOT / "docs/schedule_search.md").read_text().split())
    assert tie is not None
    assert tie[0] in page
    # The smallest distances are those of schedules that are mostly not calibrated.
    first = table.sort_values("phi_fd").head(10)
    calibrated = first["spread_skill"].between(*CALIBRATED).sum()
    assert calibrated < 5
    apart = 100 * (first["phi_fd"].max() / first["phi_fd"].min() - 1)
    those = f"the ten smallest phi-FDs, {calibrated} of them of calibrated schedules"
    assert f"{those}, within {apart:.1f} %" in page
    # Where the printed schedule starts, no number of steps helps.
    printed = table[table["family"] == "linear beta 0.0001 to 0.01"]
    assert printed["spread_skill"].between(0.15, 0.18).all()
    others = table[(table["energy"] >= printed["energy"].min()) & ~table.index.isin(printed.index)]
    assert set(others["steps"]) <= {2, 4}


@pytest.fixture
def searchable(tmp_path):
    """Give small weights that say what they were trained on."""
    networks = small_networks()
    networks.psi.residual_scale.fill_(0.2)
    recipe = PsiTrainingRecipe(kind="psi").model_dump(mode="json")
    card = networks.card.model_copy(update={"training": {"psi": {"recipe": recipe}}})
    save_weights(replace(networks, card=card), tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def test_the_command_line_searches(tmp_path, searchable):
    arguments = ["train", "search", str(searchable), "--tiles", "3"]
    arguments += ["--tile-px", "8", "--draws", "2", "--steps", "2", "--steps", "3", "--quiet"]
    out = ["--out", str(tmp_path / "found")]
    done = CliRunner().invoke(cli.app, [*arguments, *out])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("by phi-FD: ")
    assert lines[1].startswith("by energy score: ")
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [
        "schedules.csv",
        "schedules.png",
    ]
    again = CliRunner().invoke(cli.app, [*arguments, *out])
    assert isinstance(again.exception, InputError)


def test_the_command_line_tries_levels_and_features_of_the_user(tmp_path, searchable):
    conv_network(tmp_path / "tiny.onnx")
    arguments = ["train", "search", str(searchable), "--tiles", "3", "--tile-px", "8"]
    arguments += ["--draws", "2", "--steps", "2", "--quiet", "--out", str(tmp_path / "found")]
    mine = '{"kind": "list", "sigmas": [80, 9, 0.3]}'
    more = ["--features", str(tmp_path / "tiny.onnx"), "--levels", mine]
    done = CliRunner().invoke(cli.app, [*arguments, *more])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("by Frechet distance on tiny.onnx: ")
    with (tmp_path / "found" / "schedules.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert not {"phi_fd", "chosen_by_phi_fd"} & rows[0].keys()
    assert {row["features"] for row in rows} == {"tiny.onnx"}
    assert [row["chosen_by_frechet"] for row in rows].count("True") == 1
    steps = [row["steps"] for row in rows if row["family"] == "list 80 9 0.3"]
    assert steps == ["2", "3"]


def test_the_command_line_leaves_nothing_of_a_search_that_cannot_be(tmp_path, searchable):
    conv_network(tmp_path / "large.onnx", pads=[0, 0, 0, 0], dilations=[99, 99])
    arguments = ["train", "search", str(searchable), "--tiles", "3", "--tile-px", "8"]
    arguments += ["--draws", "2", "--steps", "2", "--quiet", "--out", str(tmp_path / "found")]
    before = set(tmp_path.iterdir())
    for wrong, message in (
        (["--levels", "80 9 0.3"], "The levels '80 9 0.3' cannot be used: .*Give JSON such as"),
        (["--levels", '{"kind": "list", "sigmas": [1, 2]}'], "cannot be used: .* falling.* Give"),
        (["--features", str(tmp_path / "tiny.pt")], r"tiny\.pt is no \.onnx file"),
        (["--features", str(tmp_path / "large.onnx")], "fails on images of 32 x 32 pixels"),
    ):
        refused = CliRunner().invoke(cli.app, [*arguments, *wrong])
        assert isinstance(refused.exception, InputError)
        assert re.search(message, str(refused.exception))
        assert set(tmp_path.iterdir()) == before
