"""The columns of every table: their names, units and meaning.

The table is the only currency between the stages: pandas data frames with these columns, positions
in nanometres with the CENTRE of pixel (0, 0) at (0, 0), x along columns, y along rows (downwards),
frames counted from 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sureloc.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: the column's name.
        dtype: NumPy dtype name.
        unit: unit, or an empty string.
        meaning: one sentence for people.
    """

    name: str
    dtype: str
    unit: str
    meaning: str


LOCALIZATION_COLUMNS: tuple[Column, ...] = (
    Column("frame", "int64", "", "Frame of the movie, counted from 0."),
    Column("x_nm", "float64", "nm", "Posterior mean position along columns."),
    Column("y_nm", "float64", "nm", "Posterior mean position along rows, pointing down."),
    Column("sigma_x_nm", "float64", "nm", "Posterior standard deviation of x_nm."),
    Column("sigma_y_nm", "float64", "nm", "Posterior standard deviation of y_nm."),
    Column("cov_xy_nm2", "float64", "nm^2", "Posterior covariance of x_nm and y_nm."),
    Column("photons", "float64", "photons", "Posterior mean of the detected photons."),
    Column("sigma_photons", "float64", "photons", "Posterior standard deviation of photons."),
    Column("background_photons", "float64", "photons/px", "Background under the emitter."),
    Column("p_exists", "float64", "", "Posterior probability that this emitter exists."),
    Column("crlb_x_nm", "float64", "nm", "Cramer-Rao bound of x_nm with all neighbours present."),
    Column("crlb_y_nm", "float64", "nm", "Cramer-Rao bound of y_nm with all neighbours present."),
    Column(
        "chi2", "float64", "", "Local mean squared residual of the re-rendered frame; 1 is good."
    ),
    Column("x_lo95_nm", "float64", "nm", "Lower end of the 95 % interval of x_nm."),
    Column("x_hi95_nm", "float64", "nm", "Upper end of the 95 % interval of x_nm."),
    Column("y_lo95_nm", "float64", "nm", "Lower end of the 95 % interval of y_nm."),
    Column("y_hi95_nm", "float64", "nm", "Upper end of the 95 % interval of y_nm."),
    Column("x_lo68_nm", "float64", "nm", "Lower end of the 68 % interval of x_nm."),
    Column("x_hi68_nm", "float64", "nm", "Upper end of the 68 % interval of x_nm."),
    Column("y_lo68_nm", "float64", "nm", "Lower end of the 68 % interval of y_nm."),
    Column("y_hi68_nm", "float64", "nm", "Upper end of the 68 % interval of y_nm."),
    Column("trusted", "bool", "", "False where the model does not describe the data or data lack."),
    Column("reason", "str", "", "Why the row is not trusted; empty where it is."),
)

TRUTH_COLUMNS: tuple[Column, ...] = (
    Column("frame", "int64", "", "Frame of the movie, counted from 0."),
    Column("x_nm", "float64", "nm", "True position along columns, drift included."),
    Column("y_nm", "float64", "nm", "True position along rows, drift included."),
    Column("photons", "float64", "photons", "Expected detected photons in this frame."),
    Column("background_photons", "float64", "photons/px", "Expected background at the emitter."),
    Column("molecule", "int64", "", "Number of the molecule, the same in every frame."),
)

DRAW_COLUMNS: tuple[Column, ...] = (
    Column("draw", "int64", "", "Number of the posterior draw."),
    Column("frame", "int64", "", "Frame of the movie, counted from 0."),
    Column("x_nm", "float64", "nm", "Position along columns in this draw."),
    Column("y_nm", "float64", "nm", "Position along rows in this draw."),
    Column("photons", "float64", "photons", "Photons in this draw."),
)

# What the steps after localization add to a table.

DRIFT_COLUMNS: tuple[Column, ...] = (
    Column("drift_x_nm", "float64", "nm", "Drift that was taken from x_nm."),
    Column("drift_y_nm", "float64", "nm", "Drift that was taken from y_nm."),
    Column("sigma_drift_x_nm", "float64", "nm", "Its standard deviation, part of sigma_x_nm."),
    Column("sigma_drift_y_nm", "float64", "nm", "Its standard deviation, part of sigma_y_nm."),
    Column("cov_drift_xy_nm2", "float64", "nm^2", "Its covariance, part of cov_xy_nm2."),
)

LINK_COLUMNS: tuple[Column, ...] = (
    Column("last_frame", "int64", "", "Last frame of the molecule; frame is its first."),
    Column("rows", "int64", "", "Number of rows that were merged."),
    Column(
        "link_chi2",
        "float64",
        "",
        "Mean squared distance of the merged rows from their common position over the stated "
        "variance; 1 is good, NaN for a single row.",
    ),
)


GIVE_PRECISION = "'sureloc convert IN OUT.parquet --uncertainty-nm 10'"  # to rows without one


def check_columns(table: pd.DataFrame, names: Iterable[str], why: str) -> None:
    """Raise `InputError` unless a table has the columns that are needed.

    Args:
        table: any table.
        names: of the columns.
        why: they are needed, half a sentence.
    """
    lacking = [name for name in names if name not in table.columns]
    if not lacking:
        return
    remedy = ""
    if {"sigma_x_nm", "sigma_y_nm"} & set(lacking):
        remedy = f" Give all rows one that you know: {GIVE_PRECISION}."
    raise InputError(f"The table lacks {', '.join(lacking)}; {why}.{remedy}")


def check_rows(table: pd.DataFrame, purpose: str) -> None:
    """Raise `InputError` unless a table has a row to serve the purpose, such as "to draw"."""
    if table.empty:
        raise InputError(f"The table has no rows; there is nothing {purpose}.")
