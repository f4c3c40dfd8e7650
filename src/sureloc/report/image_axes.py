"""Frames drawn as a microscopist expects them: square pixels, y downwards, a scale bar, units."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.font_manager import FontProperties
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from sureloc.simulate.recipe import FrameRecipe

CORNER = (0.15, 0.3)  # of an image's height and width, about what the bar covers
BAR_SHARE = 0.25  # of an image's width, at most
THICKNESS = 0.012  # of the bar, of the image's side, or of the mean of two unequal ones
ABOVE = 4.0  # what else is drawn, in matplotlib's order
PLATE_OPACITY = 0.65
Extent = tuple[float, float, float, float]


def image_extent_nm(frame: FrameRecipe) -> Extent:
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
    corner: str | None = None,
) -> None:
    """Draw an image that covers a frame, with colour bar and scale bar.

    Args:
        axes: where to draw; nm become its coordinates.
        image: shape (n rows, n columns) for any zoom n.
        frame: size of the frame.
        unit: of the image's values, for the colour bar.
        cmap: colour map.
        low, high: the values at the ends of the colour map; None takes the image's.
        corner: of the scale bar, from `darker_corner`; None takes this image's.
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
    add_scale_bar(axes, image_extent_nm(frame), corner=corner or darker_corner(image))
    add_colour_bar(axes, shown, unit)


def add_colour_bar(axes: Axes, shown: ScalarMappable, unit: str) -> None:
    """Add a colour bar of the axes' height to their right."""
    bar = axes.figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def add_scale_bar(
    axes: Axes,
    extent: Extent,
    nm_per_unit: float = 1.0,
    colour: str = "white",
    size: float = 7.0,
    corner: str = "lower right",
) -> None:
    """Add a bar of a round length to a corner of an image.

    Bar and label stand on a plate that lets shine through what it lies on, above all else: they are
    seen on pixels of every lightness.

    Args:
        axes: of the image.
        extent: left, right, bottom and top of the image's outer edges, y pointing down.
        nm_per_unit: length of one unit of the axes, nm.
        colour: of bar and label, "white" or "black"; the plate has the other one.
        size: of the label, points.
        corner: where it stands, "lower left" or "lower right" (`darker_corner`).
    """
    left, right, bottom, top = extent
    length_nm, label = scale_bar((right - left) * nm_per_unit)
    bar = AnchoredSizeBar(
        axes.transData,
        length_nm / nm_per_unit,
        label,
        corner,
        pad=0.4,
        borderpad=0.8,
        sep=2,
        label_top=True,
        color=colour,
        size_vertical=THICKNESS * math.sqrt((bottom - top) * (right - left)),
        fill_bar=True,
        fontproperties=FontProperties(size=size),
    )
    bar.patch.set(
        facecolor="black" if colour == "white" else "white", alpha=PLATE_OPACITY, linewidth=0
    )
    bar.set_zorder(ABOVE)
    axes.add_artist(bar)


def darker_corner(*images: npt.NDArray[np.generic]) -> str:
    """Give the lower corner with less light, else the right one.

    Args:
        images: panels of one picture, whose bars stand in the same corner; each (rows, columns) or
            (rows, columns, colours). Each counts as much as the others.
    """
    excess = 0.0  # of the left corner's light
    for image in images:
        size = image.shape[:2]
        rows, columns = (max(1, round(share * n)) for share, n in zip(CORNER, size, strict=True))
        low = np.asarray(image[-rows:], dtype=np.float64)
        left, right = (float(np.nanmean(part)) for part in (low[:, :columns], low[:, -columns:]))
        span = float(np.nanmax(image)) - float(np.nanmin(image))
        excess += (left - right) / (span or 1.0)
    return "lower left" if excess < 0 else "lower right"


def scale_bar(width_nm: float) -> tuple[float, str]:
    """Give length (nm) and label of a scale bar of up to a quarter of an image's width."""
    length_nm = round_length(BAR_SHARE * width_nm)
    label = f"{length_nm:g} nm" if length_nm < 1000 else f"{length_nm / 1000:g} µm"
    return length_nm, label


def round_length(nm: float) -> float:
    """Give the largest length of 1, 2 or 5 times a power of ten that is not above `nm`."""
    power = 10.0 ** math.floor(math.log10(nm))
    return power * max(step for step in (1.0, 2.0, 5.0) if step * power <= nm * (1 + 1e-9))
