"""sureloc: single-molecule localization with intervals that hold, also where molecules overlap."""

__version__ = "0.1.0"
