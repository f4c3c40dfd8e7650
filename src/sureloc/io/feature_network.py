"""A user's own network, as ONNX, whose features a Frechet distance looks at (Inception's: an FID).

ONNX and not TorchScript or a pickle, which can run code when they are opened: a graph of operators
of the runtime, refused if it names another file. And not safetensors, which hold weights without
the network, so that one architecture alone could be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sureloc.errors import InputError
from sureloc.networks.weight_files import check_feature_network
from sureloc.physics.kde import display_range, peak_of_one
from sureloc.train.search import Features

_AT_ONCE = 16
_COLOURS = (1, 3)


def read_feature_network(path: Path) -> Features:
    """Read a network that gives a vector, or maps, for each image.

    Args:
        path: an ONNX file with one input (images, 1 or 3, rows, columns) of float32, whose number
            of images is free or 1. Maps of the first output are averaged over their pixels.

    Returns:
        Its features, named like the file, of images in phi's unit on any device. The network runs
        on the CPU and sees images as the paper scales them (`sureloc.physics.kde.display_range`),
        in gray where it takes three colours, and resized where its rows and columns are fixed.
        They raise `InputError` where it fails on images of their size, or gives something else
        than finite numbers.

    Raises:
        InputError: there is no such file, it cannot be read, names another file or takes something
            else; or the extra `onnx` is not installed.
    """
    check_feature_network(path)
    blob = path.read_bytes()
    _check_alone(blob, path)
    network = _open(blob, path)

    def features(
        images: Float[Tensor, "items height width"],
    ) -> Float[Tensor, "items features"]:
        shown = display_range(peak_of_one() * images.detach().cpu().float())[:, None]
        if network.size is not None:
            shown = functional.interpolate(shown, network.size, mode="bilinear", antialias=True)
        return torch.cat([network.vectors(part) for part in torch.split(shown, network.at_once)])

    return Features(path.name, features)


@dataclass(frozen=True)
class _Network:
    """A network that is open.

    Attributes:
        session: of onnxruntime.
        path: its file, for errors.
        input: name of what it takes.
        colours: how many it takes.
        at_once: images that it takes at once, at most.
        size: rows and columns of images, or None if any.
    """

    session: Any
    path: Path
    input: str
    colours: int
    at_once: int
    size: tuple[int, int] | None

    def vectors(self, shown: Float[Tensor, "items 1 rows columns"]) -> Float[Tensor, "items f"]:
        fed = shown.expand(-1, self.colours, -1, -1).contiguous().numpy()
        try:
            given = self.session.run(None, {self.input: fed})[0]
        except Exception as error:  # onnxruntime has a class for each of its statuses
            raise InputError(
                f"The network {self.path} fails on images of {fed.shape[2]} x {fed.shape[3]} "
                f"pixels: {_first_line(error)} Export it for images of any size, or of one."
            ) from error
        if given.ndim not in (2, 4) or len(given) != len(fed) or not np.isfinite(given).all():
            raise InputError(
                f"The network {self.path} gives an array of shape {given.shape} for {len(fed)} "
                "images; its first output must be a vector (images, features) or maps (images, "
                "features, rows, columns) of finite numbers. Export it up to such features."
            )
        vectors = torch.from_numpy(given).float()
        return vectors.mean((2, 3)) if vectors.ndim == 4 else vectors


def _open(blob: bytes, path: Path) -> _Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what is wrong is told by the error
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        raise _unreadable(path, _first_line(error)) from error
    inputs, gives = session.get_inputs(), session.get_outputs()[0].type
    shape = inputs[0].shape if len(inputs) == 1 else []
    fixed = [isinstance(side, int) for side in shape]
    takes_images = (
        len(shape) == 4
        and inputs[0].type == "tensor(float)"
        and (shape[0] == 1 or not fixed[0])
        and shape[1] in _COLOURS
        and fixed[2] == fixed[3]
    )
    if not takes_images:
        takes = ", ".join(f"{one.name} {one.shape} of {one.type}" for one in inputs) or "nothing"
        raise InputError(
            f"The network {path} takes {takes}; it must take one input of float32 with the shape "
            "(images, 1 or 3, rows, columns), the number of images free or 1, rows and columns "
            "both free or both fixed. Export it so."
        )
    if gives != "tensor(float)":
        raise InputError(
            f"The network {path} gives {gives} first; this must be float32. Export it so."
        )
    size = (int(shape[2]), int(shape[3])) if fixed[2] else None
    return _Network(session, path, inputs[0].name, int(shape[1]), 1 if fixed[0] else _AT_ONCE, size)


def _check_alone(blob: bytes, path: Path) -> None:
    """Refuse what is no ONNX, and a graph with tensors in other files, which may lie anywhere."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(blob)
    except DecodeError as error:
        raise _unreadable(path, _first_line(error)) from error
    for part in _parts(model):
        if isinstance(part, onnx.TensorProto) and part.external_data:
            named = {entry.key: entry.value for entry in part.external_data}
            raise _unreadable(path, f"{part.name} lies in {named.get('location', 'a')!r}.")


def _parts(message: Any) -> Iterator[Any]:
    """Give a message of protobuf and all messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in [value] if hasattr(value, "ListFields") else value:
                yield from _parts(one)


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(
        f"The network {path} cannot be read: {why} Export it as one ONNX file with its weights "
        "inside (external_data=False of torch.onnx.export)."
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") + "."
