"""The scripts that break the code on purpose keep up with it."""

from __future__ import annotations

import importlib
import shutil
import sys

import pytest

from conftest import ROOT


@pytest.fixture(scope="module", params=["break_physics", "break_diffusion"])
def script(request):
    sys.path.insert(0, str(ROOT / "scripts"))
    yield importlib.import_module(request.param)
    sys.path.remove(str(ROOT / "scripts"))


def test_every_break_finds_its_text_and_its_tests(script, tmp_path):
    assert len(script.BREAKS) >= 5
    for i, one in enumerate(script.BREAKS):
        package = tmp_path / str(i)
        (package / one.file).parent.mkdir(parents=True)
        shutil.copy(ROOT / "src/sureloc" / one.file, package / one.file)
        sys.modules["break_physics"].apply(one, package)
        assert (package / one.file).read_text() != (ROOT / "src/sureloc" / one.file).read_text()
        compile((package / one.file).read_text(), one.file, "exec")
        for test in one.tests:
            file, name = test.split("::")
            assert f"def {name}(" in (ROOT / "tests" / file).read_text()


def test_a_break_whose_text_is_gone_is_told(script, tmp_path):
    one = script.BREAKS[0]
    (tmp_path / one.file).parent.mkdir()
    (tmp_path / one.file).write_text("nothing")
    with pytest.raises(SystemExit, match="0 times instead of once"):
        sys.modules["break_physics"].apply(one, tmp_path)
