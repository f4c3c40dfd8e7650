"""White noise from one generator, or from one for each item so that batches do not matter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sureloc.errors import InputError

Generators = torch.Generator | Sequence[torch.Generator]


def white_noise(
    like: Float[Tensor, "items *shape"], generator: Generators
) -> Float[Tensor, "items *shape"]:
    """Draw N(0, I).

    Args:
        like: gives shape, type and device.
        generator: one for all, or one for each item: then an item's noise is the same whatever
            else is in the batch.

    Raises:
        InputError: the number of generators is not the number of items.
    """
    if isinstance(generator, torch.Generator):
        return _normal(tuple(like.shape), like, generator)
    if len(generator) != len(like):
        raise InputError(f"{len(generator)} generators came with {len(like)} items; give one each.")
    return torch.stack([_normal(tuple(like.shape[1:]), like, one) for one in generator])


def _normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator, device=generator.device, dtype=like.dtype)
    return noise.to(like.device)
