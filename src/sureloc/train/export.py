"""From trained networks, in folders of trainings or in weights, to one file of weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from sureloc.errors import InputError, RecipeError, WeightsError
from sureloc.networks.phi import PhiNetwork
from sureloc.networks.weights import (
    Card,
    Networks,
    build_networks,
)
from sureloc.train.folder import (
    BEST,
    CHECKPOINT,
    LOG,
    History,
    best_row,
    read_checkpoint,
    read_log,
)
from sureloc.train.recipe import (
    DropoutPhiRecipe,
    PhiTrainingRecipe,
    PsiTrainingRecipe,
    TrainingRecipe,
    new_phi,
)

Plan = TypeVar("Plan", bound=TrainingRecipe)


@dataclass(frozen=True)
class TrainedPhi:
    """A phi that Psi can build on, and how it came to be.

    Attributes:
        recipe: how it was trained.
        network: phi with its best averaged weights.
        log: one row of numbers for each validation.
    """

    recipe: PhiTrainingRecipe
    network: PhiNetwork
    log: History


def make_card(
    phi: PhiTrainingRecipe, psi: PsiTrainingRecipe, name: str, description: str = ""
) -> Card:
    """Give the card of networks that these recipes train.

    Raises:
        RecipeError: weights cannot hold this phi, or their kernels differ.
    """
    if isinstance(phi.network, DropoutPhiRecipe):
        raise RecipeError(
            "Weights cannot hold a phi of kind 'dropout'; use one of kind fast or paper, such as "
            "the recipe default."
        )
    if phi.kernel_sigma_fine_px != psi.kernel_sigma_fine_px:
        raise RecipeError(
            f"kernel_sigma_fine_px is {phi.kernel_sigma_fine_px} for phi and "
            f"{psi.kernel_sigma_fine_px} for psi; both must be the same."
        )
    return Card(
        name=name,
        description=description,
        phi=phi.network.card(),
        psi=psi.network.card(),
        kernel_sigma_fine_px=psi.kernel_sigma_fine_px,
        levels=psi.noise.card(),
        draws=psi.objective.card(psi.data),
    )


def phi_of_training(recipe: PhiTrainingRecipe, folder: Path) -> TrainedPhi:
    """Take the phi that a folder of `sureloc train phi` holds.

    Args:
        recipe: the one it was trained by.
        folder: where its best averaged weights and its log are.

    Raises:
        WeightsError: the weights are missing, broken, or of another recipe.
        InputError: the log is missing or cannot be read.
    """
    phi = new_phi(recipe.network)
    load_best(phi, folder, recipe.fingerprint())
    return TrainedPhi(recipe, phi, read_log(folder / LOG))


def phi_of_weights(networks: Networks, log: History) -> TrainedPhi:
    """Take the phi of weights, whose recipe is in their card.

    Args:
        networks: the weights.
        log: of its training, which lies beside them.

    Raises:
        WeightsError: the card does not tell its recipe, or the recipe is not that of this phi.
    """
    card = networks.card
    recipe = recipe_in_card(card, "phi", PhiTrainingRecipe)
    network = None if isinstance(recipe.network, DropoutPhiRecipe) else recipe.network.card()
    if (network, recipe.kernel_sigma_fine_px) != (card.phi, card.kernel_sigma_fine_px):
        raise WeightsError(
            f"The card of the weights {card.name} describes another phi than its recipe in "
            "training.phi. Take file and card from the same export."
        )
    return TrainedPhi(recipe, networks.phi, log)


def recipe_in_card(card: Card, part: str, model: type[Plan]) -> Plan:
    """Give the recipe that a card holds for "phi" or "psi".

    Raises:
        WeightsError: the card holds none, or one that cannot be used.
    """
    try:
        return model.model_validate(card.training[part]["recipe"])
    except (KeyError, TypeError, ValidationError) as error:
        raise WeightsError(
            f"The card of the weights {card.name} does not tell how its {part} was trained: "
            f"training.{part}.recipe is missing or cannot be used. Take weights that `sureloc "
            "train export` wrote."
        ) from error


def assemble(
    phi: TrainedPhi,
    psi: tuple[PsiTrainingRecipe, Path],
    name: str,
    description: str = "",
) -> tuple[Networks, dict[str, History]]:
    """Put two trained networks together.

    Args:
        phi: see `phi_of_training` and `phi_of_weights`.
        psi: recipe and training folder.
        name, description: for the card.

    Returns:
        The networks with their card, and the log of each training by "phi" and "psi".

    Raises:
        RecipeError: the recipes do not go together, or Psi was trained on another phi.
        WeightsError: weights are missing, broken, or of another recipe.
        InputError: a log or the checkpoint of Psi is missing or cannot be read.
    """
    logs = {"phi": phi.log, "psi": read_log(psi[1] / LOG)}
    card = make_card(phi.recipe, psi[0], name, description)
    card = card.model_copy(
        update={
            "training": {
                part: _provenance(recipe, logs[part])
                for part, recipe in (("phi", phi.recipe), ("psi", psi[0]))
            },
            "metrics": {part: best_row(log) for part, log in logs.items()},
        }
    )
    networks = build_networks(card)
    networks.phi.load_state_dict(phi.network.state_dict())
    load_best(networks.psi, psi[1], psi[0].fingerprint())
    _check_same_phi(networks.phi, psi[1])
    return networks, logs


def _provenance(recipe: PhiTrainingRecipe | PsiTrainingRecipe, log: History) -> dict[str, Any]:
    return {
        "recipe": recipe.model_dump(mode="json"),
        "fingerprint": recipe.fingerprint(),
        "steps": int(best_row(log)["step"]),
        "minutes": log[-1].get("minutes"),
    }


def load_best(network: nn.Module, folder: Path, fingerprint: str) -> None:
    """Fill a network with the best averaged weights of a training.

    Args:
        network: of the training's kind and size.
        folder: of the training.
        fingerprint: of its recipe.

    Raises:
        WeightsError: the weights are missing, broken, or of another recipe.
    """
    path = folder / BEST
    try:
        state, found = load_file(path), _recipe_of(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"The weights {path} cannot be read: {error}. Give the folder of a training."
        ) from error
    if found != fingerprint:
        raise WeightsError(
            f"The weights {path} were made by another recipe (fingerprint {found}, this one is "
            f"{fingerprint}). Take the recipe.yaml and the weights of one folder."
        )
    network.load_state_dict(state)


def _recipe_of(path: Path) -> str | None:
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("recipe")


def _check_same_phi(phi: nn.Module, folder: Path) -> None:
    path = folder / CHECKPOINT
    if not path.is_file():
        raise InputError(f"There is no {CHECKPOINT} in {folder}, which tells its phi.")
    arrays = {f"phi.{name}": value for name, value in phi.state_dict().items()}
    name = read_checkpoint(path).differing(arrays)
    if name is not None:
        raise RecipeError(
            f"The Psi in {folder} was trained on another phi: {name} differs. Give the folder of "
            "the phi it was trained on."
        )
