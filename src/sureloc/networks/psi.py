"""Psi: draws the residual that phi leaves, given a frame and a noise level (seed 3.1 to 3.3).

What does not depend on the noise, `Psi.condition`, runs once a tile; what runs at every step of
every draw, `Psi.forward`, is thin. Both work at camera resolution, fine pixels folded into
channels, and look at a finite neighbourhood only. The paper's own network, with the same interface,
is in `sureloc.networks.unet`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sureloc.networks import normalization
from sureloc.networks.blocks import ResidualBlock

Conditioning = Literal["yhat", "x", "both"]
_FOLDED = 16
COARSE_PX = 4  # camera pixels along a side of a pixel of the overview
_FREQUENCIES = 8


class NoiseLevelEmbedding(nn.Module):
    """Sines and cosines of the log signal-to-noise ratio, then two layers (seed 3.3, appendix)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # ln sigma runs over about -4 to 4; the slowest wave must not repeat on it.
        wavenumbers = 2 * math.pi / 16 * 2.0 ** (torch.arange(_FREQUENCIES) / 2)
        self.wavenumbers: Tensor
        self.register_buffer("wavenumbers", wavenumbers, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )

    def forward(self, log_snr: Float[Tensor, " tiles"]) -> Float[Tensor, "tiles width"]:
        """Embed ln(1 / sigma^2)."""
        phase = -0.5 * log_snr[:, None] * self.wavenumbers
        embedded: Tensor = self.layers(torch.cat([phase.sin(), phase.cos()], dim=1))
        return embedded


class StepBlock(nn.Module):
    """A residual block whose activations the noise level scales and shifts, the frame shifts."""

    def __init__(self, width: int, embedding: int, dilation: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(embedding, 2 * width)
        self.first = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        for layer in (self.modulation, self.second):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(
        self,
        features: Float[Tensor, "tiles width rows columns"],
        embedded: Float[Tensor, "#tiles embedding"],
        condition: Float[Tensor, "#tiles width rows columns"],
    ) -> Float[Tensor, "tiles width rows columns"]:
        """Add the block's correction; shapes stay."""
        # In place, and with ReLU, since memory is what this costs: see benchmarks of the step.
        modulation = self.modulation(embedded)[:, :, None, None]
        width = features.shape[1]
        scale, shift = modulation[:, :width], modulation[:, width:]
        inner = torch.addcmul(condition + shift, features, 1 + scale).relu_()
        out: Tensor = self.second(self.first(inner).relu_())
        return out.add_(features)


def coarse(
    features: Float[Tensor, "tiles width rows columns"],
) -> Float[Tensor, "tiles width coarse_rows coarse_columns"]:
    """Average squares of 4 x 4 camera pixels; those at the far edges over what is there."""
    return functional.avg_pool2d(features, COARSE_PX, ceil_mode=True, count_include_pad=False)


def refined(
    features: Float[Tensor, "tiles width coarse_rows coarse_columns"], rows: int, columns: int
) -> Float[Tensor, "tiles width rows columns"]:
    """Give every camera pixel its square's value, the adjoint of `coarse` but for a factor."""
    return functional.interpolate(features, scale_factor=COARSE_PX)[:, :, :rows, :columns]


def with_sums(
    noisy: Float[Tensor, "draws 16 rows columns"], windows: tuple[int, ...]
) -> Float[Tensor, "draws channels rows columns"]:
    """Add the sum of the noise's channels over squares round each camera pixel, a channel each.

    Each is divided by the square root of its number of fine pixels: white noise keeps its variance,
    and what is alike over the square stands out of it so much the more. Beyond the edges is zero.

    Args:
        noisy: folded.
        windows: sides of the squares, camera px, odd.
    """
    if not windows:
        return noisy
    pixel = noisy.sum(1, keepdim=True) / math.sqrt(_FOLDED)
    sums = [functional.avg_pool2d(pixel, side, 1, side // 2) * side for side in windows]
    return torch.cat([noisy, *sums], dim=1)


class Conditioner(nn.Module):
    """Features of a tile that every draw and every step reuse.

    Attributes:
        kind: "yhat" sees phi's estimate alone, "x" the frame alone, "both" both, the frame also
            through the features behind phi's estimate.
        overview: blocks on squares of 4 x 4 px, through which each pixel sees how bright and how
            crowded its surroundings are.
    """

    def __init__(
        self,
        kind: Conditioning,
        trunk_width: int,
        width: int,
        blocks: int,
        outputs: int,
        overview: int = 0,
    ) -> None:
        super().__init__()
        self.kind = kind
        channels = {
            "yhat": _FOLDED,
            "x": normalization.CHANNELS,
            "both": _FOLDED + normalization.CHANNELS + trunk_width,
        }[kind]
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width, 1 + i % 2) for i in range(blocks)))
        self.overview = nn.Sequential(*(ResidualBlock(width) for _ in range(overview)))
        self.head = nn.Conv2d(width, outputs, 1)
        self.radius_px = 1 + sum(2 + i % 2 for i in range(blocks))

    def forward(
        self,
        frames: Float[Tensor, "tiles channels rows columns"],
        trunk: Float[Tensor, "tiles features rows columns"],
        estimate: Float[Tensor, "tiles 16 rows columns"],
    ) -> Float[Tensor, "tiles outputs rows columns"]:
        """Give the features of a tile."""
        seen = {
            "yhat": [estimate],
            "x": [frames],
            "both": [estimate, frames, trunk],
        }[self.kind]
        features: Tensor = self.blocks(self.stem(torch.cat(seen, dim=1)))
        if len(self.overview) > 0:
            wide = self.overview(coarse(features))
            features = features + refined(wide, *features.shape[2:])
        out: Tensor = self.head(functional.silu(features))
        return out


