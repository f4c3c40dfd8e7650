"""What a training leaves in its folder: the names of its files, its log and its checkpoint."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

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
        InputError: it is missing, no table of numbers, empty, or without steps or scores.
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
    for name in ("step", "score"):
        if name not in rows[0]:
            raise InputError(
                f"The training log {path} has no column {name}; it has {', '.join(rows[0])}. Give "
                "the log.csv of a training as it was written."
            )
    return rows


def best_row(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """Give the validation with the smallest score, of equals the last.

    Raises:
        InputError: no score is a finite number.
    """
    scored = [row for row in reversed(history) if math.isfinite(row["score"])]
    if not scored:
        raise InputError(
            f"The training has no best weights: none of its {len(history)} validations has a score "
            "that is a number. Train again with a smaller optimizer.learning_rate."
        )
    return min(scored, key=lambda row: row["score"])


@dataclass(frozen=True)
class Checkpoint:
    """What a training left to go on from.

    Attributes:
        fingerprint: of its recipe.
        devices: how many shared a step's tiles; None where it does not tell.
        state: the arrays of its networks by name.
    """

    fingerprint: str
    devices: int | None
    state: dict[str, Tensor]

    def differing(self, arrays: Mapping[str, Tensor]) -> str | None:
        """Name an array that it holds otherwise or not at all, if there is one."""
        for name, value in arrays.items():
            own = self.state.get(name)
            if own is None or not torch.equal(own, value.cpu()):
                return name
        return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in it is run.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        json.loads(found["history"])
        state = dict(found["state_dict"])
        return Checkpoint(str(found["recipe_fingerprint"]), found.get("devices"), state)
    except (
        *(OSError, EOFError, UnpicklingError, RuntimeError),
        *(AttributeError, LookupError, TypeError, ValueError),
    ) as error:
        raise InputError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}). Train into another "
            "folder."
        ) from error
