"""Imports go one way, downward through the layers, and importing changes nothing."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from conftest import ROOT

PACKAGE = ROOT / "src" / "sureloc"

# From the bottom up. A part may import from layers below its own, and from another part of its own
# layer as long as no circle comes of it. README shows the same picture.
LAYERS = (
    {"errors", "seeds", "limits", "camera", "table", "shipped"},
    {"physics", "diffusion", "networks", "scoring", "compiled"},
    {"simulate", "train", "localize", "evaluate", "analysis", "calibrate"},
    {"io", "report", "config"},
    {"runs"},
    {"cli", "viewer"},
)
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}

HEAVY = (
    *("torch", "lightning", "numba", "scipy", "pandas", "pyarrow", "matplotlib"),
    *("zarr", "dask", "h5py", "tifffile", "nd2", "tensorboard"),
)
# What a core that stays light neither imports nor brings.
FOREIGN = {
    *("napari", "qtpy", "PyQt5", "PyQt6", "PySide2", "PySide6", "tkinter", "tornado", "lightning"),
    *("flask", "fastapi", "starlette", "aiohttp", "werkzeug", "tensorboard", "pytorch-lightning"),
}
# All that the extra `train` is for.
TRAINING = {
    *(f"sureloc.train.{name}" for name in ("engine", "mixture", "phi", "psi", "rivals")),
    *("sureloc.calibrate.adaptation", "sureloc.cli.training_bar"),
    *("sureloc.report.adaptation", "sureloc.report.training_pictures"),
}


def parts_of_the_package(package: Path) -> set[str]:
    modules = {path.stem for path in package.glob("*.py") if not path.stem.startswith("__")}
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    return modules | folders


def imported_parts(path: Path, package: Path) -> set[str]:
    """Parts of sureloc that a file imports, also inside functions and for type checking only."""
    own = path.relative_to(package).parts[0].removesuffix(".py")
    parts = parts_of_the_package(package)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide their layer; write them out"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            head, _, rest = name.partition(".")
            if head != "sureloc" or not rest:
                assert head != "sureloc" or own == "cli", f"{path}: import the module that is meant"
                continue
            part = rest.split(".")[0]
            if part == "__version__":
                continue
            assert part in parts, f"{path}: {name} comes from the public names; name its module"
            found.add(part)
    return found - {own}


def graph_of_imports(package: Path) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {part: set() for part in parts_of_the_package(package)}
    for path in sorted(package.rglob("*.py")):
        if path.parent == package and path.stem.startswith("__"):
            continue
        own = path.relative_to(package).parts[0].removesuffix(".py")
        graph[own] |= imported_parts(path, package)
    return graph


def upward_imports(graph: dict[str, set[str]]) -> list[str]:
    return [
        f"{part} imports {other}"
        for part, others in sorted(graph.items())
        for other in sorted(others)
        if RANK[other] > RANK[part]
    ]


def test_every_part_has_a_layer():
    assert parts_of_the_package(PACKAGE) <= set(RANK)


def test_imports_go_downward_and_in_no_circle():
    graph = graph_of_imports(PACKAGE)
    assert upward_imports(graph) == []
    list(TopologicalSorter(graph).static_order())  # raises CycleError on a circle


def test_an_upward_import_is_found_even_inside_a_function(tmp_path):
    (tmp_path / "io").mkdir()
    (tmp_path / "io" / "__init__.py").write_text("")
    (tmp_path / "camera.py").write_text("def f():\n    from sureloc.io import movies\n")
    assert upward_imports(graph_of_imports(tmp_path)) == ["camera imports io"]


def test_readme_shows_the_same_layers():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    picture = re.search(r"<!-- layers -->\n```text\n(.*?)```", readme, re.DOTALL)
    assert picture, "README lost its picture of the layers"
    lines = [re.split(r"\s{2,}", line)[0] for line in picture[1].splitlines()]
    assert [set(line.split()) for line in reversed(lines)] == list(LAYERS)


@pytest.mark.parametrize("module", ["sureloc", "sureloc.cli.app", "sureloc.cli"])
def test_importing_the_front_door_loads_nothing_heavy(module, run_python):
    done = run_python("-c", f"import sys, {module}; print(*sys.modules)")
    assert set(done.stdout.split()) & set(HEAVY) == set()


def test_the_core_imports_no_window_no_web_framework_and_no_training(run_python):
    program = """
import json, pkgutil, sys
from importlib import import_module
import sureloc
sys.modules["lightning"] = sys.modules["tensorboard"] = None  # as if they were not installed
lacking = []
for module in pkgutil.walk_packages(sureloc.__path__, "sureloc."):
    if not module.name.startswith("sureloc.viewer."):
        try:
            import_module(module.name)
        except ModuleNotFoundError as error:
            assert error.name.partition(".")[0] == "lightning", error
            lacking.append(module.name)
print(json.dumps([lacking, [name for name, module in sys.modules.items() if module]]))
"""
    lacking, imported = json.loads(run_python("-c", program).stdout)
    assert set(lacking) == TRAINING
    assert {name.partition(".")[0] for name in imported} & FOREIGN == set()
    assert {"sureloc.io.movies", "torch"} <= set(imported)


def brought_by(dependencies: list[str]) -> set[str]:
    """Names of all packages that pip brings for some requirements."""
    left, seen = [Requirement(one) for one in dependencies], set()
    while left:
        one = left.pop()
        name = canonicalize_name(one.name)
        if (name, *one.extras) in seen:
            continue
        seen.add((name, *one.extras))
        try:
            further = [Requirement(text) for text in metadata.requires(name) or ()]
        except metadata.PackageNotFoundError:  # of another platform
            continue
        left += [
            other
            for other in further
            if not other.marker
            or any(other.marker.evaluate({"extra": extra}) for extra in (one.extras or {""}))
        ]
    return {name for name, *_ in seen}


def test_installing_without_extras_brings_no_window_and_no_web_framework():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    foreign = {canonicalize_name(name) for name in FOREIGN}
    brought = brought_by(project["dependencies"])
    assert brought & foreign == set()
    assert {"torch", "sympy"} <= brought  # what requirements require is looked at too
    training = project["optional-dependencies"]["train"]
    assert {"lightning", "aiohttp", "werkzeug"} <= brought_by(training)
    assert set(training) <= set(project["optional-dependencies"]["test"])


def test_importing_any_module_changes_no_global_state(run_python):
    program = """
import logging, pkgutil, random
from importlib import import_module
from importlib.util import find_spec
import numpy as np, torch
# Lightning draws from Python's random module while it is imported; that is its affair.
import lightning.pytorch
def state():
    return (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist(),
            torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
            str(np.geterr()), list(logging.getLogger().handlers), logging.getLogger().level)
before = state()
import sureloc
names = [m.name for m in pkgutil.walk_packages(sureloc.__path__, "sureloc.")]
if not find_spec("qtpy") or not find_spec("napari"):  # only the viewer's widgets need them
    names = [name for name in names if not name.startswith("sureloc.viewer.widgets.")]
assert len(names) > 20, names
for name in names:
    import_module(name)
    assert state() == before, f"importing {name} changes global state"
"""
    run_python("-c", program)
