"""What all tests share: checked shapes, few threads, seeded randomness, third-party movies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Before numpy and torch are first imported, which is when they read it. Tests run side by side,
# a process for each core; and sums in one thread come out the same on every machine.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]

# Shapes that are documented are checked while testing, and free in use. Not sureloc.compiled:
# Numba must see those functions as they are written.
_CHECKED = ("sureloc.physics", "sureloc.diffusion", "sureloc.networks", "sureloc.scoring")
install_import_hook(_CHECKED, "beartype.beartype")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the third-party movies; skips where it is absent."""
    folder = Path(os.environ.get("SURELOC_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(
            f"the third-party movies are not in {folder}; set SURELOC_SHARED_DATA to their folder"
        )
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """NumPy generator, the same in every run."""
    return np.random.default_rng(20_240_607)


@pytest.fixture
def torch_rng():
    """Torch generator on the CPU, the same in every run."""
    import torch

    return torch.Generator().manual_seed(20_240_607)


@pytest.fixture
def sureloc(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process; give its exit code, and what it printed and complained."""

    def run(*words: object) -> tuple[int, str, str]:
        from sureloc.cli.app import main

        monkeypatch.setattr(sys, "argv", ["sureloc", *map(str, words)])
        with pytest.raises(SystemExit) as leaving:
            main()
        printed = capsys.readouterr()
        return leaving.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a Python process with the given arguments and extra environment; it must succeed.

    Coverage looks into it too (`patch = subprocess` in pyproject.toml).
    """

    def run(*arguments: str, timeout_s: float = 300, **environment: str):
        done = subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done

    return run
