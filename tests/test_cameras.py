"""Camera files: every format gives the same camera, and nothing in a file is executed."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from sureloc.camera import BY_TYPE, Camera
from sureloc.errors import CameraError
from sureloc.io.cameras import read_camera, write_camera, write_picasso_camera

SHARED = Path(
    os.environ.get("SURELOC_SHARED_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")
)
RNG = np.random.default_rng(2)
OFFSET = RNG.normal(100, 2, (12, 16)).astype(np.float32)
GAIN = RNG.normal(2.1, 0.1, (12, 16)).astype(np.float32)
VARIANCE = RNG.exponential(6, (12, 16)).astype(np.float32)


def _assert_same(camera, quantum_efficiency=1.0, variance=VARIANCE):
    np.testing.assert_array_equal(camera.offset_adu, OFFSET)
    np.testing.assert_array_equal(camera.gain_adu_per_e, GAIN)
    np.testing.assert_array_equal(camera.variance_adu2, variance)
    assert camera.shape == (12, 16)
    assert camera.quantum_efficiency == quantum_efficiency


def _write_picasso(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        file.attrs["metadata"] = json.dumps([{"Camera": "x", "Frames": 1000}])


def test_every_format_gives_the_same_camera(tmp_path):
    np.savez(tmp_path / "c.npz", offset_adu=OFFSET, gain_adu_per_e=GAIN, variance_adu2=VARIANCE)
    _assert_same(read_camera(tmp_path / "c.npz"))
    picasso = tmp_path / "a_scmos_calib.hdf5"
    _write_picasso(picasso, offset=OFFSET, variance=VARIANCE, gain=GAIN)
    # A dark movie's variance has that of rounding in it, as a camera's has not.
    assert VARIANCE.min() < 1 / 12
    _assert_same(read_camera(picasso), variance=np.maximum(VARIANCE.astype(float) - 1 / 12, 0))
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "offset.npy", OFFSET)
    tifffile.imwrite(tmp_path / "gain.tif", GAIN)
    (tmp_path / "c.yaml").write_text(
        "offset_adu: maps/offset.npy\ngain_adu_per_e: gain.tif\n"
        "variance_adu2: a_scmos_calib.hdf5#variance\nquantum_efficiency: 0.8\n"
    )
    _assert_same(read_camera(tmp_path / "c.yaml"), 0.8)
    text = (tmp_path / "c.yaml").read_text()
    (tmp_path / "d.yml").write_text(
        text.replace("a_scmos_calib.hdf5#variance", "c.npz#variance_adu2")
    )
    _assert_same(read_camera(tmp_path / "d.yml"), 0.8)


@pytest.mark.parametrize("saturation", [4095, None, BY_TYPE])
def test_writing_and_reading_are_inverse(tmp_path, saturation):
    scalar = Camera(99.5, 2.25, 3.0, quantum_efficiency=0.82, saturation_adu=saturation)
    maps = Camera(OFFSET, GAIN, 4.0, em_gain=300.0, saturation_adu=saturation)
    for camera, name in ((scalar, "s.yaml"), (scalar, "s.npz"), (maps, "m.npz")):
        write_camera(camera, tmp_path / name)
        back = read_camera(tmp_path / name)
        for field in Camera.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(back, field), getattr(camera, field))
    with pytest.raises(CameraError, match=r"\.npz"):
        write_camera(maps, tmp_path / "m.yaml")
    with pytest.raises(CameraError, match=r"\.npz or \.yaml"):
        write_camera(scalar, tmp_path / "m.txt")


def test_writing_for_picasso_and_reading_are_inverse(tmp_path):
    camera = Camera(OFFSET, GAIN, np.where(VARIANCE < 1, 0.0, VARIANCE))
    write_picasso_camera(camera, (12, 16), tmp_path / "c.hdf5", {})
    back = read_camera(tmp_path / "c.hdf5")
    for field in ("offset_adu", "gain_adu_per_e", "variance_adu2"):
        np.testing.assert_allclose(
            getattr(back, field), getattr(camera, field), rtol=1e-6, atol=1e-8
        )
    assert back.variance_adu2.min() >= 0


def test_a_saturation_that_nobody_states_is_that_of_the_type():
    camera = Camera()
    for kind, top in ((np.uint8, 255), (np.uint16, 65535), (np.uint32, 2**32 - 1)):
        assert camera.saturation_in(kind) == top
    assert camera.saturation_in(np.float32) is None
    assert Camera(saturation_adu=4095).saturation_in(np.uint32) == 4095
    assert Camera(saturation_adu=None).saturation_in(np.uint16) is None


GOOD = "offset_adu: 100\ngain_adu_per_e: 2.0\nvariance_adu2: 4\n"


def test_whole_numbers_will_do(tmp_path):
    (tmp_path / "c.yaml").write_text(GOOD)
    assert read_camera(tmp_path / "c.yaml") == Camera(100.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (GOOD + "ofset: 3\n", r"unknown ofset \(did you mean offset_adu\?\); it must hold"),
        (GOOD.replace("gain_adu_per_e", "gain"), r"gain \(did you mean gain_adu_per_e\?\)"),
        ("offset_adu: 100\n", "lacks gain_adu_per_e, variance_adu2; it must hold"),
        (GOOD.replace("2.0", "0"), "gain_adu_per_e is 0"),
        (GOOD.replace("2.0", "-2.0"), "gain_adu_per_e is -2"),
        (GOOD.replace("2.0", ".nan"), "finite"),
        (GOOD.replace("100", "true"), "offset_adu is True, a number or the path of a map"),
        (GOOD.replace("100", "absent.npy"), "does not exist"),
        (GOOD.replace("100", "camera.yaml"), r"maps are \.npy"),
        (GOOD + "saturation_adu: 12.5\n", "saturation_adu"),
        (GOOD + "quantum_efficiency: 1.5\n", "quantum_efficiency"),
        ("- 3\n", "list"),
        ("", "is empty: a file of 0 bytes. Write offset_adu"),
        ("# nothing yet\n", "is empty; it must hold offset_adu, gain_adu_per_e, variance_adu2"),
        (GOOD.replace("2.0", "2,2"), r"gain_adu_per_e is '2,2' \(.* with a point: 2\.2\)"),
        (GOOD + "quantum_efficiency: 0,82\n", r"'0,82' \(decimals .*: 0\.82\), a number is needed"),
        (GOOD + "quantum_efficiency: 82\n", r"lie in \(0, 1\]\. Did you mean 0\.82\?"),
        ("a: [", "no YAML"),
        ("offset_adu: !!python/object/apply:os.getcwd []\n", "no YAML"),
    ],
)
def test_impossible_yaml_is_refused(tmp_path, text, match):
    (tmp_path / "camera.yaml").write_text(text)
    with pytest.raises(CameraError, match=match):
        read_camera(tmp_path / "camera.yaml")


def test_impossible_files_are_refused(tmp_path):
    with pytest.raises(CameraError, match="no camera file"):
        read_camera(tmp_path / "absent.npz")
    (tmp_path / "c.mat").write_bytes(b"x")
    with pytest.raises(CameraError, match=r"'\.mat'"):
        read_camera(tmp_path / "c.mat")
    for name in ("c.npz", "c.hdf5"):
        (tmp_path / name).write_bytes(b"no archive")
        with pytest.raises(CameraError, match="cannot be read"):
            read_camera(tmp_path / name)
    np.savez(tmp_path / "c.npz", offset_adu=OFFSET, gain=GAIN, variance_adu2=VARIANCE)
    with pytest.raises(CameraError, match="lacks gain_adu_per_e and holds the unknown gain"):
        read_camera(tmp_path / "c.npz")
    np.savez(tmp_path / "c.npz", offset_adu=OFFSET, gain_adu_per_e=GAIN, variance_adu2=VARIANCE.T)
    with pytest.raises(CameraError, match="has shape"):
        read_camera(tmp_path / "c.npz")
    _write_picasso(tmp_path / "c.hdf5", offset=OFFSET, variance=VARIANCE)
    with pytest.raises(CameraError, match="holds no gain"):
        read_camera(tmp_path / "c.hdf5")
    _write_picasso(tmp_path / "c.hdf5", other=OFFSET)
    with pytest.raises(CameraError, match="holds other"):
        read_camera(tmp_path / "c.hdf5")
    _write_picasso(tmp_path / "c.hdf5", offset=OFFSET, variance=VARIANCE)
    (tmp_path / "c.yaml").write_text(GOOD.replace("100", "c.hdf5"))
    with pytest.raises(CameraError, match=r"c\.hdf5#NAME"):
        read_camera(tmp_path / "c.yaml")


class _Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_pickles_are_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bomb = np.array([_Bomb()], dtype=object)
    np.savez("c.npz", offset_adu=bomb, gain_adu_per_e=GAIN, variance_adu2=VARIANCE)
    np.save("map.npy", bomb)
    Path("c.yaml").write_text(GOOD.replace("100", "map.npy"))
    for name in ("c.npz", "c.yaml"):
        with pytest.raises(CameraError, match="cannot be read"):
            read_camera(name)
    assert not Path("exploded").exists()


@pytest.mark.shared
def test_the_calibration_of_a_real_scmos():
    path = SHARED / "scmos_storm_real" / "camera_calibration.npz"
    if not path.exists():
        pytest.skip(f"the third-party calibration {path} is absent")
    camera = read_camera(path)
    assert camera.shape == (256, 256)
    # The README of the data states both medians.
    assert np.median(camera.gain_adu_per_e) == pytest.approx(2.11, abs=0.005)
    assert np.median(camera.variance_adu2) == pytest.approx(5.7, abs=0.05)
