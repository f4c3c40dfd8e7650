"""Ticks of logarithmic axes as plain numbers, so few that they do not run into one another."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

_SUBDIVISIONS = (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)  # of a decade, the finest first


class _PlainLocator(LogLocator):
    """Ticks at 1, 2 and 5, at fewer where these are many, and evenly where hardly any is seen."""

    def __init__(self, most: int) -> None:
        super().__init__(numticks=most)
        self._most = most

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Give the ticks between two values."""
        for subdivision in _SUBDIVISIONS:
            self.set_params(subs=subdivision)
            seen = [tick for tick in super().tick_values(vmin, vmax) if vmin <= tick <= vmax]
            if len(seen) <= self._most:
                break
        return seen if len(seen) > 1 else list(MaxNLocator(3).tick_values(vmin, vmax))


def plain_log_ticks(axis: Axis, most: int = 8) -> None:
    """Give a logarithmic axis ticks with plain numbers at 1, 2 and 5 of a decade, at most so many.

    Args:
        axis: x or y of axes whose scale is logarithmic already.
        most: how many labels have room.
    """
    axis.set_major_locator(_PlainLocator(most))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
