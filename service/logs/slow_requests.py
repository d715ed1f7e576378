"""The slowest requests of the last minutes, for whoever asks why."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from heapq import heappush, heappushpop, nlargest
from typing import Final, Generic, TypeVar

R = TypeVar("R")

KEPT: Final = 50
MINUTES: Final = 5
_MINUTE_S: Final = 60.0


class SlowRequests(Generic[R]):
    """The ``KEPT`` slowest of each of the last ``MINUTES`` minutes, the one that runs included. One thread only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._minutes: deque[list[tuple[float, int, R]]] = deque([[]], maxlen=MINUTES)  # heaps, the fastest first
        self._began_s = clock()
        self._count = 0

    def wants(self, seconds: float) -> bool:
        """Whether a request that took ``seconds`` is among them."""
        self._turn()
        heap = self._minutes[-1]
        return len(heap) < KEPT or seconds > heap[0][0]

    def add(self, seconds: float, request: R) -> None:
        """Keep ``request`` if it is among them."""
        self._turn()
        heap = self._minutes[-1]
        self._count += 1
        entry = (seconds, self._count, request)  # the count decides between equals: requests have no order
        if len(heap) < KEPT:
            heappush(heap, entry)
        else:
            heappushpop(heap, entry)

    def slowest(self) -> list[R]:
        """The ``KEPT`` slowest of all these minutes, the slowest first."""
        self._turn()
        entries = (entry for heap in self._minutes for entry in heap)
        return [request for _, _, request in nlargest(KEPT, entries)]

    def _turn(self) -> None:
        """Begin new minutes where the time has come."""
        passed = int((self._clock() - self._began_s) // _MINUTE_S)
        if passed:
            self._began_s += passed * _MINUTE_S
            self._minutes.extend([] for _ in range(min(passed, MINUTES)))
