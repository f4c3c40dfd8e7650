"""What reproduced results rest on: trials, bounds of the truth, calibration error, filtering."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sureloc.cli import app as cli
from sureloc.config.recipes import load_recipe
from sureloc.evaluate.studies import calibration_error, draw_ranks, filtering, held, precision
from sureloc.evaluate.trials import DRAWS, Trial, neighbour_px, simulate, true_bounds
from sureloc.networks.weights import SplitCard, build_networks
from sureloc.report.reproduction import Condition, Study, run_study
from sureloc.report.reproduction_figures import draw_figure_2, traced
from sureloc.report.reproduction_studies import STUDIES
from test_networks import small_networks

SETTINGS = [
    "photons={kind: fixed, photons: 800}",
    "background={kind: constant, photons_per_px: 10}",
    "scene.density_per_um2=0.4",
    "frame.height=32",
    "frame.width=40",
]


@pytest.fixture(scope="module")
def simulated():
    return simulate(load_recipe("uniform", SETTINGS), 40, 3)


def test_bounds_of_the_truth_are_larger_with_neighbours_and_alike_without(simulated):
    alone = true_bounds(simulated, joint=False, background_e=10.0)
    joint = true_bounds(simulated, joint=True, background_e=10.0)
    assert alone.shape == (len(simulated.truth), 2)
    assert (joint >= alone * (1 - 1e-6)).all()
    far = (simulated.neighbour_px() > 12.0) & (simulated.edge_px() > 6.0)
    assert far.sum() > 10
    # Eight PSF widths away a neighbour shines in with less than 1e-14 of its light.
    np.testing.assert_allclose(joint[far], alone[far], rtol=1e-3)
    near = simulated.neighbour_px() < 2.0
    assert (joint[near] > 1.05 * alone[near]).any()
    brighter = true_bounds(simulated, joint=False, background_e=40.0)
    assert (brighter > alone).all()


def test_positions_off_by_the_bound_have_a_ratio_of_one(simulated):
    rng = np.random.default_rng(0)
    inside = simulated.inside
    for joint in (False, True):
        bound = true_bounds(simulated, joint=joint, background_e=10.0)[inside]
        table = simulated.truth[inside][["frame", "x_nm", "y_nm"]].copy()
        noise = np.where(np.isfinite(bound) & (bound < 60.0), bound, 0.0)
        table[["x_nm", "y_nm"]] += noise * rng.normal(size=bound.shape)
        (row,) = precision(simulated, {"made": table}, 10.0, lone=not joint)
        assert row["recall"] == 1.0
        # Four standard errors, as the row states them.
        assert row["rmse_over_bound"] == pytest.approx(1.0, abs=4 * row["error"])
        assert row["error"] < 0.1
        twice = table.assign(x_nm=table["x_nm"] + 30.0)
        (worse,) = precision(simulated, {"off": twice}, 10.0, lone=not joint)
        assert worse["rmse_over_bound"] > 1.5


def test_places_among_draws_are_even_where_truth_is_one_more_of_them(simulated):
    rng = np.random.default_rng(4)
    far = simulated.truth[simulated.inside & (simulated.neighbour_px() > 8)].reset_index(drop=True)
    sigma, size = 20.0, len(far)
    centre = far[["x_nm", "y_nm"]].to_numpy(float) + rng.normal(0, sigma, (size, 2))
    table = far[["frame"]].assign(
        x_nm=centre[:, 0], y_nm=centre[:, 1], photons=far["photons"], sigma_photons=30.0
    )
    table["photons"] += rng.normal(0, 30.0, size)
    for axis in "xy":
        table[f"sigma_{axis}_nm"] = sigma
        for level, z in ((68, 0.99446), (95, 1.95996)):
            table[f"{axis}_lo{level}_nm"] = table[f"{axis}_nm"] - z * sigma
            table[f"{axis}_hi{level}_nm"] = table[f"{axis}_nm"] + z * sigma
    table["p_exists"] = 1.0
    draws = pd.concat(
        [
            far[["frame"]].assign(
                draw=k,
                x_nm=centre[:, 0] + rng.normal(0, sigma, size),
                y_nm=centre[:, 1] + rng.normal(0, sigma, size),
            )
            for k in range(DRAWS)
        ],
        ignore_index=True,
    )

    class Assumptions:
        sigma_px = (1.2, 1.2)

    trial = Trial(
        replace(simulated, truth=far), Assumptions, table, draws, told_psf=False, seconds=0.0
    )
    ranks = draw_ranks(trial, *trial.pairs())
    assert len(ranks) == 2 * size
    assert set(np.round(ranks * (DRAWS + 1) - 0.5, 6)) <= set(range(DRAWS + 1))
    found = held(trial, 10.0)
    # Four binomial standard errors.
    for name, level in (("held_", 50), ("held_", 90), ("photons_held_", 68)):
        share = level / 100
        error = 4 * (share * (1 - share) / size) ** 0.5
        assert found[f"{name}{level}"] == pytest.approx(share, abs=error)
    narrow = replace(trial, draws=draws.assign(x_nm=np.tile(centre[:, 0], DRAWS)))
    assert held(narrow, 10.0)["held_50"] < found["held_50"]


def test_intervals_are_counted_by_the_distance_of_the_nearest_molecule(simulated):
    truth = simulated.truth[simulated.inside].reset_index(drop=True)
    apart = neighbour_px(truth, 100.0)
    near = apart < 3.0
    table = truth[["frame", "x_nm", "y_nm"]].assign(
        sigma_x_nm=5.0, sigma_y_nm=5.0, photons=truth["photons"], sigma_photons=30.0, p_exists=1.0
    )
    table["x_nm"] += 30.0 * near
    table["y_nm"] += 30.0 * near
    for axis in "xy":
        for level, reach in ((68, 5.0), (95, 10.0)):
            table[f"{axis}_lo{level}_nm"] = table[f"{axis}_nm"] - reach
            table[f"{axis}_hi{level}_nm"] = table[f"{axis}_nm"] + reach
    draws = table[["frame", "x_nm", "y_nm"]].assign(draw=0)

    class Assumptions:
        sigma_px = (1.2, 1.2)

    trial = Trial(
        replace(simulated, truth=truth), Assumptions, table, draws, told_psf=False, seconds=0.0
    )
    close, far = (held(trial, 10.0, reach) for reach in ((0.0, 3.0), (3.0, np.inf)))
    assert (close["emitters"], far["emitters"]) == (near.sum(), (~near).sum())
    assert near.sum() > 20
    # A pair closer than its shift may swap partners.
    assert close["held_95"] < 0.1
    assert far["held_95"] == 1.0
    assert far["jaccard"] == 1.0
    assert np.isnan(close["width_over_bound"])
    lonely = neighbour_px(truth.iloc[:1], 100.0)
    assert np.isinf(lonely).all()


def test_the_calibration_error_is_that_of_the_bins():
    rng = np.random.default_rng(1)
    probability = rng.uniform(size=100_000)
    happened = rng.uniform(size=100_000) < probability
    # A bin of 10,000 scatters by .005 at most, in the mean over bins by .003.
    assert calibration_error(probability, happened) < 0.006
    assert calibration_error(np.minimum(probability + 0.1, 1.0), happened) == pytest.approx(
        0.095, abs=0.01
    )
    assert np.isnan(calibration_error(np.empty(0), np.empty(0, bool)))


def test_filtering_finds_the_measure_that_knows():
    rng = np.random.default_rng(2)
    false = rng.uniform(size=4000) < 0.1
    table = pd.DataFrame(
        {
            "sigma_x_nm": rng.uniform(5, 20, 4000),
            "sigma_y_nm": rng.uniform(5, 20, 4000),
            "p_exists": np.where(false, rng.uniform(0.5, 0.7, 4000), 1.0),
            "chi2": rng.uniform(0.8, 1.2, 4000),
        }
    )
    found = filtering(table, false, 120.0)
    assert found.false == false.sum()
    assert found.at("1 - p_exists") == pytest.approx(1.0)
    assert found.area("1 - p_exists") == pytest.approx(1.0, abs=0.01)
    # Chance: a fifth of the rows holds a fifth of the false ones, within 3 binomial sds.
    assert found.at("chi2") == pytest.approx(0.2, abs=3 * (0.16 / false.sum()) ** 0.5)
    assert abs(found.area("chi2")) < 0.12
    assert found.at("oracle", found.false / 4000) == pytest.approx(1.0, abs=0.06)  # a step of .01


def test_a_study_that_was_stopped_goes_on_and_measures_nothing_twice(tmp_path):
    measured = []

    class Stop(Exception):  # noqa: N818
        pass

    def measure(condition, networks, seed):
        measured.append(condition.name)
        if len(measured) == 2:
            raise Stop
        return [{"value": float(seed)}]

    def conditions(quick):
        return [Condition(f"c{k}", "uniform", (), 1, 0.0, {"k": k}) for k in range(3)]

    class Card:
        name = "none"

    class Networks:
        card = Card

    study = Study("s", "Title", "Words.", conditions, measure, lambda _, path: path.touch())
    run = {"quick": False, "seed": 5, "commit": "abc"}
    with pytest.raises(Stop):
        list(run_study(study, tmp_path, Networks, **run))
    assert not (tmp_path / "s.csv").exists()
    assert len(list(run_study(study, tmp_path, Networks, **run))) == 3
    assert measured == ["c0", "c1", "c1", "c2"]
    page = (tmp_path / "s.md").read_text()
    assert "Words." in page
    assert "| 2 | 5 |" in page
    list(run_study(study, tmp_path, Networks, **{**run, "seed": 6}))
    assert measured[4:] == ["c0", "c1", "c2"]


def test_the_quick_form_makes_all_pages(tmp_path, monkeypatch, capsys):
    argv = ["sureloc", "reproduce", "--quick", "-q", "--out", tmp_path]
    monkeypatch.setattr("sys.argv", [str(word) for word in argv])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 0
    assert "filtering.md" in capsys.readouterr().out
    index = (tmp_path / "quick" / "index.md").read_text()
    for study in STUDIES:
        pictures = [picture.name for picture in study.pictures]
        for name in pictures + ([study.name] if study.draw else []):
            assert (tmp_path / "quick" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        page = (tmp_path / "quick" / f"{study.name}.md").read_text()
        assert "settles nothing" in page
        assert f"sureloc reproduce {study.name} --quick --seed 20261" in page
        assert f"[{study.title}]({study.name}.md) | " in index
        assert study.headline(pd.read_csv(tmp_path / "quick" / f"{study.name}.csv"))
    part = next((tmp_path / "quick" / "parts" / "filtering").iterdir())
    assert json.loads(part.read_text())["origin"]["seed"] == 20261


def test_every_study_has_conditions_of_its_own():
    for study in STUDIES:
        for quick in (True, False):
            names = [condition.name for condition in study.conditions(quick)]
            assert len(set(names)) == len(names)
        assert len(study.conditions(True)) <= len(study.conditions(False))
        for condition in study.conditions(False):
            if condition.recipe:
                load_recipe(condition.recipe, list(condition.settings))


def test_an_unknown_study_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sureloc", "reproduce", "figure9"])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 2
    assert "precision, coverage, filtering" in capsys.readouterr().err


def test_figure_2_shows_of_two_networks_the_one_that_draws_begin_with(tmp_path):
    card = small_networks().card
    noisier = card.psi.model_copy(update={"windows": (1, 3)})
    split = SplitCard(kind="split", sigma=2.0, noisier=noisier, quieter=card.psi)
    networks = build_networks(card.model_copy(update={"psi": split}))
    stages = [(name, count) for network, name, _, count in traced(networks) if network == "Psi"]
    names = ["conditioner", "embedding", "stem", "blocks 0", "blocks 1", "head"]
    assert [name for name, _ in stages] == names
    assert dict(stages)["stem"] == sum(p.numel() for p in networks.psi.noisier.stem.parameters())
    draw_figure_2(networks, 0, tmp_path / "figure_2.png")
    assert (tmp_path / "figure_2.png").stat().st_size > 10_000
