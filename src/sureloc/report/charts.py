"""The report's charts as SVG: precision against its bound, counts per frame, chi2, priors."""

from __future__ import annotations

import io
from html import escape

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sureloc.localize.tally import Histogram, Tally
from sureloc.physics.priors import PhotonPrior
from sureloc.report.log_ticks import plain_log_ticks

Array = npt.NDArray[np.float64]

INK, MUTED = "#202124", "#5f6368"
BLUE, ORANGE, GREY = "#1f6f9f", "#d9730d", "#9aa0a6"
CHI2_SHOWN = (0.5, 1.5)
_CHI2_BINS = 50
_MOST_POINTS = 500
_WIDE_IN, _NARROW_IN = 9.0, 4.4  # a chart over the page, and half of it or a phone's screen


def precision_chart(tally: Tally) -> str:
    """Draw histograms of stated precision and Cramer-Rao bound, and of their ratio; give HTML."""
    (first, left), (second, right) = _figure(), _figure()
    edges = tally.precision.edges
    for histogram, label, colour, filled in (
        (tally.bound, "Cramér-Rao bound", GREY, True),
        (tally.precision, "stated precision", BLUE, False),
    ):
        left.stairs(
            histogram.counts,
            edges,
            fill=filled,
            color=colour,
            alpha=0.6 if filled else 1.0,
            linewidth=1.6,
            label=label,
        )
    _log_axis(left, _shown(tally.precision, tally.bound))
    left.set_xlabel("standard deviation along x or y (nm)")
    left.set_ylabel("x and y of the localizations")
    highest = max(tally.precision.counts.max(), tally.bound.counts.max(), 1)
    left.set_ylim(0, 1.3 * highest)  # room for the legend
    _whole_counts(left)
    _legend(left)
    right.stairs(tally.ratio.counts, tally.ratio.edges, fill=True, color=BLUE, alpha=0.75)
    right.axvline(1.0, color=INK, linewidth=1.0)
    low, high = _shown(tally.ratio)
    _log_axis(right, (min(low, 0.5), max(high, 2.0)))
    _whole_counts(right)
    right.set_xlabel("stated precision / Cramér-Rao bound")
    right.set_ylabel("x and y of the localizations")
    return _side_by_side(
        _svg(first, "Histograms of stated precision and Cramér-Rao bound, nm"),
        _svg(second, "Histogram of stated precision over Cramér-Rao bound"),
    )


def counts_chart(tally: Tally, first_frame: int) -> str:
    """Draw rows per frame, all and trusted; long movies are averaged. Gives HTML.

    It holds the chart twice, for wide and for narrow screens; the page's style shows one.
    """
    wide, narrow = (_counts_chart(tally, first_frame, w) for w in (_WIDE_IN, _NARROW_IN))
    return f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'


