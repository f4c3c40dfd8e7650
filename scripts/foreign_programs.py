"""Read sureloc's files with other programs, or write files with them; runs in THEIR environment.

    python scripts/foreign_programs.py read PROGRAM FOLDER
    python scripts/foreign_programs.py count PROGRAM FOLDER
    python scripts/foreign_programs.py write PROGRAM FOLDER
    python scripts/foreign_programs.py run PROGRAM FOLDER

`read` reads the tables that tests/test_readers.py has put into FOLDER with PROGRAM's own functions
and leaves what it got, in its own units, as read_by_PROGRAM.json. `count` leaves the number of rows
that it got of each such table in folders of FOLDER, or how it refused, as counted_by_PROGRAM.json.
`write` has PROGRAM write the
localizations of FOLDER/rows.json, which are in pixels, into FOLDER. `run` has bioimageio test
FOLDER/package.zip and run it on the inputs in FOLDER, one .npy each, Picasso load a camera,
save a movie and measure a resolution there, and ome_zarr write a movie in all its versions and read
what sureloc wrote. Nothing of sureloc is imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Columns = Mapping[str, Any]


def read_locan(folder: Path) -> dict[str, Columns]:
    from locan.locan_io.locdata.decode_io import load_decode_file
    from locan.locan_io.locdata.smap_io import load_SMAP_file
    from locan.locan_io.locdata.thunderstorm_io import load_thunderstorm_file

    loaders = {
        "thunderstorm.csv": load_thunderstorm_file,
        "localizations.csv": load_thunderstorm_file,
        "smap_sml.mat": load_SMAP_file,
        "decode.h5": load_decode_file,
    }
    return {name: load(folder / name).data for name, load in loaders.items()}


def read_picasso(folder: Path) -> dict[str, Columns]:
    import picasso.io
    import picasso.postprocess
    import picasso.render

    locs, info = picasso.io.load_locs(str(folder / "picasso.hdf5"))
    pixel_nm = info[0]["Pixelsize"]
    # It must not only load the table but work with it.
    count, image = picasso.render.render(locs, info, disp_px_size=50.0, blur_method="gaussian")
    linked = picasso.postprocess.link(locs, info, r_max=0.01)
    assert count == len(locs), (count, len(locs))
    assert abs(image.sum() / len(locs) - 1) < 0.1, image.sum()
    assert 0 < len(linked) <= len(locs)
    (folder / "picasso.yaml").rename(folder / "set_aside.yaml")
    assert picasso.io.load_locs(str(folder / "picasso.hdf5"))[1] == info  # from the file itself
    (folder / "set_aside.yaml").rename(folder / "picasso.yaml")
    smap, _ = picasso.io.import_smap(str(folder / "smap_sml.mat"), pixel_nm)
    with_bad_rows, _ = picasso.io.load_locs(str(folder / "bad_rows.hdf5"))
    storms = {
        name: picasso.io.import_ts(str(folder / name), pixel_nm)[0]
        for name in ("thunderstorm.csv", "localizations.csv")
    }
    return {"picasso.hdf5": locs, "smap_sml.mat": smap, "bad_rows.hdf5": with_bad_rows, **storms}


def read_smappy(folder: Path) -> dict[str, Columns]:
    from smappy.io.formats import load

    out: dict[str, Columns] = {}
    for name in ("smap.csv", "smap_sml.mat", "picasso.hdf5", "decode.h5"):
        table, info = load(folder / name)
        out[name] = {column: table[column] for column in table}
        if info.pixelsize_nm is not None:
            assert abs(info.pixelsize_nm - 108.0) < 1e-6, info.pixelsize_nm
    for name in ("thunderstorm.csv", "localizations.csv"):
        table, _ = load(folder / name, first_frame=1)
        out[name] = {column: table[column] for column in table}
    return out


def read_mat73(folder: Path) -> dict[str, Columns]:
    import mat73

    content = mat73.loadmat(str(folder / "smap_sml.mat"))
    assert content["fileformat"]["name"] == "sml"
    assert np.allclose(content["saveloc"]["info"]["cam_pixelsize_um"], 0.108)
    return {"smap_sml.mat": content["saveloc"]["loc"]}


def open_picasso(path: Path) -> Columns:
    """Read a table as Picasso's users see it: what they import is saved, and opened from there."""
    import picasso.io

    if path.suffix == ".hdf5":
        return picasso.io.load_locs(str(path))[0]
    load = picasso.io.import_smap if path.suffix == ".mat" else picasso.io.import_ts
    locs, info = load(str(path), 108.0)
    saved = path.with_name(f"{path.stem}_imported.hdf5")
    picasso.io.save_locs(str(saved), locs, info)
    return picasso.io.load_locs(str(saved))[0]


