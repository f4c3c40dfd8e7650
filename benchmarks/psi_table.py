"""How good and how honest draws are, for every way to make them: one row each.

    python benchmarks/psi_table.py --phi default --trainings DIR --out DIR [--rows NAME...]

Draws 16 images of each of 2,000 tiles of 20 x 20 px that no network was trained on, and scores
them on informative pixels (where phi expects a twentieth of an emitter's peak or more). `--phi` is
the name of shipped weights, the path of others, or a folder of `sureloc train phi`; a Psi that is
missing in `--trainings` is trained first, from its recipe in benchmarks/psi_rows or among those
shipped, which takes a quarter of an hour each on one core; on the shipped phi, the shipped Psis are
taken as they are. Rows that are done, and
every hundred tiles of the others, are kept in `--out`, so that a run that was stopped goes on.

Writes psi_table.csv and psi_table.md. Scores are in units of one emitter's peak. Errors are
standard errors by a bootstrap over tiles.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from sureloc.config.training import load_training_recipe, training_recipe_yaml
from sureloc.io.output import new_file
from sureloc.io.weights import read_phi
from sureloc.networks.posterior import INFORMATIVE, Sampling, shipped_sampling, tile_images
from sureloc.networks.psi import PsiNetwork
from sureloc.networks.weights import Networks, load_weights
from sureloc.physics.kde import peak_of_one
from sureloc.scoring.calibration import (
    Spread,
    bootstrap_sd,
    coverage,
    distance_from_uniform,
    mass_spread,
    rank_histogram,
    ranks,
    spread_of,
    spread_skill,
)
from sureloc.scoring.proper import fair_crps, fair_energy_score
from sureloc.seeds import torch_generator
from sureloc.simulate.tiles import simulate_tiles, tile_input
from sureloc.train.engine import fit
from sureloc.train.export import TrainedPhi, assemble
from sureloc.train.folder import CHECKPOINT
from sureloc.train.psi import PsiTraining
from sureloc.train.recipe import PsiTrainingRecipe

HERE = Path(__file__).parent
SEED = 77_001
SIDE_PX = 20
DRAWS = 16
OTHER_DRAWS = 8
SHIPPED = {"default": "default", "one_step": "fast"}
PATCH_FINE_PX = 8
BLOCK_TILES = 100  # whose scores are kept together


@dataclass(frozen=True)
class Row:
    """One way to draw: whose network, and what differs from the way its card names."""

    name: str
    training: str
    evaluations: int | None = None
    start_at_estimate: bool = False

    def sampling(self, networks: Networks) -> Sampling:
        plain = shipped_sampling(networks, self.evaluations)
        return dataclasses.replace(plain, start_at_estimate=self.start_at_estimate)


ROWS = (
    Row("paper as printed, L1", "paper_L1"),
    Row("paper as printed, L2", "paper_L2"),
    Row("paper, L1, start at yhat", "paper_L1", start_at_estimate=True),
    Row("paper, L2, start at yhat", "paper_L2", start_at_estimate=True),
    Row("right schedule, T = 100, ancestral", "right_schedule"),
    Row("default: residual, 2M, 8", "default"),
    Row("default: residual, 2M, 6", "default", evaluations=6),
    Row("default: residual, 2M, 4", "default", evaluations=4),
    Row("one step", "one_step"),
    Row("both yhat and x, trained like the rows below", "residual_both"),
    Row("yhat alone", "residual_yhat"),
    Row("x alone", "residual_x"),
    Row("without phi: image from x", "without_phi"),
    Row("without phi, as much work", "without_phi_longer"),
    *(
        Row(f"{name}, {n} evaluations", training, evaluations=n)
        for name, training in (
            ("with phi", "residual_both"),
            ("without phi", "without_phi"),
            ("without phi, as much work", "without_phi_longer"),
        )
        for n in (2, 4, 6, 16)
    ),
)


def trained(name: str, phi: TrainedPhi, folder: Path) -> Networks:
    """Give phi and the Psi of that name, which is trained, or trained on, where needed."""
    path = HERE / "psi_rows" / f"{name}.yaml"
    kept = folder / "recipe.yaml"
    source: str | Path = kept if kept.is_file() else path if path.is_file() else name
    recipe = load_training_recipe(PsiTrainingRecipe, source)
    done = folder / "log.csv"
    steps = float(done.read_text().splitlines()[-1].split(",")[0]) if done.is_file() else 0
    if steps < recipe.optimizer.steps:
        print(f"training {name}: {steps:.0f} of {recipe.optimizer.steps} steps are done")
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(training_recipe_yaml(recipe), encoding="utf-8")
        training = PsiTraining(recipe, phi.network)
        fit(training, folder, device="cpu", resume=(folder / CHECKPOINT).is_file())
    networks, _ = assemble(phi, (recipe, folder), name)
    return networks


@dataclass(frozen=True)
class Scored:
    """What tiles add: sums over the informative pixels of each, and those pixels."""

    sums: Tensor
    spread: Spread
    predicted: Tensor
    rank: Tensor
    mass: Spread

    @classmethod
    def of_all(cls, parts: list[Scored]) -> Scored:
        """Join what several tiles add."""

        def spread(name: str) -> Spread:
            of = [getattr(part, name) for part in parts]
            squared = torch.cat([s.squared_error for s in of])
            return Spread(torch.cat([s.variance for s in of]), squared, DRAWS)

        sums, predicted, rank = (
            torch.cat([getattr(part, name) for part in parts])
            for name in ("sums", "predicted", "rank")
        )
        return cls(sums, spread("spread"), predicted, rank, spread("mass"))

    def arrays(self) -> dict[str, np.ndarray]:
        """Give what `of_arrays` takes."""
        tensors = {
            "sums": self.sums,
            "variance": self.spread.variance,
            "squared": self.spread.squared_error,
            "predicted": self.predicted,
            "rank": self.rank,
            "mass_variance": self.mass.variance,
            "mass_squared": self.mass.squared_error,
        }
        return {name: value.numpy() for name, value in tensors.items()}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Scored:
        """Take what was kept."""
        a = {name: torch.from_numpy(value) for name, value in arrays.items()}
        spread = Spread(a["variance"], a["squared"], DRAWS)
        mass = Spread(a["mass_variance"], a["mass_squared"], DRAWS)
        return cls(a["sums"], spread, a["predicted"], a["rank"], mass)


SUMS = ("pixels", "crps", "variance", "squared", "phi_squared", "energy", "patches", "tiles")


def score(
    all_draws: Tensor, truth: Tensor, yhat: Tensor, generator: torch.Generator
) -> Scored | None:
    draws, others = all_draws[:DRAWS], all_draws[DRAWS:]
    where = yhat > INFORMATIVE
    if not bool(where.any()):
        return None
    inside, true = draws[:, where], truth[where]
    spread = spread_of(inside, true)
    masked, masked_truth = draws * where, truth * where
    cut = [_patches(image) for image in (masked, masked_truth[None])]
    sums = {
        "pixels": float(where.sum()),
        "crps": float(fair_crps(inside, true).double().sum()),
        "variance": float(spread.variance.double().sum()),
        "squared": float(spread.squared_error.double().sum()),
        "phi_squared": float((yhat[where] - true).double().square().sum()),
        "energy": float(fair_energy_score(inside, true)),
        "patches": float(fair_energy_score(cut[0], cut[1][0]).double().sum()),
        "tiles": 1.0,
    }
    return Scored(
        torch.tensor([[sums[name] for name in SUMS]], dtype=torch.float64),
        spread,
        others[:, where].var(0),
        ranks(inside, true, generator),
        mass_spread(draws[:, None], truth[None]),
    )


def _patches(images: Tensor) -> Tensor:
    side = PATCH_FINE_PX
    cut = torch.nn.functional.unfold(images[:, None], (side, side), stride=(side, side))
    return cut.transpose(1, 2)


def measure(
    row: Row, networks: Networks, recipe: PsiTrainingRecipe, tiles: int, kept: Path
) -> dict[str, float]:
    """Draw, score and sum up; blocks of tiles that the folder `kept` has are not drawn again."""
    kept.mkdir(parents=True, exist_ok=True)
    blocks = []
    for first in track(range(0, tiles, BLOCK_TILES), description=row.name):
        numbers = range(first, min(first + BLOCK_TILES, tiles))
        path = kept / f"{numbers.start}_{numbers.stop}.npz"
        if not path.is_file():
            block = measure_block(row, networks, recipe, numbers)
            with new_file(path) as partial:
                np.savez_compressed(partial, **block)
        with np.load(path) as arrays:
            blocks.append(dict(arrays))
    cost = np.sum([block.pop("cost") for block in blocks], axis=0)
    drawn, calls, seconds = (float(value) for value in cost)
    return {
        **table_row(Scored.of_all([Scored.of_arrays(block) for block in blocks])),
        "evaluations": calls / drawn,
        "ms_per_draw": 1000 * seconds / (drawn * (DRAWS + OTHER_DRAWS)),
    }


def measure_block(
    row: Row, networks: Networks, recipe: PsiTrainingRecipe, numbers: range
) -> dict[str, np.ndarray]:
    """Give the scores of some tiles and, as "cost", tiles drawn, evaluations and seconds."""
    unit = peak_of_one(networks.card.kernel_sigma_fine_px)
    sampling, calls = row.sampling(networks), _Calls(networks)
    parts, seconds, drawn = [], 0.0, 0
    for i in numbers:
        batch = simulate_tiles(
            recipe.conditions.conditions(),
            (1, SIDE_PX, SIDE_PX),
            torch_generator(SEED, "tile", i),
            recipe.kernel_sigma_fine_px,
        )
        channels = tile_input(batch)
        if not bool((tile_images(networks, channels, [], sampling)[0] > INFORMATIVE).any()):
            continue
        drawn += 1
        began = time.perf_counter()
        yhat, draws = tile_images(
            networks,
            channels,
            [torch_generator(SEED, "draw", i, k) for k in range(DRAWS + OTHER_DRAWS)],
            sampling,
        )
        seconds += time.perf_counter() - began
        parts.append(score(draws, batch.kde[0] / unit, yhat, torch_generator(SEED, "ties", i)))
    calls.stop()
    scored = Scored.of_all([part for part in parts if part is not None])
    return {**scored.arrays(), "cost": np.array([drawn, calls.count, seconds])}


class _Calls:
    """Counts how often Psi runs; all draws of a tile go through it together."""

    def __init__(self, networks: Networks) -> None:
        self.count = 0
        self._hooks = [
            part.register_forward_hook(self._saw)
            for psi in (networks.cast_psi, networks.psi)
            for part in psi.modules()
            if isinstance(part, PsiNetwork)  # of two networks, the one that runs
        ]

    def stop(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _saw(self, *_: object) -> None:
        self.count += 1


def table_row(scored: Scored) -> dict[str, float]:
    frames = scored.sums
    of = {name: frames.sum(0)[i] for i, name in enumerate(SUMS)}
    index = {name: i for i, name in enumerate(SUMS)}
    generator = torch.Generator().manual_seed(0)

    def ratio(sums: Tensor) -> float:
        share = (DRAWS + 1) / DRAWS
        return float((share * sums[index["variance"]] / sums[index["squared"]]).sqrt())

    def mean(name: str, by: str) -> tuple[float, float]:
        i, j = index[name], index[by]
        sd = bootstrap_sd(frames, lambda s: float(s[i] / s[j]), generator)
        return float(of[name] / of[by]), sd

    spread, rank = scored.spread, scored.rank
    numbers = {"tiles": float(of["tiles"]), "pixels": float(of["pixels"])}
    for name, by in (("crps", "pixels"), ("energy", "tiles"), ("patches", "tiles")):
        numbers[name], numbers[f"{name}_se"] = mean(name, by)
    numbers["rmse"] = math.sqrt(float(of["squared"] / of["pixels"]))
    numbers["phi_rmse"] = math.sqrt(float(of["phi_squared"] / of["pixels"]))
    numbers["spread_skill"] = spread_skill(spread)
    numbers["spread_skill_se"] = bootstrap_sd(frames, ratio, generator)
    # Bins by the spread of other draws: by their own, pixels whose draws happen to agree would
    # gather in the lowest one, and their ratio fall below 1 although all is right.
    order = scored.predicted.argsort()
    for i, part in enumerate(order.tensor_split(5)):
        inside = Spread(spread.variance[part], spread.squared_error[part], DRAWS)
        numbers[f"bin_{i + 1}"] = spread_skill(inside)
    numbers["rank_tv"] = distance_from_uniform(rank_histogram(rank, DRAWS))
    for k in (1, 2, 4, 6):
        nominal, held = coverage(rank, DRAWS, k)
        numbers[f"held_{100 * nominal:.0f}"] = held
    numbers["mass_spread_skill"] = spread_skill(scored.mass)
    return numbers


def write(rows: dict[str, dict[str, float]], out: Path) -> None:
    names = list(next(iter(rows.values())))
    with (out / "psi_table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["row", *names])
        writer.writeheader()
        writer.writerows({"row": name, **numbers} for name, numbers in rows.items())
    shown = [n for n in names if not n.endswith("_se") and n not in ("tiles", "pixels")]
    lines = [f"| row | {' | '.join(shown)} |", "|" + "---|" * (len(shown) + 1)]
    for name, numbers in rows.items():
        cells = []
        for n in shown:
            error = numbers.get(f"{n}_se")
            cells.append(f"{numbers[n]:.4g}" + ("" if error is None else f" ({error:.2g})"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    (out / "psi_table.md").write_text(text, encoding="utf-8")
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--phi", default="default")
    parser.add_argument("--trainings", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--rows", nargs="*", help="only rows whose names begin so")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    recipe = load_training_recipe(PsiTrainingRecipe, "default")
    phi = read_phi(arguments.phi)
    rows: dict[str, dict[str, float]] = {}
    for row in ROWS:
        kept = arguments.out / f"{row.name.replace(' ', '_')}.json"
        wanted = not arguments.rows or any(row.name.startswith(r) for r in arguments.rows)
        if wanted and not kept.is_file():
            folder = arguments.trainings / f"psi_{row.training}"
            shipped = SHIPPED.get(row.training) if arguments.phi == "default" else None
            networks = load_weights(shipped) if shipped else trained(row.training, phi, folder)
            numbers = measure(row, networks, recipe, arguments.tiles, kept.with_suffix(""))
            kept.write_text(json.dumps(numbers, indent=1), encoding="utf-8")
        if kept.is_file():
            rows[row.name] = json.loads(kept.read_text(encoding="utf-8"))
    write(rows, arguments.out)


if __name__ == "__main__":
    main()
