"""A table of one program turned into that of another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sureloc.errors import InputError
from sureloc.io.exchange.formats import read_localizations, write_localizations
from sureloc.io.exchange.localizations import Localizations, Reading, Written
from sureloc.io.exchange.names import format_to_write
from sureloc.io.sources import read_run
from sureloc.limits import check_limit


@dataclass(frozen=True)
class Changes:
    """What is to be done to a table on its way.

    Attributes:
        shift_nm: added to x and y, nm.
        uncertainty_nm: standard deviation of x and of y where the table holds none, nm.
        draw: the only posterior draw to keep.
    """

    shift_nm: tuple[float, float] = (0.0, 0.0)
    uncertainty_nm: float | None = None
    draw: int | None = None


def convert_table(
    source: Path,
    target: Path,
    reading: Reading,
    changes: Changes,
    source_format: str | None = None,
    target_format: str | None = None,
) -> Written:
    """Read a table and write it in another format, whole or not at all.

    Args:
        source, target: the table, or the folder of a run, and the new file.
        reading: what is to be known about the source beside what it says.
        changes: what is done to the rows.
        source_format, target_format: names of formats; None recognises them.

    Returns:
        How many rows were written, and what is to be said about it.

    Raises:
        InputError: a file or value cannot be used, or something that is needed is not known.
        OutputError: the table cannot be written; nothing is left of it.
    """
    format_to_write(target, target_format)  # before long reading
    if source.is_dir():
        found = read_run(source, reading).data
    else:
        found = read_localizations(source, reading, source_format)
    written = write_localizations(_changed(source, found, changes), target, target_format)
    return replace(written, notes=(*found.notes, *written.notes))


def _changed(source: Path, data: Localizations, changes: Changes) -> Localizations:
    table = data.table
    if changes.draw is not None:
        if "draw" not in table:
            raise InputError(f"{source} holds no draws, so none can be taken; leave out --draw.")
        table = table[table["draw"] == changes.draw].drop(columns="draw")
        if table.empty:
            raise InputError(
                f"{source} holds no draw {changes.draw}; it holds {data.table['draw'].min()} to "
                f"{data.table['draw'].max()}."
            )
    if changes.uncertainty_nm is not None and not {"sigma_x_nm", "sigma_y_nm"} & set(table):
        check_limit("uncertainty_nm", changes.uncertainty_nm)
        table = table.assign(sigma_x_nm=changes.uncertainty_nm, sigma_y_nm=changes.uncertainty_nm)
    moved = {
        name: table[name] + shift
        for axis, shift in zip("xy", changes.shift_nm, strict=True)
        for name in map(str, table)
        if shift and name.startswith(f"{axis}_") and name.endswith("_nm")
    }
    return replace(data, table=table.assign(**moved))
