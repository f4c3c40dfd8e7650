"""A small run that tests stop: `python tests/tiny_run.py MOVIE OUT` resumes whatever is there.

It makes everything but pictures and the report, which take most of the time of so small a run and
are made after all that can be resumed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np

from sureloc.camera import Camera
from sureloc.io.movies import open_movie
from sureloc.localize.frames import Effort
from sureloc.localize.movie import Options
from sureloc.networks.weights import load_weights
from sureloc.runs.localization import localize_movie

CAMERA = Camera(100.0, 2.0, 9.0)
OPTIONS = Options(sigma_px=1.2, workers=1, effort=Effort(2, 10.0, 10, 1.0, rounds=1))
LONG = {"images.ome.zarr", "report.html"}  # a folder, and what tells the time


def run(movie: Path, out: Path, options: Options = OPTIONS, **more):
    """Localize a movie without its pictures."""
    with (
        patch("sureloc.runs.localization.draw_picture"),
        patch("sureloc.runs.localization.write_report"),
        open_movie(movie) as opened,
    ):
        networks = load_weights("fast")
        provenance = {"command": "tiny"}
        return localize_movie(opened, CAMERA, options, out, provenance, networks, **more)


def frames(number: int, shape: tuple[int, int] = (24, 26)) -> np.ndarray:
    """Give frames of three emitters each, at random, ADU."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    adu = []
    for _ in range(number):
        expected = np.full(shape, 4.0)
        for _ in range(3):
            y, x = rng.uniform(3, np.array(shape) - 3)
            expected += 80 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 1.2**2))
        adu.append(100 + 2 * rng.poisson(expected) + rng.normal(0, 3, shape))
    return np.rint(adu).astype(np.uint16)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), resume=True)
