"""How many molecules shine and how brightly: detected spots, corrected by indirect inference.

Spots merge where molecules overlap and miss what is faint. How much so is found by doing the same
once more to frames simulated with what was found, whose truth is known (Gourieroux, Monfort and
Renault 1993): the answers are corrected by the ratio, and a part of the correction is added to
their errors, since real molecules are not quite those simulated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sureloc.calibrate.camera_errors import CameraErrors
from sureloc.camera import Camera
from sureloc.localize.detect import Spots, detect_spots, faintest_photons
from sureloc.physics.image import render_frames
from sureloc.physics.noise import sample_electrons
from sureloc.physics.psf import GaussianPSF
from sureloc.seeds import numpy_generator, torch_generator

Array = npt.NDArray[np.float64]

LEAST_SPOTS = 20
_SIMULATED_PX = 96
_SIMULATED_SPOTS = 500.0
_CORRECTIONS = 3
_CORRECTION_DOUBT = 0.4  # of the correction's logarithm, as one standard error
_LARGEST_FACTOR = 3.0


@dataclass(frozen=True)
class Counted:
    """What detection says of molecules, before or after correction."""

    density_per_px2: float
    photons: float
    background_e: float

    def ratio(self, other: Counted) -> tuple[float, float, float]:
        """Give each number over the other's, between 1/3 and 3, and 1 where one is not positive."""
        return tuple(  # type: ignore[return-value]
            float(np.clip(a / b, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)) if a > 0 and b > 0 else 1.0
            for a, b in (
                (self.density_per_px2, other.density_per_px2),
                (self.photons, other.photons),
                (self.background_e, other.background_e),
            )
        )


@dataclass(frozen=True)
class Molecules:
    """Density, photons and background with their standard errors (photo-electrons, px).

    They are of molecules of `faintest_e` photo-electrons or more in a frame.
    """

    found: Counted
    errors: tuple[float, float, float]
    spots: int
    faintest_e: float


def count_molecules(
    spots: Spots,
    variance: Array,
    sigma: tuple[float, float],
    camera: Camera,
    own: CameraErrors,
    seed: int,
) -> Molecules | None:
    """Count and weigh the molecules that spots show; None where there are too few spots.

    Args:
        spots: detected in frames of the part.
        variance: read variance of the part, e-^2, (rows, columns).
        sigma: PSF standard deviation along columns and rows, px.
        camera: of the part.
        own: how sure the camera's numbers are.
        seed: the same seed gives the same answers.
    """
    if spots.frame.size < LEAST_SPOTS:
        return None
    raw = _counted(spots)
    found, ratio = raw, (1.0, 1.0, 1.0)
    for turn in range(_CORRECTIONS):
        again, truth = _simulated(found, spots, raw, variance, sigma, camera, seed, turn)
        # What detection makes of the simulated truth is what it made of the real one.
        ratio = truth.ratio(again)
        found = Counted(
            raw.density_per_px2 * ratio[0], raw.photons * ratio[1], raw.background_e * ratio[2]
        )
    frames = len(spots.background_e)
    per_frame = np.bincount(spots.frame, minlength=frames)
    of_counts = max(
        float(per_frame.std(ddof=1)) if frames > 1 else 0.0, math.sqrt(per_frame.mean())
    )
    simulated = 1.0 / math.sqrt(_SIMULATED_SPOTS)
    relative = [
        math.hypot(of_counts / math.sqrt(frames) / per_frame.mean(), simulated),
        math.hypot(
            float(spots.photons.std()) / (math.sqrt(spots.photons.size) * raw.photons),
            simulated * float(spots.photons.std()) / raw.photons,
            own.gain,
        ),
        float(spots.background_e.mean((1, 2)).std()) / math.sqrt(frames) / raw.background_e
        if raw.background_e > 0
        else 0.0,
    ]
    relative = [
        math.hypot(part, _CORRECTION_DOUBT * abs(math.log(r)))
        for part, r in zip(relative, ratio, strict=True)
    ]
    return Molecules(
        found,
        (
            relative[0] * found.density_per_px2,
            relative[1] * found.photons,
            math.hypot(relative[2] * found.background_e, own.of_background(found.background_e)),
        ),
        int(spots.frame.size),
        faintest_photons(
            variance.shape,
            found.background_e,
            float(np.median(variance)),
            sigma,
            camera.excess_noise,
        ),
    )


def _counted(spots: Spots) -> Counted:
    frames, rows, columns = spots.background_e.shape
    return Counted(
        spots.frame.size / (frames * rows * columns),
        float(spots.photons.mean()) if spots.photons.size else 0.0,
        float(spots.background_e.mean()),
    )


def _simulated(
    like: Counted,
    spots: Spots,
    raw: Counted,
    variance: Array,
    sigma: tuple[float, float],
    camera: Camera,
    seed: int,
    turn: int,
) -> tuple[Counted, Counted]:
    """Simulate frames of known truth and detect in them; give what was found, and the truth."""
    side = min(_SIMULATED_PX, *variance.shape)
    rng = numpy_generator(seed, "inspection", turn)
    wide = side + 6.0
    frames = int(np.clip(_SIMULATED_SPOTS / (like.density_per_px2 * side**2), 3, 60))
    count = rng.poisson(like.density_per_px2 * wide**2, frames)
    frame = np.repeat(np.arange(frames), count)
    x, y = rng.uniform(-3.5, side + 2.5, (2, frame.size))
    photons = rng.choice(spots.photons, frame.size) * (like.photons / raw.photons)
    expected = render_frames(
        torch.from_numpy(x),
        torch.from_numpy(y),
        torch.from_numpy(photons),
        torch.from_numpy(frame),
        GaussianPSF(*sigma),
        (frames, side, side),
    ) + max(like.background_e, 0.0)
    noise = np.ascontiguousarray(variance[:side, :side])
    generator = torch_generator(seed, "inspection noise", turn)
    electrons = sample_electrons(expected, torch.from_numpy(noise), generator, camera.em_gain)
    found = detect_spots(electrons.numpy(), noise, sigma, camera.excess_noise)
    inside = (np.abs(2 * x - side + 1) <= side) & (np.abs(2 * y - side + 1) <= side)
    truth = Counted(
        float(inside.sum()) / (frames * side**2),
        float(photons[inside].mean()) if inside.any() else like.photons,
        like.background_e,
    )
    return _counted(found), truth
