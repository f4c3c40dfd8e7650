"""What users and their tools rely on: names, the command line, versions, and clean files."""

from __future__ import annotations

import importlib
import re
import statistics
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

import sureloc
from conftest import ROOT
from sureloc.cli import app as cli
from sureloc.errors import CameraError, InputError, OutputError, SurelocError
from sureloc.networks.weights import read_card
from sureloc.shipped import shipped_weights

PUBLIC = {
    *("__version__", "Camera", "localize_file"),
    *("SurelocError", "InputError", "CameraError", "RecipeError", "MovieError", "WeightsError"),
    "OutputError",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TEXT_SUFFIXES = {".py", ".toml", ".md", ".txt", ".cff", ".yaml", ".yml", ".json", ".html", ""}


# --- Public names -------------------------------------------------------------------------------


def test_public_names_are_pinned():
    assert len(sureloc.__all__) == len(set(sureloc.__all__))
    assert set(sureloc.__all__) == PUBLIC
    assert set(dir(sureloc)) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_names_can_be_had_and_say_what_they_are(name):
    value = getattr(sureloc, name)
    assert name == "__version__" or value.__doc__


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="'sureloc' has no attribute 'Kamera'"):
        _ = sureloc.Kamera


# --- Command line -------------------------------------------------------------------------------


