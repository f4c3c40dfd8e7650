"""Where molecules are: discs, fields, filaments, rings, rulers and lattices.

Points are arrays of shape (points, 2): x along columns and y along rows, nm, with the centre of
pixel (0, 0) at (0, 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sureloc.simulate.recipe import (
    DiscScene,
    FilamentScene,
    FrameRecipe,
    LatticeScene,
    NanorulerScene,
    RingScene,
    SceneRecipe,
    UniformScene,
)

Points = npt.NDArray[np.float64]
PointSource = Callable[[np.random.Generator], Points]
FILAMENT_STEP_NM = 20.0


@dataclass(frozen=True)
class Field:
    """The rectangle in which molecules live.

    Attributes:
        x_nm, y_nm: its lower and upper edges along columns and rows.
    """

    x_nm: tuple[float, float]
    y_nm: tuple[float, float]

    @classmethod
    def of(cls, frame: FrameRecipe) -> Field:
        """Give the area of the frame's pixels, outer edge to outer edge, and its margin."""
        edge = 0.5 + frame.margin_px
        return cls(
            (-edge * frame.pixel_nm, (frame.width - 1 + edge) * frame.pixel_nm),
            (-edge * frame.pixel_nm, (frame.height - 1 + edge) * frame.pixel_nm),
        )

    @property
    def area_um2(self) -> float:
        """Area, square micrometres."""
        return (self.x_nm[1] - self.x_nm[0]) * (self.y_nm[1] - self.y_nm[0]) * 1e-6

    @property
    def centre_nm(self) -> tuple[float, float]:
        """The middle, x and y."""
        return sum(self.x_nm) / 2, sum(self.y_nm) / 2

    def holds(self, points: Points) -> npt.NDArray[np.bool_]:
        """Tell which points lie inside, shape (points,)."""
        low = np.array([self.x_nm[0], self.y_nm[0]])
        high = np.array([self.x_nm[1], self.y_nm[1]])
        return np.asarray(((points >= low) & (points < high)).all(axis=1))

    def uniform(self, count: int, rng: np.random.Generator) -> Points:
        """Draw `count` points uniformly inside."""
        return np.stack([rng.uniform(*self.x_nm, count), rng.uniform(*self.y_nm, count)], axis=1)


def points_in_disc(
    count: int, centre_nm: tuple[float, float], radius_nm: float, rng: np.random.Generator
) -> Points:
    """Draw points uniformly over a disc's area (so that the squared radius is uniform)."""
    radius = radius_nm * np.sqrt(rng.uniform(size=count))
    angle = rng.uniform(0, 2 * math.pi, count)
    return np.asarray(centre_nm) + _polar(radius, angle)


def worm_like_curve(
    middle_nm: Points, length_nm: float, persistence_nm: float, rng: np.random.Generator
) -> Points:
    """Draw a worm-like curve in the plane through a given point.

    Its direction makes a Brownian motion along the contour with variance s / persistence, so that
    the cosine between directions a contour length s apart is exp(-s / (2 persistence)) on average
    (Kratky & Porod 1949, in two dimensions).

    Args:
        middle_nm: the point at half its length, shape (2,).
        length_nm: contour length, nm.
        persistence_nm: persistence length, nm.
        rng: source of randomness.

    Returns:
        Corners of the curve, at equal steps of about 20 nm, shape (corners, 2).
    """
    half = max(1, math.ceil(length_nm / (2 * FILAMENT_STEP_NM)))
    step = length_nm / (2 * half)
    bends = rng.normal(0, math.sqrt(step / persistence_nm), (2, half))
    first = rng.uniform(0, 2 * math.pi)
    angles = first + np.cumsum(bends, axis=1)
    forward = np.cumsum(_polar(step, angles[0]), axis=0)
    backward = np.cumsum(-_polar(step, angles[1]), axis=0)
    return np.concatenate([backward[::-1], np.zeros((1, 2)), forward]) + middle_nm


def points_along(curve: Points, at_nm: npt.NDArray[np.float64]) -> Points:
    """Give the points of a polygon at the given contour lengths from its start, nm."""
    lengths = np.hypot(*np.diff(curve, axis=0).T)
    contour = np.concatenate([[0.0], np.cumsum(lengths)])
    return np.stack([np.interp(at_nm, contour, curve[:, axis]) for axis in (0, 1)], axis=1)


