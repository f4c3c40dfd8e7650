"""The documentation: its blocks run, its lists are complete, and its site builds."""

from __future__ import annotations

import ast
import re
import runpy
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

import sureloc
from conftest import ROOT
from doc_blocks import Block, PageRun, blocks_of, check_printed
from sureloc.camera import Camera
from sureloc.io.convert import Changes, convert_table
from sureloc.io.exchange.localizations import FOREIGN_COLUMNS, Reading
from sureloc.localize import verdict
from sureloc.table import (
    DRAW_COLUMNS,
    DRIFT_COLUMNS,
    LINK_COLUMNS,
    LOCALIZATION_COLUMNS,
    TRUTH_COLUMNS,
)

DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial.md"
EXAMPLES = DOCS / "worked_examples.md"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory) -> Path:
    """The folder in which the tutorial was run, from the movie to its audit."""
    folder = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        PageRun(numbers=True).run(TUTORIAL)
    return folder


# --- What pages take for granted ------------------------------------------------------------------


def with_movie(folder: Path, tutorial: Path) -> None:
    """A movie and its camera."""
    shutil.copy(tutorial / "movie" / "movie.ome.tif", folder / "movie.tif")
    for name in ("camera.yaml", "camera.npz"):
        shutil.copy(tutorial / "movie" / name, folder)


def with_short_movie(folder: Path, tutorial: Path) -> None:
    """Some frames of it."""
    with_movie(folder, tutorial)
    frames = tifffile.imread(folder / "movie.tif")[:6]
    tifffile.imwrite(folder / "movie.tif", frames)


def with_result(folder: Path, tutorial: Path) -> None:
    """A result folder."""
    shutil.copytree(tutorial / "result", folder / "result")


def with_movie_and_result(folder: Path, tutorial: Path) -> None:
    """Both."""
    with_movie(folder, tutorial)
    with_result(folder, tutorial)


def with_run(folder: Path, tutorial: Path) -> None:
    """A result folder by another name."""
    shutil.copytree(tutorial / "result", folder / "run")


def with_foreign_tables(folder: Path, tutorial: Path) -> None:
    """A result, and tables as other programs give them."""
    with_result(folder, tutorial)
    table = folder / "result" / "localizations.parquet"
    for name in ("picasso_locs.hdf5", "thunderstorm.csv", "from_picasso.csv"):
        convert_table(table, folder / name, Reading(), Changes())


def with_calibration(folder: Path, tutorial: Path) -> None:
    """A dark movie and two flats."""
    rng = np.random.default_rng(3)
    for name, electrons in (("dark", 0.0), ("flat_low", 40.0), ("flat_high", 150.0)):
        seen = rng.poisson(electrons, (200, 16, 16)) + rng.normal(0, 1.5, (200, 16, 16))
        tifffile.imwrite(folder / f"{name}.tif", np.rint(100 + 2.0 * seen).astype(np.uint16))


STANDS_IN = {
    "README.md": with_short_movie,
    "after_localization.md": with_run,
    "cameras.md": with_calibration,
    "coming_from.md": with_movie_and_result,
    "files.md": with_foreign_tables,
    "images_and_resolution.md": with_result,
}


def run_page(page: Path, folder: Path, tutorial: Path, patch: pytest.MonkeyPatch) -> PageRun:
    if page.name in STANDS_IN:
        STANDS_IN[page.name](folder, tutorial)
    patch.chdir(folder)
    return PageRun(numbers=page == EXAMPLES).run(page)


# --- Blocks ---------------------------------------------------------------------------------------


def is_run(page: Path) -> bool:
    return any(block.not_run is None for block in blocks_of(page))


