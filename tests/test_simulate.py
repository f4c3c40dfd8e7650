"""The simulated movie: noise, photons, background, drift, reproducibility, files."""

from __future__ import annotations

import errno
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from typer.testing import CliRunner

from sureloc.camera import Camera
from sureloc.cli.app import app
from sureloc.config.recipes import load_recipe
from sureloc.errors import CameraError, InputError, OutputError, RecipeError
from sureloc.io import simulation
from sureloc.io.cameras import read_camera
from sureloc.io.found import read_found
from sureloc.io.movies import open_movie
from sureloc.io.output import new_file, new_folder
from sureloc.io.tables import read_provenance, read_table
from sureloc.report.image_axes import add_scale_bar, darker_corner
from sureloc.simulate.background import background_map, smooth_field
from sureloc.simulate.cameras import make_camera
from sureloc.simulate.generative_chain import generative_chain
from sureloc.simulate.movie import frames_per_block, simulate_movie
from sureloc.simulate.recipe import (
    FrameRecipe,
    Recipe,
    ScmosCamera,
    SmoothBackground,
    StructuredBackground,
)
from sureloc.table import TRUTH_COLUMNS

SCMOS = {"kind": "scmos", "hot_share": 0.02, "quantum_efficiency": 0.8}
EMCCD = {
    "kind": "scalar",
    "gain_adu_per_e": 20.0,
    "variance_adu2": 400.0,
    "em_gain": 100.0,
    "quantum_efficiency": 0.9,
}


def small(**changes) -> Recipe:
    """Give a recipe of 20 x 24 px with everything in it."""
    values = {
        "frame": {"height": 20, "width": 24, "pixel_nm": 100.0, "margin_px": 2.0},
        "scene": {"kind": "uniform", "density_per_um2": 10.0},
        "kinetics": {
            "kind": "blinking",
            "on_frames": 2.0,
            "off_frames": 10.0,
            "bleach_probability": 0.01,
        },
        "photons": {"kind": "lognormal", "mean": 500.0, "sd": 100.0},
        "background": {"kind": "smooth", "photons_per_px": 5.0},
        "drift": {"velocity_nm_per_frame": [0.5, -0.2], "walk_nm": 2.0},
        "camera": SCMOS,
    }
    return Recipe.model_validate(values | changes)


def whole(recipe, frames, seed=0, chunk_frames=None, **options):
    """Give a movie's ADU, truth and drift in one piece."""
    chunks = list(simulate_movie(recipe, frames, seed, chunk_frames=chunk_frames, **options))
    return (
        np.concatenate([chunk.adu for chunk in chunks]),
        pd.concat([chunk.truth for chunk in chunks], ignore_index=True),
        np.concatenate([chunk.drift_nm for chunk in chunks]),
    )


# --- Noise and photons ----------------------------------------------------------------------------


@pytest.mark.parametrize("camera", [SCMOS, EMCCD], ids=["scmos", "emccd"])
def test_every_pixel_has_the_mean_and_variance_of_the_camera_model(camera):
    recipe = small(
        scene={"kind": "lattice", "spacing_nm": 800.0, "offset_nm": [310.0, 270.0]},
        kinetics={"kind": "always"},
        drift={},
        camera=camera,
    )
    frames = 4000
    chunk = next(simulate_movie(recipe, frames, 3, chunk_frames=frames, keep_expected=True))
    used = make_camera(recipe.camera, recipe.frame)
    omega = chunk.expected_e[0]
    mean = used.gain_adu_per_e * omega + used.offset_adu
    shot = used.gain_adu_per_e**2 * used.excess_noise * omega
    variance = np.broadcast_to(shot + used.variance_adu2 + 1 / 12, omega.shape)
    # Means: standard score of 480 pixels, whose mean square is 1 +- 0.065 (one sd).
    score = (chunk.adu.mean(axis=0) - mean) / np.sqrt(variance / frames)
    assert (score**2).mean() == pytest.approx(1.0, abs=0.3)
    assert abs(score.mean()) < 0.25
    # Variances: each +- 2.2 % (more for the EMCCD's skewed counts), the mean ratio +- 0.2 %.
    ratio = chunk.adu.var(axis=0) / variance
    assert ratio.mean() == pytest.approx(1.0, abs=0.01)
    assert ratio.std() < 0.05


def test_photons_of_the_truth_arrive_as_photo_electrons():
    recipe = small(
        scene={"kind": "disc", "emitters": 5, "radius_px": 3.0},
        kinetics={"kind": "fresh"},
        background={"kind": "constant", "photons_per_px": 0.0},
        drift={},
    )
    chunk = next(simulate_movie(recipe, 50, 1, chunk_frames=50, keep_expected=True))
    arrived = chunk.expected_e.sum(axis=(1, 2))
    sent = chunk.truth.groupby("frame")["photons"].sum().to_numpy()
    # The frame's edge is 7 px, 7 sigma, away from every emitter; the PSF's patch loses 4e-7.
    np.testing.assert_allclose(arrived, 0.8 * sent, rtol=1e-6)


def test_the_photon_budget_follows_from_dwell_times():
    recipe = small(
        scene={"kind": "uniform", "density_per_um2": 100.0},
        kinetics={"kind": "blinking", "on_frames": 2.0, "off_frames": 8.0},
    )
    _, truth, _ = whole(recipe, 256)
    molecules = np.unique(truth["molecule"]).size
    # On a fifth of the time, 500 photons a frame; about 17,000 on-states of relative sd 1: 1 %.
    assert truth["photons"].sum() / 256 / molecules == pytest.approx(100.0, rel=0.04)


def test_emitters_light_falls_where_the_truth_says():
    recipe = small(
        scene={"kind": "disc", "emitters": 1, "radius_px": 4.0},
        kinetics={"kind": "fresh"},
        background={"kind": "constant"},
        photons={"kind": "fixed", "photons": 1e4},
        frame={"height": 24, "width": 30, "pixel_nm": 90.0},
    )
    chunk = next(simulate_movie(recipe, 20, 5, chunk_frames=20, keep_expected=True))
    rows, columns = np.indices((24, 30))
    total = chunk.expected_e.sum(axis=(1, 2))
    x_nm = (chunk.expected_e * columns).sum(axis=(1, 2)) / total * 90.0
    y_nm = (chunk.expected_e * rows).sum(axis=(1, 2)) / total * 90.0
    np.testing.assert_allclose(x_nm, chunk.truth["x_nm"], atol=1e-3)
    np.testing.assert_allclose(y_nm, chunk.truth["y_nm"], atol=1e-3)


def test_a_bright_movie_saturates():
    recipe = small(
        photons={"kind": "fixed", "photons": 1e6},
        camera={"kind": "scalar", "saturation_adu": 4095},
    )
    adu, _, _ = whole(recipe, 5)
    assert adu.max() == 4095
    assert adu.dtype == np.uint16


# --- Background and camera ------------------------------------------------------------------------


def test_smooth_field_has_unit_variance_and_its_correlation_length(rng):
    field = np.concatenate([smooth_field((400, 400), 5.0, rng) for _ in range(4)])
    # 1600 x 400 px hold about 8000 independent patches (4 pi 5^2 px each): sd of the variance 2 %.
    assert field.mean() == pytest.approx(0.0, abs=0.08)
    assert field.var() == pytest.approx(1.0, abs=0.08)
    shifted = (field[:, 10:] * field[:, :-10]).mean() / field.var()
    # exp(-d^2 / (4 length^2)) for noise smoothed by a Gaussian.
    assert shifted == pytest.approx(np.exp(-1.0), abs=0.06)


