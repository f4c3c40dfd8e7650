"""What a graphics card gives: frames a second, share of its peak, memory; the same on processors.

    python benchmarks/device_speed.py --out gpu --device cuda --peak-tflops 67
    python benchmarks/device_speed.py --out cpu --device cpu --peak-tflops 0.18 --frames 8

simulates a movie of 256 x 256 px at one emitter per square micrometre (recipe `peers`) and gives
how many frames a second the device does of

- phi alone, and phi and 16 draws of Psi, on whole frames, with the arithmetic that this takes as a
  share of the card's peak (`--peak-tflops`, as its data sheet has it for the precision: 67 for an
  H100 in single precision, 0.09 for one core of two AVX2 units at 2.8 GHz), and the memory;
- `localize_file`, everything included, where networks run only if emitters are faint.

Arithmetic is counted by PyTorch: multiplications and additions of convolutions and products.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from sureloc import localize_file
from sureloc.cli.simulate import simulate
from sureloc.io.cameras import read_camera
from sureloc.io.movies import open_movie
from sureloc.networks.posterior import Precision, posterior_images
from sureloc.networks.weights import load_weights
from sureloc.runs.scheduler import AUTO

SEED, PIXEL_NM, SIGMA_PX, DRAWS = 2025, 100.0, 1.0, 16


@dataclass(frozen=True)
class Speed:
    """How fast something was.

    Attributes:
        frames_per_s: frames a second.
        tflops: 10^12 multiplications and additions a second, 0 where they were not counted.
    """

    frames_per_s: float
    tflops: float = 0.0


def timed(work: Callable[[], object], frames: int, device: torch.device) -> float:
    """Give frames a second; what a card has been told is waited for."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    work()
    wait()
    begin = time.perf_counter()
    work()
    wait()
    return frames / (time.perf_counter() - begin)


def networks_alone(
    movie: Path, device: torch.device, precision: Precision, weights: str
) -> dict[str, Speed]:
    """Give the speed of phi, and of phi and draws, on the frames of a movie."""
    networks = load_weights(weights, device.type)
    camera = read_camera(movie / "camera.npz")
    with open_movie(movie / "movie.ome.tif") as frames:
        number = frames.frames
        electrons = torch.from_numpy(camera.electrons(frames.read())).float()
        variance = torch.from_numpy(camera.read_variance_e2(frames.full_shape)).float()
    found = {}
    for name, draws in (("phi", 0), (f"phi and {DRAWS} draws", DRAWS)):

        def work(count: int = number, draws: int = draws) -> object:
            return posterior_images(
                *(networks, electrons[:count], variance, SIGMA_PX, camera.excess_noise, draws),
                *(SEED, range(count)),
                precision=precision,
            )

        with FlopCounterMode(display=False) as counter:
            work(1)
        speed = timed(work, number, device)
        found[name] = Speed(speed, speed * counter.get_total_flops() / 1e12)
    return found


def peak_memory_mb(device: torch.device) -> float:
    """Give the largest memory so far: of the card, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--peak-tflops", type=float, required=True)
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--side", type=int, default=256, help="rows and columns of a frame")
    parser.add_argument("--density", type=float, default=1.0, help="emitters per um^2")
    parser.add_argument("--weights", default="fast")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    device = torch.device(options.device)
    movie = options.out / "movie"
    options.out.mkdir(parents=True)
    simulate(
        "peers",
        frames=options.frames,
        out=movie,
        seed=SEED,
        settings=[
            f"scene.density_per_um2={options.density}",
            f"frame.height={options.side}",
            f"frame.width={options.side}",
        ],
        quiet=True,
    )
    found = networks_alone(movie, device, options.precision, options.weights)
    memory = peak_memory_mb(device)
    outcome = localize_file(
        movie / "movie.ome.tif",
        options.out / "result",
        camera=movie / "camera.npz",
        pixel_nm=PIXEL_NM,
        weights=options.weights,
        device=options.device,
        workers=options.workers,
        scheduler=AUTO,
    )
    found["localize"] = Speed(outcome.frames / outcome.seconds)
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
    print(f"\n{named}, {options.side} x {options.side} px, {options.density:g} / um^2\n")
    print("| what | frames/s | TFLOP/s | share of peak |\n|---|---|---|---|")
    for name, speed in found.items():
        shown = f"{speed.tflops:.3g} | {speed.tflops / options.peak_tflops:.1%}"
        print(f"| {name} | {speed.frames_per_s:.3g} | {shown if speed.tflops else ' | '} |")
    phi, drawn = list(found.values())[:2]
    print(f"\n{DRAWS} draws take {phi.frames_per_s / drawn.frames_per_s:.2f} times phi alone")
    print(f"networks: {memory:,.0f} MB; localize: {peak_memory_mb(device):,.0f} MB at most")


if __name__ == "__main__":
    main()
