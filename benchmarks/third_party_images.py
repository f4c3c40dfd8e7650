"""The image model against movies that other people's programs simulated.

    python benchmarks/third_party_images.py DATA       # the folder of the third-party movies

Renders the truth of each movie with this package's PSF and fits only what the truth does not say:
photons of each emitter, one background per frame. Residuals in units of the camera model's noise
must then be white: mean 0 +- 0.02, variance 1 +- 0.05 (with as many degrees of freedom less as
numbers were fitted), no correlation between neighbours, and no shift of all positions beyond
0.02 px, which also proves the pixel convention. Leaves with 1 if one of them does not hold.

dense_random_sim was made by sampling Gaussians at the pixels' centres instead of integrating them,
which this package's PSF matches with a variance 1/12 px^2 smaller: 4 % in sigma. As integrated
Gaussians of the sigma stated, its residuals follow brightness (mean -0.02, variance 1.03).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve

from sureloc.camera import Camera
from sureloc.physics.psf import GaussianPSF

MEAN, VARIANCE, SHIFT_PX = 0.02, 0.05, 0.02


@dataclass(frozen=True)
class Movie:
    """A movie, its truth (corner origin), its camera and PSF; None takes each row's sigma_nm."""

    name: str
    stack: str
    truth: str
    pixel_nm: float
    camera: Camera
    sigma_px: float | None
    frames: int
    integrated: bool = True


POISSON = Camera(offset_adu=100.0, gain_adu_per_e=1.0, variance_adu2=0.0)
MOVIES = (
    *(
        Movie(name, f"known_answer_sim/{name}.tif", f"known_answer_sim/{name}_truth.csv", *rest)
        for name, *rest in (
            ("test", 160.0, POISSON, 1.0, 4),
            ("test_300x200", 160.0, POISSON, 1.0, 4),
            ("test_low_snr", 160.0, POISSON, 1.0, 2),
        )
    ),
    Movie(
        "dense_random_sim",
        "dense_random_sim/stack.tif",
        "dense_random_sim/truth.csv",
        100.0,
        Camera(offset_adu=100.0, gain_adu_per_e=2.06, variance_adu2=0.0, em_gain=300.0),
        None,
        20,
        integrated=False,
    ),
)


@dataclass(frozen=True)
class Residuals:
    """What is left of one movie, with the standard error of what random residuals would give."""

    mean: float
    mean_se: float
    variance: float
    variance_se: float
    neighbours: float
    shift_px: tuple[float, float]
    shift_se_px: tuple[float, float]

    def problems(self) -> list[str]:
        found = []
        if abs(self.mean) > MEAN:
            found.append(f"mean {self.mean:.3f}")
        if abs(self.variance - 1) > VARIANCE:
            found.append(f"variance {self.variance:.3f}")
        if max(map(abs, self.shift_px)) > SHIFT_PX:
            found.append(f"shift {self.shift_px[0]:.3f}, {self.shift_px[1]:.3f} px")
        return found


def design(truth: pd.DataFrame, movie: Movie, shape: tuple[int, int]) -> list[sparse.csc_matrix]:
    """Give images of single photons and their slopes by x and y, one column an emitter."""
    height, width = shape
    x = torch.from_numpy(truth["x_nm"].to_numpy(float) / movie.pixel_nm - 0.5)
    y = torch.from_numpy(truth["y_nm"].to_numpy(float) / movie.pixel_nm - 0.5)
    sigma = (
        torch.from_numpy(truth["sigma_nm"].to_numpy(float) / movie.pixel_nm)
        if movie.sigma_px is None
        else torch.full_like(x, movie.sigma_px)
    )
    if not movie.integrated:
        sigma = (sigma**2 - 1 / 12).sqrt()
    psf = GaussianPSF.round(sigma)
    reach = torch.arange(-10, 11)
    columns, rows = x.round().long()[:, None] + reach, y.round().long()[:, None] + reach
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    pixel = (rows[:, :, None] * width + columns[:, None, :])[inside].numpy()
    emitter = torch.arange(len(x))[:, None, None].expand(inside.shape)[inside].numpy()
    images = psf.images_and_gradients(x, y, columns.double(), rows.double())
    return [
        sparse.csc_matrix((image[inside].numpy(), (pixel, emitter)), (height * width, len(x)))
        for image in images
    ]


