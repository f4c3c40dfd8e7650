"""Ranks of whole sets of emitters: flat where truth and draws have one law, bent where not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sureloc.config.recipes import load_recipe
from sureloc.evaluate.sets import QUANTITIES, exact_draws, set_distance, set_ranks, uniformity
from sureloc.evaluate.trials import DRAWS, InMemory, Trial, simulate
from sureloc.physics.priors import PhotonPrior, ScenePrior
from sureloc.report.reproduction_sets import SETS, true_prior

FRAMES = 200
RECIPE = load_recipe("uniform", ["frame.height=16", "frame.width=16", "frame.margin_px=0"])
# Of 10 bins with 20 frames each: chance exceeds this once in 10,000 histograms.
FLAT, BENT = 1e-4, 1e-6


def scattered(rng, mean_number, photons):
    """Sets of which each frame has a Poisson number of emitters, anywhere."""
    frame = np.repeat(np.arange(FRAMES), rng.poisson(mean_number, FRAMES))
    x, y = rng.uniform(0.0, 1500.0, (2, frame.size))
    light = rng.lognormal(np.log(photons), 0.3, frame.size)
    return pd.DataFrame({"frame": frame, "x_nm": x, "y_nm": y, "photons": light})


def trial_of(rng, mean_number=4.0, photons=800.0):
    """Truth and rows are of a law with 4 emitters of 800 photons; draws of the law asked for."""
    simulated = simulate(RECIPE, 1, 0)
    simulated = replace(
        simulated,
        truth=scattered(rng, 4.0, 800.0),
        movie=InMemory(np.zeros((FRAMES, 16, 16), np.uint16)),
    )
    draws = [scattered(rng, mean_number, photons).assign(draw=k) for k in range(DRAWS)]
    table = scattered(rng, 4.0, 800.0)
    return Trial(simulated, None, table, pd.concat(draws, ignore_index=True), False, 0.0)


def test_ranks_are_flat_where_the_truth_is_one_more_draw():
    ranks = set_ranks(trial_of(np.random.default_rng(0)), 1)
    assert set(ranks) == set(QUANTITIES)
    for name, values in ranks.items():
        assert values.shape == (FRAMES,)
        found = uniformity(values)
        assert found["p_value"] > FLAT, name
        # Four binomial standard errors.
        assert found["held_50"] == pytest.approx(0.5, abs=0.14)
        assert found["held_90"] == pytest.approx(0.9, abs=0.085)


@pytest.mark.parametrize(
    ("law", "seen"),
    [
        ({"mean_number": 6.0}, ("number", "light", "TARP")),
        ({"photons": 1200.0}, ("light", "brightest")),
    ],
)
def test_ranks_bend_where_draws_have_another_law(law, seen):
    ranks = set_ranks(trial_of(np.random.default_rng(1), **law), 1)
    for name in seen:
        assert uniformity(ranks[name])["p_value"] < BENT, name
    if "photons" in law:
        assert uniformity(ranks["number"])["p_value"] > FLAT


def test_sets_are_as_far_apart_as_they_have_emitters_without_counterpart():
    one = np.array([[0.0, 0.0, 1.0], [500.0, 0.0, 1.0]])
    assert set_distance(one, one[::-1], 30.0) == pytest.approx(0.0, abs=1e-6)
    assert set_distance(one, one[:1], 30.0) == pytest.approx(1.0)
    assert set_distance(one, np.empty((0, 2)), 30.0) == pytest.approx(2**0.5)
    near = one + np.array([3.0, 0.0, 0.0])
    assert 0.0 < set_distance(one, near, 30.0) < 0.2


def test_the_exact_posterior_holds_the_truth():
    settings = [
        "frame.height=12",
        "frame.width=12",
        "frame.margin_px=2",
        "scene.density_per_um2=1.5",
        "photons={kind: lognormal, mean: 800, sd: 200}",
        "background={kind: constant, photons_per_px: 5}",
    ]
    simulated = simulate(load_recipe("uniform", settings), 60, 4)
    rows = simulated.truth[simulated.inside]
    trial = Trial(simulated, None, rows, pd.DataFrame(), False, 0.0)
    prior = ScenePrior(0.015, PhotonPrior.log_normal(776.1, 0.2462), 5.0, 0.0, 2.0)
    ranks = set_ranks(exact_draws(trial, prior, 0, 6000), 2)
    for name in QUANTITIES:
        if name != "TARP":  # whose rows may not be the truth itself
            assert uniformity(ranks[name])["p_value"] > 1e-3, name
    told_wrong = exact_draws(trial, replace(prior, background_e=8.0), 0, 6000)
    assert uniformity(set_ranks(told_wrong, 2)["light"])["p_value"] < BENT


def test_the_prior_of_the_study_is_the_law_of_its_movies():
    condition = SETS.conditions(False)[-1]
    frame = load_recipe(condition.recipe, list(condition.settings)).frame
    prior = true_prior(float(condition.labels["density"]), frame.pixel_nm)
    truth = condition.simulate(3).truth
    x_low, x_high, y_low, y_high = prior.region((frame.height, frame.width))
    number = prior.density_per_px2 * (x_high - x_low) * (y_high - y_low) * condition.frames
    # Four standard errors: of a Poisson number, of a mean, and of a standard deviation.
    assert len(truth) == pytest.approx(number, abs=4 * number**0.5)
    off = 4 * prior.photons.sd / number**0.5
    assert truth["photons"].mean() == pytest.approx(prior.photons.mean, abs=off)
    assert truth["photons"].std() == pytest.approx(prior.photons.sd, abs=1.5 * off)
