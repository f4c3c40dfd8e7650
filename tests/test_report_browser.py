"""The report in a real browser: what mouse, wheel, keys and fingers do, and what is downloaded."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import shlex
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from conftest import ROOT
from sureloc.analysis.filtering import rows_that_satisfy
from sureloc.io.exchange.formats import read_localizations
from sureloc.io.exchange.localizations import Geometry, Reading
from sureloc.io.exchange.thunderstorm import ThunderstormWriter
from sureloc.io.tables import write_table
from sureloc.report.audit import audit_run, write_audit
from sureloc.report.packing import sigma_nm
from sureloc.report.page import write_report
from sureloc.table import LOCALIZATION_COLUMNS

SIDE_PX, FRAMES, ROWS = 32, 12, 3000
NAME = "</script><script>alert(1)</script>&.ome.tif"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
COUNTS = r"([\d,]+) of ([\d,]+) localizations shown"


def made_up():
    """Give the module that makes reports up."""
    path = ROOT / "benchmarks/report_page.py"
    spec = importlib.util.spec_from_file_location("report_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return made_up().made_up_rows(ROWS, SIDE_PX, FRAMES, seed=5)


@pytest.fixture(scope="module")
def report(table, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "a report.html"
    write_report(path, made_up().content_of(table, NAME, SIDE_PX, FRAMES))
    return path


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; skips where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api",
        reason="the report is not looked at in a browser: Playwright is not installed "
        "(pip install 'sureloc[test]')",
    )
    program = os.environ.get("SURELOC_CHROMIUM") or shutil.which("chromium")
    if not program:
        pytest.skip(
            "the report is not looked at in a browser: Chromium is not installed (Debian: apt-get "
            "install chromium; elsewhere set SURELOC_CHROMIUM to its program)"
        )
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=program, args=list(FLAGS))
        yield chromium
        chromium.close()


def settled(page) -> None:
    """Wait until what was asked for is drawn."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def wait_for_molecules(page) -> None:
    page.locator("#molecules").wait_for()
    settled(page)


class Watched:
    """A page, and what went wrong on it."""

    def __init__(self, browser, path: Path, **options):
        self.context = browser.new_context(accept_downloads=True, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog {dialog.message}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        wait_for_molecules(self.page)


@pytest.fixture(scope="module")
def desktop(browser, report):
    watched = Watched(browser, report, viewport={"width": 1280, "height": 900})
    yield watched
    watched.context.close()
    assert watched.wrong == []


@pytest.fixture
def page(desktop):
    """The report as it is when it is opened."""
    desktop.page.reload()
    wait_for_molecules(desktop.page)
    return desktop.page


@pytest.fixture(scope="module")
def phone(browser, report):
    watched = Watched(
        *(browser, report),
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
        device_scale_factor=2,
    )
    watched.session = watched.context.new_cdp_session(watched.page)
    yield watched
    watched.context.close()
    assert watched.wrong == []


# --- Reading the page as people do --------------------------------------------------------------


def shown_rows(page) -> int:
    return int(re.search(COUNTS, page.inner_text("#counts"))[1].replace(",", ""))


def box_of(page, selector="#picture") -> dict[str, float]:
    page.locator(selector).scroll_into_view_if_needed()
    return page.locator(selector).bounding_box()


def move_to(page, px: float, py: float) -> None:
    """Move the mouse to a place of the picture, on whole pixels of the screen as a mouse does."""
    box = box_of(page)
    page.mouse.move(round(box["x"] + px), round(box["y"] + py))
    settled(page)


def picture_of(page) -> np.ndarray:
    """Give the picture without marks, (height, width, 3), 0 to 1."""
    url = page.evaluate("at('picture').toDataURL('image/png')")
    return imread(BytesIO(base64.b64decode(url.split(",")[1])))[..., :3]


def place_at(page, px: float, py: float) -> np.ndarray:
    """Point at a place of the picture; give the position that the page then shows, nm."""
    move_to(page, px, py)
    found = re.fullmatch(r"pointer: x (\S+) nm, y (\S+) nm", page.inner_text("#place"))
    return np.array([float(found[k].replace(",", "").replace("−", "-")) for k in (1, 2)])


def nm_per_px(page) -> float:
    """Measure with the pointer how many nm a pixel of the picture covers."""
    left, right = place_at(page, 100, 150), place_at(page, 500, 150)
    return float(right[0] - left[0]) / 400


def bar(page) -> tuple[float, float]:
    """Give length in nm, as written, and width in px of the scale bar."""
    number, unit = page.inner_text("#scale").split()
    return float(number) * {"nm": 1, "µm": 1000}[unit], box_of(page, "#scale")["width"]


def point_at(page, x_nm: float, y_nm: float) -> tuple[int, int]:
    """Point at a position, found by what the page says about two others; give its pixel."""
    first, second = place_at(page, 100, 100), place_at(page, 500, 400)
    scale = (second - first) / np.array([400, 300])
    px, py = np.array([100, 100]) + (np.array([x_nm, y_nm]) - first) / scale
    move_to(page, px, py)
    return round(px), round(py)


def readout(page) -> dict[str, str]:
    names, values = (page.locator(f"#readout {tag}").all_inner_texts() for tag in ("dt", "dd"))
    return dict(zip(names, values, strict=True))


def numbers(text: str) -> list[float]:
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", text.replace(",", ""))]


def slide(page, name: str, share: float) -> str:
    """Set a slider by keys, roughly to a share of its way; give what it says then."""
    slider = page.locator(f"#{name}")
    low, high = (int(slider.get_attribute(end)) for end in ("min", "max"))
    slider.focus()
    page.keyboard.press("Home")
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 8 + share * (box["width"] - 16), box["y"] + box["height"] / 2)
    page.keyboard.press("ArrowRight")
    assert low < int(slider.input_value()) < high
    return page.inner_text(f"#{name}-is")


