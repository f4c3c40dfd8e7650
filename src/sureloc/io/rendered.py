"""Rendered images as TIFFs for further work: true values, pixel size and place inside the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from sureloc.analysis.rendering import Canvas
from sureloc.errors import InputError

Array = npt.NDArray[np.float64]
_LARGEST_16_BIT = 65535


def write_tiff(
    path: Path,
    channels: Mapping[str, Array],
    canvas: Canvas,
    bits: int,
    provenance: Mapping[str, object],
) -> None:
    """Write images of one canvas as a TIFF that ImageJ opens with the right scale.

    32 bit holds the values as floating-point numbers. 16 bit holds whole numbers: counts as they
    are where they fit, other images times the factor that the file's description states.

    Args:
        path: the new file.
        channels: images (rows, columns), by what they show; not-a-number means empty.
        canvas: where they lie.
        bits: 16 or 32.
        provenance: what made them, JSON-serializable.

    Raises:
        InputError: bits is something else.
        OSError: the file cannot be written.
    """
    if bits not in (16, 32):
        raise InputError(f"bits is {bits}; a TIFF can hold 16 (whole numbers) or 32 (exact).")
    stack = np.stack([image.astype(np.float64) for image in channels.values()])
    factors = dict.fromkeys(channels, 1.0)
    if bits == 16:
        stack = np.nan_to_num(stack, nan=0.0)
        for index, name in enumerate(channels):
            factors[name] = _factor(stack[index])
            stack[index] *= factors[name]
    about = {
        "pixel_nm": canvas.pixel_nm,
        "centre_of_first_pixel_nm": {
            "x": canvas.left_nm + 0.5 * canvas.pixel_nm,
            "y": canvas.top_nm + 0.5 * canvas.pixel_nm,
        },
        "factor": factors,
        "sureloc": dict(provenance),
    }
    metadata: dict[str, Any] = {
        "axes": "CYX",
        "unit": "nm",
        "Labels": list(channels),
        "Info": json.dumps(about, ensure_ascii=True),
    }
    tifffile.imwrite(
        path,
        np.rint(stack).astype(np.uint16) if bits == 16 else stack.astype(np.float32),
        imagej=True,
        resolution=(1.0 / canvas.pixel_nm, 1.0 / canvas.pixel_nm),
        metadata=metadata,
    )


def _factor(image: Array) -> float:
    """Give by what an image must be multiplied to be kept as whole numbers up to 65535."""
    highest = float(image.max(initial=0.0))
    if highest <= 0 or (highest <= _LARGEST_16_BIT and (image == np.rint(image)).all()):
        return 1.0
    return _LARGEST_16_BIT / highest
