"""What the user chose in the dock widget, in words, turned into the arguments of a run."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sureloc.errors import InputError


@dataclass(frozen=True)
class Choices:
    """Everything that the widget asks for; texts as they were typed.

    Attributes:
        movie: path of the movie.
        out: new folder for the results.
        pixel_nm: pixel size in nm; empty takes what the file says, else 100.
        sigma_px: PSF width in px, or "auto".
        camera: camera file; empty estimates the camera.
        roi: "y0:y1,x0:x1", or empty for the whole frame.
        frames: "a:b", or empty for all.
        draws: posterior draws.
        weights: name of shipped weights, or path.
        seed: the same seed gives the same results.
    """

    movie: str
    out: str
    pixel_nm: str = ""
    sigma_px: str = "auto"
    camera: str = ""
    roi: str = ""
    frames: str = ""
    draws: int = 16
    weights: str = "fast"
    seed: int = 0

    def arguments(self) -> dict[str, Any]:
        """Give the keyword arguments of `sureloc.localize_file`.

        Raises:
            InputError: a text is no number, or movie or folder are not given.
        """
        if not self.movie:
            raise InputError("There is no movie to localize. Open one with File > Open File(s).")
        if not self.out.strip():
            raise InputError("There is no folder for the results. Name a new one.")
        width = self.sigma_px.strip()
        return {
            "movie": Path(self.movie),
            "out": Path(self.out.strip()),
            "pixel_nm": optional_number(self.pixel_nm, "pixel size", "108"),
            "sigma_px": None if width == "auto" else optional_number(width, "PSF width", "1.3"),
            "camera": Path(self.camera.strip()) if self.camera.strip() else None,
            "roi": self.roi or None,
            "frames": self.frames.strip() or None,
            "draws": self.draws,
            "weights": self.weights,
            "seed": self.seed,
            "command": "the napari plugin of sureloc",
        }


def optional_number(text: str, what: str, example: str) -> float | None:
    """Turn what was typed into a number; empty means that it is not known.

    Raises:
        InputError: it is no number.
    """
    text = text.strip().replace(",", ".")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(
            f"The {what} is {text!r}; type a number such as {example}, or leave it empty."
        ) from error
    if not math.isfinite(value):
        raise InputError(f"The {what} is {text}; it must be a finite number such as {example}.")
    return value


def region_of_rectangle(corners_nm: npt.ArrayLike, pixel_nm: float, shape: tuple[int, int]) -> str:
    """Give the pixels that a drawn rectangle touches, as `roi` wants them.

    Args:
        corners_nm: (corners, 2 or more), the last two are y and x, nm.
        pixel_nm: pixel size, nm; pixel 0 reaches from -0.5 to 0.5 pixels.
        shape: rows and columns of the frame, to which the rectangle is cut.

    Raises:
        InputError: the rectangle lies outside the frame.
    """
    corners = np.asarray(corners_nm, dtype=np.float64)[:, -2:] / pixel_nm
    texts = []
    for values, length, what in zip(corners.T, shape, ("rows", "columns"), strict=True):
        first = max(math.floor(values.min() + 0.5), 0)
        last = min(math.ceil(values.max() + 0.5), length)
        if first >= last:
            raise InputError(
                f"The rectangle covers {what} {values.min():.0f} to {values.max():.0f}, but the "
                f"movie has {what} 0 to {length - 1}. Draw it inside the movie."
            )
        texts.append(f"{first}:{last}")
    return ",".join(texts)


# What messages written for the command line call the fields of the panel.
_FIELDS = {
    "--sigma-px": "'PSF width (px)'",
    "--pixel-nm": "'Pixel size (nm)'",
    "--camera": "'Camera file'",
    "--frames": "'Frames'",
    "--roi": "'Region'",
}


def in_words_of_the_panel(message: str) -> str:
    """Give a message with the panel's fields in the place of options of the command line."""
    for option, field in _FIELDS.items():
        message = re.sub(rf"(?<![\w-]){option}(?![\w-])", field, message)
    return message


def free_folder(movie: str | Path) -> Path:
    """Give the name of a new folder beside a movie: `name_sureloc`, `name_sureloc_2`, ..."""
    movie = Path(movie)
    stem = movie.name.split(".")[0] or "movie"
    number = 1
    while True:
        folder = movie.with_name(f"{stem}_sureloc" + (f"_{number}" if number > 1 else ""))
        if not folder.exists():
            return folder
        number += 1


def weights_in_words(names: Sequence[str]) -> list[str]:
    """Give the names of shipped weights, the usual ones first."""
    return sorted(names, key=lambda name: (name != "fast", name))
