"""The threads that compute batches, shared by the models by the time they take."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

logger = logging.getLogger(__name__)

R = TypeVar("R")

REST_S: Final = 0.006
"""An eighth of what a refusal may take: a body is read over several rests. With 20 ms, refusals took seconds."""


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
        self._ended = threading.Event()
        self._resting = False

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
        self._ended.clear()
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

    def ended(self, _: ThreadFuture[Any]) -> None:
        """A slot's call has ended, and the event loop is told; from any thread."""
        self._ended.set()

    def rest_soon(self) -> None:
        """Let the event loop rest, after what it is at, until a call ends or ``REST_S`` are over.

        For overload: each of very many arrivals that is handled when it comes interrupts a slot, and finds its code
        gone from the core's caches. Those that gather meanwhile are handled in one go.
        """
        if not self._resting:
            self._resting = True
            asyncio.get_running_loop().call_soon(self._rest)

    def _rest(self) -> None:
        self._resting = False
        if not self.free:
            self._ended.wait(REST_S)

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
