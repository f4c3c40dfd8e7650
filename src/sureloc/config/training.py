"""YAML recipes of training: shipped ones by name, the user's by path."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TypeVar

import yaml

from sureloc.config.recipes import check, read_mapping
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
    text, source = _text(model, name_or_path)
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


def _text(model: type[TrainingRecipe], name_or_path: str | Path) -> tuple[str, str]:
    path = Path(name_or_path)
    names = shipped_training_recipes(model)
    if str(name_or_path) in names:
        shipped = resources.files("sureloc") / "recipes" / "train"
        text = (shipped / f"{_kind(model)}_{name_or_path}.yaml").read_text(encoding="utf-8")
        return text, f"The recipe {_kind(model)} {name_or_path}"
    if not path.is_file():
        raise RecipeError(
            f"There is no training recipe {str(name_or_path)!r} for {_kind(model)}. Shipped: "
            f"{', '.join(names)}; or give the path of a YAML file."
        )
    try:
        return path.read_text(encoding="utf-8"), f"The recipe {path}"
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe {path} cannot be read: {error}.") from error
