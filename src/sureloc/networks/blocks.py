"""Building blocks that phi and Psi share; convolutions pad with zeros and nothing else does.

Nothing is normalised over space: an output pixel depends on a finite neighbourhood only, so that a
tile with a halo gives exactly what the whole frame gives.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), the last convolution starting at 0 (He 2016, Zhang 2019)."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]
        self.radius_px = 1 + dilation

    def forward(
        self, features: Float[Tensor, "tiles width rows columns"]
    ) -> Float[Tensor, "tiles width rows columns"]:
        """Add the block's correction; shapes stay."""
        correction: Tensor = self.second(functional.silu(self.first(functional.silu(features))))
        return features + correction


def fold(
    fine: Float[Tensor, "tiles 1 fine_height fine_width"],
) -> Float[Tensor, "tiles 16 height width"]:
    """Fold the 4 x 4 fine pixels of each camera pixel into channels (space-to-depth)."""
    return functional.pixel_unshuffle(fine, 4)


def unfold(
    folded: Float[Tensor, "tiles 16 height width"],
) -> Float[Tensor, "tiles 1 fine_height fine_width"]:
    """Undo `fold`."""
    return functional.pixel_shuffle(folded, 4)
