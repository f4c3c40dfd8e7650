"""What spots and networks propose for a frame: where chains begin and look for emitters.

Chains give the right posterior from any start and with any guide; these make them arrive sooner.
They begin at detected spots. Where emitters are so faint that many are no spots, networks are asked
too: each draw of Psi is one guess, and chains that begin at several guesses are as far apart as the
frame leaves it open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage, special

from sureloc.errors import WeightsError
from sureloc.localize.frames import Proposals
from sureloc.localize.verdict import Doubt
from sureloc.networks.posterior import posterior_images
from sureloc.networks.weights import Networks
from sureloc.physics.kde import camera_px, peak_of_one
from sureloc.physics.referee import FrameData

Array = npt.NDArray[np.float64]

START_EVALUATIONS = 4  # of Psi a draw: chains forget where they began, and need no more
FINE = 4  # values a pixel along each axis in images of networks
LEAST_PEAK = 0.4  # of one emitter's: lower maxima of a draw are its noise
FAINTEST = 0.2  # of the mean brightness, for a start
GUIDE_FLOOR = 0.3  # share of births that the guide spreads evenly
_RANGES = ("sigma_px", "photons", "density_per_px2", "background_e", "read_noise_e")
GUIDE_RING = 0.1  # share outside the frame, beside pixels of its border that are bright
SURELY_SEEN = 15.0  # deviations: emitters a third as bright as the mean are still spots
WIDTH_SLACK = 1.03  # of PSF widths seen in training


def within_training(networks: Networks, sigma_px: tuple[float, float]) -> bool:
    """Tell whether the networks have seen such PSF widths; False too if the card is silent."""
    try:
        low, high = networks.card.training["psi"]["recipe"]["conditions"]["sigma_px"]
    except (KeyError, TypeError, ValueError):
        return False
    return all(low / WIDTH_SLACK <= sigma <= high * WIDTH_SLACK for sigma in sigma_px)


def trained_ranges(networks: Networks) -> dict[str, tuple[float, float]]:
    """Give what of a movie the networks have seen in training, lowest and highest.

    Returns:
        `sigma_px`, `photons` (photo-electrons of an emitter), `density_per_px2`, `background_e`
        and `read_noise_e`; the last three begin at 0, as fewer emitters and less noise are no harm.

    Raises:
        WeightsError: the card is silent about it.
    """
    try:
        seen = networks.card.training["psi"]["recipe"]["conditions"]
        ranges = {name: (float(seen[name][0]), float(seen[name][1])) for name in _RANGES}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise WeightsError(
            f"The card of the weights {networks.card.name} does not say what they were trained on. "
            "Take weights that `sureloc train export` wrote."
        ) from error
    free = ("density_per_px2", "background_e", "read_noise_e")
    return {
        name: (0.0, high) if name in free else (low, high) for name, (low, high) in ranges.items()
    }


def outside_training(
    networks: Networks,
    mean_photons: float,
    density_per_px2: float,
    background_e: float,
    read_noise_e: float,
) -> list[str]:
    """Say what of a movie the networks have not seen in training, a clause each.

    Less noise than in training is no harm, nor are fewer emitters; the width of the PSF is
    `within_training`'s.

    Args:
        networks: with the conditions of their training on the card.
        mean_photons: photo-electrons of an emitter.
        density_per_px2: emitters per square pixel.
        background_e: photo-electrons per pixel.
        read_noise_e: rms, photo-electrons.
    """
    try:
        seen = trained_ranges(networks)
    except WeightsError:
        return [Doubt.UNKNOWN_TRAINING.clause()]
    checks = (
        ("brightness", "photo-electrons", mean_photons, *seen["photons"]),
        ("density", "emitters per square pixel", density_per_px2, *seen["density_per_px2"]),
        ("background", "photo-electrons per pixel", background_e, *seen["background_e"]),
        ("read noise", "photo-electrons", read_noise_e, *seen["read_noise_e"]),
    )
    return [
        Doubt.UNTRAINED.clause(what=what, value=value, unit=unit, low=low, high=high)
        for what, unit, value, low, high in checks
        if not low <= value <= high
    ]


@dataclass(frozen=True)
class Known:
    """What is known of a frame before chains begin.

    Attributes:
        data: the frame.
        background_e: expected background, photo-electrons, (rows, columns).
        sigma_px: PSF widths along columns and rows, px.
        mean_photons: typical photo-electrons of an emitter, which faint fits lean to.
        margin_px: how far outside the frame emitters may lie; networks see only those inside.
        spots: detected spots, (n, 3): x px, y px, photo-electrons.
        seed: the user's seed.
        number: names the random streams.
    """

    data: FrameData
    background_e: Array
    sigma_px: tuple[float, float]
    mean_photons: float
    margin_px: float
    spots: Array
    seed: int
    number: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        rows, columns = self.background_e.shape
        return rows, columns

    @property
    def electrons(self) -> Array:
        """Measured photo-electrons, or the background in pixels to ignore, (rows, columns)."""
        if self.data.ignore is None:
            return self.data.electrons
        return np.where(self.data.ignore, self.background_e, self.data.electrons)

    @property
    def light_e(self) -> Array:
        """The same without the background."""
        return np.asarray(self.electrons - self.background_e)

    def guided(self, starts: Sequence[Array], expected: Array) -> Proposals:
        """Give starts and a birth guide to where emitters are expected (see `birth_guide`)."""
        margin = math.ceil(self.margin_px)
        return Proposals(starts, birth_guide(expected, self.light_e, margin), margin)


def begin_at_spots(known: Known) -> Proposals:
    """Let chains begin at detected spots, and look for emitters there."""
    image = np.zeros(known.shape)
    at = np.floor(known.spots[:, 1::-1] + 0.5).astype(int)
    np.add.at(image, tuple(np.clip(at, 0, np.array(known.shape) - 1).T), 1.0)
    return known.guided([known.spots], ndimage.uniform_filter(image, 3, mode="constant"))


def begin_of_frame(networks: Networks | None, known: Known, draws: int) -> Proposals:
    """Say where the chains of a frame begin: at its spots, and at draws where these miss much.

    Args:
        networks: None where there are none for such a PSF; then nobody is asked.
        known: the frame.
        draws: how many starts are asked of the networks.
    """
    noise = photon_noise(known.data, known.background_e, known.sigma_px)
    if networks is None or known.mean_photons >= SURELY_SEEN * noise:
        return begin_at_spots(known)
    told = propose(networks, known, draws)
    return replace(told, starts=[known.spots, *told.starts])


def propose(networks: Networks, known: Known, draws: int) -> Proposals:
    """Ask phi and Psi about a frame.

    Args:
        networks: trained networks.
        known: the frame.
        draws: how many starts.
    """
    images = posterior_images(
        networks,
        torch.from_numpy(np.ascontiguousarray(known.electrons))[None].float(),
        torch.from_numpy(np.ascontiguousarray(known.data.read_variance_e2)).float(),
        math.sqrt(known.sigma_px[0] * known.sigma_px[1]),
        known.data.excess_noise,
        draws,
        known.seed,
        [known.number],
        min(START_EVALUATIONS, networks.card.draws.evaluations),
    )
    estimate, drawn = (image[0].cpu().double().numpy() for image in (images.yhat, images.draws))
    least = LEAST_PEAK * peak_of_one(networks.card.kernel_sigma_fine_px)
    starts = []
    for image in drawn:
        x, y = maxima(image, least)
        photons = brightness(x, y, known.light_e, known.data, known.sigma_px, known.mean_photons)
        starts.append(np.stack([x, y, photons], axis=1))
    return known.guided(starts, np.maximum(estimate, 0.0))


def photon_noise(data: FrameData, background_e: Array, sigma_px: tuple[float, float]) -> float:
    """Give the standard deviation of the photo-electrons of a lone faint emitter."""
    variance = data.excess_noise * np.maximum(background_e, 0.0) + data.read_variance_e2
    return math.sqrt(4 * math.pi * sigma_px[0] * sigma_px[1] * float(np.median(variance)))


def birth_guide(yhat: Array, light_e: Array, margin_px: int) -> Array:
    """Give where births are worth a try, relative density in the frame and round it.

    Args:
        yhat: expected emitters, (fine * rows, fine * columns), with some fine values a pixel.
        light_e: the frame without its background, (rows, columns).
        margin_px: whole pixels round the frame.

    Returns:
        Shape (fine * (rows + 2 * margin), fine * (columns + 2 * margin)), with sum 1.
    """
    fine = yhat.shape[0] // light_e.shape[0]
    wide = fine * margin_px
    inside = np.pad(yhat, wide)
    guide = GUIDE_FLOOR * _share(np.ones_like(inside))
    if not margin_px:
        return guide + (1 - GUIDE_FLOOR) * _share(inside)
    bright = ndimage.uniform_filter(np.maximum(light_e, 0.0), 3, mode="nearest")
    ring = np.pad(bright, margin_px, mode="edge").repeat(fine, 0).repeat(fine, 1)
    ring[wide:-wide, wide:-wide] = 0.0
    return guide + (1 - GUIDE_FLOOR - GUIDE_RING) * _share(inside) + GUIDE_RING * _share(ring)


def _share(weight: Array) -> Array:
    return np.asarray(weight / max(float(weight.sum()), 1e-9))


def maxima(image: Array, least: float) -> tuple[Array, Array]:
    """Give camera-pixel positions of an image's local maxima, by the centroid of 3 x 3 fine pixels.

    Args:
        image: four values a camera pixel along each axis.
        least: lower maxima do not count.
    """
    top = (image == ndimage.maximum_filter(image, 3, mode="constant")) & (image > least)
    rows, columns = np.nonzero(top)
    padded = np.pad(np.maximum(image, 0.0), 1)
    near = np.stack(
        [padded[rows + i, columns + k] for i in range(3) for k in range(3)], axis=1
    ).reshape(-1, 3, 3)
    mass = near.sum((1, 2))
    step = np.arange(3) - 1.0
    across, down = (near.sum(1) @ step) / mass, (near.sum(2) @ step) / mass
    place = camera_px(torch.from_numpy(np.stack([columns + across, rows + down]))).numpy()
    return place[0], place[1]


def brightness(
    x_px: Array,
    y_px: Array,
    light_e: Array,
    data: FrameData,
    sigma_px: tuple[float, float],
    mean_photons: float,
) -> Array:
    """Give photo-electrons of emitters at given places by ridge regression towards the mean.

    Args:
        x_px, y_px: positions.
        light_e: the frame without its background, (rows, columns).
        data: the frame, for its noise.
        sigma_px: PSF widths, px.
        mean_photons: what is believed of each before, with as large a standard deviation.
    """
    if x_px.size == 0:
        return np.zeros(0)
    rows, columns = (
        _shares(at, sigma, size)
        for at, sigma, size in zip((y_px, x_px), sigma_px[::-1], light_e.shape, strict=True)
    )
    images = (rows[:, :, None] * columns[:, None, :]).reshape(x_px.size, -1)
    variance = data.excess_noise * np.maximum(data.electrons, 1.0) + data.read_variance_e2
    weight = (1.0 / variance).ravel()
    if data.ignore is not None:
        weight[data.ignore.ravel()] = 0.0
    normal = (images * weight) @ images.T + np.eye(len(images)) / mean_photons**2
    right = (images * weight) @ light_e.ravel() + 1.0 / mean_photons
    return np.asarray(np.maximum(np.linalg.solve(normal, right), FAINTEST * mean_photons))


def _shares(position: Array, sigma: float, size: int) -> Array:
    """Give the share of each emitter's light in the pixels along one axis, (emitters, size)."""
    edges = (np.arange(size + 1) - 0.5 - position[:, None]) / sigma
    return np.asarray(np.diff(special.ndtr(edges), axis=1))
