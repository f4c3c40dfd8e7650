"""The dock widgets in napari, used with mouse and keyboard.

They need napari, a Qt and pytest-qt (the extra `viewer-test`, or `make test-viewer`); those of a
whole window need OpenGL too, which Qt's offscreen platform lacks and Xvfb has.
"""

from __future__ import annotations

import os
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("pytestqt", reason="the viewer's tests need pytest-qt: make test-viewer")
pytest.importorskip("qtpy", reason="the viewer's tests need Qt: make test-viewer")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # napari's own, of its own imports
    pytest.importorskip("napari", reason="the viewer's tests need napari: make test-viewer")
    from napari.components import ViewerModel
    from napari.layers import Layer
    from npe2 import PluginManager

import tifffile
from matplotlib.colors import to_rgb
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from sureloc.io.exchange.formats import FORMATS, read_localizations, write_localizations
from sureloc.io.exchange.localizations import Geometry, Reading
from sureloc.io.output import new_folder
from sureloc.viewer.jobs import Stage
from sureloc.viewer.run_layers import run_layers
from sureloc.viewer.table_layers import DOUBTED_COLOUR, TRUSTED_COLOUR
from sureloc.viewer.widgets.brush import NOTHING, BrushWidget
from sureloc.viewer.widgets.canvas import SELECTED_COLOUR
from sureloc.viewer.widgets.localize import REGION, WHOLE, LocalizeWidget
from viewer_results import EMITTERS_PX, PIXEL_NM, SHAPE, SIGMA_NM, spot, write_movie, write_results

SOON_MS = 120_000
LEFT = Qt.MouseButton.LeftButton


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    return write_movie(tmp_path_factory.mktemp("movie") / "cells.ome.tif")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("run") / "cells_sureloc")


@pytest.fixture
def viewer():
    PluginManager.instance().discover()  # as napari does when it starts
    return ViewerModel()


# --- Opening ------------------------------------------------------------------------------------


def test_napari_finds_the_plugin_and_opens_everything_in_one_place(viewer, movie, results):
    for path in (movie, results, results / "localizations.csv"):
        viewer.open(str(path), plugin="sureloc")
    names = [layer.name for layer in viewer.layers]
    run = [f"cells_sureloc: {n}" for n in ("posterior mean", "posterior sd", "do not trust")]
    assert names == ["cells.ome.tif", *run, "cells_sureloc: localizations", "localizations"]
    shown, mean, sd, doubts, rows, storm = viewer.layers
    for image in (mean, sd):  # both are added to what lies below, so that nothing must be black
        assert image.colormap.map(np.zeros(1))[..., :3] == pytest.approx(0.0, abs=0.02)
    assert {str(unit) for unit in mean.units} == {"nanometer"}
    assert doubts.data.max() == 1
    for frame, (x, y) in enumerate(EMITTERS_PX, start=1):
        truth = np.array([y, x]) * PIXEL_NM
        for points in (rows, storm):
            place = points.data_to_world(points.data[frame - 1])
            assert place == pytest.approx([frame, *truth], abs=1e-3)
        brightest = np.unravel_index(np.asarray(shown.data[frame]).argmax(), SHAPE)
        pixel = np.asarray(shown.data_to_world((frame, *brightest)))[1:]
        assert np.abs(pixel - truth).max() <= 0.5 * PIXEL_NM + 1e-6
        # What napari finds under the emitter is the super-resolution image's peak.
        under = np.rint(mean.world_to_data(truth)).astype(int)
        window = np.asarray(mean.data)[under[0] - 4 : under[0] + 5, under[1] - 4 : under[1] + 5]
        assert window[4, 4] == window.max() > 0
    viewer.dims.set_current_step(0, 2)
    rows.shown = True
    assert rows._view_indices.tolist() == [1]  # a row is shown in its frame only


