"""Where bars go that vanish when the work is done: to a person who looks on, or nowhere."""

from __future__ import annotations

from typing import Any


def of_bar(*, quiet: bool) -> dict[str, Any]:
    """Give the arguments of such bars of rich's; into a file they would leave an empty line.

    Args:
        quiet: whether nobody wants to see them.
    """
    from rich.console import Console

    console = Console(stderr=True)
    return {"console": console, "disable": quiet or not console.is_terminal}
