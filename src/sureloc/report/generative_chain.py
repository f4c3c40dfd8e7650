"""The picture of the generative model: truth, expected photons, camera frame, KDE (Figure 1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sureloc.report.image_axes import (
    add_colour_bar,
    add_scale_bar,
    darker_corner,
    draw_image,
    image_extent_nm,
)
from sureloc.simulate.generative_chain import GenerativeChain

MARKER_AREA = 60.0


def draw_generative_chain(chain: GenerativeChain, path: Path) -> None:
    """Draw one frame on its way through the generative model and save it as PNG.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(13.6, 3.1), dpi=150, layout="constrained")
    truth, expected, camera, density = figure.subplots(1, 4)
    corner = darker_corner(chain.expected_e, chain.adu, chain.kde)
    _draw_truth(chain, truth, corner)
    for axes, image, unit, colours, low in (
        (expected, chain.expected_e, "photo-electrons / px", "viridis", 0.0),
        (camera, chain.adu, "ADU", "gray", None),
        (density, chain.kde, "emitters / fine px", "inferno", 0.0),
    ):
        draw_image(axes, image, chain.frame, unit, cmap=colours, low=low, corner=corner)
    for axes, title in (
        (truth, f"truth θ: {len(chain.truth)} emitters"),
        (expected, "expected image ω"),
        (camera, "camera frame x"),
        (density, "kernel density estimate y"),
    ):
        axes.set_title(title, fontsize=10)
    figure.savefig(path)


def _draw_truth(chain: GenerativeChain, axes: Axes, corner: str) -> None:
    photons = chain.truth["photons"].to_numpy()
    colours = axes.scatter(
        chain.truth["x_nm"],
        chain.truth["y_nm"],
        s=MARKER_AREA * np.sqrt(20 / max(chain.frame.height, 20)),
        c=photons,
        cmap="viridis",
        vmin=0,
        vmax=max(photons.max(initial=0.0), 1.0),
        edgecolors="black",
        linewidths=0.5,
    )
    left, right, bottom, top = extent = image_extent_nm(chain.frame)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    add_scale_bar(axes, extent, colour="black", corner=corner)
    add_colour_bar(axes, colours, "photons / frame")
