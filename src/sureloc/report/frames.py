"""Example frames of a run: measured, re-rendered, what is left, and circles of the precision."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from sureloc.localize.tally import ExampleFrame, busiest_window

Array = npt.NDArray[np.float64]

TRUSTED, DOUBTED = "#4cc9f0", "#ff5d5d"
PERCENTILES = (1.0, 99.7)
FRAMED = "#ffd166"
GREYS = 128  # of a panel's 256 colours
LARGE_PX, MAGNIFIED_PX = 100, 48  # in a frame larger than the one, a part of the other is magnified
CIRCLE_POINTS, HALO_POINTS = 1.4, 3.4
HALO = "#202020"  # round circles and crosses, which lie on spots that are all but white
LEAST_RADIUS_PX = 0.5  # a precise emitter's circle would not be seen otherwise


def example_pngs(example: ExampleFrame, pixel_nm: float) -> Iterator[tuple[str, bytes]]:
    """Draw one frame as three panels, a large one's busiest part as a fourth; give title and PNG.

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
    part = _part_to_magnify(example, pixel_nm)
    for title, image, (least, most), unit in (
        ("measured", example.electrons, limits, "photo-electrons"),
        ("re-rendered from the emitters", example.expected_e, limits, "photo-electrons"),
        ("difference", residual, (-5.0, 5.0), "standard deviations of noise"),
    ):
        figure, axes = _panel(title, image, (least, most), unit)
        if image is example.electrons:
            _add_circles(axes, example.table, pixel_nm)
            if part is not None:
                axes.add_patch(_frame_of(part))
        yield title, _png(figure)
    if part is not None:
        title = "measured, magnified"
        figure, axes = _panel(title, example.electrons, limits, "photo-electrons")
        _add_circles(axes, example.table, pixel_nm)
        left, top = part
        axes.set_xlim(left - 0.5, left + MAGNIFIED_PX - 0.5)
        axes.set_ylim(top + MAGNIFIED_PX - 0.5, top - 0.5)
        yield title, _png(figure)


def _part_to_magnify(example: ExampleFrame, pixel_nm: float) -> tuple[int, int] | None:
    """Give first column and row of the part with most rows; None where the frame is small."""
    shape = example.electrons.shape
    if max(shape) <= LARGE_PX or min(shape) < MAGNIFIED_PX:
        return None
    x, y = (example.table[name].to_numpy(float) / pixel_nm for name in ("x_nm", "y_nm"))
    top, left = busiest_window(x, y, shape, MAGNIFIED_PX)
    return left, top


def _frame_of(part: tuple[int, int]) -> Rectangle:
    corner = (part[0] - 0.5, part[1] - 0.5)
    return Rectangle(corner, MAGNIFIED_PX, MAGNIFIED_PX, fill=False, edgecolor=FRAMED, linewidth=1)


def _panel(title: str, image: Array, limits: tuple[float, float], unit: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 4.0), dpi=130, layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1])
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    figure.colorbar(shown, ax=axes, shrink=0.8, label=unit)
    return figure, axes


def _png(figure: Figure) -> bytes:
    """Give a figure as PNG of 256 colours: `GREYS` greys, and others where circles are drawn.

    Noise in full colour would take three times the bytes. Colours that are not grey are those of
    circles and crosses, at every step to what they lie on; they get what greys leave.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    image = np.asarray(Image.open(buffer).convert("RGB"))
    coloured = np.ptp(image.astype(np.int16), axis=2) > 0
    levels = np.rint(image[..., 0] * ((GREYS - 1) / 255)).astype(np.uint8)
    palette = np.repeat(np.rint(np.arange(GREYS) * (255 / (GREYS - 1))).astype(np.uint8), 3)
    if coloured.any():
        left = 256 - GREYS
        few = Image.fromarray(image[coloured][None]).quantize(left, Image.Quantize.MAXCOVERAGE)
        levels[coloured] = GREYS + np.asarray(few)[0]
        palette = np.concatenate([palette, np.array(few.getpalette(), np.uint8)])
    indexed = Image.fromarray(levels)
    indexed.putpalette(palette[: 3 * 256].tobytes())
    small = io.BytesIO()
    indexed.save(small, "PNG", optimize=True)
    return small.getvalue()


def _add_circles(axes: Axes, table: pd.DataFrame, pixel_nm: float) -> None:
    for trusted, colour in ((True, TRUSTED), (False, DOUBTED)):
        rows = table[table["trusted"] == trusted]
        place = rows[["x_nm", "y_nm"]].to_numpy(float) / pixel_nm
        size = 4.0 * rows[["sigma_x_nm", "sigma_y_nm"]].to_numpy(float) / pixel_nm
        enlarged = size.min(1) < 2 * LEAST_RADIUS_PX if len(rows) else np.zeros(0, bool)
        for which, style in ((~enlarged, "solid"), (enlarged, "dotted")):
            drawn = np.maximum(size[which], 2 * LEAST_RADIUS_PX)
            for edge, line, points in (
                (HALO, "solid", HALO_POINTS),
                (colour, style, CIRCLE_POINTS),
            ):
                axes.add_collection(
                    EllipseCollection(
                        drawn[:, 0],
                        drawn[:, 1],
                        np.zeros(len(drawn)),
                        units="xy",
                        offsets=place[which],
                        offset_transform=axes.transData,
                        facecolors="none",
                        edgecolors=edge,
                        linestyles=line,
                        linewidths=points,
                    )
                )
        if not trusted:
            axes.scatter(
                place[:, 0],
                place[:, 1],
                s=22,
                marker="x",
                color=colour,
                linewidths=CIRCLE_POINTS,
                path_effects=[withStroke(linewidth=HALO_POINTS, foreground=HALO)],
            )