@pytest.mark.parametrize("page", [page for page in PAGES if not is_run(page)], ids=lambda p: p.name)
def test_blocks_that_are_not_run_are_known_to_sureloc(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_weights").mkdir()
    for name in ("mine.safetensors", "mine.json"):
        (tmp_path / "my_weights" / name).touch()
    PageRun().run(page)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if is_run(page) and page != TUTORIAL], ids=lambda p: p.name
)
def test_the_blocks_of_a_page_run_in_their_order(page, tmp_path, tutorial, monkeypatch):
    ran = run_page(page, tmp_path, tutorial, monkeypatch)
    if page == EXAMPLES:
        truths = {"radius": 53.0, "spacing": 80.0, "distance": 160.0}
        assert all(f"The truth is {truth:.0f} nm." in page.read_text() for truth in truths.values())
        for name, truth in truths.items():
            # 95 % intervals miss one time in twenty; the seeds are fixed.
            measured = ran.names[name]
            assert measured.low <= truth <= measured.high, name


def test_the_tutorial_shows_the_picture_that_its_commands_make(tutorial):
    # Another kind of processor rounds differently, and chains then draw other states: molecules of
    # a spot are then a few nm elsewhere. Squares of 25 px are 25 nm.
    for name, file in (("figure.png", "tutorial.png"), ("before.png", "tutorial_before.png")):
        made, shown = (Image.open(path) for path in (tutorial / name, DOCS / "images" / file))
        assert made.size == shown.size
        made, shown = (np.asarray(one.convert("L").reduce(25), float) for one in (made, shown))
        assert np.corrcoef(made.ravel(), shown.ravel())[0, 1] > 0.9


def stands_for_nothing(name: str) -> bool:
    """Whether a test that a page names, as FILE::FUNCTION, is not there."""
    file, _, function = name.partition("::")
    if not (ROOT / file).is_file():
        return True
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return function not in {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}


def test_tests_that_stand_for_a_block_exist():
    named = {
        name
        for page in PAGES
        for block in blocks_of(page)
        for name in re.findall(r"tests/[\w.:]+", block.not_run or "")
    }
    assert len(named) > 5
    assert sorted(filter(stands_for_nothing, named)) == []
    here = "tests/test_docs.py"
    for wrong in (here, f"{here}::test_that_is_not_there", "tests/test_none.py::test_a"):
        assert stands_for_nothing(wrong)


def written(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    return page


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```sh\npip install x\n```", "page.md:1: pip cannot be run here"),
        ("Say:\n\n    pip install x\n", "page.md:3: pip cannot be run here"),
        ("```yaml\na: 1\n```", "page.md:1: nothing here runs 'yaml'"),
        ("```python\nprint(1 + 1)  # 3\n```", "page.md:1"),
        ("```sh\nsureloc convert a.csv b.csv\n```", "left with 2"),
        ("```text\nnobody printed this\n```", "page.md:1: .* was not printed"),
        ("- point\n  ```sh\n  pip install x\n  ```", "a fence that is not seen"),
    ],
)
def test_a_block_that_is_neither_run_nor_marked_fails(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match=message):
        PageRun().run(written(tmp_path, text))


@pytest.mark.parametrize(
    "line", ["sureloc link a --out b --gop 1", "sureloc lonk a --out b", "sureloc --versoin"]
)
def test_a_marked_block_must_still_be_one_that_sureloc_knows(line, tmp_path):
    page = written(tmp_path, f"<!-- not run: a cluster is needed -->\n\n```sh\n{line}\n```\n")
    with pytest.raises(Exception, match=r"No such option|lonk"):
        PageRun().run(page)


def test_a_mark_counts_for_one_block_alone(tmp_path):
    page = written(tmp_path, "<!-- not run: slow -->\n<!-- more -->\n\n    a\n\nb\n\n    c\n")
    assert [(b.text, b.not_run) for b in blocks_of(page)] == [("a", "slow"), ("c", None)]
    page = written(tmp_path, "<!-- not run: slow -->\n\ntext\n\n    a\n")
    assert blocks_of(page)[0].not_run is None