def test_napari_opens_tables_of_all_programs(viewer, results, tmp_path):
    data = read_localizations(results / "localizations.parquet", Reading(Geometry(PIXEL_NM)))
    for name, one in FORMATS.items():
        path = tmp_path / f"{name}{one.suffix}"
        write_localizations(data, path, name)
        readers = PluginManager.instance().iter_compatible_readers([str(path)])
        assert "sureloc" in {reader.plugin_name for reader in readers}
        (layer,) = viewer.open(str(path), plugin="sureloc")
        # Without a pixel size, what counts from a corner is off by half of what 100 nm are off.
        off = 0.5 * (PIXEL_NM - 100.0) if name in ("thunderstorm", "challenge") else 0.0
        for place, (x, y) in zip(layer.data, EMITTERS_PX, strict=True):
            assert place[1:] - off == pytest.approx(np.array([y, x]) * PIXEL_NM, abs=1e-3)


# --- Localizing ---------------------------------------------------------------------------------

OUTCOME = SimpleNamespace(
    rows=3, frames=3, seconds=1.0, notes=(), verdict=SimpleNamespace(sentence="Trust: all is well.")
)


class SlowRun:
    """Stands in for `localize_file`: waits for a frame to be let go, then leaves results."""

    def __init__(self):
        self.go_on = threading.Event()
        self.asked = {}

    def __call__(self, *, bar, pause, **asked):
        self.asked = asked
        with new_folder(asked["out"]) as folder, bar(4) as advance:
            for _ in range(2):
                advance()
            while not self.go_on.wait(0.01):
                pause()
            write_results(folder / "made")
            for made in (folder / "made").iterdir():
                made.rename(folder / made.name)
            (folder / "made").rmdir()
        return OUTCOME


@pytest.fixture
def run():
    return SlowRun()


@pytest.fixture
def widget(qtbot, viewer, movie, run, tmp_path):
    viewer.open(str(movie), plugin="sureloc")
    widget = LocalizeWidget(viewer, run)
    qtbot.addWidget(widget)
    widget.show()
    qtbot.waitExposed(widget)
    widget.activateWindow()  # keys act in the active window only, and Xvfb has nobody to choose it
    qtbot.waitUntil(widget.isActiveWindow, timeout=SOON_MS)
    widget.out.setText(str(tmp_path / "out"))
    yield widget
    widget.stop_now()


def click(button):
    QTest.mouseClick(button, LEFT)


def begun(qtbot, widget):
    click(widget.start)
    qtbot.waitUntil(lambda: "2 of 4 frames" in widget.message.text(), timeout=SOON_MS)


def test_a_run_shows_its_progress_and_adds_its_results(qtbot, widget, viewer, run, tmp_path):
    assert not widget.cancel.isEnabled()
    begun(qtbot, widget)
    assert (widget.progress.maximum(), widget.progress.value()) == (4, 2)
    assert not widget.start.isEnabled()
    run.go_on.set()
    qtbot.waitUntil(widget.start.isEnabled, timeout=SOON_MS)
    assert "3 localizations in 3 frames" in widget.message.text()
    assert "Trust: all is well." in widget.message.text()
    assert [layer.name for layer in viewer.layers][1:] == [
        f"out: {name}" for name in ("posterior mean", "posterior sd", "do not trust")
    ] + ["out: localizations"]
    assert run.asked["movie"].name == "cells.ome.tif"
    assert run.asked["pixel_nm"] is None  # the file says it


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_cancel_stops_soon_and_leaves_nothing(qtbot, widget, viewer, tmp_path, by):
    begun(qtbot, widget)
    if by == "mouse":
        click(widget.cancel)
    else:
        widget.frames.setFocus()
        QTest.keyClick(widget.frames, Qt.Key.Key_Escape)
    qtbot.waitUntil(widget.start.isEnabled, timeout=SOON_MS)
    assert widget.job.stage is Stage.CANCELLED
    assert "Cancelled; nothing was written" in widget.message.text()
    assert list(tmp_path.iterdir()) == []
    assert len(viewer.layers) == 1


def test_closing_the_widget_stops_its_run(qtbot, widget, tmp_path):
    begun(qtbot, widget)
    widget.close()
    assert widget.job.stage is Stage.CANCELLED
    assert list(tmp_path.iterdir()) == []


