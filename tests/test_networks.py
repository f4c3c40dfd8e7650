"""phi and Psi as functions: shapes, reach, size, and results that depend on nothing but a tile."""

from __future__ import annotations

import math

import pytest
import torch

from sureloc.errors import InputError
from sureloc.networks.blocks import ResidualBlock, fold, unfold
from sureloc.networks.normalization import CHANNELS, RADIUS_PX, network_input
from sureloc.networks.phi import PaperPhi, Phi
from sureloc.networks.posterior import posterior_images, psi_denoiser
from sureloc.networks.psi import NoiseLevelEmbedding, Psi, SplitPsi, coarse, refined, with_sums
from sureloc.networks.weights import (
    Card,
    KarrasLevels,
    Networks,
    PhiCard,
    PsiCard,
    build_networks,
    load_weights,
)


def stirred(network, seed=0):
    """Give every weight a value, also those that start at 0, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    for value in network.parameters():
        value.data = 0.1 * torch.randn(value.shape, generator=generator)
    return network.double().eval().requires_grad_(False)


def small_networks(seed=0) -> Networks:
    card = Card(
        name="test",
        phi=PhiCard(width=8, dilations=(1, 2)),
        psi=PsiCard(
            conditioning="both",
            condition_width=8,
            condition_blocks=2,
            width=8,
            dilations=(1, 2),
            embedding=8,
        ),
        kernel_sigma_fine_px=1.0,
        levels=KarrasLevels(kind="karras", sigma_min=0.03, sigma_max=80.0, rho=7.0),
    )
    networks = build_networks(card)
    for network in (networks.phi, networks.psi):
        stirred(network, seed).float()
    return networks


def frame(height, width, seed=0, count=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.full((count, height, width), 30.0), generator=generator)


# --- Shapes and sizes ---------------------------------------------------------------------------


def test_fold_keeps_the_fine_pixels_of_a_camera_pixel_together_and_unfold_undoes_it(torch_rng):
    fine = torch.rand((3, 1, 20, 28), generator=torch_rng)
    assert torch.equal(unfold(fold(fine)), fine)
    assert torch.equal(fold(fine)[1, :, 2, 3], fine[1, 0, 8:12, 12:16].reshape(16))


@pytest.mark.parametrize(("height", "width"), [(20, 20), (9, 31)])
def test_estimates_have_four_times_the_sampling(height, width):
    frames = torch.randn(2, CHANNELS, height, width)
    for network in (Phi(width=8, dilations=(1,)), PaperPhi(width=8, dilations=(1, 2))):
        assert network(frames).shape == (2, 1, 4 * height, 4 * width)


@pytest.mark.parametrize("conditioning", ["yhat", "x", "both"])
def test_psi_sees_what_its_conditioning_names(conditioning):
    psi = stirred(Psi(conditioning=conditioning, trunk_width=8, width=8, embedding=8))
    seen = {
        "frames": torch.randn(1, CHANNELS, 12, 12).double(),
        "trunk": torch.randn(1, 8, 12, 12).double(),
        "estimate": torch.randn(1, 16, 12, 12).double(),
    }
    base = psi.condition(**seen)
    depends = {
        name: not torch.equal(psi.condition(**(seen | {name: value + 1.0})), base)
        for name, value in seen.items()
    }
    both = conditioning == "both"
    assert depends == {
        "frames": both or conditioning == "x",
        "trunk": both,
        "estimate": both or conditioning == "yhat",
    }
    noisy = torch.randn(1, 16, 12, 12).double()
    assert psi(noisy, torch.zeros(1).double(), base).shape == (1, 16, 12, 12)


def test_the_default_networks_have_at_most_3_million_parameters():
    count = sum(p.numel() for network in (Phi(), Psi()) for p in network.parameters())
    assert 1e6 < count <= 3e6


def test_fresh_networks_estimate_and_denoise_nothing():
    frames = torch.randn(1, CHANNELS, 10, 10)
    assert Phi()(frames).abs().max() == 0
    assert torch.equal(ResidualBlock(6)(frames), frames)
    psi = Psi(trunk_width=8)
    condition = psi.condition(frames, torch.randn(1, 8, 10, 10), torch.randn(1, 16, 10, 10))
    assert psi(torch.randn(1, 16, 10, 10), torch.zeros(1), condition).abs().max() == 0


def test_the_papers_estimate_stays_in_its_range(torch_rng):
    network = PaperPhi(width=8, dilations=(1, 2))
    network.head.weight.data *= 100
    estimate = network(torch.randn((2, CHANNELS, 12, 12), generator=torch_rng))
    assert estimate.min() == -1
    assert estimate.max() == 1


def test_the_papers_estimate_is_read_in_the_unit_of_every_phi(torch_rng):
    network = PaperPhi(width=8, dilations=(1, 2)).eval()
    frames = torch.randn((2, CHANNELS, 12, 12), generator=torch_rng)
    trunk = network.trunk(frames)
    assert trunk.shape == (2, network.trunk_width, 12, 12)
    scaled = network(frames)
    assert scaled.std() > 0
    torch.testing.assert_close(network.read(trunk), (scaled + 1) / 2)


def test_noise_levels_are_told_apart_over_their_whole_range():
    embedding = NoiseLevelEmbedding(16)
    log_sigma = torch.linspace(-4, 4.4, 60)
    seen = []
    embedding.layers = torch.nn.Identity()
    seen = embedding(-2 * log_sigma)
    assert seen.shape == (60, 16)
    distance = torch.cdist(seen, seen) + 10 * torch.eye(60)
    # 0.14 apart in ln sigma; the fastest wave alone turns by 0.6 radians.
    assert distance.min() > 0.5


def test_psi_depends_on_the_noise_level():
    psi = stirred(Psi(trunk_width=8, width=8, embedding=8))
    noisy, condition = torch.randn(1, 16, 6, 6).double(), torch.zeros(1, 16, 6, 6).double()
    low, high = (psi(noisy, torch.tensor([v]).double(), condition) for v in (-4.0, 4.0))
    assert not torch.allclose(low, high, rtol=0.01)


# --- Reach --------------------------------------------------------------------------------------


def reach_px(function, size, fine):
    """Give how far (camera px) a change of the middle pixel is felt in a function's result."""
    inputs = torch.randn(1, CHANNELS, size, size, dtype=torch.float64)
    changed = inputs.clone()
    changed[:, :, size // 2, size // 2] += 1.0
    felt = (function(inputs) != function(changed)).any(dim=1)[0]
    places = felt.nonzero()
    if fine:
        places = places // 4
    return int((places - size // 2).abs().max())


@pytest.mark.parametrize("dilations", [(1,), (1, 2, 2), (3, 1)])
def test_phi_reaches_exactly_as_far_as_it_says(dilations):
    network = stirred(Phi(width=6, dilations=dilations))
    assert reach_px(network, 61, fine=True) == network.radius_px - RADIUS_PX


def test_the_papers_phi_reaches_no_farther_than_it_says():
    network = stirred(PaperPhi(width=6, dilations=(1, 2, 4)))
    reach = reach_px(network, 61, fine=True)
    assert network.radius_px - RADIUS_PX - 2 <= reach <= network.radius_px - RADIUS_PX


@pytest.mark.parametrize(("blocks", "dilations"), [(1, (1,)), (3, (1, 2))])
def test_psi_reaches_exactly_as_far_as_it_says(blocks, dilations):
    psi = stirred(
        Psi(
            conditioning="x",
            condition_width=6,
            condition_blocks=blocks,
            width=6,
            dilations=dilations,
            embedding=6,
        )
    )
    noisy, unseen = torch.randn(2, 1, 16, 61, 61).double()

    def run(frames):
        condition = psi.condition(frames, unseen[:, :1], unseen)
        return psi(noisy, torch.zeros(1).double(), condition)

    assert reach_px(run, 61, fine=False) == psi.radius_px


@pytest.mark.parametrize("windows", [(3, 9), (1,), (33,)])
def test_psi_with_windows_reaches_as_far_as_its_largest_one_lets_it(windows):
    psi = stirred(
        Psi("x", condition_width=6, condition_blocks=1, width=6, dilations=(1,), windows=windows)
    )
    noisy, unseen = torch.randn(2, 1, 16, 61, 61).double()

    def of_frames(frames):
        return psi(noisy, torch.zeros(1).double(), psi.condition(frames, unseen[:, :1], unseen))

    def of_noise(inputs):
        seen = inputs.repeat(1, 16, 1, 1)[:, :16]
        frames = torch.zeros(1, CHANNELS, 61, 61).double()
        condition = psi.condition(frames, unseen[:, :1], unseen)
        return psi(seen, torch.zeros(1).double(), condition)

    assert reach_px(of_noise, 61, fine=False) == 4 + max(windows) // 2
    reaches = [reach_px(run, 61, fine=False) for run in (of_frames, of_noise)]
    assert psi.radius_px == max(reaches)


def test_sums_over_windows_keep_white_noise_white_and_lift_what_is_alike(torch_rng):
    windows = (1, 3, 5, 9)
    noise = torch.randn((4000, 16, 12, 12), generator=torch_rng)
    found = with_sums(noise, windows)
    assert torch.equal(found[:, :16], noise)
    # Squares round one pixel of 4,000 tiles: 5 standard errors of a variance of 1.
    middle = found[:, 16:, 6, 6]
    assert (middle.var(0) - 1).abs().max() < 5 * (2 / 4000) ** 0.5
    # What all fine pixels share stands out by the root of their number.
    alike = with_sums(torch.full((1, 16, 12, 12), 0.1), windows)[0, 16:, 6, 6]
    wanted = torch.tensor([0.1 * 4 * side for side in windows])
    torch.testing.assert_close(alike, wanted)
    # One bright pixel is in the squares that hold it, and beyond the edge is nothing.
    spot = torch.zeros(1, 16, 12, 12)
    spot[0, 3, 0, 1] = 2.0
    seen = with_sums(spot, (3,))[0, 16]
    assert set(map(tuple, seen.nonzero().tolist())) == {(r, c) for r in (0, 1) for c in (0, 1, 2)}
    torch.testing.assert_close(seen[0, 0], torch.tensor(2.0 / 12))


# --- Two networks by noise ----------------------------------------------------------------------


def split_psi(**noisier) -> SplitPsi:
    sizes = {"trunk_width": 8, "condition_width": 6, "condition_blocks": 1, "embedding": 6}
    parts = (
        Psi(width=6, dilations=(1, 2), **sizes, **noisier),
        Psi(width=4, dilations=(1,), **sizes),
    )
    return stirred(SplitPsi(2.0, *parts))


def seen_by_split(psi, height, width):
    frames = torch.randn(1, CHANNELS, height, width).double()
    trunk, estimate = (torch.randn(1, n, height, width).double() for n in (8, 16))
    return psi.condition(frames, trunk, estimate), (frames, trunk, estimate)


def test_each_noise_level_is_run_by_its_own_network():
    psi = split_psi()
    condition, seen = seen_by_split(psi, 9, 10)
    sigmas = torch.tensor([50.0, 2.001, 2.0, 1.999, 0.3]).double()
    log_snr = -2 * sigmas.log()
    noisy = torch.randn(5, 16, 9, 10).double()
    found = psi(noisy, log_snr, condition)
    for i, sigma in enumerate(sigmas.tolist()):
        part = psi.noisier if sigma >= 2 else psi.quieter
        alone = part(noisy[i : i + 1], log_snr[i : i + 1], part.condition(*seen))
        torch.testing.assert_close(found[i : i + 1], alone, rtol=0, atol=1e-12)
        network, its_condition = psi.at(float(log_snr[i]), condition)
        assert network is part
        torch.testing.assert_close(its_condition, part.condition(*seen), rtol=0, atol=1e-12)
    # One level for all draws, and a condition for each.
    both = psi(noisy, log_snr[:1], condition.expand(5, -1, -1, -1))
    torch.testing.assert_close(both[0], found[0], rtol=0, atol=1e-12)


def test_two_networks_reach_as_far_as_the_farther_one_and_share_their_unit():
    psi = split_psi(windows=(33,))
    assert psi.radius_px == psi.noisier.radius_px > psi.quieter.radius_px
    assert split_psi(overview=1).radius_px is None
    assert [name for name in psi.state_dict() if "scale" in name] == ["residual_scale"]


def test_draws_run_the_network_of_each_level():
    """The denoiser of a draw is that of the network that training trains at its level."""
    psi = split_psi()
    condition, _ = seen_by_split(psi, 8, 8)
    denoise = psi_denoiser(psi, condition, torch.autocast("cpu", enabled=False))
    noisy = torch.randn(3, 16, 8, 8).double()
    for sigma in (30.0, 0.5):
        gamma = 1 / (1 + sigma**2)
        raw = psi(noisy, torch.tensor([-2 * math.log(sigma)]).double(), condition)
        wanted = gamma**0.5 * noisy + (1 - gamma) ** 0.5 * raw
        torch.testing.assert_close(denoise(noisy, gamma).double(), wanted, rtol=0, atol=1e-5)


# --- Tiles and frames ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20, 20), (21, 30)])
def test_an_overview_sees_far_and_keeps_shapes(shape):
    psi = stirred(
        Psi("x", condition_width=6, condition_blocks=1, width=6, dilations=(1,), overview=2)
    )
    assert psi.radius_px is None
    noisy, unseen = torch.randn(2, 2, 16, *shape).double()
    frames = torch.randn(1, CHANNELS, *shape).double()

    def run(frames, noisy):
        condition = psi.condition(frames, unseen[:1, :1], unseen[:1])
        return psi(noisy, torch.zeros(1).double(), condition)

    before = run(frames, noisy)
    assert before.shape == noisy.shape
    # One pixel of a corner, of the frame or of the noise, is felt in the middle 8 px away or more,
    # where the same network without its overview feels nothing.
    for changed in (frames, noisy):
        changed[:, :, 0, 0] += 1.0
        after = run(frames, noisy)
        assert (after[:, :, 10, 10] != before[:, :, 10, 10]).any()
        before = after
    near = stirred(Psi("x", condition_width=6, condition_blocks=1, width=6, dilations=(1,)))
    assert near.radius_px < 10
    # Averages of squares that the edge cuts are over what there is.
    ones = torch.ones(1, 1, *shape)
    assert torch.equal(refined(coarse(ones), *shape), ones)


def test_a_tile_with_its_halo_gives_what_the_whole_frame_gives():
    networks = small_networks()
    phi, psi = networks.phi.double(), networks.psi.double()
    side, halo, start = 6, networks.radius_px, 3
    size = side + 2 * halo + 2 * start
    electrons, variance = frame(size, size).double(), torch.ones(1, size, size).double()
    noise = torch.randn(1, 16, size, size).double()

    def one_step(part):
        rows = columns = part
        optics = torch.ones(1).double()
        frames = network_input(
            electrons[:, rows, columns], variance[:, rows, columns], optics, optics
        )
        trunk = phi.trunk(frames)
        estimate = fold(phi.read(trunk))
        condition = psi.condition(frames, trunk, estimate)
        return torch.cat(
            [estimate, psi(noise[:, :, rows, columns], torch.zeros(1).double(), condition)], dim=1
        )

    whole = one_step(slice(None))
    tile = one_step(slice(start, start + side + 2 * halo))
    inner = slice(halo + start, halo + start + side)
    torch.testing.assert_close(
        tile[:, :, halo:-halo, halo:-halo], whole[:, :, inner, inner], rtol=0, atol=1e-12
    )
    # Of the outermost pixels little arrives; without four of them it shows.
    short = slice(start + 4, start + side + 2 * halo - 4)
    cut = one_step(short)[:, :, halo - 4 : 4 - halo, halo - 4 : 4 - halo]
    assert (cut - whole[:, :, inner, inner]).abs().max() > 1e-11


# --- Posterior images ---------------------------------------------------------------------------


def images(networks, electrons, numbers, draws=3, **changes):
    variance = torch.ones(electrons.shape[1:])
    return posterior_images(
        networks, electrons, variance, 1.3, 1.0, draws, 7, numbers, **({"evaluations": 3} | changes)
    )


def test_posterior_images_do_not_depend_on_batch_or_order():
    networks, electrons = small_networks(), frame(12, 14, count=3)
    together = images(networks, electrons, [4, 9, 2])
    assert together.yhat.shape == (3, 48, 56)
    assert together.draws.shape == (3, 3, 48, 56)
    for i, number in enumerate([4, 9, 2]):
        alone = images(networks, electrons[i : i + 1], [number])
        assert torch.equal(alone.yhat[0], together.yhat[i])
        assert torch.equal(alone.draws[0], together.draws[i])
    backwards = images(networks, electrons.flip(0), [2, 9, 4])
    assert torch.equal(backwards.draws.flip(0), together.draws)


def test_a_draw_does_not_depend_on_how_many_are_drawn():
    networks, electrons = small_networks(), frame(20, 20)
    few, many = (images(networks, electrons, [0], n, precision="float32") for n in (2, 11))
    # Sums over a batch of another size may round differently, by parts of 1e-7 a layer.
    torch.testing.assert_close(few.draws, many.draws[:, :2], rtol=1e-3, atol=1e-5)


def test_draws_differ_by_frame_number_draw_and_seed():
    networks, electrons = small_networks(), frame(10, 10)
    one, two = (images(networks, electrons, [number]).draws[0] for number in (0, 1))
    assert not torch.equal(one, two)
    assert not torch.equal(one[0], one[1])


def test_no_draws_give_the_estimate_alone():
    result = images(small_networks(), frame(10, 10), [0], draws=0)
    assert result.draws.shape == (1, 0, 40, 40)


def test_variance_may_differ_by_frame():
    networks, electrons = small_networks(), frame(10, 10, count=2)
    variance = torch.stack([torch.ones(10, 10), torch.full((10, 10), 50.0)])
    each = posterior_images(networks, electrons, variance, 1.3, 1.0, 0, 0, [0, 1]).yhat
    alone = posterior_images(networks, electrons[1:], variance[1], 1.3, 1.0, 0, 0, [1]).yhat
    assert torch.equal(each[1], alone[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numbers": [0, 1]}, "2 frame numbers came with 1 frames"),
        ({"draws": -1}, "draws is -1"),
        ({"evaluations": 0}, "evaluations 0"),
    ],
)
def test_impossible_requests_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        images(small_networks(), frame(8, 8), **({"numbers": [0]} | changes))


def test_the_shipped_networks_find_a_bright_emitter_and_are_sure_of_it():
    from sureloc.physics.image import render_frames
    from sureloc.physics.psf import GaussianPSF

    at = torch.tensor([9.6]), torch.tensor([10.3])
    light = render_frames(
        *at, torch.tensor([3000.0]), torch.tensor([0]), GaussianPSF.round(1.3), (1, 20, 20)
    )
    electrons = torch.poisson(light + 10.0, generator=torch.Generator().manual_seed(0))
    result = posterior_images(
        load_weights("default"), electrons, torch.ones(20, 20), 1.3, 1.0, 16, 0, [0]
    )
    masses = result.draws[0, :, 32:56, 28:52].sum(dim=(1, 2))
    # A lone emitter of 3,000 e-: every draw has it, once. Measured: mass 1.05 with an sd of 0.22.
    assert masses.mean().item() == pytest.approx(1.0, abs=0.15)
    assert masses.std().item() < 0.35
    row, column = divmod(int(result.yhat[0].argmax()), 80)
    assert abs(column / 4 - 0.375 - 9.6) < 0.26
    assert abs(row / 4 - 0.375 - 10.3) < 0.26
