"""Files in and out: movies, camera files, tables and weights. Nothing is computed here.

What a user gives is read and checked, never executed; what is written is written whole or not at
all.
"""
