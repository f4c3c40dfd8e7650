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


def _named(function: F) -> F:
    # Numba looks only at a function's own file to tell whether its cached code is stale, not at
    # the files of the functions it calls; a name that holds all sources' hash does.
    function.__qualname__ = f"{function.__qualname__}_{_fingerprint()}"
    return function


# Sums may be reordered, which is what lets the compiler use vector instructions. Not so "arcp": in
# single precision it divides by an estimate in vectors and exactly elsewhere, and which code runs
# may depend on where arrays lie.
_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz"},
}
_WITHOUT_COUNTING: dict[str, Any] = {**_OPTIONS, "_nrt": False}
# Ways to be called from Python would hold all of a function's code once more each.
_UNREACHED: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def compiled(function: F) -> F:
    """Compile `function` with Numba: cached on disk, without the GIL, IEEE NaN and infinities.

    Sums may be reordered, which changes results in the last digit only, and always in the same way
    on one machine.
    """
    return cast(F, numba.njit(**_OPTIONS)(_named(function)))


def filling(function: F) -> F:
    """Compile `function` likewise; it fills arrays that it is given and can make none.

    For that, Numba counts no references to arrays, which takes longer than the arithmetic of a
    small patch.
    """
    return cast(F, numba.njit(**_WITHOUT_COUNTING)(_named(function)))


def inner(function: F) -> F:
    """Compile `function` into a `filling` one that calls it, under the same restriction.

    Python itself cannot call it.
    """
    return cast(
        F, numba.njit(**_WITHOUT_COUNTING, **_UNREACHED, forceinline=True)(_named(function))
    )


def spliced(function: F) -> F:
    """Put the statements of `function` where an `inner` one calls it: it may give a view."""
    return cast(F, numba.njit(**_WITHOUT_COUNTING, inline="always")(_named(function)))
