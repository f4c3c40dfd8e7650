"""The report of a run: one HTML file that needs nothing else, readable in every browser.

All text that comes from a user or a file is escaped; images are embedded; nothing is loaded.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np

from sureloc.localize.images import ImageSums
from sureloc.localize.movie import Assumptions
from sureloc.localize.tally import ExampleFrame, Tally
from sureloc.localize.verdict import (
    REGION,
    UNSURE,
    Trust,
    Verdict,
    map_bounds,
    region_doubts,
)
from sureloc.report.charts import (
    chi2_chart,
    counts_chart,
    precision_chart,
    prior_chart,
    rows_chart,
)
from sureloc.report.frames import LEAST_RADIUS_PX, example_pngs
from sureloc.report.image_axes import scale_bar
from sureloc.report.molecules import Molecules, molecules_section
from sureloc.report.packing import median_sigma_nm
from sureloc.report.pictures import Picture, indexed_png

PAGE_PX = 900  # a side of the pictures in the page; the molecules are there for closer looks
NOISY = 3.0  # times the median read noise
SCRIPTS = (
    *("rows.js", "filters.js", "view.js", "raster.js", "downloads.js"),
    *("molecules.js", "controls.js", "splits.js", "start.js"),
)
_CLASS_OF = {Trust.TRUST: "trust", Trust.CARE: "care", Trust.REFUSE: "refuse"}


@dataclass(frozen=True)
class ReportContent:
    """Everything that the report of a run shows.

    Attributes:
        name: of the movie, for the title.
        verdict, tally, images, assumptions: results of the run.
        pictures: the images for people, by `sureloc.report.pictures.pictures_of`.
        molecules: the rows, to be looked at one by one.
        first_row, first_column, first_frame: where the localized part lies in the movie.
        facts: further lines for the table of numbers, such as the comparison with a truth.
        record: what else belongs to the record: versions, options, times.
    """

    name: str
    verdict: Verdict
    tally: Tally
    images: ImageSums
    assumptions: Assumptions
    pictures: Sequence[Picture]
    molecules: Molecules
    first_row: int
    first_column: int
    first_frame: int
    facts: Mapping[str, str]
    record: Mapping[str, str]


def write_report(path: Path, content: ReportContent) -> None:
    """Write the report.

    Raises:
        OSError: the file cannot be written.
    """
    page = resources.files("sureloc.report")

    def asset(name: str) -> str:
        return (page / name).read_text(encoding="utf-8")

    text = Template(asset("page.html")).substitute(
        title=escape(f"{content.name}: sureloc"),
        style=asset("page.css"),
        script="\n".join(['"use strict";', *(asset(name) for name in SCRIPTS)]),
        body="\n".join(_sections(content)),
    )
    path.write_text(text, encoding="utf-8")


def _sections(content: ReportContent) -> Iterable[str]:
    verdict, tally = content.verdict, content.tally
    yield f"<h1>{escape(content.name)}</h1>"
    yield (
        f'<section class="verdict {_CLASS_OF[verdict.trust]}">'
        f"<strong>{escape(verdict.sentence)}</strong></section>"
    )
    yield f"<section>{_facts(content)}</section>"
    yield molecules_section(content.molecules, content.name)
    yield f"<section><h2>Reconstruction and its uncertainty</h2>{_slider(content)}</section>"
    yield "<section><h2>How precise, and against what is possible</h2>"
    yield precision_chart(tally)
    yield (
        '<p class="muted">The Cramér-Rao bound counts all neighbours and the background as '
        "unknown; no unbiased estimate that has nothing but the frame can be more precise. The "
        "stated precision also rests on what the movie taught about molecules: brightness, number, "
        "place. It lies below the bound where they are faint or overlap.</p></section>"
    )
    yield "<section><h2>Localizations: how many, how bright, how sure</h2>"
    yield f"{counts_chart(tally, content.first_frame)}{rows_chart(tally)}</section>"
    mean_chi2 = content.images.chi2 / max(content.images.frames, 1)
    yield (
        "<section><h2>Does the image model fit?</h2>"
        f"{chi2_chart(mean_chi2, content.first_row, content.first_column)}"
        '<p class="muted">Squared difference between measured and re-rendered frames over camera '
        "noise: 1 is right, larger means that something is not described.</p></section>"
    )
    yield f"<section><h2>Frames to look at</h2>{_circles_key(tally)}"
    for example in tally.examples:
        yield _example(example, tally.pixel_nm)
    yield "</section>"
    yield f"<section><h2>What was assumed</h2>{_assumed(content)}</section>"
    rows = "".join(
        f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>"
        for key, value in content.record.items()
    )
    yield f"<section><h2>How it came about</h2><table>{rows}</table></section>"


def _circles_key(tally: Tally) -> str:
    if not tally.examples:
        return ""
    return (
        '<p class="muted">Circles: two stated standard deviations, dotted where enlarged to '
        f"{LEAST_RADIUS_PX:g} px to be seen; those with a cross (red) are not trusted. Of large "
        "frames, the part in the yellow square is magnified.</p>"
    )


def _example(example: ExampleFrame, pixel_nm: float) -> str:
    name = f"Frame {example.frame} ({example.why}); {len(example.table):,} localizations"
    panels = "".join(
        f'<div><img class="chart" src="{_embedded(png)}" '
        f'alt="{escape(f"Frame {example.frame}, {title}")}"></div>'
        for title, png in example_pngs(example, pixel_nm)
    )
    return (
        f'<figure><figcaption>{escape(name)}.</figcaption><div class="row">{panels}</div></figure>'
    )


def _facts(content: ReportContent) -> str:
    tally, verdict = content.tally, content.verdict
    median = median_sigma_nm(content.molecules.table)
    facts = {
        "localizations, in rows kept": f"{tally.rows:,}",
        **_molecules_in_draws(tally),
        "trusted": f"{100 * verdict.trusted_rows:.1f} %",
        "frames": f"{content.images.frames:,}",
        "median precision": "none" if median is None else f"{median:.1f} nm",
        "median precision / bound": f"{tally.ratio.median:.2f}" if tally.rows else "none",
        "fit (chi2, 1 is right)": f"{verdict.mean_chi2:.2f}",
        **content.facts,
    }
    if tally.reasons:
        worst, count = tally.reasons.most_common(1)[0]
        facts["most frequent doubt"] = f"{worst} ({count:,} {'row' if count == 1 else 'rows'})"
    if tally.saturated_frames:
        facts["frames with saturated pixels"] = f"{tally.saturated_frames:,}"
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl class="facts">{items}</dl>'


def _molecules_in_draws(tally: Tally) -> dict[str, str]:
    """Give how many molecules draws hold, and their spread, which is the error bar of a count."""
    counts = tally.per_draw
    if not counts.size:
        return {}
    spread = f" ± {counts.std(ddof=1):,.0f}" if counts.size > 1 else ""
    name = "molecules in each draw, also those too unsure for a row"
    return {name: f"{counts.mean():,.0f}{spread}"}


def _rule_of_trust(content: ReportContent) -> str:
    """Say by what rule a place is red in the map of trust, and how much of field and rows is."""
    verdict, tally, images = content.verdict, content.tally, content.images
    sigma_px = content.assumptions.sigma_px
    mean_chi2 = images.chi2 / max(images.frames, 1)
    doubts = region_doubts(mean_chi2, images.doubt, images.frames, sigma_px)
    low, high = map_bounds(images.frames, sigma_px)
    rows = 100 * tally.in_doubt / max(tally.rows, 1)
    return (
        f"Not to be trusted: {100 * (1 - verdict.trusted_area):.1f} % of the field, {rows:.1f} % "
        "of the rows. A camera pixel is red where chi2 round it, averaged over all frames, is not "
        f"between {low:.2f} and {high:.2f} ({100 * doubts[REGION].mean():.1f} % of the field), or "
        "where the number of molecules round it varies among draws by more than its mean "
        f"({100 * doubts[UNSURE].mean():.1f} %). The latter are places of molecules that few draws "
        "have: most make no row."
    )


def _slider(content: ReportContent) -> str:
    by_name = {picture.name: picture for picture in content.pictures}
    first = by_name["reconstruction"]
    others = [by_name[n] for n in ("uncertainty", "relative_uncertainty", "trust", "widefield")]
    length_nm, label = scale_bar(content.images.shape[1] * content.images.pixel_nm)
    share = 100 * length_nm / (content.images.shape[1] * content.images.pixel_nm)
    seconds = "".join(
        f'<img class="second{" shown" if k == 0 else ""}" data-name="{p.name}" '
        f'src="{_picture(p)}" alt="{escape(p.title)}">'
        for k, p in enumerate(others)
    )
    choices = "".join(
        f'<label><input type="radio" name="second" value="{p.name}"'
        f"{' checked' if k == 0 else ''}> {escape(p.title)}</label>"
        for k, p in enumerate(others)
    )
    keys = "".join(
        f'<div class="key" data-name="{p.name}"{"" if k == 0 else " hidden"}>'
        f"{escape(p.title)}: {p.low:.3g} to {p.high:.3g} {escape(p.unit)} "
        f'<span class="muted">({escape(p.contrast)})</span></div>'
        for k, p in enumerate(others)
    )
    return (
        '<div class="stage slider"><div class="compare" style="--split: 50%">'
        f'<img src="{_picture(first)}" alt="{escape(first.title)}">{seconds}'
        f'<div class="scale" style="width: {share:.2f}%">{escape(label)}</div>'
        '<div class="edge"></div></div><div class="tools">'
        '<label class="grow">left | right <input type="range" min="0" max="100" value="50" '
        'aria-label="where the two images meet"></label>'
        f"{choices}</div>"
        f'<p class="muted">{escape(_rule_of_trust(content))}</p>'
        f'<div class="keys"><div class="key">{escape(first.title)}: 0 to {first.high:.3g} '
        f'{escape(first.unit)} <span class="muted">({escape(first.contrast)})</span></div>{keys}'
        "</div></div>"
    )


def _assumed(content: ReportContent) -> str:
    assumptions = content.assumptions
    learned, camera = assumptions.learned, assumptions.camera
    notes = "".join(f"<li>{escape(note)}</li>" for note in assumptions.notes)
    warnings = "".join(f"<li>Care: {escape(note)}.</li>" for note in assumptions.warnings)
    sigma_x, sigma_y = assumptions.sigma_px
    density = learned.prior.density_per_px2 / (content.tally.pixel_nm / 1000) ** 2
    return (
        f"<ul>{notes}{warnings}"
        f"<li>{escape(_camera(content))}</li>"
        f"<li>PSF: Gaussian, {sigma_x:.3f} x {sigma_y:.3f} px "
        f"({sigma_x * content.tally.pixel_nm:.0f} x {sigma_y * content.tally.pixel_nm:.0f} nm)."
        "</li>"
        f"<li>Learned from the movie: {density:.2f} emitters per square micrometre and frame, "
        f"{learned.prior.photons.mean / camera.quantum_efficiency:.0f} photons on average, "
        f"background {learned.background_e.mean() / camera.quantum_efficiency:.1f} photons per "
        f"pixel, from {learned.emitters:.0f} emitters.</li></ul>"
        f"{prior_chart(learned.prior.photons, camera.quantum_efficiency)}"
    )


def _camera(content: ReportContent) -> str:
    """Say which camera was assumed, in ADU and electrons."""
    camera, tally = content.assumptions.camera, content.tally
    noise = np.sqrt(tally.read_variance_e2)
    noisy = int((noise > NOISY * np.median(noise)).sum())
    parts = [
        f"offset {np.median(camera.offset_adu):.1f} ADU",
        f"gain {np.median(camera.gain_adu_per_e):.3g} ADU per electron",
        f"read noise {np.median(noise):.2f} electrons",
        f"quantum efficiency {camera.quantum_efficiency:g}",
    ]
    if camera.em_gain > 1:
        parts.append(f"electron multiplication, excess noise {camera.excess_noise:.2f}")
    if camera.saturation_adu is not None:
        parts.append(f"saturation at {camera.saturation_adu:,} ADU")
    maps = " (medians of its maps)" if camera.shape else ""
    return (
        f"Camera{maps}: {', '.join(parts)}; {noisy:,} {'pixel' if noisy == 1 else 'pixels'} with "
        f"more than {NOISY:g} times the usual read noise. Pixels are {tally.pixel_nm:g} nm."
    )


def _picture(picture: Picture) -> str:
    return _embedded(indexed_png(picture, PAGE_PX))


def _embedded(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
