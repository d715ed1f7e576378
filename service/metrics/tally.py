"""Counts kept in plain memory, and handed to prometheus_client a few times a second.

In multiprocess mode each of its increments writes to a file that is mapped into memory, which costs five to ten times
as much as counting does: too much, twenty times a request, and with a full disk under the file a signal that kills the
process. Handing over many counts at once makes both rare.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from prometheus_client import Counter, Histogram


class Tally(Protocol):
    """Counts that wait to be handed over."""

    def flush(self) -> None: ...


T = TypeVar("T", bound=Tally)


class CounterTally:
    """Counts for one counter. Safe in many threads."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._lock = Lock()
        self._amount = 0.0

    def inc(self, amount: float = 1) -> None:
        with self._lock:
            self._amount += amount

    def flush(self) -> None:
        with self._lock:
            amount, self._amount = self._amount, 0.0
        if amount:
            self._counter.inc(amount)


class HistogramTally:
    """Observations for one histogram. Safe in many threads."""

    def __init__(self, histogram: Histogram) -> None:
        # prometheus_client has no public way to add several observations at once; a test holds these two names.
        self._buckets = histogram._buckets
        self._sum = histogram._sum
        self._bounds = list(histogram._upper_bounds)
        self._lock = Lock()
        self._counts = [0] * len(self._bounds)
        self._total = 0.0

    def observe(self, value: float) -> None:
        bucket = bisect_left(self._bounds, value)
        with self._lock:
            self._counts[bucket] += 1
            self._total += value

    def observe_all(self, values: npt.NDArray[np.floating[Any]]) -> None:
        counts = np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._bounds)).tolist()
        with self._lock:
            self._counts = [before + more for before, more in zip(self._counts, counts, strict=True)]
            self._total += float(values.sum(dtype=np.float64))

    def flush(self) -> None:
        with self._lock:
            counts, self._counts = self._counts, [0] * len(self._bounds)
            total, self._total = self._total, 0.0
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        if total:
            self._sum.inc(total)


class Tallies:
    """All tallies of a process."""

    def __init__(self) -> None:
        self._tallies: dict[Tally, None] = {}

    def add(self, tally: T) -> T:
        self._tallies[tally] = None
        return tally

    def counter(self, counter: Counter) -> CounterTally:
        return self.add(CounterTally(counter))

    def histogram(self, histogram: Histogram) -> HistogramTally:
        return self.add(HistogramTally(histogram))

    def forget(self, gone: Iterable[Tally]) -> None:
        """Nothing more will be counted in these, and all that was is handed over."""
        for tally in gone:
            self._tallies.pop(tally, None)

    def flush(self) -> None:
        """Hand all counts over; what raises on the way (a full disk) is raised once all had their turn."""
        failed: OSError | None = None
        for tally in [*self._tallies]:
            try:
                tally.flush()
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed
