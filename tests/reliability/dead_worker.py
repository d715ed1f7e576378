"""A dead worker comes back: workers are killed (SIGKILL) under load, in what says it is a container.

    python -m tests.reliability.dead_worker --kills 10

Only what a killed worker was at may fail; another takes its place; no gauge keeps what the dead one said. With one
worker, connections wait for the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from benchmarks.report import Report, Target
from benchmarks.server import Server, total
from tests.end_to_end.conftest import until
from tests.reliability.clients import SETTINGS, Tally, Together, images
from tests.reliability.harness import describe, figures, none_of, program, serving

BACK_LIMIT_S: Final = 15.0
BACK: Final = "capacity back after"
IN_CONTAINER: Final = {**SETTINGS, "BENTOML_CONTAINERIZED": "true"}


@dataclass
class Kill:
    """What one kill came to."""

    at_s: float = 0.0
    on_their_way: int = 0
    failed: int = 0
    failed_later: int = 0
    back_s: float = 0.0


@dataclass
class Killed:
    """All kills, what came of the requests, and gauges that stuck."""

    tally: Tally
    kills: list[Kill] = field(default_factory=list)
    stuck: Mapping[str, float] = field(default_factory=dict)


def ready_workers(server: Server) -> float:
    return total(server.metrics(), "resnet_workers_ready")


async def kill_one(server: Server, clients: Together, workers: int) -> Kill:
    """Kill the oldest worker, and wait until there are as many as before, ready."""
    await clients.answered(more=20)
    kill, victim = Kill(), server.workers()[0]
    kill.on_their_way = len(clients.begun)
    kill.at_s = time.monotonic()
    victim.kill()

    def back() -> bool:
        living = server.workers()
        return len(living) == workers and victim not in living and ready_workers(server) == workers

    await asyncio.to_thread(until, back, "capacity")
    kill.back_s = time.monotonic() - kill.at_s
    await clients.answered(more=20)
    kill.failed = sum(began <= kill.at_s for began in clients.failed)
    kill.failed_later = len(clients.failed) - kill.failed
    clients.failed.clear()
    return kill


async def kill_many(server: Server, kills: int, workers: int, clients: int) -> Killed:
    images()
    together = Together(server, clients)
    found = Killed(together.tally, [await kill_one(server, together, workers) for _ in range(kills)])
    await together.stop()
    return found


def stuck(server: Server, workers: int) -> dict[str, float]:
    """Gauges that do not show a service at rest, which they do a second after the last answer."""
    at_rest = {
        "resnet_workers_ready": workers,
        "resnet_images_held": 0,
        "resnet_queue_images": 0,
        "resnet_queue_oldest_seconds": 0,
        "resnet_slots_busy": 0,
    }

    def wrong() -> dict[str, float]:
        samples = server.metrics()
        assert set(at_rest) <= {name for name, _ in samples}
        shown = {name: total(samples, name) for name in at_rest}
        return {name: value for name, value in shown.items() if value != at_rest[name]}

    try:
        until(lambda: not wrong(), "rest", limit_s=30, pause_s=0.2)
    except AssertionError:
        return wrong()
    return {}


def measure(server: Server, kills: int, workers: int, clients: int) -> Killed:
    """Kill workers of ``server``, which has ``workers``, one at a time."""
    found = asyncio.run(kill_many(server, kills, workers, clients))
    found.stuck = stuck(server, workers)
    return found


def fill(report: Report, found: Killed) -> None:
    """The figures and the promises."""
    kills, tally = found.kills, found.tally
    figures(
        report,
        f"{len(kills)} workers killed",
        {
            "on their way at a kill": sum(kill.on_their_way for kill in kills),
            "of these failed": sum(kill.failed for kill in kills),
            "slowest answer, s": max(tally.seconds),
        },
    )
    more = sum(max(0, kill.failed - kill.on_their_way) for kill in kills)
    told = ", ".join(f"{name} {value:g}" for name, value in found.stuck.items())
    report.hold(
        [
            Target("answered", tally.answered, 1, at_least=True),
            none_of("wrong answers", tally.wrong),
            none_of("failed beyond those on their way", more),
            none_of("failed that were begun after a kill", sum(kill.failed_later for kill in kills)),
            Target(BACK, max(kill.back_s for kill in kills), BACK_LIMIT_S, at_least=False, unit="s"),
            none_of("gauges that stuck", len(found.stuck), told),
        ]
    )


def without_models(server: Server, store: Path) -> None:
    """A worker that replaces another when the store is gone: it tries on with pauses, and is not started over."""
    gone = store.with_name("gone")
    store.rename(gone)
    (victim,) = server.workers()
    victim.kill()
    until(lambda: "again in 4 s" in server.log, "the third try")
    assert server.readiness == 503
    assert len(server.workers()) == 1
    assert server.log.count("this worker replaces another") >= 3
    assert server.log.count(" died; another is started") == 1
    gone.rename(store)
    until(lambda: server.readiness == 200, "readiness", pause_s=0.1)


@program
@click.option("--kills", type=click.IntRange(1), default=10, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--clients", type=click.IntRange(1), default=8, show_default=True)
def main(settings: dict[str, str], kills: int, workers: int, clients: int) -> Report:
    report = Report("reliability.dead_worker")
    with serving(**{**IN_CONTAINER, **settings, "RESNET_WORKERS": str(workers)}) as server:
        describe(report, server)
        found = measure(server, kills, workers, clients)
    fill(report, found)
    return report


if __name__ == "__main__":
    main()
