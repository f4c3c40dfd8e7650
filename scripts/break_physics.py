"""Break the physics in five ways and see that named tests notice each.

    python scripts/break_physics.py

Works on a copy of the package; the named tests must pass on the copy as it is, and each must fail
where it is named beside a break. Takes about two minutes and leaves with 1 if a break goes unseen.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Break:
    """One mistake: texts of a file that are replaced, and the tests that must fail then."""

    name: str
    file: str
    texts: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]


BREAKS = (
    Break(
        "drop the read variance",
        "physics/likelihood.py",
        (("shift = read_variance_e2 / excess_noise", "shift = 0.0 * read_variance_e2"),),
        (
            "test_likelihood.py::test_scores_have_mean_zero_and_the_information_as_variance",
            "test_information.py::test_fisher_matrix_is_the_mean_curvature_of_the_likelihood",
        ),
    ),
    Break(
        "shift by half a pixel",
        "physics/psf.py",
        (
            ("columns - x_px[..., None],", "columns + 0.5 - x_px[..., None],"),
            ("rows - y_px[..., None],", "rows + 0.5 - y_px[..., None],"),
        ),
        (
            "test_psf.py::test_all_photons_fall_somewhere_and_at_their_place",
            "test_image.py::test_x_runs_along_columns_y_down_rows_and_centres_lie_at_whole_numbers",
        ),
    ),
    Break(
        "swap x and y",
        "physics/psf.py",
        (
            ("columns - x_px[..., None],", "columns - y_px[..., None],"),
            ("rows - y_px[..., None],", "rows - x_px[..., None],"),
        ),
        (
            "test_psf.py::test_derivatives_of_images_follow_columns_and_rows",
            "test_image.py::test_x_runs_along_columns_y_down_rows_and_centres_lie_at_whole_numbers",
            "test_image.py::test_patches_give_what_whole_tiles_give_also_over_the_edge",
        ),
    ),
    Break(
        "halve the background",
        "physics/tile_model.py",
        (("+ background.images()", "+ 0.5 * background.images()"),),
        ("test_information.py::test_fisher_matrix_is_the_mean_curvature_of_the_likelihood",),
    ),
    Break(
        "forget the gain squared",
        "camera.py",
        (("variance / gain**2", "variance / gain"),),
        (
            "test_noise.py::test_read_variance_in_electrons_goes_with_the_gain_squared_and_holds"
            "_the_rounding",
        ),
    ),
)


def apply(one: Break, package: Path) -> None:
    """Replace a break's texts in a copy of the package, each of which must be there just once."""
    path = package / one.file
    source = path.read_text(encoding="utf-8")
    for old, _ in one.texts:
        if source.count(old) != 1:
            sys.exit(
                f"{one.name}: {one.file} holds {old!r} {source.count(old)} times instead of once; "
                "name the text that is there now."
            )
    for i, (old, _) in enumerate(one.texts):
        source = source.replace(old, f"\0{i}\0")
    for i, (_, new) in enumerate(one.texts):
        source = source.replace(f"\0{i}\0", new)
    path.write_text(source, encoding="utf-8")


def failing(tests: tuple[str, ...], copy: Path) -> set[str]:
    """Run tests on the package in `copy`; give those that fail, for any of their parameters."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(  # noqa: S603
        [*command, "-rfE", "-n0", *(f"tests/{test}" for test in tests)],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy / "src"), "HYPOTHESIS_STORAGE_DIRECTORY": "h"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        sys.exit(f"{', '.join(tests)} could not be run:\n{done.stdout}{done.stderr}")
    failed = re.findall(r"^(?:FAILED|ERROR) tests/([\w./]+::\w+)", done.stdout, re.MULTILINE)
    if bool(failed) != bool(done.returncode):
        sys.exit(f"what fails is not told:\n{done.stdout}{done.stderr}")
    return set(failed)


def copy_project(target: Path) -> Path:
    """Copy package, tests and settings; make sure that tests in it import the copied package."""
    ignored = shutil.ignore_patterns("__pycache__")
    for part in ("src", "tests"):
        shutil.copytree(ROOT / part, target / part, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", target)
    where = subprocess.run(
        [sys.executable, "-c", "import sureloc; print(sureloc.__file__)"],
        env=os.environ | {"PYTHONPATH": str(target / "src")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if not Path(where).is_relative_to(target):
        sys.exit(f"the copy in {target} is not what Python imports, but {where}")
    return target / "src" / "sureloc"


def run_breaks(breaks: tuple[Break, ...]) -> None:
    """Run every named test on the whole package and on each broken one."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        package = copy_project(copy)
        named = tuple(sorted({test for one in breaks for test in one.tests}))
        if failed := failing(named, copy):
            sys.exit(f"{', '.join(sorted(failed))}: fails although nothing is broken")
        print("nothing broken: all named tests pass", flush=True)
        unseen = 0
        for one in breaks:
            kept = (package / one.file).read_text(encoding="utf-8")
            apply(one, package)
            failed = failing(one.tests, copy)
            for test in one.tests:
                unseen += test not in failed
                told = "seen by" if test in failed else "UNSEEN by"
                print(f"{one.name:48} {told:9} {test}", flush=True)
            (package / one.file).write_text(kept, encoding="utf-8")
    sys.exit(1 if unseen else 0)


if __name__ == "__main__":
    run_breaks(BREAKS)
