"""What a training leaves in its folder: the names of its files, and its log."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path

from sureloc.errors import InputError

History = list[dict[str, float]]

CHECKPOINT = "last.ckpt"
LOG = "log.csv"
BEST = "best.safetensors"
LAST = "last.safetensors"


def write_log(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write one line for each validation."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def read_log(path: Traversable) -> History:
    """Read the log that a training wrote, one row for each validation.

    Raises:
        InputError: it is missing, no table of numbers, or empty.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(lines)]
    except (OSError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise InputError(
            f"The training log {path} cannot be read: {error}. Give the folder of a training, or "
            "weights with the logs beside them."
        ) from error
    if not rows:
        raise InputError(f"The training log {path} is empty. Train until the first validation.")
    return rows