@pytest.mark.parametrize(
    "background",
    [
        SmoothBackground(kind="smooth", photons_per_px=12.0, relative_sd=0.3, length_px=4.0),
        StructuredBackground(kind="structured", photons_per_px=12.0, structured_share=0.6),
    ],
)
def test_uneven_backgrounds_have_their_mean_and_are_positive(background, rng):
    image = background_map(background, FrameRecipe(height=120, width=150), rng)
    assert image.shape == (120, 150)
    assert image.mean() == pytest.approx(12.0)
    assert image.min() > 0
    assert image.std() > 1.0


def test_smooth_background_has_its_relative_sd(rng):
    background = SmoothBackground(
        kind="smooth", photons_per_px=12.0, relative_sd=0.5, length_px=3.0
    )
    image = background_map(background, FrameRecipe(height=500, width=500), rng)
    # About 2200 independent patches: 3 % of the sd for one sd.
    assert image.std() / image.mean() == pytest.approx(0.5, rel=0.1)


def test_structured_background_keeps_its_even_share(rng):
    background = StructuredBackground(kind="structured", photons_per_px=10.0, structured_share=0.4)
    image = background_map(background, FrameRecipe(height=200, width=200), rng)
    assert image.min() == pytest.approx(6.0, abs=0.5)  # far from every filament
    assert image.min() >= 6.0


def test_truth_holds_the_background_under_each_emitter():
    recipe = small(drift={})
    _, truth, _ = whole(recipe, 10)
    rows = (truth["y_nm"] / 100).round().astype(int).clip(0, 19)
    columns = (truth["x_nm"] / 100).round().astype(int).clip(0, 23)
    dark = small(photons={"kind": "fixed", "photons": 1e-6}, drift={})
    empty = next(simulate_movie(dark, 1, 0, keep_expected=True)).expected_e[0] / 0.8
    np.testing.assert_allclose(truth["background_photons"], empty[rows, columns], rtol=1e-5)


def test_scmos_maps_have_their_statistics():
    recipe = ScmosCamera(kind="scmos", hot_share=0.01)
    camera = make_camera(recipe, FrameRecipe(height=300, width=300))
    assert camera.offset_adu.mean() == pytest.approx(100.0, abs=0.05)
    assert camera.offset_adu.std() == pytest.approx(2.0, rel=0.02)
    assert camera.gain_adu_per_e.std() == pytest.approx(2.2 * 0.03, rel=0.02)
    assert np.median(camera.variance_adu2) == pytest.approx(6.0, rel=0.02)
    # Ordinary pixels stay below 6 exp(4.5 * 0.4); a hot one is typically 300.
    assert (camera.variance_adu2 > 6 * np.exp(4.5 * 0.4)).mean() == pytest.approx(0.01, rel=0.15)


def test_movies_of_different_seeds_share_their_camera():
    recipe = small()
    first, second = (generative_chain(recipe, seed, 3) for seed in (1, 2))
    assert not np.array_equal(first.adu, second.adu)
    camera = make_camera(recipe.camera, recipe.frame)
    again = make_camera(recipe.camera, recipe.frame)
    np.testing.assert_array_equal(camera.variance_adu2, again.variance_adu2)


@pytest.mark.parametrize("name", ["offset_adu", "gain_adu_per_e", "variance_adu2"])
def test_maps_of_another_shape_are_refused_before_anything_is_made(name):
    camera = Camera(**{name: np.ones((24, 20))})
    with pytest.raises(CameraError, match=r"\(24, 20\).*\(20, 24\)"):
        simulate_movie(small(), 1, 0, camera=camera)


@pytest.mark.parametrize(
    ("frames", "seed", "chunk", "named"),
    [(0, 0, 1, "frames"), (1, -1, 1, "seed"), (1, 0, 0, "chunk_frames")],
)
def test_impossible_numbers_are_refused(frames, seed, chunk, named):
    with pytest.raises(InputError, match=f"{named} is"):
        simulate_movie(small(), frames, seed, chunk_frames=chunk)


# --- Drift ----------------------------------------------------------------------------------------


