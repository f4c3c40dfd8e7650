"""The exceptions that sureloc raises on purpose.

::

    SurelocError
    ├── InputError          a value, file or option from the user cannot be used (exit code 2)
    │   ├── CameraError     a camera map or number is impossible
    │   ├── RecipeError     a recipe holds an unknown key or an impossible value
    │   ├── FinishedError   the run to go on with was finished before
    │   ├── MovieError      a movie cannot be read or is no movie
    │   ├── PixelSizeError  nothing tells how large pixels are, and it is needed
    │   └── WeightsError    a weights file or its card cannot be used
    ├── OutputError         a result could not be written; none half-written was left
    └── TrainingError       a training came to weights that are no numbers

Every message names the offending value, the allowed range and the next step.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SurelocError(Exception):
    """Base of every exception that sureloc raises on purpose."""


class InputError(SurelocError, ValueError):
    """A value, file or option from the user cannot be used."""


class CameraError(InputError):
    """A camera map or number is physically impossible."""


class RecipeError(InputError):
    """A recipe holds an unknown key or an impossible value."""


class FinishedError(InputError):
    """The run to go on with was finished before, from the same input."""


class MovieError(InputError):
    """A movie cannot be read or is not a movie."""


class PixelSizeError(InputError):
    """Nothing tells how large the pixels under a table are, and it is needed."""


class WeightsError(InputError):
    """A weights file or its card cannot be used."""


class OutputError(SurelocError, OSError):
    """A result could not be written; no result that is half-written was left behind."""


class TrainingError(SurelocError):
    """A training diverged: its weights are no longer numbers."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Give " (did you mean NAME?)" with the known name that a word is most like, if any is.

    Names begin with the word's own letter: nobody mistypes gpu for cpu.
    """
    names = [name for name in known if name[:1].lower() == word[:1].lower()]
    begin_so = [name for name in names if name.startswith(word)]
    near = begin_so or get_close_matches(word.lower(), names, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def decimal_point(text: str) -> str:
    """Give " (decimals are written with a point: 2.2)" for a text such as "2,2", "" for others."""
    whole, comma, decimals = text.strip().partition(",")
    if comma and whole.removeprefix("-").isdecimal() and decimals.isdecimal():
        return f" (decimals are written with a point: {whole}.{decimals})"
    return ""


def check_one_of(what: str, value: str, allowed: Iterable[str]) -> None:
    """Raise `InputError` unless a value, which `what` names, is one of those allowed."""
    names = list(allowed)
    if value not in names:
        raise InputError(
            f"{what} is {value!r}{did_you_mean(value, names)}; it must be one of "
            f"{', '.join(names)}."
        )
