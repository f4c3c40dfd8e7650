"""What phi sees in kernel density images: features for a Frechet distance between sets of them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sureloc.networks.normalization import network_input
from sureloc.networks.phi import PhiNetwork
from sureloc.physics.kde import peak_of_one

_PHOTONS = 1000.0
_BACKGROUND_E = 100.0  # its noise, 10 e-, hides what draws leave where nothing is
_READ_VARIANCE_E2 = 1.0
_AT_ONCE = 8


@torch.inference_mode()
def phi_features(
    phi: PhiNetwork, images: Float[Tensor, "items height width"], kernel_sigma_fine_px: float
) -> Float[Tensor, "items features"]:
    """Give the mean over pixels of the features behind phi's estimate.

    A kernel density image is what a camera with the fine pixels, and a PSF of the kernel's width,
    would see without noise: emitters of 1,000 e- on 100 e- of background. So it is shown to phi,
    whose features then tell sharp from blurred spots, and clean from noisy images. On less
    background they see mostly the faint noise that draws have between emitters, on 10 e- so much
    that phi's own blurred estimate comes nearer to truth than good draws do.

    Args:
        phi: the network, frozen.
        images: in phi's unit, one emitter's peak about 1, on any device.
        kernel_sigma_fine_px: width of the images' kernel, fine px.

    Returns:
        A vector of `phi.trunk_width` numbers for each image, on the CPU. A Frechet distance between
        two such sets is a phi-FD, comparable only where phi is the same.
    """
    device = next(phi.parameters()).device
    electrons = _BACKGROUND_E + _PHOTONS * peak_of_one(kernel_sigma_fine_px) * images
    parts = []
    for first in range(0, len(electrons), _AT_ONCE):
        part = electrons[first : first + _AT_ONCE].to(device, torch.float32)
        optics = torch.ones(len(part), device=device)
        channels = network_input(
            part, torch.full_like(part, _READ_VARIANCE_E2), kernel_sigma_fine_px * optics, optics
        )
        seen = phi.trunk(channels.contiguous(memory_format=torch.channels_last))
        parts.append(seen.mean((2, 3)).cpu())
    return torch.cat(parts)
