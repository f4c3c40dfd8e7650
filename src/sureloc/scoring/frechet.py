"""How far two sets of feature vectors are apart, as if each were Gaussian."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sureloc.errors import InputError


def frechet_distance(
    one: Float[Tensor, "items features"], other: Float[Tensor, "others features"]
) -> float:
    """Give the squared Frechet distance between the Gaussians that fit two sets.

    |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) of their means and covariances (Dowson and
    Landau 1982; Heusel et al. 2017, eq. 6, on Inception features as FID). It sees each set as a
    whole, and not which draw belongs to which condition: draws that ignore their condition score
    as well as those of the posterior. Finite sets are apart even if their laws are equal, so
    compare values of equal numbers only.

    Args:
        one, other: a vector for each item, two items or more.

    Returns:
        The distance in squared units of the features; 0 for equal sets.

    Raises:
        InputError: a set has fewer than two items.
    """
    if min(len(one), len(other)) < 2:
        raise InputError(
            f"The sets hold {len(one)} and {len(other)} items; a covariance needs two or more."
        )
    (mean, root), (other_mean, other_root) = _moments(one), _moments(other)
    # S_1 S_2 has the nonzero eigenvalues of M M^T, where M is the product of both roots.
    shared = torch.linalg.svdvals(root @ other_root.T).sum()
    spread = root.square().sum() + other_root.square().sum() - 2.0 * shared
    return max(float((mean - other_mean).square().sum() + spread), 0.0)


def _moments(items: Tensor) -> tuple[Tensor, Tensor]:
    """Give the mean, and R of the covariance R^T R: no more rows than items, nor than features."""
    mean = items.double().mean(0)
    centred = (items.double() - mean) / (len(items) - 1) ** 0.5
    return mean, torch.linalg.qr(centred, mode="r").R
