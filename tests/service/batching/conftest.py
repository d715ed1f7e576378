"""Batchers over slots that the test ends by hand, and an observer that remembers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future as ThreadFuture
from typing import Any

from service.batching.batcher import Batcher
from service.batching.forming import Forming
from service.batching.slots import Slots

FAR = math.inf


class Observer:
    def __init__(self) -> None:
        self.queue = 0
        self.waits: list[list[float]] = []

    def queued(self, images: int, oldest_s: float | None) -> None:
        assert (oldest_s is None) == (images == 0)
        self.queue = images

    def dispatched(self, waited_s: Sequence[float]) -> None:
        self.waits.append(list(waited_s))


class ManualSlots(Slots):
    """Slots that compute at once, but are busy until the test says with which outcome they end."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.pending: list[tuple[Any, ThreadFuture[Any]]] = []

    def submit(self, call: Callable[[], Any]) -> ThreadFuture[Any]:
        future: ThreadFuture[Any] = ThreadFuture()
        try:
            result = call()
        except Exception as error:  # noqa: BLE001
            result = error
        self.pending.append((result, future))
        return future

    def finish(self, index: int = 0, outcome: Any = None) -> None:
        """End the work at ``index`` of those pending with its result, or with ``outcome``."""
        result, future = self.pending.pop(index)
        result = result if outcome is None else outcome
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def identity(batch: list[Any]) -> list[Any]:
    return list(batch)


def batching(run: Callable[[list[Any]], Any], slots: Slots, max_batch: int, observer: Observer) -> Batcher[Any, Any]:
    return Batcher(lambda batch, _: run(batch), slots, Forming(max_batch), observer)


def start(batcher: Batcher[Any, Any], payload: Any, deadline: float = FAR) -> asyncio.Task[Any]:
    return asyncio.create_task(batcher.submit(payload, deadline))
