"""How many rows are so faint that, each on its own, light and noise can hardly be told apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]

SURE_DEVIATIONS = 5.0  # above background that a spot needs to be told from noise (Rose 1948)
WORTH_SAYING = 0.2  # share of the rows


def deviations(
    photo_electrons: Array,
    background_e: Array,
    sigma_px: tuple[float, float],
    excess_noise: float,
    read_variance_e2: float,
) -> Array:
    """Give by how many standard deviations of the background's noise molecules stand out.

    It is the matched filter's ratio for a lone spot on even background (North 1943): N photo-
    electrons over sqrt(4 pi sigma_x sigma_y v), v being the variance of a pixel without the spot.

    Args:
        photo_electrons: of each molecule, (rows,).
        background_e: under it, photo-electrons per pixel, (rows,).
        sigma_px: PSF widths, px.
        excess_noise: F^2 of electron multiplication, 1 without it.
        read_variance_e2: of a pixel, electrons^2.
    """
    variance = excess_noise * np.maximum(background_e, 0.0) + read_variance_e2
    area = 4.0 * math.pi * sigma_px[0] * sigma_px[1]
    return np.asarray(photo_electrons / np.sqrt(area * np.maximum(variance, 1e-12)))


@dataclass
class Faint:
    """Running count of faint rows.

    Attributes:
        sigma_px: PSF widths, px.
        excess_noise: F^2 of the camera.
        read_variance_e2: of a usual pixel, electrons^2.
        quantum_efficiency: photo-electrons for each photon.
        rows, faint: rows so far, and those below `SURE_DEVIATIONS`.
        photons: sum of the photons that a row needs for so many deviations.
    """

    sigma_px: tuple[float, float]
    excess_noise: float
    read_variance_e2: float
    quantum_efficiency: float
    rows: int = 0
    faint: int = 0
    photons: float = 0.0

    def add(self, table: pd.DataFrame) -> None:
        """Count rows (`sureloc.table.LOCALIZATION_COLUMNS`)."""
        if table.empty:
            return
        light, background = (
            table[name].to_numpy(float) * self.quantum_efficiency
            for name in ("photons", "background_photons")
        )
        one = deviations(
            np.ones_like(light),
            background,
            self.sigma_px,
            self.excess_noise,
            self.read_variance_e2,
        )
        self.rows += len(table)
        self.faint += int((light * one < SURE_DEVIATIONS).sum())
        self.photons += float((SURE_DEVIATIONS / one).sum()) / self.quantum_efficiency

    @property
    def notes(self) -> tuple[str, ...]:
        """Say how many rows are faint, where they are more than `WORTH_SAYING` of all."""
        if not self.rows or self.faint < WORTH_SAYING * self.rows:
            return ()
        least = self.photons / self.rows
        return (
            f"{100 * self.faint / self.rows:.0f} % of the rows are fainter than {least:.0f} "
            "photons or so, the least that stands out of the noise under it by "
            f"{SURE_DEVIATIONS:g} deviations. Each says how likely it exists; for fewer and surer "
            f"rows give --min-probability 0.9, or keep those of 'photons > {least:.0f}' "
            "(sureloc filter).",
        )
