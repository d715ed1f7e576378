from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.errors import BadImage, InferenceFailed, NotReady, ServiceError, ShuttingDown, StorageFull, UnknownModel
from service.jobs import runner as runner_module
from service.jobs.record import Job
from service.jobs.runner import Runner
from service.jobs.store import INPUT, RESULTS, JobStore
from service.metrics import Metrics
from tests.service.conftest import eventually
from tests.service.jobs.conftest import Clock, a_job, a_store

Reply = Callable[[bytes], Any]
UNSERVED_S = 60.0
IMAGES = [f"image {i}".encode() for i in range(10)]


class Fake:
    """Answers an image with its text; counts what it is given and how many at once, and may hold them."""

    def __init__(self, reply: Reply | None = None, width: int = 3) -> None:
        self.models = {("tiny", "1")}
        self.given: list[bytes] = []
        self.at_once = 0
        self.most_at_once = 0
        self.released = asyncio.Event()
        self.released.set()
        self._reply = reply
        self._width = width

    async def perform(self, job: Job, image: bytes) -> dict[str, Any]:
        self.given.append(image)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await self.released.wait()
            return {"text": image.decode()} if self._reply is None else self._reply(image)
        finally:
            self.at_once -= 1

    def width(self, job: Job) -> int:
        if job.model not in self.models:
            raise UnknownModel("no model 'tiny' is served")
        return self._width


def a_runner(store: JobStore, fake: Fake, max_image_bytes: int = 1000, metrics: Metrics | None = None) -> Runner:
    return Runner(store, fake, max_image_bytes, metrics or Metrics(None), UNSERVED_S)


def run(store: JobStore, job: Job, reply: Reply | None = None, **options: Any) -> Fake:
    async def main() -> Fake:
        fake = Fake(reply)
        await a_runner(store, fake, **options).run(job)
        return fake

    return asyncio.run(main())


def lines(store: JobStore, job: Job) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (store.folder(job.id) / RESULTS).read_bytes().splitlines()]


def raising(error: Exception, when: bytes = b"image 4") -> Reply:
    def reply(image: bytes) -> dict[str, Any]:
        if image == when:
            raise error
        return {"text": image.decode()}

    return reply


def test_each_image_has_its_line_in_order(store: JobStore) -> None:
    job, metrics = a_job(store, IMAGES), Metrics(None)
    fake = run(store, job, metrics=metrics)
    assert lines(store, job) == [{"name": str(i), "index": i, "text": f"image {i}"} for i in range(10)]
    found = store.find(job.id)
    assert (found.state, found.done, found.failed, found.ended) == ("done", 10, 0, store.now())
    assert sorted(fake.given) == IMAGES
    assert not (store.folder(job.id) / INPUT).exists()
    assert 'resnet_job_images_total{outcome="done"} 10.0' in metrics.page().decode()


def test_lines_stay_in_order_whatever_is_ready_first(store: JobStore) -> None:
    class Backwards(Fake):
        async def perform(self, job: Job, image: bytes) -> dict[str, Any]:
            for _ in range(10 - int(image.split()[1])):
                await asyncio.sleep(0)
            return await super().perform(job, image)

    async def main() -> None:
        await a_runner(store, Backwards(width=10)).run(job)

    job = a_job(store, IMAGES)
    asyncio.run(main())
    assert [line["index"] for line in lines(store, job)] == list(range(10))


@pytest.mark.parametrize("width", [1, 2, 3, 100])
def test_no_more_are_in_work_at_once_than_are_allowed(store: JobStore, width: int) -> None:
    async def main() -> None:
        fake = Fake(width=width)
        fake.released.clear()
        running = asyncio.create_task(a_runner(store, fake).run(job))
        await eventually(lambda: fake.at_once == min(width, 10))
        fake.released.set()
        await running
        assert fake.most_at_once == min(width, 10)

    job = a_job(store, IMAGES)
    asyncio.run(main())
    assert store.find(job.id).state == "done"