def python_filter(table: pd.DataFrame, limits: dict) -> pd.Series:
    """Say which rows pass limits that are values, or None."""
    keep = pd.Series(True, table.index)
    for name, values, below in (
        ("sigma_below", sigma_nm(table), True),
        ("probability_from", table["p_exists"], False),
        ("photons_from", table["photons"], False),
        ("photons_below", table["photons"], True),
        ("frame_from", table["frame"], False),
    ):
        if limits.get(name) is not None:
            keep &= values < limits[name] if below else values >= limits[name]
    if limits.get("frame_to") is not None:
        keep &= table["frame"] <= limits["frame_to"]
    return keep & table["trusted"] if limits.get("trusted_only") else keep


# --- The page -----------------------------------------------------------------------------------


def test_it_opens_alone_and_runs_no_strange_script(desktop, page):
    assert page.inner_text("h1") == NAME
    assert page.title() == f"{NAME}: sureloc"
    assert page.inner_text("#counts").startswith(f"{ROWS:,} of {ROWS:,} localizations shown")
    assert {url.split(":")[0] for url in desktop.asked} <= {"file", "data"}
    assert desktop.wrong == []


def test_everything_the_report_shows_is_there(page):
    titles = page.locator("h2").all_inner_texts()
    assert titles == [
        "Look at the molecules",
        "Reconstruction and its uncertainty",
        "How precise, and against what is possible",
        "Localizations: how many, how bright, how sure",
        "Does the image model fit?",
        "Frames to look at",
        "What was assumed",
        "How it came about",
    ]
    for picture in page.locator("svg").all():
        assert picture.get_attribute("aria-label")
    split = page.locator(".slider input[type=range]")
    split.focus()
    page.keyboard.press("Home")
    assert "--split: 0%" in page.locator(".compare").get_attribute("style")
    page.get_by_label("Relative uncertainty").check()
    assert page.locator("img.second.shown").get_attribute("data-name") == "relative_uncertainty"


def test_without_rows_or_in_an_old_browser_it_says_so(browser, report, table, tmp_path):
    empty = tmp_path / "empty.html"
    write_report(empty, made_up().content_of(table.iloc[:0], "none", SIDE_PX, 1))
    context = browser.new_context()
    page = context.new_page()
    page.goto(empty.as_uri())
    page.get_by_text("No molecules were found.").wait_for()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(report.as_uri())
    page.get_by_text("This browser is too old to unpack").wait_for()
    assert page.locator("#molecules").is_hidden()
    context.close()


# --- Filters ------------------------------------------------------------------------------------


def test_the_median_precision_of_all_rows_is_one_number(page):
    said = re.search(r"median precision (\S+) nm", page.inner_text("#counts"))[1]
    stated = page.locator(".facts div", has_text="median precision").first.locator("dd")
    assert stated.inner_text() == f"{said} nm"


def test_sliders_count_what_pandas_counts(page, table):
    limits = {
        "sigma_below": numbers(slide(page, "sigma-below", 0.6))[0],
        "probability_from": numbers(slide(page, "probability-from", 0.4))[0],
        "photons_from": numbers(slide(page, "photons-from", 0.3))[0],
        "photons_below": numbers(slide(page, "photons-below", 0.9))[0],
        "frame_from": int(slide(page, "frame-from", 0.2)),
        "frame_to": int(slide(page, "frame-to", 0.7)),
        "trusted_only": True,
    }
    page.get_by_label("only trusted ones").check()
    kept = table[python_filter(table, limits)]
    assert 100 < len(kept) < 0.6 * len(table)
    assert shown_rows(page) == len(kept)
    words = page.inner_text("#counts")
    assert f"{len(kept):,} of them trusted" in words
    expected = int(re.search(r"([\d,]+) expected to exist", words)[1].replace(",", ""))
    assert expected == pytest.approx(kept["p_exists"].sum(), rel=0.005)
    median = float(re.search(r"median precision (\S+) nm", words)[1])
    assert median == pytest.approx(np.median(sigma_nm(kept)), rel=0.002, abs=0.06)
    # What the page says about Python is true, too.
    query = re.fullmatch(r'table\.query\("(.*)"\)', page.inner_text("#query"))[1]
    assert table.query(query).index.tolist() == kept.index.tolist()
    said = shlex.split(page.inner_text("#command"))
    assert said[:3] == ["sureloc", "filter", "localizations.parquet"]
    assert np.flatnonzero(rows_that_satisfy(table, said[3])).tolist() == kept.index.tolist()
    page.get_by_role("button", name="all again").click()
    assert shown_rows(page) == len(table)
    assert page.locator("#query-part").is_hidden()


