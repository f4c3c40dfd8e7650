"""What only training needs, and the core does without: Lightning and TensorBoard."""

from __future__ import annotations

from importlib.util import find_spec

from sureloc.errors import InputError

PACKAGES = ("lightning", "tensorboard")


def check_installed() -> None:
    """Raise `InputError` where a package that training needs is missing, saying how to get it."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(
            f"Training needs the packages {' and '.join(PACKAGES)}, and {' and '.join(missing)} "
            "cannot be found here. Install what it needs with: pip install 'sureloc[train]'."
        )