def test_typed_options_reach_the_run(qtbot, widget, run, viewer):
    for field, text in (
        (widget.pixel_nm, "160"),
        (widget.frames, "1:3"),
        (widget.camera, "camera.yaml"),
    ):
        field.setFocus()
        QTest.keyClicks(field, text)
    widget.sigma_px.selectAll()
    QTest.keyClicks(widget.sigma_px, "1.4")
    widget.draws.selectAll()
    QTest.keyClicks(widget.draws, "32")
    widget.weights.setCurrentText("default")
    begun(qtbot, widget)
    assert run.asked["pixel_nm"] == 160.0
    assert (run.asked["frames"], run.asked["sigma_px"]) == ("1:3", 1.4)
    assert (run.asked["draws"], run.asked["weights"]) == (32, "default")
    assert run.asked["camera"].name == "camera.yaml"
    assert viewer.layers[0].scale.tolist() == [1.0, 160.0, 160.0]


def test_a_typed_pixel_size_moves_tables_that_need_it(qtbot, widget, viewer, results, tmp_path):
    data = read_localizations(results / "localizations.parquet", Reading(Geometry(PIXEL_NM)))
    write_localizations(data, tmp_path / "locs.hdf5")
    with h5py.File(tmp_path / "locs.hdf5", "r+") as file:
        del file["metadata"]
    (tmp_path / "locs.yaml").unlink()
    (rows,) = viewer.open(str(tmp_path / "locs.hdf5"), plugin="sureloc")
    brush = BrushWidget(viewer)
    qtbot.addWidget(brush)
    brush.sigmas.setValue(2.0)
    assert rows.data[:, 2] / 100.0 == pytest.approx([x for x, _ in EMITTERS_PX])
    widget.pixel_nm.setFocus()
    QTest.keyClicks(widget.pixel_nm, "216")
    QTest.keyClick(widget.pixel_nm, Qt.Key.Key_Return)
    assert rows.data[:, 2] / 216.0 == pytest.approx([x for x, _ in EMITTERS_PX])
    assert rows.size == pytest.approx(2 * 2 * np.array(SIGMA_NM) * 216.0 / PIXEL_NM, rel=1e-6)
    assert brush.canvases[0].quantity.values == pytest.approx(np.array(SIGMA_NM) * 2, rel=1e-6)
    (tmp_path / "locs.hdf5").unlink()
    widget.pixel_nm.setText("100")
    QTest.keyClick(widget.pixel_nm, Qt.Key.Key_Return)
    assert "There is no run or table" in widget.message.text()


def test_what_is_wrong_is_said_in_the_widget(qtbot, widget, run):
    QTest.keyClicks(widget.pixel_nm, "hundred")
    click(widget.start)
    assert "The pixel size is 'hundred'" in widget.message.text()
    assert widget.job is None
    widget.pixel_nm.clear()
    click(widget.draw)
    click(widget.start)
    assert "No rectangle is drawn in 'region to localize' yet" in widget.message.text()


def test_errors_of_the_run_are_said_in_the_widget(qtbot, viewer, movie, tmp_path):
    viewer.open(str(movie), plugin="sureloc")
    widget = LocalizeWidget(viewer)  # the true run
    qtbot.addWidget(widget)
    widget.frames.setText("7:9")
    widget.out.setText(str(tmp_path / "out"))
    click(widget.start)
    qtbot.waitUntil(lambda: widget.job is not None and not widget.job.running, timeout=SOON_MS)
    qtbot.waitUntil(widget.start.isEnabled, timeout=SOON_MS)
    assert "The range of frames 7:9 must lie inside 0:4" in widget.message.text()
    assert list(tmp_path.iterdir()) == []


def test_without_a_movie_the_widget_says_so(qtbot, viewer):
    viewer.add_image(np.zeros((3, 9, 9)))  # in memory: nothing that a run could read
    widget = LocalizeWidget(viewer)
    qtbot.addWidget(widget)
    click(widget.start)
    assert "There is no movie to localize" in widget.message.text()


