"""`sureloc convert`: tables of localizations between programs, and movies to open formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sureloc.cli import completion

if TYPE_CHECKING:
    from sureloc.io.movies import Movie


FORMATS = (
    *("sureloc", "thunderstorm", "smap-csv", "challenge", "decode-csv"),
    *("picasso", "decode", "smap"),
)


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
            help=f"Format of a table IN, if it is not recognised: {', '.join(FORMATS)}.",
            autocompletion=completion.offer(lambda: FORMATS),
        ),
    ] = None,
    target_format: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="Format of a table OUT, one of the same; by default by suffix.",
            autocompletion=completion.offer(lambda: FORMATS),
        ),
    ] = None,
    pixel_nm: Annotated[
        float | None,
        typer.Option(help="Pixel size in the sample, nm, where IN does not say it."),
    ] = None,
    first_frame: Annotated[
        int | None,
        typer.Option(
            min=0, max=1, help="Number of the first frame in a table IN that breaks its format."
        ),
    ] = None,
    shift_nm: Annotated[
        str, typer.Option(help="Added to positions, x,y in nm; half a pixel mends many a mix-up.")
    ] = "0,0",
    uncertainty_nm: Annotated[
        float | None, typer.Option(help="Uncertainty of x and y, nm, for a table without one.")
    ] = None,
    psf_sigma_nm: Annotated[
        float | None, typer.Option(help="PSF standard deviation, nm, for a table without one.")
    ] = None,
    width_px: Annotated[
        int | None, typer.Option(help="Columns of the camera frame, which Picasso wants to know.")
    ] = None,
    height_px: Annotated[
        int | None, typer.Option(help="Rows of the camera frame, which Picasso wants to know.")
    ] = None,
    movie_frames: Annotated[
        int | None, typer.Option(help="Frames of the movie, which Picasso wants to know.")
    ] = None,
    draw: Annotated[
        int | None, typer.Option(help="Take this one posterior draw of draws.parquet.")
    ] = None,
    roi: Annotated[str | None, typer.Option(help="Part of a movie, y0:y1,x0:x1.")] = None,
    frames: Annotated[str | None, typer.Option(help="Frames of a movie, a:b.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Convert a table of localizations for another program, or a movie to an open format.

    Positions are moved to each format's origin, frames to its first number. What OUT cannot hold is
    counted and said.
    """
    from sureloc.camera import check_pixel_nm
    from sureloc.io.convert import Changes, convert_table
    from sureloc.io.exchange.localizations import Geometry, Reading
    from sureloc.io.movie_writing import is_movie_name

    if pixel_nm is not None:
        check_pixel_nm(pixel_nm)
    if is_movie_name(target):
        _convert_movie(source, target, pixel_nm, roi, frames, quiet)
        return
    geometry = Geometry(pixel_nm, width_px, height_px, movie_frames, psf_sigma_nm)
    written = convert_table(
        source,
        target,
        Reading(geometry, first_frame),
        Changes(_shift(shift_nm), uncertainty_nm, draw),
        source_format,
        target_format,
    )
    for note in written.notes:
        typer.echo(note)
    typer.echo(f"{target}: {written.rows:,} rows")


def _shift(text: str) -> tuple[float, float]:
    from math import isfinite

    from sureloc.errors import InputError

    try:
        x_nm, y_nm = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"The shift {text!r} is not of the form x,y in nm, such as 50,50."
        ) from error
    if not (isfinite(x_nm) and isfinite(y_nm)):
        raise InputError(f"The shift is {text}; both numbers must be finite.")
    return x_nm, y_nm


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
    from sureloc.io.movies import open_movie, parse_frames, parse_region

    with open_movie(source) as whole:
        rows, columns = parse_region(roi, whole.full_shape) if roi else (None, None)
        part = whole.select(rows, columns, parse_frames(frames, whole.frames) if frames else None)
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
