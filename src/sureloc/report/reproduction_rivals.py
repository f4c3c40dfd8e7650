"""The study `rivals`: other ways of being uncertain, trained with equal work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from sureloc.config.training import load_training_recipe
from sureloc.evaluate.rivals import compare_rivals, rivals
from sureloc.networks.weights import Networks
from sureloc.report.reproduction import Condition, Row, Study
from sureloc.train import extra
from sureloc.train.recipe import PhiTrainingRecipe, PsiTrainingRecipe

if TYPE_CHECKING:
    from sureloc.train.rivals import RivalRecipes

_FRAMES = {0.18: 20, 0.71: 8, 1.78: 6, 3.56: 4}
_CROWDED = (1.78, 3.56)
_OWN = "sureloc"
_STYLES = {
    "phi's peaks": ("#9aa0a6", "+", "-"),
    "deep ensemble": ("#d9730d", "s", "-"),
    "MC dropout": ("#e8b98a", "P", "-"),
    "heteroscedastic head": ("#b3261e", "^", "-"),
    "maximum likelihood + CRLB": ("#7b4ea3", "D", "-"),
    "Psi's draws": ("#9ec3da", "x", "-"),
    "sureloc": ("#1f6f9f", "o", "-"),
    "Psi's draws, shipped weights": ("#9ec3da", "x", ":"),
    "sureloc, shipped weights": ("#1f6f9f", "o", ":"),
}
_PANELS = {
    "jaccard": "found: Jaccard index",
    "crps_shared_nm": "CRPS of positions all found (nm)",
    "held_95": "95 % interval holds",
    "width_over_bound": "stated width / joint bound",
    "auroc_false": "AUROC for false rows",
    "image_crps": "CRPS of images (peaks)",
    "image_spread_skill": "spread / skill of images",
    "ms_a_frame": "ms of one core a frame",
}
_LOGARITHMIC = ("crps_shared_nm", "width_over_bound", "ms_a_frame")
_IDEAL = {"held_95": 0.95, "width_over_bound": 1.0, "image_spread_skill": 1.0}


def _recipes(quick: bool) -> RivalRecipes:
    extra.check_installed()
    from sureloc.train.rivals import RivalRecipes  # brings Lightning, which other studies need not

    phi = load_training_recipe(PhiTrainingRecipe, "rivals")
    psi = load_training_recipe(PsiTrainingRecipe, "rivals")
    if not quick:
        return RivalRecipes.of(phi, psi)
    return RivalRecipes.of(
        PhiTrainingRecipe.model_validate(_shortened(phi, 20)),
        PsiTrainingRecipe.model_validate(_shortened(psi, 4)),
    )


def _shortened(recipe: PhiTrainingRecipe | PsiTrainingRecipe, steps: int) -> Row:
    values = recipe.model_dump()
    values["optimizer"] |= {"steps": steps, "warmup_steps": 2}
    values["batch"] |= {"tiles": 2, "tile_px": 16}
    values["validation"] |= {"every_steps": 2, "tiles": 2, "tile_px": 16, "draws": 2}
    return values


def _conditions(quick: bool) -> list[Condition]:
    recipes = _recipes(quick)
    training = recipes.fingerprint()
    out = [
        Condition(f"train_{name}", "", (), 0, 0.0, {"trained": name}, training)
        for name in recipes.named()
    ]
    for density, frames in {1.78: 1}.items() if quick else _FRAMES.items():
        settings = [f"scene.density_per_um2={density:g}"]
        if quick:
            settings += ["frame.height=16", "frame.width=16"]
        name = f"peers_{density:g}"
        labels = {"density": density}
        out.append(Condition(name, "peers", tuple(settings), frames, 0.0, labels, training))
    return out


def _measure(condition: Condition, networks: Networks, seed: int) -> list[Row]:
    from sureloc.train.rivals import (
        core_seconds_a_step,
        rival_networks,
        rival_training,
        train_rival,
    )

    full = _recipes(quick=False)
    recipes = full if full.fingerprint() == condition.training else _recipes(quick=True)
    folder = condition.folder / "networks" / condition.training
    if "trained" in condition.labels:
        name = str(condition.labels["trained"])
        train_rival(recipes, name, folder)
        step_s = core_seconds_a_step(rival_training(recipes, name, folder))
        steps = recipes.named()[name].optimizer.steps
        return [{"steps": steps, "core_s": steps * step_s}]
    own = rival_networks(recipes, folder)
    ways = rivals(own.phi, own.ensemble, own.dropout, own.mixture)
    simulated = condition.simulate(seed)
    found = compare_rivals(simulated, ways, own.whole, networks, condition.background_e, seed)
    used = {way.name: " ".join(way.trained) for way in ways}
    return [{**row, "networks": used[str(row["method"])]} for row in found]


def with_training_cost(rows: pd.DataFrame) -> pd.DataFrame:
    """Give the rows of methods, with the cost of the networks that each uses.

    Args:
        rows: of trainings (`trained`, `steps`, `core_s`) and of methods (`networks`, the names of
            what was trained for it).
    """
    trained = rows[rows["trained"].notna()]
    cost = dict(zip(trained["trained"], trained["core_s"], strict=True))
    methods = rows[rows["trained"].isna()].drop(columns=["trained", "steps", "core_s"])
    minutes = [
        sum(cost[name] for name in str(used).split()) / 60 if used else np.nan
        for used in methods["networks"]
    ]
    at = list(methods.columns).index("method") + 1
    methods.insert(at, "training_core_min", minutes)
    return methods.drop(columns="networks").reset_index(drop=True)


def draw_rivals(table: pd.DataFrame, path: Path) -> None:
    """Draw what each way finds, how honest it is and what it costs, by density."""
    figure = Figure(figsize=(16.0, 7.6), dpi=100, layout="constrained")
    panels = figure.subplots(2, 4).ravel()
    densities = sorted(set(table["density"]))
    for axes, (column, title) in zip(panels, _PANELS.items(), strict=True):
        for method, rows in table.groupby("method", sort=False):
            colour, marker, line = _STYLES[str(method)]
            rows = rows.sort_values("density")
            shown = rows[rows[column].notna()]
            if method == "phi's peaks" and column == "image_spread_skill":
                continue  # one image has no spread
            axes.plot(
                shown["density"],
                shown[column],
                line,
                color=colour,
                marker=marker,
                markersize=5,
                linewidth=1.3,
                label=method,
            )
        if column in _IDEAL:
            axes.axhline(_IDEAL[column], color="#202124", linewidth=0.8)
        if column in _LOGARITHMIC and (table[column] > 0).any():
            axes.set_yscale("log")
            for named in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                named(StrMethodFormatter("{x:g}"))
            axes.tick_params(axis="y", which="minor", labelsize=7)
        axes.set_title(title, fontsize=10)
        axes.set_xscale("log")
        axes.set_xlim(0.9 * densities[0], 1.1 * densities[-1])
        axes.set_xticks(densities, [f"{d:g}" for d in densities])
        axes.tick_params(axis="x", which="minor", bottom=False)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("molecules / um$^2$")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9)
    figure.savefig(path, metadata={"Software": None})


def coverage_error(row: pd.Series) -> float:
    """Give how far the 68 and 95 % intervals are from holding as often as they say, on average."""
    return float(0.5 * (abs(row["held_68"] - 0.68) + abs(row["held_95"] - 0.95)))


def _of(table: pd.DataFrame, density: float, method: str) -> pd.Series:
    return table[(table["density"] == density) & (table["method"] == method)].iloc[0]


def _least(rows: pd.DataFrame, measure: pd.Series) -> str:
    values = measure.to_numpy(float)
    if np.isnan(values).all():
        return "not measured"
    return str(rows["method"].iloc[int(np.nanargmin(values))])


def _beside(mine: pd.Series, other: pd.Series) -> str:
    """Say whether sureloc beats another method at one density."""
    score, theirs = mine["crps_shared_nm"], other["crps_shared_nm"]
    if not np.isfinite(score - theirs):
        return f"{other['method']}: no molecule was found by all, so that nothing is compared"
    error = float(np.hypot(mine["crps_error_nm"], other["crps_error_nm"]))
    gap, their_gap = coverage_error(mine), coverage_error(other)
    sharper, honest = score < theirs, gap < their_gap
    verdict = {
        (True, True): "better in both",
        (True, False): "better CRPS, worse coverage",
        (False, True): "worse CRPS, better coverage",
        (False, False): "worse in both",
    }[bool(sharper), bool(honest)]
    return (
        f"{other['method']}: {verdict} (CRPS {score:.2f} against {theirs:.2f} nm, standard error "
        f"of the difference at most {error:.2f}; coverage off by {gap:.3f} against {their_gap:.3f})"
    )


def _findings(table: pd.DataFrame) -> str:
    """Set sureloc beside every rival of equal training where molecules are crowded."""
    lines = ["## sureloc beside each rival of equal training", ""]
    rated = table[table["held_95"].notna() & ~table["method"].str.contains("shipped")]
    for density in (d for d in _CROWDED if d in set(table["density"])):
        mine = _of(table, density, _OWN)
        others = rated[(rated["density"] == density) & (rated["method"] != _OWN)]
        lines += [f"At {density:g} molecules / um^2:", ""]
        lines += [f"- {_beside(mine, other)}." for _, other in others.iterrows()] + [""]
    lines += ["Best of equal training, by measure:", ""]
    equal = table[~table["method"].str.contains("shipped")]
    for density in sorted(set(table["density"])):
        some = equal[equal["density"] == density]
        best = {
            "Jaccard index": _least(some, -some["jaccard"]),
            "CRPS of shared positions": _least(some, some["crps_shared_nm"]),
            "coverage": _least(some, some.apply(coverage_error, axis=1)),
            "CRPS of images": _least(some, some["image_crps"]),
            "time": _least(some, some["ms_a_frame"]),
        }
        said = ", ".join(f"{measure}: {method}" for measure, method in best.items())
        lines.append(f"- {density:g} molecules / um^2: {said}.")
    return "\n".join(lines)


def _headline(table: pd.DataFrame) -> str:
    density = float(table["density"].max())
    shown = [
        f"{method} {_of(table, density, method)['crps_shared_nm']:.1f}"
        for method in (_OWN, "heteroscedastic head", "deep ensemble", "MC dropout")
    ]
    return f"CRPS of positions (nm) at {density:g} molecules / um^2: " + ", ".join(shown)


RIVALS = Study(
    "rivals",
    "Other ways of being uncertain",
    "The same frames (recipe `peers`: 64 x 64 px, 500-1000 photons, no background) seen in other "
    "ways of being uncertain. Networks are all phi's (recipe `phi rivals`) and were trained on "
    "such movies alone, each way with the same work, counted in steps of phi: a `deep ensemble` "
    "of five phi's with a fifth of the steps each; `MC dropout`, a phi trained and sampled with a "
    "tenth of its features dropped; a `heteroscedastic head` on phi's trunk, which gives each "
    "pixel a probability, a position and their deviations as DECODE does, trained by the "
    "likelihood of the true emitters; `maximum likelihood + CRLB`, phi's peaks moved jointly to "
    "the maximum of the image's likelihood, with the Cramér-Rao bound there as their deviation; "
    "`Psi's draws` (phi with half of the steps, and a one-step Psi in the time of the other half), "
    "and `sureloc`, the whole chain begun at those draws. `shipped weights` are sureloc's own, "
    "which were trained far longer and for many more kinds of movies: they are shown beside, not "
    "compared. `phi's peaks` say nothing of their errors, and a position without a deviation has "
    "its error for a CRPS.\n\n"
    "Emitters are read off every image of the ensemble, of dropout and of Psi, and joined into "
    "rows as posterior draws are; intervals are those of one more member by Student's t. "
    "Conversely, where a way gives emitters only, images are drawn from its rows (each exists "
    "with its probability, and lies about its place as it says). All ways are told the camera "
    "and the PSF width; sureloc and maximum likelihood also the background, and sureloc the "
    "priors, learned from the movie (not in the times).\n\n"
    "`crps_nm`: continuous ranked probability score of the Gaussian of each paired row, per axis "
    "(smaller is better; an error with no deviation counts whole); `crps_shared_nm` the same for "
    "the molecules that all ways found, so that who finds only the easy ones gains nothing, "
    "`crps_error_nm` its standard error. `width_over_bound`: median stated deviation over the "
    "joint Cramér-Rao bound. `auroc_false`: how well the expected loss `(1 - p) + p sigma / PSF` "
    "tells the rows that pair with no molecule within 250 nm (1: always, .5: not at all). "
    "`image_crps` and `image_spread_skill` are those of kernel density images, in units of one "
    "molecule's peak, on pixels where phi expects a twentieth of it or more; a single image has "
    "no spread. `training_core_min` is the steps times the processor's time of one, measured; "
    "`ms_a_frame` the time of one core, both beside other work.\n\n"
    "Why they may differ. Every phi is trained by squared error and estimates the mean of the "
    "possible images. Members of an ensemble, and phi's with other features dropped, differ by "
    "what training left open, not by what the frame leaves open: the longer they train, the more "
    "they should agree, and the noise of the light is in none of them. The head's deviations do "
    "hold that noise, but each emitter's on its own, and only as well as so much training could "
    "teach them. The bound is right where the number of molecules is, and knows nothing of a "
    "wrong one. Draws of Psi hold both, as coarsely as the image's pixels; the chain's states "
    "hold what likelihood and priors leave. sureloc and maximum likelihood are given the law of "
    "the image, which the networks had to learn from examples.",
    _conditions,
    _measure,
    draw_rivals,
    conclude=with_training_cost,
    headline=_headline,
    findings=_findings,
)
