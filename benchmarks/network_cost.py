"""What the networks cost: phi, conditioning and one draw on a 20 x 20 tile, and their size.

    python benchmarks/network_cost.py [--threads 2] [--precision auto]

A draw is 8 network evaluations (weights `default`) or one (`fast`, those that `localize` takes) and
the sampler's arithmetic, in a batch of 64 draws of one tile.
The paper's networks are measured beside it: its phi, and one evaluation of its Psi, a U-Net, for
one draw (`--without-paper` leaves them out: building 228 million weights takes 2 GB and a while).
The authors' own network took 3,800 ms an evaluation. Each number is the smallest of several
medians, since what else a machine does only adds. Leaves with an error if a goal is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from sureloc.config.training import load_training_recipe
from sureloc.networks.blocks import fold
from sureloc.networks.normalization import network_input
from sureloc.networks.phi import PaperPhi
from sureloc.networks.posterior import autocast_for, posterior_images
from sureloc.networks.weights import Networks, build_psi, load_weights
from sureloc.train.recipe import PsiTrainingRecipe

ONE_DRAW = "one draw, weights {}"
CONDITIONING = "conditioning, weights {}"
GOALS_MS = {
    "phi": 8.0,
    CONDITIONING.format("default"): 4.0,
    CONDITIONING.format("fast"): 4.0,
    ONE_DRAW.format("fast"): 1.0,
}
GOAL_PARAMETERS = 3_000_000
SIDE_PX = 20
DRAWS = 64


ROUNDS = 5


def median_ms(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def tile_channels(electrons: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    channels = network_input(electrons, variance, torch.full((1,), 1.3), torch.ones(1))
    return channels.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def measure(precision: str) -> dict[str, float]:
    networks = load_weights()
    autocast = autocast_for(networks.device, precision)  # type: ignore[arg-type]
    electrons = torch.poisson(torch.full((1, SIDE_PX, SIDE_PX), 30.0))
    variance = torch.ones(1, SIDE_PX, SIDE_PX)

    def phi() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        frames = tile_channels(electrons, variance)
        with autocast:
            trunk = networks.phi.trunk(frames)
            return frames, trunk, fold(networks.phi.read(trunk)).float()

    seen = phi()

    def conditioning(weights: Networks) -> float:
        def condition() -> torch.Tensor:
            with autocast:
                return weights.psi.condition(*seen)

        return median_ms(condition, 40)

    def one_draw(weights: Networks) -> float:
        def draws(count: int) -> object:
            return posterior_images(
                weights, electrons, variance, 1.3, 1.0, count, 0, [0], precision=precision
            )

        once = median_ms(lambda: draws(0), 40)
        return (median_ms(lambda: draws(DRAWS), 9) - once) / DRAWS

    fast = load_weights("fast")
    return {
        "phi": median_ms(phi, 40),
        CONDITIONING.format("default"): conditioning(networks),
        CONDITIONING.format("fast"): conditioning(fast),
        ONE_DRAW.format("default"): one_draw(networks),
        ONE_DRAW.format("fast"): one_draw(fast),
        "parameters": sum(
            p.numel() for part in (networks.phi, networks.psi) for p in part.parameters()
        ),
    }


@torch.inference_mode()
def measure_paper(precision: str) -> dict[str, float]:
    networks = load_weights()
    autocast = autocast_for(networks.device, precision)  # type: ignore[arg-type]
    frames = tile_channels(torch.full((1, SIDE_PX, SIDE_PX), 30.0), torch.ones(1, SIDE_PX, SIDE_PX))
    phi = PaperPhi().eval().to(memory_format=torch.channels_last)
    recipe = load_training_recipe(PsiTrainingRecipe, "paper")
    psi = build_psi(recipe.network.card(), networks.phi.trunk_width).eval()
    psi.to(memory_format=torch.channels_last)
    noisy = torch.randn(1, 16, SIDE_PX, SIDE_PX)
    condition = psi.condition(frames, networks.phi.trunk(frames), noisy)

    def run_phi() -> torch.Tensor:
        with autocast:
            return phi(frames)

    def run_psi() -> torch.Tensor:
        with autocast:
            return psi(noisy, torch.zeros(1), condition)

    return {
        "the paper's phi": median_ms(run_phi, 10),
        "parameters of the paper's phi": sum(p.numel() for p in phi.parameters()),
        "one evaluation of the paper's Psi": median_ms(run_psi, 5),
        "parameters of the paper's Psi": sum(p.numel() for p in psi.parameters()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--without-paper", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    rounds = [measure(arguments.precision) for _ in range(ROUNDS)]
    numbers = {name: min(one[name] for one in rounds) for name in rounds[0]}
    if not arguments.without_paper:
        numbers |= measure_paper(arguments.precision)
    print(f"{SIDE_PX} x {SIDE_PX} px, {arguments.threads} threads, {arguments.precision}:")
    for name, value in numbers.items():
        goal = GOALS_MS.get(name)
        shown = f"{value:,.0f}" if name.startswith("parameters") else f"{value:.2f} ms"
        print(f"  {name:34}{shown:>12}" + ("" if goal is None else f"   goal {goal:g} ms"))
    missed = [name for name, goal in GOALS_MS.items() if numbers[name] > goal]
    if numbers["parameters"] > GOAL_PARAMETERS:
        missed.append("parameters")
    sys.exit(f"missed: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
