"""One job's images through its model: a few at a time, their lines kept in order and soon."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, Final, Protocol

import orjson

from service.errors import ImageError, InferenceFailed, JobFailed, NotReady, ServiceError, ShuttingDown, StorageFull
from service.jobs.inputs import Input
from service.jobs.record import Failure, Job
from service.jobs.results import Results
from service.jobs.store import INPUT, RESULTS, JobGone, JobStore
from service.metrics import Metrics

logger = logging.getLogger(__name__)

_KEEP_EVERY_S: Final = 1.0
_KEEP_EVERY_LINES: Final = 64
_MAX_CRASHES: Final = 3

_Line = tuple[bytes, bool]  # with its line feed, and whether it is an error


class Performer(Protocol):
    """What jobs are made of; it knows the models."""

    async def perform(self, job: Job, image: bytes) -> dict[str, Any]:
        """What the task's route answers for ``image``; raises what that would raise."""

    def width(self, job: Job) -> int:
        """How many images of ``job`` may be in work at once."""


class Runner:
    """Runs jobs of ``store`` whose claim the caller holds."""

    def __init__(self, store: JobStore, performer: Performer, max_image_bytes: int, metrics: Metrics) -> None:
        self._store = store
        self._performer = performer
        self._max_image_bytes = max_image_bytes
        self._metrics = metrics
        self._stopping = False

    def stop(self) -> None:
        """Take up no further image."""
        self._stopping = True

    async def run(self, job: Job) -> None:
        """Take ``job`` to its end, or as far as it goes before ``stop``; the rest is for whoever claims it next."""
        try:
            await self._run(job)
        except (ShuttingDown, NotReady):
            pass  # at its very start
        except JobGone:
            logger.info("job %s: removed before its end", job.id[:8])
        except ServiceError as error:
            await self._fail(job, error)
        except Exception:
            logger.exception("job %s failed", job.id[:8])
            await self._fail(job, ServiceError("the service failed on this job"))

    async def _run(self, job: Job) -> None:
        width = self._performer.width(job)
        job, images, results = await asyncio.to_thread(self._open, job)
        with images, results:
            job = await self._advance(job, images, results, width)
            if job.done == job.images:
                await asyncio.to_thread(results.sync)
                await asyncio.to_thread(self._store.end, job, "done")
                logger.info("job %s: done, %d images, %d failed", job.id[:8], job.done, job.failed)
            else:
                await asyncio.to_thread(self._store.save, job.model_copy(update={"state": "queued"}))

    def _open(self, job: Job) -> tuple[Job, Input, Results]:
        """Where ``job`` stands, by its results, whatever its record says."""
        folder = self._store.folder(job.id)
        try:
            contents = self._store.contents(job.id)
            images = Input(folder / INPUT, contents, self._store.settings.jobs_max_images, self._max_image_bytes)
            results = Results(folder / RESULTS)
        except FileNotFoundError:
            if self._store.exists(job.id):
                raise
            raise JobGone from None
        crashes = 0
        if job.state == "running":  # and yet its claim was free: its worker died
            crashes = job.crashes + 1 if results.done == job.resumed_at else 1
        job = job.model_copy(
            update={
                "state": "running",
                "done": results.done,
                "failed": results.failed,
                "resumed_at": results.done,
                "crashes": crashes,
            }
        )
        try:
            if crashes >= _MAX_CRASHES:
                raise JobFailed(f"its worker ended {crashes} times soon after image {results.done}")
            self._store.save(job)
        except BaseException:
            images.close()
            results.close()
            raise
        return job, images, results

    async def _advance(self, job: Job, images: Input, results: Results, width: int) -> Job:
        """Compute and keep what is missing, until all is there or the worker stops."""
        loop = asyncio.get_running_loop()
        window: deque[asyncio.Task[_Line]] = deque()
        lines: list[_Line] = []
        taken, kept_at, stopping = job.done, loop.time(), False
        try:
            while window or not (stopping or taken == job.images):
                if len(window) <= width // 2 and not stopping:
                    for data in await asyncio.to_thread(images.read, taken, width - len(window)):
                        window.append(asyncio.create_task(self._line(job, taken, images.images[taken].name, data)))
                        taken += 1
                try:
                    lines.append(await window[0])
                except (ShuttingDown, NotReady):
                    break
                window.popleft()
                if len(lines) >= _KEEP_EVERY_LINES or loop.time() - kept_at >= _KEEP_EVERY_S:
                    job, lines, kept_at = await asyncio.to_thread(self._keep, job, results, lines), [], loop.time()
                stopping = self._stopping
        finally:
            for task in window:
                task.cancel()
            await asyncio.gather(*window, return_exceptions=True)
        return await asyncio.to_thread(self._keep, job, results, lines)

    def _keep(self, job: Job, results: Results, lines: list[_Line]) -> Job:
        if not self._store.exists(job.id):
            raise JobGone
        if self._store.held()[1] > self._store.settings.jobs_max_bytes:
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
