"""How any network here is trained: Lightning drives, and the step alone decides the data.

A step's tiles, noise and order come from (seed, step), so that a run that was killed and resumed
gives the weights of an unbroken one without any stored random state.

Several devices share a step's tiles: of n devices each simulates tiles / n of its own, from (seed,
step, device), and gradients are averaged. A step's gradient is therefore the mean over as many
independent tiles as on one device, with the same expectation and scatter, and the learning rate
stays as it is; the weights are other ones, as by another seed.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import time
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sureloc.errors import InputError, RecipeError, TrainingError
from sureloc.networks.posterior import Precision, autocast_for
from sureloc.seeds import torch_generator
from sureloc.simulate.tiles import TileBatch, simulate_tiles
from sureloc.train.folder import (
    BEST,
    CHECKPOINT,
    LAST,
    LOG,
    best_row,
    read_checkpoint,
    write_log,
)
from sureloc.train.recipe import OptimizerRecipe, TrainingRecipe

_REMARKS = (
    r".*isinstance\(treespec, LeafSpec\)",
    r".*module\(s\) in eval mode at the start of training",
    r".*does not have many workers",
    r".*Checkpoint directory .* exists and is not empty",
    r".*you have set wrong `max_epochs`",
    r".*sync_dist=True",
)
_FLOOR = 0.01  # the cosine ends at this share of the learning rate


def learning_rate_share(step: int, optimizer: OptimizerRecipe) -> float:
    """Give the share of the learning rate at a step: linear warm-up, then half a cosine."""
    if step < optimizer.warmup_steps:
        return (step + 1) / optimizer.warmup_steps
    left = max(optimizer.steps - optimizer.warmup_steps, 1)
    progress = min((step - optimizer.warmup_steps) / left, 1.0)
    return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))


def average_weights(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move `average` towards `network`, faster in the first steps than `decay` would."""
    share = 1.0 - min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        own = average.state_dict()
        for name, value in network.state_dict().items():
            if own[name].is_floating_point():
                own[name].lerp_(value, share)
            else:
                own[name].copy_(value)