def lattice_points(
    field: Field, spacing_nm: float, offset_nm: tuple[float, float], angle_deg: float
) -> Points:
    """Give the points of a square lattice, row after row, that fall into a field."""
    reach = np.hypot(*(np.abs(edges).max() for edges in (field.x_nm, field.y_nm)))
    reach += np.hypot(*offset_nm)
    steps = np.arange(-math.ceil(reach / spacing_nm), math.ceil(reach / spacing_nm) + 1)
    along, across = (axis.ravel() * spacing_nm for axis in np.meshgrid(steps, steps))
    angle = math.radians(angle_deg)
    x = along * math.cos(angle) - across * math.sin(angle) + offset_nm[0]
    y = along * math.sin(angle) + across * math.cos(angle) + offset_nm[1]
    points = np.stack([x, y], axis=1)
    return points[field.holds(points)]


def point_source(scene: SceneRecipe, frame: FrameRecipe, rng: np.random.Generator) -> PointSource:
    """Draw a scene's structure and give a function that draws molecules on it.

    Args:
        scene: the recipe of the structure.
        frame: the frame that it fills.
        rng: source of the structure (the filaments' courses, the rings' places).

    Returns:
        A function of a random generator that gives the molecules of one labelling, shape
        (molecules, 2), nm; all lie in the frame or its margin.
    """
    field = Field.of(frame)
    match scene:
        case DiscScene():
            radius_nm = scene.radius_px * frame.pixel_nm
            return lambda rng: points_in_disc(scene.emitters, field.centre_nm, radius_nm, rng)
        case UniformScene():
            mean = scene.density_per_um2 * field.area_um2
            return lambda rng: field.uniform(int(rng.poisson(mean)), rng)
        case FilamentScene():
            return _filament_source(scene, field, rng)
        case RingScene():
            angles = 2 * math.pi * np.arange(scene.sites) / scene.sites
            ring = _polar(scene.radius_nm, angles)
            sites = _turned_copies(ring, scene.rings, field, rng)
            return _site_source(sites, scene.labelling, scene.linker_nm, field)
        case NanorulerScene():
            places = (np.arange(scene.spots) - (scene.spots - 1) / 2) * scene.spacing_nm
            ruler = np.stack([places, np.zeros_like(places)], axis=1)
            sites = _turned_copies(ruler, scene.rulers, field, rng)
            return _site_source(sites, scene.labelling, scene.linker_nm, field)
        case LatticeScene():
            points = lattice_points(field, scene.spacing_nm, scene.offset_nm, scene.angle_deg)
            return lambda _: points


def _polar(
    radius: float | npt.NDArray[np.float64], angle: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def _filament_source(scene: FilamentScene, field: Field, rng: np.random.Generator) -> PointSource:
    length_nm = scene.length_um * 1e3
    curves = [
        worm_like_curve(middle, length_nm, scene.persistence_um * 1e3, rng)
        for middle in field.uniform(scene.filaments, rng)
    ]

    def draw(rng: np.random.Generator) -> Points:
        labels = rng.poisson(scene.labels_per_um * scene.length_um, len(curves))
        points = np.concatenate(
            [
                points_along(curve, rng.uniform(0, length_nm, count))
                for curve, count in zip(curves, labels, strict=True)
            ]
        )
        points += rng.normal(0, scene.linker_nm, points.shape)
        return points[field.holds(points)]

    return draw


def _turned_copies(shape: Points, copies: int, field: Field, rng: np.random.Generator) -> Points:
    """Place turned copies of a shape about uniform centres, shape (copies * points, 2)."""
    centres = field.uniform(copies, rng)
    angle = rng.uniform(0, 2 * math.pi, copies)
    turn = np.stack([_polar(1.0, angle), _polar(1.0, angle + math.pi / 2)], axis=1)
    return (centres[:, None, :] + shape @ turn).reshape(-1, 2)


def _site_source(sites: Points, labelling: float, linker_nm: float, field: Field) -> PointSource:
    def draw(rng: np.random.Generator) -> Points:
        points = sites[rng.uniform(size=len(sites)) < labelling]
        points = points + rng.normal(0, linker_nm, points.shape)
        return points[field.holds(points)]

    return draw
