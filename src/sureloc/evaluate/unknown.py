"""Movies that are not what sureloc takes them for, and whether it says so.

Each case departs from the model in one way: the PSF is another one, or wrongly given; the camera is
not the one it is told; the ground is no ground; molecules move; or there are none at all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from sureloc.camera import Camera
from sureloc.errors import InputError
from sureloc.evaluate.compare import RADIUS_NM, matched
from sureloc.evaluate.trials import InMemory, Simulated, simulate
from sureloc.localize.columns import columns_of
from sureloc.localize.doubles import Doubles
from sureloc.localize.images import ImageSums, counting_window
from sureloc.localize.movie import Options, localize, prepare
from sureloc.localize.verdict import (
    Trust,
    Verdict,
    judge,
    mark_regions,
    region_doubts,
    region_score,
)
from sureloc.networks.weights import Networks
from sureloc.physics.image import render_frames
from sureloc.physics.psf import GaussianPSF
from sureloc.physics.pupil import Pupil
from sureloc.scoring.matching import interval_coverage
from sureloc.seeds import numpy_generator, torch_generator
from sureloc.simulate.background import background_map
from sureloc.simulate.movie import read_out
from sureloc.simulate.recipe import Recipe

Array = npt.NDArray[np.float64]

SIGMA_PX = 1.2
CUTOFF = 0.21 / SIGMA_PX  # a lens whose Gaussian is as wide (Zhang et al. 2007)
BLUR_PX = 3.0  # how far molecules move during an exposure
STEPS = 12  # in which they do
REFUSED_DOUBT = 99.0  # of a run that ended with an error instead of a table
QUANTILES = np.linspace(0.0, 1.0, 41)  # of the region score, by which a movie's pixels are kept


@dataclass(frozen=True)
class Case:
    """One way in which a movie is not what it is taken for.

    Attributes:
        name: in plain words.
        settings: of the recipe `uniform`, beside those that all cases share.
        change: what is done to the simulated movie; None leaves it as it is.
        told_sigma_px: PSF width that is given; None lets it be estimated.
        known: sureloc should manage: nothing is wrong with it.
    """

    name: str
    settings: tuple[str, ...] = ()
    change: Callable[[Simulated, int], Simulated] | None = None
    told_sigma_px: float | None = None
    known: bool = False


def _told(change: Callable[[Camera], Camera]) -> Callable[[Simulated, int], Simulated]:
    """Tell sureloc of another camera than the one that took the movie."""
    return lambda simulated, _: replace(simulated, camera=change(simulated.camera))


def _gain(factor: float) -> Callable[[Camera], Camera]:
    return lambda camera: replace(camera, gain_adu_per_e=factor * np.asarray(camera.gain_adu_per_e))


def _offset(shift_adu: float) -> Callable[[Camera], Camera]:
    return lambda camera: replace(camera, offset_adu=shift_adu + np.asarray(camera.offset_adu))


def _level(camera: Camera) -> Camera:
    """Give the camera without what is known of its hot pixels."""
    variance = np.asarray(camera.variance_adu2)
    return replace(camera, variance_adu2=np.full_like(variance, np.median(variance)))


def _exposed(simulated: Simulated, light_e: Array, seed: int) -> Simulated:
    """Take the movie again, of other light without background (photons)."""
    recipe = simulated.recipe
    ground = background_map(recipe.background, recipe.frame, numpy_generator(seed, "background"))
    expected = (light_e + ground) * simulated.camera.quantum_efficiency
    adu = read_out(torch.from_numpy(expected), simulated.camera, torch_generator(seed, "unknown"))
    return replace(simulated, movie=InMemory(adu))


def aberrated(pupil: Pupil) -> Callable[[Simulated, int], Simulated]:
    """Give what takes the movie again through another lens."""

    def change(simulated: Simulated, seed: int) -> Simulated:
        frame, truth = simulated.recipe.frame, simulated.truth
        shape = simulated.movie.shape
        half = pupil.side_px // 2
        light = np.zeros((shape[0], shape[1] + 4 * half, shape[2] + 4 * half))
        x, y = (truth[name].to_numpy(float) / frame.pixel_nm for name in ("x_nm", "y_nm"))
        column, row = np.rint(x).astype(int), np.rint(y).astype(int)
        images = pupil.images(x - column, y - row)
        images *= truth["photons"].to_numpy(float)[:, None, None]
        for k, number in enumerate(truth["frame"]):
            top, left = row[k] + half, column[k] + half
            light[number, top : top + 2 * half, left : left + 2 * half] += images[k]
        inner = slice(2 * half, -2 * half)
        return _exposed(simulated, light[:, inner, inner], seed)

    return change


def moving(simulated: Simulated, seed: int) -> Simulated:
    """Take the movie again while every molecule moves along a line."""
    frame, truth = simulated.recipe.frame, simulated.truth
    x, y = (truth[name].to_numpy(float) / frame.pixel_nm for name in ("x_nm", "y_nm"))
    angle = numpy_generator(seed, "angle").uniform(0.0, 2 * math.pi, len(truth))
    light = np.zeros(simulated.movie.shape)
    for step in np.linspace(-0.5, 0.5, STEPS):
        light += render_frames(
            torch.from_numpy(x + step * BLUR_PX * np.cos(angle)),
            torch.from_numpy(y + step * BLUR_PX * np.sin(angle)),
            torch.from_numpy(truth["photons"].to_numpy(float) / STEPS),
            torch.from_numpy(truth["frame"].to_numpy(np.int64, copy=True)),
            GaussianPSF.round(simulated.recipe.psf.sigma_px),
            simulated.movie.shape,
        ).numpy()
    return _exposed(simulated, light, seed)


def textured(shape: tuple[int, int], generator: np.random.Generator) -> Array:
    """Draw an image whose amplitude falls as 1 / frequency, as that of photographs (Field 1987).

    Returns:
        Mean 1, standard deviation about 0.4, nowhere below 0.05, (rows, columns).
    """
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None, :])
    frequency[0, 0] = np.inf
    phase = np.fft.fft2(generator.standard_normal(shape))
    field = np.fft.ifft2(phase / frequency).real
    return np.asarray(np.maximum(1.0 + 0.4 * field / field.std(), 0.05))


def photograph(shape: tuple[int, int], generator: np.random.Generator) -> Array:
    """Cut a piece of the photograph that comes with Matplotlib, at half its size.

    Returns:
        Mean 1, (rows, columns).
    """
    from matplotlib import cbook, image

    path = str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    grey = np.asarray(image.imread(path), dtype=np.float64).mean(2)
    even = grey[: grey.shape[0] // 2 * 2, : grey.shape[1] // 2 * 2]
    half = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2).mean((1, 3))
    top, left = (
        int(generator.integers(0, a - b + 1)) for a, b in zip(half.shape, shape, strict=True)
    )
    piece = half[top : top + shape[0], left : left + shape[1]]
    return np.asarray(piece / piece.mean())


def _pictured(
    make: Callable[[tuple[int, int], np.random.Generator], Array], photons: float = 100.0
) -> Callable[[Simulated, int], Simulated]:
    """Give what takes a movie of one still picture, without any molecule."""

    def change(simulated: Simulated, seed: int) -> Simulated:
        frames, rows, columns = simulated.movie.shape
        picture = photons * make((rows, columns), numpy_generator(seed, "picture"))
        still = np.broadcast_to(picture, (frames, rows, columns))
        shown = _exposed(simulated, still, seed)
        return replace(shown, truth=simulated.truth.iloc[:0])

    return change


def cases() -> list[Case]:
    """Give all cases; the first is what sureloc was made for."""
    shares = (0.15, 0.30, 0.60)
    out = [Case("as it should be", known=True)]
    for sign, word in ((1, "wider"), (-1, "narrower")):
        for share in shares:
            true = (f"psf.sigma_px={SIGMA_PX * (1 + sign * share):g}",)
            percent = f"{100 * share:.0f} % {word}"
            out.append(Case(f"PSF {percent} than given", true, told_sigma_px=SIGMA_PX))
            out.append(Case(f"PSF {percent}, estimated", true, known=True))
    out.append(Case("a lens without fault (Airy)", change=aberrated(Pupil(CUTOFF)), known=True))
    for rms in (0.5, 1.0):
        lenses = {
            "defocus": Pupil(CUTOFF, defocus=rms),
            "astigmatism": Pupil(CUTOFF, astigmatism=rms),
            "coma": Pupil(CUTOFF, coma=rms),
        }
        for name, lens in lenses.items():
            out.append(Case(f"{name}, {rms:g} rad rms", change=aberrated(lens)))
    for factor in (1.2, 0.8):
        out.append(Case(f"gain given as {factor:g} of the true", change=_told(_gain(factor))))
    for shift in (5.0, -5.0):
        out.append(Case(f"offset given {shift:+.0f} ADU off", change=_told(_offset(shift))))
    structured = (
        "background={kind: structured, photons_per_px: 40, structured_share: 0.8, filaments: 4, "
        "persistence_um: 10, defocus_px: 2}"
    )
    hot = "camera={kind: scmos, hot_share: 0.02, hot_factor: 100}"
    out += [
        Case("denser than in training", ("scene.density_per_um2=9",)),
        Case("structured background", (structured,)),
        Case("molecules move 3 px", change=moving),
        Case("hot pixels not on the map", (hot,), change=_told(_level)),
        Case("a texture (1/f)", change=_pictured(textured)),
        Case("a photograph", change=_pictured(photograph)),
    ]
    return out


@dataclass(frozen=True)
class Judged:
    """A run as `sureloc localize` makes it, without its files.

    Attributes:
        table: rows, marked where they are not to be trusted.
        verdict: of the run.
        region_score: how much speaks against every camera pixel, (rows, columns).
    """

    table: pd.DataFrame
    verdict: Verdict
    region_score: Array


def judged(movie: InMemory, camera: Camera, options: Options, networks: Networks) -> Judged:
    """Localize a movie and judge the run.

    Raises:
        InputError: sureloc refuses the movie.
    """
    assumptions = prepare(movie, camera, options, networks)
    sigma = assumptions.sigma_px
    shape = movie.shape[1], movie.shape[2]
    sums = ImageSums(shape, 1, options.pixel_nm, counting_window(sigma))
    tables = []
    doubles = Doubles(float(np.mean(sigma)) * options.pixel_nm)
    for rows in localize(movie, assumptions, options, networks):
        sums.count_emitters(columns_of(rows.draws), options.draws)
        sums.chi2 += rows.chi2
        tables.append(rows.table)
        doubles.add_frames(rows.table, [rows.frame])
    mean_chi2 = sums.chi2 / movie.shape[0]
    doubts = region_doubts(mean_chi2, sums.doubt, movie.shape[0], sigma)
    table, _ = mark_regions(pd.concat(tables, ignore_index=True), doubts, options.pixel_nm)
    reasons = Counter(table["reason"][~table["trusted"].to_numpy(bool)])
    verdict = judge(
        len(table),
        reasons,
        1.0 - float(table["p_exists"].mean()) if len(table) else 0.0,
        float(mean_chi2.mean()),
        doubts,
        doubles.excess,
        assumptions.learned.prior.density_per_px2,
        assumptions.warnings,
    )
    return Judged(table, verdict, region_score(mean_chi2, sums.doubt))


def departed(case: Case, recipe: Recipe, frames: int, seed: int) -> Simulated:
    """Simulate a case."""
    simulated = simulate(recipe, frames, seed)
    return simulated if case.change is None else case.change(simulated, seed)


def judged_case(
    case: Case, simulated: Simulated, networks: Networks, seed: int
) -> dict[str, float | str]:
    """Run sureloc on a movie of a case and say what it made of it.

    Returns:
        The verdict with its doubt, quantiles of the pixels' scores, and for the rows that are still
        trusted how many there are, how many of them are false, and how often 95 % intervals of the
        others hold.
    """
    options = Options(simulated.recipe.frame.pixel_nm, case.told_sigma_px, seed=seed)
    try:
        run = judged(simulated.movie, simulated.camera, options, networks)
    except InputError as error:
        return {
            "verdict": Trust.REFUSE.value,
            "doubt": REFUSED_DOUBT,
            "why": str(error),
            "trusted": 0.0,
            "false": 0.0,
            "coordinates": 0.0,
            "held": 0.0,
            "region": " ".join(f"{REFUSED_DOUBT:g}" for _ in QUANTILES),
        }
    trusted = run.table[run.table["trusted"].to_numpy(bool)].reset_index(drop=True)
    truth = simulated.truth.iloc[np.flatnonzero(simulated.inside)]
    mine, theirs = matched(trusted, truth, RADIUS_NM)
    rows, real = trusted.iloc[mine], truth.iloc[theirs]
    held = 0.0
    if len(mine):
        held = len(mine) * sum(
            interval_coverage(
                rows[f"{axis}_lo95_nm"].to_numpy(float),
                rows[f"{axis}_hi95_nm"].to_numpy(float),
                real[f"{axis}_nm"].to_numpy(float),
            )
            for axis in "xy"
        )
    return {
        "verdict": run.verdict.trust.value,
        "doubt": run.verdict.doubt,
        "why": run.verdict.sentence,
        "mean_chi2": run.verdict.mean_chi2,
        "trusted": float(len(trusted)),
        "false": float(len(trusted) - len(mine)),
        "coordinates": 2.0 * len(mine),
        "held": held,
        "region": " ".join(f"{q:.4g}" for q in np.quantile(run.region_score, QUANTILES)),
    }


def auroc(higher: Array, lower: Array) -> float:
    """Give the probability that a value of the one set is above one of the other, ties half.

    The area under the receiver operating characteristic (Hanley and McNeil 1982).
    """
    if higher.size == 0 or lower.size == 0:
        return float("nan")
    apart = higher[:, None] - lower[None, :]
    return float((apart > 0).mean() + 0.5 * (apart == 0).mean())


def caught(higher: Array, lower: Array, false_alarms: float = 0.05) -> float:
    """Give the share of the one set above all but so many of the other."""
    if higher.size == 0 or lower.size == 0:
        return float("nan")
    return float((higher > np.quantile(lower, 1 - false_alarms)).mean())


def detection(runs: pd.DataFrame) -> pd.DataFrame:
    """Sum up the runs of all cases, each case against the first.

    Args:
        runs: what `judged_case` gave, with the columns `case` and `known`.

    Returns:
        One row a case. Rows, false ones and coverage are those of runs that do not refuse trust.
    """
    out = []
    names = list(dict.fromkeys(runs["case"]))
    usual = runs[runs["case"] == names[0]]

    def pixels(some: pd.DataFrame) -> Array:
        return np.array([[float(v) for v in text.split()] for text in some["region"]]).ravel()

    for name in names:
        every = runs[runs["case"] == name]
        mine = every[every["verdict"] != Trust.REFUSE.value]
        number = max(float(mine["coordinates"].sum()), 1.0)
        share = float(mine["held"].sum()) / number if mine["coordinates"].sum() else math.nan
        said = every["verdict"]
        doubts, before = every["doubt"].to_numpy(float), usual["doubt"].to_numpy(float)
        out.append(
            {
                "case": name,
                "movies": len(every),
                "known": bool(every["known"].iloc[0]),
                "auroc_run": auroc(doubts, before),
                "caught_run": caught(doubts, before),
                "auroc_region": auroc(pixels(every), pixels(usual)),
                "caught_region": caught(pixels(every), pixels(usual)),
                "trust": float((said == Trust.TRUST.value).mean()),
                "care": float((said == Trust.CARE.value).mean()),
                "refused": float((said == Trust.REFUSE.value).mean()),
                "doubt": float(np.median(doubts)),
                "trusted_rows": float(mine["trusted"].sum()),
                "false_share": float(mine["false"].sum()) / max(float(mine["trusted"].sum()), 1.0),
                "held_95": share,
                "held_95_error": math.sqrt(0.05 * 0.95 / number),
                "commit": ", ".join(sorted(set(every["commit"]))),
            }
        )
    return pd.DataFrame(out)
