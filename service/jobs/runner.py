"""One job's images through its model: a few at a time, their lines kept in order and soon."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any, Final, Protocol

import orjson

from service.errors import (
    ImageError,
    InferenceFailed,
    JobFailed,
    NotReady,
    ServiceError,
    ShuttingDown,
    StorageFull,
    UnknownModel,
)
from service.jobs.inputs import Input, size_of
from service.jobs.record import Failure, Job
from service.jobs.results import Results
from service.jobs.store import INPUT, RESULTS, JobGone, JobStore
from service.metrics import Metrics

logger = logging.getLogger(__name__)

_KEEP_EVERY_S: Final = 1.0
_KEEP_EVERY_LINES: Final = 64
_MAX_CRASHES: Final = 3
_READ_AHEAD_BYTES: Final = 64 * 2**20
_LATER: Final = (ShuttingDown, NotReady, UnknownModel)
"""What ends no job: this worker, or another that serves the model, may go on with it."""

_Line = tuple[bytes, bool]  # with its line feed, and whether it is an error


class _Window:
    """The images in work: at most ``width``, and few large ones, so that what is read ahead stays small."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._sizes: deque[int] = deque()
        self.tasks: deque[asyncio.Task[_Line]] = deque()

    @property
    def has_room(self) -> bool:
        """Whether half of it is free: images are read some at a time."""
        return len(self.tasks) <= self._width // 2 and sum(self._sizes) <= _READ_AHEAD_BYTES // 2

    @property
    def room(self) -> tuple[int, int]:
        """For how many images, and how many bytes."""
        return self._width - len(self.tasks), _READ_AHEAD_BYTES - sum(self._sizes)

    def add(self, line: Coroutine[Any, Any, _Line], size: int) -> None:
        self.tasks.append(asyncio.create_task(line))
        self._sizes.append(size)

    async def first(self) -> _Line:
        line = await self.tasks[0]
        self.tasks.popleft()
        self._sizes.popleft()
        return line

    async def close(self) -> None:
        """Nobody waits for what is left."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Performer(Protocol):
    """What jobs are made of; it knows the models."""

    async def perform(self, job: Job, image: bytes) -> dict[str, Any]:
        """What the task's route answers for ``image``; raises what that would raise."""

    def width(self, job: Job) -> int:
        """How many images of ``job`` may be in work at once; ``UnknownModel`` where its model is not served here."""