def test_a_drawn_rectangle_becomes_the_region(qtbot, widget, viewer, run, tmp_path):
    click(widget.draw)
    shapes = viewer.layers[REGION]
    assert shapes.mode == "add_rectangle"
    assert widget.regions.currentText() == REGION
    assert widget.out.text() == str(tmp_path / "out")  # as it was typed
    low, high = np.array([2.6, 4.8]) * PIXEL_NM, np.array([19.2, 21.4]) * PIXEL_NM
    shapes.add_rectangles(np.array([low, high]))
    begun(qtbot, widget)
    assert run.asked["roi"] == "3:20,5:22"
    run.go_on.set()
    qtbot.waitUntil(widget.start.isEnabled, timeout=SOON_MS)
    widget.regions.setCurrentText(WHOLE)
    assert widget.choices().roi == ""


def test_a_movie_that_says_no_pixel_size_is_run_with_the_one_it_is_shown_at(
    qtbot, viewer, tmp_path, run
):
    tifffile.imwrite(
        tmp_path / "plain.tif", np.zeros((3, 12, 12), np.uint16), photometric="minisblack"
    )
    viewer.open(str(tmp_path / "plain.tif"), plugin="sureloc")
    widget = LocalizeWidget(viewer, run)
    qtbot.addWidget(widget)
    assert widget.pixel_nm.placeholderText() == "100?"
    assert widget.choices().arguments()["pixel_nm"] == 100.0
    viewer.layers.clear()
    viewer.open(str(tmp_path / "plain.tif"), plugin="napari")
    assert widget.choices().movie == str(tmp_path / "plain.tif")
    viewer.layers.clear()
    assert widget.choices().movie == ""


def write_noisy_movie(folder):
    """Write a movie of one emitter a frame that does not say its pixel size, and its camera."""
    rng = np.random.default_rng(3)
    frames = 100.0 + 2 * rng.poisson(3 + np.stack([spot(x, y) for x, y in EMITTERS_PX]))
    tifffile.imwrite(folder / "m.tif", frames.astype(np.uint16), photometric="minisblack")
    (folder / "camera.yaml").write_text(
        "offset_adu: 100\ngain_adu_per_e: 2.0\nvariance_adu2: 4.0\n", encoding="utf-8"
    )
    return folder / "m.tif"


def run_truly(qtbot, widget):
    """Localize the noisy movie with its camera, and wait for the end."""
    widget.camera.setText(str(Path(widget.choices().movie).with_name("camera.yaml")))
    widget.sigma_px.setText("1.3")
    click(widget.start)
    qtbot.waitUntil(widget.start.isEnabled, timeout=500_000)
    assert widget.job.stage is Stage.DONE, widget.message.text()


def assert_emitters_are_found(rows):
    """Every emitter has a row near it, in nm of the whole movie."""
    for frame, (x, y) in enumerate(EMITTERS_PX):
        here = rows.data[rows.data[:, 0] == frame][:, 1:]
        # About 6 nm of error per axis, at the 100 nm a pixel that nothing contradicts.
        assert np.hypot(*(here - 100 * np.array([y, x])).T).min() < 40


def test_the_true_run_from_the_widget(qtbot, viewer, tmp_path):
    viewer.open(str(write_noisy_movie(tmp_path)), plugin="sureloc")
    widget = LocalizeWidget(viewer)
    qtbot.addWidget(widget)
    assert widget.out.text() == str(tmp_path / "m_sureloc")
    run_truly(qtbot, widget)
    assert_emitters_are_found(viewer.layers["m_sureloc: localizations"])
    assert widget.out.text() == str(tmp_path / "m_sureloc_2")  # for a further run


# --- Brushing -----------------------------------------------------------------------------------


@pytest.fixture
def brush(qtbot, viewer, results):
    viewer.open(str(results), plugin="sureloc")
    brush = BrushWidget(viewer)
    qtbot.addWidget(brush)
    brush.resize(360, 760)
    brush.show()
    qtbot.waitExposed(brush)
    for canvas in brush.canvases:
        canvas.draw()
    return brush


def at(canvas, value, height=0.5):
    """Where a value lies on the canvas, in Qt's coordinates."""
    axes = canvas.figure.axes[0]
    x = axes.transData.transform((value, 1.0))[0]
    y = axes.transAxes.transform((0.5, height))[1]
    ratio = canvas.devicePixelRatioF()
    return QPoint(round(x / ratio), round((canvas.figure.bbox.height - y) / ratio))


