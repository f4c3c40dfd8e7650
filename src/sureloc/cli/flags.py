"""Commands whose help shows a flag as a flag, without a word for a value that it does not take."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command that does so."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Give arguments and options, --help among them."""
        return _bare_flags(super().get_params(ctx))


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
