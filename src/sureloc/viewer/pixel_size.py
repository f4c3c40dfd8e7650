"""The pixel size of what is shown: what a file does not say, the user may."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sureloc.viewer.movie_layers import ABOUT
from sureloc.viewer.table_layers import table_layer


def give_pixel_size(layers: Iterable[Any], movie: Any, pixel_nm: float) -> None:
    """Stretch a movie to a pixel size, and read tables again that depend on an unknown one.

    Some tables count from the corner of the first pixel, and some in pixels. What was read under a
    pixel size that nothing had told is read again under the right one; what was done to the points
    by hand is lost.

    Args:
        layers: all layers of the viewer.
        movie: the movie's layer, or None.
        pixel_nm: its pixel size, nm.

    Raises:
        InputError: a table cannot be read any more.
    """
    if movie is not None:
        movie.scale = (*movie.scale[:-2], pixel_nm, pixel_nm)
    for layer in layers:
        about = layer.metadata.get(ABOUT, {})
        if about.get("table") and not about["pixel_is_known"] and about["pixel_nm"] != pixel_nm:
            _read_again(layer, about, pixel_nm)


def _read_again(layer: Any, about: dict[str, Any], pixel_nm: float) -> None:
    places, settings, _ = table_layer(about["table"], pixel_nm)
    layer.selected_data = set()  # sizes and colours go to selected points only, if there are any
    layer.data = places
    for name in ("size", "border_color", "features"):  # widgets look when features change: last
        setattr(layer, name, settings[name])
    layer.metadata = {**layer.metadata, ABOUT: {**about, "pixel_nm": pixel_nm}}
