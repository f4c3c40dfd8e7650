"""`sureloc weights`: which there are, how they came to be, and copies for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sureloc.cli import completion, inputs
from sureloc.cli.flags import Command, Group
from sureloc.cli.inputs import check_new_weights
from sureloc.io.output import check_new_file
from sureloc.networks.weight_files import check_frame_model_name

if TYPE_CHECKING:
    from rich.table import Table

    from sureloc.networks.weights import Card

weights = typer.Typer(
    cls=Group,
    help="List, explain and export weights.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

WeightsArgument = Annotated[
    str,
    typer.Argument(
        help="Name of shipped weights, a .safetensors file, or a folder of `sureloc adapt`.",
        autocompletion=completion.weights,
        callback=inputs.weights,
    ),
]


@weights.command("list", cls=Command)
def list_weights() -> None:
    """List the weights that come with sureloc, one a line."""
    from sureloc.shipped import describe_weights, shipped_weights

    for name in shipped_weights():
        one = describe_weights(name)
        typer.echo(f"{name}  {one.size_bytes / 1e6:.1f} MB  {one.fingerprint}  {one.summary}")


@weights.command("show", cls=Command)
def show(
    weights: WeightsArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole card as JSON.")] = False,
) -> None:
    """Show the card of weights: what they are for, how they were trained, what was measured."""
    from rich.console import Console

    from sureloc.networks.weights import read_card

    card, fingerprint = read_card(weights)
    if as_json:
        typer.echo(card.model_dump_json(indent=2))
    else:
        Console().print(_table(card, fingerprint))


@weights.command("export", cls=Command)
def export(
    weights: WeightsArgument,
    out: Annotated[
        Path, typer.Option(help="New file: .onnx, or .zip for a package of bioimage.io.")
    ],
) -> None:
    """Write weights as a network for other programs, from camera frames to images.

    It takes electrons, read variance, PSF width and noise, and gives the mean image and a draw at
    four times the sampling. Needs the extra: pip install 'sureloc[onnx]'.
    """
    check_frame_model_name(out)
    check_new_file(out)
    from sureloc.io.frame_models import write_frame_model
    from sureloc.networks.weights import load_weights, read_card

    write_frame_model(load_weights(weights), read_card(weights)[1], out)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


@weights.command("recalibrate", cls=Command)
def recalibrate(
    weights: WeightsArgument,
    out: Annotated[Path, typer.Option(help="New .safetensors file; its card and logs join it.")],
    tiles: Annotated[int, typer.Option(help="Simulated tiles to fit on.", min=50)] = 1500,
    seed: Annotated[int, typer.Option(help="Seed of tiles and draws.", min=0)] = 0,
) -> None:
    """Fit a map that moves the pixels of draws so that their ranks become flat.

    On tiles simulated as in training: where phi expects the same, draws get as many pixels in each
    range of values as the truth has. The map is kept with the weights, its effect on the card.
    Needs the extra: pip install 'sureloc[train]'.
    """
    check_new_weights(out)
    from sureloc.train import extra

    extra.check_installed()
    from sureloc.io.weights import read_logs, write_weights
    from sureloc.networks.weights import load_weights
    from sureloc.train.pixel_map import with_pixel_map

    made = with_pixel_map(load_weights(weights), tiles, seed)
    for path in write_weights(made, read_logs(weights), out):
        typer.echo(path)
    found = made.card.metrics["pixel_map"]
    typer.echo(
        f"total variation of ranks from uniform {found['rank_distance_without']:.3f} -> "
        f"{found['rank_distance']:.3f}, CRPS {found['crps_without']:.4f} -> {found['crps']:.4f} "
        "on held-out tiles"
    )


def _table(card: Card, fingerprint: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows = {
        "name": card.name,
        "description": card.description,
        "fingerprint": fingerprint,
        "draws": f"{card.draws.evaluations} evaluations of Psi, sampler {card.draws.sampler}",
        "kernel": f"{card.kernel_sigma_fine_px:g} fine px, standard deviation",
    }
    for part, shown in (("phi", "phi"), ("psi", "Psi")):
        rows |= {
            f"{shown} was trained": _numbers(card.training.get(part, {}), leave=("recipe",)),
            f"{shown} was trained for": _numbers(_conditions(card, part)),
            f"{shown} scored": _numbers(card.metrics.get(part, {})),
        }
    if card.draws.pixel_map:
        rows["pixels are moved"] = _numbers(
            card.training.get("pixel_map", {}) | card.metrics.get("pixel_map", {})
        )
    for name, value in rows.items():
        table.add_row(name, Text(value or "not said"))
    return table


def _conditions(card: Card, part: str) -> dict[str, object]:
    recipe = card.training.get(part, {}).get("recipe", {})
    conditions: dict[str, object] = recipe.get("conditions", {})
    return conditions


def _numbers(values: dict[str, object], leave: tuple[str, ...] = ()) -> str:
    shown = {name: value for name, value in values.items() if name not in leave}
    return ", ".join(f"{name} {_number(value)}" for name, value in shown.items())


def _number(value: object) -> str:
    if isinstance(value, list | tuple):
        return " to ".join(_number(one) for one in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
