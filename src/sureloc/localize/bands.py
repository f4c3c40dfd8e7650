"""Large frames in bands: detection of spots that needs memory for a part of the frame at a time.

A band is some rows of the grid of regions. Bands, like regions, sit on the frame's own pixels and
never depend on what is asked for or on who does the work. Frames up to `WHOLE_REGIONS` regions
(1024 x 1024 px) are one band: spots are found in the whole frame at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sureloc.localize.detect import Spots, detect_spots
from sureloc.localize.regions import Region

Array = npt.NDArray[np.float64]

WHOLE_REGIONS = 256  # frames of up to so many regions are one band
BAND_REGIONS = 128  # about so many make a band of a larger frame
MARGIN_SIGMAS = 10.0  # rows beside a band that are looked at too, so that spots end outside


@dataclass(frozen=True)
class Band:
    """Some rows of regions.

    Attributes:
        regions: (first, last + 1) number of its regions.
        core_rows: (first, last + 1) rows of pixels that its regions own.
        rows: rows of pixels that its regions see.
    """

    regions: tuple[int, int]
    core_rows: tuple[int, int]
    rows: slice


def bands_of(regions: Sequence[Region]) -> list[Band]:
    """Group all regions of a frame, in order, into bands."""
    across = sum(region.core_rows == regions[0].core_rows for region in regions)
    down = len(regions) // across
    step = down if len(regions) <= WHOLE_REGIONS else max(1, round(BAND_REGIONS / across))
    out = []
    for first in range(0, down, step):
        mine = regions[first * across : min(first + step, down) * across]
        out.append(
            Band(
                (mine[0].number, mine[-1].number + 1),
                (mine[0].core_rows[0], mine[-1].core_rows[1]),
                slice(mine[0].rows.start, mine[-1].rows.stop),
            )
        )
    return out


def spots_of_band(
    electrons: Array,
    read_variance_e2: Array,
    sigma_px: tuple[float, float],
    excess_noise: float,
    band: Band,
) -> Spots:
    """Detect spots in the rows of a band; positions count in the whole frame.

    Args:
        electrons: one frame, photo-electrons, (1, rows, columns).
        read_variance_e2: read variance, electrons^2, (rows, columns).
        sigma_px: PSF widths along columns and rows, px.
        excess_noise: F^2 of electron multiplication, 1 without it.
        band: one of `bands_of`.

    Returns:
        The spots; their background covers the rows `band.rows`.
    """
    margin = round(MARGIN_SIGMAS * max(sigma_px))
    top = max(band.rows.start - margin, 0)
    bottom = min(band.rows.stop + margin, electrons.shape[1])
    seen = slice(top, bottom)
    spots = detect_spots(electrons[:, seen], read_variance_e2[seen], sigma_px, excess_noise)
    background = spots.background_e[:, band.rows.start - top : band.rows.stop - top]
    return Spots(
        spots.frame,
        spots.x_px,
        spots.y_px + top,
        spots.photons,
        spots.significance,
        background,
    )


def spots_of_frames(
    electrons: Array,
    read_variance_e2: Array,
    sigma_px: tuple[float, float],
    excess_noise: float,
    bands: Sequence[Band],
) -> Spots:
    """Detect spots in whole frames, (frames, rows, columns): `detect_spots` for large ones too."""
    if len(bands) == 1:
        return detect_spots(electrons, read_variance_e2, sigma_px, excess_noise)
    background = np.empty_like(electrons)
    columns: list[list[npt.NDArray[np.generic]]] = []
    for frame in range(len(electrons)):
        for band in bands:
            one = electrons[frame : frame + 1]
            spots = spots_of_band(one, read_variance_e2, sigma_px, excess_noise, band)
            first, last = band.core_rows
            top = band.rows.start
            background[frame, first:last] = spots.background_e[0, first - top : last - top]
            mine = (spots.y_px >= first - 0.5) & (spots.y_px < last - 0.5)
            columns.append(
                [
                    np.full(int(mine.sum()), frame, np.int64),
                    spots.x_px[mine],
                    spots.y_px[mine],
                    spots.photons[mine],
                    spots.significance[mine],
                ]
            )
    number, x, y, photons, significance = (
        np.concatenate(parts) for parts in zip(*columns, strict=True)
    )
    order = np.lexsort((x, y, number))
    return Spots(number[order], x[order], y[order], photons[order], significance[order], background)
