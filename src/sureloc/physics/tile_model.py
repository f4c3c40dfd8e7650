"""What a tile should look like, and how that changes with everything that may be unknown about it.

A tile's expected image is linear in little: each emitter touches only the pixels near it. The tile
is therefore cut into square blocks; each block knows the few emitters that reach it, and products
over pixels are sums over blocks of small dense products. A small tile is one block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from sureloc.errors import InputError
from sureloc.physics.psf import PSF

_BLOCK_PX = 16
_ONE_BLOCK_PX = 24  # a tile this small is not cut: most emitters would reach most blocks
_OUT_OF_REACH_PX = 1e6


@dataclass(frozen=True)
class Emitters:
    """Padded lists of emitters, one list per tile.

    Attributes:
        x_px, y_px: positions, px.
        photons: expected photo-electrons, larger than 0.
        present: False for padding, whose other values never matter (they may be NaN).
    """

    x_px: Float[Tensor, "tiles emitters"]
    y_px: Float[Tensor, "tiles emitters"]
    photons: Float[Tensor, "tiles emitters"]
    present: Bool[Tensor, "tiles emitters"]

    @classmethod
    def all_present(cls, x_px: Tensor, y_px: Tensor, photons: Tensor) -> Emitters:
        """Give lists without padding, each argument of shape (tiles, emitters)."""
        return cls(x_px, y_px, photons, torch.ones_like(x_px, dtype=torch.bool))

    def with_harmless_padding(self) -> Emitters:
        """Give the same lists with padding at the first pixel, of one photo-electron."""
        zero = torch.zeros_like(self.x_px)
        return replace(
            self,
            x_px=torch.where(self.present, self.x_px, zero),
            y_px=torch.where(self.present, self.y_px, zero),
            photons=torch.where(self.present, self.photons, zero + 1.0),
        )

    def of_tiles(self, tiles: Int[Tensor, " kept"]) -> Emitters:
        """Give the lists of some tiles."""
        return Emitters(
            self.x_px[tiles], self.y_px[tiles], self.photons[tiles], self.present[tiles]
        )

    def double(self) -> Emitters:
        """Give the lists in float64."""
        return Emitters(self.x_px.double(), self.y_px.double(), self.photons.double(), self.present)


@dataclass(frozen=True)
class Background:
    """A background that is a weighted sum of given images, the weights known more or less.

    Attributes:
        basis: the images; a leading dimension of 1 shares them between tiles.
        coefficients: their weights, photo-electrons per pixel where the basis is 1: the prior
            mean, and where a fit starts.
        sd: prior standard deviation of each weight: 0 is known exactly, infinity is free.

    Raises:
        InputError: a standard deviation is negative or NaN.
    """

    basis: Float[Tensor, "#tiles terms height width"]
    coefficients: Float[Tensor, "tiles terms"]
    sd: Float[Tensor, " terms"]

    def __post_init__(self) -> None:
        if not bool((self.sd >= 0).all()):
            raise InputError(
                f"sd is {self.sd.tolist()}; a standard deviation is 0 (known), positive, or "
                "infinite (free)."
            )

    @classmethod
    def constant(
        cls, level_e: Float[Tensor, " tiles"], shape: tuple[int, int], sd: float = math.inf
    ) -> Background:
        """Give a level per tile, photo-electrons per pixel, for tiles of shape (rows, columns)."""
        return cls(level_e.new_ones(1, 1, *shape), level_e[:, None], level_e.new_tensor([sd]))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of every tile."""
        return self.basis.shape[-2], self.basis.shape[-1]

    @property
    def precision(self) -> Float[Tensor, " terms"]:
        """1 / sd^2 of the weights that are to be found; 0 for free and for known ones."""
        return torch.where(self.sd > 0, self.sd, math.inf) ** -2

    def images(self) -> Float[Tensor, "tiles height width"]:
        """Give the expected background, photo-electrons per pixel."""
        terms = self.basis.shape[1]
        flat = self.basis.expand(len(self.coefficients), terms, *self.shape).flatten(2)
        return (self.coefficients[:, None, :] @ flat).view(-1, *self.shape)

    def of_tiles(self, tiles: Int[Tensor, " kept"]) -> Background:
        """Give the background of some tiles."""
        basis = self.basis if len(self.basis) == 1 else self.basis[tiles]
        return Background(basis, self.coefficients[tiles], self.sd)

    def double(self) -> Background:
        """Give the background in float64."""
        return Background(self.basis.double(), self.coefficients.double(), self.sd.double())


@dataclass(frozen=True)
class Reach:
    """Which emitters reach which block, as padded lists.

    Attributes:
        member: index of the emitter in its tile's list.
        is_member: False for padding.
        x_px, y_px, photons: of the emitters; 0 photons for padding.
        columns, rows: pixel indices of the block, far away where they are outside the support.
        psf: the point-spread function of the listed emitters.
    """

    member: Int[Tensor, "tiles blocks members"]
    is_member: Bool[Tensor, "tiles blocks members"]
    x_px: Float[Tensor, "tiles blocks members"]
    y_px: Float[Tensor, "tiles blocks members"]
    photons: Float[Tensor, "tiles blocks members"]
    columns: Float[Tensor, "tiles blocks members side"]
    rows: Float[Tensor, "tiles blocks members side"]
    psf: PSF


