"""Picture of a search of schedules: phi-FD, energy score and spread-skill by evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from sureloc.networks.weights import (
    CosineLevels,
    KarrasLevels,
    LevelsCard,
    LinearBetaLevels,
    ListLevels,
    LogSnrLevels,
)
from sureloc.train.search import (
    CALIBRATED,
    Scored,
    chosen_by_distance,
    chosen_by_energy,
    family,
    is_calibrated,
)

_INK, _BAND = "#202124", "#dfe8dc"
_MARKS = (("s", "#b3261e"), ("D", "#1b6e3c"))


def draw_search(scored: Sequence[Scored], path: Path) -> None:
    """Draw one line for each family of schedules; both choices are marked in all panels.

    Args:
        scored: what `sureloc.train.search.search` gave.
        path: new PNG file.
    """
    figure = Figure(figsize=(13.5, 5.2), dpi=110, layout="constrained")
    best = min(one.energy for one in scored)
    panels: Sequence[tuple[str, Callable[[Scored], float]]] = (
        (scored[0].distance_name, lambda one: one.distance),
        ("fair energy score above the best (%)", lambda one: 100 * (one.energy / best - 1)),
        ("spread-skill ratio", lambda one: one.spread_skill),
    )
    axes = list(figure.subplots(1, len(panels)))
    for one, (name, value) in zip(axes, panels, strict=True):
        _panel(one, scored, value)
        one.set_ylabel(name)
    axes[2].axhspan(*CALIBRATED, color=_BAND, zorder=0)
    axes[2].axhline(1.0, color=_INK, linewidth=0.8, zorder=0.5)
    for one, scale in zip(axes, ("log", "symlog", "log"), strict=True):
        if scale == "log":
            one.set_yscale("log")
            one.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        else:
            one.set_yscale("symlog", linthresh=1, linscale=1)
            one.set_yticks([0, 0.5, 1, 2, 5, 10, 20, 50, 100])
            one.set_ylim(-0.1, 1.5 * max(line.get_ydata().max() for line in one.lines) + 1)
        one.yaxis.set_minor_locator(NullLocator())
        one.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        one.grid(axis="y", color="#eeeeee", linewidth=0.6, zorder=-1)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.suptitle(
        "Inference schedules of one trained network; left and middle, smaller is better; filled "
        f"points spread as they err ({CALIBRATED[0]:g} to {CALIBRATED[1]:g}, shaded)",
        fontsize=10,
    )
    figure.savefig(path)


def _panel(axes: Axes, scored: Sequence[Scored], value: Callable[[Scored], float]) -> None:
    families = list(dict.fromkeys(one.candidate.levels for one in scored))
    for levels in families:
        line = [one for one in scored if one.candidate.levels == levels]
        line.sort(key=lambda one: one.evaluations)
        colour, dashes = _look(levels, families)
        axes.plot(
            [one.evaluations for one in line],
            [value(one) for one in line],
            color=colour,
            linestyle=dashes,
            linewidth=1.2,
            label=family(levels),
        )
        for point in line:
            axes.plot(
                point.evaluations,
                value(point),
                "o",
                color=colour,
                markerfacecolor=colour if is_calibrated(point) else "white",
                markersize=4.5,
            )
    choices = (
        (scored[0].distance_name, chosen_by_distance(scored)),
        ("energy score", chosen_by_energy(scored)),
    )
    for size, (marker, colour), (judge, one) in zip((15, 11), _MARKS, choices, strict=True):
        if one is not None:
            axes.plot(
                one.evaluations,
                value(one),
                marker,
                color=colour,
                markerfacecolor="none",
                markersize=size,
                markeredgewidth=1.8,
                label=f"chosen by {judge}",
                linestyle="none",
            )
    axes.set_xscale("log")
    ticks = sorted({one.evaluations for one in scored})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("evaluations of Psi for one draw")
    axes.spines[["top", "right"]].set_visible(False)


def _look(levels: LevelsCard, families: Sequence[LevelsCard]) -> tuple[object, str]:
    """Give a colour by the kind of schedule, its shade and dashes by its place in it."""
    names = {
        KarrasLevels: "Blues",
        LinearBetaLevels: "Oranges",
        CosineLevels: "Purples",
        LogSnrLevels: "Greens",
        ListLevels: "Greys",
    }
    kin = [other for other in families if type(other) is type(levels)]
    place = kin.index(levels)
    shade = 0.45 + 0.5 * (place + 1) / len(kin)
    return colormaps[names[type(levels)]](shade), ("-", "--")[place % 2]
