"""The folder of a run: what its files are called, and whether it may be written.

Told without loading any library.
"""

from __future__ import annotations

from pathlib import Path

from sureloc.errors import InputError
from sureloc.io.lock import check_unlocked
from sureloc.io.output import check_new_folder, partial_folder

LOCALIZATIONS = "localizations.parquet"
THUNDERSTORM = "localizations.csv"
DRAWS = "draws.parquet"
IMAGES = "images.ome.zarr"
REPORT = "report.html"
RUN = "run.json"
CAMERA_FILE = "camera_file"  # in the record of a run: whole path of the camera's file
IDENTITY = "identity.json"  # of a run that is not finished


def check_place(out: Path, *, resume: bool) -> None:
    """Raise `InputError` unless a run may write `out`, or go on doing so.

    With `resume` a run may be finished already; `check_finished` looks at that.
    """
    place = out.resolve()
    if not (resume and (out / RUN).is_file()):
        check_new_folder(out)
    folder = partial_folder(place)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file and in the way. Give another name for {out}.")
    check_unlocked(folder)
    check_not_stopped(out, resume=resume)


def check_not_stopped(out: Path, *, resume: bool) -> None:
    """Raise `InputError` if a stopped run is in the way and it is not this one's to go on with."""
    folder = partial_folder(out.resolve())
    if not resume and (folder / IDENTITY).exists():
        raise InputError(
            f"A run that was to write {out} was stopped; what it had done is kept in {folder}. Go "
            "on with it by the same command with --resume, or remove that folder to start anew."
        )