def test_output_is_compared_in_order_and_without_numbers():
    printed = "run: 12 rows, 3.5 s\nand\nTrust: chi2 1.02\n"
    check_printed(Block("p", "text", "run: 99 rows, 7 s\n...\nTrust: chi2 0.98", None), printed)
    for wrong in ("run: 99 columns, 7 s", "Trust: chi2 0.98\nrun: 99 rows, 7 s"):
        with pytest.raises(AssertionError, match="was not printed"):
            check_printed(Block("p", "text", wrong, None), printed)


def test_numbers_of_a_page_that_are_asked_for_must_be_close():
    printed = "run: 1,200 rows of 3:4, 3.5 s\nratio 0.82 (99 % sure)\n"
    for near in ("run: 1,100 rows of 3:4, 70 s", "ratio 0.90 (99 % sure)", "ratio 0.8 (98 % sure)"):
        check_printed(Block("p", "text", near, None), printed, numbers=True)
    for far in (
        "run: 1,000 rows of 3:4, 3.5 s",
        "run: 1,200 rows of 3:5, 3.5 s",
        "ratio 0.95 (99 % sure)",
    ):
        check_printed(Block("p", "text", far, None), printed)
        with pytest.raises(AssertionError, match="is now"):
            check_printed(Block("p", "text", far, None), printed, numbers=True)


# --- Lists that must be complete ------------------------------------------------------------------


def columns_in(section: str) -> list[tuple[str, str]]:
    """Name and unit of every column that a section of the page lists."""
    page = (DOCS / "columns.md").read_text(encoding="utf-8")
    part = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \| ([^|]*?) ?\| [^|]+ \|$", part, re.MULTILINE)


@pytest.mark.parametrize(
    ("section", "columns"),
    [
        ("localizations.parquet", LOCALIZATION_COLUMNS),
        ("draws.parquet", DRAW_COLUMNS),
        ("truth.parquet", TRUTH_COLUMNS),
        ("After `sureloc drift`", DRIFT_COLUMNS),
        ("After `sureloc link`", LINK_COLUMNS),
        ("Tables of other programs", FOREIGN_COLUMNS),
    ],
)
def test_every_column_and_unit_is_documented(section, columns):
    assert columns_in(section) == [(column.name, column.unit) for column in columns]


RESULT, DRAWS = "localizations.parquet", "draws.parquet"
AFTER_DRIFT, AFTER_LINK = "After `sureloc drift`", "After `sureloc link`"


@pytest.mark.parametrize(
    ("file", "sections"),
    [
        ("result/localizations.parquet", [RESULT]),
        ("result/draws.parquet", [DRAWS]),
        ("movie/truth.parquet", ["truth.parquet"]),
        ("still/localizations.parquet", [RESULT, AFTER_DRIFT]),
        ("still/draws.parquet", [DRAWS]),
        ("molecules.parquet", [RESULT, AFTER_DRIFT, AFTER_LINK]),
        ("good.parquet", [RESULT, AFTER_DRIFT, AFTER_LINK]),
    ],
)
def test_tables_hold_no_column_that_is_not_documented(file, sections, tutorial):
    known = dict(columns for section in sections for columns in columns_in(section))
    schema = pq.read_schema(tutorial / file)
    assert set(schema.names) == set(known)
    units = {one.name: (one.metadata or {}).get(b"unit", b"").decode() for one in schema}
    assert units == known


def test_the_columns_of_the_csv_are_documented(tutorial):
    names = [name for name, _ in columns_in("localizations.csv")]
    header = (tutorial / "result" / "localizations.csv").read_text().splitlines()[0]
    assert header == ",".join(f'"{name}"' for name in names)


def words_of(page: str) -> str:
    return " ".join((DOCS / page).read_text(encoding="utf-8").replace("\n  ", "\n").split())


def pattern_of(clause: str) -> str:
    """A clause of the verdict as a pattern: anything in the place of its values."""
    return ".{1,40}?".join(re.escape(part) for part in re.split(r"\{[^}]*\}", clause))


