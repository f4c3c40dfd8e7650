"""Linking: merged precision holds, displacements are chi2, and nothing depends on order."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, ncx2

from sureloc.analysis.audit import repeat_ratio
from sureloc.analysis.linking import GATE, GATE_QUANTILE, Links, link_rows, merged
from sureloc.errors import InputError
from sureloc.table import LOCALIZATION_COLUMNS

Z68, Z95 = 0.994458, 1.959964


def rows_at(truth, frames, rng, correlation=0.0, sd_nm=(5.0, 20.0)):
    """Rows of molecules at `truth` (n, 2) in `frames` (n,), with precisions of their own."""
    n = len(truth)
    sx, sy = rng.uniform(*sd_nm, (2, n))
    covariance = correlation * sx * sy
    unit = rng.normal(size=(2, n))
    x = truth[:, 0] + sx * unit[0]
    y = truth[:, 1] + sy * (correlation * unit[0] + np.sqrt(1 - correlation**2) * unit[1])
    photons = rng.uniform(500, 2000, n)
    table = pd.DataFrame(
        {
            "frame": frames,
            "x_nm": x,
            "y_nm": y,
            "sigma_x_nm": sx,
            "sigma_y_nm": sy,
            "cov_xy_nm2": covariance,
            "photons": photons,
            "sigma_photons": np.sqrt(photons),
            "background_photons": rng.uniform(5, 9, n),
            "p_exists": rng.uniform(0.5, 1.0, n),
            "crlb_x_nm": 0.9 * sx,
            "crlb_y_nm": 0.9 * sy,
            "chi2": rng.uniform(0.8, 1.2, n),
            "trusted": rng.random(n) < 0.9,
        }
    )
    for level, z in (("95", Z95), ("68", Z68)):
        for axis, sd, at in (("x", sx, x), ("y", sy, y)):
            table[f"{axis}_lo{level}_nm"] = at - z * sd
            table[f"{axis}_hi{level}_nm"] = at + z * sd
    table["reason"] = np.where(table["trusted"], "", "crowded")
    return table


def blinking(molecules, length, rng, **more):
    """Molecules on a lattice 1 um apart, each on for `length` frames from a frame of its own."""
    where = 1000.0 * np.stack(np.unravel_index(np.arange(molecules), (200, 200)), 1)
    start = rng.integers(0, 300, molecules)
    number = np.repeat(np.arange(molecules), length)
    frames = np.repeat(start, length) + np.tile(np.arange(length), molecules)
    return rows_at(where[number], frames, rng, **more), where, number


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_links_are_chi2_and_merged_intervals_hold(rng, correlation):
    table, *_ = blinking(1500, 4, rng, correlation=correlation)
    links = link_rows(table)
    # One true link in a thousand is broken; 4500 links of 2 degrees of freedom: mean to 1.5 %.
    broken = links.molecules - 1500
    assert broken == pytest.approx(4500 * (1 - GATE_QUANTILE), abs=3.5 * np.sqrt(4.5))
    # What the gate cuts from the mean of D2, which is 2.
    lost = GATE * (1 - GATE_QUANTILE) / GATE_QUANTILE
    assert links.squared.mean() == pytest.approx(2 - lost, rel=0.05)
    assert chi2.cdf(np.median(links.squared), 2) == pytest.approx(0.5, abs=0.03)
    out = merged(table, links)
    near = np.rint(out[["x_nm", "y_nm"]].to_numpy() / 1000) * 1000
    for i, axis in enumerate("xy"):
        error = out[f"{axis}_nm"].to_numpy() - near[:, i]
        for level, share in (("68", 0.68), ("95", 0.95)):
            low, high = out[f"{axis}_lo{level}_nm"], out[f"{axis}_hi{level}_nm"]
            held = np.mean((low <= near[:, i]) & (near[:, i] <= high))
            assert held == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 1500))
            z = {"68": Z68, "95": Z95}[level]
            np.testing.assert_allclose(high - low, 2 * z * out[f"sigma_{axis}_nm"], rtol=1e-4)
        assert np.std(error / out[f"sigma_{axis}_nm"]) == pytest.approx(1.0, abs=0.08)
    # Both axes together, with their covariance.
    errors = out[["x_nm", "y_nm"]].to_numpy() - near
    c = np.empty((len(out), 2, 2))
    c[:, 0, 0], c[:, 1, 1] = out["sigma_x_nm"] ** 2, out["sigma_y_nm"] ** 2
    c[:, 0, 1] = c[:, 1, 0] = out["cov_xy_nm2"]
    squared = np.einsum("ni,nij,nj->n", errors, np.linalg.inv(c), errors)
    assert squared.mean() / 2 == pytest.approx(1.0, abs=0.1)
    assert out["link_chi2"].mean() == pytest.approx(1.0, abs=0.06)


def test_merging_is_the_maximum_of_the_combined_likelihood(rng):
    table = rows_at(np.zeros((3, 2)), np.arange(3), rng, correlation=0.6, sd_nm=(8, 9))
    out = merged(table, link_rows(table, radius_nm=1e3)).iloc[0]
    information, pull = np.zeros((2, 2)), np.zeros(2)
    for row in table.itertuples():
        one = np.linalg.inv(
            [[row.sigma_x_nm**2, row.cov_xy_nm2], [row.cov_xy_nm2, row.sigma_y_nm**2]]
        )
        information += one
        pull += one @ [row.x_nm, row.y_nm]
    covariance = np.linalg.inv(information)
    np.testing.assert_allclose([out.x_nm, out.y_nm], covariance @ pull)
    np.testing.assert_allclose(
        [out.sigma_x_nm**2, out.cov_xy_nm2, out.sigma_y_nm**2], covariance[[0, 0, 1], [0, 1, 1]]
    )
    assert out.photons == pytest.approx(table["photons"].sum())
    assert out.sigma_photons**2 == pytest.approx((table["sigma_photons"] ** 2).sum())
    assert out.background_photons == pytest.approx(table["background_photons"].mean())
    assert out.p_exists == pytest.approx(1 - np.prod(1 - table["p_exists"]))
    assert out.crlb_x_nm**-2 == pytest.approx((table["crlb_x_nm"] ** -2.0).sum())
    assert (out.frame, out.last_frame, out.rows) == (0, 2, 3)
    assert out.trusted == table["trusted"].all()


def test_a_single_row_stays_as_it_is(rng):
    table, *_ = blinking(50, 1, rng, correlation=0.3)
    table["x_lo95_nm"] -= 40  # an interval that leans
    table["y_hi68_nm"] = table["y_nm"] - 1  # a mean outside its interval, between two places
    table.loc[0, ["trusted", "reason"]] = False, "out of focus"
    out = merged(table, link_rows(table))
    expected = table.sort_values(["frame", "x_nm", "y_nm"], ignore_index=True)
    pd.testing.assert_frame_equal(out[expected.columns], expected, rtol=1e-9, check_dtype=False)
    assert (out["last_frame"] == out["frame"]).all()
    assert out["link_chi2"].isna().all()


def test_photons_are_conserved_and_order_is_irrelevant(rng):
    # Crowded: 4000 rows in 40 frames of 3 um, so that links compete.
    table = rows_at(rng.uniform(0, 3000, (4000, 2)), rng.integers(0, 40, 4000), rng)
    links = link_rows(table, gap=2)
    out = merged(table, links)
    assert out["photons"].sum() == pytest.approx(table["photons"].sum(), rel=1e-12)
    assert out["rows"].sum() == len(table)
    # No frame has a molecule twice.
    assert not pd.DataFrame({"m": links.molecule, "f": table["frame"]}).duplicated().any()
    shuffled = rng.permutation(len(table))
    again = link_rows(table.iloc[shuffled], gap=2)
    np.testing.assert_array_equal(again.molecule, links.molecule[shuffled])
    pd.testing.assert_frame_equal(merged(table.iloc[shuffled], again), out)


@pytest.mark.parametrize(("gap", "molecules"), [(0, 3), (1, 2), (2, 1), (9, 1)])
def test_a_molecule_may_be_dark_for_as_many_frames_as_it_is_told(rng, gap, molecules):
    table = rows_at(np.zeros((5, 2)), np.array([0, 2, 5, 6, 7]), rng, sd_nm=(10, 10))
    table[["x_nm", "y_nm"]] = 0.0
    assert link_rows(table, gap).molecules == molecules


@pytest.mark.parametrize("apart_nm", [20.0, 40.0])
def test_neighbours_that_take_turns_are_merged_as_often_as_chi2_says(rng, apart_nm):
    n, sd = 3000, 10.0
    where = 1000.0 * np.stack(np.unravel_index(np.arange(n), (100, 100)), 1)
    first = rows_at(where, np.zeros(n, int), rng, sd_nm=(sd, sd))
    second = rows_at(where + np.array([apart_nm, 0]), np.ones(n, int), rng, sd_nm=(sd, sd))
    links = link_rows(pd.concat([first, second], ignore_index=True))
    expected = ncx2.cdf(GATE, 2, apart_nm**2 / (2 * sd**2))
    share = 1 - (links.molecules - n) / n
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / n))


def test_paths_that_cross_keep_to_themselves(rng):
    """Two molecules shine together 50 nm apart (5 sd): the whole frame decides, not each row."""
    n, length, sd = 400, 6, 10.0
    where = 1000.0 * np.stack(np.unravel_index(np.arange(n), (100, 100)), 1)
    parts = []
    for frame in range(length):
        for shift in (0.0, 50.0):
            part = rows_at(where + np.array([shift, 0]), np.full(n, frame), rng, sd_nm=(sd, sd))
            parts.append(part.assign(truth=2 * np.arange(n) + (shift > 0)))
    table = pd.concat(parts, ignore_index=True)
    links = link_rows(table)
    # A swap needs the sum of squares of two crossed links to be below that of the straight ones.
    mixed = np.ptp(table.groupby(links.molecule)["truth"].agg(["min", "max"]), axis=1) > 0
    assert mixed.sum() <= 3
    assert links.molecules == pytest.approx(2 * n, abs=2 * n * length * 0.001 * 3 + 3)


def test_links_are_chosen_together_not_one_after_the_other():
    """The nearest row of the first molecule is the only one within reach of the second."""
    table = pd.DataFrame(
        {
            "frame": [0, 0, 1, 1],
            "x_nm": [0.0, 30.0, 14.0, -25.0],
            "y_nm": 0.0,
            "sigma_x_nm": 10.0,
            "sigma_y_nm": 10.0,
        }
    )
    molecule = link_rows(table).molecule
    assert molecule[2] == molecule[1]
    assert molecule[3] == molecule[0]
    assert link_rows(table, radius_nm=20).molecules == 3


def test_an_error_that_rows_share_is_not_averaged_away(rng):
    table, *_ = blinking(600, 5, rng, correlation=0.4)
    plain = merged(table, link_rows(table))
    shared = table.copy()
    shared["drift_x_nm"] = shared["drift_y_nm"] = 0.0
    shared["sigma_drift_x_nm"], shared["sigma_drift_y_nm"] = 6.0, 3.0
    shared["cov_drift_xy_nm2"] = 5.0
    for axis, sd in (("x", 6.0), ("y", 3.0)):
        shared[f"sigma_{axis}_nm"] = np.hypot(shared[f"sigma_{axis}_nm"], sd)
        for level, z in (("68", Z68), ("95", Z95)):
            half = z * shared[f"sigma_{axis}_nm"]
            shared[f"{axis}_lo{level}_nm"] = shared[f"{axis}_nm"] - half
            shared[f"{axis}_hi{level}_nm"] = shared[f"{axis}_nm"] + half
    shared["cov_xy_nm2"] += 5.0
    links = link_rows(shared)
    np.testing.assert_allclose(links.squared, link_rows(table).squared)
    assert repeat_ratio(shared) == pytest.approx(repeat_ratio(table))
    out = merged(shared, links)
    np.testing.assert_allclose(out["x_nm"], plain["x_nm"])
    np.testing.assert_allclose(out["sigma_x_nm"], np.hypot(plain["sigma_x_nm"], 6.0))
    np.testing.assert_allclose(out["cov_xy_nm2"], plain["cov_xy_nm2"] + 5.0)
    np.testing.assert_allclose(
        out["y_hi95_nm"] - out["y_lo95_nm"], 2 * Z95 * out["sigma_y_nm"], rtol=1e-4
    )
    np.testing.assert_allclose(out["sigma_drift_x_nm"], 6.0)


@pytest.mark.parametrize("scale", [0.7, 1.0, 2.0])
def test_precisions_that_are_wrong_show_also_where_others_light_up_beside(rng, scale):
    table, *_ = blinking(1500, 3, rng)
    table["p_exists"] = 1.0
    # Of a second set of molecules, some lie within the gate by chance.
    other, *_ = blinking(1500, 3, rng)
    other[["x_nm", "y_nm"]] += rng.uniform(-60, 60, (1500, 2))[np.repeat(np.arange(1500), 3)]
    table = pd.concat([table, other.assign(p_exists=1.0)], ignore_index=True)
    table[["sigma_x_nm", "sigma_y_nm"]] *= scale
    table["cov_xy_nm2"] *= scale**2
    ratio, pairs = repeat_ratio(table)
    assert ratio == pytest.approx(1 / scale, rel=0.06)
    assert pairs > 2000
    # Rows that say themselves that they are not sure are not asked.
    table["p_exists"] = 0.5
    ratio, pairs = repeat_ratio(table)
    assert np.isnan(ratio)
    assert pairs == 0


def test_rows_that_were_merged_before_are_summed(rng):
    table = rows_at(np.zeros((3, 2)), np.array([0, 6, 9]), rng)
    table = table.assign(rows=[3, 4, 1], last_frame=[4, 8, 9])
    out = merged(table, Links(np.array([0, 0, 1]), np.empty(0)))
    assert out["rows"].tolist() == [7, 1]
    assert out["last_frame"].tolist() == [8, 9]
    assert list(out) == [*table, "link_chi2"]


@pytest.mark.parametrize("column", ["rows", "last_frame"])
def test_a_table_is_linked_where_rows_are_molecules_over_several_frames(rng, column):
    table = rows_at(np.zeros((3, 2)), np.array([0, 6, 9]), rng)
    one = {"rows": [1, 1, 1], "last_frame": [0, 6, 9]}[column]
    links = link_rows(table.assign(**{column: one}))
    np.testing.assert_array_equal(links.molecule, link_rows(table).molecule)
    one[1] += 1
    with pytest.raises(InputError, match=r"linked before: 1 of its 3 rows .* it was made from"):
        link_rows(table.assign(**{column: one}))


def test_no_rows_and_one_row(rng):
    table, *_ = blinking(1, 1, rng)
    assert len(merged(table, link_rows(table))) == 1
    none = table.iloc[:0]
    links = link_rows(none)
    assert links.molecules == 0
    assert links.squared.size == 0
    assert np.isnan(repeat_ratio(none)[0])
    assert len(merged(none, links)) == 0


def test_what_cannot_be_linked_is_refused(rng):
    table, *_ = blinking(5, 2, rng)
    with pytest.raises(InputError, match="lacks sigma_x_nm"):
        link_rows(table.drop(columns="sigma_x_nm"))
    with pytest.raises(InputError, match="gap is -1"):
        link_rows(table, gap=-1)
    with pytest.raises(InputError, match="radius_nm is 0"):
        link_rows(table, radius_nm=0)
    with pytest.raises(InputError, match="linked before"):
        link_rows(merged(table, link_rows(table)))
    for value in (0.0, np.nan, np.inf):
        bad = table.copy()
        bad.loc[2, "sigma_y_nm"] = value
        with pytest.raises(InputError, match="1 rows have a position"):
            link_rows(bad)


def test_every_column_of_a_run_is_merged(rng):
    table, *_ = blinking(20, 3, rng)
    assert set(table.columns) == {column.name for column in LOCALIZATION_COLUMNS}
    out = merged(table, link_rows(table))
    for column in LOCALIZATION_COLUMNS:
        assert out[column.name].dtype.kind == {"str": "O", "bool": "b"}.get(
            column.dtype, column.dtype[0]
        )
