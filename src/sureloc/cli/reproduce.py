"""`sureloc reproduce`: every figure and table of the documentation, from seeds and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sureloc.cli import completion
from sureloc.cli.inputs import checked
from sureloc.cli.stopping import stopping
from sureloc.errors import InputError, did_you_mean

STUDY_NAMES = (
    *("precision", "coverage", "filtering", "sets", "uncertainty", "schedules"),
    *("links", "rivals", "unknown", "figures", "mismatch"),
)


def _check_study(name: str) -> None:
    if name not in STUDY_NAMES:
        raise InputError(
            f"There is no study {name!r}{did_you_mean(name, STUDY_NAMES)}; give some of "
            f"{', '.join(STUDY_NAMES)}, or none for all."
        )


def reproduce(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Names of studies, all of them by default: {', '.join(STUDY_NAMES)}.",
            autocompletion=completion.offer(lambda: STUDY_NAMES),
            callback=checked(_check_study),
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for the results; what is there already is kept.")
    ] = Path("docs/results"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Few and short movies: shows that it works.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all movies.")] = 20_261,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Remake figures and tables with the shipped weights; a run that was stopped goes on."""
    import torch

    from sureloc.cli.localize import bar_of_frames
    from sureloc.networks.weights import load_weights
    from sureloc.report.reproduction import code_version, run_study, write_index
    from sureloc.report.reproduction_studies import STUDIES

    torch.set_num_threads(1)
    # Nobody shall mistake the one for the other.
    folder = out / "quick" if quick else out
    networks, version = load_weights("fast"), code_version()
    with stopping(folder, "go on by the same command"):
        for study in STUDIES:
            if what and study.name not in what:
                continue
            number = len(study.conditions(quick))
            with bar_of_frames(
                number, quiet=quiet, unit="conditions", before=study.name, what=study.name
            ) as advance:
                for _ in run_study(study, folder, networks, quick=quick, seed=seed, commit=version):
                    advance()
            write_index(STUDIES, folder, quick=quick, seed=seed)
            typer.echo(f"{folder / study.name}.md")
