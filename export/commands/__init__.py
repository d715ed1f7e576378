"""The commands of `python -m export`, one a module."""

PROGRAM = "python -m export"
