"""Results that appear whole or not at all.

Files are written under a temporary name beside their place and renamed at the end. Whatever goes
wrong before, a full disk, an error or Ctrl-C, removes what was written.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sureloc.errors import InputError, OutputError


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` when the block ends without an error.

    Args:
        path: the folder to create; it may exist if it is empty. Missing parents are created.

    Raises:
        InputError: `path` is a file, or a folder that is not empty.
        OutputError: something could not be written; nothing is left of it.
    """
    place = Path(path).resolve()
    check_new_folder(place)
    with _whole_or_nothing(place) as partial:
        partial.mkdir()
        yield partial
        check_new_folder(place)  # another command may have finished meanwhile
        if place.exists():
            place.rmdir()
        partial.rename(place)


@contextmanager
def new_file(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary file name that becomes `path` when the block ends without an error.

    Args:
        path: the file to create. Missing parents are created.
        replace: an existing file may be replaced; it stays as it is until the new one is whole.

    Raises:
        InputError: `path` exists and may not be replaced, or is a folder.
        OutputError: something could not be written; nothing is left of it.
    """
    place = Path(path).resolve()
    if place.is_dir() or not replace:
        check_new_file(path)
    with _whole_or_nothing(place) as partial:
        yield partial
        if replace:
            partial.replace(place)
        else:
            _take_free_place(partial, place)


def check_new_file(path: str | Path) -> None:
    """Raise `InputError` unless a result can go to the file `path`: nothing is there."""
    if Path(path).exists():
        raise InputError(f"The output file {path} exists already. Give another name, or remove it.")


def check_new_folder(path: str | Path) -> None:
    """Raise `InputError` unless results can go to the folder `path`: it is missing or empty."""
    place = Path(path)
    if place.exists() and not place.is_dir():
        raise InputError(f"The output folder {path} is a file. Give the name of a new folder.")
    if place.is_dir() and any(place.iterdir()):
        raise InputError(
            f"The output folder {path} exists and is not empty. Give the name of a new folder, or "
            "empty this one; sureloc overwrites nothing."
        )


def advice(error: OSError) -> str:
    """Give the next step for somebody whose results could not be written, a clause."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "give a place where you may write"
    if error.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
        return "see that nothing else writes, moves or removes files there"
    return "free some space, or give a place where you may write"


def partial_folder(out: Path) -> Path:
    """Give where a run that is to write the folder `out` keeps what it has, to be gone on with."""
    return out.with_name(f"{out.name}.partial")


@contextmanager
def _whole_or_nothing(place: Path) -> Iterator[Path]:
    # The suffix stays last, as writers look at it.
    token = secrets.token_hex(4)
    partial = place.with_name(f".{place.stem}.partial-{token}{place.suffix}")
    created: list[Path] = []
    try:
        created = _make_parents(place)
        yield partial
    except OSError as error:
        _remove(partial, created)
        if isinstance(error, OutputError):
            raise
        reason = error.strerror or str(error)
        raise OutputError(
            f"The results could not be written to {place}: {reason}. Nothing was left behind; "
            f"{advice(error)}."
        ) from error
    except BaseException:
        _remove(partial, created)
        raise


def _take_free_place(partial: Path, place: Path) -> None:
    """Give a file its name, unless another command has written a file of this name meanwhile."""
    try:
        os.link(partial, place)  # unlike a rename it never replaces anything
    except FileExistsError:
        check_new_file(place)
        raise
    except OSError:  # a file system without such links
        check_new_file(place)
        partial.rename(place)
    else:
        partial.unlink()


def _make_parents(place: Path) -> list[Path]:
    """Create the missing parents of a path; give them, innermost first."""
    missing = [parent for parent in place.parents if not parent.exists()]
    place.parent.mkdir(parents=True, exist_ok=True)
    return missing


def _remove(partial: Path, created: list[Path]) -> None:
    if partial.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
    else:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    for parent in created:
        with suppress(OSError):  # somebody else has put something there meanwhile
            parent.rmdir()
