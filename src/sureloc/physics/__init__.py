"""Image formation, likelihood, information and inference: pure mathematics on tensors.

Coordinates are in camera pixels: x along columns, y along rows, a pixel's CENTRE at its integer
index. Counts are photo-electrons. Nothing here knows a file, a configuration or a console.
"""