@pytest.mark.parametrize("doubt", verdict.Doubt, ids=lambda doubt: doubt.name)
def test_every_doubt_of_the_verdict_is_documented(doubt):
    assert re.search(f'\\*\\*"{pattern_of(doubt.value)}"\\*\\*', words_of("verdict.md"))


@pytest.mark.parametrize(("reason", "clause"), verdict.ROWS_THAT.items())
def test_every_reason_of_a_row_is_documented(reason, clause):
    words = words_of("verdict.md")
    assert f"| `{reason}` |" in words
    assert re.search(f'\\*\\*"\\d+ % {re.escape(clause)}"\\*\\*', words)


@pytest.mark.parametrize(("factor", "word", "part"), [(1.3, "large", 1), (0.7, "small", 0)])
def test_the_gain_that_makes_chi2_small_or_large_is_documented(factor, word, part):
    mean = 100.0 + 2.0 * np.full((40, 50, 50), 30.0)
    adu = 100.0 + 2.0 * np.random.default_rng(4).poisson(30.0, mean.shape)
    camera = Camera(offset_adu=100.0, gain_adu_per_e=2.0 * factor, variance_adu2=0.0)
    expected = camera.electrons(mean)
    chi2 = ((camera.electrons(adu) - expected) ** 2 / expected).mean()
    assert chi2 == pytest.approx(1 / factor, rel=0.03)
    above, below = words_of("verdict.md").split("Below 1,")
    assert f"gain is too {word}" in (above, below)[part]


def test_every_verdict_is_documented():
    for trust in verdict.Trust:
        assert f"| **{trust.value.capitalize()}** |" in words_of("verdict.md")


# --- The site -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built strictly: an unknown link, anchor or page without a place breaks it off."""
    mkdocs = pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    assert mkdocs.__version__
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other people's plugins
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    return folder


def test_pages_that_the_navigation_does_not_name_get_a_place(tmp_path):
    pytest.importorskip("latex2mathml", reason="the extra `docs` is not installed")
    hooks = runpy.run_path(str(ROOT / "scripts" / "docs_hooks.py"))
    (tmp_path / "results").mkdir()
    for name in ("index.md", "new.md", "results/new.md"):
        (tmp_path / name).touch()
    nav = [{"sureloc": "index.md"}, {"How it was checked": []}, {"Reference": [{"A": "a.md"}]}]
    hooks["on_config"](SimpleNamespace(docs_dir=str(tmp_path), nav=nav))
    assert nav[1] == {"How it was checked": ["results/new.md"]}
    assert nav[2] == {"Reference": [{"A": "a.md"}, "new.md"]}


def test_the_site_builds_and_has_every_page(site):
    pages = {page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")}
    assert [page for page in pages if not (site / page).is_file()] == []


def test_the_site_loads_nothing_from_elsewhere(site):
    loading = re.compile(
        r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>"
    )
    found = {
        str(page.relative_to(site)): tags
        for page in site.rglob("*.html")
        if (tags := [t for t in loading.findall(page.read_text("utf-8")) if "canonical" not in t])
    }
    assert found == {}


def test_equations_are_drawn(site):
    theory = (site / "theory.html").read_text(encoding="utf-8")
    assert theory.count("<math") > 20
    assert "arithmatex" not in theory
    assert not re.search(r"<mtext>\\|<mi>\\", theory)  # a command that was not understood


def test_the_python_reference_holds_what_is_public(site):
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    reference = (site / "api.html").read_text(encoding="utf-8")
    explained = set(re.findall(r'id="(sureloc[\w.]*)"', reference))
    assert set(re.findall(r"^::: (\S+)$", page, re.MULTILINE)) <= explained
    homes = {
        f"{getattr(sureloc, name).__module__}.{name}" for name in sureloc.__all__ if name[0] != "_"
    }
    assert homes <= explained
