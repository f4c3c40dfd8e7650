"""Camera and PSF estimated from the movie itself: the truth lies where the stated errors say."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from sureloc.camera import ROUNDING_VARIANCE_ADU2, Camera
from sureloc.config.recipes import load_recipe
from sureloc.errors import CameraError, InputError
from sureloc.io.cameras import read_camera
from sureloc.io.movies import open_movie
from sureloc.localize import camera_estimate
from sureloc.localize.camera_estimate import check_camera, estimate_camera
from sureloc.localize.noise_levels import NoiseLevels, noise_levels
from sureloc.localize.psf_estimate import estimate_psf
from sureloc.physics.image import render_frames
from sureloc.physics.noise import sample_electrons
from sureloc.physics.psf import GaussianPSF
from sureloc.simulate.cameras import make_camera
from sureloc.simulate.movie import simulate_movie

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


def test_a_wide_psf_of_bright_spots_is_found():
    # Looked at with a usual width, each spot is taken for a clump, and none is alone.
    electrons, variance = simulate(0.003, 20, 14, (2.2, 2.2), photons=(3000, 6000))
    estimate = estimate_psf(electrons, variance)
    assert abs(estimate.sigma_px - 2.2) < 4 * estimate.error_px
    assert estimate.sigma_px == pytest.approx(2.2, rel=0.02)


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


# --- camera -------------------------------------------------------------------------------------

OFFSET, GAIN = 100.0, 2.2


def as_adu(electrons):
    return np.clip(np.rint(electrons * GAIN + OFFSET), 0, 65535).astype(np.uint16)


@pytest.mark.parametrize(
    ("density", "frames", "options"),
    [
        (0.0018, 50, {}),
        (0.0071, 5, {"sigma": (1.3, 1.3)}),
        (0.0071, 30, {"photons": (1000, 5000), "sigma": (0.85, 0.85)}),
        (0.0356, 20, {}),
        (0.0071, 30, {"background": 2.0, "read_variance_e2": 1.0}),
        (0.0071, 30, {"background": 50.0, "photons": (3000, 4000), "read_variance_e2": 0.0}),
    ],
)
def test_camera_lies_within_its_stated_errors(density, frames, options, monkeypatch):
    # What no simulation shows comes on top of the errors that have to hold here.
    monkeypatch.setattr(camera_estimate, "_MODEL_ERROR", 0.04)
    electrons, variance = simulate(density, frames, 7, **options)
    estimate = estimate_camera(as_adu(electrons), np.random.default_rng(0))
    camera = estimate.camera
    # Three standard errors each, and errors small enough to be of use.
    assert abs(camera.gain_adu_per_e - GAIN) < 3 * estimate.gain_error
    # Five frames hardly tell the misfit of spots from the gain.
    assert estimate.gain_error < (0.2 if frames == 5 else 0.15) * GAIN
    assert abs(camera.offset_adu - OFFSET) < 3 * estimate.offset_error_adu
    dark = OFFSET - variance[0, 0] * GAIN
    assert abs(estimate.dark_level_adu - dark) < 3 * estimate.dark_level_error_adu
    assert abs(estimate.read_noise_e - np.sqrt(variance[0, 0])) < 3 * estimate.read_noise_error_e
    # What the likelihood needs, e + v, is the same for the estimated and its own dark level.
    e = camera.electrons(200.0)
    v = camera.read_variance_e2((1, 1))[0, 0]
    assert e + v == pytest.approx(
        (200.0 - estimate.dark_level_adu) / camera.gain_adu_per_e, abs=0.1
    )
    assert "read noise" in estimate.sentence


def test_stated_errors_of_the_camera_are_its_scatter():
    z = []
    for seed in range(8):
        electrons, variance = simulate(0.0071, 8, 200 + seed, (1.2, 1.2))
        estimate = estimate_camera(as_adu(electrons), np.random.default_rng(seed))
        z.append((estimate.camera.gain_adu_per_e - GAIN) / estimate.gain_error)
        dark = OFFSET - variance[0, 0] * GAIN
        z.append((estimate.dark_level_adu - dark) / estimate.dark_level_error_adu)
    # 16 values, correlated in pairs: their rms scatters by 25 %.
    assert 0.4 < np.sqrt(np.mean(np.square(z))) < 1.6


def test_bright_neighbours_do_not_make_the_gain_too_large():
    """Spots 80 nm apart, of which some shine together, are fitted as one: that is not noise."""
    settings = ("frame.width=28", "frame.height=28", "frame.margin_px=0", "scene.rulers=10")
    recipe = load_recipe("nanoruler", (*settings, "kinetics.off_frames=30"))
    camera = make_camera(recipe.camera, recipe.frame)
    true = float(np.median(camera.gain_adu_per_e))
    ratios, errors = [], []
    for seed in range(8):
        movie = simulate_movie(recipe, 60, seed, camera=camera, chunk_frames=60)
        estimate = estimate_camera(next(movie).adu[-40:], np.random.default_rng(seed))
        ratios.append(float(estimate.camera.gain_adu_per_e) / true)
        errors.append(estimate.relative_gain_error)
    off = (np.array(ratios) - 1) / (np.array(errors) * ratios)
    assert abs(np.mean(ratios) - 1) < 0.07, ratios
    assert np.mean(off**2) < chi2.isf(1e-3, 8) / 8, off


def test_hot_pixels_do_not_spoil_the_camera():
    rng = np.random.default_rng(8)
    hot = np.where(rng.random((64, 64)) < 0.01, 1500.0, 5.0)
    electrons, _ = simulate(0.0071, 20, 8, read_variance_e2=hot)
    estimate = estimate_camera(as_adu(electrons), np.random.default_rng(0))
    assert abs(estimate.camera.gain_adu_per_e - GAIN) < 3 * estimate.gain_error
    assert abs(estimate.dark_level_adu - (OFFSET - 5 * GAIN)) < 3 * estimate.dark_level_error_adu


def test_electron_multiplication_doubles_the_gain_unless_told():
    electrons, _ = simulate(0.0071, 20, 9, background=20.0, read_variance_e2=0.01, em_gain=300.0)
    adu = as_adu(electrons)
    told = estimate_camera(adu, np.random.default_rng(0), em_gain=300.0)
    untold = estimate_camera(adu, np.random.default_rng(0))
    assert abs(told.camera.gain_adu_per_e - GAIN) < 3 * told.gain_error
    assert untold.camera.gain_adu_per_e == pytest.approx(
        told.camera.gain_adu_per_e * told.camera.excess_noise
    )
    assert told.camera.em_gain == 300.0


def test_noise_that_neighbours_share_is_not_missed():
    electrons, _ = simulate(0.003, 20, 12)
    white = estimate_camera(as_adu(electrons), np.random.default_rng(0))
    assert white.correlated_excess == 1.0
    assert "Neighbouring" not in white.sentence
    # A readout that leaves part of every pixel's charge to the next one along the row.
    adu = as_adu(electrons).astype(float)
    smeared = np.rint(OFFSET + 0.8 * (adu - OFFSET) + 0.2 * np.roll(adu - OFFSET, 1, axis=2))
    estimate = estimate_camera(smeared, np.random.default_rng(0))
    assert estimate.correlated_excess > 1.2
    assert "Neighbouring" in estimate.sentence
    # A pixel's variance is 0.8^2 + 0.2^2 of what it was at the same mean.
    assert estimate.camera.gain_adu_per_e == pytest.approx(0.68 * GAIN, rel=0.15)


def test_saturated_pixels_are_left_out():
    electrons, _ = simulate(0.0071, 20, 10, photons=(2000, 6000))
    adu = np.minimum(as_adu(electrons), 700)
    assert (adu == 700).mean() > 0.002
    estimate = estimate_camera(adu, np.random.default_rng(0), saturation_adu=700)
    assert abs(estimate.camera.gain_adu_per_e - GAIN) < 3 * estimate.gain_error
    assert estimate.camera.saturation_adu == 700


def test_the_bootstrap_follows_its_generator():
    electrons, _ = simulate(0.0071, 5, 11)
    one, same, other = (
        estimate_camera(as_adu(electrons), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert one == same
    assert one.camera == other.camera
    assert one.gain_error != other.gain_error


def test_frames_without_contrast_or_noise_are_refused():
    electrons, _ = simulate(0.0, 5, 12)
    with pytest.raises(CameraError, match="too little contrast"):
        estimate_camera(as_adu(electrons), np.random.default_rng(0))
    with pytest.raises(CameraError, match="no noise"):
        estimate_camera(np.full((5, 32, 32), 100, np.uint16), np.random.default_rng(0))
    with pytest.raises(CameraError, match="shape"):
        estimate_camera(np.zeros((5, 6, 32), np.uint16), np.random.default_rng(0))


@pytest.mark.parametrize("density", [0.0018, 0.0356])
def test_a_wrong_offset_shows_in_the_noise(density):
    hot = np.where(np.random.default_rng(1).random((64, 64)) < 0.02, 900.0, 5.0)
    electrons, variance = simulate(density, 20, 13, read_variance_e2=hot)
    camera = Camera(0.0, 1.0, variance - ROUNDING_VARIANCE_ADU2)
    for shift in (-3.0, 0.0, 4.0):
        found = check_camera(camera, electrons + shift, 0).shift
        assert abs(found.shift_e - shift) < 3.5 * found.error_e
        assert found.error_e < 0.4
    assert "electrons above" in found.sentence


# --- A given camera against the movie's noise ---------------------------------------------------


def test_stated_errors_of_the_noise_are_its_scatter():
    z = []
    for seed in range(4):
        electrons, _ = simulate(0.0071, 20, 300 + seed, (1.2, 1.2))
        noise = check_camera(Camera(OFFSET, GAIN, 5.0 * GAIN**2), as_adu(electrons), seed).noise
        assert noise.agrees.all()
        assert noise.level_e[-1] > 4 * noise.level_e[0]
        z.extend((noise.variance_e2 - noise.expected_e2) / noise.error_e2)
    assert len(z) >= 24
    # Their rms scatters by 15 %; that neighbours share pixels is taken for more than it is.
    assert 0.4 < np.sqrt(np.mean(np.square(z))) < 1.5


def test_a_psf_of_another_shape_is_not_taken_for_noise():
    rng = np.random.default_rng(17)
    frame = np.repeat(np.arange(20), 20)
    x, y = rng.uniform(0, 63, (2, len(frame)))
    place = [torch.from_numpy(values) for values in (x, y)]
    core, halo = (
        render_frames(
            *place,
            torch.full((len(frame),), photons, dtype=torch.float64),
            torch.from_numpy(frame),
            GaussianPSF(sigma, sigma),
            (20, 64, 64),
        )
        for photons, sigma in ((2000.0, 1.1), (1000.0, 2.2))
    )
    expected = core + halo + 10.0
    electrons = sample_electrons(
        expected, torch.full((64, 64), 5.0, dtype=torch.float64), torch.Generator().manual_seed(17)
    ).numpy()
    camera = Camera(OFFSET, GAIN, 5.0 * GAIN**2)
    checked = check_camera(camera, as_adu(electrons), 0)
    assert checked.noise.agrees.all()
    # What one Gaussian leaves of such spots would be seen in the squares themselves.
    assert "agrees with it at" in checked.sentence


def test_noise_is_said_to_agree_only_where_it_does():
    # Under hardly any background a gain that is a third off hardly shows as an offset.
    electrons, _ = simulate(
        0.0071, 20, 18, (1.2, 1.2), photons=(2000, 4000), background=1.0, read_variance_e2=1.0
    )
    wrong = Camera(OFFSET, 1.35 * GAIN, GAIN**2)
    checked = check_camera(wrong, as_adu(electrons), 0)
    assert not checked.contradicted
    agrees = checked.noise.agrees
    assert not agrees[-3:].any()
    assert "times the camera's" in checked.sentence
    ratio = checked.noise.variance_e2 / checked.noise.expected_e2
    # Light is 1.35 times what the camera makes of it, read noise of 1 electron squared as it says.
    light = checked.noise.level_e
    law = (1.35 * light + 1.0) / 1.35**2 / (light + 1.0 / 1.35**2)
    assert ratio[~agrees] == pytest.approx(law[~agrees], rel=0.1)


@pytest.mark.parametrize(
    ("variance", "said"),
    [
        ([1.0, 2.0, 3.0], "agrees with it at 1 to 300 electrons a pixel"),
        (
            [1.0, 2.0, 6.0],
            "agrees with it at 1 to 2 electrons a pixel; at 300 its variance is 2.00 times "
            "the camera's",
        ),
        (
            [1.0, 1.0, 3.0],
            "agrees with it at 1 and 300 electrons a pixel; at 2 its variance is 0.50 times "
            "the camera's",
        ),
        ([2.0, 4.0, 6.0], "does not agree with it; at 1 to 300 its variance is 2.00 times the cam"),
    ],
)
def test_the_levels_at_which_noise_agrees_are_named(variance, said):
    expected = np.array([1.0, 2.0, 3.0])
    noise = NoiseLevels(np.array([1.0, 2.0, 300.0]), np.array(variance), 0.01 * expected, expected)
    assert said in noise.clause("it")


def test_one_cosmic_ray_is_no_noise():
    rng = np.random.default_rng(19)
    fitted = np.full((4, 64, 64), 20.0)
    left_over = rng.normal(0, np.sqrt(21.0), fitted.shape)
    left_over[2, 30, 30] = 1e5
    assert noise_levels(left_over, fitted, np.ones((64, 64))).agrees.all()


def test_an_offset_that_the_user_trusts_is_kept_and_the_contradiction_said():
    electrons, _ = simulate(0.0071, 20, 16, (1.2, 1.2))
    camera, adu = Camera(OFFSET - 6.0 * GAIN, GAIN, 5.0 * GAIN**2), as_adu(electrons)
    moved, kept = (check_camera(camera, adu, 0, trusted=trusted) for trusted in (False, True))
    assert moved.shift == kept.shift
    assert abs(moved.shift.shift_e - 6.0) < 3.5 * moved.shift.error_e
    assert moved.corrected(camera).offset_adu == pytest.approx(
        camera.offset_adu + moved.shift.shift_e * GAIN
    )
    assert kept.corrected(camera) is camera
    for one in (moved, kept):
        assert "electrons above what the camera file's offset says" in one.sentence
        assert len(one.warnings) == 1
    assert "The offset was left as it is (--trust-camera)" in kept.sentence
    assert "corrected (--trust-camera keeps the file's)" in moved.sentence
    assert "(corrected; --trust-camera keeps the file's)" in moved.warnings[0]
    assert "(--trust-camera)" in kept.warnings[0]
    # With the offset as it is, the light seems brighter than its noise.
    assert moved.noise.agrees.all()
    assert not kept.noise.agrees[0]
    right = check_camera(Camera(OFFSET, GAIN, 5.0 * GAIN**2), adu, 0, trusted=True)
    assert "trust" not in right.sentence
    assert right.warnings == []


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "gain", "dark"),
    [
        # EMCCD of 2.06 ADU per photon, whose excess noise 2 nobody told: gain 4.12, baseline 100.
        ("dense_random_sim/stack.tif", 4.12, 100.0),
        ("known_answer_sim/test.tif", 1.0, 100.0),
        ("known_answer_sim/test_300x200.tif", 1.0, 100.0),
        ("known_answer_sim/test_low_snr.tif", 1.0, 100.0),
    ],
)
def test_cameras_of_third_party_simulations(name, gain, dark):
    if not (SHARED / name).exists():
        pytest.skip(f"the third-party movie {SHARED / name} is absent")
    with open_movie(SHARED / name) as movie:
        part = movie.read(0, min(6, movie.frames))[:, :160, :160]
    estimate = estimate_camera(part, np.random.default_rng(0))
    assert abs(estimate.camera.gain_adu_per_e - gain) < 3 * estimate.gain_error
    assert abs(estimate.dark_level_adu - dark) < 3 * estimate.dark_level_error_adu
