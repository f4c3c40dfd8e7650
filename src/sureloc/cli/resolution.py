"""`sureloc resolution`: how fine an image is, with error bars."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sureloc.cli import inputs
from sureloc.cli.inputs import check_inputs, limited
from sureloc.io.output import check_new_folder


def resolution(
    run_or_table: Annotated[
        Path,
        typer.Argument(help="Folder of a run, or a table that 'sureloc convert' reads."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="New folder for resolution.json and the curves, resolution.png; printed alone "
            "without it."
        ),
    ] = None,
    roi: Annotated[
        str | None,
        typer.Option(
            metavar="Y0:Y1,X0:X1",
            help="Part to look at: camera rows and columns, such as 10:40,20:60, "
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
    splits: Annotated[
        int, typer.Option(help="Random ways to halve the frames.", callback=limited("splits"))
    ] = 6,
    blocks: Annotated[
        int,
        typer.Option(
            help="Blocks of frames in a row, each of which goes into one half as a whole.",
            callback=limited("blocks"),
        ),
    ] = 20,
    resamples: Annotated[
        int,
        typer.Option(
            help="Bootstrap samples of parts of the field, for error bars.",
            callback=limited("resamples"),
        ),
    ] = 200,
    trusted_only: Annotated[
        bool, typer.Option("--trusted-only", help="Leave out rows that are not trusted.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same numbers.")] = 0,
) -> None:
    """Measure the resolution: Fourier ring correlation of rows and draws, and decorrelation.

    Every number comes with a 95 % interval; where halves of the movie do not agree beyond chance,
    there is no resolution, and it is said.
    """
    check_inputs(None, source=run_or_table)
    if out is not None:
        check_new_folder(out)
    from sureloc.report.resolution import cautions, measure_resolution, write_resolution

    results = measure_resolution(
        run_or_table,
        roi=roi,
        camera_pixel_nm=camera_pixel_nm,
        splits=splits,
        blocks=blocks,
        resamples=resamples,
        trusted_only=trusted_only,
        seed=seed,
        say=typer.echo,
    )
    for result in results:
        typer.echo(result.sentence)
    for caution in cautions(results):
        typer.echo(caution)
    if out is not None:
        write_resolution(results, out, run_or_table.name)
