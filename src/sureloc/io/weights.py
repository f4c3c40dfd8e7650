"""Weights as files, their card and the logs of their training beside them; phi from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from sureloc.config.training import load_training_recipe
from sureloc.io.output import new_file
from sureloc.networks.weight_files import check_phi, check_weights_name, only_file
from sureloc.networks.weights import Networks, load_weights, save_weights
from sureloc.shipped import shipped_weights
from sureloc.train.export import TrainedPhi, phi_of_training, phi_of_weights
from sureloc.train.folder import History, read_log, write_log
from sureloc.train.recipe import PhiTrainingRecipe

RECIPE = "recipe.yaml"


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
    check_weights_name(weights)
    named = {name: weights.with_name(_log_name(weights.stem, name)) for name in logs}
    card = weights.with_suffix(".json")
    with ExitStack() as stack:
        # The weights are entered last and so appear first: what fails leaves no card alone.
        for name, place in named.items():
            write_log(stack.enter_context(new_file(place)), logs[name])
        partial_card = stack.enter_context(new_file(card))
        partial = stack.enter_context(new_file(weights))
        save_weights(networks, partial, partial_card)
    return (weights, card, *named.values())


def read_phi(source: str | Path) -> TrainedPhi:
    """Read a trained phi, wherever it is kept.

    Args:
        source: a folder of `sureloc train phi`, a name of `shipped_weights`, or the path of a
            .safetensors file with its card and the log of its phi beside it.

    Returns:
        phi with its recipe and its log.

    Raises:
        InputError: `source` is none of these, or the log is missing.
        RecipeError: the recipe of a folder cannot be used.
        WeightsError: weights, card or recipe cannot be used.
    """
    check_phi(source)
    path = Path(source)
    if path.is_dir():
        return phi_of_training(load_training_recipe(PhiTrainingRecipe, path / RECIPE), path)
    return phi_of_weights(load_weights(source), read_log(_log_beside(source, "phi")))


def read_logs(source: str | Path) -> dict[str, History]:
    """Read the logs of the trainings that lie beside weights, by "phi" and "psi".

    Args:
        source: as `load_weights` takes it.
    """
    logs = {part: _log_beside(source, part) for part in ("phi", "psi")}
    return {part: read_log(log) for part, log in logs.items() if log.is_file()}


def _log_beside(source: str | Path, part: str) -> Traversable:
    """Give where the log of a part of weights lies."""
    if str(source) in shipped_weights():
        return resources.files("sureloc") / "weights" / _log_name(str(source), part)
    path = Path(source)
    path = only_file(path) if path.is_dir() else path
    return path.with_name(_log_name(path.stem, part))


def _log_name(weights: str, part: str) -> str:
    return f"{weights}_{part}_log.csv"
