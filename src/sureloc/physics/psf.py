"""Point-spread functions: the share of an emitter's photons that falls into each pixel.

A PSF answers one question, `images`, and its derivatives, `images_and_gradients` and
`weighted_curvatures`. Whatever answers them (a Gaussian now; an astigmatic or a measured PSF later)
can be rendered, bounded and refined. Far from the emitter the answer is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sureloc.errors import InputError

LOST_FLUX = 1e-6
_SUPPORT_SIGMAS = 5.6  # outside +-5.6 sigma lie 2.1e-8 of the flux per axis, 5e-8 in all


@runtime_checkable
class PSF(Protocol):
    """What the rest of sureloc asks of a point-spread function."""

    @property
    def support_radius_px(self) -> float:
        """Distance along an axis beyond which less than `LOST_FLUX` of the photons fall."""
        ...

    def images(
        self,
        x_px: Float[Tensor, "*emitters"],
        y_px: Float[Tensor, "*emitters"],
        columns: Float[Tensor, "..."],
        rows: Float[Tensor, "..."],
    ) -> Float[Tensor, "*emitters height width"]:
        """Give the share of photons per pixel."""
        ...

    def images_and_gradients(
        self,
        x_px: Float[Tensor, "*emitters"],
        y_px: Float[Tensor, "*emitters"],
        columns: Float[Tensor, "..."],
        rows: Float[Tensor, "..."],
    ) -> tuple[
        Float[Tensor, "*emitters height width"],
        Float[Tensor, "*emitters height width"],
        Float[Tensor, "*emitters height width"],
    ]:
        """Give the share of photons per pixel and its derivatives by x_px and y_px."""
        ...

    def weighted_curvatures(
        self,
        x_px: Float[Tensor, "*blocks emitters"],
        y_px: Float[Tensor, "*blocks emitters"],
        columns: Float[Tensor, "*blocks emitters width"],
        rows: Float[Tensor, "*blocks emitters height"],
        weight: Float[Tensor, "*blocks height width"],
    ) -> tuple[
        Float[Tensor, "*blocks emitters"],
        Float[Tensor, "*blocks emitters"],
        Float[Tensor, "*blocks emitters"],
    ]:
        """Give the second derivatives, by xx, xy and yy, of the pixels' weighted sum."""
        ...

    def of_emitters(self, tile: Int[Tensor, "..."], emitter: Int[Tensor, "..."]) -> PSF:
        """Give the PSF of some emitters of a batch; a PSF shared by all is its own answer."""
        ...


def pixel_integrals(
    distance: Float[Tensor, "*shape"], sigma: Float[Tensor, "..."]
) -> Float[Tensor, "*shape"]:
    """Integrate a unit Gaussian over unit pixels (seed eq. 11).

    Args:
        distance: pixel centre minus emitter position, px.
        sigma: standard deviation, px, broadcast against `distance`.

    Returns:
        The share of a one-dimensional Gaussian inside each pixel. It is computed from the
        complementary error function on the near side, so that tails keep their relative accuracy.
    """
    # erf(a) - erf(b) with a > b > 0 loses all digits in the tail; the Gaussian is even, so
    # measure from the far side and use erfc, which is accurate there.
    scale = 1.0 / (math.sqrt(2.0) * sigma)
    near = (distance.abs() - 0.5) * scale
    far = (distance.abs() + 0.5) * scale
    return 0.5 * (torch.erfc(near) - torch.erfc(far))


def pixel_integral_gradient(
    distance: Float[Tensor, "*shape"], sigma: Float[Tensor, "..."]
) -> Float[Tensor, "*shape"]:
    """Give the derivative of `pixel_integrals` by the emitter's position (1/px)."""
    scale = 1.0 / (math.sqrt(2.0) * sigma)
    lower = torch.exp(-(((distance - 0.5) * scale) ** 2))
    upper = torch.exp(-(((distance + 0.5) * scale) ** 2))
    return (lower - upper) * scale / math.sqrt(math.pi)


def pixel_integral_curvature(
    distance: Float[Tensor, "*shape"], sigma: Float[Tensor, "..."]
) -> Float[Tensor, "*shape"]:
    """Give the second derivative of `pixel_integrals` by the emitter's position (1/px^2)."""
    scale = 1.0 / (math.sqrt(2.0) * sigma)
    near, far = (distance - 0.5) * scale, (distance + 0.5) * scale
    lower, upper = near * torch.exp(-(near**2)), far * torch.exp(-(far**2))
    return (lower - upper) * 2.0 * scale**2 / math.sqrt(math.pi)


