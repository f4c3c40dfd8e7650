"""The `sureloc` command: its list of commands, and what the shell sees when one fails.

Each command is a module of its own, `sureloc.cli.<name>`, that holds one function of that name (or,
for a group of commands, a Typer application of that name). Those modules import what they need
inside the function, so that `sureloc --help` need not wait for torch.

Exit codes: 0 done; 1 a result could not be written, or a training diverged; 2 the input cannot be
used; 3 `localize` finished, but its verdict is "do not trust", `audit` did, but the run failed it,
or `adapt` did, but its weights got worse; 130 somebody pressed Ctrl-C.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any, NoReturn

import typer

from sureloc import __version__
from sureloc.cli.flags import Command, Group
from sureloc.cli.stopping import stopping
from sureloc.errors import InputError, SurelocError

COMMANDS = (
    *("demo", "simulate", "localize", "reproduce", "convert"),
    *("drift", "link", "filter", "render", "resolution", "audit"),
    *("calibrate_camera", "inspect", "adapt"),  # a command's dashes are underscores here
)
GROUPS = ("train", "weights")
WHERE_TO_READ = (
    "Documentation: the folder `docs` of the program's source, to begin with `docs/tutorial.md`; "
    "`make docs` makes a site of it that opens without a network."
)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    from sureloc.shipped import describe_weights, shipped_weights

    typer.echo(f"sureloc {__version__}")
    for one in map(describe_weights, shipped_weights()):
        typer.echo(f"weights {one.name}, fingerprint {one.fingerprint}")
        typer.echo(f"    {one.summary}\n    {one.training}.")
    raise typer.Exit


def _sureloc(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show the version and the shipped weights, and leave.",
        ),
    ] = False,
) -> None:
    """Localize single molecules with intervals that hold, also where molecules overlap."""


class _Commands(Group):
    def invoke(self, ctx: Any) -> Any:
        """Run a command; those that keep something say so themselves when they are stopped."""
        with stopping():
            return super().invoke(ctx)


def _build() -> typer.Typer:
    # Unexpected errors keep Python's own traceback: it can be searched for and pasted whole.
    application = typer.Typer(
        name="sureloc",
        cls=_Commands,
        epilog=WHERE_TO_READ,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    application.callback()(_sureloc)
    for name in COMMANDS:
        if find_spec(f"sureloc.cli.{name}"):
            application.command(name.replace("_", "-"), cls=Command)(
                getattr(import_module(f"sureloc.cli.{name}"), name)
            )
    for name in GROUPS:
        if find_spec(f"sureloc.cli.{name}"):
            group = getattr(import_module(f"sureloc.cli.{name}"), name)
            application.add_typer(group, name=name)
    return application


app = _build()


def main() -> None:
    """Run the command line and leave the process with its exit code (see the module)."""
    # tifffile logs what it then raises, or what is refused here in better words.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    # Another installation's list of fonts makes Matplotlib say line by line which it did not find.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    try:
        app()
    except InputError as error:
        _leave(error, 2)
    except SurelocError as error:
        _leave(error, 1)


def _leave(error: SurelocError, code: int) -> NoReturn:
    typer.echo(f"sureloc: {' '.join(str(error).split())}", err=True)
    sys.exit(code)
