"""What a run takes for granted about a movie, as one file of plain arrays.

A run that was broken off goes on with what it had learned, number for number: doubles are kept as
they are, and texts as JSON. Nothing in the file can run code.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from sureloc.camera import Camera
from sureloc.errors import InputError
from sureloc.localize.crowding import Crowding
from sureloc.localize.learning import LearnedPrior
from sureloc.localize.movie import Assumptions
from sureloc.physics.priors import PhotonPrior, ScenePrior

_CAMERA = (
    *("offset_adu", "gain_adu_per_e", "variance_adu2"),
    *("quantum_efficiency", "em_gain", "rounding_adu2"),
)
_PRIOR = ("density_per_px2", "background_e", "background_sd_e", "margin_px")


def write_assumptions(assumptions: Assumptions, path: Path) -> None:
    """Write assumptions as .npz.

    Raises:
        OSError: the file cannot be written.
    """
    camera, learned, crowding = assumptions.camera, assumptions.learned, assumptions.crowding
    prior = learned.prior
    texts = {
        "notes": assumptions.notes,
        "warnings": assumptions.warnings,
        "saturation_adu": camera.saturation_adu,
    }
    arrays: dict[str, Any] = dict(
        texts=np.array(json.dumps(texts)),
        sigma_px=np.array(assumptions.sigma_px),
        **{f"camera_{name}": np.asarray(getattr(camera, name)) for name in _CAMERA},
        **{f"prior_{name}": np.asarray(getattr(prior, name)) for name in _PRIOR},
        log_photons=prior.photons.log_photons,
        log_density=prior.photons.log_density,
        background_e=learned.background_e,
        history=learned.history,
        emitters=np.array(learned.emitters),
        crowding_shape=np.array(crowding.shape),
        crowding_numbers=crowding.numbers,
        crowding_spots=np.array([len(cells) for cells in crowding.cells], np.int64),
        crowding_cells=np.concatenate([np.empty((0, 2), np.int64), *crowding.cells]),
        crowding_width_cells=np.array(crowding.width_cells),
        crowding_trusted=np.array(crowding.trusted),
    )
    np.savez(path, **arrays)


def read_assumptions(path: Path) -> Assumptions:
    """Read what `write_assumptions` wrote.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        # From memory: of a damaged file, NumPy would leave a handle open.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            return _assumptions({name: stored[name] for name in stored.files})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(
            f"{path}, in which a broken-off run keeps what it learned, cannot be read ({error}). "
            "Remove the folder and start anew."
        ) from error


def _assumptions(stored: Mapping[str, npt.NDArray[Any]]) -> Assumptions:
    texts = json.loads(str(stored["texts"]))
    camera = Camera(
        **{name: _number_or_array(stored[f"camera_{name}"]) for name in _CAMERA},
        saturation_adu=texts["saturation_adu"],
    )
    prior = {name: _number_or_array(stored[f"prior_{name}"]) for name in _PRIOR}
    photons = PhotonPrior(stored["log_photons"], stored["log_density"])
    ends = np.cumsum(stored["crowding_spots"])[:-1]
    height, width = stored["crowding_shape"].tolist()
    x, y = stored["sigma_px"].tolist()
    return Assumptions(
        camera,
        (x, y),
        LearnedPrior(
            ScenePrior(photons=photons, **prior),
            stored["background_e"],
            stored["history"],
            float(stored["emitters"]),
        ),
        Crowding(
            (height, width),
            stored["crowding_numbers"],
            tuple(np.split(stored["crowding_cells"], ends)),
            float(stored["crowding_width_cells"]),
            float(stored["crowding_trusted"]),
        ),
        tuple(texts["notes"]),
        tuple(texts["warnings"]),
    )


def _number_or_array(value: npt.NDArray[Any]) -> Any:
    return float(value) if value.ndim == 0 else value
