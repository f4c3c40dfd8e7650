"""Shells complete commands, options and names: real ones, after a real installation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
import typer
from typer.main import get_command

from sureloc.analysis.drift import Method, Reference
from sureloc.cli import completion
from sureloc.cli.app import app
from sureloc.report.reproduction_studies import STUDIES
from sureloc.shipped import recipe_names, shipped_weights, training_recipe_names
from test_packaging import leaf_commands

PROMPT = "ready> "
FISH = shutil.which("fish")
TYPED_AND_COMPLETED = [
    ("sureloc wei", "sureloc weights"),
    ("sureloc train sea", "sureloc train search"),
    ("sureloc localize --min", "sureloc localize --min-probability"),
    ("sureloc localize movie.tif --weights fa", "sureloc localize movie.tif --weights fast"),
    ("sureloc render run --colour pre", "sureloc render run --colour precision"),
    ("sureloc simulate latt", "sureloc simulate lattice"),
    ("sureloc reproduce unc", "sureloc reproduce uncertainty"),
    ("sureloc localize rec", "sureloc localize recording.tif"),
]


class Terminal:
    """A shell in a terminal, in a folder that is also its user's home."""

    def __init__(self, shell: str, home: Path) -> None:
        self.child = pexpect.spawn(
            shell,
            ["-i"],
            env=environment(shell, home),
            cwd=home,
            timeout=120,
            encoding="utf-8",
            dimensions=(40, 200),
        )
        self.child.expect(PROMPT)

    def run(self, line: str, answer: str) -> str:
        """Run a line and give the first group of its answer."""
        self.child.sendline(line)
        self.child.expect(answer)
        found = self.child.match[1]
        self.child.expect(PROMPT)  # a shell that is not yet ready takes no Tab
        return str(found)

    def after_tab(self, typed: str) -> str:
        """Type, press Tab, and give what then stands on the line."""
        self.child.send(f"{typed}\t")
        # Ctrl-A and Ctrl-E go to the ends of the line; echo then tells what is between. The line
        # as it is typed comes back too, and must not be taken for the answer.
        return self.run('\x01echo li""ne: \x05 :end', r"line: ?(.*?) *:end").strip()

    def close(self) -> None:
        self.child.close(force=True)


def environment(shell: str, home: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "TERM": "vt100",
        "LANG": "C.UTF-8",
        "SHELL": shutil.which(shell) or "",
    }


@pytest.fixture
def home(tmp_path) -> Path:
    """Give a home with a movie in it and a program `sureloc` that shells find."""
    program = tmp_path / "bin" / "sureloc"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom sureloc.cli import main\nmain()\n")
    program.chmod(0o755)
    (tmp_path / "recording.tif").touch()
    return tmp_path


@pytest.fixture(params=["bash", "zsh"])
def terminal(request, home) -> Iterator[Terminal]:
    """Give a shell that was started after its user had asked sureloc for completion."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (home / f".{shell}rc").write_text(f"PS1='{PROMPT}'\n")
    first = Terminal(shell, home)
    first.run("sureloc --install-completion", f"({shell}) completion installed")
    first.close()
    terminal = Terminal(shell, home)
    if shell == "zsh":
        terminal.after_tab("sureloc ")  # its first Tab only loads what Typer wrote for it
    yield terminal
    terminal.close()


def test_tab_completes_commands_options_names_and_files(terminal):
    for typed, completed in TYPED_AND_COMPLETED:
        assert terminal.after_tab(typed) == completed


def test_fish_completes_the_same(home):
    if FISH is None:
        pytest.skip("fish is not installed")

    def fish(program: str) -> str:
        done = subprocess.run(
            [FISH, "-c", program],
            env=environment("fish", home),
            cwd=home,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert "fish completion installed" in fish("sureloc --install-completion")
    for typed, completed in TYPED_AND_COMPLETED:
        offered = [line.split("\t")[0] for line in fish(f"complete -C '{typed}'").splitlines()]
        assert completed.split()[-1] in offered, (typed, offered)


def test_choices_are_those_that_there_are():
    """What commands offer without loading what knows it."""
    commands = dict(leaf_commands(get_command(app)))

    def offered(command, name):
        option = next(one for one in commands[f"sureloc {command}"].params if one.name == name)
        context = typer.Context(commands[f"sureloc {command}"])
        return tuple(item.value for item in option.shell_complete(context, "")), option.metavar

    for command, name, there_are in (
        ("drift", "method", list(Method)),
        ("drift", "reference", list(Reference)),
        ("reproduce", "what", [study.name for study in STUDIES]),
        ("train phi", "recipe", training_recipe_names("phi")),
        ("train psi", "recipe", training_recipe_names("psi")),
    ):
        values, shown = offered(command, name)
        assert values == tuple(there_are)
        assert (shown or "") in ("|".join(there_are), "")


def test_names_are_those_that_are_shipped():
    assert completion.weights("") == list(shipped_weights())
    assert completion.recipes("p") == [name for name in recipe_names() if name.startswith("p")]
    assert completion.weights("none") == []
