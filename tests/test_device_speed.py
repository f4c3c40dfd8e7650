"""The command that measures a graphics card, tried on the processor."""

from __future__ import annotations

import re


def test_the_table_of_a_device_is_printed(run_python, tmp_path):
    done = run_python(
        *("benchmarks/device_speed.py", "--out", str(tmp_path / "out"), "--device", "cpu"),
        *("--peak-tflops", "0.1", "--frames", "3", "--side", "32", "--density", "0.5"),
    )
    speeds = dict(re.findall(r"^\| (phi[^|]*|localize) \| ([\d.e+]+) \|", done.stdout, re.M))
    assert list(speeds) == ["phi", "phi and 16 draws", "localize"]
    assert float(speeds["phi"]) > float(speeds["phi and 16 draws"]) > 0
    # Arithmetic was counted, and the draws' comes on top of phi's.
    (ratio,) = re.findall(r"16 draws take ([\d.]+) times phi alone", done.stdout)
    assert float(ratio) > 1
    assert len(re.findall(r"^\| phi.*\| [\d.]+% \|$", done.stdout, re.M)) == 2
    memory = re.search(r"networks: ([\d,]+) MB; localize: ([\d,]+) MB", done.stdout)
    assert all(int(mb.replace(",", "")) > 100 for mb in memory.groups())
