"""`sureloc filter`: the rows of a table that satisfy an expression."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from sureloc.cli.inputs import CameraPixelOption, check_inputs, check_new_table


def filter(
    run_or_table: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_TABLE",
            help="Folder of 'sureloc localize' or 'drift', or a table that 'sureloc convert' "
            "reads.",
        ),
    ],
    expression: Annotated[
        str,
        typer.Argument(
            help="Condition in quotes, such as 'sigma_x_nm < 20 and p_exists > 0.9 and trusted'."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="New table: .parquet (sureloc), .csv (ThunderSTORM), .hdf5 (Picasso), .h5 "
            "(DECODE), _sml.mat (SMAP)."
        ),
    ],
    pixel_nm: CameraPixelOption = None,
) -> None:
    """Keep the rows that satisfy an expression on the table's columns.

    It may hold columns, numbers, texts in quotes, comparisons (also 5 < sigma_x_nm < 20), and, or,
    not, + - * / **, abs, sqrt, min and max.
    """
    check_inputs(None, source=run_or_table)
    check_new_table(out)
    from sureloc import __version__
    from sureloc.analysis.filtering import rows_that_satisfy
    from sureloc.io.exchange.formats import names_elsewhere
    from sureloc.io.sources import read_source, write_step

    source = read_source(run_or_table, pixel_nm)
    kept = rows_that_satisfy(source.table, expression, names_elsewhere())
    table = source.table[kept].reset_index(drop=True)
    step = {
        "step": "filter",
        "sureloc": __version__,
        "command": shlex.join(["sureloc", *sys.argv[1:]]),
        "expression": expression,
        "rows_before": len(source.table),
        "rows": len(table),
    }
    for note in write_step(source, table, out, step):
        typer.echo(note)
    share = f" ({100 * len(table) / len(kept):.1f} %)" if len(kept) else ""
    typer.echo(f"{out}: {len(table):,} of {len(kept):,} rows{share} are left")
    if table.empty:
        typer.echo(f"Warning: no row satisfies {expression!r}; {out} is empty.", err=True)
