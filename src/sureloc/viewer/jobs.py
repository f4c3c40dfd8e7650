"""One run in a thread of its own, watched and cancelled from elsewhere; no Qt."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from sureloc.errors import SurelocError

_LOG = logging.getLogger(__name__)


class Stage(Enum):
    """How far a job has come."""

    LEARNING = "learning from the movie"
    LOCALIZING = "localizing"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Cancelled(Exception):  # noqa: N818 - no error: somebody wanted it
    """The run was cancelled; it left nothing behind."""


class Result(Protocol):
    """What `sureloc.localize_file` returns, as far as it is needed here."""

    @property
    def rows(self) -> int:
        """Localizations."""
        ...

    @property
    def frames(self) -> int:
        """How many frames were looked at."""
        ...

    @property
    def seconds(self) -> float:
        """Wall time."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed."""
        ...

    @property
    def verdict(self) -> Any:
        """How far it can be trusted."""
        ...


Run = Callable[..., Result]


class Job:
    """A run of `sureloc.localize_file` in a thread, which leaves all its results or none.

    Attributes:
        total: frames to localize; 0 until it is known.
        done: frames localized.
        result: what the run returned, once it is done.
        message: why it failed, in words.
    """

    def __init__(self, arguments: Mapping[str, Any], run: Run | None = None) -> None:
        """Prepare a job.

        Args:
            arguments: for the run.
            run: what to do; `sureloc.localize_file` if None.
        """
        self._arguments = dict(arguments)
        self._run = run
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sureloc", daemon=True)
        self._end: Stage | None = None
        self._begun = False
        self._change = threading.Lock()
        self.total = 0
        self.done = 0
        self.result: Result | None = None
        self.message = ""

    @property
    def stage(self) -> Stage:
        """How far it has come."""
        if self._end is not None:
            return self._end
        return Stage.LOCALIZING if self.done else Stage.LEARNING

    @property
    def running(self) -> bool:
        """Whether its thread still works."""
        return self._end is None

    @property
    def stopping(self) -> bool:
        """Whether it was cancelled, but has not ended yet."""
        return self._stop.is_set() and self.running

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def cancel(self) -> None:
        """Ask the run to stop; returns at once. It stops before its next piece of work."""
        with self._change:
            self._stop.set()
            # What is loaded before a run begins leaves nothing, and nobody has to wait for it.
            if not self._begun and self._end is None:
                self._end = Stage.CANCELLED

    def wait(self, seconds: float) -> bool:
        """Wait until the thread has ended; give whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _pause(self) -> None:
        if self._stop.is_set():
            raise Cancelled

    @contextmanager
    def _bar(self, frames: int) -> Iterator[Callable[[], None]]:
        self.total = frames
        yield self._advance

    def _advance(self) -> None:
        self.done += 1
        self._pause()

    def _work(self) -> None:
        try:
            if self._run is None:
                from sureloc.runs.localization import localize_file

                self._run = localize_file
            with self._change:
                self._pause()
                self._begun = True
            self.result = self._run(**self._arguments, bar=self._bar, pause=self._pause)
            self._end = Stage.DONE
        except Cancelled:
            if self._begun:
                self._discard()
            self._end = Stage.CANCELLED
        except SurelocError as error:
            self.message = " ".join(str(error).split())
            self._end = Stage.FAILED
        except Exception as error:  # a thread has nobody above it who would say so
            _LOG.exception("sureloc met an error that it does not know")
            self.message = (
                f"sureloc met an error that it does not know ({type(error).__name__}: {error}). "
                "Please report it with the traceback in the terminal."
            )
            self._end = Stage.FAILED

    def _discard(self) -> None:
        """Remove what a stopped run keeps to be resumed: who cancels here wants nothing of it."""
        from sureloc.io.output import partial_folder

        if "out" in self._arguments:
            shutil.rmtree(
                partial_folder(Path(self._arguments["out"]).resolve()), ignore_errors=True
            )


def summary(result: Result) -> str:
    """Say what a run found, in two sentences."""
    return (
        f"{result.rows:,} localizations in {result.frames:,} frames, {result.seconds:.0f} s.\n"
        f"{result.verdict.sentence}"
    )
