"""Where simulated molecules are: laws of every scene."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.stats import kstest

from sureloc.simulate.recipe import (
    DiscScene,
    FilamentScene,
    FrameRecipe,
    LatticeScene,
    NanorulerScene,
    RingScene,
    UniformScene,
)
from sureloc.simulate.scenes import Field, point_source, points_along, worm_like_curve

FRAME = FrameRecipe(height=40, width=60, pixel_nm=110.0)
# A Kolmogorov-Smirnov test of one seed: a p-value this low would be an accident of 1 in 1000.
LEAST_P = 1e-3


def draw(scene, rng, frame=FRAME, times=1):
    source = point_source(scene, frame, rng)
    return np.concatenate([source(rng) for _ in range(times)])


def test_disc_is_uniform_over_its_area_about_the_frames_centre(rng):
    frame = FrameRecipe(height=20, width=26, pixel_nm=108.0)
    points = draw(DiscScene(kind="disc", emitters=20_000, radius_px=7.0), rng, frame)
    x, y = (points / 108.0 - [12.5, 9.5]).T  # half of (columns - 1, rows - 1)
    assert kstest((x**2 + y**2) / 7.0**2, "uniform").pvalue > LEAST_P
    assert kstest(np.arctan2(y, x) / (2 * np.pi) + 0.5, "uniform").pvalue > LEAST_P


def test_disc_holds_exactly_its_emitters_every_time(rng):
    source = point_source(DiscScene(kind="disc", emitters=10), FRAME, rng)
    assert {len(source(rng)) for _ in range(20)} == {10}


def test_uniform_field_has_its_density_and_poisson_counts(rng):
    source = point_source(UniformScene(kind="uniform", density_per_um2=1.78), FRAME, rng)
    counts = np.array([len(source(rng)) for _ in range(2000)])
    mean = 1.78 * 40 * 60 * 0.11**2
    # Standard errors of a Poisson mean and, relatively, of its variance; 4 of them.
    assert abs(counts.mean() - mean) < 4 * np.sqrt(mean / 2000)
    assert abs(counts.var() / mean - 1) < 4 * np.sqrt(2 / 2000)


def test_uniform_field_fills_the_pixels_from_edge_to_edge(rng):
    points = draw(UniformScene(kind="uniform", density_per_um2=200.0), rng) / 110.0
    assert kstest((points[:, 0] + 0.5) / 60, "uniform").pvalue > LEAST_P
    assert kstest((points[:, 1] + 0.5) / 40, "uniform").pvalue > LEAST_P


def test_margin_widens_the_field_on_every_side(rng):
    wide = FRAME.model_copy(update={"margin_px": 3.0})
    points = draw(UniformScene(kind="uniform", density_per_um2=100.0), rng, wide) / 110.0
    low, high = points.min(axis=0), points.max(axis=0)
    assert (low > -3.5).all()
    assert (low < -3.3).all()
    assert (high < [62.5, 42.5]).all()
    assert (high > [62.3, 42.3]).all()


def test_curves_directions_decorrelate_over_the_persistence_length(rng):
    cosines = []
    for _ in range(400):
        curve = worm_like_curve(np.zeros(2), 20_000.0, 5_000.0, rng)
        steps = np.diff(curve, axis=0)
        angle = np.arctan2(steps[:, 1], steps[:, 0])
        # Steps of 20 nm: 250 of them are one persistence length.
        cosines.append(np.cos(angle[250:] - angle[:-250]).mean())
    # exp(-s / (2 P)) with s = P; sd of a curve's mean about 0.2, of 400 curves 0.01.
    assert np.mean(cosines) == pytest.approx(np.exp(-0.5), abs=0.04)


def test_curve_has_its_length_and_passes_through_its_middle(rng):
    curve = worm_like_curve(np.array([300.0, -50.0]), 7_010.0, 2_000.0, rng)
    assert np.hypot(*np.diff(curve, axis=0).T).sum() == pytest.approx(7_010.0)
    np.testing.assert_allclose(curve[len(curve) // 2], [300.0, -50.0])


def test_points_along_a_curve_keep_their_contour_length():
    corner = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0]])
    at = points_along(corner, np.array([0.0, 4.0, 13.0, 20.0]))
    np.testing.assert_allclose(at, [[0, 0], [4, 0], [10, 3], [10, 10]])


def test_labels_lie_along_filaments_at_their_density_and_linker_length(rng):
    # A frame so large that hardly a filament reaches its edge.
    frame = FrameRecipe(height=3000, width=3000, pixel_nm=100.0)
    scene = FilamentScene(
        kind="filaments",
        filaments=1,
        length_um=8.0,
        persistence_um=1e5,  # straight
        labels_per_um=400.0,
        linker_nm=12.0,
    )
    counts, variances = [], []
    for _ in range(100):
        points = draw(scene, rng, frame)
        counts.append(len(points))
        across = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[1]
        variances.append(across**2 / len(points))
    # Poisson counts of mean 3200 and the few filaments at the edge hardly move the medians.
    assert np.median(counts) == pytest.approx(3200, rel=0.01)
    # A persistence of 100 mm still bends 8 um by some nm^2: 10 % of the variance is allowed.
    assert np.median(variances) == pytest.approx(144.0, rel=0.1)


def test_filaments_stay_where_they_are_while_labels_change(rng):
    scene = FilamentScene(
        kind="filaments", filaments=2, labels_per_um=2000.0, linker_nm=0.0, persistence_um=5.0
    )
    source = point_source(scene, FRAME, rng)
    first, second = source(rng), source(rng)
    distance, _ = cKDTree(first).query(second)
    assert len(first) != len(second)
    assert np.median(distance) < 2.0  # labels are 0.5 nm apart on the same curve


def test_rings_have_their_radius_and_equal_angles(rng):
    whole = 0
    for _ in range(30):
        points = draw(RingScene(kind="rings", rings=1, radius_nm=53.0), rng)
        if len(points) < 8:
            continue  # it reaches beyond the frame
        whole += 1
        arm = points - points.mean(axis=0)
        np.testing.assert_allclose(np.hypot(*arm.T), 53.0)
        turns = np.diff(np.unwrap(np.arctan2(arm[:, 1], arm[:, 0])))
        np.testing.assert_allclose(turns, 2 * np.pi / 8)
    assert whole > 20


def test_rings_are_turned_at_random(rng):
    scene = RingScene(kind="rings", rings=1, sites=1, radius_nm=500.0)
    frame = FrameRecipe(height=4000, width=4000, pixel_nm=100.0)
    one = [draw(scene, np.random.default_rng(seed), frame)[0] for seed in range(400)]
    none = scene.model_copy(update={"radius_nm": 1e-9})
    centre = [draw(none, np.random.default_rng(seed), frame)[0] for seed in range(400)]
    angle = np.arctan2(*(np.array(one) - np.array(centre)).T[::-1])
    assert kstest(angle / (2 * np.pi) + 0.5, "uniform").pvalue > LEAST_P


@pytest.mark.parametrize("kind", ["rings", "nanorulers"])
def test_labelling_leaves_sites_empty(kind, rng):
    make = {
        "rings": lambda p: RingScene(kind="rings", rings=500, labelling=p),
        "nanorulers": lambda p: NanorulerScene(kind="nanorulers", rulers=500, labelling=p),
    }[kind]
    full = len(draw(make(1.0), np.random.default_rng(1)))
    some = len(draw(make(0.7), np.random.default_rng(1)))
    assert abs(some / full - 0.7) < 4 * np.sqrt(0.21 / full)


def test_rulers_are_straight_with_equal_spacing(rng):
    whole = 0
    for _ in range(30):
        points = draw(NanorulerScene(kind="nanorulers", rulers=1, spacing_nm=80.0), rng)
        if len(points) < 3:
            continue
        whole += 1
        first, second = np.diff(points, axis=0)
        np.testing.assert_allclose(first, second, atol=1e-9)
        assert np.hypot(*first) == pytest.approx(80.0)
    assert whole > 20


@pytest.mark.parametrize("angle_deg", [0.0, 17.0])
def test_lattice_has_its_constant_and_density(angle_deg, rng):
    scene = LatticeScene(
        kind="lattice", spacing_nm=150.0, offset_nm=(40.0, 70.0), angle_deg=angle_deg
    )
    points = draw(scene, rng)
    nearest, _ = cKDTree(points).query(points, k=2)
    np.testing.assert_allclose(nearest[:, 1], 150.0)
    expected = Field.of(FRAME).area_um2 / 0.15**2
    assert len(points) == pytest.approx(expected, rel=0.03)  # points near the edges
    assert np.hypot(*(points - [40.0, 70.0]).T).min() < 1e-9
    steps = points[nearest_points(points, [40.0, 70.0])] - [40.0, 70.0]
    turned = np.degrees(np.arctan2(steps[:, 1], steps[:, 0])) - angle_deg
    np.testing.assert_allclose(turned, 90 * np.round(turned / 90), atol=1e-6)


def nearest_points(points, place):
    """Give the points one lattice constant (150 nm) from a place."""
    return np.abs(np.hypot(*(points - place).T) - 150.0) < 1e-6


def test_all_structures_stay_in_the_field(rng):
    for scene in (
        FilamentScene(kind="filaments"),
        RingScene(kind="rings", rings=300, linker_nm=20.0),
        NanorulerScene(kind="nanorulers", rulers=300),
        LatticeScene(kind="lattice"),
    ):
        points = draw(scene, rng)
        assert len(points) > 10
        assert Field.of(FRAME).holds(points).all()
