"""Movies in the formats of microscope makers, through packages that are installed on demand.

Zeiss CZI through Zeiss's own pylibCZIrw, Leica LIF through liffile. The BioIO readers wrap the same
kind of packages, but open the file anew for every frame (measured on 2,000 frames: 26 s to open a
CZI, where this takes a fraction of a second).
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np

from sureloc.errors import MovieError
from sureloc.io.frame_source import (
    COPY_AGAIN,
    Acquisition,
    Frames,
    PixelSize,
    first_known,
    frame_axis,
    length_nm,
    milliseconds,
    name_or_none,
    pixel_size,
)


def parsed_xml(text: str) -> ElementTree.Element | None:
    """Parse XML of a file; None where it is none, or declares entities as no microscope does."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None  # expanding hostile entities costs memory
    try:
        return ElementTree.fromstring(text)  # noqa: S314
    except ElementTree.ParseError:
        return None


def _missing(path: Path, package: str, extra: str, error: ImportError) -> MovieError:
    message = f"Reading {path} needs the package {package} ({error}). Install it with: "
    return MovieError(message + f"pip install 'sureloc[{extra}]'")


class _PlaneSource:
    """Frames read one by one through a function of their index."""

    frames: int
    height: int
    width: int
    dtype: np.dtype[Any]
    pixel_size: PixelSize
    acquisition: Acquisition

    def __init__(self, path: Path) -> None:
        self._path = path

    def _plane(self, index: int) -> Frames:
        raise NotImplementedError

    def read(self, first: int, last: int) -> Frames:
        chunk = np.empty((last - first, self.height, self.width), self.dtype)
        for index in range(first, last):
            try:
                chunk[index - first] = self._plane(index).reshape(chunk.shape[1:])
            except Exception as error:  # the packages raise many kinds for damaged files
                raise MovieError(
                    f"Frame {index} of {self._path} cannot be read ({error}). {COPY_AGAIN}"
                ) from error
        return chunk


# --- Zeiss CZI ----------------------------------------------------------------------------------

_CZI_TYPES = {"Gray8": np.uint8, "Gray16": np.uint16, "Gray32Float": np.float32}


class CziSource(_PlaneSource):
    """A Zeiss CZI file of one scene, channel and plane over time."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            MovieError: pylibCZIrw is missing, or the file cannot be used as a movie.
        """
        super().__init__(path)
        try:
            from pylibCZIrw.czi import CziReader
        except ImportError as error:
            raise _missing(path, "pylibCZIrw", "czi", error) from error
        try:
            self._file = CziReader(str(path))
        except Exception as error:  # libCZI's errors come as RuntimeError and others
            raise MovieError(f"{path} cannot be read as CZI ({error}). {COPY_AGAIN}") from error
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        box = dict(self._file.total_bounding_box)
        axes = [name for name in box if name not in "XY"]
        lengths = [box[name][1] - box[name][0] for name in axes]
        scenes = len(self._file.scenes_bounding_rectangle)
        if scenes > 1:
            axes, lengths = ["S", *axes], [scenes, *lengths]
        self.width, self.height = (box[name][1] - box[name][0] for name in "XY")
        self.frames = frame_axis(
            self._path, [*axes, "Y", "X"], [*lengths, self.height, self.width], "T"
        )
        self._origin = {name: box[name][0] for name in axes if name in "TCZ"}
        kinds = set(self._file.pixel_types.values())
        if len(kinds) != 1 or not kinds <= set(_CZI_TYPES):
            raise MovieError(
                f"{self._path} holds pixels of type {', '.join(map(str, kinds)) or '(none)'}; "
                f"{', '.join(_CZI_TYPES)} can be read. Export the grey-scale movie as TIFF."
            )
        self.dtype = np.dtype(_CZI_TYPES[kinds.pop()])
        root = parsed_xml(self._file.raw_metadata)
        self.pixel_size = PixelSize() if root is None else _czi_pixel_size(root)
        self.acquisition = Acquisition() if root is None else _czi_acquisition(root)

    def _plane(self, index: int) -> Frames:
        plane = dict(self._origin)
        if "T" in plane:
            plane["T"] += index
        return np.asarray(self._file.read(plane=plane))

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def _czi_pixel_size(root: ElementTree.Element) -> PixelSize:
    sizes = {
        item.get("Id"): length_nm(item.findtext("Value"), "m")
        for item in root.iterfind(".//Scaling/Items/Distance")
    }
    return pixel_size(sizes.get("X"), sizes.get("Y"))


