from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from service.jobs.claims import Claim
from service.jobs.record import Job
from service.jobs.scheduler import Scheduler
from service.jobs.store import JobStore
from service.metrics import Metrics
from tests.service.conftest import eventually
from tests.service.jobs.conftest import Clock, a_job
from tests.service.jobs.test_runner import IMAGES, Fake, a_runner, lines

NEVER_S = 3600.0


class Worker:
    """One worker's part: scheduler, runner and what it computes with."""

    def __init__(self, store: JobStore, poll_s: float = NEVER_S, held: bool = False) -> None:
        self.fake = Fake()
        if held:
            self.fake.released.clear()
        self.ready = True
        self.looks = 0
        self.metrics = Metrics(None)
        runner = a_runner(store, self.fake, metrics=self.metrics)
        self.scheduler = Scheduler(store, runner, self._look, self.metrics, poll_s)

    def _look(self) -> bool:
        self.looks += 1
        return self.ready


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await main()

    asyncio.run(bounded())


def ended(store: JobStore, *jobs: Job) -> Callable[[], bool]:
    return lambda: all(store.find(job.id).state == "done" for job in jobs)


def test_what_is_there_is_run_the_oldest_first(store: JobStore, clock: Clock) -> None:
    async def main() -> None:
        worker = Worker(store)
        await eventually(ended(store, *jobs))
        await worker.scheduler.stop()
        assert worker.fake.given == [b"0", b"1", b"2"]
        assert 'resnet_jobs{state="done"} 3.0' in worker.metrics.page().decode()

    jobs = []
    for number in range(3):
        clock.advance(1)
        jobs.append(a_job(store, [str(number).encode()]))
    run(main)


def test_a_new_job_starts_when_it_is_notified(store: JobStore) -> None:
    async def main() -> None:
        worker = Worker(store)
        await asyncio.sleep(0)
        job = a_job(store)
        worker.scheduler.notify()
        await eventually(ended(store, job))
        await worker.scheduler.stop()

    run(main)


def test_another_workers_job_is_found_by_looking(store: JobStore) -> None:
    async def main() -> None:
        worker = Worker(store, poll_s=0.001)
        await asyncio.sleep(0)
        job = a_job(store)
        await eventually(ended(store, job))
        await worker.scheduler.stop()

    run(main)


def test_nothing_is_begun_before_the_models_are_there(store: JobStore) -> None:
    async def main() -> None:
        worker = Worker(store, poll_s=0.001)
        worker.ready = False
        await eventually(lambda: worker.looks > 3)
        assert store.find(job.id).state == "queued"
        worker.ready = True
        await eventually(ended(store, job))
        await worker.scheduler.stop()

    job = a_job(store)
    run(main)


def test_two_workers_never_run_one_job_twice(store: JobStore) -> None:
    async def main() -> None:
        first, second = Worker(store, 0.001, held=True), Worker(store, 0.001, held=True)
        await eventually(lambda: first.fake.at_once == 3 and second.fake.at_once == 3, "a job for each")
        first.fake.released.set()
        second.fake.released.set()
        await eventually(ended(store, *jobs))
        await asyncio.gather(first.scheduler.stop(), second.scheduler.stop())
        assert sorted(first.fake.given + second.fake.given) == sorted(IMAGES * 3)

    jobs = [a_job(store, IMAGES) for _ in range(3)]
    run(main)
    for job in jobs:
        assert [line["index"] for line in lines(store, job)] == list(range(10))


def test_a_job_whose_version_this_worker_lacks_is_another_workers(store: JobStore) -> None:
    async def main() -> None:
        old = Worker(store, poll_s=0.001)
        await eventually(ended(store, behind), "jobs behind it go on")
        await eventually(lambda: store.find(job.id).unserved is not None)
        looks = old.looks
        await eventually(lambda: old.looks > looks + 3)
        assert store.find(job.id).state == "queued"
        new = Worker(store, poll_s=0.001)
        new.fake.models.add(job.model)
        await eventually(ended(store, job))
        await asyncio.gather(old.scheduler.stop(), new.scheduler.stop())
        assert (old.fake.given, sorted(new.fake.given)) == ([b"behind"], sorted(IMAGES))

    job = a_job(store, IMAGES, model=("tiny", "2"))
    behind = a_job(store, [b"behind"], created=job.created + timedelta(seconds=1))
    run(main)


def test_a_claimed_job_is_left_alone_until_it_is_free(store: JobStore) -> None:
    async def main() -> None:
        claim = Claim.take(store.folder(job.id))
        assert claim is not None
        worker = Worker(store, poll_s=0.001)
        await eventually(lambda: worker.looks > 3)
        assert worker.fake.given == []
        claim.release()
        await eventually(ended(store, job))
        await worker.scheduler.stop()

    job = a_job(store)
    run(main)


def test_a_stop_leaves_the_job_unclaimed_and_the_next_worker_goes_on(store: JobStore) -> None:
    async def main() -> None:
        first = Worker(store, held=True)
        await eventually(lambda: first.fake.at_once == 3)
        stopping = asyncio.create_task(first.scheduler.stop())
        first.fake.released.set()
        await stopping
        assert store.find(job.id).state == "queued"
        second = Worker(store)
        await eventually(ended(store, job))
        await second.scheduler.stop()
        assert sorted(first.fake.given + second.fake.given) == sorted(IMAGES)

    job = a_job(store, IMAGES)
    run(main)


def test_expired_jobs_go_while_there_is_nothing_to_do(store: JobStore, clock: Clock) -> None:
    async def main() -> None:
        worker = Worker(store, poll_s=0.001)
        await eventually(ended(store, job))
        clock.advance(store.settings.jobs_ttl_s)
        await eventually(lambda: not store.exists(job.id))
        await worker.scheduler.stop()

    job = a_job(store)
    run(main)


def test_trouble_with_the_disk_is_no_end(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, failures = store.sweep, []

    def troubled(*_: Any) -> None:
        if len(failures) < 3:
            failures.append(1)
            raise OSError("input/output error")
        real()

    async def main() -> None:
        worker = Worker(store, poll_s=0.001)
        await eventually(ended(store, job))
        await worker.scheduler.stop()

    job = a_job(store)
    monkeypatch.setattr(store, "sweep", troubled)
    run(main)
    assert "cannot be looked through" in caplog.text
