"""Values of drawn pixels, moved so that each range of them holds as many draws as truths.

A network that draws in few evaluations may give too many pixels between "nothing" and "an emitter"
although their mean and spread are right. Where phi expects about the same, the values of draws have
one law and the true ones another; the increasing map from the quantiles of the one to those of the
other (optimal transport on a line; quantile mapping in weather forecasts, Panofsky and Brier 1968)
gives draws the law of the truth and keeps their order. It is fitted on simulations and kept with
the weights as a table of shifts over phi's estimate and the drawn value.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

LEAST_ESTIMATE, MOST_ESTIMATE = 0.01, 1.6  # peaks of one emitter; beyond, as at the ends
LEAST_VALUE, MOST_VALUE = -0.25, 3.0
FINE_VALUE = 0.01  # below it values are told apart evenly, above by their ratio
ESTIMATES, VALUES = 24, 512


class PixelMap(nn.Module):
    """Shifts the values of drawn pixels; without a fit it shifts nothing.

    Attributes:
        shift: over estimates (evenly in their logarithm) and values (evenly in asinh), in units of
            one emitter's peak, (`ESTIMATES`, `VALUES`).
    """

    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(ESTIMATES, VALUES))

    def forward(
        self,
        draws: Float[Tensor, "draws fine_height fine_width"],
        estimate: Float[Tensor, "#draws fine_height fine_width"],
    ) -> Float[Tensor, "draws fine_height fine_width"]:
        """Move the values of draws.

        Args:
            draws: in units of one emitter's peak.
            estimate: phi's of the same tile, of each draw or one for all.
        """
        column = _from_end_to_end(value_coordinate(draws), *_VALUE_ENDS)
        row = _from_end_to_end(estimate_coordinate(estimate), *_ESTIMATE_ENDS)
        place = torch.stack([column, row.expand_as(column)], dim=-1)
        shift = functional.grid_sample(
            self.shift[None, None],
            place.reshape(1, -1, draws.shape[2], 2),
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
        )
        return draws + shift.reshape(draws.shape)


def estimate_coordinate(estimate: Tensor) -> Tensor:
    """Give the coordinate in which estimates are spread evenly."""
    return estimate.clamp(LEAST_ESTIMATE, MOST_ESTIMATE).log()


def value_coordinate(value: Tensor) -> Tensor:
    """Give the coordinate in which values are spread evenly."""
    return torch.asinh(value / FINE_VALUE)


def grid_values() -> Float[Tensor, " values"]:
    """Give the values at which shifts are kept."""
    return FINE_VALUE * torch.linspace(*_VALUE_ENDS, VALUES, dtype=torch.float64).sinh()


def nearest_estimate(estimate: Tensor) -> Tensor:
    """Give the number of the kept estimate that is nearest, 0 to `ESTIMATES` - 1."""
    place = _from_end_to_end(estimate_coordinate(estimate), *_ESTIMATE_ENDS)
    return (0.5 * (place + 1.0) * (ESTIMATES - 1)).round().long()


def _from_end_to_end(coordinate: Tensor, low: float, high: float) -> Tensor:
    """Put -1 and 1 at the ends, as `grid_sample` counts."""
    return 2.0 * (coordinate - low) / (high - low) - 1.0


_VALUE_ENDS = math.asinh(LEAST_VALUE / FINE_VALUE), math.asinh(MOST_VALUE / FINE_VALUE)
_ESTIMATE_ENDS = math.log(LEAST_ESTIMATE), math.log(MOST_ESTIMATE)
