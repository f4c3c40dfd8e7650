"""How good and how honest draws and tables are: pure functions of tensors and arrays.

Ensembles come as (draws, *shape) beside a truth of (*shape). Scores are smaller for better draws
and proper: no draws score better on average than those from the posterior.
"""
