"""`sureloc resolution`: how fine an image is, with error bars."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def resolution(
    run_or_table: Annotated[
        Path,
        typer.Argument(help="Folder of a run, or a table that 'sureloc convert' reads."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="New folder for resolution.json and the curves, resolution.png."),
    ] = None,
    roi: Annotated[
        str | None,
        typer.Option(help="Camera rows and columns to look at, y0:y1,x0:x1; or y0:y1,x0:x1nm."),
    ] = None,
    camera_pixel_nm: Annotated[
        float | None, typer.Option(help="Camera pixel size, nm, where the table does not say it.")
    ] = None,
    splits: Annotated[int, typer.Option(help="Random halvings of the frames.")] = 6,
    blocks: Annotated[
        int, typer.Option(help="Parts of the movie that go into a half as a whole.")
    ] = 20,
    resamples: Annotated[int, typer.Option(help="Of parts of the field, for error bars.")] = 200,
    trusted_only: Annotated[
        bool, typer.Option("--trusted-only", help="Leave out rows that are not trusted.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same numbers.")] = 0,
) -> None:
    """Measure the resolution: Fourier ring correlation of rows and draws, and decorrelation.

    Every number comes with a 95 % interval; where halves of the movie do not agree beyond chance,
    there is no resolution, and it is said.
    """
    from sureloc.io.output import check_new_folder
    from sureloc.report.resolution import cautions, measure_resolution, write_resolution

    if out is not None:
        check_new_folder(out)
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
