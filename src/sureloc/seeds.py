"""Random streams named by what they are for, so that results do not depend on batching.

Every stream is addressed by the user's seed and a path such as ``("noise", frame)``. Two
different paths give independent streams; the same path always gives the same one, in whatever
order, chunk or process it is asked for.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def seed_sequence(seed: int, *path: int | str) -> np.random.SeedSequence:
    """Give the seed sequence of the stream that `path` names.

    Args:
        seed: the user's seed, 0 or larger.
        path: names and indices (0 or larger) that address the stream.

    Returns:
        A `numpy.random.SeedSequence`, independent between different paths.
    """
    digest = hashlib.sha256(repr((seed, path)).encode()).digest()
    return np.random.SeedSequence(int.from_bytes(digest[:16], "little"))


def numpy_generator(seed: int, *path: int | str) -> np.random.Generator:
    """Give a NumPy generator for the stream that `path` names (see `seed_sequence`)."""
    return np.random.Generator(np.random.PCG64(seed_sequence(seed, *path)))


def torch_generator(
    seed: int, *path: int | str, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Give a torch generator on `device` for the stream that `path` names."""
    import torch

    state = int(seed_sequence(seed, *path).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator(device=device).manual_seed(state)
