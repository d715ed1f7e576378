"""Forms batches from a queue and runs them in slots; every image taken is settled.

All state lives on the event loop, so there is no lock. An image is dispatched
the moment a slot is free; while none is, work gathers and the next batch is
larger. No idle slot ever waits for a batch to fill.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from service.errors import DeadlineExceeded, InferenceFailed, ServiceError, ShuttingDown

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class Slots:
    """``count`` threads that compute batches, shared by all models, first come, first served."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.free = count
        self._waiting: deque[Callable[[], None]] = deque()
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="slot")

    def take(self, retry: Callable[[], None]) -> bool:
        """Take a slot; where none is free, ``retry`` is called once, when one is."""
        if self.free:
            self.free -= 1
            return True
        if retry not in self._waiting:
            self._waiting.append(retry)
        return False

    def give_back(self) -> None:
        self.free += 1
        # A model that still has work when its turn is over asks again, at the end of the line.
        while self.free and self._waiting:
            self._waiting.popleft()()

    def submit(self, call: Callable[[], R]) -> ThreadFuture[R]:
        return self._executor.submit(call)

    def close(self) -> None:
        self._executor.shutdown(wait=True)


class BatchObserver(Protocol):
    """Told what the batcher does; times in seconds."""

    def queued(self, images: int) -> None: ...

    def dispatched(self, waited_s: Sequence[float]) -> None: ...


@dataclass(slots=True, eq=False)
class _Item(Generic[T, R]):
    payload: T
    future: asyncio.Future[R]
    deadline: float
    queued_at: float


class Batcher(Generic[T, R]):
    """Batches for one model. ``run`` maps a batch's payloads to as many results, in a slot's thread."""

    def __init__(
        self, run: Callable[[list[T]], Sequence[R]], slots: Slots, max_batch: int, observer: BatchObserver
    ) -> None:
        self._run = run
        self._slots = slots
        self._max_batch = max_batch
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Item[T, R]] = deque()
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def submit(self, payload: T, deadline: float) -> R:
        """The result for ``payload``.

        ``deadline`` is absolute, on the event loop's clock. Cancelling the call
        takes the payload out of the queue.
        """
        if self._closed:
            raise ShuttingDown("the service is shutting down")
        future: asyncio.Future[R] = self._loop.create_future()
        item = _Item(payload, future, deadline, self._loop.time())
        self._queue.append(item)
        self._observer.queued(len(self._queue))
        self._dispatch()
        try:
            return await future
        finally:
            if item in self._queue:  # cancelled: its memory is not kept until a slot comes free
                self._queue.remove(item)
                self._changed()

    @property
    def closed(self) -> bool:
        return self._closed

    async def close(self) -> None:
        """Take nothing more, compute what is queued, and return when all is settled."""
        self._closed = True
        self._dispatch()
        while self._queue or self._running:
            self._idle.clear()
            await self._idle.wait()

    def _dispatch(self) -> None:
        """Start batches while there are both work and free slots."""
        while self._queue and self._slots.take(self._dispatch):
            batch = self._form()
            if not batch:
                self._slots.give_back()
                break
            self._execute(batch)
        self._changed()

    def _changed(self) -> None:
        self._observer.queued(len(self._queue))
        if not self._queue and not self._running:
            self._idle.set()

    def _form(self) -> list[_Item[T, R]]:
        """The next batch: this slot's share of the queue, without the cancelled and the expired."""
        now = self._loop.time()
        share = math.ceil(len(self._queue) / (1 + self._slots.free))
        batch: list[_Item[T, R]] = []
        while self._queue and len(batch) < min(share, self._max_batch):
            item = self._queue.popleft()
            if item.future.done():
                continue
            if item.deadline <= now:
                item.future.set_exception(DeadlineExceeded("the deadline passed in the queue"))
                continue
            batch.append(item)
        self._observer.dispatched([now - item.queued_at for item in batch])
        return batch

    def _execute(self, batch: list[_Item[T, R]]) -> None:
        self._running += 1
        payloads = [item.payload for item in batch]
        try:
            task = self._slots.submit(lambda: self._run(payloads))
        except RuntimeError as error:  # the system refuses a thread
            task = ThreadFuture()
            task.set_exception(error)
        task.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._settle, batch, done))

    def _settle(self, batch: list[_Item[T, R]], done: ThreadFuture[Sequence[R]]) -> None:
        """Give each waiting caller its result or the error; then the slot to the next batch."""
        self._running -= 1
        try:
            results = done.result()
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for {len(batch)} images")
            for item, result in zip(batch, results, strict=True):
                if not item.future.done():
                    item.future.set_result(result)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the callers must hear of it
            self._fail(batch, error)
        self._slots.give_back()
        self._dispatch()

    @staticmethod
    def _fail(batch: list[_Item[T, R]], error: BaseException) -> None:
        logger.error("a batch of %d images failed", len(batch), exc_info=error)
        for item in batch:
            if not item.future.done():
                known = isinstance(error, ServiceError)
                item.future.set_exception(error if known else InferenceFailed("the model failed on this image"))