def test_doubts_are_counted_by_reason(page, table):
    slide(page, "frame-to", 0.5)
    kept = table[table["frame"] <= int(page.inner_text("#frame-to-is"))]
    told = dict(line.split(": ")[::-1] for line in page.locator("#doubts li").all_inner_texts())
    counts = kept["reason"][~kept["trusted"]].value_counts()
    assert {reason: int(count.replace(",", "")) for reason, count in told.items()} == dict(counts)


def test_the_pages_filter_and_pandas_agree_on_any_limits(page, table):
    rng = np.random.default_rng(8)
    edges = page.evaluate(
        "Object.fromEntries(Object.entries(viewer.rows.reading).map(([k, v]) => [k, v.edges]))"
    )
    asked, wanted = [], []
    for _ in range(200):
        limits = {}
        for ours, theirs, column in (
            ("sigma_below", "sigmaBelow", "sigma"),
            ("probability_from", "probabilityFrom", "p_exists"),
            ("photons_from", "photonsFrom", "photons"),
            ("photons_below", "photonsBelow", "photons"),
        ):
            k = int(rng.integers(len(edges[column]))) if rng.random() < 0.4 else None
            limits[ours, theirs] = (k, None if k is None else edges[column][k])
        for ours, theirs in (("frame_from", "frameFrom"), ("frame_to", "frameTo")):
            frame = int(rng.integers(FRAMES)) if rng.random() < 0.4 else None
            limits[ours, theirs] = (frame, frame)
        trusted = bool(rng.random() < 0.4)
        limits["trusted_only", "trustedOnly"] = (trusted, trusted)
        asked.append({theirs: there for (_, theirs), (there, _) in limits.items()})
        keep = python_filter(table, {ours: here for (ours, _), (_, here) in limits.items()})
        kept = np.flatnonzero(keep)
        wanted.append([kept.size, int(kept.sum()), int((kept**2).sum())])
    # Number, sum, and sum of squares of the kept rows' numbers tell any two sets apart here.
    found = page.evaluate(
        """(all) => all.map((one) => [...keptRows(viewer.rows, one)].reduce(
            ([n, s, q], i) => [n + 1, s + i, q + i * i], [0, 0, 0]))""",
        asked,
    )
    assert found == wanted
    assert sum(number > 0 for number, *_ in wanted) > 50


def test_the_picture_follows_the_filters_at_once(page):
    def seen(page) -> int:
        return int((picture_of(page).max(2) > 0.15).sum())

    lit = "densityOf(viewer.rows, viewer.kept, viewer.view, 1).values.reduce((a, b) => a + b, 0)"
    before, rows, mass = seen(page), shown_rows(page), page.evaluate(lit)
    page.locator("#trusted-only").focus()
    page.keyboard.press("Space")
    slide(page, "frame-from", 0.8)
    settled(page)
    assert shown_rows(page) < 0.3 * rows
    assert seen(page) < 0.5 * before
    # The light in the picture is the number of rows: spots have unit mass, wherever they lie.
    share = page.evaluate(lit) / mass
    assert share == pytest.approx(shown_rows(page) / rows, rel=0.02)


# --- Moving about -------------------------------------------------------------------------------


def test_the_scale_bar_is_right_at_every_zoom(page):
    seen = set()
    for _ in range(9):
        length, width = bar(page)
        # Positions are written to a tenth of a nm or to whole ones.
        assert length / width == pytest.approx(nm_per_px(page), rel=0.01)
        assert 60 < width < 300
        seen.add(length)
        move_to(page, 300, 250)
        page.mouse.wheel(0, -250)
        settled(page)
    assert len(seen) > 5


