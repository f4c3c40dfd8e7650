"""What the report holds: rows packed without loss that matters, and colours that all can read."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import zlib
from io import BytesIO

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from conftest import ROOT
from sureloc.io.tables import write_table
from sureloc.localize.tally import ExampleFrame
from sureloc.report.frames import DOUBTED, TRUSTED, example_pngs
from sureloc.report.molecules import COLOURS, file_stem
from sureloc.report.packing import (
    PROBABILITY_EDGES,
    bin_edges,
    bins,
    json_for_script,
    pack_rows,
    position_step_nm,
    read_rows,
    sigma_nm,
    stride_of,
)
from sureloc.report.page import PAGE_PX, write_report
from sureloc.report.pictures import TRUST_COLOURS, Picture, indexed_png
from sureloc.table import LOCALIZATION_COLUMNS

NAME = "</script><script>alert(1)</script>&.ome.tif"


def made_up():
    """Give the module that makes reports up."""
    path = ROOT / "benchmarks/report_page.py"
    spec = importlib.util.spec_from_file_location("report_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return made_up().made_up_rows(4000, 32, 12, seed=3)


def unpacked(packed) -> dict[str, np.ndarray]:
    """Read packed codes as their format says, in other words than the page's script."""
    data = np.frombuffer(zlib.decompress(base64.b64decode(packed.data)), np.uint8)
    rows, start, codes = packed.about["rows"], 0, {}
    for column in packed.about["columns"]:
        size = column["bytes"]
        planes = data[start : start + size * rows].reshape(size, rows)
        found = (planes.T.astype(np.int64) * 256 ** np.arange(size)).sum(1)
        if column["differences"]:
            found = np.cumsum(found) % 256**size
        codes[column["name"]] = found
        start += size * rows
    assert start == data.size
    return codes


def test_positions_come_back_to_half_a_step(table):
    packed = pack_rows(table, len(table))
    codes = unpacked(packed)
    reading = {column["name"]: column for column in packed.about["columns"]}
    for axis in "xy":
        origin, step = reading[axis]["origin"], reading[axis]["step"]
        back = origin + step * codes[axis]
        assert np.abs(back - table[f"{axis}_nm"]).max() <= 0.5 * step * (1 + 1e-6)
    assert (reading["frame"]["origin"] + codes["frame"] == table["frame"]).all()
    # A step is finer than a tenth of sigma, and not only of the median one.
    assert packed.step_nm < 0.1 * np.quantile(sigma_nm(table), 0.1)


@pytest.mark.parametrize("small", [0.013, 0.4, 3.3, 12.0, 75.0])
def test_steps_of_positions_are_round_and_fine(small):
    step = position_step_nm(np.array([small, small, 10 * small]))
    assert 1 / 40 < step / small <= 1 / 12
    assert float(f"{step:.0e}") == pytest.approx(step)


def test_everything_else_comes_back_to_half_a_bin(table):
    packed = pack_rows(table, len(table))
    codes = unpacked(packed)
    reading = {column["name"]: column for column in packed.about["columns"]}
    tolerance = {"sigma": 0.006, "photons": 0.003, "background": 0.012}
    truth = {
        "sigma": sigma_nm(table),
        "photons": table["photons"],
        "background": table["background_photons"],
    }
    for name, relative in tolerance.items():
        edges = np.array(reading[name]["edges"])
        middle = (edges[codes[name] - 1] + edges[codes[name]]) / 2
        assert np.abs(middle / truth[name] - 1).max() < relative
    reasons = ["", *packed.about["reasons"]]
    assert [reasons[code] for code in codes["doubt"]] == table["reason"].tolist()


@given(
    st.lists(
        st.one_of(st.floats(1e-3, 1e6), st.floats(-10, 10), st.just(float("nan"))), min_size=1
    ),
    st.sampled_from([0.005, 0.02, 0.05]),
)
def test_a_filter_on_bins_is_the_filter_on_values(values, step):
    values = np.array(values)
    edges = bin_edges(values, step)
    codes = bins(values, edges)
    finite = values[np.isfinite(values)]
    assert (np.diff(edges) > 0).all()
    assert finite.size == 0 or (edges[0] <= finite.min() and finite.max() < edges[-1])
    for k in {0, len(edges) // 2, len(edges) - 1}:
        assert ((codes > k) == (values >= edges[k])).all()
        assert (((codes <= k) & (codes > 0)) == (values < edges[k])).all()


def test_a_probability_of_one_passes_the_highest_filter():
    codes = bins(np.array([0.9949999, 0.995, 1.0, np.nan]), PROBABILITY_EDGES)
    assert codes.tolist() == [199, 200, 201, 0]


def test_intervals_that_do_not_exist_stay_so(table):
    holes = table.assign(x_lo95_nm=np.where(table.index % 7 == 0, np.nan, table["x_lo95_nm"]))
    codes = unpacked(pack_rows(holes, len(holes)))
    assert ((codes["x_lo"] == 0) == (holes.index % 7 == 0)).all()


def test_a_million_rows_stay_below_20_megabytes(tmp_path):
    module, side = made_up(), 512
    rows = module.made_up_rows(100_000, side, 2000, seed=2)
    content = module.content_of(rows, "m.tif", side, 2000)
    write_report(tmp_path / "report.html", content)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    data = len(re.search(r'id="molecules-data">([^<]*)<', text)[1])
    assert (len(text.encode("utf-8")) - data) + 10 * data < 20e6


def test_no_rows_can_be_packed(table):
    packed = pack_rows(table.iloc[:0], 0)
    assert packed.about["rows"] == 0


def test_long_tables_are_sampled_evenly(table, tmp_path):
    path = tmp_path / "rows.parquet"
    write_table(table, path, LOCALIZATION_COLUMNS)
    assert len(read_rows(path, len(table))) == len(table)
    some = read_rows(path, len(table), most=1500)
    assert stride_of(len(table), 1500) == 3
    assert np.allclose(some["x_nm"], table["x_nm"][::3])


def test_json_cannot_end_its_script_element():
    text = json_for_script({"name": NAME})
    assert "<" not in text
    assert json.loads(text)["name"] == NAME


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("cells 3.ome.tif", "cells_3"),
        ("stack.nd2", "stack"),
        (NAME, "script_script_alert_1_script"),
        ("../../x", "x"),
        ("", "sureloc"),
    ],
)
def test_downloads_have_harmless_names(name, stem):
    assert file_stem(name) == stem


