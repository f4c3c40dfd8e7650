"""What the shell offers where an argument takes the name of something that comes with sureloc."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sureloc.shipped import recipe_names, shipped_weights

Completion = Callable[[str], list[str]]


def offer(names: Callable[[], Iterable[str]]) -> Completion:
    """Give a completion of names that are asked for only when somebody presses Tab."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


weights = offer(shipped_weights)
recipes = offer(recipe_names)
