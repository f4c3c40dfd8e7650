"""When simulated molecules are on, and what they send in a frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from sureloc.simulate.brightness import draw_brightness
from sureloc.simulate.kinetics import OnTimes, advance, first_state, photons_by_frame
from sureloc.simulate.recipe import (
    BlinkingKinetics,
    ExponentialPhotons,
    FixedPhotons,
    LognormalPhotons,
    UniformPhotons,
)

LEAST_P = 1e-3


def unit_brightness(count, _rng):
    return np.ones(count)


def history(kinetics, molecules, block, blocks, rng, brightness=unit_brightness):
    """Give whole on-states (molecule, begin, end), the parts of successive blocks joined."""
    state = first_state(molecules, kinetics, brightness, rng)
    parts = []
    for index in range(blocks):
        state, times = advance(state, block, kinetics, brightness, rng)
        shift = index * block
        parts.append(np.stack([times.molecule, times.begin + shift, times.end + shift], axis=1))
    rows = np.concatenate(parts)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    continues = np.zeros(len(rows), dtype=bool)
    continues[1:] = (np.diff(rows[:, 0]) == 0) & (rows[1:, 1] - rows[:-1, 2] == 0)
    starts = np.flatnonzero(~continues)
    stops = np.append(starts[1:], len(rows)) - 1
    return np.stack([rows[starts, 0], rows[starts, 1], rows[stops, 2]], axis=1), state


def whole_dwells(on_states, end):
    """Give the lengths of on- and off-states that began early enough to end before the movie."""
    molecule, begin, stop = on_states.T
    # States that begin late would be seen only if short; take those that begin in the first half.
    early = (begin > 0) & (begin < end / 2)
    same = np.diff(molecule) == 0
    off_begin, off = stop[:-1][same], (begin[1:] - stop[:-1])[same]
    return (stop - begin)[early], off[off_begin < end / 2]


# Blocks of one frame carry a state across every frame; of 500 hardly ever.
@pytest.mark.parametrize(("block", "blocks"), [(1, 500), (500, 1)])
def test_dwell_times_are_exponential_with_their_means(block, blocks, rng):
    kinetics = BlinkingKinetics(kind="blinking", on_frames=2.5, off_frames=12.0)
    states, _ = history(kinetics, 300, block, blocks, rng)
    on, off = whole_dwells(states, 500)
    assert on.size > 4000
    # About 5000 dwells: standard error of an exponential's mean 1.4 %.
    assert on.mean() == pytest.approx(2.5, rel=0.06)
    assert off.mean() == pytest.approx(12.0, rel=0.06)
    assert kstest(on / 2.5, "expon").pvalue > LEAST_P
    assert kstest(off / 12.0, "expon").pvalue > LEAST_P


@pytest.mark.parametrize(("start", "share"), [("stationary", 0.2), ("on", 1.0), ("off", 0.0)])
def test_molecules_start_as_told(start, share, rng):
    kinetics = BlinkingKinetics(kind="blinking", on_frames=3.0, off_frames=12.0, start=start)
    state = first_state(20_000, kinetics, unit_brightness, rng)
    assert state.on.mean() == pytest.approx(share, abs=4 * np.sqrt(0.16 / 20_000))


def test_a_stationary_start_stays_stationary(rng):
    kinetics = BlinkingKinetics(kind="blinking", on_frames=3.0, off_frames=12.0)
    state = first_state(20_000, kinetics, unit_brightness, rng)
    for _ in range(5):
        state, times = advance(state, 4, kinetics, unit_brightness, rng)
        lit = (times.end - times.begin).sum() / (4 * 20_000)
        assert lit == pytest.approx(0.2, abs=0.012)  # 4 standard errors of the share that is on
        assert state.on.mean() == pytest.approx(0.2, abs=0.012)


def test_bleaching_ends_a_molecule_after_a_geometric_number_of_on_states(rng):
    kinetics = BlinkingKinetics(
        kind="blinking", on_frames=1.0, off_frames=2.0, bleach_probability=0.25, start="on"
    )
    states, last = history(kinetics, 4000, 50, 8, rng)
    assert last.bleached.all()
    assert not last.on.any()
    number = np.bincount(states[:, 0].astype(int), minlength=4000)
    # Mean 1 / p and variance (1 - p) / p^2 of a geometric number: 4 and 12.
    assert number.mean() == pytest.approx(4.0, abs=4 * np.sqrt(12 / 4000))
    assert (number == 1).mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.1875 / 4000))


def test_every_on_state_has_one_brightness_of_its_own(rng):
    kinetics = BlinkingKinetics(kind="blinking", on_frames=6.0, off_frames=6.0)

    def brightness(count, rng):
        return rng.uniform(1, 2, count)

    state = first_state(200, kinetics, brightness, rng)
    seen = {}
    last_end, last_value = {}, {}
    for block in range(30):
        state, times = advance(state, 2, kinetics, brightness, rng)
        order = np.argsort(times.begin)
        for molecule, begin, end, value in zip(
            times.molecule[order],
            times.begin[order] + 2 * block,
            times.end[order] + 2 * block,
            times.brightness[order],
            strict=True,
        ):
            continues = last_end.get(molecule) == begin
            assert (last_value.get(molecule) == value) == continues
            last_end[molecule], last_value[molecule] = end, value
            seen[value] = molecule
    assert len(seen) > 500


def test_a_partial_frame_sends_its_part_of_the_photons():
    times = OnTimes(
        np.array([3, 3, 1]),
        np.array([0.25, 2.5, 1.0]),
        np.array([2.1, 2.75, 2.0]),
        np.array([100.0, 200.0, 40.0]),
    )
    sent = photons_by_frame(times, 4)
    assert sent.frame.tolist() == [0, 1, 1, 2]
    assert sent.molecule.tolist() == [3, 1, 3, 3]
    # Frame 2 gathers 0.1 of the first on-state and 0.25 of the second.
    np.testing.assert_allclose(sent.photons, [75.0, 40.0, 100.0, 60.0])


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.floats(0, 10),
            st.floats(0, 10),
            st.floats(0, 1e4),
        ),
        max_size=12,
    )
)
@settings(deadline=None, max_examples=60)
def test_sharing_among_frames_loses_no_photon(on_states):
    molecule, one, other, brightness = (
        (np.array(c) for c in zip(*on_states, strict=True)) if (on_states) else (np.zeros(0),) * 4
    )
    times = OnTimes(
        molecule.astype(np.int64), np.minimum(one, other), np.maximum(one, other), brightness
    )
    sent = photons_by_frame(times, 10)
    budget = ((times.end - times.begin) * brightness).sum()
    assert sent.photons.sum() == pytest.approx(budget, rel=1e-9, abs=1e-9)
    assert (np.diff(sent.frame) >= 0).all()
    key = sent.frame * 4 + sent.molecule
    assert np.unique(key).size == key.size


@pytest.mark.parametrize(
    ("photons", "mean", "sd"),
    [
        (FixedPhotons(kind="fixed", photons=700.0), 700.0, 0.0),
        (UniformPhotons(kind="uniform", low=500.0, high=1000.0), 750.0, 500 / np.sqrt(12)),
        (LognormalPhotons(kind="lognormal", mean=1000.0, sd=400.0), 1000.0, 400.0),
        (ExponentialPhotons(kind="exponential", mean=300.0), 300.0, 300.0),
    ],
)
def test_brightness_has_the_moments_that_the_recipe_states(photons, mean, sd, rng):
    drawn = draw_brightness(photons, 200_000, rng)
    assert drawn.mean() == pytest.approx(mean, rel=0.01)
    assert drawn.std() == pytest.approx(sd, rel=0.02, abs=1e-9)
    assert (drawn > 0).all()
