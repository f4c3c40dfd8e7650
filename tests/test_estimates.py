"""Camera and PSF estimated from the movie itself: the truth lies where the stated errors say."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sureloc.camera import Camera
from sureloc.errors import InputError
from sureloc.io.cameras import read_camera
from sureloc.io.movies import open_movie
from sureloc.localize.psf_estimate import estimate_psf
from sureloc.physics.image import render_frames
from sureloc.physics.noise import sample_electrons
from sureloc.physics.psf import GaussianPSF

SHARED = Path(
    os.environ.get("SURELOC_SHARED_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")
)


def simulate(
    density_per_px2,
    frames,
    seed,
    sigma=(1.0, 1.0),
    photons=(500, 1000),
    background=10.0,
    read_variance_e2=5.0,
    side=64,
    em_gain=1.0,
):
    """Give frames in electrons and their read variance map."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(density_per_px2 * (side + 6) ** 2, frames)
    frame = np.repeat(np.arange(frames), count)
    x, y = rng.uniform(-3.5, side + 2.5, (2, len(frame)))
    expected = render_frames(
        torch.from_numpy(x),
        torch.from_numpy(y),
        torch.from_numpy(rng.uniform(*photons, len(frame))),
        torch.from_numpy(frame),
        GaussianPSF(*sigma),
        (frames, side, side),
    ) + torch.as_tensor(background, dtype=torch.float64)
    variance = torch.as_tensor(read_variance_e2, dtype=torch.float64).expand(side, side)
    generator = torch.Generator().manual_seed(seed)
    return sample_electrons(expected, variance, generator, em_gain).numpy(), variance.numpy()


# --- PSF ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [(1.0, 1.0), (1.35, 1.2)])
def test_psf_width_is_right_at_moderate_density(sigma):
    hot = np.random.default_rng(0).exponential(5.0, (64, 64)) + 1.0
    electrons, variance = simulate(0.0071, 40, 1, sigma, read_variance_e2=hot)
    estimate = estimate_psf(electrons, variance)
    # 0.71 / um^2 at 100 nm: within 2 % (the promise) and within 4 stated standard errors.
    for found, error, true in (
        (estimate.sigma_x_px, estimate.error_x_px, sigma[0]),
        (estimate.sigma_y_px, estimate.error_y_px, sigma[1]),
        (estimate.sigma_px, estimate.error_px, np.sqrt(sigma[0] * sigma[1])),
    ):
        assert found == pytest.approx(true, rel=0.02)
        assert abs(found - true) < 4 * error
        assert error < 0.02 * true
    assert estimate.spots > 200
    assert f"{estimate.sigma_px:.3f}" in estimate.sentence


def test_psf_width_is_right_in_a_crowd():
    electrons, variance = simulate(0.0356, 30, 2, (1.1, 1.1))
    estimate = estimate_psf(electrons, variance)
    # 3.56 / um^2: unresolved pairs may widen it, by less than 3 %.
    assert estimate.sigma_px == pytest.approx(1.1, rel=0.03)
    assert abs(estimate.sigma_px - 1.1) < 4 * estimate.error_px


def test_stated_error_of_the_psf_width_is_its_scatter():
    z = []
    for seed in range(12):
        electrons, variance = simulate(0.004, 12, 100 + seed, (1.2, 1.2), (200, 600))
        estimate = estimate_psf(electrons, variance)
        z.append((estimate.sigma_x_px - 1.2) / estimate.error_x_px)
        z.append((estimate.sigma_y_px - 1.2) / estimate.error_y_px)
    # 24 values: their rms scatters by 15 %; the error includes an allowance for overlap.
    assert 0.4 < np.sqrt(np.mean(np.square(z))) < 1.5


def test_blinking_pairs_do_not_pull_the_width_up():
    electrons, variance = simulate(0.003, 30, 3)
    rng = np.random.default_rng(3)
    # A quarter as many pairs, 1.5 px apart and seen as one wide spot each.
    x, y = rng.uniform(5, 58, (2, 100))
    frame = torch.from_numpy(rng.integers(0, 30, 100))
    for side in (-0.75, 0.75):
        electrons = (
            electrons
            + sample_electrons(
                render_frames(
                    torch.from_numpy(x + side),
                    torch.from_numpy(y),
                    torch.full((100,), 600.0, dtype=torch.float64),
                    frame,
                    GaussianPSF.round(1.0),
                    (30, 64, 64),
                ),
                torch.zeros((), dtype=torch.float64),
                torch.Generator().manual_seed(4),
            ).numpy()
        )
    estimate = estimate_psf(electrons, variance)
    # Seen as one spot each, such pairs look 25 % wider along x.
    assert estimate.sigma_x_px == pytest.approx(1.0, rel=0.02)


def test_electron_multiplication_does_not_change_the_width():
    electrons, variance = simulate(
        0.004, 40, 5, (1.2, 1.2), (1500, 3000), read_variance_e2=0.01, em_gain=300.0
    )
    estimate = estimate_psf(electrons, variance, excess_noise=2.0)
    assert estimate.sigma_px == pytest.approx(1.2, rel=0.02)
    assert abs(estimate.sigma_px - 1.2) < 4 * estimate.error_px


def test_too_few_spots_are_an_error_with_its_next_step():
    electrons, variance = simulate(0.0, 5, 6)
    with pytest.raises(InputError, match="--sigma-px"):
        estimate_psf(electrons, variance)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "camera", "sigma", "tolerance"),
    [
        # Widths from the data's README; tolerances are its precision, and that of four spots.
        ("scmos_storm_real", None, 1.14, 0.05),
        ("dstorm_real", Camera(440.0, 5.0, 200.0), 1.1, 0.12),
        ("dense_random_sim", Camera(100.0, 2.06, 0.0, em_gain=300.0), 1.085, 0.035),
        ("known_answer_sim", Camera(100.0, 1.0, 0.0), 1.0, 0.01),
    ],
)
def test_psf_width_of_third_party_movies(name, camera, sigma, tolerance):
    folder = SHARED / name
    if not folder.exists():
        pytest.skip(f"the third-party movie in {folder} is absent")
    if camera is None:
        camera = read_camera(folder / "camera_calibration.npz")
    with open_movie(folder / ("test.tif" if name == "known_answer_sim" else "stack.tif")) as movie:
        adu = movie.read(0, min(5, movie.frames))
    variance = camera.read_variance_e2(adu.shape[1:])
    estimate = estimate_psf(camera.electrons(adu), variance, camera.excess_noise)
    assert estimate.sigma_px == pytest.approx(sigma, abs=tolerance)