@dataclass(frozen=True)
class LinearTiles:
    """Expected images and their derivatives by all that is unknown about a batch of tiles.

    Parameters are numbered: x_px, y_px and photons of the first emitter, of the second ..., then
    the background's weights. Derivatives by padding and by known weights (sd 0) are 0.

    Attributes:
        expected_e: expected photo-electrons.
        reach: which emitters reach which block.
        jacobian: derivatives of the pixels of each block: 3 rows for each of its members, then
            one for each of the background's weights.
        emitters: length of the tiles' lists of emitters.
    """

    expected_e: Float[Tensor, "tiles height width"]
    reach: Reach
    jacobian: Float[Tensor, "tiles blocks rows pixels"]
    emitters: int

    @property
    def _terms(self) -> int:
        return self.jacobian.shape[2] - 3 * self.reach.member.shape[2]

    @property
    def parameters(self) -> int:
        """Number of parameters of a tile, padding and known weights included."""
        return 3 * self.emitters + self._terms

    @property
    def _parameter_of_row(self) -> Tensor:
        member = self.reach.member
        of_emitters = 3 * member[..., None] + torch.arange(3, device=member.device)
        of_weights = 3 * self.emitters + torch.arange(self._terms, device=member.device)
        return torch.cat(
            (of_emitters.flatten(2), of_weights.expand(*member.shape[:2], self._terms)), dim=2
        )

    def gradient(
        self, weight: Float[Tensor, "tiles height width"]
    ) -> Float[Tensor, "tiles parameters"]:
        """Give the sum over pixels of the derivatives times `weight`."""
        rows = (self.jacobian @ into_blocks(weight)[..., None])[..., 0]
        out = rows.new_zeros(len(rows), self.parameters)
        return out.scatter_add_(1, self._parameter_of_row.flatten(1), rows.flatten(1))

    def information(
        self, weight: Float[Tensor, "tiles height width"]
    ) -> Float[Tensor, "tiles parameters parameters"]:
        """Give the sum over pixels of J weight J^T, the Fisher matrix if weight is I(omega, v)."""
        small = (self.jacobian * into_blocks(weight)[:, :, None, :]) @ self.jacobian.mT
        if small.shape[1] == 1:  # one block holds all parameters, in order
            return small[:, 0]
        size, row = self.parameters, self._parameter_of_row
        index = row[..., :, None] * size + row[..., None, :]
        out = small.new_zeros(len(small), size * size)
        out.scatter_add_(1, index.flatten(1), small.flatten(1))
        return out.view(-1, size, size)

    def curvature(
        self, weight: Float[Tensor, "tiles height width"]
    ) -> Float[Tensor, "tiles emitters 3 3"]:
        """Give the sum over pixels of `weight` times the second derivatives of the expected counts.

        Only those by two parameters of the same emitter differ from 0.
        """
        reach, blocks = self.reach, into_blocks(weight)
        side = reach.columns.shape[-1]
        xx, xy, yy = reach.psf.weighted_curvatures(
            reach.x_px,
            reach.y_px,
            reach.columns,
            reach.rows,
            blocks.view(*blocks.shape[:2], side, side),
        )
        light = reach.photons
        by_x, by_y = self._slopes(blocks)
        rows = (light * xx, light * xy, by_x, light * xy, light * yy, by_y)
        own = torch.stack((*rows, by_x, by_y, torch.zeros_like(xx)), dim=-1)
        out = own.new_zeros(len(own), self.emitters, 9)
        index = reach.member.flatten(1)[:, :, None].expand(-1, -1, 9)
        out.scatter_add_(1, index, own.flatten(1, 2))
        return out.view(-1, self.emitters, 3, 3)

    def _slopes(self, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Give the weighted sum of each member's PSF derived by x and by y."""
        rows = (self.jacobian @ blocks[..., None])[..., : 3 * self.reach.member.shape[2], 0]
        light = torch.where(self.reach.is_member, self.reach.photons, 1.0)
        return rows[..., 0::3] / light, rows[..., 1::3] / light


def into_blocks(
    image: Float[Tensor, "tiles *terms height width"],
) -> Float[Tensor, "tiles blocks *terms pixels"]:
    """Cut images into square blocks, the last ones filled up with 0."""
    side, (rows, columns) = _grid(image.shape[-2], image.shape[-1])
    missing = (0, columns * side - image.shape[-1], 0, rows * side - image.shape[-2])
    cut = pad(image, missing) if any(missing) else image
    cut = cut.reshape(*cut.shape[:-2], rows, side, columns, side)
    # tiles, terms..., block row, row, block column, column
    cut = cut.movedim(-4, 1).movedim(-2, 2)
    return cut.flatten(1, 2).flatten(-2)


def _from_blocks(blocks: Tensor, shape: tuple[int, int]) -> Tensor:
    side, (rows, columns) = _grid(*shape)
    whole = blocks.view(-1, rows, columns, side, side).transpose(2, 3)
    whole = whole.reshape(-1, rows * side, columns * side)
    return whole[:, : shape[0], : shape[1]]


def _grid(height: int, width: int) -> tuple[int, tuple[int, int]]:
    """Give the side of the blocks, and how many there are along rows and columns."""
    largest = max(height, width)
    side = largest if largest <= _ONE_BLOCK_PX else _BLOCK_PX
    return side, (math.ceil(height / side), math.ceil(width / side))


def linearize(emitters: Emitters, background: Background, psf: PSF) -> LinearTiles:
    """Give the expected image of every tile and its derivatives.

    Args:
        emitters: the emitters of each tile.
        background: the background of each tile; its shape is that of the tiles.
        psf: the point-spread function; widths may differ between tiles, (tiles, 1), or between
            emitters, (tiles, emitters). Less than 1e-6 of the flux is lost to its support's edge.
    """
    side, _ = _grid(*background.shape)
    reach = _reach(emitters.with_harmless_padding(), background.shape, psf)
    images, by_x, by_y = reach.psf.images_and_gradients(
        reach.x_px, reach.y_px, reach.columns, reach.rows
    )
    tiles, blocks, most = reach.member.shape
    light = reach.photons[..., None, None]
    terms = len(background.sd)
    jacobian = images.new_empty(tiles, blocks, 3 * most + terms, side * side)
    own = jacobian[:, :, : 3 * most].view(tiles, blocks, most, 3, side, side)
    torch.mul(by_x, light, out=own[:, :, :, 0])
    torch.mul(by_y, light, out=own[:, :, :, 1])
    torch.mul(images, reach.is_member[..., None, None], out=own[:, :, :, 2])
    jacobian[:, :, 3 * most :] = into_blocks(background.basis * (background.sd > 0)[:, None, None])
    expected = (light.view(tiles, blocks, 1, most) @ images.flatten(3))[:, :, 0]
    expected = _from_blocks(expected, background.shape) + background.images()
    return LinearTiles(expected, reach, jacobian, emitters.x_px.shape[1])


def _reach(emitters: Emitters, shape: tuple[int, int], psf: PSF) -> Reach:
    side, (block_rows, block_columns) = _grid(*shape)
    first = [
        side * torch.arange(n, device=emitters.x_px.device) for n in (block_rows, block_columns)
    ]
    corner_y, corner_x = (c.flatten() for c in torch.meshgrid(*first, indexing="ij"))
    radius = psf.support_radius_px
    member, is_member = _members(emitters, corner_x, corner_y, side, radius)
    tile = torch.arange(len(member), device=member.device)[:, None, None]
    x, y = emitters.x_px[tile, member], emitters.y_px[tile, member]
    along = torch.arange(side, device=member.device)
    return Reach(
        member,
        is_member,
        x,
        y,
        emitters.photons[tile, member] * is_member,
        _within_reach(corner_x[:, None, None] + along, x, radius),
        _within_reach(corner_y[:, None, None] + along, y, radius),
        psf.of_emitters(tile, member),
    )


def _members(
    emitters: Emitters, corner_x: Tensor, corner_y: Tensor, side: int, reach: float
) -> tuple[Tensor, Tensor]:
    """Give the emitters that reach each block, padded: index and membership (tiles, blocks, m)."""
    if len(corner_x) == 1:
        count = emitters.x_px.shape[1]
        everyone = torch.arange(count, device=corner_x.device)
        member = everyone.expand(len(emitters.x_px), 1, count)
        return member, emitters.present[:, None, :]

    def near(position: Tensor, corner: Tensor) -> Tensor:
        centre = corner[:, None] + 0.5 * (side - 1)
        return (position[:, None, :] - centre).abs() <= 0.5 * side + reach

    touches = near(emitters.x_px, corner_x) & near(emitters.y_px, corner_y)
    touches &= emitters.present[:, None, :]
    most = max(int(touches.sum(dim=2).max()), 1)
    # A stable sort keeps emitters in order, so that padding never changes a sum.
    member = touches.to(torch.int8).argsort(dim=2, descending=True, stable=True)[:, :, :most]
    return member, touches.gather(2, member)


def _within_reach(pixels: Tensor, position: Tensor, reach: float) -> Tensor:
    """Give pixel indices per emitter, those outside the support moved to where nothing shines.

    Besides bounding the support, this keeps denormal numbers out, which are a hundred times slower.
    """
    near = (pixels - position[..., None]).abs() <= reach + 0.5  # any part of the pixel
    return torch.where(near, pixels.to(position.dtype), _OUT_OF_REACH_PX)
