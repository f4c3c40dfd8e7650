"""The one way in which sureloc compiles an inner loop."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


@cache
def _fingerprint() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def compiled(function: F) -> F:
    """Compile `function` with Numba: cached on disk, without the GIL, IEEE NaN and infinities.

    Sums may be reordered (that is what lets the compiler use vector instructions), which changes
    results in the last digit only, and always in the same way on one machine.
    """
    # Numba looks only at a function's own file to tell whether its cached code is stale, not at
    # the files of the functions it calls; a name that holds all sources' hash does.
    function.__qualname__ = f"{function.__qualname__}_{_fingerprint()}"
    decorator = numba.njit(
        cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"}
    )
    return cast(F, decorator(function))