def seen(truth: pd.DataFrame, movie: Movie, shape: tuple[int, int]) -> pd.DataFrame:
    """Give the emitters that put at least a hundredth of their light into the frame."""
    image = design(truth, movie, shape)[0]
    return truth[np.asarray(image.sum(0)).ravel() > 0.01]


def fit(frame: np.ndarray, truth: pd.DataFrame, movie: Movie) -> tuple[np.ndarray, ...]:
    """Fit photons and background by weighted least squares.

    The noise comes from the truth's photons where it has them, else from the fit itself, which
    follows the noise a little: where emitters are many, residuals would then lean to one side.
    """
    camera, shape = movie.camera, frame.shape
    measured = camera.electrons(frame).ravel()
    variance = camera.read_variance_e2(shape).ravel()
    image, by_x, by_y = design(truth, movie, shape)
    linear = sparse.hstack([image, np.ones((len(measured), 1))]).tocsc()
    known = "photons" in truth
    believed = np.full_like(measured, measured.mean())
    for _ in range(8):
        weight = 1.0 / (camera.excess_noise * np.maximum(believed, 0.5) + variance)
        weighted = linear.T.multiply(weight)
        found = spsolve((weighted @ linear).tocsc(), weighted @ measured)
        expected = linear @ found
        believed = image @ truth["photons"].to_numpy(float) + found[-1] if known else expected
    noise = np.sqrt(camera.excess_noise * np.maximum(believed, 0.5) + variance)
    residual = (measured - expected) / noise
    slopes = np.stack([by_x @ found[:-1], by_y @ found[:-1]], axis=1) / noise[:, None]
    # What photons and background take up of a shift must be taken out of the slopes too.
    scaled = linear.multiply(1.0 / noise[:, None]).tocsc()
    taken = spsolve((scaled.T @ scaled).tocsc(), scaled.T @ slopes)
    return residual.reshape(shape), slopes - scaled @ taken, np.array([linear.shape[1]])


def judge(movie: Movie, data: Path) -> Residuals:
    stack = tifffile.imread(data / movie.stack)[: movie.frames]
    truth = pd.read_csv(data / movie.truth)
    residuals, normal, score, fitted = [], np.zeros((2, 2)), np.zeros(2), 0
    for index, frame in enumerate(stack):
        here = seen(truth[truth["frame"] == index], movie, frame.shape)
        residual, slopes, count = fit(frame.astype(float), here, movie)
        residuals.append(residual)
        normal += slopes.T @ slopes
        score += slopes.T @ residual.ravel()
        fitted += int(count[0])
    r = np.stack(residuals)
    size, free = r.size, r.size - fitted
    squares = float((r**2).sum())
    pairs = float((r[:, :, 1:] * r[:, :, :-1]).sum() + (r[:, 1:] * r[:, :-1]).sum())
    pairs /= r[:, :, 1:].size + r[:, 1:].size
    shift = np.linalg.solve(normal, score)
    error = np.sqrt(np.diag(np.linalg.inv(normal)))
    return Residuals(
        float(r.mean()),
        size**-0.5,
        squares / free,
        (2 / free) ** 0.5,
        pairs * size / squares,
        (float(shift[0]), float(shift[1])),
        (float(error[0]), float(error[1])),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the third-party movies")
    data = parser.parse_args().data
    print("movie              mean            variance        neighbours  shift x, y px")
    bad = 0
    for movie in MOVIES:
        found = judge(movie, data)
        problems = found.problems()
        bad += bool(problems)
        shift = ", ".join(
            f"{s:+.4f} ({e:.4f})" for s, e in zip(found.shift_px, found.shift_se_px, strict=True)
        )
        print(
            f"{movie.name:18} {found.mean:+.4f} ({found.mean_se:.4f}) "
            f"{found.variance:.4f} ({found.variance_se:.4f}) {found.neighbours:+.4f}     {shift}"
            + (f"   MISSED: {', '.join(problems)}" if problems else "")
        )
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