def test_the_wheel_zooms_about_the_pointer_and_then_scrolls_the_page(page):
    before, scale = place_at(page, 220, 310), nm_per_px(page)
    place_at(page, 220, 310)
    page.mouse.wheel(0, -300)
    settled(page)
    assert place_at(page, 220, 310) == pytest.approx(before, abs=1.5)
    assert nm_per_px(page) == pytest.approx(scale / np.e, rel=0.01)
    place_at(page, 220, 310)
    for _ in range(3):
        page.mouse.wheel(0, 300)
        settled(page)
    assert nm_per_px(page) == pytest.approx(scale, rel=0.01)
    top = page.evaluate("scrollY")
    page.mouse.wheel(0, 300)
    for _ in range(100):
        settled(page)
        if page.evaluate("scrollY") > top:
            break
    assert page.evaluate("scrollY") > top


def test_dragging_moves_what_is_under_the_pointer(page):
    page.get_by_role("button", name="zoom in").click()
    page.get_by_role("button", name="zoom in").click()
    settled(page)
    before, box = place_at(page, 200, 200), box_of(page)
    page.mouse.down()
    page.mouse.move(box["x"] + 260, box["y"] + 170, steps=5)
    page.mouse.move(box["x"] + 320, box["y"] + 140, steps=5)
    page.mouse.up()
    settled(page)
    assert place_at(page, 320, 140) == pytest.approx(before, abs=1.5)


def test_keys_alone_do_everything(page):
    page.locator("#picture").focus()
    middle = page.inner_text("#place")
    page.keyboard.press("+")
    page.keyboard.press("+")
    settled(page)
    length, width = bar(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    settled(page)
    moved = np.array(numbers(page.inner_text("#place"))) - numbers(middle)
    assert moved == pytest.approx([60 * length / width] * 2, abs=1.5)
    page.keyboard.press("n")
    first = readout(page)
    assert first["x"] in page.inner_text("#spoken")
    page.keyboard.press("n")
    assert readout(page) != first
    page.keyboard.press("p")
    assert readout(page) == first
    page.keyboard.press("Escape")
    assert readout(page) == {}
    page.keyboard.press("0")
    settled(page)
    assert page.inner_text("#place") == middle


def test_zooming_keeps_the_molecule_that_was_chosen(page):
    page.locator("#picture").focus()
    for _ in range(40):
        page.keyboard.press("n")
    row = readout(page)["row of the table"]
    for _ in range(12):
        page.keyboard.press("+")
    settled(page)
    assert readout(page)["row of the table"] == row
    here = page.evaluate("rowsInView(viewer.rows, viewer.kept, viewer.view, 1e9)")
    assert int(row.replace(",", "")) - 1 in here


def test_an_empty_view_says_so(page):
    page.evaluate("viewer.filter({ ...NO_LIMITS, frameFrom: 1e6 })")
    settled(page)
    assert page.inner_text("#density-end") == "no localization in view"
    page.get_by_role("button", name="all again").click()
    settled(page)
    assert "localizations per µm² or more" in page.inner_text("#density-end")


def test_stepping_visits_every_row_in_view_once_from_the_middle_outwards(page, table):
    page.locator("#picture").focus()
    for _ in range(8):
        page.keyboard.press("+")
    settled(page)
    here = page.evaluate("rowsInView(viewer.rows, viewer.kept, viewer.view, 1e9)")
    middle = np.array(numbers(page.inner_text("#place")))
    visited = []
    for _ in range(len(here) + 2):
        page.keyboard.press("n")
        visited.append(int(readout(page)["row of the table"].replace(",", "")) - 1)
    assert len(here) > 5
    assert visited[-3:] == [visited[-1]] * 3  # the last one stays
    assert sorted(set(visited)) == sorted(here)
    far = np.hypot(*(table.loc[visited, ["x_nm", "y_nm"]].to_numpy() - middle).T)
    assert (np.diff(far) > -1).all()


def test_focus_goes_through_the_page_in_order_and_is_seen(page):
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    order, ring = [], []
    for _ in range(19):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.type"))
        ring.append(page.evaluate("getComputedStyle(document.activeElement).outlineStyle"))
    assert order == [
        *("zoom-in", "zoom-out", "whole", "brightness", "picture"),
        *("sigma-below", "probability-from", "photons-from", "photons-below"),
        *("frame-from", "frame-to", "trusted-only", "reset", "previous", "next", "save-csv"),
        *("save-png",),
        *("range", "radio"),
    ]
    assert set(ring) == {"solid"}


def tab_to(page, name: str) -> None:
    """Press Tab until a control has the focus."""
    for _ in range(30):
        if page.evaluate("document.activeElement.id") == name:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {name}")


def limits_said(page) -> dict[str, float | None]:
    """Read the limits that the page writes beside its sliders."""
    said = {}
    for name in SLIDERS:
        text = page.inner_text(f"#{name}-is")
        said[name.replace("-", "_")] = None if text == "any" else numbers(text)[0]
    return said


SLIDERS = {  # which keys move each, by a tenth of its way and by a step
    "sigma-below": ("PageDown", "ArrowLeft"),
    "probability-from": ("PageUp", "ArrowRight"),
    "photons-from": ("PageUp", "ArrowRight"),
    "photons-below": ("PageDown", "ArrowLeft"),
    "frame-from": ("PageUp", "ArrowRight"),
    "frame-to": ("PageDown", "ArrowLeft"),
}


def test_without_a_mouse_all_sliders_move_and_both_files_are_saved(page, table, tmp_path):
    for name, (far, step) in SLIDERS.items():
        tab_to(page, name)
        rows = shown_rows(page)
        if not name.startswith("frame"):
            for _ in range(2):
                page.keyboard.press(far)
        for _ in range(2):
            before = int(page.locator(f"#{name}").input_value())
            page.keyboard.press(step)
            moved = int(page.locator(f"#{name}").input_value()) - before
            assert moved == (1 if step == "ArrowRight" else -1)
            kept = table[python_filter(table, limits_said(page))]
            assert shown_rows(page) == len(kept)
        assert len(kept) < rows
    tab_to(page, "trusted-only")
    page.keyboard.press("Space")
    kept = table[python_filter(table, {**limits_said(page), "trusted_only": True})]
    assert shown_rows(page) == len(kept) > 50
    tab_to(page, "save-csv")
    ids = pd.read_csv(saved(page, tmp_path, lambda: page.keyboard.press("Enter")))["id"]
    assert (ids == kept.index + 1).all()
    tab_to(page, "save-png")
    picture = imread(saved(page, tmp_path, lambda: page.keyboard.press("Enter")))
    assert np.abs(picture[..., :3] - picture_of(page)).max(2).mean() < 0.01  # but for the bar


def test_arrows_move_brightness_and_the_edge_between_two_pictures(page):
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    tab_to(page, "brightness")
    dark, end = picture_of(page).mean(), page.inner_text("#density-end")
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    # Where drawing is slow, the picture follows when the keys rest.
    page.locator("#density-end").filter(has_not_text=end).wait_for()
    page.wait_for_timeout(500)
    assert picture_of(page).mean() > 1.3 * dark
    tab_to(page, "save-png")
    page.keyboard.press("Tab")
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert "--split: 47%" in page.locator(".compare").get_attribute("style")


# --- Colour vision ------------------------------------------------------------------------------

VISION = ("achromatopsia", "deuteranopia", "protanopia")


@pytest.fixture
def seen_by(desktop, page):
    """Let the browser show the page as people with another colour vision see it."""
    session = desktop.context.new_cdp_session(page)

    def see(kind: str) -> None:
        session.send("Emulation.setEmulatedVisionDeficiency", {"type": kind})
        settled(page)

    yield see
    see("none")
    session.detach()


def on_screen(page, left: float, top: float, width: float, height: float) -> np.ndarray:
    """Give a part of the screen, (rows, columns, 3), 0 to 1."""
    clip = {"x": left, "y": top, "width": width, "height": height}
    return imread(BytesIO(page.screenshot(clip=clip)))[..., :3].astype(float)


def luminance(pixels: np.ndarray) -> np.ndarray:
    """Give relative luminance (WCAG 2) of sRGB."""
    linear = np.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other) -> float:
    """Give the ratio of contrast (WCAG 2) of two luminances."""
    return float((max(one, other) + 0.05) / (min(one, other) + 0.05))


