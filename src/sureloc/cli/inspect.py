"""`sureloc inspect`: what a movie is like, and whether the shipped weights suit it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sureloc.cli import completion, inputs
from sureloc.cli.inputs import (
    FramesOption,
    RegionOption,
    SigmaOption,
    TrustCameraOption,
    check_inputs,
    check_readable,
    check_trust,
    limited,
)
from sureloc.io.output import check_new_file, new_file
from sureloc.limits import number_or_auto

if TYPE_CHECKING:
    from sureloc.calibrate.inspection import Inspection
    from sureloc.networks.weights import Networks


NOTHING = 2  # exit code where neither file nor movie says anything


def inspect(
    movie: Annotated[
        Path, typer.Argument(help="Movie of any format that 'sureloc localize' reads.")
    ],
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
            help="Pixel size in the sample, nm; by default what the file says.",
            callback=inputs.pixel_nm,
        ),
    ] = None,
    sigma_px: SigmaOption = "auto",
    exposure_ms: Annotated[
        float | None,
        typer.Option(
            help="Exposure of a frame, ms; by default what the file says.",
            callback=limited("exposure_ms"),
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="Weights to compare with: name, .safetensors file or adapted folder.",
            autocompletion=completion.weights,
            callback=inputs.weights,
        ),
    ] = "fast",
    roi: RegionOption = None,
    frames: FramesOption = None,
    picture: Annotated[
        Path | None, typer.Option(help="New PNG: frames, spots, noise and histograms.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same answer.")] = 0,
) -> None:
    """Say what a movie is like, with errors, and whether the weights were trained for it.

    Pixel size, camera and exposure from the file; offset, gain, read noise, PSF width, molecules,
    photons, background and on-time from the movie. What cannot be measured is unknown, and why is
    said; if nothing at all is known, the exit code is 2. Takes about half a minute.
    """
    check_inputs(movie, camera)
    check_trust(camera, trust_camera=trust_camera)
    if picture is not None:
        if picture.suffix.lower() != ".png":
            picture = picture.with_name(f"{picture.name}.png")
        check_new_file(picture)
    check_readable(movie, camera, roi=roi, frames=frames)
    from sureloc.networks.weights import load_weights
    from sureloc.report.inspection import draw_inspection

    networks = load_weights(weights)
    found = inspect_file(
        movie,
        camera,
        pixel_nm,
        exposure_ms,
        networks,
        seed,
        sigma_px=number_or_auto("sigma_px", sigma_px),
        trust_camera=trust_camera,
        roi=roi,
        frames=frames,
    )
    if picture is not None:
        with new_file(picture) as partial:
            draw_inspection(found, movie.name, partial)
    show(found, movie.name, as_json=json)
    if not found.says_something:
        raise typer.Exit(NOTHING)


def inspect_file(
    movie: Path,
    camera: Path | None,
    pixel_nm: float | None,
    exposure_ms: float | None,
    networks: Networks,
    seed: int,
    *,
    sigma_px: float | None,
    trust_camera: bool,
    roi: str | None = None,
    frames: str | None = None,
) -> Inspection:
    """Open a movie, or a part of it, and its camera, and look at it."""
    from dataclasses import replace

    from sureloc.calibrate.inspection import inspect_movie
    from sureloc.calibrate.quantities import Stated
    from sureloc.io.cameras import read_camera
    from sureloc.io.exchange.localizations import Geometry, contradiction
    from sureloc.io.movies import open_movie

    used = None if camera is None else read_camera(camera)
    with open_movie(movie) as opened:
        stated = Stated(
            pixel_nm or opened.pixel_nm,
            "given" if pixel_nm else "the file",
            opened.oblong_pixel_nm,
            exposure_ms or opened.exposure_ms,
            opened.camera_name,
            "given" if exposure_ms else "the file",
        )
        part = opened.cut(roi, frames)
        if used is not None:
            used = used.of_part(part.shape[1:], opened.full_shape, part.rows, part.columns)
        found = inspect_movie(
            part, used, stated, networks, seed, sigma_px=sigma_px, trust_camera=trust_camera
        )
        said = contradiction(Geometry(pixel_nm), Geometry(opened.pixel_nm))
        return replace(found, notes=(*said, *found.notes))


def show(inspection: Inspection, name: str, *, as_json: bool) -> None:
    """Print an inspection as a table for people or as JSON for programs."""
    import json

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from sureloc.report.inspection import COLUMNS, as_record, table_rows

    if as_json:
        typer.echo(json.dumps(as_record(inspection), indent=2, ensure_ascii=False))
        return
    table = Table(title=Text(name), title_justify="left")
    for column in COLUMNS:
        value = column == "value"
        table.add_column(column, justify="right" if value else "left", no_wrap=value)
    for row in table_rows(inspection):
        style = "bold red" if row[-1].startswith("NOT") else ""
        table.add_row(*(Text(cell, style=style) for cell in row))
    console = Console()
    console.print(table)
    for note in inspection.notes:
        console.print(Text(note))
    if inspection.gain_contradicted:
        said = "Whether the weights were trained for such movies cannot be said until it is mended."
    elif inspection.covered is None:
        why = "they do not say what they were trained on."
        if inspection.unknown:
            why = f"{_listed(inspection.unknown)} not known. More frames tell more."
        said = (
            f"Whether the weights {inspection.weights} were trained for such movies cannot be "
            f"said: {why}"
        )
    elif inspection.covered:
        said = f"The weights {inspection.weights} were trained for such movies."
    else:
        said = (
            f"The weights {inspection.weights} were not trained for such movies. "
            "`sureloc adapt MOVIE --out FOLDER` trains them on."
        )
    console.print(Text(said))


def _listed(names: tuple[str, ...]) -> str:
    """Write names one after the other, with the verb that fits their number."""
    if len(names) == 1:
        return f"{names[0]} is"
    return f"{', '.join(names[:-1])} and {names[-1]} are"
