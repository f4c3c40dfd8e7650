"""YAML recipes: shipped ones by name, the user's by path, single values replaced on the way in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from sureloc.errors import RecipeError, did_you_mean
from sureloc.shipped import recipe_names
from sureloc.simulate.recipe import Recipe

Model = TypeVar("Model", bound=BaseModel)
Location = Sequence[int | str]


def shipped_recipes() -> dict[str, str]:
    """Give the names of the scenes that come with sureloc and their one-sentence descriptions."""
    return {name: load_recipe(name).description for name in recipe_names()}


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe of a simulated movie.

    Args:
        name_or_path: the name of a shipped recipe, or the path of a YAML file.
        overrides: texts such as "scene.density_per_um2=1.78" that replace or add one value each.

    Raises:
        RecipeError: there is no such recipe, it is not YAML, or a key or value is impossible.
    """
    text, source = _recipe_text(name_or_path)
    mapping = read_mapping(text, source)
    for override in overrides:
        _apply(mapping, override)
    return check(Recipe, mapping, source)


def read_mapping(text: str, source: str) -> dict[str, Any]:
    """Read YAML that must hold keys and values; `source` names it in messages.

    Raises:
        RecipeError: the text is no YAML or holds something else.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{source} is not valid YAML: {error}. Correct that line.") from error
    if not isinstance(content, dict):
        raise RecipeError(
            f"{source} holds {type(content).__name__} instead of keys and values. Start from a "
            "shipped recipe; `sureloc simulate` writes one into its output folder."
        )
    return content


def check(model: type[Model], mapping: Mapping[str, Any], source: str) -> Model:
    """Turn a mapping into a model.

    Args:
        model: a pydantic model that forbids extra keys.
        mapping: what the user wrote.
        source: names it in messages.

    Raises:
        RecipeError: a key is unknown or missing or a value is impossible; the message names every
            such key, the allowed ones, and the nearest match.
    """
    try:
        return model.model_validate(mapping)
    except ValidationError as error:
        lines = [_explain(model, problem) for problem in error.errors()]
        raise RecipeError(f"{source} cannot be used: " + "; ".join(lines)) from error


def recipe_yaml(recipe: Recipe) -> str:
    """Write a recipe as YAML with every default filled in; `load_recipe` reads it back."""
    values = recipe.model_dump(mode="json")
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _recipe_text(name_or_path: str | Path) -> tuple[str, str]:
    path = Path(name_or_path)
    looks_like_path = path.suffix in (".yaml", ".yml") or len(path.parts) != 1
    shipped = resources.files("sureloc") / "recipes" / f"{name_or_path}.yaml"
    if not looks_like_path and shipped.is_file():
        return shipped.read_text(encoding="utf-8"), f"The recipe {name_or_path}"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8"), f"The recipe {path}"
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"The recipe {path} cannot be read: {error}.") from error
    if looks_like_path:
        raise RecipeError(f"There is no recipe file {path} (seen from {Path.cwd()}).")
    names = shipped_recipes()
    raise RecipeError(
        f"There is no recipe {str(name_or_path)!r}{did_you_mean(str(name_or_path), names)}. "
        f"Shipped recipes: {', '.join(names)}; or give the path of a YAML file."
    )


def _apply(mapping: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(
            f"The setting {override!r} is not of the form key=value, such as "
            "scene.density_per_um2=1.78."
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"The value in {override!r} is not valid YAML: {error}.") from error
    inner = mapping
    for part in keys[:-1]:
        deeper = inner.setdefault(part, {})
        if not isinstance(deeper, dict):
            raise RecipeError(f"{override!r} sets a key inside {part}, which is a plain value.")
        inner = deeper
    inner[keys[-1]] = value


def _explain(model: type[BaseModel], problem: Any) -> str:
    """Say in one line what is wrong, where, and what is allowed instead."""
    location: Location = problem["loc"]
    owner, path, members = _walk(model, location)
    kind = problem["type"]
    if kind == "extra_forbidden":
        allowed = list(owner.model_fields)
        near = did_you_mean(str(location[-1]), allowed)
        return f"unknown key {path}{near}, allowed are {', '.join(allowed)}"
    if kind == "missing":
        return f"{path} is missing, add it"
    if kind == "union_tag_not_found":
        return f"{path}.kind is missing, allowed are {', '.join(members)}"
    if kind == "union_tag_invalid":
        tag = str(problem["ctx"]["tag"])
        near = did_you_mean(tag, list(members))
        return f"{path}.kind is {tag!r}{near}, allowed are {', '.join(members)}"
    reason = problem["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    value = problem["input"]
    shown = "" if isinstance(value, Mapping) else f" is {value!r}"
    return f"{path}{shown}: {reason}" if path else reason


def _walk(
    model: type[BaseModel], location: Location
) -> tuple[type[BaseModel], str, dict[str, type[BaseModel]]]:
    """Follow a pydantic error's location.

    In a location, a member of a tagged union is named by its tag, which is not in the user's file.

    Returns:
        The model that holds the last key, the key's path as the user wrote it, and, where the key
        holds a tagged union, the union's members by tag.
    """
    owner, path = model, list[str]()
    members: dict[str, type[BaseModel]] = {}
    for part in location:
        if str(part) in members:
            owner, members = members[str(part)], {}
            continue
        path.append(str(part))
        field = owner.model_fields.get(str(part))
        members = {} if field is None else _tagged_members(field.annotation)
        if field is not None and _is_model(field.annotation):
            owner = field.annotation  # type: ignore[assignment]
    return owner, ".".join(path), members


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _tagged_members(annotation: object) -> dict[str, type[BaseModel]]:
    if get_origin(annotation) not in (Union, UnionType):
        return {}
    members = [member for member in get_args(annotation) if _is_model(member)]
    return {
        str(tag): member
        for member in members
        if "kind" in member.model_fields
        for tag in get_args(member.model_fields["kind"].annotation)
    }
