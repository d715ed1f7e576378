"""The threads that compute batches, shared by the models by the time they take."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

logger = logging.getLogger(__name__)

R = TypeVar("R")


class Slots:
    """``count`` threads. One that comes free goes to the waiting model that has had the least time.

    Start-time fair queueing (Goyal, Vin and Cheng, 1996), the service being seconds
    of a slot: a model that was idle begins with as much as the one served last had,
    so that it is not paid for its idleness. Event loop only.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.free = count
        self._waiting: list[Turn] = []
        self._last_s = 0.0
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="slot")

    @property
    def waiting(self) -> int:
        """Models with work that wait for a slot."""
        return len(self._waiting)

    def join(self, retry: Callable[[], None]) -> Turn:
        """A place for one model; ``retry`` is called when a slot it waited for is free."""
        return Turn(self, retry)

    def take(self, turn: Turn) -> bool:
        if self.free:
            self.free -= 1
            self._last_s = turn.used_s = max(turn.used_s, self._last_s)
            return True
        self.wait(turn)
        return False

    def wait(self, turn: Turn) -> None:
        if turn not in self._waiting:
            turn.used_s = max(turn.used_s, self._last_s)
            self._waiting.append(turn)

    def give_back(self) -> None:
        self.free += 1
        while self.free and self._waiting:
            turn = min(self._waiting, key=lambda waiting: waiting.used_s)
            self._waiting.remove(turn)
            try:
                turn.retry()
            except Exception:  # one model's fault must not keep the slot from the others
                logger.exception("a model could not take its turn at a slot")

    def submit(self, call: Callable[[], R]) -> ThreadFuture[R]:
        return self._executor.submit(call)

    def close(self) -> None:
        self._executor.shutdown(wait=True)


class Turn:
    """One model's place among those that share the slots."""

    def __init__(self, slots: Slots, retry: Callable[[], None]) -> None:
        self.retry = retry
        self.used_s = 0.0
        self._slots = slots

    def take(self) -> bool:
        """Take a slot; where none is free, ``retry`` is called once, when this model's turn comes."""
        return self._slots.take(self)

    def give_back(self, busy_s: float, *, more: bool) -> None:
        """Free a slot that was busy for ``busy_s`` seconds; ``more`` asks for one again, in competition."""
        self.used_s += busy_s
        if more:
            self._slots.wait(self)
        self._slots.give_back()
