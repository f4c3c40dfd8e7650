"""Classical spot detection: matched filter, joint least squares, repeat on what is left over.

A spot is a local maximum of the matched filter of the whitened residual (the log-likelihood ratio
of one more emitter of known shape, North 1943). All spots and a smooth background are then fitted
together by weighted linear least squares, positions move by one Gauss-Newton step, spots that lost
their significance go, and the filter looks again at the residual, so that a neighbour hidden under
a bright spot is found and the background is not lifted by the spots (CLEAN, Hogbom 1974, with a
joint fit in every pass). It serves as the start of the chain, for learning priors from the movie,
and as the fallback where no weights are at hand. It resolves no pairs closer than about a PSF
width and promises no intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int
from scipy import ndimage, special

FloatArray = npt.NDArray[np.float64]

_REACH_SIGMAS = 3.5  # outside lie 5e-4 of the flux per axis
_PASSES = 4
_SWEEPS = 3
_OUTSIDE_PX = 1.5  # how far beyond the outermost pixel's centre a spot may be followed
_NODE_CONTRAST = 0.25
_LEVEL_FLOOR_E = 0.05  # smallest level from which shot noise is computed, electrons


@dataclass(frozen=True)
class Spots:
    """Detected spots and the background under them.

    Attributes:
        frame: index of each spot's frame within the chunk.
        x_px, y_px: positions, px.
        photons: photo-electrons of each spot.
        significance: photons over their standard deviation were the spot alone.
        background_e: smooth background, photo-electrons per pixel.
    """

    frame: Int[np.ndarray, " spots"]
    x_px: Float[np.ndarray, " spots"]
    y_px: Float[np.ndarray, " spots"]
    photons: Float[np.ndarray, " spots"]
    significance: Float[np.ndarray, " spots"]
    background_e: Float[np.ndarray, "frames height width"]

    def expected_e(self, sigma_px: tuple[float, float]) -> Float[np.ndarray, "frames height width"]:
        """Render spots and background into expected photo-electrons per pixel."""
        patches = _Patches.of(self.frame, self.x_px, self.y_px, sigma_px, self.background_e.shape)
        return self.background_e + patches.render(self.photons)


def detect_spots(
    electrons: Float[np.ndarray, "frames height width"],
    read_variance_e2: Float[np.ndarray, "height width"],
    sigma_px: tuple[float, float],
    excess_noise: float = 1.0,
    false_alarms_per_frame: float = 0.1,
) -> Spots:
    """Detect spots of a known shape and estimate the smooth background under them.

    Args:
        electrons: frames in photo-electrons; negative values are kept.
        read_variance_e2: read variance of every pixel, electrons^2.
        sigma_px: PSF widths along columns (x) and rows (y), px.
        excess_noise: F^2 of electron multiplication, 1 without it.
        false_alarms_per_frame: expected number of spots that noise alone makes per frame.

    Returns:
        Spots inside the frame, sorted by frame, then row, then column; those just outside are
        fitted but not returned.
    """
    data = np.asarray(electrons, dtype=np.float64)
    if len(data) == 0:
        none = np.empty(0)
        return Spots(np.empty(0, np.int64), none, none, none, none, data)
    variance = np.asarray(read_variance_e2, dtype=np.float64)
    threshold = detection_threshold(data.shape[1:], sigma_px, false_alarms_per_frame)
    smooth = _SmoothBackground.of(data.shape, sigma_px)
    model = _Model.empty(sigma_px, smooth, smooth.first_guess(data, variance, sigma_px))
    numbers = np.arange(len(data))
    found: list[Spots] = []
    done: list[npt.NDArray[np.int64]] = []
    for last_pass in [False] * (_PASSES - 1) + [True]:
        expected = model.expected()
        weight = _weights(expected, variance, excess_noise)
        frame, row, column = _new_peaks(data - expected, weight, sigma_px, threshold, model)
        model = model.with_spots(frame, column.astype(float), row.astype(float))
        for sweep in range(_SWEEPS):
            model = model.refit(data, variance, excess_noise, threshold - 1.0)
            if sweep < _SWEEPS - 1:
                model = model.moved(data, variance, excess_noise)
        # Frames without news are done, whatever happens to others: each comes out as if alone.
        goes_on = (np.bincount(frame, minlength=len(data)) > 0) & (not last_pass)
        found.append(model.of_frames(~goes_on).spots(variance, excess_noise, threshold))
        done.append(numbers[~goes_on])
        model, data, numbers = model.of_frames(goes_on), data[goes_on], numbers[goes_on]
        if len(data) == 0:
            break
    return _in_order_of_frames(found, done)


def _in_order_of_frames(parts: list[Spots], frames: list[npt.NDArray[np.int64]]) -> Spots:
    """Join the spots of several sets of frames.

    Args:
        parts: spots of each set.
        frames: for each set, the numbers of its frames among all.
    """
    number = np.concatenate([f[part.frame] for part, f in zip(parts, frames, strict=True)])
    order = np.argsort(number, kind="stable")
    x_px, y_px, photons, significance = (
        np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ("x_px", "y_px", "photons", "significance")
    )
    background = np.concatenate([part.background_e for part in parts])
    background = background[np.argsort(np.concatenate(frames))]
    return Spots(number[order], x_px, y_px, photons, significance, background)


def estimate_background(
    electrons: Float[np.ndarray, "frames height width"],
    read_variance_e2: Float[np.ndarray, "height width"],
    sigma_px: tuple[float, float],
    excess_noise: float = 1.0,
) -> Float[np.ndarray, "frames height width"]:
    """Give the smooth background of every frame in photo-electrons, spots taken away.

    Args and units as in `detect_spots`, whose last fit this is.
    """
    return detect_spots(electrons, read_variance_e2, sigma_px, excess_noise).background_e


def detection_threshold(
    shape: tuple[int, ...], sigma_px: tuple[float, float], false_alarms_per_frame: float
) -> float:
    """Give the significance above which noise alone makes so many maxima per frame.

    The expected number of maxima of a smooth Gaussian field above a high level t is its Euler
    characteristic (Adler 1981; Worsley 1992): A |L|^(1/2) (2 pi)^(-3/2) t exp(-t^2 / 2), where the
    field filtered by a Gaussian has |L|^(1/2) = 1 / (2 sigma_x sigma_y).

    Args:
        shape: (rows, columns) of a frame.
        sigma_px: PSF widths, px.
        false_alarms_per_frame: expected number, larger than 0.
    """
    # Pixel integration widens the filter by 1/12 px^2.
    widths = [math.sqrt(s**2 + 1.0 / 12.0) for s in sigma_px]
    density = shape[-1] * shape[-2] / (2 * widths[0] * widths[1]) / (2 * math.pi) ** 1.5
    level = 3.0
    for _ in range(20):  # a contraction: level depends on its own logarithm
        level = math.sqrt(
            max(2 * math.log(density * max(level, 1.0) / false_alarms_per_frame), 4.0)
        )
    return level


def faintest_photons(
    shape: tuple[int, ...],
    background_e: float,
    read_variance_e2: float,
    sigma_px: tuple[float, float],
    excess_noise: float = 1.0,
    false_alarms_per_frame: float = 0.1,
) -> float:
    """Give the photo-electrons from which on a spot that is alone is rather found than not.

    Args:
        shape: (rows, columns) of a frame.
        background_e: photo-electrons per pixel.
        read_variance_e2: electrons^2.
        sigma_px, excess_noise, false_alarms_per_frame: as in `detect_spots`.
    """
    energy = float(np.prod([(_profile(sigma) ** 2).sum() for sigma in sigma_px]))
    noise = excess_noise * max(background_e, _LEVEL_FLOOR_E) + read_variance_e2
    return detection_threshold(shape, sigma_px, false_alarms_per_frame) * math.sqrt(noise / energy)


def _weights(expected: FloatArray, variance: FloatArray, excess_noise: float) -> FloatArray:
    return 1.0 / (excess_noise * np.maximum(expected, _LEVEL_FLOOR_E) + variance)


def _profile(sigma: float) -> FloatArray:
    """Give the pixel-integrated Gaussian centred on a pixel."""
    reach = math.ceil(_REACH_SIGMAS * sigma)
    edges = (np.arange(-reach, reach + 2) - 0.5) / sigma
    return np.diff(special.ndtr(edges))


def _filtered(images: FloatArray, sigma_px: tuple[float, float], power: int) -> FloatArray:
    rows = ndimage.correlate1d(images, _profile(sigma_px[1]) ** power, axis=1, mode="constant")
    return np.asarray(
        ndimage.correlate1d(rows, _profile(sigma_px[0]) ** power, axis=2, mode="constant")
    )


def _new_peaks(
    residual: FloatArray,
    weight: FloatArray,
    sigma_px: tuple[float, float],
    threshold: float,
    model: _Model,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find maxima of the matched filter that are no second sight of a known spot."""
    score = _filtered(residual * weight, sigma_px, 1)
    score /= np.sqrt(_filtered(weight, sigma_px, 2))
    # Until a bright spot is in the model, its own shot noise makes maxima on its flanks: a maximum
    # must win within 1.5 PSF widths, and neighbours closer than that are found in later passes.
    size = (1, *(2 * math.ceil(1.5 * s) + 1 for s in reversed(sigma_px)))
    peak = (score > threshold) & (score == ndimage.maximum_filter(score, size=size))
    # A residual right beside a spot says that the spot is misplaced, not that there are two.
    near = max(1, round(max(sigma_px)))
    known = np.zeros(residual.shape, bool)
    height, width = residual.shape[1:]
    for dy in range(-near, near + 1):
        for dx in range(-near, near + 1):
            if dx * dx + dy * dy <= near * near:
                rows = np.clip(np.rint(model.y_px).astype(int) + dy, 0, height - 1)
                columns = np.clip(np.rint(model.x_px).astype(int) + dx, 0, width - 1)
                known[model.frame, rows, columns] = True
    frame, row, column = np.nonzero(peak & ~known)
    return frame, row, column


