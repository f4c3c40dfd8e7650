"""`sureloc calibrate-camera`: dark and flat movies in; a camera file with errors out."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from sureloc.cli.console import of_bar
from sureloc.cli.inputs import check_inputs, check_readable, limited
from sureloc.io.output import check_new_folder


def calibrate_camera(
    dark: Annotated[Path, typer.Argument(help="Movie without any light (shutter closed).")],
    flats: Annotated[
        list[Path],
        typer.Argument(help="Movies of steady light, one for each level; two or more are best."),
    ],
    out: Annotated[Path, typer.Option(help="New folder for the camera and its pictures.")],
    em_gain: Annotated[
        float,
        typer.Option(
            help="Electron multiplication of an EMCCD; 1 is none.", callback=limited("em_gain")
        ),
    ] = 1.0,
    preamplifier: Annotated[
        float | None,
        typer.Option(
            help="ADU per electron behind an EMCCD's register, from which its multiplication "
            "follows; instead of --em-gain.",
            callback=limited("preamplifier_adu_per_e"),
        ),
    ] = None,
    quantum_efficiency: Annotated[
        float,
        typer.Option(
            help="Photo-electrons per photon, from the data sheet.",
            callback=limited("quantum_efficiency"),
        ),
    ] = 1.0,
    saturation_adu: Annotated[
        int | None,
        typer.Option(
            help="Largest value that the camera writes; seen in the movies without it.",
            callback=limited("saturation_adu"),
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Measure offset, read noise and gain of every pixel from a dark movie and flats.

    Writes camera.yaml with its maps (for `sureloc localize --camera`), the same for Picasso, their
    errors, bad pixels, calibration.json, and pictures of photon transfer, maps and histograms.
    Memory does not depend on the movies' length.
    """
    for path in (dark, *flats):
        check_inputs(path)
    check_new_folder(out)
    for path in (dark, *flats):
        check_readable(path)
    from contextlib import ExitStack

    from rich.progress import Progress

    from sureloc import __version__
    from sureloc.calibrate import transfer
    from sureloc.calibrate.moments import movie_moments
    from sureloc.io.calibrations import write_calibration
    from sureloc.io.movies import open_movie
    from sureloc.io.output import new_folder
    from sureloc.report.calibration import draw_calibration

    multiplication = transfer.Multiplication(em_gain, preamplifier)
    with ExitStack() as stack:
        movies = [stack.enter_context(open_movie(path)) for path in (dark, *flats)]
        bar = stack.enter_context(Progress(**of_bar(quiet=quiet), transient=True))
        task = bar.add_task("reading", total=sum(movie.frames for movie in movies))
        moments = [
            movie_moments(movie, path.name, saturation_adu, lambda n: bar.advance(task, n))
            for movie, path in zip(movies, (dark, *flats), strict=True)
        ]
    calibration = transfer.calibrate_camera(
        moments[0], moments[1:], multiplication, quantum_efficiency
    )
    provenance = {
        "sureloc": __version__,
        "command": shlex.join(["sureloc", *sys.argv[1:]]),
        "dark": {"name": dark.name, "frames": moments[0].frames},
    }
    with new_folder(out) as folder:
        write_calibration(calibration, folder, provenance)
        draw_calibration(calibration, folder)
    for note in calibration.notes:
        typer.echo(note)
    rows, columns = calibration.hot.shape
    typer.echo(
        f"{out}: {rows} x {columns} pixels, gain {calibration.mean_gain:.4g} ± "
        f"{calibration.mean_gain_error:.2g} ADU per electron, {int(calibration.hot.sum()):,} hot "
        f"and {int(calibration.dead.sum()):,} dead pixels"
    )
