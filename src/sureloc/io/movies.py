"""Movies opened lazily, one interface: TIFF, folders of TIFFs, NDTiff, OME-Zarr, ND2 and others.

Here are TIFF, NDTiff, OME-Zarr and ND2; `movies_raw` has raw numbers, `movies_vendor` CZI and LIF.

A movie is a stack of camera frames in analogue-digital units. Opening one reads its headers only;
`Movie.read` brings a chunk of frames into memory, so that a movie may be larger than memory.
"""

from __future__ import annotations

import math
import re
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

import numpy as np

from sureloc.errors import MovieError
from sureloc.io.frame_source import (
    COPY_AGAIN,
    Acquisition,
    Frames,
    FrameSource,
    PixelSize,
    first_known,
    frame_axis,
    length_nm,
    milliseconds,
    name_or_none,
    pixel_size,
)
from sureloc.io.movies_raw import dax_source, picasso_source
from sureloc.io.movies_vendor import CziSource, LifSource, parsed_xml
from sureloc.io.paths import check_movie_exists
from sureloc.io.regions import MIN_SIDE_PX, parse_frames, parse_region

TIFF_SUFFIXES = (".tif", ".tiff")
NDTIFF_INDEX = "NDTiff.index"
KNOWN_FORMATS = (
    "a TIFF or OME-TIFF stack (.tif, .tiff), a folder of TIFFs, NDTiff, OME-Zarr (.zarr), ND2 "
    "(.nd2), CZI (.czi), LIF (.lif), Picasso's .raw with .yaml, or .dax with .inf"
)


