"""The study `unknown`: does sureloc know what it does not know?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sureloc.config.recipes import load_recipe
from sureloc.evaluate.unknown import cases, departed, detection, judged_case
from sureloc.networks.weights import Networks
from sureloc.report.reproduction import Condition, Row, Study

LEAST_HELD = 0.88
_MOVIES, _OF_USUAL, _FRAMES = 6, 16, 12
_SHARED = ("frame.height=32", "frame.width=32", "psf.sigma_px=1.2")
_QUICK = ("as it should be", "PSF 60 % wider than given", "a photograph")
_APART = 1000  # seeds of movies


def _conditions(quick: bool) -> list[Condition]:
    chosen = [case for case in cases() if not quick or case.name in _QUICK]
    out = []
    for movie in range(1 if quick else _OF_USUAL):
        for number, case in enumerate(chosen):
            if number > 0 and movie >= _MOVIES:
                continue
            dense = any("density" in setting for setting in case.settings)
            out.append(
                Condition(
                    f"{case.name.replace(' ', '_').replace('/', '_')}_{movie}",
                    "uniform",
                    (*_SHARED, *case.settings),
                    3 if quick or dense else _FRAMES,
                    10.0,
                    {"case": case.name, "known": case.known, "movie": movie},
                )
            )
    return out


def _measure(condition: Condition, networks: Networks, seed: int) -> list[Row]:
    (case,) = (case for case in cases() if case.name == condition.labels["case"])
    own = seed + _APART * int(condition.labels["movie"])
    recipe = load_recipe(condition.recipe, list(condition.settings))
    simulated = departed(case, recipe, condition.frames, own)
    return [dict(judged_case(case, simulated, networks, own))]


def _holds(row: pd.Series) -> bool:
    """Say whether a case's trusted rows hold, or there are none."""
    return bool(row["trusted_rows"] == 0 or row["held_95"] >= LEAST_HELD)


def draw_unknown(table: pd.DataFrame, path: Path) -> None:
    """Draw verdicts, detection and coverage, a line for each case."""
    height = 0.3 * len(table) + 1.4
    figure = Figure(figsize=(13.5, height), dpi=110, layout="constrained")
    verdict, found, held = figure.subplots(1, 3, sharey=True)
    y = np.arange(len(table))[::-1]
    left = np.zeros(len(table))
    for name, colour in (("trust", "#1b6e3c"), ("care", "#e8b95a"), ("refused", "#b3261e")):
        word = {"trust": "trust", "care": "trust with care", "refused": "do not trust"}[name]
        verdict.barh(y, 100 * table[name], left=100 * left, color=colour, label=word)
        left = left + table[name].to_numpy(float)
    verdict.set_yticks(y, table["case"], fontsize=8)
    verdict.set_xlabel("movies (%)")
    verdict.set_title("verdict", fontsize=10)
    verdict.set_ylim(-1.6, len(table) - 0.4)
    verdict.legend(fontsize=7, loc="lower center", ncols=3)
    known = table["known"].to_numpy(bool)
    for axes_mark, column, colour in (
        ("o", "auroc_run", "#1f6f9f"),
        ("x", "auroc_region", "#d9730d"),
    ):
        word = {"auroc_run": "doubt of the run", "auroc_region": "score of the pixels"}[column]
        found.plot(table[column], y, axes_mark, color=colour, label=word)
    found.axvline(0.95, color="#202124", linewidth=0.8)
    found.axvline(0.5, color="#dddddd", linewidth=0.8)
    found.set_xlabel("AUROC against movies as they should be")
    found.set_title("told apart (0.5: not at all)", fontsize=10)
    found.legend(fontsize=7, loc="lower left")
    numbers = table[["held_95", "held_95_error"]].to_numpy(float)
    for (share, error), at, fine in zip(numbers, y, known, strict=True):
        colour = "#b3261e" if share < LEAST_HELD else "#202124"
        held.errorbar(
            share,
            at,
            xerr=2 * error,
            fmt="o" if fine else "s",
            color=colour,
            markersize=4,
        )
    held.axvline(0.95, color="#202124", linewidth=0.8)
    held.axvline(LEAST_HELD, color="#b3261e", linewidth=0.8, linestyle="--")
    held.set_xlabel("95 % interval holds, rows still trusted")
    held.set_xlim(0, 1.05)
    held.set_title("coverage in runs that do not refuse (red: too low)", fontsize=10)
    figure.savefig(path, metadata={"Software": None})


def _findings(table: pd.DataFrame) -> str:
    wrong = table[~table["known"]]
    seen = wrong[wrong["auroc_run"] >= 0.95]
    unseen = wrong[wrong["auroc_run"] < 0.95]
    kept = table[[_holds(row) for _, row in table.iterrows()]]
    broken = table[[not _holds(row) for _, row in table.iterrows()]]

    def named(some: pd.DataFrame, column: str) -> str:
        return "; ".join(f"{r['case']} ({r[column]:.2f})" for _, r in some.iterrows()) or "none"

    return "\n".join(
        [
            "## What it shows",
            "",
            f"- Of {len(wrong)} departures the doubt of the run tells {len(seen)} from ordinary "
            f"movies with an AUROC of .95 or more. It misses: {named(unseen, 'auroc_run')}.",
            f"- In {len(kept)} of {len(table)} cases rows that are still trusted keep a coverage "
            f"of {LEAST_HELD:.2f}, or their run says `do not trust`. Broken: "
            f"{named(broken, 'held_95')}.",
        ]
    )


def _headline(table: pd.DataFrame) -> str:
    wrong = table[~table["known"]]
    kept = sum(_holds(row) for _, row in table.iterrows())
    return (
        f"{int((wrong['auroc_run'] >= 0.95).sum())} of {len(wrong)} departures found with AUROC "
        f">= .95; trusted rows hold or are refused in {kept} of {len(table)} cases"
    )


UNKNOWN = Study(
    "unknown",
    "Knowing what it does not know",
    "Movies that depart from the model in one way each, beside movies as they should be (recipe "
    "`uniform` on 32 x 32 px, PSF sigma 1.2 px). sureloc is told the camera and the pixel size, "
    "and estimates the PSF width unless the case says that it is given. Lenses are simulated by "
    "the scalar theory of the pupil, their faults in rms radians. The photograph is one that comes "
    "with Matplotlib, the texture a random image whose amplitude falls as 1 / frequency; neither "
    "holds a molecule. `auroc_run`: how well the doubt of the run (`verdict.doubt` in run.json) "
    "tells the case from movies as they should be, 1 being always and .5 never; `auroc_region` the "
    "same for the score of single pixels, from which `trust.png` is made. `caught_...`: share "
    "found at a false-alarm rate of 5 %. `trust`, `care`, `refused`: shares of the verdicts (a "
    "movie that ended with an error instead of a table counts as refused). `held_95`: how often "
    "the 95 % intervals of rows still trusted hold, in runs that do not say `do not trust`; "
    "`trusted_rows`: how many these are; `false_share`: how many of them pair with no molecule "
    "within 250 nm. In cases that are `known`, sureloc should manage, and low "
    "numbers of `auroc_run` are right.",
    _conditions,
    _measure,
    draw_unknown,
    conclude=detection,
    headline=_headline,
    findings=_findings,
)
