"""How long `sureloc --help` takes: the median of 11 runs, which must stay under half a second."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 11
LIMIT_S = 0.5


def main() -> None:
    command = [str(Path(sys.executable).with_name("sureloc")), "--help"]
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    median = statistics.median(times[1:])  # the first run may still read from the disk
    print(f"sureloc --help: median {median:.3f} s, slowest {max(times[1:]):.3f} s, {RUNS} runs")
    sys.exit(median >= LIMIT_S)


if __name__ == "__main__":
    main()
