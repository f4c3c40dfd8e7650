"""Pictures by which a camera's calibration can be judged: photon transfer, maps, histograms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from sureloc.calibrate.transfer import Calibration
from sureloc.report.charts import BLUE, GREY, INK, ORANGE
from sureloc.report.log_ticks import plain_log_ticks

Array = npt.NDArray[np.float64]

PHOTON_TRANSFER = "photon_transfer.png"
MAPS = "maps.png"
HISTOGRAMS = "histograms.png"
_COLOURS = (BLUE, ORANGE, "#1b6e3c", "#b3261e", "#7b4fa3", "#8c6d1f", "#2a9d9d")
_SHOWN_Z = 4.0
_MOST_CROSSES = 400


def draw_calibration(calibration: Calibration, folder: Path) -> None:
    """Draw all three pictures into a folder as PNG.

    Raises:
        OSError: a file cannot be written.
    """
    draw_photon_transfer(calibration, folder / PHOTON_TRANSFER)
    draw_maps(calibration, folder / MAPS)
    draw_histograms(calibration, folder / HISTOGRAMS)


def draw_photon_transfer(calibration: Calibration, path: Path) -> None:
    """Draw variance over signal, what the line leaves, and the gain that each flat gives alone."""
    figure = Figure(figsize=(13.0, 4.4), dpi=110, layout="constrained")
    curve, left_over, single = figure.subplots(1, 3)
    slope = calibration.camera.excess_noise * calibration.mean_gain
    used = [k for k, flat in enumerate(calibration.flats) if not flat.left_out]
    points = calibration.curve
    line = np.array([0.7 * points[:, 0].min(), 1.4 * points[:, 0].max()])
    factor = "" if calibration.camera.em_gain == 1 else "excess noise × "
    curve.plot(line, slope * line, color=INK, linewidth=1.0, label=f"{factor}gain × signal")
    for number in used:
        mine = points[points[:, 3] == number]
        colour = _COLOURS[number % len(_COLOURS)]
        name = calibration.flats[number].name
        style = {"color": colour, "fmt": "o", "markersize": 4, "linewidth": 1.2}
        curve.errorbar(mine[:, 0], mine[:, 1], mine[:, 2], label=name, **style)
        expected = slope * mine[:, 0]
        left_over.errorbar(
            mine[:, 0], 100 * (mine[:, 1] / expected - 1), 100 * mine[:, 2] / expected, **style
        )
        flat = calibration.flats[number]
        single.errorbar([flat.level_e], [flat.gain_adu_per_e], [flat.error], capsize=3, **style)
    curve.set_yscale("log")
    curve.set_xlabel("signal above the dark movie (ADU)")
    curve.set_ylabel("variance above the dark movie (ADU²)")
    curve.set_title("photon transfer, five bins of pixels a flat", fontsize=10)
    curve.legend(frameon=False, fontsize=8)
    left_over.axhline(0.0, color=INK, linewidth=1.0)
    left_over.set_xlabel("signal above the dark movie (ADU)")
    left_over.set_ylabel("off the line (%)")
    left_over.set_title("what the line leaves", fontsize=10)
    mean, error = calibration.mean_gain, calibration.mean_gain_error
    single.axhspan(mean - error, mean + error, color=GREY, alpha=0.4, linewidth=0)
    single.axhline(mean, color=INK, linewidth=1.0)
    single.set_xlabel("light (photo-electrons per pixel and frame)")
    single.set_ylabel("gain (ADU per electron)")
    single.set_title(f"linearity: each flat alone; all: {mean:.4g} ± {error:.2g}", fontsize=10)
    low, high = single.get_ylim()
    wide = max(high - mean, mean - low, 0.02 * mean)
    single.set_ylim(mean - wide, mean + wide)
    for axes in (curve, left_over, single):
        axes.set_xscale("log")
        plain_log_ticks(axes.xaxis)
        axes.grid(color="#eeeeee", linewidth=0.6)
        axes.set_axisbelow(True)
    figure.savefig(path)


def draw_maps(calibration: Calibration, path: Path) -> None:
    """Draw offset, read noise and gain, their errors, and the bad pixels."""
    camera = calibration.camera
    rows, columns = calibration.hot.shape
    height = min(max(3.9 * rows / columns, 1.6), 6.0)
    figure = Figure(figsize=(13.5, 2 * height + 1.0), dpi=110, layout="constrained")
    (offset, noise, gain), (wide, deviate, bad) = figure.subplots(2, 3)
    read_noise = np.sqrt(np.maximum(np.asarray(camera.variance_adu2), 1e-3))
    _map(offset, np.asarray(camera.offset_adu), "offset (ADU)")
    _map(noise, read_noise, "read noise (ADU, rms)", log=True)
    _map(gain, np.asarray(camera.gain_adu_per_e), "gain (ADU per electron)")
    _map(wide, 100 * calibration.gain_error / calibration.mean_gain, "error of the gain (%)")
    scatter = np.hypot(calibration.single_gain_error, calibration.gain_spread)
    z = (calibration.single_gain - calibration.mean_gain) / scatter
    shown = deviate.imshow(
        np.nan_to_num(z), cmap="RdBu_r", vmin=-_SHOWN_Z, vmax=_SHOWN_Z, interpolation="nearest"
    )
    _finish(deviate, shown, "single pixel's gain off the mean (expected sd)")
    _map(bad, np.asarray(camera.offset_adu), "offset (ADU)")
    for name, where, colour in (
        ("hot", calibration.hot, "#ff5a3c"),
        ("dead", calibration.dead, "#36c5f0"),
    ):
        y, x = np.nonzero(where)
        bad.scatter(
            x[:_MOST_CROSSES],
            y[:_MOST_CROSSES],
            s=22,
            marker="o",
            facecolors="none",
            edgecolors=colour,
            linewidths=1.0,
            label=f"{x.size:,} {name}"
            + (f" ({_MOST_CROSSES} shown)" if x.size > _MOST_CROSSES else ""),
        )
    bad.legend(fontsize=8, loc="upper right", framealpha=0.85)
    bad.set_title("bad pixels on the offset", fontsize=10)
    figure.savefig(path)


def draw_histograms(calibration: Calibration, path: Path) -> None:
    """Draw how offset, read variance and gain are spread over pixels, with their errors."""
    figure = Figure(figsize=(13.0, 3.8), dpi=110, layout="constrained")
    offset, variance, gain = figure.subplots(1, 3)
    camera, good = calibration.camera, ~(calibration.hot | calibration.dead)
    _histogram(
        offset,
        np.asarray(camera.offset_adu),
        calibration.offset_error_adu,
        good,
        "offset (ADU)",
    )
    values = np.asarray(camera.variance_adu2)
    shown = values[~calibration.dead & (values > 0)]
    edges = np.geomspace(shown.min() / 1.05, shown.max() * 1.05, 80)
    variance.hist(shown, edges, color=BLUE, alpha=0.75)
    variance.axvline(
        calibration.hot_threshold_adu2, color=ORANGE, linewidth=1.2, label="hot from here"
    )
    variance.set_xscale("log")
    variance.set_yscale("log")
    variance.set_xlabel("read variance (ADU²)")
    error = float(np.median(calibration.variance_error_adu2[good]))
    variance.set_title(f"median {np.median(values[good]):.3g}, error {error:.2g}", fontsize=10)
    variance.legend(frameon=False, fontsize=8)
    middle = calibration.mean_gain
    reach = 4 * float(np.median(np.hypot(calibration.single_gain_error, calibration.gain_spread)))
    edges = np.linspace(middle - reach, middle + reach, 70)
    alone = calibration.single_gain[good & np.isfinite(calibration.single_gain)]
    gain.hist(alone, edges, color=GREY, alpha=0.7, label="each pixel alone")
    gain.hist(
        np.asarray(camera.gain_adu_per_e)[good],
        edges,
        histtype="step",
        color=BLUE,
        linewidth=1.5,
        label="as written",
    )
    gain.set_xlabel("gain (ADU per electron)")
    gain.set_title(
        f"mean {middle:.4g}, true spread {100 * calibration.gain_spread / middle:.2g} %, "
        f"error {100 * float(np.median(calibration.gain_error[good])) / middle:.2g} %",
        fontsize=10,
    )
    gain.legend(frameon=False, fontsize=8)
    for axes in (offset, variance, gain):
        axes.set_ylabel("pixels")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _histogram(
    axes: Axes, values: Array, errors: Array, good: npt.NDArray[np.bool_], label: str
) -> None:
    low, high = np.percentile(values[good], (0.2, 99.8))
    margin = 0.15 * (high - low) + 1e-9
    edges = np.linspace(low - margin, high + margin, 70)
    axes.hist(values.ravel(), list(edges), color=BLUE, alpha=0.75)
    axes.set_xlabel(label)
    middle, error = float(np.median(values[good])), float(np.median(errors[good]))
    axes.set_title(f"median {middle:.5g}, error of a pixel {error:.2g}", fontsize=10)


def _map(axes: Axes, values: Array, label: str, *, log: bool = False) -> None:
    low, high = np.percentile(values, (1, 99))
    if high <= low:
        low, high = low - 0.5 * abs(low) - 1e-9, high + 0.5 * abs(high) + 1e-9
    norm: Normalize = LogNorm(max(low, 1e-3), high) if log else Normalize(low, high)
    shown = axes.imshow(values, cmap="viridis", norm=norm, interpolation="nearest")
    _finish(axes, shown, label)


def _finish(axes: Axes, shown: AxesImage, label: str) -> None:
    bar = axes.figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03, extend="both")
    if isinstance(shown.norm, LogNorm):
        plain_log_ticks(bar.ax.yaxis)
    bar.ax.tick_params(labelsize=7)
    axes.set_title(label, fontsize=10)
    axes.set_xlabel("column (px)", fontsize=8)
    axes.set_ylabel("row (px)", fontsize=8)
    axes.tick_params(labelsize=7)
