"""Whole jobs: a movie in, a folder of results out; broken off and resumed, on any workers."""
