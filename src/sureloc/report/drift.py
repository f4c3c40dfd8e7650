"""The picture of a drift: along x and y in time with its band, and its way in the plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sureloc.analysis.drift import Drift, Method, drift_table

Array = npt.NDArray[np.float64]

_COLOURS = {"x": "#1f6f9f", "y": "#d9730d"}
_INK, _GREY = "#202124", "#9aa0a6"
_Z95 = 1.959964
_MOST_BARS = 60
_LEAST_SPAN_NM = 1.0


def draw_drift(drift: Drift, path: Path) -> None:
    """Draw a drift and save it as PNG.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(10.5, 4.2), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1.0))
    table = drift_table(drift.path)
    _in_time(left, drift, table["frame"].to_numpy(float))
    _in_plane(right, drift)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_size(9)
        axes.yaxis.label.set_size(9)
    figure.savefig(path)


def _in_time(axes: Axes, drift: Drift, frame: Array) -> None:
    mean, covariance = drift.path.at(frame)
    value, sd, centre = _measured(drift)
    few = len(value) <= _MOST_BARS
    axes.axhline(0.0, color=_GREY, linewidth=0.8)
    for i, axis in enumerate("xy"):
        colour = _COLOURS[axis]
        half = _Z95 * np.sqrt(covariance[:, i, i])
        axes.fill_between(
            frame, mean[:, i] - half, mean[:, i] + half, color=colour, alpha=0.22, linewidth=0
        )
        axes.plot(frame, mean[:, i], color=colour, linewidth=1.4, label=f"along {axis}")
        axes.errorbar(
            centre,
            value[:, i],
            _Z95 * sd[:, i] if few else None,
            fmt="o" if few else ".",
            markersize=3 if few else 1.5,
            linewidth=0.9,
            color=colour,
            alpha=0.8,
        )
    first = drift.reference.value == "first"
    zero = "in the first frame, whose uncertainty all others share" if first else "on average"
    measured = "the structure in stretches of frames"
    if drift.method is Method.FIDUCIALS:
        number = drift.facts["fiducials"]
        measured = "the fiducial" if number == 1 else f"{number} fiducials on average"
    bars = ", with 95 % bars" if few else ""
    axes.set_title(
        f"drift, zero {zero}\nbands hold 95 %; dots{bars}: {measured}",
        fontsize=9,
        color=_INK,
        loc="left",
    )
    low, high = axes.get_ylim()
    if high - low < _LEAST_SPAN_NM:
        middle = 0.5 * (low + high)
        axes.set_ylim(middle - 0.5 * _LEAST_SPAN_NM, middle + 0.5 * _LEAST_SPAN_NM)
    axes.margins(x=0.01)
    axes.set_xlabel("frame")
    axes.set_ylabel("drift (nm)")
    axes.legend(frameon=False, fontsize=9, loc="best")


def _in_plane(axes: Axes, drift: Drift) -> None:
    nodes = drift.path.nodes
    mean = drift.path.mean_nm
    shown = axes.scatter(mean[:, 0], mean[:, 1], c=nodes, s=5, cmap="viridis", zorder=2)
    axes.plot(*mean.T, color=_GREY, linewidth=0.6, zorder=1)
    axes.plot(*mean[0], "o", color=_INK, markersize=5, zorder=3)
    span = max(float(np.ptp(mean, axis=0).max()), _LEAST_SPAN_NM)
    centre = 0.5 * (mean.min(axis=0) + mean.max(axis=0))
    axes.set_xlim(centre[0] - 0.6 * span, centre[0] + 0.6 * span)
    axes.set_ylim(centre[1] + 0.6 * span, centre[1] - 0.6 * span)  # rows run downwards
    axes.set_aspect("equal")
    axes.set_title(
        "in the plane, y downwards; the dot is the start", fontsize=9, color=_INK, loc="left"
    )
    axes.set_xlabel("along x (nm)")
    axes.set_ylabel("along y (nm)")
    bar = axes.figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("frame", fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _measured(drift: Drift) -> tuple[Array, Array, Array]:
    """Give the averages on the path's scale, their sd, and the middle of their frames."""
    averages = drift.averages
    number = len(averages.value_nm)
    weight = averages.weight / np.bincount(averages.average, averages.weight)[averages.average]
    centre = np.asarray(np.bincount(averages.average, weight * averages.frame, number), float)
    along = drift.path.at(averages.frame)[0]
    mean = np.stack([np.bincount(averages.average, weight * a, number) for a in along.T], axis=1)
    variance = np.diagonal(averages.covariance_nm2, axis1=1, axis2=2)
    apart = averages.value_nm - mean
    constant = (apart / variance).sum(axis=0) / (1.0 / variance).sum(axis=0)
    return averages.value_nm - constant, np.sqrt(variance), centre