def open_locan(path: Path) -> Columns:
    from locan.locan_io.locdata.decode_io import load_decode_file
    from locan.locan_io.locdata.smap_io import load_SMAP_file
    from locan.locan_io.locdata.thunderstorm_io import load_thunderstorm_file

    loaders = {".csv": load_thunderstorm_file, ".mat": load_SMAP_file, ".h5": load_decode_file}
    return loaders[path.suffix](path).data


def open_smappy(path: Path) -> Columns:
    from smappy.io.formats import load

    table, _ = load(path, **({"first_frame": 1} if path.name == "thunderstorm.csv" else {}))
    return {column: table[column] for column in table}


def open_mat73(path: Path) -> Columns:
    import mat73

    return mat73.loadmat(str(path))["saveloc"]["loc"]


def count_rows(program: str, folder: Path) -> dict[str, int | str]:
    """Count the rows that a program gets of each table, or name the error that it ends in."""
    load, names = OPEN[program]
    found: dict[str, int | str] = {}
    for path in sorted(one for name in names for one in folder.glob(f"*/{name}")):
        try:
            # Columns of different lengths would be a fault of their own.
            (number,) = {len(np.ravel(values)) for values in dict(load(path)).values()}
            found[f"{path.parent.name}/{path.name}"] = number
        except Exception as error:  # whatever the program ends in
            found[f"{path.parent.name}/{path.name}"] = type(error).__name__
    return found


OPEN: dict[str, tuple[Callable[[Path], Columns], tuple[str, ...]]] = {
    "locan": (open_locan, ("thunderstorm.csv", "smap_sml.mat", "decode.h5")),
    "picasso": (open_picasso, ("thunderstorm.csv", "smap_sml.mat", "picasso.hdf5")),
    "smappy": (
        open_smappy,
        ("thunderstorm.csv", "smap.csv", "smap_sml.mat", "picasso.hdf5", "decode.h5"),
    ),
    "mat73": (open_mat73, ("smap_sml.mat",)),
}


def write_picasso(folder: Path, rows: dict[str, Any], info: dict[str, Any]) -> None:
    import pandas as pd
    import picasso.io

    table = pd.DataFrame(rows).astype("float32")
    table["frame"] = np.asarray(rows["frame"], np.uint32)
    picasso.io.save_locs(str(folder / "by_picasso.hdf5"), table, [info])
    picasso.io.export_thunderstorm(str(folder / "by_picasso.csv"), table, [info])
    picasso.io.export_smap(str(folder / "by_picasso_sml.mat"), table, [info])


def write_locan(folder: Path, rows: dict[str, Any], info: dict[str, Any]) -> None:
    import locan
    import pandas as pd
    from locan.locan_io.locdata.smap_io import save_SMAP_csv
    from locan.locan_io.locdata.thunderstorm_io import save_thunderstorm_csv

    nm = info["Pixelsize"]
    table = pd.DataFrame(
        {
            "frame": np.asarray(rows["frame"]) + 1,
            "position_x": np.asarray(rows["x"]) * nm,
            "position_y": np.asarray(rows["y"]) * nm,
            "intensity": rows["photons"],
            "uncertainty_x": np.asarray(rows["lpx"]) * nm,
        }
    )
    data = locan.LocData.from_dataframe(dataframe=table)
    save_thunderstorm_csv(data, folder / "by_locan.csv")
    save_SMAP_csv(data, folder / "by_locan_smap.csv")


def write_smappy(folder: Path, rows: dict[str, Any], info: dict[str, Any]) -> None:
    from smappy.io.picasso import save
    from smappy.locs import Localizations

    nm = info["Pixelsize"]
    columns = {
        "frame": np.asarray(rows["frame"], np.int64),
        **{f"{axis}_nm": np.asarray(rows[axis], np.float32) * nm for axis in "xy"},
        "photons": np.asarray(rows["photons"], np.float32),
        "x_err_nm": np.asarray(rows["lpx"], np.float32) * nm,
        "y_err_nm": np.asarray(rows["lpy"], np.float32) * nm,
    }
    table = Localizations(columns, {"camera": {"pixelsize_um": nm * 1e-3}})
    save(table, folder / "by_smappy.hdf5")


READ: dict[str, Callable[[Path], dict[str, Columns]]] = {
    "locan": read_locan,
    "picasso": read_picasso,
    "smappy": read_smappy,
    "mat73": read_mat73,
}
WRITE: dict[str, Callable[[Path, dict[str, Any], dict[str, Any]], None]] = {
    "locan": write_locan,
    "picasso": write_picasso,
    "smappy": write_smappy,
}


def run_bioimageio(folder: Path) -> None:
    import bioimageio.core

    package = folder / "package.zip"
    summary = bioimageio.core.test_description(package, weight_format="onnx")
    failed = [(one.name, [e.msg for e in one.errors]) for one in summary.details if one.errors]
    content = {"status": summary.status, "failed": failed, "passed": len(summary.details)}
    (folder / "summary.json").write_text(json.dumps(content), encoding="utf-8")
    inputs = ("electrons", "read_variance", "optics", "noise")
    sample = bioimageio.core.predict(
        model=package, inputs={name: np.load(folder / f"{name}.npy") for name in inputs}
    )
    for name in ("mean", "draw"):
        np.save(folder / f"{name}.npy", np.asarray(sample.members[name].data))


