"""Calibrating a camera: from simulated dark and flat movies come the maps that made them."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
import tifffile
import torch
from scipy import stats
from typer.testing import CliRunner

from sureloc.calibrate.moments import Moments, movie_moments
from sureloc.calibrate.transfer import Multiplication, calibrate_camera
from sureloc.camera import Camera
from sureloc.cli import app as cli
from sureloc.errors import CameraError, InputError
from sureloc.io.cameras import read_camera, write_camera_with_maps
from sureloc.simulate.movie import read_out

SIDE = 40
SATURATION = 4095


class Stack:
    """An array as a movie."""

    def __init__(self, adu):
        self.adu, self.shape = adu, adu.shape

    def read(self, first, last):
        return self.adu[first:last]


def true_camera(seed=0, em_gain=1.0, side=SIDE):
    rng = np.random.default_rng(seed)
    shape = (side, side)
    variance = 6.0 * np.exp(0.4 * rng.normal(size=shape))
    hot = rng.random(shape) < 0.01
    variance[hot] *= 50
    gain = 2.2 * (1 + 0.03 * rng.normal(size=shape))
    offset = 100 + 2 * rng.normal(size=shape)
    return Camera(offset, gain, variance, em_gain=em_gain), hot


def uneven(side=SIDE):
    """Light that falls to a third in the corners, with grains of 10 % as dust makes them."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return np.exp(-0.55 * (x**2 + y**2)) * (
        1 + 0.1 * np.random.default_rng(5).normal(size=(side, side))
    )


def record(camera, level_e, frames, seed, flicker=0.0):
    lamp = 1 + flicker * np.random.default_rng(seed).normal(size=(frames, 1, 1))
    expected = torch.from_numpy(level_e * uneven(camera.shape[0]) * lamp)
    return Stack(read_out(expected, camera, torch.Generator().manual_seed(seed)))


def moments(camera, level_e, frames, seed, name=None, flicker=0.0):
    movie = record(camera, level_e, frames, seed, flicker)
    return movie_moments(movie, name or f"flat of {level_e}")


def recorded(camera, flicker=0.0, seed=0):
    flats = [
        moments(camera, level, 400, 10 * seed + k, flicker=flicker)
        for k, level in enumerate((40.0, 100.0, 250.0), 1)
    ]
    return moments(camera, 0, 600, 10 * seed, "dark"), flats


@pytest.fixture(scope="module")
def usual():
    camera, hot = true_camera()
    return camera, hot, calibrate_camera(*recorded(camera))


def z_of(found, true, error, where):
    return ((np.asarray(found) - np.asarray(true)) / error)[where]


# --- Moments ------------------------------------------------------------------------------------


def test_running_moments_do_not_depend_on_chunks_and_are_those_of_scipy(rng):
    values = 1e4 + rng.exponential(3.0, (60, 4, 3))  # a small variance under a large mean
    for cuts in ([60], [1, 59], [7, 7, 7, 39], [20, 0, 40]):
        running = Moments((4, 3))
        for part in np.split(values, np.cumsum(cuts)[:-1]):
            running.add(part)
        np.testing.assert_allclose(running.mean, values.mean(0), rtol=1e-13)
        np.testing.assert_allclose(running.variance, values.var(0, ddof=1), rtol=1e-9)
        np.testing.assert_allclose(running.excess_kurtosis, stats.kurtosis(values), rtol=1e-7)
    assert Moments((2,)).variance.tolist() == [0.0, 0.0]


def test_a_movie_is_read_in_pieces(monkeypatch):
    camera, _ = true_camera()
    movie = record(camera, 50.0, 90, 1)
    whole = movie_moments(movie, "flat")
    asked = []
    monkeypatch.setattr("sureloc.calibrate.moments.PIXELS_AT_ONCE", 3 * SIDE * SIDE)
    monkeypatch.setattr("sureloc.calibrate.moments.LEAST_AT_ONCE", 7)
    monkeypatch.setattr(
        movie, "read", lambda a, b: asked.append(b - a) or movie.adu[a:b], raising=False
    )
    seen = []
    pieces = movie_moments(movie, "flat", progress=seen.append)
    assert max(asked) == 7
    assert sum(seen) == 90
    for field in ("mean_adu", "variance_adu2", "excess_kurtosis", "common_variance_adu2"):
        np.testing.assert_allclose(getattr(pieces, field), getattr(whole, field), rtol=1e-8)


