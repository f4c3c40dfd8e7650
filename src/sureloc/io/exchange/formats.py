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


# The first format of a suffix is the one that is written unless another is asked for.
FORMATS = {
    one.name: one
    for one in (
        Format("sureloc", ".parquet", parquet.read, parquet.write),
        Format("thunderstorm", ".csv", thunderstorm.read, thunderstorm.write),
        Format("smap-csv", ".csv", smap.read_csv, smap.write_csv),
        Format("challenge", ".csv", challenge.read, challenge.write),
        Format("decode-csv", ".csv", decode.read_csv, decode.write_csv),
        Format("picasso", ".hdf5", picasso.read, picasso.write),
        Format("decode", ".h5", decode.read, decode.write),
        Format("smap", smap.SUFFIX, smap.read_mat, smap.write_mat),
    )
}
_HDF5 = (".hdf5", ".h5")


def format_named(name: str) -> Format:
    """Give the format of a name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in FORMATS:
        raise InputError(f"There is no format {name!r}; there are {', '.join(FORMATS)}.")
    return FORMATS[name]


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
        f"{path} has the extension {suffix or '(none)'!r}, but tables end in {_suffixes()}. "
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
    return found.name != "smap" or path.name.lower().endswith(smap.SUFFIX)


def _suffixes() -> str:
    return ", ".join(sorted({one.suffix for one in FORMATS.values()}))


def _csv(path: Path) -> Format:
    line = first_lines(path, 1)[0]
    if line.startswith(decode.CSV_MARK):
        return FORMATS["decode-csv"]
    header = header_of(line)
    for name, mark in (
        ("thunderstorm", thunderstorm.MARK),
        ("smap-csv", smap.MARK),
        ("challenge", challenge.MARK),
    ):
        if mark in header:
            return FORMATS[name]
    raise InputError(
        f"{path} has the header {line[:80]!r}, which is none of ThunderSTORM's (x [nm]), SMAP's "
        "(xnm), the SMLM challenge's (xnano) and DECODE's. Rename its columns to those of one."
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


def format_for(path: Path, name: str | None) -> Format:
    """Give the format in which a new file is to be written.

    Args:
        path: the new file.
        name: the format's name, or None to go by the suffix.

    Raises:
        InputError: the suffix is unknown, or is not the one of the format.
    """
    lower = path.name.lower()
    if name is not None:
        chosen = format_named(name)
        if not lower.endswith(chosen.suffix):
            raise InputError(
                f"{path.name} does not end in {chosen.suffix}, as files of the format {name} do; "
                f"call it {path.name.split('.')[0]}{chosen.suffix}."
            )
        return chosen
    fitting = next((one for one in FORMATS.values() if lower.endswith(one.suffix)), None)
    if fitting is None:
        raise InputError(
            f"{path.name} has no ending of a table: {_suffixes()}. SMAP opens only files whose "
            f"name ends in {smap.SUFFIX}."
        )
    return fitting


def read_localizations(path: Path, reading: Reading, name: str | None = None) -> Localizations:
    """Read a table of any format.

    Args:
        path: the file.
        reading: what the user says about it.
        name: the format's name, or None to recognise it.

    Raises:
        InputError: the file cannot be used, or something that is needed is not known.
    """
    one = format_of_file(path) if name is None else format_named(name)
    if not path.is_file():
        raise InputError(f"There is no table at {path} (seen from {Path.cwd()}).")
    found = one.read(path, reading)
    return found if found.provenance else replace(found, provenance={"read_from": path.name})


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
    one = format_for(path, name)
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
