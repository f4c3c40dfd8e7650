"""What comes with sureloc, by name: recipes and weights, told without loading any library.

Used where an answer must be immediate, as for `sureloc --version` and the shell's completion.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

_WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class ShippedWeights:
    """Weights that come with sureloc.

    Attributes:
        card: their card as it is in the file (`sureloc.networks.weights.Card`).
        size_bytes: of the file of weights.
        fingerprint: the first 16 hexadecimal digits of that file's SHA-256.
    """

    card: dict[str, Any]
    size_bytes: int
    fingerprint: str

    @property
    def name(self) -> str:
        """What `--weights` takes."""
        return str(self.card["name"])

    @property
    def summary(self) -> str:
        """The first sentence of the description."""
        first, dot, _ = str(self.card["description"]).partition(". ")
        return f"{first}." if dot else first

    @property
    def training(self) -> str:
        """How long each network was trained, in one line."""
        parts = (("phi", "phi"), ("Psi", "psi"))
        trained = [(shown, self.card["training"][part]) for shown, part in parts]
        return "; ".join(
            f"{shown} trained for {one['steps']:,} steps in {one['minutes']:.0f} min, "
            f"seed {one['recipe']['seed']}"
            for shown, one in trained
        )


def shipped_weights() -> tuple[str, ...]:
    """Give the names of the weights that come with sureloc."""
    return _names("weights", suffix=_WEIGHTS)


def recipe_names() -> tuple[str, ...]:
    """Give the names of the recipes of movies that come with sureloc."""
    return _names("recipes", suffix=".yaml")


def training_recipe_names(kind: str) -> tuple[str, ...]:
    """Give the names of the recipes that train "phi" or "psi", such as default and smoke."""
    return _names("recipes", "train", prefix=f"{kind}_", suffix=".yaml")


def describe_weights(name: str) -> ShippedWeights:
    """Read the card of shipped weights, and weigh their file.

    Args:
        name: one of `shipped_weights`.
    """
    blob = _folder("weights").joinpath(f"{name}{_WEIGHTS}").read_bytes()
    card = json.loads(_folder("weights").joinpath(f"{name}.json").read_text(encoding="utf-8"))
    return ShippedWeights(card, len(blob), fingerprint(blob))


def fingerprint(blob: bytes) -> str:
    """Give the first 16 hexadecimal digits of the SHA-256 of a file of weights."""
    return hashlib.sha256(blob).hexdigest()[:16]


def _folder(*parts: str) -> Traversable:
    return resources.files("sureloc").joinpath(*parts)


def _names(*folder: str, suffix: str, prefix: str = "") -> tuple[str, ...]:
    place = _folder(*folder)
    if not place.is_dir():
        return ()
    files = (item.name for item in place.iterdir())
    wanted = (name for name in files if name.startswith(prefix) and name.endswith(suffix))
    return tuple(sorted(name[len(prefix) : -len(suffix)] for name in wanted))