@dataclass(frozen=True)
class Movie:
    """A movie, or a region of one, whose frames are read on demand.

    Attributes:
        path: the file or folder.
        rows: the rows of the camera frame that `read` gives, as a slice.
        columns: its columns, as a slice.
        frame_range: the frames of the file that this movie consists of, as a slice.
    """

    path: Path
    rows: slice
    columns: slice
    frame_range: slice
    _source: FrameSource = field(repr=False)
    # Parts of one movie share an open file, whose position threads must not move for each other.
    _reading: Lock = field(default_factory=Lock, repr=False, compare=False)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return int(self.frame_range.stop - self.frame_range.start)

    @property
    def height(self) -> int:
        """Rows of a frame."""
        return int(self.rows.stop - self.rows.start)

    @property
    def width(self) -> int:
        """Columns of a frame."""
        return int(self.columns.stop - self.columns.start)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return self.frames, self.height, self.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values in the file, in native byte order."""
        return self._source.dtype

    @property
    def pixel_nm(self) -> float | None:
        """Pixel size in the sample, nm, if the file's metadata state one for square pixels."""
        return self._source.pixel_size.square_nm

    @property
    def oblong_pixel_nm(self) -> tuple[float, float] | None:
        """Sizes of pixels along x and y, nm, if the metadata state some that are not square."""
        return self._source.pixel_size.oblong_nm

    def check_square_pixels(self) -> None:
        """Raise `MovieError` where the file says that pixels are not square."""
        if self.oblong_pixel_nm is not None:
            x_nm, y_nm = self.oblong_pixel_nm
            raise MovieError(
                f"{self.path} says that its pixels are {x_nm:g} nm along x and {y_nm:g} nm along "
                "y; sureloc needs square pixels. If the file is wrong, give the size of its pixels "
                "with --pixel-nm; if not, record with equal binning along both axes."
            )

    @property
    def exposure_ms(self) -> float | None:
        """Exposure time of a frame, ms, if the file's metadata state one."""
        return self._source.acquisition.exposure_ms

    @property
    def camera_name(self) -> str | None:
        """Name or model of the camera, if the file's metadata state one."""
        return self._source.acquisition.camera_name

    @property
    def full_shape(self) -> tuple[int, int]:
        """Rows and columns of the file's whole frame, which a camera's maps may describe."""
        return self._source.height, self._source.width

    def cut(self, roi: str | None = None, frames: str | None = None) -> Movie:
        """Give the part that people ask for; `select` reads nothing either.

        Args:
            roi, frames: "y0:y1,x0:x1" and "a:b" (`sureloc.io.regions`); None takes all.

        Raises:
            InputError: a text has another form, or the part is not inside this movie.
        """
        rows, columns = parse_region(roi, self.full_shape) if roi else (None, None)
        return self.select(rows, columns, parse_frames(frames, self.frames) if frames else None)

    def select(
        self,
        rows: slice | None = None,
        columns: slice | None = None,
        frames: slice | None = None,
    ) -> Movie:
        """Give a part of this movie, which shares its open file.

        Args:
            rows, columns, frames: slices with start and stop inside this movie, as the parsers
                `parse_region` and `parse_frames` give them; None keeps everything.

        Raises:
            MovieError: a slice reaches outside the movie or is empty, or the region is too small.
        """
        part = replace(
            self,
            rows=_inner_slice(self.rows, rows, "rows"),
            columns=_inner_slice(self.columns, columns, "columns"),
            frame_range=_inner_slice(self.frame_range, frames, "frames"),
        )
        _check_size(part.path, part.shape)
        return part

    def read(self, first: int = 0, last: int | None = None) -> Frames:
        """Read frames into memory.

        Args:
            first, last: the frames first..last - 1 of this movie; last None means the end.

        Returns:
            Values in ADU, shape (last - first, height, width), native byte order, file's dtype.

        Raises:
            MovieError: the range is not inside the movie, a frame cannot be read, or a value is
                NaN or infinite.
        """
        last = self.frames if last is None else last
        if not 0 <= first <= last <= self.frames:
            raise MovieError(
                f"Frames {first}:{last} of {self.path} were asked for; it has frames "
                f"0:{self.frames}. Ask for a range inside."
            )
        start = self.frame_range.start
        with self._reading:
            chunk = self._source.read(start + first, start + last)[:, self.rows, self.columns]
        if chunk.dtype.kind == "f":
            origin = (start + first, self.rows.start, self.columns.start)
            _check_finite(self.path, chunk, origin)
        return np.ascontiguousarray(chunk)

    def chunks(self, frames: int) -> Iterator[tuple[int, Frames]]:
        """Give (index of its first frame, chunk) for successive chunks of up to `frames` frames."""
        if frames < 1:
            raise MovieError(f"A chunk of {frames} frames was asked for; it must hold 1 or more.")
        for first in range(0, self.frames, frames):
            yield first, self.read(first, min(first + frames, self.frames))

    def close(self) -> None:
        """Release the file; reading afterwards is an error."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_movie(path: str | Path) -> Movie:
    """Open a movie without reading its frames.

    Args:
        path: a TIFF or OME-TIFF stack, a folder of TIFFs (in natural order of their names) or
            of NDTiff, an OME-Zarr folder (zarr formats 2 and 3; a bare zarr array of shape (frames,
            rows, columns) too), an ND2, CZI or LIF file, or a `.raw` or `.dax` with the file that
            describes it beside it.

    Returns:
        The movie; close it, or use it as a context manager.

    Raises:
        MovieError: the path is missing, of unknown format, damaged, empty, in colour, has several
            channels or planes, or frames of fewer than 8 rows or columns.
    """
    path = Path(path)
    check_movie_exists(path)
    source = _open_source(path)
    movie = Movie(
        path, slice(0, source.height), slice(0, source.width), slice(0, source.frames), source
    )
    try:
        _check_size(path, movie.shape)
        _check_dtype(path, source.dtype)
    except MovieError:
        source.close()
        raise
    return movie


def _inner_slice(outer: slice, inner: slice | None, what: str) -> slice:
    if inner is None:
        return outer
    length = outer.stop - outer.start
    start = 0 if inner.start is None else inner.start
    stop = length if inner.stop is None else inner.stop
    if inner.step not in (None, 1) or not 0 <= start < stop <= length:
        raise MovieError(
            f"The part {start}:{stop} of the {what} is not inside 0:{length}, or is empty."
        )
    return slice(outer.start + start, outer.start + stop)


def _check_size(path: Path, shape: tuple[int, int, int]) -> None:
    frames, height, width = shape
    if frames < 1:
        raise MovieError(f"{path} holds no frames; a movie needs 1 or more.")
    if min(height, width) < MIN_SIDE_PX:
        raise MovieError(
            f"The frames of {path} have {height} rows and {width} columns; each must be "
            f"{MIN_SIDE_PX} or more. Check that the axes are frames, rows, columns."
        )


def _check_dtype(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "uif":
        raise MovieError(
            f"{path} holds values of type {dtype}; whole or floating-point numbers are needed. "
            "Export the raw camera frames as 16-bit TIFF."
        )


def _check_finite(path: Path, chunk: Frames, origin: tuple[int, int, int]) -> None:
    bad = ~np.isfinite(chunk)
    if bad.any():
        frame, row, column = np.argwhere(bad)[0] + origin
        raise MovieError(
            f"{path} holds {int(bad.sum())} value(s) that are NaN or infinite, the first in frame "
            f"{frame}, row {row}, column {column}; every value must be finite. Crop these "
            "pixels away or export the raw camera frames."
        )


def _open_source(path: Path) -> FrameSource:
    if path.is_dir():
        if path.suffix.lower() == ".zarr" or any(
            (path / name).exists() for name in ("zarr.json", ".zgroup", ".zarray")
        ):
            return _ZarrSource(path)
        for folder in (path, path / "Full resolution"):
            if (folder / NDTIFF_INDEX).is_file():
                return _ndtiff_source(folder)
        return _FolderSource(path)
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        return _NdTiffSource(path) if _is_ndtiff(path) else _TiffSource(path)
    if suffix in _OPENERS:
        return _OPENERS[suffix](path)
    raise MovieError(
        f"{path} has the unknown extension {suffix or '(none)'!r}; sureloc reads {KNOWN_FORMATS}. "
        "Convert it, for instance with Fiji or bioformats2raw."
    )


# --- TIFF ---------------------------------------------------------------------------------------


class _TiffSource:
    """One TIFF file (or the files that an OME-TIFF names): contiguous data or page by page."""

    def __init__(self, path: Path, *, alone: bool = False) -> None:
        """Open `path`; `alone` ignores metadata that name further files."""
        import tifffile

        self._path = path
        flags: Any = {"is_ome": False, "is_mmstack": False} if alone else {}
        self._series: Any
        self._pages: Any
        self._further: Any = None
        try:
            self._tif = tifffile.TiffFile(path, **flags)
        except (tifffile.TiffFileError, OSError, ValueError, struct.error) as error:
            raise MovieError(f"{path} cannot be read as TIFF ({error}). {COPY_AGAIN}") from error
        try:
            self._open()
        except MovieError:
            self._tif.close()
            raise
        except (tifffile.TiffFileError, OSError, ValueError, LookupError, struct.error) as error:
            self._tif.close()
            raise MovieError(f"{path} cannot be read as TIFF ({error}). {COPY_AGAIN}") from error

    def _open(self) -> None:
        pages = _check_page_chain(self._path, self._tif)
        if pages == 0:
            raise MovieError(f"{self._path} holds no frames; a movie needs 1 or more.")
        first = self._tif.pages.first
        _check_grey(self._path, first)
        series = self._tif.series
        self._series = series[0]
        if len(series) > 1:
            self._pages = _equal_series_pages(self._path, series)
            self.frames = len(self._pages)
        else:
            self.frames = frame_axis(
                self._path, self._series.axes, self._series.shape, _tiff_frame_axes(self._series)
            )
            self._pages = self._series.pages
        self.height, self.width = (int(n) for n in self._series.shape[-2:])
        self.dtype = np.dtype(self._series.dtype).newbyteorder("=")
        self.pixel_size = _tiff_pixel_size(self._tif)
        self.acquisition = _tiff_acquisition(self._tif)
        self._contiguous = len(series) == 1 and self._series.dataoffset is not None
        self._check_end()

    def _check_end(self) -> None:
        size = self._tif.filehandle.size
        if self._contiguous:
            end = self._series.dataoffset + self.frames * self._frame_bytes
        else:
            end = _last_byte(self._pages[len(self._pages) - 1])
            if len(self._pages) < self.frames:
                raise MovieError(
                    f"{self._path} announces {self.frames} frames but holds "
                    f"{len(self._pages)}. {COPY_AGAIN}"
                )
        if end > size:
            raise MovieError(
                f"{self._path} is truncated: its frames need {end} bytes but it has {size}. "
                f"{COPY_AGAIN}"
            )

    @property
    def _frame_bytes(self) -> int:
        return int(self.height * self.width * self.dtype.itemsize)

    def read(self, first: int, last: int) -> Frames:
        if self._contiguous:
            return self._read_contiguous(first, last)
        chunk = np.empty((last - first, self.height, self.width), self.dtype)
        for i in range(first, last):
            chunk[i - first] = self._read_page(i)
        return chunk

    def _read_contiguous(self, first: int, last: int) -> Frames:
        handle = self._tif.filehandle
        handle.seek(self._series.dataoffset + first * self._frame_bytes)
        raw = handle.read((last - first) * self._frame_bytes)
        stored = self.dtype.newbyteorder(self._tif.byteorder)
        values = np.frombuffer(raw, stored).reshape(-1, self.height, self.width)
        return values.astype(self.dtype, copy=False)

    def _read_page(self, index: int) -> Frames:
        page = self._pages[index]
        if page is None:
            raise MovieError(
                f"Frame {index} of {self._path} lies in a file that is missing. Put all files of "
                "the acquisition into one folder."
            )
        try:
            self._open_file_of(page)
            values = page.asarray()
        except Exception as error:  # codecs raise what they like: zlib.error, struct.error, ...
            raise MovieError(
                f"Frame {index} of {self._path} cannot be decoded ({error}). If its compression is "
                f"not supported, save it uncompressed; otherwise: {COPY_AGAIN}"
            ) from error
        if values.shape != (self.height, self.width):
            raise MovieError(
                f"Frame {index} of {self._path} has shape {values.shape} but the first has "
                f"{(self.height, self.width)}; all must be equal."
            )
        return np.asarray(values)

    def _open_file_of(self, page: Any) -> None:
        """Open the file that a page lies in; of further files one at a time stays open."""
        handle = page.parent.filehandle
        if handle is self._tif.filehandle or handle is self._further:
            return
        self._close_further()
        handle.open()
        self._further = handle

    def _close_further(self) -> None:
        if self._further is not None:
            self._further.close()
            self._further = None

    def close(self) -> None:
        self._close_further()
        self._tif.close()


_IMAGEJ_CHANNELS = 7


def _tiff_frame_axes(series: Any) -> str:
    """Give the letters of the axes that may count frames in a TIFF of this kind."""
    if series.kind != "imagej":
        return "TIQ"
    # ImageJ calls the images of every plain stack "slices" (Z), and Python scripts that save for
    # ImageJ without naming axes label them channels (C), of which ImageJ itself allows 7.
    channels = dict(zip(series.axes, series.shape, strict=True)).get("C", 1)
    return "TIQZC" if channels > _IMAGEJ_CHANNELS else "TIQZ"


def _check_page_chain(path: Path, tif: Any) -> int:
    """Walk the file's chain of page headers and give their number.

    tifffile ends the chain silently where a file was cut off, which would shorten the movie.
    """
    handle, layout = tif.filehandle, tif.tiff
    seen: set[int] = set()
    # The first offset follows the signature: 4 bytes in classic TIFF, 8 in BigTIFF.
    handle.seek(4 if layout.offsetsize == 4 else 8)
    while True:
        raw = handle.read(layout.offsetsize)
        if len(raw) < layout.offsetsize:
            raise _truncated(path, len(seen))
        (offset,) = struct.unpack(layout.offsetformat, raw)
        if offset == 0:
            return len(seen)
        if offset in seen:
            raise MovieError(
                f"{path} is damaged: its pages form a loop after frame {len(seen) - 1}. "
                f"{COPY_AGAIN}"
            )
        seen.add(offset)
        handle.seek(offset)
        raw = handle.read(layout.tagnosize)
        if len(raw) < layout.tagnosize:
            raise _truncated(path, len(seen) - 1)
        (tags,) = struct.unpack(layout.tagnoformat, raw)
        handle.seek(offset + layout.tagnosize + tags * layout.tagsize)


def _truncated(path: Path, pages: int) -> MovieError:
    return MovieError(
        f"{path} is truncated: it announces more frames than the {pages} it holds whole. "
        f"{COPY_AGAIN}"
    )


def _check_grey(path: Path, page: Any) -> None:
    if page.samplesperpixel != 1 or page.photometric in (2, 3):  # RGB, palette
        raise MovieError(
            f"{path} is a colour image ({page.samplesperpixel} sample(s) a pixel); raw grey-scale "
            "camera frames are needed. In ImageJ, colour cannot be turned back into counts: export "
            "the movie again from the acquisition software."
        )


def _equal_series_pages(path: Path, series: Sequence[Any]) -> list[Any]:
    """Give all pages of a file whose frames were appended one by one, each its own series."""
    first = series[0]
    if first.kind == "ome" or any(
        s.axes != "YX" or s.shape != first.shape or s.dtype != first.dtype for s in series
    ):
        shapes = ", ".join(str(tuple(s.shape)) for s in series[:4])
        raise MovieError(
            f"{path} holds {len(series)} image series of shapes {shapes}"
            f"{', ...' if len(series) > 4 else ''}; a movie is one series. Export the one to be "
            "localized as a file of its own."
        )
    return [s.pages[0] for s in series]


def _last_byte(page: Any) -> int:
    if page is None:
        return 0
    return max(
        (offset + n for offset, n in zip(page.dataoffsets, page.databytecounts, strict=True)),
        default=0,
    )


def _tiff_pixel_size(tif: Any) -> PixelSize:
    page = tif.pages.first
    description = str(page.description)
    if "<OME" in description:
        return _ome_pixel_size(description)
    if tif.is_imagej and tif.imagej_metadata:
        return _imagej_pixel_size(page, tif.imagej_metadata.get("unit"))
    if tif.is_micromanager:
        summary = (tif.micromanager_metadata or {}).get("Summary", {})
        of_frame = _micromanager_frame(page).get("PixelSizeUm")
        stated = summary.get("PixelSize_um", summary.get("PixelSizeUm")) or of_frame
        size_nm = length_nm(stated, "um")
        return pixel_size(size_nm, size_nm)
    return PixelSize()


def _micromanager_frame(page: Any) -> dict[str, Any]:
    """Give what Micro-Manager says about one frame."""
    tag = page.tags.get("MicroManagerMetadata")
    return tag.value if tag is not None and isinstance(tag.value, dict) else {}


def _tiff_acquisition(tif: Any) -> Acquisition:
    page = tif.pages.first
    description = str(page.description)
    if "<OME" in description:
        return _ome_acquisition(description)
    of_frame = _micromanager_acquisition(_micromanager_frame(page))
    if of_frame != Acquisition() or not tif.is_micromanager:
        return of_frame
    return _micromanager_acquisition((tif.micromanager_metadata or {}).get("Summary", {}))


def _micromanager_acquisition(said: Mapping[str, Any]) -> Acquisition:
    camera = _micromanager_value(said.get("Core-Camera") or said.get("Camera"))
    # A device's name is chosen by people; its property tells the model.
    model = _micromanager_value(said.get(f"{camera}-CameraName"))
    exposure = said.get("Exposure-ms", said.get("Exposure"))
    return Acquisition(
        milliseconds(_micromanager_value(exposure), "ms"), name_or_none(model or camera)
    )


def _micromanager_value(value: object) -> object:
    """Give a property, which later versions wrap in {"PropVal": ...}."""
    return value.get("PropVal") if isinstance(value, Mapping) else value


def _ome_elements(description: str, name: str) -> list[ElementTree.Element]:
    root = parsed_xml(description)
    if root is None:
        return []
    return [element for element in root.iter() if element.tag.rpartition("}")[2] == name]


def _ome_pixel_size(description: str) -> PixelSize:
    pixels = next(iter(_ome_elements(description, "Pixels")), None)
    if pixels is None:
        return PixelSize()
    sizes = (
        length_nm(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "XY"
    )
    return pixel_size(*sizes)


def _ome_acquisition(description: str) -> Acquisition:
    exposures = (
        milliseconds(plane.get("ExposureTime"), plane.get("ExposureTimeUnit", "s"))
        for plane in _ome_elements(description, "Plane")
    )
    names = (
        name_or_none(f"{one.get('Manufacturer', '')} {one.get('Model', '')}")
        for one in _ome_elements(description, "Detector")
    )
    return Acquisition(first_known(exposures), first_known(names))


def _imagej_pixel_size(page: Any, unit: object) -> PixelSize:
    def one(name: str) -> float | None:
        tag = page.tags.get(name)
        if tag is None or 0 in tag.value:
            return None
        pixels, units = tag.value
        return length_nm(units / pixels, unit)

    return pixel_size(one("XResolution"), one("YResolution"))


class _FolderSource:
    """TIFF files of one folder, one after the other in natural order of their names."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = sorted(
            (
                file
                for file in path.iterdir()
                if file.suffix.lower() in TIFF_SUFFIXES and not file.name.startswith(".")
            ),
            key=lambda file: _natural_key(file.name),
        )
        if not self._files:
            raise MovieError(
                f"The folder {path} holds no TIFF files and no OME-Zarr; sureloc reads "
                f"{KNOWN_FORMATS}."
            )
        self._open_index = 0
        self._open_source: _TiffSource | None = None
        starts = [0]
        for index, file in enumerate(self._files):
            source = _TiffSource(file, alone=True)
            source.close()
            self._check_equal(index, file, source)
            starts.append(starts[-1] + source.frames)
        self._starts = np.asarray(starts)
        self.frames = starts[-1]

    def _check_equal(self, index: int, file: Path, source: _TiffSource) -> None:
        found = (source.height, source.width, source.dtype)
        if index == 0:
            self.height, self.width, self.dtype = found
            self.pixel_size = source.pixel_size
            self.acquisition = source.acquisition
        elif found != (self.height, self.width, self.dtype):
            raise MovieError(
                f"{file} has {found[0]} rows, {found[1]} columns of type {found[2]} but "
                f"{self._files[0].name} has {self.height}, {self.width} and {self.dtype}; all "
                "files of a folder must be equal. Move those of other movies elsewhere."
            )

    def _source(self, index: int) -> _TiffSource:
        # One file is kept open: reading goes forward, and handles are a scarce resource.
        if self._open_source is None or self._open_index != index:
            self.close()
            self._open_source = _TiffSource(self._files[index], alone=True)
            self._open_index = index
        return self._open_source

    def read(self, first: int, last: int) -> Frames:
        chunk = np.empty((last - first, self.height, self.width), self.dtype)
        at = first
        while at < last:
            index = int(np.searchsorted(self._starts, at, side="right")) - 1
            start, stop = self._starts[index], min(int(self._starts[index + 1]), last)
            chunk[at - first : stop - first] = self._source(index).read(at - start, stop - start)
            at = stop
        return chunk

    def close(self) -> None:
        if self._open_source is not None:
            self._open_source.close()
            self._open_source = None


