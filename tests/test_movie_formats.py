"""Movies of microscopes: written by the real programs where there are any, read lazily."""

import json
import re
import shutil
import struct
import sys

import numpy as np
import pytest
import tifffile
import yaml
import zarr
from typer.testing import CliRunner

from sureloc.camera import Camera
from sureloc.cli import app as cli
from sureloc.errors import InputError, MovieError
from sureloc.io.cameras import write_camera
from sureloc.io.movie_writing import write_movie
from sureloc.io.movies import open_movie


def film():
    """13 frames of five molecules each, ADU of a camera of offset 100, gain 2 and no read noise."""
    rng = np.random.default_rng(1)
    frames, rows, columns = np.mgrid[:13, :24, :32]
    electrons = np.full(frames.shape, 20.0)
    for y, x in zip(rng.uniform(3, 21, (5, 13)), rng.uniform(3, 29, (5, 13)), strict=True):
        distance2 = (rows - y[frames]) ** 2 + (columns - x[frames]) ** 2
        electrons += 300 * np.exp(-distance2 / (2 * 1.3**2))
    return (100 + 2 * rng.poisson(electrons)).astype(np.uint16)


STACK = film()


def check(path, pixel_nm=None, exposure_ms=None, camera=None, stack=STACK):
    with open_movie(path) as movie:
        assert movie.shape == stack.shape
        assert movie.dtype == stack.dtype
        np.testing.assert_array_equal(movie.read(), stack)
        np.testing.assert_array_equal(movie.read(9, 12), stack[9:12])
        np.testing.assert_array_equal(movie.read(3, 5), stack[3:5])
        assert movie.read(4, 4).shape == (0, 24, 32)
        part = movie.select(slice(2, 20), slice(5, 30), slice(3, 9))
        np.testing.assert_array_equal(part.read(1, 4), stack[4:7, 2:20, 5:30])
        assert movie.pixel_nm == pytest.approx(pixel_nm)
        assert movie.exposure_ms == pytest.approx(exposure_ms)
        assert movie.camera_name == camera


# --- Raw numbers ---------------------------------------------------------------------------------


def write_raw(path, byte_order="<", **changes):
    STACK.astype(f"{byte_order}u2").tofile(path)
    info = {"Byte Order": byte_order, "Data Type": "uint16", "Frames": 13, "Height": 24}
    info |= {"Width": 32, **changes}
    steps = [{name: value for name, value in info.items() if value is not None}, {"Step": 2}]
    path.with_suffix(".yaml").write_text(yaml.safe_dump_all(steps))


@pytest.mark.parametrize("byte_order", "<>")
def test_raw_movies_of_picasso(tmp_path, byte_order):
    path = tmp_path / "movie.raw"
    write_raw(path, byte_order)
    check(path)
    write_raw(path, byte_order, Pixelsize=130, Camera="Andor Zyla")
    check(path, 130, None, "Andor Zyla")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"Frames": 14}, "announces 14 frames"),
        ({"Frames": 12}, "announces 12 frames"),
        ({"Width": None}, "needs Frames, Height, Width"),
        ({"Data Type": "word"}, "word"),
        ({"Frames": "many"}, "many"),
        ({"Frames": 0}, "announces 0"),
    ],
)
def test_raw_movies_that_do_not_fit_are_refused(tmp_path, changes, match):
    write_raw(tmp_path / "movie.raw", **changes)
    with pytest.raises(MovieError, match=match):
        open_movie(tmp_path / "movie.raw")
    (tmp_path / "movie.yaml").write_text("[1, 2")
    with pytest.raises(MovieError, match="does not say"):
        open_movie(tmp_path / "movie.raw")
    (tmp_path / "movie.yaml").unlink()
    with pytest.raises(MovieError, match=r"movie\.yaml"):
        open_movie(tmp_path / "movie.raw")


