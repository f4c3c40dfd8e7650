"""Pictures of tables keep what physics keeps: flux, centroid, width; and files keep the numbers."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, replace
from unittest.mock import patch

import matplotlib
import numpy as np
import pandas as pd
import pytest
import tifffile
from matplotlib.colors import to_rgb
from PIL import Image

from sureloc.analysis.rendering import (
    Canvas,
    gaussians,
    histogram,
    mean_value,
    posterior_image,
    row_gaussians,
)
from sureloc.cli import app as cli
from sureloc.errors import InputError
from sureloc.io.exchange.formats import FORMATS, write_localizations
from sureloc.io.exchange.localizations import Geometry, Localizations
from sureloc.io.found import parse_roi, read_found
from sureloc.io.movies import open_movie
from sureloc.io.rendered import write_tiff
from sureloc.io.tables import write_table
from sureloc.report import rendered
from sureloc.report.pictures import draw_picture, enlargement
from sureloc.report.rendered import BLUE, GREY, ORANGE, render_file, value_map, value_picture
from sureloc.table import DRAW_COLUMNS, LOCALIZATION_COLUMNS, TRUTH_COLUMNS


def moments(image, canvas):
    """Flux, mean (x, y) and covariance of an image, nm, measured at the pixels' centres."""
    x = canvas.left_nm + (np.arange(canvas.columns) + 0.5) * canvas.pixel_nm
    y = canvas.top_nm + (np.arange(canvas.rows) + 0.5) * canvas.pixel_nm
    flux = image.sum()
    mx, my = (image.sum(0) @ x) / flux, (image.sum(1) @ y) / flux
    xx, yy = image.sum(0) @ (x - mx) ** 2 / flux, image.sum(1) @ (y - my) ** 2 / flux
    xy = (y - my) @ image @ (x - mx) / flux
    return flux, (mx, my), np.array([[xx, xy], [xy, yy]])


# --- Laws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixel", [1.0, 4.0, 10.0])
@pytest.mark.parametrize("correlation", [0.0, 0.7, -0.95])
def test_a_gaussian_keeps_mass_mean_and_covariance(pixel, correlation):
    canvas = Canvas.between((-203.0, 197.0), (-101.0, 299.0), pixel)
    sx, sy, x, y = 9.0, 14.0, 3.3, 88.1
    cov = correlation * sx * sy
    one = (np.array([v]) for v in (x, y, sx, sy))
    image = gaussians(*one, canvas, np.array([2.5]), np.array([cov]))
    flux, mean, found = moments(image, canvas)
    assert flux == pytest.approx(2.5, rel=1e-12)
    # Sheppard: pixels of width p add p^2 / 12. What lies beyond five sigmas is put back inside,
    # which takes 1e-5 of the variance; p = sigma leaves Sheppard's own error of 1e-4.
    assert mean == pytest.approx((x, y), abs=2e-3 * pixel)
    extra = pixel**2 / 12
    assert found[0, 0] == pytest.approx(sx**2 + extra, rel=3e-4)
    assert found[1, 1] == pytest.approx(sy**2 + extra, rel=3e-4)
    # A column shares one mean of y: its own width takes slope * p^2 / 12 from the covariance.
    lost = cov / sx**2 * pixel**2 / 12
    assert found[0, 1] == pytest.approx(cov, abs=abs(lost) + 1e-3 * sx * sy)


def test_gaussians_agree_with_a_histogram_of_their_samples(rng):
    canvas = Canvas.between((0.0, 200.0), (0.0, 160.0), 8.0)
    mean, cov = np.array([90.0, 70.0]), np.array([[400.0, -250.0], [-250.0, 300.0]])
    number = 400_000
    x, y = rng.multivariate_normal(mean, cov, number).T
    sampled = histogram(x, y, canvas) / number
    sigma = np.sqrt(np.diag(cov))
    drawn = gaussians(mean[:1], mean[1:], sigma[:1], sigma[1:], canvas, cov_xy_nm2=cov[:1, 1])
    sd = np.sqrt(np.maximum(drawn, 1e-6) / number)
    # 500 pixels of a multinomial: five sigmas are passed once in a thousand seeds. Columns are 0.4
    # sigmas wide, in which y's law is taken for a Gaussian: good to 2e-5 of the mass.
    assert (np.abs(sampled - drawn) < 5 * sd + 2e-5).all()


