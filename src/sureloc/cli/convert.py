"""`sureloc convert`: tables of localizations between programs, and movies to open formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sureloc.cli import completion, inputs
from sureloc.cli.inputs import (
    CameraPixelOption,
    FramesOption,
    RegionOption,
    check_inputs,
    check_new_table,
    checked,
    limited,
    x_y_nm,
)
from sureloc.errors import InputError
from sureloc.io.exchange.names import SUFFIXES, is_table_name

if TYPE_CHECKING:
    from sureloc.io.movies import Movie


def _shift(text: str) -> tuple[float, float]:
    return x_y_nm("shift", text)


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Table, folder of a run, or movie to convert.")
    ],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="New file: .parquet (sureloc), .csv (ThunderSTORM unless --to says otherwise), "
            ".hdf5 (Picasso), .h5 (DECODE), _sml.mat (SMAP); .ome.tif or .ome.zarr for a movie.",
        ),
    ],
    source_format: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FORMAT",
            help=f"Format of a table IN, if it is not recognised: {', '.join(SUFFIXES)}.",
            autocompletion=completion.offer(lambda: SUFFIXES),
            callback=inputs.table_format,
        ),
    ] = None,
    target_format: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="Format of a table OUT, one of the same; told by its suffix without it.",
            autocompletion=completion.offer(lambda: SUFFIXES),
            callback=inputs.table_format,
        ),
    ] = None,
    pixel_nm: CameraPixelOption = None,
    first_frame: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1,
            help="Number of the movie's first frame in a table IN, if it is not its format's.",
        ),
    ] = None,
    shift_nm: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y",
            help="Added to all positions, nm; half a pixel mends many a mix-up of origins.",
            callback=checked(_shift),
        ),
    ] = None,
    uncertainty_nm: Annotated[
        float | None,
        typer.Option(
            help="Uncertainty of x and y, nm, for a table without one.",
            callback=limited("uncertainty_nm"),
        ),
    ] = None,
    psf_sigma_nm: Annotated[
        float | None,
        typer.Option(
            help="PSF standard deviation, nm, for a table without one.",
            callback=limited("psf_sigma_nm"),
        ),
    ] = None,
    width_px: Annotated[
        int | None,
        typer.Option(
            help="Columns of the camera frame, for Picasso, where IN does not say it.",
            callback=limited("width_px"),
        ),
    ] = None,
    height_px: Annotated[
        int | None,
        typer.Option(
            help="Rows of the camera frame, for Picasso, where IN does not say it.",
            callback=limited("height_px"),
        ),
    ] = None,
    movie_frames: Annotated[
        int | None,
        typer.Option(
            help="Frames of the movie, for Picasso, where IN does not say it.",
            callback=limited("frames"),
        ),
    ] = None,
    draw: Annotated[
        int | None,
        typer.Option(help="The one posterior draw to take of draws.parquet, from 0."),
    ] = None,
    roi: RegionOption = None,
    frames: FramesOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Convert a table of localizations for another program, or a movie to an open format.

    Positions are moved to each format's origin, frames to its first number. What OUT cannot hold is
    counted and said. --roi and --frames are for movies, all other options but
    --camera-pixel-nm and --quiet for tables.
    """
    from sureloc.io.movie_writing import check_movie_name, is_movie_name
    from sureloc.io.movies import is_name_of_a_movie

    if is_movie_name(target):
        _refuse(
            {
                "--from": source_format,
                "--to": target_format,
                "--first-frame": first_frame,
                "--shift-nm": shift_nm,
                "--uncertainty-nm": uncertainty_nm,
                "--psf-sigma-nm": psf_sigma_nm,
                "--width-px": width_px,
                "--height-px": height_px,
                "--movie-frames": movie_frames,
                "--draw": draw,
            },
            f"for tables, and {target.name} would be a movie. --roi and --frames cut a movie; "
            "'sureloc localize' makes a table of one",
        )
        check_movie_name(target)
        _convert_movie(source, target, pixel_nm, roi, frames, quiet)
        return
    _refuse(
        {"--roi": roi, "--frames": frames},
        f"for movies, and {target.name} would be a table. 'sureloc filter' keeps rows, such as "
        "with '0 <= frame < 500 and 2000 <= x_nm < 9000'",
    )
    check_inputs(None, source=source)
    if is_name_of_a_movie(source) and not is_table_name(target):
        check_movie_name(target)
    check_new_table(target, target_format)
    from sureloc.io.convert import Changes, convert_table
    from sureloc.io.exchange.localizations import Geometry, Reading

    geometry = Geometry(pixel_nm, width_px, height_px, movie_frames, psf_sigma_nm)
    written = convert_table(
        source,
        target,
        Reading(geometry, first_frame),
        Changes(_shift(shift_nm or "0,0"), uncertainty_nm, draw),
        source_format,
        target_format,
    )
    for note in written.notes:
        typer.echo(note)
    typer.echo(f"{target}: {written.rows:,} rows")


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Raise `InputError` where an option is given that says nothing of what is converted.

    Args:
        options: their values by their names; None where one is not given.
        why: what they are for, what OUT is, and what to do instead.
    """
    given = [name for name, value in options.items() if value is not None]
    if given:
        verb, it = ("are", "them") if len(given) > 1 else ("is", "it")
        raise InputError(f"{', '.join(given)} {verb} {why}. Leave {it} out.")


def _convert_movie(
    source: Path,
    target: Path,
    pixel_nm: float | None,
    roi: str | None,
    frames: str | None,
    quiet: bool,
) -> None:
    from sureloc.cli.localize import bar_of_frames
    from sureloc.io.movie_writing import write_movie
    from sureloc.io.movies import open_movie

    with open_movie(source) as whole:
        part = whole.cut(roi, frames)
        if pixel_nm is None:
            part.check_square_pixels()
        size_nm = pixel_nm or part.pixel_nm
        with bar_of_frames(part.frames, quiet=quiet, before="reading", what="converting") as step:

            def progress(count: int) -> None:
                for _ in range(count):
                    step()

            write_movie(part, target, size_nm, progress)
        typer.echo(f"{target}: {_described(part, size_nm)}")


def _described(movie: Movie, pixel_nm: float | None) -> str:
    parts = [
        f"{movie.frames:,} frames of {movie.height} x {movie.width} px (rows x columns)",
        str(movie.dtype),
        f"pixels of {pixel_nm:g} nm" if pixel_nm else "of unknown pixel size (--pixel-nm)",
    ]
    if movie.exposure_ms is not None:
        parts.append(f"exposed for {movie.exposure_ms:g} ms")
    if movie.camera_name is not None:
        parts.append(f"camera {movie.camera_name}")
    return ", ".join(parts)
