"""How many emitters are found, how well, and how honestly, given how crowded they are.

    python benchmarks/crowded_table.py --out crowded --rivals-python rivals/bin/python

simulates one movie for each density with the recipe `peers` (64 x 64 px of 100 nm, integrated
Gaussian of sigma 1.0 px, 500-1000 photons, read variance 5 electrons^2, no background, rounded
ADU), localizes it with `sureloc.localize_file` and with other tools, scores all with the same code,
prints two tables and writes `crowded.csv` with every number.

sureloc is told the movie, its camera file and the pixel size: PSF width, density, brightness and
background are learned from each movie, with the default weights and the same options in every row.

The other tools need a Python (3.12 or newer) of their own, made by

    python3.12 -m venv rivals
    rivals/bin/pip install picassosr==0.11.3 smappy-smlm==0.5.5

Without `--rivals-python` their rows are left out. Each is run with several fit boxes and detection
thresholds (`benchmarks/rivals.py`); the run with the best J, which only the truth can tell, is
shown. Their intervals are position +- 0.994 and 1.960 stated precisions.

Rows and true emitters are paired one to one per frame within 250 nm (Hungarian). A table without
border leaves out, after pairing, the true emitters within 450 nm of the frame's edge, their rows,
and unpaired rows there: neither of the others looks for emitters within half a fit box of the edge.
"""

from __future__ import annotations

import argparse
import csv
import math
import subprocess
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sureloc import localize_file
from sureloc.camera import Camera
from sureloc.cli.simulate import simulate
from sureloc.evaluate.compare import RADIUS_NM, matched
from sureloc.io.cameras import read_camera
from sureloc.io.movies import open_movie
from sureloc.io.results import versions
from sureloc.io.tables import read_table
from sureloc.physics.information import isolated_bound
from sureloc.physics.psf import GaussianPSF
from sureloc.physics.tile_model import Background, Emitters
from sureloc.runs.scheduler import AUTO
from sureloc.scoring.matching import Detection, interval_coverage, root_mean_square
from sureloc.table import LOCALIZATION_COLUMNS, TRUTH_COLUMNS

SIDE_PX, PIXEL_NM, SIGMA_PX = 64, 100.0, 1.0
DENSITIES_PER_UM2 = (0.18, 0.71, 1.78, 3.56)
BORDERS_NM = (0.0, 450.0)
Z_68, Z_95 = 0.99446, 1.95996
WARM_FRAMES = 2
RIVALS = Path(__file__).with_name("rivals.py")


@dataclass(frozen=True)
class Found:
    """What one tool found in a movie, and how fast: all in all, and without learning from it."""

    tool: str
    settings: str
    table: pd.DataFrame
    frames_per_s: float
    prepared_frames_per_s: float


@dataclass(frozen=True)
class Row:
    """One line of a table; `se` are binomial standard errors over coordinates."""

    density_per_um2: float
    border_nm: float
    tool: str
    settings: str
    frames: int
    emitters: int
    rows: int
    jaccard: float
    recall: float
    precision: float
    rmse_axis_nm: float
    crlb_axis_nm: float
    rmse_over_crlb: float
    held_68: float
    held_68_se: float
    held_95: float
    held_95_se: float
    mean_error_x_nm: float
    mean_error_y_nm: float
    frames_per_s: float
    prepared_frames_per_s: float


def frames_for(density_per_um2: float, emitters: int) -> int:
    """Give how many frames hold so many emitters all but surely (3 standard deviations)."""
    area_um2 = (SIDE_PX * PIXEL_NM / 1000) ** 2
    return math.ceil((emitters + 3 * math.sqrt(emitters)) / (density_per_um2 * area_um2))


def run_sureloc(movie: Path, out: Path, workers: int) -> Found:
    """Localize a simulated movie; one set of options for all."""
    outcome = localize_file(
        movie / "movie.ome.tif",
        out,
        camera=movie / "camera.npz",
        pixel_nm=PIXEL_NM,
        workers=workers,
        scheduler=AUTO,
    )
    record = pd.read_json(out / "run.json", typ="series")
    preparing = record["seconds"]["preparing"]
    return Found(
        "sureloc",
        "default",
        read_table(out / "localizations.parquet", LOCALIZATION_COLUMNS),
        outcome.frames / outcome.seconds,
        outcome.frames / (outcome.seconds - preparing),
    )


