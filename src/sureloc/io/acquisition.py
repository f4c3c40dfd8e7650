"""What a movie's file says of its recording: camera and exposure, besides the pixel size.

OME-XML in TIFF (and beside OME-Zarr), Micro-Manager's metadata, and ND2 through the optional
package `nd2`. Nothing is guessed: what the file does not say is None.
"""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sureloc.io.movies import TIFF_SUFFIXES

_MS_PER_UNIT = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3, "min": 6e4}
_ND2_EXPOSURE = re.compile(r"Exposure:\s*([\d.]+)\s*(ms|s|µs|us|min)\b")
_ND2_CAMERA = re.compile(r"Camera (?:Name|Type):\s*(.+)")


@dataclass(frozen=True)
class Acquisition:
    """How a movie was recorded, as far as its file says.

    Attributes:
        camera: name of the camera.
        exposure_ms: exposure of a frame, ms.
        source: what said so, such as "OME"; empty if nothing did.
    """

    camera: str | None = None
    exposure_ms: float | None = None
    source: str = ""


def read_acquisition(path: str | Path) -> Acquisition:
    """Read how a movie was recorded; a file that does not say it gives an empty answer.

    Args:
        path: what `sureloc.io.movies.open_movie` opens.
    """
    path = Path(path)
    if path.is_dir():
        xml = path / "OME" / "METADATA.ome.xml"
        if xml.is_file():
            return _ome(xml.read_text(encoding="utf-8", errors="replace"))
        tiffs = sorted(file for file in path.iterdir() if file.suffix.lower() in TIFF_SUFFIXES)
        return _tiff(tiffs[0]) if tiffs else Acquisition()
    if path.suffix.lower() in TIFF_SUFFIXES:
        return _tiff(path)
    if path.suffix.lower() == ".nd2":
        return _nd2(path)
    return Acquisition()


def _tiff(path: Path) -> Acquisition:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            description = str(page.description)
            if "<OME" in description:
                return _ome(description)
            if "MicroManagerMetadata" in page.tags:
                return _micro_manager([page.tags["MicroManagerMetadata"].value])
            if file.is_micromanager:
                return _micro_manager([(file.micromanager_metadata or {}).get("Summary", {})])
    except (tifffile.TiffFileError, OSError, ValueError, LookupError):
        return Acquisition()  # the movie's own reader says what is wrong with the file
    return Acquisition()


def _ome(text: str) -> Acquisition:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return Acquisition()  # OME never declares entities; expanding hostile ones costs memory
    try:
        root = ElementTree.fromstring(text)  # noqa: S314
    except ElementTree.ParseError:
        return Acquisition()
    camera = exposure = None
    for element in root.iter():
        name = element.tag.rpartition("}")[2]
        if name == "Detector" and camera is None:
            words = (element.get("Manufacturer"), element.get("Model"))
            camera = " ".join(word for word in words if word) or None
        if name == "Plane" and exposure is None:
            unit = element.get("ExposureTimeUnit", "s")
            exposure = _milliseconds(element.get("ExposureTime"), unit)
    return _answer(camera, exposure, "OME")


def _micro_manager(parts: Iterable[object]) -> Acquisition:
    for part in parts:
        try:
            values = json.loads(part) if isinstance(part, str) else part
        except ValueError:
            continue
        if isinstance(values, Mapping):
            camera = values.get("Core-Camera") or values.get("Camera")
            camera = _property(values.get(f"{camera}-CameraName")) or camera
            exposure = values.get("Exposure-ms", values.get("Exposure"))
            found = _answer(_property(camera), _milliseconds(exposure, "ms"), "Micro-Manager")
            if found.source:
                return found
    return Acquisition()


def _property(value: object) -> str | None:
    """Give a Micro-Manager property, which later versions wrap in {"PropVal": ...}."""
    if isinstance(value, Mapping):
        value = value.get("PropVal")
    return str(value).strip() or None if value is not None else None


def _nd2(path: Path) -> Acquisition:
    try:
        import nd2
    except ImportError:
        return Acquisition()
    try:
        with nd2.ND2File(path) as file:
            info = {str(key): str(value) for key, value in dict(file.text_info or {}).items()}
    except Exception:  # nd2 raises many kinds; the movie's own reader says what is wrong
        return Acquisition()
    return _nd2_text(info)


def _nd2_text(info: Mapping[str, str]) -> Acquisition:
    """Read the free texts that NIS-Elements writes for people."""
    text = "\n".join(info.values())
    exposure, camera = _ND2_EXPOSURE.search(text), _ND2_CAMERA.search(text)
    name = camera[1].strip() if camera else None
    if name is None and exposure and "Exposure:" in info.get("capturing", ""):
        name = info["capturing"].splitlines()[0].split(", SN")[0].strip() or None
    return _answer(name, _milliseconds(exposure[1], exposure[2]) if exposure else None, "ND2")


def _milliseconds(value: Any, unit: str) -> float | None:
    try:
        number = float(value) * _MS_PER_UNIT[unit.strip()]
    except (TypeError, ValueError, KeyError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _answer(camera: str | None, exposure_ms: float | None, source: str) -> Acquisition:
    known = camera is not None or exposure_ms is not None
    return Acquisition(camera, exposure_ms, source if known else "")
