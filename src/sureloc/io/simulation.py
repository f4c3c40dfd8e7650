"""A simulated movie on disk: frames, truth, camera, recipe."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import tifffile
import yaml

from sureloc.camera import Camera
from sureloc.io.cameras import write_camera
from sureloc.io.exchange.localizations import Geometry
from sureloc.io.tables import TableWriter
from sureloc.simulate.movie import MovieChunk
from sureloc.simulate.recipe import FrameRecipe
from sureloc.simulate.summary import MovieSummary, SummaryBuilder
from sureloc.table import TRUTH_COLUMNS, Column

MOVIE_FILE = "movie.ome.tif"
# Classic TIFF counts bytes in 32 bits; besides its pixels a frame takes a page header.
_CLASSIC_TIFF_BYTES = 2**32 - 2**25
_PAGE_HEADER_BYTES = 512
_CSV_DECIMALS = 4
_BUFFERED_ROWS = 2**16

README = """\
A movie simulated by sureloc. The same recipe, seed and number of frames make it again:

    {command}

movie.ome.tif         {frames} frames of {height} x {width} px (rows x columns), 16 bit, ADU;
                      pixels of {pixel_nm:g} nm
truth.parquet, .csv   one row for each emitter in each frame
    frame             counted from 0
    x_nm, y_nm        along columns and along rows (downwards); (0, 0) is the CENTRE of the first
                      pixel, so a pixel index is nm / {pixel_nm:g}; drift is included
    photons           expected detected photons in this frame (photo-electrons / quantum efficiency)
    background_photons  expected background under the emitter, detected photons per pixel
    molecule          number of the molecule, the same in every frame
camera.yaml, .npz     offset (ADU), gain (ADU per photo-electron), read variance (ADU^2), ...; the
                      YAML file names the maps in the .npz file