def test_steady_drift_moves_molecules_and_their_images():
    recipe = small(
        scene={"kind": "disc", "emitters": 1, "radius_px": 0.5},
        kinetics={"kind": "always"},
        background={"kind": "constant"},
        drift={"velocity_nm_per_frame": [0.5, -0.25]},
    )
    chunk = next(simulate_movie(recipe, 300, 0, chunk_frames=300, keep_expected=True))
    frame = np.arange(300)
    np.testing.assert_allclose(chunk.drift_nm, np.stack([0.5 * frame, -0.25 * frame], axis=1))
    np.testing.assert_allclose(chunk.truth["x_nm"] - chunk.truth["x_nm"][0], 0.5 * frame)
    np.testing.assert_allclose(chunk.truth["y_nm"] - chunk.truth["y_nm"][0], -0.25 * frame)
    light = chunk.expected_e
    x_px = (light * np.arange(24)).sum(axis=(1, 2)) / light.sum(axis=(1, 2))
    assert x_px[299] - x_px[0] == pytest.approx(1.495, abs=1e-3)


def test_random_drift_is_a_walk_that_starts_at_zero():
    recipe = small(drift={"walk_nm": 3.0}, scene={"kind": "uniform", "density_per_um2": 0.0})
    blocks = frames_per_block(recipe.frame)
    walks = np.stack([whole(recipe, 2 * blocks, seed)[2] for seed in range(5)])
    assert (walks[:, 0] == 0).all()
    steps = np.diff(walks, axis=1)  # across the border between blocks too
    # 5 x 511 x 2 steps: the sd is known to 1 %.
    assert steps.std() == pytest.approx(3.0, rel=0.04)
    border = steps[:, blocks - 1]
    assert np.abs(border).max() < 15.0


# --- Reproducibility ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    """Give a movie longer than two blocks, and its truth."""
    recipe = small()
    assert frames_per_block(recipe.frame) == 256
    return recipe, whole(recipe, 600, 7)


@given(chunk_frames=st.integers(1, 700))
@settings(max_examples=8, deadline=None)
def test_the_movie_is_the_same_bit_for_bit_for_any_chunk_length(chunk_frames, reference):
    recipe, (adu, truth, drift) = reference
    same_adu, same_truth, same_drift = whole(recipe, 600, 7, chunk_frames)
    np.testing.assert_array_equal(same_adu, adu)
    np.testing.assert_array_equal(same_drift, drift)
    pd.testing.assert_frame_equal(same_truth, truth, check_exact=True)


@pytest.mark.parametrize("kinetics", ["fresh", "always"])
def test_chunks_do_not_matter_for_other_kinetics(kinetics):
    recipe = small(kinetics={"kind": kinetics})
    one, other = whole(recipe, 270, 1, 270), whole(recipe, 270, 1, 37)
    np.testing.assert_array_equal(one[0], other[0])
    pd.testing.assert_frame_equal(one[1], other[1], check_exact=True)


def test_chunks_have_the_length_asked_for():
    chunks = list(simulate_movie(small(), 100, 0, chunk_frames=30))
    assert [chunk.first_frame for chunk in chunks] == [0, 30, 60, 90]
    assert [chunk.frames for chunk in chunks] == [30, 30, 30, 10]
    assert all(
        chunk.truth["frame"].between(chunk.first_frame, chunk.first_frame + chunk.frames - 1).all()
        for chunk in chunks
    )
    assert all(chunk.expected_e is None for chunk in chunks)


def test_a_longer_movie_begins_with_the_shorter_one(reference):
    recipe, (adu, truth, _) = reference
    start, first, _ = whole(recipe, 300, 7)
    np.testing.assert_array_equal(start, adu[:300])
    pd.testing.assert_frame_equal(first, truth[truth["frame"] < 300])


def test_another_seed_gives_another_movie(reference):
    recipe, (adu, truth, _) = reference
    other, other_truth, _ = whole(recipe, 600, 8)
    assert not np.array_equal(other, adu)
    assert not set(other_truth["x_nm"]) & set(truth["x_nm"])


