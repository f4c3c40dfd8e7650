"""Neural networks as pure functions of tensors: phi, which estimates, and Psi, which draws.

Networks see photo-electrons, the read variance of each pixel and the width of the PSF, never ADU.
How they are trained is in `sureloc.train`; how noise levels are scheduled in `sureloc.diffusion`.
"""
