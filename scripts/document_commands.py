"""Write docs/commands.md: every command with every argument and option, as the program has them.

python scripts/document_commands.py
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from typer.main import get_command

from sureloc.cli.app import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
_START = """# Commands

Every command with all that it takes. This page is written by `scripts/document_commands.py` from
the program itself, and a test holds that it is up to date; `sureloc COMMAND --help` says the same.
How to let the shell complete commands, options and names: [shell completion](completion.md).
"""
_WORDS = {int: "NUMBER", float: "NUMBER", Path: "PATH", str: "TEXT"}


def leaf_commands(group: Any, path: str = "sureloc") -> Iterator[tuple[str, Any]]:
    """Give every command that does something, with its whole name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaf_commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def commands_page() -> str:
    """Give the text of docs/commands.md."""
    root = get_command(app)
    parts = [_START, _section("sureloc", root)]
    parts += [_section(path, command) for path, command in leaf_commands(root)]
    return "\n".join(parts)


def _section(path: str, command: Any) -> str:
    hints = get_type_hints(command.callback, include_extras=True)
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    words = [path, "[OPTIONS]", *map(_argument, arguments)]
    if hasattr(command, "commands"):
        words.append("COMMAND")
    rows = [("`" + _argument(one) + "`", one) for one in arguments]
    rows += [(_option(one, hints.get(one.name)), one) for one in options]
    lines = [f"| {shown} | {_meaning(one, hints.get(one.name))} |" for shown, one in rows]
    parts = [f"## {path}", f"`{' '.join(words)}`", _plain(command.help)]
    if lines:
        parts.append("\n".join(["| | |", "|---|---|", *lines]))
    return "\n\n".join(parts) + "\n"


def _argument(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    name = name if argument.required else f"[{name}]"
    return f"{name}..." if argument.nargs == -1 else name


def _option(option: Any, hint: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if option.is_flag:
        return names
    value = option.metavar.replace("|", "\\|") if option.metavar else _word(hint)
    return f"{names} `{value}`"


def _word(hint: Any) -> str:
    """Name the kind of value; the type is in Annotated, a union with None, or a list."""
    inner = hint
    while (origin := get_origin(inner)) is not None:
        members = [one for one in get_args(inner) if one is not type(None)]
        assert origin in (list, UnionType) or hasattr(inner, "__metadata__"), hint
        inner = members[0]
    if issubclass(inner, Enum):
        return "\\|".join(one.value for one in inner)
    return _WORDS[inner]


def _meaning(parameter: Any, hint: Any) -> str:
    sentences = [_plain(parameter.help).replace("|", "\\|")]
    low, high = (getattr(one, name, None) for one in _notes(hint) for name in ("min", "max"))
    if low is not None:
        sentences.append(f"At least {low}." if high is None else f"{low} to {high}.")
    if parameter.required and parameter.param_type_name == "option":
        sentences.append("Required.")
    default = parameter.default
    if default not in (None, "", []) and not getattr(parameter, "is_flag", False):
        sentences.append(f"Default: `{getattr(default, 'value', default)}`.")
    return " ".join(sentences)


def _notes(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__metadata__", (None,))[:1]


def _plain(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


if __name__ == "__main__":
    PAGE.write_text(commands_page(), encoding="utf-8")
