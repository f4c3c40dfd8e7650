"""The main job as a workflow: what is assumed about a movie, and its frames one after another.

`prepare` looks at some frames and settles camera, PSF width and priors; `localize` then yields
the rows of every frame in order. Neither knows a file or a console.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits

from sureloc.camera import Camera, check_pixel_nm, rounding_of
from sureloc.errors import InputError
from sureloc.limits import check_limit
from sureloc.localize.bands import bands_of, spots_of_band, spots_of_frames
from sureloc.localize.camera_estimate import check_camera, estimate_camera
from sureloc.localize.columns import Columns, joined, table_of, taken
from sureloc.localize.crowding import Crowding, crowding_of
from sureloc.localize.detect import Spots
from sureloc.localize.evidence import Width
from sureloc.localize.frames import Effort, frame_posterior, go_on
from sureloc.localize.learning import (
    Crop,
    LearnedPrior,
    at_knots,
    learn_prior,
    spots_of_frame,
)
from sureloc.localize.proposals import Known, begin_of_frame, outside_training, within_training
from sureloc.localize.psf_estimate import estimate_psf
from sureloc.localize.regions import (
    CLAIM_PX,
    Region,
    Window,
    cuts,
    owned,
    regions_of,
    unique_rows,
)
from sureloc.localize.rows import CHI2_SIGMAS, FrameRows, RegionRows, region_rows
from sureloc.localize.saturation import largest_adu, saturated, telling_frames
from sureloc.localize.verdict import WRONG, Doubt, chi2_limit, mark_rows
from sureloc.networks.weights import Networks
from sureloc.physics.priors import ScenePrior
from sureloc.physics.referee import FrameData
from sureloc.seeds import numpy_generator
from sureloc.table import DRAW_COLUMNS, LOCALIZATION_COLUMNS

Array = npt.NDArray[np.float64]
T = TypeVar("T")
R = TypeVar("R")
Map = Callable[[Callable[[Region], RegionRows], Iterable[Region]], Iterable[RegionRows]]

LEARNING_FRAMES = 40
LEARNING_PX = LEARNING_FRAMES * 512**2  # in all frames to learn from together: bounds the memory
LEAST_LEARNING_FRAMES = 8
MEASURING_PX = 512  # side of the part of large frames in which camera and PSF are measured
LEARNING_EMITTERS = 600
LEARNING_EFFORT = Effort(chains=1, sweeps=50.0, states=20, sweeps_between=2.0, rounds=1)
CROWDING_FRAMES = 400  # in so many, spots are looked for
DETECTED_PX = 65536  # in so many pixels at once: small frames one by one cost twice as much
LARGEST_SPREAD = 0.08  # of spots' widths; crowded movies of one PSF stay below it
WIDTH_SLACK, WRONG_WIDTH = 0.12, 0.22  # by which a given PSF width may differ from lone spots'
SURE_ERRORS = 3.0  # of the width of lone spots
CUT_OFF = "The movie's values are cut off at {} ADU, which is taken for the camera's saturation."
LEAST_PROBABILITY = 0.2  # rows below are not even looked at
_LIMITED = (
    *("sigma_px", "draws", "min_probability", "workers"),
    *("density_per_um2", "mean_photons", "background_photons"),
)


class Frames(Protocol):
    """A movie as the workflow sees it: ADU by frame number."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, rows, columns)."""
        ...

    def read(self, first: int, last: int) -> npt.NDArray[Any]:
        """Give frames first..last-1, (frames, rows, columns), ADU."""
        ...


@dataclass(frozen=True)
class Options:
    """What a user may decide.

    Attributes:
        pixel_nm: pixel size, nm.
        sigma_px: PSF width, px, or None to estimate it.
        draws: posterior draws in the draw table.
        seed: the same seed gives the same results.
        min_probability: rows that exist with less than this are left out.
        workers: threads.
        effort: chains and moves per frame.
        density_per_um2: emitters per square micrometre and frame, or None to learn it.
        mean_photons: photons of an emitter on average, or None to learn it.
        background_photons: mean background, photons per pixel, or None to learn it.
        trust_camera: keep a given camera's offset also where the movie's noise contradicts it.
    """

    pixel_nm: float = 100.0
    sigma_px: float | None = None
    draws: int = 16
    seed: int = 0
    min_probability: float = 0.5
    workers: int = 1
    effort: Effort = field(default_factory=Effort)
    density_per_um2: float | None = None
    mean_photons: float | None = None
    background_photons: float | None = None
    trust_camera: bool = False

    def __post_init__(self) -> None:
        check_pixel_nm(self.pixel_nm)
        for name in _LIMITED:
            value = getattr(self, name)
            if value is not None:
                check_limit(name, value)


