"""Take docs/images/napari.png: the plugin's layers and panels on what `sureloc demo` makes.

xvfb-run -a -s "-screen 0 1400x1000x24" env QT_QPA_PLATFORM=xcb \
    python scripts/napari_picture.py DEMO

Needs the extra `napari`, and a screen, for which Xvfb can stand.
"""

from __future__ import annotations

import sys
from pathlib import Path

import napari
from qtpy.QtCore import QTimer

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "napari.png"
WINDOW_PX = 1180, 820
FRAME = 25
CENTRE_NM, NM_PER_PX = (1900.0, 3500.0), 5.0  # y and x: where filaments cross
CIRCLE_SIGMAS = 2.0
PRECISION_NM = 4.0, 8.0  # rows outside are hidden
SETTLED_MS = 3000


def main(demo: Path) -> None:
    """Open a movie and its results, choose rows, and save what the window shows."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*WINDOW_PX)
    viewer.open(str(demo / "movie" / "movie.ome.tif"), plugin="sureloc")
    viewer.open(str(demo / "result"), plugin="sureloc")
    movie, _mean, sd, _doubts, rows = viewer.layers
    sd.visible = True
    movie.opacity = 0.6  # spots must not outshine what lies over them
    for name in ("Localize molecules", "Brush localizations"):
        _, brush = viewer.window.add_plugin_dock_widget("sureloc", name, tabify=True)
    brush.sigmas.setValue(CIRCLE_SIGMAS)
    brush.all_frames.click()
    brush.canvases[0].choose(PRECISION_NM)
    viewer.layers.selection = {rows}
    viewer.dims.set_current_step(0, FRAME)
    viewer.canvas.overlays.scale_bar.visible = True
    viewer.scene.camera.center = CENTRE_NM
    viewer.scene.camera.zoom = 1 / NM_PER_PX
    QTimer.singleShot(SETTLED_MS, lambda: _save(viewer))
    napari.run()


def _save(viewer: napari.Viewer) -> None:
    viewer.window.screenshot(str(PICTURE), flash=False, canvas_only=False)
    viewer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
