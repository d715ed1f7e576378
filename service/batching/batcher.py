"""Forms batches from a queue and runs them in slots; every image taken is settled.

All state lives on the event loop, so there is no lock. An image is dispatched
the moment a slot is free; while none is, work gathers and the next batch is
larger. No idle slot waits for a batch to fill, unless a delay was asked for.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future as ThreadFuture
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from service.batching.company import Company
from service.batching.forming import Forming, Load, Wait, next_batch
from service.batching.slots import Slots
from service.errors import DeadlineExceeded, InferenceFailed, ServiceError, ShuttingDown

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class BatchObserver(Protocol):
    """Told what the batcher does; times in seconds."""

    def queued(self, images: int, oldest_s: float | None) -> None: ...

    def dispatched(self, waited_s: Sequence[float]) -> None: ...


@dataclass(slots=True, eq=False)
class _Item(Generic[T, R]):
    payload: T
    future: asyncio.Future[R]
    deadline: float
    queued_at_s: float  # of time.perf_counter, as the event loop's clock may tick in milliseconds


class Batcher(Generic[T, R]):
    """Batches for one model. ``run`` maps a batch's payloads to as many results, in a slot's thread.

    Its second argument says whether this batch may have the machine to itself:
    one image, with nothing else running or waiting, as most were of late.
    """

    def __init__(
        self,
        run: Callable[[list[T], bool], Sequence[R]],
        slots: Slots,
        forming: Forming,
        observer: BatchObserver,
    ) -> None:
        self._run = run
        self._slots = slots
        self._turn = slots.join(self._dispatch)
        self._forming = forming
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Item[T, R]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._computing = 0
        self._company = Company()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def submit(self, payload: T, deadline: float) -> R:
        """The result for ``payload``.

        ``deadline`` is absolute, on the event loop's clock. Cancelling the call
        takes the payload out of the queue.
        """
        item = self._enqueue(payload, deadline)
        self._dispatch()
        try:
            return await item.future
        finally:
            self._forget([item])
            del item  # its error's traceback has this frame

    async def submit_all(self, payloads: Sequence[T], deadline: float) -> list[R]:
        """The results for ``payloads``, queued together so that free slots share them; the first failure is raised."""
        items = [self._enqueue(payload, deadline) for payload in payloads]
        self._dispatch()
        try:
            return await asyncio.gather(*(item.future for item in items))
        finally:
            self._forget(items)
            del items  # the error's traceback has this frame

    def _enqueue(self, payload: T, deadline: float) -> _Item[T, R]:
        if self._closed:
            raise ShuttingDown("the service is shutting down")
        item: _Item[T, R] = _Item(payload, self._loop.create_future(), deadline, time.perf_counter())
        self._company.came(others=bool(self._queue) or self._slots.free < self._slots.count)
        self._queue.append(item)
        return item

    def _forget(self, items: list[_Item[T, R]]) -> None:
        """Nobody waits for ``items`` any more: what is unsettled leaves the queue, and its memory with it."""
        unsettled = [item for item in items if item.future.cancelled() or not item.future.done()]
        for item in unsettled:
            item.future.cancel()
            if item in self._queue:
                self._queue.remove(item)
        if unsettled:
            self._changed()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def queued(self) -> int:
        """Images that wait for a slot."""
        return len(self._queue)

    @property
    def computing(self) -> int:
        """Images in slots."""
        return self._computing

    async def close(self) -> None:
        """Take nothing more, compute what is queued, and return when all is settled."""
        self._closed = True
        self._dispatch()
        while self._queue or self._computing:
            self._idle.clear()
            await self._idle.wait()

    def _dispatch(self) -> None:
        """Start batches while there are work and free slots."""
        while self._queue and self._turn.take():
            batch: list[_Item[T, R]] = []
            try:
                self._form(batch)
            except Exception as error:  # noqa: BLE001 - what left the queue is settled, and the slot is not lost
                self._fail(batch, error)
                batch = []
            if not batch:
                self._turn.give_back(0.0, more=False)
                break
            self._execute(batch)
        self._changed()

    def _changed(self) -> None:
        oldest_s = self._queue[0].queued_at_s if self._queue else None
        self._observe(lambda observer: observer.queued(len(self._queue), oldest_s))
        if not self._queue and not self._computing:
            self._idle.set()

    def _observe(self, tell: Callable[[BatchObserver], None]) -> None:
        """What cannot be counted is computed all the same: a full disk under the metrics fails no image."""
        try:
            tell(self._observer)
        except Exception:
            logger.exception("a batch could not be counted")

    def _form(self, batch: list[_Item[T, R]]) -> None:
        """Fill ``batch`` from the queue, without the cancelled and the expired; with nothing where it may gather."""
        now, now_s = self._loop.time(), time.perf_counter()
        size = self._size(now_s)
        while self._queue and len(batch) < size:
            item = self._queue.popleft()
            if item.future.done():
                continue
            if item.deadline <= now:
                item.future.set_exception(DeadlineExceeded("the deadline passed in the queue"))
                continue
            batch.append(item)
        if batch:
            self._observe(lambda observer: observer.dispatched([now_s - item.queued_at_s for item in batch]))

    def _size(self, now_s: float) -> int:
        """Images to take; 0 where they may wait for more, and a timer is set to look again."""
        oldest_s = math.inf if self._closed else now_s - self._queue[0].queued_at_s
        slots = self._slots
        load = Load(len(self._queue), self._computing, oldest_s, 1 + slots.free, slots.count)
        found = next_batch(self._forming, load)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if isinstance(found, Wait):
            self._timer = self._loop.call_later(found.seconds, self._dispatch)
            return 0
        return found

    def _execute(self, batch: list[_Item[T, R]]) -> None:
        alone = len(batch) == 1 and not self._queue and self._slots.free == self._slots.count - 1 and self._company.rare
        self._computing += len(batch)
        began_s = time.perf_counter()
        payloads = [item.payload for item in batch]
        try:
            task = self._slots.submit(lambda: self._run(payloads, alone))
        except RuntimeError as error:  # the system refuses a thread; the call is queued all the same
            payloads.clear()
            task = ThreadFuture()
            task.set_exception(error)
        task.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._settle, batch, done, began_s))
        task.add_done_callback(self._slots.ended)

    def _settle(self, batch: list[_Item[T, R]], done: ThreadFuture[Sequence[R]], began_s: float) -> None:
        """The slot to the next batch, so that it does not idle; then each waiting caller its result or the error."""
        # The batch still counts as being computed: those who sent it will send more.
        self._turn.give_back(time.perf_counter() - began_s, more=bool(self._queue))
        self._computing -= len(batch)
        try:
            results = done.result()
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for {len(batch)} images")
            for item, result in zip(batch, results, strict=True):
                if not item.future.done():
                    item.future.set_result(result)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the callers must hear of it
            self._fail(batch, error)
        self._changed()

    @staticmethod
    def _fail(batch: list[_Item[T, R]], error: BaseException) -> None:
        logger.error("a batch of %d images failed", len(batch), exc_info=error)
        for item in batch:
            if not item.future.done():
                known = isinstance(error, ServiceError)
                item.future.set_exception(error if known else InferenceFailed("the model failed on this image"))
