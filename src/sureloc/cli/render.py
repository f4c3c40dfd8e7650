"""`sureloc render`: a picture of a run or a table, for people or for further work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sureloc.cli import inputs
from sureloc.cli.inputs import check_inputs, choice, limited
from sureloc.io.output import check_new_file
from sureloc.report.rendering_options import COLOURS, KINDS, check_rendering


def render(
    run_or_table: Annotated[
        Path,
        typer.Argument(help="Folder of a run, or a table that 'sureloc convert' reads."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="New .png, .pdf or .svg (for people), or .tif (for further work).",
        ),
    ],
    kind: Annotated[
        str,
        typer.Option(
            help="histogram; gaussian, as wide as each row is uncertain; or posterior, the mean "
            "over the draws, with its standard deviation as a second image.",
            **choice(*KINDS, metavar="KIND"),
        ),
    ] = "gaussian",
    zoom: Annotated[
        float | None,
        typer.Option(
            help="Image pixels for each camera pixel, along each axis; 10 without it.",
            callback=limited("zoom"),
        ),
    ] = None,
    pixel_nm: Annotated[
        float | None,
        typer.Option(
            help="Size of an image pixel, nm, instead of --zoom.",
            callback=limited("image_pixel_nm"),
        ),
    ] = None,
    colour: Annotated[
        str,
        typer.Option(
            help=f"What colours show: {', '.join(COLOURS)}.",
            **choice(*COLOURS, metavar="WHAT"),
        ),
    ] = "intensity",
    roi: Annotated[
        str | None,
        typer.Option(
            metavar="Y0:Y1,X0:X1",
            help="Part to show: camera rows and columns, such as 10:40,20:60, "
            "or nanometres, such as 1000:4000,2000:6000nm.",
            callback=inputs.rectangle,
        ),
    ] = None,
    camera_pixel_nm: Annotated[
        float | None,
        typer.Option(
            help="Camera pixel size, nm, where the table does not say it.", callback=inputs.pixel_nm
        ),
    ] = None,
    plain: Annotated[
        bool,
        typer.Option("--plain", help="Only the picture and its scale bar, as for a paper."),
    ] = False,
    bits: Annotated[
        int,
        typer.Option(
            help="Of a TIFF: 32 (exact values) or 16 (whole numbers).",
            **choice("32", "16"),
        ),
    ] = 32,
) -> None:
    """Draw a run or a table as a super-resolution image, with any pixel size.

    A PNG, PDF or SVG has scale bar, colour bar and title; a TIFF true values and the pixel size.
    """
    check_inputs(None, source=run_or_table)
    check_rendering(out, kind, colour, zoom, pixel_nm, plain)
    check_new_file(out)
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
            plain=plain,
            bits=bits,
            say=typer.echo,
        )
    )
