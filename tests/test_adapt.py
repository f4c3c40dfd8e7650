"""Adapting weights: conditions round the movie, a run that goes on, and no saving of worse ones."""

import json
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from sureloc.calibrate import adaptation
from sureloc.calibrate.adaptation import (
    Comparison,
    Deadline,
    Scores,
    conditions_like,
    plan_adaptation,
)
from sureloc.calibrate.inspection import Inspection
from sureloc.calibrate.quantities import Quantity
from sureloc.camera import Camera
from sureloc.cli import app as cli
from sureloc.errors import InputError, WeightsError
from sureloc.io.cameras import write_camera
from sureloc.io.weights import write_weights
from sureloc.localize.noise_levels import NoiseLevels
from sureloc.localize.proposals import trained_ranges
from sureloc.networks.weights import load_weights
from sureloc.simulate.movie import simulate_movie
from sureloc.simulate.recipe import Recipe
from sureloc.train.engine import fit
from sureloc.train.export import assemble, phi_of_training
from sureloc.train.folder import read_log
from sureloc.train.phi import PhiTraining
from sureloc.train.psi import PsiTraining
from sureloc.train.recipe import ConditionsRecipe, PhiTrainingRecipe, PsiTrainingRecipe

CONDITIONS = {
    "sigma_px": [0.9, 1.1],
    "mean_photons": [1500, 3000],
    "background_e": [2, 20],
    "read_noise_e": [0.5, 2],
    "density_per_px2": [0.0, 0.02],
}
BATCH = {"tiles": 8, "tile_px": 16}
PHI = {
    "kind": "phi",
    "network": {"kind": "fast", "width": 16, "dilations": [1]},
    "conditions": CONDITIONS,
    "batch": BATCH,
    "optimizer": {"steps": 100, "learning_rate": 0.01, "warmup_steps": 10, "averaging": 0.95},
    "validation": {"every_steps": 100, "tiles": 8, "tile_px": 16},
}
PSI = {
    "kind": "psi",
    "network": {
        "condition_width": 16,
        "condition_blocks": 1,
        "width": 16,
        "embedding": 8,
        "dilations": [1],
    },
    "noise": {"log_mean": 0.4, "sigma_max": 80.0},
    "conditions": CONDITIONS,
    "batch": BATCH,
    "optimizer": {"steps": 60, "learning_rate": 0.01, "warmup_steps": 10, "averaging": 0.95},
    "validation": {
        "every_steps": 60,
        "tiles": 8,
        "tile_px": 16,
        "draws": 2,
        "evaluations": 2,
    },
}


def quantity(value, error=0.0):
    return Quantity("", value, error, "", "")