@pytest.mark.parametrize("kind", VISION)
def test_marks_of_trusted_and_doubted_rows_differ_in_shape(page, table, seen_by, kind):
    seen_by(kind)
    row = alone(table, table["trusted"])
    marks = []
    for doubt in (0, 1):  # the same spot, so that nothing but the mark is another
        page.evaluate(
            """([i, doubt]) => {
                const { rows, view } = viewer;
                rows.codes.doubt[i] = doubt;
                viewer.move({ ...view, x: rows.x[i], y: rows.y[i], scale: 1 });
            }""",
            [int(row.name), doubt],
        )
        page.mouse.move(2, 2)  # away, so that no box is drawn round what is pointed at
        box = box_of(page)
        page.wait_for_timeout(300)  # where drawing is slow, the picture follows a little later
        place = (box["x"] + box["width"] / 2 - 9, box["y"] + box["height"] / 2 - 9)
        marks.append(on_screen(page, *np.round(place), 18, 18))
    if kind == "achromatopsia":
        assert np.ptp(marks, axis=3).max() < 0.02
    one, other = (luminance(mark) + 0.05 for mark in marks)
    differs = np.maximum(one / other, other / one) > 3  # WCAG 2, graphical objects
    assert differs.sum() > 40


@pytest.mark.parametrize("kind", VISION)
def test_the_map_of_trust_can_be_told_apart(page, seen_by, kind):
    seen_by(kind)
    page.get_by_label("Where the result can be trusted").check()
    split = page.locator(".slider input[type=range]")
    split.focus()
    page.keyboard.press("Home")
    page.mouse.move(2, 2)
    box = box_of(page, ".compare")
    shown = on_screen(page, box["x"] + 5, box["y"] + 5, box["width"] / 3, box["height"] / 3)
    colours, counts = np.unique(shown.reshape(-1, 3), axis=0, return_counts=True)
    first, second = luminance(colours[np.argsort(counts)[-2:]])
    assert contrast(first, second) > 3  # WCAG 2, graphical objects


