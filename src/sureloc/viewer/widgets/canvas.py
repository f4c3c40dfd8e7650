"""A histogram in which a range is drawn with the mouse, or moved with the keyboard."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from matplotlib.widgets import SpanSelector
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QKeyEvent

from sureloc.viewer.brushing import Histogram, Mask, Quantity, Range, histogram

ALL_COLOUR, KEPT_COLOUR, SELECTED_COLOUR = "#8a8f98", "#56b4e9", "#f0e442"
_HEIGHT_PX = 150


class HistogramCanvas(FigureCanvasQTAgg):
    """One quantity's histogram: all rows in grey, those kept in blue, those selected in yellow.

    Drag to choose a range, drag its edges to change it, click to drop it. With the keyboard: arrows
    move it by a bin, Shift moves its upper end only, Control its lower end only, Escape drops it.
    """

    range_changed = Signal()

    def __init__(self, quantity: Quantity, text_colour: str = "#909090") -> None:
        super().__init__(Figure(layout="constrained"))
        self.quantity = quantity
        self.histogram: Histogram = histogram(quantity.values)
        self.range: Range | None = None
        self.setObjectName(f"histogram of {quantity.name}")
        self.setAccessibleName(f"Histogram of {quantity.label}")
        self.setToolTip("Drag to choose a range. Arrow keys move it; Escape drops it.")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMinimumHeight(_HEIGHT_PX)
        self.setStyleSheet("background-color: transparent")
        self.figure.patch.set_alpha(0.0)
        self._text_colour = text_colour
        self._axes = self.figure.add_subplot()
        self._kept, self._selected = self._draw_bars()
        self._span = self._new_span()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Say how large it would like to be."""
        return QSize(280, _HEIGHT_PX)

    def show_share(self, kept: Mask, selected: Mask) -> None:
        """Show which rows are kept by the ranges, and which are selected."""
        values = self.quantity.values
        for bars, rows in ((self._kept, kept), (self._selected, selected)):
            bars.set_data(self.histogram.share(values, rows), self.histogram.edges, 0.5)
        self.draw_idle()

    def choose(self, chosen: Range | None) -> None:
        """Choose a range, or drop it."""
        self.range = chosen
        if chosen is None:
            self._span.clear()
        else:
            self._span.extents = chosen
            self._span.set_visible(True)
        self.draw_idle()
        self.range_changed.emit()

    def paint_text(self, colour: str) -> None:
        """Give axes and labels another colour, that of the theme's text."""
        self._text_colour = colour
        axes = self._axes
        axes.tick_params(colors=colour, which="both", labelsize=8)
        axes.xaxis.label.set_color(colour)
        axes.yaxis.label.set_color(colour)
        for side in axes.spines.values():
            side.set_edgecolor(colour)
        self.draw_idle()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Move the range with arrows, drop it with Escape."""
        step = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}.get(Qt.Key(event.key()), 0)
        if event.key() == Qt.Key.Key_Escape:
            self.choose(None)
        elif step:
            self._move(step, event.modifiers())
        else:
            super().keyPressEvent(event)

    def _move(self, step: int, modifiers: Qt.KeyboardModifier) -> None:
        upper_only = bool(modifiers & Qt.KeyboardModifier.ShiftModifier)
        lower_only = bool(modifiers & Qt.KeyboardModifier.ControlModifier)
        edges = self.histogram.edges
        now = self.range or (float(edges[0]), float(edges[-1]))
        self.choose(self.histogram.moved(now, 0 if upper_only else step, 0 if lower_only else step))

    def _draw_bars(self):  # type: ignore[no-untyped-def]  # matplotlib's StepPatch, twice
        axes, found = self._axes, self.histogram
        axes.set_facecolor("none")
        axes.stairs(found.counts, found.edges, fill=True, color=ALL_COLOUR, baseline=0.5)
        bars = [
            axes.stairs(
                np.zeros_like(found.counts), found.edges, fill=True, color=colour, baseline=0.5
            )
            for colour in (KEPT_COLOUR, SELECTED_COLOUR)
        ]
        axes.set_xscale("log" if found.logarithmic else "linear")
        axes.set_yscale("log")
        axes.set_ylim(0.5, 2.0 * max(int(found.counts.max()), 1))
        axes.set_xlim(*found.with_margins())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(self.quantity.label, fontsize=9)
        axes.set_ylabel("rows", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        self.paint_text(self._text_colour)
        return bars

    def _new_span(self) -> SpanSelector:
        return SpanSelector(
            self._axes,
            self._dragged,
            "horizontal",
            useblit=True,
            interactive=True,
            drag_from_anywhere=True,
            props={"facecolor": KEPT_COLOUR, "alpha": 0.25},
            handle_props={"color": KEPT_COLOUR},
        )

    def _dragged(self, low: float, high: float) -> None:
        first, last = float(self.histogram.edges[0]), float(self.histogram.edges[-1])
        chosen = max(float(low), first), min(float(high), last)
        self.choose(chosen if chosen[0] < chosen[1] else None)