def test_large_images_are_not_all_read_ahead(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_READ_AHEAD_BYTES", 2 * len(IMAGES[0]))

    async def main() -> None:
        fake = Fake(width=10)
        fake.released.clear()
        running = asyncio.create_task(a_runner(store, fake).run(job))
        await eventually(lambda: fake.at_once == 2)
        fake.released.set()
        await running
        assert fake.most_at_once <= 3

    job = a_job(store, IMAGES)
    asyncio.run(main())
    assert store.find(job.id).done == 10


@pytest.mark.parametrize("error", [BadImage("broken"), InferenceFailed("no numbers")])
def test_a_bad_image_fails_alone(store: JobStore, error: ServiceError) -> None:
    job = a_job(store, IMAGES)
    run(store, job, raising(error))
    found = store.find(job.id)
    assert (found.state, found.done, found.failed) == ("done", 10, 1)
    assert lines(store, job)[4] == {"name": "4", "index": 4, **error.as_json()}


def test_an_image_over_the_limit_fails_alone(store: JobStore) -> None:
    job = a_job(store, [b"small", b"too large"])
    run(store, job, max_image_bytes=5)
    assert [line.get("error", {}).get("code") for line in lines(store, job)] == [None, "image_too_large"]


def test_a_model_that_goes_leaves_the_job_to_others_and_fails_it_where_it_stays_away(
    store: JobStore, clock: Clock
) -> None:
    job = a_job(store, IMAGES)
    run(store, job, raising(UnknownModel("no model 'tiny' is served")))
    left = store.find(job.id)
    assert (left.state, left.done, left.unserved) == ("queued", 4, None)
    for passed_s in (0.0, UNSERVED_S - 1):
        clock.advance(passed_s)
        assert not unserved(store, job)
        left = store.find(job.id)
        assert (left.state, left.crashes) == ("queued", 0)
    clock.advance(1)
    assert unserved(store, job)
    found = store.find(job.id)
    assert (found.state, found.done, found.ended) == ("failed", 4, store.now())
    assert found.failure is not None
    assert (found.failure.code, found.failure.message) == ("unknown_model", "no model 'tiny' is served")
    assert [line["index"] for line in lines(store, job)] == [0, 1, 2, 3]


def unserved(store: JobStore, job: Job) -> bool:
    """Whether a worker that does not serve the job's model ends it."""

    async def main() -> bool:
        fake = Fake()
        fake.models.clear()
        return await a_runner(store, fake).run(store.find(job.id))

    return asyncio.run(main())


def test_a_job_that_a_worker_took_up_is_unserved_no_more(store: JobStore, clock: Clock) -> None:
    job = a_job(store, IMAGES)
    assert not unserved(store, job)
    assert store.find(job.id).unserved is not None
    run(store, store.find(job.id), raising(ShuttingDown("bye")))
    clock.advance(2 * UNSERVED_S)
    assert not unserved(store, job)
    run(store, store.find(job.id))
    assert store.find(job.id).state == "done"


def test_a_job_that_is_removed_while_its_model_is_unserved(store: JobStore) -> None:
    async def main() -> bool:
        fake = Fake()
        fake.models.clear()
        return await a_runner(store, fake).run(job)

    job = a_job(store, IMAGES)
    store.remove(job.id)
    assert not asyncio.run(main())
    assert store.held() == (0, 0)


def test_a_fault_of_ours_fails_the_job_and_says_no_more(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    job = a_job(store, IMAGES)
    run(store, job, raising(RuntimeError("secret")))
    found = store.find(job.id)
    assert found.failure is not None
    assert (found.state, found.failure.code) == ("failed", "internal")
    assert "secret" not in found.failure.message
    assert "secret" in caplog.text
    assert job.id not in caplog.text


def test_a_job_whose_input_is_gone_fails(store: JobStore) -> None:
    job = a_job(store, IMAGES)
    (store.folder(job.id) / INPUT).unlink()
    run(store, job)
    assert store.find(job.id).state == "failed"


def test_a_stop_between_images_leaves_the_rest_to_the_next(store: JobStore) -> None:
    async def main() -> list[bytes]:
        fake = Fake(width=3)
        runner = a_runner(store, fake)
        fake.released.clear()
        running = asyncio.create_task(runner.run(job))
        await eventually(lambda: fake.at_once == 3)
        runner.stop()
        fake.released.set()
        await running
        return fake.given

    job = a_job(store, IMAGES)
    first = asyncio.run(main())
    left = store.find(job.id)
    assert (left.state, left.done, left.ended) == ("queued", 3, None)
    second = run(store, left).given
    assert sorted(first + second) == IMAGES, "each image exactly once"
    assert [line["index"] for line in lines(store, job)] == list(range(10))
    assert store.find(job.id).crashes == 0


def test_whether_a_job_came_to_its_end_is_told(store: JobStore) -> None:
    """Else a scheduler would claim one that cannot go on again and again, without a pause."""

    async def main(reply: Reply | None) -> bool:
        return await a_runner(store, Fake(reply)).run(a_job(store, IMAGES))

    assert asyncio.run(main(None))
    assert asyncio.run(main(raising(StorageFull("full"))))
    assert not asyncio.run(main(raising(UnknownModel("gone"))))
    assert not asyncio.run(main(raising(ShuttingDown("bye"))))
    assert not asyncio.run(main(raising(NotReady("loading"), IMAGES[0])))


def test_a_service_that_shuts_down_fails_no_job(store: JobStore) -> None:
    job = a_job(store, IMAGES)
    run(store, job, raising(ShuttingDown("bye")))
    left = store.find(job.id)
    assert (left.state, left.done) == ("queued", 4)


def killed(store: JobStore, job: Job, after: int) -> Job:
    """``job`` as a worker leaves it that dies after ``after`` more lines, one of them torn."""
    path = store.folder(job.id) / RESULTS
    with path.open("ab") as file:
        for index in range(job.done, job.done + after):
            file.write(orjson.dumps({"name": str(index), "index": index, "text": "before"}) + b"\n")
        file.write(b'{"name":"torn","index":')
    left = job.model_copy(update={"state": "running", "resumed_at": job.done})
    store.save(left)
    return left


def test_a_job_resumes_where_its_results_end(store: JobStore) -> None:
    job = a_job(store, IMAGES)
    fake = run(store, killed(store, job, after=4))
    assert sorted(fake.given) == IMAGES[4:]
    assert [line["text"] for line in lines(store, job)] == ["before"] * 4 + [f"image {i}" for i in range(4, 10)]
    assert (store.find(job.id).state, store.find(job.id).done) == ("done", 10)


def test_a_job_that_was_complete_but_for_its_record_is_done(store: JobStore) -> None:
    job = a_job(store, IMAGES)
    assert run(store, killed(store, job, after=10)).given == []
    assert (store.find(job.id).state, store.find(job.id).done) == ("done", 10)


class Died(BaseException):
    """Stands for the end of the process."""


async def _dies(*_: Any) -> Job:
    raise Died


def test_a_job_that_ends_its_workers_at_one_place_is_given_up(store: JobStore) -> None:
    """Else an image that crashes a decoder would take the service down for ever."""
    job = a_job(store, IMAGES)
    deaths = 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Runner, "_advance", _dies)
        while store.find(job.id).state != "failed":
            try:
                run(store, store.find(job.id))
            except Died:
                deaths += 1
    assert deaths == 3
    found = store.find(job.id)
    assert found.failure is not None
    assert found.failure.code == "job_failed"
    assert "3 times soon after image 0" in found.failure.message


def test_crashes_at_different_places_do_not_add_up(store: JobStore) -> None:
    job = a_job(store, IMAGES)
    for _ in range(5):
        job = killed(store, store.find(job.id), after=1)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Runner, "_advance", _stands_still)
            run(store, job)
        job = store.find(job.id)
    assert (job.state, job.done) == ("queued", 5)


