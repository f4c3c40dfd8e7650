"""Noise schedules, denoisers and samplers: the mathematics of diffusion, apart from any network.

Noise levels are continuous (gamma, the share of the signal that is left); images are scaled to
[-1, 1] where they are diffused. Nothing here knows a file, a configuration or a console.
"""
