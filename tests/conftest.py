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


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A run of a small movie of molecules that shine for three frames: folder, movie, camera."""
    import tifffile
    from scipy import special

    from sureloc.report.localization import localize_file

    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(11)
    shape, number = (24, 24), 15

    def share(position: float) -> np.ndarray:
        edge = (np.arange(24)[:, None] + np.array([-0.5, 0.5]) - position) / 1.2
        return np.diff(special.ndtr(edge), axis=1)[:, 0]

    omega = np.full((number, *shape), 4.0)
    for first in range(0, number, 3):
        for k in range(4):  # one in each quarter, so that none overlap
            x, y = rng.uniform(3.5, 8.5, 2) + 12 * np.array(divmod(k, 2))
            omega[first : first + 3] += 900.0 * np.outer(share(y), share(x))
    electrons = rng.poisson(omega)
    adu = np.rint(100 + 2 * electrons + rng.normal(0, 3, electrons.shape)).astype(np.uint16)
    tifffile.imwrite(folder / "movie.tif", adu, photometric="minisblack")
    (folder / "camera.yaml").write_text(
        "offset_adu: 100\ngain_adu_per_e: 2.0\nvariance_adu2: 9.0\n", encoding="utf-8"
    )
    localize_file(
        folder / "movie.tif",
        folder / "run",
        camera=folder / "camera.yaml",
        sigma_px=1.2,
        pixel_nm=100.0,
        workers=1,
    )
    return folder / "run", folder / "movie.tif", folder / "camera.yaml"
