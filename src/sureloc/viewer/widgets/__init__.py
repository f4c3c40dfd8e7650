"""The dock widgets; the only part of sureloc that imports Qt and napari."""