@pytest.mark.parametrize("kind", VISION)
def test_verdicts_differ_by_a_sign_where_colours_look_alike(page, seen_by, kind):
    seen_by(kind)
    box = box_of(page, ".verdict strong")
    signs = []
    for verdict in ("trust", "care", "refuse"):  # the words stay, and are not looked at
        page.evaluate(f"document.querySelector('.verdict').className = 'verdict {verdict}'")
        settled(page)
        light = luminance(on_screen(page, box["x"], box["y"], 22, box["height"]))
        signs.append(light < 0.4)  # ink; grounds are lighter
        assert signs[-1].sum() > 15
    for k, sign in enumerate(signs):
        for other in signs[:k]:
            assert (sign != other).sum() > 20


# --- One molecule -------------------------------------------------------------------------------


def alone(table: pd.DataFrame, among=True) -> pd.Series:
    """Give the row of the inner field, and of those asked for, that is farthest from all others."""
    place = table[["x_nm", "y_nm"]].to_numpy()
    inner = ((place > 500) & (place < 100 * SIDE_PX - 600)).all(1)
    far = np.hypot(*(place[:, None] - place[None]).transpose(2, 0, 1))
    np.fill_diagonal(far, np.inf)
    return table.iloc[int(np.argmax(np.where(inner & among, far.min(1), 0)))]


def test_pointing_at_a_molecule_gives_its_numbers(page, table):
    row = alone(table)
    point_at(page, row["x_nm"], row["y_nm"])
    page.mouse.wheel(0, -250)
    settled(page)
    point_at(page, row["x_nm"], row["y_nm"])
    told = readout(page)
    assert int(told["row of the table"].replace(",", "")) == row.name + 1
    step = float(re.search(r"rounded to (\S+) nm", page.inner_text("#molecules"))[1])
    for axis in "xy":
        value, sigma, _, low, high = numbers(told[axis])
        assert value == pytest.approx(row[f"{axis}_nm"], abs=step / 2 + 0.06)
        assert sigma == pytest.approx(row[f"sigma_{axis}_nm"], rel=0.015, abs=0.06)
        ends = row[[f"{axis}_lo95_nm", f"{axis}_hi95_nm"]].to_numpy(float)
        assert [low, high] == pytest.approx(ends, abs=0.06 * sigma + step)
    photons, error = numbers(told["photons"])
    assert photons == pytest.approx(row["photons"], rel=0.003, abs=0.6)
    assert error == pytest.approx(row["sigma_photons"], rel=0.03, abs=0.6)
    assert numbers(told["exists with probability"])[0] == pytest.approx(
        100 * row["p_exists"], abs=0.31
    )
    assert numbers(told["frame"])[0] == row["frame"]
    assert told["trusted"] == ("yes" if row["trusted"] else f"no: {row['reason']}")


def test_passing_on_leaves_the_numbers_and_a_click_beside_takes_them(page, table):
    page.evaluate("viewer.filter({ ...NO_LIMITS, frameFrom: 3, frameTo: 3 })")
    row = table[table["frame"] == 3].iloc[7]
    point_at(page, row["x_nm"], row["y_nm"])
    told = readout(page)
    for px, py in np.random.default_rng(1).uniform(20, 500, (50, 2)):
        page.evaluate(f"viewer.choose({int(row.name)})")
        move_to(page, px, py)
        if readout(page) == told:  # nothing else is near
            page.mouse.click(*np.round([box_of(page)["x"] + px, box_of(page)["y"] + py]))
            break
    assert readout(page) == {}


def test_a_spot_lies_where_its_molecule_does(page, table):
    row = alone(table)
    frame = int(row["frame"])
    page.evaluate(f"viewer.filter({{...NO_LIMITS, frameFrom: {frame}, frameTo: {frame}}})")
    for _ in range(2):
        point_at(page, row["x_nm"], row["y_nm"])
        page.mouse.wheel(0, -300)
        settled(page)
    px, py = point_at(page, row["x_nm"], row["y_nm"])
    near = 60  # px, where no other row lies
    spot = picture_of(page).sum(2)[py - near : py + near, px - near : px + near]
    y, x = (where.mean() - near + 0.5 for where in np.nonzero(spot > 0.6 * spot.max()))
    # The mouse stands on whole pixels, and so do those of the picture.
    assert (x, y) == pytest.approx((0, 0), abs=1.5)
    assert spot.max() > 1


# --- Downloads ----------------------------------------------------------------------------------


