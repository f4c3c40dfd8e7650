"""What a movie is like, in one picture and one table."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from scipy import stats

from sureloc.calibrate.inspection import Inspection
from sureloc.calibrate.quantities import Quantity
from sureloc.report.charts import BLUE, GREY, INK, ORANGE
from sureloc.report.image_axes import (
    add_colour_bar,
    add_scale_bar,
    darker_corner,
    image_extent_nm,
)
from sureloc.report.log_ticks import plain_log_ticks
from sureloc.report.records import plain
from sureloc.simulate.recipe import FrameRecipe

Array = npt.NDArray[np.float64]

_MOST_TICKS = 5
_MOST_DIGITS = 6  # behind the point; smaller numbers are written with a power of ten
_LEAST_TRIALS = 5  # of a point; fewer say next to nothing

COLUMNS = ("quantity", "value", "unit", "from", "weights")


def table_rows(inspection: Inspection) -> list[tuple[str, ...]]:
    """Give the table for people: `COLUMNS` of every quantity."""
    return [
        (
            quantity.name,
            value_text(quantity),
            "" if quantity.value is None else quantity.unit,
            _origin(quantity),
            _covers(quantity),
        )
        for quantity in inspection.quantities.values()
    ]


def value_text(quantity: Quantity) -> str:
    """Give value and error with as many digits as the error leaves meaning."""
    value, error = quantity.value, quantity.error
    if value is None:
        return "unknown"
    if error is None or not error > 0:
        return f"{value:.4g}"
    digits = max(1 - math.floor(math.log10(error)), 0)
    if digits > _MOST_DIGITS:
        exponent = math.floor(math.log10(max(abs(value), error)))
        size = 10.0**exponent
        digits = max(digits + exponent, 0)
        return f"({value / size:.{digits}f} ± {error / size:.{digits}f})e{exponent}"
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _with_unit(quantity: Quantity) -> str:
    known = quantity.value is not None
    return f"{value_text(quantity)} {quantity.unit}".rstrip() if known else value_text(quantity)


def _origin(quantity: Quantity) -> str:
    return ": ".join(part for part in (quantity.source, quantity.note) if part)


def _covers(quantity: Quantity) -> str:
    if quantity.covered is None or quantity.trained is None:
        return ""
    low, high = quantity.trained
    return f"{'covered' if quantity.covered else 'NOT COVERED'} ({low:.3g} to {high:.3g})"


def as_record(inspection: Inspection) -> dict[str, Any]:
    """Give an inspection as plain values, for JSON; what is unknown is None."""
    on_time = inspection.on_time
    return {
        "shape": list(inspection.shape),
        "looked_at": list(inspection.looked_at),
        "weights": inspection.weights,
        "covered": inspection.covered,
        "quantities": {
            key: plain(asdict(quantity)) | {"covered": quantity.covered}
            for key, quantity in inspection.quantities.items()
        },
        "on_time": None
        if on_time is None
        else plain(
            {
                "trials": on_time.trials,
                "went_on": on_time.went_on,
                "tracks": on_time.tracks,
                "chance": on_time.chance,
                "at_least_frames": on_time.at_least,
            }
        ),
        "camera": {
            "name": inspection.camera_name,
            **{
                name: None if inspection.camera is None else getattr(inspection.camera, name)
                for name in ("em_gain", "excess_noise", "quantum_efficiency", "saturation_adu")
            },
        },
        "notes": list(inspection.notes),
    }


def draw_inspection(inspection: Inspection, name: str, path: Path) -> None:
    """Draw mean and sd of the frames, example spots, photon transfer and histograms as one PNG.

    Args:
        inspection: what was found.
        name: of the movie, for the title.
        path: the file.

    Raises:
        OSError: the file cannot be written.
    """
    layout = ConstrainedLayoutEngine(wspace=0.05, hspace=0.06)
    figure = Figure(figsize=(15.0, 7.4), dpi=110, layout=layout)
    panels = figure.subplots(2, 4)
    _frame(panels[0, 0], inspection.mean_adu, "mean of the frames", inspection)
    _frame(panels[0, 1], inspection.sd_adu, "standard deviation over time", inspection)
    _examples(panels[0, 2], inspection.examples_e)
    _noise(panels[0, 3], inspection)
    _histogram(
        panels[1, 0],
        inspection.spot_photons,
        "photo-electrons of a spot",
        "spots",
        inspection.quantities["photons"],
        log=True,
    )
    _histogram(
        panels[1, 1],
        inspection.background_e,
        "photo-electrons of a pixel without spots",
        "places in the frames, 16 px apart",
        inspection.quantities["background_e"],
    )
    _survival(panels[1, 2], inspection)
    _numbers(panels[1, 3], inspection)
    rows, columns = inspection.looked_at[1:]
    where = "" if (rows, columns) == inspection.shape[1:] else " in the middle"
    figure.suptitle(
        f"{name}: {inspection.looked_at[0]} of {inspection.shape[0]:,} frames, "
        f"{rows} x {columns} px{where}",
        fontsize=11,
    )
    figure.savefig(path)


def _frame(axes: Axes, image: Array, title: str, inspection: Inspection) -> None:
    low, high = np.percentile(image, (0.5, 99.7))
    shown = axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-9))
    pixel_nm = inspection.quantities["pixel_nm"].value
    if pixel_nm is None:
        axes.set_xlabel("column (px)", fontsize=8)
        axes.set_ylabel("row (px)", fontsize=8)
        axes.tick_params(labelsize=7)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(_whole_numbers())
    else:
        axes.set_xticks([])
        axes.set_yticks([])
        rows, columns = image.shape
        extent = image_extent_nm(FrameRecipe(height=rows, width=columns, pixel_nm=pixel_nm))
        shown.set_extent(extent)
        add_scale_bar(axes, extent, corner=darker_corner(inspection.mean_adu, inspection.sd_adu))
    add_colour_bar(axes, shown, "ADU")
    axes.set_title(title, fontsize=10)


def _examples(axes: Axes, windows: Array) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("example spots, faint to bright, contrast of each", fontsize=10)
    if not len(windows):
        axes.text(0.5, 0.5, "no spots", ha="center", transform=axes.transAxes)
        return
    across = math.ceil(math.sqrt(len(windows)))
    size = windows.shape[1]
    sheet = np.full((-(-len(windows) // across) * (size + 1) - 1, across * (size + 1) - 1), np.nan)
    for k, window in enumerate(windows):
        row, column = divmod(k, across)
        low, high = float(window.min()), float(window.max())
        place = np.s_[row * (size + 1) :, column * (size + 1) :]
        sheet[place][:size, :size] = (window - low) / max(high - low, 1e-9)
    axes.imshow(sheet, cmap="gray", interpolation="nearest")


def _noise(axes: Axes, inspection: Inspection) -> None:
    """Draw the movie's noise by its level, and what the camera makes of it."""
    noise = inspection.noise
    axes.set_title("noise by level", fontsize=10)
    axes.set_xlabel("level (photo-electrons per pixel)")
    axes.set_ylabel("variance (electrons²)")
    axes.spines[["top", "right"]].set_visible(False)
    if noise is None:
        axes.text(0.5, 0.5, "not measurable", ha="center", transform=axes.transAxes, color=GREY)
        return
    light = noise.level_e > 0  # a scale of ratios has no room for others
    if not light.any():
        axes.text(0.5, 0.5, "no light", ha="center", transform=axes.transAxes, color=GREY)
        return
    level = noise.level_e[light]
    axes.plot(level, noise.expected_e2[light], color=INK, linewidth=1.0, label="of the camera")
    for where, colour, label in (
        (light & noise.agrees, BLUE, "of the movie"),
        (light & ~noise.agrees, ORANGE, "of the movie, off"),
    ):
        if where.any():
            axes.errorbar(
                noise.level_e[where],
                noise.variance_e2[where],
                noise.error_e2[where],
                fmt="o",
                color=colour,
                markersize=4,
                label=label,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        plain_log_ticks(axis, _MOST_TICKS)
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _whole_numbers() -> MaxNLocator:
    return MaxNLocator(5, integer=True, steps=[1, 2, 5, 10])


def _histogram(
    axes: Axes, values: Array, label: str, of: str, quantity: Quantity, *, log: bool = False
) -> None:
    axes.set_title(f"{quantity.name}: {_with_unit(quantity)}", fontsize=10)
    axes.set_xlabel(label)
    axes.set_ylabel(of)
    axes.spines[["top", "right"]].set_visible(False)
    if not values.size:
        axes.text(0.5, 0.5, "none", ha="center", transform=axes.transAxes, color=GREY)
        return
    low, high = np.percentile(values, (0.2, 99.8))
    if log:
        low, high = max(low, 1.0), max(high, low * 1.1, 2.0)
        axes.set_xscale("log")
        edges = np.geomspace(low, high, 40)
        plain_log_ticks(axes.xaxis, _MOST_TICKS)
    else:
        edges = np.linspace(low, max(high, low + 1e-6), 40)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.hist(values, list(edges), color=BLUE, alpha=0.75)
    axes.yaxis.set_major_locator(_whole_numbers())
    if quantity.value is not None and quantity.error is not None:
        axes.axvspan(
            quantity.value - quantity.error,
            quantity.value + quantity.error,
            color=ORANGE,
            alpha=0.3,
            linewidth=0,
        )
        axes.axvline(quantity.value, color=ORANGE, linewidth=1.4)


def _survival(axes: Axes, inspection: Inspection) -> None:
    """Draw how often a molecule goes on, by how long it has shone already."""
    on_time, quantity = inspection.on_time, inspection.quantities["on_frames"]
    axes.set_title(f"on-time: {_with_unit(quantity)}", fontsize=10)
    axes.set_xlabel("frames that a molecule has shone")
    axes.set_ylabel("share that goes on (%)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(0, 105)
    if on_time is None or not on_time.ages.size:
        axes.text(0.5, 0.5, "not measurable", ha="center", transform=axes.transAxes, color=GREY)
        return
    trials = on_time.trials_by_age
    some = trials >= min(_LEAST_TRIALS, trials.max())
    share = on_time.went_on_by_age[some] / trials[some]
    # Jeffreys's 68 % interval stays sensible, and below 100 %, where none or all go on.
    went = on_time.went_on_by_age[some]
    low, high = stats.beta.interval(0.6827, went + 0.5, trials[some] - went + 0.5)
    error = np.maximum([share - low, high - share], 0.0)
    style: dict[str, Any] = {"fmt": "o", "color": BLUE, "markersize": 4, "linewidth": 1.1}
    axes.errorbar(on_time.ages[some], 100 * share, 100 * error, **style)
    axes.xaxis.set_major_locator(_whole_numbers())
    if quantity.value:
        own = math.exp(-1 / quantity.value)
        level = own + (1 - own) * on_time.chance
        axes.axhline(100 * level, color=ORANGE, linewidth=1.4, label="one on-time for all")
        axes.legend(frameon=False, fontsize=8, loc="lower left")


def _numbers(axes: Axes, inspection: Inspection) -> None:
    axes.set_axis_off()
    for k, quantity in enumerate(inspection.quantities.values()):
        colour = "#b3261e" if quantity.covered is False else INK
        y = 0.97 - k / max(len(inspection.quantities), 10)
        # Plain text: a name from a file must not be read as a formula.
        style: dict[str, Any] = {
            "transform": axes.transAxes,
            "fontsize": 8.5,
            "va": "top",
            "parse_math": False,
        }
        axes.text(0.0, y, quantity.name, color=colour, **style)
        axes.text(0.34, y, _with_unit(quantity), color=colour, **style)
    covered = inspection.covered
    said = "all covered by" if covered else "red: not covered by"
    if covered is None:
        said = "too little is known to compare with"
    axes.set_title(f"{said} the weights {inspection.weights}", fontsize=10)
