"""Documented shapes and types are checked while testing (conftest installs the hook)."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError


def test_a_wrong_shape_is_refused_in_tests():
    from sureloc.physics.image import render_tiles
    from sureloc.physics.psf import GaussianPSF

    two, three = torch.zeros(1, 2), torch.zeros(1, 3)
    render_tiles(two, two, two, GaussianPSF.round(1.0), (8, 8))
    with pytest.raises(TypeCheckError, match="y_px"):
        render_tiles(two, three, two, GaussianPSF.round(1.0), (8, 8))


def test_tests_compute_in_one_thread():
    assert torch.get_num_threads() == 1
