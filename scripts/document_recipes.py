"""Write docs/recipe_keys.md: every key of the recipes of training, as the program reads them.

python scripts/document_recipes.py
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sureloc.train.recipe import PhiTrainingRecipe, PsiTrainingRecipe, TrainingRecipe

PAGE = Path(__file__).resolve().parents[1] / "docs" / "recipe_keys.md"
_START = """# Every key of a training recipe

What a recipe of [`sureloc train`](training.md) may say. Keys that are left out have the value in
the last column; unknown keys are refused, by name. A section with `kind` is one of several: its
kind says which. This page is written by `scripts/document_recipes.py` from the program itself, and
a test holds that it is up to date.
"""
_HEAD = "| key | meaning | values | default |\n|---|---|---|---|"
_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}
_REFERENCE = re.compile(r"`(sureloc(?:\.\w+)+)`")
_ENTRY = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {8,}.*)*)", re.MULTILINE)


def recipes_page() -> str:
    """Give the text of docs/recipe_keys.md."""
    shared = set(TrainingRecipe.model_fields)
    parts = [_START, _section("Every recipe", TrainingRecipe, shared)]
    parts += list(_sections(TrainingRecipe, shared))
    for name, recipe in (("phi", PhiTrainingRecipe), ("Psi", PsiTrainingRecipe)):
        own = set(recipe.model_fields) - shared - {"kind"}
        parts.append(_section(f"Recipes of {name}: `kind: {name.lower()}`", recipe, own))
        parts += list(_sections(recipe, own))
    return "\n".join(parts)


def _sections(recipe: type[BaseModel], keys: set[str]) -> Iterator[str]:
    for name, field in recipe.model_fields.items():
        if name in keys:
            for model in _models(field.annotation):
                kind = model.model_fields.get("kind")
                title = f"`{name}`" + (f": `{get_args(kind.annotation)[0]}`" if kind else "")
                yield _section(title, model, set(model.model_fields) - {"kind"}, level=3)


def _section(title: str, model: type[BaseModel], keys: set[str], level: int = 2) -> str:
    told = meanings(model)
    lines = [f"{'#' * level} {title}", ""]
    if level > 2:
        lines += [_summary(model), ""]
    lines.append(_HEAD)
    for key, field in model.model_fields.items():
        if key in keys:
            cells = (f"`{key}`", told[key], _values(field), _default(field))
            lines.append(f"| {' | '.join(map(_escaped, cells))} |")
    return "\n".join(lines) + "\n"


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def _summary(model: type[BaseModel]) -> str:
    return " ".join((inspect.getdoc(model) or "").split("\n\n")[0].split())


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Give what docstrings say of a model's keys: its own, its bases', then those it refers to."""
    own = [one for one in model.__mro__ if one.__module__.startswith("sureloc")]
    texts = [inspect.getdoc(one) or "" for one in own]
    for reference in _REFERENCE.findall("\n".join(texts)):
        texts += _texts_of(reference)
    told: dict[str, str] = {}
    for text in texts:
        for part in re.split(r"^(?:Attributes|Args):\n", text, flags=re.MULTILINE)[1:]:
            inside = re.split(r"^\S", part, maxsplit=1, flags=re.MULTILINE)[0]
            for names, meaning in _ENTRY.findall(inside):
                for name in names.split(", "):
                    told.setdefault(name, " ".join(meaning.split()))
    return told


def _texts_of(reference: str) -> list[str]:
    module, _, name = reference.rpartition(".")
    try:
        thing = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):  # a module itself, or a class's own method
        return []
    inner = [thing.__init__] if inspect.isclass(thing) else []
    return [inspect.getdoc(one) or "" for one in (thing, *inner)]


def _models(hint: Any) -> list[type[BaseModel]]:
    if inspect.isclass(hint) and issubclass(hint, BaseModel):
        return [hint]
    return [model for inner in get_args(hint) for model in _models(inner)]


def _values(field: FieldInfo) -> str:
    if _models(field.annotation):
        return "section"
    return _word(field.annotation, field.metadata)


def _word(hint: Any, notes: list[Any]) -> str:
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _word(inside[0], [*inside[1:], *notes])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if origin in (Union, UnionType):
        return " or ".join(_word(one, notes) for one in inside if one is not type(None))
    if origin is tuple:
        each = _word(inside[0], [])
        if inside[-1] is not Ellipsis:
            return f"[low, high]: {each}"
        ends = {type(bound): bound for bound in _bounds(notes)}
        least = ends[MinLen].min_length if MinLen in ends else 0
        count = f", {least} to {ends[MaxLen].max_length} of them" if MaxLen in ends else ""
        return f"list: {each}{count}"
    return f"{_WORDS[hint]}{_range(_bounds(notes))}"


def _bounds(notes: list[Any]) -> list[Any]:
    """Give the constraints among notes; those of a `Field` lie inside it."""
    inner = [one for note in notes if isinstance(note, FieldInfo) for one in note.metadata]
    return [n for n in (*notes, *inner) if isinstance(n, Ge | Gt | Le | Lt | MinLen | MaxLen)]


def _range(bounds: list[Any]) -> str:
    told = {type(bound): bound for bound in bounds}
    if Ge in told and Le in told:
        return f", {told[Ge].ge:g} to {told[Le].le:g}"
    low = [f"{told[Ge].ge:g} or above"] if Ge in told else []
    low += [f"above {told[Gt].gt:g}"] if Gt in told else []
    high = [f"below {told[Lt].lt:g}"] if Lt in told else []
    return "".join(f", {one}" for one in low + high)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.default
    if isinstance(value, BaseModel):
        kind = getattr(value, "kind", None)
        return f"kind `{kind}`" if kind else "see below"
    return "none" if value is None else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    PAGE.write_text(recipes_page(), encoding="utf-8")
