"""Training on two devices: two CPU processes that average their gradients, killed and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file

from sureloc.errors import InputError
from sureloc.train.engine import fit, stream
from sureloc.train.folder import CHECKPOINT
from sureloc.train.phi import PhiTraining
from sureloc.train.recipe import PhiTrainingRecipe

RECIPE = {
    "kind": "phi",
    "network": {"kind": "fast", "width": 8, "dilations": [1]},
    "batch": {"tiles": 4, "tile_px": 8},
    "optimizer": {"steps": 12, "warmup_steps": 2},
    "validation": {"every_steps": 3, "tiles": 4, "tile_px": 8, "draws": 2, "evaluations": 2},
}


class OneProcess(PhiTraining):
    """What two devices do, on one: the mean of their losses, each over its own tiles."""

    def training_step(self, _batch, _index):
        self.devices = 2
        losses = [self.loss(self.generator(*stream(self.global_step, k, 2))) for k in range(2)]
        return torch.stack(losses).mean()


def test_two_devices_average_over_the_batch_of_one_and_resume(tmp_path):
    """Killed after the first checkpoint; the weights are those of one process that does it all."""
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    program = tmp_path / "program.py"  # a file, as Lightning starts it again for the other device
    program.write_text("from sureloc.cli import main\n\nmain()\n")
    out = tmp_path / "out"
    call = [sys.executable, str(program), "train", "phi", str(tmp_path / "recipe.yaml")]
    call += ["--out", str(out), "--device", "cpu", "--devices", "2", "--quiet"]
    first = subprocess.Popen(call, start_new_session=True)
    end = time.monotonic() + 200
    while not (out / CHECKPOINT).exists() and first.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    done = subprocess.run(
        [*call, "--resume"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best after") == 1  # one of both speaks
    found = load_file(out / "last.safetensors")
    alone = fit(OneProcess(PhiTrainingRecipe(**RECIPE)), tmp_path / "alone", device="cpu")
    untrained = PhiTraining(PhiTrainingRecipe(**RECIPE)).average.state_dict()
    for name, value in alone.average.state_dict().items():
        # Both processes add in single precision, in another order.
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(found[name], value) for name, value in untrained.items())
    rows = (out / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["3.0", "6.0", "9.0", "12.0"]


def test_tiles_that_cannot_be_shared_are_refused(tmp_path):
    training = PhiTraining(PhiTrainingRecipe(**RECIPE))
    for devices in (0, 3):
        with pytest.raises(InputError, match=f"4 tiles of a step cannot be shared by {devices}"):
            fit(training, tmp_path, device="cpu", devices=devices)


def test_streams_of_devices_differ_and_one_device_keeps_its_own():
    assert stream(5, 0, 1) == ("train", 5)
    assert len({stream(5, k, n) for n in (1, 2, 4) for k in range(n)}) == 7
