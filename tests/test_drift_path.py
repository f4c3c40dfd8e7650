"""The drift's course in time: exact Gaussian algebra, and bands that hold the truth."""

import numpy as np
import pytest

from sureloc.analysis.drift_path import Averages, drift_path


def measured(path, segments, sd_nm, rng, correlation=0.0):
    """Averages of a path (frames, 2) over equal stretches, with Gaussian errors."""
    frames = len(path)
    average = np.arange(frames) * segments // frames
    value = np.stack([path[average == k].mean(axis=0) for k in range(segments)])
    covariance = np.tile(sd_nm**2 * np.array([[1, correlation], [correlation, 1]]), (segments, 1, 1))
    value = value + rng.multivariate_normal([0, 0], covariance[0], segments)
    # What a constant is worth nobody can measure.
    return Averages(value + [300, -80], covariance, np.arange(frames), average, np.ones(frames))


def walk(frames, walk_nm, velocity, rng):
    path = np.cumsum(rng.normal(0, walk_nm, (frames, 2)), axis=0) if walk_nm else 0.0
    path = path + np.arange(frames)[:, None] * np.asarray(velocity)
    return path - path[0]


@pytest.mark.parametrize(
    ("walk_nm", "velocity"),
    [(0.0, (0.0, 0.0)), (0.0, (0.05, -0.02)), (0.3, (0.02, -0.01)), (2.0, (0.0, 0.1))],
)
@pytest.mark.parametrize("mean_reference", [False, True])
def test_the_band_holds_the_truth(walk_nm, velocity, mean_reference, rng):
    inside, errors, trials = [], [], 40
    for _ in range(trials):
        truth = walk(1500, walk_nm, velocity, rng)
        reference = np.ones(1500) if mean_reference else None
        path = drift_path(measured(truth, 12, 2.0, rng, 0.5), 0, 1499, reference)
        at = np.array([60, 333, 700, 1111, 1499])
        mean, covariance = path.at(at)
        zero = truth.mean(axis=0) if mean_reference else truth[0]
        error = mean - (truth[at] - zero)
        z = error / np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        inside.append((np.abs(z) < 0.9945).mean())
        errors.append((z**2).mean())
    # Frames and axes of one trial go together: the spread between trials is the tolerance.
    tolerance = 4 * np.std(inside) / np.sqrt(trials) + 0.01
    assert np.mean(inside) == pytest.approx(0.68, abs=tolerance)
    assert np.mean(errors) == pytest.approx(1.0, abs=4 * np.std(errors) / np.sqrt(trials) + 0.05)