def test_too_short_a_movie_is_refused():
    with pytest.raises(InputError, match="has 9 frame"):
        movie_moments(Stack(np.zeros((9, 8, 8), np.uint16)), "short")


# --- Photon transfer ----------------------------------------------------------------------------


def test_the_gain_is_unbiased_although_the_field_is_uneven(usual):
    camera, _, found = usual
    true = camera.gain_adu_per_e.mean()
    assert abs(found.mean_gain - true) < 3 * found.mean_gain_error
    assert found.mean_gain_error < 0.002 * true
    for flat in found.flats:
        assert abs(flat.gain_adu_per_e - true) < 3.5 * flat.error
        assert flat.left_out == ""
    assert found.gain_spread / found.mean_gain == pytest.approx(0.03, rel=0.15)


def test_two_thirds_of_the_pixels_lie_within_their_standard_errors(usual):
    camera, hot, found = usual
    good = ~hot
    # 1600 pixels: the share scatters by 0.012, the rms by 0.018; 3 sd, and the third moment's part.
    for value, true, error in (
        (found.camera.offset_adu, camera.offset_adu, found.offset_error_adu),
        (found.camera.variance_adu2, camera.variance_adu2, found.variance_error_adu2),
        (found.single_gain, camera.gain_adu_per_e, found.single_gain_error),
        (found.camera.gain_adu_per_e, camera.gain_adu_per_e, found.gain_error),
    ):
        z = z_of(value, true, error, good)
        assert np.mean(np.abs(z) < 1) == pytest.approx(0.683, abs=0.04)
        assert np.sqrt(np.mean(z**2)) == pytest.approx(1.0, abs=0.07)


def test_moving_gains_towards_the_mean_brings_them_nearer_to_the_truth(usual):
    camera, hot, found = usual
    own, moved = (
        np.std((value - camera.gain_adu_per_e)[~hot])
        for value in (found.single_gain, found.camera.gain_adu_per_e)
    )
    # 1200 frames measure a pixel to 4.1 %, pixels differ by 3 %: together 2.4 %.
    assert moved < 0.65 * own
    assert 0.25 < found.own_share < 0.45
    assert any("moved towards the mean" in note for note in found.notes)


def test_hot_pixels_are_found_and_no_others(usual):
    camera, hot, found = usual
    assert (found.hot & hot).sum() == hot.sum() > 10
    assert (found.hot & ~hot).sum() == 0
    assert camera.variance_adu2[hot].min() > found.hot_threshold_adu2
    assert not found.dead.any()


def test_the_variance_follows_the_line(usual):
    _, _, found = usual
    signal, variance, error, _ = found.curve.T
    # 15 bins of 320 pixels each.
    assert np.sqrt(np.mean(((variance - found.mean_gain * signal) / error) ** 2)) < 1.6
    assert signal.max() > 8 * signal.min()


def test_a_flickering_lamp_does_not_raise_the_gain():
    camera, _ = true_camera(3)
    found = calibrate_camera(*recorded(camera, flicker=0.04, seed=3))
    # At 250 electrons 4 % are 40 % of the shot noise: not taken away, the gain would be 20 % up.
    assert abs(found.mean_gain - camera.gain_adu_per_e.mean()) < 3 * found.mean_gain_error
    assert found.mean_gain_error < 0.02 * found.mean_gain
    assert found.flats[2].lamp_rms == pytest.approx(0.04, rel=0.12)
    assert any("lamp" in note for note in found.notes)


