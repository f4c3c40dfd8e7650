"""Machine-compiled inner loops (Numba), kept apart because shape checks cannot look into them.

They are pure functions of arrays and of a random generator: no file, no configuration, no global
state. Their callers in `sureloc.physics` document shapes and units and check them.
"""