@dataclass(frozen=True)
class _SmoothBackground:
    """Backgrounds spanned by hat functions on a coarse grid: B = U_y beta U_x^T."""

    along_y: FloatArray
    along_x: FloatArray
    shape: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], sigma_px: tuple[float, float]) -> _SmoothBackground:
        # Structure finer than twelve PSF widths is signal, coarser is background.
        spacing = 12.0 * max(sigma_px)
        return cls(_hats(shape[1], spacing), _hats(shape[2], spacing), shape)

    @property
    def nodes(self) -> tuple[int, int, int]:
        return self.shape[0], self.along_y.shape[1], self.along_x.shape[1]

    def render(self, beta: FloatArray) -> FloatArray:
        return _sandwich(self.along_y, beta, self.along_x)

    def project(self, image: FloatArray) -> FloatArray:
        return _sandwich(self.along_y.T, image, self.along_x.T)

    def project_squares(self, image: FloatArray) -> FloatArray:
        return _sandwich((self.along_y**2).T, image, (self.along_x**2).T)

    def roughness(self, beta: FloatArray) -> FloatArray:
        """Give half the derivative of the summed squared differences of neighbouring nodes."""
        down, across = np.diff(beta, axis=1), np.diff(beta, axis=2)
        out = np.zeros_like(beta)
        out[:, 1:] += down
        out[:, :-1] -= down
        out[:, :, 1:] += across
        out[:, :, :-1] -= across
        return out

    def first_guess(
        self, data: FloatArray, variance: FloatArray, sigma_px: tuple[float, float]
    ) -> FloatArray:
        """Give each node a low quantile of the smoothed frame around it, corrected for noise."""
        typical = float(np.median(variance))
        trust = 1.0 / (variance + typical + 1.0)
        weight = _filtered(np.broadcast_to(trust, (1, *trust.shape)), sigma_px, 1)
        smooth = _filtered(data * trust, sigma_px, 1) / weight
        noise = float((_profile(sigma_px[0]) ** 2).sum() * (_profile(sigma_px[1]) ** 2).sum())
        beta = np.empty(self.nodes)
        share = 0.1
        for j in range(self.nodes[1]):
            rows = self.along_y[:, j] > 0
            for i in range(self.nodes[2]):
                window = smooth[:, rows][:, :, self.along_x[:, i] > 0].reshape(len(data), -1)
                low = round(share * (window.shape[1] - 1))
                beta[:, j, i] = np.partition(window, low, axis=1)[:, low]
        sds = -float(special.ndtri(share))
        return np.asarray(beta + sds * np.sqrt(noise * (np.maximum(beta, 0.0) + typical)))


