"""`sureloc train`: phi, Psi on a trained phi, both as one file of weights, and how to draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sureloc.cli import completion, inputs
from sureloc.cli.console import of_bar
from sureloc.cli.flags import Command, Group
from sureloc.cli.inputs import check_new_weights, choice, limited
from sureloc.cli.stopping import stopping
from sureloc.io.output import check_new_folder, new_folder
from sureloc.networks.weight_files import check_feature_network

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from sureloc.train.engine import Training
    from sureloc.train.recipe import TrainingRecipe

train = typer.Typer(
    cls=Group,
    help="Train phi and Psi, and make weights of them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


PhiRecipeArgument = Annotated[
    str,
    typer.Argument(
        help="Name of a shipped recipe (default, smoke, paper, rivals) or path of a YAML file.",
        **inputs.training_recipe("phi"),
    ),
]
PsiRecipeArgument = Annotated[
    str,
    typer.Argument(
        help="Name of a shipped recipe (default, smoke, paper, rivals, one_step) or path of a YAML "
        "file.",
        **inputs.training_recipe("psi"),
    ),
]
OutOption = Annotated[
    Path, typer.Option(help="Folder for weights, checkpoint, logs and pictures.", file_okay=False)
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with the training in the folder, from its last checkpoint."
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(help="What to train on; auto prefers a GPU.", **choice("auto", "cpu", "gpu")),
]
DevicesOption = Annotated[
    int,
    typer.Option(
        help="How many devices share each step's tiles; the batch stays as it is.",
        callback=limited("devices"),
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


@train.command("phi", cls=Command)
def train_phi(
    recipe: PhiRecipeArgument,
    out: OutOption,
    resume: ResumeOption = False,
    device: DeviceOption = "auto",
    devices: DevicesOption = 1,
    quiet: QuietOption = False,
) -> None:
    """Train phi, the network that estimates the mean image, on simulated tiles.

    Writes best.safetensors and last.safetensors (averaged weights), last.ckpt for --resume,
    log.csv, TensorBoard logs, pictures of estimates beside truth, and recipe.yaml. Needs the
    extra: pip install 'sureloc[train]'.
    """
    from sureloc.train import extra

    extra.check_installed()
    from sureloc.config.training import load_training_recipe
    from sureloc.report.training_pictures import PhiPictures
    from sureloc.train.phi import PhiTraining
    from sureloc.train.recipe import PhiTrainingRecipe

    plan = load_training_recipe(PhiTrainingRecipe, recipe)
    with _training_folder(out, plan, resume) as goes_on:
        pictures = PhiPictures(out / "pictures")
        _fit("phi", PhiTraining(plan), out, goes_on, device, devices, quiet, [pictures])


@train.command("psi", cls=Command)
def train_psi(
    recipe: PsiRecipeArgument,
    phi: Annotated[
        str,
        typer.Option(
            help="Trained phi: a folder of `sureloc train phi`, the name of shipped weights, such "
            "as default, or the path of a .safetensors file.",
            autocompletion=completion.weights,
            callback=inputs.phi,
        ),
    ],
    out: OutOption,
    resume: ResumeOption = False,
    device: DeviceOption = "auto",
    devices: DevicesOption = 1,
    quiet: QuietOption = False,
) -> None:
    """Train Psi, the network that draws possible images, on what a trained phi leaves.

    Writes the same files as `sureloc train phi`; its pictures show draws beside truth. Needs
    the extra: pip install 'sureloc[train]'.
    """
    from sureloc.train import extra

    extra.check_installed()
    from sureloc.config.training import load_training_recipe
    from sureloc.io.weights import read_phi
    from sureloc.report.training_pictures import PsiPictures
    from sureloc.train.export import make_card
    from sureloc.train.psi import PsiTraining
    from sureloc.train.recipe import PsiTrainingRecipe

    plan = load_training_recipe(PsiTrainingRecipe, recipe)
    trained = read_phi(phi)
    card = make_card(trained.recipe, plan, "training")
    with _training_folder(out, plan, resume) as goes_on:
        pictures = PsiPictures(out / "pictures", card)
        training = PsiTraining(plan, trained.network)
        _fit("psi", training, out, goes_on, device, devices, quiet, [pictures])


@train.command("export", cls=Command)
def export(
    phi: Annotated[
        str,
        typer.Argument(
            help="The trained phi: its folder, or weights by name or path.",
            autocompletion=completion.weights,
            callback=inputs.phi,
        ),
    ],
    psi: Annotated[Path, typer.Argument(help="Folder of the Psi that was trained on it.")],
    out: Annotated[Path, typer.Option(help="New .safetensors file; its card goes beside it.")],
    description: Annotated[str, typer.Option(help="What people should know of the weights.")] = "",
) -> None:
    """Make one file of weights of a trained phi and Psi, for `sureloc localize`.

    Writes OUT.safetensors, its card OUT.json with both recipes, and both logs as CSV.
    """
    check_new_weights(out)
    from sureloc.config.training import load_training_recipe
    from sureloc.io.weights import RECIPE, read_phi, write_weights
    from sureloc.train.export import assemble
    from sureloc.train.recipe import PsiTrainingRecipe

    networks, logs = assemble(
        read_phi(phi),
        (load_training_recipe(PsiTrainingRecipe, psi / RECIPE), psi),
        out.stem,
        description,
    )
    files = write_weights(networks, logs, out)
    size_mb = sum(file.stat().st_size for file in files) / 1e6
    typer.echo(f"{out}: {size_mb:.1f} MB in {len(files)} files")


@train.command("search", cls=Command)
def search(
    weights: Annotated[
        str,
        typer.Argument(
            help="Name of shipped weights, such as default, or path of a .safetensors file.",
            autocompletion=completion.weights,
            callback=inputs.weights,
        ),
    ],
    out: Annotated[Path, typer.Option(help="New folder for the table and the picture.")],
    tiles: Annotated[int, typer.Option(min=2, help="Held-out tiles.")] = 64,
    tile_px: Annotated[int, typer.Option(min=8, max=256, help="Side of a tile, camera px.")] = 12,
    draws: Annotated[int, typer.Option(min=2, help="Draws of each tile.")] = 4,
    steps: Annotated[
        list[int] | None,
        typer.Option(
            min=2,
            help="Number of steps to try, of 100 evaluations at most; repeatable.",
        ),
    ] = None,
    levels: Annotated[
        list[str] | None,
        typer.Option(
            help="Levels to try beside the others, as a card names them, such as "
            '\'{"kind": "list", "sigmas": [80, 9, 0.3]}\'; repeatable.',
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="ONNX file of a network, such as Inception v3, whose features the distance looks "
            "at instead of phi's.",
            callback=inputs.checked(check_feature_network),
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed tries the same tiles.")] = 0,
    quiet: QuietOption = False,
) -> None:
    """Search the noise levels to draw by, as the paper does by FID, with one trained Psi.

    Writes schedules.csv with phi-FD (or the distance on --features), fair energy score and
    spread-skill of every schedule, and schedules.png. Prints which schedule the distance chooses,
    and which one the energy score chooses among those whose spread matches their errors. The
    option --features needs the extra: pip install 'sureloc[onnx]'.
    """
    check_new_folder(out)
    from rich.progress import track

    from sureloc.io.feature_network import read_feature_network
    from sureloc.io.search import write_search
    from sureloc.networks.weights import load_weights, read_levels
    from sureloc.report.schedule_search import draw_search
    from sureloc.train import search as workflow
    from sureloc.train.export import recipe_in_card
    from sureloc.train.recipe import PsiTrainingRecipe

    looked_at = read_feature_network(features) if features else None
    networks = load_weights(weights)
    schedules = workflow.candidates(
        networks, tuple(steps or workflow.STEPS), [read_levels(text) for text in levels or ()]
    )
    recipe = recipe_in_card(networks.card, "psi", PsiTrainingRecipe)
    held_out = workflow.held_out_tiles(
        networks, recipe.conditions.conditions(), tiles, tile_px, seed
    )
    with new_folder(out) as folder:
        scores = workflow.search(networks, held_out, schedules, draws, seed, looked_at)
        scored = list(track(scores, "searching", len(schedules), **of_bar(quiet=quiet)))
        write_search(scored, folder)
        draw_search(scored, folder / "schedules.png")
    for name, one in (
        (scored[0].distance_name, workflow.chosen_by_distance(scored)),
        ("energy score", workflow.chosen_by_energy(scored)),
    ):
        typer.echo(f"by {name}: {one or 'no schedule is calibrated'}")


@contextmanager
def _training_folder(out: Path, plan: TrainingRecipe, resume: bool) -> Iterator[bool]:
    """Prepare the folder of a training; a broken-off one stays there, to be resumed.

    Yields:
        Whether it goes on from a checkpoint, which there is none of before the first validation.
    """
    from sureloc.config.training import training_recipe_yaml
    from sureloc.errors import OutputError, SurelocError
    from sureloc.io.weights import RECIPE
    from sureloc.train.folder import CHECKPOINT

    begins = not resume and _is_first_process()
    if begins:
        check_new_folder(out)
    goes_on = resume and (out / CHECKPOINT).is_file()
    if resume and not goes_on:
        _check_begun(out, plan)
    next_step = (
        "the same command with --resume goes on from the last validation, or from step 0 if there "
        "was none"
    )
    try:
        with stopping(out, next_step):
            if begins:
                out.mkdir(parents=True, exist_ok=True)
                (out / RECIPE).write_text(training_recipe_yaml(plan), encoding="utf-8")
            yield goes_on
    except OSError as error:
        if isinstance(error, SurelocError):
            raise
        raise OutputError(
            f"The training could not write to {out}: {error.strerror or error}. Free some space "
            "and continue with --resume."
        ) from error


def _check_begun(out: Path, plan: TrainingRecipe) -> None:
    """Raise `InputError` unless a training by this recipe was begun in the folder."""
    from sureloc.config.training import load_training_recipe
    from sureloc.errors import InputError, RecipeError
    from sureloc.io.weights import RECIPE

    if not (out / RECIPE).is_file():
        raise InputError(
            f"There is no training in {out} to go on with. Give the folder of one, or a new folder "
            "without --resume."
        )
    begun, own = load_training_recipe(type(plan), out / RECIPE).fingerprint(), plan.fingerprint()
    if begun != own:
        raise RecipeError(
            f"The training in {out} was begun by another recipe (fingerprint {begun}, this one is "
            f"{own}). Resume with the {RECIPE} in it, or train into another folder."
        )


def _is_first_process() -> bool:
    """Tell whether this is no process that Lightning started for a further device."""
    from lightning.pytorch.utilities import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def _fit(
    name: str,
    training: Training,
    out: Path,
    resume: bool,
    device: str,
    devices: int,
    quiet: bool,
    callbacks: Sequence[pl.Callback],
) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger

    from sureloc.cli.training_bar import TrainingBar, describe
    from sureloc.train.engine import fit
    from sureloc.train.folder import best_row

    first = _is_first_process()
    bar = TrainingBar(name, training.recipe.optimizer.steps, quiet=quiet or not first)
    board = TensorBoardLogger(out, name="tensorboard", version="")
    with bar.progress:
        fit(
            training,
            out,
            resume=resume,
            device=device,
            devices=devices,
            callbacks=[bar, *callbacks],
            logger=board,
        )
    if not first:
        return
    best = best_row(training.history)
    typer.echo(f"{out}: best after {best['step']:.0f} steps, {describe(best)}")
