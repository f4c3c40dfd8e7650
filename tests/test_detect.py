"""Spot detection: false alarms as promised, backgrounds that crowding does not lift, hot pixels."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sureloc.io.cameras import read_camera
from sureloc.io.movies import open_movie
from sureloc.localize.detect import detect_spots, detection_threshold, estimate_background
from sureloc.physics.image import render_frames
from sureloc.physics.noise import sample_electrons
from sureloc.physics.psf import GaussianPSF

SHARED = Path(
    os.environ.get("SURELOC_SHARED_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")
)
SIDE = 64


def simulate(
    density_per_px2, frames, seed, sigma=(1.0, 1.0), background=10.0, variance=5.0, em_gain=1.0
):
    rng = np.random.default_rng(seed)
    count = rng.poisson(density_per_px2 * (SIDE + 6) ** 2, frames)
    frame = np.repeat(np.arange(frames), count)
    # Three pixels of emitters beyond every edge, as in a real field of view.
    x, y = rng.uniform(-3.5, SIDE + 2.5, (2, len(frame)))
    photons = rng.uniform(500, 1000, len(frame))
    variance_map = np.broadcast_to(np.asarray(variance, float), (SIDE, SIDE)).copy()
    as_tensor = torch.from_numpy
    expected = render_frames(
        as_tensor(x),
        as_tensor(y),
        as_tensor(photons),
        as_tensor(frame),
        GaussianPSF(*sigma),
        (frames, SIDE, SIDE),
    ) + torch.as_tensor(background, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    electrons = sample_electrons(expected, as_tensor(variance_map), generator, em_gain)
    return electrons.numpy(), variance_map, (frame, x, y, photons)


def found_share(spots, truth, within_px=1.0, margin_px=3.0):
    """Share of the emitters well inside that have a spot nearby, and of spots with an emitter."""
    frame, x, y, _ = truth

    def inside(a, b):
        low, high = margin_px, SIDE - 1 - margin_px
        return (a > low) & (a < high) & (b > low) & (b < high)

    hits = {"emitters": [], "spots": []}
    for k in range(len(spots.background_e)):
        e, s = frame == k, spots.frame == k
        far = np.hypot(x[e][:, None] - spots.x_px[s], y[e][:, None] - spots.y_px[s])
        hits["emitters"] += list(far.min(1, initial=9)[inside(x[e], y[e])] < within_px)
        hits["spots"] += list(
            far.min(0, initial=9)[inside(spots.x_px[s], spots.y_px[s])] < within_px
        )
    return np.mean(hits["emitters"]), np.mean(hits["spots"])


def test_noise_makes_as_many_spots_as_promised():
    electrons, variance, _ = simulate(0.0, 200, seed=1)
    for promised in (0.5, 0.1):
        spots = detect_spots(electrons, variance, (1.0, 1.0), 1.0, promised)
        # 100 and 20 expected; Poisson counts stay within 4 sd. The formula ignores the skewness of
        # shot noise, which makes up to twice as many maxima at a level of 10 electrons.
        expected = 200 * promised
        assert len(spots.frame) < 2 * expected + 4 * np.sqrt(2 * expected)
        assert len(spots.frame) > expected / 2 - 4 * np.sqrt(expected)


def test_threshold_grows_with_area_and_rarity():
    small = detection_threshold((32, 32), (1.0, 1.0), 0.1)
    assert detection_threshold((64, 64), (1.0, 1.0), 0.1) > small
    assert detection_threshold((32, 32), (1.0, 1.0), 0.01) > small
    assert detection_threshold((32, 32), (2.0, 1.0), 0.1) < small
    assert 2.5 < small < 5


@pytest.mark.parametrize(
    ("density", "recall", "precision"),
    # Per px^2; the shares are what a detector that cannot split close pairs reaches (measured
    # .99/.98, .98/.97, .95/.96, .88/.95), less four binomial standard deviations.
    [(0.0018, 0.95, 0.88), (0.0071, 0.95, 0.92), (0.0178, 0.90, 0.92), (0.0356, 0.82, 0.90)],
)
def test_crowding_neither_lifts_the_background_nor_hides_emitters(density, recall, precision):
    electrons, variance, truth = simulate(density, 12, seed=2)
    spots = detect_spots(electrons, variance, (1.0, 1.0))
    found, right = found_share(spots, truth)
    assert found > recall
    assert right > precision
    # At 3.56 / um^2 the emitters' mean level is 27 electrons, 2.7 times the background.
    assert spots.background_e.mean() == pytest.approx(10.0, abs=0.25)


def test_fluxes_and_positions_of_lone_spots_are_right():
    electrons, variance, (frame, x, y, photons) = simulate(0.0006, 60, seed=3, sigma=(1.0, 1.4))
    spots = detect_spots(electrons, variance, (1.0, 1.4))
    ratio, dx, dy = [], [], []
    for k, (px, py) in enumerate(zip(x, y, strict=True)):
        others = (frame == frame[k]) & (np.hypot(x - px, y - py) < 9)
        if others.sum() > 1 or not (4 < px < SIDE - 5 and 4 < py < SIDE - 5):
            continue
        near = (spots.frame == frame[k]) & (np.hypot(spots.x_px - px, spots.y_px - py) < 1)
        assert near.sum() == 1
        ratio.append(spots.photons[near][0] / photons[k])
        dx.append(spots.x_px[near][0] - px)
        dy.append(spots.y_px[near][0] - py)
    assert len(ratio) > 60
    # One flux has a relative sd of about 0.06 and one position 0.07 px.
    assert np.mean(ratio) == pytest.approx(1, abs=4 * 0.06 / np.sqrt(len(ratio)))
    assert np.mean(dx) == pytest.approx(0, abs=4 * 0.07 / np.sqrt(len(dx)))
    assert np.mean(dy) == pytest.approx(0, abs=4 * 0.07 / np.sqrt(len(dy)))
    assert np.std(dx) < 0.08
    assert np.std(dy) < 0.12


def test_a_background_that_varies_is_followed():
    columns = np.arange(SIDE)
    slope = 6 + 14 * columns / SIDE + 0 * columns[:, None]
    electrons, variance, _ = simulate(0.0071, 12, seed=4, background=slope)
    background = estimate_background(electrons, variance, (1.0, 1.0)).mean(axis=0)
    # 12 frames of 25 nodes with an sd of about 0.4 electrons each: 0.12 after averaging, 4 sd.
    assert np.abs(background - slope).max() < 0.8
    assert np.abs(background.mean(axis=0) - slope[0]).max() < 0.5


def test_hot_pixels_are_no_spots():
    variance = np.full((SIDE, SIDE), 3.0)
    hot = np.random.default_rng(5).choice(SIDE * SIDE, 80, replace=False)
    variance.flat[hot] = 900.0
    electrons, _, _ = simulate(0.0, 60, seed=5, variance=variance)
    spots = detect_spots(electrons, variance, (1.2, 1.2))
    # 0.1 false alarms a frame: 6 expected, below 6 + 4 sd.
    assert len(spots.frame) < 16
    blind = detect_spots(electrons, np.full_like(variance, 3.0), (1.2, 1.2))
    assert len(blind.frame) > 300


def test_electron_multiplication_raises_the_threshold():
    electrons, variance, _ = simulate(0.0, 100, seed=6, em_gain=300.0, background=40.0)
    knowing = len(detect_spots(electrons, variance, (1.2, 1.2), 2.0).frame)
    assert knowing < 40  # 10 expected; the Gamma's skewness doubles them
    assert len(detect_spots(electrons, variance, (1.2, 1.2), 1.0).frame) > 4 * knowing


def test_frames_come_out_of_any_chunk_bit_for_bit_as_alone():
    # Sparse and crowded frames, which take more passes than the others in their chunk.
    sparse, variance, _ = simulate(0.001, 4, 3)
    crowded, _, _ = simulate(0.04, 3, 4)
    frames = np.concatenate([sparse[:2], crowded, sparse[2:], np.zeros((1, SIDE, SIDE))])
    together = detect_spots(frames, variance, (1.0, 1.0))
    assert len(together.frame) > 100
    for k in range(len(frames)):
        alone = detect_spots(frames[k : k + 1], variance, (1.0, 1.0))
        mine = together.frame == k
        for name in ("x_px", "y_px", "photons", "significance"):
            np.testing.assert_array_equal(getattr(together, name)[mine], getattr(alone, name))
        np.testing.assert_array_equal(together.background_e[k], alone.background_e[0])


def test_an_empty_chunk_and_an_empty_frame_give_no_spots():
    zeros = detect_spots(np.zeros((2, 16, 16)), np.ones((16, 16)), (1.0, 1.0))
    assert len(zeros.frame) == 0
    np.testing.assert_allclose(zeros.background_e, 0.0, atol=1e-6)
    assert detect_spots(np.zeros((0, 16, 16)), np.ones((16, 16)), (1.0, 1.0)).frame.size == 0


@pytest.mark.shared
def test_a_real_scmos_movie_has_about_as_many_spots_as_its_makers_counted():
    folder = SHARED / "scmos_storm_real"
    if not folder.exists():
        pytest.skip(f"the third-party movie in {folder} is absent")
    camera = read_camera(folder / "camera_calibration.npz")
    with open_movie(folder / "stack.tif") as movie:
        electrons = camera.electrons(movie.read(0, 10))
    spots = detect_spots(electrons, camera.read_variance_e2((256, 256)), (1.14, 1.14))
    per_frame = np.bincount(spots.frame, minlength=10)
    # The makers' detector, which cannot split pairs either and is less sensitive, saw 70-96.
    assert per_frame.min() > 65
    assert per_frame.max() < 130
