"""Rendered images for people: intensity in one map, or brightness with a value in colour.

Where colours show a value (time, precision, trust), brightness shows how much lies there; the map
runs from blue over grey to orange at about equal lightness, which people with every kind of colour
vision tell apart, so that colour and brightness do not borrow from each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.colors import Colormap, LinearSegmentedColormap

from sureloc.analysis.rendering import (
    Canvas,
    histogram,
    mean_value,
    posterior_image,
    row_gaussians,
)
from sureloc.errors import InputError
from sureloc.io.found import Found, as_roi, parse_roi, read_found, with_room_to_draw
from sureloc.io.output import new_file
from sureloc.io.rendered import write_tiff
from sureloc.report.pictures import (
    BRIGHTEST_ALIKE,
    LARGEST_PX,
    PERCENTILE,
    SCREEN_PX,
    Picture,
    averaged_down,
    draw_picture,
    shrinking_factor,
)
from sureloc.report.rendering_options import COLOURS, PICTURE_SUFFIXES, check_rendering
from sureloc.table import GIVE_PRECISION, check_rows

Array = npt.NDArray[np.float64]

USUAL_ZOOM = 10.0
BLUE, GREY, ORANGE = "#3d9bff", "#b9b4ad", "#ff8f1f"
FINEST_SIGMAS = 0.1  # of the median precision; smaller image pixels show nothing more
_FAINT = 1e-3  # of the brightest pixel; below, a pixel counts as empty
_GAMMA = 0.3  # of brightness, so that faint rows are seen beside bright ones, and their colours


def value_map() -> Colormap:
    """Give the colour map of values, blue (low) to orange (high)."""
    return LinearSegmentedColormap.from_list("blue_orange", [BLUE, GREY, ORANGE])


def intensity_picture(
    name: str, title: str, unit: str, image: Array, pixel_nm: float, colours: str = "inferno"
) -> Picture:
    """Give a picture of an image that is mostly empty, such as molecules per pixel."""
    high, contrast = _brightest(image)
    whole = _is_whole(image)
    return Picture(name, title, unit, image, pixel_nm, colours, 0.0, high, contrast, whole)


def value_picture(
    name: str,
    title: str,
    unit: str,
    image: Array,
    weighted: Array,
    pixel_nm: float,
    limits: tuple[float, float],
    colours: Colormap,
) -> Picture:
    """Give a picture whose brightness is an image and whose colour is a value.

    Args:
        name, title: as in `Picture`.
        unit: of the value.
        image: molecules per pixel, (rows, columns).
        weighted: the same, each molecule times its value.
        pixel_nm: size of the pixels, nm.
        limits: values at the ends of the colours.
        colours: the map of the values.
    """
    mean = weighted / np.maximum(image, 1e-300)
    low, high = limits[0], max(limits[1], limits[0] + 1e-9)
    brightest, contrast = _brightest(image)
    light = np.clip(image / brightest, 0.0, 1.0) ** _GAMMA
    colour = colours(np.clip((mean - low) / (high - low), 0.0, 1.0))[..., :3]
    rgb = np.asarray(colour * light[..., None], np.float64)
    contrast = f"brightness to the power {_GAMMA:g}; {contrast}"
    return Picture(name, title, unit, rgb, pixel_nm, colours, low, high, contrast)


def _brightest(image: Array) -> tuple[float, str]:
    """Give the value of the brightest colour, and how it was chosen.

    Single molecules must be seen where the whole picture lies on a screen, which averages pixels.
    """
    on_screen, _ = averaged_down(image, 1.0, SCREEN_PX)
    seen = on_screen[on_screen > _FAINT * max(float(on_screen.max()), 1e-300)]
    high = float(np.percentile(seen, PERCENTILE)) if seen.size else 1.0
    if _is_whole(image):
        high = float(np.ceil(high))
        return high, f"pixels of {high:g} and more all look alike"
    return high, BRIGHTEST_ALIKE


def _is_whole(image: Array) -> bool:
    return bool((image == np.rint(image)).all())


# --- From a run or table to files ---------------------------------------------------------------


@dataclass(frozen=True)
class Rendering:
    """One image that goes to one file.

    Attributes:
        path: the new file.
        picture: for people.
        channels: true values (rows, columns) by what they show, for a TIFF.
    """

    path: Path
    picture: Picture
    channels: Mapping[str, Array]


def render_file(
    source: str | Path,
    out: str | Path,
    *,
    kind: str = "gaussian",
    zoom: float | None = None,
    pixel_nm: float | None = None,
    colour: str = "intensity",
    roi: str | None = None,
    camera_pixel_nm: float | None = None,
    plain: bool = False,
    bits: int = 32,
    say: Callable[[str], None] = lambda _text: None,
) -> str:
    """Draw a run or a table; what `sureloc render` does.

    Args:
        source: folder of a run, or table of any format.
        out: new .png, .pdf, .svg or .tif; posterior images also write a second one, `..._sd`.
        kind: "histogram", "gaussian" or "posterior".
        zoom: image pixels for each camera pixel; `USUAL_ZOOM` without it and `pixel_nm`.
        pixel_nm: size of an image pixel, nm.
        colour: "intensity", "time", "precision" or "trust".
        roi: what to show (`sureloc.io.found.parse_roi`).
        camera_pixel_nm: camera pixel size, nm, where the source does not say it.
        plain: leave away what stands round a picture; its colours are then told in the sentence.
        bits: of a TIFF, 16 or 32.
        say: tells people what was not read, and which part is drawn where nothing says how large
            the camera frame is.

    Returns:
        What was written, in a sentence.

    Raises:
        InputError: the source or an option cannot be used; nothing is written.
        OutputError: a file could not be written; nothing is left.
    """
    out = Path(out)
    check_rendering(out, kind, colour, zoom, pixel_nm, plain)
    found = with_room_to_draw(read_found(source, camera_pixel_nm, say))
    check_rows(found.table, "to draw")
    size = _pixel_size(found, zoom, pixel_nm)
    edges = parse_roi(roi, found)
    _check_kind(found, kind, colour)
    asked = Canvas.between(*edges, size)
    _check_pixels(asked, found, say)
    for_people = out.suffix.lower() in PICTURE_SUFFIXES
    canvas = _as_shown(asked) if for_people else asked
    if roi is None and not found.field_is_stated:
        say(
            f"Nothing says how large the camera frame of {found.name} is: what holds all rows is "
            f"drawn, --roi {as_roi(found)}. Pictures of one --roi lie on each other."
        )
    if kind == "posterior":
        renderings, said = _posterior(found, canvas, out)
    else:
        renderings, said = _rows(found, canvas, out, kind, colour)
    about = {
        "version": metadata.version("sureloc"),
        "source": found.name,
        "kind": kind,
        "colour": colour,
    }
    with ExitStack() as stack:
        for one in renderings:
            partial = stack.enter_context(new_file(one.path))
            if for_people:
                draw_picture(one.picture, partial, plain=plain)
            else:
                write_tiff(partial, one.channels, canvas, bits, about)
    names = ", ".join(str(one.path) for one in renderings)
    told = "".join(f"; {_colours(one.picture)}" for one in renderings) if plain else ""
    return f"{names}: {_size(canvas, asked)}, {said}{told}"


def _as_shown(canvas: Canvas) -> Canvas:
    """Give a canvas of as many pixels as people can see, each a square of whole pixels."""
    side = shrinking_factor(canvas.shape, LARGEST_PX)
    rows, columns = (-(-n // side) for n in canvas.shape)
    return replace(canvas, pixel_nm=side * canvas.pixel_nm, rows=rows, columns=columns)


def _size(drawn: Canvas, asked: Canvas) -> str:
    words = [f"{c.rows:,} x {c.columns:,} px of {c.pixel_nm:.3g} nm" for c in (drawn, asked)]
    if drawn == asked:
        return words[0]
    return f"{words[0]}, drawn in place of {words[1]} (a .tif has them all)"


def _colours(picture: Picture) -> str:
    """Say what the colours of a picture without a colour bar mean."""
    return f"colours from {picture.low:.3g} to {picture.high:.3g} {picture.unit}"


def _check_kind(found: Found, kind: str, colour: str) -> None:
    """Raise `InputError` unless the source holds what is to be drawn."""
    if kind == "posterior":
        found.needs_draws()
        return
    if kind == "gaussian":
        _with_precision(found)
    if colour != "intensity":
        _check_colour(found.table, colour, found.name)


def _check_pixels(canvas: Canvas, found: Found, say: Callable[[str], None]) -> None:
    """Say if image pixels are too large or too small to be meant.

    Raises:
        InputError: the image would be a single pixel.
    """
    pixel = canvas.pixel_nm
    if max(canvas.shape) < 2:
        raise InputError(
            f"The image would be a single pixel of {pixel:g} nm. Give smaller ones with --pixel-nm "
            "or --zoom (5 to 20 nm is usual), or a larger --roi."
        )
    if found.pixel_nm is not None and pixel > found.pixel_nm:
        say(
            f"Warning: image pixels of {pixel:.3g} nm are larger than the camera's of "
            f"{found.pixel_nm:g} nm. --pixel-nm is the size of an image pixel; 5 to 20 nm is usual."
        )
    if not {"sigma_x_nm", "sigma_y_nm"} <= set(found.table.columns):
        return
    sigma = found.table[["sigma_x_nm", "sigma_y_nm"]].to_numpy(float)
    sigma = sigma[np.isfinite(sigma) & (sigma > 0)]
    if sigma.size and pixel < FINEST_SIGMAS * np.median(sigma):
        say(
            f"Warning: image pixels of {pixel:.3g} nm are less than a tenth of the rows' precision "
            f"of {np.median(sigma):.3g} nm (median): larger ones show as much, sooner."
        )


def _pixel_size(found: Found, zoom: float | None, pixel_nm: float | None) -> float:
    if pixel_nm is not None:
        return pixel_nm
    if found.pixel_nm is None:
        raise InputError(
            f"Nothing says how large a camera pixel of {found.name} is; give the size of the "
            "image's pixels with --pixel-nm."
        )
    return found.pixel_nm / (zoom or USUAL_ZOOM)


def _posterior(found: Found, canvas: Canvas, out: Path) -> tuple[list[Rendering], str]:
    draws, number = found.needs_draws(), found.number
    mean, sd = posterior_image(draws, number, canvas)
    unit = f"molecules per pixel of {canvas.pixel_nm:.3g} nm"
    first = intensity_picture(
        "mean", f"{found.name}: mean of {number} posterior draws", unit, mean, canvas.pixel_nm
    )
    second = intensity_picture(
        "sd",
        f"{found.name}: standard deviation over {number} posterior draws",
        unit,
        sd,
        canvas.pixel_nm,
        "viridis",
    )
    said = (
        f"{mean.sum():,.1f} of {len(draws) / number:,.1f} molecules in each draw, also those too "
        "unsure for a row"
    )
    return [
        Rendering(out, first, {"mean": mean}),
        Rendering(out.with_name(f"{out.stem}_sd{out.suffix}"), second, {"sd": sd}),
    ], said


def _rows(
    found: Found, canvas: Canvas, out: Path, kind: str, colour: str
) -> tuple[list[Rendering], str]:
    table, left_out = found.table, ""
    if kind == "gaussian":
        table = _with_precision(found)
        if len(table) < len(found.table):
            left_out = f"; {len(found.table) - len(table):,} without a precision are left out"
    image = _drawn(table, kind, canvas, None)
    how = "each as wide as it is uncertain" if kind == "gaussian" else "counted in pixels"
    title = f"{found.name}: localizations, {how}"
    channels = {"localizations per pixel": image}
    if colour == "intensity":
        unit = f"localizations per pixel of {canvas.pixel_nm:.3g} nm"
        picture = intensity_picture("image", title, unit, image, canvas.pixel_nm)
    else:
        value, unit, limits, colours = _values(table, colour, found.name)
        weighted = _drawn(table, kind, canvas, value)
        picture = value_picture(
            "image", title, unit, image, weighted, canvas.pixel_nm, limits, colours
        )
        channels[unit] = mean_value(image, weighted)
    shown = canvas.holds(table["x_nm"].to_numpy(float), table["y_nm"].to_numpy(float))
    said = f"{int(shown.sum()):,} of {len(table):,} localizations in rows kept{left_out}"
    return [Rendering(out, picture, channels)], said


def _with_precision(found: Found) -> pd.DataFrame:
    table = found.table
    if "sigma_x_nm" not in table or "sigma_y_nm" not in table:
        raise InputError(
            f"{found.name} states no precision (sigma_x_nm, sigma_y_nm); take --kind histogram, or "
            f"give one to all rows: {GIVE_PRECISION}."
        )
    known = np.isfinite(table[["sigma_x_nm", "sigma_y_nm"]].to_numpy(float)).all(1)
    return pd.DataFrame(table[known].reset_index(drop=True))


def _drawn(table: pd.DataFrame, kind: str, canvas: Canvas, weight: Array | None) -> Array:
    if kind == "gaussian":
        return row_gaussians(table, canvas, weight)
    return histogram(table["x_nm"].to_numpy(float), table["y_nm"].to_numpy(float), canvas, weight)


def _values(
    table: pd.DataFrame, colour: str, name: str
) -> tuple[Array, str, tuple[float, float], Colormap]:
    """Give every row's value, its unit, the values at the ends of the colours, and these."""
    columns = _check_colour(table, colour, name)
    value = np.sqrt((table[columns].to_numpy(float) ** 2).mean(1))
    if colour == "trust":
        return value, "share of rows to be trusted", (0.0, 1.0), value_map().reversed()
    if colour == "time":
        return value, "frame (mean)", _ends(value, (0.0, 100.0)), value_map()
    return value, "stated precision (nm, mean)", _ends(value, (2.0, 98.0)), value_map()


def _check_colour(table: pd.DataFrame, colour: str, name: str) -> list[str]:
    """Give the columns that a colour shows.

    Raises:
        InputError: the table lacks one.
    """
    needed = {"time": ["frame"], "precision": ["sigma_x_nm", "sigma_y_nm"], "trust": ["trusted"]}
    columns = needed[colour]
    lacking = [column for column in columns if column not in table]
    if lacking:
        raise InputError(
            f"{name} lacks {', '.join(lacking)} and cannot be coloured by {colour}; take another "
            f"colour of {', '.join(COLOURS)}."
        )
    return columns


def _ends(value: Array, percentiles: tuple[float, float]) -> tuple[float, float]:
    if value.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(value, percentiles)
    return float(low), float(high)
