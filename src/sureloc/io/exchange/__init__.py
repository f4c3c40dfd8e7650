"""Localization tables of other programs, read into one convention and written from it.

Every module here knows one format: where its origin lies, from which number it counts frames, its
units and names. `formats` recognises a file and picks the module; `localizations` is what all of
them speak. Within sureloc positions are in nm, (0, 0) is the CENTRE of the first pixel, x runs
along columns and y along rows, and frames count from 0.
"""