drift.csv             drift of every frame, nm, contained in the truth
recipe.yaml           the recipe with every default filled in
preview.png, generative_chain.png   pictures
"""


def write_simulation(
    folder: Path,
    chunks: Iterable[MovieChunk],
    frame: FrameRecipe,
    frames: int,
    camera: Camera,
    recipe_yaml: str,
    provenance: Mapping[str, object],
) -> MovieSummary:
    """Write a simulated movie as it is made; memory does not grow with its length.

    Args:
        folder: an empty folder.
        chunks: the movie, in order.
        frame: size of a frame.
        frames: number of frames in all.
        camera: the camera that took it.
        recipe_yaml: the resolved recipe.
        provenance: what made the movie, JSON-serializable; `command` stands in the README.

    Returns:
        What the preview shows.

    Raises:
        OSError: a file cannot be written.
        OutputError: the same, for the truth table.
    """
    builder = SummaryBuilder(frame)
    geometry = Geometry(frame.pixel_nm, frame.width, frame.height, frames)
    of_truth = {**provenance, "geometry": asdict(geometry)}
    with (
        TableWriter(folder / "truth.parquet", TRUTH_COLUMNS, of_truth) as truth,
        CsvWriter(folder / "truth.csv", [column.name for column in TRUTH_COLUMNS]) as truth_csv,
        CsvWriter(folder / "drift.csv", ["frame", "x_nm", "y_nm"]) as drift_csv,
    ):
        rows = _RowBuffer(TRUTH_COLUMNS, (truth, truth_csv))

        def images() -> Iterator[npt.NDArray[np.uint16]]:
            for chunk in chunks:
                rows.append(chunk.truth)
                drift_csv.append(_drift_table(chunk))
                builder.add(chunk)
                yield from chunk.adu

        identity = f"{recipe_yaml}{sorted(provenance.items())}".encode()
        shape = frames, frame.height, frame.width
        write_ome_tiff(folder / MOVIE_FILE, images(), shape, frame.pixel_nm, identity)
        rows.flush()
    write_camera_files(folder, camera, frame.pixel_nm)
    (folder / "recipe.yaml").write_text(recipe_yaml, encoding="utf-8")
    readme = README.format(
        command=provenance.get("command", "(not by the command line)"),
        frames=frames,
        height=frame.height,
        width=frame.width,
        pixel_nm=frame.pixel_nm,
    )
    (folder / "README.txt").write_text(readme, encoding="utf-8")
    return builder.summary()


def write_ome_tiff(
    path: Path,
    images: Iterable[npt.NDArray[np.uint16]],
    shape: tuple[int, int, int],
    pixel_nm: float,
    identity: bytes,
) -> None:
    """Write frames to an uncompressed OME-TIFF, BigTIFF if it needs 4 GiB or more.

    Args:
        path: the new file.
        images: frames of shape (rows, columns), drawn one by one.
        shape: (frames, rows, columns).
        pixel_nm: pixel size, nm.
        identity: determines the file's UUID, so that equal movies are equal files.

    Raises:
        OSError: the file cannot be written.
    """
    frames, height, width = shape
    size = frames * (height * width * 2 + _PAGE_HEADER_BYTES)
    pixel_um = pixel_nm * 1e-3
    metadata = {
        "axes": "TYX",
        "PhysicalSizeX": pixel_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": pixel_um,
        "PhysicalSizeYUnit": "µm",
        "UUID": uuid.UUID(bytes=hashlib.sha256(identity).digest()[:16]).urn,
    }
    with tifffile.TiffWriter(path, ome=True, bigtiff=size > _CLASSIC_TIFF_BYTES) as tif:
        data: Any = images  # tifffile's types know iterators of encoded bytes only
        tif.write(
            data,
            shape=shape,
            dtype=np.uint16,
            photometric="minisblack",
            resolution=(1e7 / pixel_nm, 1e7 / pixel_nm),
            resolutionunit="CENTIMETER",
            software="sureloc",
            metadata=metadata,
        )


def write_camera_files(folder: Path, camera: Camera, pixel_nm: float) -> None:
    """Write camera.npz, and camera.yaml that names the maps in it; each can be read alone."""
    write_camera(camera, folder / "camera.npz")
    values: dict[str, Any] = {
        name: value if isinstance(value := getattr(camera, name), float) else f"camera.npz#{name}"
        for name in ("offset_adu", "gain_adu_per_e", "variance_adu2")
    }
    values |= {
        "quantum_efficiency": camera.quantum_efficiency,
        "em_gain": camera.em_gain,
        "saturation_adu": camera.saturation_in(np.uint16),
    }
    note = f"# The movie's pixels are {pixel_nm:g} nm wide in the sample.\n"
    text = note + yaml.safe_dump(values, sort_keys=False)
    (folder / "camera.yaml").write_text(text, encoding="utf-8")


class CsvWriter:
    """Write a table to CSV chunk by chunk: a plain header, a decimal point, four decimals."""

    def __init__(self, path: Path, names: list[str]) -> None:
        """Open a file for the columns `names`.

        Raises:
            OSError: the file cannot be created.
        """
        self._names = names
        self._file: IO[bytes] = path.open("wb")
        self._file.write((",".join(names) + "\n").encode())

    def append(self, table: pd.DataFrame) -> None:
        """Append the rows of a table that has the columns, with finite numbers."""
        rows = pa.Table.from_pandas(table[self._names].round(_CSV_DECIMALS), preserve_index=False)
        options = pyarrow.csv.WriteOptions(include_header=False)
        pyarrow.csv.write_csv(rows, self._file, options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


class _TableSink(Protocol):
    def append(self, table: pd.DataFrame) -> None: ...


class _RowBuffer:
    """Hand rows on in large pieces, gathered in arrays that never move.

    Keeping the chunks' own small tables instead would cost far more than their size: they lie
    between the large aligned arrays of the simulation, and glibc before 2.38 does not use the gaps
    again (4 MB a chunk, 5 GB in 100,000 frames).
    """

    def __init__(self, columns: Sequence[Column], sinks: Sequence[_TableSink]) -> None:
        self._arrays = {c.name: np.empty(_BUFFERED_ROWS, c.dtype) for c in columns}
        self._sinks = sinks
        self._used = 0

    def append(self, table: pd.DataFrame) -> None:
        done = 0
        while done < len(table):
            count = min(len(table) - done, _BUFFERED_ROWS - self._used)
            for name, array in self._arrays.items():
                values = table[name].to_numpy()[done : done + count]
                array[self._used : self._used + count] = values
            self._used += count
            done += count
            if self._used == _BUFFERED_ROWS:
                self.flush()

    def flush(self) -> None:
        rows = pd.DataFrame({name: array[: self._used] for name, array in self._arrays.items()})
        for sink in self._sinks:
            sink.append(rows.copy())
        self._used = 0


def _drift_table(chunk: MovieChunk) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "frame": chunk.first_frame + np.arange(chunk.frames),
            "x_nm": chunk.drift_nm[:, 0],
            "y_nm": chunk.drift_nm[:, 1],
        }
    )
