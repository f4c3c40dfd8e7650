"""Who does the work: threads or processes of this machine, or a cluster through dask.distributed.

All do the same units and write the same parts. A cluster's workers write them themselves, into the
run's folder, which they must see under the same name as this machine, like the movie.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing.synchronize import Event as EventOfProcesses
from pathlib import Path
from threading import Event, Lock

import torch
from threadpoolctl import threadpool_limits

from sureloc.errors import InputError, OutputError, SurelocError
from sureloc.io.output import advice
from sureloc.localize.movie import one_thread_each
from sureloc.localize.units import Unit
from sureloc.runs.job import Job, open_job
from sureloc.runs.parts import part_folder
from sureloc.runs.scheduler import AUTO, PROCESSES, THREADS

CONNECT_S = 30.0
MANY_REGIONS = 4000  # of all frames: half a minute if sparse; processes take seconds to begin
LATE_S = 60.0  # files that another machine wrote may be seen so much later over a network
_one_by_one = Lock()


def do_units(
    job: Job,
    todo: Sequence[Unit],
    scheduler: str,
    progress: Callable[[], None],
    say: Callable[[str], None],
) -> None:
    """Do the work on units and write their parts.

    Args:
        job: the run, written (`sureloc.runs.job.write_job`).
        todo: units that have no parts yet.
        scheduler: "threads", "processes", "auto" for what is faster of them, or the address of a
            dask.distributed scheduler.
        progress: called once for each frame's worth of work.
        say: tells people something, such as where a cluster can be watched.

    Raises:
        InputError: the scheduler does not answer.
        OutputError: a worker was lost, or a part could not be written.
    """
    bar = _Frames(progress)
    if scheduler == AUTO:
        scheduler = _faster(job, todo)
    if scheduler == THREADS:
        _in_threads(job, todo, bar)
    elif scheduler == PROCESSES:
        _in_processes(job, todo, bar)
    else:
        _on_cluster(job, todo, scheduler, bar, say)


def _faster(job: Job, todo: Sequence[Unit]) -> str:
    """Tell whether threads or processes are faster.

    Threads begin at once, but wait for one another in the part of sparse frames that is Python.
    Processes would have to share a GPU.
    """
    regions = sum(_frames(unit) * (unit.regions[1] - unit.regions[0]) for unit in todo)
    alone = job.options.workers == 1 or job.networks.device.type != "cpu"
    return THREADS if alone or regions < MANY_REGIONS else PROCESSES


class _Frames:
    """Turn shares of frames, done in any order, into calls for whole frames."""

    def __init__(self, progress: Callable[[], None]) -> None:
        self._progress, self._lock = progress, Lock()
        self._done, self._told = 0.0, 0

    def add(self, share: float) -> None:
        with self._lock:
            self._done += share
            while self._told < math.floor(self._done + 1e-6):
                self._told += 1
                self._progress()


class _StoppedError(Exception):
    """Another worker failed, or somebody pressed Ctrl-C."""


def _in_threads(job: Job, todo: Sequence[Unit], bar: _Frames) -> None:
    stopped = Event()

    def one(unit: Unit) -> None:
        def after_a_frame() -> None:
            bar.add(unit.share)
            if stopped.is_set():
                raise _StoppedError

        if stopped.is_set():
            return
        try:
            job.do(unit, after_a_frame)
        except BaseException:
            # At once, before this thread takes its next unit.
            stopped.set()
            raise

    if job.options.workers == 1:
        for unit in todo:
            one(unit)
        return
    with (
        one_thread_each(),
        ThreadPoolExecutor(
            job.options.workers, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool,
    ):
        try:
            _drain({pool.submit(one, unit): unit for unit in todo}, lambda _unit: None)
        except BaseException:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _in_processes(job: Job, todo: Sequence[Unit], bar: _Frames) -> None:
    # Spawned: forked processes would inherit locks that threads of this one hold.
    context = multiprocessing.get_context("spawn")
    stopped, number = context.Event(), min(job.options.workers, max(len(todo), 1))
    with ProcessPoolExecutor(number, context, _begin_process, (stopped,)) as pool:
        try:
            futures = {
                pool.submit(work_on_unit, str(job.folder), _token(job), unit.number): unit
                for unit in todo
            }
            _drain(futures, lambda unit: bar.add(unit.share * _frames(unit)))
        except BrokenProcessPool as error:
            raise OutputError(
                "A worker process was killed, perhaps because memory ran out. What was done is "
                f"kept in {job.folder}: go on by the same command with --resume, and fewer workers."
            ) from error
        except BaseException:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _begin_process(stopped: EventOfProcesses) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that gives out the work."""
    global _is_stopped
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _is_stopped = stopped.is_set