def _counts_chart(tally: Tally, first_frame: int, width_in: float) -> str:
    figure, axes = _figure(width_in, 2.6)
    number = len(tally.rows_per_frame)
    group = max(1, -(-number // _MOST_POINTS))
    starts = np.arange(0, number, group)
    for counts, label, colour, style in (
        (tally.rows_per_frame, "all", GREY, "dashed"),
        (tally.trusted_per_frame, "trusted", BLUE, "solid"),
    ):
        sums = np.add.reduceat(np.asarray(counts, float), starts)
        mean = sums / np.diff([*starts, number])
        marker = "o" if starts.size < 60 else None
        axes.plot(
            starts + first_frame + 0.5 * (group - 1),
            mean,
            color=colour,
            linestyle=style,
            linewidth=1.3,
            marker=marker,
            markersize=3.5,
            label=label,
        )
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if group == 1:
        _whole_counts(axes)
    axes.set_xlabel("frame" if group == 1 else f"frame (means of {group})")
    axes.set_ylabel("localizations")
    _legend(axes)
    return _svg(figure, "Localizations per frame, all and trusted")


def rows_chart(tally: Tally) -> str:
    """Draw histograms of photons and of existence probability; give HTML."""
    (first, left), (second, right) = _figure(), _figure()
    left.stairs(tally.photons.counts, tally.photons.edges, fill=True, color=BLUE, alpha=0.75)
    _log_axis(left, _shown(tally.photons))
    left.set_xlabel("detected photons per localization")
    left.set_ylabel("localizations")
    edges = tally.probability.edges
    right.stairs(tally.probability.counts, edges, fill=True, color=BLUE, alpha=0.75)
    right.set_xlim(0, 1)
    if tally.rows:
        # Most rows are sure: a linear axis would hide all others.
        right.set_yscale("log")
        right.set_ylim(0.7, 2.0 * max(tally.probability.counts.max(), 5))
        plain_log_ticks(right.yaxis, 6)
    _whole_counts(left)
    right.set_xlabel("probability that the molecule exists")
    right.set_ylabel("localizations")
    return _side_by_side(
        _svg(first, "Histogram of detected photons per localization"),
        _svg(second, "Histogram of the probability that the molecule exists"),
    )


def prior_chart(prior: PhotonPrior, quantum_efficiency: float) -> str:
    """Draw the photon prior that the movie taught; give SVG."""
    figure, axes = _figure(_NARROW_IN, 2.6)
    photons = np.exp(prior.log_photons) / quantum_efficiency
    density = np.exp(prior.log_density)
    axes.fill_between(photons, density, color=ORANGE, alpha=0.35, linewidth=0)
    axes.plot(photons, density, color=ORANGE, linewidth=1.4)
    shown = np.flatnonzero(density > 0.01 * density.max())
    _log_axis(axes, (float(photons[shown[0]]), float(photons[shown[-1]])))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("photons per molecule and frame")
    axes.set_ylabel("relative frequency")
    return _svg(figure, "Photons per molecule and frame that the movie taught")


def chi2_chart(chi2: Array, first_row: int, first_column: int) -> str:
    """Draw map and histogram of the local chi2 averaged over the movie; give HTML.

    Args:
        chi2: 1 where the image model fits, (rows, columns).
        first_row, first_column: of the map in the camera frame.
    """
    rows, columns = chi2.shape
    height = min(max(3.6 * rows / columns, 2.0), 6.0)
    figure, axes = _figure(_NARROW_IN, height)
    axes.spines[["top", "right"]].set_visible(True)
    half = 0.5
    shown = axes.imshow(
        chi2,
        cmap="cividis",  # its lightness rises all the way: too high is never taken for too low
        vmin=CHI2_SHOWN[0],
        vmax=CHI2_SHOWN[1],
        interpolation="nearest",
        extent=(
            first_column - half,
            first_column + columns - half,
            first_row + rows - half,
            first_row - half,
        ),
    )
    axes.set_xlabel("column (px)")
    axes.set_ylabel("row (px)")
    bar = figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03, extend="both")
    bar.set_label("local chi2 (1: fits)", color=INK, fontsize=8)
    bar.ax.tick_params(colors=MUTED, labelsize=8)
    second, right = _figure(height=height)
    low, high = CHI2_SHOWN
    edges = np.linspace(low, high, _CHI2_BINS + 1)
    # What lies beyond goes to the outermost bins, as in the map's colours.
    counts, _ = np.histogram(np.clip(chi2[np.isfinite(chi2)], low, high), edges)
    right.stairs(counts, edges, fill=True, color=BLUE, alpha=0.75)
    right.axvline(1.0, color=INK, linewidth=1.0)
    right.set_xlim(low, high)
    _whole_counts(right)
    right.set_xlabel("local chi2 (1: fits; the outermost bars hold what lies beyond)")
    right.set_ylabel("camera pixels")
    return _side_by_side(
        _svg(figure, "Map of the local chi2; 1 where the image model fits"),
        _svg(second, "Histogram of the local chi2"),
    )


def _figure(width: float = _NARROW_IN, height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained", facecolor="none")
    axes = figure.subplots()
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    return figure, axes


def _side_by_side(*charts: str) -> str:
    return f'<div class="row">{"".join(f"<div>{chart}</div>" for chart in charts)}</div>'


def _log_axis(axes: Axes, limits: tuple[float, float]) -> None:
    """Make x logarithmic with plain numbers."""
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    plain_log_ticks(axes.xaxis)


def _whole_counts(axes: Axes) -> None:
    """Keep a linear axis of counts from ticks between them."""
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)


def _shown(*histograms: Histogram) -> tuple[float, float]:
    """Give the range of the bins that hold something, one decade at least."""
    edges = histograms[0].edges
    filled = np.flatnonzero(np.sum([h.counts for h in histograms], axis=0))
    if filled.size == 0:
        return float(edges[0]), float(edges[-1])
    low, high = float(edges[filled[0]]), float(edges[filled[-1] + 1])
    middle = np.sqrt(low * high)
    return min(low, middle / 3.2), max(high, middle * 3.2)


def _svg(figure: Figure, label: str) -> str:
    """Give a figure as SVG that screen readers call by a label."""
    buffer = io.StringIO()
    # Text stays text, and equal data give an equal file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sureloc"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    named = f'<svg role="img" aria-label="{escape(label)}"'
    return text[text.index("<svg") :].replace("<svg", named, 1)