def test_electron_multiplication_is_told_or_follows_from_the_preamplifier():
    camera, hot = true_camera(4, em_gain=500.0)
    movies = recorded(camera, seed=4)
    told = calibrate_camera(*movies, Multiplication(500.0))
    true = camera.gain_adu_per_e.mean()
    # The simulation's excess noise is 2, that of the formula 2 - 1/500.
    assert abs(told.mean_gain - true) < 3 * told.mean_gain_error + 0.001 * true
    assert told.camera.em_gain == 500.0
    z = z_of(told.single_gain, camera.gain_adu_per_e, told.single_gain_error, ~hot)
    assert np.mean(np.abs(z) < 1) == pytest.approx(0.683, abs=0.04)
    derived = calibrate_camera(*movies, Multiplication(1.0, true / 500.0))
    assert derived.camera.em_gain == pytest.approx(500.0, rel=0.01)
    assert derived.mean_gain == pytest.approx(told.mean_gain, rel=1e-3)
    untold = calibrate_camera(*movies)
    assert untold.mean_gain == pytest.approx(2 * told.mean_gain, rel=0.01)


def test_multiplication_from_the_slope_is_the_inverse_of_the_law():
    for gain in (1.0, 2.0, 30.0, 1000.0):
        slope = (2 - 1 / gain) * gain * 0.05
        assert Multiplication(1.0, 0.05).of_slope(slope) == pytest.approx(gain)
    for wrong in ((0.5, None), (2.0, 0.1), (1.0, -1.0)):
        with pytest.raises(CameraError):
            Multiplication(*wrong)


def test_saturated_and_dark_flats_are_left_out_with_words():
    camera, _ = true_camera(6)
    low = dataclasses.replace(camera, saturation_adu=1023)
    dark, fine = moments(low, 0, 100, 60, "dark"), moments(low, 80.0, 100, 61, "fine")
    full, dim = moments(low, 900.0, 100, 62, "full"), moments(low, 0.2, 100, 63, "dim")
    found = calibrate_camera(dark, [fine, full, dim])
    assert "saturated" in found.flats[1].left_out
    assert "too dark" in found.flats[2].left_out
    assert abs(found.mean_gain - camera.gain_adu_per_e.mean()) < 3.5 * found.mean_gain_error
    assert found.camera.saturation_adu == 1023
    assert sum("was left out" in note for note in found.notes) == 2
    assert any("One flat" in note for note in found.notes)
    with pytest.raises(CameraError, match=r"No flat can be used: full is saturated .*; dim is too"):
        calibrate_camera(dark, [full, dim])
    # Some saturated pixels only: the brightest are left out, the flat is not.
    some = moments(low, 440.0, 100, 64, "some")
    found = calibrate_camera(dark, [fine, some])
    assert 0.02 < found.flats[1].saturated < 0.5
    assert abs(found.mean_gain - camera.gain_adu_per_e.mean()) < 3.5 * found.mean_gain_error


def test_exchanged_movies_are_noticed():
    camera, _ = true_camera(7)
    dark, flat = moments(camera, 0, 50, 70, "dark.tif"), moments(camera, 90.0, 50, 71, "flat.tif")
    with pytest.raises(InputError, match=r"dark\.tif is darker .* than flat\.tif, .* exchange"):
        calibrate_camera(flat, [dark])
    with pytest.raises(InputError, match="No flat"):
        calibrate_camera(dark, [])
    with pytest.raises(CameraError, match="too dark"):
        calibrate_camera(dark, [moments(camera, 0, 50, 72, "also dark")])


def test_movies_of_other_sizes_and_without_noise_are_refused():
    camera, _ = true_camera(8)
    dark, flat = moments(camera, 0, 20, 80, "dark"), moments(camera, 90.0, 20, 81, "flat")
    small = movie_moments(Stack(record(camera, 90.0, 20, 82).adu[:, :8]), "small")
    with pytest.raises(InputError, match=r"small has frames of \(8, 40\)"):
        calibrate_camera(dark, [flat, small])
    still = movie_moments(Stack(np.full((20, SIDE, SIDE), 100, np.uint16)), "still")
    with pytest.raises(CameraError, match="still holds no noise"):
        calibrate_camera(still, [flat])
    averaged = Stack(np.full((20, SIDE, SIDE), 400, np.uint16))
    with pytest.raises(CameraError, match="holds no noise"):
        calibrate_camera(dark, [movie_moments(averaged, "averaged")])


