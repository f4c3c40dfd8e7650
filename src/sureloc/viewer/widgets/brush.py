"""The dock widget that brushes localizations: histograms and points that know of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from sureloc.viewer.brushing import Mask, chosen_rows, quantities
from sureloc.viewer.movie_layers import ABOUT
from sureloc.viewer.table_layers import diameters_nm
from sureloc.viewer.widgets.canvas import HistogramCanvas

if TYPE_CHECKING:
    from napari.layers import Points
    from napari.viewer import Viewer

NOTHING = "Open a table of localizations, or the results of a run."


class BrushWidget(QWidget):
    """Histograms beside the points: ranges choose rows, selected points show in all of them."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._layer: Points | None = None
        self.canvases: list[HistogramCanvas] = []
        self._build()
        for signal in ("inserted", "removed", "reordered"):
            getattr(napari_viewer.layers.events, signal).connect(self._list_layers)
        napari_viewer.events.theme.connect(self._paint_text)
        self._list_layers()

    # --- Building -------------------------------------------------------------------------------

    def _build(self) -> None:
        self.layers = QComboBox()
        self.layers.setAccessibleName("Points to brush")
        self.layers.currentIndexChanged.connect(self._take_layer)
        self.hide_others = QRadioButton("hide the others")
        self.select_them = QRadioButton("select them")
        self.hide_others.setChecked(True)
        self.hide_others.toggled.connect(self._brush)
        self.all_frames = QCheckBox("show the rows of all frames at once")
        self.all_frames.toggled.connect(self._show_frames)
        self.sigmas = QDoubleSpinBox()
        self.sigmas.setRange(0.5, 20.0)
        self.sigmas.setSingleStep(0.5)
        self.sigmas.setValue(1.0)
        self.sigmas.setSuffix(" standard deviations")
        self.sigmas.valueChanged.connect(self._size_circles)
        self.drop = QPushButton("Drop all ranges")
        self.drop.clicked.connect(self.drop_ranges)
        self.count = QLabel(NOTHING)
        self.count.setWordWrap(True)
        self._histograms = QVBoxLayout()
        self._arrange()

    def _arrange(self) -> None:
        ways = QHBoxLayout()
        ways.addWidget(self.hide_others)
        ways.addWidget(self.select_them)
        form = QFormLayout()
        form.addRow("Poi&nts", self.layers)
        form.addRow("Rows in the ranges:", ways)
        form.addRow("Radi&us of circles", self.sigmas)
        column = QVBoxLayout(self)
        column.addLayout(form)
        column.addWidget(self.all_frames)
        column.addLayout(self._histograms)
        column.addWidget(self.count)
        column.addWidget(self.drop)
        column.addStretch()

    # --- Which points ---------------------------------------------------------------------------

    def _brushable(self) -> list[Points]:
        return [
            layer
            for layer in self._viewer.layers
            if layer.metadata.get(ABOUT, {}).get("points") and quantities(layer.features)
        ]

    def _list_layers(self, _event: object = None) -> None:
        """Offer the points that are there; keep the choice if it still is."""
        found = self._brushable()
        kept = self._layer if self._layer in found else None
        self.layers.blockSignals(True)
        self.layers.clear()
        for layer in found:
            self.layers.addItem(layer.name, layer)
        self.layers.setCurrentIndex(found.index(kept) if kept is not None else len(found) - 1)
        self.layers.blockSignals(False)
        if kept is None or self._layer is None:
            self._take_layer()

    def _take_layer(self, _index: int = 0) -> None:
        """Brush the chosen points from now on."""
        if self._layer is not None:
            self._layer.selected_data.events.items_changed.disconnect(self._show_shares)
            self._layer.events.features.disconnect(self._rows_changed)
        self._layer = self.layers.currentData()
        self._clear_histograms()
        if self._layer is None:
            self.count.setText(NOTHING)
            return
        self._layer.selected_data.events.items_changed.connect(self._show_shares)
        self._layer.events.features.connect(self._rows_changed)
        for quantity in quantities(self._layer.features):
            canvas = HistogramCanvas(quantity, self._theme_text())
            canvas.range_changed.connect(self._brush)
            self._histograms.addWidget(canvas)
            self.canvases.append(canvas)
        self._brush()

    def _rows_changed(self, _event: object = None) -> None:
        """Count again after points were added, deleted or moved; ranges go with the old bins."""
        if self._layer is not None and len(self._layer.features) == len(self._layer.data):
            self._take_layer()
            self._size_circles(self.sigmas.value())

    def _clear_histograms(self) -> None:
        for canvas in self.canvases:
            self._histograms.removeWidget(canvas)
            canvas.setParent(None)
            canvas.deleteLater()
        self.canvases = []

    # --- Linked views ---------------------------------------------------------------------------

    def kept(self) -> Mask:
        """Tell which rows lie in all ranges."""
        return chosen_rows(
            len(self.canvases[0].quantity.values),
            {canvas.quantity.name: canvas.quantity.values for canvas in self.canvases},
            {canvas.quantity.name: canvas.range for canvas in self.canvases if canvas.range},
        )

    def drop_ranges(self) -> None:
        """Choose all rows again, and select none."""
        for canvas in self.canvases:
            canvas.blockSignals(True)
            canvas.choose(None)
            canvas.blockSignals(False)
        if self._layer is not None:
            self._layer.selected_data = set()
            self._brush()

    def _brush(self, _changed: object = None) -> None:
        """Hide or select points as the ranges say."""
        if self._layer is None:
            return
        kept = self.kept()
        if self.hide_others.isChecked():
            self._layer.shown = kept
            hidden = set(self._layer.selected_data) - set(np.flatnonzero(kept).tolist())
            if hidden:
                self._layer.selected_data = set(self._layer.selected_data) - hidden
        else:
            self._layer.shown = True
            anything = any(canvas.range for canvas in self.canvases)
            self._layer.selected_data = set(np.flatnonzero(kept).tolist()) if anything else set()
        self._show_shares()

    def _show_shares(self, _event: object = None) -> None:
        """Show in every histogram what is kept and what is selected, and say how many."""
        if self._layer is None:
            return
        kept = self.kept()
        selected = np.zeros(kept.size, dtype=bool)
        selected[[row for row in self._layer.selected_data if row < kept.size]] = True
        for canvas in self.canvases:
            canvas.show_share(kept, selected)
        self.count.setText(
            f"{int(kept.sum()):,} of {kept.size:,} rows lie in the ranges; "
            f"{int(selected.sum()):,} are selected."
        )

    # --- Looks ----------------------------------------------------------------------------------

    def _size_circles(self, sigmas: float) -> None:
        if self._layer is not None:
            self._layer.selected_data = set()  # sizes go to selected points only, if there are any
            self._layer.size = diameters_nm(self._layer.features, sigmas)

    def _show_frames(self, every: bool) -> None:
        """Make the slice of the frame axis as thick as the movie, or one frame again."""
        dims = self._viewer.dims
        if dims.ndim < 3:
            return
        first, last, _step = dims.range[0]
        thick = (last - first) + 1.0 if every else 0.0
        for side in ("margin_left", "margin_right"):
            setattr(dims, side, (thick, *getattr(dims, side)[1:]))

    def _theme_text(self) -> str:
        from napari.utils.theme import get_theme

        return str(get_theme(self._viewer.theme).text.as_hex())

    def _paint_text(self, _event: Any = None) -> None:
        for canvas in self.canvases:
            canvas.paint_text(self._theme_text())
