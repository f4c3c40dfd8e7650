"""Coverage of compiled code: tests marked `interpreted` run once more with Numba switched off.

Coverage cannot look into machine code. What it says about `sureloc.compiled` comes from here; that
the compiled code is right is tested where it stands, in the ordinary run of the same tests.
"""

from __future__ import annotations

import os

import pytest

INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT") == "1"


@pytest.mark.interpreted
def test_numba_is_switched_off_by_the_environment_and_only_by_it():
    from sureloc.compiled.jit import compiled

    def twice(x: float) -> float:
        return 2 * x

    assert (compiled(twice) is twice) == INTERPRETED


@pytest.mark.skipif(INTERPRETED, reason="this is the process without Numba")
def test_marked_tests_pass_as_plain_python(run_python):
    done = run_python(
        *("-m", "pytest", "-q", "-m", "interpreted", "-p", "no:cacheprovider", "-p", "no:xdist"),
        NUMBA_DISABLE_JIT="1",
        PYTEST_ADDOPTS="",
    )
    assert " passed" in done.stdout
