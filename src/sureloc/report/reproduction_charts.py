"""Pictures of the reproduced results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

_COLOURS = ("#9aa0a6", "#d9730d", "#1f6f9f", "#1b6e3c", "#202124")
ALLOWED = {"held_68": (0.60, 0.76, 0.68), "held_95": (0.90, 0.98, 0.95)}


def draw_precision(table: pd.DataFrame, path: Path) -> None:
    """Draw error over bound by photons, one line for each way, one panel for each scene."""
    scenes = list(table["scene"].unique())
    figure = Figure(figsize=(5.2 * len(scenes), 4.0), dpi=110, layout="constrained")
    for axes, scene in zip(figure.subplots(1, len(scenes), squeeze=False)[0], scenes, strict=True):
        for colour, (way, rows) in zip(
            _COLOURS, table[table["scene"] == scene].groupby("way", sort=False), strict=False
        ):
            axes.errorbar(
                rows["photons"],
                rows["rmse_over_bound"],
                2 * rows["error"],
                color=colour,
                marker="o",
                markersize=4,
                linewidth=1.4,
                capsize=2,
                label=way,
            )
        axes.axhline(1.0, color=_COLOURS[-1], linewidth=0.8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        photons = sorted(set(table["photons"]))
        axes.set_xticks(photons, [f"{value:,}" for value in photons], fontsize=8)
        axes.set_yticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
        axes.minorticks_off()
        axes.set_xlabel("photons")
        axes.set_ylabel("error per axis / Cramér-Rao bound")
        axes.set_title({"lone": "lone molecules", "disc": "ten in a disc"}.get(scene, scene))
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Software": None})


def draw_coverage(table: pd.DataFrame, path: Path) -> None:
    """Draw maps of coverage, a row of panels for each level, a column for each plane."""
    planes = list(table["plane"].unique())
    axis_of = {
        "density": "density",
        "background": "background",
        "PSF": "sigma_px",
        "neighbour": "apart_px",
        "pairs": "apart_px",
    }
    unit = {
        "density": "molecules / um$^2$",
        "background": "background, photons / px",
        "sigma_px": "PSF sigma, px",
        "apart_px": "distance of the nearest neighbour, px",
        "photons": "photons",
    }
    figure = Figure(
        figsize=(3.6 * len(planes) + 1, 3.4 * len(ALLOWED)), dpi=110, layout="constrained"
    )
    grid = figure.subplots(len(ALLOWED), len(planes), squeeze=False)
    for row, (name, (low, high, nominal)) in zip(grid, ALLOWED.items(), strict=True):
        shown, reach = None, max(high - nominal, nominal - low)
        for axes, plane in zip(row, planes, strict=True):
            part = table[table["plane"] == plane]
            across = axis_of.get(plane, "density")
            one_kind = len(set(part["photons"])) == 1
            down = "density" if one_kind and across != "density" else "photons"
            cells = part.pivot_table(index=down, columns=across, values=name)
            shown = axes.imshow(
                cells.to_numpy(),
                cmap="RdBu",
                vmin=nominal - reach,
                vmax=nominal + reach,
                aspect="auto",
            )
            for i, k in np.ndindex(cells.shape):
                value = cells.to_numpy()[i, k]
                if np.isfinite(value):
                    good = low <= value <= high
                    axes.text(
                        k,
                        i,
                        f"{100 * value:.0f}",
                        ha="center",
                        va="center",
                        fontsize=8,
                        fontweight="normal" if good else "bold",
                        color="#202124" if abs(value - nominal) < 0.7 * reach else "white",
                    )
                    if not good:
                        frame = (k - 0.46, i - 0.46), 0.92, 0.92
                        axes.add_patch(Rectangle(*frame, fill=False, edgecolor="#202124"))
            axes.set_xticks(range(cells.shape[1]), [f"{v:g}" for v in cells.columns])
            axes.set_yticks(range(cells.shape[0]), [f"{v:g}" for v in cells.index])
            axes.set_xlabel(unit.get(across, across))
            axes.set_ylabel(unit.get(down, unit["density"]))
            axes.set_title(f"{plane}: {name.removeprefix('held_')} % interval", fontsize=10)
        if shown is not None:
            figure.colorbar(shown, ax=row, label="share held (framed: outside the goal)")
    figure.savefig(path, metadata={"Software": None})


def draw_filtering(table: pd.DataFrame, path: Path) -> None:
    """Draw the share of false rows gone by the share of all rows dropped."""
    densities = list(table["density"].unique())
    figure = Figure(figsize=(4.4 * len(densities), 4.0), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(densities), squeeze=False)[0]
    for axes, density in zip(panels, densities, strict=True):
        part = table[table["density"] == density]
        for colour, row in zip(_COLOURS, part.itertuples(index=False), strict=False):
            curve = np.array([float(value) for value in str(row.curve).split()])
            dropped = np.linspace(0, 1, len(curve))
            style = "--" if row.measure == "oracle" else "-"
            axes.plot(100 * dropped, 100 * curve, style, color=colour, label=row.measure)
        axes.plot([0, 100], [0, 100], ":", color=_COLOURS[-1], linewidth=0.8, label="chance")
        axes.axvline(20, color="#dddddd", zorder=0)
        axes.set_xlabel("least certain rows dropped (%)")
        axes.set_ylabel("false rows gone (%)")
        axes.set_title(f"{density:g} molecules / um$^2$: {part['false'].iloc[0]} false rows")
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Software": None})