def saved(page, folder: Path, deed) -> Path:
    """Do what downloads a file; give the file."""
    with page.expect_download() as waiting:
        deed()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def downloaded(page, button: str, folder: Path) -> Path:
    return saved(page, folder, page.get_by_role("button", name=button).click)


def test_the_table_holds_the_rows_shown_by_thunderstorms_rules(page, table, tmp_path):
    below = numbers(slide(page, "sigma-below", 0.5))[0]
    kept = table[python_filter(table, {"sigma_below": below})]
    path = downloaded(page, "Table of those shown", tmp_path)
    assert path.name == "script_script_alert_1_script_shown.csv"
    text = path.read_text(encoding="ascii")
    frame = Geometry(100.0, None, None, None, 130.0, 2.25, 2.0)
    with ThunderstormWriter(tmp_path / "run.csv", frame) as writer:
        writer.append(kept)
    exact = pd.read_csv(tmp_path / "run.csv")
    assert text.splitlines()[0] == (tmp_path / "run.csv").read_text().splitlines()[0]
    assert not re.search(r"\d[eE]|nan|inf", text.split("\n", 1)[1])
    raw = pd.read_csv(path)
    assert (raw["id"] == kept.index + 1).all()
    assert (raw["frame"] == kept["frame"].to_numpy() + 1).all()
    assert (raw["sigma [nm]"] == 130).all()
    assert (raw["uncertainty_xy [nm]"] < below).all()
    back = read_localizations(path, Reading(Geometry(100.0))).table
    step = float(re.search(r"rounded to (\S+) nm", page.inner_text("#molecules"))[1])
    for axis in "xy":
        assert np.abs(back[f"{axis}_nm"] - kept[f"{axis}_nm"].to_numpy()).max() <= step / 2 + 1e-3
    assert np.abs(back["photons"] / kept["photons"].to_numpy() - 1).max() < 0.003
    assert np.abs(back["background_photons"] / kept["background_photons"].to_numpy() - 1).max() < (
        0.012
    )
    # As exact as docs/report.md says; sigma's share of an axis is told in 250 steps.
    for name, error in (
        ("bkgstd [photon]", 0.011),
        ("uncertainty_xy [nm]", 0.006),
        ("sigma_photons", 0.03),
    ):
        assert raw[name].to_numpy() == pytest.approx(exact[name].to_numpy(), rel=error)
    for axis in "xy":
        name = f"uncertainty_{axis} [nm]"
        assert raw[name].to_numpy() == pytest.approx(exact[name].to_numpy(), rel=0.03)
    assert raw["p_exists"].to_numpy() == pytest.approx(exact["p_exists"].to_numpy(), abs=0.0031)
    assert set(raw["trusted"]) == {0, 1}
    assert (raw["trusted"] == exact["trusted"]).all()


def test_the_picture_is_what_is_seen_with_its_scale_bar(page, tmp_path):
    page.get_by_role("button", name="zoom in").click()
    settled(page)
    image = imread(downloaded(page, "Picture with scale bar", tmp_path))
    box = box_of(page)
    assert image.shape[:2] == pytest.approx((box["height"], box["width"]), abs=1)
    assert image[..., :3].max(2).mean() > 0.001
    _, width = bar(page)
    white = (image[-18, :, :3] > 0.99).all(1)
    assert white.sum() == pytest.approx(width, abs=2)


# --- A phone ------------------------------------------------------------------------------------


def touches(phone, kind: str, *points: tuple[float, float]) -> None:
    phone.session.send(
        "Input.dispatchTouchEvent",
        {
            "type": kind,
            "touchPoints": [{"x": x, "y": y, "id": k} for k, (x, y) in enumerate(points)],
        },
    )


def test_a_phone_shows_all_without_scrolling_sideways(phone):
    page = phone.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for selector in ("#picture", "#sigma-below", "#save-csv", ".compare", "svg >> visible=true"):
        box = page.locator(selector).first.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    for button in page.locator("button >> visible=true").all():
        assert button.bounding_box()["height"] >= 36


def test_words_are_not_broken_and_all_is_reached_without_keys(phone):
    page = phone.page
    page.get_by_role("button", name="next").click()
    first = readout(page)
    page.get_by_role("button", name="next").click()
    assert readout(page) != first != {}
    page.get_by_role("button", name="previous").click()
    assert readout(page) == first
    broken = """() => [...document.querySelectorAll("th")].filter((cell) => {
        const range = document.createRange();
        const words = [...cell.firstChild.textContent.matchAll(/\\S+/g)];
        return words.some(({ 0: word, index }) => {
            range.setStart(cell.firstChild, index);
            range.setEnd(cell.firstChild, index + word.length);
            return range.getClientRects().length > 1;
        });
    }).map((cell) => cell.textContent)"""
    assert page.evaluate(broken) == []
    page.evaluate("viewer.choose(null)")


