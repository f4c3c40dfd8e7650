"""Frames drawn as a microscopist expects them: square pixels, y downwards, a scale bar, units."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.patches import Rectangle

from sureloc.simulate.recipe import FrameRecipe

BAR_SHARE = 0.25
ABOVE = 4.0  # what else is drawn, in matplotlib's order
PLATE_OPACITY = 0.65


def image_extent_nm(frame: FrameRecipe) -> tuple[float, float, float, float]:
    """Give left, right, bottom and top of a frame's outer edges, nm, y pointing down."""
    half = 0.5 * frame.pixel_nm
    return -half, frame.width * frame.pixel_nm - half, frame.height * frame.pixel_nm - half, -half


def draw_image(
    axes: Axes,
    image: npt.NDArray[np.generic],
    frame: FrameRecipe,
    unit: str,
    *,
    cmap: str = "gray",
    low: float | None = None,
    high: float | None = None,
) -> None:
    """Draw an image that covers a frame, with colour bar and scale bar.

    Args:
        axes: where to draw; nm become its coordinates.
        image: shape (n rows, n columns) for any zoom n.
        frame: size of the frame.
        unit: of the image's values, for the colour bar.
        cmap: colour map.
        low, high: the values at the ends of the colour map; None takes the image's.
    """
    shown = axes.imshow(
        image,
        cmap=cmap,
        vmin=low,
        vmax=high,
        extent=image_extent_nm(frame),
        interpolation="nearest" if image.shape[0] < 300 else "antialiased",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    add_scale_bar(axes, frame)
    add_colour_bar(axes, shown, unit)


def add_colour_bar(axes: Axes, shown: ScalarMappable, unit: str) -> None:
    """Add a colour bar of the axes' height to their right."""
    bar = axes.figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def add_scale_bar(axes: Axes, frame: FrameRecipe, colour: str = "white") -> None:
    """Add a bar of a round length, about a quarter of the frame, to the lower right corner.

    Its text stands on a plate that lets shine through what it lies on, and both lie above all else.
    """
    width_nm = frame.width * frame.pixel_nm
    height_nm = frame.height * frame.pixel_nm
    length_nm = round_length(BAR_SHARE * width_nm)
    _, right, bottom, _ = image_extent_nm(frame)
    thickness = 0.015 * height_nm
    corner = right - 0.05 * width_nm - length_nm, bottom - 0.05 * height_nm - thickness
    # A thin edge and a plate keep them visible on pixels and emitters of the same lightness.
    edge = "black" if colour == "white" else "white"
    bar = Rectangle(corner, length_nm, thickness, facecolor=colour, edgecolor=edge, linewidth=0.4)
    bar.set_zorder(ABOVE)
    axes.add_patch(bar)
    text = f"{length_nm:g} nm" if length_nm < 1000 else f"{length_nm / 1000:g} µm"
    axes.text(
        corner[0] + length_nm / 2,
        corner[1] - 0.02 * height_nm,
        text,
        color=colour,
        fontsize=7,
        ha="center",
        va="bottom",
        bbox={"facecolor": edge, "alpha": PLATE_OPACITY, "pad": 1.0, "linewidth": 0},
        zorder=ABOVE,
    )


def round_length(nm: float) -> float:
    """Give the largest length of 1, 2 or 5 times a power of ten that is not above `nm`."""
    power = 10.0 ** math.floor(math.log10(nm))
    return power * max(step for step in (1.0, 2.0, 5.0) if step * power <= nm * (1 + 1e-9))
