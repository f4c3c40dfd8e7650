"""One picture by which a simulated movie can be judged at a glance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sureloc.report.image_axes import darker_corner, draw_image
from sureloc.simulate.summary import MovieSummary


def draw_preview(summary: MovieSummary, path: Path) -> None:
    """Draw the first frames, the first with its truth, the mean and all truth; save it as PNG.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(12.6, 7.6), dpi=120, layout="constrained")
    top, below = figure.subplots(2, 3)
    # One hot pixel must not set the scale of everything else.
    low, high = np.percentile(summary.first_frames, (0.1, 99.9))
    shown = (*summary.first_frames[: len(top)], summary.mean_adu, summary.truth_density)
    corner = darker_corner(*shown)
    for index, axes in enumerate(top):
        if index < len(summary.first_frames):
            image = summary.first_frames[index]
            draw_image(axes, image, summary.frame, "ADU", low=low, high=high, corner=corner)
            axes.set_title(f"frame {index}", fontsize=10)
        else:
            axes.set_axis_off()
    overlay, mean, truth = below
    measured = {"low": low, "high": high, "corner": corner}
    draw_image(overlay, summary.first_frames[0], summary.frame, "ADU", **measured)
    first = summary.first_truth[summary.first_truth["frame"] == 0]
    overlay.autoscale(False)
    overlay.scatter(
        first["x_nm"], first["y_nm"], s=28, marker="o", facecolors="none", edgecolors="#ff5a3c"
    )
    overlay.set_title(f"frame 0 and its {len(first)} emitters", fontsize=10)
    mean_low, mean_high = np.percentile(summary.mean_adu, (0.1, 99.8))
    averaged = {"low": mean_low, "high": mean_high, "corner": corner}
    draw_image(mean, summary.mean_adu, summary.frame, "ADU", **averaged)
    mean.set_title(f"mean of {summary.frames:,} frames", fontsize=10)
    seen = summary.truth_density[summary.truth_density > 0]
    draw_image(
        truth,
        summary.truth_density,
        summary.frame,
        "emitters / µm²",
        cmap="inferno",
        low=0.0,
        high=float(np.percentile(seen, 98)) if seen.size else 1.0,
        corner=corner,
    )
    truth.set_title(f"truth of all frames: {summary.emitters:,} emitters", fontsize=10)
    figure.savefig(path)
