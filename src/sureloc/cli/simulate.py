"""`sureloc simulate`: a movie with known truth, from a recipe."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sureloc.cli import completion
from sureloc.cli.console import of_bar
from sureloc.cli.inputs import check_inputs
from sureloc.io.output import check_new_folder, new_folder

if TYPE_CHECKING:
    from sureloc.simulate.movie import MovieChunk
    from sureloc.simulate.recipe import Recipe


def simulate(
    recipe: Annotated[
        str,
        typer.Argument(
            help="Name of a shipped recipe (paper, peers, uniform, crowded_filaments, rings, "
            "nanoruler, lattice, dna_paint, palm_emccd) or path of a YAML file.",
            autocompletion=completion.recipes,
        ),
    ],
    frames: Annotated[int, typer.Option(min=1, help="Number of frames.")],
    out: Annotated[Path, typer.Option(help="New folder for the results.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same movie.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Replace one value of the recipe, such as scene.density_per_um2=1.78; repeatable.",
        ),
    ] = None,
    camera: Annotated[
        Path | None,
        typer.Option(
            help="Camera file (YAML, .npz, Picasso .hdf5) instead of the recipe's camera."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Simulate a movie of blinking molecules and its truth.

    Writes movie.ome.tif (16 bit), truth.parquet and truth.csv, camera.yaml and camera.npz,
    recipe.yaml, drift.csv, preview.png, generative_chain.png and a README.txt that explains them.
    """
    check_inputs(None, camera)
    check_new_folder(out)
    from sureloc.config.recipes import load_recipe, recipe_yaml

    settings = settings or []
    scene = load_recipe(recipe, settings)
    from sureloc import __version__
    from sureloc.io.cameras import read_camera
    from sureloc.io.simulation import write_simulation
    from sureloc.report.generative_chain import draw_generative_chain
    from sureloc.report.preview import draw_preview
    from sureloc.simulate.cameras import make_camera
    from sureloc.simulate.generative_chain import generative_chain
    from sureloc.simulate.movie import simulate_movie

    used = read_camera(camera) if camera else make_camera(scene.camera, scene.frame)
    movie = simulate_movie(scene, frames, seed, camera=used)
    provenance = {
        "sureloc": __version__,
        "command": _command(recipe, frames, seed, settings, camera),
        "recipe": scene.model_dump(mode="json"),
        "seed": seed,
        "frames": frames,
    }
    with new_folder(out) as folder:
        chunks = _with_progress(movie, frames, quiet)
        text = recipe_yaml(scene)
        summary = write_simulation(folder, chunks, scene.frame, frames, used, text, provenance)
        draw_preview(summary, folder / "preview.png")
        chain = generative_chain(scene, seed, frames, camera=used)
        draw_generative_chain(chain, folder / "generative_chain.png")
    typer.echo(
        f"{out}: {frames:,} frames of {scene.frame.height} x {scene.frame.width} px, "
        f"{_crowding(scene, summary.emitters / frames)}"
    )


def _command(recipe: str, frames: int, seed: int, settings: list[str], camera: Path | None) -> str:
    words = ["sureloc", "simulate", recipe, "--frames", str(frames), "--seed", str(seed)]
    for setting in settings:
        words += ["--set", setting]
    if camera is not None:
        words += ["--camera", str(camera)]
    return shlex.join([*words, "--out", "FOLDER"])


def _crowding(recipe: Recipe, emitters: float) -> str:
    from sureloc.simulate.scenes import Field

    area_um2 = Field.of(recipe.frame).area_um2
    return f"{emitters:.1f} emitters a frame ({emitters / area_um2:.2f} / um^2)"


def _with_progress(movie: Iterator[MovieChunk], frames: int, quiet: bool) -> Iterator[MovieChunk]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        TextColumn("simulating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames"),
        TimeRemainingColumn(),
        TextColumn("left"),
        **of_bar(quiet=quiet),
        transient=True,
    )
    with progress:
        task = progress.add_task("simulating", total=frames)
        for chunk in movie:
            yield chunk
            progress.advance(task, chunk.frames)
