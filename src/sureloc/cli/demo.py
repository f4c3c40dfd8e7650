"""`sureloc demo`: what there is, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="New folder for what the demonstration makes.")],
) -> None:
    """Show what sureloc does: for now, simulate a movie of the paper's scene."""
    from sureloc.cli.simulate import simulate

    simulate("paper", frames=200, out=out)