def test_a_raw_movie_that_shrinks_is_noticed(tmp_path):
    write_raw(tmp_path / "movie.raw")
    with open_movie(tmp_path / "movie.raw") as movie:
        with (tmp_path / "movie.raw").open("r+b") as file:
            file.truncate(5000)
        with pytest.raises(MovieError, match="shorter"):
            movie.read(5, 13)


# The lines that the Zhuang lab's acquisition program writes.
INF = """information file for
movie.dax
machine name = storm4
data type = 16 bit integers (binary, {order} endian)
number of frames = {frames}
frame size = 768
frame dimensions = 32 x 24
binning = 1 x 1
Exposure Time = 0.02
camera head = DU897_BV
x_start = 1
x_end = 32
"""


def write_dax(path, order="little", frames=13):
    STACK.astype("<u2" if order == "little" else ">u2").tofile(path)
    path.with_suffix(".inf").write_text(INF.format(order=order, frames=frames))


@pytest.mark.parametrize("order", ["big", "little"])
def test_dax_movies(tmp_path, order):
    path = tmp_path / "movie.dax"
    write_dax(path, order)
    check(path, None, 20.0, "DU897_BV")
    write_dax(path, order, frames=12)
    with pytest.raises(MovieError, match="19968 bytes"):
        open_movie(path)
    path.with_suffix(".inf").write_text(
        INF.format(order=order, frames=13).replace("16 bit", "8 bit")
    )
    with pytest.raises(MovieError, match="8-bit"):
        open_movie(path)
    path.with_suffix(".inf").write_text("number of frames = 13\n")
    with pytest.raises(MovieError, match="frame dimensions"):
        open_movie(path)
    path.with_suffix(".inf").unlink()
    with pytest.raises(MovieError, match=r"movie\.inf"):
        open_movie(path)


# --- NDTiff, by its own writer --------------------------------------------------------------------

# In a process of its own, as the writer leaves its files to the garbage collector.
WRITE_NDTIFF = """
import sys
from pathlib import Path
import ndstorage
import numpy as np
from ndstorage import ndtiff_file
stack = np.load(sys.argv[1])
folder = Path(sys.argv[1]).parent
axes = {
    "plain": lambda i: {"time": i},
    "channel": lambda i: {"time": i, "channel": 0},
    "colours": lambda i: {"time": i // 2, "channel": i % 2},
    "split": lambda i: {"time": i},
}
for name, of_frame in axes.items():
    # It begins a new file at 4 GiB; here much earlier.
    # The 5,000,000 bytes are what it keeps free at a file's end.
    ndtiff_file.MAX_FILE_SIZE = 5_000_000 + (8000 if name == "split" else 2**20)
    summary = {"PixelSize_um": 0.108}
    data = ndstorage.NDTiffDataset(
        str(folder), name=name, summary_metadata=summary, writable=True
    )
    for index, frame in enumerate(stack):
        data.put_image(of_frame(index), frame, {"Exposure-ms": 30.0, "Camera": "Andor"})
    data.finish()
"""


@pytest.fixture(scope="module")
def ndtiff(tmp_path_factory, run_python):
    pytest.importorskip("ndstorage", reason="ndstorage writes NDTiff")
    folder = tmp_path_factory.mktemp("ndtiff")
    np.save(folder / "stack.npy", STACK)
    run_python("-c", WRITE_NDTIFF, str(folder / "stack.npy"))
    return folder


def test_ndtiff_as_a_folder_and_by_its_file(ndtiff):
    check(ndtiff / "plain_1", 108, 30.0, "Andor")
    check(ndtiff / "plain_1" / "plain_NDTiffStack.tif", 108, 30.0, "Andor")
    check(ndtiff / "channel_1", 108, 30.0, "Andor")


def test_ndtiff_of_several_files(ndtiff):
    assert len(list((ndtiff / "split_1").glob("*.tif"))) > 2
    check(ndtiff / "split_1", 108, 30.0, "Andor")


