"""The base of the errors that a person is told of without a traceback."""

from __future__ import annotations


class Explained(Exception):
    """Nobody's code is at fault; the message says in one line what is wrong, and what to do about it."""
