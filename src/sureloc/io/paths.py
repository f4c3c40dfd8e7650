"""Whether there is something at the paths that people give, told without loading any library."""

from __future__ import annotations

from pathlib import Path

from sureloc.errors import CameraError, InputError, MovieError
from sureloc.io.exchange.names import is_table_name
from sureloc.io.run_folder import LOCALIZATIONS


def check_movie_exists(path: Path) -> None:
    """Raise `MovieError` unless there is something at a movie's path: before long work."""
    if not path.exists():
        raise MovieError(
            f"There is no movie at {path} (seen from {Path.cwd()}). Check the spelling of the path."
        )
    take = "'sureloc render', 'drift', 'link', 'filter', 'resolution' and 'audit' take it"
    if (path / LOCALIZATIONS).is_file():
        raise MovieError(f"{path} is the folder of a run, no movie; {take}.")
    if path.is_file() and is_table_name(path):
        raise MovieError(f"{path} is a table by its name, no movie; {take}, and 'convert'.")
    _check_not_empty(path, MovieError, "Copy it again from where it was recorded.")


def check_camera_exists(path: Path) -> None:
    """Raise `CameraError` unless there is a file at a camera's path: before long work."""
    if not path.is_file():
        raise CameraError(
            f"There is no camera file at {path} (seen from {Path.cwd()}). Check the spelling, or "
            "leave the camera out to have it estimated from the movie."
        )
    _check_not_empty(
        path, CameraError, "Write offset_adu, gain_adu_per_e and variance_adu2 into it."
    )


def _check_not_empty(path: Path, error: type[InputError], next_step: str) -> None:
    if path.is_file() and path.stat().st_size == 0:
        raise error(f"{path} is empty: a file of 0 bytes. {next_step}")


def check_source_exists(path: Path) -> None:
    """Raise `InputError` unless there is something at the path of a run or table."""
    if not path.exists():
        raise InputError(
            f"There is no run or table at {path} (seen from {Path.cwd()}). "
            "Check the spelling of the path."
        )
