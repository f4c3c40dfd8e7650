"""The first run after an installation, which compiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sureloc.compiled.chain import fill_states

NOTICE = (
    "This is the first run of this version here: its inner loops are compiled, which takes a "
    "minute or two and is kept for the next runs."
)


def say_if_compiling(say: Callable[[str], None]) -> None:
    """Say `NOTICE` where the chains have not been compiled before."""
    if not kept_on_disk(fill_states):
        say(NOTICE)


def kept_on_disk(function: Callable[..., Any]) -> bool:
    """Tell whether Numba has kept a compiled function; also where it compiles nothing.

    Args:
        function: what `numba.njit(cache=True)` gave, or the plain function where compiling is
            switched off.
    """
    stats = getattr(function, "stats", None)
    if stats is None or stats.cache_path is None:
        return stats is None
    name = getattr(function, "py_func").__qualname__  # noqa: B009 - not known of a Callable
    return any(Path(stats.cache_path).glob(f"*.{name}-*.nbi"))
