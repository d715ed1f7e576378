"""A dead worker comes back: workers are killed (SIGKILL) under load, in what says it is a container.

    python -m tests.reliability.dead_worker --kills 10

Only what a killed worker was at may fail; another takes its place; no gauge keeps what the dead one said. With one
worker, connections wait for the next. Exit status 1 where a request failed that was begun after the kill, where more
failed than were on their way, where capacity was not back within 15 s, or where a gauge stuck.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from model_store.store import EMBEDDED_MODELS
from tests.end_to_end.conftest import until
from tests.reliability.instances import (
    ANSWER_LIMIT_S,
    LOST,
    Connection,
    Instance,
    Tally,
    images,
    instances,
    table,
)

BACK_LIMIT_S = 15.0
IN_CONTAINER = {"BENTOML_CONTAINERIZED": "true"}


@dataclass
class Kill:
    """What one kill came to."""

    at_s: float = 0.0
    on_their_way: int = 0
    failed: int = 0
    failed_later: int = 0
    back_s: float = 0.0


class Load:
    """Clients that send one image after the other, on a connection each, so that all workers have some."""

    def __init__(self, port: int, clients: int) -> None:
        self.tally = Tally()
        self.begun: dict[int, float] = {}
        self.failed: list[float] = []
        self._port = port
        self._numbers = itertools.count()
        self._tasks = [asyncio.create_task(self._client()) for _ in range(clients)]

    async def _client(self) -> None:
        while True:
            await self._one(next(self._numbers))

    async def _one(self, number: int) -> None:
        image = images()[number % len(images())]
        began = self.begun[number] = time.monotonic()
        connection = None
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                connection = await Connection.to(self._port)
                status, body = await connection.ask(image.request)
        except LOST:
            self.failed.append(began)
            return
        finally:
            del self.begun[number]
            if connection is not None:
                connection.close()
        assert status == 200, body
        self.tally.answered += 1
        self.tally.wrong += not image.is_answered_by(body)
        self.tally.seconds.append(time.monotonic() - began)

    async def answered(self, more: int) -> None:
        wanted = self.tally.answered + more
        while self.tally.answered < wanted:
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def kill_one(instance: Instance, load: Load, workers: int) -> Kill:
    """Kill the oldest worker, and wait until there are as many as before, ready."""
    await load.answered(more=20)
    kill, victim = Kill(), instance.workers()[0]
    kill.on_their_way = len(load.begun)
    kill.at_s = time.monotonic()
    victim.kill()

    def back() -> bool:
        living = instance.workers()
        return len(living) == workers and victim not in living and instance.metrics()["resnet_workers_ready"] == workers

    await asyncio.to_thread(until, back, "capacity")
    kill.back_s = time.monotonic() - kill.at_s
    await load.answered(more=20)
    kill.failed = sum(began <= kill.at_s for began in load.failed)
    kill.failed_later = len(load.failed) - kill.failed
    load.failed.clear()
    return kill


async def kill_many(instance: Instance, kills: int, workers: int, clients: int) -> tuple[list[Kill], Tally]:
    images()
    load = Load(instance.port, clients)
    found = [await kill_one(instance, load, workers) for _ in range(kills)]
    await load.stop()
    return found, load.tally


def stuck(instance: Instance, workers: int) -> dict[str, float]:
    """Gauges that do not show a service at rest, which they do a second after the last answer."""
    at_rest = {
        "resnet_workers_ready": workers,
        "resnet_images_held": 0,
        "resnet_queue_images": 0,
        "resnet_queue_oldest_seconds": 0,
        "resnet_slots_busy": 0,
    }

    def wrong() -> dict[str, float]:
        shown = instance.metrics()
        return {name: shown[name] for name, value in at_rest.items() if shown[name] != value}

    try:
        until(lambda: not wrong(), "rest", limit_s=30, pause_s=0.2)
    except AssertionError:
        return wrong()
    return {}


def run(kills: int, workers: int = 2, clients: int = 8, back_limit_s: float = BACK_LIMIT_S) -> bool:
    """Whether the promise held, with capacity back within a time; what it came to is printed."""
    with instances(1, RESNET_WORKERS=str(workers), **IN_CONTAINER) as (instance,):
        found, tally = asyncio.run(kill_many(instance, kills, workers, clients))
        gauges = stuck(instance, workers)
    table(
        f"{kills} workers killed, one of {workers} at a time, {clients} clients",
        {
            "answered": tally.answered,
            "wrong": tally.wrong,
            "on their way at a kill": sum(kill.on_their_way for kill in found),
            "of these failed": sum(kill.failed for kill in found),
            "failed that were begun after a kill": sum(kill.failed_later for kill in found),
            "capacity back after, s, at most": max(kill.back_s for kill in found),
            "slowest answer, s": max(tally.seconds),
            "gauges that stuck": gauges or "none",
        },
    )
    held = all(
        not kill.failed_later and kill.failed <= kill.on_their_way and kill.back_s <= back_limit_s for kill in found
    )
    return held and tally.answered > 0 and not tally.wrong and not gauges


def without_models() -> None:
    """A worker that replaces another when the store is gone: it tries on with pauses, and is not started over."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "models"
        shutil.copytree(EMBEDDED_MODELS, store)
        with instances(1, RESNET_WORKERS="1", RESNET_MODEL_STORE=str(store), **IN_CONTAINER) as (instance,):
            store.rename(Path(folder) / "gone")
            (victim,) = instance.workers()
            victim.kill()
            until(lambda: "again in 4 s" in instance.log, "the third try")
            assert instance.readiness == 503
            assert len(instance.workers()) == 1
            assert instance.log.count("this worker replaces another") >= 3
            assert instance.log.count(" died; another is started") == 1
            (Path(folder) / "gone").rename(store)
            instance.wait_ready()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--clients", type=int, default=8)
    given = options.parse_args()
    return 0 if run(given.kills, given.workers, given.clients) else 1


if __name__ == "__main__":
    sys.exit(main())
