"""Whether there is something at the paths that people give, told without loading any library."""

from __future__ import annotations

from pathlib import Path

from sureloc.errors import CameraError, InputError, MovieError


def check_movie_exists(path: Path) -> None:
    """Raise `MovieError` unless there is something at a movie's path: before long work."""
    if not path.exists():
        raise MovieError(
            f"There is no movie at {path} (seen from {Path.cwd()}). Check the spelling of the path."
        )


def check_camera_exists(path: Path) -> None:
    """Raise `CameraError` unless there is a file at a camera's path: before long work."""
    if not path.is_file():
        raise CameraError(
            f"There is no camera file at {path} (seen from {Path.cwd()}). Check the spelling, or "
            "leave the camera out to have it estimated from the movie."
        )


def check_source_exists(path: Path) -> None:
    """Raise `InputError` unless there is something at the path of a run or table."""
    if not path.exists():
        raise InputError(
            f"There is no run or table at {path} (seen from {Path.cwd()}). "
            "Check the spelling of the path."
        )
