"""Time and memory of `localize` against frames, area and workers; a table, resumable.

    python benchmarks/scaling.py --out scaling [--only 64x64x100 256x256x20 ...] [--workers 1 2]
    python benchmarks/scaling.py --out scaling --without-chains --only 256x256x2000 256x256x200

Every case is a process of its own, whose peak memory (resident set) is what the operating system
says at its end, that of worker processes of long runs added; its line is kept in OUT/scaling.csv as
soon as it is there, and cases that have one are not run again. Movies hold 0.1 emitters per square
micrometre. `--without-chains` leaves out networks and chains, and for long movies detection, so
that everything else (reading, parts, tables, images, report) can be measured within minutes: that
is all whose memory could grow with length.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

CASES = (
    *("64x64x10", "64x64x100", "64x64x1000", "64x64x10000"),
    *("128x128x100", "256x256x100", "512x512x20", "1024x1024x4", "2048x2048x1"),
)
FIELDS = ("case", "workers", "chains", "seconds", "frames_per_s", "peak_mb", "rows")
DENSITY_PX2 = 0.001
MANY = 100  # frames; without chains, detection is left out of longer movies
DIFFERENT_FRAMES = 50  # a long movie repeats them: only its length matters here


def write_movie(path: Path, shape: tuple[int, int, int]) -> None:
    frames, height, width = shape
    rng = np.random.default_rng(1)
    few = []
    for _ in range(min(frames, DIFFERENT_FRAMES)):
        expected = np.full((height, width), 4.0)
        for _ in range(rng.poisson(DENSITY_PX2 * height * width)):
            y, x = rng.uniform(6, height - 6), rng.uniform(6, width - 6)
            top, left = int(y) - 5, int(x) - 5
            rows, columns = np.mgrid[top : top + 11, left : left + 11]
            spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 2.0)
            expected[top : top + 11, left : left + 11] += 800 / 6.28 * spot
        noise = rng.normal(0, 3, expected.shape)
        few.append(np.rint(100 + 2 * rng.poisson(expected) + noise).astype(np.uint16))
    movie = tifffile.memmap(path, shape=shape, dtype="uint16", photometric="minisblack")
    for k in range(frames):
        movie[k] = few[k % len(few)]
    movie.flush()


def without_chains(*, long: bool) -> None:
    """Let the work on regions give empty results, and little be learned."""
    from sureloc.localize import learning, movie, rows
    from sureloc.localize.columns import Columns
    from sureloc.localize.detect import Spots
    from sureloc.table import DRAW_COLUMNS, LOCALIZATION_COLUMNS

    def empty(columns: Any) -> Columns:
        kinds = {c.name: "object" if c.dtype == "str" else c.dtype for c in columns}
        return {name: np.empty(0, kind) for name, kind in kinds.items()}

    found, draws = empty(LOCALIZATION_COLUMNS), empty(DRAW_COLUMNS)

    def region(_self: Any, _frame: int, region: Any, electrons: Any, *_: Any) -> rows.RegionRows:
        core = np.s_[slice(*region.core_rows), slice(*region.core_columns)]
        flat = np.ones(electrons[core].shape)
        return rows.RegionRows(found, draws, electrons[core], flat)

    movie.FrameWorker._region = region
    if long:
        movie.spots_of_band = lambda electrons, *_: Spots(
            np.empty(0, np.int64), *[np.empty(0)] * 4, electrons
        )
    movie.CROWDING_FRAMES, movie.LEARNING_EMITTERS = 20, 20
    learning.ROUNDS = learning.LATELY + 1, learning.LATELY + 1


def one_case(arguments: dict[str, Any]) -> None:
    """Run one case in this process and print its numbers."""
    from sureloc.camera import Camera
    from sureloc.io.movies import open_movie
    from sureloc.localize.movie import Options
    from sureloc.networks.weights import load_weights
    from sureloc.runs.localization import localize_movie
    from sureloc.runs.scheduler import AUTO, THREADS

    options = replace(Options(sigma_px=1.0), workers=arguments["workers"])
    start = time.perf_counter()
    with open_movie(arguments["movie"]) as movie:
        frames = movie.frames
        if not arguments["chains"]:
            without_chains(long=frames > MANY)
        outcome = localize_movie(
            movie,
            Camera(100.0, 2.0, 9.0),
            options,
            Path(arguments["out"]),
            {},
            load_weights("fast"),
            resume=True,
            # What is left out is left out of this process only.
            scheduler=AUTO if arguments["chains"] else THREADS,
        )
    seconds = time.perf_counter() - start
    mine, theirs = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    peak = mine + arguments["workers"] * theirs  # of the largest worker process, if there are any
    numbers = {"seconds": round(seconds, 1), "frames_per_s": round(frames / seconds, 3)}
    print(json.dumps(numbers | {"peak_mb": round(peak), "rows": outcome.rows}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="+", default=list(CASES))
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--without-chains", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        one_case(json.loads(given.case))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    table = given.out / "scaling.csv"
    if not table.exists():
        table.write_text(",".join(FIELDS) + "\n", encoding="utf-8")
    for case in given.only:
        for workers in given.workers:
            with table.open(encoding="utf-8") as file:
                done = {(r["case"], r["workers"], r["chains"]) for r in csv.DictReader(file)}
            chains = not given.without_chains
            if (case, str(workers), str(chains)) in done:
                continue
            height, width, frames = map(int, case.split("x"))
            movie = given.out / f"{case}.tif"
            if not movie.exists():
                partial = movie.with_suffix(".writing.tif")
                write_movie(partial, (frames, height, width))
                partial.replace(movie)
            out = given.out / f"{case}-{workers}-{chains}"
            shutil.rmtree(out, ignore_errors=True)
            arguments = {"movie": str(movie), "out": str(out), "workers": workers}
            text = json.dumps({**arguments, "chains": chains})
            said = subprocess.run(
                [sys.executable, __file__, "--case", text],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout
            row = {"case": case, "workers": workers, "chains": chains}
            row |= json.loads(said.splitlines()[-1])
            with table.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, FIELDS).writerow(row)
            shutil.rmtree(out)
            print(row, flush=True)
        (given.out / f"{case}.tif").unlink(missing_ok=True)
    print(table.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