def test_ndtiff_that_is_no_movie_is_refused(ndtiff):
    with pytest.raises(MovieError, match="2 channels"):
        open_movie(ndtiff / "colours_1")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.95])
@pytest.mark.parametrize("name", ["NDTiff.index", "plain_NDTiffStack.tif"])
def test_truncated_ndtiff_is_refused_not_shortened(ndtiff, tmp_path, name, share):
    shutil.copytree(ndtiff / "plain_1", tmp_path / "plain")
    data = (ndtiff / "plain_1" / name).read_bytes()
    (tmp_path / "plain" / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(MovieError, match=r"names|truncated|cannot be read"):
        open_movie(tmp_path / "plain")


def test_ndtiff_whose_second_file_is_missing_is_refused(ndtiff, tmp_path):
    shutil.copytree(ndtiff / "split_1", tmp_path / "split")
    (tmp_path / "split" / "split_NDTiffStack_1.tif").unlink()
    with pytest.raises(MovieError):
        open_movie(tmp_path / "split")


def test_ndtiff_without_its_files_is_refused(tmp_path):
    (tmp_path / "NDTiff.index").write_bytes(b"")
    with pytest.raises(MovieError, match="none of the files"):
        open_movie(tmp_path)


# --- CZI, by Zeiss's own writer -------------------------------------------------------------------


def write_czi(
    path, planes=lambda i: {"T": i, "C": 0, "Z": 0}, scenes=1, stack=STACK, pixel_y_nm=108
):
    czi = pytest.importorskip("pylibCZIrw.czi", reason="pylibCZIrw reads and writes CZI")
    with czi.create_czi(str(path), exist_ok=True) as document:
        for scene in range(scenes):
            for index, frame in enumerate(stack):
                place = (1000 * scene, 0)
                document.write(frame[:, :, None], location=place, plane=planes(index), scene=scene)
        document.write_metadata("movie", scale_x=108e-9, scale_y=pixel_y_nm * 1e-9)


def test_czi_of_time_in_16_8_and_32_bits(tmp_path):
    write_czi(tmp_path / "movie.czi")
    check(tmp_path / "movie.czi", 108)
    for dtype in (np.uint8, np.float32):
        write_czi(tmp_path / "other.czi", stack=STACK.astype(dtype))
        check(tmp_path / "other.czi", 108, stack=STACK.astype(dtype))


def test_czi_metadata_of_exposure_and_camera():
    from sureloc.io.movies_vendor import _czi_acquisition, parsed_xml

    text = (
        "<ImageDocument><Metadata><Information><Image><Dimensions><Channels><Channel>"
        "<ExposureTime>50000000</ExposureTime></Channel></Channels></Dimensions></Image>"
        "<Instrument><Detectors><Detector Id='d'><Manufacturer><Model>Axiocam 705</Model>"
        "</Manufacturer></Detector></Detectors></Instrument></Information></Metadata>"
        "</ImageDocument>"
    )
    said = _czi_acquisition(parsed_xml(text))
    assert (said.exposure_ms, said.camera_name) == (50.0, "Axiocam 705")
    assert parsed_xml("<!DOCTYPE a [<!ENTITY b 'c'>]><a/>") is None
    assert parsed_xml("<a>") is None


def test_czi_that_is_no_movie_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "movie.czi"
    for options, match in (
        ({"planes": lambda i: {"T": i // 2, "C": i % 2, "Z": 0}}, "2 channels"),
        ({"planes": lambda i: {"T": 0, "C": 0, "Z": i}}, "13 planes"),
        ({"scenes": 2}, "2 "),
        ({"stack": np.zeros((3, 4, 40), np.uint16)}, "4 rows"),
    ):
        write_czi(path, **options)
        with pytest.raises(MovieError, match=match):
            open_movie(path)
    write_czi(path)
    whole = path.read_bytes()
    for share in (0.0, 0.3, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        match = "cannot be read" if share else "is empty"
        with pytest.raises(MovieError, match=match), open_movie(path) as movie:
            movie.read()
    path.write_bytes(b"no CZI" * 200)
    with pytest.raises(MovieError, match="cannot be read as CZI"):
        open_movie(path)
    monkeypatch.setitem(sys.modules, "pylibCZIrw.czi", None)
    with pytest.raises(MovieError, match=r"pip install 'sureloc\[czi\]'"):
        open_movie(path)


# --- LIF: there is no writer; the bytes are laid as Leica's description says ----------------------


def dimension(number, count, length, unit, step):
    return (
        f'<DimensionDescription DimID="{number}" NumberOfElements="{count}" Origin="0" '
        f'Length="{length}" Unit="{unit}" BitInc="0" BytesInc="{step}"/>'
    )


def element(name, channels=1, pixel_y_nm=108):
    channel = (
        '<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" NameOfMeasuredQuantity="" '
        'Min="0" Max="65535" Unit="" LUTName="Gray" IsLUTInverted="0" BytesInc="{step}" '
        'BitInc="0"/>'
    )
    plane = 24 * 32 * 2
    axes = (
        # The length is between the centres of the first and the last pixel: 31 x 108 nm.
        dimension(1, 32, 31 * 108e-9, "m", 2)
        + dimension(2, 24, 23 * pixel_y_nm * 1e-9, "m", 64)
        + dimension(4, 13 // channels, 0.4, "s", plane * channels)
    )
    return (
        f'<Element Name="{name}" UniqueID="u-{name}"><Data><Image><ImageDescription><Channels>'
        + "".join(channel.format(step=plane * index) for index in range(channels))
        + f"</Channels><Dimensions>{axes}</Dimensions></ImageDescription>"
        '<Attachment Name="HardwareSetting"><ATLCameraSettingDefinition>'
        '<WideFieldChannelConfigurator CameraName="K8"><WideFieldChannelInfo ExposureTime="0.025"/>'
        "</WideFieldChannelConfigurator></ATLCameraSettingDefinition></Attachment></Image></Data>"
        f'<Memory Size="{STACK.nbytes}" MemoryBlockID="Mem_{name}"/></Element>'
    )


def write_lif(path, names=("movie",), channels=1, pixel_y_nm=108):
    inner = "".join(element(name, channels, pixel_y_nm) for name in names)
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="project"><Children>'
        f"{inner}</Children></Element></LMSDataContainerHeader>"
    )
    text = xml.encode("utf-16-le")
    out = struct.pack("<IIBI", 0x70, len(text) + 5, 0x2A, len(xml)) + text
    for name in names:
        label = f"Mem_{name}"
        head = struct.pack("<BQBI", 0x2A, STACK.nbytes, 0x2A, len(label))
        head += label.encode("utf-16-le")
        out += struct.pack("<II", 0x70, len(head)) + head + STACK.astype("<u2").tobytes()
    path.write_bytes(out)


@pytest.fixture
def lif(tmp_path):
    pytest.importorskip("liffile", reason="liffile reads LIF")
    return tmp_path / "movie.lif"


def test_lif_of_time(lif):
    write_lif(lif)
    check(lif, 108, 25.0, "K8")


def test_lif_that_is_no_movie_is_refused(lif, monkeypatch):
    write_lif(lif, ("a", "b"))
    with pytest.raises(MovieError, match="2 images: a, b;"):
        open_movie(lif)
    write_lif(lif, channels=2)
    with pytest.raises(MovieError, match="2 channels"):
        open_movie(lif)
    write_lif(lif)
    whole = lif.read_bytes()
    for share in (0.0, 0.05, 0.5, 0.99):
        lif.write_bytes(whole[: int(share * len(whole))])
        match = "cannot be read|truncated" if share else "is empty"
        with pytest.raises(MovieError, match=match):
            open_movie(lif)
    monkeypatch.setitem(sys.modules, "liffile", None)
    with pytest.raises(MovieError, match=r"pip install 'sureloc\[lif\]'"):
        open_movie(lif)


# --- ND2: there is no writer; the bytes are laid as those of NIS-Elements are read ---------


def entry(name, value):
    """One entry of the binary tree in which ND2 keeps its metadata."""
    label = f"{name}\0".encode("utf-16-le")
    if isinstance(value, dict):
        inner = b"".join(entry(*item) for item in value.items())
        size = struct.pack("<IQ", len(value), 2 + len(label) + 12 + len(inner))
        kind, data = 11, size + inner + bytes(8 * len(value))
    elif isinstance(value, bool):
        kind, data = 1, struct.pack("<B", value)
    elif isinstance(value, int):
        kind, data = 3, struct.pack("<I", value)
    elif isinstance(value, float):
        kind, data = 6, struct.pack("<d", value)
    else:
        kind, data = 8, f"{value}\0".encode("utf-16-le")
    return struct.pack("<BB", kind, len(name) + 1) + label + data


CAPTURING = "Flash4.0, SN:101412\r\nSample 1:\r\n  Exposure: 100 ms\r\n  Binning: 1x1"


def write_nd2(path, texts=None, planes=1, frames=STACK):
    count, height, width = frames.shape
    count //= planes
    attributes = {"uiBpcInMemory": 16, "uiBpcSignificant": 16, "uiComp": planes, "uiWidth": width}
    attributes |= {"uiHeight": height, "uiWidthBytes": 2 * planes * width}
    attributes |= {"uiSequenceCount": count, "eCompression": 2}
    dye = {"sDescription": "dye", "uiCompCount": 1, "pFluorescentProbe": {"m_sName": "AF647"}}
    channels = {f"a{k}": dye for k in range(planes)}
    picture = {"bCalibrated": True, "dCalibration": 0.108}
    picture["sPicturePlanes"] = {"uiCount": planes, "sPlaneNew": channels}
    loop = {"uiCount": count, "dStart": 0.0, "dPeriod": 100.0, "dDuration": 1300.0}
    trees = {
        "ImageAttributesLV!": {"SLxImageAttributes": attributes},
        "ImageMetadataSeqLV|0!": {"SLxPictureMetadata": picture},
        "ImageMetadataLV!": {"SLxExperiment": {"eType": 1, "uLoopPars": loop}},
        "ImageTextInfoLV!": {"SLxImageTextInfo": texts or {"TextInfoItem_6": CAPTURING}},
    }
    chunks = {name: b"".join(entry(*one) for one in tree.items()) for name, tree in trees.items()}
    pixels = frames.reshape(count, planes, height, width).transpose(0, 2, 3, 1).astype("<u2")
    for number, frame in enumerate(pixels):
        chunks[f"ImageDataSeq|{number}!"] = struct.pack("<d", 100.0 * number) + frame.tobytes()
    magic, signature = 0xABECEDA, b"ND2 FILE SIGNATURE CHUNK NAME01!"
    out = struct.pack("<IIQ32s64s", magic, 32, 64, signature, b"Ver3.0")
    names = b""
    for name, data in chunks.items():
        names += name.encode() + struct.pack("<QQ", len(out), len(data))
        # A name takes the place up to the next 4096 bytes; frames are looked for behind that.
        out += struct.pack("<IIQ4072s", magic, 4072, len(data), name.encode()) + data
    ending = b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", len(out))
    names += ending
    out += struct.pack("<IIQ32s", magic, 32, len(names), b"ND2 FILEMAP SIGNATURE NAME 0001!")
    path.write_bytes(out + names + ending)


@pytest.fixture
def nd2(tmp_path):
    pytest.importorskip("nd2", reason="nd2 reads ND2")
    return tmp_path / "movie.nd2"


def test_nd2_of_time(nd2):
    write_nd2(nd2)
    check(nd2, 108, 100.0, "Flash4.0")
    write_nd2(nd2, {"TextInfoItem_5": "Camera Name: Andor Zyla\r\nExposure: 0.2 s"})
    check(nd2, 108, 200.0, "Andor Zyla")
    write_nd2(nd2, {"TextInfoItem_5": "nothing of use"})
    check(nd2, 108)


def test_nd2_that_is_no_movie_is_refused(nd2, monkeypatch):
    write_nd2(nd2, planes=13)
    with pytest.raises(MovieError, match="13 channels"):
        open_movie(nd2)
    write_nd2(nd2)
    whole = nd2.read_bytes()
    for share in (0.0, 0.05, 0.5, 0.99):
        nd2.write_bytes(whole[: int(share * len(whole))])
        match = "cannot be read as ND2" if share else "is empty"
        with pytest.raises(MovieError, match=match):
            open_movie(nd2)
    monkeypatch.setitem(sys.modules, "nd2", None)
    with pytest.raises(MovieError, match=r"pip install 'sureloc\[nd2\]'"):
        open_movie(nd2)


# --- What files say about the acquisition ---------------------------------------------------------


def write_ome_tiff(path, exposure_s=0.03, pixel_y_nm=108):
    plane = {"ExposureTime": [exposure_s] * 13, "ExposureTimeUnit": ["s"] * 13}
    meta = {"axes": "TYX", "PhysicalSizeX": 0.108, "PhysicalSizeY": pixel_y_nm * 1e-3}
    meta["Plane"] = plane
    tifffile.imwrite(path, STACK, ome=True, metadata=meta)
    text = tifffile.tiffcomment(path)
    detector = (
        '<Instrument ID="I:0"><Detector ID="D:0" Manufacturer="PCO" Model="edge"/></Instrument>'
    )
    tifffile.tiffcomment(path, re.sub("(<Image )", detector + r"\1", text, count=1).encode())


def test_exposure_and_camera_of_ome_tiff(tmp_path):
    path = tmp_path / "movie.ome.tif"
    write_ome_tiff(path)
    check(path, 108, 30.0, "PCO edge")
    write_ome_tiff(path, exposure_s=-1.0)
    check(path, 108, None, "PCO edge")


def test_exposure_and_camera_beside_ome_zarr(tmp_path):
    """In the place where bioformats2raw leaves them."""
    group = zarr.open_group(str(tmp_path / "movie.zarr"), mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    image = group.create_group("0")
    axes = [{"name": name} for name in "tyx"]
    image.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}]}]
    image.create_array("0", data=STACK)
    (tmp_path / "movie.zarr" / "OME").mkdir()
    (tmp_path / "movie.zarr" / "OME" / "METADATA.ome.xml").write_text(
        '<OME><Instrument><Detector Model="Prime 95B"/></Instrument>'
        '<Plane/><Plane ExposureTime="1"/></OME>'
    )
    check(tmp_path / "movie.zarr", None, 1000.0, "Prime 95B")


def write_micromanager(path, **changes):
    """A stack whose frames carry what Micro-Manager says of each."""
    said = {"PixelSizeUm": 0.108, "Exposure-ms": 30.0, "Core-Camera": "Camera-1"} | changes
    text = json.dumps({name: value for name, value in said.items() if value is not None})
    with tifffile.TiffWriter(path) as tif:
        for frame in STACK:
            tag = (51123, "s", 0, text, True)
            tif.write(frame, contiguous=False, metadata=None, extratags=[tag])


def test_exposure_and_camera_of_micromanager(tmp_path):
    path = tmp_path / "movie.tif"
    write_micromanager(path)
    check(path, 108, 30.0, "Camera-1")
    write_micromanager(path, **{"Camera-1-CameraName": {"PropVal": "Prime95B"}})
    check(path, 108, 30.0, "Prime95B")
    wrapped = {"PropVal": "Andor"}
    write_micromanager(path, Camera=wrapped, **{"Core-Camera": None, "Exposure-ms": "12.5"})
    check(path, 108, 12.5, "Andor")
    write_micromanager(path, **{"Core-Camera": None, "Exposure-ms": None})
    check(path, 108)


@pytest.mark.parametrize(
    ("name", "write", "pixel_nm", "exposure_ms", "camera"),
    [
        ("movie.dax", write_dax, None, 20.0, "DU897_BV"),
        ("movie.czi", write_czi, 108.0, None, None),
        ("movie.lif", write_lif, 108.0, 25.0, "K8"),
        ("movie.nd2", write_nd2, 108.0, 100.0, "Flash4.0"),
        ("plain_1", None, 108.0, 30.0, "Andor"),
        ("movie.tif", write_micromanager, 108.0, 30.0, "Camera-1"),
        ("movie.ome.tif", write_ome_tiff, 108.0, 30.0, "PCO edge"),
    ],
)
def test_inspect_says_what_the_file_says(
    name, write, pixel_nm, exposure_ms, camera, tmp_path, request
):
    if write is None:
        tmp_path = request.getfixturevalue("ndtiff")
    else:
        write(tmp_path / name)
    write_camera(Camera(100.0, 2.0, 0.0), tmp_path / "camera.yaml")
    options = ["--json", "--camera", str(tmp_path / "camera.yaml")]
    done = CliRunner().invoke(cli.app, ["inspect", str(tmp_path / name), *options])
    assert done.exit_code == 0, (done.output, done.exception)
    found = json.loads(done.output)
    stated = {key: found["quantities"][key]["value"] for key in ("pixel_nm", "exposure_ms")}
    assert stated == pytest.approx({"pixel_nm": pixel_nm, "exposure_ms": exposure_ms})
    assert found["camera"]["name"] == camera


# --- Pixels that are not square -------------------------------------------------------------------


def write_imagej(path, pixel_y_nm):
    resolution = (1e3 / 108, 1e3 / pixel_y_nm)
    tifffile.imwrite(path, STACK, imagej=True, resolution=resolution, metadata={"unit": "um"})


def write_zarr(path, pixel_y_nm):
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    axes = [{"name": "t"}, *({"name": name, "unit": "nanometer"} for name in "yx")]
    scale = {"type": "scale", "scale": [1, pixel_y_nm, 108]}
    level = {"path": "0", "coordinateTransformations": [scale]}
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [level]}]
    group.create_array("0", data=STACK)


