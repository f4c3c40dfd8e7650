"""The resolution of a run or a table: measured, said, and drawn with its error bars."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sureloc.analysis.rendering import Canvas, histogram, row_gaussians
from sureloc.analysis.resolution import (
    BLOCKS,
    DECORRELATION,
    RESAMPLES,
    SPLITS,
    THRESHOLD,
    Resolution,
    caution_of_blocks,
    decorrelation_resolution,
    frc_of_draws,
    frc_resolution,
)
from sureloc.errors import InputError
from sureloc.io.exchange.localizations import Edges
from sureloc.io.found import inside, parse_roi, read_found
from sureloc.io.output import check_new_folder, new_folder
from sureloc.report.records import plain
from sureloc.seeds import numpy_generator
from sureloc.table import DRIFT_COLUMNS

INK, MUTED, BLUE, ORANGE, GREY = "#202124", "#5f6368", "#1f6f9f", "#d9730d", "#9aa0a6"
LARGEST_SIDE_PX = 6000  # of the picture that decorrelation analysis looks at
USUAL_PIXEL_NM = 5.0


def measure_resolution(
    source: str | Path,
    *,
    roi: str | None = None,
    camera_pixel_nm: float | None = None,
    splits: int = SPLITS,
    blocks: int = BLOCKS,
    resamples: int = RESAMPLES,
    trusted_only: bool = False,
    seed: int = 0,
    say: Callable[[str], None] = lambda _text: None,
) -> list[Resolution]:
    """Measure the resolution of a run or a table in all ways that it allows.

    Args:
        source: folder of a run, or table of any format.
        roi: what to look at (`sureloc.io.found.parse_roi`).
        camera_pixel_nm: camera pixel size, nm, where the source does not say it.
        splits: random halvings of the frames for Fourier ring correlation.
        blocks: parts of the movie that go into a half as a whole.
        resamples: of tiles, for the error bars.
        trusted_only: leave out the rows that are not trusted.
        seed: the same seed gives the same numbers.
        say: tells people what was not read, and where drift was not taken away.

    Returns:
        FRC of the rows, FRC of the draws where there are some, and decorrelation of the picture.

    Raises:
        InputError: the source or an option cannot be used.
    """
    found = read_found(source, camera_pixel_nm, say)
    if "p_exists" in found.table and DRIFT_COLUMNS[0].name not in found.table:
        say(
            f"Drift was not taken from {found.name}, as far as it says: if the sample moved, the "
            "resolution is that of the blurred picture. 'sureloc drift' takes it away."
        )
    edges = parse_roi(roi, found)
    table = inside(found.table, edges)
    if trusted_only:
        if "trusted" not in table:
            raise InputError(f"{found.name} does not say which rows are trusted; leave it away.")
        table = table[table["trusted"]].reset_index(drop=True)
    counts = {"blocks": blocks, "resamples": resamples}
    rows = frc_resolution(table, edges, numpy_generator(seed, "frc"), splits=splits, **counts)
    results = [rows]
    if found.draws is not None and found.number >= 2:
        results.append(
            frc_of_draws(
                inside(found.draws, edges),
                found.number,
                edges,
                numpy_generator(seed, "frc draws"),
                splits=max(1, splits // 3),
                guess_nm=1.4 * rows.nm if rows.found else None,
                **counts,
            )
        )
    caution = ""
    if any(one.found for one in results):
        caution = caution_of_blocks(table, blocks, numpy_generator(seed, "on-time"))
    results = [replace(one, caution=caution) for one in results]
    results.append(_decorrelation(table, edges, rows, resamples, seed))
    return results


def cautions(results: Sequence[Resolution]) -> list[str]:
    """Give what results warn of, each once."""
    return list(dict.fromkeys(f"Care: {one.caution}" for one in results if one.caution))


def _decorrelation(
    table: pd.DataFrame, edges: Edges, frc: Resolution, resamples: int, seed: int
) -> Resolution:
    """Look at the picture that `sureloc render` draws, with pixels fine enough for it."""
    pixel = frc.nm / 6 if frc.found else USUAL_PIXEL_NM
    longest = max(high - low for low, high in edges)
    canvas = Canvas.between(*edges, max(pixel, longest / LARGEST_SIDE_PX))
    names = ["sigma_x_nm", "sigma_y_nm"]
    if set(names) <= set(table) and np.isfinite(table[names].to_numpy(float)).all():
        image = row_gaussians(table, canvas)
    else:
        image = histogram(table["x_nm"].to_numpy(float), table["y_nm"].to_numpy(float), canvas)
    rng = numpy_generator(seed, "decorrelation")
    result = decorrelation_resolution(
        image, canvas.pixel_nm, rng, rows=len(table), resamples=resamples
    )
    if frc.found or not result.found:
        return result
    # Spots of noise are drawn as sharp as any; what no half shows again is no detail.

    nan = math.nan
    note = f"its spots are {result.nm:.0f} nm wide, but what they show does not come again"
    return replace(result, nm=nan, sd_nm=nan, low_nm=nan, high_nm=nan, note=note)


def write_resolution(results: Sequence[Resolution], out: Path, name: str) -> None:
    """Write a new folder with resolution.json and resolution.png.

    Raises:
        InputError: the folder cannot be used.
        OutputError: a file cannot be written; nothing is left.
    """
    check_new_folder(out)
    with new_folder(out) as folder:
        content = {"source": name, "resolutions": [as_record(one) for one in results]}
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / "resolution.json").write_text(text + "\n", encoding="utf-8")
        draw_resolution(results, folder / "resolution.png", name)


def as_record(result: Resolution) -> dict[str, Any]:
    """Give a resolution as JSON knows it: lists for arrays, None for what there is not."""
    return {**plain(asdict(result)), "sentence": result.sentence}


def draw_resolution(results: Sequence[Resolution], path: Path, name: str) -> None:
    """Draw the curves from which resolutions were read, and these with their intervals.

    Raises:
        OSError: the file cannot be written.
    """
    shown = [one for one in results if one.frequency_per_nm.size]
    figure = Figure(figsize=(5.2 * max(len(shown), 1), 4.2), dpi=120, layout="constrained")
    lines = [f"{name}: resolution"]
    for caution in cautions(results):
        lines += wrap(caution, 50 * max(len(shown), 1))
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=12, color=INK)
    for axes, result in zip(
        figure.subplots(1, max(len(shown), 1), squeeze=False)[0], shown, strict=False
    ):
        _draw_curve(axes, result)
    figure.savefig(path)


def _draw_curve(axes: Axes, result: Resolution) -> None:
    frequency = 1000 * result.frequency_per_nm
    frc = result.method != DECORRELATION
    axes.plot(
        frequency,
        result.curve,
        color=GREY if frc else BLUE,
        linewidth=1.0,
        label="measured" if frc else "decorrelation d(r), no filter",
    )
    if frc:
        axes.plot(frequency, result.smooth, color=BLUE, linewidth=1.8, label="smoothed")
        axes.axhline(THRESHOLD, color=ORANGE, linewidth=1.2, label="1/7")
        axes.plot(
            frequency,
            result.noise,
            color=MUTED,
            linewidth=1.0,
            linestyle="dashed",
            label="2-sigma of noise",
        )
        axes.set_ylim(-0.15, 1.05)
    if result.found:
        axes.axvspan(
            1000 / result.high_nm,
            1000 / max(result.low_nm, 1e-3),
            color=BLUE,
            alpha=0.18,
            linewidth=0,
            label="95 % interval",
        )
        axes.axvline(1000 / result.nm, color=BLUE, linewidth=1.2)
        title = f"{result.nm:.1f} nm\n{result.interval}"
        axes.set_xlim(0, min(frequency[-1], 2500 / result.nm))
    else:
        title = "no resolution"
    axes.set_title(f"{result.method}\n{title}", fontsize=10, loc="left", color=INK)
    axes.set_xlabel("spatial frequency (1 / µm)")
    axes.set_ylabel("Fourier ring correlation" if frc else "d")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
