"""The study `links`: what each link of the chain is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sureloc.evaluate.links import DRAWS, SPOTS, ways, worth_of_links
from sureloc.localize.frames import Effort
from sureloc.networks.weights import Networks, load_weights
from sureloc.report.reproduction import Condition, Row, Study

USUAL = Effort.chains
_PHI = "phi + moves"
_LIKE_SHIPPED = {
    SPOTS: ("#1f6f9f", "o"),
    DRAWS: ("#c2185b", "v"),
    _PHI: ("#d9730d", "s"),
    "draws + refinement, mixture": ("#7b4ea3", "D"),
    "draws + refinement, best": ("#b59bd0", "d"),
    "phi + refinement": ("#e8b98a", "P"),
    "draws alone": ("#9ec3da", "x"),
    "phi's peaks": ("#9aa0a6", "+"),
}


@dataclass(frozen=True)
class SceneSeries:
    """Movies of the study that are alike but for their density.

    Attributes:
        name: as the table has it.
        told: what they are like.
        settings: of the recipe `peers`.
        background_e: per pixel.
        frames: of the movie of each density, in molecules / um^2.
        numbers: of draws or chains.
        localize: the way that is what `sureloc localize` does here.
    """

    name: str
    told: str
    settings: tuple[str, ...]
    background_e: float
    frames: dict[float, int]
    numbers: tuple[int, ...]
    localize: str

    @property
    def others(self) -> list[str]:
        """Give the ways that it is set beside."""
        return [way for way in (SPOTS, DRAWS, _PHI) if way != self.localize]


_BRIGHT = SceneSeries(
    "bright",
    "500-1000 photons, no background",
    (),
    0.0,
    {0.18: 30, 0.71: 12, 1.78: 6, 3.56: 3},
    (1, 2, 4, 16),
    SPOTS,
)
_FAINT = SceneSeries(
    "faint",
    "60-120 photons, background 5 per px",
    ("photons.low=60", "photons.high=120", "background.photons_per_px=5"),
    5.0,
    {0.71: 48, 1.78: 24, 3.56: 16},
    (USUAL,),
    DRAWS,
)
SCENES = {scene.name: scene for scene in (_BRIGHT, _FAINT)}


def _conditions(quick: bool) -> list[Condition]:
    out = []
    for scene in SCENES.values():
        for density, frames in {1.78: 1}.items() if quick else scene.frames.items():
            settings = [f"scene.density_per_um2={density:g}", *scene.settings]
            if quick:
                settings += ["frame.height=16", "frame.width=16"]
            out.append(
                Condition(
                    f"{scene.name}_{density:g}",
                    "peers",
                    tuple(settings),
                    frames,
                    scene.background_e,
                    {"scene": scene.name, "density": density},
                )
            )
    return out


def _measure(condition: Condition, networks: Networks, seed: int) -> list[Row]:
    simulated = condition.simulate(seed)
    quick = condition.frames == 1
    slower = None if quick else load_weights("default")
    tried = ways((1, 2) if quick else SCENES[str(condition.labels["scene"])].numbers)
    found = worth_of_links(simulated, networks, slower, tried, condition.background_e, seed)
    return [dict(row) for row in found]


def draw_links(table: pd.DataFrame, path: Path) -> None:
    """Draw what each way finds, how honest its intervals are and what it costs, by density."""
    scenes = [SCENES[name] for name in dict.fromkeys(table["scene"])]
    figure = Figure(figsize=(15.5, 4.2 * len(scenes)), dpi=110, layout="constrained")
    rows = figure.subplots(len(scenes), len(_SHOWN), squeeze=False)
    for scene, panels in zip(scenes, rows, strict=True):
        _draw_scene(table[table["scene"] == scene.name], scene, list(panels))
    handles, labels = rows[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8)
    figure.savefig(path, metadata={"Software": None})


_SHOWN = {
    "jaccard": "found: Jaccard index",
    "rmse_over_isolated": "error / bound of each alone",
    "held_95": "95 % interval holds",
    "cpu_s_a_frame": "seconds of one core a frame",
}


def _draw_scene(table: pd.DataFrame, scene: SceneSeries, panels: list[Axes]) -> None:
    densities = sorted(set(table["density"]))
    for way, (colour, marker) in _LIKE_SHIPPED.items():
        rows = _usual(table, way).sort_values("density")
        for axes, column in zip(panels, _SHOWN, strict=True):
            axes.plot(
                rows["density"],
                rows[column],
                color=colour,
                marker=marker,
                markersize=5,
                linewidth=1.3,
                label=f"{way} ({rows['number'].iloc[0]})",
            )
    panels[2].axhline(0.95, color="#202124", linewidth=0.8)
    panels[3].set_yscale("log")
    panels[0].set_ylabel(f"{scene.name}: {scene.told}")
    for axes, title in zip(panels, _SHOWN.values(), strict=True):
        axes.set_title(title, fontsize=10)
        axes.set_xscale("log")
        axes.set_xticks(densities, [f"{d:g}" for d in densities])
        axes.minorticks_off()
        axes.set_xlabel("molecules / um$^2$")


def _usual(table: pd.DataFrame, way: str) -> pd.DataFrame:
    """Give the rows of one way with the usual number of draws or chains, or the largest it has."""
    rows = table[table["way"] == way]
    number = USUAL if (rows["number"] == USUAL).any() else rows["number"].max()
    return rows[rows["number"] == number]


def _at(table: pd.DataFrame, density: float, way: str, column: str) -> float:
    rows = _usual(table, way)
    return float(rows.loc[rows["density"] == density, column].iloc[0])


def _headline(table: pd.DataFrame) -> str:
    density = float(table["density"].max())
    parts = []
    for name, own in table.groupby("scene", sort=False):
        scene = SCENES[str(name)]
        shown = [
            f"{way} {_at(own, density, way, 'jaccard'):.3f}"
            for way in (scene.localize, *scene.others)
        ]
        parts.append(f"{name}: {', '.join(shown)}")
    return f"Jaccard index at {density:g} molecules / um^2, {'; '.join(parts)}"


def _findings(table: pd.DataFrame) -> str:
    """Say what the diffusion network adds in each scene at each density, from the numbers."""
    lines = ["## What the diffusion network is worth", ""]
    for name, own in table.groupby("scene", sort=False):
        scene = SCENES[str(name)]
        for density in sorted(set(own["density"])):
            parts = [_beside(own, density, scene.localize, other) for other in scene.others]
            what = f"{name}, {density:g} molecules / um^2: `{scene.localize}`"
            lines.append(f"- {what} {'; '.join(parts)}.")
    lines += [
        "",
        "All ways see the same frames, so that differences scatter less than these errors, which "
        "are those of separate movies.",
    ]
    return "\n".join(lines)


def _beside(table: pd.DataFrame, density: float, way: str, other: str) -> str:
    def both(column: str) -> tuple[float, float]:
        return _at(table, density, way, column), _at(table, density, other, column)

    (mine, theirs), errors, seconds = both("jaccard"), both("jaccard_error"), both("cpu_s_a_frame")
    error = math.hypot(*errors)
    said = "no difference that so few emitters show"
    if abs(mine - theirs) > 2 * error:
        said = "better" if mine > theirs else "worse"
    return (
        f"against `{other}` {mine - theirs:+.3f} in Jaccard index (standard error at most "
        f"{error:.3f}: {said}) for {seconds[0] / seconds[1]:.2f} times the time"
    )


LINKS = Study(
    "links",
    "What each link of the chain is worth",
    "The same frames (recipe `peers`: 64 x 64 px) localized with "
    "links of the chain left out or exchanged. Scenes are "
    f"{' and '.join(f'{scene.name} ({scene.told})' for scene in SCENES.values())}. "
    "All ways are told the same PSF width and the same "
    "priors, learned from the movie. `phi's peaks` and `draws alone` are read off images; "
    "`refinement` moves all emitters of a guess jointly to the maximum of the posterior, with "
    "Gaussian intervals; `moves` are chains of births, deaths, splits and merges begun at the "
    f"guesses: in `{SPOTS}` all at detected spots, in `{DRAWS}` all but the first. "
    f"`sureloc localize` does `{SPOTS}` with two chains, and `{DRAWS}` where molecules are so "
    "faint that many are no spots. `number` is that of draws or chains. "
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
