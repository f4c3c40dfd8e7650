"""`sureloc drift`: how far the sample moved, taken from the tables with its uncertainty."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sureloc.cli.inputs import (
    CameraPixelOption,
    check_inputs,
    checked,
    choice,
    limited,
    x_y_nm,
)
from sureloc.io.output import check_new_folder, new_folder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from sureloc.analysis.drift import Drift
    from sureloc.io.sources import Source


def _place(text: str) -> tuple[float, float]:
    return x_y_nm("fiducial", text)


def drift(
    run_or_table: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_TABLE",
            help="Folder of 'sureloc localize', or a table that 'sureloc convert' reads.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="New folder for the results.")],
    method: Annotated[
        str,
        typer.Option(
            help="rcc: cross-correlation of the structure with itself; fiducials: bright spots "
            "that are there in nearly all frames.",
            **choice("rcc", "fiducials"),
        ),
    ] = "rcc",
    segments: Annotated[
        int | None,
        typer.Option(
            help="Stretches of the movie for rcc, 5 to 200; chosen without it.",
            callback=limited("segments"),
        ),
    ] = None,
    fiducial: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y",
            help="Place of a fiducial, nm; repeatable; found without it.",
            callback=checked(_place),
        ),
    ] = None,
    reference: Annotated[
        str,
        typer.Option(
            help="Where the drift is zero: first (frame), or mean (of all rows).",
            **choice("first", "mean"),
        ),
    ] = "first",
    pixel_nm: CameraPixelOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws' drift, draws.parquet.")] = 0,
) -> None:
    """Estimate the drift and take it from the tables, which get its uncertainty.

    Writes localizations.parquet and .csv (ThunderSTORM), draws.parquet if the run has it,
    drift.csv (frame, x_nm, y_nm and their standard deviations), drift.png and run.json.
    """
    check_inputs(None, source=run_or_table)
    check_new_folder(out)
    from dataclasses import replace

    from sureloc import __version__
    from sureloc.analysis.drift import Method, Reference, corrected, drift_table, estimate_drift
    from sureloc.io.exchange.thunderstorm import not_importable
    from sureloc.io.results import write_run
    from sureloc.io.run_folder import LOCALIZATIONS, RUN, THUNDERSTORM
    from sureloc.io.sources import read_source, write_step
    from sureloc.report.drift import draw_drift

    how, zero = Method(method), Reference(reference)
    source = read_source(run_or_table, pixel_nm)
    found = estimate_drift(source.table, how, segments, _places(fiducial), zero)
    step: dict[str, object] = {
        "step": "drift",
        "sureloc": __version__,
        "command": shlex.join(["sureloc", *sys.argv[1:]]),
        "method": how.value,
        "reference": zero.value,
        "seed": seed,
        **found.facts,
    }
    table = corrected(source.table, found.path)
    with new_folder(out) as folder:
        notes = write_step(source, table, folder / LOCALIZATIONS, step)
        if source.pixel_nm is None:
            notes += (f"The pixel size is not known, so there is no {THUNDERSTORM}.",)
        else:
            # What this format has no place for stays in the table beside it: not worth a word.
            write_step(source, table, folder / THUNDERSTORM, step)
            notes += not_importable(replace(source.data, table=table))
        write_run(folder / RUN, _record(source, step))
        if source.draws is not None:
            _correct_draws(source.draws, found, seed, step, folder)
        drift_table(found.path).round(4).to_csv(folder / "drift.csv", index=False)
        draw_drift(found, folder / "drift.png")
    for note in notes:
        typer.echo(note)
    typer.echo(f"{out}: {len(table):,} rows corrected\n{_summary(found)}")


def _record(source: Source, step: dict[str, object]) -> dict[str, object]:
    """Give what tables beside it, such as the CSV, do not say: pixel size, field and steps."""
    from dataclasses import asdict

    from sureloc.io.sources import with_step

    return {
        "pixel_nm": source.pixel_nm,
        "geometry": asdict(source.data.geometry),
        "steps": with_step(source.data.provenance, step)["steps"],
    }


def _correct_draws(
    draws: Path, found: Drift, seed: int, step: dict[str, object], folder: Path
) -> None:
    from sureloc.analysis.drift import DrawCorrection
    from sureloc.io.run_folder import DRAWS
    from sureloc.io.sources import with_step
    from sureloc.io.tables import TableWriter, read_provenance, read_table, table_chunks
    from sureloc.table import DRAW_COLUMNS

    read_table(draws, DRAW_COLUMNS)  # refuses what is no draw table
    provenance = with_step(read_provenance(draws), step)
    correction = DrawCorrection(found.path, seed)
    with TableWriter(folder / DRAWS, DRAW_COLUMNS, provenance) as writer:
        for chunk in table_chunks(draws):
            writer.append(correction.corrected(chunk))


def _summary(found: Drift) -> str:
    import numpy as np

    path = found.path
    length = np.ptp(path.mean_nm, axis=0)
    sd = np.sqrt(np.diagonal(path.covariance_nm2, axis1=1, axis2=2).mean(axis=0))
    facts = found.facts
    if found.method.value == "rcc":
        how = (
            f"from {facts['pairs']} pairs of {facts['segments']} stretches, "
            f"{facts['pairs_left_out']} left out"
        )
    else:
        number = facts["fiducials"]
        how = f"from {number} fiducial{'' if number == 1 else 's'}"
        if isinstance(wide := facts["widening"], float) and wide > 1:
            how += f", which disagree: precisions widened by {wide:.2f}"
    if not path.is_beyond_uncertainty:
        how += "; no drift beyond its uncertainty"
    return (
        f"drift spans {length[0]:.1f} nm along x and {length[1]:.1f} nm along y, known to "
        f"{sd[0]:.1f} and {sd[1]:.1f} nm (one standard deviation, relative to "
        f"{'the first frame' if found.reference.value == 'first' else 'its mean'}); {how}"
    )


def _places(texts: list[str] | None) -> npt.NDArray[np.float64] | None:
    import numpy as np

    return np.array([_place(text) for text in texts]) if texts else None