def test_dead_pixels_count_for_nothing():
    camera, _ = true_camera(9)
    movies = [record(camera, level, 100, 90 + k) for k, level in enumerate((0, 60.0, 200.0))]
    for movie in movies:
        movie.adu[:, 3, 4] = movies[0].adu[:100, 5, 5]  # sees no light
        movie.adu[:, 7, 8] = 65535  # stuck
    found = calibrate_camera(*(lambda m: (m[0], m[1:]))([movie_moments(m, "m") for m in movies]))
    assert found.dead[3, 4]
    assert (found.hot | found.dead)[7, 8]
    assert found.camera.variance_adu2[3, 4] > 1e8
    assert found.camera.gain_adu_per_e[3, 4] == pytest.approx(found.mean_gain)
    assert any("do not respond" in note for note in found.notes)


def test_a_camera_that_is_not_linear_is_said_so():
    camera, _ = true_camera(10)
    dark, low, high = (
        record(camera, level, 300, 100 + k) for k, level in enumerate((0, 40.0, 400.0))
    )
    above = high.adu.astype(float) - 100.0
    bent = Stack(np.rint(100.0 + above - 1e-4 * above**2).astype(np.uint16))
    found = calibrate_camera(
        movie_moments(dark, "dark"), [movie_moments(low, "low"), movie_moments(bent, "high")]
    )
    assert any("not linear" in note for note in found.notes)


# --- Files and command --------------------------------------------------------------------------


def test_the_command_leaves_a_camera_that_every_reader_takes(tmp_path):
    camera, _ = true_camera(11)
    names = ("dark.tif", "low.tif", "high.tif")
    for k, (name, level) in enumerate(zip(names, (0, 50.0, 200.0), strict=True)):
        tifffile.imwrite(tmp_path / name, record(camera, level, 60, 110 + k).adu)
    out = tmp_path / "camera"
    run = ["calibrate-camera", *(str(tmp_path / name) for name in names), "--out", str(out), "-q"]
    done = CliRunner().invoke(cli.app, [*run, "--quantum-efficiency", "0.8"])
    assert done.exit_code == 0, done.output
    assert "ADU per electron" in done.output
    read = read_camera(out / "camera.yaml")
    assert read.shape == (SIDE, SIDE)
    assert read.quantum_efficiency == 0.8
    error = np.sqrt(camera.variance_adu2 / 60)
    assert np.mean(np.abs(read.offset_adu - camera.offset_adu) < error) > 0.6
    picasso = read_camera(out / "camera_scmos_calib.hdf5")
    for name in ("offset_adu", "gain_adu_per_e", "variance_adu2"):
        np.testing.assert_allclose(getattr(picasso, name), getattr(read, name), rtol=1e-6)
    with h5py.File(out / "camera_scmos_calib.hdf5") as file:
        assert {file[name].dtype for name in ("offset", "variance", "gain")} == {np.dtype("f4")}
        assert json.loads(file.attrs["metadata"])["Height"] == SIDE
    record_of = json.loads((out / "calibration.json").read_text())
    assert record_of["gain_adu_per_e"] == pytest.approx(2.2, rel=0.02)
    assert record_of["dark"] == {"name": "dark.tif", "frames": 60}
    hot = (out / "bad_pixels.csv").read_text().splitlines()
    assert len(hot) == 1 + record_of["hot_pixels"] + record_of["dead_pixels"]
    for picture in ("photon_transfer.png", "maps.png", "histograms.png"):
        assert (out / picture).stat().st_size > 10_000
    exchanged = [run[0], run[2], run[1], "--out", str(tmp_path / "other"), "-q"]
    refused = CliRunner().invoke(cli.app, exchanged)
    assert isinstance(refused.exception, InputError)
    assert not (tmp_path / "other").exists()


def test_a_camera_of_numbers_needs_no_maps(tmp_path):
    camera = Camera(100.0, 2.0, np.full((8, 9), 3.0), saturation_adu=None)
    assert len(write_camera_with_maps(camera, tmp_path / "mixed.yaml")) == 2
    back = read_camera(tmp_path / "mixed.yaml")
    assert back.offset_adu == 100.0
    np.testing.assert_array_equal(back.variance_adu2, camera.variance_adu2)
    assert write_camera_with_maps(Camera(1.0), tmp_path / "plain.yaml") == (
        tmp_path / "plain.yaml",
    )