def leaf_commands(group, path: str = "sureloc") -> Iterator[tuple[str, object]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaf_commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def all_commands() -> dict[str, object]:
    from typer.main import get_command

    return dict(leaf_commands(get_command(cli.app)))


def test_every_command_is_documented():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert [command for command in all_commands() if f"{command} " not in text] == []


def test_the_page_of_commands_is_what_the_program_takes(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    page = importlib.import_module("document_commands").commands_page()
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert written == page, "run scripts/document_commands.py"
    for path, command in all_commands().items():
        section = page.split(f"## {path}\n")[1].split("\n## ")[0]
        names = [name for one in command.params for name in (*one.opts, *one.secondary_opts)]
        options = [name for name in names if name.startswith("-")]
        assert [name for name in options if f"`{name}`" not in section] == []


def test_the_page_of_recipe_keys_is_what_the_program_takes(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    page = importlib.import_module("document_recipes").recipes_page()
    written = (ROOT / "docs" / "recipe_keys.md").read_text(encoding="utf-8")
    assert written == page, "run scripts/document_recipes.py"
    # What the recipes that are shipped say is on the page, with its section.
    for path in (ROOT / "src" / "sureloc" / "recipes" / "train").glob("psi_*.yaml"):
        for section, values in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            for key in values if isinstance(values, dict) else []:
                if key != "kind":
                    text = page.split(f"### `{section}`", 1)[1]
                    assert f"| `{key}` |" in text, (path.name, section, key)


def test_readme_lists_every_command_and_no_other():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(sureloc .*?)` \|", readme, re.MULTILINE)
    listed = [" ".join(re.match(r"sureloc( [a-z][a-z-]*)+", row)[0].split()) for row in rows]
    assert sorted(listed) == sorted(all_commands())


def test_every_command_and_option_explains_itself():
    for path, command in all_commands().items():
        assert command.help, f"{path} has no docstring"
        for option in command.params:
            assert option.help, f"{path}: {option.name} has no help"


@pytest.mark.parametrize("width", ["80", "120"])
def test_help_shows_words_for_values_whole_and_no_pictures(width):
    # Rich draws ":b:" as a picture, and breaks a word that is too long for its column.
    for path, command in all_commands().items():
        words = [*path.split()[1:], "--help"]
        shown = CliRunner().invoke(cli.app, words, env={"COLUMNS": width}).output
        assert max(map(len, shown.splitlines())) == int(width)
        assert re.findall(r"[^\x00-\x7f\u2500-\u257f]", shown) == [], path
        for option in command.params:
            assert (option.metavar or "") in shown, f"{path}: {option.name}"


def test_help_shows_flags_without_a_value_and_says_where_to_read():
    groups = ["sureloc", "sureloc train", "sureloc weights"]
    for path in (*groups, *all_commands()):
        shown = CliRunner().invoke(cli.app, [*path.split()[1:], "--help"], env={"COLUMNS": "100"})
        assert "--help" in shown.output, path
        assert "bool" not in shown.output.lower(), path
        assert ("docs/tutorial.md" in shown.output) == (path == "sureloc")
    assert (ROOT / "docs" / "tutorial.md").is_file()


def test_usage_names_arguments_as_the_documentation_does():
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for path in all_commands():
        shown = CliRunner().invoke(cli.app, [*path.split()[1:], "--help"], env={"COLUMNS": "200"})
        usage = next(line for line in shown.output.splitlines() if "Usage:" in line)
        documented = re.search(f"^`{path} (.*)`$", written, re.MULTILINE)[1]
        # Typer puts braces round what is needed.
        assert re.sub("[{}]", "", usage.split(path)[1]).split() == documented.split()


@pytest.mark.parametrize(
    "command",
    [("train", "phi", "smoke"), ("train", "psi", "smoke", "--phi", "fast"), ("adapt", "movie.tif")],
)
def test_training_without_its_extra_says_what_to_install(command, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    monkeypatch.setattr(
        "sureloc.train.extra.find_spec",
        lambda name: find_spec(name) if name != "lightning" else None,
    )
    monkeypatch.setattr(sys, "argv", ["sureloc", *command, "--out", str(out)])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 2
    said = capsys.readouterr().err
    assert "lightning cannot be found here" in said
    assert "pip install 'sureloc[train]'" in said
    assert not out.exists()


def test_version_is_the_same_everywhere(capsys, monkeypatch):
    version = PROJECT["project"]["version"]
    assert sureloc.__version__ == version
    assert metadata.version("sureloc") == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["sureloc", "--version"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    first, *cards = capsys.readouterr().out.splitlines()
    assert first == f"sureloc {version}"
    for name in shipped_weights():
        card, fingerprint = read_card(name)
        place = cards.index(f"weights {name}, fingerprint {fingerprint}")
        assert card.description.startswith(cards[place + 1].strip())
        for part in ("phi", "psi"):
            assert f"{card.training[part]['steps']:,} steps" in cards[place + 2]


def test_the_version_with_its_weights_answers_without_torch(run_python):
    program = """
import sys
from sureloc.cli import main
try:
    main()
except SystemExit:
    print(*sys.modules)
"""
    loaded = set(run_python("-c", program, "--version").stdout.split())
    assert "sureloc.shipped" in loaded
    assert loaded & {"torch", "numpy", "pydantic", "safetensors"} == set()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("frames is 0;\n  it must be 1 or more."), 2),
        (CameraError("gain_adu_per_e is 0; it must be larger."), 2),
        (OutputError("The disk is full."), 1),
        (SurelocError("Something else."), 1),
    ],
)
def test_own_errors_become_one_line_and_an_exit_code(error, code, monkeypatch, capsys):
    def fail():
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    printed = capsys.readouterr()
    assert leaving.value.code == code
    assert printed.err == f"sureloc: {' '.join(str(error).split())}\n"
    assert printed.out == ""


def test_other_errors_keep_their_traceback(monkeypatch):
    def fail():
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_unknown_options_are_refused_with_exit_code_2(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sureloc", "demo", "--colour", "red"])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 2
    assert "--colour" in capsys.readouterr().err


def test_help_answers_soon(run_python):
    def seconds() -> float:
        start = time.perf_counter()
        run_python("-c", "from sureloc.cli import main; main()", "--help")
        return time.perf_counter() - start

    # The promise is 0.5 s on an idle machine (benchmarks/help_time.py). Here other tests run beside
    # it and coverage looks in; what keeps the promise is test_layers' list of what is not imported.
    assert statistics.median(seconds() for _ in range(5)) < 1.5


def test_the_demo_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["sureloc", "demo", "--out", str(tmp_path / "demo"), "--frames", "2"]
    )
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "demo" / "result" / "report.html") in said
    assert "95 % intervals" in said
    assert (tmp_path / "demo" / "result" / "report.html").stat().st_size > 100_000


# --- README -------------------------------------------------------------------------------------


def test_readme_shows_the_two_commands_that_the_makefile_knows():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shown = re.findall(r"^    make (\w+)", readme, re.MULTILINE)
    assert shown == ["demo", "test"]
    assert all(f"\n{target}:" in makefile for target in shown)


# --- Files --------------------------------------------------------------------------------------


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def own_requirements() -> list[Requirement]:
    project = PROJECT["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    return [Requirement(text) for text in project["dependencies"] + extras]


def needed(names: set[str]) -> set[str]:
    """Give the installed packages that `names` pull in, themselves included."""
    found: set[str] = set()
    todo = set(names)
    while todo:
        name = todo.pop()
        found.add(name)
        for text in metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.add(canonicalize_name(requirement.name))
        todo -= found
    return found


def test_constraints_pin_everything_within_the_ranges_of_pyproject():
    pins = pinned()
    for requirement in own_requirements():
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])
    assert pins["torch"] == "2.13.0"
    roots = {canonicalize_name(one.name) for one in own_requirements()}
    extras = PROJECT["project"]["optional-dependencies"]
    for text in extras["napari"] + extras["viewer-test"]:  # not in every environment of the tests
        name = Requirement(text).name
        if not any(True for _ in metadata.distributions(name=name)):
            roots.discard(canonicalize_name(name))
    assert needed(roots) - set(pins) == set()


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Give a folder with what the wheel installs, as `pip install` without extras lays it down."""
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    (built,) = wheel.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def package_files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in (folder / "sureloc").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_a_wheel_holds_every_file_of_the_package(unpacked):
    """Scripts and styles of the report, recipes, weights: whatever the package reads as it runs."""
    own = package_files(ROOT / "src")
    suffixes = {Path(name).suffix for name in own}
    assert {".py", ".js", ".css", ".html", ".yaml", ".csv", ".json", ".safetensors"} <= suffixes
    assert {f"sureloc/weights/default{suffix}" for suffix in (".json", ".safetensors")} <= own
    assert package_files(unpacked) == own
    for name in own:
        assert (unpacked / name).read_bytes() == (ROOT / "src" / name).read_bytes(), name


def test_what_the_wheel_installs_runs(unpacked, run_python):
    program = """
import sureloc
print(sureloc.__file__)
from sureloc.cli import main
main()
"""
    # Not measured: it is a second copy of every file.
    unmeasured = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}
    done = run_python("-c", program, "--version", PYTHONPATH=str(unpacked), **unmeasured)
    first, version, *cards = done.stdout.splitlines()
    assert Path(first).parent == unpacked / "sureloc"
    assert version == f"sureloc {PROJECT['project']['version']}"
    for name in shipped_weights():
        assert any(line.startswith(f"weights {name}, fingerprint") for line in cards)


def test_citation_can_be_used():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["license"] == PROJECT["project"]["license"]
    assert {"title", "message", "authors", "abstract"} <= set(citation)


def own_files() -> list[Path]:
    folders = ("src", "tests", "benchmarks", "docs", "scripts", ".ci", ".github")
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    beside = [path for path in ROOT.iterdir() if path.is_file()]
    return [
        path
        for path in inside + beside
        if path.suffix in TEXT_SUFFIXES
        and "__pycache__" not in path.parts
        and not path.name.startswith(".coverage")
    ]


def machine_paths(text: str) -> list[str]:
    roots = "work|root|home|opt|tmp|Users|mnt|scratch"
    return re.findall(rf"(?<![\w.\-/:}}*])/(?:{roots})/[\w.]+|\b[A-Z]:\\\w+", text)


def test_no_file_names_a_place_on_one_machine():
    found = {
        str(path.relative_to(ROOT)): places
        for path in own_files()
        if (places := machine_paths(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_a_place_on_one_machine_would_be_found():
    place = "/".join(["", "home", "ada", "movies"])
    assert machine_paths(f'open("{place}")') == [place.removesuffix("/movies")]
    assert machine_paths("docs/home/index.md, https://example.org/home/x, ../work/x") == []


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["adapt"], "train"),
        (["train", "phi"], "train"),
        (["train", "psi"], "train"),
        (["weights", "recalibrate"], "train"),
        (["weights", "export"], "onnx"),
        (["train", "search"], "onnx"),
    ],
    ids=" ".join,
)
def test_help_names_the_extra_that_is_needed(command, extra):
    shown = CliRunner().invoke(cli.app, [*command, "--help"], env={"COLUMNS": "100"}).output
    assert f"pip install 'sureloc[{extra}]'" in " ".join(shown.split())
