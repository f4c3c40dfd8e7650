"""Scores of estimates and of their stated uncertainty: matching, coverage, calibration, energy.

Pure mathematics on arrays and tensors. Drawing samples is elsewhere: a score only judges them.
"""
