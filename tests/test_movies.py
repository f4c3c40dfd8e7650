"""Movies: what is written by others is read back whole, and what is no movie is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from sureloc.errors import InputError, MovieError
from sureloc.io.movies import open_movie
from sureloc.io.regions import parse_frames, parse_region

SHARED = Path(
    os.environ.get("SURELOC_SHARED_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")
)
STACK = np.random.default_rng(1).poisson(100, (13, 24, 32)).astype(np.uint16)


def _append_frames(path, **options):
    with tifffile.TiffWriter(path) as writer:
        for frame in STACK:
            writer.write(frame, **options)


TIFF_WRITERS = {
    "plain": lambda p: tifffile.imwrite(p, STACK, metadata=None),
    "shaped": lambda p: tifffile.imwrite(p, STACK),
    "zlib": lambda p: tifffile.imwrite(p, STACK, compression="zlib"),
    "big-endian": lambda p: tifffile.imwrite(p, STACK, byteorder=">"),
    "bigtiff": lambda p: tifffile.imwrite(p, STACK, bigtiff=True, compression="zlib"),
    "imagej": lambda p: tifffile.imwrite(p, STACK, imagej=True),
    "imagej-time": lambda p: tifffile.imwrite(p, STACK, imagej=True, metadata={"axes": "TYX"}),
    "ome": lambda p: tifffile.imwrite(p, STACK, ome=True, metadata={"axes": "TYX"}),
    "ome-zlib": lambda p: tifffile.imwrite(
        p, STACK, ome=True, metadata={"axes": "TYX"}, compression="zlib"
    ),
    "appended": _append_frames,
    "appended-zlib": lambda p: _append_frames(p, compression="zlib", metadata=None),
    "tiled": lambda p: tifffile.imwrite(p, STACK, tile=(16, 16), compression="zlib"),
}


def _path(folder, kind):
    return folder / ("movie.ome.tif" if kind.startswith("ome") else "movie.tif")


@pytest.mark.parametrize("kind", TIFF_WRITERS)
def test_every_tiff_flavour_reads_back_whole_and_by_chunks(tmp_path, kind):
    path = _path(tmp_path, kind)
    TIFF_WRITERS[kind](path)
    with open_movie(path) as movie:
        assert movie.shape == STACK.shape
        assert movie.dtype == np.uint16
        np.testing.assert_array_equal(movie.read(), STACK)
        np.testing.assert_array_equal(movie.read(3, 5), STACK[3:5])
        assert movie.read(4, 4).shape == (0, 24, 32)
        parts = [chunk for _, chunk in movie.chunks(5)]
    assert [len(p) for p in parts] == [5, 5, 3]
    np.testing.assert_array_equal(np.concatenate(parts), STACK)


@pytest.mark.parametrize("kind", TIFF_WRITERS)
@pytest.mark.parametrize("share", [0.95, 0.5, 0.1])
def test_a_truncated_tiff_is_refused_not_shortened(tmp_path, kind, share):
    path = _path(tmp_path, kind)
    TIFF_WRITERS[kind](path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(MovieError, match=r"truncated|cannot be read"):
        open_movie(path)


def test_a_file_cut_inside_its_last_frame_is_refused(tmp_path):
    for name, options in (("a.tif", {}), ("b.tif", {"compression": "zlib"})):
        tifffile.imwrite(tmp_path / name, STACK, metadata=None, **options)
        with tifffile.TiffFile(tmp_path / name) as tif:
            page = tif.pages[-1]
            end = page.dataoffsets[-1] + page.databytecounts[-1]
        data = (tmp_path / name).read_bytes()
        if end < len(data):
            continue
        (tmp_path / name).write_bytes(data[:-100])
        with pytest.raises(MovieError, match="truncated"):
            open_movie(tmp_path / name)


def test_damaged_compressed_data_are_an_error_of_that_frame(tmp_path):
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, STACK, compression="zlib", metadata=None)
    with tifffile.TiffFile(path) as tif:
        start, count = tif.pages[7].dataoffsets[0], tif.pages[7].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[start : start + count] = b"\xff" * count
    path.write_bytes(data)
    with open_movie(path) as movie:
        np.testing.assert_array_equal(movie.read(0, 7), STACK[:7])
        with pytest.raises(MovieError, match="Frame 7 "):
            movie.read(6, 9)


def test_looping_pages_are_refused(tmp_path):
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, STACK[:1], metadata=None)
    with tifffile.TiffFile(path) as tif:
        first = tif.pages.first
        next_at = first.offset + 2 + 12 * len(first.tags)
    data = bytearray(path.read_bytes())
    data[next_at : next_at + 4] = first.offset.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(MovieError, match="loop"):
        open_movie(path)


def _refused(path, array, match, **options):
    tifffile.imwrite(path, array, **options)
    with pytest.raises(MovieError, match=match):
        open_movie(path)


def test_what_is_no_stack_of_camera_frames_is_refused(tmp_path):
    path = tmp_path / "movie.tif"
    _refused(path, np.zeros((4, 16, 16, 3), np.uint8), "colour", photometric="rgb")
    _refused(
        path, np.zeros((4, 1, 64), np.uint16), "1 rows and 64 columns", photometric="minisblack"
    )
    _refused(
        path, np.zeros((4, 64, 7), np.uint16), "64 rows and 7 columns", photometric="minisblack"
    )
    _refused(
        path,
        np.zeros((4, 2, 16, 16), np.uint16),
        "2 channels",
        imagej=True,
        metadata={"axes": "TCYX"},
    )
    _refused(
        path,
        np.zeros((4, 2, 16, 16), np.uint16),
        "2 planes",
        imagej=True,
        metadata={"axes": "TZYX"},
    )
    _refused(path, np.zeros((4, 16, 16), np.complex64), "complex64", photometric="minisblack")
    ome = tmp_path / "movie.ome.tif"
    _refused(ome, np.zeros((5, 16, 16), np.uint16), "5 planes", ome=True, metadata={"axes": "ZYX"})
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((5, 16, 16), np.uint16))
        writer.write(np.zeros((5, 24, 16), np.uint16))
    with pytest.raises(MovieError, match="2 image series"):
        open_movie(path)


def test_paths_that_are_no_movie_are_refused(tmp_path):
    with pytest.raises(MovieError, match="There is no movie at"):
        open_movie(tmp_path / "absent.tif")
    (tmp_path / "movie.avi").write_bytes(b"RIFF")
    with pytest.raises(MovieError, match=r"'\.avi'"):
        open_movie(tmp_path / "movie.avi")
    (tmp_path / "text.tif").write_text("these are no frames")
    with pytest.raises(MovieError, match="cannot be read as TIFF"):
        open_movie(tmp_path / "text.tif")
    (tmp_path / "empty.tif").write_bytes(b"")
    with pytest.raises(MovieError, match="is empty: a file of 0 bytes"):
        open_movie(tmp_path / "empty.tif")
    # The header of a TIFF whose chain of pages is empty.
    (tmp_path / "none.tif").write_bytes(b"II*\0\0\0\0\0")
    with pytest.raises(MovieError, match=r"no frames|cannot be read"):
        open_movie(tmp_path / "none.tif")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MovieError, match="no TIFF files"):
        open_movie(tmp_path / "folder")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_found_when_its_chunk_is_read(tmp_path, value):
    stack = STACK.astype(np.float32)
    stack[6, 3, 4] = value
    tifffile.imwrite(tmp_path / "movie.tif", stack)
    with open_movie(tmp_path / "movie.tif") as movie:
        np.testing.assert_array_equal(movie.read(0, 6), stack[:6])
        with pytest.raises(MovieError, match="frame 6, row 3, column 4"):
            movie.read(5, 8)


def test_parts_of_a_movie_share_its_file(tmp_path):
    tifffile.imwrite(tmp_path / "movie.tif", STACK)
    with open_movie(tmp_path / "movie.tif") as movie:
        part = movie.select(slice(2, 20), slice(5, 30), slice(3, 9))
        assert part.shape == (6, 18, 25)
        assert part.full_shape == (24, 32)
        np.testing.assert_array_equal(part.read(1, 4), STACK[4:7, 2:20, 5:30])
        inner = part.select(slice(1, 11), None, slice(2, 4))
        np.testing.assert_array_equal(inner.read(), STACK[5:7, 3:13, 5:30])
        for wrong in ({"rows": slice(0, 25)}, {"frames": slice(4, 4)}, {"columns": slice(0, 4)}):
            with pytest.raises(MovieError):
                movie.select(**wrong)
        with pytest.raises(MovieError, match="12:14"):
            movie.read(12, 14)


def test_reading_a_chunk_needs_no_more_memory_than_the_chunk(tmp_path):
    import tracemalloc

    for name, options in (("a.tif", {}), ("b.tif", {"compression": "zlib"})):
        big = np.zeros((60, 256, 256), np.uint16)  # 7.9 MB
        tifffile.imwrite(tmp_path / name, big, **options)
        del big
        with open_movie(tmp_path / name) as movie:
            movie.read(0, 1)
            tracemalloc.start()
            movie.read(30, 32)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        # Two frames are 262 kB; raw bytes, their array and one contiguous copy are three of that.
        assert peak < 1e6


def test_a_folder_is_read_in_natural_order(tmp_path):
    for i, frame in enumerate(STACK):
        tifffile.imwrite(tmp_path / f"img_{i}.tif", frame)
    (tmp_path / "._img_0.tif").write_bytes(b"what macOS leaves behind")
    with open_movie(tmp_path) as movie:
        assert movie.shape == STACK.shape
        np.testing.assert_array_equal(movie.read(), STACK)
        np.testing.assert_array_equal(movie.read(9, 12), STACK[9:12])
    tifffile.imwrite(tmp_path / "img_13.tif", np.zeros((20, 20), np.uint16))
    with pytest.raises(MovieError, match="img_13"):
        open_movie(tmp_path)


def test_a_folder_of_stacks_is_one_movie(tmp_path):
    tifffile.imwrite(tmp_path / "part_2.tif", STACK[:5])
    tifffile.imwrite(tmp_path / "part_10.ome.tif", STACK[5:], ome=True, metadata={"axes": "TYX"})
    with open_movie(tmp_path) as movie:
        np.testing.assert_array_equal(movie.read(), STACK)
        np.testing.assert_array_equal(movie.read(3, 8), STACK[3:8])


def test_pixel_size_comes_from_metadata_in_any_unit(tmp_path):
    path = tmp_path / "movie.ome.tif"

    def size():
        with open_movie(path) as movie:
            return movie.pixel_nm

    meta = {"axes": "TYX", "PhysicalSizeX": 0.108, "PhysicalSizeY": 0.108}
    tifffile.imwrite(path, STACK, ome=True, metadata=meta)
    assert size() == pytest.approx(108)
    meta |= {"PhysicalSizeXUnit": "nm", "PhysicalSizeX": 97.0}
    tifffile.imwrite(path, STACK, ome=True, metadata=meta)
    assert size() is None  # 97 nm by 108 um is no square
    tifffile.imwrite(path, STACK, ome=True, metadata={"axes": "TYX"})
    assert size() is None
    path = tmp_path / "movie.tif"
    for unit, per_pixel in (("um", 0.16), ("micron", 0.16), ("\\u00B5m", 0.16), ("nm", 160.0)):
        resolution = (1 / per_pixel, 1 / per_pixel)
        tifffile.imwrite(
            path, STACK, imagej=True, resolution=resolution, metadata={"unit": unit, "axes": "TYX"}
        )
        # Resolutions are stored as ratios of 32-bit integers.
        assert size() == pytest.approx(160, rel=1e-6)
    tifffile.imwrite(path, STACK, imagej=True, resolution=(1, 1), metadata={"unit": "pixel"})
    assert size() is None


def _write_ome_zarr(path, stack, zarr_format, axes="tyx", unit="micrometer"):
    group = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)
    chunks = (4, *stack.shape[1:]) if stack.ndim == 3 else stack.shape
    array = group.create_array("0", shape=stack.shape, dtype=stack.dtype, chunks=chunks)
    array[:] = stack
    names = [{"name": a, **({"unit": unit} if a in "yx" else {})} for a in axes]
    scale = [{"type": "scale", "scale": [0.1 if a in "yx" else 1.0 for a in axes]}]
    image = {"axes": names, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    if zarr_format == 2:
        group.attrs["multiscales"] = [{"version": "0.4", **image}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_ome_zarr_of_both_formats(tmp_path, zarr_format):
    path = tmp_path / "movie.ome.zarr"
    _write_ome_zarr(path, STACK, zarr_format)
    with open_movie(path) as movie:
        assert movie.shape == STACK.shape
        assert movie.pixel_nm == pytest.approx(100)
        np.testing.assert_array_equal(movie.read(2, 9), STACK[2:9])
    _write_ome_zarr(path, STACK[:, None, None], zarr_format, axes="tczyx")
    with open_movie(path) as movie:
        np.testing.assert_array_equal(movie.read(2, 9), STACK[2:9])
    _write_ome_zarr(path, STACK[:1], zarr_format)
    with open_movie(path) as movie:
        np.testing.assert_array_equal(movie.read(), STACK[:1])
    _write_ome_zarr(path, STACK[:, None], zarr_format, axes="ctyx")
    with pytest.raises(MovieError, match="13 channels"):
        open_movie(path)


def test_ome_zarr_scales_are_multiplied_and_found_in_coordinate_systems(tmp_path):
    path = tmp_path / "movie.ome.zarr"
    _write_ome_zarr(path, STACK, 3)
    group = zarr.open_group(str(path))
    about = group.attrs["ome"]
    # Beside the levels: what follows after each of them.
    (image,) = about["multiscales"]
    after = {"coordinateTransformations": [{"type": "scale", "scale": [0.02, 1.08, 1.08]}]}
    group.attrs["ome"] = about | {"multiscales": [image | after]}
    with open_movie(path) as movie:
        assert movie.pixel_nm == pytest.approx(108)
    # Version 0.6: axes have coordinate systems, to which the transformations lead.
    shift = {"type": "translation", "translation": [0.0, 9.0, 9.0]}
    (scale,) = image["datasets"][0]["coordinateTransformations"]
    step = {"type": "sequence", "input": {"path": "0"}, "output": {"name": "stage"}}
    other = {"name": "cut", "axes": [{"name": axis} for axis in "abc"]}
    systems = [other, {"name": "stage", "axes": image["axes"]}]
    level = {"path": "0", "coordinateTransformations": [step | {"transformations": [scale, shift]}]}
    further = [{"type": "scale", "scale": [9.0] * 3, "output": {"name": "cut"}}]
    new = {"coordinateSystems": systems, "datasets": [level], "coordinateTransformations": further}
    group.attrs["ome"] = {"version": "0.6", "multiscales": [new]}
    with open_movie(path) as movie:
        assert movie.pixel_nm == pytest.approx(100)
        np.testing.assert_array_equal(movie.read(), STACK)
    group.attrs["ome"] = {"version": "0.6", "multiscales": [new | {"coordinateSystems": [other]}]}
    with pytest.raises(MovieError, match="without an OME-Zarr image"):
        open_movie(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_bare_zarr_arrays_and_damaged_ones(tmp_path, zarr_format):
    path = tmp_path / "movie.zarr"
    array = zarr.create_array(
        str(path), shape=STACK.shape, dtype=STACK.dtype, chunks=(4, 24, 32), zarr_format=zarr_format
    )
    array[:] = STACK
    with open_movie(path) as movie:
        np.testing.assert_array_equal(movie.read(), STACK)
    chunk = path / ("1.0.0" if zarr_format == 2 else "c/1/0/0")
    chunk.write_bytes(chunk.read_bytes()[:40])
    with open_movie(path) as movie:
        np.testing.assert_array_equal(movie.read(0, 4), STACK[:4])
        with pytest.raises(MovieError, match="cannot be decoded"):
            movie.read(3, 6)
    zarr.open_group(str(tmp_path / "other.zarr"), mode="w", zarr_format=zarr_format)
    with pytest.raises(MovieError, match="without an OME-Zarr image"):
        open_movie(tmp_path / "other.zarr")


def test_regions_and_frame_ranges_are_parsed():
    assert parse_region("2:20,5:30", (24, 32)) == (slice(2, 20), slice(5, 30))
    assert parse_region(":,4:", (24, 32)) == (slice(0, 24), slice(4, 32))
    assert parse_frames("3:9", 13) == slice(3, 9)
    assert parse_frames(" 3 : ", 13) == slice(3, 13)


@pytest.mark.parametrize(
    "text", ["2:20", "2:20,5:30,1:2", "a:b,c:d", "-2:20,0:32", "0:25,0:32", "9:2,0:32", "0:4,0:32"]
)
def test_impossible_regions_are_refused(text):
    with pytest.raises(InputError):
        parse_region(text, (24, 32))


@pytest.mark.parametrize("text", ["3", "3:3", "5:3", "0:14", "x:y", "0:0", "1.5:3"])
def test_impossible_frame_ranges_are_refused(text):
    with pytest.raises(InputError):
        parse_frames(text, 13)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("scmos_storm_real/stack.tif", (11, 256, 256)),
        ("dstorm_real/stack.tif", (5, 128, 128)),
        ("dense_random_sim/stack.tif", (20, 64, 64)),
        ("known_answer_sim/test.tif", (10, 256, 256)),
        ("known_answer_sim/test_300x200.tif", (10, 200, 300)),
        ("known_answer_sim/test_low_snr.tif", (2, 300, 400)),
    ],
)
def test_third_party_movies(name, shape):
    if not (SHARED / name).exists():
        pytest.skip(f"the third-party movie {SHARED / name} is absent")
    with open_movie(SHARED / name) as movie:
        assert movie.shape == shape
        np.testing.assert_array_equal(movie.read(), tifffile.imread(SHARED / name))
