"""Rendered images for people: intensity in one map, or brightness with a value in colour.

Where colours show a value (time, precision, trust), brightness shows how much lies there; the map
runs from blue over grey to orange at about equal lightness, which people with every kind of colour
vision tell apart, so that colour and brightness do not borrow from each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
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
    PERCENTILE,
    SCREEN_PX,
    Picture,
    averaged_down,
    draw_picture,
)
from sureloc.report.rendering_options import COLOURS, check_rendering
from sureloc.table import check_rows

Array = npt.NDArray[np.float64]

USUAL_ZOOM = 10.0
BLUE, GREY, ORANGE = "#3d9bff", "#b9b4ad", "#ff8f1f"
_FAINT = 1e-3  # of the brightest pixel; below, a pixel counts as empty
_GAMMA = 0.7  # of brightness, so that single molecules are seen beside crowds


def value_map() -> Colormap:
    """Give the colour map of values, blue (low) to orange (high)."""
    return LinearSegmentedColormap.from_list("blue_orange", [BLUE, GREY, ORANGE])


def intensity_picture(
    name: str, title: str, unit: str, image: Array, pixel_nm: float, colours: str = "inferno"
) -> Picture:
    """Give a picture of an image that is mostly empty, such as molecules per pixel."""
    small, small_nm = averaged_down(image, pixel_nm)
    high, contrast = _brightest(small, small_nm, pixel_nm)
    return Picture(name, title, unit, small, small_nm, colours, 0.0, high, contrast)


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
    small, small_nm = averaged_down(image, pixel_nm)
    mean = averaged_down(weighted, pixel_nm)[0] / np.maximum(small, 1e-300)
    low, high = limits[0], max(limits[1], limits[0] + 1e-9)
    brightest, contrast = _brightest(small, small_nm, pixel_nm)
    light = np.clip(small / brightest, 0.0, 1.0) ** _GAMMA
    colour = colours(np.clip((mean - low) / (high - low), 0.0, 1.0))[..., :3]
    rgb = np.asarray(colour * light[..., None], np.float64)
    contrast = f"brightness to the power {_GAMMA:g}; {contrast}"
    return Picture(name, title, unit, rgb, small_nm, colours, low, high, contrast)


def _brightest(small: Array, small_nm: float, pixel_nm: float) -> tuple[float, str]:
    """Give the value of the brightest colour, and how it was chosen."""
    on_screen, _ = averaged_down(small, small_nm, SCREEN_PX)
    seen = on_screen[on_screen > _FAINT * max(float(on_screen.max()), 1e-300)]
    high = float(np.percentile(seen, PERCENTILE)) if seen.size else 1.0
    contrast = BRIGHTEST_ALIKE
    if small_nm > pixel_nm:
        contrast += f"; averaged down to {small_nm:.3g} nm"
    return high, contrast


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
    bits: int = 32,
    say: Callable[[str], None] = lambda _text: None,
) -> str:
    """Draw a run or a table; what `sureloc render` does.

    Args:
        source: folder of a run, or table of any format.
        out: new .png or .tif; posterior images also write a second file, `..._sd`.
        kind: "histogram", "gaussian" or "posterior".
        zoom: image pixels for each camera pixel; `USUAL_ZOOM` without it and `pixel_nm`.
        pixel_nm: size of an image pixel, nm.
        colour: "intensity", "time", "precision" or "trust".
        roi: what to show (`sureloc.io.found.parse_roi`).
        camera_pixel_nm: camera pixel size, nm, where the source does not say it.
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
    check_rendering(out, kind, colour, zoom, pixel_nm)
    found = with_room_to_draw(read_found(source, camera_pixel_nm, say))
    check_rows(found.table, "to draw")
    size = _pixel_size(found, zoom, pixel_nm)
    canvas = Canvas.between(*parse_roi(roi, found), size)
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
            if one.path.suffix.lower() == ".png":
                draw_picture(one.picture, partial)
            else:
                write_tiff(partial, one.channels, canvas, bits, about)
    names = ", ".join(str(one.path) for one in renderings)
    return f"{names}: {_size(renderings[0], canvas)}, {said}"


def _size(one: Rendering, canvas: Canvas) -> str:
    whole = f"{canvas.rows:,} x {canvas.columns:,} px of {canvas.pixel_nm:.3g} nm"
    picture = one.picture
    if one.path.suffix.lower() != ".png" or picture.pixel_nm <= canvas.pixel_nm:
        return whole
    rows, columns = picture.image.shape[:2]
    return (
        f"{rows:,} x {columns:,} px of {picture.pixel_nm:.3g} nm, averaged down from {whole} (a "
        ".tif has them all)"
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
            f"{found.name} states no precision (sigma_x_nm, sigma_y_nm); take --kind histogram."
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
    needed = {"time": ["frame"], "precision": ["sigma_x_nm", "sigma_y_nm"], "trust": ["trusted"]}
    columns = needed[colour]
    lacking = [column for column in columns if column not in table]
    if lacking:
        raise InputError(
            f"{name} lacks {', '.join(lacking)} and cannot be coloured by {colour}; take another "
            f"colour of {', '.join(COLOURS)}."
        )
    value = np.sqrt((table[columns].to_numpy(float) ** 2).mean(1))
    if colour == "trust":
        return value, "share of rows to be trusted", (0.0, 1.0), value_map().reversed()
    if colour == "time":
        return value, "frame (mean)", _ends(value, (0.0, 100.0)), value_map()
    return value, "stated precision (nm, mean)", _ends(value, (2.0, 98.0)), value_map()


def _ends(value: Array, percentiles: tuple[float, float]) -> tuple[float, float]:
    if value.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(value, percentiles)
    return float(low), float(high)
