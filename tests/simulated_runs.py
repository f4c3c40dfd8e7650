"""Tables and draws of a run whose errors are what it states: the truth, blurred, no chains."""

from __future__ import annotations

import pandas as pd

from sureloc.config.recipes import load_recipe
from sureloc.simulate.movie import simulate_movie

DRAWS = 8


def observed(truth, rng, sigma=(5.0, 12.0)):
    """A table and draws as an honest run would give them: errors and draws as wide as stated."""
    sd = rng.uniform(*sigma, len(truth))
    at = truth[["x_nm", "y_nm"]].to_numpy(float)
    seen = at + sd[:, None] * rng.normal(size=at.shape)
    table = pd.DataFrame(
        {
            "frame": truth["frame"].to_numpy(),
            "x_nm": seen[:, 0],
            "y_nm": seen[:, 1],
            "sigma_x_nm": sd,
            "sigma_y_nm": sd,
        }
    )
    draws = []
    for draw in range(DRAWS):
        moved = seen + sd[:, None] * rng.normal(size=at.shape)
        one = pd.DataFrame({"draw": draw, "frame": table["frame"], "photons": 1000.0})
        draws.append(one.assign(x_nm=moved[:, 0], y_nm=moved[:, 1]))
    return table, pd.concat(draws, ignore_index=True)


def recipe_truth(recipe, settings, frames, seed):
    """The truth of a simulated movie, without its frames."""
    made = load_recipe(recipe, settings)
    return pd.concat(
        [chunk.truth for chunk in simulate_movie(made, frames, seed)], ignore_index=True
    )