def _sandwich(left: FloatArray, middle: FloatArray, right: FloatArray) -> FloatArray:
    """Give left @ m @ right^T for every m of a stack, each as if it were alone."""
    # Of strided matrices, stacked products bypass the fast library routines.
    across = np.ascontiguousarray(middle) @ np.ascontiguousarray(right.T)
    return np.asarray(np.ascontiguousarray(left) @ across)


def _hats(length: int, spacing: float) -> FloatArray:
    """Give hat functions (rows: pixels) that sum to 1 everywhere."""
    nodes = np.linspace(0, length - 1, max(2, 1 + round((length - 1) / spacing)))
    step = nodes[1] - nodes[0]
    return np.asarray(np.clip(1.0 - np.abs(np.arange(length)[:, None] - nodes) / step, 0.0, None))


@dataclass(frozen=True)
class _Model:
    """Spots and background of a chunk, with the operations of one pass."""

    sigma_px: tuple[float, float]
    smooth: _SmoothBackground
    beta: FloatArray
    frame: npt.NDArray[np.int64]
    x_px: FloatArray
    y_px: FloatArray
    photons: FloatArray

    @classmethod
    def empty(
        cls, sigma_px: tuple[float, float], smooth: _SmoothBackground, beta: FloatArray
    ) -> _Model:
        none = np.empty(0)
        return cls(sigma_px, smooth, beta, np.empty(0, np.int64), none, none, none)

    def with_spots(
        self, frame: npt.NDArray[np.int64], x_px: FloatArray, y_px: FloatArray
    ) -> _Model:
        return _Model(
            self.sigma_px,
            self.smooth,
            self.beta,
            np.concatenate([self.frame, frame]),
            np.concatenate([self.x_px, x_px]),
            np.concatenate([self.y_px, y_px]),
            np.concatenate([self.photons, np.zeros(len(frame))]),
        )

    def _kept(self, keep: npt.NDArray[np.bool_], photons: FloatArray, beta: FloatArray) -> _Model:
        return _Model(
            self.sigma_px,
            self.smooth,
            beta,
            self.frame[keep],
            self.x_px[keep],
            self.y_px[keep],
            photons[keep],
        )

    def of_frames(self, chosen: npt.NDArray[np.bool_]) -> _Model:
        """Give the model of some of the frames, numbered anew."""
        mine = chosen[self.frame]
        number = np.cumsum(chosen) - 1
        shape = (int(chosen.sum()), *self.smooth.shape[1:])
        return _Model(
            self.sigma_px,
            replace(self.smooth, shape=shape),
            self.beta[chosen],
            number[self.frame[mine]],
            self.x_px[mine],
            self.y_px[mine],
            self.photons[mine],
        )

    def patches(self) -> _Patches:
        return _Patches.of(self.frame, self.x_px, self.y_px, self.sigma_px, self.smooth.shape)

    def expected(self, patches: _Patches | None = None) -> FloatArray:
        patches = self.patches() if patches is None else patches
        return self.smooth.render(self.beta) + patches.render(self.photons)

    def refit(
        self, data: FloatArray, variance: FloatArray, excess_noise: float, least: float
    ) -> _Model:
        """Fit all fluxes and the background jointly; drop spots below the significance `least`."""
        patches = self.patches()
        weight = _weights(self.expected(patches), variance, excess_noise)
        photons, beta = _solve(data, weight, patches, self)
        keep = photons * np.sqrt(patches.project_squares(weight)) > least
        return self._kept(keep, photons, beta)

    def moved(self, data: FloatArray, variance: FloatArray, excess_noise: float) -> _Model:
        """Move every spot by a bounded Gauss-Newton step of its own."""
        patches = self.patches()
        expected = self.expected(patches)
        weight = _weights(expected, variance, excess_noise)
        step_x, step_y = patches.steps((data - expected) * weight, weight, self.photons)
        height, width = self.smooth.shape[1:]
        return _Model(
            self.sigma_px,
            self.smooth,
            self.beta,
            self.frame,
            np.clip(self.x_px + step_x, -_OUTSIDE_PX, width - 1 + _OUTSIDE_PX),
            np.clip(self.y_px + step_y, -_OUTSIDE_PX, height - 1 + _OUTSIDE_PX),
            self.photons,
        )

    def spots(self, variance: FloatArray, excess_noise: float, least: float) -> Spots:
        patches = self.patches()
        weight = _weights(self.expected(patches), variance, excess_noise)
        significance = self.photons * np.sqrt(patches.project_squares(weight))
        order = np.lexsort((self.x_px, self.y_px, self.frame))
        height, width = self.smooth.shape[1:]
        inside = (np.abs(2 * self.x_px - width + 1) <= width) & (
            np.abs(2 * self.y_px - height + 1) <= height
        )
        order = order[inside[order] & (significance[order] > least)]
        return Spots(
            self.frame[order],
            self.x_px[order],
            self.y_px[order],
            self.photons[order],
            significance[order],
            np.maximum(self.smooth.render(self.beta), 0.0),
        )


