"""The study `links`: what each link of the chain is worth."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sureloc.evaluate.links import LOCALIZE, ways, worth_of_links
from sureloc.localize.frames import Effort
from sureloc.networks.weights import Networks, load_weights
from sureloc.report.reproduction import Condition, Row, Study

USUAL = Effort.chains
_OTHERS = "draws + moves", "phi + moves"
_FRAMES = {0.18: 30, 0.71: 12, 1.78: 6, 3.56: 3}
_LIKE_SHIPPED = {
    LOCALIZE: ("#1f6f9f", "o"),
    "draws + moves": ("#c2185b", "v"),
    "phi + moves": ("#d9730d", "s"),
    "draws + refinement, mixture": ("#7b4ea3", "D"),
    "draws + refinement, best": ("#b59bd0", "d"),
    "phi + refinement": ("#e8b98a", "P"),
    "draws alone": ("#9ec3da", "x"),
    "phi's peaks": ("#9aa0a6", "+"),
}


def _conditions(quick: bool) -> list[Condition]:
    out = []
    for density, frames in {1.78: 1}.items() if quick else _FRAMES.items():
        settings = [f"scene.density_per_um2={density:g}"]
        if quick:
            settings += ["frame.height=16", "frame.width=16"]
        out.append(
            Condition(
                f"peers_{density:g}", "peers", tuple(settings), frames, 0.0, {"density": density}
            )
        )
    return out


def _measure(condition: Condition, networks: Networks, seed: int) -> list[Row]:
    simulated = condition.simulate(seed)
    quick = condition.frames == 1
    slower = None if quick else load_weights("default")
    tried = ways((1, 2) if quick else (1, 2, 4, 16))
    found = worth_of_links(simulated, networks, slower, tried, condition.background_e, seed)
    return [dict(row) for row in found]


def draw_links(table: pd.DataFrame, path: Path) -> None:
    """Draw what each way finds, how honest its intervals are and what it costs, by density."""
    usual = USUAL if (table["number"] == USUAL).any() else int(table["number"].max())
    figure = Figure(figsize=(15.5, 4.2), dpi=110, layout="constrained")
    panels = figure.subplots(1, 4)
    densities = sorted(set(table["density"]))
    for way, (colour, marker) in _LIKE_SHIPPED.items():
        rows = table[table["way"] == way]
        number = usual if (rows["number"] == usual).any() else int(rows["number"].max())
        rows = rows[rows["number"] == number].sort_values("density")
        for axes, column in zip(
            panels,
            ("jaccard", "rmse_over_isolated", "held_95", "cpu_s_a_frame"),
            strict=True,
        ):
            axes.plot(
                rows["density"],
                rows[column],
                color=colour,
                marker=marker,
                markersize=5,
                linewidth=1.3,
                label=f"{way} ({number})",
            )
    panels[2].axhline(0.95, color="#202124", linewidth=0.8)
    panels[3].set_yscale("log")
    for axes, title in zip(
        panels,
        (
            "found: Jaccard index",
            "error / bound of each alone",
            "95 % interval holds",
            "seconds of one core a frame",
        ),
        strict=True,
    ):
        axes.set_title(title, fontsize=10)
        axes.set_xscale("log")
        axes.set_xticks(densities, [f"{d:g}" for d in densities])
        axes.minorticks_off()
        axes.set_xlabel("molecules / um$^2$")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8)
    figure.savefig(path, metadata={"Software": None})


def at(table: pd.DataFrame, density: float, way: str, number: int, column: str) -> float:
    """Give one number of the table; NaN where it is not measured."""
    mine = (table["density"] == density) & (table["way"] == way) & (table["number"] == number)
    return float(table.loc[mine, column].iloc[0]) if mine.any() else float("nan")


def _headline(table: pd.DataFrame) -> str:
    density = float(table["density"].max())
    usual = USUAL if (table["number"] == USUAL).any() else int(table["number"].max())
    shown = [
        f"{way} {at(table, density, way, usual, 'jaccard'):.3f}" for way in (LOCALIZE, *_OTHERS)
    ]
    return f"Jaccard index at {density:g} molecules / um^2: " + ", ".join(shown)


def _findings(table: pd.DataFrame) -> str:
    """Say what the diffusion network adds at each density, from the numbers."""
    usual = USUAL if (table["number"] == USUAL).any() else int(table["number"].max())
    lines = ["## What the diffusion network is worth", ""]
    for density in sorted(set(table["density"])):
        found = {
            way: {
                column: at(table, density, way, usual, column)
                for column in ("jaccard", "jaccard_error", "held_95", "cpu_s_a_frame")
            }
            for way in (LOCALIZE, *_OTHERS)
        }
        mine = found[LOCALIZE]
        parts = []
        for other in _OTHERS:
            gain = mine["jaccard"] - found[other]["jaccard"]
            error = (mine["jaccard_error"] ** 2 + found[other]["jaccard_error"] ** 2) ** 0.5
            said = "no difference that so few emitters show"
            if abs(gain) > 2 * error:
                said = "better" if gain > 0 else "worse"
            parts.append(
                f"against `{other}` {gain:+.3f} in Jaccard index (standard error at most "
                f"{error:.3f}: {said}) for "
                f"{mine['cpu_s_a_frame'] / found[other]['cpu_s_a_frame']:.2f} times the time"
            )
        lines.append(f"- {density:g} molecules / um^2: {'; '.join(parts)}.")
    lines += [
        "",
        "All ways see the same frames, so that differences scatter less than these errors, which "
        "are those of separate movies.",
    ]
    return "\n".join(lines)


LINKS = Study(
    "links",
    "What each link of the chain is worth",
    "The same frames (recipe `peers`: 64 x 64 px, 500-1000 photons, no background) localized with "
    "links of the chain left out or exchanged. All ways are told the same PSF width and the same "
    "priors, learned from the movie. `phi's peaks` and `draws alone` are read off images; "
    "`refinement` moves all emitters of a guess jointly to the maximum of the posterior, with "
    "Gaussian intervals; `moves` are chains of births, deaths, splits and merges begun at the "
    "guesses, in `draws + moves` all but the first, which begins at detected spots. "
    f"`{LOCALIZE}` is what `sureloc localize` does with molecules as bright as these, with two "
    "chains: all begin at spots. Networks are asked only where molecules are so faint that many "
    "are no spots, which no movie here is. `number` is that of draws or chains. "
    "`best` keeps the likeliest guess in each crowd, `mixture` weighs all by their evidence. "
    "`diffusion draws` come "
    "from the weights `default` (4 evaluations of the diffusion network) instead of `fast` (one "
    "evaluation). `broad priors` are those that detected spots suggest, before learning. Errors "
    "are per axis over the Cramér-Rao bound of each molecule alone; seconds are those of one core, "
    "measured beside other work.",
    _conditions,
    _measure,
    draw_links,
    headline=_headline,
    findings=_findings,
)
