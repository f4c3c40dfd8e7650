"""Simulated movies with known truth: scenes, blinking, drift, background and cameras.

Workflows that yield chunks; files and the console are elsewhere (`sureloc.io`, `sureloc.cli`).
"""
