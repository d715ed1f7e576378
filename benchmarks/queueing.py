"""A discrete-event model of the service: Poisson arrivals, workers, slots, batches formed by the service's own rule.

A Service of Kubernetes spreads connections over replicas by chance, and a Poisson process split by chance is Poisson
again (Kingman, Poisson Processes, 1993, 5.1). So any number of replicas is one of them, simulated with its share of the
traffic.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from service.batching.forming import Forming, Load, Wait, next_batch

_STEPS: Final = 9
_WARM_UP: Final = 0.1
"""Of the images, how many come before those that count: the queue begins empty."""


@dataclass(frozen=True)
class Replica:
    """What one pod is.

    times      -- seconds that a slot takes for a batch, samples by its size, measured while all slots were busy.
    overhead_s -- CPU time an image beyond decode and inference, which the slots' cores give, too.
    """

    workers: int
    slots: int
    max_batch: int
    times: Mapping[int, Sequence[float]]
    overhead_s: float

    @property
    def most(self) -> float:
        """Images a second with full batches and no pause."""
        full = self.times[self.max_batch]
        batch_s = sum(full) / len(full) + self.max_batch * self.overhead_s
        return self.workers * self.slots * self.max_batch / batch_s


@dataclass
class _Worker:
    """One process: its queue, by when each image came, and its free slots."""

    free: int
    waiting: deque[float] = field(default_factory=deque)
    computing: int = 0


@dataclass(frozen=True)
class Seen:
    """What a simulation gave: sorted latencies, and the share of the slots' time that was busy."""

    latencies_s: Sequence[float]
    busy: float

    def percentile_s(self, share: float) -> float:
        """By the nearest rank."""
        return self.latencies_s[max(0, math.ceil(share * len(self.latencies_s)) - 1)]


def simulate(replica: Replica, rate: float, images: int, seed: int = 0) -> Seen:
    """``images`` arrivals, ``rate`` a second, at one replica whose workers get them by chance."""
    chance = random.Random(seed)
    workers = [_Worker(replica.slots) for _ in range(replica.workers)]
    forming = Forming(replica.max_batch)
    ends: list[tuple[float, int, int, list[float]]] = []  # when, an order, whose, when its images came
    latencies: list[float] = []
    busy_s, order = 0.0, 0

    def start(number: int, now: float) -> None:
        nonlocal busy_s, order
        worker = workers[number]
        while worker.free and worker.waiting:
            load = Load(len(worker.waiting), worker.computing, now - worker.waiting[0], worker.free, replica.slots)
            size = next_batch(forming, load)
            if isinstance(size, Wait):
                raise ValueError("the model has no delay")
            came = [worker.waiting.popleft() for _ in range(size)]
            takes = chance.choice(replica.times[size]) + size * replica.overhead_s
            worker.free -= 1
            worker.computing += size
            busy_s += takes
            order += 1
            heapq.heappush(ends, (now + takes, order, number, came))

    def finish(until: float) -> float:
        now = 0.0
        while ends and ends[0][0] <= until:
            now, _, number, came = heapq.heappop(ends)
            latencies.extend(now - at for at in came)
            # The rule counts a batch that just ended as if it still computed: its clients come back at once.
            start_after(number, len(came), now)
        return now

    def start_after(number: int, ended: int, now: float) -> None:
        worker = workers[number]
        worker.free += 1
        start(number, now)
        worker.computing -= ended

    now = 0.0
    for _ in range(images):
        now += chance.expovariate(rate)
        finish(now)
        number = chance.randrange(replica.workers)
        workers[number].waiting.append(now)
        start(number, now)
    last = max(now, finish(math.inf))
    counted = latencies[int(_WARM_UP * images) :]
    return Seen(sorted(counted), busy_s / (last * replica.workers * replica.slots))


def bearable(replica: Replica, p99_s: float, images: int, seed: int = 0) -> float:
    """Images a second that one replica takes with its p99 within ``p99_s``; 0 where one image alone takes longer."""
    return _most(lambda rate: simulate(replica, rate, images, seed).percentile_s(0.99) <= p99_s, replica.most)


def _most(holds: Callable[[float], bool], limit: float) -> float:
    low, high = 0.0, limit
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
