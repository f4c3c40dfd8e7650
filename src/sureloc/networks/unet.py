"""The paper's Psi: a U-Net at the fine resolution that runs whole at every step (seed 4.2).

After Ho et al. 2020 (appendix B) and Saharia et al. 2021, whose architecture the seed takes: the
frame, up-sampled by bicubic interpolation, and phi's estimate are concatenated with the noisy
image. The seed puts self-attention at 16 x 16, which halving 80 x 80 never reaches (40, 20, 10);
here it is placed by the number of halvings, by default where 80 x 80 has become 20 x 20.

Normalisation and attention look at the whole tile: unlike the default Psi, this one gives another
image for a part of a frame than for the frame.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sureloc.networks import normalization
from sureloc.networks.blocks import fold, unfold
from sureloc.networks.psi import Conditioning, NoiseLevelEmbedding, PsiNetwork

_GROUPS = 32  # of Ho et al. 2020; fewer where channels are no multiple of it
_FINE = 4


class SelfAttention(nn.Module):
    """x + attention of every pixel to every other, one head (Ho et al. 2020); starts as x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _group_norm(channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zero(nn.Conv2d(channels, channels, 1))

    def forward(
        self, features: Float[Tensor, "draws channels rows columns"]
    ) -> Float[Tensor, "draws channels rows columns"]:
        """Add what the other pixels say; shapes stay."""
        pixels = self.query_key_value(self.norm(features)).flatten(2).transpose(1, 2)
        query, key, value = (part.contiguous() for part in pixels.chunk(3, dim=2))
        said = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out(said.transpose(1, 2).reshape(features.shape))
        return features + out


class UNetBlock(nn.Module):
    """Two normalised convolutions beside a skip; the noise level scales and shifts the second.

    After the normalisation, as Dhariwal and Nichol 2021 do: a shift before it, as in Ho et al.
    2020, is lost where a group holds one channel.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, attends: bool) -> None:
        super().__init__()
        self.first_norm = _group_norm(inputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.second_norm = _group_norm(outputs)
        self.second = _zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = SelfAttention(outputs) if attends else nn.Identity()

    def forward(
        self,
        features: Float[Tensor, "draws inputs rows columns"],
        embedded: Float[Tensor, "#draws embedding"],
    ) -> Float[Tensor, "draws outputs rows columns"]:
        """Give features of the same height and width."""
        scale, shift = self.modulation(embedded)[:, :, None, None].chunk(2, dim=1)
        inner = self.second_norm(self.first(functional.silu(self.first_norm(features))))
        inner = self.second(functional.silu(torch.addcmul(shift, inner, 1 + scale)))
        out: Tensor = self.attention(self.skip(features) + inner)
        return out


class UNetPsi(PsiNetwork):
    """The paper's denoiser f(yhat, x, y_t, gamma) with the interface of the default Psi.

    Tiles of any size: what halving cannot divide is padded with zeros at the far edges, which a
    channel of `network_input` tells from the frame.

    Attributes:
        radius_px: None, as an output pixel depends on the whole tile.
    """

    radius_px = None

    def __init__(
        self,
        conditioning: Conditioning = "both",
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 4, 8, 16),
        blocks: int = 2,
        attention_halvings: tuple[int, ...] = (2,),
        embedding: int = 256,
    ) -> None:
        """Build a U-Net with the weights of a fresh start, which denoises nothing.

        Args:
            conditioning: "yhat" sees phi's estimate, "x" the frame, "both" both.
            width: channels at the fine resolution.
            multipliers: of the channels after 0, 1, 2... halvings.
            blocks: residual blocks before each halving; one more after each doubling.
            attention_halvings: where blocks attend to the whole tile; it also does in the middle.
            embedding: width of the noise level's embedding.
        """
        super().__init__()
        self.conditioning = conditioning
        seen = {"yhat": 1, "x": normalization.CHANNELS, "both": 1 + normalization.CHANNELS}
        widths = [width * multiplier for multiplier in multipliers]
        self.embedding = NoiseLevelEmbedding(embedding)
        self.stem = nn.Conv2d(1 + seen[conditioning], width, 3, padding=1)

        def block(inputs: int, outputs: int, halvings: int) -> UNetBlock:
            return UNetBlock(inputs, outputs, embedding, halvings in attention_halvings)

        down, skips, now = nn.ModuleList(), [width], width
        for i, wide in enumerate(widths):
            for _ in range(blocks):
                down.append(block(now, wide, i))
                now = wide
                skips.append(now)
            if i < len(widths) - 1:
                down.append(nn.Conv2d(now, now, 3, stride=2, padding=1))
                skips.append(now)
        self.down = down
        self.middle = nn.ModuleList(
            [UNetBlock(now, now, embedding, True), UNetBlock(now, now, embedding, False)]
        )
        up = nn.ModuleList()
        for i, wide in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                up.append(block(now + skips.pop(), wide, i))
                now = wide
            if i > 0:
                up.append(nn.Conv2d(now, now, 3, padding=1))
        self.up = up
        self.head_norm = _group_norm(now)
        self.head = _zero(nn.Conv2d(now, 1, 3, padding=1))
        self._multiple = 2 ** (len(widths) - 1)

    def condition(
        self,
        frames: Float[Tensor, "tiles channels rows columns"],
        trunk: Float[Tensor, "tiles features rows columns"],  # noqa: ARG002 - the paper's sees none
        estimate: Float[Tensor, "tiles 16 rows columns"],
    ) -> Float[Tensor, "tiles features_out rows columns"]:
        """Give the fine images that are concatenated with the noisy one, folded.

        Args:
            frames: channels of `network_input`, up-sampled by bicubic interpolation.
            trunk: not looked at.
            estimate: phi's estimate, folded.
        """
        seen = []
        if self.conditioning != "x":
            seen.append(unfold(estimate))
        if self.conditioning != "yhat":
            seen.append(
                functional.interpolate(
                    frames.to(estimate), scale_factor=float(_FINE), mode="bicubic"
                )
            )
        return functional.pixel_unshuffle(torch.cat(seen, dim=1), _FINE)

    def forward(
        self,
        noisy: Float[Tensor, "draws 16 rows columns"],
        log_snr: Float[Tensor, " #draws"],
        condition: Float[Tensor, "#draws features rows columns"],
    ) -> Float[Tensor, "draws 16 rows columns"]:
        """Run the network at one noise level of each draw.

        Args:
            noisy: y_t, folded.
            log_snr: ln(gamma / (1 - gamma)), of each draw or one for all.
            condition: the result of `condition`, of each draw or one for all.
        """
        seen = functional.pixel_shuffle(condition, _FINE).to(noisy)
        fine = torch.cat([unfold(noisy), seen.expand(noisy.shape[0], -1, -1, -1)], dim=1)
        height, width = fine.shape[2:]
        embedded = self.embedding(log_snr)
        far = (0, -width % self._multiple, 0, -height % self._multiple)
        features = self.stem(functional.pad(fine, far))
        skips = [features]
        for layer in self.down:
            features = layer(features, embedded) if _is_block(layer) else layer(features)
            skips.append(features)
        for layer in self.middle:
            features = layer(features, embedded)
        for layer in self.up:
            if _is_block(layer):
                features = layer(torch.cat([features, skips.pop()], dim=1), embedded)
            else:
                doubled = functional.interpolate(features, scale_factor=2.0, mode="nearest")
                features = layer(doubled)
        out = self.head(functional.silu(self.head_norm(features)))
        return fold(out[:, :, :height, :width])


def _is_block(layer: nn.Module) -> bool:
    return isinstance(layer, UNetBlock)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(_GROUPS, channels), channels)


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
