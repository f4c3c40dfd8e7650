"""Inspecting a movie: known values lie within the stated errors; on-times."""

import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import chi2
from typer.testing import CliRunner

from sureloc.calibrate.inspection import Inspection, inspect_movie
from sureloc.calibrate.on_time import LINK_SIGMAS, FrameSpots, estimate_on_time, on_time_of_rows
from sureloc.calibrate.quantities import Quantity, Stated
from sureloc.camera import Camera
from sureloc.cli import app as cli
from sureloc.errors import InputError, WeightsError
from sureloc.io.cameras import write_camera
from sureloc.localize.detect import faintest_photons
from sureloc.localize.noise_levels import NoiseLevels
from sureloc.localize.proposals import trained_ranges
from sureloc.networks.weights import load_weights
from sureloc.report.inspection import as_record, draw_inspection, table_rows, value_text
from sureloc.simulate.kinetics import advance, first_state, photons_by_frame
from sureloc.simulate.movie import simulate_movie
from sureloc.simulate.recipe import BlinkingKinetics, Recipe

SIDE, FRAMES, ON_FRAMES = 64, 60, 4.0
WIDTH_PX = 1.2
REACH_PX = LINK_SIGMAS * WIDTH_PX
CAMERA = {"kind": "scalar", "offset_adu": 100.0, "gain_adu_per_e": 2.2, "variance_adu2": 12.0}


# --- On-time ------------------------------------------------------------------------------------


def shining(on_frames, seed, molecules=900, frames=90, side=100.0):
    """Spots of molecules that blink, with the noise and the misses of a detector."""
    rng = np.random.default_rng(seed)
    kinetics = BlinkingKinetics(
        kind="blinking", on_frames=on_frames, off_frames=80 * on_frames + 100
    )
    places = rng.uniform(0, side, (molecules, 2))

    def brightness(count, source):
        return source.lognormal(np.log(20.0), 0.3, count)

    state = first_state(molecules, kinetics, brightness, rng)
    _, times = advance(state, frames, kinetics, brightness, rng)
    emitted = photons_by_frame(times, frames)
    run = []
    for frame in range(frames):
        mine = emitted.frame == frame
        significance = emitted.photons[mine] + rng.normal(size=mine.sum())
        seen = significance > 4.5
        error = WIDTH_PX / np.maximum(significance[seen], 4.0)
        place = places[emitted.molecule[mine]][seen] + error[:, None] * rng.normal(
            size=(int(seen.sum()), 2)
        )
        run.append(FrameSpots(place[:, 0], place[:, 1], significance[seen]))
    return run


@pytest.mark.parametrize("on_frames", [1.0, 3.0, 8.0, 30.0])
def test_on_times_are_found_within_their_stated_errors(on_frames):
    z = []
    for seed in range(8):
        found = estimate_on_time([shining(on_frames, seed)], REACH_PX, np.random.default_rng(seed))
        z.append((found.frames - on_frames) / found.error)
    # 8 values: their mean scatters by 0.35 and their rms by 0.25. On-states of one frame that a
    # short darkness follows are seen as one: 1 % of them here.
    assert abs(np.mean(z)) < 1.1
    assert 0.4 < np.sqrt(np.mean(np.square(z))) < 1.7


def test_the_recordings_length_does_not_matter():
    # A run of 12 frames cuts nearly every on-state of 20 frames; counting whole ones gives 6.
    runs = [shining(20.0, 100 + k, frames=12) for k in range(12)]
    found = estimate_on_time(runs, REACH_PX, np.random.default_rng(0))
    assert abs(found.frames - 20.0) < 3 * found.error
    assert found.error < 4.0
    assert not found.fades_early


def test_two_kinds_of_molecules_are_noticed():
    short, long = shining(1.5, 1, molecules=3000), shining(40.0, 2, molecules=3000)
    both = [
        FrameSpots(*(np.concatenate([getattr(s, n) for s in pair]) for n in s_names))
        for pair in zip(short, long, strict=True)
        for s_names in [("x", "y", "significance")]
    ]
    assert estimate_on_time([both], REACH_PX, np.random.default_rng(0)).fades_early


