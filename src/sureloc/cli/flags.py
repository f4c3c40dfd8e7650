"""Commands that show a flag as a flag, without a word for a value, and a wrong value as it was."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command that does so."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Give arguments and options, --help among them."""
        return _bare_flags(super().get_params(ctx))

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
        return _bare_flags(super().get_params(ctx))


def _bare_flags(params: list[Any]) -> list[Any]:
    for one in params:
        if getattr(one, "is_flag", False):
            one.metavar = ""
    return params
