"""Progress on a terminal, and nothing elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def shown(items: Iterable[T], text: str, count: int, console: Console) -> Iterable[T]:
    """``items``, ``count`` of them, with a bar that goes when they end."""
    return track(items, text, count, console=console, transient=True, disable=not console.is_terminal)