def test_blocks_do_not_repeat_each_other():
    adu, truth, _ = whole(small(kinetics={"kind": "fresh"}, drift={}), 512)
    assert not np.array_equal(adu[:256], adu[256:])
    assert truth["molecule"].is_unique
    assert truth["x_nm"].is_unique


def test_truth_has_the_columns_of_the_schema(reference):
    _, (_, truth, _) = reference
    assert {name: str(dtype) for name, dtype in truth.dtypes.items()} == {
        column.name: column.dtype for column in TRUTH_COLUMNS
    }
    assert truth["frame"].is_monotonic_increasing
    assert (truth["photons"] > 0).all()
    per_frame = truth.groupby(["frame", "molecule"]).size()
    assert (per_frame == 1).all()


def test_memory_does_not_grow_with_the_movie():
    recipe = small()

    def peak(frames):
        tracemalloc.start()
        for _ in simulate_movie(recipe, frames, 0):
            pass
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(300)  # imports and caches
    assert peak(3000) < 1.25 * peak(600)


# --- The generative chain -------------------------------------------------------------------------


def test_generative_chain_shows_the_movies_first_frame_with_emitters():
    recipe = load_recipe("paper")
    chain = generative_chain(recipe, 4, 10)
    adu, truth, _ = whole(recipe, 10, 4)
    np.testing.assert_array_equal(chain.adu, adu[0])
    pd.testing.assert_frame_equal(chain.truth, truth[truth["frame"] == 0])
    assert chain.kde.shape == (80, 80)
    assert chain.kde.sum() == pytest.approx(10.0, rel=1e-6)
    # The density's centre of mass is the emitters' mean: no shift between the two grids.
    x_px = (chain.kde * ((np.arange(80) + 0.5) / 4 - 0.5)).sum() / chain.kde.sum()
    assert x_px * 108.0 == pytest.approx(chain.truth["x_nm"].mean(), abs=1e-3)
    y_px = (chain.kde.T * ((np.arange(80) + 0.5) / 4 - 0.5)).sum() / chain.kde.sum()
    assert y_px * 108.0 == pytest.approx(chain.truth["y_nm"].mean(), abs=1e-3)


def test_generative_chain_skips_dark_frames_and_bears_a_dark_movie():
    late = small(
        kinetics={"kind": "blinking", "on_frames": 2.0, "off_frames": 300.0, "start": "off"}
    )
    assert len(generative_chain(late, 0, 200).truth) > 0
    dark = small(scene={"kind": "uniform", "density_per_um2": 0.0})
    assert generative_chain(dark, 0, 5).kde.max() == 0


# --- The command ----------------------------------------------------------------------------------

FILES = {
    "movie.ome.tif",
    "truth.parquet",
    "truth.csv",
    "drift.csv",
    "camera.npz",
    "camera.yaml",
    "recipe.yaml",
    "preview.png",
    "generative_chain.png",
    "README.txt",
}


