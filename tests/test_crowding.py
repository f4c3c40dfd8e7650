"""Where emitters crowd: what is uneven is followed, chance and long-lived molecules are not."""

import numpy as np
import pytest

from sureloc.localize.crowding import LEAST_DENSITY, MAP_SCALE, crowding_of, persistence

SHAPE, SIGMA = (40, 50), 1.2


def uniform(rng, number):
    return rng.uniform(-0.5, (SHAPE[0] - 0.5, SHAPE[1] - 0.5), (number, 2))


def line(rng, number):
    """Spots on a horizontal line through row 20."""
    return np.column_stack([rng.normal(20, 0.3, number), rng.uniform(2, 47, number)])


def learn(frames):
    return crowding_of(SHAPE, range(len(frames)), frames, SIGMA)


def test_even_spots_give_an_even_map():
    rng = np.random.default_rng(1)
    crowding = learn([uniform(rng, 7) for _ in range(40)])
    density = crowding.around(3)
    assert density.shape == (MAP_SCALE * SHAPE[0], MAP_SCALE * SHAPE[1])
    assert density.mean() == pytest.approx(1.0, abs=0.05)
    # 280 spots on 2,000 px^2: by chance alone the smoothed map would scatter by 1.04.
    assert density.std() < 0.3


def test_a_line_of_ever_new_molecules_is_followed():
    rng = np.random.default_rng(2)
    density = learn([line(rng, 6) for _ in range(40)]).around(3)
    assert density[41, 10:90].min() > 3
    assert density[:30].max() == LEAST_DENSITY


def test_molecules_that_shine_on_are_no_crowd():
    """The same 60 places in all 11 frames: 660 spots that are as uneven as 60 are by chance."""
    rng = np.random.default_rng(3)
    places = uniform(rng, 60)
    frames = [places + rng.normal(0, 0.1, places.shape) for _ in range(11)]
    np.testing.assert_array_equal(learn(frames).around(5), 1.0)
    # As many spots at places that change are crowded: the test is not blind.
    changing = [places[rng.permutation(60)[:6]] for _ in range(110)]
    assert learn(changing).around(5).max() > 3


def test_persistence_is_the_share_seen_again():
    """Molecules that live on with probability 0.6: shares 0.6, 0.36, 0.22, 0.13, then too few."""
    rng = np.random.default_rng(4)
    size = 200.0
    alive, frames = rng.uniform(0, size, (150, 2)), []
    for _ in range(60):
        frames.append(alive + rng.normal(0, 0.05, alive.shape))
        alive = alive[rng.uniform(size=len(alive)) < 0.6]
        alive = np.concatenate([alive, rng.uniform(0, size, (150 - len(alive), 2))])
    shares = persistence(frames, SIGMA)
    # 8,000 pairs: standard error 0.006, chance coincidences taken away.
    assert shares == pytest.approx([0.6**k for k in range(1, 5)], abs=0.025)
    apart = [rng.uniform(0, size, (150, 2)) for _ in range(60)]
    assert persistence(apart, SIGMA) == []


def test_a_frame_is_not_told_of_its_own_spots():
    rng = np.random.default_rng(5)
    frames = [line(rng, 6) for _ in range(40)]
    frames[7] = np.concatenate([frames[7], np.full((30, 2), 30.0)])
    crowding = learn(frames)
    at = MAP_SCALE * 30 + 1
    assert crowding.around(7)[at, at] == LEAST_DENSITY
    assert crowding.around(8)[at, at] > 5


def test_a_piece_of_the_map_is_the_same_as_in_the_whole():
    rng = np.random.default_rng(6)
    crowding = learn([line(rng, 6) for _ in range(40)])
    whole = crowding.around(2)
    for rows, columns in ((slice(0, 9), slice(30, 50)), (slice(15, 40), slice(0, 3))):
        cells = [slice(MAP_SCALE * s.start, MAP_SCALE * s.stop) for s in (rows, columns)]
        np.testing.assert_allclose(
            crowding.around(2, rows, columns), whole[cells[0], cells[1]], rtol=1e-12
        )


def test_without_spots_nothing_is_known():
    np.testing.assert_array_equal(learn([np.empty((0, 2))] * 3).around(0), 1.0)
