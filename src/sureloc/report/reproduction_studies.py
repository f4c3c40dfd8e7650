"""The studies that `sureloc reproduce` knows, in the order of their pages."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from sureloc.evaluate.studies import filtering, held, image_positions, precision
from sureloc.evaluate.trials import run_trial
from sureloc.networks.weights import Networks
from sureloc.report.reproduction import Condition, Row, Study
from sureloc.report.reproduction_charts import (
    ALLOWED,
    draw_coverage,
    draw_filtering,
    draw_precision,
)
from sureloc.report.reproduction_figures import FIGURES, MISMATCH
from sureloc.report.reproduction_links import LINKS
from sureloc.report.reproduction_pixels import PIXELS
from sureloc.report.reproduction_rivals import RIVALS
from sureloc.report.reproduction_schedules import SCHEDULES
from sureloc.report.reproduction_sets import SETS
from sureloc.report.reproduction_unknown import UNKNOWN

DRAWS = 16
# Densities of movies whose molecules are told apart by their nearest neighbour: how many molecules
# give every distance 500, and the distances (from, up to, px) by the name of the cell.
_NEIGHBOURS = {
    4.0: (7_200, {0.5: (0.0, 0.75), 1.0: (0.75, 1.5), 2.0: (1.5, 2.5), 3.0: (2.5, 4.0)}),
    0.5: (1_800, {5.0: (4.0, 7.0), 10.0: (7.0, math.inf)}),
}
_BEYOND = "pairs"  # the plane outside the grid of conditions
MOST_WIDTH, MOST_ERROR = 1.25, 0.03  # asked of every cell of the grid of coverage
_FIELD_UM2 = 6.4**2  # of the recipe `uniform`
EMCCD = "{kind: scalar, offset_adu: 200, gain_adu_per_e: 20, variance_adu2: 900, em_gain: 300}"


def _fixed(photons: float) -> str:
    return f"photons={{kind: fixed, photons: {photons:g}}}"


def _level(background: float) -> str:
    return f"background={{kind: constant, photons_per_px: {background:g}}}"


def _precision_conditions(quick: bool) -> list[Condition]:
    out = []
    some = (200, 1000) if quick else (50, 100, 200, 500, 1000, 2000, 5000, 10_000)
    for photons in some:
        settings = (_fixed(photons), _level(10.0), "scene.density_per_um2=0.15")
        # From 200 photons on a goal is to be told from 1.05: 1,400 molecules give an error of .013.
        frames = 6 if quick else 400 if photons >= 200 else 150
        labels = {"scene": "lone", "photons": photons}
        out.append(Condition(f"lone_{photons}", "uniform", settings, frames, 10.0, labels))
    for photons in some:
        labels = {"scene": "disc", "photons": photons}
        frames = 6 if quick else 100
        out.append(Condition(f"disc_{photons}", "paper", (_fixed(photons),), frames, 0.0, labels))
    return out


def _measure_precision(condition: Condition, networks: Networks, seed: int) -> list[Row]:
    simulated = condition.simulate(seed)
    trial = run_trial(simulated, networks)
    tables = image_positions(simulated, networks, simulated.recipe.psf.sigma_px, DRAWS, seed)
    tables["whole chain"] = trial.table
    lone = condition.labels["scene"] == "lone"
    return list(precision(simulated, tables, condition.background_e, lone=lone))


@dataclass(frozen=True)
class _Cell:
    """One movie of the grid of conditions: molecules of one kind, spread evenly or in pairs."""

    plane: str
    density: float  # per um^2
    photons: float = 1000.0
    background: float = 10.0
    sigma_px: float = 1.2
    camera: str = "scmos"
    apart_px: float = math.nan  # of pairs

    def condition(self, emitters: int) -> Condition:
        """Give a movie of about so many emitters."""
        # Log-normal with a fifth of spread.
        spread = f"{{kind: lognormal, mean: {self.photons:g}, sd: {0.2 * self.photons:g}}}"
        settings = [_level(self.background), f"psf.sigma_px={self.sigma_px:g}", f"photons={spread}"]
        name = f"{self.camera}_{self.density:g}_{self.photons:g}_{self.background:g}"
        name += f"_{self.sigma_px:g}"
        if math.isnan(self.apart_px):
            settings.append(f"scene.density_per_um2={self.density:g}")
        else:
            pairs = round(self.density * _FIELD_UM2 / 2)
            settings.append(
                f"scene={{kind: nanorulers, rulers: {pairs}, spots: 2, "
                f"spacing_nm: {100 * self.apart_px:g}}}"
            )
            name += f"_pairs_{self.apart_px:g}"
        if self.plane == "neighbour":
            name += "_neighbours"
        if self.camera == "emccd":
            settings.append(f"camera={EMCCD}")
        frames = int(np.clip(np.ceil(emitters / (self.density * _FIELD_UM2)), 2, 150))
        labels = asdict(self)
        return Condition(name, "uniform", tuple(settings), frames, self.background, labels)


def _coverage_conditions(quick: bool) -> list[Condition]:
    if quick:
        cells = [_Cell(plane, d) for plane, d in (("density", 2.0), ("neighbour", 0.5))]
        return [cell.condition(40) for cell in cells]
    brightness = (100.0, 300.0, 1000.0, 3000.0, 10_000.0)
    cells = [_Cell("density", d, n) for d in (0.1, 0.5, 1.0, 2.0, 4.0, 6.0) for n in brightness]
    cells += [
        _Cell("background", 1.0, n, level) for level in (0.0, 50.0, 200.0) for n in brightness
    ]
    cells += [
        _Cell("PSF", d, sigma_px=sigma)
        for sigma in (0.8, 1.0, 1.5, 1.8)
        for d in (0.5, 1.0, 2.0, 4.0)
    ]
    cells += [_Cell("EMCCD", d, camera="emccd") for d in (0.1, 0.5, 1.0, 2.0, 4.0)]
    some = (300.0, 1000.0, 3000.0)
    neighbours = [
        _Cell("neighbour", density, n).condition(emitters)
        for density, (emitters, _) in _NEIGHBOURS.items()
        for n in some
    ]
    pairs = [
        _Cell(_BEYOND, 0.5, n, apart_px=apart).condition(600)
        for apart in (0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
        for n in some
    ]
    return [cell.condition(600) for cell in cells] + neighbours + pairs


def _measure_coverage(condition: Condition, networks: Networks, seed: int) -> list[Row]:
    trial = run_trial(condition.simulate(seed), networks)
    if condition.labels["plane"] != "neighbour":
        return [dict(held(trial, condition.background_e))]
    ranges = _NEIGHBOURS[condition.labels["density"]][1]
    return [
        {"apart_px": apart} | held(trial, condition.background_e, reach)
        for apart, reach in ranges.items()
    ]


def _filtering_conditions(quick: bool) -> list[Condition]:
    return [
        Condition(
            f"uniform_{density:g}",
            "uniform",
            (f"scene.density_per_um2={density:g}",),
            3 if quick else 40,
            10.0,
            {"density": density},
        )
        for density in ((1.78,) if quick else (0.71, 1.78, 3.56))
    ]


def _measure_filtering(condition: Condition, networks: Networks, seed: int) -> list[Row]:
    trial = run_trial(condition.simulate(seed), networks)
    paired = np.zeros(len(trial.table), bool)
    paired[trial.pairs()[0]] = True
    psf_nm = trial.simulated.recipe.psf.sigma_px * trial.simulated.recipe.frame.pixel_nm
    found = filtering(trial.table, ~paired, psf_nm)
    return [
        {
            "measure": name,
            "rows": len(trial.table),
            "false": found.false,
            "gone_with_20_percent": found.at(name),
            "area_over_oracle": found.area(name),
            "curve": " ".join(f"{value:.3f}" for value in curve),
        }
        for name, curve in found.false_gone.items()
    ]


def _coverage_headline(table: pd.DataFrame) -> str:
    cells = table[table["plane"] != _BEYOND]["held_95"]
    return (
        f"95 % intervals hold {100 * cells.median():.1f} % in the median cell of the grid, "
        f"{100 * cells.min():.1f} % in the worst of {len(cells)}"
    )


def _coverage_findings(table: pd.DataFrame) -> str:
    """Say which cells hold what was asked of them."""
    asked = {
        "the 95 % interval holds .90 to .98": table["held_95"].between(*ALLOWED["held_95"][:2]),
        "the 68 % interval holds .60 to .76": table["held_68"].between(*ALLOWED["held_68"][:2]),
        "the median width is at most 1.25 joint bounds, far from neighbours": ~(
            table["width_over_bound"] > MOST_WIDTH
        ),
        "the calibration error of `p_exists` is at most .03": table["p_exists_error"] <= MOST_ERROR,
    }
    beyond = table["plane"] == _BEYOND
    lines = ["## What it shows", ""]
    lines += [_counted(words, met[~beyond], table[~beyond]) for words, met in asked.items()]
    lines += [*_together(table[~beyond]), ""]
    if beyond.any():
        lines += ["Beyond the grid, where every molecule of the movie has a partner (`pairs`):", ""]
        lines += [_counted(words, met[beyond], table[beyond]) for words, met in asked.items()]
    return "\n".join(lines)


def _together(table: pd.DataFrame) -> list[str]:
    """Say what all cells of the grid hold together."""
    lines = []
    for name, column in (("68", "held_68"), ("95", "held_95")):
        weight = 1.0 / np.maximum(table[f"{column}_error"].to_numpy(float), 1e-6) ** 2
        mean = float((weight * table[column]).sum() / weight.sum())
        lines.append(f"- All cells together hold {100 * mean:.1f} % in {name} % intervals.")
    rows = table["rows"].to_numpy(float)
    error = float((rows * table["p_exists_error"]).sum() / rows.sum())
    lines.append(f"- The calibration error of `p_exists`, weighted by rows, is {error:.3f}.")
    return lines


def _counted(words: str, met: pd.Series, cells: pd.DataFrame) -> str:
    """Count the cells that meet what the words say, and name the others."""
    out = "; ".join(_named(row) for _, row in cells[~met].iterrows())
    return f"- In {int(met.sum())} of {len(cells)} cells {words}. Not in: {out or 'none'}."


def _named(row: pd.Series) -> str:
    place = f"{row['apart_px']:g} px apart, " if row["apart_px"] > 0 else ""
    return (
        f"{row['plane']} ({place}{row['density']:g} / um^2, {row['photons']:g} photons, background "
        f"{row['background']:g}, PSF {row['sigma_px']:g} px)"
    )


def _precision_headline(table: pd.DataFrame) -> str:
    mine = table[(table["scene"] == "lone") & (table["way"] == "whole chain")]
    bright = mine[mine["photons"] >= 200]["rmse_over_bound"]
    return (
        f"lone molecules of 200 photons or more: {bright.min():.2f} to {bright.max():.2f} times "
        "the bound"
    )


def _filtering_headline(table: pd.DataFrame) -> str:
    mine = table[table["measure"] == "1 - p_exists"]["gone_with_20_percent"]
    return (
        f"dropping the fifth of rows with the least `p_exists` drops {100 * mine.min():.0f} to "
        f"{100 * mine.max():.0f} % of the false ones"
    )


STUDIES = (
    Study(
        "precision",
        "Precision on simulated ensembles, against the Cramér-Rao bound",
        "How far positions are from the truth, over what the light allows, from dim molecules to "
        "bright ones (the paper's section 4.1 and Figure 4). `lone`: molecules without a neighbour "
        "within 8 px, against the bound of each alone with the background known. `disc`: ten "
        "molecules at once in a disc of 7 px, against their joint bound where it is below half a "
        "PSF width. `phi` and `mean of Psi` are read off images (centroids of maxima), the `whole "
        "chain` is what `sureloc localize` gives. 1 is the bound; errors are those of a root mean "
        "square of so many normal values.",
        _precision_conditions,
        _measure_precision,
        draw_precision,
        headline=_precision_headline,
    ),
    Study(
        "coverage",
        "Intervals that hold",
        "How often stated 68 % and 95 % intervals hold the true coordinate, over density, "
        "brightness, background, PSF width, camera and the distance of the nearest neighbour. "
        "`held_50` and `held_90` are the same for intervals between order statistics of 19 "
        "posterior draws, `photons_held_...` for photons +- 0.994 and 1.960 of their stated "
        "deviations; `p_exists_error` is the expected calibration error of `p_exists`; "
        "`width_over_bound` the median stated deviation over the joint bound where the next "
        "molecule is farther than 3 px (sharpness: 1 is the bound, and priors can do better). "
        "Every cell is a movie of its own of about 600 molecules, with a binomial standard error; "
        "only the cells of `neighbour` are parts of longer movies of molecules spread at random, "
        "500 molecules or more each, told apart by the distance of the nearest true neighbour "
        "(0.5: up to 0.75 px, 1: to 1.5, 2: to 2.5, 3: to 4, 5: to 7, 10: farther; `p_exists` by "
        "that of the next row). In `pairs` every molecule of the movie has a partner at that "
        "distance and shines whenever the partner does. Such a movie lies beyond the grid: "
        "sureloc learns brightness and PSF width from the movie, and two molecules that always "
        "shine together, closer than the PSF is wide, look like one of twice the brightness "
        "wherever one looks. Those cells show what then becomes of its intervals.",
        _coverage_conditions,
        _measure_coverage,
        draw_coverage,
        headline=_coverage_headline,
        findings=_coverage_findings,
    ),
    Study(
        "filtering",
        "Dropping what is wrong",
        "Rows that pair with no true molecule within 250 nm are false. They are dropped from the "
        "least certain on, by each measure of doubt in turn: how many of the false ones are gone "
        "when a fifth of all rows is, and the area under the curve beside that of an oracle (1) "
        "and of chance (0). `both` is the expected loss, `(1 - p) + p sigma / PSF`.",
        _filtering_conditions,
        _measure_filtering,
        draw_filtering,
        headline=_filtering_headline,
    ),
    SETS,
    PIXELS,
    SCHEDULES,
    LINKS,
    RIVALS,
    UNKNOWN,
    FIGURES,
    MISMATCH,
)
