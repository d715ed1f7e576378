"""Text that is safe to show: names, labels and messages come from others and must not steer a terminal."""

from __future__ import annotations


def plain(text: str) -> str:
    """``text`` on one line, with a mark in the place of each control character."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
