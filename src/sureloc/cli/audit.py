"""`sureloc audit`: are a run's uncertainties those of its movie?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sureloc.cli import inputs
from sureloc.cli.inputs import check_inputs, check_readable, limited
from sureloc.io.output import check_new_folder

FAILED = 3  # exit code of an audit that was made, but that the run failed


def audit(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Folder of a run; or a table that 'sureloc convert' reads, of which less can be "
            "asked.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="New folder for audit.html and audit.json; RUN_audit without it."),
    ] = None,
    movie: Annotated[
        Path | None,
        typer.Option(help="The movie of the run: its light is halved and localized twice."),
    ] = None,
    camera: Annotated[
        Path | None,
        typer.Option(help="Camera file of the movie; without it the one that the run used."),
    ] = None,
    camera_pixel_nm: Annotated[
        float | None,
        typer.Option(
            help="Camera pixel size, nm, where the table does not say it.", callback=inputs.pixel_nm
        ),
    ] = None,
    frames: Annotated[
        int, typer.Option(min=5, help="Frames of the movie to halve, spread over it.")
    ] = 60,
    workers: Annotated[
        int,
        typer.Option(help="Threads; results do not depend on them.", callback=limited("workers")),
    ] = 2,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same answers.")] = 0,
) -> None:
    """Ask a run, without any truth, whether its error bars hold, and write one page of answers.

    Exit code 3 means that the audit was made and that the run failed it.
    """
    folder = source.with_name(f"{source.stem}_audit") if out is None else out
    check_new_folder(folder)
    check_inputs(movie, camera, source)
    check_readable(movie, camera)
    from sureloc.analysis.audit import Outcome
    from sureloc.report.audit import audit_run, write_audit

    result = audit_run(
        source,
        movie=movie,
        camera=camera,
        camera_pixel_nm=camera_pixel_nm,
        frames=frames,
        workers=workers,
        seed=seed,
        say=typer.echo,
    )
    write_audit(result, folder)
    if movie is not None:
        typer.echo(f"camera: {result.record['camera']}")
    for item in result.items:
        typer.echo(f"{item.outcome.value}: {item.name}. {item.sentence}")
    typer.echo(f"{result.sentence}\nreport: {folder / 'audit.html'}")
    if result.outcome is Outcome.FAIL:
        raise typer.Exit(FAILED)
