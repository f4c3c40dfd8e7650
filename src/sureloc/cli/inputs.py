"""What a command looks at before it loads the libraries that take seconds.

Values are looked at while the command line is read: options have callbacks that give the value on,
or raise `InputError`. Paths are looked at first thing in the command.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from sureloc.cli import completion
from sureloc.config.training_files import training_recipe_text
from sureloc.errors import InputError, check_one_of
from sureloc.io.exchange.names import check_format, format_to_write
from sureloc.io.output import check_new_file
from sureloc.io.paths import check_camera_exists, check_movie_exists, check_source_exists
from sureloc.io.regions import parse_frames, parse_rectangle, parse_region
from sureloc.limits import check_limit, number_or_auto
from sureloc.networks.weight_files import check_phi, check_weights_name, weight_files
from sureloc.runs.scheduler import check_scheduler
from sureloc.shipped import training_recipe_names

Callback = Callable[[Any], Any]

TrustCameraOption = Annotated[
    bool,
    typer.Option(
        "--trust-camera",
        help="Keep the camera's offset also where the movie's noise contradicts it.",
    ),
]


def checked(check: Callable[[Any], object]) -> Callback:
    """Give the callback of an option whose value, or each of several, is looked at if given."""

    def callback(value: Any) -> Any:
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is not None:
                check(one)
        return value

    return callback


def limited(name: str) -> Callback:
    """Give the callback of a number that has limits (`sureloc.limits`)."""
    return checked(lambda value: check_limit(name, value))


def limited_or_auto(name: str) -> Callback:
    """Give the callback of a text that is a number with limits, or 'auto'."""
    return checked(lambda text: number_or_auto(name, text))


def choice(*values: str, metavar: str | None = None) -> dict[str, Any]:
    """Give what an option takes that has no other values: they are shown, completed and checked.

    Args:
        values: the choices.
        metavar: shown instead, where they are too long for a line of --help.
    """

    def callback(parameter: typer.CallbackParam, value: Any) -> Any:
        check_one_of(str(parameter.name), str(value), values)
        return value

    return {
        "metavar": metavar or "|".join(values),
        "autocompletion": completion.offer(lambda: values),
        "callback": callback,
    }


def training_recipe(kind: str) -> dict[str, Any]:
    """Give what an argument takes that names a recipe which trains "phi" or "psi"."""
    return {
        "autocompletion": completion.offer(lambda: training_recipe_names(kind)),
        "callback": checked(lambda name: training_recipe_text(kind, name)),
    }


def x_y_nm(what: str, text: str) -> tuple[float, float]:
    """Turn "x,y" into two numbers, nm.

    Raises:
        InputError: it is something else.
    """
    try:
        x_nm, y_nm = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"The {what} {text!r} is not of the form x,y in nm, such as 5200,1340."
        ) from error
    if not (isfinite(x_nm) and isfinite(y_nm)):
        raise InputError(f"The {what} is {text}; both numbers must be finite.")
    return x_nm, y_nm


def _pixel_nm(value: float) -> None:
    # NumPy comes with it.
    from sureloc.camera import check_pixel_nm

    check_pixel_nm(value)


SigmaOption = Annotated[
    str,
    typer.Option(
        help="PSF standard deviation, px, or auto to estimate it.",
        callback=limited_or_auto("sigma_px"),
    ),
]

pixel_nm = checked(_pixel_nm)
CameraPixelOption = Annotated[
    float | None,
    typer.Option(
        "--camera-pixel-nm",
        "--pixel-nm",
        help="Camera pixel size in the sample, nm, where the file does not say it.",
        callback=pixel_nm,
    ),
]
frames = checked(parse_frames)
region = checked(parse_region)
rectangle = checked(parse_rectangle)
weights = checked(weight_files)
phi = checked(check_phi)
table_format = checked(check_format)
scheduler = checked(check_scheduler)

RegionOption = Annotated[
    str | None,
    typer.Option(
        metavar="Y0:Y1,X0:X1",
        help="Part of a movie, px from 0: rows Y0 to before Y1, columns X0 to before X1; "
        "10:40,20:60 is 30 rows of 40 columns.",
        callback=region,
    ),
]
FramesOption = Annotated[
    str | None,
    typer.Option(
        metavar="A:B",
        help="Frames of a movie, counted from 0: A to before B; 100: is all from 100 on, :100 the "
        "first 100.",
        callback=frames,
    ),
]


def check_inputs(
    movie: Path | None, camera: Path | None = None, source: Path | None = None
) -> None:
    """Raise `InputError` unless a movie, a camera file and a run or table are there, if given."""
    for path, check in (
        (source, check_source_exists),
        (movie, check_movie_exists),
        (camera, check_camera_exists),
    ):
        if path is not None:
            check(path)


def check_readable(
    movie: Path | None,
    camera: Path | None = None,
    *,
    roi: str | None = None,
    frames: str | None = None,
    square: bool = False,
) -> None:
    """Open what is given, and close it again: seconds before the work can begin.

    This loads libraries, but none that takes long; it comes after whatever needs none.

    Args:
        movie, camera: the files; frames are not read.
        roi, frames: parts of the movie.
        square: the movie must not say that its pixels are not square.

    Raises:
        InputError: a file cannot be read, a part does not lie in the movie, or it has such pixels.
    """
    if movie is not None:
        from sureloc.io.movies import open_movie

        with open_movie(movie) as whole:
            whole.cut(roi, frames)
            if square:
                whole.check_square_pixels()
    if camera is not None:
        from sureloc.io.cameras import read_camera

        read_camera(camera)


def check_new_table(path: Path, format_name: str | None = None) -> None:
    """Raise `InputError` unless a new table can go to `path`.

    Args:
        path: the new file.
        format_name: of its format, or None to go by the suffix.
    """
    format_to_write(path, format_name)
    check_new_file(path)


def check_new_weights(path: Path) -> None:
    """Raise `InputError` unless a new file of weights and its card can go to `path`."""
    check_weights_name(path)
    for place in (path, path.with_suffix(".json")):
        check_new_file(place)


def check_trust(camera: Path | None, *, trust_camera: bool) -> None:
    """Raise `InputError` where a camera is to be trusted that was not given."""
    if trust_camera and camera is None:
        raise InputError(
            "--trust-camera keeps the offset of a camera that is given, and none is. Give its file "
            "with --camera, or leave out --trust-camera."
        )
