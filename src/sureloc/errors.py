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
    └── OutputError         a result could not be written; none half-written was left

Every message names the offending value, the allowed range and the next step.
"""


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