def drag(canvas, start, end):
    QTest.mousePress(canvas, LEFT, pos=at(canvas, start))
    for share in (0.3, 0.6, 1.0):
        QTest.mouseMove(canvas, at(canvas, start + share * (end - start)))
    QTest.mouseRelease(canvas, LEFT, pos=at(canvas, end))


def test_dragging_on_a_histogram_hides_the_others(brush, viewer):
    precision, photons, probability = brush.canvases
    rows = viewer.layers[-1]
    assert precision.quantity.values == pytest.approx(SIGMA_NM)
    drag(precision, 11.0, 18.0)  # rows have 8, 14 and 25 nm
    assert precision.range == pytest.approx((11.0, 18.0), abs=0.5)
    assert rows.shown.tolist() == [False, True, False]
    assert "1 of 3 rows lie in the ranges" in brush.count.text()
    drag(photons, 810.0, 850.0)  # 800, 900, 1000
    assert rows.shown.tolist() == [False, False, False]
    QTest.mouseClick(photons, LEFT, pos=at(photons, 950.0))  # a click drops the range
    assert photons.range is None
    assert rows.shown.tolist() == [False, True, False]
    click(brush.drop)
    assert rows.shown.all()
    assert probability.range is None


def test_the_keyboard_moves_and_drops_a_range(brush, viewer):
    precision = brush.canvases[0]
    rows = viewer.layers[-1]
    precision.setFocus()
    for _ in range(20):  # the lower end goes up by 20 of 60 bins, from 8 to 13.7 nm
        QTest.keyClick(precision, Qt.Key.Key_Right, Qt.KeyboardModifier.ControlModifier)
    assert precision.range == pytest.approx((8 + 17 / 3, 25.0))
    assert rows.shown.tolist() == [False, True, True]
    QTest.keyClick(precision, Qt.Key.Key_Left, Qt.KeyboardModifier.ShiftModifier)
    assert rows.shown.tolist() == [False, True, False]
    QTest.keyClick(precision, Qt.Key.Key_Left)
    assert precision.range == pytest.approx((8 + 17 / 3 - 17 / 60, 25.0 - 17 / 30))
    QTest.keyClick(precision, Qt.Key.Key_Escape)
    assert precision.range is None
    assert rows.shown.all()


def test_dragging_selects_where_that_is_wanted(brush, viewer):
    rows = viewer.layers[-1]
    click(brush.select_them)
    drag(brush.canvases[0], 11.0, 26.0)
    assert rows.shown.all()
    assert set(rows.selected_data) == {1, 2}
    assert "2 are selected" in brush.count.text()
    click(brush.drop)
    assert set(rows.selected_data) == set()


def counts(bars):
    return np.asarray(bars.get_data().values).astype(int)


def test_selected_points_show_their_share_in_every_histogram(brush, viewer):
    rows = viewer.layers[-1]
    rows.selected_data = {0, 2}
    for canvas in brush.canvases:
        shown = counts(canvas._selected)
        expected = canvas.histogram.share(canvas.quantity.values, np.array([True, False, True]))
        assert shown.sum() == 2
        assert shown.tolist() == expected.tolist()
        assert counts(canvas._kept).sum() == 3
    rows.selected_data.discard(0)
    assert counts(brush.canvases[0]._selected).sum() == 1
    drag(brush.canvases[0], 7.6, 11.0)  # hides what is selected, which ends the selection
    assert set(rows.selected_data) == set()


def test_histograms_follow_deleted_points_and_other_layers(brush, viewer, results):
    rows = viewer.layers[-1]
    rows.selected_data = {2}
    rows.remove_selected()
    assert "2 of 2 rows" in brush.count.text()
    assert brush.canvases[0].histogram.counts.sum() == 2
    viewer.open(str(results / "localizations.csv"), plugin="sureloc")
    assert brush.layers.count() == 2
    brush.layers.setCurrentIndex(1)
    names = [canvas.quantity.name for canvas in brush.canvases]
    assert names == ["precision", "photons", "probability to exist"]
    viewer.layers.clear()
    assert brush.canvases == []
    assert brush.count.text() == NOTHING


