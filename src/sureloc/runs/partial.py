"""The folder of a run that is not finished: begun, kept when the run is stopped, and gone on with.

`OUT.partial` lies beside the folder of results that it becomes. As soon as there is anything in it
that took time, it stays behind whatever stops the run, and `--resume` goes on from there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sureloc.errors import FinishedError, InputError, OutputError
from sureloc.io.lock import locked
from sureloc.io.output import advice, check_new_folder, partial_folder
from sureloc.io.run_folder import IDENTITY, RUN, check_not_stopped, check_place
from sureloc.runs.job import ASSUMPTIONS, PARTS, differences
from sureloc.runs.parts import force, to_disk

RESULT = "result"
FORMAT = 1


@dataclass(frozen=True)
class PartialRun:
    """The folder of a run that is not finished.

    Attributes:
        folder: the folder.
        out: what it becomes.
        identity: what results depend on (`sureloc.runs.job.identity_of`).
        provenance: what is remembered in the files; that of the first start, if it is resumed.
    """

    folder: Path
    out: Path
    identity: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def new_result(self) -> Path:
        """Give an empty folder for the results."""
        result = self.folder / RESULT
        if result.exists():
            shutil.rmtree(result)
        result.mkdir()
        return result

    def finish(self) -> None:
        """Make the results those of the run; the rest of the folder goes."""
        result = self.folder / RESULT
        to_disk(result)
        check_new_folder(self.out)  # another command may have written it meanwhile
        if self.out.exists():
            self.out.rmdir()
        result.rename(self.out)
        force(self.out.parent)
        shutil.rmtree(self.folder, ignore_errors=True)


def check_finished(out: Path, identity: Mapping[str, Any]) -> None:
    """Look at what a run to be resumed may have left: its results, if it was finished.

    Args:
        out: the folder of results.
        identity: what results depend on (`sureloc.runs.job.identity_of`). Versions may differ, as
            nothing is computed any more.

    Raises:
        FinishedError: this run was finished before.
        InputError: another run was.
    """
    if not (out / RUN).is_file():
        return
    try:
        record = dict(json.loads((out / RUN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{out / RUN} cannot be read, so that nobody knows which run was finished there "
            f"({error}). Give another folder."
        ) from error
    before = record.get("identity")
    if not isinstance(before, dict):
        raise InputError(
            f"{out} holds the results of another step than localize, which --resume cannot go on "
            "with. Give another folder."
        )
    now = json.loads(json.dumps(identity))
    before["versions"] = now["versions"]
    different = differences(now, before)
    if different:
        raise InputError(
            f"The run that was finished in {out} was another one: {'; '.join(different)}. Give "
            "what it was started with, or another folder."
        )
    # Left there if the run was killed after its last step but one.
    shutil.rmtree(partial_folder(out), ignore_errors=True)
    raise FinishedError(f"The run in {out} was finished before.")


@contextmanager
def open_partial(
    out: Path, identity: Mapping[str, Any], provenance: Mapping[str, Any], *, resume: bool
) -> Iterator[PartialRun]:
    """Begin a run or go on with one; errors in the block leave what took time, and nothing else.

    Args:
        out: the folder of results; missing parents are created.
        identity: what results depend on (`sureloc.runs.job.identity_of`).
        provenance: what to remember in the files, if this is the first start.
        resume: go on with a run that was stopped, if there is one.

    Raises:
        InputError: `out` cannot be written, another sureloc is working on it, or a run that was
            stopped is another one.
        OutputError: something could not be written.
    """
    check_place(out, resume=resume)
    place = out.resolve()
    folder = partial_folder(place)
    created = [p for p in (folder, *place.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(error, folder, place, kept=False) from error
    with locked(folder):
        check_not_stopped(out, resume=resume)  # another may have begun and stopped meanwhile
        begun = (folder / IDENTITY).exists()
        try:
            if begun:
                provenance = _same_run(folder, identity)
            else:
                (folder / PARTS).mkdir(exist_ok=True)
                _write_identity(folder, identity, provenance)
            yield PartialRun(folder, place, identity, provenance)
        except OSError as error:
            removed = not folder.exists()
            kept = _clean(folder, created, begun, error)
            if isinstance(error, OutputError) and not removed:
                raise
            if removed:
                raise OutputError(
                    f"{folder} was removed or renamed while a run worked in it, so that nothing of "
                    "the run is left. Start it again, and leave that folder alone until it is done."
                ) from error
            raise _not_written(error, folder, place, kept=kept) from error
        except BaseException as error:
            _clean(folder, created, begun, error)
            raise


def _not_written(error: OSError, folder: Path, place: Path, *, kept: bool) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(
        f"The results could not be written to {place}: {reason}. "
        + (
            f"What was done is kept in {folder}: {advice(error)} and go on by the same command "
            "with --resume."
            if kept
            else f"Nothing was left behind; {advice(error)}."
        )
    )


def _same_run(folder: Path, identity: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check that a broken-off run is the same; give the provenance of its first start."""
    try:
        before = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
        found, number = before["identity"], before["format"]
        provenance: Mapping[str, Any] = before["provenance"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} does not say which run was stopped there ({error}). Remove it to start anew."
        ) from error
    if number != FORMAT:
        raise InputError(
            f"{folder} was written by another version of sureloc (format {number}, this one writes "
            f"{FORMAT}). Go on with that version, or remove the folder to start anew."
        )
    # Through JSON, so that tuples and lists are the same.
    different = differences(json.loads(json.dumps(identity)), found)
    if different:
        raise InputError(
            f"The run that was stopped in {folder} was another one: {'; '.join(different)}. Give "
            "what it was started with, or remove that folder to start anew."
        )
    return provenance


def _write_identity(
    folder: Path, identity: Mapping[str, Any], provenance: Mapping[str, Any]
) -> None:
    content = {"format": FORMAT, "identity": identity, "provenance": provenance}
    temporary = folder / f"{IDENTITY}.part"
    temporary.write_text(json.dumps(content), encoding="utf-8")
    force(temporary)
    temporary.replace(folder / IDENTITY)
    force(folder)


def _clean(folder: Path, created: list[Path], begun: bool, error: BaseException) -> bool:
    """Remove the folder unless it holds something that took time; tell whether it was kept."""
    shutil.rmtree(folder / RESULT, ignore_errors=True)
    # What was learned serves the same command again, but not one whose input must be mended.
    learned = (folder / ASSUMPTIONS).exists() and not isinstance(error, InputError)
    if begun or learned or any((folder / PARTS).glob("[0-9]*")):
        return folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    for parent in created[1:]:
        with suppress(OSError):  # somebody else has put something there meanwhile
            parent.rmdir()
    return False