class Runner:
    """Runs jobs of ``store`` whose claim the caller holds.

    While versions change, workers serve different ones. So a job whose model is not served here is left to others, and
    fails when none took it up for ``unserved_s``.
    """

    def __init__(
        self, store: JobStore, performer: Performer, max_image_bytes: int, metrics: Metrics, unserved_s: float
    ) -> None:
        self._store = store
        self._performer = performer
        self._max_image_bytes = max_image_bytes
        self._metrics = metrics
        self._unserved = timedelta(seconds=unserved_s)
        self._stopping = False

    def stop(self) -> None:
        """Take up no further image."""
        self._stopping = True

    async def run(self, job: Job) -> bool:
        """Take ``job`` to its end; False where it goes only as far as ``stop`` or the models let it.

        The rest is for whoever claims it next.
        """
        try:
            return await self._run(job)
        except (ShuttingDown, NotReady):
            return False  # at its very start
        except UnknownModel as error:
            if await asyncio.to_thread(self._may_wait, job):
                return False
            await self._fail(job, error)
        except JobGone:
            logger.info("job %s: removed before its end", job.id[:8])
        except ServiceError as error:
            await self._fail(job, error)
        except Exception:
            logger.exception("job %s failed", job.id[:8])
            await self._fail(job, ServiceError("the service failed on this job"))
        return True

    def _may_wait(self, job: Job) -> bool:
        """Whether ``job``, whose model is not served here, is left to others; its record tells since when."""
        since = job.unserved or self._store.now()
        if self._store.now() - since >= self._unserved:
            return False
        with suppress(JobGone, StorageFull):
            self._store.save(job.model_copy(update={"unserved": since}))
        return True

    async def _run(self, job: Job) -> bool:
        width = self._performer.width(job)
        job, images, results = await asyncio.to_thread(self._open, job)
        with images, results:
            job = await self._advance(job, images, results, width)
            whole = job.done == job.images
            if whole:
                await asyncio.to_thread(results.sync)
                await asyncio.to_thread(self._store.end, job, "done")
                logger.info("job %s: done, %d images, %d failed", job.id[:8], job.done, job.failed)
            else:
                await asyncio.to_thread(self._store.save, job.model_copy(update={"state": "queued"}))
        return whole

    def _open(self, job: Job) -> tuple[Job, Input, Results]:
        """Where ``job`` stands, by its results, whatever its record says."""
        folder, most = self._store.folder(job.id), self._store.settings.jobs_max_images
        with ExitStack() as stack:
            try:
                contents = self._store.contents(job.id)
                images = stack.enter_context(Input(folder / INPUT, contents, most, self._max_image_bytes))
                results = stack.enter_context(Results(folder / RESULTS))
            except FileNotFoundError:
                if self._store.exists(job.id):
                    raise
                raise JobGone from None
            job = _taken_up(job, results)
            self._store.save(job)
            stack.pop_all()
        return job, images, results

    async def _advance(self, job: Job, images: Input, results: Results, width: int) -> Job:
        """Compute and keep what is missing, until all is there or the worker stops."""
        loop = asyncio.get_running_loop()
        window = _Window(width)
        lines: list[_Line] = []
        taken, kept_at = job.done, loop.time()
        interrupted: ServiceError | None = None
        try:
            while True:
                if window.has_room and taken < job.images and not self._stopping:
                    for data in await asyncio.to_thread(images.read, taken, *window.room):
                        window.add(self._line(job, taken, images.images[taken].name, data), size_of(data))
                        taken += 1
                if not window.tasks:
                    break
                try:
                    lines.append(await window.first())
                except ServiceError as error:  # what is computed is kept all the same
                    interrupted = error
                    break
                if len(lines) >= _KEEP_EVERY_LINES or loop.time() - kept_at >= _KEEP_EVERY_S:
                    job, lines, kept_at = await asyncio.to_thread(self._keep, job, results, lines), [], loop.time()
        finally:
            await window.close()
        job = await asyncio.to_thread(self._keep, job, results, lines)
        if interrupted is not None and not isinstance(interrupted, _LATER):
            raise interrupted
        return job

    def _keep(self, job: Job, results: Results, lines: list[_Line]) -> Job:
        if not self._store.exists(job.id):
            raise JobGone
        if self._store.held()[1] + sum(len(line) for line, _ in lines) > self._store.settings.jobs_max_bytes:
            raise StorageFull("the jobs take all the bytes that they may")
        failed = sum(is_error for _, is_error in lines)
        results.append([line for line, _ in lines], failed)
        self._metrics.job_images(len(lines) - failed, failed)
        job = job.model_copy(update={"done": results.done, "failed": results.failed})
        self._store.save(job)
        return job

    async def _line(self, job: Job, index: int, name: str | None, data: bytes | ImageError) -> _Line:
        """One image's line. What is one image's fault is its line's; what is not fails the job."""
        try:
            if isinstance(data, ImageError):
                raise data
            result = await self._performer.perform(job, data)
        except (ImageError, InferenceFailed) as error:
            result = error.as_json()
        line = orjson.dumps(
            {"name": name, "index": index, **result}, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
        )
        return line, "error" in result

    async def _fail(self, job: Job, error: ServiceError) -> None:
        def end() -> None:
            # The record, not ``job``, knows how far it came.
            latest = self._store.find(job.id)
            failure = Failure(code=error.code, message=error.message)
            self._store.end(latest.model_copy(update={"failure": failure}), "failed")

        try:
            await asyncio.to_thread(end)
        except (JobGone, ServiceError) as second:
            logger.warning("job %s: not ended: %s", job.id[:8], second)
        else:
            logger.warning("job %s failed: %s", job.id[:8], error.message)


def _taken_up(job: Job, results: Results) -> Job:
    """``job`` as it is now taken up; ``JobFailed`` where that has ended its workers too often at one place."""
    crashes = 0
    if job.state == "running":  # and yet its claim was free: its worker died
        crashes = job.crashes + 1 if results.done == job.resumed_at else 1
    if crashes >= _MAX_CRASHES:
        raise JobFailed(f"its worker ended {crashes} times soon after image {results.done}")
    now = {"done": results.done, "failed": results.failed, "resumed_at": results.done, "crashes": crashes}
    return job.model_copy(update={"state": "running", "unserved": None, **now})