def called(*arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sureloc", *map(str, arguments)])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    return leaving.value.code


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("movie.ome.tif", write_ome_tiff),
        ("movie.tif", write_imagej),
        ("movie.zarr", write_zarr),
        ("movie.czi", write_czi),
        ("movie.lif", write_lif),
    ],
)
def test_pixels_that_are_not_square_are_not_taken_for_unknown(
    name, write, tmp_path, monkeypatch, capsys
):
    path, out = tmp_path / name, tmp_path / "out"
    write(path, pixel_y_nm=216)
    with open_movie(path) as movie:
        assert movie.pixel_nm is None
        assert movie.oblong_pixel_nm == pytest.approx((108, 216))
    for command in (("localize", path, "--out", out), ("convert", path, tmp_path / "o.ome.tif")):
        assert called(*command, "-q", monkeypatch=monkeypatch) == 2
        said = capsys.readouterr().err
        assert "108 nm along x and 216 nm along y; sureloc needs square pixels" in said
        assert "--pixel-nm" in said
        assert not out.exists()
    write(path, pixel_y_nm=108.5)  # as rounding leaves it
    with open_movie(path) as movie:
        assert movie.pixel_nm == pytest.approx(108)
        movie.check_square_pixels()


def test_a_pixel_size_that_is_given_for_pixels_that_are_not_square_is_taken_and_doubted(
    tmp_path, monkeypatch, capsys
):
    path = tmp_path / "movie.ome.tif"
    write_ome_tiff(path, pixel_y_nm=216)
    write_camera(Camera(100.0, 2.0, 0.0), tmp_path / "camera.yaml")
    with_camera = ("--camera", tmp_path / "camera.yaml")
    assert called("inspect", path, *with_camera, "--json", monkeypatch=monkeypatch) == 0
    pixel = json.loads(capsys.readouterr().out)["quantities"]["pixel_nm"]
    assert pixel["value"] is None
    assert pixel["note"] == (
        "the file says 108 nm along x and 216 nm along y; sureloc needs square pixels (--pixel-nm)"
    )
    options = ("--pixel-nm", "108", "--sigma-px", "1.3", "--frames", "0:2", "-q", *with_camera)
    out = ("--out", tmp_path / "out")
    assert called("localize", path, *out, *options, monkeypatch=monkeypatch) in (0, 3)
    said = capsys.readouterr().out
    assert "The pixel size was given: 108 nm. The file says 108 x 216 nm." in said
    assert "the file says that pixels are 108 nm wide and 216 nm high, not square" in said


