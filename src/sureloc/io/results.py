"""The folder that `sureloc localize` leaves: tables as they grow, images, and their origin.

The images are OME-Zarr 0.4 (zarr format 2), the version that Bio-Formats, Fiji and QuPath read; one
image of five channels on the super-resolution grid, so that every viewer overlays them.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.io.exchange.localizations import Geometry
from sureloc.io.exchange.thunderstorm import ThunderstormWriter
from sureloc.io.run_folder import DRAWS, LOCALIZATIONS, THUNDERSTORM
from sureloc.io.tables import TableWriter
from sureloc.localize.images import ImageSums
from sureloc.localize.tally import shifted
from sureloc.table import DRAW_COLUMNS, LOCALIZATION_COLUMNS

Array = npt.NDArray[np.float64]

_CHUNK_PX = 1024
_LEAST_MEAN = 0.01 / (2 * math.pi)  # a hundredth of one emitter's peak; below, a ratio says nothing
_VERSIONS_OF = ("numpy", "scipy", "numba", "pandas", "pyarrow", "zarr", "torch")


@dataclass(frozen=True)
class Place:
    """Where a localized region lies in the whole movie.

    Attributes:
        first_row, first_column: of the region in the camera frame.
        first_frame: of the localized frames in the movie.
        pixel_nm: pixel size, nm.
    """

    first_row: int
    first_column: int
    first_frame: int
    pixel_nm: float


class TablesWriter:
    """Write the tables of a run in the order of its frames; a context manager."""

    def __init__(
        self,
        folder: Path,
        place: Place,
        geometry: Geometry,
        provenance: Mapping[str, object],
    ) -> None:
        """Open the tables of localizations, as Parquet and as ThunderSTORM's CSV, and of draws.

        Args:
            folder: where they go.
            place: what is added to positions and frame numbers, so that they count in the movie.
            geometry: the camera frame, of which ThunderSTORM's columns tell.
            provenance: what made them, JSON-serializable.

        Raises:
            OutputError: a file cannot be created.
        """
        self._place = place
        self._stack = ExitStack()
        self._rows = TableWriter(folder / LOCALIZATIONS, LOCALIZATION_COLUMNS, provenance)
        self._draws = TableWriter(folder / DRAWS, DRAW_COLUMNS, provenance)
        self._csv = ThunderstormWriter(folder / THUNDERSTORM, geometry)

    def append(self, table: pd.DataFrame, draws: pd.DataFrame) -> None:
        """Append localizations and draws of the next frames, in the localized part's numbers."""
        table = self._in_the_movie(table)
        self._rows.append(table)
        self._csv.append(table)
        self._draws.append(self._in_the_movie(draws))

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the tables so far, a sentence each."""
        return tuple(f"{THUNDERSTORM}: {note}" for note in self._csv.notes)

    def _in_the_movie(self, table: pd.DataFrame) -> pd.DataFrame:
        place = self._place
        moved = shifted(
            table, place.first_column * place.pixel_nm, place.first_row * place.pixel_nm
        )
        return moved.assign(frame=table["frame"] + place.first_frame)

    def __enter__(self) -> Self:
        for writer in (self._rows, self._draws, self._csv):
            self._stack.enter_context(writer)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)


# --- Images -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Channel:
    """One channel of the image file.

    Attributes:
        name: for viewers.
        unit: of its values.
        colour: hexadecimal RGB for viewers.
    """

    name: str
    unit: str
    colour: str


CHANNELS = (
    Channel("posterior mean", "emitters per pixel", "FFFFFF"),
    Channel("posterior sd", "emitters per pixel", "00FF80"),
    Channel("sd / mean", "1", "FF8000"),
    Channel("trusted", "1 = yes, 0 = no", "0080FF"),
    Channel("widefield sum", "photo-electrons per camera pixel", "808080"),
)


def relative_sd(mean: Array, sd: Array) -> Array:
    """Give sd / mean where a mean is worth the name, and 0 elsewhere."""
    seen = mean >= _LEAST_MEAN
    return np.divide(sd, mean, out=np.zeros_like(mean), where=seen)


class ImagesWriter:
    """Write the super-resolution images as one OME-Zarr image of five channels (`CHANNELS`).

    Rows come in bands, from top to bottom, so that memory does not grow with the image.
    """

    def __init__(self, path: Path, images: ImageSums) -> None:
        """Create the image.

        Args:
            path: the new folder.
            images: the sums over the movie.

        Raises:
            OSError: a file cannot be written.
        """
        import zarr

        height, width = images.fine_shape
        self._images = images
        self._group = zarr.create_group(store=str(path), zarr_format=2)
        self._array = self._group.create_array(
            "0",
            shape=(len(CHANNELS), height, width),
            chunks=(1, min(_CHUNK_PX, height), min(_CHUNK_PX, width)),
            dtype="float32",
            chunk_key_encoding={"name": "v2", "separator": "/"},
            fill_value=0.0,
        )
        self._highest = [0.0] * len(CHANNELS)

    def write(self, rows: tuple[int, int], channels: Iterable[npt.NDArray[Any]]) -> None:
        """Write rows (first, last + 1) of every channel, in the order of `CHANNELS`."""
        for index, band in enumerate(channels):
            self._array[index, slice(*rows)] = band.astype(np.float32)
            self._highest[index] = max(self._highest[index], float(np.float32(band.max())))

    def finish(self, place: Place, provenance: Mapping[str, object]) -> None:
        """Say what the image is: `place` in the movie, and what made it, JSON-serializable."""
        windows = [(0.0, high or 1.0) for high in self._highest]
        self._group.attrs.update(_ome_metadata(self._images, windows, place, provenance))


def enlarged_rows(image: npt.NDArray[Any], zoom: int, rows: tuple[int, int]) -> npt.NDArray[Any]:
    """Repeat every pixel of a camera image on the super-resolution grid; give some of its rows."""
    return image[np.arange(*rows) // zoom].repeat(zoom, axis=1)


def _ome_metadata(
    images: ImageSums,
    windows: list[tuple[float, float]],
    place: Place,
    provenance: Mapping[str, object],
) -> dict[str, Any]:
    fine = images.fine_pixel_nm
    # Centre of the first fine pixel where the centre of the camera's pixel (0, 0) is (0, 0).
    corner = -0.5 * place.pixel_nm + 0.5 * fine
    translation = [
        0.0,
        corner + place.first_row * place.pixel_nm,
        corner + place.first_column * place.pixel_nm,
    ]
    return {
        "multiscales": [
            {
                "version": "0.4",
                "name": "sureloc",
                "axes": [
                    {"name": "c", "type": "channel"},
                    {"name": "y", "type": "space", "unit": "nanometer"},
                    {"name": "x", "type": "space", "unit": "nanometer"},
                ],
                "datasets": [
                    {
                        "path": "0",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [1.0, fine, fine]},
                            {"type": "translation", "translation": translation},
                        ],
                    }
                ],
            }
        ],
        "omero": {
            "version": "0.4",
            "channels": [
                {
                    "label": channel.name,
                    "color": channel.colour,
                    "active": index == 0,
                    "window": {"min": low, "start": low, "end": high, "max": high},
                }
                for index, (channel, (low, high)) in enumerate(zip(CHANNELS, windows, strict=True))
            ],
        },
        "sureloc": {
            "units": {channel.name: channel.unit for channel in CHANNELS},
            "frames": images.frames,
            "note": "trusted and widefield sum are camera pixels repeated on the finer grid; "
            "sd / mean is 0 where the mean is below a hundredth of one emitter's peak",
            "provenance": dict(provenance),
        },
    }


# --- How it came about --------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Give the versions of sureloc, Python and what the results may depend on."""
    return {
        "sureloc": metadata.version("sureloc"),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _VERSIONS_OF},
    }


def write_run(path: Path, content: Mapping[str, object]) -> None:
    """Write the record of a run as JSON that people can read too.

    Raises:
        OSError: the file cannot be written.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
