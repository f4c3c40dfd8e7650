"""The pixel size of what is shown: what a file does not say, the user may."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sureloc.viewer.movie_layers import ABOUT


def give_pixel_size(layers: Iterable[Any], movie: Any, pixel_nm: float) -> None:
    """Stretch a movie to a pixel size, and move the points that depend on an unknown one.

    Tables of ThunderSTORM count from the corner of the first pixel; where nothing said how large
    pixels are, half of another pixel size has to be taken off.

    Args:
        layers: all layers of the viewer.
        movie: the movie's layer, or None.
        pixel_nm: its pixel size, nm.
    """
    if movie is not None:
        movie.scale = (*movie.scale[:-2], pixel_nm, pixel_nm)
    for layer in layers:
        about = layer.metadata.get(ABOUT, {})
        if "corner_pixel_nm" in about and not about["pixel_is_known"]:
            shift = 0.5 * (about["corner_pixel_nm"] - pixel_nm)
            layer.translate = (*layer.translate[:-2], shift, shift)