def test_what_cannot_be_measured_is_not_stated():
    rng = np.random.default_rng(3)
    alone = [FrameSpots(*rng.uniform(0, 100, (2, 20)), np.full(20, 20.0)) for _ in range(10)]
    assert np.isnan(estimate_on_time([alone], REACH_PX, rng).frames)
    still = [FrameSpots(np.arange(9) * 10.0, np.full(9, 5.0), np.full(9, 20.0))] * 12
    found = estimate_on_time([still], REACH_PX, rng)
    assert not np.isfinite(found.error)
    assert found.at_least == found.trials / 3.0
    none = np.zeros(0)
    assert estimate_on_time([[FrameSpots(none, none, none)] * 5], REACH_PX, rng).trials == 0


def rows_like(run, rng, pixel_nm=100.0, side=100.0):
    """A table of such spots in which every second row is light that comes at any place, once."""
    parts = []
    for frame, spots in enumerate(run):
        false = FrameSpots(
            *rng.uniform(0, side, (2, spots.x.size)), rng.uniform(4.5, 9, spots.x.size)
        )
        for one in (spots, false):
            sigma = WIDTH_PX * pixel_nm / np.maximum(one.significance, 4.0)
            positions = {"x_nm": one.x * pixel_nm, "y_nm": one.y * pixel_nm}
            light = {"photons": 20.0 * one.significance, "sigma_photons": 20.0}
            parts.append(
                pd.DataFrame(
                    {"frame": frame, **positions, **light, "sigma_x_nm": sigma, "sigma_y_nm": sigma}
                )
            )
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("on_frames", [3.0, 7.0])
def test_on_times_are_found_in_a_table_half_of_whose_rows_are_no_molecules(on_frames):
    z = []
    for seed in range(6):
        table = rows_like(shining(on_frames, seed), np.random.default_rng(seed))
        found = on_time_of_rows(table, np.random.default_rng(seed))
        assert found.error < 0.2 * on_frames
        z.append((found.frames - on_frames) / found.error)
    assert abs(np.mean(z)) < 1.3  # 6 values: their mean scatters by 0.4
    assert np.sqrt(np.mean(np.square(z))) < 1.8


def test_the_on_time_of_a_table_needs_neither_light_nor_every_frame():
    rng = np.random.default_rng(1)
    whole = rows_like(shining(7.0, 1), rng)
    sure = whole[whole["photons"] / whole["sigma_photons"] > 9]
    alone = sure.drop(columns=["photons", "sigma_photons"])
    assert on_time_of_rows(alone, rng).frames == pytest.approx(7.0, rel=0.25)
    # Two stretches with an hour of darkness between them; in it, nothing is looked for.
    apart = whole.assign(frame=whole["frame"] + 10**6 * (whole["frame"] > 40))
    assert on_time_of_rows(apart, rng).frames == pytest.approx(7.0, rel=0.25)
    assert on_time_of_rows(whole.drop(columns="sigma_x_nm"), rng) is None
    assert on_time_of_rows(whole.head(0), rng) is None
    every_second = whole.assign(frame=2 * whole["frame"])
    assert on_time_of_rows(every_second, rng).trials == 0


