"""The studies `figures` and `mismatch`: the paper's Figures 1 to 3, and where schedules end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn

from sureloc.config.recipes import load_recipe
from sureloc.diffusion.ideal import variance_kept
from sureloc.diffusion.samplers import ancestral, dpm_solver_2m
from sureloc.diffusion.schedules import (
    Levels,
    cosine,
    kept_by_start_at_estimate,
    kept_by_start_at_noise,
    last_beta_for,
    linear_beta,
    log_snr_of_gamma,
    terminal_kl_bits,
)
from sureloc.networks.normalization import CHANNELS
from sureloc.networks.posterior import posterior_images, see_tiles, shipped_sampling
from sureloc.networks.psi import SplitPsi
from sureloc.networks.weights import Networks, load_weights
from sureloc.physics.image import render_frames
from sureloc.physics.kde import peak_of_one, render_kde
from sureloc.physics.psf import GaussianPSF
from sureloc.report.draws import TilePictures, draw_tiles
from sureloc.report.generative_chain import draw_generative_chain
from sureloc.report.reproduction import Condition, Picture, Row, Study
from sureloc.simulate.generative_chain import generative_chain

# --- Draws at several signal-to-noise ratios (Figure 3) -------------------------------------------

SIDE_PX, SIGMA_PX = 20, 1.3
BACKGROUND_E, READ_VARIANCE_E2 = 20.0, 4.0
PHOTONS = (100.0, 250.0, 600.0, 1500.0, 5000.0)
EMITTERS_PX = (
    *((4.2, 4.6), (13.1, 3.4), (14.3, 3.4), (9.6, 9.8), (11.9, 11.2)),
    *((3.7, 14.9), (15.8, 15.1), (5.6, 13.2)),
)
DRAWS = 16


def signal_to_noise(photons: float) -> float:
    """Give photons over their noise under one PSF, shot noise of the emitter included."""
    under_psf = 4 * math.pi * SIGMA_PX**2 * (BACKGROUND_E + READ_VARIANCE_E2)
    return photons / math.sqrt(photons + under_psf)


def tile_pictures(networks: Networks, photons: float, seed: int) -> TilePictures:
    """Expose the tile of Figure 3 and draw its images, in units of one emitter's peak."""
    x, y = torch.tensor(EMITTERS_PX).T.contiguous()
    tile = torch.zeros(len(x), dtype=torch.long)
    shape = (1, SIDE_PX, SIDE_PX)
    light = render_frames(
        x, y, torch.full_like(x, photons), tile, GaussianPSF.round(SIGMA_PX), shape
    )
    generator = torch.Generator().manual_seed(seed)
    electrons = torch.poisson(light + BACKGROUND_E, generator=generator)
    electrons += READ_VARIANCE_E2**0.5 * torch.randn(shape, generator=generator)
    variance = torch.full((SIDE_PX, SIDE_PX), READ_VARIANCE_E2)
    images = posterior_images(networks, electrons, variance, SIGMA_PX, 1.0, DRAWS, seed, [0])
    kernel = networks.card.kernel_sigma_fine_px
    unit = peak_of_one(kernel)
    truth = render_kde(x, y, torch.ones_like(x), tile, shape, kernel)
    return TilePictures(
        f"{photons:.0f} e-\nS/N {signal_to_noise(photons):.1f}",
        electrons[0].numpy(),
        (truth[0] / unit).numpy(),
        (images.yhat[0] / unit).numpy(),
        (images.draws[0] / unit).numpy(),
    )


def _figure_conditions(quick: bool) -> list[Condition]:
    some = PHOTONS[::4] if quick else PHOTONS
    return [Condition(f"tile_{n:g}", "", (), 1, BACKGROUND_E, {"photons": n}) for n in some]


def _measure_tile(condition: Condition, networks: Networks, seed: int) -> list[Row]:
    photons = float(condition.labels["photons"])
    tile = tile_pictures(_slow(networks), photons, seed)
    draws = np.asarray(tile.draws, float)
    unit = peak_of_one(networks.card.kernel_sigma_fine_px)
    mass = unit * draws.sum(axis=(1, 2))
    error = draws.mean(axis=0) - tile.truth
    return [
        {
            "signal_to_noise": signal_to_noise(photons),
            "molecules": len(EMITTERS_PX),
            "mean_mass_of_draws": float(mass.mean()),
            "sd_of_mass": float(mass.std(ddof=1)),
            "rms_sd_of_pixels": float(np.sqrt(draws.var(axis=0, ddof=1).mean())),
            "rms_error_of_mean": float(np.sqrt((error**2).mean())),
        }
    ]