def run_picasso(folder: Path) -> None:
    import picasso.io
    import picasso.postprocess

    camera = picasso.io.load_camera_calibration(str(folder / "camera_scmos_calib.hdf5"))
    maps = {name: camera[name] for name in ("offset", "variance", "gain")}
    np.savez(folder / "camera_of_picasso.npz", **maps)
    movie = np.load(folder / "movie.npy")
    info = {
        **dict(zip(("Frames", "Height", "Width"), movie.shape, strict=True)),
        **{"Data Type": movie.dtype.name, "Byte Order": "<", "Pixelsize": 108},
    }
    picasso.io.save_raw(str(folder / "by_picasso.raw"), movie, [info])
    locs, steps = picasso.io.load_locs(str(folder / "sites.hdf5"))
    field = ((0.0, 0.0), (float(steps[0]["Height"]), float(steps[0]["Width"])))
    resolution_nm = picasso.postprocess.frc(locs, steps, field)["resolution"]
    (folder / "resolution.json").write_text(json.dumps(float(resolution_nm)), encoding="utf-8")


def run_ome_zarr(folder: Path) -> None:
    import zarr
    from ome_zarr import OMEZarrImage, OMEZarrMultiscale
    from ome_zarr_models import open_ome_zarr
    from ome_zarr_models.v04 import Image
    from ome_zarr_models.v04.axes import Axis
    from pydantic_zarr.v2 import ArraySpec

    movie = np.load(folder / "movie.npy")
    scale = {"t": 0.02, "c": 1.0, "z": 0.5, "y": 0.108, "x": 0.108}
    for version in ("0.4", "0.5", "0.6"):
        for axes in ("tyx", "tczyx"):
            image = OMEZarrImage(
                data=movie if axes == "tyx" else movie[:, None, None],
                axes=axes,
                scale={axis: scale[axis] for axis in axes},
                axes_units={axis: "micrometer" for axis in axes if axis in "zyx"},
            )
            pyramid = OMEZarrMultiscale(image=image, scale_factors=[2])
            pyramid.to_ome_zarr(group=str(folder / f"{axes}_{version}.zarr"), version=version)
    # Levels in units of the finest one's pixels, whose size stands once, beside them.
    whole = Image.new(
        array_specs=[ArraySpec.from_array(movie)],
        paths=["full"],
        axes=[
            Axis(name="t", type="time"),
            *(Axis(name=axis, type="space", unit="nanometer") for axis in "yx"),
        ],
        scales=[[1.0, 1.0, 1.0]],
        translations=[None],
        global_scale=[0.02, 108.0, 108.0],
    )
    group = whole.to_zarr(zarr.storage.LocalStore(folder / "tyx_whole.zarr"), path="")
    group["full"][:] = movie

    about = {}
    for name in ("images.ome.zarr", "movie.ome.zarr"):
        place = str(folder / name)
        described = open_ome_zarr(place, version="0.4").attributes  # raises unless it is valid
        seen = OMEZarrMultiscale.from_ome_zarr(place).images[0]
        np.save(folder / f"{name}.npy", np.asarray(seen.data))
        steps = described.multiscales[0].datasets[0].coordinateTransformations
        about[name] = {
            "axes": "".join(seen.axes),
            "scale": seen.scale,
            "units": seen.axes_units,
            "translation": [list(one.translation) for one in steps if one.type == "translation"],
            "channels": [one.label for one in described.omero.channels] if described.omero else [],
        }
    (folder / "seen_by_ome_zarr.json").write_text(json.dumps(about), encoding="utf-8")


RUN: dict[str, Callable[[Path], None]] = {
    "bioimageio": run_bioimageio,
    "ome_zarr": run_ome_zarr,
    "picasso": run_picasso,
}


def main() -> None:
    """Do what the command line says."""
    what, program, place = sys.argv[1:]
    folder = Path(place)
    if what == "run":
        RUN[program](folder)
        return
    if what == "write":
        content = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
        WRITE[program](folder, content["rows"], content["info"])
        return
    if what == "count":
        content = json.dumps(count_rows(program, folder))
        (folder / f"counted_by_{program}.json").write_text(content, encoding="utf-8")
        return
    found = READ[program](folder)
    numbers = {
        name: {
            column: np.asarray(values, np.float64).tolist()
            for column, values in dict(columns).items()
            if np.asarray(values).dtype.kind in "fiub"
        }
        for name, columns in found.items()
    }
    (folder / f"read_by_{program}.json").write_text(json.dumps(numbers), encoding="utf-8")


if __name__ == "__main__":
    main()
