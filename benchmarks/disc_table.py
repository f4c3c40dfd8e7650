"""The paper's condition: ten emitters at once in a disc of 7 px radius, at several brightnesses.

    python benchmarks/disc_table.py                # 100 frames, 1,000 emitters a row

Recipe `paper` (20 x 20 px of 108 nm, sigma 0.92 px, sCMOS with maps of offset, gain and read
noise, no background), with 200 to 5,000 photons an emitter. sureloc gets the movie, the camera's
maps and the pixel size, its default options and weights; it is told nothing of photons, number,
place or PSF width. One command for all rows; no row was used for tuning.

J: rows against the truth, matched one to one within 250 nm per frame. RMSE is per axis over the
matched emitters. Bounds are Cramer-Rao bounds of the true configuration, background known: each
emitter `alone`, and all ten `jointly`. The joint bound of two emitters that all but coincide has no
limit, and a root mean square over all would be theirs alone; RMSE / joint is therefore over the
emitters that the image determines, of a joint bound below half a PSF width, whose share is given.
It may fall below 1: the bound takes brightness as unknown, while sureloc learns from the movie that
all emitters are equally bright. `N known` is the joint bound with the brightness known. Shares are
given with binomial standard errors.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from sureloc.camera import Camera
from sureloc.config.recipes import load_recipe
from sureloc.evaluate.compare import Comparison, compare, matched
from sureloc.evaluate.trials import run_trial, simulate
from sureloc.networks.weights import load_weights
from sureloc.physics.information import isolated_bound, joint_bound
from sureloc.physics.psf import GaussianPSF
from sureloc.physics.tile_model import Background, Emitters
from sureloc.scoring.matching import root_mean_square
from sureloc.simulate.recipe import Recipe

PHOTONS = (200, 500, 1000, 2000, 5000)
RADIUS_NM = 250.0


@dataclass(frozen=True)
class Bounds:
    """Cramer-Rao bounds of the true emitters, nm, x then y, in the order of the truth table.

    `alone`: each without the others; `joint`: all together; `bright`: of known brightness.
    """

    alone: npt.NDArray[np.float64]
    joint: npt.NDArray[np.float64]
    bright: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    photons: int
    found: Comparison
    over_alone: float
    determined: float
    over_joint: float
    over_bright: float
    sigma_px: tuple[float, float]
    seconds: float


def bounds(truth: pd.DataFrame, camera: Camera, recipe: Recipe) -> Bounds:
    """Compute both bounds of every true emitter, frame by frame."""
    pixel = recipe.frame.pixel_nm
    shape = recipe.frame.height, recipe.frame.width
    frames = int(truth["frame"].max()) + 1
    lists = (frames, len(truth) // frames)
    if list(truth["frame"]) != list(np.arange(frames).repeat(lists[1])):
        raise ValueError("the frames of this recipe must hold equally many emitters")
    x, y, photons = (
        torch.from_numpy(truth[name].to_numpy(float, copy=True)).view(lists) / scale
        for name, scale in (("x_nm", pixel), ("y_nm", pixel), ("photons", 1.0))
    )
    emitters = Emitters.all_present(x, y, photons * camera.quantum_efficiency)
    none = Background.constant(torch.zeros(lists[0], dtype=torch.float64), shape, sd=0.0)
    variance = torch.from_numpy(camera.read_variance_e2(shape))[None]
    psf = GaussianPSF.round(recipe.psf.sigma_px)

    def both(x_px2: torch.Tensor, y_px2: torch.Tensor) -> npt.NDArray[np.float64]:
        return np.asarray(torch.cat((x_px2.flatten(), y_px2.flatten())).sqrt() * pixel)

    arguments = (emitters, none, variance, psf)
    alone, joint = isolated_bound(*arguments), joint_bound(*arguments)
    # Rows of the information matrix that are left out count as known.
    size = 3 * lists[1]
    places = torch.arange(size)[torch.arange(size) % 3 != 2]
    information = torch.linalg.inv(joint.matrix[:, :size, :size])[:, places][:, :, places]
    known = torch.diagonal(torch.linalg.inv(information), dim1=1, dim2=2)
    return Bounds(
        both(alone.var_x_px2, alone.var_y_px2),
        both(joint.var_x_px2, joint.var_y_px2),
        both(known[:, ::2], known[:, 1::2]),
    )


def measure(photons: int, options: argparse.Namespace) -> Row:
    """Simulate a movie, localize it and compare it with the truth and the bounds."""
    recipe = load_recipe("paper", [f"photons.photons={photons}"])
    simulated = simulate(recipe, options.frames, options.seed)
    trial = run_trial(simulated, load_weights(options.weights), options.workers)
    table, truth, camera = trial.table, simulated.truth, simulated.camera

    found = compare(table, truth, RADIUS_NM)
    mine, theirs = matched(table, truth, RADIUS_NM)
    limits = bounds(truth, camera, recipe)
    both = np.concatenate([theirs, theirs + len(truth)])
    error = np.concatenate(
        [(table[a].to_numpy()[mine] - truth[a].to_numpy()[theirs]) for a in ("x_nm", "y_nm")]
    )
    joint = limits.joint[both]
    told = joint < 0.5 * recipe.psf.sigma_px * recipe.frame.pixel_nm
    rmse_told = root_mean_square(error[told])
    return Row(
        photons,
        found,
        found.rmse_axis_nm / root_mean_square(limits.alone[both]),
        float(told.mean()),
        rmse_told / root_mean_square(joint[told]),
        rmse_told / root_mean_square(limits.bright[both][told]),
        trial.assumptions.sigma_px,
        trial.seconds,
    )


def with_error(share: float, number: int) -> str:
    """Write a share with its binomial standard error."""
    return f"{share:.3f} ({math.sqrt(share * (1 - share) / max(number, 1)):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100, help="of ten emitters each")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--weights", default="fast")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| photons | emitters | J | recall | precision | RMSE nm | RMSE / alone | determined | "
        "RMSE / joint there | RMSE / joint, N known | "
        "68 % interval holds | 95 % interval holds | photons found | sigma found px | s |"
    )
    print("|" + "---|" * 15)
    for photons in PHOTONS:
        r = measure(photons, options)
        c = r.found
        n = 2 * c.pairs
        print(
            f"| {photons} | {c.truths} | {with_error(c.jaccard, c.truths + c.rows - c.pairs)} | "
            f"{c.recall:.3f} | {c.precision:.3f} | {c.rmse_axis_nm:.1f} | {r.over_alone:.2f} | "
            f"{r.determined:.2f} | {r.over_joint:.2f} | {r.over_bright:.2f} | "
            f"{with_error(c.coverage_68, n)} | {with_error(c.coverage_95, n)} | "
            f"{c.photons_ratio:.2f} | {r.sigma_px[0]:.3f}, {r.sigma_px[1]:.3f} | {r.seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
