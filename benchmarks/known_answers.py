"""The whole chain on movies whose answer others know, with the default options and weights.

    python benchmarks/known_answers.py DATA       # the folder of the third-party movies

Simulated movies (`KNOWN`): recall, precision and the Jaccard index J of the rows against the truth,
matched one to one within 250 nm per frame; RMSE per axis over the joint Cramer-Rao bound that the
rows state (neighbours and background unknown) and over the bound of each row alone on its known
background; the share of true coordinates inside the stated intervals. Emitters whose true position
lies outside the frame count nowhere: no row may lie there either.

Real movies (`REAL`): rows per frame, and those that stand out by `CLEAR` deviations, beside what
the makers' own detector counted, which asks for about as much; whether fainter rows are molecules,
by how often one lies at the same place some frames later; the local chi2 of trusted regions; rows
at hot pixels beside what chance alone would put there; the distance of the reference spots to the
nearest row.

Leaves with 1 if a target is missed. Truth tables count from the outer corner of the first pixel,
rapidSTORM's and sureloc's from its centre.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from scipy.spatial import KDTree

from sureloc.camera import Camera
from sureloc.evaluate.compare import Comparison, compare, matched
from sureloc.io.cameras import read_camera
from sureloc.io.movies import open_movie
from sureloc.localize.doubles import Doubles
from sureloc.localize.movie import Assumptions, Options, localize, prepare
from sureloc.localize.rows import FrameRows
from sureloc.localize.verdict import Verdict, judge, region_doubts
from sureloc.networks.weights import load_weights
from sureloc.physics.information import isolated_bound
from sureloc.physics.psf import GaussianPSF
from sureloc.physics.tile_model import Background, Emitters

RADIUS_NM = 250.0
PATCH_PX = 10  # half the side of the patch in which an isolated bound is computed
OUTSIDE_E2 = 1e12  # read variance of pixels that are not there
SURE = 0.95
CLEAR = 6.0  # photons over their standard deviation
LATER, SAME_PX = 5, 1.0  # frames; a row as near as this is at the same place
HOT = 20.0  # times the median read variance
POISSON = Camera(offset_adu=100.0, gain_adu_per_e=1.0, variance_adu2=0.0)
EMCCD = Camera(offset_adu=100.0, gain_adu_per_e=2.06, variance_adu2=0.0, em_gain=300.0)


@dataclass(frozen=True)
class Target:
    """What a movie has to reach; None asks for nothing."""

    jaccard: float
    over_crlb: float | None
    coverage_95: tuple[float, float]


@dataclass(frozen=True)
class Known:
    """A simulated movie, its truth (corner origin), its camera and its targets."""

    name: str
    stack: str
    truth: str
    pixel_nm: float
    camera: Camera
    target: Target


@dataclass(frozen=True)
class Real:
    """A real movie; its camera is estimated where no file is named."""

    name: str
    stack: str
    pixel_nm: float
    camera: str | None = None
    spots_per_frame: tuple[int, int] | None = None
    reference: str | None = None


KNOWN = (
    *(
        Known(
            name,
            f"known_answer_sim/{name}.tif",
            f"known_answer_sim/{name}_truth.csv",
            160.0,
            POISSON,
            target,
        )
        for name, target in (
            ("test", Target(0.95, 1.15, (0.92, 0.98))),
            ("test_300x200", Target(0.95, 1.15, (0.92, 0.98))),
            ("test_low_snr", Target(0.75, None, (0.92, 0.98))),
        )
    ),
    Known(
        "dense_random_sim",
        "dense_random_sim/stack.tif",
        "dense_random_sim/truth.csv",
        100.0,
        EMCCD,
        Target(0.55, None, (0.85, 1.0)),
    ),
)
REAL = (
    Real(
        "scmos_storm_real",
        "scmos_storm_real/stack.tif",
        160.0,
        camera="scmos_storm_real/camera_calibration.npz",
        spots_per_frame=(70, 96),
    ),
    Real(
        "dstorm_real",
        "dstorm_real/stack.tif",
        133.5,
        reference="dstorm_real/rapidSTORM_from_images.txt",
    ),
)


@dataclass
class Run:
    """One run of the whole chain."""

    table: pd.DataFrame
    assumptions: Assumptions
    verdict: Verdict
    shape: tuple[int, int, int]
    chi2: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def trusted(self) -> float:
        return float(self.table["trusted"].mean()) if len(self.table) else 1.0


def run(stack: Path, pixel_nm: float, camera: Camera | None, options: argparse.Namespace) -> Run:
    """Do what `sureloc localize` does, and keep the tables and the local fit."""
    begin = time.perf_counter()
    choice = Options(pixel_nm=pixel_nm, seed=options.seed, workers=options.workers)
    networks = load_weights(options.weights)
    with open_movie(stack) as whole:
        movie = whole.select(frames=slice(0, min(options.frames or whole.frames, whole.frames)))
        assumptions = prepare(movie, camera, choice, networks)
        rows: list[FrameRows] = list(localize(movie, assumptions, choice, networks))
        shape = movie.shape
    table = pd.concat([r.table for r in rows], ignore_index=True)
    doubles = Doubles(pixel_nm * float(np.mean(assumptions.sigma_px)))
    doubles.add_frames(table, range(len(rows)))
    chi2 = [r.chi2 for r in rows]
    mean_chi2 = np.mean(chi2, axis=0)
    verdict = judge(
        len(table),
        table["reason"][~table["trusted"]].value_counts().to_dict(),
        1 - float(table["p_exists"].mean()),
        float(mean_chi2.mean()),
        region_doubts(mean_chi2, np.zeros(shape[1:]), len(chi2), assumptions.sigma_px),
        doubles.excess,
        assumptions.learned.prior.density_per_px2,
        assumptions.warnings,
    )
    return Run(table, assumptions, verdict, shape, chi2, time.perf_counter() - begin)


def isolated_nm(table: pd.DataFrame, found: Run, pixel_nm: float) -> np.ndarray:
    """Give the bound of each row alone on its known background, x then y, nm."""
    camera = found.assumptions.camera
    efficiency = camera.quantum_efficiency
    x, y = (table[name].to_numpy(float) / pixel_nm for name in ("x_nm", "y_nm"))
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    height, width = found.shape[1:]
    variance = np.pad(
        camera.read_variance_e2((height, width)), PATCH_PX, constant_values=OUTSIDE_E2
    )
    reach = np.arange(2 * PATCH_PX + 1)
    patches = variance[
        np.clip(row, 0, height - 1)[:, None, None] + reach[:, None],
        np.clip(column, 0, width - 1)[:, None, None] + reach,
    ]
    photons = np.maximum(table["photons"].to_numpy(float) * efficiency, 1.0)
    level = np.maximum(table["background_photons"].to_numpy(float) * efficiency, 1e-3)
    sigma = found.assumptions.sigma_px
    bound = isolated_bound(
        Emitters.all_present(
            *(torch.from_numpy(v)[:, None] for v in (x - column + PATCH_PX, y - row + PATCH_PX)),
            torch.from_numpy(photons)[:, None],
        ),
        Background.constant(torch.from_numpy(level), patches.shape[1:], sd=0.0),
        torch.from_numpy(patches),
        GaussianPSF(*sigma),
        camera.excess_noise,
    )
    both = torch.cat((bound.var_x_px2[:, 0], bound.var_y_px2[:, 0]))
    return both.sqrt().numpy() * pixel_nm


def read_truth(movie: Known, data: Path, shape: tuple[int, int, int]) -> pd.DataFrame:
    """Give the truth inside the frames, counted from the centre of the first pixel."""
    truth = pd.read_csv(data / movie.truth)
    frames, height, width = shape
    inside = (
        truth["x_nm"].between(0, width * movie.pixel_nm)
        & truth["y_nm"].between(0, height * movie.pixel_nm)
        & (truth["frame"] < frames)
    )
    half = 0.5 * movie.pixel_nm
    shifted = {name: truth[name] - half for name in ("x_nm", "y_nm")}
    return truth.assign(**shifted)[inside].reset_index(drop=True)


def problems(found: Comparison, verdict: Verdict, target: Target) -> list[str]:
    """Name the targets that are missed."""
    missed = []
    if not found.jaccard >= target.jaccard:
        missed.append(f"J {found.jaccard:.3f} < {target.jaccard:g}")
    if target.over_crlb is not None and not found.rmse_over_crlb <= target.over_crlb:
        missed.append(f"RMSE/CRLB {found.rmse_over_crlb:.2f} > {target.over_crlb:g}")
    low, high = target.coverage_95
    if not low <= found.coverage_95 <= high:
        missed.append(f"95 % holds {found.coverage_95:.3f}, not {low:g}-{high:g}")
    if verdict.trust.value == "do not trust":
        missed.append("verdict")
    return missed


def tell_known(movie: Known, data: Path, options: argparse.Namespace) -> bool:
    """Run one simulated movie and print its line; tell whether its targets were reached."""
    found = run(data / movie.stack, movie.pixel_nm, movie.camera, options)
    truth = read_truth(movie, data, found.shape)
    c = compare(found.table, truth, RADIUS_NM)
    mine, theirs = matched(found.table, truth, RADIUS_NM)
    pairs, real = found.table.iloc[mine], truth.iloc[theirs]
    alone = isolated_nm(pairs, found, movie.pixel_nm)
    over_alone = c.rmse_axis_nm / np.sqrt(np.mean(alone**2))
    missed = problems(c, found.verdict, movie.target)
    shift = [float((pairs[a].to_numpy() - real[a].to_numpy()).mean()) for a in ("x_nm", "y_nm")]
    print(
        f"{movie.name:17}{c.truths:6d}{c.rows:6d}  {c.jaccard:.3f}  {c.recall:.3f}   "
        f"{c.precision:.3f}  {c.rmse_x_nm:5.1f} {c.rmse_y_nm:5.1f}  {c.rmse_over_crlb:6.2f}"
        f"{over_alone:7.2f}    {c.coverage_68:.3f}  {c.coverage_95:.3f}   {shift[0]:+.1f} "
        f"{shift[1]:+.1f}   {found.verdict.mean_chi2:.3f}  {100 * found.trusted:6.1f} "
        f"{found.seconds:8.0f}  {found.verdict.trust.value}"
        + (f"   MISSED: {'; '.join(missed)}" if missed else ""),
        flush=True,
    )
    return not missed


def hot_rows(found: Run, pixel_nm: float) -> tuple[int, float, float, int]:
    """Count rows on or beside hot pixels; also mean and sd of what chance gives, and hot pixels.

    Chance is the same rows on the same map moved by random whole pixels round the frame, since a
    molecule that stays on for several frames, beside a hot pixel or not, counts several times.
    """
    variance = found.assumptions.camera.read_variance_e2(found.shape[1:])
    hot = variance > HOT * np.median(variance)
    near = ndimage.binary_dilation(hot)
    height, width = variance.shape
    r, c = (
        np.clip(np.rint(found.table[n].to_numpy() / pixel_nm).astype(int), 0, size - 1)
        for n, size in (("y_nm", height), ("x_nm", width))
    )
    rng = np.random.default_rng(0)
    by_chance = [
        near[(r + rng.integers(height)) % height, (c + rng.integers(width)) % width].sum()
        for _ in range(1000)
    ]
    return int(near[r, c].sum()), float(np.mean(by_chance)), float(np.std(by_chance)), hot.sum()


def distances_nm(found: Run, path: Path) -> list[float]:
    """Give how far each reference spot of rapidSTORM is from the nearest row of its frame."""
    spots = np.loadtxt(path, comments="#", usecols=(0, 1, 2), ndmin=2)
    out = []
    for x, y, frame in spots[spots[:, 2] < found.shape[0]]:
        here = found.table[found.table["frame"] == int(frame)]
        far = np.hypot(here["x_nm"] - x, here["y_nm"] - y)
        out.append(float(far.min()) if len(far) else float("inf"))
    return out


def clear_rows(table: pd.DataFrame) -> np.ndarray:
    """Tell which rows a strict detector would find."""
    return (table["photons"] > CLEAR * table["sigma_photons"]).to_numpy()


def recurrence(found: Run, pixel_nm: float) -> tuple[float, float]:
    """Give the share of rows that are not clear with any row at their place `LATER` frames on.

    And the share that chance gives: the same with the later frame's rows mirrored.
    """
    table, seen, chance = found.table, [], []
    mirror = np.array([found.shape[2] - 1.0, found.shape[1] - 1.0])
    place = table[["x_nm", "y_nm"]].to_numpy() / pixel_nm
    frame = table["frame"].to_numpy()
    faint = ~clear_rows(table)
    for k in range(found.shape[0] - LATER):
        here, later = place[faint & (frame == k)], place[frame == k + LATER]
        if len(here) and len(later):
            seen.extend(KDTree(later).query(here)[0] < SAME_PX)
            chance.extend(KDTree(mirror - later).query(here)[0] < SAME_PX)
    return float(np.mean(seen)), float(np.mean(chance))


def tell_real(movie: Real, data: Path, options: argparse.Namespace) -> bool:
    """Run one real movie and print what can be said of it; tell whether all is as it should be."""
    camera = read_camera(data / movie.camera) if movie.camera else None
    found = run(data / movie.stack, movie.pixel_nm, camera, options)
    mask = found.verdict.mask
    local = np.mean(found.chi2, axis=0)[mask]
    chi2 = float(local.mean())
    quantiles = np.quantile(local, (0.05, 0.95))
    counts = np.bincount(found.table["frame"], minlength=found.shape[0])[:10]
    missed = [] if 0.9 <= chi2 <= 1.2 else [f"chi2 {chi2:.2f}"]
    print(f"\n{movie.name}: {found.verdict.sentence}")
    print(f"  {found.seconds:.0f} s; {len(found.table)} rows, {100 * found.trusted:.1f} % trusted")
    print(f"  rows in the first ten frames: {' '.join(map(str, counts))}", end="")
    if movie.spots_per_frame:
        low, high = movie.spots_per_frame
        print(f" (mean {counts.mean():.0f})", end="")
        clear = found.table["frame"][clear_rows(found.table)]
        bright = np.bincount(clear, minlength=found.shape[0])[:10]
        print(
            f"\n  of these stand out by {CLEAR:g} deviations: {' '.join(map(str, bright))} "
            f"(mean {bright.mean():.0f}; the makers' detector: {low}-{high})",
            end="",
        )
        if not low <= bright.mean() <= high:
            missed.append("clear rows per frame")
        seen, chance = recurrence(found, movie.pixel_nm)
        print(
            f"\n  of the fainter ones {100 * seen:.0f} % have a row within {SAME_PX:g} px {LATER} "
            f"frames later; by chance {100 * chance:.1f} %",
            end="",
        )
        if not seen > 10 * chance:
            missed.append("fainter rows come and go at random")
    sure = found.table[found.table["p_exists"] >= SURE]
    certain = np.bincount(sure["frame"], minlength=found.shape[0])[:10]
    print(
        f"\n  of these exist with {SURE:g} or more: {' '.join(map(str, certain))} "
        f"(mean {certain.mean():.0f})"
    )
    print(
        f"  local chi2 of trusted regions: mean {chi2:.3f}, 5 % and 95 % of the movie's map "
        f"{quantiles[0]:.2f} {quantiles[1]:.2f}; trusted area {100 * mask.mean():.1f} %"
    )
    if movie.camera:
        rows, chance, sd, pixels = hot_rows(found, movie.pixel_nm)
        print(
            f"  rows on or beside the {pixels} pixels of more than {HOT:g} times the median read "
            f"variance: {rows}; by chance: {chance:.0f} +- {sd:.0f}"
        )
        if rows > chance + 3 * sd:
            missed.append("rows at hot pixels")
    if movie.reference:
        far = distances_nm(found, data / movie.reference)
        print(f"  reference spots: nearest row at {', '.join(f'{d:.1f}' for d in far)} nm")
        if max(far) > 25:
            missed.append("reference spots")
    if missed:
        print(f"  MISSED: {'; '.join(missed)}")
    sys.stdout.flush()
    return not missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the third-party movies")
    parser.add_argument("--only", help="name of one movie")
    parser.add_argument("--frames", type=int, help="only so many first frames")
    parser.add_argument("--weights", default="fast")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    good = True
    print("                  truth  rows                               RMSE nm     RMSE / bound")
    print(
        "movie                               J  recall precision      x     y   joint  alone"
        "   68 % in 95 % in  shift x, y nm  chi2 trusted % seconds  verdict"
    )
    for known in KNOWN:
        if options.only in (None, known.name):
            good &= tell_known(known, options.data, options)
    for real in REAL:
        if options.only in (None, real.name):
            good &= tell_real(real, options.data, options)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
