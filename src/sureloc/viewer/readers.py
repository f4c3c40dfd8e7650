"""What napari asks of a reader: does it know this path, and how is it read?

Each function gives a reader, or None for paths that it does not know; looking is cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sureloc.io.exchange.formats import is_table
from sureloc.io.movies import FILE_SUFFIXES, TIFF_SUFFIXES
from sureloc.viewer.movie_layers import LayerData, movie_layer
from sureloc.viewer.run_layers import is_run, run_layers
from sureloc.viewer.table_layers import table_layer

Paths = str | Sequence[str]
Reader = Callable[[Paths], list[LayerData]]

_ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")


def movie_reader(path: Paths) -> Reader | None:
    """Give the reader of a movie, of any format that `sureloc localize` reads."""
    return _for_one(path, _looks_like_a_movie, lambda one: [movie_layer(one)])


def table_reader(path: Paths) -> Reader | None:
    """Give the reader of a table, of any format that `sureloc convert` reads."""
    return _for_one(path, is_table, lambda one: [table_layer(one)])


def run_reader(path: Paths) -> Reader | None:
    """Give the reader of a folder that `sureloc localize` left, or its `run.json` or images."""
    return _for_one(path, is_run, run_layers)


def _for_one(
    paths: Paths, known: Callable[[Path], bool], read: Callable[[Path], list[LayerData]]
) -> Reader | None:
    one = _only(paths)
    if one is None or not known(one):
        return None

    def reader(paths: Paths) -> list[LayerData]:
        path = _only(paths)
        return [] if path is None else read(path)

    return reader


def _only(paths: Paths) -> Path | None:
    """Give the only path; several at once are napari's to stack."""
    if isinstance(paths, str):
        return Path(paths)
    return Path(paths[0]) if len(paths) == 1 else None


def _looks_like_a_movie(path: Path) -> bool:
    if path.is_dir():
        return not is_run(path) and (
            path.suffix.lower() == ".zarr"
            or any((path / name).exists() for name in _ZARR_FILES)
            or any(file.suffix.lower() in TIFF_SUFFIXES for file in path.iterdir())
        )
    return path.suffix.lower() in FILE_SUFFIXES