# --- Whole movies -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    recipe = Recipe(
        frame={"height": SIDE, "width": SIDE},
        psf={"sigma_px": 1.2},
        scene={"kind": "uniform", "density_per_um2": 21.0},
        kinetics={"kind": "blinking", "on_frames": ON_FRAMES, "off_frames": 20 * ON_FRAMES},
        photons={"kind": "lognormal", "mean": 800.0, "sd": 240.0},
        background={"kind": "constant", "photons_per_px": 10.0},
        camera=CAMERA,
    )
    chunk = next(simulate_movie(recipe, FRAMES, 5, chunk_frames=FRAMES))
    path = tmp_path_factory.mktemp("movie") / "movie.ome.tif"
    plane = {"ExposureTime": [0.05] * FRAMES, "ExposureTimeUnit": ["s"] * FRAMES}
    names = {"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1, "Plane": plane}
    tifffile.imwrite(path, chunk.adu, metadata={"axes": "TYX", **names})
    truth = chunk.truth
    inside = (truth[["x_nm", "y_nm"]].to_numpy() / 100 + 0.5 < SIDE).all(1) & (
        truth[["x_nm", "y_nm"]].to_numpy() / 100 > -0.5
    ).all(1)
    rows = truth[inside]
    known = {
        "sigma_px": 1.2,
        "gain_adu_per_e": 2.2,
        "offset_adu": 100.0,
        "read_noise_e": np.sqrt(12.0) / 2.2,
        "density_per_px2": len(rows) / (FRAMES * SIDE**2),
        "photons": float(rows["photons"].mean()),
        "background_e": 10.0,
        "on_frames": ON_FRAMES,
    }
    return path, known


def test_known_values_lie_within_the_stated_errors(simulated, tmp_path, monkeypatch):
    # What no simulation shows comes on top of the errors that have to hold here.
    monkeypatch.setattr("sureloc.localize.camera_estimate._MODEL_ERROR", 0.04)
    path, known = simulated
    picture = tmp_path / "movie"
    done = CliRunner().invoke(cli.app, ["inspect", str(path), "--json", "--picture", str(picture)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    for key, true in known.items():
        quantity = found["quantities"][key]
        assert abs(quantity["value"] - true) < 3 * quantity["error"], key
    # And the errors are small enough to be of use.
    shares = {
        "sigma_px": 0.03,
        "gain_adu_per_e": 0.1,
        "offset_adu": 0.1,
        "read_noise_e": 0.6,  # under 10 electrons of background it hardly shows
        "density_per_px2": 0.2,
        "photons": 0.2,
        "background_e": 0.3,
        "on_frames": 0.3,
    }
    for key, share in shares.items():
        assert found["quantities"][key]["error"] < share * known[key], key
    assert found["quantities"]["pixel_nm"]["value"] == 100.0
    assert found["quantities"]["exposure_ms"]["value"] == 50.0
    on = found["quantities"]["on_frames"]["value"]
    assert found["quantities"]["on_ms"]["value"] == pytest.approx(50.0 * on)
    assert found["covered"] is True
    assert found["shape"] == [FRAMES, SIDE, SIDE]
    assert (tmp_path / "movie.png").stat().st_size > 30_000


def test_a_movie_that_the_weights_do_not_cover_is_named(tmp_path):
    recipe = Recipe(
        frame={"height": SIDE, "width": SIDE},
        psf={"sigma_px": 2.4},
        scene={"kind": "uniform", "density_per_um2": 0.3},
        photons={"kind": "fixed", "photons": 4000.0},
        background={"kind": "constant", "photons_per_px": 10.0},
        camera=CAMERA,
    )
    chunk = next(simulate_movie(recipe, 20, 6, chunk_frames=20))
    path = tmp_path / "wide.ome.tif"
    tifffile.imwrite(path, chunk.adu, metadata={"axes": "TYX"})
    options = ["--pixel-nm", "100"]
    as_json = CliRunner().invoke(cli.app, ["inspect", str(path), *options, "--json"])
    found = json.loads(as_json.output)
    assert found["covered"] is False
    assert found["quantities"]["sigma_px"]["covered"] is False
    assert found["quantities"]["sigma_px"]["value"] == pytest.approx(2.4, rel=0.1)
    assert found["quantities"]["background_e"]["covered"] is True
    said = CliRunner().invoke(cli.app, ["inspect", str(path), *options]).output
    assert "NOT COVERED" in said
    assert "sureloc adapt" in said


def test_a_given_camera_is_used_and_a_table_is_printed(simulated, tmp_path):
    path, _ = simulated
    write_camera(Camera(100.0, 2.2, 12.0), tmp_path / "camera.yaml")
    options = ["--camera", str(tmp_path / "camera.yaml"), "--pixel-nm", "120"]
    done = CliRunner().invoke(cli.app, ["inspect", str(path), *options])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "agrees with it at" in said
    assert "pixel size was given: 120 nm. The file says 100 nm" in said
    assert "covered" in done.output
    assert "120" in done.output
    assert "2.2" in done.output


def test_an_offset_that_is_trusted_is_kept(simulated, tmp_path):
    path, _ = simulated
    write_camera(Camera(80.0, 2.2, 12.0), tmp_path / "camera.yaml")
    options = ["--camera", str(tmp_path / "camera.yaml"), "--trust-camera", "--json"]
    done = CliRunner().invoke(cli.app, ["inspect", str(path), *options])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["quantities"]["offset_adu"]["value"] == 80.0
    off_e = 20 / 2.2
    assert found["quantities"]["background_e"]["value"] == pytest.approx(10 + off_e, abs=1)
    assert any("left as it is (--trust-camera)" in note for note in found["notes"])
    refused = CliRunner().invoke(cli.app, ["inspect", str(path), "--trust-camera"])
    assert "Give its file with --camera" in str(refused.exception)


def test_the_inverse_of_the_gain_is_said_and_not_taken_for_another_kind_of_movie(
    simulated, tmp_path
):
    path, _ = simulated
    write_camera(Camera(100.0, 1 / 2.2, 12.0), tmp_path / "camera.yaml")
    done = CliRunner().invoke(
        cli.app, ["inspect", str(path), "--camera", str(tmp_path / "camera.yaml")]
    )
    said = " ".join(done.output.split())
    assert done.exit_code == 0, said
    assert "says 0.455 (electrons per ADU would be 2.2)" in said
    assert "sureloc adapt" not in said


def test_a_part_of_the_movie_is_looked_at(simulated, tmp_path, monkeypatch):
    path, _ = simulated
    seen = {}

    class SeenError(Exception):
        pass

    def look(movie, camera, *_, **__):
        seen.update(movie=movie, camera=camera, adu=movie.read(0, 1))
        raise SeenError

    monkeypatch.setattr("sureloc.calibrate.inspection.inspect_movie", look)
    offset = np.arange(SIDE * SIDE, dtype=float).reshape(SIDE, SIDE)
    write_camera(Camera(offset, 2.2, 12.0), tmp_path / "c.npz")
    options = ["--roi", "10:30,4:20", "--frames", "5:", "--camera", str(tmp_path / "c.npz")]
    done = CliRunner().invoke(cli.app, ["inspect", str(path), *options])
    assert isinstance(done.exception, SeenError)
    assert seen["movie"].shape == (FRAMES - 5, 20, 16)
    np.testing.assert_array_equal(seen["adu"][0], tifffile.imread(path, key=5)[10:30, 4:20])
    np.testing.assert_array_equal(seen["camera"].offset_adu, offset[10:30, 4:20])
    done = CliRunner().invoke(cli.app, ["inspect", str(path), "--roi", "0:9999,0:20"])
    assert "must lie inside" in str(done.exception)


def test_a_pixel_size_in_micrometres_is_refused_as_everywhere(simulated):
    done = CliRunner().invoke(cli.app, ["inspect", str(simulated[0]), "--pixel-nm", "0.16"])
    assert isinstance(done.exception, InputError)
    assert "0.16 nm; it must lie between 1 and 10000 nm" in str(done.exception)
    assert "give 160" in str(done.exception)


# --- Stated errors over many movies -------------------------------------------------------------


OF_CAMERA = ("offset_adu", "gain_adu_per_e", "read_noise_e")
CHANCE = 1e-3  # by which a test of one quantity may fail, were the errors right and normal


def any_movie(seed, side=48, frames=80):
    """A movie whose every property is drawn, its camera, and what is true of it."""
    rng = np.random.default_rng(seed)

    def between(low, high):
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    sigma, offset = rng.uniform(1.0, 1.6), rng.uniform(90, 400)
    gain, noise, density, photons = (
        between(*limits) for limits in ((0.5, 4.0), (0.9, 2.4), (0.3, 2.0), (500, 3000))
    )
    background, on_frames = between(5, 60), between(1.5, 6)
    recipe = Recipe(
        frame={"height": side, "width": side},
        psf={"sigma_px": sigma},
        scene={"kind": "uniform", "density_per_um2": 21.0 * density},
        kinetics={"kind": "blinking", "on_frames": on_frames, "off_frames": 20 * on_frames},
        photons={"kind": "lognormal", "mean": photons, "sd": 0.3 * photons},
        background={"kind": "constant", "photons_per_px": background},
        camera={
            "kind": "scalar",
            "offset_adu": offset,
            "gain_adu_per_e": gain,
            "variance_adu2": (noise * gain) ** 2,
        },
    )
    chunk = next(simulate_movie(recipe, frames, seed, chunk_frames=frames))
    camera = Camera(offset, gain, (noise * gain) ** 2)
    read_e2 = float(camera.read_variance_e2((1, 1))[0, 0])
    # Molecules are those that can be seen, as the table says.
    faintest = faintest_photons((side, side), background, read_e2, (sigma, sigma))
    truth = chunk.truth
    place = truth[["x_nm", "y_nm"]].to_numpy() / 100 + 0.5
    inside = ((place > 0) & (place < side)).all(1)
    seen = truth["photons"][inside & (truth["photons"] >= faintest).to_numpy()]
    return (
        SimpleNamespace(shape=chunk.adu.shape, read=lambda a, b: chunk.adu[a:b]),
        camera,
        {
            "offset_adu": offset,
            "gain_adu_per_e": gain,
            "read_noise_e": np.sqrt(read_e2),
            "sigma_px": sigma,
            "density_per_px2": len(seen) / (frames * side**2),
            "photons": float(seen.mean()),
            "background_e": background,
            "on_frames": on_frames,
        },
    )


def test_true_values_scatter_by_the_stated_errors_over_many_movies(monkeypatch):
    monkeypatch.setattr("sureloc.localize.camera_estimate._MODEL_ERROR", 0.04)
    networks = load_weights("fast")
    off = {}
    for seed in range(12):
        movie, camera, known = any_movie(seed)
        given = bool(seed % 2)  # of the others the camera is estimated
        found = inspect_movie(movie, camera if given else None, Stated(), networks, seed)
        for key, true in known.items():
            quantity = found.quantities[key]
            if quantity.error and not (given and key in OF_CAMERA):
                off.setdefault(key, []).append((quantity.value - true) / quantity.error)
    assert set(off) == set(known)
    for key, z in off.items():
        number = len(z)
        assert number >= (6 if key in OF_CAMERA else 11), key
        assert np.abs(z).max() < 4, (key, z)
        assert np.mean(np.square(z)) < chi2.isf(CHANCE, number) / number, (key, z)
    # Others leave room for what simulations do not know; these hold nothing but chance.
    for key in ("sigma_px", "on_frames"):
        number = len(off[key])
        assert np.mean(np.square(off[key])) > chi2.ppf(CHANCE, number) / number, off[key]


# --- The picture --------------------------------------------------------------------------------


def drawn(monkeypatch, tmp_path, level, photons, background, pixel_nm):
    """The figure of an inspection of values that spread as far as real movies' do."""
    rng = np.random.default_rng(4)
    on_time = estimate_on_time([shining(3.0, 5)], REACH_PX, rng)
    keys = ("pixel_nm", "photons", "background_e", "on_frames", "read_noise_e")
    values = (pixel_nm, photons[0], background[0], 3.0, 1.2)
    kinds = {
        key: Quantity(key, value, value and 0.1 * value, "nm", "the file")
        for key, value in zip(keys, values, strict=True)
    }
    frame, window = rng.poisson(100.0, (64, 48)), rng.poisson(30.0, (12, 13, 13))
    inspection = Inspection(
        kinds,
        "fast",
        (5000, 64, 48),
        (40, 64, 48),
        Camera(),
        None,
        on_time,
        *(array.astype(float) for array in (frame, frame, window)),
        NoiseLevels(level, level + 2, 0.05 * level, level + 2.0),
        np.geomspace(*photons, 500),
        np.linspace(*background, 500),
        (),
    )
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, _: figures.append(self))
    draw_inspection(inspection, "movie.tif", tmp_path / "movie.png")
    FigureCanvasAgg(figures[0]).draw()
    return figures[0]


@pytest.mark.parametrize(
    ("level", "photons", "background", "pixel_nm"),
    [
        (np.geomspace(0.3, 30000.0, 9), (30.0, 90000.0), (0.001, 0.002), None),
        (np.array([95.0, 101.0, 120.0]), (900.0, 1100.0), (12000.0, 14000.0), 160.0),
        (np.array([2.0, 9.0, 40.0]), (40.0, 2000.0), (-1.0, 3.0), 0.5),
    ],
)
def test_the_picture_can_be_read(level, photons, background, pixel_nm, monkeypatch, tmp_path):
    figure = drawn(monkeypatch, tmp_path, level, photons, background, pixel_nm)
    renderer = figure.canvas.get_renderer()
    plots = [axes for axes in figure.axes if axes.axison and axes.get_xlabel()]
    assert len(plots) == (6 if pixel_nm is None else 4)
    for axes in plots:
        assert axes.get_ylabel(), axes.get_title()
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            seen = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
            boxes = [tick.label1.get_window_extent(renderer) for tick in seen]
            assert len(boxes) >= 2, (axes.get_title(), axis.axis_name)
            for one, other in pairwise(sorted(boxes, key=lambda box: (box.x0, box.y0))):
                assert not one.overlaps(other), (axes.get_title(), axis.axis_name)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert ("unknown" in texts) == (pixel_nm is None)
    assert not any("unknown nm" in text for text in texts)
    for text in (text for axes in figure.axes for text in axes.texts):
        assert text.get_window_extent(renderer).x1 <= figure.bbox.x1, text.get_text()


def test_what_is_unknown_has_no_unit():
    rows = {row[0]: row for row in table_rows(SimpleNamespace(quantities={
        "a": Quantity("pixel size", None, None, "nm", "", note="not in the file"),
        "b": Quantity("exposure", 50.0, None, "ms", "the file"),
    }))}  # fmt: skip
    assert rows["pixel size"][1:3] == ("unknown", "")
    assert rows["exposure"][1:3] == ("50", "ms")


def test_too_few_spots_are_said_and_not_guessed():
    rng = np.random.default_rng(7)
    adu = rng.poisson(20.0, (12, 48, 48)).astype(float)
    y, x = np.mgrid[:48, :48]
    for k in range(5):
        shape = np.exp(-((x - 8 - 7 * k) ** 2 + (y - 20) ** 2) / (2 * 1.3**2))
        adu[k] += rng.poisson(200.0 * shape)
    movie = SimpleNamespace(shape=adu.shape, read=lambda a, b: adu[a:b].astype(np.uint16))
    found = inspect_movie(movie, Camera(0.0, 1.0, 0.0), Stated(), load_weights("fast"))
    assert found.quantities["photons"].value is None
    assert any("too few to say" in note for note in found.notes)
    with pytest.raises(InputError, match="too few spots"):
        found.value("photons")


# --- What cannot be measured ----------------------------------------------------------------------


def inspected(adu, camera=None, **options):
    movie = SimpleNamespace(shape=adu.shape, read=lambda first, last: adu[first:last])
    return inspect_movie(movie, camera, Stated(pixel_nm=100.0), load_weights("fast"), **options)


def values(found):
    return {key: quantity.value for key, quantity in found.quantities.items()}


def half_saturated():
    adu = np.random.default_rng(0).poisson(200, (20, 48, 48)).astype(np.uint16)
    adu[:, :, :24] = 4095
    return adu


def test_numbers_from_0_to_1_are_measured_as_whole_ones_are(simulated):
    with tifffile.TiffFile(simulated[0]) as tif:
        adu = tif.asarray()
    whole, scaled = inspected(adu), inspected((adu / 65535).astype(np.float32))
    for key in ("sigma_px", "photons", "background_e", "density_per_px2", "read_noise_e"):
        # Of whole numbers 1/12 ADU^2 is rounding, of the others it is read noise.
        assert scaled.quantities[key].value == pytest.approx(whole.quantities[key].value, rel=0.02)
    gain = whole.quantities["gain_adu_per_e"].value / 65535
    assert scaled.quantities["gain_adu_per_e"].value == pytest.approx(gain, rel=0.01)
    row = {row[0]: row[1] for row in table_rows(scaled)}
    assert row["gain"].endswith("e-5")
    assert "± 0.00" not in row["gain"]
    assert f"offset {scaled.quantities['offset_adu'].value:.4g}" in scaled.notes[0]


def test_the_rest_is_reported_where_the_gain_cannot_be_measured(tmp_path):
    found = inspected(half_saturated())
    assert found.notes[0].startswith("The gain cannot be measured from these 20 frames: 55 % of")
    assert "4095 ADU" in found.notes[0]
    assert "nan" not in found.notes[0]
    known = {key for key, value in values(found).items() if value is not None}
    assert known == {"pixel_nm"}
    assert found.covered is None
    assert as_record(found)["camera"]["em_gain"] is None
    draw_inspection(found, "movie.tif", tmp_path / "movie.png")
    with pytest.raises(InputError, match="gain could not be estimated: not measurable"):
        found.value("gain_adu_per_e")
    flat = inspected(np.full((6, 24, 24), 100, np.uint16))
    assert "hold no noise" in flat.notes[0]


def test_saturated_frames_leave_the_given_camera_as_it_is():
    adu = np.full((6, 24, 24), 65535, np.uint16)
    found = inspected(adu, Camera(100.0, 2.0, 9.0))
    assert "reach 65535 ADU" in found.notes[0]
    assert values(found)["offset_adu"] == 100.0
    assert values(found)["sigma_px"] is None
    assert "saturated" in inspected(adu).notes[0]


def test_a_width_that_is_given_is_taken_where_too_few_spots_show_it(tmp_path):
    rng = np.random.default_rng(3)
    adu = rng.poisson(60.0, (12, 48, 48)).astype(np.uint16)
    camera = Camera(0.0, 1.0, 0.0)
    found = inspected(adu, camera)
    assert any("PSF width could not be measured. Only 0 lone spots" in n for n in found.notes)
    assert values(found)["sigma_px"] is None
    assert values(found)["gain_adu_per_e"] == 1.0
    assert found.covered is None
    draw_inspection(found, "movie.tif", tmp_path / "movie.png")
    given = inspected(adu, camera, sigma_px=1.3)
    width = given.quantities["sigma_px"]
    assert (width.value, width.error, width.source) == (1.3, None, "given")
    assert "The PSF width was given: 1.3 px." in given.notes
    with pytest.raises(InputError, match=r"between 0\.3 and 10"):
        inspected(adu, camera, sigma_px=20.0)


def test_what_is_not_known_is_named_and_keeps_weights_from_being_called_right():
    """Gain and width are given here, and noise tells neither brightness nor density."""
    rng = np.random.default_rng(3)
    adu = rng.poisson(60.0, (5, 48, 48)).astype(np.uint16)
    found = inspected(adu, Camera(0.0, 1.0, 0.0), sigma_px=1.3)
    names = {found.quantities[key].name for key in ("density_per_px2", "photons")}
    assert names <= set(found.unknown)
    assert found.covered is None


def test_lone_spots_that_contradict_a_given_width_are_heard(simulated):
    with tifffile.TiffFile(simulated[0]) as tif:
        adu = tif.asarray()
    found = inspected(adu, Camera(100.0, 2.2, 12.0), sigma_px=2.0)
    assert any("lone spots are 1.2" in note and "not 2 px as given" in note for note in found.notes)


def test_the_command_reports_what_it_can(tmp_path):
    path = tmp_path / "half.ome.tif"
    size = {"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1}
    tifffile.imwrite(path, half_saturated(), metadata={"axes": "TYX", **size})
    done = CliRunner().invoke(cli.app, ["inspect", str(path)])
    said = " ".join(done.output.split())
    assert done.exit_code == 0, said
    assert "pixel size │ 100" in said
    assert "The gain cannot be measured" in said
    assert "trained for such movies cannot be said: gain, " in said
    assert "background are not known. More frames tell more." in said
    # Nothing at all is known.
    tifffile.imwrite(tmp_path / "half.tif", half_saturated(), photometric="minisblack")
    done = CliRunner().invoke(cli.app, ["inspect", str(tmp_path / "half.tif")])
    assert done.exit_code == 2
    assert "The gain cannot be measured" in " ".join(done.output.split())
    # The option is that of localize.
    done = CliRunner().invoke(cli.app, ["inspect", str(path), "--sigma-px", "1.3", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["quantities"]["sigma_px"]["value"] == 1.3


def test_weights_say_what_they_cover():
    networks = load_weights("fast")
    seen = trained_ranges(networks)
    assert seen["sigma_px"] == (0.8, 1.8)
    assert seen["background_e"] == (0.0, 300.0)
    width = Quantity("width", 2.2, 0.1, "px", "", trained=seen["sigma_px"])
    assert width.covered is False
    assert Quantity("width", 2.2, 0.1, "px", "").covered is None
    silent = SimpleNamespace(card=networks.card.model_copy(update={"training": {}}))
    with pytest.raises(WeightsError, match="does not say what they were trained on"):
        trained_ranges(silent)


def test_numbers_have_the_digits_that_their_errors_leave():
    def text(value, error):
        return value_text(Quantity("", value, error, "", ""))

    assert text(99.273, 5.74) == "99.3 ± 5.7"
    assert text(0.0065735, 0.00035586) == "0.00657 ± 0.00036"
    assert text(1234.56, 40.0) == "1235 ± 40"
    assert text(160.0, None) == "160"
    assert text(1.5e-5, 1.2e-7) == "(1.500 ± 0.012)e-5"
    assert text(None, None) == "unknown"
