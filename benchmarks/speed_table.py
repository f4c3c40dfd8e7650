"""How fast movies are localized, and where the time goes.

    python benchmarks/speed_table.py --out speed --rivals-python rivals/bin/python

simulates one movie of 64 x 64 px for each density (recipe `peers`, as
`benchmarks/crowded_table.py`, which also tells how the other tools' Python is made, and scores what
all of them find), and localizes it `--repeats` times with sureloc, everything included from the
movie's file to the report, with `--workers` threads or processes, and each time with the other
tools. It prints medians of frames a second, their ratios, and the milliseconds of one thread that
each stage takes of a frame, measured apart. The others get the first 400 frames. `sureloc,
prepared` leaves out what is learned first from up to 440 frames of a movie.

`--stages` alone measures the stages only.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import shutil
import statistics
import time
from pathlib import Path

import torch
from crowded_table import run_rivals, run_sureloc
from rich.progress import track

from sureloc.cli.simulate import simulate
from sureloc.io.cameras import read_camera
from sureloc.io.movies import open_movie
from sureloc.io.results import versions
from sureloc.localize.movie import Options, localize, prepare
from sureloc.networks.weights import load_weights

SEED, PIXEL_NM = 2025, 100.0
FRAMES = {0.18: 4000, 0.71: 1000, 1.78: 600, 3.56: 400}
GOALS = {0.18: (80.0, 300.0), 1.78: (10.0, 30.0), 3.56: (5.0, 15.0)}
RIVALS_FRAMES = 400  # they learn nothing of a movie first
STAGE_FRAMES = {0.18: 60, 0.71: 20, 1.78: 10, 3.56: 6}
# What is timed, by the name of its function; each holds those indented below it.
STAGES = (
    ("detect_spots", "detect spots"),
    ("propose", "networks propose"),
    ("see_tiles", "  phi and conditioning"),
    ("draw_images", "  draws"),
    ("frame_posterior", "posterior"),
    ("run_chain", "  chains"),
    ("consensus", "  consensus"),
    ("region_rows", "rows"),
)


def movie_of(density: float, frames: int, out: Path) -> Path:
    """Simulate a movie."""
    simulate(
        "peers",
        frames=frames,
        out=out,
        seed=SEED,
        settings=[f"scene.density_per_um2={density}"],
        quiet=True,
    )
    return out


def stages(density: float, movie: Path) -> dict[str, float]:
    """Give the milliseconds that one thread spends in each stage of a frame, and in all."""
    networks = load_weights("fast")
    camera = read_camera(movie / "camera.npz")
    options = Options(pixel_nm=PIXEL_NM)
    with open_movie(movie / "movie.ome.tif") as frames:
        assumptions = prepare(frames, camera, options, networks)
        number = min(STAGE_FRAMES[density], frames.shape[0])
        part = frames.select(frames=slice(0, number))
        # What is compiled at its first use.
        next(localize(part, assumptions, options, networks))
        profile = cProfile.Profile(time.thread_time)
        begin = time.thread_time()
        profile.enable()
        for _ in localize(part, assumptions, options, networks):
            pass
        profile.disable()
        whole = time.thread_time() - begin
    seconds = {"whole frame": whole}
    for (path, _, name), (_, _, _, cumulative, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        for function, label in STAGES:
            if name == function and "sureloc" in path:
                seconds[label] = seconds.get(label, 0.0) + cumulative
    return {label: 1000 * value / number for label, value in seconds.items()}


def print_stages(found: dict[float, dict[str, float]]) -> None:
    """Print milliseconds a frame of every stage, a column for each density."""
    print("\nms of one thread a frame, the profiler's own cost included:\n")
    print("| stage | " + " | ".join(f"{density:g} / um^2" for density in found) + " |")
    print("|---|" + "---|" * len(found))
    for label in ("whole frame", *(label for _, label in STAGES)):
        row = " | ".join(f"{times.get(label, 0.0):.1f}" for times in found.values())
        print(f"| {label.replace('  ', '&nbsp;&nbsp;')} | {row} |")


def speeds(
    movie: Path, out: Path, options: argparse.Namespace, repeats: int
) -> dict[str, list[float]]:
    """Give frames a second of every tool in every repeat; of rivals' settings the fastest."""
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        mine = run_sureloc(movie, out / "sureloc", options.workers)
        once = {"sureloc": mine.frames_per_s, "sureloc, prepared": mine.prepared_frames_per_s}
        shutil.rmtree(out / "sureloc")
        if options.rivals_python:
            for one in run_rivals(
                options.rivals_python, movie, out / "rivals", options.workers, RIVALS_FRAMES
            ):
                once[one.tool] = max(once.get(one.tool, 0.0), one.frames_per_s)
            shutil.rmtree(out / "rivals")
        for tool, value in once.items():
            found.setdefault(tool, []).append(value)
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--rivals-python", type=Path, help="Python with picassosr and smappy-smlm")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--densities", type=float, nargs="+", default=list(FRAMES), choices=FRAMES)
    parser.add_argument("--stages", action="store_true", help="measure the stages only")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    torch.set_num_threads(1)
    movies = {
        density: movie_of(density, FRAMES[density], options.out / f"{density:g}" / "movie")
        for density in options.densities
    }
    found = {density: stages(density, movie) for density, movie in movies.items()}
    if not options.stages:
        print(
            "| emitters / um^2 | tool | frames/s, median | of the repeats | over sureloc | goal |"
        )
        print("|---|---|---|---|---|---|")
        for density in track(movies, "densities"):
            folder = options.out / f"{density:g}"
            of_tools = speeds(movies[density], folder, options, options.repeats)
            median = {tool: statistics.median(values) for tool, values in of_tools.items()}
            least, goal = GOALS.get(density, (0.0, 0.0))
            for tool, values in of_tools.items():
                wanted = f"{least:g} ({goal:g})" if tool == "sureloc" and least else ""
                print(
                    f"| {density:g} | {tool} | {median[tool]:.3g} "
                    f"| {min(values):.3g}-{max(values):.3g} "
                    f"| {median[tool] / median['sureloc']:.3g} | {wanted} |",
                    flush=True,
                )
    print_stages(found)
    print("\n" + ", ".join(f"{name} {number}" for name, number in versions().items()))


if __name__ == "__main__":
    main()
