"""What a command looks at before it loads the libraries that take seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TrustCameraOption = Annotated[
    bool,
    typer.Option(
        "--trust-camera",
        help="Keep the camera's offset also where the movie's noise contradicts it.",
    ),
]


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


def check_trust(camera: Path | None, *, trust_camera: bool) -> None:
    """Raise `InputError` where a camera is to be trusted that was not given."""
    from sureloc.errors import InputError

    if trust_camera and camera is None:
        raise InputError(
            "--trust-camera keeps the offset of a camera that is given, and none is. Give its file "
            "with --camera, or leave out --trust-camera."
        )