def _slow(networks: Networks) -> Networks:
    """Give the weights that draw by diffusion, which the paper's figure is about."""
    return load_weights("default") if networks.card.name == "fast" else networks


def draw_figure_3(networks: Networks, seed: int, path: Path) -> None:
    """Draw the same tile exposed five times."""
    slow = _slow(networks)
    draw_tiles([tile_pictures(slow, photons, seed) for photons in PHOTONS], path)


# --- The generative chain and the model (Figures 1 and 2) -----------------------------------------


def draw_figure_1(_: Networks, seed: int, path: Path) -> None:
    """Draw one frame of the recipe `paper` on its way through the generative chain."""
    draw_generative_chain(generative_chain(load_recipe("paper"), seed, 1), path)


def traced(networks: Networks) -> list[tuple[str, str, tuple[int, ...], int]]:
    """Run a tile of 20 x 20 px and say what each stage of the model gives.

    Of a Psi of two networks the one is run that draws begin with.

    Returns:
        Network, stage, shape of its output without the batch, and its number of parameters, in the
        order in which they run.
    """
    seen: list[tuple[str, str, tuple[int, ...], int]] = []
    hooks = []
    channels = torch.zeros(1, CHANNELS, SIDE_PX, SIDE_PX)
    level = log_snr_of_gamma(shipped_sampling(networks).levels[:1]).float()
    tile = see_tiles(networks, channels, "float32")
    psi, condition = networks.psi.at(float(level), tile.condition)
    for network, module in (("phi", networks.phi), ("Psi", psi)):
        for name, stage in module.named_children():
            stages = stage.named_children() if isinstance(stage, nn.ModuleList) else [("", stage)]
            for number, part in stages:
                label = f"{name} {number}".strip()

                def saw(
                    of: nn.Module,
                    _: object,
                    output: Tensor,
                    network: str = network,
                    label: str = label,
                ) -> None:
                    count = sum(p.numel() for p in of.parameters())
                    seen.append((network, label, tuple(output.shape[1:]), count))

                hooks.append(part.register_forward_hook(saw))
    try:
        see_tiles(networks, channels, "float32")
        with torch.inference_mode():
            psi(torch.zeros_like(tile.estimate), level, condition)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def draw_figure_2(networks: Networks, _: int, path: Path) -> None:
    """Draw the model as its own code runs: stages, shapes of what they give, parameters."""
    slow = _slow(networks)
    stages = traced(slow)
    longest = max(sum(of == network for of, *_ in stages) for network in ("phi", "Psi"))
    figure = Figure(figsize=(4.8 + 1.45 * longest, 5.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    step = 1.55
    place: dict[tuple[str, str], float] = {}
    for network, y in (("phi", 1.0), ("Psi", 0.0)):
        for k, (_of, name, shape, count) in enumerate(s for s in stages if s[0] == network):
            place[network, name] = x = 1.9 + step * k
            _box(axes, x, y, name, shape, count, network)
    ends = {
        network: max(x for (of, _), x in place.items() if of == network)
        for network in ("phi", "Psi")
    }
    for network, y in (("phi", 1.0), ("Psi", 0.0)):
        # What stands before Psi's stem does not feed it.
        first = place["phi", "stem"] if network == "phi" else place["Psi", "stem"]
        for x in np.arange(first + step, ends[network] + 0.1, step):
            _arrow(axes, (x - step + 0.65, y), (x - 0.65, y))
        _arrow(axes, (ends[network] + 0.65, y), (ends[network] + 0.8, y))
    middle: dict[str, Any] = {"ha": "center", "va": "center"}
    axes.text(0.35, 1.0, f"frame x\n{CHANNELS} x {SIDE_PX} x {SIDE_PX}", **middle)
    _arrow(axes, (0.95, 1.0), (1.25, 1.0))
    fine = 4 * SIDE_PX
    axes.text(ends["phi"] + 1.4, 1.0, f"estimate yhat\n{fine} x {fine}", **middle)
    axes.text(0.55, 0.5, "features of x and yhat:\nonce a tile", fontsize=9, **middle)
    _arrow(axes, (place["phi", "blocks"] - 0.3, 0.68), (place["Psi", "conditioner"] + 0.1, 0.32))
    for name, said in (("embedding", "noise level"), ("stem", "noisy residual")):
        axes.text(place["Psi", name] + (0.4 if name == "embedding" else 0.0), 0.5, said, **middle)
        _arrow(axes, (place["Psi", name], 0.43), (place["Psi", name], 0.31))
    for (network, name), x in place.items():
        if network == "Psi" and name.startswith(("blocks", "overview")):
            for source in ("conditioner", "embedding"):
                _arrow(axes, (place["Psi", source], -0.31), (x, -0.31), "arc3,rad=0.18")
    folded = f"residual y - yhat,\n16 x {SIDE_PX} x {SIDE_PX} folded\n"
    axes.text(
        ends["Psi"] + 1.75, 0.0, f"{folded}({slow.card.draws.evaluations} times a draw)", **middle
    )
    if isinstance(slow.psi, SplitPsi):
        axes.text(
            place["Psi", "conditioner"] - 0.6,
            -1.0,
            f"This one runs where noise is strong, sigma of {slow.psi.sigma:g} and more; "
            "another one runs below",
            fontsize=9,
            ha="left",
        )
    total = sum(p.numel() for m in (slow.phi, slow.psi) for p in m.parameters())
    axes.set_title(
        f"The model as its code runs on a tile of {SIDE_PX} x {SIDE_PX} px: "
        f"{total / 1e6:.2f} million parameters",
        fontsize=11,
    )
    axes.set_xlim(-0.4, max(ends.values()) + 2.7)
    axes.set_ylim(-1.1, 1.45)
    figure.savefig(path, metadata={"Software": None})


def _box(
    axes: Axes, x: float, y: float, name: str, shape: tuple[int, ...], count: int, network: str
) -> None:
    colour = {"phi": "#dbe9f4", "Psi": "#fbe6d2"}[network]
    axes.add_patch(
        FancyBboxPatch(
            (x - 0.6, y - 0.27),
            1.2,
            0.54,
            boxstyle="round,pad=0.03",
            facecolor=colour,
            edgecolor="#5f6368",
            linewidth=0.8,
        )
    )
    size = " x ".join(str(n) for n in shape)
    axes.text(x, y, f"{network}\n{name}\n{size}\n{count:,}", ha="center", va="center", fontsize=8)


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], bend: str = "arc3"
) -> None:
    style = {"arrowstyle": "->", "color": "#5f6368", "connectionstyle": bend}
    axes.annotate("", end, start, arrowprops=style)


