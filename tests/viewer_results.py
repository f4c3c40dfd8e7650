"""A movie and the results of a run on a part of it, made by a run's writers without chains."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from scipy import special

from sureloc.io.exchange.localizations import Geometry
from sureloc.io.results import (
    ImagesWriter,
    Place,
    TablesWriter,
    enlarged_rows,
    relative_sd,
    write_run,
)
from sureloc.io.run_folder import IMAGES, RUN
from sureloc.localize.columns import columns_of
from sureloc.localize.images import FineBand, ImageSums
from sureloc.table import LOCALIZATION_COLUMNS

PIXEL_NM = 108.0
SHAPE = (26, 30)  # rows, columns of the movie
EMITTERS_PX = [(9.3, 7.25), (17.6, 15.9), (12.0, 11.0)]  # x, y in the whole frame; one a frame
PLACE = Place(3, 5, 1, PIXEL_NM)  # of the localized part; frame 0 of the movie is left out
PART = (20, 22)
SIGMA_NM = [8.0, 14.0, 25.0]
DRAWS = 8


def spot(x_px: float, y_px: float, shape=SHAPE, photons=800.0):
    """Give the expected image of one emitter, (rows, columns)."""

    def share(pixels, position):
        edge = (np.arange(pixels)[:, None] + np.array([-0.5, 0.5]) - position) / 1.3
        return np.diff(special.ndtr(edge), axis=1)[:, 0]

    return photons * np.outer(share(shape[0], y_px), share(shape[1], x_px))


def write_movie(path: Path) -> Path:
    """Write a movie without noise: nothing in frame 0, then one emitter a frame."""
    frames = np.stack([np.zeros(SHAPE), *(spot(x, y) for x, y in EMITTERS_PX)])
    metadata = {
        "axes": "TYX",
        "PhysicalSizeX": PIXEL_NM,
        "PhysicalSizeY": PIXEL_NM,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeYUnit": "nm",
    }
    values = (100 + frames).astype(np.float32)
    tifffile.imwrite(path, values, ome=True, metadata=metadata, photometric="minisblack")
    return path


def write_results(folder: Path) -> Path:
    """Write the folder that a run on `PART` at `PLACE` would leave."""
    folder.mkdir()
    images, band = ImageSums(PART, 9, PIXEL_NM), FineBand(PART, 9, PIXEL_NM)
    geometry = Geometry(PIXEL_NM, SHAPE[1], SHAPE[0], 4, 140.0, 1.0, 1.0)
    provenance = {"pixel_nm": PIXEL_NM, "geometry": asdict(geometry)}
    with TablesWriter(folder, PLACE, geometry, provenance) as writer:
        for frame, (x, y) in enumerate(EMITTERS_PX):
            table, draws = frame_rows(frame, x - PLACE.first_column, y - PLACE.first_row)
            writer.append(table, draws)
            band.add(columns_of(draws), DRAWS)
    trusted = np.ones(PART, dtype=bool)
    trusted[:4, :4] = False
    whole = (0, images.fine_shape[0])
    shown = [band.mean, band.sd, relative_sd(band.mean, band.sd)]
    shown += [enlarged_rows(image, 9, whole) for image in (trusted, images.widefield_e)]
    images_writer = ImagesWriter(folder / IMAGES, images)
    images_writer.write(whole, shown)
    images_writer.finish(PLACE, provenance)
    sentence = "Trust: nothing speaks against it."
    write_run(folder / RUN, {**provenance, "verdict": {"trust": "trust", "sentence": sentence}})
    return folder


def frame_rows(frame: int, x_px: float, y_px: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give row and draws of one emitter of one frame, in the coordinates of the localized part."""
    x, y, sigma = x_px * PIXEL_NM, y_px * PIXEL_NM, SIGMA_NM[frame]
    row = {column.name: 1.0 for column in LOCALIZATION_COLUMNS}
    row |= {"x_nm": x, "y_nm": y, "sigma_x_nm": sigma, "sigma_y_nm": sigma, "frame": frame}
    row |= {"photons": 800.0 + 100 * frame, "p_exists": 0.9}
    row |= {"trusted": frame != 2, "reason": "beside a dead pixel" if frame == 2 else ""}
    draws = pd.DataFrame(
        {
            "draw": np.arange(DRAWS),
            "frame": frame,
            "x_nm": np.full(DRAWS, x),
            "y_nm": np.full(DRAWS, y),
            "photons": np.full(DRAWS, 800.0),
        }
    )
    return pd.DataFrame([row]), draws
