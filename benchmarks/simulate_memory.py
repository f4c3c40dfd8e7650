"""Time and memory of `sureloc simulate` for movies of growing length.

    python benchmarks/simulate_memory.py                 # 1,000, 10,000 and 100,000 frames
    python benchmarks/simulate_memory.py 1000 20000      # others

Every movie is written in a process of its own, to a temporary folder that is removed afterwards;
100,000 frames of 64 x 64 px take about 1.5 GB there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = "crowded_filaments"
DEFAULT_FRAMES = (1_000, 10_000, 100_000)


def measure(frames: int) -> tuple[float, float, float]:
    """Simulate; give wall seconds, peak resident memory in MB, and the folder's size in MB."""
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "movie"
        code = "from sureloc.cli import main; main()"
        options = ["--frames", str(frames), "--out", str(out), "--quiet"]
        # Without bleaching, the end of a long movie is as crowded as its beginning.
        options += ["--set", "kinetics.bleach_probability=0"]
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-c", code, "simulate", RECIPE, *options])
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            raise SystemExit(f"sureloc simulate failed with status {status}")
        size = sum(file.stat().st_size for file in out.iterdir())
        shutil.rmtree(out)
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, usage.ru_maxrss * unit / 1e6, size / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("frames", nargs="*", type=int, default=DEFAULT_FRAMES)
    options = parser.parse_args()
    print(f"{'frames':>10} {'seconds':>9} {'frames/s':>9} {'peak MB':>9} {'on disk MB':>11}")
    for frames in options.frames:
        seconds, peak, size = measure(frames)
        print(f"{frames:>10,} {seconds:>9.1f} {frames / seconds:>9.0f} {peak:>9.0f} {size:>11.0f}")


if __name__ == "__main__":
    main()
