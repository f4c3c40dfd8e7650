"""What Ctrl-C does: a sentence that says what is kept, and an exit code of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

STOPPED = 130  # as shells have it


@contextmanager
def stopping(kept: Path | None = None, next_step: str = "") -> Iterator[None]:
    """Say what is kept if somebody presses Ctrl-C in the block, and leave with `STOPPED`.

    Args:
        kept: what stays behind, if it exists then.
        next_step: what to do with it, half a sentence.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning makes its own exit of Ctrl-C.
        if not isinstance(error, KeyboardInterrupt) and not isinstance(
            error.__context__, KeyboardInterrupt
        ):
            raise
        if kept is not None and kept.exists():
            said = f"Stopped. What was done is kept in {kept}: {next_step}."
        else:
            said = "Stopped; nothing was kept."
        typer.echo(said, err=True)
        raise typer.Exit(STOPPED) from None
