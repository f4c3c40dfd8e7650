"""Localizations compared with a known truth: how complete, how precise, and how honest they are.

Workflows over tables; the scores themselves are in `sureloc.scoring`.
"""
