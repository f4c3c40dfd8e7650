"""Kill a run at ten random moments, go on each time, and compare with a run that nothing stopped.

    python benchmarks/kill_test.py --out killed [--kills 10] [--seed 0] [--workers 2]

A small movie is simulated and localized by `sureloc localize`, once undisturbed and once killed
(SIGKILL, which no program can catch) at moments drawn evenly from the time that is left; a run that
ends before its moment is not counted. Tables, images and verdict must be the same, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SURELOC = [sys.executable, "-c", "from sureloc.cli import main; main()"]


def call(movie: Path, out: Path, workers: int, *more: str) -> list[str]:
    options = ["--camera", str(movie / "camera.npz"), "--sigma-px", "1.2", "-q"]
    return [
        *(*SURELOC, "localize", str(movie / "movie.ome.tif"), "--out", str(out)),
        *(*options, "--workers", str(workers), *more),
    ]


def contents(folder: Path) -> dict[str, object]:
    """Give every file as bytes; times, and the command that tells the folder, are left out."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "run.json":
            record = json.loads(path.read_text(encoding="utf-8"))
            found[name] = {k: v for k, v in record.items() if k not in ("seconds", "command")}
        elif path.suffix == ".parquet":
            import pandas as pd

            found[name] = pd.read_parquet(path).to_csv()
        elif path.is_file() and path.name not in ("report.html", ".zattrs"):
            found[name] = path.read_bytes()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    movie = given.out / "movie"
    simulate = ("simulate", "uniform", "--frames", str(given.frames), "--out", str(movie), "-q")
    subprocess.run([*SURELOC, *simulate], check=True)
    start = time.monotonic()
    unbroken = given.out / "unbroken"
    ended = subprocess.run(call(movie, unbroken, given.workers), check=False).returncode
    assert ended in (0, 3), ended  # 3: finished, with the verdict "do not trust"
    whole = time.monotonic() - start
    print(f"undisturbed: {whole:.0f} s")
    rng = np.random.default_rng(given.seed)
    out, killed, starts = given.out / "killed", 0, 0
    different: list[str] = []
    while killed < given.kills or not out.exists():
        shutil.rmtree(out, ignore_errors=True)  # of a round that ended before its moment
        starts += 1
        begin = time.monotonic()
        process = subprocess.Popen(call(movie, out, given.workers, "--resume"))
        moment = rng.uniform(0, whole) if killed < given.kills else None
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            parts = len(list((given.out / "killed.partial" / "parts").glob("[0-9]*")))
            print(f"kill {killed} after {moment:.1f} s: {parts} parts kept", flush=True)
        else:
            whole = min(whole, time.monotonic() - begin)
            one, other = contents(unbroken), contents(out)
            different += sorted(set(one) ^ set(other))
            different += [name for name in other if one.get(name) != other[name]]
            print(f"finished: {len(other)} files compared", flush=True)
        assert starts < 5 * given.kills + 5, "the run does not get on"
    print(f"{killed} kills, different: {different or 'none'}")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