@dataclass(frozen=True)
class GaussianPSF:
    """A Gaussian integrated over square pixels (Zhang 2007; Smith 2010; seed eqs. 2, 10, 11).

    Attributes:
        sigma_x_px: standard deviation along columns, px: a number, or one per emitter.
        sigma_y_px: standard deviation along rows, px.

    Raises:
        InputError: a width is not finite or not larger than 0.
    """

    sigma_x_px: float | Float[Tensor, "..."]
    sigma_y_px: float | Float[Tensor, "..."]

    def __post_init__(self) -> None:
        for name in ("sigma_x_px", "sigma_y_px"):
            value = torch.as_tensor(getattr(self, name))
            if not bool(torch.all(torch.isfinite(value) & (value > 0))):
                raise InputError(
                    f"{name} is {getattr(self, name)}; the PSF width must be finite and larger "
                    "than 0 pixels (0.8 to 1.8 is usual)."
                )

    @classmethod
    def round(cls, sigma_px: float | Float[Tensor, "..."]) -> GaussianPSF:
        """Give the PSF of equal width along both axes."""
        return cls(sigma_px, sigma_px)

    @property
    def support_radius_px(self) -> float:
        """Distance along an axis beyond which less than `LOST_FLUX` of the photons fall."""
        widths = [torch.as_tensor(width) for width in (self.sigma_x_px, self.sigma_y_px)]
        # Of no emitters, the widest is 0.
        widest = max((float(width.max()) for width in widths if width.numel()), default=0.0)
        return _SUPPORT_SIGMAS * widest

    def of_emitters(self, tile: Int[Tensor, "..."], emitter: Int[Tensor, "..."]) -> GaussianPSF:
        """Give the PSF of some emitters of a batch of tiles.

        Args:
            tile: index of each emitter's tile.
            emitter: index of each emitter in its tile's list, broadcast against `tile`.

        Returns:
            Widths in the shape of the indices, where they were given per tile, (tiles, 1), or per
            emitter, (tiles, emitters).
        """

        def part(sigma: float | Tensor) -> float | Tensor:
            if not isinstance(sigma, Tensor) or sigma.numel() == 1:
                return sigma
            tiles, emitters = sigma.shape
            return sigma[tile if tiles > 1 else 0 * tile, emitter if emitters > 1 else 0 * emitter]

        return GaussianPSF(part(self.sigma_x_px), part(self.sigma_y_px))

    def _distances(
        self, x_px: Tensor, y_px: Tensor, columns: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sigma_x = torch.as_tensor(self.sigma_x_px, dtype=x_px.dtype, device=x_px.device)
        sigma_y = torch.as_tensor(self.sigma_y_px, dtype=x_px.dtype, device=x_px.device)
        return (
            columns - x_px[..., None],
            rows - y_px[..., None],
            sigma_x[..., None],
            sigma_y[..., None],
        )

    def images(
        self,
        x_px: Float[Tensor, "*emitters"],
        y_px: Float[Tensor, "*emitters"],
        columns: Float[Tensor, "..."],
        rows: Float[Tensor, "..."],
    ) -> Float[Tensor, "*emitters height width"]:
        """Give the share of each emitter's photons in each pixel.

        Args:
            x_px, y_px: emitter positions, px.
            columns: column indices, shape (width,) or (\\*emitters, width).
            rows: row indices, shape (height,) or (\\*emitters, height).

        Returns:
            Shares that sum to 1 over an unbounded grid.
        """
        dx, dy, sigma_x, sigma_y = self._distances(x_px, y_px, columns, rows)
        along_x = pixel_integrals(dx, sigma_x)
        along_y = pixel_integrals(dy, sigma_y)
        return along_y[..., :, None] * along_x[..., None, :]

    def images_and_gradients(
        self,
        x_px: Float[Tensor, "*emitters"],
        y_px: Float[Tensor, "*emitters"],
        columns: Float[Tensor, "..."],
        rows: Float[Tensor, "..."],
    ) -> tuple[
        Float[Tensor, "*emitters height width"],
        Float[Tensor, "*emitters height width"],
        Float[Tensor, "*emitters height width"],
    ]:
        """Give `images` and its derivatives by x_px and by y_px (1/px)."""
        dx, dy, sigma_x, sigma_y = self._distances(x_px, y_px, columns, rows)
        along_x = pixel_integrals(dx, sigma_x)
        along_y = pixel_integrals(dy, sigma_y)
        slope_x = pixel_integral_gradient(dx, sigma_x)
        slope_y = pixel_integral_gradient(dy, sigma_y)
        return (
            along_y[..., :, None] * along_x[..., None, :],
            along_y[..., :, None] * slope_x[..., None, :],
            slope_y[..., :, None] * along_x[..., None, :],
        )

    def weighted_curvatures(
        self,
        x_px: Float[Tensor, "*blocks emitters"],
        y_px: Float[Tensor, "*blocks emitters"],
        columns: Float[Tensor, "*blocks emitters width"],
        rows: Float[Tensor, "*blocks emitters height"],
        weight: Float[Tensor, "*blocks height width"],
    ) -> tuple[
        Float[Tensor, "*blocks emitters"],
        Float[Tensor, "*blocks emitters"],
        Float[Tensor, "*blocks emitters"],
    ]:
        """Give the second derivatives of `sum(weight * images)` by xx, xy and yy (1/px^2).

        Args:
            x_px, y_px: emitter positions, px.
            columns, rows: pixel indices of each emitter.
            weight: of the pixels, shared by the emitters of a block.
        """
        dx, dy, sigma_x, sigma_y = self._distances(x_px, y_px, columns, rows)
        along_x = pixel_integrals(dx, sigma_x) @ weight.mT
        slope_x = pixel_integral_gradient(dx, sigma_x) @ weight.mT
        curved_x = pixel_integral_curvature(dx, sigma_x) @ weight.mT
        return (
            (pixel_integrals(dy, sigma_y) * curved_x).sum(-1),
            (pixel_integral_gradient(dy, sigma_y) * slope_x).sum(-1),
            (pixel_integral_curvature(dy, sigma_y) * along_x).sum(-1),
        )
