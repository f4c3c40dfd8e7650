"""The folder that `sureloc localize` leaves, as layers that lie exactly over the movie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

from sureloc.errors import InputError
from sureloc.io.results import CHANNELS
from sureloc.io.run_folder import IMAGES, LOCALIZATIONS, RUN
from sureloc.io.sources import read_source
from sureloc.viewer.movie_layers import ABOUT, AXES, UNITS, LayerData
from sureloc.viewer.table_layers import DOUBTED_COLOUR, points_layer

MEAN, SD, TRUST = (
    next(k for k, channel in enumerate(CHANNELS) if channel.name == name)
    for name in ("posterior mean", "posterior sd", "trusted")
)
_WHITEST = 99.7  # percentile of the pixels that hold anything; few pixels hold much of it all


def is_run(path: str | Path) -> bool:
    """Tell whether a folder, or something in it that stands for it, is a run's results."""
    folder = folder_of_run(path)
    return all((folder / name).exists() for name in (RUN, LOCALIZATIONS, IMAGES))


def folder_of_run(path: str | Path) -> Path:
    """Give the folder of a run, of which `path` may be the record or the images inside."""
    path = Path(path)
    return path.parent if path.name in (RUN, IMAGES) else path


def run_layers(path: str | Path) -> list[LayerData]:
    """Give the results of a run: posterior mean and sd, where not to trust them, and the rows.

    Args:
        path: the folder, or `run.json` or `images.ome.zarr` inside.

    Returns:
        From the bottom up: two images on the super-resolution grid, labels (1 = do not trust) on
        the same grid, and points, of which every row is shown in its frame.

    Raises:
        InputError: a file is missing, damaged or of another form.
    """
    folder = folder_of_run(path)
    channels, scale, translate = _images(folder / IMAGES)
    source = read_source(folder)
    about = {"run": str(folder.resolve()), **_facts(source.record, folder / RUN)}
    name = source.name
    place = {
        "scale": scale,
        "translate": translate,
        "axis_labels": AXES[1:],
        "units": UNITS[1:],
        "metadata": {ABOUT: about},
    }
    return [
        _image(channels[MEAN], f"{name}: posterior mean", "inferno", place),
        _image(channels[SD], f"{name}: posterior sd", "green", {**place, "visible": False}),
        _doubts(channels[TRUST], f"{name}: do not trust", place),
        points_layer(source.table, f"{name}: localizations", about),
    ]


def _image(image: da.Array, name: str, colours: str, settings: dict[str, Any]) -> LayerData:
    seen = np.asarray(image)
    seen = seen[seen > 0]
    white = float(np.percentile(seen, _WHITEST)) if seen.size else 1.0
    return (
        image,
        {
            "name": name,
            "colormap": colours,
            "contrast_limits": (0.0, white),
            "blending": "additive",
            **settings,
        },
        "image",
    )


def _doubts(trusted: da.Array, name: str, settings: dict[str, Any]) -> LayerData:
    doubted = (trusted < 0.5).astype(np.uint8)
    colours = {0: "transparent", 1: DOUBTED_COLOUR, None: "transparent"}
    return doubted, {"name": name, "opacity": 0.35, "colormap": colours, **settings}, "labels"


def _images(path: Path) -> tuple[da.Array, tuple[float, float], tuple[float, float]]:
    """Give the channels of a run's image, and scale and place of the first pixel's centre, nm."""
    import zarr

    try:
        group = zarr.open_group(str(path), mode="r")
        attributes: Any = group.attrs["multiscales"]
        moves = attributes[0]["datasets"][0]["coordinateTransformations"]
        scale = next(one["scale"] for one in moves if one["type"] == "scale")
        translate = next(one["translation"] for one in moves if one["type"] == "translation")
        stored: Any = group["0"]
        channels: da.Array = da.from_array(stored, chunks=stored.chunks)
    except Exception as error:  # zarr raises many kinds for damaged metadata
        raise InputError(
            f"The images {path} cannot be read ({error!r}). Run `sureloc localize` again."
        ) from error
    if channels.ndim != 3 or channels.shape[0] != len(CHANNELS):
        raise InputError(
            f"The images {path} have shape {channels.shape}; {len(CHANNELS)} channels of rows and "
            "columns are needed. Run `sureloc localize` again."
        )
    return (
        channels,
        (float(scale[1]), float(scale[2])),
        (float(translate[1]), float(translate[2])),
    )


def _facts(record: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Give what a viewer wants to know of a run: its pixel size and its verdict."""
    try:
        return {
            "pixel_nm": float(record["pixel_nm"]),
            "pixel_is_known": True,
            "verdict": str(record["verdict"]["sentence"]),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"The record {path} of the run cannot be read ({error!r}). Run `sureloc localize` "
            "again."
        ) from error
