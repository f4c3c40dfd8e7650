"""Networks for other ways of being uncertain, each trained with as much work as all others.

Work is counted in steps of phi on its recipe's tiles. Members of the ensemble share one training's
steps among them; phi and Psi take half each, a step of Psi counting as three of phi.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import torch

from sureloc.networks.dropout import DropoutPhi
from sureloc.networks.mixture import EmitterPhi
from sureloc.networks.phi import Phi
from sureloc.networks.weights import Networks
from sureloc.train.engine import Training, fit
from sureloc.train.export import assemble, load_best, phi_of_training
from sureloc.train.folder import CHECKPOINT, LOG, read_log
from sureloc.train.mixture import MixtureTraining
from sureloc.train.phi import PhiTraining
from sureloc.train.psi import PsiTraining
from sureloc.train.recipe import (
    DropoutPhiRecipe,
    FastPhiRecipe,
    MixtureTrainingRecipe,
    PhiTrainingRecipe,
    PsiTrainingRecipe,
    TrainingRecipe,
)

MEMBERS = 5
DROPOUT = 0.1
_TIMED_STEPS = 3
Plan = TypeVar("Plan", bound=TrainingRecipe)
Network = TypeVar("Network", bound=Phi)


@dataclass(frozen=True)
class RivalRecipes:
    """How each network is trained.

    Attributes:
        phi: with all the work.
        ensemble: each member with its share.
        dropout: phi with dropout.
        mixture: emitters with deviations of their own.
        half_phi, psi: phi and a Psi on it, with half of the work each.
    """

    phi: PhiTrainingRecipe
    ensemble: tuple[PhiTrainingRecipe, ...]
    dropout: PhiTrainingRecipe
    mixture: MixtureTrainingRecipe
    half_phi: PhiTrainingRecipe
    psi: PsiTrainingRecipe

    @classmethod
    def of(cls, phi: PhiTrainingRecipe, psi: PsiTrainingRecipe) -> RivalRecipes:
        """Give the recipes of all networks.

        Args:
            phi: the recipe that all share, with all the work.
            psi: with as many steps as half of the work allows.

        Raises:
            pydantic.ValidationError: the steps cannot be shared so that each ends with a
                validation.
        """
        steps, kind = phi.optimizer.steps, {"width", "dilations"}
        size = phi.network.model_dump(include=kind)
        shared = phi.model_dump(exclude={"kind", "network", "sums"})  # a likelihood has no sums
        return cls(
            phi,
            tuple(_changed(phi, k, steps // MEMBERS) for k in range(1, MEMBERS + 1)),
            phi.model_copy(
                update={"network": DropoutPhiRecipe(kind="dropout", dropout=DROPOUT, **size)}
            ),
            MixtureTrainingRecipe(network=FastPhiRecipe(kind="fast", **size), **shared),
            _changed(phi, MEMBERS + 1, steps // 2),
            psi,
        )

    def named(self) -> dict[str, TrainingRecipe]:
        """Give all recipes by the names of their folders, in the order in which they train."""
        members = {f"ensemble_{k}": recipe for k, recipe in enumerate(self.ensemble, 1)}
        return {
            "phi": self.phi,
            **members,
            "dropout": self.dropout,
            "mixture": self.mixture,
            "half_phi": self.half_phi,
            "psi": self.psi,
        }

    def fingerprint(self) -> str:
        """Give a short name of all of them together."""
        each = " ".join(recipe.fingerprint() for recipe in self.named().values())
        return hashlib.sha256(each.encode()).hexdigest()[:16]


def _changed(recipe: Plan, seed: int, steps: int) -> Plan:
    values = recipe.model_dump()
    values["optimizer"]["steps"] = steps
    return type(recipe).model_validate(values | {"seed": seed})


@dataclass(frozen=True)
class RivalNetworks:
    """What the recipes trained; see `RivalRecipes`."""

    phi: Phi
    ensemble: tuple[Phi, ...]
    dropout: DropoutPhi
    mixture: EmitterPhi
    whole: Networks


def rival_training(recipes: RivalRecipes, name: str, folder: Path) -> Training:
    """Set up one training, not yet begun.

    Args:
        recipes: of all networks.
        name: of `RivalRecipes.named`.
        folder: of all trainings; that of the phi on which Psi builds is done first, if need be.
    """
    recipe = recipes.named()[name]
    if isinstance(recipe, PhiTrainingRecipe):
        return PhiTraining(recipe)
    if isinstance(recipe, MixtureTrainingRecipe):
        return MixtureTraining(recipe)
    half = phi_of_training(recipes.half_phi, train_rival(recipes, "half_phi", folder))
    return PsiTraining(recipes.psi, half.network)


def train_rival(recipes: RivalRecipes, name: str, folder: Path) -> Path:
    """Train one network unless that is done, going on where it was stopped.

    Args:
        recipes, name, folder: see `rival_training`.

    Returns:
        The folder of this training.
    """
    own = folder / name
    if not _finished(own, recipes.named()[name]):
        resume = (own / CHECKPOINT).is_file()
        fit(rival_training(recipes, name, folder), own, resume=resume, device="cpu")
    return own


def core_seconds_a_step(training: Training) -> float:
    """Measure the processor's time of a step: tiles, loss and gradients."""
    training.loss(training.generator("warm up")).backward()  # type: ignore[no-untyped-call]
    begin = time.process_time()
    for number in range(_TIMED_STEPS):
        training.loss(training.generator("timed", number)).backward()  # type: ignore[no-untyped-call]
    return (time.process_time() - begin) / _TIMED_STEPS


def rival_networks(recipes: RivalRecipes, folder: Path) -> RivalNetworks:
    """Give all networks for inference, those that are missing trained first.

    Args:
        recipes: of all networks.
        folder: of all trainings.
    """
    where = {name: train_rival(recipes, name, folder) for name in recipes.named()}
    members = [
        cast(Phi, phi_of_training(recipe, where[f"ensemble_{k}"]).network)
        for k, recipe in enumerate(recipes.ensemble, 1)
    ]
    mixture = EmitterPhi(recipes.mixture.network.width, recipes.mixture.network.dilations)
    load_best(mixture, where["mixture"], recipes.mixture.fingerprint())
    half = phi_of_training(recipes.half_phi, where["half_phi"])
    name = f"rivals-{recipes.fingerprint()}"
    return RivalNetworks(
        _ready(cast(Phi, phi_of_training(recipes.phi, where["phi"]).network)),
        tuple(_ready(member) for member in members),
        _ready(cast(DropoutPhi, phi_of_training(recipes.dropout, where["dropout"]).network)),
        _ready(mixture),
        assemble(half, (recipes.psi, where["psi"]), name)[0],
    )


def _ready(network: Network) -> Network:
    network.requires_grad_(False).eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _finished(folder: Path, recipe: TrainingRecipe) -> bool:
    log = folder / LOG
    return log.is_file() and read_log(log)[-1]["step"] >= recipe.optimizer.steps