FIGURES = Study(
    "figures",
    "The paper's Figures 1 to 3, remade",
    "The generative chain, the model, and draws at five signal-to-noise ratios. The table says of "
    "each exposure of Figure 3 how many molecules 16 draws hold on average (`mean_mass_of_draws`, "
    "the truth being 8) and how much that varies, and sets the spread of the draws' pixels beside "
    "the error of their mean, in units of one molecule's peak.",
    _figure_conditions,
    _measure_tile,
    None,
    pictures=(
        Picture(
            "figure_1",
            "Figure 1: one frame on its way through the generative chain (recipe `paper`).",
            draw_figure_1,
        ),
        Picture(
            "figure_2",
            "Figure 2: phi and Psi, drawn from what the shipped networks (`default`) give as they "
            "run: in each box the stage, the shape of its output and its number of parameters.",
            draw_figure_2,
        ),
        Picture(
            "figure_3",
            "Figure 3: one scene of eight molecules, two of them 120 nm apart, exposed with more "
            "and more light: frame, truth, phi's estimate, four draws of the weights `default`, "
            "their mean and standard deviation.",
            draw_figure_3,
        ),
    ),
    headline=lambda t: (
        f"draws hold {t['mean_mass_of_draws'].iloc[-1]:.2f} +- {t['sd_of_mass'].iloc[-1]:.2f} of 8 "
        f"molecules at S/N {t['signal_to_noise'].iloc[-1]:.0f}"
    ),
)

# --- Where schedules end --------------------------------------------------------------------------

MODES = (0.1, 1.0, 3.6)


def schedules(networks: Networks) -> dict[str, Levels]:
    """Give the noise schedules that are compared."""
    card = _slow(networks).card
    return {
        "as printed": linear_beta(100, 1e-4, 1e-2),
        "the authors' code": linear_beta(100, 1e-6, 1e-2),
        "1000 steps to 2e-2": linear_beta(1000, 1e-4, 2e-2),
        "100 steps that keep the promise": linear_beta(100, 1e-4, last_beta_for(1e-5)),
        "cosine, 100 steps": cosine(100),
        "shipped": card.levels.levels(card.draws.evaluations),
    }


