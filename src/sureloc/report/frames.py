"""Example frames of a run: measured, re-rendered, what is left, and circles of the precision."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from sureloc.localize.tally import ExampleFrame

TRUSTED, DOUBTED = "#4cc9f0", "#ff5d5d"
PERCENTILES = (1.0, 99.7)
LEAST_RADIUS_PX = 0.35  # a precise emitter's circle would not be seen otherwise


def example_png(example: ExampleFrame, pixel_nm: float) -> bytes:
    """Draw one frame in three panels; give a PNG.

    The measured and the re-rendered frame share their grey values. Circles have the radius of two
    stated standard deviations, dotted where they had to be enlarged to `LEAST_RADIUS_PX` to be
    seen; the last panel is in units of noise.
    """
    figure = Figure(figsize=(12.0, 4.3), dpi=110, layout="constrained")
    panels = figure.subplots(1, 3)
    low, high = (float(v) for v in np.percentile(example.electrons, PERCENTILES))
    high = max(high, low + 1.0)
    residual = (example.electrons - example.expected_e) / np.sqrt(
        np.maximum(example.variance_e2, 1e-9)
    )
    for axes, image, title in zip(
        panels,
        (example.electrons, example.expected_e, residual),
        ("measured", "re-rendered from the emitters", "difference / noise"),
        strict=True,
    ):
        limits = (-5.0, 5.0) if image is residual else (low, high)
        colours = "RdBu_r" if image is residual else "gray"
        shown = axes.imshow(image, cmap=colours, vmin=limits[0], vmax=limits[1])
        axes.set_title(title, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        unit = "standard deviations" if image is residual else "photo-electrons"
        figure.colorbar(shown, ax=axes, shrink=0.8, label=unit)
    table = example.table
    for trusted, colour in ((True, TRUSTED), (False, DOUBTED)):
        rows = table[table["trusted"] == trusted]
        size = 4.0 * rows[["sigma_x_nm", "sigma_y_nm"]].to_numpy(float) / pixel_nm
        enlarged = size.min(1) < 2 * LEAST_RADIUS_PX if len(rows) else np.zeros(0, bool)
        for which, style in ((~enlarged, "solid"), (enlarged, "dotted")):
            drawn = np.maximum(size[which], 2 * LEAST_RADIUS_PX)
            panels[0].add_collection(
                EllipseCollection(
                    drawn[:, 0],
                    drawn[:, 1],
                    np.zeros(len(drawn)),
                    units="xy",
                    offsets=rows[["x_nm", "y_nm"]].to_numpy(float)[which] / pixel_nm,
                    offset_transform=panels[0].transData,
                    facecolors="none",
                    edgecolors=colour,
                    linestyles=style,
                    linewidths=0.9,
                )
            )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