def inspection(**changes):
    values = {
        "sigma_px": 2.0,
        "photons": 1500.0,
        "background_e": 10.0,
        "density_per_px2": 0.006,
        "read_noise_e": 1.5,
    } | changes
    nothing = np.zeros((0, 3))
    return Inspection(
        {key: quantity(value) for key, value in values.items()},
        "tiny",
        (10, 64, 64),
        (10, 64, 64),
        Camera(),
        None,
        None,
        *(nothing,) * 3,
        NoiseLevels(*(np.zeros(0),) * 4),
        np.random.default_rng(0).lognormal(7.2, 0.3, 500),
        nothing,
        (),
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Weights for narrow PSFs, trained for a few seconds."""
    folder = tmp_path_factory.mktemp("tiny")
    phi, psi = PhiTrainingRecipe(**PHI), PsiTrainingRecipe(**PSI)
    fit(PhiTraining(phi), folder / "phi", device="cpu")
    trained = phi_of_training(phi, folder / "phi")
    fit(PsiTraining(psi, trained.network), folder / "psi", device="cpu")
    networks, logs = assemble(trained, (psi, folder / "psi"), "tiny")
    write_weights(networks, logs, folder / "tiny.safetensors")
    return folder / "tiny.safetensors"


@pytest.fixture(scope="module")
def wide_movie(tmp_path_factory):
    """A movie whose PSF is twice as wide as the weights know."""
    recipe = Recipe(
        frame={"height": 64, "width": 64},
        psf={"sigma_px": 2.0},
        scene={"kind": "uniform", "density_per_um2": 0.5},
        photons={"kind": "lognormal", "mean": 2000.0, "sd": 400.0},
        background={"kind": "constant", "photons_per_px": 10.0},
        camera={"kind": "scalar", "variance_adu2": 2.0},
    )
    folder = tmp_path_factory.mktemp("wide")
    chunk = next(simulate_movie(recipe, 20, 3, chunk_frames=20))
    tifffile.imwrite(folder / "movie.tif", chunk.adu)
    write_camera(Camera(100.0, 1.0, 2.0), folder / "camera.yaml")
    return folder / "movie.tif", folder / "camera.yaml"


def few(monkeypatch, steps):
    """Make trainings and comparisons short, and the same on every machine."""
    monkeypatch.setattr(adaptation, "VALIDATIONS", 2)
    monkeypatch.setattr(adaptation, "_affordable", lambda *_: steps)
    monkeypatch.setattr(
        adaptation, "compare_weights", partial(adaptation.compare_weights, tiles=16, draws=4)
    )


def run(*arguments):
    return CliRunner().invoke(cli.app, ["adapt", *map(str, arguments), "-q", "--device", "cpu"])


def test_conditions_lie_round_the_movie():
    base = ConditionsRecipe()
    found = inspection()
    near = conditions_like(found, base)
    for name, key in (
        ("sigma_px", "sigma_px"),
        ("mean_photons", "photons"),
        ("photons", "photons"),
        ("background_e", "background_e"),
        ("read_noise_e", "read_noise_e"),
        ("density_per_px2", "density_per_px2"),
    ):
        low, high = getattr(near, name)
        assert low < found.value(key) < high
    assert near.sigma_px == pytest.approx((1.9, 2.1))
    assert near.blinking_share == base.blinking_share
    assert near.multiplied_share == 0.0
    near.conditions()  # possible
    conditions_like(inspection(background_e=-1.0, density_per_px2=0.0), base).conditions()
    with pytest.raises(InputError, match="could not be estimated"):
        conditions_like(inspection(photons=None), base)


def test_a_plan_keeps_to_its_time(tiny):
    networks = load_weights(tiny)
    plan = plan_adaptation(networks, lambda c: c, minutes=0.05)
    longer = plan_adaptation(networks, lambda c: c, minutes=0.5)
    assert adaptation.LEAST_STEPS <= plan.phi.optimizer.steps < longer.phi.optimizer.steps
    assert longer.phi.optimizer.steps % adaptation.VALIDATIONS == 0
    assert longer.phi.optimizer.learning_rate == pytest.approx(0.004)
    assert longer.phi.seed != networks.card.training["phi"]["recipe"]["seed"]
    with pytest.raises(InputError, match="minutes is 0"):
        plan_adaptation(networks, lambda c: c, minutes=0.0)


@pytest.mark.parametrize(
    ("validations", "made"),
    [
        ([20, 40, 60, 80, 100], 5),  # as planned
        ([20, 40, 70, 100, 130], 4),  # slower in the end: the fifth would come too late
        ([35, 70, 105], 2),
        ([60, 120], 1),
        ([500], 1),  # weights need one validation
    ],
)
def test_a_deadline_stops_before_its_time_is_over(validations, made):
    now = [7.0]
    end = Deadline(1000.0 + 100.0, lambda: now[0])
    trainer = SimpleNamespace(should_stop=False)
    now[0] = 1000.0  # what came before the training is none of its time
    end.on_train_start(trainer, None)
    for number, at in enumerate(validations, start=1):
        now[0] = 1000.0 + at
        end.on_validation_end(trainer, None)
        assert trainer.should_stop == (number >= made)


def test_shipped_weights_are_adapted_within_the_minutes_given(wide_movie, tmp_path):
    movie, camera = wide_movie
    out, begin = tmp_path / "mine", time.process_time()
    done = run(movie, "--out", out, "--camera", camera, "--minutes", 0.2)
    # After some steps weights may be better or not.
    assert done.exit_code in (0, 3), (done.output, done.exception)
    assert set(json.loads((out / "before_after.json").read_text())) >= {"before", "after"}
    logs = [read_log(out / "training" / name / "log.csv") for name in ("phi", "psi")]
    first, last = (sum(log[k]["minutes"] for log in logs) for k in (0, -1))
    # The first validation of each is always made, however long it takes.
    assert last < max(0.2, first) + 0.05
    # Of this process, as other programs may hold it up.
    assert time.process_time() - begin < 90


def test_a_movie_that_weights_do_not_know_gets_better_ones(tiny, wide_movie, tmp_path, monkeypatch):
    few(monkeypatch, 150)
    movie, camera = wide_movie
    out = tmp_path / "mine"
    first = adaptation.adapt
    started = []

    def broken(*arguments, **options):
        started.append(arguments)
        if len(started) == 1:
            raise KeyboardInterrupt
        return first(*arguments, **options)

    monkeypatch.setattr(adaptation, "adapt", broken)
    options = ("--out", out, "--weights", tiny, "--camera", camera)
    run(movie, *options)
    assert not (out / "adapted.safetensors").exists()
    assert isinstance(run(movie, *options).exception, InputError)  # the folder is not empty
    done = run(movie, *options, "--resume")
    assert done.exit_code == 0, (done.output, done.exception)
    scores = json.loads((out / "before_after.json").read_text())
    for name in ("phi", "psi"):
        assert len(read_log(out / "training" / name / "log.csv")) == 2  # as many validations
    # Some seconds of training: less far off in every way, not yet good.
    for name in ("crps", "phi_rmse"):
        assert scores["after"][name] < scores["before"][name]
    assert scores["worse"] == []
    shown = [line.split("│") for line in done.output.splitlines() if "CRPS of pixels" in line]
    for at, when in ((2, "before"), (3, "after")):
        assert f"{scores[when]['crps']:.4f} ±" in shown[0][at]
    assert (out / "before_after.png").stat().st_size > 20_000
    adapted = load_weights(out)  # as `sureloc localize --weights` does
    assert adapted.card.name == "mine"
    low, high = trained_ranges(adapted)["sigma_px"]
    assert low < 2.0 < high
    # What is trained is not trained once more.
    again = run(movie, *options, "--resume")
    assert isinstance(again.exception, InputError)  # the weights are there already
    assert "exists already" in str(again.exception)


def test_worse_weights_are_not_saved(tiny, wide_movie, tmp_path, monkeypatch):
    few(monkeypatch, 2)
    movie, camera = wide_movie

    def spoil(networks, *arguments, **options):
        adapted, logs = first(networks, *arguments, **options)
        with torch.no_grad():
            for value in adapted.phi.parameters():
                value.mul_(0.5)
        return adapted, logs

    first = adaptation.adapt
    monkeypatch.setattr(adaptation, "adapt", spoil)
    out = tmp_path / "worse"
    done = run(movie, "--out", out, "--weights", tiny, "--camera", camera)
    assert done.exit_code == 3, (done.output, done.exception)
    assert "Not saved" in done.output
    assert not (out / "adapted.safetensors").exists()
    assert json.loads((out / "before_after.json").read_text())["worse"]
    with pytest.raises(WeightsError, match=r"holds no \.safetensors file"):
        load_weights(out)


def test_a_movie_that_weights_know_needs_nothing(wide_movie, tmp_path, monkeypatch):
    movie, _ = wide_movie
    monkeypatch.setattr(Inspection, "covered", property(lambda _: True))
    camera = tmp_path / "camera.yaml"
    write_camera(Camera(90.0, 1.0, 2.0), camera)
    done = run(movie, "--out", tmp_path / "out", "--camera", camera, "--trust-camera")
    assert done.exit_code == 0, done.output
    assert "left as it is (--trust-camera)" in " ".join(done.output.split())
    assert "Nothing to do" in done.output
    assert not (tmp_path / "out").exists()
    refused = run(movie, "--out", tmp_path / "none", "--resume")
    assert "no training" in str(refused.exception)
    alone = run(movie, "--out", tmp_path / "none", "--trust-camera")
    assert "camera that is given, and none is" in str(alone.exception)


def test_a_movie_that_cannot_be_measured_is_refused_after_all_that_is_known(tmp_path):
    adu = np.random.default_rng(0).poisson(200, (20, 48, 48)).astype(np.uint16)
    adu[:, :, :24] = 4095
    tifffile.imwrite(tmp_path / "m.tif", adu, photometric="minisblack")
    command = ["adapt", str(tmp_path / "m.tif"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, [*command, "--sigma-px", "1.3"])
    assert "The gain cannot be measured" in " ".join(done.output.split())
    assert isinstance(done.exception, InputError)
    assert "gain could not be estimated" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_every_way_to_get_worse_is_named():
    def scores(crps=0.1, spread=1.0, phi=0.2):
        return Scores(crps, 0.01, spread, phi, np.full(4, crps))

    def worse(before, after):
        return Comparison(before, after, 0.001, *(np.zeros((2, 2)),) * 6).worse

    assert worse(scores(), scores(crps=0.09)) == []
    assert worse(scores(spread=0.8), scores(crps=0.09, spread=1.1)) == []
    assert "CRPS" in worse(scores(), scores())[0]
    assert "phi" in worse(scores(), scores(crps=0.09, phi=0.21))[0]
    assert "spread-skill" in worse(scores(), scores(crps=0.09, spread=0.85))[0]
    assert "CRPS" in worse(scores(), scores(crps=float("nan")))[0]


def test_folders_of_weights_hold_one_file(tiny, tmp_path):
    assert load_weights(tiny.parent).card.name == "tiny"
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"holds a\.safetensors, b\.safetensors"):
        load_weights(tmp_path)
