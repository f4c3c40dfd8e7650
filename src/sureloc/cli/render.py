"""`sureloc render`: a picture of a run or a table, for people or for further work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sureloc.cli import completion


def render(
    run_or_table: Annotated[
        Path,
        typer.Argument(help="Folder of a run, or a table that 'sureloc convert' reads."),
    ],
    out: Annotated[Path, typer.Option(help="New .png (for people) or .tif (for further work).")],
    kind: Annotated[
        str,
        typer.Option(
            help="histogram; gaussian, as wide as each row is uncertain; or posterior, the mean "
            "over the draws, with its standard deviation as a second image.",
            **completion.choice("histogram", "gaussian", "posterior"),
        ),
    ] = "gaussian",
    zoom: Annotated[
        float | None, typer.Option(help="Image pixels for each camera pixel and axis; 10 if left.")
    ] = None,
    pixel_nm: Annotated[
        float | None, typer.Option(help="Size of an image pixel, nm, instead of --zoom.")
    ] = None,
    colour: Annotated[
        str,
        typer.Option(
            help="What colours show.",
            **completion.choice("intensity", "time", "precision", "trust"),
        ),
    ] = "intensity",
    roi: Annotated[
        str | None,
        typer.Option(help="Camera rows and columns to show, y0:y1,x0:x1; or y0:y1,x0:x1nm."),
    ] = None,
    camera_pixel_nm: Annotated[
        float | None, typer.Option(help="Camera pixel size, nm, where the table does not say it.")
    ] = None,
    bits: Annotated[
        int,
        typer.Option(
            help="Of a TIFF: 32 (exact values) or 16 (whole numbers).",
            **completion.choice("32", "16"),
        ),
    ] = 32,
) -> None:
    """Draw a run or a table as a super-resolution image, with any pixel size.

    A PNG has scale bar, colour bar and title; a TIFF holds true values and the pixel size.
    """
    from sureloc.report.rendered import render_file

    typer.echo(
        render_file(
            run_or_table,
            out,
            kind=kind,
            zoom=zoom,
            pixel_nm=pixel_nm,
            colour=colour,
            roi=roi,
            camera_pixel_nm=camera_pixel_nm,
            bits=bits,
            say=typer.echo,
        )
    )
