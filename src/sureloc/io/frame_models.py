"""Weights as one network for other programs: ONNX, alone or in a bioimage.io package.

The network is `sureloc.networks.frame_model.FrameModel`. The package's test tensors come from
PyTorch, so whoever tests the package compares ONNX with it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml
from torch import Tensor

from sureloc import __version__
from sureloc.errors import InputError, WeightsError
from sureloc.io.output import new_file
from sureloc.networks.frame_model import FrameModel, example_inputs
from sureloc.networks.weight_files import ONNX, check_frame_model_name
from sureloc.networks.weights import Card, Networks
from sureloc.physics.kde import UPSAMPLING
from sureloc.seeds import torch_generator

PAPER = "Conditional Diffusion Models for Uncertainty Estimation in Super Resolution Microscopy"
OPSET = 18
FORMAT_VERSION = "0.5.4"  # of the bioimage.io model description
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-3, 1e-5  # of ONNX against PyTorch, mass a fine pixel
_SMALLEST_PX = 8
_TESTED = (40, 48)  # shape of the package's test tensors
_TRACED = (2, (16, 20))  # frames and shape that the graph is traced with; it takes others


@dataclass(frozen=True)
class _Image:
    """An image tensor of the network.

    Attributes:
        meaning: at most 128 characters, as bioimage.io wants it.
        fine: it has `UPSAMPLING` x `UPSAMPLING` pixels for each camera pixel.
    """

    meaning: str
    fine: bool


_INPUTS = {
    "electrons": _Image("measured photo-electrons: (ADU - offset) x electrons per ADU", False),
    "read_variance": _Image("variance of each pixel's read noise, electrons^2", False),
    "noise": _Image("independent standard normal numbers; others give another draw", True),
}
_OUTPUTS = {
    "mean": _Image("posterior mean of the kernel density image; an emitter sums to 1", True),
    "draw": _Image("one posterior draw of that image; an emitter sums to 1", True),
}
_OPTICS = "PSF standard deviation, px; and F^2, 1 without electron multiplication"
_ARGUMENTS = ("electrons", "read_variance", "optics", "noise")


def write_frame_model(networks: Networks, fingerprint: str, path: str | Path) -> None:
    """Write networks for other programs.

    Args:
        networks: what to write, on the CPU.
        fingerprint: of their file of weights, which is written with them.
        path: new file; .onnx, or .zip for a bioimage.io package with the same network in it.

    Raises:
        InputError: the ending is another, `path` exists, or the extra `onnx` is not installed.
        WeightsError: draws of these weights need noise at every step.
        OutputError: it could not be written; nothing is left of it.
    """
    place = Path(path)
    check_frame_model_name(place)
    if not (find_spec("onnx") and find_spec("onnxscript")):
        raise InputError(
            "Writing ONNX needs the packages onnx and onnxscript: pip install 'sureloc[onnx]'."
        )
    with new_file(place) as partial:
        model = FrameModel(networks)
        graph = _onnx(model, fingerprint)
        partial.write_bytes(graph if place.suffix == ONNX else _package(model, graph, fingerprint))


def _onnx(model: FrameModel, fingerprint: str) -> bytes:
    """Trace the network with any number of frames of any size."""
    size = torch.export.Dim
    frames, rows, columns = size("frames"), size("rows", min=2), size("columns", min=2)
    if model.multiple_px > 1:
        rows, columns = model.multiple_px * rows, model.multiple_px * columns
    camera = {0: frames, 2: rows, 3: columns}
    fine = {0: frames, 2: UPSAMPLING * rows, 3: UPSAMPLING * columns}
    with torch.no_grad(), _without_remarks():
        exported = torch.onnx.export(
            model,
            example_inputs(*_TRACED, torch_generator(0, "traced")),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(_ARGUMENTS),
            output_names=list(_OUTPUTS),
            dynamic_shapes=(camera, camera, {0: frames}, fine),
        )
    graph = cast(torch.onnx.ONNXProgram, exported).model_proto
    check_sizes_are_free(graph)
    for key, value in _facts(model.networks.card, fingerprint).items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value
    graph.producer_name, graph.producer_version = "sureloc", __version__
    written: bytes = graph.SerializeToString()
    return written


def check_sizes_are_free(graph: Any) -> None:
    """Refuse a graph that takes frames of one size or number only.

    Args:
        graph: an `onnx.ModelProto` whose inputs are (frames, channels, ...).

    Raises:
        WeightsError: an axis other than that of channels has a fixed size.
    """
    for one in graph.graph.input:
        axes = list(one.type.tensor_type.shape.dim)
        if any(not axis.dim_param for i, axis in enumerate(axes) if i != 1):
            raise WeightsError(
                f"The network could be written for {one.name} of one size only, so it would not "
                "take other frames. Export other weights, or with another version of torch (2.13 "
                "is tested)."
            )


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep to itself what the exporter says of shared axis names and of torchvision."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _facts(card: Card, fingerprint: str) -> dict[str, str]:
    images = {**_INPUTS, **_OUTPUTS}
    return {
        "sureloc": __version__,
        "weights": card.name,
        "fingerprint": fingerprint,
        "card": card.model_dump_json(),
        "tensors": json.dumps({n: one.meaning for n, one in images.items()} | {"optics": _OPTICS}),
    }


# --- The package of bioimage.io -------------------------------------------------------------------


def _package(model: FrameModel, graph: bytes, fingerprint: str) -> bytes:
    files = {
        "weights.onnx": graph,
        "README.md": _readme(model, fingerprint).encode(),
        **_test_tensors(model),
    }
    description = _description(model, fingerprint, files)
    text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        for place, content in {"rdf.yaml": text.encode(), **files}.items():
            package.writestr(place, content)
    return buffer.getvalue()


def _test_tensors(model: FrameModel) -> dict[str, bytes]:
    inputs = example_inputs(1, _TESTED, torch_generator(0, "test tensors"))
    with torch.inference_mode():
        outputs = model(*inputs)
    tensors = dict(zip((*_ARGUMENTS, *_OUTPUTS), (*inputs, *outputs), strict=True))
    return {_test_file(name): _npy(tensor) for name, tensor in tensors.items()}


def _test_file(tensor: str) -> str:
    return f"test_{tensor}.npy"


def _npy(tensor: Tensor) -> bytes:
    buffer = BytesIO()
    np.save(buffer, tensor.numpy(), allow_pickle=False)
    return buffer.getvalue()


def _description(model: FrameModel, fingerprint: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    card = model.networks.card
    return {
        "format_version": FORMAT_VERSION,
        "type": "model",
        "name": f"sureloc {_plain(card.name)} - molecules in camera frames",
        "description": "Estimates and draws super-resolution images of single molecules.",
        "authors": [{"name": "The sureloc developers"}],
        "license": "BSD-3-Clause",
        "tags": ["SMLM", "STORM", "PALM", "DNA-PAINT", "super-resolution", "localization", "2d"],
        "documentation": _file("README.md", files),
        "version": __version__,
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [_input(one, model.multiple_px, files) for one in _ARGUMENTS],
        "outputs": [_tensor(one, _axes(one, model.multiple_px), files) for one in _OUTPUTS],
        "weights": {"onnx": _file("weights.onnx", files) | {"opset_version": OPSET}},
        "config": {
            "bioimageio": {
                "reproducibility_tolerance": [
                    {
                        "relative_tolerance": RELATIVE_TOLERANCE,
                        "absolute_tolerance": ABSOLUTE_TOLERANCE,
                    }
                ]
            },
            "sureloc": {
                "weights": card.name,
                "fingerprint": fingerprint,
                "card": card.model_dump(mode="json"),
            },
        },
    }


def _input(name: str, step_px: int, files: Mapping[str, bytes]) -> dict[str, Any]:
    if name == "optics":
        channels = {"type": "channel", "channel_names": ["psf_sigma_px", "excess_noise"]}
        return _tensor(name, [{"type": "batch"}, channels], files)
    return _tensor(name, _axes(name, step_px), files)


def _axes(tensor: str, step_px: int) -> list[dict[str, Any]]:
    """Describe the axes of an image; all sizes follow from those of `electrons`.

    No halo: bioimageio.core would pad `electrons` by it, but not the other inputs.
    """
    image = (_INPUTS | _OUTPUTS)[tensor]
    space = []
    for axis in ("y", "x"):
        size: dict[str, Any] = {"tensor_id": "electrons", "axis_id": axis}
        if tensor == "electrons":
            size = {"min": _SMALLEST_PX, "step": step_px}
        scale = 1 / UPSAMPLING if image.fine else 1.0
        space.append({"type": "space", "id": axis, "size": size, "scale": scale})
    return [{"type": "batch"}, {"type": "channel", "channel_names": [tensor]}, *space]


def _tensor(name: str, axes: list[dict[str, Any]], files: Mapping[str, bytes]) -> dict[str, Any]:
    images = _INPUTS | _OUTPUTS
    return {
        "id": name,
        "description": images[name].meaning if name in images else _OPTICS,
        "axes": axes,
        "data": {"type": "float32"},
        "test_tensor": _file(_test_file(name), files),
    }


def _file(name: str, files: Mapping[str, bytes]) -> dict[str, str]:
    return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}


def _plain(name: str) -> str:
    """Leave out what bioimage.io has no room for in names."""
    return re.sub(r"[^A-Za-z0-9_+() -]", "-", name)[:60]


def _readme(model: FrameModel, fingerprint: str) -> str:
    card = model.networks.card
    tensors = "\n".join(
        f"- `{name}`: {one.meaning}{', 4 x 4 for each camera pixel' if one.fine else ''}."
        for name, one in (_INPUTS | _OUTPUTS).items()
    )
    return f"""# sureloc weights {card.name}

{card.description}

Written by sureloc {__version__} from weights with the fingerprint {fingerprint}.

## Tensors

{tensors}
- `optics`: {_OPTICS}.

Images are (frames, 1, rows, columns), `optics` is (frames, 2); all are 32-bit floats. Fine pixel
(0, 0) lies in a corner of camera pixel (0, 0). For several draws give a frame several times with
different noise. {_reach(model)}

## The method

sureloc follows "{PAPER}".
This text names it, and not `cite` in `rdf.yaml`, which wants a DOI or an address: none is known.

## Validation

The test tensors are those of PyTorch. sureloc's own checks of the networks, against molecules whose
truth is known, are described in its documentation.
"""


def _reach(model: FrameModel) -> str:
    if model.draw_radius_px is None:
        return (
            "Give whole frames: a draw depends on all of its frame, so tiles would not fit. Their "
            f"rows and columns must be multiples of {model.multiple_px}; leave some out."
        )
    return (
        f"A draw depends on camera pixels up to {model.draw_radius_px} px away, the mean up to "
        f"{model.mean_radius_px} px. Frames may be cut into tiles that overlap by as much; at a "
        "frame's own edge give nothing beyond it, as the network knows edges."
    )