def test_fingers_move_a_slider_and_save_the_table(phone, table, tmp_path):
    page = phone.page
    box = box_of(page, "#sigma-below")
    y, right = box["y"] + box["height"] / 2, box["x"] + box["width"] - 8
    touches(phone, "touchStart", (right, y))
    for k in range(1, 9):
        touches(phone, "touchMove", (right - k * box["width"] / 20, y))
    touches(phone, "touchEnd")
    settled(page)
    kept = table[python_filter(table, limits_said(page))]
    assert 50 < shown_rows(page) == len(kept) < 0.9 * len(table)
    for name, kind in (("save-csv", ".csv"), ("save-png", ".png")):
        box = box_of(page, f"#{name}")
        place = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        path = saved(page, tmp_path, lambda place=place: page.touchscreen.tap(*place))
        assert path.suffix == kind
        assert kind != ".csv" or (pd.read_csv(path)["id"] == kept.index + 1).all()
    box = box_of(page, "#filters [type=reset]")
    page.touchscreen.tap(box["x"] + 20, box["y"] + box["height"] / 2)
    assert shown_rows(page) == len(table)


def test_fingers_move_zoom_and_choose(phone):
    page = phone.page
    box = box_of(page)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    length, width = bar(page)
    before = length / width
    box = box_of(page)
    touches(phone, "touchStart", (x - 30, y), (x + 30, y))
    for k in range(1, 7):
        touches(phone, "touchMove", (x - 30 - 10 * k, y), (x + 30 + 10 * k, y))
    touches(phone, "touchEnd")
    settled(page)
    length, width = bar(page)
    assert length / width == pytest.approx(before / 3, rel=0.02)
    page.locator("#picture").scroll_into_view_if_needed()
    middle = np.array(numbers(page.inner_text("#place")))
    touches(phone, "touchStart", (x, y))
    for k in range(1, 7):
        touches(phone, "touchMove", (x + 8 * k, y - 5 * k))
    touches(phone, "touchEnd")
    settled(page)
    moved = np.array(numbers(page.inner_text("#place"))) - middle
    assert moved == pytest.approx(np.array([-48, 30]) * length / width, abs=8 * length / width)
    assert readout(page) == {}
    page.touchscreen.tap(x, y)
    settled(page)
    assert "photons" in readout(page)


# --- The audit ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def audited(tmp_path_factory) -> Path:
    """An audit of a table with a long name, whose molecules shine for three frames."""
    rng = np.random.default_rng(4)
    row = {column.name: 1.0 for column in LOCALIZATION_COLUMNS}
    row |= {"sigma_x_nm": 9.0, "sigma_y_nm": 9.0, "cov_xy_nm2": 0.0, "photons": 2000.0}
    table = pd.DataFrame([row | {"p_exists": 0.99, "trusted": True, "reason": ""}] * 900)
    place = np.repeat(rng.uniform(0, 9000, (300, 2)), 3, axis=0) + rng.normal(0, 9, (900, 2))
    table[["x_nm", "y_nm"]] = place
    table["frame"] = np.arange(900) // 60 * 4 + np.arange(900) % 3
    table["chi2"] = rng.normal(1.0, 0.1, 900)
    folder = tmp_path_factory.mktemp("audit")
    path = folder / f"{'a_long_name_without_a_place_to_break_' * 3}.parquet"
    write_table(table, path, LOCALIZATION_COLUMNS)
    write_audit(audit_run(path, camera_pixel_nm=100.0), folder / "out")
    return folder / "out"


@pytest.mark.parametrize("width", [1280, 390])
def test_the_audits_page_says_its_numbers_at_every_width(browser, audited, width):
    told = json.loads((audited / "audit.json").read_text(encoding="utf-8"))
    context = browser.new_context(
        viewport={"width": width, "height": 844}, is_mobile=width < 500, has_touch=width < 500
    )
    page = context.new_page()
    page.goto((audited / "audit.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.inner_text(".verdict strong >> nth=0") == told["sentence"]
    measured = [item for item in told["items"] if item["value"] is not None]
    assert len(measured) >= 2
    for item in told["items"]:
        part = page.locator(".verdict", has_text=item["question"])
        assert item["sentence"] in part.inner_text()
        box = part.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    for item, scale in zip(measured, page.locator("svg").all(), strict=True):
        number = f"{item['value']:.2f}"
        assert number in item["sentence"]
        assert scale.get_attribute("aria-label").startswith(number)
        dot, box = scale.locator("circle").bounding_box(), scale.bounding_box()
        # The scale goes from 0.5 to 2, in factors, with 10 of 560 left free at each end.
        share = 10 / 560 + 540 / 560 * np.log(item["value"] / 0.5) / np.log(4)
        middle = dot["x"] + dot["width"] / 2 - box["x"]
        assert middle == pytest.approx(share * box["width"], abs=1)
    context.close()
