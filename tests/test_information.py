"""Fisher information and the Cramer-Rao bound: laws, limits, and automatic differentiation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sureloc.errors import InputError
from sureloc.physics.image import render_tiles
from sureloc.physics.information import (
    exact_pixel_information,
    isolated_bound,
    joint_bound,
    pixel_information,
)
from sureloc.physics.likelihood import shifted_poisson_log_likelihood
from sureloc.physics.psf import GaussianPSF
from sureloc.physics.tile_model import Background, Emitters, into_blocks, linearize

PSF = GaussianPSF(1.1, 0.9)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def scene(seed=0, tiles=2, count=4, shape=(13, 17), level=5.0, sd=math.inf):
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(3, tiles, count, generator=generator, dtype=torch.float64)
    emitters = Emitters.all_present(u[0] * (shape[1] - 1), u[1] * (shape[0] - 1), 300 + 1000 * u[2])
    slope = torch.linspace(-1, 1, shape[1], dtype=torch.float64).expand(shape)
    basis = torch.stack((torch.ones_like(slope), slope))[None]
    background = Background(basis, tensor(level, 1.0).expand(tiles, 2), tensor(sd, sd))
    read_variance = 1 + 8 * torch.rand(1, *shape, generator=generator, dtype=torch.float64)
    return emitters, background, read_variance


def expected_by_autograd(theta, background, tiles, count, psf=PSF):
    """Render from one flat vector, by none of the code under test but the PSF."""
    emitters = theta[:, : 3 * count].view(tiles, count, 3)
    light = render_tiles(*emitters.unbind(-1), psf, background.shape)
    weights = theta[:, 3 * count :]
    return light + torch.einsum("bt,bthw->bhw", weights, background.basis.expand(tiles, -1, -1, -1))


def flat(emitters, background):
    own = torch.stack((emitters.x_px, emitters.y_px, emitters.photons), dim=-1).flatten(1)
    return torch.cat((own, background.coefficients), dim=1)


# 13 x 17 px is one block, 20 x 40 px is six, of which some hang over the edge.
@pytest.mark.parametrize("shape", [(13, 17), (20, 40)])
def test_jacobian_agrees_with_automatic_differentiation(shape):
    emitters, background, _ = scene(shape=shape)
    theta = flat(emitters, background)
    both = torch.autograd.functional.jacobian(
        lambda t: expected_by_autograd(t, background, 2, 4), theta
    )
    truth = torch.stack([both[k, :, :, k, :] for k in range(2)]).movedim(-1, 1)
    tiles = linearize(emitters, background, PSF)
    probe = torch.rand(2, *shape, dtype=torch.float64)
    gradient = torch.einsum("bphw,bhw->bp", truth, probe)
    fisher = torch.einsum("bphw,bhw,bqhw->bpq", truth, probe, truth)
    size = torch.diagonal(fisher, dim1=1, dim2=2).sqrt()
    assert ((tiles.gradient(probe) - gradient) / size).abs().max() < 1e-6
    error = (tiles.information(probe) - fisher) / (size[:, :, None] * size[:, None, :])
    assert error.abs().max() < 1e-6


def test_fisher_matrix_is_the_mean_curvature_of_the_likelihood():
    emitters, background, variance = scene(tiles=1, count=2, shape=(9, 10))
    theta = flat(emitters, background)
    mean = expected_by_autograd(theta, background, 1, 2)
    noise = 1.7

    def likelihood(t):  # the Hessian is linear in the data: at their mean, it is its mean
        image = expected_by_autograd(t.view(1, -1), background, 1, 2)
        return shifted_poisson_log_likelihood(mean, image, variance, noise).sum()

    hessian = -torch.autograd.functional.hessian(likelihood, theta.flatten())
    told = pixel_information(mean, variance, noise)
    fisher = linearize(emitters, background, PSF).information(told)[0]
    size = hessian.diagonal().sqrt()
    assert ((fisher - hessian) / size / size[:, None]).abs().max() < 1e-6
    bound = joint_bound(emitters, background, variance, PSF, noise).matrix[0]
    inverse = torch.linalg.inv(hessian)
    assert ((bound - inverse) * size * size[:, None]).abs().max() < 1e-4


def test_curvature_agrees_with_automatic_differentiation():
    for shape in ((9, 10), (8, 40)):
        emitters, background, _ = scene(tiles=1, count=3, shape=shape)
        probe = torch.randn(1, *shape, dtype=torch.float64)
        theta = flat(emitters, background)

        def total(t, background=background, probe=probe):
            return (expected_by_autograd(t.view(1, -1), background, 1, 3) * probe).sum()

        hessian = torch.autograd.functional.hessian(total, theta.flatten())
        curvature = linearize(emitters, background, PSF).curvature(probe)[0]
        for k in range(3):
            mine = slice(3 * k, 3 * k + 3)
            torch.testing.assert_close(curvature[k], hessian[mine, mine], atol=1e-3, rtol=1e-5)
            hessian[mine, mine] = 0
        assert hessian.abs().max() == 0  # nothing but an emitter's own second derivatives


def centred(photons, background=0.0, variance=0.0, side=25, sigma=1.0, sd=math.inf, exact=False):
    """Standard error of x of one emitter in the middle of a wide tile."""
    emitters = Emitters.all_present(
        tensor([side / 2 - 0.3]), tensor([side / 2 - 0.6]), tensor([photons])
    )
    level = Background.constant(tensor(background), (side, side), sd)
    read = torch.full((1, side, side), variance, dtype=torch.float64)
    bound = joint_bound(emitters, level, read, GaussianPSF.round(sigma), exact=exact)
    return bound.var_x_px2.item() ** 0.5, bound.var_photons.item() ** 0.5


def test_without_background_precision_goes_with_the_square_root_of_photons():
    # Known background (sd 0) of 1e-9 electrons: pure shot noise. With pixels this small, the
    # continuous result of Ober 2004, sigma / sqrt(N), holds but for the pixel's own width
    # (sigma^2 + 1/12 to first order).
    for photons in (100.0, 10_000.0):
        sigma = 2.0
        error_x, error_photons = centred(photons, 1e-9, sigma=sigma, sd=0.0)
        assert error_x == pytest.approx(math.sqrt((sigma**2 + 1 / 12) / photons), rel=2e-3)
        assert error_photons == pytest.approx(math.sqrt(photons), rel=1e-3)
    ratio = centred(100.0, 1e-9)[0] / centred(400.0, 1e-9)[0]
    assert ratio == pytest.approx(2.0, rel=1e-3)


def test_under_background_precision_goes_with_photons():
    few, more = centred(1.0, 50.0, 100.0), centred(2.0, 50.0, 100.0)
    assert few[0] / more[0] == pytest.approx(2.0, rel=5e-3)
    assert few[1] / more[1] == pytest.approx(1.0, rel=5e-3)
    # sum (d PSF / dx)^2 = 1 / (8 pi sigma^4) for a Gaussian much wider than a pixel
    error_x, _ = centred(1.0, 100.0, 50.0, sigma=2.0)
    assert error_x == pytest.approx(math.sqrt(150 * 8 * math.pi * 2.0**4), rel=0.03)


def test_read_variance_counts_like_background():
    assert centred(500.0, 2.0, 7.0) == pytest.approx(centred(500.0, 9.0, 0.0), rel=1e-9)
    assert centred(500.0, 2.0, 7.0)[0] > 1.1 * centred(500.0, 2.0, 0.0)[0]


def test_excess_noise_divides_the_information_of_shot_noise():
    told = pixel_information(tensor(3.0), tensor(4.0), 2.0)
    assert told.item() == pytest.approx(1 / (2 * 3 + 4))


def test_a_pixel_of_huge_read_variance_tells_nothing():
    emitters, background, variance = scene(tiles=1)
    dead = variance.clone()
    x, y = round(emitters.x_px[0, 0].item()), round(emitters.y_px[0, 0].item())
    dead[:, y, x] = 1e9
    less, more = (joint_bound(emitters, background, v, PSF) for v in (dead, variance))
    assert torch.all(less.var_x_px2 >= more.var_x_px2 * (1 - 1e-9))
    assert less.var_photons[0, 0] > 1.1 * more.var_photons[0, 0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    x=st.floats(-1, 11),
    y=st.floats(-1, 9),
    photons=st.floats(20, 5000),
)
def test_one_more_emitter_never_adds_information(seed, x, y, photons):
    emitters, background, variance = scene(seed, tiles=1, count=3, shape=(9, 11))
    one_more = Emitters.all_present(
        torch.cat((emitters.x_px, tensor([x])), dim=1),
        torch.cat((emitters.y_px, tensor([y])), dim=1),
        torch.cat((emitters.photons, tensor([photons])), dim=1),
    )
    before = joint_bound(emitters, background, variance, PSF)
    after = joint_bound(one_more, background, variance, PSF)
    for name in ("var_x_px2", "var_y_px2", "var_photons"):
        grown = getattr(after, name)[0, :3] / getattr(before, name)[0]
        assert torch.all(grown >= 1 - 1e-6), (name, grown)
    old = [*range(9), 12, 13]
    rise = after.matrix[0][old][:, old] - before.matrix[0]
    size = before.matrix[0].diagonal().sqrt()
    values = torch.linalg.eigvalsh(rise / size / size[:, None])
    assert values.min() > -1e-6 - 1e-14 * values.max()  # eigenvalues round by the largest


@settings(max_examples=60, deadline=None)
@given(omega=st.floats(0.01, 300), v=st.floats(1e-3, 300))
def test_exact_information_lies_between_its_bounds(omega, v):
    # Any camera tells no more than the electrons themselves (1 / omega), and at least what the
    # reading, an unbiased estimate of variance omega + v, does: 1 / (omega + v).
    exact = exact_pixel_information(tensor(omega), tensor(v)).item()
    assert 1 / (omega + v) * (1 - 1e-9) <= exact <= 1 / omega * (1 + 1e-9)


def test_exact_information_in_its_limits():
    omega = tensor(0.05, 0.5, 5.0, 50.0)
    silent = exact_pixel_information(omega, torch.full_like(omega, 3e-3)) * omega
    torch.testing.assert_close(silent, torch.ones_like(omega), rtol=1e-9, atol=0)
    # Nearly noiseless: misread counts, first to appear, cost erfc(1 / sqrt(8 v)) or so.
    bright = exact_pixel_information(tensor(2000.0), tensor(4.0)) * 2004
    assert bright.item() == pytest.approx(1.0, abs=1e-6)
    # Almost no light: (density shifted by one electron - density)^2 / density, e^(1/v) - 1.
    for v in (0.5, 2.0):
        dark = exact_pixel_information(tensor(1e-6), tensor(v)).item()
        assert dark == pytest.approx(math.expm1(1 / v), rel=1e-4)


def test_exact_bound_is_a_little_lower_and_needs_no_excess_noise():
    assert 0.9 < centred(300.0, 1.0, 2.0, exact=True)[0] / centred(300.0, 1.0, 2.0)[0] < 1
    emitters, background, variance = scene(tiles=1)
    with pytest.raises(InputError, match="excess_noise is 2"):
        joint_bound(emitters, background, variance, PSF, 2.0, exact=True)


def test_padding_does_not_count_and_is_nan():
    emitters, background, variance = scene(shape=(20, 40))
    nothing = torch.full((2, 2), math.nan, dtype=torch.float64)
    padded = Emitters(
        *(
            torch.cat((nothing[:, :1], v, nothing), dim=1)
            for v in (emitters.x_px, emitters.y_px, emitters.photons)
        ),
        torch.tensor([[False, True, True, True, True, False, False]] * 2),
    )
    bare, wide = (joint_bound(e, background, variance, PSF) for e in (emitters, padded))
    torch.testing.assert_close(wide.var_x_px2[:, 1:5], bare.var_x_px2, rtol=1e-12, atol=0)
    assert wide.cov_xy_px2[:, [0, 5, 6]].isnan().all()
    assert wide.matrix.isfinite().all()
    assert wide.matrix[:, :3].abs().max() == 0


def test_alone_each_emitter_is_bounded_as_in_its_own_tile():
    emitters, background, variance = scene(count=3, shape=(20, 40))
    psf = GaussianPSF(tensor([1.0, 1.1, 1.2], [0.9, 1.3, 1.4]), tensor([1.0], [1.5]))
    together = isolated_bound(emitters, background, variance, psf)
    assert together.matrix.shape == (2, 3, 5, 5)
    for tile in range(2):
        for k in range(3):
            at = torch.tensor([tile])
            one = Emitters.all_present(
                emitters.x_px[at, k, None],
                emitters.y_px[at, k, None],
                emitters.photons[at, k, None],
            )
            width = GaussianPSF(psf.sigma_x_px[tile, k].item(), psf.sigma_y_px[tile, 0].item())
            alone = joint_bound(one, background.of_tiles(at), variance, width)
            # The widest PSF of the batch sets the support: 1e-6 of the flux, see above.
            torch.testing.assert_close(
                together.matrix[tile, k], alone.matrix[0], rtol=1e-5, atol=1e-9
            )
            assert together.var_x_px2[tile, k].item() == pytest.approx(
                alone.var_x_px2.item(), rel=1e-5
            )
    joint = joint_bound(emitters, background, variance, psf)
    assert torch.all(joint.var_x_px2 >= together.var_x_px2 * (1 - 1e-9))


def test_what_is_known_of_the_background_helps():
    errors = [centred(300.0, 5.0, 2.0, 11, sd=sd)[1] for sd in (0.0, 0.2, 1.0, math.inf)]
    assert errors == sorted(errors)
    assert errors[0] < 0.98 * errors[-1]
    assert centred(300.0, 5.0, 2.0, 11, sd=1e-6)[1] == pytest.approx(errors[0], rel=1e-6)
    assert centred(300.0, 5.0, 2.0, 11, sd=1e6)[1] == pytest.approx(errors[-1], rel=1e-6)


def test_emitters_that_cannot_be_told_apart_leave_the_others_alone():
    background = Background.constant(tensor(5.0), (12, 12))
    read = torch.ones(1, 12, 12, dtype=torch.float64)
    pair = Emitters.all_present(
        tensor([3.0, 3.0, 9.0]), tensor([3.0, 3.0, 9.0]), tensor([500.0] * 3)
    )
    single = Emitters.all_present(tensor([3.0, 9.0]), tensor([3.0, 9.0]), tensor([1000.0, 500.0]))
    together = joint_bound(pair, background, read, PSF)
    apart = joint_bound(single, background, read, PSF)
    assert together.var_x_px2[0, 0] > 1e3 * apart.var_x_px2[0, 0]
    assert together.var_x_px2[0, 2] == pytest.approx(apart.var_x_px2[0, 1].item(), rel=1e-3)


def test_blocks_hold_every_pixel_once():
    image = torch.arange(20 * 40.0).view(1, 1, 20, 40)
    blocks = into_blocks(image)
    assert blocks.shape == (1, 6, 1, 256)
    assert blocks[0, 1, 0, :16].tolist() == list(range(16, 32))
    assert sorted(blocks.flatten().tolist())[-799:] == list(range(1, 800))


def test_a_negative_spread_of_the_background_is_refused():
    with pytest.raises(InputError, match="sd is"):
        Background.constant(tensor(1.0), (4, 4), -1.0)
