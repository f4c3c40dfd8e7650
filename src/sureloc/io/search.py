"""What a search of schedules found, as a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from sureloc.train.search import Scored, chosen_by_energy, chosen_by_phi_fd, family

TABLE = "schedules.csv"


def write_search(scored: Sequence[Scored], folder: Path) -> Path:
    """Write one line for each schedule as schedules.csv.

    `levels` is what the card of a weights file calls so: a schedule is taken by writing it there,
    and `steps` as `draws.evaluations`.

    Args:
        scored: what `sureloc.train.search.search` gave.
        folder: where to; it must exist.

    Returns:
        The file.
    """
    by_fd, by_energy = chosen_by_phi_fd(scored), chosen_by_energy(scored)
    rows = [
        {
            "family": family(one.candidate.levels),
            **one.numbers,
            "chosen_by_phi_fd": one is by_fd,
            "chosen_by_energy": one is by_energy,
            "levels": one.candidate.levels.model_dump_json(),
        }
        for one in scored
    ]
    path = folder / TABLE
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
