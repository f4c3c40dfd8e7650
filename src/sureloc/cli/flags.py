"""Commands whose help names arguments in capitals, and shows a flag without a word for a value."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command that does so."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Give arguments and options, --help among them."""
        return _as_shown(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands that does so."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Give the group's own options, --help among them."""
        return _as_shown(super().get_params(ctx))


def _as_shown(params: list[Any]) -> list[Any]:
    for one in params:
        if getattr(one, "is_flag", False):
            one.metavar = ""
        elif one.param_type_name == "argument" and one.metavar is None:
            one.metavar = one.name.upper()
    return params
