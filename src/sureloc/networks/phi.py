"""phi: frames in, the mean of their kernel density images out (seed 3.1, 3.4, appendix)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sureloc.networks import normalization
from sureloc.networks.blocks import ResidualBlock, unfold

Frames = Float[Tensor, "tiles channels height width"]
Trunk = Float[Tensor, "tiles width height width_px"]


class PhiNetwork(nn.Module):
    """What Psi, its training and weights files ask of any phi.

    Attributes:
        trunk_width: channels of what `trunk` gives.
        radius_px: an output pixel depends on camera pixels at most this far away.
    """

    trunk_width: int
    radius_px: int

    @abstractmethod
    def trunk(self, frames: Tensor) -> Tensor:
        """Give the features behind the output, which Psi may reuse.

        Args:
            frames: channels of `network_input`, (tiles, channels, rows, columns).

        Returns:
            (tiles, trunk_width, rows, columns).
        """

    @abstractmethod
    def read(self, trunk: Tensor) -> Tensor:
        """Turn `trunk` features into the estimate, one emitter's peak about 1.

        Returns:
            (tiles, 1, fine rows, fine columns).
        """


class Phi(PhiNetwork):
    """The default: all at camera resolution, the fine pixels folded into channels at the end.

    Its output is the mass per fine pixel divided by `unit`, a number that brings one emitter's
    peak to about 1. Trained by mean-squared error it estimates the posterior mean of the image.

    Attributes:
        width: channels of the trunk.
    """

    def __init__(self, width: int = 96, dilations: tuple[int, ...] = (1, 2, 2, 2, 1)) -> None:
        """Build a phi with the weights of a fresh start, which estimates 0.

        Args:
            width: channels of the trunk.
            dilations: of each of its residual blocks, camera px.
        """
        super().__init__()
        self.width = self.trunk_width = width
        self.stem = nn.Conv2d(normalization.CHANNELS, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width, dilation) for dilation in dilations))
        self.head = nn.Conv2d(width, 16, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.radius_px = normalization.RADIUS_PX + 2 + sum(1 + dilation for dilation in dilations)

    def trunk(
        self, frames: Float[Tensor, "tiles channels height width"]
    ) -> Float[Tensor, "tiles features height width"]:
        """Give the features behind the output, which Psi may reuse."""
        return functional.silu(self.blocks(self.stem(frames)))

    def read(
        self, trunk: Float[Tensor, "tiles features height width"]
    ) -> Float[Tensor, "tiles 1 fine_height fine_width"]:
        """Turn `trunk` features into the estimate."""
        return unfold(self.head(trunk))

    def forward(
        self, frames: Float[Tensor, "tiles channels height width"]
    ) -> Float[Tensor, "tiles 1 fine_height fine_width"]:
        """Estimate the image of `network_input` channels."""
        return self.read(self.trunk(frames))


class _ContextBlock(nn.Module):
    """Convolution with a dilation, batch normalisation and ReLU, as DeepSTORM3D has them."""

    def __init__(self, channels: int, width: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, features: Tensor) -> Tensor:
        """Give features of the same height and width."""
        return functional.relu(self.norm(self.conv(features)))


class PaperPhi(PhiNetwork):
    """The paper's: dilated context, two nearest-neighbour resize-convolutions, three refinements.

    Source: seed 3.4 and appendix, after DeepSTORM3D (Nehme 2020). The output is in [-1, 1]; `read`
    scales it to the unit of every phi. Its trunk is what is up-sampled: context and frame.
    """

    def __init__(self, width: int = 64, dilations: tuple[int, ...] = (1, 2, 4, 8, 4, 2)) -> None:
        """Build the paper's phi with the weights of a fresh start.

        Args:
            width: channels of every block.
            dilations: of each context block, camera px.
        """
        super().__init__()
        self.trunk_width = width + normalization.CHANNELS
        channels = [normalization.CHANNELS] + [self.trunk_width] * len(dilations)
        # Every context block sees the frame again beside the features, as DeepSTORM3D does.
        self.context = nn.ModuleList(
            _ContextBlock(count, width, dilation)
            for count, dilation in zip(channels, dilations, strict=False)
        )
        self.up = nn.ModuleList(
            _ContextBlock(count, width, 1) for count in (self.trunk_width, width)
        )
        self.refine = nn.ModuleList(_ContextBlock(width, width, 1) for _ in range(3))
        self.head = nn.Conv2d(width, 1, 1)
        self.radius_px = normalization.RADIUS_PX + sum(dilations) + 3

    def trunk(
        self, frames: Float[Tensor, "tiles channels height width"]
    ) -> Float[Tensor, "tiles features height width"]:
        """Give context and frame, at camera resolution."""
        features = self.context[0](frames)
        for block in self.context[1:]:
            features = block(torch.cat([features, frames], dim=1))
        return torch.cat([features, frames], dim=1)

    def read(
        self, trunk: Float[Tensor, "tiles features height width"]
    ) -> Float[Tensor, "tiles 1 fine_height fine_width"]:
        """Turn `trunk` features into the estimate, one emitter's peak 1."""
        return 0.5 * (1.0 + self._scaled(trunk))

    def forward(
        self, frames: Float[Tensor, "tiles channels height width"]
    ) -> Float[Tensor, "tiles 1 fine_height fine_width"]:
        """Estimate the image, scaled to [-1, 1], of `network_input` channels."""
        return self._scaled(self.trunk(frames))

    def _scaled(self, features: Tensor) -> Tensor:
        for block in self.up:
            features = block(functional.interpolate(features, scale_factor=2.0, mode="nearest"))
        for block in self.refine:
            features = block(features)
        return functional.hardtanh(self.head(features))
