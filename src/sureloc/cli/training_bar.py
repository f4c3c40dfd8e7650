"""What the console shows while a network is trained."""

from __future__ import annotations

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sureloc.train.engine import Training

_SHOWN = ("rmse", "unexplained", "spread_skill", "crps")


class TrainingBar(pl.Callback):
    """A bar over the optimizer's steps, with the numbers of the last validation."""

    def __init__(self, name: str, steps: int, *, quiet: bool = False) -> None:
        self.progress = Progress(
            TextColumn(f"training {name}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
            TextColumn("left"),
            TextColumn("{task.fields[numbers]}"),
            console=Console(stderr=True),
            disable=quiet,
        )
        self._task = self.progress.add_task(name, total=steps, numbers="")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Move the bar to the optimizer's step, which a resumed run does not begin at 0."""
        self.progress.update(self._task, completed=trainer.global_step)

    def on_validation_end(self, _trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show spread-skill, CRPS and what else the validation gave."""
        if isinstance(pl_module, Training):
            self.progress.update(self._task, numbers=describe(pl_module.history[-1]))


def describe(row: dict[str, float]) -> str:
    """Give the numbers of one validation in a few words."""
    return ", ".join(f"{name.replace('_', '-')} {row[name]:.4g}" for name in _SHOWN if name in row)
