"""Finds work in the store: each worker runs one job at a time, whichever worker took it in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from service.errors import UnknownJob
from service.jobs.claims import Claim
from service.jobs.record import ENDED, Job
from service.jobs.runner import Runner
from service.jobs.store import JobStore
from service.metrics import Metrics

logger = logging.getLogger(__name__)

# Jobs of this worker start at once; those that another took in, or left behind, are looked for this often.
_POLL_S: Final = 2.0


class Scheduler:
    """Claims jobs, the oldest first, and gives them to ``runner``; removes what is expired meanwhile."""

    def __init__(
        self,
        store: JobStore,
        runner: Runner,
        ready: Callable[[], bool],
        metrics: Metrics,
        poll_s: float = _POLL_S,
    ) -> None:
        self._store = store
        self._runner = runner
        self._ready = ready
        self._metrics = metrics
        self._poll_s = poll_s
        self._notified = asyncio.Event()
        self._stopping = False
        self._task = asyncio.create_task(self._schedule())

    def notify(self) -> None:
        """There is a new job."""
        self._notified.set()

    async def stop(self) -> None:
        """Returns when the job at work, if there is one, stands still; its claim is free then."""
        self._stopping = True
        self._runner.stop()
        self._notified.set()
        await self._task

    async def _schedule(self) -> None:
        while not self._stopping:
            self._notified.clear()
            try:
                worked = self._ready() and await self._turn()
            except Exception:
                logger.exception("the jobs cannot be looked through")
                worked = False
            if not (worked or self._stopping):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._notified.wait(), self._poll_s)

    async def _turn(self) -> bool:
        """Run one job to its end, passing over those that cannot go on for now; False where there is none."""
        for waiting in await asyncio.to_thread(self._waiting):
            claimed = await asyncio.to_thread(self._claim, waiting)
            if claimed is None:
                continue
            job, claim = claimed
            with claim:
                ended = await self._runner.run(job)
            if ended or self._stopping:
                await asyncio.to_thread(self._count)
                return ended
        return False

    def _waiting(self) -> list[Job]:
        self._store.sweep()
        return [job for job in self._count() if job.state not in ENDED]

    def _claim(self, job: Job) -> tuple[Job, Claim] | None:
        claim = Claim.take(self._store.folder(job.id))
        if claim is None:
            return None
        with contextlib.suppress(UnknownJob):
            job = self._store.find(job.id)  # what its last holder made of it
            if job.state not in ENDED:
                return job, claim
        claim.release()
        return None

    def _count(self) -> list[Job]:
        jobs = self._store.jobs()
        self._metrics.jobs(Counter(job.state for job in jobs))
        return jobs
