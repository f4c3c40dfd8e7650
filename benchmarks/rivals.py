"""Run Picasso and SMAPpy on a movie and write what they find, in sureloc's convention.

`benchmarks/crowded_table.py` calls this under a Python of its own, which needs neither sureloc nor
pandas of a certain version:

    python3.12 -m venv rivals
    rivals/bin/pip install picassosr==0.11.3 smappy-smlm==0.5.5
    rivals/bin/python benchmarks/rivals.py movie.npz found

`movie.npz` holds `frames` (frames, rows, columns; ADU), `offset_adu`, `gain_adu_per_e` and
`variance_adu2` (numbers, the same for all pixels), `pixel_nm`, `sigma_px` (where SMAPpy's width
starts and its filter's width) and `threads`. The new folder `found` then holds `runs.csv`, with one
row for each tool, fit box and detection threshold, and `localizations.csv`, where `run` is its row.

Positions are in nm, x along columns, y along rows, (0, 0) at the centre of the first pixel; frames
count from 0. That is Picasso's and SMAPpy's own convention too (in pixels and nm). `sigma_x_nm` and
`sigma_y_nm` are the precisions that a tool states.

Every tool gets the camera's offset, gain and read variance. Picasso fits its default elliptical
Gaussian, by least squares or by maximum likelihood; SMAPpy fits a round one by maximum likelihood.
"""

from __future__ import annotations

import argparse
import csv
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import smappy
from picasso import localize

BOXES_PX = (5, 7)
NET_GRADIENTS = (25.0, 50.0, 75.0, 100.0, 150.0, 300.0, 600.0)
CUTOFFS_PHOTONS = (0.5, 1.0, 2.0, 3.0, 4.0, 8.0, 16.0)
WARM_FRAMES = 4  # compile what is compiled before the clock runs
TIMED_FRAMES = 200  # shorter movies are repeated, so that starting threads does not count

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Movie:
    """Frames on disk, as Picasso wants them, and what is known of the camera."""

    frames: np.memmap
    offset_adu: float
    gain_adu_per_e: float
    variance_adu2: float
    pixel_nm: float
    sigma_px: float
    threads: int

    def part(self, count: int) -> Movie:
        """Give the first frames alone."""
        return Movie(self.frames[:count], *(getattr(self, name) for name in _NUMBERS))


_NUMBERS = ("offset_adu", "gain_adu_per_e", "variance_adu2", "pixel_nm", "sigma_px", "threads")


@dataclass(frozen=True)
class Run:
    """One tool with one box and one threshold."""

    tool: str
    package: str
    box_px: int
    threshold: float
    localize: Callable[[Movie, int, float], Columns]


def picasso(method: str) -> Callable[[Movie, int, float], Columns]:
    """Make a function that runs Picasso with one of its fits."""

    def run(movie: Movie, box_px: int, net_gradient: float) -> Columns:
        spots, _ = localize.identify(movie.frames, net_gradient, box_px)
        sensitivity = 1.0 / movie.gain_adu_per_e
        shape = movie.frames.shape[1:]
        found, _ = localize.fit(
            movie.frames,
            camera_info={
                "Baseline": movie.offset_adu,
                "Sensitivity": sensitivity,
                "Gain": 1,
                "Pixelsize": movie.pixel_nm,
            },
            identifications=spots,
            box=box_px,
            fitting_method=method,
            camera_calibration={
                "offset": np.full(shape, movie.offset_adu, np.float32),
                "variance": np.full(shape, movie.variance_adu2, np.float32),
                "gain": np.full(shape, movie.gain_adu_per_e, np.float32),
            },
        )
        names = {"x_nm": "x", "y_nm": "y", "sigma_x_nm": "lpx", "sigma_y_nm": "lpy"}
        px = {ours: found[theirs].to_numpy(float) for ours, theirs in names.items()}
        nm = {name: movie.pixel_nm * values for name, values in px.items()}
        return {"frame": found["frame"].to_numpy(int), **nm}

    return run


