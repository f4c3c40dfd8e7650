"""sureloc: single-molecule localization with intervals that hold, also where molecules overlap.

The names below are the public interface. Those that need more than the standard library are
loaded when they are first used, so that importing sureloc costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sureloc.errors import (
    CameraError,
    InputError,
    MovieError,
    OutputError,
    RecipeError,
    SurelocError,
    WeightsError,
)

if TYPE_CHECKING:
    from sureloc.camera import Camera
    from sureloc.runs.localization import localize_file

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "Camera",
    "localize_file",
    "SurelocError",
    "InputError",
    "CameraError",
    "RecipeError",
    "MovieError",
    "WeightsError",
    "OutputError",
]

_HOME_OF = {
    "Camera": "sureloc.camera",
    "localize_file": "sureloc.runs.localization",
}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
