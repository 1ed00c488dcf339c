"""The commands: parse, call, print."""

from lifelong.cli.main import main

__all__ = ["main"]
