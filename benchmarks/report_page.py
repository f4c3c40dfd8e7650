"""How large the report of a million rows is, and how soon a browser shows its molecules.

    python benchmarks/report_page.py [--rows N] [--out FILE]

Needs Playwright and Chromium (`SURELOC_CHROMIUM`, by default /usr/bin/chromium) for the times. The
rows are made up: uniform over 51 um, precision 2 to 30 nm, so that nothing compresses by chance.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

from sureloc.camera import Camera
from sureloc.localize.crowding import Crowding
from sureloc.localize.doubles import Doubles
from sureloc.localize.faintness import Faint
from sureloc.localize.images import ImageSums
from sureloc.localize.learning import LearnedPrior
from sureloc.localize.movie import Assumptions
from sureloc.localize.tally import WINDOW_PX, Tally, View
from sureloc.localize.verdict import Trust, Verdict
from sureloc.physics.priors import PhotonPrior, ScenePrior
from sureloc.report.molecules import Molecules
from sureloc.report.page import ReportContent, write_report
from sureloc.report.pictures import Overview, averaged_down, pictures_of
from sureloc.table import LOCALIZATION_COLUMNS

LIMIT_MB = 20.0
REASONS = ("the image model does not fit here", "the frame leaves its position open")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def made_up_rows(number: int, side_px: int, frames: int, seed: int = 0) -> pd.DataFrame:
    """Give rows with `LOCALIZATION_COLUMNS`, uniform over a square of pixels of 100 nm."""
    rng = np.random.default_rng(seed)
    field = 100.0 * side_px
    x, y = rng.uniform(-50, field - 50, (2, number))
    photons = rng.lognormal(np.log(1200), 0.8, number)
    sigma = 200 / np.sqrt(photons) * rng.lognormal(0, 0.25, number)
    sx, sy = sigma * rng.lognormal(0, 0.1, (2, number))
    certain = rng.random(number) < 0.6
    trusted = rng.random(number) < 0.85
    ends = 1.96 * rng.lognormal(0, 0.08, (4, number))
    table = pd.DataFrame(
        {
            "frame": np.sort(rng.integers(0, frames, number)),
            "x_nm": x,
            "y_nm": y,
            "sigma_x_nm": sx,
            "sigma_y_nm": sy,
            "cov_xy_nm2": 0.1 * sx * sy,
            "photons": photons,
            "sigma_photons": 0.08 * photons * rng.lognormal(0, 0.3, number),
            "background_photons": 20 + 8 * np.sin(x / 9000) * np.cos(y / 7000),
            "p_exists": np.where(
                certain, rng.uniform(0.98, 1, number), rng.uniform(0.5, 1, number)
            ),
            "crlb_x_nm": sx,
            "crlb_y_nm": sy,
            "chi2": rng.normal(1, 0.1, number),
            "x_lo95_nm": x - ends[0] * sx,
            "x_hi95_nm": x + ends[1] * sx,
            "y_lo95_nm": y - ends[2] * sy,
            "y_hi95_nm": y + ends[3] * sy,
            "x_lo68_nm": x - ends[0] * sx / 2,
            "x_hi68_nm": x + ends[1] * sx / 2,
            "y_lo68_nm": y - ends[2] * sy / 2,
            "y_hi68_nm": y + ends[3] * sy / 2,
            "trusted": trusted,
            "reason": np.where(trusted, "", np.array(REASONS)[rng.integers(0, 2, number)]),
        }
    )
    names = [column.name for column in LOCALIZATION_COLUMNS]
    return table.sort_values(["frame", "y_nm"], ignore_index=True)[names]


def content_of(table: pd.DataFrame, name: str, side_px: int, frames: int) -> ReportContent:
    """Give what a report shows, with the rows of a table and everything else made up."""
    rng = np.random.default_rng(1)
    shape = (side_px, side_px)
    edges = np.arange(8 * side_px + 1) * 12.5 - 50
    images = ImageSums(shape, 8, 100.0)
    mean = np.histogram2d(table["y_nm"], table["x_nm"], [edges, edges])[0]
    sd = np.sqrt(0.3 * mean)
    images.widefield_e += 1000 * rng.random(shape)
    images.chi2 += frames * rng.normal(1, 0.1, shape)
    images.frames = frames
    prior = ScenePrior(0.01, PhotonPrior.log_normal(1200.0, 0.8), 20.0, 2.0)
    camera = Camera(offset_adu=100.0, gain_adu_per_e=2.0, variance_adu2=9.0, saturation_adu=65535)
    learned = LearnedPrior(prior, np.full(shape, 20.0), np.zeros((1, 3)), 100.0)
    assumptions = Assumptions(
        camera, (1.3, 1.3), learned, Crowding.__new__(Crowding), ("The camera was given.",), ()
    )
    verdict = Verdict(
        Trust.CARE, "Trust with care: made up.", 1.0, 0.85, 0.9, rng.random(shape) < 0.9
    )
    molecules = Molecules(table, len(table), 100.0, 130.0, 2.25, 2.0, (0, 0, *shape))
    trusted = verdict.mask.astype(float).repeat(8, axis=0).repeat(8, axis=1)
    ratio = np.divide(sd, mean, out=np.zeros_like(sd), where=mean > 0)
    overview = Overview(*(averaged_down(one, 12.5) for one in (mean, sd, ratio, trusted)))
    pictures = tuple(pictures_of(images, overview))
    tally = _tally(table, shape, frames)
    return ReportContent(
        *(name, verdict, tally, images, assumptions, pictures, molecules, 0, 0, 0),
        *({}, {"command": f"sureloc localize {'a folder of many words ' * 9}--out made_up"}),
    )


def _tally(table: pd.DataFrame, shape: tuple[int, int], frames: int) -> Tally:
    faint = Faint((1.2, 1.2), 1.0, 2.25, 1.0)
    tally = Tally(100.0, frames, np.full(shape, 2.25), 1.0, Doubles(120.0), faint)
    tally.add(table, 0, np.zeros(frames, int))
    image = np.random.default_rng(2).poisson(20.0, (WINDOW_PX, WINDOW_PX))[: shape[0], : shape[1]]
    for frame in sorted({0, frames // 2, frames - 1}):
        view = View(
            frame=frame,
            why="made up",
            top=0,
            left=0,
            electrons=image.astype(np.float32),
            expected_e=np.full(image.shape, 20.0, np.float32),
            chi2=1.0,
            rows=int((table["frame"] == frame).sum()),
        )
        tally.show(view, table[table["frame"] == frame], frame)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=Path("million.html"))
    options = parser.parse_args()
    table = made_up_rows(options.rows, 512, 2000)
    begin = time.perf_counter()
    write_report(options.out, content_of(table, "million.tif", 512, 2000))
    size = options.out.stat().st_size / 1e6
    print(f"{options.rows:,} rows: {size:.1f} MB in {time.perf_counter() - begin:.0f} s")
    measure(options.out)
    if size >= LIMIT_MB:
        raise SystemExit(f"The report has {size:.1f} MB; it must stay below {LIMIT_MB:g} MB.")


def measure(path: Path) -> None:
    """Open a report in Chromium and print how long things take."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("SURELOC_CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(path.resolve().as_uri())
        page.locator("#molecules").wait_for(timeout=120_000)
        page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        read, unpacked, shown = page.evaluate(
            "['read', 'unpacked', 'shown'].map("
            "(name) => performance.getEntriesByName(`molecules-${name}`)[0].startTime / 1000)"
        )
        filtered, drawn, closer, pointed = (
            page.evaluate(
                f"() => {{ const t = performance.now(); {deed}; return performance.now() - t; }}"
            )
            for deed in (
                "viewer.filter({ ...NO_LIMITS, trustedOnly: true })",
                "viewer.drawAnew()",
                "viewer.zoom(8); viewer.drawAnew()",
                "viewer.chooseNear(300, 300, 'mouse')",
            )
        )
        browser.close()
    print(
        f"page read after {read:.2f} s, unpacked {unpacked:.2f} s, first picture {shown:.2f} s; "
        f"filtering {filtered:.0f} ms; drawing the whole field "
        f" {drawn:.0f} ms, an eighth of its width {closer:.0f} ms; pointing {pointed:.0f} ms"
    )


if __name__ == "__main__":
    main()