def smap(movie: Movie, box_px: int, cutoff_photons: float) -> Columns:
    """Run SMAPpy."""
    found = smappy.fit(
        np.asarray(movie.frames),
        camera={
            "conversion": 1.0 / movie.gain_adu_per_e,
            "offset": movie.offset_adu,
            "pixelsize_um": movie.pixel_nm / 1000.0,
            "read_noise_e": math.sqrt(movie.variance_adu2) / movie.gain_adu_per_e,
        },
        sigma=movie.sigma_px,
        cutoff=cutoff_photons,
        cutoff_mode="absolute",
        roisize=box_px,
        threads=movie.threads,
    )
    if len(found) == 0:
        return {name: np.empty(0) for name in LOCALIZATION if name != "run"}
    names = {"x_nm": "x_nm", "y_nm": "y_nm", "sigma_x_nm": "x_err_nm", "sigma_y_nm": "y_err_nm"}
    nm = {ours: np.asarray(found[theirs], float) for ours, theirs in names.items()}
    return {"frame": np.asarray(found["frame"], int), **nm}


LOCALIZATION = ("run", "frame", "x_nm", "y_nm", "sigma_x_nm", "sigma_y_nm")
RUN = ("run", "tool", "version", "box_px", "threshold", "frames", "seconds")


def runs() -> Iterator[Run]:
    """Give every tool with every box and threshold."""
    for box_px in BOXES_PX:
        for threshold in NET_GRADIENTS:
            yield Run("Picasso LSQ", "picassosr", box_px, threshold, picasso("gausslq"))
            yield Run("Picasso MLE", "picassosr", box_px, threshold, picasso("gaussmle"))
        for threshold in CUTOFFS_PHOTONS:
            yield Run("SMAPpy", "smappy-smlm", box_px, threshold, smap)


def read(path: Path, folder: Path) -> tuple[Movie, int]:
    """Read a movie, repeated until it is long enough to be timed; give its own length, too."""
    with np.load(path) as file:
        frames = np.asarray(file["frames"])
        numbers = {name: file[name].item() for name in _NUMBERS}
    times = math.ceil(TIMED_FRAMES / len(frames))
    shape = (times * len(frames), *frames.shape[1:])
    mapped = np.memmap(folder / "frames.raw", frames.dtype, "w+", shape=shape)
    mapped[:] = np.tile(frames, (times, 1, 1))
    return Movie(mapped, **numbers), len(frames)


def clean(found: Columns, frames: int) -> Columns:
    """Leave out repeated frames and fits without a position."""
    keep = (found["frame"] < frames) & np.isfinite(found["x_nm"]) & np.isfinite(found["y_nm"])
    return {name: column[keep] for name, column in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("movie", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    warnings.simplefilter("ignore")
    with (
        tempfile.TemporaryDirectory() as folder,
        (options.out / "runs.csv").open("w", newline="", encoding="utf-8") as runs_file,
        (options.out / "localizations.csv").open("w", newline="", encoding="utf-8") as rows_file,
    ):
        movie, frames = read(options.movie, Path(folder))
        one_each, rows = csv.writer(runs_file), csv.writer(rows_file)
        one_each.writerow(RUN)
        rows.writerow(LOCALIZATION)
        for number, run in enumerate(runs()):
            run.localize(movie.part(WARM_FRAMES), run.box_px, run.threshold)
            begin = time.perf_counter()
            found = run.localize(movie, run.box_px, run.threshold)
            seconds = time.perf_counter() - begin
            one_each.writerow(
                (
                    number,
                    run.tool,
                    version(run.package),
                    run.box_px,
                    run.threshold,
                    len(movie.frames),
                    seconds,
                )
            )
            kept = clean(found, frames)
            rows.writerows(zip([number] * len(kept["frame"]), *kept.values(), strict=True))


if __name__ == "__main__":
    main()
