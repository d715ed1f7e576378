"""The highest rate that still passes, by halving."""

from __future__ import annotations

from collections.abc import Callable


def highest_passing(passes: Callable[[float], bool], low: float, high: float, steps: int) -> float:
    """The highest of the tried rates in ``low`` to ``high`` that ``passes``; 0 where none did.

    ``passes`` is called ``steps`` times at most, first with ``high``, so that the answer is within
    (high - low) / 2 ** (steps - 1) of the edge where ``low`` would pass.
    """
    if passes(high):
        return high
    best = 0.0
    for _ in range(steps - 1):
        middle = (low + high) / 2
        if passes(middle):
            best = low = middle
        else:
            high = middle
    return best
