"""What formats of tables are called and how their files end, told without loading any library."""

from __future__ import annotations

from pathlib import Path

from sureloc.errors import InputError, did_you_mean

# The first format of a suffix is the one that is written unless another is asked for.
SUFFIXES = {
    "sureloc": ".parquet",
    "thunderstorm": ".csv",
    "smap-csv": ".csv",
    "challenge": ".csv",
    "decode-csv": ".csv",
    "picasso": ".hdf5",
    "decode": ".h5",
    "smap": "_sml.mat",
}


def check_format(name: str) -> None:
    """Raise `InputError` unless there is a format of that name."""
    if name not in SUFFIXES:
        raise InputError(
            f"There is no format {name!r}{did_you_mean(name, SUFFIXES)}; there are "
            f"{', '.join(SUFFIXES)}."
        )


def is_table_name(path: Path) -> bool:
    """Tell whether a file's name ends as those of tables do."""
    return path.name.lower().endswith(tuple(SUFFIXES.values()))


def format_to_write(path: Path, name: str | None = None) -> str:
    """Give the name of the format in which a new file is to be written.

    Args:
        path: the new file.
        name: the format's name, or None to go by the suffix.

    Raises:
        InputError: the suffix is unknown, or is not the one of the format.
    """
    lower = path.name.lower()
    if name is not None:
        check_format(name)
        if not lower.endswith(SUFFIXES[name]):
            raise InputError(
                f"{path.name} does not end in {SUFFIXES[name]}, as files of the format {name} do; "
                f"call it {path.name.split('.')[0]}{SUFFIXES[name]}."
            )
        return name
    fitting = next((one for one, suffix in SUFFIXES.items() if lower.endswith(suffix)), None)
    if fitting is None:
        raise InputError(
            f"{path.name} has no ending of a table: {all_suffixes()}. SMAP opens only files whose "
            f"name ends in {SUFFIXES['smap']}."
        )
    return fitting


def all_suffixes() -> str:
    """Give the suffixes of all tables, for messages."""
    return ", ".join(sorted(set(SUFFIXES.values())))
