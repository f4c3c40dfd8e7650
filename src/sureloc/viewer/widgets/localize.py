"""The dock widget that localizes the open movie, or a rectangle of it, and shows the results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from sureloc.errors import InputError, SurelocError
from sureloc.viewer.choices import (
    Choices,
    free_folder,
    in_words_of_the_panel,
    optional_number,
    region_of_rectangle,
)
from sureloc.viewer.jobs import Job, Run, Stage, summary
from sureloc.viewer.movie_layers import ABOUT, AXES, UNITS, UNKNOWN_PIXEL_NM
from sureloc.viewer.pixel_size import give_pixel_size
from sureloc.viewer.run_layers import run_layers

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

WHOLE = "the whole frame"
REGION = "region to localize"
WEIGHTS = ("fast", "default")
_LOOK_MS = 100  # how often the job is looked at
_LAST_WAIT_S = 10.0  # for a cancelled job when the program ends


class LocalizeWidget(QWidget):
    """Asks for what a run needs, runs it in a thread, and adds its results to the viewer."""

    def __init__(self, napari_viewer: Viewer, run: Run | None = None) -> None:
        """Build the widget.

        Args:
            napari_viewer: the viewer whose movies are offered.
            run: what to run instead of `sureloc.localize_file`.
        """
        super().__init__()
        self._viewer = napari_viewer
        self._run = run
        self.job: Job | None = None
        self._proposed = ""
        self._build()
        for signal in ("inserted", "removed", "reordered"):
            getattr(napari_viewer.layers.events, signal).connect(self._list_layers)
        self._clock = QTimer(self)
        self._clock.setInterval(_LOOK_MS)
        self._clock.timeout.connect(self._look)
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.stop_now)
        self._list_layers()
        self._set_running(False)

    # --- Building -------------------------------------------------------------------------------

    def _build(self) -> None:
        self.movies = QComboBox()
        self.movies.currentIndexChanged.connect(self._take_movie)
        self.regions = QComboBox()
        self.draw = QPushButton("Draw a rectan&gle")
        self.draw.clicked.connect(self.draw_region)
        self.frames = QLineEdit()
        self.frames.setPlaceholderText("all, or such as 0:500")
        self.pixel_nm = QLineEdit()
        self.pixel_nm.editingFinished.connect(self._rescale)
        self.sigma_px = QLineEdit("auto")
        self.camera = QLineEdit()
        self.camera.setPlaceholderText("estimated")
        self.draws = QSpinBox()
        self.draws.setRange(2, 1000)
        self.draws.setValue(16)
        self.seed = QSpinBox()
        self.seed.setRange(0, 2**31 - 1)
        self.weights = QComboBox()
        self.weights.addItems(WEIGHTS)
        self.weights.setEditable(True)
        self.out = QLineEdit()
        for field in (self.camera, self.out):  # paths are longer than the panel is wide
            field.textChanged.connect(field.setToolTip)
        self._build_ends()
        self._arrange()

    def _build_ends(self) -> None:
        self.start = QPushButton("L&ocalize")
        self.start.clicked.connect(self.localize)
        self.cancel = QPushButton("&Cancel")
        self.cancel.clicked.connect(self.cancel_job)
        escape = QShortcut(QKeySequence("Escape"), self)
        escape.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        escape.activated.connect(self.cancel_job)
        self.progress = QProgressBar()
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.message.setTextFormat(Qt.TextFormat.PlainText)

    def _arrange(self) -> None:
        # The letters of napari's own menus, F V L P W H, are left to them.
        form = QFormLayout()
        form.addRow("&Movie", self.movies)
        form.addRow("R&egion", self.regions)
        form.addRow("", self.draw)
        form.addRow("F&rames", self.frames)
        form.addRow("Pixel si&ze (nm)", self.pixel_nm)
        form.addRow("PSF width (p&x)", self.sigma_px)
        self._add_browsed(form, "C&amera file", self.camera, self._browse_camera)
        form.addRow("&Draws", self.draws)
        form.addRow("&Seed", self.seed)
        form.addRow("Weigh&ts", self.weights)
        self._add_browsed(form, "Results &in", self.out, self._browse_out)
        buttons = QHBoxLayout()
        buttons.addWidget(self.start)
        buttons.addWidget(self.cancel)
        column = QVBoxLayout(self)
        column.addLayout(form)
        column.addLayout(buttons)
        column.addWidget(self.progress)
        column.addWidget(self.message)
        column.addStretch()

    @staticmethod
    def _add_browsed(form: QFormLayout, name: str, field: QLineEdit, browse: Any) -> None:
        """Add a field for a path, and a button that looks for one."""
        label = QLabel(name)
        label.setBuddy(field)
        button = QPushButton("...")
        button.setFixedWidth(32)
        button.setAccessibleName("Browse")
        button.clicked.connect(browse)
        row = QHBoxLayout()
        row.addWidget(field)
        row.addWidget(button)
        form.addRow(label, row)

    def _browse_camera(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self, "Camera file", "", "Cameras (*.yaml *.yml *.npz *.hdf5);;All files (*)"
        )
        if name:
            self.camera.setText(name)

    def _browse_out(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "A new, empty folder for the results")
        if name:
            self.out.setText(name)

    # --- What the viewer holds ------------------------------------------------------------------

    def _list_layers(self, _event: object = None) -> None:
        """Offer the movies and rectangles that the viewer holds; keep what was chosen."""
        movies = [layer for layer in self._viewer.layers if file_of(layer)]
        shapes = [layer for layer in self._viewer.layers if type(layer).__name__ == "Shapes"]
        _fill(self.movies, [(layer.name, layer) for layer in movies])
        _fill(self.regions, [(WHOLE, None), *((layer.name, layer) for layer in shapes)])
        self._take_movie()

    def _take_movie(self, _index: int = 0) -> None:
        """Propose what depends on the movie: its pixel size and a folder beside it."""
        movie = self.movies.currentData()
        if movie is None:
            return
        about = movie.metadata.get(ABOUT, {})
        size = f"{about.get('pixel_nm', UNKNOWN_PIXEL_NM):g}"
        known = about.get("pixel_is_known", False)
        self.pixel_nm.setPlaceholderText(f"{size}, as the file says" if known else f"{size}?")
        running = self.job is not None and self.job.running
        if not running and self.out.text() in ("", self._proposed):  # what was typed stays
            self._proposed = str(free_folder(file_of(movie)))
            self.out.setText(self._proposed)

    def draw_region(self) -> None:
        """Add a layer for a rectangle, take it as the region, and let the mouse draw in it."""
        name = REGION
        if name not in self._viewer.layers:
            self._viewer.add_shapes(
                name=name,
                ndim=2,
                edge_color="yellow",
                face_color="transparent",
                edge_width=0.2 * self._pixel_nm(),
                axis_labels=AXES[1:],
                units=UNITS[1:],
            )
        layer = self._viewer.layers[name]
        self._viewer.layers.selection.active = layer
        layer.mode = "add_rectangle"
        self.regions.setCurrentText(name)

    def _pixel_nm(self) -> float:
        """Give the pixel size as typed, else that of the movie's layer, nm."""
        movie = self.movies.currentData()
        typed = optional_number(self.pixel_nm.text(), "pixel size", "108")
        if typed is not None or movie is None:
            return typed or UNKNOWN_PIXEL_NM
        return float(movie.scale[-1])

    def _rescale(self) -> None:
        """Stretch what is shown to the pixel size that was typed."""
        try:
            typed = optional_number(self.pixel_nm.text(), "pixel size", "108")
            if typed is not None and typed > 0:
                give_pixel_size(self._viewer.layers, self.movies.currentData(), typed)
        except InputError as error:
            self._say(str(error), bad=True)

    def _roi(self) -> str:
        """Give the pixels inside the chosen rectangle, or nothing for the whole frame.

        Raises:
            InputError: no rectangle is drawn yet, or it lies outside.
        """
        shapes, movie = self.regions.currentData(), self.movies.currentData()
        if shapes is None or movie is None:
            return ""
        if not len(shapes.data):
            raise InputError(
                f"No rectangle is drawn in {shapes.name!r} yet. Draw one with the mouse, or choose "
                f"{WHOLE!r}."
            )
        chosen = max(shapes.selected_data, default=len(shapes.data) - 1)
        corners = [shapes.data_to_world(corner) for corner in shapes.data[chosen]]
        rows, columns = movie.data.shape[-2:]
        return region_of_rectangle(corners, float(movie.scale[-1]), (rows, columns))

    # --- Running --------------------------------------------------------------------------------

    def choices(self) -> Choices:
        """Give what the user chose.

        Raises:
            InputError: the rectangle or the pixel size cannot be used.
        """
        movie = self.movies.currentData()
        self._rescale()
        # A file that says nothing is seen at 100 nm a pixel; the run shall not take another.
        pixel = self.pixel_nm.text().strip()
        if not pixel and movie is not None and not _says_its_pixels(movie):
            pixel = f"{float(movie.scale[-1]):g}"
        return Choices(
            movie=file_of(movie) if movie is not None else "",
            out=self.out.text(),
            pixel_nm=pixel,
            sigma_px=self.sigma_px.text(),
            camera=self.camera.text(),
            roi=self._roi(),
            frames=self.frames.text(),
            draws=self.draws.value(),
            weights=self.weights.currentText(),
            seed=self.seed.value(),
        )

    def localize(self) -> None:
        """Start a run, or say what is wrong with the choices."""
        if self.job is not None and self.job.running:
            return
        try:
            arguments = self.choices().arguments()
        except SurelocError as error:
            self._say(str(error), bad=True)
            return
        self._out = arguments["out"]
        self.job = Job(arguments, self._run)
        self.job.start()
        self._set_running(True)
        self._look()

    def cancel_job(self) -> None:
        """Ask the run to stop, if one is running."""
        if self.job is not None and self.job.running:
            self.job.cancel()
            self._say("Stopping ...")

    def stop_now(self) -> None:
        """Cancel the run and wait for it, so that nothing half-written is left."""
        if self.job is not None and self.job.running:
            self.job.cancel()
            self.job.wait(_LAST_WAIT_S)

    def closeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Stop the run when the widget is closed."""
        self.stop_now()
        super().closeEvent(event)

    def _look(self) -> None:
        """Show how far the job is; finish up when it has ended."""
        job = self.job
        if job is None:
            return
        done, total = job.done, job.total  # once: its thread goes on meanwhile
        self.progress.setRange(0, total if done else 0)
        self.progress.setValue(done)
        if job.running:
            if not job.stopping:
                self._say(_how_far(done, total))
            return
        self._set_running(False)
        self._finish(job)

    def _finish(self, job: Job) -> None:
        if job.stage is Stage.CANCELLED:
            self._say("Cancelled; nothing was written.")
        elif job.stage is Stage.FAILED or job.result is None:
            self._say(job.message, bad=True)
        else:
            self._show_results()
            self._say(f"{summary(job.result)}\nAll results are in {self._out}.")

    def _show_results(self) -> None:
        from napari.layers import Layer

        for data, settings, kind in run_layers(self._out):
            self._viewer.add_layer(Layer.create(data, settings, kind))

    def _set_running(self, running: bool) -> None:
        self.start.setEnabled(not running)
        self.cancel.setEnabled(running)
        self.progress.setVisible(running)
        if running:
            self._clock.start()
        else:
            self._clock.stop()

    def _say(self, text: str, *, bad: bool = False) -> None:
        self.message.setText(in_words_of_the_panel(text))
        self.message.setStyleSheet("color: #ff8c69; font-weight: bold" if bad else "")


def file_of(layer: Image) -> str:
    """Give the path of the movie that a layer shows, or nothing if no file is known."""
    known = layer.metadata.get(ABOUT, {}).get("movie")
    if known:
        return str(known)
    path = layer.source.path
    is_stack = type(layer).__name__ == "Image" and layer.ndim == 3 and ABOUT not in layer.metadata
    return str(Path(path).resolve()) if path and is_stack else ""


def _says_its_pixels(movie: Image) -> bool:
    return bool(movie.metadata.get(ABOUT, {}).get("pixel_is_known", False))


def _how_far(done: int, total: int) -> str:
    """Say how many of the frames are done; their number is 0 until the movie is open."""
    if not total:
        return "Getting ready ..."
    if not done:
        return f"Learning from the movie ({total:,} frames) what its molecules look like ..."
    if done < total:
        return f"Localizing: {done:,} of {total:,} frames."
    return "Judging the result and writing it ..."


def _fill(box: QComboBox, items: list[tuple[str, Any]]) -> None:
    """Offer other items; what was chosen stays so if it is still there, else the last is taken."""
    before = box.currentData()
    box.blockSignals(True)
    box.clear()
    for name, data in items:
        box.addItem(name, data)
    same = [k for k, (_, data) in enumerate(items) if data is before]
    box.setCurrentIndex(same[0] if same else len(items) - 1)
    box.blockSignals(False)