def test_circles_grow_and_all_frames_can_be_seen_at_once(brush, viewer):
    rows = viewer.layers[-1]
    brush.sigmas.setValue(3.0)
    assert rows.size == pytest.approx(6 * np.array(SIGMA_NM))
    viewer.dims.set_current_step(0, 1)
    assert rows._view_indices.size == 1
    brush.all_frames.click()
    assert rows._view_indices.size == 3
    brush.all_frames.click()
    assert rows._view_indices.size == 1


def test_a_removed_widget_hears_nothing_any_more(qtbot, viewer, results):
    import gc

    for kind in (BrushWidget, LocalizeWidget):
        widget = kind(viewer)
        widget.deleteLater()
        del widget
    gc.collect()
    qtbot.wait(10)
    viewer.open(str(results), plugin="sureloc")
    viewer.theme = "light"


def test_histograms_take_the_text_colour_of_the_theme(brush, viewer):
    viewer.theme = "light"
    canvas = brush.canvases[0]
    label = canvas.figure.axes[0].xaxis.label.get_color()
    viewer.theme = "dark"
    assert canvas.figure.axes[0].xaxis.label.get_color() != label


# --- A whole window -----------------------------------------------------------------------------


@pytest.fixture
def window(qtbot):
    from qtpy.QtWidgets import QApplication

    if QApplication.platformName() == "offscreen":
        pytest.skip("a whole window needs OpenGL, which Qt offscreen lacks: make test-viewer")
    import napari

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1100, 800)
    qtbot.waitExposed(viewer.window._qt_window)
    yield viewer
    viewer.close()


def on_canvas(viewer, place):
    """Where a place of the world, y and x in nm, is on the canvas, in Qt's coordinates."""
    canvas = viewer.window._qt_viewer.canvas
    zoom = viewer.scene.camera.zoom
    height, width = canvas.native.height(), canvas.native.width()
    y, x = (np.asarray(place) - viewer.scene.camera.center[-2:]) * zoom
    return QPoint(round(width / 2 + x), round(height / 2 + y))


def drag_on_canvas(qtbot, viewer, start, end):
    """Press the left button at a place of the world, move to another, and let go."""
    native = viewer.window._qt_viewer.canvas.native
    start, end = np.asarray(start), np.asarray(end)
    QTest.mouseMove(native, on_canvas(viewer, start))
    qtbot.wait(30)
    QTest.mousePress(native, LEFT, pos=on_canvas(viewer, start))
    for share in (0.3, 0.6, 1.0):
        QTest.mouseMove(native, on_canvas(viewer, start + share * (end - start)))
        qtbot.wait(30)
    QTest.mouseRelease(native, LEFT, pos=on_canvas(viewer, end))
    qtbot.wait(50)


def open_panel(qtbot, viewer, name):
    _, panel = viewer.window.add_plugin_dock_widget("sureloc", name)
    qtbot.wait(300)
    return panel


def test_a_rectangle_drawn_in_the_window_is_localized_where_it_lies(qtbot, window, tmp_path):
    window.open(str(write_noisy_movie(tmp_path)), plugin="sureloc")
    localize = open_panel(qtbot, window, "Localize molecules")
    click(localize.draw)
    low, high = np.array([300.0, 400.0]), np.array([2000.0, 2200.0])
    drag_on_canvas(qtbot, window, low, high)
    (rectangle,) = window.layers[REGION].data
    # A pixel of the screen is 4 nm here or less.
    assert np.asarray(rectangle).min(axis=0)[-2:] == pytest.approx(low, abs=20.0)
    assert localize.choices().roi == "3:21,4:23"
    run_truly(qtbot, localize)
    rows = window.layers["m_sureloc: localizations"]
    assert_emitters_are_found(rows)
    mean = window.layers["m_sureloc: posterior mean"]
    corners = mean.extent.world  # of the part, by the middle of its outermost pixels
    assert corners[0] == pytest.approx([250, 350], abs=50)
    assert corners[1] == pytest.approx([2050, 2250], abs=50)