def _is_ndtiff(path: Path) -> bool:
    return (path.parent / NDTIFF_INDEX).is_file() and "_NDTiffStack" in path.name


def _ndtiff_source(folder: Path) -> _NdTiffSource:
    files = sorted(folder.glob("*NDTiffStack*.tif"), key=lambda file: _natural_key(file.name))
    if not files:
        raise MovieError(
            f"The folder {folder} has an {NDTIFF_INDEX} but none of the files *NDTiffStack*.tif "
            "that it names. Put all files of the acquisition into one folder."
        )
    return _NdTiffSource(files[0])


class _NdTiffSource(_TiffSource):
    """An NDTiff acquisition of Micro-Manager: TIFF files and an index that names every frame."""

    def _check_end(self) -> None:
        """Compare index and files; tifffile takes what an index that was cut off still names."""
        import tifffile

        self._contiguous = False
        named: dict[str, int] = {}
        for index, page in enumerate(self._pages):
            if page is None:
                raise MovieError(
                    f"{self._path.parent / NDTIFF_INDEX} names no frame {index} of "
                    f"{self.frames}. {COPY_AGAIN}"
                )
            place = page.parent.filehandle.path
            named[place] = named.get(place, 0) + 1
        for place, count in named.items():
            with tifffile.TiffFile(place, is_ndtiff=False) as tif:
                held = _check_page_chain(Path(place), tif)
                size = tif.filehandle.size
            last = max(
                _last_byte(page) for page in self._pages if page.parent.filehandle.path == place
            )
            if held != count or last > size:
                raise MovieError(
                    f"{place} holds {held} frames in {size} bytes, but {NDTIFF_INDEX} names "
                    f"{count} that end at byte {last}. {COPY_AGAIN}"
                )


