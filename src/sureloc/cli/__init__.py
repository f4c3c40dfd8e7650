"""The command line: it parses, calls one workflow, and drains it."""

from sureloc.cli.app import main

__all__ = ["main"]