def run_rivals(
    python: Path, movie: Path, out: Path, workers: int, most_frames: int | None = None
) -> Iterator[Found]:
    """Give what every other tool finds with every box and threshold, in the first frames or all."""
    camera = read_camera(movie / "camera.npz")
    with open_movie(movie / "movie.ome.tif") as frames:
        adu = frames.read(0, min(frames.frames, most_frames or frames.frames))
    path = out.with_suffix(".npz")
    np.savez(
        path,
        frames=adu,
        offset_adu=camera.offset_adu,
        gain_adu_per_e=camera.gain_adu_per_e,
        variance_adu2=camera.variance_adu2,
        pixel_nm=PIXEL_NM,
        sigma_px=SIGMA_PX,
        threads=workers,
    )
    subprocess.run([python, RIVALS, path, out], check=True, stdout=subprocess.DEVNULL)
    path.unlink()
    rows = pd.read_csv(out / "localizations.csv")
    for run in pd.read_csv(out / "runs.csv").itertuples():
        table = rows[rows["run"] == run.run].reset_index(drop=True)
        frames_per_s = run.frames / run.seconds
        settings = f"{run.version}, box {run.box_px}, threshold {run.threshold:g}"
        yield Found(run.tool, settings, with_intervals(table), frames_per_s, math.nan)


def with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Give Gaussian intervals to a table that states precisions alone."""
    ends = {
        f"{axis}_{side}{level}_nm": table[f"{axis}_nm"] + sign * z * table[f"sigma_{axis}_nm"]
        for axis in "xy"
        for level, z in ((68, Z_68), (95, Z_95))
        for side, sign in (("lo", -1), ("hi", 1))
    }
    return table.assign(**ends)


def inside(table: pd.DataFrame, border_nm: float) -> np.ndarray:
    """Tell which positions lie at least so far from the frame's edge; all do from 0."""
    if border_nm == 0:
        return np.ones(len(table), bool)
    low, high = border_nm - 0.5 * PIXEL_NM, (SIDE_PX - 0.5) * PIXEL_NM - border_nm
    return (table["x_nm"].between(low, high) & table["y_nm"].between(low, high)).to_numpy(copy=True)


def bound_axis_nm(real: pd.DataFrame, camera: Camera) -> float:
    """Give the root mean square, over emitters and axes, of the bound of each alone."""
    shape = (SIDE_PX, SIDE_PX)
    squares = []
    for part in np.array_split(np.arange(len(real)), math.ceil(len(real) / 100)):
        x, y, photons = (
            torch.as_tensor(real[name].to_numpy(float)[part])[:, None] / unit
            for name, unit in (("x_nm", PIXEL_NM), ("y_nm", PIXEL_NM), ("photons", 1.0))
        )
        dark = Background.constant(torch.zeros(len(x), dtype=x.dtype), shape, sd=0.0)
        variance = torch.as_tensor(camera.read_variance_e2(shape))[None]
        emitters = Emitters.all_present(x, y, photons * camera.quantum_efficiency)
        alone = isolated_bound(emitters, dark, variance, GaussianPSF.round(SIGMA_PX))
        squares.append(torch.cat((alone.var_x_px2, alone.var_y_px2)))
    return PIXEL_NM * float(torch.cat(squares).mean().sqrt())


def score(
    density: float, border_nm: float, found: Found, truth: pd.DataFrame, camera: Camera, frames: int
) -> Row:
    """Compare a tool's table with the truth."""
    mine, theirs = matched(found.table, truth, RADIUS_NM)
    wanted = inside(truth, border_nm)
    stays = inside(found.table, border_nm)
    stays[mine] = wanted[theirs]
    pairs = wanted[theirs]
    rows = found.table.iloc[mine[pairs]].reset_index(drop=True)
    real = truth.iloc[theirs[pairs]].reset_index(drop=True)
    detection = Detection(int(wanted.sum()), int(stays.sum()), len(rows))

    def both(table: pd.DataFrame, name: str) -> np.ndarray:
        return np.concatenate([table[name.format(axis)].to_numpy(float) for axis in "xy"])

    def held(level: int) -> tuple[float, float]:
        ends = (both(rows, f"{{}}_{side}{level}_nm") for side in ("lo", "hi"))
        share = interval_coverage(*ends, both(real, "{}_nm"))
        return share, math.sqrt(share * (1 - share) / (2 * len(rows))) if len(rows) else math.nan

    error = both(rows, "{}_nm") - both(real, "{}_nm")
    rmse, bound = root_mean_square(error), bound_axis_nm(real, camera) if len(real) else math.nan
    mean_x, mean_y = (float(part.mean()) if part.size else math.nan for part in np.split(error, 2))
    return Row(
        density,
        border_nm,
        found.tool,
        found.settings,
        frames,
        detection.truths,
        detection.rows,
        detection.jaccard,
        detection.recall,
        detection.precision,
        rmse,
        bound,
        rmse / bound,
        *held(68),
        *held(95),
        mean_x,
        mean_y,
        found.frames_per_s,
        found.prepared_frames_per_s,
    )


