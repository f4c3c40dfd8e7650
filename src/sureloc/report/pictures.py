"""The images of a run for people: with title, scale and colour bar, and plain ones.

Colour maps are perceptually uniform; where a few bright pixels would drown the rest, the colours
end at a percentile of the pixels that are not empty, and the picture says so.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator
from PIL import Image

from sureloc.localize.images import ImageSums
from sureloc.report.image_axes import add_scale_bar, darker_corner

Array = npt.NDArray[np.float64]

PAPER, INK = "white", "#202124"
PERCENTILE = 99.5
BRIGHTEST_ALIKE = (
    f"the brightest {100 - PERCENTILE:g} % of the pixels that are not empty all look alike"
)
EMPTY = 1e-3  # emitters per pixel below this are background
LARGEST_PX = 1600  # a picture's side; larger images are averaged down
SCREEN_PX = 800  # a side as people see it whole; single molecules must be bright there
TRUST_COLOURS = ("#f4a582", "#27506b")  # as far apart in lightness as in colour
_DRAWN_PX = 1200  # a side that small images are enlarged to at most, by a whole number
_DOTS_PER_INCH = 150
_MARGIN_PX, _GAP_PX, _BAR_PX, _TICKS_PX = 24, 26, 24, 96  # round and beside the image
_LEAST_WIDTH_PX, _LEAST_BAR_PX = 400, 90  # of the whole, and of the colour bar's height
_TITLE_PT, _UNIT_PT, _NOTE_PT = 12.0, 9.0, 7.5
_LINE = 1.3  # height of a line in sizes of its letters
_LABEL_SHARE = 0.06  # points of the scale bar's label for each dot of the image's width, at most


@dataclass(frozen=True)
class Picture:
    """An image that is ready to be shown.

    Attributes:
        name: file name without extension.
        title: what it shows, for people.
        unit: of its values.
        image: values, (rows, columns), at most `LARGEST_PX` a side; or red, green and blue,
            (rows, columns, 3), of which the colour map says what they mean.
        pixel_nm: size of its pixels, nm.
        colours: a colour map or its name, or "trust" for yes and no.
        low, high: values at the ends of the colour map.
        contrast: how these were chosen, for people.
        whole: whether the values are counts, for which the colour bar has no fractions.
    """

    name: str
    title: str
    unit: str
    image: Array
    pixel_nm: float
    colours: str | matplotlib.colors.Colormap
    low: float
    high: float
    contrast: str
    whole: bool = False

    @property
    def colour_map(self) -> matplotlib.colors.Colormap:
        """The colour map itself."""
        if isinstance(self.colours, matplotlib.colors.Colormap):
            return self.colours
        if self.colours == "trust":
            return ListedColormap(list(TRUST_COLOURS))
        return matplotlib.colormaps[self.colours]


class Shrinking:
    """Average an image down that comes in bands of rows, from top to bottom."""

    def __init__(self, shape: tuple[int, int], pixel_nm: float) -> None:
        """Expect an image of a shape (rows, columns) with pixels of a size, nm."""
        self._factor = shrinking_factor(shape, LARGEST_PX)
        self._pixel_nm = pixel_nm
        self._small: list[Array] = []
        self._left: Array = np.empty((0, shape[1]))

    def add(self, rows: Array) -> None:
        """Add the next rows."""
        rows = np.concatenate([self._left, rows]) if len(self._left) else rows
        whole = len(rows) - len(rows) % self._factor
        if whole:
            self._small.append(block_means(rows[:whole], self._factor))
        self._left = rows[whole:].copy()

    @property
    def result(self) -> tuple[Array, float]:
        """The image, and its pixel size, nm."""
        last = [block_means(self._left, self._factor)] if len(self._left) else []
        return np.concatenate([*self._small, *last]), self._pixel_nm * self._factor


@dataclass(frozen=True)
class Overview:
    """The super-resolution images as large as people can see them, each with its pixel size, nm.

    Attributes:
        mean, sd: posterior mean and standard deviation, emitters per pixel of the full image.
        relative: their ratio.
        trusted: 1 where the result can be trusted, 0 elsewhere.
    """

    mean: tuple[Array, float]
    sd: tuple[Array, float]
    relative: tuple[Array, float]
    trusted: tuple[Array, float]


def pictures_of(images: ImageSums, overview: Overview) -> Iterator[Picture]:
    """Give the pictures of a run, one after the other, each only as large as can be seen.

    Args:
        images: the sums over the movie.
        overview: its super-resolution images, averaged down.
    """
    fine = images.fine_pixel_nm
    per_pixel = f"localizations per pixel of {fine:.3g} nm"
    yield _bright(
        "reconstruction",
        "Reconstruction (posterior mean)",
        per_pixel,
        overview.mean,
        fine,
        "inferno",
    )
    yield _bright(
        "uncertainty",
        "Uncertainty (posterior standard deviation)",
        per_pixel,
        overview.sd,
        fine,
        "viridis",
    )
    ratio, ratio_nm = overview.relative
    yield Picture(
        "relative_uncertainty",
        "Relative uncertainty (sd / mean)",
        "sd / mean",
        ratio,
        ratio_nm,
        _with_black_zero("cividis"),
        0.0,
        max(float(np.percentile(ratio[ratio > 0], 99.5)) if (ratio > 0).any() else 1.0, 1e-6),
        f"the highest {100 - PERCENTILE:g} % of the pixels all look alike; empty pixels are black",
    )
    trust, trust_nm = overview.trusted
    yield Picture(
        "trust",
        "Where the result can be trusted (dark blue) and where not (light red)",
        "do not trust | trust",
        np.round(trust),
        trust_nm,
        "trust",
        0.0,
        1.0,
        "yes or no",
    )
    field, field_nm = averaged_down(images.widefield_e / max(images.frames, 1), images.pixel_nm)
    low, high = (float(v) for v in np.percentile(field, (0.5, PERCENTILE)))
    yield Picture(
        "widefield",
        f"Widefield: mean of {images.frames:,} frame(s)",
        "photo-electrons per camera pixel and frame",
        field,
        field_nm,
        "gray",
        low,
        max(high, low + 1e-9),
        f"the darkest and brightest {100 - PERCENTILE:g} % of the pixels all look alike",
    )


def _with_black_zero(name: str) -> ListedColormap:
    """Give a colour map that begins clearly above black, which is left to pixels without a value.

    Those would look like the best ones in its darkest colour, and like middling ones in grey.
    """
    colours = matplotlib.colormaps[name](np.linspace(0.2, 1.0, 256))
    colours[0] = to_rgba("black")
    return ListedColormap(colours, f"{name}, black zero")


def _bright(
    name: str, title: str, unit: str, image: tuple[Array, float], pixel_nm: float, colours: str
) -> Picture:
    """Give a picture of an image that is mostly empty, whose pixels were of `pixel_nm`."""
    small, small_nm = image
    on_screen, _ = averaged_down(small, small_nm, SCREEN_PX)
    seen = on_screen[on_screen > EMPTY]
    high = float(np.percentile(seen, PERCENTILE)) if seen.size else 1.0
    contrast = BRIGHTEST_ALIKE
    if small_nm > pixel_nm:
        contrast += f"; averaged down to {small_nm:.3g} nm"
    return Picture(name, title, unit, small, small_nm, colours, 0.0, high, contrast)


def averaged_down(
    image: Array, pixel_nm: float, largest_px: int = LARGEST_PX
) -> tuple[Array, float]:
    """Average blocks of pixels until no side exceeds `largest_px`; give the new pixel size too."""
    factor = shrinking_factor((image.shape[0], image.shape[1]), largest_px)
    return (image, pixel_nm) if factor == 1 else (block_means(image, factor), pixel_nm * factor)


def shrinking_factor(shape: tuple[int, int], largest_px: int) -> int:
    """Give the side, px, of the blocks whose averages are at most `largest_px` a side."""
    return -(-max(shape) // largest_px)


def block_means(image: Array, side: int) -> Array:
    """Average blocks of pixels; those at the lower and right edge go on with the last pixel."""
    rows, columns = (-(-n // side) for n in image.shape)
    padding = ((0, rows * side - image.shape[0]), (0, columns * side - image.shape[1]))
    blocks = np.pad(image, padding, mode="edge").reshape(rows, side, columns, side)
    return np.asarray(blocks.mean((1, 3)))


def enlargement(shape: tuple[int, int]) -> int:
    """Give how many dots along each axis a pixel of an image (rows, columns) becomes."""
    return max(1, _DRAWN_PX // max(shape))


def draw_picture(picture: Picture, path: Path, *, plain: bool = False) -> None:
    """Save a picture with title, scale bar, colour bar and contrast, or with its scale bar alone.

    Every pixel becomes a square of the same whole number of dots (`enlargement`).

    Args:
        picture: the picture.
        path: the new file, .png, .pdf or .svg; words in the last two remain words.
        plain: leave all but picture and scale bar away.

    Raises:
        OSError: the file cannot be written.
    """
    rows, columns = (enlargement(picture.image.shape[:2]) * n for n in picture.image.shape[:2])
    with matplotlib.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42}):
        if plain:
            figure = _sheet(columns, rows)
            _add_image(figure, picture, (0, 0))
        else:
            figure = _labelled(picture, rows, columns)
        figure.savefig(path, facecolor=PAPER)


def _labelled(picture: Picture, rows: int, columns: int) -> Figure:
    """Give a figure that is as wide and as high as an image of so many dots, and its words, need.

    The colour bar is as high as the image, unless that would be too low to be read.
    """
    bar_rows = max(rows, _LEAST_BAR_PX)
    unit = _lines(picture.unit, _UNIT_PT, bar_rows + _GAP_PX)
    beside = _GAP_PX + _BAR_PX + _TICKS_PX + _line_px(_UNIT_PT) * len(unit)
    width = max(columns + beside + 2 * _MARGIN_PX, _LEAST_WIDTH_PX)
    title, note = (
        _lines(text, size, width - 2 * _MARGIN_PX)
        for text, size in (
            (picture.title, _TITLE_PT),
            (f"Colours: {picture.contrast}.", _NOTE_PT),
        )
    )
    above = _MARGIN_PX + _line_px(_TITLE_PT) * len(title) + _GAP_PX
    below = _MARGIN_PX + _line_px(_NOTE_PT) * len(note) + _GAP_PX
    height = above + bar_rows + below
    figure = _sheet(width, height)
    shown = _add_image(figure, picture, (_MARGIN_PX, below + (bar_rows - rows) // 2))
    left = _MARGIN_PX + columns + _GAP_PX
    place = (left / width, below / height, _BAR_PX / width, bar_rows / height)
    bar = figure.colorbar(shown, cax=figure.add_axes(place))
    bar.set_label("\n".join(unit), color=INK, fontsize=_UNIT_PT)
    bar.outline.set_edgecolor(INK)
    bar.ax.tick_params(colors=INK, labelsize=8)
    if picture.colours == "trust":
        bar.set_ticks([])
    elif picture.whole:
        bar.locator = MaxNLocator("auto", integer=True)
    edge = _MARGIN_PX / width
    words: dict[str, Any] = {"x": edge, "color": INK, "linespacing": _LINE, "parse_math": False}
    high, low = 1 - _MARGIN_PX / height, _MARGIN_PX / height
    figure.text(y=high, s="\n".join(title), fontsize=_TITLE_PT, va="top", **words)
    figure.text(y=low, s="\n".join(note), fontsize=_NOTE_PT, va="bottom", **words)
    return figure


def _sheet(width: int, height: int) -> Figure:
    """Give an empty figure of so many dots."""
    size = (width / _DOTS_PER_INCH, height / _DOTS_PER_INCH)
    return Figure(figsize=size, dpi=_DOTS_PER_INCH, facecolor=PAPER)


def _add_image(figure: Figure, picture: Picture, corner: tuple[int, int]) -> AxesImage:
    """Draw image and scale bar, the lower left corner at so many dots from that of the figure."""
    rows, columns = picture.image.shape[:2]
    dots = enlargement((rows, columns))
    width, height = (round(_DOTS_PER_INCH * inches) for inches in figure.get_size_inches())
    place = (
        *(corner[0] / width, corner[1] / height),
        *(dots * columns / width, dots * rows / height),
    )
    axes = figure.add_axes(place)
    shown = axes.imshow(
        picture.image,
        cmap=picture.colour_map,
        vmin=picture.low,
        vmax=picture.high,
        interpolation="nearest",
        aspect="auto",  # the axes are as long and as high as the image
    )
    axes.set_axis_off()
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    size = min(_UNIT_PT, _LABEL_SHARE * dots * columns)
    add_scale_bar(axes, extent, picture.pixel_nm, size=size, corner=darker_corner(picture.image))
    return shown


def _line_px(size_pt: float) -> int:
    """Give the height of a line of letters of a size, dots."""
    return round(_LINE * size_pt * _DOTS_PER_INCH / 72)


def _lines(text: str, size_pt: float, width_px: int) -> list[str]:
    """Break a text into lines of a width, dots; a word that is too long loses its middle."""

    def fits(line: str) -> bool:
        font = FontProperties(size=size_pt)
        points = text_to_path.get_text_width_height_descent(line, font, ismath=False)[0]
        return points * _DOTS_PER_INCH / 72 <= width_px

    lines = [""]
    for word in text.split():
        short, kept = word, len(word)
        while not fits(short) and kept > 2:
            kept -= 1
            short = f"{word[: kept // 2]}…{word[-(kept - kept // 2) :]}"
        longer = f"{lines[-1]} {short}".strip()
        if fits(longer):
            lines[-1] = longer
        else:
            lines.append(short)
    return [line for line in lines if line]


def indexed_png(picture: Picture, largest_px: int) -> bytes:
    """Give a picture in colours as the bytes of a PNG with a palette, a quarter of a full one.

    Args:
        picture: the picture.
        largest_px: a side at most; larger pictures are averaged down.
    """
    whole = Image.fromarray(picture.image.astype(np.float32))
    factor = min(1.0, largest_px / max(whole.size))
    size = (max(1, round(factor * whole.width)), max(1, round(factor * whole.height)))
    image = np.asarray(whole.resize(size, Image.Resampling.BOX), float)
    share = (image - picture.low) / (picture.high - picture.low)
    levels = np.clip(np.floor(256 * share), 0, 255).astype(np.uint8)
    colours = picture.colour_map(np.linspace(0.0, 1.0, 256))[:, :3]
    indexed = Image.fromarray(levels)
    indexed.putpalette(np.rint(255 * colours).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    indexed.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
