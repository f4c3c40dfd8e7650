"""How well all emitters of a frame are refined together, given how many there are.

    python benchmarks/refinement_table.py                 # at least 2,000 emitters a row

Frames of 64 x 64 px (100 nm), integrated Gaussian sigma 1.0 px, photons uniform in 500-1000, read
variance 5 electrons^2, no background (and that is known). Emitters are uniform over the frame's
whole area; those near the edge, of which only a part is seen, are refined and counted like all
others. Starts are the true positions plus 10 nm (Gaussian, per axis) and the prior's mean
brightness. The prior is weak: Gaussian photons with the mean and sd of the truth (750 +- 144).
Precision and recall: Hungarian matching per frame within 250 nm.

RMSE is per axis over all matched emitters, divided by the root mean square of the bounds of the
same emitters: each alone in its frame, and all emitters of the frame jointly.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sureloc.physics.image import render_tiles
from sureloc.physics.information import isolated_bound, joint_bound
from sureloc.physics.noise import sample_electrons
from sureloc.physics.psf import GaussianPSF
from sureloc.physics.refinement import (
    GaussianBrightness,
    Refinement,
    RefinementPrior,
    TileData,
    refine,
)
from sureloc.physics.tile_model import Background, Emitters

SIDE_PX = 64
PIXEL_NM = 100.0
READ_VARIANCE_E2 = 5.0
PHOTONS = (500.0, 1000.0)
START_NM = 10.0
GATE_NM = 250.0
DENSITIES_PER_UM2 = (0.18, 0.71, 1.78, 3.56)
PSF = GaussianPSF.round(1.0)
PRIOR = RefinementPrior(GaussianBrightness(sum(PHOTONS) / 2, (PHOTONS[1] - PHOTONS[0]) / 12**0.5))
Z_68, Z_95 = 0.99446, 1.95996


@dataclass(frozen=True)
class Frames:
    """Simulated frames with their truth and where a refinement starts."""

    truth: Emitters
    start: Emitters
    data: TileData
    background: Background


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    density: float
    emitters: int
    jaccard: float
    over_isolated: float
    over_joint: float
    held_68: float
    held_95: float
    joint_68: float
    joint_95: float
    converged: float
    frames_per_s: float


def simulate(density_per_um2: float, frames: int, seed: int) -> Frames:
    """Draw frames of round(density * area) emitters each."""
    generator = torch.Generator().manual_seed(seed)
    count = round(density_per_um2 * (SIDE_PX * PIXEL_NM / 1000) ** 2)

    def uniform(low: float, high: float) -> Tensor:
        unit = torch.rand(frames, count, generator=generator, dtype=torch.float64)
        return low + (high - low) * unit

    def nudge() -> Tensor:
        normal = torch.randn(frames, count, generator=generator, dtype=torch.float64)
        return START_NM / PIXEL_NM * normal

    x, y = uniform(-0.5, SIDE_PX - 0.5), uniform(-0.5, SIDE_PX - 0.5)
    photons = uniform(*PHOTONS)
    shape = (SIDE_PX, SIDE_PX)
    variance = torch.full((1, *shape), READ_VARIANCE_E2, dtype=torch.float64)
    expected = render_tiles(x, y, photons, PSF, shape)
    electrons = sample_electrons(expected, variance, generator)
    start = Emitters.all_present(x + nudge(), y + nudge(), torch.full_like(x, sum(PHOTONS) / 2))
    none = Background.constant(torch.zeros(frames, dtype=torch.float64), shape, sd=0.0)
    return Frames(Emitters.all_present(x, y, photons), start, TileData(electrons, variance), none)


def match(truth: Emitters, found: Emitters) -> tuple[Tensor, Tensor]:
    """Give, per frame, which found emitter belongs to each true one, and whether within 250 nm."""
    far = torch.hypot(
        truth.x_px[:, :, None] - found.x_px[:, None, :],
        truth.y_px[:, :, None] - found.y_px[:, None, :],
    )
    gate = GATE_NM / PIXEL_NM
    partner = torch.stack(
        [torch.as_tensor(linear_sum_assignment(d.clamp(max=gate).numpy())[1]) for d in far]
    )
    return partner, far.gather(2, partner[:, :, None])[:, :, 0] < gate


def row(density: float, frames: Frames, refined: Refinement, seconds: float) -> Row:
    """Compare a refinement with the truth and with the bounds."""
    partner, hit = match(frames.truth, refined.emitters)
    arguments = (frames.truth, frames.background, frames.data.read_variance_e2, PSF)
    alone, joint = isolated_bound(*arguments), joint_bound(*arguments)

    def of_hits(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat((x[hit], y[hit]))

    def of_found(x: Tensor, y: Tensor) -> Tensor:
        return of_hits(x.gather(1, partner), y.gather(1, partner))

    error = of_found(refined.emitters.x_px, refined.emitters.y_px) - of_hits(
        frames.truth.x_px, frames.truth.y_px
    )
    stated = of_found(refined.covariance.var_x_px2, refined.covariance.var_y_px2).sqrt()
    bound_alone = of_hits(alone.var_x_px2, alone.var_y_px2)
    bound_joint = of_hits(joint.var_x_px2, joint.var_y_px2)
    rmse = error.square().mean().sqrt()

    def held(z: float, sd: Tensor) -> float:
        return float((error.abs() < z * sd).double().mean())

    hits, count = int(hit.sum()), hit.numel()
    return Row(
        density,
        count,
        hits / (2 * count - hits),
        float(rmse / bound_alone.mean().sqrt()),
        float(rmse / bound_joint.mean().sqrt()),
        held(Z_68, stated),
        held(Z_95, stated),
        held(Z_68, bound_joint.sqrt()),
        held(Z_95, bound_joint.sqrt()),
        float(refined.converged.double().mean()),
        len(hit) / seconds,
    )


def measure(density: float, emitters: int, seed: int) -> Row:
    """Simulate, refine and score frames that hold at least so many emitters."""
    per_frame = round(density * (SIDE_PX * PIXEL_NM / 1000) ** 2)
    frames = simulate(density, math.ceil(emitters / per_frame), seed)
    begin = time.perf_counter()
    refined = refine(frames.data, frames.start, frames.background, PSF, PRIOR)
    return row(density, frames, refined, time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--emitters", type=int, default=2000, help="at least so many a row")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("                               RMSE / bound       intervals stated   by the joint bound")
    print(
        "per um^2  emitters      J   isolated   joint    68 % held  95 % held   68 %   95 %"
        "   converged  frames/s"
    )
    for density in DENSITIES_PER_UM2:
        r = measure(density, options.emitters, options.seed)
        print(
            f"{r.density:8.2f} {r.emitters:9d} {r.jaccard:6.3f} {r.over_isolated:10.2f} "
            f"{r.over_joint:7.2f} {r.held_68:12.3f} {r.held_95:10.3f} {r.joint_68:6.3f} "
            f"{r.joint_95:6.3f} {r.converged:11.3f} {r.frames_per_s:9.1f}"
        )


if __name__ == "__main__":
    main()
