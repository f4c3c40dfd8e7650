"""Example frames of a run: measured, re-rendered, what is left, and circles of the precision."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from PIL import Image

from sureloc.localize.tally import ExampleFrame

TRUSTED, DOUBTED = "#4cc9f0", "#ff5d5d"
PERCENTILES = (1.0, 99.7)
COLOURS = 64  # of a panel
LEAST_RADIUS_PX = 0.35  # a precise emitter's circle would not be seen otherwise


def example_pngs(example: ExampleFrame, pixel_nm: float) -> Iterator[tuple[str, bytes]]:
    """Draw one frame as three panels; give title and PNG of each.

    The measured and the re-rendered frame share their grey values; the difference is in units of
    noise, dark where the frame is darker than expected. Circles have the radius of two stated
    standard deviations, dotted where they had to be enlarged to `LEAST_RADIUS_PX` to be seen; rows
    that are not trusted bear a cross.
    """
    low, high = (float(v) for v in np.percentile(example.electrons, PERCENTILES))
    limits = (low, max(high, low + 1.0))
    residual = (example.electrons - example.expected_e) / np.sqrt(
        np.maximum(example.variance_e2, 1e-9)
    )
    for title, image, (least, most), unit in (
        ("measured", example.electrons, limits, "photo-electrons"),
        ("re-rendered from the emitters", example.expected_e, limits, "photo-electrons"),
        ("difference", residual, (-5.0, 5.0), "standard deviations of noise"),
    ):
        figure = Figure(figsize=(4.4, 4.0), dpi=130, layout="constrained")
        axes = figure.subplots()
        shown = axes.imshow(image, cmap="gray", vmin=least, vmax=most)
        axes.set_title(title, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        figure.colorbar(shown, ax=axes, shrink=0.8, label=unit)
        if image is example.electrons:
            _add_circles(axes, example.table, pixel_nm)
        yield title, _png_of_few_colours(figure)


def _png_of_few_colours(figure: Figure) -> bytes:
    """Give a figure as PNG with a palette: noise in full colours would fill the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    small = io.BytesIO()
    Image.open(buffer).convert("RGB").quantize(COLOURS).save(small, "PNG", optimize=True)
    return small.getvalue()


def _add_circles(axes: Axes, table: pd.DataFrame, pixel_nm: float) -> None:
    for trusted, colour in ((True, TRUSTED), (False, DOUBTED)):
        rows = table[table["trusted"] == trusted]
        place = rows[["x_nm", "y_nm"]].to_numpy(float) / pixel_nm
        size = 4.0 * rows[["sigma_x_nm", "sigma_y_nm"]].to_numpy(float) / pixel_nm
        enlarged = size.min(1) < 2 * LEAST_RADIUS_PX if len(rows) else np.zeros(0, bool)
        for which, style in ((~enlarged, "solid"), (enlarged, "dotted")):
            drawn = np.maximum(size[which], 2 * LEAST_RADIUS_PX)
            axes.add_collection(
                EllipseCollection(
                    drawn[:, 0],
                    drawn[:, 1],
                    np.zeros(len(drawn)),
                    units="xy",
                    offsets=place[which],
                    offset_transform=axes.transData,
                    facecolors="none",
                    edgecolors=colour,
                    linestyles=style,
                    linewidths=0.9,
                )
            )
        if not trusted:
            axes.scatter(place[:, 0], place[:, 1], s=22, marker="x", color=colour, linewidths=0.9)
