"""sureloc in napari: readers for movies, tables and run folders, and two dock widgets.

What napari may use is listed in `napari.yaml` beside this file. Only `sureloc.viewer.widgets` needs
Qt and napari; everything else here is plain Python and can be used, and tested, without them.

The world of the viewer is the world of the tables: nanometres, with the CENTRE of pixel (0, 0) at
(0, 0), behind an axis that counts frames from 0.
"""