def test_reading_a_chunk_needs_no_more_memory_than_the_chunk(tmp_path):
    import tracemalloc

    path = tmp_path / "movie.raw"
    np.zeros((120, 256, 256), np.uint16).tofile(path)  # 15.7 MB
    info = {"Byte Order": "<", "Data Type": "uint16", "Frames": 120, "Height": 256, "Width": 256}
    path.with_suffix(".yaml").write_text(yaml.safe_dump(info))
    with open_movie(path) as movie:
        movie.read(0, 1)
        tracemalloc.start()
        movie.read(60, 62)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1e6  # two frames are 262 kB


# --- Written for others ---------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_what_is_written_reads_back(tmp_path, suffix, dtype):
    stack = STACK.astype(dtype)
    tifffile.imwrite(tmp_path / "in.tif", stack)
    done = []
    with open_movie(tmp_path / "in.tif") as movie:
        part = movie.select(slice(2, 20), slice(5, 30), slice(3, 9))
        write_movie(part, tmp_path / f"out{suffix}", 108.0, done.append)
    assert sum(done) == 6
    with open_movie(tmp_path / f"out{suffix}") as back:
        np.testing.assert_array_equal(back.read(), stack[3:9, 2:20, 5:30])
        assert back.dtype == dtype
        assert back.pixel_nm == pytest.approx(108)