def _not_stopped() -> bool:
    return False


_is_stopped: Callable[[], bool] = _not_stopped


def _drain(futures: dict[Future[None], Unit], done: Callable[[Unit], None]) -> None:
    """Wait for all; the first error that is no consequence of another ends it."""
    waiting = set(futures)
    while waiting:
        finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            future.result()
            done(futures[future])


def _frames(unit: Unit) -> int:
    return unit.frames[1] - unit.frames[0]


def _token(job: Job) -> str:
    """Name a job in a worker's memory: another run in the same folder is another job."""
    return str((job.folder / "job.json").stat().st_mtime_ns)


def work_on_unit(folder: str, token: str, number: int) -> None:
    """Do one unit of the run in a folder; what worker processes are asked to do.

    Args:
        folder: of the run.
        token: tells runs that used one folder after the other apart.
        number: of the unit.

    Raises:
        SurelocError: the job cannot be opened from here, or the part cannot be written.
    """
    with _one_by_one:
        job = _opened(folder, token)
    unit = job.units[number]
    if part_folder(job.parts, unit).exists():
        return

    def after_a_frame() -> None:
        if _is_stopped():
            raise _StoppedError

    try:
        job.do(unit, after_a_frame)
    except OSError as error:
        if isinstance(error, SurelocError):
            raise
        raise OutputError(
            f"A worker could not write {unit.name} to {job.folder}: {error.strerror or error}. "
            f"What was done is kept there: {advice(error)} and go on by the same command with "
            "--resume."
        ) from error


@lru_cache(maxsize=2)
def _opened(folder: str, _token: str) -> Job:
    limit_threads()
    return open_job(Path(folder))


def limit_threads() -> None:
    """Keep libraries from starting threads of their own in a process that works for us."""
    torch.set_num_threads(1)
    threadpool_limits(1)


def _on_cluster(
    job: Job, todo: Sequence[Unit], address: str, bar: _Frames, say: Callable[[str], None]
) -> None:
    from distributed import Client, as_completed

    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"No scheduler answers at {address} within {CONNECT_S:.0f} s. Check the address that "
            "`dask scheduler` printed, and that this machine can reach it."
        ) from error
    with client, client.as_current():
        say(f"{len(todo):,} units of work go to {address}; watch them at {client.dashboard_link}")
        token = _token(job)
        futures = {
            client.submit(
                work_on_unit,
                str(job.folder),
                token,
                unit.number,
                key=f"sureloc-{job.folder.name}-{token}-{unit.number}",
                pure=False,
            ): unit
            for unit in todo
        }
        try:
            for future in as_completed(list(futures)):
                unit = futures[future]
                _raise_for(future.exception(), unit, job.folder)
                bar.add(unit.share * _frames(unit))
        finally:
            client.cancel(list(futures))
    _wait_for_parts(job, todo)


def _raise_for(error: BaseException | None, unit: Unit, folder: Path) -> None:
    from distributed.scheduler import KilledWorker

    if error is None:
        return
    if isinstance(error, KilledWorker):
        raise OutputError(
            f"Several workers died while they worked on {unit.name}, perhaps because memory ran "
            f"out. What was done is kept in {folder}: go on by the same command with --resume and "
            "workers of more memory."
        ) from error
    raise error


def _wait_for_parts(job: Job, units: Iterable[Unit]) -> None:
    """Wait until this machine sees what others wrote."""
    end = time.monotonic() + LATE_S
    missing = [unit for unit in units if not part_folder(job.parts, unit).exists()]
    while missing and time.monotonic() < end:
        time.sleep(0.5)
        list(job.parts.iterdir())  # makes network file systems look again
        missing = [unit for unit in missing if not part_folder(job.parts, unit).exists()]
    if missing:
        raise OutputError(
            f"The workers say that they are done, but {missing[0].name} and {len(missing) - 1} "
            f"more are not in {job.parts}. All workers must see that folder under this name."
        )
