"""The study `uncertainty`: does each pixel's sd tell its error? (seed 4.2)"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sureloc.evaluate.pixels import (
    NEIGHBOUR_EDGES_PX,
    SD_EDGES,
    SUMS,
    ratios,
    summed,
    tile_errors,
)
from sureloc.networks.weights import Networks, load_weights
from sureloc.report.reproduction import Condition, Row, Study
from sureloc.report.reproduction_figures import (
    BACKGROUND_E,
    PHOTONS,
    READ_VARIANCE_E2,
    SIGMA_PX,
    signal_to_noise,
)
from sureloc.simulate.tiles import TileConditions

_DENSITIES = (0.25, 1.0, 2.0, 4.0)  # per um^2 at 100 nm a px
_TILES = 40
_WEIGHTS = ("default", "fast")
_CLASSES = {"sd": SD_EDGES, "neighbour": NEIGHBOUR_EDGES_PX, "all": (0.0, np.inf)}
_COLOURS = {"default": "#1f6f9f", "fast": "#d9730d"}


def _conditions(quick: bool) -> list[Condition]:
    cells = [(w, n, d) for w in _WEIGHTS for n in PHOTONS for d in _DENSITIES]
    if quick:
        cells = [("fast", 1500.0, 1.0)]
    return [
        Condition(
            f"{weights}_{photons:g}_{density:g}",
            "",
            (),
            4 if quick else _TILES,
            BACKGROUND_E,
            {"draws of": weights, "photons": photons, "density": density},
        )
        for weights, photons, density in cells
    ]


def _tiles(photons: float, density: float) -> TileConditions:
    """Give tiles like that of Figure 3, crowded at random up to a density."""
    return TileConditions(
        sigma_px=(SIGMA_PX, SIGMA_PX),
        mean_photons=(photons, photons),
        visible_sds=0.0,
        density_per_px2=(0.0, 0.02 * density),
        empty_share=0.0,
        blinking_share=0.0,
        background_e=(BACKGROUND_E, BACKGROUND_E),
        read_noise_e=(READ_VARIANCE_E2**0.5, READ_VARIANCE_E2**0.5),
        hot_share=0.0,
        multiplied_share=0.0,
    )


def _measure(condition: Condition, networks: Networks, seed: int) -> list[Row]:
    weights = str(condition.labels["draws of"])
    drawn = networks if networks.card.name == weights else load_weights(weights)
    conditions = _tiles(float(condition.labels["photons"]), float(condition.labels["density"]))
    parts = list(tile_errors(drawn, conditions, condition.frames, seed))
    out: list[Row] = []
    for name, edges in _CLASSES.items():
        by = {"sd": "told", "neighbour": "neighbour_px", "all": "variance"}[name]
        for k, sums in enumerate(summed(parts, by, edges)):
            out.append({"class": name, "from": edges[k], "to": edges[k + 1]} | _named(sums))
    return out


def _named(sums: np.ndarray) -> Row:
    return {f"sum {name}": float(value) for name, value in zip(SUMS, sums, strict=True)}


def _conclude(rows: pd.DataFrame) -> pd.DataFrame:
    """Join cells into classes of predicted sd, S/N, density and distance of the neighbour."""
    sums = [f"sum {name}" for name in SUMS]
    whole = rows[rows["class"] == "all"]
    pieces = {
        "predicted sd": (rows[rows["class"] == "sd"], ["from", "to"]),
        "neighbour's distance, px": (rows[rows["class"] == "neighbour"], ["from", "to"]),
        "photons": (whole, ["photons"]),
        "density, at most": (whole, ["density"]),
        "all": (whole, []),
    }
    commits = ", ".join(sorted(set(rows["commit"])))
    out = []
    for name, (some, keys) in pieces.items():
        for key, part in some.groupby(["draws of", *keys], sort=True):
            place = {"draws of": key[0], "by": name, "from": np.nan, "to": np.nan}
            place |= dict(zip(("from", "to"), key[1:], strict=False))
            total = part[sums].sum().to_numpy(float)
            if total[0] > 0:
                out.append({**place, **ratios(total), "commit": commits})
    return pd.DataFrame(out)


def draw_pixels(table: pd.DataFrame, path: Path) -> None:
    """Draw rms error over predicted sd, and spread-skill by S/N, density and neighbour."""
    figure = Figure(figsize=(15.5, 4.0), dpi=110, layout="constrained")
    panels = figure.subplots(1, 4)
    for weights, colour in _COLOURS.items():
        mine = table[table["draws of"] == weights]
        told = mine[mine["by"] == "predicted sd"]
        panels[0].plot(told["rms_sd"], told["rms_error"], "o-", color=colour, label=weights)
        for axes, by in zip(
            panels[1:], ("photons", "density, at most", "neighbour's distance, px"), strict=True
        ):
            part = mine[mine["by"] == by]
            across = part["from"].to_numpy(float)
            if by == "photons":
                across = np.array([signal_to_noise(photons) for photons in across])
            if by.startswith("neighbour"):
                across = np.minimum(0.5 * (across + np.minimum(part["to"].to_numpy(float), 8)), 7)
            axes.plot(across, part["spread_skill"], "o-", color=colour)
    top = float(np.nanmax(table[["rms_sd", "rms_error"]].to_numpy(float)))
    panels[0].plot([0.01, top], [0.01, top], color="#202124", linewidth=0.8)
    panels[0].set_xlabel("predicted sd (emitter's peaks)")
    panels[0].set_ylabel("rms error of the mean of draws")
    panels[0].set_title("does the sd tell the error?", fontsize=10)
    panels[0].legend(frameon=False, fontsize=8)
    for axes, label in zip(
        panels[1:],
        ("signal over noise", "molecules / um$^2$, at most", "distance of the neighbour, px"),
        strict=True,
    ):
        axes.axhline(1.0, color="#202124", linewidth=0.8)
        axes.set_ylim(0.5, 1.5)
        axes.set_xlabel(label)
        axes.set_ylabel("spread-skill (below 1: overconfident)")
    panels[1].set_xscale("log")
    panels[1].set_xticks([5, 10, 20, 40, 80], ["5", "10", "20", "40", "80"])
    panels[1].minorticks_off()
    figure.savefig(path, metadata={"Software": None})


def _headline(table: pd.DataFrame) -> str:
    whole = table[table["by"] == "all"].set_index("draws of")["spread_skill"]
    return "spread over error of pixels: " + ", ".join(f"{v:.2f} ({k})" for k, v in whole.items())


def _findings(table: pd.DataFrame) -> str:
    lines = ["## What it shows", ""]
    for weights, mine in table.groupby("draws of"):
        parts = []
        for by, part in mine[mine["by"] != "all"].groupby("by", sort=False):
            low, high = part["spread_skill"].min(), part["spread_skill"].max()
            parts.append(f"{low:.2f} to {high:.2f} by {by}")
        error = mine[mine["by"] == "all"].iloc[0]
        lines.append(
            f"- `{weights}`: spread-skill {error['spread_skill']:.3f} over all; "
            f"{'; '.join(parts)}. The mean of draws errs by {error['rms_error']:.4f}, phi by "
            f"{error['phi_rms_error']:.4f}."
        )
    return "\n".join(lines)


PIXELS = Study(
    "uncertainty",
    "Does the sd of a pixel tell its error?",
    "The diffusion network alone, before any chain: 16 draws of tiles of 20 x 20 px like that of "
    "Figure 3 (PSF 1.3 px, background 20), on the pixels where phi expects a twentieth of an "
    "emitter's peak or more, in units of that peak. `spread_skill` is the predicted spread over "
    "the error it should have: 1 is right, below 1 is overconfident. By predicted sd (that of 8 "
    "further draws, so that chance does not sort), by photons of a molecule, by the largest "
    "density of tiles (per um^2 at 100 nm a pixel), and by how far the molecule under a pixel is "
    "from its nearest neighbour. What conditioning on phi's estimate costs against the frame is in "
    "[the table of all ways to draw](../psi_table.md).",
    _conditions,
    _measure,
    draw_pixels,
    conclude=_conclude,
    headline=_headline,
    findings=_findings,
)
