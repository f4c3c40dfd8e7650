"""What simulating tiles on the fly costs, as a share of a training step: the goal is a tenth.

    python benchmarks/simulation_cost.py

One thread, one run; default recipes. phi is the smallest step that uses such tiles and Psi the
larger. Medians of 15 steps, each timed beside a simulation of the same number of tiles. Leaves
with 1 where the goal is missed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch

from sureloc.config.training import load_training_recipe
from sureloc.networks.weights import load_weights
from sureloc.simulate.tiles import simulate_tiles
from sureloc.train.engine import Training
from sureloc.train.phi import PhiTraining
from sureloc.train.psi import PsiTraining
from sureloc.train.recipe import PhiTrainingRecipe, PsiTrainingRecipe

GOAL = 0.1
REPEATS = 15


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(training: Training) -> tuple[float, float]:
    optimizer = torch.optim.AdamW(training.network.parameters(), lr=1e-5)
    generator, recipe = torch.Generator().manual_seed(0), training.recipe
    batch = recipe.batch

    def step() -> None:
        optimizer.zero_grad()
        training.loss(generator).backward()
        optimizer.step()

    def simulation() -> None:
        simulate_tiles(
            recipe.conditions.conditions(),
            (batch.tiles, batch.tile_px, batch.tile_px),
            generator,
            recipe.kernel_sigma_fine_px,
        )

    step(), simulation()
    both = [(seconds(simulation), seconds(step)) for _ in range(REPEATS)]
    return statistics.median(b[0] for b in both), statistics.median(b[1] for b in both)


def main() -> None:
    torch.set_num_threads(1)
    trainings = {
        "phi": PhiTraining(load_training_recipe(PhiTrainingRecipe, "default")),
        "psi": PsiTraining(load_training_recipe(PsiTrainingRecipe, "default"), load_weights().phi),
    }
    missed = False
    for name, training in trainings.items():
        simulation, step = measure(training)
        missed |= simulation > GOAL * step
        print(
            f"{name}: simulation {1000 * simulation:.1f} ms of a step of {1000 * step:.0f} ms, "
            f"{simulation / step:.3f} (goal {GOAL:g})"
        )
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