def _natural_key(name: str) -> list[tuple[int, int | str]]:
    """Give a sorting key by which img2 comes before img10."""
    return [
        (0, int(part)) if part.isdigit() else (1, part.lower())
        for part in re.split(r"(\d+)", name)
        if part
    ]


# --- OME-Zarr -----------------------------------------------------------------------------------


class _ZarrSource:
    """OME-Zarr 0.4 (zarr format 2), 0.5 and 0.6 (format 3), or a bare array of frames."""

    def __init__(self, path: Path) -> None:
        import zarr

        self._path = path
        try:
            node = zarr.open(store=str(path), mode="r")
        except Exception as error:  # zarr raises many kinds for damaged metadata
            raise MovieError(
                f"{path} cannot be opened as zarr ({error}). sureloc reads OME-Zarr 0.4 to 0.6."
            ) from error
        self.pixel_size = PixelSize()
        self.acquisition = _zarr_acquisition(path)
        axes: list[str]
        if isinstance(node, zarr.Array):
            self._array = node
            axes = list("TYX"[3 - min(node.ndim, 3) :])
        else:
            self._array, axes, self.pixel_size = _ome_zarr_level(path, node)
        if len(axes) != self._array.ndim:
            raise MovieError(
                f"{path} has an array of shape {self._array.shape} but the axes "
                f"{''.join(axes) or '(none)'}; frames, rows, columns are needed."
            )
        self.frames = frame_axis(path, axes, self._array.shape, "T")
        self.height, self.width = self._array.shape[-2:]
        self.dtype = np.dtype(self._array.dtype).newbyteorder("=")
        # The frame axis keeps its place; every other leading axis has length 1.
        self._leading = self._array.shape[:-2]

    def read(self, first: int, last: int) -> Frames:
        index: list[slice] = [
            slice(first, last) if n == self.frames and n != 1 else slice(0, 1)
            for n in self._leading
        ]
        try:
            values = np.asarray(self._array[(*index, slice(None), slice(None))])
        except Exception as error:  # codecs raise what they like
            raise MovieError(
                f"Frames {first}:{last} of {self._path} cannot be decoded ({error}). {COPY_AGAIN}"
            ) from error
        values = values.astype(self.dtype, copy=False)
        return values.reshape(-1, self.height, self.width)[: last - first]

    def close(self) -> None:
        """Do nothing: zarr keeps no file open between reads."""


