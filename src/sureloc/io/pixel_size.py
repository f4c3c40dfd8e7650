"""A pixel size that nobody stated: remembered with the tables, and said by later steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PIXEL_SIZE_FROM = "pixel_size_from"  # in provenance and run.json: given, file or assumed
ASSUMED = "assumed"


def said_of_pixel_size(
    name: str, record: Mapping[str, Any], pixel_nm: float | None
) -> tuple[str, ...]:
    """Say that a pixel size was assumed; nothing where it was given or the movie's file said it.

    Args:
        name: of the run or table, for people.
        record: of the run, or the table's provenance.
        pixel_nm: pixel size that is remembered, nm.
    """
    if record.get(PIXEL_SIZE_FROM) != ASSUMED:
        return ()
    taken = "a usual value was" if pixel_nm is None else f"{pixel_nm:g} nm were"
    return (
        f"Nothing said how large pixels are when {name} was localized; {taken} taken, and all "
        "lengths scale with it. Localize again with --pixel-nm for lengths that are right.",
    )
