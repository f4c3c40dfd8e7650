"""Which format a table has, and how it is read and written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from sureloc.errors import InputError
from sureloc.io.exchange import challenge, decode, parquet, picasso, smap, thunderstorm
from sureloc.io.exchange.csv_text import first_lines, header_of
from sureloc.io.exchange.localizations import Localizations, Reading, Written
from sureloc.io.exchange.names import SUFFIXES, all_suffixes, check_format, format_to_write
from sureloc.io.output import new_file


@dataclass(frozen=True)
class Format:
    """One format of tables.

    Attributes:
        name: for `--from` and `--to`.
        suffix: how the names of its files end.
        read, write: see the module of the format.
    """

    name: str
    suffix: str
    read: Callable[[Path, Reading], Localizations]
    write: Callable[[Localizations, Path], Written]


FORMATS = {
    name: Format(name, SUFFIXES[name], read, write)
    for name, read, write in (
        ("sureloc", parquet.read, parquet.write),
        ("thunderstorm", thunderstorm.read, thunderstorm.write),
        ("smap-csv", smap.read_csv, smap.write_csv),
        ("challenge", challenge.read, challenge.write),
        ("decode-csv", decode.read_csv, decode.write_csv),
        ("picasso", picasso.read, picasso.write),
        ("decode", decode.read, decode.write),
        ("smap", smap.read_mat, smap.write_mat),
    )
}
_HDF5 = (".hdf5", ".h5")


def format_of_file(path: Path) -> Format:
    """Recognise a file by its name and what stands in it.

    Raises:
        InputError: the file is missing, or nothing that is known.
    """
    if not path.exists():
        raise InputError(
            f"There is no table at {path} (seen from {Path.cwd()}). Check the spelling of the path."
        )
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        parquet.schema_of(path)
        return FORMATS["sureloc"]
    if suffix == ".mat":
        return FORMATS["smap"]
    if suffix == ".csv":
        return _csv(path)
    if suffix in _HDF5:
        return _hdf5(path)
    raise InputError(
        f"{path} has the extension {suffix or '(none)'!r}, but tables end in {all_suffixes()}. "
        "'sureloc convert --from FORMAT' reads a table of another name; a movie becomes a table by "
        "'sureloc localize'."
    )


def is_table(path: Path) -> bool:
    """Tell whether a file's name and what stands first in it promise a table."""
    try:
        found = format_of_file(path)
    except InputError:
        return False
    # MATLAB keeps anything in .mat; only the whole suffix speaks of SMAP.
    return found.name != "smap" or path.name.lower().endswith(SUFFIXES["smap"])


def _csv(path: Path) -> Format:
    line = first_lines(path, 1)[0]
    if line.startswith(decode.CSV_MARK):
        return FORMATS["decode-csv"]
    header = header_of(line)
    for name, mark in (
        *(("thunderstorm", mark) for mark in thunderstorm.MARKS),
        ("smap-csv", smap.MARK),
        ("challenge", challenge.MARK),
    ):
        if mark in header:
            return FORMATS[name]
    raise InputError(
        f"{path} has the header {line[:80]!r}, which is none of ThunderSTORM's (x [nm], [um] or "
        "[px]), SMAP's (xnm), the SMLM challenge's (xnano) and DECODE's. Rename its columns to "
        "those of one, with numbers in the unit that these say."
    )


def _hdf5(path: Path) -> Format:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if "saveloc" in file:
                return FORMATS["smap"]
            if isinstance(file.get("locs"), h5py.Dataset):
                return FORMATS["picasso"]
            if "xyz" in file.get("data", ()):
                return FORMATS["decode"]
            names = ", ".join(file)
    except (OSError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{path} cannot be read as HDF5 ({error}). If it was copied, copy it again."
        ) from error
    raise InputError(
        f"{path} holds {names or 'nothing'}; Picasso's files hold locs, DECODE's data/xyz."
    )


def names_elsewhere() -> dict[str, str]:
    """Give sureloc's columns by what Picasso and ThunderSTORM call them, without units."""
    return {**picasso.NAMES, **thunderstorm.NAMES_WITHOUT_UNITS}


def read_localizations(path: Path, reading: Reading, name: str | None = None) -> Localizations:
    """Read a table of any format.

    Args:
        path: the file.
        reading: what the user says about it.
        name: the format's name, or None to recognise it.

    Raises:
        InputError: the file cannot be used, or something that is needed is not known.
    """
    if name is not None:
        check_format(name)
    one = format_of_file(path) if name is None else FORMATS[name]
    if not path.is_file():
        raise InputError(f"There is no table at {path} (seen from {Path.cwd()}).")
    found = one.read(path, reading)
    if one.name == "sureloc" and found.provenance:
        return found
    return replace(found, provenance={"read_from": path.name, **found.provenance})


def write_localizations(data: Localizations, path: Path, name: str | None = None) -> Written:
    """Write a table in any format, whole or not at all.

    Args:
        data: the table.
        path: the new file; Picasso's gets a `.yaml` beside it.
        name: the format's name, or None to go by the suffix.

    Raises:
        InputError: the format needs something that is not known, or the file exists.
        OutputError: the file cannot be written.
    """
    one = FORMATS[format_to_write(path, name)]
    with ExitStack() as files:
        partial = files.enter_context(new_file(path))
        beside = (
            files.enter_context(new_file(path.with_suffix(".yaml")))
            if one.name == "picasso"
            else None
        )
        written = one.write(data, partial)
        if beside is not None:
            picasso.write_beside(partial, beside)
    return written
