"""What a command looks at before it loads the libraries that take seconds."""

from __future__ import annotations

from pathlib import Path


def check_inputs(
    movie: Path | None, camera: Path | None = None, source: Path | None = None
) -> None:
    """Raise `InputError` unless a movie, a camera file and a run or table are there, if given."""
    from sureloc.io.cameras import check_camera_exists
    from sureloc.io.movies import check_movie_exists
    from sureloc.io.sources import check_source_exists

    for path, check in (
        (source, check_source_exists),
        (movie, check_movie_exists),
        (camera, check_camera_exists),
    ):
        if path is not None:
            check(path)
