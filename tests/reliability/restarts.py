"""Nothing accepted is lost: instances behind a balancer are restarted one after the other under load.

    python -m tests.reliability.restarts --restarts 50

The balancer is a client that follows ``/readyz``, as an orchestrator's would, keeps connections, and goes elsewhere
where a port is closed. A stop is in order where readiness turns first, then connections are refused, and the process
then ends with status 0.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import click

from benchmarks.load import closed_loop
from benchmarks.report import Report, Target
from benchmarks.server import Server
from benchmarks.traffic import percentile_ms
from tests.reliability.clients import (
    ANSWER_LIMIT_S,
    LOST,
    SETTINGS,
    Connection,
    Image,
    Refused,
    Tally,
    images,
    is_refused,
)
from tests.reliability.harness import describe, figures, instances, none_of, program

POLL_S = 0.1


class Backend:
    """One instance as the balancer sees it."""

    def __init__(self, instance: Server) -> None:
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


def stop(instance: Server) -> Stop:
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


@dataclass(frozen=True)
class Rolled:
    """What came of the requests, sent at ``rate`` a second, and how each instance stopped."""

    rate: float
    tally: Tally
    stops: Sequence[Stop]


async def roll(made: list[Server], restarts: int, load: float, rate: float | None) -> Rolled:
    """Restart the instances in turn, ``restarts`` times in all, while images come at ``load`` of what one takes."""
    if rate is None:
        requests = [image.request for image in images()]
        peak = await asyncio.to_thread(closed_loop, made[0].classify, requests, 8, 3.0)
        rate = load * peak.per_second
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
    return Rolled(rate, balancer.tally, stops)


def measure(report: Report, settings: dict[str, str], restarts: int, load: float, rate: float | None) -> Rolled:
    """Two instances, restarted in turn."""
    with instances(2, **{**SETTINGS, **settings}) as made:
        for one in made:
            one.start()
        for one in made:
            one.wait_ready()
        describe(report, made[0])
        return asyncio.run(roll(made, restarts, load, rate))


def fill(report: Report, rolled: Rolled) -> None:
    """The figures and the promises."""
    tally, stops, ordered = rolled.tally, rolled.stops, sorted(rolled.tally.seconds)
    figures(
        report,
        f"{len(stops)} rolling restarts of 2 instances",
        {
            "images a second": rolled.rate,
            "sent elsewhere, as the port was closed": tally.refused,
            "sent again, as a kept connection was closed": tally.stale,
            "told to come back (429)": tally.busy,
            "p50, ms": percentile_ms(ordered, 0.5),
            "p99, ms": percentile_ms(ordered, 0.99),
            "unready after, s, at most": max(one.unready_s for one in stops),
            "refusing after, s, from": min(one.refused_s for one in stops),
            "gone after, s, at most": max(one.exited_s for one in stops),
        },
    )
    report.notes += [f"lost: {reason}" for reason in tally.lost[:10]]
    report.hold(
        [
            Target("answered", tally.answered, 1, at_least=True),
            none_of("wrong answers", tally.wrong),
            none_of("requests lost", len(tally.lost)),
            none_of("stops out of order", sum(not one.in_order for one in stops), f"of {len(stops)}"),
        ]
    )


@program
@click.option("--restarts", type=click.IntRange(1), default=50, show_default=True)
@click.option(
    "--load",
    type=click.FloatRange(0, min_open=True),
    default=0.7,
    show_default=True,
    help="Share of what one instance takes.",
)
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Images a second, in the place of a share.")
@click.option("--drain", type=click.FloatRange(0), default=2.0, show_default=True, help="RESNET_DRAIN_S.")
def main(settings: dict[str, str], restarts: int, load: float, rate: float | None, drain: float) -> Report:
    report = Report("reliability.restarts")
    fill(report, measure(report, {"RESNET_DRAIN_S": str(drain), **settings}, restarts, load, rate))
    return report


if __name__ == "__main__":
    main()
