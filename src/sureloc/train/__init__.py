"""Training of the networks on movies that are simulated as it goes.

Workflows that yield progress; files of weights are in `sureloc.io`, the console in `sureloc.cli`.
"""