def test_flux_is_the_weight_inside(rng):
    canvas = Canvas.between((0.0, 500.0), (0.0, 300.0), 7.0)
    x, y, weight = (
        rng.uniform(-100, 600, 3000),
        rng.uniform(-100, 400, 3000),
        rng.uniform(0, 2, 3000),
    )
    inside = canvas.holds(x, y)
    assert histogram(x, y, canvas, weight).sum() == pytest.approx(weight[inside].sum(), rel=1e-12)
    # Gaussians 0.01 nm wide all but fall into one pixel; a few straddle the canvas's edge.
    narrow = np.full(3000, 0.01)
    image = gaussians(x, y, narrow, narrow, canvas, weight)
    assert image.sum() == pytest.approx(weight[inside].sum(), abs=2.0)
    # Far from every edge nothing is lost whatever the width.
    far = (x > 100) & (x < 400) & (y > 100) & (y < 200)
    wide = np.full(int(far.sum()), 15.0)
    assert gaussians(x[far], y[far], wide, wide, canvas, weight[far]).sum() == pytest.approx(
        weight[far].sum(), rel=1e-12
    )


def test_a_histogram_is_numpys(rng):
    canvas = Canvas.between((-30.0, 170.0), (20.0, 120.0), 10.0)
    x, y = rng.uniform(-50, 200, 500).round(), rng.uniform(0, 140, 500).round()  # many on edges
    inside = (x < 170) & (y < 120)  # numpy's last pixel also holds its upper edge
    theirs, _, _ = np.histogram2d(
        y[inside], x[inside], (np.linspace(20, 120, 11), np.linspace(-30, 170, 21))
    )
    assert np.array_equal(histogram(x, y, canvas), theirs)


