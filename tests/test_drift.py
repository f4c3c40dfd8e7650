"""Drift: known drifts come back, the stated uncertainty holds, and rows carry it."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from sureloc.analysis import cross_correlation
from sureloc.analysis.cross_correlation import redundant_cross_correlation
from sureloc.analysis.drift import (
    DrawCorrection,
    Method,
    Reference,
    _widened,
    corrected,
    drift_table,
    estimate_drift,
)
from sureloc.errors import InputError
from sureloc.table import DRAW_COLUMNS, DRIFT_COLUMNS

FRAMES = 1000
Z68, Z95 = 0.994458, 1.959964


def walked(rng, walk_nm=0.3, velocity=(0.02, -0.01), frames=FRAMES):
    """The drift of `sureloc simulate`: steady, plus a random walk; 0 in the first frame."""
    steps = rng.normal(0, 1, (frames, 2)) * walk_nm
    steps[0] = 0
    return np.arange(frames)[:, None] * np.array(velocity) + np.cumsum(steps, axis=0)


def blinking(rng, path, molecules=100, field_nm=4000.0, blinks=5, sd_nm=(6.0, 14.0)):
    """Rows of molecules that blink again and again, moved by the drift; `x_true` is without."""
    where = rng.uniform(0, field_nm, (molecules, 2))
    molecule = np.repeat(np.arange(molecules), rng.poisson(blinks, molecules))
    length = rng.geometric(1 / 3, molecule.size)
    start = rng.integers(0, len(path), molecule.size)
    steps = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    molecule, frame = np.repeat(molecule, length), np.repeat(start, length) + steps
    molecule, frame = molecule[frame < len(path)], frame[frame < len(path)]
    return rows_at(rng, where[molecule], frame, path, sd_nm).assign(molecule=molecule)


def rows_at(rng, true, frame, path, sd_nm, photons=1000.0):
    sd = rng.uniform(*sd_nm, (len(frame), 2))
    at = true + path[frame] + sd * rng.normal(size=sd.shape)
    table = pd.DataFrame({"frame": frame, "x_true": true[:, 0], "y_true": true[:, 1]})
    for i, axis in enumerate("xy"):
        table[f"{axis}_nm"] = at[:, i]
        table[f"sigma_{axis}_nm"] = sd[:, i]
        for level, z in (("68", Z68), ("95", Z95)):
            table[f"{axis}_lo{level}_nm"] = at[:, i] - z * sd[:, i]
            table[f"{axis}_hi{level}_nm"] = at[:, i] + z * sd[:, i]
    return table.assign(cov_xy_nm2=0.0, photons=photons)


def held(table, level):
    inside = [
        table[f"{a}_true"].between(table[f"{a}_lo{level}_nm"], table[f"{a}_hi{level}_nm"])
        for a in "xy"
    ]
    return float(np.mean(inside))


def z_of(path, truth, at):
    mean, covariance = path.at(at)
    return (mean - truth[at]) / np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))


@pytest.fixture(scope="module")
def fifty():
    """Fifty movies, each with a drift of its own, and what cross-correlation makes of them."""
    out = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        path = walked(rng)
        table = blinking(rng, path)
        out.append((path, table, redundant_cross_correlation(table, 6)))
    return out


def test_the_stated_sd_of_the_drift_holds(fifty):
    at = np.array([50, 300, 500, 700, 999])
    z = np.stack([z_of(found.path, path, at) for path, _, found in fifty])
    inside = np.abs(z) < Z68
    # Frames of one movie go together: 50 movies x 2 axes count as independent, and no more.
    assert inside.mean() == pytest.approx(0.68, abs=3.5 * np.sqrt(0.68 * 0.32 / 100))
    assert (np.abs(z) < Z95).mean() > 0.95 - 3.5 * np.sqrt(0.05 * 0.95 / 100)
    assert np.abs(z.mean(axis=(0, 1))).max() < 3.5 / np.sqrt(50)


def test_the_stated_sd_of_every_stretch_holds(fifty):
    squared = []
    for path, _, found in fifty:
        a = found.averages
        truth = np.stack([path[a.frame[a.average == k]].mean(axis=0) for k in range(6)])
        error = a.value_nm - truth
        error -= error.mean(axis=0)  # a common shift is nobody's error
        variance = np.diagonal(a.covariance_nm2, axis1=1, axis2=2)
        squared.append((error**2 / variance).mean() / (1 - 1 / 6))
    # Rows are not spread evenly over the frames of their stretch, which a walk makes felt: the
    # spread between movies is the tolerance, and a tenth more.
    assert np.mean(squared) == pytest.approx(1.0, abs=0.1 + 3.5 * np.std(squared) / np.sqrt(50))


def test_intervals_stay_nominal_and_fall_without_the_drifts_uncertainty(fifty):
    carried, left_out = [], []
    for _, table, found in fifty:
        whole = corrected(table, found.path)
        carried.append(held(whole, "95"))
        bare = whole.copy()
        for axis in "xy":
            for end in ("lo", "hi"):
                name = f"{axis}_{end}95_nm"
                bare[name] = table[name] - whole[f"drift_{axis}_nm"]
        left_out.append(held(bare, "95"))
    error = np.std(carried) / np.sqrt(len(fifty))
    assert np.mean(carried) == pytest.approx(0.95, abs=max(3.5 * error, 0.01))
    assert np.mean(left_out) < np.mean(carried) - 0.01


def test_no_drift_is_none_within_its_sd():
    z = []
    for seed in range(8):
        rng = np.random.default_rng(1000 + seed)
        still = np.zeros((FRAMES, 2))
        found = redundant_cross_correlation(blinking(rng, still), 6)
        z.append(z_of(found.path, still, np.array([200, 500, 800, 999])))
        assert np.abs(found.path.mean_nm).max() < 6.0
    # A line or a walk that is not there is allowed for: the band is rather too wide.
    assert np.mean(np.square(z)) < 1.2


def test_a_large_drift_comes_back(rng):
    path = walked(rng, 0.3, (0.4, -0.25))  # 400 and 250 nm
    found = redundant_cross_correlation(blinking(rng, path, molecules=200), 8)
    error = found.path.at(np.arange(FRAMES))[0] - path
    assert np.sqrt((error**2).mean()) < 6.0


def test_pairs_that_disagree_are_looked_for_again(rng, monkeypatch):
    path = walked(rng)
    table = blinking(rng, path)
    whole = redundant_cross_correlation(table, 8)
    coarse = cross_correlation._coarse

    def astray(*arguments):
        at, width = coarse(*arguments)
        at[[3, 11, 20]] += [400.0, -300.0]
        return at, width

    monkeypatch.setattr(cross_correlation, "_coarse", astray)
    again = redundant_cross_correlation(table, 8)
    np.testing.assert_allclose(again.path.mean_nm, whole.path.mean_nm, atol=0.5)


def test_a_direction_that_the_structure_does_not_tell_is_uncertain(rng):
    """Lines along x tell y well and x badly."""
    n = 6000
    true = np.stack([rng.uniform(0, 5000, n), rng.integers(0, 8, n) * 600.0], axis=1)
    true[: n // 10, 0] = rng.integers(0, 20, n // 10) * 240.0
    frame = rng.integers(0, FRAMES, n)
    table = rows_at(rng, true, frame, np.zeros((FRAMES, 2)), (6, 14))
    covariance = redundant_cross_correlation(table, 5).averages.covariance_nm2
    assert covariance[:, 0, 0].mean() > 4 * covariance[:, 1, 1].mean()


def test_rows_without_a_common_structure_are_refused(rng):
    n = 4000
    frame = rng.integers(0, FRAMES, n)
    table = rows_at(rng, rng.uniform(0, 20000, (n, 2)), frame, np.zeros((FRAMES, 2)), (6, 14))
    with pytest.raises(InputError, match="pairs of 8 stretches agree"):
        redundant_cross_correlation(table, 8)


def test_too_few_rows_or_frames_are_refused(rng):
    table = blinking(rng, np.zeros((FRAMES, 2)))
    for bad, words in (
        (table.iloc[:200], "rows that can be used"),
        (table.assign(frame=table["frame"] // 300), r"make \d stretches"),
        (table.iloc[:0], "no rows"),
        (table.drop(columns="sigma_x_nm"), "lacks sigma_x_nm"),
        (table.assign(trusted=False), "has 0 rows"),
    ):
        with pytest.raises(InputError, match=words):
            estimate_drift(bad)
    with pytest.raises(InputError, match="segments is 4; it must lie between 5"):
        estimate_drift(table, segments=4)
    with pytest.raises(InputError, match=r"make 2\d at most"):
        estimate_drift(table, segments=150)
    with pytest.raises(InputError, match="need --method fiducials"):
        estimate_drift(table, fiducials_nm=np.zeros((1, 2)))
    with pytest.raises(InputError, match="is for --method rcc"):
        estimate_drift(table, Method.FIDUCIALS, segments=6)


def test_segments_are_chosen_and_refused_by_one_limit(rng):
    table = blinking(rng, np.zeros((FRAMES, 2)), molecules=300)
    few = table.assign(frame=(12 * (table["frame"] / FRAMES) ** 1.15).astype(int))
    with pytest.raises(InputError, match=r"usable rows in 12 frames make \d+ at most") as refused:
        estimate_drift(few, segments=12)
    most = int(re.search(r"make (\d+) at most", str(refused.value))[1])
    assert 5 <= most < 12
    assert estimate_drift(few).facts["segments"] == most
    assert estimate_drift(few, segments=most).facts["segments"] == most


# --- Fiducials ----------------------------------------------------------------------------------


def with_fiducials(rng, path, places, sd_nm=(2.0, 4.0), seen=0.97):
    parts = [blinking(rng, path, molecules=60)]
    for place in places:
        frame = np.flatnonzero(rng.random(len(path)) < seen)
        true = np.tile(np.asarray(place, float), (len(frame), 1))
        parts.append(rows_at(rng, true, frame, path, sd_nm, photons=20000.0))
    return pd.concat(parts, ignore_index=True)


PLACES = ((700.0, 900.0), (3100.0, 1500.0), (1800.0, 3300.0))


def test_fiducials_are_found_and_their_sd_holds():
    z = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        path = walked(rng, 0.3, (0.2, -0.6), 150)
        places = PLACES[: 1 + seed % 3]
        found = estimate_drift(with_fiducials(rng, path, places), Method.FIDUCIALS)
        assert found.facts["fiducials"] == len(places)
        z.append(z_of(found.path, path, np.array([20, 70, 110, 149])))
    share = np.mean(np.abs(z) < Z68)
    assert share == pytest.approx(0.68, abs=3.5 * np.sqrt(0.68 * 0.32 / 100))


def test_fiducials_may_be_pointed_at(rng):
    path = walked(rng, 0.1, (0.1, 0.1), 300)
    table = with_fiducials(rng, path, PLACES)
    found = estimate_drift(table, Method.FIDUCIALS, fiducials_nm=np.array(PLACES[:2]) + 60.0)
    assert found.facts["fiducials"] == 2
    np.testing.assert_allclose(found.facts["positions_nm"], PLACES[:2], atol=8.0)
    far = np.array([PLACES[0], (9000.0, 9000.0)])
    with pytest.raises(InputError, match="Of 2 fiducials 1 are seen in 90 %"):
        estimate_drift(table, Method.FIDUCIALS, fiducials_nm=far)


def test_fiducials_that_disagree_widen_the_band(rng):
    path = walked(rng, 0.1, (0.1, 0.1), 300)
    table = with_fiducials(rng, path, PLACES)
    good = estimate_drift(table, Method.FIDUCIALS)
    bright = table["photons"] > 10000
    table.loc[bright, ["sigma_x_nm", "sigma_y_nm"]] /= 3.0
    bad = estimate_drift(table, Method.FIDUCIALS)
    assert good.facts["widening"] < 1.1
    assert bad.facts["widening"] == pytest.approx(3.0, rel=0.1)
    for one, other in zip(good.path.at([150])[1], bad.path.at([150])[1], strict=True):
        np.testing.assert_allclose(np.sqrt(np.diag(one)), np.sqrt(np.diag(other)), rtol=0.25)


def test_no_fiducial_is_refused(rng):
    path = np.zeros((FRAMES, 2))
    with pytest.raises(InputError, match="No spot is seen in 90 %"):
        estimate_drift(blinking(rng, path), Method.FIDUCIALS)
    table = with_fiducials(rng, path[:6], PLACES)
    with pytest.raises(InputError, match="spans 6 frames"):
        estimate_drift(table, Method.FIDUCIALS)


def long_lived(rng, path, molecules, on_frames, photons=1000.0):
    """Rows of molecules that shine from before the first frame, each until it goes dark."""
    parts = []
    for end in rng.exponential(on_frames, molecules).astype(int):
        frame = np.arange(min(end + 1, len(path)))
        true = np.tile(rng.uniform(0, 20000, 2), (len(frame), 1))
        parts.append(rows_at(rng, true, frame, path, (6.0, 14.0), photons))
    return pd.concat(parts, ignore_index=True)


def test_molecules_that_shine_throughout_are_not_taken_for_fiducials(rng):
    still = np.zeros((300, 2))
    table = long_lived(rng, still, 100, 150.0)
    with pytest.raises(InputError, match=r"\d+ others as bright in 45 % or more.*--fiducial X,Y"):
        estimate_drift(table, Method.FIDUCIALS)
    with pytest.raises(InputError, match=r"90 % of the 11 frames, but in fewer than 100 frames"):
        estimate_drift(table[table["frame"] < 11], Method.FIDUCIALS)
    # Those that are much brighter can be told from them, and people may name theirs.
    beads = with_fiducials(rng, still, PLACES, seen=1.0)
    both = pd.concat([table[table["frame"] < 250], beads], ignore_index=True)
    assert estimate_drift(both, Method.FIDUCIALS).facts["fiducials"] == 3
    short, places = both[both["frame"] < 11], np.array(PLACES)
    found = estimate_drift(short, Method.FIDUCIALS, fiducials_nm=places)
    assert found.facts["fiducials"] == 3


def test_whether_there_is_any_drift_is_told(rng):
    still, path = np.zeros((300, 2)), walked(rng, 0.1, (0.1, 0.1), 300)
    for truth, moved in ((still, False), (path, True)):
        found = estimate_drift(with_fiducials(rng, truth, PLACES), Method.FIDUCIALS)
        assert found.path.is_beyond_uncertainty == moved


# --- What is done with it -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def estimated():
    rng = np.random.default_rng(5)
    path = walked(rng)
    table = blinking(rng, path)
    return table, path, estimate_drift(table, segments=6)


def test_draws_of_the_drift_have_its_mean_and_covariance(estimated):
    path = estimated[2].path
    rng = np.random.default_rng(0)
    samples = np.stack([path.sample(rng) for _ in range(500)])
    first = int(path.nodes[0])
    at = np.array([first, 100, 500, 900])
    mean, covariance = path.at(at)
    picked = samples[:, at - first]
    assert np.abs(picked[:, 0]).max() < 1e-9  # the first frame is the reference
    sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    np.testing.assert_allclose(picked.mean(axis=0)[1:], mean[1:], atol=0.2 * sd.max())
    np.testing.assert_allclose(picked.std(axis=0)[1:] / sd[1:], 1.0, atol=0.15)


def test_every_draw_is_moved_by_a_drift_of_its_own(estimated, rng):
    path = estimated[2].path
    rows = 600
    draws = pd.DataFrame(
        {
            "draw": rng.integers(0, 4, rows),
            "frame": np.sort(rng.integers(0, FRAMES, rows)),
            "x_nm": rng.uniform(0, 4000, rows),
            "y_nm": rng.uniform(0, 4000, rows),
            "photons": 500.0,
        }
    )
    out = DrawCorrection(path, 3).corrected(draws)
    assert list(out.columns) == [column.name for column in DRAW_COLUMNS]
    moved = (draws["x_nm"] - out["x_nm"]).to_numpy()
    mean = path.at(draws["frame"].to_numpy())[0][:, 0]
    for one in range(4):
        assert np.abs(moved - mean)[draws["draw"] == one].max() > 0.1
    # The same whatever the rows come in.
    again = DrawCorrection(path, 3)
    parts = [again.corrected(draws.iloc[400:]), again.corrected(draws.iloc[:400])]
    pd.testing.assert_frame_equal(pd.concat(parts).sort_index(), out)
    assert not np.allclose(DrawCorrection(path, 4).corrected(draws)["x_nm"], out["x_nm"])


def test_rows_get_the_drift_and_its_variance(estimated):
    table, _, found = estimated
    out = corrected(table, found.path)
    mean, covariance = found.path.at(table["frame"].to_numpy())
    np.testing.assert_allclose(out["x_nm"] + mean[:, 0], table["x_nm"])
    np.testing.assert_allclose(out["drift_y_nm"], mean[:, 1])
    np.testing.assert_allclose(
        out["sigma_y_nm"] ** 2, table["sigma_y_nm"] ** 2 + covariance[:, 1, 1]
    )
    np.testing.assert_allclose(out["cov_xy_nm2"], covariance[:, 0, 1])
    for level, z in (("68", Z68), ("95", Z95)):
        width = out[f"x_hi{level}_nm"] - out[f"x_lo{level}_nm"]
        np.testing.assert_allclose(width, 2 * z * out["sigma_x_nm"], rtol=1e-5)
    with pytest.raises(InputError, match="corrected for drift before"):
        estimate_drift(out)
    assert {column.name for column in DRIFT_COLUMNS} <= set(out.columns)


@pytest.mark.parametrize("sd", [0.0, 3.0, 30.0])
@pytest.mark.parametrize("level", [0.68, 0.95])
def test_widened_intervals_are_those_of_the_sum(sd, level):
    """A lopsided error plus a normal one, by Monte Carlo: equal tails to 1.5 %."""
    rng = np.random.default_rng(0)
    own = rng.gamma(4.0, 5.0, 200_000) - 20.0
    tail = (1 - level) / 2
    low, high = np.quantile(own, [tail, 1 - tail])
    z = norm.ppf(1 - tail)
    a, b = _widened(*(np.array([v]) for v in (0.0, low, high, (z * sd) ** 2)))
    summed = own + sd * rng.normal(size=own.size)
    assert np.mean((summed >= a) & (summed <= b)) == pytest.approx(level, abs=0.015)
    # Between two places, the mean in neither.
    two = _widened(*(np.array([v]) for v in (0.0, 5.0, 9.0, 4.0)))
    assert two[0][0] == pytest.approx(7 - np.sqrt(8))
    assert two[1][0] == pytest.approx(7 + np.sqrt(8))


def test_the_mean_may_be_the_reference(estimated):
    table, _, first = estimated
    mean = estimate_drift(table, segments=6, reference=Reference.MEAN)
    frame = table["frame"].to_numpy()
    assert np.abs(mean.path.at(frame)[0].mean(axis=0)).max() < 0.05
    difference = first.path.at(frame)[0] - mean.path.at(frame)[0]
    assert np.ptp(difference, axis=0).max() < 1e-6
    # Nearer in time to what is called zero, and so better known.
    assert np.median(mean.path.covariance_nm2[:, 0, 0]) < np.median(
        first.path.covariance_nm2[:, 0, 0]
    )


def test_the_drift_table_has_every_frame(estimated):
    table = drift_table(estimated[2].path)
    assert list(table["frame"]) == list(
        range(estimated[0]["frame"].min(), estimated[0]["frame"].max() + 1)
    )
    assert table.loc[0, ["x_nm", "y_nm", "sigma_x_nm", "sigma_y_nm"]].tolist() == [0.0] * 4
    assert (table["sigma_x_nm"].iloc[1:] > 0).all()
