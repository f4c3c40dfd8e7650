"""phi with dropout, which is left on to draw: Monte Carlo dropout (Gal and Ghahramani 2016)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sureloc.networks.phi import Phi


class DropoutPhi(Phi):
    """phi whose features are dropped at random behind every block while it trains and draws.

    Called as any phi it drops nothing.

    Attributes:
        dropout: share of features that is set to 0.
    """

    def __init__(
        self,
        width: int = 96,
        dilations: tuple[int, ...] = (1, 2, 2, 2, 1),
        dropout: float = 0.1,
    ) -> None:
        """Build a phi with dropout and the weights of a fresh start.

        Args:
            width: channels of the trunk.
            dilations: of each of its residual blocks, camera px.
            dropout: share of features that is set to 0.
        """
        super().__init__(width, dilations)
        self.dropout = dropout

    def drawn(
        self, frames: Float[Tensor, "tiles channels height width"], generator: torch.Generator
    ) -> Float[Tensor, "tiles 1 fine_height fine_width"]:
        """Draw an image of each tile: the estimate with some features dropped.

        Args:
            frames: `network_input` channels.
            generator: source of which features go.
        """
        features: Tensor = self.stem(frames)
        for block in self.blocks:
            features = self._thinned(block(features), generator)
        return self.read(functional.silu(features))

    def _thinned(self, features: Tensor, generator: torch.Generator) -> Tensor:
        unit = torch.rand(features.shape, generator=generator, device=features.device)
        # What is kept grows, so that sums stay what they are on average.
        return features * ((unit >= self.dropout) / (1.0 - self.dropout))