def test_metadata_go_with_the_movie(tmp_path):
    path = tmp_path / "movie.dax"
    write_dax(path)
    with open_movie(path) as movie:
        write_movie(movie, tmp_path / "a.ome.tif")
        write_movie(movie, tmp_path / "a.ome.zarr")
    check(tmp_path / "a.ome.tif", None, 20.0)
    group = zarr.open_group(str(tmp_path / "a.ome.zarr"), mode="r")
    assert group.attrs["multiscales"][0]["axes"][1] == {"name": "y", "type": "space"}
    with open_movie(tmp_path / "a.ome.tif") as movie:
        for name in ("b.tif", "b.zarr"):
            with pytest.raises(InputError, match=r"call it b\.ome\.(tif|zarr)"):
                write_movie(movie, tmp_path / name)
        with pytest.raises(InputError, match="exists"):
            write_movie(movie, tmp_path / "a.ome.tif")


def test_the_command_converts_a_movie(tmp_path, monkeypatch, capsys):
    path = tmp_path / "movie.dax"
    write_dax(path)
    out = tmp_path / "out.ome.zarr"
    arguments = ["sureloc", "convert", str(path), str(out), "--pixel-nm", "117"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--frames", "2:9", "--roi", "0:20,4:32", "-q"])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 0
    assert capsys.readouterr().out == (
        f"{out}: 7 frames of 20 x 28 px (rows x columns), uint16, pixels of 117 nm, exposed for 20 "
        "ms, camera DU897_BV\n"
    )
    with open_movie(out) as movie:
        np.testing.assert_array_equal(movie.read(), STACK[2:9, :20, 4:])
