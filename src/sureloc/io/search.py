"""What a search of schedules found, as a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from sureloc.train.search import Scored, chosen_by_distance, chosen_by_energy, family

TABLE = "schedules.csv"


def write_search(scored: Sequence[Scored], folder: Path) -> Path:
    """Write one line for each schedule as schedules.csv.

    `levels` is what the card of a weights file calls so: a schedule is taken by writing it there,
    and `steps` as `draws.evaluations`. `features` says what the distance looked at: phi, or the
    file of another network.

    Args:
        scored: what `sureloc.train.search.search` gave.
        folder: where to; it must exist.

    Returns:
        The file.
    """
    by_distance, by_energy = chosen_by_distance(scored), chosen_by_energy(scored)
    rows = [
        {
            "family": family(one.candidate.levels),
            **one.numbers,
            f"chosen_by_{one.column}": one is by_distance,
            "chosen_by_energy": one is by_energy,
            "levels": one.candidate.levels.model_dump_json(),
            "features": one.features,
        }
        for one in scored
    ]
    path = folder / TABLE
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
