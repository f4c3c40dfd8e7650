"""`sureloc localize`: a movie in; positions with intervals, images, a report and a verdict out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from sureloc.cli import completion, inputs
from sureloc.cli.console import of_bar
from sureloc.cli.inputs import (
    FramesOption,
    RegionOption,
    SigmaOption,
    TrustCameraOption,
    check_inputs,
    check_readable,
    check_trust,
    choice,
    limited,
)
from sureloc.cli.stopping import stopping
from sureloc.errors import FinishedError
from sureloc.io.output import partial_folder
from sureloc.io.run_folder import RUN, check_place
from sureloc.limits import number_or_auto
from sureloc.runs.scheduler import AUTO, LOCAL

RATE_FRAMES = 30  # over which the speed is averaged
REFUSED = 3  # exit code of a run that finished, but must not be trusted


def localize(
    movie: Annotated[
        Path,
        typer.Argument(
            help="TIFF or OME-TIFF stack, folder of TIFFs, NDTiff, OME-Zarr, ND2, CZI, LIF, "
            "Picasso's .raw, or .dax."
        ),
    ],
    out: Annotated[Path, typer.Option(help="New folder for the results.")],
    camera: Annotated[
        Path | None,
        typer.Option(
            help="Camera file (YAML, .npz, Picasso .hdf5); estimated from the movie without it."
        ),
    ] = None,
    trust_camera: TrustCameraOption = False,
    pixel_nm: Annotated[
        float | None,
        typer.Option(
            help="Pixel size in the sample, nm; by default what the file says, else 100.",
            callback=inputs.pixel_nm,
        ),
    ] = None,
    sigma_px: SigmaOption = "auto",
    density: Annotated[
        float | None,
        typer.Option(
            help="Emitters per square micrometre and frame; learned without it.",
            callback=limited("density_per_um2"),
        ),
    ] = None,
    photons: Annotated[
        float | None,
        typer.Option(
            help="Mean photons of an emitter in a frame; learned without it.",
            callback=limited("mean_photons"),
        ),
    ] = None,
    background: Annotated[
        float | None,
        typer.Option(
            help="Mean background, photons per pixel and frame; learned without it.",
            callback=limited("background_photons"),
        ),
    ] = None,
    draws: Annotated[
        int,
        typer.Option(
            help="Posterior draws, possible sets of molecules, to write to draws.parquet.",
            callback=limited("draws"),
        ),
    ] = 16,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same results.")] = 0,
    roi: RegionOption = None,
    frames: FramesOption = None,
    weights: Annotated[
        str,
        typer.Option(
            help="Name of shipped weights, a .safetensors file, or a folder of `sureloc adapt`.",
            autocompletion=completion.weights,
            callback=inputs.weights,
        ),
    ] = "fast",
    device: Annotated[
        str,
        typer.Option(
            help="Where networks run; auto prefers a GPU.", **choice("auto", "cpu", "cuda")
        ),
    ] = "auto",
    workers: Annotated[
        int,
        typer.Option(
            help="Threads or processes; results do not depend on them.",
            callback=limited("workers"),
        ),
    ] = 2,
    scheduler: Annotated[
        str,
        typer.Option(
            help="Who works: threads, processes, auto for the faster of them, or a dask cluster's "
            "address such as tcp://10.0.0.1:8786.",
            metavar="NAME|ADDRESS",
            autocompletion=completion.offer(lambda: LOCAL),
            callback=inputs.scheduler,
        ),
    ] = AUTO,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped.")
    ] = False,
    min_probability: Annotated[
        float,
        typer.Option(
            help="Leave out rows whose probability to exist, p_exists, is lower.",
            callback=limited("min_probability"),
        ),
    ] = 0.5,
    rounds: Annotated[
        int,
        typer.Option(
            help="How often chains move, each time twice as long, where rows are unsure: more are "
            "more precise in crowds, and slower.",
            callback=limited("rounds"),
        ),
    ] = 4,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Localize the molecules of a movie and say how far the result can be trusted.

    Writes localizations.parquet and .csv (ThunderSTORM), draws.parquet, images.ome.zarr, PNGs,
    report.html and run.json. Exit code 3 means that it finished with the verdict "do not trust".
    What a stopped run had done is kept in OUT.partial; the same command with --resume goes on.
    """
    with stopping(partial_folder(out), "go on by the same command with --resume"):
        check_inputs(movie, camera)
        check_trust(camera, trust_camera=trust_camera)
        check_place(out, resume=resume)
        check_readable(movie, camera, roi=roi, frames=frames, square=pixel_nm is None)
        from functools import partial

        from sureloc.localize.verdict import Trust
        from sureloc.runs.localization import localize_file

        try:
            outcome = localize_file(
                movie,
                out,
                camera=camera,
                pixel_nm=pixel_nm,
                sigma_px=number_or_auto("sigma_px", sigma_px),
                density_per_um2=density,
                mean_photons=photons,
                background_photons=background,
                trust_camera=trust_camera,
                draws=draws,
                seed=seed,
                roi=roi,
                frames=frames,
                weights=weights,
                device=device,
                workers=workers,
                min_probability=min_probability,
                rounds=rounds,
                resume=resume,
                scheduler=scheduler,
                say=partial(typer.echo, err=True),
                command=shlex.join(["sureloc", *sys.argv[1:]]),
                bar=partial(bar_of_frames, quiet=quiet),
            )
        except FinishedError:
            _tell_finished(out)
            return
    for note in outcome.notes:
        typer.echo(note)
    typer.echo(
        f"{out}: {outcome.rows:,} localizations in {outcome.frames:,} frames, "
        f"{outcome.seconds:.0f} s\n{outcome.verdict.sentence}"
    )
    if outcome.verdict.trust is Trust.REFUSE:
        raise typer.Exit(REFUSED)


def _tell_finished(out: Path) -> None:
    """Say what a run that was finished before had said, and leave as it did."""
    import json

    verdict = json.loads((out / RUN).read_text(encoding="utf-8"))["verdict"]
    typer.echo(f"{out}: was finished before\n{verdict['sentence']}")
    if verdict["trust"] == "do not trust":
        raise typer.Exit(REFUSED)


@contextmanager
def bar_of_frames(
    frames: int,
    *,
    quiet: bool,
    unit: str = "frames",
    before: str = "learning from the movie",
    what: str = "localizing",
) -> Iterator[Callable[[], None]]:
    """Show a progress bar on stderr; give what to call after every frame."""
    from time import perf_counter

    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + " {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        **of_bar(quiet=quiet),
        transient=True,
    ) as bar:
        task = bar.add_task(before, total=frames, rate="")
        ends: list[float] = []

        def advance() -> None:
            ends.append(perf_counter())
            # The first frame's time holds the learning; frames also come in bursts.
            first, *later = ends[-RATE_FRAMES:]
            rate = f"{len(later) / (later[-1] - first):.2f}/s" if later else ""
            bar.update(task, advance=1, description=what, rate=rate)

        yield advance
