"""Recipes: the shipped ones work, and what cannot be used is refused with its reason."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from sureloc.cli.app import app
from sureloc.config.recipes import load_recipe, recipe_yaml, shipped_recipes
from sureloc.errors import RecipeError
from sureloc.simulate.movie import simulate_movie

NAMES = (
    "crowded_filaments",
    "dna_paint",
    "lattice",
    "nanoruler",
    "palm_emccd",
    "paper",
    "peers",
    "rings",
    "uniform",
)


def test_shipped_recipes_are_these_and_described():
    shipped = shipped_recipes()
    assert tuple(shipped) == NAMES
    assert all(len(description) > 20 for description in shipped.values())


def test_the_commands_help_names_every_shipped_recipe():
    text = " ".join(CliRunner().invoke(app, ["simulate", "--help"]).output.split())
    assert not [name for name in NAMES if name not in text]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_makes_a_plausible_movie(name):
    recipe = load_recipe(name)
    chunk = next(simulate_movie(recipe, 40, 0, chunk_frames=40))
    assert chunk.adu.shape == (40, recipe.frame.height, recipe.frame.width)
    assert len(chunk.truth) > 40
    assert chunk.adu.max() < recipe.camera.saturation_adu
    # Neither a black movie nor one without dark places.
    assert chunk.adu.std() > 2
    assert np.percentile(chunk.adu, 1) < 600


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_written_out_reads_back_the_same(name, tmp_path):
    recipe = load_recipe(name)
    path = tmp_path / "again.yaml"
    path.write_text(recipe_yaml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


def test_paper_is_the_papers_scene():
    recipe = load_recipe("paper")
    assert (recipe.frame.height, recipe.frame.width, recipe.frame.pixel_nm) == (20, 20, 108.0)
    assert (recipe.scene.emitters, recipe.scene.radius_px) == (10, 7.0)
    chunk = next(simulate_movie(recipe, 300, 1))
    assert (chunk.truth.groupby("frame").size() == 10).all()
    assert chunk.truth["photons"].nunique() == 1
    radius = np.hypot(chunk.truth["x_nm"] / 108 - 9.5, chunk.truth["y_nm"] / 108 - 9.5)
    assert radius.max() < 7.0
    assert radius.max() > 6.95


def test_peers_has_the_conditions_under_which_peers_were_measured():
    recipe = load_recipe("peers", ["scene.density_per_um2=3.56"])
    chunk = next(simulate_movie(recipe, 64, 0))
    # Poisson: 146 a frame over 64 frames, 4 standard errors.
    assert len(chunk.truth) / 64 == pytest.approx(3.56 * 40.96, abs=4 * np.sqrt(146 / 64))
    assert chunk.truth["photons"].between(500, 1000).all()
    assert (recipe.psf.sigma_px, recipe.camera.variance_adu2) == (1.0, 5.0)
    assert recipe.background.photons_per_px == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("camera.variance_adu2=-3", r"camera\.variance_adu2 is -3: .*greater than or equal to 0"),
        ("camera.variance_adu2=.nan", r"camera\.variance_adu2 is nan: .*finite"),
        ("camera.gain_adu_per_e=0", r"camera\.gain_adu_per_e is 0: .*greater than 0"),
        ("psf.sigma_px=0", r"psf\.sigma_px is 0: .*greater than 0"),
        ("psf.sigma_px=-1", r"psf\.sigma_px is -1"),
        ("psf.sigma_px=.inf", r"psf\.sigma_px is inf"),
        (
            "psf.sigma=1",
            r"unknown key psf\.sigma \(did you mean sigma_px\?\), allowed are sigma_px",
        ),
        ("scene.densty_per_um2=1", r"scene\.densty_per_um2 \(did you mean density_per_um2\?\)"),
        ("phootns={}", r"unknown key phootns \(did you mean photons\?\), allowed are description"),
        (
            "scene.kind=unifrm",
            r"scene\.kind is 'unifrm' \(did you mean uniform\?\), allowed .*disc",
        ),
        ("camera={}", r"camera\.kind is missing, allowed are scalar, scmos"),
        ("scene={kind: disc, radius: 3}", r"scene\.radius \(did you mean radius_px\?\)"),
        ("photons={kind: fixed}", r"photons\.photons is missing, add it"),
        ("photons.low=2000", r"photons: low is 2000, above high = 1000"),
        ("frame.height=big", r"frame\.height is 'big': .*integer"),
        ("frame.height=4", r"frame\.height is 4: .*8"),
        ("scene=3", r"scene is 3: "),
        ("scene", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("scene.kind.deeper=3", "sets a key inside kind, which is a plain value"),
        ("scene=[1", "not valid YAML"),
    ],
)
def test_impossible_settings_are_refused_with_their_reason(setting, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("peers", [setting])


def test_every_problem_is_named_at_once():
    with pytest.raises(RecipeError, match=r"sigma_px is 0.*unknown key scene\.size"):
        load_recipe("peers", ["psf.sigma_px=0", "scene.size=1"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "holds list instead of keys and values"),
        ("", "holds NoneType"),
        ("a: [", "is not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("scene: {kind: uniform, density_per_um2: 1}", r"photons is missing.*camera is missing"),
    ],
)
def test_files_that_are_no_recipes_are_refused(content, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_missing_recipes_are_named(tmp_path):
    with pytest.raises(RecipeError, match="no recipe file"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match=r"no recipe 'pears' \(did you mean peers\?\)"):
        load_recipe("pears")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "binary.yaml")


def test_a_setting_may_replace_a_whole_part_or_make_a_missing_one():
    recipe = load_recipe(
        "peers", ["drift.walk_nm=2", "kinetics={kind: always}", "psf.sigma_y_px=1.3"]
    )
    assert recipe.drift.walk_nm == 2.0
    assert recipe.kinetics.kind == "always"
    assert recipe.psf.sigma_y_px == 1.3
