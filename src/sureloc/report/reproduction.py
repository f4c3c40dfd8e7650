"""The results of the paper and ours, remade from seeds and weights: conditions, tables, pages.

A study is a list of conditions, each measured on its own and kept in a file, so that a run that was
stopped goes on where it was; then one table, one picture and one page in plain words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from sureloc.config.recipes import load_recipe
from sureloc.evaluate.trials import Simulated, simulate
from sureloc.io.output import new_file
from sureloc.networks.weights import Networks

Row = dict[str, Any]


@dataclass(frozen=True)
class Condition:
    """What one measurement of a study is made of.

    Attributes:
        name: of its file, unique in the study.
        recipe: of the simulated movie, `settings` replacing some of its values; empty where the
            study makes its images otherwise.
        settings: as `sureloc simulate --set` takes them.
        frames: of the movie.
        background_e: its background, photo-electrons per pixel.
        labels: columns that its rows get.
        training: fingerprint of the networks that the study trains itself; empty if it does not.
        folder: where the study keeps such networks; `run_study` says so.
    """

    name: str
    recipe: str
    settings: tuple[str, ...]
    frames: int
    background_e: float
    labels: Row
    training: str = ""
    folder: Path = Path()

    def simulate(self, seed: int) -> Simulated:
        """Simulate the movie."""
        return simulate(load_recipe(self.recipe, list(self.settings)), self.frames, seed)


@dataclass(frozen=True)
class Picture:
    """A picture of a study that is not one of its table.

    Attributes:
        name: of its file.
        caption: what it shows, in plain words.
        draw: saves it, given networks, the seed and where to.
    """

    name: str
    caption: str
    draw: Callable[[Networks, int, Path], None]


@dataclass(frozen=True)
class Study:
    """One figure with its table and its words.

    Attributes:
        name: of its files and on the command line.
        title: of its page.
        words: what the figure shows and how to read it, in plain words (Markdown).
        conditions: gives what is measured, fewer and shorter when it shall be quick.
        measure: gives the rows of one condition.
        draw: saves the picture of the whole table; None if it has none.
        pictures: other pictures of its page.
        conclude: turns the rows of all conditions into the table that is shown and drawn.
        headline: gives its main number, with words, for the list of all studies.
        findings: says what its table shows (Markdown), above the table.
    """

    name: str
    title: str
    words: str
    conditions: Callable[[bool], Sequence[Condition]]
    measure: Callable[[Condition, Networks, int], list[Row]]
    draw: Callable[[pd.DataFrame, Path], None] | None
    pictures: Sequence[Picture] = ()
    conclude: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows
    headline: Callable[[pd.DataFrame], str] = lambda _: ""
    findings: Callable[[pd.DataFrame], str] = lambda _: ""


def run_study(
    study: Study, out: Path, networks: Networks, *, quick: bool, seed: int, commit: str
) -> Iterator[Condition]:
    """Measure what is missing and write table, picture and page; yields after each condition.

    Args:
        study: what to do.
        out: folder of the results; measurements are kept in `out/parts`.
        networks: trained networks.
        quick: few and short conditions, which show that it works and settle nothing.
        seed: of all movies.
        commit: of the code, for the page.

    Raises:
        OutputError: a file cannot be written.
    """
    parts = out / "parts" / study.name
    rows: list[Row] = []
    for condition in study.conditions(quick):
        kept = parts / f"{condition.name}.json"
        origin = {
            "recipe": condition.recipe,
            "settings": list(condition.settings),
            "frames": condition.frames,
            "seed": seed,
            "weights": networks.card.name,
        }
        if condition.training:
            origin["training"] = condition.training
        record = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
        if record.get("origin") != origin:
            measured = study.measure(replace(condition, folder=parts), networks, seed)
            record = {"origin": origin, "commit": commit, "rows": measured}
            _write(kept, json.dumps(record, indent=1))
        rows += [{**condition.labels, **row, "commit": record["commit"]} for row in record["rows"]]
        yield condition
    table = study.conclude(pd.DataFrame(rows))
    _write(out / f"{study.name}.csv", table.to_csv(index=False, float_format="%.5g"))
    if study.draw is not None:
        with new_file(out / f"{study.name}.png", replace=True) as partial:
            study.draw(table, partial)
    for picture in study.pictures:
        with new_file(out / f"{picture.name}.png", replace=True) as partial:
            picture.draw(networks, seed, partial)
    _write(out / f"{study.name}.md", _page(study, table, quick=quick, seed=seed))


def _write(path: Path, text: str) -> None:
    with new_file(path, replace=True) as partial:
        partial.write_text(text, encoding="utf-8")


def code_version() -> str:
    """Give the commit of the checkout that the code runs from, else the version."""
    for folder in Path(__file__).parents:
        git = folder / ".git"
        if git.is_file():  # a further working tree of a checkout
            git = Path(git.read_text(encoding="utf-8").removeprefix("gitdir:").strip())
        head = git / "HEAD"
        if head.is_file():
            said = head.read_text(encoding="utf-8").strip()
            common = git / "commondir"
            whole = git / common.read_text(encoding="utf-8").strip() if common.is_file() else git
            branch = whole / said.removeprefix("ref: ")
            named = branch.read_text(encoding="utf-8") if branch.is_file() else said
            return named.strip()[:12]
    return metadata.version("sureloc")


def _page(study: Study, table: pd.DataFrame, *, quick: bool, seed: int) -> str:
    commits = ", ".join(sorted({c for text in table["commit"] for c in text.split(", ")}))
    shown = table.drop(columns=["commit", "curve", "levels"], errors="ignore")
    lines = [f"| {' | '.join(shown.columns)} |", "|" + "---|" * len(shown.columns)]
    lines += [
        "| " + " | ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row) + " |"
        for row in shown.itertuples(index=False)
    ]
    command = f"sureloc reproduce {study.name}{' --quick' if quick else ''} --seed {seed}"
    warning = (
        "\n**Made with `--quick`: few emitters, to show that it works. It settles nothing.**\n"
        if quick
        else ""
    )
    return (
        f"# {study.title}\n{warning}\n{study.words}\n\n"
        + "".join(f"{text}\n\n" for text in [*_shown(study), study.findings(table)] if text)
        + "\n".join(lines)
        + f"\n\nMade by `{command}`, at commit {commits}. The same numbers are in "
        f"`{study.name}.csv`.\n"
    )


def _shown(study: Study) -> list[str]:
    """Give the pictures of a page, each with its caption, as Markdown."""
    own = [f"![{study.title}]({study.name}.png)"] if study.draw is not None else []
    return own + [f"![{p.caption}]({p.name}.png)\n\n{p.caption}" for p in study.pictures]


def write_index(studies: Sequence[Study], out: Path, *, quick: bool, seed: int) -> None:
    """List all studies that have a page in a folder: title, main number, and how it was made.

    Args:
        studies: all of them, in the order of the list.
        out: folder of the results.
        quick: how they were made.
        seed: of all movies.
    """
    lines = ["# All studies", "", "| study | main number | command |", "|---|---|---|"]
    for study in studies:
        kept = out / f"{study.name}.csv"
        if not kept.is_file():
            continue
        said = study.headline(pd.read_csv(kept))
        command = f"sureloc reproduce {study.name}{' --quick' if quick else ''} --seed {seed}"
        lines.append(f"| [{study.title}]({study.name}.md) | {said} | `{command}` |")
    lines += [
        "",
        "Each page has its table as CSV beside it and names the commit it was made at. "
        "`sureloc reproduce` makes all that is missing; what was measured is kept in `parts`.",
    ]
    _write(out / "index.md", "\n".join(lines) + "\n")
