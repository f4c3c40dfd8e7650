"""Weights as files: the networks, their card, and the logs of their training beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from sureloc.errors import InputError
from sureloc.io.output import new_file
from sureloc.networks.weights import Networks, save_weights
from sureloc.train.engine import write_log


def write_weights(
    networks: Networks, logs: Mapping[str, Sequence[Mapping[str, float]]], path: str | Path
) -> tuple[Path, ...]:
    """Write networks as `path`, their card as .json, and each log as `<stem>_<name>_log.csv`.

    Args:
        networks: what to write.
        logs: rows of numbers, one for each validation, by the network's name.
        path: new .safetensors file.

    Returns:
        The files, the weights first.

    Raises:
        InputError: `path` is no .safetensors file, or one of the files exists already.
        OutputError: something could not be written; nothing is left of it.
    """
    weights = Path(path)
    if weights.suffix != ".safetensors":
        raise InputError(f"{weights} is no name for weights; it must end in .safetensors.")
    named = {name: weights.with_name(f"{weights.stem}_{name}_log.csv") for name in logs}
    card = weights.with_suffix(".json")
    with ExitStack() as stack:
        # The weights are entered last and so appear first: what fails leaves no card alone.
        for name, place in named.items():
            write_log(stack.enter_context(new_file(place)), logs[name])
        partial_card = stack.enter_context(new_file(card))
        partial = stack.enter_context(new_file(weights))
        save_weights(networks, partial, partial_card)
    return (weights, card, *named.values())
