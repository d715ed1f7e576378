"""Nothing accepted is lost: instances behind a balancer are restarted one after the other under load.

    python -m tests.reliability.restarts --restarts 50

The balancer is a client that follows ``/readyz``, as an orchestrator's would, keeps connections, and goes elsewhere
where a port is closed. Exit status 1 where an answer was lost or wrong, or a stop was not in order.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
import sys
import time
from dataclasses import dataclass

from tests.reliability.instances import (
    ANSWER_LIMIT_S,
    LOST,
    Connection,
    Image,
    Instance,
    Refused,
    Tally,
    closed_loop,
    images,
    instances,
    is_refused,
    table,
)

POLL_S = 0.1


class Backend:
    """One instance as the balancer sees it."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.ready = True
        self._idle: list[Connection] = []

    async def follow(self) -> None:
        """Keep ``ready`` true to ``/readyz``."""
        while True:
            self.ready = await asyncio.to_thread(lambda: self.instance.readiness) == 200
            await asyncio.sleep(POLL_S)

    async def connection(self) -> Connection:
        while self._idle:
            kept = self._idle.pop()
            if kept.open and not kept.reader.at_eof():
                return kept
            kept.close()
        return await Connection.to(self.instance.port)

    def put(self, connection: Connection) -> None:
        if connection.open and self.ready:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        for kept in self._idle:
            kept.close()


class Balancer:
    """Sends each image to the next backend that is ready."""

    def __init__(self, backends: list[Backend]) -> None:
        self.tally = Tally()
        self._backends = backends
        self._turn = itertools.count()

    async def send(self, image: Image) -> None:
        began = time.monotonic()
        while True:
            ready = [backend for backend in self._backends if backend.ready]
            if not ready:
                await asyncio.sleep(POLL_S)
                continue
            backend = ready[next(self._turn) % len(ready)]
            try:
                connection = await backend.connection()
            except Refused:
                self.tally.refused += 1
                await asyncio.sleep(0.01)
                continue
            kept = connection.used
            try:
                async with asyncio.timeout(ANSWER_LIMIT_S):
                    status, body = await connection.ask(image.request)
            except LOST as error:
                connection.close()
                if kept and isinstance(error, asyncio.IncompleteReadError) and not error.partial:
                    self.tally.stale += 1  # closed between two requests, which HTTP allows: sent again
                    continue
                self.tally.lost.append(repr(error))
                return
            backend.put(connection)
            if status == 429:
                self.tally.busy += 1
                await asyncio.sleep(1)
                continue
            if status == 200:
                self.tally.answered += 1
                self.tally.wrong += not image.is_answered_by(body)
            else:
                self.tally.lost.append(f"{status} {body[:200]!r}")
            self.tally.seconds.append(time.monotonic() - began)
            return


@dataclass(frozen=True)
class Stop:
    """When, in seconds after SIGTERM, a stopping instance did what."""

    unready_s: float
    refused_s: float
    exited_s: float
    status: int

    @property
    def in_order(self) -> bool:
        return self.unready_s < self.refused_s <= self.exited_s and self.status == 0


def stop(instance: Instance) -> Stop:
    """Stop it, and watch from outside."""
    instance.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    unready = refused = float("inf")
    while instance.process.poll() is None:
        if unready == float("inf") and instance.readiness != 200:
            unready = time.monotonic() - began
        if refused == float("inf") and is_refused(instance.port):
            refused = time.monotonic() - began
        time.sleep(0.01)
    exited = time.monotonic() - began
    return Stop(unready, min(refused, exited), exited, instance.process.returncode)


async def roll(made: list[Instance], restarts: int, load: float, rate: float | None) -> tuple[Tally, list[Stop], float]:
    """Restart the instances in turn, ``restarts`` times in all, while images come at ``load`` of what one takes."""
    if rate is None:
        rate = load * await closed_loop(made[0].port, clients=8, seconds=3)
    backends = [Backend(instance) for instance in made]
    balancer, stops = Balancer(backends), []
    sending: set[asyncio.Task[None]] = set()

    async def send() -> None:
        due = time.monotonic()
        for image in itertools.cycle(images()):
            task = asyncio.create_task(balancer.send(image))
            sending.add(task)
            task.add_done_callback(sending.discard)
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    beside = [asyncio.create_task(work) for work in (send(), *(backend.follow() for backend in backends))]
    for number in range(restarts):
        instance = made[number % len(made)]
        stops.append(await asyncio.to_thread(stop, instance))
        instance.start()
        await asyncio.to_thread(instance.wait_ready)
        await asyncio.sleep(2 * POLL_S)  # the balancer has seen it
    beside[0].cancel()
    while sending:
        await asyncio.wait(sending)
    for task in beside:
        task.cancel()
    for backend in backends:
        backend.close()
    return balancer.tally, stops, rate


def run(restarts: int, load: float = 0.7, rate: float | None = None, drain_s: float = 2.0) -> bool:
    """Whether the promise held; what it came to is printed."""
    settings = {"RESNET_WORKERS": "1", "RESNET_DRAIN_S": str(drain_s)}
    with instances(2, **settings) as made:
        tally, stops, rate = asyncio.run(roll(made, restarts, load, rate))
    table(
        f"{restarts} rolling restarts of 2 instances",
        {
            "images a second": rate,
            "answered": tally.answered,
            "wrong": tally.wrong,
            "lost": len(tally.lost),
            "sent elsewhere, as the port was closed": tally.refused,
            "sent again, as a kept connection was closed": tally.stale,
            "told to come back (429)": tally.busy,
            "p50, ms": tally.percentile_ms(0.5),
            "p99, ms": tally.percentile_ms(0.99),
            "stops in order (unready, refusal, exit 0)": f"{sum(one.in_order for one in stops)} of {len(stops)}",
            "unready after, s, at most": max(one.unready_s for one in stops),
            "refusing after, s, from": min(one.refused_s for one in stops),
            "gone after, s, at most": max(one.exited_s for one in stops),
        },
    )
    for reason in tally.lost[:10]:
        print(f"  lost: {reason}")
    return bool(tally.answered and not tally.wrong and not tally.lost and all(one.in_order for one in stops))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--restarts", type=int, default=50)
    options.add_argument("--load", type=float, default=0.7, help="share of what one instance takes")
    options.add_argument("--rate", type=float, help="images a second, in the place of a share")
    options.add_argument("--drain", type=float, default=2.0, help="RESNET_DRAIN_S")
    given = options.parse_args()
    return 0 if run(given.restarts, given.load, given.rate, given.drain) else 1


if __name__ == "__main__":
    sys.exit(main())