class PsiNetwork(nn.Module):
    """What training, samplers and weights files ask of any Psi.

    It is the raw network: `sureloc.diffusion.denoisers` tells what its output means. Its data are
    u = (y - centre) / `residual_scale`, folded (`sureloc.networks.posterior.centre_of`).

    Attributes:
        residual_scale: root mean square of y - centre over held-out tiles, in phi's unit.
        radius_px: an output pixel depends on camera pixels of its inputs at most this far away;
            None where it depends on the whole tile.
    """

    residual_scale: Tensor
    radius_px: int | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("residual_scale", torch.ones(()))

    @abstractmethod
    def condition(self, frames: Tensor, trunk: Tensor, estimate: Tensor) -> Tensor:
        """Give what `forward` needs to know of a tile, once for all steps and draws.

        Args:
            frames: channels of `network_input`, (tiles, channels, rows, columns).
            trunk: the features behind phi's estimate, (tiles, features, rows, columns).
            estimate: phi's estimate, folded, (tiles, 16, rows, columns).
        """

    @abstractmethod
    def forward(self, noisy: Tensor, log_snr: Tensor, condition: Tensor) -> Tensor:
        """Run one step's network on y_t, (draws, 16, rows, columns); the shape stays.

        Args:
            noisy: y_t, folded.
            log_snr: ln(gamma / (1 - gamma)), of each draw or one for all.
            condition: the result of `condition`, of each draw or one for all.
        """

    def at(
        self, log_snr: float, condition: Float[Tensor, "#draws features rows columns"]
    ) -> tuple[PsiNetwork, Float[Tensor, "#draws some_features rows columns"]]:
        """Give the network that runs at one noise level, and its part of the condition."""
        del log_snr
        return self, condition


