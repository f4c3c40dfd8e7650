"""The script that breaks the physics on purpose keeps up with the code."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from conftest import ROOT

_SPEC = importlib.util.spec_from_file_location("break_physics", ROOT / "scripts/break_physics.py")
break_physics = importlib.util.module_from_spec(_SPEC)


@pytest.fixture(autouse=True, scope="module")
def loaded():
    import sys

    sys.modules["break_physics"] = break_physics
    _SPEC.loader.exec_module(break_physics)
    yield
    del sys.modules["break_physics"]


def test_every_break_finds_its_text_and_its_tests(tmp_path):
    assert len(break_physics.BREAKS) == 5
    for i, one in enumerate(break_physics.BREAKS):
        package = tmp_path / str(i)
        (package / one.file).parent.mkdir(parents=True)
        shutil.copy(ROOT / "src/sureloc" / one.file, package / one.file)
        break_physics.apply(one, package)
        assert (package / one.file).read_text() != (ROOT / "src/sureloc" / one.file).read_text()
        compile((package / one.file).read_text(), one.file, "exec")
        for test in one.tests:
            file, name = test.split("::")
            assert f"def {name}(" in (ROOT / "tests" / file).read_text()


def test_a_break_whose_text_is_gone_is_told(tmp_path):
    one = break_physics.BREAKS[0]
    (tmp_path / one.file).parent.mkdir()
    (tmp_path / one.file).write_text("nothing")
    with pytest.raises(SystemExit, match="0 times instead of once"):
        break_physics.apply(one, tmp_path)
