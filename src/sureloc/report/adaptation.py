"""Weights before and after they were adapted to a movie: a table, a record and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sureloc.calibrate.adaptation import Comparison
from sureloc.report.charts import BLUE, GREY, INK

COLUMNS = ("on held-out tiles like the movie", "before", "after", "best")


def table_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Give the table for people: `COLUMNS` of every score."""
    before, after = comparison.before, comparison.after
    return [
        (
            "CRPS of pixels",
            f"{before.crps:.4f} ± {before.crps_error:.4f}",
            f"{after.crps:.4f} ± {after.crps_error:.4f}",
            "small",
        ),
        (
            "change of the CRPS, tile by tile",
            "",
            f"{after.by_tile.mean() - before.by_tile.mean():+.4f} ± {comparison.gain_error:.4f}",
            "negative",
        ),
        ("spread-skill", f"{before.spread_skill:.3f}", f"{after.spread_skill:.3f}", "1"),
        ("RMSE of phi", f"{before.phi_rmse:.4f}", f"{after.phi_rmse:.4f}", "small"),
    ]


def as_record(comparison: Comparison) -> dict[str, Any]:
    """Give the scores as plain values, for JSON."""
    return {
        name: {
            "crps": scores.crps,
            "crps_error": scores.crps_error,
            "spread_skill": scores.spread_skill,
            "phi_rmse": scores.phi_rmse,
            "tiles": len(scores.by_tile),
        }
        for name, scores in (("before", comparison.before), ("after", comparison.after))
    } | {"error_of_crps_change": comparison.gain_error, "worse": comparison.worse}


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Draw the scores of both weights, and what both make of one held-out tile; save it as PNG.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(12.5, 7.0), dpi=110, layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1.0, 1.25))
    above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    crps, paired, spread, phi = above.subplots(1, 4)
    before, after = comparison.before, comparison.after
    _pair(crps, before.crps, after.crps, "CRPS of pixels (small is good)")
    crps.errorbar(
        (0, 1),
        (before.crps, after.crps),
        (before.crps_error, after.crps_error),
        fmt="none",
        color=INK,
        capsize=4,
    )
    top = 1.05 * max(before.by_tile.max(), after.by_tile.max())
    paired.plot((0, top), (0, top), color=GREY, linewidth=1.0)
    paired.scatter(before.by_tile, after.by_tile, s=12, color=BLUE, alpha=0.7)
    paired.set_xlim(0, top)
    paired.set_ylim(0, top)
    paired.set_aspect("equal")
    paired.set_xlabel("before", fontsize=9)
    paired.set_ylabel("after", fontsize=9)
    paired.set_title("CRPS tile by tile", fontsize=10)
    _pair(spread, before.spread_skill, after.spread_skill, "spread-skill (1 is good)")
    spread.axhline(1.0, color=INK, linewidth=1.0)
    _pair(phi, before.phi_rmse, after.phi_rmse, "RMSE of phi (small is good)")
    unit = max(float(comparison.truth.max()), 1e-9)
    doubt = max(float(comparison.sd_before.max()), float(comparison.sd_after.max()), 1e-9)
    panels = below.subplots(1, 6)
    for axes, image, title, high in zip(
        panels,
        (
            comparison.frame_e,
            comparison.truth,
            comparison.phi_before,
            comparison.phi_after,
            comparison.sd_before,
            comparison.sd_after,
        ),
        ("measured", "truth", "phi before", "phi after", "sd of draws before", "sd of draws after"),
        (None, unit, unit, unit, doubt, doubt),
        strict=True,
    ):
        low = float(np.min(image)) if high is None else 0.0
        axes.imshow(image, cmap="gray" if high is None else "inferno", vmin=low, vmax=high)
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    below.suptitle("one held-out tile; images of one kind share their colours", fontsize=10)
    figure.savefig(path)


def _pair(axes: Axes, before: float, after: float, title: str) -> None:
    axes.bar((0, 1), (before, after), color=(GREY, BLUE), width=0.6)
    axes.set_xticks((0, 1), ("before", "after"))
    axes.set_ylim(0, 1.2 * max(before, after, 1.0 if "spread" in title else 0.0))
    for place, value in ((0, before), (1, after)):
        axes.text(place, value, f"{value:.3g} ", ha="right", va="bottom", fontsize=9)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