class Training(pl.LightningModule):
    """A network, its moving average, and the loss of one step.

    Attributes:
        recipe: how it is trained.
        network: what the optimizer moves.
        average: the moving average of its weights, which is validated and shipped.
        history: one row of numbers for each validation.
        devices: how many share a step's tiles.
    """

    def __init__(self, recipe: TrainingRecipe, network: nn.Module) -> None:
        super().__init__()
        self.recipe = recipe
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.history: list[dict[str, float]] = []
        self.devices = 1
        self._losses: list[Tensor] = []
        self._clock_started_s = time.monotonic()

    @abstractmethod
    def loss(self, generator: torch.Generator) -> Tensor:
        """Give the loss of freshly simulated tiles."""

    @abstractmethod
    def judge(self, generator: torch.Generator) -> dict[str, float]:
        """Judge the averaged weights on held-out tiles; "score" is smaller for better weights."""

    def tiles_of_step(self, generator: torch.Generator) -> TileBatch:
        """Simulate this device's share of a step's tiles."""
        batch, side = self.recipe.batch, self.recipe.batch.tile_px
        if batch.other_sides_px:
            sides, device = batch.sides_px, generator.device
            side = sides[int(torch.randint(len(sides), (1,), generator=generator, device=device))]
        return self.tiles(generator, max(batch.tiles_of(side) // self.devices, 1), side)

    def tiles(self, generator: torch.Generator, number: int, side_px: int) -> TileBatch:
        """Simulate tiles under the recipe's conditions."""
        return simulate_tiles(
            self.recipe.conditions.conditions(),
            (number, side_px, side_px),
            generator,
            self.recipe.kernel_sigma_fine_px,
        )

    def generator(self, *path: int | str) -> torch.Generator:
        """Give the random stream of this run that `path` names, on the device of the weights."""
        return torch_generator(self.recipe.seed, *path, device=self.device)

    def autocast(self) -> torch.autocast:
        """Give the context in which networks run at the recipe's precision.

        bfloat16 where the recipe says so and the device multiplies it in hardware: elsewhere a step
        would take ten times as long.
        """
        precision: Precision = "auto" if self.recipe.precision == "bfloat16" else "float32"
        return autocast_for(self.device, precision)

    def frozen(self) -> dict[str, Tensor]:
        """Give the weights that the run builds on and does not change, such as those of phi."""
        trained = ("network.", "average.")
        return {k: v for k, v in self.state_dict().items() if not k.startswith(trained)}

    def on_fit_start(self) -> None:
        """Start the clock where the run, resumed perhaps, had stopped it."""
        before = self.history[-1]["minutes"] if self.history else 0.0
        self._clock_started_s = time.monotonic() - 60.0 * before

    def training_step(self, _batch: Tensor, _index: int) -> Tensor:
        """Give the loss of this step; the batch carries nothing."""
        loss = self.loss(self.generator(*stream(self.global_step, self.global_rank, self.devices)))
        self._losses.append(loss.detach())
        return loss

    def on_train_batch_end(self, *_: object) -> None:
        """Let the average follow."""
        average_weights(
            self.average, self.network, self.recipe.optimizer.averaging, self.global_step
        )

    def validation_step(self, _batch: Tensor, _index: int) -> None:
        """Judge the averaged weights, always on the same tiles.

        Raises:
            TrainingError: they or their score are no finite numbers.
        """
        losses = torch.stack(self._losses) if self._losses else torch.full((1,), math.nan)
        self._losses.clear()
        if not all(bool(value.isfinite().all()) for value in self.average.state_dict().values()):
            raise self._divergence("averaged weights are", losses)
        numbers = self.judge(self.generator("validate"))
        if not math.isfinite(numbers["score"]):
            raise self._divergence("score of its validation is", losses)
        row = {"step": float(self.global_step), "train_loss": float(losses.mean()), **numbers}
        self.log_dict({k: v for k, v in row.items() if k != "step"}, batch_size=1)
        minutes = (time.monotonic() - self._clock_started_s) / 60.0
        self.history.append({**row, "minutes": round(minutes, 3)})

    def _divergence(self, what: str, losses: Tensor) -> TrainingError:
        """Say what is no number, or else at which step the loss had ceased to be one before."""
        optimizer, step, what = self.recipe.optimizer, self.global_step, f"the {what}"
        lost = (~losses.isfinite()).nonzero()
        if len(lost) > 0:
            step, what = step - len(losses) + int(lost[0]) + 1, "its loss is"
        kept = ""
        if self.history:
            kept = f" The best weights, of step {best_row(self.history)['step']:.0f}, are kept."
        return TrainingError(
            f"The training diverged at step {step} of {optimizer.steps}: {what} no finite number. "
            "Train into another folder with a smaller optimizer.learning_rate than "
            f"{optimizer.learning_rate:g}, or a longer warm-up.{kept}"
        )

    def configure_optimizers(self) -> Any:
        """Give AdamW and its schedule by steps."""
        optimizer = self.recipe.optimizer
        adam = torch.optim.AdamW(
            self.network.parameters(),
            lr=optimizer.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=optimizer.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            adam, lambda step: learning_rate_share(step, optimizer)
        )
        return {
            "optimizer": adam,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the recipe's fingerprint, the number of devices, and the history as plain text."""
        checkpoint["recipe_fingerprint"] = self.recipe.fingerprint()
        checkpoint["history"] = json.dumps(self.history)
        checkpoint["devices"] = self.devices

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the history back."""
        self.history = json.loads(checkpoint["history"])


def stream(step: int, device: int, devices: int) -> tuple[int | str, ...]:
    """Give the path of the random stream of a step on one of the devices."""
    return ("train", step) if devices == 1 else ("train", step, device, devices)


class _Log(pl.Callback):
    """Keep the history as CSV, the best averaged weights, and a checkpoint to resume from."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not isinstance(pl_module, Training):
            return
        if not trainer.is_global_zero:
            return  # every device has judged the same weights on the same tiles
        history = pl_module.history
        write_log(self.out / LOG, history)
        if history[-1] is best_row(history):
            save_average(pl_module, self.out / BEST)
        save_average(pl_module, self.out / LAST)

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        # After the validation, so that the history in it is whole. Lightning's ModelCheckpoint,
        # asked for the last one alone, would write it at the end of the whole training only.
        partial = self.out / f"{CHECKPOINT}.part"
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            partial.replace(self.out / CHECKPOINT)


def save_average(training: Training, path: Path) -> None:
    """Write the averaged weights as safetensors."""
    from safetensors.torch import save_file

    state = {
        name: value.contiguous().cpu() for name, value in training.average.state_dict().items()
    }
    temporary = path.with_suffix(".part")
    save_file(state, temporary, metadata={"recipe": training.recipe.fingerprint()})
    temporary.replace(path)


def resumable(training: Training, out: Path) -> Path:
    """Give the checkpoint in `out` that continues this training.

    Raises:
        InputError: there is no checkpoint, it cannot be read, or it was made on another number of
            devices, which would go on with other tiles.
        RecipeError: it belongs to another recipe, or builds on other frozen weights.
    """
    path = out / CHECKPOINT
    if not path.is_file():
        raise InputError(
            f"There is no {CHECKPOINT} in {out} to resume from. Start without --resume."
        )
    found, own = read_checkpoint(path), training.recipe.fingerprint()
    if found.fingerprint != own:
        raise RecipeError(
            f"The checkpoint {path} was made by another recipe (fingerprint {found.fingerprint}, "
            f"this one is {own}). Resume with the recipe.yaml beside it, or train into another "
            "folder."
        )
    name = found.differing(training.frozen())
    if name is not None:
        raise RecipeError(
            f"The checkpoint {path} builds on other weights than those given: {name} differs. "
            "Resume with the weights it was started with, or train into another folder."
        )
    if found.devices not in (None, training.devices):
        raise InputError(
            f"The checkpoint {path} was made with --devices {found.devices}, not "
            f"{training.devices}; on another number of devices, steps see other tiles. Resume with "
            f"--devices {found.devices}, or train into another folder."
        )
    return path


def fit(
    training: Training,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    devices: int = 1,
    callbacks: Sequence[pl.Callback] = (),
    logger: Logger | None = None,
) -> Training:
    """Train until the recipe's last step.

    Args:
        training: network and loss.
        out: folder for checkpoints, the log and the averaged weights.
        resume: continue from the checkpoint in `out`.
        device: "auto", "cpu", "gpu" or another accelerator that Lightning knows.
        devices: how many of them share each step's tiles. For more than one, Lightning runs this
            program again for each of the others, which meet here.
        callbacks: more Lightning callbacks, such as a progress bar.
        logger: a Lightning logger that gets the validation's numbers beside the CSV log.

    Returns:
        The trained module.

    Raises:
        InputError: `resume` is asked for without a checkpoint, there is no such device, or a
            step's tiles cannot be shared evenly.
        RecipeError: the checkpoint is of another training.
        TrainingError: it diverged; what the validation before left stays.
    """
    recipe = training.recipe
    if devices < 1 or recipe.batch.tiles % devices:
        raise InputError(
            f"The {recipe.batch.tiles} tiles of a step cannot be shared by {devices} devices; give "
            "a number of devices that divides them, or change batch.tiles in the recipe."
        )
    training.devices = devices
    checkpoint = resumable(training, out) if resume else None
    out.mkdir(parents=True, exist_ok=True)
    every = recipe.validation.every_steps
    with _quiet_lightning():
        try:
            trainer = pl.Trainer(
                accelerator=device,
                devices=devices,
                strategy="ddp" if devices > 1 else "auto",
                use_distributed_sampler=False,  # steps know which tiles are theirs
                max_steps=recipe.optimizer.steps,
                max_epochs=-1,
                limit_val_batches=1,
                log_every_n_steps=every,
                gradient_clip_val=recipe.optimizer.gradient_norm,
                num_sanity_val_steps=0,
                logger=logger or False,
                enable_model_summary=False,
                enable_progress_bar=False,
                enable_checkpointing=False,
                callbacks=[_Log(out), *callbacks],
                default_root_dir=out,
            )
        except (MisconfigurationException, ValueError) as error:
            raise InputError(
                f"The device {device!r} cannot be used here: {error} Give auto or cpu."
            ) from error
        steps: DataLoader[int] = DataLoader(range(every), batch_size=1)  # type: ignore[arg-type]
        once: DataLoader[int] = DataLoader(range(1), batch_size=1)  # type: ignore[arg-type]
        trainer.fit(training, steps, once, ckpt_path=checkpoint, weights_only=True)
    return training


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's remarks on what is meant here (averages in eval mode, no workers) away."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for remark in _REMARKS:
                warnings.filterwarnings("ignore", remark)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
