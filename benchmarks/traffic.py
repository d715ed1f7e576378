"""Closed-loop and open-loop traffic on one event loop.

Answers count in a window that opens after a warm-up: goodput is the good
answers that came in it, latencies are those of the requests that began in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from benchmarks.connection import NO_ANSWER, Connection

GRACE_S: Final = 30.0
"""How long the last requests are waited for; longer than the service's own deadline."""


def percentile_ms(ordered_s: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of sorted seconds, in milliseconds; NaN of nothing."""
    if not ordered_s:
        return math.nan
    return 1000 * ordered_s[min(len(ordered_s), max(1, math.ceil(share * len(ordered_s)))) - 1]


@dataclass(frozen=True)
class Load:
    """What one run gave. Times in seconds, sorted; those of refusals (429) apart from those of answers (200).

    refused_untold -- refusals that did not say when to come back, the warm-up's included.
    """

    seconds: float
    good: int
    statuses: dict[int, int]
    latencies_s: list[float]
    refusals_s: list[float]
    send_lags_s: list[float]
    requests: int
    client_cpu_s: float = 0.0
    refused_untold: int = 0

    @property
    def per_second(self) -> float:
        """Good answers a second of the window."""
        return self.good / self.seconds

    @property
    def offered(self) -> float:
        """Requests a second of the window."""
        return sum(self.statuses.values()) / self.seconds

    @property
    def refused(self) -> int:
        return self.statuses.get(429, 0)

    @property
    def failed(self) -> int:
        """Requests that got neither a good answer nor a refusal."""
        return sum(count for status, count in self.statuses.items() if status not in (200, 429))

    @property
    def client_cpu_ms(self) -> float:
        """The client's own CPU time a request."""
        return 1000 * self.client_cpu_s / max(1, self.requests)

    def percentile_ms(self, share: float) -> float:
        return percentile_ms(self.latencies_s, share)


class _Traffic:
    """What both loops share: the requests, the connections, the records."""

    def __init__(self, url: str, requests: Sequence[bytes], seconds: float, warmup_s: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "localhost", parts.port or 80
        self._requests = itertools.cycle(requests)
        self._seconds = seconds
        self._warmup_s = warmup_s
        self._connections: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._records: list[tuple[float, float, int]] = []  # due, answered, status
        self._lags: list[tuple[float, float]] = []  # due, how much later it was sent
        self._start = self._end = math.inf
        self._on_its_way = 0
        self._refused_untold = 0
        self._changed = asyncio.Event()

    def _begin(self) -> None:
        self._start = time.perf_counter() + self._warmup_s
        self._end = self._start + self._seconds

    async def _connect(self) -> Connection | None:
        """A new connection; None where the service takes none."""
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: Connection(self._answered), self._host, self._port)
        except OSError:
            return None
        self._connections.add(connection)
        return connection

    def _open(self, use: Callable[[Connection | None], None]) -> None:
        """Open a connection in the background and ``use`` it."""

        async def opened() -> None:
            use(await self._connect())

        task = asyncio.get_running_loop().create_task(opened())
        self._opening.add(task)
        task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        self._changed.set()

    def _send(self, connection: Connection, due: float) -> None:
        self._on_its_way += 1
        connection.send(next(self._requests), due)

    def _answered(self, connection: Connection, status: int) -> None:
        now = time.perf_counter()
        self._on_its_way -= 1
        self._records.append((connection.due, now, status))
        self._refused_untold += status == 429 and not connection.retry_told
        if not connection.usable:
            self._connections.discard(connection)
        self._go_on(connection, now)
        self._changed.set()

    def _go_on(self, connection: Connection, now: float) -> None:
        """Give a connection that has its answer, or was lost, its next work."""
        raise NotImplementedError

    async def _finish(self) -> None:
        """Wait out the window, then for what is on its way; what is late beyond reason has no answer."""
        await asyncio.sleep(max(0.0, self._end - time.perf_counter()) + 0.002)  # timers tick in milliseconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while self._on_its_way or self._opening:
                    self._changed.clear()
                    await self._changed.wait()
        for connection in self._connections:
            if connection.busy:
                connection.busy = False
                self._records.append((connection.due, math.inf, NO_ANSWER))
            connection.close()

    def load(self) -> Load:
        begun = [(end - due, status) for due, end, status in self._records if self._start <= due < self._end]
        return Load(
            seconds=self._seconds,
            good=sum(status == 200 and self._start <= end < self._end for _, end, status in self._records),
            statuses=dict(Counter(status for _, status in begun)),
            latencies_s=sorted(latency for latency, status in begun if status == 200),
            refusals_s=sorted(latency for latency, status in begun if status == 429),
            send_lags_s=sorted(lag for due, lag in self._lags if self._start <= due < self._end),
            requests=len(self._records),
            refused_untold=self._refused_untold,
        )


class Closed(_Traffic):
    """Clients that each send their next image when they have the last answer."""

    async def run(self, clients: int) -> None:
        self._begin()
        for _ in range(clients):
            self._open(self._use)
        await self._finish()

    def _use(self, connection: Connection | None) -> None:
        now = time.perf_counter()
        if now >= self._end:
            return
        if connection is not None:
            self._send(connection, now)
        else:
            self._records.append((now, now, NO_ANSWER))
            asyncio.get_running_loop().call_later(0.01, self._open, self._use)

    def _go_on(self, connection: Connection, now: float) -> None:
        if now >= self._end:
            return
        if connection.usable:
            self._send(connection, now)
        else:
            self._open(self._use)


class Open(_Traffic):
    """Images that arrive as a Poisson process, whatever the service does.

    Latency counts from the moment an image is due, not from when it could be
    sent, so a service that stalls cannot hide what would have arrived
    meanwhile (no coordinated omission).
    """

    def __init__(
        self, url: str, requests: Sequence[bytes], seconds: float, warmup_s: float, rate: float, limit: int, seed: int
    ) -> None:
        """``rate`` images a second, on at most ``limit`` connections."""
        super().__init__(url, requests, seconds, warmup_s)
        self._random = random.Random(seed)
        self._rate = rate
        self._limit = limit
        self._free: list[Connection] = []
        self._waiting: deque[float] = deque()
        self._next_due = math.inf

    async def run(self, opened: int) -> None:
        """Send on ``opened`` connections, and on more when those are busy."""
        self._free = [connection for _ in range(opened) if (connection := await self._connect()) is not None]
        self._begin()
        self._next_due = time.perf_counter() + self._random.expovariate(self._rate)
        self._arrive()
        await self._finish()
        self._records += [(due, math.inf, NO_ANSWER) for due in self._waiting]

    def _arrive(self) -> None:
        """Send all that is due by now; then sleep until the next is."""
        now = time.perf_counter()
        while self._next_due <= now and self._next_due < self._end:
            self._dispatch(self._next_due, now)
            self._next_due += self._random.expovariate(self._rate)
        if self._next_due < self._end:
            # Timers tick in milliseconds. Half a tick later the image is due for certain, without spinning.
            asyncio.get_running_loop().call_later(self._next_due - now + 0.0005, self._arrive)

    def _dispatch(self, due: float, now: float) -> None:
        while self._free:
            connection = self._free.pop()
            if connection.usable:
                self._send_due(connection, due, now)
                return
            self._connections.discard(connection)
        self._waiting.append(due)
        if len(self._connections) + len(self._opening) < self._limit:
            self._open(self._use)

    def _send_due(self, connection: Connection, due: float, now: float) -> None:
        self._lags.append((due, now - due))
        self._send(connection, due)

    def _use(self, connection: Connection | None) -> None:
        now = time.perf_counter()
        if connection is not None:
            self._go_on(connection, now)
        elif self._waiting:
            self._records.append((self._waiting.popleft(), now, NO_ANSWER))

    def _go_on(self, connection: Connection, now: float) -> None:
        if not connection.usable:
            if self._waiting:
                self._open(self._use)
        elif self._waiting:
            self._send_due(connection, self._waiting.popleft(), now)
        else:
            self._free.append(connection)