def _zarr_acquisition(path: Path) -> Acquisition:
    """Look into the OME-XML that bioformats2raw leaves beside its images."""
    try:
        text = (path / "OME" / "METADATA.ome.xml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Acquisition()
    return _ome_acquisition(text)


def _ome_zarr_level(path: Path, group: Any) -> tuple[Any, list[str], PixelSize]:
    """Find the full-resolution array of an OME-Zarr image, its axes and pixel size."""
    attributes = dict(group.attrs)
    attributes = attributes.get("ome", attributes)
    if "bioformats2raw.layout" in attributes and "0" in group:
        if "1" in group:
            raise MovieError(
                f"{path} holds several images; give the path of one, for instance {path / '0'}."
            )
        return _ome_zarr_level(path, group["0"])
    try:
        image = attributes["multiscales"][0]
        level = image["datasets"][0]
        array = group[level["path"]]
        axes = [
            axis if isinstance(axis, dict) else {"name": axis} for axis in _axes_of(image, level)
        ]
        names = [str(axis["name"]).upper() for axis in axes]
        scales = _scales_of(image, level)
        scale = {name: math.prod(one[k] for one in scales) for k, name in enumerate(names)}
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise MovieError(
            f"{path} is a zarr group without an OME-Zarr image (no {error} in its metadata). Give "
            "the path of an image, or of one array of shape (frames, rows, columns)."
        ) from error
    if not scales:
        return array, names, PixelSize()
    units = {name: axis.get("unit") for name, axis in zip(names, axes, strict=True)}
    sizes = (length_nm(scale.get(axis), units.get(axis)) for axis in "XY")
    return array, names, pixel_size(*sizes)


def _axes_of(image: Mapping[str, Any], level: Mapping[str, Any]) -> Sequence[Any]:
    """Give the axes that an image states; from 0.6 on those of the system its level leads to."""
    if "axes" in image:
        return list(image["axes"])
    systems = {system["name"]: system["axes"] for system in image["coordinateSystems"]}
    return list(systems[level["coordinateTransformations"][0]["output"]["name"]])


def _scales_of(image: Mapping[str, Any], level: Mapping[str, Any]) -> list[Sequence[float]]:
    """Give the scales that turn a level's indices into lengths, to be multiplied."""
    # What stands beside the levels follows after each; from 0.6 on it leads to other systems.
    owners = (level, image) if "axes" in image else (level,)
    steps = [step for owner in owners for step in owner.get("coordinateTransformations") or ()]
    flat = [one for step in steps for one in step.get("transformations", (step,))]
    return [one["scale"] for one in flat if one.get("type") == "scale" and "scale" in one]


# --- ND2 ----------------------------------------------------------------------------------------


class _Nd2Source:
    """A Nikon ND2 file through the optional package `nd2`."""

    def __init__(self, path: Path) -> None:
        try:
            import nd2
        except ImportError as error:
            raise MovieError(
                f"Reading {path} needs the package nd2. Install it with: pip install 'sureloc[nd2]'"
            ) from error
        self._path = path
        try:
            self._file = nd2.ND2File(path)
        except Exception as error:  # nd2 raises many kinds for damaged files
            raise MovieError(f"{path} cannot be read as ND2 ({error}). {COPY_AGAIN}") from error
        try:
            self._open()
        except MovieError:
            self._file.close()
            raise
        except Exception as error:  # what opening left unread may be damaged
            self._file.close()
            raise MovieError(f"{path} cannot be read as ND2 ({error}). {COPY_AGAIN}") from error

    def _open(self) -> None:
        sizes = dict(self._file.sizes)
        self.frames = frame_axis(self._path, list(sizes), list(sizes.values()), "T")
        self.height, self.width = sizes["Y"], sizes["X"]
        self.dtype = np.dtype(self._file.dtype)
        voxel = self._file.voxel_size()
        self.pixel_size = pixel_size(voxel.x * 1e3, voxel.y * 1e3)
        self.acquisition = _nd2_acquisition(self._file)

    def read(self, first: int, last: int) -> Frames:
        chunk = np.empty((last - first, self.height, self.width), self.dtype)
        for i in range(first, last):
            try:
                chunk[i - first] = np.asarray(self._file.read_frame(i)).reshape(chunk.shape[1:])
            except Exception as error:  # nd2 raises many kinds for damaged files
                raise MovieError(
                    f"Frame {i} of {self._path} cannot be read ({error}). {COPY_AGAIN}"
                ) from error
        return chunk

    def close(self) -> None:
        self._file.close()


def _nd2_acquisition(file: Any) -> Acquisition:
    """Find exposure and camera in the text that NIS-Elements shows to people."""
    said = {key: str(part) for key, part in dict(file.text_info or {}).items()}
    text = "\n".join(said.values())
    exposure = re.search(r"Exposure(?: Time)?:\s*([\d.]+)\s*(µs|μs|us|ms|s|min)\b", text)
    camera = re.search(r"Camera(?: ?Name| ?Type)?:\s*([^\r\n]+)", text)
    name = camera[1] if camera else None
    # Later versions begin the camera's settings with its name and serial number.
    first, _, others = said.get("capturing", "").partition("\n")
    if name is None and "Exposure:" in others:
        name = first.split(", SN")[0]
    return Acquisition(
        milliseconds(exposure[1], exposure[2]) if exposure else None, name_or_none(name)
    )


_OPENERS: Mapping[str, Callable[[Path], FrameSource]] = {
    ".nd2": _Nd2Source,
    ".czi": CziSource,
    ".lif": LifSource,
    ".raw": picasso_source,
    ".dax": dax_source,
}
FILE_SUFFIXES = (*TIFF_SUFFIXES, *_OPENERS)  # of movies that are one file


def is_name_of_a_movie(path: Path) -> bool:
    """Tell whether a path ends as those of movies do that can be read; a folder's may not."""
    return path.suffix.lower() in (*FILE_SUFFIXES, ".zarr")
