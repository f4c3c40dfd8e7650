"""The study `sets`: are whole sets of emitters one more draw of the posterior?"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from sureloc.evaluate.sets import BINS, QUANTITIES, exact_draws, set_ranks, uniformity
from sureloc.evaluate.trials import DRAWS, run_trial
from sureloc.networks.weights import Networks
from sureloc.physics.priors import PhotonPrior, ScenePrior
from sureloc.report.reproduction import Condition, Row, Study

_BACKGROUND_E = 10.0
_PHOTONS, _SPREAD = 1000.0, 300.0  # of the movies, where an electron is a photon
_MARGIN_PX = 3.0
_DENSITIES = (0.5, 1.78, 3.56)
_SETTINGS = (
    "frame.height=24",
    "frame.width=24",
    f"photons={{kind: lognormal, mean: {_PHOTONS:g}, sd: {_SPREAD:g}}}",
    f"frame.margin_px={_MARGIN_PX:g}",
    f"background={{kind: constant, photons_per_px: {_BACKGROUND_E:g}}}",
)
_MOVES = 60_000  # of the exact posterior's chain, a frame
OURS, EXACT = "sureloc", "exact posterior"
_COLOURS = {OURS: "#1f6f9f", EXACT: "#d9730d"}


def _conditions(quick: bool) -> list[Condition]:
    return [
        Condition(
            f"sets_{density:g}",
            "uniform",
            (*_SETTINGS, f"scene.density_per_um2={density:g}"),
            20 if quick else 200,
            _BACKGROUND_E,
            {"density": density},
        )
        for density in (_DENSITIES[:1] if quick else _DENSITIES)
    ]


def _measure(condition: Condition, networks: Networks, seed: int) -> list[Row]:
    trial = run_trial(condition.simulate(seed), networks)
    moves = _MOVES if condition.frames == 200 else _MOVES // 20
    prior = true_prior(float(condition.labels["density"]), trial.simulated.recipe.frame.pixel_nm)
    out: list[Row] = []
    for way, one in ((OURS, trial), (EXACT, exact_draws(trial, prior, seed, moves))):
        for quantity, ranks in set_ranks(one, seed).items():
            counts = np.bincount(ranks * BINS // (DRAWS + 1), minlength=BINS)
            out.append(
                {
                    "way": way,
                    "quantity": quantity,
                    **uniformity(ranks),
                    "curve": " ".join(str(count) for count in counts),
                }
            )
    return out


def true_prior(density_per_um2: float, pixel_nm: float) -> ScenePrior:
    """Give the law from which the movies of the study are drawn, in photo-electrons and pixels."""
    log_variance = math.log1p((_SPREAD / _PHOTONS) ** 2)
    light = PhotonPrior.log_normal(_PHOTONS * math.exp(-0.5 * log_variance), log_variance**0.5)
    density = density_per_um2 * (1e-3 * pixel_nm) ** 2
    return ScenePrior(density, light, _BACKGROUND_E, 0.0, _MARGIN_PX)


def draw_sets(table: pd.DataFrame, path: Path) -> None:
    """Draw the histograms of ranks, a row of panels for each density."""
    densities = sorted(set(table["density"]))
    figure = Figure(figsize=(15.0, 2.6 * len(densities) + 0.6), dpi=110, layout="constrained")
    grid = figure.subplots(len(densities), len(QUANTITIES), squeeze=False, sharex=True)
    for row, density in zip(grid, densities, strict=True):
        for axes, quantity in zip(row, QUANTITIES, strict=True):
            part = table[(table["density"] == density) & (table["quantity"] == quantity)]
            frames = int(part["frames"].iloc[0])
            low, high = stats.binom.ppf([0.025, 0.975], frames, 1 / BINS) / frames
            axes.axhspan(BINS * low, BINS * high, color="#e8eaed", zorder=0)
            axes.axhline(1.0, color="#202124", linewidth=0.8)
            edges = np.linspace(0, 1, BINS + 1)
            for way, colour in _COLOURS.items():
                mine = part[part["way"] == way]
                if mine.empty:
                    continue
                counts = np.array(str(mine["curve"].iloc[0]).split(), float)
                axes.stairs(BINS * counts / frames, edges, color=colour, linewidth=1.5, label=way)
            axes.set_ylim(0, 2.5)
            axes.set_title(f"{quantity}, {density:g} / um$^2$", fontsize=9)
        row[0].set_ylabel("share of frames\nover its expectation")
    for axes in grid[-1]:
        axes.set_xlabel("rank of the truth")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    figure.savefig(path, metadata={"Software": None})


def _headline(table: pd.DataFrame) -> str:
    mine = table[table["way"] == OURS]
    return (
        f"of {len(mine)} histograms of ranks {int((mine['p_value'] > 0.01).sum())} are flat "
        f"(p > .01); of the exact posterior's "
        f"{int((table[table['way'] == EXACT]['p_value'] > 0.01).sum())}"
    )


def _findings(table: pd.DataFrame) -> str:
    lines = ["## What it shows", ""]
    for way in (OURS, EXACT):
        mine = table[table["way"] == way]
        bent = mine[mine["p_value"] <= 0.01]
        named = "; ".join(
            f"{r['quantity']} at {r['density']:g} (mean rank {r['mean_rank']:.2f})"
            for _, r in bent.iterrows()
        )
        lines.append(
            f"- `{way}`: {len(mine) - len(bent)} of {len(mine)} histograms are as flat as so few "
            f"frames can tell (p > .01); not: {named or 'none'}."
        )
    return "\n".join(lines)


SETS = Study(
    "sets",
    "Whole sets: simulation-based calibration and TARP",
    "If the posterior is right, the true set of molecules of a frame is just one more draw of it. "
    "So whatever one asks of a set, the truth's rank among 19 draws must be uniform (Talts et al. "
    "2018): how many molecules there are, how much light they give, how bright the brightest is, "
    "where the one nearest to the centre lies, and how far the set is from another one put near "
    "it at random (TARP, Lemos et al. 2023). Grey: 95 % of bins of a uniform histogram lie there. "
    "A slope says that draws hold too few or too many, a hump that they scatter too much, a bowl "
    "too little. `sureloc` learns its priors from the movie; the `exact posterior` is one long "
    "chain a frame that is told the true ones, and shows what this test looks like when all is "
    "right. Frames are 24 x 24 px, with molecules outside that shine in.",
    _conditions,
    _measure,
    draw_sets,
    headline=_headline,
    findings=_findings,
)
