"""phi and Psi as one network that takes a camera frame as it is measured, for other programs.

Everything that `posterior_images` does to a frame is inside: the normalisation, phi, Psi's
conditioning, every step of the sampler and the images' unit. What is random comes in as noise, so
that the network itself is a plain function.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sureloc.diffusion import samplers
from sureloc.errors import WeightsError
from sureloc.networks.blocks import fold, unfold
from sureloc.networks.normalization import network_input
from sureloc.networks.posterior import drawn_images, psi_denoiser, seen_by, shipped_sampling
from sureloc.networks.psi import COARSE_PX
from sureloc.networks.unet import UNetPsi
from sureloc.networks.weights import Networks
from sureloc.physics.kde import UPSAMPLING, peak_of_one


class FrameModel(nn.Module):
    """Frames in, their mean image and one draw out, in 32-bit floating point.

    Attributes:
        networks: what it is made of.
        levels: gammas of the draw, the noisiest first.
        mean_radius_px: a pixel of the mean depends on camera pixels at most this far away.
        draw_radius_px: the same of a draw; None if it depends on the whole frame.
        multiple_px: rows and columns of a frame must be multiples of this.
    """

    def __init__(self, networks: Networks) -> None:
        """Take trained networks on the CPU.

        Raises:
            WeightsError: their draws need fresh noise at every step, or Psi is a U-Net.
        """
        super().__init__()
        sampling = shipped_sampling(networks)
        if sampling.sampler is samplers.ancestral and len(sampling.levels) > 1:
            raise WeightsError(
                f"The weights {networks.card.name} draw by the sampler 'ancestral', which needs "
                "noise at every step; one network takes its noise at the start. Export weights "
                "with another sampler, such as dpm_solver_2m."
            )
        if isinstance(networks.psi, UNetPsi):
            raise WeightsError(
                f"The weights {networks.card.name} draw by a U-Net, which cannot be written for "
                "frames of every size. Export weights whose Psi is of kind 'residual'."
            )
        self.networks, self.phi, self.psi = networks, networks.phi, networks.psi
        self.pixel_map = networks.pixel_map
        self.sampler = sampling.sampler
        self.levels = tuple(sampling.levels.tolist())
        self.unit = peak_of_one(networks.card.kernel_sigma_fine_px)
        self.mean_radius_px = networks.phi.radius_px
        self.draw_radius_px = networks.radius_px
        # An overview cuts its last squares off, which a graph for every size cannot describe.
        self.multiple_px = COARSE_PX if networks.radius_px is None else 1

    def forward(
        self,
        electrons: Float[Tensor, "frames 1 height width"],
        read_variance: Float[Tensor, "frames 1 height width"],
        optics: Float[Tensor, "frames 2"],
        noise: Float[Tensor, "frames 1 fine_height fine_width"],
    ) -> tuple[
        Float[Tensor, "frames 1 fine_height fine_width"],
        Float[Tensor, "frames 1 fine_height fine_width"],
    ]:
        """Estimate and draw the kernel density images of frames.

        Args:
            electrons: measured photo-electrons.
            read_variance: read variance, electrons^2.
            optics: PSF standard deviation, px, and F^2, which is 1 without electron
                multiplication.
            noise: independent standard normal numbers, `UPSAMPLING` x `UPSAMPLING` for each camera
                pixel.

        Returns:
            The mean and one draw for each frame, mass per fine pixel: an emitter sums to 1.
        """
        channels = network_input(electrons[:, 0], read_variance[:, 0], optics[:, 0], optics[:, 1])
        seen = seen_by(self.networks, channels)
        target = self.networks.card.draws.target
        denoiser = psi_denoiser(self.psi, seen.condition, nullcontext(), target)
        residual = self.sampler(denoiser, fold(noise), self.levels)
        draw = drawn_images(self.networks, residual, seen)[:, None]
        return self.unit * unfold(seen.estimate), self.unit * draw


def example_inputs(
    frames: int, shape: tuple[int, int], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give inputs of `FrameModel.forward`: dim frames with a few bright pixels.

    Args:
        frames: how many.
        shape: camera pixels, (rows, columns).
        generator: source of the noise.
    """
    size = (frames, 1, *shape)
    spots = 300.0 * (torch.rand(size, generator=generator) > 0.98)
    blurred = nn.functional.avg_pool2d(spots, 3, stride=1, padding=1)
    electrons = torch.poisson(20.0 + blurred, generator=generator)
    optics = torch.tensor([1.3, 1.0]).repeat(frames, 1)
    noise = torch.randn(
        (frames, 1, UPSAMPLING * shape[0], UPSAMPLING * shape[1]), generator=generator
    )
    return electrons, torch.full(size, 2.0), optics, noise
