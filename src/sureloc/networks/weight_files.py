"""Where weights lie that people name, told without loading any library."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path

from sureloc.errors import InputError, WeightsError, did_you_mean
from sureloc.shipped import shipped_weights

SUFFIX = ".safetensors"
ONNX, PACKAGE = ".onnx", ".zip"  # of networks for other programs


def weight_files(name_or_path: str | Path) -> tuple[Traversable, Traversable, str]:
    """Find the files of weights.

    Args:
        name_or_path: a name of `sureloc.shipped.shipped_weights`, the path of a .safetensors file
            whose card lies beside it as .json, or a folder that holds one such file.

    Returns:
        The .safetensors file, its card, and what to call them at the beginning of a sentence.

    Raises:
        WeightsError: there are no such files.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name in shipped_weights():
        folder = resources.files("sureloc") / "weights"
        return folder / f"{name}{SUFFIX}", folder / f"{name}.json", f"The weights {name}"
    if path.is_dir():
        path = only_file(path)
    if not path.exists():
        raise _none_there(path)
    if path.suffix != SUFFIX:
        raise WeightsError(
            f"{path} is no {SUFFIX} file. Other formats can run code when they are opened; "
            "export the weights as safetensors with a JSON card."
        )
    card = path.with_suffix(".json")
    if not card.is_file():
        raise WeightsError(f"{path} lacks the card {card.name} beside it. Both are needed.")
    return path, card, str(path)


def check_phi(source: str | Path) -> None:
    """Raise `WeightsError` unless there may be a trained phi: in a folder, or in weights."""
    path, shipped = Path(source), shipped_weights()
    if path.is_dir():
        return
    if str(source) not in shipped and path.suffix != SUFFIX:
        raise WeightsError(
            f"There is no phi {str(source)!r}{did_you_mean(str(source), shipped)}. Give a folder "
            f"of `sureloc train phi`, the name of shipped weights ({', '.join(shipped)}), or the "
            f"path of a {SUFFIX} file."
        )
    weight_files(source)


def check_weights_name(path: Path) -> None:
    """Raise `InputError` unless a new file of weights may be called so."""
    if path.suffix != SUFFIX:
        raise InputError(f"{path} is no name for weights; it must end in {SUFFIX}.")


def check_frame_model_name(path: Path) -> None:
    """Raise `InputError` unless a new network for other programs may be called so."""
    if path.suffix not in (ONNX, PACKAGE):
        raise InputError(
            f"{path} ends in {path.suffix or 'nothing'!r}; networks are written as {ONNX}, or as "
            f"{PACKAGE} for bioimage.io."
        )


def check_feature_network(path: Path) -> None:
    """Raise `InputError` unless there may be a network to look with, and what runs it."""
    if path.suffix != ONNX:
        raise InputError(
            f"{path} is no {ONNX} file. TorchScript and pickles can run code when they are opened, "
            "and weights alone lack their network; export both as one ONNX file."
        )
    if not path.is_file():
        raise InputError(f"There is no network at {path}. Check the spelling of the path.")
    if not (find_spec("onnx") and find_spec("onnxruntime")):
        raise InputError(
            "Features of a network in ONNX need the packages onnx and onnxruntime: pip install "
            "'sureloc[onnx]'."
        )


def only_file(folder: Path) -> Path:
    """Give the one file of weights that a folder holds, such as that of `sureloc adapt`.

    Raises:
        WeightsError: it holds none, or several.
    """
    files = sorted(f for f in folder.glob("*.safetensors") if not f.name.startswith("."))
    if len(files) != 1:
        held = ", ".join(file.name for file in files) or "no .safetensors file"
        raise WeightsError(
            f"The folder {folder} holds {held}; weights are one such file. Give its path, or the "
            "folder of a `sureloc adapt` that has finished."
        )
    return files[0]


def _none_there(path: Path) -> WeightsError:
    """Say that there are no weights, and which may be meant."""
    shipped = ", ".join(shipped_weights()) or "none"
    if len(path.parts) == 1 and path.suffix == "":
        near = did_you_mean(path.name, (*shipped_weights(), *_weights_in(Path())))
        return WeightsError(
            f"There are no weights named {path.name!r}{near}. Shipped: {shipped}; or give the path "
            f"of a {SUFFIX} file, or the folder of a `sureloc adapt`."
        )
    near = did_you_mean(path.name, _weights_in(path.parent))
    return WeightsError(
        f"There are no weights at {path}{near} (seen from {Path.cwd()}). Check the spelling of the "
        f"path, or give shipped weights: {shipped}."
    )


def _weights_in(folder: Path) -> list[str]:
    """Name the files and folders of weights in a folder."""
    if not folder.is_dir():
        return []
    return [
        one.name
        for one in sorted(folder.iterdir())
        if one.suffix == SUFFIX or (one.is_dir() and any(one.glob(f"*{SUFFIX}")))
    ]
