"""A file that says which process works in a folder, so that no second one does.

The file is created only where there is none. One that a process of this computer left when it was
killed does not count; of processes elsewhere nobody here can tell, so their files do, until people
remove them. Told without loading any library.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sureloc.errors import InputError

LOCK = "lock.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes, and other calls of this one, out of a folder while the block runs.

    Args:
        folder: an existing folder; the file `LOCK` in it is gone after the block.

    Raises:
        InputError: another sureloc is working there.
        OSError: the file cannot be written.
    """
    check_unlocked(folder)
    path = folder / LOCK
    content = json.dumps(
        {
            "process": os.getpid(),
            "host": platform.node(),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "process_start": _process_start(os.getpid()),
        }
    )
    with suppress(FileNotFoundError):
        path.unlink()  # of a process that is no more
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        check_unlocked(folder)
        raise
    try:
        yield
    finally:
        with suppress(OSError):  # the folder became the results, or somebody has removed it
            if path.read_text(encoding="utf-8") == content:
                path.unlink()


def check_unlocked(folder: Path) -> None:
    """Raise `InputError` if another process, or another call of this one, works in a folder."""
    path = folder / LOCK
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        stated = dict(json.loads(text))
        process, host, started = int(stated["process"]), str(stated["host"]), stated["started"]
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"Another sureloc seems to be working in {folder}; its {LOCK} does not say which. Wait "
            f"for it, or give another folder. If none is running, remove {path}."
        ) from None
    here = host == platform.node()
    if here and not _runs(process, stated):
        return
    raise InputError(
        f"Another sureloc (process {process} on {host}, since {started}) is working on it: "
        f"{folder}. Wait for it, or give another folder. If it does not run any more"
        + ("" if here else ", which cannot be told from this computer")
        + f", remove {path}."
    )


def _runs(process: int, stated: dict[str, Any]) -> bool:
    """Tell whether a process of this computer runs, and not another one of the same number."""
    start = _process_start(process)
    if start is not None and stated.get("process_start") is not None:
        return bool(start == stated["process_start"])
    if sys.platform == "win32":
        return _runs_on_windows(process)
    try:
        os.kill(process, 0)  # asks only
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _process_start(process: int) -> str | None:
    """Give when a process began, as Linux counts, None where the system does not say it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return f"{boot} {stat.rpartition(')')[2].split()[19]}"


def _runs_on_windows(process: int) -> bool:
    if sys.platform == "win32":
        import ctypes

        query_limited, still_active, access_denied = 0x1000, 259, 5
        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(query_limited, False, process)
        if not handle:
            return bool(kernel.GetLastError() == access_denied)  # somebody else's
        code = ctypes.c_ulong()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return code.value == still_active
    return False
