"""`sureloc demo`: the whole chain on a simulated movie whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sureloc.cli.inputs import limited
from sureloc.cli.stopping import stopping
from sureloc.io.output import check_new_folder
from sureloc.io.run_folder import CAMERA_FILE

if TYPE_CHECKING:
    from sureloc.evaluate.compare import Comparison


def demo(
    out: Annotated[Path, typer.Option(help="New folder for what the demonstration makes.")],
    frames: Annotated[int, typer.Option(min=1, help="Number of frames to simulate.")] = 200,
    workers: Annotated[
        int,
        typer.Option(help="Threads; results do not depend on them.", callback=limited("workers")),
    ] = 2,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same results.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Simulate crowded filaments on an sCMOS camera, localize them, and compare with the truth.

    Writes the folders `movie` (the simulation) and `result` (what `sureloc localize` writes).
    """
    check_new_folder(out)
    from sureloc.cli.localize import bar_of_frames
    from sureloc.cli.simulate import simulate
    from sureloc.io.cameras import read_camera
    from sureloc.io.movies import open_movie
    from sureloc.io.tables import read_table
    from sureloc.localize.movie import Options
    from sureloc.networks.weights import load_weights
    from sureloc.runs.localization import localize_movie
    from sureloc.table import TRUTH_COLUMNS

    simulated, result = out / "movie", out / "result"
    camera = simulated / "camera.npz"
    with stopping(out, "remove that folder before you start again"):
        simulate("crowded_filaments", frames=frames, out=simulated, seed=seed, quiet=quiet)
        truth = read_table(simulated / "truth.parquet", TRUTH_COLUMNS)
        with open_movie(simulated / "movie.ome.tif") as movie:
            pixel_nm = movie.pixel_nm or 100.0
            inside = (truth["x_nm"].between(-0.5 * pixel_nm, (movie.width - 0.5) * pixel_nm)) & (
                truth["y_nm"].between(-0.5 * pixel_nm, (movie.height - 0.5) * pixel_nm)
            )
            with bar_of_frames(movie.frames, quiet=quiet) as advance:
                outcome = localize_movie(
                    movie,
                    read_camera(camera),
                    Options(pixel_nm=pixel_nm, seed=seed, workers=workers),
                    result,
                    {
                        "command": f"sureloc demo --frames {frames} --seed {seed}",
                        "camera": str(camera),
                        CAMERA_FILE: str(camera.resolve()),
                    },
                    load_weights("fast"),
                    truth=truth[inside],
                    progress=advance,
                )
    typer.echo(outcome.verdict.sentence)
    found = outcome.comparison
    if found is not None:
        _say(found)
    typer.echo(f"report: {result / 'report.html'}")


def _say(found: Comparison) -> None:
    typer.echo(
        f"{found.truths:,} molecules, {found.rows:,} localizations, Jaccard {found.jaccard:.3f}; "
        f"error {found.rmse_axis_nm:.1f} nm per axis, {found.rmse_over_crlb:.2f} times the bound; "
        f"68 % intervals hold {100 * found.coverage_68:.1f} %, "
        f"95 % intervals {100 * found.coverage_95:.1f} %"
    )
