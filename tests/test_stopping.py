"""What commands show while they work, and say when somebody presses Ctrl-C."""

from __future__ import annotations

import io
import re
import sys

import pytest
import rich.console
import tifffile
import typer

from sureloc.cli.localize import bar_of_frames
from sureloc.cli.stopping import STOPPED, stopping
from sureloc.runs import localization
from test_localize_command import frames, run


def ctrl_c(*_arguments, **_options):
    raise KeyboardInterrupt


def trained():
    try:
        ctrl_c()
    except KeyboardInterrupt:
        sys.exit(1)  # as Lightning does


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (
            "sureloc.report.preview.draw_preview",
            ("simulate", "paper", "--frames", "9", "--out", "out", "-q"),
        ),
        ("sureloc.report.resolution.measure_resolution", ("resolution", "m.tif", "--out", "out")),
        ("sureloc.runs.localization.prepare", ("localize", "m.tif", "--out", "out", "-q")),
    ],
)
def test_ctrl_c_says_that_nothing_was_kept(place, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("m.tif", frames(3), photometric="minisblack")
    monkeypatch.setattr(place, ctrl_c)
    assert run(*words) == STOPPED
    assert capsys.readouterr().err == "Stopped; nothing was kept.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["m.tif"]


def test_a_demonstration_that_is_stopped_says_what_it_leaves(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(localization, "prepare", ctrl_c)
    out = tmp_path / "demo"
    assert run("demo", "--frames", "1", "--out", out, "-q") == STOPPED
    said = capsys.readouterr().err
    assert said == (
        f"Stopped. What was done is kept in {out}: remove that folder before you start again.\n"
    )
    assert [path.name for path in out.iterdir()] == ["movie"]


def test_the_exit_that_lightning_makes_of_ctrl_c_is_one(tmp_path, capsys):
    with pytest.raises(typer.Exit) as leaving, stopping(tmp_path, "go on"):
        trained()
    assert leaving.value.exit_code == STOPPED
    assert capsys.readouterr().err == f"Stopped. What was done is kept in {tmp_path}: go on.\n"
    with pytest.raises(SystemExit), stopping(tmp_path, "go on"):
        raise SystemExit(3)


def test_the_bar_tells_what_is_elapsed_from_what_is_left(monkeypatch):
    screen = io.StringIO()
    terminal = rich.console.Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(rich.console, "Console", lambda **_: terminal)
    with bar_of_frames(9, quiet=False) as advance:
        advance()
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", screen.getvalue())
    assert "0:00:00 elapsed, -:--:-- left" in plain
