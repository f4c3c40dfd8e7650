"""The study `schedules`: which noise levels to draw by (seed 5.1)."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd

from sureloc.networks.weights import Networks, load_weights, read_levels
from sureloc.report.reproduction import Condition, Row, Study
from sureloc.report.schedule_search import draw_search
from sureloc.train.export import recipe_in_card
from sureloc.train.recipe import PsiTrainingRecipe
from sureloc.train.search import (
    STEPS,
    Candidate,
    Scored,
    candidates,
    chosen_by_distance,
    chosen_by_energy,
    family,
    held_out_tiles,
    is_calibrated,
    search,
)

_WEIGHTS = "default"  # which draw by diffusion
_TILES, _SIDE_PX, _DRAWS = 64, 12, 4


def _conditions(quick: bool) -> list[Condition]:
    networks = load_weights(_WEIGHTS)
    families = list(dict.fromkeys(one.levels for one in candidates(networks)))
    return [
        Condition(
            family(levels).replace(" ", "_").replace(",", ""),
            "",
            (),
            6 if quick else _TILES,
            0.0,
            {"family": family(levels), "levels": levels.model_dump_json()},
        )
        for levels in (families[:2] if quick else families)
    ]


def _measure(condition: Condition, _: Networks, seed: int) -> list[Row]:
    networks = load_weights(_WEIGHTS)
    quick = condition.frames < _TILES
    recipe = recipe_in_card(networks.card, "psi", PsiTrainingRecipe)
    held_out = held_out_tiles(
        networks, recipe.conditions.conditions(), condition.frames, _SIDE_PX, seed
    )
    levels = read_levels(str(condition.labels["levels"]))
    tried = [Candidate(levels, steps) for steps in (STEPS[:2] if quick else STEPS)]
    out: list[Row] = []
    began = time.perf_counter()
    for one in search(networks, held_out, tried, _DRAWS, seed):
        spent, began = time.perf_counter() - began, time.perf_counter()
        out.append({**one.numbers, "ms_a_draw": 1000 * spent / (condition.frames * _DRAWS)})
    return out


def _scored(table: pd.DataFrame) -> list[Scored]:
    return [
        Scored(
            Candidate(read_levels(row["levels"]), int(row["steps"])),
            int(row["evaluations"]),
            float(row["phi_fd"]),
            float(row["energy"]),
            float(row["energy_se"]),
            float(row["spread_skill"]),
        )
        for _, row in table.iterrows()
    ]


def draw_schedules(table: pd.DataFrame, path: Path) -> None:
    """Draw every schedule's scores by its evaluations, with both choices."""
    draw_search(_scored(table), path)


def _headline(table: pd.DataFrame) -> str:
    scored = _scored(table)
    by_energy = chosen_by_energy(scored)
    told = f"{by_energy.candidate}" if by_energy else "no calibrated schedule"
    return f"phi-FD chooses {chosen_by_distance(scored).candidate}; the energy score {told}"


def _findings(table: pd.DataFrame) -> str:
    scored = _scored(table)
    chosen = (
        ("phi-FD", chosen_by_distance(scored)),
        ("the energy score", chosen_by_energy(scored)),
    )
    lines = ["## What is chosen", ""]
    lines += [f"- By {name}: {one or 'no schedule is calibrated'}." for name, one in chosen]
    worst = max(scored, key=lambda one: one.energy)
    lines.append(f"- The worst: {worst}.")
    return "\n".join([*lines, *_ties(scored)])


def _ties(scored: list[Scored]) -> list[str]:
    """Say how many calibrated schedules the energy score hardly tells apart."""
    honest = [one.energy for one in scored if is_calibrated(one)]
    if len(honest) < 2:
        return []
    apart = 100 * (max(honest) / min(honest) - 1)
    return [
        f"- Many tie: the energy scores of all {len(honest)} calibrated schedules lie within "
        f"{apart:.1f} % of each other. On other tiles another of them is chosen; the choice among "
        "them is one of cost, and of what neither score sees ([as shipped](../schedule_search.md))."
    ]


SCHEDULES = Study(
    "schedules",
    "Which noise levels to draw by",
    "The paper trains once and then chooses the noise schedule of inference, at most 100 steps, by "
    "FID (its section 5.1). Here the same trained network (weights `default`) draws by schedules "
    "of several families, from 2 to 100 steps, on the same tiles and with the same noise. `phi_fd` "
    "is a Frechet distance between draws and truths on features of phi, as the paper's is on "
    "Inception's: it compares sets of images, not a draw with its own truth. `energy` is the fair "
    "energy score, which does; the schedule is chosen by it among those whose `spread_skill` lies "
    "in .95 to 1.05. `ms_a_draw` is the time of a draw of a tile of 12 x 12 px on this machine, "
    "beside other work.",
    _conditions,
    _measure,
    draw_schedules,
    headline=_headline,
    findings=_findings,
)
