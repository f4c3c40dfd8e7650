"""Draws beside truth, tile by tile, as in the paper's Figure 3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

Image = npt.NDArray[np.floating]

_SHOWN_DRAWS = 4


@dataclass(frozen=True)
class TilePictures:
    """What is shown of one tile.

    Attributes:
        label: says which tile it is; stands at the left of its row.
        frame: photo-electrons, shape (rows, columns).
        truth: the kernel density image of the truth, shape (4 rows, 4 columns), in units of one
            emitter's peak.
        yhat: phi's estimate of it, the same shape and unit.
        draws: Psi's draws, shape (draws, 4 rows, 4 columns), in the same unit; None before Psi.
    """

    label: str
    frame: Image
    truth: Image
    yhat: Image
    draws: Image | None = None


def draw_tiles(tiles: Sequence[TilePictures], path: Path) -> None:
    """Draw one row a tile: frame, truth, yhat, and with draws four of them, their mean and sd.

    All images of emitters share one scale from 0 to one emitter's peak, standard deviations one
    from 0 to half of it, so that rows can be compared; a frame has its own.

    Raises:
        OSError: the file cannot be written.
    """
    rows = [_panels(tile) for tile in tiles]
    size = 1.45
    figure = Figure(
        figsize=(size * len(rows[0]) + 1.0, size * len(rows) + 0.5), dpi=110, layout="constrained"
    )
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    shown: dict[str, AxesImage] = {}
    for axes, (title, _) in zip(grid[0], rows[0], strict=True):
        axes.set_title(title, fontsize=9)
    for axes_row, panels, tile in zip(grid, rows, tiles, strict=True):
        for axes, (title, image) in zip(axes_row, panels, strict=True):
            kind = {"frame": "frame", "sd": "sd"}.get(title, "emitters")
            shown[kind] = _show(axes, image, kind)
        axes_row[0].set_ylabel(tile.label, fontsize=8)
    for kind, unit in (("emitters", "density / peak of one emitter"), ("sd", "sd of draws")):
        if kind in shown:
            bar = figure.colorbar(shown[kind], ax=grid[:, -1], fraction=0.08, pad=0.03)
            bar.set_label(unit, fontsize=8)
            bar.ax.tick_params(labelsize=7)
    figure.savefig(path)


def _panels(tile: TilePictures) -> list[tuple[str, Image]]:
    panels = [("frame", tile.frame), ("truth", tile.truth), ("yhat", tile.yhat)]
    if tile.draws is not None:
        panels += [(f"draw {i + 1}", draw) for i, draw in enumerate(tile.draws[:_SHOWN_DRAWS])]
        panels += [("mean", tile.draws.mean(axis=0)), ("sd", tile.draws.std(axis=0, ddof=1))]
    return panels


def _show(axes: Axes, image: Image, kind: str) -> AxesImage:
    axes.set_xticks([])
    axes.set_yticks([])
    if kind == "frame":
        # One hot pixel must not set the scale of everything else.
        low, high = np.percentile(image, (0.5, 99.5))
        return axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    high, cmap = (1.0, "inferno") if kind == "emitters" else (0.5, "viridis")
    return axes.imshow(image, cmap=cmap, vmin=0.0, vmax=high, interpolation="nearest")
