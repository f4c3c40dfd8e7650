"""The code blocks of the documentation: found, checked, and run in the order of their page.

Fenced blocks of `python`, `sh` and `text` and indented blocks, which are `sh`, are understood. Of a
shell block only lines that begin with `sureloc` can be run, in this process. A `text` block is what
the block before it prints, numbers aside unless they are asked for; a line `...` stands for lines
left out. What is not run has a line `<!-- not run: REASON -->` before it; its commands must still
be ones that sureloc knows.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from typer.main import get_command

from sureloc.cli import app as cli
from sureloc.errors import RecipeError, WeightsError

_FENCE = re.compile(r"(`{3,}|~{3,})(.*)")
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
_PROMISE = re.compile(r"^print\(.*\)  # (.*)$", re.MULTILINE)
_NUMBER = re.compile(r"[-+]?\d[\d.,:]*")
_TIME = re.compile(r"\d[\d.,]* s\b")
CLOSE = 0.1  # share of a number by which a page may differ from what is printed now


@dataclass(frozen=True)
class Block:
    """One block of a page.

    Attributes:
        place: page and line, for people.
        language: `python`, `sh`, `text`, or what the fence says.
        text: its lines.
        not_run: the reason why it is not run, or None.
    """

    place: str
    language: str
    text: str
    not_run: str | None


def blocks_of(page: Path) -> list[Block]:
    """Find the blocks of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    not_run, at = None, 0
    while at < len(lines):
        end, language = _block_at(lines, at)
        if end > at:
            indented = [line.removeprefix("    ") for line in lines[at:end]]
            text = "\n".join(indented if lines[at][0] == " " else lines[at + 1 : end - 1])
            found.append(Block(f"{page.name}:{at + 1}", language, text, not_run))
            not_run = None
        elif lines[at].strip():
            reason = _NOT_RUN.fullmatch(lines[at].strip())
            is_comment = lines[at].startswith("<!--")
            not_run = reason[1] if reason else not_run if is_comment else None
        at = max(end, at + 1)
    return found


def _block_at(lines: list[str], at: int) -> tuple[int, str]:
    """Give the line after the block that begins at a line, and its language; else `at`."""
    line = lines[at]
    fence = _FENCE.match(line)
    if fence:
        return lines.index(fence[1], at + 1) + 1, fence[2].strip() or "text"
    if line.startswith("    ") and (at == 0 or not lines[at - 1].strip()):
        end = at
        while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
            end += 1
        while not lines[end - 1].strip():
            end -= 1
        return end, "sh"
    assert not line.lstrip().startswith(("```", "~~~")), f"line {at + 1}: a fence that is not seen"
    return at, ""


def commands(block: Block) -> list[list[str]]:
    """Give the words of every command of a shell block, comments left out."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def check(block: Block) -> None:
    """Raise unless sureloc knows the commands of a shell block, or Python the syntax of its own."""
    if block.language == "sh":
        for words in commands(block):
            if words[0] == "sureloc":
                _parse(words)
    elif block.language == "python":
        compile(block.text, block.place, "exec")


def _parse(words: list[str]) -> None:
    """Let the command line's own parser read a command."""
    command, rest = get_command(cli.app), words[1:]
    while hasattr(command, "commands") and not rest[0].startswith("-"):
        command, rest = command.commands[rest[0]], rest[1:]
    if hasattr(command, "commands"):
        # Options of the program itself act while they are parsed: --install-completion would.
        known = {name for option in command.params for name in option.opts}
        assert set(rest) <= known, f"No such option: {rest}"
    else:
        # What an earlier command would have made is not there.
        with contextlib.suppress(WeightsError, RecipeError):
            command.make_context(words[0], list(rest))


@dataclass
class PageRun:
    """The blocks of a page, run one after another in the present folder.

    Attributes:
        names: what Python blocks define.
        printed: what the last block that was run printed.
        numbers: the numbers of `text` blocks count too (`check_printed`).
    """

    names: dict[str, object] = field(default_factory=dict)
    printed: str = ""
    numbers: bool = False

    def run(self, page: Path) -> PageRun:
        """Run what is not marked as not to be run."""
        for block in blocks_of(page):
            check(block)
            if block.not_run is None:
                self._run(block)
        return self

    def _run(self, block: Block) -> None:
        if block.language == "text":
            check_printed(block, self.printed, numbers=self.numbers)
            return
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            if block.language == "python":
                exec(compile(block.text, block.place, "exec"), self.names)  # noqa: S102 - our own
            elif block.language == "sh":
                for words in commands(block):
                    _run_command(words, block.place, said)
            else:
                raise AssertionError(f"{block.place}: nothing here runs {block.language!r}")
        self.printed = said.getvalue()
        promised = _PROMISE.findall(block.text)
        assert not promised or self.printed.splitlines() == promised, block.place


def _run_command(words: list[str], place: str, said: io.StringIO) -> None:
    assert words[0] == "sureloc", f"{place}: {words[0]} cannot be run here; mark the block"
    with patch.object(sys, "argv", words):
        try:
            cli.main()
        except SystemExit as leaving:
            code = leaving.code or 0
            assert code == 0, f"{place}: {shlex.join(words)} left with {code}\n{said.getvalue()}"


def check_printed(block: Block, printed: str, *, numbers: bool = False) -> None:
    """Raise unless every line of a block was printed, in that order, numbers aside.

    Args:
        block: a block of text.
        printed: what was printed.
        numbers: raise as well where a number, times aside, is farther from the printed one than
            `CLOSE` of it and two units of its last digit.
    """
    left = iter(printed.splitlines())
    for line in block.text.splitlines():
        wanted = _without_numbers(line)
        if wanted in {"", "..."}:
            continue
        found = next((one for one in left if _without_numbers(one) == wanted), None)
        assert found is not None, f"{block.place}: {line!r} was not printed in its place\n{printed}"
        stale = [pair for pair in zip(_numbers(line), _numbers(found), strict=True) if _far(*pair)]
        assert not numbers or not stale, f"{block.place}: {line!r} is now {found!r}"


def _numbers(line: str) -> list[str]:
    return [one.rstrip(".,:").replace(",", "") for one in _NUMBER.findall(_TIME.sub("", line))]


def _far(shown: str, now: str) -> bool:
    if ":" in shown or ":" in now:
        return shown != now
    digit = 10.0 ** -len(shown.partition(".")[2])
    return abs(float(shown) - float(now)) > CLOSE * abs(float(now)) + 2 * digit


def _without_numbers(line: str) -> str:
    return " ".join(_NUMBER.sub("#", line).split())