def _mismatch_conditions(quick: bool) -> list[Condition]:
    names = (
        ("as printed", "shipped")
        if quick
        else (
            "as printed",
            "the authors' code",
            "1000 steps to 2e-2",
            "100 steps that keep the promise",
            "cosine, 100 steps",
            "shipped",
        )
    )
    return [
        Condition(f"schedule_{k}", "", (), 1, 0.0, {"schedule": name})
        for k, name in enumerate(names)
    ]


def _measure_mismatch(condition: Condition, networks: Networks, seed: int) -> list[Row]:
    levels = schedules(networks)[condition.labels["schedule"]]
    gamma = float(levels[0])
    modes = torch.tensor(MODES, dtype=torch.float64)
    sampled = {}
    for name, sampler in (("flow", dpm_solver_2m), ("ancestral", ancestral)):
        generator = torch.Generator().manual_seed(seed)
        sampled[name] = variance_kept(sampler, levels, modes, generator, 4000)
    return [
        {
            "evaluations": len(levels),
            "gamma_T": gamma,
            "kl_bits": terminal_kl_bits(gamma),
            "lambda": mode,
            "kept_flow": kept_by_start_at_noise(gamma, mode, False),
            "kept_ancestral": kept_by_start_at_noise(gamma, mode, True),
            "kept_from_yhat": kept_by_start_at_estimate(gamma, mode, False),
            "sampled_flow": float(sampled["flow"][k]),
            "sampled_ancestral": float(sampled["ancestral"][k]),
        }
        for k, mode in enumerate(MODES)
    ]


def draw_mismatch(table: pd.DataFrame, path: Path) -> None:
    """Draw where schedules end, and the share of their variance that modes keep."""
    figure = Figure(figsize=(11.5, 4.0), dpi=110, layout="constrained")
    ends, kept = figure.subplots(1, 2)
    names = list(dict.fromkeys(table["schedule"]))
    first = table.drop_duplicates("schedule")
    y = np.arange(len(names))[::-1]
    ends.barh(y, first["kl_bits"], color="#1f6f9f")
    ends.set_xscale("log")
    ends.axvline(1e-5, color="#b3261e", linestyle="--", linewidth=1, label="promised: 1e-5")
    ends.set_yticks(y, names)
    ends.set_xlabel("distance of the start from noise, bits a dimension")
    ends.legend(fontsize=8, frameon=False)
    eigenvalue = np.geomspace(0.03, 30, 200)
    for name, colour in zip(
        names, ("#b3261e", "#d9730d", "#9aa0a6", "#7b4ea3", "#1b6e3c", "#1f6f9f"), strict=False
    ):
        mine = table[table["schedule"] == name]
        gamma = float(mine["gamma_T"].iloc[0])
        kept.plot(
            eigenvalue,
            [kept_by_start_at_noise(gamma, v, False) for v in eigenvalue],
            color=colour,
            label=name,
        )
        kept.plot(mine["lambda"], mine["sampled_flow"], "o", color=colour, markersize=4)
    kept.axhline(1.0, color="#202124", linewidth=0.8)
    kept.set_xscale("log")
    kept.set_ylim(0, 2.8)
    kept.set_xlabel("variance of a mode of the posterior, lambda")
    kept.set_ylabel("share of it that draws have")
    kept.legend(fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Software": None})


MISMATCH = Study(
    "mismatch",
    "What the printed schedule does to draws",
    "A draw begins in pure noise, as if the schedule's noisiest level gamma_T were 0. Where it is "
    "not, the start has the wrong variance, and nothing that follows mends it "
    "([schedules](../schedules.md) says why). `kl_bits`: how far the noisiest image is from noise, "
    "in bits a dimension, for images of mean square 1; the paper promises 1e-5. For Gaussian "
    "images with modes of variance `lambda`, `kept_...` is the share of that variance which draws "
    "have in the end, 1 being right, by the closed form: along the flow, by the ancestral process, "
    "and along the flow from a start round phi's estimate; `sampled_...` is what the samplers of "
    "sureloc (DPM-Solver++(2M) and ancestral) give with the ideal network in the schedule's own "
    "steps, errors of finite steps included (dots of the picture). Modes below the variance of the "
    "last level's noise (0.09 as shipped) come out narrow in few steps; they are small.",
    _mismatch_conditions,
    _measure_mismatch,
    draw_mismatch,
    headline=lambda t: (
        f"as printed the schedule ends {t['kl_bits'].iloc[0]:.2f} bits a dimension from noise, "
        f"shipped {t['kl_bits'].iloc[-1]:.1g}"
    ),
)
