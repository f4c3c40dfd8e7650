"""Movies that are not what they are taken for: made as they should be, and told apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sureloc.config.recipes import load_recipe
from sureloc.evaluate.trials import simulate
from sureloc.evaluate.unknown import (
    aberrated,
    auroc,
    cases,
    caught,
    detection,
    moving,
    photograph,
    textured,
)
from sureloc.localize.doubles import Excess
from sureloc.localize.frames import Effort
from sureloc.localize.movie import Options, prepare
from sureloc.localize.verdict import REGION, UNSURE, WRONG, Trust, judge, region_score
from sureloc.physics.pupil import Pupil

SETTINGS = [
    "photons={kind: fixed, photons: 20000}",
    "background={kind: constant, photons_per_px: 2}",
    "scene.density_per_um2=0.3",
    "frame.height=32",
    "frame.width=40",
]


def test_areas_under_the_curve_are_those_of_normal_laws():
    rng = np.random.default_rng(0)
    one, other = rng.normal(1.0, 1.0, 2000), rng.normal(0.0, 1.0, 2000)
    # Phi(1 / sqrt 2) = 0.760; its standard error is below 0.008.
    assert auroc(one, other) == pytest.approx(0.760, abs=0.025)
    assert auroc(other, one) == pytest.approx(1 - auroc(one, other))
    assert auroc(np.ones(3), np.ones(4)) == 0.5
    # Above the 95 % quantile, 1.645, lie 26 % of N(1, 1).
    assert caught(one, other) == pytest.approx(0.26, abs=0.04)
    assert np.isnan(auroc(np.empty(0), one))


@pytest.fixture(scope="module")
def simulated():
    return simulate(load_recipe("uniform", SETTINGS), 4, 1)


def light_of(movie, simulated):
    electrons = simulated.camera.electrons(movie.adu)
    return (electrons - 2.0 * simulated.camera.quantum_efficiency).sum((1, 2))


def test_other_lenses_and_motion_keep_the_light_and_spread_it(simulated):
    inner = replace(simulated, truth=simulated.truth[simulated.edge_px() > 9])
    sent = inner.truth.groupby("frame")["photons"].sum().reindex(range(4), fill_value=0.0)
    sharp = aberrated(Pupil(0.175))(inner, 1).movie.adu
    # Beyond 9 px lie 4 % of an Airy pattern's light, beyond the blurred spot next to none; noise of
    # 1,280 pixels is 130 electrons.
    for change, lost in ((aberrated(Pupil(0.175, defocus=0.8)), 0.06), (moving, 0.01)):
        other = change(inner, 1)
        assert other.truth is inner.truth
        kept = light_of(other.movie, inner) / inner.camera.quantum_efficiency
        np.testing.assert_allclose(kept, sent, rtol=lost, atol=500)
        assert other.movie.adu.max() < 0.9 * sharp.max()
        # Bright where it was bright.
        assert np.corrcoef(other.movie.adu.ravel(), sharp.ravel())[0, 1] > 0.6


def test_textures_fall_as_photographs_do():
    image = textured((128, 128), np.random.default_rng(0))
    assert image.mean() == pytest.approx(1.0, abs=0.05)
    power = np.abs(np.fft.fft2(image)) ** 2
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None, :])
    low, high = (power[(frequency > f / 1.2) & (frequency < f * 1.2)].mean() for f in (0.03, 0.24))
    # Power falls as 1 / f^2: 64 times over three octaves, less what is cut off at 0.05.
    assert 25 < low / high < 110
    assert photograph((32, 40), np.random.default_rng(1)).shape == (32, 40)


def test_every_case_departs_and_names_are_their_own():
    names = [case.name for case in cases()]
    assert len(set(names)) == len(names)
    assert cases()[0].known
    for case in cases()[1:]:
        assert case.settings or case.change or case.told_sigma_px


def test_runs_are_summed_up_by_case():
    def run(case, doubt, coordinates, held, verdict="trust"):
        return {
            **{"case": case, "known": case == "usual", "doubt": doubt, "verdict": verdict},
            **{"coordinates": coordinates, "held": held, "trusted": 10.0, "false": 1.0},
            **{"region": "0 0.5 1" if case == "usual" else "2 3 4", "commit": "abc"},
        }

    runs = [run("usual", 0.1 * k, 20.0, 19.0) for k in range(10)]
    runs += [run("odd", 2.0, 20.0, 10.0, "do not trust"), run("odd", 0.45, 20.0, 14.0)]
    usual, odd = detection(pd.DataFrame(runs)).to_dict("records")
    assert usual["auroc_run"] == 0.5
    assert usual["held_95"] == pytest.approx(0.95)
    assert odd["auroc_run"] == pytest.approx((1.0 + 0.5) / 2)
    assert odd["auroc_region"] == 1.0
    assert odd["held_95"] == pytest.approx(0.7)  # of the run that does not refuse
    assert odd["refused"] == 0.5
    assert odd["trusted_rows"] == 10
    assert odd["false_share"] == pytest.approx(0.1)


def test_doubt_grows_with_whatever_speaks_against_a_run():
    none = {REGION: np.zeros((4, 4), bool), UNSURE: np.zeros((4, 4), bool)}
    part = {**none, REGION: np.eye(4, dtype=bool)}

    def doubt(reasons=0, absent=0.0, chi2=1.0, doubts=none, warnings=(), excess=None):
        return judge(
            100, {UNSURE: reasons}, absent, chi2, doubts, excess or Excess(), 0.01, warnings
        ).doubt

    assert doubt() == 0.0
    # At the bound where a measure refuses by itself it adds 1.
    assert doubt(chi2=1.6) == pytest.approx(1.0)
    assert doubt(chi2=0.6) == pytest.approx(1.0)
    assert doubt(reasons=30) == pytest.approx(1.0)
    assert doubt(doubts=part) == pytest.approx(0.25 / 0.30)
    assert doubt(absent=0.1) == pytest.approx(0.5)
    assert doubt(excess=Excess(0.15, 1.3)) == pytest.approx(0.5)
    assert doubt(excess=Excess(0.3, 1.2)) == pytest.approx(0.0)
    assert doubt(warnings=("a", "b")) == pytest.approx(0.5)
    refused = judge(100, {}, 0.0, 1.0, none, Excess(), 0.01, (f"{WRONG}: spots are wide",))
    assert refused.trust is Trust.REFUSE
    assert "spots are wide" in refused.sentence
    assert doubt(30, 0.1, 1.6, part, ("a",)) == pytest.approx(1 + 0.5 + 1 + 0.25 / 0.3 + 0.25)
    map_ = region_score(np.array([[1.0, 1.35, 0.6]]), np.array([[0.5, 0.0, 0.0]]))
    np.testing.assert_allclose(map_, [[0.5, 1.0, 1.0]])


@pytest.mark.parametrize(("told", "said"), [(1.2, "none"), (1.0, "care"), (0.8, "refused")])
def test_a_given_psf_width_is_held_against_lone_spots(simulated, told, said):
    options = Options(sigma_px=told, effort=Effort(chains=1))
    assumptions = prepare(simulated.movie, simulated.camera, options)
    clauses = [clause for clause in assumptions.warnings if "px as given" in clause]
    assert bool(clauses) == (said != "none")
    assert all(clause.startswith(f"{WRONG}:") == (said == "refused") for clause in clauses)