async def _stands_still(_: Runner, job: Job, *__: Any) -> Job:
    return job


def test_a_removed_job_is_left_at_once(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        fake = Fake(width=2)
        fake.released.clear()
        running = asyncio.create_task(a_runner(store, fake).run(job))
        await eventually(lambda: fake.at_once == 2)
        store.remove(job.id)
        fake.released.set()
        await running
        assert len(fake.given) < len(many)

    many = [b"x"] * 1000
    job = a_job(store, many)
    asyncio.run(main())
    assert not store.exists(job.id)
    assert store.held() == (0, 0)
    assert "removed before its end" in caplog.text


def test_a_job_that_was_removed_before_it_began(store: JobStore) -> None:
    job = a_job(store, IMAGES)
    store.remove(job.id)
    assert run(store, job).given == []
    assert store.held() == (0, 0)


def test_results_beyond_all_bytes_fail_the_job(tmp_path: Path, clock: Clock) -> None:
    store = a_store(tmp_path, clock, jobs_max_bytes=2**20)
    job = a_job(store, IMAGES)
    run(store, job, lambda image: {"text": "x" * 2**18})
    found = store.find(job.id)
    assert found.failure is not None
    assert (found.state, found.failure.code) == ("failed", "storage_full")


def test_a_full_disk_fails_the_job(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise StorageFull("the disk for jobs is full")

    job = a_job(store, IMAGES)
    monkeypatch.setattr("service.jobs.results.Results.append", full)
    run(store, job)
    found = store.find(job.id)
    assert (found.state, found.done) == ("failed", 0)
    assert not (store.folder(job.id) / INPUT).exists()
