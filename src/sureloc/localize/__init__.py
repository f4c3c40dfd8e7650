"""From a movie to localizations with intervals, images with their uncertainty, and a verdict.

Workflows that yield chunks, so that memory does not depend on the length of the movie.
"""
