"""Finished units of a run on disk: whole or not there, and known to be what was written.

Every part is a folder of its own. It is written under another name, forced to the disk and then
renamed, so that whatever stops a run leaves no part half-written; the checksums of its files lie in
it, so that one that was damaged later is noticed and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.io.tables import read_table, write_table
from sureloc.localize.tally import View
from sureloc.localize.units import Unit, UnitResult
from sureloc.table import DRAW_COLUMNS

ROWS, DRAWS, SUMS, SEAL = "rows.parquet", "draws.parquet", "sums.npz", "part.json"
_TEMPORARY = ".writing-"


@dataclass(frozen=True)
class PartSums:
    """What a part holds beside its tables; see `sureloc.localize.units.UnitResult`."""

    chi2: npt.NDArray[np.float32]
    widefield_e: npt.NDArray[np.float32]
    count: npt.NDArray[np.float32] | None
    count_variance: npt.NDArray[np.float32] | None
    saturated_pixels: npt.NDArray[np.int64]
    views: tuple[View, ...]


def part_folder(parts: Path, unit: Unit) -> Path:
    """Give where the part of a unit lies."""
    return parts / f"{unit.number:06d}"


def write_part(parts: Path, unit: Unit, result: UnitResult) -> None:
    """Write the part of a unit, whole or not at all.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    place = part_folder(parts, unit)
    temporary = parts / f"{_TEMPORARY}{place.name}-{secrets.token_hex(4)}"
    try:
        temporary.mkdir()
        write_table(result.rows, temporary / ROWS, unit.row_columns)
        write_table(result.draws, temporary / DRAWS, DRAW_COLUMNS)
        np.savez_compressed(temporary / SUMS, **_arrays(result))
        seal = {
            "unit": unit.name,
            "sha256": {name: file_hash(temporary / name) for name in (ROWS, DRAWS, SUMS)},
        }
        (temporary / SEAL).write_text(json.dumps(seal), encoding="utf-8")
        to_disk(temporary)
        temporary.rename(place)
        force(parts)
    except OSError:
        # Another worker may have been given the same unit, and have written the same.
        if not place.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _arrays(result: UnitResult) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "chi2": result.chi2,
        "widefield_e": result.widefield_e,
        "saturated_pixels": result.saturated_pixels,
    }
    if result.count is not None and result.count_variance is not None:
        arrays |= {"count": result.count, "count_variance": result.count_variance}
    texts = []
    for index, view in enumerate(result.views):
        numbers = asdict(view)
        for name in ("electrons", "expected_e"):
            arrays[f"view{index}_{name}"] = numbers.pop(name)
        texts.append(numbers)
    return {**arrays, "views": np.array(json.dumps(texts))}


def read_rows(parts: Path, unit: Unit) -> pd.DataFrame:
    """Read the rows of a part."""
    return read_table(part_folder(parts, unit) / ROWS, unit.row_columns)


def read_draws(parts: Path, unit: Unit) -> pd.DataFrame:
    """Read the draws of a part."""
    return read_table(part_folder(parts, unit) / DRAWS, DRAW_COLUMNS)


def read_sums(parts: Path, unit: Unit) -> PartSums:
    """Read what a part holds beside its tables."""
    with np.load(part_folder(parts, unit) / SUMS, allow_pickle=False) as stored:
        texts = json.loads(str(stored["views"]))
        views = tuple(
            View(
                **numbers,
                electrons=stored[f"view{index}_electrons"],
                expected_e=stored[f"view{index}_expected_e"],
            )
            for index, numbers in enumerate(texts)
        )
        counted = "count" in stored.files
        return PartSums(
            stored["chi2"],
            stored["widefield_e"],
            stored["count"] if counted else None,
            stored["count_variance"] if counted else None,
            stored["saturated_pixels"],
            views,
        )


def sound_parts(parts: Path, units: Iterable[Unit]) -> tuple[set[int], set[int]]:
    """Check every part that is there; remove what is damaged or was being written.

    Returns:
        Numbers of the units whose parts are whole, and of those whose parts were damaged.

    Raises:
        OSError: a damaged part cannot be removed.
    """
    for left in parts.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(left)
    sound, damaged = set(), set()
    for unit in units:
        place = part_folder(parts, unit)
        if not place.exists():
            continue
        if is_sound(place, unit):
            sound.add(unit.number)
        else:
            shutil.rmtree(place)
            damaged.add(unit.number)
    return sound, damaged


def is_sound(place: Path, unit: Unit) -> bool:
    """Tell whether a part is what was written for this unit."""
    try:
        seal = json.loads((place / SEAL).read_text(encoding="utf-8"))
        wanted = {name: file_hash(place / name) for name in (ROWS, DRAWS, SUMS)}
        return bool(seal == {"unit": unit.name, "sha256": wanted})
    except (OSError, ValueError):
        return False


def file_hash(path: Path) -> str:
    """Give the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_disk(folder: Path) -> None:
    """Force everything in a folder to the disk, so that it outlives a power cut."""
    for path in [*folder.rglob("*"), folder]:
        force(path)


def force(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders, and orders renames itself
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
