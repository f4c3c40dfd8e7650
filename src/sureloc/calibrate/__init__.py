"""What a camera and a movie are like: calibration, inspection, and weights adapted to a movie.

Workflows on anything that reads frames; files, pictures and the console are elsewhere.
"""