@pytest.fixture
def brushed(qtbot, window, movie, results):
    """A window with a movie, a run on it in its third frame, large circles, and the histograms."""
    window.open(str(movie), plugin="sureloc")
    for data, settings, kind in run_layers(results):
        window.add_layer(Layer.create(data, settings, kind))
    brush = open_panel(qtbot, window, "Brush localizations")
    brush.sigmas.setValue(CIRCLE_SIGMAS)
    window.dims.set_current_step(0, 2)
    qtbot.wait(100)
    return brush


CIRCLE_SIGMAS = 6.0


def circles(viewer, colour):
    """Give the smallest box, y and x on the screen in px, round all that has a circle's colour."""
    picture = viewer.screenshot(canvas_only=True, flash=False)[..., :3] / 255
    places = np.argwhere(np.abs(picture - np.array(colour[:3])).max(axis=2) < 0.12)
    assert len(places) > 30
    return places.min(axis=0), places.max(axis=0) + 1


def assert_circle_is_seen(viewer, row, colour):
    """One circle of a colour is on the screen: that of the row, as large as it is uncertain."""
    low, high = circles(viewer, colour)
    rows = viewer.layers[-1]
    place = on_canvas(viewer, rows.data[row, 1:])
    assert (low + high) / 2 == pytest.approx((place.y(), place.x()), abs=2)
    diameter = 2 * CIRCLE_SIGMAS * SIGMA_NM[row] * viewer.scene.camera.zoom
    # The middle of the line is what has this diameter.
    assert high - low == pytest.approx(diameter * (1 + rows.border_width[row]), abs=2)


def test_circles_are_seen_where_rows_lie_and_a_key_goes_to_the_next(qtbot, window, brushed):
    assert_circle_is_seen(window, 1, TRUSTED_COLOUR)
    native = window.window._qt_viewer.canvas.native
    native.setFocus()
    QTest.keyClick(native, Qt.Key.Key_Right)
    qtbot.wait(100)
    assert window.dims.current_step[0] == 3
    assert_circle_is_seen(window, 2, DOUBTED_COLOUR)


def yellow(canvas):
    """How many pixels of a histogram show selected rows."""
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3] / 255
    return int((np.abs(picture - np.array(to_rgb(SELECTED_COLOUR))).max(axis=2) < 0.02).sum())


def test_a_box_drawn_in_the_window_lights_the_bars_of_its_rows(qtbot, window, brushed):
    rows = window.layers[-1]
    brushed.all_frames.click()
    window.layers.selection.active = rows
    rows.mode = "select"
    qtbot.wait(100)
    native = window.window._qt_viewer.canvas.native
    QTest.mouseMove(native, on_canvas(window, rows.data[1, 1:]))
    qtbot.wait(30)
    QTest.mouseClick(native, LEFT, pos=on_canvas(window, rows.data[1, 1:]))
    qtbot.wait(50)
    assert set(rows.selected_data) == {1}
    assert [yellow(canvas) for canvas in brushed.canvases] != [0, 0, 0]
    # The box begins and ends beside circles, and has rows 0 and 2 in it, but not 1.
    inside = rows.data[[0, 2], 1:]
    drag_on_canvas(qtbot, window, inside.min(axis=0) - 250, inside.max(axis=0) + 250)
    assert set(rows.selected_data) == {0, 2}
    for canvas in brushed.canvases:
        chosen = np.array([True, False, True])
        expected = canvas.histogram.share(canvas.quantity.values, chosen)
        assert counts(canvas._selected).tolist() == expected.tolist()
        assert yellow(canvas) > 20
    # A click on an empty place selects nothing, and the bars go dark.
    QTest.mouseClick(native, LEFT, pos=on_canvas(window, (2300.0, 400.0)))
    qtbot.wait(50)
    assert [yellow(canvas) for canvas in brushed.canvases] == [0, 0, 0]


def test_run_layers_are_what_napari_wants(viewer, results):
    for data, settings, kind in run_layers(results):
        assert Layer.create(data, settings, kind).name == settings["name"]
