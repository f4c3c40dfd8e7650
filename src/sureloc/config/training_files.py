"""Where recipes of training lie that people name, told without loading any library."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from sureloc.errors import RecipeError, did_you_mean
from sureloc.shipped import training_recipe_names


def training_recipe_text(kind: str, name_or_path: str | Path) -> tuple[str, str]:
    """Read the YAML of a recipe of training.

    Args:
        kind: what it trains, "phi" or "psi".
        name_or_path: the name of a shipped recipe, or the path of a YAML file.

    Returns:
        The text, and what to call it at the beginning of a sentence.

    Raises:
        RecipeError: there is no such recipe, or it cannot be read.
    """
    name, path = str(name_or_path), Path(name_or_path)
    names = training_recipe_names(kind)
    if name in names:
        shipped = resources.files("sureloc") / "recipes" / "train" / f"{kind}_{name}.yaml"
        return shipped.read_text(encoding="utf-8"), f"The recipe {kind} {name}"
    if not path.is_file():
        raise RecipeError(
            f"There is no training recipe {name!r} for {kind}{did_you_mean(name, names)}. Shipped: "
            f"{', '.join(names)}; or give the path of a YAML file."
        )
    try:
        return path.read_text(encoding="utf-8"), f"The recipe {path}"
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe {path} cannot be read: {error}.") from error