def best(rows: list[Row]) -> list[Row]:
    """Give, for every tool, its row of the largest J, of equal ones that of the smallest error."""
    chosen: dict[str, Row] = {}
    for row in rows:
        other = chosen.setdefault(row.tool, row)
        if (row.jaccard, -row.rmse_axis_nm) > (other.jaccard, -other.rmse_axis_nm):
            chosen[row.tool] = row
    return list(chosen.values())


def measure(density: float, options: argparse.Namespace) -> list[Row]:
    """Simulate, localize and score one movie."""
    folder = options.out / f"{density:g}"
    frames = options.frames or frames_for(density, options.emitters)
    movie = folder / "movie"
    simulate(
        "peers",
        frames=frames,
        out=movie,
        seed=options.seed,
        settings=[f"scene.density_per_um2={density}"],
        quiet=True,
    )
    found = [run_sureloc(movie, folder / "sureloc", options.workers)]
    if options.rivals_python:
        found += run_rivals(options.rivals_python, movie, folder / "rivals", options.workers)
    truth = read_table(movie / "truth.parquet", TRUTH_COLUMNS)
    camera = read_camera(movie / "camera.npz")
    rows = []
    for border_nm in BORDERS_NM:
        rows += best([score(density, border_nm, one, truth, camera, frames) for one in found])
    return rows


def warm_up(options: argparse.Namespace) -> None:
    """Compile what is compiled at its first use, so that no row's time holds it."""
    folder = options.out / "warm_up"
    simulate(
        "peers",
        frames=WARM_FRAMES,
        out=folder / "movie",
        seed=options.seed + 1,
        settings=["scene.density_per_um2=0.71"],
        quiet=True,
    )
    run_sureloc(folder / "movie", folder / "sureloc", options.workers)


HEADER = (
    "| emitters / um^2 | tool | emitters | J | per-axis RMSE / isolated CRLB | 68 % held "
    "| 95 % held | frames/s | frames/s once prepared |"
)


def speed(frames_per_s: float) -> str:
    """Write three digits, or nothing where nothing is known."""
    if not math.isfinite(frames_per_s):
        return ""
    return f"{frames_per_s:.3g}" if frames_per_s < 100 else f"{frames_per_s:.0f}"


def markdown(rows: list[Row], border_nm: float) -> str:
    """Give one table."""
    lines = [HEADER, "|" + "---|" * (HEADER.count("|") - 1)]
    lines += [
        f"| {r.density_per_um2:.2f} | {r.tool} | {r.emitters} | {r.jaccard:.3f} "
        f"| {r.rmse_over_crlb:.2f} | {r.held_68:.3f} ({r.held_68_se:.3f}) "
        f"| {r.held_95:.3f} ({r.held_95_se:.3f}) | {speed(r.frames_per_s)} "
        f"| {speed(r.prepared_frames_per_s)} |"
        for r in rows
        if r.border_nm == border_nm
    ]
    return "\n".join(lines) + "\n"


def write(rows: list[Row], out: Path) -> None:
    """Write all rows as CSV."""
    with (out / "crowded.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Row)])
        writer.writerows(astuple(row) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--rivals-python", type=Path, help="Python with picassosr and smappy-smlm")
    parser.add_argument("--emitters", type=int, default=2000, help="at least so many a row")
    parser.add_argument("--frames", type=int, help="so many frames a row instead")
    parser.add_argument("--densities", type=float, nargs="+", default=DENSITIES_PER_UM2)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    torch.set_num_threads(1)
    warm_up(options)
    rows: list[Row] = []
    begin = time.perf_counter()
    for density in options.densities:
        rows += measure(density, options)
        write(rows, options.out)
        print(f"{density:g} per um^2: done after {time.perf_counter() - begin:.0f} s", flush=True)
    for border_nm in BORDERS_NM:
        print(f"\n{f'without a border of {border_nm:g} nm' if border_nm else 'whole frame'}:\n")
        print(markdown(rows, border_nm))
    print(", ".join(f"{name} {number}" for name, number in versions().items()))
    others = dict.fromkeys((r.tool, r.settings.split(",")[0]) for r in rows if r.tool != "sureloc")
    if options.rivals_python:
        print(", ".join(f"{tool} {number}" for tool, number in others))
    else:
        print("Picasso and SMAPpy are left out: --rivals-python was not given.")


if __name__ == "__main__":
    main()