class Psi(PsiNetwork):
    """The default: a thin network per step on features computed once a tile.

    It is the raw network F of Karras et al. 2022, eq. 7; `sureloc.diffusion.denoisers` puts the
    preconditioning round it.

    With an overview, blocks on squares of 4 x 4 px follow the first block of the step and the
    conditioner, so that a draw can be wrong about a whole tile's brightness in one piece. Its
    squares are counted from the tile's first pixel: a tile with a halo no longer gives exactly what
    the whole frame gives.

    With windows, the step also sees sums of the noisy residual over squares (`with_sums`). Where
    the noise is strong, a pixel tells hardly anything and a square how many emitters there are; a
    network that has to find such sums by itself learns them last.
    """

    def __init__(
        self,
        conditioning: Conditioning = "both",
        trunk_width: int = 96,
        condition_width: int = 64,
        condition_blocks: int = 3,
        width: int = 64,
        dilations: tuple[int, ...] = (1, 2),
        embedding: int = 64,
        overview: int = 0,
        windows: tuple[int, ...] = (),
    ) -> None:
        """Build a Psi with the weights of a fresh start.

        Args:
            conditioning: "yhat" sees phi's estimate alone, "x" the frame alone, "both" both.
            trunk_width: channels of the features behind phi's estimate.
            condition_width: channels of the part that runs once a tile.
            condition_blocks: its residual blocks.
            width: channels of the part that runs at every step.
            dilations: of each of its residual blocks, camera px.
            embedding: width of the noise level's embedding.
            overview: blocks on squares of 4 x 4 px, in both parts.
            windows: sides of the squares whose sums a step sees, camera px, odd.
        """
        super().__init__()
        self.width = width
        self.windows = windows
        self.features = width * (len(dilations) + overview)
        self.conditioner = Conditioner(
            conditioning, trunk_width, condition_width, condition_blocks, self.features, overview
        )
        self.embedding = NoiseLevelEmbedding(embedding)
        self.stem = nn.Conv2d(_FOLDED + len(windows), width, 3, padding=1)
        self.blocks = nn.ModuleList(StepBlock(width, embedding, d) for d in dilations)
        self.overview = nn.ModuleList(StepBlock(width, embedding, 1) for _ in range(overview))
        self.head = nn.Conv2d(width, _FOLDED, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        # The stem and the sums see the noisy residual only, not what the conditioner gives.
        stem = 1 + max(windows, default=1) // 2
        reach = max(self.conditioner.radius_px, stem) + 1 + sum(1 + d for d in dilations)
        self.radius_px = None if overview else reach

    def condition(
        self,
        frames: Float[Tensor, "tiles channels rows columns"],
        trunk: Float[Tensor, "tiles features rows columns"],
        estimate: Float[Tensor, "tiles 16 rows columns"],
    ) -> Float[Tensor, "tiles features_out rows columns"]:
        """Give what `forward` needs to know of a tile.

        Args:
            frames: channels of `network_input`.
            trunk: the features behind phi's estimate (`Phi.trunk`).
            estimate: phi's estimate, folded.
        """
        features: Tensor = self.conditioner(frames, trunk, estimate)
        return features

    def forward(
        self,
        noisy: Float[Tensor, "draws 16 rows columns"],
        log_snr: Float[Tensor, " #draws"],
        condition: Float[Tensor, "#draws features rows columns"],
    ) -> Float[Tensor, "draws 16 rows columns"]:
        """Run one step's network.

        Args:
            noisy: the noisy residual, scaled to unit variance.
            log_snr: ln(gamma / (1 - gamma)) = ln(1 / sigma^2), of each draw or one for all.
            condition: the result of `condition`, of each draw or one for all, which is cheaper.
        """
        embedded = self.embedding(log_snr)
        features = self.stem(with_sums(noisy, self.windows))
        parts = condition.chunk(len(self.blocks) + len(self.overview), 1)
        for number, (block, part) in enumerate(zip(self.blocks, parts, strict=False)):
            features = block(features, embedded, part)
            if number == 0 and len(self.overview) > 0:
                wide = coarse(features)
                for wide_block, wide_part in zip(
                    self.overview, parts[len(self.blocks) :], strict=True
                ):
                    wide = wide_block(wide, embedded, coarse(wide_part))
                features = features + refined(wide, *features.shape[2:])
        out: Tensor = self.head(features.relu_())
        return out


class SplitPsi(PsiNetwork):
    """Two networks, one for strong and one for weak noise (experts of Balaji et al. 2022).

    Strong noise leaves open how many emitters there are and where, and takes sums over many pixels
    to tell; weak noise leaves their exact images. One network has to learn both at once, and what
    it learns of the one disturbs the other. A draw runs one of the two at each of its steps, so
    that it costs no more; a tile is seen by both.

    Attributes:
        sigma: noise, in units of the residual's root mean square, from which on `noisier` runs.
    """

    def __init__(self, sigma: float, noisier: Psi, quieter: Psi) -> None:
        super().__init__()
        self.sigma = sigma
        self.noisier, self.quieter = noisier, quieter
        for part in (noisier, quieter):
            del part.residual_scale  # they share one, `SplitPsi.residual_scale`
        reaches = [part.radius_px for part in (noisier, quieter)]
        self.radius_px = None if None in reaches else max(r for r in reaches if r is not None)
        self._strong = -2.0 * math.log(sigma)  # log-SNR from which downwards `noisier` runs

    def condition(
        self,
        frames: Float[Tensor, "tiles channels rows columns"],
        trunk: Float[Tensor, "tiles features rows columns"],
        estimate: Float[Tensor, "tiles 16 rows columns"],
    ) -> Float[Tensor, "tiles features_out rows columns"]:
        """Give what both networks need to know of a tile, that of `noisier` first."""
        seen = [part.condition(frames, trunk, estimate) for part in (self.noisier, self.quieter)]
        return torch.cat(seen, dim=1)

    def at(
        self, log_snr: float, condition: Float[Tensor, "#draws features rows columns"]
    ) -> tuple[Psi, Float[Tensor, "#draws some_features rows columns"]]:
        """Give the network that runs at one noise level, and its part of the condition."""
        return self._part(log_snr <= self._strong, condition)

    def _part(self, strong: bool, condition: Tensor) -> tuple[Psi, Tensor]:
        if strong:
            return self.noisier, condition[:, : self.noisier.features]
        return self.quieter, condition[:, self.noisier.features :]

    def forward(
        self,
        noisy: Float[Tensor, "draws 16 rows columns"],
        log_snr: Float[Tensor, " #draws"],
        condition: Float[Tensor, "#draws features rows columns"],
    ) -> Float[Tensor, "draws 16 rows columns"]:
        """Run each draw's network; arguments are those of `Psi.forward`."""
        levels = log_snr.expand(len(noisy))
        conditions = condition.expand(len(noisy), -1, -1, -1)
        out = torch.empty_like(noisy)
        for strong in (True, False):
            which = torch.nonzero((levels <= self._strong) == strong)[:, 0]
            if len(which) > 0:
                network, part = self._part(strong, conditions)
                out[which] = network(noisy[which], levels[which], part[which]).to(out)
        return out