@dataclass(frozen=True)
class Assumptions:
    """What the run takes for granted about a movie.

    Attributes:
        camera: the camera.
        sigma_px: PSF widths along columns and rows, px.
        learned: priors learned from the movie.
        crowding: where emitters crowd in the course of the movie.
        notes: how each was found, one sentence each, for people.
        warnings: clauses that ask for care in the verdict.
    """

    camera: Camera
    sigma_px: tuple[float, float]
    learned: LearnedPrior
    crowding: Crowding
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def spread_frames(frames: int, wanted: int) -> list[int]:
    """Give up to `wanted` frame numbers spread evenly over a movie."""
    number = min(frames, wanted)
    return sorted({round((k + 0.5) * frames / number - 0.5) for k in range(number)})


def read_frames(movie: Frames, numbers: Iterable[int]) -> npt.NDArray[Any]:
    """Read single frames of a movie, (frames, rows, columns), ADU."""
    return np.concatenate([movie.read(k, k + 1) for k in numbers])


def prepare(
    movie: Frames,
    camera: Camera | None,
    options: Options,
    networks: Networks | None = None,
    pause: Callable[[], None] = go_on,
) -> Assumptions:
    """Settle camera, PSF width and priors from frames spread over the movie.

    At most `LEARNING_FRAMES` and `CROWDING_FRAMES` frames are read, whatever the movie's length.

    Args:
        movie: the movie.
        camera: its camera, or None to estimate it.
        options: what the user decided.
        networks: what `localize` will be given; it is said where they have not seen such PSFs.
        pause: called between all steps, from any thread; what it raises ends the work.

    Raises:
        InputError: the camera's maps do not fit, the frames are saturated, or too little can be
            estimated.
    """
    frames, height, width = movie.shape
    numbers = np.array(spread_frames(frames, learning_frames(height * width)))
    adu = read_frames(movie, numbers)
    pause()
    top_adu, cut_off = largest_adu(adu, camera)
    notes = [CUT_OFF.format(top_adu)] if cut_off else []
    telling = _frames_that_tell(adu, top_adu)
    adu, numbers = adu[telling], numbers[telling]
    part = measuring_window(adu)
    camera, said, warnings = _settled_camera(adu, camera, top_adu, part, options)
    notes.extend(said)
    pause()
    electrons = camera.electrons(adu)
    variance = camera.read_variance_e2((height, width))
    psf, said, warned = _settled_psf(electrons, variance, camera.excess_noise, part, options)
    notes.extend(said)
    # A camera's numbers were corrected; a PSF that is not one PSF is graver.
    warnings = [*warned, *warnings]
    pause()
    lone, sigma = psf, psf.sigma_px
    bands = bands_of(regions_of((height, width), sigma))
    spots = spots_of_frames(electrons, variance, sigma, camera.excess_noise, bands)
    with one_thread_each(), ThreadPoolExecutor(options.workers) as pool:

        def run(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
            return pool.map(_pausing(work, pause), items)

        crowding = movie_crowding(movie, camera, sigma, run)
        learned, psf = learn_prior(
            electrons,
            variance,
            psf,
            camera.excess_noise,
            choose_crops(spots, options.seed),
            spots,
            options.seed,
            LEARNING_EFFORT,
            run,
            saturated(adu, camera),
            lambda f, rows, columns: crowding.around(int(numbers[f]), rows, columns),
            pause,
        )
    sigma = psf.sigma_px
    if not psf.known:
        notes.append(" ".join(filter(None, (psf.sentence, psf.disagreement(lone)))))
    learned, given = _with_given(learned, camera, options)
    notes.extend(given)
    if networks is not None:
        said, warned = _of_networks(networks, learned, sigma, variance)
        notes.extend(said)
        warnings.extend(warned)
    return Assumptions(camera, sigma, learned, crowding, tuple(notes), tuple(warnings))


def learning_frames(pixels: int) -> int:
    """Give how many frames of so many pixels to learn from: fewer where they are large."""
    return min(LEARNING_FRAMES, max(LEAST_LEARNING_FRAMES, LEARNING_PX // pixels))


def measuring_window(adu: npt.NDArray[Any]) -> Window:
    """Give the part of large frames, (frames, rows, columns), in which most goes on.

    Camera and PSF are the same everywhere; a part of `MEASURING_PX` a side tells them well.
    """
    height, width = adu.shape[1:]
    best = Window((0, height), (0, width))
    if height * width <= MEASURING_PX**2:
        return best
    most = -1.0
    for top in _starts(height):
        for left in _starts(width):
            rows, columns = (
                (start, min(start + MEASURING_PX, length))
                for start, length in ((top, height), (left, width))
            )
            piece = adu[:, slice(*rows), slice(*columns)].astype(np.float64)
            contrast = float(np.abs(piece - np.median(piece)).mean())
            if contrast > most:
                best, most = Window(rows, columns), contrast
    return best


def _starts(length: int) -> range:
    return range(0, max(length - MEASURING_PX, 0) + 1, MEASURING_PX // 2)


def _settled_camera(
    adu: npt.NDArray[Any],
    camera: Camera | None,
    top_adu: int | None,
    part: Window,
    options: Options,
) -> tuple[Camera, list[str], list[str]]:
    """Estimate the camera, or correct the given one; give notes and warnings too."""
    piece = adu[(slice(None), *part.slices)]
    if camera is None:
        guess = estimate_camera(
            piece, numpy_generator(options.seed, "camera"), saturation_adu=top_adu
        )
        warnings = [Doubt.CAMERA_ESTIMATED.clause(percent=100 * guess.relative_gain_error)]
        if guess.correlated_excess > 1:
            warnings.append(Doubt.CORRELATED_NOISE.clause())
        return guess.camera, [guess.sentence], warnings
    camera.check_shape((adu.shape[1], adu.shape[2]))
    whole = replace(camera, saturation_adu=top_adu, rounding_adu2=rounding_of(adu))
    of_piece = whole.crop(*part.slices)
    return _with_right_offset(whole, of_piece, piece, options.seed, options.trust_camera)


def _settled_psf(
    electrons: Array, variance: Array, excess_noise: float, part: Window, options: Options
) -> tuple[Width, list[str], list[str]]:
    """Give the PSF widths, as given or as lone spots show them, with notes and warnings."""
    piece = electrons[(slice(None), *part.slices)]
    if options.sigma_px is not None:
        said = f"The PSF width was given: {options.sigma_px:g} px."
        warned = doubts_of_width(options.sigma_px, piece, variance[part.slices], excess_noise)
        return Width((options.sigma_px, options.sigma_px)), [said], warned
    psf = estimate_psf(piece, variance[part.slices], excess_noise)
    warnings = []
    if psf.spread > LARGEST_SPREAD:
        warnings.append(Doubt.SPREAD_OF_WIDTHS.clause(percent=100 * psf.spread))
    sigma = (psf.sigma_x_px, psf.sigma_y_px)
    errors = (psf.error_x_px / sigma[0], psf.error_y_px / sigma[1])
    return Width(sigma, errors), [psf.sentence], warnings


def doubts_of_width(
    given_px: float, electrons: Array, variance: Array, excess_noise: float
) -> list[str]:
    """Say where lone spots contradict a given PSF width, and whether so much that it is wrong.

    Args:
        given_px: the width, px.
        electrons: frames, photo-electrons, (frames, rows, columns).
        variance: read variance, electrons^2, (rows, columns).
        excess_noise: F^2 of electron multiplication, 1 without it.

    Returns:
        Clauses of the verdict; none where there is no doubt, or too few spots to say.
    """
    try:
        seen = estimate_psf(electrons, variance, excess_noise)
    except InputError:  # too few of them to say
        return []
    off = abs(math.log(seen.sigma_px / given_px))
    if off < max(SURE_ERRORS * seen.error_px / seen.sigma_px, math.log(1 + WIDTH_SLACK)):
        return []
    said = Doubt.GIVEN_WIDTH.clause(seen=seen.sigma_px, given=given_px)
    return [f"{WRONG}: {said}" if off > math.log(1 + WRONG_WIDTH) else said]


def _of_networks(
    networks: Networks, learned: LearnedPrior, sigma_px: tuple[float, float], variance: Array
) -> tuple[list[str], list[str]]:
    """Give notes and warnings about what of the movie the networks have not seen."""
    if not within_training(networks, sigma_px):
        return (
            ["The networks were trained on other PSF widths and are not used."],
            [Doubt.UNTRAINED_WIDTH.clause()],
        )
    return [], outside_training(
        networks,
        learned.prior.photons.mean,
        learned.prior.density_per_px2,
        float(learned.background_e.mean()),
        math.sqrt(float(np.median(variance))),
    )


def _with_given(
    learned: LearnedPrior, camera: Camera, options: Options
) -> tuple[LearnedPrior, list[str]]:
    """Put what the user knows in the place of what the movie taught."""
    prior, background, notes = learned.prior, learned.background_e, []
    if options.density_per_um2 is not None:
        area_um2 = (options.pixel_nm / 1000) ** 2
        prior = replace(prior, density_per_px2=options.density_per_um2 * area_um2)
        notes.append(f"The density was given: {options.density_per_um2:g} per um^2 and frame.")
    if options.mean_photons is not None:
        wanted = options.mean_photons * camera.quantum_efficiency
        prior = replace(prior, photons=prior.photons.scaled(wanted / prior.photons.mean))
        notes.append(f"The mean number of photons was given: {options.mean_photons:g}.")
    if options.background_photons is not None:
        wanted = options.background_photons * camera.quantum_efficiency
        mean = float(background.mean())
        background = background * (wanted / mean) if mean > 0 else np.full_like(background, wanted)
        notes.append(f"The background was given: {options.background_photons:g} photons a pixel.")
    return replace(learned, prior=prior, background_e=background), notes


def _pausing(work: Callable[[T], R], pause: Callable[[], None]) -> Callable[[T], R]:
    """Give `work` with a pause before it."""

    def paused(item: T) -> R:
        pause()
        return work(item)

    return paused


def movie_crowding(
    movie: Frames,
    camera: Camera,
    sigma_px: tuple[float, float],
    run: Callable[
        [Callable[[Sequence[int]], list[Array]], Iterable[Sequence[int]]], Iterable[list[Array]]
    ] = map,
) -> Crowding:
    """Learn where emitters crowd in the course of a movie from spots of many frames.

    Args:
        movie: the movie.
        camera: its camera.
        sigma_px: PSF widths along columns and rows, px.
        run: maps a function over groups of frames; `map`, or one that uses several threads.
    """
    frames, height, width = movie.shape
    variance = camera.read_variance_e2((height, width))
    bands = bands_of(regions_of((height, width), sigma_px))

    def places(some: Sequence[int]) -> list[Array]:
        electrons = camera.electrons(read_frames(movie, some))
        spots = spots_of_frames(electrons, variance, sigma_px, camera.excess_noise, bands)
        each = (spots.frame == k for k in range(len(some)))
        return [np.stack([spots.y_px[here], spots.x_px[here]], axis=1) for here in each]

    numbers = spread_frames(frames, CROWDING_FRAMES)
    together = max(1, DETECTED_PX // (height * width))
    groups = [numbers[k : k + together] for k in range(0, len(numbers), together)]
    found = [place for group in run(places, groups) for place in group]
    return crowding_of((height, width), numbers, found, max(sigma_px))


def _frames_that_tell(adu: npt.NDArray[Any], top_adu: int | None) -> npt.NDArray[np.bool_]:
    telling = telling_frames(adu, top_adu)
    if not telling.any():
        raise InputError(
            f"The frames are saturated: more than half the pixels of each frame looked at reach "
            f"{top_adu} ADU, the camera's largest value, and tell nothing. Record with less light "
            "or gain; if the camera writes larger values, give saturation_adu in its file."
        )
    return telling


def _with_right_offset(
    camera: Camera, of_piece: Camera, piece: npt.NDArray[Any], seed: int, trusted: bool
) -> tuple[Camera, list[str], list[str]]:
    """Correct a given camera's offset where a piece of the movie contradicts it, unless trusted."""
    checked = check_camera(of_piece, piece, seed, trusted=trusted)
    return checked.corrected(camera), [checked.sentence], checked.warnings


def choose_crops(spots: Spots, seed: int) -> list[Crop]:
    """Pick random pieces of the frames at hand that hold about `LEARNING_EMITTERS` emitters."""
    frames, height, width = spots.background_e.shape
    pieces = [
        Crop(f, slice(top, bottom), slice(left, right))
        for f in range(frames)
        for top, bottom in cuts(height)
        for left, right in cuts(width)
    ]
    per_piece = max(spots.frame.size / len(pieces), 0.1)
    number = min(max(round(LEARNING_EMITTERS / per_piece), 4), len(pieces))
    order = numpy_generator(seed, "crops").permutation(len(pieces))
    return [pieces[k] for k in sorted(order[:number])]


def localize(
    movie: Frames,
    assumptions: Assumptions,
    options: Options,
    networks: Networks | None = None,
    window: Window | None = None,
) -> Iterator[FrameRows]:
    """Yield the rows of every frame in order; the same for any division of the work.

    Frames can be handed to any number of workers, and windows of a frame to different calls: under
    the same assumptions and seed, the rows in a window are, bit for bit, those of the whole frame.

    Args:
        movie: the movie.
        assumptions: what `prepare` found, or a user gave.
        options: what the user decided.
        networks: trained networks that tell chains where to begin and to look; without them, and
            where the PSF is none that they have seen, all chains begin at detected spots.
        window: the part of the frame whose rows, draws and images are wanted; only the regions
            that it touches are worked on. Positions count from the frame's first pixel all the
            same; images cover the window.
    """
    window = window or Window((0, movie.shape[1]), (0, movie.shape[2]))
    if options.workers == 1:
        work = FrameWorker(movie, assumptions, options, networks, window)
        yield from work.every(range(movie.shape[0]))
        return
    # Regions have threads of their own: frames wait for them, and few frames keep all busy.
    with (
        one_thread_each(),
        ThreadPoolExecutor(options.workers) as frames,
        ThreadPoolExecutor(
            options.workers, initializer=torch.set_num_threads, initargs=(1,)
        ) as regions,
    ):
        work = FrameWorker(movie, assumptions, options, networks, window, regions.map)
        yield from _in_order(frames, work, range(movie.shape[0]), 4 * options.workers)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Keep libraries from starting threads of their own beside ours."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]:
    """Map over items in threads, results in order, with at most `ahead` of them in memory."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@dataclass(frozen=True)
class FramePieces:
    """What some regions of a frame contribute, before their rows are made those of one frame.

    Attributes:
        frame: number of the frame in the movie.
        regions: the regions, in order of their numbers.
        parts: their results, in the frame's coordinates, cut down to their cores; rows reach
            `CLAIM_PX` beyond, and are marked where they must not be trusted.
        electrons: the whole frame, photo-electrons, (rows, columns).
        saturated: its saturated pixels, the same shape.
    """

    frame: int
    regions: Sequence[Region]
    parts: Sequence[RegionRows]
    electrons: Array
    saturated: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Seen:
    """A frame before it is localized.

    Attributes:
        electrons: photo-electrons, (rows, columns).
        ignore: saturated pixels, the same shape.
        spots: of each band by its number, (n, 3): x px, y px, photo-electrons.
    """

    electrons: Array
    ignore: npt.NDArray[np.bool_]
    spots: dict[int, Array]


def _inside(spots: Array, region: Region) -> Array:
    """Give the spots, (n, 3), that a region sees."""
    inside = np.ones(len(spots), bool)
    for at, side in ((spots[:, 0], region.columns), (spots[:, 1], region.rows)):
        inside &= (at > side.start - 0.5) & (at < side.stop - 0.5)
    return spots[inside]


@contextmanager
def _naming(frames: Sequence[int]) -> Iterator[None]:
    """Add to an exception which frame, or in which of some successive ones, it happened in."""
    try:
        yield
    except Exception as error:
        some = f"{frames[0]}" if len(frames) == 1 else f"{frames[0]} to {frames[-1]}"
        error.add_note(f"This happened in frame {some} of the localized part.")
        raise


class FrameWorker:
    """Everything about a movie that does not change from frame to frame.

    Args:
        movie, assumptions, options, networks, window: as for `localize`.
        run: maps a function over regions; `map`, or one that uses several threads.
        pause: called often; what it raises ends the work on a frame.
    """

    def __init__(
        self,
        movie: Frames,
        assumptions: Assumptions,
        options: Options,
        networks: Networks | None,
        window: Window | None = None,
        run: Map = map,
        pause: Callable[[], None] = go_on,
    ) -> None:
        self._run = run
        self._pause = pause
        known = networks is not None and within_training(networks, assumptions.sigma_px)
        self._networks = networks if known else None
        self._movie = movie
        self._assumptions = assumptions
        self._options = options
        self._shape = (movie.shape[1], movie.shape[2])
        self._variance = assumptions.camera.read_variance_e2(self._shape)
        self._window = window or Window((0, movie.shape[1]), (0, movie.shape[2]))
        self.regions = regions_of(self._shape, assumptions.sigma_px)
        self._bands = bands_of(self.regions)
        self._touched = [region for region in self.regions if self._window.touches(region)]
        self._limit = chi2_limit(assumptions.sigma_px, CHI2_SIGMAS)

    def __call__(self, frame: int) -> FrameRows:
        """Give the rows, draws and images of one frame in the window."""
        return self._rows(self.pieces(frame, self._touched))

    def every(self, frames: range) -> Iterator[FrameRows]:
        """Give the same of some frames in order."""
        return map(self._rows, self.each(frames, self._touched))

    def _rows(self, pieces: FramePieces) -> FrameRows:
        rows = rows_of_frame([p.rows for p in pieces.parts], self._touched, self._options)
        expected, chi2 = np.empty(self._shape), np.empty(self._shape)
        for part, r in zip(pieces.parts, self._touched, strict=True):
            core = np.s_[slice(*r.core_rows), slice(*r.core_columns)]
            expected[core] = part.expected_e
            chi2[core] = part.chi2
        draws = joined_draws([p.draws for p in pieces.parts])
        wanted = self._window.slices
        return FrameRows(
            pieces.frame,
            table_of(self._within(rows), LOCALIZATION_COLUMNS),
            table_of(self._within(draws), DRAW_COLUMNS),
            expected[wanted],
            chi2[wanted],
        )

    def pieces(self, frame: int, regions: Sequence[Region]) -> FramePieces:
        """Localize some regions of a frame, each for itself."""
        return self._localized(frame, regions, self._seen([frame], regions)[0])

    def each(self, frames: range, regions: Sequence[Region]) -> Iterator[FramePieces]:
        """Do the same for some frames in order; spots of several are found at once.

        Raises:
            Exception: whatever goes wrong, with a note that names the frame.
        """
        together = max(1, DETECTED_PX // math.prod(self._shape))
        for first in range(frames.start, frames.stop, together):
            numbers = range(first, min(first + together, frames.stop))
            for frame, seen in zip(numbers, self._seen(numbers, regions), strict=True):
                with _naming([frame]):
                    found = self._localized(frame, regions, seen)
                yield found

    def _seen(self, numbers: Sequence[int], regions: Sequence[Region]) -> list[_Seen]:
        """Read frames and detect their spots, the same for any number of frames at once."""
        a = self._assumptions
        adu = []
        for frame in numbers:
            with _naming([frame]):
                adu.append(self._movie.read(frame, frame + 1))
        together = np.concatenate(adu)
        electrons = a.camera.electrons(together)
        arguments = electrons, self._variance, a.sigma_px, a.camera.excess_noise
        with _naming(numbers):
            spots = {
                number: spots_of_band(*arguments, self._bands[number])
                for number in sorted({self._band_of(region) for region in regions})
            }
        ignore = saturated(together, a.camera)
        return [
            _Seen(
                electrons[k],
                ignore[k],
                {number: spots_of_frame(found, k) for number, found in spots.items()},
            )
            for k in range(len(numbers))
        ]

    def _band_of(self, region: Region) -> int:
        return next(k for k, band in enumerate(self._bands) if region.number < band.regions[1])

    def _localized(self, frame: int, regions: Sequence[Region], seen: _Seen) -> FramePieces:
        a, o = self._assumptions, self._options

        def one(region: Region) -> RegionRows:
            spots = _inside(seen.spots[self._band_of(region)], region)
            part = self._region(frame, region, seen.electrons, seen.ignore, spots)
            rows = mark_rows(part.rows, self._limit, seen.ignore, o.pixel_nm, a.sigma_px)
            return replace(part, rows=rows)

        parts = list(self._run(one, regions))
        return FramePieces(frame, regions, parts, seen.electrons, seen.ignore)

    def _within(self, rows: Columns) -> Columns:
        x, y = (rows[name] / self._options.pixel_nm for name in ("x_nm", "y_nm"))
        return taken(rows, self._window.holds(x, y))

    def _region(
        self,
        frame: int,
        region: Region,
        electrons: Array,
        ignore: npt.NDArray[np.bool_],
        starts: Array,
    ) -> RegionRows:
        """Localize one region; the result covers its core and is in the frame's coordinates."""
        a, o = self._assumptions, self._options
        where = (region.rows, region.columns)
        data = FrameData(
            electrons[where], self._variance[where], a.camera.excess_noise, ignore[where]
        )
        prior = region_prior(a.learned, region, a.crowding.around(frame, *where))
        shift = np.array([region.columns.start, region.rows.start, 0.0])
        number = frame * len(self.regions) + region.number
        known = Known(
            data,
            a.learned.background_e[where],
            a.sigma_px,
            prior.photons.mean,
            prior.margin_px,
            starts - shift,
            o.seed,
            number,
        )
        posterior = frame_posterior(
            data,
            prior,
            a.sigma_px,
            begin_of_frame(self._networks, known, o.effort.chains - 1),
            o.effort,
            o.seed,
            number,
            LEAST_PROBABILITY,
            self._pause,
        )
        local = region_rows(
            posterior,
            data,
            prior,
            a.sigma_px,
            frame,
            o.pixel_nm,
            a.camera.quantum_efficiency,
            o.draws,
            (region.columns.start, region.rows.start),
        )
        return _core(local, region, o.pixel_nm)


def rows_of_frame(parts: Sequence[Columns], regions: Sequence[Region], options: Options) -> Columns:
    """Make the rows of one frame of those of its regions; improbable ones are left out."""
    rows = unique_rows(parts, regions, options.pixel_nm)
    return taken(rows, rows["p_exists"] >= options.min_probability)


def joined_draws(parts: Sequence[Columns]) -> Columns:
    """Join the draws of a frame's regions, draw by draw."""
    draws = joined(parts)
    return taken(draws, np.argsort(draws["draw"], kind="stable"))


def _core(local: RegionRows, region: Region, pixel_nm: float) -> RegionRows:
    """Cut a region's results down to its core."""
    kept = []
    for some, slack in ((local.rows, CLAIM_PX), (local.draws, 0.0)):
        x, y = some["x_nm"] / pixel_nm, some["y_nm"] / pixel_nm
        kept.append(taken(some, owned(x, y, region, slack)))
    rows, columns = (
        slice(core[0] - seen.start, core[1] - seen.start)
        for core, seen in (
            (region.core_rows, region.rows),
            (region.core_columns, region.columns),
        )
    )
    expected, chi2 = local.expected_e[rows, columns], local.chi2[rows, columns]
    return RegionRows(kept[0], kept[1], expected, chi2)


def region_prior(
    learned: LearnedPrior, region: Region, relative_density: Array | None = None
) -> ScenePrior:
    """Give the prior of a region: the learned one with background and density of the region."""
    knots = at_knots(learned.background_e[region.rows, region.columns])
    return replace(learned.prior, background_e=knots, relative_density=relative_density)
