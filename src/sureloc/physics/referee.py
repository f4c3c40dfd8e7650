"""Posterior draws of emitter sets by trans-dimensional Markov chains, and what follows from them.

Run long on a small tile this is the referee: the exact posterior under the image likelihood and the
prior, by which every faster method is judged. Run short from good starts it is the last step of
localization. The moves are documented in `sureloc.compiled.chain` (Green 1995; Richardson and
Green 1997).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sureloc.compiled import chain
from sureloc.compiled.scene import LARGEST_DISC_SIGMAS, SPARE, Frame, Image, Model
from sureloc.errors import InputError
from sureloc.physics.priors import ScenePrior, hat_functions

Array = npt.NDArray[np.float64]
MOVE_NAMES = ("block", "birth", "death", "split", "merge", "resplit", "background", "redraw")
# Between the best of six sets of shares tried at 3.56 emitters per um^2, by effective draws.
_MOVE_SHARES = np.array([0.63, 0.05, 0.05, 0.08, 0.08, 0.03, 0.04, 0.04])
BEYOND_E = 1e15  # single precision keeps 7 digits
_BIRTHS_AND_DEATHS = np.array([0.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0])


@dataclass(frozen=True)
class ChainLength:
    """How long a chain runs.

    Attributes:
        burn_in: moves before the first draw.
        draws: states kept.
        moves_per_draw: moves between kept states.
    """

    burn_in: int
    draws: int
    moves_per_draw: int


@dataclass(frozen=True)
class FrameData:
    """One frame as the mathematics sees it.

    Attributes:
        electrons: measured photo-electrons, (rows, columns).
        read_variance_e2: read variance, electrons^2, (rows, columns).
        excess_noise: F^2, 1 without electron multiplication.
        ignore: True for pixels that tell nothing (saturated, dead), (rows, columns), or None.
    """

    electrons: Array
    read_variance_e2: Array
    excess_noise: float = 1.0
    ignore: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.electrons.ndim != 2 or self.electrons.shape != self.read_variance_e2.shape:
            raise InputError(
                f"electrons has shape {self.electrons.shape} and read_variance_e2 "
                f"{self.read_variance_e2.shape}; both must be (rows, columns) of one frame."
            )


@dataclass(frozen=True)
class PosteriorDraws:
    """States of one or more chains.

    Attributes:
        x_px, y_px, photons: padded lists, shape (draws, max_emitters).
        counts: emitters of each draw, shape (draws,).
        knots: background coefficients, (draws, knots_y, knots_x).
        expected_e: posterior mean of the expected image, background included, (rows, columns).
        expected_variance_e2: its posterior variance, electrons^2, (rows, columns).
        tried, accepted: per kind of move in `MOVE_NAMES`, shape (8,).
    """

    x_px: Array
    y_px: Array
    photons: Array
    counts: npt.NDArray[np.int64]
    knots: Array
    expected_e: Array
    expected_variance_e2: Array
    tried: npt.NDArray[np.int64]
    accepted: npt.NDArray[np.int64]

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """True where the padded lists hold an emitter, shape (draws, max_emitters)."""
        return np.arange(self.x_px.shape[1])[None, :] < self.counts[:, None]

    @property
    def last(self) -> Array:
        """Emitters of the last draw, from where a chain may go on, (n, 3)."""
        n = self.counts[-1]
        return np.stack([self.x_px[-1, :n], self.y_px[-1, :n], self.photons[-1, :n]], axis=1)

    def count_probabilities(self) -> Array:
        """Give the posterior probability of 0, 1, ... max_emitters emitters."""
        bins = np.bincount(self.counts, minlength=self.x_px.shape[1] + 1)
        probabilities: Array = bins / bins.sum()
        return probabilities


class Shifted(NamedTuple):
    """A frame as counts that are Poisson but for a weight (shifted-Poisson likelihood).

    Attributes:
        counts: electrons + v / F^2, (rows, columns).
        shift: v / F^2.
        weight: 1 / F^2, or 0 for pixels to ignore.
    """

    counts: Array
    shift: Array
    weight: Array


def shifted(data: FrameData) -> Shifted:
    """Give a frame as the likelihood takes it."""
    shift = data.read_variance_e2 / data.excess_noise
    weight = np.full(data.electrons.shape, 1.0 / data.excess_noise)
    if data.ignore is not None:
        weight[data.ignore] = 0.0
    return Shifted(data.electrons + shift, shift, weight)


def _compiled(frame: Shifted) -> Frame:
    """Give a frame as compiled code takes it.

    The rate of what fills up its rows is so large that emitters, some of whose light falls there,
    do not change it.
    """
    shift = _filled_up(frame.shift, BEYOND_E)
    return Frame(_filled_up(frame.counts), shift, _filled_up(frame.weight))


def _filled_up(image: Array, value: float = 0.0) -> Image:
    """Give rows in single precision, followed by the columns that fill them up."""
    return np.pad(image, ((0, 0), (0, SPARE)), constant_values=value).astype(np.float32)


def _log_map(relative: Array | None, shape: tuple[int, int]) -> tuple[Array, int]:
    if relative is None:
        return np.empty((0, 0)), 1
    scale = relative.shape[0] // shape[0]
    if relative.shape != (shape[0] * scale, shape[1] * scale) or scale < 1:
        raise InputError(
            f"relative_density has shape {relative.shape}; it must be a whole multiple of the "
            f"frame's {shape}."
        )
    return np.ascontiguousarray(np.log(relative), dtype=np.float64), scale


def _model(
    shape: tuple[int, int],
    prior: ScenePrior,
    sigma_px: tuple[float, float],
    guide: Array | None,
    guide_margin_px: int,
    support_sigmas: float,
    counting: float,
) -> Model:
    rows, columns = shape
    mean = np.atleast_2d(np.asarray(prior.background_e, dtype=np.float64))
    scale, margin, cumulative = 1, 0, np.empty(0)
    if guide is None:
        guide = np.empty((0, 0))
    else:
        margin = guide_margin_px
        around = (rows + 2 * margin, columns + 2 * margin)
        scale = guide.shape[0] // around[0]
        if guide.shape != (around[0] * scale, around[1] * scale) or scale < 1:
            raise InputError(
                f"The birth guide has shape {guide.shape}; it must be a whole multiple of the "
                f"frame's {shape} with {margin} px round it."
            )
        guide = np.ascontiguousarray(guide / guide.sum() * scale**2, dtype=np.float64)
        cumulative = np.cumsum(guide.ravel())
    return Model(
        float(sigma_px[0]),
        float(sigma_px[1]),
        support_sigmas * max(sigma_px),
        prior.density_per_px2,
        *prior.region(shape),
        float(prior.photons.log_photons[0]),
        prior.photons.step,
        prior.photons.log_density,
        prior.photons.cumulative,
        prior.photons.mean,
        prior.photons.sd,
        hat_functions(rows, mean.shape[0]).astype(np.float32),
        _filled_up(hat_functions(columns, mean.shape[1])),
        mean,
        float(prior.background_sd_e),
        guide,
        cumulative,
        scale,
        margin,
        *_log_map(prior.relative_density, shape),
        np.cumsum((1 - counting) * _MOVE_SHARES + counting * _BIRTHS_AND_DEATHS)[:-1],
        np.empty((0, 0), bool),
        np.empty((0, 0), bool),
    )


def run_chain(
    data: FrameData,
    prior: ScenePrior,
    sigma_px: tuple[float, float],
    length: ChainLength,
    generator: np.random.Generator,
    *,
    start: Array | None = None,
    start_knots: Array | None = None,
    max_emitters: int = 60,
    guide: Array | None = None,
    guide_margin_px: int = 0,
    support_sigmas: float = 5.2,
) -> PosteriorDraws:
    """Draw emitter sets from the posterior of one frame by one chain.

    Args:
        data: the frame.
        prior: what is believed before.
        sigma_px: PSF widths along columns and rows, px.
        length: burn-in, draws and moves between them.
        generator: source of randomness.
        start: emitters (n, 3) as x px, y px, photo-electrons; none by default. Photons outside the
            prior's range are moved to its end.
        start_knots: background at its knots, (knots_y, knots_x); its prior mean by default.
        max_emitters: the count's prior is cut off there.
        guide: relative density of birth positions, shape (scale * rows, scale * columns), rows and
            columns of the frame with `guide_margin_px` round it.
        guide_margin_px: whole pixels that the guide reaches beyond the frame on every side.
        support_sigmas: half width of the PSF's support; 5.2 loses 4e-7 of the flux, 4 loses 1e-4.

    Returns:
        The draws in the order in which the chain made them.

    Raises:
        InputError: shapes do not fit.
    """
    target = ChainTarget.of(data, prior, sigma_px, guide, guide_margin_px, support_sigmas)
    return target.run(
        length, generator, start=start, start_knots=start_knots, max_emitters=max_emitters
    )


@dataclass(frozen=True)
class ChainTarget:
    """One frame's posterior as compiled code sees it, for any number of chains.

    Attributes:
        frame: the frame, shifted.
        model: PSF, prior and where births are proposed.
        photons_within: photo-electrons that the prior allows.
    """

    frame: Frame
    model: Model
    photons_within: tuple[float, float]

    @classmethod
    def of(
        cls,
        data: FrameData,
        prior: ScenePrior,
        sigma_px: tuple[float, float],
        guide: Array | None = None,
        guide_margin_px: int = 0,
        support_sigmas: float = 5.2,
        counting: float = 0.0,
    ) -> ChainTarget:
        """Prepare a frame; other arguments and errors are those of `run_chain`.

        Args:
            counting: share of the moves that are births or deaths, besides those among the others.
        """
        shape = data.electrons.shape
        model = _model(shape, prior, sigma_px, guide, guide_margin_px, support_sigmas, counting)
        return cls(_compiled(shifted(data)), model, prior.photons.within)

    def only_in(self, active: npt.NDArray[np.bool_]) -> ChainTarget:
        """Give the same posterior, of which chains move little but what lies in some pixels.

        Args:
            active: pixels where most moves are centred, (rows, columns).
        """
        widest = LARGEST_DISC_SIGMAS * max(self.model.sigma_x, self.model.sigma_y)
        # A disc's centre and its emitters may each lie anywhere in their pixels.
        reachable = ndimage.distance_transform_edt(~active) <= widest + math.sqrt(2.0)
        return replace(self, model=self.model._replace(active=active, reachable=reachable))

    def run(
        self,
        length: ChainLength,
        generator: np.random.Generator,
        *,
        start: Array | None = None,
        start_knots: Array | None = None,
        max_emitters: int = 60,
    ) -> PosteriorDraws:
        """Run one chain; arguments are those of `run_chain`."""
        begin = np.empty((0, 3)) if start is None else np.array(start, dtype=np.float64)
        # From photons that the prior rules out, every move's ratio would be infinite or no number.
        begin[:, 2] = np.clip(begin[:, 2], *self.photons_within)
        emitters, counts, knots, expected, square, tally = chain.run_chain(
            self.frame,
            self.model,
            begin,
            self.model.background_mean if start_knots is None else start_knots,
            max_emitters,
            length.burn_in,
            length.draws,
            length.moves_per_draw,
            generator,
        )
        return PosteriorDraws(
            emitters[:, :, 0],
            emitters[:, :, 1],
            emitters[:, :, 2],
            counts,
            knots,
            expected,
            np.maximum(square - expected**2, 0.0),
            tally[:, 0],
            tally[:, 1],
        )
