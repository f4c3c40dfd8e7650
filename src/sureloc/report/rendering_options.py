"""What `sureloc render` can draw, told without loading any library."""

from __future__ import annotations

from pathlib import Path

from sureloc.errors import InputError, check_one_of
from sureloc.limits import check_limit

KINDS = ("histogram", "gaussian", "posterior")
COLOURS = ("intensity", "time", "precision", "trust")
PICTURE_SUFFIXES = (".png", ".pdf", ".svg")  # for people
SUFFIXES = (*PICTURE_SUFFIXES, ".tif", ".tiff")


def check_rendering(
    out: Path,
    kind: str,
    colour: str,
    zoom: float | None,
    pixel_nm: float | None,
    plain: bool = False,
) -> None:
    """Raise `InputError` unless what was asked for goes together.

    Args:
        out: the new image.
        kind, colour: one of `KINDS` and of `COLOURS`.
        zoom, pixel_nm: image pixels for each camera pixel, or their size, nm; not both.
        plain: whether a picture for people goes without title and colour bar.
    """
    check_one_of("kind", kind, KINDS)
    check_one_of("colour", colour, COLOURS)
    if out.suffix.lower() not in SUFFIXES:
        raise InputError(f"The image is {out}; its name must end in {', '.join(SUFFIXES)}.")
    if plain and out.suffix.lower() not in PICTURE_SUFFIXES:
        raise InputError(
            f"--plain is for {', '.join(PICTURE_SUFFIXES)}; nothing stands round the image in "
            f"{out}. Leave --plain away."
        )
    if kind == "posterior" and colour != "intensity":
        raise InputError(
            f"colour is {colour!r}, but draws have neither precision nor trust; leave the colour "
            "away, or draw the rows with --kind gaussian."
        )
    if zoom is not None and pixel_nm is not None:
        raise InputError("Give --zoom or --pixel-nm, not both.")
    if zoom is not None:
        check_limit("zoom", zoom)
