"""`sureloc adapt`: fine-tune weights to a movie that they were not trained for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sureloc.cli import completion, inputs
from sureloc.cli.inputs import (
    SigmaOption,
    TrustCameraOption,
    check_inputs,
    check_readable,
    check_trust,
    limited,
)
from sureloc.cli.stopping import stopping
from sureloc.cli.train import DeviceOption
from sureloc.limits import number_or_auto

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from sureloc.calibrate.adaptation import Comparison, Plan
    from sureloc.calibrate.inspection import Inspection
    from sureloc.networks.weights import Networks
    from sureloc.train.engine import Training

WORSE = 3  # exit code of an adaptation that finished, but is no better than what it began with
WEIGHTS, PICTURE, SCORES = "adapted.safetensors", "before_after.png", "before_after.json"
TRAINING, INSPECTION, START = "training", "inspection.json", "start.json"


def adapt(
    movie: Annotated[
        Path, typer.Argument(help="Movie of any format that 'sureloc localize' reads.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the weights; training leaves its checkpoints there.")
    ],
    minutes: Annotated[
        float,
        typer.Option(help="Minutes for training both networks.", callback=limited("minutes")),
    ] = 20.0,
    camera: Annotated[
        Path | None,
        typer.Option(
            help="Camera file (YAML, .npz, Picasso .hdf5); estimated from the movie without it."
        ),
    ] = None,
    trust_camera: TrustCameraOption = False,
    sigma_px: SigmaOption = "auto",
    weights: Annotated[
        str,
        typer.Option(
            help="Weights to start from: name, .safetensors file or folder.",
            autocompletion=completion.weights,
            callback=inputs.weights,
        ),
    ] = "fast",
    force: Annotated[
        bool, typer.Option("--force", help="Train although the weights cover the movie.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was broken off.")
    ] = False,
    device: DeviceOption = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of training and of held-out tiles.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Fine-tune weights on simulations that are like a movie, if they do not cover it.

    Looks at the movie as `sureloc inspect` does, trains phi and Psi on, and compares before and
    after on held-out simulations. Better weights are saved for `sureloc localize --weights OUT`;
    weights that got worse are not, and the exit code is 3. Needs the extra: pip install
    'sureloc[train]'.
    """
    from sureloc.cli.inspect import inspect_file, show
    from sureloc.errors import InputError, OutputError, SurelocError
    from sureloc.io.output import check_new_folder
    from sureloc.train import extra

    extra.check_installed()
    if resume:
        weights = _started(out)
    else:
        check_new_folder(out)
        check_inputs(movie, camera)
        check_trust(camera, trust_camera=trust_camera)
        check_readable(movie, camera)
    from sureloc.calibrate.inspection import NEEDED
    from sureloc.networks.weights import load_weights

    networks = load_weights(weights)
    try:
        with stopping(out, "go on by the same command with --resume"):
            if not resume:
                found = inspect_file(
                    movie,
                    camera,
                    None,
                    None,
                    networks,
                    seed,
                    sigma_px=number_or_auto("sigma_px", sigma_px),
                    trust_camera=trust_camera,
                )
                show(found, movie.name, as_json=False)
                for key in NEEDED:
                    found.value(key)
                if found.covered and not force:
                    typer.echo("Nothing to do; --force trains all the same.")
                    return
                _begin(found, movie, out, minutes, networks, weights, seed, device)
            plan = _plan(out / TRAINING)
            comparison = _train_and_compare(networks, plan, out, minutes, device, seed, quiet)
    except OSError as error:
        if isinstance(error, SurelocError):
            raise
        raise OutputError(
            f"The training could not write to {out}: {error.strerror or error}. Free some space "
            "and continue with --resume."
        ) from error
    except RuntimeError as error:
        if "device" not in str(error).lower():
            raise
        raise InputError(f"The device {device!r} cannot be used: {error}.") from error
    _show(comparison)
    if comparison.worse:
        typer.echo(
            f"Not saved: {'; '.join(comparison.worse)}. Use the weights {networks.card.name} as "
            "they are, or train longer (--minutes)."
        )
        raise typer.Exit(WORSE)
    typer.echo(f"{out}: use it with `sureloc localize {movie} --weights {out}`")


def _started(out: Path) -> str:
    """Give the weights that a broken-off training began with."""
    from sureloc.errors import InputError

    try:
        start = json.loads((out / START).read_text(encoding="utf-8"))
        return str(start["weights"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"There is no training in {out} to go on with. Start without --resume."
        ) from error


def _begin(
    found: Inspection,
    movie: Path,
    out: Path,
    minutes: float,
    networks: Networks,
    weights: str,
    seed: int,
    device: str,
) -> None:
    """Write down what is to be trained for a movie."""
    from functools import partial

    from sureloc.calibrate.adaptation import conditions_like, plan_adaptation
    from sureloc.config.training import training_recipe_yaml
    from sureloc.io.weights import RECIPE
    from sureloc.report.inspection import as_record

    plan = plan_adaptation(networks, partial(conditions_like, found), minutes, seed, device)
    for name, recipe in (("phi", plan.phi), ("psi", plan.psi)):
        folder = out / TRAINING / name
        folder.mkdir(parents=True)
        (folder / RECIPE).write_text(training_recipe_yaml(recipe), encoding="utf-8")
    _write(out / INSPECTION, as_record(found))
    # Written last: without it there is nothing to go on with.
    _write(out / START, {"weights": weights, "movie": str(movie), "minutes": minutes})


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _plan(folder: Path) -> Plan:
    from sureloc.calibrate.adaptation import Plan
    from sureloc.config.training import load_training_recipe
    from sureloc.io.weights import RECIPE
    from sureloc.train.recipe import PhiTrainingRecipe, PsiTrainingRecipe

    return Plan(
        load_training_recipe(PhiTrainingRecipe, folder / "phi" / RECIPE),
        load_training_recipe(PsiTrainingRecipe, folder / "psi" / RECIPE),
    )


def _train_and_compare(
    networks: Networks,
    plan: Plan,
    out: Path,
    minutes: float,
    device: str,
    seed: int,
    quiet: bool,
) -> Comparison:
    from sureloc.calibrate import adaptation
    from sureloc.cli.training_bar import TrainingBar
    from sureloc.io.weights import write_weights
    from sureloc.report.adaptation import as_record, draw_comparison

    with ExitStack() as stack:

        def bar(name: str, training: Training) -> Sequence[pl.Callback]:
            one = TrainingBar(name, training.recipe.optimizer.steps, quiet=quiet)
            stack.enter_context(one.progress)
            stack.callback(one.progress.stop)
            return [one]

        adapted, logs = adaptation.adapt(
            networks,
            plan,
            out / TRAINING,
            out.resolve().name,
            minutes=minutes,
            device=device,
            callbacks=bar,
        )
    comparison = adaptation.compare_weights(networks, adapted, plan.psi.conditions, seed)
    draw_comparison(comparison, out / PICTURE)
    _write(out / SCORES, as_record(comparison))
    if not comparison.worse:
        write_weights(adapted, logs, out / WEIGHTS)
    return comparison


def _show(comparison: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    from sureloc.report.adaptation import COLUMNS, table_rows

    table = Table()
    for column in COLUMNS:
        table.add_column(column)
    for row in table_rows(comparison):
        table.add_row(*row)
    Console().print(table)