def simulate(*arguments: object):
    result = CliRunner().invoke(app, ["simulate", *map(str, arguments)], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Give the folder of a simulated movie with everything in it."""
    folder = tmp_path_factory.mktemp("simulate")
    (folder / "mine.yaml").write_text(
        "scene: {kind: rings, rings: 5}\n"
        "frame: {height: 24, width: 36, pixel_nm: 120.5}\n"
        "kinetics: {kind: blinking, on_frames: 2, off_frames: 20}\n"
        "photons: {kind: exponential, mean: 900}\n"
        "drift: {walk_nm: 1.5}\n"
        "camera: {kind: scmos, quantum_efficiency: 0.7}\n"
    )
    out = folder / "deep" / "out"
    setting = "background={kind: constant, photons_per_px: 3}"
    simulate(folder / "mine.yaml", "--frames", 70, "--out", out, "--seed", 5, "--set", setting)
    return out


def test_simulate_writes_all_its_files_and_no_other(written):
    assert {path.name for path in written.iterdir()} == FILES
    assert [path.name for path in written.parent.iterdir()] == ["out"]


def test_movie_on_disk_is_the_simulated_one_with_its_pixel_size(written):
    recipe = load_recipe(written / "recipe.yaml")
    assert recipe.background.photons_per_px == 3.0
    adu, truth, drift = whole(recipe, 70, 5)
    with open_movie(written / "movie.ome.tif") as movie:
        assert movie.shape == (70, 24, 36)
        assert movie.pixel_nm == pytest.approx(120.5)
        np.testing.assert_array_equal(movie.read(), adu)
    pd.testing.assert_frame_equal(
        read_table(written / "truth.parquet", TRUTH_COLUMNS), truth, check_exact=True
    )
    from_csv = pd.read_csv(written / "truth.csv")
    pd.testing.assert_frame_equal(from_csv, truth, check_dtype=False, atol=6e-5, rtol=0)
    np.testing.assert_allclose(
        pd.read_csv(written / "drift.csv")[["x_nm", "y_nm"]], drift, atol=6e-5
    )


def test_camera_files_read_back_to_the_camera(written):
    recipe = load_recipe(written / "recipe.yaml")
    used = make_camera(recipe.camera, recipe.frame)
    for name in ("camera.npz", "camera.yaml"):
        camera = read_camera(written / name)
        np.testing.assert_array_equal(camera.offset_adu, used.offset_adu)
        np.testing.assert_array_equal(camera.gain_adu_per_e, used.gain_adu_per_e)
        np.testing.assert_array_equal(camera.variance_adu2, used.variance_adu2)
        assert camera.quantum_efficiency == 0.7
        assert camera.saturation_adu == 65535


def test_provenance_and_readme_tell_how_to_make_the_movie_again(written):
    provenance = read_provenance(written / "truth.parquet")
    assert provenance["seed"] == 5
    assert provenance["frames"] == 70
    assert provenance["command"] in (written / "README.txt").read_text()
    assert "--frames 70 --seed 5 --set" in provenance["command"]


def test_the_truth_knows_the_frame_that_it_lies_in(written):
    found = read_found(written / "truth.parquet")
    x, y = ((-0.5 * 120.5, (side - 0.5) * 120.5) for side in (36, 24))
    np.testing.assert_allclose(found.field_nm, (x, y))
    assert found.field_is_stated


def test_pictures_are_pictures(written):
    for name in ("preview.png", "generative_chain.png"):
        picture = imread(written / name)
        assert picture.shape[1] > 1000
        assert picture[..., :3].std() > 0.1


def test_equal_commands_write_equal_files(tmp_path):
    for name in ("one", "two"):
        simulate("paper", "--frames", 5, "--seed", 3, "--out", tmp_path / name, "--quiet")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_another_camera_can_take_the_movie(written, tmp_path):
    camera = written / "camera.yaml"
    frame = "frame={height: 24, width: 36}"
    simulate("peers", "--frames", 2, "--out", tmp_path / "a", "--set", frame, "--camera", camera)
    assert read_camera(tmp_path / "a" / "camera.npz").shape == (24, 36)
    with pytest.raises(CameraError, match=r"\(24, 36\).*\(64, 64\)"):
        simulate("peers", "--frames", 2, "--out", tmp_path / "b", "--camera", camera)
    assert {path.name for path in tmp_path.iterdir()} == {"a"}


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        simulate("paper", "--frames", 2, "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "empty").mkdir()
    simulate("paper", "--frames", 2, "--out", tmp_path / "empty", "-q")
    assert {path.name for path in (tmp_path / "empty").iterdir()} == FILES


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        simulate("paper", "--frames", 2, "--out", tmp_path / "file")


def test_unknown_recipe_or_key_leaves_nothing(tmp_path):
    with pytest.raises(RecipeError, match="did you mean paper"):
        simulate("papre", "--frames", 2, "--out", tmp_path / "out")
    with pytest.raises(RecipeError, match=r"scene\.emiters \(did you mean emitters\?\)"):
        simulate("paper", "--frames", 2, "--out", tmp_path / "out", "--set", "scene.emiters=3")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frames", ["0", "-3", "many"])
def test_a_wrong_number_of_frames_is_refused(frames, sureloc, tmp_path):
    code, _, error = sureloc("simulate", "paper", "--frames", frames, "--out", tmp_path / "out")
    assert code == 2
    assert f"--frames is '{frames}'" in error


# --- All or nothing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("sureloc.io.simulation.CsvWriter", "append"),
        ("sureloc.io.simulation", "write_camera_files"),
        ("pyarrow.parquet.ParquetWriter", "write_table"),
        ("tifffile.TiffWriter", "write"),
        ("matplotlib.figure.Figure", "savefig"),
    ],
)
def test_a_full_disk_leaves_nothing_behind(module, name, tmp_path, monkeypatch):
    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"{module}.{name}", fail)
    with pytest.raises(OutputError, match=r"No space left on device.*Nothing was left"):
        simulate("paper", "--frames", 30, "--out", tmp_path / "new" / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_real_write_error_leaves_nothing_behind(tmp_path):
    resource = pytest.importorskip("resource")
    # The kernel refuses to let files grow beyond 200 kB; the movie needs 800 kB.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(OutputError, match="File too large"):
            simulate("paper", "--frames", 1000, "--out", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing_behind(tmp_path):
    def interrupted() -> None:
        with new_folder(tmp_path / "a" / "out") as folder:
            (folder / "half.tif").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_appears_only_when_it_is_whole(tmp_path):
    with new_folder(tmp_path / "out") as folder:
        (folder / "result").write_text("1")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "result").read_text() == "1"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_another_command_wrote_meanwhile_is_kept(tmp_path, monkeypatch):
    folder, picture = tmp_path / "out", tmp_path / "a.png"

    def a_folder():
        with new_folder(folder) as mine:
            (mine / "a").write_text("mine")
            folder.mkdir()
            (folder / "a").write_text("theirs")

    def a_file():
        picture.unlink(missing_ok=True)
        with new_file(picture) as mine:
            mine.write_text("mine")
            picture.write_text("theirs")

    def without_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    with pytest.raises(InputError, match="exists and is not empty"):
        a_folder()
    with pytest.raises(InputError, match="exists already"):
        a_file()
    monkeypatch.setattr("sureloc.io.output.os.link", without_links)
    with new_file(tmp_path / "b.png") as mine:
        mine.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        a_file()
    assert (folder / "a").read_text() == picture.read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "out"]


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "where you may write"),
        (errno.ENOENT, "nothing else writes, moves or removes"),
        (errno.EIO, "free some space, or give"),
    ],
)
def test_the_next_step_is_that_of_the_failure(tmp_path, number, step):
    with pytest.raises(OutputError, match=step), new_file(tmp_path / "a"):
        raise OSError(number, "No")


def test_a_new_file_replaces_only_when_told_and_whole(tmp_path):
    place = tmp_path / "deep" / "table.csv"
    with new_file(place) as partial:
        assert partial.suffix == ".csv"
        partial.write_text("one")
    with pytest.raises(InputError, match="exists already"), new_file(place):
        pass

    def failing() -> None:
        with new_file(place, replace=True) as half:
            half.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert place.read_text() == "one"
    with new_file(place, replace=True) as partial:
        partial.write_text("two")
    assert place.read_text() == "two"
    assert [path.name for path in place.parent.iterdir()] == ["table.csv"]


def test_an_output_error_from_a_writer_is_passed_on(tmp_path):
    with pytest.raises(OutputError, match="told so"), new_folder(tmp_path / "out"):
        raise OutputError("told so")
    assert list(tmp_path.iterdir()) == []


def test_a_place_without_permission_is_named():
    with (
        pytest.raises(OutputError, match="could not be written to /proc"),
        new_folder("/proc/nothing/out"),
    ):
        pass


def test_large_movies_become_bigtiff(tmp_path, monkeypatch):
    frames = np.arange(3 * 16 * 16, dtype=np.uint16).reshape(3, 16, 16)
    for limit, big in ((2**32, False), (100, True)):
        monkeypatch.setattr(simulation, "_CLASSIC_TIFF_BYTES", limit)
        path = tmp_path / f"{big}.ome.tif"
        simulation.write_ome_tiff(path, frames, frames.shape, 100.0, b"")
        with tifffile.TiffFile(path) as tif:
            assert tif.is_bigtiff == big
            np.testing.assert_array_equal(tif.asarray(), frames)


def test_rows_pass_the_buffer_in_order_and_none_is_lost(monkeypatch):
    monkeypatch.setattr(simulation, "_BUFFERED_ROWS", 7)
    received: list[pd.DataFrame] = []
    rows = simulation._RowBuffer(TRUTH_COLUMNS, [received])
    sent = []
    for length in (3, 0, 20, 1, 7):
        values = np.arange(length) + 100 * length
        sent.append(pd.DataFrame({c.name: values.astype(c.dtype) for c in TRUTH_COLUMNS}))
        rows.append(sent[-1])
    rows.flush()
    pd.testing.assert_frame_equal(
        pd.concat(received, ignore_index=True), pd.concat(sent, ignore_index=True)
    )
    assert all(len(part) <= 7 for part in received)


def test_a_scale_bar_goes_to_the_darker_corner():
    image = np.zeros((60, 80))
    assert darker_corner(image) == "lower right"
    image[58, 70] = 1.0
    assert darker_corner(image) == "lower left"
    image[55:, :10] = 1.0
    assert darker_corner(image) == "lower right"
    assert darker_corner(np.stack([image, image, image], axis=2)) == "lower right"
    # Panels of one picture agree, whatever their units.
    other = 1e4 * image[:, ::-1].copy()
    other[:, 5] += 1e3
    assert darker_corner(image) == "lower right"
    assert darker_corner(other) == "lower left"
    assert darker_corner(image, other, other) == darker_corner(other, image, other) == "lower left"
    assert darker_corner(image, image, other) == "lower right"
    figure = Figure()
    axes = figure.subplots()
    image[55:, -10:] = 2.0
    axes.imshow(image)
    add_scale_bar(axes, (-0.5, 79.5, 59.5, -0.5), corner=darker_corner(image))
    FigureCanvasAgg(figure).draw()
    (artist,) = axes.artists
    (bar,) = artist.size_bar.get_children()
    middle = axes.transAxes.inverted().transform(bar.get_window_extent().get_points()).mean(0)
    assert middle[0] < 0.5
    assert middle[1] < 0.5


@pytest.mark.parametrize("colour", ["white", "black"])
@pytest.mark.parametrize("ground", [0.0, 1.0])
def test_a_scale_bar_is_seen_on_what_it_lies_on(colour, ground):
    figure = Figure(figsize=(4, 4), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(np.full((100, 100), ground), cmap="gray", vmin=0, vmax=1)
    axes.scatter([92.0], [95.0], s=400, color=str(ground))
    axes.set_axis_off()
    add_scale_bar(axes, (-0.5, 99.5, 99.5, -0.5), 100.0, colour)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[::-1, :, :3] / 255  # from below, as extents count
    (artist,) = axes.artists
    (bar,) = artist.size_bar.get_children()
    left, bottom, right, top = np.rint(bar.get_window_extent().extents).astype(int)
    assert right - left == pytest.approx(80, abs=1)  # 2 µm of 10, on 400 dots
    lightness = 1.0 if colour == "white" else 0.0
    middle = (bottom + top) // 2
    assert drawn[middle, left + 2 : right - 2] == pytest.approx(lightness, abs=0.02)
    for row in (bottom - 3, top + 2):
        assert np.abs(drawn[row, left:right] - lightness).min() > 0.5
    label = drawn[top + 4 : top + 14, left:right]
    assert np.ptp(label) > 0.5
