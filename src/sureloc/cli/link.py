"""`sureloc link`: one row for each molecule out of its rows in successive frames."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from sureloc.cli.inputs import (
    CameraPixelOption,
    check_inputs,
    check_new_table,
    limited,
    limited_or_auto,
)
from sureloc.limits import number_or_auto


def link(
    run_or_table: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_TABLE",
            help="Folder of 'sureloc localize' or 'drift', or a table that 'sureloc convert' "
            "reads.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="New table: .parquet (sureloc), .csv (ThunderSTORM), .hdf5 (Picasso), .h5 "
            "(DECODE), _sml.mat (SMAP)."
        ),
    ],
    gap: Annotated[
        int,
        typer.Option(
            help="Frames in a row that a molecule may miss and be the same one.",
            callback=limited("gap"),
        ),
    ] = 1,
    radius_nm: Annotated[
        str,
        typer.Option(
            help="Largest distance of a row from its molecule, nm; auto lets the stated precisions "
            "decide (99.9 % of true links are kept).",
            callback=limited_or_auto("radius_nm"),
        ),
    ] = "auto",
    pixel_nm: CameraPixelOption = None,
) -> None:
    """Merge the rows of one molecule in successive frames into one row.

    Positions and precisions are those of all its light together, photons are summed. Says how far
    rows of successive frames lie apart over their stated precision, which should be 1.
    """
    check_inputs(None, source=run_or_table)
    check_new_table(out)
    from sureloc import __version__
    from sureloc.analysis.audit import repeat_ratio
    from sureloc.analysis.linking import GATE_QUANTILE, link_rows, merged
    from sureloc.io.sources import read_source, write_step
    from sureloc.table import DRIFT_COLUMNS, check_rows

    radius = number_or_auto("radius_nm", radius_nm)
    source = read_source(run_or_table, pixel_nm)
    check_rows(source.table, "to link")
    links = link_rows(source.table, gap, radius)
    table = merged(source.table, links)
    ratio, pairs = repeat_ratio(source.table)
    step = {
        "step": "link",
        "sureloc": __version__,
        "command": shlex.join(["sureloc", *sys.argv[1:]]),
        "gap": gap,
        "radius_nm": radius,
        "gate_quantile": GATE_QUANTILE if radius is None else None,
        "rows_before": len(source.table),
        "molecules": links.molecules,
        "displacement_over_precision": ratio if math.isfinite(ratio) else None,
    }
    for note in write_step(source, table, out, step):
        typer.echo(note)
    lacks = "p_exists" in source.table and DRIFT_COLUMNS[0].name not in source.table
    if lacks and run_or_table.is_file() and run_or_table.suffix.lower() != ".parquet":
        typer.echo(
            f"{run_or_table} cannot say which part of a precision is drift's: if 'sureloc drift' "
            "made it, that part was averaged away. Link the Parquet table beside it instead."
        )
    mean = len(source.table) / max(links.molecules, 1)
    typer.echo(
        f"{out}: {len(source.table):,} rows of {links.molecules:,} molecules, {mean:.2f} rows each"
    )
    said = f"{links.squared.size:,} links; "
    if math.isnan(ratio):
        typer.echo(f"{said}too few to tell whether stated precisions hold")
        return
    typer.echo(
        f"{said}displacement over stated precision {ratio:.2f} (should be 1; {pairs:,} pairs of "
        f"trusted rows, chance allowed for){_remark(ratio)}"
    )


def _remark(ratio: float) -> str:
    from sureloc.analysis.audit import ALLOWED_RATIO, NOTICED_RATIO

    if ratio > ALLOWED_RATIO:
        return (
            ": rows of one molecule lie further apart than their precisions say, or it moves; "
            "look at the drift, and at what 'sureloc audit' says"
        )
    if ratio < 1 / NOTICED_RATIO:
        return ": precisions are stated larger than they need be"
    return ""