def test_the_page_escapes_and_loads_nothing(table, tmp_path):
    module = made_up()
    odd = table.assign(reason=np.where(table["trusted"], "", "<img src=x onerror=alert(1)>"))
    write_report(tmp_path / "report.html", module.content_of(odd, NAME, 32, 1))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "alert(1)</script>" not in text
    assert "<img src=x" not in text
    assert text.count("<script") == text.count("</script>") == 3
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", text)
    assert "default-src 'none'" in text


def test_pictures_in_the_page_keep_their_colours_and_are_no_larger_than_it():
    image = np.linspace(0, 2, 3 * 1300).reshape(3, 1300)
    picture = Picture("name", "title", "unit", image, 10.0, "viridis", 0.0, 1.0, "how")
    shown = imread(BytesIO(indexed_png(picture, PAGE_PX)))
    assert max(shown.shape[:2]) <= PAGE_PX
    small = Picture("name", "title", "unit", image[:, ::2], 10.0, "viridis", 0.0, 1.0, "how")
    shown = imread(BytesIO(indexed_png(small, PAGE_PX)))
    expected = matplotlib.colormaps["viridis"](np.clip(image[:, ::2], 0, 1))
    # One of 256 levels, and 8 bits a colour.
    assert np.abs(shown[..., :3] - expected[..., :3]).max() < 0.02


def lightness(colour) -> float:
    """Give relative luminance (WCAG 2, sRGB)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("name", [COLOURS, "viridis", "cividis"])
def test_colour_maps_can_be_read_in_grey(name):
    ramp = [lightness(colour[:3]) for colour in matplotlib.colormaps[name](np.arange(256))]
    # Colours are rounded to 8 bits; nothing falls by more than that.
    assert np.diff(ramp).min() > -0.002
    assert ramp[-1] - ramp[0] > 0.5


def test_trust_can_be_read_in_grey():
    doubted, trusted = (lightness(to_rgb(colour)) for colour in TRUST_COLOURS)
    assert (doubted + 0.05) / (trusted + 0.05) > 3  # WCAG 2, graphical objects


def example(side: int) -> ExampleFrame:
    """A frame of noise with two rows in one corner, one of them not trusted."""
    image = np.random.default_rng(1).poisson(20.0, (side, side)).astype(float)
    rows = pd.DataFrame({"x_nm": [300.0, 700.0], "y_nm": 400.0, "trusted": [True, False]})
    rows = rows.assign(sigma_x_nm=60.0, sigma_y_nm=60.0)
    return ExampleFrame(3, "made up", 0, 0, image, np.full_like(image, 20.0), image, rows, 1.0)


def test_frames_are_grey_with_red_crosses_and_large_ones_magnified():
    small, large = (dict(example_pngs(example(side), 100.0)) for side in (60, 120))
    assert "measured, magnified" not in small
    assert list(large)[:3] == list(small)
    shown = {name: imread(BytesIO(png))[..., :3] for name, png in large.items()}
    for name in ("re-rendered from the emitters", "difference"):
        assert np.ptp(shown[name], axis=2).max() == 0
    measured, magnified = shown["measured"], shown["measured, magnified"]
    bar = measured[:, int(0.82 * measured.shape[1]) :]
    assert np.ptp(bar, axis=2).max() == 0
    for name in ("measured", "measured, magnified"):
        for colour in (TRUSTED, DOUBTED):
            # As it stands in a line's middle; at its edges it mixes with the grey beneath.
            assert np.abs(shown[name] - to_rgb(colour)).max(2).min() < 0.03, (name, colour)

    def red(picture):
        return int((picture[..., 0] - picture[..., 1] > 0.3).sum())

    assert red(magnified) > 1.3 * red(measured)


def test_circles_have_a_dark_edge_on_white():
    white = example(60)
    white.electrons[:10, :20] = 60.0
    measured = imread(BytesIO(dict(example_pngs(white, 100.0))["measured"]))[..., :3]
    lines = np.argwhere(np.abs(measured - to_rgb(TRUSTED)).max(2) < 0.1)
    near = np.array([measured[y - 4 : y + 5, x - 4 : x + 5].max(2).min() for y, x in lines])
    assert len(lines) > 20
    assert (near < 0.3).mean() > 0.9


def test_circles_are_explained_once(tmp_path, table):
    write_report(tmp_path / "r.html", made_up().content_of(table, "m.tif", 32, 12))
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("Circles: two stated standard deviations") == 1
    for jargon in ("percentile", "ln N", "coordinates<", "1 pixels"):
        assert jargon not in page
    stated = re.search(r"<dt>median precision</dt><dd>(\S+) nm</dd>", page)[1]
    assert float(stated) == pytest.approx(np.median(sigma_nm(table)), abs=0.06)
