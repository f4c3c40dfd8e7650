"""YAML recipes of training: shipped ones by name, the user's by path."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml

from sureloc.config.recipes import check, read_mapping
from sureloc.config.training_files import training_recipe_text
from sureloc.errors import RecipeError
from sureloc.shipped import training_recipe_names
from sureloc.train.recipe import PhiTrainingRecipe, TrainingRecipe

Plan = TypeVar("Plan", bound=TrainingRecipe)


def shipped_training_recipes(model: type[TrainingRecipe]) -> tuple[str, ...]:
    """Give the names of the shipped recipes of one kind, such as default and smoke."""
    return training_recipe_names(_kind(model))


def load_training_recipe(model: type[Plan], name_or_path: str | Path) -> Plan:
    """Read how a network is trained.

    Args:
        model: `sureloc.train.recipe.PhiTrainingRecipe` or `PsiTrainingRecipe`.
        name_or_path: the name of a shipped recipe, or the path of a YAML file.

    Raises:
        RecipeError: there is no such recipe, it is not YAML, or a key or value is impossible.
    """
    text, source = training_recipe_text(_kind(model), name_or_path)
    mapping = read_mapping(text, source)
    wanted, found = _kind(model), mapping.get("kind", _kind(model))
    if found != wanted:
        raise RecipeError(
            f"{source} trains {found!r}, not {wanted}. Use `sureloc train {found}`, or another "
            f"recipe: {', '.join(shipped_training_recipes(model))}."
        )
    return check(model, mapping, source)


def training_recipe_yaml(recipe: TrainingRecipe) -> str:
    """Write a recipe as YAML with every default filled in; `load_training_recipe` reads it."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _kind(model: type[TrainingRecipe]) -> str:
    return "phi" if issubclass(model, PhiTrainingRecipe) else "psi"
