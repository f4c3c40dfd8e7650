"""Who may do the work of a run, told without loading any library (`sureloc.runs.execution`)."""

from __future__ import annotations

from importlib.util import find_spec

from sureloc.errors import InputError, did_you_mean

AUTO, THREADS, PROCESSES = "auto", "threads", "processes"
LOCAL = (AUTO, THREADS, PROCESSES)


def check_scheduler(scheduler: str) -> None:
    """Raise `InputError` unless work can be given to one of `LOCAL` or an address."""
    if scheduler in LOCAL:
        return
    if "://" not in scheduler:
        raise InputError(
            f"The scheduler is {scheduler!r}{did_you_mean(scheduler, LOCAL)}; give "
            "auto, threads, processes, or the address of a dask.distributed scheduler, such as "
            "tcp://10.0.0.1:8786."
        )
    if find_spec("distributed") is None:
        raise InputError(
            f"The scheduler {scheduler} needs the package distributed. Install it with: pip "
            "install 'sureloc[cluster]'"
        )
