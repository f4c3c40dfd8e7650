"""Weights fine-tuned to one movie: simulated tiles like it, phi first, then Psi on the new phi.

Training goes on from given weights, in the engine that made them, on tiles whose PSF width,
brightness, density, background and read noise lie round those of the movie. What it was good for is
seen on tiles that were held out, simulated the same way: both weights get the same tiles and noise,
and are compared on pixels where either expects something.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sureloc.calibrate.inspection import Inspection
from sureloc.errors import InputError
from sureloc.limits import check_limit
from sureloc.networks.blocks import unfold
from sureloc.networks.posterior import INFORMATIVE, shipped_sampling
from sureloc.networks.weights import Networks
from sureloc.scoring.calibration import spread_of, spread_skill
from sureloc.scoring.proper import fair_crps
from sureloc.seeds import torch_generator
from sureloc.simulate.tiles import simulate_tiles
from sureloc.train.engine import Training, fit
from sureloc.train.export import (
    assemble,
    phi_of_training,
    recipe_in_card,
)
from sureloc.train.folder import CHECKPOINT, LOG, History, read_log
from sureloc.train.phi import PhiTraining
from sureloc.train.pixel_map import with_pixel_map
from sureloc.train.psi import PsiTraining
from sureloc.train.recipe import (
    ConditionsRecipe,
    PhiTrainingRecipe,
    PsiTrainingRecipe,
    TrainingRecipe,
)
from sureloc.train.search import draw_held_out, held_out_tiles

Array = npt.NDArray[np.float64]
Recipe = TypeVar("Recipe", bound=TrainingRecipe)

PHI_SHARE = 0.4  # of the time
VALIDATIONS = 5
LEAST_STEPS, MOST_STEPS = 10, 4000
SLOWER = 0.4  # learning rate over that of the first training
HELD_OUT_TILES, TILE_PX, DRAWS = 64, 24, 16
MAP_TILES = 150  # for the map of drawn pixels, where the weights have one
WORSE_PHI = 1.02  # times the error that phi had
WORSE_SPREAD = 0.1  # of the logarithm of spread-skill
_SIGMA_SLACK = 0.05
_FACTOR, _BACKGROUND_FACTOR = 1.5, 2.0
_DENSITY_FACTOR, _LEAST_DENSITY = 2.5, 0.004
_TIMED_STEPS = 2


@dataclass(frozen=True)
class Plan:
    """How the two trainings go.

    Attributes:
        phi, psi: their recipes; the seeds of held-out tiles are others.
    """

    phi: PhiTrainingRecipe
    psi: PsiTrainingRecipe


@dataclass(frozen=True)
class Scores:
    """How good weights are on held-out tiles; images are in phi's unit, an emitter's peak.

    Attributes:
        crps: fair CRPS of single pixels, mean.
        crps_error: its standard error over tiles.
        spread_skill: 1 if draws spread as far as they err, below 1 overconfident.
        phi_rmse: error of phi's estimate, root mean square.
        by_tile: the CRPS of every tile that has informative pixels.
    """

    crps: float
    crps_error: float
    spread_skill: float
    phi_rmse: float
    by_tile: Array


@dataclass(frozen=True)
class Comparison:
    """Weights before and after, on the same tiles.

    Attributes:
        before, after: their scores.
        gain_error: standard error of the difference of the CRPS, paired over tiles.
        frame_e, truth, phi_before, phi_after, sd_before, sd_after: images of one tile.
    """

    before: Scores
    after: Scores
    gain_error: float
    frame_e: Array
    truth: Array
    phi_before: Array
    phi_after: Array
    sd_before: Array
    sd_after: Array

    @property
    def worse(self) -> list[str]:
        """What got worse, a clause each; none if the new weights are better."""
        before, after, reasons = self.before, self.after, []
        if not after.crps < before.crps:
            reasons.append(f"the CRPS went from {before.crps:.4g} to {after.crps:.4g}")
        if not after.phi_rmse <= WORSE_PHI * before.phi_rmse:
            reasons.append(f"phi's error went from {before.phi_rmse:.4g} to {after.phi_rmse:.4g}")
        off = [abs(math.log(max(s.spread_skill, 1e-9))) for s in (before, after)]
        if not off[1] <= off[0] + WORSE_SPREAD:
            reasons.append(
                f"spread-skill went from {before.spread_skill:.3f} to {after.spread_skill:.3f}, "
                "farther from 1"
            )
        return reasons


def conditions_like(inspection: Inspection, base: ConditionsRecipe) -> ConditionsRecipe:
    """Give training conditions round those of a movie.

    Args:
        inspection: the movie.
        base: what the weights were trained on; blinking, unevenness and hot pixels stay.

    Raises:
        InputError: a property of the movie that is needed could not be estimated.
    """
    sigma = inspection.quantities["sigma_px"]
    width = inspection.value("sigma_px")
    slack = max(_SIGMA_SLACK * width, 3 * (sigma.error or 0.0))
    photons = inspection.value("photons")
    background = max(inspection.value("background_e"), 0.2)
    noise = max(inspection.value("read_noise_e"), 0.2)
    density = max(_DENSITY_FACTOR * inspection.value("density_per_px2"), _LEAST_DENSITY)
    spots, camera = inspection.spot_photons, inspection.camera
    low, high = np.percentile(spots, (1, 99)) if spots.size else (photons, photons)
    faintest = float(max(min(0.2 * photons, low), 2.0))
    return base.model_copy(
        update={
            "sigma_px": (max(width - slack, 0.3), width + slack),
            "mean_photons": (photons / _FACTOR, photons * _FACTOR),
            "photons": (faintest, float(max(4.0 * photons, high))),
            "density_per_px2": (0.0, density),
            "background_e": (background / _BACKGROUND_FACTOR, background * _BACKGROUND_FACTOR),
            "read_noise_e": (noise / _FACTOR, noise * _FACTOR),
            "target_photons": min(base.target_photons, 0.5 * faintest),
            "multiplied_share": 1.0 if camera is not None and camera.em_gain > 1 else 0.0,
        }
    )


def plan_adaptation(
    networks: Networks,
    conditions: Callable[[ConditionsRecipe], ConditionsRecipe],
    minutes: float,
    seed: int = 0,
    device: str = "auto",
) -> Plan:
    """Make recipes that take about the given time on this machine, which is tried out.

    Args:
        networks: the weights to start from; their card holds the first recipes.
        conditions: turns the first conditions into the new ones.
        minutes: for both trainings together.
        seed: of the new trainings.
        device: what will train, "auto", "cpu" or "gpu".

    Raises:
        InputError: `minutes` is not positive.
        WeightsError: the card holds no recipes.
    """
    check_limit("minutes", minutes)
    phi = recipe_in_card(networks.card, "phi", PhiTrainingRecipe)
    psi = recipe_in_card(networks.card, "psi", PsiTrainingRecipe)
    on_gpu = device != "cpu" and torch.cuda.is_available()
    phi = _renewed(phi, conditions(phi.conditions), seed)
    psi = _renewed(psi, conditions(psi.conditions), seed)
    seconds, where = 60.0 * minutes, "cuda" if on_gpu else "cpu"
    own_phi = copy.deepcopy(networks.phi)
    return Plan(
        _with_steps(phi, _affordable(PhiTraining(phi), PHI_SHARE * seconds, where)),
        _with_steps(psi, _affordable(PsiTraining(psi, own_phi), (1 - PHI_SHARE) * seconds, where)),
    )


def _renewed(recipe: Recipe, conditions: ConditionsRecipe, seed: int) -> Recipe:
    """Give a recipe new tiles and another seed."""
    return recipe.model_copy(update={"conditions": conditions, "seed": seed + 1})


def _affordable(training: Training, seconds: float, device: str) -> int:
    """Give the number of steps that fit, a multiple of `VALIDATIONS`, after trying a few."""
    training.to(device)
    generator = training.generator("try out")
    torch.autograd.backward(training.loss(generator))  # the first step also sets things up
    begin = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        torch.autograd.backward(training.loss(generator))
    step = (time.perf_counter() - begin) / _TIMED_STEPS
    begin = time.perf_counter()
    training.judge(generator)
    validation = time.perf_counter() - begin
    steps = (seconds - VALIDATIONS * validation) / max(1.1 * step, 1e-6)
    return VALIDATIONS * round(min(max(steps, LEAST_STEPS), MOST_STEPS) / VALIDATIONS)


def _with_steps(recipe: Recipe, steps: int) -> Recipe:
    optimizer = recipe.optimizer.model_copy(
        update={
            "steps": steps,
            "learning_rate": SLOWER * recipe.optimizer.learning_rate,
            "warmup_steps": min(recipe.optimizer.warmup_steps, steps // 10),
        }
    )
    validation = recipe.validation.model_copy(update={"every_steps": steps // VALIDATIONS})
    return recipe.model_copy(
        update={
            "description": "Fine-tuned to one movie by `sureloc adapt`",
            "optimizer": optimizer,
            "validation": validation,
        }
    )


class Deadline(pl.Callback):
    """Stops a training at the last validation before its time is over; it can be resumed.

    It goes on while the time since the validation before, once more, still fits. The first
    validation is always made, as there are no weights to be saved without one.
    """

    def __init__(self, end: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._end, self._clock = end, clock
        self._last = clock()

    def on_train_start(self, _trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Look at the clock."""
        self._last = self._clock()

    def on_validation_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Look at the clock, and stop where the next validation would come too late."""
        now = self._clock()
        if now + (now - self._last) > self._end:
            trainer.should_stop = True
        self._last = now


Callbacks = Callable[[str, Training], Sequence[pl.Callback]]


def adapt(
    networks: Networks,
    plan: Plan,
    folder: Path,
    name: str,
    *,
    minutes: float = math.inf,
    device: str = "auto",
    callbacks: Callbacks = lambda _name, _training: (),
) -> tuple[Networks, dict[str, History]]:
    """Train, or go on with a training that was broken off.

    Args:
        networks: the weights to start from.
        plan: of `plan_adaptation`.
        folder: for checkpoints and logs of both trainings, in `phi` and `psi`.
        name: of the new weights.
        minutes: of both trainings together, which keep to it (`Deadline`).
        device: "auto", "cpu" or "gpu".
        callbacks: gives more callbacks for each of "phi" and "psi", such as a progress bar.

    Returns:
        The new networks with their card, and the logs, as `sureloc.train.export.assemble`; with a
        map of drawn pixels of their own where the given ones have one.

    Raises:
        RecipeError: `folder` holds a training by another plan.
    """
    begin, seconds = time.monotonic(), 60.0 * minutes
    phi = PhiTraining(plan.phi)
    _start_from(phi, networks.phi.state_dict())
    of_phi = [*callbacks("phi", phi), Deadline(begin + PHI_SHARE * seconds)]
    _train(phi, folder / "phi", device, of_phi)
    trained = phi_of_training(plan.phi, folder / "phi")
    psi = PsiTraining(plan.psi, trained.network)
    # With the scale that the weights were trained for: they begin as good as they were.
    _start_from(psi, networks.psi.state_dict())
    _train(psi, folder / "psi", device, [*callbacks("psi", psi), Deadline(begin + seconds)])
    description = f"{networks.card.name}, fine-tuned to one movie by `sureloc adapt`"
    adapted, logs = assemble(trained, (plan.psi, folder / "psi"), name, description)
    if networks.pixel_map is not None:
        adapted = with_pixel_map(adapted, MAP_TILES, plan.psi.seed)
    return adapted, logs


def _start_from(training: Training, state: dict[str, Tensor]) -> None:
    training.network.load_state_dict(state)
    training.average.load_state_dict(state)


def _train(
    training: Training,
    folder: Path,
    device: str,
    callbacks: Sequence[pl.Callback],
) -> None:
    resume = (folder / CHECKPOINT).is_file()
    if resume and read_log(folder / LOG)[-1]["step"] >= training.recipe.optimizer.steps:
        return
    fit(training, folder, resume=resume, device=device, callbacks=callbacks)


def compare_weights(
    before: Networks,
    after: Networks,
    conditions: ConditionsRecipe,
    seed: int = 0,
    tiles: int = HELD_OUT_TILES,
    draws: int = DRAWS,
) -> Comparison:
    """Score two weights on the same held-out tiles.

    Args:
        before, after: the weights, on the CPU.
        conditions: what the tiles look like.
        seed: names tiles and noise; no training uses these.
        tiles, draws: how many.
    """
    looks = [_look(networks, conditions, seed, tiles, draws) for networks in (before, after)]
    (yhat, images, truth), (new_yhat, new_images, _) = looks
    # Pixels where either of the two expects something: neither chooses where it is judged.
    where = torch.maximum(yhat, new_yhat) > INFORMATIVE
    scores = [_scores(y, d, truth, where) for y, d in ((yhat, images), (new_yhat, new_images))]
    difference = scores[1].by_tile - scores[0].by_tile
    # The tile to be shown has an average number of informative pixels.
    counts = where.flatten(1).sum(1)
    shown = int((counts - counts.float().mean()).abs().argmin())
    batch = simulate_tiles(
        conditions.conditions(),
        (min(16, tiles - shown // 16 * 16), TILE_PX, TILE_PX),
        torch_generator(seed, "held out", shown // 16 * 16),
        before.card.kernel_sigma_fine_px,
    )
    pictures = (
        batch.electrons[shown % 16],
        truth[shown],
        yhat[shown],
        new_yhat[shown],
        images[:, shown].std(0),
        new_images[:, shown].std(0),
    )
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    return Comparison(scores[0], scores[1], error, *(p.double().numpy() for p in pictures))


def _look(
    networks: Networks, conditions: ConditionsRecipe, seed: int, tiles: int, draws: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Give phi's estimates, draws (draws, tiles, ...) and the truth."""
    held_out = held_out_tiles(networks, conditions.conditions(), tiles, TILE_PX, seed)
    sampling = shipped_sampling(networks)
    images = draw_held_out(networks, held_out.seen, sampling, draws, seed)
    return unfold(held_out.seen.estimate)[:, 0], images, held_out.truth


def _scores(yhat: Tensor, draws: Tensor, truth: Tensor, where: Tensor) -> Scores:
    crps = fair_crps(draws, truth)
    number = where.flatten(1).sum(1)
    some = number > 0
    if int(some.sum()) < 2:
        raise InputError(
            "The held-out tiles are almost empty, so that weights cannot be compared. Is the "
            "movie as sparse as `sureloc inspect` says?"
        )
    by_tile = ((crps * where).flatten(1).sum(1)[some] / number[some]).double().numpy()
    spread = spread_of(draws[:, where], truth[where])
    return Scores(
        float(crps[where].double().mean()),
        float(by_tile.std(ddof=1)) / math.sqrt(len(by_tile)),
        spread_skill(spread),
        float((yhat - truth)[where].double().square().mean().sqrt()),
        by_tile,
    )