@dataclass(frozen=True)
class _Patches:
    """The pixels under every spot and the spot's share in each."""

    index: npt.NDArray[np.int64]
    along_x: FloatArray
    along_y: FloatArray
    slope_x: FloatArray
    slope_y: FloatArray
    shape: tuple[int, ...]

    @classmethod
    def of(
        cls,
        frame: npt.NDArray[np.int64],
        x_px: FloatArray,
        y_px: FloatArray,
        sigma_px: tuple[float, float],
        shape: tuple[int, ...],
    ) -> _Patches:
        columns, along_x, slope_x = _spread(x_px, sigma_px[0], shape[2])
        rows, along_y, slope_y = _spread(y_px, sigma_px[1], shape[1])
        index = (frame[:, None, None] * shape[1] + rows[:, :, None]) * shape[2]
        index = index + columns[:, None, :]
        return cls(index, along_x, along_y, slope_x, slope_y, shape)

    def render(self, photons: FloatArray) -> FloatArray:
        values = (self.along_y * photons[:, None])[:, :, None] * self.along_x[:, None, :]
        flat = np.bincount(
            self.index.ravel(), weights=values.ravel(), minlength=math.prod(self.shape)
        )
        return np.asarray(flat.reshape(self.shape), dtype=np.float64)

    def project(self, image: FloatArray) -> FloatArray:
        return self._sum(image.ravel()[self.index], self.along_x, self.along_y)

    def project_squares(self, image: FloatArray) -> FloatArray:
        return self._sum(image.ravel()[self.index], self.along_x**2, self.along_y**2)

    @staticmethod
    def _sum(values: FloatArray, along_x: FloatArray, along_y: FloatArray) -> FloatArray:
        return np.asarray(((values @ along_x[:, :, None])[:, :, 0] * along_y).sum(axis=1))

    def steps(
        self, whitened: FloatArray, weight: FloatArray, photons: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        values, weights = whitened.ravel()[self.index], weight.ravel()[self.index]
        steps = []
        for px, py in ((self.slope_x, self.along_y), (self.along_x, self.slope_y)):
            gradient = self._sum(values, px, py)
            curvature = photons * self._sum(weights, px**2, py**2)
            # Under crowding a full step of each spot on its own overshoots.
            step = np.divide(gradient, curvature, out=np.zeros_like(gradient), where=curvature > 0)
            steps.append(np.clip(0.7 * step, -0.5, 0.5))
        return steps[0], steps[1]


def _spread(
    position: FloatArray, sigma: float, length: int
) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
    """Give pixels, shares and slopes along one axis; shares outside the frame are 0."""
    reach = math.ceil(_REACH_SIGMAS * sigma)
    pixel = np.rint(position).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
    edge = (pixel[:, :1] - 0.5 + np.arange(2 * reach + 2) - position[:, None]) / sigma
    inside = (pixel >= 0) & (pixel < length)
    share = np.diff(special.ndtr(edge), axis=1) * inside
    density = np.exp(-0.5 * edge**2) / (sigma * math.sqrt(2 * math.pi))
    return np.clip(pixel, 0, length - 1), share, -np.diff(density, axis=1) * inside


def _solve(
    data: FloatArray, weight: FloatArray, patches: _Patches, model: _Model, iterations: int = 5
) -> tuple[FloatArray, FloatArray]:
    """Solve the weighted linear least squares of fluxes and background by conjugate gradients.

    Frames do not couple, so each frame takes steps of its own length; the preconditioner is the
    diagonal of the normal matrix. Neighbouring nodes of the background differ by a normal error of
    `_NODE_CONTRAST` times the level a priori: too weak to flatten what the data show, it keeps a
    node that lies under a clump of spots from taking their light.
    """
    smooth, frame, frames = model.smooth, model.frame, data.shape[0]
    level = np.maximum(model.beta.reshape(frames, -1).mean(1), _LEVEL_FLOOR_E)
    stiffness = ((_NODE_CONTRAST * level) ** -2.0)[:, None, None]
    scale_a = 1.0 / np.maximum(patches.project_squares(weight), 1e-12)
    scale_b = 1.0 / (smooth.project_squares(weight) + 4 * stiffness)

    def dot(a1: FloatArray, b1: FloatArray, a2: FloatArray, b2: FloatArray) -> FloatArray:
        of_spots = np.bincount(frame, weights=a1 * a2, minlength=frames)
        return np.asarray(of_spots + (b1 * b2).reshape(frames, -1).sum(1))

    a, b = model.photons.copy(), model.beta.copy()
    residual = weight * (data - smooth.render(b) - patches.render(a))
    r_a = patches.project(residual)
    r_b = smooth.project(residual) - stiffness * smooth.roughness(b)
    z_a, z_b = r_a * scale_a, r_b * scale_b
    p_a, p_b = z_a, z_b
    rho = dot(r_a, r_b, z_a, z_b)
    for _ in range(iterations):
        image = weight * (smooth.render(p_b) + patches.render(p_a))
        q_a = patches.project(image)
        q_b = smooth.project(image) + stiffness * smooth.roughness(p_b)
        step = rho / np.maximum(dot(p_a, p_b, q_a, q_b), 1e-300)
        a, b = a + step[frame] * p_a, b + step[:, None, None] * p_b
        r_a, r_b = r_a - step[frame] * q_a, r_b - step[:, None, None] * q_b
        z_a, z_b = r_a * scale_a, r_b * scale_b
        rho, previous = dot(r_a, r_b, z_a, z_b), rho
        ratio = rho / np.maximum(previous, 1e-300)
        p_a, p_b = z_a + ratio[frame] * p_a, z_b + ratio[:, None, None] * p_b
    return a, b