def _czi_acquisition(root: ElementTree.Element) -> Acquisition:
    channels = root.iterfind(".//Information/Image/Dimensions/Channels/Channel/ExposureTime")
    detectors = root.iterfind(".//Information/Instrument/Detectors/Detector")
    return Acquisition(
        first_known(milliseconds(item.text, "ns") for item in channels),
        first_known(
            name_or_none(item.findtext(".//Model") or item.get("Name")) for item in detectors
        ),
    )


# --- Leica LIF ----------------------------------------------------------------------------------


class LifSource(_PlaneSource):
    """A Leica LIF file that holds one image: one channel and plane over time."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            MovieError: liffile is missing, or the file cannot be used as a movie.
        """
        super().__init__(path)
        try:
            from liffile import LifFile
        except ImportError as error:
            raise _missing(path, "liffile", "lif", error) from error
        try:
            self._file = LifFile(path)
        except Exception as error:  # also KeyError, struct.error, ... of damaged headers
            raise MovieError(f"{path} cannot be read as LIF ({error}). {COPY_AGAIN}") from error
        try:
            self._open()
        except MovieError:
            self._file.close()
            raise
        except Exception as error:
            self._file.close()
            raise MovieError(f"{path} cannot be read as LIF ({error}). {COPY_AGAIN}") from error

    def _open(self) -> None:
        images = list(self._file.images)
        if len(images) != 1:
            names = ", ".join(str(image.path) for image in images[:4])
            raise MovieError(
                f"{self._path} holds {len(images)} images{': ' if names else ''}{names}"
                f"{', ...' if len(images) > 4 else ''}; a movie is one image. Export the one to be "
                "localized from LAS X as a file of its own."
            )
        self._image = images[0]
        sizes = dict(self._image.sizes)
        self.frames = frame_axis(self._path, list(sizes), list(sizes.values()), "T")
        self.height, self.width = sizes["Y"], sizes["X"]
        self.dtype = np.dtype(self._image.dtype).newbyteorder("=")
        self._check_end()
        element = self._image.xml_element
        self.pixel_size = pixel_size(*(_lif_pixel_nm(element, axis) for axis in ("1", "2")))
        self.acquisition = _lif_acquisition(element)

    def _check_end(self) -> None:
        block = self._image.memory_block
        end, size = block.offset + block.size, self._path.stat().st_size
        if end > size:
            raise MovieError(
                f"{self._path} is truncated: its frames need {end} bytes but it has {size}. "
                f"{COPY_AGAIN}"
            )

    def _plane(self, index: int) -> Frames:
        chosen = {"T": index} if "T" in self._image.sizes else {}
        return np.asarray(self._image.frame(**chosen))

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def _lif_pixel_nm(element: ElementTree.Element, axis: str) -> float | None:
    """Give a pixel size: LIF stores the distance between the first and the last pixel's centre."""
    for item in element.iterfind(".//ImageDescription/Dimensions/DimensionDescription"):
        if item.get("DimID") == axis:
            length = length_nm(item.get("Length"), item.get("Unit"))
            steps = int(item.get("NumberOfElements", "0")) - 1
            return length / steps if length and steps > 0 else None
    return None


def _lif_acquisition(element: ElementTree.Element) -> Acquisition:
    stated = (item.get("ExposureTime", "").strip() for item in element.iter("WideFieldChannelInfo"))
    # Seconds, unless it says otherwise.
    exposures = (
        milliseconds(text.removesuffix("ms"), "ms" if text.endswith("ms") else "s")
        for text in stated
    )
    names = (name_or_none(item.get("CameraName")) for item in element.iter())
    return Acquisition(first_known(exposures), first_known(names))
