"""Commands whose help names arguments in capitals and flags bare, and whose errors are one line."""

from __future__ import annotations

from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from sureloc.errors import InputError, decimal_point

# Click's, of which newer releases of Typer have a copy of their own.
_UsageError: Any = typer.BadParameter.__bases__[0]


class Command(TyperCommand):
    """A command that does so."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Give arguments and options, --help among them."""
        return _as_shown(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the help, in whose column there is room for one long name of an option."""
        several = {one: one.opts for one in self.params if len(one.opts) > 1}
        for one, names in several.items():
            short = [name for name in names[1:] if not name.startswith("--")]
            one.opts = [names[0], *short]
        try:
            super().format_help(ctx, formatter)
        finally:
            for one, names in several.items():
                one.opts = names

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line.

        Raises:
            InputError: it holds what the command does not take.
        """
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            _refuse(ctx, error)


class Group(TyperGroup):
    """A group of commands that does so."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Give the group's own options, --help among them."""
        return _as_shown(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the group's own options.

        Raises:
            InputError: it has no such option.
        """
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            if not given:  # the help is shown instead
                raise
            _refuse(ctx, error)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that is asked for.

        Raises:
            InputError: there is none of that name.
        """
        try:
            return super().resolve_command(ctx, args)
        except _UsageError as error:
            _refuse(ctx, error)


def _refuse(ctx: Any, error: Any) -> NoReturn:
    """Raise what is wrong with a command line as `InputError`, which is said in one line."""
    # Pydantic's message, of newer releases of Typer, does not name the value.
    problems: list[Any] = getattr(error.__cause__, "errors", list)()
    parameter = getattr(error, "param", None)
    if problems and parameter is not None:
        problem = problems[0]
        value, why = str(problem["input"]), problem["msg"].partition(",")[0].lower()
        why = why.replace("input should", "it must")
        meant = _meant(ctx, parameter, value) if problem["type"].startswith("float") else ""
        said = f"{parameter.opts[0]} is {value!r}; {why}{meant}."
    else:
        said = " ".join(error.format_message().split())
        said += "" if said.endswith((".", "?")) else "."
    raise InputError(f"{said} '{ctx.command_path} --help' says what it takes.") from error


def _meant(ctx: Any, parameter: Any, value: str) -> str:
    """Say how decimals are written, and between what the number must lie if it does not."""
    point = decimal_point(value)
    if not point or parameter.callback is None:
        return point
    try:
        parameter.callback(ctx, parameter, float(value.replace(",", ".")))
    except InputError as error:
        return f"{point}. {str(error).rstrip('.')}"
    return point


def _as_shown(params: list[Any]) -> list[Any]:
    for one in params:
        if getattr(one, "is_flag", False):
            one.metavar = ""
        elif one.param_type_name == "argument" and one.metavar is None:
            one.metavar = one.name.upper()
    return params