def draw_table(rng, frames=30, number=8, molecules=6):
    """Draws whose molecules jump between pixels and are sometimes absent."""
    place = rng.uniform(0, 100, (frames, molecules, 2))
    parts = []
    for draw in range(number):
        there = rng.uniform(size=(frames, molecules)) < 0.8
        at = place + rng.normal(0, 6, place.shape)
        frame = np.broadcast_to(np.arange(frames)[:, None], there.shape)
        parts.append(
            pd.DataFrame(
                {
                    "draw": draw,
                    "frame": frame[there],
                    "x_nm": at[there][:, 0],
                    "y_nm": at[there][:, 1],
                    "photons": 500.0,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def test_the_posterior_mean_is_the_mean_of_the_draws_histograms(rng):
    draws, canvas = draw_table(rng), Canvas.between((-10.0, 90.0), (5.0, 95.0), 10.0)
    mean, sd = posterior_image(draws, 8, canvas)
    images = np.stack(
        [
            histogram(one["x_nm"].to_numpy(), one["y_nm"].to_numpy(), canvas)
            for _, one in draws.groupby("draw")
        ]
    )
    assert np.allclose(mean, images.mean(0), atol=1e-12)
    # The sd adds frames' variances: which draw of a frame meets which of the next is arbitrary.
    by_frame = np.zeros((30, 8, *canvas.shape))
    for (frame, draw), one in draws.groupby(["frame", "draw"]):
        by_frame[frame, draw] = histogram(one["x_nm"].to_numpy(), one["y_nm"].to_numpy(), canvas)
    assert np.allclose(sd**2, by_frame.var(1, ddof=1).sum(0), atol=1e-12)


def test_a_kernel_spreads_the_posterior_mean_and_keeps_its_mass(rng):
    draws, canvas = draw_table(rng), Canvas.between((-100.0, 200.0), (-100.0, 200.0), 5.0)
    sharp, _ = posterior_image(draws, 8, canvas)
    soft, _ = posterior_image(draws, 8, canvas, kernel_px=2.0)
    # The kernel ends at four sigmas, where 1.3e-4 of its mass is left.
    assert soft.sum() == pytest.approx(sharp.sum(), rel=2e-4)
    wider = moments(soft, canvas)[2] - moments(sharp, canvas)[2]
    assert wider[0, 0] == pytest.approx(10.0**2, rel=0.02)


def test_mean_value_is_the_weighted_mean_and_nothing_where_nothing_is():
    image, weighted = np.array([[2.0, 0.0]]), np.array([[6.0, 0.0]])
    value = mean_value(image, weighted)
    assert value[0, 0] == 3.0
    assert np.isnan(value[0, 1])


def test_colours_of_values_can_be_told_apart_without_red_or_green():
    # Equal luminance (so that brightness is free for counts), and blue against yellow's axis.
    rgb = value_map()(np.linspace(0, 1, 9))[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert luminance.max() / luminance.min() < 1.6
    blueness = rgb[:, 2] - 0.5 * (rgb[:, 0] + rgb[:, 1])
    assert (np.diff(blueness) < 0).all()


# --- Wrong input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixel", "width", "message"),
    [(0.0, 100.0, "larger than 0"), (0.001, 100.0, "--roi"), (10.0, -5.0, "0 pixels|x 0")],
)
def test_impossible_canvases_are_refused(pixel, width, message):
    with pytest.raises(InputError, match=message):
        Canvas.between((0.0, width), (0.0, 100.0), pixel)


def test_impossible_covariances_are_refused():
    canvas = Canvas.between((0.0, 10.0), (0.0, 10.0), 1.0)
    one = np.ones(1)
    with pytest.raises(InputError, match="covariance 2"):
        gaussians(one, one, one, one, canvas, None, 2 * one)
    with pytest.raises(InputError, match="0 or larger"):
        gaussians(one, one, -one, one, canvas)


def test_a_single_draw_has_no_standard_deviation(rng):
    with pytest.raises(InputError, match="two or more"):
        posterior_image(draw_table(rng, number=1), 1, Canvas.between((0, 10), (0, 10), 1.0))


# --- Files --------------------------------------------------------------------------------------


def localizations(rng, rows=400):
    table = pd.DataFrame({c.name: np.zeros(rows) for c in LOCALIZATION_COLUMNS})
    sigma = rng.uniform(5, 15, (rows, 2))
    return table.assign(
        frame=rng.integers(0, 50, rows),
        x_nm=rng.uniform(500, 2500, rows),
        y_nm=rng.uniform(400, 1800, rows),
        sigma_x_nm=sigma[:, 0],
        sigma_y_nm=sigma[:, 1],
        cov_xy_nm2=0.3 * sigma.prod(1),
        trusted=rng.uniform(size=rows) < 0.7,
        reason="",
    )


FRAME = Geometry(100.0, 40, 36, 60, 130.0, region_px=((4, 24), (2, 32)))


@pytest.fixture
def run(tmp_path, rng):
    """A folder as `sureloc localize` leaves it, as far as rendering looks."""
    folder = tmp_path / "run"
    folder.mkdir()
    origin = {"pixel_nm": 100.0, "draws": 8, "geometry": asdict(FRAME)}
    write_table(localizations(rng), folder / "localizations.parquet", LOCALIZATION_COLUMNS, origin)
    write_table(draw_table(rng), folder / "draws.parquet", DRAW_COLUMNS, origin)
    record = {**origin, "movie": {"name": "m.tif", "shape": [60, 20, 30]}}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_a_tiff_opens_as_an_image_with_pixel_size_and_true_values(run, tmp_path):
    out = tmp_path / "image.tif"
    said = render_file(run, out, pixel_nm=5.0)
    assert "400 x 600 px of 5 nm" in said
    found = read_found(run)
    assert found.field_nm == ((150.0, 3150.0), (350.0, 2350.0))
    canvas = Canvas.between(*found.field_nm, 5.0)
    with tifffile.TiffFile(out) as tif:
        image = tif.asarray()
        assert image.dtype == np.float32
        assert np.allclose(image, row_gaussians(found.table, canvas), atol=1e-6)
        assert tif.imagej_metadata["unit"] == "nm"
        about = json.loads(tif.imagej_metadata["Info"])
    assert about["centre_of_first_pixel_nm"] == {"x": 152.5, "y": 352.5}
    assert about["sureloc"]["kind"] == "gaussian"
    with pytest.raises(InputError, match="exists already"):
        render_file(run, out)


def test_the_pixel_size_of_a_tiff_is_read_back(tmp_path):
    canvas = Canvas.between((0.0, 200.0), (0.0, 160.0), 4.0)
    write_tiff(tmp_path / "a.tif", {"a": np.ones(canvas.shape)}, canvas, 16, {})
    with open_movie(tmp_path / "a.tif") as movie:
        assert movie.pixel_nm == pytest.approx(4.0, rel=1e-5)


def test_16_bit_keeps_counts_and_scales_densities(run, tmp_path):
    render_file(run, tmp_path / "counts.tif", kind="histogram", zoom=4, bits=16)
    counts = tifffile.imread(tmp_path / "counts.tif")
    assert counts.dtype == np.uint16
    assert counts.sum() == len(read_found(run).table)
    render_file(run, tmp_path / "density.tif", zoom=4, bits=16)
    with tifffile.TiffFile(tmp_path / "density.tif") as tif:
        factor = json.loads(tif.imagej_metadata["Info"])["factor"]["localizations per pixel"]
        density = tif.asarray()
    assert density.max() == 65535
    assert density.sum() / factor == pytest.approx(counts.sum(), rel=1e-3)


def test_posterior_images_come_in_twos(run, tmp_path):
    said = render_file(run, tmp_path / "p.tif", kind="posterior", pixel_nm=10, roi="0:360,0:160nm")
    assert "p_sd.tif" in said
    mean, sd = (tifffile.imread(tmp_path / name) for name in ("p.tif", "p_sd.tif"))
    draws = read_found(run).draws
    canvas = Canvas.between((0.0, 160.0), (0.0, 360.0), 10.0)
    wanted = posterior_image(draws, 8, canvas)
    assert np.allclose(mean, wanted[0], atol=1e-6)
    assert np.allclose(sd, wanted[1], atol=1e-6)


@pytest.mark.parametrize("colour", ["intensity", "time", "precision", "trust"])
def test_values_behind_colours_are_kept(run, tmp_path, colour):
    render_file(run, tmp_path / "a.tif", colour=colour, zoom=3, kind="histogram")
    image = tifffile.imread(tmp_path / "a.tif")
    if colour == "intensity":
        assert image.ndim == 2
        return
    counts, value = image
    table = read_found(run).table
    true = {
        "time": table["frame"].mean(),
        "precision": np.sqrt((table["sigma_x_nm"] ** 2 + table["sigma_y_nm"] ** 2) / 2).mean(),
        "trust": table["trusted"].mean(),
    }[colour]
    assert np.nansum(counts * value) / counts.sum() == pytest.approx(true, rel=1e-4)


PLACES_NM = ((150.0, 200.0), (450.0, 100.0), (750.0, 300.0))  # x, y of three squares


def three_squares():
    """Rows in squares of 50 nm, two in each pixel of 10 nm: early to late, sharp to blurred."""
    steps = 10.0 * np.arange(-2, 3)
    parts = []
    for k, (x, y) in enumerate(PLACES_NM):
        dx, dy = (grid.ravel().repeat(2) for grid in np.meshgrid(steps, steps))
        part = pd.DataFrame({c.name: np.zeros(50) for c in LOCALIZATION_COLUMNS})
        parts.append(
            part.assign(
                frame=50 * k,
                x_nm=x + dx + 5.0,
                y_nm=y + dy + 5.0,
                sigma_x_nm=10.0 * (k + 1),
                sigma_y_nm=10.0 * (k + 1),
                trusted=[True, True] * 25 if k == 0 else [False, k == 1] * 25,
                reason="",
            )
        )
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("colour", ["time", "precision", "trust"])
def test_colours_of_a_picture_say_time_precision_and_trust(tmp_path, monkeypatch, colour):
    write_table(three_squares(), tmp_path / "t.parquet", LOCALIZATION_COLUMNS)
    asked = ("render", tmp_path / "t.parquet", "--out", tmp_path / "a.png", "--kind", "histogram")
    shown = ("--pixel-nm", 10, "--roi", "0:900,0:900nm", "--colour", colour)
    assert command(*asked, *shown, monkeypatch=monkeypatch) == 0
    with Image.open(tmp_path / "a.png") as png:
        seen = np.asarray(png.convert("RGB"), float) / 255
    rows, columns = np.nonzero((seen == 0).all(2))  # empty pixels of the image, nothing else
    top, left = rows.min(), columns.min()
    scale = (columns.max() + 1 - left) / 900
    assert (rows.max() + 1 - top) / 900 == pytest.approx(scale, rel=0.01)
    colours = [np.array(to_rgb(name)) for name in (BLUE, GREY, ORANGE)]
    for (x, y), expected in zip(PLACES_NM, colours, strict=True):
        for off in (-20, 0, 20):
            at = round(top + scale * (y + 5)), round(left + scale * (x + off + 5))
            assert seen[at] == pytest.approx(expected, abs=0.02)
        beside = round(top + scale * (y + 5)), round(left + scale * (x + 45))
        assert (seen[beside] == 0).all()
    # The bar has the same colours, the larger value above; trusted rows are blue.
    bar = seen[:, columns.max() + 5 :]
    blue, orange = (
        np.nonzero(np.abs(bar - end).max(2) < 0.02)[0].mean() for end in (colours[0], colours[2])
    )
    assert (blue < orange) == (colour == "trust")
    assert abs(blue - orange) > 0.8 * 900 * scale


def test_a_picture_names_unit_and_numbers_of_its_colours(tmp_path):
    counts = np.ones((40, 90))
    picture = value_picture(
        *("image", "title", "stated precision (nm, mean)", counts, 20 * counts, 10.0),
        *((10.0, 30.0), value_map()),
    )
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draw_picture(picture, tmp_path / "a.svg")
    words = re.findall(r">([^<>\n]+)</text>", (tmp_path / "a.svg").read_text(encoding="utf-8"))
    assert "stated precision (nm, mean)" in words
    assert {"10.0", "20.0", "30.0"} <= set(words)
    assert "200 nm" in words  # the scale bar


def board(rows, columns, title="title"):
    """A chessboard in red and green, which nothing round a picture has, with blue corners."""
    image = np.zeros((rows, columns, 3))
    red = (np.add.outer(np.arange(rows), np.arange(columns)) % 2).astype(bool)
    image[red, 0], image[~red, 1] = 1.0, 1.0
    counts = np.ones((rows, columns))
    unit = "localizations per pixel of 10 nm"
    shown = value_picture("image", title, unit, counts, counts, 10.0, (0.0, 1.0), value_map())
    return replace(shown, image=image)


@pytest.mark.parametrize("shape", [(112, 16), (16, 112), (60, 60), (350, 550), (3, 250)])
def test_pixels_are_equal_squares_and_the_bar_is_as_tall_as_they(tmp_path, shape):
    dots = enlargement(shape)
    picture = board(*shape, title="a title of many words, longer than a narrow picture is wide")
    draw_picture(picture, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as png:
        seen = np.asarray(png.convert("RGB"), float) / 255
    strong = (seen == [1, 0, 0]).all(2) | (seen == [0, 1, 0]).all(2)
    rows, columns = np.nonzero(strong)
    top, left = rows.min(), columns.min()
    bottom, right = rows.max() + 1, columns.max() + 1
    assert (bottom - top, right - left) == (dots * shape[0], dots * shape[1])
    wanted = picture.image.repeat(dots, 0).repeat(dots, 1)
    bare = strong[top:bottom, left:right]
    assert (seen[top:bottom, left:right][bare] == wanted[bare]).all()
    assert bare.mean() > 0.4  # the rest is the scale bar
    beside = seen[:, right + 8 : right + 100]
    bar = np.nonzero((np.abs(beside - to_rgb(BLUE)).max(2) < 0.02).any(1))[0].max() + 1
    least = max(bottom - top, 90)
    high = np.nonzero((np.abs(beside - to_rgb(ORANGE)).max(2) < 0.02).any(1))[0].min()
    assert bar - high == pytest.approx(least, abs=5)
    # Nothing is empty that need not be, and nothing is cut off.
    assert seen.shape[0] < least + 260
    assert seen.shape[1] < max(right - left + 280, 410)
    inked = np.nonzero((seen < 0.9).any(2))
    assert all(at.min() > 5 for at in inked)
    assert inked[0].max() < seen.shape[0] - 5
    assert inked[1].max() < seen.shape[1] - 5


def test_a_long_title_is_broken_and_a_long_name_shortened(tmp_path):
    title = f"{'name' * 60}$x$: localizations, each as wide as it is uncertain"
    draw_picture(board(112, 16, title), tmp_path / "a.svg")
    words = re.findall(r">([^<>\n]+)</text>", (tmp_path / "a.svg").read_text(encoding="utf-8"))
    assert len(words) > 5
    assert max(map(len, words)) < 60
    lost, kept = next(word for word in words if "…" in word).split("…")
    assert title.startswith(lost)
    assert kept == "name$x$:"[-len(kept) :] or kept.endswith("name$x$:")


def test_a_plain_picture_is_nothing_but_pixels_and_a_scale_bar(run, tmp_path):
    asked = {"pixel_nm": 10.0, "colour": "precision", "plain": True}
    said = render_file(run, tmp_path / "a.png", **asked)
    assert re.search(r"; colours from [\d.]+ to [\d.]+ stated precision \(nm, mean\)$", said)
    with Image.open(tmp_path / "a.png") as png:
        seen = np.asarray(png.convert("RGB"))
    dots = enlargement((200, 300))
    assert seen.shape == (200 * dots, 300 * dots, 3)
    squares = seen[: 160 * dots].reshape(160, dots, 300, dots, 3)
    assert (squares == squares[:, :1, :, :1]).all()
    assert (seen[160 * dots :] == 255).all(2).sum() > 500
    with pytest.raises(InputError, match="--plain is for"):
        render_file(run, tmp_path / "a.tif", plain=True)


def test_pictures_come_as_drawings_too(run, tmp_path):
    for name, start in (("a.svg", b"<?xml"), ("a.pdf", b"%PDF")):
        for plain in (False, True):
            out = tmp_path / f"{plain}_{name}"
            render_file(run, out, pixel_nm=10.0, plain=plain)
            assert out.read_bytes().startswith(start)
    assert "localizations per pixel of 10 nm" in (tmp_path / "False_a.svg").read_text()
    assert "localizations per" not in (tmp_path / "True_a.svg").read_text()


def test_a_large_histogram_keeps_whole_counts_of_the_pixels_that_are_shown(run, tmp_path):
    with patch("sureloc.report.rendered.draw_picture") as draw:
        draw.side_effect = lambda _picture, path, **_: path.touch()
        said = render_file(run, tmp_path / "a.png", kind="histogram", pixel_nm=1.25)
    assert "800 x 1,200 px of 2.5 nm" in said
    picture = draw.call_args.args[0]
    assert picture.unit == "localizations per pixel of 2.5 nm"
    assert picture.image.sum() == 400
    assert (picture.image == np.rint(picture.image)).all()
    assert picture.high >= 1
    assert picture.high == round(picture.high)
    assert picture.whole


def test_faint_rows_are_seen_beside_bright_ones():
    image = np.array([[1.0, 0.01, 0.0]])
    shown = value_picture("a", "a", "a", image, image, 10.0, (0.0, 1.0), value_map()).image[0]
    assert shown[1].max() > 0.2
    assert (shown[2] == 0).all()


def test_tables_alone_are_drawn_too(tmp_path, rng):
    table = localizations(rng)
    whole = Localizations(table, Geometry(100.0, psf_sigma_nm=120.0))
    write_localizations(whole, tmp_path / "t.csv")
    found = read_found(tmp_path / "t.csv", 100.0)
    for column in ("x_nm", "y_nm", "sigma_x_nm", "sigma_y_nm"):
        assert np.allclose(found.table[column], table[column], atol=1e-4)
    render_file(tmp_path / "t.csv", tmp_path / "t.tif", camera_pixel_nm=100.0)
    # Gaussians at the edge of what holds all rows are whole, too.
    assert tifffile.imread(tmp_path / "t.tif").sum() == pytest.approx(400, rel=1e-5)
    truth = pd.DataFrame({c.name: np.arange(3.0) * 100 for c in TRUTH_COLUMNS}).astype(
        {"frame": int, "molecule": int}
    )
    write_table(truth, tmp_path / "truth.parquet", TRUTH_COLUMNS)
    render_file(tmp_path / "truth.parquet", tmp_path / "u.tif", kind="histogram", pixel_nm=20)
    assert tifffile.imread(tmp_path / "u.tif").sum() == 3


@pytest.mark.parametrize("name", FORMATS)
def test_a_table_of_every_program_is_drawn_where_it_lies(tmp_path, rng, name):
    table = localizations(rng)
    table = table[(table[["x_nm", "y_nm"]] > 0).all(axis=1)].reset_index(drop=True)
    path = tmp_path / f"t{FORMATS[name].suffix}"
    write_localizations(Localizations(table, FRAME), path, name)
    said: list[str] = []
    found = read_found(path, 100.0, said.append)
    assert said == []
    assert np.allclose(found.table[["frame", "x_nm", "y_nm"]], table[["frame", "x_nm", "y_nm"]])
    render_file(path, tmp_path / "t.tif", kind="histogram", camera_pixel_nm=100.0, say=said.append)
    image = tifffile.imread(tmp_path / "t.tif")
    assert image.sum() == len(table)
    x, y = (table[column].to_numpy() for column in ("x_nm", "y_nm"))
    wanted = histogram(x, y, Canvas.between(*FRAME.field_nm, 10.0))
    if name in ("sureloc", "picasso", "smap"):
        assert said == []
        np.testing.assert_array_equal(image, wanted)
        return
    # What is drawn by itself is what the option that is named draws.
    (sentence,) = said
    shown = re.search(r"drawn, --roi (\S+)\. ", sentence)[1]
    for number, (roi, expected) in enumerate(((shown, image), ("4:24,2:32", wanted))):
        out = tmp_path / f"{number}.tif"
        render_file(path, out, kind="histogram", camera_pixel_nm=100.0, roi=roi)
        np.testing.assert_array_equal(tifffile.imread(out), expected)


def test_tables_of_unknown_pixels_and_frame_say_what_is_drawn(tmp_path, rng):
    table = localizations(rng)
    write_table(table, tmp_path / "t.parquet", LOCALIZATION_COLUMNS)
    said: list[str] = []
    given = {"kind": "histogram", "pixel_nm": 20.0, "say": said.append}
    render_file(tmp_path / "t.parquet", tmp_path / "a.tif", **given)
    roi = re.search(r"drawn, --roi (-?\d+:\d+,-?\d+:\d+nm)\. ", said[0])[1]
    render_file(tmp_path / "t.parquet", tmp_path / "b.tif", roi=roi, **given)
    assert len(said) == 1
    a, b = (tifffile.imread(tmp_path / name) for name in ("a.tif", "b.tif"))
    np.testing.assert_array_equal(a, b)
    assert a.sum() == len(table)


@pytest.mark.parametrize("pixel_nm", [None, 80.0])
def test_what_is_at_the_corners_of_an_unknown_field_is_drawn_whole(tmp_path, pixel_nm):
    columns = {"frame": [0, 1, 2], "x_nm": [0.0, 100, 100], "y_nm": [0.0, 0, 100]}
    table = pd.DataFrame(columns | {"sigma_x_nm": [9.0, 12, 9], "sigma_y_nm": [8.0, 20, np.inf]})
    whole = Localizations(table, Geometry(pixel_nm))
    write_localizations(whole, tmp_path / "t.parquet")
    said: list[str] = []
    words = render_file(tmp_path / "t.parquet", tmp_path / "t.tif", pixel_nm=5, say=said.append)
    # Four sigmas of the rows that are known best and worst; at whole camera pixels, if known.
    fields = {None: ("-80:101,-36:149nm", "37 x 37"), 80.0: ("-1:2,0:3", "48 x 48")}
    roi, size = fields[pixel_nm]
    assert f"drawn, --roi {roi}. " in said[0]
    assert f"{size} px of 5 nm, 2 of 2 localizations in rows kept; 1 without a precision" in words
    assert tifffile.imread(tmp_path / "t.tif").sum() == pytest.approx(2, abs=2e-4)
    # A part that is asked for shows the rows that lie in it, whatever their Gaussians lose.
    part = render_file(
        tmp_path / "t.parquet", tmp_path / "p.tif", pixel_nm=5, roi="-50:50,50:150nm"
    )
    assert "20 x 20 px of 5 nm, 1 of 2 localizations in rows kept" in part
    assert tifffile.imread(tmp_path / "p.tif").sum() < 0.995
    assert read_found(tmp_path / "t.parquet").field_nm[0][1] < 130  # without room to draw


def test_a_row_that_is_known_badly_does_not_make_the_picture_large(tmp_path):
    table = pd.DataFrame({"frame": 0, "x_nm": [0.0, 900.0], "y_nm": 0.0})
    table = table.assign(sigma_x_nm=[10.0, 2e3], sigma_y_nm=10.0)
    write_localizations(Localizations(table, Geometry()), tmp_path / "t.parquet")
    words = render_file(tmp_path / "t.parquet", tmp_path / "t.tif", pixel_nm=10)
    assert "9 x 145 px of 10 nm, 2 of 2 localizations" in words


def test_rows_without_a_position_are_counted(tmp_path, rng):
    table = localizations(rng)
    table.loc[[3, 5], "x_nm"] = np.nan
    write_table(table, tmp_path / "t.parquet", LOCALIZATION_COLUMNS)
    said: list[str] = []
    assert len(read_found(tmp_path / "t.parquet", say=said.append).table) == len(table) - 2
    assert said == [f"2 of {len(table)} rows have no position; they are left out."]


def test_a_table_of_a_run_remembers_its_pixel_size_without_the_folder(tmp_path, rng):
    origin = {"pixel_nm": 110.0, "draws": 8, "movie": "movie.tif"}
    for folder in (tmp_path, tmp_path / "drift"):
        folder.mkdir(exist_ok=True)
        write_table(
            localizations(rng), folder / "localizations.parquet", LOCALIZATION_COLUMNS, origin
        )
    write_table(draw_table(rng), tmp_path / "drift" / "draws.parquet", DRAW_COLUMNS, origin)
    alone, folder = read_found(tmp_path / "localizations.parquet"), read_found(tmp_path / "drift")
    assert (alone.pixel_nm, folder.pixel_nm) == (110.0, 110.0)
    assert (folder.number, alone.number) == (8, 0)
    assert folder.frames <= 50
    # Edges lie between camera pixels, half a pixel before a centre.
    assert (alone.field_nm[0][0] + 55.0) % 110.0 == pytest.approx(0.0, abs=1e-9)
    assert read_found(tmp_path / "drift", 90.0).pixel_nm == 90.0


def test_a_broken_record_is_refused(run):
    (run / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="record"):
        read_found(run)


def test_regions_are_read_in_pixels_and_nanometres(run):
    found = read_found(run)
    assert parse_roi("10:12,4:7", found) == ((350.0, 650.0), (950.0, 1150.0))
    assert parse_roi("410:412.5,204:207nm", found) == ((204.0, 207.0), (410.0, 412.5))
    for wrong in ("10:12", "a:b,c:d", "12:10,0:5", "1.2.3:4,0:5", ""):
        with pytest.raises(InputError, match="region"):
            parse_roi(wrong, found)


def command(*arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sureloc", *map(str, arguments)])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    return leaving.value.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RUN", "--out", "a.jpg"), "must end in"),
        (("RUN", "--out", "a.png", "--kind", "voronoi"), "kind is 'voronoi'"),
        (("RUN", "--out", "a.png", "--colour", "pink"), "colour is 'pink'"),
        (
            ("RUN", "--out", "a.png", "--kind", "posterior", "--colour", "time"),
            "draws have neither",
        ),
        (("RUN", "--out", "a.png", "--zoom", "2", "--pixel-nm", "5"), "not both"),
        (("RUN", "--out", "a.png", "--zoom", "0"), "zoom is 0"),
        (("RUN", "--out", "a.tif", "--bits", "8"), "bits is '8'"),
        (("NOTHING", "--out", "a.png"), "no run or table"),
        (("EMPTY", "--out", "a.png"), "holds no localizations"),
        (("t.csv", "--out", "a.png"), "--camera-pixel-nm"),
        (("truth.parquet", "--out", "a.png"), "--pixel-nm"),
        (("truth.parquet", "--out", "a.png", "--pixel-nm", "9"), "--kind histogram"),
        (
            ("RUN", "--out", "a.png", "--roi", "100:140,100:140"),
            "overlap with 4:24,2:32, which was",
        ),
        (("RUN", "--out", "a.png", "--roi", "0:9,0:9nm"), "lies outside of RUN"),
        (("RUN", "--out", "a.png", "--pixel-nm", "5000"), "a single pixel of 5000 nm"),
        (("truth.parquet", "--out", "a.png", "--pixel-nm", "9", "--roi", "1:2,1:2"), "1:2,1:2nm"),
        (
            ("truth.parquet", "--out", "a.png", "--pixel-nm", "9", "--kind", "posterior"),
            "no table of posterior draws",
        ),
        (
            ("broken.parquet", "--out", "a.png", "--pixel-nm", "9"),
            "cannot be read",
        ),
    ],
)
def test_wrong_input_is_refused_and_leaves_nothing(
    run, tmp_path, rng, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    run.rename(tmp_path / "RUN")
    table = Localizations(localizations(rng), Geometry(100.0))
    write_localizations(table, tmp_path / "t.csv")
    truth = pd.DataFrame({c.name: [0.0] for c in TRUTH_COLUMNS}).astype(
        {"frame": int, "molecule": int}
    )
    write_table(truth, tmp_path / "truth.parquet", TRUTH_COLUMNS)
    (tmp_path / "broken.parquet").write_text("no table", encoding="utf-8")
    before = set(tmp_path.rglob("*"))
    assert command("render", *arguments, monkeypatch=monkeypatch) == 2
    assert message in capsys.readouterr().err
    assert set(tmp_path.rglob("*")) == before


def test_a_png_is_drawn_at_the_size_that_is_written(run, tmp_path, monkeypatch):
    drawn = []
    draw = rendered.row_gaussians
    monkeypatch.setattr(
        rendered,
        "row_gaussians",
        lambda table, canvas, *rest: drawn.append(canvas.shape) or draw(table, canvas, *rest),
    )
    said = []
    render_file(run, tmp_path / "a.png", pixel_nm=0.25, say=said.append)
    assert drawn == [(1000, 1500)]
    assert "0.25 nm are less than a tenth of the rows' precision of" in said[0]
    assert "(median)" in said[0]
    render_file(run, tmp_path / "b.png", pixel_nm=300, say=said.append)
    assert "300 nm are larger than the camera's of 100 nm" in said[1]
    render_file(run, tmp_path / "c.png", say=said.append)
    assert len(said) == 2


def test_what_cannot_be_drawn_is_refused_before_anything_is_said(tmp_path):
    plain = pd.DataFrame({"frame": [0, 1], "x_nm": [0.0, 900.0], "y_nm": 0.0})
    write_localizations(Localizations(plain), tmp_path / "t.parquet")
    said: list[str] = []
    for given in ({}, {"kind": "histogram", "colour": "trust"}, {"kind": "posterior"}):
        with pytest.raises(InputError):
            render_file(
                tmp_path / "t.parquet", tmp_path / "a.png", pixel_nm=9, say=said.append, **given
            )
    assert said == []


def test_what_was_drawn_is_told_as_it_is(run, tmp_path):
    """A PNG has larger pixels where it would be too large; rows are whole numbers."""
    asked = {"kind": "gaussian", "pixel_nm": 1.25}
    said = render_file(run, tmp_path / "a.png", **asked)
    assert "800 x 1,200 px of 2.5 nm, drawn in place of 1,600 x 2,400 px of 1.25 nm" in said
    assert "a .tif has them all" in said
    assert re.search(r" nm \(.*\), \d+ of 400 localizations in rows kept$", said)
    said = render_file(run, tmp_path / "b.tif", kind="posterior", pixel_nm=5)
    assert said.endswith(" molecules in each draw, also those too unsure for a row")
    said = render_file(run, tmp_path / "a.tif", **asked)
    assert ": 1,600 x 2,400 px of 1.25 nm, " in said
