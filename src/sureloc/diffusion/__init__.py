"""Diffusion in three ideas apart: noise schedules, denoisers, samplers; and what trains them.

Pure functions of tensors in the notation of the seed. A noisy image is (seed eq. 8)

    y_t = sqrt(gamma) y_0 + sqrt(1 - gamma) eps,    eps ~ N(0, I),

so gamma is the share of signal: 1 is clean, 0 is noise. Noise in units of the signal is
sigma = sqrt((1 - gamma) / gamma), and ln(1 / sigma^2) = logit(gamma) is the log signal-to-noise
ratio. A list of levels is a tensor of gammas, the noisiest first.
"""
