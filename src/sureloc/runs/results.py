"""From the parts of a run to its results: sums, tables and images, each in one pass.

Parts are read in the order of their numbers, a few frames at a time, so that memory depends neither
on the movie's length nor, for the images, on its area; and so that sums come out the same, bit for
bit, whoever made the parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.io.results import (
    ImagesWriter,
    Place,
    TablesWriter,
    enlarged_rows,
    relative_sd,
)
from sureloc.io.run_folder import IMAGES
from sureloc.localize.columns import by_frame, columns_of
from sureloc.localize.images import FineBand, ImageSums, fine_bands
from sureloc.localize.regions import regions_of
from sureloc.localize.tally import Tally, View, candidates, chosen_views
from sureloc.localize.units import Unit, frame_draws, frame_tables
from sureloc.localize.verdict import mark_regions, rows_within
from sureloc.report.pictures import Overview, Shrinking
from sureloc.runs.job import Job
from sureloc.runs.parts import read_draws, read_rows, read_sums

Doubts = Mapping[str, npt.NDArray[np.bool_]]
FINE_PIXEL_NM = 12.5  # about; super-resolution pixels divide camera pixels evenly


@dataclass(frozen=True)
class Sums:
    """What is added up over a movie.

    Attributes:
        images: sums on the camera's pixels.
        saturated_pixels: of every frame.
        views: frames to look at.
    """

    images: ImageSums
    saturated_pixels: npt.NDArray[np.int64]
    views: list[View]


def of_same_frames(job: Job) -> Iterator[list[Unit]]:
    """Give the units that share their frames together, in order, with a pause before each."""
    for _, group in groupby(job.units, lambda unit: unit.frames):
        job.pause()
        yield list(group)


def gather_sums(job: Job) -> Sums:
    """Add up what parts hold beside their tables."""
    frames, height, width = job.movie.shape
    options = job.options
    zoom = max(1, round(options.pixel_nm / FINE_PIXEL_NM))
    images = ImageSums((height, width), zoom, options.pixel_nm, job.window_px)
    images.frames = frames
    saturated = np.zeros(frames, np.int64)
    views: list[View] = []
    for units in of_same_frames(job):
        for unit in units:
            part, rows = read_sums(job.parts, unit), slice(*unit.rows)
            images.chi2[rows] += part.chi2
            images.widefield_e[rows] += part.widefield_e
            if part.count is not None and part.count_variance is not None:
                images.count += part.count
                images.count_variance += part.count_variance
            saturated[slice(*unit.frames)] += part.saturated_pixels
            views = candidates([*views, *part.views])
        if not units[0].whole:
            draws = frame_draws([read_draws(job.parts, unit) for unit in units])
            for of_frame in by_frame(columns_of(draws)):
                images.count_emitters(of_frame, options.draws)
    return Sums(images, saturated, chosen_views(views))


def write_tables(
    job: Job, writer: TablesWriter, doubts: Doubts, sums: Sums, tally: Tally, place: Place
) -> None:
    """Write localizations, with regions not to be trusted marked, and draws; tally them.

    Raises:
        OSError: a file cannot be written.
    """
    by_frame = {view.frame: view for view in sums.views}
    for units in of_same_frames(job):
        table, draws = _tables(job, units)
        table, _ = mark_regions(table, doubts, place.pixel_nm)
        tally.in_doubt += rows_within(table, doubts, place.pixel_nm)
        tally.add_draws(draws, job.options.draws)
        first, last = units[0].frames
        tally.add(table, first, sums.saturated_pixels[first:last])
        for frame in range(first, last):
            if frame in by_frame:
                shown = table[table["frame"] == frame]
                tally.show(by_frame[frame], shown, place.first_frame + frame)
        writer.append(table, draws)


def _tables(job: Job, units: list[Unit]) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = [read_rows(job.parts, unit) for unit in units]
    draws = [read_draws(job.parts, unit) for unit in units]
    if units[0].whole:
        return rows[0], draws[0]
    regions = regions_of((job.movie.height, job.movie.width), job.assumptions.sigma_px)
    return frame_tables(rows, draws, units[0].frames, regions, job.options)


def write_fine_images(
    job: Job,
    folder: Path,
    images: ImageSums,
    mask: npt.NDArray[np.bool_],
    place: Place,
    provenance: Mapping[str, object],
) -> Overview:
    """Write the super-resolution images band by band; give them averaged down.

    Args:
        job: the run.
        folder: where they go.
        images: sums on the camera's pixels.
        mask: True where the result can be trusted, (camera rows, camera columns).
        place: where the images lie in the movie.
        provenance: what made them, JSON-serializable.

    Raises:
        OSError: a file cannot be written.
    """
    writer = ImagesWriter(folder / IMAGES, images)
    small = [Shrinking(images.fine_shape, images.fine_pixel_nm) for _ in range(4)]
    for rows in fine_bands(images.shape, images.zoom):
        band = _fine_band(job, images, rows)
        sd = band.sd
        shown = [
            band.mean,
            sd,
            relative_sd(band.mean, sd),
            enlarged_rows(mask, images.zoom, rows).astype(np.float64),
        ]
        for one, image in zip(small, shown, strict=True):
            one.add(image)
        writer.write(rows, [*shown, enlarged_rows(images.widefield_e, images.zoom, rows)])
    writer.finish(place, provenance)
    return Overview(*(one.result for one in small))


def _fine_band(job: Job, images: ImageSums, rows: tuple[int, int]) -> FineBand:
    """Sum the frames' super-resolution images in some rows."""
    band = FineBand(images.shape, images.zoom, images.pixel_nm, rows)
    first, last = band.camera_rows
    for units in of_same_frames(job):
        near = [unit for unit in units if unit.rows[0] < last and unit.rows[1] > first]
        draws = frame_draws([read_draws(job.parts, unit) for unit in near])
        for of_frame in by_frame(columns_of(draws)):
            band.add(of_frame, job.options.draws)
    return band
