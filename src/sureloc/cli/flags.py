"""Commands whose help names arguments in capitals and flags bare, and a wrong value as it was."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command that does so."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Give arguments and options, --help among them."""
        return _as_shown(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line; what is said of a value that is no number begins with it."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            # Pydantic's message, of newer releases of Typer, does not name the value.
            problems: list[Any] = getattr(error.__cause__, "errors", list)()
            if problems:
                error.message = f"{problems[0]['input']!r}. {error.message}"
            raise


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
