"""The drift's course in time: Gaussian algebra against brute force, and bands that hold."""

import numpy as np
import pytest

from sureloc.analysis import drift_path as module
from sureloc.analysis.drift_path import Averages, drift_path


def measured(path, segments, sd_nm, rng, correlation=0.0):
    """Averages of a path (frames, 2) over equal stretches, with Gaussian errors."""
    frames = len(path)
    average = np.arange(frames) * segments // frames
    value = np.stack([path[average == k].mean(axis=0) for k in range(segments)])
    unit = np.array([[1.0, correlation], [correlation, 1.0]])
    covariance = np.tile(sd_nm**2 * unit, (segments, 1, 1))
    value = value + rng.multivariate_normal([0, 0], covariance[0], segments)
    # What a constant is worth nobody can measure.
    return Averages(
        value + np.array([300, -80]), covariance, np.arange(frames), average, np.ones(frames)
    )


def walk(frames, walk_nm, velocity, rng):
    path = np.cumsum(rng.normal(0, 1, (frames, 2)), axis=0) * walk_nm
    path = path + np.arange(frames)[:, None] * np.asarray(velocity)
    return path - path[0]


AT = np.array([60, 250, 444, 599])


@pytest.mark.parametrize(("walk_nm", "velocity"), [(0.5, (0.02, -0.01)), (3.0, (0.0, 0.1))])
@pytest.mark.parametrize("mean_reference", [False, True])
def test_the_band_of_a_walk_holds_it(walk_nm, velocity, mean_reference, rng):
    inside, trials = [], 30
    for _ in range(trials):
        truth = walk(600, walk_nm, velocity, rng)
        reference = np.ones(600) if mean_reference else None
        path = drift_path(measured(truth, 12, 2.0, rng, 0.5), 0, 599, reference)
        mean, covariance = path.at(AT)
        error = mean - (truth[AT] - (truth.mean(axis=0) if mean_reference else truth[0]))
        z = error / np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        inside.append((np.abs(z) < 0.9945).mean())
    # Frames and axes of one trial go together: the spread between trials is the tolerance.
    assert np.mean(inside) == pytest.approx(0.68, abs=3.5 * np.std(inside) / np.sqrt(trials) + 0.02)


@pytest.mark.parametrize("velocity", [(0.0, 0.0), (0.05, -0.02)])
def test_a_straight_drift_is_within_its_band_which_is_narrow(velocity, rng):
    squared, sd = [], []
    for _ in range(20):
        truth = walk(600, 0.0, velocity, rng)
        path = drift_path(measured(truth, 20, 2.0, rng), 0, 599)
        mean, covariance = path.at(AT)
        variance = np.diagonal(covariance, axis1=1, axis2=2)
        squared.append(((mean - truth[AT]) ** 2 / variance).mean())
        sd.append(np.sqrt(variance.mean()))
    assert np.mean(squared) < 1.0
    assert np.mean(sd) < 2.0  # of averages that are known to 2 nm each


def exact(path_averages, strengths, frames):
    """Condition a path on its averages with a vague prior of its line, by plain matrices."""
    (walk_q,), (bend_q,) = strengths
    t = np.arange(frames, dtype=float)
    low = np.minimum(t[:, None], t)
    kernel = walk_q * low + bend_q * (low**3 / 3 + low**2 * np.abs(t[:, None] - t) / 2)
    kernel = kernel + 1e8 + 1e4 * np.outer(t, t) / frames**2 * 1e3
    averaging = np.zeros((len(path_averages.value_nm), frames))
    averaging[path_averages.average, path_averages.frame] = 1.0
    averaging /= averaging.sum(axis=1, keepdims=True)
    noise = np.diag(path_averages.covariance_nm2[:, 0, 0])
    gain = kernel @ averaging.T @ np.linalg.inv(averaging @ kernel @ averaging.T + noise)
    mean = gain @ path_averages.value_nm[:, 0]
    covariance = kernel - gain @ averaging @ kernel
    relative = np.eye(frames)
    relative[:, 0] -= 1.0
    return relative @ mean, np.diag(relative @ covariance @ relative.T)


@pytest.mark.parametrize(("walk_q", "bend_q"), [(0.3, 0.0), (0.02, 1e-4)])
def test_mean_and_variance_are_those_of_the_whole_matrix(walk_q, bend_q, rng, monkeypatch):
    monkeypatch.setattr(module, "_strengths", lambda *_: [(np.full(2, walk_q), np.full(2, bend_q))])
    averages = measured(walk(120, 0.5, (0.1, 0.0), rng), 8, 2.0, rng)
    path = drift_path(averages, 0, 119)
    mean, covariance = path.at(np.arange(120))
    expected_mean, expected_variance = exact(averages, ((walk_q,), (bend_q,)), 120)
    np.testing.assert_allclose(mean[:, 0], expected_mean, atol=2e-2)
    np.testing.assert_allclose(covariance[:, 0, 0], expected_variance, atol=2e-2, rtol=2e-2)


def test_errors_that_go_together_stay_together(rng):
    averages = measured(walk(200, 0.0, (0, 0), rng), 10, 2.0, rng, correlation=0.9)
    covariance = drift_path(averages, 0, 199).at(np.array([150]))[1][0]
    assert covariance[0, 1] > 0.5 * np.sqrt(covariance[0, 0] * covariance[1, 1])


def test_between_nodes_a_walk_may_stray(rng, monkeypatch):
    averages = measured(walk(400, 2.0, (0, 0), rng), 12, 1.0, rng)
    whole = drift_path(averages, 0, 399)
    monkeypatch.setattr(module, "MOST_NODES", 60)
    coarse = drift_path(averages, 0, 399)
    at = np.arange(20, 380)
    fine_sd = np.sqrt(whole.at(at)[1][:, 0, 0])
    coarse_sd = np.sqrt(coarse.at(at)[1][:, 0, 0])
    # Covariances are interpolated between nodes 6.8 frames apart: rough, right on average.
    np.testing.assert_allclose(coarse_sd, fine_sd, rtol=0.1)
    assert coarse_sd.mean() == pytest.approx(fine_sd.mean(), rel=0.03)
    samples = np.stack([coarse.sample(np.random.default_rng(k))[:, 0] for k in range(300)])
    np.testing.assert_allclose(samples.std(axis=0)[at].mean(), coarse_sd.mean(), rtol=0.1)


def test_two_averages_and_two_frames_are_enough():
    averages = Averages(
        np.array([[0.0, 0.0], [3.0, -1.0]]),
        np.tile(np.eye(2), (2, 1, 1)),
        np.array([7, 8]),
        np.array([0, 1]),
        np.ones(2),
    )
    mean, covariance = drift_path(averages, 7, 8).at(np.array([7, 8]))
    np.testing.assert_allclose(mean, [[0, 0], [3, -1]], atol=1e-6)
    assert covariance[1, 0, 0] > 1.9  # at least that of a difference of two averages
